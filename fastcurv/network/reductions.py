"""Base classes of operators with the eigenvalues of a curvature in a smaller space; see `Reduction`
in `fastcurv.common.protocols`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.protocols import Array, LiftedEigenpairs, missing_bound_reason
from ..common.runtime import with_nearest_rounding
from ..common.vectors import safe_norm
from .arguments import as_vector, vector_and_output
from .linear_operator import SymmetricOperator


class CurvatureReduction(SymmetricOperator):
    """Base class of operators with the eigenvalues of `whole`, except those on the complement."""

    whole: Any
    n: int
    n_complement: int
    n_products: int
    space: str
    lowest = False
    _read_only = SymmetricOperator._read_only | {"whole", "n", "n_complement", "space", "lowest"}

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products with `whole` have no known bound, or ""."""
        return missing_bound_reason(self.whole)

    @property
    def layout(self) -> Any:
        """Layout of the products of `whole`, as `Curvature.layout`."""
        return self.whole.layout

    @property
    def complement_eigenvalue(self) -> float:
        """Eigenvalue of `whole` on the complement of the subspace: l2, or 0 for the Fisher."""
        return float(self.whole.objective.l2) if self.whole.kind != "fisher" else 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.whole,), {"n_products": self.n_products}

    def __repr__(self) -> str:
        m = self.shape[0]
        return f"<{m}x{m} space of {self.space} of {self.whole!r}>"

    def product(self, v: Any, out: Array | None = None) -> Array:
        """Return the product of the operator with v ``(m,)``, in `out` or in a new array."""
        x, out = vector_and_output(v, out, self.shape[0], self.dtype)
        self._multiply(x, out)
        self.n_products += 1
        return out

    @abstractmethod
    def _multiply(self, x: Array, out: Array) -> None:
        """Compute ``out = R x`` for this operator R, where the arrays share no memory."""

    @abstractmethod
    def _embed(self, x: Array, out: Array) -> None:
        """Write the vector in parameter space with coordinates x to `out`."""

    @abstractmethod
    def _project(self, v: Array, out: Array) -> None:
        """Write the coordinates of v to `out`."""

    def embed(self, x: Any) -> Array:
        """Return the vector ``(n,)`` of parameter space for coordinates ``(m,)``, or rows ``(k,
        n)`` for rows ``(k, m)``.
        """
        return self._apply_to_rows(self._embed, x, self.n)

    def project(self, v: Any) -> Array:
        """Return the coordinates ``(m,)`` of v ``(n,)``, or rows ``(k, m)`` for rows ``(k, n)``."""
        return self._apply_to_rows(self._project, v, self.shape[0])

    def _apply_to_rows(self, way: Callable[[Array, Array], None], x: Any, width: int) -> Array:
        x = np.ascontiguousarray(x, self.dtype)
        out = np.empty((*x.shape[:-1], width), self.dtype)
        for row, target in zip(np.atleast_2d(x), np.atleast_2d(out)):
            way(row, target)
        return out


class CoordinateReduction(CurvatureReduction):
    """An operator ``E' H E`` with an isometry E ``(n, m)``, where H is `whole` (n, n). `embed` is
    E, and `project` is its transpose, the orthogonal projection onto the space.
    """

    def product_defect(self, x: Any) -> float:
        """Return the computed ``||H E x - E R x||``, the difference between the products in the two
        spaces, with R for this operator. The cost is one product in each space.
        """
        there = self.whole.product(self.embed(x))
        there -= self.embed(self.product(np.asarray(x, dtype=self.dtype)))
        return safe_norm(there)

    def lift_eigenpairs(self, X: Array, found: Any, rng: Any) -> LiftedEigenpairs:
        """Return the `LiftedEigenpairs` of the pairs `found` with vectors X (k, m). The residuals
        include `product_defect` of a combination of X with random signs from `rng`.
        """
        signs = rng.choice([-1.0, 1.0], size=len(X)).astype(X.dtype)
        defect = self.product_defect(signs @ X) if len(X) else 0.0
        return LiftedEigenpairs(np.ones(len(X), bool), found.residuals + defect, 0.0, False)

    def find_coordinates(self, V: Array, most: float) -> Array | None:
        """Return the coordinates (k, m) of the rows of V (k, n). Return None if, for a row v, the
        component outside the subspace is longer than `most` times ``||v||``.
        """
        coordinates = self.project(V)
        sizes = [np.linalg.norm(x, axis=1).astype(float) for x in (V, coordinates)]
        outside = np.sqrt(np.maximum(sizes[0] ** 2 - sizes[1] ** 2, 0.0))
        return None if (outside > most * sizes[0]).any() else coordinates

    @with_nearest_rounding
    def rounding_bound(self, v: Any) -> float | None:
        """Return a bound on ``||computed(R v) - E' H E v||``: the bound for ``H E v`` plus the
        measured `product_defect` of v. Return None if the former is not known.
        """
        if self.why_unproved:
            return None
        x = as_vector(v, self.shape[0], self.dtype)
        return self.product_defect(x) + float(self.whole.rounding_bound(self.embed(x)))
