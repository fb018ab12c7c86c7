"""Rows, targets and weights as scikit-learn and the estimators exchange them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length

from ...common.checks import as_numpy, is_sparse
from ...network.arguments import as_owned_csr


def sanitise(x: Any, name: str) -> Any:
    """Return `x`, the argument `name`, in a form that scikit-learn can safely read: masked values
    raise an error, and the indices of sparse matrices are checked.
    """
    hidden = isinstance(x, np.ma.MaskedArray) or getattr(x, "requires_grad", False) is True
    if is_sparse(x):
        return as_owned_csr(x, name)
    return as_numpy(x, name) if hidden else x


def select_rows(rows: np.ndarray, X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the rows of X with the given indices or mask, their targets and weights."""
    return X[rows], y[rows], None if weight is None else weight[rows]


def sum_of_weights(weight: np.ndarray) -> float:
    """Return the sum of the weights. Raise ValueError if quotients by the sum could overflow or
    underflow.
    """
    with np.errstate(over="ignore"):
        total = float(weight.sum(dtype=float))
    if not 1e-290 <= total <= 1e305:
        raise ValueError(f"sample_weight must have a sum from 1e-290 to 1e305, got {total:.3g}.")
    return total


def check_sample_weight(weight: Any, X: Any) -> np.ndarray:
    """Return the weights of the rows of X, one for each or one for all, as an array of the dtype of
    X. Raise ValueError if they are not finite, negative, or of another number.
    """
    weight = check_array(weight, ensure_2d=False, dtype=X.dtype, input_name="sample_weight")
    weight = np.full(X.shape[0], weight) if weight.ndim == 0 else weight
    if weight.ndim != 1:
        raise ValueError(f"sample_weight must have one axis, got {weight.ndim}.")
    check_consistent_length(X, weight)
    if (weight < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    return np.asarray(weight)


def nonzero_weight_rows(X: Any, y: Any, weight: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the rows of positive weight, with targets and weights. Raise ValueError for none."""
    kept = weight > 0
    if not kept.any():
        raise ValueError(
            "sample_weight must be positive for at least one row, got zero for all rows."
        )
    return (X, y, weight) if kept.all() else select_rows(kept, X, y, weight)


def scored_rows(X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the rows to score, without those of weight 0, with their targets and weights."""
    w = None if weight is None else np.asarray(weight)
    if w is None or w.ndim != 1 or w.dtype.kind not in "biuf" or w.all() or not w.any():
        return X, y, weight
    check_consistent_length(X, y, w)
    kept = np.flatnonzero(w)
    X, y = (
        x.iloc[kept] if hasattr(x, "iloc") else (x if is_sparse(x) else np.asarray(x))[kept]
        for x in (X, y)
    )
    return X, y, w[kept]
