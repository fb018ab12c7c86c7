"""Evaluation of user-defined losses and activations, which are NumPy functions.

The forward pass stops at each user-defined function: after a layer, to compute its a, phi' and
phi'', and after the output layer, to compute the loss of the rows and its derivatives. The results
are stored in the matrices in which kernels would store theirs, so products need no further code.
The only exception is a loss whose second derivative couples the outputs, which has one matrix per
row.
"""
import numpy as np


cdef enum:
    # Maximum number of outputs of a coupled loss, as in fastcurv/structure/given.py.
    MAX_COUPLED_OUTPUTS = 64
    # columns per strip, a fixed number so that compilers vectorise the loop
    COUPLED_STRIP_COLUMNS = 32
    MAX_CALLBACK_ELEMENTS = 1 << 15  # maximum elements that are passed to an activation in one call


cdef inline Py_ssize_t groups_per_batch(PlanS *P) noexcept nogil:
    """Return the number of groups of panels per batch, a multiple of groups_per_call that is large
    enough to occupy all threads.
    """
    return (P.threads + P.groups_per_call - 1) // P.groups_per_call * P.groups_per_call


cdef void compute_gradient_by_groups(Job *job, Py_ssize_t r0) noexcept nogil:
    """Compute the gradient of the chunk that begins at row r0. Forward pass, loss and backward pass
    run for one batch of groups of panels at a time. All batches store their state in the same
    memory, which thus stays in the caches.
    """
    cdef PlanS *P = job.P
    cdef Py_ssize_t n_panels = count_panels(P, job.rows), groups = count_groups(P, job.rows)
    cdef char *out = job.out
    while job.until < groups:
        job.group, job.until = job.until, min(job.until + groups_per_batch(P), groups)
        P.before = n_panels * job.group // groups
        run_forward_with_callbacks(job, r0)
        job.stages, job.out = BACKWARD, out
        if P.failed or fc_watch_poll():
            break
        run_chunk(job)
    P.before, job.stages = 0, 0
    add_all_group_sums(job)


cdef void run_forward_with_callbacks(Job *job, Py_ssize_t r0) noexcept nogil:
    """Run the forward pass of the chunk that begins at row r0, on the job's range of groups. The
    pass stops after each layer with a user-defined activation, to evaluate that activation. If it
    accumulates the moments of a batch-normalised layer, it ends at that layer.
    """
    cdef PlanS *P = job.P
    cdef Py_ssize_t l
    job.stages, job.out = FORWARD, NULL
    for l in range(P.n_layers):
        if not (P.layer[l].user_phi or l == P.n_layers - 1):
            continue
        P.upto = l + 1
        run_chunk(job)
        if fc_watch_poll() or (P.stage == MOMENTS and P.target <= l):
            break
        if P.layer[l].user_phi:
            evaluate_callback(job, l, r0)
        P.from_layer = l + 1
    P.from_layer, P.upto = 0, P.n_layers
    if P.user_loss and P.stage == NO_STAGE and not fc_watch_poll():
        evaluate_callback(job, P.n_layers - 1, r0)


cdef void evaluate_callback(Job *job, Py_ssize_t l, Py_ssize_t r0) noexcept nogil:
    """Evaluate the user-defined activation of layer l or, for the output layer, the user-defined
    loss on the job's range of groups. The number of rows per call depends only on sizes.
    """
    cdef PlanS *P = job.P
    cdef Py_ssize_t groups = count_groups(P, job.rows), group = job.group, last, piece, end
    cdef Py_ssize_t until = job.until if job.until else groups
    while group < until and not P.failed:
        last = min(group + P.groups_per_call, until)
        piece = first_piece_of_group(P, job.rows, group)
        end = first_piece_of_group(P, job.rows, last)
        if l < P.n_layers - 1:
            evaluate_activation(P, l, r0, job.rows, piece, end)
        else:
            evaluate_loss(P, r0, job.rows, piece, end)
        fc_arithmetic_begin()   # signal handlers may have changed the floating-point settings
        group = last


cdef int check_returned_array(found, tuple shape, dtype) except -1:
    """Raise ValueError if an array returned by a user-defined function does not have the required
    shape and dtype, because later code copies it without further checks.
    """
    if found.shape != shape or found.dtype != dtype or not found.flags.c_contiguous:
        raise ValueError(
            f"a callback must return an array of shape {shape} and dtype {dtype}, got shape "
            f"{found.shape} and dtype {found.dtype}."
        )
    return 0


