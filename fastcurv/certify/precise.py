"""Value and gradient of a network objective by passes in extended precision, with a proved bound.

A float64 gradient is off by its rounding, about 1e-16 of the size of the terms of its sums; at a
critical point nothing else is left of it. Here every number has some 100 bits (`Pair`), so that
even coarse bounds on norms, row by row, are still some 1e-25:

    z = a W' + b        dz     = ||W|| da + tau |a| |W| + unit (...)
    a = phi(z)          da     = sup|phi'| dz + unit (...)              [+ the input's]
    e = delta W         de     = ||W|| ddelta + tau |delta| |W|         [+ e's]
    delta = e * phi'    ddelta = sup|phi'| de + ||e|| dp
                        dp     = sup|phi''| dz, 1 where z may lie at a kink
    dW = sum delta' a   ddW    = sum over rows of ddelta (||a|| + da) + ||delta|| da  +  tau ...

with each d a bound on the norm of a row's error, and tau that of a product (`tau`).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.progress import cache_last
from ..common.protocols import Floats
from ..structure.parameters import divisor_of, l2_diagonal, layers_of, normalised, skips
from ..structure.tables import ACTIVATIONS, LOSSES, one_hot
from .arithmetic import norm, norms
from .bounds import gradient_bound
from .passes import checked_theta, spectral

# --------------------------------------------------------------------------------------------------
# Arithmetic of some 100 bits on arrays: a number is the unevaluated sum of two float64 numbers.
#
# The same on every machine, unlike long double, and fast: products of matrices are split into
# products whose numbers have so few bits that float64 adds them without any rounding (Ozaki, Ogita,
# Oishi and Rump 2012), so that BLAS can compute them; sums and products of numbers are error-free
# transformations (Dekker 1971, Knuth). Guaranteed error bounds:
#
# - `add`, `mul`, `div`: relative error `UNIT`;
# - `exp` of numbers <= 0, `expm1`, `tanh`, `sigmoid`: `UNIT` times the result; `softplus`,
#   `normal`, `log1p`: `UNIT` times 1 + the result;
# - `dot`: `tau(k)` times the largest numbers of the row and of the column, k the inner dimension;
#
# each plus `SMALL`, provided that nothing overflows (callers check the result).

UNIT = 2.0**-94
SMALL = 2.0**-900
PARTS = 5  # slices of a matrix
DEPTH = 1024  # inner dimension of a product without rounding
_SPLIT = 134217729.0


class Pair(NamedTuple):
    """The number ``hi + lo``, |lo| at most half a unit of hi's last place."""

    hi: Floats
    lo: Floats

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    @property
    def T(self) -> Pair:
        """The transposed matrix."""
        return Pair(self.hi.T, self.lo.T)

    def take(self, rows: slice) -> Pair:
        """Return some rows."""
        return Pair(self.hi[rows], self.lo[rows])


def pair(x: Floats | float) -> Pair:
    """Return a float64 array as a `Pair`."""
    x = np.asarray(x, dtype=float)
    return Pair(x, np.zeros_like(x))


def two_sum(a: Floats, b: Floats) -> Pair:
    """Return a + b without error."""
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


def _quick(a: Floats, b: Floats) -> Pair:
    """Return a + b without error, for |a| >= |b|."""
    s = a + b
    return Pair(s, b - (s - a))


def two_product(a: Floats, b: Floats) -> Pair:
    """Return a b without error, except for underflow."""
    p = a * b
    x, y = _SPLIT * a, _SPLIT * b
    a1, b1 = x - (x - a), y - (y - b)
    a2, b2 = a - a1, b - b1
    return Pair(p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2)


def add(x: Pair, y: Pair) -> Pair:
    """Return x + y."""
    s, t = two_sum(x.hi, y.hi), two_sum(x.lo, y.lo)
    s = _quick(s.hi, s.lo + t.hi)
    return _quick(s.hi, s.lo + t.lo)


