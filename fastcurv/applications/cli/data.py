"""Data for the shell command: five data sets that come with scikit-learn, or the user's own arrays
from a ``.npz`` file; `tables` opens tables.

scikit-learn is imported only for its own data sets.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Container
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home, raise_if_special_file
from ...common.optional import optional_import
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS, check_loss, loss_spec

# --------------------------------------------------------------------------------------------------
# Arrays from untrusted ``.npz`` files, with a ValueError for every defect.

# The arrays of a file may take 32 MiB of memory or MAX_UNPACKED_RATIO times the size of the file,
# whichever is more.
MAX_UNPACKED_RATIO = 64


class FileError(ValueError):
    """A defect of a file, with a message that names the file."""


def max_unpacked_bytes(path: Path) -> int:
    """Return the number of bytes of memory that the arrays of an untrusted file may take."""
    return max(32 << 20, MAX_UNPACKED_RATIO * path.stat().st_size)


def read_npz(path: str | Path, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file by name, without unpickling anything.

    Parameters
    ----------
    path : str or path
    names : container of str, optional
        Names of the arrays to unpack; all others are returned empty. By default all are unpacked.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the file cannot be read, or if the arrays, converted to float64, would take more than 32
        MiB and more than `MAX_UNPACKED_RATIO` times the size of the file.
    """
    path = Path(path)
    raise_if_special_file(path)
    found: dict[str, np.ndarray] = {}
    name, room = "", max_unpacked_bytes(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if names is not None and name not in names:
                    found[name] = np.empty(0)
                    continue
                with archive.open(entry) as file:
                    _check_array_header(file, path, name, entry.file_size, room)
                with archive.open(entry) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
                    file.read(1)  # Reading to the end makes zipfile compare the checksum.
                room -= 8 * found[name].size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except FileError:
        raise
    except Exception as error:
        # NumPy and zipfile raise many kinds of errors for truncated, corrupt or foreign files.
        words = (one_line(error, 200) or type(error).__name__).rstrip(".")
        raise ValueError(f"{path} cannot be read as an .npz file: {words}.") from None
    return found


def _check_array_header(file: IO[bytes], path: Path, name: str, size: int, room: int) -> None:
    """Raise FileError if the array `name`, in an archive member of `size` bytes, would take more
    than `room` bytes, as stored or as float64, or holds Python objects, which only pickle could
    read. The shape and dtype are those of the header of the array.
    """
    read = np.lib.format
    old = read.read_magic(file) == (1, 0)
    shape, _, dtype = (read.read_array_header_1_0 if old else read.read_array_header_2_0)(file)
    count = math.prod(shape)
    taken = max(size, count * dtype.itemsize, 8 * count)
    if dtype.hasobject:
        cast = f"{one_line(name)}.astype({'str' if name == 'y' else 'float'})"
        raise FileError(
            f"{path}: {one_line(name)} must hold numbers or words, got Python objects. Convert "
            f"them, for example with {cast}."
        )
    if taken > room:
        raise FileError(
            f"{path}: arrays must take at most {MAX_UNPACKED_RATIO} times the size of the file, "
            f"got {taken} bytes. Write the file with np.savez instead of np.savez_compressed."
        )


# --------------------------------------------------------------------------------------------------
# Data sets by name, from arrays, or from tables.

# suffixes of files with a table, as text, as a workbook, or with the types of its columns; the
# package that reads the file
TEXT_SUFFIXES = (".csv", ".tsv")
WORKBOOK_ENGINES = {".xlsx": "openpyxl", ".xlsm": "openpyxl", ".ods": "odf"}
FRAME_ENGINES = {
    ".parquet": "pyarrow",
    ".feather": "pyarrow",
    ".dta": "pandas",
    ".sav": "pyreadstat",
}
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *WORKBOOK_ENGINES, *FRAME_ENGINES)


