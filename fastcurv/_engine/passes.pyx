"""The passes of Pearlmutter's R-operator, which call the kernels of a kernel table.

    forward      z = a W' + b               a = phi(z)             [+ the layer's input]
    backward     e_below = delta W  [+ e]   delta = e * phi'(z)
                 dW = delta' a_below        db = sum of delta's rows
    R-forward    rz = ra W' + a V' + vb     ra = phi'(z) * rz      [+ the input's ra]
    loss         rdelta = (d2 loss / dz2) rz      in the output layer
    R-backward   rdW = rdelta' a + delta' ra      rdb = sum of rdelta's rows
                 re_below = rdelta W + delta V  [+ re]
                 rdelta = re * phi'(z) + e * phi''(z) * rz

Terms in brackets apply to residual layers only.

Notation

W (m, k) and b (m,) are the weights of a layer, theta all weights as one flat vector, and V and vb
the parts of a vector v that correspond to W and b. Rows of the matrices are samples: a (rows, m)
are the outputs of a layer, z (rows, m) the arguments of its activation phi. Gradients of the loss
are e = dL/da and delta = dL/dz. The letter r before a name denotes the directional derivative along
v. A prime denotes the transpose of a matrix or the derivative of phi, and * the elementwise
product. In the code, `y` is the current layer and `x` the layer below.

Design notes

A. Both dtypes share one source. The passes handle byte pointers, and only the kernels, which come
   from the kernel table of the dtype, read and write elements.
B. A plan owns one block of memory. `lay_out_plan` runs twice, first to compute the size of the
   block, then to set the pointers into the block.
C. Rows come in chunks. A chunk has as many rows as `memory=` permits to store the state of. A chunk
   runs either panel-parallel or layer-parallel. In panel-parallel plans each thread takes panels of
   rows through all layers, and sums over rows are kept per group of panels. In layer-parallel plans
   the whole chunk goes through the network layer by layer, and every product is cut into items that
   the threads share. Samples are rows of the matrices or, in the transposed layout, columns.
D. The state at theta is stored: W packed for a W' and for delta W, a, phi', e * phi'', delta, and
   the derivatives of the loss. For each v, packed V is stored. All other matrices are scratch.
E. No result depends on the number of threads, because items and groups are determined by sizes
   only and sums are added in a fixed order.
"""
from libc.string cimport memset


cdef void run_forward(Pass *t) noexcept nogil:
    """Run the forward pass: z = a W' + b, a = phi(z) [+ the layer's input]. Store phi' and phi''.
    If the activation of a layer is user-defined (callbacks.pyx), store z in place of a.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t l
    cdef Layer *y
    cdef Matrix below, a, p
    cdef fc_product job
    cdef Blocks blocks
    for l in range(P.from_layer, P.upto):
        y = &P.layer[l]
        below, a = input_matrix(t, l), a_matrix(t, y)
        p = null_matrix() if y.user_phi else p_matrix(t, y)
        begin_product(t, &job, y.m)
        add_forward_term(t, &job, y, below, y.W)
        set_output(&job, p if p.at != NULL else a)
        job.epilogue.kind = FC_EPILOGUE_ACTIVATE
        job.epilogue.phi = FC_IDENTITY if y.user_phi else y.phi
        job.epilogue.u = bias_address(P, y, y.W)
        set_d(&job.epilogue, a)
        set_p(&job.epilogue, p)
        set_q(&job.epilogue, state_matrix(t, y, NULL if y.user_phi else y.q))
        if y.phi_pair != NULL:
            job.epilogue.phi_pair, job.epilogue.ldphi_pair = state_matrix(t, y, y.phi_pair).at, a.ld
            t.pairs_unpacked = True
        set_skip(&job.epilogue, below if y.skip and not y.user_phi else null_matrix())
        if (run_product(t, &job) if y.norm == NULL else run_batch_norm_forward(t, l, &job)) < 0:
            return
    if P.upto == P.n_layers and not P.user_loss:
        run_row_blocks(t, compute_loss_block, &blocks)


cdef void compute_loss_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute the loss and delta of one block of rows of the output layer."""
    cdef Pass *t = (<Blocks *>context).t
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef fc_loss_rows here
    cdef Py_ssize_t first, rows, block
    get_row_range(t, part, &first, &rows, &block)
    here = loss_rows_at(t, first)
    if P.ld_transposed:
        P.block_losses[block] = compute_loss_transposed(t, &here, y, first, rows)
        if isnan(P.block_losses[block]):
            P.nan = True
    else:
        P.block_losses[block] = P.K.loss(
            &here, rows, y.m, row_address(P, y.a, t.r0 + first, y.ldm), y.ldm
        )


