"""The state of a plan, and the descriptions of passes and jobs.

Notation as in passes.pyx: layer y has k inputs and m outputs, W is (m, k), and V is the part of the
vector v that corresponds to W. A chunk is the range of rows whose state is stored at one time, a
panel a range of rows that one thread takes through all layers, and a group a range of panels whose
sums over rows share one buffer. A block of vectors is the set of vectors to which one job applies
the operator. Element means a number of the plan's real type; "padded" means that rows are padded to
whole cache lines.
"""
from libc.stdint cimport int32_t


# A matrix of elements, in which row i begins i * ld elements after `at`. `at` is NULL if the matrix
# does not exist.
cdef struct Matrix:
    char *at
    Py_ssize_t ld


# W and b of a layer, or V and vb, the corresponding parts of a vector.
cdef struct Weights:
    char *packed_transpose_w                # packed W', right operand of a W'
    char *packed_w                  # packed W, right operand of delta W
    char *b                     # bias, padded to ldm elements, or NULL
    char *flat                  # flat vector that contains W and b


# State of a batch-normalised layer; see batch_norm.pyx. du is defined in `Layer`, and vgamma is the
# part of v that corresponds to gamma. Vectors have shape (m,). Means are taken over all N rows.
cdef struct Norm:
    Py_ssize_t gamma, beta      # offsets of gamma and beta in theta
    char *h                     # (rows, m) normalised z: (z - mean) s
    char *mean                  # mean of z
    char *s                     # 1 / sqrt(variance of z + eps)
    char *scale                 # s gamma
    char *du_mean               # mean of du
    char *du_h                  # mean of du h
    char *rz_mean               # mean of rz
    char *c                     # mean of rz h
    char *r_scale               # s (vgamma - s c gamma)
    char *rdu_mean              # mean of rdu
    char *rdu_h                 # mean of rdu h + du rh
    char *zeros                 # m zeros
    double *parts               # (blocks of rows, 2, ldm) partial sums
    double *here                # (2, ldm) sums over the rows of the current chunk
    double *sums                # (2, ldm) sums over all chunks so far
    double *moments             # (2, ldm) mean and variance of z


cdef struct Layer:
    Py_ssize_t m, k             # number of outputs, number of inputs
    Py_ssize_t ldm, ldk         # leading dimensions of (rows, m) and (rows, k) matrices
    Py_ssize_t w, b             # offsets of W and b in theta; b < 0: no bias
    fc_activation phi
    # has_p: phi' is not constant 1. curved: phi'' is not 0 everywhere. skip: the layer is residual,
    # so its input is added to its output. user_phi: phi is a user-defined activation.
    bint has_p, curved, skip, user_phi
    # True if e * phi'' (for relu: phi') is recomputed from a and delta instead of being stored.
    bint derived
    Weights W
    # Packed parts of the first vector of a block. The parts of the next vector lie v_step bytes
    # further, and so on.
    Weights V
    char *a                     # (rows, m) phi(z); z in the output layer
    char *packed_transpose      # shared plans: packed a', (rows, m)
    char *p                     # (rows, m) phi'(z), or NULL
    # (rows, m) packed pairs of phi and phi' (see activations.inc), or NULL. If phi_pair is set, `a`
    # and `p` are NULL, and passes unpack both into their scratch buffer.
    char *phi_pair
    # (rows, m) e * phi''(z), or NULL; between the forward and the backward pass, phi''(z).
    char *q
    char *delta                 # (rows, m) dL/dz
    # (rows, m) derivative of the loss with respect to the argument of phi; equal to delta unless
    # the layer is batch-normalised.
    char *du
    Norm *norm                  # NULL: the layer is not batch-normalised


cdef inline bint can_fuse_output(const Layer *top) noexcept nogil:
    """Return True if the products of the output layer can be fused with those of the layer below,
    because the output layer is narrow, phi' of the layer below is not constant, and neither layer
    is residual.
    """
    return top.m <= FC_MAX_NARROW and (top - 1).has_p and not (top.skip or (top - 1).skip)


cdef inline bint stores_slopes(const Layer *y) noexcept nogil:
    """Return True if phi' is stored, as a matrix or in packed pairs with phi."""
    return y.p != NULL or y.phi_pair != NULL


