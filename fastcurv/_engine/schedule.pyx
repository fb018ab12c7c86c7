"""Execution of a job on the rows of a chunk: panel-parallel, where each idle thread takes the next
work unit, or layer-parallel, where all threads share each product.
"""
from libc.string cimport memcpy


# --- preparation of a vector ----------------------------------------------------------------------

cdef enum: SAVE_PART_BYTES = 1 << 18  # bytes per part of a job that copies v


cdef void save_v_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Copy one part of v, as one part of a job of the thread team."""
    cdef PlanS *P = <PlanS *>context
    cdef Py_ssize_t first = part * SAVE_PART_BYTES
    memcpy(
        P.saved_v + first, P.v + first,
        min(<Py_ssize_t>SAVE_PART_BYTES, P.n * P.K.real_bytes - first)
    )


cdef void save_v(PlanS *P) noexcept nogil:
    """Copy v into the plan's memory, because the product overwrites v."""
    cdef Py_ssize_t parts = (P.n * P.K.real_bytes + SAVE_PART_BYTES - 1) // SAVE_PART_BYTES
    fc_team_run(P.threads if parts > 4 else 1, parts, save_v_part, P)
    P.v = P.saved_v


cdef void prepare_vector(Job *job, Py_ssize_t j, Py_ssize_t place) noexcept nogil:
    """Pack vector j of a job into place `place` of the block. If the product overwrites the vector,
    copy it first. If l2 is not 0, set the result to l2 times the vector.
    """
    cdef PlanS *P = job.P
    cdef char *v = job.v + j * job.v_step
    if P.v != v:
        P.v = v
    if P.saved_v != NULL and v == job.out + j * job.out_step:
        save_v(P)
    pack_v(P, P.v, place)
    if job.l2 != 0:
        write_penalty_gradient(P, job.l2, P.v, job.out + j * job.out_step)


# --- one pass with one vector ---------------------------------------------------------------------

