"""Cholesky factorisations of curvature operators."""

import pickle

import numpy as np
import pytest

import fastcurv as fc

from .. import nets


def operators(net):
    """Return a dict of positive definite operators of the network: a shifted Hessian, a shifted
    GGN, and a principal block of the GGN.
    """
    H = net.ob.hessian(net.theta)
    mu = 1.0 - min(0.0, float(fc.eigvalsh(H)[0]))
    G = net.ob.ggn(net.theta).shift(0.5)
    return {"shifted": H.shift(mu), "ggn": G, "block": net.ob.ggn(net.theta).restrict(layers=[1])}


def test_a_factor_gives_solutions_determinant_and_inverse_diagonal(rng):
    net = nets.draw(rng, [3, 5, 2], "tanh", "cross_entropy", N=40, l2=0.3)
    for name, op in operators(net).items():
        A, factor = op.to_dense(), op.factor()
        n, scale = len(A), np.linalg.norm(A, 2)
        cond = np.linalg.cond(A)
        B = rng.standard_normal((n, 3))
        for b in (B, B[:, 0], B[:, :0], np.asfortranarray(B)):
            x = factor.solve(b)
            assert x.shape == b.shape and x.dtype == np.float64, name
            left = np.abs(A @ x - b).max(initial=0.0)
            assert left <= 100 * n * 2.3e-16 * scale * np.abs(x).max(initial=1.0), name
        assert abs(factor.logdet - np.linalg.slogdet(A)[1]) <= 1e-13 * n * cond, name
        gap = np.abs(factor.inverse_diagonal - np.diag(np.linalg.inv(A))).max()
        assert gap <= 1e-14 * cond**2 / scale, name
        assert np.abs(factor.lower @ factor.lower.T - A).max() <= 1e-14 * n * scale, name
        assert not np.triu(factor.lower, 1).any(), name


def test_factorising_an_indefinite_matrix_raises_with_its_smallest_eigenvalue(rng):
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    cases = [(toy.hessian(np.zeros(2)), -2.0)]  # only the diagonal of the pivots is negative
    net = nets.draw(rng, [3, 4, 1], "tanh", N=20)
    H = net.ob.hessian(net.theta)
    least = float(fc.eigvalsh(H)[0])
    assert least < 0
    cases += [(H, least), (H.shift(least), 2 * least)]
    for op, eigenvalue in cases:
        with pytest.raises(ValueError, match="H must be positive definite, got a smallest") as why:
            op.factor()
        assert abs(why.value.eigenvalue - eigenvalue) <= 1e-12 * (1 + abs(eigenvalue))
        assert pickle.loads(pickle.dumps(why.value)).eigenvalue == why.value.eigenvalue
        assert not isinstance(why.value, np.linalg.LinAlgError)


def test_singular_matrices_are_rejected_despite_rounding(rng):
    for seed in range(20):
        net = nets.draw(seed, [3, 4, 2], "tanh", "cross_entropy", N=30)
        G = net.ob.ggn(net.theta)  # singular: both logits can be shifted by a constant
        with pytest.raises(ValueError, match="0 to within rounding"):
            G.factor()
        assert G.shift(1e-6).factor().shape == G.shape


def test_factorisation_does_not_depend_on_units_of_the_inputs(rng):
    X, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    for units in (np.ones(3), np.array([1e-6, 1.0, 1e6])):
        ob = fc.Objective(fc.MLP([3, 1]), X * units, y, loss="mse")
        H = ob.hessian(np.zeros(4))
        x = H.factor().solve(np.append(units, 1.0))
        if units[0] == 1:
            wanted = x
    assert np.allclose(x * np.append(units, 1.0), wanted, rtol=1e-9)


def test_solve_rejects_invalid_arguments():
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    factor = toy.hessian(np.zeros(2)).shift(4.0).factor()
    for wrong in (np.ones(3), np.ones((3, 2)), np.ones((2, 1, 1)), 1.0):
        with pytest.raises(ValueError, match=r"B must have shape \(2,\) or \(2, k\), got"):
            factor.solve(wrong)
    with pytest.raises(TypeError):
        factor.solve(["a", "b"])
    with pytest.raises(AttributeError, match="read-only"):
        factor.lower = np.eye(2)
    assert not factor.lower.flags.writeable and not factor.inverse_diagonal.flags.writeable
