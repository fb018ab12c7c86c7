"""The numbers that bounds come to stay what they are: the other tests show that a bound holds, and
none would notice one that is twice too large, or too small by what no error found here uses.
"""

import json
from pathlib import Path

import pytest

from .figures import HELD, NETS, figures, of_held

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("net", NETS)
def test_bounds_are_what_they_were(net):
    """Up to what rounding in NumPy's own sums does; see `figures` for how to write them anew."""
    found = figures(**NETS[net])
    assert found == pytest.approx(KNOWN[net], rel=1e-4)


@pytest.mark.parametrize("net", HELD)
def test_bounds_on_kinks_are_what_they_were(net):
    found = of_held(**HELD[net])
    expected = {what: x for what, x in KNOWN[net].items() if what in found or what != "gradient"}
    assert found == pytest.approx(expected, rel=1e-4)


def test_every_net_is_known():
    assert list(KNOWN) == [*NETS, *HELD]
