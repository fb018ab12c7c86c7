"""Files written whole or not at all, and tensors read back with every claim of the file checked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np


def write_atomically(path, data):
    """Write bytes to a temporary file beside ``path`` and rename it into place."""
    path = Path(path).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


_CODES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _CODES.items()}
_FACTS = "fastcurv"
_HEADER_LIMIT = 100_000_000  # bytes; the reference reader refuses more too


def _little_endian(name, array):
    """`array` in C order with a dtype the format knows, and that dtype's name."""
    array = np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if array.dtype not in _NAMES:
        raise TypeError(
            f"array {name!r} has dtype {array.dtype}, which a safetensors file cannot hold"
        )
    return array, _NAMES[array.dtype]


def write_tensors(path, arrays, facts=None):
    """Write named arrays and facts; `path` holds the old file or the new one, never a part.

    Parameters
    ----------
    path : str or path-like
        Replaced in one step (`os.replace`) after the whole file has reached the disk.
    arrays : dict of str to ndarray
        Real, integer or boolean arrays of any shape.
    facts : dict, optional
        Anything JSON can hold.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from fastcurv.files import read_tensors, write_tensors
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> write_tensors(path, {"theta": np.arange(3.0)}, {"step": 7})
    >>> read_tensors(path)
    ({'theta': array([0., 1., 2.])}, {'step': 7})
    """
    path = os.fspath(path)
    header, offset, ready = {}, 0, []
    if facts is not None:
        header["__metadata__"] = {_FACTS: json.dumps(facts)}
    for name in sorted(arrays, key=lambda key: (-np.asarray(arrays[key]).dtype.itemsize, key)):
        array, code = _little_endian(name, arrays[name])
        end = offset + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, end]}
        ready.append(array)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(
        prefix=os.path.basename(path) + ".", suffix=".part", dir=folder
    )
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(len(text).to_bytes(8, "little"))
            out.write(text)
            for array in ready:
                out.write(array.tobytes())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _read_header(path, raw, size):
    """The JSON header of an open file of `size` bytes, and where the data starts."""
    length = int.from_bytes(raw.read(8), "little")
    if size < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise ValueError(f"{path} is not a safetensors file: its header does not fit in it")
    try:
        header = json.loads(raw.read(length))
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is not a JSON object")
    return header, 8 + length


def _entry(path, name, entry, room):
    """dtype, shape and place of one array, checked against `room` bytes of data."""
    try:
        dtype = np.dtype(_CODES[entry["dtype"]])
        shape = tuple(int(extent) for extent in entry["shape"])
        begin, end = (int(place) for place in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} describes the array {name!r} in a way that cannot be read"
        ) from None
    count = 1
    for extent in shape:
        count *= extent
    if (
        min(shape, default=0) < 0
        or not 0 <= begin <= end <= room
        or end - begin != count * dtype.itemsize
    ):
        raise ValueError(f"{path} says that the array {name!r} lies where it cannot lie")
    return dtype, shape, begin, end - begin


def read_tensors(path):
    """The arrays and facts of a file written by `write_tensors`, or of any safetensors file.

    Returns
    -------
    arrays : dict of str to ndarray
        Fresh, writable arrays.
    facts : dict
        Empty where the file holds none.

    Raises
    ------
    ValueError
        Where the file is cut short or not of this format: nothing in it is trusted before it is
        checked.
    """
    path = os.fspath(path)
    size = os.path.getsize(path)
    arrays = {}
    with open(path, "rb") as raw:
        header, start = _read_header(path, raw, size)
        metadata = header.pop("__metadata__", None) or {}
        for name, entry in header.items():
            dtype, shape, begin, length = _entry(path, name, entry, size - start)
            raw.seek(start + begin)
            array = np.frombuffer(raw.read(length), dtype=dtype).reshape(shape)
            arrays[name] = array.astype(dtype.newbyteorder("="))
    try:
        facts = json.loads(metadata[_FACTS]) if _FACTS in metadata else {}
    except (TypeError, ValueError):
        raise ValueError(f"{path} holds facts that cannot be read") from None
    return arrays, facts
