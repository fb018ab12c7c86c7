#!/usr/bin/env python3
"""Check a certificate of a critical point of a neural network.

    python check_certificate.py point.json

This file needs Python's standard library alone. It prints what is proved. The exit status is 0 if
the claim of the certificate is confirmed, 1 if it is not confirmed, and 2 if the file is not
understood.

f is the loss as a function of the parameters theta, g its gradient and H its Hessian. The numbers
in a certificate are taken as exact, and all statements are about f in exact real arithmetic. || ||
is the Euclidean norm, and the spectral norm of a matrix. B is the ball of radius r around theta, on
which f has three derivatives (for relu, function `lipschitz` excludes kinks from B), and L is a
number with ||H(x) - H(theta)|| <= L ||x - theta|| on B.

Theorem 1 (a claim with an inertia). Let m > 0 and mu = m + L r. Let p eigenvalues of H(theta) be
above mu, k below -mu, and p + k = n, the number of parameters. Then at every point of B, p
eigenvalues of H are at least m and k are at most -m (Weyl), and B has at most one critical point.
If ||d|| < r and ||g(theta + d)|| <= m (r - ||d||) besides, B has exactly one.
Proof: N(x) = x - H(theta)^-1 g(x) has the derivative H(theta)^-1 (H(theta) - H(x)), whose norm is
at most c = L r / mu < 1 on B. Hence N is a contraction, with at most one fixed point in B, and its
fixed points are the zeros of g. With s = r - ||d||, N maps the ball of radius s around theta + d
into itself: ||N(x) - (theta + d)|| <= c s + ||g(theta + d)|| / mu <= (L r + m) s / mu <= s. By
Banach's theorem this ball contains a fixed point.

Theorem 2 (a claim with two directions). If u'H(theta)u + L r u'u <= c u'u and c < 0, the second
derivative of f along u / ||u|| is at most c everywhere on B, so no point of B is a minimum. The
same with the opposite signs excludes maxima. (There is no kind "maximum". The losses of this file
are convex in the outputs, so the second derivative of f with respect to a weight of the last layer
is never negative, and no maximum has a nonsingular Hessian.)

Inertia (Sylvester). If H - mu I = T D T' with T unit lower triangular and D diagonal, H has as many
eigenvalues above mu as D has positive entries, the pivots. They are computed with bounds on their
errors.

The number L (function `lipschitz`). At all points of B, let A0 >= ||a|| for the input a of a layer,
and let A1, A2, A3 and Z1, Z2, Z3 bound the first three derivatives, with respect to theta, of a and
of z = W a + b: ||D^k z[h, ..., h]|| <= Zk ||h||^k. With w = ||W|| + r, with the part (V, v) of h
that belongs to W and b, and with bounds P1, P2, P3 on |phi'|, |phi''| and |phi'''|:

    Dz[h]  = W Da[h] + V a + v             Z1 = w A1 + sqrt(A0^2 + 1), or w A1 + A0 without biases
    D2z[h] = W D2a[h] + 2 V Da[h]          Z2 = w A2 + 2 A1
    D3z[h] = W D3a[h] + 3 V D2a[h]         Z3 = w A3 + 3 A2
    next a = phi(z) [+ a over a skip]      A1' = P1 Z1 [+ A1],   A2' = P2 Z1^2 + P1 Z2 [+ A2],
                                           A3' = P3 Z1^3 + 3 P2 Z1 Z2 + P1 Z3 [+ A3]
    loss of a sample                       c3 Z1^3 + 3 c2 Z1 Z2 + c1 Z3

c1, c2, c3 bound the derivatives of the loss of a sample with respect to its outputs z. L is the sum
over the samples: a symmetric trilinear form that is at most L at all [h, h, h] with ||h|| = 1 has
norm at most L (Banach 1938). The penalty l2/2 ||theta||^2 has no third derivative.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

FORMAT = "fastcurv certificate 1"
MAX_BYTES = 1 << 23  # size of a file
MAX_PARAMS = 400
MAX_LAYERS = 12
MAX_NUMBER = 2.0**100  # largest magnitude of a number in a file
MAX_SECONDS = 600  # estimated time of a check
BITS = 256  # bits of a ball after the binary point
ONE = 1 << BITS


class NotUnderstood(Exception):
    """The file is not a certificate of this format, or it exceeds a limit."""


class NotConfirmed(Exception):
    """A step of the proof has failed."""


# --------------------------------------------------------------------------------------------------
# Balls. The result of each function contains its exact result for all numbers in its arguments.
# Rounding is downward in a >> b and a // b, and so upward in -(-a >> b) and -(-a // b).


class Ball:
    """The real numbers from (mid - rad) / 2^BITS to (mid + rad) / 2^BITS, for integers mid and
    rad >= 0.
    """

    __slots__ = ("mid", "rad")

    def __init__(self, mid: int, rad: int = 0) -> None:
        self.mid = mid
        self.rad = rad

    @property
    def low(self) -> int:
        return self.mid - self.rad

    @property
    def high(self) -> int:
        return self.mid + self.rad

    def __add__(self, other: Ball) -> Ball:
        return Ball(self.mid + other.mid, self.rad + other.rad)

    def __sub__(self, other: Ball) -> Ball:
        return Ball(self.mid - other.mid, self.rad + other.rad)

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)

    def __mul__(self, other: Ball) -> Ball:
        error = abs(self.mid) * other.rad + self.rad * (abs(other.mid) + other.rad)
        return shift(self.mid * other.mid, error)

    def __truediv__(self, other: Ball) -> Ball:
        smallest = abs(other.mid) - other.rad
        require(smallest > 0, "a divisor may be 0")
        # With the quotient q of the midpoints, x / y - q = (x - q y) / y for all x and y in them.
        q, rest = divmod(self.mid << BITS, other.mid)
        error = abs(rest) + (self.rad << BITS) + abs(q) * other.rad
        return Ball(q, -(-error // smallest))


Balls = Sequence[Ball]


def require(condition: bool, failure: str) -> None:
    if not condition:
        raise NotConfirmed(failure)


def shift(mid: int, rad: int, bits: int = BITS) -> Ball:
    """Return a ball that contains the quotients of Ball(mid, rad) and 2^bits."""
    q = mid >> bits
    return Ball(q, -(-(rad + mid - (q << bits)) >> bits))


def hull(low: int, high: int) -> Ball:
    middle = (low + high) >> 1
    return Ball(middle, high - middle)


def ratio(numerator: int, denominator: int = 1) -> Ball:
    return Ball(numerator << BITS) / Ball(denominator << BITS)


def from_float(x: float) -> Ball:
    return ratio(*x.as_integer_ratio())


ZERO, UNIT, TWO, THREE = (ratio(k) for k in range(4))


def add(xs: Iterable[Ball], ys: Iterable[Ball]) -> list[Ball]:
    return [x + y for x, y in zip(xs, ys)]


def multiply(xs: Iterable[Ball], ys: Iterable[Ball]) -> list[Ball]:
    return [x * y for x, y in zip(xs, ys)]


def total(xs: Balls) -> Ball:
    return Ball(sum(x.mid for x in xs), sum(x.rad for x in xs))


def dot(xs: Iterable[Ball], ys: Iterable[Ball]) -> Ball:
    """Return the sum of x y over two lists, rounded once."""
    mid = rad = 0
    for x, y in zip(xs, ys):
        if x.mid or x.rad:
            mid += x.mid * y.mid
            rad += abs(x.mid) * y.rad + x.rad * (abs(y.mid) + y.rad)
    return shift(mid, rad)


def sqrt(x: Ball) -> Ball:
    """Return the square root of the numbers in x that are not negative."""
    low, high = (math.isqrt(max(end, 0) << BITS) for end in (x.low, x.high))
    return hull(low, high + 1)


def norm(xs: Balls) -> Ball:
    return sqrt(dot(xs, xs))


def exp(x: Ball) -> Ball:
    if x.high < -BITS * ONE:
        return hull(0, 1)  # 0 < e^x < 2^x < 2^-BITS
    size = abs(x.mid) + x.rad
    require(size < 1000 * ONE, "the exponential of a number above 1000 is needed")
    # e^x = (e^t)^(2^halvings) with |t| <= 2^-16, and the terms of e^t from t^17 / 17! on add up to
    # less than 2^-BITS.
    halvings = max(0, size.bit_length() - BITS + 16)
    t = shift(x.mid, x.rad, halvings)
    result = UNIT
    for k in range(16, 0, -1):
        result = UNIT + t * result / ratio(k)
    result = Ball(result.mid, result.rad + 1)
    for _ in range(halvings):
        result = result * result
    return result


def log(x: Ball) -> Ball:
    require(x.low > 0, "the logarithm of a number that may be 0 is needed")
    # log x = halvings log 2 + log y, where the midpoint of y is from 1 to 2, and
    # log y = 2 artanh((y - 1) / (y + 1))
    halvings = x.mid.bit_length() - BITS - 1
    y = (
        shift(x.mid, x.rad, halvings)
        if halvings > 0
        else Ball(x.mid << -halvings, x.rad << -halvings)
    )
    return TWO * (artanh((y - UNIT) / (y + UNIT)) + ratio(halvings) * artanh(ratio(1, 3)))


def artanh(u: Ball) -> Ball:
    """Return u + u^3 / 3 + u^5 / 5 + ... The function `log` has |u| <= 1/3 but for errors. Then the
    terms from u^165 on are below 2^-BITS together.
    """
    require(
        (abs(u.mid) + u.rad) * 1000 <= 336 * ONE, "the logarithm of an inexact number is needed"
    )
    square = u * u
    result = ZERO
    for k in range(163, 0, -2):
        result = ratio(1, k) + square * result
    result = u * result
    return Ball(result.mid, result.rad + 1)


# --------------------------------------------------------------------------------------------------
# Activations phi. The table holds a function that returns phi, phi' and phi'', and bounds on
# |phi'|, |phi''| and |phi'''|. Here |tanh''| <= 4 / sqrt(27) < 0.77 and |tanh'''| <= 2, and
# sigmoid(z) = (1 + tanh(z / 2)) / 2 is the derivative of softplus.

Derivatives = tuple[Ball, Ball, Ball]


def sigmoid(z: Ball) -> Ball:
    e = exp(-z if z.mid >= 0 else z)
    return (UNIT if z.mid >= 0 else e) / (UNIT + e)


def softplus(z: Ball) -> Ball:
    return z + log(UNIT + exp(-z)) if z.mid >= 0 else log(UNIT + exp(z))


def relu_derivatives(z: Ball) -> Derivatives:
    """Return relu, its left derivative, and 0, which is its second derivative except at 0."""
    slope = UNIT if z.low > 0 else ZERO if z.high <= 0 else hull(0, ONE)
    return hull(max(z.low, 0), max(z.high, 0)), slope, ZERO


def tanh_derivatives(z: Ball) -> Derivatives:
    a = TWO * sigmoid(TWO * z) - UNIT
    slope = UNIT - a * a
    return a, slope, -TWO * a * slope


def sigmoid_derivatives(z: Ball) -> Derivatives:
    s = sigmoid(z)
    slope = s * (UNIT - s)
    return s, slope, slope * (UNIT - TWO * s)


def softplus_derivatives(z: Ball) -> Derivatives:
    return softplus(z), *sigmoid_derivatives(z)[:2]


ACTIVATIONS: dict[str, tuple[Callable[[Ball], Derivatives], Derivatives]] = {
    "identity": (lambda z: (z, UNIT, ZERO), (UNIT, ZERO, ZERO)),
    "relu": (relu_derivatives, (UNIT, ZERO, ZERO)),
    "tanh": (tanh_derivatives, (UNIT, ratio(77, 100), TWO)),
    "sigmoid": (sigmoid_derivatives, (ratio(1, 4), ratio(963, 10000), ratio(1, 8))),
    "softplus": (softplus_derivatives, (UNIT, ratio(1, 4), ratio(963, 10000))),
}

# --------------------------------------------------------------------------------------------------
# The loss of a sample with outputs z and targets y, before weights and divisor.

LOSSES = ("mse", "cross_entropy", "binary_cross_entropy", "poisson")


def loss_derivatives(name: str, z: Balls, y: Balls) -> tuple[Ball, Balls, Balls, Balls]:
    """Return the loss; its derivatives delta; and lists q and p such that the derivative of delta
    along rz is q (rz - p.rz), entry by entry.
    """
    p: Balls = [ZERO] * len(z)
    if name == "mse":  # sum of (z - y)^2
        rest = [a - b for a, b in zip(z, y)]
        return dot(rest, rest), add(rest, rest), [TWO] * len(z), p
    if name == "cross_entropy":  # sum of y (log(sum of e^z) - z)
        top = Ball(max(a.mid for a in z))
        mass = total(y)
        e = [exp(a - top) for a in z]
        p = [a / total(e) for a in e]  # e^z / sum of e^z, since `top` cancels
        q = [mass * a for a in p]
        return mass * (log(total(e)) + top) - dot(y, z), [a - b for a, b in zip(q, y)], q, p
    if name == "binary_cross_entropy":  # sum of softplus(z) - y z
        s = [sigmoid(a) for a in z]
        value = total([softplus(a) for a in z]) - dot(y, z)
        return value, [a - b for a, b in zip(s, y)], [a * (UNIT - a) for a in s], p
    e = [exp(a) for a in z]  # poisson: sum of e^z - y z + y log y - y
    value = total(e) - dot(y, z) + total([b * log(b) - b for b in y if b.high])
    return value, [a - b for a, b in zip(e, y)], e, p


def loss_bounds(name: str, z: Balls, y: Balls, distance: Ball) -> tuple[Ball, Ball]:
    """Return bounds c2 and c3 on the second and third derivatives at all outputs within `distance`
    of z.

    For cross entropy they are the variance and the third central moment of numbers v_i with
    probabilities p_i, times the sum of y. With ||v|| = 1 the v_i lie in an interval of length
    sqrt(2), so these moments are at most 1/2 and sqrt(2)^3 / (6 sqrt(3)) < 0.2722.
    """
    if name == "mse":
        return TWO, ZERO
    if name == "cross_entropy":
        return total(y) * ratio(1, 2), total(y) * ratio(2722, 10000)
    if name == "binary_cross_entropy":
        return ratio(1, 4), ratio(963, 10000)
    e = exp(Ball(max(a.high for a in z)) + distance)
    return e, e


# --------------------------------------------------------------------------------------------------
# The network at a point theta.

Layer = tuple[list[Balls], Balls, list[tuple[Ball, ...]]]  # W, b, and W transposed


class Network:
    """What the file states: the sizes of all layers, the activations and skips of the hidden
    layers, the loss, theta, and rows of (inputs, targets, weight / divisor).
    """

    sizes: list[int]
    activations: list[str]
    skips: list[bool]
    bias: bool
    loss: str
    l2: Ball
    l2_biases: bool
    theta: list[Ball]
    rows: list[tuple[Balls, Balls, Ball]]
    seconds: float

    def layers(self, theta: Balls) -> list[Layer]:
        """Return the parts of theta = W1, b1, W2, b2, ...; the rows of W are the units."""
        layers: list[Layer] = []
        rest = iter(theta)
        for inputs, outputs in zip(self.sizes, self.sizes[1:]):
            W: list[Balls] = [[next(rest) for _ in range(inputs)] for _ in range(outputs)]
            b = [next(rest) if self.bias else ZERO for _ in range(outputs)]
            layers.append((W, b, list(zip(*W))))
        return layers

    def penalties(self) -> list[Ball]:
        """Return the coefficient l2 of each parameter."""
        result = []
        of_biases = self.l2 if self.l2_biases else ZERO
        for inputs, outputs in zip(self.sizes, self.sizes[1:]):
            result += [self.l2] * (inputs * outputs) + [of_biases] * (outputs * self.bias)
        return result


class Sample:
    """The passes of one sample. For each layer: its input a, z = W a + b, and the derivative delta
    of the loss, times `factor`, with respect to z. For each hidden layer: slope = phi'(z), and
    bend = e phi''(z) with the derivative e of that loss with respect to phi(z).
    """

    def __init__(self, net: Network, layers: list[Layer], x: Balls, y: Balls, factor: Ball) -> None:
        self.y = y
        self.factor = factor
        self.skips = [*net.skips, False]
        self.a: list[Balls] = [x]
        self.z: list[Balls] = []
        self.slope: list[Balls] = []
        self.bend: list[Balls] = []
        for l, (W, b, _) in enumerate(layers):
            self.z.append([dot(row, self.a[l]) + t for row, t in zip(W, b)])
            if l < len(layers) - 1:
                phi, slope, bend = zip(*(ACTIVATIONS[net.activations[l]][0](t) for t in self.z[l]))
                self.a.append(self.with_skip(l, phi, self.a[l]))
                self.slope.append(slope)
                self.bend.append(bend)
        value, delta, q, self.p = loss_derivatives(net.loss, self.z[-1], y)
        self.value = factor * value
        self.q = [factor * t for t in q]
        self.delta: list[Balls] = [[factor * t for t in delta]]
        e: list[Ball] = []
        for l in range(len(layers) - 1, 0, -1):
            e = self.with_skip(l, [dot(column, self.delta[0]) for column in layers[l][2]], e)
            self.bend[l - 1] = multiply(e, self.bend[l - 1])
            self.delta.insert(0, multiply(e, self.slope[l - 1]))

    def with_skip(self, l: int, values: Balls, others: Balls) -> list[Ball]:
        """Return `values`, plus `others` if layer l has a skip connection."""
        return add(values, others) if self.skips[l] else list(values)

    def derivatives_along(
        self, layers: list[Layer], v: list[Layer]
    ) -> tuple[list[Balls], list[Balls]]:
        """Return ra and rdelta, the derivatives of a and delta along the direction v in theta."""
        ra: list[Balls] = [[ZERO] * len(self.a[0])]
        rz: list[Balls] = []
        for l, ((W, _, _), (V, vb, _)) in enumerate(zip(layers, v)):
            rz.append([dot(w, ra[l]) + dot(u, self.a[l]) + t for w, u, t in zip(W, V, vb)])
            if l < len(layers) - 1:
                ra.append(self.with_skip(l, multiply(self.slope[l], rz[l]), ra[l]))
        mean = dot(self.p, rz[-1])
        rdelta: list[Balls] = [multiply(self.q, [t - mean for t in rz[-1]])]
        re: list[Ball] = []
        for l in range(len(layers) - 1, 0, -1):
            columns = zip(layers[l][2], v[l][2])
            below = [dot(w, rdelta[0]) + dot(u, self.delta[l]) for w, u in columns]
            re = self.with_skip(l, below, re)
            bend = multiply(self.bend[l - 1], rz[l - 1])
            rdelta.insert(0, add(multiply(re, self.slope[l - 1]), bend))
        return ra, rdelta


class Point:
    """The loss, its gradient and its Hessian at theta."""

    def __init__(self, net: Network, theta: Balls) -> None:
        self.net = net
        self.theta = theta
        self.layers = net.layers(theta)
        self.samples = [Sample(net, self.layers, *row) for row in net.rows]

    def loss(self) -> Ball:
        penalty = dot(self.net.penalties(), multiply(self.theta, self.theta)) * ratio(1, 2)
        return total([s.value for s in self.samples]) + penalty

    def gradient(self) -> list[Ball]:
        """Return dW = sum of delta a', db = sum of delta, plus l2 theta."""
        pairs = [(s.a, s.delta) for s in self.samples]
        return self.sums_of_products(pairs, [], self.theta)

    def product(self, v: Balls) -> list[Ball]:
        """Return H v: rdW = sum of rdelta a' + delta ra', rdb = sum of rdelta, plus l2 v."""
        direction = self.net.layers(v)
        pairs = []
        weight_pairs = []
        for s in self.samples:
            ra, rdelta = s.derivatives_along(self.layers, direction)
            pairs.append((s.a, rdelta))
            weight_pairs.append((ra, s.delta))
        return self.sums_of_products(pairs, weight_pairs, v)

    def sums_of_products(self, pairs: list[Any], weight_pairs: list[Any], v: Balls) -> list[Ball]:
        """Return, in the order of theta, for weights the sum of delta a' over all pairs (a, delta),
        for biases the sum of delta over the first list, and l2 v added to both.
        """
        result: list[Ball] = []
        for l, (W, _, _) in enumerate(self.layers):
            inputs = [[a[l][j] for a, _ in pairs + weight_pairs] for j in range(len(W[0]))]
            deltas = [[delta[l][i] for _, delta in pairs + weight_pairs] for i in range(len(W))]
            result += [dot(delta, a) for delta in deltas for a in inputs]
            result += [total(delta[: len(pairs)]) for delta in deltas] if self.net.bias else []
        return add(result, multiply(self.net.penalties(), v))

    def hessian(self) -> list[list[Ball]]:
        n = len(self.theta)
        return [self.product([UNIT if i == j else ZERO for i in range(n)]) for j in range(n)]


