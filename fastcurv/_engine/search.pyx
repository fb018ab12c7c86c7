"""A search for the ends of a spectrum: the loop from a start vector to converged pairs, probes for
missed repeated eigenvalues, and bounds on what a random start may have missed.

One start finds one vector of each eigenspace. Once the wanted pairs have converged, the basis is
kept, the next block is set aside, and a random start in the complement of both generates a Krylov
space of its own (a probe). This space contains a further eigenvector for each repeated eigenvalue
whose multiplicity was underestimated, and nothing that the basis contains, so that its spectrum is
narrow and outliers appear within few steps. If such a copy of an eigenvalue appears, the search
continues until the wanted pairs, copies included, have converged, and then starts another probe. If
none appears, the run itself shows at which step one would have appeared; see `growth`.
"""
import numpy as np

from libc.math cimport INFINITY, ceil, fabs, fmax, fmin, hypot, isfinite, log, sqrt

# --- a search -------------------------------------------------------------------------------------

cdef enum:
    N_DISTANCES = 48            # number of distances that `missable_distances` examines
    MAX_ROWS_ASIDE = 8          # maximum number of rows that are set aside
    # remaining dimensions up to which the space is exhausted instead of starting a probe
    MIN_ROWS_FOR_PROBE = 8

# Maximum products of a probe for repeated eigenvalues, as a fraction of the products made before
# it: PROBE_FRACTION, or QUICK_PROBE_FRACTION if these take little time. A probe ends earlier once a
# copy of any wanted value would be missed with at most the probability `sure`. It may take as many
# products as before it if copies have been found, or if a start has exhausted its space, since
# another start then needs as many products to exhaust its own.
cdef double PROBE_FRACTION = 0.25, QUICK_PROBE_FRACTION = 0.5
# maximum cost of a dense matrix instead, as a fraction of the products made
cdef double DENSE_FRACTION = 0.25
# residuals below eps ** ROUNDING_EXPONENT times the noise count as rounding
cdef double ROUNDING_EXPONENT = -0.25
# maximum residual, relative to `scale`, of pairs that are kept in addition at a new start
cdef double KEEP_RESIDUAL = 1e-3
cdef double MAX_REDUCTION_PER_STEP = 2.5  # maximum factor by which one step reduces residuals
cdef double SLICE_SECONDS = 0.1  # seconds of steps after which progress is shown
# off-diagonal entries of this size have an inverse that can be multiplied by numbers near 1
cdef double MIN_OFF_DIAGONAL = 1e-290


