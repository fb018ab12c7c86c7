"""The range of the Hessian of few samples and the proof of its bounds: every inequality is compared
with long double, and eigenvalues with the dense matrix.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import gram_bounds
from fastcurv.certify.gram_bounds import ProvedRangeSpace, estimated_range_dimension
from fastcurv.structure.parameters import l2_diagonal

from ..certify.longdouble import LD, Truth
from ..nets import KERNELS, draw, every_activation

pytestmark = pytest.mark.by_day(share=1 / 2)


def objective(rng, activation, loss, N, sizes=(9, 7, 7, 3), copies=False, **options):
    X = rng.standard_normal((N, sizes[0]))
    if copies:
        X[1:], X[:, 2] = X[0], 0.0
    net = draw(rng, sizes, activation, loss, X=X, **options)
    return net.ob, net.direction(rng) / 2


def exact_map(R):
    """Return the map from the reduced space to theta as a matrix (n, m) in long double, formed from
    the bases that the operator R stores.
    """
    columns = np.zeros((R.n, R.m), LD)
    starts = R.whole.objective.model.starts
    for layer, start, cut in zip(R.layers, starts, R.cuts, strict=False):
        k, out, j = layer.width, layer.out, cut.start
        if layer.whole:
            columns[range(start, start + out * k), range(j, j + out * k)] = 1
        else:
            Q1, Q2, U = (x.astype(LD) for x in (layer.Q1, layer.Q2, layer.U))
            columns[start : start + out * k, j : j + layer.first] = np.kron(np.eye(out), Q1)
            if layer.weights > layer.first:
                columns[start : start + out * k, j + layer.first : j + layer.weights] = np.kron(
                    U, Q2
                )
        if layer.bias:
            end = start + out * k
            columns[range(end, end + out), range(j + layer.weights, j + layer.size)] = 1
    return columns


def spectral_norm_below(A):
    """Return a lower bound on ``||A||`` as a float, by power steps in long double from a float64
    singular vector.
    """
    v = np.linalg.svd((A / (np.abs(A).max() or 1)).astype(float))[2][0].astype(LD)
    for _ in range(4):
        w = A.T @ (A @ v)
        v = w / (np.sqrt((w * w).sum()) or 1)
    return float(np.sqrt(((A @ v) ** 2).sum()))


def check_inequalities(ob, theta):
    R = ProvedRangeSpace(ob.hessian(theta))
    E, n = exact_map(R), R.n
    truth = Truth(ob, theta)
    H = np.column_stack([truth.product(e) for e in np.eye(n)])
    H = (H + H.T) / 2
    F = E.T @ E - np.eye(R.m)
    assert spectral_norm_below(F) <= max(layer.defect for layer in R.layers) + 1e-18
    # an exact complement, by Gram-Schmidt in long double, repeated
    Z = np.linalg.svd(E.astype(float))[0][:, R.m :].astype(LD)
    for _ in range(3):
        Z = Z - E @ (E.T @ Z)
    Z /= np.sqrt((Z * Z).sum(axis=0))
    assert Z.shape[1] == R.n_complement
    H0 = H - np.diag(np.broadcast_to(np.asarray(l2_diagonal(ob)).astype(LD), n))
    assert spectral_norm_below(H0 @ Z) <= R.leak + 1e-18
    found = R.matrix()
    off = found.products - E.T @ (H @ E)
    assert (np.sqrt((off * off).sum(axis=0)) <= found.bounds).all()
    # no eigenvalue differs from its approximation by more than the sum of bounds
    values = np.linalg.eigvalsh((found.products + found.products.T) / 2)
    both = np.sort(np.append(values, np.full(R.n_complement, R.complement_eigenvalue)))
    dense = np.linalg.eigvalsh(H.astype(float))
    slack = 20 * n * np.finfo(float).eps * np.abs(dense).max()
    gap = np.abs(both - dense).max()
    assert gap <= np.linalg.norm(found.bounds) + found.error + slack
    assert gap <= 1e-12 * np.abs(dense).max()  # the actual error is far below the bound
    v = R.complement_vector()
    assert np.linalg.norm(R.project(v[None])) <= 1e-13
    assert np.linalg.norm(H0.astype(float) @ v) <= 2 * R.leak + slack
    return R


@every_activation
def test_every_inequality_of_the_proof_holds(activation, rng):
    for i, (loss, N) in enumerate(zip(KERNELS, (1, 2, 3), strict=True)):
        options = {"residual": i == 1, "bias": i != 2, "l2": 0.01 * i, "l2_biases": i != 1}
        R = check_inequalities(*objective(rng, activation, loss, N, **options))
        assert R.n_complement > 0


def test_dependent_samples_and_columns_reduce_the_range(rng):
    """Equal samples, samples of weight 0 and parameters of 0 reduce the dimension of the range, and
    all inequalities of the range bounds hold.
    """
    for activation in ("tanh", "relu"):
        one = check_inequalities(*objective(rng, activation, "cross_entropy", 1, l2=0.1))
        four = check_inequalities(
            *objective(rng, activation, "cross_entropy", 4, l2=0.1, copies=True)
        )
        assert four.layers[0].r == one.layers[0].r == 1
        assert four.m < estimated_range_dimension(four.whole.objective.model, 4)
    weight = np.array([0.0, 1.0, 0.0])
    ob, theta = objective(rng, "gelu", "mse", 3, sample_weight=weight, l2=0.1)
    assert check_inequalities(ob, theta).layers[1].s == 1
    zeros = np.zeros_like(theta)
    check_inequalities(ob, zeros)


def test_range_bounds_hold_for_many_samples_and_wide_networks(rng):
    R = check_inequalities(*objective(rng, "tanh", "mse", 12, (20, 6, 2), l2=0.1))
    assert R.layers[1].whole and not R.layers[0].whole
    check_inequalities(*objective(rng, "silu", "cross_entropy", 2, (6, 14, 5, 4), l2=0.1))


def test_range_bounds_are_none_without_a_proof(rng, monkeypatch):
    """`range_space` returns None for operators whose products have no proved bound, and if the
    range exceeds the limits on dimensions or on bytes of bases.
    """
    ob, theta = objective(rng, "tanh", "mse", 2)
    H = ob.hessian(theta)
    found = H.range_space(10**6)
    assert found.m + found.n_complement == H.shape[0]
    assert H.range_space(200).m <= 200 and H.range_space(20) is None
    assert ob.ggn(theta).range_space(200) is None
    assert ob.astype("float32").hessian(theta.astype("float32")).range_space(200) is None
    norm = fc.Objective(fc.MLP((9, 7, 3), batch_norm=True), ob.X, ob.y, "mse")
    assert norm.hessian(norm.model.init(seed=0)).range_space(200) is None
    monkeypatch.setattr(gram_bounds, "MAX_BASES_BYTES", 8)
    assert H.range_space(10**6) is None