# --------------------------------------------------------------------------------------------------
# The steps of the proofs. A claim holds the entries of the file, with balls as numbers.


def decimal(x: Ball) -> str:
    """Return the midpoint of a ball approximately, as text."""
    try:
        return f"{x.mid / ONE:.4g}"
    except OverflowError:
        return "a number above 1e308"


def lipschitz(point: Point, r: Ball) -> Ball:
    """Return the number L of the module docstring for the ball of radius r around the point."""
    net = point.net
    L = ZERO
    norms = [sqrt(total([dot(row, row) for row in W])) + r for W, _, _ in point.layers]
    for s in point.samples:
        A1 = A2 = A3 = ZERO
        for l, w in enumerate(norms):
            A0 = norm(s.a[l]) + A1 * r  # A1 is still that of a, the input of layer l
            Z1 = w * A1 + (sqrt(A0 * A0 + UNIT) if net.bias else A0)
            Z2 = w * A2 + TWO * A1
            Z3 = w * A3 + THREE * A2
            if l == len(norms) - 1:
                break
            if net.activations[l] == "relu":
                away = all(abs(z.mid) - z.rad > (Z1 * r).high for z in s.z[l])
                require(away, "a kink of relu may lie within the radius")
            P1, P2, P3 = ACTIVATIONS[net.activations[l]][1]
            below = (A1, A2, A3) if net.skips[l] else (ZERO, ZERO, ZERO)
            A1 = P1 * Z1 + below[0]
            A2 = P2 * Z1 * Z1 + P1 * Z2 + below[1]
            A3 = P3 * Z1 * Z1 * Z1 + THREE * P2 * Z1 * Z2 + P1 * Z3 + below[2]
        c2, c3 = (s.factor * c for c in loss_bounds(net.loss, s.z[-1], s.y, Z1 * r))
        c1 = norm(s.delta[-1]) + c2 * Z1 * r
        L = L + c3 * Z1 * Z1 * Z1 + THREE * c2 * Z1 * Z2 + c1 * Z3
    return Ball(L.high)


