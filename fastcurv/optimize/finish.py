"""The end of a run, where the gradient is zero: what may be claimed of the point, and whether the
loss falls further from it.

In order: a proved ray to an infimum at infinity; Newton steps with a gradient in extended
precision; the verdict of `classify`; a move along proved negative curvature, if there is any; and
where eigenvalues remain undecided at zero, trial moves along their eigenvectors. Each round may
take as long as the training has taken so far, or `ROUND` seconds if that is more; a final proof
from all eigenvalues at least `PROOF` seconds. `max_time` limits all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.linalg import PER_CUBE, eigh
from ..common.vectors import extent, norm
from ..critical.classify import classify
from ..critical.dense import inverse
from ..critical.evidence import (
    hessian_products,
    offered,
    probes,
    proved,
    residual_bounds,
    runs_to_infinity,
    value_at,
    why_no_minimum,
)
from ..critical.kink_minimum import KinkPoint, beside, can_be_held, newton_on_kinks
from ..critical.nearness import gradient_and_error, lower_bound, value_rounding
from ..critical.report import without_calls
from ..krylov.trust_region import KrylovSpace, shifted, trust_region
from .line_search import Value, first_length, line_minimum
from .run import Run, reduction_ratio

# --------------------------------------------------------------------------------------------------
# Trial moves along null vectors of the Hessian, for descent that no second derivative shows.
#
# Where curvature vanishes, higher derivatives decide, and there may be many directions: from zero
# weights the loss of a deep network falls with the product of its layers, at a monkey saddle along
# three of six directions. Random moves in the flat space, at several lengths and with both signs,
# find descent of odd order with probability 1; a few steps of the minimiser from displaced points
# find valleys that bend away from that space.

FLAT = 1e-5  # a direction counts as flat if its curvature is below this share of the largest
LENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of trial moves, relative to max(1, ||theta||)
KICKS = 12  # random directions tried
WALKS = 4  # displaced points from which the minimiser is tried

# takes a few steps from a given point; returns the lowest point met, and the value there
SideRun = Callable[[np.ndarray], tuple[np.ndarray, float]]
Lower = tuple[np.ndarray, float]


def flat_space(ob: Any, theta: np.ndarray, dense_below: int) -> tuple[np.ndarray, int]:
    """Return orthonormal columns with small curvature, smallest first, and the number of products
    used.

    For n >= `dense_below` no eigenvalues are computed: the result has no columns, which stands for
    all of the space, and trial moves then go in any direction.
    """
    if theta.size >= dense_below:
        return np.zeros((theta.size, 0)), 0
    H = hessian_products(ob, theta.astype(np.float64))
    values, vectors = eigh(H.matrix().A)[:2]
    size = float(np.abs(values).max(initial=0.0))
    order = np.argsort(np.abs(values))
    return vectors[:, order[np.abs(values[order]) <= FLAT * size]], H.count


def directions(
    ob: Any, theta: np.ndarray, flat: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield unit vectors to try: random ones in the flat space, its columns of least curvature, and
    the objective's probes.
    """
    n, k = flat.shape
    for _ in range(KICKS):
        v = np.asarray(flat @ rng.standard_normal(k) if k else rng.standard_normal(n))
        yield np.asarray(v / np.linalg.norm(v))
    for j in range(min(k, KICKS)):
        yield flat[:, j]
    for v in np.asarray(probes(ob, theta), dtype=float).T[:4]:
        if np.any(v):
            yield v / np.linalg.norm(v)


def lower_along(
    value: Value, theta: np.ndarray, f: float, direction: np.ndarray, barrier: bool = False
) -> Lower | None:
    """Find a point on the line with a value lower by more than rounding, trying lengths over five
    decades in both directions; None if there is none.

    With `barrier` a direction is given up once the value rises along it: a lower point that is then
    found contradicts a minimum at theta.
    """
    kind = theta.dtype.type
    unit = direction.astype(theta.dtype)
    noise = value_rounding(f, theta.dtype)
    reach = max(1.0, norm(theta))
    for sign in (1.0, -1.0):
        for length in LENGTHS:
            t = sign * length * reach
            found = value(theta + kind(t) * unit)
            if found < f - noise:
                t, lowest = line_minimum(value, theta, kind(sign) * unit, f, length * reach)
                best = (t * sign, lowest) if lowest < found else (sign * length * reach, found)
                return theta + kind(best[0]) * unit, best[1]
            if barrier and found > f + noise:
                break
    return None


