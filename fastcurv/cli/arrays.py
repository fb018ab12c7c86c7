"""Arrays from ``.npz`` files that anyone may have written: one sentence for whatever is wrong."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import IO

import numpy as np

from ..files import PIECE, shown

LEAST, MOST = 32 << 20, 64  # bytes, and times its size, that a file may take in memory

# What NumPy and zipfile let out for files that are cut short, mangled, or no archives at all.
BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: str | Path, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file, by name; nothing pickled is read.

    Parameters
    ----------
    path : str or path
    names : container of str, optional
        Which to unpack; those of others come as empty arrays. Default: all.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        Where there is no such file, or it cannot be read, or what is asked for would take more than
        `MOST` times its size, and 32 MiB, as float64.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    found: dict[str, np.ndarray] = {}
    name, room = "", max(LEAST, MOST * path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if names is not None and name not in names:
                    found[name] = np.empty(0)
                    continue
                with archive.open(entry) as file:
                    found[name] = _array(file, entry.file_size, room)
                room -= 8 * found[name].size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except BROKEN as error:
        if "Object arrays" in str(error):
            raise ValueError(_objects(path, shown(name))) from None
        words = shown(error, 200) or type(error).__name__
        raise ValueError(f"{path} is not a .npz file that can be read: {words}") from None
    return found


def _array(file: IO[bytes], size: int, room: int) -> np.ndarray:
    """The array of a member of `size` bytes, which may take `room` as float64, in one piece of
    memory from the start.
    """
    read = np.lib.format
    version = read.read_magic(file)
    header = read.read_array_header_1_0 if version == (1, 0) else read.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be read")
    count = math.prod(shape)
    taken = max(size, count * dtype.itemsize, 8 * count)
    if taken > room:
        raise ValueError(
            f"it would unpack to {taken} bytes, more than {MOST} times its size; where that is "
            "right, write it by np.savez, not np.savez_compressed"
        )
    flat = np.empty(count, dtype)
    data = memoryview(flat.view(np.uint8)) if flat.nbytes else memoryview(b"")
    at = 0
    while at < len(data):
        got = file.readinto(data[at : at + PIECE])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("it was cut short")
        at += got
    file.read(1)  # beyond the end, where the archive's checksum is compared
    return flat.reshape(shape, order="F" if fortran else "C")


def _objects(path: Path, name: str) -> str:
    """What is wrong with an array of Python objects, which only pickle could read."""
    cast = f"{name}.astype(str)" if name == "y" else f"{name}.astype(float)"
    return f"{path}: {name} holds Python objects; wanted numbers or words, as {cast} makes them"
