"""Saving and loading of a model and its theta as one safetensors file. The architecture is in the
header. When a file is read, everything it states is checked, and nothing in it is executed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import (
    conversion_hint,
    one_line,
    type_phrase,
)
from ..common.files import path_as_text, raise_if_special_file, read_tensors, write_tensors
from ..common.protocols import Array
from .arguments import raise_if_user_activation
from .mlp import MLP, Model

FORMAT_NAME = "fastcurv.MLP 1"
HEADER_KEYS = {"format", "sizes", "activation", "bias", "residual", "dtype", "batch_norm"}
LAYER_PARTS = ("weight", "bias", "gamma", "beta")
# Key in the header of a file that 'fastcurv report' wrote.
RUN_KEY = "run"


def parameter_names(model: MLP) -> list[list[str]]:
    """Return, for each layer, the names of its parameters in the file."""
    names = []
    for l in range(len(model.shapes)):
        parts = LAYER_PARTS if model.normalised(l) else LAYER_PARTS[:2]
        names.append([f"layers.{l}.{part}" for part in parts if part != "bias" or model.bias])
    return names


def save(path: str | os.PathLike[str], model: MLP, theta: Array) -> None:
    """Write a model and its theta to a safetensors file, atomically.

    Parameters
    ----------
    path : path-like
        The name should end in .safetensors, and must not end in the suffix of another program's
        format. An existing file is replaced in one step once the new one has been written to disk.
        If `path` is a symbolic link, its target is replaced.
    model : MLP
        The network.
    theta : array_like (n,)
        The parameters, flat or as a list of (W, b).

    See Also
    --------
    load : Read such a file.

    Notes
    -----
    The arrays are ``layers.0.weight`` of shape ``(out, in)``, ``layers.0.bias``, ..., which any
    reader of safetensors can open. The header contains the architecture as JSON and a checksum of
    the whole file, which `load` verifies. Programs that modify the arrays but copy the metadata
    must leave out the entry ``fastcurv.sha256``.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastcurv as fc
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> model = fc.MLP([2, 3, 1])
    >>> theta = model.init(rng=0)
    >>> fc.save(path, model, theta)
    >>> again, same = fc.load(path)
    >>> again == model and bool(np.array_equal(theta, same))
    True
    """
    kind = Path(
        path_as_text(path, cure=" The order is fc.save(path, model, theta).")
    ).suffix.lower()
    if not isinstance(model, MLP):
        raise TypeError(
            f"model must be a fastcurv.MLP, got {type_phrase(model)}.{conversion_hint(model)}"
        )
    if kind not in ("", ".safetensors"):
        raise ValueError(f"path must end in .safetensors, got {one_line(kind)}.")
    write_tensors(path, *file_contents(model, theta))


def file_contents(model: MLP, theta: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two dicts, the arrays by name and the header entries, from which `load` restores the
    model and theta. Raise ValueError if an activation is user-defined.
    """
    why = "a function that a file cannot hold. Use numpy.save for theta alone"
    raise_if_user_activation(model, why, "activations given by name")
    arrays: dict[str, Any] = {}
    for names, layer in zip(parameter_names(model), model.unflatten(theta)):
        arrays.update(zip(names, (part for part in layer if part is not None)))
    return arrays, {
        "format": FORMAT_NAME,
        "sizes": list(model.sizes),
        "activation": list(model.activation),
        "bias": model.bias,
        "residual": model.residual,
        "dtype": model.dtype.name,
        "batch_norm": model.batch_norm,
    }


def _model_from_header(path: Any, facts: Any) -> MLP:
    """Return the model that `facts`, the header of the file at `path`, describes. Raise ValueError
    if an entry is missing, unknown or invalid.
    """
    if not isinstance(facts, dict) or facts.get("format") != FORMAT_NAME:
        raise ValueError(
            f"{path} must be a file written by fastcurv.save, got a header without a model."
        )
    odd = sorted(map(str, set(facts) - {RUN_KEY} ^ HEADER_KEYS))
    if odd:
        raise ValueError(
            f"{path} must have the header entries of fastcurv.save, got a missing or additional "
            f"entry {one_line(odd[0])!r}."
        )
    try:
        for name, kind, noun in (
            ("sizes", list, "a list"),
            ("activation", list, "a list"),
            ("dtype", str, "a string"),
        ):
            if not isinstance(facts[name], kind):
                raise TypeError(f"{name} must be {noun}, got {type_phrase(facts[name])}.")
        return MLP(**{name: facts[name] for name in HEADER_KEYS - {"format"}})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} has invalid settings of a fastcurv.MLP in its header: {one_line(error, 200)}"
        ) from None


def load(path: str | os.PathLike[str]) -> Model:
    """Return the model and theta of a file written by `save` or by ``fastcurv report``.

    Parameters
    ----------
    path : path-like
        A .safetensors file.

    Returns
    -------
    model : MLP
        The network stored in the file.
    theta : ndarray (n,)
        The parameters as they were saved.

    Raises
    ------
    ValueError
        If the file is truncated, does not match its checksum, contradicts its header (names,
        shapes, dtypes), or holds numbers that are not finite. No more memory is used than the size
        of the file.
    OSError
        If there is no such file, it is a folder, or it cannot be read.

    See Also
    --------
    save : Write such a file.

    Examples
    --------
    >>> import fastcurv as fc
    >>> fc.load(fc.__file__)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...__init__.py must be a safetensors file, got an invalid header length.
    """
    path = path_as_text(path)
    raise_if_special_file(path)
    _raise_if_foreign_file(path)
    arrays, facts = read_tensors(path)
    return model_from_contents(path, arrays, facts)


def _raise_if_foreign_file(path: str) -> None:
    with Path(path).open("rb") as raw:
        head = raw.read(4)
        path = one_line(path, 300)
        if head == b"PK\x03\x04" or head[:1] == b"\x80":
            raise ValueError(
                f"{path} must be a .safetensors file, got an archive or a pickle. Save the network "
                "with fastcurv.save."
            )


def model_from_contents(path: Any, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Model:
    """Return the model and theta for the arrays and header entries that `file_contents` returned
    and the file at `path` holds. The records of a training run are ignored.
    """
    path = one_line(path, 300)
    model = _model_from_header(path, facts)
    if RUN_KEY in facts:
        arrays = {name: a for name, a in arrays.items() if not name.startswith("history.")}
    names = parameter_names(model)
    if set(arrays) != {name for layer in names for name in layer}:
        wanted = sum(map(len, names))
        given = one_line(", ".join(sorted(arrays)), 200) or "none"
        raise ValueError(f"{path} must hold the {wanted} arrays of {model!r}, got {given}.")
    layers = []
    for l, layer in enumerate(names):
        for name, shape in zip(layer, model._parts(l)):
            array = arrays[name]
            if array.shape != shape or array.dtype != model.dtype:
                raise ValueError(
                    f"{path} must have {name} of shape {shape} and dtype {model.dtype}, got "
                    f"{array.shape} and {array.dtype}."
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{path} must hold finite numbers, got NaN or infinity in {name}.")
        parts = [arrays[name] for name in layer]
        layers.append(tuple(parts if model.bias else [parts[0], None, *parts[1:]]))
    return model, model.flatten(layers)
