"""Base classes of the linear operators: argument conversion, error messages, and shifts by a
multiple of the identity.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from ..common.checks import StatedOperator, as_numpy, check_array
from ..common.protocols import Array, is_library_object, library_class, missing_bound_reason
from ..common.read_only import ReadOnlyMixin
from .arguments import as_real_array, columns_as_rows, match_array_type, vector_and_output
from .factor import CholeskyFactor

if TYPE_CHECKING:
    from .operators import Jacobian


class _PlainOperator(LinearOperator):
    """A plain SciPy operator, from which SciPy's attributes are copied."""

    def _matvec(self, v: Array) -> Array:
        return v


@lru_cache(maxsize=64)
def _scipy_attributes(dtype: np.dtype, shape: tuple[int, int]) -> dict[str, object]:
    """Return the attributes that SciPy sets on an operator. The result is cached, because creating
    the attributes takes as long as a small product.
    """
    make: Any = _PlainOperator
    attributes: dict[str, object] = vars(make(dtype, shape))
    return attributes


class Operator(LinearOperator, ReadOnlyMixin):
    """A real `LinearOperator` that checks its arguments and raises descriptive errors.

    Vectors may be arrays, torch tensors on the CPU (the result is then a tensor), or anything that
    `fastcurv.common.checks.as_numpy` accepts.
    """

    _read_only = frozenset(("dtype", "shape", "ndim"))

    def __init__(self, dtype: np.dtype, shape: tuple[int, int]) -> None:
        self.__dict__.update(_scipy_attributes(dtype, shape))

    @abstractmethod
    def __reduce__(self) -> tuple[object, ...]:
        """Return the class, the arguments of its constructor and, if a copy needs more, a dict of
        attributes. Attributes that SciPy sets are never part of a copy, since they differ between
        versions of SciPy.
        """

    def __setstate__(self, state: dict[str, object]) -> None:
        """Set the attributes that `__reduce__` returned, in place of the method of SciPy's
        operators.
        """
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def n_threads(self) -> int | None:
        """Number of threads set for the objective, with which algorithms that use this operator
        also run. None if no number was set, or if the operator has no objective.
        """
        return getattr(vars(self).get("objective"), "n_threads", None)

    @abstractmethod
    def _matvec(self, v: Array) -> Array:
        """Return the product of the operator with v ``(n,)``."""

    @abstractmethod
    def _transpose(self) -> Operator:
        """Return the transpose of the operator, as an `Operator`."""

    def _check_operand(self, x: object, n: int, name: str, ndims: tuple[int, ...]) -> np.ndarray:
        """Return x as a real array. Raise ValueError, with `name` for x, unless x has n rows and
        its number of dimensions is in `ndims`.
        """
        v = as_real_array(x, name)
        if v.ndim not in ndims or v.shape[0] != n:
            wanted = " or ".join({1: f"({n},)", 2: f"({n}, k)"}[d] for d in ndims)
            raise ValueError(f"{name} must have shape {wanted}, got {v.shape}.")
        return v

    def _multiply_vectors(self, x: Any) -> Any:
        v = self._check_operand(x, self.shape[1], "v", (1, 2))
        return match_array_type(x, self._matvec(v) if v.ndim == 1 else self._matmat(v))

    def __matmul__(self, v: Any) -> Any:
        if isinstance(v, LinearOperator):
            return self.dot(v)
        return self._multiply_vectors(v)

    def __rmatmul__(self, v: Any) -> Any:
        if isinstance(v, LinearOperator):
            return super().__rmatmul__(v)
        rows = (
            self._check_operand(v, self.shape[0], "v", (1,))
            if np.ndim(v) == 1
            else as_numpy(v, "v")
        )
        return match_array_type(
            v, np.ascontiguousarray(self._transpose()._multiply_vectors(rows.T).T)
        )

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError(f"{self!r} is an operator, not an array. Use H.to_dense() for the matrix.")

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        out = np.empty((self.shape[0], V.shape[1]), self.dtype)
        for j in range(V.shape[1]):
            out[:, j] = self._matvec(V[:, j])
        return out

    def _adjoint(self) -> Operator:
        return self._transpose()


