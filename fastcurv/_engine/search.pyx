"""A search for the ends of a spectrum: the loop between two decisions, and what a run from a random
start may have missed.
"""
import numpy as np

from libc.math cimport INFINITY, fabs, fmax, fmin, hypot, isfinite, log, sqrt

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
    cdef Scratchpad numbers

    def __init__(
        self, Lanczos run, Py_ssize_t k, str which, double tol, bint by_value, double price,
        double steepest
    ):
        self.run, self.k, self.which, self.tol, self.by_value = run, k, which, tol, by_value
        self.price, self.steepest, self.numbers = price, steepest, Scratchpad()
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

    cdef double split(
        self, Py_ssize_t k, const double *values, double *distance, char *far
    ) noexcept:
        """See `outside`."""
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

    def outside(self, theta):
        """Return the distances ``(k,)`` of the k wanted values from the innermost value of their
        end; a mask of those that are more than twice the allowed error of that innermost value; and
        the largest distance of the others, 0 if that is rounding.
        """
        cdef Py_ssize_t k = len(theta)
        distance, far = np.empty(k), np.empty(k, bool)
        theta = np.ascontiguousarray(theta, np.float64)
        near = self.split(k, <double *>pointer(theta), <double *>pointer(distance), pointer(far))
        return distance, far, near

    cdef double *grown(self, Py_ssize_t k, const double *values, char **far) except NULL:
        """`growth` for the rows of the probe at k values, and, behind it, their distances as
        `outside` has them, with the mask.
        """
        cdef double *out = self.numbers.room_for(3 * k)
        far[0] = <char *>(out + 2 * k)
        self.split(k, values, out + k, far[0])
        self.growth(k, values, out)
        return out

    cdef int growth(self, Py_ssize_t count, const double *at, double *out) except -1:
        """`growth` for the rows of the probe."""
        cdef Lanczos run = self.run
        cdef Py_ssize_t first = self.probe_from
        run.begin()
        fc_growth(
            run.m - first, run.t + first * (run.ld + 1), run.t + first * (run.ld + 1) + 1,
            run.ld + 1, count, at, out
        )
        return 0

    def missed(self, theta, double sure):
        """Return the largest of the distances that `outside` picks of which a copy may have been
        missed by the rows of the probe: `growth` is not `sure` there.
        """
        cdef Py_ssize_t k = len(theta), i
        cdef char *far
        theta = np.ascontiguousarray(theta, np.float64)
        cdef double *grown = self.grown(k, <double *>pointer(theta), &far)
        cdef double most = 0
        for i in range(k):
            if far[i] and grown[i] < sure:
                most = fmax(most, grown[k + i])
        return most

    cdef double glance(self) except? -1:
        """The largest `excess` of the innermost of the k wanted values, roughly and in O(m); 0
        where only a look can tell.
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

    def seek(self, Py_ssize_t until, double seconds, before=None, double sure=0):
        """Make steps with single rows, and look, until the wanted pairs seem to have converged or,
        with the values `before` (k,) of a probe, that ends or finds others. Return 1 then, or what
        `look_at_probe` does; 0 where there are `until` rows, the space is exhausted or the time is
        spent.
        """
        cdef Lanczos run = self.run
        cdef long long begun = now()
        cdef int found = 0
        cdef double worst
        self.seen = None
        while run.p == 1 and run.m < until and (now() - begun) * 1e-9 < seconds and not found:
            run.advance(max(min(until, self.next_look), run.m + 1), seconds)
            if run.p != 1 or run.m < max(self.next_look, self.k):
                continue
            if before is not None:
                found = self.look_at_probe(before, sure)
                continue
            worst = self.glance()
            if worst > 1:
                self.schedule(worst)
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
        cdef Py_ssize_t k = len(before), i, steps
        cdef double seen = INFINITY
        cdef bint ended
        cdef double *values = <double *>pointer(before)
        cdef char *far
        cdef double *grown = self.grown(k, values, &far)
        for i in range(k):
            if far[i]:
                seen = fmin(seen, grown[i])
        ended = run.p == 0 or seen >= sure or run.m >= self.probe_until
        ended = ended or (run.capacity < run.dimension and run.m + 2 * run.p > run.capacity + 1)
        if (ended or not self.dear(4 * run.m)) and not self.same(values):
            theta = run.ritz_values(self.k, self.which)
            for i in range(k):
                if run.m >= run.dimension or fabs(theta[i] - values[i]) > self.limit(theta[i]):
                    return -1
        if ended:
            return 1
        steps = run.m - self.probe_from
        steps = max(2, <Py_ssize_t>(0.7 * steps * (sure / fmax(seen, 1.0) - 1)))
        self.next_look = min(run.m + steps, self.probe_until)
        return 0

    cdef void between(self, const double *values, double *low, double *high) noexcept:
        """Set the innermost of the values (k,) at either end; infinite where none is there."""
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
        """Whether the wanted values, those of the rows before the probe (k,), are those of all
        rows, up to their limits, as far as can be told without these: False says nothing.

        Those rows are of Ritz vectors, or not coupled to the others. T is two blocks apart from the
        residuals of the wanted ones, in norm, and the values of the other block are within the
        limits if its distances from these are definite.
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
        self.between(before, &low, &high)
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
        for sign in (-1., 1.):          # S = sign (T - at) without the rows before, then factored
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
        the innermost of the values, at either end: `growth` is not `sure` there. And the largest of
        those distances, 0 if there are none. With a mask `among`, only those that it picks are
        looked at.
        """
        cdef Py_ssize_t i, count = 0, _side
        cdef double low = 0, high = 0, value, factor, most = 0
        cdef double *at = self.numbers.room_for(7 * BEYOND)
        cdef double *grown = at + 2 * BEYOND
        cdef double *beyond = at + 4 * BEYOND
        cdef Py_ssize_t *place = <Py_ssize_t *>(at + 5 * BEYOND)
        cdef char *asked = NULL
        theta, found = np.ascontiguousarray(theta, np.float64), np.zeros(BEYOND, bool)
        cdef char *mask = pointer(found)
        if among is not None:
            asked = pointer(among)
        self.between(<double *>pointer(theta), &low, &high)
        factor, value = (2 / self.tol) ** (1. / (BEYOND - 1)), self.tol * self.run.scale
        for i in range(BEYOND):
            beyond[i] = value
            for _side in range(0 if asked != NULL and not asked[i] else 2):
                at[count], place[count] = high + value if _side else low - value, i
                count += isfinite(at[count])
            value *= factor
        self.growth(count, at, grown)
        for i in range(count):
            if grown[i] < sure:
                mask[place[i]], most = True, fmax(most, beyond[place[i]])
        return found, most


# --- what a run may have missed -------------------------------------------------------------------

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
    fc_growth(
        len(diagonal), <double *>pointer(diagonal), <double *>pointer(beside), 1, len(at),
        <double *>pointer(at), <double *>pointer(out)
    )
    return out
