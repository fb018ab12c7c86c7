"""Calls with a seed give the same numbers."""

import pytest

import fastcurv as fc

from ...reliability.test_determinism import check_seeded


@pytest.mark.parametrize("source", ["narrower", "walk", "descent"])
def test_samples_draw_no_unseeded_numbers(source, monkeypatch):
    check_seeded(
        lambda ob, theta: fc.sample_critical_points(ob, 2, sources=source, epochs=(3, 5), rng=0),
        monkeypatch,
    )
