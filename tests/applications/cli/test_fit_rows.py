"""Notes in the report on a fit about rows: values that dominate a sum, and repeated rows."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli.fit_network import NetworkFit
from fastcurv.applications.cli.fit_report import build_page
from fastcurv.applications.cli.fit_rows import (
    dominant_row,
    near_duplicate_fraction,
    score_alone,
)

pytestmark = pytest.mark.usefixtures("undrawn")


def first_screen(X, y):
    est = fc.MLPRegressor((3,), "tanh", alpha=1.0, random_state=0).fit(X, y)
    facts = build_page(est, X, y, names=["a", "b"], target="weight")[1]
    names = {"X": X, "y": y, "np": np}
    for call in facts["calls"]:
        if call["name"] in ("target_share", "share_1", "copies"):
            assert np.isclose(eval(call["call"], names), call["value"], rtol=1e-12)
    return facts["first_screen"]


def test_outlying_value_is_reported():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2))
    y = X[:, 0] + 0.1 * rng.standard_normal(40)
    errors = "squared errors of rows left out"  # also without outliers, one row may dominate
    assert not any("Row" in s and errors not in s for s in first_screen(X, y))
    y[7], X[3, 1] = 1e5, -1e4
    said = first_screen(X, y)
    assert any(s.startswith("Row 7 alone, with weight = 100000, makes up") for s in said)
    assert any("Row 3 alone makes up" in s and "of the variance of b" in s for s in said)


def test_row_with_outlying_error_is_reported():
    rng = np.random.default_rng(2635279833)  # with other rows the score changes less
    X = rng.standard_normal((40, 2))
    y = 3 * X[:, 0] + 0.1 * rng.standard_normal(40)
    y[7] += 8
    est = fc.MLPRegressor((3,), "tanh", alpha=1.0, random_state=0).fit(X, y)
    facts = build_page(est, X, y)[1]
    (said,) = [s for s in facts["first_screen"] if "squared errors of rows left out" in s]
    assert said.startswith("Row 7 alone makes up ")
    scope = {"est": est, "X": X, "y": y}
    exec(facts["setup"], scope)
    calls = {call["name"]: eval(call["call"], scope) for call in facts["calls"][:12]}
    assert (
        calls["error_share"] == pytest.approx(facts["error_share"]) and calls["error_share"] > 0.5
    )
    assert calls["score_of_others"] == pytest.approx(facts["score_of_others"])
    assert facts["score_of_others"] > facts["left_out_score"] + 0.1


def test_column_that_determines_the_target_is_reported(rng):
    X = rng.standard_normal((40, 2))
    said = first_screen(X, 3 - 2 * X[:, 1] + 1e-3 * rng.standard_normal(40))
    assert any(s.startswith("b alone gives weight away: ") for s in said)
    said = first_screen(X, np.exp(3 - 0.2 * X[:, 1]))
    assert any(s.startswith("b alone gives weight away: ") for s in said)
    said = first_screen(X, 3 - 2 * X[:, 1] + rng.standard_normal(40))
    assert not any("alone gives" in s for s in said)


def test_columns_are_judged_alone_in_numbers_and_words(rng):
    words, x = rng.choice(["a", "b", "c"], 90), rng.standard_normal(90)
    fit = NetworkFit.__new__(NetworkFit)
    fit.numbers, fit.classes = False, np.array(["a", "b", "c"])
    fit.y = np.searchsorted(fit.classes, words)
    assert score_alone(fit, words.astype(object)) > 0.95 > score_alone(fit, x)
    fit.numbers, fit.y = True, np.tanh(x)
    assert score_alone(fit, x) > 0.9 > 0.5 > score_alone(fit, words.astype(object))


def test_duplicate_and_near_duplicate_rows_are_reported(rng):
    X = rng.standard_normal((40, 2))
    y = X[:, 0] + 0.1 * rng.standard_normal(40)
    rows = np.arange(40).repeat(2)
    assert any("40 rows equal another one" in s for s in first_screen(X[rows], y[rows]))
    near = X[rows] + 1e-5 * rng.standard_normal((80, 2))
    assert any("100% of the rows have another one" in s for s in first_screen(near, y[rows]))


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris", "diabetes", "digits"])
def test_ordinary_data_have_no_near_duplicate_rows(name):
    X = getattr(pytest.importorskip("sklearn.datasets"), f"load_{name}")().data
    assert near_duplicate_fraction(X, 0) < 0.05


def test_categorical_tables_have_no_near_duplicate_rows(rng):
    assert near_duplicate_fraction(rng.integers(0, 4, (500, 4)).astype(float), 0) == 0
    assert near_duplicate_fraction(rng.poisson(2, (500, 3)).astype(float), 0) == 0
    assert near_duplicate_fraction(np.exp(2 * rng.standard_normal((300, 1))), 0) < 0.25
    rounded = rng.uniform(size=(150, 1)).round(2)  # some rows are equal by chance
    assert near_duplicate_fraction(np.hstack([rounded, 2 * rounded]), 0) == 0
    pairs = rng.uniform(size=(75, 3)).round(2).repeat(2, axis=0)
    assert near_duplicate_fraction(pairs, 0) == 1


def test_share_of_a_row_is_its_fraction_of_the_variance():
    row, share = dominant_row(np.array([0.0, 0.0, 0.0, 3e200]))
    assert row == 3 and np.isclose(share, 0.75)
    assert dominant_row(np.ones(5))[1] == 0