def plus(x: Pair, y: Floats | float) -> Pair:
    """Return x + y for y in float64."""
    s = two_sum(x.hi, np.asarray(y, dtype=float))
    return _quick(s.hi, s.lo + x.lo)


def mul(x: Pair, y: Pair) -> Pair:
    """Return x y."""
    p = two_product(x.hi, y.hi)
    return _quick(p.hi, p.lo + (x.hi * y.lo + x.lo * y.hi))


def times(x: Pair, y: Floats | float) -> Pair:
    """Return x y for y in float64."""
    p = two_product(x.hi, np.asarray(y, dtype=float))
    return _quick(p.hi, p.lo + x.lo * y)


def scaled(x: Pair, factor: Floats | float) -> Pair:
    """Return x times powers of 2."""
    return Pair(x.hi * factor, x.lo * factor)


def div(x: Pair, y: Pair) -> Pair:
    """Return x / y."""
    a = x.hi / y.hi
    r = add(x, -times(y, a))
    b = r.hi / y.hi
    r = add(r, -times(y, b))
    q = _quick(a, b)
    return plus(q, r.hi / y.hi)


def choose(where: NDArray[np.bool_], x: Pair, y: Pair) -> Pair:
    """Return x where the condition holds, else y."""
    return Pair(np.where(where, x.hi, y.hi), np.where(where, x.lo, y.lo))


def row_sums(x: Pair) -> Pair:
    """Return the sums over the columns, (rows, 1): relative error cols UNIT times the sum of
    sizes.
    """
    total = Pair(x.hi[:, :1], x.lo[:, :1])
    for j in range(1, x.hi.shape[1]):
        total = add(total, Pair(x.hi[:, j : j + 1], x.lo[:, j : j + 1]))
    return total


def column_sums(x: Pair) -> Pair:
    """Return the sums over the first axis, by halves: relative error 64 UNIT times the sum of
    sizes.
    """
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
    """Return the bits of a slice, for which sums of k products of two such numbers need 53 bits."""
    return (53 - math.ceil(math.log2(max(k, 2)))) // 2


def tau(k: int) -> float:
    """Return the error of `dot` of inner dimension k over the largest numbers of row and column."""
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
    """Return ``A B'`` for A (m, k), B (n, k)."""
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
    """Return ``A B'`` from the slices of both."""
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
    """Return (p, 2^k) with ``e^x = 2^k (1 + p)`` for x <= 0; below x = -700 the result is that at
    -700.
    """
    x = choose(x.hi < -700.0, pair(np.full_like(x.hi, -700.0)), x)
    k = np.rint(x.hi / _LN2[0])
    r = plus(x, -k * _LN2[0])
    r = add(r, -two_product(k, np.full_like(k, _LN2[1])))
    r = scaled(plus(r, -k * _LN2[2]), 0.5**_HALVINGS)
    tail = np.zeros_like(r.hi)
    for n in range(10, 5, -1):  # below the last bits of the other terms
        tail = tail * r.hi + 1.0 / math.factorial(n)
    p = pair(tail)
    for n in range(5, 0, -1):
        p = add(mul(p, r), _INVERSE[n])
    p = mul(p, r)
    for _ in range(_HALVINGS):  # e^2r - 1 = (e^r - 1)(e^r - 1 + 2)
        p = mul(p, plus(p, 2.0))
    return p, np.ldexp(1.0, k.astype(int))


def exp(x: Pair) -> Pair:
    """Return ``e^x`` for x <= 0."""
    p, power = _reduced(x)
    return scaled(plus(p, 1.0), power)


def expm1(x: Pair) -> Pair:
    """Return ``e^x - 1`` for x <= 0."""
    p, power = _reduced(x)
    return choose(power == 1.0, p, plus(scaled(plus(p, 1.0), power), -1.0))


