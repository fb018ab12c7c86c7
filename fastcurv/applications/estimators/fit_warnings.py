"""Warnings at the end of a fit that has not converged, or whose features are not scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ...common.checks import is_sparse
from ...common.errors import warn_caller
from ...structure.tables import activation_spec

# limits for a feature that counts as scaled
MIN_FEATURE_RANGE = 0.03
MAX_FEATURE_SD = 30.0
MIN_ROWS_FOR_SCALE = 10  # minimum number of rows at which the scale of a feature is estimated


def unscaled_features(X: Any) -> list[int]:
    """Return the indices of columns of X that are too large, too small, or far from 0."""
    if X.shape[0] < MIN_ROWS_FOR_SCALE:
        return []
    if is_sparse(X):  # a sparse column contains 0, so that none is far from 0
        return np.flatnonzero(abs(X).max(axis=0).toarray().ravel() > 4 * MAX_FEATURE_SD).tolist()
    low = X.min(axis=0).astype(float)
    high = X.max(axis=0).astype(float)
    reach = high - low
    nearest = np.maximum(np.maximum(low, -high), 0.0)
    with np.errstate(over="ignore"):
        large = (X.std(axis=0, dtype=float) > MAX_FEATURE_SD) | (nearest > reach)
    return np.flatnonzero((reach > 0) & (large | (reach < MIN_FEATURE_RANGE))).tolist()


SUCCESSFUL_STOP_REASONS = ("callback", "held_out", "patience", "critical")
WARNING_ADVICE = {
    "max_iter": "increase max_iter",
    "max_time": "increase max_time",
    "diverged": "lower learning_rate_init",
    "stalled": "use a float64 X and scaled features",
    "slow": "scale the features or increase alpha",
}


def warn_if_not_converged(est: Any, X: Any, gradient: float) -> None:
    """Warn once of a gradient above its tolerance at the end of a fit, or of unscaled features."""
    kinks = est.alpha_ > 0 and any(activation_spec(n).like_relu for n in est.model_.activation)
    ended = est.stopped_ not in SUCCESSFUL_STOP_REASONS and gradient > est._gradient_tol
    # The fit may have reached a minimum at active kinks, where no gradient is small.
    if est.stopped_ in ("stalled", "slow") and kinks:
        ended = False
    far = unscaled_features(X)
    if not (ended or far):
        return
    parts = []
    if ended:
        limit = {"max_iter": est._max_iter, "max_time": est.max_time}.get(est.stopped_)
        why = f"{est.stopped_}={limit}" if limit is not None else f"stopped_={est.stopped_!r}"
        parts.append(
            f"{type(est).__name__} ended at {why} with a gradient of {gradient:.2g}, above "
            f"tol={est._gradient_tol:g}. To converge, "
            f"{WARNING_ADVICE.get(est.stopped_, 'increase max_iter')}."
        )
    if far:
        names = getattr(est, "feature_names_in_", None)
        shown = ", ".join(str(i if names is None else names[i]) for i in far[:5])
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        parts.append(
            f"Features {shown}{more} are far from zero mean and unit variance. Scale them, as with "
            "sklearn.preprocessing.StandardScaler."
        )
    warn_caller(" ".join(parts), ConvergenceWarning)