def eigenvalues_above(H: list[list[Ball]], mu: Ball) -> int:
    """Return the number of eigenvalues of H above mu, none of which is mu. The rows of H up to the
    diagonal give T and D of H - mu I = T D T', row by row.
    """
    T: list[list[Ball]] = []
    D: list[Ball] = []
    for i, row in enumerate(H):
        of_T: list[Ball] = []  # row i of T, up to the diagonal
        of_TD: list[Ball] = []  # row i of T D
        for j in range(i):
            of_TD.append(row[j] - dot(of_TD, T[j]))
            of_T.append(of_TD[j] / D[j])
        D.append(row[i] - mu - dot(of_TD, of_T))
        T.append(of_T)
        require(abs(D[i].mid) > D[i].rad, f"pivot {i + 1} of the Hessian may be 0")
    return sum(pivot.mid > 0 for pivot in D)


def confirm_inertia(net: Network, claim: dict[str, Any], correction: Balls) -> str:
    """Confirm a claim by theorem 1, and return the sentence that states it."""
    r = claim["radius"]
    m = claim["min_abs_eigenvalue"]
    point = Point(net, net.theta)
    mu = Ball((m + lipschitz(point, r) * r).high)
    H = point.hessian()
    above = eigenvalues_above(H, mu)
    below = len(H) - eigenvalues_above(H, -mu)
    require(
        (above, below) == (claim["positive"], claim["negative"]),
        f"the Hessian at theta has {above} eigenvalues above mu = m + L r = {decimal(mu)} and "
        f"{below} below -mu, but the claim needs {claim['positive']} and {claim['negative']}",
    )
    s = r - norm(correction)
    require(s.low > 0, "the correction is not shorter than the radius")
    slope = norm(Point(net, add(net.theta, correction)).gradient())
    require(
        slope.high <= (m * s).low,
        f"the norm of the gradient after the correction, {decimal(slope)}, is above m (r - ||d||) "
        f"= {decimal(m * s)}",
    )
    return (
        f"Exactly one critical point lies within r = {decimal(r)} of theta. It is a "
        f"{claim['kind']}: {above} eigenvalues of the Hessian are at least m = {decimal(m)}, and "
        f"{below} are at most -m."
    )