cdef struct Scratch:            # scratch buffers of a pass, for one thread or for the thread team
    char **ra                   # (rows, m) ra of each layer
    char **rz                   # (rows, m) rz of each layer; overwritten by rdelta in R-backward
    char *e[2]                  # (rows, widest layer) re of the current layer and of the one above
    char *packed_transpose      # shared plans: packed ra' of one layer, (rows, m)
    # (rows, m) phi and phi', unpacked from the layer that stores them as packed pairs
    char *a
    char *p
    char *sums                  # column sums, one row per block of rows
    Py_ssize_t ldsums
    double *totals              # totals that an epilogue adds up, one per item of a product
    char *gemm                  # scratch buffer of the product kernels


cdef enum Kind:
    HESSIAN, GGN, FISHER, JVP, VJP


# The means of a batch-normalised layer that a pass accumulates, if rows come in chunks.
cdef enum Stage:
    NO_STAGE, MOMENTS, DU_MEANS, RZ_MEANS, RDU_MEANS


cdef struct Data:               # data of the objective; strides are in elements
    char *x                     # padded copy of X, or NULL
    Py_ssize_t ldx
    char *X                     # X, y, labels and weights as passed by the caller
    Py_ssize_t x_rs, x_cs
    char *y
    Py_ssize_t ldy
    int32_t *labels
    char *weight


cdef struct PlanS:
    const fc_table *K
    Py_ssize_t n_layers, n, N, d_out
    Layer *layer
    Py_ssize_t chunk            # number of rows whose state is stored at one time
    # panel: rows per panel, or 0 if the plan is layer-parallel. groups: number of groups of panels.
    Py_ssize_t panel, groups
    # panel-parallel plans: number of work units (panels or groups of panels), each with its own
    # sums
    Py_ssize_t work_units
    # Transposed layout: the leading dimension of every matrix of a panel, which is also the number
    # of rows of state per panel. 0: row-major layout, in which samples are rows.
    Py_ssize_t ld_transposed
    Py_ssize_t panels           # transposed layout: number of panels into which all N rows are cut
    # Transposed layout with a single panel of all rows, whose products are split over all threads.
    bint shared
    # Layer-parallel plan that does not pack W and V, because too few rows would use the packed
    # copies.
    bint unpacked
    char *ones                  # transposed layout: vector of ones, one for each sample of a panel
    int threads
    bint l2_skips_biases        # True if the l2 penalty excludes the biases
    char *theta                 # flat parameters, contiguous; owned by the plan
    Data *data
    char *x                     # (rows, d_in) inputs of the current chunk
    Py_ssize_t ldx
    # Loss of the current chunk: kind, divisor, targets and stored derivatives.
    fc_loss_rows loss
    double *block_losses        # loss values, one per block of rows
    # The Plan object that calls user-defined functions, or NULL if there are none. The user-defined
    # function is the loss if `user_loss` is set, and else the activation of some layers.
    void *callbacks
    bint user_loss
    # True after a callback has raised an exception; see `Plan.raise_callback_error`.
    bint failed
    Py_ssize_t from_layer, upto  # range of layers of the forward pass
    # User-defined loss whose second derivative with respect to the row's outputs z is a full matrix
    # for each row; `loss.h` then has the shape (rows, d_out * d_out).
    bint coupled
    double user_loss_value      # value of a user-defined loss on the current chunk
    # Panel-parallel plans with user-defined functions evaluate groups_per_call groups of panels per
    # callback; `before` is the number of panels of the chunk before the first panel of the call,
    # whose state is stored first.
    Py_ssize_t groups_per_call, before
    double total                # loss plus l2 penalty at theta, from the last evaluation
    Py_ssize_t first_active     # lowest layer in which v is not 0
    char *active                # per layer: nonzero if v is not 0 in that layer
    Py_ssize_t max_vectors      # maximum number of vectors per job
    Py_ssize_t v_step           # bytes from the packed parts of one vector to those of the next
    # Panel-parallel plans: sums of each work unit, (work_units, max_vectors, ldg).
    char *unit_sums
    # Panel-parallel plans: partial quadratic forms, (panels, max_vectors).
    double *panel_totals
    Py_ssize_t ldg
    Scratch team_scratch        # layer-parallel and shared plans: scratch of the thread team
    # One scratch per thread. Layer-parallel and shared plans use only the field `gemm`.
    Scratch *thread_scratch
    # Panel-parallel plans: scratch of each thread for a stack of vectors, that is, for the vectors
    # that a panel processes together; it points at the buffers of the first vector.
    Scratch *stack_scratch
    # Bytes from the buffers of one vector in `stack_scratch` to those of the next; 0: a panel
    # processes one vector at a time.
    Py_ssize_t stack_step
    # Batch-normalised layers with several chunks: the means that are accumulated (`stage`), for the
    # layer `target`, over `seen` rows so far.
    Stage stage
    Py_ssize_t target, seen
    char *v                     # current vector, flat
    char *saved_v               # (n,) copy of v for a product whose output overwrites v, or NULL
    Py_ssize_t at_chunk         # first row of the chunk whose state is stored, or -1
    int done                    # passes completed on that chunk: 0 none, 1 forward, 2 backward
    bint loaded                 # transposed layout: True if `x` holds X
    # True if the state at theta serves a single evaluation and may then be overwritten.
    bint transient
    Py_ssize_t state_bytes      # bytes of the state at theta of all rows, including X
    bint state_fits_l3          # True if the state at theta fits in the L3 cache
    bint packs_pairs            # True if phi and phi' of the first layer are stored as packed pairs
    bint nan                    # True if a NaN occurred at theta; packed pairs cannot represent NaN
    bint prefetches_next        # transposed layout: True if the next panel's state is prefetched
    bint panel_exceeds_l2       # True if state and scratch of one panel exceed the L2 cache


