"""The passes of a network over all rows at once, in NumPy: the state that theta decides, and the
loss rows. For operators in coordinates of their own, whose layers are not multiplied as matrices.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from ..certify.arithmetic import _derivatives
from ..protocols import Array, Floats
from ..structure.tables import LEAK
from .sample_layers import Scratch, rows


class LossCurve:
    """``delta = dL/dz`` of the last layer, and ``rdelta = (d2L/dz2) rz``.

    In float64 whatever the model's dtype. Cross entropy keeps its relative accuracy at nearly
    certain rows: everything is relative to the largest logit, whose own entry is minus the sum of
    the others.

    Parameters
    ----------
    ob : Objective
        Its loss, targets, weights and divisor.
    z : ndarray (N, d_out)
    """

    p: np.ndarray
    p_top: Any

    def __init__(self, ob: Any, z: Array) -> None:
        z, y = z.astype(np.float64), ob.y
        self.loss, self.dtype = ob.loss, ob.dtype
        weight = np.ones(len(z)) if ob.sample_weight is None else ob.sample_weight.astype(float)
        self.f, self.n_samples = (weight / ob.divisor)[:, None], len(z)
        self.sums, self.top = None, np.zeros(len(z), int)
        if ob.loss == "cross_entropy":
            self.delta = self._entropy(z, y)
        elif ob.loss == "mse":
            self.delta, self.h = 2 * self.f * (z - y), 2 * self.f
            self.value = float((self.f * (z - y) ** 2).sum())
        else:
            small, above = np.exp(-np.abs(z)), z > 0
            sure = np.where(above, (1 - y.astype(float)) * z, -y.astype(float) * z)
            self.value = float((self.f * (sure + np.log1p(small))).sum())
            small = small / (1 + small)
            rest = np.where(above, 1 - y.astype(float), -y.astype(float))
            self.delta = self.f * (rest - np.where(above, small, -small))
            self.h = self.f * small * (1 - small)

    def _entropy(self, z: Floats, y: Array) -> Floats:
        """delta_j = f (T p_j - y_j), at the largest logit minus the sum of the others."""
        m = z.shape[1]
        y = (y[:, None] == np.arange(m)).astype(float) if y.ndim == 1 else y.astype(float)
        self.top = z.argmax(axis=1)
        first = np.arange(m) == self.top[:, None]
        e = np.where(first, 0.0, np.exp(z - z.max(axis=1, keepdims=True)))
        S = e.sum(axis=1, keepdims=True)
        self.p, T = np.asfortranarray(e / (1 + S)), y.sum(axis=1, keepdims=True)  # 0 at the largest
        self.p_top, self.h = 1 / (1 + S), self.f * T
        rest = y * (z.max(axis=1, keepdims=True) - z)
        self.value = float((self.f * (rest.sum(axis=1, keepdims=True) + T * np.log1p(S))).sum())
        others = np.where(first, 0.0, y).sum(axis=1, keepdims=True)
        return np.asarray(self.f * np.where(first, others - T * (S / (1 + S)), T * self.p - y))

    def curve(self, rz: Array, kind: str = "hessian") -> Array:
        """Rdelta = (d2L/dz2) rz, in the model's dtype; for the Fisher ``N <delta, rz> delta``."""
        if kind == "fisher":
            along = (self.delta * rz).sum(axis=1, keepdims=True)
            return np.asarray(self.n_samples * along * self.delta, dtype=self.dtype)
        if self.loss != "cross_entropy":
            return np.asarray(self.h * rz, dtype=self.dtype)
        each = np.arange(len(rz))
        U = rz.astype(np.float64) - rz[each, self.top].astype(np.float64)[:, None]
        mean = (self.p * U).sum(axis=1, keepdims=True)
        out = self.p * (U - mean)
        out[each, self.top] = (-self.p_top * mean)[:, 0]
        return np.asarray(self.h * out, dtype=self.dtype)


