"""The transposed layout: matrices of a panel are (units, samples), and a SIMD vector holds one
unit's numbers of several samples.

It suits panel-parallel plans with narrow layers: no lane is empty whatever the widths, and W and V
are read from flat vectors, so that nothing is packed. The passes are the same source; the
differences are in this file, in `lead` of state.pxd, and in `start` and `add_...` of products.pxd.

A panel's samples are padded to whole cache lines with copies of its last one, whose delta and
second derivatives of the loss are 0, so that they add nothing to sums over samples.

Few rows of a wide network form one panel, `shared` by all threads, which go through the passes
together, product by product. The operands a and ra of sums over samples are packed by rows first,
because otherwise each item of a product would transpose them again.
"""
from libc.math cimport isnan, NAN
from libc.string cimport memcpy


cdef void bias_transposed(Pass *t, Layer *y, Matrix d, char *out, bint add) noexcept nogil:
    """Set the b part of out to [out +] the sums over samples of d (units, samples), computed as
    ones times d', whose tiles are wide.
    """
    cdef fc_product job
    cdef Matrix ones
    if y.b < 0:
        return
    start_sum(t, y, &job, add)
    job.m, job.n = 1, y.m
    ones.at, ones.ld = t.P.ones, 0
    add_inner(t, &job, ones, d)
    job.c, job.ldc = out + y.b * t.P.K.real_bytes, y.m
    run(t, &job)


cdef bint has_narrow_output(Pass *t) noexcept nogil:
    """Return True if the last layer has so few units that its products are fused with the sweeps of
    the layer below.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t top = P.n_layers - 1
    if no_narrow or not P.ld_transposed or P.shared or P.first >= top:
        return False
    if not (P.active[top] and P.active[top - 1]):
        return False
    return narrow_last(&P.layer[top])


cdef void fuse_output(Pass *t, fc_epilogue *epilogue, bint quadratic) noexcept nogil:
    """Make the epilogue of the layer below the last one compute the last layer's rz, without
    storing ra. For a quadratic form it also computes each sample's contribution, except that of the
    loss's second derivatives.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Weights V = V_of(t, y)
    cdef Matrix a = kept(t, y - 1, (y - 1).a), pairs = kept(t, y - 1, (y - 1).phi_pair)
    epilogue.d, epilogue.a, epilogue.lda = NULL, a.at, a.ld
    epilogue.phi_pair, epilogue.ldphi_pair = pairs.at, pairs.ld
    epilogue.next.rank, epilogue.next.units, epilogue.next.w_ts = y.m, y.k, y.k
    epilogue.next.w, epilogue.next.v = y.W.flat + y.w * size, V.flat + y.w * size
    epilogue.next.u = bias_of(P, y, V)
    epilogue.next.out, epilogue.next.ldout = t.scratch.rz[P.n_layers - 1], P.ld_transposed
    if quadratic:
        epilogue.next.delta, epilogue.next.form = kept(t, y, y.delta).at, t.scratch.e[1]


cdef void backward_fused(Pass *t, char *out, bint add, bint full) noexcept nogil:
    """Run R-backward from the last layer's rdelta to the layer below: compute rdW of the last
    layer, and rdelta and rdb of the layer below.
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
    job.v = V_of(t, y).flat + y.w * size if full else NULL
    job.delta, job.rdelta = kept(t, y, y.delta).at, t.scratch.rz[P.n_layers - 1]
    job.p, job.a, job.phi_pair = kept(t, x, x.p).at, kept(t, x, x.a).at, kept(t, x, x.phi_pair).at
    if full and x.curved and not recomputes_delta(P, P.n_layers - 2):
        job.q = kept(t, x, x.du if x.derived else x.q).at
    job.r = t.scratch.rz[P.n_layers - 2]
    job.ahead = P.ld_transposed * x.m if t.more and x.p != NULL and not short_of_time(t) else 0
    job.out, job.ldout = out + y.w * size, y.k
    job.bias = out + x.b * size if x.b >= 0 else NULL
    P.K.narrow(&job, x.m, whole_lines(P, t.rows))


cdef void unpack_pairs(Pass *t) noexcept nogil:
    """Unpack a and p of the layer that stores them as packed pairs into scratch, unless that is
    done.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[0]
    if not t.pairs_unpacked:
        P.K.unpack_pairs(
            y.phi, y.m * P.ld_transposed, kept(t, y, y.phi_pair).at, t.scratch.a, t.scratch.p
        )
        t.pairs_unpacked = True


