"""What is known and proved about an objective whose rows lie in shards: each statement about all
rows from those about the rows of a shard, made where those are.

Bounds add up, counts add up, what must hold for every row must hold in every shard. What would need
all rows in one place is not claimed: `residual_bounds`, `smoothed` and `held` say None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..certify import majorants, precise
from ..certify.certificates import NetworkFacts
from ..certify.majorants import curvature_floor
from ..certify.passes import checked_theta
from ..protocols import Floats
from ..runtime import to_nearest
from ..structure import symmetry
from ..structure.orbits import Orbit, orbits
from ..structure.parameters import l2_diagonal, rows_that_count
from ..structure.tables import LEAK

GROWTH = 1 + 1e-9  # for the rounding of sums of bounds


@dataclass(frozen=True)
class Least:
    """A number of which the least counts."""

    value: float

    def __add__(self, other: Least) -> Least:
        return Least(min(self.value, other.value))


@dataclass(frozen=True)
class Every:
    """Flags that must be set everywhere."""

    flags: list[NDArray[np.bool_]]

    def __add__(self, other: Every) -> Every:
        return Every([a & b for a, b in zip(self.flags, other.flags)])


@dataclass(frozen=True)
class Witnesses:
    """Few rows whose columns are zero, equal and constant just where those of all rows are."""

    X: Floats

    def __add__(self, other: Witnesses) -> Witnesses:
        return witnesses(np.vstack([self.X, other.X]))


def witnesses(X: Floats) -> Witnesses:
    """Some rows of X: the first, one for each column that is not constant, and for each two columns
    that are not equal one in which they differ.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [4.0, 2.0, 0.0]])
    >>> witnesses(X).X
    array([[1., 2., 0.],
           [3., 2., 0.]])
    """
    if not len(X):
        return Witnesses(X)
    gaps = X[0] != X
    rows = {0, *gaps.argmax(axis=0)[gaps.any(axis=0)].tolist()}
    while True:
        W = X[sorted(rows)] + 0.0  # -0 is 0
        _, first, label = np.unique(W.T, axis=0, return_index=True, return_inverse=True)
        gaps = X[:, first[label.reshape(-1)]] != X
        broken = gaps.any(axis=0)
        if not broken.any():
            return Witnesses(W)
        rows.update(gaps.argmax(axis=0)[broken].tolist())


# --- parts
# --------------------------------------------------------------------------------------------------


def lower_part(shard: Any) -> Least:
    return Least(majorants.loss_lower_bound(shard))


def classified_part(shard: Any, theta: Floats) -> tuple[int, int]:
    """(1 unless all rows are classified strictly, 1 if one of them counts)."""
    counts = shard.sample_weight is None or bool(np.any(shard.sample_weight))
    return int(not majorants.classified(shard, theta)), int(counts)


def pulls_part(shard: Any) -> Every:
    """Outputs that no row wants larger, and that none wants smaller."""
    return Every([~pulled for pulled in majorants.pulls(shard)])


def margin_part(shard: Any, theta: Floats) -> Least:
    return Least(majorants.kink_margin(shard, theta))


def signs_part(shard: Any, theta: Floats, radius: float) -> tuple[Every, Every]:
    """(units that are off on the ball, units with no z at a kink at theta), for all rows."""
    here, *ball = majorants.signs(shard, theta, 0.0, *[radius] * (radius > 0))
    return Every((ball or [here])[0].off), Every([~near for near in here.on_kinks])


def witnesses_part(shard: Any) -> Witnesses:
    return witnesses(rows_that_count(shard))


def saturation_part(shard: Any, theta: Floats) -> tuple[Any, Any, Every]:
    counts, certain, dead = symmetry.saturation_counts(shard, theta)
    return counts, certain, Every(dead)


def floor_part(shard: Any, theta: Floats) -> tuple[float, float]:
    """(a number that no eigenvalue of the rows' part is below, its size)."""
    floor = curvature_floor(shard, theta)
    return floor, abs(floor)


# --- the whole
# --------------------------------------------------------------------------------------------------


class ShardedFacts(NetworkFacts):
    """`NetworkFacts` by sums over shards; the class it is mixed into has ``_fold(part,
    arguments)``.
    """

    l2: float
    l2_biases: bool
    _fold: Callable[..., Any]
    _known: dict[str, Any]  # the last answer to each question, with its theta

    def _once(self, name: str, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """The answer to a question that was asked last with the same key, or a new one."""
        known = self._known.get(name)
        if known is None or not all(np.array_equal(a, b) for a, b in zip(known[0], key)):
            known = self._known[name] = (key, find())
        return known[1]

    def third_bound(self, theta: ArrayLike, radius: float) -> float:
        """A Lipschitz constant of the Hessian on the ball of that radius around theta, or infinity:
        the sum of those of the shards.
        """
        found = self._fold(majorants.third_bound, (checked_theta(self, theta), float(radius)))
        return float(found) * GROWTH

    def third_bound_in(self, theta: ArrayLike, radius: float, units: ArrayLike) -> float:
        """The same in other units of the parameters."""
        wide = np.array(units, dtype=float)
        found = self._fold(majorants.third_bound, (checked_theta(self, theta), float(radius), wide))
        return float(found) * GROWTH

    def _precise(self, theta: ArrayLike) -> tuple[Floats, float, float, float]:
        at = checked_theta(self, theta)

        def find() -> Any:
            with np.errstate(all="ignore"):
                return precise.finished(self, at, self._fold(precise.part, (at,)))

        found: tuple[Floats, float, float, float] = self._once("precise", (at,), find)
        return found

    @to_nearest
    def precise_gradient(self, theta: ArrayLike) -> tuple[Floats, float]:
        """``(g, error)``: parts of about 100 bits from every shard, added as such."""
        g, error, _, _ = self._precise(theta)
        return g.copy(), error

    @to_nearest
    def precise_value(self, theta: ArrayLike) -> tuple[float, float]:
        """``(value, error)`` likewise."""
        return self._precise(theta)[2:]

    def residual_bounds(self, theta: ArrayLike, radius: float) -> None:
        """None: the Jacobian of all rows is not made where rows lie in shards."""

    @property
    def loss_lower_bound(self) -> float:
        """A number that the loss is nowhere below."""
        return float(self._once("lower", (), lambda: self._fold(lower_part, ())).value)

    @property
    def attains_lower_bound(self) -> bool:
        """Whether the loss may be that number anywhere: an entropy is above it."""
        return self.loss == "mse"

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """A unit direction in which the loss is proved to fall for ever; else None."""
        at = checked_theta(self, theta)
        if self.loss == "mse" or self.loss_lower_bound < 0:
            return None
        idle = self._once("pulls", (), lambda: self._fold(pulls_part, ())).flags
        along = majorants.along_biases(self, ~idle[0], ~idle[1])
        direction = majorants.last_layer(self, at)
        if along is not None or majorants.decayed(self, direction):
            return along
        found = self._once("ray", (at,), lambda: self._fold(classified_part, (at,)))
        return direction if found[0] == 0 and found[1] else None

    def kinks(self, theta: ArrayLike, radius: float = 0.0) -> int:
        """How many pre-activations of kinked units may lie at 0 somewhere on the ball."""
        at = checked_theta(self, theta)
        return int(self._fold(NetworkFacts.kinks, (at, max(float(radius), self._rounding(at)))))

    def kink_margin(self, theta: ArrayLike) -> float:
        """A radius around theta within which no kink lies: the least of the shards'."""
        return float(self._fold(margin_part, (checked_theta(self, theta),)).value)

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """The proved symmetry groups at theta, of all rows: units that are off in every shard, and
        the columns' dependencies from few rows that show them all.
        """
        at = checked_theta(self, theta)
        off, clear = self._once(
            "signs", (at, radius), lambda: self._fold(signs_part, (at, float(radius)))
        )
        rows = self._once("columns", (), lambda: self._fold(witnesses_part, ()))
        whole = SimpleNamespace(
            model=self.model,
            loss=self.loss,
            l2=self.l2,
            l2_biases=self.l2_biases,
            X=rows.X,
            sample_weight=None,
        )
        return orbits(whole, at, off.flags, [~units for units in clear.flags])

    def smoothed(self, width: float) -> None:
        """None: kinks are not rounded off where rows lie in shards."""

    def held(self, gates: Any, collapsed: Any, parents: Any = None) -> None:
        """None: minima on kinks are not proved where rows lie in shards."""

    def copies(self, theta: Floats, gates: Any, collapsed: Any) -> list[NDArray[np.intp]]:
        """Every unit its own: that one is another's copy is not claimed of rows in shards."""
        return [np.arange(width) for width in self.model.sizes[1:-1]]

    def leaks(self) -> list[float]:
        """The slopes below 0 of every hidden layer of relu or leaky_relu units."""
        return [LEAK[name] for name in self.model.activation]

    def _ranges(self, theta: ArrayLike) -> tuple[symmetry.Ranges, symmetry.Ranges]:
        found: tuple[symmetry.Ranges, symmetry.Ranges] = self._fold(
            symmetry.ranges, (checked_theta(self, theta),)
        )
        return found

    def saturation(self, theta: ArrayLike) -> dict[str, Any]:
        """How saturated the units are; see `fastcurv.structure.symmetry`."""
        at = checked_theta(self, theta)
        counts, certain, dead = self._fold(saturation_part, (at,))
        return symmetry.saturation_of(self.model, counts, certain, dead.flags)

    def curvature_floor(self, theta: ArrayLike) -> float:
        """A number that no eigenvalue of the Hessian is below, or -inf: the sum of the shards',
        and l2.
        """
        floor, size = self._fold(floor_part, (checked_theta(self, theta),))
        least = float(np.min(l2_diagonal(self)))
        found = least + floor - 1e-12 * (least + size)
        return float(found) if np.isfinite(found) else -np.inf
