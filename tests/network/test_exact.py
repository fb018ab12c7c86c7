"""Value, gradient and every product against an oracle built another way: complex steps through
plain NumPy.

Also against double backward in torch and jvp(grad) in JAX where they are installed.
"""

import functools
import itertools
import zlib

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from ..nets import ACTIVATIONS, CURVATURES, KERNELS, every_activation
from .product_cases import SLACK, compare, truth

LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 700]  # around every vector width and tile


@functools.cache
def solved(problem, dtype, sizes, activation, loss, N, bias, residual, weights, l2, soft):
    """A problem and its truth, once for all tables."""
    key = repr((sizes, activation, loss, N, bias, residual, weights))
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    how = {"bias": bias, "residual": residual, "weights": weights, "l2": l2, "soft": soft}
    p = problem(rng, list(sizes), activation, loss, N, dtype=dtype, **how)
    V = rng.standard_normal((p.n, 2)).astype(dtype)
    u = rng.standard_normal((N, sizes[-1])).astype(dtype)
    return p, V, u, truth(p.ref, p.theta, V, u)


def check(problem, dtype, *case):
    p, V, u, known = solved(problem, dtype, *case)
    p.ob.__setstate__(p.ob.__getstate__())  # plans of this table, not of the one before
    compare(p, known, V, u, SLACK[dtype], case)


@pytest.mark.by_day(share=1 / 2)
@every_activation
def test_every_combination(arch, activation, dtype, problem):
    """loss x bias x residual x weights, the widths and batches cycling through all lengths."""
    short = LENGTHS[:-1]
    start = ACTIVATIONS.index(activation)
    for i, (loss, bias, residual, weights) in enumerate(
        itertools.product(KERNELS, (True, False), (True, False), (True, False))
    ):
        a, b, c, d = (short[(start + step * i) % len(short)] for step in (1, 3, 5, 8))
        sizes = (a, a, b, b, c) if residual else (a, b, c)
        more = bias, residual, weights, 0.1 * (i % 2), i % 3 == 0
        check(problem, dtype, sizes, activation, loss, d, *more)


def test_every_length(arch, dtype, problem):
    """Each length as input, hidden width, output and batch; mixed activations."""
    for i in range(len(LENGTHS)):
        sizes = tuple(LENGTHS[(i + shift) % len(LENGTHS)] for shift in (0, 3, 8, 5))
        names = (ACTIVATIONS[i % 9], ACTIVATIONS[(i + 4) % 9])
        more = LENGTHS[(i + 10) % len(LENGTHS)], i % 2 == 0, False, i % 4 > 1, 0.0, False
        check(problem, dtype, sizes, names, KERNELS[i % 3], *more)


@pytest.mark.usefixtures("samples_as_rows")
def test_wide_nets(arch, dtype, problem):
    """Nets too large for the second-level cache are served layer by layer: their own way through
    the engine. Of the activations each table and dtype takes a third.
    """
    archs = engine.available_archs()
    first = archs.index(arch) + (dtype == "float32")
    for i, activation in list(enumerate(ACTIVATIONS))[first % 3 :: 3]:
        loss, N = KERNELS[(i + archs.index(arch)) % 3], (9, 17, 33)[i % 3]
        more = i % 2 == 0, i % 4 < 2, i % 3 == 0, 0.0, False
        case = (129, 131, 131, 257, 33), activation, loss, N, *more
        check(problem, dtype, *case)
        p = solved(problem, dtype, *case)[0]
        assert p.ob.hessian(p.theta).layout["panel"] == 0


@pytest.mark.parametrize("loss", KERNELS)
def test_dense(arch, loss, dtype, rng, problem):
    """`to_dense` is the whole matrix, and no layer at all is a network too."""
    for sizes in ([3, 5, 4, 3], [4, 3]):
        p = problem(rng, sizes, "softplus", loss, 9, weights=True, l2=0.3, dtype=dtype)
        I = np.eye(p.n)
        true = truth(p.ref, p.theta, I, np.zeros((9, 3)))
        for kind, name in zip(CURVATURES, ("HV", "GV", "FV")):
            dense = getattr(p.ob, kind)(p.theta).to_dense()
            assert np.array_equal(dense, dense.T)
            assert np.linalg.norm(dense - true[name]) <= SLACK[dtype] * np.linalg.norm(true[name])