cdef class EigenSearch:
    """A search for k pairs; rare operations are in `fastcurv.spectrum.eigsh.ThickRestart`,
    which creates these objects and sets their options.

    Parameters
    ----------
    run : Lanczos
    k, which, tol, by_value : int, str, float, bool
        The wanted values, and their tolerance.
    price : float
        Estimated seconds per product.
    """
    cdef readonly Lanczos run
    cdef readonly Py_ssize_t k
    cdef readonly str which
    cdef readonly double tol
    cdef readonly bint by_value
    cdef public Py_ssize_t next_check, max_products
    cdef public Py_ssize_t probe_from  # first row of the probe
    cdef public Py_ssize_t probe_until  # row at which the probe ends at the latest
    # values of `growth` from which on nothing is missed, for a probe to end (`sure`) and for
    # `unseen` (`risk`)
    cdef public double sure, risk
    cdef public bint given      # the first start is user-defined, not random
    # ratio of `unseen` to the tolerance up to which `unseen` is not shown
    cdef public double left_open
    cdef public double unseen   # see `Eigenpairs`
    cdef public bint quick      # expected run time is too short to be noticed
    cdef public bint probe, probed, copies, interrupted
    # whether a dense decomposition may replace a long search, and whether it will
    cdef public bint may_switch_to_dense, switch_to_dense
    cdef public object rng, shown, stop
    # (theta, bounds, coordinates) of the pairs for which a probe runs or has ended
    cdef public tuple settled
    # mask of distances at which the first start may have missed an eigenvalue, see
    # `missable_distances`; None: not known
    cdef object missable
    cdef double seconds_per_product, last_excess
    # rows at the last convergence check, whose result is `last_excess`; 0: there was none
    cdef Py_ssize_t last_check
    # result of the convergence check that ended `advance_until_converged`
    cdef object seen
    cdef Scratchpad numbers

    def __init__(
        self, Lanczos run, Py_ssize_t k, str which, double tol, bint by_value,
        double seconds_per_product
    ):
        self.run, self.k, self.which, self.tol, self.by_value = run, k, which, tol, by_value
        self.seconds_per_product = seconds_per_product
        self.unseen, self.numbers = INFINITY, Scratchpad()
        # half of the steps that the fastest convergence takes come before the first check
        if self.check_is_expensive(5 * k):
            self.next_check = k + <Py_ssize_t>(0.5 * log(1 / tol) / log(MAX_REDUCTION_PER_STEP))

    # --- the loop

    cdef bint spent(self) noexcept:
        return self.run.n_products + max(1, self.run.p) > self.max_products

    cdef double dense_fraction(self) noexcept:
        """Return the fraction of the products made that a dense matrix may cost: all of them once
        repeated eigenvalues were found, since each copy takes a run of its own.
        """
        return 1 if self.copies else DENSE_FRACTION

    cdef bint dense_is_cheaper(self) noexcept:
        """Return True if a dense matrix costs at most its fraction of the products made."""
        cdef Lanczos run = self.run
        return (
            self.may_switch_to_dense and run.n_products + run.n <= self.max_products
            and run.n <= run.n_products * self.dense_fraction()
        )

    def grow(self):
        """Extend the basis until the wanted pairs have converged, the budget is used up or the
        space is exhausted.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t before
        cdef int found
        while True:
            if not self.quick and self.stop():
                self.interrupted = True
                return
            if run.p == 0 and run.m < run.dimension:
                if self.is_done():
                    return
                if run.p == 0 and run.m >= run.capacity - 1 and run.capacity < run.dimension:
                    self.restart()
                if run.p == 0:
                    run.insert_random(self.rng)
            if run.m >= run.dimension and run.aside and not self.spent():
                self.fetch_aside()
            if run.m >= run.dimension or self.spent():
                if run.m >= run.dimension:  # the basis spans the whole space
                    self.probed, self.unseen, self.settled = True, 0, None
                elif self.settled is not None:  # the last steps of a probe count, too
                    self.is_done()
                return
            if run.is_full() and self.settled is not None and self.is_done():
                return
            if self.dense_is_cheaper():
                self.switch_to_dense = True
                return
            if run.is_full():
                self.restart()
            before = run.n_products
            found = self.steps()
            self.shown.update(run.n_products - before)
            if found and self.settled is not None:
                if self.end_probe(found):
                    return
            elif found and run.p and self.is_done():
                return

    cdef int steps(self) except -2:
        """Make steps until a decision is due, or for about 0.1 s. Return as
        `advance_until_converged` does; after a block step, return 1 if a convergence check is due.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t most = run.m + self.max_products - run.n_products
        before = None if self.settled is None else self.settled[0]
        if run.p != 1:
            run.step()
            if run.m < self.next_check:
                return 0
            return 1 if before is None else self.check_probe(before, self.sure)
        if run.capacity < run.dimension:
            most = min(most, run.capacity)  # the basis is full at that row
        # at that row, a dense matrix may have become cheaper
        if self.may_switch_to_dense:
            most = min(
                most,
                run.m + max(<Py_ssize_t>ceil(run.n / self.dense_fraction()) - run.n_products, 1)
            )
        with run.around:
            return self.advance_until_converged(most, SLICE_SECONDS, before, self.sure)

    def is_done(self):
        """Compare the wanted Ritz pairs with the tolerance; return True once the search is
        complete.
        """
        cdef Lanczos run = self.run
        cdef double worst
        if run.m < min(self.k, run.dimension):
            self.next_check = self.k
            return False
        if self.settled is not None:
            return self.end_probe(self.check_probe(self.settled[0], self.sure))
        theta, known, excess, apart = self.check_convergence()
        worst = max(excess.tolist())
        if not self.quick:
            self.shown.note(f"{int((excess <= 1).sum())} of {self.k} converged")
        if worst <= 1:
            return not self.begin_probe(theta, known)
        if apart:
            self.fetch_aside()
        self.schedule(worst)
        if run.m == self.k and run.p > 1:
            S = run.ritz(self.k, self.which)[1]
            run.narrow_block(run.coupling() @ S[:, excess > 1])
        return False

    def is_closed(self):
        """Return True if a user-defined start spans an invariant subspace, up to the tolerance.
        Such a start reveals nothing about other eigenvalues, which may be further out.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t i
        cdef double coupling = 0
        run.begin()
        for i in range(run.m, run.m + run.p):
            coupling = hypot(coupling, length_of(run.m, run.t + i * run.ld))
        return self.given and 0 < run.m < run.dimension and coupling <= self.tol * run.scale

    # --- probes for missed copies

    cdef bint begin_probe(self, theta, known) except -1:
        """Begin a probe for repeated eigenvalues, if a copy of a wanted value can matter: if it
        would displace the innermost value by more than the allowed error of that value. Return True
        if a probe was begun, or if the search continues to the end of the space, which is near.

        A copy may lie partly in the last rows, so that neither they nor a start orthogonal to them
        reveal it; these rows are then dropped. This is done if the residual of a pair, one of
        `known`, has reached rounding or would at the next step, whose row is one of them, since
        rounding then introduces a copy. It is also done if rows were kept by a restart, since their
        own residuals separate the copies, so that one start finds several of them. The rounding of
        a restart does not count against the pairs, just as the rounding in forming their vectors
        does not: a bound within the tolerance stays within it.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t steps = run.n_products, room = run.m
        cdef Py_ssize_t left = run.dimension + run.aside - run.m
        if not self.probe or run.m >= run.dimension or self.is_closed():
            return False
        if (
            left <= MIN_ROWS_FOR_PROBE and run.capacity >= run.dimension
            and run.n_products + left <= self.max_products
        ):
            self.next_check = run.dimension
            return True
        far, self.missable = self.distances_to_innermost(theta)[1], None
        if run.p and run.tridiagonal:
            self.missable = self.missable_distances(theta, self.risk)[0]
        if not far.any():
            self.set_missed_within(theta)
            return False
        if not run.p:
            steps += 4          # the exhausted start has missed other eigenvalues as well
        elif not self.copies:
            steps = <Py_ssize_t>((QUICK_PROBE_FRACTION if self.quick else PROBE_FRACTION) * steps)
        steps = max(steps, 4)
        if run.capacity < run.dimension:
            room = run.capacity - steps - 2 * run.p
        if (
            not run.tridiagonal or run.aside + run.p > MAX_ROWS_ASIDE
            or self.begun(theta, known, far, run.eps ** ROUNDING_EXPONENT * run.noise)
        ):
            self.lock(max(room, self.k), KEEP_RESIDUAL * run.scale)
        else:
            if run.m > room:
                self.restart()
            run.set_aside()
        theta, S, _, limits = run.ritz(self.k, self.which)
        if not run.tridiagonal:
            limits -= run.eps * run.scale
        self.settled, self.probe_from = (theta, limits, S), run.m
        run.insert_random(self.rng)
        self.probe_until, self.next_check = run.m + steps, run.m + 2
        return True

    cdef bint end_probe(self, int found) except -1:
        """End or continue a probe. Return True if it ended without changing the values; if it
        changed them, return to the search.
        """
        if found > 0 and self.settled is not None:
            self.set_missed_within(self.settled[0])
        elif found < 0:
            self.copies, self.settled = True, None
            self.forget_checks(self.run.m + 2)
        return found > 0

    cdef int set_missed_within(self, theta) except -1:
        """Set `unseen` at the end of the search. It is at least the uncertainty due to the
        residuals, since an eigenvalue within that distance of the innermost one may be hidden by
        it.
        """
        cdef Lanczos run = self.run
        cdef double resolved = self.tol * run.scale, missed
        cdef double near = self.distances_to_innermost(theta)[2]
        cdef double least = 2 * resolved if run.p else 0
        if self.settled is not None and run.m > self.probe_from:
            missed = self.missed(theta, self.risk)
            if missed > 2 * resolved:
                self.switch_to_dense = self.dense_is_cheaper()
                # large enough to be shown in the repr
                near = fmax(missed, (self.left_open + 1) * resolved)
        if self.missable is not None and run.p:
            least = fmax(least, self.missable_distances(theta, self.risk, self.missable)[1])
        self.unseen, self.probed = fmax(near, least), True
        return 0

    # --- convergence checks

    cdef bint check_is_expensive(self, Py_ssize_t m) noexcept:
        """Return True if two convergence checks take longer than a product."""
        return 2 * (5e-6 + 20e-9 * m * m) > self.seconds_per_product

    def check_convergence(self):
        """Return the result of `Lanczos.check_convergence`; that of `advance_until_converged`, if
        it has just ended with a result.
        """
        seen, self.seen = self.seen, None
        if seen is not None:
            return seen
        return self.run.check_convergence(self.k, self.which, self.tol, self.by_value)

    def targets(self, theta):
        """Return the tolerance of each residual (k,)."""
        return self.run.targets(theta, self.tol, self.by_value)

    cdef double limit(self, double theta) noexcept:
        """Return the allowed error of a value: its target, or twice the measured rounding if that
        is larger.
        """
        return fmax(self.run.target(theta, self.tol, self.by_value), 2 * self.run.noise)

    cdef double split(
        self, Py_ssize_t k, const double *values, double *distance, char *far
    ) noexcept:
        """Compute the results of `distances_to_innermost` for k values, in memory of the caller."""
        cdef Which end = ENDS[self.which]
        cdef Py_ssize_t first = 0, stop, i, innermost
        cdef double near = 0, least
        cdef bint low
        while first < k:
            stop = k // 2 if end == WHICH_BE and first < k // 2 else k
            low, innermost = end == WHICH_SA or stop < k, first
            for i in range(first, stop):
                distance[i] = -values[i] if low else values[i]
                if end == WHICH_LM:
                    distance[i] = fabs(values[i])
                if distance[i] < distance[innermost]:
                    innermost = i
            least = distance[innermost]
            for i in range(first, stop):
                distance[i] -= least
                far[i] = distance[i] > 2 * self.limit(values[innermost])
                if not far[i]:
                    near = fmax(near, distance[i])
            first = stop
        return near if near > 4 * self.run.noise else 0.0

    def distances_to_innermost(self, theta):
        """Return (distance, far, near) for the k wanted values: their distances ``(k,)`` from the
        innermost value of their end, a mask of distances greater than twice the allowed error of
        that value, and the largest of the other distances, or 0 if it is rounding.
        """
        cdef Py_ssize_t k = len(theta)
        distance, far = np.empty(k), np.empty(k, bool)
        theta = vector_of(theta)
        near = self.split(k, <double *>pointer(theta), <double *>pointer(distance), pointer(far))
        return distance, far, near

    cdef double *grown(self, Py_ssize_t k, const double *values, char **far) except NULL:
        """Return `growth` for the rows of the probe at k values, followed by their distances and
        the mask of `distances_to_innermost`.
        """
        cdef double *out = self.numbers.room_for(3 * k)
        far[0] = <char *>(out + 2 * k)
        self.split(k, values, out + k, far[0])
        self.growth(k, values, out)
        return out

    cdef int growth(self, Py_ssize_t count, const double *at, double *out) except -1:
        """Compute `growth` for the rows of the probe. If they have exhausted their space, the
        remainder of the last product counts as one more row: its bound is the last off-diagonal
        entry, so that only eigenvectors of Ritz values can be almost orthogonal to the start.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t first = self.probe_from, rows = run.m - first, i
        cdef double *d
        cdef double *T
        run.begin()
        T = run.t + first * (run.ld + 1)
        if run.p or not rows:
            fc_growth(rows, T, T + 1, run.ld + 1, count, at, out)
            return 0
        d = run.small.room_for(2 * rows)
        for i in range(rows):
            d[i] = T[i * (run.ld + 1)]
            d[rows + i] = T[i * (run.ld + 1) + 1] if i < rows - 1 else fmax(
                run.e[run.m - 1], MIN_OFF_DIAGONAL
            )
        fc_growth(rows + 1, d, d + rows, 1, count, at, out)
        return 0

    def missed(self, theta, double sure):
        """Return the largest of the distances marked by `distances_to_innermost` at which the probe
        may have missed a copy, because `growth` is less than `sure`.
        """
        cdef Py_ssize_t k = len(theta), i
        cdef char *far
        theta = vector_of(theta)
        cdef double *grown = self.grown(k, <double *>pointer(theta), &far)
        cdef double most = 0
        for i in range(k):
            if far[i] and grown[i] < sure:
                most = fmax(most, grown[k + i])
        return most

    cdef double estimate_convergence(self) except? -1:
        """Estimate the largest `excess` of the innermost wanted values, in O(m); return 0 if only a
        full convergence check can determine it.
        """
        cdef Lanczos run = self.run
        cdef Which ends = ENDS[self.which]
        cdef Py_ssize_t i, m = run.m, low = self.k // 2 if ends == WHICH_BE else 0
        cdef double worst = 0, value = 0, last = 0
        cdef double *d
        cdef fc_end end
        if not (run.tridiagonal and run.p == 1) or run.aside or m <= self.k:
            return 0
        run.begin()
        d = self.numbers.room_for(7 * m)
        for i in range(m):
            d[i], d[m + i] = run.t[i * (run.ld + 1)], run.t[i * (run.ld + 1) + 1]
        if not fc_ranked(m, d, d + m, FC_LARGEST, 1, &value, &last, d + 2 * m):
            return 0
        run.scale = fmax(run.scale, fabs(value))
        for i in range(2 if low else 1):
            end = FC_LARGEST if ends == WHICH_LM else FC_HIGHEST
            if i or ends == WHICH_SA:
                end = FC_LOWEST
            if not fc_ranked(
                m, d, d + m, end, low if i else self.k - low, &value, &last, d + 2 * m
            ):
                return 0
            last *= fabs(run.t[m * run.ld + m - 1])
            worst = fmax(worst, run.excess(value, NULL, last, self.tol, self.by_value))
        return worst

    def advance_until_converged(self, Py_ssize_t until, double seconds, before=None, double sure=0):
        """Make single-row steps with convergence checks until the wanted pairs seem to have
        converged, or, with the values `before` (k,) of a probe, until the probe ends or finds
        others. Return 1 then, or the result of `check_probe`; return 0 if there are `until` rows,
        the space is exhausted or the time is over.
        """
        cdef Lanczos run = self.run
        cdef long long begun = now()
        cdef int found = 0
        cdef double worst
        self.seen = None
        while run.p == 1 and run.m < until and (now() - begun) * 1e-9 < seconds and not found:
            run.advance(max(min(until, self.next_check), run.m + 1), seconds)
            if run.p != 1 or run.m < max(self.next_check, self.k):
                continue
            if before is not None:
                found = self.check_probe(before, sure)
                continue
            worst = self.estimate_convergence()
            if worst > 1:
                self.schedule(worst)
                continue
            seen = self.check_convergence()
            worst = max(seen[2].tolist())
            found = worst <= 1 or seen[3]
            if found:
                self.seen = seen
            else:
                self.schedule(worst)
        return found

    def schedule(self, double excess):
        """Schedule the next convergence check for the step at which the residuals, extrapolated,
        will have converged.

        The check is at most an eighth of the basis away, a 24th near the end, since products made
        after convergence are wasted, and not before the fastest convergence would reach the
        tolerance. If a check is expensive, its distance follows from the last two checks.
        """
        cdef Py_ssize_t m = self.run.m, ahead = max(2, m // (8 if excess > 30 else 24)), most
        cdef double left = log(excess), rate
        cdef bint check_is_expensive = self.check_is_expensive(m)
        most = m if check_is_expensive else m // 2
        if self.last_check and excess < self.last_excess:
            rate = log(self.last_excess / excess) / (m - self.last_check)
            if check_is_expensive:
                ahead = max(1, <Py_ssize_t>fmin(left / rate + 0.9, ahead + 2))
            else:
                ahead = min(ahead, max(1, <Py_ssize_t>(0.7 * left / rate)))
        ahead = max(ahead, <Py_ssize_t>fmin(most, left / log(MAX_REDUCTION_PER_STEP)))
        self.last_check, self.last_excess, self.next_check = m, excess, m + ahead

    def forget_checks(self, Py_ssize_t next_check):
        """Discard the last convergence check, so that the next one implies no rate of convergence.
        """
        self.last_check, self.next_check = 0, next_check

    def check_probe(self, before, double sure):
        """Check a probe of the values before (k,), which was begun at `probe_from`. Return 1 if it
        has ended, -1 if the values have changed, and 0 after scheduling the next check. The probe
        ends once `growth` is at least `sure` at every value whose copy could displace another
        value.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t k = len(before), i, steps
        cdef double seen = INFINITY
        cdef bint ended
        before = vector_of(before, self.k)
        cdef double *values = <double *>pointer(before)
        cdef char *far
        cdef double *grown = self.grown(k, values, &far)
        for i in range(k):
            if far[i]:
                seen = fmin(seen, grown[i])
        ended = run.p == 0 or seen >= sure or run.m >= self.probe_until
        ended = ended or (run.capacity < run.dimension and run.m + 2 * run.p > run.capacity + 1)
        if (ended or not self.check_is_expensive(4 * run.m)) and not self.same(values):
            theta = run.ritz_values(self.k, self.which)
            for i in range(k):
                if run.m >= run.dimension or fabs(theta[i] - values[i]) > self.limit(theta[i]):
                    return -1
        if ended:
            return 1
        steps = run.m - self.probe_from
        steps = max(2, <Py_ssize_t>(0.7 * steps * (sure / fmax(seen, 1.0) - 1)))
        self.next_check = min(run.m + steps, self.probe_until)
        return 0

    cdef void innermost_values(self, const double *values, double *low, double *high) noexcept:
        """Set low and high to the innermost of the values (k,) at either end; infinite if an end
        has none.
        """
        cdef Which end = ENDS[self.which]
        cdef Py_ssize_t i, few = self.k // 2 if end == WHICH_BE else self.k * (end == WHICH_SA)
        low[0], high[0] = -INFINITY, INFINITY
        for i in range(self.k):
            if end == WHICH_LM:
                high[0] = fmin(high[0], fabs(values[i]))
                low[0] = -high[0]
            elif i < few:
                low[0] = fmax(low[0], values[i])
            else:
                high[0] = fmin(high[0], values[i])

    cdef bint same(self, const double *before) except -1:
        """Return True if the wanted values of all rows are certainly those of the rows before the
        probe (k,), within their limits. False means that this is not known.

        The rows before the probe are Ritz vectors, or not coupled to the others. T then consists of
        two blocks, which are coupled by the residuals of the wanted values, in norm; and the values
        of the other block are within the limits if its distances from them are definite.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t first = self.probe_from, diagonal = 0 if run.tridiagonal else first
        cdef Py_ssize_t ld = run.ld, p = run.m - first, i, j, k
        cdef double low = 0, high = 0, low_limit, high_limit, apart = 0, at, sign, one
        cdef double *S
        cdef double *here
        cdef double *T = run.t + first * (ld + 1)
        if run.m >= run.dimension:
            return False
        self.innermost_values(before, &low, &high)
        low_limit, high_limit = self.limit(low), self.limit(high)
        for i in range(diagonal):
            for j in range(i):
                if run.t[i * ld + j] != 0:
                    return False
            if not low < run.t[i * (ld + 1)] < high:
                apart = hypot(apart, length_of(p, run.t + i * ld + first))
        if run.tridiagonal and first and run.t[first * (ld + 1) - 1] != 0:
            return False
        if not apart < fmin(low_limit, high_limit):
            return False
        S = self.numbers.room_for(p * p)
        # S = sign (T - at) without the rows before the probe; then its Cholesky factor
        for sign in (-1., 1.):
            at = low - low_limit + apart if sign > 0 else high + high_limit - apart
            if not isfinite(at):
                continue
            for j in range(p):
                for k in range(j + 1):
                    S[j * p + k] = sign * (T[j * ld + k] - at * (j == k))
            for i in range(diagonal):
                one, here = run.t[i * (ld + 1)], run.t + i * ld + first
                for j in range(p if low < one < high else 0):
                    for k in range(j + 1):
                        S[j * p + k] -= here[j] * here[k] / fabs(at - one)
            for j in range(p):
                for k in range(j + 1):
                    one = S[j * p + k] - inner_of(k, S + j * p, S + k * p)
                    if k < j:
                        S[j * p + k] = one / S[k * (p + 1)]
                    elif one > 0:
                        S[j * (p + 1)] = sqrt(one)
                    else:
                        return False
        return True

    def begun(self, theta, known, mask, double rounding):
        """Return True if, for one of the wanted values (k,) marked by the mask, the residual
        `known` is at most `rounding`, or will be after the next step.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t i, m = run.m
        cdef double back = 0, gap
        theta = vector_of(theta)
        cdef Py_ssize_t k = len(theta)
        known, mask = vector_of(known, k), np.ascontiguousarray(mask, bool)
        if mask.shape != (k,) or not m:
            raise ValueError(f"a mask has shape {mask.shape} of {k} values in {m} rows")
        cdef double *values = <double *>pointer(theta)
        cdef double *left = <double *>pointer(known)
        cdef char *picked = pointer(mask)
        run.begin()
        for i in range(m, m + run.p):
            back = hypot(back, run.t[i * run.ld + m - 1])
        for i in range(k):
            gap = fabs(values[i] - run.t[(m - 1) * (run.ld + 1)])
            if picked[i] and left[i] * (back / gap if gap > back > 0 else 1) <= rounding:
                return True
        return False

    def missable_distances(self, theta, double sure, among=None):
        """Examine 48 distances from the tolerance to twice `scale`, in geometric progression.
        Return a mask of those at which the start of the last Krylov space may have missed an
        eigenvalue so far outside the innermost of the values, at either end, because `growth` is
        less than `sure`; and the largest of these distances, or 0. With a mask `among`, only the
        distances that it marks are examined.
        """
        cdef Py_ssize_t i, count = 0, _side
        cdef double low = 0, high = 0, value, factor, most = 0
        cdef double *at = self.numbers.room_for(7 * N_DISTANCES)
        cdef double *grown = at + 2 * N_DISTANCES
        cdef double *beyond = at + 4 * N_DISTANCES
        cdef Py_ssize_t *place = <Py_ssize_t *>(at + 5 * N_DISTANCES)
        cdef char *marked = NULL
        theta, found = vector_of(theta, self.k), np.zeros(N_DISTANCES, bool)
        cdef char *mask = pointer(found)
        if among is not None:
            among = np.ascontiguousarray(among, bool)
            if among.shape != (N_DISTANCES,):
                raise ValueError(f"a mask must have shape ({N_DISTANCES},), got {among.shape}.")
            marked = pointer(among)
        self.innermost_values(<double *>pointer(theta), &low, &high)
        factor, value = (2 / self.tol) ** (1. / (N_DISTANCES - 1)), self.tol * self.run.scale
        for i in range(N_DISTANCES):
            beyond[i] = value
            for _side in range(0 if marked != NULL and not marked[i] else 2):
                at[count], place[count] = high + value if _side else low - value, i
                count += isfinite(at[count])
            value *= factor
        self.growth(count, at, grown)
        for i in range(count):
            if grown[i] < sure:
                mask[place[i]], most = True, fmax(most, beyond[place[i]])
        return found, most


# --- what a run may have missed -------------------------------------------------------------------

def growth(diagonal, off_diagonal, at):
    """Return the logarithm of ``sum_j p_j(mu)^2`` for each mu in `at`, with p_j the orthonormal
    polynomials of the Lanczos run whose tridiagonal matrix has this diagonal and off-diagonal
    (`off_diagonal`).

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w the component of the unit
    start vector along z. Then the j-th Lanczos vector has the component ``p_j(mu) w`` along z, and
    the squares of these components add up to at most 1: ``w^2 <= exp(-growth)``. So if a run has
    missed z, its start was almost orthogonal to z, which a random start is with a probability that
    is known (see `blind`).

    Examples
    --------
    >>> growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    diagonal, off_diagonal, at = (vector_of(x) for x in (diagonal, off_diagonal, at))
    if len(off_diagonal) + 1 < len(diagonal):
        raise ValueError(
            f"off_diagonal must have one number less than the diagonal, got {len(off_diagonal)} "
            f"and {len(diagonal)}."
        )
    out = np.empty(len(at))
    fc_growth(
        len(diagonal), <double *>pointer(diagonal), <double *>pointer(off_diagonal), 1, len(at),
        <double *>pointer(at), <double *>pointer(out)
    )
    return out
