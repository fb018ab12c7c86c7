"""Curvature matrices as linear operators: the Hessian, the GGN, the Fisher, and their principal
blocks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._engine import CurvatureMatrix, FastProduct
from ..common.checks import StatedOperator, as_numpy
from ..common.linalg import symmetrise
from ..common.protocols import (
    Array,
    Floats,
    Indices,
    capability,
    is_library_object,
    library_class,
    missing_bound_reason,
    register,
)
from ..structure.parameters import l2_diagonal
from ..structure.tables import activation_spec, loss_spec
from .arguments import (
    as_vector,
    check_dtype,
    check_indices,
    columns_as_rows,
    layer_indices,
    vector_and_output,
)
from .engine_steps import has_gauss_newton_matrix, has_levenberg_steps
from .linear_operator import Operator, OperatorSum, SymmetricOperator, TransposedOperator
from .plans import release_plan
from .row_views import N_DENSE_BLOCK_COLUMNS, jacobian_matrix

if TYPE_CHECKING:
    from .objective import Objective

CURVATURE_NAMES = {"hessian": "Hessian", "ggn": "GGN", "fisher": "empirical Fisher"}
# estimated seconds of a product, divided by the product of the numbers of samples and parameters
SECONDS_PER_SAMPLE_AND_PARAMETER = 4e-10
# maximum size of the copies of all rows that the engine makes to sum a matrix over rows
MAX_COPIED_ROWS_BYTES = 1 << 28
# maximum size of the vectors of a block that are embedded in the full space at a time
MAX_EMBEDDED_BYTES = 64 << 20


class QuadraticFormOperator(SymmetricOperator):
    """Base class of curvature matrices and their principal blocks, whose quadratic forms take half
    the time of a product.
    """

    objective: Objective
    kind: str
    _read_only = SymmetricOperator._read_only | {"objective", "kind"}

    @property
    @abstractmethod
    def layout(self) -> Mapping[str, int]:
        """Mapping with the division of rows among chunks, panels and threads, and the kernels."""

    @abstractmethod
    def _quadratic_forms_without_l2(self, Vt: Array) -> Floats:
        """Return the quadratic forms of the rows of Vt without l2, as float64 ``(k,)``."""

    def quadratic_form(self, v: ArrayLike) -> Any:
        """Return ``v' H v`` as a float for v ``(n,)``, or as an array ``(k,)`` for the columns of v
        ``(n, k)``. The cost is half that of ``H @ v``.
        """
        ready = type(v) is np.ndarray and v.dtype is self.dtype and v.flags.carray
        v = as_numpy(v, "v")
        if ready and v.shape == self.shape[:1]:  # an array in the engine's form needs no checks
            return float(self._quadratic_forms(v[None])[0])
        if v.ndim == 2:
            return self._quadratic_forms(
                columns_as_rows(v, self.shape[0], self.dtype, self.layout["threads"])
            )
        return float(self._quadratic_forms(as_vector(v, self.shape[0], self.dtype)[None])[0])

    def _quadratic_forms(self, Vt: Array) -> Floats:
        """Return the quadratic forms of the rows of Vt, as float64 ``(k,)``."""
        total = self._quadratic_forms_without_l2(Vt)
        if self.objective.l2 and self.kind != "fisher":
            return self._add_decay(total, Vt)
        return total

    def _add_decay(self, total: Floats, Vt: Array) -> Floats:
        """Return `total`, the quadratic forms of the rows of Vt without l2, plus the contribution
        of l2.
        """
        wide = Vt.astype(np.float64, copy=False)
        l2 = l2_diagonal(self.objective)
        if isinstance(l2, np.ndarray):
            l2 = l2[getattr(self, "indices", slice(None))]
        return np.asarray(total + np.einsum("ij,ij->i", l2 * wide, wide))


@library_class
class Curvature(QuadraticFormOperator):
    """A symmetric matrix ``(n, n)`` at one theta, available through its products with vectors.

    Created by `Objective.hessian`, `Objective.ggn` and `Objective.empirical_fisher`. The operator
    owns a copy of theta and the state at theta. A product therefore costs 2 matrix products in the
    first layer and 6 in every other layer (4 for the GGN), of 2 N in out flops each, and allocates
    only its result.

    Attributes
    ----------
    theta : ndarray (n,)
        The point, a copy.
    value, gradient : float, ndarray (n,)
        The objective's value and gradient at theta.
    n_products : int
        Number of vectors multiplied so far, by this operator and its blocks. A quadratic form
        counts as one.
    nbytes : int
        Bytes of state and scratch.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> model = fc.MLP([1, 1, 1], activation="identity", bias=False)
    >>> H = fc.Objective(model, [[1.0]], [1.0], loss="mse").hessian(np.zeros(2))
    >>> H.to_dense()
    array([[ 0., -2.],
           [-2.,  0.]])
    >>> H @ [1.0, 1.0], H.quadratic_form([1.0, 1.0]), H.restrict(indices=[0]).shape
    (array([-2., -2.]), -4.0, (1, 1))
    >>> H.n_products
    2
    >>> H.product(np.ones(2), out=np.empty(2))  # without an allocation
    array([-2., -2.])
    """

    theta: np.ndarray
    _plan: Any
    _times: FastProduct
    _take: Any
    _read_only = QuadraticFormOperator._read_only | {
        "theta",
    }

    def __init__(self, objective: Objective, theta: ArrayLike, kind: str) -> None:
        n = objective.n_params
        plan = objective._acquire_bound_plan(theta)
        plan.theta.flags.writeable = False
        times = FastProduct(None if objective._by_blocks else plan, kind, kind != "fisher")
        # Assignments to self would take 7 us more than the 10 us of a small operator.
        self.__dict__.update(
            objective=objective,
            kind=kind,
            theta=plan.theta,
            _plan=plan,
            _times=times,
            _take=times.multiply,
        )
        super().__init__(objective.dtype, (n, n))

    __del__ = release_plan

    def __reduce__(self) -> tuple[object, ...]:
        given = self.objective, np.array(self.theta), self.kind
        return type(self), given, {"n_products": self.n_products}

    @property
    def value(self) -> float:
        """The objective's value at theta."""
        return float(self._plan.value)

    @property
    def gradient(self) -> np.ndarray:
        """The objective's gradient at theta, (n,), read-only. For rows in blocks the gradient is
        computed on first access.
        """
        gradient: np.ndarray = self._plan.gradient
        gradient.flags.writeable = False
        return gradient

    @property
    def n_products(self) -> int:
        """Number of vectors multiplied so far, by this operator and its blocks."""
        return self._times.n_products

    @n_products.setter
    def n_products(self, count: int) -> None:
        self._times.n_products = count

    @property
    def nbytes(self) -> int:
        """Number of bytes of state and workspace."""
        return int(self._plan.nbytes)

    @property
    def layout(self) -> Mapping[str, int]:
        """Mapping with the division of rows among chunks, panels and threads, and the kernels."""
        layout: Mapping[str, int] = self._plan.layout
        return layout

    # --- products
    # ----------------------------------------------------------------------------------------------

    def product(self, v: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Return ``H v`` for v ``(n,)``, in `out` if it is given and in a new array otherwise. The
        method is intended for inner loops.

        v is used without a copy if v is contiguous and has the operator's dtype. If `out`, a
        contiguous array of this dtype, is given, no memory is then allocated.
        """
        done: Array | None = self._take(v, out)
        if done is None:
            v, done = vector_and_output(v, out, self.shape[0], self.dtype)
            self._multiply(v, done)
            self._times.n_products += 1
        return done

    def _multiply(self, v: Array, out: np.ndarray | None) -> None:
        self._plan.multiply(v, out, self.kind, None, self.kind != "fisher")

    def _matmat(self, V: Array) -> np.ndarray:
        """Return the products with the columns of V (n, k), computed together in one pass over the
        data.
        """
        Vt = columns_as_rows(V, self.shape[0], self.dtype, self.layout["threads"])
        out = (
            Vt
            if self._plan.allows_in_place and not np.may_share_memory(Vt, V)
            else np.empty_like(Vt)
        )
        self._multiply(Vt, out)
        self.n_products += len(Vt)
        return out.T

    def __matmul__(self, v: Any) -> Any:
        """Return ``H @ v``. `FastProduct.multiply` of the engine (`_take`) takes an array that
        it can read as it is; any other v is checked by `Operator._multiply_vectors` in
        `linear_operator.py`.
        """
        done = self._take(v)
        return super().__matmul__(v) if done is None else done

    def __repr__(self) -> str:
        n = self.shape[0]
        ob = self.objective
        return (
            f"<{n}x{n} {CURVATURE_NAMES[self.kind]} of {ob.loss} over {ob.n_samples} samples, "
            f"n={n}, dtype={self.dtype.name}>"
        )

    def _quadratic_forms_without_l2(self, Vt: np.ndarray) -> np.ndarray:
        self._times.n_products += len(Vt)
        return np.asarray(self._plan.quadratic_forms(Vt, self.kind, None))

    def to_dense(self) -> np.ndarray:
        """Return the whole matrix ``(n, n)``, exactly symmetric. The engine sums the matrix over
        rows where it can, and otherwise it is computed by n products.
        """
        n = self.shape[0]
        summed = summed_matrix(self)
        if summed is not None:
            return summed.astype(self.dtype, copy=False)
        dense = np.empty((n, n), self.dtype)
        for start in range(0, n, N_DENSE_BLOCK_COLUMNS):
            rows = np.zeros((min(N_DENSE_BLOCK_COLUMNS, n - start), n), self.dtype)
            rows[np.arange(len(rows)), np.arange(start, start + len(rows))] = 1
            self._multiply(rows, dense[start : start + len(rows)])
        self.n_products += n
        symmetrise(dense)
        return dense

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products have no known bound, or ""."""
        return str(self.objective.why_unproved)

    # --- other views
    # ----------------------------------------------------------------------------------------------

    def restrict(
        self, layers: ArrayLike | None = None, indices: ArrayLike | None = None
    ) -> CurvatureBlock:
        """Return the principal block of some layers, or of some parameters. Products with the block
        skip work that the block does not need. Exactly one argument must be given.

        Parameters
        ----------
        layers : sequence of int or str, or one of these
            Layer numbers, starting at 0, whose weights and biases the block holds, or names of
            `MLP.named_parts`. Layers below the lowest are skipped in the passes.
        indices : array_like of int
            Indices into theta, each once.
        """
        if (layers is None) == (indices is None):
            raise ValueError(
                "exactly one of layers and indices must be given, got "
                + ("both." if layers is not None else "neither.")
            )
        return CurvatureBlock(
            self,
            layer_indices(self.objective.model, layers)
            if layers is not None
            else np.array(check_indices(indices, self.shape[0])),
        )

    def astype(self, dtype: DTypeLike) -> Curvature:
        """Return the same operator at the same theta in another precision."""
        if check_dtype(dtype) == self.dtype:
            return self
        return type(self)(self.objective.astype(dtype), self.theta, self.kind)


@library_class
class CurvatureBlock(QuadraticFormOperator):
    """A principal block of a `Curvature`: rows and columns ``indices``.

    The block shares the state and the product counter of the whole operator.
    """

    whole: Curvature

    indices: Indices
    value: float
    gradient: np.ndarray
    _active: np.ndarray
    _read_only = QuadraticFormOperator._read_only | {"whole", "indices", "value", "gradient"}

    def __init__(self, whole: Curvature, indices: Indices) -> None:
        model = whole.objective.model
        starts = model.starts
        active = np.zeros(len(model.shapes), np.int8)
        active[np.unique(np.searchsorted(starts, indices, side="right") - 1)] = 1
        self.whole = whole
        self.indices = indices
        self.kind = whole.kind
        self.objective = whole.objective
        self.value = whole.value
        self.gradient = whole.gradient[indices]
        self._active = active
        super().__init__(whole.dtype, (len(indices), len(indices)))

    def __reduce__(self) -> tuple[object, ...]:
        return CurvatureBlock, (self.whole, self.indices)

    def __repr__(self) -> str:
        n = self.shape[0]
        return f"<{n}x{n} block of {self.whole!r}>"

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products with `whole` have no known bound, or ""."""
        return missing_bound_reason(self.whole)

    @property
    def n_products(self) -> int:
        """Number of vectors that `whole` has multiplied, including those for this block."""
        return self.whole.n_products

    @n_products.setter
    def n_products(self, count: int) -> None:
        self.whole.n_products = count

    @property
    def layout(self) -> Mapping[str, int]:
        """Layout of the products of `whole`, as `Curvature.layout`."""
        return self.whole.layout

    def _embed(self, Vt: np.ndarray) -> np.ndarray:
        full: Array = np.zeros((len(Vt), self.whole.shape[0]), self.dtype)
        full[:, self.indices] = Vt
        return full

    def _embed_rows(self, Vt: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield ``(rows, full)`` for consecutive slices of the rows of Vt. `full` (k, n) holds
        these rows, with zeros at the indices that are not in this block of the operator. The size
        of `full` is at most about `MAX_EMBEDDED_BYTES`.
        """
        step = max(8, MAX_EMBEDDED_BYTES // (self.whole.shape[0] * self.dtype.itemsize) // 8 * 8)
        for start in range(0, len(Vt), step):
            cut = slice(start, start + step)
            yield cut, self._embed(Vt[cut])

    def _row_products(self, Vt: np.ndarray) -> np.ndarray:
        rows: Array = np.empty(Vt.shape, self.dtype)
        for cut, full in self._embed_rows(Vt):
            out = np.empty_like(full)
            if is_library_object(self.whole):
                plan = self.whole._plan
                plan.multiply(full, out, self.kind, self._active, self.kind != "fisher")
                self.whole.n_products += len(full)
            else:  # a subclass may have other products
                out[...] = (StatedOperator(self.whole) @ full.T).T
            rows[cut] = out[:, self.indices]
        return rows

    def product(self, v: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Return the product of the block with v, in `out` if it is given and in a new array
        otherwise.
        """
        x, out = vector_and_output(v, out, self.shape[0], self.dtype)
        out[...] = self._row_products(x[None])[0]
        return out

    def _matmat(self, V: Array) -> np.ndarray:
        block = columns_as_rows(V, self.shape[0], self.dtype, self.layout["threads"])
        return self._row_products(block).T

    def _quadratic_forms_without_l2(self, Vt: np.ndarray) -> np.ndarray:
        self.whole.n_products += len(Vt)
        forms: Floats = np.empty(len(Vt))
        for cut, full in self._embed_rows(Vt):
            forms[cut] = self.whole._plan.quadratic_forms(full, self.kind, self._active)
        return forms

    def to_dense(self) -> np.ndarray:
        """Return the block as a matrix ``(n, n)``. The cost is n products."""
        return self._row_products(np.eye(self.shape[0], dtype=self.dtype))


# --------------------------------------------------------------------------------------------------
# Facts of an operator, for the subpackages above.


@register("fast_product", Curvature)
def fast_product(H: Curvature) -> FastProduct:
    """Return the engine's product without checks, for one search."""
    return H._times


@register("estimated_seconds", Curvature)
def estimated_seconds(H: Curvature) -> float:
    """Estimate the time of a product by the sizes of the network, infinite for rows in blocks."""
    ob = H.objective
    if ob._by_blocks:
        return np.inf
    return SECONDS_PER_SAMPLE_AND_PARAMETER * float(ob.n_samples * H.shape[0])


@register("has_summed_matrix", Curvature)
def has_summed_matrix(H: Curvature) -> bool:
    """Return True if the engine sums the matrix over rows. It does not for the Fisher, for rows in
    blocks, for some models, losses and memory limits, and if copies of the rows would exceed
    `MAX_COPIED_ROWS_BYTES`.
    """
    ob = H.objective
    if ob._by_blocks or H.kind == "fisher":
        return False
    sizes = ob.model.sizes
    copied = 8 * ob.n_samples * (sizes[0] + 4 * sum(sizes[1:]))
    possible = has_levenberg_steps(ob) if H.kind == "hessian" else has_gauss_newton_matrix(ob)
    return bool(possible and copied <= MAX_COPIED_ROWS_BYTES)


@register("summed_matrix", Curvature)
def summed_matrix(H: Curvature) -> Floats | None:
    """Return the matrix of a Hessian or GGN ``(n, n)``, in float64, summed over rows by the engine.
    Return None if `has_summed_matrix` is False, or if entries are out of range.
    """
    n = H.shape[0]
    if not has_summed_matrix(H):
        return None
    A = np.empty((n, n))
    if not CurvatureMatrix(H._plan, H.kind == "hessian").write_matrix(A):
        return None
    if H.objective.l2:
        A[np.diag_indices(n)] += l2_diagonal(H.objective)
    return A


@register("exact_diagonal", Curvature)
def exact_diagonal(H: Curvature) -> Floats:
    """Return the diagonal ``(n,)`` in float64, exact up to rounding. The cost is that of
    `diagonal_cost` products, which ``H.n_products`` counts, rounded up. An entry is not finite if
    it overflows in the operator's dtype.
    """
    diagonal: Floats = H._plan.diagonal(H.kind).astype(np.float64)
    H.n_products += ceil(diagonal_cost(H))
    return diagonal + l2_diagonal(H.objective) if H.kind != "fisher" else diagonal


@register("diagonal_cost", Curvature)
def diagonal_cost(H: Curvature) -> float:
    """Return the multiply-adds of `exact_diagonal` divided by those of a product, or infinity with
    batch normalisation. `exact_diagonal` converts sparse rows to dense blocks.
    """
    ob = H.objective
    model = ob.model
    loss = loss_spec(ob.loss)
    if model.batch_norm:
        return np.inf
    hessian = H.kind == "hessian"
    fisher = H.kind == "fisher"
    # True for each layer that adds a diagonal matrix to the second derivatives
    curved = [hessian and activation_spec(name).bend > 0 for name in model.activation]
    curved.append(loss.per_entry and not fisher)
    columns = 0  # number of columns that are propagated backward from the current layer
    if not loss.per_entry and not fisher:
        columns = model.sizes[-1] - 1 if loss.given is None else 2 * model.sizes[-1]
    m, k = model.shapes[0]
    spent = m * k
    product = 2 * ob._density * m * k
    for (m, k), curvature in zip(model.shapes[:0:-1], curved[:0:-1]):
        spent += m * k * (1 + columns + curvature)
        product += m * k * (6 if hessian else 4)
        columns += m * curvature
    return spent / product if product else np.inf


@register("exact_diagonal", CurvatureBlock)
def block_diagonal(B: CurvatureBlock) -> Floats:
    """Return the diagonal of a principal block."""
    return exact_diagonal(B.whole)[B.indices]


@register("diagonal_cost", CurvatureBlock)
def block_diagonal_cost(B: CurvatureBlock) -> float:
    """Return the cost of `block_diagonal`."""
    return diagonal_cost(B.whole)


@register("exact_diagonal", OperatorSum)
def sum_diagonal(S: OperatorSum) -> Floats:
    """Return the diagonal of a sum of curvatures."""
    terms = (c * part() for c, op in S.terms if (part := capability(op, "exact_diagonal")))
    return np.asarray(sum(terms) + S.mu)


@register("diagonal_cost", OperatorSum)
def sum_diagonal_cost(S: OperatorSum) -> float:
    """Return the cost of `sum_diagonal`."""
    costs = (capability(op, "diagonal_cost") for _, op in S.terms)
    return float(sum(np.inf if cost is None else cost() for cost in costs))


# --------------------------------------------------------------------------------------------------
# The Jacobian of a network's outputs as a linear operator.


@library_class
class Jacobian(Operator):
    """The Jacobian ``(N d_out, n)`` of the outputs, row-major over (sample, output).

    ``J.T`` and ``J.H`` are its transpose.
    """

    objective: Objective
    theta: np.ndarray
    _plan: Any
    _read_only = Operator._read_only | {"objective", "theta"}

    def __init__(self, objective: Objective, theta: ArrayLike) -> None:
        plan = objective._acquire_bound_plan(theta)
        plan.theta.flags.writeable = False
        self.objective = objective
        self.theta = plan.theta
        self._plan = plan
        super().__init__(
            objective.dtype, (objective.n_samples * objective.model.sizes[-1], objective.n_params)
        )

    __del__ = release_plan

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.objective, self.theta)

    def _matvec(self, v: Array) -> np.ndarray:
        out = np.empty(self.shape[0], self.dtype)
        self._plan.multiply_jacobian(as_vector(v.reshape(-1), self.shape[1], self.dtype), out)
        return out

    def _rmatvec(self, u: Array) -> np.ndarray:
        out = np.empty(self.shape[1], self.dtype)
        self._plan.multiply_jacobian(as_vector(u.reshape(-1), self.shape[0], self.dtype), out, True)
        return out

    def to_dense(self, rows: slice | None = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return the matrix ``(N d_out, n)``, or the rows that belong to consecutive samples.

        All outputs are propagated backward in one pass, which costs less than writing the matrix if
        the network is small. With batch normalisation the cost is a product for each row.

        Parameters
        ----------
        rows : slice, optional
            The samples ``start:stop``. Their rows have shape ``((stop - start) d_out, n)``.
        out : ndarray, optional
            A contiguous array for the result, of the shape of the result and the operator's dtype.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X, y = np.arange(12.0).reshape(6, 2), np.zeros(6)
        >>> ob = fc.Objective(fc.MLP([2, 3, 1]), X, y, loss="mse")
        >>> J = ob.jacobian(ob.model.init(rng=0))
        >>> block = np.empty((2, 13))
        >>> bool((J.to_dense(slice(2, 4), out=block) == J.to_dense()[2:4]).all())
        True
        """
        return jacobian_matrix(self, rows, out)

    def _transpose(self) -> TransposedOperator:
        return TransposedOperator(self)

    def __repr__(self) -> str:
        m, n = self.shape
        return (
            f"<{m}x{n} Jacobian over {self.objective.n_samples} samples, dtype={self.dtype.name}>"
        )
