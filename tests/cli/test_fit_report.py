"""The page on a fit: its numbers are those of the calls printed with them."""

import html
import json
import re

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.cli import fit_numbers, fit_report

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch):
    """Give every page the time for all that it can show."""
    monkeypatch.setattr(fit_numbers, "PAGE_SECONDS", 1000.0)


def regression(rng, n=60, alpha=1.0, activation="tanh"):
    X = rng.standard_normal((n, 3))
    y = 40 + 10 * (np.sin(X[:, 0]) + X[:, 1] + 0.3 * rng.standard_normal(n))
    return fc.MLPRegressor((3,), activation, alpha=alpha, random_state=0).fit(X, y), X, y


def classification(rng, labels, n=90):
    X = rng.standard_normal((n, 2))
    y = np.array(labels)[
        np.digitize(X[:, 0] + 0.5 * rng.standard_normal(n), [-0.5, 0.5][: len(labels) - 1])
    ]
    return fc.MLPClassifier((3,), "tanh", alpha=1.0, random_state=0).fit(X, y), X, y


def bare(rng, n=50):
    X = rng.standard_normal((n, 2))
    y = 5 + 3 * (X[:, 0] ** 2 + 0.2 * rng.standard_normal(n))
    shift, scale = y.mean(), y.std()
    ob = fc.Objective(fc.MLP([2, 3, 1]), X, (y - shift) / scale, "mse", l2=0.02, l2_biases=False)
    net = fit_numbers.Trained(ob, fc.minimize(ob, seed=0).x, shift, scale)
    return net, X, y


FITS = {
    "regression": lambda rng: regression(rng),
    "relu": lambda rng: regression(rng, activation="relu"),
    "three classes": lambda rng: classification(rng, ["a", "b", "c"]),
    "two classes": lambda rng: classification(rng, ["no", "yes"]),
    "without scikit-learn": bare,
}


def said(calls, scope):
    """The values of calls."""
    return {call["name"]: eval(call["call"], scope) for call in calls}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FITS)
def test_every_number_is_that_of_its_call(rng, kind):
    fit, X, y = FITS[kind](rng)
    page, facts = fit_report.build(fit, X, y)
    scope = {"net" if kind == "without scikit-learn" else "est": fit, "X": X, "y": y}
    exec(facts["setup"], scope)
    found = said(facts["calls"], scope)
    assert len(found) == len(facts["calls"]) >= 6
    for call in facts["calls"]:
        value, wanted = found[call["name"]], call["value"]
        if isinstance(wanted, str):
            assert value == wanted
        else:
            assert np.allclose(value, wanted, rtol=1e-6), call
    json.dumps(facts, allow_nan=False)
    text = html.unescape(page.to_html())
    assert all(call["call"] in text for call in facts["calls"])
    assert not re.search(r"(src|href)=[\"']?https?:", text)
    assert facts["left_out_by"] == "folds" or kind != "relu"
