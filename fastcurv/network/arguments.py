"""Validation of arguments to networks, objectives and operators, and conversion to the form that
the engine takes. Error messages state the requirement and the value that was given.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import csr_matrix

from .._engine import copy_transpose
from ..common.checks import (
    as_numpy,
    check_array,
    check_choice,
    check_positive_int,
    is_iterable,
    is_sparse,
    rows_shape_error,
    short_repr,
)
from ..common.errors import (
    one_line,
    type_phrase,
)
from ..common.protocols import Array
from ..structure.given import LossFunction
from ..structure.tables import (
    ACTIVATIONS,
    DEFAULT_LOSS_BY_TARGETS,
    loss_spec,
)
from ..structure.user_functions import Activation

if TYPE_CHECKING:
    from ..network.mlp import MLP


Block = tuple[Any, Any, Any]  # (X, y, sample_weight or None)
ROW_ARGUMENT_NAMES = ("X", "y", "sample_weight")


def check_sizes(sizes: Any) -> tuple[int, ...]:
    try:
        widths = None if isinstance(sizes, (str, bytes)) else list(sizes)
    except TypeError:
        # `list` raises TypeError for objects that are not iterable and for zero-dimensional arrays.
        widths = None
    if widths is None:
        raise TypeError(
            f"sizes must be a sequence of widths such as [64, 32, 10], got {short_repr(sizes)}."
        )
    sizes = widths
    if len(sizes) < 2:
        raise ValueError(
            f"sizes must have at least two widths, of the input and of the output, got {sizes}."
        )
    for width in sizes:
        if isinstance(width, bool) or not isinstance(width, numbers.Integral):
            raise TypeError(f"sizes must hold ints >= 1, got {short_repr(width)}.")
        if width < 1:
            raise ValueError(f"sizes must hold ints >= 1, got {short_repr(width)}.")
    return tuple(int(width) for width in sizes)


def raise_if_user_activation(model: Any, why: str, wanted: str) -> None:
    """Raise ValueError if an activation of the model is a user-defined `Activation`. The message
    has the form "model must have {wanted}, got {activation}, {why}".
    """
    user_activation = next((phi for phi in model.activation if isinstance(phi, Activation)), None)
    if user_activation is not None:
        raise ValueError(f"model must have {wanted}, got {user_activation!r}, {why}.")


def check_activation(activation: Any, n_hidden: int) -> tuple[Any, ...]:
    """Return a tuple with a checked name or `Activation` for each of `n_hidden` hidden layers.
    `activation` is one name or `Activation` for all layers, or a sequence with one for each layer.
    """
    if isinstance(activation, (str, Activation)):
        activation = (activation,) * max(n_hidden, 1)  # checked without hidden layers, too
    elif is_iterable(activation):
        activation = tuple(activation)
        if len(activation) != n_hidden:
            raise ValueError(
                "activation must be one name, or a sequence with one name for each of the "
                f"{n_hidden} hidden layers, got {len(activation)} names."
            )
    else:
        raise TypeError(
            "activation must be a name, an fc.Activation, or one for each hidden layer, got "
            f"{type_phrase(activation)}."
        )
    checked = (
        name if isinstance(name, Activation) else check_choice(name, ACTIVATIONS, "activation")
        for name in activation
    )
    return tuple(checked)[:n_hidden]


def check_dtype(dtype: Any) -> np.dtype[Any]:
    # NumPy raises SyntaxError for names such as ",f8".
    with suppress(TypeError, ValueError, SyntaxError):
        for kind in (np.dtype(np.float32), np.dtype(np.float64)):
            if np.dtype(dtype) == kind:
                return kind
    raise ValueError(f"dtype must be 'float64' or 'float32', got {short_repr(dtype)}.")


def _raise_if_string_labels(y: Any) -> None:
    """Raise TypeError if the class labels y, a list, a one-dimensional array or a column of a data
    frame, contain strings.
    """
    kind = getattr(getattr(y, "dtype", None), "kind", "")
    if isinstance(y, (list, tuple)) or kind in ("O", "S", "U") and getattr(y, "ndim", 0) == 1:
        word = next((part for part in y if isinstance(part, (str, bytes))), None)
        if word is not None:
            raise TypeError(
                f"y must hold integer classes (N,), got strings such as {one_line(word)!r}. "
                "Convert them with classes, y = numpy.unique(y, return_inverse=True)."
            )


def check_targets(y: Any, N: int, model: Any, loss: Any, weight: Any = None) -> np.ndarray:
    """Return the targets y of N samples in the form that the engine takes. Class labels are int32
    (N,), other targets an array (N, m) of the model's dtype. m is the number of outputs, unless a
    user-defined loss has targets of another width. When a user-defined loss is used for the first
    time, it is evaluated at some samples whose `weight` (N,) is not 0.

    Class labels are copied, because the engine uses them as indices and the caller could otherwise
    change them after the check.
    """
    d = model.sizes[-1]
    row = loss_spec(loss)
    loss_function = row.given
    if row.targets == "classes":
        _raise_if_string_labels(y)
    array = as_numpy(y, "y")
    if row.targets == "classes" and array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise TypeError(
                f"y must hold integer classes (N,) or soft targets (N, {d}) for loss={loss!r}, "
                f"got dtype {array.dtype}. Use loss={_losses_for_targets('numbers')} "
                "for regression."
            )
        if array.shape != (N,):
            raise ValueError(f"y must have {N} labels, one for each row of X, got {len(array)}.")
        array = np.array(array, order="C")
        if array.min() < 0 or array.max() >= d:
            one = (
                f" Use loss={_losses_for_targets('numbers', 'labels')} for one output."
                if d == 1
                else ""
            )
            raise ValueError(
                f"y must hold labels from 0 to {d - 1}, got labels from {array.min()} to "
                f"{array.max()}.{one}"
            )
        return array.astype(np.int32, copy=False)
    array = check_array(array, "y", model.dtype)
    width = loss_function.target_width(d) if loss_function else d
    if array.ndim == 1 and width in (1, None):
        array = array[:, None]
    if array.ndim == 2 and width is None:
        width = array.shape[1]
    if array.shape != (N, width):
        wanted = f"({N}, {width or 'm'})"
        if width in (1, None) or row.targets == "classes":
            wanted += f" or ({N},)"
        raise ValueError(f"y must have shape {wanted}, got {array.shape}.")
    if row.targets == "labels" and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"y must hold numbers from 0 to 1 for {loss.replace('_', ' ')}, got numbers from "
            f"{array.min():g} to {array.max():g}."
        )
    if loss_function is not None:
        _check_target_range(loss_function, array, d, weight)
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def _check_target_range(given: LossFunction, y: np.ndarray, d_out: int, weight: Any) -> None:
    """Raise ValueError if targets y are outside the range of the loss `given`. If this is the first
    use of a user-defined loss, evaluate the loss at some samples whose `weight` is not 0, with
    `d_out` outputs, to determine the shapes of the results.
    """
    if given.least is not None:
        least, itself = given.least
        low = y.min()
        if low < least or (low == least and not itself):
            wanted = f">= {least:g}" if itself else f"> {least:g}"
            raise ValueError(f"y must hold numbers {wanted} for {given.name}, got {low:g}.")
    given.determine_properties(y, d_out, weight)


def _losses_for_targets(*targets: str) -> str:
    """Return the quoted names of the default losses for the kinds of targets, in reverse order,
    joined by "or".
    """
    return " or ".join(repr(DEFAULT_LOSS_BY_TARGETS[kind]) for kind in reversed(targets))


def check_sample_weight(weight: Any, N: int, dtype: Any) -> np.ndarray | None:
    if weight is None:
        return None
    w = check_array(weight, "sample_weight", dtype)
    if w.shape != (N,):
        raise ValueError(f"sample_weight must have shape ({N},), got {w.shape}.")
    if w.min() < 0:
        raise ValueError(f"sample_weight must hold numbers >= 0, got {w.min():g}.")
    return np.require(w, w.dtype.newbyteorder("="), ["C", "A"])


def select_rows(rows: Array, *parts: Any) -> list[Any]:
    """Return, for each array of `parts`, the rows that a slice, indices or a mask select. Parts
    that are None remain None. Raise ValueError if no row is selected.
    """
    if not isinstance(rows, slice):
        rows = as_numpy(rows, "rows")
        if rows.ndim != 1 or rows.dtype.kind not in "iub":
            raise TypeError(
                f"rows must be a slice, indices or a mask, got an array of shape {rows.shape} and "
                f"dtype {rows.dtype}."
            )
    try:
        selected: list[Any] = [None if part is None else part[rows] for part in parts]
    except IndexError as error:
        raise ValueError(
            f"rows must select from the {len(parts[0])} samples, got an invalid index ({error})."
        ) from None
    if not len(selected[0]):
        raise ValueError("rows must select at least one sample, got 0.")
    return selected


def row_indices(rows: Array, N: int) -> np.ndarray:
    """Return the indices of the rows, out of N, that a slice, indices or a mask select."""
    return np.asarray(select_rows(rows, np.arange(N))[0])


def check_memory_bytes(memory: Any) -> int:
    """Return `memory`, a number of bytes, as an int, after checking it. A float such as 2e9 is
    accepted if it is an integer.
    """
    is_integer = isinstance(memory, float) and memory.is_integer()
    return check_positive_int(int(memory) if is_integer else memory, "memory", sys.maxsize)


def as_real_array(v: Any, name: str) -> np.ndarray:
    """Return v as an array of real numbers of any shape. Raise TypeError for other values."""
    real = as_numpy(v, name)
    if real.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {real.dtype}.")
    return real


def as_vector(v: Any, n: int, dtype: Any) -> np.ndarray:
    """Return v as a contiguous array (n,) of the given dtype. NaN and infinity are allowed, since
    products propagate them. Raise ValueError for another shape.
    """
    v = as_real_array(v, "v")
    if v.shape != (n,):
        raise ValueError(f"v must have shape ({n},), got {v.shape}.")
    return np.require(v, dtype, ["C", "A"])


def columns_as_rows(V: Array, n: int, dtype: DTypeLike, threads: int = 1) -> np.ndarray:
    """Return the columns of V (n, k) as the contiguous rows of an array (k, n) of the given dtype.
    If V is in Fortran order and has this dtype, the result is a view of V. Otherwise V is copied,
    by `threads` threads if only its order differs.
    """
    V = as_real_array(V, "V")
    if V.ndim != 2 or V.shape[0] != n:
        raise ValueError(f"V must have shape ({n},) or ({n}, k), got {V.shape}.")
    rows: Array = V.T
    flags = V.flags
    if V.dtype == dtype and flags.aligned:
        if flags.f_contiguous:
            return rows
        if not any(s % V.itemsize for s in V.strides):
            return copy_transpose(V, np.empty(V.shape[::-1], dtype), threads)
    return np.require(rows, dtype, ["C", "A"])


def check_out(out: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return `out` after checking that it is a writeable contiguous array of the given shape and
    dtype.
    """
    if (
        not isinstance(out, np.ndarray)
        or out.shape != shape
        or out.dtype != dtype
        or not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned)
    ):
        is_array = isinstance(out, np.ndarray)
        flags = f", strides {out.strides} and writeable={out.flags.writeable}" if is_array else ""
        raise ValueError(
            f"out must be a writeable contiguous aligned {dtype} array of shape {shape}, got "
            f"{getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}{flags}."
        )
    return out


