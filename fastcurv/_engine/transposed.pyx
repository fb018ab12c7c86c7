"""The transposed layout: matrices of a panel have the shape (units, samples), and a SIMD vector
holds the values of several samples for one unit.

Panel-parallel plans with narrow layers use this layout. Lanes are full for any layer width, and W
and V are read from flat vectors, so that nothing is packed. The passes share their source with the
row-major layout. The code that differs is in this file, in `leading_dimension` of state.pxd, and in
`begin_product` and the functions `add_...` of products.pxd.

The samples of a panel are padded to whole cache lines with copies of the last sample. For the
copies, delta and the second derivatives of the loss are 0, so they add nothing to sums over
samples.

In the shared layout, few rows of a wide network form one panel, and all threads work on each
product of a pass together. The operands a and ra of sums over samples are first packed by rows,
because otherwise each item of a product would transpose them.
"""
from libc.math cimport isnan, NAN
from libc.string cimport memcpy


cdef void write_bias_sums_transposed(
    Pass *t, Layer *y, Matrix d, char *out, bint add
) noexcept nogil:
    """Set the b part of out to [out +] the sums over samples of d (units, samples). The sums are
    computed as the product of a row of ones and d', so that a tile covers many units.
    """
    cdef fc_product job
    cdef Matrix ones
    if y.b < 0:
        return
    begin_sum_over_rows(t, y, &job, add)
    job.m, job.n = 1, y.m
    ones.at, ones.ld = t.P.ones, 0
    add_sum_over_samples(t, &job, ones, d)
    job.c, job.ldc = out + y.b * t.P.K.real_bytes, y.m
    run_product(t, &job)


cdef bint has_narrow_output(Pass *t) noexcept nogil:
    """Return True if the products of the output layer are fused with those of the layer below,
    because the output layer has few units.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t top = P.n_layers - 1
    if not P.ld_transposed or P.shared or P.first_active >= top:
        return False
    if not (P.active[top] and P.active[top - 1]):
        return False
    return can_fuse_output(&P.layer[top])


cdef void fuse_output(Pass *t, fc_epilogue *epilogue, bint quadratic) noexcept nogil:
    """Let the epilogue of the layer below the output layer compute the output layer's rz instead of
    storing ra. If `quadratic`, the epilogue also computes the quadratic form of each sample except
    the term of the loss's second derivative.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Weights V = weights_of_v(t, y)
    cdef Matrix a = state_matrix(t, y - 1, (y - 1).a)
    cdef Matrix pairs = state_matrix(t, y - 1, (y - 1).phi_pair)
    epilogue.d, epilogue.a, epilogue.lda = NULL, a.at, a.ld
    epilogue.phi_pair, epilogue.ldphi_pair = pairs.at, pairs.ld
    epilogue.next.rank, epilogue.next.units, epilogue.next.w_ts = y.m, y.k, y.k
    epilogue.next.w, epilogue.next.v = y.W.flat + y.w * size, V.flat + y.w * size
    epilogue.next.u = bias_address(P, y, V)
    epilogue.next.out, epilogue.next.ldout = t.scratch.rz[P.n_layers - 1], P.ld_transposed
    if quadratic:
        epilogue.next.delta, epilogue.next.form = state_matrix(t, y, y.delta).at, t.scratch.e[1]


cdef void run_fused_r_backward(Pass *t, char *out, bint add, bint full) noexcept nogil:
    """Run R-backward through the output layer in one fused kernel: compute rdW of the output layer,
    and rdelta and rdb of the layer below. If `full`, include the terms in delta, which only the
    Hessian has.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Layer *x = y - 1
    cdef Py_ssize_t size = P.K.real_bytes
    cdef fc_narrow job
    clear(&job, 0, sizeof(job))
    job.phi = x.phi if x.derived else FC_IDENTITY
    job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, add, y.k, P.ld_transposed, P.ld_transposed
    job.w = y.W.flat + y.w * size
    job.v = weights_of_v(t, y).flat + y.w * size if full else NULL
    job.delta, job.rdelta = state_matrix(t, y, y.delta).at, t.scratch.rz[P.n_layers - 1]
    job.p, job.a = state_matrix(t, x, x.p).at, state_matrix(t, x, x.a).at
    job.phi_pair = state_matrix(t, x, x.phi_pair).at
    if full and x.curved and not recomputes_delta(P, P.n_layers - 2):
        job.q = state_matrix(t, x, x.du if x.derived else x.q).at
    job.r = t.scratch.rz[P.n_layers - 2]
    job.ahead = (
        P.ld_transposed * x.m
        if t.more and x.p != NULL and not is_too_short_to_prefetch(t) else 0
    )
    job.out, job.ldout = out + y.w * size, y.k
    job.bias = out + x.b * size if x.b >= 0 else NULL
    P.K.narrow(&job, x.m, round_up_to_cache_lines(P, t.rows))


cdef void unpack_pairs(Pass *t) noexcept nogil:
    """Unpack a and p of the layer that stores packed pairs into scratch, unless the pass has
    already done so.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[0]
    if not t.pairs_unpacked:
        P.K.unpack_pairs(
            y.phi, y.m * P.ld_transposed, state_matrix(t, y, y.phi_pair).at, t.scratch.a,
            t.scratch.p
        )
        t.pairs_unpacked = True


