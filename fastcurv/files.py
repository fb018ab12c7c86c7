"""Files written whole or not at all, and tensors read back with every claim of the file checked.

A reader of untrusted bytes here calls nothing that a file names, reads no byte twice, and answers
whatever is wrong with one ValueError.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np

from .interrupts import heard

PIECE = 16 << 20  # bytes written or read without a look at Ctrl-C


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` in one step at the end: at any moment
    there is the old file or the new one, and nothing else once writing has ended or failed.

    Where the system can, the new file has no name until it is complete, so that a process killed
    while it writes leaves nothing behind; what one killed in the few microseconds between its name
    and its place has left is removed by the next save. Through a symbolic link its target is
    replaced. An old file's permissions stay; a new file has what the umask gives.
    """
    path = _place(path)
    folder, name = os.path.split(path)
    mark = f".{name[:100]}.{_HOST}-"
    _sweep(folder, mark)
    temporary = os.path.join(folder, f"{mark}{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        handle, named = _open_new(folder, temporary)
        with os.fdopen(handle, "w+b") as out:
            yield out
            out.flush()
            with contextlib.suppress(FileNotFoundError, *_NO_CHMOD):
                os.chmod(out.fileno(), stat.S_IMODE(os.stat(path).st_mode))
            _to_disk(out)
            if not named:
                _give_name(out, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _place(path: str | os.PathLike[str]) -> str:
    """The path itself, where there is a file or nothing: a device or a pipe would be replaced."""
    path = os.path.realpath(os.fspath(path))
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError(f"{path} is a device or a pipe; wanted a file, which can be replaced")
    return path


def check_place(path: str | os.PathLike[str], name: str) -> None:
    """Refuse, before any work, a path at which no file can be written."""
    place = _place(path)
    folder = os.path.dirname(place)
    if os.path.isdir(place):
        raise ValueError(f"{name} is {path}, a folder; wanted a file")
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise ValueError(f"{name} is {path}; wanted a file in a folder that can be written to")


def _to_disk(out: IO[bytes]) -> None:
    """Wait until the disk has all of it; a long wait hears Ctrl-C."""
    sync = partial(os.fsync, out.fileno())
    if out.tell() > PIECE:
        heard(sync)
    else:
        sync()


_NO_CHMOD = () if os.chmod in os.supports_fd else (TypeError, NotImplementedError)
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"


def _sweep(folder: str, mark: str) -> None:
    """Remove what processes of this machine left that are no more."""
    if os.name != "posix":  # elsewhere a signal 0 is no question
        return
    with contextlib.suppress(OSError):
        for left in os.listdir(folder):
            pid = left[len(mark) :].partition("-")[0]
            if not left.startswith(mark) or not left.endswith(".part") or not pid.isdigit():
                continue
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                os.unlink(os.path.join(folder, left))
            except (OSError, OverflowError):
                continue


def _open_new(folder: str, temporary: str) -> tuple[int, bool]:
    """A new file in a folder, and whether it has a name; its permissions are those of the umask."""
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # a file system that knows no such file
            return os.open(folder, os.O_RDWR | nameless, 0o666), False
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(temporary, flags, 0o666), True


def _give_name(out: IO[bytes], temporary: str) -> None:
    """Give a nameless file a name, by a copy where the system will not."""
    own = os.open("/proc/self/fd", os.O_RDONLY)  # relative to it, os.link follows the link there
    try:
        os.link(str(out.fileno()), temporary, src_dir_fd=own, follow_symlinks=True)
    except OSError:
        out.seek(0)
        mode = stat.S_IMODE(os.fstat(out.fileno()).st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, mode), "wb") as copy:
            shutil.copyfileobj(out, copy)
            copy.flush()
            _to_disk(copy)
    finally:
        os.close(own)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes as a file, whole or not at all; folders are made where they are missing.

    Returns
    -------
    Path
        Absolute.
    """
    path = Path(path).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as out:
        out.write(data)
    return path


def shown(text: Any, most: int = 80) -> str:
    """What a file says, as a message repeats it: on one line, what can be printed, cut short."""
    words = " ".join(str(text)[: 4 * most].split())
    words = "".join(c if c.isprintable() else "?" for c in words)
    return words if len(words) <= most else f"{words[: most - 3]}..."


_CODES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _CODES.items()}
_FACTS = "fastcurv"
_HEADER_LIMIT = 1 << 22  # bytes: what JSON of that size becomes in memory stays below 300 MB
_MOST_AXES = 32  # of NumPy 1


def _little_endian(name: str, array: Any) -> tuple[np.ndarray, str]:
    """`array` in C order with a dtype the format knows, and that dtype's name."""
    array = np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if array.dtype not in _NAMES:
        raise TypeError(
            f"array {name!r} has dtype {array.dtype}, which a safetensors file cannot hold"
        )
    return array, _NAMES[array.dtype]


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], facts: Any = None
) -> None:
    """Write named arrays and facts; `path` holds the old file or the new one, never a part.

    Parameters
    ----------
    path : str or path-like
        Replaced in one step after the whole file has reached the disk; see `whole`.
    arrays : dict of str to ndarray
        Real, integer or boolean arrays of any shape.
    facts : dict, optional
        Anything JSON can hold.

    Raises
    ------
    TypeError
        For arrays or facts that the format cannot hold.
    ValueError
        Where names, shapes and facts together take more than 4 MiB.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from fastcurv.files import read_tensors, write_tensors
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> write_tensors(path, {"theta": np.arange(3.0)}, {"step": 7})
    >>> read_tensors(path)
    ({'theta': array([0., 1., 2.])}, {'step': 7})
    """
    header: dict[str, Any] = {}
    offset, ready = 0, []
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
    if len(text) > _HEADER_LIMIT:
        raise ValueError(
            f"the header of {path} would take {len(text)} bytes; wanted at most {_HEADER_LIMIT}"
        )
    with whole(path) as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for array in ready:
            for piece in _pieces(array):
                out.write(piece)


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Its bytes in parts, between which Ctrl-C is heard."""
    data = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def _json(text: Any) -> Any:
    """What a JSON text says; None where it is none, or nested past any sense."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None