def read_features(source: str | Path, width: int) -> np.ndarray:
    """Read the features ``(N, width)`` of samples to predict, from a ``.npz`` file with an array X
    or from a data set.

    Raises
    ------
    ValueError
        If the file cannot be read or X has another width.
    """
    path = expand_home(str(source))
    npz = path.suffix.lower() == ".npz"
    X = (
        load_npz(resolve_existing_path(path), ("X",)) if npz else load_sklearn_dataset(str(source))
    )[0]
    if X.shape[1] != width:
        raise ValueError(f"{source} must have {width} features, got {X.shape[1]}.")
    return X


def is_table(source: Any) -> bool:
    """Return True for a DataFrame, and for a name that ends in one of `TABLE_SUFFIXES`, or in one
    of `TEXT_SUFFIXES` followed by .gz.
    """
    if not isinstance(source, (str, PathLike)):
        return hasattr(source, "iloc")
    name = str(source).lower()
    return name.endswith(TABLE_SUFFIXES) or name.removesuffix(".gz").endswith(TEXT_SUFFIXES)


def resolve_existing_path(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    return path


SKLEARN_DATASETS = ("digits", "wine", "iris", "breast_cancer", "diabetes")
DATA_SOURCES = (
    f"one of {', '.join(SKLEARN_DATASETS)}, or a .npz file with arrays X and y, or a table (.csv, "
    ".tsv, .xlsx, .parquet, ...)"
)


COLUMN_KINDS = ("numbers", "dates", "words", "left out")  # kinds of a column


@dataclass(frozen=True)
class ColumnCoding:
    """The rule by which the cells of one column become numbers, as plain values that are saved as
    JSON.

    ``kind`` is one of `COLUMN_KINDS`. ``fill`` replaces missing numbers and dates before they are
    standardised. ``form`` is the unit of numbers or the form of dates, and ``first`` the day from
    which dates are counted. ``categories`` are the words that have an input each.
    """

    name: str
    kind: str = "left out"
    fill: float = 0.0
    form: str = ""
    first: str = ""
    categories: tuple[str, ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the network inputs computed from the column."""
        if self.kind == "words":
            return tuple(f"{self.name}={word or 'missing'}" for word in self.categories)
        return () if self.kind == "left out" else (self.name,)


@dataclass(frozen=True)
class DataCoding:
    """The rules by which numbers of a file become inputs of a network, and its outputs become
    predictions.

    ``columns`` are the names of the features and ``target`` that of y, empty if the file names
    none. Inputs are ``(x - shift) / scale`` (d,), and targets are scaled in the same way by
    ``y_shift`` and ``y_scale`` (d_out,). ``classes`` are the labels in the order of the outputs,
    empty for regression. ``statistics`` are the means and variances that `MLP.predict` needs with
    batch normalisation, and ``sizes`` the widths of the network. ``codes`` holds a `ColumnCoding`
    for each column of a table, ``decimal`` its decimal mark, and ``na`` the cells that a user named
    as missing.
    """

    columns: tuple[str, ...] = ()
    target: str = ""
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    y_shift: tuple[float, ...] = ()
    y_scale: tuple[float, ...] = ()
    classes: tuple[Any, ...] = ()
    statistics: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    sizes: tuple[int, ...] = ()
    codes: tuple[ColumnCoding, ...] = ()
    decimal: str = "."
    na: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Training and held-out samples, and the loss for their targets.

    ``X`` has shape (N, d), and ``y`` holds integer classes (N,) or targets (N, d_out). ``loss`` is
    the name of a loss, and ``n_outputs`` is the width of the last layer. ``digest`` is a
    fingerprint of all numbers before they were scaled. ``notes`` are sentences about parts of a
    table that were left out and about assumptions.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    loss: Any
    n_outputs: int
    digest: str = ""
    coding: DataCoding = DataCoding()
    notes: tuple[str, ...] = ()

    def score(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """Return the score of `outputs` (N, n_outputs) for the targets y: the accuracy for
        classification, or R squared for regression.
        """
        return loss_spec(self.loss).score[1](outputs, y)

    @property
    def score_name(self) -> str:
        return loss_spec(self.loss).score[0]


def allows_scaled_targets(loss: str) -> bool:
    """Return True if the targets of a loss may be standardised. This is the case if the loss has no
    lower limit for the targets, as losses for counts have.
    """
    given = loss_spec(loss).given
    return given is None or given.least is None


def resolve_source(source: str) -> str:
    """Return a file's path in absolute form, and the name of a data set unchanged."""
    return source if source in SKLEARN_DATASETS else str(expand_home(source).absolute())


def data_digest(X: np.ndarray, y: np.ndarray) -> str:
    """Return a fingerprint of the numbers in X and y, independent of the integer width and byte
    order of the machine.
    """
    wide = {"f": "<f8", "i": "<i8", "u": "<i8", "b": "<i8"}
    targets = y.astype(wide.get(y.dtype.kind, y.dtype.newbyteorder("<")))
    found = hashlib.sha256(np.ascontiguousarray(X, "<f8"))
    found.update(str(y.shape).encode())
    found.update(targets.tobytes())
    return found.hexdigest()[:16]


def load_sklearn_dataset(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name not in SKLEARN_DATASETS:
        raise ValueError(f"data must be {DATA_SOURCES}, got {name!r}.")
    with optional_import(f"the data of {name}"):
        from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, dtype=np.float64), y


def load_npz(path: Path, names: tuple[str, ...] = ("X", "y")) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays X (N, d) and y of a file. If `names` does not contain "y", return zeros as
    y. Raise ValueError for arrays of wrong shape or type, and for values that are not finite.
    """
    arrays = read_npz(path, names)
    if not set(names) <= set(arrays):
        wanted = "arrays X and y" if len(names) > 1 else "an array X"
        raise ValueError(
            f"{path} must hold {wanted}, got {one_line(', '.join(arrays), 200) or 'nothing'}."
        )
    X = arrays["X"]
    y = arrays["y"] if "y" in names else np.zeros(len(X) if X.ndim else 0)
    # Prediction needs at least one sample. Training needs two, since one is held out.
    least = len(names)
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y) or len(X) < least or not X.size:
        given = f"{X.shape}" + f" and {y.shape}" * ("y" in names)
        wanted = (
            "X and y must have shapes (N, d) and (N,) or (N, d_out) with N >= 2 and d >= 1"
            if "y" in names
            else "X must have shape (N, d) with N >= 1 and d >= 1"
        )
        raise ValueError(f"{path}: {wanted}, got {given}.")
    if X.dtype.kind not in "fiub" or y.dtype.kind not in "fiubUS":
        wanted = "X must hold numbers" + " and y numbers or words" * ("y" in names)
        given = f"{X.dtype}" + f" and {y.dtype}" * ("y" in names)
        raise ValueError(f"{path}: {wanted}, got dtype {given}.")
    X = X.astype(np.float64, copy=False)
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        name = "y" if np.isfinite(X).all() else "X"
        raise ValueError(f"{path}: {name} must hold finite numbers, got NaN or infinity.")
    if y.ndim == 2 and y.dtype.kind != "f":
        y = y[:, 0] if y.shape[1] == 1 else y.astype(np.float64)
    return X, y


def encode_targets(
    source: Any, y: np.ndarray, loss: str | None, given: int | None
) -> tuple[str, np.ndarray, int, tuple[Any, ...]]:
    """Return the loss, the targets in the form that the loss needs, the width of the last layer,
    and the labels of the classes, which are empty for regression. `loss` is the name of a loss, or
    None for the default of the targets y. `source` names the data in messages. `given` is the
    number of outputs of an existing model, or None.
    """
    labels: tuple[Any, ...] = ()
    whole = y.ndim == 1 and y.dtype.kind != "f"
    if loss is None:
        loss = DEFAULT_LOSS_BY_TARGETS["classes" if whole else "numbers"]
        # A model with one output is for two classes or for regression.
        if whole and given == 1:
            two = y.dtype.kind in "US" or np.unique(y).size == 2
            loss = DEFAULT_LOSS_BY_TARGETS["labels" if two else "numbers"]
    check_loss(loss)
    if loss_spec(loss).targets == "numbers":
        if y.dtype.kind in "US":
            word = one_line(y.reshape(-1)[0])
            raise ValueError(
                f"{source}: y must hold numbers for {loss}, got words such as {word!r}."
            )
        y, user_loss = y.astype(np.float64).reshape(len(y), -1), loss_spec(loss).given
        width = y.shape[1] * (1 if user_loss is None else user_loss.per_target)
    else:
        labels = tuple(np.unique(y).tolist())
        y, width = _encode_classes(source, y, loss, given)
        # If there are fewer labels than outputs, the classes are the indices of the model's
        # outputs.
        if len(labels) < width:
            labels = tuple(range(width)) if width > 1 else labels
    if given is not None and width != given:
        raise ValueError(
            f"the number of outputs must be {width} for {loss} and the targets of {source}, got "
            f"{given}."
        )
    return loss, y, width, labels


def _encode_classes(
    source: Any, y: np.ndarray, loss: str, given: int | None
) -> tuple[np.ndarray, int]:
    """Return the classes of the samples in the form that `loss` needs, and the number of outputs.
    The arguments are those of `encode_targets`.
    """
    if y.ndim == 2:
        raise ValueError(
            f"{source}: y must have one class per sample for {loss}, got shape {y.shape}."
        )
    fractions = y[y != np.round(y)] if y.dtype.kind == "f" else y[:0]
    if len(fractions):
        raise ValueError(
            f"{source}: y must hold classes for {loss}, got fractions such as {fractions[0]:g}."
        )
    labels, ranks = np.unique(y, return_inverse=True)
    if labels.size < 2:
        raise ValueError(f"{source}: y must hold at least two classes, got {labels.tolist()}.")
    if loss_spec(loss).targets == "labels":
        if labels.size != 2:
            raise ValueError(f"{source}: y must hold two classes for {loss}, got {labels.size}.")
        return ranks.astype(np.float64).reshape(-1, 1), 1
    if given is not None and labels.size <= given and y.dtype.kind not in "US":
        if labels[0] >= 0 and labels[-1] < given:
            return y.astype(np.int64), given
        if labels.size < given:
            raise ValueError(
                f"{source}: y must hold classes from 0 to {given - 1} for the model's {given} "
                f"outputs, got classes from {labels[0]} to {labels[-1]}."
            )
    if labels.size > (most := max(2, len(y) // 2)):
        raise ValueError(
            f"{source}: y must hold at most {most} classes in {len(y)} samples, got {labels.size}. "
            f"Use --loss {DEFAULT_LOSS_BY_TARGETS['numbers']} for regression."
        )
    return ranks, int(labels.size)


# maximum magnitude of a number at which its square, and sums of such squares, are finite
MAX_SQUARABLE_NUMBER = 1e150


def check_finite_squares(what: str, A: np.ndarray) -> None:
    """Raise ValueError if the magnitude of an entry of A exceeds `MAX_SQUARABLE_NUMBER`, because no
    loss, mean or variance would be finite. `what` names A in the message.
    """
    size = np.abs(A).max(initial=0.0) if A.dtype.kind == "f" else 0.0
    if size > MAX_SQUARABLE_NUMBER:
        raise ValueError(
            f"{what} must be at most {MAX_SQUARABLE_NUMBER:g} in magnitude, got {size:g}. Rescale "
            "these columns."
        )


def column_means_and_scales(what: str, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each column of A, with 1 for the deviation of a
    constant column. `what` names A in messages.
    """
    check_finite_squares(what, A)
    scale = A.std(axis=0)
    return A.mean(axis=0), np.where(scale > 1e-12 * np.abs(A).max(axis=0, initial=0.0), scale, 1.0)
