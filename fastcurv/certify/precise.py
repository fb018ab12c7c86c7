"""Value and gradient of a network objective by passes in extended precision, with a proved bound.

A float64 gradient has a rounding error of about 1e-16 times the size of the terms of its sums; at a
critical point the computed gradient consists mostly of this error. In these passes every number has
about 100 bits (`DoubleDouble`), so that even coarse bounds on the norms of errors, row by row, are
about 1e-25:

    z = a W' + b        dz     = ||W|| da + tau |a| |W| + unit (...)
    a = phi(z)          da     = sup|phi'| dz + unit (...)              [+ the input's]
    e = delta W         de     = ||W|| ddelta + tau |delta| |W|         [+ e's]
    delta = e * phi'    ddelta = sup|phi'| de + ||e|| dp
                        dp     = sup|phi''| dz, 1 where z may lie at a kink
    dW = sum delta' a   ddW    = sum over rows of ddelta (||a|| + da) + ||delta|| da  +  tau ...

with each d a bound on the norm of a row's error, and tau the relative error of a matrix product
(`pair_matmul_error_bound`).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial, reduce
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.caches import cache_last_result
from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..network.objective import Objective
from ..structure.given import (
    EPS,
    LONG_DOUBLE_EPS,
    USER_BOUND_ROUND_UP_FACTOR,
    LossFunction,
)
from ..structure.parameters import (
    divisor_of,
    has_skip_connection,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    replace_zero_weight_rows,
)
from ..structure.tables import activation_spec, loss_spec, one_hot
from .arithmetic import norm, row_norms, spectral_norm_bound
from .passes import gradient_bound, round_to_model_dtype

# --------------------------------------------------------------------------------------------------
# Arithmetic with about 100 bits on arrays: a number is the unevaluated sum of two float64 numbers.
#
# Unlike long double, this arithmetic gives equal results on every machine. It is fast, because
# matrices are split into slices whose entries have so few bits that BLAS computes the products of
# slices without any rounding error (Ozaki, Ogita, Oishi and Rump 2012). Sums and products of
# numbers are error-free transformations (Dekker 1971, Knuth). Guaranteed error bounds:
#
# - `add_pairs`, `multiply_pairs`, `divide_pairs`: relative error `PAIR_ROUNDOFF`;
# - `pair_exp` of numbers <= 0, `pair_expm1`, `pair_tanh`, `pair_sigmoid`: `PAIR_ROUNDOFF` times the
#   result;
# - `pair_softplus`, `pair_normal_density_and_cdf`, `pair_log1p`: `PAIR_ROUNDOFF` times 1 + the
#   result;
# - `pair_matmul`: `pair_matmul_error_bound(k)` times the largest numbers of the row and of the
# column,
#   with k the inner dimension.
#
# `PAIR_UNDERFLOW_BOUND` is added to each of these bounds. They hold if no number overflows, so
# callers check whether the result is finite.

# bound on the relative error of one sum, product or quotient of two `DoubleDouble` numbers
PAIR_ROUNDOFF = 2.0**-94
# upper bound on the effect of underflow in one operation with `DoubleDouble` numbers
PAIR_UNDERFLOW_BOUND = 2.0**-900
N_SLICES = 5  # number of slices into which a matrix is split
# maximum inner dimension of a product of slices that is computed without rounding
MAX_EXACT_INNER_DIM = 1024
_VELTKAMP_SPLITTER = 134217729.0  # 2^27 + 1, which splits a float64 number into two halves


class DoubleDouble(NamedTuple):
    """The number ``hi + lo``, or an array of such numbers, where |lo| is at most half a unit in the
    last place of hi.
    """

    hi: Floats
    lo: Floats

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.hi, -self.lo)

    @property
    def T(self) -> DoubleDouble:
        """The transpose of a matrix of pairs."""
        return DoubleDouble(self.hi.T, self.lo.T)


def pair_from_float(x: Floats | float) -> DoubleDouble:
    """Return a float64 array or number as a `DoubleDouble` with ``lo = 0``."""
    x = np.asarray(x, dtype=float)
    return DoubleDouble(x, np.zeros_like(x))


def two_sum(a: Floats, b: Floats) -> DoubleDouble:
    """Return a + b as a `DoubleDouble`, without error."""
    raise_if_out_of_time()
    s = a + b
    t = s - a
    return DoubleDouble(s, (a - (s - t)) + (b - t))


def _fast_two_sum(a: Floats, b: Floats) -> DoubleDouble:
    """Return a + b as a `DoubleDouble`, without error if |a| >= |b|."""
    s = a + b
    return DoubleDouble(s, b - (s - a))


def two_product(a: Floats, b: Floats) -> DoubleDouble:
    """Return a b as a `DoubleDouble`, without error except for underflow."""
    p = a * b
    x = _VELTKAMP_SPLITTER * a
    y = _VELTKAMP_SPLITTER * b
    a1 = x - (x - a)
    b1 = y - (y - b)
    a2 = a - a1
    b2 = b - b1
    return DoubleDouble(p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2)


def add_pairs(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """Return x + y, rounded to a `DoubleDouble`."""
    s = two_sum(x.hi, y.hi)
    t = two_sum(x.lo, y.lo)
    s = _fast_two_sum(s.hi, s.lo + t.hi)
    return _fast_two_sum(s.hi, s.lo + t.lo)


def add_float_to_pair(x: DoubleDouble, y: Floats | float) -> DoubleDouble:
    """Return x + y, rounded to a `DoubleDouble`, for y in float64."""
    s = two_sum(x.hi, np.asarray(y, dtype=float))
    return _fast_two_sum(s.hi, s.lo + x.lo)


def multiply_pairs(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """Return the entrywise product x y, rounded to a `DoubleDouble`."""
    p = two_product(x.hi, y.hi)
    return _fast_two_sum(p.hi, p.lo + (x.hi * y.lo + x.lo * y.hi))


def multiply_pair_by_float(x: DoubleDouble, y: Floats | float) -> DoubleDouble:
    """Return the entrywise product x y, rounded to a `DoubleDouble`, for y in float64."""
    p = two_product(x.hi, np.asarray(y, dtype=float))
    return _fast_two_sum(p.hi, p.lo + x.lo * y)


def scale_by_power_of_2(x: DoubleDouble, factor: Floats | float) -> DoubleDouble:
    """Return x times a factor that is a power of 2."""
    return DoubleDouble(x.hi * factor, x.lo * factor)


def divide_pairs(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """Return the entrywise quotient x / y, rounded to a `DoubleDouble`."""
    a = x.hi / y.hi
    r = add_pairs(x, -multiply_pair_by_float(y, a))
    b = r.hi / y.hi
    r = add_pairs(r, -multiply_pair_by_float(y, b))
    return add_float_to_pair(_fast_two_sum(a, b), r.hi / y.hi)


def select_pairs(where: NDArray[np.bool_], x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """Return a `DoubleDouble` with the entries of x where the mask `where` is True, and of y
    elsewhere.
    """
    return DoubleDouble(np.where(where, x.hi, y.hi), np.where(where, x.lo, y.lo))


def pair_row_sums(x: DoubleDouble) -> DoubleDouble:
    """Return the sums (rows, 1) of the rows of x (rows, cols). The error of a sum is at most ``cols
    PAIR_ROUNDOFF`` times the sum of the absolute values of its terms.
    """
    total = DoubleDouble(x.hi[:, :1], x.lo[:, :1])
    for j in range(1, x.hi.shape[1]):
        total = add_pairs(total, DoubleDouble(x.hi[:, j : j + 1], x.lo[:, j : j + 1]))
    return total


def pair_column_sums(x: DoubleDouble) -> DoubleDouble:
    """Return the sums over the first axis, added by repeated halving. The error of a sum is at most
    ``64 PAIR_ROUNDOFF`` times the sum of the absolute values of its terms.
    """
    while len(x.hi) > 1:
        half = len(x.hi) // 2
        ends = slice(half), slice(half, 2 * half), slice(2 * half, None)
        low, high, rest = (DoubleDouble(x.hi[rows], x.lo[rows]) for rows in ends)
        x = add_pairs(low, high)
        if len(rest.hi):
            x = DoubleDouble(np.concatenate([x.hi, rest.hi]), np.concatenate([x.lo, rest.lo]))
    return DoubleDouble(x.hi[0], x.lo[0])


# --- products of matrices
# --------------------------------------------------------------------------------------------------


def n_slice_bits(k: int) -> int:
    """Return the largest number of bits of the entries of a slice for which float64 adds k products
    of two entries without rounding.
    """
    return (53 - math.ceil(math.log2(max(k, 2)))) // 2


def pair_matmul_error_bound(k: int) -> float:
    """Return a bound on the error of an entry of `pair_matmul` with inner dimension k, relative to
    the product of the largest magnitude in the row and the largest magnitude in the column.
    """
    inner = min(k, MAX_EXACT_INNER_DIM)
    return 8.0 * k * (N_SLICES * 2.0 ** (-N_SLICES * n_slice_bits(inner)) + 2.0**-99)


class SlicedMatrix:
    """A matrix (m, k), with k <= `MAX_EXACT_INNER_DIM`, as a sum of at most `N_SLICES` slices times
    a power of 2 for each row. Each slice has entries of few bits.
    """

    def __init__(self, A: DoubleDouble) -> None:
        k = n_slice_bits(A.hi.shape[1])
        _, exponents = np.frexp(np.abs(A.hi).max(axis=1, initial=0.0))
        self.exponents = exponents
        self.parts = []
        rest = DoubleDouble(
            np.ldexp(A.hi, -exponents[:, None]), np.ldexp(A.lo, -exponents[:, None])
        )
        for i in range(N_SLICES):
            raise_if_out_of_time()
            shift = 1.5 * 2.0 ** (52 - k * (i + 1))
            here = (rest.hi + shift) - shift
            self.parts.append(here if here.any() else None)
            rest = two_sum(rest.hi - here, rest.lo)


def split_into_slices(A: DoubleDouble) -> list[SlicedMatrix]:
    """Return a list of the `SlicedMatrix` blocks of `MAX_EXACT_INNER_DIM` columns of the matrix A
    (m, k).
    """
    ends = [slice(k, k + MAX_EXACT_INNER_DIM) for k in range(0, A.hi.shape[1], MAX_EXACT_INNER_DIM)]
    return [SlicedMatrix(DoubleDouble(A.hi[:, some], A.lo[:, some])) for some in ends]


def pair_matmul(A: list[SlicedMatrix], B: list[SlicedMatrix]) -> DoubleDouble:
    """Return ``A B'`` (m, n) from the slices of A (m, k) and of B (n, k), which `split_into_slices`
    returns.
    """
    return reduce(add_pairs, map(matmul_of_slices, A, B))


def matmul_of_slices(a: SlicedMatrix, b: SlicedMatrix) -> DoubleDouble:
    """Return ``A B'`` from the slices a of A and b of B, for one block of columns."""
    total = pair_from_float(np.zeros((len(a.exponents), len(b.exponents))))
    for order in range(N_SLICES - 1, -1, -1):
        raise_if_out_of_time()
        for i in range(order + 1):
            raise_if_out_of_time()
            x = a.parts[i]
            y = b.parts[order - i]
            if x is not None and y is not None:
                total = add_float_to_pair(total, x @ y.T)
    exponents = a.exponents[:, None] + b.exponents[None, :]
    return DoubleDouble(np.ldexp(total.hi, exponents), np.ldexp(total.lo, exponents))


