"""Validation of arguments: each check returns the converted value, or raises TypeError or
ValueError with a message that names the argument.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from .._engine import NotFiniteError, inner_product
from .errors import (
    conversion_hint,
    type_phrase,
)
from .protocols import (
    OPTIONAL_OPERATOR_METHODS,
    PRODUCT_METHODS,
    Array,
    Indices,
    is_library_object,
    library_class,
    states,
)

Name = TypeVar("Name", bound=str)
# `int` comes first because a check against an abstract class is slow.
INTEGER_TYPES = (int, numbers.Integral)
# maximum integer argument, which is in the range of a float and of the sizes in the engine
MAX_INTEGER_ARGUMENT = (1 << 63) - 1
# maximum number of entries in a block of matrix rows; Ctrl-C is handled between blocks
MAX_ROW_BLOCK_ENTRIES = 1 << 20


def as_rng(rng: object) -> np.random.Generator:
    """Return a `numpy.random.Generator` for None, an int >= 0, a SeedSequence or a BitGenerator. A
    Generator is returned unchanged. Raise TypeError or ValueError for anything else.

    Examples
    --------
    >>> bool(as_rng(0).integers(10) == as_rng(0).integers(10))
    True
    """
    return np.random.default_rng(check_rng(rng))


def check_rng(rng: object) -> int | np.random.Generator | None:
    """Return `rng`, None, an int >= 0 or a Generator, after checking it. A SeedSequence or
    BitGenerator becomes a Generator. Raise TypeError or ValueError for anything else. No generator
    is created for an int, because that may take longer than the rest of a call that draws no
    random numbers.
    """
    if rng is None or isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, np.random.SeedSequence | np.random.BitGenerator):
        return np.random.default_rng(rng)
    wanted = "None, an int >= 0, or a numpy.random SeedSequence, BitGenerator or Generator"
    if not isinstance(rng, INTEGER_TYPES) or isinstance(rng, bool):
        raise TypeError(f"rng must be {wanted}, got {type_phrase(rng)}.")
    if rng < 0:
        raise ValueError(f"rng must be {wanted}, got {short_repr(rng)}.")
    return int(rng)


def random_batches(n: int, size: int, rng: np.random.Generator) -> Iterator[Indices]:
    """Yield batches of `size` row indices that cover 0 to n - 1 once, in random order. The last
    batch may be smaller.
    """
    size = check_positive_int(size, "size")
    order = as_rng(rng).permutation(n)
    for begin in range(0, n, size):
        yield order[begin : begin + size]


def spawn_generators(rng: np.random.Generator, n: int) -> Iterator[np.random.Generator]:
    """Spawn n generators that are independent of each other and of `rng`, one at a time.

    Examples
    --------
    >>> len({rng.integers(1 << 40) for rng in spawn_generators(as_rng(0), 3)})
    3
    """
    bits: Any = rng.bit_generator
    for _ in range(n):
        (seed,) = bits._seed_seq.spawn(1)  # `spawn` is public from NumPy 1.25 on
        yield np.random.Generator(type(bits)(seed))


def integer_seed(seed: object) -> int:
    """Return a checked seed as an int >= 0; None or a Generator draws one."""
    return seed if isinstance(seed, int) else int(as_rng(seed).integers(1 << 32))


def check_positive_int(x: Any, name: str, most: int | None = None, least: int = 1) -> int:
    """Return `x` as an int >= `least` and <= `most`, by default 2^63 - 1. Raise TypeError, with
    `name` for x, if x is not an integer, and ValueError if x is out of range.
    """
    is_integer = isinstance(x, INTEGER_TYPES) and not isinstance(x, bool)
    if is_integer and least <= x <= (MAX_INTEGER_ARGUMENT if most is None else most):
        return int(x)
    if is_integer and most is None and x > MAX_INTEGER_ARGUMENT:
        raise ValueError(f"{name} must be an int below 2**63, got {short_repr(x)}.")
    wanted = f"an int >= {least}" if most is None else f"an int >= {least} and <= {most}"
    if is_integer:
        raise ValueError(f"{name} must be {wanted}, got {short_repr(x)}.")
    raise TypeError(f"{name} must be {wanted}, got {short_repr(x)}.")


def check_real_number(x: object, name: str, wanted: str = "a number") -> float:
    """Return a real number as a float. Raise TypeError if x is not a real number, and ValueError if
    the number is too large for a float. `wanted` describes the argument in messages.
    """
    if type(x) is float:
        return x
    if isinstance(x, bool) or not isinstance(x, numbers.Real):
        raise TypeError(f"{name} must be {wanted}, got {short_repr(x)}.")
    try:
        return float(x)
    except OverflowError:
        raise ValueError(
            f"{name} must be {wanted} in the range of float64, got {short_repr(x)}."
        ) from None


def is_iterable(x: Any) -> bool:
    """Return True if x can be iterated over. An array without dimensions cannot, although it has
    the method ``__iter__``.
    """
    try:
        iter(x)
    except TypeError:
        return False
    return True


def short_repr(x: object) -> str:
    """Return the repr of a value for a message. An int of more than 128 bits is replaced by its
    number of bits. A repr is replaced by the type if it has more than 80 characters or is not
    printable.

    Examples
    --------
    >>> short_repr(-3), short_repr(10**400)
    ('-3', 'an int of 1329 bits')
    """
    if isinstance(x, int) and x.bit_length() > 128:
        return f"an int of {x.bit_length()} bits"
    written = repr(x)
    return written if len(written) <= 80 and written.isprintable() else type_phrase(x)


def check_positive(x: object, name: str, *, zero: bool = False) -> float:
    """Return `x` as a finite float > 0, or >= 0 if `zero` is True. Raise TypeError or ValueError
    for other values.
    """
    wanted = "a finite number >= 0" if zero else "a finite number > 0"
    number = check_real_number(x, name, wanted)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be {wanted}, got {number}.")
    return number


def check_bool(x: object, name: str) -> bool:
    """Return `x` as a bool. Raise TypeError unless x is True or False."""
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {short_repr(x)}.")
    return bool(x)


def check_choice(x: object, choices: Iterable[Name], name: str) -> Name:
    """Return `x` if it is one of the strings `choices`. Otherwise raise ValueError, or TypeError if
    x is not a string.
    """
    choices = list(choices)
    if isinstance(x, str) and x in choices:
        return choices[choices.index(x)]  # a subclass of str may have other methods
    wanted = f"{name} must be one of {', '.join(choices)}"
    if isinstance(x, str):
        raise ValueError(f"{wanted}, got {short_repr(x)}.")
    raise TypeError(f"{wanted}, got {type_phrase(x)}.")


def all_finite(a: Array) -> bool:
    """Return True if no entry is NaN or infinite.

    The sum of squares of a contiguous array is computed first, because it is fast. If the sum is
    not finite, for example because it overflows, each entry is checked.
    """
    flat = a.ravel("K") if a.ndim != 1 and a.flags.forc else a  # a view, not a copy
    squares = inner_product(flat, flat)  # None if the entries are not contiguous
    if squares is not None and math.isfinite(squares):
        return True
    # The method `.all()` takes twice as long.
    return bool(np.logical_and.reduce(np.isfinite(a), axis=None))


def is_sparse(X: object) -> bool:
    """Return True if X is a SciPy sparse matrix or array."""
    return bool(issparse(X))


def as_numpy(x: object, name: str) -> Array:
    """Convert an array-like to an ndarray, without a copy for arrays of other libraries in CPU
    memory.

    Parameters
    ----------
    x : array_like
        Also masked arrays in which nothing is masked, torch tensors on the CPU without
        ``requires_grad``, data frames, and anything with ``__array__`` or ``__dlpack__``.
    name : str
        Name of the argument, for messages.

    Raises
    ------
    ValueError
        For masked values, a tensor that requires a gradient, or lists of unequal lengths.
    TypeError
        For anything that is not an array, including sparse matrices and tensors that are not on
        the CPU.

    Examples
    --------
    >>> as_numpy([1, 2], "v")
    array([1, 2])
    >>> as_numpy(np.ma.array([1.0, 2.0], mask=[False, True]), "v")
    Traceback (most recent call last):
    ValueError: v must have no masked entries, got 1 of 2 masked. Fill or drop them.
    """
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray):
        hidden = int(np.sum(x.mask))
        if hidden:
            raise ValueError(
                f"{name} must have no masked entries, got {hidden} of {x.size} masked. Fill or "
                "drop them."
            )
        return np.asarray(x.data)
    if is_sparse(x):
        raise TypeError(f"{name} must be a dense array, got a sparse matrix. Use {name}.toarray().")
    if getattr(x, "requires_grad", False) is True:
        raise ValueError(
            f"{name} must be a tensor without requires_grad, got requires_grad=True. Use "
            f"{name}.detach()."
        )
    try:
        if not hasattr(x, "__array__") and hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        a = np.asarray(x)
        # A data frame with missing values gives an array of objects.
        if a.dtype == object and hasattr(x, "to_numpy"):
            a = x.to_numpy(dtype=float, na_value=np.nan)
        if a.dtype == object and any(isinstance(part, (list, tuple)) for part in a.flat):
            # NumPy 1.24 and later raise ValueError for lists of unequal lengths. The text of the
            # error is replaced below.
            raise ValueError("its entries are lists")
        return a
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:
        raise _array_conversion_error(x, name, error) from None


def _array_conversion_error(x: object, name: str, error: Exception) -> TypeError | ValueError:
    """Return the exception for an object x that could not be converted to an ndarray. `name` is the
    argument, and `error` the exception of the conversion, whose text states the reason.
    """
    text = str(error).split("\n")[0].rstrip(".")
    if isinstance(x, (list, tuple)):
        return ValueError(f"{name} must have rows of equal lengths that hold numbers ({text}).")
    return TypeError(
        f"{name} must hold real numbers, got {type_phrase(x)} ({text}).{conversion_hint(x)}"
    )


def check_array(x: object, name: str, dtype: DTypeLike | None = None) -> Array:
    """Return `x` as an array of finite real floats in native byte order. By default float32 and
    float64 are kept and other dtypes become float64. Raise TypeError for other values, and
    NotFiniteError for NaN and infinity.
    """
    cast = a = as_numpy(x, name)
    if dtype is None or a.dtype != dtype or not a.dtype.isnative:
        if a.dtype.kind not in "fiub":
            single = not a.shape and a.dtype == object
            said = type_phrase(a.item()) if single else f"dtype {a.dtype}"
            found = hasattr(x, "x") and hasattr(x, "fun")
            cure = f" Use {name}.x." if found else conversion_hint(x)
            raise TypeError(f"{name} must hold real numbers, got {said}.{cure}")
        if dtype is None:
            dtype = a.dtype if a.dtype in (np.float32, np.float64) else np.float64
        # The check of the result below reports an overflow.
        with np.errstate(over="ignore"):
            cast = a.astype(np.dtype(dtype).newbyteorder("="), copy=False)
    return cast if all_finite(cast) else check_finite(cast, name, a)


def check_finite(a: Array, name: str, given: Array | None = None) -> Array:
    """Return the array `a` if all entries are finite, otherwise raise NotFiniteError. If `a` was
    cast from the array `given`, the message distinguishes an overflow in the cast from NaN and
    infinity.
    """
    if not all_finite(a):
        beyond = given is not None and all_finite(given)
        said = f"numbers beyond the range of {a.dtype}" if beyond else "NaN or infinity"
        raise NotFiniteError(f"{name} must hold finite numbers, got {said}.")
    return a


def check_vector(v: object, n: int, name: str, dtype: DTypeLike | None = None) -> Array:
    """Return `v` as a finite real array of shape ``(n,)`` in `dtype`. By default float32 and
    float64 are kept. Raise ValueError for another shape.
    """
    checked = check_array(v, name, dtype)
    if checked.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {checked.shape}.")
    return checked


def is_list_of_layers(theta: object) -> bool:
    """Return True if theta is a list or tuple of layers ``[(W, b), ...]`` or of arrays: if one of
    its elements is a list, a tuple or an array with at least one axis.
    """
    return isinstance(theta, (list, tuple)) and any(
        isinstance(x, (list, tuple)) or isinstance(x, np.ndarray) and x.ndim for x in theta
    )


def check_theta(
    ob: Any, theta: object, name: str = "theta", dtype: DTypeLike | None = None
) -> Array:
    """Return `theta` as a vector of the objective's length. An objective with a model also accepts
    a list of (W, b).
    """
    model: Any = getattr(ob, "model", None)
    if isinstance(theta, (list, tuple)) and is_list_of_layers(theta) and hasattr(model, "flatten"):
        theta = model.flatten(theta)
    return check_vector(theta, ob.n_params, name, dtype)


def rows_shape_error(shape: tuple[int, ...], d: int | None, name: str = "X") -> ValueError:
    """Return the error for rows whose `shape` is not ``(N, d)`` with N >= 1. d is None if the
    number of features is unknown.

    Examples
    --------
    >>> str(rows_shape_error((200,), 1))
    'X must have shape (N, 1) with N >= 1, got (200,). Use X[:, None] for samples of one feature.'
    """
    cure = ""
    if len(shape) == 1 and d in (1, None):
        cure = f" Use {name}[:, None] for samples of one feature."
    elif shape == (d,):
        cure = f" Use {name}[None, :] for one sample."
    elif len(shape) == 2 and shape[0] == d:
        cure = f" Use {name}.T if samples are its columns."
    elif len(shape) > 2:
        cure = f" Use {name}.reshape(len({name}), -1) to flatten samples."
    wanted = f"(N, {'features' if d is None else d}) with N >= 1"
    return ValueError(f"{name} must have shape {wanted}, got {tuple(map(int, shape))}.{cure}")


def check_vectors(V: object, n: int, name: str, dtype: DTypeLike | None = None) -> Array:
    """Return `V` as a finite real array of shape ``(n, k)`` with k >= 1. A vector ``(n,)`` is
    returned as ``(n, 1)``. Raise ValueError for another shape.
    """
    block = check_array(V, name, dtype)
    if block.ndim == 1:
        block = block[:, None]
    if block.ndim != 2 or block.shape[0] != n or block.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape ({n},) or ({n}, k) with k >= 1, got {block.shape}."
        )
    return block


class SelfAdjointOperator(LinearOperator):
    """Base class of real symmetric operators with SciPy's interface."""

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        super().__init__(np.dtype(dtype), shape)  # type: ignore[call-arg]

    def _adjoint(self) -> LinearOperator:
        return self


