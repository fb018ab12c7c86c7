"""See shapes.pxd."""


cdef enum:
    PANEL_ROWS = 512            # of a panel where the state is in the third-level cache
    PANEL_WORK = 250000000      # flops of a panel that may well be two
    FOUR_WORK = 12000000        # flops of a product that may well be four
    # TALL_WEIGHTS where samples lie across: nothing is packed
    ACROSS_WEIGHTS = 5 << 18
    # up to which packing V, of so many bytes or more, costs more than samples across do
    FEW_ROWS = 400
    FEW_WEIGHTS = 1 << 16
    # as many or fewer, in one panel whose products all threads share; with W in memory
    SHARED_ROWS = 256
    SHARED_FAR = 48
    SHARED_WORK = 1500000       # flops of a product, beside which waking a thread is not felt
    # in float32 that is so where panels are a choice, too, each of which would read W, V and the
    # sum once more: from so many bytes of parameters on, up to so many lines of rows (odd ones,
    # which two panels share badly, up to more), and where a product has so many flops
    SOON_WEIGHTS = 1 << 20
    SOON_LINES = 7
    SOON_ODD = 13
    SOON_WORK = 8000000
    # bytes of parameters up to which packing costs less than a third of all lanes left empty, in
    # float32
    SHARED_WEIGHTS = 6 << 20
    # rows in half a line or less, where samples across would leave as many lanes empty: bytes of
    # them, and of parameters above which W and V are read as they lie
    UNPACKED_LINE = 32
    UNPACKED_WEIGHTS = 1 << 14
    ACROSS_WIDTH = 8192         # bytes of a sample's widest layer where samples lie across
    ACROSS_BYTES = 450000       # what a panel across may take of the second-level cache
    NARROW_BYTES = 1 << 21      # what is kept of its 12 lines may, under a narrow top
    INPUT_BYTES = 3 << 19       # its inputs', from which on rows without empty lanes do better
    ACROSS_LINES = 8            # of it at least
    FOLD_BYTES = 400000         # of phi and phi', from which on they are kept in one number
    LONG_LINES = 16             # of it in float32 where it would be shorter,
    SHORT_LINES = 10            # and in float64
    SHORT_ROWS = 50             # of a panel: no more, and far away, had better lie across


cdef Py_ssize_t forced_lines = -1
cdef bint forced_shared = False
cdef Py_ssize_t forced_unpacked = -1
cdef int forced_folds = -1
cdef bint no_narrow = False
cdef bint no_stack = False


def force_across(Py_ssize_t lines, bint shared=False):
    """For tests: plans made from now on have panels of so many lines of 64 bytes a unit, samples
    across; 0: none has; -1: as is best. `shared`: one panel of all rows, however many lines.
    """
    global forced_lines, forced_shared
    forced_lines, forced_shared = lines, shared


def force_unpacked(Py_ssize_t rows=-1):
    """For tests: plans of so many rows or fewer made from now on are wide and pack no W and V; -1:
    as is best.
    """
    global forced_unpacked
    forced_unpacked = rows


def force_folds(int folds=-1):
    """For tests and benchmarks: plans made from now on that can keep phi and phi' in one number do,
    1, or do not, 0; -1: as is best.
    """
    global forced_folds
    forced_folds = folds


def leave_out(bint narrow=False, bint stack=False):
    """For benchmarks: whether plans do without the kernels of a narrow last layer, or without
    those of several vectors side by side.
    """
    global no_narrow, no_stack
    no_narrow, no_stack = narrow, stack


cdef bint is_forced() noexcept nogil:
    """Whether tests have said how samples lie."""
    return forced_lines >= 0


cdef inline Py_ssize_t jobs_shared(PlanS *P) noexcept nogil:
    """For how many the team is called in a product of which each is shared."""
    return 3 * P.n_layers + 2


cdef double emptiness(PlanS *P, Py_ssize_t layers) noexcept nogil:
    """The multiply-adds of a product with samples as rows, empty lanes included, over those that
    count, in the first so many layers.
    """
    cdef Py_ssize_t l, lanes = P.K.vector_bytes // P.K.real_bytes, k, m, wide_k, wide_m
    cdef double counted = 0, done = 0
    for l in range(layers):
        k, m = P.layer[l].k, P.layer[l].m
        wide_k, wide_m = (k + lanes - 1) // lanes * lanes, (m + lanes - 1) // lanes * lanes
        counted += m * k * (6 if l else 2)
        done += (k * wide_m + m * wide_k) if l == 0 else 2 * k * wide_m + 4 * m * wide_k
    return done / counted


