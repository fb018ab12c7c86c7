"""A point on kinks near theta: Newton in (theta, slopes), the active set updated in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..memo import last_kept
from ..protocols import OnKinks
from .held import HeldMinimum, prove_held

LARGEST = 600  # parameters: dense matrices at every step
DEAREST = 5e7  # numbers in the passes of one Hessian: a second
UPDATES = 12  # of the active set
NEWTON = 12
EPS = float(np.finfo(np.float64).eps)
NOTHING = 1e-100  # of a pre-activation beside a theta that is all but 0
IDLE = 1e-13  # of a pre-activation without an effect: on no side
NEAR = 1e-7  # of a layer's pre-activations: taken for 0
BETWEEN = 1e-3  # a slope nearer to a side's has left the kink
AT = 1e-7  # of ||theta||: a held point this near is what a verdict on theta speaks of


@dataclass(frozen=True)
class KinkPoint:
    """theta on kinks, the slopes there, and what is proved of it."""

    theta: np.ndarray
    slopes: np.ndarray
    verdict: HeldMinimum


def can_be_held(ob: Any) -> bool:
    """Whether an objective has kinks that can be rounded off, and is small enough for the proof."""
    first = ob.smoothed(1.0) if isinstance(ob, OnKinks) else None
    return first is not None and first.n_params <= LARGEST and 0 < first.cost <= DEAREST


def held_at(ob: Any, theta: np.ndarray) -> HeldMinimum | None:
    """The proof that a minimum on kinks lies where theta is, its radius around theta; None where
    there is no proof.
    """
    if getattr(ob, "dtype", np.float64) != np.float64 or not can_be_held(ob):
        return None
    found = beside(ob, theta)
    if found is None or not found.verdict.certified:
        return None
    far = float(np.linalg.norm(found.theta - theta)) * (1 + 4 * EPS)
    if not far <= AT * max(1.0, float(np.linalg.norm(theta))):
        return None
    return replace(found.verdict, radius=found.verdict.radius + far)


@last_kept
def _beside(ob: Any, theta: np.ndarray) -> KinkPoint | None:
    return newton_on_kinks(ob, theta, slopes_near(ob, theta))


def beside(ob: Any, theta: np.ndarray) -> KinkPoint | None:
    """Where `newton_on_kinks` leads from theta and `slopes_near` it; the one found last serves
    again: a verdict and the search after it ask the same.
    """
    found = _beside(ob, theta)
    return found and replace(found, theta=found.theta.copy(), slopes=found.slopes.copy())


def slopes_near(ob: Any, theta: np.ndarray) -> list[np.ndarray]:
    """Slopes at theta, half way between the sides' where a pre-activation is nearly 0."""
    zs = ob.model.preactivations(theta, ob.smoothed(1.0).rows.X)[:-1]
    size = max(1e-3 * float(np.abs(theta).max()), NOTHING)
    found = []
    for z, leak in zip(zs, ob.leaks()):
        near = np.abs(z) <= NEAR * max(float(np.abs(z).max()), size)
        found.append(np.where(near, 0.5 * (1 + leak), np.where(z > 0, 1.0, leak)))
    return found


def newton_on_kinks(ob: Any, theta: np.ndarray, slopes: list[np.ndarray]) -> KinkPoint | None:
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
        at_kinks = [s[phi.rows.first][:, k] for s, k in zip(slopes, phi.copies.keep)]
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
