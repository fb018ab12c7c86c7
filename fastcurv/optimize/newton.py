"""Newton's method and variants that escape from saddles. Each builds one Krylov space at each
point. The methods differ in the small problem that is solved in this space.

With Q the basis of a Krylov space from g (as rows), T = Q H Q' and c = Q g, a step is ``s = Q' y``
with

    newton                (T + damping) y = -c                  taken as it is
    newton-mr             min ||(T; E) y + c||                  line search on the gradient's norm
    saddle-free-newton    (|T| + damping) y = -c                damping from the ratio of reductions
    gauss-newton          (T + damping) y = -c, T of the GGN    the same; at the end T of H
    trust-region          min c'y + y'Ty/2, ||y|| <= radius     radius from the ratio
    cubic                 min c'y + y'Ty/2 + weight ||y||^3/3   weight from the ratio

The space grows until the residual of the step is below ``min(0.1, sqrt(||g||)) ||g||``, or the next
product costs more than it gains. After a rejected step the problem is solved again in the same
space, so a change of radius, damping or weight costs no product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..common.checks import check_bool, check_positive
from ..common.linalg import NotFiniteError
from ..common.vectors import CGWorkspace, KrylovSpace, dot, next_radius, norm, reduction_ratio
from ..krylov.solvers import capped_cg
from ..krylov.trust_region import new_krylov_space
from .line_search import initial_trial_length, line_minimum
from .method import Limits, Method, State, array, check_not_negative, option, workspace
from .problem import Problem
from .residual import extend_krylov_space, krylov_newton_mr_steps, reduce_gradient_norm
from .steps import STEP_DENSE_MAX_N

SAMPLE_DOC = "number of rows of the curvature, drawn again at each point; by default all rows"
# maximum size of the basis of a Krylov space, except that at least 8 vectors are always allowed
MAX_SPACE_BYTES = 2**29
MAX_KRYLOV_DIM = 400  # maximum dimension of a Krylov space
# maximum relative residual of a step in a Krylov space, and of one by conjugate gradients
KRYLOV_FORCING = 0.1
CG_FORCING = 0.5
# A subproblem ends once a further product lowers the model by less than this fraction of the mean
# decrease per product of the whole step, its trial included.
COST_WEIGHT = 0.5
MAX_REJECTED_STEPS = 100  # maximum number of consecutive rejected steps; then the run ends
MIN_ACCEPT_RATIO = 1e-4  # minimum ratio of actual to predicted decrease of an accepted step
# number of consecutive steps with little decrease, although the model is accurate, after which
# `GaussNewton` uses the Hessian
MAX_SLOW_STEPS = 3


def initial_trust_radius(theta: np.ndarray) -> float:
    """Return the first radius of a trust region at theta, ``0.1 max(1, ||theta||)``."""
    return 0.1 * max(1.0, norm(theta))


def is_negligible_step(step: np.ndarray, theta: np.ndarray, eps: float) -> bool:
    """Return True if ``theta + step`` equals theta up to rounding."""
    if norm(step) > 2 * eps * (math.sqrt(len(step)) + norm(theta)):
        return False  # some entry is not negligible
    return bool((np.abs(step) <= eps * np.maximum(1.0, np.abs(theta))).all())


class Subproblem(NamedTuple):
    """How a step is computed from a Krylov space.

    Attributes
    ----------
    model : str
        Name of the engine's solver.
    name : str
        Field of the state that holds the parameter: a radius, a damping or a weight.
    adapt : callable
        ``adapt(parameter, ratio, length, bounded, curvature)`` returns the parameter after a trial
        step: the ratio of its actual to the predicted decrease of the loss, its length, whether a
        radius bounded it, and the largest |eigenvalue| of the projected Hessian.
    """

    model: str
    name: str
    adapt: Callable[[float, float, float, bool, float], float]


def _next_radius(radius: float, ratio: float, length: float, bounded: bool, _: float) -> float:
    return float(next_radius(radius, ratio, length, bounded))


def _next_weight(weight: float, ratio: float, *_: float) -> float:
    if ratio < 0.1:
        return 3 * weight
    return max(weight / 3, 1e-12) if ratio > 0.9 else weight


def _next_damping(damping: float, ratio: float, _: float, __: bool, curvature: float) -> float:
    if ratio < 0.25:
        return 4 * damping
    return max(damping / 3, 1e-12 * curvature) if ratio > 0.75 else damping


BY_RADIUS = Subproblem("trust-region", "radius", _next_radius)
BY_WEIGHT = Subproblem("cubic", "weight", _next_weight)
BY_ABSOLUTE_VALUES = Subproblem("absolute", "damping", _next_damping)
BY_CLIPPED_VALUES = Subproblem("clipped", "damping", _next_damping)


@cache
def roundoff(dtype: np.dtype) -> float:
    """Return the relative spacing of floating-point numbers of this dtype."""
    return float(np.finfo(dtype).eps)


@cache
def max_krylov_dim(n: int, itemsize: int) -> int:
    """Return the maximum dimension of a Krylov space of vectors of n numbers."""
    return min(n, max(8, min(MAX_KRYLOV_DIM, MAX_SPACE_BYTES // (n * itemsize))))


@dataclass(frozen=True)
class KrylovState(State):
    """The state of a method with Krylov spaces.

    Attributes
    ----------
    radius, damping, weight : float or None
        The parameter of the subproblem. A damping of None is chosen by the first step.
    last : ndarray (n,) or None
        The last step, with `warm_start`.
    row_squares : ndarray (n,) or None
        Estimates of the squared norms of the Hessian's rows, with `precondition`.
    ratio : float
        Ratio of actual to predicted decrease of the last step.
    """

    radius: float | None = None
    damping: float | None = None
    weight: float | None = None
    last: np.ndarray | None = array()
    row_squares: np.ndarray | None = array()
    ratio: float = workspace(default=-math.inf)
    space: KrylovSpace | None = workspace()


@dataclass(frozen=True)
class _KrylovMethod(Method):
    """Base class of methods whose steps are solutions of a small problem in a Krylov space."""

    sample: int | None = option(None, None, SAMPLE_DOC)  # checked by `minimize`
    curvature: ClassVar[str | None] = "hessian"

    def init(self, problem: Problem, theta: np.ndarray) -> KrylovState:
        return KrylovState(theta, *problem.evaluate(theta, self.curvature))

    @staticmethod
    def space_at(state: KrylovState) -> KrylovSpace:
        """Return the workspace of the state, or a new one."""
        if state.space is not None:
            space: KrylovSpace = state.space
            return space
        theta = state.theta
        limit = max_krylov_dim(theta.size, theta.dtype.itemsize)
        return new_krylov_space(theta.size, theta.dtype, limit + 2)


@dataclass(frozen=True)
class _AdaptiveMethod(_KrylovMethod):
    """Base class of methods that repeat four steps: grow a Krylov space, solve a subproblem in this
    space, try the step, and adapt the radius, damping or weight.

    Two options help large networks, in which the curvature of different layers differs by orders of
    magnitude. With `precondition`, the Krylov space is that of ``D H D`` from ``D g``, steps are
    ``D Q' y``, and lengths, dampings and radii are measured in these coordinates. ``D = r^-1/2``,
    where r is the root mean square of Hv over random sign vectors v, which estimates the norms of
    the rows of H [1]_. This mean is taken over about the last 20 points and costs one product each
    (4 at the first point). With `warm_start`, the last step is a second start vector of the next
    space, which costs one product.

    References
    ----------
    .. [1] Z. Yao et al., AdaHessian: an adaptive second order optimizer for machine learning, AAAI
           2021.
    """

    precondition: bool = option(
        False, check_bool, "scale by the norms of the Hessian's rows, which helps large networks"
    )
    warm_start: bool = option(False, check_bool, "start each Krylov space from the last step, too")
    adapts: ClassVar[bool] = True

    def leaves_saddles(self, problem: Problem) -> bool:
        return True

    def subproblem(self, problem: Problem, state: State) -> Subproblem:
        """Return the subproblem of the next step."""
        raise NotImplementedError

    def max_steps(self, problem: Problem, limits: Limits) -> int:
        plain = not (self.precondition or self.warm_start)
        return super().max_steps(problem, limits) if plain else 1

    def take_step(self, problem: Problem, state: Any, limits: Limits) -> Any:
        model, name, adapt = self.subproblem(problem, state)
        parameter = getattr(state, name)
        theta = state.theta
        eps = roundoff(theta.dtype)
        limit = max_krylov_dim(theta.size, theta.dtype.itemsize)
        space = self.space_at(state)
        step = np.empty_like(theta)
        squares = scale = None
        cause: str | None = "refused_steps"
        try:
            if self.precondition:
                squares, scale = self._row_scaling(problem, state)
            _start_space(space, problem, state, scale)
            tolerance = min(KRYLOV_FORCING, math.sqrt(state.gnorm)) * space.gamma
            cost_weight = 0.0 if limits.accurate else COST_WEIGHT
            step_cost = problem.step_cost()
            for _ in range(MAX_REJECTED_STEPS):
                length, predicted, bounded, parameter = space.solve(
                    model, parameter, tolerance, limit, problem.is_out_of_budget,
                    cost_weight, step_cost, step,
                )  # fmt: skip
                if scale is not None:
                    step *= scale
                if not (predicted > 0 and math.isfinite(length)):
                    cause = "no_reduction"
                    break
                trial = theta + step
                f = problem.value(trial)
                ratio = reduction_ratio(state.f, f, predicted, eps)
                parameter = adapt(parameter, ratio, length, bounded, space.max_abs_eigenvalue)
                if ratio > MIN_ACCEPT_RATIO:
                    values = problem.move_to(trial, self.kind(state), f)
                    last = step if self.warm_start else None
                    kept = {name: parameter, "last": last, "row_squares": squares}
                    return state.moved_to(trial, values, ratio=ratio, space=space, **kept)
                if is_negligible_step(step, theta, eps):
                    cause = "tiny_steps"
                    break
                if problem.cut is not None:
                    cause = None
                    break
        except NotFiniteError:
            cause = "overflow"
        kept = {name: parameter, "row_squares": squares}
        return state.replace(cause=cause, space=space, **kept)

    @staticmethod
    def _row_scaling(problem: Problem, state: KrylovState) -> tuple[np.ndarray, np.ndarray]:
        """Return new estimates (n,) of the squared norms of the Hessian's rows, and D (n,)."""
        n = state.theta.size
        kind = state.theta.dtype
        before = state.row_squares
        first = before is None
        squares = np.zeros(n) if before is None else before.copy()
        for i in range(4 if first else 1):
            v = (2 * problem.rng.integers(0, 2, n) - 1).astype(kind)
            product = np.square(problem.product(v, np.empty_like(v)), dtype=np.float64)
            squares += (1.0 / (i + 1) if first else 0.05) * (product - squares)
        mean = float(squares.mean()) or 1.0
        return squares, ((squares / mean + 1e-6) ** -0.25).astype(kind)