# --- elementary functions
# --------------------------------------------------------------------------------------------------

# ln 2 in three parts; the first has 32 bits, so that its product with the integer k is exact
_LN2_PARTS = (0.6931471803691238, 1.9082149292705877e-10, 1.1612227229362532e-26)
_N_HALVINGS = 8  # number of halvings of the argument of exp before its series is summed


def _pair_from_fraction(x: Fraction) -> DoubleDouble:
    hi = float(x)
    return DoubleDouble(np.asarray(hi), np.asarray(float(x - Fraction(hi))))


_INVERSE_FACTORIALS = {n: _pair_from_fraction(Fraction(1, math.factorial(n))) for n in range(1, 6)}
_ROOT_TWO_PI = DoubleDouble(np.asarray(2.5066282746310007), np.asarray(-1.8328579980459167e-16))


def _reduce_exponent(x: DoubleDouble) -> tuple[DoubleDouble, Floats]:
    """Return the pair (p, 2^k) with ``e^x = 2^k (1 + p)`` for x <= 0. Entries of x below -700 are
    replaced by -700.
    """
    x = select_pairs(x.hi < -700.0, pair_from_float(np.full_like(x.hi, -700.0)), x)
    k = np.rint(x.hi / _LN2_PARTS[0])
    r = add_float_to_pair(x, -k * _LN2_PARTS[0])
    r = add_pairs(r, -two_product(k, np.full_like(k, _LN2_PARTS[1])))
    r = scale_by_power_of_2(add_float_to_pair(r, -k * _LN2_PARTS[2]), 0.5**_N_HALVINGS)
    tail = np.zeros_like(r.hi)
    # Terms of degree 6 and more lie below the last bits of the sum, so float64 suffices for them.
    for n in range(10, 5, -1):
        tail = tail * r.hi + 1.0 / math.factorial(n)
    p = pair_from_float(tail)
    for n in range(5, 0, -1):
        p = add_pairs(multiply_pairs(p, r), _INVERSE_FACTORIALS[n])
    p = multiply_pairs(p, r)
    for _ in range(_N_HALVINGS):  # e^2r - 1 = (e^r - 1)(e^r - 1 + 2)
        p = multiply_pairs(p, add_float_to_pair(p, 2.0))
    return p, np.ldexp(1.0, k.astype(int))


