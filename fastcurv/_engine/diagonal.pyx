"""The diagonal of a curvature matrix, exact up to rounding.

Weight (i, j) of a layer multiplies input a_j of unit i, so the entries of the diagonal are

    diag[i, j] = sum over samples of t_i a_j^2      diag[b_i] = sum over samples of t_i

where t_i is the second derivative of a sample's loss with respect to z_i. With K_h = dz_h / dz, the
derivatives of the pre-activations of layer h with respect to those of the current layer,

    t = sum over the current layer and all layers h above of (K_h * K_h)' s_h
        + row sums of D * D

In a hidden layer of the Hessian s is e phi''. In the output layer s is the second derivative of a
loss that is a sum over outputs. If the loss couples the outputs, D D' is its second derivative in
the output layer, and D is propagated backward as in gauss_newton.pyx:

    E_below = W' D [+ E]      D_below = E_below * phi'

where E is added for residual layers. K is 1 for the current layer and W phi' for the next layer h,
whose term phi'^2 * (W * W)' s_h is a single product. For higher layers the columns of K' are
further columns of D, one for each unit of layer h, with s_h as weights. So a GGN, and a Hessian
with up to two curved hidden layers, cost one backward pass per output. Each further curved hidden
layer costs one backward pass per unit. For the empirical Fisher matrix, t is N delta * delta.

The samples are processed in blocks in the transposed layout, in which the rows of a matrix are
units. In D, the first columns of all samples of a block come first, then the second columns, and so
on. Each group of blocks has its own sums, and these are added in order.

Error bound. Let the state at theta be given: a, phi', delta, the outputs and stored second
derivatives. Let u be the unit roundoff, N the number of samples, M the number of all units, d the
number of outputs, and sum over all layers of widths m. No term of an entry passes through more than

    n = N + M + 2 sum (m + 3) + 4 d + 24

roundings: fewer than N in the sum over samples, M + 2 d in the sum t, twice m + 2 per layer in a
product of two columns of D, twice d + 8 in a factor of the second derivative of the loss, and a few
in s, in squares and in the loss. The error of an entry is thus at most n u / (1 - n u) times the
entry for the absolute values of all factors.
"""
import numpy as np

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset


cdef enum:
    # Target size of a thread's matrices of a block of samples. From 128 KiB to 2 MiB, times differ
    # by at most 15% (64-32-16-10 to 784-512-512-10, Sapphire Rapids).
    DIAGONAL_BLOCK_BYTES = 1 << 19
    # bounds on the cache lines of samples in a block, unless the lower one exceeds
    # DIAGONAL_MAX_BYTES
    DIAGONAL_MIN_LINES = 7
    DIAGONAL_MAX_LINES = 31
    DIAGONAL_MAX_GROUPS = 16        # maximum number of groups of blocks
    # maximum bytes of the sums of all groups, unless there is one group
    DIAGONAL_MAX_BYTES = 1 << 26


cdef struct DiagonalWork:       # matrices of one thread; rows are units, columns are samples
    char *a                     # input of the current layer
    char *p                     # phi' of the current layer
    char *q                     # e * phi'' or delta of the current layer
    char *squares               # input of the current layer, squared elementwise
    char *t                     # t of the current layer
    char *term                  # one term of t
    char *weighted              # s times a row of D
    char **s                    # per layer: s, or NULL if s is 0 or the loss couples the outputs
    char *D[2]                  # D of the current layer and of the layer above
    char *E[2]                  # E, for networks with residual layers
    char *gemm                  # scratch buffer of the product kernels


cdef struct DiagonalJob:
    PlanS *P
    Kind kind
    int threads
    Py_ssize_t rows             # number of rows of the chunk
    Py_ssize_t step             # number of samples per block
    # Number of panels of the chunk in the transposed layout, otherwise 1, and blocks per panel.
    Py_ssize_t panels, blocks
    Py_ssize_t groups
    Py_ssize_t factor           # number of columns of a factor of the loss's second derivative
    Py_ssize_t *columns         # per layer: number of columns of D
    char **w                    # per layer above the first: W', (k, ldw)
    char **w_squares            # per layer above the first: W' squared elementwise
    Py_ssize_t *ldw
    DiagonalWork *work          # one per thread
    char *ones                  # `step` ones
    char *zeros                 # `step` zeros
    char *sums                  # sums of each group, (groups, n)
    bint add                    # True if sums exist from earlier chunks