class SymmetricOperator(Operator):
    """Base class of symmetric operators: curvature matrices, their diagonal blocks, and operators
    derived from these.
    """

    @abstractmethod
    def product(self, v: ArrayLike, out: Array | None = None) -> Array:
        """Return the product of the operator with v ``(n,)``, in `out` if it is given and in a new
        array otherwise.
        """

    def _matvec(self, v: Array) -> Array:
        return self.product(np.reshape(v, -1))  # SciPy passes v (n,) or (n, 1)

    def _transpose(self) -> SymmetricOperator:
        return self

    def shift(self, mu: float) -> OperatorSum:
        """Return the operator ``H + mu I``, for damped systems or to shift a spectrum away from
        zero.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> model = fc.MLP([1, 1, 1], activation="identity", bias=False)
        >>> H = fc.Objective(model, [[1.0]], [1.0], loss="mse").hessian(np.zeros(2))
        >>> H.shift(2.5).to_dense()
        array([[ 2.5, -2. ],
               [-2. ,  2.5]])
        """
        terms, own = self._parts()
        shift = float(check_array(mu, "mu", np.float64).reshape(()))
        return OperatorSum(terms, own + shift)

    def factor(self) -> CholeskyFactor:
        """Return the Cholesky factor of the matrix: ``solve(B)``, ``logdet``, ``inverse_diagonal``
        and ``lower``, all in float64. The cost is that of the matrix, ``n^2`` numbers of memory and
        ``n^3 / 3`` flops.

        Raises
        ------
        ValueError
            If the matrix is not positive definite. The message has the smallest eigenvalue of the
            matrix, which is also the attribute ``eigenvalue`` of the exception.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> model = fc.MLP([1, 1, 1], activation="identity", bias=False)
        >>> H = fc.Objective(model, [[1.0]], [1.0], loss="mse").hessian(np.zeros(2))
        >>> H.shift(4.0).factor().solve([2.0, 2.0])
        array([1., 1.])
        >>> H.factor()
        Traceback (most recent call last):
        fastcurv.network.factor.NotPositiveDefiniteError: H must be positive definite, got a \
smallest eigenvalue of -2. Factor H.shift(mu) with a larger mu, or find a minimum first, with l2 \
> 0 if parameters are redundant.
        """
        return CholeskyFactor(self)

    def _parts(self) -> tuple[tuple[tuple[float, SymmetricOperator], ...], float]:
        """Return the terms and the multiple of the identity of which the operator is the sum."""
        return ((1.0, self),), 0.0

    def __add__(self, other: Any) -> Any:
        """Return an `OperatorSum` if `other` is an operator of this library with the same dtype, or
        a multiple of the identity as a sparse matrix. For any other matrix or operator return
        SciPy's sum.
        """
        mu = _multiple_of_identity(other, self.shape)
        if mu is not None:
            return self.shift(mu)
        alike = getattr(other, "shape", None) == self.shape and other.dtype == self.dtype
        if isinstance(other, SymmetricOperator) and alike:
            (terms, mu), (more, nu) = self._parts(), other._parts()
            return OperatorSum(terms + more, mu + nu)
        if isinstance(other, np.ndarray) or issparse(other):
            matrix: Any = other
            return super().__add__(aslinearoperator(matrix))
        return super().__add__(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        mu = _multiple_of_identity(other, self.shape)
        return self + -1 * other if mu is None else self.shift(-mu)

    def __rsub__(self, other: object) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        """Return an `OperatorSum` for a number, and otherwise what SciPy returns."""
        if not isinstance(other, (int, float, np.integer, np.floating)):
            return super().__mul__(other)
        terms, mu = self._parts()
        return OperatorSum(tuple((float(other) * c, op) for c, op in terms), float(other) * mu)

    def __rmul__(self, other: Any) -> Any:
        return self * other if np.ndim(other) == 0 else super().__rmul__(other)

    def __neg__(self) -> Any:
        return self * -1


def _multiple_of_identity(other: object, shape: tuple[int, int]) -> float | None:
    """Return mu if `other` is a sparse matrix that is mu times the identity of this shape. Return
    None for other objects.
    """
    matrix: Any = other
    if not issparse(other) or matrix.shape != shape:
        return None
    d = matrix.diagonal()
    same = len(d) == matrix.nnz and d.size and (d == d[0]).all() and d.dtype.kind in "fiub"
    return float(d[0]) if same else None


@library_class
class OperatorSum(SymmetricOperator):
    """The operator ``c_1 H_1 + c_2 H_2 + ... + mu I``.

    Created by ``H.shift(mu)``, ``-H``, ``2 * H``, ``H - G`` and ``H + mu * identity(n)``. The
    operators count the products with their sum. Methods that an operator does not have raise
    AttributeError.

    Attributes
    ----------
    terms : tuple of (float, operator)
        The coefficients and the operators.
    mu : float
        The number that is added to every eigenvalue.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from scipy.sparse import identity
    >>> model = fc.MLP([1, 1, 1], activation="identity", bias=False)
    >>> ob = fc.Objective(model, [[1.0]], [1.0], loss="mse")
    >>> H, G = ob.hessian(np.zeros(2)), ob.ggn(np.zeros(2))
    >>> (H - G + 3 * identity(2)) @ np.array([1.0, 1.0])
    array([1., 1.])
    """

    terms: tuple[tuple[float, Any], ...]
    mu: float
    _read_only = Operator._read_only | {"terms", "mu"}

    def __init__(self, terms: tuple[tuple[float, Any], ...], mu: float) -> None:
        self.terms = terms
        self.mu = mu
        # a subclass may define its products by any method
        self._stated = [op if is_library_object(op) else StatedOperator(op) for _, op in terms]
        super().__init__(terms[0][1].dtype, terms[0][1].shape)

    def __reduce__(self) -> tuple[object, ...]:
        return OperatorSum, (self.terms, self.mu)

    def __repr__(self) -> str:
        parts = [f"{c:g} * {op!r}" if c != 1 else repr(op) for c, op in self.terms]
        return " + ".join(parts + [f"{self.mu:g} I"] * (self.mu != 0))

    def _parts(self) -> tuple[tuple[tuple[float, SymmetricOperator], ...], float]:
        return (self.terms, self.mu) if type(self) is OperatorSum else super()._parts()

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products have no known bound, or ""."""
        return next(filter(None, (missing_bound_reason(op) for _, op in self.terms)), "")

    @property
    def n_products(self) -> int:
        """Number of vectors that the operators have multiplied."""
        return sum(int(op.n_products) for op in {id(op): op for _, op in self.terms}.values())

    def _multiply(self, v: Array, out: Array) -> Array:
        """Return the product with v, a vector or columns, in `out`."""
        for index, ((c, _), op) in enumerate(zip(self.terms, self._stated)):
            term = op @ v
            if c != 1:
                term *= self.dtype.type(c)
            out[...] = term if index == 0 else out + term
        if self.mu:
            out += self.dtype.type(self.mu) * v
        return out

    def product(self, v: ArrayLike, out: Array | None = None) -> Array:
        """Return the product with v ``(n,)``, in `out` if it is given and in a new array
        otherwise.
        """
        return self._multiply(*vector_and_output(v, out, self.shape[0], self.dtype))

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        V = columns_as_rows(V, self.shape[0], self.dtype).T
        return self._multiply(V, np.empty(V.shape, self.dtype))

    def quadratic_form(self, v: ArrayLike) -> Any:
        """Return ``v' A v`` for this operator A, as a float for v ``(n,)`` or as an array ``(k,)``
        for the columns of v ``(n, k)``.
        """
        wide = as_numpy(v, "v").astype(np.float64)
        forms = sum(c * op.quadratic_form(v) for c, op in self.terms)
        return forms + self.mu * np.einsum("i...,i...->...", wide, wide)

    def to_dense(self) -> np.ndarray:
        """Return the matrix ``(n, n)``."""
        dense: Array | None = None
        for c, op in self.terms:
            part: Array = op.to_dense()
            if c != 1:
                part *= self.dtype.type(c)
            dense = part if dense is None else np.add(dense, part, out=dense)
        assert dense is not None  # there is at least one term
        dense[np.diag_indices(len(dense))] += self.dtype.type(self.mu)
        return dense

    def restrict(
        self, layers: ArrayLike | None = None, indices: ArrayLike | None = None
    ) -> OperatorSum:
        """Return the principal block of some layers or parameters; see `Curvature.restrict`."""
        return OperatorSum(
            tuple((c, op.restrict(layers, indices)) for c, op in self.terms), self.mu
        )

    def astype(self, dtype: DTypeLike) -> OperatorSum:
        """Return the operator in the given dtype, with the curvatures evaluated in that
        precision.
        """
        return OperatorSum(tuple((c, op.astype(dtype)) for c, op in self.terms), self.mu)


@library_class
class TransposedOperator(Operator):
    """Transpose of the operator `whole`, computed by the method ``_rmatvec`` of `whole`."""

    whole: Jacobian
    _read_only = Operator._read_only | {"whole"}

    def __init__(self, whole: Jacobian) -> None:
        self.whole = whole
        super().__init__(whole.dtype, whole.shape[::-1])

    def __reduce__(self) -> tuple[object, ...]:
        return TransposedOperator, (self.whole,)

    def _matvec(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(self.whole._rmatvec(u))

    def _transpose(self) -> Operator:
        whole: Operator = self.whole
        return whole