def pair_exp(x: DoubleDouble) -> DoubleDouble:
    """Return ``e^x`` for x <= 0. Entries of x below -700 are replaced by -700."""
    p, power = _reduce_exponent(x)
    return scale_by_power_of_2(add_float_to_pair(p, 1.0), power)


def pair_expm1(x: DoubleDouble) -> DoubleDouble:
    """Return ``e^x - 1`` for x <= 0."""
    p, power = _reduce_exponent(x)
    return select_pairs(
        power == 1.0,
        p,
        add_float_to_pair(scale_by_power_of_2(add_float_to_pair(p, 1.0), power), -1.0),
    )


def pair_log1p(e: DoubleDouble) -> DoubleDouble:
    """Return ``log(1 + e)`` for e >= 0, by one Newton step from the float64 result."""
    y = np.log1p(e.hi)
    gain = add_float_to_pair(
        multiply_pairs(add_float_to_pair(e, 1.0), pair_exp(pair_from_float(-y))), -1.0
    )
    return add_float_to_pair(gain, y)


def pair_abs(x: DoubleDouble) -> DoubleDouble:
    """Return |x|."""
    return select_pairs(x.hi < 0, -x, x)


def pair_tanh(x: DoubleDouble) -> DoubleDouble:
    """Return tanh(x), computed as ``-t / (2 + t)`` with ``t = e^(-2|x|) - 1``, with the sign of
    x.
    """
    t = pair_expm1(scale_by_power_of_2(pair_abs(x), -2.0))
    a = divide_pairs(-t, add_float_to_pair(t, 2.0))
    return select_pairs(x.hi < 0, -a, a)


