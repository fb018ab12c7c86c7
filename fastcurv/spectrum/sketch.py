"""A sketch of an operator whose every vector serves in every role: what XTrace and XDiag are made
of.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.linalg import solve_triangular

from ..interrupts import heard
from ..krylov.lanczos import combine, project
from ..protocols import Array, Floats
from .probing import BLOCK, Counted, row_dots
from .results import widened

# leave-one-out estimates share all samples but one: their scatter shows this much too small an
# error
LEFT_OUT = 1.75
# of what lies along the directions left out: what covers 95% where the sketch has just as many
# vectors as there are large eigenvalues, all alike; that itself covers 91%
ALONG = 1.3


class Sketch:
    """Products with random signs, the range they span, and products with that: what XTrace and
    XDiag are made of.

    With ``Y = H O``, ``Y = Q R`` and ``s_i`` the unit vector along column i of ``R^-T``, the range
    without column i is ``Q (I - s_i s_i')``: every sample can be the test vector of the range of
    all the others.
    """

    def __init__(self, apply: Counted, rng: np.random.Generator, m: int) -> None:
        half = m // 2
        if half < 2:
            raise ValueError(
                f"n_probes is {m}; wanted at least 4 for a leave-one-out method, or "
                "method='hutchinson'"
            )
        self.n, half = apply.n, min(half, apply.n)
        cuts = [slice(i, min(i + BLOCK, half)) for i in range(0, half, BLOCK)]
        self.O, self.Y, self.Z = np.empty((3, half, self.n), apply.dtype)
        for cut, signs in zip(cuts, apply.probes(rng, half, signs=True)):
            self.O[cut] = signs
        for cut in cuts:
            self.Y[cut] = apply.products(self.O[cut])
        self.Q, self.R = heard(partial(_orthonormal, self.Y))
        for cut in cuts:
            self.Z[cut] = apply.products(self.Q[cut].astype(apply.dtype))
        self.S = leave_one_out(self.R)

    def _traces(self) -> tuple[Floats, Floats]:
        """One estimate of the trace for each sample left out, and what that left out."""
        m, S, R = len(self.O), self.S, self.R
        H = project(self.Q, self.Z.astype(np.float64))
        H = (H + H.T) / 2
        W = project(self.Q, self.O.astype(np.float64)).T
        left_out = np.einsum("ij,ij->j", S, H @ S)
        inside = np.trace(H) - left_out
        P = W - S * np.einsum("ij,ij->j", S, W)
        forms = (
            row_dots(self.O, self.Y)
            - 2 * np.einsum("ij,ij->j", P, R)
            + np.einsum("ij,ij->j", P, H @ P)
        )
        lengths = self.n - (P**2).sum(axis=0)
        rank = min(m, self.n) - 1
        small = lengths <= 1e-12 * self.n
        rest = np.where(small, 0.0, forms * (self.n - rank) / np.where(small, 1.0, lengths))
        return inside + rest, left_out

    def trace(self) -> tuple[float, float]:
        """The mean over the samples left out, and its standard error.

        Where the sketch has as many vectors as there are large eigenvalues, all samples can be
        wrong together: each leaves out a direction s_i that no other vector has, and its test
        vector can have next to nothing along it. What lies along s_i is known, so that is added.
        """
        samples, left_out = heard(self._traces)
        mean, scatter = float(samples.mean()), float(samples.std(ddof=1)) / len(samples) ** 0.5
        along = float((left_out**2).mean()) ** 0.5
        return mean, float(np.hypot(LEFT_OUT * widened(len(samples)) * scatter, ALONG * along))

    def diagonals(self) -> tuple[Floats, Floats]:
        """The mean and standard error of the diagonals, one for each sample left out."""
        return heard(self._diagonals)

    def _diagonals(self) -> tuple[Floats, Floats]:
        m, S = len(self.O), self.S
        whole = (self.Q * self.Z).sum(axis=0)
        total, squares, left_out = np.zeros((3, self.n))
        along = np.einsum("ij,ij->j", S, self.R)
        for start in range(0, m, BLOCK):
            cut = slice(start, start + BLOCK)
            QS, ZS = combine(self.Q, S[:, cut]), combine(self.Z.astype(np.float64), S[:, cut])
            samples = whole - QS * ZS + self.O[cut] * QS * along[cut, None]
            left_out += np.abs(QS * ZS).sum(axis=0)
            total += samples.sum(axis=0)
            squares += ((samples - whole) ** 2).sum(axis=0)
        mean = total / m
        variance = np.maximum(squares / m - (mean - whole) ** 2, 0) * m / max(1, m - 1)
        return mean, np.hypot(LEFT_OUT * widened(m) * np.sqrt(variance / m), left_out / m)


def _orthonormal(Y: Array) -> tuple[Floats, Floats]:
    """``Y' = Q R``, Q as rows."""
    Q, R = np.linalg.qr(Y.T.astype(np.float64))
    return np.ascontiguousarray(Q.T), R


def leave_one_out(R: Floats) -> Floats:
    """Unit columns ``s_i`` along ``R^-T e_i``; what is 0 on the diagonal of R, but for rounding, is
    as large as rounding.
    """
    m, d = len(R), np.diag(R)
    floor = np.finfo(float).eps * m * np.abs(d).max(initial=0.0)
    safe = R.copy()
    np.fill_diagonal(safe, np.where(np.abs(d) <= floor, np.copysign(floor or 1.0, d), d))
    S: Floats = solve_triangular(safe, np.eye(m), trans="T", check_finite=False)
    S /= np.linalg.norm(S, axis=0)
    return S
