"""Quantities of an objective as sums over blocks of its rows: blocks of a file that are read in
turn, sparse rows, or parts on other machines.

Every quantity that an algorithm needs is a sum over rows, so it is a sum over blocks:

    f(theta) = sum over shards of f_s(theta)  +  l2/2 ||theta||^2,     f_s = sum of rows / divisor

where the divisor is that of all rows. A shard is an objective of the rows of a block with that
divisor and without l2. Each quantity is computed by a function ``part(shard, *arguments)`` that can
be sent to the process that holds the shard. ``ob._sum_over_shards(part, arguments, dense)`` returns
the sum of the parts. `SumPlan` has the interface of the plan in the engine, so operators need not
distinguish whether the engine has all rows at once.

The sum is a tree of fixed shape: the parts of `TREE_ARITY` neighbours are added from the left, then
those sums by `TREE_ARITY`, and so on (`TreeSum`). Its shape depends on the number of shards
alone, so results are bitwise independent of the number of workers and of the order in which they
finish; and no number passes through more roundings than the tree is deep.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _engine
from ..common.protocols import Array
from ..structure.parameters import l2_diagonal
from ..structure.tables import LossName
from .mlp import MLP

if TYPE_CHECKING:
    from ..structure.user_functions import Loss

# --------------------------------------------------------------------------------------------------
# The tree of fixed shape.

TREE_ARITY = 8  # number of parts that are added at each node of the tree


def add_parts(a: Array, b: Array, own: bool = False) -> Array:
    """Return ``a + b`` for numbers, arrays, objects with ``+``, and tuples of these. If `own` is
    True, float64 arrays of `a` are overwritten by the sum.

    Float32 arrays are added in float64. The caller rounds the total at the end.
    """
    if isinstance(a, tuple):
        return tuple(add_parts(x, y, own) for x, y in zip(a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        if own and a.dtype == np.float64:
            return np.add(a, b, out=a)
        return np.add(a, b, dtype=np.float64)
    return a + b


def sum_parts(parts: list[Any]) -> Array:
    """Return the sum of the parts, added from the left. No part is modified."""
    return reduce(add_parts, parts)


class TreeSum:
    """The sum of parts that are added one by one, in the same order as by a tree of `sum_parts`
    over `TREE_ARITY` parts.

    Examples
    --------
    >>> tree = TreeSum()
    >>> for part in range(100):
    ...     tree.add_part(part)
    >>> tree.total()
    4950
    """

    def __init__(self) -> None:
        self.levels: list[list[Any]] = []  # [sum, number of parts in the sum] for each level

    def add_part(self, part: Any, level: int = 0) -> None:
        """Add a part to a level of the tree, which takes ownership of the arrays of the part."""
        if level == len(self.levels):
            self.levels.append([None, 0])
        here = self.levels[level]
        here[0] = part if not here[1] else add_parts(here[0], part, True)
        here[1] = here[1] + 1
        if here[1] == TREE_ARITY:
            whole = here[0]
            here[0] = None
            here[1] = 0
            self.add_part(whole, level + 1)

    def total(self) -> Any:
        """Return the sum of all parts, or None if there are none."""
        whole = None
        for part, count in self.levels:
            if count:
                whole = part if whole is None else add_parts(part, whole, True)
        return whole


def sum_over_rows(ob: Any, part: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``part(ob, *arguments)`` or, if the rows of the objective come in blocks, the sum of
    ``part(shard, *arguments)`` over its shards.
    """
    return ob._sum_over_shards(part, arguments) if ob._by_blocks else part(ob, *arguments)


# --------------------------------------------------------------------------------------------------
# Functions evaluated where a shard is held: the contribution of its rows to a sum.


