"""Every command prints what it printed, word by word; `figures` says how it is written anew."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from ..agreement import holds  # noqa: E402
from .figures import figures  # noqa: E402

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


def test_every_command_prints_what_it_printed():
    """Numbers where the tables of kernels agree, to what rounding leaves."""
    found = figures()
    assert list(found) == list(KNOWN)
    for what, said in found.items():
        assert holds(KNOWN[what], said, "cli"), (what, said, KNOWN[what])