cdef struct SampleBlock:
    Py_ssize_t panel            # panel of the transposed layout
    Py_ssize_t first            # first sample within the chunk
    Py_ssize_t offset           # first sample within the panel
    Py_ssize_t count            # number of samples
    Py_ssize_t ld               # number of samples, rounded up to whole cache lines


# --- the state at theta ---------------------------------------------------------------------------

cdef inline Matrix block_of_state(
    DiagonalJob *t, SampleBlock *b, char *state, Py_ssize_t m, Py_ssize_t ldm, char *to
) noexcept nogil:
    """Return the block's samples of a matrix of the state as a matrix (m, samples). In the
    transposed layout the matrix is in the state, otherwise it is copied to `to`.
    """
    cdef PlanS *P = t.P
    cdef Matrix block
    if P.ld_transposed:
        block.at = row_address(P, state, state_row_of_panel(P, b.panel), ldm)
        block.at += b.offset * P.K.real_bytes
        block.ld = P.ld_transposed
        return block
    block.at, block.ld = to, b.ld
    P.K.transpose_columns(
        b.count, m, row_address(P, state, b.first, ldm), ldm, 1, 0, b.count, to, b.ld
    )
    return block


cdef Matrix block_of_pairs(
    DiagonalJob *t, SampleBlock *b, Layer *y, char *a, char *p
) noexcept nogil:
    """Unpack the block's samples of phi to `a`, or of phi' to `p`, from the packed pairs of a
    layer. One of the pointers is NULL. Return the unpacked matrix.
    """
    cdef PlanS *P = t.P
    cdef Matrix pairs = block_of_state(t, b, y.phi_pair, y.m, y.ldm, NULL), block
    cdef Py_ssize_t i
    block.at, block.ld = a if p == NULL else p, b.ld
    for i in range(y.m):
        P.K.unpack_pairs(
            y.phi, b.ld, row_address(P, pairs.at, i, pairs.ld), row_address(P, a, i, b.ld),
            row_address(P, p, i, b.ld)
        )
    return block


cdef Matrix block_of_input(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, Py_ssize_t l
) noexcept nogil:
    """Return the input of layer l for the block's samples, as a matrix (k, samples)."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[l - 1]
    if l == 0:
        return block_of_state(t, b, P.x, P.layer[0].k, P.ldx, w.a)
    if y.phi_pair != NULL:
        return block_of_pairs(t, b, y, w.a, NULL)
    return block_of_state(t, b, y.a, y.m, y.ldm, w.a)


cdef fc_epilogue slope_epilogue(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, Py_ssize_t l, Matrix a
) noexcept nogil:
    """Return an epilogue d = c * phi' for layer l, whose output is a. The caller sets d."""
    cdef Layer *y = &t.P.layer[l]
    cdef fc_epilogue epilogue
    memset(&epilogue, 0, sizeof(epilogue))
    epilogue.kind = FC_EPILOGUE_R_BACKWARD
    if not y.has_p:
        return epilogue
    epilogue.phi = y.phi if y.derived else FC_IDENTITY
    if y.phi_pair != NULL:
        set_p(&epilogue, block_of_pairs(t, b, y, NULL, w.p))
    elif y.p != NULL:
        set_p(&epilogue, block_of_state(t, b, y.p, y.m, y.ldm, w.p))
    else:
        set_p(&epilogue, a)
    return epilogue


# --- the columns of D -----------------------------------------------------------------------------

cdef inline Py_ssize_t ld_of_columns(
    DiagonalJob *t, SampleBlock *b, Py_ssize_t l
) noexcept nogil:
    """Return the leading dimension of D of layer l."""
    return padded_ld(t.columns[l] * b.ld, t.P.K.real_bytes)


