"""The steps of every method equal those in the golden file, which `python -m tests.golden`
updates.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_steps_of_every_method_are_unchanged(section):
    """Counts, messages and final points of each section equal those in the golden file, up to
    differences between kernel tables.
    """
    assert changed(golden, section) == []