cdef void write_jvp_rows(Pass *t, Job *job) noexcept nogil:
    """Copy the output layer's rz, rows of J v, into the result (rows, d_out)."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t i, size = P.K.real_bytes
    if P.ld_transposed:
        P.K.transpose_columns(
            y.m, t.rows, t.scratch.rz[P.n_layers - 1], P.ld_transposed, 1, 0, y.m,
            job.out + t.s0 * y.m * size, y.m
        )
        return
    for i in range(t.rows):
        memcpy(
            job.out + (t.s0 + i) * y.m * size, t.scratch.rz[P.n_layers - 1] + i * y.ldm * size,
            y.m * size
        )


cdef void compute_product(Pass *t, Job *job, char *out, bint add) noexcept nogil:
    """Compute the product of the operator with the vectors of the pass, over the rows of the pass.
    """
    cdef PlanS *P = t.P
    if P.packs_pairs and not has_narrow_output(t):
        unpack_pairs(t)
    if job.kind != VJP:
        run_r_forward(t, False)
        if P.nan:
            propagate_nan(t)
    if job.kind == JVP:
        write_jvp_rows(t, job)
        return
    compute_rdelta(t, job.u)
    if P.nan and job.kind == VJP:
        propagate_nan(t)
    run_r_backward(t, out, add)


cdef double compute_quadratic_form(Pass *t, Job *job) noexcept nogil:
    """Return v'Hv over the rows of the pass, which is <rz, loss'' rz> + sum of 2 <delta, ra V'> +
    sum of <e phi'' rz, rz>, summed over layers. For the GGN, only the first term is computed.
    """
    cdef double total
    if t.P.packs_pairs and not has_narrow_output(t):
        unpack_pairs(t)
    total = run_r_forward(t, job.kind == HESSIAN)
    if t.P.nan:
        propagate_nan(t)
    if job.kind == HESSIAN:
        total += sum_cross_terms(t)
    return total + output_quadratic_form(t)


# --- panel-parallel execution ---------------------------------------------------------------------

cdef inline Py_ssize_t vectors_per_panel(Job *job) noexcept nogil:
    """Return the size of a stack: the number of vectors that a panel processes before the next
    panel is taken.
    """
    cdef PlanS *P = job.P
    if P.ld_transposed:         # all vectors, unless threads can share the vectors evenly
        if P.state_bytes <= L3_BYTES and job.vectors % P.threads == 0 and job.stages == PRODUCT:
            return 1
        return max(<Py_ssize_t>1, job.vectors)
    if P.stack_step and job.stages == PRODUCT and job.kind <= FISHER:
        return even_stack_size(job.vectors, FC_MAX_STACK)
    return 1


cdef inline Py_ssize_t even_stack_size(Py_ssize_t vectors, Py_ssize_t most) noexcept nogil:
    """Return the size of stacks if `vectors` vectors are divided as evenly as possible into the
    smallest number of stacks of at most `most` vectors.
    """
    cdef Py_ssize_t stacks = (vectors + most - 1) // most
    return (vectors + stacks - 1) // max(<Py_ssize_t>1, stacks)


cdef inline Py_ssize_t count_stacks(Job *job) noexcept nogil:
    """Return the number of stacks into which the vectors of a job are divided."""
    cdef Py_ssize_t size_of_stack = vectors_per_panel(job)
    return max(<Py_ssize_t>1, (job.vectors + size_of_stack - 1) // size_of_stack)


cdef void run_work_unit(void *context, Py_ssize_t item, int member) noexcept nogil:
    """Run the panels of one work unit, in order, for one stack of vectors, and add the results to
    the sums of that work unit.
    """
    cdef Job *job = <Job *>context
    cdef PlanS *P = job.P
    cdef Py_ssize_t size_of_stack = vectors_per_panel(job), stacks = count_stacks(job)
    cdef Py_ssize_t unit = job.group + item // stacks
    cdef Py_ssize_t first = item % stacks * size_of_stack
    cdef Py_ssize_t last = min(first + size_of_stack, max(<Py_ssize_t>1, job.vectors))
    cdef Py_ssize_t n_panels = count_panels(P, job.rows)
    cdef Py_ssize_t units = count_work_units(P, job.rows), panel, j
    cdef Py_ssize_t begin = n_panels * unit // units, end = n_panels * (unit + 1) // units
    cdef Pass t = new_pass(P, &P.thread_scratch[member], True, job.kind)
    cdef char *out
    cdef bint add
    for panel in range(begin, end):
        if fc_team_cancelled(member):
            return
        move_to_panel(&t, job.rows, panel, member if job.transient else panel - P.before)
        t.more = P.prefetches_next and panel + 1 < end and last - first < 2
        if job.stages & FORWARD:
            run_forward(&t)
        add = panel > begin or (units == 1 and job.add)
        if job.stages == PRODUCT:
            multiply_vectors(
                &t, job, member, first, last, sums_address(job, units, unit, first),
                job.out_step if units == 1 else P.ldg * P.K.real_bytes, add
            )
            continue
        for j in range(first, last):
            t.v, t.flat = j, job.v + j * job.v_step
            out = sums_address(job, units, unit, j)
            if job.stages & BACKWARD:
                run_backward(&t, out if job.out != NULL else NULL, add)
            if job.stages & QUADRATIC:
                P.panel_totals[panel * P.max_vectors + j] = compute_quadratic_form(&t, job)


cdef void multiply_vectors(
    Pass *t, Job *job, int member, Py_ssize_t first, Py_ssize_t last, char *out,
    Py_ssize_t out_step, bint add
) noexcept nogil:
    """Apply the operator, restricted to the rows of one panel, to the vectors [first, last). The
    result of vector `first` is written or added (`add`) to `out`.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t j
    if P.ld_transposed:
        for j in range(first, max(last, first + 1)):
            t.v, t.flat = j, job.v + j * job.v_step
            compute_product(t, job, out + (j - first) * out_step, add)
        return
    t.v, t.count, t.own, t.out_step = first, last - first, P.stack_step, out_step
    t.scratch = &P.stack_scratch[member] if t.count > 1 else &P.thread_scratch[member]
    compute_product(t, job, out, add)


cdef void run_vector_stack(void *context, Py_ssize_t item, int member) noexcept nogil:
    """Run all panels for one stack of vectors. The sums of each group of panels are added to the
    result as soon as they are complete.
    """
    cdef Job *job = <Job *>context
    cdef PlanS *P = job.P
    cdef Py_ssize_t n_panels = count_panels(P, job.rows), groups = count_groups(P, job.rows)
    cdef Py_ssize_t group, panel, j
    cdef Py_ssize_t first = item * vectors_per_panel(job)
    cdef Py_ssize_t last = min(first + vectors_per_panel(job), job.vectors)
    cdef Py_ssize_t begin, end, step
    cdef char *out
    cdef bint alone, add
    cdef Pass t = new_pass(P, &P.thread_scratch[member], True, job.kind)
    for group in range(groups):
        begin, end = n_panels * group // groups, n_panels * (group + 1) // groups
        add = group > 0 or job.add
        alone = groups == 1 or (end - begin == 1 and completes_panel_sums(P))
        out = sums_address(job, 1 if alone else groups, 0, first)
        step = job.out_step if alone else P.ldg * P.K.real_bytes
        for panel in range(begin, end):
            if fc_team_cancelled(member):
                return
            move_to_panel(&t, job.rows, panel, panel)
            t.more = P.prefetches_next and panel + 1 < n_panels and last - first < 2
            multiply_vectors(
                &t, job, member, first, last, out, step, panel > begin or (alone and add)
            )
        for j in range(0 if alone else last - first):
            P.K.add_parts(P.n, 1, out + j * step, P.ldg, add, job.out + (first + j) * job.out_step)