def vector_and_output(v: Any, out: Any, n: int, dtype: Any) -> tuple[Array, Array]:
    """Return the pair (v, out) of contiguous arrays (n,). If `out` is None, a new array takes its
    place. v is copied if v and `out` might share memory.
    """
    v = as_vector(v, n, dtype)
    out = np.empty(n, dtype) if out is None else check_out(out, (n,), dtype)
    return v.copy() if np.may_share_memory(v, out) else v, out


def layer_indices(model: MLP, layers: Any) -> np.ndarray:
    """Return the indices into theta of some layers, given by numbers or by names of parts."""
    chosen = np.atleast_1d(as_numpy(layers, "layers"))
    sizes = (
        model._part_sizes() if chosen.dtype.kind == "U" else dict(enumerate(np.diff(model.starts)))
    )
    count = len(model.shapes)
    if chosen.dtype.kind not in "iuU" or chosen.ndim != 1 or not len(chosen):
        raise TypeError(
            f"layers must be one or more ints from 0 to {count - 1}, or names, "
            f"got {short_repr(chosen.tolist())}."
        )
    given = chosen.tolist()
    if len(set(given)) != len(given) or not set(given) <= set(sizes):
        allowed = f"ints from 0 to {count - 1}, or names from {', '.join(model._part_sizes())}"
        raise ValueError(f"layers must be {allowed}, each once, got {short_repr(given)}.")
    ends = dict(zip(sizes, np.cumsum(list(sizes.values()))))
    return np.concatenate([np.arange(ends[part] - sizes[part], ends[part]) for part in given])


