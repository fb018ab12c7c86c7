"""The Jacobian of a network's outputs as a linear operator."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ..certify.bounds import rounding_at
from ..certify.columns import jacobian_bounds
from .arguments import as_vector, bind_copy
from .linear import Operator, Transposed


class Jacobian(Operator):
    """The Jacobian ``(N d_out, n)`` of the outputs, row-major over (sample, output).

    ``J.T`` and ``J.H`` are its transpose.
    """

    def __init__(self, objective: Any, theta: Any) -> None:
        self.objective = objective
        self.theta = np.empty(objective.n_params, objective.dtype)
        self._plan = objective._lend_plan()
        weakref.finalize(self, objective._take_back, self._plan)
        bind_copy(self._plan, objective, theta, self.theta)
        super().__init__(
            objective.dtype, (objective.n_samples * objective.model.sizes[-1], objective.n_params)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.objective, self.theta)

    def _matvec(self, v: Any) -> np.ndarray:
        out = np.empty(self.shape[0], self.dtype)
        self._plan.jacobian(as_vector(v.reshape(-1), self.shape[1], self.dtype), out)
        return out

    def _rmatvec(self, u: Any) -> np.ndarray:
        out = np.empty(self.shape[1], self.dtype)
        self._plan.jacobian(as_vector(u.reshape(-1), self.shape[0], self.dtype), out, True)
        return out

    def to_dense(self) -> np.ndarray:
        """The matrix ``(N d_out, n)``, by as many products as its shorter side has entries."""
        if self.shape[0] < self.shape[1]:
            return np.ascontiguousarray(
                self._transpose()._matmat(np.eye(self.shape[0], dtype=self.dtype)).T
            )
        return self._matmat(np.eye(self.shape[1], dtype=self.dtype))

    def row_bounds(self) -> Any:
        """Bounds ``(N d_out,)`` on what rounding does to ``J.T @ e_i``, each row of the matrix as
        it is had by such products. Infinite with batch normalisation, and where rows are not at
        hand.

        Cost: some gradients' arithmetic in NumPy.
        """
        X = getattr(self.objective, "X", None)
        if self.objective.model.batch_norm or not isinstance(X, np.ndarray):
            return np.full(self.shape[0], np.inf)
        return jacobian_bounds(rounding_at(self.objective, self.theta, self._plan.layout))

    def _transpose(self) -> Transposed:
        return Transposed(self)

    def __repr__(self) -> str:
        m, n = self.shape
        return (
            f"<{m}x{n} Jacobian over {self.objective.n_samples} samples, dtype={self.dtype.name}>"
        )
