"""Bounds for products that underflow or overflow, compared with arithmetic in 1200 digits.

FASTCURV_EXAMPLES sets the number of networks, half of each dtype.
"""

import os
from decimal import Decimal

import numpy as np
import pytest

import fastcurv as fc
from fastcurv._engine import ACTIVATIONS
from fastcurv.certify import arithmetic, passes, rounding_bound
from fastcurv.certify.passes import gradient_bound, product_bound

from .exact import Exact, distance

pytestmark = pytest.mark.by_day(share=1 / 3)

COUNT = int(os.environ.get("FASTCURV_EXAMPLES", "40")) // 2
SEEDS = [pytest.param(range(first, min(first + 10, COUNT)), id=f"{first}")
         for first in range(0, COUNT, 10)]  # fmt: skip
ENDS = {"float64": 200, "float32": 25}
NOISE = Decimal(10) ** -850  # error of the oracle itself
PRODUCTS = {"hessian": "hessian", "ggn": "ggn", "fisher": "empirical_fisher"}


def numbers(rng, shape, reach, dtype):
    """Return an array of random numbers, 8% of them zero. The magnitudes are spread over 10^-reach
    to 10^reach, share one factor from that range, or lie between 1 and 10.
    """
    size = rng.choice([-1.0, 1.0], size=shape) * rng.uniform(1, 10, shape)
    how = rng.random()
    if how < 0.8:
        size = size * 10.0 ** rng.uniform(-reach, reach, shape if how < 0.5 else None)
    return np.where(rng.random(shape) < 0.08, 0, size).astype(dtype)


def draw(seed, dtype, ends):
    """Return (objective, theta, rng, reach) for a random network of one to five layers, whose
    numbers have magnitudes of 10^-reach to 10^reach with `reach` at most `ends`.
    """
    rng = np.random.default_rng([seed, ends])
    reach, depth = ends * rng.choice([0.05, 0.3, 0.6, 1.0]), int(rng.integers(1, 6))
    sizes = rng.integers(1, 4, depth + 1).tolist()
    loss = str(rng.choice(["mse", "cross_entropy", "binary_cross_entropy"], p=[0.5, 0.3, 0.2]))
    sizes[-1] = max(2, sizes[-1]) if loss == "cross_entropy" else sizes[-1]
    others = [name for name in ACTIVATIONS if name != "identity"]
    phi = ["identity" if rng.random() < 0.3 else str(rng.choice(others)) for _ in sizes[2:]]
    norm = depth > 1 and rng.random() < 0.12
    how = {"bias": rng.random() < 0.5, "residual": rng.random() < 0.3, "batch_norm": norm}
    how = {name: bool(x) for name, x in how.items()}
    model = fc.MLP(sizes, phi or "identity", dtype=dtype, **how)
    N = int(rng.integers(1 + norm, 5))
    X = numbers(rng, (N, sizes[0]), reach, dtype)
    if loss == "cross_entropy":
        y = rng.integers(sizes[-1], size=N)
    elif loss == "mse":
        y = numbers(rng, (N, sizes[-1]), reach, dtype)
    else:
        y = rng.integers(2, size=(N, sizes[-1])).astype(dtype)
    weight = np.abs(numbers(rng, N, reach, dtype)) if rng.random() < 0.3 else None
    weight = None if weight is None or not weight.sum() > 0 else weight
    l2 = float(abs(numbers(rng, 1, reach, dtype)[0])) if rng.random() < 0.3 else 0.0
    options = {"l2": l2, "l2_biases": bool(rng.random() < 0.5) or not l2}
    parts = [x for layer in model.unflatten(np.zeros(model.n_params)) for x in layer]
    theta = [numbers(rng, x.size, reach, dtype) for x in parts if x is not None]
    ob = fc.Objective(model, X, y, loss, sample_weight=weight, **options)
    return ob, np.concatenate(theta), rng, reach


def violations(ob, theta, rng, reach):
    """Return a list of (name, error, bound) for those bounds on gradients, values and products that
    the errors against 1200 digits exceed.
    """
    exact, n, found = Exact(ob, theta), ob.n_params, []

    def record_if_exceeded(what, error, bound):
        if not error <= Decimal(float(bound)) + NOISE:
            found.append((what, f"{error:.3e}", float(bound)))

    value, gradient = exact.value_and_gradient()
    record_if_exceeded(
        "gradient", distance(ob.gradient(theta), gradient), rounding_bound(ob, theta)
    )
    record_if_exceeded(
        "any gradient", distance(ob.gradient(theta), gradient), gradient_bound(ob, theta)
    )
    record_if_exceeded(
        "precise value", *error_and_bound([value], ob.certificates.precise_value(theta))
    )
    record_if_exceeded(
        "precise gradient", *error_and_bound(gradient, ob.certificates.precise_gradient(theta))
    )
    kinds = ["hessian", "ggn"] if ob.model.batch_norm else list(PRODUCTS)
    for kind in ("hessian", str(rng.choice(kinds[1:]))):
        H = getattr(ob, PRODUCTS[kind])(theta)
        for j in rng.permutation(n)[:2]:
            e = np.eye(n, dtype=ob.dtype)[j]
            error = distance(H @ e, exact.product(e, kind))
            record_if_exceeded(f"{kind} times unit vector {j}", error, rounding_bound(H, e))
        v = numbers(rng, n, reach if rng.random() < 0.5 else 0.0, ob.dtype)
        error = distance(H @ v, exact.product(v, kind))
        record_if_exceeded(f"{kind} times v", error, rounding_bound(H, v))
        record_if_exceeded(f"any {kind} times v", error, product_bound(ob, theta, v, kind))
    return found


