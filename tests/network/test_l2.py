"""With l2_biases=False, every quantity includes the penalty of weight matrices only."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.certify.bounds import assembled

pytestmark = pytest.mark.by_day(one_of="dtype")

CASES = {
    "tall": {"sizes": [4, 6, 3], "loss": "cross_entropy", "N": 40},
    "chunks": {"sizes": [5, 9, 7, 1], "loss": "mse", "N": 700, "memory": 600_000},
    "weights": {"sizes": [3, 5, 5, 2], "loss": "binary_cross_entropy", "N": 20, "weights": True},
    "no bias": {"sizes": [4, 5, 2], "loss": "mse", "N": 12, "bias": False},
    "wide": {"sizes": [40, 300, 200, 4], "loss": "cross_entropy", "N": 30},
    "wide, biases too": {"sizes": [40, 300, 200, 4], "loss": "mse", "N": 30},
}


def pair(problem, rng, case, dtype, batch_norm=False):
    """Return (penalised, plain, theta, d): an objective with l2, on matrices only or on all
    parameters according to `case`, one without l2, parameters theta, and the diagonal d (n,) of the
    penalty's Hessian.
    """
    every = "too" in case
    p = problem(rng, dtype=dtype, **CASES[case])
    memory = CASES[case].get("memory")
    model = fc.MLP(p.model.sizes, "tanh", p.model.bias, dtype=dtype, batch_norm=batch_norm)
    theta = (model.init(rng=1) + 0.1 * rng.standard_normal(model.n_params)).astype(dtype)
    options = {"loss": p.ob.loss, "sample_weight": p.weight, "memory": memory}
    spared = fc.Objective(model, p.X, p.y, l2=0.3, l2_biases=every, **options)
    plain = fc.Objective(model, p.X, p.y, **options)
    layers = []
    for parts in model.unflatten(theta):
        taken = [0.3] + [0.3 * every] * (len(parts) - 1)
        layers.append(tuple(b if b is None else np.full_like(b, x) for b, x in zip(parts, taken)))
    return spared, plain, theta, model.flatten(layers)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_bounds_and_eigenvalue_floor_hold_without_penalised_biases(problem, rng, loss):
    """With l2 on matrices only, the error of gradient, products and columns relative to complex
    steps is within the bounds, and no eigenvalue of the dense Hessian is below the floor.
    """
    p = problem(rng, [3, 4, 2], loss=loss, N=15)
    ref = p.reference(l2=0.5, l2_biases=False)
    ob, v = p.objective(l2=0.5, l2_biases=False), rng.standard_normal(p.n)
    assert ob.l2_biases is False
    H, R = ob.hessian(p.theta), ref.hessian(p.theta)
    assert np.linalg.norm(H @ v - R @ v) <= 2 * rounding_bound(H, v)
    assert np.linalg.norm(H.gradient - ref.gradient(p.theta)) <= 2 * rounding_bound(ob, p.theta)
    known = assembled(H)
    assert np.linalg.norm(known.A - R @ np.eye(p.n)) <= 2 * known.error_bound()
    for theta in (p.theta, 1e-3 * p.theta):
        lowest = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0]
        assert ob.certificates.curvature_floor(theta) <= lowest + 1e-12
    linear = fc.Objective(fc.MLP([3, 1]), p.X, p.X[:, 0], "mse", l2=0.5, l2_biases=False)
    assert (
        linear.certificates.curvature_floor(np.zeros(4)) == 0.0
    )  # a constant column could make the Hessian singular
