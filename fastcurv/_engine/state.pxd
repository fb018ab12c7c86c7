"""What a plan holds, and what passes over it are told. Notation as in passes.pyx."""
from libc.stdint cimport int32_t


# rows of numbers, each ld of them after the one before; at NULL: there is none
cdef struct Matrix:
    char *at
    Py_ssize_t ld


cdef struct Weights:            # W and b of a layer, or V and vb
    char *onward                # W' packed: the operand of a W'
    char *back                  # W packed: the operand of delta W
    char *b                     # padded, or NULL
    char *flat                  # the vector that they are parts of


# of a normalised layer; vectors are (m,), means are over all rows. See batch_norm.pyx
cdef struct Norm:
    Py_ssize_t gamma, beta      # where they begin in theta
    char *h                     # (rows, m) z normalised
    char *mean                  # of z
    char *s                     # 1 / sqrt(variance of z + eps)
    char *scale                 # s gamma
    char *du_mean               # mean du, mean (du h)
    char *du_h
    char *rz_mean               # mean rz, mean (rz h)
    char *c
    char *r_scale               # s (vgamma - s c gamma)
    char *rdu_mean              # mean rdu, mean (rdu h + du rh)
    char *rdu_h
    char *zeros
    double *parts               # (blocks of rows, 2, ldm) sums
    double *here                # (2, ldm) of the rows at hand
    double *sums                # (2, ldm) of the rows gathered so far
    double *moments             # (2, ldm) mean and variance of z


cdef struct Layer:
    Py_ssize_t m, k             # width out, width in
    Py_ssize_t ldm, ldk         # leading dimensions of matrices that wide
    Py_ssize_t w, b             # where W and b begin in theta; b < 0: no bias
    fc_activation phi
    # phi' is not 1; phi'' is not 0; the layer's input is added to its output; phi is a function
    bint has_p, curved, skip, asked
    bint derived                # e * phi'' (relu: phi') is made from a and delta where it is wanted
    Weights W
    # of the first vector of a block; the others' come after it, each v_step bytes on
    Weights V
    char *a                     # (rows, m) phi(z), in the last layer z
    char *turned                # shared: a' packed, (rows, m)
    char *p                     # (rows, m) phi'(z), or NULL
    # (rows, m) both in one number, see activations.inc, or NULL; where it is kept a and p are NULL,
    # and stand in the pass's scratch while they are wanted
    char *folded
    # (rows, m) e * phi''(z), or NULL; between forward and backward phi''(z)
    char *q
    char *delta                 # (rows, m) dL/dz
    char *du                    # (rows, m) dL/d(what phi is given): delta, unless normalised
    Norm *norm                  # or NULL


cdef inline bint narrow_last(const Layer *top) noexcept nogil:
    """Whether the last layer's products could go with the sweeps of the layer below it."""
    return top.m <= FC_MAX_NARROW and (top - 1).has_p and not (top.skip or (top - 1).skip)


cdef inline bint has_slopes(const Layer *y) noexcept nogil:
    """Whether phi' is kept."""
    return y.p != NULL or y.folded != NULL


cdef struct Scratch:            # of whoever takes rows through the layers
    char **ra                   # by layer: (rows, m)
    char **rz                   # by layer: (rows, m); rdelta takes its place on the way back
    char *e[2]                  # (rows, widest): re of this layer and of the one above
    char *turned                # shared: ra' of a layer packed, (rows, m)
    char *a                     # (rows, m), of the layer whose a and p are folded
    char *p
    char *sums                  # column sums by blocks of rows
    Py_ssize_t ldsums
    double *totals              # one for each item of a product
    char *gemm                  # the kernels' own


cdef enum Kind:
    HESSIAN, GGN, FISHER, JVP, VJP


# which of a layer's means over rows are being gathered, where rows come in chunks
cdef enum Stage:
    NO_STAGE, MOMENTS, DU_MEANS, RZ_MEANS, RDU_MEANS


