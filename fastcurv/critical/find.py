"""Critical points of any kind: where the gradient vanishes, minimum or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.optimize import minimize as scipy_minimize

from ..answers import OBJECTIVE, need, own_names
from ..checks import check_choice, check_positive, check_positive_int, check_theta
from ..progress import bar
from ..protocols import Walking, Whole
from ..runtime import to_nearest
from ..vectors import safe_norm
from .knowledge import runs_to_infinity, why_no_minimum
from .newton_mr import Steps, lower_gradient
from .walk import Walk

STALL = 5  # steps that should at least halve the norm of the gradient together
EXCURSION = 50  # steps
FLAT = 1e-10  # ||Hg|| below this share of ||H|| ||g||: the gradient norm is stationary


@own_names("find_critical_point")
@to_nearest
def find_critical_point(
    ob: Whole,
    theta0: Any,
    method: Walking = "newton-mr",
    *,
    gradient_tol: float | None = None,
    max_iter: int = 300,
    max_products: int | None = None,
    callback: Callable[[np.ndarray], object] | None = None,
    progress: bool | None = None,
) -> OptimizeResult:
    """Walk from theta0 to a point where the gradient vanishes, whatever its kind; `classify` tells
    which.

    Parameters
    ----------
    ob : object
        Anything with ``n_params``, ``value(theta)``, ``gradient(theta)`` and ``hessian(theta)``.
    theta0 : array_like, shape (n,)
        Where the walk begins.
    method : {"newton-mr", "gradient-norm"}
        ``newton-mr``: the step is the least-squares solution of least norm of ``H p = -g``, with
        weak curvature damped as far as that serves, and a line search on ``||g||^2`` [1]_; where
        that stalls, undamped steps that may raise it for a while. Up to n = 400 from the eigenpairs
        of H, above from the Krylov space of g, where it is what MINRES-QLP computes [2]_.
        ``gradient-norm``: L-BFGS on ``||g||^2 / 2``, whose gradient is ``Hg``, then ``newton-mr``
        to polish.
    gradient_tol : float, optional
        Where to stop. Default: 10 times the rounding bound of the gradient (the objective's own, or
        ``64 eps ||H|| ||theta||``; at least the ``eps ||H|| ||theta||`` of storing theta), and on
        from there for as long as steps pay.
    max_iter : int
        Steps at most.
    max_products : int, optional
        Products with Hessians at most. A step takes n + 1 of them up to n = 400, or, where fewer
        are left, as many as there are.
    callback : callable, optional
        Called with theta after each step.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x``, ``fun``, ``jac``, ``gradient_norm``, ``gradient_tol``, ``success`` (whether the norm
        is within it and no critical point is ruled out), ``status`` (0 there, 1 budget spent, 2
        line search failed, 3 the gradient norm is itself stationary: a plateau, 4 the loss is
        proved to fall for ever), ``message``, ``nit``, ``nfev`` (gradients), ``n_products``,
        ``history`` of ``||g||``. A line search that fails leaves theta where it was. `x` is never
        worse than `theta0` in ``||g||``.

    See Also
    --------
    classify : what kind of point it is.
    minimize : minima alone.
    sample_critical_points : many of them.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu and M. W. Mahoney, Newton-MR: inexact Newton method with minimum
           residual sub-problem solver, EURO J. Comput. Optim. 10, 2022.
    .. [2] S.-C. T. Choi, C. C. Paige and M. A. Saunders, MINRES-QLP, SIAM J. Sci. Comput. 33, 2011.

    Examples
    --------
    >>> from fastcurv.testing import lecture_toy
    >>> result = find_critical_point(lecture_toy(), [0.3, -0.2])
    >>> result.success, bool(np.abs(result.x).max() < 1e-12)
    (True, True)
    """
    need(ob, ("n_params", "value", "gradient", "hessian"), "ob", OBJECTIVE, theta0)
    check_choice(method, get_args(Walking), "method")
    theta = check_theta(ob, theta0, "theta0", np.float64).copy()
    tol = None if gradient_tol is None else check_positive(gradient_tol, "gradient_tol", zero=True)
    most = np.inf if max_products is None else check_positive_int(max_products, "max_products")
    walk = Walk(ob, theta, tol, check_positive_int(max_iter, "max_iter"), most, callback)
    with (
        bar(max_iter, "find_critical_point", progress) as shown,
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
    ):
        walk.shown = shown
        if method == "gradient-norm":
            _descend(walk)
        _newton(walk)
    return walk.result()


def _newton(walk: Walk) -> None:
    """Newton-MR until the gradient is within its tolerance, or a reason to stop appears.

    A tolerance that is a bound on rounding may be far above rounding itself, so there it goes on
    while that pays.
    """
    paying = walk.fixed_tol is None
    while True:
        H = walk.hessian(walk.theta)
        if H is None:
            return walk.stop(2, "the Hessian is not finite here; wanted a start nearer to 0")
        steps = walk.steps(H, walk.g)
        norm = steps.norm
        if walk.n_products >= walk.max_products:
            return walk.stop(1, f"the budget ended at ||g|| = {walk.norm:.3g}")
        walk.set_tol(H, norm)
        done = walk.norm <= walk.tol
        uphill = H(walk.g / walk.norm) if walk.norm > 0 else walk.g
        walk.n_products += H.count
        flat = safe_norm(uphill) / norm if norm > 0 else 0.0
        if done and runs_to_infinity(walk.ob, walk.theta):
            why = why_no_minimum(walk.ob, walk.theta)
            return walk.stop(4, f"||g|| = {walk.norm:.3g}, but the infimum is at infinity: {why}")
        if done and not (paying and flat > FLAT and walk.budget_left()):
            if walk.vague(norm) and _excursion(walk):
                paying = True
                continue
            if walk.near():
                return walk.stop(0, f"||g|| = {walk.norm:.3g} is within {walk.tol:.3g}")
        if not walk.budget_left():
            left = "" if not done else ", where Newton's step still promises a lower loss"
            return walk.stop(
                1, f"the budget ended at ||g|| = {walk.norm:.3g}, wanted {walk.tol:.3g}{left}"
            )
        if flat <= FLAT and np.isfinite(norm):
            return walk.stop(3, _plateau(walk.norm, flat))
        if not done and _stalled(walk) and _excursion(walk):
            continue
        before = walk.norm
        if not _search(walk, steps, uphill):
            if done and paying:
                paying = False
                continue
            if done and walk.near(1.0):
                return walk.stop(0, f"||g|| = {walk.norm:.3g} is within {walk.tol:.3g}")
            return walk.stop(
                2,
                f"no step lowered ||g|| = {walk.norm:.3g}; theta is where it was before that line "
                "search",
            )
        paying = paying and walk.norm <= 0.7 * before if done else paying


def _plateau(norm: float, flat: float) -> str:
    return (
        f"H maps the gradient to {flat:.1e} of its norm: ||g|| = {norm:.3g} is stationary here "
        "without being 0, a plateau and not a critical point"
    )


def _stalled(walk: Walk) -> bool:
    """Whether the last steps did not pay, and an excursion is left to try."""
    if (
        len(walk.history) <= STALL
        or walk.norm <= 0.5 * walk.history[-1 - STALL]
        or not walk.excursions
    ):
        return False
    walk.excursions -= 1
    return True


def _excursion(walk: Walk) -> bool:
    """Undamped steps that may raise ``||g||`` on the way, none longer than theta is; kept if they
    end at half of it.

    The norm of the gradient has valleys and minima of its own where the gradient is not 0; its
    descent ends there, Newton's method walks out.
    """
    theta, g = walk.theta, walk.g
    for _ in range(EXCURSION):
        H = walk.hessian(theta) if walk.budget_left() else None
        if H is None:
            return False
        steps = walk.steps(H, g).vectors
        walk.nit += 1
        if not steps or not np.isfinite(steps[0]).all():
            return False
        longest = max(1.0, safe_norm(theta))
        length = max(safe_norm(steps[0]), longest * 1e-300)
        theta = theta + steps[0] * min(1.0, longest / length)
        g = walk.gradient(theta)
        if not np.isfinite(g).all():
            return False
        if safe_norm(g) <= 0.5 * walk.norm:
            walk.nit -= 1
            walk.move(theta, g)
            return True
    return False


def _search(walk: Walk, steps: Steps, uphill: np.ndarray) -> bool:
    """A step that lowers ``||g||``: Newton-MR's, or where they fail the one down ``||g||^2``, along
    `uphill`, H times the unit vector of the gradient.
    """
    size = steps.norm
    if not 0 < size < np.inf:  # not known: H is no smaller than it is along the gradient
        size = safe_norm(uphill)
    if not 0 < size < np.inf:
        return False
    unit = uphill / size
    with np.errstate(over="ignore"):
        down = -unit * (walk.norm / size)
    if not np.isfinite(down).all():  # curvature so small that the step leaves the range of numbers
        return False
    tried = Steps([*steps.vectors, down], [*steps.slopes, -float(unit @ unit)], size)
    found = lower_gradient(walk.gradient, walk.theta, walk.norm, tried)
    if found is not None:
        walk.move(*found)
    return found is not None


def _descend(walk: Walk) -> None:
    """L-BFGS on ``||g||^2 / 2`` until it stops paying."""
    while walk.nit < walk.max_iter // 2 and walk.budget_left():
        start = walk.norm
        H = walk.hessian(walk.theta)
        if start == 0 or H is None:
            return

        def half_square(theta: np.ndarray, size: float = start) -> tuple[float, np.ndarray]:
            if walk.n_products >= walk.max_products:
                return np.inf, np.zeros(theta.size)
            g, products = walk.gradient(theta) / size, walk.hessian(theta)
            walk.n_products += 1
            if products is None or not np.isfinite(g).all():
                return np.inf, np.zeros(theta.size)
            return 0.5 * float(g @ g), products(g) / size

        walk.set_tol(H, safe_norm(H(walk.g / start)))
        walk.n_products += H.count
        if start <= walk.tol:
            return
        steps = min(100, max(1, walk.max_iter // 2 - walk.nit))
        found: Any = scipy_minimize(
            half_square,
            walk.theta,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": 20, "ftol": 0, "gtol": 0, "maxls": 40},
        )
        g = walk.gradient(found.x)
        if not safe_norm(g) < start:
            return
        walk.move(np.array(found.x), g)
        walk.nit += max(0, found.nit - 1)
        if walk.norm > 0.5 * start:
            return