def _start_space(
    space: KrylovSpace, problem: Problem, state: KrylovState, scale: np.ndarray | None
) -> None:
    """Start the Krylov space of the gradient, in coordinates scaled by `scale` if it is given."""
    starts = [] if state.last is None else [state.last]
    if scale is None:
        space.start(problem.product, state.g, starts)
        return

    def scaled_product(v: np.ndarray, out: np.ndarray) -> None:
        problem.product(v * scale, out)
        out *= scale

    space.start(scaled_product, state.g * scale, [v / scale for v in starts])


@dataclass(frozen=True)
class TrustRegion(_AdaptiveMethod):
    """Trust-region steps by GLTR: minimisers of the quadratic model in the Krylov space within the
    radius, including the hard case.
    """

    radius: float | None = option(
        None, check_positive, "first radius; by default ``0.1 max(1, ||theta||)``"
    )

    def init(self, problem: Problem, theta: np.ndarray) -> KrylovState:
        radius = self.radius or initial_trust_radius(theta)
        return super().init(problem, theta).replace(radius=radius)

    def subproblem(self, problem: Problem, state: State) -> Subproblem:
        return BY_RADIUS


@dataclass(frozen=True)
class CubicRegularization(_AdaptiveMethod):
    """Adaptive cubic regularisation (Cartis, Gould and Toint 2011): steps that minimise the
    quadratic model plus ``weight ||s||^3 / 3`` in the Krylov space.
    """

    weight: float = option(1.0, check_positive, "first weight of the cubic term")

    def init(self, problem: Problem, theta: np.ndarray) -> KrylovState:
        return super().init(problem, theta).replace(weight=self.weight)

    def subproblem(self, problem: Problem, state: State) -> Subproblem:
        return BY_WEIGHT