def _read_header(path: str, raw: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """The JSON header of an open file of `size` bytes, and where the data starts."""
    length = int.from_bytes(raw.read(8), "little")
    if size < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise ValueError(f"{path} is not a safetensors file: its header does not fit in it")
    header = _json(raw.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is not a JSON object")
    return header, 8 + length


def _integers(x: Any, most: int) -> tuple[int, ...] | None:
    """A list of at most `most` ints >= 0, none of them past 2^63."""
    if not isinstance(x, list) or len(x) > most:
        return None
    if not all(type(i) is int and 0 <= i < 1 << 63 for i in x):
        return None
    return tuple(x)


def _entry(path: str, name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """dtype, shape and place of one array, as far as the entry alone can be checked."""
    called = repr(name if len(name) < 60 else name[:57] + "...")
    known = entry if isinstance(entry, dict) else {}
    code = known.get("dtype")
    shape = _integers(known.get("shape"), _MOST_AXES)
    place = _integers(known.get("data_offsets"), 2)
    if not isinstance(code, str) or code not in _CODES or shape is None or len(place or ()) != 2:
        raise ValueError(f"{path} describes the array {called} in a way that cannot be read")
    dtype, count = np.dtype(_CODES[code]), 1
    for extent in shape:
        count *= extent
    begin, end = place  # type: ignore[misc]
    if end - begin != count * dtype.itemsize:
        raise ValueError(f"{path} says that the array {called} lies where it cannot lie")
    return dtype, shape, begin, end


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and facts of a file written by `write_tensors`, or of any safetensors file.

    Parameters
    ----------
    path : str or path-like

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
        checked. Arrays must fill the file one after the other, so memory is that of the file and
        of a header of at most 4 MiB.
    OSError
        Where there is no such file.
    """
    path = os.fspath(path)
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        header, start = _read_header(path, raw, size)
        metadata = header.pop("__metadata__", None)
        entries = [(name, *_entry(path, name, entry)) for name, entry in header.items()]
        entries.sort(key=lambda entry: entry[3:])
        at = 0
        for name, _, _, begin, end in entries:
            if begin != at:
                raise ValueError(
                    f"{path} says that arrays overlap or leave holes, at {name[:60]!r}"
                )
            at = end
        if at != size - start:
            raise ValueError(f"{path} holds {size - start} bytes of arrays; wanted {at}")
        arrays = {name: _array(path, raw, kind, shape) for name, kind, shape, _, _ in entries}
    return arrays, _facts(path, metadata)


def _array(
    path: str, raw: BufferedIOBase, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray:
    """The next array of an open file."""
    boolean = dtype == np.bool_
    try:
        array = np.empty(shape, np.uint8 if boolean else dtype)
    except (ValueError, MemoryError):  # of more bytes than there are, or than memory has
        raise ValueError(f"{path} holds an array of shape {shape}, which memory cannot") from None
    if any(raw.readinto(piece) != len(piece) for piece in _pieces(array)):
        raise ValueError(f"{path} was cut short while it was read")
    if boolean:
        return np.asarray(array != 0)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _facts(path: str, metadata: Any) -> dict[str, Any]:
    """What `write_tensors` was given as facts."""
    if not isinstance(metadata, dict) or _FACTS not in metadata:
        return {}
    text = metadata[_FACTS]
    facts = _json(text) if isinstance(text, str) else None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds facts that cannot be read")
    return facts
