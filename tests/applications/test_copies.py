"""Copies and pickles of estimators and displays give bitwise identical results."""

import warnings
from itertools import chain

import numpy as np

import fastcurv as fc

from .. import nets
from ..test_copies import OWN_LOSSES, check_copies, contents, drawn


def of_estimator(estimator, X, y):
    found = {name: x for name, x in vars(estimator).items() if name.endswith("_")}
    found["predict"], found["score"] = estimator.predict(X), estimator.score(X, y)
    again = estimator.fit(X, y)
    return [repr(estimator), contents(found), again.predict(X), contents(again.get_params())]


def of_display(display):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = display.plot().figure_
    lines = [line.get_xydata() for ax in figure.axes for line in ax.get_lines()]
    return [contents(display, 1), lines, [text.get_text() for text in figure.texts]]


def estimators():
    X = np.random.default_rng(0).standard_normal((30, 3))
    y = X[:, 0] * X[:, 1]
    how = {"max_iter": 30, "random_state": 0}
    phi = nets.OWN["arctan"]
    fitted = {
        "regressor": fc.MLPRegressor((5,), **how).fit(X, y),
        "classifier": fc.MLPClassifier((5,), verdict=True, **how).fit(X, y > 0),
        "own activation": fc.MLPRegressor((5,), phi, **how).fit(X, y),
        "own loss": fc.MLPRegressor((5,), loss=OWN_LOSSES["own"][0], **how).fit(X, y),
    }
    for name, estimator in fitted.items():
        yield f"estimator, {name}", estimator, of_estimator, (X, y > 0 if "class" in name else y)


def displays():
    ob, theta = drawn("own, coupled")
    run = fc.minimize(ob, theta, max_iter=5, rng=0)
    shown = {
        "landscape": fc.LandscapeDisplay.from_objective(ob, run.x),
        "spectrum": fc.SpectrumDisplay.from_operator(ob.hessian(theta)),
    }
    for name, display in shown.items():
        yield f"display, {name}", display, of_display, ()


def test_copies_give_bitwise_identical_results(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert check_copies(chain(estimators(), displays())) >= 6
