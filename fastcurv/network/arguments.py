"""What callers hand to networks, objectives and operators, as the engine wants it: or one
sentence that says what was given and what was wanted.
"""

from __future__ import annotations

import numbers
import sys
from inspect import Signature, signature
from typing import Any, get_args

import numpy as np

from .._engine import columns_as_rows, in_memory
from ..common.checks import as_numpy, check_array, check_choice, check_positive_int
from ..common.errors import meant, named_activation, typed
from ..common.files import shown
from ..common.protocols import Activation, Array

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


def check_sizes(sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, (str, bytes)) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"sizes is {sizes!r}; wanted a sequence of widths such as [64, 32, 10]")
    sizes = list(sizes)
    if len(sizes) < 2:
        raise ValueError(
            f"sizes is {sizes}; wanted at least two widths, of the input and of the output"
        )
    for width in sizes:
        if isinstance(width, bool) or not isinstance(width, numbers.Integral):
            raise TypeError(f"sizes holds {width!r}; wanted ints >= 1")
        if width < 1:
            raise ValueError(f"sizes holds {width}; wanted ints >= 1")
    return tuple(int(width) for width in sizes)


def check_activation(activation: Any, n_hidden: int) -> tuple[Activation, ...]:
    activation = named_activation(activation)
    names: Any
    if isinstance(activation, str):
        activation = (activation,) * max(n_hidden, 1)
        names = activation[:n_hidden]
    elif hasattr(activation, "__iter__"):
        activation = names = tuple(map(named_activation, activation))
        if len(names) != n_hidden:
            raise ValueError(
                f"activation has {len(names)} names; wanted one, or {n_hidden}, one for each "
                "hidden layer"
            )
    else:
        named = meant(activation, ACTIVATIONS, "activation")
        raise TypeError(
            f"activation is {typed(activation)}; wanted "
            + (named or "a name or one name for each hidden layer")
        )
    for name in activation:
        check_choice(name, ACTIVATIONS, "activation")
    return tuple(names)


def check_bool(x: Any, name: str) -> bool:
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} is {x!r}; wanted True or False")
    return bool(x)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # the last of NumPy's parser, of ",f8"
        found = np.dtype(object)
    for kind in (np.dtype(np.float32), np.dtype(np.float64)):
        if found == kind:
            return kind
    raise ValueError(f"dtype is {dtype!r}; wanted 'float64' or 'float32'")


def _refuse_words(y: Any) -> None:
    """A TypeError for classes that are words, in a list, an array or a column of a frame."""
    kind = getattr(getattr(y, "dtype", None), "kind", "")
    if isinstance(y, (list, tuple)) or kind in ("O", "S", "U") and getattr(y, "ndim", 0) == 1:
        word = next((part for part in y if isinstance(part, (str, bytes))), None)
        if word is not None:
            raise TypeError(
                f"y holds words such as {shown(word)!r}; wanted integer classes (N,): classes, y = "
                "numpy.unique(y, return_inverse=True)"
            )


def check_targets(y: Any, N: int, model: Any, loss: str) -> np.ndarray:
    """Targets as the engine wants them: (N, d_out) of the model's dtype, or int32 classes (N,).

    Classes are a copy: they are indices, and what was checked must stay so.
    """
    d = model.sizes[-1]
    if loss == "cross_entropy":
        _refuse_words(y)
    array = in_memory(as_numpy(y, "y"), "y")
    if loss == "cross_entropy" and array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise TypeError(
                f"y has dtype {array.dtype} and loss is 'cross_entropy'; wanted integer classes "
                f"(N,), soft targets (N, {d}), or for numbers loss='mse'"
            )
        if array.shape != (N,):
            raise ValueError(f"y has {len(array)} labels; wanted {N}, one for each row of X")
        array = np.array(array, order="C")
        if array.min() < 0 or array.max() >= d:
            one = "; one output takes loss='binary_cross_entropy' or 'mse'" if d == 1 else ""
            raise ValueError(
                f"y holds labels from {array.min()} to {array.max()}; wanted 0 to {d - 1}{one}"
            )
        return array.astype(np.int32, copy=False)
    array = check_array(array, "y", model.dtype)
    if array.ndim == 1 and d == 1:
        array = array[:, None]
    if array.shape != (N, d):
        wanted = f"({N}, {d})" + (f" or ({N},)" if d == 1 or loss == "cross_entropy" else "")
        raise ValueError(f"y has shape {array.shape}; wanted {wanted}")
    if loss == "binary_cross_entropy" and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"y holds numbers from {array.min():g} to {array.max():g}; wanted 0 to 1, what binary "
            "cross entropy is for"
        )
    usable = (
        array.strides[1] == array.itemsize
        and array.strides[0] % array.itemsize == 0
        and array.flags.aligned
    )
    return (
        array
        if usable and array.dtype.isnative
        else np.array(array, array.dtype.newbyteorder("="), order="C")
    )


def check_weight(weight: Any, N: int, dtype: Any) -> np.ndarray | None:
    if weight is None:
        return None
    w = in_memory(as_numpy(weight, "sample_weight"), "sample_weight")
    w = check_array(w, "sample_weight", dtype)
    if w.shape != (N,):
        raise ValueError(f"sample_weight has shape {w.shape}; wanted ({N},)")
    if w.min() < 0:
        raise ValueError(f"sample_weight holds {w.min():g}; wanted numbers >= 0")
    return np.require(w, w.dtype.newbyteorder("="), ["C", "A"])


