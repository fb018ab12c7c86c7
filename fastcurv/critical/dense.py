"""The findings of `classify` where every eigenvalue can be computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.sparse.linalg import LinearOperator

from ..common.checks import check_symmetric_operator
from ..common.linalg import cholesky, cholesky_floor
from ..common.protocols import Floats
from ..common.runtime import unbroken
from ..common.vectors import extent, safe_norm
from ..krylov.lanczos import Recurrence
from ..krylov.ritz import decompose
from ..spectrum.dense import PRODUCT_EPS
from ..spectrum.eigsh import eigsh
from .decide import Findings
from .evidence import (
    FAR,
    ClassifyOptions,
    Evidence,
    Products,
    SpentError,
    hessian_products,
    is_bounded,
    kinks,
    residual_bounds,
    runs_to_infinity,
    tangents,
    third_bound,
    third_bound_in,
)
from .low_rank import interpolation
from .nearness import (
    GRADIENT_EPS,
    SHORTER,
    Coordinates,
    Nearness,
    best_gradient,
    certify_signs,
    falls_across,
    gradient_after,
    nearness,
    nearness_by,
    newton_decrement,
    rounding_of,
)
from .symmetry import DenseHessian, View, in_other_units, prove_ends, quotient, signs_of, theorem_at
from .theorem import EPS, UP, Contraction, Slice, eta_of, kantorovich, two_signs

# --------------------------------------------------------------------------------------------------
# Minima of many parameters proved by Cholesky factors, at a tenth of the cost of all eigenpairs.
#
# A Cholesky factorisation that runs to its end proves its matrix positive definite up to a known
# shift (`eigensolver.cholesky_floor`). Applied to ``A - s I``, with s a little below the least
# eigenvalue found by inverse iteration, it bounds ``||A^-1||``; the factor of A gives Newton's
# step, and the theorem needs no more than these two. If any step falls short of a proof, the
# result is None, and all eigenpairs are computed.

FROM = 768  # below this n all eigenpairs take a fraction of a second, and tell more
SHARES = (0.999, 0.9, 0.5)  # of the least Ritz value, tried in turn as a lower bound
GRADIENT_STEPS = 60  # of the Krylov space that measures the share of g in the range of H
MOST_SOLVES = 200


@dataclass(frozen=True, eq=False)
class Definite:
    """A matrix proved positive definite.

    Attributes
    ----------
    solve : callable
        ``A^-1 b`` by its Cholesky factor.
    floor : float
        Lower bound on all eigenvalues of the true Hessian, the error of A included.
    weakest : float
        The least Ritz value: an upper bound on the least eigenvalue, up to rounding.
    """

    solve: Callable[[Floats], Floats]
    floor: float
    weakest: float


def definite(full: DenseHessian) -> Definite | None:
    """Prove A positive definite by Cholesky; None if it is not definite by more than its error."""
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
    """Return a function that applies ``A^-1`` by a Cholesky factor, None if the factorisation
    fails.
    """
    factor = cholesky(A)
    if factor is None:
        return None
    upper = factor.T  # LAPACK's layout, so that a solve copies nothing
    return lambda b: np.asarray(cho_solve((upper, False), b, check_finite=False))


def examine_definite(
    ask: ClassifyOptions, H: Products, full: DenseHessian, gradient: tuple[Floats, float]
) -> tuple[Findings, Evidence] | None:
    """Return findings and evidence if a minimum is proved by Cholesky factors, else None.

    Only for an objective without known symmetries at theta: their zero eigenvalues would keep any
    Hessian from being definite.
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
    rest = max(0.0, 1 - off / safe_norm(g)) if g.any() else 0.0  # share of g beyond rounding
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
    return found, _definite_evidence(
        ask, full, known, g, near=near, theorem=theorem, distance=length
    )


def _definite_evidence(
    ask: ClassifyOptions, full: DenseHessian, known: Definite, g: Floats, **proved: Any
) -> Evidence:
    """Compute both ends of the spectrum and the share of g outside the range of H, for a proved
    minimum.
    """
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


SHORTEST = 1e-8  # smallest scale of a layer, relative to the layer with the longest step


@dataclass(frozen=True, eq=False)
class Ends:
    """Unit vectors of proved negative and positive curvature, with their proved bounds."""

    direction: Floats | None
    quotient: float | None
    negative: float  # u'Hu + error, below 0 if negative curvature is proved
    positive: float  # v'Hv - error, above 0 if positive curvature is proved


