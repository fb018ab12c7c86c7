# The passes. Notation as at the head of engine.pyx; `y` is the layer at hand, `x` the one below it.

cdef struct Norm:               # of a normalised layer; vectors are (m,), means are over all rows. See batch_norm.pxi
    Py_ssize_t gamma, beta      # where they begin in theta
    char *h                     # (rows, m) z normalised
    char *mean                  # of z
    char *s                     # 1 / sqrt(variance of z + eps)
    char *scale                 # s gamma
    char *du_mean               # mean du, mean (du h)
    char *du_h
    char *rz_mean               # mean rz, mean (rz h)
    char *c
    char *r_scale               # s (vgamma - s c gamma)
    char *rdu_mean              # mean rdu, mean (rdu h + du rh)
    char *rdu_h
    char *zeros
    double *parts               # (blocks of rows, 2, ldm) sums
    double *here                # (2, ldm) of the rows at hand
    double *sums                # (2, ldm) of the rows gathered so far
    double *moments             # (2, ldm) mean and variance of z


cdef struct Layer:
    Py_ssize_t m, k             # width out, width in
    Py_ssize_t ldm, ldk         # leading dimensions of matrices that wide
    Py_ssize_t w, b             # where W and b begin in theta; b < 0: no bias
    fc_activation phi
    bint has_p, curved, skip    # phi' is not 1; phi'' is not 0; the layer's input is added to its output
    bint derived                # e * phi'' (relu: phi') is made from a and delta where it is wanted
    char *wt                    # W' packed: the operand of a W'
    char *wn                    # W packed: the operand of delta W
    char *bias
    char *vt                    # V likewise, one after the other for each vector of a block
    char *vn
    char *vb
    char *a                     # (rows, m) phi(z), in the last layer z
    char *p                     # (rows, m) phi'(z), or NULL
    char *q                     # (rows, m) e * phi''(z), or NULL; between forward and backward phi''(z)
    char *delta                 # (rows, m) dL/dz
    char *du                    # (rows, m) dL/d(what phi is given): delta, unless normalised
    Norm *norm                  # or NULL


cdef struct Bench:              # scratch of whoever takes rows through the layers
    char **ra                   # by layer: (rows, m)
    char **rz                   # by layer: (rows, m); rdelta takes its place on the way back
    char *e[2]                  # (rows, widest): re of this layer and of the one above
    char *sums                  # column sums by blocks of rows
    Py_ssize_t ldsums
    double *totals              # one for each item of a product
    char *gemm                  # the kernels' own


cdef enum Kind:
    HESSIAN, GGN, FISHER, JVP, VJP


cdef enum Stage:                # which of a layer's means over rows are being gathered, where rows come in chunks
    NO_STAGE, MOMENTS, DU_MEANS, RZ_MEANS, RDU_MEANS


cdef struct Data:               # of the objective; strides in numbers
    char *x                     # X padded, or NULL
    Py_ssize_t ldx
    char *X                     # X, y, labels and weight as they are
    Py_ssize_t x_rs, x_cs
    char *y
    Py_ssize_t ldy
    int32_t *labels
    char *weight


cdef struct PlanS:
    const fc_table *K
    Py_ssize_t n_layers, n, N, d_out
    Layer *layer
    Py_ssize_t chunk            # rows whose state is kept at a time
    Py_ssize_t panel, groups    # tall: rows of a panel, groups of panels; panel 0: wide
    Py_ssize_t across           # samples lie across: the leading dimension of every matrix of a panel; 0: they are its rows. See across.pxi
    char *ones                  # across: so many numbers, all 1
    int threads
    bint spare                  # l2 is on the matrices W alone
    char *theta                 # flat, contiguous; held by the plan
    Data *data
    char *x                     # (rows, d_in) of the chunk at hand
    Py_ssize_t ldx
    fc_loss_rows loss           # of the chunk at hand: kind, divisor, targets, and what it keeps
    double *values              # the loss, by blocks of rows
    Py_ssize_t first            # lowest layer that v moves
    char *active                # by layer: whether v moves it
    Py_ssize_t block            # vectors that fit side by side
    Py_ssize_t v_step           # bytes from one vector's packed parts to the next
    char *groups_out            # tall: (groups, block, n padded)
    double *panel_totals        # tall: (panels, block), of quadratic forms
    Py_ssize_t ldg
    Bench wide
    Bench *bench                # tall: by member of the team
    Bench *sides                # the same for the first of some vectors side by side
    Py_ssize_t side_step        # bytes from its scratch to the next one's; 0: no room for that
    Stage stage                 # normalised, in chunks: what is being gathered, in which layer, from how many rows so far
    Py_ssize_t target, seen
    char *v                     # flat, of the vector at hand


cdef struct Pass:               # some rows of the chunk on their way through the layers
    PlanS *P
    Bench *bench
    Py_ssize_t r0, rows         # rows of the chunk; scratch starts at its own row 0
    bint serial
    Py_ssize_t v                # which vector of the block, the first of `count` side by side
    char *flat                  # across: that vector as it came
    Kind kind
    Py_ssize_t count            # more than one: tall, in serial, for products alone; bench is the first vector's
    Py_ssize_t own, out_step    # then bytes from one vector's scratch to the next, and from one result to the next


