"""Passes in long double, an oracle for the rounding of float64 and float32."""

import numpy as np
import pytest

from fastcurv import Activation
from fastcurv.structure.parameters import divisor_of, l2_diagonal
from fastcurv.structure.tables import loss_spec

LD = np.longdouble
HAS_LONG_DOUBLE = np.finfo(LD).eps < np.finfo(float).eps
in_long_double = pytest.mark.skipif(
    not HAS_LONG_DOUBLE, reason="long double is no longer than double"
)
PI = LD("3.14159265358979323846264338327950288")


def normal(z):
    """Return (density, distribution function) of the standard normal distribution at z, by a series
    near 0 and a continued fraction elsewhere.
    """
    t = np.abs(z)
    density = np.exp(-t * t / 2) / np.sqrt(2 * PI)
    near, far = np.minimum(t, 3), np.maximum(t, 3)
    term = total = near
    for k in range(3, 120, 2):
        term = term * near * near / k
        total = total + term
    fraction = far
    for k in range(120, 0, -1):
        fraction = far + k / fraction
    tail = np.where(t < 3, LD(0.5) - density * total, density / fraction)
    return density, np.where(z > 0, 1 - tail, tail)


def activation(name, z):
    """Return (phi, phi', phi'') of an activation at z. For built-in activations, the formulas share
    no code with the library.
    """
    if isinstance(name, Activation):
        return name.function(z)
    one, zero, low = np.ones_like(z), np.zeros_like(z), np.minimum(z, 0)
    e = np.exp(-np.abs(z))
    s, d = np.where(z > 0, 1 / (1 + e), e / (1 + e)), e / (1 + e) ** 2
    if name == "identity":
        return z, one, zero
    if name in ("relu", "leaky_relu"):
        slope = LD(0) if name == "relu" else 1 / LD(100)
        return np.where(z > 0, z, slope * z), np.where(z > 0, one, slope), zero
    if name == "tanh":
        a, u = np.tanh(z), np.exp(-2 * np.abs(z))
        return a, 4 * u / (1 + u) ** 2, -8 * a * u / (1 + u) ** 2
    if name == "sigmoid":
        return s, d, -d * np.tanh(z / 2)
    if name == "softplus":
        return np.maximum(z, 0) + np.log1p(e), s, d
    if name == "silu":
        return z * s, s + z * d, d * (2 - z * np.tanh(z / 2))
    if name == "gelu":
        n, cdf = normal(z)
        return z * cdf, cdf + z * n, n * (2 - z * z)
    assert name == "elu", f"no formula of its own for {name!r}; wanted a branch here"
    return (
        np.where(z > 0, z, np.expm1(low)),
        np.where(z > 0, one, np.exp(low)),
        np.where(z > 0, zero, np.exp(low)),
    )


def user_loss_derivatives(name, z, y):
    """Return the first and second derivatives with respect to the outputs z of a loss that the
    library defines by a NumPy function, from formulas that share no code with the library.
    """
    one, r = np.ones_like(z), None if name == "gaussian_nll" else z - y
    if name == "poisson":
        return np.exp(z) - y, np.exp(z)
    if name == "gamma":
        return -np.expm1(np.log(y) - z), np.exp(np.log(y) - z)
    if name == "log_cosh":
        return np.tanh(r), 1 / np.cosh(np.clip(r, -5000, 5000)) ** 2
    if name.startswith("pseudo_huber"):
        delta = LD(float(name[13:-1])) if "(" in name else LD(1)
        c = 1 / np.hypot(one, r / delta)
        return r * c, c**3
    if name.startswith("quantile"):
        level, width = map(float, name[9:-1].split(",")) if "(" in name else (0.5, 0.05)
        x = r / LD(width)
        with np.errstate(over="ignore"):
            both = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))  # the sigmoid at x and at -x
        first = np.where(x > 0, (1 - LD(level)) - both[1], both[0] - LD(level))
        return first, both[0] * both[1] / LD(width)
    m = y.shape[1]
    u, s = (z[:, :m] - y) * np.exp(-z[:, m:] / 2), np.exp(-z[:, m:] / 2)
    second, at = np.zeros((len(z), 2 * m, 2 * m), LD), np.arange(m)
    second[:, at, at], second[:, at + m, at + m] = s * s, u * u / 2
    second[:, at, at + m] = second[:, at + m, at] = -u * s
    return np.concatenate([u * s, (1 - u) * (1 + u) / 2], axis=1), second


def softmax(z):
    """Return the softmax probabilities of each row of z, the sum of its exponentials except the
    largest, relative to the largest, and a boolean mask of the largest.
    """
    e, top = np.exp(z - z.max(axis=1, keepdims=True)), np.arange(z.shape[1])
    top = top == z.argmax(axis=1)[:, None]
    S = np.where(top, 0, e).sum(axis=1, keepdims=True)
    return e / (1 + S), S, top


