"""See shapes.pxd."""


cdef enum:
    PANEL_ROWS = 512            # rows of a panel if the state fits the third-level cache
    PANEL_MAX_FLOPS = 250000000  # flops of a panel above which the rows are cut into more panels
    FOUR_PANELS_MIN_FLOPS = 12000000  # flops of a product above which at least four panels are used
    # PANEL_PARALLEL_MAX_BYTES for the transposed layout, where nothing is packed
    TRANSPOSED_WEIGHTS = 5 << 18
    # Few rows and many parameters: up to PACK_MIN_ROWS rows and from PACK_CHEAP_BYTES bytes of
    # parameters on, packing V costs more than the transposed layout does.
    PACK_MIN_ROWS = 400
    PACK_CHEAP_BYTES = 1 << 16
    # Shared layout (one transposed panel, each product split over all threads): maximum rows, and
    # maximum rows if W is read from memory.
    SHARED_MAX_ROWS = 256
    SHARED_MAX_ROWS_FAR = 48
    # flops of a product next to which the time to wake a thread is negligible
    SHARED_MIN_FLOPS = 1500000
    # In float32 the shared layout also replaces several panels, each of which would read W, V and
    # the sum once more: from SHARED_F32_MIN_BYTES bytes of parameters and SHARED_F32_MIN_FLOPS
    # flops per product on, up to SHARED_F32_MAX_LINES cache lines of rows. Odd numbers of lines,
    # which two panels would share unevenly, go up to SHARED_F32_MAX_ODD_LINES.
    SHARED_F32_MIN_BYTES = 1 << 20
    SHARED_F32_MAX_LINES = 7
    SHARED_F32_MAX_ODD_LINES = 13
    SHARED_F32_MIN_FLOPS = 8000000
    # bytes of parameters, in float32, up to which packing costs less than a third of the lanes
    # being empty
    SHARED_F32_PACK_BYTES = 6 << 20
    # Unpacked W and V: rows of half a cache line or less (in bytes over all rows), for which the
    # transposed layout would leave as many lanes empty; bytes of parameters above which it pays.
    UNPACKED_MAX_ROW_BYTES = 32
    UNPACKED_MIN_BYTES = 1 << 14
    # maximum bytes of a sample's widest layer in the transposed layout
    TRANSPOSED_WIDTH_BYTES = 8192
    # bytes of the second-level cache that a transposed panel may fill
    TRANSPOSED_PANEL_BYTES = 450000
    # bytes of state of 12 cache lines of samples that may fill it under a narrow output layer
    NARROW_STATE_BYTES = 1 << 21
    # bytes of a panel's inputs from which on rows without empty lanes are faster
    MAX_INPUT_BYTES = 3 << 19
    # minimum cache lines of samples in a panel, unless the state comes from the third level
    TRANSPOSED_MIN_LINES = 8
    # bytes of phi and phi' from which on they are stored as packed pairs
    PAIRS_MIN_BYTES = 400000
    # minimum panel length in float32, in cache lines, if the second-level cache cannot hold the
    # state
    MIN_LINES_F32 = 16
    MIN_LINES_F64 = 10          # minimum panel length in float64
    # panels of this many rows or fewer use the transposed layout if the state exceeds the cache
    SHORT_PANEL_ROWS = 50


cdef Py_ssize_t forced_lines = -1
cdef bint forced_shared = False
cdef Py_ssize_t forced_unpacked = -1
cdef int forced_pairs = -1
cdef bint no_narrow = False
cdef bint no_stack = False


def force_transposed(Py_ssize_t lines, bint shared=False):
    """Set the panel length of plans made from now on, for tests.

    `lines` is the number of 64-byte cache lines of samples per panel in the transposed layout; 0
    selects row-major layout, -1 the automatic choice. `shared`: use one panel of all rows, shared
    by all threads.
    """
    global forced_lines, forced_shared
    forced_lines, forced_shared = lines, shared


def force_unpacked(Py_ssize_t rows=-1):
    """Make new plans of at most `rows` rows layer-parallel without packing W and V, for tests; -1:
    automatic choice.
    """
    global forced_unpacked
    forced_unpacked = rows


def force_pairs(int folds=-1):
    """Store phi and phi' as packed pairs in new plans that can (1), or never (0), for tests and
    benchmarks; -1: automatic choice.
    """
    global forced_pairs
    forced_pairs = folds


def leave_out(bint narrow=False, bint stack=False):
    """Disable the kernels of a narrow output layer, or those of several vectors side by side, for
    benchmarks.
    """
    global no_narrow, no_stack
    no_narrow, no_stack = narrow, stack


cdef bint is_forced() noexcept nogil:
    """Return True if `force_transposed` has fixed the layout."""
    return forced_lines >= 0


cdef inline Py_ssize_t jobs_shared(PlanS *P) noexcept nogil:
    """Return the number of jobs of the thread team in a layer-parallel product."""
    return 3 * P.n_layers + 2