def pair_sigmoid(x: DoubleDouble) -> DoubleDouble:
    """Return the logistic sigmoid ``1 / (1 + e^-x)``."""
    e = pair_exp(-pair_abs(x))
    return divide_pairs(
        select_pairs(x.hi > 0, pair_from_float(np.ones_like(x.hi)), e), add_float_to_pair(e, 1.0)
    )


def pair_softplus(x: DoubleDouble) -> DoubleDouble:
    """Return ``log(1 + e^x)``."""
    return add_pairs(
        select_pairs(x.hi > 0, x, pair_from_float(np.zeros_like(x.hi))),
        pair_log1p(pair_exp(-pair_abs(x))),
    )


def pair_normal_density_and_cdf(x: DoubleDouble) -> tuple[DoubleDouble, DoubleDouble]:
    """Return the density n and the distribution function Phi of the standard normal distribution at
    x, by the series ``Phi = 1/2 + n (x + x^3/3 + x^5/15 + ...)``, whose terms have one sign. If |x|
    is above 12, the values at 12 or -12 are returned.
    """
    t = pair_abs(x)
    t = select_pairs(t.hi > 12.0, pair_from_float(np.full_like(t.hi, 12.0)), t)
    square = multiply_pairs(t, t)
    n = divide_pairs(pair_exp(scale_by_power_of_2(square, -0.5)), _ROOT_TWO_PI)
    term = total = t
    for k in range(3, 1000, 2):
        term = divide_pairs(
            multiply_pairs(term, square), pair_from_float(np.full_like(t.hi, float(k)))
        )
        total = add_pairs(total, term)
        if not (term.hi > 2.0**-110 * total.hi).any():
            break
    half = multiply_pairs(n, total)
    return n, add_float_to_pair(select_pairs(x.hi < 0, -half, half), 0.5)


N_BLOCK_ROWS = 1024  # number of rows in a block, the inner dimension of the sums over rows
# factor by which bounds are enlarged to cover the rounding errors of their own computation
PRECISE_ROUND_UP_FACTOR = 1 + 1e-6


