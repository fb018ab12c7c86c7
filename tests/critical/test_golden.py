"""Verdicts compared with the golden file, which detects a verdict that claims less than before.
Other tests check that no verdict claims too much. `tests.golden` updates the file.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_verdicts_and_their_numbers_are_unchanged(section):
    """Sentences and numbers of verdicts equal those in the golden file, as far as the kernel tables
    agree.
    """
    assert changed(golden, section) == []
