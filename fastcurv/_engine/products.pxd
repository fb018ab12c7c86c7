"""Construction of the descriptions (fc_product) of a pass's matrix products and their epilogues.
The description is run by one thread or by the thread team (products.pyx).
"""
from libc.string cimport memset


# memset of libc, called through a function pointer. A compiler that optimises for size would expand
# memset on the 600 bytes of fc_product into one slow instruction, which costs 2 to 3% of the run
# time of the smallest products.
cdef void *(*clear)(void *, int, size_t) noexcept nogil
clear = memset


cdef struct Blocks:             # a sweep over the rows of a pass, in blocks
    Pass *t
    char *out                   # VJP: the left factor; unused by other sweeps


# --- the shape, the terms and the output of a product ---------------------------------------------

cdef inline void begin_product(Pass *t, fc_product *job, Py_ssize_t units) noexcept nogil:
    """Start the description of a product whose output has the shape (rows, units), transposed if
    the plan uses the transposed layout.
    """
    clear(job, 0, sizeof(job[0]))
    if t.P.ld_transposed:
        job.m, job.n, job.epilogue.by_row = units, round_up_to_cache_lines(t.P, t.rows), True
    else:
        job.m, job.n = t.rows, units
    job.exceeds_l2 = t.P.panel_exceeds_l2


cdef inline void begin_sum_over_rows(Pass *t, Layer *y, fc_product *job, bint add) noexcept nogil:
    """Start the description of a product that sums over rows. Its output has the shape of W and is
    part of a flat vector.
    """
    clear(job, 0, sizeof(job[0]))
    job.m, job.n, job.unpadded, job.accumulate = y.m, y.k, True, add
    job.exceeds_l2, job.packs = t.P.panel_exceeds_l2, packs_sum_operands(t.P)


cdef inline void share_all_matrices(Pass *t, fc_stack *stack) noexcept nogil:
    """Set the distances between the matrices of successive vectors to 0 in a stacked product. The
    caller then sets the distances of the matrices that differ between vectors.
    """
    if t.count > 1:
        memset(&stack.count, 0, sizeof(stack[0]) - sizeof(stack.job))


cdef inline void set_output(fc_product *job, Matrix c) noexcept nogil:
    """Set the output of a product to the matrix c."""
    job.c, job.ldc = c.at, c.ld


cdef inline void set_output_e(Pass *t, fc_product *job, Layer *x, Py_ssize_t l) noexcept nogil:
    """Set the output of a product to the scratch buffer for e of layer x, below layer l. After the
    epilogue, e is read only if layer x is residual or batch-normalised.
    """
    set_output(job, scratch_matrix(t, x, t.scratch.e[l & 1]))
    job.c_unused = not x.skip and x.norm == NULL


cdef inline void set_output_w(Pass *t, fc_product *job, Layer *y, char *out) noexcept nogil:
    """Set the output of a product to the part of the flat vector `out` that corresponds to W of
    layer y.
    """
    job.c, job.ldc = out + y.w * t.P.K.real_bytes, y.k


cdef inline void add_flat_term(
    PlanS *P, fc_product *job, Py_ssize_t k, char *w, Py_ssize_t rs, Py_ssize_t cs, char *x
) noexcept nogil:
    """Add the term w x to a product in the transposed layout, where w has k columns and any
    strides, and x has the shape (k, samples).
    """
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = k, w, rs, cs
    t.b, t.b_rs, t.b_vs, t.b_cs = x, P.ld_transposed, lanes_per_vector(P), 0


cdef inline void add_packed_term(
    PlanS *P, fc_product *job, Py_ssize_t k, Matrix a, char *b
) noexcept nogil:
    """Add the term a b to a product, where b is a packed matrix of k rows."""
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = k, a.at, a.ld, 1
    t.b, t.b_rs, t.b_vs, t.b_cs = b, lanes_per_vector(P), k * lanes_per_vector(P), 0


cdef inline void add_unpacked_term(
    PlanS *P, fc_product *job, Py_ssize_t k, Matrix a, char *w, Py_ssize_t rs, Py_ssize_t cs
) noexcept nogil:
    """Add the term a w to a product, where w has k rows and any strides and is read in place."""
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = k, a.at, a.ld, 1
    t.b, t.b_rs, t.b_vs, t.b_cs = w, rs, 0, cs


cdef inline void add_forward_term(
    Pass *t, fc_product *job, Layer *y, Matrix a, Weights W
) noexcept nogil:
    """Add the term a W' to a product, or W a in the transposed layout."""
    if t.P.ld_transposed:
        add_flat_term(t.P, job, y.k, W.flat + y.w * t.P.K.real_bytes, y.k, 1, a.at)
    elif t.P.unpacked:
        add_unpacked_term(t.P, job, y.k, a, W.flat + y.w * t.P.K.real_bytes, 1, y.k)
    else:
        add_packed_term(t.P, job, y.k, a, W.packed_transpose_w)


cdef inline void add_backward_term(
    Pass *t, fc_product *job, Layer *y, Matrix d, Weights W
) noexcept nogil:
    """Add the term d W to a product, or W' d in the transposed layout."""
    if t.P.ld_transposed:
        add_flat_term(t.P, job, y.m, W.flat + y.w * t.P.K.real_bytes, 1, y.k, d.at)
    elif t.P.unpacked:
        add_unpacked_term(t.P, job, y.m, d, W.flat + y.w * t.P.K.real_bytes, y.k, 1)
        # the last vector of each row lies within theta
        if y.w + (y.m - 1) * y.k + packed_columns(t.P, y.k) <= t.P.n:
            job.term[job.n_terms - 1].b_vs = lanes_per_vector(t.P)
            job.term[job.n_terms - 1].b_cs = 0
    else:
        add_packed_term(t.P, job, y.m, d, W.packed_w)