def selected(rows: Any, *parts: Any) -> list[Any]:
    """Rows, by a slice, indices or a mask, of arrays of as many rows; None stays."""
    if not isinstance(rows, slice):
        rows = as_numpy(rows, "rows")
        if rows.ndim != 1 or rows.dtype.kind not in "iub":
            raise TypeError(
                f"rows is an array of shape {rows.shape} and dtype {rows.dtype}; wanted a slice, "
                "indices or a mask"
            )
    try:
        found: list[Any] = [None if part is None else part[rows] for part in parts]
    except IndexError as error:
        raise ValueError(f"rows do not fit the {len(parts[0])} samples: {error}") from None
    if not len(found[0]):
        raise ValueError("rows selects no sample; wanted at least one")
    return found


def check_memory(memory: Any) -> int:
    """Bytes: an int, or a float such as 2e9 that is one."""
    whole = isinstance(memory, float) and memory.is_integer()
    return check_positive_int(int(memory) if whole else memory, "memory", sys.maxsize)


def as_real(v: Any, name: str) -> np.ndarray:
    """An array of real numbers of any shape."""
    real = as_numpy(v, name)
    if real.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {real.dtype}; wanted real numbers")
    return real


def as_vector(v: Any, n: int, dtype: Any) -> np.ndarray:
    """V as a contiguous (n,) of the dtype. NaN and infinity pass: a product propagates them."""
    v = as_real(v, "v")
    if v.shape != (n,):
        raise ValueError(f"v has shape {v.shape}; wanted ({n},)")
    return np.require(v, dtype, ["C", "A"])


def as_block(V: Any, n: int, dtype: Any, threads: int = 1) -> np.ndarray:
    """The columns of V (n, k) as the contiguous rows of a (k, n): V's own memory where that is how
    it lies, else new memory.
    """
    V = as_real(V, "V")
    if V.ndim != 2 or V.shape[0] != n:
        raise ValueError(f"V has shape {V.shape}; wanted ({n},) or ({n}, k)")
    if (
        V.dtype == dtype
        and V.flags.aligned
        and not V.T.flags.c_contiguous
        and not any(s % V.itemsize for s in V.strides)
    ):
        return columns_as_rows(V, np.empty(V.shape[::-1], dtype), threads)
    return np.require(V.T, dtype, ["C", "A"])


class InitSignature:
    """As `__signature__` of a class with a `__new__` of its own: what its `__init__` takes."""

    def __get__(self, instance: Any, owner: type) -> Signature:
        whole = signature(owner.__init__)  # type: ignore[misc]
        return whole.replace(parameters=list(whole.parameters.values())[1:])


def check_out(out: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Refuse an `out` that no result can be written into; it comes back."""
    if (
        not isinstance(out, np.ndarray)
        or out.shape != shape
        or out.dtype != dtype
        or not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned)
    ):
        raise ValueError(
            f"out is {getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}; "
            f"wanted a writeable contiguous aligned {dtype} array of shape {shape}"
        )
    return out


def into(v: Any, out: Any, n: int, dtype: Any) -> tuple[Array, Array]:
    """V as a vector (n,), and `out` (n,) for what comes of it, made where it is None; they share no
    memory.
    """
    v = as_vector(v, n, dtype)
    out = np.empty(n, dtype) if out is None else check_out(out, (n,), dtype)
    return v.copy() if np.may_share_memory(v, out) else v, out


def bind_copy(plan: Any, objective: Any, theta: Any, own: Array, **how: Any) -> None:
    """Bind the plan to theta, checked and copied into `own` (n,): in one pass by the engine's
    threads where theta is a vector as they take it.
    """
    if not plan.take(theta, own, **how):
        np.copyto(own, objective.model.check_theta(theta))
        plan.bind(own, **how)


def layer_indices(model: Any, layers: Any) -> np.ndarray:
    layers = np.atleast_1d(as_numpy(layers, "layers"))
    count = len(model.shapes)
    if layers.dtype.kind not in "iu" or layers.ndim != 1 or not len(layers):
        raise TypeError(
            f"layers is {layers.tolist()!r}; wanted one or more ints from 0 to {count - 1}"
        )
    if layers.min() < 0 or layers.max() >= count or len(np.unique(layers)) != len(layers):
        raise ValueError(
            f"layers is {layers.tolist()}; wanted ints from 0 to {count - 1}, each once"
        )
    return np.concatenate([np.arange(model.starts[l], model.starts[l + 1]) for l in layers])


def check_indices(indices: Any, n: int) -> np.ndarray:
    found = np.array(as_numpy(indices, "indices"))
    if found.dtype.kind not in "iu" or found.ndim != 1 or not len(found):
        raise TypeError(
            f"indices is an array of shape {found.shape} and dtype {found.dtype}; wanted a "
            "vector of ints"
        )
    if found.min() < 0 or found.max() >= n or len(np.unique(found)) != len(found):
        raise ValueError(
            f"indices run from {found.min()} to {found.max()}; wanted distinct ints from 0 to "
            f"{n - 1}"
        )
    return found.astype(np.intp, copy=False)


def like(x: Any, result: np.ndarray) -> Any:
    """The result as what x is: a tensor of torch for a tensor, which shares its memory."""
    if type(x) is not np.ndarray and type(x).__module__.split(".")[0] == "torch":
        import torch

        return torch.from_numpy(result)
    return result
