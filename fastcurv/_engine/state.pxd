"""The state of a plan, and the descriptions of passes and jobs. Notation as in passes.pyx."""
from libc.stdint cimport int32_t


# A matrix of the plan's real type: row i begins i * ld numbers after `at`. `at` is NULL if the
# matrix does not exist.
cdef struct Matrix:
    char *at
    Py_ssize_t ld


# W and b of a layer, or V and vb, the same layer's parts of a vector
cdef struct Weights:
    char *onward                # W' packed: right operand of a W'
    char *back                  # W packed: right operand of delta W
    char *b                     # bias padded to ldm numbers, or NULL
    char *flat                  # the flat vector that contains W and b


# State of a batch-normalised layer; see batch_norm.pyx. Vectors have shape (m,), and means are over
# all N rows.
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
    char *zeros                 # (m,) zeros
    double *parts               # (blocks of rows, 2, ldm) partial sums
    double *here                # (2, ldm) sums over the rows of the current chunk
    double *sums                # (2, ldm) sums over all chunks so far
    double *moments             # (2, ldm) mean and variance of z


cdef struct Layer:
    Py_ssize_t m, k             # output width, input width
    Py_ssize_t ldm, ldk         # leading dimensions of (rows, m) and (rows, k) matrices
    Py_ssize_t w, b             # offsets of W and b in theta; b < 0: no bias
    fc_activation phi
    # has_p: phi' is not constant 1. curved: phi'' is not 0 everywhere. skip: residual layer, its
    # input is added to its output. user_phi: phi is a user-defined activation.
    bint has_p, curved, skip, user_phi
    # e * phi'' (for relu: phi') is recomputed from a and delta, not stored
    bint derived
    Weights W
    # packed parts of the first vector of a block; each further vector's follow after v_step bytes
    Weights V
    char *a                     # (rows, m) phi(z); in the last layer z
    char *packed_transpose      # shared plans: a' packed, (rows, m)
    char *p                     # (rows, m) phi'(z), or NULL
    # (rows, m) packed pairs of phi and phi' (see activations.inc), or NULL. If set, `a` and `p` are
    # NULL and both are unpacked into the pass's scratch when needed.
    char *phi_pair
    # (rows, m) e * phi''(z), or NULL; holds phi''(z) between forward and backward
    char *q
    char *delta                 # (rows, m) dL/dz
    # (rows, m) dL/d(argument of phi); equal to delta unless the layer is normalised
    char *du
    Norm *norm                  # NULL: no batch normalisation


cdef inline bint narrow_last(const Layer *top) noexcept nogil:
    """Return True if the last layer's products can be fused with the sweeps of the layer below."""
    return top.m <= FC_MAX_NARROW and (top - 1).has_p and not (top.skip or (top - 1).skip)


cdef inline bint has_slopes(const Layer *y) noexcept nogil:
    """Return True if phi' is stored, alone or packed with phi."""
    return y.p != NULL or y.phi_pair != NULL


cdef struct Scratch:            # work space of one thread, or of the team, for a pass
    char **ra                   # per layer: (rows, m)
    char **rz                   # per layer: (rows, m); overwritten by rdelta in R-backward
    char *e[2]                  # (rows, widest layer): re of the current layer and of the one above
    char *packed_transpose      # shared plans: ra' of one layer, packed, (rows, m)
    # (rows, m) phi and phi' of the layer that stores them as packed pairs
    char *a
    char *p
    char *sums                  # column sums, one row per block of rows
    Py_ssize_t ldsums
    double *totals              # one partial total per item of a product
    char *gemm                  # scratch of the product kernels


cdef enum Kind:
    HESSIAN, GGN, FISHER, JVP, VJP


# Which means of a normalised layer are being accumulated, if rows come in chunks.
cdef enum Stage:
    NO_STAGE, MOMENTS, DU_MEANS, RZ_MEANS, RDU_MEANS


cdef struct Data:               # data of the objective; strides in numbers, not bytes
    char *x                     # padded copy of X, or NULL
    Py_ssize_t ldx
    char *X                     # X, y, labels and weights of the caller
    Py_ssize_t x_rs, x_cs
    char *y
    Py_ssize_t ldy
    int32_t *labels
    char *weight


