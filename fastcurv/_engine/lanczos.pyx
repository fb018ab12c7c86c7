"""The Lanczos recurrence for single vectors, with a basis that is kept orthonormal to rounding.

The state consists of the basis ``Q``, whose rows ``0 .. m-1`` have been multiplied by the operator
A, the pending rows ``m .. m+p-1``, which have not, and the projection ``T`` of A. They satisfy

    A Q' = Q' T + (pending rows)' B + F',        B = T[m:m+p, :m],        ||F_i|| <= err[i]

where F (m, n) is the error. Ritz values, residuals, restarts and quadratures are computed from T, B
and err.

A step orthogonalises the new vector only against its two predecessors. The components along older
vectors start at rounding level and grow from step to step in a way that can be estimated from T
(Simon 1984). Steps are collected in a batch as long as the estimate stays below
`orthogonality_tol`. Then the whole batch is orthogonalised against all older vectors in two sweeps.
The effect on T that is neglected is of second order, namely the square of these components, and is
added to err. If only T is needed (`semiorthogonal`), only the last two rows of a batch are
orthogonalised, from which the recurrence continues as if all rows had been. As long as the rows are
orthonormal to ``sqrt(eps)``, T then equals, to rounding, that of an orthonormal basis (Simon 1984).

Products may come from any operator; those of a plan or of a small matrix need no Python call.
Ctrl-C takes effect only during a product, so the work between two products is never interrupted.
"""
import numpy as np

from libc.float cimport DBL_EPSILON, FLT_EPSILON
from libc.math cimport INFINITY, fabs, fmax, fmin, frexp, hypot, isfinite, ldexp, sqrt
from libc.string cimport memcpy, memmove, memset

cdef enum:
    MAX_REORTHOGONALISED_ROWS = 16         # maximum number of rows per batch
    # Maximum multiply-adds of a sweep that keeps the GIL. Such a sweep takes less time than
    # releasing the GIL.
    GIL_HELD_MAX_MULTIPLY_ADDS = 20000

# Assumed error of products and sweeps, in units of eps ||A||, unless a larger error is measured.
cdef double PRODUCT_ERROR_EPS = 4
# Maximum norm of a new row, relative to the largest Ritz value, at which the row is orthogonalised
# again.
cdef double MAX_CANCELLATION_RATIO = 1e-2
# Multiplier of a linear congruential generator (Knuth).
cdef unsigned long long LCG_MULTIPLIER = 6364136223846793005
NOT_FINITE_MESSAGE = (
    "products with the operator must be finite for finite vectors, got NaN or infinity."
)


# --- the recurrence -------------------------------------------------------------------------------

