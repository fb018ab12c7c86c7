"""Spectra of losses and activations without bounds are computed, and operators derived from such an
operator have no bounds.
"""

import numpy as np
import pytest

import fastcurv as fc


def logistic_error(z, y):
    p = 1 / (1 + np.exp(z * y))
    value = np.logaddexp(0.0, -z * y) + 0.1 * z * z
    return value.sum(axis=1), 0.2 * z - y * p, 0.2 + p * (1 - p)


def softplus(z):
    p = 1 / (1 + np.exp(-z))
    return np.logaddexp(0.0, z), p, p * (1 - p)


@pytest.mark.parametrize("loss", [fc.Loss(logistic_error), "mse"], ids=["user loss", "mse"])
def test_eigvalsh_and_inertia_need_no_bounds_of_user_functions(loss, rng):
    X, y = rng.standard_normal((6, 20)), rng.choice([-1.0, 1.0], (6, 2))
    model = fc.MLP([20, 5, 2], fc.Activation(softplus) if loss == "mse" else "tanh")
    ob = fc.Objective(model, X, y, loss, l2=0.01)
    theta = model.init(rng=0)
    operators = [ob.hessian(theta), ob.ggn(theta), ob.empirical_fisher(theta)]
    for H in operators:
        exact = np.linalg.eigvalsh(H.to_dense())
        close = 1e-9 * np.abs(exact).max()
        assert np.abs(fc.eigvalsh(H) - exact).max() <= close
        found = fc.inertia(H)
        assert 0 < found.error_bound <= close
        assert found.n_positive == (exact > found.error_bound).sum()
        assert found.n_negative == (exact < -found.error_bound).sum()
        for derived in (H.shift(0.5), H.restrict(indices=np.arange(30)), H.restrict(layers=[0])):
            exact = np.linalg.eigvalsh(derived.to_dense())
            found = fc.inertia(derived)
            assert (
                0 < found.error_bound <= close
                and found.n_positive == (exact > found.error_bound).sum()
            )
