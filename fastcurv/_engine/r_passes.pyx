"""The passes along a vector v: R-forward, the product with the loss's second derivative, and
R-backward. Quadratic forms need no R-backward. The module docstring of passes.pyx has the
equations.
"""
from libc.string cimport memcpy, memset


cdef inline bint is_too_short_to_prefetch(Pass *t) noexcept nogil:
    """Return True if R-backward through a narrow output layer is too short to prefetch all of the
    next panel's state from memory. This is so with one output (measured on Zen 3 and Zen 5), and
    with 64-byte vectors if the operator does not use phi'' (measured on Zen 5).
    """
    cdef PlanS *P = t.P
    cdef bint short = P.d_out == 1 or (t.kind != HESSIAN and P.K.vector_bytes == FC_ALIGN)
    return short and t.more and not P.state_fits_l3


cdef double run_r_forward(Pass *t, bint quadratic) noexcept nogil:
    """Run R-forward: rz = ra W' + a V' + vb; ra = phi' * rz [+ the input's ra].

    If `quadratic`, return the sum over layers of <e * phi'' * rz, rz>. For a layer fused with a
    narrow output layer, the sum includes the output layer's terms, which `sum_cross_terms` computes
    otherwise.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef Layer *y
    cdef Weights V
    cdef Matrix r_below = null_matrix()
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    cdef double curvature = 0
    cdef bint narrow = has_narrow_output(t), forms, uses_second
    for l in range(P.first_active, P.n_layers - narrow):
        y = &P.layer[l]
        V = weights_of_v(t, y)
        forms = quadratic and not (narrow and l == P.n_layers - 2)
        uses_second = y.curved and (forms or (quadratic and not y.derived))
        share_all_matrices(t, &stack)
        begin_product(t, job, y.m)
        if r_below.at != NULL:
            stack.a[job.n_terms] = t.own // size
            add_forward_term(t, job, y, r_below, y.W)
        if P.active[l]:
            stack.b[job.n_terms] = P.v_step // size
            add_forward_term(t, job, y, input_matrix(t, l), V)
        set_output(job, scratch_matrix(t, y, t.scratch.rz[l]))
        job.epilogue.kind = FC_EPILOGUE_R_ACTIVATE
        job.epilogue.u = bias_address(P, y, V) if P.active[l] else NULL
        stack.u, stack.c = P.v_step // size, t.own // size
        set_d(&job.epilogue, scratch_matrix(t, y, t.scratch.ra[l]))
        set_derivatives(t, &job.epilogue, y, uses_second)
        set_skip(&job.epilogue, r_below if y.skip else null_matrix())
        # Below a narrow output layer, R-backward prefetches phi'. A quadratic form has no
        # R-backward.
        if not narrow or quadratic or is_too_short_to_prefetch(t):
            prefetch_next_panel(t, job, y.p, y.m)
        prefetch_next_panel(t, job, P.x if l == 0 else NULL, y.k)
        if quadratic and (y.curved or not forms):
            prefetch_next_panel(t, job, y.a, y.m)
        if quadratic or is_too_short_to_prefetch(t):
            prefetch_next_panel(t, job, y.phi_pair, y.m)
        if narrow and l == P.n_layers - 2:
            prefetch_next_panel(t, job, <char *>P.loss.delta, P.d_out)
            prefetch_next_panel(t, job, NULL if P.coupled else <char *>P.loss.h, P.d_out)
        if uses_second:
            prefetch_next_panel(t, job, y.du if y.derived else y.q, y.m)
        if forms and y.curved:
            job.epilogue.total = t.scratch.totals
        if narrow and l == P.n_layers - 2:
            job.c_unused = quadratic
            fuse_output(t, &job.epilogue, quadratic)
        if (
            run_stacked_product(t, &stack)
            if y.norm == NULL else run_batch_norm_r_forward(t, l, job)
        ) < 0:
            return curvature
        if forms and y.curved:
            curvature += sum_item_totals(P, t, job)
        if quadratic and y.norm != NULL:
            curvature += batch_norm_quadratic_term(t, l)
        r_below = scratch_matrix(t, y, t.scratch.ra[l])
    if narrow and quadratic:
        curvature += matrix_inner_product(t, 1, P.ld_transposed, P.ones, t.scratch.e[1])
    return curvature


cdef void compute_rdelta_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute rdelta in place of rz in the output layer, for one block of rows. It is (d2 loss /
    dz2) rz for the Hessian and the GGN, a multiple of delta for the Fisher matrix, and the left
    factor for a VJP.
    """
    cdef Blocks *c = <Blocks *>context
    cdef Pass *t = c.t
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t first, rows, block, x, ld = y.ldm
    get_row_range(t, part, &first, &rows, &block)
    cdef fc_loss_rows here = loss_rows_at(t, first)
    cdef char *rz
    if P.ld_transposed:
        compute_rdelta_transposed(t, &here, y, c.out, first, rows)
        return
    for x in range(t.count):
        rz = row_address(P, t.scratch.rz[P.n_layers - 1], first, ld) + x * t.own
        if t.kind == FISHER:
            P.K.r_fisher(<double>P.N, rows, y.m, here.delta, here.ldd, rz, ld, rz, ld)
        elif t.kind == VJP:
            P.K.copy(rows, y.m, row_address(P, c.out, t.s0 + first, y.m), y.m, 1, rz, ld)
        elif P.coupled:
            compute_coupled_rdelta(P, &here, rows, rz, ld)
        else:
            P.K.r_loss(&here, rows, y.m, rz, ld, rz, ld)
        write_column_sums(t, part, rows, y, rz, x * t.own)


