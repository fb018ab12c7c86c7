"""Symmetries and saturation stay what they are; `figures` says how they are written anew."""

import json
from pathlib import Path

import pytest

from ..agreement import holds
from .figures import NETS, figures

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("net", NETS)
def test_symmetries_and_saturation_are_what_they_were(net):
    """At points with units that read nothing, say nothing or are the same."""
    found = figures(net)
    assert list(found) == list(KNOWN[net])
    for what, said in found.items():
        assert holds(KNOWN[net][what], said, "structure"), (what, said, KNOWN[net][what])