cdef void set_output_columns(DiagonalJob *t, DiagonalWork *w, SampleBlock *b) noexcept nogil:
    """Set s of the output layer or, if the loss couples the outputs, D of the output layer: a
    factor of the second derivative for cross entropy, and otherwise the unit matrix, followed by
    the second derivative.
    """
    cdef PlanS *P = t.P
    cdef Py_ssize_t top = P.n_layers - 1, d = P.d_out, i, size = P.K.real_bytes
    cdef Py_ssize_t ld = ld_of_columns(t, b, top)
    cdef char *D = w.D[top & 1]
    cdef char *s = w.s[top] if w.s[top] != NULL else w.squares
    cdef Py_ssize_t count = d * d if P.coupled else d
    cdef Matrix h = block_of_state(t, b, <char *>P.loss.h, count, P.loss.ldh, s)
    cdef char *weight = row_address(P, <char *>P.loss.s, b.first, 1)
    if w.s[top] != NULL:
        if h.at != s:
            P.K.copy(d, b.ld, h.at, h.ld, 1, s, b.ld)
        return
    memset(D, 0, d * ld * size)
    if P.coupled:
        for i in range(d):
            memcpy(D + (i * ld + i * b.ld) * size, t.ones, b.count * size)
            P.K.copy(
                d, b.ld, row_address(P, h.at, i * d, h.ld), h.ld, 1,
                D + (i * ld + d * b.ld) * size, b.ld
            )
    elif size == 8:
        write_softmax_factor[double](
            P.K, <const double *>h.at, h.ld, <const double *>weight, b.count, d, b.ld,
            <double *>D, ld, <double *>w.term
        )
    else:
        write_softmax_factor[float](
            P.K, <const float *>h.at, h.ld, <const float *>weight, b.count, d, b.ld,
            <float *>D, ld, <float *>w.term
        )


cdef void propagate_column(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, fc_epilogue *slopes, Py_ssize_t l,
    Py_ssize_t column, Py_ssize_t unit
) noexcept nogil:
    """Compute one column of E and D of layer l from that of the layer above or, if unit >= 0, as
    the derivative of z of this unit of the layer above.
    """
    cdef PlanS *P = t.P
    cdef Layer *x = &P.layer[l]
    cdef Layer *y = &P.layer[l + 1]
    cdef Py_ssize_t size = P.K.real_bytes, on = column * b.ld * size
    cdef Py_ssize_t ld = ld_of_columns(t, b, l), ld_above = ld_of_columns(t, b, l + 1)
    cdef fc_product job
    if unit < 0:
        job = describe_product(
            x.m, b.ld, y.m, t.w[l + 1], t.ldw[l + 1], 1, w.D[(l + 1) & 1] + on, ld_above, 0,
            w.term, b.ld, False
        )
    else:
        job = describe_product(
            x.m, b.ld, 1, t.w[l + 1] + unit * size, t.ldw[l + 1], 1, t.ones, 0, 0, w.term, b.ld,
            False
        )
    job.epilogue = slopes[0]
    job.epilogue.d, job.epilogue.ldd = w.D[l & 1] + on, ld
    if x.skip:
        job.c, job.ldc = w.E[l & 1] + on, ld
    if y.skip and unit < 0:
        job.epilogue.skip, job.epilogue.ldskip = w.E[(l + 1) & 1] + on, ld_above
    multiply_padded_block(t, w, &job, not x.skip)


cdef void multiply_padded_block(
    DiagonalJob *t, DiagonalWork *w, fc_product *job, bint c_unused
) noexcept nogil:
    """Compute a product of one term whose right operand and output are padded, and its epilogue."""
    job.unpadded, job.term[0].b_vs, job.c_unused = False, lanes_per_vector(t.P), c_unused
    run_serially(t.P.K, job, w.gemm)


# --- t of a layer ---------------------------------------------------------------------------------

cdef inline bint has_second_derivatives(DiagonalJob *t, Py_ssize_t l) noexcept nogil:
    """Return True if s of layer l exists."""
    cdef PlanS *P = t.P
    if l == P.n_layers - 1:
        return t.factor == 0 and t.kind != FISHER
    return t.kind == HESSIAN and P.layer[l].curved


