"""What operators in orthonormal coordinates of a part of parameter space have in common; see
`Reduction` in `fastcurv.protocols`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..certify.arithmetic import norm
from ..protocols import Array, Carried
from ..runtime import to_nearest
from .arguments import as_vector, into
from .linear import Symmetric

TRIES = 8  # random vectors that both spaces multiply, for `column_bounds`
UNDERSTATED = 8.0  # what their mean may understate the Frobenius norm by, at a risk of 1e-6


class Reduced(Symmetric):
    """What stands for `whole`, a `Curvature` (n, n), and is smaller: its products and its name."""

    whole: Any
    n: int
    n_products: int
    space: str
    lowest = False

    @property
    def layout(self) -> Any:
        """Of the operator in parameter space."""
        return self.whole.layout

    @property
    def rest(self) -> float:
        """The eigenvalue on the complement: l2, 0 for the Fisher."""
        return float(self.whole.objective.l2) if self.whole.kind != "fisher" else 0.0

    def __repr__(self) -> str:
        m = self.shape[0]
        return f"<{m}x{m} space of {self.space} of {self.whole!r}>"

    def product(self, v: Any, out: Array | None = None) -> Array:
        """The operator times v ``(m,)``, into `out` if given."""
        x, out = into(v, out, self.shape[0], self.dtype)
        self._multiply(x, out)
        self.n_products += 1
        return out

    @abstractmethod
    def _multiply(self, x: Array, out: Array) -> None:
        """``out = R x``; they share no memory."""


class InCoordinates(Reduced):
    """`whole`, an operator H (n, n), as ``E' H E`` with E ``(n, m)``: its maps and its errors."""

    @abstractmethod
    def _embed(self, x: Array, out: Array) -> None:
        """``out = E x``."""

    @abstractmethod
    def _project(self, v: Array, out: Array) -> None:
        """``out = E' v``."""

    def embed(self, x: Any) -> Array:
        """The vector ``(n,)`` of parameter space for coordinates ``(m,)``, or rows ``(k, n)`` for
        rows ``(k, m)``: an isometry.
        """
        x = np.asarray(x, dtype=self.dtype)
        rows = x.reshape(-1, self.shape[0])
        out = np.empty((len(rows), self.n), self.dtype)
        for row, target in zip(rows, out):
            self._embed(row, target)
        return out[0] if x.ndim == 1 else out

    def project(self, v: Any) -> Array:
        """The transpose of `embed`: the coordinates of what of v ``(n,)`` lies in the space, or
        rows ``(k, m)`` for rows ``(k, n)``.
        """
        v = np.asarray(v, dtype=self.dtype)
        rows = np.ascontiguousarray(v.reshape(-1, self.n))
        out = np.empty((len(rows), self.shape[0]), self.dtype)
        for row, target in zip(rows, out):
            self._project(row, target)
        return out[0] if v.ndim == 1 else out

    def defect(self, x: Any) -> float:
        """``||H E x - E R x||`` as computed: what both spaces' arithmetic differs by, at the price
        of a product in parameter space.
        """
        there = self.whole.product(self.embed(x))
        there -= self.embed(self.product(np.asarray(x, dtype=self.dtype)))
        return norm(there)

    def carried(self, X: Array, found: Any, rng: Any) -> Carried:
        """What the pairs found here are worth in parameter space: how far a product there is seen
        to be from one here, on all vectors together, is added to the residuals.
        """
        signs = rng.choice([-1.0, 1.0], size=len(X)).astype(X.dtype)
        defect = self.defect(signs @ X) if len(X) else 0.0
        return Carried(np.ones(len(X), bool), found.residuals + defect, 0.0, False)

    def inside(self, V: Array, most: float) -> Array | None:
        """The coordinates of rows V, or None where some leave the space by `most` of their length
        or more.
        """
        found = self.project(V)
        sizes = [np.linalg.norm(x, axis=1).astype(float) for x in (V, found)]
        outside = np.sqrt(np.maximum(sizes[0] ** 2 - sizes[1] ** 2, 0.0))
        return None if (outside > most * sizes[0]).any() else found

    @to_nearest
    def rounding_bound(self, v: Any) -> float:
        """A bound on ``||computed(R v) - E' H E v||``: that of the product in parameter space, and
        how far this one is seen to be from it.
        """
        x = as_vector(v, self.shape[0], self.dtype)
        return self.defect(x) + float(self.whole.rounding_bound(self.embed(x)))

    @to_nearest
    def column_bounds(self) -> Array:
        """Numbers ``(m,)`` whose root sum of squares bounds the Frobenius norm of the error of this
        operator's matrix.

        That of the columns in parameter space, proved, and the difference between both spaces'
        matrices, whose Frobenius norm is that of the difference on a random vector in the mean:
        measured on 8 vectors and multiplied by 8, which is too small at a risk below 1e-6.
        """
        rng, m = np.random.default_rng(0), self.shape[0]
        seen = UNDERSTATED * norm([self.defect(rng.standard_normal(m)) for _ in range(TRIES)])
        seen, proved = seen / TRIES**0.5, norm(self.whole.column_bounds())
        return np.full(m, (seen + proved) / m**0.5)