cdef void propagate_nan(Pass *t) noexcept nogil:
    """Set the output layer's rz to NaN where its z is NaN, because packed pairs cannot represent a
    NaN of the layers below.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t i
    cdef char *z = state_matrix(t, y, y.a).at
    cdef char *rz = t.scratch.rz[P.n_layers - 1]
    for i in range(y.m * P.ld_transposed if P.packs_pairs else 0):
        if P.K.real_bytes == 8 and isnan((<double *>z)[i]):
            (<double *>rz)[i] = NAN
        elif P.K.real_bytes == 4 and isnan((<float *>z)[i]):
            (<float *>rz)[i] = NAN


cdef double compute_loss_transposed(
    Pass *t, fc_loss_rows *here, Layer *y, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Return the loss of the samples [first, first + rows) of a panel. The arrays in `here` begin
    at sample `first`.
    """
    cdef PlanS *P = t.P
    here.ldd = here.ldh = P.ld_transposed
    return P.K.loss_transposed(
        here, rows, y.m, row_address(P, y.a, t.r0, y.ldm) + first * P.K.real_bytes, P.ld_transposed
    )


cdef void compute_rdelta_transposed(
    Pass *t, fc_loss_rows *here, Layer *y, char *u, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Compute rdelta of the samples [first, first + rows) of a panel, in place of rz. For a VJP,
    rdelta is copied from the left factor u (rows, d_out), which holds all samples of the chunk.
    """
    cdef PlanS *P = t.P
    cdef char *rz = t.scratch.rz[P.n_layers - 1] + first * P.K.real_bytes
    if t.kind == FISHER:
        P.K.r_fisher_transposed(
            <double>P.N, rows, y.m, here.delta, P.ld_transposed, rz, P.ld_transposed, rz,
            P.ld_transposed
        )
    elif t.kind == VJP:
        P.K.copy(y.m, rows, u + t.s0 * y.m * P.K.real_bytes, 1, y.m, rz, P.ld_transposed)
    elif P.coupled:
        compute_coupled_rdelta(P, here, rows, rz, P.ld_transposed)
    else:
        here.ldh = P.ld_transposed
        P.K.r_loss_transposed(here, rows, y.m, rz, P.ld_transposed, rz, P.ld_transposed)


# --- shared layout: packed operands of sums over samples ------------------------------------------

cdef enum:
    TRANSPOSE_PART_UNITS = 64        # units of a layer per part of a job
    # Maximum number of elements that one thread transposes before another thread would have woken.
    SERIAL_TRANSPOSE_MAX_ELEMENTS = 20000


cdef struct TransposeJob:
    Pass *t
    Py_ssize_t units
    char *source
    char *to


cdef void transpose_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Transpose one range of units, as one part of a job of the thread team."""
    cdef TransposeJob *c = <TransposeJob *>context
    cdef PlanS *P = c.t.P
    cdef Py_ssize_t first = part * TRANSPOSE_PART_UNITS, rows = c.t.rows, size = P.K.real_bytes
    P.K.pack(
        rows, min(<Py_ssize_t>TRANSPOSE_PART_UNITS, c.units - first),
        c.source + first * P.ld_transposed * size,
        1, P.ld_transposed, 0, rows, 0, c.to + first * rows * size
    )


cdef void transpose_into_packed(Pass *t, Py_ssize_t units, char *source, char *to) noexcept nogil:
    """Transpose a matrix of shape (units, samples) into a packed matrix of shape (samples, units).
    """
    cdef TransposeJob c
    c.t, c.units, c.source, c.to = t, units, source, to
    fc_team_run(
        t.P.threads if units * t.rows > SERIAL_TRANSPOSE_MAX_ELEMENTS else 1,
        (units + TRANSPOSE_PART_UNITS - 1) // TRANSPOSE_PART_UNITS,
        transpose_part, &c
    )


cdef void add_packed_transpose_term(
    Pass *t, fc_product *job, Py_ssize_t l, Matrix d, char *a
) noexcept nogil:
    """Add the term d times the input of layer l to a product. The input is packed in `a`, or is the
    padded X for layer 0.
    """
    cdef PlanS *P = t.P
    cdef fc_term *term = &job.term[job.n_terms]
    job.n_terms += 1
    term.k, term.a, term.a_rs, term.a_cs = t.rows, d.at, P.ld_transposed, 1
    if l:
        term.b, term.b_rs, term.b_vs = a, lanes_per_vector(P), t.rows * lanes_per_vector(P)
    else:
        term.b, term.b_rs, term.b_vs = P.data.x, P.data.ldx, lanes_per_vector(P)


cdef void load_transposed_chunk(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
    """Copy the chunk's rows of X into panels of shape (d_in, samples). Pad each panel with copies
    of its last sample.
    """
    cdef Py_ssize_t panel, first, n, j, k = P.layer[0].k, size = P.K.real_bytes, end
    cdef Data *D = P.data
    cdef char *to
    cdef char *last
    cdef char *x = D.x if P.shared else D.X + r0 * D.x_rs * size
    cdef Py_ssize_t rs = D.ldx if P.shared else D.x_rs, cs = 1 if P.shared else D.x_cs
    for panel in range(count_panels(P, rows)):
        first = first_sample_of_panel(P, rows, panel)
        n = first_sample_of_panel(P, rows, panel + 1) - first
        to = row_address(P, P.x, state_row_of_panel(P, panel), k)
        P.K.copy(k, n, x + first * rs * size, cs, rs, to, P.ld_transposed)
        for j in range(k if n < round_up_to_cache_lines(P, n) else 0):
            last = to + (j * P.ld_transposed + n - 1) * size
            for end in range(1, round_up_to_cache_lines(P, n) - n + 1):
                memcpy(last + end * size, last, size)


cdef void fill_ones(PlanS *P) noexcept nogil:
    """Set all elements of the plan's vector of ones to 1."""
    cdef Py_ssize_t i
    for i in range(P.ld_transposed):
        if P.K.real_bytes == 8:
            (<double *>P.ones)[i] = 1
        else:
            (<float *>P.ones)[i] = 1
