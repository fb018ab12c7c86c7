"""Value and gradient of a network objective from passes in extended precision, with a proved bound.

A float64 gradient is off by its rounding, about 1e-16 of what its sums are made of, and at a
critical point that is all there is of it. Here every number has some 100 bits (`extended`), so
that bounds on norms, row by row and wide as they are, are still some 1e-25:

    z = a W' + b        dz     = ||W|| da + tau |a| |W| + unit (...)
    a = phi(z)          da     = sup|phi'| dz + unit (...)              [+ the input's]
    e = delta W         de     = ||W|| ddelta + tau |delta| |W|         [+ e's]
    delta = e * phi'    ddelta = sup|phi'| de + ||e|| dp
                        dp     = sup|phi''| dz, 1 where z may lie at a kink
    dW = sum delta' a   ddW    = sum over rows of ddelta (||a|| + da) + ||delta|| da  +  tau ...

each d a bound on the norm of a row's error, tau that of a product (`extended.tau`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..memo import last_kept
from ..protocols import Floats
from ..structure.activations import LEAK
from ..structure.parameters import divisor_of, l2_diagonal, layers_of, normalised, skips
from . import extended as x
from .arithmetic import norm, norms
from .bounds import gradient_bound
from .extended import SMALL, UNIT, Pair
from .passes import checked_theta, spectral

ROWS = 1024  # of a block: the inner dimension of the sums over rows
SLACK = 1 + 1e-6  # for the rounding of the bounds themselves
# sup |phi'| and sup |phi''|, kinks aside
LIPSCHITZ = {"sigmoid": 0.25, "silu": 1.1, "gelu": 1.13}
BENDS = {"identity": 0.0, "relu": 0.0, "leaky_relu": 0.0, "tanh": 0.77, "sigmoid": 0.0963} | {
    "softplus": 0.25,
    "silu": 0.5,
    "gelu": 0.8,
    "elu": 1.0,
}
JUMPS = {name: 1.0 - leak for name, leak in LEAK.items()}  # of phi'


@dataclass
class Bounded:
    """A matrix of pairs, a row for each sample, with bounds (rows, 1) on its errors' norms."""

    value: Pair
    error: Floats
    size: Floats = field(init=False)  # norms of the rows
    top: Floats = field(init=False)  # largest numbers of the rows

    def __post_init__(self) -> None:
        sizes = np.abs(self.value.hi)
        self.size, self.top = norms(sizes), sizes.max(axis=1, keepdims=True)


class Factor:
    """A matrix W that rows are multiplied by: ``x W'``, sliced once."""

    def __init__(self, W: Floats) -> None:
        self.parts = [
            (slice(k, k + x.DEPTH), x.Sliced(x.pair(W[:, k : k + x.DEPTH])))
            for k in range(0, W.shape[1], x.DEPTH)
        ]
        self.norm, self.tau = spectral(W), x.tau(W.shape[1])
        self.tops = norm(np.abs(W).max(axis=1))

    def times(self, rows: Bounded) -> tuple[Pair, Floats]:
        """(rows W', bounds on the errors of its rows)."""
        total: Pair | None = None
        for some, part in self.parts:
            A = x.Sliced(Pair(rows.value.hi[:, some], rows.value.lo[:, some]))
            here = x.sliced_dot(A, part)
            total = here if total is None else x.add(total, here)
        assert total is not None
        rounding = self.tau * rows.top * self.tops + SMALL * ((rows.top > 0) & (self.tops > 0))
        return total, self.norm * rows.error + rounding


