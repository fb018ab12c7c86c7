"""The Gauss-Newton matrix and the Hessian of a small network, as dense matrices.

The Gauss-Newton matrix comes from J (N d, n), the derivatives of the outputs:

    G = J' H J = F F',    F' = B J,    B'B = H = d2 loss / dz2 of a sample

B is diagonal if each output has a loss of its own. For cross entropy H has rank d - 1, so F needs
only that many columns per sample: with the probabilities p and the weight w of a sample,
s = sqrt(p) and the last output t,

    B'_ik = sqrt(w) (s_i (i = k) - p_i s_k / (1 + s_t))     B'_tk = - sqrt(w) s_t s_k     i, k < t

This is sqrt(w) diag(s) times the reflection that maps s to the last unit vector, without its last
column. Backward starts from B' and treats each column separately: D = B' in the last layer,
E_below = W' D [+ E] and D_below = E_below * phi'. F, whose rows are products of rows of D and of a
below, is formed only if it has one column per sample and is so small that a single product is
fastest. Otherwise, for two layers x and y, with a row of ones appended to a for b,

    G[(i, a), (j, b)] = sum over samples of T_ij A_ab
    T_ij = sum over columns of Dx_i * Dy_j,    A_ab = a_x[a] * a_y[b]

where T_ij = T_ji and A_ab = A_ba if x is y. With d outputs this takes 1 / d of the multiply-adds of
F F', and half of these for a layer with itself.

The Hessian has the same form, but T_ij is the second derivative of a sample's loss with respect to
the inputs of two units. Each hidden unit u adds a column, which starts as the unit vector of u in
its own layer h and is propagated backward as D is, so that it is dz_u / dz of the layers below. Its
weight is s = e_u phi''_u:

    T_ij = sum over columns of Dx_i * Dy_j + sum over u of s_u * Dx_iu * Dy_ju

where u runs over all units above y and over those of y, with Dy_ju = 1 (j = u). Since W_y
multiplies the outputs of the layers below, with h the layer below y and delta = dL/dz of y, also

    H[(i, a), (j, q)] += sum over samples of K_iq delta_j a_x[a]
    K_iq = da_h[q] / dz_x[i] = Dx_iq * phi'_q [+ the same of the layer below h]

with Dx = I if x is h. Everything is in double precision, whatever the plan's dtype, in the
transposed layout, one block of samples at a time. The columns of D in a block are sorted by part
first: the first column of all its samples, then the second, ...
"""
import numpy as np

from libc.math cimport INFINITY, frexp, ldexp, sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset


cdef enum:
    MAX_BLOCK_SAMPLES = 1024    # maximum samples of a block
    MAX_BLOCK_NUMBERS = 1 << 20     # numbers of D and a per block
    # numbers of T or A computed at one time: a quarter of a megabyte, which fits the L2 cache
    MAX_PAIR_NUMBERS = 1 << 15
    LINE = FC_ALIGN // 8        # numbers per cache line
    REUSED_NUMBERS = 1 << 19    # maximum numbers of a work space that is kept for the next matrix
    # F is formed up to this many rows and numbers.
    FACTOR_MAX_ROWS = 64
    FACTOR_MAX_NUMBERS = 1 << 13
    # rows of F multiplied at one time by the rows from their first one on
    FACTOR_STRIP_ROWS = 12
    MIRROR_TILE = 16            # rows and columns of a tile when the matrix is mirrored

# The work space of the last matrix, for the next one: faulting in new pages takes longer than the
# sums of a small network.
cdef list ROOM = []


cdef inline Py_ssize_t lines_of(Py_ssize_t count) noexcept nogil:
    """Return `count` rounded up to whole cache lines of doubles."""
    return (count + LINE - 1) // LINE * LINE


cdef inline Py_ssize_t numbers_of(PlanS *P, Py_ssize_t i, bint hessian) noexcept nogil:
    """Return the number of entries of state i, in the order of `states_of`; 0 if it is not needed.
    """
    cdef Py_ssize_t l = i // 4
    cdef Layer *y = &P.layer[l]
    cdef Py_ssize_t ld = lines_of(P.N)
    if l == P.n_layers:
        return ld * (P.d_out if i % 4 == 0 else 1)
    if i % 4 == 0 or i % 4 == 1 and has_slopes(y):
        return ld * y.m
    if hessian and (i % 4 == 3 or i % 4 == 2 and y.q != NULL):
        return ld * y.m
    return 0