def confirm_directions(net: Network, claim: dict[str, Any]) -> str:
    """Confirm a claim by theorem 2, and return the sentence that states it."""
    r = claim["radius"]
    point = Point(net, net.theta)
    change = lipschitz(point, r) * r
    for name, sign in (("negative", -UNIT), ("positive", UNIT)):
        u = claim[f"{name}_direction"]
        curvature = claim[f"{name}_curvature"]
        form = dot(u, point.product(u))
        square = dot(u, u)
        margin = sign * (form - curvature * square) - change * square
        require(
            square.low > 0 and margin.low >= 0,
            f"the claimed {name} curvature is {decimal(curvature)}, but along the direction u the "
            f"form u'Hu is {decimal(form)}, u'u is {decimal(square)}, and H may change by "
            f"{decimal(change)} within the radius",
        )
    return (
        f"No point within r = {decimal(r)} of theta is a minimum or a maximum. At all these points "
        "the second derivative of the loss is at most "
        f"{decimal(claim['negative_curvature'])} along one direction and at least "
        f"{decimal(claim['positive_curvature'])} along another one."
    )


def confirm_values(net: Network, claim: dict[str, Any]) -> str:
    """Confirm claimed intervals for the loss and for the norm of the gradient."""
    point = Point(net, net.theta)
    for name, value in (("loss", point.loss()), ("gradient_norm", norm(point.gradient()))):
        low, high = claim[name]
        inside = low.high <= value.low and value.high <= high.low
        require(inside, f"the {name} is {decimal(value)} and not within its claimed interval")
    return (
        f"The loss is between {decimal(claim['loss'][0])} and {decimal(claim['loss'][1])}, and the "
        "norm of the gradient is within its claimed interval. Nothing is claimed about the kind of "
        "this point."
    )


