"""The numbers that bounds come to stay what they are: the other tests show that a bound holds, and
none would notice one that is twice too large, or too small by what no error found here uses.

Without vector instructions and with any BLAS they are the same to 1e-11, so that what is added for
the rounding of the bounds themselves, 1e-9 of them, is held too.
"""

import pytest

from ..agreement import changed, known
from . import regimes, states
from .figures import HELD, NETS, figures, of_held

TOLERANCE = 4e-10
# where a bound rests on what rounding left
LOOSE = dict.fromkeys(("relu and elu, batch norm", "elu, batch norm, binary, no l2"), 1e-2)
KNOWN, ENDS = known("certify"), known("certify.regimes")
STATES = known("certify.states")


@pytest.mark.parametrize("net", NETS)
def test_bounds_are_what_they_were(net):
    """Up to what rounding in NumPy's own sums does; see `figures` for how to write them anew."""
    found = figures(**NETS[net])
    assert found == pytest.approx(KNOWN[net], rel=LOOSE.get(net, TOLERANCE), abs=0)


@pytest.mark.parametrize("net", HELD)
def test_bounds_on_kinks_are_what_they_were(net):
    found = of_held(**HELD[net])
    expected = {what: x for what, x in KNOWN[net].items() if what in found or what != "gradient"}
    assert found == pytest.approx(expected, rel=TOLERANCE, abs=1e-12)


def test_every_net_is_known():
    assert list(KNOWN) == [*NETS, *HELD]


@pytest.mark.parametrize("name", regimes.NAMES)
def test_bounds_at_the_ends_of_the_range_are_what_they_were(name):
    """Underflow, overflow, saturation, ties, and how every table of kernels cuts its sums."""
    assert changed(ENDS[name], regimes.figures(name), "certify.regimes") == []


@pytest.mark.parametrize("name", states.NAMES)
def test_what_bounds_are_made_of_is_what_it_was(name):
    """Row by row, where the bound itself is made of so much else that few would notice; with
    another long double there is less of it.
    """
    found = states.figures(name)
    expected = {what: x for what, x in STATES[name].items() if what in found or what != "met"}
    assert changed(expected, found, "certify.states") == []
