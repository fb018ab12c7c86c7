"""The state at theta of any network objective, made once by float64 passes with a bound on the
error of every number, for all that asks what is true at theta: floors, majorants, kinks, units that
are off.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_vector
from ..memo import last_kept
from ..protocols import Floats
from ..structure.parameters import divisor_of, layers_of, skips
from .arithmetic import Arithmetic, Operand, gram_bound
from .rowwise import CHUNK_BYTES, JOINT_FLOPS, Rounding

EPS, TINY = np.finfo(float).eps, np.finfo(float).tiny
# for the rounding of bounds themselves: products of few numbers, sums of squares of at most 1e5
GROWTH = 1 + 1e-9


def checked_theta(ob: Any, theta: ArrayLike) -> Floats:
    """Theta in float64, as the model's dtype holds it."""
    model = ob.model
    checked = check_vector(theta, model.n_params, "theta", np.float64)
    return np.asarray(checked.astype(model.dtype), dtype=float)


@last_kept
def passes_at(ob: Any, theta: Floats) -> Passes:
    """`Passes` of ob at theta (n,) in float64; those made last serve again."""
    with np.errstate(all="ignore"):
        return Passes(ob, theta)


class Passes(Rounding):
    """The state at theta of any network objective by float64 passes, its errors bounded:
    `states()`, chunk by chunk.

    `W_norms` holds upper bounds on ``||W_l||_2``.
    """

    def __init__(self, ob: Any, theta: Floats) -> None:
        model, N = ob.model, len(ob.X)
        self.ob = SimpleNamespace(
            model=model,
            X=ob.X,
            y=ob.y,
            loss=ob.loss,
            sample_weight=ob.sample_weight,
            n_samples=N,
            divisor=divisor_of(ob),
        )
        self.row_bytes = 8 * 16 * sum(model.sizes)
        self.step = max(1, CHUNK_BYTES // self.row_bytes)
        self.arithmetic = Arithmetic(
            np.dtype(float), {"arch": "numpy", "chunk": self.step, "panel": 0, "groups": 0}, N
        )
        layers = layers_of(model, theta)
        self.names, self.skips = (
            model.activation,
            tuple(skips(model, l) for l in range(len(layers))),
        )
        self.W = [Operand(W) for W, _ in layers]
        self.b = [np.zeros(len(W)) if b is None else b for W, b in layers]
        self.W_norms = [spectral(W) for W, _ in layers]
        self.overflow, self.kept, self.joint = False, None, False
        hidden = model.sizes[1:-1]
        pairs = sum(
            12 * hidden[k] * m * min(hidden[k], m) for i, m in enumerate(hidden) for k in range(i)
        )
        self.by_rows = N * pairs <= JOINT_FLOPS
        sizes = [j * k * m for j, k, m in zip(model.sizes, model.sizes[1:], model.sizes[2:])]
        self.by_units = 2 * N * sum(sizes) <= 16 * JOINT_FLOPS and max(sizes, default=0) <= 1 << 24


def spectral(A: Floats) -> float:
    """An upper bound on ``||A||_2``: from the smaller Gram matrix, and ``||A||_1 ||A||_inf``."""
    G, size = A @ A.T if len(A) < A.shape[1] else A.T @ A, np.abs(A)
    return float(
        min(
            gram_norm(G, max(A.shape)),
            GROWTH * np.sqrt(size.sum(axis=0).max()) * np.sqrt(size.sum(axis=1).max()),
        )
    )


def gram_norm(G: Floats, rows: int) -> float:
    """An upper bound on ``||F||_2`` from the computed ``G = F'F``: sums are off by ``gamma(rows)
    trace`` at most, eigenvalues by less.
    """
    m = len(G)
    slack = 8 * (rows + m**1.5) * EPS * np.trace(G) + m * rows * TINY
    return float(np.sqrt(gram_bound(G) + slack))
