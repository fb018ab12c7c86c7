"""Critical points of any kind: where the gradient vanishes, minimum or not."""

import numpy as np
from scipy.linalg import LinAlgError, eigh
from scipy.optimize import OptimizeResult, minimize

from ..checks import check_choice, check_positive, check_positive_int, check_vector
from ..krylov.basis import combine
from ..krylov.lanczos import Recurrence
from ..progress import bar
from .evidence import (
    GRADIENT_ROUNDING,
    PRODUCT_EPS,
    RELATIVE_GRADIENT,
    gradient_bound,
    hessian_products,
    parameter_length,
)

DENSE_BELOW = 400  # below this n Newton's step comes from all eigenpairs
KRYLOV_STEPS = 120  # above it from a Krylov space of the gradient of at most this dimension
DAMPINGS = (
    0.0,
    1e-7,
    1e-4,
    1e-2,
    0.1,
    1.0,
)  # curvature below this share of the largest is damped in a step
RANK = 1e-12  # and below this share it counts as zero
ARMIJO = 1e-4
STALL = 5  # steps that should at least halve the norm of the gradient together
EXCURSION = 50
FLAT = 1e-10  # ||Hg|| below this share of ||H|| ||g||: the gradient norm is stationary
HALVINGS = 20


def find_critical_point(
    ob,
    theta0,
    method="newton-mr",
    *,
    gradient_tol=None,
    max_iter=300,
    max_products=None,
    callback=None,
    progress=False,
):
    """Walk from theta0 to a point where the gradient vanishes, whatever its kind; `classify` tells
    which.

    Parameters
    ----------
    ob : object
        Anything with ``n_params``, ``value(theta)``, ``gradient(theta)`` and ``hessian(theta)``.
    theta0 : array_like, shape (n,)
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
        Products with Hessians at most; checked before each step.
    callback : callable, optional
        Called with theta after each step.
    progress : bool

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x``, ``fun``, ``jac``, ``gradient_norm``, ``gradient_tol``, ``success`` (whether the norm
        is within it), ``status`` (0 there, 1 budget spent, 2 line search failed, 3 the gradient
        norm is itself stationary: a plateau), ``message``, ``nit``, ``nfev`` (gradients),
        ``n_products``, ``history`` of ``||g||``. A line search that fails leaves theta where it
        was. `x` is never worse than `theta0` in ``||g||``.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu and M. W. Mahoney, Newton-MR: inexact Newton method with minimum residual
       sub-problem solver, EURO J. Comput. Optim. 10, 2022.
    .. [2] S.-C. T. Choi, C. C. Paige and M. A. Saunders, MINRES-QLP, SIAM J. Sci. Comput. 33, 2011.

    Examples
    --------
    >>> from fastcurv.testing import lecture_toy
    >>> result = find_critical_point(lecture_toy(), [0.3, -0.2])
    >>> result.success, bool(np.abs(result.x).max() < 1e-12)
    (True, True)
    """
    check_choice(method, ("newton-mr", "gradient-norm"), "method")
    theta = check_vector(theta0, ob.n_params, "theta0", np.float64).copy()
    walk = _Walk(
        ob, theta, gradient_tol, check_positive_int(max_iter, "max_iter"), max_products, callback
    )
    with (
        bar(max_iter, "find_critical_point", progress) as shown,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        walk.shown = shown
        if method == "gradient-norm":
            _descend(walk)
        _newton(walk)
    return walk.result()


class _Walk:
    """Where the search stands, what it has spent, and what it may spend."""

    def __init__(self, ob, theta, gradient_tol, max_iter, max_products, callback):
        self.ob, self.theta, self.callback = ob, theta, callback
        self.fixed_tol = (
            None
            if gradient_tol is None
            else check_positive(gradient_tol, "gradient_tol", zero=True)
        )
        self.max_iter = max_iter
        self.max_products = (
            np.inf if max_products is None else check_positive_int(max_products, "max_products")
        )
        self.nit = self.nfev = self.n_products = 0
        self.excursions = 5
        self.tol, self.status, self.message, self.shown = 0.0, 1, "", None
        self.g = self.gradient(theta)
        if not np.isfinite(self.g).all():
            raise ValueError(
                "the gradient at theta0 holds NaN or infinity; wanted a theta0 where the loss is "
                "finite"
            )
        self.history = [self.norm]

    @property
    def norm(self):
        return float(np.linalg.norm(self.g))

    def gradient(self, theta):
        self.nfev += 1
        return np.array(self.ob.gradient(theta), dtype=float)

    def hessian(self):
        """The Hessian here as `Products`, in the objective's own precision; sets the tolerance that
        holds here.
        """
        return hessian_products(self.ob, self.theta, best=False)

    def set_tol(self, H, norm):
        if self.fixed_tol is not None:
            self.tol = self.fixed_tol
            return
        bound = gradient_bound(self.ob, self.theta, H)
        if bound is None:
            bound = (
                PRODUCT_EPS * H.eps * norm * parameter_length(self.theta, np.ones(self.theta.size))
            )
        stored = (
            np.finfo(getattr(self.ob, "dtype", np.float64)).eps
            * norm
            * float(np.linalg.norm(self.theta))
        )
        self.tol = GRADIENT_ROUNDING * max(bound, stored)

    def vague(self, norm):
        """Whether the tolerance is so loose (float32) that a critical point may still be far; takes
        one excursion.
        """
        length = parameter_length(self.theta, np.ones(self.theta.size))
        far = (
            self.fixed_tol is None
            and self.excursions > 0
            and self.norm > 0.1 * RELATIVE_GRADIENT * norm * length
        )
        self.excursions -= far
        return far

    def budget_left(self):
        return self.nit < self.max_iter and self.n_products < self.max_products

    def move(self, theta, g):
        self.theta, self.g = theta, g
        self.nit += 1
        self.history.append(self.norm)
        self.shown.update(1)
        if self.callback is not None:
            self.callback(theta.copy())

    def stop(self, status, message):
        self.status, self.message = status, message

    def result(self):
        return OptimizeResult(
            x=self.theta,
            fun=float(self.ob.value(self.theta)),
            jac=self.g,
            gradient_norm=self.norm,
            gradient_tol=self.tol,
            success=bool(self.norm <= self.tol),
            status=self.status,
            message=self.message,
            nit=self.nit,
            nfev=self.nfev,
            n_products=self.n_products,
            history=np.array(self.history),
        )


def _newton(walk):
    """Newton-MR until the gradient is within its tolerance, or a reason to stop appears.

    A tolerance that is a bound on rounding may be far above rounding itself, so there it goes on
    while that pays.
    """
    paying = walk.fixed_tol is None
    while True:
        H = walk.hessian()
        steps, slopes, norm = _steps(H, walk.g, walk)
        walk.set_tol(H, norm)
        done = walk.norm <= walk.tol
        uphill = H(walk.g) if walk.norm > 0 else walk.g
        walk.n_products += H.count
        flat = float(np.linalg.norm(uphill)) / (norm * walk.norm) if norm * walk.norm > 0 else 0.0
        if done and not (paying and flat > FLAT and walk.budget_left()):
            if walk.vague(norm) and _excursion(walk):
                paying = True
                continue
            return walk.stop(0, f"||g|| = {walk.norm:.3g} is within {walk.tol:.3g}")
        if not walk.budget_left():
            return walk.stop(
                1, f"the budget ended at ||g|| = {walk.norm:.3g}, wanted {walk.tol:.3g}"
            )
        if flat <= FLAT and np.isfinite(norm):
            return walk.stop(
                3,
                f"H maps the gradient to {flat:.1e} of its norm: ||g|| = {walk.norm:.3g} is "
                "stationary "
                "here without being 0, a plateau and not a critical point",
            )
        if not done and _stalled(walk) and _excursion(walk):
            continue
        before = walk.norm
        if not _search(walk, steps, slopes, uphill, norm):
            if done:
                paying = False
                continue
            return walk.stop(
                2,
                f"no step lowered ||g|| = {walk.norm:.3g}; theta is where it was before that line "
                "search",
            )
        paying = paying and walk.norm <= 0.7 * before if done else paying


def _stalled(walk):
    """Whether the last steps did not pay, and an excursion is left to try."""
    if (
        len(walk.history) <= STALL
        or walk.norm <= 0.5 * walk.history[-1 - STALL]
        or not walk.excursions
    ):
        return False
    walk.excursions -= 1
    return True


def _excursion(walk):
    """Undamped steps that may raise ``||g||`` on the way, none longer than theta is; kept if they
    end at half of it.

    The norm of the gradient has valleys and minima of its own where the gradient is not 0; its
    descent ends there, Newton's method walks out.
    """
    theta, g = walk.theta, walk.g
    for _ in range(EXCURSION):
        if not walk.budget_left():
            return False
        H = hessian_products(walk.ob, theta, best=False)
        steps, _, _ = _steps(H, g, walk)
        walk.n_products += H.count
        walk.nit += 1
        if not steps:
            return False
        longest = max(1.0, float(np.linalg.norm(theta)))
        theta = theta + steps[0] * min(
            1.0, longest / max(float(np.linalg.norm(steps[0])), longest * 1e-300)
        )
        g = walk.gradient(theta)
        if not np.isfinite(g).all():
            return False
        if np.linalg.norm(g) <= 0.5 * walk.norm:
            walk.nit -= 1
            walk.move(theta, g)
            return True
    return False


def _steps(H, g, walk):
    return _dense_steps(H, g) if H.n < DENSE_BELOW else _krylov_steps(H, g, walk)


def _dense_steps(H, g):
    """Steps ``-H (H^2 + damping^2)^-1 g`` for every damping; their slopes ``p'Hg``; the norm of H."""
    A = H(np.eye(H.n, dtype=H.dtype))
    try:
        values, U = eigh(0.5 * (A + A.T))
    except (LinAlgError, ValueError):  # overflow, far out
        return [], [], np.inf
    norm = float(np.abs(values).max(initial=0.0))
    if norm == 0:
        return [], [], 0.0
    c = U.T @ g
    weights = [_inverse(values, share, norm) for share in DAMPINGS]
    return [-(U @ (w * c)) for w in weights], [-float((w * values * c) @ c) for w in weights], norm


def _inverse(values, share, norm):
    """The damped inverse of every curvature, 0 for those that count as zero."""
    sure = np.abs(values) > RANK * norm
    return np.where(sure, values, 0.0) / np.where(sure, values**2 + (share * norm) ** 2, 1.0)


def _krylov_steps(H, g, walk):
    """Least-squares solutions of least norm in the Krylov space of g, for every damping."""
    size = np.linalg.norm(g)
    run = Recurrence(H.native, min(KRYLOV_STEPS, H.n))
    if size == 0 or not run.insert((g / size)[None].astype(H.native_dtype)):
        return [], [], 0.0
    wanted = min(1e-2, size / walk.history[0])
    while run.p and run.m < min(KRYLOV_STEPS, H.n):
        run.step()
        if run.m % 10 == 0 and _least_squares(run, 0.0)[1] <= wanted:
            break
    run.reorthogonalise()
    H.count += run.n_products
    if run.scale == 0:
        return [], [], 0.0
    steps, slopes = [], []
    T = run.T[: run.m, : run.m]
    for share in DAMPINGS:
        y, _ = _least_squares(run, share)
        if y.any():
            steps.append(-size * combine(run.rows[: run.m], y[:, None])[0].astype(float))
            slopes.append(-(size**2) * float(T[0] @ y))
    return steps, slopes, float(np.linalg.norm(T, 2))


def _least_squares(run, share):
    """Y of least norm that minimises ``||T y - e1||^2 + damping^2 ||y||^2`` over the extended T,
    and the residual.
    """
    m = run.m
    T = run.T[: m + run.p, :m]
    W, s, Vt = np.linalg.svd(T, full_matrices=False)
    y = Vt.T @ (W[0] * _inverse(s, share, s[0]))
    r = -T @ y
    r[0] += 1
    return y, float(np.linalg.norm(r))


def _search(walk, steps, slopes, uphill, norm):
    """Shorten all steps together, and take the best of the first length at which one lowers
    ``||g||^2`` enough.
    """
    here = walk.norm
    steps = [*steps, -uphill / norm**2]
    slopes = [*slopes, -float(uphill @ uphill) / norm**2]
    alpha = 1.0
    for _ in range(HALVINGS):
        best = None
        for p, slope in zip(steps, slopes):
            g = walk.gradient(walk.theta + alpha * p)
            square = float(g @ g)
            if square <= here**2 + 2 * ARMIJO * alpha * slope and (
                best is None or square < best[0]
            ):
                best = square, walk.theta + alpha * p, g
        if best is not None:
            walk.move(*best[1:])
            return True
        alpha /= 4
    return False


def _descend(walk):
    """L-BFGS on ``||g||^2 / 2`` until it stops paying."""
    while walk.nit < walk.max_iter // 2 and walk.budget_left():
        start = walk.norm
        H = walk.hessian()
        if start == 0:
            return
        scale = start**2

        def half_square(theta):
            products = hessian_products(walk.ob, theta, best=False)
            g = walk.gradient(theta)
            walk.n_products += 1
            return 0.5 * float(g @ g) / scale, products(g) / scale

        walk.set_tol(H, float(np.linalg.norm(H(walk.g))) / start)
        walk.n_products += H.count
        if start <= walk.tol:
            return
        steps = min(100, max(1, walk.max_iter // 2 - walk.nit))
        found = minimize(
            half_square,
            walk.theta,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": 20, "ftol": 0, "gtol": 0, "maxls": 40},
        )
        g = walk.gradient(found.x)
        if not np.linalg.norm(g) < start:
            return
        walk.move(np.array(found.x), g)
        walk.nit += max(0, found.nit - 1)
        if walk.norm > 0.5 * start:
            return