cdef void decay(PlanS *P, double l2, char *x, char *out) noexcept nogil:
    """out = l2 x, flat vectors, 0 where l2 spares; out may be x."""
    cdef Py_ssize_t l, size = P.K.real_bytes, end
    cdef Layer *y
    if not P.spare:
        P.K.scale(P.n, l2, x, out)
        return
    for l in range(P.n_layers):
        y = &P.layer[l]
        P.K.scale(y.m * y.k, l2, x + y.w * size, out + y.w * size)
        end = P.layer[l + 1].w if l + 1 < P.n_layers else P.n
        memset(out + (y.w + y.m * y.k) * size, 0, (end - y.w - y.m * y.k) * size)


cdef inline char *at(PlanS *P, char *base, Py_ssize_t row, Py_ssize_t ld) noexcept nogil:
    return NULL if base == NULL else base + row * ld * P.K.real_bytes


cdef inline Py_ssize_t lanes(PlanS *P) noexcept nogil:
    return P.K.vector_bytes // P.K.real_bytes


cdef inline Py_ssize_t lead(PlanS *P, Py_ssize_t ld) noexcept nogil:
    """Leading dimension of a matrix of a layer whose rows are ld numbers apart."""
    return P.across if P.across else ld


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


# --- running a product, a sweep: alone or over the team -----------------------------------------------------------------

cdef struct Items:
    const fc_table *K
    fc_product *job
    int round
    Py_ssize_t row_items, col_items
    Bench *bench                # by member


cdef void run_item(void *context, Py_ssize_t item, int member) noexcept nogil:
    cdef Items *c = <Items *>context
    c.K.product(c.job, c.round, item // c.col_items, item % c.col_items, c.bench[member].gemm)


cdef Py_ssize_t run(Pass *t, fc_product *job) noexcept nogil:
    """The product and its step. Returns how many blocks of rows it was cut into: the rows of `sums`."""
    cdef PlanS *P = t.P
    cdef Items items
    cdef int round, rounds = P.K.rounds(job)
    if t.serial:
        job.row_block, job.col_block = job.m, job.n
        for round in range(rounds):
            P.K.product(job, round, 0, 0, t.bench.gemm)
        return 1
    P.K.block(job)
    items.K, items.job, items.bench = P.K, job, P.bench
    items.row_items = (job.m + job.row_block - 1) // job.row_block
    items.col_items = (job.n + job.col_block - 1) // job.col_block
    for round in range(rounds):
        items.round = round
        fc_team_run(P.threads if job.m * job.n * job.term[0].k > 100000 else 1, items.row_items * items.col_items, run_item, &items)
    return items.row_items


cdef double total_of(PlanS *P, Pass *t, fc_product *job) noexcept nogil:
    """The sum of the items' totals, in order."""
    cdef double total = 0
    cdef Py_ssize_t i, items = ((job.m + job.row_block - 1) // job.row_block) * ((job.n + job.col_block - 1) // job.col_block)
    for i in range(items):
        total += t.bench.totals[i]
    return total


cdef struct Blocks:
    Pass *t
    char *out


cdef void run_blocks(Pass *t, fc_part part, Blocks *blocks) noexcept nogil:
    """A sweep over the pass's rows: all at once for a panel, in blocks over the team for a chunk."""
    blocks.t = t
    if t.serial:
        part(blocks, -1, 0)
    else:
        fc_team_run(t.P.threads, (t.rows + BLOCK_ROWS - 1) // BLOCK_ROWS, part, blocks)


cdef void rows_of(Pass *t, Py_ssize_t part, Py_ssize_t *first, Py_ssize_t *rows, Py_ssize_t *block) noexcept nogil:
    """Rows of a block, counted within the pass, and its number among the chunk's."""
    if part < 0:
        first[0], rows[0] = 0, t.rows
        block[0] = t.r0 // t.P.panel
    else:
        first[0] = part * BLOCK_ROWS
        rows[0] = min(<Py_ssize_t>BLOCK_ROWS, t.rows - first[0])
        block[0] = part


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


cdef fc_loss_rows loss_at(PlanS *P, Py_ssize_t row) noexcept nogil:
    """The loss's own arrays from a row of the chunk on."""
    cdef fc_loss_rows here = P.loss
    here.y = at(P, <char *>here.y, row, here.ldy)
    here.weight = at(P, <char *>here.weight, row, 1)
    here.delta = at(P, <char *>here.delta, row, P.layer[P.n_layers - 1].ldm)
    here.h = at(P, <char *>here.h, row, P.layer[P.n_layers - 1].ldm)
    here.s = at(P, <char *>here.s, row, 1)
    if here.labels != NULL:
        here.labels += row
    if here.top != NULL:
        here.top += row
    return here


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
