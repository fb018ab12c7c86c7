"""The L-BFGS method, which approximates the inverse Hessian from the last steps and the changes of
the gradient along them.

Let the rows of S be the steps s_i and the rows of Y the gradient changes y_i, oldest first. Let R
be the upper triangle of ``S Y'``, D its diagonal and c = s'y / y'y of the newest pair. The
approximate inverse Hessian times the gradient g is

    c g + S' w - c Y' u        with    u = R^-1 S g,    w = R^-T (D u + c Y (Y' u - g))

(Byrd, Nocedal and Schnabel, Representations of quasi-Newton matrices, 1994, theorem 2.2). The pairs
are read twice per iteration: once for their products with g and the newest y, and once for the
step.

The line search satisfies the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization,
2006, section 3.5). Each trial costs a value and a gradient, and most searches need one trial. If
values differ only by rounding, they count as equal, and the slopes decide.

A run is a state machine that requests the value and the gradient at `trial`. The method `run`
evaluates a plan without executing Python code; for any other loss the caller supplies value and
gradient. Long sums are divided by sizes only, so results do not depend on the number of threads or
on the source of values.
"""
import numpy as np

from libc.math cimport INFINITY, NAN, copysign, fabs, isfinite, isnan, sqrt
from libc.string cimport memcpy, memset

cdef enum State:
    # State of the line search. SEARCH_FAILED: no lower value was found along the negative gradient.
    SEARCH_ENDED, SEARCH_RUNNING, SEARCH_FAILED

cdef enum:
    MAX_LINE_SEARCH_TRIALS = 20             # maximum number of trials per line search
    # Nanoseconds after which `run` returns so that the caller can report progress.
    PROGRESS_INTERVAL_NS = 100000000
    # Elements per strip of a sweep, chosen so that the vectors' strips stay in the L1 cache:
    # STRIP_ELEMENTS for a few vectors, SINGLE_VECTOR_STRIP_ELEMENTS for one vector and the pairs.
    STRIP_ELEMENTS = 1024
    SINGLE_VECTOR_STRIP_ELEMENTS = 2048

cdef double MIN_PAIR_COSINE = 1e-10  # minimum s'y / (||s|| ||y||) of a pair that is kept
# constant of sufficient decrease: required fraction of the predicted decrease
cdef double MIN_DECREASE_RATIO = 1e-4
cdef double MAX_SLOPE_RATIO = 0.9  # maximum final slope, relative to the initial slope
cdef double TRIAL_VALUE_ERROR_EPS = 10  # error of a value, in units of eps |f|
# Factor by which each check of the clock decreases the longest recent time between two checks.
cdef double CLOCK_GAP_DECAY = 0.7


cdef struct Point:              # point on the search line: step length, value, slope
    double t, f, slope


cdef struct Quasi

# Function that processes one strip of a sweep: n elements of each vector, `shift` bytes after its
# start. It adds to the sums of the current part.
ctypedef void (*StripFunction)(
    Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums
) noexcept nogil

cdef struct Quasi:
    const fc_table *K
    Py_ssize_t n, most          # elements per vector; maximum number of pairs
    Py_ssize_t ld, line         # distance between vectors in elements and in bytes
    Py_ssize_t width, parts     # elements per part of a sweep, and number of parts
    int threads
    char *theta                 # current point
    # Gradient at theta. The row of memory before each of g, g_trial and g_low is space for y of a
    # step to that point.
    char *g
    char *d                     # search direction
    char *trial                 # trial point
    char *g_trial
    char *g_low                 # gradient at the lowest trial
    char *s                     # last step
    char *best                  # point of the lowest value, unless that is theta
    # (2 most, n): s_0, y_0, s_1, y_1, ...; the first `count` pairs are valid.
    char *pairs
    double *cross               # (most, most) products s_i'y_j
    double *inner               # (most, most) products y_i'y_j
    double *products            # (2 most,) products s_i'g and y_i'g
    double *weights             # (2 most,) coefficients of s_i and y_i in -d - c g
    double *solved              # (3 most,) scratch buffer
    double *sums                # (parts, lds) sums of each part
    Py_ssize_t lds
    # function, elements per strip and number of sums of the current sweep
    StripFunction piece
    Py_ssize_t strip, wanted
    Py_ssize_t first, count     # ring buffer: row of the oldest pair, number of pairs
    Py_ssize_t row              # row of the newest pair, or -1 if it was dropped
    double f, gnorm, best_f, best_gnorm
    bint elsewhere              # True if the point of the lowest value is not theta
    double c                    # scaling s'y / y'y of the newest pair
    State state                 # state of the line search
    # moved: the search ended at a new point. bracketed: `high` is valid. stored: g_low holds the
    # gradient at `low`.
    bint moved, bracketed, stored
    int trials
    double t, slope, noise
    Point low, high


