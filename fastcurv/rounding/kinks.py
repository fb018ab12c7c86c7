"""Kinks and signs under batch normalisation, where z within rounding of 0 are counted from the
sizes of what they are made of; other networks prove their signs by `fastcurv.rounding.majorants`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats
from ..structure.activations import ACTIVATIONS, normalise
from ..structure.parameters import layers_of, norms_of, skips
from .arithmetic import KINKED


def norm_kinks(ob: Any, theta: Floats, least: float) -> int:
    """How many of what relu, leaky_relu and elu units are given lies within rounding of 0, that of
    theta's numbers `least` or more.
    """
    model, X = ob.model, np.asarray(ob.X, dtype=float)
    zs = model.preactivations(theta.astype(model.dtype), X.astype(model.dtype))
    eps, count, below = float(np.finfo(model.dtype).eps), 0, X
    for layer, name in enumerate(model.activation):
        W, _ = layers_of(model, theta)[layer]
        z = np.asarray(zs[layer], dtype=float)
        reach = np.abs(below) @ (np.abs(W) + least).T
        reach = _norm_reach(below @ W.T, reach, *_norms(model, theta, layer))
        off = 4 * (layer + 1) * (W.shape[1] + 2) * eps * reach + least * (reach > 0)
        count += int((np.abs(z) <= off).sum()) if name in KINKED else 0
        below = ACTIVATIONS[name][0](z) + (below if skips(model, layer) else 0)
    return count


def norm_off(ob: Any, theta: Floats, radius: float) -> list[NDArray[np.bool_]]:
    """By hidden layer the relu units proved to be off for all rows on the ball of that radius: of N
    numbers with mean 0 and mean square 1 none is larger than ``sqrt(N)``, so ``gamma h + beta``
    stays below 0 where ``|gamma| sqrt(N) + beta`` does.
    """
    most = float(np.sqrt(len(ob.X))) * (1 + 1e-12)
    return [
        (np.abs(gamma) + radius) * most + beta + radius < -1e-12 * np.abs(beta)
        if name == "relu"
        else np.zeros(len(gamma), dtype=bool)
        for layer, name in enumerate(ob.model.activation)
        for gamma, beta in (_norms(ob.model, theta, layer),)
    ]


def _norms(model: Any, theta: Floats, layer: int) -> tuple[Floats, Floats]:
    """Gamma and beta of a normalised layer."""
    found = norms_of(model, theta)[layer]
    assert found is not None
    return found


def _norm_reach(z: Floats, reach: Floats, gamma: Floats, beta: Floats) -> Floats:
    """Sizes of what ``gamma (z - mean) s + beta`` is made of, `reach` being those of z."""
    h, s = normalise(z)
    mean, square = reach.mean(axis=0), np.sqrt((reach**2).mean(axis=0))
    found = np.abs(gamma) * s * (reach + mean + 2 * np.abs(h) * square) + np.abs(beta)
    return np.asarray(found)