cdef struct Pass:               # one pass of a range of rows of the chunk through the layers
    PlanS *P
    Scratch *scratch
    Py_ssize_t r0, rows         # range of rows of the stored state; row 0 of scratch is row r0
    Py_ssize_t x0               # first row in X; equal to r0 if the state of all rows is stored
    # First sample of the pass within the chunk. s0 equals r0 unless panels of the transposed layout
    # differ in length.
    Py_ssize_t s0
    bint serial                 # True: the pass runs on one thread; False: on the thread team
    # Index, within the block, of the first of the `count` vectors that the pass processes.
    Py_ssize_t v
    char *flat                  # flat vector number v of the block
    bint more                   # transposed layout: True if another panel follows this one
    bint pairs_unpacked         # True once packed phi/phi' pairs have been unpacked into scratch
    Kind kind
    # Number of vectors that the pass processes together. It exceeds 1 only for products of
    # panel-parallel plans, on one thread per panel; `scratch` belongs to the first vector.
    Py_ssize_t count
    # If count > 1: bytes from one vector's scratch to that of the next vector, and from one result
    # to the next result.
    Py_ssize_t own, out_step


cdef enum:
    FORWARD = 1, BACKWARD = 2, PRODUCT = 4, QUADRATIC = 8


cdef struct Job:
    PlanS *P
    int stages
    Kind kind
    Py_ssize_t rows             # number of rows of the chunk
    Py_ssize_t vectors          # number of vectors
    char *v                     # first vector; the next vectors follow at distances of v_step bytes
    Py_ssize_t v_step
    char *u                     # VJP: the left factor, (rows, d_out)
    char *out                   # first result; the next results lie out_step bytes apart
    Py_ssize_t out_step
    bint add
    double l2                   # if not 0, a result starts from l2 * v
    double *totals              # QUADRATIC: totals, one per vector, to which the job adds
    # True if a panel's state may be overwritten once the panel's forward and backward passes are
    # done.
    bint transient
    # Panel-parallel plans: the range [group, until) of groups of panels to run, without the final
    # addition of their sums; until = 0 selects all groups.
    Py_ssize_t group, until


cdef inline char *row_address(PlanS *P, char *base, Py_ssize_t row, Py_ssize_t ld) noexcept nogil:
    """Return the address of row `row` of a matrix with leading dimension ld, or NULL if `base` is
    NULL.
    """
    return NULL if base == NULL else base + row * ld * P.K.real_bytes


cdef inline Py_ssize_t elements_per_cache_line(PlanS *P) noexcept nogil:
    """Return the number of elements per 64-byte cache line, without a division at run time."""
    return FC_ALIGN // 4 if P.K.real_bytes == 4 else FC_ALIGN // 8


cdef inline Py_ssize_t lanes_per_vector(PlanS *P) noexcept nogil:
    """Return the number of elements per SIMD vector."""
    return P.K.vector_bytes >> (2 if P.K.real_bytes == 4 else 3)