def examine(ask: ClassifyOptions, H: Products) -> tuple[Findings, Evidence, Coordinates]:
    """Return findings, evidence and coordinates for `decide` and the reason, for n small enough for
    all eigenvalues.
    """
    ob, theta = ask.ob, ask.theta
    gradient = best_gradient(ob, theta, H)
    H.note("all columns")
    M = H.matrix()
    full = DenseHessian(M)
    H.asymmetry = safe_norm(M.asymmetry)
    H.norm = max(H.norm, 1.01 * full.norm)  # scales the error of a product
    held = tangents(ob, theta)
    quick = None if held.columns.shape[1] else examine_definite(ask, H, full, gradient)
    if quick is not None:
        return (*quick, Coordinates())
    H.note("all eigenvalues")
    view = quotient(full, held)
    H.norm = max(H.norm, view.plain.norm)
    near = nearness(ob, theta, full.A, view.best, gradient, ask.gradient_tol)
    signs = signs_of(view.best)
    prove_ends(H, view.best, signs)
    ends = _ends(H, full, view, signs)
    n_found = int((signs != 0).sum())
    theorem, zero, arrives, pair = None, None, True, Pair()
    if near.near:
        H.note("the theorem")
        theorem, distance = theorem_at(ob, theta, full, view, gradient)
        other = in_other_units(full, view) if theorem.missing in ("h", "orbit") else None
        if other is not None and (signs_of(other.best) != 0).all():
            view, signs = other, signs_of(other.best)
            theorem, distance = theorem_at(ob, theta, full, view, gradient)
        if theorem.missing == "orbit":
            view = quotient(full, replace(view.held, columns=np.zeros((theta.size, 0))))
            signs = signs_of(view.best)
            prove_ends(H, view.best, signs)
            n_found = int((signs != 0).sum())
            theorem, distance = theorem_at(ob, theta, full, view, gradient)
        if not theorem.holds:
            pair = _pair(ask, full, view, ends, gradient)
            distance, zero = pair.distance, _interpolation(ask, H, view, signs)
            if not (zero and zero.holds or pair.holds and near.strict):
                with suppress(SpentError):  # `H.short` says so
                    signs = _settled(ask, H, full, view, signs, gradient)
                arrives = _arrives(ask, full, view, signs, gradient)
    found = _findings(ask, H, full, near, view, signs, ends=ends, theorem=theorem, zero=zero)
    if near.near:
        proved: Any = {"negative": True, "positive": True} if pair.holds else {}
        found = replace(found, distance=distance, arrives=arrives, **proved)
        found = replace(found, two_signs=pair.radius, unit=pair.unit)
        if found.n_kinks:
            found = replace(found, falls=falls_across(ob, theta, ends.direction, gradient[0]))
    evidence = _evidence(ask, full, view, near, gradient, ends)
    plateau = not near.near and evidence.on_plateau
    evidence = replace(
        evidence,
        n_negative_bounds=_negative_bounds(found, signs, view.n_symmetry),
        n_unsettled=n_found - int((signs != 0).sum()),
        theorem=theorem,
        zero=zero,
        distance=found.distance,
        bounded=is_bounded(ob, theta, theorem),
    )
    return replace(found, plateau=plateau), evidence, Coordinates(view.best)


def _negative_bounds(found: Findings, signs: NDArray[np.int_], s: int) -> tuple[int, int]:
    """Return bounds on the number of negative eigenvalues: of H at theta, where the gradient may
    bend the orbits of s symmetries (Cauchy), or at the critical point if one is proved.
    """
    if found.interpolates:
        return 0, 0
    zeros = int((signs == 0).sum()) + s * (not found.theorem)
    negative = int((signs == -1).sum())
    return negative, negative + zeros


def nearness_at(ob: Any, theta: Floats, H: Products | None = None) -> Nearness:
    """Return the `Nearness` at theta from the same numbers as `examine`; costs n products."""
    with np.errstate(all="ignore"):
        H = hessian_products(ob, theta) if H is None else H
        gradient, full = best_gradient(ob, theta, H), DenseHessian(H.matrix())
        return nearness(ob, theta, full.A, quotient(full, tangents(ob, theta)).best, gradient)


def _ends(H: Products, full: DenseHessian, view: View, signs: NDArray[np.int_]) -> Ends:
    """Return the vectors of largest curvature of either sign, where it is proved by the matrix or
    else by one product.
    """
    known_by = full.M.error() + 4 * full.n * EPS * safe_norm(full.A)
    found: dict[int, Any] = {-1: (None, None, 0.0), 1: (None, None, 0.0)}
    for cut, known in ((view.plain, signs_of(view.plain)), (view.best, signs)):
        for sign, i in ((-1, 0), (1, -1)):
            if known.size and known[i] == sign and found[sign][0] is None:
                v = cut.c * cut.vectors[:, i]
                v = v / np.linalg.norm(v)
                quotient, error = float(v @ (full.A @ v)), known_by
                if not sign * quotient > error and H.affords(1):
                    quotient, error, _ = H.rayleigh(v)
                if sign * quotient > error:
                    found[sign] = v, quotient, quotient - sign * error
    return Ends(found[-1][0], found[-1][1], found[-1][2], found[1][2])


