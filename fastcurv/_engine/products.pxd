"""Products of a pass, and sweeps over its rows: written down, and run by one thread or all."""
from .kernels cimport FC_IDENTITY, fc_product, fc_stack, fc_step, fc_term
from .state cimport Layer, Pass, PlanS, at, lanes, lead, whole_lines
from .team cimport fc_part


cdef struct Blocks:
    Pass *t
    char *out


cdef inline void add_flat(PlanS *P, fc_product *job, Py_ssize_t k, char *w, Py_ssize_t rs, Py_ssize_t cs, char *x) noexcept nogil:
    """One more term: a matrix of k columns of any strides times x (k, samples)."""
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = k, w, rs, cs
    t.b, t.b_rs, t.b_vs, t.b_cs = x, P.across, lanes(P), 0


cdef inline void set_shape(Pass *t, fc_product *job, Py_ssize_t units) noexcept nogil:
    """The output has a number for each row and unit."""
    if t.P.across:
        job.m, job.n, job.step.by_row = units, whole_lines(t.P, t.rows), True
    else:
        job.m, job.n = t.rows, units


cdef inline void add_packed(PlanS *P, fc_product *job, Py_ssize_t k, char *a, Py_ssize_t lda, char *b) noexcept nogil:
    """One more term: rows of a times a packed matrix of k rows."""
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = k, a, lda, 1
    t.b, t.b_rs, t.b_vs, t.b_cs = b, lanes(P), k * lanes(P), 0


cdef inline void add_onward(PlanS *P, fc_product *job, Layer *y, char *a, Py_ssize_t lda, char *packed, char *flat) noexcept nogil:
    """One more term: a W' for rows of a, W packed; or W a where samples lie across, W where it lies in a flat vector."""
    if P.across:
        add_flat(P, job, y.k, flat + y.w * P.K.real_bytes, y.k, 1, a)
    else:
        add_packed(P, job, y.k, a, lda, packed)


cdef inline void add_back(PlanS *P, fc_product *job, Layer *y, char *d, char *packed, char *flat) noexcept nogil:
    """One more term: d W likewise, or W' d."""
    if P.across:
        add_flat(P, job, y.m, flat + y.w * P.K.real_bytes, 1, y.k, d)
    else:
        add_packed(P, job, y.m, d, y.ldm, packed)


cdef inline void add_outer(Pass *p, fc_product *job, char *d, Py_ssize_t ldd, char *a, Py_ssize_t lda) noexcept nogil:
    """One more term: d' a, a sum over rows."""
    cdef PlanS *P = p.P
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    if P.across:
        t.k, t.a, t.a_rs, t.a_cs = whole_lines(P, p.rows), d, P.across, 1
        t.b, t.b_rs, t.b_vs, t.b_cs = a, 1, 0, P.across
    else:
        t.k, t.a, t.a_rs, t.a_cs = p.rows, d, 1, ldd
        t.b, t.b_rs, t.b_vs, t.b_cs = a, lda, lanes(P), 0


cdef inline void add_bends(PlanS *P, fc_step *step, Layer *y, Py_ssize_t r0, bint second) noexcept nogil:
    """phi' of a layer for a step, and e * phi'' where wanted: as they are kept, or as what they are made from."""
    if not y.has_p:
        return
    step.phi = y.phi if y.derived else FC_IDENTITY
    step.p, step.ldp = at(P, y.p if y.p != NULL else y.a, r0, y.ldm), lead(P, y.ldm)
    if second and y.curved:
        step.q, step.ldq = at(P, y.du if y.derived else y.q, r0, y.ldm), lead(P, y.ldm)
        step.a, step.lda = at(P, y.a, r0, y.ldm), lead(P, y.ldm)


cdef inline char *bias_of(PlanS *P, Layer *y, char *padded, char *flat) noexcept nogil:
    """b of theta or v: its padded copy, or where it lies."""
    return NULL if y.b < 0 else flat + y.b * P.K.real_bytes if P.across else padded


# The product and its step. Returns how many blocks of rows it was cut into: the rows of `sums`.
cdef Py_ssize_t run(Pass *t, fc_product *job) noexcept nogil
# The same for the pass's vectors side by side.
cdef Py_ssize_t run_stack(Pass *t, fc_stack *stack) noexcept nogil
# The sum of the items' totals, in order.
cdef double total_of(PlanS *P, Pass *t, fc_product *job) noexcept nogil
# A sweep over the pass's rows: all at once for a panel, in blocks over the team for a chunk.
cdef void run_blocks(Pass *t, fc_part part, Blocks *blocks) noexcept nogil
# Rows of a block, counted within the pass, and its number among the chunk's.
cdef void rows_of(Pass *t, Py_ssize_t part, Py_ssize_t *first, Py_ssize_t *rows, Py_ssize_t *block) noexcept nogil
