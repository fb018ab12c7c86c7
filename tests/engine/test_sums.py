"""The order of the kernels' sums is that of `_engine.summation_order`, on which the proofs' counts
of roundings are based.

A 1 in a chain of additions absorbs every later number below half a unit in its last place; numbers
that are summed in another chain first are not lost. The loss therefore shows how many numbers
shared a chain with the 1.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv._engine import testing_hooks as hooks

from .. import nets
from ..plans import laid_out

pytestmark = pytest.mark.by_day(share=1 / 2)

but_blas = pytest.mark.parametrize("arch", nets.kernel_tables(without="blas"), indirect=True)


def count_lost(total, count, eps):
    """Return how many of `count` numbers of size 0.4 eps were lost when they were added to 1 one by
    one and gave `total`. Here eps is the distance from 1 to the next number.
    """
    return count - (np.float64(total) - 1) / (0.4 * eps)


def chain_with_a_one(k, dtype, at=0):
    eps = float(np.finfo(dtype).eps)
    x = np.full(k, 0.4 * eps, dtype)
    x[at] = 1
    return x, eps


@but_blas
@pytest.mark.parametrize("k", [300, 1000, 2048, 5000])
def test_each_slice_of_a_product_is_one_chain_of_additions(arch, dtype, k):
    s = _engine.summation_order(arch, dtype)
    slice_ = s["slice"] or k
    x, eps = chain_with_a_one(k, dtype)
    total = hooks.multiply(x[None, :], np.ones((k, 40), dtype), arch=arch)
    parts = -(-k // slice_)
    swallowed = count_lost(total, k - 1, eps)
    assert np.all(np.abs(swallowed - (-(-k // parts) - 1)) <= 2 * parts), (
        "a slice is what is summed in one chain"
    )
    assert np.all(swallowed < slice_ + 2 * parts)


@but_blas
def test_two_terms_share_a_slice_if_they_fit(arch, dtype):
    s = _engine.summation_order(arch, dtype)
    for k in (100, 256, 500, 700):
        x, eps = chain_with_a_one(k, dtype)
        y, ones = np.full(k, 0.4 * eps, dtype), np.ones((k, 40), dtype)
        total = hooks.multiply(x[None, :], ones, y[None, :], ones, arch=arch)
        slice_ = s["slice"] or 2 * k
        parts = -(-k // slice_)
        wanted = 2 * k - 1 if 2 * k <= slice_ else -(-k // parts) - 1
        assert np.all(np.abs(count_lost(total, 2 * k - 1, eps) - wanted) <= 2 * parts + 2)


@but_blas
def test_accumulation_starts_from_c_or_adds_it(arch, dtype):
    """If a kernel table starts a sum from C = 1, all small numbers are lost. If the table adds C to
    the finished sum, no number is lost.
    """
    k = 200
    _, eps = chain_with_a_one(k, dtype)
    x = np.full((1, k), 0.4 * eps, dtype)
    total = hooks.multiply(x, np.ones((k, 40), dtype), C=np.ones((1, 40), dtype), arch=arch)
    wanted = k if _engine.summation_order(arch, dtype)["from_c"] else 0
    assert np.all(np.abs(count_lost(total, k, eps) - wanted) <= 3)


@pytest.mark.usefixtures("samples_as_rows")
@pytest.mark.parametrize("rows", [129, 500])
def test_bias_gradients_are_summed_by_items_and_blocks(arch, dtype, rows):
    """A layer-parallel plan sums bias gradients by blocks of samples in the last layer, and by
    items in a hidden layer.
    """
    s = _engine.summation_order(None, dtype)
    model = fc.MLP([400, 300, 1], activation="identity", dtype=dtype)
    theta = np.zeros(model.n_params, dtype)
    W, b = model.unflatten(theta)[1]
    W[...] = 1
    target, eps = chain_with_a_one(rows, dtype)
    ob = fc.Objective(model, np.zeros((rows, 400)), -rows * target.astype(float) / 2, loss="mse")
    assert ob.hessian(theta).layout["panel"] == 0
    (_, hidden), (_, last) = model.unflatten(ob.gradient(theta))
    block = min(rows, s["block_rows"])
    assert abs(count_lost(last[0], rows - 1, eps) - (block - 1)) <= 3 + rows // block
    item = min(rows, s["item_rows"] or rows)
    items = -(-rows // s["items_of"]) if s["items_of"] else 1
    swallowed = count_lost(hidden, rows - 1, eps)
    assert np.all(swallowed <= item - 1 + 2 * items)
    assert np.all(swallowed >= rows / items - 1 - 2 * items)


def test_inner_products_of_rows_are_summed_in_the_stated_chains(arch, dtype):
    s = _engine.summation_order(arch, dtype)
    n = 8000
    x, eps = chain_with_a_one(n, dtype)
    total = _engine.project_rows(x[None, :], np.ones((1, n), dtype))[0, 0]
    wanted = s["panel"] / s["lanes"] if s["panel"] else (0 if dtype == "float32" else n)
    assert abs(count_lost(total, n - 1, eps) - wanted) <= 8


def test_inner_rejects_foreign_byte_order(dtype):
    x = np.ones(8, dtype)
    others = x.astype(x.dtype.newbyteorder()), x[::2], x.astype(int), x.reshape(2, 4), x > 0
    assert _engine.inner_product(x, x) == 8 and all(
        _engine.inner_product(y, y) is None for y in others
    )


def top_form(x):
    """Return the output term <rz, loss'' rz> of the quadratic form of a linear network with one
    input, scaled so that it is the sum of x^2.
    """
    ob = fc.Objective(fc.MLP([1, 1], bias=False, dtype=x.dtype), x, np.zeros_like(x), "mse")
    H = ob.hessian(np.zeros(1, x.dtype))
    return H.quadratic_form(np.ones(1, x.dtype)) * len(x) / 2


def curvature_form(x, units):
    """Return the curvature term <e phi'' rz, rz> of the quadratic form of a network of softplus
    units at 0, where phi'' is 1/4, scaled so that it is `units` times the sum of x^2. The output
    weight is so small, and the residual so large, that all other terms are negligible.
    """
    scale, zero, one = (np.full(units, s, x.dtype) for s in (2.0**60, 0.0, 1.0))
    net = fc.MLP([1, units, 1], activation="softplus", bias=False, dtype=x.dtype)
    ob = fc.Objective(net, x, np.full_like(x, -scale[0]), "mse")
    H = ob.hessian(np.concatenate([zero, 1 / scale]))
    return H.quadratic_form(np.concatenate([one, zero])) * len(x) * 2


@but_blas
def test_quadratic_forms_in_the_transposed_layout_are_summed_in_the_stated_chains(arch, dtype):
    """The number of small terms lost in a sum is that of the stated chains. There is one chain over
    units and samples of a panel for the curvature term, and one over blocks of samples for the
    output term. In float64, joining the chains loses up to half a unit in the last place each.
    """
    N, units = 1024, 3
    s, eps = _engine.summation_order(arch, dtype), float(np.finfo(dtype).eps)
    alone = np.zeros((N, 1), dtype)
    alone[0] = 1
    x = np.where(alone == 1, alone, np.array(np.sqrt(0.4 * eps), dtype))
    with laid_out(across=128):  # one panel of 128 cache lines of samples
        totals = [
            (curvature_form(x, units) - curvature_form(alone, units), units, N),
            (top_form(x) - top_form(alone), 1, s["block_rows"]),
        ]
    joins = 0 if dtype == "float32" else N // 16
    for seen, rows, cols in totals:
        swallowed = rows * (N - 1) - seen / (0.4 * eps)
        wide = s["totals_in_double"] and dtype == "float32"
        shared = 0 if wide else rows * (-(-cols // s["lanes"]) - 1)
        assert swallowed <= shared + 6 * rows + joins, (swallowed, shared)
        if rows == 1:
            assert swallowed >= shared - 6 - joins, (swallowed, shared)


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_row_of_weight_0_adds_nothing_to_a_quadratic_form(arch, activation):
    """A sample of weight 0 adds nothing to a quadratic form, however large its inputs are, because
    its delta of 0 is the first factor.
    """
    rng = np.random.default_rng(0)
    model, N = fc.MLP((3, 8, 1), activation, dtype="float32"), 100
    X, y = rng.standard_normal((2, N, 3)).astype("float32")
    weight = np.ones(N, "float32")
    X[7], weight[7] = 1e20, 0
    theta = rng.standard_normal(model.n_params).astype("float32")
    theta[:24] *= np.float32(1e-21)  # so that sample 7 does not saturate the units
    v = rng.standard_normal(model.n_params).astype("float32")
    H = fc.Objective(model, X, y[:, :1], "mse", sample_weight=weight).hessian(theta)
    product = v.astype(float) @ (H @ v).astype(float)
    assert np.isclose(H.quadratic_form(v), product, rtol=1e-4)


def test_summation_rejects_unknown_names():
    with pytest.raises(ValueError, match="float16"):
        _engine.summation_order(dtype="float16")
    with pytest.raises(ValueError, match="vax"):
        _engine.summation_order("vax")
