"""What the Krylov space of the gradient says, at large n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..krylov.lanczos import combine
from ..krylov.ritz import decompose
from ..krylov.trust_region import least_residual
from ..protocols import Floats
from ..vectors import extent, safe_norm
from .evidence import FAR
from .nearness import GRADIENT_EPS
from .request import Request
from .search import Search

GRADIENT_STEPS = 40  # Krylov space of the gradient: its range, and Newton's step ...
MORE_STEPS = 160  # ... where the decrement takes as many to settle


@dataclass(frozen=True, eq=False)
class Slope:
    """What the Krylov space of the gradient says: ``||Hg||/||g||``, the share of g outside H's
    range, Newton's step and its residual over ``||g||``, and the decrement; where the budget ended
    before that had settled, also the `least` that it can be.
    """

    flat: float | None
    residual: float | None
    step: Floats
    left: float
    decrement: float
    least: float | None = None


def along_gradient(ask: Request, search: Search, gradient: tuple[Floats, float]) -> Slope:
    """The `Slope` at theta."""
    g = gradient[0]
    size, none = safe_norm(g), np.zeros(ask.n)
    if size == 0:
        return Slope(None, None, none, 0.0, 0.0)

    def settled(run: Any) -> bool:
        return bool(run.m >= GRADIENT_STEPS and _solve(run, size)[1] <= 0.1)

    most = min(MORE_STEPS, search.left() // 4)
    run = search.from_gradient(g, most, settled)
    if run is None or run.scale == 0:
        if run is None:
            return Slope(None, None, none, 1.0, np.inf, least_decrement(size, search.H.largest))
        return Slope(None, 1.0, none, 1.0, np.inf)
    values, S = decompose(run)
    cut = max(run.scale * ask.curvature_tol, size / (FAR * extent(ask.theta)))
    y, left = _solve(run, size)
    step = combine(run.rows[: run.m], y[:, None])[0].astype(float)
    inside = float((S[0, np.abs(values) > cut] ** 2).sum())
    sizes = np.maximum(np.abs(values), GRADIENT_EPS * search.H.eps * run.scale)
    decrement = 0.5 * float(((size * S[0]) / sizes * (size * S[0])).sum())
    flat = safe_norm(run.T[: run.m + run.p, 0])
    short = run.m < min(GRADIENT_STEPS, run.dimension) and run.p > 0 and left > 0.1
    least = least_decrement(size, flat) if short else None
    return Slope(flat, float(max(0.0, 1 - inside) ** 0.5), step, left, decrement, least)


def least_decrement(size: float, flat: float) -> float:
    """The least decrement there can be: by Cauchy and Schwarz ``g'|H|^-1 g >= ||g||^3 / ||Hg||``,
    for ``||g||`` and ``||Hg|| / ||g||``.
    """
    return 0.5 * size * (size / flat) if flat > 0 else np.inf


def _solve(run: Any, size: float) -> tuple[Floats, float]:
    """Newton's step in the basis of a run from g: of least residual, and that over ``||g||``."""
    y, rest = least_residual(run, 1.0)
    return size * y, float(np.linalg.norm(rest))
