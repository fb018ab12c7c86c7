"""The small problems of Newton-type steps, in the eigenvectors of a projected Hessian: trust
regions, cubic regularisation, shifts and absolute values.

Each takes the eigenvalues of T and the gradient in its eigenvectors, and gives y in that basis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .basis import length

LONGEST = 1e150  # of a step: its square is a number


def _secular(base: np.ndarray, linear: np.ndarray, mu: float, high: float, wanted: Any) -> float:
    """The root of ``1/||y(mu)|| - 1/wanted(mu)`` in (0, high], y(mu) = -linear/(base + mu), base >=
    0.

    The left side rises with mu; Newton's iteration with the bracket as its safeguard.
    """
    low, shrink = 0.0, 0.5
    high = float(np.nextafter(high, np.inf))
    for _ in range(200):
        if not low < mu < high:  # a root may lie orders of magnitude below the bracket's end
            mu = float(np.sqrt(low) * np.sqrt(high)) if low > 0 else max(high * shrink, 5e-324)
            shrink = shrink**2 if low == 0 else shrink
        y = linear / (base + mu)
        size = length(y)
        target, slope = wanted(mu)
        if not (size > 0 and target > 0):  # one of them is below the least number
            low, high = (low, mu) if size <= target else (mu, high)
            continue
        gap = 1.0 / size - 1.0 / target
        if gap < 0:
            low = mu
        else:
            high = mu
        if abs(gap) * target <= 1e-14 or high - low <= 1e-15 * high:
            break
        u = y / size  # lengths far from 1 have squares and cubes that no float holds
        rise = float(np.sum(u * u / (base + mu))) / size + slope / target / target
        mu -= gap / rise if rise > 0 else 0.0
    return mu


def _edge(values: np.ndarray, linear: np.ndarray) -> tuple[float, np.ndarray, float, Any]:
    """The least admissible multiplier, the curvatures it leaves, and the length it allows at most.

    Where g has a part along the lowest eigenvector the length has no bound; where it has none, the
    hard case, the multiplier stays at its edge for every longer step.
    """
    edge = max(0.0, -float(values[0]))
    base = values + edge
    if values[0] < 0:
        base[0] = 0.0
    bare = base <= 0.0
    if np.any(np.abs(linear[bare]) > 1e-30 * length(linear)):
        return edge, base, np.inf, None
    y = np.where(bare, 0.0, -linear / np.where(bare, 1.0, base))
    return edge, base, length(y), y


def _leg(hypotenuse: float, other: Any) -> float:
    """``sqrt(hypotenuse^2 - other^2)`` without squares that overflow."""
    return float(np.sqrt(hypotenuse - other) * np.sqrt(hypotenuse + other))


def shifted(values: np.ndarray, linear: np.ndarray, shift: float) -> np.ndarray:
    """``-(T + shift)^+ linear``: directions whose curvature is within rounding of 0 are left
    alone.
    """
    denominators = values + shift
    floor = len(values) * np.finfo(float).eps * np.max(np.abs(denominators), initial=0.0)
    safe = np.abs(denominators) > floor
    return np.where(safe, -linear / np.where(safe, denominators, 1.0), 0.0)


def damped_inverse(values: np.ndarray, damping: float, floor: float) -> np.ndarray:
    """``values / (values^2 + damping^2)``, 0 for values of size `floor` and less."""
    sure = np.abs(values) > floor
    safe = np.where(sure, values, 1.0)
    # no squares, which may leave the range
    return np.asarray(sure / (safe + damping * (damping / safe)))


def absolute(values: np.ndarray, linear: np.ndarray, damping: float) -> np.ndarray:
    """``-(|T| + damping)^-1 linear``: Newton lengths, but downhill along every eigenvector."""
    return shifted(np.abs(values), linear, damping)


def trust_region(values: np.ndarray, linear: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Minimise ``linear'y + y' diag(values) y / 2`` over ``||y|| <= radius``, the hard case
    included.

    Returns y and the multiplier lam >= 0: ``(values + lam) y = -linear`` with ``values + lam >=
    0``. In the hard case the lowest eigenvector is added until the boundary is reached.
    """
    edge, base, longest, y = _edge(values, linear)
    if longest <= radius:
        if edge > 0:
            y[0] = _leg(radius, longest)
        return y, edge
    size = length(linear)
    high = size / radius if size < 1e300 * radius else np.inf
    if high == np.inf:  # so short that curvature is nothing to it
        return -linear * (radius / size), high
    mu = _secular(base, linear, 0.5 * high, high, lambda _: (radius, 0.0))
    return -linear / (base + mu), edge + mu


def cubic(values: np.ndarray, linear: np.ndarray, weight: float) -> tuple[np.ndarray, float]:
    """Minimise ``linear'y + y' diag(values) y / 2 + weight ||y||^3 / 3``.

    Returns y and the multiplier ``lam = weight ||y||``; the hard case as in `trust_region`.
    """
    edge, base, longest, y = _edge(values, linear)
    if longest <= edge / weight:
        if edge > 0:
            y[0] = _leg(edge / weight, longest)
        return y, edge
    high = float(np.sqrt(weight * length(linear)))
    mu = _secular(base, linear, 0.5 * high, high, lambda mu: ((edge + mu) / weight, 1.0 / weight))
    return -linear / (base + mu), edge + mu