def _newton(
    ask: ClassifyOptions, full: DenseHessian, cut: Slice, gradient: tuple[Floats, float]
) -> tuple[Floats, float]:
    """Return Newton's step on eigenvectors of known sign, in the coordinates of a slice, and its
    length plus what the rounding of g may add.

    The rounding matters near a minimum whose orbits the gradient bends: slopes of that size are all
    that distinguishes it from a saddle.
    """
    (g, off), known = gradient, signs_of(cut) != 0
    slack = rounding_of(ask.n, off, np.abs(full.A) @ np.abs(ask.theta), cut)[1]
    vectors, values = cut.vectors[:, known], cut.values[known]
    step = np.zeros(ask.n)
    for _ in range(3):  # refined: parts of opposite curvature may cancel
        step -= vectors @ (vectors.T @ (cut.c * (g + full.A @ (cut.c * step))) / values)
    return step, safe_norm(step) + safe_norm(slack[known] / values)


@dataclass(frozen=True)
class Pair:
    """The proof of a saddle by two fixed vectors: curvature of both signs lasts within `radius`,
    and Newton's step has length `distance`, both in units none of which is smaller than `unit` of
    theta's.
    """

    radius: float = 0.0
    distance: float = np.inf
    unit: float = 1.0

    @property
    def holds(self) -> bool:
        return self.radius > self.distance


def _pair(
    ask: ClassifyOptions, full: DenseHessian, view: View, ends: Ends, gradient: tuple[Floats, float]
) -> Pair:
    """Return the proof by two fixed vectors: in theta's coordinates or, where it fails there, in
    the first balanced ones in which it holds, or in ones in which Newton's step is equally long in
    all layers.
    """
    bound = two_signs(ends.negative, ends.positive, partial(third_bound, ask.ob, ask.theta))
    plain = Pair(bound, _newton(ask, full, view.plain, gradient)[1])
    if plain.holds or view.best is view.plain:
        return plain
    flat, layers = full.flat(view.held.columns), full.M.layers()
    for units in full.units:
        cut = view.best if view.best.c is units else full.cut(flat, units)
        step, length = _newton(ask, full, cut, gradient)
        found = _pair_in(ask, full, cut, length)
        if found.holds:
            return found
    lengths = np.sqrt(np.bincount(layers, step**2) / np.bincount(layers))
    if not 0 < lengths.max() < np.inf or len(lengths) == 1:
        return plain
    units = cut.c * np.maximum(lengths / lengths.max(), SHORTEST)[layers]
    cut = full.cut(flat, units)
    found = _pair_in(ask, full, cut, _newton(ask, full, cut, gradient)[1])
    return found if found.holds else plain


def _pair_in(ask: ClassifyOptions, full: DenseHessian, cut: Slice, length: float) -> Pair:
    """Return the `Pair` of both ends of a slice, in its coordinates, in which Newton's step has
    this length.
    """
    known, c, A = signs_of(cut), cut.c, full.A
    if not ((known[:1] < 0).all() and (known[-1:] > 0).all() and known.size):
        return Pair()
    error = full.M.error(c) + 6 * full.n * EPS * safe_norm(c[:, None] * A * c)
    low, high = (
        float(v @ (c * (A @ (c * v)))) / float(v @ v)
        for v in (cut.vectors[:, 0], cut.vectors[:, -1])
    )
    third = partial(third_bound_in, ask.ob, ask.theta, units=c)
    return Pair(two_signs(low + error, high - error, third), length, float(c.min()))


def _arrives(
    ask: ClassifyOptions,
    full: DenseHessian,
    view: View,
    signs: NDArray[np.int_],
    gradient: tuple[Floats, float],
) -> bool:
    """Return whether Newton's step was measured to lead towards a critical point: on eigenvectors
    of known sign, the decrement at its end is at most `SHORTER` of that at theta, beyond rounding.
    """
    cut, (g, off) = view.best, gradient
    known = signs != 0
    cut = replace(cut, values=cut.values[known], vectors=cut.vectors[:, known])
    step = -cut.c * (cut.vectors @ (_slopes(cut, g) / cut.values))
    reach = np.abs(full.A) @ np.abs(ask.theta)
    before = newton_decrement(g, off, reach, cut)
    if before == 0:
        return True
    there = gradient_after(ask.ob, ask.theta, step)
    return there is not None and newton_decrement(there, np.nan, reach, cut) <= SHORTER * before


def _slopes(cut: Any, g: Floats) -> Floats:
    return np.asarray(cut.vectors.T @ (cut.c * g))


