"""Derivatives of an estimator's predictions with respect to its features, compared with differences
of `predict`.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

import fastcurv as fc


def differences(f, X, h):
    """Return central differences of f at X (N, features) with step h, of shape (N, outputs,
    features), where f(X) has shape (N, outputs).
    """
    steps = h * np.eye(X.shape[1])
    return np.stack([(f(X + s) - f(X - s)) / (2 * h) for s in steps], axis=-1)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "gaussian_nll", "pseudo_huber(0.5)"])
@pytest.mark.parametrize("columns", [1, 2])
def test_slopes_of_a_regressor_equal_differences_of_predict(loss, columns):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) * [1, 2, 0.5]
    y = 1e3 * np.exp(0.3 * X[:, :columns]) + 50 * rng.random((60, columns))
    est = fc.MLPRegressor((6,), "tanh", loss=loss, max_iter=30, random_state=0)
    est.set_params(verdict=False).fit(X, y if columns == 2 else y[:, 0])
    f = lambda X: est.predict(X).reshape(len(X), -1)  # noqa: E731
    J, H = est.input_jacobian(X), est.input_hessian(X)
    assert J.shape == (60, columns, 3) and H.shape == (60, columns, 3, 3)
    scale = np.abs(y).max()
    np.testing.assert_allclose(J, differences(f, X, 1e-5), rtol=0, atol=1e-8 * scale)
    bend = lambda X: est.input_jacobian(X).reshape(len(X), -1)  # noqa: E731
    found = differences(bend, X, 1e-5).reshape(H.shape)
    np.testing.assert_allclose(H, found, rtol=0, atol=1e-8 * scale)


def test_slopes_of_a_classifier_are_derivatives_of_its_logits():
    X, y = load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    for labels, outputs in ((y, 3), (y > 0, 1)):
        est = fc.MLPClassifier((4,), "tanh", max_iter=30, random_state=0).fit(X, labels)
        J = est.input_jacobian(X)
        assert J.shape == (178, outputs, 13)
        logits = lambda X, est=est: est.model_.predict(est.theta_, X)  # noqa: E731
        np.testing.assert_allclose(J, differences(logits, X, 1e-5), atol=1e-7)
        assert np.array_equal(est.input_jacobian(csr_matrix(X)), J)
    with pytest.raises(ValueError, match="12 features"):
        est.input_jacobian(X[:, :12])


@pytest.mark.parametrize("inside", [True, False])
def test_a_pipeline_with_scaled_targets_is_converted_to_one_network(inside):
    X, y = load_diabetes(return_X_y=True, scaled=False)
    net = fc.MLPRegressor((5,), "tanh", max_iter=40, random_state=0, verdict=False)
    scaled = MinMaxScaler((-1, 1))
    if inside:
        targets = TransformedTargetRegressor(net, transformer=scaled)
        pipe = make_pipeline(StandardScaler(), targets).fit(X, y)
    else:
        pipe = TransformedTargetRegressor(make_pipeline(StandardScaler(), net), transformer=scaled)
        pipe.fit(X, y)
    model, theta = fc.from_sklearn(pipe)
    np.testing.assert_allclose(model.predict(theta, X)[:, 0], pipe.predict(X), rtol=1e-10)
    f = lambda X: pipe.predict(X)[:, None]  # noqa: E731
    J = model.input_jacobian(theta, X)
    for i, h in enumerate(1e-4 * X.std(axis=0)):
        step = h * np.eye(10)[i]
        slope = (f(X + step) - f(X - step)) / (2 * h)
        np.testing.assert_allclose(J[:, :, i], slope, rtol=0, atol=1e-6 * np.abs(J).max())


def test_scaled_targets_of_very_different_units_are_folded_accurately():
    X, y = load_diabetes(return_X_y=True)
    two = np.c_[y * 1e-8, X[:, 1] * 1e8]
    net = fc.MLPRegressor((3,), "tanh", max_iter=20, verdict=False, random_state=0)
    est = TransformedTargetRegressor(net, transformer=StandardScaler()).fit(X, two)
    model, theta = fc.from_sklearn(est)
    np.testing.assert_allclose(model.predict(theta, X), est.predict(X), rtol=1e-8)
    net.set_params(loss="gaussian_nll")
    est = TransformedTargetRegressor(net, transformer=MinMaxScaler((1, 2))).fit(X, y)
    model, theta = fc.from_sklearn(est)
    mean, std = est.regressor_.predict(X, return_std=True)
    means, logs = model.predict(theta, X).T
    np.testing.assert_allclose(means, est.predict(X), rtol=1e-10)
    np.testing.assert_allclose(np.exp(0.5 * logs), std * np.ptp(y), rtol=1e-10)


def test_conversion_rejects_subclasses_that_override_predict_or_scaling():
    X, y = load_diabetes(return_X_y=True)
    net = fc.MLPRegressor((3,), "tanh", max_iter=20, verdict=False, random_state=0)

    class UnchangedSubclass(TransformedTargetRegressor):
        pass

    class OverridingSubclass(TransformedTargetRegressor):
        def predict(self, X, **words):
            return super().predict(X, **words) + 1

    own = type("MinMaxScaler", (MinMaxScaler,), {"inverse_transform": lambda self, y: y})
    known = fc.from_sklearn(UnchangedSubclass(net, transformer=MinMaxScaler()).fit(X, y))
    plain = fc.from_sklearn(TransformedTargetRegressor(net, transformer=MinMaxScaler()).fit(X, y))
    assert np.array_equal(known[1], plain[1])
    for est in (
        OverridingSubclass(net, transformer=MinMaxScaler()),
        UnchangedSubclass(net, transformer=own(), check_inverse=False),
    ):
        with pytest.raises(ValueError, match="of its own. (Or use|Use)"):
            fc.from_sklearn(est.fit(X, y))


def test_conversion_rejects_targets_with_nonlinear_scalers():
    X, y = load_diabetes(return_X_y=True)
    net = fc.MLPRegressor((2,), "tanh", max_iter=5, verdict=False, random_state=0)
    with pytest.warns(UserWarning):
        net.fit(X, y)
    own = TransformedTargetRegressor(net, func=np.log, inverse_func=np.exp)
    with pytest.raises(ValueError, match="must be a fitted .* without regressor_"):
        fc.from_sklearn(own)
    own.transformer_, own.regressor_ = FunctionTransformer(np.log, np.exp), net
    with pytest.raises(
        ValueError, match=r"transformer_ of est must be .*got a FunctionTransformer"
    ):
        fc.from_sklearn(own)
    plain = TransformedTargetRegressor(net)
    plain.transformer_, plain.regressor_ = FunctionTransformer(), net
    assert np.array_equal(fc.from_sklearn(plain)[1], fc.from_sklearn(net)[1])
