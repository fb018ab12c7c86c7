"""The loss of a network on data, as a function of theta, with its derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from ..common.checks import check_positive, is_sparse, random_batches
from ..common.files import protect_mapped_files
from ..common.protocols import (
    Array,
    is_library_object,
    library_class,
    missing_reason,
    registered,
    states,
)
from ..common.read_only import ReadOnlyMixin, read_only_view
from ..structure.tables import DEFAULT_LOSS, LossName, loss_spec
from . import row_views
from .arguments import as_vector, check_dtype
from .mlp import MLP
from .objective_rows import ObjectiveRows
from .operators import Curvature, Jacobian

if TYPE_CHECKING:
    from ..structure.user_functions import Loss

# Minimum size of a gradient that is returned without a copy, which takes up to 2.9 times the CPU of
# the call. A smaller gradient stays in the plan, for repeated calls at the same theta.
NO_COPY_MIN_BYTES = 1 << 20


@library_class
class Objective(ObjectiveRows, ReadOnlyMixin):
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
    above the first layer is kept for all rows. Verdicts are measured, not proved: use
    ``X.toarray()`` for proofs. Batch normalisation raises ValueError.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    >>> model = fc.MLP([4, 8, 3])
    >>> ob = fc.Objective(model, X, y)
    >>> theta = model.init(rng=0)
    >>> H = ob.hessian(theta)
    >>> v = rng.standard_normal(model.n_params)
    >>> bool(np.isclose(v @ (H @ v), H.quadratic_form(v)))
    True
    >>> loss, g = ob.value_and_gradient(theta)  # as SciPy's jac=True expects
    >>> bool(np.allclose(ob.hessp(theta, v), H @ v))
    True
    >>> [batch.n_samples for batch in ob.batches(20, np.random.default_rng(0))]
    [20, 20, 10]
    >>> normal = fc.MLP([4, 8, 3], batch_norm=True)
    >>> normal_ob = fc.Objective(normal, X, y)
    >>> [mean.shape for mean, variance in normal.statistics(normal_ob, normal.init(rng=0))]
    [(8,)]

    Sparse rows:

    >>> from scipy.sparse import random
    >>> X, y = random(60, 40, 0.1, format="csr", random_state=0), np.arange(60) % 3
    >>> model = fc.MLP([40, 8, 3])
    >>> ob, theta = fc.Objective(model, X, y), model.init(rng=0)
    >>> dense = fc.Objective(model, X.toarray(), y)
    >>> bool(np.allclose(ob.hessian(theta) @ theta, dense.hessian(theta) @ theta))
    True
    """

    _read_only = frozenset(("model", "loss", "l2", "l2_biases", "n_threads", "memory"))
    _made: dict[int, Objective]  # {number of rows: last batch of `batches`, whose plan is reused}

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
        self.__dict__["_by_blocks"] = self.__dict__["_sparse"] = is_sparse(X)
        self._check_settings(model, loss, l2, l2_biases, n_threads, memory)
        if y is None:
            raise TypeError(
                "y must hold the targets of all rows of X (N, d), got None. Use "
                "X, y = (torch.cat(part) for part in zip(*loader)) for a loader of batches, or "
                "StreamedObjective."
            )
        protect_mapped_files(X, y, sample_weight)
        self._check_rows(X, y, sample_weight)

    def __repr__(self) -> str:
        spared = "" if self.l2_biases else ", l2_biases=False"
        data = f"N={self.n_samples}, loss={self.loss!r}, l2={self.l2:g}{spared}"
        return f"Objective({self.model!r}, {data}{self._describe_rows()})"

    def _describe_rows(self) -> str:
        """Return text about the rows for the repr, such as ", nnz=120", or ""."""
        return f", nnz={self._X.nnz}" if self._sparse else ""

    @property
    def certificates(self) -> Any:  # returns Certificates or None
        """Proved statements about the loss near theta: bounds on its third derivative, gradients in
        extended precision, symmetries, kinks and others, which verdicts use; see
        `fastcurv.certify.certificates.Certificates`.

        The attribute is None for an object of a subclass, unless the body of its class has
        ``certificates = fc.Objective.certificates``, by which the class states that its loss is
        that of `Objective`. With a user-defined loss, activation or class of the model, and for
        sparse rows and rows in blocks, only kinks, ranges and saturation are available.
        """
        if not states(self, "certificates"):
            return None
        prove = registered(Objective, "certificates")
        return None if prove is None else prove(self, self._unproved)

    @property
    def why_unproved(self) -> str:
        """Reason why nothing can be proved about the loss, or ""."""
        if self._unproved or is_library_object(self):
            return self._unproved
        return missing_reason(self, "certificates")

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
            assert gradient is not None  # the argument True requests the gradient
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

    def outputs(self, theta: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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

    def hessian(self, theta: Array) -> Curvature:
        """Return the Hessian at theta as a `LinearOperator`. The operator owns its state, so later
        calls of methods of this objective do not change it.

        Cost: one gradient, or less at the theta evaluated last, and memory for the state. A product
        costs about two gradients, less the work that depends on theta alone, which is done once.
        """
        return self._make_operator(theta, "hessian")

    def _make_operator(self, theta: Array, kind: str) -> Curvature:
        return Curvature(self, theta, kind)

    def ggn(self, theta: Array) -> Curvature:
        """Return the positive semidefinite generalised Gauss-Newton matrix ``(1/N) sum J' (d2
        loss/dz2) J + l2 I``. Raise NotConvexError if the loss has negative curvature at theta.
        """
        loss_function = loss_spec(self.loss).given
        if loss_function is not None and not loss_function.convex:
            row_views.check_convex(self, theta, loss_function)
        return self._make_operator(theta, "ggn")

    def empirical_fisher(self, theta: Array) -> Curvature:
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

    def jacobian(self, theta: Array) -> Jacobian:
        """Return the Jacobian of the outputs, ``(N d_out, n)``, as a `LinearOperator`."""
        return Jacobian(self, theta)

    def batch(self, rows: Any) -> Objective:
        """Return the objective on the rows that a slice, indices or a mask select. The divisor is
        the number of selected rows.
        """
        other: Objective = self._restrict_to_rows(rows)
        other._set_up_rows()
        return other

    def reweighted(self, sample_weight: Array) -> Objective:
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
        >>> theta = ob.model.init(rng=0)
        >>> without = ob.reweighted(np.arange(10) != 3)
        >>> rest = ob.batch(np.arange(10) != 3)
        >>> bool(np.isclose(without.value(theta), 0.9 * rest.value(theta)))
        True
        """
        return row_views.reweighted(self, sample_weight)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Yield objectives on batches of `size` rows that cover every row once, in random order.
        The last batch may be smaller.

        The batches share the engine's buffers: use each one only until the next is requested.

        Yields
        ------
        Objective
            The objective on the rows of a batch, in memory.
        """
        # While this generator runs, the batches are not in the attribute, so that another generator
        # on this objective does not reuse buffers that are in use.
        last_batches = self._made
        self._made = {}
        for rows in random_batches(self.n_samples, size, rng):
            batch = self._restrict_to_rows(rows)
            last = last_batches.pop(len(rows), None)
            # The buffers of the last batch are reused unless an operator may still read its rows.
            if last is not None and last._plan is not None and not last._shares_rows:
                batch._adopt_plan(last)
            else:
                batch._set_up_rows()
            if type(batch) is Objective and not batch._sparse:
                last_batches[len(rows)] = batch
            yield batch
        self._made = last_batches

    def astype(self, dtype: DTypeLike) -> Objective:
        """Return the same objective in another precision. The data keep the values that they have
        in the current precision.
        """
        dtype = check_dtype(dtype)
        return self if dtype == self.dtype else self._with_model(self.model.astype(dtype))

    def with_l2(self, l2: float) -> Objective:
        """Return the objective with another weight decay on the same rows, which are shared and not
        checked again.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> ob = fc.Objective(fc.MLP([1, 1]), [[1.0]], [1.0], loss="mse")
        >>> ob.with_l2(0.5).value([1.0, 0.0])
        0.25
        """
        other: Objective = self._copy_without_row_state(l2=check_positive(l2, "l2", zero=True))
        other._set_up_rows()
        return other

    def _with_model(self, model: MLP, y: Any = None) -> Objective:
        """Return the objective of another model on the same rows, with other targets if given. An
        object of a subclass gives an object of that subclass.
        """
        X = self._X
        # The entries that are 0 because their rows have weight 0 may get other weights in the new
        # objective, so their values are passed on, unless they exceed the range of its precision.
        if self._untamed is not None and abs(self._untamed).max() <= np.finfo(model.dtype).max:
            X = self._untamed
        rows = read_only_view(X), self._y if y is None else y, self._weight
        other: Objective = self._copy_without_row_state(_untamed=None)
        other._check_settings(
            model, self.loss, self.l2, self.l2_biases, self.n_threads, self.memory
        )
        other._check_rows(*rows)
        return other
