"""Data for the shell command: five data sets that come with scikit-learn, or the user's own arrays
from a ``.npz``, ``.csv`` or ``.tsv`` file.

scikit-learn is imported only for its own data sets.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import math
import zipfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..common.errors import shown
from ..common.files import refuse_device
from ..common.optional import optional
from ..structure.tables import DEFAULT_LOSS_BY_TARGETS, LOSSES, check_loss

# --------------------------------------------------------------------------------------------------
# Arrays from untrusted ``.npz`` files, with one-sentence errors for all defects.

# a file may take MIN_UNPACKED_BYTES bytes, or MAX_UNPACKED_RATIO times its size, in memory
MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO = 32 << 20, 64


def read_npz(path: str | Path, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file by name, without unpickling anything.

    Parameters
    ----------
    path : str or path
    names : container of str, optional
        Names of the arrays to unpack; all others come back empty. By default all are unpacked.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the file cannot be read, or if the arrays would take more than 32 MiB and more than
        `MAX_UNPACKED_RATIO` times the file's size as float64.
    """
    path = Path(path)
    refuse_device(path)
    found: dict[str, np.ndarray] = {}
    name, room = "", max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if names is not None and name not in names:
                    found[name] = np.empty(0)
                    continue
                with archive.open(entry) as file:
                    _refuse_large(file, entry.file_size, room)
                with archive.open(entry) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
                    file.read(1)  # reading to the end makes zipfile compare the checksum
                room -= 8 * found[name].size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy and zipfile raise any, for what is cut, corrupt or none
        if "Object arrays" in str(error):  # which only pickle could read
            cast = f"{shown(name)}.astype({'str' if name == 'y' else 'float'})"
            raise ValueError(
                f"{path}: {shown(name)} must hold numbers or words, got Python objects. Convert "
                f"them, for example with {cast}."
            ) from None
        words = shown(error, 200) or type(error).__name__
        raise ValueError(f"{path} is not a .npz file that can be read: {words}") from None
    return found


def _refuse_large(file: IO[bytes], size: int, room: int) -> None:
    """Refuse the array in an archive member of `size` bytes, by its header, if it would take more
    than `room` bytes as float64.
    """
    read = np.lib.format
    old = read.read_magic(file) == (1, 0)
    shape, _, dtype = (read.read_array_header_1_0 if old else read.read_array_header_2_0)(file)
    count = math.prod(shape)
    taken = max(size, count * dtype.itemsize, 8 * count)
    if taken > room and not dtype.hasobject:
        raise ValueError(
            f"it would unpack to {taken} bytes, more than {MAX_UNPACKED_RATIO} times its size; "
            "where that is right, write it by np.savez, not np.savez_compressed"
        )


# --------------------------------------------------------------------------------------------------
# Samples and targets from ``.csv`` and ``.tsv`` files, with one-sentence errors for all defects.

MIN_INDEX_COLUMNS = 5  # number of columns from which a row 0, 1, 2, ... is a header, not a sample
SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
SEPARATOR_OF_SUFFIX = {".csv": ",", ".tsv": "\t"}  # by the suffix of the file
# names of an index column that pandas writes, at first and after reading it back
INDEX_COLUMN_NAMES = ("", "Unnamed: 0")


def read_csv(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str]:
    """Read features ``(N, d)``, targets ``(N,)``, the names of the features and that of the target
    from a file of numbers.

    Parameters
    ----------
    path : path
        File with one sample per line, with or without a header line; columns are separated by
        commas, or by tabs in a ``.tsv`` file.
    target : str or None
        The column of y, by name or by number from 0; the last one if None. It may hold words.

    Raises
    ------
    ValueError
        If the file cannot be read, has another separator, lines of different lengths, an index
        column, or cells that are not finite numbers.
    """
    names, lines = _table(path, 2)
    column = _column(path, target, names, len(lines[0]))
    y = [row[column] for row in lines]
    rest = [i for i in range(len(lines[0])) if i != column]
    X = _numbers(path, lines, rest, names)
    features = () if names is None else tuple(names[i] for i in rest)
    name = "" if names is None else names[column]
    return X, _target_column(f"{path}, {_called(column, names)}", y), features, name