cdef class CurvatureMatrix:
    """Work space for the Gauss-Newton matrix or the Hessian of a plan without batch normalisation,
    for any number of points theta.
    """
    cdef Plan plan
    cdef const fc_table *K
    # state at theta, (m, ld) each, in the plan's dtype and in double precision, and X
    cdef object states
    # addresses of the states in the plan's dtype, in the order of `states_of`
    cdef char **kept
    cdef const double **state   # addresses of X', then of the states in double precision
    cdef double **D             # per layer: (m, parts of the layer times samples)
    # per layer, input of the layer: (k + 1, samples), with a last row of ones
    cdef double **a
    # per hidden layer phi', (m, samples); for G all layers share one matrix
    cdef double **p
    cdef double **q             # for the Hessian: e * phi'', or NULL if it is 0
    cdef double **delta         # for the Hessian: dL/dz
    cdef Py_ssize_t *parts      # per layer: columns of D per sample
    # powers of two by which D and then a of each layer have been divided
    cdef int *exponents
    cdef object room
    cdef double *E              # (widest layer, columns)
    cdef double *weighed        # D of a layer times the weights of its columns
    cdef double *T              # (t_rows, samples): products of rows of D
    cdef double *A              # (a_rows, samples): products of rows of a
    cdef double *C              # (t_rows, a_rows): product of T and A'
    cdef double *W              # theta in double precision
    cdef double *F              # (n, samples), or NULL if F is not formed
    cdef double *gemm           # scratch of the product kernels
    # destination of the outputs alone, in the order of `states_of`: (d_out, ld)
    cdef char **moved
    cdef double *z              # those outputs in double precision
    cdef Py_ssize_t block       # samples of a block, a multiple of whole cache lines
    cdef Py_ssize_t ld          # number of samples, rounded up to whole cache lines
    cdef Py_ssize_t each        # columns of D per sample in the last layer
    cdef bint hessian
    cdef Py_ssize_t t_rows, a_rows  # capacity of T and A in rows
    cdef readonly Py_ssize_t n

    def __cinit__(self, Plan plan, bint hessian=False):
        cdef PlanS *P = &plan.P
        cdef Py_ssize_t l, widest = 1, numbers = 0, wide_k = 1, wide_m = 1, size = 0, weighed = 0
        cdef Py_ssize_t count = 4 * P.n_layers + 2, kept, apart, parts
        cdef bint whole
        cdef Layer *y
        cdef double *at_
        self.plan, self.n, self.K, self.hessian = plan, P.n, &table_chosen()[1], hessian
        self.ld = lines_of(P.N)
        self.each = P.d_out - (P.loss.kind == FC_CROSS_ENTROPY and P.d_out > 1)
        self.kept = <char **>malloc(count * sizeof(char *))
        self.moved = <char **>calloc(count, sizeof(char *))
        self.state = <const double **>malloc((count + 1) * sizeof(double *))
        self.D = <double **>calloc(5 * P.n_layers, sizeof(double *))
        self.exponents = <int *>calloc(2 * P.n_layers, sizeof(int))
        self.parts = <Py_ssize_t *>malloc(P.n_layers * sizeof(Py_ssize_t))
        if not (
            self.kept and self.moved and self.state and self.D and self.exponents and self.parts
        ):
            raise MemoryError("no memory for lists of matrices")
        self.a, self.p = self.D + P.n_layers, self.D + 2 * P.n_layers
        self.q, self.delta = self.D + 3 * P.n_layers, self.D + 4 * P.n_layers
        parts = self.each
        for l in range(P.n_layers - 1, -1, -1):
            y = &P.layer[l]
            wide_k, wide_m = max(wide_k, y.k + 1), max(wide_m, y.m)
            self.parts[l] = parts
            numbers += y.m * (parts + 3 * hessian) + y.k + 1
            if parts > self.each:
                weighed = max(weighed, y.m * parts)
            if hessian and l < P.n_layers - 1:
                parts += y.m
        for l in range(count):
            size += numbers_of(P, l, hessian)
        apart = 0 if P.K.real_bytes == 8 else size  # numbers of the copies in double precision
        self.states = np.zeros(size + apart + (2 * P.d_out + P.layer[0].k) * self.ld)
        at_ = <double *>pointer(self.states)
        for l in range(count):
            kept = numbers_of(P, l, hessian)
            self.kept[l] = <char *>at_ if kept else NULL
            self.state[l + 1] = at_ + apart if kept else NULL
            at_ += kept
        self.z = at_ + apart
        self.moved[4 * P.n_layers - 4] = <char *>(self.z + self.ld * P.d_out)
        at_ = self.z + 2 * self.ld * P.d_out
        X = np.ascontiguousarray(plan.rows.X, np.float64)
        self.K.columns(
            P.N, P.layer[0].k, <double *>pointer(X), P.layer[0].k, 1, 0, P.N, at_, self.ld
        )
        self.state[0] = at_
        widest = max(wide_k, wide_m)
        numbers += self.parts[0] * widest + (widest if not hessian else weighed)
        self.block = max(1, MAX_BLOCK_NUMBERS // (numbers * LINE)) * LINE
        self.block = min(<Py_ssize_t>MAX_BLOCK_SAMPLES, self.block)
        self.block = min(self.ld, self.block)
        self.t_rows = wide_m * min(wide_m, max(1, MAX_PAIR_NUMBERS // (self.block * wide_m)))
        self.a_rows = wide_k * min(wide_k, max(1, MAX_PAIR_NUMBERS // (self.block * wide_k)))
        whole = self.each == 1 and not hessian and self.block == self.ld
        whole = whole and P.n <= FACTOR_MAX_ROWS and self.ld * P.n <= FACTOR_MAX_NUMBERS
        numbers += self.t_rows + self.a_rows + (P.n if whole else 0)
        numbers = self.block * numbers + self.t_rows * self.a_rows + lines_of(P.n)
        numbers += self.K.scratch // sizeof(double) + 1 + 2 * LINE
        try:
            self.room = ROOM.pop()
        except IndexError:
            self.room = None
        if self.room is None or self.room.size < numbers:
            self.room = np.empty(numbers)
        at_ = <double *>to_line(pointer(self.room))
        for l in range(P.n_layers):
            y = &P.layer[l]
            self.D[l] = at_
            self.a[l] = at_ + self.block * self.parts[l] * y.m
            at_ = self.a[l] + self.block * (y.k + 1)
            if hessian:
                self.p[l], self.delta[l] = at_, at_ + self.block * y.m
                self.q[l] = at_ + 2 * self.block * y.m if y.curved else NULL
                at_ += 3 * self.block * y.m
        self.E = at_
        self.weighed = at_ + self.block * self.parts[0] * widest
        self.T = self.weighed + self.block * (widest if not hessian else weighed)
        for l in range(0 if hessian else P.n_layers):
            self.p[l] = self.weighed  # all layers share one matrix
        self.A = self.T + self.block * self.t_rows
        self.C = self.A + self.block * self.a_rows
        self.W = self.C + self.t_rows * self.a_rows
        self.F = self.W + lines_of(P.n) if whole else NULL
        at_ = self.W + lines_of(P.n) + (self.block * P.n if whole else 0)
        self.gemm = <double *>to_line(<char *>at_)

    def __del__(self):
        if self.room is not None and self.room.size <= REUSED_NUMBERS and not ROOM:
            ROOM.append(self.room)

    def __dealloc__(self):
        free(self.kept)
        free(self.moved)
        free(self.state)
        free(self.D)
        free(self.exponents)
        free(self.parts)

    def matrix(self, out):
        """Write the matrix without l2 at the plan's theta to out (n, n), double, contiguous. Return
        False, without a result, if entries of the Hessian would overflow or underflow.
        """
        cdef Py_ssize_t i, j, row, column, n = self.n
        cdef fc_watch before
        cdef bint made
        check_floats(out, (n, n))
        cdef double *G = <double *>pointer(out)
        with self.plan.lock, nogil:
            before = watch()
            made = self.half(G)
            self.plan.end(before)
        for row in range(0, n, MIRROR_TILE):
            for column in range(0, row + 1, MIRROR_TILE):
                for i in range(row, min(row + MIRROR_TILE, n)):
                    for j in range(column, min(column + MIRROR_TILE, i)):
                        G[i * n + j] = G[j * n + i]
        return made

    cdef bint half(self, double *G) noexcept nogil:
        """Compute the upper triangle of the matrix without l2; return False if entries overflow or
        underflow.
        """
        cdef PlanS *P = &self.plan.P
        cdef Py_ssize_t first = 0, l, i, above, count
        states_of(P, self.hessian, self.kept, self.ld)
        self.doubled(P.theta, self.W, P.n)
        for l in range(4 * P.n_layers + 2):
            self.doubled(
                self.kept[l], <double *>self.state[l + 1], numbers_of(P, l, self.hessian)
            )
        if self.F != NULL:
            memset(G, 0, P.n * P.n * sizeof(double))
        for i in range(P.n if self.F == NULL else 0):
            memset(G + i * (P.n + 1), 0, (P.n - i) * sizeof(double))
        while first < P.N and not fc_watch_off():
            count = min(self.block, P.N - first)
            if not self.fill(P, first, count):
                return False
            if self.F != NULL and self.add_whole(P, lines_of(count), G):
                return True
            for l in range(P.n_layers):
                if self.parts[l] > self.each:
                    self.weigh_columns(P, l, lines_of(count))
                for above in range(l, P.n_layers):
                    self.add_layers(P, l, above, lines_of(count), G)
                for above in range(l + 1, P.n_layers if self.hessian else 0):
                    self.add_products(P, l, above, lines_of(count), G)
            first += count
        return True

    cdef void doubled(self, const char *x, double *to, Py_ssize_t count) noexcept nogil:
        """Copy numbers of the plan's dtype as doubles, unless source and destination are the same.
        """
        cdef Py_ssize_t i
        if x == NULL or x == <char *>to:
            return
        if self.plan.P.K.real_bytes == 8:
            memcpy(to, x, count * sizeof(double))
            return
        for i in range(count):
            to[i] = (<const float *>x)[i]

    # --- D and a of a block

    cdef bint fill(self, PlanS *P, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Compute D and a of all layers for `count` samples. For G, matrices with very large or
        small entries are divided by a power of two. The Hessian's columns would need one power
        each, so return False in that case.
        """
        cdef Py_ssize_t l, step = lines_of(count)
        cdef Layer *y
        cdef bint near = True
        self.pass_back(P, first, count)
        for l in range(P.n_layers):
            y = &P.layer[l]
            self.exponents[l] = self.bring_near_one(self.D[l], y.m * self.parts[l] * step)
            self.exponents[P.n_layers + l] = self.bring_near_one(
                self.a[l], (y.k + (y.b >= 0)) * step  # without biases the row of ones is not used
            )
            near = near and not self.exponents[l] and not self.exponents[P.n_layers + l]
        return near or not self.hessian

    cdef void pass_back(self, PlanS *P, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Compute D and a of all layers without scaling; D is zero past the last sample."""
        cdef Py_ssize_t l, i, step = lines_of(count), line = step * self.parts[0], columns
        cdef Layer *y
        cdef Layer *x
        cdef double *p
        self.top(P, first, count, step * self.each)
        for l in range(P.n_layers - 1, -1, -1):
            y, columns = &P.layer[l], step * self.parts[l]
            self.copy_samples(self.state[4 * l - 3 if l else 0], y.k, first, step, self.a[l])
            for i in range(y.k * step, (y.k + 1) * step):
                self.a[l][i] = 1
            self.clear_idle(P, first, count, y.k + 1, step, self.a[l])
            if self.hessian:
                self.set_second_derivative(y, l, first, count)
            if l == 0:
                return
            x, p = &P.layer[l - 1], self.p[l - 1]
            if y.m == 1 and not y.skip:  # a plain scaling, without the overhead of a product
                for i in range(y.k):
                    self.K.scale(columns, self.W[y.w + i], self.D[l], self.E + i * line)
            else:
                self.product(
                    y.k, columns, y.m, self.W + y.w, 1, y.k, self.D[l], columns, 1, self.E, line,
                    y.skip
                )
            if has_slopes(x):
                self.copy_samples(self.state[2 + 4 * (l - 1)], x.m, first, step, p)
                self.clear_idle(P, first, count, x.m, step, p)
            else:               # phi' follows from the sign of a, or is 1
                for i in range(x.m * step):
                    if not x.has_p or self.a[l][i] > 0:
                        p[i] = 1
                    else:
                        p[i] = FC_LEAK if x.phi == FC_LEAKY_RELU else 0
            if self.parts[l - 1] > self.parts[l]:
                self.begin_columns(y, step, self.E + columns, line)
            for i in range(self.parts[l - 1]):
                self.K.times(
                    x.m, 1, step, p, step, self.E + i * step, line, self.D[l - 1] + i * step,
                    step * self.parts[l - 1]
                )

    cdef void clear_idle(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t m, Py_ssize_t step, double *x
    ) noexcept nogil:
        """Set the samples of weight 0 in x (m, step) to zero. They add nothing to the matrix, but
        very large numbers in them would make `bring_near_one` round those of all other samples to
        0.
        """
        cdef Py_ssize_t i, r
        cdef bint idle
        if P.data.weight == NULL:
            return
        for r in range(count):
            if P.K.real_bytes == 8:
                idle = (<const double *>P.data.weight)[first + r] == 0
            else:
                idle = (<const float *>P.data.weight)[first + r] == 0
            for i in range(m if idle else 0):
                x[i * step + r] = 0

    cdef void begin_columns(
        self, Layer *y, Py_ssize_t step, double *E, Py_ssize_t line
    ) noexcept nogil:
        """Start the columns of y's own units in E: one row of W each, the same for all samples."""
        cdef Py_ssize_t i, u, r
        for i in range(y.k):
            for u in range(y.m):
                for r in range(step):
                    E[i * line + u * step + r] = self.W[y.w + u * y.k + i]

    cdef void set_second_derivative(
        self, Layer *y, Py_ssize_t l, Py_ssize_t first, Py_ssize_t count
    ) noexcept nogil:
        """Compute delta and e * phi'' of a layer; the latter from delta and a if it is not stored.
        """
        cdef Py_ssize_t i, step = lines_of(count)
        cdef double *q = self.q[l]
        cdef const double *a
        self.copy_samples(self.state[4 + 4 * l], y.m, first, step, self.delta[l])
        if q == NULL:
            return
        if y.q != NULL:
            self.copy_samples(self.state[3 + 4 * l], y.m, first, step, q)
            return
        a = self.a[l + 1]       # tanh or sigmoid: phi'' follows from a
        for i in range(y.m * step):
            q[i] = self.delta[l][i] * ((0 if y.phi == FC_TANH else 1) - 2 * a[i])

    cdef void top(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t columns
    ) noexcept nogil:
        """Set D = B' in the last layer, one row per output."""
        cdef Py_ssize_t r, i, k, d = P.d_out, step = columns // self.each
        cdef Py_ssize_t ld = self.ld
        cdef const double *h = self.state[1 + 4 * P.n_layers] + first
        cdef const double *w = self.state[2 + 4 * P.n_layers] + first
        cdef double *D = self.D[P.n_layers - 1]
        cdef double root, last, other
        memset(D, 0, d * columns * sizeof(double))
        if P.loss.kind == FC_CROSS_ENTROPY and d == 1:
            return              # one class: the loss is constant
        for r in range(count):
            for k in range(self.each):
                root = sqrt(h[k * ld + r])
                if P.loss.kind != FC_CROSS_ENTROPY:
                    D[k * columns + k * step + r] = root
                    continue
                root, last = root * sqrt(w[r]), sqrt(h[(d - 1) * ld + r])
                other = last    # sum of 1 - p_k without cancellation
                for i in range(d):
                    D[i * columns + k * step + r] = -root * h[i * ld + r] / (1 + last)
                    other += h[i * ld + r] if i != k else 0
                D[k * columns + k * step + r] = root * other / (1 + last)
                D[(d - 1) * columns + k * step + r] = -root * last

    cdef void copy_samples(
        self, const double *x, Py_ssize_t m, Py_ssize_t first, Py_ssize_t step, double *out
    ) noexcept nogil:
        """Copy the samples of x (m, ld) from `first` on to out, with zeros past the last one."""
        cdef Py_ssize_t i
        if step == self.ld:
            memcpy(out, x, m * step * sizeof(double))
            return
        for i in range(m):
            memcpy(out + i * step, x + i * self.ld + first, step * sizeof(double))

    cdef void product(
        self, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, double *a, Py_ssize_t a_rs, Py_ssize_t a_cs,
        double *b, Py_ssize_t b_rs, Py_ssize_t b_cs, double *c, Py_ssize_t ldc, bint add
    ) noexcept nogil:
        """Compute c (m, n) = [c +] a b, of inner dimension k."""
        cdef fc_product job = plain_product(
            m, n, k, <char *>a, a_rs, a_cs, <char *>b, b_rs, b_cs, <char *>c, ldc, add
        )
        run_items(self.K, &job, 1, <char *>self.gemm, 0)

    cdef int bring_near_one(self, double *x, Py_ssize_t count) noexcept nogil:
        """Divide x by a power of two if products of a few of its numbers could overflow or
        underflow. Return the exponent, 0 if x is unchanged.
        """
        cdef double square = 0, largest
        cdef int exponent
        self.K.dots(1, 1, count, x, count, x, count, &square, 1)
        if 1e-100 < square < 1e100:
            return 0
        largest = largest_of(count, x)
        if not 0 < largest < INFINITY:
            return 0
        frexp(largest, &exponent)
        exponent = max(-1000, min(exponent, 1000))
        self.K.scale(count, ldexp(1.0, -exponent), x, x)
        return exponent

    # --- J' H times the change of the outputs since theta

    cdef void add_pull(self, PlanS *P, double *out) noexcept nogil:
        """Add J' H (z - z0) to out (n,), with z0 the outputs at the theta of the last `half` and z
        those at the point where the plan is now.
        """
        cdef Py_ssize_t first = 0, count, l, step, top = P.n_layers - 1
        cdef Layer *y
        cdef double scale
        states_of(P, False, self.moved, self.ld)
        self.doubled(self.moved[4 * top], self.z, self.ld * P.d_out)
        while first < P.N:
            count = min(self.block, P.N - first)
            step = lines_of(count)
            if count < P.N:
                self.fill(P, first, count)
            self.weigh(P, first, count)
            for l in range(P.n_layers):
                y = &P.layer[l]
                scale = ldexp(
                    1.0, self.exponents[top] + self.exponents[l] + self.exponents[P.n_layers + l]
                )
                self.K.times(
                    y.m, self.each, step, self.E, 0, self.D[l], step * self.each, self.T, step
                )
                if scale != 1:
                    self.K.scale(y.m * step, scale, self.T, self.T)
                self.K.dots(y.k, y.m, step, self.a[l], step, self.T, step, out + y.w, y.k)
                if y.b >= 0:
                    self.K.dots(
                        1, y.m, step, self.a[l] + y.k * step, step, self.T, step, out + y.b, 1
                    )
            first += count

    cdef void weigh(self, PlanS *P, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Compute E = B (z - the outputs at theta), a row for each of the `each` columns of D in
        the last layer.
        """
        cdef Py_ssize_t r, i, k, step = lines_of(count)
        cdef const double *before = self.state[1 + 4 * (P.n_layers - 1)]
        cdef const double *D = self.D[P.n_layers - 1]
        cdef double way
        memset(self.E, 0, self.each * step * sizeof(double))
        for i in range(P.d_out):
            for k in range(self.each):
                for r in range(count):
                    way = self.z[i * self.ld + first + r] - before[i * self.ld + first + r]
                    self.E[k * step + r] += D[(i * self.each + k) * step + r] * way
        self.clear_idle(P, first, count, self.each, step, self.E)

    # --- contributions of a block to G

    cdef bint add_whole(self, PlanS *P, Py_ssize_t step, double *G) noexcept nogil:
        """Compute G = F F' over all samples. Return False, without a result, if a D or a has been
        scaled.
        """
        cdef Py_ssize_t l, i, end
        cdef Layer *y
        for l in range(2 * P.n_layers):
            if self.exponents[l]:
                return False
        for l in range(P.n_layers):
            y = &P.layer[l]
            for i in range(y.m):
                self.K.times(
                    y.k, 1, step, self.D[l] + i * step, 0, self.a[l], step,
                    self.F + (y.w + i * y.k) * step, step
                )
            if y.b >= 0:
                memcpy(self.F + y.b * step, self.D[l], y.m * step * sizeof(double))
        i = 0
        while i < P.n:
            end = min(P.n, i + FACTOR_STRIP_ROWS)
            self.K.dots(
                P.n - i, end - i, step, self.F + i * step, step, self.F + i * step, step,
                G + i * (P.n + 1), P.n
            )
            i = end
        return True

    cdef void add_layers(
        self, PlanS *P, Py_ssize_t l, Py_ssize_t above, Py_ssize_t step, double *G
    ) noexcept nogil:
        """Add the block of G that belongs to two layers, or to one layer with itself, computing T
        and A in pieces.
        """
        cdef Layer *x = &P.layer[l]
        cdef Layer *y = &P.layer[above]
        cdef bint same = l == above
        cdef Py_ssize_t i = 0, i_end, a, a_end, t_rows, a_rows, j
        cdef double *D = self.weighed if self.parts[above] > self.each else self.D[l]
        cdef int *of_a = self.exponents + P.n_layers
        cdef int exponent = self.exponents[l] + self.exponents[above] + of_a[l] + of_a[above]
        while i < x.m:
            i_end = self.pairs(
                i, x.m, y.m, same, D, step * self.parts[l], self.D[above],
                step * self.parts[above], self.parts[above], step, self.T, self.t_rows, &t_rows
            )
            if self.hessian and self.q[above] != NULL:
                self.add_own(i, i_end, y.m, same, l, above, step)
            a = 0
            while a <= x.k:
                a_end = self.pairs(
                    a, x.k + 1, y.k + 1, same, self.a[l], step, self.a[above], step, 1, step,
                    self.A, self.a_rows, &a_rows
                )
                self.product(
                    t_rows, a_rows, step, self.T, step, 1, self.A, 1, step, self.C, a_rows, False
                )
                for j in range(t_rows * a_rows if exponent else 0):
                    self.C[j] = ldexp(self.C[j], exponent)
                self.put(x, y, same, i, i_end, a, a_end, a_rows, G)
                a = a_end
            i = i_end

    cdef Py_ssize_t pairs(
        self, Py_ssize_t first, Py_ssize_t count, Py_ssize_t others, bint same, double *x,
        Py_ssize_t ldx, double *y, Py_ssize_t ldy, Py_ssize_t each, Py_ssize_t step, double *out,
        Py_ssize_t room, Py_ssize_t *rows
    ) noexcept nogil:
        """Write to out (rows, step) the products of rows of x, from `first` on out of `count`, with
        all rows of y, or, if `same`, with the rows from itself on; each product is summed over
        `each` parts. Return the row of x after the last one that fits.
        """
        cdef Py_ssize_t r, end = first + max(<Py_ssize_t>1, room // others)
        # the smaller dimension is the outer loop
        if not same and others < min(end, count) - first:
            end = min(end, count)
            rows[0] = (end - first) * others
            for r in range(others):
                self.K.times(
                    end - first, each, step, y + r * ldy, 0, x + first * ldx, ldx, out + r * step,
                    others * step
                )
            return end
        rows[0] = 0
        while first < count:
            r = first if same else 0
            if rows[0] + others - r > room:
                break
            self.K.times(
                others - r, each, step, x + first * ldx, 0, y + r * ldy, ldy, out + rows[0] * step,
                step
            )
            rows[0] += others - r
            first += 1
        return first

    cdef void put(
        self, Layer *x, Layer *y, bint same, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t a0,
        Py_ssize_t a1, Py_ssize_t a_rows, double *G
    ) noexcept nogil:
        """Add C to G: pairs of units by pairs of inputs, which are rows and columns (unit, input)
        of G.
        """
        cdef Py_ssize_t n = self.n, i, j, a, b, from_, at_, row
        cdef double *c = self.C
        cdef double *out
        for i in range(i0, i1):
            for j in range(i if same else 0, y.m):
                for a in range(a0, a1):
                    from_, at_ = a if same else 0, y.w + j * y.k
                    row = x.w + i * x.k + a if a < x.k else x.b + i
                    if a < x.k or x.b >= 0:
                        out = G + row * n + at_
                        for b in range(from_, y.k):
                            out[b] += c[b - from_]
                        if y.b >= 0:
                            G[row * n + y.b + j] += c[y.k - from_]
                    if same and i < j:  # mirror image: (i, b), (j, a) with a < b
                        out = G + (x.w + i * x.k) * n + at_ + a
                        for b in range(a + 1, x.k):
                            out[b * n] += c[b - a]
                        if a < x.k and x.b >= 0:
                            G[(at_ + a) * n + x.b + i] += c[x.k - a]
                    c += y.k + 1 - from_

    # --- further contributions of a block to the Hessian

    cdef void weigh_columns(self, PlanS *P, Py_ssize_t l, Py_ssize_t step) noexcept nogil:
        """Multiply D of a layer by the weights of its columns: 1 for the outputs' columns, s for
        the units'.
        """
        cdef Py_ssize_t h, line = step * self.parts[l], i, m = P.layer[l].m, at_
        for i in range(m):
            memcpy(
                self.weighed + i * line, self.D[l] + i * line, step * self.each * sizeof(double)
            )
        for h in range(l + 1, P.n_layers - 1):
            for i in range(m):
                at_ = i * line + step * self.parts[h]
                if self.q[h] == NULL:
                    memset(self.weighed + at_, 0, step * P.layer[h].m * sizeof(double))
                else:
                    self.K.times(
                        1, 1, step * P.layer[h].m, self.q[h], 0, self.D[l] + at_, 0,
                        self.weighed + at_, 0
                    )

    cdef void add_own(
        self, Py_ssize_t first, Py_ssize_t end, Py_ssize_t others, bint same, Py_ssize_t l,
        Py_ssize_t above, Py_ssize_t step
    ) noexcept nogil:
        """Add to T, for units from `first` on, the columns that belong to the units of the layer
        above, or of the same layer.
        """
        cdef Py_ssize_t i, all_ = step * others
        cdef double *T = self.T
        cdef double *q = self.q[above]
        for i in range(first, end):
            if same:
                self.K.add_parts(step, 1, q + i * step, 0, True, T)
                T += (others - i) * step
            else:
                self.K.times(
                    1, 1, all_, q, 0,
                    self.D[l] + (i * self.parts[l] + self.parts[above]) * step, 0, self.A, 0
                )
                self.K.add_parts(all_, 1, self.A, 0, True, T)
                T += all_

    cdef void add_products(
        self, PlanS *P, Py_ssize_t l, Py_ssize_t above, Py_ssize_t step, double *H
    ) noexcept nogil:
        """Add the terms of H that arise because W of the layer above multiplies the outputs that
        depend on layer l.
        """
        cdef Layer *x = &P.layer[l]
        cdef Layer *y = &P.layer[above]
        cdef bint next_ = above == l + 1
        cdef Py_ssize_t i, j = 0, q, count, line = x.k + 1, t, some
        cdef double *c
        # T holds, for `some` units of y at a time, a row for each unit below; if y is the next
        # layer, only the current unit i has such a row.
        some = y.m if next_ else max(<Py_ssize_t>1, self.t_rows // y.k)
        for i in range(x.m):
            if not next_:
                self.carry(P, i, l, above - 1, step)
            j = 0
            while j < y.m:
                count = min(some, y.m - j)
                if next_:
                    self.K.times(
                        count, 1, step, self.p[l] + i * step, 0, self.delta[above] + j * step,
                        step, self.T, step
                    )
                for t in range(0 if next_ else count):
                    self.K.times(
                        y.k, 1, step, self.delta[above] + (j + t) * step, 0, self.A, step,
                        self.T + t * y.k * step, step
                    )
                q = 1 if next_ else y.k
                self.product(
                    count * q, line, step, self.T, step, 1, self.a[l], 1, step, self.C, line, False
                )
                c = self.C
                for t in range(count * q):
                    self.put_column(
                        x, i, y.w + (j + t // q) * y.k + (i if next_ else t % q), c, H
                    )
                    c += line
                j += count

    cdef void carry(
        self, PlanS *P, Py_ssize_t i, Py_ssize_t l, Py_ssize_t h, Py_ssize_t step
    ) noexcept nogil:
        """Compute A (m of h, step): the derivative of the output of layer h > l with respect to z
        of unit i in l.
        """
        cdef Py_ssize_t all_ = step * P.layer[h].m
        cdef bint add = False
        while True:
            if h == l:          # the layer's own output depends on z of unit i only
                self.K.add_parts(step, 1, self.p[l] + i * step, 0, True, self.A + i * step)
                return
            self.K.times(
                1, 1, all_, self.p[h], 0, self.D[l] + (i * self.parts[l] + self.parts[h]) * step,
                0, self.T if add else self.A, 0
            )
            if add:
                self.K.add_parts(all_, 1, self.T, 0, True, self.A)
            if not P.layer[h].skip:
                return
            h, add = h - 1, True

    cdef void put_column(
        self, Layer *x, Py_ssize_t i, Py_ssize_t column, const double *c, double *H
    ) noexcept nogil:
        """Add c to the entries of unit i of layer x in a column of H."""
        cdef Py_ssize_t n = self.n, a
        for a in range(x.k):
            H[(x.w + i * x.k + a) * n + column] += c[a]
        if x.b >= 0:
            H[(x.b + i) * n + column] += c[x.k]