# --- sweeps over vectors, each of which reads its operands once -----------------------------------

cdef inline void swap_pointers(char **x, char **y) noexcept nogil:
    """Exchange two pointers."""
    cdef char *held = x[0]
    x[0], y[0] = y[0], held


cdef void run_strips_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Run the current sweep on one part of the vectors, as one part of a job of the thread team."""
    cdef Quasi *q = <Quasi *>context
    cdef Py_ssize_t at = part * q.width, end = min(at + q.width, q.n), count
    cdef double *sums = q.sums + part * q.lds
    memset(sums, 0, q.wanted * sizeof(double))
    while at < end:
        count = min(q.strip, end - at)
        q.piece(q, at * q.K.real_bytes, count, sums)
        at += count


cdef void run_vector_sweep(
    Quasi *q, StripFunction piece, Py_ssize_t rows, Py_ssize_t wanted, Py_ssize_t strip
) noexcept nogil:
    """Run a sweep that computes `wanted` sums in strips of `strip` elements. The argument `rows` is
    the number of vectors of n elements that the sweep reads or writes.
    """
    q.piece, q.wanted, q.strip = piece, wanted, strip
    fc_team_run(
        q.threads if rows * q.n > THREADED_SWEEP_MIN_MULTIPLY_ADDS else 1, q.parts,
        run_strips_part, q
    )


cdef double sum_over_parts(Quasi *q, Py_ssize_t j) noexcept nogil:
    """Return sum number j, added over the parts in order."""
    cdef Py_ssize_t part
    cdef double found = 0
    for part in range(q.parts):
        found += q.sums[part * q.lds + j]
    return found


cdef void compute_direction_strip(
    Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums
) noexcept nogil:
    """Compute d = -c g - (linear combination of the pairs with `weights`), and g'd."""
    cdef char *d = q.d + shift
    q.K.scale(n, -q.c, q.g + shift, d)
    if q.count:
        q.K.subtract(
            2 * q.count, 1, n, q.pairs + shift, q.ld, d, q.ld, q.weights, 2 * q.count, NULL
        )
    q.K.dots(1, 1, n, q.g + shift, q.ld, d, q.ld, sums, 1)


cdef void compute_trial_strip(
    Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums
) noexcept nogil:
    """Compute a strip of the trial point theta + t d. `sums` is not used."""
    cdef double t = -q.t
    memcpy(q.trial + shift, q.theta + shift, n * q.K.real_bytes)
    q.K.subtract(1, 1, n, q.d + shift, q.ld, q.trial + shift, q.ld, &t, 1, NULL)


cdef void compute_slope_strip(
    Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums
) noexcept nogil:
    """Compute the slope g'd at the trial point."""
    q.K.dots(1, 1, n, q.g_trial + shift, q.ld, q.d + shift, q.ld, sums, 1)