cdef inline void add_sum_over_samples(Pass *p, fc_product *job, Matrix d, Matrix a) noexcept nogil:
    """Add the term d a', a sum over samples, to a product in the transposed layout."""
    cdef PlanS *P = p.P
    cdef fc_term *t = &job.term[job.n_terms]
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = round_up_to_cache_lines(P, p.rows), d.at, P.ld_transposed, 1
    t.b, t.b_rs, t.b_vs, t.b_cs = a.at, 1, 0, P.ld_transposed


cdef inline void add_sum_over_rows(Pass *p, fc_product *job, Matrix d, Matrix a) noexcept nogil:
    """Add the term d' a, a sum over rows, to a product."""
    cdef fc_term *t = &job.term[job.n_terms]
    if p.P.ld_transposed:
        add_sum_over_samples(p, job, d, a)
        return
    job.n_terms += 1
    t.k, t.a, t.a_rs, t.a_cs = p.rows, d.at, 1, d.ld
    t.b, t.b_rs, t.b_vs, t.b_cs = a.at, a.ld, lanes_per_vector(p.P), 0


# --- the matrices of an epilogue, named as in kernels.h -------------------------------------------

cdef inline char *bias_address(PlanS *P, Layer *y, Weights W) noexcept nogil:
    """Return the address of b: the padded copy or, in the transposed layout, b within the flat
    vector.
    """
    if y.b < 0:
        return NULL
    return W.flat + y.b * P.K.real_bytes if P.ld_transposed else W.b


cdef inline void set_d(fc_epilogue *epilogue, Matrix d) noexcept nogil:
    """Set matrix d of an epilogue."""
    epilogue.d, epilogue.ldd = d.at, d.ld


cdef inline void set_p(fc_epilogue *epilogue, Matrix p) noexcept nogil:
    """Set matrix p of an epilogue."""
    epilogue.p, epilogue.ldp = p.at, p.ld


cdef inline void set_q(fc_epilogue *epilogue, Matrix q) noexcept nogil:
    """Set matrix q of an epilogue."""
    epilogue.q, epilogue.ldq = q.at, q.ld


cdef inline void set_r(fc_epilogue *epilogue, Matrix r) noexcept nogil:
    """Set matrix r of an epilogue."""
    epilogue.r, epilogue.ldr = r.at, r.ld


cdef inline void set_skip(fc_epilogue *epilogue, Matrix skip) noexcept nogil:
    """Set matrix skip of an epilogue."""
    epilogue.skip, epilogue.ldskip = skip.at, skip.ld


cdef inline void set_column_sums(Pass *t, fc_epilogue *epilogue) noexcept nogil:
    """Let the epilogue write column sums, except in the transposed layout, where
    write_bias_sums_transposed computes them.
    """
    epilogue.sums, epilogue.ldsums = NULL if t.P.ld_transposed else t.scratch.sums, t.scratch.ldsums


cdef inline void set_derivatives(
    Pass *t, fc_epilogue *epilogue, Layer *y, bint second
) noexcept nogil:
    """Set phi' and, if `second`, e * phi'' in the epilogue. If they are not stored, set the
    matrices from which the epilogue recomputes them.
    """
    if not y.has_p:
        return
    epilogue.phi = y.phi if y.derived else FC_IDENTITY
    set_p(epilogue, p_matrix(t, y) if stores_slopes(y) else state_matrix(t, y, y.a))
    if second and y.curved:
        set_q(epilogue, state_matrix(t, y, y.du if y.derived else y.q))
        epilogue.a, epilogue.lda = a_matrix(t, y).at, leading_dimension(t.P, y.ldm)


# --- transposed layout ----------------------------------------------------------------------------

cdef inline void prefetch_next_panel(
    Pass *t, fc_product *job, char *whole, Py_ssize_t units
) noexcept nogil:
    """Prefetch the next panel's part of a stored (units, samples) matrix while this product runs.
    """
    cdef int i = 0
    if not t.more or whole == NULL:
        return
    while job.ahead[i].bytes:
        i += 1
    job.ahead[i].at = row_address(t.P, whole, t.r0 + t.P.ld_transposed, units)
    job.ahead[i].bytes = t.P.ld_transposed * units * t.P.K.real_bytes


cdef inline bint recomputes_delta(PlanS *P, Py_ssize_t l) noexcept nogil:
    """Return True if products recompute delta of layer l instead of reading it. This holds if delta
    is needed only to recompute e * phi'', and if the layer above is narrow and not residual (a
    residual layer adds a term to e that is not stored).
    """
    cdef Layer *y = &P.layer[l]
    cdef Layer *above = &P.layer[1]
    cdef bint few = above.m <= FC_MAX_RANK and not above.skip
    return P.ld_transposed and l == 0 and y.curved and y.derived and few


cdef inline void set_recomputed_delta(Pass *t, fc_epilogue *epilogue, Layer *y) noexcept nogil:
    """Let the epilogue recompute delta of the layer below y as (W' delta_y) * phi'."""
    cdef Matrix delta = state_matrix(t, y, y.delta)
    epilogue.q = NULL
    epilogue.recompute.rank, epilogue.recompute.b, epilogue.recompute.ldb = y.m, delta.at, delta.ld
    epilogue.recompute.w = y.W.flat + y.w * t.P.K.real_bytes
    epilogue.recompute.w_ts, epilogue.recompute.w_is = y.k, 1


# --- execution of products ------------------------------------------------------------------------
