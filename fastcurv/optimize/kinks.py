"""The minimum that holds a stalled run on kinks: where it is, and which kinks hold it.

Minima of relu nets with l2 lie on kinks, where no gradient is small and no second-order step of the
loss ends. So the kinks are rounded off over a width that shrinks; at each width's minimum the
slopes in between tell which kinks are active. Then Newton in (theta, slopes), kinks entering and
leaving the active set as signs and slopes ask, and the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..critical.held import HeldMinimum, prove_held
from ..eigensolver import eigh
from ..krylov.subproblems import trust_region
from ..protocols import OnKinks
from .run import reduction_ratio

LARGEST = 600  # parameters: all eigenpairs at every step
DEAREST = 5e7  # numbers in the passes of one Hessian: a second
WIDTHS = [0.03 * 0.25**i for i in range(9)]
STEPS = 40  # of descent at each width
UPDATES = 12  # of the active set
NEWTON = 12
REST = 1e-9  # of the gradient
EPS = float(np.finfo(np.float64).eps)
BETWEEN = 1e-3  # a slope nearer to a side's has left the kink


@dataclass(frozen=True)
class KinkPoint:
    """theta on kinks, the slopes there, and what is proved of it."""

    theta: np.ndarray
    slopes: np.ndarray
    verdict: HeldMinimum


def find_held(ob: Any, theta: np.ndarray, stop: Callable[[], bool]) -> KinkPoint | None:
    """The minimum on kinks near theta; None where none is found or the objective has no kinks.

    Parameters
    ----------
    ob : objective
        An `OnKinks`.
    theta : ndarray, shape (n,)
        Where a run has stalled.
    stop : callable
        True ends the search.
    """
    first = ob.smoothed(1.0) if isinstance(ob, OnKinks) else None
    if first is None or first.n_params > LARGEST or first.cost > DEAREST:
        return None
    here, best = np.asarray(theta, dtype=float), None
    for i, width in enumerate(WIDTHS):
        if stop():
            break
        smooth = ob.smoothed(width)
        here = _descend(smooth, here, stop)
        if i < 2 or stop():
            continue
        found = _newton(ob, here, smooth.slopes(here))
        if found is not None and (best is None or found.verdict.certified):
            best = found
        if best is not None and best.verdict.certified:
            break
    return best


def _descend(smooth: Any, theta: np.ndarray, stop: Callable[[], bool]) -> np.ndarray:
    """Trust-region steps from all eigenpairs: for the small networks this module is for."""
    f, g = smooth.value_and_gradient(theta)
    radius, fresh = 0.1 * max(1.0, float(np.linalg.norm(theta))), True
    for _ in range(STEPS):
        if fresh:
            values, vectors, _ = eigh(smooth.hessian(theta))
        y, _ = trust_region(values, vectors.T @ g, radius)
        predicted = -float((vectors.T @ g) @ y + 0.5 * (y @ (values * y)))
        there = theta + vectors @ y
        f_there, g_there = smooth.value_and_gradient(there)
        ratio = reduction_ratio(f, f_there, predicted, EPS)
        length = float(np.linalg.norm(y))
        if ratio < 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.9 * radius:
            radius *= 2.0
        fresh = ratio > 1e-4
        if fresh:
            theta, f, g = there, f_there, g_there
        if stop() or np.linalg.norm(g) <= REST or length <= 1e-15 * np.linalg.norm(theta):
            break
    return theta


def _newton(ob: Any, theta: np.ndarray, slopes: list[np.ndarray]) -> KinkPoint | None:
    """Newton in (theta, slopes) from an estimate, the active set updated in between."""
    leaks = ob.leaks()
    gates, starts = [], []
    collapsed = []
    for s, leak in zip(slopes, leaks):
        between = (s > leak + BETWEEN) & (s < 1 - BETWEEN)
        gone = between.all(axis=0)
        gate = np.where(between & ~gone, np.nan, np.where(s > 0.5 * (1 + leak), 1.0, leak))
        gate[:, gone] = leak
        gates.append(gate)
        collapsed.append(gone)
        starts.append(s[np.isnan(gate)])
    point = np.concatenate([theta, *starts])
    for _ in range(UPDATES):
        phi = ob.held(gates, collapsed)
        solved = _solve(phi, point)
        if solved is None:
            return None
        changed = _update(phi, gates, solved, leaks)
        if changed is None:
            n = phi.n_theta
            return KinkPoint(solved[:n], solved[n:], prove_held(phi, solved))
        gates, point = changed
    return None


def _solve(phi: Any, point: np.ndarray) -> np.ndarray | None:
    """Newton's method on the gradient of Phi; None where it does not come to rest."""
    for _ in range(NEWTON):
        g = phi.precise_gradient(point)[0]
        try:
            step = np.linalg.solve(phi.hessian(point), -g)
        except np.linalg.LinAlgError:
            return None
        size, length = float(np.linalg.norm(step)), float(np.linalg.norm(point))
        if not size <= 10 * max(1.0, length):
            return None
        point = point + step
        if size <= 1e-14 * length:
            break
    return point if size <= 1e-9 * max(1.0, length) else None


def _update(
    phi: Any, gates: list[np.ndarray], point: np.ndarray, leaks: list[float]
) -> tuple[list[np.ndarray], np.ndarray] | None:
    """The next active set and start: slopes outside leave, signs that have changed enter; None
    where nothing changes.
    """
    zs = phi.passes(point)[2]
    theta, slopes = point[: phi.n_theta], point[phi.n_theta :]
    found, starts, at, changed = [], [], 0, False
    for gate, leak, z, gone in zip(gates, leaks, zs, phi.collapsed):
        active = np.isnan(gate)
        s = np.full(gate.shape, np.nan)
        s[active] = slopes[at : at + int(active.sum())]
        at += int(active.sum())
        above, beneath = active & (s >= 1), active & (s <= leak)
        crossed = ~active & ~gone & ((z > 0) != (gate > 0.5 * (1 + leak)))
        changed |= bool(above.any() or beneath.any() or crossed.any())
        new = np.where(above, 1.0, np.where(beneath, leak, np.where(crossed, np.nan, gate)))
        found.append(new)
        starts.append(np.where(crossed, 0.5 * (1 + leak), s)[np.isnan(new)])
    return (found, np.concatenate([theta, *starts])) if changed else None
