"""The last Newton steps: to a zero of the gradient in extended precision, as far as theta's own
rounding allows.

Near a minimum, Newton steps with one fixed factorisation contract, and the rounding of the
gradient then limits the distance to the true critical point. So the gradient is the objective's
`precise_gradient` where it has one; a Hessian in float64 is accurate enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.objectives import budgeted_hessian, certificate_method, value_at, value_rounding_error
from ..common.protocols import TwiceDifferentiable
from ..critical.dense import cholesky_solver
from ..critical.nearness import gradient_and_error, is_gradient_norm_above
from ..krylov.trust_region import new_krylov_space, shifted_solve
from ..spectrum.dense import counted_matrix

MAX_REFINEMENT_STEPS = 20  # maximum number of Newton steps
MAX_FACTORISATIONS = 3  # maximum number of Hessians computed and factorised
# minimum number of parameters for which a Krylov solve is tried before all columns of H are
# computed
KRYLOV_SOLVE_MIN_N = 768
MAX_SOLVE_KRYLOV_DIM = 400  # maximum dimension of the Krylov space of one solve

Solve = Callable[[np.ndarray], np.ndarray | None]


def refine_by_newton(
    ob: TwiceDifferentiable, theta: np.ndarray, dense_below: int, stop: Callable[[int], bool]
) -> tuple[np.ndarray, int, int, int]:
    """Take Newton steps from a theta with a small gradient, keeping each step that at least halves
    the gradient norm without increasing the value by more than rounding.

    Return the last point, and the numbers of steps, products and gradients. Return theta unchanged
    if the Hessian is not positive semidefinite to rounding.

    Parameters
    ----------
    ob : objective
    theta : ndarray, shape (n,)
        The start; not changed. The result has its dtype.
    dense_below : int
        For n below this, steps are computed from a Cholesky factor of H, at a cost of ``n``
        products and ``n^3 / 3`` flops for each of at most three factors; otherwise in a Krylov
        space. For n >= `KRYLOV_SOLVE_MIN_N` the Krylov space is tried first.
    stop : callable
        Called with the number of products and gradients so far; True ends the steps.
    """
    here = theta
    n_products = 0
    n_gradients = 1
    n_steps = 0
    g = gradient_and_error(ob, here.astype(np.float64))[0]
    fine = certificate_method(ob, "precise_gradient")
    ceiling = value_at(ob, here)
    ceiling += value_rounding_error(ceiling, theta.dtype)
    solvers: list[Callable[[Any], Solve | None]] = (
        [_krylov_solve] if here.size >= KRYLOV_SOLVE_MIN_N else []
    )
    solvers += [_cholesky_solve if here.size < dense_below else _krylov_solve] * MAX_FACTORISATIONS
    for solver in solvers:
        if stop(n_products + n_gradients) or not np.any(g):
            break
        H = budgeted_hessian(ob, here.astype(np.float64))
        solve = solver(H)
        kept = 0
        close = False
        while n_steps < MAX_REFINEMENT_STEPS and solve is not None:
            if stop(n_products + H.count + n_gradients):
                break
            p = solve(g)
            length = float(np.linalg.norm(here))
            if p is None or not np.linalg.norm(p) <= 0.1 * max(1.0, length):
                break
            trial = (here + p).astype(theta.dtype)
            there = trial.astype(np.float64)
            n_gradients += 1
            if fine and is_gradient_norm_above(ob, there, 0.5 * float(np.linalg.norm(g)), H.norm):
                break
            g_trial = gradient_and_error(ob, there)[0]
            halved = np.linalg.norm(g_trial) <= 0.5 * np.linalg.norm(g)
            if not (halved and value_at(ob, trial) <= ceiling):
                break
            here = trial
            g = g_trial
            n_steps += 1
            kept += 1
            close = bool(np.linalg.norm(p) <= 1e-10 * length)
        n_products += H.count
        if close or not kept and solver is _cholesky_solve:
            break
    return here, n_steps, n_products, n_gradients


def _cholesky_solve(H: Any) -> Solve | None:
    """Return a function that maps a gradient to the Newton step, by a Cholesky factor of H. Return
    None if H is zero, not finite, or not positive semidefinite up to rounding.

    A shift of the size of the rounding error makes the factorisation possible along symmetry
    directions, where H is singular and the gradient is 0.
    """
    A = counted_matrix(H).A.copy()
    size = float(np.abs(A).sum(axis=1).max(initial=0.0))
    if not 0 < size < np.inf:
        return None
    A[np.diag_indices(H.n)] += 16 * H.n**0.5 * np.finfo(float).eps * size
    solve = cholesky_solver(A)
    return None if solve is None else lambda g: -solve(g)


def _krylov_solve(H: Any) -> Solve:
    """Return a function that maps a gradient to an approximate Newton step in its Krylov space. The
    function returns None if H has negative curvature there or the gradient is 0.
    """
    space = new_krylov_space(H.n, np.dtype(np.float64), MAX_SOLVE_KRYLOV_DIM + 2)

    def product(v: np.ndarray, out: np.ndarray) -> None:
        out[:] = H(v)

    def solve(g: np.ndarray) -> np.ndarray | None:
        space.start(product, g.astype(np.float64))
        # y remains None if the gradient is 0 up to rounding.
        y = None
        while not space.exhausted and space.m < MAX_SOLVE_KRYLOV_DIM:
            space.extend()
            if space.m % 20 and not space.exhausted:
                continue
            values, vectors = space.ritz_pairs()
            if values[0] < -1e-8 * abs(values[-1]):
                return None
            y = vectors @ shifted_solve(values, space.linear_term(), 0.0)
            if space.residual_norm(y) <= 1e-3 * space.gamma:
                break
        return None if y is None else space.combine(y)

    return solve
