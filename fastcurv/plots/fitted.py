"""What a Display looks at in a fitted estimator."""

from __future__ import annotations

from typing import Any


def last_step(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """A fitted estimator, that at the end of a pipeline or the best of a search, and X as it
    receives it.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "steps"):
        before, estimator = estimator[:-1], estimator[-1]
        X = before.transform(X) if X is not None and len(before.steps) else X
    if not hasattr(type(estimator), "objective"):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}; wanted an MLPClassifier or MLPRegressor "
            "of fastcurv, or a pipeline that ends in one (for scikit-learn's own: "
            "fastcurv.from_sklearn, then from_objective)"
        )
    if not hasattr(estimator, "theta_"):
        raise ValueError(
            f"estimator, a {type(estimator).__name__}, is not fitted; wanted fit(X, y)"
        )
    return estimator, X


def objective_of(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Any]:
    """What a fitted estimator minimises on these rows, and its theta."""
    estimator, X = last_step(estimator, X)
    return estimator.objective(X, y, sample_weight), estimator.theta_