class RowState:
    """What theta alone decides, for every row: a below each layer, phi' and e phi'' of each hidden
    one, delta of each.

    Parameters
    ----------
    ob : Objective
        Of a model without batch normalisation.
    theta : ndarray (n,)
        Its matrices W are views into it.
    plan : Plan, optional
        The engine's, at theta: the state is then the one that its products are made of, to the
        last bit. At a kink rounding decides on a slope, and near a fit on delta.
    """

    delta: list[Any]
    eq: list[Any]

    def __init__(self, ob: Any, theta: Array, plan: Any = None) -> None:
        model = ob.model
        self.dtype, self.skips = model.dtype, model.skips
        self.W, self.b = zip(*model.unflatten(theta))
        self.a, self.p, bends = [ob.X], [], []
        if plan is not None:
            self._take(ob, plan.state())
            return
        for l, name in enumerate(model.activation[: len(self.W) - 1]):
            z = self._linear(l)
            a, p, q, _ = _derivatives(name, z.astype(np.float64))
            above = np.asarray(a, dtype=self.dtype)
            self.a.append(self._held(above + self.a[l] if self.skips[l] else above))
            self.p.append(None if p is None else self._held(p))
            bends.append(q)
        self.loss = LossCurve(ob, self._linear(len(self.W) - 1))
        self._backward(bends)

    def _take(self, ob: Any, state: Any) -> None:
        """What the engine keeps by layer, and by its formulas what that makes as it goes along."""
        *hidden, (outputs, _, _, delta) = state
        self.loss = LossCurve(ob, outputs)
        self.loss.delta = delta.astype(np.float64)
        self.delta, self.eq = [self._held(one[3]) for one in state], []
        for name, (a, p, eq, delta) in zip(ob.model.activation, hidden):
            if p is None and name in LEAK:
                p = np.where(a > 0, 1.0, LEAK[name])
            if eq is None and name in ("tanh", "sigmoid"):
                eq = (-2 * a if name == "tanh" else 1 - 2 * a) * delta
            self.a.append(self._held(a))
            self.p.append(None if p is None else self._held(p))
            self.eq.append(None if eq is None else self._held(eq))

    def astype(self, dtype: Any) -> RowState:
        """The same numbers in another precision."""
        other = object.__new__(RowState)
        other.__dict__.update(self.__dict__)
        other.dtype = np.dtype(dtype)
        for name in ("W", "a", "p", "eq", "delta"):
            held = getattr(self, name)
            setattr(other, name, [None if x is None else x.astype(dtype) for x in held])
        other.loss = copy(self.loss)
        other.loss.dtype = other.dtype
        return other

    def _held(self, x: Array) -> Array:
        """In the model's dtype, a unit's numbers side by side."""
        return np.asarray(x, dtype=self.dtype, order="F")

    def _linear(self, l: int) -> Array:
        z = np.asarray(self.a[l] @ self.W[l].T)
        return z if self.b[l] is None else z + self.b[l]

    def _backward(self, bends: list[Any]) -> None:
        """e_below = delta W [+ e];  delta = e * phi';  e * phi''."""
        L = len(self.W)
        self.delta = [None] * L
        self.eq = [None] * (L - 1)
        self.delta[-1] = self._held(self.loss.delta)
        e = None
        for l in range(L - 1, 0, -1):
            below = self.delta[l] @ self.W[l]
            if l < L - 1 and self.skips[l]:
                below += e
            e, p, q = below, self.p[l - 1], bends[l - 1]
            self.delta[l - 1] = self._held(e if p is None else e * p)
            self.eq[l - 1] = None if q is None else self._held(e * q)

    # --- along a vector

    def r_forward(
        self, layers: list[Any], cuts: list[slice], M: Scratch, x: Array
    ) -> tuple[list[Any], list[Array]]:
        """``rz = ra W' + a V' + vb;  ra = phi' rz [+ the layer's input's]``: ra below each layer
        (None below the first), and rz. Each layer has its own coordinates for V and vb, a cut of x.
        """
        M.begin()
        L = len(layers)
        ras: list[Any] = [None] * L
        rzs: list[Array] = []
        for l, layer in enumerate(layers):
            rz = layer.forward(M, x[cuts[l]])
            if l:
                M(rz, ras[l], self.W[l].T, True)
            rzs.append(rz)
            if l < L - 1:
                p = self.p[l]
                ra = rz if p is None else np.multiply(p, rz, out=M.empty(*rz.shape))
                ras[l + 1] = ra + ras[l] if self.skips[l] and l else ra
        return ras, rzs

    def r_backward(
        self,
        layers: list[Any],
        cuts: list[slice],
        M: Scratch,
        out: Array,
        *,
        rdelta: Array,
        along: tuple[Array, list[Any], list[Array]] | None,
        active: Any = None,
    ) -> None:
        """``rdW = rdelta' a + delta' ra;  re_below = rdelta W + delta V [+ re];  rdelta = re phi' +
        e phi'' rz``, each layer's part of `out` written once, those that are not `active` left.

        `along`: x, ra and rz of `r_forward`; None for the backward pass of rdelta alone.
        """
        re = None
        for l in range(len(layers) - 1, -1, -1):
            if active is None or active[l]:
                layers[l].gradient(M, rdelta, None if along is None else along[1][l], out[cuts[l]])
            if l == 0:
                return
            below = rows(M, rdelta, self.W[l])
            if along is not None:
                layers[l].back(M, along[0][cuts[l]], below)
            if re is not None and self.skips[l]:
                below += re
            re, p, eq = below, self.p[l - 1], self.eq[l - 1]
            rdelta = re if p is None else np.multiply(re, p, out=M.empty(*re.shape))
            if along is not None and eq is not None:  # then p is there: rdelta is not re
                rz = along[2][l - 1]
                rdelta += np.multiply(eq, rz, out=rz)
