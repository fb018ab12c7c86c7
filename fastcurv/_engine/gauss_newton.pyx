"""The Gauss-Newton matrix of a small net, as a matrix: G = F F' with a column of F for each output
of each sample,

    F' = B J     J (N d, n) the outputs' derivatives, B'B = d2 loss / dz2 of a sample

where B is diagonal if each output has a loss of its own. Of cross entropy d2 loss / dz2 has rank
d - 1, and so has F as many columns a sample: with the probabilities p and the weight w of a sample,
s = sqrt(p) and the last output t,

    B'_ik = sqrt(w) (s_i (i = k) - p_i s_k / (1 + s_t))     B'_tk = - sqrt(w) s_t s_k     i, k < t

that is sqrt(w) diag(s) times the reflection that takes s to the last unit vector, without its last
column. F is what backward makes of B' for each column alone: D = B' in the last layer; then the
rows of F are those of D times those of a below, E_below = W' D [+ E], D_below = E_below * phi'. All
in double precision, whatever the plan's, samples across, a block of them at a time; the columns of
a block are the first of all its samples, then the second, ...
"""
import numpy as np

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef enum:
    F_NUMBERS = 1 << 16         # of F at a time: half a megabyte, in a near cache
    LINE = FC_ALIGN // 8        # numbers
    STRIP = 64                  # rows of G whose part left of the diagonal is not made


cdef inline Py_ssize_t lines_of(Py_ssize_t count) noexcept nogil:
    """So many numbers and those up to a whole line."""
    return (count + LINE - 1) // LINE * LINE


