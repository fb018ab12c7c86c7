"""Rules for whether theta is near a critical point, shared by `classify`, `minimize` and
`find_critical_point`, and measurements near theta: Newton's steps, the stability of signs, kinks.

The decrement is ``g'|H|^-1 g / 2``, half the squared Newton decrement: the loss at theta minus the
minimum of Newton's model of the loss. theta is near a critical point if the decrement is at most
``1e-8 (f - c)``, where c is a lower bound on the loss f, or at most the rounding error of f. No
rescaling of parameters, inputs or loss changes this rule. The decrement of a definite H is the same
in all coordinates, and that of an indefinite H is computed in coordinates in which the rows of H
are balanced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..common.checks import objective_dtype
from ..common.linalg import NotFiniteError
from ..common.objectives import (
    VALUE_ERROR_EPS,
    BudgetedOperator,
    budgeted_hessian,
    call_certificate,
    cast_to_float64,
    certificate_method,
    checked_gradient,
    gradient_at,
    gradient_error_bound,
    gradient_error_bound_at,
    value_at,
    value_lower_bound,
    value_rounding_error,
)
from ..common.protocols import Floats, TwiceDifferentiable, missing_bound_reason
from ..common.runtime import OutOfTime, raise_if_out_of_time
from ..common.vectors import augmented_norm, safe_norm
from ..krylov.solvers import minres
from .decide import Nearness
from .theorem import EPS, MIN_NORMAL, ComplementEigenpairs

# maximum predicted decrease of Newton's step, relative to f - c, at which theta counts as near:
# about the square root of the unit roundoff
DECREMENT_TOL = 1e-8
# assumed relative change of a parameter by rounding to the stored dtype, in units of eps
STORAGE_ERROR_EPS = 8.0
# maximum length of Newton's step relative to theta, both measured by |H|, at which theta is near a
# critical point that is proved
MAX_PROVED_STEP = 1e-10
# maximum relative error of a precise gradient that is used without comparing it with the plain
# gradient
MAX_PRECISE_GRADIENT_ERROR = 1e-6
# assumed error of a gradient without a bound, in units of eps |H| |theta|
GRADIENT_ERROR_EPS = 64.0


def assess_nearness(
    ob: TwiceDifferentiable,
    theta: np.ndarray,
    reach: np.ndarray,
    eigen: ComplementEigenpairs,
    gradient: tuple[np.ndarray, float],
    gradient_tol: float | None = None,
) -> Nearness:
    """Return the `Nearness` of theta by the rule of this module, from all eigenpairs of the
    Hessian.

    Parameters
    ----------
    ob : object
        The objective, whose optional ``value`` and ``loss_lower_bound`` are used.
    theta : ndarray, shape (n,)
        The point.
    reach : ndarray, shape (n,)
        ``|H| |theta|``, with the absolute values of all entries.
    eigen : ComplementEigenpairs
        The eigenpairs of H, in balanced units if more signs are known in these units.
    gradient : (ndarray, float)
        g and a bound on its error, as `gradient_and_error` returns them.
    gradient_tol : float, optional
        A tolerance that replaces the rule: theta is near if ``||g|| <= gradient_tol``.
    """
    g, off = gradient
    decrement, whole = newton_decrement(g, off, reach, eigen)
    return assess_nearness_by_decrement(
        ob, theta, safe_norm(g), decrement, float(np.abs(theta) @ reach), gradient_tol, whole=whole
    )


def assess_nearness_by_decrement(
    ob: TwiceDifferentiable,
    theta: np.ndarray,
    gradient_norm: float,
    decrement: float,
    reach: float,
    gradient_tol: float | None = None,
    *,
    whole: float | None = None,
) -> Nearness:
    """Return the `Nearness` of theta by the rule of this module, from a known decrement.

    `reach` is an upper bound on ``|theta|' |H| |theta|``, and `whole` is the decrement without the
    allowance for the rounding of g. The threshold is NaN if the loss f is not finite, and otherwise
    at least the smallest normal number. If `gradient_tol` is given, it replaces the rule.
    """
    f = value_at(ob, theta) if hasattr(ob, "value") else 0.0
    dtype_eps = float(np.finfo(objective_dtype(ob)).eps)
    share = DECREMENT_TOL * (f - value_lower_bound(ob))
    # The two thresholds are max(1e-8 (f - c), rounding of f), in the objective's precision and in
    # float64.
    thresholds = []
    for eps in (dtype_eps, EPS):
        stored = 0.5 * (STORAGE_ERROR_EPS * eps) ** 2 * reach
        rounding = VALUE_ERROR_EPS * eps * abs(f) + (stored if stored < np.inf else 0.0)
        best = max(share if share < np.inf else 0.0, rounding, MIN_NORMAL)
        thresholds.append((best if best < np.inf else 0.0) if np.isfinite(f) else np.nan)
    found = replace(
        nearness_from_decrement(gradient_norm, decrement, thresholds[0], gradient_tol, whole),
        loss=f if hasattr(ob, "value") else np.nan,
        within_digits=bool(decrement <= 0.5 * MAX_PROVED_STEP**2 * reach < np.inf),
    )
    if gradient_tol is not None or not found.near:
        return found
    return replace(found, strict=decrement <= thresholds[1])


def nearness_from_decrement(
    gradient_norm: float,
    decrement: float,
    threshold: float,
    gradient_tol: float | None,
    whole: float | None = None,
) -> Nearness:
    """Return the `Nearness` for a decrement and its threshold or, if `gradient_tol` is given, for
    this tolerance on ||g||. If the threshold is infinite or NaN, theta is not near.

    The field `gradient_tol` of the result is computed from `whole`, the decrement of all of g, and
    not from `decrement`, which only counts the part of g beyond rounding.
    """
    if gradient_tol is not None:
        near = gradient_norm <= gradient_tol < np.inf
        return Nearness(near, decrement, threshold, gradient_norm, float(gradient_tol))
    is_valid = 0 <= threshold < np.inf
    threshold = threshold if is_valid else 0.0
    near = bool(is_valid and decrement <= threshold)
    whole = decrement if whole is None or not near else max(whole, decrement)
    share = threshold / whole if 0 < whole < np.inf else np.nan
    share = max(share, 1.0) if near else share
    tol = gradient_norm * share**0.5 if share >= 0 else (gradient_norm if near else 0.0)
    return Nearness(near, decrement, threshold, gradient_norm, float(tol))


def gradient_and_error(ob: TwiceDifferentiable, theta: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the most accurate gradient available (n,), and a bound on the norm of its error, which
    is NaN if no bound is known.
    """
    fine: tuple[np.ndarray, float] | None = None
    bounded = not missing_bound_reason(ob)
    g, error = call_certificate(ob, "precise_gradient", theta, default=(np.nan, np.nan))
    if np.isfinite(error) and np.isfinite(g).all():
        # The last term is the error of rounding the gradient to float64.
        fine = np.array(g, dtype=float), float(error) + EPS * safe_norm(g)
        if error <= MAX_PRECISE_GRADIENT_ERROR * safe_norm(g) or not bounded:
            return fine
    g = checked_gradient(ob.gradient(theta), theta.size)
    bound = gradient_error_bound_at(ob, theta)
    error = np.nan if bound is None else bound
    # If a row holds numbers of very different magnitudes, the precise gradient may have the larger
    # bound.
    return fine if fine is not None and not error < fine[1] else (g, error)


