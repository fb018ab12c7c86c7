"""Estimators with scikit-learn's interface, on the same engine. scikit-learn is an optional
dependency.
"""

try:
    from sklearn.utils.validation import validate_data as _validate_data  # noqa: F401  1.6 or newer
except ImportError as error:
    raise ImportError(
        f"the estimators need scikit-learn 1.6 or newer: pip install 'fastcurv[sklearn]' ({error})"
    ) from None

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