cdef void compute_step_strip(Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums) noexcept nogil:
    """Compute s and y of the step to the trial point, and the products s'y, s's, y'y and g'g there.
    """
    cdef double one = 1
    cdef char *s = q.s + shift
    cdef char *g = q.g_trial + shift
    cdef char *y = g - q.line
    memcpy(s, q.trial + shift, n * q.K.real_bytes)
    q.K.subtract(1, 1, n, q.theta + shift, q.ld, s, q.ld, &one, 1, sums + 1)
    memcpy(y, g, n * q.K.real_bytes)
    q.K.subtract(1, 1, n, q.g + shift, q.ld, y, q.ld, &one, 1, sums + 2)
    q.K.dots(1, 1, n, s, q.ld, y, q.ld, sums, 1)
    q.K.dots(1, 1, n, g, q.ld, g, q.ld, sums + 3, 1)


cdef void multiply_pairs_strip(
    Quasi *q, Py_ssize_t shift, Py_ssize_t n, double *sums
) noexcept nogil:
    """Copy the newest pair into its row, and multiply all pairs by its y and by g."""
    cdef char *row = q.pairs + 2 * q.row * q.line + shift
    cdef char *y = q.g - q.line + shift
    if q.row >= 0:
        memcpy(row, q.s + shift, n * q.K.real_bytes)
        memcpy(row + q.line, y, n * q.K.real_bytes)
    q.K.dots(2 * q.count, 2, n, q.pairs + shift, q.ld, y, q.ld, sums, 2 * q.count)


cdef double norm_from_square(Quasi *q, char *x, double square) noexcept nogil:
    """Return ||x||. The argument `square` is ||x||^2, unless the square overflowed or underflowed.
    """
    if 1e-30 < square < 1e30:
        return sqrt(square)
    if q.K.real_bytes == 8:
        return safe_norm(q.n, <double *>x)
    return safe_norm(q.n, <float *>x)


# --- the pairs ------------------------------------------------------------------------------------

cdef void multiply_pairs(Quasi *q) noexcept nogil:
    """Compute the products of all pairs with g and, if the newest pair was kept, with its y."""
    cdef Py_ssize_t i, row = q.row, k = q.count, m = q.most
    run_vector_sweep(q, multiply_pairs_strip, 4 * k, 4 * k, q.width)
    for i in range(2 * k):
        q.products[i] = sum_over_parts(q, 2 * k + i)
    if row >= 0:
        for i in range(k):
            q.cross[i * m + row] = sum_over_parts(q, 2 * i)
            q.inner[i * m + row] = q.inner[row * m + i] = sum_over_parts(q, 2 * i + 1)


cdef void compute_direction_coefficients(Quasi *q) noexcept nogil:
    """Compute c and `weights`, the coefficients of all pairs in -d - c g. The coefficients are w
    for the rows of S and -c u for the rows of Y, in the notation of the module docstring. For k
    pairs the cost is 2 k^2 multiplications.
    """
    cdef Py_ssize_t i, j, a, b, k = q.count, m = q.most
    cdef double *u = q.solved
    cdef double *D = u + m
    cdef double *w = D + m
    cdef double sum_
    q.c = 1
    if k == 0:
        return
    for i in range(k):
        a = (q.first + i) % m
        D[i] = q.cross[a * m + a]
    a = (q.first + k - 1) % m
    q.c = D[k - 1] / q.inner[a * m + a]
    for i in range(k - 1, -1, -1):
        a = (q.first + i) % m
        sum_, b = q.products[2 * a], a
        for j in range(i + 1, k):
            b = b + 1 if b + 1 < m else 0
            sum_ -= q.cross[a * m + b] * u[j]
        u[i] = sum_ / D[i]
    for i in range(k):
        a = (q.first + i) % m
        sum_, b = -q.products[2 * a + 1], q.first
        for j in range(k):
            sum_ += q.inner[a * m + b] * u[j]
            b = b + 1 if b + 1 < m else 0
        w[i] = D[i] * u[i] + q.c * sum_
    for i in range(k):
        a = (q.first + i) % m
        w[i] /= D[i]
        b = a
        for j in range(i + 1, k):
            b = b + 1 if b + 1 < m else 0
            w[j] -= q.cross[a * m + b] * w[i]
        q.weights[2 * a], q.weights[2 * a + 1] = w[i], -q.c * u[i]