def finite_gradient_and_error(
    ob: TwiceDifferentiable, theta: np.ndarray, H: BudgetedOperator
) -> tuple[np.ndarray, float]:
    """Return the gradient (n,) at theta and a bound on the norm of its error, which is NaN if no
    bound is known. Raise NotFiniteError if the gradient is not finite.

    The gradient comes from `gradient_and_error` if the objective has a precise gradient, otherwise
    from the operator `H`, which is in float64 if a float32 objective can be cast.
    """
    if certificate_method(ob, "precise_gradient") is not None:
        g, error = gradient_and_error(ob, theta)
    else:
        g = gradient_at(ob, theta, H)
        bound = gradient_error_bound(ob, theta, H)
        error = np.nan if bound is None else bound
    if not np.isfinite(g).all():
        raise NotFiniteError(
            "the gradient at theta must be finite, got NaN or infinity. Use a theta where the "
            "loss is finite."
        )
    return g, error


def assumed_gradient_error(norm: float, theta: np.ndarray) -> float:
    """Return the error that is assumed for a gradient without a bound, where `norm` is
    ``||H||``.
    """
    return GRADIENT_ERROR_EPS * EPS * norm * safe_norm(theta)


def newton_decrement(
    g: np.ndarray, off: float, reach: np.ndarray, eigen: ComplementEigenpairs
) -> tuple[float, float]:
    """Return the decrement ``g'|H|^-1 g / 2`` twice: for the part of g beyond its rounding error,
    and for all of g.

    Eigenvalues smaller in magnitude than their error are replaced by the error. For directions that
    were projected out, the largest magnitude is used. For the first result each slope ``g'u`` is
    reduced by the bound on its error.

    Parameters
    ----------
    g : ndarray, shape (n,)
        The gradient.
    off : float
        Bound on the norm of the error of g. If it is NaN, ``64 eps |H| |theta|`` is assumed.
    reach : ndarray, shape (n,)
        ``|H| |theta|``, with the absolute values of all entries.
    eigen : ComplementEigenpairs
        The eigenpairs of H.
    """
    sizes = np.maximum(np.abs(eigen.values), eigen.error)
    found = []
    slopes = np.abs(eigen.vectors.T @ (eigen.c * g))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # The decrease predicted for each parameter alone, g_i^2 / |H|_ii, is at most g'|H|^-1 g by
        # the Cauchy-Schwarz inequality, in any units. It is compared because it is reduced by the
        # rounding of entry i of g only.
        shares = eigen.vectors**2
        across = np.maximum(0.0, 1 - shares.sum(axis=1)) * sizes.max(initial=0.0)
        diagonal = (shares @ sizes + across) / eigen.c / eigen.c  # upper bound on |H|_ii
        for noise, slack in (gradient_rounding_bounds(len(g), off, reach, eigen), (0.0, 0.0)):
            total = 0.5 * float(_squared_slopes_over_sizes(slopes - slack, sizes).sum())
            alone = _squared_slopes_over_sizes(np.abs(g) - noise, diagonal)
            total = max(total, 0.5 * float(alone.max(initial=0.0)))
            found.append(total if total == total else np.inf)
    return found[0], found[1]


