"""Symmetries and saturation equal the golden file, which `tests.golden` updates."""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_symmetries_and_saturation_are_unchanged(section):
    """Symmetries and saturation equal the golden ones at points with units of zero input or output
    weights, or equal units.
    """
    assert changed(golden, section) == []
