"""Every method takes the steps that it took: the other tests show that runs arrive, and few would
notice one that takes another way there. `figures` says how they are written anew.
"""

import pytest

from ..agreement import changed, known
from ..agreement import returns as compared
from . import endings, returns
from .figures import NAMES, figures

KNOWN, ENDINGS = known("optimize"), known("optimize.endings")


@pytest.mark.parametrize("name", NAMES)
def test_methods_take_the_steps_that_they_took(name):
    """Counts, and where a run came to, where the tables of kernels agree."""
    assert changed(KNOWN[name], figures(name), "optimize") == []


@pytest.mark.parametrize("name", endings.PARTS)
def test_runs_end_are_saved_and_go_on_as_they_did(name):
    assert changed(ENDINGS[name], endings.figures(name), "optimize.endings") == []


@pytest.mark.parametrize("name", returns.PARTS)
def test_functions_return_on_the_way_what_they_returned(name):
    """Where the end would be the same, or its bound so wide that it tells nothing."""
    held = known("optimize.returns")[name]
    assert compared(held, returns.figures(name), "optimize.returns") == []
