"""Derivatives of an estimator's predictions with respect to its features, compared with differences
of `predict`.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

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
