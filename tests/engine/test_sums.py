"""The kernels add as they say they do: `_engine.summation` is what the proofs count roundings with.

A 1 in a chain of additions swallows every later number below half a unit in its last place; numbers
that are summed in another chain first are not lost. So the loss tells how many numbers shared a
chain with the 1.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv._engine import layout, probe

ARCHS = _engine.available_archs()
DTYPES = ["float32", "float64"]


def lost(total, count, eps):
    """How many of `count` numbers of size 0.4 eps a sum with one 1 did not see; eps the distance
    from 1 to the next.
    """
    return count - (np.float64(total) - 1) / (0.4 * eps)


def chain(k, dtype, at=0):
    eps = float(np.finfo(dtype).eps)
    x = np.full(k, 0.4 * eps, dtype)
    x[at] = 1
    return x, eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", [a for a in ARCHS if a != "blas"])
@pytest.mark.parametrize("k", [300, 1000, 2048, 5000])
def test_a_product_s_chain_is_a_slice(arch, dtype, k):
    s = _engine.summation(arch, dtype)
    slice_ = s["slice"] or k
    x, eps = chain(k, dtype)
    total = probe.product(x[None, :], np.ones((k, 40), dtype), arch=arch)
    parts = -(-k // slice_)
    swallowed = lost(total, k - 1, eps)
    assert np.all(np.abs(swallowed - (-(-k // parts) - 1)) <= 2 * parts), (
        "a slice is what is summed in one chain"
    )
    assert np.all(swallowed < slice_ + 2 * parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", [a for a in ARCHS if a != "blas"])
def test_two_terms_share_a_slice_or_do_not(arch, dtype):
    s = _engine.summation(arch, dtype)
    for k in (100, 256, 500, 700):
        x, eps = chain(k, dtype)
        y, ones = np.full(k, 0.4 * eps, dtype), np.ones((k, 40), dtype)
        total = probe.product(x[None, :], ones, y[None, :], ones, arch=arch)
        slice_ = s["slice"] or 2 * k
        parts = -(-k // slice_)
        wanted = 2 * k - 1 if 2 * k <= slice_ else -(-k // parts) - 1
        assert np.all(np.abs(lost(total, 2 * k - 1, eps) - wanted) <= 2 * parts + 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", [a for a in ARCHS if a != "blas"])
def test_what_stands_in_c(arch, dtype):
    """From C on, all numbers are lost to the 1 there; added to C afterwards, their sum is not."""
    k = 200
    _, eps = chain(k, dtype)
    x = np.full((1, k), 0.4 * eps, dtype)
    total = probe.product(x, np.ones((k, 40), dtype), C=np.ones((1, 40), dtype), arch=arch)
    wanted = k if _engine.summation(arch, dtype)["from_c"] else 0
    assert np.all(np.abs(lost(total, k, eps) - wanted) <= 3)


@pytest.mark.usefixtures("samples_as_rows")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("rows", [129, 500])
def test_column_sums_down_items_and_blocks(arch, dtype, rows):
    """db of a wide net: the last layer's by blocks of rows, a hidden layer's by items."""
    before = _engine.set_arch(arch)
    try:
        s = _engine.summation(None, dtype)
        model = fc.MLP([400, 300, 1], activation="identity", dtype=dtype)
        theta = np.zeros(model.n_params, dtype)
        W, b = model.unflatten(theta)[1]
        W[...] = 1
        target, eps = chain(rows, dtype)
        ob = fc.Objective(
            model, np.zeros((rows, 400)), -rows * target.astype(float) / 2, loss="mse"
        )
        plan = ob.hessian(theta).layout
        assert plan["panel"] == 0
        (_, hidden), (_, last) = model.unflatten(ob.gradient(theta))
    finally:
        _engine.set_arch(before)
    block = min(rows, s["block_rows"])
    assert abs(lost(last[0], rows - 1, eps) - (block - 1)) <= 3 + rows // block
    item = min(rows, s["item_rows"] or rows)
    items = -(-rows // s["items_of"]) if s["items_of"] else 1
    swallowed = lost(hidden, rows - 1, eps)
    assert np.all(swallowed <= item - 1 + 2 * items) and np.all(
        swallowed >= rows / items - 1 - 2 * items
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", ARCHS)
def test_inner_products_of_rows(arch, dtype):
    s = _engine.summation(arch, dtype)
    n = 8000
    x, eps = chain(n, dtype)
    before = _engine.set_arch(arch)
    try:
        total = _engine.project_rows(x[None, :], np.ones((1, n), dtype))[0, 0]
    finally:
        _engine.set_arch(before)
    wanted = s["panel"] / s["lanes"] if s["panel"] else (0 if dtype == "float32" else n)
    assert abs(lost(total, n - 1, eps) - wanted) <= 8


@pytest.fixture
def panels_across():
    """Samples lie across, one panel of 96 lines."""
    layout.force_across(96)
    yield
    layout.force_across(-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", [a for a in ARCHS if a != "blas"])
def test_totals_of_quadratic_forms_across(arch, dtype, panels_across):
    """Softplus bends by 1/4 at 0, where all z are; the weight above is so small, and the residual
    so large, that the units' curvature is all there is to see. Without a hidden layer the loss's
    own curvature is, in blocks of samples.
    """
    N, units = 256, 3
    eps = float(np.finfo(dtype).eps)
    x = np.full((N, 1), np.sqrt(0.4 * eps), dtype)
    x[0] = 1
    s = _engine.summation(arch, dtype)
    scale = np.array(2.0**60, dtype)
    before = _engine.set_arch(arch)
    try:
        deep = fc.MLP([1, units, 1], activation="softplus", bias=False, dtype=dtype)
        theta = np.array([0] * units + [1 / scale] * units, dtype)
        ob = fc.Objective(deep, x, np.full((N, 1), -scale, dtype))
        v = np.array([1] * units + [0] * units, dtype)
        total = ob.hessian(theta).quadratic(v[:, None])[0] * 2 * N
        flat = fc.Objective(fc.MLP([1, 1], bias=False, dtype=dtype), x, np.zeros((N, 1), dtype))
        top = flat.hessian(np.zeros(1, dtype)).quadratic(np.ones((1, 1), dtype))[0] * N / 2
    finally:
        _engine.set_arch(before)
    for found, rows, cols in ((total, units, N), (top, 1, s["block_rows"])):
        swallowed = rows * (N - 1) - (found - rows) / (0.4 * eps)
        shared = 0 if s["exact_totals"] else rows * (-(-cols // s["lanes"]) - 1)
        assert abs(swallowed - shared) <= 0.01 * shared + 2, (found, rows)


def test_what_is_asked_for_is_named():
    with pytest.raises(ValueError, match="float16"):
        _engine.summation(dtype="float16")
    with pytest.raises(ValueError, match="vax"):
        _engine.summation("vax")
