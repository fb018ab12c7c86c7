"""Numbers with bounds on their errors, for passes that are written like the equations at the head
of ``fastcurv/_engine/passes.pyx``.

`Enclosure` is a matrix (rows, m) with an `Errors`, which bounds the error of each entry and the
norm of the errors of each row. `enclose_linear_map`, `ActivationDerivatives`, sums and products
propagate errors and add the rounding errors of the kernels (`RoundingModel`). Bounds on entries
alone grow fast with depth: without the bounds on norms, results are up to 80 000 times as large for
twelve hidden layers.
Two other types hold less: `RowMatrices` (`dense_hessian`) holds a matrix for each row, and
`PreciseEnclosure` (`precise`) holds numbers with a precision of about 100 bits.

All arrays here are float64; bounds are >= 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _engine
from .._engine import BATCH_NORM_EPS
from ..common.linalg import eigh, rounding_gamma
from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..common.vectors import safe_norm, safe_row_norms
from ..structure.tables import activation_spec

# maximum error of a computed phi, phi', phi'' or term of a loss row, in units of roundoff; the
# largest measured error is 10
MAX_ELEMENTARY_ERROR_ULPS = 16.0
# maximum absolute error of saturated phi, phi', phi'', which may be flushed to 0, in units of the
# smallest normal number; the tail of gelu'' needs this value
UNDERFLOW_FACTOR = 4096.0
MIN_NORMAL = float(np.finfo(float).tiny)
SMALLEST_SUBNORMAL = float(np.finfo(float).smallest_subnormal)
EPS = float(np.finfo(float).eps)
# factor by which bounds are enlarged to cover the rounding errors of their own computation, which
# consists of products of few numbers and sums of at most 1e5 squares
NORM_ROUND_UP_FACTOR = 1 + 1e-9
# minimum magnitude at which neither a product nor its rounding error has underflowed
MIN_MAGNITUDE_WITHOUT_UNDERFLOW = 1e-290


def flushes_subnormals() -> bool:
    """Return True if the arithmetic of this thread flushes subnormal numbers to 0. The error model
    does not allow this.
    """
    return MIN_NORMAL * 0.5 == 0


def multiply_rounded_up(x: Any, y: Any) -> Any:
    """Return ``x * y`` entry by entry for magnitudes x, y >= 0, rounded up if a product may
    underflow. An entry is 0 only if x or y is 0.
    """
    product = np.asarray(x * y)
    if product.min(initial=1.0) >= MIN_MAGNITUDE_WITHOUT_UNDERFLOW:
        return product
    return product + SMALLEST_SUBNORMAL * ((x > 0) & (y > 0))


def matmul_rounded_up(X: Floats, Y: Floats) -> Floats:
    """Return ``X @ Y`` for magnitudes X, Y >= 0, rounded up if a product may underflow. An entry is
    0 only if every term of its sum has a factor 0.
    """
    product = X @ Y
    if _smallest_positive_entry(X) * _smallest_positive_entry(Y) >= MIN_MAGNITUDE_WITHOUT_UNDERFLOW:
        return product
    return np.asarray(
        product + SMALLEST_SUBNORMAL * ((X > 0).astype(float) @ (Y > 0).astype(float))
    )


def _smallest_positive_entry(X: Floats) -> float:
    """Return the smallest positive number in X, or infinity if there is none."""
    least = X.min(initial=np.inf)
    return float(least if least > 0 else X.min(where=X > 0, initial=np.inf))


def row_norms(E: Floats) -> Floats:
    """Return the Euclidean norms (rows, 1) of the rows of E, rounded up if a norm may underflow."""
    norms = safe_row_norms(E)[:, None]
    return (
        norms
        if norms.min(initial=1.0) >= MIN_MAGNITUDE_WITHOUT_UNDERFLOW
        else np.asarray(norms + SMALLEST_SUBNORMAL * (norms > 0))
    )


def norm(x: ArrayLike) -> float:
    """Return the Euclidean norm of all entries of x, computed in float64. Bounds use this function
    because, unlike `safe_norm`, it rounds up if the norm underflows.
    """
    size = safe_norm(np.asarray(x, dtype=float))
    return size + SMALLEST_SUBNORMAL * (size > 0)


def spectral_norm_bound(A: Floats) -> float:
    """Return an upper bound on ``||A||_2``: the smaller of ``sqrt(||A||_1 ||A||_inf)`` and a bound
    from the smaller Gram matrix G of A. Return infinity or NaN if A is not finite.

    If the smaller side k of A is at most 256, the bound from G is exact to rounding. Otherwise it
    is ``||G^16||_F^(1/32)``, which is at most a factor of ``k^(1/64)`` too large.
    """
    size = float(np.abs(A).max(initial=0.0))
    if not 0 < size < np.inf:
        return size
    A = A / size
    G = A @ A.T if len(A) < A.shape[1] else A.T @ A
    sizes = np.abs(A)
    sums = np.sqrt(sizes.sum(axis=0).max()) * np.sqrt(sizes.sum(axis=1).max())
    return float(
        size * min(norm_bound_from_gram(G, max(A.shape)), NORM_ROUND_UP_FACTOR * sums)
        + SMALLEST_SUBNORMAL
    )


def norm_bound_from_gram(G: Floats, rows: int) -> float:
    """Return an upper bound on ``||F||_2`` from the computed Gram matrix ``G = F'F`` of a matrix F
    (rows, m). The bound includes the rounding errors of G, which are at most ``gamma(rows)
    trace(G)``, and the errors of the computed eigenvalues of G, which are smaller.
    """
    m = len(G)
    slack = 8 * (rows + m**1.5) * EPS * np.trace(G) + m * rows * MIN_NORMAL
    return float(np.sqrt(gram_eigenvalue_bound(G) + slack))


def gram_eigenvalue_bound(G: Floats) -> float:
    """Return an upper bound on the largest eigenvalue of a positive semidefinite matrix G. The
    bound does not include rounding errors of G itself. Return infinity or NaN if G is not finite.
    """
    size = float(np.abs(G).max(initial=0.0))
    if not 0 < size < np.inf or len(G) == 1:
        return size
    G = G / size
    slack = 1 + 4 * len(G) * np.finfo(float).eps
    if len(G) <= 256:
        values, _, errors = eigh(G)
        return size * (float(values[-1] + errors[-1]) * slack)
    log = 0.0
    power = 1.0
    for _ in range(4):  # ||G^16||_F^(1/16) by squaring
        frobenius = float(np.linalg.norm(G))
        log += power * math.log(frobenius)
        power /= 2
        G = G / frobenius
        G = G @ G
    return size * slack * math.exp(log + power * math.log(float(np.linalg.norm(G))))


class RightOperand:
    """A matrix A (m, k) that is used in products ``x A'`` with rows x (rows, k).

    `abs` holds |A|, `norm` an upper bound on ``||A||_2``, and `rows` (m,) and `cols` (k,) the norms
    of the rows and columns of A. The property `T` is the `RightOperand` of the transpose.
    """

    def __init__(self, A: Floats) -> None:
        self.A = A
        self.abs = np.abs(A)
        self.norm = spectral_norm_bound(A)
        self.rows = row_norms(self.abs)[:, 0]
        self.cols = row_norms(self.abs.T)[:, 0]

    @property
    def T(self) -> RightOperand:
        """The `RightOperand` of the transpose of A."""
        other = copy(self)
        other.A = self.A.T
        other.abs = self.abs.T
        other.rows = self.cols
        other.cols = self.rows
        return other


class Errors:
    """Bounds on a matrix of errors. `E` (rows, m) bounds the magnitude of each entry, and `nu`
    (rows, 1) bounds the norm of each row. Each of the two is reduced where the other one implies a
    smaller bound.
    """

    def __init__(self, E: Floats, nu: Floats | None = None) -> None:
        rows = row_norms(E)
        self.nu = rows if nu is None else np.minimum(rows, nu)
        self.E = E if nu is None else np.minimum(E, self.nu)

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.E + other.E, self.nu + other.nu)

    def multiply(self, x: Floats) -> Errors:
        """Return bounds on the entrywise product of the errors and x (rows, m), for x >= 0."""
        return Errors(
            multiply_rounded_up(self.E, x),
            multiply_rounded_up(self.nu, x.max(axis=1, keepdims=True)),
        )

    def _multiply_transposed(self, A: RightOperand) -> Errors:
        """Return bounds on the matrix of errors times A'. They do not include the rounding of this
        product.
        """
        E = np.minimum(matmul_rounded_up(self.E, A.abs.T), multiply_rounded_up(self.nu, A.rows))
        return Errors(E, multiply_rounded_up(self.nu, A.norm))


class RoundingModel:
    """The rounding model of a dtype and of the kernels in use. It holds the unit roundoff `u`, the
    smallest subnormal number `eta`, and the number of successive roundings in each sum that the
    kernels compute.

    The engine reports how the kernels split sums; see `fastcurv._engine.summation_order`. The name
    "numpy" denotes the passes that compute these bounds. Their matrix products come from BLAS and
    may add in any order.

    Parameters
    ----------
    dtype : numpy.dtype
        float32 or float64, in which the kernels compute.
    layout : dict
        `Curvature.layout`, with the keys "chunk" (number of rows in a chunk), "panel" (number of
        rows in a panel, 0 for layer-wide kernels, which have no panels), "panels" (number of panels
        in a chunk), "groups" (number of groups of panels) and "arch" (name of the kernels).
    N : int
        Number of rows of X.
    """

    def __init__(self, dtype: DTypeLike, layout: Mapping[str, Any], N: int) -> None:
        info = np.finfo(dtype)
        self.u = float(info.eps) / 2
        self.eta = float(info.smallest_subnormal)
        self.tiny = float(info.tiny)
        self.max = float(info.max)
        self.kernels = layout["arch"]
        self.own = layout["arch"] == "numpy"
        self.sums = _engine.summation_order(
            "blas" if self.own else self.kernels, np.dtype(dtype).name
        )
        self.N = N
        self.chunk = min(int(layout["chunk"]), N)
        self.panel = int(layout["panel"])
        self.groups = int(layout["groups"])
        # Because panels are aligned to cache lines, there may be one panel more than the number of
        # rows divided by the panel length.
        self.panels = max(int(layout.get("panels", 0)), -(-self.chunk // max(1, self.panel)))
        self.elementary = self.u * (4 if self.own else 1) * MAX_ELEMENTARY_ERROR_ULPS
        # roundoff factors gamma of sums and of means over all rows (batch normalisation), set by
        # `ErrorPass`
        self.rows_gamma = self.mean_gamma = np.inf
        self.overflow = False  # True if a number may have overflowed

    def gamma(self, k: float) -> float:
        """Return ``k u / (1 - k u)``, a bound on the relative error of k successive roundings in
        any order, or infinity if k u >= 1/2.
        """
        return rounding_gamma(k, self.u)

    def n_matmul_roundings(self, k: int, terms: int) -> int:
        """Return the maximum number of roundings that a term undergoes in a sum of `terms` matrix
        products of inner dimension k. The number includes one rounding for adding the sum to
        another number.
        """
        # BLAS computes one product for each term; the products are added afterwards.
        if self.own:
            return k + terms + 2
        slice_length = int(self.sums["slice"])
        if not slice_length:
            return terms * k + 1
        return min(terms * k, slice_length) + terms * -(-k // slice_length) + 1

    def record_overflow(self, size: Floats) -> None:
        """Set the attribute `overflow` to True if an entry of `size`, an array of magnitudes of
        numbers in the engine, is NaN or reaches the largest number of the dtype.
        """
        if not size.max(initial=0.0) < self.max:
            self.overflow = True

    def local_error_bounds(self, size: Floats, k: int, terms: int) -> Errors:
        """Return bounds (`Errors`) on the rounding errors of a sum of `terms` matrix products of
        inner dimension k.

        Each entry of `size` (rows, m) is the sum of the absolute values of the terms of that entry.
        A bound is 0 only where `size` is 0.
        """
        self.record_overflow(size)
        depth = self.n_matmul_roundings(k, terms) + 1
        return Errors(self.gamma(depth) * size + (size > 0) * (depth * self.eta))

    def n_partial_sums(self) -> int:
        """Return the number of additions that combine partial sums over rows: the sums of the
        panels of a group, of the groups, of the chunks, and the l2 term.
        """
        chunks = -(-self.N // self.chunk)
        if not self.panel:
            return chunks + 1
        groups = max(1, min(self.groups, self.panels))
        return chunks + 1 + groups + -(-self.panels // groups)

    def n_weight_roundings(self, terms: int) -> int:
        """Return the maximum number of roundings of a term in the weight part of a gradient or
        product, ``rdelta' a + delta' ra``. The weight part is a sum over rows of `terms` matrix
        products.
        """
        # The kernel adds each product to the running sum in place.
        if self.sums["from_c"] and not self.own:
            return terms * self.N + self.n_partial_sums() + 1
        return self.n_matmul_roundings(self.panel or self.chunk, terms) + self.n_partial_sums()

    def n_bias_roundings(self) -> int:
        """Return the maximum number of roundings of a term in the bias part of a gradient or
        product, which is a sum over rows.

        The rows of a panel are added in one chain or by one matrix product. Layer-wide kernels have
        no panels: they add in one chain the rows of a work item (hidden layers) or of a block (the
        last layer).
        """
        rows = self.panel or self.chunk
        s = self.sums
        if s["from_c"]:
            return self.N + self.n_partial_sums() + 1
        if not self.panel and not self.own:
            item = min(rows, int(s["item_rows"]) or rows)
            items = -(-rows // int(s["items_of"])) if s["items_of"] else 1
            blocks = int(s["block_rows"]) - (-rows // int(s["block_rows"]))
            rows = max(item + items, blocks)
        return rows + self.n_partial_sums() + 1


# --------------------------------------------------------------------------------------------------
# The numbers of the passes, with bounds on their errors.


class Enclosure:
    """A computed matrix x (rows, m) with bounds `dx`, an `Errors`, on its errors.

    Each operation adds its own rounding errors, according to the `RoundingModel` r.
    """

    def __init__(self, x: Floats, dx: Errors, r: RoundingModel) -> None:
        self.x = x
        self.dx = dx
        self.r = r

    @property
    def magnitude(self) -> Floats:
        """The absolute values (rows, m) of x plus the bounds on its errors."""
        return np.asarray(np.abs(self.x) + self.dx.E)

    def _add_rounding_error(self, x: Floats, dx: Errors, lost: Any = 0.0) -> Enclosure:
        """Return an `Enclosure` of x whose error bound is dx plus the error of one rounding. `lost`
        bounds the effect of underflow.
        """
        size = np.abs(x) + dx.E
        self.r.record_overflow(size)
        return Enclosure(x, dx + Errors(self.r.u * size + lost), self.r)

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.x, self.dx, self.r)

    def __add__(self, other: Enclosure) -> Enclosure:
        return self._add_rounding_error(self.x + other.x, self.dx + other.dx)

    def __sub__(self, other: Enclosure) -> Enclosure:
        return self + -other

    def __mul__(self, p: Enclosure | None) -> Enclosure:
        """Return the entrywise product with p, where None means that all entries of p are 1."""
        if p is None:
            return self
        size = self.magnitude
        most = np.abs(p.x)
        moves = (size > 0) & (most + p.dx.E > 0)
        return self._add_rounding_error(
            self.x * p.x, self.dx.multiply(most) + p.dx.multiply(size), self.r.eta * moves
        )

    # --- sums and means of columns over all rows

    def _rounded_row(self, x: Floats, E: Floats) -> Enclosure:
        return self._add_rounding_error(
            x[None], Errors(E[None]), lost=4 * self.r.eta * (np.abs(x) + E > 0)[None]
        )

    def sum(self) -> Enclosure:
        """Return the sum (1, m) over the rows, accumulated in double precision and rounded to the
        dtype.
        """
        E = self.dx.E.sum(axis=0)
        x = self.x.sum(axis=0)
        return self._rounded_row(x, E + self.r.rows_gamma * (np.abs(self.x).sum(axis=0) + E))

    def mean(self) -> Enclosure:
        """Return the mean (1, m) over the rows."""
        total = self.sum()
        N = len(self.x)
        return self._rounded_row(total.x[0] / N, total.dx.E[0] / N)

    def normalise_columns(self) -> tuple[Enclosure, Enclosure]:
        """Return the pair (h, s) for this matrix z (rows, m): ``s = 1 / sqrt(variance + eps)`` (1,
        m) and ``h = (z - mean) s`` (rows, m), with the mean and variance of each column and ``eps =
        BATCH_NORM_EPS``.

        The error bound is infinite for a column whose errors reach its standard deviation. The mean
        is computed in double precision and corrected by the mean of the centred column, so that it
        is accurate to its last digits.
        """
        x = self.x
        E = self.dx.E
        gamma = self.r.rows_gamma
        mean = x.mean(axis=0)
        lost = gamma * np.abs(x).mean(axis=0)
        spread = np.abs(x - mean).mean(axis=0)
        corrected = mean + (x - mean).mean(axis=0)
        off = E.mean(axis=0) + gamma * (spread + lost) + self.r.mean_gamma * np.abs(corrected)
        size = np.sqrt(((x - corrected) ** 2).mean(axis=0) + BATCH_NORM_EPS)
        low = size - np.sqrt((E**2).mean(axis=0)) - gamma * (size + lost)
        reach = np.where(low > 0, 1 / np.where(low > 0, low, 1) - 1 / size, np.inf)
        s = self._rounded_row(1 / size, reach)
        return (self - self._rounded_row(corrected, off)) * s, s


def exact_enclosure(x: NDArray[np.inexact], r: RoundingModel) -> Enclosure:
    """Return x (rows, m) with error bounds of 0. A vector x (m,) becomes (1, m)."""
    values = np.atleast_2d(x).astype(float)
    dx = Errors.__new__(Errors)
    dx.E = np.zeros(values.shape)
    dx.nu = np.zeros((len(values), 1))
    return Enclosure(values, dx, r)


def enclose_linear_map(
    x: Enclosure | None,
    W: RightOperand,
    b: Floats | float = 0.0,
    y: Enclosure | None = None,
    V: RightOperand | None = None,
    terms: int = 1,
) -> Enclosure:
    """Return the `Enclosure` of ``x W' + y V' + b``, with bounds on its errors. The engine computes
    this as a sum of `terms` matrix products. If x or V is None, its product is left out.
    """
    raise_if_out_of_time()
    first = y if x is None else x
    assert first is not None
    r = first.r
    z = np.zeros((len(first.x), len(W.A))) + b
    size = np.abs(z)
    products = [(a, A) for a, A in ((y, V), (x, W)) if a is not None and A is not None]
    for a, A in products:
        z = z + a.x @ A.A.T
        size = size + matmul_rounded_up(a.magnitude, A.abs.T)
    errors: Errors = r.local_error_bounds(size, W.A.shape[1], terms)
    for a, A in products:
        if a.dx.nu.any():
            errors = errors + a.dx._multiply_transposed(A)
    return Enclosure(z, errors, r)


class ActivationDerivatives:
    """The activation `name` of a layer and its derivatives, phi, phi' and phi'', at the
    pre-activations z.

    Parameters
    ----------
    name : str
        Key of `ACTIVATIONS`.
    z : Enclosure
        Pre-activations (rows, units).
    skip : bool
        True if the layer adds its own input to its output.

    Attributes
    ----------
    a, p, q : Enclosure
        phi, phi' and phi'' with bounds on their errors. p is None if phi' is 1 everywhere, and q is
        None if phi'' is 0 everywhere.
    derived : bool
        True if the engine computes phi' and e phi'' from a and delta, as for tanh and sigmoid.

    Notes
    -----
    Below, dx is the error of x, and S2 and S3 are bounds on phi'' and phi''' over z +- dz. By the
    mean value theorem, ``|da| <= |p| dz + S2 dz^2 / 2``, ``|dp| <= |q| dz + S3 dz^2 / 2`` and
    ``|dq| <= S3 dz``. S2 and S3 are local, so the bounds are small for saturated units. If z +- dz
    contains a kink, the jump of phi' is added to the bound on dp.

    If `derived` is True, phi' and e phi'' are ``1 - a^2`` and ``-2 a delta`` for tanh, and ``a -
    a^2`` and ``(1 - 2 a) delta`` for sigmoid. The error of a is then part of the error of phi', so
    the absolute error of phi' is about u, however small phi' is.
    """

    a: Enclosure
    p: Enclosure | None
    q: Enclosure | None

    def __init__(self, name: str, z: Enclosure, skip: bool = False) -> None:
        r = z.r
        u = z.r.u
        t = z.dx.E
        self.row = row = activation_spec(name)
        self.derived = row.of_a is not None and not skip and not r.own
        self.a = z
        self.p = None
        self.q = None
        a, p, q, sizes = row.derivatives(z.x)
        if p is None:
            return
        moves = (z.x != 0) | (t > 0)
        crossing = (np.abs(z.x) <= t) & (t > 0) if row.kink else False
        slope = np.where(crossing, 1.0, np.abs(p))
        curve = np.zeros_like(p)
        if q is None:
            bent = p != 1
            here = 2 * u * np.abs(a) * bent + r.eta * (bent & (p > 0) & moves)
            dp = Errors(crossing * row.kink + 2 * u * p * bent)
        else:
            # At a kink phi'' exists on each side only, so its bound `row.bend` is used there.
            at_kink = (np.abs(z.x) <= t) & (row.kink > 0)
            S2, S3 = (np.where(at_kink, row.bend, x) for x in row.envelope(z.x, t)[1:])
            floor = np.where(np.abs(z.x) > 1, UNDERFLOW_FACTOR * r.tiny, r.eta)
            # The reference and NumPy kernels compute exp(-z z / 2) directly; the relative error of
            # the result grows with z z.
            plain = row.gaussian and r.kernels in ("reference", "numpy")
            c = r.elementary * (1 + z.x * z.x if plain else 1)
            here = (c * sizes[0] + floor) * (moves | (a != 0))
            curve = 0.5 * t * S2
            off = c * sizes[1]
            if self.derived:
                off = here * (2 * sizes[0] + row.of_a + here) + 2 * u * (a**2 + p)
            bend = np.where(crossing, 1.0, np.abs(q))
            dp = z.dx.multiply(bend + 0.5 * t * S3) + Errors(off + floor)
            self.q = Enclosure(
                q, z.dx.multiply(S3) + Errors(c * sizes[2] + floor + crossing * row.kink), r
            )
        self.a = Enclosure(a, z.dx.multiply(slope + curve) + Errors(here), r)
        self.p = Enclosure(p, dp, r)

    def scaled_second_derivative(self, e: Enclosure, d: Enclosure) -> Enclosure | None:
        """Return ``e phi''`` as an `Enclosure`, or None if phi'' is 0 everywhere. e is the
        derivative of the loss with respect to phi, and d is delta, ``e phi'``. If `derived` is
        True, the result is computed from d and a.
        """
        if not self.derived:
            return None if self.q is None else e * self.q
        r = d.r
        a = self.a.x
        da = self.a.dx
        size = d.magnitude
        factor = (self.row.of_a or 0.0) - 2 * a
        error = d.dx.multiply(np.abs(factor) + 2 * da.E) + da.multiply(2 * np.abs(d.x))
        rounding = 3 * r.u * (2 * (np.abs(a) + da.E) * size + np.abs(factor * d.x))
        return Enclosure(factor * d.x, error + Errors(rounding + 2 * r.eta * (size > 0)), r)


# --------------------------------------------------------------------------------------------------
# Bounds on the errors of sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``.


class RowSums:
    """Accumulator of one layer's sums over rows, ``x'y`` and the sum of the rows of x, with bounds
    on their errors. See the module docstring of `fastcurv.certify.passes`.

    `value` (out, in) and `b_value` (out,) are the sums, and `scales` holds the sums for gamma and
    beta of a layer with batch normalisation.

    Parameters
    ----------
    shape : tuple of int
        Shape (out, in) of the weights of the layer.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.B, self.value = np.zeros((2, *shape))
        self.b, self.b_value = np.zeros((2, shape[0]))
        self.rows = self.b_rows = 0.0  # bounds from the norms of rows
        self.scales: tuple[Enclosure, ...] = ()

    def add_product(self, x: Enclosure, y: Enclosure, gamma: float) -> None:
        """Add ``x'y`` for a block of rows x (rows, out) and y (rows, in). gamma is the roundoff
        factor of the sum over all rows.
        """
        raise_if_out_of_time()
        self.B += matmul_rounded_up(_sum_error_bounds(x, gamma).T, y.magnitude)
        nx = row_norms(np.abs(x.x))
        ny = row_norms(np.abs(y.x))
        dx = x.dx.nu
        dy = y.dx.nu
        if dy.any():
            self.B += matmul_rounded_up(np.abs(x.x).T, y.dx.E)
        self.value += x.x.T @ y.x
        parts = (
            multiply_rounded_up(gamma, multiply_rounded_up(nx + dx, ny + dy)),
            multiply_rounded_up(dx, ny + dy),
            multiply_rounded_up(nx, dy),
        )
        self.rows += float(sum(part.sum() for part in parts))

    def add_bias_rows(self, x: Enclosure, gamma: float) -> None:
        """Add the sum of a block of rows x (rows, out) to the bias part. gamma is the roundoff
        factor of the sum over all rows.
        """
        self.b += _sum_error_bounds(x, gamma).sum(axis=0)
        self.b_value += x.x.sum(axis=0)
        size = (row_norms(np.abs(x.x)) + x.dx.nu).sum()
        self.b_rows += float(multiply_rounded_up(gamma, size) + x.dx.nu.sum())

    def values_by_parameter(self, bias: bool) -> list[Floats]:
        """Return a list of the sums in the order of the parameters: weights as a vector, biases if
        `bias` is True, and gamma and beta of a layer with batch normalisation.
        """
        return [self.value.ravel()] + [self.b_value] * bias + [x.x[0] for x in self.scales]

    def error_bounds(self, eta: float, ends: float) -> list[float]:
        """Return a list of bounds on the norms of the errors of the sums: for the weights, for the
        biases, and for gamma and beta if the layer has these. Underflow changes an entry of the
        weights by at most `eta`, and `ends` is the roundoff factor of the last additions for gamma
        and beta.
        """
        return [
            min(norm(self.B), self.rows) + eta * math.sqrt(self.B.size) * (self.rows > 0),
            min(norm(self.b), self.b_rows),
            *(norm(x.dx.E + ends * x.magnitude) for x in self.scales),
        ]


def _sum_error_bounds(x: Enclosure, gamma: float) -> Floats:
    """Return bounds (rows, m) on the errors that the entries of x contribute to a sum over rows
    whose roundoff factor is gamma.
    """
    return np.asarray(gamma * x.magnitude + x.dx.E + SMALLEST_SUBNORMAL * (x.magnitude > 0))


# --------------------------------------------------------------------------------------------------
# Batch normalisation, for which all rows are in memory at once.
#
# Errors are propagated entry by entry through the normalisation between the linear part of a layer
# and its activation: every `Enclosure` carries a bound, and each operation adds its own rounding.
# The standard deviation is a norm of the centred column, so ``sqrt(variance + eps)`` changes by at
# most the root mean square of the errors of z. All other operations are products, sums and means. A
# unit whose errors reach ``sqrt(variance + eps)`` has no finite bound.


class BatchNormalisation:
    """Batch normalisation of one layer over all rows, ``h = (z - mean) s`` and ``u = gamma h +
    beta``, with its backward pass and the R-passes of both.
    """

    du: Enclosure  # e phi'
    du_mean: Enclosure
    du_h: Enclosure

    def __init__(self, z: Enclosure, gamma: Enclosure, beta: Enclosure) -> None:
        self.gamma = gamma
        self.h, self.s = z.normalise_columns()
        self.u = self.h * gamma + beta
        self.scale = self.s * gamma

    def backward(self, du: Enclosure) -> Enclosure:
        """Return ``delta = s gamma (du - mean du - h mean (du h))`` from du, the derivative of the
        loss with respect to u.
        """
        self.du = du
        self.du_mean = du.mean()
        self.du_h = (du * self.h).mean()
        return (du - self.du_mean - self.h * self.du_h) * self.scale

    def gamma_beta_gradients(self) -> tuple[Enclosure, Enclosure]:
        """Return the pair of gradients (1, units) of the loss with respect to gamma and beta.
        `backward` must be called first.
        """
        return (self.du * self.h).sum(), self.du.sum()

    def r_forward(
        self, rz: Enclosure | None, vgamma: Enclosure, vbeta: Enclosure
    ) -> tuple[Enclosure, tuple[Enclosure, Enclosure]]:
        """Return the pair (ru, turned) for the direction (rz, vgamma, vbeta), where rz is 0 if
        None.

        With c the mean of ``rz h`` and ``rh = s (rz - mean rz - h c)``, ru is ``vgamma h + gamma rh
        + vbeta``, and `turned` is the pair (rh, ``s (vgamma - s c gamma)``), which `r_backward`
        needs.
        """
        h = self.h
        s = self.s
        rz = exact_enclosure(0.0 * h.x, h.r) if rz is None else rz
        c = (rz * h).mean()
        rh = (rz - rz.mean() - h * c) * s
        return h * vgamma + rh * self.gamma + vbeta, (rh, (vgamma - s * c * self.gamma) * s)

    def r_backward(
        self, rdu: Enclosure, turned: tuple[Enclosure, Enclosure] | None
    ) -> tuple[Enclosure, tuple[Enclosure, Enclosure]]:
        """Return the pair (rdelta, (rgamma, rbeta)): rdelta for the linear part of the layer, and
        the sums over rows for gamma and beta. `turned` is the second result of `r_forward`. If it
        is None, only the terms linear in rdu are kept.
        """
        rdu_h = rdu * self.h
        if turned is None:
            rdelta = (rdu - rdu.mean() - self.h * rdu_h.mean()) * self.scale
        else:
            rh, r_scale = turned
            rdu_h = rdu_h + self.du * rh
            D = self.du - self.du_mean - self.h * self.du_h
            inner = rdu - rdu.mean() - rh * self.du_h - self.h * rdu_h.mean()
            rdelta = D * r_scale + inner * self.scale
        return rdelta, (rdu_h.sum(), rdu.sum())