cdef class GaussNewton:
    """Room for the matrix at one theta after the other, of a plan without batch normalisation."""
    cdef Plan plan
    cdef const fc_table *K
    cdef list states            # what the engine keeps, (N, m) each: see `states_of`
    cdef list doubles           # X and these in double precision: the same arrays if they are
    cdef char **kept            # where states begin
    cdef const double **state   # where doubles begin
    cdef char *room
    cdef double *F              # (n, columns)
    cdef double *D              # (widest, columns)
    cdef double *E
    cdef double *a              # (widest, samples): a of the layer below, or phi'
    cdef double *W              # theta
    cdef double *gemm           # the kernels' own
    cdef Py_ssize_t block       # samples of a block, whole lines
    cdef Py_ssize_t each        # columns a sample
    cdef readonly Py_ssize_t n

    def __cinit__(self, Plan plan):
        cdef PlanS *P = &plan.P
        cdef Py_ssize_t l, widest = 0, columns
        cdef Layer *y
        self.plan, self.n, self.states, self.K = plan, P.n, [], &table_chosen()[1]
        self.each = P.d_out - (P.loss.kind == FC_CROSS_ENTROPY and P.d_out > 1)
        for l in range(P.n_layers):
            y = &P.layer[l]
            widest = max(widest, max(y.m, y.k))
            for wanted in (l < P.n_layers - 1, y.p != NULL, False, False):
                self.states.append(np.zeros((P.N, y.m), plan.dtype) if wanted else None)
        self.states += [np.zeros((P.N, P.d_out), plan.dtype), np.zeros(P.N, plan.dtype)]
        self.doubles = [
            None if x is None else np.ascontiguousarray(x, np.float64)
            for x in (plan.rows.X, *self.states)
        ]
        self.kept = <char **>malloc(len(self.states) * sizeof(char *))
        self.state = <const double **>malloc(len(self.doubles) * sizeof(double *))
        if not (self.kept and self.state):
            raise MemoryError("no memory for two lists of matrices")
        for l, x in enumerate(self.doubles):
            self.state[l] = NULL if x is None else <double *>pointer(x)
        for l, x in enumerate(self.states):
            self.kept[l] = NULL if x is None else pointer(x)
        self.block = max(
            <Py_ssize_t>LINE, min(lines_of(P.N), F_NUMBERS // (self.each * P.n * LINE) * LINE)
        )
        columns = self.block * self.each
        self.room = zeroed(
            (columns * (P.n + 2 * widest) + self.block * widest + lines_of(P.n)) * sizeof(double)
            + self.K.scratch, 1,
            f"no memory for {P.n} rows of {columns} numbers"
        )
        self.F = <double *>self.room
        self.D = self.F + columns * P.n
        self.E = self.D + columns * widest
        self.a = self.E + columns * widest
        self.W = self.a + self.block * widest
        self.gemm = self.W + lines_of(P.n)

    def __dealloc__(self):
        free(self.kept)
        free(self.state)
        fc_block_free(self.room)

    def matrix(self, out):
        """G without l2 at the plan's theta into out (n, n), double, contiguous."""
        cdef double *G = <double *>pointer(out)
        cdef fc_watch before
        with self.plan.lock, nogil:
            before = watch()
            self.half(G)
            self.plan.end(before)
        np.copyto(out, out.T, where=np.tri(self.n, k=-1, dtype=bool))

    cdef void half(self, double *G) noexcept nogil:
        """The same, but only the half that a row of G has from its diagonal on."""
        cdef PlanS *P = &self.plan.P
        cdef Py_ssize_t first = 0, l, count
        cdef Py_ssize_t n = P.n, columns, strip
        states_of(P, False, self.kept)
        self.doubled(P.theta, self.W, P.n)
        for l in range(4 * P.n_layers + 2):
            count = P.N * (P.layer[l // 4].m if l < 4 * P.n_layers else P.d_out)
            if l == 4 * P.n_layers + 1:
                count = P.N
            self.doubled(self.kept[l], <double *>self.state[l + 1], count)
        while first < P.N:
            count = min(self.block, P.N - first)
            columns = lines_of(count) * self.each
            self.fill(P, first, count, columns)
            strip = 0
            while strip < n:
                self.product(
                    min(<Py_ssize_t>STRIP, n - strip), n - strip, columns,
                    self.F + strip * columns, columns, 1, self.F + strip * columns, 1, columns,
                    G + strip * (n + 1), n, first > 0
                )
                strip += STRIP
            first += count

    cdef void doubled(self, const char *x, double *to, Py_ssize_t count) noexcept nogil:
        """The same numbers in double precision, unless they are."""
        cdef Py_ssize_t i
        if x == NULL or x == <char *>to:
            return
        if self.plan.P.K.real_bytes == 8:
            memcpy(to, x, count * sizeof(double))
            return
        for i in range(count):
            to[i] = (<const float *>x)[i]

    cdef void fill(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t columns
    ) noexcept nogil:
        """F of `count` samples, and zeros up to whole lines of them."""
        cdef Py_ssize_t l, i, j
        cdef double *row
        cdef Layer *y
        cdef Layer *x
        self.top(P, first, count, columns)
        for l in range(P.n_layers - 1, -1, -1):
            y = &P.layer[l]
            self.across(self.state[1 + 4 * (l - 1)] if l else self.state[0], y.k, first, count)
            for j in range(y.m):
                row = self.D + j * columns
                self.times(y.k, columns, row, 0, self.F + (y.w + j * y.k) * columns)
                if y.b >= 0:
                    memcpy(self.F + (y.b + j) * columns, row, columns * sizeof(double))
            if l == 0:
                return
            x = &P.layer[l - 1]
            self.product(
                y.k, columns, y.m, self.W + y.w, 1, y.k, self.D, columns, 1, self.E, columns, y.skip
            )
            if x.p != NULL:
                self.across(self.state[2 + 4 * (l - 1)], x.m, first, count)
            else:                       # what a's sign tells, or 1
                for i in range(x.m * (columns // self.each)):
                    if not x.has_p or self.a[i] > 0:
                        self.a[i] = 1
                    else:
                        self.a[i] = FC_LEAK if x.phi == FC_LEAKY_RELU else 0
            self.times(x.m, columns, self.E, columns, self.D)

    cdef void top(
        self, PlanS *P, Py_ssize_t first, Py_ssize_t count, Py_ssize_t columns
    ) noexcept nogil:
        """D = B', a row for each output."""
        cdef Py_ssize_t r, i, k, d = P.d_out, step = columns // self.each
        cdef const double *h = self.state[1 + 4 * P.n_layers] + first * d
        cdef const double *w = self.state[2 + 4 * P.n_layers] + first
        cdef double root, last, other
        memset(self.D, 0, d * columns * sizeof(double))
        if P.loss.kind == FC_CROSS_ENTROPY and d == 1:
            return                      # one class: there is nothing to learn
        for r in range(count):
            for k in range(self.each):
                root = sqrt(h[r * d + k])
                if P.loss.kind != FC_CROSS_ENTROPY:
                    self.D[k * columns + k * step + r] = root
                    continue
                root, last = root * sqrt(w[r]), sqrt(h[r * d + d - 1])
                other = last            # with 1 - p_k, of which a sum keeps all digits
                for i in range(d):
                    self.D[i * columns + k * step + r] = -root * h[r * d + i] / (1 + last)
                    other += h[r * d + i] if i != k else 0
                self.D[k * columns + k * step + r] = root * other / (1 + last)
                self.D[(d - 1) * columns + k * step + r] = -root * last

    cdef void across(
        self, const double *x, Py_ssize_t m, Py_ssize_t first, Py_ssize_t count
    ) noexcept nogil:
        """a = the samples of x (N, m), each a column, and zeros up to whole lines of them."""
        cdef Py_ssize_t i, ld = lines_of(count)
        self.K.columns(count, m, x + first * m, m, 1, 0, count, self.a, ld)
        for i in range(m):
            memset(self.a + i * ld + count, 0, (ld - count) * sizeof(double))

    cdef void product(
        self, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, double *a, Py_ssize_t a_rs, Py_ssize_t a_cs,
        double *b, Py_ssize_t b_rs, Py_ssize_t b_cs, double *c, Py_ssize_t ldc, bint add
    ) noexcept nogil:
        """c (m, n) = [c +] a b, with k between them."""
        cdef fc_product job = plain_product(
            m, n, k, <char *>a, a_rs, a_cs, <char *>b, b_rs, b_cs, <char *>c, ldc, add
        )
        run_items(self.K, &job, 1, <char *>self.gemm, 0)

    cdef void times(
        self, Py_ssize_t rows, Py_ssize_t columns, double *x, Py_ssize_t ldx, double *out
    ) noexcept nogil:
        """out = a * x for each column of a sample, x a row or as many as there are of a."""
        cdef Py_ssize_t k, step = columns // self.each
        cdef fc_step job
        memset(&job, 0, sizeof(job))
        job.kind, job.phi, job.ldp, job.ldd = FC_STEP_R_ACTIVATE, FC_IDENTITY, ldx, columns
        for k in range(self.each):
            job.p, job.d = x + k * step, out + k * step
            self.K.step(&job, rows, step, self.a, step)
