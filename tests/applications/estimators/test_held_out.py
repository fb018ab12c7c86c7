"""Default fits start and stop by the loss of held-out samples."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import fastcurv as fc

sklearn = pytest.importorskip("sklearn")
from sklearn import datasets  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.preprocessing import scale  # noqa: E402
from sklearn.utils.class_weight import compute_sample_weight  # noqa: E402

from fastcurv.applications.diagnosis.facts import constant_loss  # noqa: E402
from fastcurv.applications.estimators.held_out import (  # noqa: E402
    CLASS_TRIAL_DECAYS,
    TRIAL_DECAYS,
    HeldOutMonitor,
    choose_decay,
    held_out_mask,
)

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
    return ob, model.init(rng=1), weight


def test_equal_samples_are_held_out_together(dtype):
    """`held_out_mask` holds out a quarter of the samples. Equal samples, dense or sparse, in any
    order and with zeros of either sign, are all held out or all kept.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 3)).astype(dtype) * (rng.random((4000, 3)) < 0.6)
    out = held_out_mask(X)
    assert 0.2 < out.mean() < 0.3  # some samples are all zeros
    order = rng.permutation(len(X))
    assert (held_out_mask(X[order]) == out[order]).all()
    assert (held_out_mask(np.asfortranarray(np.concatenate([X, -0.0 * X[:1], X]))) == np.r_[
        out, held_out_mask(np.concatenate([X, 0 * X[:1]]))[-1:], out
    ]).all()  # fmt: skip
    assert (held_out_mask(csr_matrix(X)) == out).all()
    assert held_out_mask(np.ones((1000, 2))) is None and held_out_mask(X[:12]) is None


class Rows:
    """Held-out samples whose losses are a given sequence, beginning with the loss at the start."""

    def __init__(self, losses, loss="mse"):
        values, self.loss = iter(losses), loss
        self.value = lambda x: next(values)


WAIT = [1.0] * 200
WATCHED = {  # held-out losses, their number, loss of the fit over that of a constant; best, end
    "falls": ([5.0, *(4 - 0.1 * np.arange(30)), *[2.0] * 10, 0.5, *WAIT], 1e3, 0.5, 41, 62),
    "rises for a while": ([5.0, 4.0, *[4.5] * 40, 3.0, *[5.0] * 99], 99, 0.5, 42, 93),
    "rises, many rows": ([5.0, 4.0, *[4.5] * 40, 3.0, *[5.0] * 99], 100, 0.5, 1, 17),
    "hardly falls": ((1 - 1e-6 * np.arange(99)).tolist(), 1e3, 0.5, 16, 16),
    "near a plateau": (WAIT, 1e3, 0.85, 16, 16),
    "on a plateau": (WAIT, 1e3, 0.95, None, None),
}


@pytest.mark.parametrize("case", WATCHED)
def test_a_fit_ends_where_the_held_out_loss_has_not_fallen_for_a_while(case):
    losses, count, share, kept, end = WATCHED[case]
    ob, theta, _ = problem("mse", False)
    watch = HeldOutMonitor(ob, Rows(losses), theta, count)
    at = SimpleNamespace(x=theta, fun=share * constant_loss(ob))
    steps = next((t for t in range(1, 150) if watch(at)), None)
    assert steps == end and (end is None or watch.kept == kept)


@pytest.mark.parametrize(
    "lowest, n_tried, best",
    [
        ([3.0, 2.0, 1.0, 0.5, 0.4], 5, 4),
        ([3.0, 2.0, 2.03, 2.05, 0.4], 4, 1),  # rises of the loss by 1.5% and 2.5%
        ([-1.0, -1.03, -1.0, 0.1, 0.1], 3, 1),
        ([np.nan] * 5, 5, 0),
    ],
)
def test_smaller_decays_are_tried_until_the_held_out_loss_rises(lowest, n_tried, best):
    ob, alphas = problem("mse", False)[0], []

    def fitted(alpha):
        alphas.append(alpha)
        return ob

    def minimise(on, theta, watch):
        watch.lowest = lowest[len(alphas) - 1]
        return SimpleNamespace(stopped="callback")

    found = choose_decay(fitted, Rows([9.0] * 9), np.zeros(82), minimise)
    assert tuple(alphas) == TRIAL_DECAYS[:n_tried] and found.alpha == TRIAL_DECAYS[best]
    alphas.clear()
    if n_tried <= len(CLASS_TRIAL_DECAYS):
        choose_decay(fitted, Rows([9.0] * 9, "cross_entropy"), np.zeros(82), minimise)
        assert tuple(alphas) == CLASS_TRIAL_DECAYS[:n_tried]


@pytest.mark.parametrize(
    "words", [{"solver": "lbfgs"}, {"early_stopping": True}, {"solver": "adam", "max_iter": 3}]
)
def test_default_decay_without_held_out_rows_equals_scikit_learns(words):
    X, y = noisy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = [
            fc.MLPClassifier((4,), random_state=0, **words, **more).fit(X, y)
            for more in ({}, {"alpha": 1e-4})
        ]
    assert found[0].alpha_ == 1e-4 and (found[0].theta_ == found[1].theta_).all()
    few = fc.MLPClassifier((4,), random_state=0).fit(X[:12], y[:12])
    assert few.alpha_ == 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("N", [24, 40, 60])
