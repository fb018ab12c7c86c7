"""Scalers of scikit-learn as affine maps, to be made part of a network's first layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCALERS = "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA"


@dataclass(frozen=True)
class Affine:
    """``x A' + c`` of rows x."""

    A: np.ndarray
    c: np.ndarray

    def then(self, other: Affine) -> Affine:
        """The other map after this one."""
        return Affine(other.A @ self.A, other.A @ self.c + other.c)

    def before(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The layer ``W, b`` of mapped rows as a layer of rows as they come."""
        return W @ self.A, W @ self.c + b


def affine_steps(steps: Sequence[tuple[str, Any]]) -> Affine | None:
    """The steps of a pipeline as one map; None where they do nothing.

    A ValueError for the first that is no affine map, and for one that is not fitted.
    """
    whole: Affine | None = None
    for name, step in steps:
        if step is None or isinstance(step, str):  # "passthrough"
            continue
        found = as_affine(step, name)
        whole = found if whole is None else whole.then(found)
    return whole


def as_affine(step: Any, name: str) -> Affine:
    """A fitted scaler as a map."""
    kind = type(step).__name__
    makers = {
        "StandardScaler": _standard,
        "MinMaxScaler": _min_max,
        "MaxAbsScaler": lambda scaler: _divided(scaler, None, scaler.scale_),
        "RobustScaler": lambda scaler: _divided(
            scaler,
            scaler.center_ if scaler.with_centering else None,
            scaler.scale_ if scaler.with_scaling else None,
        ),
        "PCA": _pca,
    }
    if kind not in makers or getattr(step, "clip", False):
        bent = " with clip=True" if kind in makers else ""
        raise ValueError(
            f"step {name!r} of the pipeline is a {kind}{bent}; wanted {SCALERS} before the net, or "
            "from_sklearn(pipe[-1]) with X = pipe[:-1].transform(X)"
        )
    if not _transforms_alike(type(step), kind):
        own = type(step)
        raise ValueError(
            f"step {name!r} of the pipeline is a {own.__module__}.{own.__name__} with a transform "
            f"of its own; wanted scikit-learn's {kind}, or from_sklearn(pipe[-1]) with "
            "X = pipe[:-1].transform(X)"
        )
    if not hasattr(step, "n_features_in_"):
        raise ValueError(f"step {name!r} of the pipeline is not fitted; wanted a fitted pipeline")
    return makers[kind](step)


def _transforms_alike(own: Any, kind: str) -> bool:
    """Whether a class of this name is scikit-learn's, or keeps its `transform`."""
    theirs = (b for b in own.__mro__ if b.__module__.startswith("sklearn.") and b.__name__ == kind)
    return any(own.transform is base.transform for base in theirs)


def _divided(scaler: Any, shift: Any, scale: Any) -> Affine:
    """``(x - shift) / scale``, either of them None for none."""
    d = scaler.n_features_in_
    over = np.ones(d) if scale is None else 1.0 / np.asarray(scale, float)
    return Affine(np.diag(over), np.zeros(d) if shift is None else -np.asarray(shift) * over)


def _standard(scaler: Any) -> Affine:
    mean, scale = scaler.with_mean, scaler.with_std  # as they are now: so does transform
    return _divided(scaler, scaler.mean_ if mean else None, scaler.scale_ if scale else None)


def _min_max(scaler: Any) -> Affine:
    return Affine(np.diag(scaler.scale_), np.asarray(scaler.min_, float))


def _pca(pca: Any) -> Affine:
    A = np.asarray(pca.components_, float)
    if pca.whiten:
        scale = np.sqrt(pca.explained_variance_)
        A = A / np.maximum(scale, np.finfo(scale.dtype).eps)[:, None]  # as scikit-learn has it
    return Affine(A, -A @ pca.mean_)
