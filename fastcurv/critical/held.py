"""The proof that a point on kinks is a minimum: Kantorovich's theorem for (theta, slopes).

`fastcurv.certify.kinks` says why a critical point of Phi with as many negative eigenvalues as
slopes, slopes strictly inside, signs that last and every kink bending upward is a strict local
minimum of the loss. Here its hypotheses are checked at a point near such a one, as `theorem` checks
them for a smooth loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..eigensolver import eigh
from ..protocols import HeldByKinks
from ..vectors import safe_norm
from .theorem import eta_of

EPS = float(np.finfo(np.float64).eps)
SHARES = (1e-1, 1e-2, 1e-3, 1.0)  # of the largest curvature: how long columns of slopes are made
EASY = 1e-3  # h below which no other units are tried


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
    n_copies : int
        Units that are copies of others: the minimum is one of a family of the same loss.
    radius : float
        Of the ball around theta that holds the true point, with the slopes its only one there.
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
    n_copies: int
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
        kinks = _count(self.n_kinks, "kink")
        if not self.certified:
            return f"Held by {kinks}, but no minimum is proved: {self.missing}"
        more = []
        if self.n_collapsed:
            more.append(f"{_count(self.n_collapsed, 'unit')} collapsed to 0")
        if self.n_copies:
            more.append(f"{_count(self.n_copies, 'unit')} a copy of another")
        which = ", with ".join(
            [f"held by {kinks}"] * bool(self.n_kinks) + [" and ".join(more)] * bool(more)
        )
        which = f" {'' if self.n_kinks else 'with '}{which}" if which else ""
        strict = "of a family with the same loss" if self.n_copies else "and a strict one"
        where = (
            f", where {_count(self.n_kinks, 'pre-activation')} "
            f"{'is' if self.n_kinks == 1 else 'are'} 0 with slopes strictly between the sides', "
            "every kink bends upward and the curvature along them is positive"
        )
        grown = "; the loss rises as a collapsed unit's weights grow" if self.n_collapsed else ""
        return (
            f"Minimum{which}: a local minimum, {strict}, is proved within {self.radius:.2g} of "
            f"theta{where if self.n_kinks else ''}{grown} (h = {self.kantorovich:.1e})"
        )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def prove_held(phi: HeldByKinks, point: np.ndarray) -> HeldMinimum:
    """Check every hypothesis at (theta, slopes), in units of the slopes in which the theorem holds
    best.

    Parameters
    ----------
    phi : HeldByKinks
    point : ndarray, shape (n + m,)
    """
    K = phi.hessian(point)
    g, g_errors = phi.precise_gradient(point)
    if not (np.isfinite(K).all() and np.isfinite(g_errors).all()):
        return _answer(phi, "the curvature is not finite")
    best = None
    for units in _units(K, phi.n_theta):
        found = _prove_in(phi.in_units(units), point, K, g, g_errors, units)
        if best is None or (found.certified, -found.kantorovich) > (
            best.certified, -best.kantorovich
        ):  # fmt: skip
            best = found
        if best.kantorovich < EASY:
            break
    assert best is not None
    return best


def _units(K: np.ndarray, n: int) -> list[np.ndarray]:
    """Units of the slopes: such that each has its column of K as long as curvature is large, or a
    share of that.
    """
    m = len(K) - n
    if not m:
        return [np.ones(0)]
    sizes = np.linalg.norm(K[:n, n:], axis=0)
    if not (sizes > 0).all():
        return [np.ones(m)]
    top = float(np.linalg.norm(K[:n, :n], 2))
    return [share * top / sizes for share in SHARES] + [np.ones(m)]


def _answer(
    phi: HeldByKinks,
    missing: str,
    radius: float = np.inf,
    h: float = np.inf,
    weakest: float = 0.0,
) -> HeldMinimum:
    counts = phi.n_kinks, phi.n_collapsed, phi.n_copies
    return HeldMinimum(not missing, *counts, radius, h, weakest, missing)


def _prove_in(
    phi: HeldByKinks,
    point: np.ndarray,
    K: np.ndarray,
    g: np.ndarray,
    g_errors: np.ndarray,
    units: np.ndarray,
) -> HeldMinimum:
    """Every hypothesis in these units of the slopes."""
    c = np.concatenate([np.ones(phi.n_theta), units])
    K, g, g_error = c[:, None] * K * c, c * g, safe_norm(c * g_errors)
    values, vectors, errors = eigh(K)
    size = safe_norm(K)
    off = phi.hessian_error(point) + 2 * EPS * size  # the units round, too
    error = float(errors.max(initial=0.0)) + off
    weakest = float(np.abs(values).min(initial=np.inf))
    if not weakest > error:
        return _answer(phi, "the curvature along the kinks may be 0", weakest=weakest)
    if int((values < 0).sum()) != phi.n_slopes:
        return _answer(phi, "the curvature along the kinks is not positive", weakest=weakest)
    beta = (1 + 4 * EPS) / (weakest - error)
    x = vectors @ ((vectors.T @ g) / values)
    length = safe_norm(x)
    rounding = 4 * len(K) * EPS * (size * length + safe_norm(g))
    left = safe_norm(K @ x - g) + rounding + off * length
    eta = eta_of(length, beta, left + g_error) * (1 + 1e-9)
    L = phi.third_bound(point, 2 * eta)
    h = beta * L * eta * (1 + 1e-9)
    if not h < 0.5:
        return _answer(phi, f"Newton's step is too long, h = {h:.2g}", h=h, weakest=weakest)
    radius = 2 * eta / (1 + (1 - 2 * h) ** 0.5) * (1 + 1e-9)
    margins = phi.margins(point, radius)
    for hypothesis, missing in (
        (margins.signs, "another pre-activation may change its sign"),
        (margins.slopes, "a slope may leave its interval"),
        (margins.upward, "a kink may bend downward"),
        (margins.collapsed, "a collapsed unit may open"),
        (margins.copies, "a copy of a unit may go its own way"),
    ):
        if not hypothesis > 0:
            return _answer(phi, missing, radius, h, weakest)
    return _answer(phi, "", radius, h, weakest)