@dataclass
class PreciseEnclosure:
    """A matrix of pairs (rows, m) with bounds `error` (rows, 1) on the norms of the errors of its
    rows.
    """

    value: DoubleDouble
    error: Floats
    size: Floats = field(init=False)  # norms of the rows (rows, 1)
    top: Floats = field(init=False)  # largest entries of the rows (rows, 1)

    def __post_init__(self) -> None:
        sizes = np.abs(self.value.hi)
        self.size = row_norms(sizes)
        self.top = sizes.max(axis=1, keepdims=True)

    def __add__(self, other: PreciseEnclosure) -> PreciseEnclosure:
        value = add_pairs(self.value, other.value)
        return PreciseEnclosure(
            value, self.error + other.error + PAIR_ROUNDOFF * row_norms(np.abs(value.hi))
        )

    def __mul__(self, p: PreciseSlopes) -> PreciseEnclosure:
        d = multiply_pairs(self.value, p.value)
        off = p.off
        error = p.most * self.error + row_norms(np.abs(self.value.hi) * off)
        error = error + self.error * off.max(axis=1, keepdims=True)
        return PreciseEnclosure(d, error + 2 * PAIR_ROUNDOFF * row_norms(np.abs(d.hi)))


class SlicedWeights:
    """A matrix W (m, k) that multiplies rows x (rows, k) from the right, ``x W'``. W is split into
    slices once. `size` is an upper bound on ``||W||_2``.
    """

    def __init__(self, W: Floats, size: float) -> None:
        self.slices = split_into_slices(pair_from_float(W))
        self.norm = size
        self.tau = pair_matmul_error_bound(W.shape[1])
        self.tops = norm(np.abs(W).max(axis=1))

    def multiply_rows(self, x: PreciseEnclosure) -> PreciseEnclosure:
        """Return ``x W'`` as a `PreciseEnclosure` matrix (rows, m)."""
        rounding = self.tau * x.top * self.tops + PAIR_UNDERFLOW_BOUND * (
            (x.top > 0) & (self.tops > 0)
        )
        return PreciseEnclosure(
            pair_matmul(split_into_slices(x.value), self.slices), self.norm * x.error + rounding
        )


class PreciseSlopes(NamedTuple):
    """The slopes phi' (rows, units) of some rows as pairs, `value`, with bounds `off` on the errors
    of the entries and a bound `most` on the magnitudes of the exact slopes.
    """

    value: DoubleDouble
    off: Floats
    most: float


def activation_and_derivative(
    name: str, z: PreciseEnclosure
) -> tuple[PreciseEnclosure, PreciseSlopes]:
    """Return the pair of phi(z), a `PreciseEnclosure`, and phi'(z), a `PreciseSlopes`, for the
    activation `name`.
    """
    row = activation_spec(name)
    assert row.pairs is not None  # nothing is proved with a user-defined activation
    a, p = row.pairs(sys.modules[__name__], z.value)
    rounding = PAIR_ROUNDOFF * 8 * (1 + z.top) * (z.error + z.top > 0)
    # Slopes of 0 and 1 multiply without rounding.
    if not row.bend and not row.leak:
        rounding = np.zeros_like(rounding)
    error = row.lipschitz * z.error + rounding * float(np.sqrt(a.hi.shape[1]))
    off = np.broadcast_to(row.bend * z.error + rounding, a.hi.shape)
    if row.leak is not None:
        off = off + row.kink * ((np.abs(z.value.hi) <= z.error) & (z.error > 0))
    return PreciseEnclosure(a, error), PreciseSlopes(p, off, row.lipschitz)


@dataclass
class RowContribution:
    """The contribution of some rows to the gradient `g` (n,) and to the value of the loss, with
    bounds on the norm of the error of `g` and on the error of the value. Parts can be added.
    """

    g: DoubleDouble
    g_error: float
    value: DoubleDouble
    value_error: float

    def __add__(self, other: RowContribution) -> RowContribution:
        g = add_pairs(self.g, other.g)
        value = add_pairs(self.value, other.value)
        sizes = [norm(p.hi) for p in (self.g, other.g, g)]
        off = 2 * PAIR_ROUNDOFF * sum(abs(float(p.hi)) for p in (self.value, other.value, value))
        return RowContribution(
            g,
            self.g_error
            + other.g_error
            + 2 * PAIR_ROUNDOFF * sum(sizes)
            + PAIR_UNDERFLOW_BOUND * len(g.hi),
            value,
            self.value_error + other.value_error + off + PAIR_UNDERFLOW_BOUND,
        )

    def divide(self, divisor: float) -> RowContribution:
        """Return the `RowContribution` divided by a positive number."""
        g = divide_pairs(self.g, pair_from_float(divisor))
        value = divide_pairs(self.value, pair_from_float(divisor))
        return RowContribution(
            g,
            self.g_error / divisor
            + 2 * PAIR_ROUNDOFF * norm(self.g.hi) / divisor
            + PAIR_UNDERFLOW_BOUND * len(g.hi),
            value,
            self.value_error / divisor
            + 2 * PAIR_ROUNDOFF * abs(float(value.hi))
            + PAIR_UNDERFLOW_BOUND,
        )


