"""The loss of a network on data, as a function of theta, with its derivatives."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _engine
from ..common.checks import (
    check_bool,
    check_positive,
    check_positive_int,
    is_sparse,
    random_batches,
)
from ..common.errors import conversion_hint, type_phrase
from ..common.html import html_table
from ..common.linalg import NotConvexError
from ..common.protocols import is_library_object, library_class, missing_reason, states
from ..common.read_only import ReadOnlyMixin, read_only_view
from ..common.runtime import with_nearest_rounding
from ..structure.parameters import divisor_of
from ..structure.tables import DEFAULT_LOSS, LOSSES, LossName, check_loss, unbounded_reason
from . import row_views
from .arguments import (
    as_vector,
    check_dtype,
    check_memory_bytes,
    check_rows_and_targets,
    select_rows,
    zero_unused_large_entries,
)
from .mlp import MLP
from .operators import Curvature, EngineSteps, Jacobian, bind_plan_to_copy
from .sparse import SparseRows
from .sums import ShardSettings, SumPlan, TreeSum

if TYPE_CHECKING:
    from ..structure.given import LossFunction
    from ..structure.user_functions import Loss

DEFAULT_MEMORY_BYTES = 1 << 28  # default limit of the memory for blocks of rows
MIN_BLOCK_ROWS = 16  # minimum number of rows of a block
# approximate number of entries for each row and unit in the state and the workspace of a product
STATE_ENTRIES_PER_UNIT = 16
OBJECTIVE_NAME = "fastcurv.Objective"
ASSIGNABLE_ATTRIBUTES = "n_passes", "n_rows_read"  # counters
# A pass takes at most a few milliseconds if (rows + 100) times the number of parameters is <= this.
QUICK_PASS_MAX_WORK = 1 << 22
# minimum size of a gradient that is returned without a copy
NO_COPY_MIN_BYTES = 1 << 20
# objectives and plans that are repaired after a fork, since another thread may have been building
# them
_living: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_living):
        one._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@library_class
class Objective(
    ReadOnlyMixin,
    made_by=OBJECTIVE_NAME,
    assignable=ASSIGNABLE_ATTRIBUTES,
):
    """The mean loss of `model` on the rows of `X`, plus ``l2/2 ||theta||^2``, or ``l2/2`` times the
    squared norm of the weight matrices W alone (see `l2_biases`).

    Parameters
    ----------
    model : MLP
        The network.
    X : array_like (N, sizes[0])
        Referenced, not copied, if it has the model's dtype; the engine may keep a padded copy. Do
        not modify X, float targets or sample_weight afterwards: products may read the padded copy,
        but proofs read the arrays themselves. Use `StreamedObjective` for data that do not fit in
        memory.
        A SciPy sparse matrix is kept as a `csr_matrix`, see Notes.
    y : array_like
        Targets ``(N, d_out)``, or ``(N,)`` if ``d_out`` is 1. For ``cross_entropy`` integer classes
        ``(N,)``, which are copied, or soft targets; for ``binary_cross_entropy`` values from 0 to
        1; for ``poisson`` numbers >= 0, for ``gamma`` > 0; for ``gaussian_nll`` ``(N, d_out / 2)``.
    loss : str or Loss
        ``cross_entropy``, ``mse`` and ``binary_cross_entropy`` are torch's ``CrossEntropyLoss``
        (mean over samples, on logits), ``MSELoss`` and ``BCEWithLogitsLoss`` (mean over all
        entries), ``reduction="mean"``. The other losses are means over all entries of outputs z and
        targets y:

        - ``poisson``: ``exp(z) - y z + y log y - y``, half the Poisson deviance;
        - ``gamma``: ``y exp(-z) + z - log y - 1``, half the gamma deviance;
        - ``pseudo_huber`` (delta 1; see `Loss.pseudo_huber`) and ``log_cosh``: quadratic in small
          residuals, linear in large ones;
        - ``quantile``: the median; see `Loss.quantile`;
        - ``gaussian_nll``: ``(s + (z - y)^2 exp(-s)) / 2`` of means z, the first half of the
          outputs, and logarithms of variances s, the second half; it has no lower bound.

        Or a loss of your own, see `Loss`.
    l2 : float
        Weight decay, as torch's ``weight_decay``; included in value, gradient, Hessian and GGN.
    sample_weight : array_like (N,), optional
        Nonnegative weights, each of which scales one sample's term; the divisor stays N (or N
        d_out). A row of weight 0 adds exactly 0, also if its loss overflows. With batch
        normalisation its inputs still enter the means and variances. The entries of X in such a row
        that exceed the root of the largest number of the dtype are replaced by 0.
    n_threads : int, optional
        Number of threads of the engine and of algorithms. Default: ``FASTCURV_NUM_THREADS``, else
        as many as CPU affinity and cgroup limits allow. Results are bitwise independent of this
        number.
    memory : int, optional
        Bytes that one operator's state may take. If the state needs more, rows are processed in
        chunks and the state is recomputed for each product. The chunks depend on the sizes and on
        `memory` alone. Fewer threads are used if there is not enough memory for more.
    l2_biases : bool
        If False, l2 applies to the weight matrices W alone, not to the biases b nor to gamma and
        beta of batch normalisation. This is scikit-learn's ``alpha``, with ``l2 = alpha / N``.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not match, NaN or infinity, labels out of range, unknown names.

    See Also
    --------
    minimize, classify, find_critical_point : Algorithms that take an objective.
    StreamedObjective : For rows that do not fit in memory.

    Notes
    -----
    Attributes and their arrays are read-only. A subclass may replace functions of the loss, such as
    `value`; nothing is proved about a subclass, see `certificates`. X, y, sample_weight, l2 and
    theta must be finite, including every entry of a masked array; otherwise `ValueError` is raised.
    The vectors of products may hold NaN or infinity, which propagates to the result.

    The state kept at theta is ``a``, ``phi'``, ``e phi''`` and ``delta`` of every layer and W
    packed in both orders: ``2 N sum(widths)`` to ``4 N sum(widths)`` numbers for thousands of rows,
    plus ``2 n`` and the scratch of each thread; `Curvature.nbytes` is exact. For a network of at
    most 256 KiB of parameters (1.25 MiB if its layers are narrow), up to 16 vectors are multiplied
    at a time, if `memory` permits. Each of them needs about 20 n numbers, for V packed in both
    orders and up to 16 partial sums, and each thread has scratch for 4 of them. Batch normalisation
    keeps two more numbers for each row and hidden unit. The statistics are those of all rows,
    whatever their weights. If `memory` forces chunks, they are computed first, by two passes per
    hidden layer at theta, and two more for each vector.

    With a sparse X, products with X and its transpose cost ``2 nnz width`` flops, and the state
    above the first layer is kept for all rows. Proofs (bounds on rounding and on the third
    derivative, symmetries, kinks) make blocks of rows dense, one at a time, within `memory`. Batch
    normalisation raises ValueError, and `reduced`, `range_space` and `residual_bounds` are not
    available. The attribute ``n_passes`` counts passes over all rows.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    >>> model = fc.MLP([4, 8, 3])
    >>> ob = fc.Objective(model, X, y)
    >>> theta = model.init(seed=0)
    >>> H = ob.hessian(theta)
    >>> v = rng.standard_normal(model.n_params)
    >>> bool(np.isclose(v @ (H @ v), H.quadratic_form(v)))
    True

    Sparse rows:

    >>> from scipy.sparse import random
    >>> X, y = random(60, 40, 0.1, format="csr", random_state=0), np.arange(60) % 3
    >>> model = fc.MLP([40, 8, 3])
    >>> ob, theta = fc.Objective(model, X, y), model.init(seed=0)
    >>> dense = fc.Objective(model, X.toarray(), y)
    >>> bool(np.allclose(ob.hessian(theta) @ theta, dense.hessian(theta) @ theta))
    True
    """

    model: MLP
    loss: LossName | Loss
    l2: float
    l2_biases: bool
    n_threads: int | None
    memory: int | None
    # `n_shards`, `n_passes` and `block_rows` belong to objectives by blocks only.
    n_shards: int
    n_passes: int
    block_rows: int
    # True if values are sums over blocks; otherwise the engine holds all rows
    _by_blocks: bool = False
    _sparse: bool = False  # True if X is sparse
    # index in the caller's order of each row of the blocks, or None if the orders are equal
    _order: Any = None
    # The class `Shard`. Shards are objectives, so the package sets the class.
    _shard_type: ClassVar[Any]
    _whole: Any  # shard of all rows of a sparse X
    _rows: Any
    _shares_rows: bool = False  # True if an operator or another objective may read `_rows`
    _X: Any  # rows, targets and weights in the form that the engine uses
    _untamed: Any = None  # X before `zero_unused_large_entries`, or None if X was not changed
    _y: Any
    _weight: Any
    _n_samples: int
    _plan: Any
    _spare: list[Any]
    _made: dict[int, Objective]
    _unbounded_reason: str  # reason why the loss or an activation has no known bounds, or ""
    _lock: Any
    _theta: np.ndarray
    # attributes that are neither copied nor saved
    _transient: tuple[str, ...] = (
        "_rows",
        "_shares_rows",
        "_plan",
        "_theta",
        "_spare",
        "_lock",
        "_made",
        "_whole",
    )

    def __init__(
        self,
        model: MLP,
        X: Any,
        y: Any = None,
        loss: LossName | Loss = DEFAULT_LOSS,
        l2: float = 0.0,
        sample_weight: Any = None,
        n_threads: int | None = None,
        memory: Any = None,
        *,
        l2_biases: bool = True,
    ) -> None:
        own = self.__dict__  # `__dict__` is faster than assigning attributes
        own["_by_blocks"] = own["_sparse"] = is_sparse(X)
        self._check_settings(model, loss, l2, l2_biases, n_threads, memory)
        if y is None:
            raise TypeError(
                "y must hold the targets of all rows of X (N, d), got None. Use "
                "X, y = (torch.cat(part) for part in zip(*loader)) for a loader of batches, or "
                "StreamedObjective."
            )
        own["_X"], own["_y"], own["_weight"] = check_rows_and_targets(
            model, loss, (X, y, sample_weight), tame=False
        )
        self._zero_unused_rows()
        self._set_up_rows()

    def _check_settings(
        self, model: Any, loss: Any, l2: float, l2_biases: bool, n_threads: Any, memory: Any
    ) -> None:
        """Check and store all arguments of the constructor except the rows."""
        if not isinstance(model, MLP):
            raise TypeError(
                f"model must be a fastcurv.MLP, got {type_phrase(model)}.{conversion_hint(model)}"
            )
        loss = check_loss(loss)
        if n_threads is not None:
            n_threads = check_positive_int(n_threads, "n_threads", 2**31 - 1)
        memory = memory if memory is None else check_memory_bytes(memory)
        own = self.__dict__
        own["model"], own["loss"], own["n_threads"], own["memory"] = model, loss, n_threads, memory
        own["l2"] = check_positive(l2, "l2", zero=True)
        own["l2_biases"] = check_bool(l2_biases, "l2_biases")
        own["_unbounded_reason"] = unbounded_reason(loss, model.activation)
        if self._by_blocks and model.batch_norm:
            dense = " of a dense X" if self._sparse else ""
            raise ValueError(
                f"{type(self).__name__} does not support a model with batch normalisation, whose "
                "statistics depend on all rows together. Use a model without it, or an "
                f"Objective{dense}."
            )

    @property
    def X(self) -> Any:
        """The rows ``(N, sizes[0])``: a read-only array, or a new `csr_matrix` of read-only
        arrays.
        """
        return read_only_view(self._X)

    @property
    def y(self) -> Any:
        """The targets, or class labels in int32, as a read-only array."""
        return read_only_view(self._y)

    @property
    def sample_weight(self) -> Any:
        """The weights of the rows as a read-only array, or None."""
        return read_only_view(self._weight)

    def _set_up_rows(self) -> None:
        """Set up the state for the rows of X, y and sample_weight."""
        self._determine_loss_properties()
        if not self._sparse:
            self._adopt_rows(_engine.Rows(*self._engine_arguments()))
            return
        self._set_up_sparse_rows(SparseRows(self._X, self.n_threads))

    def _set_up_sparse_rows(self, rows: Any) -> None:
        """Set up the state for sparse rows, given as `SparseRows`."""
        self._n_samples = self._X.shape[0]
        self._create_process_state()
        self._whole = self._shard_type(self._shard_settings(2), rows, self._y, self._weight)
        size = max(MIN_BLOCK_ROWS, min(self.n_samples, self._max_dense_rows))
        vars(self).update(block_rows=size, n_shards=-(-self.n_samples // size), n_passes=0)

    def _zero_unused_rows(self) -> None:
        """Set entries of X in rows of weight 0 to 0 if they could make hidden units overflow."""
        own, X = self.__dict__, self._X if self._untamed is None else self._untamed
        own["_X"] = zero_unused_large_entries(self.model, X, self._weight)
        own["_untamed"] = None if own["_X"] is X else X

    def _determine_loss_properties(self) -> None:
        """Determine the properties of a user-defined loss on which the layout of a plan depends."""
        given = LOSSES[self.loss].given
        if given is not None:
            given.determine_properties(self.y, self.model.sizes[-1], self.sample_weight)

    def _shard_settings(self, keep: int = 1) -> Any:
        return ShardSettings(self.model, self.loss, self.n_samples, self.n_threads, keep)

    @property
    def _memory_limit(self) -> int:
        # The remaining tenth is for the heap and the scratch buffers of the threads.
        return (DEFAULT_MEMORY_BYTES if self.memory is None else int(self.memory)) * 9 // 10

    @property
    def _max_dense_rows(self) -> int:
        """The number of sparse rows that can be converted to a dense array at a time within the
        memory limit.
        """
        return self._memory_limit // (8 * STATE_ENTRIES_PER_UNIT * sum(self.model.sizes))

    def _engine_arguments(self) -> tuple[Any, ...]:
        """Return X, float targets or None, int32 labels or None, and weights or None for the
        engine.
        """
        labels = self._y if self._y.dtype == np.int32 else None
        return self._X, None if labels is not None else self._y, labels, self._weight

    def _adopt_rows(self, rows: Any) -> None:
        """Store the rows in the engine's form, `_engine.Rows`, and set up the process state."""
        own = self.__dict__
        own["_rows"], own["_X"], own["_weight"] = rows, rows.X, rows.weight
        own["_y"], own["_n_samples"] = rows.y if rows.labels is None else rows.labels, len(rows.X)
        self._create_process_state()

    def _create_process_state(self) -> None:
        """Create the state that belongs to this process: no plan, no spare plans, and a new
        lock.
        """
        own = self.__dict__
        own["_plan"], own["_spare"], own["_lock"] = None, [], _engine.Lock()
        _living.add(self)

    def _after_fork(self) -> None:
        """Drop an unfinished plan in a child of `os.fork`, where the thread that was building it
        does not exist.
        """
        if self._lock.lost:
            self._plan = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in self.__dict__.items() if name not in self._transient}

    def __setstate__(self, state: Any) -> None:
        """Restore a copy or a pickle. The settings and rows are checked as by the constructor,
        because the engine relies on them.
        """
        own = self.__dict__
        own.update(state)
        if "_by_blocks" in state:  # set by the constructor for rows in memory
            settings = self.loss, self.l2, self.l2_biases, self.n_threads, self.memory
            self._check_settings(self.model, *settings)
            own["_X"], own["_y"], own["_weight"] = check_rows_and_targets(
                self.model, self.loss, (self._X, self._y, self._weight), tame=False
            )
        self._set_up_rows()

    def _copy_without_row_state(self) -> Any:
        """Return a copy that must be started (`_set_up_rows`) after it has been modified."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__getstate__())
        return other

    def __repr__(self) -> str:
        spared = "" if self.l2_biases else ", l2_biases=False"
        data = f"N={self.n_samples}, loss={self.loss!r}, l2={self.l2:g}{spared}"
        return f"Objective({self.model!r}, {data}{self._describe_rows()})"

    def _repr_html_(self) -> str:
        rows = [
            ("model", repr(self.model)),
            ("parameters", self.n_params),
            ("samples", self.n_samples),
            ("loss", self.loss),
            ("l2", f"{self.l2:g}" + ", not of biases" * (not self.l2_biases)),
        ]
        return html_table(type(self).__name__, [], rows)

    def _describe_rows(self) -> str:
        """Return text about the rows for the repr, such as ", nnz=120", or ""."""
        return f", nnz={self._X.nnz}" if self._sparse else ""

    @property
    def n_params(self) -> int:
        """Number of parameters, the length of theta."""
        return self.model.n_params

    @property
    def n_samples(self) -> int:
        """The number of rows of X."""
        return self._n_samples

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of theta and of all results."""
        return self.model.dtype

    @property
    def certificates(self) -> Any:  # returns Certificates or None
        """Proved statements about the loss near theta: bounds on its third derivative, gradients in
        extended precision, symmetries, kinks and others, which verdicts use; see
        `fastcurv.certify.certificates.Certificates`.

        The attribute is None for an object of a subclass, unless the body of its class has
        ``certificates = fc.Objective.certificates``, by which the class states that its loss is
        that of `Objective`. If a `Loss` or `Activation` has no `third_bound` or `error_ulps`, only
        kinks, ranges and saturation are available.
        """
        if not states(self, "certificates"):
            return None
        # Proofs are built on objectives, and users read them from the objective.
        from ..certify.certificates import Certificates, ForwardCertificates
        from ..certify.sums import SumCertificates

        proofs = SumCertificates(self) if self._by_blocks else Certificates(self)
        return ForwardCertificates(proofs) if self._unbounded_reason else proofs

    # --- plans: creating, binding, lending and taking back

    @property
    def why_unproved(self) -> str:
        """Reason why nothing can be proved about the loss, or ""."""
        if self._unbounded_reason or is_library_object(self):
            return self._unbounded_reason
        return missing_reason(self, "certificates")

    def _new_plan(self) -> Any:  # returns a plan of the engine, or an object with the same methods
        if self._by_blocks:
            return SumPlan(self)
        m, threads = self.model, self.n_threads or _engine.default_n_threads()
        net, loss = (
            (m.sizes, m.activation, m.skips, m.bias),
            (str(self.loss), divisor_of(self), self.l2),
        )
        facts = *net, self._rows, *loss, threads, self.memory or 0
        options: dict[str, Any] = {"l2_biases": self.l2_biases}
        asked = LOSSES[self.loss].given
        if asked is not None:
            options["given"] = partial(asked.weighted_derivatives, divisor_of(self), self.dtype)
            options["coupled"] = asked.coupled
        plan = _engine.Plan(*facts, batch_norm=m.batch_norm, **options)
        _living.add(plan)
        return plan

    @with_nearest_rounding
    def rounding_bound(self, theta: Any) -> float | None:
        """Return a bound on ``||computed(gradient) - gradient||`` at theta; see `fastcurv.certify`.
        Return None if the loss or an activation is user-defined without `error_ulps`, or in a
        subclass that does not define `rounding_bound` or `certificates`.

        In float32 the gradient is compared with a float64 pass, so the bound is close to the actual
        error. In float64 the bound is a worst case. The cost is that of about 10 gradients in
        NumPy.
        """
        if self.why_unproved or not states(self, "rounding_bound"):
            return None
        bounds = self._error_bounds_at(theta)
        return float(bounds.gradient_error_bound(self.gradient(theta) if bounds.measured else None))

    def _error_bounds_at(self, theta: Any, layout: Any = None) -> Any:
        """Return an `ErrorPass` or `SumErrorBounds` at theta, which bounds rounding errors, for
        rows divided as in `layout`. In float32 the bounds hold for the computed results only.
        """
        # Proofs are built on objectives, and `rounding_bound` is a method that users call.
        from ..certify.passes import ErrorPass
        from .sum_bounds import SumErrorBounds

        if self._by_blocks:
            return SumErrorBounds(self, theta)
        return ErrorPass(self, theta, layout, self.dtype == np.float32)

    @property
    def _has_gauss_newton_matrix(self) -> bool:
        """True if the engine can compute the Gauss-Newton matrix of a convex loss: if there is no
        batch normalisation, no block of rows and no `memory` limit, and no user-defined loss that
        couples outputs.
        """
        if self._by_blocks or self.model.batch_norm or self.memory:
            return False
        given = LOSSES[self.loss].given
        return given is None or not given.coupled

    @property
    def _has_levenberg_steps(self) -> bool:
        """True if the engine computes Levenberg-Marquardt steps: the Gauss-Newton matrix can be
        computed, the loss is convex in the outputs, and no subclass replaces the loss.
        """
        given = LOSSES[self.loss].given
        known = self._has_gauss_newton_matrix and (given is None or given.convex)
        return known and states(self, "engine_steps")

    @property
    def engine_steps(self) -> Any:
        """The `EngineSteps` for a minimiser of this loss. The caller must not use them in a
        subclass that does not define them.
        """
        return EngineSteps(self)

    @property
    def _has_quick_passes(self) -> bool:
        """True if passes are so short that Python's overhead is noticeable: (rows + 100) times the
        number of parameters is at most `QUICK_PASS_MAX_WORK`. More than one plan of this size may
        be kept.
        """
        return (self.n_samples + 100) * self.n_params <= QUICK_PASS_MAX_WORK

    @property
    def _max_spare_plans(self) -> int:
        """The maximum number of unused plans that are kept for future operators."""
        return 2 if self._has_quick_passes else 1

    def _spare_or_new_plan(self) -> Any:
        """Return a plan for an operator to own: a spare plan of a deleted operator if there is one,
        otherwise a new plan.
        """
        self._shares_rows = True
        plan = self._pop_spare_plan()
        return self._new_plan() if plan is None else plan

    def _pop_spare_plan(self) -> Any:
        """Return a spare plan of a deleted operator, or None if there is none."""
        try:
            return self._spare.pop()
        except IndexError:
            return None

    def _acquire_bound_plan(self, theta: Any) -> Any:
        """Return a plan bound to theta, with the gradient, for an operator to own."""
        plan = self._take_current_plan(theta)
        if plan is None:
            plan = self._spare_or_new_plan()
            bind_plan_to_copy(plan, self, theta, np.empty(self.n_params, self.dtype))
        return plan

    def _take_current_plan(self, theta: Any) -> Any:
        """Return the objective's own plan if it is at theta, has made a forward pass there, and is
        not in use. Otherwise return None.
        """
        known = type(theta) is np.ndarray and theta.dtype == self.dtype
        if not known or self._by_blocks or self._lock.is_held:
            return None
        with self._lock:
            plan = self._plan
            if plan is None or plan.theta is None or not _engine.equal_vectors(plan.theta, theta):
                return None
            self._shares_rows = True
            self._plan, self._theta = self._pop_spare_plan(), np.empty_like(theta)
        plan.prepare_products()
        plan.compute_gradient()
        return plan

    def _return_plan(self, plan: Any) -> None:
        if len(self._spare) < self._max_spare_plans:
            self._spare.append(plan)

    def _bind_plan(self, theta: Any, gradient: bool) -> Any:
        """Return the objective's own plan, bound to theta. If `gradient` is True, the gradient is
        computed.
        """
        if type(theta) is not np.ndarray or theta.dtype != self.dtype or theta.ndim != 1:
            theta = self.model.check_theta(theta)
        plan = self._objective_plan()
        if plan.theta is None or not _engine.equal_vectors(plan.theta, theta):
            plan.unbind()
            bind_plan_to_copy(plan, self, theta, self._theta, gradient=gradient, transient=True)
        elif gradient:
            plan.compute_gradient()
        return plan

    def _objective_plan(self) -> Any:
        """Return the plan for values and gradients, for a caller that holds the lock."""
        if self._plan is None:
            self._plan, self._theta = self._new_plan(), np.empty(self.n_params, self.dtype)
        return self._plan

    # --- the function and its derivatives

    def value(self, theta: Any) -> float:
        """Return the loss at theta as a float.

        Cost: one forward pass, or nothing at the theta evaluated last unless an operator has been
        created there.
        """
        with self._lock:
            return float(self._bind_plan(theta, False).value)

    def gradient(self, theta: Any) -> np.ndarray:
        """Return the gradient ``(n,)`` at theta.

        Cost: a forward and a backward pass, or only the backward pass after `value` at this theta.
        """
        return self.value_and_gradient(theta)[1]

    def value_and_gradient(self, theta: Any) -> tuple[float, np.ndarray]:
        """Return the loss and the gradient ``(n,)``, a pair as SciPy's ``jac=True`` expects."""
        with self._lock:
            plan = self._bind_plan(theta, True)
            gradient = plan.gradient
            assert gradient is not None  # the caller requested the gradient
            if gradient.nbytes < NO_COPY_MIN_BYTES:
                return plan.value, gradient.copy()
            plan.release_gradient()
            return plan.value, gradient

    def hessp(self, theta: Any, v: Any) -> np.ndarray:
        """Return the Hessian at theta times v.

        The state of the last theta is kept, so that this method can be passed to SciPy as
        ``hessp=``.
        """
        v = as_vector(v, self.n_params, self.dtype)
        out = np.empty(self.n_params, self.dtype)
        with self._lock:
            plan = self._bind_plan(theta, False)
            plan.prepare_products()
            plan.multiply(v, out)
        return out

    def outputs(self, theta: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the outputs of all rows and the derivatives of each row's loss with respect to
        them.

        The loss of a row includes `sample_weight`. The value of the objective is the mean of these
        losses plus l2, so the gradient is ``J' first / N`` plus that of l2, with J the `jacobian`.

        Returns
        -------
        z : ndarray (N, d_out)
            The outputs before any softmax or sigmoid.
        first : ndarray (N, d_out)
            The first derivatives. They are 0 for rows of weight 0.
        second : ndarray (N, d_out) or (N, d_out, d_out)
            The second derivatives: a vector of each row if each output has a term of its own,
            else a symmetric matrix of each row, as for ``cross_entropy``.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> ob = fc.Objective(fc.MLP([1, 1]), [[1.0], [2.0]], [0.0, 5.0], loss="mse")
        >>> z, first, second = ob.outputs(np.array([2.0, 0.0]))
        >>> z.ravel(), first.ravel(), second.ravel()
        (array([2., 4.]), array([ 4., -2.]), array([2., 2.]))
        """
        return row_views.outputs(self, theta)

    # --- operators

    def hessian(self, theta: Any) -> Curvature:
        """Return the Hessian at theta as a `LinearOperator`. The operator owns its state, so later
        calls of methods of this objective do not change it.

        Cost: one gradient, or less at the theta evaluated last, and memory for the state. A product
        costs about two gradients, less the work that depends on theta alone, which is done once.
        """
        return self._make_operator(theta, "hessian")

    def _make_operator(self, theta: Any, kind: str) -> Curvature:
        return Curvature(self, theta, kind)

    def ggn(self, theta: Any) -> Curvature:
        """Return the positive semidefinite generalised Gauss-Newton matrix ``(1/N) sum J' (d2
        loss/dz2) J + l2 I``. Raise NotConvexError if the loss has negative curvature at theta.
        """
        given = LOSSES[self.loss].given
        if given is not None and not given.convex:
            self._check_convex(theta, given)
        return self._make_operator(theta, "ggn")

    def _check_convex(self, theta: Any, loss: LossFunction) -> None:
        """Raise NotConvexError, a ValueError, if the loss of a row has negative curvature with
        respect to the outputs at theta.
        """
        part = partial(_min_loss_curvature, loss=loss, theta=self.model.check_theta(theta))
        least = self._sum_over_shards(part, ()) if self._by_blocks else part(self)
        if not min(least) >= 0:
            raise NotConvexError(
                f"loss must have a second derivative >= 0 for ggn, got {loss!r} with a second "
                f"derivative of {min(least):.3g} for some rows. Use another loss, or ob.hessian."
            )

    def empirical_fisher(self, theta: Any) -> Curvature:
        """Return ``(1/N) sum g_n g_n'``, without l2, where g_n is the gradient of sample n's loss.

        Raise ValueError for a model with batch normalisation. Its statistics couple the samples, so
        no sample has a loss of its own.
        """
        if self.model.batch_norm:
            raise ValueError(
                "the model must have no batch normalisation for empirical_fisher, since its "
                "statistics make the gradient of each sample depend on all rows. Use "
                "batch_norm=False."
            )
        return self._make_operator(theta, "fisher")

    def jacobian(self, theta: Any) -> Jacobian:
        """Return the Jacobian of the outputs, ``(N d_out, n)``, as a `LinearOperator`."""
        return Jacobian(self, theta)

    def batch(self, rows: Any) -> Objective:
        """Return the objective on the rows that a slice, indices or a mask select. The divisor is
        the number of selected rows.
        """
        other = self._restrict_to_rows(rows)
        other._set_up_rows()
        return other

    def _restrict_to_rows(self, rows: Any) -> Objective:
        """Return the objective on a subset of the rows. The caller must call `_set_up_rows`."""
        y, X, weight, untamed = select_rows(rows, self._y, self._X, self._weight, self._untamed)
        other: Objective = self._copy_without_row_state()
        weight = None if weight is None else np.ascontiguousarray(weight)
        vars(other).update(_X=X, _y=np.ascontiguousarray(y), _weight=weight, _untamed=untamed)
        return other

    def reweighted(self, sample_weight: Any) -> Objective:
        """Return the same objective with other sample weights. The divisor stays the same. X and y
        are shared, not copied.

        Parameters
        ----------
        sample_weight : array_like (N,) or None
            Weights >= 0, one for each row; None sets all weights to 1.

        Raises
        ------
        ValueError
            For other shapes, negative numbers, NaN or infinity; and for an objective whose rows are
            not in memory, whose weights are set at construction.

        Examples
        --------
        The objective without row 3, divided by the number of all rows:

        >>> import numpy as np, fastcurv as fc
        >>> X, y = np.arange(10.0)[:, None], np.arange(10.0) % 3
        >>> ob = fc.Objective(fc.MLP([1, 2, 1]), X, y, loss="mse")
        >>> theta = ob.model.init(seed=0)
        >>> without = ob.reweighted(np.arange(10) != 3)
        >>> rest = ob.batch(np.arange(10) != 3)
        >>> bool(np.isclose(without.value(theta), 0.9 * rest.value(theta)))
        True
        """
        return row_views.reweighted(self, sample_weight)  # type: ignore[no-any-return]

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Yield objectives on batches of `size` rows that cover every row once, in random order.
        The last batch may be smaller.

        The batches share the engine's buffers: use each one only until the next is requested.

        Yields
        ------
        Objective
            The objective on the rows of a batch, in memory.
        """
        made = self.__dict__.pop("_made", {})  # {number of rows: batch whose plan is reused}
        for rows in random_batches(self.n_samples, size, rng):
            batch, last = self._restrict_to_rows(rows), made.pop(len(rows), None)
            # The buffers of the last batch are reused unless an operator may still read its rows.
            if last is not None and last._plan is not None and not last._shares_rows:
                batch._adopt_plan(last)
            else:
                batch._set_up_rows()
            if type(batch) is Objective and not batch._sparse:
                made[len(rows)] = batch
            yield batch
        self._made = made

    def _adopt_plan(self, other: Objective) -> None:
        """Start with the plan and row buffers of `other`, an objective on the same number of rows,
        which cannot be used afterwards. For small batches, allocating new memory takes longer than
        the arithmetic.
        """
        rows, plan = other._rows, other._plan
        plan.replace_rows(*self._engine_arguments())
        self._adopt_rows(rows)
        vars(self).update(_plan=plan, _theta=other._theta)
        vars(other).update(_plan=None, _rows=None)

    def taylor(self, theta: Any) -> Callable[[Any], float]:
        """Return a function of d, the quadratic model ``L + g'd + d'Hd/2`` of the loss at ``theta +
        d``, with the gradient g and the Hessian H at theta. The error decreases as ``||d||^3``.
        """
        H = self.hessian(theta)

        def model(d: Any) -> float:
            d = as_vector(d, self.n_params, self.dtype)
            return float(H.value + H.gradient @ d + 0.5 * H.quadratic_form(d))

        return model

    def statistics(self, theta: Any) -> list[Any]:
        """Return the mean and variance of each hidden layer's pre-activations z over all rows; see
        `MLP.statistics`.
        """
        if not self.model.batch_norm:
            raise ValueError(
                "the model must have batch normalisation for statistics, got batch_norm=False. Use "
                "MLP(..., batch_norm=True)."
            )
        with self._lock:
            plan = self._bind_plan(theta, False)
            biases = [
                0 if layer[1] is None else layer[1].astype(np.float64)
                for layer in self.model.unflatten(plan.theta)
            ]
            return [
                ((mean + b).astype(self.dtype), variance.astype(self.dtype))
                for (mean, variance), b in zip(_engine.batch_norm_statistics(plan), biases)
            ]

    def astype(self, dtype: Any) -> Objective:
        """Return the same objective in another precision. The data keep the values that they have
        in the current precision.
        """
        dtype = check_dtype(dtype)
        return self if dtype == self.dtype else self.with_model(self.model.astype(dtype))

    def with_model(self, model: MLP, y: Any = None) -> Objective:
        """Return the objective of another model on the same rows, with other targets if given."""
        how = self.loss, self.l2, self._weight, self.n_threads, self.memory
        y = self._y if y is None else y
        return Objective(model, self.X, y, *how, l2_biases=self.l2_biases)

    def plan_layout(self) -> Any:
        """Return the layout that operators of this objective have; see `Curvature.layout`."""
        plan = self._spare_or_new_plan()
        self._return_plan(plan)
        return plan.layout

    # --- sums over blocks of rows

    def sum_over_rows(self, part: Any, *arguments: Any) -> Any:
        """Return ``part(self, *arguments)`` or, if the rows come in blocks, the sum of
        ``part(shard, *arguments)`` over the shards.
        """
        return self._sum_over_shards(part, arguments) if self._by_blocks else part(self, *arguments)

    def _sum_over_shards(self, part: Any, arguments: tuple[Any, ...], dense: bool = True) -> Any:
        """Return the sum of ``part(shard, *arguments)`` over shards of all rows, in order. If
        `dense` is True, X of each shard is an array. Otherwise sparse rows may remain sparse.
        """
        self.n_passes += 1
        if not dense:
            return part(self._whole, *arguments)
        tree = TreeSum()
        for shard in self._whole.dense_shards(self.block_rows):
            tree.add_part(part(shard, *arguments))
        return tree.total()


def _min_loss_curvature(ob: Any, loss: LossFunction, theta: np.ndarray) -> list[float]:
    """Return a list of one number, the smallest eigenvalue over all rows of the second derivative
    of the row's loss with respect to the outputs. The rounding error is added if the loss couples
    outputs. Rows of weight 0 are ignored. If all weights are 0, the number is 0.
    """
    z = ob.model.predict(theta, ob.X).astype(float)
    _, _, second = loss(z, ob.y)
    if ob.sample_weight is not None:
        second = second[ob.sample_weight != 0]
        if not len(second):
            return [0.0]
    if second.ndim == 2:
        return [float(second.min())]
    values, eps = np.linalg.eigvalsh(second), np.finfo(float).eps
    # The second derivatives of a row that fits may be small by cancellation. Their rounding error
    # is then relative to the size of second derivatives elsewhere, which random outputs show.
    usual = np.abs(loss(np.random.default_rng(0).standard_normal(z.shape), ob.y)[2]).max()
    rounding = 1e-12 * np.abs(values).max(axis=1) + 64 * eps * usual
    return [float((values[:, 0] + rounding).min())]