cdef class LanczosRecurrence:
    """The Lanczos recurrence for single vectors: steps, reorthogonalisation and restarts.

    The basis has m multiplied and p pending rows, of at most `capacity` in a space of dimension
    `dimension`. The first `n_clean` rows are orthonormal to rounding. Products of later rows have
    components along the first `n_locked` rows, which each step measures and removes. New rows are
    also orthogonalised against the rows of `against`, which are not part of the basis. The
    components of products along these rows are in `deflation_coupling`. A step orthogonalises its
    product against the rows from `reach` on. `scale` is the largest |Ritz value| so far, `noise`
    the measured error of a product, `orthogonality_tol` the largest permitted component of a new
    row along older ones, and `max_orthogonality_loss` the largest component found.
    """
    cdef readonly Py_ssize_t n
    cdef readonly object dtype
    cdef readonly double eps
    cdef public object rows, T, err, deflation_coupling, against, product
    cdef public Py_ssize_t m, p, n_clean, reach, n_locked, capacity, dimension, n_products
    cdef int exponent           # products are scaled by 2^-exponent; T is not scaled
    cdef readonly double unit   # 2^exponent, the factor that undoes the scaling of products
    cdef public bint tridiagonal, semiorthogonal
    cdef public double orthogonality_tol, scale, noise, max_orthogonality_loss
    cdef FastProduct times      # fast products of the operator, or None
    cdef SmallEigensystem found
    cdef double lost            # estimated loss of orthogonality of the pending row
    cdef bint has_loss_estimates          # True if `along` holds the estimates for rows m - 1 and m
    # (3, apart) ring buffer of estimated components of the last rows along all rows
    cdef object along
    cdef double *trail
    cdef Py_ssize_t apart, phase
    cdef Scratchpad sums, squares, small
    cdef Sweep sweep            # K, n and width of sweeps; each sweep sets the other fields
    cdef Py_ssize_t parts, taken  # number of parts of a sweep; number of rows of `against`
    # leading dimensions of rows, T and deflation_coupling
    cdef Py_ssize_t line, ld, leaks
    # (rows, against, T, err, deflation_coupling) at the last update of pointers
    cdef public tuple arrays
    cdef char *q                # address of rows
    cdef char *off              # address of against, or NULL
    cdef double *t              # address of T
    cdef double *e              # address of err
    cdef double *l              # address of deflation_coupling, or NULL
    cdef object errors          # copy of err after the last restart
    # bound on the Frobenius norm of the rows of F from before the last restart
    cdef double joint
    # arguments of `set_locked_direction`; None if products are orthogonalised against the locked
    # rows themselves
    cdef object echo, coupled
    cdef double echo_error
    cdef int echo_exponent

    def __init__(self, n, dtype, product, times=None):
        self.n, self.dtype, self.product = n, np.dtype(dtype), product
        fast = isinstance(times, FastProduct) and (<FastProduct>times).is_available()
        self.times = times if fast else None
        self.eps = DBL_EPSILON if self.dtype.itemsize == 8 else FLT_EPSILON
        self.found, self.unit, self.errors = SmallEigensystem(), 1, np.empty(0)
        self.along = np.empty((3, 0))
        self.sums, self.squares, self.small = Scratchpad(), Scratchpad(), Scratchpad()

    cdef int update_pointers(self) except -1:
        """Update the addresses of the arrays, which Python code may have replaced or resized."""
        cdef tuple last = self.arrays
        self.q = pointer(self.rows)
        if (
            last is not None and last[0] is self.rows and last[1] is self.against
            and last[2] is self.T and last[3] is self.err and last[4] is self.deflation_coupling
        ):
            return 0
        self.parts = set_sweep(&self.sweep, self.rows, self.rows)
        self.line = self.sweep.ldq
        self.off, self.l, self.taken = NULL, NULL, len(self.against)
        if self.taken:
            self.off, self.l = pointer(self.against), <double *>pointer(self.deflation_coupling)
        self.t, self.ld = <double *>pointer(self.T), self.T.shape[1]
        self.e, self.leaks = <double *>pointer(self.err), self.deflation_coupling.shape[1]
        self.arrays = (self.rows, self.against, self.T, self.err, self.deflation_coupling)
        return 0

    cdef char *row_address(self, Py_ssize_t i) noexcept nogil:
        """Return the address of row i of the basis."""
        return self.q + i * self.line * self.sweep.K.real_bytes

    # --- sweeps, which are never interrupted ------------------------------------------------------

    cdef double *inner_products(
        self, const char *q, Py_ssize_t m, char *w, Py_ssize_t s
    ) except NULL:
        """Return the inner products (s, m) of s rows w with m rows q."""
        return self.run_sweep(compute_dots, q, m, w, s, NULL, m * s)

    cdef double *subtract_multiples(
        self, const char *q, Py_ssize_t m, char *w, Py_ssize_t s, const double *c
    ) except NULL:
        """Subtract linear combinations of m rows q, with coefficients c (s, m), from s rows w.
        Return the squared norms (s,) of the new rows.
        """
        return self.run_sweep(subtract_combination, q, m, w, s, c, s)

    cdef double *run_sweep(
        self, void (*how)(Sweep *, int) noexcept nogil, const char *q, Py_ssize_t m, char *w,
        Py_ssize_t s, const double *c, Py_ssize_t sums
    ) except NULL:
        """Run the sweep `how` over m rows q and s rows w, which computes `sums` sums. Return the
        address of the sums, which the next sweep overwrites.
        """
        cdef Sweep *t = &self.sweep
        cdef int threads
        cdef fc_watch before
        t.m, t.s, t.q, t.w, t.c, t.ldw = m, s, q, w, c, self.line
        t.ldq = self.n if q == self.off else self.line
        pad = self.sums if c == NULL else self.squares  # c may be the result of the last sweep
        t.out = (<Scratchpad>pad).reserve(max(self.parts, 1) * max(sums, 1))
        if m * s * self.n <= GIL_HELD_MAX_MULTIPLY_ADDS:
            how(t, 1)
            return t.out
        threads = sweep_threads(t)
        with nogil:
            before = fc_watch_begin(NULL)
            how(t, threads)
            fc_watch_end(before)
        return t.out

    cdef double norm_from_square(self, char *w, double square) noexcept:
        """Return ||w||. The argument `square` is ||w||^2, unless the square overflowed or
        underflowed.
        """
        if 1e-30 < square < 1e30:
            return sqrt(square)
        if self.sweep.K.real_bytes == 8:
            return safe_norm(self.n, <double *>w)
        return safe_norm(self.n, <float *>w)

    cdef double norm(self, char *w) except? -1:
        """Return ||w||."""
        return self.norm_from_square(w, self.inner_products(w, 1, w, 1)[0])

    cdef int divide_row(self, char *w, double by) except -1:
        """Divide w by a positive number in place."""
        if self.sweep.K.real_bytes == 4:
            by = <double>(<float>by)
        self.sweep.K.scale(self.n, 1 / by, w, w)
        return 0

    cdef double orthogonalise(self, char *q, Py_ssize_t m, char *w, int passes) except? -1:
        """Orthogonalise w against m rows q, in at most `passes` sweeps. Return the norm of the
        remainder.
        """
        cdef int _k
        cdef double *along
        cdef double gone, left = 0
        if not m:
            return self.norm(w)
        for _k in range(passes):
            along = self.inner_products(q, m, w, 1)
            gone = safe_norm(m, along)
            left = self.norm_from_square(w, self.subtract_multiples(q, m, w, 1, along)[0])
            if gone <= left:    # without cancellation, a further sweep changes nothing
                break
        return left

    # --- start rows -------------------------------------------------------------------------------

    def discard_basis(self):
        """Discard the basis. The number of products, the scale and the noise are kept."""
        cdef Py_ssize_t i
        self.update_pointers()
        self.clear_projection(0, self.m + self.p)
        for i in range(len(self.err)):
            self.e[i] = 0
        self.m = self.p = self.n_clean = self.reach = self.n_locked = 0
        self.tridiagonal, self.lost, self.has_loss_estimates, self.echo = True, 0, False, None
        self.errors, self.joint = np.empty(0), 0

    cdef void clear_projection(self, Py_ssize_t first, Py_ssize_t end) noexcept:
        """Set rows and columns [first, end) of T to 0. Later rows and columns are already 0."""
        cdef Py_ssize_t i
        for i in range(end):
            if i >= first:
                memset(self.t + i * self.ld, 0, end * sizeof(double))
            else:
                memset(self.t + i * self.ld + first, 0, (end - first) * sizeof(double))

    def drop_pending_rows(self):
        """Discard the pending rows. Add the norms of their couplings with the multiplied rows to
        err.
        """
        cdef Py_ssize_t i, j
        cdef double *out
        self.update_pointers()
        self.restore_orthogonality(-1)
        if self.p and self.m:
            lost = np.zeros(self.m)
            out = <double *>pointer(lost)
            for j in range(self.m):
                for i in range(self.m, self.m + self.p):
                    out[j] = hypot(out[j], self.t[i * self.ld + j])
            self.drop_coupling(lost)
        self.p = 0

    def drop_coupling(self, lost):
        """Clear the coupling to the pending rows in T and add `lost` (m,), the norms of these
        couplings, to err. If these norms exceed rounding, lock the existing rows, because products
        of later vectors have components along these rows that must be computed explicitly.
        """
        cdef double most = 0
        cdef Py_ssize_t j
        lost = as_float64_vector(lost, "lost", self.m)
        cdef double *gone = <double *>pointer(lost) if self.m else NULL
        self.update_pointers()
        for j in range(self.m):
            self.e[j] += gone[j]
            most = fmax(most, gone[j])
        if most > 10 * self.noise:
            self.n_locked, self.echo = self.m, None
        self.clear_projection(self.m, min(self.m + self.p, self.ld))

    def set_locked_direction(self, w, echo, coupled, double error):
        """Declare that the products of the locked rows have, outside the basis, the direction of
        the unit vector w with coefficients `coupled` (locked,), except for components whose joint
        norm is at most `error`.

        By symmetry, the product of a later row q has components ``<w, q>`` times `coupled` along
        the locked rows. These components are removed by two sweeps over one vector each, w and
        `echo` (the sum of the locked rows times ``coupled / unit``), instead of two sweeps over all
        locked rows.
        """
        self.coupled = as_float64_vector(coupled, "coupled", self.n_locked).copy()
        self.echo = np.stack([w, echo]).astype(self.dtype, copy=False)
        if self.echo.shape != (2, self.n):
            raise ValueError(f"echo must have shape (2, {self.n}), got {self.echo.shape}.")
        self.echo_exponent, self.echo_error = self.exponent, error

    def release_locked_direction(self):
        """Free the two vectors of `set_locked_direction`. Later products are orthogonalised against
        the locked rows themselves.
        """
        self.echo = None

    def replace_pending_rows(self, W):
        """Replace the pending rows by the rows `W (p, n)`, which must be finite. Rows that depend
        linearly on others are omitted. Return the new number of pending rows.

        The coupling of the basis to the previous pending rows is dropped and added to err.
        """
        cdef char *w
        cdef char *new
        cdef double size
        if np.shape(W)[1:] != (self.n,):
            raise ValueError(f"W must have shape (p, {self.n}), got {np.shape(W)}.")
        W = np.ascontiguousarray(W, self.dtype)
        self.drop_pending_rows()
        for one in W:
            if self.m + self.p >= min(self.capacity + 1, self.dimension):
                break
            w, new = pointer(one), self.row_address(self.m + self.p)
            memmove(new, w, self.n * self.sweep.K.real_bytes)
            size = self.norm(new)
            if not size > 0:
                continue
            self.divide_row(new, size)
            self.orthogonalise(self.off, self.taken, new, 2)
            size = self.orthogonalise(self.q, self.m + self.p, new, 2)
            if not size > 100 * self.eps:
                continue
            self.divide_row(new, size)
            if size < 0.5:      # cancellation has amplified the components along the rows
                self.divide_row(new, self.orthogonalise(self.q, self.m + self.p, new, 1))
                if self.taken:
                    self.orthogonalise(self.off, self.taken, new, 1)
            self.p += 1
        self.n_clean, self.reach = self.m + self.p, self.m
        self.tridiagonal = self.tridiagonal and self.p <= 1
        self.reset_loss_estimate()
        self.enlarge_projection(self.n_clean)
        return self.p

    def reset_loss_estimate(self):
        """Reset the estimate of the loss of orthogonality, after all rows have been
        orthonormalised.
        """
        self.lost, self.has_loss_estimates = 0, False

    # --- products ---------------------------------------------------------------------------------

    cdef int multiply_row(self, Py_ssize_t i) except -1:
        """Set row i + 1 to the product of A with row i."""
        if self.times is None:
            self.product(self.rows[i], self.rows[i + 1])
        else:
            self.times.apply(self.row_address(i), self.row_address(i + 1))
        self.n_products += 1
        return 0

    cdef int multiply_and_scale_row(self, Py_ssize_t i) except -1:
        """Set row i + 1 to the product of A with row i, divided by `unit`. The first product
        determines `unit`.
        """
        cdef char *w = self.row_address(i + 1)
        self.multiply_row(i)
        if self.scale == 0:
            self.choose_unit(w)
        if self.exponent:
            self.sweep.K.scale(self.n, 1 / self.unit, w, w)
        return 0

    cdef int choose_unit(self, char *w) except -1:
        """Choose `unit` from a product. Products with entries between 2^-window and 2^window are
        not scaled, because the squares of these entries, and of numbers n times as large, are
        within range.
        """
        cdef bint wide = self.sweep.K.real_bytes == 8
        cdef double largest = max_abs(self.n, <double *>w) if wide else max_abs(
            self.n, <float *>w
        )
        cdef int window = 300 if wide else 30
        # limits `exponent` so that 2^-exponent is representable
        cdef int most = 1000 if wide else 4 * window - 2
        if not isfinite(largest):
            raise NotFiniteError(NOT_FINITE_MESSAGE)
        self.exponent = 0
        frexp(largest, &self.exponent)
        if abs(self.exponent) <= window:
            self.exponent = 0
        self.exponent = max(-most, min(self.exponent, most))
        self.unit = ldexp(1.0, self.exponent)
        return 0

    def divide_by_unit(self, W):
        """Divide rows of products by `unit`, which is chosen from the first nonzero row."""
        cdef Py_ssize_t i
        if self.scale == 0:
            i = int(np.argmax(np.abs(W).max(axis=1)))
            self.update_pointers()
            self.choose_unit(pointer(W[i]))
        if self.exponent:
            W *= self.dtype.type(1 / self.unit)

    # --- steps ------------------------------------------------------------------------------------

    def advance(self, Py_ssize_t until, double seconds=INFINITY):
        """Take single-row steps, at one product each, until there are `until` rows, the space is
        exhausted or `seconds` have elapsed. If a product raises an exception, the state remains
        that before the product.
        """
        cdef long long begun = now_ns()
        self.update_pointers()
        until = min(until, len(self.err) - 1)
        while self.p == 1 and self.m < until and (now_ns() - begun) * 1e-9 < seconds:
            if self.m + 2 > self.ld:
                self.enlarge_projection(self.m + 2)
                self.update_pointers()
            self.take_step()

    def enlarge_projection(self, Py_ssize_t rows):
        """Enlarge T, if necessary, to at least `rows` rows, but to no more rows than `err` has
        entries.
        """
        cdef Py_ssize_t before = len(self.T), now_ = min(max(rows, 2 * before), len(self.err))
        if rows > before:
            T = np.zeros((now_, now_))
            T[:before, :before] = self.T
            self.T = T

    cdef int take_step(self) except -1:
        """Take one step with a single row."""
        cdef Py_ssize_t j = self.m, low = self.reach, count = j + 1 - low, i
        cdef char *w = self.row_address(j + 1)
        cdef double scale = self.scale, beta, size, gap = 0, one
        cdef double *c
        cdef double *again
        self.multiply_and_scale_row(j)
        c = self.small.reserve(j + 2)
        beta = self.orthogonalise_next_row(j, low, c)
        if not isfinite(beta):  # the product has NaN, or is too large for the unit
            self.scale, self.exponent, self.unit = 0, 0, 1
            try:
                self.multiply_and_scale_row(j)
            finally:
                self.scale = scale
            beta = self.orthogonalise_next_row(j, low, c)
        size = safe_norm(count, c)
        if not isfinite((size + beta) * self.unit):
            raise NotFiniteError(NOT_FINITE_MESSAGE)
        if beta <= 0.1 * size or count > 2:
            again = self.inner_products(self.row_address(low), count, w, 1)
            c[count - 1] += again[count - 1]
            beta = self.norm_from_square(
                w, self.subtract_multiples(self.row_address(low), count, w, 1, again)[0]
            )
        # Components along rows before the last belong to T if rows are locked. Otherwise they show
        # how asymmetric the operator is.
        for i in range(count - 1):
            one = c[i] * self.unit
            if low == 0 and self.n_locked:
                self.t[i * self.ld + j] = self.t[j * self.ld + i] = one
            else:
                gap = hypot(gap, one - self.t[(low + i) * self.ld + j])
        self.scale = fmax(self.scale, hypot(size, beta) * self.unit)
        self.noise = fmax(self.noise, fmax(gap, PRODUCT_ERROR_EPS * self.eps * self.scale))
        self.t[j * (self.ld + 1)] = c[count - 1] * self.unit
        self.e[j] = self.noise
        if self.echo is not None:
            self.e[j] += self.echo_error
        return self.append_row_or_end(j, low, w, beta * self.unit)

    cdef double orthogonalise_next_row(self, Py_ssize_t j, Py_ssize_t low, double *c) except? -1:
        """Orthogonalise row j + 1 against rows `low` to j, with coefficients c, then against locked
        rows, and then against the rows of `against`, with coefficients in `deflation_coupling`.
        Return the norm of the remainder.

        Row j has components of rounding size along locked rows and along the rows of `against`. If
        these two groups came first, subtracting row j afterwards would restore such components, and
        dividing by the norm of the remainder would amplify them, twentyfold for a narrow spectrum.
        """
        cdef Py_ssize_t locked = min(self.n_locked, low), i, count = j + 1 - low
        cdef char *w = self.row_address(j + 1)
        cdef double *along
        cdef double part, square
        memcpy(c, self.inner_products(self.row_address(low), count, w, 1), count * sizeof(double))
        square = self.subtract_multiples(self.row_address(low), count, w, 1, c)[0]
        if locked and self.echo is not None:
            along = <double *>pointer(self.coupled)
            part = self.inner_products(pointer(self.echo), 1, self.row_address(j), 1)[0]
            for i in range(locked):
                self.t[i * self.ld + j] = self.t[j * self.ld + i] = part * along[i]
            part = ldexp(part, self.echo_exponent - self.exponent)
            square = self.subtract_multiples(pointer(self.echo[1]), 1, w, 1, &part)[0]
        elif locked:
            along = self.inner_products(self.q, locked, w, 1)
            square = self.subtract_multiples(self.q, locked, w, 1, along)[0]
            for i in range(locked):
                self.t[i * self.ld + j] = self.t[j * self.ld + i] = along[i] * self.unit
        if self.taken:
            along = self.inner_products(self.off, self.taken, w, 1)
            square = self.subtract_multiples(self.off, self.taken, w, 1, along)[0]
            for i in range(self.taken):
                along[i] = self.l[i * self.leaks + j] = along[i] * self.unit
            # error of the subtraction, which remains in w
            self.noise = fmax(self.noise, self.eps * safe_norm(self.taken, along))
        return sqrt(square)

    cdef int append_row_or_end(self, Py_ssize_t j, Py_ssize_t low, char *w, double beta) except -1:
        """Make w the next row, or end the recurrence if w is only rounding."""
        if beta <= 30 * self.noise and self.n_clean:
            self.restore_orthogonality(j + 1)
            beta = self.orthogonalise(self.q, j + 1, w, 2) * self.unit
        self.m, self.p, self.reach = j + 1, 0, j
        if beta <= 3 * self.noise or j + 1 >= self.dimension:
            self.e[j] += beta if j + 1 < self.dimension else 0.0
            self.n_clean = min(self.n_clean, self.m)
            return self.restore_orthogonality(-1)
        self.divide_row(w, beta / self.unit)
        # Cancellation has amplified the components along the rows of `against`.
        if self.taken and beta <= MAX_CANCELLATION_RATIO * self.scale:
            self.orthogonalise(self.off, self.taken, w, 1)
        self.t[j * self.ld + j + 1] = self.t[(j + 1) * self.ld + j] = beta
        self.p = 1
        self.estimate_orthogonality_loss(j, low, beta)
        if (
            self.lost > self.orthogonality_tol
            or j + 2 - self.n_clean >= MAX_REORTHOGONALISED_ROWS
            or j < 2
        ):
            self.restore_orthogonality(-1)
        return 0

    cdef int estimate_orthogonality_loss(self, Py_ssize_t j, Py_ssize_t low, double beta) except -1:
        """Estimate the loss of orthogonality of row j + 1, and restore orthogonality if the
        estimate for the next step may exceed the limit.

        The components of rows j - 1 and j along earlier rows satisfy the same recurrence as the
        vectors, plus rounding in each step (Simon 1984). Rounding errors are assumed to have random
        signs. With equal signs the estimate would be 20 to 200 times the actual loss. The estimate
        only determines when to reorthogonalise, which measures the actual loss.
        """
        cdef Py_ssize_t end = j + 1, i, ld = self.ld, locked = min(self.n_locked, low)
        cdef double *t = self.t
        cdef double own = t[j * (ld + 1)], back = t[(j - 1) * ld + j] if j else 0
        cdef double root = sqrt(<double>end), spread = self.noise / (beta * root), off_diagonal = 0
        cdef double lost, most, one
        cdef unsigned long long coin = j
        cdef double *before
        cdef double *here
        cdef double *ahead
        if self.apart < len(self.err) + 2:
            along, held = np.zeros((3, len(self.err) + 2)), self.apart
            along[:, :held] = self.along
            self.along, self.apart = along, along.shape[1]
            self.trail = <double *>pointer(along) + 1  # each array is also read at index -1
        before = self.trail + self.phase % 3 * self.apart
        here = self.trail + (self.phase + 1) % 3 * self.apart
        ahead = self.trail + (self.phase + 2) % 3 * self.apart
        if not self.has_loss_estimates:   # so far all rows are orthonormal to rounding
            for i in range(end):
                before[i] = here[i] = self.eps / root
            here[j] = 1
            if j:
                before[j - 1] = 1
        here[end] = 0
        (here - 1)[0] = 0
        for i in range(end):
            one = t[i * (ld + 1)] * here[i]
            if self.tridiagonal:
                one += off_diagonal * here[i - 1]
                off_diagonal = t[i * (ld + 1) + 1]
                one += off_diagonal * here[i + 1]
            else:
                one = dot_doubles(end, t + i * ld, here)
                if i < locked:  # locked rows are orthogonalised separately
                    one -= t[i * ld + j]
            one = (one - own * here[i] - back * before[i]) / beta
            coin = coin * LCG_MULTIPLIER + 1
            ahead[i] = one - spread if coin >> 63 else one + spread
            # this step has removed the component along row i
            if i >= low or i < locked and self.echo is None:
                ahead[i] = spread
        lost, most = safe_norm(end, ahead), (self.scale + fabs(own)) / beta
        most = fmin(lost / self.lost, most) if self.lost else most
        self.lost = INFINITY if lost * most > self.orthogonality_tol else lost
        ahead[end] = 1
        self.phase += 1
        self.has_loss_estimates = True
        return 0

    # --- reorthogonalisation ----------------------------------------------------------------------

    def reorthogonalise(self):
        """Restore the orthogonality of the rows after `n_clean`, including the pending rows."""
        self.update_pointers()
        self.restore_orthogonality(-1)

    cdef int restore_orthogonality(self, Py_ssize_t multiplied) except -1:
        """Restore the orthogonality of the rows after `n_clean`. The argument `multiplied` is the
        number of rows for whose products T has columns. A negative number means m.
        """
        cdef Py_ssize_t end = self.m + self.p, first = self.n_clean, s, i, found
        cdef bint pending = self.p == 1 and self.m
        cdef double beta = safe_norm(self.m, self.t + self.m * self.ld) if pending else 0
        cdef double most, worst = self.orthogonality_tol, wrong = 0
        cdef double *C
        cdef char *P
        cdef int _k
        multiplied = self.m if multiplied < 0 else multiplied
        if self.n_clean < end:
            if self.semiorthogonal and end - 2 > first:
                self.n_clean = end - 2
            P, s = self.row_address(self.n_clean), end - self.n_clean
            for _k in range(3):
                # Components along the deflated vectors grow like any other loss of orthogonality.
                if self.taken:
                    self.subtract_multiples(
                        self.off, self.taken, P, s, self.inner_products(self.off, self.taken, P, s)
                    )
                C = self.small.reserve(s * self.n_clean + 3 * s * s + s)
                found = s * (self.n_clean + s)
                memcpy(
                    C,
                    self.run_sweep(compute_dots_and_gram, self.q, self.n_clean, P, s, NULL, found),
                    found * sizeof(double)
                )
                self.orthonormalise_batch(P, s, C)
                self.correct_projection(C, multiplied)
                most = self.record_correction(s, C, multiplied, self.n_clean == first)
                wrong += C[s * self.n_clean + 3 * s * s + s - 1] ** 2 * self.scale
                worst = fmax(worst, most)
                if most <= 1e-3:
                    break
            # with `semiorthogonal`, these rows remain unorthogonalised
            for i in range(first, self.n_clean):
                self.e[i] += worst * worst * self.scale
            self.n_clean = end
            if pending and safe_norm(self.m, self.t + self.m * self.ld) <= 3 * self.noise:
                self.e[self.m - 1] += beta  # the remainder is only rounding, so the recurrence ends
                self.p, self.n_clean = 0, self.m
            elif pending:
                self.e[self.m - 1] += wrong
                self.e[self.m] += wrong
        self.reset_loss_estimate()
        return 0

    cdef void correct_projection(self, const double *C, Py_ssize_t end) noexcept:
        """Correct T and `deflation_coupling` for the components C of the batch along the clean
        rows. The components change the measured coupling to locked rows and to `against`, and the
        change may be far larger than the loss of orthogonality.
        """
        cdef Py_ssize_t first = self.n_clean, locked = min(self.n_locked, first), i, j, ld = self.ld
        # number of locked rows whose coupling was not measured, because `echo` replaces them
        cdef Py_ssize_t unmeasured = 0 if self.echo is None else locked
        cdef double error
        for j in range(first, end):
            for i in range(self.taken):
                self.l[i * self.leaks + j] -= dot_doubles(
                    first, self.l + i * self.leaks, C + (j - first) * first
                )
            for i in range(locked):
                error = dot_doubles(
                    first - unmeasured, self.t + i * ld + unmeasured,
                    C + (j - first) * first + unmeasured
                )
                self.t[i * ld + j] -= error
                self.t[j * ld + i] -= error

    cdef int orthonormalise_batch(self, char *P, Py_ssize_t s, double *C) except -1:
        """Orthogonalise a batch of s rows P against the clean rows, and orthonormalise it.

        On entry, C holds the components (s, clean) of P along the clean rows, followed by the Gram
        matrix of P. On return, the lower triangle of the Gram matrix is that of the remainders, and
        is followed by the triangular matrix R (s, s) that orthonormalises them and by -R.
        """
        cdef Py_ssize_t first = self.n_clean, i, j
        cdef double *gram = C + s * first
        cdef double *R = gram + s * s
        cdef double *minus = R + s * s
        for i in range(s):
            for j in range(i + 1):
                gram[i * s + j] -= dot_doubles(first, C + i * first, C + j * first)
        if not whiten(s, gram, R, minus):
            raise NotFiniteError(NOT_FINITE_MESSAGE)
        for i in range(s * s):
            minus[i] = -R[i]
        self.sweep.transform = minus
        self.run_sweep(update_row_batch, self.q, first, P, s, C, 0)
        return 0

    cdef double record_correction(
        self, Py_ssize_t s, double *C, Py_ssize_t end, bint whole
    ) except? -1:
        """Record the effect of `orthonormalise_batch` in T, `deflation_coupling` and err. Return
        the largest loss of orthogonality found. The argument `whole` is True if the batch directly
        follows the clean rows.
        """
        cdef Py_ssize_t first = self.n_clean, i, j, k, ld = self.ld
        cdef double *gram = C + s * first
        cdef double *R = gram + s * s
        cdef double *lost = R + 2 * s * s
        cdef double inside = 0, wrong, most = 0
        for i in range(s):
            for j in range(i):
                inside = fmax(inside, fabs(gram[i * s + j]))
        for k in range(self.taken):
            for j in range(end - 1, first - 1, -1):
                self.l[k * self.leaks + j] = dot_doubles(
                    end - first, R + (j - first) * s, self.l + k * self.leaks + first
                )
        for i in range(s):
            lost[i] = hypot(safe_norm(first, C + i * first), inside)
            for j in range(first):
                self.max_orthogonality_loss = fmax(
                    self.max_orthogonality_loss, fabs(C[i * first + j])
                )
            most = fmax(most, lost[i])
        self.max_orthogonality_loss = fmax(self.max_orthogonality_loss, inside)
        if whole and first and self.t[first * ld + first - 1]:
            # The batch's first row was computed from rows that are orthonormal to rounding, so its
            # components measure the asymmetry of the operator.
            wrong = safe_norm(first, C) * fabs(self.t[first * ld + first - 1])
            self.noise = fmax(self.noise, wrong)
            for i in range(first - 1, first + s):
                self.e[i] = fmax(self.e[i], wrong)
        if self.p:
            k = self.m
            for i in range(k):
                self.t[k * ld + i] /= R[s * s - 1]
                self.t[i * ld + k] /= R[s * s - 1]
        # the pending row is omitted, because it may be discarded
        for i in range(s - (self.p == 1 and self.m > 0)):
            wrong = lost[i] * lost[i] * self.scale
            self.e[first + i] += wrong
            if first + i:
                self.e[first + i - 1] += wrong
        return most

    # --- restarts ---------------------------------------------------------------------------------

    def replace_by_ritz_vectors(self, theta, S):
        """Replace the basis's T, err and `deflation_coupling` by those of l Ritz vectors, with Ritz
        values theta (l,) and coordinates S (m, l). F is rotated like the basis, so the joint norm
        of its rows stays the same, whereas the sums of separate bounds would grow.
        """
        cdef Py_ssize_t m = self.m, p = self.p, count = len(theta), held = len(self.errors), i, j, k
        cdef double one, added = 0, others = 0
        self.update_pointers()
        theta = as_float64_vector(theta, "theta")
        rows = np.ascontiguousarray(S.T, np.float64)
        if rows.shape != (count, m) or count + p > len(self.err):
            raise ValueError(f"S must have shape ({m}, {count}) for {count} values, got {S.shape}.")
        coupling, errors = np.empty((p, count)), np.empty(count)
        leaks = np.empty((self.taken, count))
        cdef double *s = <double *>pointer(rows)
        cdef double *b = <double *>pointer(coupling) if p else NULL
        cdef double *e = <double *>pointer(errors) if count else NULL
        cdef double *l = <double *>pointer(leaks) if self.taken else NULL
        cdef double *was = <double *>pointer(self.errors) if held else NULL
        for i in range(held):
            added = hypot(added, self.e[i] - was[i])
        for i in range(held, m):
            others = hypot(others, self.e[i])
        self.joint = hypot(self.joint + added, others)
        for j in range(count):
            one = 0
            for i in range(m):
                one += fabs(s[j * m + i]) * self.e[i]
            e[j] = fmin(one, self.joint) + self.eps * self.scale
            for i in range(p):
                b[i * count + j] = dot_doubles(m, self.t + (m + i) * self.ld, s + j * m)
            for k in range(self.taken):
                l[k * count + j] = dot_doubles(m, self.l + k * self.leaks, s + j * m)
        self.clear_projection(0, min(m + p, self.ld))
        for j in range(count):
            self.t[j * (self.ld + 1)], self.e[j] = theta[j], e[j]
            for i in range(p):
                self.t[(count + i) * self.ld + j] = b[i * count + j]
                self.t[j * self.ld + count + i] = b[i * count + j]
            for k in range(self.taken):
                self.l[k * self.leaks + j] = l[k * count + j]
        self.errors, self.joint = errors, self.joint + self.eps * self.scale * sqrt(<double>count)
        self.m, self.n_clean, self.reach, self.tridiagonal = count, count + p, 0, False
        self.n_locked, self.echo = count if self.n_locked else 0, None
        self.reset_loss_estimate()
