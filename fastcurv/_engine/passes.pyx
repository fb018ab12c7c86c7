# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The passes of Pearlmutter's R-operator over a table of kernels.

    forward      z = a W' + b                     a = phi(z)             [+ the layer's input, if residual]
    backward     e_below = delta W  [+ e]         delta = e * phi'(z)    dW = delta' a_below     db = sum of delta's rows
    R-forward    rz = ra W' + a V' + vb           ra = phi'(z) * rz      [+ the input's ra]
    loss         rdelta = (d2 loss / dz2) rz      in the last layer
    R-backward   rdW = rdelta' a + delta' ra      rdb = sum of rdelta's rows
                 re_below = rdelta W + delta V [+ re]      rdelta = re * phi'(z) + e * phi''(z) * rz

Design notes

A. One text for both dtypes: the passes move byte pointers and never look at a number; the table of the dtype does.
B. A plan owns one block of memory, laid out once. `lay_out` walks it twice: to measure it, and to hand out the pieces.
C. Rows come in chunks (what `memory=` lets us keep the state of), and a chunk is served in one of two ways. Tall: panels of
   rows small enough for the second-level cache, each taken through all layers by one thread, sums kept per group of panels.
   Wide: the whole chunk layer by layer, every product cut into items over all threads.
D. Fixed at theta and kept: W packed both ways, a, phi', e * phi'', delta, and what the loss needs. Fixed at v: V packed both
   ways. Everything else is scratch.
E. No result depends on the number of threads: items and groups are cut by sizes alone, sums are added in a fixed order.
"""
from libc.string cimport memset

from .across cimport bias_across, loss_across, r_loss_across, top_across
from .batch_norm cimport norm_backward, norm_curvature, norm_forward, norm_r_backward, norm_r_forward
from .kernels cimport (
    BLOCK_ROWS,
    FC_IDENTITY,
    FC_STEP_ACTIVATE,
    FC_STEP_BACKWARD,
    FC_STEP_DOT,
    FC_STEP_R_ACTIVATE,
    FC_STEP_R_BACKWARD,
    fc_loss_rows,
    fc_product,
    fc_stack,
    fc_step,
)
from .products cimport (
    Blocks,
    add_back,
    add_bends,
    add_onward,
    add_outer,
    bias_of,
    rows_of,
    run,
    run_blocks,
    run_stack,
    set_shape,
    total_of,
)
from .state cimport FISHER, HESSIAN, VJP, Layer, PlanS, at, lead, loss_at


# --- at theta -------------------------------------------------------------------------------------------------------------

cdef void forward(Pass *t) noexcept nogil:
    """z = a W' + b;  a = phi(z) [+ the layer's input]; phi' and phi'' are kept."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, ldx = P.ldx
    cdef char *below = at(P, P.x, t.r0, P.ldx)
    cdef Layer *y
    cdef fc_product job
    cdef Blocks blocks
    for l in range(P.n_layers):
        y = &P.layer[l]
        memset(&job, 0, sizeof(job))
        set_shape(t, &job, y.m)
        add_onward(P, &job, y, below, ldx, y.wt, P.theta)
        job.step.kind, job.step.phi, job.step.u = FC_STEP_ACTIVATE, y.phi, bias_of(P, y, y.bias, P.theta)
        job.step.d, job.step.ldd = at(P, y.a, t.r0, y.ldm), lead(P, y.ldm)
        job.step.p, job.step.ldp = at(P, y.p, t.r0, y.ldm), lead(P, y.ldm)
        job.step.q, job.step.ldq = at(P, y.q, t.r0, y.ldm), lead(P, y.ldm)
        job.step.skip, job.step.ldskip = below if y.skip else NULL, lead(P, ldx)
        job.c, job.ldc = job.step.p if y.p != NULL else job.step.d, lead(P, y.ldm)
        if (run(t, &job) if y.norm == NULL else norm_forward(t, l, &job)) < 0:
            return
        below, ldx = at(P, y.a, t.r0, y.ldm), y.ldm
    run_blocks(t, loss_block, &blocks)


