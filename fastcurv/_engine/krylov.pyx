"""A Krylov subspace that grows by one operator product at a time, and the small problems of
Newton-type steps in it.

The orthonormal rows Q consist of m rows that have been multiplied by the symmetric operator H and,
after them, p pending rows. The projection T of H satisfies

    H Q[:m]' = Q[:m + p]' T[:m + p, :m]

Each product is orthogonalised against all rows, and the normalised remainder is the next pending
row. With T[:m, :m] = U diag(values) U' and linear = U' Q g for the gradient g, a step is s = Q' U
y, where y solves a small problem in diag(values) and linear. Products may come from any operator.
"""
import numpy as np

from libc.float cimport DBL_EPSILON, DBL_MIN, FLT_EPSILON, FLT_MIN
from libc.math cimport INFINITY, fabs, fmax, fmin, frexp, isfinite, isnan, ldexp, nextafter, sqrt

ctypedef fused real:
    float
    double

cdef enum Problem:
    SHIFTED, CLIPPED, ABSOLUTE, TRUST_REGION, CUBIC

cdef enum:
    ALWAYS_DIAGONALISE_MAX_ROWS = 8  # maximum rows for which every convergence check diagonalises T
    INITIAL_ROW_ELEMENTS = 32768  # elements of the rows that are allocated initially
# Minimum ratio of the smallest to the largest pivot of a matrix that is treated as nonsingular.
cdef double MIN_PIVOT_RATIO = 1e-8

SUBPROBLEMS = {
    "shifted": SHIFTED, "clipped": CLIPPED, "absolute": ABSOLUTE, "trust-region": TRUST_REGION,
    "cubic": CUBIC,
}

# Maximum length of a step, whose square must not overflow.
cdef double MAX_STEP_LENGTH = 1e150


# --- norms without overflow or underflow ----------------------------------------------------------

cdef double max_abs(Py_ssize_t n, const real *x) noexcept nogil:
    """Return the largest absolute value of n elements, or infinity if an element is not finite."""
    cdef real largest = 0
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        largest = max(largest, -x[i] if x[i] < 0 else x[i])
        total += 0 * x[i]       # NaN unless all elements are finite
    return INFINITY if isnan(total) else largest


cdef double safe_norm(Py_ssize_t n, const real *x) noexcept nogil:
    """Return ||x|| without overflow or underflow, or infinity if an element is not finite."""
    cdef double largest, total = 0, unit
    cdef Py_ssize_t i
    cdef int exponent
    if real is double:
        total = dot_doubles(n, x, x)
        if 1e-280 < total < 1e280:
            return sqrt(total)
    largest, total = max_abs(n, x), 0
    if not 0 < largest < INFINITY:
        return largest
    frexp(largest, &exponent)
    exponent = max(-1000, min(exponent, 1000))
    unit = ldexp(1.0, -exponent)
    for i in range(n):
        total += (unit * x[i]) * (unit * x[i])
    return ldexp(sqrt(total), exponent)


cdef double dot_doubles(Py_ssize_t m, const double *x, const double *y) noexcept nogil:
    """Return the inner product of two vectors (m,), computed as four independent sums so that the
    additions overlap.
    """
    cdef double a = 0, b = 0, c = 0, d = 0
    cdef Py_ssize_t i, whole = m & ~<Py_ssize_t>3
    for i in range(0, whole, 4):
        a += x[i] * y[i]
        b += x[i + 1] * y[i + 1]
        c += x[i + 2] * y[i + 2]
        d += x[i + 3] * y[i + 3]
    for i in range(whole, m):
        a += x[i] * y[i]
    return (a + b) + (c + d)


# --- small problems -------------------------------------------------------------------------------

cdef void solve_shifted_system(
    Py_ssize_t m, const double *values, double shift, const double *linear, double *y
) noexcept nogil:
    """Compute y = -pinv(T + shift I) linear for T = diag(values). An entry of y is 0 if its shifted
    eigenvalue is within rounding of 0.
    """
    cdef double largest = 0, floor
    cdef Py_ssize_t i
    for i in range(m):
        largest = fmax(largest, fabs(values[i] + shift))
    floor = m * DBL_EPSILON * largest
    for i in range(m):
        y[i] = -linear[i] / (values[i] + shift) if fabs(values[i] + shift) > floor else 0.0


