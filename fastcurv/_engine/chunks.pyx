"""Loops over all rows of a plan, chunk by chunk: evaluation at theta, jobs along v, and
accumulation of the means of batch-normalised layers.
"""
from libc.math cimport NAN
from libc.string cimport memcpy, memset


# --- evaluation at theta --------------------------------------------------------------------------

cdef void load_chunk(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
    """Set the plan's pointers to the rows of the chunk that begins at row r0. X is copied into the
    plan's own padded memory unless a padded copy of all of X exists.
    """
    cdef int size = P.K.real_bytes
    cdef Data *D = P.data
    if P.ld_transposed:
        if P.chunk < P.N or not P.loaded:
            load_transposed_chunk(P, r0, rows)
            P.loaded = True
    elif P.chunk == P.N:
        P.x = D.x
    else:
        P.K.copy(rows, P.layer[0].k, D.X + r0 * D.x_rs * size, D.x_rs, D.x_cs, P.x, P.ldx)
    if D.y != NULL:
        P.loss.y, P.loss.ldy = D.y + r0 * D.ldy * size, D.ldy
    if D.labels != NULL:
        P.loss.labels = D.labels + r0
    if D.weight != NULL:
        P.loss.weight = D.weight + r0 * size


cdef bint has_transient_state(PlanS *P, Job *job) noexcept nogil:
    """Return True if each panel's state may overwrite the state of another panel, so that the
    memory of the state stays in the caches. This requires that only the gradient is computed, and
    that there are more panels than threads.
    """
    return (
        P.transient and job.out != NULL and job.stages == FORWARD | BACKWARD
        and P.panel and not P.shared
        and (P.threads < count_panels(P, job.rows) if P.callbacks == NULL else
             groups_per_batch(P) < count_groups(P, job.rows))
    )


cdef void evaluate_chunk(PlanS *P, Py_ssize_t r0, bint back, char *out, bint add) noexcept nogil:
    """Compute those parts of the state of the chunk that begins at row r0 that are not up to date,
    by the forward pass and, if `back`, the backward pass. Unless `out` is NULL, write or add
    (`add`) the gradient of the chunk to `out`.
    """
    cdef Job job
    cdef bint fresh = P.at_chunk != r0 or P.done == 0, transient
    memset(&job, 0, sizeof(job))
    job.P, job.rows, job.out, job.add = P, min(P.chunk, P.N - r0), out, add
    job.stages = (FORWARD if fresh else 0) | (
        BACKWARD if back and (out != NULL or P.done < 2 or fresh) else 0
    )
    # A child process that another thread forks during the passes inherits an incomplete state.
    P.at_chunk, P.done = -1, 0
    if fresh:
        load_chunk(P, r0, job.rows)
    transient = has_transient_state(P, &job)
    if fresh and P.callbacks != NULL:
        P.user_loss_value = 0
        if transient:
            compute_gradient_by_groups(&job, r0)
        else:
            run_forward_with_callbacks(&job, r0)
            job.stages, job.out = BACKWARD if back else 0, out
    else:
        job.transient = transient
    if job.stages:
        run_chunk(&job)
    if not transient:
        P.at_chunk, P.done = r0, 2 if back else 1


cdef double chunk_loss(PlanS *P, Py_ssize_t r0) noexcept nogil:
    """Return the loss of the current chunk, its blocks added in order."""
    cdef Py_ssize_t rows = min(P.chunk, P.N - r0), i
    cdef bint by_panels = P.panel and not P.shared
    cdef double value = 0
    if P.failed:
        return NAN
    if P.user_loss:
        return P.user_loss_value
    for i in range(
        count_panels(P, rows) if by_panels
        else (rows + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS
    ):
        value += P.block_losses[i]
    return value


cdef double evaluate_chunks(PlanS *P, bint gradient, char *out, bint add) noexcept nogil:
    """Evaluate all chunks at theta and return the loss. If `gradient`, also compute the gradient
    and write or add (`add`) it to `out`.
    """
    cdef Py_ssize_t r0 = 0
    cdef double value = 0
    accumulate_means_at_theta(P, gradient)
    while r0 < P.N and not fc_watch_poll():
        evaluate_chunk(P, r0, gradient, out, add)
        value += chunk_loss(P, r0)
        add = True
        r0 += P.chunk
    return value


cdef void copy_state_rows(
    PlanS *P, Layer *y, char *state, Py_ssize_t r0, char *out, Py_ssize_t ld
) noexcept nogil:
    """Copy the current chunk's rows of a matrix of a layer's state into out (N, m). If ld is not 0,
    out has one row per unit instead: (m, ld). Do nothing if `state` or `out` is NULL.
    """
    cdef Py_ssize_t rows = min(P.chunk, P.N - r0)
    if state == NULL or out == NULL:
        return
    if ld:
        copy_units_from_state(P, state, y.m, y.ldm, rows, out + r0 * P.K.real_bytes, ld)
    else:
        copy_pieces_from_state(
            P, state, y.m, y.ldm, rows, 0, count_pieces(P, rows), out + r0 * y.m * P.K.real_bytes
        )


cdef void fill_with_nan(PlanS *P, Py_ssize_t n, char *x) noexcept nogil:
    """Set the n elements of x to NaN. Do nothing if x is NULL."""
    cdef Py_ssize_t i
    for i in range(n if x != NULL else 0):
        if P.K.real_bytes == 8:
            (<double *>x)[i] = NAN
        else:
            (<float *>x)[i] = NAN


cdef void copy_unpacked_pairs(
    PlanS *P, Layer *y, Py_ssize_t r0, char *a, char *p, Py_ssize_t ld
) noexcept nogil:
    """Unpack the current chunk's rows of a and phi' of a layer that stores packed pairs, as
    copy_state_rows copies other matrices. Either of the destinations a and p may be NULL.
    """
    cdef Py_ssize_t rows = min(P.chunk, P.N - r0), j, size = P.K.real_bytes
    cdef Py_ssize_t count = rows if ld else rows * y.m
    cdef char *pairs = a if a != NULL else p
    cdef char *a_at
    cdef char *p_at
    cdef Py_ssize_t on
    if y.phi_pair == NULL or pairs == NULL:
        return
    copy_state_rows(P, y, y.phi_pair, r0, pairs, ld)
    for j in range(y.m if ld else 1):
        on = (r0 + j * ld if ld else r0 * y.m) * size
        a_at, p_at = a + on if a != NULL else NULL, p + on if p != NULL else NULL
        P.K.unpack_pairs(y.phi, count, pairs + on, a_at, p_at)
        if P.nan:               # packed pairs do not record which elements were NaN
            fill_with_nan(P, count, a_at)
            fill_with_nan(P, count, p_at)


cdef void copy_state_matrices(PlanS *P, bint back, char **out, Py_ssize_t ld) noexcept nogil:
    """Copy the state at theta into the matrices in out. For each layer, the matrices are a, phi', e
    * phi'' and delta, (N, m) each. They are followed by the loss's second derivative h (N, d_out)
    and s (N,). If ld is not 0, matrices have one row per unit: (m, ld). Pointers that are NULL are
    skipped.
    """
    cdef Layer *y
    cdef Py_ssize_t r0 = 0, l
    while r0 < P.N and not fc_watch_poll():
        if P.at_chunk != r0 or P.done < 1 + back:
            evaluate_chunk(P, r0, back, NULL, False)
        for l in range(P.n_layers):
            y = &P.layer[l]
            copy_state_rows(P, y, y.a, r0, out[4 * l], ld)
            copy_state_rows(P, y, y.p, r0, out[4 * l + 1], ld)
            copy_unpacked_pairs(P, y, r0, out[4 * l], out[4 * l + 1], ld)
            copy_state_rows(P, y, y.q, r0, out[4 * l + 2], ld)
            copy_state_rows(P, y, y.delta, r0, out[4 * l + 3], ld)
        y = &P.layer[P.n_layers - 1]
        copy_state_rows(P, y, <char *>P.loss.h, r0, out[4 * P.n_layers], ld)
        if out[4 * P.n_layers + 1] != NULL:
            memcpy(
                out[4 * P.n_layers + 1] + r0 * P.K.real_bytes, P.loss.s,
                min(P.chunk, P.N - r0) * P.K.real_bytes
            )
        r0 += P.chunk


# --- jobs along v ---------------------------------------------------------------------------------

cdef void set_active_layers(PlanS *P, const char *active) noexcept nogil:
    """Record in which layers v is nonzero, those for which `active` is nonzero. If `active` is
    NULL, these are all layers. Values that do not change are not written, because a store would
    invalidate the cache lines of all threads.
    """
    cdef Py_ssize_t l, first = P.n_layers
    cdef char moved
    for l in range(P.n_layers - 1, -1, -1):
        moved = active[l] if active != NULL else 1
        if P.active[l] != moved:
            P.active[l] = moved
        if moved:
            first = l
    if P.first_active != first:
        P.first_active = first


cdef void run_job_over_chunks(Job *job, char *out, Py_ssize_t out_step) noexcept nogil:
    """Run the job over all chunks. The result `out` is a sum over rows, (n,), or for a JVP one row
    per sample. Results of successive vectors lie out_step bytes apart.
    """
    cdef PlanS *P = job.P
    cdef Py_ssize_t r0, j
    cdef bint by_rows = job.kind == JVP
    job.out, job.out_step, job.add = out, out_step, job.l2 != 0
    # Layer-parallel jobs of several vectors pack each vector in run_layers, and a VJP packs none.
    if job.kind != VJP and (P.panel and not P.shared or job.vectors == 1):
        for j in range(job.vectors):
            prepare_vector(job, j, j)
    accumulate_means_along_v(job)
    r0 = 0
    while r0 < P.N:
        if P.at_chunk != r0 or P.done < 2:
            evaluate_chunk(P, r0, True, NULL, False)
        job.rows = min(P.chunk, P.N - r0)
        job.out = out + (r0 * P.d_out * P.K.real_bytes if by_rows else 0)
        job.u = job.v + r0 * P.d_out * P.K.real_bytes
        run_chunk(job)
        job.add, job.l2 = True, 0
        r0 += P.chunk
        if r0 < P.N and fc_watch_poll():
            return


# --- means of batch-normalised layers, one layer at a time ----------------------------------------

cdef void accumulate_stage_means(PlanS *P, Job *job, Stage stage, Py_ssize_t l) noexcept nogil:
    """Accumulate the means of `stage` for layer l in one pass over all rows. The means of the
    layers that the pass runs before layer l must be known.
    """
    cdef Pass t = new_pass(P, &P.team_scratch, False, job.kind)
    cdef Py_ssize_t r0 = 0
    cdef int wanted = 0 if stage == MOMENTS else 2 if stage == RDU_MEANS else 1
    P.stage, P.seen = NO_STAGE, 0
    while r0 < P.N:
        t.rows = min(P.chunk, P.N - r0)
        if wanted == 0:
            load_chunk(P, r0, t.rows)
        elif P.at_chunk != r0 or P.done < wanted:
            evaluate_chunk(P, r0, wanted == 2, NULL, False)
        P.stage, P.target = stage, l
        if stage == MOMENTS or stage == DU_MEANS:
            P.at_chunk = -1     # the stored state of the chunk becomes incomplete
        if stage == MOMENTS:
            job.P, job.rows = P, t.rows
            run_forward_with_callbacks(job, r0)
        elif stage == DU_MEANS:
            run_backward(&t, NULL, False)
        else:
            if job.kind != VJP:
                run_r_forward(&t, False)
            if stage == RDU_MEANS:
                compute_rdelta(&t, job.v + r0 * P.d_out * P.K.real_bytes)
                run_r_backward(&t, NULL, False)
        P.stage = NO_STAGE
        r0 += P.chunk
        if fc_watch_poll():
            return


cdef void accumulate_means_at_theta(PlanS *P, bint gradient) noexcept nogil:
    """Accumulate means and variances of z from the first layer upwards and then, if `gradient`, the
    means of du from the last hidden layer downwards.
    """
    cdef Py_ssize_t l
    cdef Job job
    if not accumulates_by_layer(P):
        return
    memset(&job, 0, sizeof(job))
    for l in range(P.n_layers - 1):
        accumulate_stage_means(P, &job, MOMENTS, l)
    for l in range(P.n_layers - 2 if gradient else -1, -1, -1):
        accumulate_stage_means(P, &job, DU_MEANS, l)


cdef void accumulate_means_along_v(Job *job) noexcept nogil:
    """Accumulate the means along one vector that the job needs: those of rz from the first layer
    upwards, then those of rdu downwards.
    """
    cdef PlanS *P = job.P
    cdef Py_ssize_t l
    if not accumulates_by_layer(P):
        return
    if job.kind != VJP:
        for l in range(P.first_active, P.n_layers - 1):
            accumulate_stage_means(P, job, RZ_MEANS, l)
    if job.stages & PRODUCT and job.kind != JVP:
        for l in range(P.n_layers - 2, P.first_active - 1, -1):
            accumulate_stage_means(P, job, RDU_MEANS, l)