# --------------------------------------------------------------------------------------------------
# Reading. What is not described by these functions is refused.


def understood(condition: bool, failure: str) -> None:
    if not condition:
        raise NotUnderstood(failure)


def parse_json(raw: bytes) -> Any:
    """Return the JSON value of `raw`. Numbers that are no integers, or of more than 9 digits, and
    repeated keys are refused.
    """

    def whole(text: str) -> int:
        understood(len(text) <= 9, "a whole number has more than 9 digits")
        return int(text)

    def refuse(text: str) -> Any:
        raise NotUnderstood("a number is neither whole nor a string as of float.hex")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        understood(len(dict(pairs)) == len(pairs), "an object has a key twice")
        return dict(pairs)

    understood(len(raw) <= MAX_BYTES, f"a file has more than {MAX_BYTES} bytes")
    hooks: Any = {"parse_int": whole, "parse_float": refuse, "parse_constant": refuse}
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, **hooks)
    except (ValueError, RecursionError):
        raise NotUnderstood("a file is not JSON in UTF-8") from None


def entries(value: Any, *keys: str) -> list[Any]:
    """Return the values of a JSON object with these keys and no others."""
    known = type(value) is dict and set(value) == set(keys)
    understood(known, f"an object must have the keys {', '.join(keys)} and no others")
    return [value[key] for key in keys]


