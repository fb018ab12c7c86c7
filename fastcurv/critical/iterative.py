"""The findings of `classify` where n is too large for all eigenvalues: proofs one-sided, the other
side by risk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..checks import as_rng
from ..interrupts import unbroken
from ..krylov.ritz import decompose
from ..krylov.trust_region import lanczos_risk, lanczos_steps
from ..protocols import Floats, Precise
from ..vectors import extent, safe_norm
from .decide import Findings
from .evidence import FAR, Evidence, Products, annihilated, gradient_at, independent
from .kinks import falls_across
from .knowledge import (
    curvature_floor,
    is_bounded,
    kinks,
    offers_symmetries,
    probes,
    runs_to_infinity,
    tangents,
)
from .nearest import Coordinates
from .nearness import Nearness, assumed_error, best_gradient, nearness_by
from .proofs import prove
from .reached import Reached, reached
from .request import Request
from .search import Balanced, End, Search, both_signs
from .slices import ZERO_MODE
from .slope import Slope, along_gradient, least_decrement

RISK = 0.01  # how hard negative curvature is looked for where no failure probability was asked
BALANCED_STEPS = 128  # search in balanced coordinates, where parameters have very different scales
SHORT_STEPS = 64  # where only the ends of the spectrum are wanted
MAX_PROBES = 16
COUPLING = 0.01  # of curvature_tol ||H||: what H may do to a symmetry direction that is taken out
MAX_SYMMETRY = 1024  # symmetry directions, each a product, that are taken out; more are not
PROBE = 1  # the seed of a vector that sees the size of H
CLEAR = 1e-2  # where so little of a gradient, or of the least decrement it can have, is no rest
WEAK = 3  # Ritz vectors along which curvature is measured to last


def examine(ask: Request, H: Products) -> tuple[Findings, Evidence, Coordinates]:
    """Everything that `decide` and the words need, for large n."""
    ob, theta = ask.ob, ask.theta
    search = Search(ask, H)
    d, live = np.ones(H.n), np.ones(H.n, bool)
    if search.left() >= 40:
        d, live = search.balance()
    else:
        search.first_look()
    gradient = _gradient(ask, H)
    slope = along_gradient(ask, search, gradient)
    near = _near(ask, H, gradient, slope)
    short = False  # of what would tell whether it is near
    if not near.near and slope.least is not None and ask.gradient_tol is None:
        least = _near(ask, H, gradient, replace(slope, decrement=slope.least))
        near, short = near if least.near else least, least.near
    floor = curvature_floor(ob, theta) if near.near else -np.inf
    known = None
    if near.near:
        known = _all_known(ask, search, floor)
        if known is None:
            _probe(ask, search)
    found, evidence = _look(ask, search, near, floor, (d, live), known=known)
    if near.near:
        found, evidence = prove(ask, search, found, evidence, (slope, gradient), known=known)
        if found.n_kinks:
            falls = falls_across(ob, theta, evidence.escape_direction, gradient[0])
            found = replace(found, falls=falls)
    evidence = replace(
        evidence,
        gradient=gradient[0],
        flat_ratio=None if slope.flat is None or H.norm == 0 else min(1.0, slope.flat / H.norm),
        residual=slope.residual,
        flat_beside_step=H.norm <= near.gradient_norm / (FAR * extent(theta)),
        bounded=is_bounded(ob, theta, evidence.theorem),
        n_products=H.count,
    )
    plateau = not near.near and not short and evidence.on_plateau
    found = replace(found, plateau=plateau, short=found.short or short)
    return found, evidence, Coordinates()


def is_clearly_far(ask: Request, H: Products) -> bool:
    """Return whether Newton's step promises far more than nothing, whatever the signs, by two
    products: with ``g'|H|g <= ||g|| ||Hg||`` Cauchy and Schwarz have
    ``g'|H|^-1 g >= ||g||^3 / ||Hg||``.
    """
    if not H.affords(2):
        return False
    g = gradient_at(ask.ob, ask.theta, H)
    size, along = safe_norm(g), safe_norm(H(g))
    H(as_rng(PROBE).standard_normal(H.n))
    if not (0 < size < np.inf and along < np.inf and H.norm > 0):
        return False
    return _promises(ask, size, least_decrement(size, along / size), H.largest)


def _promises(ask: Request, size: float, decrement: float, largest: float) -> bool:
    """Whether a gradient of that size, and so large a decrement at least, is far more than nothing,
    and than its own rounding, where ``||H||`` is no more than `largest`.
    """
    length = safe_norm(ask.theta)
    reach = largest * length * length
    rest = nearness_by(ask.ob, ask.theta, CLEAR * size, CLEAR * decrement, reach, ask.gradient_tol)
    return not rest.near and assumed_error(largest, ask.theta) / CLEAR < size < np.inf


def _gradient(ask: Request, H: Products) -> tuple[Floats, float]:
    """The best gradient and a bound on its error; where theta is far from rest the plain one
    without a bound, at a tenth of the price.
    """
    if isinstance(ask.ob, Precise) and H.norm > 0:
        g = gradient_at(ask.ob, ask.theta, H)
        size = safe_norm(g)
        if _promises(ask, size, size / H.largest * size, H.largest):
            return g, np.nan
    return best_gradient(ask.ob, ask.theta, H)


def _all_known(ask: Request, search: Search, floor: float) -> Reached | None:
    """Every eigenvalue, where rows reach few dimensions and symmetries are not too many."""
    if floor > 0:
        return None
    search.symmetry = _symmetries(ask, search)
    if search.symmetry is None and offers_symmetries(ask.ob):
        return None
    known = reached(ask, search.H, search.left(), search.symmetry)
    if known is not None:
        for value, v in known.ends():
            search.offer(value, v)
    return known


def _near(ask: Request, H: Products, gradient: tuple[Floats, float], slope: Slope) -> Nearness:
    g, off = gradient
    size, length = safe_norm(g), safe_norm(ask.theta)
    off = assumed_error(H.norm, ask.theta) if np.isnan(off) else off
    share = max(0.0, 1 - off / size) if size > off else 0.0
    decrement = slope.decrement * share**2 if share > 0 else 0.0
    reach = H.norm * length * length  # infinite where it overflows
    return nearness_by(
        ask.ob, ask.theta, size, decrement, reach, ask.gradient_tol, whole=slope.decrement
    )


def _probe(ask: Request, search: Search) -> None:
    """Block Krylov spaces of the objective's own probes: three block steps see what couples to
    them.
    """
    P = probes(ask.ob, ask.theta)
    if not P.shape[1]:
        return
    P = P[:, np.linspace(0, P.shape[1] - 1, min(MAX_PROBES, P.shape[1])).astype(int)]
    for start in range(0, P.shape[1], 8):
        search.run(search.H.native, P[:, start : start + 8].T.astype(search.H.native_dtype), 3)


def _symmetries(ask: Request, search: Search) -> Floats | None:
    """Orthonormal columns of directions of proved symmetries; None where there are too many.

    What of their span H does not map to `COUPLING` of what counts as negative curvature is left in:
    taking the rest out changes no eigenvalue by more than twice that, which the risk is told of.
    """
    H = search.H
    if not search.one_sided or not offers_symmetries(ask.ob):
        return None
    try:
        T: Floats = tangents(ask.ob, ask.theta).columns
    except MemoryError:
        return None
    T = T[:, T.any(axis=0)]
    if T.shape[1] > min(MAX_SYMMETRY, search.left() // 4):
        return None
    if not T.shape[1]:
        return T
    H.note(f"{T.shape[1]} symmetry directions")
    Q = independent(T)
    most = min(ZERO_MODE, COUPLING * ask.curvature_tol) * H.norm
    return np.asarray(annihilated(H(Q), Q, most))


def _look(
    ask: Request,
    search: Search,
    near: Nearness,
    floor: float,
    scales: tuple[Any, Any],
    *,
    known: Reached | None,
) -> tuple[Findings, Evidence]:
    """The ends of the spectrum, and the risk of having missed what lies beyond them."""
    H, n, Q = search.H, search.H.n, search.symmetry
    deflated = ask.krylov is None and Q is not None and Q.shape[1] > 0
    eps = ask.curvature_tol * (1 - 2 * COUPLING * deflated)
    goal = lanczos_steps(n, eps, ask.failure_probability or RISK)
    deep = near.near and not floor > 0 and known is None
    steps = goal if deep else min(goal, SHORT_STEPS)
    main = None
    if known is None:
        H.note(f"{steps} Lanczos steps")
        main = search.from_random(steps, both_signs)
    risk = 1.0 if main is None else lanczos_risk(n, main.m, eps) if main.p else 0.0
    if H.asymmetry >= 0.1 * ask.curvature_tol * H.norm:
        risk = 1.0
    if deep:
        _search_further(search, main, goal, scales)
    low, high = search.prove(-1), search.prove(1)
    negative = low.quotient < -low.error
    positive = high.quotient > high.error
    weak_end = (low if not negative else high) if negative != positive else None
    found = Findings(
        near=near.near,
        strict=near.strict,
        to_infinity=runs_to_infinity(ask.ob, ask.theta),
        flat=H.norm == 0,
        n_symmetry=None if Q is None else Q.shape[1] if known is None else known.n_symmetry(Q),
        negative=negative,
        positive=positive,
        floor=floor,
        risk=risk,
        risk_asked=ask.failure_probability,
        loose=deep and weak_end is not None and search.loose(weak_end),
        n_kinks=kinks(ask.ob, ask.theta),
    )
    if known is not None:
        found = known.counted(found)
    evidence = _seen(search, found, (low, high), known)
    return found, replace(
        evidence, near=near, goal=goal, weak=_weak(search, main, (low, high), known)
    )


def _seen(
    search: Search, found: Findings, ends: tuple[End, End], known: Reached | None
) -> Evidence:
    """Both ends of the spectrum, and what is known of the inertia."""
    (low, high), floor = search.of_all(*ends), found.floor
    low_bounds = low.enclosure
    bounds = (
        max(search.n_negative, int(found.negative)),
        search.H.n - max(search.n_positive, int(found.positive)),
    )
    if floor > 0:
        bounds, low_bounds = (0, 0), (max(floor, low_bounds[0]), low_bounds[1])
        low = End(low.vector, max(floor, low.quotient), low.error, low.residual)
    if known is not None:
        negative = known.counts["n_negative"]
        bounds = negative, negative + known.counts["n_zero"]
    return Evidence(
        near=None,
        gradient=np.zeros(0),
        flat_ratio=None,
        residual=None,
        low=low.quotient,
        low_bounds=low_bounds,
        high=high.quotient,
        high_bounds=high.enclosure,
        escape_direction=low.vector if found.negative else None,
        escape_curvature=low.quotient if found.negative else None,
        weakest=0.0 if known is None else known.smallest,
        weakest_error=abs(ends[0].quotient) + search.H.zero if known is None else known.error,
        across=(ends[0].quotient, ends[1].quotient),
        reach=None if known is None else known.space,
        n_negative_bounds=bounds,
    )


def _weak(
    search: Search, main: Any, ends: tuple[End, End], known: Reached | None
) -> tuple[Floats, Floats]:
    """Quotients and Ritz vectors of the weakest curvature found, and of both ends."""
    if known is not None:
        values, found = known.chosen(WEAK)
        rows = found.T
    elif main is not None and main.m > WEAK:
        ritz, S = decompose(main)
        chosen = np.argsort(np.abs(ritz))[:WEAK]
        values, rows = ritz[chosen], search.vectors(main, S[:, chosen])
    else:
        values, rows = np.zeros(0), np.zeros((0, search.H.n))
    columns = np.stack([*(end.vector for end in ends), *rows.astype(float)], axis=1)
    return np.append([end.quotient for end in ends], values), columns


def _search_further(search: Search, main: Any, goal: int, scales: tuple[Any, Any]) -> None:
    """Where no negative curvature showed: on by restarts if the basis was too large to keep, then
    balanced.
    """
    H, (d, live) = search.H, scales
    if not search.one_sided:
        return
    if main is not None and main.p and main.m < goal and search.left() > 20:
        from ..spectrum.eigsh import eigsh

        lowest = min(search.candidates, key=lambda c: c[0])[1].astype(H.native_dtype)
        most = max(2, int(min(search.left(), goal - main.m)))
        pairs = unbroken(
            eigsh(H.native, 1, "SA", tol=1e-6, max_products=most, v0=lowest, seed=search.rng)
        )
        H.tell(pairs.n_products)
        search.offer(float(pairs.values[0]), pairs.vectors[:, 0].astype(float))
    if d[live].max() > 32 * d[live].min():
        steps, d = min(goal, BALANCED_STEPS), d / d.max()  # squares of d are numbers in float32
        search.run(Balanced(H.native, d), None, steps, d=d, stop=both_signs)
