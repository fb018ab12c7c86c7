"""Eigenpairs by float32 products, made right by a few float64 ones.

The Krylov work is done in float32. Then, in float64, Rayleigh-Ritz on the k vectors found; a pair
whose residual is still too large gets the correction t of the Jacobi-Davidson equation,

    (I - Y Y') (A - theta) (I - Y Y') t = -r,        r = A y - theta y,

solved roughly by MINRES on float32 products, and one float64 product with t. Since the equation is
only a correction, its float32 errors are relative to r: every round gains the digits that MINRES
gained. Where that stalls, at values closer than float32 can tell apart, float64 Lanczos goes on
from what is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..eigensolver import eigh
from ..krylov.lanczos import orthogonalise, orthonormal_rows, orthonormalise, project, rotate
from ..krylov.ritz import wanted
from ..krylov.solvers import minres
from ..protocols import Array, Castable, Floats
from ..vectors import norm
from .asked import Asked, resolve_tol
from .results import Eigenpairs
from .search import extreme_pairs

LOW_TOL = 2e-5
ROUNDS = 16
INNER_TOL = 1e-3
FIRST_STEPS, MOST_STEPS = 40, 160  # of MINRES: doubled after a round that gained less than a digit


def mixed_pairs(
    op: Any, asked: Asked, rng: np.random.Generator, v0: Any = None, against: Any = None
) -> Eigenpairs:
    """`eigsh` with ``precision="mixed"``, its arguments checked."""
    if not isinstance(op, Castable):
        raise TypeError(
            f"op is a {type(op).__name__} without astype(dtype); wanted one for precision='mixed'"
        )
    high, low = op.astype("float64"), op.astype("float32")
    n, k = high.shape[0], asked.k
    tol = resolve_tol(asked.tol, np.dtype(np.float64))
    found = extreme_pairs(low, replace(asked, tol=max(tol, LOW_TOL)), rng, v0, against)
    against = orthonormal_rows(against, n, np.dtype(np.float64))
    rows = found.vectors.T.astype(np.float64)
    refiner = _Refiner(high, low, asked.which, rows, against)
    refiner.n_low = found.n_products
    values, rows, residuals, targets = refiner.run(tol, asked.relative, asked.max_products)
    spent = refiner.n_low + refiner.n_high
    unseen = max(found.unseen, found.tol * found.scale)  # closer float32 told nothing apart
    left = asked.max_products - spent
    if (residuals > targets).any() and 2 * k <= left and not found.interrupted:
        further = replace(asked, tol=tol, max_products=left, probe=False)
        deflated = None if against is None else against.T
        rest = extreme_pairs(high, further, rng, rows.T, deflated)
        return replace(
            rest,
            n_products=spent + rest.n_products,
            n_low=refiner.n_low,
            probed=found.probed,
            unseen=unseen,
        )
    return replace(
        found,
        values=values,
        vectors=rows.T,
        residuals=residuals,
        converged=residuals <= targets,
        tol=tol,
        n_products=spent,
        n_low=refiner.n_low,
        scale=refiner.scale,
        unseen=unseen,
    )


class _Refiner:
    """Rayleigh-Ritz in float64 on rows Y with their products W, and corrections from float32."""

    def __init__(self, high: Any, low: Any, which: str, Y: Floats, against: Floats | None) -> None:
        self.high, self.low, self.which, self.k = high, low, which, len(Y)
        self.against = np.zeros((0, Y.shape[1])) if against is None else against
        self.n_low = self.n_high = 0
        self.scale = 0.0
        self.Y = self._clean(Y, Y[:0])
        self.W = self._products(self.Y)

    def _clean(self, V: Floats, Y: Floats) -> Floats:
        """Orthonormal rows from V, orthogonal to Y and to what is deflated."""
        orthonormalise(V)
        for rows in (self.against, Y):
            orthogonalise(rows, V)
        B, _ = orthonormalise(V, floor=1e-10, against=Y)
        return V[: len(B)]

    def _products(self, V: Floats) -> Floats:
        self.n_high += len(V)
        W = np.array([np.asarray(self.high @ v, dtype=np.float64) for v in V]).reshape(V.shape)
        self.scale = max([self.scale, *(norm(w) for w in W)])
        return W

    def run(
        self, tol: float, relative: str, max_products: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Rounds of correction until all is within the tolerance or a round gains nothing."""
        best, most = np.inf, FIRST_STEPS
        for _ in range(ROUNDS):
            theta, R, residuals = self._rayleigh_ritz()
            targets = (
                np.full(self.k, tol * self.scale) if relative == "scale" else tol * np.abs(theta)
            )
            poor = np.flatnonzero(residuals > targets)
            worst = float((residuals / np.maximum(targets, np.finfo(float).tiny)).max(initial=0.0))
            room = max_products - self.n_low - self.n_high
            if not len(poor) or room < 2 * len(poor) or (worst > 0.5 * best and most >= MOST_STEPS):
                break
            most = min(2 * most, MOST_STEPS) if worst > 0.1 * best else most
            best = worst
            steps = min(most, room // len(poor) - 1)
            V = self._clean(
                np.array([self._correction(theta[i], R[i], steps) for i in poor]), self.Y
            )
            self.Y, self.W = np.vstack([self.Y, V]), np.vstack([self.W, self._products(V)])
        return theta, self.Y[: self.k], residuals, targets

    def _rayleigh_ritz(self) -> tuple[Floats, Floats, Floats]:
        """The k wanted pairs in the span of Y, their residual vectors and norms.

        Y becomes Ritz vectors, the wanted ones first; up to k + 8 of those next to them stay as
        well, since a near neighbour of a wanted value is found by the corrections and must not be
        lost again.
        """
        T = project(self.Y, self.W)
        theta, S, _ = eigh(T)
        near = wanted(theta, 2 * self.k + 8, self.which)
        first = wanted(theta, self.k, self.which)
        order = np.concatenate([first, np.setdiff1d(near, first)])
        for rows in (self.Y, self.W):
            rotate(rows, S[:, order])
        self.Y, self.W = self.Y[: len(order)], self.W[: len(order)]
        theta = theta[first]
        R = self.W[: self.k] - theta[:, None] * self.Y[: self.k]
        rounding = 4 * np.finfo(float).eps * self.scale
        return theta, R, np.array([norm(r) for r in R]) + rounding

    def _correction(self, theta: float, r: Floats, steps: int) -> Floats:
        """The Jacobi-Davidson correction, roughly, from float32 products."""
        Y = np.vstack([self.Y, self.against]).astype(np.float32)
        length = norm(r)
        b = (r / -length).astype(np.float32)
        orthogonalise(Y, b[None])

        def multiply(v: Array) -> Array:
            self.n_low += 1
            v = v.reshape(-1).astype(np.float32)
            orthogonalise(Y, v[None], passes=1)
            out = np.array(self.low @ v, dtype=np.float32) - np.float32(theta) * v
            orthogonalise(Y, out[None], passes=1)
            return out

        return minres(multiply, b, steps, INNER_TOL).astype(np.float64)
