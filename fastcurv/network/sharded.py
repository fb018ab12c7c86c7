"""Objectives whose rows are divided into shards: blocks of a file that are read in turn, or parts
on other machines.

Every quantity that an algorithm needs is a sum over rows, so it is one over shards:

    f(theta) = sum over shards of f_s(theta)  +  l2/2 ||theta||^2,     f_s = sum of rows / divisor

where the divisor is that of all rows. A `Shard` is an `Objective` of its rows with that divisor and
without l2. Each quantity is computed by a function ``part(shard, *arguments)`` that can be sent to
the process that holds the shard. Subclasses of `Sharded` implement one method, ``_fold(part,
arguments)``, which returns the sum of the parts. `SumPlan` has the interface of the engine's plan
but computes such sums, so operators need not distinguish the two.

The sum is a tree of fixed shape: the parts of `FAN` neighbours are added from the left, then those
sums by `FAN`, and so on. Its shape depends on the number of shards alone, so results are bitwise
independent of the number of workers and of the order in which they finish; and no number passes
through more than `additions` roundings, which the error bounds here take into account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _engine
from .._engine import Times
from ..certify import majorants, precise
from ..certify.certificates import Certificates
from ..certify.majorants import curvature_floor
from ..certify.passes import checked_theta
from ..common.checks import check_finite
from ..common.protocols import Floats, Loss
from ..common.runtime import to_nearest
from ..structure import symmetry
from ..structure.orbits import Orbit, orbits
from ..structure.parameters import l2_diagonal, rows_that_count, terms_of_a_row
from ..structure.tables import LOSSES
from .arguments import as_vector, check_dtype, selected
from .mlp import MLP
from .objective import Objective
from .operators import Curvature
from .pairwise_sum import (
    SumBound,
    additions,
    column_parts,
    gradient_bound_part,
    product_bound_part,
    sum_rounding,
)
from .spaces import not_in_shards

# --------------------------------------------------------------------------------------------------
# Certified facts about an objective in shards: each statement about all rows is combined from
# statements about the rows of each shard, which are computed where the shard is.
#
# Bounds and counts add up, and a property of every row must hold in every shard. Statements that
# would need all rows in one place are not made: `residual_bounds` and `relu_rows` return None.

GROWTH = 1 + 1e-9  # for the rounding of sums of bounds


@dataclass(frozen=True)
class Least:
    """A number whose sum with another is the smaller of the two."""

    value: float

    def __add__(self, other: Least) -> Least:
        return Least(min(self.value, other.value))


@dataclass(frozen=True)
class Every:
    """Boolean flags whose sum is the elementwise "and": set only where they are set in every
    shard.
    """

    flags: list[NDArray[np.bool_]]

    def __add__(self, other: Every) -> Every:
        return Every([a & b for a, b in zip(self.flags, other.flags)])


@dataclass(frozen=True)
class Witnesses:
    """A few rows whose columns are zero, equal or constant exactly where the columns of all rows
    are.
    """

    X: Floats

    def __add__(self, other: Witnesses) -> Witnesses:
        return witnesses(np.vstack([self.X, other.X]))


def witnesses(X: Floats) -> Witnesses:
    """Select rows of X: the first, one for each column that is not constant, and for each two
    columns that differ, a row in which they do.

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
    """Return ``(a, b)``: a is 0 if every row of positive weight is proved to be classified
    correctly, else 1; b is 1 if there is a row of positive weight, else 0.
    """
    counts = shard.sample_weight is None or bool(np.any(shard.sample_weight))
    return int(not majorants.classified(shard, theta)), int(counts)


def pulls_part(shard: Any) -> Every:
    """Return masks of the outputs that no row's loss pulls up, and of those that none pulls
    down.
    """
    return Every([~pulled for pulled in majorants.pulls(shard)])


def margin_part(shard: Any, theta: Floats) -> Least:
    return Least(majorants.kink_margin(shard, theta))


def signs_part(shard: Any, theta: Floats, radius: float) -> tuple[Every, Every]:
    """Return (units that are off on the whole ball, units with no z at a kink at theta), over all
    rows.
    """
    here, *ball = majorants.signs(shard, theta, 0.0, *[radius] * (radius > 0))
    return Every((ball or [here])[0].off), Every([~near for near in here.on_kinks])


def witnesses_part(shard: Any) -> Witnesses:
    return witnesses(rows_that_count(shard))


