"""Batch normalisation between the linear part of a hidden layer and its activation, with mean and
variance taken over all rows.

    forward      h = (z - mean z) s         s = 1 / sqrt(var z + eps)
                 u = gamma h + beta         a = phi(u) [+ the layer's input]
    backward     du = e * phi'(u)           dgamma = sum du h      dbeta = sum du
                 delta = s gamma D          D = du - mean du - h mean (du h)
    R-forward    rh = s (rz - mean rz - h c)                       c = mean (rz h)
                 ru = vgamma h + gamma rh + vbeta                  ra = phi' ru [+ skip]
    R-backward   rdu = re * phi' + e * phi'' * ru
                 rdgamma = sum (rdu h + du rh)                     rdbeta = sum rdu
                 rdelta = s (vgamma - s c gamma) D
                        + s gamma (rdu - mean rdu - rh mean (du h) - h mean (rdu h + du rh))
    v'Hv         + sum over units of 2 (vgamma - s c gamma) <du, rh> - s gamma mean (rh rz) <du, h>

The notation is that of passes.pyx; all products of vectors and matrices here are elementwise, and
"mean" and "sum" are over rows. Subtracting mean z cancels b, so the passes omit b, and derivatives
with respect to b are exactly 0. Every mean needs all rows before the next operation on a row, so a
batch-normalised network runs layer-parallel. If `memory=` cuts the rows into chunks, the means are
accumulated first, one layer at a time. Each layer takes a pass over all rows, in which the means of
the layers before it are already known.
"""
from libc.math cimport sqrt
from libc.string cimport memset


cdef double NORM_EPS = 1e-5

BATCH_NORM_EPS = NORM_EPS


cdef inline double get_element(PlanS *P, const char *x, Py_ssize_t j) noexcept nogil:
    """Return element j of a vector x of the plan's dtype as a double."""
    return (<const double *>x)[j] if P.K.real_bytes == 8 else <double>(<const float *>x)[j]


cdef inline void set_element(PlanS *P, char *x, Py_ssize_t j, double value) noexcept nogil:
    """Set element j of a vector x of the plan's dtype."""
    if P.K.real_bytes == 8:
        (<double *>x)[j] = value
    else:
        (<float *>x)[j] = <float>value


cdef inline char *theta_address(PlanS *P, Py_ssize_t start) noexcept nogil:
    """Return the address of the element of theta at offset `start`."""
    return P.theta + start * P.K.real_bytes


cdef inline char *v_address(PlanS *P, Py_ssize_t l, Py_ssize_t start) noexcept nogil:
    """Return the address of the element of v at offset `start`, or of zeros if v is 0 in layer l.
    """
    return P.v + start * P.K.real_bytes if P.active[l] else P.layer[l].norm.zeros


# --- sums and sweeps over the rows of a pass, in blocks, on the thread team -----------------------

cdef struct BatchNormSweeps:         # sweeps of a pass over blocks of its rows, on the thread team
    Pass *t
    Layer *y
    int n_jobs
    fc_norm job[2]              # sweeps, run in this order on each block
    # Epilogue that is then applied to matrix c, unless its kind is FC_EPILOGUE_NONE.
    fc_epilogue epilogue
    char *c


cdef BatchNormSweeps new_batch_norm_sweeps(Pass *t, Layer *y) noexcept nogil:
    """Return an empty list of sweeps over the rows of a pass for layer y."""
    cdef BatchNormSweeps s
    memset(&s, 0, sizeof(s))
    s.t, s.y = t, y
    return s


cdef inline fc_norm *add_sweep(BatchNormSweeps *s, fc_norm_kind kind, char *out) noexcept nogil:
    """Append a sweep of this kind with output `out` to the list. Return its address, at which the
    caller sets the operands.
    """
    cdef fc_norm *job = &s.job[s.n_jobs]
    s.n_jobs += 1
    job.kind, job.h, job.ld, job.out = kind, s.y.norm.h, s.y.ldm, out
    return job