class PrecisePasses:
    """A network at theta for passes of rows in double-double arithmetic: its biases and, by layer,
    its weights W and W' split into slices. `ob` is a network objective or an object with the
    attributes model, X, y, loss and sample_weight.
    """

    def __init__(self, ob: Objective | SimpleNamespace, theta: Floats) -> None:
        self.model = ob.model
        self.ob = ob
        layers = layers_of(ob.model, theta)
        self.X, self.y = replace_zero_weight_rows(ob)
        self.biases = [np.zeros(len(W)) if b is None else b for W, b in layers]
        sizes = [spectral_norm_bound(W) for W, _ in layers]
        self.up = [SlicedWeights(W, size) for (W, _), size in zip(layers, sizes, strict=True)]
        self.down = [
            SlicedWeights(np.ascontiguousarray(W.T), size)
            for (W, _), size in zip(layers, sizes, strict=True)
        ]

    def activate(self, l: int, z: PreciseEnclosure) -> tuple[PreciseEnclosure, PreciseSlopes]:
        """Return the pair of phi(z), a `PreciseEnclosure`, and phi'(z), a `PreciseSlopes`, for
        hidden layer l.
        """
        return activation_and_derivative(self.model.activation[l], z)

    def row_contribution(
        self, rows: slice
    ) -> tuple[RowContribution, list[PreciseEnclosure], list[PreciseEnclosure]]:
        """Run the forward pass, the loss and the backward pass for some rows. Return their
        `RowContribution`, without weight decay and before the division by the divisor, and lists of
        z and of ``e = dL/da`` for every hidden layer.
        """
        X = np.array(self.X[rows], dtype=float)
        a = [PreciseEnclosure(pair_from_float(X), np.zeros((len(X), 1)))]
        bends = []
        last = len(self.up) - 1
        zs = [self.apply_layer(0, a[0])]
        es = list[PreciseEnclosure]()
        for l in range(last):
            above, bend = self.activate(l, zs[l])
            a.append(above + a[l] if has_skip_connection(self.model, l) else above)
            bends.append(bend)
            zs.append(self.apply_layer(l + 1, a[l + 1]))
        value, value_error, d = self.loss_and_delta(zs[last], rows)
        grads: list[tuple[DoubleDouble, float]] = []
        for l in range(last, -1, -1):
            grads = self.weight_gradients(d, a[l]) + grads
            if l:
                below = self.down[l].multiply_rows(d)
                es.insert(0, below + es[0] if es and has_skip_connection(self.model, l) else below)
                d = es[0] * bends[l - 1]
        his, los = ([part[0][i].ravel() for part in grads] for i in (0, 1))
        flat = DoubleDouble(np.concatenate(his), np.concatenate(los))
        return (
            RowContribution(flat, norm([error for _, error in grads]), value, value_error),
            zs[:-1],
            es,
        )

    def apply_layer(self, l: int, a: PreciseEnclosure) -> PreciseEnclosure:
        """Return ``z = a W' + b`` of layer l as a `PreciseEnclosure` matrix."""
        z = self.up[l].multiply_rows(a)
        b = self.biases[l]
        value = add_float_to_pair(z.value, b)
        return PreciseEnclosure(
            value, z.error + PAIR_ROUNDOFF * (row_norms(np.abs(value.hi)) + norm(b))
        )

    def weight_gradients(
        self, d: PreciseEnclosure, a: PreciseEnclosure
    ) -> list[tuple[DoubleDouble, float]]:
        """Return a list of pairs (gradient, bound on the norm of its error): ``dW = delta' a`` and,
        if the model has biases, ``db``, the sum of the rows of delta. The argument d is delta.
        """
        error = float((d.error * (a.size + a.error) + d.size * a.error).sum())
        tops = [norm(np.abs(m.value.hi).max(axis=0)) for m in (d, a)]
        error += pair_matmul_error_bound(len(d.size)) * tops[0] * tops[1]
        gradients = [
            (pair_matmul(split_into_slices(d.value.T), split_into_slices(a.value.T)), error)
        ]
        if self.model.bias:
            error = float((d.error + 64 * PAIR_ROUNDOFF * d.size).sum())
            gradients.append((pair_column_sums(d.value), error))
        return gradients

    def loss_and_delta(
        self, z: PreciseEnclosure, rows: slice
    ) -> tuple[DoubleDouble, float, PreciseEnclosure]:
        """Return the weighted sum of the rows' losses, a bound on its error, and delta of the last
        layer, from the outputs z of these rows.
        """
        ob = self.ob
        loss_function = loss_spec(ob.loss).given
        y = (
            self.y[rows]
            if loss_function is not None
            else one_hot(self.y[rows], z.value.hi.shape[1])
        )
        y = np.array(y, dtype=float)
        w = np.ones(len(y)) if ob.sample_weight is None else ob.sample_weight[rows].astype(float)
        w = w[:, None]
        of = {
            "identity": _squared_error_terms,
            "sigmoid": _binary_cross_entropy_terms,
            "softmax": _cross_entropy_terms,
        }
        row = loss_spec(ob.loss)
        terms, terms_error, d, d_error = (
            of[row.link](z, y) if row.given is None else _user_loss_terms(row.given, z, y)
        )
        total = pair_column_sums(multiply_pair_by_float(pair_row_sums(terms), w))
        value = DoubleDouble(total.hi[0], total.lo[0])
        error = float((np.abs(w) * terms_error).sum()) + PAIR_ROUNDOFF * float(np.abs(value.hi))
        return value, error, PreciseEnclosure(multiply_pair_by_float(d, w), np.abs(w) * d_error)