cdef struct Data:               # of the objective; strides in numbers
    char *x                     # X padded, or NULL
    Py_ssize_t ldx
    char *X                     # X, y, labels and weight as they are
    Py_ssize_t x_rs, x_cs
    char *y
    Py_ssize_t ldy
    int32_t *labels
    char *weight


cdef struct PlanS:
    const fc_table *K
    Py_ssize_t n_layers, n, N, d_out
    Layer *layer
    Py_ssize_t chunk            # rows whose state is kept at a time
    Py_ssize_t panel, groups    # tall: rows of a panel, groups of panels; panel 0: wide
    Py_ssize_t shares           # tall: pieces of work, groups or panels, each with its own sums
    # samples lie across: the leading dimension of every matrix of a panel, and so many rows of
    # state are a panel's; 0: they are its rows
    Py_ssize_t across
    Py_ssize_t panels           # across: so many, of all rows
    # across: one panel of all rows, whose products are cut into items over all threads
    bint shared
    bint unpacked               # wide: W and V are read where they lie, too few rows follow packing
    char *ones                  # across: so many numbers, all 1
    int threads
    bint spare                  # l2 is on the matrices W alone
    char *theta                 # flat, contiguous; held by the plan
    Data *data
    char *x                     # (rows, d_in) of the chunk at hand
    Py_ssize_t ldx
    fc_loss_rows loss           # of the chunk at hand: kind, divisor, targets, and what it keeps
    double *values              # the loss, by blocks of rows
    # the Plan that asks functions for the loss (`given`) or what layers do; NULL: kernels do all
    void *asking
    bint given
    bint failed                 # what was asked has raised: see `Plan.tell`
    Py_ssize_t from_layer, upto     # what forward goes through
    bint coupled                # given: d2 loss / dz2 of a row is a matrix, (rows, d_out d_out)
    double given_value          # of the chunk at hand
    # tall: groups of panels for whose rows a function is asked at once, and panels of the chunk
    # before the first one whose state is at hand
    Py_ssize_t asked, before
    double total                # of these and l2's term, as the last walk found it
    Py_ssize_t first            # lowest layer that v moves
    char *active                # by layer: whether v moves it
    Py_ssize_t block            # vectors that fit side by side
    Py_ssize_t v_step           # bytes from one vector's packed parts to the next
    char *shares_out            # tall: (shares, block, n padded)
    double *panel_totals        # tall: (panels, block), of quadratic forms
    Py_ssize_t ldg
    Scratch wide
    Scratch *members            # tall: by member of the team
    Scratch *sides               # the same for the first of some vectors side by side
    Py_ssize_t side_step        # bytes from its scratch to the next one's; 0: no room for that
    # normalised, in chunks: what is being gathered, in which layer, from how many rows so far
    Stage stage
    Py_ssize_t target, seen
    char *v                     # flat, of the vector at hand
    char *aside                 # (n,): where v goes whose place its product takes, or NULL
    Py_ssize_t at_chunk         # first row of the chunk whose state is kept, -1: none
    int done                    # of that chunk: 0 nothing, 1 forward, 2 backward
    bint loaded                 # across: x holds X
    bint passing                # the state at theta need not stay
    Py_ssize_t kept             # bytes of the state at theta of all rows, with X
    bint near                   # it stays in the third-level cache
    bint folds                  # a and p of the first layer are kept folded,
    bint nan                    # and since theta was set there was a NaN, which that loses
    bint looks_ahead            # samples lie across, and the next panel's state is asked for
    bint far                    # a panel's, with scratch, does not in the second-level one


