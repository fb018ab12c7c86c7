"""Whether theta stands for a critical point: one rule for `classify`, `minimize` and
`find_critical_point`.

Newton's model of the loss around theta ends ``g'|H|^-1 g / 2`` away from the loss here: half the
squared Newton decrement. theta is near a critical point where that is at most ``1e-8 (f - c)``, c a
bound that the loss is nowhere below, or lost in the rounding of f. No rescaling of parameters,
inputs or loss changes the rule: the decrement of a definite H is the same in all coordinates, and
that of any other is taken where the rows of H are balanced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..protocols import BoundedBelow, BoundsGradient, Precise, Valued
from ..vectors import safe_norm
from .evidence import gradient_at, gradient_bound
from .knowledge import as_gradient, value_at
from .theorem import Slice

SHARE = 1e-8  # of the loss above its bound: what Newton's step may still promise
VALUE_EPS = 64.0  # f is taken to be off by this many eps |f| ...
STORED_EPS = 8.0  # ... and by what moving every parameter by this many eps of its size does
EPS = float(np.finfo(float).eps)
TINY = float(np.finfo(float).tiny)
ROUGH = 1e-6  # of a gradient: float64 may tell more of it
GRADIENT_EPS = 64.0  # a gradient without a bound is taken to be off by this many eps |H| |theta|


@dataclass(frozen=True)
class Nearness:
    """Whether theta is near a critical point, and by which numbers.

    Attributes
    ----------
    near : bool
    decrement : float
        ``g'|H|^-1 g / 2``, the change of the loss that Newton's step promises; what the rounding of
        g alone explains is not counted.
    threshold : float
        What it is held against.
    gradient_norm : float
    gradient_tol : float
        The norm at which this g would fail; the caller's where one was given, and then that alone
        decides.
    strict : bool
        Whether theta is near also by the rounding of float64, where the objective's own precision
        is less: what is certified needs it.
    """

    near: bool
    decrement: float
    threshold: float
    gradient_norm: float
    gradient_tol: float
    strict: bool = True


def nearness(
    ob: Any,
    theta: np.ndarray,
    matrix: np.ndarray,
    eigen: Slice,
    gradient: tuple[np.ndarray, float],
    gradient_tol: float | None = None,
) -> Nearness:
    """The rule of this module for a Hessian that has been written down.

    Parameters
    ----------
    ob : object
        ``value`` and ``loss_lower_bound`` are used where offered.
    theta : ndarray, shape (n,)
    matrix : ndarray, shape (n, n)
        The Hessian.
    eigen : Slice
        Its eigenpairs, in balanced units where signs are sharper there.
    gradient : (ndarray, float)
        g and a bound on its error, as `gradient_and_error` returns them.
    gradient_tol : float, optional
        Replaces the rule: near is ``||g|| <= gradient_tol``.
    """
    g, off = gradient
    if gradient_tol is not None:
        return held(safe_norm(g), 0.0, 0.0, gradient_tol)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        reach = np.abs(matrix) @ np.abs(theta)
        decrement = newton_decrement(g, off, reach, eigen)
        size = float(np.abs(theta) @ reach)
        whole = newton_decrement(g, 0.0, reach, eigen)
        return nearness_by(ob, theta, safe_norm(g), decrement, size, whole=whole)


def nearness_by(
    ob: Any,
    theta: np.ndarray,
    gradient_norm: float,
    decrement: float,
    reach: float,
    gradient_tol: float | None = None,
    *,
    whole: float | None = None,
) -> Nearness:
    """The rule for a decrement that is known; `reach` is ``|theta|' |H| |theta|``, or as much,
    `whole` the decrement with what the rounding of g may explain.
    """
    f = value_at(ob, theta) if isinstance(ob, Valued) else 0.0
    eps = float(np.finfo(getattr(ob, "dtype", None) or np.float64).eps)
    threshold = value_threshold(f, lower_bound(ob), reach, eps)
    found = held(gradient_norm, decrement, threshold, gradient_tol, whole)
    if gradient_tol is not None or not found.near:
        return found
    return replace(found, strict=decrement <= value_threshold(f, lower_bound(ob), reach, EPS))


def held(
    gradient_norm: float,
    decrement: float,
    threshold: float,
    gradient_tol: float | None,
    whole: float | None = None,
) -> Nearness:
    """`Nearness` from its numbers; a bound that is infinite or NaN is no tolerance. The norm at
    which g would fail follows from all of g, `whole`, not from what is left of it beyond rounding.
    """
    if gradient_tol is not None:
        near = gradient_norm <= gradient_tol < np.inf
        return Nearness(near, decrement, threshold, gradient_norm, float(gradient_tol))
    known = 0 <= threshold < np.inf
    threshold = threshold if known else 0.0
    near = bool(known and decrement <= threshold)
    whole = decrement if whole is None or not near else max(whole, decrement)
    share = threshold / whole if 0 < whole < np.inf else np.nan
    share = max(share, 1.0) if near else share
    tol = gradient_norm * share**0.5 if share >= 0 else (gradient_norm if near else 0.0)
    return Nearness(near, decrement, threshold, gradient_norm, float(tol))


def gradient_and_error(ob: Any, theta: np.ndarray) -> tuple[np.ndarray, float]:
    """The best gradient there is and a bound on the norm of its error; NaN where nothing bounds
    it.
    """
    fine: tuple[np.ndarray, float] | None = None
    if isinstance(ob, Precise):
        g, error = ob.precise_gradient(theta)
        if np.isfinite(error) and np.isfinite(g).all():
            fine = np.array(g, dtype=float), float(error) + _rounded(g)
            if error <= ROUGH * safe_norm(g) or not isinstance(ob, BoundsGradient):
                return fine
    g = as_gradient(ob.gradient(theta), theta.size)
    error = float(ob.rounding_bound(theta)) if isinstance(ob, BoundsGradient) else np.nan
    # numbers of very different sizes in one row leave sums in more bits the rougher ones
    return fine if fine is not None and not error < fine[1] else (g, error)


def best_gradient(ob: Any, theta: np.ndarray, H: Any) -> tuple[np.ndarray, float]:
    """`gradient_and_error`, from the operator in float64 where the objective is a float32 one and
    offers no more.
    """
    if isinstance(ob, Precise):
        g, error = gradient_and_error(ob, theta)
    else:
        g, bound = gradient_at(ob, theta, H), gradient_bound(ob, theta, H)
        error = np.nan if bound is None else bound
    if not np.isfinite(g).all():
        raise ValueError(
            "the gradient at theta holds NaN or infinity; wanted a theta where the loss is finite"
        )
    return g, error


def assumed_error(norm: float, theta: np.ndarray) -> float:
    """What a gradient without a bound is taken to be off by, where ``||H||`` is `norm`."""
    return GRADIENT_EPS * EPS * norm * safe_norm(theta)


def _rounded(g: np.ndarray) -> float:
    """What storing a gradient in float64 adds to its error."""
    return float(np.finfo(float).eps) * safe_norm(g)


def newton_decrement(g: np.ndarray, off: float, reach: np.ndarray, eigen: Slice) -> float:
    """``g'|H|^-1 g / 2`` for the g that rounding leaves: an eigenvalue within its error counts as
    large as that, and of a slope what the error of g may be is taken off.

    Parameters
    ----------
    g : ndarray, shape (n,)
    off : float
        Bound on the norm of its error; NaN: ``64 eps |H| |theta|`` is taken for each parameter.
    reach : ndarray, shape (n,)
        ``|H| |theta|`` by entries.
    eigen : Slice
    """
    sizes = np.maximum(np.abs(eigen.values), eigen.error)
    noise, slack = rounding_of(len(g), off, reach, eigen)
    slopes = np.abs(eigen.vectors.T @ (eigen.c * g))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = 0.5 * float(_squares_over(slopes - slack, sizes).sum())
        alone = _squares_over(np.abs(g) - noise, _diagonal(eigen, sizes))
        total = max(total, 0.5 * float(alone.max(initial=0.0)))
    return total if total == total else np.inf


def rounding_of(
    n: int, off: float, reach: np.ndarray, eigen: Slice
) -> tuple[np.ndarray, np.ndarray]:
    """What the error of g may be for each parameter (n,), and for the slopes of `eigen`; as in
    `newton_decrement`.
    """
    if np.isnan(off):
        noise = GRADIENT_EPS * np.finfo(float).eps * reach
        return noise, np.abs(eigen.vectors).T @ (eigen.c * noise)
    noise = np.full(n, off if off < np.inf else 0.0)
    return noise, noise.max(initial=0.0) * np.sqrt((eigen.vectors**2).T @ eigen.c**2)


def _squares_over(slopes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """``slopes^2 / sizes``, 0 where a slope is not above 0."""
    return np.where(slopes > 0, slopes / sizes * slopes, 0.0)


def _diagonal(eigen: Slice, sizes: np.ndarray) -> np.ndarray:
    """That of ``|H|`` in theta's own units, or more: as eigenvalues of size `sizes` have it, and
    the largest of them across the slice.

    One parameter alone promises ``g_i^2 / |H|_ii``, which is no more than ``g'|H|^-1 g`` (Cauchy
    and Schwarz) in any units, and is told from rounding by the error of its own slope.
    """
    shares = eigen.vectors**2
    across = np.maximum(0.0, 1 - shares.sum(axis=1)) * sizes.max(initial=0.0)
    return np.asarray((shares @ sizes + across) / eigen.c / eigen.c)


def value_threshold(f: float, c: float, reach: float, eps: float = EPS) -> float:
    """``max(1e-8 (f - c), rounding of f)``; `reach` is ``|theta|' |H| |theta|``, or as much; NaN
    where the value is not finite. No change of the value below what a number can hold counts.
    """
    if not np.isfinite(f):
        return np.nan
    stored = 0.5 * (STORED_EPS * eps) ** 2 * reach
    rounding = VALUE_EPS * eps * abs(f) + (stored if stored < np.inf else 0.0)
    share = SHARE * (f - c)
    best = max(share if share < np.inf else 0.0, rounding, TINY)
    return best if best < np.inf else 0.0


def value_rounding(f: float, dtype: Any) -> float:
    """What rounding may do to a value: a decrease by less is none."""
    return VALUE_EPS * float(np.finfo(dtype).eps) * abs(f)


def lower_bound(ob: Any) -> float:
    """A number that the value is nowhere below, -inf where none is known."""
    if not isinstance(ob, BoundedBelow):
        return -np.inf
    c = ob.loss_lower_bound
    return float(c() if callable(c) else c)
