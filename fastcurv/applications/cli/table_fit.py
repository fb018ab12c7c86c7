"""The fit to a table: an estimator, or a linear model that predicts rows left out better."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.runtime import serial_blas_context
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS
from .coding import CLASS_LOSSES, TableData
from .measure import FitMeasurements, fit_of, loss_difference, measure_fit, suppress_warnings

DEFAULT_HIDDEN = (10,)  # default widths of the hidden layers
# maximum number of parameters, and of flops of a Gauss-Newton matrix, for which the decay is the
# one with the largest evidence
MAX_EVIDENCE_PARAMS, MAX_EVIDENCE_FLOPS = 1000, 3e9


def choose_fit(data: TableData, args: Namespace, note: Callable[[str], None]) -> FitMeasurements:
    """Return the measurements of the fit that predicts rows left out best: a tanh network, or a
    linear model unless ``args.keep_network`` is True. `note` is called with a few words before each
    step.
    """
    hidden = DEFAULT_HIDDEN if args.hidden is None else args.hidden
    note("training")
    with serial_blas_context():
        est, alpha = fit_estimator(data, args, hidden, args.alpha)
        found = measure_fit(fit_of(est, data.X, data.y, data.groups), note)
        linear = found.linear
        if linear is None or args.keep_network or loss_difference(found)[0] >= 0:
            found.decay_note = f"The weight decay, alpha = {found.fit.alpha:.3g}, {alpha}."
            return found
        est, _ = fit_estimator(data, args, (), linear.alpha)
        chosen = measure_fit(fit_of(est, data.X, data.y, data.groups), note)
    chosen.rival = found
    chosen.decay_note = (
        f"The weight decay of the linear model, alpha = {linear.alpha:.3g}, predicts rows left out "
        "best."
    )
    return chosen


def fit_estimator(
    data: TableData, args: Namespace, hidden: tuple[int, ...], alpha: Any
) -> tuple[Any, str]:
    """Return a fitted estimator, and how its weight decay was chosen. Without `alpha` it is the one
    with the largest evidence, or the default of the estimator if the network or the table is large
    or the loss has no evidence.
    """
    from ..estimators.classifier import MLPClassifier
    from ..estimators.regressor import MLPRegressor

    numbers = data.y.dtype.kind == "f"
    options: dict[str, Any] = {
        "random_state": args.seed,
        "n_threads": args.threads,
        "verdict": False,
    }
    if numbers and args.loss not in (None, *CLASS_LOSSES, DEFAULT_LOSS_BY_TARGETS["numbers"]):
        options["loss"] = args.loss
    kind: Any = MLPRegressor if numbers else MLPClassifier
    n_outputs = 1 if numbers or len(np.unique(data.y)) == 2 else len(np.unique(data.y))
    sizes = [data.X.shape[1], *hidden, n_outputs]
    n_params = sum((k + 1) * m for k, m in zip(sizes, sizes[1:]))
    small = n_params <= MAX_EVIDENCE_PARAMS
    small &= n_params**2 * len(data.y) * n_outputs <= MAX_EVIDENCE_FLOPS
    choices = [alpha] if alpha is not None else ["evidence"] * small + ["auto"]
    words = {"evidence": "has the largest evidence", "auto": "predicts held-out rows best"}
    with suppress_warnings():
        for one in choices:
            est = kind(hidden, "tanh", alpha=one, **options)
            try:
                est.fit(data.X, data.y)
                if one == "evidence":
                    # The path of decays may end in a worse minimum than a fit from a new start.
                    again = kind(hidden, "tanh", alpha=est.alpha_, **options).fit(data.X, data.y)
                    est = again if again.loss_ < est.loss_ else est
                return est, words.get(str(one), "was given")
            except ValueError:
                if one == choices[-1]:
                    raise
    raise AssertionError
