"""Trial moves along null vectors of the Hessian, for descent that no second derivative shows.

Where the curvature vanishes, higher derivatives determine whether the loss decreases, possibly
along many directions: from zero weights the loss of a deep network decreases with the product of
all layers, at a monkey saddle along three of six directions. Random moves in the flat space, at
several lengths and with both signs, find descent of odd order with probability 1; a few steps of
the minimiser from displaced points find valleys that bend away from that space.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..common.linalg import eigh
from ..common.objectives import budgeted_hessian, certificate_start_vectors, value_rounding_error
from ..common.protocols import TwiceDifferentiable
from ..common.vectors import norm
from ..spectrum.dense import counted_matrix
from .line_search import Value, line_minimum

# A direction counts as flat if its curvature is below this fraction of the largest curvature.
FLAT_CURVATURE_RATIO = 1e-5
# lengths of trial moves, relative to max(1, ||theta||)
TRIAL_LENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
N_RANDOM_DIRECTIONS = 12  # number of random directions tried


def is_value_no_higher(value: Value, there: np.ndarray, here: np.ndarray) -> bool:
    """Return True if ``value(there)`` exceeds ``value(here)`` by at most the rounding error."""
    f = value(here)
    return value(there) <= f + value_rounding_error(f, here.dtype)


LowerPoint = tuple[np.ndarray, float]  # (theta, value)


def flat_directions(
    ob: TwiceDifferentiable, theta: np.ndarray, dense_below: int
) -> tuple[np.ndarray, int]:
    """Return the eigenvectors of H, as columns (n, k), with ``|eigenvalue|`` at most
    `FLAT_CURVATURE_RATIO` times the largest, sorted by ``|eigenvalue|``, and the number of
    products.

    For n >= `dense_below` no eigenvalues are computed. The result then has no columns, and trial
    moves use directions in the full space.
    """
    if theta.size >= dense_below:
        return np.zeros((theta.size, 0)), 0
    H = budgeted_hessian(ob, theta.astype(np.float64))
    values, vectors = eigh(counted_matrix(H).A)[:2]
    size = float(np.abs(values).max(initial=0.0))
    order = np.argsort(np.abs(values))
    return vectors[:, order[np.abs(values[order]) <= FLAT_CURVATURE_RATIO * size]], H.count


def trial_directions(
    ob: TwiceDifferentiable, theta: np.ndarray, flat: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield unit vectors (n,) to try: random ones in the span of the columns of `flat` (of any
    direction if there are no columns), its first columns, and the objective's probe directions.
    """
    n, k = flat.shape
    for _ in range(N_RANDOM_DIRECTIONS):
        v = np.asarray(flat @ rng.standard_normal(k) if k else rng.standard_normal(n))
        yield np.asarray(v / np.linalg.norm(v))
    for j in range(min(k, N_RANDOM_DIRECTIONS)):
        yield flat[:, j]
    for v in np.asarray(certificate_start_vectors(ob, theta), dtype=float).T[:4]:
        if np.any(v):
            yield v / np.linalg.norm(v)


def find_lower_point(
    value: Value, theta: np.ndarray, f: float, direction: np.ndarray, barrier: bool = False
) -> LowerPoint | None:
    """Find a point on the line through theta along `direction` whose value is below f by more than
    rounding, trying the `TRIAL_LENGTHS` on both sides. Return the point and its value, or None if
    there is none.

    With `barrier` the search on a side ends once the value increases there, so that a lower point
    contradicts a minimum at theta.
    """
    kind = theta.dtype.type
    unit = direction.astype(theta.dtype)
    noise = value_rounding_error(f, theta.dtype)
    reach = max(1.0, norm(theta))
    for sign in (1.0, -1.0):
        for length in TRIAL_LENGTHS:
            t = sign * length * reach
            f_there = value(theta + kind(t) * unit)
            if f_there < f - noise:
                t, lowest = line_minimum(value, theta, kind(sign) * unit, f, length * reach)
                best = (t * sign, lowest) if lowest < f_there else (sign * length * reach, f_there)
                return theta + kind(best[0]) * unit, best[1]
            if barrier and f_there > f + noise:
                break
    return None


def appears_unbounded(
    ob: TwiceDifferentiable, value: Value, theta: np.ndarray, f: float, direction: np.ndarray
) -> bool:
    """Return True if along the ray from theta in `direction` the value never increases over 40
    doublings of the length, decreases over each of the first four, and the gradient norm never
    grows. This is a measurement, not a proof.
    """
    size = norm(direction)
    if not 0 < size < np.inf:
        return False
    v = (direction / size).astype(theta.dtype)
    t = 0.1 * max(1.0, norm(theta))
    before = f
    slope = norm(ob.gradient(theta))
    for i in range(40):
        point = theta + theta.dtype.type(t) * v
        here = value(point)
        if not here <= before or (i < 4 and not here < before):
            return False
        g = norm(ob.gradient(point))
        if not g <= slope:
            return False
        t = 2 * t
        before = here
        slope = g
    return True
