"""Atomic file writes, and a safetensors reader that verifies every claim of the file.

The reader of untrusted bytes calls nothing named in a file, reads no byte twice, and reports any
defect as a ValueError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

import numpy as np

from .errors import one_line, type_phrase
from .protocols import Array

# maximum number of bytes written or read at a time; Ctrl-C is handled in between
MAX_IO_PIECE_BYTES = 16 << 20
# {(device, inode, id of the reader): reader} of the files from which objectives read their rows
_ROW_FILES: WeakValueDictionary[tuple[int, int, int], Any] = WeakValueDictionary()


@contextlib.contextmanager
def open_for_atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Yield a binary file, open for writing, that atomically replaces `path` when the context ends.
    At any moment `path` is the old file or the new one, and no other file remains after success or
    an error.

    The bytes are written to a temporary file in the same folder, which then replaces `path`. A
    process that is killed while it writes leaves the temporary file, ``.fastcurv-*.part``.

    If `path` is a symbolic link, its target is replaced, unless the system would refuse to follow
    the link. The permissions of an old file are kept, and apply while the new one is written. A new
    file gets the permissions of the umask.
    """
    target = _resolve_file_path(path)
    temporary = _temporary_file_name(os.path.dirname(target))
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    try:
        with os.fdopen(_create_file(temporary, 0o666 if mode is None else mode), "w+b") as out:
            yield out
            out.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(out.fileno(), mode)  # the umask applied when the file was created
            os.fsync(out.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # The user does not know the name of the temporary file, so the error has the caller's path.
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
        raise


def path_as_text(path: object, name: str = "path", cure: str = "") -> str:
    """Return a path as a string. Raise TypeError if `path` is not a path, with the sentence `cure`
    at the end of the message. Raise ValueError if the path contains null characters or unpaired
    surrogates.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} must be the name of a file, got {type_phrase(path)}.{cure}")
    text = os.fsdecode(path)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        fits = False
    else:
        fits = "\0" not in text
    if not fits:
        raise ValueError(
            f"{name} must be the name of a file, without null characters or unpaired surrogates, "
            f"got '{one_line(text)}'."
        )
    return text


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path in which "~" at the beginning is replaced by the user's home folder, if the
    system knows the user.
    """
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def raise_if_special_file(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if the path exists but is neither a file nor a folder, since reading a pipe
    would block and writing would replace a device.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError(
            f"{one_line(os.fsdecode(path), 4096)} must be a file, got a device or a pipe."
        )


def protect_row_file(path: str | os.PathLike[str], reader: object) -> None:
    """Let no file be written to `path`, under any name, as long as `reader` lives, which reads the
    rows of an objective from this file.
    """
    file = os.stat(path)
    _ROW_FILES[file.st_dev, file.st_ino, id(reader)] = reader


def protect_mapped_files(*arrays: Any) -> None:
    """Let no file be replaced as long as an array maps it, which may hold rows of an objective."""
    for array in arrays:
        if isinstance(array, np.memmap) and array.filename is not None:
            with contextlib.suppress(FileNotFoundError):  # removed since it was mapped
                protect_row_file(array.filename, array)


def _resolve_file_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path with all links resolved. Raise ValueError or IsADirectoryError if
    the path is empty, a folder, a device, a pipe, or a file from which rows are read.
    """
    text = path_as_text(path)
    if not text:
        raise ValueError("path must be the name of a file, got ''.")
    # os.stat raises FileNotFoundError for a link that it may not follow.
    with contextlib.suppress(FileNotFoundError):
        file = os.stat(text)
        if stat.S_ISDIR(file.st_mode):
            raise IsADirectoryError(f"path must be the name of a file, got the folder {text}.")
        if any(key[:2] == (file.st_dev, file.st_ino) for key in _ROW_FILES):
            raise ValueError(
                "path must be the name of a file from which no objective reads its rows, got "
                f"'{one_line(text, 300)}'."
            )
    raise_if_special_file(text)
    return os.path.realpath(text)


def check_writable_path(path: str | os.PathLike[str], name: str, folders: bool = False) -> None:
    """Raise ValueError, with `name` for the path, if no file can be written there, which is tried
    beside it. If `folders` is True, missing folders are not an error, and a leading "~" is
    expanded.
    """
    target = expand_home(path_as_text(path, name)) if folders else Path(path_as_text(path, name))
    try:
        if not os.fspath(path) or target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = Path(_resolve_file_path(target)).parent
        while folders and not folder.exists():
            folder = folder.parent
        temporary = _temporary_file_name(str(folder))
        handle = _create_file(temporary, 0o600)
        try:
            with os.fdopen(handle, "wb") as trial:
                trial.write(bytes(4096))  # this write fails on a full disk
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise ValueError(
            f"{name} cannot be written to '{one_line(os.fsdecode(path), 300)}': "
            f"{error.strerror or error}. Choose another folder, or correct its permissions."
        ) from None


def _temporary_file_name(folder: str) -> str:
    """Return a new random file name in the folder, of a fixed length."""
    return os.path.join(folder, f".fastcurv-{secrets.token_hex(8)}.part")


def _create_file(name: str, mode: int) -> int:
    """Create a file, to which the umask and `mode` give the permissions, and return its
    descriptor.
    """
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes to a file atomically, and create missing folders. A leading "~" in `path` is
    expanded.

    Returns
    -------
    Path
        The absolute path of the file.
    """
    path = expand_home(path).absolute()
    make_folder_of(path)
    with open_for_atomic_write(path) as out:
        out.write(data)
    return path


def make_folder_of(path: Path) -> None:
    """Create the folder of the file to which a path leads, if it does not exist."""
    Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)


_DTYPE_CODES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
_DTYPE_NAMES = {np.dtype(code): name for name, code in _DTYPE_CODES.items()}
_METADATA_KEY = "fastcurv"
# key of the checksum of the whole file, which is computed with zeros in place of its digits
_CHECKSUM_KEY = "fastcurv.sha256"
_CHECKSUM_ZEROS = b"0" * 64
_CHECKSUM_OFFSET = 8 + len('{"__metadata__":{"":"') + len(_CHECKSUM_KEY)
# maximum size of a header; a parsed JSON text of this size takes less than 300 MB
MAX_HEADER_BYTES = 1 << 22
_MAX_AXES = 32  # maximum number of axes in NumPy 1


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write named arrays and facts atomically to a safetensors file.

    Parameters
    ----------
    path : str or path-like
        The file. An existing file is replaced atomically after all bytes have reached the disk, see
        `open_for_atomic_write`. The header holds a checksum of the whole file, which `read_tensors`
        verifies and other readers ignore.
    arrays : dict of str to ndarray
        Real, integer or boolean arrays of any shape.
    facts : dict, optional
        A dictionary that JSON can represent.

    Raises
    ------
    TypeError
        For arrays or facts that the format cannot hold.
    ValueError
        If names, shapes and facts together take more than 4 MiB.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from fastcurv.common.files import read_tensors, write_tensors
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> write_tensors(path, {"theta": np.arange(3.0)}, {"step": 7})
    >>> read_tensors(path)
    ({'theta': array([0., 1., 2.])}, {'step': 7})
    """
    metadata = {
        _CHECKSUM_KEY: _CHECKSUM_ZEROS.decode(),
        _METADATA_KEY: json.dumps({} if facts is None else facts),
    }
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    encoded_arrays = []
    for name in sorted(arrays, key=lambda key: (-np.asarray(arrays[key]).dtype.itemsize, key)):
        array = np.asarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        if array.dtype not in _DTYPE_NAMES:
            raise TypeError(
                f"array {name!r} must have a dtype that safetensors supports, such as float64, got "
                f"{array.dtype}. Convert it with astype."
            )
        place = [offset, offset + array.nbytes]
        shape = list(array.shape)
        header[name] = {"dtype": _DTYPE_NAMES[array.dtype], "shape": shape, "data_offsets": place}
        encoded_arrays.append(array)
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(
            f"the header of {path} must take at most {MAX_HEADER_BYTES} bytes, got {len(text)}."
        )
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256()
    with open_for_atomic_write(path) as out:
        for piece in itertools.chain([head], *map(_byte_pieces, encoded_arrays)):
            data = bytes(piece)  # the copy protects against changes by another thread
            digest.update(data)
            out.write(data)
        out.seek(_CHECKSUM_OFFSET)
        out.write(digest.hexdigest().encode())


def _byte_pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Return an iterator over the bytes of an array in pieces, between which Ctrl-C is handled."""
    data = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return (data[at : at + MAX_IO_PIECE_BYTES] for at in range(0, len(data), MAX_IO_PIECE_BYTES))


def _parse_json(text: Any) -> Any:
    """Return the object that a JSON text describes, or None if the text is invalid or too deeply
    nested.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None


def _read_header(path: str, raw: IO[bytes], size: int) -> tuple[dict[str, Any], bytes]:
    """Read the JSON header of the open safetensors file `raw` of `size` bytes. Return the header
    and all bytes before the data. Raise ValueError if the header is invalid.
    """
    head = raw.read(8)
    length = int.from_bytes(head, "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"{path} must be a safetensors file, got an invalid header length.")
    head += raw.read(length)
    header = _parse_json(head[8:])
    if not isinstance(header, dict):
        raise ValueError(
            f"{path} must be a safetensors file, got a header that is not a JSON object."
        )
    return header, head


def checksum_error(path: object) -> ValueError:
    """Return the error for a file with a wrong checksum."""
    return ValueError(
        f"{path} is damaged or was changed, since its checksum does not match its contents. Use an "
        "undamaged copy."
    )


def _read_checksum(path: str, metadata: Any, head: bytes) -> tuple[str | None, Any]:
    """Return the checksum in a header, and a hash object that has processed the bytes before the
    data, or (None, None) for files without a checksum. `metadata` is that of the header, and
    `head` holds all bytes before the data.
    """
    entries = metadata if isinstance(metadata, dict) else {}
    checksum = entries.get(_CHECKSUM_KEY)
    if checksum is None:
        if _METADATA_KEY in entries and any(
            re.fullmatch("[0-9a-f]{64}", str(v)) for v in entries.values()
        ):
            # The file has a checksum under a damaged key.
            raise checksum_error(path)
        return None, None
    if checksum != head[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 64].decode("latin-1"):
        raise checksum_error(path)
    return checksum, hashlib.sha256(
        head[:_CHECKSUM_OFFSET] + _CHECKSUM_ZEROS + head[_CHECKSUM_OFFSET + 64 :]
    )


def _checked_array_entries(
    path: str, header: dict[str, object], room: int
) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Return name, dtype and shape of all arrays in the order of their bytes in the file. Raise
    ValueError if an entry is invalid, or unless the arrays fill the `room` bytes one after the
    other.
    """
    entries: list[tuple[int, int, str, np.dtype, tuple[int, ...]]] = []
    for name, entry in header.items():
        fields: Any = entry if isinstance(entry, dict) else {}
        code, shape, place = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
        lists = all(
            isinstance(x, list) and all(type(i) is int and 0 <= i < 1 << 63 for i in x)
            for x in (shape, place)
        )
        is_valid = isinstance(code, str) and code in _DTYPE_CODES and lists
        if not is_valid or len(shape) > _MAX_AXES or len(place) != 2:
            raise _entry_error(path, name)
        entries.append((*place, name, np.dtype(_DTYPE_CODES[code]), tuple(shape)))
    entries.sort(key=lambda entry: entry[:2])
    at = 0
    for begin, end, name, dtype, shape in entries:
        if begin != at or end - begin != math.prod(shape) * dtype.itemsize:
            raise _entry_error(path, name)
        at = end
    if at != room:
        raise ValueError(f"{path} must hold {at} bytes of arrays, got {room}.")
    return [entry[2:] for entry in entries]


def _entry_error(path: str, name: str) -> ValueError:
    return ValueError(
        f"{path} must hold arrays one after the other, each with its dtype, shape and offsets, got "
        f"an invalid entry for {name[:60]!r}. Use an undamaged copy."
    )


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and facts of a file written by `write_tensors`, or of any safetensors file.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    arrays : dict of str to ndarray
        New, writable arrays.
    facts : dict
        The facts, or an empty dict if the file has none.

    Raises
    ------
    ValueError
        If the file is truncated, not of this format, or does not match its checksum. Every claim
        of the header is checked before it is used. Arrays must fill the file one after the other,
        so memory use is that of the file and of a header of at most 4 MiB.
    OSError
        If the file does not exist.
    """
    path = path_as_text(path)
    raise_if_special_file(path)
    with open(path, "rb") as raw:
        path = one_line(path, 300)  # the form of the path in messages
        size = os.fstat(raw.fileno()).st_size
        header, head = _read_header(path, raw, size)
        metadata = header.pop("__metadata__", None)
        checksum, digest = _read_checksum(path, metadata, head)
        arrays = {
            name: _read_array(path, raw, kind, shape, digest)
            for name, kind, shape in _checked_array_entries(path, header, size - len(head))
        }
    if digest is not None and digest.hexdigest() != checksum:
        raise checksum_error(path)
    if not isinstance(metadata, dict) or _METADATA_KEY not in metadata:
        return arrays, {}
    facts = (
        _parse_json(metadata[_METADATA_KEY]) if isinstance(metadata[_METADATA_KEY], str) else None
    )
    if not isinstance(facts, dict):
        raise ValueError(
            f"{path} must have a JSON object as its metadata {_METADATA_KEY!r}, got "
            f"{one_line(repr(metadata[_METADATA_KEY]))}."
        )
    return arrays, facts


def _read_array(
    path: str, raw: BufferedIOBase, dtype: np.dtype[Any], shape: tuple[int, ...], digest: Any
) -> np.ndarray:
    """Return the next array of an open file, and update the hash `digest`, unless it is None, with
    the bytes read.
    """
    boolean = dtype == np.bool_
    try:
        array = np.empty(shape, np.uint8 if boolean else dtype)
    except (ValueError, MemoryError):
        # The array exceeds the address space or the memory.
        raise ValueError(
            f"the arrays of {path} must fit into memory, got one of shape {shape}."
        ) from None
    for piece in _byte_pieces(array):
        if raw.readinto(piece) != len(piece):
            raise ValueError(f"{path} was truncated while it was read. Read it again.")
        if digest is not None:
            digest.update(piece)
    if boolean:
        return np.asarray(array != 0)
    return array.astype(dtype.newbyteorder("="), copy=False)