def log1p(e: Pair) -> Pair:
    """Return ``log(1 + e)`` for e >= 0: one Newton step from the float64 result."""
    y = np.log1p(e.hi)
    gain = plus(mul(plus(e, 1.0), exp(pair(-y))), -1.0)
    return plus(gain, y)


def absolute(x: Pair) -> Pair:
    """Return |x|."""
    return choose(x.hi < 0, -x, x)


def tanh(x: Pair) -> Pair:
    """Return tanh(x) as ``-t / (2 + t)``, t = e^(-2|x|) - 1, with the sign of x."""
    t = expm1(scaled(absolute(x), -2.0))
    a = div(-t, plus(t, 2.0))
    return choose(x.hi < 0, -a, a)


def sigmoid(x: Pair) -> Pair:
    """Return ``1 / (1 + e^-x)``."""
    e = exp(-absolute(x))
    return div(choose(x.hi > 0, pair(np.ones_like(x.hi)), e), plus(e, 1.0))


def softplus(x: Pair) -> Pair:
    """Return ``log(1 + e^x)``."""
    return add(choose(x.hi > 0, x, pair(np.zeros_like(x.hi))), log1p(exp(-absolute(x))))


def normal(x: Pair) -> tuple[Pair, Pair]:
    """Return (density, distribution function) of the normal distribution: ``Phi = 1/2 + n (x +
    x^3/3 + x^5/15 + ...)``, a series of terms of one sign.
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


ROWS = 1024  # rows of a block: the inner dimension of the sums over rows
SLACK = 1 + 1e-6  # for the rounding of the bounds themselves


@dataclass
class Bounded:
    """A matrix of pairs, a row for each sample, with bounds (rows, 1) on the norms of its
    errors.
    """

    value: Pair
    error: Floats
    size: Floats = field(init=False)  # norms of the rows
    top: Floats = field(init=False)  # largest numbers of the rows

    def __post_init__(self) -> None:
        sizes = np.abs(self.value.hi)
        self.size, self.top = norms(sizes), sizes.max(axis=1, keepdims=True)


class Factor:
    """A matrix W that rows are multiplied by, ``x W'``; sliced once."""

    def __init__(self, W: Floats) -> None:
        self.parts = [
            (slice(k, k + DEPTH), Sliced(pair(W[:, k : k + DEPTH])))
            for k in range(0, W.shape[1], DEPTH)
        ]
        self.norm, self.tau = spectral(W), tau(W.shape[1])
        self.tops = norm(np.abs(W).max(axis=1))

    def times(self, rows: Bounded) -> tuple[Pair, Floats]:
        """Return (rows W', bounds on the errors of its rows)."""
        total: Pair | None = None
        for some, part in self.parts:
            A = Sliced(Pair(rows.value.hi[:, some], rows.value.lo[:, some]))
            here = sliced_dot(A, part)
            total = here if total is None else add(total, here)
        assert total is not None
        rounding = self.tau * rows.top * self.tops + SMALL * ((rows.top > 0) & (self.tops > 0))
        return total, self.norm * rows.error + rounding


@dataclass
class PreciseSums:
    """Sums over all rows, before the divisor and l2, with bounds on the errors."""

    value: Pair
    value_error: float
    parts: list[Pair]  # dW, db of each layer
    errors: list[float]

    def add(self, i: int, part: Pair, error: float) -> None:
        """Add the part of some rows to sum number i."""
        size = norm(part.hi)
        self.parts[i] = add(self.parts[i], part)
        self.errors[i] += error + 2 * UNIT * (size + norm(self.parts[i].hi))