cdef struct PlanS:
    const fc_table *K
    Py_ssize_t n_layers, n, N, d_out
    Layer *layer
    Py_ssize_t chunk            # rows whose state is stored at one time
    # panel-parallel: rows per panel, number of groups of panels; panel 0: layer-parallel
    Py_ssize_t panel, groups
    # panel-parallel: work units (groups or panels), each with its own sums
    Py_ssize_t shares
    # Leading dimension of every matrix of a panel in the transposed layout, and the number of rows
    # of state per panel. 0: the layout is row-major, with samples as rows.
    Py_ssize_t ld_transposed
    Py_ssize_t panels           # transposed layout: number of panels of all rows
    # transposed layout with a single panel of all rows, whose products are split over all threads
    bint shared
    # layer-parallel: W and V are not packed, since too few rows would use the packed copies
    bint unpacked
    char *ones                  # transposed layout: as many ones as a panel has samples
    int threads
    bint l2_skips_biases        # the l2 penalty covers the matrices W only, not the biases
    char *theta                 # flat, contiguous; owned by the plan
    Data *data
    char *x                     # (rows, d_in) inputs of the current chunk
    Py_ssize_t ldx
    # loss of the current chunk: kind, divisor, targets, stored derivatives
    fc_loss_rows loss
    double *values              # loss values, one per block of rows
    # The Plan object that calls user-defined functions: the loss if `given`, activations otherwise.
    # NULL: kernels compute everything.
    void *callbacks
    bint user_loss
    # a callback has raised an exception; see `Plan.raise_callback_error`
    bint failed
    Py_ssize_t from_layer, upto  # range of layers of the forward pass
    # user-defined loss: d2 loss / dz2 of a row is a full matrix, stored as (rows, d_out d_out)
    bint coupled
    double user_loss_value      # value of a user-defined loss on the current chunk
    # groups_per_call: panel-parallel plans with user-defined functions evaluate this many groups of
    # panels per call. before: number of panels of the chunk before the first one whose state is
    # stored.
    Py_ssize_t groups_per_call, before
    double total                # loss plus l2 term at theta, from the last evaluation
    Py_ssize_t first            # lowest layer in which v is not 0
    char *active                # per layer: True if v is not 0 in that layer
    Py_ssize_t block            # number of vectors that a job takes side by side
    Py_ssize_t v_step           # bytes from one vector's packed parts to the next vector's
    char *shares_out            # panel-parallel: sums of each work unit, (shares, block, n padded)
    double *panel_totals        # panel-parallel: (panels, block) partial values of quadratic forms
    Py_ssize_t ldg
    Scratch wide
    Scratch *members            # panel-parallel: one scratch per thread
    # scratch per thread for several vectors side by side; points at the first vector's
    Scratch *sides
    # bytes from one vector's scratch in `sides` to the next; 0: vectors go one by one
    Py_ssize_t side_step
    # normalised layers and several chunks: which means are being accumulated, in which layer
    # (`target`), over how many rows so far (`seen`)
    Stage stage
    Py_ssize_t target, seen
    char *v                     # the current vector, flat
    char *saved_v               # (n,) copy of v for a product that overwrites v, or NULL
    Py_ssize_t at_chunk         # first row of the chunk whose state is stored, -1: none
    int done                    # passes done on that chunk: 0 none, 1 forward, 2 backward
    bint loaded                 # transposed layout: x holds X
    # the state at theta is needed for one evaluation only and may be overwritten
    bint transient
    Py_ssize_t kept             # bytes of the state at theta of all rows, with X
    bint near                   # that state fits the third-level cache
    bint packs_pairs            # phi and phi' of the first layer are stored as packed pairs
    bint nan                    # a NaN occurred at this theta, which packed pairs cannot represent
    bint looks_ahead            # transposed layout: the next panel's state is prefetched
    bint far                    # state and scratch of one panel exceed the second-level cache


cdef struct Pass:               # one run of some rows of the chunk through the layers
    PlanS *P
    Scratch *scratch
    Py_ssize_t r0, rows         # rows of the chunk's stored state; row 0 of scratch is row r0
    Py_ssize_t x0               # first row in X: equal to r0 if the state of every row is stored
    # number of samples of the chunk before the first one: r0, unless panels of the transposed
    # layout differ in length
    Py_ssize_t s0
    bint serial
    # index in the block of the current vector, the first of `count` side by side
    Py_ssize_t v
    char *flat                  # that vector, flat
    bint more                   # transposed layout: another panel follows this one
    bint pairs_unpacked         # packed pairs of phi and phi' have been unpacked into scratch
    Kind kind
    # Vectors taken side by side. More than 1 only in panel-parallel plans, serially and for
    # products; `scratch` is the first vector's.
    Py_ssize_t count
    # if count > 1: bytes from one vector's scratch to the next, and from one result to the next
    Py_ssize_t own, out_step