def precise_contribution(ob: Objective, theta: ArrayLike) -> RowContribution:
    """Return the `RowContribution` of all rows of an objective without batch normalisation, without
    the l2 term.
    """
    at = PrecisePasses(ob, round_to_model_dtype(ob, theta))
    parts = (
        at.row_contribution(slice(k, k + N_BLOCK_ROWS))[0]
        for k in range(0, len(ob.X), N_BLOCK_ROWS)
    )
    return reduce(RowContribution.__add__, parts).divide(divisor_of(ob))


def add_l2(l2: float | Floats, theta: Floats, rows: RowContribution) -> RowContribution:
    """Return the `RowContribution` of the weight decay at theta (n,) added to `rows`, the
    `RowContribution` of all rows.
    """
    decay = two_product(np.broadcast_to(l2, theta.shape).astype(float), theta)
    squares = pair_column_sums(scale_by_power_of_2(multiply_pair_by_float(decay, theta), 0.5))
    off = 128 * PAIR_ROUNDOFF * float(np.abs(squares.hi)) + PAIR_UNDERFLOW_BOUND * theta.size
    return rows + RowContribution(decay, 2 * PAIR_ROUNDOFF * norm(decay.hi), squares, off)


# The tuple holds the terms of the loss (rows, m), bounds (rows, 1) on the errors of their row sums,
# delta (rows, m), and bounds (rows, 1) on the norms of the errors of the rows of delta.
Terms = tuple[DoubleDouble, Floats, DoubleDouble, Floats]


def _squared_error_terms(z: PreciseEnclosure, y: Floats) -> Terms:
    gap = add_float_to_pair(z.value, -y)
    size = row_norms(np.abs(gap.hi))
    off = z.error + PAIR_ROUNDOFF * (row_norms(np.abs(z.value.hi)) + row_norms(np.abs(y)))
    rounding = PAIR_ROUNDOFF * (y.shape[1] + 4) * (size + off) ** 2
    return (
        multiply_pairs(gap, gap),
        (2 * size + off) * off + rounding,
        scale_by_power_of_2(gap, 2.0),
        2 * off,
    )


def _binary_cross_entropy_terms(z: PreciseEnclosure, y: Floats) -> Terms:
    terms = add_pairs(pair_softplus(z.value), -multiply_pair_by_float(z.value, y))
    m = y.shape[1]
    target = row_norms(np.abs(y))
    lipschitz = np.sqrt(m) + target
    rounding = 8 * PAIR_ROUNDOFF * (m + 4) * (m + z.size * (1 + target))
    d = add_float_to_pair(pair_sigmoid(z.value), -y)
    return terms, lipschitz * z.error + rounding, d, 0.25 * z.error + 4 * PAIR_ROUNDOFF * lipschitz


def _cross_entropy_terms(z: PreciseEnclosure, y: Floats) -> Terms:
    m = y.shape[1]
    T = np.abs(y).sum(axis=1, keepdims=True)
    at = z.value.hi.argmax(axis=1)[:, None]
    top = DoubleDouble(np.take_along_axis(z.value.hi, at, 1), np.take_along_axis(z.value.lo, at, 1))
    u = add_pairs(z.value, -top)
    u = select_pairs(u.hi > 0, pair_from_float(np.zeros_like(u.hi)), u)
    e = pair_exp(u)
    others = select_pairs(np.arange(m) == at, pair_from_float(np.zeros_like(e.hi)), e)
    rest = pair_row_sums(others)
    terms = multiply_pair_by_float(add_pairs(pair_log1p(rest), -u), y)
    mass = pair_row_sums(pair_from_float(y))
    p = divide_pairs(e, add_float_to_pair(rest, 1.0))
    d = add_float_to_pair(multiply_pairs(p, mass), -y)
    unit = PAIR_ROUNDOFF * (m + 32) * T
    return terms, 2 * T * z.error + unit * (m + 4 * z.size), d, 0.5 * T * z.error + 4 * unit


