"""Facts about an objective as sums over blocks of its rows: blocks of a file that are read in turn,
sparse rows, or parts on other machines.

Every quantity that an algorithm needs is a sum over rows, so it is one over blocks:

    f(theta) = sum over shards of f_s(theta)  +  l2/2 ||theta||^2,     f_s = sum of rows / divisor

where the divisor is that of all rows. A shard is an objective of the rows of a block with that
divisor and without l2. Each quantity is computed by a function ``part(shard, *arguments)`` that can
be sent to the process that holds the shard, and ``ob._fold(part, arguments, dense)`` returns the
sum of the parts. `SumPlan` has the interface of the engine's plan, `SumBounds` that of
`fastcurv.certify.passes.ErrorPass` and `SumCertificates` that of `Certificates`, so operators and
verdicts need not distinguish whether the engine has all rows at once.

The sum is a tree of fixed shape: the parts of `FAN` neighbours are added from the left, then those
sums by `FAN`, and so on (`PairwiseSum`). Its shape depends on the number of
shards alone, so results are bitwise independent of the number of workers and of the order in which
they finish; and no number passes through more than `additions` roundings, which the error bounds
here take into account.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _engine
from ..certify import majorants
from ..certify.arithmetic import norm
from ..certify.certificates import Certificates
from ..certify.columns import column_bounds
from ..certify.passes import ErrorPass, checked_theta
from ..common.protocols import Floats
from ..common.runtime import to_nearest
from ..structure.given import Loss
from ..structure.parameters import l2_diagonal, rows_that_count
from ..structure.symmetry import Orbit, orbits
from ..structure.tables import LOSSES, LossName
from .mlp import MLP

# --------------------------------------------------------------------------------------------------
# The tree of fixed shape.

FAN = 8  # parts that are added before their sum goes up the tree


def merge(a: Any, b: Any, own: bool = False) -> Any:
    """Return ``a + b`` for numbers, arrays, objects with ``+``, and tuples of these. With `own`,
    float64 arrays of `a` are overwritten by the sum.

    Float32 arrays are added in float64; the caller rounds the total at the end.
    """
    if isinstance(a, tuple):
        return tuple(merge(x, y, own) for x, y in zip(a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        if own and a.dtype == np.float64:
            return np.add(a, b, out=a)
        return np.add(a, b, dtype=np.float64)
    return a + b


def total(parts: list[Any]) -> Any:
    """Return the sum of the parts, added from the left; no part is modified."""
    return reduce(merge, parts)


class PairwiseSum:
    """The sum of parts that arrive one by one, added in the same order as by a tree of `total` over
    `FAN` parts.

    Examples
    --------
    >>> tree = PairwiseSum()
    >>> for part in range(100):
    ...     tree.push(part)
    >>> tree.total()
    4950
    """

    def __init__(self) -> None:
        self.levels: list[list[Any]] = []  # [sum, number of parts in it] for each level

    def push(self, part: Any, level: int = 0) -> None:
        """Add a part; the tree takes ownership of its arrays."""
        if level == len(self.levels):
            self.levels.append([None, 0])
        here = self.levels[level]
        here[0], here[1] = part if not here[1] else merge(here[0], part, True), here[1] + 1
        if here[1] == FAN:
            whole, here[0], here[1] = here[0], None, 0
            self.push(whole, level + 1)

    def total(self) -> Any:
        """Return the sum of all parts."""
        whole = None
        for part, count in self.levels:
            if count:
                whole = part if whole is None else merge(part, whole, True)
        return whole


def additions(shards: int) -> int:
    """Return the largest number of roundings that a number passes through on its way up the
    tree.
    """
    deep = 0
    while shards > 1:
        deep, shards = deep + min(FAN, shards) - 1, -(-shards // FAN)
    return deep


# --------------------------------------------------------------------------------------------------
# Rounding errors of sums over shards: the shards' own bounds, computed where the shards are, plus
# the errors of adding the parts.
#
# Entry by entry the error of a tree of additions is at most ``gamma(D) sum |x_s|``, where D is the
# number of additions that a number passes through (Higham 2002, 4.2), so in norm it is at most
# ``gamma(D) sum ||x_s||``.

ROOM = 1 + 1e-9  # for the rounding of norms and of sums of bounds
LOST = 2.0**22  # bound in norm on underflow in n products, in smallest subnormals


def sum_rounding(found: tuple[float, float], deep: int, decay: np.ndarray, dtype: Any) -> float:
    """Return a bound on the error of ``sum of parts + decay`` if each number passes through `deep`
    additions. `found` are the sums over the parts of bounds on their errors, and of their norms as
    computed.

    Sums are formed in float64, including the term l2 v (`decay`, three roundings), and then rounded
    to the dtype.
    """
    u, last = (0.5 * float(np.finfo(t).eps) for t in (np.float64, dtype))
    size, moved = found[1] * ROOM, norm(decay) * ROOM
    bound = found[0] + deep * u / (1 - deep * u) * size
    if moved:
        bound += u * (size + bound) + 4 * u * moved
    if last > u:
        bound += last * (size + bound + moved)
    room = ROOM + 4 * last + len(decay) * 2 * u
    if bound + size + moved > 0:
        bound += LOST * float(np.finfo(dtype).smallest_subnormal)
    return float(bound * room) if bound + size + moved < np.finfo(dtype).max else np.inf


# --------------------------------------------------------------------------------------------------
# Functions evaluated where a shard is held: the contribution of its rows to a sum.


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
    loss: LossName | Loss
    n_samples: int
    n_threads: int | None = None
    keep: int = 1


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
    mine = shard.outputs
    out = np.empty(mine.stop - mine.start, shard.dtype)
    with shard._lock:
        shard._bound(theta, False).jacobian(v, out)
    return [(mine.start, out)]


def vjp_part(shard: Any, theta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the rows' part of ``J' u`` for u over the outputs of all rows."""
    out = np.empty(shard.n_params, shard.dtype)
    with shard._lock:
        plan = shard._bound(theta, False)
        plan.jacobian(np.ascontiguousarray(u[shard.outputs]), out, True)
    return out


