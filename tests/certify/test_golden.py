"""The numbers that bounds come to stay what they are: the other tests show that a bound holds, and
none would notice one that is twice too large, or too small by what no error found here uses.

Without vector instructions and with any BLAS they are the same to 1e-11, so that what is added for
the rounding of the bounds themselves, 1e-9 of them, is held too. `tests.golden` says how they are
written anew.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_bounds_are_what_they_were(section):
    """On nets of every kind, on kinks, and by underflow, overflow, saturation and ties."""
    assert changed(golden, section) == []