def gradient_rounding_bounds(
    n: int, off: float, reach: np.ndarray, eigen: ComplementEigenpairs
) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds (n,) on the error of each entry of g, and bounds (m,) on the errors of the
    slopes along the m vectors of `eigen`, by the rules of `newton_decrement`. n is the number of
    parameters.
    """
    if np.isnan(off):
        noise = GRADIENT_ERROR_EPS * np.finfo(float).eps * reach
        return noise, np.abs(eigen.vectors).T @ (eigen.c * noise)
    noise = np.full(n, off if off < np.inf else 0.0)
    return noise, noise.max(initial=0.0) * np.sqrt((eigen.vectors**2).T @ eigen.c**2)


def _squared_slopes_over_sizes(slopes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return ``slopes^2 / sizes`` entry by entry. The result is 0 for slopes that are not
    positive.
    """
    return np.where(slopes > 0, slopes / sizes * slopes, 0.0)


# --------------------------------------------------------------------------------------------------
# Newton's steps from a point that is not critical: at most ten full steps, as long as they
# contract.
#
# Each step is solved by MINRES. If all eigenpairs of H at the start are available, the coordinates
# are those in which ``|H|`` is I, so that MINRES takes only a few products. The steps contract if
# each step at least halves the norm of the gradient in these coordinates. No rescaling of
# parameters changes this test.

MAX_NEARNESS_STEPS = 10  # maximum number of Newton steps
# maximum ratio of the gradient norms after and before a step, as under Kantorovich's theorem
MAX_CONTRACTION = 0.5
# number of steps after which the ratio must be at most MAX_LATE_CONTRACTION, because Newton's
# method should then converge faster than linearly
FIRST_LATE_STEP = 3
MAX_LATE_CONTRACTION = 0.1  # maximum ratio of the gradient norms after and before a late step
# fraction of the first gradient norm below which the gradient consists of rounding errors
GRADIENT_FLOOR_RATIO = 1e-12
LINEAR_SOLVE_TOL = 1e-9  # maximum relative residual of the solution of a step's linear system
MAX_STEP_PRODUCTS = 200  # maximum number of products in one step


class CurvatureCoordinates:
    """The map S with ``S S' = |H|^-1``, from the eigenpairs `cut`. Eigenvalues smaller in magnitude
    than their error are replaced by the error. If `cut` is None, S is the identity.
    """

    def __init__(self, cut: ComplementEigenpairs | None = None) -> None:
        # `stretch` is a bound on ``||S'||``
        self.cut = cut
        self.stretch = 1.0
        if cut is not None:
            sizes = np.abs(cut.values)
            least = max(cut.error, 1e-10 * sizes.max(initial=0.0), np.finfo(float).tiny)
            self.weights = 1 / np.sqrt(np.maximum(sizes, least))
            self.stretch = float(self.weights.max(initial=0.0) * np.abs(cut.c).max(initial=0.0))

    def to_parameters(self, y: Floats) -> Floats:
        """Return ``S y``, the parameters (n,) for coordinates y (m,)."""
        cut = self.cut
        return y if cut is None else np.asarray(cut.c * (cut.vectors @ (self.weights * y)))

    def to_coordinates(self, v: Floats) -> Floats:
        """Return ``S' v``, the coordinates (m,) of a gradient v (n,)."""
        cut = self.cut
        return v if cut is None else np.asarray(self.weights * (cut.vectors.T @ (cut.c * v)))


