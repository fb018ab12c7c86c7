"""Envelopes of derivatives are no smaller than these in the interval, and no larger than they are
from its nearer end on, on either side.
"""

import numpy as np
import pytest
from scipy.special import expit, ndtr

from fastcurv.structure.tables import ACTIVATIONS

FIRST = {
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "sigmoid": lambda z: expit(z) * expit(-z),
    "softplus": expit,
    "silu": lambda z: expit(z) * (1 + z * expit(-z)),
    "gelu": lambda z: ndtr(z) + z * np.exp(-z * z / 2) / (2 * np.pi) ** 0.5,
}
EXACT = (1 + 1e-6,) * 3
LOOSE = dict.fromkeys(FIRST, EXACT) | {
    "silu": (1.05, 10.6, 22.0),  # in the tails, where all are small
    "gelu": (1.13, 7.4, 9.6),
}


def derivatives(name, z, h=1e-3):
    """phi' and, by differences of the sixth order, phi'' and phi'''."""
    f = FIRST[name]
    a = [f(z + k * h) for k in range(-3, 4)]
    second = (a[6] - a[0] - 9 * (a[5] - a[1]) + 45 * (a[4] - a[2])) / (60 * h)
    third = 2 * (a[0] + a[6]) - 27 * (a[1] + a[5]) + 270 * (a[2] + a[4]) - 490 * a[3]
    return f(z), second, third / (180 * h * h)


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("t", [0.0, 0.05, 0.8])
def test_envelopes_hold_and_are_reached(name, t):
    line = np.linspace(-9, 9, 18001)
    known = [np.abs(d) for d in derivatives(name, line)]
    for z in np.linspace(-4, 4, 41):
        found = ACTIVATIONS[name].envelope(np.array([z]), np.array([t]))
        inside = (line >= z - t - 1e-9) & (line <= z + t + 1e-9)
        outward = np.abs(line) >= max(abs(z) - t, 0) - 1e-9
        for P, d, loose in zip(found, known, LOOSE[name]):
            assert d[inside].max() <= P[0] * (1 + 1e-6) + 1e-7
            assert P[0] <= loose * d[outward].max() + 1e-7
