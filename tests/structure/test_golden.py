"""Symmetries and saturation equal the golden file, which `tests.golden` updates."""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_symmetries_and_saturation_are_unchanged(section):
    """Symmetries and saturation equal those in the golden file, also at points where a unit has
    zero input or output weights or two units are equal.
    """
    assert changed(golden, section) == []
