"""An objective whose rows lie in shards: blocks of a file that pass by, or parts on other machines.

Every quantity that an algorithm asks for is a sum over rows, so it is one over shards:

    f(theta) = sum over shards of f_s(theta)  +  l2/2 ||theta||^2,     f_s = sum of rows / divisor

with the divisor of all rows. A `Shard` is an `Objective` of its rows with that divisor and without
l2, and what is asked of it is a function ``part(shard, *arguments)`` that can be sent to where the
shard is. `Sharded` needs one thing of its kinds, ``_fold(part, arguments)``: the sum of the parts.
`SumPlan` has the face of the engine's plan and is such sums, so operators know no difference.

The sum is a tree of fixed shape: the parts of `FAN` neighbours are added from the left, then those
sums by `FAN`, and so on. Its shape depends on the number of shards alone, so neither the number of
workers nor the order in which they finish changes a bit; and no number passes through more than
`additions` roundings, which the bounds here count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _engine
from ..checks import check_finite
from ..protocols import Loss
from ..runtime import to_nearest
from ..structure.parameters import l2_diagonal, terms_of_a_row
from .arguments import check_dtype, selected
from .mlp import MLP
from .objective import Objective
from .shard_bounds import SumBound, gradient_bound_part, sum_rounding
from .shard_facts import ShardedFacts
from .shard_operators import ShardedCurvature
from .shard_parts import gradient_part, jvp_part, product_part, quadratic_part, value_part, vjp_part
from .sums import additions


@dataclass(frozen=True)
class Frame:
    """What the shards of an objective have in common.

    Attributes
    ----------
    model : MLP
    loss : str
    n_samples : int
        Of all shards.
    n_threads : int or None
    keep : int
        Points whose state a shard keeps.
    """

    model: MLP
    loss: Loss
    n_samples: int
    n_threads: int | None = None
    keep: int = 1


class InFrame:
    """What rows say of their place among all of an objective's; see `Frame`."""

    frame: Frame
    loss: Loss
    model: MLP
    n_samples: Any
    first: int

    @property
    def divisor(self) -> float:
        """What the sum over all samples is divided by."""
        return self.frame.n_samples * terms_of_a_row(self)

    @property
    def fisher_scale(self) -> float:
        """Samples of the whole over its own: the engine's ``N sum delta delta'`` has its own N."""
        return float(self.frame.n_samples / self.n_samples)

    @property
    def first_output(self) -> int:
        """The number of its first output among those of all rows."""
        return self.first * int(self.model.sizes[-1])


