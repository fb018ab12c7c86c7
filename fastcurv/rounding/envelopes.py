"""How large the first three derivatives of an activation can be over an interval ``z +- t``.

Every bound is a function that falls with ``|z|`` taken at the end of the interval that is nearest
to 0, or, where the derivative grows from 0 first, its value at the far end. Rounded outward by
`GROW`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from ..protocols import Floats
from ..structure.activations import LEAK
from .arithmetic import KINKED, bell, normal

GROW = 1 + 1e-12  # for the rounding of the few operations here
TINY = float(np.finfo(float).tiny)  # of a derivative that underflows

# Of tanh with a = tanh z: phi'' = -2 a (1 - a^2), largest at a^2 = 1/3; phi''' = (1 - a^2)(6 a^2 -
# 2), with a second top of 2/3 at a^2 = 2/3
_TANH2_AT, _TANH2 = math.atanh(math.sqrt(1 / 3)), 4 / (3 * math.sqrt(3))
_TANH3_AT = math.atanh(math.sqrt(2 / 3))


def envelopes(name: str, z: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Bounds on |phi'|, |phi''|, |phi'''| over ``z +- t``, elementwise; infinite second and third
    ones where the interval holds a kink.

    At the kink itself the derivatives of both sides count.

    Examples
    --------
    >>> P1, P2, P3 = envelopes("tanh", np.zeros(1), np.zeros(1))
    >>> float(P1[0]), float(P2[0]), round(float(P3[0]), 6)
    (1.000000000001, 2.2250738585072014e-308, 2.0)
    """
    x = np.maximum(np.abs(z) - t, 0.0)  # the end nearest to 0
    far = np.abs(z) + t
    if name == "identity":
        return np.ones_like(x), np.zeros_like(x), np.zeros_like(x)
    if name in KINKED:
        return _kinked(name, z, t)
    found = _SMOOTH[name](x, far, z + t)
    return found[0] * GROW + TINY, found[1] * GROW + TINY, found[2] * GROW + TINY


def crosses(name: str, z: Floats, t: Floats) -> NDArray[np.bool_]:
    """Where ``z +- t`` holds a kink of the activation."""
    return np.abs(z) <= t if name in KINKED else np.zeros(z.shape, dtype=bool)


def _kinked(name: str, z: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    cross, zero = np.abs(z) <= t, np.zeros_like(z)
    if name == "elu":
        e = np.where(z - t <= 0, np.exp(np.minimum(z + t, 0.0)) * GROW + TINY, 0.0)
        return np.where(z + t > 0, 1.0, e), np.where(cross, np.inf, e), np.where(cross, np.inf, e)
    bend = np.where(cross, np.inf, zero)
    return np.where(z + t >= 0, 1.0, LEAK[name] * GROW), bend, bend


def _tanh(x: Floats, far: Floats, _: Floats) -> tuple[Floats, Floats, Floats]:
    p, a, top = 4 * bell(2 * np.minimum(x, 1e3)), np.tanh(x), np.tanh(np.minimum(far, _TANH2_AT))
    second = np.where(x >= _TANH2_AT, 2 * a * p, np.minimum(2 * top * (1 - top * top), _TANH2))
    third = np.where(
        x >= _TANH3_AT, p * (6 * a * a - 2), np.maximum(p * np.abs(2 - 6 * a * a), 2 / 3)
    )
    return p, second, third


def _sigmoid(x: Floats, far: Floats, _: Floats) -> tuple[Floats, Floats, Floats]:
    p, q, r = _tanh(0.5 * x, 0.5 * far, _)
    return 0.25 * p, 0.125 * q, 0.0625 * r


def _softplus(x: Floats, far: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    p, q, _ = _sigmoid(x, far, high)
    return expit(high), p, q


def _silu(x: Floats, far: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    d, t = bell(np.minimum(x, 1e3)), np.minimum(x, 1e3)
    # z > 0: phi' below 1.1; z < 0: |phi'| <= s + |z| d, and it falls
    first = np.where(high >= 0, 1.0999, np.minimum(0.5, expit(high) + (1 + t) * d))
    return (
        first,
        np.where(x < 0.86, 0.5, np.minimum(0.5, d * (2 + t))),
        np.where(x < 0.86, 0.45, d * (3 + 1.5 * t)),
    )


def _gelu(x: Floats, far: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    t = np.minimum(x, 40.0)
    n = normal(t)
    first = np.where(high >= 0, 1.13, np.minimum(0.5, ndtr(high) + (1 + t) * n))
    return (
        first,
        np.where(x < 1.25, 0.798, np.minimum(0.798, n * (2 + t * t))),
        np.where(x < 1.25, 1.28, n * t * (t * t + 4)),
    )


_SMOOTH = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
}
