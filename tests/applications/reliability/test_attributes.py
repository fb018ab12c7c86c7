"""Public attributes of results, displays and estimators are read-only, or assigning them changes
all that depends on them.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest

import fastcurv as fc

from ...reliability.test_attributes import (
    assigned_attributes,
    objectives,
    public_classes,
    reachable,
    writable_arrays,
)


@pytest.fixture(scope="module")
def objects():
    """Return all objects that can be reached from results and displays through public
    attributes.
    """
    ob = objectives()[0]
    theta = ob.model.init(rng=0) / 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reachable(
            [
                fc.diagnose(ob, theta),
                fc.sample_critical_points(ob, 2, rng=0),
                fc.SpectrumDisplay(fc.spectral_density(ob.hessian(theta))),
                fc.LandscapeDisplay.from_objective(ob, theta),
            ]
        )


def test_attribute_tests_cover_every_public_class(objects):
    exported = {one for one in public_classes() if "applications" in one.__module__}
    assert len(exported) >= 4
    assert exported - {fc.MLPClassifier, fc.MLPRegressor} <= {type(x) for x in objects}


def test_every_public_attribute_is_read_only_with_a_message(objects):
    """Assigning to a public attribute raises an error with a message, except for counters."""
    wrong, refused = assigned_attributes(objects)
    assert not wrong and refused > 50, (wrong, refused)


def test_public_arrays_are_read_only(objects):
    """Public arrays cannot be written to, unless each access returns a copy."""
    wrong, seen = writable_arrays(objects)
    assert not wrong and seen >= 15, (wrong, seen)


# --- estimators, whose weights may be assigned as in scikit-learn


def fitted():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for of, y in ((fc.MLPRegressor, X[:, 0]), (fc.MLPClassifier, (X[:, 0] > 0).astype(int))):
            yield of((5,), "tanh", random_state=0, max_iter=30).fit(X, y), X, y


def predicted(est, X):
    """Return the predictions that scikit-learn would make with the estimator's weights."""
    (W1, W2), (b1, b2) = est.coefs_, est.intercepts_
    z = (np.tanh(X @ W1 + b1) @ W2 + b2).ravel()
    return z if isinstance(est, fc.MLPRegressor) else (z > 0).astype(int)


def assign_all(est, rng):
    est.coefs_ = [rng.standard_normal(W.shape) for W in est.coefs_]
    est.intercepts_ = [rng.standard_normal(b.shape) for b in est.intercepts_]


def assign_one(est, rng):
    est.coefs_[0] = rng.standard_normal(est.coefs_[0].shape)


def write_into(est, rng):
    est.coefs_[1][:] = rng.standard_normal(est.coefs_[1].shape)
    est.intercepts_[0][0] = 7.0


def prune(est, rng):
    est.coefs_ = [est.coefs_[0][:, :3], est.coefs_[1][:3]]
    est.intercepts_[0] = est.intercepts_[0][:3]


def move(est, rng):
    est.theta_ = rng.standard_normal(est.theta_.size)


def test_assigned_weights_of_estimators_are_used_everywhere():
    copies = [lambda e: e, copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
    for est, X, _ in fitted():
        for change in (assign_all, assign_one, write_into, prune, move):
            for made in copies:
                new = made(copy.deepcopy(est))
                assert np.array_equal(new.predict(X), est.predict(X))
                change(new, np.random.default_rng(1))
                assert np.allclose(new.predict(X), predicted(new, X), rtol=1e-10)
                model, theta = fc.from_sklearn(new)
                outputs = np.ravel(model.predict(theta, X))  # in the units of y, as coefs_ is
                shown = outputs if isinstance(new, fc.MLPRegressor) else (outputs > 0).astype(int)
                assert np.allclose(shown, predicted(new, X), rtol=1e-10)
                assert model.sizes == new.model_.sizes
                again = made(new)
                assert np.array_equal(again.predict(X), new.predict(X))
                write_into(again, np.random.default_rng(2)) if change is not prune else None
                assert np.allclose(again.predict(X), predicted(again, X), rtol=1e-10)


def test_a_warm_start_begins_at_assigned_weights():
    for est, X, y in fitted():
        assign_one(est, np.random.default_rng(3))
        start = est.objective(X, y).value(est.theta_) * est._scale
        est.set_params(warm_start=True, max_iter=2, solver="l-bfgs", tol=1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est.fit(X, y)
        assert est.loss_curve_[0] == pytest.approx(start, rel=1e-12)


def test_errors_for_weights_of_wrong_shape_name_the_attribute():
    est, X, _ = next(fitted())
    est.coefs_[1] = est.coefs_[1].T
    with pytest.raises(ValueError, match=r"coefs_|intercepts_"):
        est.predict(X)
    est, X, _ = next(fitted())
    est.intercepts_[0] = np.zeros(4)
    with pytest.raises(ValueError, match=r"intercepts_\[0\] must have shape \(5,\), got \("):
        est.predict(X)
    with pytest.raises(AttributeError, match="model_ is read-only"):
        est.model_ = fc.MLP([3, 5, 1])
