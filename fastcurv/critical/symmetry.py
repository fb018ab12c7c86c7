"""The Hessian as a matrix across proved symmetries: eigenpairs with proved errors, and the theorem
on top of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
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
    orbit_spread,
    spectral_norm,
    tangents,
    third_bound,
    third_bound_in,
)
from .nearness import GRADIENT_EPS
from .theorem import EPS, UP, Contraction, Slice, kantorovich, newton_in_slice, orbit_stays_whole

ZERO_MODE = 1e-4  # of the norm of H: the curvature that a direction of symmetry may have near g = 0
APART_FROM = 768  # below it every eigenvalue is proved on its own
ONE_BY_ONE = 128  # reflections that are applied one by one, to a sharper bound; of more at most ...
REFLECTED = 64  # ... so many at once
BALANCED_BELOW = 1500  # up to this n an indefinite H is looked at in balanced coordinates too


class DenseHessian:
    """The Hessian as a matrix, in theta's own coordinates and in balanced ones."""

    def __init__(self, M: DenseMatrix) -> None:
        self.M, self.A, self.n = M, M.A, len(M.A)
        self.norm = spectral_norm(self.A)

    @cached_property
    def units(self) -> list[Floats]:
        """Balanced units of the parameters: see `balances`."""
        return balances(self.A, self.M.noise(), self.M.layers())

    @property
    def d(self) -> Floats:
        """The first of them."""
        return self.units[0]

    def flat(self, T: Floats) -> Floats:
        """What of the span of the columns of T the Hessian maps to next to nothing, in balanced
        units, which tell the same in all others; up to n = `BALANCED_BELOW`.
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
        """Eigenpairs of ``C A C`` across the span of the columns of T, given in theta's
        coordinates; C = I by default. `more`: a bound on an error beside that of A.
        """
        scaled = c is not None
        c = np.ones(self.n) if c is None else c
        matrix = c[:, None] * self.A * c if scaled else self.A
        span = independent(T / c[:, None] if scaled else T)
        if span.shape[1] and self.n > BALANCED_BELOW:
            # beside a point that all of a symmetry leaves fixed, H bends its orbits
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

    def extremes(self, plain: Slice) -> tuple[Any, Any]:
        """``(lambda, (low, high))`` of both ends of the spectrum, what was taken out included."""
        values, error = plain.values, plain.ends
        if plain.span.shape[1]:
            product = self.A @ plain.span
            values = np.concatenate([values, np.linalg.eigvalsh(plain.span.T @ product)])
            error += safe_norm(product)
        low, high = float(values.min()), float(values.max())
        return (low, (low - error, low + error)), (high, (high - error, high + error))


@dataclass(frozen=True, eq=False)
class View:
    """The Hessian across proved symmetries: in theta's coordinates, and where signs are sharper."""

    plain: Slice
    best: Slice
    held: Tangents

    @property
    def n_symmetry(self) -> int:
        return int(self.best.span.shape[1])


def look(full: DenseHessian, held: Tangents) -> View:
    """Eigenpairs across the symmetries; where H is not definite and n small, or all zeros that
    remain might be settled, in balanced coordinates too, which change no inertia (Sylvester) but
    sharpen the bound, and follow the units of theta: its own are asked only where the noise of
    entries, and so theirs, is not known.
    """
    flat = full.flat(held.columns)
    plain = full.cut(flat)
    large = full.n > BALANCED_BELOW
    if _settled(plain) or large and (plain.weakest > 0 or _stays_open(full, plain)):
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
    """The one with fewer signs that are not known, else the other."""
    return cut if np.sum(signs_of(cut) == 0) < np.sum(signs_of(other) == 0) else other


def _stays_open(full: DenseHessian, plain: Slice) -> bool:
    """Whether H, in balanced coordinates too, has an eigenvalue within its error: on the vectors
    of the zeros its product is as small (Courant and Fischer, Cauchy across the symmetries).
    """
    flat = np.hstack([plain.span, plain.vectors[:, signs_of(plain) == 0]])
    Q = qr(flat / full.d[:, None], mode="economic")[0]
    sizes = svdvals(full.d[:, None] * (full.A @ (full.d[:, None] * Q)))
    return int(np.count_nonzero(sizes <= full.M.error(full.d))) > int(plain.span.shape[1])


def _settled(cut: Slice) -> bool:
    return bool((cut.values > cut.error).all() or (cut.values < -cut.error).all())


def signs_of(cut: Any) -> NDArray[np.int_]:
    """-1, 0 or 1 for every eigenvalue, 0 within the error."""
    return np.where(np.abs(cut.values) > cut.error, np.sign(cut.values), 0).astype(int)


def prove_ends(H: Any, cut: Slice, signs: NDArray[np.int_]) -> None:
    """Where the error of the whole matrix leaves an end of the spectrum open, try its own vector by
    a product.
    """
    for i, sign in ((0, -1), (-1, 1)):
        if cut.values.size and signs[i] == 0 and sign * cut.values[i] > 0 and H.affords(1):
            v = cut.c * cut.vectors[:, i]
            quotient, error, _ = H.rayleigh(v / np.linalg.norm(v))
            if sign * quotient > error:
                signs[i] = sign