def _settled(
    ask: ClassifyOptions,
    H: Products,
    full: DenseHessian,
    view: View,
    signs: NDArray[np.int_],
    gradient: tuple[Floats, float],
) -> NDArray[np.int_]:
    """Return the signs that were measured to last, the others set to 0."""
    H.note("do signs last?")
    g, off = gradient
    reach = np.abs(full.A) @ np.abs(ask.theta)

    def slack(u: Floats) -> float:
        if np.isnan(off):
            return GRADIENT_EPS * EPS * float(np.abs(u) @ reach)
        return off * safe_norm(u)

    cut = view.best
    vectors = cut.c[:, None] * cut.vectors
    return certify_signs(
        ask.ob,
        ask.theta,
        signs,
        cut.values,
        vectors,
        slopes=_slopes(cut, g),
        slack=slack,
        spend=H.spend,
    )


def _interpolation(
    ask: ClassifyOptions, H: Products, view: View, signs: NDArray[np.int_]
) -> Contraction | None:
    """Check the theorem for the residuals if there are zero eigenvalues and no negative ones; None
    if it does not apply.
    """
    if (signs == -1).any() or not (signs == 0).any() and not view.n_symmetry:
        return None
    return interpolation(ask, H)


def _findings(
    ask: ClassifyOptions,
    H: Products,
    full: DenseHessian,
    near: Nearness,
    view: View,
    signs: NDArray[np.int_],
    *,
    ends: Ends,
    theorem: Contraction | None,
    zero: Contraction | None,
) -> Findings:
    n, s = ask.n, view.n_symmetry
    counts = int((signs == 1).sum()), int((signs == -1).sum()), int((signs == 0).sum()) + s
    interpolates = bool(zero and zero.holds)
    if interpolates:
        m = len(residual_bounds(ask.ob, ask.theta, 0.0).residuals)
        counts = m, 0, n - m
    return Findings(
        near=near.near,
        strict=near.strict,
        to_infinity=runs_to_infinity(ask.ob, ask.theta),
        flat=bool((view.best.values == 0).all()) and not s,
        bounded=bool(np.isfinite(view.best.error)),
        asymmetric=_hidden_by_asymmetry(full, view),
        n_positive=counts[0],
        n_negative=counts[1],
        n_zero=counts[2],
        n_symmetry=s,
        negative=ends.negative < 0,
        positive=ends.positive > 0,
        lasting=bool((signs == signs_of(view.best)).all()),
        short=H.short,
        theorem=bool(theorem and theorem.holds),
        radius=theorem.radius if theorem else np.inf,
        interpolates=interpolates,
        zero_radius=zero.radius if zero else np.inf,
        n_kinks=kinks(ask.ob, ask.theta),
    )


def _hidden_by_asymmetry(full: DenseHessian, view: View) -> bool:
    """Return whether an eigenvalue counts as zero only because of the asymmetry that the products
    showed.
    """
    cut, zero = view.best, signs_of(view.best) == 0
    seen = full.M.seen()
    # an exact matrix reports no rounding
    rounding = max(full.M.error() - seen, PRODUCT_EPS * EPS * full.norm)
    if not seen > 2 * rounding:  # rounding alone can show as much
        return False
    return bool((np.abs(cut.values[zero]) > cut.error - full.M.seen(cut.c)).any())


def _evidence(
    ask: ClassifyOptions, full: DenseHessian, view: View, near: Nearness, gradient: Any, ends: Ends
) -> Evidence:
    g = gradient[0]
    (low, low_bounds), (high, high_bounds) = full.extremes(view.plain)
    flat_ratio = residual = None
    # along smaller curvature a Newton step would leave the region where the loss is modelled
    reached = near.gradient_norm / (FAR * extent(ask.theta))
    if near.gradient_norm > 0:
        residual = 1.0
        if full.norm > 0:
            unit = g / near.gradient_norm
            flat_ratio = min(1.0, safe_norm(full.A @ unit) / max(abs(low), abs(high)))
            cut = max(view.plain.error, ask.curvature_tol * full.norm, reached)
            seen = view.plain.vectors[:, np.abs(view.plain.values) > cut]
            residual = max(0.0, 1 - float(np.linalg.norm(seen.T @ unit)) ** 2) ** 0.5
    return Evidence(
        near=near,
        gradient=g,
        flat_ratio=flat_ratio,
        residual=residual,
        low=low,
        low_bounds=low_bounds,
        high=high,
        high_bounds=high_bounds,
        escape_direction=ends.direction,
        escape_curvature=ends.quotient,
        weakest=float(np.abs(view.best.values).min(initial=np.inf)),
        weakest_error=view.best.error,
        balanced=view.best is not view.plain,
        flat_beside_step=full.norm <= reached,
    )
