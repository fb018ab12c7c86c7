"""Fits come to where they came; `figures` says how that is written anew."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from ..agreement import holds  # noqa: E402
from .figures import figures  # noqa: E402

KNOWN = json.loads(Path(__file__).with_name("figures.json").read_text())


@pytest.mark.parametrize("kind", KNOWN)
def test_fits_come_to_where_they_came(kind):
    """Iterations, losses, scores and predictions, where the tables of kernels agree."""
    found = figures(kind)
    assert list(found) == list(KNOWN[kind])
    for what, numbers in found.items():
        held = KNOWN[kind][what]
        assert holds(held, numbers, "estimators"), (what, numbers, held)