cdef void move_to_trial(Quasi *q, double f) noexcept nogil:
    """Move to the trial point. Keep the pair of this step if its curvature s'y is large enough."""
    cdef double yy, ss
    run_vector_sweep(q, compute_step_strip, 8, 4, STRIP_ELEMENTS)
    ss = norm_from_square(q, q.s, sum_over_parts(q, 1))
    yy = norm_from_square(q, q.g_trial - q.line, sum_over_parts(q, 2))
    q.row = -1
    if sum_over_parts(q, 0) > MIN_PAIR_COSINE * ss * yy:
        q.row = q.count if q.count < q.most else q.first
        if q.count == q.most:
            q.first = (q.first + 1) % q.most
        q.count = min(q.count + 1, q.most)
    q.gnorm = norm_from_square(q, q.g_trial, sum_over_parts(q, 3))
    swap_pointers(&q.theta, &q.trial)
    swap_pointers(&q.g, &q.g_trial)
    q.f = f
    if q.count:
        multiply_pairs(q)
    q.state, q.moved = SEARCH_ENDED, True


# --- the line search ------------------------------------------------------------------------------

cdef double cubic_minimiser(const Point *a, const Point *b) noexcept nogil:
    """Return the minimiser of the cubic through the values and slopes of two points, or NaN if the
    cubic has no minimum.
    """
    cdef double s = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    cdef double square = s * s - a.slope * b.slope, root, below
    if not square >= 0:
        return NAN
    root = copysign(sqrt(square), b.t - a.t)
    below = b.slope - a.slope + 2 * root
    return b.t - (b.t - a.t) * (b.slope + root - s) / below if below != 0 else NAN


cdef double extrapolate_step_length(const Point *before, const Point *here) noexcept nogil:
    """Return the next trial step length while the line still descends: the minimiser of the cubic,
    clipped to 2 to 10 times the current length.
    """
    cdef double t = cubic_minimiser(before, here)
    return min(max(t, 2 * here.t), 10 * here.t) if t > here.t else 4 * here.t


cdef double interpolate(const Point *low, const Point *high) noexcept nogil:
    """Return the minimiser of the cubic within the bracket, at least a tenth of the bracket's width
    from both ends.
    """
    cdef double width = high.t - low.t, share = 0.1
    if isfinite(high.f):
        share = (cubic_minimiser(low, high) - low.t) / width
    if isnan(share):
        share = 0.5
    return low.t + min(max(share, 0.1), 0.9) * width


cdef void set_trial_point(Quasi *q, double t) noexcept nogil:
    """Set the trial point to theta + t d."""
    q.t = t
    run_vector_sweep(q, compute_trial_strip, 3, 0, STRIP_ELEMENTS)


cdef void begin_line_search(Quasi *q) noexcept nogil:
    """Begin a line search along the next direction. If the direction does not descend, which can
    happen at a kink of the loss, drop all pairs and search along the negative gradient.
    """
    q.moved = False
    if q.state == SEARCH_FAILED:
        return
    while True:
        compute_direction_coefficients(q)
        run_vector_sweep(
            q, compute_direction_strip, 2 * q.count + 3, 1, SINGLE_VECTOR_STRIP_ELEMENTS
        )
        q.slope = sum_over_parts(q, 0)
        if q.slope < 0:
            break
        if not q.count:
            q.state = SEARCH_FAILED
            return
        q.first = q.count = 0
    q.low.t, q.low.f, q.low.slope = 0, q.f, q.slope
    q.bracketed, q.stored, q.trials, q.state = False, False, 0, SEARCH_RUNNING
    set_trial_point(q, 1.0 if q.count else min(1.0, 1 / q.gnorm))