cdef void sum_delta_block(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute the column sums of delta for one block of rows of the output layer."""
    cdef Pass *t = (<Blocks *>context).t
    cdef Layer *y = &t.P.layer[t.P.n_layers - 1]
    cdef Py_ssize_t first, rows, block
    get_row_range(t, part, &first, &rows, &block)
    write_column_sums(t, part, rows, y, row_address(t.P, y.delta, t.r0 + first, y.ldm), 0)


cdef void write_column_sums(
    Pass *t, Py_ssize_t part, Py_ssize_t rows, Layer *y, char *d, Py_ssize_t shift
) noexcept nogil:
    """Write the column sums of d (rows, m), a range of rows of the pass, to row `part` of its
    buffer for sums, `shift` bytes after the start of that buffer.
    """
    cdef fc_epilogue epilogue
    if t.P.ld_transposed:       # write_bias_sums_transposed computes the sums
        return
    memset(&epilogue, 0, sizeof(epilogue))
    epilogue.kind, epilogue.d, epilogue.ldd = FC_EPILOGUE_R_BACKWARD, d, y.ldm
    epilogue.sums = row_address(
        t.P, t.scratch.sums, max(<Py_ssize_t>0, part), t.scratch.ldsums
    ) + shift
    t.P.K.epilogue(&epilogue, rows, y.m, d, y.ldm)


cdef void write_bias_sums(
    Pass *t, Layer *y, Matrix d, Py_ssize_t blocks, char *out, bint add
) noexcept nogil:
    """Set the b part of the result of each vector to [result +] the column sums of d, added over
    `blocks` blocks of rows.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t x
    if P.ld_transposed:
        write_bias_sums_transposed(t, y, d, out, add)
        return
    if y.b < 0:
        return
    out += y.b * P.K.real_bytes
    for x in range(t.count):
        P.K.add_parts(
            y.m, blocks, t.scratch.sums + x * t.own, t.scratch.ldsums, add, out + x * t.out_step
        )


cdef void run_backward(Pass *t, char *out, bint add) noexcept nogil:
    """Run the backward pass: dW = delta' a_below; db = column sums of delta; e_below = delta W [+
    e]; delta = e * phi'; store e * phi''. If `out` is NULL, compute only delta and e * phi''.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, blocks = count_loss_blocks(t)
    cdef Layer *x
    cdef Layer *y
    cdef Matrix delta
    cdef fc_product job
    cdef Blocks sweep
    if P.packs_pairs:
        unpack_pairs(t)
    if out != NULL:
        run_row_blocks(t, sum_delta_block, &sweep)
    for l in range(P.n_layers - 1, -1, -1):
        y = &P.layer[l]
        delta = state_matrix(t, y, y.delta)
        if P.shared and l:
            transpose_into_packed(t, y.k, P.layer[l - 1].a, P.layer[l - 1].packed_transpose)
        if out != NULL:
            write_bias_sums(t, y, delta, blocks, out, add)
            begin_sum_over_rows(t, y, &job, add)
            if P.shared:
                add_packed_transpose_term(
                    t, &job, l, delta, P.layer[l - 1].packed_transpose if l else NULL
                )
            else:
                add_sum_over_rows(t, &job, delta, input_matrix(t, l))
            set_output_w(t, &job, y, out)
            run_product(t, &job)
        if l == 0:
            break
        x = &P.layer[l - 1]
        begin_product(t, &job, y.k)
        add_backward_term(t, &job, y, delta, y.W)
        set_output_e(t, &job, x, l)
        job.epilogue.kind = FC_EPILOGUE_BACKWARD
        set_d(&job.epilogue, state_matrix(t, x, x.du))
        set_derivatives(t, &job.epilogue, x, not x.derived)
        set_skip(
            &job.epilogue,
            scratch_matrix(t, y, t.scratch.e[(l + 1) & 1]) if y.skip else null_matrix()
        )
        set_column_sums(t, &job.epilogue)
        if x.norm == NULL:
            blocks = run_product(t, &job)
        else:
            blocks = run_batch_norm_backward(t, l - 1, &job, out, add)
        if blocks < 0:
            return


cdef inline Py_ssize_t count_loss_blocks(Pass *t) noexcept nogil:
    """Return the number of blocks of rows for which the loss is computed separately."""
    return 1 if t.serial else (t.rows + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS
