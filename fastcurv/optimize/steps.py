"""Single steps: the Newton step and the saddle-free Newton step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.checks import (
    check_positive,
    check_positive_int,
    check_symmetric_operator,
    check_vector,
    operator_dtype,
)
from ..common.errors import warn_caller
from ..common.linalg import eigh
from ..common.protocols import OperatorLike
from ..krylov.lanczos import product_function
from ..krylov.trust_region import absolute_value_step, new_krylov_space, shifted_solve
from ..spectrum.forms import matrix_of

Model = Callable[..., np.ndarray]  # (eigenvalues, linear term[, damping]) -> coordinates
# maximum number of parameters for which n products and n^3 flops take milliseconds
STEP_DENSE_MAX_N = 512


class IndefiniteHessianWarning(UserWarning):
    """A warning that a Newton step was taken where the Hessian has negative curvature.

    See Also
    --------
    newton_step : the function that warns.

    Examples
    --------
    >>> import warnings, numpy as np, fastcurv as fc
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     step = fc.newton_step(np.diag([1.0, -1.0]), np.ones(2))
    >>> caught[0].category.__name__
    'IndefiniteHessianWarning'
    """


def _partial_eigensystem(op: Any, g: np.ndarray, k: int | None, wanted: float, share: Model) -> Any:
    """Return the eigenvalues (k,) of H, the coordinates (k,) of the gradient in the eigenvectors, a
    function that maps such coordinates to vectors (n,), and the relative residual of the step.

    If `k` is None and n is at most `STEP_DENSE_MAX_N`, all eigenpairs are computed, and the
    residual is 0. Otherwise these are the Ritz pairs of a Krylov space of g. The space has `k`
    rows, or grows until the residual is below `wanted` times ||g||. ``share(values, linear)``
    returns the coordinates of the vector that H multiplies in the residual.
    """
    n = len(g)
    if k is None and n <= STEP_DENSE_MAX_N:
        values, vectors, _ = eigh(matrix_of(op)[0])
        return values, vectors.T @ g, lambda y: vectors @ y, 0.0
    dtype = operator_dtype(op)
    limit = min(n, 400) if k is None else min(n, k)
    space = new_krylov_space(n, dtype, limit + 1 if limit < n else n)
    space.start(product_function(op), g.astype(dtype))

    def relative_residual() -> float:
        values, vectors = space.ritz_pairs()
        y = vectors @ share(values, space.linear_term())
        return float(space.residual_norm(y) / space.gamma)

    look_at = 1
    while not space.exhausted and space.m < limit:
        space.extend()
        if k is None and space.m >= look_at:
            look_at = space.m + 1 + space.m // 4
            if relative_residual() <= wanted:
                break
    values, vectors = space.ritz_pairs()
    return values, space.linear_term(), lambda y: space.combine(vectors @ y), relative_residual()


def _solve_step(
    H: Any, g: Any, damping: Any, k: Any, tol: float, *, by: Model, side: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the step defined by `by(values, linear, damping)`, the known eigenvalues, and the
    relative residual. `k` and `tol` are those of `newton_step`.

    `side` maps each eigenvalue to the factor of its product with H in the residual: 1 for ``H +
    damping`` and its sign for ``|H| + damping``.
    """
    op = check_symmetric_operator(H, "H")
    g = check_vector(g, op.shape[0], "g")
    damping = check_positive(damping, "damping", zero=True)
    tol = check_positive(tol, "tol", zero=True)
    k = k if k is None else check_positive_int(k, "k")
    if not np.any(g):
        return np.zeros_like(g), np.zeros(1), 0.0

    def share(values: np.ndarray, linear: np.ndarray) -> np.ndarray:
        return np.asarray(side(values) * by(values, linear, damping))

    values, linear, lift, residual = _partial_eigensystem(op, g, k, tol, share)
    return lift(by(values, linear, damping)).astype(g.dtype, copy=False), values, residual