class Precise:
    """Value and gradient at theta: `g`, `value` and bounds on their errors."""

    def __init__(self, ob: Any, theta: Floats) -> None:
        model = self.model = ob.model
        self.ob = ob
        layers = layers_of(model, theta)
        self.biases = [np.zeros(len(W)) if b is None else b for W, b in layers]
        self.up, self.down = (
            [Factor(W) for W, _ in layers],
            [Factor(np.ascontiguousarray(W.T)) for W, _ in layers],
        )
        zeros = [pair(np.zeros(p.shape)) for W, _ in layers for p in (W, W[:, 0])]
        self.sums = PreciseSums(pair(0.0), 0.0, zeros, [0.0] * len(zeros))
        N = len(ob.X)
        for start in range(0, N, ROWS):
            self.add_rows(slice(start, min(N, start + ROWS)))
        self.part = self.divided(pair(divisor_of(ob)))
        self.g, self.g_error, self.value, self.value_error = finished(ob, theta, self.part)

    def add_rows(self, rows: slice) -> None:
        """Run forward pass, loss and backward pass for some rows, and add their parts to the
        sums.
        """
        model, n_hidden = self.model, len(self.model.activation)
        X = np.array(self.ob.X[rows], dtype=float)
        a, slopes = [Bounded(pair(X), np.zeros((len(X), 1)))], []
        for l in range(n_hidden):
            z = self.linear(l, a[-1])
            above, slope, off = self.bent(model.activation[l], z)
            if skips(model, l):
                value = add(above.value, a[-1].value)
                above = Bounded(value, above.error + a[-1].error + UNIT * norms(np.abs(value.hi)))
            a.append(above)
            slopes.append((slope, off))
        z = self.linear(n_hidden, a[-1])
        d = self.loss(z, rows)
        e = None
        for l in range(n_hidden, -1, -1):
            self.add_layer(l, d, a[l])
            if l == 0:
                continue
            below, error = self.down[l].times(d)
            if l < n_hidden and skips(model, l):
                assert e is not None
                below = add(below, e.value)
                error = error + e.error + UNIT * norms(np.abs(below.hi))
            e = Bounded(below, error)
            d = self.bent_back(l - 1, e, *slopes[l - 1])

    def linear(self, l: int, a: Bounded) -> Bounded:
        """Return z = a W' + b."""
        z, error = self.up[l].times(a)
        z, b = plus(z, self.biases[l]), norm(self.biases[l])
        return Bounded(z, error + UNIT * (norms(np.abs(z.hi)) + b))

    @staticmethod
    def bent(name: str, z: Bounded) -> tuple[Bounded, Pair, Floats]:
        """Return phi(z), phi'(z), and bounds on the errors of the entries of phi'."""
        row = ACTIVATIONS[name]
        a, p = row.pairs(sys.modules[__name__], z.value)
        rounding = UNIT * 8 * (1 + z.top) * (z.error + z.top > 0)
        if not row.bend and not row.leak:  # slopes of 0 and 1
            rounding = np.zeros_like(rounding)
        width = float(np.sqrt(a.hi.shape[1]))
        error = row.lipschitz * z.error + rounding * width
        off = np.broadcast_to(row.bend * z.error + rounding, a.hi.shape)
        if row.leak is not None:
            off = off + row.kink * ((np.abs(z.value.hi) <= z.error) & (z.error > 0))
        return Bounded(a, error), p, off

    def bent_back(self, x_layer: int, e: Bounded, p: Pair, off: Floats) -> Bounded:
        """Return delta = e * phi'."""
        d = mul(e.value, p)
        error = ACTIVATIONS[self.model.activation[x_layer]].lipschitz * e.error
        error = error + norms(np.abs(e.value.hi) * off) + e.error * off.max(axis=1, keepdims=True)
        return Bounded(d, error + 2 * UNIT * norms(np.abs(d.hi)))

    def add_layer(self, l: int, d: Bounded, a: Bounded) -> None:
        """Add ``dW = delta' a`` and ``db``, the sum of delta's rows."""
        error = float((d.error * (a.size + a.error) + d.size * a.error).sum())
        tops = [norm(np.abs(m.value.hi).max(axis=0)) for m in (d, a)]
        error += tau(len(d.size)) * tops[0] * tops[1]
        self.sums.add(2 * l, dot(d.value.T, a.value.T), error)
        error = float((d.error + 64 * UNIT * d.size).sum())
        self.sums.add(2 * l + 1, column_sums(d.value), error)

    def loss(self, z: Bounded, rows: slice) -> Bounded:
        """Return delta of the last layer; the losses of the rows are added to the value."""
        ob, y = self.ob, self.ob.y[rows]
        m = z.value.hi.shape[1]
        y = np.array(one_hot(y, m), dtype=float)
        w = np.ones(len(y)) if ob.sample_weight is None else ob.sample_weight[rows].astype(float)
        of = {"identity": _squares, "sigmoid": _binary, "softmax": _entropy}
        terms, terms_error, d, d_error = of[LOSSES[ob.loss].link](z, y)
        terms = column_sums(times(row_sums(terms), w[:, None]))
        sizes = np.abs(w)[:, None] * terms_error
        value = add(self.sums.value, Pair(terms.hi[0], terms.lo[0]))
        self.sums.value = value
        self.sums.value_error += float(sizes.sum()) + UNIT * float(np.abs(value.hi))
        return Bounded(times(d, w[:, None]), np.abs(w)[:, None] * d_error)

    def divided(self, divisor: Pair) -> Part:
        """Return the contribution of these rows to gradient and value, before l2."""
        sums, bias = self.sums, self.model.bias
        kept = [i for i in range(len(sums.parts)) if bias or i % 2 == 0]
        flat = Pair(
            np.concatenate([sums.parts[i].hi.ravel() for i in kept]),
            np.concatenate([sums.parts[i].lo.ravel() for i in kept]),
        )
        bound = norm([sums.errors[i] for i in kept]) / float(divisor.hi)
        bound += 2 * UNIT * norm(flat.hi) / float(divisor.hi) + SMALL * len(flat.hi)
        value = div(sums.value, divisor)
        off = sums.value_error / float(divisor.hi) + 2 * UNIT * abs(float(value.hi)) + SMALL
        return Part(div(flat, divisor), bound, value, off)


