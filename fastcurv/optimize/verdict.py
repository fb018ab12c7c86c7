"""What `minimize` says of the point it ends at: `classify`, and whether that counts as success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CURVATURE_TOL = (
    1e-4  # negative curvature below this share of the spectrum's width is looked for ...
)
RISK = (
    1e-3  # ... and missed with at most this probability, where n is too large for all eigenvalues
)
DENSE_BELOW = 1024  # all eigenvalues up to this n: a second; above, Krylov


@dataclass(frozen=True)
class FinalVerdict:
    """`kind` and `report` of `classify`, `success`, and the `evidence` in words."""

    kind: str
    success: bool
    evidence: str
    report: Any
    escape_direction: np.ndarray | None
    n_products: int


def final_verdict(ob, theta, gtol, seed=0):
    """Classify a point whose gradient norm is at most `gtol`.

    Success is a minimum, or a degenerate point without negative curvature; where n is large,
    "without" means that none below CURVATURE_TOL times the spectrum's width was found, at a risk of
    RISK.
    """
    from ..critical.classify import classify

    report = classify(
        ob, theta, gradient_tol=gtol, curvature_tol=CURVATURE_TOL, failure_probability=RISK,
        dense_below=DENSE_BELOW, seed=seed,
    )  # fmt: skip
    direction = getattr(report, "escape_direction", None)
    negative = direction is not None or bool(getattr(report, "n_negative", None))
    success = report.kind == "minimum" or (report.kind == "degenerate" and not negative)
    evidence = report.reason.rstrip(".")
    if success and report.kind == "degenerate":
        evidence += "; no negative curvature was found"
    return FinalVerdict(
        report.kind,
        success,
        evidence,
        report,
        direction,
        int(getattr(report, "n_products", 0) or 0),
    )