def lower_point(
    ob: Any,
    theta: np.ndarray,
    f: float,
    flat: np.ndarray,
    rng: np.random.Generator,
    *,
    value: Value,
    walk: SideRun,
    stop: Callable[[], bool],
) -> Lower | None:
    """Find a point with a value lower than f by more than rounding; None if all tries fail.

    Parameters
    ----------
    flat : ndarray, shape (n, k)
        Columns from `flat_space`.
    walk : callable
        ``walk(start)`` takes a few steps of a minimiser and returns the point and its value.
    stop : callable
        Ends the tries when it returns True.
    """
    tried = list(directions(ob, theta, flat, rng))
    for v in tried:
        if stop():
            return None
        found = lower_along(value, theta, f, v)
        if found is not None:
            return found
    noise = value_rounding(f, theta.dtype)
    reach = max(1.0, norm(theta))
    for i, v in enumerate(tried[:WALKS]):
        if stop():
            return None
        start = theta + ((0.3, 0.03)[i % 2] * reach * v).astype(theta.dtype)
        there, lowest = walk(start)
        if lowest < f - noise:
            return there, lowest
    return None


def falls_for_ever(
    ob: Any, value: Value, theta: np.ndarray, f: float, direction: np.ndarray
) -> bool:
    """Return whether the value never rises along a ray over 40 doublings of the length, falls over
    each of the first four, and the gradient's norm never grows: measured, not proved.
    """
    size = norm(direction)
    if not 0 < size < np.inf:
        return False
    v = (direction / size).astype(theta.dtype)
    t, before = 0.1 * max(1.0, norm(theta)), f
    slope = norm(ob.gradient(theta))
    for i in range(40):
        point = theta + theta.dtype.type(t) * v
        here = value(point)
        if not here <= before or (i < 4 and not here < before):
            return False
        g = norm(ob.gradient(point))
        if not g <= slope:
            return False
        t, before, slope = 2 * t, here, g
    return True


# --------------------------------------------------------------------------------------------------
# The last Newton steps: to a zero of the gradient in extended precision, as far as theta's own
# rounding allows.
#
# Near a minimum, Newton steps with one fixed factorisation contract, and the rounding of the
# gradient then limits the distance to the true critical point. So the gradient is the objective's
# `precise_gradient` where it has one; a Hessian in float64 is accurate enough.

POLISH_STEPS = 20
FACTORS = 3  # Hessians that are built and factorised at most
KRYLOV_FROM = 768  # from this n a Krylov solve is tried before all columns of H are computed
KRYLOV_STEPS = 400

Solve = Callable[[np.ndarray], np.ndarray | None]
Make = Callable[[Any, np.ndarray], tuple[Solve | None, Callable[[], int]]]


@dataclass(frozen=True)
class Polished:
    """The point where the Newton steps ended, their number, and their cost."""

    theta: np.ndarray
    n_steps: int
    n_products: int
    n_gradients: int


def polish(ob: Any, theta: np.ndarray, dense_below: int, stop: Callable[[], bool]) -> Polished:
    """Take Newton steps from a theta with a small gradient, keeping each that at least halves the
    gradient's norm without raising the value by more than rounding.

    Theta stays where it is if the Hessian is not positive semidefinite to rounding.

    Parameters
    ----------
    ob : objective
    theta : ndarray, shape (n,)
        The start; not changed. The result has its dtype.
    dense_below : int
        Below this n steps come from a Cholesky factor, at a cost of ``n`` products and ``n^3 / 3``
        flops for each of at most three factors; for n at or above it, and first of all for n >=
        `KRYLOV_FROM`, from a Krylov space.
    stop : callable
        Ends the steps when it returns True.
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
        while n_steps < POLISH_STEPS and solve is not None and not stop():
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
    """Return a Newton solve by a Cholesky factor, or None if H is not positive semidefinite to
    rounding, and the count of products.

    A shift of the size of rounding admits symmetry directions, along which H is singular and the
    gradient is 0.
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
    """Return a Newton solve in a Krylov space of the gradient, and the count of products."""
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
        if not space.m:  # the gradient vanished in rounding
            return None
        values, vectors = space.ritz()
        return space.combine(vectors @ shifted(values, space.linear_term(), 0.0))

    return solve, H.taken