cdef void evaluate_activation(
    PlanS *P, Py_ssize_t l, Py_ssize_t r0, Py_ssize_t rows, Py_ssize_t piece, Py_ssize_t end
) noexcept with gil:
    """Compute a [+ the layer's input], phi' and phi'' for pieces of the current chunk, from the z
    that the forward pass stored in place of a.
    """
    cdef Plan plan = <Plan>P.callbacks
    cdef Layer *y = &P.layer[l]
    cdef Py_ssize_t until, first, count
    cdef Py_ssize_t step = max(
        1, MAX_CALLBACK_ELEMENTS // (y.m * (P.panel if P.ld_transposed else 1))
    )
    try:
        while piece < end:
            until = min(piece + step, end)
            first = first_row_of_piece(P, rows, piece)
            count = first_row_of_piece(P, rows, until) - first
            z = np.empty((count, y.m), plan.dtype)
            copy_pieces_from_state(P, y.a, y.m, y.ldm, rows, piece, until, pointer(z))
            a, p, q = plan.activations[l].rounded(z)
            for part in (a, p, q):
                check_returned_array(part, z.shape, plan.dtype)
            if y.skip and l:
                # z cannot be reused, because the activation may have returned z as phi''.
                below = np.empty((count, y.m), plan.dtype)
                copy_pieces_from_state(P, (y - 1).a, y.m, y.ldm, rows, piece, until, pointer(below))
                a = a + below
            elif y.skip:
                a = a + plan.rows.X[r0 + first:r0 + first + count]
            copy_pieces_to_state(P, y.a, y.m, y.ldm, rows, piece, until, pointer(a))
            copy_pieces_to_state(P, y.p, y.m, y.ldm, rows, piece, until, pointer(p))
            copy_pieces_to_state(P, y.q, y.m, y.ldm, rows, piece, until, pointer(q))
            piece = until
    except BaseException as error:
        plan.error, P.failed = error, True


cdef void evaluate_loss(
    PlanS *P, Py_ssize_t r0, Py_ssize_t rows, Py_ssize_t piece, Py_ssize_t end
) noexcept with gil:
    """Compute the loss, delta and h for pieces of the current chunk."""
    cdef Plan plan = <Plan>P.callbacks
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t first = first_row_of_piece(P, rows, piece)
    cdef Py_ssize_t last = first_row_of_piece(P, rows, end)
    try:
        z = np.empty((last - first, y.m), plan.dtype)
        copy_pieces_from_state(P, y.a, y.m, y.ldm, rows, piece, end, pointer(z))
        here = slice(r0 + first, r0 + last)
        weight = plan.rows.weight
        total, delta, h = plan.given(
            z, plan.rows.y[here], None if weight is None else weight[here]
        )
        check_returned_array(delta, z.shape, plan.dtype)
        check_returned_array(h, z.shape + (y.m,) if P.coupled else z.shape, plan.dtype)
        P.user_loss_value += total
        copy_pieces_to_state(P, <char *>P.loss.delta, y.m, y.ldm, rows, piece, end, pointer(delta))
        copy_pieces_to_state(
            P, <char *>P.loss.h, h[0].size, P.loss.ldh, rows, piece, end, pointer(h)
        )
    except BaseException as error:
        plan.error, P.failed = error, True


# --- copies of state matrices, by pieces: panels in the transposed layout, otherwise rows ---------

