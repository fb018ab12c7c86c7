"""Data for the shell command: five sets that come with scikit-learn, or arrays from a ``.npz``
file.

scikit-learn is imported only when one of its sets is asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAMES = ("digits", "wine", "iris", "breast_cancer", "diabetes")


@dataclass(frozen=True)
class Dataset:
    """Training and held-out samples, and the loss that suits them.

    ``X (N, d)``, ``y (N,)`` integer classes or ``(N, d_out)`` targets, ``loss`` by the library's
    name, ``n_outputs`` the width of the last layer.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    loss: str
    n_outputs: int

    def score(self, outputs, y):
        """Accuracy for classes, R squared for numbers, of outputs (N, n_outputs)."""
        if self.loss == "cross_entropy":
            return float(np.mean(outputs.argmax(axis=1) == y))
        y = np.reshape(y, outputs.shape)
        return float(1 - np.sum((outputs - y) ** 2) / np.sum((y - y.mean(axis=0)) ** 2))

    @property
    def score_name(self):
        return "accuracy" if self.loss == "cross_entropy" else "R squared"


def load_dataset(source, *, test_fraction=0.2, seed=0):
    """One of `NAMES`, or a ``.npz`` file with arrays ``X`` and ``y``; features are standardised.

    Parameters
    ----------
    source : str or path
    test_fraction : float in (0, 1)
        Held out. Classes keep their shares.
    seed : int or Generator
        Decides which samples are held out.

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
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie strictly between 0 and 1, got {test_fraction!r}")
    X, y = _from_file(Path(source)) if str(source).endswith(".npz") else _from_sklearn(str(source))
    classes = y.dtype.kind in "iub"
    if classes:
        labels, y = np.unique(y, return_inverse=True)
        if labels.size < 2:
            raise ValueError(f"{source}: y holds a single class, at least two are wanted")
    rows, held_out = _split(
        y if classes else None, len(X), test_fraction, np.random.default_rng(seed)
    )
    shift, scale = (
        (4.88, 6.02) if source == "digits" else _standard(X[rows])
    )  # pixels share one scale
    X = (X - shift) / scale
    if not classes:
        y = y.reshape(len(y), -1)
        shift, scale = _standard(y[rows])
        y = (y - shift) / scale
    return Dataset(
        Path(str(source)).stem,
        X[rows],
        y[rows],
        X[held_out],
        y[held_out],
        "cross_entropy" if classes else "mse",
        int(labels.size) if classes else y.shape[1],
    )


def _from_sklearn(name):
    if name not in NAMES:
        raise ValueError(
            f"unknown data {name!r}: give one of {', '.join(NAMES)}, or a .npz file with X and y"
        )
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"the data set {name} comes with scikit-learn: pip install scikit-learn"
        ) from error
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, dtype=np.float64), y


def _from_file(path):
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"X", "y"} - set(arrays.files)
        if missing:
            raise ValueError(
                f"{path} must hold arrays X and y, it holds {', '.join(arrays.files) or 'none'}"
            )
        X, y = np.asarray(arrays["X"], dtype=np.float64), arrays["y"]
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y) or len(X) < 2:
        raise ValueError(
            f"{path}: X must be (N, d) and y (N,) or (N, d_out), got {X.shape} and {y.shape}"
        )
    if not np.isfinite(X).all() or not np.isfinite(y.astype(np.float64)).all():
        raise ValueError(f"{path}: X and y must be finite")
    if y.ndim == 2 and y.dtype.kind in "iub":
        y = y[:, 0] if y.shape[1] == 1 else y.astype(np.float64)
    return X, y


def _split(classes, n, fraction, rng):
    """Rows to train on and rows held out, each class divided alike."""
    groups = (
        [np.arange(n)]
        if classes is None
        else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    )
    held_out = np.zeros(n, dtype=bool)
    for rows in groups:
        count = min(max(1, round(fraction * rows.size)), rows.size - 1)
        held_out[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _standard(A):
    """Mean and standard deviation of columns; a constant column is shifted and left unscaled."""
    scale = A.std(axis=0)
    return A.mean(axis=0), np.where(scale > 1e-12 * np.abs(A).max(axis=0, initial=0.0), scale, 1.0)
