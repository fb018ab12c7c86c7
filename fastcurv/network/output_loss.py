"""Value and derivatives of the loss with respect to the outputs of each row, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.protocols import Array, Floats
from ..structure.parameters import divisor_of
from ..structure.tables import loss_spec, one_hot


class OutputLossDerivatives:
    """Value and derivatives of the loss with respect to the outputs z: ``delta = dL/dz`` of the
    last layer, and ``rdelta = (d2L/dz2) rz``.

    All numbers are in float64. For cross entropy, delta keeps its relative accuracy if a prediction
    is nearly certain, because logits are taken relative to the largest one and delta of the largest
    is computed from the other outputs.

    Parameters
    ----------
    ob : Objective
        The objective with the loss, targets, weights and divisor.
    z : ndarray (N, d_out)
        The outputs of all rows.
    divisor : float, optional
        A divisor that replaces that of the objective.
    """

    p: np.ndarray
    p_top: Any

    def __init__(self, ob: Any, z: Array, divisor: float | None = None) -> None:
        z = z.astype(np.float64)
        y = ob.y
        divisor = divisor_of(ob) if divisor is None else divisor
        self.loss = ob.loss
        self.dtype = ob.dtype
        if ob.sample_weight is not None and loss_spec(ob.loss).given is None:
            idle = ob.sample_weight == 0  # 0 times an overflowing loss would be NaN
            z = np.where(idle[:, None], 0, z)
            y = np.where(idle if y.ndim == 1 else idle[:, None], 0, y)
        weight = np.ones(len(z)) if ob.sample_weight is None else ob.sample_weight.astype(float)
        self.f = (weight / divisor)[:, None]
        self.n_samples = len(z)
        self.sums = None
        self.top = np.zeros(len(z), int)
        link = loss_spec(ob.loss).link
        if link == "softmax":
            self.delta = self._cross_entropy_delta(z, y)
        elif link == "identity":
            self.delta = 2 * self.f * (z - y)
            self.h = 2 * self.f
            self.value = float((self.f * (z - y) ** 2).sum())
        elif link == "given":
            loss: Any = loss_spec(ob.loss).given
            found = loss.weighted_derivatives(divisor, np.dtype(float), z, y, ob.sample_weight)
            self.value, self.delta, self.h = found
        else:
            small = np.exp(-np.abs(z))
            above = z > 0
            sure = np.where(above, (1 - y.astype(float)) * z, -y.astype(float) * z)
            self.value = float((self.f * (sure + np.log1p(small))).sum())
            small = small / (1 + small)
            label_part = np.where(above, 1 - y.astype(float), -y.astype(float))
            self.delta = self.f * (label_part - np.where(above, small, -small))
            self.h = self.f * small * (1 - small)

    def _cross_entropy_delta(self, z: Floats, y: Array) -> Floats:
        """Return ``f (T p_j - y_j)``, with p = softmax(z), T = sum(y), f = weight / divisor."""
        m = z.shape[1]
        y = one_hot(y, m).astype(float)
        self.top = z.argmax(axis=1)
        first = np.arange(m) == self.top[:, None]
        e = np.where(first, 0.0, np.exp(z - z.max(axis=1, keepdims=True)))
        S = e.sum(axis=1, keepdims=True)
        self.p = np.asfortranarray(e / (1 + S))
        T = y.sum(axis=1, keepdims=True)
        # p of the largest logit, 0 in `p`
        self.p_top = 1 / (1 + S)
        self.h = self.f * T
        margins = y * (z.max(axis=1, keepdims=True) - z)
        self.value = float((self.f * (margins.sum(axis=1, keepdims=True) + T * np.log1p(S))).sum())
        others = np.where(first, 0.0, y).sum(axis=1, keepdims=True)
        return np.asarray(self.f * np.where(first, others - T * (S / (1 + S)), T * self.p - y))

    def second_derivatives(self) -> Floats:
        """Return d2L/dz2 of each sample: the diagonal (N, d_out) if each output has its own term,
        otherwise (N, d_out, d_out).
        """
        N, d = self.delta.shape
        if loss_spec(self.loss).link != "softmax":
            return np.array(np.broadcast_to(self.h, (N, d) if self.h.ndim == 2 else self.h.shape))
        each = np.arange(N)
        others = self.p.sum(axis=1)
        p = self.p.copy()
        p[each, self.top] = self.p_top[:, 0]
        h = -p[:, :, None] * p[:, None]
        h[:, np.arange(d), np.arange(d)] += p
        h[each, self.top, self.top] = p[each, self.top] * others  # avoids cancellation in 1 - p
        return np.asarray(self.h[:, :, None] * h)

    def multiply_by_curvature(self, rz: Array, kind: str = "hessian") -> Array:
        """Return ``(d2L/dz2) rz`` or, if `kind` is "fisher", ``N <delta, rz> delta``, per
        sample.
        """
        if kind == "fisher":
            along = (self.delta * rz).sum(axis=1, keepdims=True)
            return np.asarray(self.n_samples * along * self.delta, dtype=self.dtype)
        if self.h.ndim == 3:
            return np.asarray(np.einsum("ijk,ik->ij", self.h, rz), dtype=self.dtype)
        if loss_spec(self.loss).per_entry:
            return np.asarray(self.h * rz, dtype=self.dtype)
        each = np.arange(len(rz))
        U = rz.astype(np.float64) - rz[each, self.top].astype(np.float64)[:, None]
        mean = (self.p * U).sum(axis=1, keepdims=True)
        out = self.p * (U - mean)
        out[each, self.top] = (-self.p_top * mean)[:, 0]
        return np.asarray(self.h * out, dtype=self.dtype)


def loss_curvature_factor(loss: OutputLossDerivatives, kind: str) -> Floats:
    """Return a factor S of the curvature of the loss in the outputs z, as an array ``(c, N,
    d_out)`` in float64, with c columns per sample. For each sample, ``S S' = d2L/dz2``, or ``S S' =
    N delta delta'`` with delta = dL/dz if `kind` is "fisher". The factors are derived in
    `fastcurv.network.gram`.
    """
    N, d = loss.delta.shape
    if kind == "fisher":
        return np.asarray(np.sqrt(float(N)) * loss.delta[None])
    if loss_spec(loss.loss).per_entry:
        roots = np.sqrt(np.broadcast_to(loss.h, (N, d)))
        return np.ascontiguousarray(np.eye(d)[:, None, :] * roots)
    at = np.arange(N)
    root_p = np.sqrt(loss.p)
    root_top = np.sqrt(loss.p_top)  # shape (N, 1)
    others = np.arange(d - 1) + (np.arange(d - 1) >= loss.top[:, None])  # shape (N, d - 1)
    factor = -(loss.p / (1 + root_top))[None] * root_p[at[:, None], others].T[:, :, None]
    for j in range(d - 1):
        factor[j, at, others[:, j]] += root_p[at, others[:, j]]
        factor[j, at, loss.top] = -(root_top[:, 0] * root_p[at, others[:, j]])
    return np.asarray(np.sqrt(loss.h) * factor)