cdef inline Py_ssize_t leading_dimension(PlanS *P, Py_ssize_t ld) noexcept nogil:
    """Return the leading dimension of a matrix in the plan's layout, where `ld` is the leading
    dimension in row-major layout.
    """
    return P.ld_transposed if P.ld_transposed else ld


# --- matrices of a pass ---------------------------------------------------------------------------

cdef inline Matrix state_matrix(Pass *t, Layer *y, char *whole) noexcept nogil:
    """Return the pass's rows of the matrix of the stored state that begins at `whole`."""
    cdef Matrix found
    found.at, found.ld = row_address(t.P, whole, t.r0, y.ldm), leading_dimension(t.P, y.ldm)
    return found


cdef inline Matrix scratch_matrix(Pass *t, Layer *y, char *scratch) noexcept nogil:
    """Return a (rows, m) matrix in the pass's scratch, which has the rows of the pass only."""
    cdef Matrix found
    found.at, found.ld = scratch, leading_dimension(t.P, y.ldm)
    return found


cdef inline Matrix a_matrix(Pass *t, Layer *y) noexcept nogil:
    """Return phi(z) of layer y for the rows of the pass."""
    return state_matrix(t, y, y.a) if y.phi_pair == NULL else scratch_matrix(t, y, t.scratch.a)


cdef inline Matrix p_matrix(Pass *t, Layer *y) noexcept nogil:
    """Return phi'(z) of layer y for the rows of the pass."""
    return state_matrix(t, y, y.p) if y.phi_pair == NULL else scratch_matrix(t, y, t.scratch.p)


cdef inline Matrix input_matrix(Pass *t, Py_ssize_t l) noexcept nogil:
    """Return the input of layer l for the rows of the pass: phi(z) of the layer below, or X for
    layer 0.
    """
    cdef Matrix found
    if l:
        return a_matrix(t, &t.P.layer[l - 1])
    found.at, found.ld = row_address(t.P, t.P.x, t.x0, t.P.ldx), leading_dimension(t.P, t.P.ldx)
    return found


cdef inline Matrix null_matrix() noexcept nogil:
    """Return a matrix whose address is NULL, for an absent operand."""
    cdef Matrix found
    found.at, found.ld = NULL, 0
    return found


cdef inline Weights shifted_weights(Weights V, Py_ssize_t bytes_on, char *flat) noexcept nogil:
    """Return the packed parts of the vector `flat` of the block, which lie `bytes_on` bytes after
    those in V.
    """
    if V.packed_transpose_w != NULL:
        V.packed_transpose_w += bytes_on
    if V.packed_w != NULL:
        V.packed_w += bytes_on
    if V.b != NULL:
        V.b += bytes_on
    V.flat = flat
    return V


cdef inline Weights weights_of_v(Pass *t, Layer *y) noexcept nogil:
    """Return V and vb of layer y for the first vector of the pass."""
    return shifted_weights(y.V, t.v * t.P.v_step, t.flat)


cdef inline Pass new_pass(PlanS *P, Scratch *scratch, bint serial, Kind kind) noexcept nogil:
    """Return a pass of one vector that starts at the first row of the chunk. The caller sets
    `rows`.
    """
    cdef Pass t
    t.P, t.scratch, t.serial, t.kind = P, scratch, serial, kind
    t.r0 = t.x0 = t.s0 = t.rows = t.v = t.own = t.out_step = 0
    t.count, t.flat, t.more, t.pairs_unpacked = 1, NULL, False, False
    return t


# --- sizes ----------------------------------------------------------------------------------------

