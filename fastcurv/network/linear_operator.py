"""Base classes of the linear operators: argument conversion, error messages, and shifts by a
multiple of the identity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from ..common.checks import StatedOperator, as_numpy, check_array
from ..common.protocols import Array, is_library_object, library_class, missing_bound_reason
from ..common.read_only import ReadOnlyMixin
from .arguments import (
    as_real_array,
    columns_as_rows,
    match_array_type,
    vector_and_output,
)
from .factor import CholeskyFactor


class _PlainOperator(LinearOperator):
    """A plain SciPy operator, from which SciPy's attributes are copied."""

    def _matvec(self, v: Array) -> Array:
        return v


@lru_cache(maxsize=64)
def _scipy_attributes(dtype: np.dtype[Any], shape: tuple[int, int]) -> dict[str, Any]:
    """Return the attributes that SciPy sets on an operator. The result is cached, because creating
    the attributes takes as long as a small product.
    """
    make: Any = _PlainOperator
    attributes: dict[str, Any] = vars(make(dtype, shape))
    return attributes


class Operator(LinearOperator, ReadOnlyMixin):
    """A real `LinearOperator` that checks its arguments and raises descriptive errors.

    Vectors may be arrays, torch tensors on the CPU (the result is then a tensor), or anything that
    `fastcurv.common.checks.as_numpy` accepts.
    """

    _read_only = frozenset(("dtype", "shape", "ndim"))

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
        self.__dict__.update(_scipy_attributes(dtype, shape))

    @abstractmethod
    def __reduce__(self) -> tuple[Any, ...]:
        """Return the class, the arguments of its constructor and, if a copy needs more, a dict of
        attributes. Attributes that SciPy sets are never part of a copy, since they differ between
        versions of SciPy.
        """

    def __setstate__(self, state: dict[str, Any]) -> None:
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

    def _check_operand(self, x: Any, n: int, name: str, ndims: tuple[int, ...]) -> np.ndarray:
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

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
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
    def product(self, v: Any, out: Array | None = None) -> Array:
        """Return the product of the operator with v ``(n,)``, in `out` if it is given and in a new
        array otherwise.
        """

    def _matvec(self, v: Array) -> Array:
        return self.product(np.reshape(v, -1))  # SciPy passes v (n,) or (n, 1)

    def _transpose(self) -> SymmetricOperator:
        return self

    def shift(self, mu: float) -> ShiftedOperator:
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
        return ShiftedOperator(self, mu)

    def factor(self) -> Any:  # returns CholeskyFactor
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

    def __add__(self, other: Any) -> Any:
        """Return a `ShiftedOperator` if `other` is a multiple of the identity, given as a sparse
        matrix or an operator. For any other matrix or operator return SciPy's sum.
        """
        mu = _multiple_of_identity(other, self.shape)
        if mu is not None:
            return self.shift(mu)
        matrix: Any = other
        if isinstance(other, np.ndarray) or issparse(other):
            from scipy.sparse.linalg import aslinearoperator

            return super().__add__(aslinearoperator(matrix))
        return super().__add__(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        mu = _multiple_of_identity(other, self.shape)
        return self.shift(-mu) if mu is not None else super().__sub__(other)


def _multiple_of_identity(other: Any, shape: tuple[int, int]) -> float | None:
    """Return mu if `other` is mu times the identity of this shape, given as a sparse matrix or as
    SciPy's operator. Return None for other objects.
    """
    if getattr(other, "shape", None) != shape:
        return None
    sparse: Any = other
    if issparse(other):
        d = sparse.diagonal()
        same = len(d) == sparse.nnz and d.size and (d == d[0]).all() and d.dtype.kind in "fiub"
        return float(d[0]) if same else None
    if type(other).__name__ == "IdentityOperator":
        return 1.0
    if type(other).__name__ == "_ScaledLinearOperator":
        A, alpha = other.args
        return float(alpha) if type(A).__name__ == "IdentityOperator" else None
    return None


class DerivedOperatorMixin:
    """A mixin for operators derived from another operator, `whole`, whose product counter and
    layout they share.
    """

    whole: Any

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products with `whole` have no known bound, or ""."""
        return missing_bound_reason(self.whole)

    @property
    def n_products(self) -> int:
        """Number of vectors that `whole` has multiplied, including those for products with this
        operator.
        """
        return int(self.whole.n_products)

    @n_products.setter
    def n_products(self, count: int) -> None:
        self.whole.n_products = count

    @property
    def diagonal_cost(self) -> float:
        """Cost of `exact_diagonal` in products; see `Curvature.diagonal_cost`."""
        return float(self.whole.diagonal_cost)

    @property
    def layout(self) -> Mapping[str, Any]:
        """Layout of the products of `whole`, as `Curvature.layout`."""
        layout: Mapping[str, Any] = self.whole.layout
        return layout


@library_class
class ShiftedOperator(DerivedOperatorMixin, SymmetricOperator):
    """The operator ``H + mu I``, whose product with v is ``H v + mu v``.

    Created by ``H.shift(mu)`` and ``H + mu * identity(n)``. H counts the products with this
    operator.

    Attributes
    ----------
    whole : Curvature or block of one
        The operator H.
    mu : float
        The number that is added to every eigenvalue.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from scipy.sparse import identity
    >>> model = fc.MLP([1, 1, 1], activation="identity", bias=False)
    >>> H = fc.Objective(model, [[1.0]], [1.0], loss="mse").hessian(np.zeros(2))
    >>> (H + 3 * identity(2)) @ np.array([1.0, 1.0])
    array([1., 1.])
    """

    mu: float
    _read_only = Operator._read_only | {"whole", "mu"}

    def __init__(self, whole: Any, mu: float) -> None:
        self.whole = whole
        self.mu = float(check_array(mu, "mu", np.float64).reshape(()))
        super().__init__(whole.dtype, whole.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShiftedOperator, (self.whole, self.mu)

    def __repr__(self) -> str:
        return f"<{self.mu:g} I + {repr(self.whole)[1:]}"

    def product(self, v: Any, out: Array | None = None) -> Array:
        """Return ``H v + mu v`` for v ``(n,)``, in `out` if it is given and in a new array
        otherwise.
        """
        v, out = vector_and_output(v, out, self.shape[0], self.dtype)
        if is_library_object(self.whole):
            self.whole.product(v, out)
        else:  # a subclass may define its products by any method
            out[...] = StatedOperator(self.whole) @ v
        out += self.dtype.type(self.mu) * v
        return out

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        whole = self.whole if is_library_object(self.whole) else StatedOperator(self.whole)
        out: Array = whole._matmat(V)
        out += self.dtype.type(self.mu) * columns_as_rows(V, self.shape[0], self.dtype).T
        return out

    def quadratic_form(self, v: Any) -> Any:
        """Return ``v'(H + mu I) v``, as a float for v ``(n,)`` or as an array ``(k,)`` for the
        columns of v ``(n, k)``.
        """
        wide = as_numpy(v, "v").astype(np.float64)
        return self.whole.quadratic_form(v) + self.mu * np.einsum("i...,i...->...", wide, wide)

    def exact_diagonal(self) -> np.ndarray:
        """Return the diagonal ``(n,)`` in float64; see `Curvature.exact_diagonal`."""
        return np.asarray(self.whole.exact_diagonal() + self.mu)

    def to_dense(self) -> np.ndarray:
        """Return the matrix ``(n, n)``."""
        dense: Array = self.whole.to_dense()
        dense[np.diag_indices(len(dense))] += self.dtype.type(self.mu)
        return dense

    def astype(self, dtype: Any) -> ShiftedOperator:
        """Return the operator in the given dtype, with the curvature evaluated in that
        precision.
        """
        return ShiftedOperator(self.whole.astype(dtype), self.mu)


@library_class
class TransposedOperator(Operator):
    """Transpose of the operator `whole`, computed by the method ``_rmatvec`` of `whole`."""

    whole: Any
    _read_only = Operator._read_only | {"whole"}

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        super().__init__(whole.dtype, whole.shape[::-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return TransposedOperator, (self.whole,)

    def _matvec(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(self.whole._rmatvec(u))

    def _transpose(self) -> Operator:
        whole: Operator = self.whole
        return whole
