"""Verdicts stay what they are with all that they say: the other tests show that none says more than
is true, and none would notice one that says less. `figures` says how they are written anew.
"""

import json
from pathlib import Path

import pytest

from ..agreement import holds
from .figures import NETS, figures

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("net", [*NETS, "zoo", "hard"])
def test_verdicts_say_what_they_said(net):
    """Sentence by sentence and number by number, where the tables of kernels agree."""
    found, known = figures(net), KNOWN[net]
    assert list(found) == list(known)
    for what, said in found.items():
        assert holds(known[what], said, "critical"), (what, said, known[what])
