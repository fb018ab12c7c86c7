"""Rounding errors of a single step of the passes: sums and activations as the kernels compute them,
and how errors propagate through them.

All arrays here are float64 of shape (rows, m); bounds are elementwise and >= 0. `Err` carries a
matrix of error bounds through the passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import _engine
from .._engine import BATCH_NORM_EPS
from ..common.linalg import eigh, gamma_of
from ..common.protocols import Floats
from ..structure.tables import ACTIVATIONS

# error of phi, phi', phi'' and of the terms of a loss row, in roundings: at most 10 were measured
ELEMENTARY = 16.0
# absolute error of saturated phi, phi', phi'', which may be flushed to 0, in smallest normal
# numbers (gelu: n(t) t^2 at its end)
FLOOR = 4096.0
TINY, ETA = float(np.finfo(float).tiny), float(np.finfo(float).smallest_subnormal)
VANISHING = 1e-290  # above this no product has underflowed, nor has u times it


def flushes() -> bool:
    """Return whether this thread's arithmetic flushes subnormal numbers to 0, which the error model
    does not allow.
    """
    return TINY * 0.5 == 0


def scaled(x: Any, y: Any) -> Any:
    """Return ``x * y`` for sizes x, y >= 0, not made smaller by underflow: 0 only where x or y is
    0.
    """
    found = np.asarray(x * y)
    if found.min(initial=1.0) >= VANISHING:
        return found
    return found + ETA * ((x > 0) & (y > 0))


def product(X: Floats, Y: Floats) -> Floats:
    """Return ``X @ Y`` for sizes X, Y >= 0, not made smaller by underflow: an entry is 0 only where
    every product in its sum has a factor 0.
    """
    found = X @ Y
    if _least(X) * _least(Y) >= VANISHING:
        return found
    return np.asarray(found + ETA * ((X > 0).astype(float) @ (Y > 0).astype(float)))


def _least(X: Floats) -> float:
    """Return the smallest positive number in X."""
    least = X.min(initial=np.inf)
    return float(least if least > 0 else X.min(where=X > 0, initial=np.inf))


def norms(E: Floats) -> Floats:
    """Return the norms of the rows of E >= 0, shape (rows, 1), safe from underflow and overflow of
    the squares.
    """
    found: Floats = np.sqrt(np.einsum("ij,ij->i", E, E))[:, None]
    odd = ~((found > 1e-140) & (found < np.inf))[:, 0]
    if odd.any():
        scale = E[odd].max(axis=1, initial=0.0)[:, None]
        scale[~((scale > 0) & (scale < np.inf))] = 1.0
        found[odd] = scaled(np.sqrt(np.sum((E[odd] / scale) ** 2, axis=1))[:, None], scale)
    return found


def norm(x: ArrayLike) -> float:
    """Return the Euclidean norm of all of x in float64, safe from underflow and overflow of the
    squares.
    """
    return float(norms(np.abs(np.asarray(x, dtype=float)).reshape(1, -1))[0, 0])


def spectral_bound(A: Floats) -> float:
    """Return an upper bound on ``||A||_2`` from the smaller Gram matrix G.

    It is exact to rounding up to 256 rows or columns. Above that it is the square root of
    ``||G^16||_F^(1/16)``, at most a factor of ``k^(1/64)`` too large (k the smaller side).
    """
    size = float(np.abs(A).max(initial=0.0))
    if not 0 < size < np.inf:
        return size
    A = A / size
    return size * math.sqrt(gram_bound(A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A)) + ETA


def gram_bound(G: Floats) -> float:
    """Return an upper bound on the largest eigenvalue of a positive semidefinite G."""
    size = float(np.abs(G).max(initial=0.0))
    if not 0 < size < np.inf:
        return size
    G = G / size
    slack = 1 + 4 * len(G) * np.finfo(float).eps
    if len(G) <= 256:
        values, _, errors = eigh(G)
        return size * (float(values[-1] + errors[-1]) * slack)
    scale, power = 0.0, 1.0
    for _ in range(4):
        frobenius = float(np.linalg.norm(G))
        scale, power = scale + math.log(frobenius) * power, power / 2
        G = (G / frobenius) @ (G / frobenius)
    return size * slack * math.exp(scale + power * math.log(float(np.linalg.norm(G))))


def stack_norms(K: Floats) -> Floats:
    """Return upper bounds ``(rows, 1)`` on the spectral norms of a stack of matrices (rows, m, k),
    at most a factor of ``min(m, k)^(1/32)`` too large.
    """
    size = np.abs(K).max(axis=(1, 2), keepdims=True)
    K = K / np.where((size > 0) & (size < np.inf), size, 1.0)
    Kt, log, power = K.transpose(0, 2, 1), 0.0, 1.0
    G = K @ Kt if K.shape[1] <= K.shape[2] else Kt @ K
    for squaring in range(4):
        frobenius = np.maximum(np.sqrt(np.einsum("nij,nij->n", G, G)), 1e-300)[:, None, None]
        log, power = log + power * np.log(frobenius), power / 2
        if squaring < 3:
            G = (G / frobenius) @ (G / frobenius)
    return np.asarray((size * np.exp(0.5 * log))[:, :, 0] * (1 + 1e-10))


class Chain:
    """Errors propagated over several layers at once: ``||dx_m|| <= sum over i of ||K_im|| fresh_i``
    for every row.

    `kappa` is ``{(i, m): (rows, 1)}``, bounds on the norms of the products of the layers from i to
    m; fresh is the error that enters at a layer, by rounding or from other errors. Without `kappa`
    nothing is capped. `grown` multiplies a fresh error by kappa.
    """

    def __init__(
        self, kappa: dict[tuple[int, int], Floats] | None, grown: Callable[..., Any] = scaled
    ) -> None:
        self.kappa, self.grown = kappa, grown
        self.fresh: dict[int, Any] = {}

    def cap(self, m: int, error: Any, fresh: Any) -> Any:
        """Return `error` at layer m (an `Err`, or another object with a method `held`) with its
        norms capped by the bound of the chain; record `fresh` as what enters at m.
        """
        if self.kappa is None:
            return error
        total = fresh
        for i, before in self.fresh.items():
            total = total + self.grown(before, self.kappa[min(i, m), max(i, m)])
        self.fresh[m] = fresh
        return error.held(total)


class Operand:
    """A matrix A (m, k) that errors are multiplied by: ``x A'`` is `Err.across`, ``x A`` is
    `Err.back`.
    """

    def __init__(self, A: Floats) -> None:
        self.A, self.abs, self.norm = A, np.abs(A), spectral_bound(A)
        self.rows, self.cols = norms(self.abs)[:, 0], norms(self.abs.T)[:, 0]


class Err:
    """Bounds on a matrix of errors: `E` on each entry, `nu` (rows, 1) on the norm of each row.

    The smaller one counts.
    """

    def __init__(self, E: Floats, nu: Floats | None = None) -> None:
        rows = norms(E)
        self.nu = rows if nu is None else np.minimum(rows, nu)
        self.E = E if nu is None else np.minimum(E, self.nu)

    def __add__(self, other: Err) -> Err:
        return Err(self.E + other.E, self.nu + other.nu)

    def held(self, nu: Floats) -> Err:
        """Return these bounds with the norms capped at `nu`."""
        return Err(self.E, np.minimum(self.nu, nu))

    def times(self, x: Floats) -> Err:
        """Return bounds on (the error) * x, elementwise, for x >= 0."""
        return Err(scaled(self.E, x), scaled(self.nu, x.max(axis=1, keepdims=True)))

    def across(self, A: Operand) -> Err:
        """Return bounds on (the error) A'."""
        E = np.minimum(product(self.E, A.abs.T), scaled(self.nu, A.rows))
        return Err(E, scaled(self.nu, A.norm))

    def back(self, A: Operand) -> Err:
        """Return bounds on (the error) A."""
        E = np.minimum(product(self.E, A.abs), scaled(self.nu, A.cols))
        return Err(E, scaled(self.nu, A.norm))


