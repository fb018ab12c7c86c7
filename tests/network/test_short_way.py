"""The short way of a single product, and what must not take it."""

import numpy as np
import pytest

import fastcurv as fc

from ..nets import EPS, draw


def test_a_vector_of_length_one_and_a_net_of_one_parameter():
    ob = fc.Objective(fc.MLP([1, 1], bias=False), [[2.0]], [1.0], loss="mse")
    H = ob.hessian(np.zeros(1))
    assert np.array_equal(H @ np.ones(1), [8.0])
    assert np.array_equal(H @ np.ones((3, 1))[::3, 0], [8.0])


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 100, 127, 128, 129, 200, 500])
def test_a_net_served_by_one_thread_is_right_whatever_its_rows(dtype, n_rows):
    net = draw(n_rows, [2, 6, 1], N=n_rows, dtype=dtype, n_threads=2)
    v = net.direction(np.random.default_rng(0))
    wanted = net.ref.hessian(net.theta.astype(float)) @ v.astype(float)
    error = np.abs(net.ob.hessian(net.theta) @ v - wanted).max()
    assert error < 200 * EPS[dtype] * np.abs(wanted).max()


@pytest.mark.parametrize("at", [0, 65535, 65536, 65537, 150_000])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_a_long_theta_with_one_number_that_is_none_is_refused(dtype, at, what):
    model = fc.MLP([300, 500, 1], dtype=dtype)
    ob = fc.Objective(model, np.ones((2, 300)), [0.0, 1.0], loss="mse", n_threads=2)
    theta = model.init(seed=0)
    value = ob.value(theta)
    theta[at] = what
    for call in (ob.value, ob.gradient, ob.hessian, ob.ggn):
        with pytest.raises(ValueError, match="theta"):
            call(theta)
    assert ob.value(model.init(seed=0)) == value


def test_theta_whose_squares_overflow_is_taken_and_stays_the_callers(dtype):
    model = fc.MLP([2, 1], bias=False, dtype=dtype)
    ob = fc.Objective(model, [[1.0, -1.0]], [0.0], loss="mse")
    large = np.sqrt(np.finfo(dtype).max) * 4
    theta = np.array([large, large], dtype)
    H = ob.hessian(theta)
    assert ob.value(theta) == 0
    theta[:] = 0
    assert (H.theta == large).all()
