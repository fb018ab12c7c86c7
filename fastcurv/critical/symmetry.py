"""The Hessian as a matrix on the complement of proved symmetries: eigenpairs with proved error
bounds, and Kantorovich's theorem based on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.linalg.lapack import dormqr

from ..common.linalg import Apart, eigh, eigh_apart, svdvals
from ..common.protocols import Floats
from ..common.vectors import safe_norm
from ..spectrum.dense import DenseMatrix
from .evidence import (
    Tangents,
    annihilated,
    balances,
    independent,
    proved,
    spectral_norm,
    tangents,
)
from .theorem import EPS, UP, Contraction, Slice, orbit_stays_whole

ZERO_MODE = 1e-4  # of ||H||: the largest curvature of a symmetry direction near g = 0
APART_FROM = 768  # below this n every eigenvalue is proved on its own
ONE_BY_ONE = 128  # up to as many reflections are applied singly, for a sharper bound; else ...
REFLECTED = 64  # ... up to this many at once
BALANCED_BELOW = 1500  # up to this n an indefinite H is also decomposed in balanced coordinates


class DenseHessian:
    """The Hessian as a matrix, in theta's own coordinates and in balanced ones."""

    def __init__(self, M: DenseMatrix) -> None:
        self.M, self.A, self.n = M, M.A, len(M.A)
        self.norm = spectral_norm(self.A)

    @cached_property
    def units(self) -> list[Floats]:
        """Balanced units of the parameters, from `balances`."""
        return balances(self.A, self.M.noise(), self.M.layers())

    @property
    def d(self) -> Floats:
        """The first of the balanced units."""
        return self.units[0]

    def flat(self, T: Floats) -> Floats:
        """Return columns that span the part of span(T) that the Hessian maps to almost zero; T
        itself if n exceeds `BALANCED_BELOW`.

        Almost zero is judged in balanced units, so that the result does not depend on the units of
        theta.
        """
        if not T.shape[1] or self.n > BALANCED_BELOW:
            return T
        found = []
        for d in self.units:
            span, matrix = independent(T / d[:, None]), d[:, None] * self.A * d
            most = ZERO_MODE * spectral_norm(matrix)
            found.append(d[:, None] * annihilated(matrix @ span, span, most))
        return max(found, key=lambda Q: int(Q.shape[1]))

    def cut(self, T: Floats, c: Floats | None = None, more: float = 0.0) -> Slice:
        """Return the eigenpairs of ``C A C`` on the complement of the span of T's columns, which
        are given in theta's coordinates. C = diag(c), I by default; `more` bounds an error in
        addition to that of A.
        """
        scaled = c is not None
        c = np.ones(self.n) if c is None else c
        matrix = c[:, None] * self.A * c if scaled else self.A
        span = independent(T / c[:, None] if scaled else T)
        if span.shape[1] and self.n > BALANCED_BELOW:
            # near a point that a whole symmetry group leaves fixed, H curves along its orbits
            span = annihilated(matrix @ span, span, ZERO_MODE * spectral_norm(matrix))
        off = _Off(span) if span.shape[1] else None
        error = more + self.M.error(c if scaled else None)
        if scaled:
            error += 2 * EPS * safe_norm(matrix)
        if off is not None:
            error += off.rounding() * safe_norm(matrix)
        inner = matrix if off is None else off.block(matrix)
        found = eigh_apart(inner, error) if len(inner) >= APART_FROM else eigh(inner)
        vectors = found.vectors if off is None else off.back(found.vectors)
        ends = error + (found.ends if isinstance(found, Apart) else found.error)
        return Slice(found.values, vectors, error + found.error, c, span, ends)


@dataclass(frozen=True, eq=False)
class View:
    """Eigenpairs of the Hessian on the complement of proved symmetries: `plain` in theta's
    coordinates, `best` where the most signs are known.
    """

    plain: Slice
    best: Slice
    held: Tangents

    @property
    def n_symmetry(self) -> int:
        return int(self.best.span.shape[1])


def quotient(full: DenseHessian, held: Tangents) -> View:
    """Decompose the Hessian on the complement of the symmetries, in balanced coordinates too if
    they may settle more signs.

    That is so if H is not definite and n small, or if at larger n all remaining zeros might be
    settled. Balanced coordinates do not change the inertia (Sylvester), but sharpen the error
    bound, and do not depend on the units of theta. Theta's own coordinates compete with them only
    if the noise is known by rows alone, not by entries: the balanced units are then not known to be
    sharper.
    """
    flat = full.flat(held.columns)
    plain = full.cut(flat)
    large = full.n > BALANCED_BELOW
    settled = (plain.values > plain.error).all() or (plain.values < -plain.error).all()
    if settled or large and (plain.weakest > 0 or _stays_open(full, plain)):
        return View(plain, plain, held)
    best = full.cut(flat, full.d)
    for units in full.units[1:] if not large else []:
        if not best.weakest > 0:
            best = _sharper(full.cut(flat, units), best)
    if len(full.units) == 1:
        same = best.span.shape[1] == plain.span.shape[1]
        best = _sharper(plain, best) if same else plain
    return View(plain, best, held)


