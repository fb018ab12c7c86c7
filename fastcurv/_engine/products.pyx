"""Execution of products and of sweeps over rows, on one thread or on the thread team (declarations
in products.pxd).

A panel-parallel plan takes up to FC_MAX_STACK vectors of a block through a panel together, so that
matrices that depend only on theta are read once for all of them, and the kernels' tiles are full
even in narrow products. Results are bitwise identical to those of one vector at a time.
"""
from libc.string cimport memset


cdef struct Items:              # a round of a product, cut into items for the thread team
    const fc_table *K
    fc_product *job
    int round                   # index of the slice of depth that this round computes
    # Number of items per row of items, and bytes from one thread's scratch buffer to the next.
    Py_ssize_t col_items, step
    char *scratch


cdef void run_item(void *context, Py_ssize_t item, int member) noexcept nogil:
    """Compute one item of a product, as one part of a job of the thread team."""
    cdef Items *c = <Items *>context
    c.K.product(
        c.job, c.round, item // c.col_items, item % c.col_items, c.scratch + member * c.step
    )


cdef fc_product describe_product(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, char *a, Py_ssize_t a_rs, Py_ssize_t a_cs, char *b,
    Py_ssize_t b_rs, Py_ssize_t b_cs, char *c, Py_ssize_t ldc, bint add
) noexcept nogil:
    """Return the description of a product c (m, n) = [c +] a b of inner dimension k without an
    epilogue. Strides are in elements.
    """
    cdef fc_product job
    memset(&job, 0, sizeof(job))
    job.m, job.n, job.n_terms, job.unpadded, job.accumulate = m, n, 1, True, add
    job.c, job.ldc = c, ldc
    job.term[0].k, job.term[0].a, job.term[0].a_rs, job.term[0].a_cs = k, a, a_rs, a_cs
    job.term[0].b, job.term[0].b_rs, job.term[0].b_cs = b, b_rs, b_cs
    return job


cdef Py_ssize_t run_items(
    const fc_table *K, fc_product *job, int threads, char *scratch, Py_ssize_t step
) noexcept nogil:
    """Run a product and its epilogue on the thread team. The scratch buffers of the threads lie
    `step` bytes apart from `scratch` on. Return the number of blocks of rows into which the product
    was cut.
    """
    cdef Items items
    cdef int round
    cdef Py_ssize_t row_items
    K.block(job)
    items.K, items.job, items.scratch, items.step = K, job, scratch, step
    row_items = (job.m + job.row_block - 1) // job.row_block
    items.col_items = (job.n + job.col_block - 1) // job.col_block
    for round in range(K.rounds(job)):
        items.round = round
        fc_team_run(
            threads if job.m * job.n * job.term[0].k > 100000 else 1,
            row_items * items.col_items, run_item, &items
        )
    return row_items


cdef void run_serially(const fc_table *K, fc_product *job, char *scratch) noexcept nogil:
    """Run a product and its epilogue as one item on the calling thread."""
    cdef int round
    job.row_block, job.col_block = job.m, job.n
    for round in range(K.rounds(job)):
        K.product(job, round, 0, 0, scratch)


cdef Py_ssize_t run_product(Pass *t, fc_product *job) noexcept nogil:
    """Run a product and its epilogue. Return the number of blocks of rows into which the product
    was cut, which is the number of rows of column sums that its epilogue wrote.
    """
    cdef PlanS *P = t.P
    cdef Scratch *members = P.thread_scratch
    if not t.serial:
        return run_items(
            P.K, job, P.threads, members.gemm,
            members[1].gemm - members[0].gemm if P.threads > 1 else 0
        )
    run_serially(P.K, job, t.scratch.gemm)
    return 1


cdef double sum_item_totals(PlanS *P, Pass *t, fc_product *job) noexcept nogil:
    """Return the sum over items of the totals that the epilogue wrote, added in order."""
    cdef double total = 0
    cdef Py_ssize_t i
    cdef Py_ssize_t items = (
        (job.m + job.row_block - 1) // job.row_block
    ) * ((job.n + job.col_block - 1) // job.col_block)
    for i in range(items):
        total += t.scratch.totals[i]
    return total


cdef void run_row_blocks(Pass *t, fc_part part, Blocks *blocks) noexcept nogil:
    """Run a sweep over the rows of the pass: as one part if the pass is serial, else in blocks of
    SWEEP_BLOCK_ROWS rows on the thread team.
    """
    blocks.t = t
    if t.serial:
        part(blocks, -1, 0)
    else:
        fc_team_run(t.P.threads, (t.rows + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS, part, blocks)


cdef void get_row_range(
    Pass *t, Py_ssize_t part, Py_ssize_t *first, Py_ssize_t *rows, Py_ssize_t *block
) noexcept nogil:
    """Compute the range of rows of part number `part` of a sweep, relative to the pass, and the
    index of that block of rows within the chunk. A negative part is the whole pass.
    """
    if part < 0:
        first[0], rows[0] = 0, t.rows
        block[0] = t.x0 // state_row_of_panel(t.P, 1)
    else:
        first[0] = part * SWEEP_BLOCK_ROWS
        rows[0] = min(<Py_ssize_t>SWEEP_BLOCK_ROWS, t.rows - first[0])
        block[0] = part


cdef Py_ssize_t run_stacked_product(Pass *t, fc_stack *stack) noexcept nogil:
    """Run a product and its epilogue for all vectors of the pass, with the kernel for stacked
    products if the table has one, else for one vector at a time. Return the number of blocks of
    rows.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t _x, size = P.K.real_bytes
    cdef fc_product *job = &stack.job
    cdef int i
    if t.count == 1:
        return run_product(t, job)
    stack.count, stack.own = t.count, t.own // size
    job.row_block, job.col_block = job.m, job.n
    if P.K.stack(stack, t.scratch.gemm):
        return 1
    for _x in range(t.count):
        run_product(t, job)
        for i in range(job.n_terms):
            job.term[i].a = <char *>job.term[i].a + stack.a[i] * size
            job.term[i].b = <char *>job.term[i].b + stack.b[i] * size
        job.c = <char *>job.c + stack.c * size
        job.epilogue.u = row_address(P, <char *>job.epilogue.u, 1, stack.u)
        job.epilogue.d = row_address(P, <char *>job.epilogue.d, 1, stack.own)
        job.epilogue.r = row_address(P, <char *>job.epilogue.r, 1, stack.own)
        job.epilogue.skip = row_address(P, <char *>job.epilogue.skip, 1, stack.own)
        job.epilogue.sums = row_address(P, <char *>job.epilogue.sums, 1, stack.own)
    return 1