cdef double solve_secular_equation(
    Py_ssize_t m, const double *base, const double *linear, double high, double goal, double edge,
    double weight, double *y
) noexcept nogil:
    """Return the root mu in (0, high] of 1 / ||y(mu)|| - 1 / wanted(mu), where y(mu) = -linear /
    (base + mu) and base >= 0. The wanted length is `goal` or, if `weight` is not 0, (edge + mu) /
    weight.

    The function increases with mu. Newton's iteration is safeguarded by a bracket.
    """
    cdef double low = 0, shrink = 0.5, mu = 0.5 * high, size, slope, gap, rise
    cdef Py_ssize_t i
    cdef int _k
    high = nextafter(high, INFINITY)
    for _k in range(200):
        # Bisect geometrically, because the root may be orders of magnitude below the upper end.
        if not low < mu < high:
            mu = sqrt(low) * sqrt(high) if low > 0 else fmax(high * shrink, 5e-324)
            shrink = shrink * shrink if low == 0 else shrink
        for i in range(m):
            y[i] = linear[i] / (base[i] + mu)
        size, slope = safe_norm(m, y), 0
        if weight > 0:
            goal, slope = (edge + mu) / weight, 1 / weight
        if not (size > 0 and goal > 0):  # one of the two lengths has underflowed
            if size <= goal:
                high = mu
            else:
                low = mu
            continue
        gap = 1 / size - 1 / goal
        if gap < 0:
            low = mu
        else:
            high = mu
        if fabs(gap) * goal <= 1e-14 or high - low <= 1e-15 * high:
            break
        rise = 0
        # The terms are arranged so that squares and cubes of very large or small lengths do not
        # overflow.
        for i in range(m):
            rise += (y[i] / size) * (y[i] / size) / (base[i] + mu)
        rise = rise / size + slope / goal / goal
        mu -= gap / rise if rise > 0 else 0.0
    return mu


cdef double minimise_regularised_model(
    Py_ssize_t m, const double *values, const double *linear, double radius, double weight,
    double *base, double *y
) noexcept nogil:
    """Compute the minimiser y of the quadratic model in a trust region or, if `weight` is not 0, of
    the cubic model. Return the multiplier lam >= 0, for which (values + lam) y = -linear and values
    + lam >= 0.

    In the hard case g has no component along the lowest eigenvector. A multiple of that vector is
    then added to y so that y reaches the boundary.
    """
    cdef double edge = fmax(0.0, -values[0]), size = safe_norm(m, linear), longest, high, reach, mu
    cdef bint hard = True
    cdef Py_ssize_t i
    for i in range(m):
        base[i] = values[i] + edge
        if i == 0 and values[0] < 0:
            base[i] = 0
        y[i] = -linear[i] / base[i] if base[i] > 0 else 0.0
        if not base[i] > 0 and fabs(linear[i]) > 1e-30 * size:
            hard = False
    longest = safe_norm(m, y) if hard else INFINITY
    reach = edge / weight if weight > 0 else radius
    if longest <= reach:
        if edge > 0:
            y[0] = sqrt(reach - longest) * sqrt(reach + longest)
        return edge
    if weight > 0:
        high = sqrt(weight * size)
    else:
        high = size / radius if size < 1e300 * radius else INFINITY
        if high == INFINITY:    # the radius is so short that curvature does not matter
            for i in range(m):
                y[i] = -linear[i] * (radius / size)
            return high
    mu = solve_secular_equation(m, base, linear, high, radius, edge, weight, y)
    for i in range(m):
        y[i] = -linear[i] / (base[i] + mu)
    return edge + mu


