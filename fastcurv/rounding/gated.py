"""Networks of relu and leaky_relu units in plain NumPy: passes that take complex and many thetas at
once, and the objective with its kinks rounded off.

For small networks: a Hessian is a complex step of the gradient for every parameter, exact to
rounding.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats
from ..structure.activations import LEAK, loss_terms
from ..structure.parameters import divisor_of, l2_diagonal, layers_of, normalised, rows_that_count

Arrays = list[NDArray[Any]]
STEP = 1e-150  # of a complex step: its square is far below every rounding


class Rows:
    """The data, the shapes and the loss of a network objective, in NumPy, without the rows of
    weight 0.

    Parameters
    ----------
    ob : Objective
    merge : bool
        Rows with equal inputs become one, with the sum of their weights and the mean of their
        targets: the loss but for a constant. `first` are the rows that stay, `inverse` says which
        of them each row has become.
    """

    def __init__(self, ob: Any, merge: bool = False) -> None:
        model = ob.model
        self.sizes, self.bias = tuple(model.sizes), bool(model.bias)
        self.leaks = [LEAK[name] for name in model.activation]
        weight = ob.sample_weight
        weight = np.ones(len(ob.X)) if weight is None else np.array(weight, float)
        counts = weight != 0
        self.loss, self.X = ob.loss, rows_that_count(ob)
        y, d = np.asarray(ob.y)[counts], self.sizes[-1]
        if ob.loss == "cross_entropy" and y.ndim == 1:
            y = np.eye(d)[y.astype(int)]
        self.y, self.weight = y.reshape(len(self.X), d).astype(float), weight[counts]
        self.first = self.inverse = np.arange(len(self.X))
        self.long_y, self.long_weight = self.y, self.weight
        self.divisor = divisor_of(ob)
        if merge:
            self._merge_rows()
        self.l2 = np.broadcast_to(np.asarray(l2_diagonal(ob), dtype=float), (model.n_params,))

    def _merge_rows(self) -> None:
        _, first, inverse = np.unique(self.X, axis=0, return_index=True, return_inverse=True)
        if len(first) == len(self.X):
            return
        self.first, self.inverse = first, np.asarray(inverse).reshape(-1)
        weight, y = np.zeros(len(first), np.longdouble), np.zeros((len(first), self.y.shape[1]))
        np.add.at(weight, self.inverse, self.weight.astype(np.longdouble))
        y = y.astype(np.longdouble)
        np.add.at(y, self.inverse, self.weight[:, None] * self.y.astype(np.longdouble))
        self.X, self.long_weight = self.X[first], weight
        self.long_y = y / np.where(weight > 0, weight, 1)[:, None]
        self.y, self.weight = self.long_y.astype(float), weight.astype(float)

    def without(self, units: list[NDArray[np.bool_]]) -> Rows:
        """The same of the net without some of its hidden units."""
        ends = [np.zeros(n, dtype=bool) for n in (self.sizes[0], self.sizes[-1])]
        gone = [ends[0], *units, ends[1]]
        wanted = []
        for below, above in zip(gone, gone[1:]):
            wanted.append(~(above[:, None] | below[None, :]).ravel())
            if self.bias:
                wanted.append(~above)
        found = copy.copy(self)
        found.sizes = tuple(int((~g).sum()) for g in gone)
        found.l2 = self.l2[np.concatenate(wanted)]
        return found

    def layers(self, theta: NDArray[Any]) -> list[tuple[NDArray[Any], Any]]:
        """``[(W, b), ...]``, b None without biases; theta may be many, ``(..., n)``."""
        return layers_of(self, theta)

    def linear(self, layer: tuple[NDArray[Any], Any], a: NDArray[Any]) -> NDArray[Any]:
        """``a W' + b``."""
        z: NDArray[Any] = a @ np.swapaxes(layer[0], -1, -2)
        if layer[1] is not None:
            z = z + layer[1][..., None, :]
        return z

    def terms(self, f: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The loss and its derivative by the outputs, both divided and weighted, (N, d)."""
        real = f.real.dtype.type  # long double where the passes are: 1/N is no float64
        scale = (self.long_weight.astype(real) / real(self.divisor))[:, None]
        terms, d = loss_terms(self.loss, f, self.long_y.astype(real))
        return scale * terms, scale * d

    def backward(
        self, layers: list[tuple[NDArray[Any], Any]], below: Arrays, slopes: Arrays, d: NDArray[Any]
    ) -> tuple[NDArray[Any], Arrays]:
        """The gradient of the data's part by theta; and e of every hidden layer."""
        grads: Arrays = []
        es: Arrays = []
        for l in reversed(range(len(layers))):
            if self.bias:
                grads.append(d.sum(axis=-2))
            dW = np.swapaxes(d, -1, -2) @ below[l]
            grads.append(dW.reshape(*dW.shape[:-2], -1))
            if l:
                es.append(d @ layers[l][0])
                d = es[-1] * slopes[l - 1]
        return np.concatenate(grads[::-1], axis=-1), es[::-1]


def supported(ob: Any) -> bool:
    """Whether an objective is a plain stack of layers whose hidden units are relu or leaky_relu."""
    model = ob.model
    plain = not normalised(model) and not getattr(model, "residual", False)
    return plain and len(model.activation) > 0 and all(n in LEAK for n in model.activation)


class Smoothed:
    """The objective with every kink rounded off over a width: ``leak z + (1 - leak) w softplus(z /
    w)``.

    Has ``n_params, value, gradient, value_and_gradient, hessian`` (a matrix), in plain NumPy, for
    small networks.
    """

    def __init__(self, ob: Any, width: float) -> None:
        self.rows, self.width, self.n_params = Rows(ob), float(width), int(ob.n_params)
        self.cost = self.n_params * len(self.rows.X) * sum(self.rows.sizes)  # of a Hessian

    def _passes(self, theta: NDArray[Any]) -> tuple[Any, NDArray[Any], Arrays]:
        r = self.rows
        layers, a, below, slopes = r.layers(theta), r.X, [], []
        for l, layer in enumerate(layers):
            below.append(a)
            z = r.linear(layer, a)
            if l < len(r.leaks):
                t, leak = z / self.width, r.leaks[l]
                right = t.real > 0
                e = np.exp(np.where(right, -t, t))
                slopes.append(leak + (1 - leak) * np.where(right, 1, e) / (1 + e))
                soft = np.log1p(e) + np.where(right, t, 0)
                a = leak * z + (1 - leak) * self.width * soft
        value, d = r.terms(z)
        g, _ = r.backward(layers, below, slopes, d)
        decay = 0.5 * (r.l2 * theta**2).sum(axis=-1)
        return value.sum(axis=(-1, -2)) + decay, g + r.l2 * theta, slopes

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        value, g, _ = self._passes(np.asarray(theta, dtype=float))
        return float(value), g

    def value(self, theta: Floats) -> float:
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta: Floats) -> Floats:
        return self.value_and_gradient(theta)[1]

    def hessian(self, theta: Floats) -> Floats:
        size = len(self.rows.X) * max(self.rows.sizes)
        H = by_complex_steps(lambda t: self._passes(t)[1], np.asarray(theta, dtype=float), size)
        return 0.5 * (H + H.T)

    def slopes(self, theta: Floats) -> Arrays:
        """Of every hidden layer, (N, width): between the two sides' where a kink is near."""
        return self._passes(np.asarray(theta, dtype=float))[2]


def by_complex_steps(gradient: Any, point: Floats, size: int) -> Floats:
    """The Jacobian of an analytic gradient, exact to rounding; `size` numbers make one pass."""
    n = point.size
    J, many = np.empty((n, n)), max(1, 2**19 // size)
    for first in range(0, n, many):
        some = np.arange(first, min(n, first + many))
        moved = np.tile(point.astype(complex), (len(some), 1))
        moved[np.arange(len(some)), some] += 1j * STEP
        J[:, some] = gradient(moved).imag.T / STEP
    return J
