"""What an objective proves about itself, with the honest answer for one that does not say.

Infinity means "not known" wherever a bound is asked for, and so does NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..answers import typed
from ..protocols import (
    Castable,
    Floored,
    Kinked,
    Orbits,
    OrbitsInUnits,
    Probed,
    RunsAway,
    Saturating,
    SaysWhy,
    SumOfSquares,
    Symmetric,
    ThirdBound,
    ThirdBoundInUnits,
)


@dataclass(frozen=True, eq=False)
class Tangents:
    """Tangents ``(n, k)`` of the orbits of proved symmetry groups at theta: ``change`` bounds how
    fast they turn as theta moves, ``error`` what they are off by.
    """

    columns: np.ndarray
    change: float
    error: float


def as_stored(ob: Any, theta: np.ndarray) -> np.ndarray:
    """`theta`, float64, where an objective in float32 really is."""
    if getattr(ob, "dtype", None) == np.float32:
        return theta.astype(np.float32).astype(np.float64)
    return theta


def in_float64(ob: Any) -> Any:
    """The objective in float64, where it is in float32 and can be."""
    if getattr(ob, "dtype", None) == np.float32 and isinstance(ob, Castable):
        return ob.astype(np.float64)
    return ob


def third_bound(ob: Any, theta: np.ndarray, radius: float) -> float:
    """A Lipschitz constant of H on the ball; infinity where none is known."""
    if not isinstance(ob, ThirdBound):
        return np.inf
    L = float(ob.third_bound(theta, radius))
    return L if 0 <= L < np.inf else np.inf


def is_bounded(ob: Any, theta: np.ndarray, tried: Any) -> bool:
    """Whether the third derivative has a bound at theta; `tried`: a `Contraction` that may show
    it.
    """
    return tried is not None and tried.third < np.inf or third_bound(ob, theta, 0.0) < np.inf


def third_bound_in(ob: Any, theta: np.ndarray, radius: float, units: np.ndarray) -> float:
    """A Lipschitz constant of ``C H C`` by x where ``||x|| <= radius`` in ``theta + C x``."""
    if isinstance(ob, ThirdBoundInUnits):
        L = float(ob.third_bound_in(theta, radius, units))
        return L if 0 <= L < np.inf else np.inf
    top = float(units.max())
    return top**3 * third_bound(ob, theta, top * radius)


def tangents(ob: Any, theta: np.ndarray, radius: float = 0.0) -> Tangents:
    """Those of the symmetries that are proved on the ball."""
    n = theta.size
    if isinstance(ob, Orbits):
        held = ob.orbits(theta, radius)
        if not held:
            return Tangents(np.zeros((n, 0)), 0.0, 0.0)
        return Tangents(
            np.hstack([np.asarray(o.tangents, dtype=float) for o in held]),
            float(np.linalg.norm([o.change for o in held])),
            float(np.linalg.norm([o.error for o in held])),
        )
    if isinstance(ob, Symmetric):
        return Tangents(np.asarray(ob.flat_directions(theta), dtype=float), np.inf, np.inf)
    return Tangents(np.zeros((n, 0)), 0.0, 0.0)


def orbit_spread(ob: Any, units: np.ndarray) -> float:
    """By what tangents may turn faster in these units."""
    if isinstance(ob, OrbitsInUnits):
        return float(ob.orbit_spread(units))
    return float(units.max() / units.min())


def offers_symmetries(ob: Any) -> bool:
    """Whether the objective says anything about its symmetries."""
    return isinstance(ob, (Orbits, Symmetric))


class left_alone:
    """ValueError where theta is changed within: by an objective that writes into what it is given,
    so that nothing it says is of the point that was meant. One that says it `keeps_theta` is not
    watched: two copies of a long theta take as long as its gradient over a few rows.
    """

    __slots__ = ("before", "theta")

    def __init__(self, ob: Any, theta: np.ndarray) -> None:
        self.theta = theta
        self.before = None if getattr(ob, "keeps_theta", False) else theta.tobytes()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.before is None or not (error is None or isinstance(error, Exception)):
            return
        if self.theta.tobytes() != self.before:
            raise ValueError(
                "the objective writes into the theta it is given; wanted one that works on a copy "
                "of it, theta.copy()"
            ) from error


def as_number(value: Any) -> float:
    """What an objective gives as its value, a number or an array of one, as a float."""
    if isinstance(value, (float, int)):
        return float(value)
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise TypeError(
            f"the objective's value is an array of shape {found.shape} and dtype {found.dtype}; "
            "wanted a number"
        )
    return float(found.reshape(()))


def as_gradient(g: Any, n: int, dtype: Any = float) -> np.ndarray:
    """What an objective gives as its gradient, which may be a buffer of its own, as a new vector
    of n numbers.
    """
    shape = np.shape(g)
    if shape != (n,) and not (n == 1 and np.size(g) == 1):
        raise ValueError(f"the objective's gradient has shape {shape}; wanted ({n},)")
    return np.array(g, dtype=dtype).reshape(n)


def as_curvature(H: Any, n: int, name: str = "hessian") -> Any:
    """What an objective gives as its Hessian or GGN, an operator or matrix ``(n, n)``."""
    if not any(hasattr(H, part) for part in ("product", "matvec", "__matmul__")):
        raise TypeError(
            f"the objective's {name} is {typed(H)}; wanted a symmetric matrix, numpy.array(...), "
            f"or LinearOperator of shape ({n}, {n})"
        )
    shape = getattr(H, "shape", (n, n))
    if tuple(shape) != (n, n):
        raise ValueError(f"the objective's {name} has shape {tuple(shape)}; wanted ({n}, {n})")
    return H


def value_at(ob: Any, theta: np.ndarray) -> float:
    """The objective's value there."""
    with left_alone(ob, theta):
        return as_number(ob.value(theta))


def kinks(ob: Any, theta: np.ndarray) -> int:
    """Pre-activations within rounding of a kink."""
    return int(ob.kinks(theta)) if isinstance(ob, Kinked) else 0


def curvature_floor(ob: Any, theta: np.ndarray) -> float:
    """A number that no eigenvalue at theta is below, -inf where none is known."""
    if not isinstance(ob, Floored) or not np.max(getattr(ob, "l2", 1)) > 0:
        return -np.inf
    floor = float(ob.curvature_floor(theta))
    return floor if floor == floor and floor < np.inf else -np.inf


def runs_to_infinity(ob: Any, theta: np.ndarray) -> bool:
    """Whether the loss is proved to fall for ever from here, to an infimum that is not attained."""
    return isinstance(ob, RunsAway) and ob.ray_to_infimum(theta) is not None


def why_no_minimum(ob: Any, theta: np.ndarray) -> str:
    """Why, as part of a sentence."""
    words = ob.why_no_minimum(theta) if isinstance(ob, SaysWhy) else None
    return words or "a direction is proved in which the loss falls for ever"


def residual_bounds(ob: Any, theta: np.ndarray, radius: float) -> Any:
    """What is known of the residuals of a sum of squares, or None."""
    return ob.residual_bounds(theta, radius) if isinstance(ob, SumOfSquares) else None


def probes(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Vectors that reach curvature which the gradient cannot see."""
    return np.asarray(ob.probes(theta)) if isinstance(ob, Probed) else np.zeros((theta.size, 0))


def saturation(ob: Any, theta: np.ndarray) -> Any:
    """How saturated the units are, or None."""
    return ob.saturation(theta) if isinstance(ob, Saturating) else None
