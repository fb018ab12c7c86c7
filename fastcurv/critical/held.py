"""The proof that a point on kinks is a minimum: Kantorovich's theorem for (theta, slopes).

`fastcurv.rounding.held` says why a critical point of Phi with as many negative eigenvalues as
slopes, slopes strictly inside, signs that last and every kink bending upward is a strict local
minimum of the loss. Here its hypotheses are checked at a point near such a one, as `theorem` checks
them for a smooth loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..eigensolver import eigh
from ..protocols import HeldByKinks

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class HeldMinimum:
    """A minimum on kinks, or what is missing for one.

    Attributes
    ----------
    certified : bool
    n_kinks : int
        Active ones: pre-activations that are 0 there.
    n_collapsed : int
        Units whose weights are all 0 there.
    radius : float
        Of the ball around (theta, slopes) that holds the true point, its only one there.
    kantorovich : float
        h of the theorem, below 1/2 where it holds.
    weakest : float
        Least eigenvalue in size of the Hessian of Phi.
    missing : str
        The hypothesis that fails, "" where none does.
    """

    certified: bool
    n_kinks: int
    n_collapsed: int
    radius: float
    kantorovich: float
    weakest: float
    missing: str

    @property
    def kind(self) -> str:
        """``minimum`` where it is proved, else ``undecided``."""
        return "minimum" if self.certified else "undecided"

    @property
    def reason(self) -> str:
        """One sentence."""
        kinks = f"{self.n_kinks} kink{'s' * (self.n_kinks != 1)}"
        if not self.certified:
            return f"Held by {kinks}, but no minimum is proved: {self.missing}"
        collapsed = ""
        if self.n_collapsed:
            many = self.n_collapsed > 1
            collapsed = f", with {self.n_collapsed} unit{'s' * many} collapsed to 0"
        return (
            f"Minimum held by {kinks}{collapsed}: a strict local minimum is proved within "
            f"{self.radius:.2g} of theta, where {self.n_kinks} pre-activations are 0 with slopes "
            f"strictly between the sides', every kink bends upward and the curvature along them "
            f"is positive (h = {self.kantorovich:.1e})"
        )


def prove_held(phi: HeldByKinks, point: np.ndarray) -> HeldMinimum:
    """Check every hypothesis at (theta, slopes).

    Parameters
    ----------
    phi : HeldByKinks
    point : ndarray, shape (n + m,)
    """
    m, collapsed = phi.n_slopes, phi.n_collapsed

    def answer(
        missing: str, radius: float = np.inf, h: float = np.inf, weakest: float = 0.0
    ) -> HeldMinimum:
        return HeldMinimum(not missing, m, collapsed, radius, h, weakest, missing)

    K = phi.hessian(point)
    if not np.isfinite(K).all():
        return answer("the curvature is not finite")
    values, vectors, errors = eigh(K)
    error = float(errors.max(initial=0.0)) + phi.hessian_error(point)
    weakest = float(np.abs(values).min(initial=np.inf))
    if not weakest > error:
        return answer("the curvature along the kinks may be 0", weakest=weakest)
    if int((values < 0).sum()) != m:
        return answer("the curvature along the kinks is not positive", weakest=weakest)
    beta = (1 + 4 * EPS) / (weakest - error)
    g, g_error = phi.precise_gradient(point)
    x = vectors @ ((vectors.T @ g) / values)
    size = float(np.linalg.norm(x))
    rounding = 4 * len(K) * EPS * (float(np.abs(values).max()) * size + float(np.linalg.norm(g)))
    left = float(np.linalg.norm(K @ x - g)) + rounding + phi.hessian_error(point) * size
    eta = (size + beta * (left + g_error)) * (1 + 1e-9)
    L = phi.third_bound(point, 2 * eta)
    h = beta * L * eta * (1 + 1e-9)
    if not h < 0.5:
        return answer(f"Newton's step is too long, h = {h:.2g}", h=h, weakest=weakest)
    radius = 2 * eta / (1 + (1 - 2 * h) ** 0.5) * (1 + 1e-9)
    margins = phi.margins(point, radius)
    for hypothesis, missing in (
        (margins.signs, "another pre-activation may change its sign"),
        (margins.slopes, "a slope may leave its interval"),
        (margins.upward, "a kink may bend downward"),
        (margins.collapsed, "a collapsed unit may open"),
    ):
        if not hypothesis > 0:
            return answer(missing, radius, h, weakest)
    return answer("", radius, h, weakest)
