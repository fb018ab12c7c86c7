"""The function `find_critical_point`: a search for points of any kind at which the gradient
vanishes.
"""

from __future__ import annotations

import numbers
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    check_bool,
    check_choice,
    check_positive,
    check_positive_int,
    check_theta,
    checked_product,
    objective_dtype,
    short_repr,
)
from ..common.errors import OBJECTIVE_HINT, require_attrs, type_phrase
from ..common.linalg import NotFiniteError, eigh
from ..common.objectives import (
    PRODUCT_ERROR_EPS,
    BudgetedOperator,
    budgeted_hessian,
    call_certificate,
    checked_curvature,
    checked_gradient,
    gradient_error_bound,
    user_call_guard,
    value_at,
)
from ..common.outcome import Result, outcome
from ..common.progress import show_bar
from ..common.protocols import TwiceDifferentiable, Walking, capability, missing_reason
from ..common.runtime import (
    Budget,
    OutOfTime,
    is_time_up,
    serial_blas_context,
    time_limit,
    with_nearest_rounding,
)
from ..common.sentences import Note, render_notes
from ..common.vectors import augmented_norm, safe_norm
from ..critical.classify import classify
from ..critical.dense import ZERO_CURVATURE_TOL, assess_nearness_at
from ..critical.evidence import (
    GRADIENT_ROUNDING_FACTOR,
    RELATIVE_GRADIENT_TOL,
    null_subspace_basis,
    orthonormal_basis,
    symmetry_tangents,
    why_no_minimum,
)
from ..critical.report import CriticalPoint
from ..krylov.trust_region import new_krylov_space, solve_trust_region
from ..network.mlp import MLP
from ..structure.tables import loss_spec
from .residual import (
    NewtonMRSteps,
    dense_newton_mr_steps,
    extend_krylov_space,
    krylov_newton_mr_steps,
    reduce_gradient_norm,
)

# --------------------------------------------------------------------------------------------------
# Eigenvector following: steps towards a point of a given index.
#
# In the eigenbasis, with c the gradient, the step is ``-s_i c_i / (|lam_i| + mu)``: s_i = -1 along
# the eigenvectors that are climbed, 1 along all others, and mu >= 0 keeps it within the radius. If
# every lam_i has the sign of s_i and mu is 0, this is Newton's step, so that only points of the
# requested index attract. The radius is adapted to the error of the quadratic model: the difference
# of the actual and the predicted gradient, in the norm of ``(|H| + mu)^-1``, divided by the length
# of the step in the norm of ``|H| + mu``. This ratio does not depend on units, and in a curved
# valley it allows far longer steps than the Euclidean norm, which is dominated by stiff directions.
#
# If an eigenvalue whose eigenvector is climbed crosses another one, the set of lowest eigenvectors
# changes abruptly, and the walk could oscillate without end. So the walk climbs the eigenvectors
# that overlap most with the previous ones, and selects the lowest ones again only every few steps.

FOLLOW_MAX_N = 4096  # maximum number of parameters for eigenvector following
N_STEPS_PER_EIGENVECTOR_SELECTION = (
    10  # number of steps after which the lowest eigenvectors are selected again
)
# maximum error of the quadratic model for a step to be accepted, and for the radius to grow
MAX_MODEL_ERROR = 1.0
GOOD_MODEL_ERROR = 0.3
# maximum ||theta|| of a walk, relative to max(1, ||theta0||), above which the walk counts as
# divergent
MAX_THETA_NORM_RATIO = 30.0
# If no index is requested, these are tried in turn, relative to the number of negative eigenvalues
# at the start, with at most MAX_STEPS_PER_TRY steps each. For 80 networks of two and three hidden
# layers all searches ended at a certified point; with 150 steps in each try, 78 did.
TRIED_INDEX_OFFSETS = (0, -1, 1, -2, 2, -3, 3)
# If the start has more negative eigenvalues than this, half, a quarter and an eighth of them are
# tried after the first three indices. The searches from ten untrained networks 4-6-4-3 with 24 to
# 30 negative eigenvalues all ended at a certified point. From three of these networks walks to a
# quarter were run alone: they succeeded in some 100 steps, and those to nearby indices diverged.
MAX_NEARBY_INDEX = 12
MAX_STEPS_PER_TRY = 300
# maximum range of an output over the samples that counts as constant, relative to the range of the
# targets, or absolute for logits: a fit of 0.01 of the variance, or 0.025 of a probability
CONSTANT_OUTPUT_RATIO = 0.1
# default maximum number of steps in total: all tries plus the Newton-MR steps after them
DEFAULT_MAX_FOLLOW_STEPS = 1500
# default maximum number of steps of all other searches, such as those for a given index
DEFAULT_MAX_NEWTON_STEPS = 300