def activation(name: str, z: Pair) -> tuple[Pair, Pair]:
    """Phi and phi' (at a kink the left one) of pairs."""
    one, zero = x.pair(np.ones_like(z.hi)), x.pair(np.zeros_like(z.hi))
    positive = z.hi > 0
    if name == "identity":
        return z, one
    if name in LEAK:
        return (
            x.choose(positive, z, x.times(z, LEAK[name])),
            x.choose(positive, one, x.pair(np.full_like(z.hi, LEAK[name]))),
        )
    if name == "elu":
        e = x.expm1(x.choose(positive, zero, z))
        return x.choose(positive, z, e), x.choose(positive, one, x.plus(e, 1.0))
    if name == "tanh":
        a = x.tanh(z)
        return a, x.plus(-x.mul(a, a), 1.0)
    if name == "gelu":
        n, cdf = x.normal(z)
        return x.mul(z, cdf), x.add(cdf, x.mul(z, n))
    s = x.sigmoid(z)
    if name == "softplus":
        return x.softplus(z), s
    d = x.mul(s, x.sigmoid(-z))
    if name == "sigmoid":
        return s, d
    return x.mul(z, s), x.add(s, x.mul(z, d))


@dataclass
class Sums:
    """What all rows add up to, before the divisor and l2, with bounds on the errors."""

    value: Pair
    value_error: float
    parts: list[Pair]  # dW, db of each layer
    errors: list[float]

    def add(self, i: int, part: Pair, error: float) -> None:
        """Adds rows' part of the sum number i."""
        size = norm(part.hi)
        self.parts[i] = x.add(self.parts[i], part)
        self.errors[i] += error + 2 * UNIT * (size + norm(self.parts[i].hi))


