"""Fixtures for tests of reports: no pictures, and tables that are read in this process."""

import pytest

from fastcurv.applications.cli import report, tables


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the drawing of figures, which takes most of the time of a report."""
    picture = '<svg role="img" aria-label=""></svg>'
    monkeypatch.setattr(report, "svg_markup", lambda *_, **__: picture)


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch, request):
    """Read tables without a child process, which takes a second to import pandas, unless a test has
    the mark `child`.
    """
    if request.node.get_closest_marker("child") is None:
        monkeypatch.setattr(tables, "limit_process", lambda *_: None)
        monkeypatch.setattr(tables, "start_child", lambda place, _: tables.run_child(str(place)))