def is_gradient_norm_above(
    ob: TwiceDifferentiable,
    theta: Floats,
    length: float,
    norm: float,
    within: CurvatureCoordinates | None = None,
) -> bool:
    """Return True if the norm of the gradient at theta, in the coordinates `within`, exceeds
    `length` by more than the rounding error of the plain gradient. `norm` is ``||H||``. The test
    takes 1% of the time of the precise gradient.
    """
    within = CurvatureCoordinates() if within is None else within
    plain = _norm(within.to_coordinates(np.array(ob.gradient(theta), dtype=float)))
    return plain - 100 * assumed_gradient_error(norm, theta) * within.stretch > 1.01 * length


def follow_newton_steps(
    ob: TwiceDifferentiable,
    theta: Floats,
    g: Floats,
    within: CurvatureCoordinates,
    most_products: float = np.inf,
) -> tuple[Floats | None, int, int]:
    """Take Newton's steps from theta as long as they contract.

    Parameters
    ----------
    ob : object
        The objective.
    theta, g : ndarray, shape (n,)
        The start and the gradient at the start.
    within : CurvatureCoordinates
        Coordinates in which steps are computed and the gradient is measured.
    most_products : float
        Maximum number of products.

    Returns
    -------
    point : ndarray, shape (n,), or None
        The point that the steps reach, or None if they do not contract or products or time run out.
    n_steps, n_products : int
        Numbers of steps and products.
    """
    ob = cast_to_float64(ob)
    here = theta
    spent = 0
    first = size = _norm(within.to_coordinates(g))
    fine = within.cut is None or certificate_method(ob, "precise_gradient") is not None
    if not 0 < size < np.inf:
        return None, 0, 0
    for k in range(MAX_NEARNESS_STEPS):
        room = int(min(MAX_STEP_PRODUCTS, most_products - spent))
        if room < 1:
            return None, k, spent
        H = budgeted_hessian(ob, here)
        try:
            p = newton_step(H, g, room, within)
        except OutOfTime:
            return None, k, spent + H.count
        spent += H.count
        there = here + p
        share = MAX_CONTRACTION if k < FIRST_LATE_STEP else MAX_LATE_CONTRACTION
        most = (
            share * size
            if spent < most_products
            else min(share * size, GRADIENT_FLOOR_RATIO * first * 1e3)
        )
        lost = not np.isfinite(there).all()
        if lost or fine and is_gradient_norm_above(ob, there, most, H.norm, within):
            return None, k, spent
        g = gradient_and_error(ob, there)[0]
        now = _norm(within.to_coordinates(g))
        at_rounding = (
            size <= GRADIENT_FLOOR_RATIO * first * 1e3 and not now <= MAX_CONTRACTION * size
        )
        if at_rounding or k and safe_norm(p) <= 8 * EPS * safe_norm(here):
            return (here if now >= size else there), k + 1, spent
        if not now <= share * size:
            return None, k, spent
        here = there
        size = now
        if now <= GRADIENT_FLOOR_RATIO * first:
            return here, k + 1, spent
    return here, MAX_NEARNESS_STEPS, spent


def _norm(y: Floats) -> float:
    return safe_norm(y) if np.isfinite(y).all() else np.inf


def newton_step(
    H: BudgetedOperator, g: Floats, room: int, within: CurvatureCoordinates | None = None
) -> Floats:
    """Return an approximate solution p (n,) of ``H p = -g``, computed by MINRES in the coordinates
    `within` with at most `room` products.
    """
    S = CurvatureCoordinates() if within is None else within

    def multiply(y: Floats) -> Floats:
        raise_if_out_of_time()
        return S.to_coordinates(H(S.to_parameters(y)))

    return S.to_parameters(minres(multiply, -S.to_coordinates(g), room, LINEAR_SOLVE_TOL))