def _sharper(cut: Slice, other: Slice) -> Slice:
    """Return the slice with fewer unknown signs, `other` if they have equally many."""
    return cut if np.sum(signs_of(cut) == 0) < np.sum(signs_of(other) == 0) else other


def _stays_open(full: DenseHessian, plain: Slice) -> bool:
    """Return whether H has an eigenvalue within its error in balanced coordinates too.

    That is shown by products with the vectors of the zeros being as small (Courant and Fischer;
    Cauchy for the complement of the symmetries).
    """
    flat = np.hstack([plain.span, plain.vectors[:, signs_of(plain) == 0]])
    Q = qr(flat / full.d[:, None], mode="economic")[0]
    sizes = svdvals(full.d[:, None] * (full.A @ (full.d[:, None] * Q)))
    return int(np.count_nonzero(sizes <= full.M.error(full.d))) > int(plain.span.shape[1])


def signs_of(cut: Any) -> NDArray[np.int_]:
    """Return the sign, -1, 0 or 1, of every eigenvalue, 0 within the error."""
    return np.where(np.abs(cut.values) > cut.error, np.sign(cut.values), 0).astype(int)


def in_other_units(full: DenseHessian, view: View) -> View | None:
    """Return the view of a definite H in balanced coordinates, where the theorem may hold though it
    does not in theta's own; None if those were already used, or n is large.
    """
    if view.best is not view.plain or full.n > BALANCED_BELOW:
        return None
    balanced = full.cut(full.flat(view.held.columns), full.d)
    same = balanced.span.shape[1] == view.plain.span.shape[1]
    return View(view.plain, balanced, view.held) if same else None


def across_orbits(ob: Any, theta: Floats, cut: Slice, found: Contraction) -> Contraction:
    """Return the theorem's outcome if the tangents of the orbits stay independent on the ball;
    otherwise one that does not hold, with "orbit" missing.
    """
    top, bottom = float(cut.c.max()), float(cut.c.min())
    near = tangents(ob, theta, top * 2 * found.eta)
    # the factor by which tangents may turn faster in these units
    spread = float(proved(ob, "orbit_spread", cut.c, default=top / bottom))
    whole = orbit_stays_whole(
        cut.span,
        near.columns / cut.c[:, None],
        near.change * spread * UP,
        near.error / bottom,
        found.radius,
    )
    return found if whole else replace(found, holds=False, radius=np.inf, missing="orbit")


class _Off:
    """The complement of the span of s columns, represented by Householder reflections: applying it
    to a matrix costs ``O(n^2 s)``, not ``O(n^3)``.
    """

    def __init__(self, span: Floats) -> None:
        (raw, self.tau), _ = qr(span, mode="raw")
        self.raw = np.asfortranarray(raw)

    def _apply(self, side: str, trans: str, M: Floats, one_by_one: bool = False) -> Floats:
        size = int(dormqr(side, trans, self.raw, self.tau, M, -1)[1][0])
        size = max(M.shape) if one_by_one else size  # a workspace too small for blocks
        out, _, info = dormqr(side, trans, self.raw, self.tau, M, size)
        if info:
            raise ArithmeticError(f"LAPACK's ormqr returned {info}; wanted 0")
        return np.asarray(out)

    def rounding(self) -> float:
        """Return a bound on the rounding error of `block`, relative to ``||M||_F``.

        LAPACK applies k reflections as ``X - V (T (V' X))``, k = 1 or up to `REFLECTED`: sums of
        n, k and k products, in any order. The error, relative to ``||X||_F``, is therefore at most
        ``(n + 2 k + 8) u || |V| |T| |V'| ||`` with u = eps / 2. ``I - V T V'`` deviates from
        orthogonality by as much again, since V and T are rounded too (Higham, Accuracy and
        Stability, 2002, 19.3 and 19.5). Both sides contribute. A single reflection has
        ``tau ||v||^2 = 2``; for larger blocks the norms are computed.
        """
        n, s = self.raw.shape
        if s <= ONE_BY_ONE:
            return float(2 * (n + 10) * EPS * 2 * s)
        V, total = np.tril(self.raw, -1), 0.0
        V[np.diag_indices(s)] = 1.0
        for start in range(0, s, REFLECTED):
            part, tau = V[:, start : start + REFLECTED], self.tau[start : start + REFLECTED]
            some = tau != 0  # tau = 0: no reflection
            part = part[:, some]
            T = np.linalg.inv(np.triu(part.T @ part, 1) + np.diag(1 / tau[some]))
            total += safe_norm(part) ** 2 * safe_norm(T)
        return float(2 * (n + 2 * REFLECTED + 8) * EPS * total)

    def block(self, M: Floats) -> Floats:
        """Return ``Z' M Z`` for an orthonormal basis Z of the complement."""
        s, one_by_one = len(self.tau), len(self.tau) <= ONE_BY_ONE
        turned = self._apply("L", "T", np.asfortranarray(M), one_by_one)
        turned = self._apply("R", "N", turned, one_by_one)[s:, s:]
        return np.asarray((turned + turned.T) / 2)

    def back(self, V: Floats) -> Floats:
        """Return ``Z V``."""
        return self._apply(
            "L", "N", np.asfortranarray(np.vstack([np.zeros((len(self.tau), V.shape[1])), V]))
        )
