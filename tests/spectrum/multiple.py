"""Operators with repeated or clustered eigenvalues at their ends: matrices with a prescribed
spectrum, and networks with dead or copied units and weight decay.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.structure.parameters import layers_of
from fastcurv.testing import PrescribedSpectrum

# distance between neighbours in a cluster, relative to the width of the spectrum
CLUSTER_GAP = 1e-10


def bulk(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return a random spectrum of n simple eigenvalues, of one of five kinds, with magnitudes of up
    to about 5.
    """
    kind = rng.integers(5)
    if kind == 0:
        return np.linspace(-1, 1, n)
    if kind == 1:
        return rng.standard_normal(n) / 4
    if kind == 2:
        return 10.0 ** rng.uniform(-4, 0, n)
    if kind == 3:  # a Hessian's: few outliers, a bulk over many orders on both sides of zero
        m = n // 2
        return np.r_[rng.uniform(1, 5, 8), 10.0 ** rng.uniform(-5, -1, m - 8),
                     -(10.0 ** rng.uniform(-5, -2, n - m))]  # fmt: skip
    return rng.uniform(0, 1, n) ** 2


def prescribed(rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Return an operator and its sorted eigenvalues, up to three of which at one end or both are
    repeated or clustered 2 to 12 times.
    """
    values = np.sort(bulk(rng, int(rng.integers(70, 400))))
    width = np.ptp(values)
    for side in rng.permutation([1, -1])[: rng.integers(1, 3)]:
        for at in rng.choice(6, rng.integers(1, 4), replace=False):
            copies = int(rng.integers(2, 13))
            near = CLUSTER_GAP * width * np.arange(copies) * rng.integers(2)
            values = np.r_[values, values[at if side > 0 else -1 - at] + near[1:]]
    rng.shuffle(values)
    scale = 10.0 ** rng.integers(-3, 4)
    op = PrescribedSpectrum(values * scale, rng=rng)
    return op, np.sort(values * scale)


def net(rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Return the Hessian or GGN of a network with dead or copied units, with or without weight
    decay, and its sorted eigenvalues.
    """
    sizes = [int(rng.integers(3, 9)), int(rng.integers(8, 20)), int(rng.integers(1, 4))]
    activation = ["relu", "tanh", "gelu"][rng.integers(3)]
    N, l2 = int(rng.integers(10, 60)), [0.0, 1e-4, 1e-2][rng.integers(3)]
    X = rng.standard_normal((N, sizes[0]))
    y = rng.integers(0, sizes[-1], N) if sizes[-1] > 1 else rng.standard_normal(N)
    loss = "cross_entropy" if sizes[-1] > 1 else "mse"
    model = fc.MLP(sizes, activation)
    ob = fc.Objective(model, X, y, loss=loss, l2=l2)
    theta = model.init(rng=rng) * rng.uniform(0.5, 2)
    (W1, b1), (W2, _) = layers_of(model, theta)
    for unit in range(1, int(rng.integers(2, 7))):
        if rng.integers(2):
            W1[unit], b1[unit], W2[:, unit] = W1[0], b1[0], W2[:, 0]
        else:
            W1[unit], b1[unit], W2[:, unit] = 0.0, -1.0, 0.0
    op = ob.hessian(theta)
    op = op if rng.integers(2) else ob.ggn(op.theta)
    return op, np.linalg.eigvalsh(op.to_dense())


def operators(first: int, last: int) -> Iterator[tuple[int, Any, np.ndarray, int, str]]:
    """Yield (seed, operator, eigenvalues, k, which) for seeds from `first` to `last - 1`, where k
    and `which` are arguments of `eigsh`.
    """
    for seed in range(first, last):
        rng = np.random.default_rng(seed)
        op, values = (net if seed % 3 == 0 else prescribed)(rng)
        yield seed, op, values, int(rng.integers(2, 13)), ["SA", "LA", "LM", "BE"][rng.integers(4)]
