"""Costs and proofs of every form of a curvature stay what they are; `figures` says how they are
written anew.
"""

import pytest

from ..agreement import changed, known
from ..agreement import returns as compared
from . import returns, spaces, states
from .figures import NETS, costs, figures

KNOWN, SPACES = known("network"), known("network.spaces")
STATES = known("network.states")


def test_costs_are_what_they_were():
    assert costs() == pytest.approx(KNOWN["costs"], rel=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_bounds_of_every_form_are_what_they_were(net):
    """Where a bound holds what rounding left, as of bases, to a half."""
    found, held = figures(**NETS[net]), KNOWN[net]
    assert list(found) == list(held)
    for what, x in found.items():
        rounded = what.startswith("reach") and " m" not in what and "size" not in what
        assert x == pytest.approx(held[what], rel=0.4 if rounded else 4e-10, abs=0), what


@pytest.mark.parametrize("name", spaces.PARTS)
def test_products_and_maps_of_every_form_are_what_they_were(name):
    assert changed(SPACES[name], spaces.figures(name), "network.spaces") == []


@pytest.mark.parametrize("name", states.NETS)
def test_what_forms_and_prices_are_made_of_is_what_it_was(name):
    assert changed(STATES[name], states.figures(name), "network.states") == []


@pytest.mark.parametrize("name", returns.PARTS)
def test_functions_return_on_the_way_what_they_returned(name):
    """Where the end would be the same, or its bound so wide that it tells nothing."""
    held = known("network.returns")[name]
    assert compared(held, returns.figures(name), "network.returns") == []
