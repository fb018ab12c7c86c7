"""Arrays from ``.npz`` files that anyone may have written: one sentence for whatever is wrong."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..files import shown

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


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of a ``.npz`` file, by name; nothing pickled is read.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        Where there is no such file, or it cannot be read, or it unpacks to more than 64 times its
        size and a gigabyte.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    found: dict[str, np.ndarray] = {}
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max(1 << 30, 64 * path.stat().st_size):
            raise ValueError(f"it would unpack to {unpacked} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                found[name] = arrays[name]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except BROKEN as error:
        if "Object arrays" in str(error):
            raise ValueError(_objects(path, shown(name))) from None
        words = shown(error, 200) or type(error).__name__
        raise ValueError(f"{path} is not a .npz file that can be read: {words}") from None
    return found


def _objects(path: Path, name: str) -> str:
    """What is wrong with an array of Python objects, which only pickle could read."""
    cast = f"{name}.astype(str)" if name == "y" else f"{name}.astype(float)"
    return f"{path}: {name} holds Python objects; wanted numbers or words, as {cast} makes them"