cdef void propagate_nan(Pass *t) noexcept nogil:
    """Copy NaN from the last layer's z to its rz, as results would have them without packed pairs.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t i
    cdef char *z = kept(t, y, y.a).at
    cdef char *rz = t.scratch.rz[P.n_layers - 1]
    for i in range(y.m * P.ld_transposed if P.packs_pairs else 0):
        if P.K.real_bytes == 8 and isnan((<double *>z)[i]):
            (<double *>rz)[i] = NAN
        elif P.K.real_bytes == 4 and isnan((<float *>z)[i]):
            (<float *>rz)[i] = NAN


cdef double loss_transposed(
    Pass *t, fc_loss_rows *here, Layer *y, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Compute the loss of a panel's samples from `first` on; `here` points at their arrays."""
    cdef PlanS *P = t.P
    here.ldd = here.ldh = P.ld_transposed
    return P.K.loss_transposed(
        here, rows, y.m, at(P, y.a, t.r0, y.ldm) + first * P.K.real_bytes, P.ld_transposed
    )


cdef void r_loss_transposed(
    Pass *t, fc_loss_rows *here, Layer *y, char *u, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Compute rdelta of some of a panel's samples in place of rz. u: the left factor of a VJP,
    which has all samples at once, (rows, d_out) of the chunk.
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
        r_coupled(P, here, rows, rz, P.ld_transposed)
    else:
        here.ldh = P.ld_transposed
        P.K.r_loss_transposed(here, rows, y.m, rz, P.ld_transposed, rz, P.ld_transposed)


# --- shared plans: operands of sums over samples are packed by rows -------------------------------

cdef enum:
    TRANSPOSE_UNITS = 64        # units of a layer per part of the job
    # numbers that one thread transposes in less time than it takes to wake another
    TRANSPOSE_SERIAL_NUMBERS = 20000


cdef struct TransposeJob:
    Pass *t
    Py_ssize_t units
    char *source
    char *to


cdef void transpose_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef TransposeJob *c = <TransposeJob *>context
    cdef PlanS *P = c.t.P
    cdef Py_ssize_t first = part * TRANSPOSE_UNITS, rows = c.t.rows, size = P.K.real_bytes
    P.K.pack(
        rows, min(<Py_ssize_t>TRANSPOSE_UNITS, c.units - first),
        c.source + first * P.ld_transposed * size,
        1, P.ld_transposed, 0, rows, 0, c.to + first * rows * size
    )


cdef void transpose_packed(Pass *t, Py_ssize_t units, char *source, char *to) noexcept nogil:
    """Pack a matrix (units, samples) as one of shape (samples, units)."""
    cdef TransposeJob c
    c.t, c.units, c.source, c.to = t, units, source, to
    fc_team_run(
        t.P.threads if units * t.rows > TRANSPOSE_SERIAL_NUMBERS else 1,
        (units + TRANSPOSE_UNITS - 1) // TRANSPOSE_UNITS,
        transpose_part, &c
    )


cdef void add_packed_transpose(
    Pass *t, fc_product *job, Py_ssize_t l, Matrix d, char *a
) noexcept nogil:
    """Add a term to a product: d times the input of layer l, as packed, or the padded X for layer
    0.
    """
    cdef PlanS *P = t.P
    cdef fc_term *term = &job.term[job.n_terms]
    job.n_terms += 1
    term.k, term.a, term.a_rs, term.a_cs = t.rows, d.at, P.ld_transposed, 1
    if l:
        term.b, term.b_rs, term.b_vs = a, lanes(P), t.rows * lanes(P)
    else:
        term.b, term.b_rs, term.b_vs = P.data.x, P.data.ldx, lanes(P)


cdef void load_transposed(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
    """Copy a chunk's rows of X into panels (d_in, samples), each padded with its last sample."""
    cdef Py_ssize_t panel, first, n, j, k = P.layer[0].k, size = P.K.real_bytes, end
    cdef Data *D = P.data
    cdef char *to
    cdef char *last
    cdef char *x = D.x if P.shared else D.X + r0 * D.x_rs * size
    cdef Py_ssize_t rs = D.ldx if P.shared else D.x_rs, cs = 1 if P.shared else D.x_cs
    for panel in range(panels_of(P, rows)):
        first = first_of(P, rows, panel)
        n = first_of(P, rows, panel + 1) - first
        to = at(P, P.x, state_of(P, panel), k)
        P.K.copy(k, n, x + first * rs * size, cs, rs, to, P.ld_transposed)
        for j in range(k if n < whole_lines(P, n) else 0):
            last = to + (j * P.ld_transposed + n - 1) * size
            for end in range(1, whole_lines(P, n) - n + 1):
                memcpy(last + end * size, last, size)


cdef void fill_ones(PlanS *P) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(P.ld_transposed):
        if P.K.real_bytes == 8:
            (<double *>P.ones)[i] = 1
        else:
            (<float *>P.ones)[i] = 1