# --- bounds on rounding errors
# --------------------------------------------------------------------------------------------------


def _layout(shard: Any, theta: np.ndarray) -> Any:
    """Return the order of summation over the rows; the caller holds the shard's lock."""
    return shard.layout or shard._bound(theta, False).layout


def bound_part(shard: Any, theta: np.ndarray, v: Any, kind: str) -> tuple[float, float]:
    """Return a bound on the error of the rows' part of the product with v, or of the gradient if v
    is None, and the norm of that part as computed.

    Some of the rows of a sparse block have no product or gradient of their own: of theirs the norm
    is given as 0.
    """
    with shard._lock:
        bounds, computed, scale = shard.bounds, None, _fisher_scale(shard, kind)
        if bounds is None or not np.array_equal(bounds.theta, theta):
            measured = shard.dtype == np.float32 and not shard.layout
            bounds = ErrorPass(shard, theta, _layout(shard, theta), measured)
            vars(shard)["bounds"] = bounds
        if not shard.layout:
            plan = shard._bound(theta, v is None)
            if v is None:
                computed = plan.gradient
            else:
                computed = np.empty_like(v)
                plan.multiply(v, computed, kind, None, False)
        found = computed if bounds.measured else None
        error = bounds.gradient(found) if v is None else bounds.product(v, kind, found)
    return float(error) * scale, 0.0 if computed is None else norm(computed) * scale