@dataclass(frozen=True)
class SaddleFreeNewton(_AdaptiveMethod):
    """Saddle-free Newton, ``(|T| + damping) y = -c``: steps as long as Newton's, but downhill along
    every eigenvector (Dauphin et al. 2014). The damping is increased if the model predicted too
    large a decrease, and reduced if the prediction was right.
    """

    damping: float | None = option(
        None, check_positive, "first damping; by default chosen by the first step"
    )

    def init(self, problem: Problem, theta: np.ndarray) -> KrylovState:
        return super().init(problem, theta).replace(damping=self.damping)

    def subproblem(self, problem: Problem, state: State) -> Subproblem:
        return BY_ABSOLUTE_VALUES


@dataclass(frozen=True)
class GaussNewtonState(KrylovState):
    """The state of `GaussNewton`.

    Attributes
    ----------
    exact : bool
        True if the curvature is H and not the Gauss-Newton matrix.
    slow : int
        Number of consecutive steps that hardly lowered the loss.
    """

    exact: bool = False
    slow: int = 0


@dataclass(frozen=True)
class GaussNewton(_AdaptiveMethod):
    """Levenberg-Marquardt on the generalised Gauss-Newton matrix, which has no negative curvature,
    and on the Hessian H near the end.

    If the residuals do not vanish at the minimum, steps with the GGN converge only linearly. After
    three steps in a row with a good model that lowered the loss by less than a thousandth and did
    not halve the gradient, the curvature is that of H, in absolute values as in `SaddleFreeNewton`;
    the GGN returns once a step lowers the loss by more than a hundredth.
    """

    damping: float | None = option(
        None, check_positive, "first damping; by default chosen by the first step"
    )
    curvature: ClassVar[str | None] = "ggn"

    def leaves_saddles(self, problem: Problem) -> bool:
        # These steps need no Hessian of the objective, but the search for negative curvature does.
        return hasattr(problem.ob, "hessian")

    def init(self, problem: Problem, theta: np.ndarray) -> GaussNewtonState:
        values = problem.evaluate(theta, self.curvature)
        return GaussNewtonState(theta, *values, damping=self.damping)

    def kind(self, state: Any) -> str | None:
        return "hessian" if state.exact else "ggn"

    def subproblem(self, problem: Problem, state: Any) -> Subproblem:
        return BY_ABSOLUTE_VALUES if state.exact else BY_CLIPPED_VALUES

    def take_step(self, problem: Problem, state: Any, limits: Limits) -> Any:
        new = super().take_step(problem, state, limits)
        if new.theta is state.theta or problem.cut is not None:
            return new
        decrease = state.f - new.f
        is_slow = decrease < 1e-3 * abs(state.f) and new.gnorm > 0.5 * state.gnorm
        slow = state.slow + 1 if is_slow and new.ratio > 0.75 else 0
        changes = self.leaves_saddles(problem) and (
            decrease > 1e-2 * abs(state.f) if state.exact else slow >= MAX_SLOW_STEPS
        )
        if slow == state.slow and not changes:
            return new
        return new.replace(slow=slow, exact=state.exact != changes)