cdef enum:
    FORWARD = 1, BACKWARD = 2, PRODUCT = 4, QUADRATIC = 8


cdef struct Job:
    PlanS *P
    int stages
    Kind kind
    Py_ssize_t rows             # number of rows in the chunk
    Py_ssize_t vectors          # number of vectors side by side
    char *v                     # first vector; the next ones follow after v_step bytes each
    Py_ssize_t v_step
    char *u                     # VJP: (rows, d_out) left factor
    char *out                   # first result; the next ones follow after out_step bytes each
    Py_ssize_t out_step
    bint add
    double l2                   # if not 0, a result starts as l2 v
    double *totals              # QUADRATIC: one total per vector, added to
    # the state of a panel may be overwritten once its forward and backward passes are done
    bint transient
    # panel-parallel: range of groups of panels to run, without the final addition of their sums;
    # until 0: all groups
    Py_ssize_t group, until


cdef inline char *at(PlanS *P, char *base, Py_ssize_t row, Py_ssize_t ld) noexcept nogil:
    return NULL if base == NULL else base + row * ld * P.K.real_bytes


cdef inline Py_ssize_t line_of(PlanS *P) noexcept nogil:
    """Return the numbers per 64-byte cache line (without a division at run time)."""
    return FC_ALIGN // 4 if P.K.real_bytes == 4 else FC_ALIGN // 8


cdef inline Py_ssize_t lanes(PlanS *P) noexcept nogil:
    return P.K.vector_bytes >> (2 if P.K.real_bytes == 4 else 3)


cdef inline Py_ssize_t lead(PlanS *P, Py_ssize_t ld) noexcept nogil:
    """Return the leading dimension of a layer's matrix whose row-major one is ld."""
    return P.ld_transposed if P.ld_transposed else ld


# --- the matrices of a pass: (rows, m) of a layer -------------------------------------------------

cdef inline Matrix kept(Pass *t, Layer *y, char *whole) noexcept nogil:
    """Return the rows of the pass within a matrix `whole` of the state at theta."""
    cdef Matrix found
    found.at, found.ld = at(t.P, whole, t.r0, y.ldm), lead(t.P, y.ldm)
    return found


cdef inline Matrix own(Pass *t, Layer *y, char *scratch) noexcept nogil:
    """Return a matrix of the pass's scratch, which has only the rows of the pass."""
    cdef Matrix found
    found.at, found.ld = scratch, lead(t.P, y.ldm)
    return found


cdef inline Matrix a_of(Pass *t, Layer *y) noexcept nogil:
    return kept(t, y, y.a) if y.phi_pair == NULL else own(t, y, t.scratch.a)


cdef inline Matrix p_of(Pass *t, Layer *y) noexcept nogil:
    return kept(t, y, y.p) if y.phi_pair == NULL else own(t, y, t.scratch.p)


cdef inline Matrix input_of(Pass *t, Py_ssize_t l) noexcept nogil:
    """Return the input of layer l: phi(z) of the layer below, or X for layer 0."""
    cdef Matrix found
    if l:
        return a_of(t, &t.P.layer[l - 1])
    found.at, found.ld = at(t.P, t.P.x, t.x0, t.P.ldx), lead(t.P, t.P.ldx)
    return found


cdef inline Matrix nothing() noexcept nogil:
    cdef Matrix found
    found.at, found.ld = NULL, 0
    return found


cdef inline Weights moved(Weights V, Py_ssize_t bytes_on, char *flat) noexcept nogil:
    """Return the packed parts of another vector of the block, `bytes_on` bytes further on."""
    if V.onward != NULL:
        V.onward += bytes_on
    if V.back != NULL:
        V.back += bytes_on
    if V.b != NULL:
        V.b += bytes_on
    V.flat = flat
    return V


cdef inline Weights V_of(Pass *t, Layer *y) noexcept nogil:
    """Return V and vb of the pass's current vector."""
    return moved(y.V, t.v * t.P.v_step, t.flat)


cdef inline Pass new_pass(PlanS *P, Scratch *scratch, bint serial, Kind kind) noexcept nogil:
    """Return a pass of one vector that starts at the chunk's first row; the caller sets `rows`."""
    cdef Pass t
    t.P, t.scratch, t.serial, t.kind = P, scratch, serial, kind
    t.r0 = t.x0 = t.s0 = t.rows = t.v = t.own = t.out_step = 0
    t.count, t.flat, t.more, t.pairs_unpacked = 1, NULL, False, False
    return t


