"""Convergence checks of a search for the ends of a spectrum by the Lanczos method: which pairs have
converged, when to check next, whether a probe has found missed repeated eigenvalues, and bounds on
what a random start may have missed. The search itself is
`fastcurv.spectrum.eigsh.ThickRestartSearch`.
"""
import numpy as np

from libc.math cimport INFINITY, fabs, fmax, fmin, hypot, isfinite, log, sqrt

# --- convergence checks ---------------------------------------------------------------------------

cdef enum:
    N_DISTANCES = 48            # number of distances that `missable_distances` examines

cdef double MAX_REDUCTION_PER_STEP = 2.5  # maximum factor by which a step reduces residuals
# Smallest off-diagonal entry whose reciprocal, times numbers near 1, does not overflow.
cdef double MIN_OFF_DIAGONAL = 1e-290


cdef class ConvergenceChecks:
    """Steps and convergence checks of a search for k eigenpairs at the ends of a spectrum.

    Parameters
    ----------
    run : Lanczos
        The Lanczos run, which has been started.
    k : int
        Number of wanted eigenpairs.
    which : str
        Ends of the spectrum: ``LM``, ``LA``, ``SA`` or ``BE``, as in SciPy.
    tol : float
        Tolerance of the residuals.
    seconds_per_product : float
        Estimated time of a product.
    """
    cdef readonly Lanczos run
    cdef readonly Py_ssize_t k
    cdef readonly str which
    cdef readonly double tol
    cdef public Py_ssize_t next_check
    cdef public Py_ssize_t probe_from  # first row of the probe
    cdef public Py_ssize_t probe_until  # row at which the probe ends at the latest
    cdef double seconds_per_product, last_excess
    # Number of rows at the last convergence check, whose result is `last_excess`; 0 if there was
    # none.
    cdef Py_ssize_t last_check
    # Result of the convergence check that ended `advance_until_converged`.
    cdef object seen
    cdef Scratchpad numbers

    def __init__(
        self, Lanczos run, Py_ssize_t k, str which, double tol, double seconds_per_product
    ):
        self.run, self.k, self.which, self.tol = run, k, which, tol
        self.seconds_per_product, self.numbers = seconds_per_product, Scratchpad()
        # The first check comes after half of the steps that the fastest convergence would take.
        if self.is_check_expensive(5 * k):
            self.next_check = k + <Py_ssize_t>(0.5 * log(1 / tol) / log(MAX_REDUCTION_PER_STEP))

    cdef bint is_check_expensive(self, Py_ssize_t m) noexcept:
        """Return True if two convergence checks of m rows take longer than a product."""
        return 2 * (5e-6 + 20e-9 * m * m) > self.seconds_per_product

    def check_convergence(self):
        """Return the result of `Lanczos.check_convergence`. If `advance_until_converged` has just
        ended with such a result, return that result.
        """
        seen, self.seen = self.seen, None
        if seen is not None:
            return seen
        return self.run.check_convergence(self.k, self.which, self.tol)

    cdef double allowed_error(self) noexcept:
        """Return the allowed error of a Ritz value: the tolerance, or twice the measured rounding
        if that is larger.
        """
        return fmax(self.tol * self.run.scale, 2 * self.run.noise)

    cdef double compute_distances(
        self, Py_ssize_t k, const double *values, double *distance, char *far
    ) noexcept:
        """Compute the results of `distances_to_innermost` for the k wanted Ritz values `values`
        (k,). Write the distances to `distance` (k,) and the mask to `far` (k,), and return `near`.
        """
        cdef Which end = WHICH_BY_NAME[self.which]
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
                far[i] = distance[i] > 2 * self.allowed_error()
                if not far[i]:
                    near = fmax(near, distance[i])
            first = stop
        return near if near > 4 * self.run.noise else 0.0

    def distances_to_innermost(self, theta):
        """Return distances of the k wanted Ritz values theta (k,) from the innermost one.

        Returns
        -------
        distance : array (k,)
            Distance of each value from the innermost wanted value at its end of the spectrum.
        far : array (k,) of bool
            True where the distance exceeds twice the allowed error of the innermost value.
        near : float
            Largest of the other distances, or 0 if it is only rounding.
        """
        cdef Py_ssize_t k = len(theta)
        distance, far = np.empty(k), np.empty(k, bool)
        theta = as_float64_vector(theta, "theta")
        near = self.compute_distances(
            k, <double *>pointer(theta), <double *>pointer(distance), pointer(far)
        )
        return distance, far, near

    cdef double *probe_growth_at_values(
        self, Py_ssize_t k, const double *values, char **far
    ) except NULL:
        """Return a buffer with `log_polynomial_growth` of the probe's rows at k values, followed by
        the distances and the mask of `distances_to_innermost`. Also store the address of the mask
        in `far`.
        """
        cdef double *out = self.numbers.reserve(3 * k)
        far[0] = <char *>(out + 2 * k)
        self.compute_distances(k, values, out + k, far[0])
        self.compute_probe_growth(k, values, out)
        return out

    cdef int compute_probe_growth(self, Py_ssize_t count, const double *at, double *out) except -1:
        """Compute `log_polynomial_growth` of the probe's rows at `count` points. If the probe has
        exhausted its space, the norm of the last remainder serves as a further off-diagonal entry,
        so that only eigenvectors of Ritz values can be almost orthogonal to the start.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t first = self.probe_from, rows = run.m - first, i
        cdef double *d
        cdef double *T
        run.update_pointers()
        T = run.t + first * (run.ld + 1)
        if run.p or not rows:
            fc_growth(rows, T, T + 1, run.ld + 1, count, at, out)
            return 0
        d = run.small.reserve(2 * rows)
        for i in range(rows):
            d[i] = T[i * (run.ld + 1)]
            d[rows + i] = T[i * (run.ld + 1) + 1] if i < rows - 1 else fmax(
                run.e[run.m - 1], MIN_OFF_DIAGONAL
            )
        fc_growth(rows + 1, d, d + rows, 1, count, at, out)
        return 0

    def missed_distance(self, theta, double sure):
        """Return the largest distance of a value of theta (k,) that `distances_to_innermost` marks
        as far and at which the probe may have missed a repeated eigenvalue, because
        `log_polynomial_growth` of the probe's rows is less than `sure`. Return 0 if there is none.
        """
        cdef Py_ssize_t k = len(theta), i
        cdef char *far
        theta = as_float64_vector(theta, "theta")
        cdef double *grown = self.probe_growth_at_values(k, <double *>pointer(theta), &far)
        cdef double most = 0
        for i in range(k):
            if far[i] and grown[i] < sure:
                most = fmax(most, grown[k + i])
        return most

    cdef double estimate_convergence(self) except? -1:
        """Estimate the largest ratio of a residual to its allowed size among the innermost wanted
        pairs, in O(m). Return 0 if only a full convergence check can determine it.
        """
        cdef Lanczos run = self.run
        cdef Which ends = WHICH_BY_NAME[self.which]
        cdef Py_ssize_t i, m = run.m, low = self.k // 2 if ends == WHICH_BE else 0
        cdef double worst = 0, value = 0, last = 0
        cdef double *d
        cdef fc_end end
        if not (run.tridiagonal and run.p == 1) or m <= self.k:
            return 0
        run.update_pointers()
        d = self.numbers.reserve(7 * m)
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
            worst = fmax(worst, run.ratio_to_tolerance(NULL, last, self.tol))
        return worst

    def advance_until_converged(self, Py_ssize_t until, double seconds, before=None, double sure=0):
        """Take single-row steps with convergence checks until the wanted pairs appear to have
        converged or, if `before` (k,) has the wanted values at the start of a probe, until the
        probe ends or changes these values. Return 1 in the first case and the result of
        `check_probe` in the second. Return 0 if there are `until` rows, the space is exhausted, or
        `seconds` have elapsed.
        """
        cdef Lanczos run = self.run
        cdef long long begun = now_ns()
        cdef int found = 0
        cdef double worst
        self.seen = None
        while run.p == 1 and run.m < until and (now_ns() - begun) * 1e-9 < seconds and not found:
            run.advance(max(min(until, self.next_check), run.m + 1), seconds)
            if run.p != 1 or run.m < max(self.next_check, self.k):
                continue
            if before is not None:
                found = self.check_probe(before, sure)
                continue
            worst = self.estimate_convergence()
            if worst > 1:
                self.schedule_check(worst)
                continue
            seen = self.check_convergence()
            worst = max(seen[2].tolist())
            found = worst <= 1
            if found:
                self.seen = seen
            else:
                self.schedule_check(worst)
        return found

    def schedule_check(self, double excess):
        """Schedule the next convergence check for the step at which the extrapolated residuals will
        have converged. The argument `excess` is the largest ratio of a residual to its allowed
        size.

        The next check comes after at most an eighth of the number of rows, or a 24th near
        convergence, because products made after convergence are wasted. No check comes before the
        fastest possible convergence. If a check is expensive, the rate of convergence between the
        last two checks determines the step.
        """
        cdef Py_ssize_t m = self.run.m, ahead = max(2, m // (8 if excess > 30 else 24)), most
        cdef double left = log(excess), rate
        cdef bint check_is_expensive = self.is_check_expensive(m)
        most = m if check_is_expensive else m // 2
        if self.last_check and excess < self.last_excess:
            rate = log(self.last_excess / excess) / (m - self.last_check)
            if check_is_expensive:
                ahead = max(1, <Py_ssize_t>fmin(left / rate + 0.9, ahead + 2))
            else:
                ahead = min(ahead, max(1, <Py_ssize_t>(0.7 * left / rate)))
        ahead = max(ahead, <Py_ssize_t>fmin(most, left / log(MAX_REDUCTION_PER_STEP)))
        self.last_check, self.last_excess, self.next_check = m, excess, m + ahead

    def discard_last_check(self, Py_ssize_t next_check):
        """Discard the result of the last convergence check, so that the next check does not compute
        a rate of convergence from it.
        """
        self.last_check, self.next_check = 0, next_check

    def check_probe(self, before, double sure):
        """Check a probe that began with row `probe_from`, when the wanted values were `before`
        (k,). Return 1 if the probe has ended, -1 if the wanted values have changed, and 0 after
        scheduling the next check.

        The probe ends once `log_polynomial_growth` of its rows is at least `sure` at every wanted
        value whose repetition could displace another wanted value.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t k = len(before), i, steps
        cdef double seen = INFINITY
        cdef bint ended
        before = as_float64_vector(before, "before", self.k)
        cdef double *values = <double *>pointer(before)
        cdef char *far
        cdef double *grown = self.probe_growth_at_values(k, values, &far)
        for i in range(k):
            if far[i]:
                seen = fmin(seen, grown[i])
        ended = run.p == 0 or seen >= sure or run.m >= self.probe_until
        ended = ended or (run.capacity < run.dimension and run.m + 2 * run.p > run.capacity + 1)
        if (
            (ended or not self.is_check_expensive(4 * run.m))
            and not self.wanted_values_agree(values)
        ):
            theta = run.ritz_values(self.k, self.which)
            for i in range(k):
                if (
                    run.m >= run.dimension
                    or fabs(theta[i] - values[i]) > self.allowed_error()
                ):
                    return -1
        if ended:
            return 1
        steps = run.m - self.probe_from
        steps = max(2, <Py_ssize_t>(0.7 * steps * (sure / fmax(seen, 1.0) - 1)))
        self.next_check = min(run.m + steps, self.probe_until)
        return 0

    cdef void find_innermost_values(self, const double *values, double *low, double *high) noexcept:
        """Set `low` and `high` to the innermost wanted values at the low and at the high end of the
        spectrum, or to -infinity and infinity at an end without wanted values.
        """
        cdef Which end = WHICH_BY_NAME[self.which]
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

    cdef bint wanted_values_agree(self, const double *before) except -1:
        """Return True if the wanted Ritz values computed from all rows provably agree, within
        the allowed error of the innermost one at their end, with those before the probe, `before`
        (k,). False is inconclusive.

        The rows before the probe are Ritz vectors. T consists of two blocks, which are coupled only
        by the residuals of these vectors. No eigenvalue of the probe's block is among the wanted
        ones if the shifted block, minus the effect of the coupling, is positive definite.

        The caller must have called `update_pointers`, and must no longer need the contents of
        `numbers`, which S overwrites.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t first = self.probe_from
        cdef Py_ssize_t ld = run.ld, p = run.m - first, i, j, k
        cdef double low = 0, high = 0, limit = self.allowed_error(), apart = 0, at, sign, one
        cdef double *S
        cdef double *here
        cdef double *T = run.t + first * (ld + 1)
        if run.m >= run.dimension:
            return False
        self.find_innermost_values(before, &low, &high)
        for i in range(first):
            for j in range(i):
                if run.t[i * ld + j] != 0:
                    return False
            if not low < run.t[i * (ld + 1)] < high:
                apart = hypot(apart, safe_norm(p, run.t + i * ld + first))
        # Without the coupling of the wanted rows, whose norm is at most `apart`, T is the direct
        # sum of the wanted values and a matrix R. If all eigenvalues of R exceed
        # low - limit + apart, then R moves the wanted values at the low end by at most
        # limit - apart, and the coupling moves them by at most `apart` (Weyl's inequality). The
        # high end is the low end of -T.
        if not apart < limit:
            return False
        S = self.numbers.reserve(p * p)
        # S is the probe's block of sign (T - at I) after elimination of the rows before the probe,
        # a Schur complement, and then its Cholesky factor. `at` lies outside (low, high), so
        # sign (one - at) = |at - one| > 0 for the rows eliminated, and sign (R - at I) is positive
        # definite if and only if the complement is.
        for sign in (-1., 1.):
            at = low - limit + apart if sign > 0 else high + limit - apart
            if not isfinite(at):
                continue
            for j in range(p):
                for k in range(j + 1):
                    S[j * p + k] = sign * (T[j * ld + k] - at * (j == k))
            for i in range(first):
                one, here = run.t[i * (ld + 1)], run.t + i * ld + first
                for j in range(p if low < one < high else 0):
                    for k in range(j + 1):
                        S[j * p + k] -= here[j] * here[k] / fabs(at - one)
            for j in range(p):
                for k in range(j + 1):
                    one = S[j * p + k] - dot_doubles(k, S + j * p, S + k * p)
                    if k < j:
                        S[j * p + k] = one / S[k * (p + 1)]
                    elif one > 0:
                        S[j * (p + 1)] = sqrt(one)
                    else:
                        return False
        return True

    def missable_distances(self, theta, double sure, among=None):
        """Examine N_DISTANCES distances beyond the innermost wanted values theta (k,), in geometric
        progression from the tolerance to twice `scale`. With a mask `among`, examine only the
        distances that it marks.

        Returns
        -------
        found : array (N_DISTANCES,) of bool
            Mask of the distances at which the last random start may have missed an eigenvalue, at
            either end, because `log_polynomial_growth` is less than `sure`.
        most : float
            Largest of these distances, or 0.
        """
        cdef Py_ssize_t i, count = 0, _side
        cdef double low = 0, high = 0, value, factor, most = 0
        cdef double *at = self.numbers.reserve(7 * N_DISTANCES)
        cdef double *grown = at + 2 * N_DISTANCES
        cdef double *beyond = at + 4 * N_DISTANCES
        cdef Py_ssize_t *place = <Py_ssize_t *>(at + 5 * N_DISTANCES)
        cdef char *marked = NULL
        theta = as_float64_vector(theta, "theta", self.k)
        found = np.zeros(N_DISTANCES, bool)
        cdef char *mask = pointer(found)
        if among is not None:
            among = np.ascontiguousarray(among, bool)
            if among.shape != (N_DISTANCES,):
                raise ValueError(f"among must have shape ({N_DISTANCES},), got {among.shape}.")
            marked = pointer(among)
        self.find_innermost_values(<double *>pointer(theta), &low, &high)
        factor, value = (2 / self.tol) ** (1. / (N_DISTANCES - 1)), self.tol * self.run.scale
        for i in range(N_DISTANCES):
            beyond[i] = value
            for _side in range(0 if marked != NULL and not marked[i] else 2):
                at[count], place[count] = high + value if _side else low - value, i
                count += isfinite(at[count])
            value *= factor
        self.compute_probe_growth(count, at, grown)
        for i in range(count):
            if grown[i] < sure:
                mask[place[i]], most = True, fmax(most, beyond[place[i]])
        return found, most


# --- bounds on missed eigenvalues -----------------------------------------------------------------

def log_polynomial_growth(diagonal, off_diagonal, at):
    """Return the logarithm of ``sum_j p_j(mu)^2`` for each mu in `at`. The p_j are the orthonormal
    polynomials of a Lanczos run whose tridiagonal matrix has the given diagonal and off-diagonal.

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w the component of the unit
    start vector along z. Then the j-th Lanczos vector has the component ``p_j(mu) w`` along z, and
    the squares of these components add up to at most 1. Hence ``w^2 <= exp(-growth)``. If a run has
    missed z, its start was almost orthogonal to z, and the probability of this is known for a
    random start.

    Examples
    --------
    >>> log_polynomial_growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    diagonal = as_float64_vector(diagonal, "diagonal")
    off_diagonal = as_float64_vector(off_diagonal, "off_diagonal")
    at = as_float64_vector(at, "at")
    if len(off_diagonal) + 1 < len(diagonal):
        raise ValueError(
            f"off_diagonal must have at least {len(diagonal) - 1} entries, got "
            f"{len(off_diagonal)}."
        )
    out = np.empty(len(at))
    fc_growth(
        len(diagonal), <double *>pointer(diagonal), <double *>pointer(off_diagonal), 1, len(at),
        <double *>pointer(at), <double *>pointer(out)
    )
    return out
