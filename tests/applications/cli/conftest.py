"""A fixture for tests of reports that look at no picture."""

import pytest

from fastcurv.applications.cli import report


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the drawing of figures, which takes most of the time of a report."""
    picture = '<svg role="img" aria-label=""></svg>'
    monkeypatch.setattr(report, "svg_markup", lambda *_, **__: picture)