@library_class
class MatrixOperator(SelfAdjointOperator):
    """A symmetric matrix, dense or sparse, as an operator with the optional methods of fastcurv."""

    def __init__(self, A: Any) -> None:
        super().__init__(A.dtype, A.shape)
        self.A = A

    def _matmat(self, V: Array) -> Array:
        product: Array = self.A @ V
        return product

    _matvec = _matmat

    def product(self, v: Array, out: Array) -> Array:
        out[...] = self.A @ v
        return out

    def to_dense(self) -> Array:
        dense: Array = self.A.toarray() if is_sparse(self.A) else self.A.copy()
        return dense

    def astype(self, dtype: DTypeLike) -> MatrixOperator:
        return MatrixOperator(self.A.astype(dtype))


@library_class
class StatedOperator(SelfAdjointOperator):
    """An operator with the products of `op` and those optional methods that the body of its class
    defines. Inherited and forwarded optional methods may belong to other products.

    The product is the first of `PRODUCT_METHODS` that the body of the class defines, or else
    ``op @ V``.
    """

    def __init__(self, op: Any) -> None:
        super().__init__(operator_dtype(op), tuple(op.shape))
        default = "__matmul__" if hasattr(op, "__matmul__") else "matvec"
        stated = (name for name in PRODUCT_METHODS if name in vars(type(op)))
        self.op = op
        self.name = next(stated, default)

    def __getattr__(self, name: str) -> Any:
        if name not in OPTIONAL_OPERATOR_METHODS or not states(self.op, name):
            raise AttributeError(name)
        return getattr(self.op, name)

    def _matmat(self, V: Array) -> Array:
        multiply = getattr(self.op, self.name)
        if self.name in ("__matmul__", "matmat", "_matmat"):
            product: Array = multiply(V.copy())
            return product
        return np.stack([np.reshape(multiply(v.copy()), -1) for v in V.T], axis=1)

    def _matvec(self, v: Array) -> Array:
        return self._matmat(v.reshape(-1, 1)).reshape(v.shape)