@dataclass(frozen=True)
class Newton(_KrylovMethod):
    """Newton's method, ``(H + damping) s = -g``, always with the full step. It converges to a
    nearby critical point of any kind.
    """

    damping: float = option(0.0, check_not_negative, "added to every eigenvalue")

    def take_step(self, problem: Problem, state: Any, limits: Limits) -> Any:
        space = self.space_at(state)
        theta = state.theta
        space.start(problem.product, state.g, [])
        limit = max_krylov_dim(theta.size, theta.dtype.itemsize)
        step = np.empty_like(theta)
        if len(step) <= STEP_DENSE_MAX_N:
            tolerance = 1e-12 * state.gnorm
        else:
            tolerance = min(KRYLOV_FORCING, state.gnorm**0.5) * space.gamma
        space.solve(
            "shifted", self.damping, tolerance, limit, problem.is_out_of_budget,
            0.0, problem.step_cost(), step,
        )  # fmt: skip
        trial = theta + step
        f = problem.value(trial)
        if not np.isfinite(f):
            return state.replace(cause="not_finite")
        return state.moved_to(trial, problem.move_to(trial, self.curvature, f), space=space)


@dataclass(frozen=True)
class DampedNewton(Newton):
    """Newton's method with the constant `damping` added to every eigenvalue. It still converges to
    saddles whose negative eigenvalues are all below ``-2 damping``.
    """

    damping: float = option(1e-3, check_not_negative, "added to every eigenvalue")


