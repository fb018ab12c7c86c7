"""Where a fit by defaults begins and ends: what the rows do not tell from noise is not fitted."""

import warnings

import numpy as np
import pytest

import fastcurv as fc

sklearn = pytest.importorskip("sklearn")
from sklearn import datasets  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler, scale  # noqa: E402

from fastcurv.estimators.scatter import Scatter, constant_loss  # noqa: E402

LOSSES = {
    "cross_entropy": lambda rng: rng.integers(3, size=12),
    "mse": lambda rng: rng.standard_normal((12, 3)),
    "binary_cross_entropy": lambda rng: rng.integers(2, size=(12, 3)).astype(float),
}


def problem(loss, weighted, dtype="float64"):
    rng = np.random.default_rng(0)
    model = fc.MLP([4, 5, 6, 3], ["relu", "tanh"], dtype=dtype)
    weight = rng.integers(1, 4, 12) * 1.0 if weighted else None
    ob = fc.Objective(
        model, rng.standard_normal((12, 4)), LOSSES[loss](rng), loss, sample_weight=weight
    )
    return ob, model.init(seed=1), weight


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_signal_by_the_gradient_of_every_row(loss, weighted):
    """The same from rows taken one by one, and from rows repeated as often as they weigh."""
    ob, theta, weight = problem(loss, weighted)
    g = ob.gradient(theta)
    times = np.ones(12, int) if weight is None else weight.astype(int)
    plain = fc.Objective(ob.model, ob.X, ob.y, loss)
    rows = np.stack([plain.batch([n]).gradient(theta) for n in np.repeat(np.arange(12), times)])
    mean, spread = rows.mean(axis=0), rows.var(axis=0)
    moved = spread > 1e-12 * (rows**2).mean(axis=0)
    wanted = len(rows) * np.mean(mean[moved] ** 2 / spread[moved])
    found = Scatter(ob, float(times.sum()), 1.0).signal(theta, g)
    assert abs(found - wanted) <= 1e-9 * wanted


@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_constant(loss):
    """No shift of the outputs alone goes below it, and one comes to it."""
    ob, _, weight = problem(loss, True)
    least = constant_loss(ob, weight / weight.sum())
    # weights count as in the objective, whose divisor is the number of rows
    last = fc.Objective(
        fc.MLP([4, 3]), 0 * ob.X, ob.y, loss, sample_weight=weight * 12 / weight.sum()
    )
    assert fc.minimize(last, np.zeros(15), verdict=False).fun == pytest.approx(least, rel=1e-6)


def noisy():
    X, y = datasets.make_classification(
        200, 10, n_informative=4, flip_y=0.1, random_state=3, n_classes=2
    )
    return scale(X), y


def test_an_end_within_the_scatter():
    """By default the fit of noisy rows ends early and says so; with a number it goes on."""
    X, y = noisy()
    net = fc.MLPClassifier(random_state=0).fit(X, y)
    further = fc.MLPClassifier(random_state=0, tol=1e-4).fit(X, y)
    assert net.stopped_ == "scatter" and further.stopped_ == "callback"
    assert further.loss_ < 0.1 * net.loss_ and net.curvature_.kind == "not_critical"
    assert net.loss_curve_[-1] == net.loss_ == net.objective(X, y).value(net.theta_)
    held = fc.MLPClassifier((10,), "tanh", random_state=0, alpha=10.0).fit(X, y)
    assert held.stopped_ == "callback", "a penalty that holds the fit is obeyed to the end"


def test_losses_of_the_beginning_are_those_of_the_objective():
    X, y = noisy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = fc.MLPClassifier(random_state=0, max_iter=1).fit(X, y).loss_curve_[0]
    net = fc.MLPClassifier(random_state=0).fit(X, y)
    assert net.loss_curve_[0] == pytest.approx(first, rel=1e-12)
    assert net.n_iter_ == len(net.loss_curve_) - 2  # the start of each run is in it


@pytest.mark.parametrize("kind", [fc.MLPClassifier, fc.MLPRegressor])
def test_weights_are_repeated_rows_to_the_end(kind):
    X, y = noisy()
    weight = np.arange(len(y)) % 3
    repeated = np.repeat(np.arange(len(y)), weight)
    options = {"random_state": 0, "activation": "tanh", "verdict": False}
    weighted = kind((8,), **options).fit(X, y, sample_weight=weight)
    plain = kind((8,), **options).fit(X[repeated], y[repeated])
    assert weighted.n_iter_ == plain.n_iter_ and weighted.stopped_ == plain.stopped_ == "scatter"
    assert weighted.loss_ == pytest.approx(plain.loss_, rel=1e-6)


def test_a_plateau_is_no_end():
    """Sigmoids see no gradient of XOR at the start: the fit goes on."""
    X = np.random.default_rng(0).standard_normal((400, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = fc.MLPClassifier(activation="logistic", random_state=0).fit(X, y)
    assert net.score(X, y) > 0.8


@pytest.mark.parametrize("name, more", [("breast_cancer", 0.002), ("digits", 0.008)])
def test_scores_higher_than_the_bottom(name, more):
    """Five folds: the default against the same fit to the bottom of the loss."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    scores = [
        cross_val_score(make_pipeline(StandardScaler(), net), X, y, cv=5).mean()
        for net in (
            fc.MLPClassifier(random_state=0, verdict=False),
            fc.MLPClassifier(random_state=0, verdict=False, tol=1e-4),
        )
    ]
    assert scores[0] >= scores[1] + more


def test_max_time_bounds_all_runs():
    X, y = datasets.load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = fc.MLPClassifier((200, 200), max_time=1e-3, verdict=False).fit(scale(X), y)
    assert net.n_iter_ <= 3


def test_tol_is_checked():
    with pytest.raises(ValueError, match="tol is 'tight'; wanted 'auto' or a number"):
        fc.MLPClassifier(tol="tight").fit(*noisy())
