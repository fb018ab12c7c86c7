"""Symmetries and saturation stay what they are; `figures` says how they are written anew."""

import pytest

from ..agreement import changed, known
from .figures import NETS, figures

KNOWN = known("structure")


@pytest.mark.parametrize("net", NETS)
def test_symmetries_and_saturation_are_what_they_were(net):
    """At points with units that read nothing, say nothing or are the same."""
    assert changed(KNOWN[net], figures(net), "structure") == []
