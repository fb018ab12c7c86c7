"""The Gauss-Newton matrix and the Hessian of a small network, as dense matrices.

Let J (N d, n) be the Jacobian of the d outputs of N samples with respect to the n parameters, and
H the second derivative of the loss with respect to the outputs z, which is block diagonal with one
block per sample. The Gauss-Newton matrix is

    G = J' H J = F F',    F' = B J,    B'B = H

B is diagonal if the loss is a sum over outputs. For cross entropy each block of H has rank d - 1,
so F needs d - 1 columns per sample. With the probabilities p and the weight w of a sample,
s = sqrt(p), and t the index of the last output, the block of B is

    B'_ik = sqrt(w) (s_i (i = k) - p_i s_k / (1 + s_t))     B'_tk = - sqrt(w) s_t s_k     i, k < t

The transpose B' is sqrt(w) diag(s) times the reflection that maps s to the last unit vector,
without its last column. The backward pass starts with D = B' in the output layer, and propagates
each column of D separately: E_below = W' D [+ E] and D_below = E_below * phi', where E is added for
residual layers. The rows of F are elementwise products of rows of D and rows of the layer's input.
F is formed only if it has one column per sample and is so small that the product F F' is fastest.
Otherwise G is computed for each pair of layers x and y. Weight (i, a) of layer x connects its input
a to its unit i; b is the weight of an input of ones. With a_x the inputs of layer x,

    G[(i, a), (j, b)] = sum over samples of T_ij A_ab
    T_ij = sum over columns of Dx_i * Dy_j,    A_ab = a_x[a] * a_y[b]

If x = y, both T and A are symmetric. With d outputs, these formulas take 1 / d of the multiply-adds
of F F', and half of that if x = y.

For the Hessian, T_ij is the second derivative of a sample's loss with respect to z of two units i
and j. Each hidden unit u adds a column to D. The column is the unit vector of u in the layer of u
and is propagated backward, so that in the layers below it equals dz_u / dz. Its weight is
s_u = e_u phi''_u:

    T_ij = sum over columns of Dx_i * Dy_j + sum over u of s_u * Dx_iu * Dy_ju

The sum runs over the units u of layer y, where Dy_ju = 1 (j = u), and over those of all layers
above. In addition, W_y multiplies outputs that depend on layer x. With h the layer below y and
delta = dL/dz of y, this adds the terms

    H[(i, a), (j, q)] += sum over samples of K_iq delta_j a_x[a]
    K_iq = da_h[q] / dz_x[i] = Dx_iq * phi'_q [+ K_iq of the layer below h]

where Dx = I if x = h, and the term in brackets is for residual h. All computations are in double
precision, for either dtype of the plan, in the transposed layout, on one block of samples at a
time. In D, the first columns of all samples of the block come first, then the second columns, and
so on.
"""
import numpy as np

from libc.math cimport INFINITY, frexp, ldexp, sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset


cdef enum:
    GAUSS_NEWTON_BLOCK_MAX_SAMPLES = 1024    # maximum number of samples per block
    GAUSS_NEWTON_BLOCK_MAX_ELEMENTS = 1 << 20     # maximum number of elements of D and a per block
    # Maximum elements of T or A that are computed at one time: 256 KiB, which fit in the L2 cache.
    MAX_TILE_ELEMENTS = 1 << 15
    DOUBLES_PER_CACHE_LINE = FC_ALIGN // 8        # doubles per cache line
    # F is formed for at most this many rows and elements.
    FACTOR_MAX_ROWS = 64
    FACTOR_MAX_ELEMENTS = 1 << 13
    # Rows of F per strip. A strip is multiplied by its own rows and all later rows of F.
    FACTOR_STRIP_ROWS = 12
    # rows and columns of a tile when the upper triangle is copied to the lower one
    MIRROR_TILE_ROWS = 16


cdef inline Py_ssize_t padded_double_count(Py_ssize_t count) noexcept nogil:
    """Return `count` rounded up to whole cache lines of doubles."""
    return (count + DOUBLES_PER_CACHE_LINE - 1) // DOUBLES_PER_CACHE_LINE * DOUBLES_PER_CACHE_LINE