def at_most(x: Floats, dx: Err | None) -> Floats:
    """Return |x| plus the bound on its error; dx None means that x is exact."""
    return np.abs(x) if dx is None else np.abs(x) + dx.E


class Arithmetic:
    """Rounding model of a dtype and a choice of kernels: how many additions their sums chain.

    The engine reports how the kernels split their sums: see `fastcurv._engine.summation`. "numpy"
    is the arithmetic of these bounds' own passes, whose matrix products are BLAS's and may add in
    any order.

    Parameters
    ----------
    dtype : numpy.dtype
    layout : dict
        `Curvature.layout`: rows of a chunk and of a panel (0: layer-wide, no panels), groups of
        panels, kernels; "rows" if these rows are a part of that many, whose sums are made together.
    N : int
        Number of rows in all.
    """

    def __init__(self, dtype: DTypeLike, layout: Mapping[str, Any], N: int) -> None:
        info = np.finfo(dtype)
        self.u, self.eta = float(info.eps) / 2, float(info.smallest_subnormal)
        self.tiny, self.max = float(info.tiny), float(info.max)
        self.kernels, self.own = layout["arch"], layout["arch"] == "numpy"
        self.sums = _engine.summation("blas" if self.own else self.kernels, np.dtype(dtype).name)
        self.N, self.chunk = N, min(int(layout["chunk"]), max(N, int(layout.get("rows", 0))))
        self.panel, self.groups = int(layout["panel"]), int(layout["groups"])
        self.elementary = self.u * (4 if self.own else 1) * ELEMENTARY
        # gamma of sums and of means over all rows (batch normalisation), set by `NormRounding`
        self.rows_gamma = self.mean_gamma = np.inf

    def gamma(self, k: float) -> float:
        """Return ``k u / (1 - k u)``, the bound for k successive roundings, in any order."""
        return gamma_of(k, self.u)

    def depth(self, k: int, terms: int) -> int:
        """Return how many roundings a number passes through in a sum of `terms` matrix products of
        inner dimension k, one more for a number that the sum is added to.
        """
        if self.own:  # one BLAS product for each term, then their sum
            return k + terms + 2
        most = int(self.sums["slice"])
        if not most:
            return terms * k + 1
        return min(terms * k, most) + terms * -(-k // most) + 1

    def _partial_sums(self) -> int:
        """Return the number of additions of partial sums over rows: panels of a group, groups,
        chunks, and the l2 term.
        """
        chunks = -(-self.N // self.chunk)
        if not self.panel:
            return chunks + 1
        panels = -(-self.chunk // self.panel)
        groups = max(1, min(self.groups, panels))
        return chunks + 1 + groups + -(-panels // groups)

    def over_rows(self, terms: int) -> int:
        """Return the roundings in the weights' part of gradient and product, ``rdelta' a + delta'
        ra``, of `terms` such products.
        """
        if self.sums["from_c"] and not self.own:  # each sum is added to the last one, in place
            return terms * self.N + self._partial_sums() + 1
        return self.depth(self.panel or self.chunk, terms) + self._partial_sums()

    def over_columns(self) -> int:
        """Return the roundings in the biases' part, a sum over rows. The rows of a panel are one
        chain of additions, or one product; without panels (layer-wide kernels), the rows of an item
        (hidden layers) or of a block (the last layer) are.
        """
        rows, s = self.panel or self.chunk, self.sums
        if s["from_c"]:
            return self.N + self._partial_sums() + 1
        if not self.panel and not self.own:
            item = min(rows, int(s["item_rows"]) or rows)
            items = -(-rows // int(s["items_of"])) if s["items_of"] else 1
            blocks = int(s["block_rows"]) - (-rows // int(s["block_rows"]))
            rows = max(item + items, blocks)
        return rows + self._partial_sums() + 1


# --- activations
# --------------------------------------------------------------------------------------------------


class Phi:
    """The activation and its derivatives phi, phi', phi'' at z with bounds on their errors, z
    itself being off by at most `dz` (an `Err`).

    Attributes
    ----------
    a, p, q : ndarray
        Values of phi, phi', phi''; p is None if phi' is 1 everywhere, q None if phi'' is 0.
    fresh : ndarray (rows, 1)
        Norms of the part of da that is not phi' times the propagated error of z: what the `local`
        part of dz, rounding and the curvature of phi add.
    da, dp, dq : Err
        By the mean value theorem: ``|da| <= |p| dz + S2 dz^2 / 2``, ``|dp| <= |q| dz + S3 dz^2 /
        2``, ``|dq| <= S3 dz``, with S2 and S3 bounds on phi'' and phi''' over z +- dz, so that
        saturated units stay saturated. Where z may lie on the other side of a kink, the jump is
        added.
    derived : bool
        True where the engine computes phi' and e phi'' from a and delta: tanh ``1 - a^2`` and ``-2
        a delta``, sigmoid ``a - a^2`` and ``(1 - 2 a) delta``. Then the error of a enters phi' too,
        and the absolute error of phi' is about u, however small phi' is.
    """

    a: Floats
    p: Any
    q: Any
    da: Err
    dp: Any
    dq: Any
    fresh: Floats

    def __init__(
        self,
        name: str,
        z: Floats,
        dz: Err,
        arithmetic: Arithmetic,
        skip: bool = False,
        local: Err | None = None,
    ) -> None:
        u, t = arithmetic.u, dz.E
        first = t if local is None else local.E
        self.name, own, row = name, arithmetic.own, ACTIVATIONS[name]
        self.derived = row.of_a is not None and not skip and not own
        self.a, self.p, self.q, sizes = row.derivatives(z)
        if self.p is None:
            self.da, self.dp, self.dq, self.fresh = dz, None, None, norms(first)
            return
        crossing = (np.abs(z) <= t) & (t > 0) if row.kink else False
        slope = np.where(crossing, 1.0, np.abs(self.p))
        if self.q is None:
            bent = self.p != 1
            rest = 2 * u * np.abs(self.a) * bent
            rest = rest + arithmetic.eta * (bent & (self.p > 0) & ((z != 0) | (t > 0)))
            self.da, self.fresh = (
                dz.times(slope) + Err(rest),
                norms(scaled(self.p, first)) + norms(rest + scaled(slope - self.p, t)),
            )
            self.dp, self.dq = Err(crossing * row.kink + 2 * u * self.p * bent), None
            return
        assert row.curved is not None
        S2, S3 = row.curved(z, t)
        floor = np.where(np.abs(z) > 1, FLOOR * arithmetic.tiny, arithmetic.eta)
        bend = np.where(crossing, 1.0, np.abs(self.q))
        # these kernels compute exp(-z z / 2) directly, whose relative error grows with z z
        plain = row.gaussian and arithmetic.kernels in ("reference", "numpy")
        c = arithmetic.elementary * (1 + z * z if plain else 1)
        here: Any = (c * sizes[0] + floor) * ((z != 0) | (self.a != 0) | (t > 0))
        self.da = dz.times(slope + 0.5 * t * S2) + Err(here)
        self.fresh = norms(scaled(np.abs(self.p), first)) + norms(
            here + scaled(slope - np.abs(self.p) + 0.5 * t * S2, t)
        )
        if self.derived:
            here = here * (2 * sizes[0] + row.of_a + here) + 2 * u * (self.a**2 + self.p)
        else:
            here = c * sizes[1]
        self.dp = dz.times(bend + 0.5 * t * S3) + Err(here + floor)
        self.dq = dz.times(S3) + Err(c * sizes[2] + floor + crossing * row.kink)

    def bent(self, d: Floats, dd: Err, r: Arithmetic) -> tuple[Floats, Err]:
        """Return (e phi'', its Err) as computed from delta and a."""
        factor = (ACTIVATIONS[self.name].of_a or 0.0) - 2 * self.a
        eq, da = factor * d, self.da.E
        error = dd.times(np.abs(factor) + 2 * da) + self.da.times(2 * np.abs(d))
        size = at_most(d, dd)
        rounding = 3 * r.u * (2 * (np.abs(self.a) + da) * size + np.abs(eq))
        return eq, error + Err(rounding + 2 * r.eta * (size > 0))

    def curvature(self, R: Any, e: Floats, de: Err, d: Floats, dd: Err) -> tuple[Any, Any]:
        """Return (e phi'', its Err), computed from delta if `derived`; (None, None) where phi'' is
        0.
        """
        if self.derived:
            return self.bent(d, dd, R.arithmetic)
        if self.q is None:
            return None, None
        eq, deq, _ = R.times(e, de, self.q, self.dq)
        return eq, deq


# --------------------------------------------------------------------------------------------------
# Arrays with a bound on the error of each entry, propagated through arithmetic and batch
# normalisation.


class Num:
    """An array A with a bound E on the error of each entry, computed in the `Arithmetic` r."""

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
        """Return the sum over the rows, accumulated in double precision and rounded to the
        dtype.
        """
        E, A = self.E.sum(axis=0), self.A.sum(axis=0)
        return self._rounded(A, E + self.r.rows_gamma * (np.abs(self.A).sum(axis=0) + E))

    def mean(self) -> Num:
        total = self.sum()
        return self._rounded(total.A / len(self.A), total.E / len(self.A))

    def normalised(self) -> tuple[Num, Num]:
        """Return (h, s): ``h = (z - mean) s``, ``s = 1 / sqrt(variance + eps)`` of the columns.

        E is infinite for columns whose errors reach the standard deviation. The mean is computed in
        double precision, then corrected by the mean of the centred column, so that it is accurate
        to its last digits.
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


# --------------------------------------------------------------------------------------------------
# Bounds on the errors of sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``.


class Sums:
    """Bounds on the errors of one layer's ``x'y`` summed over rows, and of the sum of the rows of
    x: see the module docstring of `fastcurv.certify.bounds`.

    `value` and `b_value` are the sums themselves, `scales` the sums for gamma and beta, if any.
    """

    def __init__(self, shape: tuple[int, int], spectral_a: float, spectral_d: float) -> None:
        self.B, self.value = np.zeros((2, *shape))
        self.b, self.b_value = np.zeros((2, shape[0]))
        self.local = self.b_local = self.b_rows = 0.0
        self.spectral_a, self.spectral_d = spectral_a, spectral_d
        self.terms: dict[str, Floats] = {}
        self.scales: tuple[Num, ...] = ()

    def add(self, tag: str, x: Floats, dx: Err, y: Floats, dy: Err | None, gamma: float) -> None:
        """Add some rows of a term x'y; dy None means that y is exact."""
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
        """Add some rows of the bias's part, the sum of the rows of x."""
        self.b += _off(at_most(x, dx), dx, gamma).sum(axis=0)
        self.b_value += x.sum(axis=0)
        self.b_local += float(scaled(gamma, (norms(np.abs(x)) + dx.nu).sum()))
        self.b_rows += float(dx.nu.sum())

    def values(self, bias: bool) -> list[Floats]:
        """Return the sums themselves, in the order of the parameters."""
        return [self.value.ravel()] + [self.b_value] * bias + [x.A for x in self.scales]

    def bounds(self, eta: float, ends: float) -> list[float]:
        """Return bounds on the errors of the weights' part, of the bias's, and of those of gamma
        and beta.
        """
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
    """Return the error that entries of sizes X, off by dx, contribute to a sum with factor
    gamma.
    """
    return np.asarray(gamma * X + dx.E + ETA * (X > 0))