cdef double padding_ratio(PlanS *P, Py_ssize_t layers) noexcept nogil:
    """Return the multiply-adds of a row-major product, empty lanes included, divided by the useful
    ones, over the first `layers` layers.
    """
    cdef Py_ssize_t l, lanes = P.K.vector_bytes // P.K.real_bytes, k, m, wide_k, wide_m
    cdef double counted = 0, done = 0
    for l in range(layers):
        k, m = P.layer[l].k, P.layer[l].m
        wide_k, wide_m = (k + lanes - 1) // lanes * lanes, (m + lanes - 1) // lanes * lanes
        counted += m * k * (6 if l else 2)
        done += (k * wide_m + m * wide_k) if l == 0 else 2 * k * wide_m + 4 * m * wide_k
    return done / counted


cdef Py_ssize_t state_bytes_per_sample(PlanS *P) noexcept nogil:
    """Return the bytes of state stored per sample at theta, with its row of X."""
    cdef Py_ssize_t l, numbers = P.layer[0].k
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        numbers += y.m * (
            2 + (y.has_p and not (y.derived and fc_slope_from_a(y.phi)))
            + (y.curved and not y.derived) - (P.packs_pairs and l == 0)
        )
    return numbers * P.K.real_bytes


cdef bint can_pack_phi(PlanS *P) noexcept nogil:
    """Return True if phi and phi' of one hidden layer below a narrow output layer are stored as
    packed pairs in the transposed layout. On Zen 5, from PAIRS_MIN_BYTES on, unpacking is faster
    than reading both, by 5% in the second-level cache and by 8 to 15% beyond; below, it is up to 5%
    slower.
    """
    cdef Layer *y = &P.layer[0]
    if P.n_layers != 2 or P.callbacks != NULL or normalised(P):
        return False
    if P.K.vector_bytes == P.K.real_bytes:
        return False
    if no_narrow or not (narrow_last(&P.layer[1]) and y.derived and fc_curvature_from_delta(y.phi)):
        return False
    if forced_pairs >= 0:
        return forced_pairs
    return 2 * P.N * y.m * P.K.real_bytes > PAIRS_MIN_BYTES


cdef bint state_is_near(PlanS *P) noexcept nogil:
    """Return True if the state at theta stays in the third-level cache from product to product. One
    hidden layer's state is read so evenly that the whole cache counts: the smaller bound would make
    the network 13-64-1 7% slower.
    """
    return P.N * state_bytes_per_sample(P) <= (L3_BYTES if P.n_layers == 2 else L3_SHARE_BYTES)


