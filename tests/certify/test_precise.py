"""The gradient in double-double arithmetic (about 100 bits) differs from long double and from
independent computations by at most its error bound.
"""

import copy
from decimal import Decimal, localcontext

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv.certify import precise
from fastcurv.certify.passes import Passes
from fastcurv.certify.precise import DoubleDouble

from .bound_cases import objective
from .longdouble import LD, Truth, size

pytestmark = pytest.mark.by_day(share=1 / 3)


@pytest.mark.parametrize("loss", engine.LOSSES)
@pytest.mark.parametrize("act", engine.ACTIVATIONS)
def test_the_precise_gradient_agrees_with_long_double(act, loss):
    """The precise gradient differs from long double by at most its bound plus the oracle's own
    error of a few thousand eps.
    """
    for sizes, dtype in (([4, 6, 6, 3], "float64"), ([3, 3, 2], "float32"), ([5, 2], "float64")):
        acts = act if len(sizes) > 2 else ()
        ob, theta = objective(sizes, acts, loss, dtype=dtype, residual=True, soft=act == "elu")
        g, error = ob.certificates.precise_gradient(theta)
        truth, room = Truth(ob, theta), 4e3 * float(np.finfo(LD).eps)
        if act == "leaky_relu":
            room += 1e-16 * float(size(g))  # 0.01 of float64 is not 1/100
        assert g.dtype == np.float64
        assert size(g - truth.gradient) <= error + room
        assert error <= 1e-15 * float(np.linalg.norm(g)) + 1e-22


@pytest.mark.parametrize("act", ["tanh", "relu", "gelu", "softplus"])
@pytest.mark.parametrize("loss", engine.LOSSES)
def test_the_precise_gradient_is_accurate_before_its_last_rounding(act, loss, monkeypatch):
    """Precise gradients from two ways of slicing the matrices, which round differently, agree to
    1e-20.
    """
    from fastcurv.certify import precise

    ob, theta = objective([4, 7, 5, 3], act, loss, N=70)
    first = precise.precise_gradient_and_value(ob, theta)
    monkeypatch.setattr(precise, "N_BLOCK_ROWS", 13)
    monkeypatch.setattr(precise, "MAX_EXACT_INNER_DIM", 4)
    monkeypatch.setattr(precise, "N_SLICES", 6)
    second = precise.precise_gradient_and_value(copy.copy(ob), theta)
    g, g_error, value, value_error = first
    assert abs(value - second[2]) <= value_error + second[3]
    assert np.linalg.norm(g - second[0]) <= 1e-20 and 0 < g_error <= 1e-15


def test_gradient_bound_is_tiny_at_a_critical_point():
    """At a point whose exact gradient is 0, the error bound of the precise gradient is far below
    1e-16, although the terms of the gradient are not small.
    """
    X = np.array([[1.0], [2.0], [-3.0]])
    ob = fc.Objective(fc.MLP([1, 1]), X, 3 * X[:, 0] + 0.5, loss="mse")
    g, error = ob.certificates.precise_gradient([3.0, 0.5])
    assert np.array_equal(g, [0, 0]) and error < 1e-24


def test_zero_preactivations_are_computed_exactly():
    """If z is exactly 0, the precise gradient uses the left derivative of relu and its error bound
    includes no jump.
    """
    X = np.zeros((3, 2))
    ob = fc.Objective(fc.MLP([2, 3, 1], activation="relu", bias=False), X, [1.0, 2, 3], loss="mse")
    g, error = ob.certificates.precise_gradient(np.ones(9))
    assert not g.any() and error < 1e-20
    ob, theta = objective([4, 5, 3], "relu", "mse")
    assert ob.certificates.precise_gradient(0 * theta)[1] < 1e-15


def test_precise_gradient_is_none_for_batch_norm_and_overflow():
    ob, theta = objective([4, 5, 3], "tanh", "mse", batch_norm=True)
    g, error = ob.certificates.precise_gradient(theta)
    assert np.allclose(g, ob.gradient(theta), atol=error) and 0 < error < 1e-9
    assert ob.certificates.precise_value(theta)[1] == np.inf
    ob, theta = objective([4, 5, 3], "relu", "mse")
    assert ob.certificates.precise_gradient(1e160 * theta)[1] == np.inf


# --- arithmetic


def exact(x):
    return [Decimal(float(a)) + Decimal(float(b)) for a, b in zip(x.hi.ravel(), x.lo.ravel())]


def numbers():
    rng = np.random.default_rng(0)
    z = [rng.uniform(-b, b, 20) for b in (1e-8, 0.01, 1, 6, 30)] + [10.0 ** rng.uniform(-20, 1, 20)]
    z = np.concatenate(z)
    return precise.two_sum(z, 1e-17 * z * rng.standard_normal(z.size))


