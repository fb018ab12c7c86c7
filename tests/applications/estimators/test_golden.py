"""Fits equal those in the golden file, which `python -m tests.golden` updates."""

import pytest

pytest.importorskip("sklearn")

from ...golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_fitted_estimators_are_unchanged(section):
    """Iterations, losses, scores and predictions of each section equal those in the golden file, up
    to differences between kernel tables.
    """
    assert changed(golden, section) == []
