"""The steps of every method compared with the golden file; `tests.golden` updates it."""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_steps_of_every_method_are_unchanged(section):
    """Counts and final points equal the golden ones, as far as the kernel tables agree."""
    assert changed(golden, section) == []
