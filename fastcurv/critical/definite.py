"""Minima of many parameters proved by Cholesky factors, where all eigenpairs would cost ten times
as much.

A Cholesky factorisation that runs to its end proves its matrix positive definite up to a known
shift (`eigensolver.cholesky_floor`). Done for ``A - s I``, s a little below the least eigenvalue
that inverse iteration found, it bounds ``||A^-1||``; the factor of A gives Newton's step, and the
two are all that the theorem asks for. Where anything here falls short of a proof the answer is
None, and all eigenpairs are computed as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_solve
from scipy.sparse.linalg import LinearOperator

from ..checks import check_symmetric_operator
from ..eigensolver import cholesky, cholesky_floor
from ..interrupts import unbroken
from ..krylov.lanczos import Recurrence
from ..krylov.ritz import decompose
from ..protocols import Floats
from ..spectrum.eigsh import eigsh
from ..vectors import extent, safe_norm
from .decide import Findings
from .evidence import FAR, Evidence, Products
from .knowledge import kinks, runs_to_infinity, third_bound
from .nearness import GRADIENT_EPS, nearness_by
from .request import Request
from .slices import DenseHessian
from .theorem import EPS, UP, eta_of, kantorovich

FROM = 768  # below this n all eigenpairs take a fraction of a second, and say more
SHARES = (0.999, 0.9, 0.5)  # of the least Ritz value, tried in turn as a floor
GRADIENT_STEPS = 60  # of the Krylov space that tells how much of g the curvature explains
MOST_SOLVES = 200


@dataclass(frozen=True, eq=False)
class Definite:
    """A matrix proved positive definite.

    Attributes
    ----------
    solve : callable
        ``A^-1 b`` by its Cholesky factor.
    floor : float
        No eigenvalue of the true Hessian, the error of A included, is below it.
    weakest : float
        The least Ritz value, an upper bound on the least eigenvalue but for rounding.
    """

    solve: Callable[[Floats], Floats]
    floor: float
    weakest: float


def definite(full: DenseHessian) -> Definite | None:
    """The proof, or None where A is not definite by more than its error."""
    A = full.A
    if not 0 < full.norm < np.inf or not (np.diagonal(A) > 0).all():
        return None
    solve = inverse(A)
    if solve is None:
        return None
    op = LinearOperator(A.shape, solve, dtype=np.float64)
    found = unbroken(eigsh(op, 1, "LA", tol=1e-4, max_products=MOST_SOLVES, seed=0))
    v = found.vectors[:, 0]
    weakest = float(v @ (A @ v)) / float(v @ v)
    for share in SHARES:
        floor = cholesky_floor(A.copy(), share * weakest) - full.M.error()
        if floor > 0:
            return Definite(solve, floor, weakest)
    return None


def inverse(A: Floats) -> Callable[[Floats], Floats] | None:
    """``A^-1`` by Cholesky, None where the factorisation breaks off."""
    factor = cholesky(A)
    if factor is None:
        return None
    upper = factor.T  # as LAPACK lays it out: nothing is copied in a solve
    return lambda b: np.asarray(cho_solve((upper, False), b, check_finite=False))


def examine(
    ask: Request, H: Products, full: DenseHessian, gradient: tuple[Floats, float]
) -> tuple[Findings, Evidence] | None:
    """What `decide` and the words need where a minimum is proved, else None.

    For an objective of which no symmetry is known at theta: its zeros would leave no Hessian
    definite.
    """
    (g, off), theta = gradient, ask.theta
    H.note("a Cholesky factor")
    known = definite(full) if full.n >= FROM else None
    if known is None:
        return None
    size = np.abs(full.A)
    reach = size @ np.abs(theta)
    off = GRADIENT_EPS * EPS * safe_norm(reach) if np.isnan(off) else off
    x = -known.solve(g)
    rest = max(0.0, 1 - off / safe_norm(g)) if g.any() else 0.0  # of g, beyond its rounding
    whole, most = 0.5 * max(0.0, -float(g @ x)), float(np.abs(theta) @ reach)
    near = nearness_by(
        ask.ob, theta, safe_norm(g), rest**2 * whole, most, ask.gradient_tol, whole=whole
    )
    if not (near.near and near.strict):
        return None
    x -= known.solve(g + full.A @ x)
    length = safe_norm(x)
    absolute = float(size.sum(axis=1).max())  # at least the 2-norm of |A|
    rounding = (full.n + 8) * EPS * (absolute * length + safe_norm(g))
    left = safe_norm(g + full.A @ x) + off + full.M.error() * length + rounding
    beta = UP / known.floor
    theorem = kantorovich(
        beta, eta_of(length, beta, left) * UP, lambda r: third_bound(ask.ob, theta, r)
    )
    if not theorem.holds:
        return None
    found = Findings(
        to_infinity=runs_to_infinity(ask.ob, theta),
        n_positive=full.n,
        n_negative=0,
        n_zero=0,
        n_symmetry=0,
        positive=True,
        theorem=True,
        radius=theorem.radius,
        distance=length,
        n_kinks=kinks(ask.ob, theta),
    )
    return found, _evidence(ask, full, known, g, near=near, theorem=theorem, distance=length)


def _evidence(
    ask: Request, full: DenseHessian, known: Definite, g: Floats, **proved: Any
) -> Evidence:
    """Both ends of the spectrum, and how much of g the curvature explains."""
    A, error = check_symmetric_operator(full.A), full.M.error()
    top = unbroken(eigsh(A, 1, "LA", tol=1e-8, seed=0))
    high, off = float(top.values[0]), float(top.residuals[0]) + error
    size, flat, residual = safe_norm(g), None, None
    if size > 0:
        run = Recurrence(A, GRADIENT_STEPS)
        run.insert(g[None] / size)
        while run.p and run.m < min(GRADIENT_STEPS, full.n):
            run.step()
        values, S = decompose(run)
        seen = np.abs(values) > max(
            error, ask.curvature_tol * high, size / (FAR * extent(ask.theta))
        )
        flat = min(1.0, safe_norm(full.A @ (g / size)) / high)
        residual = max(0.0, 1 - float((S[0, seen] ** 2).sum())) ** 0.5
    return Evidence(
        gradient=g,
        flat_ratio=flat,
        residual=residual,
        low=known.weakest,
        low_bounds=(known.floor, known.weakest + error),
        high=high,
        high_bounds=(high - off, high + off),
        weakest=known.weakest,
        weakest_error=known.weakest - known.floor,
        bounded=True,
        **proved,
    )
