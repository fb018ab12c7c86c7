"""Networks and helpers that the tests of rounding bounds share."""

import numpy as np

from ..nets import draw
from .longdouble import LD

KINDS = {"hessian": "hessian", "ggn": "ggn", "fisher": "empirical_fisher"}
ORACLE = float(np.finfo(LD).eps)


def drawn(sizes, act="tanh", loss="mse", dtype="float64", N=30, seed=0, **options):
    """Return a random network with data, and the random generator that drew it."""
    rng = np.random.default_rng(seed)
    return draw(rng, sizes, act, loss, N, dtype=dtype, **options), rng


def problem(*case, **options):
    """Return (objective, theta, v) with theta from `init`, so that all biases are 0, and a random
    direction v.
    """
    net, rng = drawn(*case, **options)
    return net.ob, net.model.init(rng=rng), net.direction(rng)


def objective(*case, scale=1.0, **options):
    """Return (objective, theta) with a random theta, whose biases are not 0, multiplied by
    `scale`.
    """
    net, _ = drawn(*case, **options)
    return net.ob, (scale * net.theta).astype(net.theta.dtype)
