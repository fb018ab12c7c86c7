"""Data for the shell command: five sets that come with scikit-learn, or the user's own arrays from
a ``.npz`` or ``.csv`` file.

scikit-learn is imported only when one of its sets is asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_choice
from ..files import shown
from .arrays import read_npz
from .table import read_csv

NAMES = ("digits", "wine", "iris", "breast_cancer", "diabetes")
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse")
WHAT = f"one of {', '.join(NAMES)}, or a .npz file with arrays X and y, or a .csv file"


@dataclass(frozen=True)
class Dataset:
    """Training and held-out samples, and the loss that suits them.

    ``X (N, d)``, ``y (N,)`` integer classes or ``(N, d_out)`` targets, ``loss`` by the library's
    name, ``n_outputs`` the width of the last layer, ``digest`` a fingerprint of all numbers as
    they came.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    loss: Any
    n_outputs: int
    digest: str = ""

    def score(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """Accuracy for classes, R squared for numbers, of outputs (N, n_outputs)."""
        if self.loss == "cross_entropy":
            return float(np.mean(outputs.argmax(axis=1) == y))
        y = np.reshape(y, outputs.shape)
        if self.loss == "binary_cross_entropy":
            return float(np.mean((outputs > 0) == (y > 0.5)))
        spread = np.sum((y - y.mean(axis=0)) ** 2)
        return float(1 - np.sum((outputs - y) ** 2) / spread) if spread > 0 else float("nan")

    @property
    def score_name(self) -> str:
        return "R squared" if self.loss == "mse" else "accuracy"


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
    """One of `NAMES`, or a file; features are standardised.

    Parameters
    ----------
    source : str or path
        A name; a ``.npz`` file with arrays ``X (N, d)`` and ``y``; or a ``.csv`` file of numbers
        separated by commas, one sample a line, with or without a line of names.
    loss : {"cross_entropy", "binary_cross_entropy", "mse"} or None
        None: cross entropy for whole numbers and words, mse for other numbers.
    target : str or None
        The column of a ``.csv`` file that holds y, by name or number from 0; None: the last.
    test_fraction : float in [0, 1)
        Held out. Classes keep their shares.
    raw : bool
        Whether features and targets stay as they are.
    seed : int
        Decides which samples are held out.
    n_outputs : int or None
        The width of the last layer of a model that is there already: whole numbers are its classes
        as they stand. None: the width that the targets ask for.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        For an unknown name, a missing file, or arrays that do not fit together.

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
        raise ValueError(f"test_fraction is {test_fraction!r}; wanted at least 0 and less than 1")
    X, y = _read(source, target)
    digest = _digest(X, y)
    loss, y, n_outputs = _targets(source, y, loss, n_outputs)
    rng = np.random.default_rng(seed)
    rows, held_out = _split(None if loss == "mse" else y.reshape(-1), len(X), test_fraction, rng)
    if not raw:
        # pixels share one scale
        shift, scale = (4.88, 6.02) if source == "digits" else _standard(X[rows])
        X -= shift
        X /= scale
        if loss == "mse":
            shift, scale = _standard(y[rows])
            y = (y - shift) / scale
    parts = (X[rows], y[rows], X[held_out], y[held_out])
    return Dataset(Path(str(source)).stem, *parts, loss, n_outputs, digest)


def absolute(source: str) -> str:
    """A name as it is; a file's path made independent of the working directory."""
    return source if source in NAMES else str(Path(source).expanduser().absolute())


def _digest(X: np.ndarray, y: np.ndarray) -> str:
    """A fingerprint of all numbers, the same whatever the width and byte order of a machine's own
    integers are.
    """
    wide = {"f": "<f8", "i": "<i8", "u": "<i8", "b": "<i8"}
    told = y.astype(wide.get(y.dtype.kind, y.dtype.newbyteorder("<")))
    found = hashlib.sha256(np.ascontiguousarray(X, "<f8"))
    found.update(str(y.shape).encode())
    found.update(told.tobytes())
    return found.hexdigest()[:16]


def _read(source: str | Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    kind = Path(str(source)).suffix.lower()
    if target is not None and kind != ".csv":
        raise ValueError(f"target is {target!r}, but only a .csv file has columns to choose from")
    if kind == ".npz":
        return _from_npz(Path(source).expanduser())
    if kind == ".csv":
        return read_csv(Path(source).expanduser(), target)
    return _from_sklearn(str(source))


def _from_sklearn(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name not in NAMES:
        raise ValueError(f"data is {name!r}; wanted {WHAT}")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"the data set {name} comes with scikit-learn: pip install scikit-learn"
        ) from error
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, dtype=np.float64), y


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_npz(path, ("X", "y"))
    missing = {"X", "y"} - set(arrays)
    if missing:
        raise ValueError(
            f"{path} holds {shown(', '.join(arrays), 200) or 'nothing'}; wanted arrays X and y"
        )
    X, y = arrays["X"], arrays["y"]
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y) or len(X) < 2 or not X.size:
        raise ValueError(
            f"{path}: X has shape {X.shape} and y {y.shape}; wanted (N, d), and (N,) or (N, d_out)"
        )
    if X.dtype.kind not in "fiub" or y.dtype.kind not in "fiubUS":
        raise ValueError(f"{path}: X is {X.dtype} and y {y.dtype}; wanted numbers")
    X = X.astype(np.float64, copy=False)
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError(f"{path}: X or y holds NaN or infinity; wanted finite numbers")
    if y.ndim == 2 and y.dtype.kind != "f":
        y = y[:, 0] if y.shape[1] == 1 else y.astype(np.float64)
    return X, y


