"""Fits come to where they came; `tests.golden` says how that is written anew."""

import pytest

pytest.importorskip("sklearn")

from ..golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_fits_come_to_where_they_came(section):
    """Iterations, losses, scores and predictions, where the tables of kernels agree."""
    assert changed(golden, section) == []