cdef inline Py_ssize_t count_pieces(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of pieces of a chunk of `rows` rows: panels in the transposed layout, else
    rows.
    """
    return count_panels(P, rows) if P.ld_transposed else rows


cdef inline Py_ssize_t first_row_of_piece(
    PlanS *P, Py_ssize_t rows, Py_ssize_t piece
) noexcept nogil:
    """Return the first row of a piece, counted from the start of the chunk."""
    return first_sample_of_panel(P, rows, piece) if P.ld_transposed else piece


cdef inline Py_ssize_t first_piece_of_group(
    PlanS *P, Py_ssize_t rows, Py_ssize_t group
) noexcept nogil:
    """Return the first piece of a group of panels. A plan without groups has one group of all rows.
    """
    cdef Py_ssize_t n_panels
    if not P.groups:
        return count_pieces(P, rows) if group else 0
    n_panels = count_panels(P, rows)
    n_panels = n_panels * group // count_groups(P, rows)
    return n_panels if P.ld_transposed else min(rows, n_panels * P.panel)


cdef inline char *piece_address(
    PlanS *P, char *state, Py_ssize_t piece, Py_ssize_t ld
) noexcept nogil:
    """Return the address of a piece's part of a matrix of the state."""
    piece -= P.before if P.ld_transposed else P.before * P.panel
    return row_address(P, state, state_row_of_panel(P, piece) if P.ld_transposed else piece, ld)


cdef void copy_pieces_from_state(
    PlanS *P, char *state, Py_ssize_t m, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t piece,
    Py_ssize_t until, char *out
) noexcept nogil:
    """Copy pieces [piece, until) of a matrix of a layer's state to `out`, one row of m elements for
    each row of X in these pieces.
    """
    cdef Py_ssize_t n, size = P.K.real_bytes
    while piece < until:
        n = first_row_of_piece(P, rows, piece + 1) - first_row_of_piece(P, rows, piece)
        if P.ld_transposed:
            P.K.transpose_columns(
                m, n, piece_address(P, state, piece, ld), P.ld_transposed, 1, 0, m, out, m
            )
        else:
            memcpy(out, piece_address(P, state, piece, ld), m * size)
        out += n * m * size
        piece += 1


cdef void copy_units_from_state(
    PlanS *P, char *state, Py_ssize_t m, Py_ssize_t ld, Py_ssize_t rows, char *out, Py_ssize_t ldo
) noexcept nogil:
    """Copy all pieces of a matrix of a layer's state into out (m, ldo), one row per unit."""
    cdef Py_ssize_t piece = 0, n, j, size = P.K.real_bytes
    cdef char *from_
    if not P.ld_transposed:
        P.K.transpose_columns(rows, m, piece_address(P, state, 0, ld), ld, 1, 0, rows, out, ldo)
        return
    for piece in range(count_pieces(P, rows)):
        n = first_row_of_piece(P, rows, piece + 1) - first_row_of_piece(P, rows, piece)
        from_ = piece_address(P, state, piece, ld)
        for j in range(m):
            memcpy(out + j * ldo * size, from_ + j * P.ld_transposed * size, n * size)
        out += n * size


cdef void copy_pieces_to_state(
    PlanS *P, char *state, Py_ssize_t m, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t piece,
    Py_ssize_t until, char *source
) noexcept nogil:
    """Copy rows of m elements from `source` into pieces [piece, until) of a matrix of the state.
    This is the inverse of `copy_pieces_from_state`. In the transposed layout, pad each panel with
    zeros.
    """
    cdef Py_ssize_t n, j, size = P.K.real_bytes
    cdef char *to
    if not P.ld_transposed:
        P.K.copy(until - piece, m, source, m, 1, piece_address(P, state, piece, ld), ld)
        return
    while piece < until:
        n = first_row_of_piece(P, rows, piece + 1) - first_row_of_piece(P, rows, piece)
        to = piece_address(P, state, piece, ld)
        P.K.copy(m, n, source, 1, m, to, P.ld_transposed)
        for j in range(m):
            memset(
                to + (j * P.ld_transposed + n) * size, 0, (round_up_to_cache_lines(P, n) - n) * size
            )
        source += n * m * size
        piece += 1


# --- losses whose second derivative couples the outputs -------------------------------------------

ctypedef fused number:
    float
    double


cdef void multiply_by_coupling(
    const number *h, Py_ssize_t ldh, number *x, Py_ssize_t ldx, Py_ssize_t rows, Py_ssize_t m
) noexcept nogil:
    """Set x[i] = h[i] x[i] for each row i, where h[i] is a matrix (m, m) and x[i] a vector (m,)."""
    cdef double found[MAX_COUPLED_OUTPUTS]
    cdef Py_ssize_t i, j, k
    for i in range(rows):
        for j in range(m):
            found[j] = 0
            for k in range(m):
                found[j] += <double>h[i * ldh + j * m + k] * x[i * ldx + k]
        for j in range(m):
            x[i * ldx + j] = <number>found[j]


cdef void multiply_by_coupling_transposed(
    const number *h, Py_ssize_t ldh, number *x, Py_ssize_t ldx, Py_ssize_t rows, Py_ssize_t m
) noexcept nogil:
    """Set x[:, i] = h[i] x[:, i] for each column i, where h[i] is a matrix (m, m), in the
    transposed layout. Columns are processed in strips, so that compilers vectorise the inner loop.
    """
    cdef double found[MAX_COUPLED_OUTPUTS * COUPLED_STRIP_COLUMNS]
    cdef Py_ssize_t first = 0, i, j, k, count
    cdef double *to
    cdef const number *hi
    cdef const number *xi
    while first < rows:
        count = min(<Py_ssize_t>COUPLED_STRIP_COLUMNS, rows - first)
        for j in range(m):
            to = found + j * COUPLED_STRIP_COLUMNS
            memset(to, 0, count * sizeof(double))
            for k in range(m):
                hi, xi = h + (j * m + k) * ldh + first, x + k * ldx + first
                for i in range(count):
                    to[i] += <double>hi[i] * xi[i]
        for j in range(m):
            for i in range(count):
                x[j * ldx + first + i] = <number>found[j * COUPLED_STRIP_COLUMNS + i]
        first += COUPLED_STRIP_COLUMNS


cdef void compute_coupled_rdelta(
    PlanS *P, const fc_loss_rows *here, Py_ssize_t rows, char *rz, Py_ssize_t ld
) noexcept nogil:
    """Compute rdelta = (d2 loss / dz2) rz in place of rz, whose leading dimension is `ld`. In the
    transposed layout, set the padding after the last sample to 0.
    """
    cdef Py_ssize_t j, size = P.K.real_bytes
    if P.K.real_bytes == 8 and P.ld_transposed:
        multiply_by_coupling_transposed[double](
            <const double *>here.h, P.ld_transposed, <double *>rz, ld, rows, P.d_out
        )
    elif P.ld_transposed:
        multiply_by_coupling_transposed[float](
            <const float *>here.h, P.ld_transposed, <float *>rz, ld, rows, P.d_out
        )
    elif P.K.real_bytes == 8:
        multiply_by_coupling[double](
            <const double *>here.h, here.ldh, <double *>rz, ld, rows, P.d_out
        )
    else:
        multiply_by_coupling[float](<const float *>here.h, here.ldh, <float *>rz, ld, rows, P.d_out)
    for j in range(P.d_out if P.ld_transposed else 0):
        memset(rz + (j * ld + rows) * size, 0, (round_up_to_cache_lines(P, rows) - rows) * size)
