"""Fits do not depend on the unit of the targets, and a fit that did not converge warns once."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.exceptions import ConvergenceWarning  # noqa: E402

import fastcurv as fc  # noqa: E402
from fastcurv.applications.estimators import solver_runs  # noqa: E402

A = np.linspace(-1, 1, 120)[:, None]
Y = np.sin(3 * A[:, 0])
UNITS = [
    (1e-9, 0.0),
    (1e-3, 0.0),
    (1e9, 0.0),
    (1.0, 1e6),
    (1e-9, -1e6),
]  # (scale, shift in standard deviations) of the targets


def with_warnings(fit):
    """Return (result, messages): the result of the call `fit()`, and the messages of its
    warnings.
    """
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        return fit(), [str(one.message) for one in seen]


def fitted(y, X=A, **words):
    words = {"hidden_layer_sizes": (8,), "activation": "tanh", "random_state": 0} | words
    return with_warnings(lambda: fc.MLPRegressor(**words, verdict=False).fit(X, y))[0]


@pytest.mark.parametrize(
    "solver", ["auto", "l-bfgs", "trust-region", "gauss-newton", "sgd", "adam"]
)
def test_r2_does_not_depend_on_the_unit_of_y(solver):
    plain = fitted(Y, solver=solver, max_iter=60).score(A, Y)
    for scale, shift in UNITS:
        y = scale * (Y + shift)
        assert abs(fitted(y, solver=solver, max_iter=60).score(A, y) - plain) <= 0.01, (
            scale,
            shift,
        )


def test_r2_of_several_targets_weights_and_losses_does_not_depend_on_units():
    both, weight = np.c_[Y, Y**2], 0.5 + (np.arange(120) % 3)
    cases = [{"early_stopping": True}, {"loss": "pseudo_huber"}, {"loss": "quantile"}]
    cases += [{"loss": "log_cosh"}, {"loss": "gaussian_nll"}]
    for words in cases:
        plain = fitted(Y, **words).score(A, Y)
        y = 1e-9 * (Y + 1e5)
        assert abs(fitted(y, **words).score(A, y) - plain) <= 0.01, words
    net = fc.MLPRegressor((8,), "tanh", random_state=0)
    scores = []
    for units in (np.array([1.0, 1.0]), np.array([1e-6, 1e6])):
        targets = both * units + units
        with_warnings(lambda y=targets: net.fit(A, y, weight))
        scores.append(net.score(A, targets, weight))
    assert abs(scores[0] - scores[1]) <= 0.01
    for loss in ("poisson", "gamma"):
        plain, small = (fitted(c * np.exp(Y), loss=loss).score(A, c * np.exp(Y)) for c in (1, 1e-9))
        assert abs(plain - small) <= 0.01


def test_the_width_of_a_quantile_loss_scales_with_the_unit_of_y():
    wide = fitted(Y, loss=fc.Loss.quantile(0.9, 0.1)).predict(A)
    far = fitted(1e6 * Y, loss=fc.Loss.quantile(0.9, 1e5)).predict(A)
    assert np.allclose(far, 1e6 * wide, rtol=1e-3, atol=1e4)
    assert abs((wide > Y).mean() - 0.9) < 0.1


def test_weights_of_a_fit_are_in_units_of_y():
    y = 1e4 * (Y + 10)
    net = fitted(y)
    model, theta = fc.from_sklearn(net)
    assert np.allclose(model.predict(theta, A)[:, 0], net.predict(A), rtol=1e-12)
    hidden = np.tanh(A @ net.coefs_[0] + net.intercepts_[0])
    assert np.allclose((hidden @ net.coefs_[1] + net.intercepts_[1])[:, 0], net.predict(A))
    before = net.theta_.copy()
    net.intercepts_[-1][:] += 5.0
    assert np.allclose(net.predict(A), (hidden @ net.coefs_[1])[:, 0] + net.intercepts_[1])
    assert np.isclose((net.theta_ - before).sum(), 5.0 / net.y_scale_[0], rtol=1e-6)


def test_partial_fit_and_warm_start_reuse_the_scaling_of_y():
    net = fc.MLPRegressor((8,), "tanh", solver="adam", random_state=0, learning_rate_init=0.03)
    for _ in range(60):
        net.partial_fit(A, 1e-6 * (Y + 100))
    assert net.score(A, 1e-6 * (Y + 100)) > 0.5
    again = fc.MLPRegressor((8,), "tanh", random_state=0, warm_start=True, max_iter=30)
    with_warnings(lambda: again.fit(A, 1e7 * Y))
    kept = again.y_scale_.copy()
    with_warnings(lambda: again.fit(A, 2e7 * Y))
    assert np.array_equal(kept, again.y_scale_) and again.score(A, 2e7 * Y) > 0.9


def test_unconverged_fits_warn_once():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    y = X[:, 0] * X[:, 1]
    cases = [{"solver": "sgd", "learning_rate_init": 10.0}, {"max_iter": 2}, {"max_time": 1e-3}]
    for words in cases:
        net = fc.MLPRegressor((30,), "tanh", random_state=0, tol=1e-9, **words)
        net, said = with_warnings(lambda net=net: net.fit(X, y))
        assert len(said) == 1 and net.stopped_ in said[0], (words, said)
    with pytest.warns(ConvergenceWarning, match="diverged.*lower learning_rate_init"):
        fc.MLPRegressor((30,), solver="sgd", learning_rate_init=10.0, random_state=0).fit(X, y)


def test_standardised_features_are_never_reported_in_a_warning():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((80, 3))
        y = X[:, 0] + 0.3 * np.sin(2 * X[:, 1]) + 0.3 * rng.standard_normal(80)
        X = (X - X.mean(0)) / X.std(0)
        for maker, target in ((fc.MLPRegressor, y), (fc.MLPClassifier, y > 0)):
            net = maker((8,), random_state=seed, max_iter=20)
            _, said = with_warnings(lambda net=net, X=X, y=target: net.fit(X, y))
            assert not any("Features" in one for one in said), (seed, said)


def test_early_stopping_trains_on_the_only_row_of_a_class():
    X = np.random.default_rng(0).standard_normal((60, 2))
    for y in (np.r_[np.arange(59) % 2, 7], np.r_[np.arange(58) % 2, 7, 8], np.arange(60) // 2):
        net = fc.MLPClassifier((4,), early_stopping=True, random_state=0, max_iter=5)
        with_warnings(lambda net=net, y=y: net.fit(X, y))
        assert net.classes_.tolist() == np.unique(y).tolist()


def test_max_time_bounds_the_verdict_of_a_fit(monkeypatch):
    limits = []
    original = solver_runs.classify

    def classify(*args, **words):
        limits.append(words["max_time"])
        return original(*args, **words)

    monkeypatch.setattr(solver_runs, "classify", classify)
    net = fc.MLPRegressor((3,), random_state=0, max_time=5.0, verdict=True)
    with_warnings(lambda: net.fit(A, Y))
    assert 0 < limits[0] <= 5.0