def _table(path: Path, least: int) -> tuple[list[str] | None, list[list[str]]]:
    """Read the names of the columns, None without a header line, and the cells of all samples; at
    least so many lines and columns.
    """
    lines = _lines(path)
    _refuse_separator(path, lines)
    first = [row[0] for row in lines]
    names = lines.pop(0) if is_header(lines[0], lines[1:]) else None
    if len(lines) < least or len(lines[0]) < least:
        wanted = "two lines and two columns" if least == 2 else "a line of numbers"
        marks = SEPARATOR_NAMES[SEPARATOR_OF_SUFFIX[path.suffix.lower()]]
        raise ValueError(f"{path} must hold at least {wanted}, separated by {marks}, got less.")
    _refuse_index(path, first, names is not None)
    width = len(lines[0])
    if names is not None and len(names) != width:
        raise ValueError(
            f"{path} must have one name for each column, got {len(names)} names for {width} "
            "columns of the first sample line."
        )
    for number, row in enumerate(lines, 1 + (names is not None)):
        if len(row) != width:
            raise ValueError(
                f"{path} must have {width} columns in each line, got {len(row)} in sample line "
                f"{number}."
            )
    return names, lines


def _numbers(
    path: Path, lines: list[list[str]], columns: list[int], names: list[str] | None
) -> np.ndarray:
    """Return some columns of the cells as finite numbers."""
    X = np.array([[_number(row[i]) for i in columns] for row in lines])
    if not np.isfinite(X).all():
        row, at = np.argwhere(~np.isfinite(X))[0]
        cell = lines[row][columns[at]]
        where = _called(columns[at], names)
        raise ValueError(
            f"{path}, sample {row + 1}, {where}: {shown(cell)!r} is not a finite number"
        )
    return X


def read_features(
    source: str | Path, columns: tuple[str, ...], target: str | None, width: int
) -> np.ndarray:
    """Read the features ``(N, width)`` of samples to predict.

    Parameters
    ----------
    source : str or path
        A ``.csv`` or ``.tsv`` file, a ``.npz`` file with an array X, or the name of a data set.
    columns : tuple of str
        Names of the features in training, empty if not known. A file that has them all may have
        other columns too, in any order.
    target : str or None
        The column of y in training, as in `load_dataset`. Without names it is left out of a file
        that has one column more than `width`.
    width : int

    Raises
    ------
    ValueError
        If the file cannot be read or has other columns.
    """
    path, kind = Path(str(source)).expanduser(), Path(str(source)).suffix.lower()
    if kind not in SEPARATOR_OF_SUFFIX:
        X = (
            _from_npz(existing_path(path), ("X",))[0]
            if kind == ".npz"
            else _from_sklearn(str(source))[0]
        )
        if X.shape[1] != width:
            raise ValueError(f"{source} must have {width} features, got {X.shape[1]}.")
        return X
    names, lines = _table(existing_path(path), 1)
    places = [*range(len(lines[0]))]
    if names is not None and columns:
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(
                f"{path} must have a column {shown(missing[0])!r}, got "
                f"{shown(', '.join(columns), 400)}."
            )
        places = [names.index(name) for name in columns]
    elif len(places) == width + 1:
        last = target is None or not target.isdecimal() or int(target) > width
        places.pop(-1 if last else int(target or 0))
    if len(places) != width:
        raise ValueError(
            f"{path} must have the {width} features as columns, got {len(places)} columns."
        )
    return _numbers(path, lines, places, names)


