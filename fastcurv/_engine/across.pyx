# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""Samples across: where a tall plan's layers are narrow, a panel keeps its matrices (units,
samples), and vectors hold a unit's numbers of some samples. No lane is empty whatever the widths,
and W and V are read from flat vectors: nothing is packed. The passes are the same text; what
differs is in here, and in `lead` of state.pxd, `start` and `add_...` of products.pxd.

A panel's samples are padded to whole lines with copies of its last one, whose delta and second
derivatives of the loss are 0: every sum over samples counts them as nothing.
"""
from libc.string cimport memcpy, memset

from .kernels cimport (
    BLOCK_ROWS,
    FC_IDENTITY,
    FC_STEP_DOT,
    fc_narrow,
    fc_product,
    fc_step,
)
from .products cimport add_outer, bias_of, remakes, run, start_sum
from .state cimport (
    FISHER, VJP, Data, V_of, Weights, at, first_of, kept, loss_at, narrow_last, panels_of,
    state_of, whole_lines
)


cdef void bias_across(Pass *t, Layer *y, Matrix d, char *out, bint add) noexcept nogil:
    """The b part of out = [it +] sums over samples of d (units, samples): d times ones."""
    cdef fc_product job
    cdef Matrix ones
    if y.b < 0:
        return
    start_sum(y, &job, add)
    job.n = 1
    ones.at, ones.ld = t.P.ones, 0
    add_outer(t, &job, d, ones)
    job.c, job.ldc = out + y.b * t.P.K.real_bytes, 1
    run(t, &job)


cdef bint narrow_top(Pass *t) noexcept nogil:
    """Whether the last layer has so few units that its products go with the sweeps of the layer
    below it.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t top = P.n_layers - 1
    if not P.across or P.first >= top or not (P.active[top] and P.active[top - 1]):
        return False
    return narrow_last(&P.layer[top])


cdef void onward_across(Pass *t, fc_step *step) noexcept nogil:
    """The step on the layer below the last gives the last one's rz."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Weights V = V_of(t, y)
    cdef Matrix a = kept(t, y - 1, (y - 1).a)
    step.a, step.lda = a.at, a.ld
    step.next.rank, step.next.units, step.next.w_ts = y.m, y.k, y.k
    step.next.w, step.next.v = y.W.flat + y.w * size, V.flat + y.w * size
    step.next.u = bias_of(P, y, V)
    step.next.out, step.next.ldout = t.scratch.rz[P.n_layers - 1], P.across


cdef void back_across(Pass *t, char *out, bint add, bint full) noexcept nogil:
    """R-backward from the last layer's rdelta to the one below it: rdW, and below rdelta and
    rdb.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Layer *x = y - 1
    cdef Py_ssize_t size = P.K.real_bytes
    cdef fc_narrow job
    memset(&job, 0, sizeof(job))
    job.phi = x.phi if x.derived else FC_IDENTITY
    job.rank, job.add, job.w_ts, job.ldt, job.ld = y.m, add, y.k, P.across, P.across
    job.w = y.W.flat + y.w * size
    job.v = V_of(t, y).flat + y.w * size if full else NULL
    job.delta, job.rdelta = kept(t, y, y.delta).at, t.scratch.rz[P.n_layers - 1]
    job.p, job.a = kept(t, x, x.p).at, kept(t, x, x.a).at
    if full and x.curved and not remakes(P, P.n_layers - 2):
        job.q = kept(t, x, x.du if x.derived else x.q).at
    job.ra, job.r = t.scratch.ra[P.n_layers - 2], t.scratch.rz[P.n_layers - 2]
    job.out, job.ldout = out + y.w * size, y.k
    job.bias = out + x.b * size if x.b >= 0 else NULL
    P.K.narrow(&job, x.m, whole_lines(P, t.rows))


cdef double loss_across(Pass *t, fc_loss_rows *here, Layer *y) noexcept nogil:
    """The loss of a panel."""
    cdef PlanS *P = t.P
    here.ldd = here.ldh = P.across
    return P.K.loss_across(here, t.rows, y.m, at(P, y.a, t.r0, y.ldm), P.across)


cdef void r_loss_across(Pass *t, fc_loss_rows *here, Layer *y, char *u) noexcept nogil:
    """rdelta of a panel in rz's place; u: of a VJP, (rows, d_out) of the chunk."""
    cdef PlanS *P = t.P
    cdef char *rz = t.scratch.rz[P.n_layers - 1]
    if t.kind == FISHER:
        P.K.r_fisher_across(
            <double>P.N, t.rows, y.m, here.delta, P.across, rz, P.across, rz, P.across
        )
    elif t.kind == VJP:
        P.K.copy(y.m, t.rows, u + t.s0 * y.m * P.K.real_bytes, 1, y.m, rz, P.across)
    else:
        here.ldh = P.across
        P.K.r_loss_across(here, t.rows, y.m, rz, P.across, rz, P.across)


cdef double top_across(Pass *t, Layer *y) noexcept nogil:
    """<rz, (d2 loss / dz2) rz> of a panel, in blocks of samples. rz is spent."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t first = 0, size = P.K.real_bytes
    cdef fc_loss_rows here = loss_at(t, 0)
    cdef char *rz = t.scratch.rz[P.n_layers - 1]
    cdef fc_step step
    cdef double total = 0, part = 0
    memcpy(t.scratch.e[0], rz, y.m * P.across * size)
    r_loss_across(t, &here, y, NULL)
    memset(&step, 0, sizeof(step))
    step.kind, step.total, step.ldp = FC_STEP_DOT, &part, P.across
    while first < t.rows:
        step.p = t.scratch.e[0] + first * size
        P.K.step(
            &step, y.m, min(<Py_ssize_t>BLOCK_ROWS, t.rows - first), rz + first * size, P.across
        )
        total += part
        first += BLOCK_ROWS
    return total


cdef void load_across(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
    """A chunk's rows of X into panels (d_in, samples), each padded with its last sample."""
    cdef Py_ssize_t panel, first, n, j, k = P.layer[0].k, size = P.K.real_bytes, end
    cdef Data *D = P.data
    cdef char *to
    cdef char *last
    for panel in range(panels_of(P, rows)):
        first = first_of(P, rows, panel)
        n = first_of(P, rows, panel + 1) - first
        to = at(P, P.x, state_of(P, panel), k)
        P.K.copy(k, n, D.X + (r0 + first) * D.x_rs * size, D.x_cs, D.x_rs, to, P.across)
        for j in range(k if n < whole_lines(P, n) else 0):
            last = to + (j * P.across + n - 1) * size
            for end in range(1, whole_lines(P, n) - n + 1):
                memcpy(last + end * size, last, size)


cdef void outputs_across(PlanS *P, Py_ssize_t r0, char *out) noexcept nogil:
    """The net's outputs for the chunk at hand into out (N, d_out), a panel at a time."""
    cdef Py_ssize_t panel, first, rows = min(P.chunk, P.N - r0), size = P.K.real_bytes
    cdef Layer *y = &P.layer[P.n_layers - 1]
    for panel in range(panels_of(P, rows)):
        first = first_of(P, rows, panel)
        P.K.columns(
            y.m, first_of(P, rows, panel + 1) - first, at(P, y.a, state_of(P, panel), y.ldm),
            P.across, 1, 0, y.m, out + (r0 + first) * y.m * size, y.m
        )


cdef void fill_ones(PlanS *P) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(P.across):
        if P.K.real_bytes == 8:
            (<double *>P.ones)[i] = 1
        else:
            (<float *>P.ones)[i] = 1
