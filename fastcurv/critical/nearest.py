"""Where Newton's method leads from a point that is not critical: at most ten full steps, for as
long as they contract.

The steps are solved by MINRES in coordinates where ``|H|`` at the start is I, where all eigenpairs
of that are at hand: a few products each. They contract where every step at least halves the
gradient in those coordinates, which no rescaling of parameters changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interrupts import OutOfTime, check_time
from ..krylov.solvers import minres
from ..protocols import Floats
from ..vectors import safe_norm
from .evidence import Products, hessian_products
from .knowledge import in_float64
from .nearness import assumed_error, gradient_and_error
from .theorem import EPS, Slice

STEPS = 10
HALF = 0.5  # the gradient's norm after a step over that before
SLOW = 3  # steps from which on they must gain a digit each: linear convergence is no Newton's
TENTH = 0.1
ENOUGH = 1e-12  # of the gradient at the start: further steps show rounding
SOLVED = 1e-9  # relative residual of a step
MOST_PRODUCTS = 200  # for one step


@dataclass(frozen=True, eq=False)
class Arrival:
    """Where Newton's steps arrived, None where they do not contract; what that took."""

    theta: Floats | None
    n_steps: int
    n_products: int


class Coordinates:
    """``S`` with ``S S' = |H|^-1`` on a slice, weak curvature counted as its error; I without."""

    def __init__(self, cut: Slice | None = None) -> None:
        self.cut = cut
        if cut is not None:
            least = max(cut.error, 1e-10 * cut.norm, np.finfo(float).tiny)
            self.weights = 1 / np.sqrt(np.maximum(np.abs(cut.values), least))

    def out(self, y: Floats) -> Floats:
        """``S y``."""
        if self.cut is None:
            return y
        return np.asarray(self.cut.c * (self.cut.vectors @ (self.weights * y)))

    def back(self, v: Floats) -> Floats:
        """``S' v``."""
        if self.cut is None:
            return v
        return np.asarray(self.weights * (self.cut.vectors.T @ (self.cut.c * v)))


def walk(
    ob: Any,
    theta: Floats,
    g: Floats,
    within: Coordinates,
    most_products: float = np.inf,
) -> Arrival:
    """Newton's steps from theta.

    Parameters
    ----------
    ob : object
    theta, g : ndarray, shape (n,)
    within : Coordinates
    most_products : float
        The budget.
    """
    ob, here, spent = in_float64(ob), theta, 0
    first = size = _norm(within.back(g))
    if not 0 < size < np.inf:
        return Arrival(None, 0, 0)
    for k in range(STEPS):
        room = int(min(MOST_PRODUCTS, most_products - spent))
        if room < 1:
            return Arrival(None, k, spent)
        H = hessian_products(ob, here)
        try:
            p = _solve(H, g, within, room)
        except OutOfTime:
            return Arrival(None, k, spent + H.count)
        spent += H.count
        there = here + p
        if not np.isfinite(there).all():
            return Arrival(None, k, spent)
        share = HALF if k < SLOW else TENTH
        most = share * size if spent < most_products else min(share * size, ENOUGH * first * 1e3)
        if within.cut is None and _above(ob, there, most, H.norm):
            return Arrival(None, k, spent)
        g = gradient_and_error(ob, there)[0]
        now = _norm(within.back(g))
        if size <= ENOUGH * first * 1e3 and not now <= HALF * size:
            return Arrival(here if now >= size else there, k + 1, spent)  # at rounding
        tiny = safe_norm(p) <= 8 * EPS * safe_norm(here)
        if tiny and k:
            return Arrival(here if now >= size else there, k + 1, spent)
        if not now <= share * size:
            return Arrival(None, k, spent)
        here, size = there, now
        if now <= ENOUGH * first:
            return Arrival(here, k + 1, spent)
    return Arrival(here, STEPS, spent)


def _above(ob: Any, theta: Floats, size: float, norm: float) -> bool:
    """Whether the gradient is surely longer than `size`, by a plain one: a tenth of the price of
    the best.
    """
    plain = _norm(np.array(ob.gradient(theta), dtype=float))
    return plain - 100 * assumed_error(norm, theta) > 1.01 * size


def _norm(y: Floats) -> float:
    return safe_norm(y) if np.isfinite(y).all() else np.inf


def _solve(H: Products, g: Floats, within: Coordinates, room: int) -> Floats:
    def multiply(y: Floats) -> Floats:
        check_time()
        return within.back(H(within.out(y)))

    return within.out(minres(multiply, -within.back(g), room, SOLVED))