@pytest.mark.parametrize(
    "name, truth",
    [
        ("tanh", lambda z: (1 - (-2 * z).exp()) / (1 + (-2 * z).exp())),
        ("sigmoid", lambda z: 1 / (1 + (-z).exp())),
        ("softplus", lambda z: (1 + z.exp()).ln()),
    ],
)
def test_precise_functions_agree_with_decimal(name, truth):
    z = numbers()
    with localcontext() as context:
        context.prec = 60
        wanted = [truth(x) for x in exact(z)]
        for got, want in zip(exact(getattr(precise, "pair_" + name)(z)), wanted):
            size = abs(want) + (name == "softplus")
            assert abs(got - want) <= Decimal(precise.PAIR_ROUNDOFF) * size + Decimal(1e-40)


def test_the_precise_exponential_agrees_with_decimal():
    z = -precise.pair_abs(numbers())
    with localcontext() as context:
        context.prec = 60
        for x, e, m in zip(exact(z), exact(precise.pair_exp(z)), exact(precise.pair_expm1(z))):
            assert abs(e - x.exp()) <= Decimal(precise.PAIR_ROUNDOFF) * x.exp()
            assert abs(m - (x.exp() - 1)) <= Decimal(precise.PAIR_ROUNDOFF) * abs(
                x.exp() - 1
            ) + Decimal(1e-55)


def test_the_precise_normal_distribution_integrates_its_density():
    """Differences of the precise normal distribution function equal integrals of its density."""
    h = 2.0**-6
    z = np.arange(-10, 10, 0.37)
    ends = [
        precise.pair_normal_density_and_cdf(precise.pair_from_float(z + s * h))[1] for s in (1, -1)
    ]
    gap = precise.add_pairs(ends[0], -ends[1])
    # The Gauss-Legendre rule with 12 nodes on an interval of length 2 h is accurate to 1e-40.
    with localcontext() as context:
        context.prec = 60
        nodes, weights = np.polynomial.legendre.leggauss(12)
        total = np.zeros_like(z)
        for x, w in zip(nodes, weights):
            total += (
                w
                * h
                * precise.pair_normal_density_and_cdf(precise.pair_from_float(z + h * x))[0].hi
            )
        assert np.abs(gap.hi - total).max() <= 4e-17
    n, cdf = precise.pair_normal_density_and_cdf(precise.pair_from_float(np.zeros(1)))
    assert cdf.hi[0] == 0.5 and abs(n.hi[0] - 0.3989422804014327) <= 1e-16
    tail = precise.pair_normal_density_and_cdf(precise.pair_from_float(np.array([-4.0])))[1]
    assert abs(tail.hi[0] - 3.1671241833119924e-05) <= 1e-20


@pytest.mark.parametrize("k", [1, 5, 1024, 1500, 4000])
def test_precise_matrix_products_are_exact_to_their_bound(k):
    rng = np.random.default_rng(k)
    A, B = (rng.standard_normal((3, k)) * 10.0 ** rng.uniform(-5, 5, (3, k)) for _ in range(2))
    A, B = (precise.two_sum(M, 1e-17 * M * rng.standard_normal(M.shape)) for M in (A, B))
    with localcontext() as context:
        context.prec = 60
        found = exact(
            precise.pair_matmul(precise.split_into_slices(A), precise.split_into_slices(B))
        )
        for i in range(3):
            for j in range(3):
                a, b = (exact(DoubleDouble(M.hi[r], M.lo[r])) for M, r in ((A, i), (B, j)))
                error = abs(found[3 * i + j] - sum(p * q for p, q in zip(a, b)))
                most = np.abs(A.hi[i]).max() * np.abs(B.hi[j]).max()
                assert error <= Decimal(precise.pair_matmul_error_bound(k) * most)
    assert precise.pair_matmul_error_bound(k) <= k * 1e-27


@pytest.mark.parametrize("name", ["add_pairs", "multiply_pairs", "divide_pairs"])
def test_precise_operations_are_exact_to_their_bound(name):
    x, y = numbers(), DoubleDouble(*(np.roll(part, 7) for part in numbers()))
    with localcontext() as context:
        context.prec = 60
        for got, a, b in zip(exact(getattr(precise, name)(x, y)), exact(x), exact(y)):
            want = {"add_pairs": a + b, "multiply_pairs": a * b, "divide_pairs": a / b}[name]
            assert abs(got - want) <= Decimal(precise.PAIR_ROUNDOFF) * abs(want)


def test_underflowing_preactivations_count_as_possibly_nonzero():
    """If the preactivation 1e-200 times 1e-200 underflows to 0, the error bound on phi' includes
    its jump at the kink. If the preactivation is exactly 0, the bound does not.
    """
    model = fc.MLP([1, 1, 1, 1], "leaky_relu", bias=False)
    ob = fc.Objective(model, np.ones((2, 1)), np.zeros(2), loss="mse")
    for first, off in ((1e-200, True), (0.0, False)):
        state = next(iter(Passes(ob, np.array([first, 1e-200, 1.0])).iter_states()))
        assert state.z[1].x[0, 0] == 0 and state.phi[1].p.x[0, 0] == 0.01
        assert (state.phi[1].p.dx.E[0, 0] >= 0.99) == off
