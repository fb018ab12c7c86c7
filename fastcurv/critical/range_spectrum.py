"""All eigenvalues of Hessians whose range is proved to have few dimensions, up to a multiple of the
identity, as with fewer samples than units.

On the complement of this range space H is `complement_eigenvalue` times the identity. On the range
space it is a matrix that is small enough to be decomposed. So the inertia is known as for small n,
and Kantorovich's theorem holds with ``1 / beta`` the smallest magnitude of an eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..common.objectives import BudgetedOperator
from ..common.protocols import Floats, ProvedRange
from ..common.vectors import safe_norm
from ..spectrum.dense import symmetric_part
from ..spectrum.forms import MAX_DENSE_ROWS
from .decide import SpectrumEvidence
from .dense import DenseHessian, eigenvalue_signs
from .evidence import ClassifyOptions, estimate_spectral_norm
from .theorem import ComplementEigenpairs

N_MATRIX_FREE_PROOF_PRODUCTS = 40  # number of products reserved for proofs without the matrix
# maximum decrease of the norm of a unit symmetry direction under projection onto the range space,
# at which the direction counts as a vector of this space
MAX_NORM_LOSS = 1e-9


@dataclass(frozen=True, eq=False)
class RangeSpectrum(ComplementEigenpairs):
    """All eigenvalues of H on the complement of a span of symmetry directions. In the range space
    they are `values`, with eigenvectors ``E vectors``, where E embeds the range space. Outside the
    range space the eigenvalue is `space.complement_eigenvalue`.
    """

    space: ProvedRange = field(kw_only=True)

    @property
    def signs(self) -> NDArray[np.int_]:
        """The signs (m,) of all eigenvalues in the range space: -1, 1, or 0 if the sign is not
        known because of the error.
        """
        return eigenvalue_signs(self)

    def evidence_with_inertia(self, seen: SpectrumEvidence) -> SpectrumEvidence:
        """Return the `SpectrumEvidence` `seen` with the inertia of H added. The number of zeros
        that symmetries explain is the number of symmetry directions that were projected out or, if
        the eigenvalue of the complement is 0, of all symmetry directions.
        """
        s = seen.n_symmetry
        complement = self.space.complement_eigenvalue
        positive = int((self.signs == 1).sum()) + self.space.n_complement * (
            complement > self.error
        )
        negative = int((self.signs == -1).sum())
        zero = self.space.n - positive - negative
        return replace(
            seen,
            n_positive=positive,
            n_negative=negative,
            n_zero=zero,
            # Away from a critical point H may have curvature along symmetry directions.
            n_symmetry=s if s is None else min(zero, int(self.span.shape[1]) if complement else s),
            n_negative_bounds=(negative, negative + zero),
            smallest_magnitude=self.smallest_magnitude,
            smallest_magnitude_error=self.error,
            range_space=self.space,
        )

    @property
    def smallest_magnitude(self) -> float:
        """The smallest magnitude of the computed eigenvalues, including that of the complement."""
        return float(
            min(np.abs(self.values).min(initial=np.inf), abs(self.space.complement_eigenvalue))
        )

    @property
    def min_abs_eigenvalue_bound(self) -> float:
        """A lower bound on the magnitudes of all eigenvalues. It is negative if an eigenvalue may
        be 0.
        """
        return self.smallest_magnitude - self.error

    def solve(self, g: Floats) -> Floats:
        """Return ``H^-1 g`` (n,). All eigenvalues must be nonzero."""
        inner = self.space.project(g[None])[0]
        y = self.vectors @ ((self.vectors.T @ inner) / self.values)
        return np.asarray(
            (g - self.space.embed(inner)) / self.space.complement_eigenvalue + self.space.embed(y)
        )

    def newton_step(self, H: BudgetedOperator, g: Floats) -> Floats:
        """Return Newton's step (n,) orthogonal to the symmetry directions, with one step of
        iterative refinement by a product with H.
        """
        x = self.project_off_span(-self.solve(self.project_off_span(g)))
        return self.project_off_span(x - self.solve(self.project_off_span(g + H(x))))

    def weakest_eigenpairs(self, k: int) -> tuple[Floats, Floats]:
        """Return the k eigenvalues of smallest magnitude in the range space whose signs are known,
        and their eigenvectors (n, k) as columns. There are fewer than k if fewer signs are known.
        """
        order = np.argsort(np.abs(self.values))
        order = order[self.signs[order] != 0][:k]
        return self.values[order], _embed_columns(self.space, self.vectors[:, order])

    def extremes(self) -> list[tuple[float, Floats]]:
        """Return a list of pairs (eigenvalue, eigenvector): the smallest and the largest eigenvalue
        in the range space, and that of the complement if it lies outside the interval of these two.
        """
        inside = self.values
        complement = self.space.complement_eigenvalue
        found = [
            (float(inside[i]), _embed_columns(self.space, self.vectors[:, [i]])[:, 0])
            for i in (0, -1)
            if inside.size
        ]
        if self.space.n_complement and not (inside.size and inside[0] <= complement <= inside[-1]):
            found.append((complement, self.space.complement_vector()))
        return found


def range_spectrum(
    ask: ClassifyOptions, H: BudgetedOperator, left: float, Q: Floats
) -> RangeSpectrum | None:
    """Return all eigenvalues of H as a `RangeSpectrum`, or None if the range of H is not known to
    have few dimensions, the budget is too small or the error of the matrix has no bound.

    The operator must report a range of at most `dense_below` dimensions, and the budget of `left`
    products must allow one product for each dimension. The symmetry directions Q (n, s) are
    projected out if they all lie in the range space.
    """
    most = int(min(ask.dense_below, left - N_MATRIX_FREE_PROOF_PRODUCTS, MAX_DENSE_ROWS))
    space = H.op.range_space(most) if most >= 1 and hasattr(H.op, "range_space") else None
    if space is None or not space.m:
        return None
    H.show_note(f"all columns in {space.m} dimensions that the rows reach")
    found = space.matrix()
    H.record_products(space.m)
    if not found.error < np.inf:
        return None
    M = symmetric_part(found.products, found.bounds, space.m)
    H.asymmetry = max(H.asymmetry, safe_norm(M.asymmetry))
    H.norm = max(H.norm, 1.01 * estimate_spectral_norm(M.A))
    H.show_note("all eigenvalues")
    rows = np.ascontiguousarray(Q.T)
    inner = space.project(rows).T if len(rows) else np.zeros((space.m, 0))
    if (np.linalg.norm(inner, axis=0) < 1 - MAX_NORM_LOSS).any():
        inner = inner[:, :0]
    cut = DenseHessian(M).eigenpairs_on_complement(inner, more=found.error)
    span = _embed_columns(space, cut.span)
    return RangeSpectrum(cut.values, cut.vectors, cut.error, np.ones(space.n), span, space=space)


def _embed_columns(space: ProvedRange, Y: Floats) -> Floats:
    """Return the columns of Y (m, k), coordinates in the range space, embedded in the parameter
    space, with shape (n, k).
    """
    rows = [space.embed(y) for y in Y.T]
    return np.stack(rows, axis=1) if rows else np.zeros((space.n, 0))
