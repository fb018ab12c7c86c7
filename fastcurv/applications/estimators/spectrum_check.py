"""The curvature at the end of a fit: a cheap estimate of both ends of the spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ...common.objectives import budgeted_hessian
from ...krylov.lanczos import Recurrence, combine_basis_rows

MAX_CHECK_PRODUCTS = 40  # maximum number of Hessian products of the check of the spectrum
MIN_CHECK_PRODUCTS = 4  # minimum number of Hessian products of the check of the spectrum
MAX_RESOLVED_RESIDUAL = 1e-2  # maximum residual of a resolved end of the spectrum, over ||H||
START_VECTOR_SEED = 7  # fixed seed of the start vector, so that equal fits give equal results


@dataclass(frozen=True, repr=False)
class SpectrumCheck:
    """Estimates of both ends of the Hessian's spectrum at the end of a fit.

    Attributes
    ----------
    kind : str
        ``not_critical`` if the gradient is above the fit's tolerance; otherwise ``saddle`` if the
        lowest Ritz value is negative by more than its error bound, else ``undecided``, since so few
        products cannot prove a minimum.
    gradient_norm : float
        Largest entry of the gradient, on the scale of ``loss_``.
    lambda_min, lambda_max : float
        Lowest and highest Ritz value.
    residuals : tuple of float
        Bounds on the distance of each Ritz value from an eigenvalue, for exact products. The
        rounding of products in the dtype of the fit is included only if `kind` is ``saddle``.
    n_products : int
        Number of Hessian products: at most a sixth of the fit's gradients, but from 4 to 40.
    """

    kind: str
    gradient_norm: float
    lambda_min: float
    lambda_max: float
    residuals: tuple[float, float]
    n_products: int

    def __repr__(self) -> str:
        return f"SpectrumCheck(kind={self.kind!r}, n_products={self.n_products}): {self.reason}"

    @property
    def has_negative_curvature(self) -> bool:
        """True if the lowest Ritz value is negative by more than its error bound."""
        return self.lambda_min + self.residuals[0] < 0

    @property
    def is_resolved(self) -> bool:
        """True if the error bounds are at most 1% of the largest absolute Ritz value."""
        size = max(abs(self.lambda_min), abs(self.lambda_max))
        return max(self.residuals) <= MAX_RESOLVED_RESIDUAL * size

    @property
    def reason(self) -> str:
        """A sentence on the gradient and the curvature that were found."""
        ends = (
            f"curvature from {self.lambda_min:.3g} (+- {self.residuals[0]:.1g}) to "
            f"{self.lambda_max:.3g} by {self.n_products} products"
        )
        if not self.is_resolved:
            ends += (
                ", too few to bound the lowest eigenvalue; verdict=True spends as many as it takes"
            )
        if self.kind == "not_critical":
            return f"The gradient, up to {self.gradient_norm:.3g}, is above tol; {ends}."
        if self.kind == "saddle":
            return f"The gradient is within tol, and a descent direction was found: {ends}."
        return f"The gradient is within tol, and no descent direction was found: {ends}."


def check_spectrum(
    ob: Any, theta: np.ndarray, scale: float, tol: float, products: int = MAX_CHECK_PRODUCTS
) -> tuple[SpectrumCheck, np.ndarray]:
    """Estimate both ends of the spectrum of an objective's Hessian by at most `products` products.

    Return the estimate and the lowest Ritz vector. `scale` converts values of the objective to
    those of ``loss_``, to which `tol`, the tolerance on the gradient, refers.
    """
    size = scale * float(np.abs(ob.gradient(theta)).max())
    most = min(max(products, MIN_CHECK_PRODUCTS), MAX_CHECK_PRODUCTS, len(theta))
    values, residuals, vector, spent = extreme_ritz_values(ob, theta, most)
    low = scale * float(values[0])
    high = scale * float(values[-1])
    under = float(np.finfo(theta.dtype).tiny)  # bound on the underflow in products
    errors = scale * (float(residuals[0]) + under), scale * (float(residuals[-1]) + under)
    near = size <= tol
    if near and low + errors[0] < 0:  # negative curvature must exceed its rounding error
        H = budgeted_hessian(ob, theta, best=False)
        H.norm = float(np.abs(values).max())  # norm for the rounding error of a product
        errors = errors[0] + scale * H.product_error_bound(vector), errors[1]
    kind = "not_critical" if not near else "saddle" if low + errors[0] < 0 else "undecided"
    return SpectrumCheck(kind, size, low, high, errors, spent), vector


def extreme_ritz_values(ob: Any, theta: np.ndarray, most: int) -> tuple[Any, Any, np.ndarray, int]:
    """Run Lanczos from a random vector for the lowest and the highest Ritz value of the Hessian.

    Return both values, bounds on their errors, the lowest Ritz vector, and the number of products,
    which is at most `most`, and smaller if both ends are resolved.
    """
    n = len(theta)
    # `hessp` reuses the state at the end of the fit; a new operator would cost more than products.
    H = LinearOperator((n, n), matvec=lambda v: ob.hessp(theta, v), dtype=theta.dtype)
    run = Recurrence(H, most)
    run.insert_random(np.random.default_rng(START_VECTOR_SEED))
    while True:
        run.step()
        ended = not run.p or run.m >= most
        if ended or run.m % MIN_CHECK_PRODUCTS == 0:
            values, S, residuals, limits = run.ritz_pairs(2, "BE")
            if ended or residuals.max() <= MAX_RESOLVED_RESIDUAL * np.abs(values).max():
                break
    run.reorthogonalise()
    vector = combine_basis_rows(run.rows[: run.m], S[:, :1])[0]
    return values, limits, vector, run.n_products
