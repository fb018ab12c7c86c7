"""What was asked of `classify`, checked once."""

import numpy as np

from ..checks import check_positive, check_positive_int
from .evidence import (
    GRADIENT_ROUNDING,
    PRODUCT_EPS,
    RELATIVE_GRADIENT,
    gradient_at,
    gradient_bound,
    parameter_length,
    relative_gradient,
)


class _Question:
    """The arguments of `classify`, checked, and what the objective says of itself."""

    def __init__(
        self,
        ob,
        theta,
        gradient_tol,
        curvature_tol,
        failure_probability,
        max_products,
        seed,
        krylov,
    ):
        self.ob, self.theta, self.seed = ob, theta, seed
        self.gradient_tol = (
            None
            if gradient_tol is None
            else check_positive(gradient_tol, "gradient_tol", zero=True)
        )
        self.curvature_tol = check_positive(curvature_tol, "curvature_tol")
        self.max_products = (
            None if max_products is None else check_positive_int(max_products, "max_products")
        )
        self.failure_probability = None
        if failure_probability is not None:
            self.failure_probability = check_positive(failure_probability, "failure_probability")
            if self.failure_probability >= 1:
                raise ValueError(
                    f"failure_probability is {failure_probability}; wanted a number between 0 and 1"
                )
        self.krylov = None if krylov is None else check_run(krylov, theta)
        self.n_kinks = int(ob.kinks(theta)) if hasattr(ob, "kinks") else 0

    def gradient(self, H):
        """The gradient and its bound, both kept."""
        self.g = gradient_at(self.ob, self.theta, H)
        if not np.isfinite(self.g).all():
            raise ValueError(
                "the gradient at theta holds NaN or infinity; wanted a theta where the loss is "
                "finite"
            )
        self.g_norm = float(np.linalg.norm(self.g))
        self.g_bound = gradient_bound(self.ob, self.theta, H)
        self.eps = H.eps
        return self.g

    def across_kinks(self, kind, direction):
        """At a kink H tells of one side: no sign of all eigenvalues holds, and a saddle only where
        the loss does fall.
        """
        if not self.n_kinks or kind not in ("minimum", "maximum", "saddle"):
            return kind
        if kind != "saddle" or direction is None:
            return "undecided"
        here, length = (
            self.ob.value(self.theta),
            parameter_length(self.theta, np.ones(self.theta.size)),
        )
        falls = (
            self.ob.value(self.theta + way * length * direction) < here - 1e-14 * abs(here)
            for size in (1e-2, 1e-3, 1e-4, 1e-5)
            for way in (size, -size)
        )
        return "saddle" if any(falls) else "undecided"

    def uncertainty(self, norm):
        """A bound on the rounding of the gradient, and ``||H|| / ||theta||``."""
        length = parameter_length(self.theta, np.ones(self.theta.size))
        rounding = PRODUCT_EPS * self.eps * norm * length if self.g_bound is None else self.g_bound
        return rounding, norm / length

    def hold(self, d, live, norm):
        """Hold the gradient against its tolerance; `d`, `live`, `norm` describe the balanced
        Hessian.
        """
        self.relative = relative_gradient(self.g, self.theta, d, live, norm)
        if self.g_bound is not None:
            self.at_rounding = self.g_norm <= GRADIENT_ROUNDING * self.g_bound
        else:
            self.at_rounding = self.relative <= GRADIENT_ROUNDING * PRODUCT_EPS * self.eps
        if self.gradient_tol is not None:
            self.tol = self.gradient_tol
        elif self.g_norm == 0:
            self.tol = RELATIVE_GRADIENT * norm * parameter_length(self.theta, d, live) / d.max()
        else:
            self.tol = (
                self.g_norm * RELATIVE_GRADIENT / self.relative if self.relative > 0 else np.inf
            )
        if self.gradient_tol is None and self.g_bound is not None:
            self.tol = max(self.tol, GRADIENT_ROUNDING * self.g_bound)
        elif self.gradient_tol is None and self.at_rounding:
            self.tol = max(self.tol, self.g_norm)
        self.critical = self.g_norm <= self.tol
        return self.critical


def check_run(run, theta):
    """`run` as a `Krylov` on the Hessian at theta."""
    from ..spectrum.shared_run import Krylov

    if not isinstance(run, Krylov):
        raise TypeError(
            f"krylov is a {type(run).__name__}; wanted a fastcurv.Krylov on the Hessian at theta"
        )
    if run.n != theta.size:
        raise ValueError(
            f"krylov runs on an operator with n = {run.n}; wanted the Hessian at theta, n = "
            f"{theta.size}"
        )
    there = getattr(run.op, "theta", None)
    if there is not None and not np.array_equal(np.asarray(there, dtype=float), theta):
        raise ValueError(
            "krylov runs on the Hessian at another theta; wanted one made from ob.hessian(theta)"
        )
    return run