def columns_part(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Return bounds (n,) on the errors of the rows' part of products with unit vectors."""
    with shard._lock:
        layout = _layout(shard, theta)
    return column_bounds(ErrorPass(shard, theta, layout), kind) * _fisher_scale(shard, kind)


def _fisher_scale(shard: Any, kind: str) -> float:
    """Return the factor that converts the Fisher of the shard's own rows to its part of the whole,
    1 for other kinds, and where the layout tells the number of all rows. It is rounded twice, which
    callers of `sum_rounding` count as two additions.
    """
    own = kind == "fisher" and not shard.layout
    return float(shard.fisher_scale) * (1 + 1e-12) if own else 1.0


# --- proofs
# --------------------------------------------------------------------------------------------------


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


def witnesses_part(shard: Any) -> Witnesses:
    return witnesses(rows_that_count(shard))


def lower_part(shard: Any) -> list[float]:
    return [majorants.loss_lower_bound(shard)]


def classified_part(shard: Any, theta: Floats) -> tuple[int, int]:
    """Return ``(a, b)``: a is 0 if every row of positive weight is proved to be classified
    correctly, else 1; b is 1 if there is a row of positive weight, else 0.
    """
    counts = shard.sample_weight is None or bool(np.any(shard.sample_weight))
    return int(not majorants.classified(shard, theta)), int(counts)


def signs_part(shard: Any, theta: Floats, radius: float) -> tuple[Any, Any]:
    """Return masks, by hidden layer, of the units that may be on somewhere on the ball, and of
    those with a z at a kink at theta. A sum of masks is their "or".
    """
    here, *ball = majorants.signs(shard, theta, 0.0, *[radius] * (radius > 0))
    return tuple(~off for off in (ball or [here])[0].off), tuple(here.on_kinks)


def floor_part(shard: Any, theta: Floats) -> tuple[float, float]:
    """Return a lower bound on the eigenvalues of the rows' part of the Hessian, and its absolute
    value.
    """
    floor = majorants.curvature_floor(shard, theta)
    return floor, abs(floor)


# --------------------------------------------------------------------------------------------------
# What an objective by blocks has in place of the engine's plan.


class SumPlan:
    """A plan for an objective whose facts are sums over shards, with the interface of the engine's
    plan.

    Binding to a point costs nothing; value and gradient are computed on first use and kept. `norms`
    holds, by index, the sum over shards of the norms of the parts, for each unit vector multiplied
    at theta. The objective is held by a weak reference: it has plans of its own, and would
    otherwise keep its files and maps open until a collection of cycles.
    """

    in_place = False
    theta: Any
    norms: dict[int, float]
    _value: Any
    _gradient: Any

    def __init__(self, ob: Any) -> None:
        self._owner = weakref.ref(ob)
        self.unbind()

    @property
    def ob(self) -> Any:
        """The objective, which whoever uses the plan holds."""
        return self._owner()

    def unbind(self) -> None:
        """Forget theta and all results at it."""
        self.theta = self._value = self._gradient = None
        self.norms = {}

    @to_nearest
    def bind(self, theta: np.ndarray, gradient: bool = True, transient: bool = False) -> None:
        """Set the current parameters to a copy of theta, shape (n,)."""
        self.unbind()
        self.theta = np.array(theta, order="C")
        self.theta.flags.writeable = False

    def take(self, source: Any, theta: np.ndarray, **how: Any) -> bool:
        """Return False: a plan over shards cannot take over a point as the engine's plans can."""
        return False

    def _sum(self, part: Callable[..., Any], *arguments: Any) -> Any:
        return self.ob._fold(part, (self.theta, *arguments), dense=False)

    @to_nearest
    def finish(self) -> None:
        """Compute value and gradient, by one pass over the shards."""
        if self._gradient is None:
            value, gradient = self._sum(gradient_part)
            self._value = self._with_decay(value)
            self._gradient = self._decayed(gradient, self.theta).astype(self.ob.dtype, copy=False)

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
            self._value = self._with_decay(self._sum(value_part))
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
        whole, norms = self._sum(product_part, Vt, kind, active)
        if active is None and np.count_nonzero(Vt) == len(Vt):
            at = Vt.argmax(axis=1)
            if (Vt[np.arange(len(Vt)), at] == 1).all():
                self.norms.update(zip(at.tolist(), norms))
        if l2:
            whole = self._decayed(whole, Vt)
        out[...] = whole.reshape(out.shape)

    @to_nearest
    def quadratic(self, v: np.ndarray, kind: str = "hessian", active: Any = None) -> np.ndarray:
        """Return the quadratic forms without l2 of v (n,), or of the rows of v (k, n), as an array
        (k,).
        """
        return np.asarray(self._sum(quadratic_part, np.atleast_2d(v), kind, active))

    @to_nearest
    def jacobian(self, v: np.ndarray, out: np.ndarray, transpose: bool = False) -> None:
        """Write ``J v`` to `out` (N d_out,), or ``J' v`` to `out` (n,) if `transpose`."""
        order = self.ob._order
        if transpose:
            u = v if order is None else v.reshape(len(order), -1)[order].reshape(-1)
            out[...] = self._sum(vjp_part, u)
            return
        for first, part in self._sum(jvp_part, v):
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


class SumBounds:
    """Bounds on the rounding errors of sums over shards at one theta: the sum of the shards'
    bounds, each computed where the shard is, plus the rounding errors of adding the parts.

    If `measured`, the bounds hold for a gradient or a product as computed, which must be given.
    Bounds over sparse rows are so: of a sum over all rows at once, of which some at a time are made
    dense. In float32 what is given is compared with a sum in float64.
    """

    def __init__(self, ob: Any, theta: Any) -> None:
        self.ob, self.theta = ob, np.asarray(ob.model.check_theta(theta))
        self.measured = bool(ob._sparse)

    def gradient(self, computed: Any = None) -> float:
        """Return a bound on the error of the gradient."""
        return self.product(None, "hessian", computed)

    def product(self, v: Any, kind: str, computed: Any = None) -> float:
        """Return a bound on the error of the product with v (n,), or of the gradient if v is
        None.
        """
        ob, fisher = self.ob, kind == "fisher"
        if computed is not None and ob.dtype == np.float32:
            double = ob.astype(np.float64)
            plan, exact = double._new_plan(), np.empty(len(self.theta))
            plan.bind(double.model.check_theta(self.theta))
            if v is None:
                exact = plan.gradient
            else:
                v = v.astype(np.float64)
                plan.multiply(v, exact, kind, None, not fisher)
            own = SumBounds(double, plan.theta)
            return own.product(v, kind, exact) + norm(exact - computed)
        found = ob._fold(bound_part, (self.theta, v, kind))
        if self.measured:
            found = found[0], norm(computed)
        moved = self.theta if v is None else v
        decay = np.zeros(1) if fisher else l2_diagonal(ob) * moved.astype(np.float64)
        return sum_rounding(found, additions(ob.n_shards) + 2 * fisher, decay, ob.dtype)

    def columns(self, kind: str, norms: dict[int, float]) -> np.ndarray:
        """Return bounds ``(n,)`` on the errors of products with every unit vector; `norms` as in
        `SumPlan`.
        """
        ob, fisher = self.ob, kind == "fisher"
        bounds = np.asarray(ob._fold(columns_part, (self.theta, kind)))
        decay = np.broadcast_to(0.0 if fisher else l2_diagonal(ob), bounds.shape)
        deep = additions(ob.n_shards) + 2 * fisher
        found = ((b, norms[i]) for i, b in enumerate(bounds))
        return np.array([sum_rounding(b, deep, d[None], ob.dtype) for b, d in zip(found, decay)])


# --------------------------------------------------------------------------------------------------
# Certified facts: each statement about all rows is combined from statements about the rows of each
# shard. Bounds and counts add up, and a property of every row must hold in every shard. Statements
# that would need all rows in one place are not made.


class SumCertificates(Certificates):
    """`Certificates` of an objective whose facts are sums over shards."""

    growth = 1 + 1e-9

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

    @property
    def loss_lower_bound(self) -> float:
        """A lower bound on the loss over all theta."""
        return float(self._once("lower", (), lambda: min(self.objective._fold(lower_part, ()))))

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction along which the loss is proved to decrease forever, or None."""
        ob, at = self.objective, checked_theta(self.objective, theta)
        row = LOSSES[ob.loss]
        if row.given is None and (row.attained or self.loss_lower_bound < 0):
            return None
        along = majorants.along_biases(
            ob, *self._once("pulls", (), lambda: ob._fold(majorants.pulls, ()))
        )
        if row.given is not None:
            return along
        direction = majorants.last_layer(ob, at)
        if along is not None or majorants.decayed(ob, direction):
            return along
        found = self._once("ray", (at,), lambda: self._sum(classified_part, at))
        return direction if found[0] == 0 and found[1] else None

    def residual_bounds(self, theta: ArrayLike, radius: float) -> None:
        """Return None: the Jacobian of all rows is not formed for an objective in shards."""

    def relu_rows(self) -> None:
        """Return None: minima on kinks are not proved for an objective in shards."""

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return the proved symmetry groups at theta for all rows, from the units that are off in
        every shard and from a few rows that show all dependencies between columns.
        """
        ob, at = self.objective, checked_theta(self.objective, theta)
        on, near = self._once(
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
        return orbits(whole, at, [~units for units in on], list(near))

    def curvature_floor(self, theta: ArrayLike) -> float:
        """Return a lower bound on the eigenvalues of the Hessian, or -inf: the sum of the shards'
        bounds plus l2.
        """
        floor, size = self._sum(floor_part, theta)
        least = float(np.min(l2_diagonal(self.objective)))
        found = least + floor - 1e-12 * (least + size)
        return float(found) if np.isfinite(found) else -np.inf