cdef void begin_second_derivatives(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, Py_ssize_t l, Matrix a
) noexcept nogil:
    """Compute s and D of hidden layer l, whose output is a, and set t to the terms of layer l and
    of the layer above.
    """
    cdef PlanS *P = t.P
    cdef Layer *x = &P.layer[l]
    cdef Layer *y = &P.layer[l + 1]
    cdef Py_ssize_t c
    cdef fc_epilogue slopes = slope_epilogue(t, w, b, l, a), second = slopes
    cdef fc_product job
    slopes.d, slopes.ldd = w.t, b.ld
    if has_second_derivatives(t, l + 1):
        job = describe_product(
            x.m, b.ld, y.m, t.w_squares[l + 1], t.ldw[l + 1], 1, w.s[l + 1], b.ld, 0, w.term,
            b.ld, False
        )
        job.epilogue = slopes
        multiply_padded_block(t, w, &job, True)
        P.K.epilogue(&slopes, x.m, b.ld, w.t, b.ld)
    else:
        memset(w.t, 0, x.m * b.ld * P.K.real_bytes)
    if has_second_derivatives(t, l):
        set_q(&second, block_of_state(t, b, x.du if x.derived else x.q, x.m, x.ldm, w.q))
        second.a, second.lda, second.r, second.ldr = a.at, a.ld, t.ones, 0
        second.d, second.ldd = w.s[l], b.ld
        P.K.epilogue(&second, x.m, b.ld, t.zeros, 0)
        P.K.add_parts(x.m * b.ld, 1, w.s[l], 0, True, w.t)
    for c in range(t.columns[l + 1]):
        propagate_column(t, w, b, &slopes, l, c, -1)
    for c in range(t.columns[l] - t.columns[l + 1]):
        propagate_column(t, w, b, &slopes, l, t.columns[l + 1] + c, c)


cdef void add_terms_of_columns(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, Py_ssize_t l
) noexcept nogil:
    """Add the terms of the columns of D to t of layer l, except those of the layer above."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t h, i, size = P.K.real_bytes, ld = ld_of_columns(t, b, l), m = P.layer[l].m
    cdef Py_ssize_t count = t.factor // 2 if P.coupled else t.factor
    cdef char *D = w.D[l & 1]
    cdef char *other = D + count * b.ld * size if P.coupled else D
    if count:
        P.K.multiply_and_sum(m, count, b.ld, D, ld, other, ld, w.term, b.ld)
        P.K.add_parts(m * b.ld, 1, w.term, 0, True, w.t)
    for h in range(P.n_layers - 1, l + 1, -1):
        if not has_second_derivatives(t, h):
            continue
        count = P.layer[h].m
        for i in range(m):
            other = D + (i * ld + t.columns[h] * b.ld) * size
            P.K.multiply_and_sum(1, 1, count * b.ld, w.s[h], 0, other, 0, w.weighted, 0)
            P.K.multiply_and_sum(
                1, count, b.ld, w.weighted, 0, other, 0, w.term + i * b.ld * size, 0
            )
        P.K.add_parts(m * b.ld, 1, w.term, 0, True, w.t)


# --- the sums over samples ------------------------------------------------------------------------

cdef void add_block_to_diagonal(
    DiagonalJob *t, DiagonalWork *w, SampleBlock *b, char *out, bint add
) noexcept nogil:
    """Set the diagonal `out` to [out +] the sum over the samples of one block."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, size = P.K.real_bytes, top = P.n_layers - 1
    cdef Layer *y
    cdef Matrix a = null_matrix(), delta
    cdef fc_product job
    for l in range(top, -1, -1):
        y = &P.layer[l]
        if t.kind == FISHER:
            delta = block_of_state(t, b, y.delta, y.m, y.ldm, w.q)
            P.K.multiply_and_sum(y.m, 1, b.ld, delta.at, delta.ld, delta.at, delta.ld, w.t, b.ld)
            P.K.scale(y.m * b.ld, <double>P.N, w.t, w.t)
        elif l < top:
            begin_second_derivatives(t, w, b, l, a)
            add_terms_of_columns(t, w, b, l)
        else:
            set_output_columns(t, w, b)
            memset(w.t, 0, y.m * b.ld * size)
            if w.s[l] != NULL:
                memcpy(w.t, w.s[l], y.m * b.ld * size)
            add_terms_of_columns(t, w, b, l)
        a = block_of_input(t, w, b, l)
        P.K.multiply_and_sum(y.k, 1, b.ld, a.at, a.ld, a.at, a.ld, w.squares, b.ld)
        job = describe_product(
            y.m, y.k, b.count, w.t, b.ld, 1, w.squares, 1, b.ld, out + y.w * size, y.k, add
        )
        run_serially(P.K, &job, w.gemm)
        if y.b >= 0:
            job = describe_product(
                1, y.m, b.count, t.ones, 0, 1, w.t, 1, b.ld, out + y.b * size, y.m, add
            )
            run_serially(P.K, &job, w.gemm)