# --------------------------------------------------------------------------------------------------
# Newton-CG with capped conjugate gradients, which return directions of negative curvature as steps.

MAX_INITIAL_SHIFT = 1e-6  # maximum shift of the Hessian while no curvature is known


@dataclass(frozen=True)
class NewtonCGState(State):
    """The state of `NewtonCG`.

    Attributes
    ----------
    weight : float or None
        The weight of the shift; None before the first step.
    bound : float
        Largest curvature seen.
    reach : float or None
        Length of the last step along negative curvature.
    """

    weight: float | None = None
    bound: float = 0.0
    reach: float | None = None
    work: CGWorkspace | None = workspace()


@dataclass(frozen=True)
class NewtonCG(Method):
    """Newton-CG: conjugate gradients on the shifted Hessian, capped where they meet negative
    curvature, followed by a line search along the result.

    The shift is ``eps = sqrt(weight ||g||)``, so that steps approach Newton's steps as the gradient
    vanishes. `weight` decreases after full steps and increases after shortened ones.
    """

    weight: float | None = option(
        None, check_positive, "first weight of the shift ``sqrt(weight ||g||)``"
    )
    sample: int | None = option(None, None, SAMPLE_DOC)  # checked by `minimize`
    curvature: ClassVar[str | None] = "hessian"

    def leaves_saddles(self, problem: Problem) -> bool:
        return True

    def init(self, problem: Problem, theta: np.ndarray) -> NewtonCGState:
        values = problem.evaluate(theta, self.curvature)
        work = CGWorkspace(theta.size, theta.dtype)
        return NewtonCGState(theta, *values, weight=self.weight, work=work)

    def take_step(self, problem: Problem, state: Any, limits: Limits) -> Any:
        bound, weight = state.bound, state.weight
        if weight is None:
            # The first shift is 1% of the curvature along the gradient.
            bound = norm(problem.product(state.g, state.work.Hp)) / norm(state.g)
            shift = max(min(0.01 * bound, 1e150), _min_shift(state))
            weight = float(shift**2 / state.gnorm)
        d, curvature, bound = capped_cg(
            problem.product, state.g, np.sqrt(weight * state.gnorm),
            min(CG_FORCING, np.sqrt(state.gnorm)), state.work, bound=bound,
            stop=problem.is_out_of_budget, cost_weight=0.0 if limits.accurate else COST_WEIGHT,
            price=problem.step_cost(),
        )  # fmt: skip
        reach = state.reach
        if curvature is not None:
            t, trial = _negative_curvature_step(problem, state, d)
            reach = reach if trial is None else t
        else:
            t, trial = _backtrack(problem, state, d)
            if trial is not None:
                # The smallest weight gives a shift of 1e-7 times the measured curvature, times
                # ``sqrt(||g||)`` if that is below 1.
                size = min(max(bound, _min_shift(state)), 1e150)
                least = float(1e-14 * size**2 / max(1.0, state.gnorm))
                weight = weight * 4.0 if t < 1.0 else max(weight * 0.25, least)
        # If no step lowers the loss, the quadratic model is wrong, as it can be at a kink. A step
        # against the gradient is tried instead.
        if trial is None:
            down = state.g * state.theta.dtype.type(-1.0 / max(bound, 1e-300))
            trial = _backtrack(problem, state, down)[1]
        kept = {"weight": weight, "bound": bound, "reach": reach}
        if trial is None:
            return state.replace(cause="no_lower_loss", **kept)
        return state.moved_to(trial, problem.move_to(trial, self.curvature), **kept)