@pytest.mark.parametrize("loss", ["poisson", "gamma", "gaussian_nll"])
def test_default_fits_of_exponentials_extrapolate_moderately(loss, N):
    """Means and standard deviations that are exponentials of outputs are on average at most ten
    times the largest target, on new rows from the distribution of the fitted ones.
    """
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, new = rng.standard_normal((N, 3)), rng.standard_normal((400, 3))
        mean = np.exp(0.7 * X[:, 0])
        y = mean * rng.gamma(2, 0.5, N) if loss != "poisson" else rng.poisson(mean)
        net = fc.MLPRegressor(loss=loss, random_state=seed).fit(X, y)
        assert net.alpha_ >= 0.3
        found = net.predict(new, return_std=loss == "gaussian_nll")
        assert np.mean(found[1] if loss == "gaussian_nll" else found) <= 10 * y.max()


def test_a_warm_start_keeps_the_decay_that_was_chosen():
    X, y = noisy()
    net = fc.MLPClassifier((8,), "tanh", random_state=0, warm_start=True).fit(X, y)
    chosen = net.alpha_
    assert chosen > 1e-4 and net.fit(X, y).alpha_ == chosen


def noisy():
    X, y = datasets.make_classification(
        200, 10, n_informative=4, flip_y=0.1, random_state=3, n_classes=2
    )
    return scale(X), y


def test_a_default_fit_ends_before_the_minimum():
    """A default fit ends before the minimum of its loss. With the same alpha given as a number, the
    fit continues to a loss at least 10% lower.
    """
    X, y = noisy()
    net = fc.MLPRegressor((20,), "tanh", random_state=0).fit(X, y)
    further = fc.MLPRegressor((20,), "tanh", random_state=0, alpha=net.alpha_).fit(X, y)
    assert net.stopped_ == "held_out" and further.stopped_ == "callback"
    assert further.loss_ < 0.9 * net.loss_
    assert net.loss_curve_[-1] == net.loss_ == net.objective(X, y).value(net.theta_) / 2
    assert net.n_iter_ == len(net.loss_curve_) - 2  # the starts of two runs are also in the curve


def test_a_number_for_tol_takes_the_chosen_decay_to_its_minimum():
    X, y = noisy()
    early = fc.MLPClassifier((20,), "tanh", random_state=0).fit(X, y)
    net = fc.MLPClassifier((20,), "tanh", random_state=0, tol=1e-5).fit(X, y)
    assert net.alpha_ == early.alpha_ and net.stopped_ == "callback" and net.loss_ < early.loss_
    gradient = net.objective(X, y).gradient(net.theta_)
    assert np.abs(gradient).max() <= 1e-5


def test_default_fits_continue_through_a_plateau():
    """Default fits of sigmoid networks to XOR, whose gradient is nearly 0 at the start, continue
    until the accuracy exceeds 0.8.
    """
    X = np.random.default_rng(0).standard_normal((400, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = fc.MLPClassifier(activation="logistic", random_state=0).fit(X, y)
    assert net.score(X, y) > 0.8


def test_class_weights_equal_sample_weights():
    X, y = noisy()
    for given in ("balanced", {0: 1, 1: 3}, {0: 2.0, 1: 6.0}):
        net = fc.MLPClassifier((4,), "tanh", random_state=0, class_weight=given).fit(X, y)
        of_rows = compute_sample_weight(given, y)
        same = fc.MLPClassifier((4,), "tanh", random_state=0).fit(X, y, of_rows)
        assert net.loss_ == same.loss_ == net.objective(X, y).value(net.theta_)
    with pytest.raises(ValueError, match="class_weight"):
        fc.MLPClassifier(class_weight="even").fit(X, y)


@pytest.mark.parametrize("solver, rate", [("adam", 0.01), ("momentum", 0.1), ("rmsprop", 0.01)])
def test_partial_fit_continues_with_the_solvers_state(solver, rate):
    """Eight calls of `partial_fit` reach an accuracy above 0.9, and a call of a copy leaves the
    state of the solver unchanged.
    """
    X, y = datasets.load_digits(return_X_y=True)
    net = fc.MLPClassifier((20,), solver=solver, random_state=0, learning_rate_init=rate)
    for _ in range(8):
        net.partial_fit(X / 16, y)
    assert net.n_iter_ == 8 and len(net.loss_curve_) == 16 and net.score(X / 16, y) > 0.9
    before = pickle.dumps(net._epochs)
    copy.copy(net).partial_fit(X / 16, y)
    assert pickle.dumps(net._epochs) == before


def test_epochs_take_the_same_steps_on_any_number_of_threads():
    X, y = datasets.load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning):
        fits = [
            fc.MLPClassifier((90, 30), solver="adam", random_state=0, max_iter=3, n_threads=n)
            for n in (None, 1, 2, 5)
        ]
        found = {net.fit(X, y).theta_.tobytes() for net in fits}
    assert len(found) == 1


def test_a_diverging_fit_returns_its_best_point():
    X, y = datasets.load_digits(return_X_y=True)
    net = fc.MLPRegressor((20,), solver="sgd", random_state=0, learning_rate_init=1e3, max_iter=9)
    net.fit(X[:600], y[:600])
    assert net.stopped_ == "diverged" and np.isfinite(net.theta_).all()
    assert net.loss_ == pytest.approx(min(net.loss_curve_))


def test_adam_stops_by_scikit_learns_rule():
    """Adam stops after ten consecutive epochs that lower the loss by less than tol."""
    X, y = datasets.load_wine(return_X_y=True)
    net = fc.MLPClassifier(solver="adam", random_state=0, tol=1e-2, max_iter=500).fit(scale(X), y)
    drops = -np.diff(np.minimum.accumulate(net.loss_curve_))
    assert net.stopped_ == "patience" and net.n_iter_ < 500
    assert (drops[-10:] < 1e-2).all() and drops[-11] >= 1e-2