cdef Py_ssize_t kept_of_sample(PlanS *P) noexcept nogil:
    """The bytes that are kept of a sample at theta, with its row of X."""
    cdef Py_ssize_t l, numbers = P.layer[0].k
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        numbers += y.m * (
            2 + (y.has_p and not (y.derived and fc_slope_from_a(y.phi)))
            + (y.curved and not y.derived) - (P.folds and l == 0)
        )
    return numbers * P.K.real_bytes


cdef bint could_fold(PlanS *P) noexcept nogil:
    """Whether phi and phi' of one hidden layer under a narrow one are kept in one number, if
    samples lie across. Measured on Zen 5: from FOLD_BYTES on unfolding costs less than reading
    both, by 5% in the second-level cache and 8 to 15% beyond; below it costs up to 5% more.
    """
    cdef Layer *y = &P.layer[0]
    if P.n_layers != 2 or P.asking != NULL or normalised(P) or P.K.vector_bytes == P.K.real_bytes:
        return False
    if no_narrow or not (narrow_last(&P.layer[1]) and y.derived and fc_bend_from_delta(y.phi)):
        return False
    if forced_folds >= 0:
        return forced_folds
    return 2 * P.N * y.m * P.K.real_bytes > FOLD_BYTES


cdef bint state_is_near(PlanS *P) noexcept nogil:
    """Whether what is kept at theta stays near enough from product to product. One hidden layer's
    is read so evenly that the whole third level counts: the share costs 13-64-1 7%.
    """
    return P.N * kept_of_sample(P) <= (FAR_BYTES if P.n_layers == 2 else NEAR_BYTES)