cdef void loss_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Pass *t = (<Blocks *>context).t
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef fc_loss_rows here
    cdef Py_ssize_t first, rows, block
    rows_of(t, part, &first, &rows, &block)
    here = loss_at(P, t.r0 + first)
    if P.across:
        P.values[block] = loss_across(t, &here, y)
    else:
        P.values[block] = P.K.loss(&here, rows, y.m, at(P, y.a, t.r0 + first, y.ldm), y.ldm)


cdef void delta_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Pass *t = (<Blocks *>context).t
    cdef Layer *y = &t.P.layer[t.P.n_layers - 1]
    cdef Py_ssize_t first, rows, block
    rows_of(t, part, &first, &rows, &block)
    column_sums(t, block if part >= 0 else 0, rows, y, at(t.P, y.delta, t.r0 + first, y.ldm), 0)


cdef void column_sums(Pass *t, Py_ssize_t block, Py_ssize_t rows, Layer *y, char *d, Py_ssize_t shift) noexcept nogil:
    """Row `block` of the pass's sums, `shift` bytes on: the column sums of d (rows, m)."""
    cdef fc_step step
    if t.P.across:                          # see bias_across
        return
    memset(&step, 0, sizeof(step))
    step.kind, step.d, step.ldd = FC_STEP_R_BACKWARD, d, y.ldm
    step.sums = t.bench.sums + shift + block * t.bench.ldsums * t.P.K.real_bytes
    t.P.K.step(&step, rows, y.m, d, y.ldm)


cdef void put_bias(Pass *t, Layer *y, char *d, Py_ssize_t blocks, char *out, bint add) noexcept nogil:
    """The b part of each out = [it +] the sum over blocks of d's rows."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t x
    if P.across:
        bias_across(t, y, d, out, add)
        return
    for x in range(t.count if y.b >= 0 else 0):
        P.K.add_parts(y.m, blocks, t.bench.sums + x * t.own, t.bench.ldsums, add, out + x * t.out_step + y.b * P.K.real_bytes)


cdef inline Py_ssize_t loss_blocks(Pass *t) noexcept nogil:
    return 1 if t.serial else (t.rows + BLOCK_ROWS - 1) // BLOCK_ROWS


cdef void backward(Pass *t, char *out, bint add) noexcept nogil:
    """dW = delta' a_below;  db = sum of delta's rows;  e_below = delta W [+ e];  delta = e * phi';  e * phi'' is kept.
    out NULL: delta and e * phi'' only."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, blocks = loss_blocks(t)
    cdef int size = P.K.real_bytes
    cdef Layer *x
    cdef Layer *y
    cdef fc_product job
    cdef Blocks sweep
    if out != NULL:
        run_blocks(t, delta_block, &sweep)
    for l in range(P.n_layers - 1, -1, -1):
        y = &P.layer[l]
        x = &P.layer[l - 1] if l else NULL
        if out != NULL:
            put_bias(t, y, at(P, y.delta, t.r0, y.ldm), blocks, out, add)
            memset(&job, 0, sizeof(job))
            job.m, job.n, job.exact, job.accumulate = y.m, y.k, True, add
            add_outer(t, &job, at(P, y.delta, t.r0, y.ldm), y.ldm, at(P, x.a if l else P.x, t.r0, y.ldk), y.ldk)
            job.c, job.ldc = out + y.w * size, y.k
            run(t, &job)
        if l == 0:
            break
        memset(&job, 0, sizeof(job))
        set_shape(t, &job, y.k)
        add_back(P, &job, y, at(P, y.delta, t.r0, y.ldm), y.wn, P.theta)
        job.c, job.ldc = t.bench.e[l & 1], lead(P, x.ldm)
        job.step.kind = FC_STEP_BACKWARD
        job.step.d, job.step.ldd = at(P, x.du, t.r0, x.ldm), lead(P, x.ldm)
        add_bends(P, &job.step, x, t.r0, not x.derived)
        job.step.skip, job.step.ldskip = t.bench.e[(l + 1) & 1] if y.skip else NULL, lead(P, y.ldm)
        job.step.sums, job.step.ldsums = NULL if P.across else t.bench.sums, t.bench.ldsums
        blocks = run(t, &job) if x.norm == NULL else norm_backward(t, l - 1, &job, out, add)
        if blocks < 0:
            return