def newton_step(
    H: OperatorLike,
    g: np.ndarray,
    damping: float = 0.0,
    *,
    k: int | None = None,
    tol: float = 1e-6,
) -> np.ndarray:
    """Return the Newton step ``-(H + damping I)^-1 g``, to be added to theta.

    The step leads to the critical point of the quadratic model, uphill along negative curvature of
    H: Newton's method may therefore converge to saddles. If negative curvature is found, an
    `IndefiniteHessianWarning` is issued.

    Parameters
    ----------
    H : LinearOperator or ndarray, shape (n, n)
        Real symmetric. Up to n = 512, if `k` is None, it is made dense, for n products and an
        eigendecomposition. Otherwise a Krylov space from g takes at most 400, or `k`, products.
    g : ndarray, shape (n,)
        The gradient.
    damping : float
        Added to every eigenvalue.
    k : int, optional
        Dimension of the Krylov space.
    tol : float
        Required relative residual ``||(H + damping I) p + g|| / ||g||`` in the Krylov space.

    Returns
    -------
    ndarray, shape (n,)
        The step, without a component in directions in which ``H + damping I`` is singular to
        rounding.

    Warns
    -----
    IndefiniteHessianWarning
        If ``H + damping I`` has negative curvature (as far as seen in a Krylov space).
    RuntimeWarning
        If the Krylov space reached its limit before `tol` was met.

    See Also
    --------
    saddle_free_newton_step : downhill in every direction.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> H, g = np.diag([2.0, 4.0]), np.array([2.0, 2.0])
    >>> fc.newton_step(H, g)
    array([-1. , -0.5])
    """
    step, values, residual = _solve_step(H, g, damping, k, tol, by=shifted_solve, side=np.ones_like)
    lowest = float(values[0]) + damping
    if lowest < -1e-12 * float(np.max(np.abs(values))):
        warn_caller(
            f"The {'damped ' if damping else ''}Hessian is indefinite, since its curvature in "
            f"some direction is {lowest:.3g}. The Newton step may increase the "
            "loss, or lead to a saddle. Use saddle_free_newton_step, or escape.",
            IndefiniteHessianWarning,
        )
    if k is None and residual > tol:
        warn_caller(
            f"The relative residual of the Newton step is {residual:.1e}, above tol = {tol:.1e}. "
            "Increase damping or k.",
            RuntimeWarning,
        )
    return step


def saddle_free_newton_step(
    H: OperatorLike,
    g: np.ndarray,
    damping: float = 1e-3,
    *,
    k: int | None = None,
    tol: float = 1e-3,
) -> np.ndarray:
    """Return the saddle-free Newton step ``-(|H| + damping I)^-1 g``: Newton's step lengths,
    downhill along every eigenvector.

    ``|H|`` has H's eigenvectors and the absolute values of its eigenvalues. In a Krylov space K
    from g with basis Q the step is ``-Q' (|T| + damping)^-1 Q g``, T = Q H Q'. Since g lies in K,
    the step has no component outside K; eigenvalues that K does not resolve are averaged in its
    Ritz values, and `damping` bounds every step by ``||g||/damping``.

    Parameters
    ----------
    H : LinearOperator or ndarray, shape (n, n)
        Real symmetric.
    g : ndarray, shape (n,)
        The gradient.
    damping : float
        Added to every ``|eigenvalue|``; should be above 0 if H may be singular.
    k : int, optional
        Krylov dimension, and the number of products. By default dense up to n = 512, and above that
        as many products (at most 400) as `tol` needs.
    tol : float
        Required residual, relative to ``||g||``, in the Krylov space.

    Returns
    -------
    ndarray, shape (n,)
        The step, to be added to theta.

    See Also
    --------
    newton_step : converges to critical points of any kind.

    References
    ----------
    .. [1] Y. Dauphin et al., Identifying and attacking the saddle point problem in high-dimensional
           non-convex optimization, NeurIPS 2014.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> fc.saddle_free_newton_step(np.diag([2.0, -4.0]), np.array([2.0, 2.0]), damping=0.0)
    array([-1. , -0.5])
    """
    return _solve_step(H, g, damping, k, tol, by=absolute_value_step, side=np.sign)[0]
