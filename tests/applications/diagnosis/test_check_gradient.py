"""`check_gradient` compares correct and wrong gradients and Hessians with finite differences."""

import numpy as np
import pytest

import fastcurv as fc


@pytest.mark.parametrize("activation", ["tanh", "softplus", "elu", "relu"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "poisson"])
def test_derivatives_of_the_engine_agree(activation, loss, rng):
    X, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    model = fc.MLP([3, 5, 2 if loss == "cross_entropy" else 1], activation)
    ob = fc.Objective(model, X, y, loss, l2=1e-2)
    found = fc.check_gradient(ob, model.init(seed=0))
    assert found.gradient_agrees and found.hessian_agrees, found
    assert np.median(found.gradient_errors) < 1e-7
    single = fc.check_gradient(ob.astype("float32"), model.init(seed=0))
    assert single.gradient_agrees and np.median(single.gradient_errors) < 1e-6


class Changed:
    """An objective of three variables with a wrong entry in its gradient and in its Hessian."""

    n_params = 3

    def __init__(self, gradient=0.0, hessian=0.0):
        self.off, self.bent = gradient, hessian

    def value(self, t):
        return float(np.exp(t[0]) + t[0] * t[1] ** 2 + np.cos(t[2]))

    def gradient(self, t):
        right = [np.exp(t[0]) + t[1] ** 2, 2 * t[0] * t[1], -np.sin(t[2])]
        return np.add(right, [0, self.off, 0])

    def hessian(self, t):
        H = np.diag([np.exp(t[0]), 2 * t[0], -np.cos(t[2]) + self.bent])
        H[0, 1] = H[1, 0] = 2 * t[1]
        return H


@pytest.mark.parametrize("size", [1e-5, 1e-2, 10.0])
def test_an_error_in_one_entry_is_found(size, rng):
    theta = rng.standard_normal(3)
    assert fc.check_gradient(Changed(), theta).gradient_agrees
    assert fc.check_gradient(Changed(), theta).hessian_agrees
    wrong = fc.check_gradient(Changed(gradient=size), theta)
    assert not wrong.gradient_agrees and wrong.hessian_agrees
    bent = fc.check_gradient(Changed(hessian=size), theta)
    assert bent.gradient_agrees and not bent.hessian_agrees


def test_infinite_values_and_missing_gradients_raise():
    class Value:
        n_params = 1

        def value(self, t):
            return float(np.inf)

    with pytest.raises(TypeError, match="got a Value without gradient"):
        fc.check_gradient(Value(), [0.0])
    Value.gradient = lambda self, t: np.zeros(1)
    with pytest.raises(ValueError, match="theta must be a point near which"):
        fc.check_gradient(Value(), [0.0])
