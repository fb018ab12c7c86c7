# Tall: a few vectors of a block side by side. The passes of passes.pxi for a panel that one thread takes through all layers; what
# theta decides is read once for all of them, and narrow products fill their tiles. The same bits as one after the other.

cdef struct Side:
    Pass *t                     # its bench is the first vector's
    Py_ssize_t count
    Py_ssize_t own              # bytes from one vector's scratch to the next
    Py_ssize_t out_step         # and from one result to the next


cdef void run_stack(Side *s, fc_stack *stack) noexcept nogil:
    """The products and their steps: by the table's own way where it has one, else one after the other."""
    cdef PlanS *P = s.t.P
    cdef Py_ssize_t x, size = P.K.real_bytes
    cdef fc_product *job = &stack.job
    cdef int i
    stack.count, stack.own = s.count, s.own // size
    job.row_block, job.col_block = job.m, job.n
    if P.K.stack(stack, s.t.bench.gemm):
        return
    for x in range(s.count):
        run(s.t, job)
        for i in range(job.n_terms):
            job.term[i].a = <char *>job.term[i].a + stack.a[i] * size
            job.term[i].b = <char *>job.term[i].b + stack.b[i] * size
        job.c = <char *>job.c + stack.c * size
        job.step.u = at(P, <char *>job.step.u, 1, stack.u)
        job.step.d, job.step.r = at(P, <char *>job.step.d, 1, stack.own), at(P, <char *>job.step.r, 1, stack.own)
        job.step.skip, job.step.sums = at(P, <char *>job.step.skip, 1, stack.own), at(P, <char *>job.step.sums, 1, stack.own)


cdef void stack_forward(Side *s) noexcept nogil:
    """rz = ra W' + a V' + vb;  ra = phi' * rz [+ the input's ra]."""
    cdef Pass *t = s.t
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, n, ldx = P.ldx, size = P.K.real_bytes
    cdef char *below = at(P, P.x, t.r0, P.ldx)
    cdef char *r_below = NULL
    cdef Layer *y
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    for l in range(P.n_layers):
        y = &P.layer[l]
        if l >= P.first:
            memset(&stack, 0, sizeof(stack))
            job.m, job.n = t.rows, y.m
            if r_below != NULL:
                stack.a[job.n_terms] = s.own // size
                add_packed(P, job, y.k, r_below, ldx, y.wt)
            if P.active[l]:
                stack.b[job.n_terms] = P.v_step // size
                add_packed(P, job, y.k, below, ldx, y.vt + t.v * P.v_step)
            job.step.kind = FC_STEP_R_ACTIVATE
            job.step.u, stack.u = y.vb + t.v * P.v_step if y.b >= 0 and P.active[l] else NULL, P.v_step // size
            job.step.d, job.step.ldd = t.bench.ra[l], y.ldm
            add_bends(P, &job.step, y, t.r0, False)
            job.step.skip, job.step.ldskip = r_below if y.skip else NULL, ldx
            job.c, job.ldc, stack.c = t.bench.rz[l], y.ldm, s.own // size
            run_stack(s, &stack)
            r_below = t.bench.ra[l]
        below, ldx = at(P, y.a, t.r0, y.ldm), y.ldm


cdef void stack_loss(Side *s) noexcept nogil:
    """rdelta in the place of the last rz, and its column sums."""
    cdef Pass *t = s.t
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef fc_loss_rows here = loss_at(P, t.r0)
    cdef fc_step step
    cdef char *rz
    cdef Py_ssize_t x
    memset(&step, 0, sizeof(step))
    for x in range(s.count):
        rz = t.bench.rz[P.n_layers - 1] + x * s.own
        if t.kind == FISHER:
            P.K.r_fisher(<double>P.N, t.rows, y.m, here.delta, here.ldd, rz, y.ldm, rz, y.ldm)
        else:
            P.K.r_loss(&here, t.rows, y.m, rz, y.ldm, rz, y.ldm)
        step.kind, step.d, step.ldd, step.sums = FC_STEP_R_BACKWARD, rz, y.ldm, t.bench.sums + x * s.own
        P.K.step(&step, t.rows, y.m, rz, y.ldm)


cdef void stack_outer(Side *s, Py_ssize_t l, char *out, bint add) noexcept nogil:
    """rdW = rdelta' a_below + delta' ra_below;  rdb = sum of rdelta's rows."""
    cdef Pass *t = s.t
    cdef PlanS *P = t.P
    cdef Py_ssize_t x, size = P.K.real_bytes
    cdef Layer *y = &P.layer[l]
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    memset(&stack, 0, sizeof(stack))
    job.m, job.n, job.exact, job.accumulate = y.m, y.k, True, add
    stack.a[0] = s.own // size
    add_outer(P, job, t.rows, t.bench.rz[l], y.ldm, at(P, P.layer[l - 1].a if l else P.x, t.r0, y.ldk), y.ldk)
    if t.kind == HESSIAN and l > P.first:
        stack.b[1] = s.own // size
        add_outer(P, job, t.rows, at(P, y.delta, t.r0, y.ldm), y.ldm, t.bench.ra[l - 1], y.ldk)
    job.c, job.ldc, stack.c = out + y.w * size, y.k, s.out_step // size
    run_stack(s, &stack)
    for x in range(s.count if y.b >= 0 else 0):
        P.K.add_parts(y.m, 1, t.bench.sums + x * s.own, t.bench.ldsums, add, out + y.b * size + x * s.out_step)


cdef void stack_backward(Side *s, char *out, bint add) noexcept nogil:
    """R-backward; out: the first vector's result."""
    cdef Pass *t = s.t
    cdef PlanS *P = t.P
    cdef bint full = t.kind == HESSIAN
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef Layer *x
    cdef Layer *y
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    for l in range(P.n_layers - 1, P.first - 1, -1):
        y = &P.layer[l]
        x = &P.layer[l - 1] if l else NULL
        if P.active[l]:
            stack_outer(s, l, out, add)
        if l == P.first:
            break
        memset(&stack, 0, sizeof(stack))
        job.m, job.n = t.rows, y.k
        stack.a[0] = s.own // size
        add_packed(P, job, y.m, t.bench.rz[l], y.ldm, y.wn)
        if full and P.active[l]:
            stack.b[1] = P.v_step // size
            add_packed(P, job, y.m, at(P, y.delta, t.r0, y.ldm), y.ldm, y.vn + t.v * P.v_step)
        job.c, job.ldc, stack.c = t.bench.e[l & 1], x.ldm, s.own // size
        job.step.kind = FC_STEP_R_BACKWARD
        job.step.d, job.step.ldd = t.bench.rz[l - 1], x.ldm
        add_bends(P, &job.step, x, t.r0, full)
        if full and x.curved:
            job.step.r, job.step.ldr = t.bench.rz[l - 1], x.ldm
        job.step.skip, job.step.ldskip = t.bench.e[(l + 1) & 1] if y.skip else NULL, y.ldm
        job.step.sums, job.step.ldsums = t.bench.sums, t.bench.ldsums
        run_stack(s, &stack)


cdef void take_stack(Pass *t, int member, Py_ssize_t count, char *out, Py_ssize_t out_step, bint add) noexcept nogil:
    """The products of `count` vectors with the panel's rows, from t.v on."""
    cdef Side s
    cdef Bench *alone = t.bench
    t.bench = &t.P.sides[member]
    s.t, s.count, s.own, s.out_step = t, count, t.P.side_step, out_step
    stack_forward(&s)
    stack_loss(&s)
    stack_backward(&s, out, add)
    t.bench = alone
