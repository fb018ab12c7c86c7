"""Every method takes the steps that it took: the other tests show that runs arrive, and few would
notice one that takes another way there. `figures` says how they are written anew.
"""

import json
from pathlib import Path

import pytest

from ..agreement import holds
from .figures import NETS, figures

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("name", [*NETS, "saddle", "parts"])
def test_methods_take_the_steps_that_they_took(name):
    """Counts, and where a run came to, where the tables of kernels agree."""
    found, known = figures(name), KNOWN[name]
    assert list(found) == list(known)
    for what, said in found.items():
        assert holds(known[what], said, "optimize"), (what, said, known[what])
