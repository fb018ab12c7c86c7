"""Products, grids, densities and errors of known spectra stay what they are: the other tests show
that an answer is right, and none would notice one that costs more, or claims a larger error, than
it has to. `figures` says how they are written anew.
"""

import pytest

from ..agreement import changed, known
from ..agreement import returns as compared
from . import returns, shared
from .figures import NAMES, figures

KNOWN, SHARED = known("spectrum"), known("spectrum.shared")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_of_a_known_spectrum_costs_and_claims_what_it_did(name):
    """Counts to the last; what rests on residuals or on a few probes to what rounding leaves."""
    assert changed(KNOWN[name], figures(name), "spectrum") == []


@pytest.mark.parametrize("name", shared.PARTS)
def test_runs_that_are_kept_smaller_spaces_and_whole_matrices_say_what_they_said(name):
    assert changed(SHARED[name], shared.figures(name), "spectrum.shared") == []


@pytest.mark.parametrize("name", returns.PARTS)
def test_functions_return_on_the_way_what_they_returned(name):
    """Where the end would be the same, or its bound so wide that it tells nothing."""
    held = known("spectrum.returns")[name]
    assert compared(held, returns.figures(name), "spectrum.returns") == []