cdef inline Py_ssize_t round_up_to_cache_lines(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return `rows` rounded up to whole cache lines."""
    return (rows + elements_per_cache_line(P) - 1) & -elements_per_cache_line(P)


cdef inline Py_ssize_t count_panels(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of panels into which `rows` rows of a chunk are cut."""
    return P.panels if P.ld_transposed and rows == P.N else (rows + P.panel - 1) // P.panel


cdef inline Py_ssize_t count_groups(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of groups of panels, each with its own sums, or 1 if the plan is
    layer-parallel.
    """
    return min(P.groups, count_panels(P, rows)) if P.groups else 1


cdef inline Py_ssize_t count_work_units(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of work units for `rows` rows: panels if these balance the threads better,
    else groups of panels.
    """
    return count_panels(P, rows) if P.work_units > P.groups else count_groups(P, rows)


cdef inline bint completes_panel_sums(PlanS *P) noexcept nogil:
    """Return True if the sums over the rows of one panel are completed before they are added to the
    sums of other panels. This holds for vector kernels if both terms of such a sum, each as deep as
    the panel has rows, fit in one slice of depth. BLAS and the reference kernels may accumulate
    directly into the output.
    """
    return lanes_per_vector(P) > 1 and 2 * P.panel <= P.K.sums.slice


cdef inline Py_ssize_t first_sample_of_panel(
    PlanS *P, Py_ssize_t rows, Py_ssize_t panel
) noexcept nogil:
    """Return the index of a panel's first sample among the `rows` rows of a chunk. In the
    transposed layout, the cache lines of samples are divided evenly among the panels. If two panels
    share an odd number of lines, panel 0 gets the extra line, because the calling thread starts on
    it before the worker thread has woken.
    """
    cdef Py_ssize_t line = elements_per_cache_line(P), count
    if P.ld_transposed:
        count = count_panels(P, rows)
        panel *= round_up_to_cache_lines(P, rows) // line
        return min(rows, (panel + count - 1) // count * line)
    return min(rows, panel * P.panel)


cdef inline Py_ssize_t state_row_of_panel(PlanS *P, Py_ssize_t panel) noexcept nogil:
    """Return the row of the chunk's state at which panel number `panel` begins."""
    return panel * (P.ld_transposed if P.ld_transposed else P.panel)


cdef inline void move_to_panel(
    Pass *t, Py_ssize_t rows, Py_ssize_t panel, Py_ssize_t place
) noexcept nogil:
    """Move the pass to panel number `panel` of a chunk of `rows` rows. The panel's state is stored
    at panel index `place`.
    """
    t.r0, t.x0 = state_row_of_panel(t.P, place), state_row_of_panel(t.P, panel)
    t.s0 = first_sample_of_panel(t.P, rows, panel)
    t.rows, t.pairs_unpacked = first_sample_of_panel(t.P, rows, panel + 1) - t.s0, False


cdef inline fc_loss_rows loss_rows_at(Pass *t, Py_ssize_t first) noexcept nogil:
    """Return the arrays of the loss, advanced by `first` rows from the start of the pass."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t row = t.r0 + (0 if P.ld_transposed else first), sample = t.s0 + first
    cdef Py_ssize_t column = first * P.K.real_bytes if P.ld_transposed else 0
    cdef fc_loss_rows here = P.loss
    here.y = row_address(P, <char *>here.y, sample, here.ldy)
    here.weight = row_address(P, <char *>here.weight, sample, 1)
    here.delta = row_address(P, <char *>here.delta, row, y.ldm) + column
    here.h = row_address(P, <char *>here.h, row, here.ldh) + column
    here.s = row_address(P, <char *>here.s, sample, 1)
    if here.labels != NULL:
        here.labels += sample
    if here.top != NULL:
        here.top += sample
    return here


cdef inline Py_ssize_t packed_columns(PlanS *P, Py_ssize_t cols) noexcept nogil:
    """Return the number of columns of a packed matrix, which is `cols` rounded up to whole cache
    lines.
    """
    return round_up_to_cache_lines(P, cols)


cdef inline bint has_batch_norm(PlanS *P) noexcept nogil:
    """Return True if hidden layers are batch-normalised."""
    return P.layer[0].norm != NULL


cdef inline bint packs_sum_operands(PlanS *P) noexcept nogil:
    """Return True if the left operands of products that sum over rows are packed. Only plans of
    wide networks reserve scratch memory for this.
    """
    return P.panel == 0 and not P.unpacked and P.n * P.K.real_bytes > PANEL_PARALLEL_MAX_BYTES


cdef inline bint accumulates_by_layer(PlanS *P) noexcept nogil:
    """Return True if the means over rows of batch-normalised layers are accumulated layer by layer,
    because rows come in chunks.
    """
    return has_batch_norm(P) and P.chunk < P.N


cdef inline bint computes_means(PlanS *P, Stage stage, Py_ssize_t l) noexcept nogil:
    """Return True if this pass computes the means of `stage` for layer l, or False if these means
    are known from earlier passes.
    """
    return not accumulates_by_layer(P) or (P.stage == stage and P.target == l)
