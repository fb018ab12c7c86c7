"""Fits come to where they came; `figures` says how that is written anew."""

import pytest

pytest.importorskip("sklearn")

from ..agreement import changed, known  # noqa: E402
from .figures import figures  # noqa: E402

KNOWN = known("estimators")


@pytest.mark.parametrize("kind", KNOWN)
def test_fits_come_to_where_they_came(kind):
    """Iterations, losses, scores and predictions, where the tables of kernels agree."""
    assert changed(KNOWN[kind], figures(kind), "estimators") == []
