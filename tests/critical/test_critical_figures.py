"""Verdicts stay what they are with all that they say: the other tests show that none says more than
is true, and none would notice one that says less. `figures` says how they are written anew.
"""

import pytest

from ..agreement import changed, known
from ..agreement import returns as compared
from . import pieces, returns, searches
from .figures import NAMES, figures

KNOWN, SEARCHES = known("critical"), known("critical.searches")
PIECES = known("critical.pieces")


@pytest.mark.parametrize("net", NAMES)
def test_verdicts_say_what_they_said(net):
    """Sentence by sentence and number by number, where the tables of kernels agree."""
    assert changed(KNOWN[net], figures(net), "critical") == []


@pytest.mark.parametrize("name", searches.PARTS)
def test_searches_find_and_cost_what_they_did(name):
    assert changed(SEARCHES[name], searches.figures(name), "critical.searches") == []


@pytest.mark.parametrize("name", pieces.PARTS)
def test_theorems_and_thresholds_give_what_they_gave(name):
    """On grids of numbers, where no verdict would tell one rule from another."""
    assert changed(PIECES[name], pieces.figures(name), "critical.pieces") == []


@pytest.mark.parametrize("name", returns.PARTS)
def test_functions_return_on_the_way_what_they_returned(name):
    """Where the end would be the same, or its bound so wide that it tells nothing."""
    held = known("critical.returns")[name]
    assert compared(held, returns.figures(name), "critical.returns") == []