cdef fc_norm sweep_from_row(PlanS *P, const fc_norm *job, Py_ssize_t row) noexcept nogil:
    """Return a copy of a sweep whose matrices are advanced to row `row`."""
    cdef fc_norm here = job[0]
    here.x = row_address(P, <char *>job.x, row, job.ld)
    here.h = row_address(P, <char *>job.h, row, job.ld)
    here.y = row_address(P, <char *>job.y, row, job.ld)
    here.r = row_address(P, <char *>job.r, row, job.ld)
    here.out = row_address(P, <char *>job.out, row, job.ld)
    return here


cdef void compute_batch_norm_sums_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute the sums over one block of rows, as one part of a job of the thread team."""
    cdef BatchNormSweeps *s = <BatchNormSweeps *>context
    cdef PlanS *P = s.t.P
    cdef fc_norm job = sweep_from_row(P, &s.job[0], part * SWEEP_BLOCK_ROWS)
    job.sums, job.ldsums = s.y.norm.parts + part * 2 * s.y.ldm, s.y.ldm
    cdef Py_ssize_t rows = min(<Py_ssize_t>SWEEP_BLOCK_ROWS, s.t.rows - part * SWEEP_BLOCK_ROWS)
    P.K.norm_sums(&job, rows, s.y.m)


cdef void compute_batch_norm_sums(
    Pass *t, Layer *y, const char *x, const char *h, const char *other, const char *r,
    const double *mean
) noexcept nogil:
    """Set norm.here to (sum of x, sum of x h [+ other r]) over the rows of the pass or, with
    `mean`, to the sums of x - mean and of (x - mean)^2. The sums of the blocks are added in order.
    """
    cdef Norm *n = y.norm
    cdef BatchNormSweeps s = new_batch_norm_sweeps(t, y)
    cdef Py_ssize_t blocks = (t.rows + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS, i, j
    s.job[0].x, s.job[0].h, s.job[0].y, s.job[0].r, s.job[0].mean = x, h, other, r, mean
    s.job[0].ld = y.ldm
    fc_team_run(t.P.threads, blocks, compute_batch_norm_sums_part, &s)
    memset(n.here, 0, 2 * y.ldm * sizeof(double))
    for i in range(blocks):
        for j in range(y.m):
            n.here[j] += n.parts[2 * i * y.ldm + j]
            n.here[y.ldm + j] += n.parts[(2 * i + 1) * y.ldm + j]


cdef void run_batch_norm_sweeps_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Run all sweeps and the epilogue on one block of rows, as one part of a job of the thread
    team.
    """
    cdef BatchNormSweeps *s = <BatchNormSweeps *>context
    cdef PlanS *P = s.t.P
    cdef Py_ssize_t first = part * SWEEP_BLOCK_ROWS
    cdef Py_ssize_t rows = min(<Py_ssize_t>SWEEP_BLOCK_ROWS, s.t.rows - part * SWEEP_BLOCK_ROWS)
    cdef fc_norm job
    cdef fc_epilogue epilogue = s.epilogue
    cdef int i
    for i in range(s.n_jobs):
        job = sweep_from_row(P, &s.job[i], first)
        P.K.norm(&job, rows, s.y.m)
    if epilogue.kind != FC_EPILOGUE_NONE:
        epilogue.d = row_address(P, <char *>epilogue.d, first, epilogue.ldd)
        epilogue.p = row_address(P, <char *>epilogue.p, first, epilogue.ldp)
        epilogue.q = row_address(P, <char *>epilogue.q, first, epilogue.ldq)
        epilogue.a = row_address(P, <char *>epilogue.a, first, epilogue.lda)
        epilogue.skip = row_address(P, <char *>epilogue.skip, first, epilogue.ldskip)
        if epilogue.total != NULL:
            epilogue.total += part
        P.K.epilogue(&epilogue, rows, s.y.m, row_address(P, s.c, first, s.y.ldm), s.y.ldm)