def saturation_part(shard: Any, theta: Floats) -> tuple[Any, Any, Every]:
    counts, certain, dead = symmetry.saturation_counts(shard, theta)
    return counts, certain, Every(dead)


def kinks_part(shard: Any, theta: Floats, radius: float) -> int:
    return Certificates(shard).kinks(theta, radius)


def floor_part(shard: Any, theta: Floats) -> tuple[float, float]:
    """Return a lower bound on the eigenvalues of the rows' part of the Hessian, and its absolute
    value.
    """
    floor = curvature_floor(shard, theta)
    return floor, abs(floor)


# --- the whole
# --------------------------------------------------------------------------------------------------


class ShardedCertificates(Certificates):
    """`Certificates` of a `Sharded` objective, computed by sums over its shards."""

    objective: Sharded

    def _sum(self, part: Any, theta: ArrayLike, *more: Any) -> Any:
        """Return the sum over shards of ``part(shard, theta, *more)``."""
        return self.objective._fold(part, (checked_theta(self.objective, theta), *more))

    def _once(self, name: str, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return the cached result for `name` if it was computed for the same `key`, else compute
        it.
        """
        kept = self.objective._known
        known = kept.get(name)
        if known is None or not all(np.array_equal(a, b) for a, b in zip(known[0], key)):
            known = kept[name] = (key, find())
        return known[1]

    def third_bound(self, theta: ArrayLike, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian on the ball of that radius around theta, or
        infinity: the sum of the shards' constants.
        """
        return float(self._sum(majorants.third_bound, theta, float(radius))) * GROWTH

    def third_bound_in(self, theta: ArrayLike, radius: float, units: ArrayLike) -> float:
        """Return `third_bound` for parameters measured in other units."""
        wide = np.array(units, dtype=float)
        return float(self._sum(majorants.third_bound, theta, float(radius), wide)) * GROWTH

    def _precise(self, theta: ArrayLike) -> tuple[Floats, float, float, float]:
        at = checked_theta(self.objective, theta)

        def find() -> Any:
            with np.errstate(all="ignore"):
                return precise.finished(self.objective, at, self._sum(precise.part, at))

        found: tuple[Floats, float, float, float] = self._once("precise", (at,), find)
        return found

    @to_nearest
    def precise_gradient(self, theta: ArrayLike) -> tuple[Floats, float]:
        """Return ``(g, error)``: the gradient from parts of about 100 bits per shard, added at that
        precision.
        """
        g, error, _, _ = self._precise(theta)
        return g.copy(), error

    @to_nearest
    def precise_value(self, theta: ArrayLike) -> tuple[float, float]:
        """Return ``(value, error)``, computed like `precise_gradient`."""
        return self._precise(theta)[2:]

    def residual_bounds(self, theta: ArrayLike, radius: float) -> None:
        """Return None: the Jacobian of all rows is not formed for an objective in shards."""

    @property
    def loss_lower_bound(self) -> float:
        """A lower bound on the loss over all theta."""
        return float(self._once("lower", (), lambda: self.objective._fold(lower_part, ())).value)

    @property
    def attains_lower_bound(self) -> bool:
        """True if the loss may attain `loss_lower_bound`; a cross entropy always lies above it."""
        return LOSSES[self.objective.loss].attained

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction along which the loss is proved to decrease forever, or None."""
        ob, at = self.objective, checked_theta(self.objective, theta)
        if LOSSES[ob.loss].attained or self.loss_lower_bound < 0:
            return None
        idle = self._once("pulls", (), lambda: ob._fold(pulls_part, ())).flags
        along = majorants.along_biases(ob, ~idle[0], ~idle[1])
        direction = majorants.last_layer(ob, at)
        if along is not None or majorants.decayed(ob, direction):
            return along
        found = self._once("ray", (at,), lambda: self._sum(classified_part, at))
        return direction if found[0] == 0 and found[1] else None

    def kinks(self, theta: ArrayLike, radius: float = 0.0) -> int:
        """Return how many pre-activations of units with a kink may be 0 somewhere on the ball."""
        at = checked_theta(self.objective, theta)
        return int(self._sum(kinks_part, at, max(float(radius), self._rounding(at))))

    def kink_margin(self, theta: ArrayLike) -> float:
        """Return a radius around theta within which there is no kink: the smallest of the shards'
        radii.
        """
        return float(self._sum(margin_part, theta).value)

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return the proved symmetry groups at theta for all rows, from the units that are off in
        every shard and from a few rows that show all dependencies between columns.
        """
        ob, at = self.objective, checked_theta(self.objective, theta)
        off, clear = self._once(
            "signs", (at, radius), lambda: self._sum(signs_part, at, float(radius))
        )
        rows = self._once("columns", (), lambda: ob._fold(witnesses_part, ()))
        whole = SimpleNamespace(
            model=ob.model,
            loss=ob.loss,
            l2=ob.l2,
            l2_biases=ob.l2_biases,
            X=rows.X,
            sample_weight=None,
        )
        return orbits(whole, at, off.flags, [~units for units in clear.flags])

    def relu_rows(self) -> None:
        """Return None: minima on kinks are not proved for an objective in shards."""

    def ranges(self, theta: ArrayLike) -> tuple[symmetry.Ranges, symmetry.Ranges]:
        """Return the ranges of inputs and outputs at theta, over all rows."""
        found: tuple[symmetry.Ranges, symmetry.Ranges] = self._sum(symmetry.ranges, theta)
        return found

    def saturation(self, theta: ArrayLike) -> dict[str, Any]:
        """Return counts of saturated units; see `fastcurv.structure.symmetry`."""
        counts, certain, dead = self._sum(saturation_part, theta)
        return symmetry.saturation_of(self.objective.model, counts, certain, dead.flags)

    def curvature_floor(self, theta: ArrayLike) -> float:
        """Return a lower bound on the eigenvalues of the Hessian, or -inf: the sum of the shards'
        bounds plus l2.
        """
        floor, size = self._sum(floor_part, theta)
        least = float(np.min(l2_diagonal(self.objective)))
        found = least + floor - 1e-12 * (least + size)
        return float(found) if np.isfinite(found) else -np.inf


# --------------------------------------------------------------------------------------------------
# Curvature and Jacobian of an objective in shards, as linear operators.


class ShardedCurvature(Curvature):
    """The curvature matrix of an objective in shards: each product is one sum over the shards.

    Value and gradient are computed on first access.
    """

    def __init__(self, objective: Any, theta: Any, kind: str) -> None:
        self.objective, self.kind = objective, kind
        self._plan = objective._new_plan()
        self._plan.bind(objective.model.check_theta(theta))
        self.theta, self._rounding = self._plan.theta, None
        self._go_by(Times(None, kind, False))  # no engine plan: a product is a fold over shards
        self._mass: np.ndarray | None = None
        n = objective.n_params
        super(Curvature, self).__init__(objective.dtype, (n, n))

    @property
    def value(self) -> float:
        """The objective's value at theta."""
        return float(self._plan.value)

    @property
    def gradient(self) -> np.ndarray:
        """The objective's gradient at theta, (n,)."""
        gradient: np.ndarray = self._plan.gradient
        gradient.flags.writeable = False
        return gradient

    def _multiply(self, v: Any, out: np.ndarray | None) -> None:
        super()._multiply(v, out)
        self._note_columns(np.atleast_2d(v))

    def _note_columns(self, Vt: np.ndarray) -> None:
        """Record, for rows of Vt that are unit vectors, the sum over shards of the norms of their
        products, which `column_bounds` needs.
        """
        if np.count_nonzero(Vt) == len(Vt):
            at = np.argmax(Vt, axis=1)
            if (Vt[np.arange(len(Vt)), at] == 1).all():
                if self._mass is None:
                    self._mass = np.full(self.shape[0], np.nan)
                self._mass[at] = self._plan.sizes

    @to_nearest
    def rounding_bound(self, v: Any) -> float:
        """Return a bound on ``||computed(H v) - H v||`` for v ``(n,)``: the sum of the shards'
        bounds, each computed where the shard is, plus the rounding errors of adding the parts.
        """
        v = as_vector(v, self.shape[0], self.dtype)
        found = self.objective._fold(product_bound_part, (self.theta, v, self.kind))
        return float(self.objective._summed(found, v, self.kind))

    @to_nearest
    def column_bounds(self) -> np.ndarray:
        """Return bounds ``(n,)`` on the rounding error of ``H e_j`` for every unit vector."""
        ob, n = self.objective, self.shape[0]
        if self._mass is None or np.isnan(self._mass).any():
            self.to_dense()
        bounds = self._errors_of_columns()
        decay = np.broadcast_to(l2_diagonal(ob) if self.kind != "fisher" else 0.0, (n,))
        deep = additions(ob.n_shards) + 2 * (self.kind == "fisher")
        found = zip(bounds, np.asarray(self._mass), decay)
        return np.array(
            [sum_rounding(SumBound(b, m), deep, np.array([d]), self.dtype) for b, m, d in found]
        )

    def _errors_of_columns(self) -> np.ndarray:
        return np.asarray(self.objective._fold(column_parts, (self.theta, self.kind)))

    def assembled(self) -> None:
        """Return None: the matrix is not assembled by layers, since the rows are not in memory
        here.
        """

    def reach(self, most: int) -> None:
        """Return None: the proof of the range needs all rows in memory."""

    reduced = not_in_shards


# --------------------------------------------------------------------------------------------------
# Functions evaluated where a shard is held: the contribution of its rows to a sum.


def value_part(shard: Any, theta: np.ndarray) -> float:
    """Return the rows' part of the value."""
    with shard._lock:
        return float(shard._bound(theta, False).value)


def gradient_part(shard: Any, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the rows' part of the value and of the gradient."""
    with shard._lock:
        plan = shard._bound(theta, True)
        gradient = plan.gradient
        plan.forget_gradient()
        return float(plan.value), gradient


def product_part(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows' part of the products with the rows of Vt (k, n), and the norms (k,) of
    these.
    """
    out = np.empty_like(Vt) if active is None else np.zeros_like(Vt)  # inactive layers stay 0
    with shard._lock:
        shard._bound(theta, False).multiply(Vt, out, kind, active, False)
    if kind == "fisher":
        out *= shard.dtype.type(shard.fisher_scale)
    return out, np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))


def quadratic_part(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Any
) -> np.ndarray:
    """Return the rows' part of the quadratic forms of the rows of Vt."""
    with shard._lock:
        found = shard._bound(theta, False).quadratic(Vt, kind, active)
    return np.asarray(found * (shard.fisher_scale if kind == "fisher" else 1.0))


def jvp_part(shard: Any, theta: np.ndarray, v: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return ``[(index of the first output, J v)]`` for the rows of the shard."""
    out = np.empty(shard.n_samples * shard.model.sizes[-1], shard.dtype)
    with shard._lock:
        shard._bound(theta, False).jacobian(v, out)
    return [(shard.first_output, out)]


def vjp_part(shard: Any, theta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the rows' part of ``J' u`` for u over the outputs of all rows."""
    first, out = shard.first_output, np.empty(shard.n_params, shard.dtype)
    mine = np.ascontiguousarray(u[first : first + shard.n_samples * shard.model.sizes[-1]])
    with shard._lock:
        shard._bound(theta, False).jacobian(mine, out, True)
    return out


@dataclass(frozen=True)
class Frame:
    """The settings that all shards of an objective share.

    Attributes
    ----------
    model : MLP
    loss : str
    n_samples : int
        Rows of all shards together.
    n_threads : int or None
    keep : int
        Number of points theta whose state a shard keeps.
    """

    model: MLP
    loss: Loss
    n_samples: int
    n_threads: int | None = None
    keep: int = 1


class InFrame:
    """A mixin for a subset of an objective's rows, with the constants that follow from its place
    among all rows; see `Frame`.
    """

    frame: Frame
    loss: Loss
    model: MLP
    n_samples: Any
    first: int

    @property
    def _divisor(self) -> float:
        """The number that the sum over all samples is divided by."""
        return self.frame.n_samples * terms_of_a_row(self)

    @property
    def fisher_scale(self) -> float:
        """The ratio of all samples to the shard's own: the engine's ``N sum delta delta'`` uses the
        shard's own N.
        """
        return float(self.frame.n_samples / self.n_samples)

    @property
    def first_output(self) -> int:
        """The index of the shard's first output among those of all rows."""
        return self.first * int(self.model.sizes[-1])


class Shard(InFrame, Objective):
    """A subset of an objective's rows, whose values and derivatives are their contributions to the
    sums over all rows, without l2.

    Parameters
    ----------
    frame : Frame
    X, y, sample_weight : ndarray
        As `Objective` keeps them: checked, and in the model's dtype.
    first : int
        Index of the first row among all rows.
    """

    _plans: list[Any]
    seen: bool
    bounds: Any
    _transient = (*Objective._transient, "_plans", "bounds")

    def __init__(self, frame: Frame, X: Any, y: Any, sample_weight: Any, first: int = 0) -> None:
        self.frame, self.first = frame, first
        self.model, self.loss, self.n_threads = frame.model, frame.loss, frame.n_threads
        self.l2, self.l2_biases, self.memory = 0.0, True, None
        self.X, self.y, self.sample_weight = X, y, sample_weight
        self._start()

    def _start(self) -> None:
        super()._start()
        self._plans = []
        self.seen = False  # True if X was found finite while it was copied
        self.bounds = None  # rounding bounds at the theta last used

    def _after_fork(self) -> None:
        """Drop unfinished plans in a child of `os.fork`: the thread that was building them does not
        exist there.
        """
        super()._after_fork()
        if self._lock.lost:
            self._plans, self.bounds = [], None

    def renewed(self, X: Any, y: Any, sample_weight: Any, first: int, finite: bool) -> Shard:
        """Return a shard of as many other rows that takes over the memory of this one, which is
        unusable afterwards.

        With `finite` False, X is not yet known to be finite. The engine may establish that while
        copying it, and then `seen` is set; otherwise X is checked here.
        """
        other = Shard(self.frame, X, y, sample_weight, first)
        for plan in self._plans:
            other.seen = plan.renew(*other._given())
        if not (finite or other.seen):
            check_finite(X, "X")
        other._plans, self._plans = self._plans, []
        return other

    def _bound(self, theta: Any, gradient: bool) -> Any:
        """Return a plan of the shard bound to theta: one of the recently used plans if it is at
        theta, else a new one or, if `Frame.keep` plans exist, the least recently used one.
        """
        plans = self._plans
        for i, plan in enumerate(plans):
            if plan.theta is not None and np.array_equal(plan.theta, theta):
                plans.insert(0, plans.pop(i))
                break
        else:
            plan = plans.pop() if len(plans) >= self.frame.keep else self._new_plan()
            plans.insert(0, plan)
            plan.bind(theta, gradient)
        if gradient:
            plan.finish()
        return plans[0]


# --- the whole
# --------------------------------------------------------------------------------------------------


class SumPlan:
    """A plan for an objective in shards, with the interface of the engine's plan; it computes sums
    over shards.

    Binding to a point costs nothing; value and gradient are computed on first use and kept. `sizes`
    (k,) holds, for each vector of the last product, the sum over shards of the norms of the parts.
    """

    in_place = False

    def __init__(self, ob: Sharded) -> None:
        self.ob = ob
        self.theta: Any = None
        self.sizes: Any = None
        self._value: Any = None
        self._gradient: Any = None

    def unbind(self) -> None:
        """Forget theta and all results at it."""
        self.theta = self._value = self._gradient = self.sizes = None

    @to_nearest
    def bind(self, theta: np.ndarray, gradient: bool = True, passing: bool = False) -> None:
        """Set the current parameters to a copy of theta, shape (n,)."""
        self.unbind()
        self.theta = np.array(theta, order="C")
        self.theta.flags.writeable = False

    @to_nearest
    def take(self, source: Any, theta: np.ndarray, **how: Any) -> bool:
        """Return False: a plan over shards cannot take over a point as the engine's plans can."""
        return False

    @to_nearest
    def finish(self) -> None:
        """Compute value and gradient, by one pass over the shards."""
        if self._gradient is None:
            value, gradient = self.ob._fold(gradient_part, (self.theta,))
            self._value = self._with_decay(value)
            self._gradient = self._decayed(gradient, self.theta).astype(self.ob.dtype, copy=False)

    @to_nearest
    def prepare(self) -> None:
        """Do nothing: products need only theta."""

    def forget_gradient(self) -> None:
        """Forget the gradient, since the caller now owns the array."""
        self._gradient = None

    @property
    @to_nearest
    def value(self) -> float:
        """The loss at theta."""
        if self._value is None:
            self._value = self._with_decay(self.ob._fold(value_part, (self.theta,)))
        return float(self._value)

    @property
    @to_nearest
    def gradient(self) -> np.ndarray:
        """The gradient at theta, (n,)."""
        self.finish()
        return np.asarray(self._gradient)

    def _decayed(self, whole: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ``whole + l2 v``, in float64."""
        l2 = l2_diagonal(self.ob)
        return whole + np.multiply(l2, v, dtype=np.float64) if np.any(l2) else whole

    def _with_decay(self, value: float) -> float:
        wide = self.theta.astype(np.float64)
        return value + 0.5 * float(np.sum(l2_diagonal(self.ob) * wide * wide))

    @to_nearest
    def multiply(
        self,
        v: np.ndarray,
        out: np.ndarray,
        kind: str = "hessian",
        active: Any = None,
        l2: bool = True,
    ) -> None:
        """Write the product with v (n,), or with the rows of v (k, n), to `out`."""
        Vt = np.atleast_2d(v)
        whole, self.sizes = self.ob._fold(product_part, (self.theta, Vt, kind, active))
        if l2:
            whole = self._decayed(whole, Vt)
        out[...] = whole.reshape(out.shape)

    @to_nearest
    def quadratic(self, v: np.ndarray, kind: str = "hessian", active: Any = None) -> np.ndarray:
        """Return the quadratic forms without l2 of v (n,), or of the rows of v (k, n), as an array
        (k,).
        """
        return np.asarray(
            self.ob._fold(quadratic_part, (self.theta, np.atleast_2d(v), kind, active))
        )

    @to_nearest
    def jacobian(self, v: np.ndarray, out: np.ndarray, transpose: bool = False) -> None:
        """Write ``J v`` to `out` (N d_out,), or ``J' v`` to `out` (n,) if `transpose`."""
        order = self.ob._order
        if transpose:
            u = v if order is None else v.reshape(len(order), -1)[order].reshape(-1)
            out[...] = self.ob._fold(vjp_part, (self.theta, u))
            return
        for first, part in self.ob._fold(jvp_part, (self.theta, v)):
            out[first : first + len(part)] = part
        if order is not None:
            whole = out.reshape(len(order), -1)
            whole[order] = whole.copy()

    @property
    def nbytes(self) -> int:
        """Bytes kept in this process."""
        return 3 * int(self.theta.nbytes)

    @property
    def layout(self) -> dict[str, Any]:
        """The numbers of shards and threads, and the kernels in use."""
        return {
            "shards": self.ob.n_shards,
            "threads": self.ob.n_threads or _engine.default_threads(),
            "arch": _engine.chosen_arch(),
        }


class Sharded(Objective):
    """The base class of objectives whose rows lie in shards; subclasses define where the shards
    are.

    A subclass calls `_settings`, sets `_n_samples` and `n_shards`, and implements ``_fold(part,
    arguments)``, which returns the tree sum of ``part(shard, *arguments)``, and
    ``_with_model(model)``, which returns the objective of another model on the same rows. Batch
    normalisation is refused, because it couples all rows.
    """

    n_shards: int
    _n_samples: int
    _fold: Callable[..., Any]
    _rows: Any
    _known: dict[str, Any]  # {name: (arguments, result)} of the last certificate of each kind
    _order: Any = None  # index in the caller's order of each row of the shards; None: the same
    _transient = (*Objective._transient, "_known")
    _curvature = ShardedCurvature
    _certificates = ShardedCertificates

    n_samples = property(lambda self: self._n_samples, doc="Rows of all shards.")

    def _settings(
        self, model: Any, loss: Loss, l2: float, l2_biases: bool, n_threads: Any, memory: Any
    ) -> None:
        super()._settings(model, loss, l2, l2_biases, n_threads, memory)
        if model.batch_norm:
            raise ValueError(
                f"{type(self).__name__} was given a model with batch normalisation, whose "
                "statistics tie all rows together; wanted one without, or an Objective"
            )

    def _start(self) -> None:
        self._rows, self._known = None, {}
        self._begin()

    def _new_plan(self) -> SumPlan:
        return SumPlan(self)

    @to_nearest
    def rounding_bound(self, theta: Any) -> float:
        """Return a bound on ``||computed(gradient) - gradient||`` at theta: the sum of the shards'
        bounds plus the rounding errors of adding the parts.
        """
        theta = np.array(self.model.check_theta(theta), order="C")
        found = self._fold(gradient_bound_part, (theta,))
        return self._summed(found, theta)

    def _summed(self, found: SumBound, v: np.ndarray, kind: str = "hessian") -> float:
        fisher = kind == "fisher"
        decay = np.zeros(1) if fisher else l2_diagonal(self) * v.astype(np.float64)
        return sum_rounding(found, additions(self.n_shards) + 2 * fisher, decay, self.dtype)

    def _numbers(self, rows: Any) -> np.ndarray:
        """Return the row numbers that a slice, indices or a mask select."""
        return np.asarray(selected(rows, np.arange(self._n_samples))[0])

    def astype(self, dtype: Any) -> Any:
        """Return the same objective in another precision. The data keep the values they have in the
        present one.
        """
        dtype = check_dtype(dtype)
        if dtype == self.dtype:
            return self
        return self._with_model(self.model.astype(dtype))
