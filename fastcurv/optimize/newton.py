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
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..common.checks import check_bool, check_positive
from ..common.linalg import NotFiniteError
from ..common.vectors import CGWorkspace, KrylovSpace, dot, next_radius, norm, reduction_ratio
from ..krylov.solvers import capped_cg
from ..krylov.trust_region import new_krylov_space
from .checkpoint import State
from .line_search import initial_trial_length, line_minimum
from .residual import extend_krylov_space, krylov_newton_mr_steps, reduce_gradient_norm
from .run import Method, check_not_negative, option
from .steps import STEP_DENSE_MAX_N

# maximum size of the basis of a Krylov space, except that at least 8 vectors are always allowed
MAX_SPACE_BYTES = 2**29
MAX_KRYLOV_DIM = 400  # maximum dimension of a Krylov space
# maximum relative residual of a step in a Krylov space, and of one by conjugate gradients
KRYLOV_FORCING = 0.1
CG_FORCING = 0.5
# A subproblem ends once a further product lowers the model by less than this fraction of the mean
# decrease per product of the whole step, its trial included.
COST_WEIGHT = 0.5
# maximum number of steps in one call of a method, after which the loop checks for lack of progress
STEPS_PER_CALL = 10
PROGRESS_INTERVAL_SECONDS = 0.1  # time after which a call ends so that progress can be reported
MAX_REJECTED_STEPS = 100  # maximum number of consecutive rejected steps; then the run ends
MIN_ACCEPT_RATIO = 1e-4  # minimum ratio of actual to predicted decrease of an accepted step
# number of consecutive steps with little decrease, although the model is accurate, after which
# `GaussNewton` uses the Hessian
MAX_SLOW_STEPS = 3


def initial_trust_radius(theta: np.ndarray) -> float:
    """Return the first radius of a trust region at theta, ``0.1 max(1, ||theta||)``."""
    return 0.1 * max(1.0, norm(theta))


def next_cubic_weight(weight: float, ratio: float) -> float:
    """Return the weight of the cubic term after a trial step, whose actual decrease is `ratio`
    times the predicted one.
    """
    if ratio < 0.1:
        return 3 * weight
    return max(weight / 3, 1e-12) if ratio > 0.9 else weight


def next_damping(damping: float, ratio: float, curvature: float) -> float:
    """Return the damping after a trial step, whose actual decrease is `ratio` times the predicted
    one. `curvature` is the largest |eigenvalue| of the projected Hessian.
    """
    if ratio < 0.25:
        return 4 * damping
    return max(damping / 3, 1e-12 * curvature) if ratio > 0.75 else damping


def is_negligible_step(step: np.ndarray, theta: np.ndarray, eps: float) -> bool:
    """Return True if ``theta + step`` equals theta up to rounding."""
    if norm(step) > 2 * eps * (math.sqrt(len(step)) + norm(theta)):
        return False  # some entry is not negligible
    return bool((np.abs(step) <= eps * np.maximum(1.0, np.abs(theta))).all())


def current_cost_weight(run: Any) -> float:
    """Return `COST_WEIGHT`, or 0 after `MAX_INEXACT_ITERATIONS` iterations of the run without
    progress. Directions of small curvature appear late in a Krylov space, so subproblems that are
    solved with few products never contain these directions.
    """
    return 0.0 if run.idle else COST_WEIGHT


class GroupedStepMethod(Method):
    """Base class of methods that take several steps in one call if the engine evaluates the loss,
    because the checks between two calls take as long as a step of a small network.
    """

    # True if the current call of `step` ends after the current step
    ends_call = False

    def max_steps_per_call(self) -> int:
        """Return the maximum number of steps of the next call."""
        run = self.run
        return 1 if run.points is None else min(run.max_steps, STEPS_PER_CALL)

    def step(self) -> str | None:
        """Take one step, or several if the engine evaluates the loss. Return None, or the key in
        `CLAUSES["cause"]` of the reason why no further step was possible.
        """
        run = self.run
        rows = []
        complete = False
        here = run.theta
        start_time = run.elapsed()
        count = self.max_steps_per_call()
        self.ends_call = False
        try:
            while (cause := self._take_step()) is None and run.theta is not here:
                seconds = run.elapsed() - start_time
                rows.append((run.f, run.gnorm, seconds, run.n_products))
                here = run.theta
                if (
                    len(rows) == count
                    or run.cut is not None
                    or self.ends_call
                    or run.f <= run.fun_target
                    or not run.enough < run.gnorm < np.inf
                    or seconds > PROGRESS_INTERVAL_SECONDS
                    or run.is_out_of_budget()
                ):
                    break
            complete = True
        finally:
            # After Ctrl-C, all steps taken so far are complete. If the point has changed but the
            # last step is not in `rows` yet, the step is added here.
            if run.theta is not here:
                rows.append((run.f, run.gnorm, run.elapsed() - start_time, run.n_products))
            run.record_steps(rows, start_time, None, complete)
        return cause

    def _take_step(self) -> str | None:
        """Take one step and return None, or return the key of the reason why there is no step. If
        a budget ends first, return None and leave `run.theta` unchanged.
        """
        raise NotImplementedError