@dataclass
class Part:
    """The contribution of some rows to gradient (n,) and value, divided by the divisor, with bounds
    on the errors; parts can be added.
    """

    g: Pair
    g_error: float
    value: Pair
    value_error: float

    def __add__(self, other: Part) -> Part:
        g, value = add(self.g, other.g), add(self.value, other.value)
        sizes = [norm(p.hi) for p in (self.g, other.g, g)]
        off = 2 * UNIT * sum(abs(float(p.hi)) for p in (self.value, other.value, value))
        return Part(
            g,
            self.g_error + other.g_error + 2 * UNIT * sum(sizes) + SMALL * len(g.hi),
            value,
            self.value_error + other.value_error + off + SMALL,
        )


def part(ob: Any, theta: ArrayLike) -> Part:
    """Return the `Part` of an objective's rows; not for batch normalisation."""
    found = _at(ob, theta)
    assert found is not None
    return found.part


def finished(ob: Any, theta: Floats, rows: Part) -> tuple[Floats, float, float, float]:
    """Return ``(gradient, bound, value, bound)`` in float64 from the part of all rows and l2."""
    l2 = np.broadcast_to(l2_diagonal(ob), theta.shape)
    decay = two_product(l2.astype(float), theta)
    g = add(rows.g, decay)
    sizes = norm(rows.g.hi) + norm(decay.hi)
    bound = rows.g_error + 4 * UNIT * sizes + SMALL * theta.size
    squares = column_sums(scaled(times(decay, theta), 0.5))
    value = add(rows.value, squares)
    off = rows.value_error + 128 * UNIT * float(np.abs(squares.hi))
    off += 4 * UNIT * float(np.abs(value.hi)) + SMALL * theta.size
    return (
        g.hi,
        _finite(SLACK * (bound + norm(g.lo))),
        float(value.hi),
        _finite(SLACK * (off + abs(float(value.lo)))),
    )