def built_in_loss(name, z, y):
    """Return the terms of the named built-in loss for outputs z and targets y, and its first and
    second derivatives with respect to z, without cancellation. Second derivatives are matrices for
    cross entropy, and otherwise diagonals.
    """
    e = np.exp(-np.abs(z))
    if name == "mse":
        return (z - y) ** 2, 2 * (z - y), np.full_like(z, 2)
    if name == "binary_cross_entropy":
        terms = np.where(z > 0, z * (1 - y), -z * y) + np.log1p(e)
        return terms, np.where(z > 0, (1 - y) - e / (1 + e), e / (1 + e) - y), e / (1 + e) ** 2
    (p, S, top), T = softmax(z), y.sum(axis=1, keepdims=True)
    terms = y * (z.max(axis=1, keepdims=True) - z) + T * np.log1p(S) / z.shape[1]
    rest, left = np.where(top, 0, y).sum(axis=1, keepdims=True), np.where(top, S / (1 + S), 1 - p)
    first, I = np.where(top, rest - T * S / (1 + S), T * p - y), np.eye(z.shape[1])
    return terms, first, (T * p)[:, :, None] * np.where(I, left[:, None], -p[:, None])


class Truth:
    """The gradient and products of an `Objective` at theta in long double, computed from its stored
    numbers.
    """

    def __init__(self, ob, theta):
        self.ob, self.theta, model = ob, np.asarray(theta).astype(LD), ob.model
        self.layers, self.skips = self.split(self.theta), tuple(model.skips) + (False,)
        self.a, self.p, self.q = [ob.X.astype(LD)], [], []
        with np.errstate(under="ignore", over="ignore"):
            for l, (W, b) in enumerate(self.layers):
                z = self.a[-1] @ W.T + b
                if l < len(self.layers) - 1:
                    phi, p, q = activation(model.activation[l], z)
                    self.a.append(phi + self.a[-1] if self.skips[l] else phi)
                    self.p.append(p)
                    self.q.append(q)
            self.loss(z)
            g, self.d, self.e = self.backward(self.delta)
            self.gradient = g + np.asarray(l2_diagonal(ob)).astype(LD) * self.theta

    def split(self, v):
        layers, start = [], 0
        for m, k in self.ob.model.shapes:
            V, start = v[start : start + m * k].reshape(m, k), start + m * k
            layers.append((V, v[start : start + m] if self.ob.model.bias else np.zeros(m, LD)))
            start += m * self.ob.model.bias
        return layers

    def join(self, parts):
        return np.concatenate(
            [x.ravel() for W, b in parts for x in ((W, b) if self.ob.model.bias else (W,))]
        )

    def backward(self, delta):
        """Return J'delta as a flat array, and two lists with the arrays of each layer: derivatives
        with respect to preactivations, and with respect to the activations of hidden layers.
        """
        d, e = [np.asarray(delta, LD)], [None]
        for l in range(len(self.layers) - 1, 0, -1):
            e.insert(0, d[0] @ self.layers[l][0] + (e[0] if self.skips[l] else 0))
            d.insert(0, e[0] * self.p[l - 1])
        return self.join([(x.T @ a, x.sum(axis=0)) for x, a in zip(d, self.a)]), d, e

    def loss(self, z):
        ob, y, self.z = self.ob, self.ob.y, z
        w = np.ones(len(z), LD) if ob.sample_weight is None else ob.sample_weight.astype(LD)
        f = (w / LD(divisor_of(ob)))[:, None]
        y = (np.eye(z.shape[1])[y] if y.ndim == 1 else y).astype(LD)
        if loss_spec(ob.loss).given:
            first, second = user_loss_derivatives(str(ob.loss), z, y)
        else:
            _, first, second = built_in_loss(ob.loss, z, y)
        self.delta, self.h = f * first, f.reshape(-1, *[1] * (second.ndim - 1)) * second

    def r_loss(self, rz):
        if self.h.ndim == 2:
            return self.h * rz
        # its second derivatives map a shift of all outputs to 0
        if self.ob.loss == "cross_entropy":
            rz = rz - np.take_along_axis(rz, self.z.argmax(axis=1)[:, None], axis=1)
        return np.einsum("ijk,ik->ij", self.h, rz)

    def product(self, v, kind="hessian"):
        with np.errstate(under="ignore"):
            v = np.asarray(v).astype(LD)
            layers, l2 = self.split(v), np.asarray(l2_diagonal(self.ob)).astype(LD)
            ra, rz = [LD(0) * self.a[0]], []
            for l, ((W, _), (V, vb)) in enumerate(zip(self.layers, layers)):
                rz.append(ra[-1] @ W.T + self.a[l] @ V.T + vb)
                if l < len(self.layers) - 1:
                    ra.append(self.p[l] * rz[-1] + (ra[-1] if self.skips[l] else 0))
            if kind == "fisher":
                along = (self.delta * rz[-1]).sum(axis=1, keepdims=True)
                return self.backward(self.ob.n_samples * along * self.delta)[0]
            rd, re = self.r_loss(rz[-1]), None
            if kind == "ggn":
                return self.backward(rd)[0] + l2 * v
            parts = [None] * len(self.layers)
            for l in range(len(self.layers) - 1, -1, -1):
                parts[l] = rd.T @ self.a[l] + self.d[l].T @ ra[l], rd.sum(axis=0)
                if l:
                    re = (re if self.skips[l] else 0) + rd @ self.layers[l][0]
                    re = re + self.d[l] @ layers[l][0]
                    rd = re * self.p[l - 1] + self.e[l - 1] * self.q[l - 1] * rz[l - 1]
            return self.join(parts) + l2 * v


def size(x):
    """Return ||x||, also if squares of entries underflow or overflow."""
    top = np.abs(x).max()
    return top * np.sqrt(np.sum((x / top) ** 2)) if 0 < top < np.inf else top
