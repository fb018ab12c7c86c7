"""Fits compared with the golden file; `tests.golden` updates it."""

import pytest

pytest.importorskip("sklearn")

from ..golden import changed  # noqa: E402
from . import golden  # noqa: E402


@pytest.mark.parametrize("section", golden.SECTIONS)
def test_fitted_estimators_are_unchanged(section):
    """Iterations, losses, scores and predictions equal the golden ones, as far as kernel tables
    agree.
    """
    assert changed(golden, section) == []
