"""Ritz values and vectors of a recurrence: computations on its small matrix T, without vectors of
length n.
"""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ..common.checks import check_choice, check_positive_int
from ..common.linalg import eigh, eigh_tridiagonal
from ..common.protocols import Floats, Indices, Which
from .lanczos import Basis, Recurrence, column_lengths

SMALL = 48  # up to this size a full decomposition costs no more than a partial one


def check_wanted(k: Any, which: Any, n: int) -> int:
    """Return `k` as an int from 1 to n, after checking that `which` names ends of a spectrum."""
    check_choice(which, get_args(Which), "which")
    if check_positive_int(k, "k") > n:
        raise ValueError(f"k is {k} and the operator has n = {n}; wanted k <= n")
    return int(k)


def wanted(theta: Floats, k: int, which: str) -> Indices:
    """Return the indices of the k wanted among ascending `theta`, ascending."""
    m = len(theta)
    if k >= m:
        return np.arange(m)
    if which == "LA":
        return np.arange(m - k, m)
    if which == "SA":
        return np.arange(k)
    if which == "BE":
        return np.concatenate([np.arange(k // 2), np.arange(m - (k - k // 2), m)])
    return np.sort(np.argsort(np.abs(theta), kind="stable")[m - k :])


def sides(theta: Floats, k: int, which: str) -> list[Floats]:
    """Return, for each end of the spectrum, the distances of its wanted values among ``theta (k,)``
    from the innermost of them, in the order of theta.
    """
    if which == "LA":
        return [theta - theta.min()]
    if which == "SA":
        return [theta.max() - theta]
    if which == "BE":
        low, high = theta[: k // 2], theta[k // 2 :]
        return [
            side
            for side in (low.max(initial=-np.inf) - low, high - high.min(initial=np.inf))
            if len(side)
        ]
    return [np.abs(theta) - np.abs(theta).min()]


def outside(
    theta: Floats, k: int, which: str, limits: Floats, rounding: float
) -> tuple[Floats, NDArray[np.bool_], float]:
    """Return the distances ``(k,)`` of the wanted values from the innermost value of their end; a
    mask of those that are more than twice the error bound of that innermost value, its entry of
    ``limits (k,)``; and the largest distance of the others, 0 if that is within `rounding`.
    """
    distances = sides(theta, k, which)
    cuts = np.split(limits, np.cumsum([len(side) for side in distances])[:-1])
    far = np.concatenate([d > 2 * own[d.argmin()] for d, own in zip(distances, cuts)])
    distance = np.concatenate(distances)
    near = float(distance[~far].max(initial=0.0))
    return distance, far, near if near > rounding else 0.0


def decompose(run: Basis) -> tuple[Floats, Floats]:
    """Return all Ritz values ``(m,)`` of a basis and their coordinates ``S (m, m)``."""
    T = run.T[: run.m, : run.m]
    if run.tridiagonal and run.m > 1:
        return eigh_tridiagonal(np.diag(T), np.diag(T, 1))
    return eigh(T)[:2]


def ritz_pairs(run: Recurrence, k: int, which: str) -> tuple[Floats, Floats, Floats]:
    """Return the k wanted Ritz values of a recurrence, their coordinates, and the norms of their
    known residuals.

    Returns
    -------
    theta : ndarray, shape (k,), or fewer where the basis is smaller
    S : ndarray, shape (m, k)
    residuals : ndarray, shape (k,)
        Norms of the columns of ``B S``, the part along the next block; `bounds` adds rounding and
        dropped parts.
    """
    if run.tridiagonal and run.m > max(SMALL, 4 * k):
        theta, S, largest = _ends(run.T, run.m, k, which)
    else:
        theta, S = decompose(run)
        largest = float(np.abs(theta).max(initial=0.0))
    run.scale = max(run.scale, largest)
    keep = wanted(theta, k, which)
    theta, S = theta[keep], S[:, keep]
    residuals = column_lengths(run.coupling() @ S) if run.p else np.zeros(len(theta))
    return theta, S, residuals


def _ends(T: Floats, m: int, k: int, which: str) -> tuple[Floats, Floats, float]:
    """Return the eigenpairs of a tridiagonal matrix that can be among the k wanted ones, and the
    largest absolute eigenvalue. At an end where nothing is wanted only the eigenvalue is computed.
    """
    low, high = {"LA": (0, k), "SA": (k, 0), "BE": (k // 2, k - k // 2)}.get(which, (k, k))
    diagonal, beside = np.diag(T)[:m], np.diag(T, 1)[: m - 1]
    parts = [
        eigh_tridiagonal(diagonal, beside, (first, first + count - 1))
        for first, count in ((0, low), (m - high, high))
        if count
    ]
    theta, S = np.concatenate([p[0] for p in parts]), np.hstack([p[1] for p in parts])
    seen = [theta[0], theta[-1]]
    if not (low and high):
        seen.append(_value(diagonal, beside, 0 if high else m - 1))
    return theta, S, float(np.abs(seen).max())


def _value(diagonal: Floats, beside: Floats, index: int) -> float:
    """Return one eigenvalue of a tridiagonal matrix, by bisection, at a third of the cost of its
    pair.
    """
    exponent = int(np.frexp(max(np.abs(diagonal).max(), np.abs(beside).max()))[1])
    near_one = np.ldexp(diagonal, -exponent), np.ldexp(beside, -exponent)
    part: dict[str, Any] = {"select": "i", "select_range": (index, index)}
    try:
        found = linalg.eigvalsh_tridiagonal(*near_one, lapack_driver="stebz", **part)
    except np.linalg.LinAlgError:
        return float(eigh_tridiagonal(diagonal, beside, (index, index))[0][0])
    return float(np.ldexp(found[0], exponent))


def bounds(run: Recurrence, S: Floats, residuals: Floats) -> Floats:
    """Return upper bounds on the true residuals: the known ones, the part along deflated vectors,
    and err.
    """
    leak = column_lengths(run.leak[:, : run.m] @ S)
    return np.asarray(np.hypot(residuals, leak) + np.abs(S).T @ run.err[: run.m])


def kept_at_restart(theta: Floats, k: int, which: str, room: int) -> Indices:
    """Return the indices of the Ritz vectors that a thick restart keeps: the wanted ones and their
    neighbours, at most `room`.
    """
    l = min(k + (len(theta) - k) * 2 // 5, room)
    return wanted(theta, max(l, min(k, room)), which)
