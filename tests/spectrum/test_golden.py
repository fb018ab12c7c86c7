"""Products, grids, densities and errors of known spectra stay what they are: the other tests show
that an answer is right, and none would notice one that costs more, or claims a larger error, than
it has to. `tests.golden` says how they are written anew.
"""

import pytest

from ..golden import changed
from . import golden


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_what_is_asked_of_a_spectrum_costs_and_claims_what_it_did(section):
    """Counts to the last; what rests on residuals or on a few probes to what rounding leaves."""
    assert changed(golden, section) == []
