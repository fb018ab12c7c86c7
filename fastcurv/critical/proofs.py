"""At large n: what is proved near a critical point, and what is measured where nothing is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ..krylov.solvers import minres
from ..protocols import Floats
from ..vectors import safe_norm
from .decide import Findings
from .evidence import Evidence, SpentError
from .knowledge import residual_bounds, third_bound
from .lasting import SHORTER, gradient_after, lasting_along_step, lasts_along
from .nearness import assumed_error
from .reached import Reached, interpolation
from .request import Request
from .search import Search
from .slices import across_orbits
from .slope import Slope
from .theorem import EPS, UP, Contraction, eta_of, kantorovich, two_signs

SOLVED = 0.5  # of the gradient: more left than this, and Newton's step is not known
SOLVE_STEPS = 400  # for Newton's step, where a proof needs its residual small


def prove(
    ask: Request,
    search: Search,
    found: Findings,
    ev: Evidence,
    at_theta: tuple[Slope, tuple[Floats, float]],
    *,
    known: Reached | None,
) -> tuple[Findings, Evidence]:
    """What can be proved near a critical point, and where it cannot, what lasts."""
    ob, theta, (slope, gradient) = ask.ob, ask.theta, at_theta

    def third(r: float) -> float:
        return third_bound(ob, theta, r)

    weakest = found.floor if known is None else known.weakest
    if known is not None and weakest > 0:
        step, off = known.step(search.H, gradient[0]), 0.0
    else:
        step, off = _newton(search, slope, gradient)
    distance = safe_norm(step) if off <= SOLVED else np.inf
    found, ev = replace(found, distance=distance), replace(ev, distance=distance)
    if weakest > 0 and search.H.affords(1):
        theorem = _by_floor(search, weakest, step, gradient, third, known)
        if known is not None and theorem.holds and known.span.shape[1]:
            theorem = across_orbits(ob, theta, known.slice, theorem)
        ev = replace(ev, theorem=theorem)
        found = replace(found, theorem=theorem.holds, radius=theorem.radius)
    if not found.theorem and found.negative and found.positive:
        bound = two_signs(ev.low + _error(ev, search), ev.high - _error(ev, search), third)
        found = replace(found, two_signs=bound)
    zero = None if found.negative or found.theorem else interpolation(ask, search.H)
    if zero is not None and zero.holds:
        m = len(residual_bounds(ob, theta, 0.0).residuals)
        counts: dict[str, Any] = {"n_positive": m, "n_negative": 0, "n_zero": ask.n - m}
        found = replace(found, interpolates=True, zero_radius=zero.radius, **counts)
        return found, replace(ev, zero=zero, n_negative_bounds=(0, 0))
    if not found.theorem and not found.floor > 0 and not found.two_signs > distance:
        found = _strong_enough(search, found, ev) if known is None else found
        lasting = known is None or known.credible(search.H.norm)
        with suppress(SpentError):  # `H.short` says so
            lasting = lasting and _lasting(ask, search, ev, step, gradient)
        arrives = lasting and _arrives(ask, search, step, off, gradient)
        found = replace(found, lasting=lasting, arrives=arrives, short=search.H.short)
        if not lasting:
            found = replace(found, n_positive=None, n_negative=None, n_zero=None)
    return found, ev


def _strong_enough(search: Search, found: Findings, ev: Evidence) -> Findings:
    """Where no proof says that signs last, an end too weak for that to be measured counts as zero,
    whatever its sign at theta.
    """
    negative = found.negative and -ev.low > search.H.zero
    positive = found.positive and ev.high > search.H.zero
    dropped = [found.negative != negative, found.positive != positive]
    loose = any(not search.of_symmetry(v) for v in ev.weak[1][:, :2].T[dropped])
    return replace(found, negative=negative, positive=positive, loose=found.loose or loose)


def _error(ev: Evidence, search: Search) -> float:
    """What the quotients of both ends may be off by."""
    H = search.H
    dots = 2 * H.n * EPS * H.norm  # v'Hv is a sum, too
    return (max(H.bound(v) for v in ev.weak[1][:, :2].T) + dots) * UP + H.asymmetry


def _newton(search: Search, slope: Slope, gradient: tuple[Floats, float]) -> tuple[Floats, float]:
    """Newton's step and its residual over ``||g||``, solved further where that is large."""
    H, g = search.H, gradient[0]
    size = safe_norm(g)
    if size == 0 or slope.left <= 1e-3 or search.left() < 20:
        return slope.step, slope.left
    room = int(min(SOLVE_STEPS, search.left() // 2))
    step = size * minres(lambda v: H(v), -g / size, room, 1e-6)
    left = safe_norm(H(step) + g) / size
    return (step, left) if left < slope.left else (slope.step, slope.left)


def _by_floor(
    search: Search,
    floor: float,
    step: Floats,
    gradient: tuple[Floats, float],
    third: Any,
    known: Reached | None,
) -> Contraction:
    """The theorem with a floor under the size of all curvature for ``1 / beta``."""
    H, (g, off), beta = search.H, gradient, UP / floor
    rest = H(step) + g
    if known is not None:
        rest, beta = known.across(rest), beta * (1 + 8 * H.n * EPS)
    off = assumed_error(H.norm, search.ask.theta) if off != off else off
    rounding = 4 * EPS * (safe_norm(rest) + safe_norm(g))
    error = safe_norm(rest) + off + H.bound(step) + rounding
    return kantorovich(beta, eta_of(safe_norm(step), beta, error) * UP, third)


def _lasting(
    ask: Request, search: Search, ev: Evidence, step: Floats, gradient: tuple[Floats, float]
) -> bool:
    """Whether the curvature that the verdict rests on is measured to last, along Newton's step and
    along its own directions.
    """
    H, (g, off) = search.H, gradient
    off = assumed_error(H.norm, ask.theta) if off != off else off
    quotients, U = ev.weak
    known = np.abs(quotients) > max(H.zero, H.asymmetry)
    quotients, U = quotients[known], U[:, known]
    H.note("do signs last?")
    if not lasting_along_step(ask.ob, ask.theta, step, U, quotients, H.spend).all():
        return False
    for quotient, u in zip(quotients, U.T):
        reach = (abs(float(g @ u)) + off) / abs(quotient)
        if not lasts_along(ask.ob, ask.theta, u, float(quotient), reach, H.spend):
            return False
    return True


def _arrives(
    ask: Request, search: Search, step: Floats, left: float, gradient: tuple[Floats, float]
) -> bool:
    """Whether Newton's step, solved but for `left` of the gradient, was measured to lead nearer to
    rest: rounding aside.
    """
    (g, off), H = gradient, search.H
    size = safe_norm(g)
    rounding = assumed_error(H.norm, ask.theta)
    if size <= max(rounding, off if off == off else 0.0):
        return True
    there = gradient_after(ask.ob, ask.theta, step)
    most = (SHORTER**0.5 + left) * size + rounding
    return left <= SOLVED and there is not None and safe_norm(there) <= most