def _min_shift(state: State) -> float:
    """Return the minimum shift while the curvature is unknown: `MAX_INITIAL_SHIFT`, or the gradient
    norm if that is smaller.
    """
    return float(max(min(MAX_INITIAL_SHIFT, state.gnorm), 1e-140))


def _point_on_line(theta: np.ndarray, d: np.ndarray, t: float) -> np.ndarray:
    point: np.ndarray = np.multiply(d, float(t))
    point += theta
    return point


def _backtrack(problem: Problem, state: State, d: np.ndarray) -> tuple[float, np.ndarray | None]:
    """Return the first fraction of d tried at which the loss decreases by at least 1e-4 of the
    decrease predicted by the slope, and that point, or 0 and None if no fraction satisfies this.
    """
    slope = dot(state.g, d)
    noise = 10.0 * roundoff(state.theta.dtype) * abs(state.f)
    t = 1.0
    for _ in range(60 if slope < 0 else 0):
        trial = _point_on_line(state.theta, d, t)
        f = problem.value(trial)
        if f <= state.f + 1e-4 * t * slope + noise:
            return t, trial
        fitted = -0.5 * slope * t * t / (f - state.f - slope * t) if np.isfinite(f) else 0.0
        t = min(max(fitted, 0.1 * t), 0.5 * t)
    return 0.0, None


def _negative_curvature_step(
    problem: Problem, state: NewtonCGState, d: np.ndarray
) -> tuple[float, np.ndarray | None]:
    """Search for the lowest point along d, a direction of negative curvature, on the downhill side.
    The step length comes from a line search, since the length of the Newton step is not suitable
    for negative curvature. Return the length and the point, or 0 and None if no value is lower.
    """
    d *= d.dtype.type((-1.0 if dot(state.g, d) > 0 else 1.0) / norm(d))
    start = state.reach or initial_trial_length(state.theta)
    t, f = line_minimum(problem.value, state.theta, d, state.f, start, refinements=2, signs=(1.0,))
    return (t, _point_on_line(state.theta, d, t)) if f < state.f else (0.0, None)


# --------------------------------------------------------------------------------------------------
# Newton-MR: minimum-residual steps, which lower the gradient norm and need only invexity.


@dataclass(frozen=True)
class NewtonMR(_KrylovMethod):
    """Least-squares Newton steps with a line search on the gradient norm, which lead to the nearest
    critical point.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu, M. W. Mahoney, Newton-MR: inexact Newton method with minimum
           residual sub-problem solver, EURO J. Comput. Optim. 10 (2022).
    """

    def take_step(self, problem: Problem, state: Any, limits: Limits) -> Any:
        space = self.space_at(state)
        space.start(problem.product, state.g, [])
        tolerance = min(KRYLOV_FORCING, np.sqrt(state.gnorm))
        limit = max_krylov_dim(state.theta.size, state.theta.dtype.itemsize)
        extend_krylov_space(space, tolerance, limit, problem.is_out_of_budget)
        steps = krylov_newton_mr_steps(space)
        if not any(slope < 0 for slope in steps.slopes):
            return state.replace(cause="orthogonal_gradient")
        reduced = reduce_gradient_norm(
            lambda theta: problem.value_and_gradient(theta)[1], state.theta, state.gnorm, steps
        )
        if reduced is None:
            return state.replace(cause="no_smaller_gradient")
        return state.moved_to(reduced[0], problem.move_to(reduced[0], self.curvature), space=space)
