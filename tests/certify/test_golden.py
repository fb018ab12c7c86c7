"""Computed bounds equal those in the golden file, which also detects bounds that change although
they still hold.

Without vector instructions and with any BLAS the bounds agree to 1e-11, so that the allowance of
1e-9 for the rounding of the bounds themselves is checked, too. `tests.golden` updates the file.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_bounds_are_unchanged(section):
    """Bounds equal those in the golden file for networks of every kind, at kinks, and for
    underflow, overflow, saturation and ties.
    """
    assert changed(golden, section) == []