cdef Py_ssize_t panels_for(
    PlanS *P, Py_ssize_t rows, Py_ssize_t most, bint nearest
) noexcept nogil:
    """Return the number of panels for N rows, at most `most`.

    The starting point is panels of `rows` rows. At least four panels are used if each has a quarter
    of PANEL_ROWS rows (two if a product has fewer than FOUR_PANELS_MIN_FLOPS flops), and enough
    panels that each has at most PANEL_MAX_FLOPS flops, as far as that quarter allows. To balance 2
    or 4 threads the number is rounded to a multiple of two or four: up, or, for `nearest`, which
    suits short panels, to the nearest.
    """
    cdef Py_ssize_t count = (P.N + rows - 1) // rows, work = 12 * P.N * P.n
    cdef Py_ssize_t even = 4 if work >= FOUR_PANELS_MIN_FLOPS else 2
    count = max(count, min(P.N // (PANEL_ROWS // 4), max(even, work // PANEL_MAX_FLOPS)))
    if count > 2:
        count = max(even, (count + (even // 2 if nearest else even) - 1) // even * even)
    return min(count, most)


cdef Py_ssize_t lines_under_narrow(PlanS *P) noexcept nogil:
    """Return the panel length, in cache lines of samples, for one hidden layer below a narrow
    output layer. If the state comes from memory, a panel is a whole number of product tiles: four
    lines, or three for deep products. The state of a panel and of the next one, inputs aside,
    leaves room in the second-level cache. On Zen 5, 21 lines cost 2 to 7% more than 20; 16 would
    put rows 17 lines apart.
    """
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Py_ssize_t most = 20 if P.near or P.layer[0].k * size <= FC_SHALLOW else 18
    cdef Py_ssize_t line = FC_ALIGN // size * (state_bytes_per_sample(P) - P.layer[0].k * size)
    if most * line <= TRANSPOSED_PANEL_BYTES:
        return most
    return 12 if 12 * line <= NARROW_STATE_BYTES else 4


cdef Py_ssize_t panels_transposed(PlanS *P) noexcept nogil:
    """Return the number of panels in the transposed layout, or 0 if samples should be rows.

    The transposed layout is used in these cases. Padding to whole vectors costs more than 3%, or 1%
    in the layers below the last one, whose few units are not the rule. Packed V would come from the
    third-level cache, or so few rows use it that packing is noticeable. The state comes from beyond
    that cache, because only the transposed layout prefetches it; without 64-byte vectors only if
    row-major panels would be short (on Zen 3, up to 50 rows, 3 to 15% less time; from 70 rows on,
    as in 16-16-16-16, up to 1.4 times as much). One hidden layer of any width is below a narrow
    output layer.

    It is not used if a panel's inputs would come from the third-level cache, unless row-major
    layout leaves as many lanes empty. A panel's state, its scratch and the next panel's state leave
    room in the second-level cache. If such a panel would be too short (joining the lanes of sums
    over samples and reading W and V become noticeable), the state comes from the third level
    instead and panels are long in float32 and shorter in float64, where that gains 1 to 4%. If only
    one thread is used, there is one panel as far as the cache allows.
    """
    cdef Py_ssize_t l, line = line_of(P), lines = (P.N + line - 1) // line
    cdef Py_ssize_t units = 0, count, long_, rows, work = 12 * P.N * P.n
    cdef bint alone = work < SERIAL_TRANSPOSED_FLOPS
    cdef bint narrow = P.n_layers == 2 and narrow_last(&P.layer[1]) and not no_narrow, few
    if forced_lines >= 0:
        return (lines + forced_lines - 1) // forced_lines if forced_lines else 0
    if P.K.vector_bytes == P.K.real_bytes or P.n * P.K.real_bytes > TRANSPOSED_WEIGHTS:
        return 0
    few = P.N <= PACK_MIN_ROWS and P.n * P.K.real_bytes > PACK_CHEAP_BYTES
    if not (
        narrow or few or P.n * P.K.real_bytes > PANEL_PARALLEL_MAX_BYTES
        or (not P.near and (P.K.vector_bytes == FC_ALIGN or P.panel <= SHORT_PANEL_ROWS))
        or padding_ratio(P, P.n_layers) > 1.03
        or (P.n_layers > 1 and padding_ratio(P, P.n_layers - 1) > 1.01)
    ):
        return 0
    for l in range(P.n_layers):
        units += P.layer[l].m
        if not narrow and (
            max(P.layer[l].m, P.layer[l].k) > TRANSPOSED_WIDTH_BYTES // P.K.real_bytes
        ):
            return 0
    if narrow:
        # on one thread: one panel
        long_, rows = lines, lines_under_narrow(P) * line
    else:
        long_ = TRANSPOSED_PANEL_BYTES // (6 * FC_ALIGN * units)
        rows = min(<Py_ssize_t>PANEL_ROWS, (long_ + 3) // 4 * 4 * line)
        if long_ < TRANSPOSED_MIN_LINES:
            long_ = MIN_LINES_F32 if P.K.real_bytes == 4 else MIN_LINES_F64
            rows = long_ * line
    count = (lines + long_ - 1) // long_ if alone else panels_for(
        P, rows, lines, narrow or rows < MIN_LINES_F32 * line
    )
    if count < 2 and not alone and lines > (4 if work < SERIAL_FLOPS else 1):
        count = 2
    long_ = (lines + count - 1) // count
    if long_ * FC_ALIGN * P.layer[0].k > MAX_INPUT_BYTES * padding_ratio(P, max(1, P.n_layers - 1)):
        return 0
    return count


cdef bint is_shared(PlanS *P) noexcept nogil:
    """Return True if the transposed layout uses one panel of all rows, whose products all threads
    share.

    That is so if the network is too wide for panels and so few rows use packed V that packing is
    noticeable. The lanes are samples then, some of them empty, and W and V are read in place, by
    rows and by columns, which from memory is slower than from a packed copy. It is also so if two
    panels would have an uneven number of lines (1 and a part of one, 2 and 1, 3 and 2), or a few
    more lines while W and V are expensive to read twice.
    """
    cdef Py_ssize_t bytes_ = P.n * P.K.real_bytes, empty = whole_lines(P, P.N) - P.N
    cdef Py_ssize_t lines = whole_lines(P, P.N) * P.K.real_bytes // FC_ALIGN
    cdef Py_ssize_t work = 12 * P.N * P.n // jobs_shared(P)
    if forced_lines >= 0:
        return forced_lines > 0 and forced_shared
    if P.K.vector_bytes == P.K.real_bytes:
        return False
    if bytes_ <= TRANSPOSED_WEIGHTS:
        if empty > P.N:
            return False
        if (
            P.K.real_bytes == 4 and bytes_ > SHARED_F32_MIN_BYTES and work >= SHARED_F32_MIN_FLOPS
            and (lines <= SHARED_F32_MAX_LINES or lines % 2 and lines <= SHARED_F32_MAX_ODD_LINES)
        ):
            return True
        return (lines % 2 and lines <= 5 or lines == 2 and empty) and work >= SHARED_MIN_FLOPS
    if P.K.real_bytes == 4 and 2 * empty > P.N and bytes_ <= SHARED_F32_PACK_BYTES:
        return False
    return P.N <= (SHARED_MAX_ROWS if bytes_ <= L3_BYTES else SHARED_MAX_ROWS_FAR)


cdef bint is_unpacked(PlanS *P) noexcept nogil:
    """Return True if W and V are read in place, along their rows, because so few rows use them that
    packing would cost more than it saves.
    """
    if P.K.vector_bytes == P.K.real_bytes or normalised(P):
        return False
    if forced_unpacked >= 0:
        return P.N <= forced_unpacked
    return (
        P.N * P.K.real_bytes <= UNPACKED_MAX_ROW_BYTES
        and P.n * P.K.real_bytes > UNPACKED_MIN_BYTES
    )