# --------------------------------------------------------------------------------------------------
# Measurements of whether signs of curvature are the same at theta and at the critical point near
# theta, if no bound on the third derivative proves this.
#
# The critical point is about one step away: Newton's step p, and along an eigenvector u of weak
# curvature ``-(g'u +- error) / lambda``. Curvature is computed again at several multiples of these
# steps, in both directions. Near a nondegenerate critical point the curvature hardly changes. Near
# a degenerate critical point (a cubic, a quartic, the tail of an exponential, the floor of a
# valley) it decreases to half its magnitude or less, or changes sign. These measurements at a few
# points do not certify a verdict.

Spend = Callable[[int], None]

# minimum ratio of the curvature at a test point to that at theta, within one length of the step;
# under the theorem's condition h < 1/2 the ratio is at least 1/2
MIN_CURVATURE_RATIO = 2 / 3
# test points in units of the step, at unequal distances, so that oscillations of the curvature are
# found
TEST_STEP_MULTIPLES = (1.0, -1.0, 0.38, -0.38)
# test points in units of the step at which curvature must only keep its sign
FAR_TEST_STEP_MULTIPLES = (3.0, -3.0)
# maximum number of curvatures of each sign, those of smallest magnitude, that are tested along
# Newton's step
MAX_TESTED_CURVATURES = 48
# maximum ratio of the decrement at the end of Newton's step to the decrement at theta: under
# h < 1/2 the next step is at most half as long, and the decrement is quadratic in its length
MAX_DECREMENT_RATIO_AFTER_STEP = 0.25
# number of successive stable curvatures, in order of magnitude from the smallest, after which all
# larger ones are assumed to be stable
N_SUCCESSIVE_STABLE_CURVATURES = 4


def directional_curvatures(ob: TwiceDifferentiable, theta: Floats, U: Floats) -> Floats:
    """Return ``u'Hu`` (m,) at theta for the columns u of U (n, m). Return NaN entries if theta or H
    is not finite.
    """
    if not U.shape[1] or not np.isfinite(theta).all():
        return np.full(U.shape[1], np.nan)
    try:
        curvatures = (U * budgeted_hessian(ob, theta)(U)).sum(axis=0)
    except (NotFiniteError, ArithmeticError):  # The objective is undefined at this point.
        return np.full(U.shape[1], np.nan)
    return np.asarray(curvatures)


def gradient_after_step(ob: TwiceDifferentiable, theta: Floats, step: Floats) -> Floats | None:
    """Return the gradient (n,) at ``theta + step``, in float64 if available, or None if it is not
    finite.
    """
    try:
        gradient = gradient_and_error(cast_to_float64(ob), theta + step)[0]
    except (NotFiniteError, ArithmeticError):  # The objective is undefined at this point.
        return None
    return gradient if np.isfinite(gradient).all() else None


def stable_curvature_mask(
    ob: TwiceDifferentiable, theta: Floats, step: Floats, U: Floats, before: Floats, spend: Spend
) -> NDArray[np.bool_]:
    """Return a mask (m,) of the columns u of U (n, m) whose curvature, `before` (m,) at theta,
    keeps its sign and most of its magnitude along `step` in both directions. `spend` is called with
    each number of products before they are computed.
    """
    keep = np.ones(U.shape[1], dtype=bool)
    if not step.any():
        return keep
    for length in TEST_STEP_MULTIPLES + FAR_TEST_STEP_MULTIPLES:
        if keep.any():
            spend(int(keep.sum()))
            now = directional_curvatures(ob, theta + length * step, U[:, keep])
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                keep[keep] = now / before[keep] >= (
                    MIN_CURVATURE_RATIO if abs(length) <= 1 else 0.0
                )
    return keep


def is_curvature_stable(
    ob: TwiceDifferentiable, theta: Floats, u: Floats, curvature: float, reach: float, spend: Spend
) -> bool:
    """Return True if the curvature along the unit vector u, `curvature` at theta, is measured by
    `stable_curvature_mask` to be stable over a length of `reach` along u in both directions. Return
    False if `reach` is negative or NaN.
    """
    return reach >= 0 and bool(
        stable_curvature_mask(ob, theta, reach * u, u[:, None], np.array([curvature]), spend)
    )