def _targets(
    source: Any, y: np.ndarray, loss: str | None, given: int | None
) -> tuple[str, np.ndarray, int]:
    """Loss, targets as it takes them, width of the last layer: the given one, if any."""
    whole = y.ndim == 1 and y.dtype.kind != "f"
    if loss is None:
        loss = _suitable(y, given) if whole else "mse"
    check_choice(loss, LOSSES, "loss")
    if loss == "mse":
        if y.dtype.kind in "US":
            raise ValueError(f"{source}: y holds words; wanted numbers for mse")
        y, width = y.astype(np.float64).reshape(len(y), -1), None
    else:
        y, width = _classes(source, y, loss, given)
    width = y.shape[1] if width is None else width
    if given is not None and width != given:
        raise ValueError(f"{source}: {loss} takes {width} outputs, and the model has {given}")
    return loss, y, width


def _suitable(y: np.ndarray, given: int | None) -> str:
    """The loss for whole numbers and words: a model of one output tells two classes apart, or
    gives numbers.
    """
    if given != 1:
        return "cross_entropy"
    return "binary_cross_entropy" if y.dtype.kind in "US" or np.unique(y).size == 2 else "mse"


def _classes(source: Any, y: np.ndarray, loss: str, given: int | None) -> tuple[np.ndarray, int]:
    """Classes as the loss takes them, and how many outputs it wants for them."""
    if y.ndim == 2:
        raise ValueError(f"{source}: y has shape {y.shape}; wanted one class a sample for {loss}")
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        raise ValueError(f"{source}: y holds numbers that are not whole; wanted classes for {loss}")
    labels, ranks = np.unique(y, return_inverse=True)
    if labels.size < 2:
        raise ValueError(f"{source}: y holds a single class; wanted at least two")
    if loss == "binary_cross_entropy":
        if labels.size != 2:
            raise ValueError(f"{source}: y holds {labels.size} classes; wanted two for {loss}")
        return ranks.astype(np.float64).reshape(-1, 1), 1
    if given is not None and labels.size <= given and y.dtype.kind not in "US":
        if labels[0] >= 0 and labels[-1] < given:
            return y.astype(np.int64), given
        if labels.size < given:
            raise ValueError(
                f"{source}: y holds classes from {labels[0]} to {labels[-1]}; wanted 0 to "
                f"{given - 1} for the model's {given} outputs"
            )
    if labels.size > max(2, len(y) // 2):
        raise ValueError(
            f"{source}: y holds {labels.size} different whole numbers in {len(y)} samples; "
            "wanted classes, or --loss mse"
        )
    return ranks, int(labels.size)


def _split(
    classes: np.ndarray | None, n: int, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, each class divided alike."""
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


def _standard(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns; a constant column is shifted and left unscaled."""
    scale = A.std(axis=0)
    return A.mean(axis=0), np.where(scale > 1e-12 * np.abs(A).max(axis=0, initial=0.0), scale, 1.0)
