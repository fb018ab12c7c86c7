"""Arithmetic of some 100 bits on arrays: a number is the unevaluated sum of two of float64.

The same on every machine, unlike long double, and fast: products of matrices are cut into products
whose numbers have so few bits that float64 adds them without any rounding (Ozaki, Ogita, Oishi and
Rump 2012), so BLAS makes them; sums and products of numbers are error-free transformations (Dekker
1971, Knuth). What is promised:

- `add`, `mul`, `div`: relative error `UNIT`;
- `exp` of numbers <= 0, `expm1`, `tanh`, `sigmoid`: `UNIT` times the result; `softplus`, `ndtr`,
  `log1p`: `UNIT` times 1 + the result;
- `dot`: `tau(k)` times the largest numbers of the row and of the column, k the inner dimension;

each plus `SMALL`, and no infinity on the way (the caller looks at the result).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats

UNIT = 2.0**-94
SMALL = 2.0**-900
PARTS = 5  # slices of a matrix
DEPTH = 1024  # inner dimension of a product without rounding
_SPLIT = 134217729.0


class Pair(NamedTuple):
    """``hi + lo``, |lo| at most half a unit of hi's last place."""

    hi: Floats
    lo: Floats

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    @property
    def T(self) -> Pair:
        """The transposed matrix."""
        return Pair(self.hi.T, self.lo.T)

    def take(self, rows: slice) -> Pair:
        """Some rows."""
        return Pair(self.hi[rows], self.lo[rows])


def pair(x: Floats | float) -> Pair:
    """A float64 array as it stands."""
    x = np.asarray(x, dtype=float)
    return Pair(x, np.zeros_like(x))


def two_sum(a: Floats, b: Floats) -> Pair:
    """A + b without error."""
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


def _quick(a: Floats, b: Floats) -> Pair:
    """A + b without error where |a| >= |b|."""
    s = a + b
    return Pair(s, b - (s - a))


def two_product(a: Floats, b: Floats) -> Pair:
    """A b without error, but for underflow."""
    p = a * b
    x, y = _SPLIT * a, _SPLIT * b
    a1, b1 = x - (x - a), y - (y - b)
    a2, b2 = a - a1, b - b1
    return Pair(p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2)


def add(x: Pair, y: Pair) -> Pair:
    """X + y."""
    s, t = two_sum(x.hi, y.hi), two_sum(x.lo, y.lo)
    s = _quick(s.hi, s.lo + t.hi)
    return _quick(s.hi, s.lo + t.lo)


def plus(x: Pair, y: Floats | float) -> Pair:
    """X + y for y in float64."""
    s = two_sum(x.hi, np.asarray(y, dtype=float))
    return _quick(s.hi, s.lo + x.lo)


def mul(x: Pair, y: Pair) -> Pair:
    """X y."""
    p = two_product(x.hi, y.hi)
    return _quick(p.hi, p.lo + (x.hi * y.lo + x.lo * y.hi))


def times(x: Pair, y: Floats | float) -> Pair:
    """X y for y in float64."""
    p = two_product(x.hi, np.asarray(y, dtype=float))
    return _quick(p.hi, p.lo + x.lo * y)


def scaled(x: Pair, factor: Floats | float) -> Pair:
    """X times powers of 2."""
    return Pair(x.hi * factor, x.lo * factor)


def div(x: Pair, y: Pair) -> Pair:
    """X / y."""
    a = x.hi / y.hi
    r = add(x, -times(y, a))
    b = r.hi / y.hi
    r = add(r, -times(y, b))
    q = _quick(a, b)
    return plus(q, r.hi / y.hi)


def choose(where: NDArray[np.bool_], x: Pair, y: Pair) -> Pair:
    """X where it holds, else y."""
    return Pair(np.where(where, x.hi, y.hi), np.where(where, x.lo, y.lo))


def row_sums(x: Pair) -> Pair:
    """Over the columns, (rows, 1): relative error cols UNIT times the sum of sizes."""
    total = Pair(x.hi[:, :1], x.lo[:, :1])
    for j in range(1, x.hi.shape[1]):
        total = add(total, Pair(x.hi[:, j : j + 1], x.lo[:, j : j + 1]))
    return total


def column_sums(x: Pair) -> Pair:
    """Over the first axis, by halves: relative error 64 UNIT times the sum of sizes."""
    while len(x.hi) > 1:
        half = len(x.hi) // 2
        rest = x.take(slice(2 * half, None))
        x = add(x.take(slice(0, half)), x.take(slice(half, 2 * half)))
        if len(rest.hi):
            x = Pair(np.concatenate([x.hi, rest.hi]), np.concatenate([x.lo, rest.lo]))
    return Pair(x.hi[0], x.lo[0])


# --- products of matrices
# --------------------------------------------------------------------------------------------------


def bits(k: int) -> int:
    """Bits of a slice: sums of k products of two such numbers need 53."""
    return (53 - math.ceil(math.log2(max(k, 2)))) // 2


def tau(k: int) -> float:
    """Error of `dot` of inner dimension k over the largest numbers of row and column."""
    inner = min(k, DEPTH)
    return 8.0 * k * (PARTS * 2.0 ** (-PARTS * bits(inner)) + 2.0**-99)


class Sliced:
    """A matrix (m, k), k <= DEPTH, as a sum of slices times a power of 2 for each row."""

    def __init__(self, A: Pair) -> None:
        k, at = bits(A.hi.shape[1]), A.hi
        _, exponents = np.frexp(np.abs(at).max(axis=1, initial=0.0))
        self.exponents, self.parts = exponents, []
        rest = Pair(np.ldexp(A.hi, -exponents[:, None]), np.ldexp(A.lo, -exponents[:, None]))
        for i in range(PARTS):
            shift = 1.5 * 2.0 ** (52 - k * (i + 1))
            here = (rest.hi + shift) - shift
            self.parts.append(here if here.any() else None)
            rest = two_sum(rest.hi - here, rest.lo)


