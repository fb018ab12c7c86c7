"""Pieces of networks, each against a definition written another way."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.gram import InCoordinates


@pytest.mark.parametrize(
    ("scheme", "activation", "variance"),
    [
        ("auto", "relu", 2 / 300), ("auto", "tanh", 2 / 700), ("he", "tanh", 2 / 300),
        ("xavier", "relu", 2 / 700), ("lecun", "relu", 1 / 300),
    ],
)  # fmt: skip
def test_variances_of_first_weights(scheme, activation, variance):
    """Of 120 000 normal numbers: within six of its own standard deviations; biases are 0."""
    model = fc.MLP([300, 400, 2], activation)
    (W, b), _ = model.unflatten(model.init(seed=3, scheme=scheme))
    assert abs(np.mean(W**2) / variance - 1) <= 6 * np.sqrt(2 / W.size)
    assert abs(W.mean()) <= 6 * np.sqrt(variance / W.size) and not b.any()


def test_threads_are_counted_by_32_bits():
    model, X, y = fc.MLP([2, 1]), np.ones((3, 2)), np.ones((3, 1))
    assert fc.Objective(model, X, y, "mse", n_threads=2**31 - 1).n_threads == 2**31 - 1
    for bad in (2**31, 2**31 + 1):
        with pytest.raises(ValueError, match="n_threads"):
            fc.Objective(model, X, y, "mse", n_threads=bad)


def test_bounds_on_columns_of_a_smaller_space_add_what_both_spaces_differ_by(problem, rng):
    """Together they are what the columns of parameter space are proved to, and eight times the
    difference that eight random vectors show.
    """
    p = problem(rng, (5, 6, 2), "tanh", "mse", 3, l2=0.1)
    K = p.ob.ggn(p.theta).reduced("inputs")
    bounds = InCoordinates.column_bounds(K)
    m, draw = K.shape[0], np.random.default_rng(0)
    seen = [K.defect(draw.standard_normal(m)) ** 2 for _ in range(8)]
    whole = np.linalg.norm(p.ob.ggn(p.theta).column_bounds())
    assert np.linalg.norm(bounds) == pytest.approx(8 * np.mean(seen) ** 0.5 + whole, rel=1e-6)
