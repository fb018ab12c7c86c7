"""Samples of weight 0 change no part of a fit, and integer weights equal repeated samples."""

import numpy as np
import pytest

import fastcurv as fc

pytest.importorskip("sklearn")

SOLVERS = ({}, {"solver": "adam", "max_iter": 5}, {"early_stopping": True, "max_iter": 20})
REGRESSIONS = ("squared_error", "poisson", "gamma", "pseudo_huber", "log_cosh", "quantile")


def weighted_data(rng, N=120):
    """Return (X, y, counts, weight): samples with count targets, a mask of the samples with
    positive weight, and integer weights as floats.
    """
    X = rng.uniform(-1, 1, (N, 3))
    y = 1.0 + rng.poisson(np.exp(X[:, 0]))
    counts = rng.random(N) < 0.6
    return X, y, counts, np.where(counts, rng.integers(1, 4, N), 0.0)


def fitted(kind, X, y, weight, **options):
    with np.errstate(all="ignore"):
        return kind((6,), max_iter=options.pop("max_iter", 60), random_state=0, **options).fit(
            X, y, sample_weight=weight
        )


@pytest.mark.filterwarnings("ignore")
def test_samples_of_weight_zero_equal_samples_left_out_of_a_fit(rng):
    """Fits with samples of weight 0 are bitwise identical to fits without these samples, for every
    solver and loss, even if these samples would overflow.
    """
    X, y, counts, weight = weighted_data(rng)
    far, wild = X.copy(), y.copy()
    far[~counts], wild[~counts] = 1e150, 1e300
    cases = [(fc.MLPClassifier, {}, np.minimum(y, 3), options) for options in SOLVERS]
    cases += [(fc.MLPRegressor, {}, y, options) for options in SOLVERS]
    cases += [(fc.MLPRegressor, {"loss": loss}, y, {}) for loss in REGRESSIONS]
    for kind, loss, targets, options in cases:
        other = np.where(counts, targets, 99 if kind is fc.MLPClassifier else wild)
        whole = fitted(kind, far, other, weight, **loss, **options)
        part = fitted(kind, X[counts], targets[counts], weight[counts], **loss, **options)
        assert np.array_equal(whole.theta_, part.theta_), (kind, loss, options)
        assert whole.loss_ == part.loss_ and whole.n_iter_ == part.n_iter_
        assert whole.score(X, targets, weight) == part.score(
            X[counts], targets[counts], weight[counts]
        )
        assert whole.score(far, other, weight) == part.score(
            X[counts], targets[counts], weight[counts]
        )


@pytest.mark.filterwarnings("ignore")
def test_classes_whose_samples_all_have_weight_zero_are_ignored(rng):
    """A class whose samples all have weight 0 is not in `classes_`, for integers and words, with
    and without class weights. If all weights are 0, ValueError is raised.
    """
    X, y, _, _ = weighted_data(rng)
    y = np.arange(120) % 3
    weight = np.where(y == 2, 0.0, 1.0)
    for names in (np.arange(3), np.array(["ash", "elm", "oak"])):
        for more in ({}, {"class_weight": "balanced"}, {"class_weight": {names[0]: 2.0}}):
            whole = fitted(fc.MLPClassifier, X, names[y], weight, **more)
            part = fitted(fc.MLPClassifier, X[y < 2], names[y[y < 2]], None, **more)
            assert whole.classes_.tolist() == part.classes_.tolist() == names[:2].tolist()
            assert np.array_equal(whole.predict_proba(X), part.predict_proba(X))
            assert whole.predict_proba(X).shape == (120, 2)
    alone = fitted(fc.MLPClassifier, X, names[y], np.where(y == 1, 1.0, 0.0))
    assert alone.classes_.tolist() == ["elm"] and (alone.predict(X) == "elm").all()
    with pytest.raises(ValueError, match="non-zero|zero for all"):
        fitted(fc.MLPClassifier, X, y, 0 * weight)


@pytest.mark.filterwarnings("ignore")
def test_integer_weights_count_as_repeated_samples(rng):
    """With integer weights, objective and gradient equal those of repeated samples, and the losses
    of the two fits agree within 5%.
    """
    X, y, counts, weight = weighted_data(rng)
    times = weight[counts].astype(int)
    twice = np.repeat(X[counts], times, 0), np.repeat(y[counts], times)
    cases = [(fc.MLPClassifier, {}, np.minimum(y, 3))]
    cases += [(fc.MLPRegressor, {"loss": loss}, y) for loss in REGRESSIONS]
    for kind, loss, targets in cases:
        again = np.repeat(targets[counts], times)
        one = fitted(kind, X, targets, weight, **loss, alpha=1.0, max_iter=300)
        two = fitted(kind, twice[0], again, None, **loss, alpha=1.0, max_iter=300)
        at = one.objective(X, targets, weight), two.objective(twice[0], again)
        for theta in (one.theta_, two.theta_):
            values, gradients = zip(*(ob.value_and_gradient(theta) for ob in at))
            assert np.isclose(*values, rtol=1e-12, atol=1e-14), (kind, loss)
            scale = np.abs(gradients).max() + 1e-6
            assert np.allclose(*gradients, rtol=0, atol=1e-10 * scale), (kind, loss)
        assert np.isclose(one.loss_, two.loss_, rtol=0.05), (kind, loss)


def test_predictions_with_too_few_weight_arrays_raise(rng):
    """Weights of an estimator may be replaced, but not by fewer arrays than it has layers."""
    X = rng.standard_normal((30, 2))
    est = fc.MLPRegressor((3,), "tanh", max_iter=5).fit(X, X[:, 0])
    coefs, intercepts = est.coefs_, est.intercepts_
    for some_coefs, some_intercepts, words in (
        (coefs[:1], intercepts, "must be 2 arrays each, .* got 1 and 2"),
        (coefs, intercepts[:1], "must be 2 arrays each, .* got 2 and 1"),
    ):
        est.coefs_, est.intercepts_ = some_coefs, some_intercepts
        with pytest.raises(ValueError, match=words):
            est.predict(X)