def existing_path(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return path


def is_header(first: list[str], below: list[list[str]]) -> bool:
    """Return whether a first line names the columns: in words, or by their numbers 0, 1, ... as
    pandas does. Numbers in order are names if there are `MIN_INDEX_COLUMNS`, or no sample would
    begin so: one with a word in a column of numbers, or with whole numbers alone in a column of
    others.
    """
    numbered = [(str(i), cell) for i, cell in enumerate(first) if _is_number(cell)]
    if not numbered or any(number != cell for number, cell in numbered):
        return not numbered
    columns = [
        (name, cells) for name, cells in zip(first, zip(*below)) if all(map(_is_number, cells))
    ]
    return len(first) >= MIN_INDEX_COLUMNS or any(
        not _is_number(name) or not all(cell.lstrip("+-").isdecimal() for cell in cells)
        for name, cells in columns
    )


def _lines(path: Path) -> list[list[str]]:
    """Read all lines that are not empty; refuse a file that has none."""
    refuse_device(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=SEPARATOR_OF_SUFFIX[path.suffix.lower()])
            lines = [[cell.strip() for cell in row] for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        kind = path.suffix.lower()
        raise ValueError(f"{path} is not a {kind} file that can be read: {error}") from None
    if not lines:
        marks = SEPARATOR_NAMES[SEPARATOR_OF_SUFFIX[path.suffix.lower()]]
        raise ValueError(
            f"{path} must hold numbers separated by {marks}, one sample a line, got an empty file."
        )
    return lines


def _refuse_separator(path: Path, lines: list[list[str]]) -> None:
    """Refuse a file with a separator other than that of its suffix. With decimal commas, the
    numbers of a .csv file are split at the commas, and the other separator shows up inside a cell
    of every line.
    """
    top, own = lines[:20], SEPARATOR_OF_SUFFIX[path.suffix.lower()]
    for mark, name in SEPARATOR_NAMES.items():
        everywhere = all(any(mark in cell for cell in row) for row in top)
        beside = any(
            mark in cell and any(map(_is_number, cell.split(mark))) for row in top for cell in row
        )
        if mark != own and ((len(top[0]) == 1 and mark in top[0][0]) or (everywhere and beside)):
            raise ValueError(
                f"{path} must have {SEPARATOR_NAMES[own]} between columns and decimal points in "
                f"numbers, got columns separated by {name}."
                + (" Or use a name that ends in .tsv." if mark == "\t" else "")
            )


def _refuse_index(path: Path, first: list[str], named: bool) -> None:
    """Refuse a first column that numbers the rows: in sorted data it would reveal the classes."""
    name, *rest = first
    counts = rest == [str(i) for i in range(len(rest))]
    apart = all(cell.isdecimal() for cell in rest) and len(set(rest)) == len(rest)
    if name in INDEX_COLUMN_NAMES and (counts or (named and apart)):
        raise ValueError(
            f"{path} must hold data alone, got a first column without a name that numbers the "
            "rows, as the index of a pandas data frame does. Use df.to_csv(path, index=False)."
        )


def _column(path: Path, target: str | None, names: list[str] | None, width: int) -> int:
    if target is None:
        return width - 1
    if names is not None and target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < width:
        return int(target)
    has = (
        f"the columns {shown(', '.join(names), 400)}" if names else f"{width} columns without names"
    )
    raise ValueError(f"target is {target!r}; {path} has {has}")


def _called(column: int, names: list[str] | None) -> str:
    """Return a column's name for messages, or else its number."""
    named = names is not None and names[column]
    return f"column {shown(named)!r}" if named else f"column {column} (counted from 0)"


def _target_column(where: str, y: list[str]) -> np.ndarray:
    """Convert the targets to integers if all are whole numbers, else to floats if all are finite
    numbers; keep words as they are.
    """
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            numbers = np.array([kind(cell) for cell in y])
            if numbers.dtype != object and np.isfinite(numbers).all():  # of more than 64 bits
                return numbers
    if any(_is_number(cell) or not cell for cell in y):
        raise ValueError(
            f"{where}: the targets must be of one kind, got words, numbers and missing values."
        )
    return np.array(y)


def _is_number(cell: str) -> bool:
    return not np.isnan(_number(cell)) or cell.lower() == "nan"


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


SKLEARN_NAMES = ("digits", "wine", "iris", "breast_cancer", "diabetes")
DATA_SOURCES = (
    f"one of {', '.join(SKLEARN_NAMES)}, or a .npz file with arrays X and y, or a .csv or .tsv file"
)


@dataclass(frozen=True)
class Code:
    """How the cells of one column become numbers; plain values, saved as JSON.

    ``kind`` is "numbers", "dates", "words" or "left out"; ``fill`` replaces gaps in numbers and
    days, before they are standardised; ``form`` and ``first`` are the form of dates and the day
    from which they are counted; ``categories`` are the words that have an input each.
    """

    name: str
    kind: str = "left out"
    fill: float = 0.0
    form: str = ""
    first: str = ""
    categories: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that the column becomes."""
        if self.kind == "words":
            return tuple(f"{self.name}={word or 'missing'}" for word in self.categories)
        return () if self.kind == "left out" else (self.name,)


@dataclass(frozen=True)
class Coding:
    """How numbers of a file become inputs of a network, and its outputs predictions.

    ``columns`` are the names of the features and ``target`` that of y, empty if the file names
    none. ``shift``, ``scale`` (d,) and ``y_shift``, ``y_scale`` (d_out,) are subtracted and divided
    by; ``classes`` are the labels in the order of the outputs, empty for numbers. ``statistics``
    are those of `MLP.predict` where the network normalises batches, ``sizes`` its widths. ``codes``
    are those of the columns of a table that was read by `tables.read_table`.
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
    codes: tuple[Code, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Training and held-out samples, and the loss that suits them.

    ``X`` has shape (N, d); ``y`` holds integer classes (N,) or targets (N, d_out); ``loss`` is a
    loss name of the library; ``n_outputs`` is the width of the last layer; ``digest`` is a
    fingerprint of all numbers before they were scaled.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    loss: Any
    n_outputs: int
    digest: str = ""
    coding: Coding = Coding()

    def score(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """Return the accuracy for classes, or R squared for numbers, of outputs (N, n_outputs)."""
        return LOSSES[self.loss].score[1](outputs, y)

    @property
    def score_name(self) -> str:
        return LOSSES[self.loss].score[0]


def load_dataset(
    source: str | Path,
    *,
    loss: str | None = None,
    target: str | None = None,
    test_fraction: float = 0.2,
    raw: bool = False,
    seed: int = 0,
    n_outputs: int | None = None,
) -> Dataset:
    """Load one of `SKLEARN_NAMES` or a file, standardise the features, and hold out some samples.

    Parameters
    ----------
    source : str or path
        A name; a ``.npz`` file with arrays ``X (N, d)`` and ``y``; or a file of numbers with one
        sample per line, with or without a header line, separated by commas (``.csv``) or tabs
        (``.tsv``).
    loss : str or None
        The name of one, with parameters as in ``quantile(0.9)``.
        By default cross entropy for whole numbers and words, mse for other numbers.
    target : str or None
        The column of a ``.csv`` or ``.tsv`` file with y, by name or by number from 0; by default
        the last.
    test_fraction : float in [0, 1)
        Share of the samples held out, the same for every class.
    raw : bool
        Whether to leave features and targets unscaled.
    seed : int
        Seed for the choice of held-out samples.
    n_outputs : int or None
        Width of the last layer of an existing model, whose class numbers the targets then are. By
        default the width follows from the targets.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown, the file is missing, or the arrays do not fit together.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "points.npz")
    >>> np.savez(path, X=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    >>> data = load_dataset(path)
    >>> data.X.shape, data.X_test.shape, data.loss, data.n_outputs
    ((16, 2), (4, 2), 'cross_entropy', 2)
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(
            f"test_fraction must be at least 0 and less than 1, got {test_fraction!r}."
        )
    X, y, columns, name = _read(source, target)
    digest = digest_of(X, y)
    loss, y, n_outputs, classes = encode_targets(source, y, loss, n_outputs)
    rng = np.random.default_rng(seed)
    numbers = LOSSES[loss].targets == "numbers"
    rows, held_out = _split(None if numbers else y.reshape(-1), len(X), test_fraction, rng)
    shifts: dict[str, Any] = {}
    if not raw:
        # pixels share one scale
        shift, scale = (
            (4.88, 6.02) if source == "digits" else shift_and_scale(f"{source}: X", X[rows])
        )
        X -= shift
        X /= scale
        shifts = {"shift": np.broadcast_to(shift, X.shape[1:])}
        shifts["scale"] = np.broadcast_to(scale, X.shape[1:])
        if numbers and has_free_scale(loss):
            shift, scale = shift_and_scale(f"{source}: y", y[rows])
            y = (y - shift) / scale
            shifts |= {"y_shift": shift, "y_scale": scale}
    else:
        _refuse_huge(f"{source}: X", X)
        _refuse_huge(f"{source}: y", y)
    parts = (X[rows], y[rows], X[held_out], y[held_out])
    plain: dict[str, Any] = {key: tuple(map(float, a)) for key, a in shifts.items()}
    coding = Coding(columns, name, classes=classes, **plain)
    return Dataset(Path(str(source)).stem, *parts, loss, n_outputs, digest, coding)


def has_free_scale(loss: str) -> bool:
    """Return whether targets of a loss may be standardised; counts stay as they are."""
    given = LOSSES[loss].given
    return given is None or given.least is None


def absolute(source: str) -> str:
    """Make a file's path independent of the working directory; leave the name of a data set as it
    is.
    """
    return source if source in SKLEARN_NAMES else str(Path(source).expanduser().absolute())


def digest_of(X: np.ndarray, y: np.ndarray) -> str:
    """Return a fingerprint of all numbers, independent of the integer width and byte order of the
    machine.
    """
    wide = {"f": "<f8", "i": "<i8", "u": "<i8", "b": "<i8"}
    told = y.astype(wide.get(y.dtype.kind, y.dtype.newbyteorder("<")))
    found = hashlib.sha256(np.ascontiguousarray(X, "<f8"))
    found.update(str(y.shape).encode())
    found.update(told.tobytes())
    return found.hexdigest()[:16]


def _read(
    source: str | Path, target: str | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str]:
    """Return features, targets, the names of the features and that of the target."""
    kind = Path(str(source)).suffix.lower()
    if target is not None and kind not in SEPARATOR_OF_SUFFIX:
        raise ValueError(
            f"target is {target!r}, but only a .csv or .tsv file has columns to choose from"
        )
    if kind != ".npz" and kind not in SEPARATOR_OF_SUFFIX:
        return *_from_sklearn(str(source)), (), ""
    path = existing_path(Path(source).expanduser())
    return (*_from_npz(path), (), "") if kind == ".npz" else read_csv(path, target)


def _from_sklearn(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name not in SKLEARN_NAMES:
        raise ValueError(f"data must be {DATA_SOURCES}, got {name!r}.")
    with optional(f"the data of {name}"):
        from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, dtype=np.float64), y


def _from_npz(path: Path, names: tuple[str, ...] = ("X", "y")) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y of a file, with y all zeros where it is not among the names."""
    arrays = read_npz(path, names)
    if not set(names) <= set(arrays):
        wanted = "arrays X and y" if len(names) > 1 else "an array X"
        raise ValueError(
            f"{path} must hold {wanted}, got {shown(', '.join(arrays), 200) or 'nothing'}."
        )
    X = arrays["X"]
    y = arrays["y"] if "y" in names else np.zeros(len(X) if X.ndim else 0)
    least = len(names)  # samples: one can be predicted, and none held out of one
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y) or len(X) < least or not X.size:
        given = f"{X.shape}" + f" and {y.shape}" * ("y" in names)
        wanted = (
            "X and y must have shapes (N, d) and (N,) or (N, d_out)"
            if "y" in names
            else "X must have shape (N, d)"
        )
        raise ValueError(f"{path}: {wanted}, got {given}.")
    if X.dtype.kind not in "fiub" or y.dtype.kind not in "fiubUS":
        raise ValueError(f"{path}: X and y must hold numbers, got dtypes {X.dtype} and {y.dtype}.")
    X = X.astype(np.float64, copy=False)
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError(f"{path}: X and y must hold finite numbers, got NaN or infinity.")
    if y.ndim == 2 and y.dtype.kind != "f":
        y = y[:, 0] if y.shape[1] == 1 else y.astype(np.float64)
    return X, y


def encode_targets(
    source: Any, y: np.ndarray, loss: str | None, given: int | None
) -> tuple[str, np.ndarray, int, tuple[Any, ...]]:
    """Return the loss, the targets in the form it takes, the width of the last layer, and the
    labels of classes.
    """
    labels: tuple[Any, ...] = ()
    whole = y.ndim == 1 and y.dtype.kind != "f"
    if loss is None:
        loss = DEFAULT_LOSS_BY_TARGETS["classes" if whole else "numbers"]
        if whole and given == 1:  # the model separates two classes or predicts numbers
            two = y.dtype.kind in "US" or np.unique(y).size == 2
            loss = DEFAULT_LOSS_BY_TARGETS["labels" if two else "numbers"]
    check_loss(loss)
    if LOSSES[loss].targets == "numbers":
        if y.dtype.kind in "US":
            raise ValueError(f"{source}: y must hold numbers for {loss}, got words.")
        y, asked = y.astype(np.float64).reshape(len(y), -1), LOSSES[loss].given
        width = y.shape[1] * (1 if asked is None else asked.per_target)
    else:
        labels = tuple(np.unique(y).tolist())
        y, width = _classes(source, y, loss, given)
        if len(labels) < width:  # the model's own class numbers
            labels = tuple(range(width)) if width > 1 else labels
    if given is not None and width != given:
        raise ValueError(f"{source}: {loss} takes {width} outputs, and the model has {given}")
    return loss, y, width, labels


def _classes(source: Any, y: np.ndarray, loss: str, given: int | None) -> tuple[np.ndarray, int]:
    """Return the classes in the form the loss takes, and the number of outputs it needs for
    them.
    """
    if y.ndim == 2:
        raise ValueError(
            f"{source}: y must have one class per sample for {loss}, got shape {y.shape}."
        )
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        raise ValueError(
            f"{source}: y must hold classes for {loss}, got numbers that are not whole."
        )
    labels, ranks = np.unique(y, return_inverse=True)
    if labels.size < 2:
        raise ValueError(f"{source}: y must hold at least two classes, got one.")
    if LOSSES[loss].targets == "labels":
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
    if labels.size > max(2, len(y) // 2):
        raise ValueError(
            f"{source}: y must hold classes, got {labels.size} different whole numbers in "
            f"{len(y)} samples. Use --loss {DEFAULT_LOSS_BY_TARGETS['numbers']} for numbers."
        )
    return ranks, int(labels.size)


def _split(
    classes: np.ndarray | None, n: int, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and the rows held out, with the same share of every class."""
    groups = (
        [np.arange(n)]
        if classes is None
        else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    )
    held_out = np.zeros(n, dtype=bool)
    if fraction:
        for rows in groups:
            count = min(max(1, round(fraction * rows.size)), rows.size - 1)
            held_out[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


MAX_NUMBER = 1e150  # numbers up to this size have finite squares and sums of squares


def _refuse_huge(what: str, A: np.ndarray) -> None:
    """Refuse numbers whose squares overflow: no loss, mean or variance of them is finite."""
    size = np.abs(A).max(initial=0.0) if A.dtype.kind == "f" else 0.0
    if size > MAX_NUMBER:
        raise ValueError(
            f"{what} must be numbers of at most {MAX_NUMBER:g}, got {size:g}. Divide the columns "
            "by their unit."
        )


def shift_and_scale(what: str, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each column, with 1 for the deviation of a constant
    one.
    """
    _refuse_huge(what, A)
    scale = A.std(axis=0)
    return A.mean(axis=0), np.where(scale > 1e-12 * np.abs(A).max(axis=0, initial=0.0), scale, 1.0)
