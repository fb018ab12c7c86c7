"""Extreme eigenpairs of a symmetric operator by restarted Lanczos, each with a bound on its
error.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    as_rng,
    check_positive_int,
    check_rng,
    check_vectors,
    checked_product,
    operator_dtype,
)
from ..common.linalg import eigh, wanted_indices
from ..common.progress import NO_PROGRESS, ProgressBar, show_bar
from ..common.protocols import Array, Floats, OperatorLike, Seed, Which
from ..common.runtime import Interrupted, InterruptFlag, deferred_interrupts, with_nearest_rounding
from ..common.vectors import log_polynomial_growth
from ..krylov.lanczos import (
    Recurrence,
    aligned_rows,
    check_k_and_which,
    column_norms,
    combine_basis_rows,
    kept_ritz_indices,
    memory_owner,
    overflow_safe_norm,
    ritz_decomposition,
)
from ..krylov.trust_region import max_log_growth
from ..network.gram import gram_matrix
from .forms import QUICK_DENSE_MAX_N, Operand, as_operand, matrix_of
from .options import EigshOptions, basis_limit, dtype_eps, pairs_from_matrix, resolve_tol
from .results import MIN_MISSED_WITHIN_TOLS, Eigenpairs

# --------------------------------------------------------------------------------------------------
# The search for extreme eigenpairs: thick-restart Lanczos, repeated from new random starts until no
# missed copy of a multiple eigenvalue is found.
#
# A single start vector finds one eigenvector of each eigenspace, or one of a cluster of eigenvalues
# whose distances are below the residuals. Once the wanted pairs have converged, the basis is
# replaced by their vectors and by other Ritz vectors that contain no considerable part of a missed
# eigenvector; see `ThickRestartSearch.lock`. A random start in the complement of these vectors
# generates a separate Krylov space, the probe. The probe's space contains a further eigenvector for
# each repeated eigenvalue whose multiplicity was underestimated. Most vectors at the ends of the
# spectrum are already in the basis, so the probe's spectrum is narrow, and outliers appear within
# few steps. If the probe finds a wanted eigenvalue again, the search continues until the wanted
# pairs, counted with multiplicity, have converged, and then starts another probe. If it finds none,
# the coefficients of the probe determine the step at which a missed eigenvalue would have appeared;
# see `log_polynomial_growth`.

# maximum probability of a missed copy of a wanted eigenvalue; once it is reached, the search for
# copies of multiple eigenvalues ends; the probability is that of three standard deviations
MAX_MISS_PROBABILITY = 0.003
# A search for k pairs usually takes N_FIRST_PRODUCTS + N_PRODUCTS_PER_PAIR k products.
N_FIRST_PRODUCTS, N_PRODUCTS_PER_PAIR = 24, 4
# probability that `missed_within` is too small, if MAX_MISS_PROBABILITY was not reached
MISSED_WITHIN_PROBABILITY = 0.05
# maximum displacement of a missed eigenvalue by the Ritz vectors that a probe keeps, in units of
# the smallest distance of a wanted value from the innermost one; growth increases with the root of
# the distance, so the displacement reduces it by about 5%
MAX_SHIFT_RATIO = 0.1
# maximum number of remaining dimensions at which the search exhausts the space instead of starting
# a probe
MAX_EXHAUSTED_DIMENSIONS = 8
# Maximum products of a probe, as a fraction of the products made before it:
# MAX_QUICK_PROBE_FRACTION if the expected run time is short, else MAX_PROBE_FRACTION. A probe ends
# earlier once the probability of missing a repeated eigenvalue among the wanted ones is at most
# MAX_MISS_PROBABILITY. It may take as many products as were made before it if repeated eigenvalues
# have been found, or if a start has exhausted its space, because another start would need as many
# products to exhaust its space.
MAX_PROBE_FRACTION, MAX_QUICK_PROBE_FRACTION = 1 / 3, 0.6
# maximum cost of switching to a dense matrix, as a fraction of the products made
MAX_DENSE_COST_FRACTION = 0.25
PROGRESS_INTERVAL_SECONDS = 0.1  # seconds of steps between two reports of progress
# maximum number of rows of a Gram matrix that is decomposed instead of a search
GRAM_MAX_ROWS = 400
MAX_REDUCTION_PER_STEP = 2.5  # maximum factor by which a step reduces residuals
# time of a convergence check, and additional time per entry of T
CHECK_SECONDS, CHECK_SECONDS_PER_ENTRY = 5e-6, 20e-9
N_DISTANCES = 48  # number of distances that `missable_distances` examines
# smallest off-diagonal entry whose reciprocal, times numbers near 1, does not overflow
MIN_OFF_DIAGONAL = 1e-290
# maximum expected time of a search during which Ctrl-C is deferred to the end
MAX_UNINTERRUPTED_SECONDS = 1e-3


def extreme_pairs(
    operand: Operand,
    options: EigshOptions,
    seed: Seed,
    start: Array | None = None,
) -> Eigenpairs:
    """Run `eigsh` with checked options, and return the Eigenpairs. `start` (n, j) is `v0` of
    `eigsh` after its check, or None.
    """
    op = operand.op
    n = operand.n
    k = options.k
    dtype = options.dtype
    searches_copies = options.probe and start is None
    may_decompose = searches_copies and options.max_basis is None
    usual = N_FIRST_PRODUCTS + N_PRODUCTS_PER_PAIR * k
    if options.which in ("SA", "BE") and operand.is_semidefinite:
        # The GGN and the Fisher have many eigenvalues near 0, so a search for small eigenvalues
        # needs up to n products.
        usual = n
    usual = min(usual, options.max_products)
    if may_decompose and n <= options.max_products:
        if operand.is_matrix_faster(usual):
            P, n_products = matrix_of(op)
            return pairs_from_matrix(P, options, n_products)
        pairs = pairs_from_gram_matrix(op, options)
        if pairs is not None:
            return pairs
    tol = options.tol
    seconds = operand.product_seconds
    # The square of the loss of orthogonality, times the largest |lam|, adds to the residuals, so it
    # is limited to a fraction of the tolerance.
    max_basis = basis_limit(options, n)
    allowed = min(max(0.1 * tol**0.5, dtype_eps(dtype) ** 0.5), 3e-3)
    quick = seconds * usual < MAX_UNINTERRUPTED_SECONDS
    rng = as_rng(seed)
    silent = quick and not options.progress
    with (
        nullcontext(NO_PROGRESS) if silent else show_bar(None, "eigsh", options.progress) as shown,
        aligned_rows(memory_owner(op), (max_basis + 1, n), dtype) as rows,
    ):
        run = Recurrence(op, max_basis, orthogonality_tol=allowed, rows=rows)
        search = ThickRestartSearch(run, options, rng, seconds, quick=quick)
        search.progress_bar = shown
        search.may_switch_to_dense = may_decompose and n <= QUICK_DENSE_MAX_N
        pairs = search.solve(None if start is None else start.T.copy())
    if search.switch_to_dense:
        P, n_products = matrix_of(op)
        return pairs_from_matrix(P, options, pairs.n_products + n_products)
    if not (search.closed and options.outside) or pairs.interrupted:
        return pairs
    budget = options.max_products - pairs.n_products
    if budget < 1:
        return replace(pairs, converged=np.zeros(len(pairs), bool))
    # The start vectors have no components along the other eigenvectors, so the search is repeated
    # from a random start.
    options = options._replace(probe=True, max_products=budget)
    again = extreme_pairs(operand, options, rng)
    return replace(again, n_products=pairs.n_products + again.n_products)


def pairs_from_gram_matrix(op: OperatorLike, options: EigshOptions) -> Eigenpairs | None:
    """Return the k largest eigenpairs of a GGN or Fisher from its Gram matrix, or None if the
    operator has none of at most `GRAM_MAX_ROWS` rows, other pairs are wanted, or they do not
    converge. One product with each vector gives the values, by the Rayleigh-Ritz method, and the
    residuals.
    """
    if options.which not in ("LA", "LM"):
        return None
    gram = gram_matrix(op, GRAM_MAX_ROWS)
    if gram is None or options.k > len(gram.K):
        return None
    inner = pairs_from_matrix(gram.K, options)
    # The vectors of the largest eigenvalues are the most accurate, so that orthogonalisation begins
    # with them.
    V = gram.multiply_factor(inner.vectors[:, ::-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        V = V / np.sqrt(inner.values[::-1]).astype(V.dtype)
    if not np.isfinite(V).all():
        return None
    theta, V, residuals = rayleigh_ritz(op, V)
    scale = float(np.abs(theta).max())
    converged = residuals <= options.tol * scale
    if not converged.all():
        return None
    return Eigenpairs(
        values=theta,
        vectors=np.asfortranarray(V, options.dtype),
        residuals=residuals,
        converged=converged,
        n_products=options.k,
        scale=scale,
        tol=options.tol,
        probed=True,
        missed_within=0.0,
    )


def rayleigh_ritz(op: OperatorLike, V: Array) -> tuple[Floats, Floats, Floats]:
    """Return the Ritz values (k,) of an operator in the span of the columns of V (n, k), ascending,
    the Ritz vectors (n, k), and the norms of their residuals (k,), for k products.
    """
    Q = np.linalg.qr(V.astype(np.float64))[0]
    W = checked_product(op, Q.astype(operator_dtype(op), copy=False)).astype(np.float64, copy=False)
    theta, S = eigh(Q.T @ W)[:2]
    Q = Q @ S
    return theta, Q, column_norms(W @ S - Q * theta)


def _count_low_end(k: int, which: str) -> int:
    """Return the number of wanted pairs at the low end, for ``which`` other than LM."""
    return {"LA": 0, "SA": k, "BE": k // 2}[which]


class Outcome(Enum):
    """Outcome of a check of a probe."""

    COPIES_FOUND = -1  # the probe has changed the wanted values
    CONTINUE = 0
    PROBE_ENDED = 1


class ThickRestartSearch:
    """The search from a start vector to k converged pairs: extend the basis, test convergence,
    restart, and probe for missed copies. The search also ends when the budget of products is used
    up or Ctrl-C is pressed. The steps between two checks are compiled (`Recurrence.advance`).

    `price` is the estimated time of a product in seconds. If `quick` is True, Ctrl-C does not
    interrupt the search.
    """

    def __init__(
        self,
        run: Recurrence,
        options: EigshOptions,
        rng: np.random.Generator,
        price: float,
        *,
        quick: bool,
    ) -> None:
        self.run = run
        self.k = options.k
        self.which = options.which
        self.tol = options.tol
        self.price = price
        self.next_check = 0  # number of rows at the next check
        # number of rows at the last convergence check, and its largest ratio of a residual to its
        # allowed size; 0 rows if there was none
        self.last_check = 0
        self.last_excess = 0.0
        # The first check comes after half of the steps that the fastest convergence would take.
        if self.is_check_expensive(5 * self.k):
            self.next_check = self.k + int(
                0.5 * math.log(1 / self.tol) / math.log(MAX_REDUCTION_PER_STEP)
            )
        # first row of the last probe, and the row at which it ends at the latest
        self.probe_from = 0
        self.probe_until = 0
        # wanted values whose repetition could displace another wanted value
        self.probe_values: Floats = np.empty(0)
        self.is_quick = quick
        self.rng = rng
        # Values of `log_polynomial_growth` above which no eigenvalue has been missed, with a known
        # probability of error: the first ends a probe, the second determines `missed_within`.
        self.min_probe_growth = max_log_growth(run.n, MAX_MISS_PROBABILITY)
        self.min_missed_growth = max_log_growth(run.n, MISSED_WITHIN_PROBABILITY)
        self.max_products = options.max_products
        self.requires_probe = options.probe
        self.probe = options.probe  # True if probes are permitted
        self.probed = False  # True once `missed_within` is final
        self.found_copies = False  # True once repeated eigenvalues have been found
        # distance beyond the innermost wanted values at which an eigenvalue may have been missed
        self.missed_within = math.inf
        # (theta, bounds, coordinates) of the pairs that the last rows of the basis probe, also once
        # that probe has ended the search; None otherwise
        self.probed_pairs: tuple[Floats, Floats, Floats] | None = None
        # mask of the distances at which the first start may have missed an eigenvalue, from
        # `missable_distances`; None if unknown
        self.missable: Array | None = None
        # True if a dense decomposition may replace a long search, and True if it will
        self.may_switch_to_dense = False
        self.switch_to_dense = False
        self.has_given_start = False  # True if the first start is user-defined, not random
        self.interrupted = False  # True if `stop` ended the search
        self.stop = InterruptFlag()
        self.progress_bar: ProgressBar = NO_PROGRESS
        # True if the given start vectors span an invariant subspace, in which the search ended
        self.closed = False
        # a result that is returned if Ctrl-C interrupts the first product of another start
        self.held: Eigenpairs | None = None

    @property
    def is_probing(self) -> bool:
        """True if the last rows of the basis are those of a probe."""
        return self.probed_pairs is not None

    def solve(self, start: Array | None = None) -> Eigenpairs:
        """Run the search from the rows of `start` (j, n), or from a random vector if `start` is
        None, and return the Eigenpairs. Raise KeyboardInterrupt if Ctrl-C interrupts the first
        product.
        """
        run = self.run
        with nullcontext(InterruptFlag()) if self.is_quick else deferred_interrupts() as stop:
            self.stop = run.around = stop
            self.has_given_start = start is not None
            try:
                if start is None:
                    run.insert_random(self.rng)
                elif run.insert_block(start[: min(self._max_kept_width(), self.max_products)]) == 0:
                    raise ValueError("v0 must have a nonzero entry, got a vector of zeros.")
                if run.p == 1 or not self._multiply_start_block():
                    self.extend_basis()
                self.closed = self._is_start_invariant()
                for _ in range(3):
                    if self.switch_to_dense or not self._recompute_coarse_residuals():
                        break
                    self.extend_basis()
            except Interrupted:
                # A product was interrupted; the state before it is intact.
                self.interrupted = True
            # If Ctrl-C interrupted the first product, there is no result, except for a stored
            # result whose residuals were being computed.
            if run.m == 0:
                if self.held is None:
                    raise KeyboardInterrupt
                return replace(self.held, interrupted=True)
            return self._make_result()

    def _multiply_start_block(self) -> bool:
        """Multiply all start vectors by the operator. Return True if the wanted pairs have
        converged. Otherwise continue from the sum of the wanted Ritz vectors, because a block would
        take as many products in each step as it has vectors. If the start vectors span an invariant
        subspace, keep them.
        """
        run = self.run
        run.step()
        self.progress_bar.update(run.m)
        if self.check():
            return True
        affordable = run.n_products + 2 * self.k <= self.max_products
        if affordable and not self.is_probing and not self._is_start_invariant():
            self.held = self._make_result()
            run.reset()
            run.insert_block(self.held.vectors.sum(axis=1)[None])
            self.discard_last_check(self.k)
        return False

    # -- the loop
    # ----------------------------------------------------------------------------------------------

    def extend_basis(self) -> None:
        """Extend the basis until the wanted pairs have converged, the budget is used up, the space
        is exhausted, or a switch to a dense matrix is due.
        """
        run = self.run
        while True:
            if not self.is_quick and self.stop():
                self.interrupted = True
                return
            if run.p == 0 and run.m < run.dimension:
                if self.check():
                    return
                if run.p == 0:  # no probe has begun
                    if run.m >= run.capacity - 1 and run.capacity < run.dimension:
                        self.restart()
                    run.insert_random(self.rng)
            if run.m >= run.dimension or run.n_products + max(1, run.p) > self.max_products:
                if run.m >= run.dimension:  # the basis spans the whole space
                    self.probed = True
                    self.missed_within = 0.0
                    self.probed_pairs = None
                elif self.is_probing:  # evaluate the probe after its last steps
                    self.check()
                return
            if run.is_full and self.is_probing and self.check():
                return
            if self._is_dense_cheaper():
                self.switch_to_dense = True
                return
            if run.is_full:
                self.restart()
            before = run.n_products
            self._take_steps()
            self.progress_bar.update(run.n_products - before)
            if run.p and run.m >= max(self.next_check, self.k) and self.check():
                return

    def _take_steps(self) -> None:
        """Take steps until a check is due, or for `PROGRESS_INTERVAL_SECONDS`."""
        run = self.run
        if run.p != 1:
            run.step()
            return
        max_steps = run.m + self.max_products - run.n_products
        if run.capacity < run.dimension:
            max_steps = min(max_steps, run.capacity)  # at this number of rows the basis is full
        # At this number of rows, switching to a dense matrix may have become cheaper.
        if self.may_switch_to_dense:
            n_until = math.ceil(run.n / self._max_dense_cost()) - run.n_products
            max_steps = min(max_steps, run.m + max(n_until, 1))
        until = max(min(max_steps, max(self.next_check, self.k)), run.m + 1)
        with run.around:
            run.advance(until, PROGRESS_INTERVAL_SECONDS)

    def _max_dense_cost(self) -> float:
        """Return the maximum cost of a dense matrix as a fraction of the products made. The
        fraction is 1 once repeated eigenvalues have been found, because each further eigenvector
        takes a separate run.
        """
        return 1.0 if self.found_copies else MAX_DENSE_COST_FRACTION

    def _is_dense_cheaper(self) -> bool:
        """Return True if switching to a dense matrix is permitted and costs at most
        `_max_dense_cost` times as much as the products made so far.
        """
        run = self.run
        return (
            self.may_switch_to_dense
            and run.n_products + run.n <= self.max_products
            and run.n <= run.n_products * self._max_dense_cost()
        )

    def check(self) -> bool:
        """Compare the wanted Ritz pairs with the tolerance or, in a probe, with their values before
        it. Return True if the search is complete. Otherwise begin or end a probe, or narrow the
        block and schedule the next check, and return False.
        """
        run = self.run
        if run.m < min(self.k, run.dimension):
            self.next_check = self.k
            return False
        if self.is_probing:
            return self._process_probe(self.check_probe())
        theta, excess = run.check_convergence(self.k, self.which, self.tol)
        worst = float(excess.max())
        if not self.is_quick:
            self.progress_bar.note(f"{int((excess <= 1).sum())} of {self.k} converged")
        if worst <= 1:
            return not self._begin_probe(theta)
        self.schedule_check(worst)
        if run.m == self.k and run.p > 1:
            S = run.ritz_pairs(self.k, self.which)[1]
            run.narrow_block(run.coupling() @ S[:, excess > 1])
        return False

    # -- convergence checks
    # ----------------------------------------------------------------------------------------------

    def is_check_expensive(self, m: int) -> bool:
        """Return True if two convergence checks of m rows take longer than a product."""
        return 2 * (CHECK_SECONDS + CHECK_SECONDS_PER_ENTRY * m * m) > self.price

    def allowed_error(self) -> float:
        """Return the allowed error of a Ritz value: the tolerance, or twice the measured rounding
        if that is larger.
        """
        return max(self.tol * self.run.scale, 2 * self.run.noise)

    def schedule_check(self, excess: float) -> None:
        """Schedule the next convergence check for the step at which the extrapolated residuals will
        have converged. The argument `excess` is the largest ratio of a residual to its allowed
        size.

        The next check comes after at most an eighth of the number of rows, or a 24th near
        convergence, because products made after convergence are wasted. No check comes before the
        fastest possible convergence. If a check is expensive, the rate of convergence between the
        last two checks determines the step.
        """
        m = self.run.m
        ahead = max(2, m // (8 if excess > 30 else 24))
        left = math.log(excess)
        expensive = self.is_check_expensive(m)
        if self.last_check and excess < self.last_excess:
            rate = math.log(self.last_excess / excess) / (m - self.last_check)
            if expensive:
                ahead = max(1, int(min(left / rate + 0.9, ahead + 2)))
            else:
                ahead = min(ahead, max(1, int(0.7 * left / rate)))
        fastest = left / math.log(MAX_REDUCTION_PER_STEP)
        ahead = max(ahead, int(min(m if expensive else m // 2, fastest)))
        self.last_check = m
        self.last_excess = excess
        self.next_check = m + ahead

    def discard_last_check(self, next_check: int) -> None:
        """Discard the result of the last convergence check, so that the next check does not compute
        a rate of convergence from it.
        """
        self.last_check = 0
        self.next_check = next_check

    def distances_to_innermost(self, theta: Floats) -> tuple[Floats, Array, float]:
        """Return distances of the wanted Ritz values theta (k,) from the innermost one.

        Returns
        -------
        distance : array (k,)
            Distance of each value from the innermost wanted value at its end of the spectrum.
        far : array (k,) of bool
            True where the distance exceeds twice the allowed error of the innermost value.
        near : float
            Largest of the other distances, or 0 if it is only rounding.
        """
        if self.which == "LM":
            distance = np.abs(theta) - np.abs(theta).min()
        else:
            low, high = np.split(theta, [_count_low_end(len(theta), self.which)])
            distance = np.append(low.max(initial=-np.inf) - low, high - high.min(initial=np.inf))
        far = distance > 2 * self.allowed_error()
        near = float(distance[~far].max(initial=0.0))
        return distance, far, near if near > 4 * self.run.noise else 0.0

    def _is_start_invariant(self) -> bool:
        """Return True if a user-defined start spans an invariant subspace, up to the tolerance.
        Such a start contains no information on eigenvalues of other subspaces, which may be further
        out.
        """
        run = self.run
        return (
            self.has_given_start
            and 0 < run.m < run.dimension
            and overflow_safe_norm(run.coupling().ravel()) <= self.tol * run.scale
        )

    # -- probes for missed repeated eigenvalues
    # ----------------------------------------------------------------------------------------------

    def _begin_probe(self, theta: Floats) -> bool:
        """Begin a probe for repeated eigenvalues. Return False if none is needed, because no
        further eigenvector could displace the innermost wanted value by more than that value's
        allowed error. Return True if a probe was begun, or if the search continues because the end
        of the space is near.

        The bounds of the pairs include the rounding of the Ritz vectors that replace the basis. If
        a bound then exceeds the tolerance, `_recompute_coarse_residuals` measures the residual.
        """
        run = self.run
        if not self.probe or run.m >= run.dimension or self._is_start_invariant():
            return False
        steps_left = run.dimension - run.m
        if (
            steps_left <= MAX_EXHAUSTED_DIMENSIONS
            and run.capacity >= run.dimension
            and run.n_products + steps_left <= self.max_products
        ):
            self.next_check = run.dimension
            return True
        far = self.distances_to_innermost(theta)[1]
        self.missable = None
        if run.p and run.tridiagonal:
            self.missable = self.missable_distances(theta)[0]
        if not far.any():
            self._set_missed_within(theta)
            return False
        steps = run.n_products
        if not run.p:
            # allow more steps, because the exhausted start has missed further eigenvalues
            steps += 4
        elif not self.found_copies:
            steps = int((MAX_QUICK_PROBE_FRACTION if self.is_quick else MAX_PROBE_FRACTION) * steps)
        steps = max(steps, 4)
        room = run.m
        if run.capacity < run.dimension:
            room = run.capacity - steps - 2 * run.p
        self.lock(max(room, self.k))
        theta, S, _, limits = run.ritz_pairs(self.k, self.which)
        self.probed_pairs = (theta, limits, S)
        self.probe_values = theta[self.distances_to_innermost(theta)[1]]
        self.probe_from = run.m
        run.insert_random(self.rng)
        self.probe_until = run.m + steps
        self.next_check = run.m + 2
        return True

    def check_probe(self) -> Outcome:
        """Compare the wanted values with those before the probe, and schedule the next check if the
        probe continues.

        The probe ends once `log_polynomial_growth` of its rows is at least `min_probe_growth` at
        every wanted value whose repetition could displace another wanted value.
        """
        run = self.run
        assert self.probed_pairs is not None
        values = self.probed_pairs[0]
        growth = float(self._probe_growth(self.probe_values).min(initial=np.inf))
        ended = (
            run.p == 0
            or growth >= self.min_probe_growth
            or run.m >= self.probe_until
            or (run.capacity < run.dimension and run.m + 2 * run.p > run.capacity + 1)
        )
        if ended or not self.is_check_expensive(4 * run.m):
            theta = np.asarray(np.linalg.eigvalsh(run.T[: run.m, : run.m]), np.float64)
            changes = np.abs(theta[wanted_indices(theta, self.k, self.which)] - values)
            if run.m >= run.dimension or (changes > self.allowed_error()).any():
                return Outcome.COPIES_FOUND
        if ended:
            return Outcome.PROBE_ENDED
        steps = run.m - self.probe_from
        steps = max(2, int(0.7 * steps * (self.min_probe_growth / max(growth, 1.0) - 1)))
        self.next_check = min(run.m + steps, self.probe_until)
        return Outcome.CONTINUE

    def _probe_growth(self, at: Floats) -> Floats:
        """Return `log_polynomial_growth` of the rows of the last start at some points. If the start
        has exhausted its space, the norm of the last remainder serves as a further off-diagonal
        entry, so that only eigenvectors of Ritz values can be almost orthogonal to the start.
        """
        run = self.run
        T = run.T[self.probe_from : run.m, self.probe_from : run.m]
        diagonal = np.diagonal(T)
        off_diagonal = np.diagonal(T, 1)
        if run.p == 0 and len(T):
            diagonal = np.append(diagonal, 0.0)
            off_diagonal = np.append(off_diagonal, max(run.err[run.m - 1], MIN_OFF_DIAGONAL))
        return log_polynomial_growth(diagonal, off_diagonal, at)

    def missed_distance(self, theta: Floats) -> float:
        """Return the largest distance of a value of theta (k,) that `distances_to_innermost` marks
        as far and at which the probe may have missed a repeated eigenvalue. Return 0 if there is
        none.
        """
        distance, far, _ = self.distances_to_innermost(theta)
        missed = far & (self._probe_growth(theta) < self.min_missed_growth)
        return float(distance[missed].max(initial=0.0))

    def missable_distances(self, theta: Floats) -> tuple[Array, float]:
        """Examine N_DISTANCES distances beyond the innermost wanted values theta (k,), in geometric
        progression from the tolerance to twice `scale`. Return a mask of those at which both the
        last start and the first one, if `missable` is known, may have missed an eigenvalue, at
        either end, and the largest of these distances, or 0.
        """
        factor = (2 / self.tol) ** (1 / (N_DISTANCES - 1))
        beyond = self.tol * self.run.scale * factor ** np.arange(N_DISTANCES)
        if self.which == "LM":
            high = np.abs(theta).min()
            low = -high
        else:
            n_low = _count_low_end(self.k, self.which)
            low = theta[:n_low].max(initial=-np.inf)
            high = theta[n_low:].min(initial=np.inf)
        at = np.stack([low - beyond, high + beyond])
        finite = np.isfinite(at)
        growth = np.full(at.shape, np.inf)
        growth[finite] = self._probe_growth(at[finite])
        missable = np.asarray((growth < self.min_missed_growth).any(axis=0))
        if self.missable is not None:
            missable = missable & self.missable
        return missable, float(beyond[missable].max(initial=0.0))

    def _process_probe(self, outcome: Outcome) -> bool:
        """Process the outcome of a check of the probe. Return True if the probe ended without
        changing the wanted values. If it changed them, continue the search without a probe. If it
        may have missed eigenvalues, switch to a dense matrix if that is cheaper.
        """
        run = self.run
        if outcome is Outcome.PROBE_ENDED and self.probed_pairs is not None:
            theta = self.probed_pairs[0]
            missed = self.missed_distance(theta) if run.m > self.probe_from else 0.0
            if missed > 2 * self.tol * run.scale:
                self.switch_to_dense = self._is_dense_cheaper()
            self._set_missed_within(theta, missed)
        elif outcome is Outcome.COPIES_FOUND:
            self.found_copies = True
            self.probed_pairs = None
            self.discard_last_check(run.m + 2)
        return outcome is Outcome.PROBE_ENDED

    def _set_missed_within(self, theta: Floats, missed: float = 0.0) -> None:
        """Set `missed_within` at the end of the search, from the distance `missed` at which the
        last probe may have missed an eigenvalue. The value is at least the uncertainty due to the
        residuals, because these could hide an eigenvalue within that distance of the innermost
        wanted one.
        """
        run = self.run
        resolved = self.tol * run.scale
        near = self.distances_to_innermost(theta)[2]
        least = 2 * resolved if run.p else 0.0
        if missed > 2 * resolved:
            # at least the smallest value of `missed_within` that results report
            near = max(missed, (MIN_MISSED_WITHIN_TOLS + 1) * resolved)
        if self.missable is not None and self.missable.any() and run.p:
            least = max(least, self.missable_distances(theta)[1])
        self.missed_within = max(near, least)
        self.probed = True

    # -- rare operations on the basis
    # ----------------------------------------------------------------------------------------------

    def _max_kept_width(self) -> int:
        """Return the maximum number of rows of the next block that a restart can keep in addition
        to the k wanted vectors.
        """
        run = self.run
        if run.capacity >= run.dimension:
            return run.dimension
        return max(1, (run.capacity + 1 - self.k) // 3)

    def restart(self) -> None:
        """Replace the basis by the Ritz vectors that `kept_ritz_indices` selects."""
        run = self.run
        widest = self._max_kept_width()
        if run.p > widest:
            run.narrow_block(run.coupling() @ run.ritz_pairs(self.k, self.which)[1], widest)
        theta, S = ritz_decomposition(run)
        room = run.capacity + 1 - 3 * max(run.p, 1)
        keep = kept_ritz_indices(theta, self.k, self.which, max(room, 1))
        # vectors that are computed even after Ctrl-C
        least = wanted_indices(theta[keep], self.k, self.which)
        run.restart(theta[keep], S[:, keep], stop=self.stop, least=least)
        self.discard_last_check(run.m + 1)

    def lock(self, most: int) -> None:
        """Replace the basis by at most `most` Ritz vectors, so that a random start in their
        complement finds eigenvectors that the basis has missed.

        A missed eigenvector, with eigenvalue mu, may lie partly in the basis. Its component along
        the Ritz vector with value theta and residual r is at most ``r / |theta - mu|``, and the
        operator restricted to the complement of a set of Ritz vectors has an eigenvalue that is
        farther inside than mu by at most the sum of ``r^2 / |theta - mu|``. The set consists of the
        wanted vectors, whose residuals are within the tolerance, and of others as long as this sum
        is small, for mu at any of the wanted values of which a copy is searched for.
        """
        values, _, residuals = self.run.ritz_spectrum()
        wanted = wanted_indices(values, self.k, self.which)
        distances, far, _ = self.distances_to_innermost(values[wanted])
        gaps = np.abs(values[:, None] - values[wanted][far]).min(axis=1)
        gaps[wanted] = np.inf
        shifts = residuals * (residuals / gaps)
        shifts[wanted] = -1.0  # the wanted vectors are the first in the order
        order = shifts.argsort()
        sums = shifts[order[self.k :]].cumsum()
        n_others = sums.searchsorted(MAX_SHIFT_RATIO * distances[far].min(), side="right")
        keep = np.sort(order[: min(self.k + n_others, most)])
        self.run.lock(values[keep], self.run.ritz_vectors(keep).T)

    # -- the end
    # ----------------------------------------------------------------------------------------------

    def _current_values(self) -> tuple[Floats, Floats]:
        """Return the Ritz values (k,) of the wanted pairs and bounds (k,) on their residuals, from
        the current basis.
        """
        if self.probed_pairs is not None:
            return self.probed_pairs[:2]
        self.run.reorthogonalise()
        theta, _, _, limits = self.run.ritz_pairs(self.k, self.which)
        return theta, limits

    def _current_vectors(self) -> Array:
        """Return the Ritz vectors (k, n) of the pairs of `_current_values`, as rows."""
        run = self.run
        if self.probed_pairs is not None:
            m, S = self.probe_from, self.probed_pairs[2]
        else:
            m, S = run.m, run.ritz_pairs(self.k, self.which)[1]
        # The basis is not extended further, so the memory can hold the results.
        run.release_locked_direction()
        return combine_basis_rows(run.rows[:m], S)

    def _recompute_coarse_residuals(self) -> bool:
        """Compute the residuals of the wanted pairs by products if their bounds exceed the
        tolerance although the search has converged. Return True if the search must continue.
        """
        run = self.run
        if self.interrupted or run.n_products + self.k > self.max_products:
            return False
        theta, limits = self._current_values()
        if (
            not self.is_probing
            and (run.check_convergence(self.k, self.which, self.tol)[1] > 1).any()
        ):
            return False
        if (limits <= self.tol * run.scale).all():
            return False
        self.held, self.probed_pairs = self._make_result(), None
        run.reset()
        run.insert_block(self.held.vectors.T.copy())
        run.step()
        self.held = None
        self.progress_bar.update(run.m)
        theta, S, _, limits = run.ritz_pairs(self.k, self.which)
        if run.p == 0 or (limits <= self.tol * run.scale).all():
            return False
        run.narrow_block(run.coupling() @ S)
        self.probe = False
        self.discard_last_check(run.m + 1)
        return True

    def _make_result(self) -> Eigenpairs:
        """Return the Eigenpairs that the current basis gives."""
        run = self.run
        theta, limits = self._current_values()
        converged = limits <= self.tol * run.scale
        unknown = self.missed_within > MIN_MISSED_WITHIN_TOLS * self.tol * run.scale
        if self.requires_probe and unknown and self.k > 1 and not self.closed:
            # The search may have missed a copy of an eigenvalue near the innermost wanted value.
            converged &= self.distances_to_innermost(theta)[0] > self.missed_within
        return Eigenpairs(
            values=theta,
            vectors=self._current_vectors().T,
            residuals=limits,
            converged=converged,
            n_products=run.n_products,
            scale=run.scale,
            tol=self.tol,
            probed=self.probed,
            missed_within=self.missed_within,
            interrupted=self.interrupted,
            asymmetry=run.asymmetry,
        )


@with_nearest_rounding
def eigsh(
    op: OperatorLike,
    k: int = 6,
    which: Which = "LM",
    *,
    tol: float | None = None,
    max_products: int | None = None,
    max_basis: int | None = None,
    v0: ArrayLike | None = None,
    probe: bool | None = None,
    rng: Seed = None,
    progress: bool | None = None,
) -> Eigenpairs:
    """Compute the k extreme eigenpairs of a symmetric operator, each with a bound on its error.

    The method is thick-restart Lanczos with full reorthogonalisation. It is repeated from new
    random starts orthogonal to the basis until no missed copy of a multiple eigenvalue is found.
    Without `v0`, `max_basis` and ``probe=False``, the matrix is decomposed instead if n is at most
    64, or, for n up to 1000, once a search has become so long that a decomposition takes no longer,
    unless `max_products` is too small to form it. For the curvature of a network the times of
    products are estimated, and the matrix is decomposed from the start, or used for the products of
    the search, if that is faster.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator H. Only products with H are needed; ``op.product(v, out)`` is
        used if it exists. If the matrix is formed, several vectors are multiplied at once.
    k : int
        Number of eigenpairs, 1 <= k <= n.
    which : str
        ``"LM"`` selects the largest magnitudes, ``"LA"`` the largest eigenvalues, ``"SA"`` the
        smallest eigenvalues, and ``"BE"`` k // 2 of the smallest and the rest of the largest
        eigenvalues. The default is that of SciPy.
    tol : float, optional
        Tolerance of the residual ``||H u - lam u||``, relative to the largest ``|lam|`` found. The
        default is 1e-8 in float64 and 2e-5 in float32. Values below ``16 eps`` are increased to
        ``16 eps``. The error of an eigenvalue is at most its residual, and usually of the order of
        the square of the residual.
    max_products : int, optional
        Maximum number of products, after which the current pairs are returned, with `converged` set
        accordingly. The default is ``20 n``, but at least 1000.
    max_basis : int, optional
        Maximum number of vectors of length n that are kept, at least ``k + 3`` if n allows. The
        memory is about ``(max_basis + k + 2) n`` numbers, and another ``8 n`` if blocks are needed.
        By default the vectors take at most 512 MB and their number is at most 300, but at least ``2
        k + 20``, and never above n.
    v0 : ndarray, shape (n,) or (n, j), optional
        Start vectors, of which the first ``(max_basis - k) / 3`` are used. Several vectors cost one
        product each. If the wanted pairs have then not converged, the search continues from the sum
        of their Ritz vectors. If the start vectors span an invariant subspace, up to the tolerance,
        they give no information about other eigenvalues, and the search starts again from a random
        vector. With ``probe=False`` the search does not start again.
    probe : bool, optional
        Whether to search with new random starts for copies of multiple eigenvalues, and for
        eigenvalues that the tolerance does not separate, because one start finds only one of each.
        Each start continues until it would have found a copy of any wanted value except the
        innermost, with a probability of error of 0.3%. If no copy is found, this usually adds a
        fifth to the products, and at most a third (60% if the search is expected to take less than
        a millisecond), or 4 products. If that is not enough,
        `missed_within` and the repr of the result state what may have been missed, and pairs that
        may lack a copy are not `converged`. If the Krylov space of a start is exhausted, as for a
        matrix with few distinct eigenvalues, further starts with up to as many products follow. The
        default is True unless `v0` has several columns. If the spectrum is known to be simple,
        ``probe=False`` saves these products. From the same start the search then takes no more
        products than ARPACK, which restarts in a smaller basis.
    rng : None, int or numpy.random.Generator
        Seed of the random choices; the same number gives bitwise identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    Eigenpairs
        The fields are `values` (k,), ascending, `vectors` (n, k), `residuals` (k,), `converged`
        (k,) and `n_products`. The result unpacks as in SciPy, ``w, V = eigsh(H)``. Some eigenvalue
        lies within ``residuals[i]`` of ``values[i]``. The pairs are the k wanted ones, including
        copies of multiple eigenvalues, with high probability, but this is not certified. If a copy
        is missing, an eigenvalue farther from the end of the spectrum takes its place. Its distance
        is at most `missed_within`, with a probability of error of 5%. There are fewer than k pairs
        if the budget or Ctrl-C ended the run before k products. Residuals are those of the computed
        products, so an enclosure also needs the operator's own rounding bound. They include the
        asymmetry measured in the products, `asymmetry`, but are not valid bounds for an operator
        that is not symmetric.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or the operator returns NaN or infinity.
    KeyboardInterrupt
        On Ctrl-C before the end of the first product, while a matrix is computed, or in a search of
        milliseconds. Otherwise the result so far is returned, with ``interrupted=True``.

    See Also
    --------
    eigvalsh, inertia : all eigenvalues, for small n.
    spectral_density : the distribution of all eigenvalues, for large n.

    References
    ----------
    .. [1] K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
           SIAM J. Matrix Anal. Appl. 22 (2000).
    .. [2] H. Simon, The Lanczos algorithm with partial reorthogonalization, Math. Comp. 42 (1984).
    .. [3] B. N. Parlett, The Symmetric Eigenvalue Problem, SIAM, 1998, ch. 13.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = eigsh(np.diag([-3.0, 0.0, 1.0, 5.0]), k=2, which="BE", rng=0)
    >>> np.allclose(pairs.values, [-3, 5]) and bool(pairs.converged.all())
    True
    """
    operand = as_operand(op)
    n = operand.n
    dtype = operand.dtype
    start = None if v0 is None else check_vectors(v0, n, "v0", dtype)
    # Several columns are approximate eigenvectors; a single column is an ordinary start vector.
    several = start is not None and start.shape[1] > 1
    options = EigshOptions(
        check_k_and_which(k, which, n),
        which,
        dtype,
        tol=resolve_tol(tol, dtype),
        max_products=max(1000, 20 * n)
        if max_products is None
        else check_positive_int(max_products, "max_products"),
        max_basis=None if max_basis is None else check_positive_int(max_basis, "max_basis"),
        probe=not several if probe is None else bool(probe),
        progress=progress,
        outside=probe is None or bool(probe),
    )
    return extreme_pairs(operand, options, check_rng(rng), start)