# --- sizes ----------------------------------------------------------------------------------------

cdef inline Py_ssize_t whole_lines(PlanS *P, Py_ssize_t rows) noexcept nogil:
    return (rows + line_of(P) - 1) & -line_of(P)


cdef inline Py_ssize_t panels_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of panels into which `rows` rows of a chunk are cut."""
    return P.panels if P.ld_transposed and rows == P.N else (rows + P.panel - 1) // P.panel


cdef inline Py_ssize_t groups_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of groups of panels, each with its own sums; 1 if layer-parallel."""
    return min(P.groups, panels_of(P, rows)) if P.groups else 1


cdef inline Py_ssize_t shares_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """Return the number of work units: panels if they balance threads better than groups do, else
    groups of panels.
    """
    return panels_of(P, rows) if P.shares > P.groups else groups_of(P, rows)


cdef inline bint at_once(PlanS *P) noexcept nogil:
    """Return True if a panel's sums over rows are complete before they are added to other panels'
    sums. Vector kernels do so if a panel is one slice deep; BLAS and the plain loops may accumulate
    directly into the output.
    """
    return lanes(P) > 1 and 2 * P.panel <= P.K.sums.slice


cdef inline Py_ssize_t first_of(PlanS *P, Py_ssize_t rows, Py_ssize_t panel) noexcept nogil:
    """Return the first sample of a panel. In the transposed layout all panels of the chunk share
    its cache lines evenly; of two panels the first takes the odd line, because the calling thread
    starts on it before the other thread has woken.
    """
    cdef Py_ssize_t line = line_of(P), count
    if P.ld_transposed:
        count = panels_of(P, rows)
        return min(rows, (whole_lines(P, rows) // line * panel + count - 1) // count * line)
    return min(rows, panel * P.panel)


cdef inline Py_ssize_t state_of(PlanS *P, Py_ssize_t panel) noexcept nogil:
    """Return the row of the chunk's state at which a panel begins."""
    return panel * (P.ld_transposed if P.ld_transposed else P.panel)


cdef inline void go_to(Pass *t, Py_ssize_t rows, Py_ssize_t panel, Py_ssize_t place) noexcept nogil:
    """Move the pass to a panel of a chunk of `rows` rows, with its state stored at panel index
    `place`.
    """
    t.r0, t.x0, t.s0 = state_of(t.P, place), state_of(t.P, panel), first_of(t.P, rows, panel)
    t.rows, t.pairs_unpacked = first_of(t.P, rows, panel + 1) - t.s0, False


cdef inline fc_loss_rows loss_at(Pass *t, Py_ssize_t first) noexcept nogil:
    """Return the loss's arrays, advanced to row `first` of the pass."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t row = t.r0 + (0 if P.ld_transposed else first), sample = t.s0 + first
    cdef Py_ssize_t column = first * P.K.real_bytes if P.ld_transposed else 0
    cdef fc_loss_rows here = P.loss
    here.y = at(P, <char *>here.y, sample, here.ldy)
    here.weight = at(P, <char *>here.weight, sample, 1)
    here.delta = at(P, <char *>here.delta, row, y.ldm) + column
    here.h = at(P, <char *>here.h, row, here.ldh) + column
    here.s = at(P, <char *>here.s, sample, 1)
    if here.labels != NULL:
        here.labels += sample
    if here.top != NULL:
        here.top += sample
    return here


cdef inline Py_ssize_t panels(PlanS *P, Py_ssize_t cols) noexcept nogil:
    """Return the number of columns of a packed matrix: `cols` rounded up to whole cache lines."""
    return whole_lines(P, cols)


cdef inline bint normalised(PlanS *P) noexcept nogil:
    return P.layer[0].norm != NULL


cdef inline bint packs_sums(PlanS *P) noexcept nogil:
    """Return True if the scratch has space for sums over rows of a wide network to pack A."""
    return P.panel == 0 and not P.unpacked and P.n * P.K.real_bytes > PANEL_PARALLEL_MAX_BYTES


cdef inline bint in_turns(PlanS *P) noexcept nogil:
    """Return True if means over rows must be accumulated layer by layer, since rows come in chunks.
    """
    return normalised(P) and P.chunk < P.N


cdef inline bint gathers(PlanS *P, Stage stage, Py_ssize_t l) noexcept nogil:
    """Return True if this pass computes the means of this stage; False if they are already known.
    """
    return not in_turns(P) or (P.stage == stage and P.target == l)
