"""All eigenvalues at large n, for Hessians whose products are proved to reach few dimensions, as
when there are fewer rows than units.

On the dimensions out of reach H is `rest` times the identity; on the others it is a matrix that is
small enough to decompose. So the inertia is known as at small n, and Kantorovich's theorem holds
with ``1 / beta`` the smallest size of any eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..common.protocols import Floats, ProvedReach
from ..common.vectors import safe_norm
from ..spectrum.dense import LARGEST_DENSE, symmetric_part
from .decide import Spectrum
from .evidence import ClassifyOptions, Products, in_float64, proved, spectral_norm
from .symmetry import DenseHessian, signs_of
from .theorem import EPS, Contraction, Slice, zero_of_residuals

SPARE = 40  # products reserved for proofs that do not use the matrix
CREDIBLE = 1e-8  # of ||H||: weaker curvature cannot be measured to last
INSIDE = 1e-9  # loss of norm that a unit symmetry direction may have in the reached space
LARGEST_JACOBIAN = 1 << 26  # entries


@dataclass(frozen=True, eq=False)
class Reached(Slice):
    """All eigenvalues of H on the complement of a span of symmetries: `values` in the reached
    space, with eigenvectors ``E vectors`` (E embeds that space), and `rest` outside it.
    """

    space: ProvedReach = field(kw_only=True)

    @property
    def signs(self) -> NDArray[np.int_]:
        """The sign, -1, 0 or 1, of every eigenvalue in the reached space, 0 within the error."""
        return signs_of(self)

    def described(self, seen: Spectrum) -> Spectrum:
        """Return what was `seen` of the spectrum of H with its inertia; of the symmetries only
        those count that were taken out, or, where no eigenvalue is known outside, all.
        """
        signs, rest, n, s = self.signs, self.space.rest, self.space.n_rest, seen.n_symmetry
        positive = int((signs == 1).sum()) + n * (rest > self.error)
        negative = int((signs == -1).sum())
        zero = self.space.n - positive - negative
        return replace(
            seen,
            n_positive=positive,
            n_negative=negative,
            n_zero=zero,
            n_symmetry=s if s is None or not rest else int(self.span.shape[1]),
            n_negative_bounds=(negative, negative + zero),
            weakest=self.smallest,
            weakest_error=self.error,
            reach=self.space,
        )

    @property
    def smallest(self) -> float:
        """The smallest size of a computed eigenvalue."""
        return float(min(np.abs(self.values).min(initial=np.inf), abs(self.space.rest)))

    @property
    def weakest(self) -> float:
        """A lower bound on the size of every eigenvalue; negative where there is none."""
        return self.smallest - self.error

    def credible(self, norm: float) -> bool:
        """Return whether every known sign rests on curvature strong enough, relative to `norm`, for
        a measurement of whether it lasts to mean anything.
        """
        sizes = np.abs(self.values[self.signs != 0])
        return bool(sizes.min(initial=np.inf) > CREDIBLE * norm)

    def solve(self, g: Floats) -> Floats:
        """Return ``H^-1 g``."""
        inner = self.space.project(g[None])[0]
        y = self.vectors @ ((self.vectors.T @ inner) / self.values)
        return np.asarray((g - self.space.embed(inner)) / self.space.rest + self.space.embed(y))

    def step(self, H: Products, g: Floats) -> Floats:
        """Return Newton's step orthogonal to the symmetries, refined once."""
        x = self.off_span(-self.solve(self.off_span(g)))
        return self.off_span(x - self.solve(self.off_span(g + H(x))))

    def chosen(self, k: int) -> tuple[Floats, Floats]:
        """Return the k weakest eigenvalues in the reached space that are known not to be 0, and
        their vectors as columns.
        """
        order = np.argsort(np.abs(self.values))
        order = order[self.signs[order] != 0][:k]
        return self.values[order], _columns(self.space, self.vectors[:, order])

    def extremes(self) -> list[tuple[float, Floats]]:
        """Return the extreme eigenvalues of H with their vectors, `rest` included where it is
        extreme.
        """
        inside, rest = self.values, self.space.rest
        found = [
            (float(inside[i]), _columns(self.space, self.vectors[:, [i]])[:, 0])
            for i in (0, -1)
            if inside.size
        ]
        if self.space.n_rest and not (inside.size and inside[0] <= rest <= inside[-1]):
            found.append((rest, self.space.outside()))
        return found


def reached(ask: ClassifyOptions, H: Products, left: float, Q: Floats) -> Reached | None:
    """Return all eigenvalues, or None where that is not possible.

    The operator must report that its products reach fewer than `dense_below` dimensions, and the
    budget must allow as many products. Symmetries Q (n, s) are taken out if they lie in the reached
    space.
    """
    most = int(min(ask.dense_below, left - SPARE, LARGEST_DENSE))
    space = H.op.reach(most) if most >= 1 and hasattr(H.op, "reach") else None
    if space is None or not space.m:
        return None
    H.note(f"all columns in {space.m} dimensions that the rows reach")
    found = space.matrix()
    H.tell(space.m)
    if not found.error < np.inf:
        return None
    M = symmetric_part(found.products, found.bounds, space.m)
    H.asymmetry = max(H.asymmetry, safe_norm(M.asymmetry))
    H.norm = max(H.norm, 1.01 * spectral_norm(M.A))
    H.note("all eigenvalues")
    rows = np.ascontiguousarray(Q.T)
    inner = space.project(rows).T if len(rows) else np.zeros((space.m, 0))
    if (np.linalg.norm(inner, axis=0) < 1 - INSIDE).any():
        inner = inner[:, :0]
    cut = DenseHessian(M).cut(inner, more=found.error)
    span = _columns(space, cut.span)
    return Reached(cut.values, cut.vectors, cut.error, np.ones(space.n), span, space=space)


def _columns(space: ProvedReach, Y: Floats) -> Floats:
    """Return ``E Y``, the columns of Y embedded in parameter space."""
    rows = [space.embed(y) for y in Y.T]
    return np.stack(rows, axis=1) if rows else np.zeros((space.n, 0))


def interpolation(ask: ClassifyOptions, H: Products) -> tuple[Contraction, int] | None:
    """Check the theorem for the residuals of a loss that is a pure sum of squares, with at most as
    many residuals as parameters; return it with their number, None if it does not apply.

    Rows without weight are left out, and equal rows count once.
    """
    ob, theta = ask.ob, ask.theta
    if np.max(getattr(ob, "l2", 0.0)) > 0:
        return None
    here = proved(ob, "residual_bounds", theta, 0.0) if hasattr(ob, "jacobian") else None
    if here is None or not 0 < len(here.residuals) <= theta.size or (here.scale == 0).any():
        return None
    m = len(here.residuals)
    if m * theta.size > LARGEST_JACOBIAN or not H.affords(m):
        return None
    H.note("do the residuals vanish?")
    rows = getattr(here, "rows", None)
    op = in_float64(ob if rows is None else ob.batch(rows)).jacobian(theta)
    H.tell(op.shape[0])
    J = np.asarray((op.T @ np.eye(op.shape[0])).T, dtype=float) * here.scale[:, None]
    off = safe_norm(op.row_bounds() * here.scale) + 4 * EPS * safe_norm(J)

    def lipschitz(radius: float) -> float:
        return float(proved(ob, "residual_bounds", theta, radius).lipschitz)

    return zero_of_residuals(J, off, here.residuals, here.error, lipschitz), m
