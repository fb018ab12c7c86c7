"""The last Newton steps: to where a gradient in extended precision vanishes, as far as theta's own
digits go.

Near a minimum Newton's steps with one factorisation contract, and what then limits the distance to
the true critical point is the rounding of the gradient. So the gradient is the objective's
`precise_gradient` where it offers one; the Hessian need not be better than float64's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..critical.dense import inverse
from ..critical.evidence import hessian_products, value_at
from ..critical.nearness import gradient_and_error, value_rounding
from ..krylov.trust_region import KrylovSpace, shifted

STEPS = 20
FACTORS = 3  # Hessians that are built and factorised
KRYLOV_FROM = 768  # parameters: products are dear enough to be tried before all columns of H
KRYLOV_STEPS = 400

Solve = Callable[[np.ndarray], np.ndarray | None]
Make = Callable[[Any, np.ndarray], tuple[Solve | None, Callable[[], int]]]


@dataclass(frozen=True)
class Polished:
    """Where the steps ended, how many there were, and what they cost."""

    theta: np.ndarray
    n_steps: int
    n_products: int
    n_gradients: int


def polish(ob: Any, theta: np.ndarray, dense_below: int, stop: Callable[[], bool]) -> Polished:
    """Newton steps from a theta of small gradient, each kept if it at least halves the gradient's
    norm without raising the value by more than rounding.

    Nothing moves where the Hessian is not positive semidefinite to rounding.

    Parameters
    ----------
    ob : objective
    theta : ndarray, shape (n,)
        Not changed; the result has its dtype.
    dense_below : int
        Below this n steps come from a Cholesky factor, ``n`` products and ``n^3 / 3`` work for each
        of at most three; from there on, and before that where n is large, from a Krylov space.
    stop : callable
        True ends it.
    """
    here, n_products, n_gradients, n_steps = theta, 0, 1, 0
    g = gradient_and_error(ob, here.astype(np.float64))[0]
    ceiling = value_at(ob, here)
    ceiling += value_rounding(ceiling, theta.dtype)
    makes: list[Make] = [_krylov] if here.size >= KRYLOV_FROM else []
    makes += [_factor if here.size < dense_below else _krylov] * FACTORS
    for make in makes:
        if stop() or not np.any(g):
            break
        solve, spent = make(ob, here)
        n_products += spent()
        kept, close = 0, False
        while n_steps < STEPS and solve is not None and not stop():
            p = solve(g)
            n_products += spent()
            length = float(np.linalg.norm(here))
            if p is None or not np.linalg.norm(p) <= 0.1 * max(1.0, length):
                break
            trial = (here + p).astype(theta.dtype)
            g_trial = gradient_and_error(ob, trial.astype(np.float64))[0]
            n_gradients += 1
            if not np.linalg.norm(g_trial) <= 0.5 * np.linalg.norm(g):
                break
            if not value_at(ob, trial) <= ceiling:
                break
            here, g, n_steps, kept = trial, g_trial, n_steps + 1, kept + 1
            close = bool(np.linalg.norm(p) <= 1e-10 * length)
        if close or not kept and make is _factor:
            break
    return Polished(here, n_steps, n_products, n_gradients)


def _factor(ob: Any, theta: np.ndarray) -> tuple[Solve | None, Callable[[], int]]:
    """A Newton solve by a Cholesky factor; None where H is not positive semidefinite to rounding.

    The shift by rounding lets directions of symmetry pass, along which the gradient is 0.
    """
    H = hessian_products(ob, theta.astype(np.float64))
    A = H.matrix().A
    size = float(np.abs(A).sum(axis=1).max(initial=0.0))

    if not 0 < size < np.inf:
        return None, H.taken
    A[np.diag_indices(H.n)] += 16 * H.n**0.5 * np.finfo(float).eps * size
    solve = inverse(A)
    return None if solve is None else (lambda g: -solve(g)), H.taken


def _krylov(ob: Any, theta: np.ndarray) -> tuple[Solve, Callable[[], int]]:
    """A Newton solve in a Krylov space of the gradient."""
    H = hessian_products(ob, theta.astype(np.float64))
    space = KrylovSpace(H.n, np.dtype(np.float64), KRYLOV_STEPS + 2)

    def product(v: np.ndarray, out: np.ndarray) -> None:
        out[:] = H(v)

    def solve(g: np.ndarray) -> np.ndarray | None:
        space.start(product, g.astype(np.float64))
        while not space.exhausted and space.m < KRYLOV_STEPS:
            space.extend()
            if space.m % 20 and not space.exhausted:
                continue
            values, vectors = space.ritz()
            if values[0] < -1e-8 * abs(values[-1]):
                return None
            y = vectors @ shifted(values, space.linear_term(), 0.0)
            if space.residual(y) <= 1e-3 * space.gamma:
                break
        if not space.m:  # a gradient of which nothing is left after rounding
            return None
        values, vectors = space.ritz()
        return space.combine(vectors @ shifted(values, space.linear_term(), 0.0))

    return solve, H.taken
