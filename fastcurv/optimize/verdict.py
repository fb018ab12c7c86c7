"""What `minimize` says of the point it ends at: one outcome, one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

#: `OptimizeResult.status` by `OptimizeResult.stopped`
STATUS = {
    "critical": 0,
    "max_iter": 1,
    "max_time": 2,
    "max_products": 3,
    "callback": 4,
    "patience": 5,
    "stalled": 6,
    "diverged": 7,
    "interrupted": 8,
    "degenerate": 9,
    "infinity": 10,
    "unbounded": 11,
    "kinks": 12,
}
ENDINGS = {
    "max_iter": "ended by max_iter",
    "max_time": "ended by max_time",
    "max_products": "ended by max_products",
    "callback": "the callback asked to stop",
    "patience": "the validation loss has not improved for `patience` records",
    "diverged": "the loss is no longer finite",
    "interrupted": "interrupted from the keyboard: this is the best point known",
    "unbounded": "the loss falls without end, as far as seen",
}
NO_REPORT = "; report is None, and classify(ob, x) makes one"
CURVATURE_TOL = 1e-4  # negative curvature below this share of the spectrum is looked for ...
RISK = 1e-3  # ... and missed with at most this probability, where n is too large for all of it


@dataclass(frozen=True)
class Outcome:
    """What is claimed of a point where the gradient is zero, or where the run goes on from.

    Attributes
    ----------
    stopped : str
        One of `STATUS`.
    kind : str or None
        Of the point, as `classify` says it; None where it was not asked.
    success : bool
    sentence : str
    theta : ndarray, shape (n,)
    report : CriticalPoint or None
    go_on : bool
        The loss is lower at theta, or theta is nearer to rest, and the run should go on there.
    """

    stopped: str
    kind: str | None
    success: bool
    sentence: str
    theta: np.ndarray
    report: Any = None
    go_on: bool = False
