"""Minima proved by Cholesky factors: the proved floor is below every eigenvalue, and the verdict
equals that from all eigenpairs.
"""

import itertools

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical import dense
from fastcurv.critical.dense import DenseHessian
from fastcurv.spectrum.dense import DenseMatrix
from fastcurv.testing import FunctionObjective, QuadraticObjective

from ..zoo import axis_saddles, zoo


def hessian(values, rng, off=0.0):
    """Return a `DenseHessian` with the given eigenvalues up to rounding, and with the bound `off`
    on the error of each column.
    """
    n = len(values)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (Q * values) @ Q.T
    A = (A + A.T) / 2
    return DenseHessian(DenseMatrix(A, np.full(n, off), np.zeros(n), n))


def test_the_floor_is_below_every_eigenvalue(rng):
    """The proved floor of a positive definite matrix is positive and at most LAPACK's least
    eigenvalue plus ``4 n eps ||A||``. If that eigenvalue is at least 1e-10 of the largest, a floor
    is proved.
    """
    for n, weakest, scale in itertools.product(
        [1, 2, 17, 130], 10.0 ** np.arange(-1, -17.0, -2), [1e-100, 1.0, 1e100]
    ):
        values = np.r_[weakest, rng.uniform(0.1, 1.0, n - 1)] * scale
        full = hessian(values, rng)
        known, least = dense.prove_definite(full), np.linalg.eigvalsh(full.A)[0]
        slack = 4 * n * np.finfo(float).eps * values.max()
        if known is not None:
            assert (
                0 < known.floor <= least + slack and known.floor <= known.min_abs_eigenvalue_bound
            )
            assert known.min_abs_eigenvalue_bound >= least - slack
            b = rng.standard_normal(n)
            assert np.linalg.norm(full.A @ known.solve(b) - b) <= 1e-6 * np.linalg.norm(b) / weakest
        if weakest >= 1e-10:
            assert known is not None and known.floor >= 0.4 * weakest * scale


def test_matrices_definite_only_within_their_error_are_not_proved(rng):
    values = np.r_[1e-3, rng.uniform(0.1, 1.0, 40)]
    assert dense.prove_definite(hessian(values, rng)) is not None
    assert dense.prove_definite(hessian(values, rng, off=1e-3)) is None
    values[0] = -1e-9
    assert dense.prove_definite(hessian(values, rng)) is None
    assert dense.prove_definite(hessian(0 * values, rng)) is None


def cases(rng):
    X = rng.standard_normal((40, 3))
    for activation, loss in (("tanh", "mse"), ("softplus", "binary_cross_entropy")):
        ob = fc.Objective(fc.MLP([3, 4, 1], activation), X, (X[:, 0] > 0) * 1.0, loss=loss, l2=0.01)
        rest = fc.minimize(ob, ob.model.init(rng=0)).x
        yield ob, rest
        yield ob, rest + 1e-7 * rng.standard_normal(len(rest))
        yield ob, rest + 1e-2 * rng.standard_normal(len(rest))
    yield QuadraticObjective(hessian(np.linspace(1e-6, 1, 30), rng).A, np.ones(30)), np.ones(30)
    yield QuadraticObjective(np.diag(np.linspace(-1, 1, 30)), np.ones(30)), np.ones(30)
    quartic = FunctionObjective(
        2, lambda t: t[0] ** 4 + t[1] ** 2, lambda t: [4 * t[0] ** 3, 2 * t[1]],
        lambda t: np.diag([12 * t[0] ** 2, 2]), lambda t, r: 24 * (abs(t[0]) + r),
    )  # fmt: skip
    for x in (0.0, 1e-8, 1e-3):
        yield quartic, np.array([x, 0.0])


def test_cholesky_verdicts_equal_those_from_all_eigenpairs(monkeypatch, rng):
    """Verdicts from Cholesky factors and from all eigenpairs agree in kind, certificate, counts,
    ends of the spectrum and the numbers of the proof.
    """
    certified = 0
    for ob, theta in cases(rng):
        monkeypatch.setattr(dense, "CHOLESKY_MIN_N", 1)
        quick = fc.classify(ob, theta)
        monkeypatch.setattr(dense, "CHOLESKY_MIN_N", np.inf)
        full = fc.classify(ob, theta)
        for name in (
            "kind",
            "certified",
            "n_positive",
            "n_negative",
            "n_zero",
        ):
            assert getattr(quick, name) == getattr(full, name), name
        assert quick.evidence.n_negative_bounds == full.evidence.n_negative_bounds
        assert quick.lambda_min == pytest.approx(full.lambda_min, rel=1e-3, abs=1e-15)
        assert quick.lambda_max == pytest.approx(full.lambda_max, rel=1e-6)
        low, high = quick.evidence.lambda_min_bounds
        assert (
            low <= full.evidence.lambda_min_bounds[1] and full.evidence.lambda_min_bounds[0] <= high
        )
        if quick.certified:
            certified += 1
            assert quick.radius == pytest.approx(full.radius, rel=0.5, abs=1e-15)
            assert quick.kantorovich == pytest.approx(full.kantorovich, rel=0.5, abs=1e-9)
            assert full.evidence.gradient_residual == pytest.approx(
                quick.evidence.gradient_residual, abs=0.05
            )
    assert certified >= 4


def test_jointly_proved_signs_give_the_verdict_from_all_eigenpairs(monkeypatch):
    """Verdicts from jointly proved signs and from all eigenpairs agree in kind, certificate, counts
    and ends of the spectrum at every known critical point.
    """
    apart, made = [], dense.eigh_with_joint_signs

    def counted(*args):
        found = made(*args)
        apart.append(isinstance(found, dense.JointSigns))
        return found

    monkeypatch.setattr(dense, "eigh_with_joint_signs", counted)
    for case in zoo() + axis_saddles(20, rng=3):
        ob = case.objective
        monkeypatch.setattr(dense, "JOINT_SIGNS_MIN_N", 1)
        quick = fc.classify(ob, case.theta)
        monkeypatch.setattr(dense, "JOINT_SIGNS_MIN_N", np.inf)
        full = fc.classify(ob, case.theta)
        for name in ("kind", "certified", "n_positive", "n_negative", "n_zero"):
            assert getattr(quick, name) == getattr(full, name), (case.name, name)
        assert quick.evidence.n_symmetry == full.evidence.n_symmetry, case.name
        for name in ("lambda_min", "lambda_max"):
            low, high = getattr(quick.evidence, f"{name}_bounds")
            less, more = getattr(full.evidence, f"{name}_bounds")
            assert low <= more and less <= high, (case.name, name)
    assert sum(apart) >= 30