cdef void add_group_to_diagonal(void *context, Py_ssize_t group, int member) noexcept nogil:
    """Add the blocks of one group to the sums of the group, as one part of a job of the thread
    team.
    """
    cdef DiagonalJob *t = <DiagonalJob *>context
    cdef PlanS *P = t.P
    cdef Py_ssize_t count = t.panels * t.blocks, i, end
    cdef SampleBlock b
    cdef bint add = t.add
    for i in range(count * group // t.groups, count * (group + 1) // t.groups):
        if fc_team_cancelled(member):
            return
        b.panel, b.offset = i // t.blocks, i % t.blocks * t.step
        b.first = b.offset
        end = t.rows
        if P.ld_transposed:
            b.first += first_sample_of_panel(P, t.rows, b.panel)
            end = first_sample_of_panel(P, t.rows, b.panel + 1)
        b.count = min(t.step, end - b.first)
        b.ld = round_up_to_cache_lines(P, b.count)
        if b.count > 0:
            add_block_to_diagonal(
                t, &t.work[member], &b, t.sums + group * P.n * P.K.real_bytes, add
            )
            add = True
    if not add:
        memset(t.sums + group * P.n * P.K.real_bytes, 0, P.n * P.K.real_bytes)


# --- memory and the call --------------------------------------------------------------------------

cdef size_t lay_out_diagonal(DiagonalJob *t, char *base) noexcept nogil:
    """Lay out the matrices of a job with blocks of `step` samples in the memory at `base`, and
    return the number of bytes that they take. If base is NULL, only count the bytes.
    """
    cdef PlanS *P = t.P
    cdef Arena arena
    cdef Py_ssize_t l, i, size = P.K.real_bytes, widest = 1, numbers = P.d_out, elements = 0
    cdef bint residual = False
    cdef Layer *y
    cdef DiagonalWork *w
    if P.coupled:
        numbers *= P.d_out
    memset(&arena, 0, sizeof(arena))
    arena.base = base
    t.ones = arena_alloc(&arena, t.step, size)
    t.zeros = arena_alloc(&arena, t.step, size)
    t.sums = arena_alloc(&arena, t.groups * P.n, size)
    for l in range(P.n_layers):
        y = &P.layer[l]
        widest, numbers, residual = max(widest, y.m), max(numbers, y.k), residual or y.skip
        elements = max(elements, y.m * padded_ld(t.columns[l] * t.step, size))
        if l and t.kind != FISHER:
            t.w[l] = arena_alloc(&arena, y.k * t.ldw[l], size)
            t.w_squares[l] = arena_alloc(&arena, y.k * t.ldw[l], size)
    for i in range(t.threads):
        w = &t.work[i]
        w.a = arena_alloc(&arena, numbers * t.step, size)
        w.squares = arena_alloc(&arena, numbers * t.step, size)
        w.p = arena_alloc(&arena, widest * t.step, size)
        w.q = arena_alloc(&arena, widest * t.step, size)
        w.t = arena_alloc(&arena, widest * t.step, size)
        w.term = arena_alloc(&arena, widest * t.step, size)
        w.weighted = arena_alloc(&arena, widest * t.step, size)
        for l in range(P.n_layers):
            if has_second_derivatives(t, l):
                w.s[l] = arena_alloc(&arena, P.layer[l].m * t.step, size)
        for l in range(2):
            w.D[l] = arena_alloc(&arena, elements, size)
            w.E[l] = arena_alloc(&arena, elements if residual else 0, size)
        w.gemm = arena_alloc(&arena, P.K.scratch, 1)
    return (<size_t>-1) // 2 if arena.overflow else arena.used


cdef void count_columns(DiagonalJob *t) noexcept nogil:
    """Set the number of columns of D of each layer."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, count
    if t.kind == FISHER:
        return
    if P.coupled:
        t.factor = 2 * P.d_out
    elif P.loss.kind == FC_CROSS_ENTROPY:
        t.factor = max(<Py_ssize_t>1, P.d_out - 1)
    count = t.factor
    for l in range(P.n_layers - 1, -1, -1):
        if 0 < l < P.n_layers - 1 and has_second_derivatives(t, l + 1):
            count += P.layer[l + 1].m
        t.columns[l], t.ldw[l] = count, padded_ld(P.layer[l].m, P.K.real_bytes)


cdef void set_weights(DiagonalJob *t) noexcept nogil:
    """Copy W' and its elementwise square, and set the vectors of ones and zeros."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t l, i, size = P.K.real_bytes, ld
    cdef Layer *y
    memset(t.zeros, 0, t.step * size)
    for i in range(t.step):
        if size == 8:
            (<double *>t.ones)[i] = 1
        else:
            (<float *>t.ones)[i] = 1
    for l in range(1, P.n_layers if t.kind != FISHER else 1):
        y, ld = &P.layer[l], t.ldw[l]
        P.K.transpose_columns(y.m, y.k, P.theta + y.w * size, y.k, 1, 0, y.m, t.w[l], ld)
        P.K.multiply_and_sum(1, 1, y.k * ld, t.w[l], 0, t.w[l], 0, t.w_squares[l], 0)


cdef void add_chunks_to_diagonal(DiagonalJob *t, char *out) noexcept nogil:
    """Set `out` to the diagonal, the sum over all chunks."""
    cdef PlanS *P = t.P
    cdef Py_ssize_t r0 = 0
    set_weights(t)
    while r0 < P.N and not fc_watch_poll():
        if P.at_chunk != r0 or P.done < 2:
            evaluate_chunk(P, r0, True, NULL, False)
        t.rows = min(P.chunk, P.N - r0)
        t.panels = count_panels(P, t.rows) if P.ld_transposed else 1
        t.blocks = ((P.panel if P.ld_transposed else t.rows) + t.step - 1) // t.step
        fc_team_run(t.threads, t.groups, add_group_to_diagonal, t)
        t.add = True
        r0 += P.chunk
    P.K.add_parts(P.n, t.groups, t.sums, P.n, False, out)


cdef object compute_diagonal(Plan plan, Kind kind):
    """Return the diagonal (n,) of an operator, without the l2 penalty, in the plan's dtype. The
    plan has no batch normalisation.
    """
    cdef PlanS *P = &plan.P
    cdef DiagonalJob t
    cdef Py_ssize_t line = elements_per_cache_line(P), line_bytes, lines, blocks, most_groups, i
    cdef Py_ssize_t rows = P.panel if P.ld_transposed else P.chunk
    cdef fc_watch before
    cdef char *to
    cdef char **lists = <char **>calloc((4 + P.threads) * P.n_layers, sizeof(char *))
    memset(&t, 0, sizeof(t))
    t.P, t.kind, t.threads, t.groups, t.step = P, kind, 1, 1, line
    t.work = <DiagonalWork *>calloc(P.threads, sizeof(DiagonalWork))
    try:
        if lists == NULL or t.work == NULL:
            raise MemoryError("Not enough memory for a list of matrices.")
        t.w, t.w_squares = lists, lists + P.n_layers
        t.columns = <Py_ssize_t *>(lists + 2 * P.n_layers)
        t.ldw = <Py_ssize_t *>(lists + 3 * P.n_layers)
        for i in range(P.threads):
            t.work[i].s = lists + (4 + i) * P.n_layers
        count_columns(&t)
        # The bytes of one more cache line of samples determine the length of a block.
        line_bytes = lay_out_diagonal(&t, NULL)
        t.step = 2 * line
        line_bytes = max(<Py_ssize_t>1, <Py_ssize_t>lay_out_diagonal(&t, NULL) - line_bytes)
        lines = min(<Py_ssize_t>DIAGONAL_MIN_LINES, DIAGONAL_MAX_BYTES // line_bytes)
        lines = max(lines, max(<Py_ssize_t>1, DIAGONAL_BLOCK_BYTES // line_bytes))
        lines = min(lines, <Py_ssize_t>DIAGONAL_MAX_LINES)
        blocks = (rows + lines * line - 1) // (lines * line)
        t.step = round_up_to_cache_lines(P, (rows + blocks - 1) // blocks)
        blocks *= count_panels(P, P.chunk) if P.ld_transposed else 1
        most_groups = DIAGONAL_MAX_BYTES // (P.n * P.K.real_bytes)
        t.groups = max(<Py_ssize_t>1, min(blocks, most_groups, <Py_ssize_t>DIAGONAL_MAX_GROUPS))
        t.threads = min(P.threads, t.groups)
        room = take_workspace((lay_out_diagonal(&t, NULL) + FC_ALIGN) // sizeof(double) + 1)
        lay_out_diagonal(&t, align_up(pointer(room)))
        out = np.empty(P.n, plan.dtype)
        to = pointer(out)
        with plan.lock, nogil:
            before = begin_signal_watch()
            add_chunks_to_diagonal(&t, to)
            plan.end_watch(before)
        keep_workspace(room)
        return out
    finally:
        free(t.work)
        free(lists)