def row_block_slices(m: int, n: int) -> Iterator[slice]:
    """Return slices that split the rows of a matrix (m, n) into blocks of at most
    `MAX_ROW_BLOCK_ENTRIES` entries, or of one row.
    """
    step = max(1, MAX_ROW_BLOCK_ENTRIES // max(1, n))
    return (slice(start, min(start + step, m)) for start in range(0, m, step))


def _check_symmetric(A: Any, name: str) -> MatrixOperator:
    """Return a square real matrix A, dense or sparse, as an operator. Raise ValueError, with `name`
    for A, if the matrix is not symmetric to rounding or not finite.
    """
    if A.dtype not in (np.float32, np.float64):
        A = A.astype(np.float64)
    if is_sparse(A):
        # Some sparse formats do not support the operations below.
        A = A.tocsr()
        parts = [(A, A.T)] if A.nnz else []
    else:
        parts = [(A[rows], A[:, rows].T) for rows in row_block_slices(len(A), A.shape[1])]
    size = gap = 0.0
    # Ctrl-C is handled between blocks.
    for part, mirrored in parts:
        if not np.isfinite(part.data if is_sparse(A) else part).all():
            raise NotFiniteError(f"{name} must hold finite numbers, got NaN or infinity.")
        with np.errstate(over="ignore", invalid="ignore"):
            size = max(size, abs(part).max())
            gap = np.fmax(gap, abs(part - mirrored).max())
    if not gap <= 100 * np.finfo(A.dtype).eps * A.shape[0] ** 0.5 * size:
        raise ValueError(
            f"{name} must be symmetric, got entries that differ from their mirror images by up to "
            f"{gap:.2g}. Use (A + A.T) / 2, for example."
        )
    return MatrixOperator(A)


def check_symmetric_operator(op: Any, name: str = "op") -> Any:
    """Return `op` as a square real `scipy.sparse.linalg.LinearOperator`.

    Parameters
    ----------
    op : LinearOperator, array or sparse matrix, shape (n, n)
        Matrices are checked for symmetry to rounding and wrapped without a copy. The symmetry of an
        operator is not checked, since that would cost products.

    Returns
    -------
    LinearOperator
        `op` itself if it is an operator, a `MatrixOperator` of a matrix, or a `StatedOperator` of
        an operator that inherits or forwards optional methods.
    """
    matrix = not hasattr(op, "matvec") and (
        issparse(op)
        or isinstance(op, np.ndarray)
        or hasattr(op, "__array__")
        or hasattr(op, "__dlpack__")
    )
    if matrix and not issparse(op):
        op = as_numpy(op, name)
    if not (hasattr(op, "shape") and (hasattr(op, "matvec") or hasattr(op, "__matmul__"))):
        more = f" Use {name}.hessian(theta)." if hasattr(op, "hessian") else conversion_hint(op)
        raise TypeError(
            f"{name} must be a symmetric LinearOperator or matrix of shape (n, n), got "
            f"{type_phrase(op)}.{more}"
        )
    shape = tuple(op.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"{name} must have shape (n, n) with n >= 1, got {shape}.")
    dtype = getattr(op, "dtype", None)
    if dtype is not None and np.dtype(dtype).kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {np.dtype(dtype)}.")
    if matrix:
        return _check_symmetric(op, name)
    return StatedOperator(op) if _has_unstated_methods(op) else op


def _has_unstated_methods(op: object) -> bool:
    """Return True if an operator has an optional method that its class does not state."""
    return not is_library_object(op) and any(
        not states(op, name) and hasattr(op, name) for name in OPTIONAL_OPERATOR_METHODS
    )


def objective_dtype(ob: object) -> np.dtype[Any]:
    """Return the dtype in which an objective computes: float64 unless it states another."""
    return np.dtype(getattr(ob, "dtype", None) or np.float64)


def operator_dtype(op: Any) -> np.dtype:
    """Return float32 if the operator's dtype is float32, else float64."""
    single = np.dtype(getattr(op, "dtype", None)) == np.float32
    return np.dtype(np.float32 if single else np.float64)


def checked_product(op: Any, V: Array) -> Array:
    """Return ``op @ V`` for V (n,) or (n, k). Raise TypeError if the result is not real, and
    ValueError if its shape is not that of V. Operators of other libraries may write to their input
    or to an earlier output, so both are copied.
    """
    if hasattr(op, "product"):
        return np.asarray(op @ V)
    if hasattr(op, "__matmul__"):
        product = np.array(op @ V.copy())
    else:
        product = np.array([op.matvec(v.copy()) for v in np.atleast_2d(V.T)]).T.reshape(V.shape)
    if product.dtype.kind == "O":
        product = product.astype(np.float64)
    if product.dtype.kind not in "fiub":
        raise TypeError(f"products with the operator must be real, got dtype {product.dtype}.")
    if product.shape != V.shape:
        raise ValueError(f"op @ V must have the shape of V, {V.shape}, got {product.shape}.")
    return product