class Precise:
    """Value and gradient at theta; `g`, `value` and the bounds on their errors."""

    def __init__(self, ob: Any, theta: Floats) -> None:
        model = self.model = ob.model
        self.ob = ob
        layers = layers_of(model, theta)
        self.biases = [np.zeros(len(W)) if b is None else b for W, b in layers]
        self.up, self.down = (
            [Factor(W) for W, _ in layers],
            [Factor(np.ascontiguousarray(W.T)) for W, _ in layers],
        )
        zeros = [x.pair(np.zeros(p.shape)) for W, _ in layers for p in (W, W[:, 0])]
        self.sums = Sums(x.pair(0.0), 0.0, zeros, [0.0] * len(zeros))
        N = len(ob.X)
        for start in range(0, N, ROWS):
            self.add_rows(slice(start, min(N, start + ROWS)))
        self.part = self.divided(x.pair(divisor_of(ob)))
        self.g, self.g_error, self.value, self.value_error = finished(ob, theta, self.part)

    def add_rows(self, rows: slice) -> None:
        """Forward, loss and backward for some rows, and their parts of the sums."""
        model, n_hidden = self.model, len(self.model.activation)
        X = np.array(self.ob.X[rows], dtype=float)
        a, slopes = [Bounded(x.pair(X), np.zeros((len(X), 1)))], []
        for l in range(n_hidden):
            z = self.linear(l, a[-1])
            above, slope, off = self.bent(model.activation[l], z)
            if skips(model, l):
                value = x.add(above.value, a[-1].value)
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
                below = x.add(below, e.value)
                error = error + e.error + UNIT * norms(np.abs(below.hi))
            e = Bounded(below, error)
            d = self.bent_back(l - 1, e, *slopes[l - 1])

    def linear(self, l: int, a: Bounded) -> Bounded:
        """Z = a W' + b."""
        z, error = self.up[l].times(a)
        z, b = x.plus(z, self.biases[l]), norm(self.biases[l])
        return Bounded(z, error + UNIT * (norms(np.abs(z.hi)) + b))

    @staticmethod
    def bent(name: str, z: Bounded) -> tuple[Bounded, Pair, Floats]:
        """Phi(z), phi'(z), and bounds on the errors of phi', each."""
        a, p = activation(name, z.value)
        rounding = UNIT * 8 * (1 + z.top) * (z.error + z.top > 0)
        if name in ("identity", "relu"):
            rounding = np.zeros_like(rounding)
        width = float(np.sqrt(a.hi.shape[1]))
        error = LIPSCHITZ.get(name, 1.0) * z.error + rounding * width
        off = np.broadcast_to(BENDS[name] * z.error + rounding, a.hi.shape)
        if name in JUMPS:
            off = off + JUMPS[name] * ((np.abs(z.value.hi) <= z.error) & (z.error > 0))
        return Bounded(a, error), p, off

    def bent_back(self, x_layer: int, e: Bounded, p: Pair, off: Floats) -> Bounded:
        """Delta = e * phi'."""
        d = x.mul(e.value, p)
        error = LIPSCHITZ.get(self.model.activation[x_layer], 1.0) * e.error
        error = error + norms(np.abs(e.value.hi) * off) + e.error * off.max(axis=1, keepdims=True)
        return Bounded(d, error + 2 * UNIT * norms(np.abs(d.hi)))

    def add_layer(self, l: int, d: Bounded, a: Bounded) -> None:
        """``dW = delta' a``, ``db``: the sum of delta's rows."""
        error = float((d.error * (a.size + a.error) + d.size * a.error).sum())
        tops = [norm(np.abs(m.value.hi).max(axis=0)) for m in (d, a)]
        error += x.tau(len(d.size)) * tops[0] * tops[1]
        self.sums.add(2 * l, x.dot(d.value.T, a.value.T), error)
        error = float((d.error + 64 * UNIT * d.size).sum())
        self.sums.add(2 * l + 1, x.column_sums(d.value), error)

    def loss(self, z: Bounded, rows: slice) -> Bounded:
        """Delta of the last layer; the rows' losses are added to the value."""
        ob, y = self.ob, self.ob.y[rows]
        m = z.value.hi.shape[1]
        y = np.eye(m)[y] if y.ndim == 1 else np.array(y, dtype=float)
        w = np.ones(len(y)) if ob.sample_weight is None else ob.sample_weight[rows].astype(float)
        of = {"mse": _squares, "binary_cross_entropy": _binary, "cross_entropy": _entropy}
        terms, terms_error, d, d_error = of[ob.loss](z, y)
        terms = x.column_sums(x.times(x.row_sums(terms), w[:, None]))
        sizes = np.abs(w)[:, None] * terms_error
        value = x.add(self.sums.value, Pair(terms.hi[0], terms.lo[0]))
        self.sums.value = value
        self.sums.value_error += float(sizes.sum()) + UNIT * float(np.abs(value.hi))
        return Bounded(x.times(d, w[:, None]), np.abs(w)[:, None] * d_error)

    def divided(self, divisor: Pair) -> Part:
        """What these rows add to gradient and value, before l2."""
        sums, bias = self.sums, self.model.bias
        kept = [i for i in range(len(sums.parts)) if bias or i % 2 == 0]
        flat = Pair(
            np.concatenate([sums.parts[i].hi.ravel() for i in kept]),
            np.concatenate([sums.parts[i].lo.ravel() for i in kept]),
        )
        bound = norm([sums.errors[i] for i in kept]) / float(divisor.hi)
        bound += 2 * UNIT * norm(flat.hi) / float(divisor.hi) + SMALL * len(flat.hi)
        value = x.div(sums.value, divisor)
        off = sums.value_error / float(divisor.hi) + 2 * UNIT * abs(float(value.hi)) + SMALL
        return Part(x.div(flat, divisor), bound, value, off)


@dataclass
class Part:
    """What some rows add to gradient (n,) and value, divisor included, with bounds on the errors;
    parts add up.
    """

    g: Pair
    g_error: float
    value: Pair
    value_error: float

    def __add__(self, other: Part) -> Part:
        g, value = x.add(self.g, other.g), x.add(self.value, other.value)
        sizes = [norm(p.hi) for p in (self.g, other.g, g)]
        off = 2 * UNIT * sum(abs(float(p.hi)) for p in (self.value, other.value, value))
        return Part(
            g,
            self.g_error + other.g_error + 2 * UNIT * sum(sizes) + SMALL * len(g.hi),
            value,
            self.value_error + other.value_error + off + SMALL,
        )


def part(ob: Any, theta: ArrayLike) -> Part:
    """The `Part` of an objective's rows; not with batch normalisation."""
    found = _at(ob, theta)
    assert found is not None
    return found.part