def items(value: Any, name: str, length: int) -> list[Any]:
    understood(type(value) is list and len(value) == length, f"{name} must have {length} entries")
    return list(value)


def number(text: Any) -> Ball:
    """Return the number of a string that Python's float.hex wrote."""
    try:
        value = float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    exact = abs(value) <= MAX_NUMBER and value.hex() == text
    understood(exact, "a number must be a string as of float.hex, of magnitude at most 2^100")
    return from_float(value)


def numbers(value: Any, name: str, length: int) -> list[Ball]:
    return [number(text) for text in items(value, name, length)]


def one_of(value: Any, choices: Iterable[Any], name: str) -> Any:
    same = any(type(value) is type(choice) and value == choice for choice in choices)
    understood(same, f"{name} has a value that is not in this format")
    return value


def read_certificate(raw: bytes) -> tuple[Network, dict[str, Any], list[Ball]]:
    """Return the network, the claim and the correction."""
    names = ("format", "network", "loss", "data", "theta", "claim", "correction")
    form, network, loss, data, theta, claim, correction = entries(parse_json(raw), *names)
    one_of(form, [FORMAT], "format")
    net = Network()
    sizes, phi, skips, bias = entries(network, "sizes", "activations", "skips", "bias")
    deep = type(sizes) is list and 2 <= len(sizes) <= MAX_LAYERS + 1
    understood(deep, f"sizes must be a list of 2 to {MAX_LAYERS + 1} numbers")
    net.sizes = [one_of(size, range(1, MAX_PARAMS + 1), "a size") for size in sizes]
    hidden = len(sizes) - 2
    net.activations = [
        one_of(a, ACTIVATIONS, "an activation") for a in items(phi, "activations", hidden)
    ]
    net.skips = [one_of(skip, [False, True], "a skip") for skip in items(skips, "skips", hidden)]
    for skip, below, above in zip(net.skips, sizes, sizes[1:]):
        understood(not skip or below == above, "a skip must join layers of equal sizes")
    net.bias = one_of(bias, [False, True], "bias")
    name, l2, l2_biases = entries(loss, "name", "l2", "l2_biases")
    net.loss = one_of(name, LOSSES, "name of the loss")
    net.l2 = number(l2)
    net.l2_biases = one_of(l2_biases, [False, True], "l2_biases")
    understood(net.l2.mid >= 0, "l2 must not be negative")
    n = sum((inputs + net.bias) * outputs for inputs, outputs in zip(sizes, sizes[1:]))
    understood(n <= MAX_PARAMS, f"the network has more than {MAX_PARAMS} parameters")
    net.theta = numbers(theta, "theta", n)
    read_rows(net, data)
    return net, read_claim(claim, n), numbers(correction, "correction", n)


