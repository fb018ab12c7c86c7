"""Helpers that read a fitted estimator for a Display, and a plot of decision regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.errors import type_phrase
from ...common.protocols import Array
from .style import CYCLE, new_axes


def final_estimator_and_inputs(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """Return the fitted estimator of this library at the end of a pipeline, or in the best
    estimator of a search, and X transformed by the steps before the estimator.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "steps"):
        before = estimator[:-1]
        estimator = estimator[-1]
        X = before.transform(X) if X is not None and len(before.steps) else X
    if not hasattr(type(estimator), "objective"):
        raise TypeError(
            "estimator must be an MLPClassifier or MLPRegressor of fastcurv, or a pipeline that "
            f"ends in one, got {type_phrase(estimator)}. For scikit-learn's estimators use "
            "fastcurv.from_sklearn, then from_objective."
        )
    if not hasattr(estimator, "theta_"):
        raise ValueError(
            f"estimator must be fitted, got {type_phrase(estimator)} without theta_. Call "
            "fit(X, y) first."
        )
    return estimator, X


def estimator_objective(
    estimator: Any, X: Any, y: Any, sample_weight: Any = None
) -> tuple[Any, Any]:
    """Return the objective that a fitted estimator minimises on the rows of X, and the fitted
    theta.
    """
    estimator, X = final_estimator_and_inputs(estimator, X)
    return estimator.objective(X, y, sample_weight), estimator.theta_


# --------------------------------------------------------------------------------------------------
# The decision regions of a classifier of two features.


def decision_regions(
    predict: Callable[[Array], Any],
    X: Array,
    y: Array,
    ax: Any = None,
    *,
    n: int = 121,
    title: str | None = None,
) -> Any:
    """Draw the decision regions of a classifier of two features, with the samples as markers.

    Parameters
    ----------
    predict : callable
        ``predict(X)`` for X of shape (m, 2) returns m integer classes, or m floats whose sign
        gives the class.
    X : (N, 2) array
        The samples.
    y : (N,) array of integer classes
        The classes of the samples.
    ax : matplotlib Axes or None
        The Axes to draw in; None creates a new figure.
    n : int
        Number of grid points along each axis.
    title : str or None
        The title of the Axes.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax, figsize=(4.0, 4.0))
    low = X.min(axis=0)
    high = X.max(axis=0)
    margin = 0.08 * (high - low)
    x0, x1 = (np.linspace(low[i] - margin[i], high[i] + margin[i], n) for i in (0, 1))
    grid = np.stack(np.meshgrid(x0, x1), axis=-1).reshape(-1, 2)
    decided = np.asarray(predict(grid))
    if decided.dtype.kind == "f":
        decided = (decided.ravel() > 0).astype(int)
    classes = np.unique(y)
    edges = np.concatenate([classes - 0.5, [classes[-1] + 0.5]])
    ax.contourf(
        x0, x1, decided.reshape(n, n), levels=edges, colors=CYCLE[: classes.size], alpha=0.3
    )
    for c, color, marker in zip(classes, CYCLE, "os^vDXP"):
        ax.plot(*X[y == c].T, marker, ms=3, color=color, mec="white", mew=0.3)
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title)
    return ax
