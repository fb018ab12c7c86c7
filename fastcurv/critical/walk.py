"""Where the search for a critical point stands, what it has spent, and what it may spend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from ..checks import times
from ..krylov.trust_region import KrylovSpace
from ..outcome import outcome
from ..spectrum.dense import PRODUCT_EPS, Assembling
from ..vectors import extent, safe_norm
from .dense import nearness_at
from .evidence import (
    GRADIENT_ROUNDING,
    RELATIVE_GRADIENT,
    Products,
    gradient_bound,
    hessian_products,
)
from .knowledge import as_curvature, as_gradient, left_alone, value_at
from .newton_mr import DENSE_BELOW, Steps, dense_steps, grow, krylov_steps

KRYLOV_STEPS = 120  # above DENSE_BELOW, the Krylov space of the gradient has at most this dimension
EXCURSIONS = 5


class Walk:
    """Where the search stands, what it has spent, and what it may spend."""

    def __init__(
        self,
        ob: Any,
        theta: np.ndarray,
        fixed_tol: float | None,
        max_iter: int,
        max_products: float,
        callback: Callable[[np.ndarray], object] | None,
    ) -> None:
        self.ob, self.theta, self.callback = ob, theta, callback
        self.fixed_tol, self.max_iter, self.max_products = fixed_tol, max_iter, max_products
        self.nit = self.nfev = self.n_products = 0
        self.excursions, self.asked = EXCURSIONS, np.inf
        self.tol, self.status, self.message = 0.0, 1, ""
        self.shown: Any = None
        self.g = self.gradient(theta)
        if not np.isfinite(self.g).all():
            raise ValueError(
                "the gradient at theta0 holds NaN or infinity; wanted a theta0 where the loss is "
                "finite"
            )
        self.history = [self.norm]

    @property
    def norm(self) -> float:
        return safe_norm(self.g)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """The gradient; NaN where theta, in the objective's precision, has left the finite
        numbers.
        """
        self.nfev += 1
        if not np.isfinite(theta.astype(getattr(self.ob, "dtype", float))).all():
            return np.full(theta.size, np.nan)
        with left_alone(self.ob, theta):
            return as_gradient(self.ob.gradient(theta), theta.size)

    def hessian(self, theta: np.ndarray) -> Products | None:
        """The Hessian in the objective's own precision; None where it refuses the point as not
        finite, which far out it may.
        """
        with left_alone(self.ob, theta):
            try:
                H = self.ob.hessian(theta)
            except (ValueError, OverflowError, FloatingPointError):
                return None
        as_curvature(H, theta.size)
        try:
            return Products(H)
        except (ValueError, OverflowError, FloatingPointError):  # as its matrix is not finite
            return None

    def steps(self, H: Products, g: np.ndarray) -> Steps:
        """Newton-MR's steps at a point; counts their products."""
        size, left = safe_norm(g), self.max_products - self.n_products - 1  # one for `uphill`
        if H.n < DENSE_BELOW and H.n <= left:
            found = dense_steps(H(np.eye(H.n, dtype=H.dtype)), g)
        elif size == 0 or left < 1:
            found = Steps(norm=0.0)
        else:
            limit = int(min(KRYLOV_STEPS, H.n, left))
            space = KrylovSpace(H.n, H.native_dtype, limit + 2)

            def product(v: np.ndarray, out: np.ndarray) -> None:
                out[:] = times(H.native, v)
                H.count += 1

            space.start(product, g.astype(H.native_dtype))
            grow(space, min(1e-2, size / self.history[0]), limit, lambda: False)
            found = krylov_steps(space)
        self.n_products += H.count
        H.count = 0
        return found

    def set_tol(self, H: Products, norm: float) -> None:
        """The tolerance that holds here. A bound that is not finite is no tolerance: then what is
        known of the others decides, and where none is, only a gradient of 0 will do.
        """
        if self.fixed_tol is not None:
            self.tol = self.fixed_tol
            return
        bound = gradient_bound(self.ob, self.theta, H)
        if bound is None or not np.isfinite(bound):
            bound = PRODUCT_EPS * H.eps * norm * extent(self.theta)
        eps = np.finfo(getattr(self.ob, "dtype", np.float64)).eps
        stored = eps * norm * safe_norm(self.theta)
        known = [float(size) for size in (bound, stored) if np.isfinite(size)]
        self.tol = GRADIENT_ROUNDING * max(known, default=0.0)

    def vague(self, norm: float) -> bool:
        """Whether the tolerance is so loose (float32) that a critical point may still be far; takes
        one excursion.
        """
        far = (
            self.fixed_tol is None
            and self.excursions > 0
            and self.norm > 0.1 * RELATIVE_GRADIENT * norm * extent(self.theta)
        )
        self.excursions -= far
        return bool(far)

    def near(self, share: float = 0.5) -> bool:
        """Whether `classify` would call this near a critical point; by the gradient alone where
        the caller said how small, and where n is too large for all eigenvalues, or the budget too
        small. May cost n products, so after a no it is asked again only once ``||g||`` is below
        `share` of what it was then.
        """
        if self.fixed_tol is not None or self.norm == 0 or self.theta.size > DENSE_BELOW:
            return True
        if not self.norm < share * self.asked:
            return False
        H = hessian_products(self.ob, self.theta)
        if not (isinstance(H.op, Assembling) or self.n_products + H.n <= self.max_products):
            return True
        self.asked = self.norm
        found = nearness_at(self.ob, self.theta, H).near
        self.n_products += H.count
        return found

    def budget_left(self) -> bool:
        return self.nit < self.max_iter and self.n_products < self.max_products

    def move(self, theta: np.ndarray, g: np.ndarray) -> None:
        self.theta, self.g = theta, g
        self.nit += 1
        self.history.append(self.norm)
        self.shown.update(1)
        if self.callback is not None:
            self.callback(theta.copy())

    def stop(self, status: int, message: str) -> None:
        self.status, self.message = status, message

    def result(self) -> OptimizeResult:
        return outcome(
            x=self.theta,
            fun=value_at(self.ob, self.theta),
            jac=self.g,
            gradient_norm=self.norm,
            gradient_tol=self.tol,
            success=self.status == 0,
            status=self.status,
            message=self.message,
            nit=self.nit,
            nfev=self.nfev,
            n_products=self.n_products,
            history=np.array(self.history),
        )