def zero_unproved_signs(
    ob: TwiceDifferentiable,
    theta: Floats,
    signs: NDArray[np.int_],
    values: Floats,
    vectors: Floats,
    *,
    slopes: Floats,
    slack: Floats,
    spend: Spend,
) -> NDArray[np.int_]:
    """Return the signs (m,) of curvature, with signs that are measured to be unstable set to 0.

    Parameters
    ----------
    ob : object
        The objective.
    theta : ndarray, shape (n,)
        The point.
    signs : ndarray of int, shape (m,)
        Signs of `values`, 0 if unknown.
    values : ndarray, shape (m,)
        Curvatures at theta.
    vectors : ndarray, shape (n, m)
        Directions u in the coordinates of theta, as columns, with ``u'Hu = values``.
    slopes : ndarray, shape (m,)
        The slopes ``g'u``.
    slack : ndarray, shape (m,)
        Bounds on the errors of the slopes.
    spend : callable
        Function that is called with each number of products before they are computed.
    """
    signs = signs.copy()
    weakest_first = np.argsort(np.abs(values))

    def zero_signs_unstable_along_step() -> None:
        is_signed = signs != 0
        step = -(vectors[:, is_signed] @ (slopes[is_signed] / values[is_signed]))
        for sign in (1, -1):
            weak = weakest_first[signs[weakest_first] == sign][:MAX_TESTED_CURVATURES]
            keep = stable_curvature_mask(ob, theta, step, vectors[:, weak], values[weak], spend)
            signs[weak[~keep]] = 0

    def zero_signs_one_by_one(share: float) -> None:
        """Set the sign of each curvature that is not stable along its own vector to 0. The length
        tested is that of Newton's step for `share` times the slope plus the bound on the error of
        the slope.
        """
        for sign in (1, -1):
            lasting = 0
            for i in weakest_first[signs[weakest_first] == sign]:
                if lasting == N_SUCCESSIVE_STABLE_CURVATURES:
                    break
                u = vectors[:, i]
                reach = (share * abs(slopes[i]) + slack[i]) / abs(values[i])
                lasts = is_curvature_stable(ob, theta, u, float(values[i]), reach, spend)
                lasting = lasting + 1 if lasts else 0
                signs[i] = sign if lasts else 0

    before = signs.copy()
    zero_signs_unstable_along_step()
    if (signs == before).all():
        zero_signs_one_by_one(0.0)
        return signs
    # Some of the curvatures from which Newton's step was computed do not keep their signs along the
    # step. The signs of curvatures that are not stable along their own vectors are set to 0, and
    # Newton's step is computed again from the other curvatures.
    signs[:] = before
    zero_signs_one_by_one(1.0)
    zero_signs_unstable_along_step()
    return signs


# --------------------------------------------------------------------------------------------------
# Points at kinks, where phi' or phi'' jumps and H describes the loss on one side only. The
# functions below measure whether the loss actually decreases along a direction of negative
# curvature or along -g. The proof that a point at active kinks is a minimum is in `kink_minimum`.

RELATIVE_TEST_LENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)  # lengths tried, relative to the norm of theta


def has_descent_on_either_side(
    ob: TwiceDifferentiable, theta: np.ndarray, direction: np.ndarray | None, gradient: np.ndarray
) -> bool:
    """Return True if the loss was found to decrease along `direction`, a unit vector, or along its
    opposite, before it increases. Return False if there is no direction or the loss cannot be
    evaluated.

    The decrease must exceed the rounding of the loss and the change predicted by the slope on this
    side of the kinks.
    """
    if direction is None or not hasattr(ob, "value"):
        return False
    here = value_at(ob, theta)
    length = augmented_norm(theta)
    noise = value_rounding_error(here, objective_dtype(ob))
    slope = abs(float(gradient @ direction))
    for way in (1.0, -1.0):
        for size in RELATIVE_TEST_LENGTHS:
            t = size * length
            rise = value_at(ob, theta + way * t * direction) - here
            if rise < -noise - slope * t:
                return True
            if rise > noise:
                break
    return False


def has_descent_along_gradient(
    ob: TwiceDifferentiable, theta: np.ndarray, gradient: np.ndarray
) -> bool:
    """Return True if the loss was found to decrease along minus the gradient on this side of the
    kinks, or if the loss cannot be evaluated. At a minimum at active kinks the loss increases along
    this direction, because it increases on the other side of the kinks.
    """
    norm = safe_norm(gradient)
    length = augmented_norm(theta)
    if not 0 < norm < np.inf or not hasattr(ob, "value"):
        # Without values of the loss, a decrease is assumed.
        return True
    here = value_at(ob, theta)
    noise = value_rounding_error(here, objective_dtype(ob))
    steps = 4.0 ** -np.arange(3.0, 21.0) * (length / norm)
    return any(value_at(ob, theta - t * gradient) < here - noise for t in steps.tolist())
