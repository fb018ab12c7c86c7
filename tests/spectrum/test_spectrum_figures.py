"""Products, grids, densities and errors of known spectra stay what they are: the other tests show
that an answer is right, and none would notice one that costs more, or claims a larger error, than
it has to. `figures` says how they are written anew.
"""

import json
from pathlib import Path

import pytest

from ..agreement import holds
from .figures import NAMES, figures

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_of_a_known_spectrum_costs_and_claims_what_it_did(name):
    """Counts to the last; what rests on residuals or on a few probes to what rounding leaves."""
    found, known = figures(name), KNOWN[name]
    assert list(found) == list(known)
    for what, x in found.items():
        assert holds(known[what], x, "spectrum"), (what, x, known[what])