cdef char *sums_address(Job *job, Py_ssize_t units, Py_ssize_t unit, Py_ssize_t j) noexcept nogil:
    """Return the address of the sums of work unit `unit` for vector j. With a single work unit it
    is the address of the result.
    """
    cdef PlanS *P = job.P
    if units == 1:
        return job.out + j * job.out_step
    return P.unit_sums + (unit * P.max_vectors + j) * P.ldg * P.K.real_bytes


cdef enum: ADD_PART_ELEMENTS = 4096   # elements per part of a job that adds the sums of groups


cdef inline Py_ssize_t count_slices(PlanS *P) noexcept nogil:
    """Return the number of slices of a vector whose sums are added in separate parts of a job."""
    return (P.n + ADD_PART_ELEMENTS - 1) // ADD_PART_ELEMENTS


cdef void add_group_sums(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Add one slice of the sums of all groups to a result. The sums of the work units of each group
    are added up first.
    """
    cdef Job *job = <Job *>context
    cdef PlanS *P = job.P
    cdef Py_ssize_t groups = count_groups(P, job.rows), units = count_work_units(P, job.rows)
    cdef Py_ssize_t group, begin
    cdef Py_ssize_t j = part // count_slices(P), first = part % count_slices(P) * ADD_PART_ELEMENTS
    cdef Py_ssize_t count = min(<Py_ssize_t>ADD_PART_ELEMENTS, P.n - first)
    cdef Py_ssize_t ld = P.max_vectors * P.ldg
    cdef Py_ssize_t size = P.K.real_bytes
    cdef char *out = job.out + j * job.out_step + first * size
    cdef char *one = sums_address(job, units, 0, j) + first * size
    if units == groups:
        P.K.add_parts(count, groups, one, ld, job.add, out)
        return
    for group in range(groups):
        begin = units * group // groups
        one = sums_address(job, units, begin, j) + first * size
        P.K.add_parts(
            count, units * (group + 1) // groups - begin - 1, one + ld * size, ld, True, one
        )
        P.K.add_parts(count, 1, one, ld, group > 0 or job.add, out)


cdef void add_all_group_sums(Job *job) noexcept nogil:
    """Add the sums of all groups of panels to the results."""
    if count_groups(job.P, job.rows) > 1:
        fc_team_run(
            job.P.threads, max(<Py_ssize_t>1, job.vectors) * count_slices(job.P),
            add_group_sums, job
        )


cdef void run_panels(Job *job) noexcept nogil:
    """Run a job on the rows of a chunk, panel-parallel."""
    cdef PlanS *P = job.P
    cdef Py_ssize_t n_panels = count_panels(P, job.rows), panel, j
    cdef Py_ssize_t stacks = count_stacks(job)
    if job.until:
        fc_team_run(P.threads, job.until - job.group, run_work_unit, job)
        return
    if (
        job.stages == PRODUCT and job.kind <= FISHER and stacks % P.threads == 0
        and job.vectors % stacks == 0
    ):
        # Threads share the vectors evenly, so each thread adds the groups' sums in order and no
        # sums need to be stored.
        fc_team_run(P.threads, stacks, run_vector_stack, job)
        return
    fc_team_run(P.threads, count_work_units(P, job.rows) * stacks, run_work_unit, job)
    if job.stages & QUADRATIC:
        for j in range(job.vectors):
            for panel in range(n_panels):
                job.totals[j] += P.panel_totals[panel * P.max_vectors + j]
    elif job.out != NULL and job.kind != JVP:
        add_all_group_sums(job)


# --- layer-parallel execution ---------------------------------------------------------------------

cdef void run_layers(Job *job) noexcept nogil:
    """Run a job on the rows of a chunk, layer-parallel, one vector at a time."""
    cdef PlanS *P = job.P
    cdef Py_ssize_t j
    cdef Pass t = new_pass(P, &P.team_scratch, False, job.kind)
    t.rows = job.rows
    if job.stages & FORWARD:
        run_forward(&t)
    if job.stages & BACKWARD:
        run_backward(&t, job.out, job.add)
    if job.stages & (PRODUCT | QUADRATIC):
        for j in range(job.vectors):
            if fc_watch_poll():
                return
            if job.kind != VJP and job.vectors > 1:
                prepare_vector(job, j, 0)
            t.flat = P.v
            if job.stages & PRODUCT:
                compute_product(&t, job, job.out + j * job.out_step, job.add)
            else:
                job.totals[j] += compute_quadratic_form(&t, job)


cdef void run_chunk(Job *job) noexcept nogil:
    """Run a job on the rows of a chunk."""
    if job.P.panel and not job.P.shared:
        run_panels(job)
    else:
        run_layers(job)