# --------------------------------------------------------------------------------------------------
# Minima on relu kinks, at which a run has stalled: their position and their active kinks.
#
# Minima of relu networks with l2 lie on kinks, where the gradient is not small and second-order
# steps on the loss do not converge. So the kinks are smoothed over a shrinking width; at each
# width's minimum, slopes strictly between the two one-sided ones show which kinks are active. Then
# Newton in (theta, slopes) with an active set, which kinks enter and leave by their signs and
# slopes, and the proof.

WIDTHS = [0.03 * 0.25**i for i in range(9)]
DESCENT_STEPS = 200  # steps at most at each width
REST = 1e-9  # gradient norm at which the descent at one width ends
EPS = float(np.finfo(np.float64).eps)


def find_held(ob: Any, theta: np.ndarray, stop: Callable[[], bool]) -> KinkPoint | None:
    """Find the minimum on kinks near theta; None if none is found or the objective has no kinks.

    Parameters
    ----------
    ob : objective
        One whose certificates offer `relu_rows`, else None is returned.
    theta : ndarray, shape (n,)
        The point at which a run has stalled.
    stop : callable
        Ends the search when it returns True.
    """
    if not can_be_held(ob):
        return None
    here = np.asarray(theta, dtype=float)
    best = beside(ob, here)
    if best is not None and not (best.verdict.certified and _no_higher(ob, best.theta, here)):
        best = None
    for i, width in enumerate(WIDTHS):
        if stop() or best is not None and best.verdict.certified:
            break
        smooth = proved(ob, "relu_rows").smoothed(width)
        here = _descend(smooth, here, stop)
        if i < 2 or stop():
            continue
        found = newton_on_kinks(ob, here, smooth.slopes(here))
        if found is not None and (best is None or found.verdict.certified):
            best = found
    return best


def _no_higher(ob: Any, there: np.ndarray, here: np.ndarray) -> bool:
    f = float(ob.value(here))
    return float(ob.value(there)) <= f + value_rounding(f, here.dtype)


def _descend(smooth: Any, theta: np.ndarray, stop: Callable[[], bool]) -> np.ndarray:
    """Minimise a smoothed objective by trust-region steps from all eigenpairs of its Hessian, which
    suits the small networks this search is for.
    """
    f, g = smooth.value_and_gradient(theta)
    radius, fresh = 0.1 * max(1.0, norm(theta)), True
    for _ in range(DESCENT_STEPS):
        if fresh:
            values, vectors, _ = eigh(smooth.hessian(theta))
        y, _ = trust_region(values, vectors.T @ g, radius)
        predicted = -float((vectors.T @ g) @ y + 0.5 * (y @ (values * y)))
        there = theta + vectors @ y
        f_there, g_there = smooth.value_and_gradient(there)
        ratio = reduction_ratio(f, f_there, predicted, EPS)
        length = float(np.linalg.norm(y))
        if ratio < 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.9 * radius:
            radius *= 2.0
        fresh = ratio > 1e-4
        if fresh:
            theta, f, g = there, f_there, g_there
        if stop() or np.linalg.norm(g) <= REST or length <= 1e-15 * np.linalg.norm(theta):
            break
    return theta


# --------------------------------------------------------------------------------------------------
# The verdict of `minimize` on its last point: one outcome, one sentence.

