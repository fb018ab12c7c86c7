"""The minimum that holds a stalled run on kinks: where it is, and which kinks hold it.

Minima of relu nets with l2 lie on kinks, where no gradient is small and no second-order step of the
loss ends. So the kinks are rounded off over a width that shrinks; at each width's minimum the
slopes in between tell which kinks are active. Then Newton in (theta, slopes), kinks entering and
leaving the active set as signs and slopes ask, and the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..critical.held import HeldMinimum, prove_held
from ..eigensolver import eigh
from ..krylov.subproblems import trust_region
from ..protocols import OnKinks
from .line_search import value_rounding
from .run import reduction_ratio

LARGEST = 600  # parameters: all eigenpairs at every step
DEAREST = 5e7  # numbers in the passes of one Hessian: a second
WIDTHS = [0.03 * 0.25**i for i in range(9)]
STEPS = 200  # of descent at each width
UPDATES = 12  # of the active set
NEWTON = 12
REST = 1e-9  # of the gradient
EPS = float(np.finfo(np.float64).eps)
IDLE = 1e-13  # of a pre-activation without an effect: on no side
NEAR = 1e-7  # of a layer's pre-activations: taken for 0 where a run ends
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
    here = np.asarray(theta, dtype=float)
    best = _newton(ob, here, _slopes_near(ob, here))
    if best is not None and not (best.verdict.certified and _no_higher(ob, best.theta, here)):
        best = None
    for i, width in enumerate(WIDTHS):
        if stop() or best is not None and best.verdict.certified:
            break
        smooth = ob.smoothed(width)
        here = _descend(smooth, here, stop)
        if i < 2 or stop():
            continue
        found = _newton(ob, here, smooth.slopes(here))
        if found is not None and (best is None or found.verdict.certified):
            best = found
    return best


def _no_higher(ob: Any, there: np.ndarray, here: np.ndarray) -> bool:
    f = float(ob.value(here))
    return float(ob.value(there)) <= f + value_rounding(f, here.dtype)


def _slopes_near(ob: Any, theta: np.ndarray) -> list[np.ndarray]:
    """Slopes at theta, half way between the sides' where a pre-activation is nearly 0."""
    zs, size = ob.model.preactivations(theta, ob.X)[:-1], 1e-3 * float(np.abs(theta).max())
    found = []
    for z, leak in zip(zs, ob.leaks()):
        near = np.abs(z) <= NEAR * max(float(np.abs(z).max()), size)
        found.append(np.where(near, 0.5 * (1 + leak), np.where(z > 0, 1.0, leak)))
    return found


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
    gates, collapsed = [], []
    for s, leak in zip(slopes, leaks):
        between = (s > leak + BETWEEN) & (s < 1 - BETWEEN)
        gone = between.all(axis=0)
        gate = np.where(between & ~gone, np.nan, np.where(s > 0.5 * (1 + leak), 1.0, leak))
        gates.append(gate)
        collapsed.append(gone)
    for _ in range(UPDATES):
        collapsed = _tidy(ob, gates, collapsed)
        parents = ob.copies(theta, gates, collapsed)
        phi = ob.held(gates, collapsed, parents)
        first = phi.copies.merged(theta)
        at_kinks = [s[:, k] for s, k in zip(slopes, phi.copies.keep)]
        start = [s[active] for s, active in zip(at_kinks, phi.active)]
        solved = _solve(phi, np.concatenate([first, *start]))
        if solved is None:
            return None
        theta = phi.copies.split(solved[: phi.n_theta], theta)
        gates, collapsed = phi.copies.columns(phi.gates), phi.copies.columns(phi.collapsed)
        slopes = phi.copies.columns(phi.by_layer(solved[phi.n_theta :]))
        zs = phi.copies.columns(phi.passes(solved)[2][:-1])
        changed = _update(ob, gates, slopes, zs, collapsed)
        again = ob.copies(theta, gates, collapsed)
        if not changed and all(np.array_equal(p, q) for p, q in zip(again, parents)):
            verdict = prove_held(phi, solved)
            rounding = 16 * EPS * float(np.linalg.norm(theta)) * (phi.n_copies > 0)
            verdict = replace(verdict, radius=verdict.radius + rounding)
            return KinkPoint(theta, solved[phi.n_theta :], verdict)
    return None


def _tidy(ob: Any, gates: list[np.ndarray], collapsed: list[np.ndarray]) -> list[np.ndarray]:
    """Units that have collapsed: those known, and relu units off for all rows, whose weights decay
    to 0. Kinks without an effect get a gate of their own side.
    """
    found, leaks = [], ob.leaks()
    for gate, gone, leak in zip(gates, collapsed, leaks):
        found.append(gone | ((gate == leak).all(axis=0) & (leak == 0)))
        gate[:, found[-1]] = leak
    for gate, leak, felt in zip(gates, leaks, ob.felt(gates)):
        gate[~felt & np.isnan(gate)] = leak
    return found


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
    ob: Any,
    gates: list[np.ndarray],
    slopes: list[np.ndarray],
    zs: list[np.ndarray],
    collapsed: list[np.ndarray],
) -> bool:
    """Let slopes outside leave the active set and changed signs enter; whether any did."""
    changed, leaks = False, ob.leaks()
    for l, felt in enumerate(ob.felt(gates)):
        gate, leak, z, s = gates[l], leaks[l], zs[l], slopes[l]
        active, side = np.isnan(gate), np.where(z > 0, 1.0, leak)
        above, beneath = active & (s >= 1), active & (s <= leak)
        crossed = ~active & ~collapsed[l] & (gate != side)
        enter, idle = crossed & felt, crossed & ~felt & (np.abs(z) > IDLE)
        changed |= bool((above | beneath | enter | idle).any())
        gate[above], gate[beneath], gate[enter], gate[idle] = 1.0, leak, np.nan, side[idle]
        s[enter] = 0.5 * (1 + leak)
    return changed