def check_indices(indices: Any, n: int) -> np.ndarray:
    ints = np.array(as_numpy(indices, "indices"))
    if ints.dtype.kind not in "iu" or ints.ndim != 1 or not len(ints):
        raise TypeError(
            f"indices must be a vector of ints, got an array of shape {ints.shape} and dtype "
            f"{ints.dtype}."
        )
    if ints.min() < 0 or ints.max() >= n:
        raise ValueError(
            f"indices must be ints from 0 to {n - 1}, got ints from {ints.min()} to {ints.max()}."
        )
    values, counts = np.unique(ints, return_counts=True)
    if len(values) != len(ints):
        raise ValueError(f"indices must be distinct, got {values[counts > 1][0]} more than once.")
    return ints.astype(np.intp, copy=False)


def match_array_type(x: Any, result: np.ndarray) -> Any:
    """Return the array `result`, or, if x is a torch tensor, a tensor that shares memory with
    `result`.
    """
    if type(x) is not np.ndarray and type(x).__module__.split(".")[0] == "torch":
        import torch

        return torch.from_numpy(result)
    return result


def check_rows_and_targets(
    model: Any,
    loss: Any,
    block: Sequence[Any],
    stored: Any = None,
    tame: bool = True,
) -> Block:
    """Return the block (X, y, weight) in the form that the engine uses, or raise TypeError or
    ValueError. In the result X is an array or a `csr_matrix` in the model's dtype, and `weight` is
    an array or None.

    If `stored` is given, the block comes from a row source, and its numbers are first cast to
    `stored`, the dtype of the objective that reads the source. If `tame` is True,
    `zero_unused_large_entries` is applied to X.
    """
    if stored is not None and stored != model.dtype:
        classes = loss_spec(loss).targets == "classes" and np.ndim(block[1]) == 1
        block = [
            a
            if a is None or (classes and name == "y")
            else (as_owned_csr(a, name) if is_sparse(a) else as_numpy(a, name)).astype(stored)
            for a, name in zip(block, ROW_ARGUMENT_NAMES)
        ]
    X, y, weight = block
    X = _checked_csr(X, model, stored is None) if is_sparse(X) else model.check_rows(X)
    weight = check_sample_weight(weight, X.shape[0], model.dtype)
    y = check_targets(y, X.shape[0], model, loss, weight)
    return zero_unused_large_entries(model, X, weight) if tame else X, y, weight