#: `OptimizeResult.status` for each `OptimizeResult.stopped`
STATUS = {
    "critical": 0,
    "max_iter": 1,
    "max_time": 2,
    "max_products": 3,
    "callback": 4,
    "patience": 5,
    "stalled": 6,
    "diverged": 7,
    "interrupted": 8,
    "degenerate": 9,
    "infinity": 10,
    "unbounded": 11,
    "kinks": 12,
}
ENDINGS = {
    "max_iter": "ended by max_iter",
    "max_time": "ended by max_time",
    "max_products": "ended by max_products",
    "callback": "the callback asked to stop",
    "patience": "the validation loss has not improved for `patience` records",
    "diverged": "the loss is no longer finite",
    "interrupted": "interrupted from the keyboard: this is the best point known",
    "unbounded": "the loss falls without end, as far as seen",
}
NO_REPORT = "; report is None, and classify(ob, x) makes one"
CURVATURE_TOL = 1e-4  # negative curvature beyond this share of the spectrum is looked for ...
RISK = 1e-3  # ... and missed with at most this probability if n is too large for all eigenvalues


@dataclass(frozen=True)
class Termination:
    """The claim about a point with zero gradient, or the point from which the run is to go on.

    Attributes
    ----------
    stopped : str
        One of `STATUS`.
    kind : str or None
        The kind of point by `classify`; None if that was not called.
    success : bool
    sentence : str
    theta : ndarray, shape (n,)
    report : CriticalPoint or None
    go_on : bool
        The run should go on from theta, where the loss is lower or a smaller gradient is in reach.
    """

    stopped: str
    kind: str | None
    success: bool
    sentence: str
    theta: np.ndarray
    report: Any = None
    go_on: bool = False


ROUND = 1.0  # seconds that all checks together may always take, ...
PROOF = 30.0  # ... and seconds if a final eigendecomposition for a proof is among them
ALWAYS_DENSE = 1024  # up to this n all eigenvalues take about a second
DENSE_BELOW = 4097
MOVES = 12  # rounds at most that move to another point
NOTHING = 1e-24  # a loss within this share of its start value from its bound counts as at it ...
ROUNDED = 8.0  # ... and so do residuals within this many times their rounding bound
SMALL = 1e-8  # a move that lowers the loss by less than this share of it gains little, ...
FEW = 5  # ... and after so many of those in a row the run ends