cdef inline Py_ssize_t count_state_elements(PlanS *P, Py_ssize_t i, bint hessian) noexcept nogil:
    """Return the number of elements of state matrix i, in the order of `copy_state_matrices`, or 0
    if matrix i is not needed.
    """
    cdef Py_ssize_t l = i // 4
    cdef Layer *y = &P.layer[l]
    cdef Py_ssize_t ld = padded_double_count(P.N)
    if l == P.n_layers:
        return ld * (P.d_out if i % 4 == 0 else 1)
    if i % 4 == 0 or i % 4 == 1 and stores_slopes(y):
        return ld * y.m
    if hessian and (i % 4 == 3 or i % 4 == 2 and y.q != NULL):
        return ld * y.m
    return 0


cdef void write_softmax_factor(
    const fc_table *K, const number *h, Py_ssize_t ldh, const number *weight, Py_ssize_t rows,
    Py_ssize_t d, Py_ssize_t step, number *D, Py_ssize_t ldd, number *room
) noexcept nogil:
    """Write B' of cross entropy to D (d, (d - 1) step), one row per output, from the probabilities
    h (d, rows). Column k of sample r is column k * step + r of D. Nothing is written for a single
    class, for which the loss is constant. `room` is a workspace of 2 step elements.
    """
    cdef Py_ssize_t r, k
    cdef number *column = room + step           # - s_k / (1 + s_t) for one k, times sqrt(w)
    cdef number *last = D + (d - 1) * ldd       # s_t, until column 0 is computed
    cdef number *diagonal
    for r in range(rows if d > 1 else 0):
        last[r] = <number>sqrt(<double>h[(d - 1) * ldh + r])
        room[r] = <number>(sqrt(<double>weight[r]) / (1 + last[r]))
    for k in range(d - 2, -1, -1):
        for r in range(rows):
            column[r] = <number>(-sqrt(<double>h[k * ldh + r]) * room[r])
        K.multiply_and_sum(d - 1, 1, rows, h, ldh, column, 0, D + k * step, ldd)
        # The sum of 1 - p_k over the other classes and s_t is computed without cancellation.
        diagonal = D + k * ldd + k * step
        K.add_parts(rows, k, h, ldh, False, diagonal)
        K.add_parts(rows, d - 1 - k, h + (k + 1) * ldh, ldh, True, diagonal)
        for r in range(rows):
            diagonal[r] = -(diagonal[r] + last[r]) * column[r]
            last[k * step + r] = column[r] * (1 + last[r]) * last[r]


