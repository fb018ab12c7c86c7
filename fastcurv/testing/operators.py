"""Operators with a prescribed spectrum, and objectives defined by a matrix or by functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..common.checks import (
    SelfAdjointOperator,
    as_rng,
    check_array,
    check_positive_int,
    check_real_number,
    check_symmetric_operator,
    check_vector,
)
from ..common.protocols import Array, library_class
from ..common.read_only import ReadOnlyMixin
from ..network.arguments import check_dtype


@library_class
class PrescribedSpectrum(SelfAdjointOperator, ReadOnlyMixin):
    """A symmetric operator with the given eigenvalues, in a random basis.

    The operator is ``P diag(values) P'``, where P is a product of Householder reflections. A
    matrix-vector product costs ``O(n n_reflections)``, so n = 1e5 is fast. The method
    ``eigenvector(i)`` returns exact eigenvectors up to rounding.

    Parameters
    ----------
    values : array_like, shape (n,)
        The eigenvalues.
    n_reflections : int
        Number of reflections. If 0, the operator is diagonal.
    rng : None, int or numpy.random.Generator
        Seed or generator for the reflections.
    dtype : dtype
        float32 or float64.

    Examples
    --------
    >>> H = PrescribedSpectrum([-1.0, 2.0, 5.0], rng=0)
    >>> np.linalg.eigvalsh(H @ np.eye(3)).round(12)
    array([-1.,  2.,  5.])
    """

    values: Array
    reflection_vectors: Array
    n_products: int
    _read_only = frozenset(("dtype", "shape", "ndim", "values", "reflection_vectors"))

    def __init__(
        self,
        values: np.ndarray,
        n_reflections: int = 3,
        *,
        rng: Any = 0,
        dtype: Any = np.float64,
    ) -> None:
        dtype = check_dtype(dtype)
        self.values = np.atleast_1d(check_array(values, "values", dtype))
        if self.values.ndim != 1 or not self.values.size:
            raise ValueError(f"values must have shape (n,) with n >= 1, got {self.values.shape}.")
        n_reflections = check_positive_int(n_reflections, "n_reflections", least=0)
        n = self.values.size
        super().__init__(dtype, (n, n))
        reflections = as_rng(rng).standard_normal((n_reflections, n))
        self.reflection_vectors = (
            reflections / np.linalg.norm(reflections, axis=1, keepdims=True)
        ).astype(dtype)
        self.n_products = 0

    def _apply_reflections(self, V: np.ndarray, order: Iterable[int]) -> Array:
        for i in order:
            u = self.reflection_vectors[i]
            V = V - np.multiply.outer(2 * u, u @ V)
        return V

    def _apply(self, V: Array) -> Array:
        steps = range(len(self.reflection_vectors))
        inner = self._apply_reflections(V, reversed(steps))
        return self._apply_reflections(self.values.reshape(-1, *[1] * (V.ndim - 1)) * inner, steps)

    def _matvec(self, v: np.ndarray) -> Any:
        self.n_products += 1
        return self._apply(v.reshape(-1))

    def _matmat(self, V: np.ndarray) -> Any:
        self.n_products += V.shape[1]
        return self._apply(V)

    def eigenvector(self, i: int) -> np.ndarray:
        """Return the unit eigenvector (n,) of the eigenvalue ``values[i]``."""
        e = np.zeros(self.shape[0], dtype=self.dtype)
        e[i] = 1
        return self._apply_reflections(e, range(len(self.reflection_vectors)))


@library_class
class QuadraticObjective(ReadOnlyMixin):
    """The quadratic ``offset + (theta - center)' H (theta - center) / 2`` for any symmetric
    operator or matrix H.

    Examples
    --------
    >>> ob = QuadraticObjective(np.diag([1.0, -1.0]))
    >>> ob.value([2.0, 0.0]), ob.gradient([2.0, 1.0])
    (2.0, array([ 2., -1.]))
    """

    H: Any
    n_params: int
    center: Array
    offset: float
    _read_only = frozenset(("H", "n_params", "center", "offset"))

    def __init__(self, H: Any, center: Any = None, offset: float = 0.0) -> None:
        self.H = check_symmetric_operator(H)
        self.n_params = self.H.shape[0]
        self.center = (
            np.zeros(self.n_params)
            if center is None
            else check_vector(center, self.n_params, "center")
        )
        self.offset = check_real_number(offset, "offset")

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        d = check_vector(theta, self.n_params, "theta", float) - self.center
        g = self.H @ d
        return self.offset + 0.5 * float(d @ g), g

    def value(self, theta: np.ndarray) -> float:
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        return self.value_and_gradient(theta)[1]

    def hessian(self, theta: np.ndarray) -> Any:
        check_vector(theta, self.n_params, "theta")
        return self.H

    def third_bound(self, theta: np.ndarray, radius: float) -> float:
        """Return 0, which is a Lipschitz constant of the Hessian because the Hessian is
        constant.
        """
        return 0.0


@library_class
class FunctionObjective(ReadOnlyMixin):
    """A function of a few variables, given by its value, gradient and Hessian matrix as functions
    of theta (n_params,).

    With a function ``third_bound(theta, radius)``, which returns a Lipschitz constant of the
    Hessian on a ball, verdicts can be certified.

    Examples
    --------
    >>> ob = FunctionObjective(2, lambda t: t[0]**2 - t[1]**2,
    ...                        lambda t: np.array([2*t[0], -2*t[1]]),
    ...                        lambda t: np.diag([2.0, -2.0]))
    >>> ob.gradient([1.0, 1.0])
    array([ 2., -2.])
    """

    n_params: int
    _read_only = frozenset(("n_params",))

    def __init__(
        self, n_params: int, value: Any, gradient: Any, hessian: Any, third_bound: Any = None
    ) -> None:
        self.n_params = check_positive_int(n_params, "n_params")
        self._value = value
        self._gradient = gradient
        self._hessian = hessian
        self._third_bound = third_bound

    def _copy_argument(self, theta: np.ndarray) -> np.ndarray:
        """Return a copy of theta, so that a user-defined function may overwrite its argument."""
        return np.array(check_vector(theta, self.n_params, "theta", float))

    def value(self, theta: np.ndarray) -> float:
        return float(self._value(self._copy_argument(theta)))

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        return np.asarray(self._gradient(self._copy_argument(theta)), dtype=float)

    def hessian(self, theta: np.ndarray) -> Any:
        return check_symmetric_operator(
            np.asarray(self._hessian(self._copy_argument(theta)), dtype=float)
        )

    def third_bound(self, theta: np.ndarray, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian on the ball of the given radius around theta,
        or infinity if no function for this was given.
        """
        return np.inf if self._third_bound is None else float(self._third_bound(theta, radius))