class Finisher:
    """Judges the points of a run at which its gradient is zero."""

    def __init__(self, run: Run, gradient_tol: float | None, walk: SideRun) -> None:
        self.run, self.gradient_tol, self.walk = run, gradient_tol, walk
        self.spent = 0.0
        self.moves = self.small = 0
        self.started: float | None = None

    # time budget of the checks

    @contextmanager
    def _checking(self) -> Iterator[None]:
        """Count the time spent in this context as time for checks, not for training."""
        self.started = time.perf_counter()
        try:
            yield
        finally:
            self.spent, self.started = self.checked(), None

    def checked(self) -> float:
        """Return the seconds spent on checks, including the current one."""
        return self.spent + (0.0 if self.started is None else time.perf_counter() - self.started)

    def training(self) -> float:
        """Return the seconds spent on steps."""
        return self.run.elapsed() - self.checked()

    def left(self, floor: float) -> float:
        """Return the seconds left for checks, which may take as long as the training or `floor`
        seconds, whichever is more, within `max_time`.
        """
        left = max(self.training(), floor) - self.checked()
        if self.run.max_time is not None:
            left = min(left, self.run.max_time - self.run.elapsed())
        return left

    def over(self) -> bool:
        """Return whether the time for trial moves is used up."""
        return self.left(ROUND) <= 0

    def price(self) -> float:
        """Return an upper bound on the seconds a Hessian product takes: training time per product,
        with a gradient counted as three.
        """
        run = self.run
        return self.training() / max(1, run.n_products + 3 * run.n_gradients)

    def dense_below(self) -> int | None:
        """Return the n below which all eigenvalues are computed; None if there is no time for a
        verdict.
        """
        n, price = self.run.theta.size, self.price()
        seconds = n * price + PER_CUBE * n**3
        always = n <= ALWAYS_DENSE and self.run.max_time is None
        if always or (n < DENSE_BELOW and seconds <= self.left(PROOF)):
            return n + 1
        return min(n, ALWAYS_DENSE) if 600 * price <= self.left(PROOF) else None

    # held by kinks

    def held(self, theta: np.ndarray, patient: bool) -> Termination | None:
        """Return the outcome at the kinks that hold a run, or None if none do.

        `patient` allows the time of a proof: the run has stalled, and nothing else is left to try.
        """
        with self._checking():
            return self._held(theta, PROOF if patient else ROUND)

    def _held(self, theta: np.ndarray, floor: float = PROOF) -> Termination | None:
        if theta.dtype != np.float64:
            return None
        found = find_held(self.run.ob, theta, lambda: self.left(floor) <= 0)
        f = self.run.value(theta)
        if found is None or not self.run.value(found.theta) <= f + value_rounding(f, theta.dtype):
            return None
        proof = found.verdict
        if not proof.n_kinks + proof.n_collapsed + proof.n_copies:
            return self._judge(found.theta, False, on_kinks=False)
        stopped = "critical" if proof.certified else "kinks"
        return Termination(stopped, proof.kind, proof.certified, proof.reason, found.theta, proof)

    # the rounds

    def judge(self, theta: np.ndarray, moves: bool) -> Termination:
        """Return the outcome at theta; with `moves` it may be a lower point to go on from."""
        with self._checking():
            return self._judge(theta, moves and self.moves < MOVES and self.left(ROUND) > 0)

    def _judge(self, theta: np.ndarray, moves: bool, on_kinks: bool = True) -> Termination:
        ob = self.run.ob
        if runs_to_infinity(ob, theta):
            why = f"the infimum is at infinity, since {why_no_minimum(ob, theta)}"
            return Termination("infinity", "not_critical", False, why, theta)
        below = self.dense_below()
        if not hasattr(ob, "hessian") or below is None:
            why = (
                "max_time left no time for a verdict"
                if below is None
                else "without a Hessian there is no verdict"
            )
            return Termination("critical" if below else "max_time", None, False, why, theta)
        polished = polish(ob, theta, below, lambda: self.left(PROOF) <= 0)
        self.run.n_products += polished.n_products
        self.run.n_gradients += polished.n_gradients
        theta = polished.theta
        report = self._classified(theta, below)
        sentence = without_calls(report.reason)
        if report.kind != "not_critical" and not report.n_negative:
            there = self._nearest(theta, report)
            if there is not None:
                return there
        if on_kinks and report.kind == "undecided" and report.n_kinks:
            held = self._held(theta)
            if held is not None:
                return held
        if report.kind == "minimum":
            return self._minimum(theta, report, sentence, moves)
        if report.kind == "degenerate" and not report.n_negative:
            return self._degenerate(theta, report, sentence, moves)
        lower = self._along(theta, report) if moves else None
        if lower is not None:
            return lower
        if report.kind == "not_critical" and self._at_infinity(theta):
            return Termination("infinity", report.kind, False, AT_INFINITY_SEEN, theta, report)
        near = report.kind != "not_critical"
        there = self._nearest(theta, report)
        if there is None and not near:
            there = self._at_the_bound(theta, report, sentence)
        if there is not None:
            return there
        tried = moves and not near and self.gradient_tol is None and not report.n_negative
        if tried:
            f = self.run.value(theta)  # not critical, yet no step helps: a cubic may fall nearby
            found = self._tries(theta, f)
            if found is not None:
                return self._lower(found, f, moves, report)
        further = moves and self._steps_on(theta, report)
        self.moves += further
        if further:
            return Termination("critical", "not_critical", False, sentence, theta, report, True)
        if tried and report.at_nearest is None:
            sentence += "; degenerate: no descent found, and Newton's steps end at no point near"
            return Termination("degenerate", report.kind, False, sentence, theta, report)
        return Termination("critical", report.kind, False, sentence, theta, report)

    def _classified(self, theta: np.ndarray, below: int) -> Any:
        """Classify theta, and charge the products to the run."""
        run = self.run
        left = None if run.max_time is None else max(run.max_time - run.elapsed(), 1e-3)
        report = classify(
            self.run.ob, theta.astype(np.float64), gradient_tol=self.gradient_tol,
            curvature_tol=CURVATURE_TOL, failure_probability=RISK, dense_below=below,
            max_time=left, progress=False,
        )  # fmt: skip
        self.run.n_products += int(report.n_products)
        return report

    def _steps_on(self, theta: np.ndarray, report: Any) -> bool:
        """Return whether further steps may reach a critical point or, if H is definite, come near
        enough to one for `classify` to recognise it: the default gradient tolerance was too wide
        here.
        """
        wide = bool(report.n_positive) and not (
            report.n_negative or report.n_zero or report.n_kinks
        )
        if self.gradient_tol is not None or not (wide or report.kind == "not_critical"):
            return False
        return self._can_go_on(theta) and not self._flattens(theta, report)

    def _nearest(self, theta: np.ndarray, report: Any) -> Termination | None:
        """Return the outcome at the certified minimum that Newton's steps from theta reached, if it
        is no higher.
        """
        at = report.at_nearest
        if theta.dtype != np.float64 or at is None or at.kind != "minimum" or not at.certified:
            return None
        f = self.run.value(theta)
        if not self.run.value(report.nearest) <= f + value_rounding(f, theta.dtype):
            return None
        return Termination("critical", "minimum", True, at.reason.rstrip("."), report.nearest, at)

    def _minimum(self, theta: np.ndarray, report: Any, sentence: str, moves: bool) -> Termination:
        """Return the outcome at a minimum. One that is not certified is tested further: along no
        direction tried may the loss fall before it rises.
        """
        if not report.certified:
            f = self.run.value(theta)
            flat = np.zeros((theta.size, 0))
            for v in directions(self.run.ob, theta, flat, np.random.default_rng(0)):
                found = lower_along(self.run.value, theta, f, v, barrier=True)
                if found is not None:
                    return self._lower(found, f, moves, report)
            bounded = offered(self.run.ob, "third_bound") is not None
            provable = self.gradient_tol is None and bounded
            proof_is_near = moves and provable and theta.size < DENSE_BELOW
            if proof_is_near and self._can_go_on(theta):  # a smaller gradient may allow the proof
                self.moves += 1
                return Termination("critical", "not_critical", False, sentence, theta, report, True)
        return Termination("critical", "minimum", True, sentence, theta, report)

    def _degenerate(
        self, theta: np.ndarray, report: Any, sentence: str, moves: bool
    ) -> Termination:
        f = self.run.value(theta)
        there = self._at_the_bound(theta, report, sentence)
        if there is not None:
            return there
        if self._at_infinity(theta):
            return Termination("infinity", report.kind, False, AT_INFINITY_SEEN, theta, report)
        if moves or not self.over():
            found = self._tries(theta, f)
            if found is not None:
                return self._lower(found, f, moves, report)
        sentence += "; degenerate: no descent found, neither along the zeros nor a few steps off"
        return Termination("degenerate", "degenerate", False, sentence, theta, report)

    def _at_the_bound(self, theta: np.ndarray, report: Any, sentence: str) -> Termination | None:
        """Return a success if the loss at theta is at its lower bound, up to the slack of
        `_above_bound`; else None.
        """
        above = self._above_bound(theta, self.run.value(theta))
        if above is None:
            return None
        c = lower_bound(self.run.ob)
        sentence += f"; no point is lower by more than {above:.1g}, since no loss is below {c:g}"
        return Termination("critical", report.kind, True, sentence, theta, report)

    def _above_bound(self, theta: np.ndarray, f: float) -> float | None:
        """Return f minus the lower bound of the loss if that is negligible: within the rounding of
        the value or of the residuals, or within `NOTHING` times its excess at the start. Otherwise
        None.
        """
        ob, c, at = self.run.ob, lower_bound(self.run.ob), theta.astype(np.float64)
        if c == -np.inf or not offered(ob, "attains_lower_bound", True):
            return None
        slack = value_rounding(c, theta.dtype) + NOTHING * max(0.0, self.run.f0 - c)
        residuals = residual_bounds(ob, at, 0.0)
        if residuals is not None:  # as they round in the objective's own precision
            share = float(np.finfo(theta.dtype).eps / np.finfo(np.float64).eps)
            slack += (ROUNDED * share * residuals.error) ** 2
        best, off = proved(ob, "precise_value", at, default=(f, np.inf))
        f = best + off if off < np.inf else f
        return f - c if f - c <= slack else None

    def _tries(self, theta: np.ndarray, f: float) -> tuple[np.ndarray, float] | None:
        """Look for a lower point along the null vectors of H or a few steps off; None if there is
        none.
        """
        flat, spent = flat_space(self.run.ob, theta, self.dense_below() or 0)
        self.run.n_products += spent
        return lower_point(
            self.run.ob, theta, f, flat, np.random.default_rng(0),
            value=self.run.value, walk=self.walk, stop=self.over,
        )  # fmt: skip

    def _along(self, theta: np.ndarray, report: Any) -> Termination | None:
        """Move to the lowest point found along proved negative curvature; None if that gains
        nothing.
        """
        if report.escape_direction is None:
            return None
        f = self.run.value(theta)
        unit = np.asarray(report.escape_direction, dtype=theta.dtype)
        t, lowest = line_minimum(self.run.value, theta, unit, f, first_length(theta))
        if not lowest < f - value_rounding(f, theta.dtype):
            return None
        found = theta + theta.dtype.type(t) * unit, lowest
        return self._onward(found, f, report) if self._pays(lowest, f) else None

    def _lower(
        self, found: tuple[np.ndarray, float], f: float, moves: bool, report: Any
    ) -> Termination:
        """Go on from a lower point, or end the run there with an outcome about that point."""
        if self._pays(found[1], f) and moves:
            return self._onward(found, f, report)
        theta, lowest = found
        below = self.dense_below()
        there = None if below is None else self._classified(theta, below)
        kind = None if there is None else there.kind
        sentence = (
            f"the run came to rest at a loss of {f:.9g}, and tries from there led to x, where it "
            f"is {lowest:.9g}"
        )
        return Termination("degenerate", kind, False, sentence, theta, there)

    def _onward(self, found: tuple[np.ndarray, float], f: float, report: Any) -> Termination:
        """Return the outcome that makes the run go on from a lower point. If theta was not
        critical, its kind also asks for a smaller gradient tolerance.
        """
        sentence = f"the loss is lower nearby, {found[1]:.9g} for {f:.9g}: no minimum"
        kind = "not_critical" if report.kind == "not_critical" else "degenerate"
        return Termination("degenerate", kind, False, sentence, found[0], report, True)

    def _pays(self, lowest: float, f: float) -> bool:
        """Return whether another move to a lower point is allowed: after `FEW` small gains in a row
        it is not.
        """
        self.small = self.small + 1 if f - lowest < SMALL * abs(f) else 0
        self.moves += 1
        return self.small <= FEW

    def _can_go_on(self, theta: np.ndarray) -> bool:
        """Return whether further steps may lower the gradient: it is well above its own rounding,
        and its square, in proportion to which a step lowers the loss, does not underflow.
        """
        g, error = gradient_and_error(self.run.ob, theta.astype(np.float64))
        size = norm(g)
        known = error if np.isfinite(error) else 0.0
        return bool(theta.dtype == np.float64 and size > 10 * known and size * size > 0)

    def _flattens(self, theta: np.ndarray, report: Any) -> bool:
        """Return whether curvature vanishes with the gradient, as in the valley of x^4, while the
        loss can fall no further than the rounding of its size at the start: steps would go on until
        the last bits of theta, without end.
        """
        run = self.run
        left = run.gnorm * extent(theta)
        nothing = float(np.finfo(theta.dtype).eps) * max(abs(run.f0), abs(run.f))
        return bool(report.plateau or report.n_zero) and left <= nothing

    def _at_infinity(self, theta: np.ndarray) -> bool:
        """Return whether the loss is measured to fall for ever, along theta or down the
        gradient.
        """
        run = self.run
        if self.over():
            return False
        f, g = run.value_and_gradient(theta)
        if not np.any(g):
            return False
        return any(falls_for_ever(run.ob, run.value, theta, f, d) for d in (theta, -g))


AT_INFINITY_SEEN = (
    "the infimum is at infinity, as far as seen: along a ray from here the loss and its gradient "
    "fall at every doubling of the distance"
)