def check_index(index: object, n: int) -> int:
    """Return the requested index as an int. Raise TypeError or ValueError unless it is an int from
    0 to n, the number of parameters, and n is at most `FOLLOW_MAX_N`.
    """
    if isinstance(index, bool) or not isinstance(index, numbers.Integral):
        raise TypeError(
            f"index must be an int from 0 to {n}, the number of parameters, "
            f"got {short_repr(index)}."
        )
    number = int(index)
    if not 0 <= number <= n:
        raise ValueError(f"index must be from 0 to {n}, the number of parameters, got {index}.")
    if n > FOLLOW_MAX_N:
        raise ValueError(
            f"index must be None for more than {FOLLOW_MAX_N} parameters, since every step "
            f"takes all eigenvectors, got {index} for {n} parameters."
        )
    return number


@dataclass(frozen=True)
class FollowedModes:
    """The eigenpairs of the Hessian at a point, without the zero modes of symmetries, and the
    direction of the step along each.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Eigenvalues in ascending order.
    U : ndarray, shape (n, k)
        Eigenvectors, as columns.
    signs : ndarray, shape (k,)
        -1 for a step uphill along the eigenvector, 1 for a step downhill.
    """

    values: np.ndarray
    U: np.ndarray
    signs: np.ndarray

    @classmethod
    def choose_modes(
        cls, A: np.ndarray, T: np.ndarray, index: int, before: np.ndarray | None
    ) -> FollowedModes:
        """Create the modes of the Hessian A (n, n) for a step that climbs `index` eigenvectors.
        These are the eigenvectors that overlap most with the columns of `before`, or the lowest
        ones if `before` is None.

        The columns of T (n, k) are tangents of symmetries. Those that A maps almost to zero are
        left out, since the loss is constant along them and rounding determines the signs of their
        eigenvalues.
        """
        span = orthonormal_basis(T)
        span = null_subspace_basis(
            A @ span, span, ZERO_CURVATURE_TOL * float(np.abs(A).sum(axis=1).max())
        )
        if span.shape[1]:
            Z = np.linalg.qr(span, mode="complete")[0][:, span.shape[1] :]
            values, inner, _ = eigh(Z.T @ A @ Z)
            U = Z @ inner
        else:
            values, U, _ = eigh(A)
        signs = np.ones(len(values))
        if before is None:
            signs[:index] = -1
        else:
            overlap = np.square(U.T @ before).sum(axis=1)
            signs[np.argsort(-overlap, kind="stable")[:index]] = -1
        return cls(values, U, signs)

    @property
    def step_weights(self) -> np.ndarray:
        """The absolute values (k,) of the eigenvalues, but at least `zero_threshold`."""
        return np.asarray(np.maximum(np.abs(self.values), self.zero_threshold))

    def n_negative(self, eps: float) -> int:
        """Return the number of eigenvalues that are negative by more than the rounding error of a
        Hessian computed with relative spacing `eps`.
        """
        zero = max(1e-10, 64 * eps) * np.abs(self.values).max(initial=0.0)
        return int((self.values < -zero).sum())

    @property
    def zero_threshold(self) -> float:
        """The absolute value of an eigenvalue up to which rounding makes its sign unknown."""
        return 1e-10 * float(np.abs(self.values).max(initial=0.0))

    def step(self, g: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
        """Return the step (k,) for the gradient g, in the eigenbasis and not longer than `radius`,
        and the shift mu that is added to the absolute eigenvalues.
        """
        order = np.argsort(self.step_weights, kind="stable")
        c = self.signs * (self.U.T @ g)
        y = np.empty(len(c))
        y[order], mu = solve_trust_region(self.step_weights[order], c[order], radius)
        return y, mu

    def sign_correcting_step(self, radius: float) -> np.ndarray:
        """Return a step (k,) in the eigenbasis, along the eigenvectors whose eigenvalues have the
        wrong sign for a critical point of the requested index. The step has the length `radius`. If
        all signs are right, return zeros.
        """
        wrong = np.where(
            self.signs < 0, self.values > -self.zero_threshold, self.values < -self.zero_threshold
        )
        return np.asarray(radius * wrong / max(1.0, np.sqrt(wrong.sum())))

    def model_error(self, y: np.ndarray, mu: float, change: np.ndarray) -> float:
        """Return the error of the quadratic model for a step y with shift mu that changes the
        gradient by `change`: the difference of the actual and the predicted gradient in the norm of
        ``(|H| + mu)^-1``, divided by the length of y in the norm of ``|H| + mu``. Return infinity
        if y is 0.
        """
        weights = self.step_weights + mu
        missed = self.U.T @ change - self.values * y
        length = safe_norm(y * np.sqrt(weights))
        return safe_norm(missed / np.sqrt(weights)) / length if length > 0 else np.inf


# --------------------------------------------------------------------------------------------------
# The state of a search for a critical point, and the search itself.

# minimum number of parameters for steps in Krylov spaces instead of from all eigenpairs
KRYLOV_STEP_MIN_N = 400
# maximum dimension of the Krylov space of the gradient
MAX_GRADIENT_KRYLOV_DIM = 120
MAX_UNDAMPED_SERIES = 5  # maximum number of series of undamped steps in one search


class CriticalPointSearch:
    """The state of a search for a critical point: the current point, the budget, and the products
    used. `fixed_tol` is the tolerance of the caller, or None.
    """

    def __init__(
        self,
        ob: TwiceDifferentiable,
        theta: np.ndarray,
        fixed_tol: float | None,
        max_iter: int,
        max_products: float,
        *,
        avoid_trivial: bool,
        callback: Callable[[np.ndarray], object] | None,
    ) -> None:
        self.ob = ob
        self.theta = theta
        self.avoid_trivial = avoid_trivial
        self.callback = callback
        self.fixed_tol = fixed_tol
        self.max_iter = max_iter
        self.budget = Budget(max_products)
        self.nit = self.nfev = 0
        self.excursions = MAX_UNDAMPED_SERIES
        self.asked = np.inf
        self.tol = 0.0
        self.status = 1
        self.trivial: str | None = None
        self.notes: tuple[Note, ...] = ()
        self.shown: Any = None
        self.g = self.gradient(theta)
        if not np.isfinite(self.g).all():
            raise ValueError(
                "the gradient at theta0 must be finite, got NaN or infinity. Use a theta0 where "
                "the loss is finite."
            )
        self.history = [self.gradient_norm]

    @property
    def gradient_norm(self) -> float:
        return safe_norm(self.g)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient (n,) at theta, or NaNs if theta is not finite in the objective's
        precision.
        """
        self.nfev += 1
        if not np.isfinite(theta.astype(objective_dtype(self.ob))).all():
            return np.full(theta.size, np.nan)
        with user_call_guard(self.ob, theta):
            return checked_gradient(self.ob.gradient(theta), theta.size)

    def hessian(self, theta: np.ndarray) -> BudgetedOperator | None:
        """Return the products with the Hessian in the objective's own precision, or None if the
        Hessian is not finite, as may happen far from the origin.
        """
        with user_call_guard(self.ob, theta):
            try:
                H = self.ob.hessian(theta)
            except (NotFiniteError, OverflowError, FloatingPointError):
                return None
        checked_curvature(H, theta.size)
        try:
            return BudgetedOperator(H)
        except (NotFiniteError, OverflowError, FloatingPointError):
            # The objective returned a matrix that is not finite.
            return None

    def newton_mr_steps(self, H: BudgetedOperator, g: np.ndarray) -> NewtonMRSteps:
        """Return the Newton-MR steps for the Hessian H and the gradient g, and count the products.
        If the budget is used up or H cannot be decomposed, the result holds no steps.
        """
        size = safe_norm(g)
        # One product is reserved for `uphill`.
        products_left = self.budget.untimed_products_left - 1
        if H.n < KRYLOV_STEP_MIN_N and H.n <= products_left:
            steps = dense_newton_mr_steps(H(np.eye(H.n, dtype=H.dtype)), g)
        elif size == 0 or products_left < 1:
            steps = NewtonMRSteps(norm=0.0)
        else:
            limit = int(min(MAX_GRADIENT_KRYLOV_DIM, H.n, products_left))
            space = new_krylov_space(H.n, H.native_dtype, limit + 2)
            space.start(
                lambda v, out: np.copyto(out, checked_product(H.native, v)),
                g.astype(H.native_dtype),
            )
            extend_krylov_space(space, min(1e-2, size / self.history[0]), limit, is_time_up)
            steps = krylov_newton_mr_steps(space)
            H.count = space.m
        self.budget.count += H.count
        H.count = 0
        return steps

    def update_tolerance(self, H: BudgetedOperator, norm: float) -> None:
        """Set the tolerance of the gradient for the current point. `norm` is ||H||.

        The tolerance is that of the caller, if one was given. Otherwise it is
        `GRADIENT_ROUNDING_FACTOR` times the largest finite bound on the rounding of the gradient,
        or 0 if no bound is finite.
        """
        if self.fixed_tol is not None:
            self.tol = self.fixed_tol
            return
        bound = gradient_error_bound(self.ob, self.theta, H)
        if bound is None or not np.isfinite(bound):
            bound = PRODUCT_ERROR_EPS * H.eps * norm * augmented_norm(self.theta)
        stored = np.finfo(objective_dtype(self.ob)).eps * norm * safe_norm(self.theta)
        finite_bounds = [float(size) for size in (bound, stored) if np.isfinite(size)]
        self.tol = GRADIENT_ROUNDING_FACTOR * max(finite_bounds, default=0.0)

    def is_tol_loose(self, norm: float) -> bool:
        """Return True if the tolerance is the default and the gradient norm exceeds a tenth of
        ``RELATIVE_GRADIENT_TOL ||H|| ||theta||``, with `norm` for ||H||. In float32 such a gradient
        may be within the tolerance although the nearest critical point is still far away.
        """
        far = self.gradient_norm > 0.1 * RELATIVE_GRADIENT_TOL * norm * augmented_norm(self.theta)
        return self.fixed_tol is None and far

    def is_near_critical(self, share: float = 0.5) -> bool:
        """Return True if `classify` would consider the current point near a critical point.

        The result is True without a test if the caller gave a tolerance, if the gradient is 0, if n
        exceeds `KRYLOV_STEP_MIN_N`, or if the budget is too small for the test. The test may take n
        products. After a negative result the test is repeated only once ``||g||`` is below `share`
        times its value at that test; until then the result is False.
        """
        if (
            self.fixed_tol is not None
            or self.gradient_norm == 0
            or self.theta.size > KRYLOV_STEP_MIN_N
        ):
            return True
        if not self.gradient_norm < share * self.asked:
            return False
        H = budgeted_hessian(self.ob, self.theta)
        if not (
            capability(H.op, "assembled") is not None or H.n <= self.budget.untimed_products_left
        ):
            return True
        self.asked = self.gradient_norm
        is_near = assess_nearness_at(self.ob, self.theta, H).near
        self.budget.count += H.count
        return is_near

    def allows_step(self, products: int = 1) -> bool:
        """Return True if the limits on steps, products and time allow another step with `products`
        products.
        """
        return self.nit < self.max_iter and self.budget.allows(products)

    def move_to(self, theta: np.ndarray, g: np.ndarray) -> None:
        self.theta = theta
        self.g = g
        self.nit += 1
        self.history.append(self.gradient_norm)
        self.shown.update(1)
        if self.callback is not None:
            self.callback(theta.copy())

    def stop_at_convergence(self) -> None:
        """Store the status of a search that ended because the gradient is within its tolerance. It
        fails if the point is trivial and such points are avoided.
        """
        self.trivial = trivial_point_reason(self.ob, self.theta)
        if self.trivial and self.avoid_trivial:
            self.stop(2, "trivial_point", trivial=self.trivial)
        else:
            self.stop(0, "within_tolerance", gradient_tol=float(self.tol))

    def stop(self, status: int, key: str, **numbers: Any) -> None:
        """Store the status and the note, of the given key and numbers, of a search that ended."""
        numbers = {"gradient_norm": float(self.gradient_norm), **numbers}
        advice = (Note("increase_limit"),) if status == 1 else ()
        self.status = status
        self.notes = (Note(key, numbers), *advice)

    def end_at_limit(self, key: str = "limit", products: int = 1, **numbers: Any) -> None:
        """Store the status and the note of a search that ended because a limit does not allow
        another step with `products` products.
        """
        name = "max_iter" if self.nit >= self.max_iter else "max_time"
        name = "max_products" if self.budget.untimed_products_left < products else name
        self.stop(1, key, limit=name, **numbers)

    def end_without_point(self, wanted: str, otherwise: str, products: int, **numbers: Any) -> None:
        """Store the status and the note of a search that did not find the `wanted` point, because a
        limit does not allow `products` products or, if `products` is 0, with the note `otherwise`.
        """
        if products:
            self.end_at_limit("limit_without_point", products, wanted=wanted, **numbers)
        else:
            self.stop(2, otherwise, wanted=wanted, **numbers)

    def make_result(self) -> CriticalPointResult:
        return outcome(
            CriticalPointResult,
            x=self.theta,
            fun=value_at(self.ob, self.theta),
            jac=self.g,
            gradient_norm=self.gradient_norm,
            gradient_tol=self.tol,
            success=self.status == 0,
            status=self.status,
            message=render_notes(self.notes),
            notes=self.notes,
            nit=self.nit,
            nfev=self.nfev,
            n_products=self.budget.count,
            history=np.array(self.history),
            kind=None,
            report=None,
            trivial=self.trivial,
        )


class CriticalPointResult(Result):
    """Result of `find_critical_point`. The section Returns of `find_critical_point` describes the
    attributes.
    """

    jac: np.ndarray
    gradient_norm: float
    gradient_tol: float
    status: int
    nit: int
    n_products: int
    history: np.ndarray
    kind: str | None
    report: CriticalPoint | None
    trivial: str | None


def trivial_point_reason(ob: Any, theta: np.ndarray) -> str | None:
    """Return the reason why the outputs hardly depend on the inputs, which makes a critical point
    trivial. Return None if they vary over the samples by more than a tenth of the range of the
    targets, or of 1 for logits, or if `ob` is not the loss of an `MLP`.

    Parameters
    ----------
    ob : objective
    theta : ndarray, shape (n,)

    Returns
    -------
    str or None
        ``all weights zero``, ``constant output``, or None.
    """
    if not isinstance(getattr(ob, "model", None), MLP):
        return None
    if not any(layer[0].any() for layer in ob.model.unflatten(theta)):
        return "all weights zero"
    if missing_reason(ob, "certificates"):
        return None
    inputs, outputs = ob.certificates.input_output_ranges(theta)
    spread = (outputs.high - outputs.low).max()
    differ = (inputs.high > inputs.low).any()
    y: Any = getattr(ob, "y", None)
    numbers = isinstance(y, np.ndarray) and loss_spec(ob.loss).targets == "numbers"
    scale = float(np.ptp(y, axis=0).max()) if numbers and np.size(y) else 1.0
    return "constant output" if differ and spread <= CONSTANT_OUTPUT_RATIO * scale else None


# number of steps in which the gradient norm should at least be halved; otherwise undamped steps are
# tried
MAX_STEPS_TO_HALVE_GRADIENT = 5
MAX_UNDAMPED_STEPS = 50  # maximum number of undamped steps in one series
# The gradient norm counts as stationary if ||Hg|| is below this fraction of ||H|| ||g||.
FLAT_GRADIENT_RATIO = 1e-10


@with_nearest_rounding
def find_critical_point(
    ob: TwiceDifferentiable,
    theta0: ArrayLike,
    method: Walking = "follow",
    *,
    gradient_tol: float | None = None,
    max_iter: int | None = None,
    max_products: int | None = None,
    max_time: float | None = None,
    index: int | None = None,
    avoid_trivial: bool = False,
    verdict: bool = True,
    callback: Callable[[np.ndarray], object] | None = None,
    progress: bool | None = None,
) -> CriticalPointResult:
    """Find a point where the gradient vanishes, of any kind, starting from theta0, and classify it.

    Parameters
    ----------
    ob : object
        Anything with ``n_params``, ``value(theta)``, ``gradient(theta)`` and ``hessian(theta)``.
    theta0 : array_like, shape (n,)
        The starting point.
    method : {"follow", "newton-mr"}
        ``follow``: walks follow eigenvectors, as described for `index`, to a point with as many
        negative eigenvalues as the Hessian at `theta0` has. If a walk does not end within 300
        steps, others start from `theta0`, towards up to three negative eigenvalues fewer or more,
        or from more than 12 also towards a half, a quarter and an eighth as many.
        If all fail, ``newton-mr`` starts from `theta0`. On 80 networks of two and three hidden
        layers with 83 to 193 parameters and l2 from 1e-3 to 1e-2, each search ended at a certified
        point whose index is at most 3 away from that of the start, in a median of 0.5 s. These
        were networks of smooth activations: those of relu units mostly lie on kinks, where no
        gradient vanishes, and their searches fail. From n = 400 on, only ``newton-mr`` is used.
        ``newton-mr``: each step is the minimum-norm least-squares solution of ``H p = -g``, damped
        along directions of weak curvature if this lowers ``||g||`` more, with a line search on
        ``||g||^2`` [1]_. If the search stalls, undamped steps are tried, which may increase
        ``||g||`` for a while. Below n = 400 the step is computed from the eigenpairs of H. From
        n = 400 on it is computed in the Krylov space of g, as by MINRES-QLP [2]_.
    gradient_tol : float, optional
        The norm of the gradient at which to stop. The default is 10 times the rounding bound of
        the gradient, which is that of the objective or ``64 eps ||H|| ||theta||``, and at least
        ``eps ||H|| ||theta||``, the effect of storing theta. With the default, the search
        continues as long as steps reduce the gradient enough.
    max_iter : int, optional
        Maximum number of steps, of all walks together. The default is 1500 for ``follow`` without
        an `index` below n = 400, and 300 otherwise.
    max_products : int, optional
        Maximum number of products with Hessians. A step takes n + 1 products below n = 400, or as
        many as are left if these are fewer.
    max_time : float, optional
        Seconds after which the search ends: at the end of a step, or inside a step from n = 400 on.
    index : int, optional
        The requested number of negative eigenvalues, with ``follow``: 0 for a minimum, 1 for a
        saddle between two minima, and so on. Zero eigenvalues from symmetries are not counted.
        Steps go up along the `index` lowest eigenvectors and down along all others, each by the
        gradient over the absolute curvature [3]_ [4]_, in a trust region. Near the point,
        ``newton-mr`` continues. Such a walk converges only to points of this index, and leaves a
        critical point of another index along the eigenvectors whose eigenvalue has the wrong sign.
        Each step needs all eigenpairs, n products and ``O(n^3)`` work, so n is at most 4096.
    avoid_trivial : bool
        Whether a trivial point, at which the outputs of a network do not depend on its inputs,
        counts as a failure. With ``follow`` and without an `index`, a walk that ends at such a
        point is followed by the next one, and one of the walks is towards a minimum.
    verdict : bool
        Whether to classify the point that was found. The call of `classify` uses what is left of
        `max_time` and `max_products`, and its products are counted in ``report.n_products``.
    callback : callable, optional
        Called with theta after each step.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the call takes more than 2 s.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``kind`` and ``report`` (the verdict of `classify` on `x`, both None without success or with
        ``verdict=False``), ``x``, ``fun``, ``jac``, ``gradient_norm``, ``gradient_tol``,
        ``success`` (whether the norm is within the tolerance and a critical point is not ruled
        out), ``status`` (0 success, 1 budget spent, 2 line search failed, 3 the gradient norm is
        itself stationary: a plateau, 4 the loss is proved to decrease without end), ``message``,
        ``nit``, ``nfev`` (gradients), ``n_products``, ``history`` of ``||g||``, and ``trivial``:
        why the outputs of a network hardly depend on its inputs at `x` (``all weights zero`` or
        ``constant output``: they vary by at most a tenth of the range of the targets, or of 1 for
        logits), or None if they do or `x` is not critical. Searches from untrained
        networks often end at such points, which say little about the loss surface. If a line
        search fails, theta is not changed by that step. Status 2 is also returned if a walk to an
        `index` diverges far from its start, finds no step that its model allows, or ends at a
        point of another index. ``||g||`` at `x` is never larger than at `theta0`.

    See Also
    --------
    classify : Classify any point.
    minimize : Find minima only.
    sample_critical_points : Find many critical points.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu and M. W. Mahoney, Newton-MR: inexact Newton method with minimum
           residual sub-problem solver, EURO J. Comput. Optim. 10, 2022.
    .. [2] S.-C. T. Choi, C. C. Paige and M. A. Saunders, MINRES-QLP, SIAM J. Sci. Comput. 33, 2011.
    .. [3] C. J. Cerjan and W. H. Miller, On finding transition states, J. Chem. Phys. 75, 1981.
    .. [4] J. Yin, L. Zhang and P. Zhang, High-index optimization-based shrinking dimer method for
           finding high-index saddle points, SIAM J. Sci. Comput. 41, 2019.

    Examples
    --------
    >>> from fastcurv.testing import lecture_toy
    >>> result = find_critical_point(lecture_toy(), [0.3, -0.2])
    >>> result.success, result.kind, bool(np.abs(result.x).max() < 1e-12)
    (True, 'saddle', True)
    >>> bottom = find_critical_point(lecture_toy(), [0.3, -0.2], index=0)
    >>> bottom.success, bottom.fun
    (True, 0.0)
    """
    require_attrs(ob, ("n_params", "value", "gradient", "hessian"), "ob", OBJECTIVE_HINT)
    check_choice(method, get_args(Walking), "method")
    theta = check_theta(ob, theta0, "theta0", np.float64).copy()
    tol = None if gradient_tol is None else check_positive(gradient_tol, "gradient_tol", zero=True)
    products_limit = (
        np.inf if max_products is None else check_positive_int(max_products, "max_products")
    )
    if index is not None:
        index = check_index(index, theta.size)
        if method != "follow":
            raise ValueError(f"method must be 'follow' if an index is given, got {method!r}.")
    tries = method == "follow" and index is None and theta.size < KRYLOV_STEP_MIN_N
    if max_iter is None:
        max_iter = DEFAULT_MAX_FOLLOW_STEPS if tries else DEFAULT_MAX_NEWTON_STEPS
    steps = check_positive_int(max_iter, "max_iter")
    avoid_trivial = check_bool(avoid_trivial, "avoid_trivial")
    verdict = check_bool(verdict, "verdict")
    began = time.monotonic()
    limit = None if max_time is None else check_positive(max_time, "max_time")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of theta, got {type_phrase(callback)}.")
    with (
        show_bar(max_iter, "find_critical_point", progress) as shown,
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
        serial_blas_context(tries or index is not None),
        time_limit(limit),
    ):
        walk = CriticalPointSearch(
            ob, theta, tol, steps, products_limit, avoid_trivial=avoid_trivial, callback=callback
        )
        walk.shown = shown
        try:
            if tries:
                _follow_near_indices(walk)
            elif index is None:
                _run_newton_mr(walk)
            elif _follow_modes(walk, index):
                _run_newton_mr(walk)
                _fail_if_index_differs(walk, index)
        except OutOfTime:
            walk.end_at_limit()
    return _classify_end_point(walk, limit, began) if verdict else walk.make_result()


def _classify_end_point(
    walk: CriticalPointSearch, max_time: float | None, began: float
) -> CriticalPointResult:
    """Return the result of the search `walk`. If the search succeeded and products are left, the
    result includes the verdict of `classify` on the point. `began` is the time at which the search
    began, and `max_time` is its limit in seconds, or None.
    """
    result = walk.make_result()
    products = walk.budget.most - result.n_products
    if result.success and products >= 1:
        seconds_left = (
            None if max_time is None else max(max_time - (time.monotonic() - began), 1e-3)
        )
        more = None if np.isinf(products) else int(products)
        result.report = classify(
            walk.ob, result.x, max_products=more, max_time=seconds_left, progress=False
        )
        result.kind = result.report.kind
    return result


def _follow_near_indices(walk: CriticalPointSearch) -> None:
    """Follow eigenvectors to a point with about as many negative eigenvalues as at the start,
    trying several indices in turn, each from the start.

    If all tries fail, take Newton-MR steps from the start. If these fail as well, keep the point
    with the smallest gradient.
    """
    start = best = walk.theta, walk.g
    total_max_iter = walk.max_iter
    indices = _neighbouring_indices(walk)
    if walk.avoid_trivial and indices and 0 not in indices:
        indices.append(0)  # at a minimum the outputs mostly depend on the inputs
    for index in indices:
        walk.max_iter = min(total_max_iter, walk.nit + MAX_STEPS_PER_TRY)
        if _follow_modes(walk, index):
            _run_newton_mr(walk)
        if walk.status in (0, 4):
            return
        if walk.trivial is None:
            best = min(best, (walk.theta, walk.g), key=lambda point: safe_norm(point[1]))
        walk.trivial = None
        walk.theta, walk.g = start
        walk.max_iter = total_max_iter
        walk.excursions = MAX_UNDAMPED_SERIES
        walk.asked = np.inf
        if not walk.allows_step(walk.theta.size):
            break
    if walk.allows_step():
        walk.history.append(walk.gradient_norm)
        _run_newton_mr(walk)
    if walk.status not in (0, 4) and safe_norm(best[1]) < walk.gradient_norm:
        walk.theta, walk.g = best
        walk.history.append(walk.gradient_norm)
        walk.end_without_point("any", "tries_without_point", int(walk.status == 1))


def _neighbouring_indices(walk: CriticalPointSearch) -> list[int]:
    """Return the indices to try: the number of negative eigenvalues at the current point, then the
    numbers near it, or smaller ones if it exceeds `MAX_NEARBY_INDEX`. Return an empty list if the
    Hessian is not finite or cannot be decomposed, or if the budget is too small for a step.
    """
    n = walk.theta.size
    H = walk.hessian(walk.theta) if walk.budget.allows(2 * n) else None
    if H is None:
        return []
    A = H(np.eye(n, dtype=H.dtype))
    walk.budget.count += H.count
    try:
        modes = FollowedModes.choose_modes(
            A, symmetry_tangents(walk.ob, walk.theta).columns, 0, None
        )
    except (np.linalg.LinAlgError, NotFiniteError):
        return []
    here = modes.n_negative(np.finfo(objective_dtype(walk.ob)).eps)
    if here > MAX_NEARBY_INDEX:
        nearby = [here + d for d in TRIED_INDEX_OFFSETS[:3] if here + d <= len(modes.values)]
        return [*nearby, here // 2, here // 4, here // 8]
    return [here + d for d in TRIED_INDEX_OFFSETS if 0 <= here + d <= len(modes.values)]


def _follow_modes(walk: CriticalPointSearch, index: int) -> bool:
    """Follow eigenvectors until the step is short and all eigenvalues have the signs that `index`
    requires, and return True. If the budget ends or the walk diverges first, return to the visited
    point with the smallest gradient, store the status, and return False.
    """
    start = max(1.0, safe_norm(walk.theta))
    best = (walk.theta, walk.g)
    climbed = None
    radius = 0.1 * start
    number = 0
    short = float(np.finfo(objective_dtype(walk.ob)).eps ** 0.4)
    with suppress(OutOfTime):
        while walk.allows_step(walk.theta.size):
            H = walk.hessian(walk.theta)
            if H is None:
                break
            A = H(np.eye(H.n, dtype=H.dtype))
            walk.budget.count += H.count
            if not np.isfinite(A).all() or not A.any():
                break
            T = symmetry_tangents(walk.ob, walk.theta).columns
            way = FollowedModes.choose_modes(
                A, T, index, climbed if number % N_STEPS_PER_EIGENVECTOR_SELECTION else None
            )
            climbed = way.U[:, way.signs < 0]
            number += 1
            size = max(1.0, safe_norm(walk.theta))
            y, mu = way.step(walk.g, radius)
            at_rest = safe_norm(y) <= short * size
            if at_rest:
                y = way.sign_correcting_step(radius)
                if not y.any():
                    return True
            while True:
                theta = walk.theta + way.U @ y
                g = walk.gradient(theta)
                trusted = np.isfinite(g).all()
                error = way.model_error(y, mu, g - walk.g) if trusted else np.inf
                if error <= MAX_MODEL_ERROR or radius <= short * size:
                    break
                radius = 0.25 * safe_norm(y)
                y, mu = (0.25 * y, mu) if at_rest else way.step(walk.g, radius)
            if not trusted or safe_norm(theta) > MAX_THETA_NORM_RATIO * start:
                break
            if error <= GOOD_MODEL_ERROR:
                radius = min(max(radius, 2 * safe_norm(y)), size)
            walk.move_to(theta, g)
            best = min(best, (theta, g), key=lambda point: safe_norm(point[1]))
    walk.theta, walk.g = best
    walk.history.append(walk.gradient_norm)
    products = walk.theta.size * (not walk.allows_step(walk.theta.size))
    walk.end_without_point("index", "diverged_without_point", products, index=index)
    return False


def _fail_if_index_differs(walk: CriticalPointSearch, index: int) -> None:
    """Mark the search as unsuccessful if it ended at a critical point of another index."""
    H = walk.hessian(walk.theta) if walk.status == 0 else None
    if H is None:
        return
    A = H(np.eye(H.n, dtype=H.dtype))
    walk.budget.count += H.count
    way = FollowedModes.choose_modes(A, symmetry_tangents(walk.ob, walk.theta).columns, index, None)
    n_negative = way.n_negative(float(np.finfo(objective_dtype(walk.ob)).eps))
    if n_negative != index:
        walk.stop(2, "other_index", n_negative=n_negative, index=index)


def _run_newton_mr(walk: CriticalPointSearch) -> None:
    """Take Newton-MR steps until the gradient is within its tolerance, the budget ends, a plateau
    is found or no step lowers the gradient, and store the status and message in `walk`.

    A tolerance that bounds the rounding may be far above the rounding itself, so steps within it
    continue as long as they reduce the gradient enough.
    """
    paying = walk.fixed_tol is None
    while True:
        H = walk.hessian(walk.theta)
        if H is None:
            return walk.stop(2, "hessian_not_finite")
        steps = walk.newton_mr_steps(H, walk.g)
        norm = steps.norm
        if not walk.budget.untimed_products_left:
            return walk.end_at_limit()
        walk.update_tolerance(H, norm)
        done = walk.gradient_norm <= walk.tol
        uphill = H(walk.g / walk.gradient_norm) if walk.gradient_norm > 0 else walk.g
        walk.budget.count += H.count
        flat = safe_norm(uphill) / norm if norm > 0 else 0.0
        if done and call_certificate(walk.ob, "ray_to_infimum", walk.theta) is not None:
            why = why_no_minimum(walk.ob, walk.theta)
            return walk.stop(4, "no_critical_point", no_minimum_reason=why)
        if done and not (paying and flat > FLAT_GRADIENT_RATIO and walk.allows_step()):
            if walk.is_tol_loose(norm) and _take_undamped_steps(walk):
                paying = True
                continue
            if walk.is_near_critical():
                return walk.stop_at_convergence()
        if not walk.allows_step():
            key = "limit_within_tolerance" if done else "limit_above_tolerance"
            return walk.end_at_limit(key, gradient_tol=float(walk.tol))
        if flat <= FLAT_GRADIENT_RATIO and np.isfinite(norm):
            return walk.stop(3, "plateau", flat_ratio=float(flat))
        slow = (
            len(walk.history) > MAX_STEPS_TO_HALVE_GRADIENT
            and walk.gradient_norm > 0.5 * walk.history[-1 - MAX_STEPS_TO_HALVE_GRADIENT]
        )
        if slow and not done and _take_undamped_steps(walk):
            continue
        before = walk.gradient_norm
        if not _take_gradient_reducing_step(walk, steps, uphill):
            if done and paying:
                paying = False
                continue
            if done and walk.is_near_critical(1.0):
                return walk.stop_at_convergence()
            return walk.stop(2, "no_smaller_gradient")
        paying = paying and walk.gradient_norm <= 0.7 * before if done else paying


def _take_undamped_steps(walk: CriticalPointSearch) -> bool:
    """Take undamped steps that may increase ``||g||``, none longer than ``max(1, ||theta||)``. If
    one of them reaches half of the initial ``||g||`` or less, move to this point and return True.
    Otherwise stay at the initial point and return False. No steps are taken after
    `MAX_UNDAMPED_SERIES` such series.

    The norm of the gradient has valleys and minima at which the gradient is not 0. Descent of the
    norm ends at such points, but Newton's method leaves them.
    """
    theta = walk.theta
    g = walk.g
    walk.excursions -= 1
    for _ in range(MAX_UNDAMPED_STEPS if walk.excursions >= 0 else 0):
        H = walk.hessian(theta) if walk.allows_step() else None
        if H is None:
            return False
        steps = walk.newton_mr_steps(H, g).vectors
        walk.nit += 1
        if not steps or not np.isfinite(steps[0]).all():
            return False
        longest = max(1.0, safe_norm(theta))
        length = max(safe_norm(steps[0]), longest * 1e-300)
        theta = theta + steps[0] * min(1.0, longest / length)
        g = walk.gradient(theta)
        if not np.isfinite(g).all():
            return False
        if safe_norm(g) <= 0.5 * walk.gradient_norm:
            walk.nit -= 1
            walk.move_to(theta, g)
            return True
    return False


def _take_gradient_reducing_step(
    walk: CriticalPointSearch, steps: NewtonMRSteps, uphill: np.ndarray
) -> bool:
    """Take a step that lowers ``||g||``, and return True if there is one. The candidates are the
    Newton-MR steps `steps`, and a step against `uphill`, the product of H with the unit vector of
    the gradient. `uphill` is parallel to the gradient of ``||g||^2``.
    """
    # If ||H|| is unknown, the norm of its product with a unit vector is a lower bound.
    size = steps.norm if 0 < steps.norm < np.inf else safe_norm(uphill)
    if not 0 < size < np.inf:
        return False
    unit = uphill / size
    down = -unit * (walk.gradient_norm / size)
    # The curvature may be so small that the step overflows.
    if not np.isfinite(down).all():
        return False
    tried = NewtonMRSteps([*steps.vectors, down], [*steps.slopes, -float(unit @ unit)], size)
    reduced = reduce_gradient_norm(walk.gradient, walk.theta, walk.gradient_norm, tried)
    if reduced is not None:
        walk.move_to(*reduced)
    return reduced is not None
