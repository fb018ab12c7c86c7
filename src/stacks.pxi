# Tall: a few vectors of a block side by side. The passes take them through a panel together: what theta decides is read once for
# all of them, and narrow products fill their tiles. The same bits as one after the other.

cdef Py_ssize_t run_stack(Pass *t, fc_stack *stack) noexcept nogil:
    """The products of the pass's vectors and their steps: by the table's own way where it has one, else one after the other.
    Returns as `run` does."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t x, size = P.K.real_bytes
    cdef fc_product *job = &stack.job
    cdef int i
    if t.count == 1:
        return run(t, job)
    stack.count, stack.own = t.count, t.own // size
    job.row_block, job.col_block = job.m, job.n
    if P.K.stack(stack, t.bench.gemm):
        return 1
    for x in range(t.count):
        run(t, job)
        for i in range(job.n_terms):
            job.term[i].a = <char *>job.term[i].a + stack.a[i] * size
            job.term[i].b = <char *>job.term[i].b + stack.b[i] * size
        job.c = <char *>job.c + stack.c * size
        job.step.u = at(P, <char *>job.step.u, 1, stack.u)
        job.step.d, job.step.r = at(P, <char *>job.step.d, 1, stack.own), at(P, <char *>job.step.r, 1, stack.own)
        job.step.skip, job.step.sums = at(P, <char *>job.step.skip, 1, stack.own), at(P, <char *>job.step.sums, 1, stack.own)
    return 1
