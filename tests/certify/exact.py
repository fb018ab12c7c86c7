"""Gradients and products of small networks in 1200 digits of `decimal`.

Dual numbers pass through a gradient written sample by sample, so no underflow, overflow or
cancellation goes unnoticed.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from functools import cache, lru_cache

import numpy as np

from fastcurv.structure.parameters import divisor_of, l2_diagonal
from fastcurv.structure.tables import BATCH_NORM_EPS, activation_spec

DIGITS = 1200
# exp(-4000) is below the last of 1200 digits of any sum of numbers between 1e-300 and 1e300.
NEGLIGIBLE_EXPONENT = 4000
ZERO, ONE, TWO, HALF = Decimal(0), Decimal(1), Decimal(2), Decimal("0.5")
CONTEXT = Context(prec=DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)


class Dual:
    """A dual number ``x + r eps`` with eps^2 = 0."""

    __slots__ = ("r", "x")

    def __init__(self, x, r=ZERO):
        self.x, self.r = x, r

    def __add__(self, other):
        return Dual(self.x + other.x, self.r + other.r)

    def __sub__(self, other):
        return Dual(self.x - other.x, self.r - other.r)

    def __mul__(self, other):
        return Dual(self.x * other.x, self.x * other.r + self.r * other.x)

    def of(self, f, slope):
        return Dual(f, slope * self.r)


@cache
def pi() -> Decimal:
    """Return pi to 1200 digits by the Gauss-Legendre algorithm."""
    a, b, t, p = ONE, 1 / TWO.sqrt(), Decimal("0.25"), ONE
    for _ in range(12):
        a, b, t, p = (a + b) / 2, (a * b).sqrt(), t - p * ((a - b) / 2) ** 2, 2 * p
    return (a + b) ** 2 / (4 * t)


@lru_cache(1 << 10)
def exp(t: Decimal) -> Decimal:
    """Return exp(t) for t <= 0, or 0 if t is below `-NEGLIGIBLE_EXPONENT`."""
    return t.exp() if t > -NEGLIGIBLE_EXPONENT else ZERO


def normal_cdf(t: Decimal) -> Decimal:
    """Return the standard normal distribution function at t, by a series for erf whose terms have
    equal signs.
    """
    if abs(t) > 60:
        return ONE if t > 0 else ZERO
    term = total = t
    k = 1
    while abs(term) > Decimal(10) ** (-DIGITS) * abs(total) and term:
        k += 2
        term = term * t * t / k
        total += term
    return HALF + total * exp(-t * t / 2) / (2 * pi()).sqrt()


@lru_cache(1 << 10)
def activation(name: str, z: Decimal):
    """Return (phi, phi', phi'') of the named activation at z. At a kink, derivatives are those from
    the left.
    """
    if name == "identity":
        return z, ONE, ZERO
    if activation_spec(name).leak is not None:
        slope = ONE if z > 0 else Decimal(activation_spec(name).leak)
        return z * slope, slope, ZERO
    if name == "elu":
        e = exp(min(z, ZERO))
        return (z, ONE, ZERO) if z > 0 else (e - 1, e, e)
    e = exp(-abs(z))
    s = 1 / (1 + e) if z > 0 else e / (1 + e)
    d = e / (1 + e) ** 2
    if name == "tanh":
        e = exp(-2 * abs(z))
        a = (1 - e) / (1 + e) * (1 if z > 0 else -1)
        p = 4 * e / (1 + e) ** 2
        return a, p, -2 * a * p
    bent = d * (1 - 2 * s)
    if name == "sigmoid":
        return s, d, bent
    if name == "softplus":
        return max(z, ZERO) + (1 + e).ln(), s, d
    if name == "silu":
        return z * s, s + z * d, 2 * d + z * bent
    density = exp(-z * z / 2) / (2 * pi()).sqrt()
    assert name == "gelu", f"no formula of its own for {name!r}; wanted a branch here"
    cdf = normal_cdf(z)
    return z * cdf, cdf + z * density, density * (2 - z * z)


def numbers(x) -> list:
    return [Decimal(float(t)) for t in np.ravel(x)]


def matrix(x) -> list:
    return [numbers(row) for row in np.atleast_2d(x)]


def total(terms) -> Dual:
    found = Dual(ZERO)
    for term in terms:
        found = found + term
    return found


class Exact:
    """The loss, gradient and products of an objective at theta, computed in `decimal` from its
    stored numbers.
    """

    def __init__(self, ob, theta):
        self.ob, self.model = ob, ob.model
        self.theta = np.asarray(theta)
        self.X = matrix(ob.X)
        N, m = len(self.X), ob.model.sizes[-1]
        y = np.asarray(ob.y)
        self.y = matrix(np.eye(m)[y]) if y.dtype.kind == "i" else matrix(y.reshape(N, m))
        w = np.ones(N) if ob.sample_weight is None else ob.sample_weight
        with localcontext(CONTEXT):
            self.f = [x / Decimal(divisor_of(ob)) for x in numbers(w)]

    def layers(self, v):
        """Return the weights and biases of all layers as `Dual` numbers with values from theta and
        eps parts from v.
        """
        parts = [self.model.unflatten(np.asarray(x)) for x in (self.theta, v)]
        found = []
        for here, there in zip(*parts):
            pair = []
            for x, r in zip(here, there):
                if x is None:
                    pair.append(None)
                    continue
                both = [[Dual(a, b) for a, b in zip(p, q)] for p, q in zip(matrix(x), matrix(r))]
                pair.append(both if x.ndim == 2 else both[0])
            found.append(pair)
        return found

    def normalise(self, z):
        """Return the batch-normalised rows of z as lists of `Dual` numbers, and the list of the
        scales 1 / sqrt(variance + eps) of its columns.
        """
        N, columns = Decimal(len(z)), list(zip(*z))
        hs, scales = [], []
        for column in columns:
            mean = total(column) * Dual(1 / N)
            centred = [x - mean for x in column]
            var = total(x * x for x in centred) * Dual(1 / N) + Dual(Decimal(BATCH_NORM_EPS))
            root = var.x.sqrt()
            s = var.of(1 / root, -1 / (2 * var.x * root))
            hs.append([x * s for x in centred])
            scales.append(s)
        return [list(row) for row in zip(*hs)], scales

    def forward(self, layers):
        a = [[Dual(x) for x in row] for row in self.X]
        below, bends, norms = [], [], []
        for l, (W, b, *norm) in enumerate(layers):
            below.append(a)
            z = [
                [
                    total(w * x for w, x in zip(unit, row)) + (Dual(ZERO) if b is None else b[i])
                    for i, unit in enumerate(W)
                ]
                for row in a
            ]
            if l == len(layers) - 1:
                break
            if norm:
                h, s = self.normalise(z)
                z = [[x * g + c for x, g, c in zip(row, *norm)] for row in h]
                norms.append((h, s, norm[0]))
            name, found = self.model.activation[l], []
            slopes = []
            for row in z:
                parts = [(t, *activation(name, t.x)) for t in row]
                found.append([t.of(phi, p) for t, phi, p, _ in parts])
                slopes.append([t.of(p, q) for t, _, p, q in parts])
            bends.append(slopes)
            if self.model.skips[l]:
                found = [[x + t for x, t in zip(*rows)] for rows in zip(found, a)]
            a = found
        return z, below, bends, norms

    def loss(self, z):
        """Return the data loss as a Decimal, and its derivatives with respect to the outputs z as
        `Dual` numbers, both weighted by the factors of the samples.
        """
        value, delta = ZERO, []
        for row, y, f in zip(z, self.y, self.f):
            if self.ob.loss == "mse":
                value += f * sum((t.x - u) ** 2 for t, u in zip(row, y))
                delta.append([(t - Dual(u)) * Dual(2 * f) for t, u in zip(row, y)])
            elif self.ob.loss == "binary_cross_entropy":
                parts = [(t, *activation("softplus", t.x)) for t in row]
                value += f * sum(phi - u * t.x for (t, phi, _, _), u in zip(parts, y))
                delta.append(
                    [(t.of(p, q) - Dual(u)) * Dual(f) for (t, _, p, q), u in zip(parts, y)]
                )
            else:
                top = max(t.x for t in row)
                e = [t.of(exp(t.x - top), exp(t.x - top)) for t in row]
                s = total(e)
                share = s.of(1 / s.x, -1 / s.x**2)
                T = sum(y)
                value += f * sum(u * (s.x.ln() + top - t.x) for t, u in zip(row, y))
                delta.append([(x * share * Dual(T) - Dual(u)) * Dual(f) for x, u in zip(e, y)])
        return value, delta

    def backward(self, layers, below, bends, norms, d):
        """Return the flat gradient of the data loss as a list of `Dual` numbers, by backpropagation
        of d, the derivatives with respect to the outputs.
        """
        found, e = [], None
        for l in reversed(range(len(layers))):
            if l < len(layers) - 1:
                d = [[x * p for x, p in zip(*rows)] for rows in zip(e, bends[l])]
            scales = []
            if norms and l < len(layers) - 1:
                h, s, gamma = norms[l]
                N = Dual(ONE / len(d))
                columns = []
                for x, y, t, g in zip(zip(*d), zip(*h), s, gamma):
                    dg, db = total(u * v for u, v in zip(x, y)), total(x)
                    scales.append((dg, db))
                    columns.append([t * g * (u - db * N - v * dg * N) for u, v in zip(x, y)])
                d = [list(row) for row in zip(*columns)]
            part = [
                total(row[i] * a[k] for row, a in zip(d, below[l]))
                for i in range(len(layers[l][0]))
                for k in range(len(layers[l][0][0]))
            ]
            if layers[l][1] is not None:
                part += [total(row[i] for row in d) for i in range(len(layers[l][0]))]
            part += [dg for dg, _ in scales] + [db for _, db in scales]
            found = part + found
            lower = [
                [
                    total(row[i] * W[k] for i, W in enumerate(layers[l][0]))
                    for k in range(len(layers[l][0][0]))
                ]
                for row in d
            ]
            if l < len(layers) - 1 and self.model.skips[l]:
                lower = [[x + y for x, y in zip(*rows)] for rows in zip(lower, e)]
            e = lower
        return found

    def decay(self, v):
        each = np.broadcast_to(l2_diagonal(self.ob), len(self.theta))
        return [x * y for x, y in zip(numbers(each), numbers(v))]

    def value_and_gradient(self):
        with localcontext(CONTEXT):
            layers = self.layers(0 * self.theta)
            z, *state = self.forward(layers)
            value, delta = self.loss(z)
            g = self.backward(layers, *state, delta)
            more = self.decay(self.theta)
            value += HALF * sum(x * y for x, y in zip(more, numbers(self.theta)))
            return value, [x.x + y for x, y in zip(g, more)]

    def product(self, v, kind="hessian"):
        """Return the product with v of the Hessian, the GGN, or the empirical Fisher matrix, which
        is N times the sum of g g' over samples, as a list of Decimals.
        """
        with localcontext(CONTEXT):
            layers = self.layers(v)
            z, *state = self.forward(layers)
            _, delta = self.loss(z)
            more = self.decay(v) if kind != "fisher" else [ZERO] * len(self.theta)
            if kind == "hessian":
                return [x.r + y for x, y in zip(self.backward(layers, *state, delta), more)]
            if kind == "fisher":
                along = [sum(t.r * d.x for t, d in zip(*rows)) for rows in zip(z, delta)]
                N = len(self.X)
                d = [[Dual(N * s * t.x) for t in row] for s, row in zip(along, delta)]
            else:
                d = [[Dual(t.r) for t in row] for row in delta]
            found = self.backward(layers, *state, d)
            return [x.x + y for x, y in zip(found, more)]


def distance(computed, true) -> Decimal:
    """Return the Euclidean norm of the difference between the array `computed` and the list `true`
    as a Decimal, or infinity if a computed number is not finite.
    """
    computed = np.ravel(computed)
    if not np.isfinite(computed).all():
        return Decimal("inf")
    with localcontext(CONTEXT):
        gap = [x - y for x, y in zip(numbers(computed), true)]
        return sum(x * x for x in gap).sqrt()
