"""Targets that change between calls, and choices that depend on the size of the data."""

import warnings

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("sklearn")

from sklearn.exceptions import ConvergenceWarning  # noqa: E402

import fastcurv as fc  # noqa: E402
from fastcurv.applications.estimators.sizes import (  # noqa: E402
    default_n_pairs,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3))
LABELS = (X[:, :2] > 0).astype(int)
SGD = {"hidden_layer_sizes": (4,), "solver": "sgd", "random_state": 0, "max_iter": 5}
WARM = {"hidden_layer_sizes": (4,), "random_state": 0, "max_iter": 5, "warm_start": True}


CLASSES = np.arange(60) % 3
OLD = "must have the labels of the last fit"
# estimator, options, first call with its targets, second call with its targets, error
REFUSED = [
    (fc.MLPClassifier, SGD, "partial_fit", LABELS[:, 0], "partial_fit", LABELS,
     "y must have one class of .0, 1. for each row, got 2 labels"),
    (fc.MLPClassifier, SGD, "partial_fit", LABELS, "partial_fit", np.c_[LABELS, LABELS[:, 0]],
     "y must have 2 labels, got 3"),
    (fc.MLPClassifier, SGD, "partial_fit", LABELS, "objective", LABELS[:, 0],
     "y must have 2 labels for each row, each 0 or 1"),
    (fc.MLPClassifier, SGD, "partial_fit", CLASSES, "objective", np.c_[LABELS, LABELS[:, 0]],
     "y must have one class of .* for each row, got 3 labels"),
    (fc.MLPClassifier, SGD, "fit", CLASSES, "fit", np.array(["a", 1] * 30, object),
     "labels must be of one type.*no order"),
    (fc.MLPRegressor, SGD, "partial_fit", X[:, 0], "partial_fit", X[:, :2],
     "y must have 1 targets as before, got 2"),
    (fc.MLPRegressor, SGD, "fit", X[:, 0], "fit", sparse.csr_matrix(X[:, :1]),
     "^y must be a dense array.*got a sparse matrix"),
    *((fc.MLPClassifier, WARM, "fit", CLASSES, "fit", y, OLD)
      for y in (LABELS, CLASSES + 1, CLASSES % 2, CLASSES.astype(str), np.arange(60) % 4)),
    *((fc.MLPClassifier, WARM, "fit", LABELS, "fit", y, OLD)
      for y in (LABELS[:, 0], CLASSES, np.c_[LABELS, LABELS[:, 0]])),
    (fc.MLPRegressor, WARM, "fit", X[:, :2], "fit", X[:, 0],
     "y must have 2 targets, as in the last fit"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
def test_targets_unlike_those_of_the_last_call_are_refused(case):
    """A second call with other targets raises, and then the same targets continue the fit."""
    kind, options, first, y, second, other, words = case
    net = kind(**options)
    getattr(net, first)(X, y)
    before = net.loss_
    with pytest.raises((TypeError, ValueError), match=words):
        getattr(net, second)(X, other)
    assert net.loss_ == before
    getattr(net, first)(X, y)
    assert net.loss_ <= before


@pytest.mark.parametrize(
    "solver, rate, usual", [("sgd", 10.0, 0.1), ("adam", 10.0, 0.01), ("momentum", 3.0, 0.1)]
)
def test_an_epoch_that_diverges_warns(solver, rate, usual):
    y = X[:, 0] * X[:, 1]
    net = fc.MLPRegressor((30,), "tanh", solver=solver, random_state=0)
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate_init"):
        net.set_params(learning_rate_init=rate).partial_fit(X, y)
    calm = fc.MLPRegressor((30,), "tanh", solver=solver, random_state=0, learning_rate_init=usual)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            calm.partial_fit(X, y)
    lost = fc.MLPRegressor((30,), solver="sgd", learning_rate_init=1e200, random_state=0)
    with pytest.raises(ValueError, match="this epoch diverged. Lower learning_rate_init"):
        lost.partial_fit(X, y)


def test_a_single_class_is_predicted_with_certainty():
    net = fc.MLPClassifier(**SGD).partial_fit(X, np.zeros(60, int))
    assert np.array_equal(net.predict_proba(X), np.ones((60, 1)))
    assert np.array_equal(net.predict_log_proba(X), np.zeros((60, 1)))


@pytest.mark.parametrize(
    "x, y, words",
    [
        (1.0, 1.0, "increase max_iter.$"),
        (500.0, 1.0, "Features 0, 1, 2 are far .*StandardScaler"),
        (1.0, 1e4, "increase max_iter.$"),
        (1e3, 1e-3, "Features 0, 1, 2 are far .*StandardScaler"),
    ],
)
def test_a_fit_that_stops_at_max_iter_suggests_a_larger_one(x, y, words):
    X = np.random.default_rng(0).standard_normal((40, 3))
    with pytest.warns(ConvergenceWarning, match=words):
        fc.MLPRegressor((5,), tol=0, max_iter=3, random_state=0).fit(x * X, y * X[:, 0])


def test_out_activation_has_scikit_learns_names():
    X, y = np.random.default_rng(0).standard_normal((30, 2)), np.arange(30)
    kinds = {"logistic": y % 2, "softmax": y % 3}
    for name, classes in kinds.items():
        assert fc.MLPClassifier((2,), random_state=0).fit(X, classes).out_activation_ == name
    assert fc.MLPRegressor((2,), random_state=0).fit(X, X[:, 0]).out_activation_ == "identity"


@pytest.mark.parametrize(
    "how",
    [{}, {"tol": 1e-4}, {"early_stopping": True}, {"solver": "adam"}],
    ids=["scatter", "bottom", "held out", "adam"],
)
def test_sparse_samples_are_fitted_as_dense_ones(how, monkeypatch):
    rng = np.random.default_rng(0)
    rows = sparse.random(120, 30, 0.2, format="csc", random_state=0)
    y, weight = (rows @ rng.standard_normal(30) > 0).astype(int), rng.random(120)
    monkeypatch.setattr("fastcurv.applications.estimators.sizes.CACHED_DENSE_MAX_ENTRIES", 0)
    # Sparse samples are made dense in blocks of 33.
    monkeypatch.setattr("fastcurv.applications.estimators.base.DENSE_BLOCK_MAX_ENTRIES", 1000)
    fits = [
        fc.MLPClassifier((4,), "tanh", random_state=0, max_iter=15, **how).fit(X, y, weight)
        for X in (rows, rows.toarray())
    ]
    assert fits[0].stopped_ == fits[1].stopped_ and fits[0].n_iter_ == fits[1].n_iter_
    assert abs(fits[0].loss_ - fits[1].loss_) <= 1e-6 * fits[1].loss_
    assert np.allclose(fits[0].predict_proba(rows), fits[1].predict_proba(rows.toarray()), 1e-4)
    assert isinstance(fits[0].objective(rows, y).X, sparse.csr_matrix)
    targets = rows[:, [0, 1]].toarray()
    reg = fc.MLPRegressor((4,), alpha=0.1, random_state=0).fit(rows, targets)
    dense = fc.MLPRegressor((4,), alpha=0.1, random_state=0).fit(rows.toarray(), targets)
    assert np.allclose(reg.predict(rows), dense.predict(rows.toarray()), atol=1e-3)


def test_small_sparse_samples_are_fitted_in_dense_form():
    rows = sparse.random(60, 5, 0.4, format="csc", random_state=0)
    y = np.arange(60) % 3
    fits = [
        fc.MLPClassifier((4,), random_state=0, max_iter=30, tol=0.01).fit(X, y)
        for X in (rows, rows.toarray())
    ]
    assert np.array_equal(fits[0].theta_, fits[1].theta_)
    assert isinstance(fits[0].objective(rows, y).X, np.ndarray)
    tall = sparse.csr_matrix((2**16 // 5 + 1, 5))
    assert isinstance(fits[0].objective(tall, np.arange(tall.shape[0]) % 3).X, sparse.csr_matrix)


def test_sparse_label_matrix_is_accepted():
    fits = [
        fc.MLPClassifier((3,), max_iter=5, random_state=0).fit(X, y)
        for y in (LABELS, sparse.csr_matrix(LABELS))
    ]
    assert fits[0].loss_ == fits[1].loss_


@pytest.mark.parametrize(
    "total, ok", [(1e-300, False), (1e-200, True), (1e300, True), (np.inf, False)]
)
def test_sample_weights_need_a_finite_sum(total, ok):
    net = fc.MLPRegressor((3,), max_iter=5, alpha=0, tol=1e-4, random_state=0)
    weight = np.full(60, min(total / 60, 1e307))
    if ok:
        assert net.fit(X, X[:, 0], weight).loss_ == pytest.approx(net.fit(X, X[:, 0]).loss_, 1e-6)
    else:
        with pytest.raises(ValueError, match="sample_weight must have a sum"):
            net.fit(X, X[:, 0], weight)
    small = np.full(60, 1e37, np.float32)  # the sum overflows in float32
    assert np.isfinite(net.fit(X.astype("f4"), X[:, 0].astype("f4"), small).loss_)


def test_a_fit_ends_at_the_point_whose_gradient_is_within_tol(monkeypatch):
    """A fit ends at the point whose gradient is within tol, even if `run_method` returns an earlier
    point as the result.
    """
    from fastcurv.applications.estimators import solver_runs

    run_on = solver_runs.run_method

    def run_with_start_as_result(ob, theta, *args, **options):
        run = run_on(ob, theta, *args, **options)
        run.x = np.array(theta)
        return run

    monkeypatch.setattr(solver_runs, "run_method", run_with_start_as_result)
    net = fc.MLPRegressor((3,), "tanh", alpha=1.0, solver="lbfgs", random_state=0).fit(X, X[:, 0])
    assert net.stopped_ == "callback"
    assert np.abs(net.objective(X, X[:, 0]).gradient(net.theta_)).max() <= 2e-4


# --- choices that depend on the size of the data


@pytest.mark.parametrize(
    ("n", "rows", "pairs"),
    [
        (601, 1000, 80), (601, 960, 80), (601, 600, 50), (601, 100, 20), (601, 0, 20),
        (7510, 1000, 20), (1310, 1000, 50), (1 << 16, 1000, 20),
        (7510, 6000, 50), (7510, 60_000, 80), (1 << 20, 60_000, 20),
    ],
)  # fmt: skip
def test_number_of_l_bfgs_pairs_follows_the_sizes(n, rows, pairs):
    """The default number of L-BFGS pairs is between 20 and 80: a twelfth of the number of samples,
    or less if the pairs exceed the cache.
    """
    assert default_n_pairs(n, rows) == pairs