def dot(A: Pair, B: Pair) -> Pair:
    """``A B'`` for A (m, k), B (n, k)."""
    total: Pair | None = None
    for start in range(0, A.hi.shape[1], DEPTH):
        some = slice(start, start + DEPTH)
        a = Sliced(Pair(A.hi[:, some], A.lo[:, some]))
        b = Sliced(Pair(B.hi[:, some], B.lo[:, some]))
        here = sliced_dot(a, b)
        total = here if total is None else add(total, here)
    assert total is not None
    return total


def sliced_dot(a: Sliced, b: Sliced) -> Pair:
    """``A B'`` from the slices of both."""
    total = pair(np.zeros((len(a.exponents), len(b.exponents))))
    for order in range(PARTS - 1, -1, -1):
        for i in range(order + 1):
            x, y = a.parts[i], b.parts[order - i]
            if x is not None and y is not None:
                total = plus(total, x @ y.T)
    exponents = a.exponents[:, None] + b.exponents[None, :]
    return Pair(np.ldexp(total.hi, exponents), np.ldexp(total.lo, exponents))


# --- elementary functions
# --------------------------------------------------------------------------------------------------

# ln 2 in three parts: the first with 32 bits, so that k times it is exact
_LN2 = (0.6931471803691238, 1.9082149292705877e-10, 1.1612227229362532e-26)
_HALVINGS = 8


def _exact(x: Fraction) -> Pair:
    hi = float(x)
    return Pair(np.asarray(hi), np.asarray(float(x - Fraction(hi))))


_INVERSE = {n: _exact(Fraction(1, math.factorial(n))) for n in range(1, 6)}
_ROOT_TWO_PI = Pair(np.asarray(2.5066282746310007), np.asarray(-1.8328579980459167e-16))


def _reduced(x: Pair) -> tuple[Pair, Floats]:
    """(p, 2^k) with ``e^x = 2^k (1 + p)`` for x <= 0; from x = -700 on all is flushed to e^-700."""
    x = choose(x.hi < -700.0, pair(np.full_like(x.hi, -700.0)), x)
    k = np.rint(x.hi / _LN2[0])
    r = plus(x, -k * _LN2[0])
    r = add(r, -two_product(k, np.full_like(k, _LN2[1])))
    r = scaled(plus(r, -k * _LN2[2]), 0.5**_HALVINGS)
    tail = np.zeros_like(r.hi)
    for n in range(10, 5, -1):  # below the last bits of the rest
        tail = tail * r.hi + 1.0 / math.factorial(n)
    p = pair(tail)
    for n in range(5, 0, -1):
        p = add(mul(p, r), _INVERSE[n])
    p = mul(p, r)
    for _ in range(_HALVINGS):  # e^2r - 1 = (e^r - 1)(e^r - 1 + 2)
        p = mul(p, plus(p, 2.0))
    return p, np.ldexp(1.0, k.astype(int))


def exp(x: Pair) -> Pair:
    """``e^x`` for x <= 0."""
    p, power = _reduced(x)
    return scaled(plus(p, 1.0), power)


def expm1(x: Pair) -> Pair:
    """``e^x - 1`` for x <= 0."""
    p, power = _reduced(x)
    return choose(power == 1.0, p, plus(scaled(plus(p, 1.0), power), -1.0))


def log1p(e: Pair) -> Pair:
    """``log(1 + e)`` for e >= 0: one step of Newton's from float64."""
    y = np.log1p(e.hi)
    gain = plus(mul(plus(e, 1.0), exp(pair(-y))), -1.0)
    return plus(gain, y)


def absolute(x: Pair) -> Pair:
    """|x|."""
    return choose(x.hi < 0, -x, x)


def tanh(x: Pair) -> Pair:
    """``-t / (2 + t)``, t = e^(-2|x|) - 1, with the sign of x."""
    t = expm1(scaled(absolute(x), -2.0))
    a = div(-t, plus(t, 2.0))
    return choose(x.hi < 0, -a, a)


def sigmoid(x: Pair) -> Pair:
    """``1 / (1 + e^-x)``."""
    e = exp(-absolute(x))
    return div(choose(x.hi > 0, pair(np.ones_like(x.hi)), e), plus(e, 1.0))


def softplus(x: Pair) -> Pair:
    """``log(1 + e^x)``."""
    return add(choose(x.hi > 0, x, pair(np.zeros_like(x.hi))), log1p(exp(-absolute(x))))


def normal(x: Pair) -> tuple[Pair, Pair]:
    """(Density, distribution function) of the normal distribution: ``Phi = 1/2 + n (x + x^3/3 +
    x^5/15 + ...)``, all terms of one sign.
    """
    t = absolute(x)
    t = choose(t.hi > 12.0, pair(np.full_like(t.hi, 12.0)), t)
    square = mul(t, t)
    n = div(exp(scaled(square, -0.5)), _ROOT_TWO_PI)
    term = total = t
    for k in range(3, 1000, 2):
        term = div(mul(term, square), pair(np.full_like(t.hi, float(k))))
        total = add(total, term)
        if not (term.hi > 2.0**-110 * total.hi).any():
            break
    half = mul(n, total)
    return n, plus(choose(x.hi < 0, -half, half), 0.5)
