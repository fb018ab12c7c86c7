"""A search for the ends of a spectrum: the loop between two decisions, and what a run from a random
start may have missed.
"""
import numpy as np

from libc.math cimport INFINITY, fabs, fmax, fmin, hypot, isfinite, log

# --- a search -------------------------------------------------------------------------------------

cdef enum:
    BEYOND = 48                 # distances at which `hidden` looks


cdef class Seeker:
    """The loop of a search for k pairs between two decisions; see
    `fastcurv.spectrum.eigsh.ThickRestart`, which makes these.

    Parameters
    ----------
    run : Lanczos
    k, which, tol, by_value : of the wanted values
    price : float
        Estimated seconds of a product.
    steepest : float
        By what factor a step reduces residuals at most.
    """
    cdef readonly Lanczos run
    cdef readonly Py_ssize_t k
    cdef readonly str which
    cdef readonly double tol
    cdef readonly bint by_value
    cdef public Py_ssize_t next_look, probe_from, probe_until
    cdef double price, steepest, last_excess
    cdef Py_ssize_t last_look           # with `last_excess`; 0: there was none
    cdef object seen                    # the look by which `seek` has found something

    def __init__(
        self, Lanczos run, Py_ssize_t k, str which, double tol, bint by_value, double price,
        double steepest
    ):
        self.run, self.k, self.which, self.tol, self.by_value = run, k, which, tol, by_value
        self.price, self.steepest = price, steepest
        if self.dear(5 * k):            # half of the steps that the steepest way takes come first
            self.next_look = k + <Py_ssize_t>(0.5 * log(1 / tol) / log(steepest))

    cdef bint dear(self, Py_ssize_t m) noexcept:
        """Whether two looks take longer than a product."""
        return 2 * (5e-6 + 20e-9 * m * m) > self.price

    def look(self):
        """Return `Lanczos.look`: that of `seek`, right after it has found something."""
        seen, self.seen = self.seen, None
        if seen is not None:
            return seen
        return self.run.look(self.k, self.which, self.tol, self.by_value)

    def targets(self, theta):
        """Return the tolerance of each residual (k,)."""
        return self.run.targets(theta, self.tol, self.by_value)

    cdef double limit(self, double theta) noexcept:
        """The allowed error of a value: its target, but no less than twice the rounding measured.
        """
        return fmax(self.run.target(theta, self.tol, self.by_value), 2 * self.run.noise)

    def outside(self, theta):
        """Return the distances ``(k,)`` of the wanted values from the innermost value of their end;
        a mask of those that are more than twice the allowed error of that innermost value; and the
        largest distance of the others, 0 if that is rounding.
        """
        cdef Which end = ENDS[self.which]
        cdef Py_ssize_t k = len(theta), first = 0, stop, i, innermost
        cdef double near = 0, least
        cdef bint low
        theta = np.ascontiguousarray(theta, np.float64)
        distance, far = np.empty(k), np.empty(k, bool)
        cdef double *values = <double *>pointer(theta)
        cdef double *out = <double *>pointer(distance)
        cdef char *mask = pointer(far)
        while first < k:
            stop = k // 2 if end == WHICH_BE and first < k // 2 else k
            low, innermost = end == WHICH_SA or stop < k, first
            for i in range(first, stop):
                out[i] = fabs(values[i]) if end == WHICH_LM else -values[i] if low else values[i]
                if out[i] < out[innermost]:
                    innermost = i
            least = out[innermost]
            for i in range(first, stop):
                out[i] -= least
                mask[i] = out[i] > 2 * self.limit(values[innermost])
                if not mask[i]:
                    near = fmax(near, out[i])
            first = stop
        return distance, far, near if near > 4 * self.run.noise else 0.0

    def seek(self, Py_ssize_t until, double seconds, before=None, double sure=0):
        """Make steps with single rows, and look, until the wanted pairs seem to have converged or,
        with the values `before` (k,) of a probe, that ends or finds others. Return 1 then, or what
        `look_at_probe` does; 0 where there are `until` rows, the space is exhausted or the time is
        spent.
        """
        cdef Lanczos run = self.run
        cdef long long begun = now()
        cdef int found = 0
        self.seen = None
        while run.p == 1 and run.m < until and (now() - begun) * 1e-9 < seconds and not found:
            run.advance(max(min(until, self.next_look), run.m + 1), seconds)
            if run.p != 1 or run.m < max(self.next_look, self.k):
                continue
            if before is not None:
                found = self.look_at_probe(before, sure)
                continue
            seen = self.look()
            worst = max(seen[2].tolist())
            found = worst <= 1 or seen[3]
            if found:
                self.seen = seen
            else:
                self.schedule(worst)
        return found

    def schedule(self, double excess):
        """Schedule the next look for when the residuals, extrapolated, will have converged.

        It is at most an eighth of the basis away, near the end a 24th, since products made after
        convergence are wasted; and not before the steepest way would reach the tolerance. Where a
        look is dear, it is as far as the last two looks say.
        """
        cdef Py_ssize_t m = self.run.m, ahead = max(2, m // (8 if excess > 30 else 24)), most
        cdef double left = log(excess), rate
        cdef bint dear = self.dear(m)
        most = m if dear else m // 2
        if self.last_look and excess < self.last_excess:
            rate = log(self.last_excess / excess) / (m - self.last_look)
            if dear:
                ahead = max(1, <Py_ssize_t>fmin(left / rate + 0.9, ahead + 2))
            else:
                ahead = min(ahead, max(1, <Py_ssize_t>(0.7 * left / rate)))
        ahead = max(ahead, <Py_ssize_t>fmin(most, left / log(self.steepest)))
        self.last_look, self.last_excess, self.next_look = m, excess, m + ahead

    def forget_looks(self, Py_ssize_t next_look):
        """The next look says nothing of a rate."""
        self.last_look, self.next_look = 0, next_look

    def look_at_probe(self, before, double sure):
        """Look at a probe of the values before (k,), which was begun at `probe_from`: return 1 if
        it has ended, -1 if the values have changed, else 0 after scheduling the next look. The
        probe ends once `growth` is `sure` at every value that a copy could push another out of.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t i, steps
        cdef double seen = INFINITY
        cdef bint ended
        _, far, _ = self.outside(before)
        if any(far):
            seen = min(run.growth(self.probe_from, before[far]).tolist())
        ended = run.p == 0 or seen >= sure or run.m >= self.probe_until
        ended = ended or (run.capacity < run.dimension and run.m + 2 * run.p > run.capacity + 1)
        if ended or not self.dear(4 * run.m):
            theta = run.ritz_values(self.k, self.which)
            for i in range(self.k):
                if run.m >= run.dimension or fabs(theta[i] - before[i]) > self.limit(theta[i]):
                    return -1
            if ended:
                return 1
        steps = run.m - self.probe_from
        steps = max(2, <Py_ssize_t>(0.7 * steps * (sure / fmax(seen, 1.0) - 1)))
        self.next_look = min(run.m + steps, self.probe_until)
        return 0

    def begun(self, theta, known, mask, double rounding):
        """Return whether, of the wanted values (k,) that a mask picks, the residual `known` of one
        is `rounding` or less, or will be after the next step.
        """
        cdef Lanczos run = self.run
        cdef Py_ssize_t i, m = run.m
        cdef double back = 0, gap
        run.begin()
        for i in range(m, m + run.p):
            back = hypot(back, run.t[i * run.ld + m - 1])
        for i in range(len(theta)):
            gap = fabs(theta[i] - run.t[(m - 1) * (run.ld + 1)])
            if mask[i] and known[i] * (back / gap if gap > back > 0 else 1) <= rounding:
                return True
        return False

    def hidden(self, theta, double sure, among=None):
        """Return, for each of 48 distances from the tolerance to twice `scale`, by equal factors,
        whether the start of the last Krylov space may have missed an eigenvalue that far outside
        the innermost of the values, at either end: `growth` is not `sure` there. And the distances.
        With a mask `among`, only those that it picks are looked at.
        """
        cdef Which end = ENDS[self.which]
        cdef Py_ssize_t half = self.k // 2 if end == WHICH_BE else self.k
        cdef Py_ssize_t i, first = self.probe_from
        cdef double low = -INFINITY, high = INFINITY, value, factor
        cdef Lanczos run = self.run
        cdef double *T
        numbers, found = np.empty((5, BEYOND)), np.empty(BEYOND, bool)
        cdef double *beyond = <double *>pointer(numbers)
        cdef double *at = beyond + BEYOND
        cdef char *mask = pointer(found)
        cdef char *asked = NULL
        if among is not None:
            asked = pointer(among)
        run.begin()
        T = run.t + first * (run.ld + 1)
        for i in range(self.k):
            value = theta[i]
            if end == WHICH_LM:
                low, high = fmax(low, -fabs(value)), fmin(high, fabs(value))
            elif end == WHICH_SA or (end == WHICH_BE and i < half):
                low = fmax(low, value)
            else:
                high = fmin(high, value)
        factor, value = (2 / self.tol) ** (1. / (BEYOND - 1)), self.tol * run.scale
        for i in range(BEYOND):
            beyond[i], at[i], at[BEYOND + i] = value, low - value, high + value
            value *= factor
            if asked != NULL and not asked[i]:
                at[i] = at[BEYOND + i] = INFINITY
        grow(run.m - first, T, T + 1, run.ld + 1, 2 * BEYOND, at, at + 2 * BEYOND)
        at += 2 * BEYOND
        for i in range(BEYOND):
            mask[i] = at[i] < sure or at[BEYOND + i] < sure
        return found, numbers[0]


# --- what a run may have missed -------------------------------------------------------------------

cdef enum: ABREAST = 4              # values whose recurrences hide each other's latency


cdef void grow(
    Py_ssize_t m, const double *diagonal, const double *beside, Py_ssize_t step, Py_ssize_t count,
    const double *at, double *out
) noexcept nogil:
    """See `growth`; the numbers of T are `step` apart."""
    cdef double before[ABREAST]
    cdef double here[ABREAST]
    cdef double total[ABREAST]
    cdef double taken[ABREAST]
    cdef double back, share, next_
    cdef Py_ssize_t first = 0, i, j, some
    while first < count:
        some = min(count - first, ABREAST)
        for i in range(some):
            before[i], here[i], total[i], taken[i] = 0, 1, 1, 0
        back = 0
        for j in range(m - 1):
            share = back / beside[j * step]
            for i in range(some):
                next_ = (at[first + i] - diagonal[j * step]) / beside[j * step] * here[i]
                next_ -= share * before[i]
                before[i], here[i] = here[i], next_
                total[i] += next_ * next_
                if total[i] > 1e100:
                    before[i], here[i] = before[i] * 1e-50, next_ * 1e-50
                    total[i], taken[i] = total[i] * 1e-100, taken[i] + log(1e100)
            back = beside[j * step]
        for i in range(some):
            out[first + i] = log(total[i]) + taken[i] if isfinite(at[first + i]) else INFINITY
        first += some


def growth(diagonal, beside, at):
    """Return the logarithm of ``sum_j p_j(mu)^2`` for each mu in `at`, with p_j the orthonormal
    polynomials of the Lanczos run whose tridiagonal matrix has this diagonal and off-diagonal
    (`beside`).

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w the component of the unit
    start vector along z. Then the j-th Lanczos vector has the component ``p_j(mu) w`` along z, and
    the squares of these sum to 1 at most: ``w^2 <= exp(-growth)``. So if a run has missed z, its
    start was almost orthogonal to z, see `blind`.

    Examples
    --------
    >>> growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    diagonal, beside, at = (np.ascontiguousarray(x, np.float64) for x in (diagonal, beside, at))
    if len(beside) + 1 < len(diagonal):
        raise ValueError(f"{len(beside)} numbers beside {len(diagonal)}; wanted one less")
    out = np.empty(len(at))
    grow(
        len(diagonal), <double *>pointer(diagonal), <double *>pointer(beside), 1, len(at),
        <double *>pointer(at), <double *>pointer(out)
    )
    return out