cdef double solve_diagonal_problem(
    Problem problem, Py_ssize_t m, const double *values, const double *linear, double parameter,
    double *base, double *y, double *measured
) noexcept nogil:
    """Solve the small problem for y. Also compute `measured`, the vector whose product with H
    appears in the residual of the problem. Return the multiplier of the bound on the length of y.
    """
    cdef double multiplier = 0
    cdef Py_ssize_t i
    if problem == TRUST_REGION:
        multiplier = minimise_regularised_model(m, values, linear, parameter, 0, base, y)
    elif problem == CUBIC:
        multiplier = minimise_regularised_model(m, values, linear, 0, parameter, base, y)
    else:
        for i in range(m):
            base[i] = values[i]
            if values[i] < 0 and problem != SHIFTED:
                base[i] = 0 if problem == CLIPPED else -values[i]
        solve_shifted_system(m, base, parameter, linear, y)
    for i in range(m):
        measured[i] = -y[i] if problem == ABSOLUTE and values[i] < 0 else y[i]
        if problem == ABSOLUTE and values[i] == 0:
            measured[i] = 0
    return multiplier


def solve_subproblem(str problem, values, linear, double parameter):
    """Solve one of `SUBPROBLEMS` for ascending eigenvalues `values` and the gradient `linear`,
    both (m,).

    Parameters
    ----------
    problem : str
        A key of `SUBPROBLEMS`.
    values, linear : array (m,)
        Eigenvalues and gradient in the coordinates of the eigenvectors.
    parameter : float
        The problem's shift, radius or weight.

    Returns
    -------
    y : array (m,)
        The solution.
    multiplier : float
        Multiplier of the bound on the length of y, or 0 if the problem has no such bound.
    """
    values, linear = (np.ascontiguousarray(x, np.float64) for x in (values, linear))
    if values.ndim != 1 or values.shape != linear.shape or not len(values):
        raise ValueError(
            "values and linear must be vectors of equal length >= 1, got shapes "
            f"{values.shape} and {linear.shape}."
        )
    y = np.empty((3, len(values)))
    cdef double *out = <double *>pointer(y)
    cdef Py_ssize_t m = len(values)
    cdef double multiplier = solve_diagonal_problem(
        SUBPROBLEMS[problem], m, <double *>pointer(values), <double *>pointer(linear), parameter,
        out + m, out, out + 2 * m
    )
    return y[0], multiplier


# --- stopping rule of inner solves ----------------------------------------------------------------

cdef struct StoppingRule:       # state of the rule that `new_stopping_rule` describes
    # Trade-off between decrease and cost, cost of a step in addition to its products (in products),
    # and predicted decrease at the last check.
    double cost_weight, price, gain
    Py_ssize_t m, next_check    # number of products at the last check and at the next one


cdef StoppingRule new_stopping_rule(double cost_weight, double price) noexcept nogil:
    """Return the initial state of a rule that stops an inner solve when another product costs more
    than it gains.

    A step costs m products for its solution and the equivalent of `price` products for evaluating
    and accepting it. When the average gain of the most recent products in predicted decrease falls
    below `cost_weight` times the step's decrease per unit of cost, the next product is better spent
    on a step from a new point. With a `cost_weight` of 0 the rule never stops a solve.
    """
    cdef StoppingRule rule
    rule.cost_weight, rule.price, rule.gain, rule.m, rule.next_check = cost_weight, price, 0, 0, 2
    return rule


cdef bint should_stop(StoppingRule *rule, Py_ssize_t m, double gain) noexcept nogil:
    """Return True if the solve should stop after m products, at which the predicted decrease is
    `gain`. The rule is evaluated each time m has grown by an eighth.
    """
    cdef double last = gain - rule.gain
    cdef Py_ssize_t count = m - rule.m
    cdef bint looked = rule.m > 0
    if m < rule.next_check:
        return False
    rule.m, rule.gain, rule.next_check = m, gain, m + 1 + m // 8
    return (
        rule.cost_weight > 0 and looked and count > 0
        and last * (m + rule.price) < rule.cost_weight * gain * count
    )


# --- the space ------------------------------------------------------------------------------------