# --- nearly certain samples
# ---------------------------------------------------------------------------------------------


def certain(kind, margin):
    """Logits of a sample that is nearly certain of class 0, exact in float32."""
    logits = {"true": [margin, 0.0, 1.0], "top twice": [margin, margin - 1, 0.0]}
    return np.array([logits.get(kind, [0.0, margin, 1.0])])


def test_nearly_certain_samples(arch, dtype, rng):
    """The relative accuracy of value, gradient and product of one sample does not fade as it grows
    certain.

    One layer without data: the logits are its biases. Truth: log1p of the other terms, in long
    double.
    """
    for margin, kind, soft in itertools.product(
        [4.0, 16.0, 30.0, 60.0], ["true", "top twice", "wrong"], [False, True]
    ):
        model = fc.MLP([1, 3], dtype=dtype)
        z = certain(kind, margin)
        y = np.array([[1.0, 0.0, 0.0]]) if soft else np.array([0])
        theta = np.r_[np.zeros(3), z[0]].astype(dtype)
        v = np.r_[np.zeros(3), rng.standard_normal(3)].astype(dtype)
        long = z[0].astype(np.longdouble)
        e = np.exp(long - long[0])
        others = e[1:].sum()
        p = e / e.sum()
        delta = p.copy()
        delta[0] = -others / (1 + others)
        r = v[3:].astype(np.longdouble)
        centre = (
            r - r[np.argmax(long)]
        )  # H r = p (r - p'r), free of cancellation where p is nearly e_i
        true = p * (centre - p @ centre)
        top = np.argmax(long)
        true[top] = -np.delete(true, top).sum()
        ob = fc.Objective(model, np.zeros((1, 1)), y, "cross_entropy")
        H = ob.hessian(theta)
        eps = 8 * (1 + margin) * np.finfo(dtype).eps  # of exp at an argument that is itself rounded
        assert abs(ob.value(theta) - np.log1p(others)) <= eps * np.log1p(others)
        assert np.all(np.abs(H.gradient[3:] - delta) <= eps * np.abs(delta))
        room = np.abs(p * (np.abs(centre) + abs(p @ centre)))
        room += (np.arange(3) == top) * np.abs(true[top])
        assert np.all(np.abs((H @ v)[3:] - true) <= 4 * eps * room)
        form = (p * centre**2).sum() - (p @ centre) ** 2
        assert abs(H.quadratic(v) - form) <= 16 * eps * abs(form) + 4 * eps * (p * centre**2).sum()


def test_nearly_certain_batch(arch, dtype, rng, problem):
    """A trained net in float32: every sample right by a wide margin, and the Hessian still right to
    its last digits.
    """
    y, v = np.zeros(33, int), rng.standard_normal(94).astype(dtype)
    p = problem(rng, [5, 9, 4], "tanh", "cross_entropy", y=y, N=33, dtype=dtype)
    p.model.unflatten(p.theta)[1][1][:] = [21.0, 0.0, 1.0, 2.0]
    value, gradient = p.ref.value_and_gradient(p.theta.astype(np.longdouble))
    product = p.exact(v)
    slack = {"float32": 3e-4, "float64": 1e-9}[dtype]  # the oracle forms p - y: 1e-19 over 1e-9
    assert value < 1e-6
    norm = np.linalg.norm
    assert abs(p.ob.value(p.theta) - value) <= slack * value
    assert norm(p.ob.gradient(p.theta) - gradient) <= slack * norm(gradient)
    assert norm(p.ob.hessian(p.theta) @ v - product) <= slack * norm(product)
