"""What a verdict looks like where parts of it are unknown."""

from dataclasses import replace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.testing import QuadraticObjective

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def point():
    return fc.classify(BOWL, np.zeros(3), seed=0)


def test_what_is_known_is_shown(point):
    text = repr(point)
    assert "certified" in text and "3 positive, 0 negative" in text and "kinks" not in text
    assert point.index == 0 and point.minimum_ratio == 1 and point.summary() == text


def test_risks_kinks_and_bounds_are_shown(point):
    odd = replace(
        point, certified=False, failure_probability=1e-3, n_kinks=4, n_negative=None,
        n_positive=None, n_negative_bounds=(1, 3), at_nearest=point, distance=0.25,
    )  # fmt: skip
    text, page = repr(odd), odd._repr_html_()
    assert "wrong with probability at most 0.001" in text
    assert "between 1 and 3 of 3 eigenvalues negative" in text
    assert "4 pre-activations within rounding" in text
    assert "nearest     a certified minimum at a distance of 0.25" in text
    assert odd.index is None and odd.minimum_ratio is None
    for words in ("between 1 and 3", "4 pre-activations", "0.25"):
        assert words in page
    doubted = replace(odd, at_nearest=replace(point, certified=False))
    assert "nearest     a minimum at" in repr(doubted)
