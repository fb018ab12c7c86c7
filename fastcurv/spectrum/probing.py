"""Products and quadratic forms with random signs, counted and kept in range, and what their mean is
worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..checks import operator_dtype, times
from ..krylov.lanczos import NOT_FINITE, orthonormalise, project, subtract
from ..progress import Bar
from ..protocols import Array, Floats, QuadraticForms
from .density import random_signs
from .results import ALIKE, TWO_VALUED, Estimate, mean_of, widened

BLOCK = 16
SHORTER = 20  # by that power of two, where products of vectors as they are overflow
ROUNDINGS = 4  # units of rounding, of the largest product seen, that a sum is never better than


def sketched(m: int) -> int:
    """How many of m applications find a range: a third, but `ALIKE` samples are left beside it."""
    return max(0, min(m // 3, (m - ALIKE) // 2))


class Counted:
    """The operator on rows of vectors, with its applications counted."""

    def __init__(self, op: Any) -> None:
        self.op, self.dtype = op, operator_dtype(op)
        self.n: int = op.shape[0]
        self.has_quadratic = isinstance(op, QuadraticForms)
        self.n_products = self.n_quadratic = 0
        self.shown: Bar | None = None
        self.exponent: int | None = None
        self.largest = 0.0  # norm of a product, or quadratic form

    def estimate(self, value: Any, stderr: Any, method: str) -> Estimate:
        unit = 2.0 ** (self.exponent or 0)
        if np.ndim(value) == 0 and method != "exact":
            stderr = np.hypot(stderr, ROUNDINGS * np.finfo(self.dtype).eps * self.largest)
        with np.errstate(over="ignore"):
            value, stderr = unit * value, unit * stderr
        if not np.isfinite(value).all():
            raise ValueError(
                f"the estimate by method={method!r} is beyond float64; wanted an operator scaled "
                "down"
            )
        if np.ndim(value) == 0:
            value, stderr = float(value), float(stderr)
        return Estimate(value, stderr, self.n_products, self.n_quadratic, method)

    def exactly(self, m: int, method: str) -> bool:
        """Whether m applications are for all unit vectors: of a number, by any method."""
        return m >= self.n and (method == "auto" or self.n == 1)

    def _told(self, k: int) -> None:
        self.n_products += k
        if self.shown is not None:
            self.shown.update(k)

    def products(self, V: Array) -> Array:
        """Rows ``H v`` for rows v."""
        if not len(V):
            return np.zeros((0, self.n), self.dtype)
        self._told(len(V))
        columns, short = np.ascontiguousarray(V.T) if len(V) > 1 else V[0].copy(), 0
        with np.errstate(over="ignore", invalid="ignore"):
            Y = times(self.op, columns)
            if not np.isfinite(Y).all():  # sums beyond the range, of numbers that are in it?
                short = SHORTER
                Y = times(self.op, columns * self.dtype.type(2.0**-short))
        Y = self._in_range(np.ascontiguousarray(np.reshape(Y, (-1, len(V))).T), short)
        self.largest = max(self.largest, float(np.einsum("ij,ij->i", Y, Y).max()) ** 0.5)
        return Y

    def forms(self, V: Array) -> Floats:
        """``v'Hv`` for rows v, in float64."""
        if not self.has_quadratic:
            return row_dots(V, self.products(V))
        self._told(len(V))
        self.n_quadratic += len(V)
        found = np.asarray(self.op.quadratic(np.ascontiguousarray(V.T)), dtype=np.float64)
        found = self._in_range(np.atleast_1d(found))
        self.largest = max(self.largest, float(np.abs(found).max()))
        return found

    def _in_range(self, Y: Array, short: int = 0) -> Array:
        """Finite numbers of the operator over the unit, a power of two that the first of them that
        are not zero decide; so that squares and sums stay in range. Those given are of vectors
        that were divided by 2 to the power of `short`.
        """
        if self.exponent is None:
            largest = float(np.abs(Y).max(initial=0.0))
            if np.isfinite(largest) and largest > 0:
                exponent = int(np.frexp(largest)[1]) + short
                small, large = (30, 120) if Y.dtype == np.float32 else (300, 1000)
                self.exponent = (
                    0 if abs(exponent) <= small else int(np.clip(exponent, -large, large))
                )
        if self.exponent or short:
            with np.errstate(over="ignore"):
                Y = Y * Y.dtype.type(2.0 ** (short - (self.exponent or 0)))
        if not np.isfinite(Y).all():
            raise ValueError(NOT_FINITE)
        return Y

    def probes(self, rng: np.random.Generator, m: int, signs: bool = False) -> Iterator[Array]:
        """M rows of random signs, a block at a time; fewer than `ALIKE` are as long and of any
        direction, unless signs are wanted.
        """
        for start in range(0, m, BLOCK):
            shape = min(BLOCK, m - start), self.n
            if m < ALIKE and not signs:
                V = rng.standard_normal(shape)
                # row by row: NumPy ends the process where a buffer to broadcast in is refused
                for row, norm in zip(V, np.linalg.norm(V, axis=1)):
                    row *= self.n**0.5 / norm
                yield V.astype(self.dtype)
            else:
                yield random_signs(rng, *shape, self.dtype)

    def hutchinson(self, rng: np.random.Generator, m: int) -> tuple[float, float]:
        """The mean of ``v'Hv`` and its standard error.

        Its variance is twice the sum of those of the entries ``v_i (Hv)_i``. Where products are
        made, that shows scatter that few samples of the sum can miss.
        """
        if self.has_quadratic or m < ALIKE:
            return mean_of(np.concatenate([self.forms(V) for V in self.probes(rng, m)]))
        samples, total, squares = [], np.zeros(self.n), np.zeros(self.n)
        for V in self.probes(rng, m):
            entries = V.astype(np.float64) * self.products(V)
            samples.append(entries.sum(axis=1))
            if not len(samples) > 1:
                first = entries[0]
            total += (entries - first).sum(axis=0)
            squares += ((entries - first) ** 2).sum(axis=0)
        mean, stderr = mean_of(np.concatenate(samples))
        variance = max(2 * float((squares - total**2 / m).sum()) / (m - 1), 0.0)
        return mean, max(stderr, widened(m) * (variance / m) ** 0.5)

    def unit_rows(self) -> Iterator[Array]:
        for start in range(0, self.n, BLOCK):
            E = np.zeros((min(BLOCK, self.n - start), self.n), self.dtype)
            E[np.arange(len(E)), start + np.arange(len(E))] = 1
            yield E

    def exact_diagonal(self) -> Floats:
        return np.concatenate(
            [
                [y[start + i] for i, y in enumerate(self.products(E))]
                for start, E in zip(range(0, self.n, BLOCK), self.unit_rows())
            ]
        ).astype(np.float64)

    def range(self, rng: np.random.Generator, m: int) -> Array:
        """Orthonormal rows that span the products with m random vectors."""
        Q = np.empty((m, self.n), self.dtype)
        for start, V in zip(range(0, m, BLOCK), self.probes(rng, m, signs=True)):
            Q[start : start + BLOCK] = self.products(V)
        B, _ = orthonormalise(Q)
        return Q[: len(B)]


def outside(Q: Array, V: Array) -> Array:
    """Rows of `V` less their part in the row space of `Q`, in place."""
    if len(Q):
        subtract(Q, V, project(Q, V))
    return V


def row_dots(A: Array, B: Array) -> Floats:
    return np.array(
        [
            float(np.dot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))
            for a, b in zip(A, B)
        ]
    )


def squares_of(Y: Array) -> Floats:
    return row_dots(Y, Y)


def from_sums(total: Floats, squares: Floats, m: int) -> tuple[Floats, Floats]:
    mean = total / m
    if m == 1:
        return mean, np.full_like(mean, np.nan)
    variance = np.maximum(squares / m - mean**2, 0) * m / (m - 1)
    return mean, widened(m) * (1 + TWO_VALUED / m) * np.sqrt(variance / m)