cdef void process_trial(Quasi *q, double f) noexcept nogil:
    """Process the value f at the trial point, whose gradient is in g_trial. End the search or set
    the next trial point.
    """
    cdef Point here, before
    here.t, here.f, here.slope = q.t, INFINITY, NAN
    if isfinite(f):
        run_vector_sweep(q, compute_slope_strip, 2, 1, STRIP_ELEMENTS)
        here.f, here.slope = f, sum_over_parts(q, 0)
    q.trials += 1
    if not here.f <= min(q.low.f, q.f + MIN_DECREASE_RATIO * q.t * q.slope) + q.noise * fabs(q.f):
        q.high, q.bracketed = here, True
    elif fabs(here.slope) <= -MAX_SLOPE_RATIO * q.slope:
        move_to_trial(q, f)
        return
    else:
        if here.slope * (q.high.t - q.low.t if q.bracketed else 1.0) >= 0:
            q.high, q.bracketed = q.low, True
        before, q.low, q.stored = q.low, here, True
        swap_pointers(&q.g_low, &q.g_trial)
        if not q.bracketed:
            q.t = extrapolate_step_length(&before, &q.low)
    if q.bracketed:
        q.t = interpolate(&q.low, &q.high)
        if not min(q.low.t, q.high.t) < q.t < max(q.low.t, q.high.t):
            end_line_search(q, False)
            return
    if q.trials < MAX_LINE_SEARCH_TRIALS:
        set_trial_point(q, q.t)
    else:
        end_line_search(q, False)


cdef void end_line_search(Quasi *q, bint late) noexcept nogil:
    """End the search at its lowest trial. If no trial is lower than the start and the search may
    not go on (`late`), return to the start. Otherwise drop all pairs and search again, or fail if
    there are no pairs.
    """
    if q.stored and q.low.f < q.f:
        set_trial_point(q, q.low.t)
        swap_pointers(&q.g_low, &q.g_trial)
        move_to_trial(q, q.low.f)
    elif late:
        q.state = SEARCH_ENDED
    elif q.count:
        q.first = q.count = 0
        begin_line_search(q)
    else:
        q.state = SEARCH_FAILED


# --- L-BFGS iterations ----------------------------------------------------------------------------