cdef Py_ssize_t panels_for(
    PlanS *P, Py_ssize_t rows, Py_ssize_t most, bint nearest
) noexcept nogil:
    """How many panels N rows are cut into: of `rows` where nothing else matters, `most` at most.

    Four where they have a quarter of PANEL_ROWS, two where that is little work, and so many that
    each is PANEL_WORK at most if it has as many rows. 2 or 4 threads share them evenly, so they
    come in twos or fours: with `rows` or fewer each, or the nearest so many, which short panels had
    better be."""
    cdef Py_ssize_t count = (P.N + rows - 1) // rows, work = 12 * P.N * P.n
    cdef Py_ssize_t even = 4 if work >= FOUR_WORK else 2
    count = max(count, min(P.N // (PANEL_ROWS // 4), max(even, work // PANEL_WORK)))
    if count > 2:
        count = max(even, (count + (even // 2 if nearest else even) - 1) // even * even)
    return min(count, most)


cdef Py_ssize_t lines_under_narrow(PlanS *P) noexcept nogil:
    """Lines of a panel of one hidden layer under a narrow one: where the state comes from memory
    whole panels of a product's tiles, of four lines or, deep, of three; and so many that what is
    kept of them and of the next ones, inputs aside, leaves the second-level cache room. On Zen 5,
    21 cost 2 to 7% more than 20; 16 would lie 17 apart.
    """
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Py_ssize_t most = 20 if P.near or P.layer[0].k * size <= FC_SHALLOW else 18
    cdef Py_ssize_t line = FC_ALIGN // size * (kept_of_sample(P) - P.layer[0].k * size)
    return most if most * line <= ACROSS_BYTES else 12 if 12 * line <= NARROW_BYTES else 4


cdef Py_ssize_t panels_across(PlanS *P) noexcept nogil:
    """How many panels samples lie across in, or 0 where they had better be rows.

    Across pays where padding to whole vectors costs more than a few per cent, or one in what is
    below the last layer, whose few units are not the rule; where V packed would come from the
    third-level cache, or so few rows follow that packing it is felt; where the state comes from
    beyond that cache, since only what lies across is asked for ahead: without 64-byte vectors if
    rows would come in short panels (on Zen 3, up to 50 of them, 3 to 15% less time; from 70 on, as
    16-16-16-16, up to 1.4 times as much); and for one hidden layer under a narrow last one however
    wide it is. It does not where a panel's inputs would come from the third level, unless rows
    leave that many lanes empty. A panel's state, scratch and the next one's state leave the
    second-level cache room, but where it would be so short that joining the lanes of sums over
    samples is felt, and reading W and V: then it comes from the third level, and is long in
    float32, less so in float64, where that brings 1 to 4%. With one wide layer the cache matters
    more. What one thread does anyway is one panel.
    """
    cdef Py_ssize_t l, line = line_of(P), lines = (P.N + line - 1) // line
    cdef Py_ssize_t units = 0, count, long_, rows, work = 12 * P.N * P.n
    cdef bint alone = work < SERIAL_ACROSS
    cdef bint narrow = P.n_layers == 2 and narrow_last(&P.layer[1]) and not no_narrow, few
    if forced_lines >= 0:
        return (lines + forced_lines - 1) // forced_lines if forced_lines else 0
    if P.K.vector_bytes == P.K.real_bytes or P.n * P.K.real_bytes > ACROSS_WEIGHTS:
        return 0
    few = P.N <= FEW_ROWS and P.n * P.K.real_bytes > FEW_WEIGHTS
    if not (
        narrow or few or P.n * P.K.real_bytes > TALL_WEIGHTS
        or (not P.near and (P.K.vector_bytes == FC_ALIGN or P.panel <= SHORT_ROWS))
        or emptiness(P, P.n_layers) > 1.03
        or (P.n_layers > 1 and emptiness(P, P.n_layers - 1) > 1.01)
    ):
        return 0
    for l in range(P.n_layers):
        units += P.layer[l].m
        if not narrow and max(P.layer[l].m, P.layer[l].k) > ACROSS_WIDTH // P.K.real_bytes:
            return 0
    if narrow:
        long_, rows = lines, lines_under_narrow(P) * line       # alone: one panel
    else:
        long_ = ACROSS_BYTES // (6 * FC_ALIGN * units)
        rows = min(<Py_ssize_t>PANEL_ROWS, (long_ + 3) // 4 * 4 * line)
        if long_ < ACROSS_LINES:
            long_ = LONG_LINES if P.K.real_bytes == 4 else SHORT_LINES
            rows = long_ * line
    count = (lines + long_ - 1) // long_ if alone else panels_for(
        P, rows, lines, narrow or rows < LONG_LINES * line
    )
    if count < 2 and not alone and lines > (4 if work < SERIAL_FLOPS else 1):
        count = 2
    long_ = (lines + count - 1) // count
    if long_ * FC_ALIGN * P.layer[0].k > INPUT_BYTES * emptiness(P, max(1, P.n_layers - 1)):
        return 0
    return count


cdef bint is_shared(PlanS *P) noexcept nogil:
    """Whether samples lie across in one panel, whose products all threads share: where the net is
    too wide for panels, and so few rows follow the packing of V that it is felt. Lanes are samples
    then, some of them empty, and W and V are read as they lie, by rows and down columns, which from
    memory is slower than packing. And where two panels would be of one line and none or a part of
    one, two and one, or three and two; or of a few more, and W and V much to read twice.
    """
    cdef Py_ssize_t bytes_ = P.n * P.K.real_bytes, empty = whole_lines(P, P.N) - P.N
    cdef Py_ssize_t lines = whole_lines(P, P.N) * P.K.real_bytes // FC_ALIGN
    cdef Py_ssize_t work = 12 * P.N * P.n // jobs_shared(P)
    if forced_lines >= 0:
        return forced_lines > 0 and forced_shared
    if P.K.vector_bytes == P.K.real_bytes:
        return False
    if bytes_ <= ACROSS_WEIGHTS:
        if empty > P.N:
            return False
        if (
            P.K.real_bytes == 4 and bytes_ > SOON_WEIGHTS and work >= SOON_WORK
            and (lines <= SOON_LINES or lines % 2 and lines <= SOON_ODD)
        ):
            return True
        return (lines % 2 and lines <= 5 or lines == 2 and empty) and work >= SHARED_WORK
    if P.K.real_bytes == 4 and 2 * empty > P.N and bytes_ <= SHARED_WEIGHTS:
        return False
    return P.N <= (SHARED_ROWS if bytes_ <= FAR_BYTES else SHARED_FAR)


cdef bint is_unpacked(PlanS *P) noexcept nogil:
    """Whether W and V are read where they lie, along their rows: so few rows follow that packing
    would cost more than it saves.
    """
    if P.K.vector_bytes == P.K.real_bytes or normalised(P):
        return False
    if forced_unpacked >= 0:
        return P.N <= forced_unpacked
    return P.N * P.K.real_bytes <= UNPACKED_LINE and P.n * P.K.real_bytes > UNPACKED_WEIGHTS