def zero_unused_large_entries(model: Any, X: Any, weight: Any) -> Any:
    """Return X with 0 in place of the finite entries above the root of the dtype's maximum in rows
    of weight 0. Such entries could overflow in hidden units, and 0 times infinity would be NaN in
    products. For a model with batch normalisation return X unchanged, since rows of weight 0 enter
    the statistics.
    """
    if model.batch_norm:
        return X
    idle = None if weight is None or weight.all() else weight == 0
    if idle is None:
        return X
    max_entry = float(np.finfo(X.dtype).max) ** 0.5

    # Infinite entries are kept, so that they raise an error where X is read.
    def is_large(x: Any) -> Any:
        return (np.abs(x) > max_entry) & (np.abs(x) < np.inf)

    if is_sparse(X):
        far = np.repeat(idle, np.diff(X.indptr)) & is_large(X.data)
        if far.any():
            X = X.copy()
            X.data[far] = 0
    elif is_large(X[idle]).any():
        X = np.where(idle[:, None] & is_large(X), X.dtype.type(0), X)
    return X


def _checked_csr(X: Any, model: Any, copy: bool) -> Any:
    """Return the sparse matrix X as a CSR matrix of the model's dtype without duplicate or stored
    zero entries. If `copy` is True, the arrays of X are copied and their indices checked. Raise an
    error if the shape or the dtype is wrong, or if an entry is not finite.
    """
    if len(X.shape) != 2 or X.shape[1] != model.sizes[0] or not X.shape[0]:
        raise rows_shape_error(X.shape, model.sizes[0])
    if X.dtype.kind not in "fiub":
        raise TypeError(f"X must hold real numbers, got dtype {X.dtype}.")
    with np.errstate(over="ignore"):
        rows = csr_matrix(as_owned_csr(X, "X") if copy else X, dtype=model.dtype)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    if not np.isfinite(rows.data).all():
        raise ValueError("X must hold finite numbers, got NaN or infinity.")
    return rows


def as_owned_csr(A: Any, name: str) -> Any:
    """Return the sparse matrix A as a CSR matrix. The arrays of CSR, CSC, BSR and COO matrices are
    copied and their indices checked, since SciPy's compiled loops do not check indices. Raise
    ValueError, with `name` for A, if an index is invalid.
    """
    try:
        if A.format in ("csr", "csc", "bsr"):
            A = type(A)(tuple(np.array(a) for a in (A.data, A.indices, A.indptr)), shape=A.shape)
            A.check_format(full_check=True)
        elif A.format == "coo":
            data, row, col = (np.array(a) for a in (A.data, A.row, A.col))
            # The constructor validates the indices.
            A = type(A)((data, (row, col)), shape=A.shape)
        return A.tocsr()
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{name} must be a valid sparse matrix, got invalid indices ({error})."
        ) from None