def _finite(bound: float) -> float:
    return bound if np.isfinite(bound) else np.inf


# terms of the loss, errors of their sums, delta, its errors
Terms = tuple[Pair, Floats, Pair, Floats]


def _squares(z: Bounded, y: Floats) -> Terms:
    gap = plus(z.value, -y)
    size, reach = norms(np.abs(gap.hi)), norms(np.abs(z.value.hi)) + norms(np.abs(y))
    off = z.error + UNIT * reach
    rounding = UNIT * (y.shape[1] + 4) * (size + off) ** 2
    return mul(gap, gap), (2 * size + off) * off + rounding, scaled(gap, 2.0), 2 * off


def _binary(z: Bounded, y: Floats) -> Terms:
    terms = add(softplus(z.value), -times(z.value, y))
    m, target = y.shape[1], norms(np.abs(y))
    lipschitz = np.sqrt(m) + target
    rounding = 8 * UNIT * (m + 4) * (m + z.size * (1 + target))
    d = plus(sigmoid(z.value), -y)
    return terms, lipschitz * z.error + rounding, d, 0.25 * z.error + 4 * UNIT * lipschitz


def _entropy(z: Bounded, y: Floats) -> Terms:
    m, T = y.shape[1], np.abs(y).sum(axis=1, keepdims=True)
    at = z.value.hi.argmax(axis=1)[:, None]
    top = Pair(np.take_along_axis(z.value.hi, at, 1), np.take_along_axis(z.value.lo, at, 1))
    u = add(z.value, -top)
    u = choose(u.hi > 0, pair(np.zeros_like(u.hi)), u)
    e = exp(u)
    others = choose(np.arange(m) == at, pair(np.zeros_like(e.hi)), e)
    rest = row_sums(others)
    terms = times(add(log1p(rest), -u), y)
    mass = row_sums(pair(y))
    p = div(e, plus(rest, 1.0))
    d = plus(mul(p, mass), -y)
    unit = UNIT * (m + 32) * T
    return terms, 2 * T * z.error + unit * (m + 4 * z.size), d, 0.5 * T * z.error + 4 * unit


@cache_last
def _passes(ob: Any, at: Floats) -> Precise:
    with np.errstate(all="ignore"):
        found = Precise(ob, at)
    found.ob = None
    return found


def _at(ob: Any, theta: ArrayLike) -> Precise | None:
    """Return the passes at theta, cached for the last one; None with batch normalisation."""
    return None if normalised(ob.model) else _passes(ob, checked_theta(ob, theta))


def gradient(ob: Any, theta: ArrayLike) -> tuple[Floats, float]:
    """Return ``(g, error)``: the gradient at theta (n,) in float64, rounded from some 100 bits, and
    a bound on ``||g - gradient||_2``.

    It is the gradient of the exact function of the stored numbers: those of a float32 model are
    taken as float64 numbers. The bound is infinite if something overflows. With batch normalisation
    g is that of the float64 engine, with the bound of that.

    Cost: some 300 float64 gradients; the last one is cached.
    """
    found = _at(ob, theta)
    if found is not None:
        return found.g.copy(), found.g_error
    if not hasattr(ob, "astype"):
        return np.asarray(ob.gradient(theta), dtype=float), np.inf
    wide = ob.astype(np.float64)
    at = checked_theta(ob, theta)
    return wide.gradient(at), gradient_bound(wide, at)


def value(ob: Any, theta: ArrayLike) -> tuple[float, float]:
    """Return ``(value, error)``: the loss at theta from the same passes, and a bound on ``|value -
    loss|``; infinite with batch normalisation.
    """
    found = _at(ob, theta)
    if found is not None:
        return found.value, found.value_error
    return float(ob.value(theta)), np.inf