def read_rows(net: Network, data: Any) -> None:
    """Store the rows in the network."""
    X, y, weights = entries(data, "X", "y", "sample_weight")
    understood(type(X) is list and len(X) > 0, "X must be a list of rows")
    N = len(X)
    n = len(net.theta)
    d_out = net.sizes[-1]
    # n products and their sums, and two eliminations; measured on one core of 2024
    net.seconds = 4e-6 * N * n * (n + 20) + 3e-7 * n**3
    understood(net.seconds <= MAX_SECONDS, f"a check would take more than {MAX_SECONDS} s")
    X = [numbers(x, "a row of X", net.sizes[0]) for x in X]
    targets = [read_targets(net.loss, row, d_out) for row in items(y, "y", N)]
    factors = [UNIT] * N if weights is None else numbers(weights, "sample_weight", N)
    understood(all(w.mid >= 0 for w in factors), "a sample_weight must not be negative")
    divisor = ratio(N if net.loss == "cross_entropy" else N * d_out)
    # A weight below 2^-BITS has mid 0, but counts.
    net.rows = [(x, t, w / divisor) for x, t, w in zip(X, targets, factors) if w.high > 0]


def read_targets(loss: str, row: Any, d_out: int) -> list[Ball]:
    """Return the d_out targets of a sample, given by themselves or by the number of a class."""
    if loss == "cross_entropy" and type(row) is int:
        label = one_of(row, range(d_out), "a class")
        return [UNIT if i == label else ZERO for i in range(d_out)]
    y = numbers(row, "a row of y", d_out)
    understood(loss == "mse" or all(t.mid >= 0 for t in y), "a target must not be negative")
    probabilities = loss == "binary_cross_entropy"
    understood(not probabilities or all(t.mid <= ONE for t in y), "a target must not be above 1")
    return y


