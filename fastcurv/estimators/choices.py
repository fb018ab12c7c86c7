"""What both estimators choose by the sizes they meet, and the words they share."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.checks import as_numpy, is_sparse
from ..network.mlp import MLP, RELU_LIKE
from ..network.rows import own
from ..optimize.minimize import STOCHASTIC

OUT = {"mse": "identity", "binary_cross_entropy": "logistic", "cross_entropy": "softmax"}
SMALL, LARGE = 0.03, 30.0  # root mean square of what needs no scaling
ONE_THREAD = 10_000_000  # flops of a gradient that is done before another thread has woken
SINGLE = 20_000_000  # flops of a gradient from which float32 saves more than a cast of the rows
COARSE, UNIT = 1e-3, 1e6  # least spread of a column for its size, and sizes far from 1
BLOCK = 1 << 22  # numbers of sparse rows made dense at a time
CACHED = 1 << 16  # numbers of all steps of L-BFGS: with the gradients' changes 1 MB


def unhidden(x: Any, name: str) -> Any:
    """`x` as scikit-learn may touch it, which looks past the mask of a masked array, at pages of
    files that were cut short, and at indices of sparse matrices that lead anywhere.
    """
    hidden = isinstance(x, np.ma.MaskedArray) or getattr(x, "requires_grad", False) is True
    return own(as_numpy(x, name) if hidden else x, name)


def pairs_worth(n: int, rows: int) -> int:
    """Pairs of L-BFGS for n parameters: more than 20 save iterations, a third of them with 80, and
    are worth it where they stay in cache and cost little beside a gradient.

    Examples
    --------
    >>> pairs_worth(601, 1000), pairs_worth(601, 100), pairs_worth(7510, 1000)
    (80, 20, 20)
    """
    return min(max(20, min(rows // 12, CACHED // n)), 80)


def threads_worth(given: int | None, n: int, rows: int) -> int | None:
    """One thread for a small gradient, unless told otherwise."""
    return 1 if given is None and 6 * rows * n < ONE_THREAD else given


def single_worth(X: Any, y: np.ndarray, n: int) -> bool:
    """Whether float32 serves to see how far a fit should go: where a gradient takes long, and no
    column of the numbers has a spread, or a size, that float32 tells badly.
    """
    if is_sparse(X) or X.dtype != np.float64 or 6 * X.shape[0] * n < SINGLE:
        return False
    for a in (X, y) if y.dtype.kind == "f" else (X,):
        low, high = a.min(axis=0), a.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        told = (high - low >= COARSE * size) & (size < UNIT) & (size * UNIT > 1)
        if not np.all(told | (high == low)):
            return False
    return True


def outputs_of(model: MLP, theta: np.ndarray, X: Any) -> np.ndarray:
    """Outputs before any softmax; of sparse rows by blocks that are made dense."""
    if not is_sparse(X):
        return model.predict(theta, X)
    step = max(1, BLOCK // X.shape[1])
    parts = (X[start : start + step].toarray() for start in range(0, X.shape[0], step))
    return np.concatenate([model.predict(theta, part) for part in parts])


def advice(X: Any, y: np.ndarray, model: MLP, alpha: float) -> str:
    """What would help a fit that came to the end of its iterations: scaling, where features or
    targets are far from unit size, and more of them, unless weight decay has drawn units to where
    they have no derivative.
    """
    far = [
        name
        for name, x in (("features", X.data if is_sparse(X) else X), ("targets", y))
        if x.dtype.kind == "f" and not SMALL < np.sqrt(np.mean(np.square(x, dtype=float))) < LARGE
    ]
    kinked = sorted(set(RELU_LIKE) & set(model.activation)) if alpha > 0 else []
    scaled = f"scaled {' and '.join(far)} or " if far else ""
    unless = f", unless a kink of {kinked[0]} holds the gradient there" if kinked else ""
    return f"{scaled}more iterations would help{unless}"


def takes_rows_as_they_come(estimator: Any) -> bool:
    """Whether there is a `partial_fit`; where there is none, `Answering` names the solvers."""
    return estimator.solver in STOCHASTIC