def theorem_at(
    ob: Any, theta: Floats, full: DenseHessian, view: View, gradient: tuple[Floats, float]
) -> tuple[Contraction, float]:
    """Kantorovich's theorem in the slice across the symmetries, and the length of Newton's step in
    theta's coordinates. The radius of the claim is in theta's coordinates too.
    """
    g, off = gradient
    reach = GRADIENT_EPS * EPS * (np.abs(full.A) @ np.abs(theta)) if np.isnan(off) else None
    tried = None
    for cut in (view.plain, view.best):
        if tried is not None and (cut is view.plain or tried[0].holds):
            break
        if cut.span.shape[1] != view.n_symmetry:
            continue
        top = float(cut.c.max())
        scaled = None if cut is view.plain else cut.c
        beta, eta, x = newton_in_slice(
            full.A,
            full.M.error(scaled),
            cut,
            g,
            off * top if reach is None else safe_norm(cut.c * reach),
        )
        found = kantorovich(beta, eta, partial(_third, ob, theta, scaled))
        if found.holds and cut.span.shape[1]:
            found = across_orbits(ob, theta, cut, found)
        found = replace(found, radius=found.radius * top)
        if tried is None or found.holds:
            tried = found, safe_norm(x)
    assert tried is not None
    return tried


def _third(ob: Any, theta: Floats, units: Floats | None, radius: float) -> float:
    """A Lipschitz constant of the Hessian in these units."""
    if units is None:
        return third_bound(ob, theta, radius)
    return third_bound_in(ob, theta, radius, units)


def in_other_units(full: DenseHessian, view: View) -> View | None:
    """The view of a definite H in balanced coordinates too, where the theorem may hold though it
    does not in theta's own; None where that was looked at, or n is large.
    """
    if view.best is not view.plain or full.n > BALANCED_BELOW:
        return None
    balanced = full.cut(full.flat(view.held.columns), full.d)
    same = balanced.span.shape[1] == view.plain.span.shape[1]
    return View(view.plain, balanced, view.held) if same else None


def across_orbits(ob: Any, theta: Floats, cut: Slice, found: Contraction) -> Contraction:
    """The theorem, if the orbits' tangents stay independent on the ball."""
    top, bottom = float(cut.c.max()), float(cut.c.min())
    near = tangents(ob, theta, top * 2 * found.eta)
    whole = near.columns.shape[1] > 0 and orbit_stays_whole(
        cut.span,
        near.columns / cut.c[:, None],
        near.change * orbit_spread(ob, cut.c) * UP,
        near.error / bottom,
        found.radius,
    )
    return found if whole else replace(found, holds=False, radius=np.inf, missing="orbit")


class _Off:
    """The complement of the span of some columns, by their Householder reflections: ``O(n^2 s)``,
    not ``O(n^3)``.
    """

    def __init__(self, span: Floats) -> None:
        (raw, self.tau), _ = qr(span, mode="raw")
        self.raw = np.asfortranarray(raw)

    def _apply(self, side: str, trans: str, M: Floats, one_by_one: bool = False) -> Floats:
        size = int(dormqr(side, trans, self.raw, self.tau, M, -1)[1][0])
        size = max(M.shape) if one_by_one else size  # no room for more at once
        out, _, info = dormqr(side, trans, self.raw, self.tau, M, size)
        if info:
            raise ArithmeticError(f"LAPACK's ormqr returned {info}; wanted 0")
        return np.asarray(out)

    def rounding(self) -> float:
        """A bound on what rounding does to `block`, as a share of ``||M||_F``.

        LAPACK applies k reflections as ``X - V (T (V' X))``, k = 1 or up to `REFLECTED`: sums of
        n, k and k products, in any order. So of ``||X||_F`` a share of at most ``(n + 2 k + 8) u ||
        |V| |T| |V'| ||`` is lost, u = eps / 2; and ``I - V T V'`` is orthogonal but for as much
        again, V and T being computed likewise (Higham, Accuracy and Stability, 2002, 19.3 and
        19.5). Both sides take their share. A single reflection has ``tau ||v||^2 = 2``; blocks of
        more are measured.
        """
        n, s = self.raw.shape
        if s <= ONE_BY_ONE:
            return float(2 * (n + 10) * EPS * 2 * s)
        V, total = np.tril(self.raw, -1), 0.0
        V[np.diag_indices(s)] = 1.0
        for start in range(0, s, REFLECTED):
            part, tau = V[:, start : start + REFLECTED], self.tau[start : start + REFLECTED]
            some = tau != 0  # what is 0 below its diagonal is not reflected
            part = part[:, some]
            T = np.linalg.inv(np.triu(part.T @ part, 1) + np.diag(1 / tau[some]))
            total += safe_norm(part) ** 2 * safe_norm(T)
        return float(2 * (n + 2 * REFLECTED + 8) * EPS * total)

    def block(self, M: Floats) -> Floats:
        """``Z' M Z`` for an orthonormal basis Z of the complement."""
        s, one_by_one = len(self.tau), len(self.tau) <= ONE_BY_ONE
        turned = self._apply("L", "T", np.asfortranarray(M), one_by_one)
        turned = self._apply("R", "N", turned, one_by_one)[s:, s:]
        return np.asarray((turned + turned.T) / 2)

    def back(self, V: Floats) -> Floats:
        """``Z V``."""
        return self._apply(
            "L", "N", np.asfortranarray(np.vstack([np.zeros((len(self.tau), V.shape[1])), V]))
        )