def read_claim(claim: Any, n: int) -> dict[str, Any]:
    understood(type(claim) is dict, "claim must be an object")
    kind = one_of(claim.get("kind"), ["minimum", "saddle", "values"], "kind")
    if kind == "values":
        _, loss, slope = entries(claim, "kind", "loss", "gradient_norm")
        return {
            "kind": kind,
            "loss": numbers(loss, "loss", 2),
            "gradient_norm": numbers(slope, "gradient_norm", 2),
        }
    result = {"kind": kind, "radius": number(claim.get("radius"))}
    understood(result["radius"].mid > 0, "radius must be above 0")
    if kind == "saddle" and "positive_direction" in claim:
        names = [
            f"{sign}_{what}"
            for sign in ("negative", "positive")
            for what in ("direction", "curvature")
        ]
        _, _, u, low, v, high = entries(claim, "kind", "radius", *names)
        values = numbers(u, names[0], n), number(low), numbers(v, names[2], n), number(high)
        understood(values[1].mid < 0 < values[3].mid, "a curvature has the wrong sign")
        return result | dict(zip(names, values))
    names = ["positive", "negative", "min_abs_eigenvalue"]
    _, _, positive, negative, smallest = entries(claim, "kind", "radius", *names)
    one_of(positive, range(1, n + 1), "positive")
    one_of(negative, [n - positive], "negative")
    one_of(kind, ["saddle" if negative else "minimum"], "kind")
    understood(number(smallest).mid > 0, "min_abs_eigenvalue must be above 0")
    return result | dict(zip(names, (positive, negative, number(smallest))))


def check(raw: bytes, say: Callable[[str], Any] = lambda line: None) -> tuple[int, str]:
    """Return the exit status and a sentence on the result. `say` is called with the limits before
    the check begins.
    """
    try:
        net, claim, correction = read_certificate(raw)
        say(
            f"{len(net.theta)} parameters (at most {MAX_PARAMS}), {len(net.rows)} rows: some "
            f"{net.seconds:.1g} s (at most {MAX_SECONDS} s)"
        )
        if claim["kind"] == "values":
            proved = confirm_values(net, claim)
        elif "positive_direction" in claim:
            proved = confirm_directions(net, claim)
        else:
            proved = confirm_inertia(net, claim, correction)
        return 0, f"Confirmed: {proved} (These numbers are rounded; the file has the exact ones.)"
    except NotConfirmed as failure:
        return 1, f"Not confirmed: {failure}."
    except NotUnderstood as failure:
        return 2, f"Not understood: {failure}."


def check_file(path: str, say: Callable[[str], Any] = lambda line: None) -> tuple[int, str]:
    """Return the exit status and a sentence on the certificate at `path`."""
    try:
        if not Path(path).is_file():  # a pipe could be waited for without end
            return 2, "Not understood: there is no such file, or it is a folder or a pipe."
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, TypeError) as error:
        return 2, f"Not understood: a file cannot be read ({type(error).__name__})."
    return check(raw, say)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: check_certificate.py point.json")
        return 2
    status, sentence = check_file(arguments[0], print)
    print(sentence)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