def finished(ob: Any, theta: Floats, rows: Part) -> tuple[Floats, float, float, float]:
    """``(gradient, bound, value, bound)`` in float64 from the part of all rows and l2."""
    l2 = np.broadcast_to(l2_diagonal(ob), theta.shape)
    decay = x.two_product(l2.astype(float), theta)
    g = x.add(rows.g, decay)
    sizes = norm(rows.g.hi) + norm(decay.hi)
    bound = rows.g_error + 4 * UNIT * sizes + SMALL * theta.size
    squares = x.column_sums(x.scaled(x.times(decay, theta), 0.5))
    value = x.add(rows.value, squares)
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


# terms of the loss, their sums' errors, delta, its errors
Terms = tuple[Pair, Floats, Pair, Floats]


def _squares(z: Bounded, y: Floats) -> Terms:
    gap = x.plus(z.value, -y)
    size, reach = norms(np.abs(gap.hi)), norms(np.abs(z.value.hi)) + norms(np.abs(y))
    off = z.error + UNIT * reach
    rounding = UNIT * (y.shape[1] + 4) * (size + off) ** 2
    return x.mul(gap, gap), (2 * size + off) * off + rounding, x.scaled(gap, 2.0), 2 * off


def _binary(z: Bounded, y: Floats) -> Terms:
    terms = x.add(x.softplus(z.value), -x.times(z.value, y))
    m, target = y.shape[1], norms(np.abs(y))
    lipschitz = np.sqrt(m) + target
    rounding = 8 * UNIT * (m + 4) * (m + z.size * (1 + target))
    d = x.plus(x.sigmoid(z.value), -y)
    return terms, lipschitz * z.error + rounding, d, 0.25 * z.error + 4 * UNIT * lipschitz


def _entropy(z: Bounded, y: Floats) -> Terms:
    m, T = y.shape[1], np.abs(y).sum(axis=1, keepdims=True)
    at = z.value.hi.argmax(axis=1)[:, None]
    top = Pair(np.take_along_axis(z.value.hi, at, 1), np.take_along_axis(z.value.lo, at, 1))
    u = x.add(z.value, -top)
    u = x.choose(u.hi > 0, x.pair(np.zeros_like(u.hi)), u)
    e = x.exp(u)
    others = x.choose(np.arange(m) == at, x.pair(np.zeros_like(e.hi)), e)
    rest = x.row_sums(others)
    terms = x.times(x.add(x.log1p(rest), -u), y)
    mass = x.row_sums(x.pair(y))
    p = x.div(e, x.plus(rest, 1.0))
    d = x.plus(x.mul(p, mass), -y)
    unit = UNIT * (m + 32) * T
    return terms, 2 * T * z.error + unit * (m + 4 * z.size), d, 0.5 * T * z.error + 4 * unit


@last_kept
def _passes(ob: Any, at: Floats) -> Precise:
    with np.errstate(all="ignore"):
        found = Precise(ob, at)
    found.ob = None
    return found


def _at(ob: Any, theta: ArrayLike) -> Precise | None:
    """The passes at theta, those made last once more; None with batch normalisation."""
    return None if normalised(ob.model) else _passes(ob, checked_theta(ob, theta))


def gradient(ob: Any, theta: ArrayLike) -> tuple[Floats, float]:
    """``(g, error)``: the gradient at theta (n,) in float64, rounded from some 100 bits, and a
    bound on ``||g - gradient||_2``.

    Of the exact function of the stored numbers: a float32 model's are taken as float64 numbers. The
    bound is infinite where something overflows. With batch normalisation g is the float64 engine's,
    with the bound of that.

    Cost: some 300 float64 gradients; the last one is kept.
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
    """``(value, error)``: the loss at theta likewise, and a bound on ``|value - loss|``; infinite
    with batch normalisation.
    """
    found = _at(ob, theta)
    if found is not None:
        return found.value, found.value_error
    return float(ob.value(theta)), np.inf
