"""Verdicts compared with the golden file, which notices a verdict that claims less than before;
other tests check that none claims too much. `tests.golden` updates it.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_verdicts_and_their_numbers_are_unchanged(section):
    """Sentences and numbers of verdicts equal the golden ones, as far as the kernel tables
    agree.
    """
    assert changed(golden, section) == []
