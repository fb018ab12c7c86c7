"""The inertia if n is too large for a matrix: proofs for one side of the spectrum and the risk of
having missed curvature on the other side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..common.checks import as_rng, checked_product, operator_dtype
from ..common.objectives import (
    ZERO_CURVATURE_RATIO,
    BudgetedOperator,
    BudgetSpentError,
    certificate_method,
    certificate_start_vectors,
    gradient_at,
)
from ..common.protocols import Array, Floats, OperatorLike
from ..common.runtime import Budget, is_time_up, raise_if_interrupted
from ..common.vectors import augmented_norm, safe_norm
from ..krylov.lanczos import Recurrence, combine_basis_rows, ritz_decomposition
from ..krylov.trust_region import (
    exhausted_miss_probability,
    lanczos_miss_probability,
    lanczos_steps,
    least_residual_step,
)
from ..spectrum.eigsh import eigsh
from .decide import (
    UNTRIED_OUTCOME,
    CriticalPointProof,
    Nearness,
    SpectrumEvidence,
    TwoSignProof,
)
from .dense import ZERO_CURVATURE_TOL
from .evidence import (
    CURVATURE_TOL,
    MAX_RELATIVE_STEP,
    ClassifyOptions,
    InertiaStrategy,
    SpectrumEnd,
    curvature_floor,
    has_symmetry_certificate,
    null_subspace_basis,
    orthonormal_basis,
    symmetry_tangents,
    third_bound,
)
from .nearness import (
    GRADIENT_ERROR_EPS,
    MAX_DECREMENT_RATIO_AFTER_STEP,
    assess_nearness_by_decrement,
    assumed_gradient_error,
    finite_gradient_and_error,
    gradient_after_step,
    is_curvature_stable,
    newton_step,
    stable_curvature_mask,
)
from .theorem import (
    EPS,
    SCALAR_ROUND_UP_FACTOR,
    KantorovichOutcome,
    check_kantorovich,
    eta_bound,
    radius_of_opposite_signs,
)

# --------------------------------------------------------------------------------------------------
# Lanczos runs for a verdict, within a budget. They collect vectors of extreme curvature.

# The Lanczos basis is never restarted, because the bound on the risk does not hold after a restart.
# A run ends when its basis has this size.
MAX_VERDICT_BASIS_BYTES = 4 << 30
N_PROOF_PRODUCTS = 9  # number of products reserved for the proofs at the end
# factor by which ||H - H'|| is assumed to exceed its estimate from one test with random vectors
ASYMMETRY_SAFETY_FACTOR = 8.0


class InertiaSearch:
    """The state of a search for both ends of the spectrum of H: the remaining budget, and the
    vectors of most extreme curvature found so far.
    """

    def __init__(self, ask: ClassifyOptions, H: BudgetedOperator) -> None:
        self.ask = ask
        self.H = H
        # The products for the proofs at the end are reserved.
        self.budget = Budget(within=H, reserve=N_PROOF_PRODUCTS)
        self.rng = as_rng(ask.seed)
        # operator whose rounding errors are in the Krylov bases
        self.made_by = H if H.native is H.op else BudgetedOperator(H.native)
        self.candidates: list[tuple[float, Floats]] = []  # pairs (Rayleigh quotient, unit vector)
        self.n_negative = 0
        self.n_positive = 0
        self.seen: set[int] = set()  # signs of curvature found above the threshold for zero
        # the Rayleigh quotient of one random vector, used for both ends of the spectrum if the
        # budget allows no more
        self.only: SpectrumEnd | None = None
        self.symmetry = np.zeros((H.n, 0))  # orthonormal columns of proved symmetries
        # number of proved symmetry directions, None if they were not searched for
        self.n_symmetry: int | None = None

    @property
    def has_one_sign_only(self) -> bool:
        """True if curvature of both signs has not been found."""
        return len(self.seen) < 2

    def run_lanczos(
        self,
        op: OperatorLike,
        start: Array | None,
        steps: float,
        *,
        d: Floats | None = None,
        stop: Callable[[Recurrence], bool] = lambda run: False,
        against: Array | None = None,
    ) -> Recurrence | None:
        """Run Lanczos with `op` for at most `steps` block steps, and record the ends of the Ritz
        spectrum. Return the run, or None if no step is possible.

        `start` is an array (p, n), or None for a random vector. `d` (n,) holds the scale factors of
        the parameters if `op` is ``d H d``. The run ends early if ``stop(run)`` is True, which is
        tested every 20 steps. The basis is kept orthogonal to the rows `against` (s, n).
        """
        block = 1 if start is None else len(start)
        n = op.shape[0]
        steps = int(min(steps, self.budget.products_left // block))
        most = max(2, MAX_VERDICT_BASIS_BYTES // (n * operator_dtype(op).itemsize) - 1)
        rows = int(min(most, (steps + 1) * block, n))
        run = Recurrence(op, rows, against=against)
        step = block * self.H.pace  # estimate of the seconds that the next step takes
        if steps < 1 or is_time_up(step):
            return None
        if not (run.insert_random(self.rng) if start is None else run.insert_block(start.copy())):
            return None
        while (
            run.p
            and run.m < run.dimension
            and run.m + run.p <= rows
            and run.n_products < steps * block
            and not (run.m and is_time_up(step))
        ):
            began = time.perf_counter()
            before = run.n_products
            run.step()
            step = time.perf_counter() - began
            # A block that has become narrower takes fewer products.
            self.H.record_products(run.n_products - before)
            if run.m % 20 == 0 and stop(run):
                break
        return self.record_run(run, d)

    def record_run(self, run: Recurrence, d: Floats | None = None) -> Recurrence:
        """Record the Ritz vectors at both ends of a finished run, and the inertia that its Ritz
        values prove by Cauchy interlacing. Return the run. `d` (n,) holds the scale factors if the
        run used ``d H d``.
        """
        run.reorthogonalise()
        values, S = ritz_decomposition(run)
        inner = combine_basis_rows(run.rows[: run.m], S[:, [0, -1]])
        for value, v in zip(values[[0, -1]], inner):
            u = v.astype(float) if d is None else d * v
            # In scaled coordinates only the sign of the curvature is meaningful.
            if d is None or value <= 0:
                self.add_candidate(float(value) / float(u @ u), u)
        if d is None:
            self.H.norm = self.made_by.norm = max(self.H.norm, run.scale)
            # The larger rounding bound of the two end vectors is used for all Ritz values.
            slack = max(self.made_by.product_error_bound(u) for _, u in self.candidates[-2:])
            error = safe_norm(run.err[: run.m]) + 2 * run.m**0.5 * slack + self.H.asymmetry
            self.n_negative = max(self.n_negative, int((values < -error).sum()))
            self.n_positive = max(self.n_positive, int((values > error).sum()))
            strong = values[np.abs(values) > max(error, self.H.zero_threshold)]
            self.seen |= {int(sign) for sign in np.sign(strong)}
        return run

    def run_from_random(
        self, steps: float, stop: Callable[[Recurrence], bool]
    ) -> Recurrence | None:
        """Run Lanczos from a random start orthogonal to the symmetry directions, as the bound on
        the risk requires. `steps`, `stop` and the result are those of `run_lanczos`.
        """
        Q = self.symmetry
        against = np.ascontiguousarray(Q.T, self.H.native_dtype) if Q.shape[1] else None
        return self.run_lanczos(self.H.native, None, steps, stop=stop, against=against)

    def run_from_gradient(
        self, g: Floats, steps: float, stop: Callable[[Recurrence], bool]
    ) -> Recurrence | None:
        """Run Lanczos from the gradient g (n,). `steps`, `stop` and the result are those of
        `run_lanczos`.
        """
        unit = (g / safe_norm(g))[None].astype(self.H.native_dtype)
        return self.run_lanczos(self.H.native, unit, steps, stop=stop)

    def add_candidate(self, quotient: float, v: Floats) -> None:
        """Add the vector v (n,) with the given Rayleigh quotient to the candidates for the ends of
        the spectrum.
        """
        self.candidates.append((quotient, v / np.linalg.norm(v)))

    def spectrum_end(self, *vectors: Floats, which: int = 1) -> SpectrumEnd:
        """Return the `SpectrumEnd` of the unit vector with the largest Rayleigh quotient if `which`
        is 1, or with the smallest if it is -1. Each vector costs one product.
        """
        tried = [(*self.H.rayleigh_quotient(v), v) for v in vectors]
        quotient, Hv, v = max(tried, key=lambda found: which * found[0])
        residual = safe_norm(Hv - quotient * v)
        return SpectrumEnd(v, quotient, self.H.rayleigh_quotient_error(v, Hv), residual)

    def prove_spectrum_end(self, which: int) -> SpectrumEnd:
        """Return the `SpectrumEnd` of the best candidate for the upper end of the spectrum if
        `which` is 1, or for the lower end if it is -1.
        """
        if self.only is None and not self.candidates:
            # No run was started because the symmetries span the whole space.
            self.estimate_norm()
        if self.only is not None:
            return self.only
        values = sorted(self.candidates, key=lambda c: which * c[0], reverse=True)
        values = [c for c in values if np.linalg.norm(self.symmetry.T @ c[1]) <= 0.9] or values
        chosen = values[:1] + [c for c in values[1:2] if which * c[0] > 0]
        return self.spectrum_end(*(v for _, v in chosen), which=which)

    def find_symmetries(self) -> None:
        """Store an orthonormal basis of proved symmetry directions in `symmetry`, unless there are
        too many of them or curvature of both signs has been found.

        A direction is used only if the norm of its product with H is at most
        `MAX_SYMMETRY_COUPLING` times the threshold for negative curvature. Projecting it out then
        changes no eigenvalue by more than twice that norm. The bound on the risk allows for this
        change.
        """
        ask = self.ask
        if not self.has_one_sign_only or not has_symmetry_certificate(ask.ob):
            return
        try:
            T: Floats = symmetry_tangents(ask.ob, ask.theta).columns
        except MemoryError:
            return
        T = T[:, T.any(axis=0)]
        if T.shape[1] > min(MAX_SYMMETRY_DIRECTIONS, self.budget.products_left // 4):
            return
        if T.shape[1]:
            self.H.show_note(f"{T.shape[1]} symmetry directions")
            Q = orthonormal_basis(T)
            most = min(ZERO_CURVATURE_TOL, MAX_SYMMETRY_COUPLING * CURVATURE_TOL) * self.H.norm
            self.symmetry = np.asarray(null_subspace_basis(self.H(Q), Q, most))
        self.n_symmetry = self.symmetry.shape[1]

    def full_spectrum_ends(
        self, low: SpectrumEnd, high: SpectrumEnd
    ) -> tuple[SpectrumEnd, SpectrumEnd]:
        """Return the ends of the spectrum of H, given the ends `low` and `high` on the complement
        of the symmetries.

        The symmetries add eigenvalues close to 0. One of these is an end of the spectrum if `low`
        and `high` have the same sign.
        """
        Q = self.symmetry
        if not Q.shape[1] or low.quotient <= 0 <= high.quotient:
            return low, high
        symmetry_end = self.spectrum_end(Q[:, 0] / np.linalg.norm(Q[:, 0]))
        return (
            symmetry_end if symmetry_end.quotient < low.quotient else low,
            symmetry_end if symmetry_end.quotient > high.quotient else high,
        )

    def is_symmetry(self, v: Floats) -> bool:
        """Return True if the unit vector v (n,) lies in the span of the symmetry directions that
        were projected out, up to a distance of 1e-4.
        """
        Q = self.symmetry
        return float(np.linalg.norm(v - Q @ (Q.T @ v))) <= 1e-4

    def is_unexplained_zero(self, end: SpectrumEnd) -> bool:
        """Return True if the eigenvalue at `end` is zero up to rounding and `end.vector` is not a
        symmetry direction that was projected out.
        """
        small = abs(end.quotient) + end.residual <= max(2 * end.error, self.H.zero_threshold)
        return small and not self.is_symmetry(end.vector)

    def estimate_norm(self) -> None:
        """Estimate the norm of H by the product with one random vector. This is used if the budget
        is too small for more products or no direction is left to search.
        """
        v = self.rng.standard_normal(self.H.n)
        end = self.spectrum_end(v / np.linalg.norm(v))
        if self.budget.products_left < 2:
            self.only = end
        self.add_candidate(0.0, v)

    def balancing_diagonal(self) -> Floats:
        """Return d > 0 (n,) for which the rows of ``d H d`` have roughly equal norms.

        The mean square of ``H v`` over vectors v of random signs estimates the squared norm of
        every row. The asymmetry of the first products is recorded in `H.asymmetry`.
        """
        H = self.H
        n = H.n
        d = np.ones(n)
        unit = 1.0  # scale factor that keeps squares of products within the floating-point range
        live = np.ones(n, dtype=bool)
        for first in (True, False):
            V = self.rng.choice([-1.0, 1.0], size=(n, 3))
            Y = d[:, None] * H(d[:, None] * V)
            if first:
                unit = float(np.abs(Y).max(initial=0.0)) or 1.0
                gap = float(np.abs(V.T @ Y - Y.T @ V).max())
                noise = float(np.sqrt(n)) * max(H.product_error_bound(v) for v in V.T)
                noise += 4 * n * np.finfo(float).eps * float(np.abs(Y).max(initial=0.0))
                H.asymmetry = ASYMMETRY_SAFETY_FACTOR * gap if gap > 2 * noise else 0.0
            rows = np.sqrt(((Y / unit) ** 2).mean(axis=1))
            live &= rows > 64 * H.eps * rows.max(initial=0.0) / n**0.5
            if not live.any():
                return np.ones(n)
            d[live] /= np.sqrt(rows[live])
            d[~live] = np.exp(np.log(d[live]).mean())
        return d


def has_both_signs(run: Recurrence) -> bool:
    """Return True if a Lanczos run has found curvature of both signs. Its largest Ritz value must
    exceed the error and the threshold for zero, and its smallest must be below minus both, with a
    residual of at most half its magnitude.
    """
    values, S = ritz_decomposition(run)
    residual = safe_norm(run.coupling() @ S[:, 0]) if run.p else 0.0
    error = max(10 * run.err[: run.m].max(), ZERO_CURVATURE_RATIO * run.scale)
    return bool(values[0] < -error and residual <= 0.5 * abs(values[0]) and values[-1] > error)


# --------------------------------------------------------------------------------------------------
# The strategy: the search for both ends of the spectrum, proofs near a critical point, and
# measurements if there is no proof.

MIN_GRADIENT_STEPS = 40  # minimum number of Lanczos steps from the gradient
# maximum number of Lanczos steps from the gradient, if the decrement converges slowly
MAX_GRADIENT_STEPS = 160
MAX_STEP_RESIDUAL = 0.5  # maximum relative residual at which Newton's step counts as known
MAX_SOLVE_STEPS = 400  # maximum number of MINRES steps for Newton's step
# risk that determines the length of the search for negative curvature if the caller gave no failure
# probability
DEFAULT_FAILURE_PROBABILITY = 0.01
# maximum number of Lanczos steps in balanced coordinates, which are used for parameters of very
# different scales
MAX_BALANCED_STEPS = 128
MAX_END_STEPS = 64  # maximum number of Lanczos steps if only the ends of the spectrum are needed
MAX_PROBE_VECTORS = 16  # maximum number of the objective's probe vectors that start Lanczos runs
# maximum ||Hq|| of a symmetry direction q that is projected out, relative to CURVATURE_TOL ||H||
MAX_SYMMETRY_COUPLING = 0.01
# maximum number of symmetry directions; if there are more, none is projected out, because each
# direction takes a product
MAX_SYMMETRY_DIRECTIONS = 1024
NORM_PROBE_SEED = 1  # seed of the random vector that estimates ||H||
# theta counts as far from a critical point if this fraction of the gradient and of the decrement
# exceeds the tolerances
FAR_FROM_CRITICAL_FRACTION = 1e-2
# number of Ritz values, those of smallest magnitude, whose signs are tested for stability
N_TESTED_RITZ_VALUES = 3


class InertiaByProducts(InertiaStrategy):
    """The inertia from products with H: both ends of the spectrum, and the risk of having missed
    curvature beyond these ends.
    """

    keeps = True  # True if the signs are stable or need no test

    def __init__(self, ask: ClassifyOptions, H: BudgetedOperator) -> None:
        self.search = InertiaSearch(ask, H)
        self.main: Recurrence | None = None  # Krylov run from a random start
        d = np.ones(H.n)  # scaling that balances the rows of ``d H d``
        if self.search.budget.products_left >= 40:
            d = self.search.balancing_diagonal()
        else:
            self.search.estimate_norm()
        self.ask = ask
        self.H = H
        self.gradient = _gradient_and_error(ask, H)
        self.flat: float | None = None
        self.residual: float | None = None
        self.step = np.zeros(H.n)
        self.left = 1.0
        decrement, least = self._search_gradient_krylov_space()
        self.near = self._assess_nearness(decrement)
        if not self.near.near and least is not None and ask.gradient_tol is None:
            found = self._assess_nearness(least)
            self.near = replace(self.near, budget_exhausted=True) if found.near else found
        floor = curvature_floor(ask.ob, ask.theta) if self.near.near else -np.inf
        search = self.search
        if self.near.near and not floor > 0:
            search.find_symmetries()
        if self.near.near:
            # A few steps from the objective's probe vectors find curvature that couples to them.
            P = certificate_start_vectors(ask.ob, ask.theta).T.astype(H.native_dtype)
            P = P[np.linspace(0, len(P) - 1, min(MAX_PROBE_VECTORS, len(P))).astype(int)]
            for start in range(0, len(P), 8):
                search.run_lanczos(H.native, P[start : start + 8], 3)
        self.ends, self.seen = self._estimate_spectrum_ends(floor, d)

    def _search_gradient_krylov_space(self) -> tuple[float, float | None]:
        """Set the quantities that the Krylov space of the gradient gives: ``||Hg|| / ||g||``
        (`flat`), the fraction of g outside the range of H (`residual`), Newton's `step`, and the
        residual of this step divided by ``||g||`` (`left`).

        Return the decrement, and a lower bound on it if the budget ended before it converged,
        otherwise None.
        """
        g = self.gradient[0]
        size = safe_norm(g)
        if size == 0:
            self.left = 0.0
            return 0.0, None

        run = self.search.run_from_gradient(
            g,
            min(MAX_GRADIENT_STEPS, self.search.budget.products_left // 4),
            lambda run: run.m >= MIN_GRADIENT_STEPS and _newton_step_in_basis(run, size)[1] <= 0.1,
        )
        if run is None:
            return np.inf, decrement_lower_bound(size, self.H.norm_estimate)
        if run.scale == 0:
            self.residual = 1.0
            return np.inf, None
        values, S = ritz_decomposition(run)
        y, self.left = _newton_step_in_basis(run, size)
        self.step = combine_basis_rows(run.rows[: run.m], y[:, None])[0].astype(float)
        cut = size / (MAX_RELATIVE_STEP * augmented_norm(self.ask.theta))
        cut = max(run.scale * CURVATURE_TOL, cut)
        inside = float((S[0, np.abs(values) > cut] ** 2).sum())
        self.residual = float(max(0.0, 1 - inside) ** 0.5)
        self.flat = safe_norm(run.T[: run.m + run.p, 0])
        sizes = np.maximum(np.abs(values), GRADIENT_ERROR_EPS * self.H.eps * run.scale)
        decrement = 0.5 * float(((size * S[0]) / sizes * (size * S[0])).sum())
        short = run.m < min(MIN_GRADIENT_STEPS, run.dimension) and run.p > 0 and self.left > 0.1
        return decrement, decrement_lower_bound(size, self.flat) if short else None

    def _assess_nearness(self, whole: float) -> Nearness:
        g, off = self.gradient
        theta = self.ask.theta
        size = safe_norm(g)
        length = safe_norm(theta)
        off = assumed_gradient_error(self.H.norm, theta) if np.isnan(off) else off
        share = max(0.0, 1 - off / size) if size > off else 0.0
        decrement = whole * share**2 if share > 0 else 0.0
        reach = self.H.norm * length * length  # infinite if the product overflows
        return assess_nearness_by_decrement(
            self.ask.ob, theta, size, decrement, reach, self.ask.gradient_tol, whole=whole
        )

    def _estimate_spectrum_ends(
        self, floor: float, d: Floats
    ) -> tuple[tuple[SpectrumEnd, SpectrumEnd], SpectrumEvidence]:
        """Return the pair of ends of the spectrum on the complement of the symmetries, and the
        `SpectrumEvidence`, with the risk of having missed curvature beyond these ends. `floor` is a
        lower bound on all eigenvalues, and `d` (n,) the scaling that balances the rows of H.
        """
        ask = self.ask
        H = self.H
        search = self.search
        deep = self.near.near and not floor > 0
        deflated = search.symmetry.shape[1] > 0
        eps = CURVATURE_TOL * (1 - 2 * MAX_SYMMETRY_COUPLING * deflated)
        goal = lanczos_steps(H.n, eps, ask.failure_probability or DEFAULT_FAILURE_PROBABILITY)
        steps = goal if deep else min(goal, MAX_END_STEPS)
        H.show_note(f"{steps} Lanczos steps")
        self.main = main = search.run_from_random(steps, has_both_signs)
        if main is None:
            risk = 1.0
        else:
            risk = (
                lanczos_miss_probability(H.n, main.m, eps)
                if main.p
                else exhausted_miss_probability(main, H.n, eps)
            )
        # A start vector misses an eigenvector along which its component is below rounding.
        risk = max(risk, EPS * H.n**0.5)
        if H.asymmetry >= 0.1 * CURVATURE_TOL * H.norm:
            risk = 1.0
        if deep and search.has_one_sign_only:
            _continue_curvature_search(search, main, goal, d)
        low = search.prove_spectrum_end(-1)
        high = search.prove_spectrum_end(1)
        negative = low.quotient < -low.error
        positive = high.quotient > high.error
        weak_end = (low if not negative else high) if negative != positive else None
        lowest, highest = search.full_spectrum_ends(low, high)
        firm = floor if floor > 0 else -np.inf
        below, above = lowest.enclosure
        least = max(firm, lowest.quotient)
        bounds = (
            max(search.n_negative, int(negative)),
            H.n - max(search.n_positive, int(positive)),
        )
        unexplained = deep and weak_end is not None and search.is_unexplained_zero(weak_end)
        seen = SpectrumEvidence(
            low=least,
            low_bounds=(max(firm, below), above),
            high=highest.quotient,
            high_bounds=highest.enclosure,
            n_symmetry=search.n_symmetry,
            n_negative_bounds=(0, 0) if floor > 0 else bounds,
            negative=negative,
            positive=positive,
            escape_direction=lowest.vector if negative else None,
            escape_curvature=least if negative else None,
            is_zero=H.norm == 0,
            smallest_magnitude_error=abs((weak_end or low).quotient) + H.zero_threshold,
            curvature_floor=floor,
            risk=risk,
            accepted_risk=ask.failure_probability,
            n_steps_needed=goal,
            has_unexplained_zero=unexplained,
            complement_ends=(low.quotient, high.quotient),
        )
        return (low, high), seen

    def check_kantorovich_theorem(self) -> tuple[KantorovichOutcome, float]:
        """Check Kantorovich's theorem, with ``1 / beta`` the proved lower bound on the curvature.
        Return the outcome, which is "untried" if no such bound is known, and the length of Newton's
        step, which is infinite if the step is not known.
        """
        ask = self.ask
        H = self.H
        g, off = self.gradient
        weakest = self.seen.curvature_floor
        self.step, self.left = self._newton_step()
        distance = safe_norm(self.step) if self.left <= MAX_STEP_RESIDUAL else np.inf
        if not (weakest > 0 and H.allows(1)):
            return UNTRIED_OUTCOME, distance
        rest = H(self.step) + g
        beta = SCALAR_ROUND_UP_FACTOR / weakest
        off = assumed_gradient_error(H.norm, ask.theta) if off != off else off
        rounding = 4 * EPS * (safe_norm(rest) + safe_norm(g))
        error = safe_norm(rest) + off + H.product_error_bound(self.step) + rounding
        eta = eta_bound(safe_norm(self.step), beta, error) * SCALAR_ROUND_UP_FACTOR
        return check_kantorovich(beta, eta, partial(third_bound, ask.ob, ask.theta)), distance

    def _newton_step(self) -> tuple[Floats, float]:
        """Return Newton's step (n,) and its residual divided by ``||g||``. The step comes from the
        Krylov space of g or, if the residual is then smaller, from MINRES.
        """
        g = self.gradient[0]
        search = self.search
        size = self.near.gradient_norm
        if size == 0 or self.left <= 1e-3 or search.budget.products_left < 20:
            return self.step, self.left
        step = newton_step(self.H, g, int(min(MAX_SOLVE_STEPS, search.budget.products_left // 2)))
        left = safe_norm(self.H(step) + g) / size
        return (step, left) if left < self.left else (self.step, self.left)

    def prove_two_signs(self, distance: float) -> TwoSignProof:
        """Return the `TwoSignProof` of a saddle by the vectors of both ends of the spectrum, for a
        Newton step of length `distance`. If their curvatures have no known opposite signs, its
        radius is 0 and it does not hold.
        """
        H = self.H
        seen = self.seen
        if not (seen.negative and seen.positive):
            return TwoSignProof(distance=distance)
        dots = 2 * H.n * EPS * H.norm  # rounding error of the dot product v'Hv
        bound = max(H.product_error_bound(end.vector) for end in self.ends) + dots
        error = bound * SCALAR_ROUND_UP_FACTOR + H.asymmetry
        third = partial(third_bound, self.ask.ob, self.ask.theta)
        return TwoSignProof(
            radius_of_opposite_signs(seen.low + error, seen.high - error, third), distance
        )

    def can_residuals_vanish(self) -> bool:
        """Return True if all residuals may be 0 at a point near theta, because no negative
        curvature was found.
        """
        return not self.seen.negative

    def zero_unstable_signs(self, pair: TwoSignProof) -> tuple[bool, bool]:
        """Return two flags: True if the signs of curvature are stable, and True if Newton's step
        reduces the gradient. Both are True without a measurement if a lower bound on the curvature
        or `pair` proves the verdict.
        """
        if pair.holds or self.seen.curvature_floor > 0:
            return True, True
        self._mark_weak_ends_unknown()
        # If the budget of products is used up, `H.short` reports this.
        with suppress(BudgetSpentError):
            self.keeps = self.keeps and self._has_stable_signs()
        return self.keeps, self.keeps and self._newton_step_converges()

    def _mark_weak_ends_unknown(self) -> None:
        """Mark the sign at an end of the spectrum as unknown if the curvature at that end is too
        weak to be measured again.
        """
        seen = self.seen
        zero = self.H.zero_threshold
        negative = seen.negative and -seen.low > zero
        positive = seen.positive and seen.high > zero
        dropped = seen.negative != negative, seen.positive != positive
        loose = seen.has_unexplained_zero or any(
            drop and not self.search.is_symmetry(end.vector)
            for drop, end in zip(dropped, self.ends)
        )
        self.seen = replace(seen, negative=negative, positive=positive, has_unexplained_zero=loose)

    def _weakest_pairs(self) -> tuple[Floats, Floats]:
        """Return Rayleigh quotients (k,) and the vectors (n, k) as columns: first those of both
        ends of the spectrum, then those of the smallest curvatures found.
        """
        main = self.main
        values = np.zeros(0)
        rows = np.zeros((0, self.H.n))
        if main is not None and main.m > N_TESTED_RITZ_VALUES:
            ritz, S = ritz_decomposition(main)
            chosen = np.argsort(np.abs(ritz))[:N_TESTED_RITZ_VALUES]
            values = ritz[chosen]
            rows = combine_basis_rows(main.rows[: main.m], S[:, chosen])
        columns = np.stack([*(end.vector for end in self.ends), *rows.astype(float)], axis=1)
        return np.append([end.quotient for end in self.ends], values), columns

    def _has_stable_signs(self) -> bool:
        """Return True if the curvatures of `_weakest_pairs` were measured to have stable signs,
        both along Newton's step and along their own vectors. Curvature below the thresholds for
        zero is not tested.
        """
        H = self.H
        ob = self.ask.ob
        theta = self.ask.theta
        g, off = self.gradient
        off = assumed_gradient_error(H.norm, theta) if off != off else off
        quotients, U = self._weakest_pairs()
        is_signed = np.abs(quotients) > max(H.zero_threshold, H.asymmetry)
        quotients = quotients[is_signed]
        U = U[:, is_signed]
        H.show_note("do signs last?")
        if not stable_curvature_mask(ob, theta, self.step, U, quotients, H.reserve_products).all():
            return False
        for quotient, u in zip(quotients, U.T):
            reach = (abs(float(g @ u)) + off) / abs(quotient)
            if not is_curvature_stable(ob, theta, u, float(quotient), reach, H.reserve_products):
                return False
        return True

    def _newton_step_converges(self) -> bool:
        """Return True if g is within its rounding error, or if the relative residual of Newton's
        step is at most `MAX_STEP_RESIDUAL` and the step reduces ||g|| to at most
        sqrt(`MAX_DECREMENT_RATIO_AFTER_STEP`) plus that residual, times ||g||.
        """
        g, off = self.gradient
        theta = self.ask.theta
        size = safe_norm(g)
        rounding = assumed_gradient_error(self.H.norm, theta)
        if size <= max(rounding, off if off == off else 0.0):
            return True
        there = gradient_after_step(self.ask.ob, theta, self.step)
        most = (MAX_DECREMENT_RATIO_AFTER_STEP**0.5 + self.left) * size + rounding
        return self.left <= MAX_STEP_RESIDUAL and there is not None and safe_norm(there) <= most

    def nearness_with_flat_ratio(self) -> Nearness:
        """Return the `Nearness` with ``||Hg|| / (||H|| ||g||)`` and the fraction of g outside the
        range of H added, from the Krylov space of g.
        """
        norm = self.H.norm
        size = self.near.gradient_norm
        return replace(
            self.near,
            flat_ratio=None if self.flat is None or norm == 0 else min(1.0, self.flat / norm),
            residual=self.residual,
            step_too_long=norm <= size / (MAX_RELATIVE_STEP * augmented_norm(self.ask.theta)),
        )

    def spectrum_evidence(self, proof: CriticalPointProof) -> SpectrumEvidence:
        """Return the `SpectrumEvidence`, without the inertia if the signs of curvature are not
        stable. If `proof` proves a zero of the residuals, the inertia is that of the minimum at
        this zero.
        """
        m = proof.n_residuals
        if proof.interpolation.holds:
            return replace(
                self.seen,
                n_positive=m,
                n_negative=0,
                n_zero=self.H.n - m,
                n_negative_bounds=(0, 0),
            )
        if self.keeps:
            return self.seen
        return replace(self.seen, n_positive=None, n_negative=None, n_zero=None)


def decrement_lower_bound(size: float, flat: float) -> float:
    """Return a lower bound on the decrement, from `size`, ``||g||``, and `flat`, ``||Hg|| /
    ||g||``. By the Cauchy-Schwarz inequality ``g'|H|^-1 g >= ||g||^3 / ||Hg||``. Return infinity if
    `flat` is 0.
    """
    return 0.5 * size * (size / flat) if flat > 0 else np.inf


def _newton_step_in_basis(run: Any, size: float) -> tuple[Floats, float]:
    """Return the coordinates (m,) of Newton's step of least residual in the basis of a Lanczos run
    from g, whose norm is `size`, and the residual divided by ``||g||``.
    """
    y, rest = least_residual_step(run, 1.0)
    return size * y, float(np.linalg.norm(rest))


class TimedOutInertia(InertiaByProducts):
    """The inertia if the time limit was reached before any product, so that only the gradient is
    known.
    """

    def __init__(self, ask: ClassifyOptions, H: BudgetedOperator) -> None:
        g = gradient_at(ask.ob, ask.theta, H)
        self.ask = ask
        self.H = H
        self.gradient = (g, np.nan)
        tol = np.nan if ask.gradient_tol is None else ask.gradient_tol
        self.near = Nearness(
            False, gradient_norm=safe_norm(g), gradient_tol=tol, budget_exhausted=True
        )


def is_far_from_critical_point(ask: ClassifyOptions, H: BudgetedOperator) -> bool:
    """Return True if a lower bound on the decrement, which holds for any signs of curvature, is at
    least ``1 / FAR_FROM_CRITICAL_FRACTION`` times the threshold, and the gradient is far above its
    rounding error. The cost is two products.

    By the Cauchy-Schwarz inequality ``g'|H|g <= ||g|| ||Hg||``, so ``g'|H|^-1 g >= ||g||^3 /
    ||Hg||``.
    """
    if not H.allows(2):
        return False
    g = gradient_at(ask.ob, ask.theta, H)
    size = safe_norm(g)
    along = safe_norm(H(g))
    H(as_rng(NORM_PROBE_SEED).standard_normal(H.n))
    if not (0 < size < np.inf and along < np.inf and H.norm > 0):
        return False
    decrement = decrement_lower_bound(size, along / size)
    return _is_clearly_not_critical(ask, size, decrement, H.norm_estimate)


def _is_clearly_not_critical(
    ask: ClassifyOptions, size: float, decrement: float, largest: float
) -> bool:
    """Return True if `FAR_FROM_CRITICAL_FRACTION` times the gradient norm `size` exceeds the
    assumed rounding error of the gradient, and theta is not near a critical point even if gradient
    norm and decrement are multiplied by this fraction. `largest` is an upper estimate of ``||H||``.
    """
    length = safe_norm(ask.theta)
    reach = largest * length * length
    part = FAR_FROM_CRITICAL_FRACTION
    rest = assess_nearness_by_decrement(
        ask.ob, ask.theta, part * size, part * decrement, reach, ask.gradient_tol
    )
    return not rest.near and assumed_gradient_error(largest, ask.theta) / part < size < np.inf


def _gradient_and_error(ask: ClassifyOptions, H: BudgetedOperator) -> tuple[Floats, float]:
    """Return the most accurate gradient (n,) available and a bound on its error. If theta is far
    from a critical point, return the plain gradient and NaN, which takes a tenth of the time.
    """
    if H.norm > 0 and certificate_method(ask.ob, "precise_gradient") is not None:
        g = gradient_at(ask.ob, ask.theta, H)
        size = safe_norm(g)
        if _is_clearly_not_critical(ask, size, size / H.norm_estimate * size, H.norm_estimate):
            return g, np.nan
    return finite_gradient_and_error(ask.ob, ask.theta, H)


def _continue_curvature_search(
    search: InertiaSearch, main: Recurrence | None, goal: int, d: Floats
) -> None:
    """Continue the search for negative curvature. If the run `main` ended before `goal` steps, use
    restarted Lanczos. If the scale factors `d` (n,) differ by more than a factor of 32, also run
    Lanczos in coordinates scaled by them.
    """
    H = search.H
    if main is not None and main.p and main.m < goal and search.budget.products_left > 20:
        lowest = min(search.candidates, key=lambda c: c[0])[1].astype(H.native_dtype)
        most = max(2, int(min(search.budget.products_left, goal - main.m)))
        pairs = raise_if_interrupted(
            eigsh(H.native, 1, "SA", tol=1e-6, max_products=most, v0=lowest, rng=search.rng)
        )
        H.record_products(pairs.n_products)
        search.add_candidate(float(pairs.values[0]), pairs.vectors[:, 0].astype(float))
    if d.max() > 32 * d.min():
        # Scaling d to at most 1 keeps its squares within the range of float32.
        steps = min(goal, MAX_BALANCED_STEPS)
        d = d / d.max()
        D = d.astype(H.native_dtype)
        balanced = LinearOperator(
            (H.n, H.n), lambda v: D * checked_product(H.native, D * v.reshape(-1)), dtype=D.dtype
        )
        search.run_lanczos(balanced, None, steps, d=d, stop=has_both_signs)
