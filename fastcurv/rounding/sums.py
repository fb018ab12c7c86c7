"""Bounds on the errors of sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``."""

from __future__ import annotations

import math

import numpy as np

from ..protocols import Floats
from .arithmetic import ETA, Err, at_most, norm, norms, product, scaled
from .numbers import Num


class Sums:
    """Bounds on the errors of one layer's ``x'y`` summed over rows, and of the sum of x's rows: see
    the head of `fastcurv.rounding.bounds`.

    `value` and `b_value` are the sums themselves, `scales` those of gamma and beta, if any.
    """

    def __init__(self, shape: tuple[int, int], spectral_a: float, spectral_d: float) -> None:
        self.B, self.value = np.zeros((2, *shape))
        self.b, self.b_value = np.zeros((2, shape[0]))
        self.local = self.b_local = self.b_rows = 0.0
        self.spectral_a, self.spectral_d = spectral_a, spectral_d
        self.terms: dict[str, Floats] = {}
        self.scales: tuple[Num, ...] = ()

    def add(self, tag: str, x: Floats, dx: Err, y: Floats, dy: Err | None, gamma: float) -> None:
        """Some rows of a term; dy None: y is exact."""
        X, Y = at_most(x, dx), at_most(y, dy)
        self.B += product(_off(X, dx, gamma).T, Y)
        nx, ny = norms(np.abs(x)), norms(np.abs(y))
        nu = np.zeros_like(ny) if dy is None else dy.nu
        if dy is not None:
            self.B += product(np.abs(x).T, dy.E)
        self.value += x.T @ y
        self.local += float(scaled(gamma, scaled(nx + dx.nu, ny + nu).sum()))
        parts = [
            scaled(dx.nu, ny).sum(),
            (dx.nu**2).sum(),
            scaled(dx.nu, nu).sum(),
            scaled(nx, nu).sum(),
            (nu**2).sum(),
        ]
        self.terms[tag] = self.terms.get(tag, np.zeros(5)) + parts

    def add_rows(self, x: Floats, dx: Err, gamma: float) -> None:
        """Some rows of the bias's part."""
        self.b += _off(at_most(x, dx), dx, gamma).sum(axis=0)
        self.b_value += x.sum(axis=0)
        self.b_local += float(scaled(gamma, (norms(np.abs(x)) + dx.nu).sum()))
        self.b_rows += float(dx.nu.sum())

    def values(self, bias: bool) -> list[Floats]:
        """The sums themselves, in the parameters' order."""
        return [self.value.ravel()] + [self.b_value] * bias + [x.A for x in self.scales]

    def bounds(self, eta: float, ends: float) -> list[float]:
        """Of the weights' part, of the bias's, and of those of gamma and beta."""
        rows = self.local
        for tag, (x_rows, x_square, cross, y_rows, y_square) in self.terms.items():
            rows += cross + (
                min(x_rows, math.sqrt(x_square) * self.spectral_a)
                if tag == "a" and x_square > 1e-280
                else x_rows
            )
            rows += (
                min(y_rows, math.sqrt(y_square) * self.spectral_d)
                if tag == "ra" and y_square > 1e-280
                else y_rows
            )
        return [
            min(norm(self.B), rows) + eta * math.sqrt(self.B.size) * (rows > 0),
            min(norm(self.b), self.b_local + self.b_rows),
            *(norm(x.E + ends * (np.abs(x.A) + x.E)) for x in self.scales),
        ]


def _off(X: Floats, dx: Err, gamma: float) -> Floats:
    """What numbers of sizes X, off by dx, are off by once they are part of a sum."""
    return np.asarray(gamma * X + dx.E + ETA * (X > 0))