class _KrylovMethod(Method):
    """Base class of methods whose steps are solutions of a small problem in a Krylov space."""

    @dataclass(frozen=True)
    class Options(Method.Options):
        sample: int | None = option(None)  # checked by `minimize`, which passes it to the run

    options: Options
    curvature = "hessian"

    @cached_property
    def max_krylov_dim(self) -> int:
        """The maximum dimension of a Krylov space."""
        n = len(self.run.theta)
        size = self.run.theta.dtype.itemsize
        return min(n, max(8, min(MAX_KRYLOV_DIM, MAX_SPACE_BYTES // (n * int(size)))))

    @cached_property
    def krylov_space(self) -> KrylovSpace:
        """The Krylov space, created on first use and kept for the run."""
        return new_krylov_space(len(self.run.theta), self.run.theta.dtype, self.max_krylov_dim + 2)


class _AdaptiveMethod(_KrylovMethod, GroupedStepMethod):
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

    @dataclass(frozen=True)
    class Options(_KrylovMethod.Options):
        precondition: bool = option(False, check_bool)
        warm_start: bool = option(False, check_bool)

    options: Options
    leaves_saddles = True
    adapts = True
    problem: str  # name of the subproblem in the engine
    parameter: str  # name of the parameter of the subproblem: "radius", "damping" or "weight"
    # the values of the parameters by name; a damping of None is chosen by the first step
    parameters: dict[str, float | None]
    last: np.ndarray | None = None
    row_squares: Any = None
    scale: Any = None
    ratio = -math.inf  # ratio of actual to predicted decrease of the last trial step

    @cached_property
    def trial_step(self) -> np.ndarray:
        """Memory for the trial step."""
        return np.empty_like(self.run.theta)

    def start_krylov_space(self) -> None:
        run = self.run
        further_starts = [] if self.last is None else [self.last]
        if not self.options.precondition:
            self.krylov_space.start(run.product, run.g, further_starts)
            return
        self._update_row_scaling()
        scale = self.scale
        self.krylov_space.start(
            self._scaled_product, run.g * scale, [v / scale for v in further_starts]
        )

    def _update_row_scaling(self) -> None:
        run = self.run
        first = self.row_squares is None
        squares = np.zeros(len(run.theta)) if first else self.row_squares
        for i in range(4 if first else 1):
            v = (2 * run.rng.integers(0, 2, len(run.theta)) - 1).astype(run.theta.dtype)
            product = np.square(run.product(v, np.empty_like(v)), dtype=np.float64)
            squares += (1.0 / (i + 1) if first else 0.05) * (product - squares)
        self.row_squares = squares
        mean = float(squares.mean()) or 1.0
        self.scale = ((squares / mean + 1e-6) ** -0.25).astype(run.theta.dtype)

    def _scaled_product(self, v: np.ndarray, out: Any) -> None:
        self.run.product(v * self.scale, out)
        out *= self.scale

    def max_steps_per_call(self) -> int:
        if self.options.precondition or self.options.warm_start:
            return 1
        return super().max_steps_per_call()

    def _take_step(self) -> str | None:
        run = self.run
        space = self.krylov_space
        step = self.trial_step
        parameter = self.parameters[self.parameter]
        try:
            self.start_krylov_space()
            tolerance = min(KRYLOV_FORCING, math.sqrt(run.gnorm)) * space.gamma
            cost_weight = current_cost_weight(run)
            step_cost = run.step_cost()
            for _ in range(MAX_REJECTED_STEPS):
                length, predicted, bounded, parameter = space.solve(
                    self.problem, parameter, tolerance, self.max_krylov_dim, run.is_out_of_budget,
                    cost_weight, step_cost, step,
                )  # fmt: skip
                if self.options.precondition:
                    step *= self.scale
                if not (predicted > 0 and math.isfinite(length)):
                    return "no_reduction"
                np.add(run.theta, step, out=run.spare)
                f = run.value(run.spare)
                self.ratio = ratio = reduction_ratio(run.f, f, predicted, run.eps)
                if self.problem == "trust-region":
                    parameter = next_radius(parameter, ratio, length, bounded)
                elif self.problem == "cubic":
                    parameter = next_cubic_weight(parameter, ratio)
                else:
                    parameter = next_damping(parameter, ratio, space.max_abs_eigenvalue)
                if ratio > MIN_ACCEPT_RATIO:
                    run.accept_trial_point()
                    if self.options.warm_start:
                        self.last = step.copy()
                    return None
                if is_negligible_step(step, run.theta, run.eps):
                    return "tiny_steps"
                if run.cut is not None:
                    return None
        except NotFiniteError:
            return "overflow"
        finally:
            self.parameters[self.parameter] = parameter
        return "refused_steps"

    def state(self) -> State:
        arrays = {"last": self.last, "row_squares": self.row_squares}
        present = {name: x.copy() for name, x in arrays.items() if x is not None}
        return present, dict(self.parameters)

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        self.last = arrays.get("last")
        self.row_squares = arrays.get("row_squares")
        self.parameters = {name: facts[name] for name in self.parameters}


class TrustRegion(_AdaptiveMethod):
    """Trust-region steps by GLTR: minimisers of the quadratic model in the Krylov space within the
    radius, including the hard case.
    """

    @dataclass(frozen=True)
    class Options(_AdaptiveMethod.Options):
        radius: float | None = option(None, check_positive)

    options: Options
    problem = "trust-region"
    parameter = "radius"

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.parameters = {"radius": self.options.radius or initial_trust_radius(run.theta)}


class CubicRegularization(_AdaptiveMethod):
    """Adaptive cubic regularisation (Cartis, Gould and Toint 2011): steps that minimise the
    quadratic model plus ``weight ||s||^3 / 3`` in the Krylov space.
    """

    @dataclass(frozen=True)
    class Options(_AdaptiveMethod.Options):
        weight: float = option(1.0, check_positive)

    options: Options
    problem = "cubic"
    parameter = "weight"

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.parameters = {"weight": self.options.weight}


class SaddleFreeNewton(_AdaptiveMethod):
    """Saddle-free Newton, ``(|T| + damping) y = -c``: steps as long as Newton's, but downhill along
    every eigenvector (Dauphin et al. 2014). The damping is increased if the model predicted too
    large a decrease, and reduced if the prediction was right.
    """

    @dataclass(frozen=True)
    class Options(_AdaptiveMethod.Options):
        damping: float | None = option(None, check_positive)

    options: Options
    problem = "absolute"
    parameter = "damping"

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.parameters = {"damping": self.options.damping}


class GaussNewton(SaddleFreeNewton):
    """Levenberg-Marquardt on the generalised Gauss-Newton matrix, which has no negative curvature,
    and on the Hessian H near the end.

    If the residuals do not vanish at the minimum, steps with the GGN converge only linearly. After
    three steps in a row with a good model that lowered the loss by less than a thousandth and did
    not halve the gradient, the curvature is that of H, in absolute values as in `SaddleFreeNewton`;
    the GGN returns once a step lowers the loss by more than a hundredth.
    """

    curvature = "ggn"
    problem = "clipped"
    exact = False  # True if the curvature is H and not the Gauss-Newton matrix
    # number of consecutive steps that hardly lowered the loss, in the sense of the class docstring
    slow = 0

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        # These steps need no Hessian of the objective, but the search for negative curvature does.
        self.leaves_saddles = hasattr(run.ob, "hessian")

    def state(self) -> State:
        arrays, facts = super().state()
        return arrays, facts | {"exact": self.exact, "slow": self.slow}

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        super().load(arrays, facts)
        self.slow = facts["slow"]
        if facts["exact"]:
            self._set_curvature("hessian")

    def _take_step(self) -> str | None:
        run = self.run
        before = run.theta
        loss = run.f
        gradient_norm = run.gnorm
        cause = super()._take_step()
        if cause is not None or run.theta is before or run.cut is not None:
            return cause
        decrease = loss - run.f
        slow = decrease < 1e-3 * abs(loss) and run.gnorm > 0.5 * gradient_norm
        self.slow = self.slow + 1 if slow and self.ratio > 0.75 else 0
        self.ends_call = self.leaves_saddles and (
            decrease > 1e-2 * abs(loss) if self.exact else self.slow >= MAX_SLOW_STEPS
        )
        if self.ends_call:
            self._set_curvature("ggn" if self.exact else "hessian")
        return None

    def _set_curvature(self, curvature: str) -> None:
        """From the next step on, use the curvature matrix of the given name, ``hessian`` or
        ``ggn``.
        """
        self.exact = curvature == "hessian"
        self.run.curvature = curvature
        self.problem = "absolute" if self.exact else "clipped"
        self.run.bind_operator()


class Newton(_KrylovMethod):
    """Newton's method, ``(H + damping) s = -g``, always with the full step. It converges to a
    nearby critical point of any kind.
    """

    @dataclass(frozen=True)
    class Options(_KrylovMethod.Options):
        damping: float = option(0.0, check_not_negative)

    options: Options

    def step(self) -> str | None:
        run = self.run
        space = self.krylov_space
        space.start(run.product, run.g, [])
        step = np.empty_like(run.theta)
        if len(step) <= STEP_DENSE_MAX_N:
            tolerance = 1e-12 * run.gnorm
        else:
            tolerance = min(KRYLOV_FORCING, run.gnorm**0.5) * space.gamma
        space.solve(
            "shifted", self.options.damping, tolerance, self.max_krylov_dim, run.is_out_of_budget,
            0.0, run.step_cost(), step,
        )  # fmt: skip
        if not np.isfinite(run.try_step(step)):
            return "not_finite"
        run.accept_trial_point()
        return None


class DampedNewton(Newton):
    """Newton's method with the constant `damping` added to every eigenvalue. It still converges to
    saddles whose negative eigenvalues are all below ``-2 damping``.
    """

    @dataclass(frozen=True)
    class Options(Newton.Options):
        damping: float = option(1e-3, check_not_negative)

    options: Options


# --------------------------------------------------------------------------------------------------
# Newton-CG with capped conjugate gradients, which return directions of negative curvature as steps.

MAX_INITIAL_SHIFT = 1e-6  # maximum shift of the Hessian while no curvature is known


class NewtonCG(GroupedStepMethod):
    """Newton-CG: conjugate gradients on the shifted Hessian, capped where they meet negative
    curvature, followed by a line search along the result.

    The shift is ``eps = sqrt(weight ||g||)``, so that steps approach Newton's steps as the gradient
    vanishes. `weight` decreases after full steps and increases after shortened ones.
    """

    @dataclass(frozen=True)
    class Options(Method.Options):
        weight: float | None = option(None, check_positive)
        sample: int | None = option(None)  # checked by `minimize`, which passes it to the run

    options: Options
    curvature = "hessian"
    leaves_saddles = True

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.weight = self.options.weight
        self.bound = 0.0
        self.reach: float | None = None
        self.work = CGWorkspace(len(run.theta), run.theta.dtype)

    def _take_step(self) -> str | None:
        run = self.run
        weight = self._initial_weight() if self.weight is None else self.weight
        eps = np.sqrt(weight * run.gnorm)
        d, curvature, self.bound = capped_cg(
            run.product, run.g, eps, min(CG_FORCING, np.sqrt(run.gnorm)), self.work,
            bound=self.bound, stop=run.is_out_of_budget,
            cost_weight=current_cost_weight(run), price=run.step_cost(),
        )  # fmt: skip
        moved = (
            self._search_negative_curvature(d)
            if curvature is not None
            else self._descend(d, weight)
        )
        # No step lowers the loss, so the quadratic model is wrong, as it can be at a kink. A step
        # against the gradient is tried instead.
        if not moved:
            down = run.g * run.theta.dtype.type(-1.0 / max(self.bound, 1e-300))
            if self._backtrack(down) is None:
                return "no_lower_loss"
        run.accept_trial_point()
        return None

    def _min_shift(self) -> float:
        """Return the minimum shift while the curvature is unknown: `MAX_INITIAL_SHIFT`, or the
        gradient norm if that is smaller.
        """
        return float(max(min(MAX_INITIAL_SHIFT, self.run.gnorm), 1e-140))

    def _initial_weight(self) -> float:
        """Measure the curvature along the gradient by a product, and return and store the weight
        for which the first shift is 1% of this curvature.
        """
        run = self.run
        self.bound = norm(run.product(run.g, self.work.Hp)) / norm(run.g)
        shift = max(min(0.01 * self.bound, 1e150), self._min_shift())
        self.weight = weight = float(shift**2 / run.gnorm)
        return weight

    # --- steps, each of which leaves its point in `run.spare`

    def _descend(self, d: np.ndarray, weight: float) -> bool:
        """Backtrack from the full step d, adapt the weight, and return False if no lower value is
        found. The smallest weight gives a shift of 1e-7 times the measured curvature, times
        ``sqrt(||g||)`` if that is below 1.
        """
        t = self._backtrack(d)
        if t is not None:
            size = min(max(self.bound, self._min_shift()), 1e150)
            least = float(1e-14 * size**2 / max(1.0, self.run.gnorm))
            self.weight = weight * 4.0 if t < 1.0 else max(weight * 0.25, least)
        return t is not None

    def _backtrack(self, d: np.ndarray) -> float | None:
        """Return the first fraction of d tried at which the loss decreases by at least 1e-4 of the
        decrease predicted by the slope, and leave that point in `run.spare`. Return None if no
        fraction satisfies this.
        """
        run = self.run
        slope = dot(self.run.g, d)
        noise = 10.0 * run.eps * abs(run.f)
        t = 1.0
        for _ in range(60 if slope < 0 else 0):
            f = run.try_step(d, t)
            if f <= run.f + 1e-4 * t * slope + noise:
                return t
            fitted = -0.5 * slope * t * t / (f - run.f - slope * t) if np.isfinite(f) else 0.0
            t = min(max(fitted, 0.1 * t), 0.5 * t)
        return None

    def state(self) -> State:
        return {}, {"weight": self.weight, "bound": self.bound, "reach": self.reach}

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        self.weight = facts["weight"]
        self.bound = facts["bound"]
        self.reach = facts["reach"]

    def _search_negative_curvature(self, d: np.ndarray) -> bool:
        """Search for the lowest point along d, a direction of negative curvature, on the downhill
        side. The step length comes from a line search, since the length of the Newton step is not
        suitable for negative curvature. Return False if no lower value is found.
        """
        run = self.run
        d *= d.dtype.type((-1.0 if dot(run.g, d) > 0 else 1.0) / norm(d))
        start = self.reach or initial_trial_length(run.theta)
        t, f = line_minimum(run.value, run.theta, d, run.f, start, refinements=2, signs=(1.0,))
        if not f < run.f:
            return False
        self.reach = t
        run.set_spare(d, t)
        return True


# --------------------------------------------------------------------------------------------------
# Newton-MR: minimum-residual steps, which lower the gradient norm and need only invexity.


class NewtonMR(_KrylovMethod):
    """Least-squares Newton steps with a line search on the gradient norm, which lead to the nearest
    critical point.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu, M. W. Mahoney, Newton-MR: inexact Newton method with minimum
           residual sub-problem solver, EURO J. Comput. Optim. 10 (2022).
    """

    def step(self) -> str | None:
        run = self.run
        space = self.krylov_space
        space.start(run.product, run.g, [])
        tolerance = min(KRYLOV_FORCING, np.sqrt(run.gnorm))
        extend_krylov_space(space, tolerance, self.max_krylov_dim, run.is_out_of_budget)
        steps = krylov_newton_mr_steps(space)
        if not any(slope < 0 for slope in steps.slopes):
            return "orthogonal_gradient"
        reduced = reduce_gradient_norm(
            lambda theta: run.value_and_gradient(theta)[1], run.theta, run.gnorm, steps
        )
        if reduced is None:
            return "no_smaller_gradient"
        np.copyto(run.spare, reduced[0])
        run.accept_trial_point()
        return None