@dataclass(frozen=True)
class ShardSettings:
    """The settings that all shards of an objective share.

    Attributes
    ----------
    model : MLP
        The network.
    loss : str or Loss
        The loss, as for `Objective`.
    n_samples : int
        Number of rows of all shards together.
    n_threads : int or None
        Number of threads, as for `Objective`.
    keep : int
        Number of points theta whose state a shard keeps.
    """

    model: MLP
    loss: LossName | Loss
    n_samples: int
    n_threads: int | None = None
    keep: int = 1


def shard_value(shard: Any, theta: np.ndarray) -> float:
    """Return the contribution of the rows of the shard to the value, without l2."""
    with shard._lock:
        return float(shard._bind_plan(theta, False).value)


def shard_gradient(shard: Any, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the contributions, without l2, of the rows of the shard to the value and to the
    gradient.
    """
    with shard._lock:
        plan = shard._bind_plan(theta, True)
        gradient = plan.gradient
        plan.release_gradient()
        return float(plan.value), gradient


def shard_product(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Array
) -> np.ndarray:
    """Return the contributions (k, n) of the rows of the shard to the products of the curvature
    `kind` with the rows of Vt (k, n). If `active` is given, the entries of layers for which it is
    False are 0.
    """
    # The entries of inactive layers remain 0.
    out = np.empty_like(Vt) if active is None else np.zeros_like(Vt)
    with shard._lock:
        shard._bind_plan(theta, False).multiply(Vt, out, kind, active, False)
    if kind == "fisher":
        out *= shard.dtype.type(shard.fisher_scale)
    return out


def shard_quadratic_forms(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Array
) -> np.ndarray:
    """Return the contribution (k,) of the rows of the shard to the quadratic forms of the rows of
    Vt (k, n), on all layers or, if `active` is given, on those for which it is True.
    """
    with shard._lock:
        forms = shard._bind_plan(theta, False).quadratic_forms(Vt, kind, active)
    return np.asarray(forms * (shard.fisher_scale if kind == "fisher" else 1.0))


def shard_diagonal(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Return the contribution (n,) of the rows of the shard to the diagonal of the curvature `kind`
    without l2.
    """
    with shard._lock:
        diagonal = shard._bind_plan(theta, False).diagonal(kind)
    return np.asarray(diagonal * (shard.fisher_scale if kind == "fisher" else 1.0))


def shard_jvp(shard: Any, theta: np.ndarray, v: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return ``[(first, J v)]`` for the rows of the shard, where `first` is the index of their
    first output among the outputs of all rows.
    """
    mine = shard.own_outputs
    out = np.empty(mine.stop - mine.start, shard.dtype)
    with shard._lock:
        shard._bind_plan(theta, False).multiply_jacobian(v, out)
    return [(mine.start, out)]


def shard_vjp(shard: Any, theta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the contribution (n,) of the rows of the shard to ``J' u``, for u (N d_out,) over the
    outputs of all rows.
    """
    out = np.empty(shard.n_params, shard.dtype)
    with shard._lock:
        plan = shard._bind_plan(theta, False)
        plan.multiply_jacobian(np.ascontiguousarray(u[shard.own_outputs]), out, True)
    return out


# --------------------------------------------------------------------------------------------------
# The plan of an objective by blocks, in place of the engine's plan.


class SumPlan:
    """A plan for an objective whose values are sums over shards, with the interface of the engine's
    plan.

    Binding to a point takes no time, because value and gradient are computed on first use and
    cached. The plan refers to the objective weakly, because the objective holds
    plans, and a cycle of references would keep its files and maps open until the next garbage
    collection.
    """

    allows_in_place = False
    theta: Any
    _value: Any
    _gradient: Any

    def __init__(self, ob: Any) -> None:
        self._owner = weakref.ref(ob)
        self.unbind()

    @property
    def ob(self) -> Any:
        """The objective. The caller of the plan holds a reference to it."""
        return self._owner()

    def unbind(self) -> None:
        """Drop theta and all results that belong to theta."""
        self.theta = self._value = self._gradient = None

    def bind(self, theta: np.ndarray, gradient: bool = True, transient: bool = False) -> None:
        """Set the current point to a copy of theta (n,). The other arguments have no effect."""
        self.unbind()
        self.theta = np.array(theta, order="C")
        self.theta.flags.writeable = False

    def bind_copy(self, source: Any, theta: np.ndarray, **how: Any) -> bool:
        """Return False, which means that nothing was copied and the caller must call `bind`."""
        return False

    def _sum_over_shards(self, part: Callable[..., Any], *arguments: Any) -> Any:
        return self.ob._sum_over_shards(part, (self.theta, *arguments), dense=False)

    def compute_gradient(self) -> None:
        """Compute value and gradient in one pass over the shards."""
        if self._gradient is None:
            value, gradient = self._sum_over_shards(shard_gradient)
            self._value = self._add_decay(value)
            self._gradient = self._add_l2_product(gradient, self.theta).astype(
                self.ob.dtype, copy=False
            )

    def prepare_products(self) -> None:
        """Do nothing: unlike a plan of the engine, this plan needs no preparation for products."""

    def release_gradient(self) -> None:
        """Drop the gradient, since the caller now owns the array."""
        self._gradient = None

    @property
    def value(self) -> float:
        """The loss at theta."""
        if self._value is None:
            self._value = self._add_decay(self._sum_over_shards(shard_value))
        return float(self._value)

    @property
    def gradient(self) -> np.ndarray:
        """The gradient at theta, (n,)."""
        self.compute_gradient()
        return np.asarray(self._gradient)

    def _add_l2_product(self, whole: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ``whole + l2 v``, in float64."""
        l2 = l2_diagonal(self.ob)
        return whole + np.multiply(l2, v, dtype=np.float64) if np.any(l2) else whole

    def _add_decay(self, value: float) -> float:
        wide = self.theta.astype(np.float64)
        return value + 0.5 * float(np.sum(l2_diagonal(self.ob) * wide * wide))

    def multiply(
        self,
        v: np.ndarray,
        out: np.ndarray,
        kind: str = "hessian",
        active: Any = None,
        l2: bool = True,
    ) -> None:
        """Write the products of the curvature `kind` with v (n,), or with the rows of v (k, n), to
        `out`, with l2 if `l2` is True. If `active` is given, the loss contributes 0 in the layers
        for which it is False.
        """
        Vt = np.atleast_2d(v)
        product = self._sum_over_shards(shard_product, Vt, kind, active)
        if l2:
            product = self._add_l2_product(product, Vt)
        out[...] = product.reshape(out.shape)

    def quadratic_forms(
        self, v: np.ndarray, kind: str = "hessian", active: Any = None
    ) -> np.ndarray:
        """Return the quadratic forms without l2 of v (n,), or of the rows of v (k, n), as an array
        (k,).
        """
        return np.asarray(
            self._sum_over_shards(shard_quadratic_forms, np.atleast_2d(v), kind, active)
        )

    def diagonal(self, kind: str = "hessian") -> np.ndarray:
        """Return the diagonal (n,) of the curvature `kind`, without l2. Sparse rows are converted
        to dense blocks.
        """
        return np.asarray(self.ob._sum_over_shards(shard_diagonal, (self.theta, kind)))

    def multiply_jacobian(self, v: np.ndarray, out: np.ndarray, transpose: bool = False) -> None:
        """Write ``J v`` to `out` (N d_out,), or ``J' v`` to `out` (n,) if `transpose`."""
        if transpose:
            out[...] = self._sum_over_shards(shard_vjp, v)
            return
        for first, part in self._sum_over_shards(shard_jvp, v):
            out[first : first + len(part)] = part

    @property
    def nbytes(self) -> int:
        """Estimated number of bytes of memory that the plan takes in this process."""
        return 3 * int(self.theta.nbytes)

    @property
    def layout(self) -> dict[str, Any]:
        """Dict with the number of threads, and the name of the kernels in use."""
        return {
            "threads": self.ob.n_threads or _engine.default_n_threads(),
            "arch": _engine.chosen_arch(),
        }
