"""Few rows: W and V read as they lie, against the layouts that pack them or lay samples across."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from ..plans import laid_out, least_memory
from .test_across import everything

NETS = [  # sizes, rows, activation, loss, residual
    ((40, 130, 70, 12), 3, "tanh", "cross_entropy", False),
    ((33, 81, 1), 1, "sigmoid", "binary_cross_entropy", False),
    ((300, 17, 17, 5), 8, "gelu", "mse", True),
    ((5, 64, 128, 3), 4, "relu", "cross_entropy", False),
    ((17000, 3, 2), 2, "softplus", "mse", False),  # deeper than one chain of additions
    ((1, 1, 1), 1, "tanh", "mse", False),
    ((9, 31, 31, 2), 27, "leaky_relu", "mse", True),
]


@pytest.fixture
def few():
    """Sets up to how many rows plans made from then on pack nothing."""
    with laid_out(across=0):
        yield engine.force_unpacked


def bias_free(sizes, rows, dtype, n_threads=2, memory=None):
    """An objective without biases: nothing follows the last matrix in theta."""
    model = fc.MLP(sizes, bias=False, dtype=dtype)
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((rows, sizes[0])), rng.standard_normal((rows, sizes[-1]))
    ob = fc.Objective(model, X, y, "mse", l2=0.01, n_threads=n_threads, memory=memory)
    return ob, model.init(seed=0)


@pytest.mark.parametrize("net", NETS, ids=lambda net: "-".join(map(str, net[0])))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_packed_gives_what_packed_gives(arch, net, dtype, few):
    """All that the passes make; the same bits for any number of threads."""
    few(0)
    expected, _ = everything(net, dtype)
    few(64)
    got, layout = everything(net, dtype, n_threads=1)
    assert layout["panel"] == 0 or arch in ("blas", "reference")
    for i, (x, y) in enumerate(zip(got, expected)):
        gap = np.linalg.norm(x - y)
        assert gap <= (1e-11 if dtype == "float64" else 3e-4) * np.linalg.norm(y), i
    more, _ = everything(net, dtype, n_threads=2)
    assert all(np.array_equal(a, b) for a, b in zip(got, more))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(30, 41, 43), (5, 3, 2), (64, 64, 64), (301, 302, 303, 15)])
@pytest.mark.parametrize("chunks", [False, True])
def test_a_product_takes_the_place_of_its_vector(arch, sizes, dtype, chunks, few):
    """Of a block in place: the same bits as single products, whose vectors stay as they are; shared
    by two threads where the net is large; and where rows go in chunks, each of which asks for the
    vectors again.
    """
    few(64)
    ob, theta = bias_free(sizes, 4, dtype)
    H = ob.hessian(theta)
    if chunks:
        least = least_memory(
            lambda memory: bias_free(sizes, 4, dtype, memory=memory)[0].hessian(theta)
        )
        ob, theta = bias_free(sizes, 4, dtype, memory=least)
        H = ob.hessian(theta)
        assert H.layout["chunk"] < 4
    V = np.random.default_rng(0).standard_normal((len(theta), 3)).astype(dtype)
    before = V.copy()
    block = H @ V
    assert np.array_equal(V, before)
    for j in range(3):
        assert np.array_equal(block[:, j], H @ np.ascontiguousarray(V[:, j]))


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_those_of_differences(arch, rows, dtype, few):
    """H v against a complex step's like: central differences of float64 gradients."""
    few(64)
    ob, theta = bias_free((20, 33, 17), rows, dtype)
    fine, _ = bias_free((20, 33, 17), rows, "float64")
    v = np.random.default_rng(1).standard_normal(len(theta))
    at, step = theta.astype(float), 1e-5
    slope = (fine.gradient(at + step * v) - fine.gradient(at - step * v)) / (2 * step)
    product = ob.hessian(theta) @ v.astype(dtype)
    assert np.linalg.norm(product - slope) <= (1e-8 if dtype == "float64" else 1e-5) * (
        np.linalg.norm(slope)
    )


def test_which_rows_are_few():
    """Half a line of samples or fewer, over parameters that fill some pages."""
    if engine.chosen_arch() in ("blas", "reference"):
        pytest.skip("no vectors")
    for dtype, most in (("float32", 8), ("float64", 4)):
        for rows in (1, most, most + 1):
            ob, theta = bias_free((64, 128, 64), rows, dtype)
            layout = ob.hessian(theta).layout
            assert (layout["panel"] == 0) == (rows <= most), (dtype, rows)
        ob, theta = bias_free((2, 16, 16, 1), 1, dtype)
        assert ob.hessian(theta).layout["panel"]
