"""Batch normalisation with bounds on rounding, for which all rows are in memory at once.

The normalisation between the linear part of a layer and its activation is followed entry by entry:
every `Num` carries a bound on its error, and each operation adds its own rounding. The standard
deviation is a norm of the centred column, so ``sqrt(variance + eps)`` changes by at most the root
mean square of the errors of z; everything else is products, sums and means. A unit whose errors
reach its standard deviation (``sqrt(eps)`` included) has no bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.protocols import Floats
from ..structure.parameters import layers_of, norms_of, skips
from ..structure.tables import ACTIVATIONS, normalise
from .arithmetic import Num, exact


class Normed:
    """The normalisation of one layer over all rows: ``h = (z - mean) s``, ``u = gamma h + beta``,
    its backward pass and the R-passes of both.
    """

    du: Num  # e phi'
    du_mean: Num
    du_h: Num

    def __init__(self, z: Num, gamma: Num, beta: Num) -> None:
        self.gamma, (self.h, self.s) = gamma, z.normalised()
        self.u, self.scale = self.h * gamma + beta, self.s * gamma

    def backward(self, du: Num) -> Num:
        """Return ``delta = s gamma (du - mean du - h mean (du h))``."""
        self.du, self.du_mean, self.du_h = du, du.mean(), (du * self.h).mean()
        return (du - self.du_mean - self.h * self.du_h) * self.scale

    def sums(self) -> tuple[Num, Num]:
        """Return the gradients by gamma and beta."""
        return (self.du * self.h).sum(), self.du.sum()

    def r_forward(self, rz: Num | None, vgamma: Num, vbeta: Num) -> tuple[Num, tuple[Num, Num]]:
        """Return ``ru = vgamma h + gamma rh + vbeta`` with ``rh = s (rz - mean rz - h c)``, c the
        mean of ``rz h``, and (rh, ``s (vgamma - s c gamma)``); rz None means 0.
        """
        h, s = self.h, self.s
        rz = exact(0.0 * h.x, h.r) if rz is None else rz
        c = (rz * h).mean()
        rh = (rz - rz.mean() - h * c) * s
        return h * vgamma + rh * self.gamma + vbeta, (rh, (vgamma - s * c * self.gamma) * s)

    def r_backward(self, rdu: Num, turned: tuple[Num, Num] | None) -> tuple[Num, tuple[Num, Num]]:
        """Return rdelta and the sums for gamma and beta; `turned` comes from `r_forward`, None
        keeps only the terms that are linear in rdu.
        """
        h, rdu_h = self.h, rdu * self.h
        if turned is None:
            rdelta = (rdu - rdu.mean() - h * rdu_h.mean()) * self.scale
        else:
            rh, r_scale = turned
            rdu_h, D = rdu_h + self.du * rh, self.du - self.du_mean - h * self.du_h
            inner = rdu - rdu.mean() - rh * self.du_h - h * rdu_h.mean()
            rdelta = D * r_scale + inner * self.scale
        return rdelta, (rdu_h.sum(), rdu.sum())


# --------------------------------------------------------------------------------------------------
# Kinks and signs under batch normalisation: a z counts as within rounding of 0 by the sizes of the
# terms that it is computed from. For other networks signs are proved in
# `fastcurv.certify.majorants`.


def norm_kinks(ob: Any, theta: Floats, least: float) -> int:
    """Return how many inputs of relu, leaky_relu and elu units lie within rounding of 0, where the
    rounding of the entries of theta is taken as `least` or more.
    """
    model, X = ob.model, np.asarray(ob.X, dtype=float)
    zs = model.preactivations(theta.astype(model.dtype), X.astype(model.dtype))
    eps, count, below = float(np.finfo(model.dtype).eps), 0, X
    norms: Any = norms_of(model, theta)
    for layer, name in enumerate(model.activation):
        W, _ = layers_of(model, theta)[layer]
        z = np.asarray(zs[layer], dtype=float)
        reach = np.abs(below) @ (np.abs(W) + least).T
        (gamma, beta), (h, s) = norms[layer], normalise(below @ W.T)
        mean, square = reach.mean(axis=0), np.sqrt((reach**2).mean(axis=0))
        # the sizes of the terms that gamma (z - mean) s + beta is computed from
        reach = np.abs(gamma) * s * (reach + mean + 2 * np.abs(h) * square) + np.abs(beta)
        off = 4 * (layer + 1) * (W.shape[1] + 2) * eps * reach + least * (reach > 0)
        count += int((np.abs(z) <= off).sum()) if ACTIVATIONS[name].kink else 0
        below = ACTIVATIONS[name].phi(z) + (below if skips(model, layer) else 0)
    return count


def norm_off(ob: Any, theta: Floats, radius: float) -> list[NDArray[np.bool_]]:
    """Return, by hidden layer, masks of the relu units that are proved to be off for all rows on
    the ball of that radius. Of N numbers with mean 0 and mean square 1 none is larger than
    ``sqrt(N)``, so ``gamma h + beta`` stays below 0 if ``|gamma| sqrt(N) + beta`` does.
    """
    most, norms = float(np.sqrt(len(ob.X))) * (1 + 1e-12), norms_of(ob.model, theta)
    return [
        (np.abs(gamma) + radius) * most + beta + radius < -1e-12 * np.abs(beta)
        if ACTIVATIONS[name].leak == 0.0
        else np.zeros(len(gamma), dtype=bool)
        for name, norm in zip(ob.model.activation, norms)
        if norm is not None
        for gamma, beta in (norm,)
    ]