cdef void compute_rdelta(Pass *t, char *u) noexcept nogil:
    """Compute rdelta in place of rz in the output layer for all rows of the pass. For a VJP, `u` is
    the left factor.
    """
    cdef Blocks blocks
    blocks.out = u
    if t.P.ld_transposed and t.kind == VJP:
        blocks.t = t
        compute_rdelta_block(&blocks, -1, 0)
    else:
        run_row_blocks(t, compute_rdelta_block, &blocks)


cdef void run_r_backward(Pass *t, char *out, bint add) noexcept nogil:
    """Run R-backward: rdW = rdelta' a_below + delta' ra_below; rdb = column sums of rdelta;
    re_below = rdelta W + delta V [+ re]; rdelta = re * phi' + (e * phi'') * rz. Operators other
    than the Hessian use only the terms in rdelta and re.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, blocks = count_loss_blocks(t)
    cdef bint full = t.kind == HESSIAN, narrow = out != NULL and has_narrow_output(t)
    cdef int size = P.K.real_bytes
    cdef Layer *x
    cdef Layer *y
    cdef Matrix delta, rdelta
    cdef fc_stack stack
    cdef fc_product *job = &stack.job
    for l in range(P.n_layers - 1, P.first_active - 1, -1):
        y = &P.layer[l]
        delta, rdelta = state_matrix(t, y, y.delta), scratch_matrix(t, y, t.scratch.rz[l])
        if P.active[l] and out != NULL and not (narrow and l == P.n_layers - 2):
            write_bias_sums(t, y, rdelta, blocks, out, add)
        if narrow and l == P.n_layers - 1:
            run_fused_r_backward(t, out, add, full)
            continue
        if P.active[l] and out != NULL:
            share_all_matrices(t, &stack)
            begin_sum_over_rows(t, y, job, add)
            stack.a[0] = t.own // size
            if P.shared:
                add_packed_transpose_term(
                    t, job, l, rdelta, P.layer[l - 1].packed_transpose if l else NULL
                )
            else:
                add_sum_over_rows(t, job, rdelta, input_matrix(t, l))
            if full and l > P.first_active and P.shared:
                transpose_into_packed(t, y.k, t.scratch.ra[l - 1], t.scratch.packed_transpose)
                add_packed_transpose_term(t, job, l, delta, t.scratch.packed_transpose)
            elif full and l > P.first_active:
                stack.b[1] = t.own // size
                add_sum_over_rows(
                    t, job, delta, scratch_matrix(t, &P.layer[l - 1], t.scratch.ra[l - 1])
                )
            set_output_w(t, job, y, out)
            stack.c = t.out_step // size
            prefetch_next_panel(t, job, y.a, y.m)
            if not is_too_short_to_prefetch(t):
                prefetch_next_panel(t, job, y.phi_pair, y.m)
            if narrow and l == P.n_layers - 2 and full and not recomputes_delta(P, l):
                prefetch_next_panel(t, job, y.delta, y.m)
                prefetch_next_panel(t, job, y.q, y.m)
            run_stacked_product(t, &stack)
        if l == P.first_active:
            break
        x = &P.layer[l - 1]
        share_all_matrices(t, &stack)
        begin_product(t, job, y.k)
        stack.a[0] = t.own // size
        add_backward_term(t, job, y, rdelta, y.W)
        if full and P.active[l]:
            stack.b[1] = P.v_step // size
            add_backward_term(t, job, y, delta, weights_of_v(t, y))
        set_output_e(t, job, x, l)
        stack.c = t.own // size
        job.epilogue.kind = FC_EPILOGUE_R_BACKWARD
        set_d(&job.epilogue, scratch_matrix(t, x, t.scratch.rz[l - 1]))
        set_derivatives(t, &job.epilogue, x, full)
        if full and recomputes_delta(P, l - 1):
            set_recomputed_delta(t, &job.epilogue, y)
        elif full:
            prefetch_next_panel(t, job, x.delta, x.m)
            prefetch_next_panel(t, job, x.q, x.m)
        if full and x.curved:
            set_r(&job.epilogue, scratch_matrix(t, x, t.scratch.rz[l - 1]))
        set_skip(
            &job.epilogue,
            scratch_matrix(t, y, t.scratch.e[(l + 1) & 1]) if y.skip else null_matrix()
        )
        set_column_sums(t, &job.epilogue)
        if x.norm == NULL:
            blocks = run_stacked_product(t, &stack)
        else:
            blocks = run_batch_norm_r_backward(t, l - 1, job, out, add)
        if blocks < 0:
            return


cdef double sum_cross_terms(Pass *t) noexcept nogil:
    """Return the sum over layers of 2 <delta, ra_below V'>, after R-forward. The term of a narrow
    output layer is left out, because `run_r_forward` includes it.
    """
    cdef PlanS *P = t.P
    cdef double total = 0
    cdef Py_ssize_t l
    cdef Layer *y
    cdef fc_product job
    for l in range(P.first_active + 1, P.n_layers - has_narrow_output(t)):
        y = &P.layer[l]
        if not P.active[l]:
            continue
        begin_product(t, &job, y.m)
        add_forward_term(
            t, &job, y, scratch_matrix(t, &P.layer[l - 1], t.scratch.ra[l - 1]), weights_of_v(t, y)
        )
        set_output(&job, scratch_matrix(t, y, t.scratch.e[0]))
        job.epilogue.kind, job.epilogue.total = FC_EPILOGUE_DOT, t.scratch.totals
        set_p(&job.epilogue, state_matrix(t, y, y.delta))
        run_product(t, &job)
        total += 2 * sum_item_totals(P, t, &job)
    return total


cdef double output_quadratic_form(Pass *t) noexcept nogil:
    """Return <rz, (d2 loss / dz2) rz> for the output layer. The matrix rz is overwritten."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef char *rz = t.scratch.rz[P.n_layers - 1]
    memcpy(
        t.scratch.e[0], rz,
        (y.m * P.ld_transposed if P.ld_transposed else t.rows * y.ldm) * P.K.real_bytes
    )
    compute_rdelta(t, NULL)
    return matrix_inner_product(t, y.m, leading_dimension(P, y.ldm), t.scratch.e[0], rz)


cdef double matrix_inner_product(
    Pass *t, Py_ssize_t m, Py_ssize_t ld, char *one, char *other
) noexcept nogil:
    """Return the inner product of two (rows, m) matrices over the rows of the pass, summed in
    blocks of SWEEP_BLOCK_ROWS rows.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t first = 0, rows, on
    cdef fc_epilogue epilogue
    cdef double total = 0, part = 0
    memset(&epilogue, 0, sizeof(epilogue))
    epilogue.kind, epilogue.total, epilogue.ldp = FC_EPILOGUE_DOT, &part, ld
    while first < t.rows:
        rows = min(<Py_ssize_t>SWEEP_BLOCK_ROWS, t.rows - first)
        on = first * (1 if P.ld_transposed else ld) * P.K.real_bytes
        epilogue.p = one + on
        P.K.epilogue(
            &epilogue, m if P.ld_transposed else rows, rows if P.ld_transposed else m, other + on,
            ld
        )
        total += part
        first += SWEEP_BLOCK_ROWS
    return total