# --- along v ---------------------------------------------------------------------------------------------------------------

cdef double r_forward(Pass *t, bint quadratic) noexcept nogil:
    """rz = ra W' + a V' + vb;  ra = phi' * rz [+ the input's ra].  Returns <e * phi'' * rz, rz> where it is wanted."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, ldx = P.ldx, size = P.K.real_bytes
    cdef char *below = at(P, P.x, t.r0, P.ldx)
    cdef char *r_below = NULL
    cdef Layer *y
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    cdef double curvature = 0
    for l in range(P.n_layers):
        y = &P.layer[l]
        if l >= P.first:
            memset(&stack, 0, sizeof(stack))
            set_shape(t, job, y.m)
            if r_below != NULL:
                stack.a[job.n_terms] = t.own // size
                add_onward(P, job, y, r_below, ldx, y.wt, P.theta)
            if P.active[l]:
                stack.b[job.n_terms] = P.v_step // size
                add_onward(P, job, y, below, ldx, y.vt + t.v * P.v_step, t.flat)
            job.step.kind = FC_STEP_R_ACTIVATE
            job.step.u = bias_of(P, y, y.vb + t.v * P.v_step, t.flat) if P.active[l] else NULL
            stack.u, stack.c = P.v_step // size, t.own // size
            job.step.d, job.step.ldd = t.bench.ra[l], lead(P, y.ldm)
            add_bends(P, &job.step, y, t.r0, quadratic)
            job.step.skip, job.step.ldskip = r_below if y.skip else NULL, lead(P, ldx)
            job.c, job.ldc = t.bench.rz[l], lead(P, y.ldm)
            if quadratic and y.curved:
                job.step.total = t.bench.totals
            if (run_stack(t, &stack) if y.norm == NULL else norm_r_forward(t, l, job)) < 0:
                return curvature
            if quadratic and y.curved:
                curvature += total_of(P, t, job)
            if quadratic and y.norm != NULL:
                curvature += norm_curvature(t, l)
            r_below = t.bench.ra[l]
        below, ldx = at(P, y.a, t.r0, y.ldm), y.ldm
    return curvature


cdef void r_loss_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    """rdelta = (d2 loss / dz2) rz, in rz's place; or what stands there instead for the other operators."""
    cdef Blocks *c = <Blocks *>context
    cdef Pass *t = c.t
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t first, rows, block, x, ld = y.ldm
    rows_of(t, part, &first, &rows, &block)
    cdef fc_loss_rows here = loss_at(P, t.r0 + first)
    cdef char *rz
    if P.across:
        r_loss_across(t, &here, y, c.out)
        return
    for x in range(t.count):
        rz = at(P, t.bench.rz[P.n_layers - 1], first, ld) + x * t.own
        if t.kind == FISHER:
            P.K.r_fisher(<double>P.N, rows, y.m, here.delta, here.ldd, rz, ld, rz, ld)
        elif t.kind == VJP:
            P.K.copy(rows, y.m, c.out + (t.r0 + first) * y.m * P.K.real_bytes, y.m, 1, rz, ld)
        else:
            P.K.r_loss(&here, rows, y.m, rz, ld, rz, ld)
        column_sums(t, block if part >= 0 else 0, rows, y, rz, x * t.own)


cdef void r_loss(Pass *t, char *u) noexcept nogil:
    cdef Blocks blocks
    blocks.out = u
    run_blocks(t, r_loss_block, &blocks)


