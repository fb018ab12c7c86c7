"""Results of fitted estimators, for the golden file of `tests/applications/estimators`."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc

FITS: dict[str, dict[str, Any]] = {
    "plain": {"max_iter": 12},
    "alpha": {"alpha": 0.3, "max_iter": 400},
    "weak alpha": {"alpha": 1e-5, "max_iter": 25},
    "tanh": {"activation": "tanh", "hidden_layer_sizes": (3, 3), "max_iter": 9},
    "adam": {"solver": "adam", "max_iter": 4, "batch_size": 7},
    "early": {"early_stopping": True, "max_iter": 15, "n_iter_no_change": 2},
    "trust region": {"solver": "trust-region", "max_iter": 5},
    "single": {"max_iter": 6, "activation": "logistic"},
}


def data_set(kind: str) -> tuple[Any, Any]:
    """Return (X, y): 60 samples, and real targets or classes with a small part that no model
    explains.
    """
    X = np.round(2 * np.sin(np.arange(1, 181).reshape(60, 3) ** 1.4), 3)
    z = X[:, 0] - X[:, 1] * X[:, 2] / 2 + np.round(np.cos(np.arange(60) ** 1.3), 3)
    if kind == "regressor":
        return X, z
    return X, (z > 0).astype(int) if kind == "binary" else np.digitize(z, [-1, 1])


def fit_summary(kind: str, **words: Any) -> list[Any]:
    """Return numbers of a fit, a fit with sample weights and a warm start: iterations, losses,
    scores, and sums of predictions and parameters.
    """
    X, y = data_set(kind)
    maker = fc.MLPRegressor if kind == "regressor" else fc.MLPClassifier
    words = {"hidden_layer_sizes": (5,), "random_state": 3, **words}
    one = maker(**words).fit(X, y)
    weighted = maker(**words).fit(X, y, sample_weight=1.0 + np.arange(60) % 3)
    again = maker(**{**words, "warm_start": True, "max_iter": 2}).fit(X, y).fit(X, y)
    found = list[Any]()
    for fit in (one, weighted, again):
        out = fit.predict(X) if kind == "regressor" else fit.predict_proba(X)[:, 0]
        found += [fit.n_iter_, fit.loss_, fit.score(X, y), float(out @ np.cos(np.arange(60)))]
        found.append(float(np.abs(fit.theta_).sum()))
    return found


SECTIONS = ("regressor", "binary", "classes")


def golden(section: str) -> dict[str, list[Any]]:
    return {name: fit_summary(section, **words) for name, words in FITS.items()}
