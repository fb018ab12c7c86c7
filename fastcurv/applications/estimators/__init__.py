"""Estimators with scikit-learn's interface, on the same engine. scikit-learn is an optional
dependency.
"""

from ...common.optional import optional_import

with optional_import("the estimators"):
    import sklearn.utils.validation

if not hasattr(sklearn.utils.validation, "validate_data"):
    raise ImportError(
        f"the estimators need scikit-learn 1.6 or newer, got {sklearn.__version__}. Run: "
        'pip install -U "fastcurv[sklearn]"'
    )

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