cdef class QuasiNewton:
    """A run of the L-BFGS method.

    Parameters
    ----------
    n : int
        Number of parameters.
    dtype : float32 or float64
        Dtype of all vectors.
    memory : int
        Maximum number of pairs.
    """
    cdef Quasi q
    cdef object vectors, numbers
    cdef char *base
    cdef readonly object pairs  # (2 memory, n) steps and gradient changes
    cdef readonly Py_ssize_t steps  # number of steps of the last `run`
    cdef readonly Py_ssize_t evaluations
    # Longest recent time between two checks of the clock, in seconds.
    cdef public double gap
    cdef long long began, looked
    cdef bint out_of_time

    def __cinit__(self, Py_ssize_t n, dtype, Py_ssize_t memory):
        cdef Quasi *q = &self.q
        cdef Py_ssize_t size = np.dtype(dtype).itemsize, line = padded_ld(n, size) * size
        q.ld, q.line = line // size, line
        q.K = &current_kernel_table()[size == 8]
        q.n, q.most, q.threads = n, memory, default_n_threads()
        q.width = columns_per_sweep_part(n)
        q.parts, q.lds = (n + q.width - 1) // q.width, max(4, 4 * memory)
        self.vectors = empty_padded_rows(11, n, dtype)[:, :n]
        self.pairs = empty_padded_rows(2 * memory, n, dtype)[:, :n]
        self.numbers = np.zeros(2 * <object>memory * memory + 7 * memory + q.parts * q.lds)
        q.pairs, self.base = pointer(self.pairs), pointer(self.vectors)
        q.g, q.g_trial = self.base + line, self.base + 3 * line
        q.g_low, q.theta = self.base + 5 * line, self.base + 6 * line
        q.trial, q.d = self.base + 7 * line, self.base + 8 * line
        q.s, q.best = self.base + 9 * line, self.base + 10 * line
        q.cross = <double *>pointer(self.numbers)
        q.inner = q.cross + memory * memory
        q.products = q.inner + memory * memory
        q.weights = q.products + 2 * memory
        q.solved = q.weights + 2 * memory
        q.sums = q.solved + 3 * memory
        q.noise = TRIAL_VALUE_ERROR_EPS * float(np.finfo(dtype).eps)

    cdef object array_at_address(self, char *start):
        """Return the NumPy array whose memory begins at `start`."""
        return self.vectors[(start - self.base) // self.q.line]

    # --- the current point ------------------------------------------------------------------------

    def start(self, theta, double value, gradient):
        """Start at theta with the given value and gradient. Existing pairs are kept."""
        cdef Quasi *q = &self.q
        self.array_at_address(q.theta)[:] = self.array_at_address(q.trial)[:] = theta
        self.array_at_address(q.g)[:] = self.array_at_address(q.g_trial)[:] = gradient
        q.f, q.state, q.moved, q.row = value, SEARCH_ENDED, False, -1
        with FloatingPointMode(), nogil:
            # s = 0, so only g'g is needed
            run_vector_sweep(q, compute_step_strip, 8, 4, STRIP_ELEMENTS)
            q.gnorm = norm_from_square(q, q.g, sum_over_parts(q, 3))
            if q.count:
                multiply_pairs(q)

    def restore_pairs(self, Py_ssize_t first, Py_ssize_t count):
        """Restore pairs after `start`. The caller has filled the first `count` pairs of `pairs`, of
        which pair number `first` is the oldest.
        """
        cdef Quasi *q = &self.q
        cdef Py_ssize_t i
        if not (0 <= count <= q.most and 0 <= first < max(q.most, 1)):
            raise ValueError(
                f"pairs must lie within the {q.most} rows that are kept, got {count} from row "
                f"{first}."
            )
        with FloatingPointMode(), nogil:
            q.first, q.count = first, count
            for i in range(count):  # from the oldest pair to the newest
                q.row = (first + i) % q.most
                memcpy(q.s, q.pairs + 2 * q.row * q.line, q.n * q.K.real_bytes)
                memcpy(q.g - q.line, q.pairs + (2 * q.row + 1) * q.line, q.n * q.K.real_bytes)
                multiply_pairs(q)
            q.row = -1

    @property
    def theta(self):
        return self.array_at_address(self.q.theta)

    @property
    def gradient(self):
        return self.array_at_address(self.q.g)

    @property
    def value(self):
        return self.q.f

    @property
    def gradient_norm(self):
        return self.q.gnorm

    @property
    def first(self):
        return self.q.first

    @property
    def count(self):
        return self.q.count

    @property
    def best(self):
        """The lowest point of the last `run`, its value and gradient norm, as a tuple, or None if
        the lowest point is `theta`.
        """
        if self.q.elsewhere:
            return self.array_at_address(self.q.best), self.q.best_f, self.q.best_gnorm
        return None

    # --- interface for losses that the caller evaluates -------------------------------------------

    @property
    def trial(self):
        return self.array_at_address(self.q.trial)

    @property
    def moved(self):
        """True if the last search ended at a new point."""
        return self.q.moved

    def start_search(self):
        """Begin a line search. Return True if the value and gradient at `trial` are needed."""
        with FloatingPointMode(), nogil:
            begin_line_search(&self.q)
        return self.q.state == SEARCH_RUNNING

    def supply_trial(self, double value, gradient):
        """Process the value and the gradient at `trial`. Return True if those at another trial
        point are needed.
        """
        np.copyto(self.array_at_address(self.q.g_trial), gradient)
        with FloatingPointMode(), nogil:
            process_trial(&self.q, value)
        return self.q.state == SEARCH_RUNNING

    def stop_search(self):
        """End the search at its lowest trial if the value there is lower than at the start, and
        otherwise at the start.
        """
        with FloatingPointMode(), nogil:
            end_line_search(&self.q, True)

    # --- interface for losses that a plan evaluates -----------------------------------------------

    def run(self, Plan plan, record, double gradient_tol, double target, double seconds):
        """Take at most as many steps as `record` (count, 3) has rows. Row k receives the loss, the
        gradient norm and the elapsed seconds after step k. Attribute `steps` is the number of steps
        taken, even if a signal handler raises an exception.

        Returns
        -------
        str
            Reason for the end: ``critical``, ``target``, ``stalled`` or ``max_time``, or ``""`` if
            all steps were taken or a tenth of a second has passed.
        """
        cdef Py_ssize_t count = len(record)
        check_float64_array(record, "record", (count, 3))
        if plan.P.n != self.q.n or plan.dtype != self.vectors.dtype:
            raise ValueError(
                f"the plan must have {self.q.n} parameters of dtype {self.vectors.dtype}, got "
                f"{plan.P.n} of dtype {plan.dtype}."
            )
        cdef double *rows = <double *>pointer(record)
        cdef Ending ending = NOT_ENDED
        self.steps = 0
        with plan.lock:
            plan.gradient = None
            plan.theta = None
            with nogil:
                self.take_steps(plan, count, gradient_tol, target, seconds, rows, &ending)
        return ("", "critical", "target", "stalled", "max_time", "")[ending]

    cdef int take_steps(
        self, Plan plan, Py_ssize_t count, double gradient_tol, double target, double seconds,
        double *rows, Ending *ending
    ) except -1 nogil:
        """Take steps until one of the conditions of `run` ends them, and store the reason in
        `ending`.
        """
        cdef Quasi *q = &self.q
        cdef fc_watch before = begin_signal_watch()
        self.began = self.looked = now_ns()
        self.check_time_limit(seconds)
        q.elsewhere, q.best_f, q.best_gnorm = False, q.f, q.gnorm
        while self.steps < count:
            if q.gnorm <= gradient_tol:
                ending[0] = CRITICAL
            elif q.f <= target:
                ending[0] = TARGET
            elif self.out_of_time:
                ending[0] = OUT_OF_TIME
            else:
                ending[0] = self.take_step(plan, seconds)
            if ending[0] != NOT_ENDED:
                break
            self.update_best_point()
            rows[0], rows[1], rows[2] = q.f, q.gnorm, (self.looked - self.began) * 1e-9
            rows += 3
            self.steps += 1
            if self.looked - self.began > PROGRESS_INTERVAL_NS:
                break
        return plan.end_watch(before)

    cdef Ending take_step(self, Plan plan, double seconds) noexcept nogil:
        """Take one step. Updates of the run's state are not interrupted, so a cancellation takes
        effect only between trials.
        """
        cdef Quasi *q = &self.q
        cdef double f
        cdef fc_watch before = fc_watch_begin(NULL)
        begin_line_search(q)
        fc_watch_end(before)
        while q.state == SEARCH_RUNNING:
            self.evaluations += plan.compute_loss_at(q.trial, q.g_trial, &f)
            if fc_watch_poll():
                q.state = SEARCH_ENDED
                return CANCELLED
            self.check_time_limit(seconds)
            before = fc_watch_begin(NULL)
            process_trial(q, f)
            if self.out_of_time and q.state == SEARCH_RUNNING:
                end_line_search(q, True)
            fc_watch_end(before)
        if q.moved:
            return NOT_ENDED
        return STALLED if q.state == SEARCH_FAILED else OUT_OF_TIME

    cdef void check_time_limit(self, double seconds) noexcept nogil:
        """Set `out_of_time` if the time limit will be reached before the next check of the clock.
        """
        cdef long long here = now_ns()
        self.gap = max(CLOCK_GAP_DECAY * self.gap, (here - self.looked) * 1e-9)
        self.looked = here
        self.out_of_time = (here - self.began) * 1e-9 + self.gap > seconds

    cdef void update_best_point(self) noexcept nogil:
        """Update the lowest point of the run after a step."""
        cdef Quasi *q = &self.q
        if q.f < q.best_f:
            q.best_f, q.best_gnorm, q.elsewhere = q.f, q.gnorm, False
        elif not q.elsewhere:
            q.elsewhere = True
            # `move_to_trial` has swapped theta and trial, so trial is the previous theta.
            memcpy(q.best, q.trial, q.n * q.K.real_bytes)
