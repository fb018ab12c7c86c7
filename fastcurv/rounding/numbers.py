"""Arrays of numbers with a bound on the error of each, through arithmetic and batch
normalisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._engine import BATCH_NORM_EPS
from .arithmetic import Err


class Num:
    """An array A with a bound E on the error of each entry, in an `Arithmetic` r."""

    def __init__(self, A: Any, E: Any, r: Any) -> None:
        self.A, self.E, self.r = A, E, r

    def __mul__(self, other: Num) -> Num:
        E = np.abs(self.A) * other.E + self.E * (np.abs(other.A) + other.E)
        return self._rounded(self.A * other.A, E + self.r.eta)

    def __add__(self, other: Num) -> Num:
        return self._rounded(self.A + other.A, self.E + other.E)

    def __sub__(self, other: Num) -> Num:
        return self._rounded(self.A - other.A, self.E + other.E)

    def _rounded(self, A: Any, E: Any) -> Num:
        size = np.abs(A) + E
        lost = 4 * self.r.eta * (size > 0)
        return Num(A, np.where(size < self.r.max, E + self.r.u * size + lost, np.inf), self.r)

    def sum(self) -> Num:
        """Over the rows, in double precision, and then of the dtype."""
        E, A = self.E.sum(axis=0), self.A.sum(axis=0)
        return self._rounded(A, E + self.r.rows_gamma * (np.abs(self.A).sum(axis=0) + E))

    def mean(self) -> Num:
        total = self.sum()
        return self._rounded(total.A / len(self.A), total.E / len(self.A))

    def normalised(self) -> tuple[Num, Num]:
        """(h, s): ``h = (z - mean) s``, s = 1 / sqrt(variance + eps) of the columns, of infinite E
        where errors reach the deviation.

        The mean is taken in double precision, then corrected by the mean of what is left: it is
        right to its last digits.
        """
        mean = self.A.mean(axis=0)
        off = (self.A - mean).mean(axis=0)
        spread, centre = np.abs(self.A - mean).mean(axis=0), self.A - (mean + off)
        E = self.E.mean(axis=0) + self.r.rows_gamma * (
            spread + self.r.rows_gamma * np.abs(self.A).mean(axis=0)
        )
        mean = self._rounded(mean + off, E + self.r.mean_gamma * np.abs(mean))
        size = np.sqrt((centre**2).mean(axis=0) + BATCH_NORM_EPS)
        low = (
            size
            - np.sqrt((self.E**2).mean(axis=0))
            - self.r.rows_gamma * (size + self.r.rows_gamma * np.abs(self.A).mean(axis=0))
        )
        s = self._rounded(
            1 / size, np.where(low > 0, 1 / np.where(low > 0, low, 1) - 1 / size, np.inf)
        )
        return (self - mean) * s, s

    @property
    def err(self) -> Err:
        return Err(self.E)