def _user_loss_terms(loss: LossFunction, z: PreciseEnclosure, y: Floats) -> Terms:
    """Return the `Terms` of a built-in loss given by a function, evaluated in long double. The
    error bounds are infinite if long double has no more bits than double.
    """
    x, moved = _to_long_double(z)
    terms = loss(x, y)
    value, first, second = terms
    own = loss.error_bounds(x, y, terms, LONG_DOUBLE_EPS if LONG_DOUBLE_EPS < EPS else np.inf)
    third = loss.third_derivative_bounds(z.value.hi, y, moved).max(axis=1, keepdims=True)
    axes = (1, 2) if loss.coupled else 1
    bend = (
        np.abs(second) if not loss.coupled else np.sqrt((second * second).sum(axis=axes))[:, None]
    )
    bend = (
        np.asarray(bend, float).max(axis=1, keepdims=True)
        + y.shape[1] * own.max(axis=1, keepdims=True)
        + third * moved
    )
    d_error = (bend * moved + row_norms(own)) * USER_BOUND_ROUND_UP_FACTOR
    slope = row_norms(np.asarray(np.abs(first), float)) + d_error
    value_error = (slope * moved + own.sum(axis=1, keepdims=True)) * USER_BOUND_ROUND_UP_FACTOR
    return _to_pair(value[:, None]), value_error, _to_pair(first), d_error


def _to_long_double(z: PreciseEnclosure) -> tuple[NDArray[np.inexact], Floats]:
    """Return z in long double, with bounds (rows, 1) on its distance from the exact z."""
    return z.value.hi.astype(np.longdouble) + z.value.lo, z.error + LONG_DOUBLE_EPS * z.size


def _to_pair(x: NDArray[np.inexact]) -> DoubleDouble:
    hi = np.asarray(x, float)
    return DoubleDouble(hi, np.asarray(x - hi, float))


@partial(cache_last_result, kept=2)  # keeps the point before a step and the point after the step
def precise_gradient_and_value(ob: Objective, theta: Floats) -> tuple[Floats, float, float, float]:
    """Return the tuple (gradient, bound on the norm of its error, value, bound on its error) in
    float64. The last two results are cached.
    """
    with np.errstate(all="ignore"):
        with_penalty = add_l2(l2_diagonal(ob), theta, precise_contribution(ob, theta))
        bounds = (
            with_penalty.g_error + norm(with_penalty.g.lo),
            with_penalty.value_error + abs(float(with_penalty.value.lo)),
        )
        g_error, error = (PRECISE_ROUND_UP_FACTOR * x if np.isfinite(x) else np.inf for x in bounds)
        return with_penalty.g.hi, g_error, float(with_penalty.value.hi), error


def precise_gradient(ob: Objective, theta: ArrayLike) -> tuple[Floats, float]:
    """Return ``(g, error)``: the gradient at theta (n,), computed with about 100 bits and rounded
    to float64, and a bound on ``||g - exact gradient||_2``.

    The exact gradient is that of the function defined by the stored numbers; theta and data of a
    float32 model are converted to float64 without change. The bound is infinite after an overflow.
    With batch normalisation, g and its bound are those of the float64 engine, or the bound is
    infinite if the objective has no method `astype`.

    Cost: about 300 float64 gradients. The last two results are cached.
    """
    at = round_to_model_dtype(ob, theta)
    if not is_batch_normalised(ob.model):
        g, error, *_ = precise_gradient_and_value(ob, at)
        return g.copy(), error
    if not hasattr(ob, "astype"):
        return np.asarray(ob.gradient(theta), dtype=float), np.inf
    wide = ob.astype(np.float64)
    return wide.gradient(at), gradient_bound(wide, at)


def precise_value(ob: Objective, theta: ArrayLike) -> tuple[float, float]:
    """Return ``(value, error)``: the loss at theta (n,) from the passes of `precise_gradient`, and
    a bound on ``|value - exact loss|``. The bound is infinite with batch normalisation.
    """
    if is_batch_normalised(ob.model):
        return float(ob.value(theta)), np.inf
    return precise_gradient_and_value(ob, round_to_model_dtype(ob, theta))[2:]