def error_and_bound(true, claimed):
    """Return the distance of the computed numbers ``claimed[0]`` from the numbers `true`, and the
    bound ``claimed[1]``.
    """
    return distance(claimed[0], true), claimed[1]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("dtype", ENDS)
def test_bounds_hold_at_the_ends_of_the_range(dtype, seeds):
    """Rounding bounds on gradients, values and products hold for numbers of 1e-200 to 1e200, or
    1e-25 to 1e25 in float32.
    """
    found = {}
    with np.errstate(all="ignore"):
        for seed in seeds:
            case = draw(seed, dtype, ENDS[dtype])
            found[seed] = violations(*case)
    assert not {seed: x for seed, x in found.items() if x}


def test_bounds_hold_for_underflow_that_is_multiplied_later():
    """Rounding bounds hold if a derivative of 1e-328 underflows to 0 in float64 but is later
    multiplied by 1e65, so that the entry of the product is not 0.
    """
    model = fc.MLP([1, 1, 1, 1], "identity", bias=False)
    ob = fc.Objective(model, [[-6.455234001461954e-183]], [[-7.762905554382592e64]], loss="mse")
    theta = np.array([-3.838141078473531e-70, -1.9458086087570845e-146, -3.8819062732080003e-143])
    H, e = ob.hessian(theta), np.eye(3)[0]
    error = distance(H @ e, Exact(ob, theta).product(e))
    assert 1e-264 < error <= rounding_bound(H, e) < 1e-250


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", ENDS)
def test_a_normalised_unit_of_scale_0_does_not_count_as_a_kink(dtype, residual):
    """Batch normalisation with gamma and beta of exactly 0 gives z = 0 without a kink, so rounding
    bounds hold and include no jump of relu'.
    """
    rng = np.random.default_rng(3)
    model = fc.MLP([2, 3, 3, 2], "relu", dtype=dtype, batch_norm=True, residual=residual)
    layers = model.unflatten(model.init(rng=rng))
    for _, _, gamma, beta in layers[:2]:
        gamma[1] = beta[1] = 0
        beta[2] = 0.25
    theta = model.flatten(layers)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    ob = fc.Objective(model, X.astype(dtype), y.astype(dtype), "mse")
    exact, H = Exact(ob, theta), ob.hessian(theta)
    room = 1e9 * np.finfo(dtype).eps
    assert distance(ob.gradient(theta), exact.value_and_gradient()[1]) <= gradient_bound(ob, theta)
    assert gradient_bound(ob, theta) <= room
    for j in range(0, len(theta), 3):
        e = np.eye(len(theta), dtype=dtype)[j]
        error = distance(H @ e, exact.product(e))
        assert error <= Decimal(rounding_bound(H, e)) + NOISE and rounding_bound(H, e) <= room


def test_a_product_that_overflows_has_no_bound():
    """If the square of delta overflows in float32, the bound on a product with the empirical Fisher
    matrix is infinite.
    """
    model = fc.MLP([1, 1], bias=False, dtype="float32")
    X, y = np.array([[1e10]], "float32"), np.array([[1e25]], "float32")
    ob = fc.Objective(model, X, y, loss="mse")
    F = ob.empirical_fisher(np.ones(1, "float32"))
    with np.errstate(over="ignore"):
        assert not np.isfinite(F @ np.ones(1, "float32")).all()
        assert rounding_bound(F, np.ones(1, "float32")) == np.inf


def test_bounds_are_infinite_if_subnormal_numbers_are_flushed(monkeypatch):
    """If the processor flushes subnormal numbers to 0, which violates the model of rounding, bounds
    on rounding errors are infinite.
    """
    assert not arithmetic.flushes_subnormals()
    ob, theta, *_ = draw(1, "float64", 1)
    assert np.isfinite(gradient_bound(ob, theta))
    monkeypatch.setattr(passes, "flushes_subnormals", lambda: True)
    assert gradient_bound(ob, theta) == np.inf


def test_products_and_norms_of_sizes_are_rounded_up():
    """Matrix products, entrywise products and row norms that are rounded up are not below the exact
    ones, also if these underflow.
    """
    tiny = np.array([[1e-200, 0.0], [5e-324, 1e-170]])
    assert (arithmetic.matmul_rounded_up(tiny, tiny) > 0).tolist() == [[True, False], [True, True]]
    assert (arithmetic.multiply_rounded_up(tiny, tiny) > 0).tolist() == [
        [True, False],
        [True, True],
    ]
    assert arithmetic.row_norms(np.full((1, 2), 5e-324))[0, 0] == 1e-323
