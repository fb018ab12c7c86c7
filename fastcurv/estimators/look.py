"""The curvature at the end of a fit: a look at both ends of the spectrum that costs little, or the
whole verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..critical.classify import classify
from ..interrupts import unbroken
from ..spectrum.eigsh import eigsh

PRODUCTS = 40  # of a look
START = 7  # the seed of its start vector: a fit of the same data says the same


@dataclass(frozen=True)
class Look:
    """Both ends of the Hessian's spectrum where a fit ended.

    Attributes
    ----------
    kind : str
        ``not_critical`` where the gradient is above the fit's tolerance; ``saddle`` where it is
        within and the lowest Ritz value is negative by more than its residual; else ``undecided``:
        so few products prove no minimum.
    gradient_norm : float
        Largest entry of the gradient, on the scale of ``loss_``.
    lambda_min, lambda_max : float
        Ritz values; `residuals` says how near an eigenvalue is to each.
    residuals : tuple of float
    n_products : int
    """

    kind: str
    gradient_norm: float
    lambda_min: float
    lambda_max: float
    residuals: tuple[float, float]
    n_products: int

    @property
    def negative(self) -> bool:
        """Whether curvature below zero was found, beyond its residual."""
        return self.lambda_min + self.residuals[0] < 0

    @property
    def reason(self) -> str:
        """The same in one sentence."""
        ends = (
            f"curvature from {self.lambda_min:.3g} (+- {self.residuals[0]:.1g}) to "
            f"{self.lambda_max:.3g} by {self.n_products} products"
        )
        if self.kind == "not_critical":
            return f"The gradient, up to {self.gradient_norm:.3g}, is above tol; {ends}."
        if self.kind == "saddle":
            return f"The gradient is within tol, and there is a way down: {ends}."
        return f"The gradient is within tol, and no way down was found: {ends}."


def look(ob: Any, theta: np.ndarray, scale: float, tol: float) -> tuple[Look, np.ndarray | None]:
    """Both ends of the spectrum of an objective's Hessian, and the lowest Ritz vector; `scale`
    takes values to those of ``loss_``.
    """
    H = ob.hessian(theta)
    n = H.shape[0]
    size = scale * float(np.abs(H.gradient).max())
    if n < 3:
        values = scale * np.linalg.eigvalsh(H.to_dense().astype(float))
        low, high, errors, vector = float(values[0]), float(values[-1]), (0.0, 0.0), None
    else:
        found = unbroken(
            eigsh(H, 2, which="BE", tol=1e-2, max_products=min(PRODUCTS, n), seed=START)
        )
        low, high = scale * float(found.values[0]), scale * float(found.values[-1])
        errors = scale * float(found.residuals[0]), scale * float(found.residuals[-1])
        vector = np.ascontiguousarray(found.vectors[:, 0])
    near = size <= tol
    kind = "not_critical" if not near else "saddle" if low + errors[0] < 0 else "undecided"
    return Look(kind, size, low, high, errors, H.n_products), vector


def judge(ob: Any, theta: np.ndarray, scale: float, tol: float, verdict: Any) -> Any:
    """What `curvature_` holds: a `Look`, a `CriticalPoint`, or None."""
    if verdict is False:
        return None
    return classify(ob, theta) if verdict is True else look(ob, theta, scale, tol)[0]