cdef struct Pass:               # some rows of the chunk on their way through the layers
    PlanS *P
    Scratch *scratch
    Py_ssize_t r0, rows         # rows of the chunk's state; scratch starts at its own row 0
    Py_ssize_t x0               # the same of X: r0, unless state is not kept
    # samples of the chunk before the first one: r0, unless panels across differ in length
    Py_ssize_t s0
    bint serial
    Py_ssize_t v                # which vector of the block, the first of `count` side by side
    char *flat                  # that vector as it came
    bint more                   # across: another panel follows
    bint unfolded               # a and p of the layer that folds them are in scratch
    Kind kind
    # more than one: tall, in serial, for products alone; scratch is the first vector's
    Py_ssize_t count
    # then bytes from one vector's scratch to the next, and from one result to the next
    Py_ssize_t own, out_step


cdef enum:
    FORWARD = 1, BACKWARD = 2, PRODUCT = 4, QUADRATIC = 8


cdef struct Job:
    PlanS *P
    int stages
    Kind kind
    Py_ssize_t rows             # of the chunk
    Py_ssize_t vectors          # side by side
    char *v                     # the first vector; v_step bytes to the next
    Py_ssize_t v_step
    char *u                     # VJP: (rows, d_out)
    char *out                   # the first result; out_step bytes to the next
    Py_ssize_t out_step
    bint add
    double l2                   # where not 0, a result begins as l2 v
    double *totals              # QUADRATIC: one a vector, added to
    bint passing                # forward and backward of a panel, then its state is nobody's
    # tall: the groups of panels that are served, without adding up what they sum; until 0: all
    Py_ssize_t group, until


cdef inline char *at(PlanS *P, char *base, Py_ssize_t row, Py_ssize_t ld) noexcept nogil:
    return NULL if base == NULL else base + row * ld * P.K.real_bytes


cdef inline Py_ssize_t line_of(PlanS *P) noexcept nogil:
    """Numbers of 64 bytes, without a division."""
    return FC_ALIGN // 4 if P.K.real_bytes == 4 else FC_ALIGN // 8


cdef inline Py_ssize_t lanes(PlanS *P) noexcept nogil:
    return P.K.vector_bytes >> (2 if P.K.real_bytes == 4 else 3)


cdef inline Py_ssize_t lead(PlanS *P, Py_ssize_t ld) noexcept nogil:
    """Leading dimension of a matrix of a layer whose rows are ld numbers apart."""
    return P.across if P.across else ld


# --- the matrices of a pass: (rows, m) of a layer -------------------------------------------------

cdef inline Matrix kept(Pass *t, Layer *y, char *whole) noexcept nogil:
    """Of the state at theta, which has the chunk's rows: those of the pass."""
    cdef Matrix found
    found.at, found.ld = at(t.P, whole, t.r0, y.ldm), lead(t.P, y.ldm)
    return found


cdef inline Matrix own(Pass *t, Layer *y, char *scratch) noexcept nogil:
    """Of the pass's scratch, which has its rows alone."""
    cdef Matrix found
    found.at, found.ld = scratch, lead(t.P, y.ldm)
    return found


cdef inline Matrix a_of(Pass *t, Layer *y) noexcept nogil:
    return kept(t, y, y.a) if y.folded == NULL else own(t, y, t.scratch.a)


cdef inline Matrix p_of(Pass *t, Layer *y) noexcept nogil:
    return kept(t, y, y.p) if y.folded == NULL else own(t, y, t.scratch.p)


cdef inline Matrix input_of(Pass *t, Py_ssize_t l) noexcept nogil:
    """What layer l is given: a of the layer below, or X."""
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
    """The parts of another vector of a block."""
    if V.onward != NULL:
        V.onward += bytes_on
    if V.back != NULL:
        V.back += bytes_on
    if V.b != NULL:
        V.b += bytes_on
    V.flat = flat
    return V


cdef inline Weights V_of(Pass *t, Layer *y) noexcept nogil:
    """V and vb of the vector at hand."""
    return moved(y.V, t.v * t.P.v_step, t.flat)


