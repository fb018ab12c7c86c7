"""The curvature at the end of a fit: a look at both ends of the spectrum that costs little, or the
whole verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..common.errors import Answering
from ..common.linalg import eigvalsh
from ..critical.classify import classify
from ..krylov.lanczos import Recurrence, combine
from ..krylov.ritz import bounds, ritz_pairs

PRODUCTS = 40  # of a look at most,
FEWEST = 4  # and at least
CLOSE = 1e-2  # of the largest curvature: a residual below it resolves an end
ROUNDED = 16 * float(np.finfo(float).eps)  # of the largest: what eigenvalues of a 2 x 2 are off by
START = 7  # the seed of its start vector: a fit of the same data says the same


@dataclass(frozen=True, repr=False)
class Look(Answering, subject="look"):
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
        Ritz values; `residuals` says how near an eigenvalue is to each, as products in the dtype of
        the fit go: only where there is a saddle is their own rounding counted.
    residuals : tuple of float
    n_products : int
        What the look cost: at most a sixth of the gradients that the fit took, 4 at least and 40
        at most.
    """

    kind: str
    gradient_norm: float
    lambda_min: float
    lambda_max: float
    residuals: tuple[float, float]
    n_products: int

    def __repr__(self) -> str:
        return f"Look(kind={self.kind!r}, n_products={self.n_products}): {self.reason}"

    @property
    def negative(self) -> bool:
        """Whether curvature below zero was found, beyond its residual."""
        return self.lambda_min + self.residuals[0] < 0

    @property
    def resolved(self) -> bool:
        """Whether both ends were found to a hundredth of the larger one."""
        size = max(abs(self.lambda_min), abs(self.lambda_max))
        return max(self.residuals) <= CLOSE * size

    @property
    def reason(self) -> str:
        """The same in one sentence."""
        ends = (
            f"curvature from {self.lambda_min:.3g} (+- {self.residuals[0]:.1g}) to "
            f"{self.lambda_max:.3g} by {self.n_products} products"
        )
        if not self.resolved:
            ends += ", too few to say how much lower it goes (verdict=True asks on)"
        if self.kind == "not_critical":
            return f"The gradient, up to {self.gradient_norm:.3g}, is above tol; {ends}."
        if self.kind == "saddle":
            return f"The gradient is within tol, and there is a way down: {ends}."
        return f"The gradient is within tol, and no way down was found: {ends}."


def look(
    ob: Any, theta: np.ndarray, scale: float, tol: float, products: int = PRODUCTS
) -> tuple[Look, np.ndarray | None]:
    """Both ends of the spectrum of an objective's Hessian as far as so many products see them, and
    the lowest Ritz vector; `scale` takes values to those of ``loss_``.
    """
    n = len(theta)
    size = scale * float(np.abs(ob.gradient(theta)).max())
    if n < 3:
        H = ob.hessian(theta)
        values = scale * eigvalsh(H.to_dense().astype(float))
        low, high, vector, spent = float(values[0]), float(values[-1]), None, n
        off = scale * float(np.linalg.norm(H.column_bounds())) + ROUNDED * float(
            np.abs(values).max()
        )
        errors = off, off
    else:
        most = min(max(products, FEWEST), PRODUCTS, n)
        values, residuals, vector, spent = ends(ob, theta, most)
        low, high = scale * float(values[0]), scale * float(values[-1])
        under = float(np.finfo(theta.dtype).tiny)  # what products of numbers as small lose
        errors = scale * (float(residuals[0]) + under), scale * (float(residuals[-1]) + under)
    near = size <= tol
    if near and vector is not None and low + errors[0] < 0:  # what is said counts rounding too
        off = scale * float(ob.hessian(theta).rounding_bound(vector))
        errors = errors[0] + off, errors[1]
    kind = "not_critical" if not near else "saddle" if low + errors[0] < 0 else "undecided"
    return Look(kind, size, low, high, errors, spent), vector


def ends(ob: Any, theta: np.ndarray, most: int) -> tuple[Any, Any, np.ndarray, int]:
    """The lowest and the highest Ritz value of Lanczos from a random vector, their residuals, the
    lowest vector, and the products spent: at most so many, fewer where both ends are resolved.
    """
    n = len(theta)
    # the state that the fit ended with: an operator's own would take longer than its products
    H = LinearOperator((n, n), matvec=lambda v: ob.hessp(theta, v), dtype=theta.dtype)
    run = Recurrence(H, most)
    run.insert_random(np.random.default_rng(START))
    while True:
        run.step()
        ended = not run.p or run.m >= most
        if ended or run.m % FEWEST == 0:
            values, S, residuals = ritz_pairs(run, 2, "BE")
            if ended or residuals.max() <= CLOSE * np.abs(values).max():
                break
    run.reorthogonalise()
    vector = combine(run.rows[: run.m], S[:, :1])[0]
    return values, bounds(run, S, residuals), vector, run.n_products


def judge(ob: Any, theta: np.ndarray, scale: float, tol: float, verdict: Any, products: int) -> Any:
    """What `curvature_` holds: a `Look`, a `CriticalPoint`, or None."""
    if verdict == "quick":
        return look(ob, theta, scale, tol, products)[0]
    return classify(ob, theta, progress=False)._of_fit() if verdict else None