class Shard(InFrame, Objective):
    """Some rows of an objective: what they add to its sums, without l2.

    Parameters
    ----------
    frame : Frame
    X, y, sample_weight : ndarray
        As `Objective` keeps them: checked, and in the model's dtype.
    first : int
        The number of the first row among all.
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
        self.seen = False  # that X is finite, while it was copied
        self.bounds = None  # of rounding, at the theta asked about last

    def after_fork(self) -> None:
        """In a child of `os.fork`: another thread's unfinished plans are nobody's now."""
        super().after_fork()
        if self._lock.lost:
            self._plans, self.bounds = [], None

    def renewed(self, X: Any, y: Any, sample_weight: Any, first: int, finite: bool) -> Shard:
        """The shard of other rows, as many, in the memory of this one, which is of no use then.

        Where X is not known to be finite, that is seen while it is copied, if it is: `seen`.
        """
        other = Shard(self.frame, X, y, sample_weight, first)
        for plan in self._plans:
            other.seen = plan.renew(*other._given())
        if not (finite or other.seen):
            check_finite(X, "X")
        other._plans, self._plans = self._plans, []
        return other

    def _bound(self, theta: Any, gradient: bool) -> Any:
        """A plan of its own at theta: that of the last few points which is there, or was longest
        not asked for.
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
    """The plan of an objective in shards: bound and multiplied like the engine's, by sums.

    A point costs nothing until something is asked there; value and gradient are known after the
    first time. `sizes` are the sums over shards of the norms of what was added up last, (k,).
    """

    in_place = False

    def __init__(self, ob: Sharded) -> None:
        self.ob = ob
        self.theta: Any = None
        self.sizes: Any = None
        self._value: Any = None
        self._gradient: Any = None

    def unbind(self) -> None:
        """Forget theta and what is known there."""
        self.theta = self._value = self._gradient = self.sizes = None

    @to_nearest
    def bind(self, theta: np.ndarray, gradient: bool = True, passing: bool = False) -> None:
        """Be at theta (n,), which is copied."""
        self.unbind()
        self.theta = np.array(theta, order="C")
        self.theta.flags.writeable = False

    @to_nearest
    def take(self, source: Any, theta: np.ndarray, **how: Any) -> bool:
        """The engine's way of taking a point over, which is not this one's."""
        return False

    @to_nearest
    def finish(self) -> None:
        """Value and gradient, by one pass over the shards."""
        if self._gradient is None:
            value, gradient = self.ob._fold(gradient_part, (self.theta,))
            self._value = self._with_decay(value)
            self._gradient = self._decayed(gradient, self.theta).astype(self.ob.dtype, copy=False)

    @to_nearest
    def prepare(self) -> None:
        """Nothing: products need no more than theta."""

    def forget_gradient(self) -> None:
        """The gradient has been handed out."""
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
        """Whole + l2 v, in float64."""
        l2 = self.ob.l2_diagonal
        return whole + np.multiply(l2, v, dtype=np.float64) if np.any(l2) else whole

    def _with_decay(self, value: float) -> float:
        wide = self.theta.astype(np.float64)
        return value + 0.5 * float(np.sum(self.ob.l2_diagonal * wide * wide))

    @to_nearest
    def multiply(
        self,
        v: np.ndarray,
        out: np.ndarray,
        kind: str = "hessian",
        active: Any = None,
        l2: bool = True,
    ) -> None:
        """Out = (the operator) v for v (n,), or the rows of (k, n)."""
        Vt = np.atleast_2d(v)
        whole, self.sizes = self.ob._fold(product_part, (self.theta, Vt, kind, active))
        if l2:
            whole = self._decayed(whole, Vt)
        out[...] = whole.reshape(out.shape)

    @to_nearest
    def quadratic(self, v: np.ndarray, kind: str = "hessian", active: Any = None) -> np.ndarray:
        """v'(the operator) v without l2, for (n,) or the rows of (k, n): an array (k,)."""
        return np.asarray(
            self.ob._fold(quadratic_part, (self.theta, np.atleast_2d(v), kind, active))
        )

    @to_nearest
    def jacobian(self, v: np.ndarray, out: np.ndarray, transpose: bool = False) -> None:
        """``out (N d_out,) = J v``, or ``out (n,) = J' u``."""
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
        """Of what this side keeps."""
        return 3 * int(self.theta.nbytes)

    @property
    def layout(self) -> dict[str, Any]:
        """How rows are served."""
        return {
            "shards": self.ob.n_shards,
            "threads": self.ob.n_threads or _engine.default_threads(),
            "arch": _engine.chosen_arch(),
        }

    def after_fork(self) -> None:
        """Nothing here is held by another thread."""


class Sharded(ShardedFacts, Objective):
    """An objective whose rows lie in shards; its kinds say where.

    A kind calls `_settings`, sets `_n_samples` and `n_shards`, and has ``_fold(part, arguments)``:
    the sum, by a tree, of ``part(shard, *arguments)``, and ``_with_model(model)``: itself for
    another model of these rows. Batch normalisation ties all rows together and is refused.
    """

    n_shards: int
    _n_samples: int
    _fold: Callable[..., Any]
    _rows: Any
    _order: Any = None  # of each row of the shards the number that it was asked for by
    _transient = (*Objective._transient, "_known")
    _curvature = ShardedCurvature

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
        """A bound on ``||computed(gradient) - gradient||`` at theta: those of the shards, and what
        adding them up rounds.
        """
        theta = np.array(self.model.check_theta(theta), order="C")
        found = self._fold(gradient_bound_part, (theta,))
        return self._summed(found, theta)

    def _summed(self, found: SumBound, v: np.ndarray, kind: str = "hessian") -> float:
        fisher = kind == "fisher"
        decay = np.zeros(1) if fisher else l2_diagonal(self) * v.astype(np.float64)
        return sum_rounding(found, additions(self.n_shards) + 2 * fisher, decay, self.dtype)

    def _numbers(self, rows: Any) -> np.ndarray:
        """Which rows a slice, indices or a mask mean."""
        return np.asarray(selected(rows, np.arange(self._n_samples))[0])

    def astype(self, dtype: Any) -> Any:
        """The same objective in another precision; its numbers stay those that this one has."""
        dtype = check_dtype(dtype)
        if dtype == self.dtype:
            return self
        return self._with_model(self.model.astype(dtype))