cdef inline Pass new_pass(PlanS *P, Scratch *scratch, bint serial, Kind kind) noexcept nogil:
    """For one vector, from the chunk's first row on; rows are the caller's to say."""
    cdef Pass t
    t.P, t.scratch, t.serial, t.kind = P, scratch, serial, kind
    t.r0 = t.x0 = t.s0 = t.rows = t.v = t.own = t.out_step = 0
    t.count, t.flat, t.more, t.unfolded = 1, NULL, False, False
    return t


# --- sizes ----------------------------------------------------------------------------------------

cdef inline Py_ssize_t whole_lines(PlanS *P, Py_ssize_t rows) noexcept nogil:
    return (rows + line_of(P) - 1) & -line_of(P)


cdef inline Py_ssize_t panels_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """How many panels rows of a chunk are cut into."""
    return P.panels if P.across and rows == P.N else (rows + P.panel - 1) // P.panel


cdef inline Py_ssize_t groups_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """How many groups these panels come in, each with sums of its own; wide, all rows are one."""
    return min(P.groups, panels_of(P, rows)) if P.groups else 1


cdef inline Py_ssize_t shares_of(PlanS *P, Py_ssize_t rows) noexcept nogil:
    """How many pieces of work these groups are: each one, or all of their panels where that shares
    them out more evenly.
    """
    return panels_of(P, rows) if P.shares > P.groups else groups_of(P, rows)


cdef inline bint at_once(PlanS *P) noexcept nogil:
    """Whether a panel's sums are made before they are added to those of others: vector kernels do
    where it is one slice deep; BLAS and plain loops may start from what is there.
    """
    return lanes(P) > 1 and 2 * P.panel <= P.K.sums.slice


cdef inline Py_ssize_t first_of(PlanS *P, Py_ssize_t rows, Py_ssize_t panel) noexcept nogil:
    """The first sample of a panel; across, lines are shared evenly by all panels of the chunk, the
    first of two having the odd one: whoever wakes the others begins at once.
    """
    cdef Py_ssize_t line = line_of(P), count
    if P.across:
        count = panels_of(P, rows)
        return min(rows, (whole_lines(P, rows) // line * panel + count - 1) // count * line)
    return min(rows, panel * P.panel)


cdef inline Py_ssize_t state_of(PlanS *P, Py_ssize_t panel) noexcept nogil:
    """The row of the chunk's state at which a panel begins."""
    return panel * (P.across if P.across else P.panel)


cdef inline void go_to(Pass *t, Py_ssize_t rows, Py_ssize_t panel, Py_ssize_t place) noexcept nogil:
    """The pass is over this panel of a chunk's rows from now on, its state in that panel's place.
    """
    t.r0, t.x0, t.s0 = state_of(t.P, place), state_of(t.P, panel), first_of(t.P, rows, panel)
    t.rows, t.unfolded = first_of(t.P, rows, panel + 1) - t.s0, False


cdef inline fc_loss_rows loss_at(Pass *t, Py_ssize_t first) noexcept nogil:
    """The loss's own arrays from a row of the pass on."""
    cdef PlanS *P = t.P
    cdef Layer *y = &P.layer[P.n_layers - 1]
    cdef Py_ssize_t row = t.r0 + (0 if P.across else first), sample = t.s0 + first
    cdef Py_ssize_t column = first * P.K.real_bytes if P.across else 0
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
    """Columns of a packed matrix: whole vectors, and whole 64-byte lines."""
    return whole_lines(P, cols)


cdef inline bint normalised(PlanS *P) noexcept nogil:
    return P.layer[0].norm != NULL


cdef inline bint in_turns(PlanS *P) noexcept nogil:
    """Whether means are gathered layer by layer before rows go through."""
    return normalised(P) and P.chunk < P.N


cdef inline bint gathers(PlanS *P, Stage stage, Py_ssize_t l) noexcept nogil:
    """Whether this pass makes these means; else they are known."""
    return not in_turns(P) or (P.stage == stage and P.target == l)