cdef class CurvatureMatrix:
    """Workspace for the Gauss-Newton matrix or the Hessian of a plan without batch normalisation.
    One object computes the matrix at any number of points theta.
    """
    cdef Plan plan
    cdef const fc_table *K
    # Array that holds X and the state matrices at theta, (m, ld) each, in the plan's dtype and as
    # doubles.
    cdef object states
    # Addresses of the state matrices in the plan's dtype, in the order of `copy_state_matrices`.
    cdef char **kept
    cdef const double **state   # addresses of X' and of the state matrices as doubles
    cdef double **D             # per layer: D, (m, samples times columns per sample)
    # Per layer: the layer's input, (k + 1, samples), whose last row is ones.
    cdef double **a
    # Per hidden layer: phi', (m, samples). For G all layers share one matrix.
    cdef double **p
    cdef double **q             # per hidden layer of the Hessian: e * phi'', or NULL if it is 0
    cdef double **delta         # per layer of the Hessian: dL/dz
    cdef Py_ssize_t *parts      # per layer: columns of D per sample
    # (2, n_layers) exponents of the powers of two by which D (first row) and a (second row) of each
    # layer were divided.
    cdef int *exponents
    cdef object room
    cdef double *E              # E of one layer, (widest layer, columns)
    cdef double *weighed        # D of one layer times the weights of its columns
    # (t_rows, samples): products of rows of D, as defined in the module docstring
    cdef double *T
    # (a_rows, samples): products of rows of a, as defined in the module docstring
    cdef double *A
    cdef double *C              # (t_rows, a_rows): T A', summed over samples
    cdef double *W              # theta as doubles
    cdef double *F              # (n, samples): F, or NULL if F is not formed
    cdef double *gemm           # scratch buffer of the product kernels
    # Destinations for `copy_state_matrices` of which only the one for the outputs, (d_out, ld), is
    # not NULL.
    cdef char **moved
    cdef double *z              # the outputs at the plan's current point as doubles, (d_out, ld)
    cdef Py_ssize_t block       # samples per block, a multiple of the doubles per cache line
    cdef Py_ssize_t ld          # number of samples, rounded up to whole cache lines
    cdef Py_ssize_t each        # columns of D per sample in the output layer
    cdef bint hessian
    cdef Py_ssize_t t_rows, a_rows  # capacities of T and A, in rows
    cdef readonly Py_ssize_t n

    def __cinit__(self, Plan plan, bint hessian=False):
        cdef PlanS *P = &plan.P
        cdef Py_ssize_t l, widest = 1, numbers = 0, wide_k = 1, wide_m = 1, size = 0, weighed = 0
        cdef Py_ssize_t count = 4 * P.n_layers + 2, kept, apart, parts
        cdef bint whole
        cdef Layer *y
        cdef double *at_
        self.plan, self.n, self.K, self.hessian = plan, P.n, &current_kernel_table()[1], hessian
        self.ld = padded_double_count(P.N)
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
            raise MemoryError("Not enough memory for a list of matrices.")
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
            size += count_state_elements(P, l, hessian)
        apart = 0 if P.K.real_bytes == 8 else size  # number of elements of the copies as doubles
        self.states = np.zeros(size + apart + (2 * P.d_out + P.layer[0].k) * self.ld)
        at_ = <double *>pointer(self.states)
        for l in range(count):
            kept = count_state_elements(P, l, hessian)
            self.kept[l] = <char *>at_ if kept else NULL
            self.state[l + 1] = at_ + apart if kept else NULL
            at_ += kept
        self.z = at_ + apart
        self.moved[4 * P.n_layers - 4] = <char *>(self.z + self.ld * P.d_out)
        at_ = self.z + 2 * self.ld * P.d_out
        X = np.ascontiguousarray(plan.rows.X, np.float64)
        self.K.transpose_columns(
            P.N, P.layer[0].k, <double *>pointer(X), P.layer[0].k, 1, 0, P.N, at_, self.ld
        )
        self.state[0] = at_
        widest = max(wide_k, wide_m)
        numbers += self.parts[0] * widest + (widest if not hessian else weighed)
        self.block = GAUSS_NEWTON_BLOCK_MAX_ELEMENTS // (numbers * DOUBLES_PER_CACHE_LINE)
        self.block = max(1, self.block) * DOUBLES_PER_CACHE_LINE
        self.block = min(<Py_ssize_t>GAUSS_NEWTON_BLOCK_MAX_SAMPLES, self.block)
        self.block = min(self.ld, self.block)
        self.t_rows = wide_m * min(wide_m, max(1, MAX_TILE_ELEMENTS // (self.block * wide_m)))
        self.a_rows = wide_k * min(wide_k, max(1, MAX_TILE_ELEMENTS // (self.block * wide_k)))
        whole = self.each == 1 and not hessian and self.block == self.ld
        whole = whole and P.n <= FACTOR_MAX_ROWS and self.ld * P.n <= FACTOR_MAX_ELEMENTS
        numbers += self.t_rows + self.a_rows + (P.n if whole else 0)
        numbers = self.block * numbers + self.t_rows * self.a_rows + padded_double_count(P.n)
        numbers += self.K.scratch // sizeof(double) + 1 + 2 * DOUBLES_PER_CACHE_LINE
        self.room = take_workspace(numbers)
        at_ = <double *>align_up(pointer(self.room))
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
        self.F = self.W + padded_double_count(P.n) if whole else NULL
        at_ = self.W + padded_double_count(P.n) + (self.block * P.n if whole else 0)
        self.gemm = <double *>align_up(<char *>at_)

    def __del__(self):
        if self.room is not None:
            keep_workspace(self.room)

    def __dealloc__(self):
        free(self.kept)
        free(self.moved)
        free(self.state)
        free(self.D)
        free(self.exponents)
        free(self.parts)

    def write_matrix(self, out):
        """Write the Gauss-Newton matrix or the Hessian at the plan's theta, without the l2 penalty,
        to `out`, a contiguous (n, n) array of doubles. Return True if the matrix was computed, or
        False, with undefined entries in `out`, if entries of the Hessian would overflow or
        underflow.
        """
        cdef Py_ssize_t i, j, row, column, n = self.n
        cdef fc_watch before
        cdef bint made
        check_float64_array(out, "out", (n, n))
        cdef double *G = <double *>pointer(out)
        with self.plan.lock, nogil:
            before = begin_signal_watch()
            made = self.compute_upper_triangle(G)
            self.plan.end_watch(before)
        for row in range(0, n, MIRROR_TILE_ROWS):
            for column in range(0, row + 1, MIRROR_TILE_ROWS):
                for i in range(row, min(row + MIRROR_TILE_ROWS, n)):
                    for j in range(column, min(column + MIRROR_TILE_ROWS, i)):
                        G[i * n + j] = G[j * n + i]
        return made

    cdef bint compute_upper_triangle(self, double *G) noexcept nogil:
        """Compute the upper triangle of the matrix without the l2 penalty. Return False if entries
        of the Hessian would overflow or underflow.
        """
        cdef PlanS *P = &self.plan.P
        cdef Py_ssize_t first = 0, l, i, above, count
        copy_state_matrices(P, self.hessian, self.kept, self.ld)
        self.convert_to_doubles(P.theta, self.W, P.n)
        for l in range(4 * P.n_layers + 2):
            self.convert_to_doubles(
                self.kept[l], <double *>self.state[l + 1], count_state_elements(P, l, self.hessian)
            )
        if self.F != NULL:
            memset(G, 0, P.n * P.n * sizeof(double))
        for i in range(P.n if self.F == NULL else 0):
            memset(G + i * (P.n + 1), 0, (P.n - i) * sizeof(double))
        while first < P.N and not fc_watch_poll():
            count = min(self.block, P.N - first)
            if not self.compute_block(P, first, count):
                return False
            if self.F != NULL and self.compute_factor_product(P, padded_double_count(count), G):
                return True
            for l in range(P.n_layers):
                if self.parts[l] > self.each:
                    self.weight_columns(P, l, padded_double_count(count))
                for above in range(l, P.n_layers):
                    self.add_layer_block(P, l, above, padded_double_count(count), G)
                for above in range(l + 1, P.n_layers if self.hessian else 0):
                    self.add_cross_layer_terms(P, l, above, padded_double_count(count), G)
            first += count
        return True

    cdef void convert_to_doubles(self, const char *x, double *to, Py_ssize_t count) noexcept nogil:
        """Convert `count` elements of the plan's dtype to doubles. Do nothing if `x` is NULL or if
        source and destination are the same.
        """
        cdef Py_ssize_t i
        if x == NULL or x == <char *>to:
            return
        if self.plan.P.K.real_bytes == 8:
            memcpy(to, x, count * sizeof(double))
            return
        for i in range(count):
            to[i] = (<const float *>x)[i]

    # --- D and a of a block of samples ------------------------------------------------------------

    cdef bint compute_block(self, PlanS *P, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Compute D and a of all layers for the samples [first, first + count). For G, a matrix
        with very large or very small entries is divided by a power of two. For the Hessian, each
        column of D would need its own power of two, so the function returns False instead.
        """
        cdef Py_ssize_t l, step = padded_double_count(count)
        cdef Layer *y
        cdef bint near = True
        self.propagate_block(P, first, count)
        for l in range(P.n_layers):
            y = &P.layer[l]
            self.exponents[l] = self.scale_near_one(self.D[l], y.m * self.parts[l] * step)
            self.exponents[P.n_layers + l] = self.scale_near_one(
                # the row of ones is left out if the layer has no biases
                self.a[l], (y.k + (y.b >= 0)) * step
            )
            near = near and not self.exponents[l] and not self.exponents[P.n_layers + l]
        return near or not self.hessian

    cdef void propagate_block(self, PlanS *P, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Compute D and a of all layers without scaling. D is zero after the last sample."""
        cdef Py_ssize_t l, i, columns
        cdef Py_ssize_t step = padded_double_count(count), line = step * self.parts[0]
        cdef Layer *y
        cdef Layer *x
        cdef double *p
        self.set_output_columns(P, first, count, step * self.each)
        for l in range(P.n_layers - 1, -1, -1):
            y, columns = &P.layer[l], step * self.parts[l]
            self.copy_samples(self.state[4 * l - 3 if l else 0], y.k, first, step, self.a[l])
            for i in range(y.k * step, (y.k + 1) * step):
                self.a[l][i] = 1
            self.clear_zero_weight_samples(P, first, count, y.k + 1, step, self.a[l])
            if self.hessian:
                self.compute_delta_and_second_derivative(y, l, first, count)
            if l == 0:
                return
            x, p = &P.layer[l - 1], self.p[l - 1]
            if y.m == 1 and not y.skip:  # a scaling by the entries of W needs no product kernel
                for i in range(y.k):
                    self.K.scale(columns, self.W[y.w + i], self.D[l], self.E + i * line)
            else:
                self.multiply_matrices(
                    y.k, columns, y.m, self.W + y.w, 1, y.k, self.D[l], columns, 1, self.E, line,
                    y.skip
                )
            if stores_slopes(x):
                self.copy_samples(self.state[2 + 4 * (l - 1)], x.m, first, step, p)
                self.clear_zero_weight_samples(P, first, count, x.m, step, p)
            else:               # phi' is constant, or depends only on the sign of a
                for i in range(x.m * step):
                    if not x.has_p or self.a[l][i] > 0:
                        p[i] = 1
                    else:
                        p[i] = FC_LEAKY_RELU_SLOPE if x.phi == FC_LEAKY_RELU else 0
            if self.parts[l - 1] > self.parts[l]:
                self.initialise_unit_columns(y, step, self.E + columns, line)
            for i in range(self.parts[l - 1]):
                self.K.multiply_and_sum(
                    x.m, 1, step, p, step, self.E + i * step, line, self.D[l - 1] + i * step,
                    step * self.parts[l - 1]
                )

    cdef void clear_zero_weight_samples(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t m, Py_ssize_t step, double *x
    ) noexcept nogil:
        """Set x (m, step) to zero for samples of weight 0. Such samples add nothing to the matrix,
        but if their entries were very large, `scale_near_one` would scale the entries of all other
        samples to 0.
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

    cdef void initialise_unit_columns(
        self, Layer *y, Py_ssize_t step, double *E, Py_ssize_t line
    ) noexcept nogil:
        """Initialise the columns of D for the units of layer y in E, the matrix for the layer
        below. The column of unit u is row u of W for every sample.
        """
        cdef Py_ssize_t i, u, r
        for i in range(y.k):
            for u in range(y.m):
                for r in range(step):
                    E[i * line + u * step + r] = self.W[y.w + u * y.k + i]

    cdef void compute_delta_and_second_derivative(
        self, Layer *y, Py_ssize_t l, Py_ssize_t first, Py_ssize_t count
    ) noexcept nogil:
        """Compute delta and e * phi'' of layer l. If e * phi'' is not stored, compute it from delta
        and a.
        """
        cdef Py_ssize_t i, step = padded_double_count(count)
        cdef double *q = self.q[l]
        cdef const double *a
        self.copy_samples(self.state[4 + 4 * l], y.m, first, step, self.delta[l])
        if q == NULL:
            return
        if y.q != NULL:
            self.copy_samples(self.state[3 + 4 * l], y.m, first, step, q)
            return
        a = self.a[l + 1]       # for tanh and sigmoid, phi'' follows from a and phi'
        for i in range(y.m * step):
            q[i] = self.delta[l][i] * ((0 if y.phi == FC_TANH else 1) - 2 * a[i])

    cdef void set_output_columns(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t columns
    ) noexcept nogil:
        """Set D = B' in the output layer, one row per output."""
        cdef Py_ssize_t r, k, d = P.d_out, step = columns // self.each
        cdef Py_ssize_t ld = self.ld
        cdef const double *h = self.state[1 + 4 * P.n_layers] + first
        cdef const double *w = self.state[2 + 4 * P.n_layers] + first
        cdef double *D = self.D[P.n_layers - 1]
        memset(D, 0, d * columns * sizeof(double))
        if P.loss.kind == FC_CROSS_ENTROPY:
            write_softmax_factor[double](
                self.K, h, self.ld, w, count, d, step, D, columns, self.E
            )
            return
        for k in range(d):
            for r in range(count):
                D[k * columns + k * step + r] = sqrt(h[k * ld + r])

    cdef void copy_samples(
        self, const double *x, Py_ssize_t m, Py_ssize_t first, Py_ssize_t step, double *out
    ) noexcept nogil:
        """Copy the samples [first, first + step) of x (m, ld) to out (m, step). In x, zeros follow
        the last sample.
        """
        cdef Py_ssize_t i
        if step == self.ld:
            memcpy(out, x, m * step * sizeof(double))
            return
        for i in range(m):
            memcpy(out + i * step, x + i * self.ld + first, step * sizeof(double))

    cdef void multiply_matrices(
        self, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, double *a, Py_ssize_t a_rs, Py_ssize_t a_cs,
        double *b, Py_ssize_t b_rs, Py_ssize_t b_cs, double *c, Py_ssize_t ldc, bint add
    ) noexcept nogil:
        """Compute c (m, n) = [c +] a b, of inner dimension k."""
        cdef fc_product job = describe_product(
            m, n, k, <char *>a, a_rs, a_cs, <char *>b, b_rs, b_cs, <char *>c, ldc, add
        )
        run_items(self.K, &job, 1, <char *>self.gemm, 0)

    cdef int scale_near_one(self, double *x, Py_ssize_t count) noexcept nogil:
        """Divide x by a power of two if products of a few of its elements could overflow or
        underflow. Return the exponent, or 0 if x is unchanged.
        """
        cdef double square = 0, largest
        cdef int exponent
        self.K.dots(1, 1, count, x, count, x, count, &square, 1)
        if 1e-100 < square < 1e100:
            return 0
        largest = max_abs(count, x)
        if not 0 < largest < INFINITY:
            return 0
        frexp(largest, &exponent)
        exponent = max(-1000, min(exponent, 1000))
        self.K.scale(count, ldexp(1.0, -exponent), x, x)
        return exponent

    # --- J' H applied to the change of the outputs ------------------------------------------------

    cdef void add_output_change_gradient(self, PlanS *P, double *out) noexcept nogil:
        """Add J' H (z - z0) to out (n,). Here z0 are the outputs at the theta of the last call of
        `compute_upper_triangle`, and z are those at the plan's current point.
        """
        cdef Py_ssize_t first = 0, count, l, step, top = P.n_layers - 1
        cdef Layer *y
        cdef double scale
        copy_state_matrices(P, False, self.moved, self.ld)
        self.convert_to_doubles(self.moved[4 * top], self.z, self.ld * P.d_out)
        while first < P.N:
            count = min(self.block, P.N - first)
            step = padded_double_count(count)
            if count < P.N:
                self.compute_block(P, first, count)
            self.compute_weighted_output_change(P, first, count)
            for l in range(P.n_layers):
                y = &P.layer[l]
                scale = ldexp(
                    1.0, self.exponents[top] + self.exponents[l] + self.exponents[P.n_layers + l]
                )
                self.K.multiply_and_sum(
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

    cdef void compute_weighted_output_change(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count
    ) noexcept nogil:
        """Compute E = B (z - z0), with z and z0 as in `add_output_change_gradient`. E has one row
        for each of the `each` columns of D per sample in the output layer.
        """
        cdef Py_ssize_t r, i, k, step = padded_double_count(count)
        cdef const double *before = self.state[1 + 4 * (P.n_layers - 1)]
        cdef const double *D = self.D[P.n_layers - 1]
        cdef double way
        memset(self.E, 0, self.each * step * sizeof(double))
        for i in range(P.d_out):
            for k in range(self.each):
                for r in range(count):
                    way = self.z[i * self.ld + first + r] - before[i * self.ld + first + r]
                    self.E[k * step + r] += D[(i * self.each + k) * step + r] * way
        self.clear_zero_weight_samples(P, first, count, self.each, step, self.E)

    # --- contributions of a block of samples to G -------------------------------------------------

    cdef bint compute_factor_product(self, PlanS *P, Py_ssize_t step, double *G) noexcept nogil:
        """Compute G = F F' from all samples. Return False, without a result, if D or a of a layer
        has been scaled.
        """
        cdef Py_ssize_t l, i, end
        cdef Layer *y
        for l in range(2 * P.n_layers):
            if self.exponents[l]:
                return False
        for l in range(P.n_layers):
            y = &P.layer[l]
            for i in range(y.m):
                self.K.multiply_and_sum(
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

    cdef void add_layer_block(
        self, PlanS *P, Py_ssize_t l, Py_ssize_t above, Py_ssize_t step, double *G
    ) noexcept nogil:
        """Add the contribution of a block of samples to the part of G for the weights of layers l
        and `above` (which may be equal). T and A are computed in pieces that fit in their buffers.
        """
        cdef Layer *x = &P.layer[l]
        cdef Layer *y = &P.layer[above]
        cdef bint same = l == above
        cdef Py_ssize_t i = 0, i_end, a, a_end, t_rows, a_rows, j
        cdef double *D = self.weighed if self.parts[above] > self.each else self.D[l]
        cdef int *of_a = self.exponents + P.n_layers
        cdef int exponent = self.exponents[l] + self.exponents[above] + of_a[l] + of_a[above]
        while i < x.m:
            i_end = self.compute_row_products(
                i, x.m, y.m, same, D, step * self.parts[l], self.D[above],
                step * self.parts[above], self.parts[above], step, self.T, self.t_rows, &t_rows
            )
            if self.hessian and self.q[above] != NULL:
                self.add_unit_columns(i, i_end, y.m, same, l, above, step)
            a = 0
            while a <= x.k:
                a_end = self.compute_row_products(
                    a, x.k + 1, y.k + 1, same, self.a[l], step, self.a[above], step, 1, step,
                    self.A, self.a_rows, &a_rows
                )
                self.multiply_matrices(
                    t_rows, a_rows, step, self.T, step, 1, self.A, 1, step, self.C, a_rows, False
                )
                for j in range(t_rows * a_rows if exponent else 0):
                    self.C[j] = ldexp(self.C[j], exponent)
                self.add_unit_pairs(x, y, same, i, i_end, a, a_end, a_rows, G)
                a = a_end
            i = i_end

    cdef Py_ssize_t compute_row_products(
        self, Py_ssize_t first, Py_ssize_t count, Py_ssize_t others, bint same, double *x,
        Py_ssize_t ldx, double *y, Py_ssize_t ldy, Py_ssize_t each, Py_ssize_t step, double *out,
        Py_ssize_t room, Py_ssize_t *rows
    ) noexcept nogil:
        """Compute products of rows of x with rows of y. Row i >= first of x is multiplied
        elementwise by all `others` rows of y or, if `same`, by the rows j >= i. Each product is
        summed over `each` parts and written to one row of out (rows, step). Return the index of the
        first row of x whose products no longer fit.
        """
        cdef Py_ssize_t r, end = first + max(<Py_ssize_t>1, room // others)
        # The smaller dimension is the outer loop, because each call of `multiply_and_sum` has
        # overhead.
        if not same and others < min(end, count) - first:
            end = min(end, count)
            rows[0] = (end - first) * others
            for r in range(others):
                self.K.multiply_and_sum(
                    end - first, each, step, y + r * ldy, 0, x + first * ldx, ldx, out + r * step,
                    others * step
                )
            return end
        rows[0] = 0
        while first < count:
            r = first if same else 0
            if rows[0] + others - r > room:
                break
            self.K.multiply_and_sum(
                others - r, each, step, x + first * ldx, 0, y + r * ldy, ldy, out + rows[0] * step,
                step
            )
            rows[0] += others - r
            first += 1
        return first

    cdef void add_unit_pairs(
        self, Layer *x, Layer *y, bint same, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t a0,
        Py_ssize_t a1, Py_ssize_t a_rows, double *G
    ) noexcept nogil:
        """Add C to G. Row (i, j) of C is a pair of units, column (a, b) a pair of inputs, and the
        entry of G has the row (i, a) and the column (j, b).
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
                    # Add the mirror image, with row (i, b) and column (j, a), for a < b.
                    if same and i < j:
                        out = G + (x.w + i * x.k) * n + at_ + a
                        for b in range(a + 1, x.k):
                            out[b * n] += c[b - a]
                        if a < x.k and x.b >= 0:
                            G[(at_ + a) * n + x.b + i] += c[x.k - a]
                    c += y.k + 1 - from_

    # --- further contributions of a block of samples to the Hessian -------------------------------

    cdef void weight_columns(self, PlanS *P, Py_ssize_t l, Py_ssize_t step) noexcept nogil:
        """Multiply the columns of D of layer l by their weights: 1 for columns of outputs, and s =
        e phi'' for columns of units.
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
                    self.K.multiply_and_sum(
                        1, 1, step * P.layer[h].m, self.q[h], 0, self.D[l] + at_, 0,
                        self.weighed + at_, 0
                    )

    cdef void add_unit_columns(
        self, Py_ssize_t first, Py_ssize_t end, Py_ssize_t others, bint same, Py_ssize_t l,
        Py_ssize_t above, Py_ssize_t step
    ) noexcept nogil:
        """Add to T, for units [first, end) of layer l, the terms of the columns that belong to the
        units of layer `above`.
        """
        cdef Py_ssize_t i, all_ = step * others
        cdef double *T = self.T
        cdef double *q = self.q[above]
        for i in range(first, end):
            if same:
                self.K.add_parts(step, 1, q + i * step, 0, True, T)
                T += (others - i) * step
            else:
                self.K.multiply_and_sum(
                    1, 1, all_, q, 0,
                    self.D[l] + (i * self.parts[l] + self.parts[above]) * step, 0, self.A, 0
                )
                self.K.add_parts(all_, 1, self.A, 0, True, T)
                T += all_

    cdef void add_cross_layer_terms(
        self, PlanS *P, Py_ssize_t l, Py_ssize_t above, Py_ssize_t step, double *H
    ) noexcept nogil:
        """Add the terms of H that arise because W of layer `above` multiplies outputs that depend
        on layer l, which are the terms with K_iq in the module docstring.
        """
        cdef Layer *x = &P.layer[l]
        cdef Layer *y = &P.layer[above]
        cdef bint next_ = above == l + 1
        cdef Py_ssize_t i, j = 0, q, count, line = x.k + 1, t, some
        cdef double *c
        # T holds one row for each pair of a unit of y and a unit of the layer below y, for `some`
        # units of y at a time. If y is the layer after x, K_iq is 0 unless q = i, so there is one
        # row per unit of y.
        some = y.m if next_ else max(<Py_ssize_t>1, self.t_rows // y.k)
        for i in range(x.m):
            if not next_:
                self.compute_output_derivative(P, i, l, above - 1, step)
            j = 0
            while j < y.m:
                count = min(some, y.m - j)
                if next_:
                    self.K.multiply_and_sum(
                        count, 1, step, self.p[l] + i * step, 0, self.delta[above] + j * step,
                        step, self.T, step
                    )
                for t in range(0 if next_ else count):
                    self.K.multiply_and_sum(
                        y.k, 1, step, self.delta[above] + (j + t) * step, 0, self.A, step,
                        self.T + t * y.k * step, step
                    )
                q = 1 if next_ else y.k
                self.multiply_matrices(
                    count * q, line, step, self.T, step, 1, self.a[l], 1, step, self.C, line, False
                )
                c = self.C
                for t in range(count * q):
                    self.add_to_column(
                        x, i, y.w + (j + t // q) * y.k + (i if next_ else t % q), c, H
                    )
                    c += line
                j += count

    cdef void compute_output_derivative(
        self, PlanS *P, Py_ssize_t i, Py_ssize_t l, Py_ssize_t h, Py_ssize_t step
    ) noexcept nogil:
        """Compute K_iq for all q as A (m of layer h, step): the derivative of the outputs of layer
        h >= l with respect to z of unit i in layer l.
        """
        cdef Py_ssize_t all_ = step * P.layer[h].m
        cdef bint add = False
        while True:
            if h == l:          # only output i of layer l depends on z of unit i
                self.K.add_parts(step, 1, self.p[l] + i * step, 0, True, self.A + i * step)
                return
            self.K.multiply_and_sum(
                1, 1, all_, self.p[h], 0, self.D[l] + (i * self.parts[l] + self.parts[h]) * step,
                0, self.T if add else self.A, 0
            )
            if add:
                self.K.add_parts(all_, 1, self.T, 0, True, self.A)
            if not P.layer[h].skip:
                return
            h, add = h - 1, True

    cdef void add_to_column(
        self, Layer *x, Py_ssize_t i, Py_ssize_t column, const double *c, double *H
    ) noexcept nogil:
        """Add c to one column of H, in the rows of the weights of unit i of layer x."""
        cdef Py_ssize_t n = self.n, a
        for a in range(x.k):
            H[(x.w + i * x.k + a) * n + column] += c[a]
        if x.b >= 0:
            H[(x.b + i) * n + column] += c[x.k]