cdef class KrylovSpace:
    """Orthonormal rows Q, the projection T of a symmetric operator H on their span, and steps in
    the span.

    With one start vector this is Lanczos with full reorthogonalisation. With several start vectors,
    the space is expanded by the residual of the last solution.

    Parameters
    ----------
    n : int
        Length of the vectors.
    dtype : dtype
        The dtype of the rows; T is kept in float64.
    max_dim : int
        Maximum number of rows, so the memory is at most ``max_dim * n`` numbers.
    select_row : callable
        ``select_row(space)`` moves the row that `extend` multiplies next to the front of several
        pending rows.
    """
    cdef readonly Py_ssize_t n, max_dim
    cdef readonly object dtype
    cdef readonly object rows, T, product
    cdef Py_ssize_t capacity    # number of rows for which there is room
    # residual_coordinates: coordinates, in the pending rows, of the last solution's residual, or
    # None
    cdef public object residual_coordinates
    cdef object multiply, select_row
    cdef public Py_ssize_t m, p, n_starts
    # tridiagonal: True if T is tridiagonal, which a single start vector guarantees.
    # has_multiplied_residual: True once `extend` has multiplied the direction of a residual.
    cdef public bint tridiagonal, has_multiplied_residual
    cdef public double gamma
    cdef readonly double max_abs_eigenvalue   # largest |eigenvalue| at the last diagonalisation
    cdef Py_ssize_t known       # number of rows for which T is diagonalised, or -1
    cdef SmallEigensystem found
    cdef Scratchpad small
    cdef double *linear
    cdef double *base
    cdef double *y
    cdef double *measured
    # Properties of the last solution y of a small problem: multiplier and length as in
    # `solve_subproblem`, predicted decrease, and norm of the residual's component outside the
    # span of the rows Q[:m].
    cdef double multiplier, length, gain, outer_norm
    cdef Sweep sweep            # a sweep over all rows and the product
    cdef object scratch
    cdef double *sums           # (rows + 1) sums for each part of a sweep
    cdef double *taken          # coefficients that were subtracted from the product along each row
    cdef double *at             # address of T's first entry
    cdef Py_ssize_t ld

    def __init__(self, n, dtype, max_dim, select_row):
        self.n, self.dtype, self.select_row = int(n), np.dtype(dtype), select_row
        self.max_dim = int(min(max_dim, n))
        if self.dtype.char not in "fd":
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype}.")
        self.product = np.empty(self.n, self.dtype)
        self.found, self.small = SmallEigensystem(), Scratchpad()
        self.m = self.p = 0
        self.gamma, self.known = 0, -1
        self.allocate(min(self.max_dim, max(16, INITIAL_ROW_ELEMENTS // max(self.n, 1))))

    cdef int allocate(self, Py_ssize_t capacity) except -1:
        """Make room for `capacity` rows, and keep the rows and coefficients so far."""
        cdef Py_ssize_t held = self.m + self.p
        rows = np.empty((capacity, self.n), self.dtype)
        T = np.zeros((capacity, capacity))
        if held:
            rows[:held] = self.rows[:held]
            T[:held, :held] = self.T[:held, :held]
        cdef Py_ssize_t parts = max(set_sweep(&self.sweep, rows, self.product[None]), 1)
        self.rows, self.T, self.capacity = rows, T, capacity
        self.scratch = np.empty((parts + 1) * (capacity + 1))
        self.sums = <double *>pointer(self.scratch)
        self.taken = self.sums + parts * (capacity + 1)
        self.at, self.ld = <double *>pointer(self.T), capacity
        return 0

    cdef int make_room(self) except -1:
        """Make room for one more row, up to `max_dim` rows."""
        if self.m + self.p == self.capacity < self.max_dim:
            self.allocate(min(2 * self.capacity, self.max_dim))
        return 0

    @property
    def exhausted(self):
        """True if no pending row is left, or if the arrays cannot hold the result of another
        product.
        """
        return self.is_exhausted()

    cdef bint is_exhausted(self) noexcept:
        """Return True if no pending row is left, or if the arrays cannot hold the result of another
        product.
        """
        return self.p == 0 or self.m + self.p >= self.max_dim < self.n

    def start(self, multiply, first, others=()):
        """Empty the space and set its start vectors. Vectors that depend linearly on earlier ones
        are omitted.

        Parameters
        ----------
        multiply : callable
            ``multiply(v, out)`` writes H v to `out`.
        first : array (n,)
            First start vector, whose norm is stored in `gamma`.
        others : sequence of array (n,)
            Further start vectors.
        """
        cdef char *w = self.sweep.w
        cdef double size
        cdef int exponent
        cdef fc_watch before
        self.multiply, self.m, self.p, self.known = multiply, 0, 0, -1
        self.residual_coordinates, self.has_multiplied_residual = None, False
        for vector in (first, *others):
            np.copyto(self.product, vector, casting="same_kind")
            exponent = self.scale_near_one(w)
            self.make_room()
            self.reset_coefficients()
            with nogil:
                before = begin_signal_watch()
                size = self.norm(w)
                end_signal_watch(before)
            if vector is first:
                self.gamma = ldexp(size, exponent)
            self.append_row(w, size)
        self.n_starts, self.tridiagonal = self.p, self.p == 1

    cdef int scale_near_one(self, char *w) except? -1:
        """Divide a product by a power of two if the squares of its elements could overflow or
        underflow. Return the exponent. Products that are not finite are left unchanged.
        """
        cdef double largest
        cdef int exponent
        cdef bint wide = self.sweep.K.real_bytes == 8
        largest = max_abs(self.n, <double *>w) if wide else max_abs(self.n, <float *>w)
        frexp(largest, &exponent)
        if not isfinite(largest) or abs(exponent) <= 30:
            return 0
        np.ldexp(self.product, -exponent, out=self.product)
        return exponent

    cdef void reset_coefficients(self) noexcept nogil:
        """Reset the coefficients that were subtracted from the product."""
        self.sweep.m = self.m + self.p
        memset(self.taken, 0, (self.sweep.m + 1) * sizeof(double))

    cdef char *row_address(self, Py_ssize_t i) noexcept nogil:
        """Return the address of row i of the basis."""
        return <char *>self.sweep.q + i * self.sweep.ldq * self.sweep.K.real_bytes

    cdef double norm(self, char *w) noexcept nogil:
        """Return ||w||."""
        cdef Sweep t = self.sweep
        t.m, t.q, t.w, t.out = 1, w, w, self.sums
        compute_dots(&t, 1)
        return sqrt(self.sums[0])

    cdef double orthogonalise_product(self, int threads) noexcept nogil:
        """Orthogonalise the product against the rows and add the coefficients to `taken`. Up to
        three sweeps are made, until one leaves at least 70% of the product's norm. Return the norm
        of the remainder.
        """
        cdef Sweep *t = &self.sweep
        cdef double after = self.norm(t.w), before
        cdef Py_ssize_t i
        cdef int _k
        for _k in range(3 if t.m else 0):
            t.out = self.sums
            compute_dots(t, threads)
            for i in range(t.m):
                self.taken[i] += self.sums[i]
            t.c, t.out = self.sums, self.sums + t.m
            subtract_combination(t, threads)
            before, after = after, sqrt(t.out[0])
            if after > 0.7 * before:
                break
        return after

    cdef double append_row(self, char *w, double reference) except? -1:
        """Orthogonalise w against the rows in place. If the remainder exceeds the rounding error of
        `reference`, append it, normalised, as a pending row.

        Return the norm of the remainder, or 0.0 if no row was appended.
        """
        cdef Py_ssize_t held = self.m + self.p, i
        cdef bint wide = self.sweep.K.real_bytes == 8
        cdef double left, tiny = DBL_MIN / DBL_EPSILON if wide else FLT_MIN / FLT_EPSILON
        cdef double eps = DBL_EPSILON if wide else FLT_EPSILON
        cdef int threads = sweep_threads(&self.sweep)
        cdef fc_watch before
        with nogil:
            before = begin_signal_watch()
            left = self.orthogonalise_product(threads)
            end_signal_watch(before)
        if held >= self.max_dim or not left > fmax(10 * eps * reference, tiny):
            return 0.0
        self.sweep.K.scale(self.n, 1 / left, w, self.row_address(held))
        for i in range(held + 1):
            self.at[held * self.ld + i] = self.at[i * self.ld + held] = 0
        self.p += 1
        return left

    cpdef void extend(self) except *:
        """Multiply one pending row and append the remainder of the product. Start vectors are
        multiplied first, then the direction of the residual of the last solution. The cost is one
        product.
        """
        cdef Py_ssize_t m, held, low, i
        cdef int exponent
        cdef double size, left
        cdef double *c
        cdef char *w = self.sweep.w
        cdef Sweep *t = &self.sweep
        cdef fc_watch before
        self.make_room()
        if self.m >= self.n_starts and self.p > 1:
            self.select_row(self)
        m, held = self.m, self.m + self.p
        self.multiply(self.rows[m], self.product)
        exponent = self.scale_near_one(w)
        self.reset_coefficients()
        with nogil:
            before = begin_signal_watch()
            size = self.norm(w)
            # The large components along the last two rows are removed first, so that one full sweep
            # is enough.
            if self.p == 1:
                low = max(m - 1, 0)
                c = self.taken + low
                t.K.dots(1, 1, t.n, self.row_address(m), t.n, w, t.n, c + m - low, 1)
                if m:
                    c[0] = ldexp(self.at[m * self.ld + low], -exponent)
                t.K.subtract(
                    m + 1 - low, 1, t.n, self.row_address(low), t.ldq, w, t.n, c, m + 1 - low, &left
                )
            end_signal_watch(before)
        left = ldexp(self.append_row(w, size), exponent)
        for i in range(held):
            if self.tridiagonal and i < m - 1:
                self.taken[i] = 0  # T is tridiagonal, so this entry is only rounding
            self.at[i * self.ld + m] = self.at[m * self.ld + i] = ldexp(self.taken[i], exponent)
        if left > 0:
            self.at[held * self.ld + m] = self.at[m * self.ld + held] = left
        self.m, self.p, self.known = m + 1, self.p - 1, -1

    # --- the eigenvectors of T, and steps ---------------------------------------------------------

    cdef int diagonalise(self) except -1:
        """Compute the ascending eigenvalues of T, the data from which its eigenvectors are formed,
        and the gradient in the coordinates of these eigenvectors.
        """
        cdef Py_ssize_t m = self.m, i
        cdef SmallEigensystem found = self.found
        if self.known == m or m == 0:
            return 0
        if not (self.tridiagonal and found.diagonalise_by_rotations(m, self.at, self.ld)):
            found.diagonalise_by_lapack(m, self.at, self.ld)
        self.linear = self.small.reserve(4 * m)
        self.base, self.y = self.linear + m, self.linear + 2 * m
        self.measured = self.linear + 3 * m
        for i in range(m):
            self.linear[i] = self.gamma * found.first[i]
        self.max_abs_eigenvalue = fmax(fabs(found.values[0]), fabs(found.values[m - 1]))
        self.known = m
        return 0

    def ritz_pairs(self):
        """Return the ascending eigenvalues (m,) and the eigenvectors (m, m), as columns, of T. Both
        are stored until the space grows.
        """
        self.diagonalise()
        at = np.arange(self.m)
        if not self.m:
            return np.empty(0), np.empty((0, 0))
        vectors = self.found.eigenvectors(self.m, <Py_ssize_t *>pointer(at))
        return array_from_doubles(self.m, self.found.values), vectors.T

    def linear_term(self):
        """Return ``U' Q g`` (m,), the gradient in the coordinates of the eigenvectors of T. The
        gradient g is gamma times the first row of Q.
        """
        self.diagonalise()
        return array_from_doubles(self.m, self.linear) if self.m else np.empty(0)

    cdef double outer_residual_norm(self, const double *z) except? -1:
        """Return ||E z|| for E = T[m:m + p, :m], the rows of T that belong to the pending rows, and
        z in the coordinates of the rows Q[:m]. Store the direction of E z for the next call of
        `extend`.
        """
        cdef Py_ssize_t i
        lacking = np.empty(max(self.p, 1))
        cdef double *out = <double *>pointer(lacking)
        for i in range(self.p):
            out[i] = dot_doubles(self.m, self.at + (self.m + i) * self.ld, z)
        if self.p > 1:
            self.residual_coordinates = lacking[: self.p]
        return safe_norm(self.p, out)

    cdef double outer_residual_norm_of_ritz(self, const double *y) except? -1:
        """Return ||E U y|| for E as in `outer_residual_norm`, where y is given in the coordinates
        of the eigenvectors U of T.
        """
        cdef Py_ssize_t m = self.m
        if self.tridiagonal:    # E has a single nonzero entry, in its last column
            if not self.p:
                return 0
            return fabs(self.at[m * self.ld + m - 1] * dot_doubles(m, self.found.last, y))
        self.found.combine_eigenvectors(y, self.base)
        return self.outer_residual_norm(self.base)

    def residual_norm(self, y):
        """Return the norm of the component of ``H Q' y`` outside the span of the rows, for y (m,)
        in the coordinates of the rows Q.

        The direction of that component is stored for the next call of `extend`.
        """
        y = np.ascontiguousarray(y, np.float64)
        if y.shape != (self.m,):
            raise ValueError(f"y must have shape ({self.m},), got {y.shape}.")
        return self.outer_residual_norm(<double *>pointer(y))

    cdef bint factorise_and_solve(
        self, double shift, bint both, const double *right, double *y, double *pivot
    ) noexcept nogil:
        """Solve (T + shift I) y = right for a tridiagonal T (m, m). The vectors right and y are
        (m,), and pivot (m,) is a scratch buffer. Return False if T + shift I is not positive
        definite or is nearly singular. If `both` is set, also return False if T is not positive
        definite.
        """
        cdef Py_ssize_t m = self.m, ld = self.ld, i
        cdef double *T = self.at
        cdef double plain = T[0], most = 0, least = INFINITY, off_diagonal
        for i in range(m):
            pivot[i], y[i] = T[i * (ld + 1)] + shift, right[i]
            if i:
                off_diagonal = T[i * ld + i - 1]
                plain = T[i * (ld + 1)] - off_diagonal * (off_diagonal / plain)
                pivot[i] -= off_diagonal * (off_diagonal / pivot[i - 1])
                y[i] -= off_diagonal * (y[i - 1] / pivot[i - 1])
            if not pivot[i] > 0 or (both and not plain > 0):
                return False
            most, least = fmax(most, pivot[i]), fmin(least, pivot[i])
        if not least > MIN_PIVOT_RATIO * most:
            return False
        for i in range(m - 1, -1, -1):
            off_diagonal = T[i * ld + i + 1] * y[i + 1] if i < m - 1 else 0
            y[i] = (y[i] - off_diagonal) / pivot[i]
        return True

    cdef bint solve_by_factorisation(self, Problem problem, double parameter) except *:
        """Solve the small problem in the coordinates of Q by factorising T + shift, in O(m),
        starting from the last multiplier. Return False if the eigenvectors of T are needed instead:
        in the hard case, and if the problem modifies negative eigenvalues.
        """
        cdef Py_ssize_t m = self.m
        cdef double *y = self.small.reserve(4 * m)
        cdef double *right = y + m
        cdef double *pivot = y + 2 * m
        cdef double *turn = y + 3 * m
        cdef bint bound = problem == TRUST_REGION or problem == CUBIC, solved = not bound
        cdef double shift = self.multiplier if bound else parameter, size, goal, slope
        cdef int _k
        self.known = -1         # the memory of `linear` is overwritten below
        memset(right, 0, m * sizeof(double))
        right[0] = -self.gamma
        for _k in range(20):
            if not self.factorise_and_solve(
                shift, problem == CLIPPED or problem == ABSOLUTE, right, y, pivot
            ):
                return False
            size = safe_norm(m, y)
            goal = parameter if problem == TRUST_REGION else shift / parameter
            if not 1e-100 < size < 1e100:  # squares and cubes of the length are computed below
                return False
            if solved or fabs(size - goal) <= 1e-9 * goal or (shift == 0 and size <= goal):
                solved = True
                break
            self.factorise_and_solve(shift, False, y, turn, pivot)
            # slope is the derivative of 1 / size with respect to the shift.
            slope = dot_doubles(m, y, turn) / size / size / size
            if problem == CUBIC:
                slope += 1 / (shift * goal)
            shift -= (1 / size - 1 / goal) / slope
            shift = fmax(shift, 0 if problem == TRUST_REGION else 1e-3 * self.multiplier)
        self.multiplier, self.y = shift if bound else 0, y
        self.length, self.gain = size, 0.5 * (shift * size * size - self.gamma * y[0])
        self.outer_norm = fabs(self.at[m * self.ld + m - 1] * y[m - 1]) if self.p else 0
        return solved

    cdef int solve_by_eigenvectors(self, Problem problem, double parameter) except -1:
        """Solve the small problem in the coordinates of the eigenvectors of T."""
        cdef double *values
        cdef Py_ssize_t i
        self.diagonalise()
        values = self.found.values
        self.multiplier = solve_diagonal_problem(
            problem, self.m, values, self.linear, parameter, self.base, self.y, self.measured
        )
        self.length, self.gain = safe_norm(self.m, self.y), 0
        for i in range(self.m):
            self.gain -= self.y[i] * (self.linear[i] + 0.5 * (values[i] * self.y[i]))
        self.outer_norm = self.outer_residual_norm_of_ritz(self.measured)
        return 0

    def solve(
        self, str problem, parameter, double wanted, Py_ssize_t limit, stop, double cost_weight,
        double price, out
    ):
        """Grow the space and solve the small problem in it, and write the step to `out`. The space
        grows until the residual norm is at most `wanted`, it has `limit` rows, `stop()` returns
        True, or the next product costs more than it gains (see `new_stopping_rule`).

        Returns
        -------
        length : float
            Length of the step.
        gain : float
            Predicted decrease of the loss.
        bounded : bool
            True if the step is at the bound on its length.
        parameter : float
            The parameter used. If the argument is None, a tenth of the largest |eigenvalue| of T
            when T is first diagonalised, or 1 if that is 0.
        """
        cdef Problem which = SUBPROBLEMS[problem]
        cdef Py_ssize_t look_at = max(self.m, 1), vectors_at = 0, m
        cdef double chosen = 0
        # stop_called: True if `stop` was called since the last product.
        cdef bint ends, factored, stop_called = False
        cdef StoppingRule rule = new_stopping_rule(cost_weight, price)
        while True:
            while self.m < look_at and not self.is_exhausted() and (
                stop_called or not (self.m and stop())
            ):
                self.extend()
                stop_called = False
            m, look_at = self.m, min(self.m + 1 + self.m // 8, limit)
            if m == 0:
                out[:] = 0
                return 0.0, 0.0, False, parameter
            ends, stop_called = self.is_exhausted() or m >= limit or stop(), True
            if parameter is None:
                self.diagonalise()
                parameter = 0.1 * self.max_abs_eigenvalue or 1.0
            chosen = min(<double>parameter, MAX_STEP_LENGTH) if which == TRUST_REGION else parameter
            factored = self.tridiagonal and m > ALWAYS_DIAGONALISE_MAX_ROWS
            factored = factored and self.solve_by_factorisation(which, chosen)
            if not factored:
                if m < vectors_at and not ends:
                    continue
                self.solve_by_eigenvectors(which, chosen)
                vectors_at = m + 1 + m // 4 if m > ALWAYS_DIAGONALISE_MAX_ROWS else 0
            if self.outer_norm <= wanted or ends or should_stop(&rule, m, self.gain):
                break
        if not factored:
            self.found.combine_eigenvectors(self.y, self.base)
        self.write_combination(self.y if factored else self.base, out)
        return self.length, self.gain, self.multiplier > 0, parameter

    cdef int write_combination(self, double *y, out) except -1:
        """Set out = Q[:m]' y. The vector y is overwritten by -y."""
        cdef Sweep t
        cdef Py_ssize_t i
        cdef fc_watch before
        out[:] = 0
        if not self.m:
            return 0
        set_sweep(&t, self.rows, out[None])
        t.m = self.m
        cdef int threads = sweep_threads(&t)
        for i in range(self.m):
            y[i] = -y[i]
        t.c, t.out = y, self.sums
        with nogil:
            before = begin_signal_watch()
            subtract_combination(&t, threads)
            end_signal_watch(before)
        return 0

    def combine(self, y, out=None):
        """Return ``Q' y`` (n,) for y (m,)."""
        out = np.empty(self.n, self.dtype) if out is None else out
        y = np.array(y, np.float64)
        if y.shape != (self.m,):
            raise ValueError(f"y must have shape ({self.m},), got {y.shape}.")
        self.write_combination(<double *>pointer(y) if self.m else NULL, out)
        return out