cdef void run_batch_norm_sweeps(BatchNormSweeps *s) noexcept nogil:
    """Run all sweeps and the epilogue on the rows of the pass."""
    fc_team_run(
        s.t.P.threads, (s.t.rows + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS,
        run_batch_norm_sweeps_part, s
    )


# --- means over all rows --------------------------------------------------------------------------

cdef bint add_to_rows_seen(Pass *t) noexcept nogil:
    """Add the rows of the pass to the count P.seen. Return True if all N rows have been counted."""
    cdef PlanS *P = t.P
    P.seen += t.rows
    if P.seen < P.N:
        return False
    P.seen = 0
    return True


cdef bint accumulate_moments(Pass *t, Layer *y) noexcept nogil:
    """Update mean and variance of z with the rows of the chunk. The chunk's moments are centred at
    its own mean and merged with those of earlier chunks (Chan, Golub and LeVeque 1979). Return True
    if the pass may continue, which requires all rows in one chunk.
    """
    cdef PlanS *P = t.P
    cdef Norm *n = y.norm
    cdef Py_ssize_t j, before = P.seen
    cdef double mean, square, gap, s, rows = <double>t.rows, total = <double>(before + t.rows)
    cdef double *means = n.moments
    cdef double *squares = n.moments + y.ldm
    compute_batch_norm_sums(t, y, n.h, NULL, NULL, NULL, NULL)
    for j in range(y.m):
        n.sums[j] = n.here[j] / rows
    compute_batch_norm_sums(t, y, n.h, NULL, NULL, NULL, n.sums)
    for j in range(y.m):
        mean = n.sums[j] + n.here[j] / rows
        square = n.here[y.ldm + j] - n.here[j] * (n.here[j] / rows)
        gap = mean - means[j] if before else 0
        means[j] = means[j] + gap * (rows / total) if before else mean
        squares[j] = (squares[j] if before else 0) + square + gap * gap * (
            <double>before * rows / total
        )
    if not add_to_rows_seen(t):
        return False
    for j in range(y.m):
        squares[j] /= <double>P.N
        s = 1 / sqrt(squares[j] + NORM_EPS)
        set_element(P, n.mean, j, means[j])
        set_element(P, n.s, j, s)
        set_element(P, n.scale, j, s * get_element(P, theta_address(P, n.gamma), j))
    return not accumulates_by_layer(P)


cdef bint accumulate_means(Pass *t, Py_ssize_t l, Stage stage) noexcept nogil:
    """Update the two means of `stage` for layer l with the sums over the rows of the chunk. Return
    True if the pass may continue, which requires all rows in one chunk.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef Py_ssize_t j, before = P.seen
    cdef double first, second, s
    for j in range(2 * y.ldm):
        n.sums[j] = (n.sums[j] if before else 0) + n.here[j]
    if not add_to_rows_seen(t):
        return False
    for j in range(y.m):
        first, second = n.sums[j] / <double>P.N, n.sums[y.ldm + j] / <double>P.N
        if stage == DU_MEANS:
            set_element(P, n.du_mean, j, first)
            set_element(P, n.du_h, j, second)
        elif stage == RDU_MEANS:
            set_element(P, n.rdu_mean, j, first)
            set_element(P, n.rdu_h, j, second)
        else:
            s = get_element(P, n.s, j)
            set_element(P, n.rz_mean, j, first)
            set_element(P, n.c, j, second)
            set_element(
                P, n.r_scale, j,
                s * (
                    get_element(P, v_address(P, l, n.gamma), j)
                    - s * second * get_element(P, theta_address(P, n.gamma), j)
                )
            )
    return not accumulates_by_layer(P)


cdef void write_batch_norm_sums(Pass *t, Layer *y, char *out, bint add) noexcept nogil:
    """Set the beta part of out to [out +] the first and the gamma part to [out +] the second row of
    the sums in norm.here.
    """
    cdef PlanS *P = t.P
    cdef Norm *n = y.norm
    cdef Py_ssize_t j
    cdef char *gamma = out + n.gamma * P.K.real_bytes
    cdef char *beta = out + n.beta * P.K.real_bytes
    for j in range(y.m):
        set_element(P, gamma, j, n.here[y.ldm + j] + (get_element(P, gamma, j) if add else 0))
        set_element(P, beta, j, n.here[j] + (get_element(P, beta, j) if add else 0))


# --- the passes of a batch-normalised layer -------------------------------------------------------

cdef Py_ssize_t run_batch_norm_forward(Pass *t, Py_ssize_t l, fc_product *job) noexcept nogil:
    """Run the forward pass of layer l: h = (z - mean) s; u = gamma h + beta; a = phi(u) [+ the
    layer's input]. Return 0, or -1 if means over further chunks are needed first.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef BatchNormSweeps s = new_batch_norm_sweeps(t, y)
    cdef fc_norm *sweep
    s.epilogue, s.c = job.epilogue, y.a
    s.epilogue.u = NULL
    memset(&job.epilogue, 0, sizeof(job.epilogue))
    job.c = n.h
    run_product(t, job)
    if computes_means(P, MOMENTS, l) and not accumulate_moments(t, y):
        return -1
    sweep = add_sweep(&s, FC_NORM_SCALE, n.h)
    sweep.k, sweep.x, sweep.m1 = n.s, n.h, n.mean
    sweep = add_sweep(&s, FC_NORM_SHIFT, y.a)
    sweep.k, sweep.m1 = theta_address(P, n.gamma), theta_address(P, n.beta)
    run_batch_norm_sweeps(&s)
    return 0


cdef Py_ssize_t run_batch_norm_backward(
    Pass *t, Py_ssize_t l, fc_product *job, char *out, bint add
) noexcept nogil:
    """Run the backward pass of layer l: du = e phi'; dgamma = sum du h; dbeta = sum du; delta = s
    gamma (du - mean du - h mean (du h)). Return -1 if means over further chunks are needed first.
    Otherwise return 0, the number of blocks of column sums for b, because the derivative with
    respect to b is 0.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef BatchNormSweeps s = new_batch_norm_sweeps(t, y)
    cdef fc_norm *sweep
    cdef bint gathering = computes_means(P, DU_MEANS, l)
    run_product(t, job)
    if gathering or out != NULL:
        compute_batch_norm_sums(t, y, y.du, n.h, NULL, NULL, NULL)
    if out != NULL:
        write_batch_norm_sums(t, y, out, add)
    if gathering and not accumulate_means(t, l, DU_MEANS):
        return -1
    sweep = add_sweep(&s, FC_NORM_CENTRE, y.delta)
    sweep.k, sweep.x, sweep.m1, sweep.m2 = n.scale, y.du, n.du_mean, n.du_h
    run_batch_norm_sweeps(&s)
    return 0


cdef void add_ru_sweep(Pass *t, Py_ssize_t l, BatchNormSweeps *s, char *out) noexcept nogil:
    """Add a sweep that computes ru = vgamma h + gamma rh + vbeta for layer l into `out`."""
    cdef PlanS *P = t.P
    cdef Norm *n = P.layer[l].norm
    cdef fc_norm *sweep = add_sweep(s, FC_NORM_R_SHIFT, out)
    sweep.k, sweep.k1 = v_address(P, l, n.gamma), theta_address(P, n.gamma)
    sweep.r = t.scratch.rz[l]
    sweep.m1 = v_address(P, l, n.beta)


cdef Py_ssize_t run_batch_norm_r_forward(Pass *t, Py_ssize_t l, fc_product *job) noexcept nogil:
    """Run R-forward of layer l: rh = s (rz - mean rz - h c), in place of rz; ra = phi' ru [+ the
    input's ra]. The return value is that of run_batch_norm_forward.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef BatchNormSweeps s = new_batch_norm_sweeps(t, y)
    cdef fc_norm *sweep
    cdef char *rz = t.scratch.rz[l]
    # The epilogue's total reads ru after ra has been written, so ru needs a separate matrix.
    s.epilogue = job.epilogue
    s.c = t.scratch.e[0] if job.epilogue.total != NULL else t.scratch.ra[l]
    s.epilogue.u = NULL
    memset(&job.epilogue, 0, sizeof(job.epilogue))
    run_product(t, job)
    if computes_means(P, RZ_MEANS, l):
        compute_batch_norm_sums(t, y, rz, n.h, NULL, NULL, NULL)
        if not accumulate_means(t, l, RZ_MEANS):
            return -1
    sweep = add_sweep(&s, FC_NORM_CENTRE, rz)
    sweep.k, sweep.x, sweep.m1, sweep.m2 = n.s, rz, n.rz_mean, n.c
    add_ru_sweep(t, l, &s, s.c)
    run_batch_norm_sweeps(&s)
    # The sweep has computed one total per block of SWEEP_BLOCK_ROWS rows, and `sum_item_totals`
    # adds as many totals as the job has items.
    job.row_block, job.col_block = SWEEP_BLOCK_ROWS, job.n
    return 0


cdef double batch_norm_quadratic_term(Pass *t, Py_ssize_t l) noexcept nogil:
    """Return the term of batch normalisation in the quadratic form, for layer l over the rows of
    the pass. It is the sum over units of 2 (vgamma - s c gamma) <du, rh> - s gamma mean (rh rz)
    <du, h>.

    The computation uses <rh, rz> = <rh, rh> / s + c <rh, h> and, over all rows, mean (rh h) = s c
    (1 - mean (h h)) = s c (eps s s).
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef char *rh = t.scratch.rz[l]
    cdef double total = 0, s, c, dot
    cdef Py_ssize_t j
    compute_batch_norm_sums(t, y, rh, rh, NULL, NULL, NULL)
    for j in range(y.m):
        s, c = 1 / sqrt(n.moments[y.ldm + j] + NORM_EPS), get_element(P, n.c, j)
        dot = n.here[y.ldm + j] / s + <double>t.rows * c * c * s * (NORM_EPS * s * s)
        total -= get_element(P, n.scale, j) * get_element(P, n.du_h, j) * dot
    compute_batch_norm_sums(t, y, rh, y.du, NULL, NULL, NULL)
    for j in range(y.m):
        total += 2 * get_element(P, n.r_scale, j) / get_element(P, n.s, j) * n.here[y.ldm + j]
    return total


cdef Py_ssize_t run_batch_norm_r_backward(
    Pass *t, Py_ssize_t l, fc_product *job, char *out, bint add
) noexcept nogil:
    """Run R-backward of layer l: rdu = re phi' + (e phi'') ru; rdgamma = sum (rdu h + du rh);
    rdbeta = sum rdu; rdelta in place of rh. The module docstring has the equation for rdelta.
    Operators other than the Hessian use only the terms in rdu. The return value is that of
    run_batch_norm_backward.
    """
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l]
    cdef Norm *n = y.norm
    cdef bint full = t.kind == HESSIAN, gathering = computes_means(P, RDU_MEANS, l)
    cdef BatchNormSweeps s = new_batch_norm_sweeps(t, y)
    cdef fc_norm *sweep
    cdef char *rh = t.scratch.rz[l]
    cdef char *rdu = t.scratch.ra[l]
    if full and y.curved:
        add_ru_sweep(t, l, &s, rdu)
        run_batch_norm_sweeps(&s)
        s.n_jobs = 0
        job.epilogue.r = rdu
    job.epilogue.d = rdu
    run_product(t, job)
    if gathering or (out != NULL and P.active[l]):
        compute_batch_norm_sums(t, y, rdu, n.h, y.du if full else NULL, rh, NULL)
    if out != NULL and P.active[l]:
        write_batch_norm_sums(t, y, out, add)
    if gathering and not accumulate_means(t, l, RDU_MEANS):
        return -1
    sweep = add_sweep(&s, FC_NORM_R_CENTRE if full else FC_NORM_CENTRE, rh)
    sweep.k, sweep.x = n.scale, rdu
    if full:
        sweep.k1, sweep.y, sweep.m1, sweep.m2 = n.r_scale, y.du, n.du_mean, n.du_h
        sweep.r, sweep.n1, sweep.n2 = rh, n.rdu_mean, n.rdu_h
    else:
        sweep.m1, sweep.m2 = n.rdu_mean, n.rdu_h
    run_batch_norm_sweeps(&s)
    return 0