cdef void r_backward(Pass *t, char *out, bint add) noexcept nogil:
    """rdW = rdelta' a_below + delta' ra_below;  rdb = sum of rdelta's rows;
    re_below = rdelta W + delta V [+ re];  rdelta = re * phi' + (e * phi'') * rz.   Not for the Hessian: the first terms only."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, blocks = loss_blocks(t)
    cdef bint full = t.kind == HESSIAN
    cdef int size = P.K.real_bytes
    cdef Layer *x
    cdef Layer *y
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    for l in range(P.n_layers - 1, P.first - 1, -1):
        y = &P.layer[l]
        x = &P.layer[l - 1] if l else NULL
        if P.active[l] and out != NULL:
            put_bias(t, y, t.bench.rz[l], blocks, out, add)
            memset(&stack, 0, sizeof(stack))
            job.m, job.n, job.exact, job.accumulate = y.m, y.k, True, add
            stack.a[0] = t.own // size
            add_outer(t, job, t.bench.rz[l], y.ldm, at(P, x.a if l else P.x, t.r0, y.ldk), y.ldk)
            if full and l > P.first:
                stack.b[1] = t.own // size
                add_outer(t, job, at(P, y.delta, t.r0, y.ldm), y.ldm, t.bench.ra[l - 1], y.ldk)
            job.c, job.ldc, stack.c = out + y.w * size, y.k, t.out_step // size
            run_stack(t, &stack)
        if l == P.first:
            break
        memset(&stack, 0, sizeof(stack))
        set_shape(t, job, y.k)
        stack.a[0] = t.own // size
        add_back(P, job, y, t.bench.rz[l], y.wn, P.theta)
        if full and P.active[l]:
            stack.b[1] = P.v_step // size
            add_back(P, job, y, at(P, y.delta, t.r0, y.ldm), y.vn + t.v * P.v_step, t.flat)
        job.c, job.ldc, stack.c = t.bench.e[l & 1], lead(P, x.ldm), t.own // size
        job.step.kind = FC_STEP_R_BACKWARD
        job.step.d, job.step.ldd = t.bench.rz[l - 1], lead(P, x.ldm)
        add_bends(P, &job.step, x, t.r0, full)
        if full and x.curved:
            job.step.r, job.step.ldr = t.bench.rz[l - 1], lead(P, x.ldm)
        job.step.skip, job.step.ldskip = t.bench.e[(l + 1) & 1] if y.skip else NULL, lead(P, y.ldm)
        job.step.sums, job.step.ldsums = NULL if P.across else t.bench.sums, t.bench.ldsums
        blocks = run_stack(t, &stack) if x.norm == NULL else norm_r_backward(t, l - 1, job, out, add)
        if blocks < 0:
            return


cdef double r_dots(Pass *t) noexcept nogil:
    """sum over layers of 2 <delta, ra_below V'>, after R-forward."""
    cdef PlanS *P = t.P
    cdef double total = 0
    cdef Py_ssize_t l
    cdef Layer *y
    cdef fc_product job
    for l in range(P.first + 1, P.n_layers):
        y = &P.layer[l]
        if not P.active[l]:
            continue
        memset(&job, 0, sizeof(job))
        set_shape(t, &job, y.m)
        add_onward(P, &job, y, t.bench.ra[l - 1], y.ldk, y.vt + t.v * P.v_step, t.flat)
        job.c, job.ldc = t.bench.e[0], lead(P, y.ldm)
        job.step.kind, job.step.total = FC_STEP_DOT, t.bench.totals
        job.step.p, job.step.ldp = at(P, y.delta, t.r0, y.ldm), lead(P, y.ldm)
        run(t, &job)
        total += 2 * total_of(P, t, &job)
    return total


cdef double top_dot(Pass *t) noexcept nogil:
    """<rz, (d2 loss / dz2) rz> of the last layer, in blocks of rows as the loss. rz is spent."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t first
    cdef fc_step step
    cdef double total = 0, part = 0
    cdef Blocks blocks
    if P.across:
        return top_across(t, y)
    P.K.copy(t.rows, y.m, t.bench.rz[P.n_layers - 1], y.ldm, 1, t.bench.e[0], y.ldm)
    blocks.out = NULL
    run_blocks(t, r_loss_block, &blocks)
    memset(&step, 0, sizeof(step))
    step.kind, step.total, step.ldp = FC_STEP_DOT, &part, y.ldm
    first = 0
    while first < t.rows:
        step.p = at(P, t.bench.e[0], first, y.ldm)
        P.K.step(&step, min(<Py_ssize_t>BLOCK_ROWS, t.rows - first), y.m, at(P, t.bench.rz[P.n_layers - 1], first, y.ldm), y.ldm)
        total += part
        first += BLOCK_ROWS
    return total
