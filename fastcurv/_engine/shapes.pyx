"""Rules that choose the layout and the number of panels of a plan (declarations in shapes.pxd). The
constants were measured on Zen 3 and Zen 5.
"""


cdef bint skip_of(skips, Py_ssize_t l, Py_ssize_t k, Py_ssize_t m) except -1:
    """Return whether layer l of k inputs and m outputs adds its input to its output. A subclass of
    a model may have its own `skips`. Raise ValueError if they have no value for the layer, or add
    inputs to another number of outputs.
    """
    if len(skips) <= l or skips[l] and k != m:
        raise ValueError(
            "skips of the model must have a bool for each hidden layer, False where the numbers of "
            f"inputs and outputs differ, got {skips!r:.200}."
        )
    return bool(skips[l])


cdef enum:
    DEFAULT_PANEL_ROWS = 512            # rows per panel if the state fits in the L3 cache
    PANEL_MAX_FLOPS = 250000000  # maximum flops of a panel; above, rows are cut into more panels
    # minimum flops of a product for which at least four panels are used
    FOUR_PANELS_MIN_FLOPS = 12000000
    # Maximum bytes of parameters of panel-parallel plans in the transposed layout, which packs
    # nothing.
    TRANSPOSED_MAX_PARAM_BYTES = 5 << 18
    # For at most NO_PACK_MAX_ROWS rows and more than CHEAP_PACK_MAX_BYTES bytes of parameters,
    # packing V costs more time than the transposed layout.
    NO_PACK_MAX_ROWS = 400
    CHEAP_PACK_MAX_BYTES = 1 << 16
    # Maximum rows of the shared layout (one transposed panel of all rows, with each product split
    # over all threads). SHARED_UNCACHED_MAX_ROWS applies if W is read from memory.
    SHARED_MAX_ROWS = 256
    SHARED_UNCACHED_MAX_ROWS = 48
    # Minimum flops per job of the thread team for which a plan in place of two unequal panels uses
    # the shared layout. The time to wake a thread is then negligible.
    SHARED_MIN_FLOPS = 1500000
    # In float32 the shared layout is also used in place of several panels, each of which would read
    # W, V and the sums over rows again. Requirements: at least SHARED_F32_MIN_BYTES bytes of
    # parameters, SHARED_F32_MIN_FLOPS flops per job of the thread team, and at most
    # SHARED_F32_MAX_LINES cache lines of samples. The limit is SHARED_F32_MAX_ODD_LINES for an odd
    # number of lines, which two panels would share unevenly.
    SHARED_F32_MIN_BYTES = 1 << 20
    SHARED_F32_MAX_LINES = 7
    SHARED_F32_MAX_ODD_LINES = 13
    SHARED_F32_MIN_FLOPS = 8000000
    # Maximum bytes of float32 parameters for which packing W and V costs less time than leaving a
    # third of the lanes empty.
    SHARED_F32_PACK_MAX_BYTES = 6 << 20
    # W and V are not packed if there are at least UNPACKED_MIN_BYTES bytes of parameters and one
    # column over all rows takes at most UNPACKED_MAX_COLUMN_BYTES bytes (half a cache line, so that
    # the transposed layout would leave at least half of the lanes empty).
    UNPACKED_MAX_COLUMN_BYTES = 32
    UNPACKED_MIN_BYTES = 1 << 14
    # Maximum bytes of a sample's widest layer in the transposed layout.
    TRANSPOSED_MAX_WIDTH_BYTES = 8192
    # Maximum bytes of the L2 cache that a transposed panel may occupy.
    TRANSPOSED_MAX_PANEL_BYTES = 450000
    # Maximum bytes of the L2 cache that the state of 12 cache lines of samples may occupy if the
    # output layer is narrow.
    NARROW_MAX_STATE_BYTES = 1 << 21
    # Maximum bytes of a panel's inputs in the transposed layout. For more, row-major layout is
    # faster if its lanes are full.
    TRANSPOSED_MAX_INPUT_BYTES = 3 << 19
    # Minimum cache lines of samples per panel, unless the state is read from the L3 cache.
    TRANSPOSED_MIN_LINES = 8
    # Minimum bytes of phi and phi' for which they are stored as packed pairs.
    PAIRS_MIN_BYTES = 400000
    # Minimum cache lines of samples per panel, in float32 and in float64, if the state of a panel
    # does not fit in the L2 cache.
    UNCACHED_MIN_LINES_F32 = 16
    UNCACHED_MIN_LINES_F64 = 10
    # Maximum rows of a row-major panel for which the transposed layout is faster if the state
    # exceeds the L3 cache.
    MAX_SHORT_PANEL_ROWS = 50


cdef Py_ssize_t forced_lines = -1
cdef bint forced_shared = False
cdef Py_ssize_t forced_unpacked_rows = -1
cdef int forced_pairs = -1


def force_transposed_layout(Py_ssize_t lines, bint shared=False):
    """Set the panel length of later plans, for tests.

    Argument `lines` is the number of 64-byte cache lines of samples per panel in the transposed
    layout. 0 selects the row-major layout, and -1 restores the automatic choice. If `shared`, plans
    use one panel of all rows, which all threads share.
    """
    global forced_lines, forced_shared
    forced_lines, forced_shared = lines, shared


def force_unpacked_weights(Py_ssize_t rows=-1):
    """Make later plans of at most `rows` rows layer-parallel, without packing W and V, for tests.
    With -1, restore the automatic choice.
    """
    global forced_unpacked_rows
    forced_unpacked_rows = rows


def force_packed_pairs(int packed=-1):
    """Store phi and phi' as packed pairs in later plans that support them if `packed` is 1, and
    never if it is 0, for tests and benchmarks. With -1, restore the automatic choice.
    """
    global forced_pairs
    forced_pairs = packed


cdef bint is_layout_forced() noexcept nogil:
    """Return True if the layout was fixed by `force_transposed_layout`."""
    return forced_lines >= 0


cdef inline Py_ssize_t jobs_per_layer_parallel_product(PlanS *P) noexcept nogil:
    """Return the number of jobs that the thread team runs for one operator product in a
    layer-parallel plan.
    """
    return 3 * P.n_layers + 2


cdef double padding_ratio(PlanS *P, Py_ssize_t layers) noexcept nogil:
    """Return the ratio of all multiply-adds of a row-major operator product, including those in
    empty lanes, to the useful ones, over the first `layers` layers.
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
    """Return the bytes of state at theta that are stored per sample, including the sample's row of
    X.
    """
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
    """Return True if the transposed layout stores phi and phi' as packed pairs. The network must
    have one hidden layer below a narrow output layer. On Zen 5, reading packed pairs is faster
    above PAIRS_MIN_BYTES, by 5% if they fit in the L2 cache and by 8 to 15% if not. Below
    PAIRS_MIN_BYTES it is up to 5% slower.
    """
    cdef Layer *y = &P.layer[0]
    if P.n_layers != 2 or P.callbacks != NULL or has_batch_norm(P):
        return False
    if P.K.vector_bytes == P.K.real_bytes:
        return False
    if not (
        can_fuse_output(&P.layer[1]) and y.derived and fc_curvature_from_delta(y.phi)
    ):
        return False
    if forced_pairs >= 0:
        return forced_pairs
    return 2 * P.N * y.m * P.K.real_bytes > PAIRS_MIN_BYTES


cdef bint state_fits_in_l3(PlanS *P) noexcept nogil:
    """Return True if the state at theta remains in the L3 cache from one operator product to the
    next. For one hidden layer the bound is the whole cache, L3_BYTES, because its state is read
    evenly. With L3_SHARE_BYTES the network 13-64-1 would be 7% slower.
    """
    return P.N * state_bytes_per_sample(P) <= (L3_BYTES if P.n_layers == 2 else L3_SHARE_BYTES)


cdef Py_ssize_t count_even_panels(
    PlanS *P, Py_ssize_t rows, Py_ssize_t most, bint nearest
) noexcept nogil:
    """Return the number of panels for N rows, which is at most `most`.

    The first estimate is panels of `rows` rows each. If panels have at least DEFAULT_PANEL_ROWS / 4
    rows, the number is raised to at least four (two if an operator product has fewer than
    FOUR_PANELS_MIN_FLOPS flops), and further until each has at most PANEL_MAX_FLOPS flops. To
    balance 2 or 4 threads the number is rounded to a multiple of two or four: upwards, or to the
    nearest multiple if `nearest`, which is better for short panels.
    """
    cdef Py_ssize_t count = (P.N + rows - 1) // rows, work = 12 * P.N * P.n
    cdef Py_ssize_t even = 4 if work >= FOUR_PANELS_MIN_FLOPS else 2
    count = max(count, min(P.N // (DEFAULT_PANEL_ROWS // 4), max(even, work // PANEL_MAX_FLOPS)))
    if count > 2:
        count = max(even, (count + (even // 2 if nearest else even) - 1) // even * even)
    return min(count, most)


cdef Py_ssize_t narrow_output_panel_cache_lines(PlanS *P) noexcept nogil:
    """Return the panel length, in cache lines of samples, for one hidden layer below a narrow
    output layer.

    If the state is read from memory, a panel consists of whole product tiles, of four cache lines
    or, for deep products, three. The L2 cache must hold the state of a panel and of the next one,
    inputs excluded. On Zen 5 a panel of 21 cache lines takes 2 to 7% longer than one of 20. A panel
    of 16 cache lines would need a leading dimension of 17 to avoid conflicts between cache sets.
    """
    cdef Py_ssize_t size = P.K.real_bytes
    cdef Py_ssize_t most = 20 if P.state_fits_l3 or P.layer[0].k * size <= FC_SHALLOW_BYTES else 18
    cdef Py_ssize_t line = FC_ALIGN // size * (state_bytes_per_sample(P) - P.layer[0].k * size)
    if most * line <= TRANSPOSED_MAX_PANEL_BYTES:
        return most
    return 12 if 12 * line <= NARROW_MAX_STATE_BYTES else 4


cdef Py_ssize_t choose_transposed_panels(PlanS *P) noexcept nogil:
    """Return the number of panels in the transposed layout, or 0 if the row-major layout is faster.

    The transposed layout is chosen in each of these cases. (1) Padding to whole vectors would cost
    more than 3%, or more than 1% in the layers below the output layer. (2) Packed V would be read
    from the L3 cache, or would be used by too few rows to repay packing. (3) The state does not fit
    in the L3 cache, because only the transposed layout prefetches it. Without 64-byte vectors, case
    3 requires short row-major panels: on Zen 3 the transposed layout takes 3 to 15% less time up to
    50 rows, but up to 1.4 times as much for 70 rows or more (network 16-16-16-16). (4) The network
    has one hidden layer, of any width, below a narrow output layer.

    The transposed layout is not chosen if a panel's inputs would exceed TRANSPOSED_MAX_INPUT_BYTES,
    unless the row-major layout would leave as many lanes empty. The L2 cache must hold a panel's
    state, its scratch and the next panel's state. If such a panel would be shorter than
    TRANSPOSED_MIN_LINES, so that summing over lanes and reading W and V would dominate, the state
    is read from the L3 cache. Panels then have UNCACHED_MIN_LINES_F32 cache lines in float32 and
    UNCACHED_MIN_LINES_F64 in float64, where shorter panels save 1 to 4%. A single thread uses one
    panel if the cache permits.
    """
    cdef Py_ssize_t l, line = elements_per_cache_line(P), lines = (P.N + line - 1) // line
    cdef Py_ssize_t units = 0, count, long_, rows, work = 12 * P.N * P.n
    cdef bint alone = work < SERIAL_TRANSPOSED_MAX_FLOPS
    cdef bint narrow = P.n_layers == 2 and can_fuse_output(&P.layer[1]), few
    if forced_lines >= 0:
        return (lines + forced_lines - 1) // forced_lines if forced_lines else 0
    if P.K.vector_bytes == P.K.real_bytes or P.n * P.K.real_bytes > TRANSPOSED_MAX_PARAM_BYTES:
        return 0
    few = P.N <= NO_PACK_MAX_ROWS and P.n * P.K.real_bytes > CHEAP_PACK_MAX_BYTES
    if not (
        narrow or few or P.n * P.K.real_bytes > PANEL_PARALLEL_MAX_BYTES
        or (
            not P.state_fits_l3
            and (P.K.vector_bytes == FC_ALIGN or P.panel <= MAX_SHORT_PANEL_ROWS)
        )
        or padding_ratio(P, P.n_layers) > 1.03
        or (P.n_layers > 1 and padding_ratio(P, P.n_layers - 1) > 1.01)
    ):
        return 0
    for l in range(P.n_layers):
        units += P.layer[l].m
        if not narrow and (
            max(P.layer[l].m, P.layer[l].k) > TRANSPOSED_MAX_WIDTH_BYTES // P.K.real_bytes
        ):
            return 0
    if narrow:
        # A single thread uses one panel of all rows.
        long_, rows = lines, narrow_output_panel_cache_lines(P) * line
    else:
        long_ = TRANSPOSED_MAX_PANEL_BYTES // (6 * FC_ALIGN * units)
        rows = min(<Py_ssize_t>DEFAULT_PANEL_ROWS, (long_ + 3) // 4 * 4 * line)
        if long_ < TRANSPOSED_MIN_LINES:
            long_ = UNCACHED_MIN_LINES_F32 if P.K.real_bytes == 4 else UNCACHED_MIN_LINES_F64
            rows = long_ * line
    count = (lines + long_ - 1) // long_ if alone else count_even_panels(
        P, rows, lines, narrow or rows < UNCACHED_MIN_LINES_F32 * line
    )
    if count < 2 and not alone and lines > (4 if work < SERIAL_MAX_FLOPS else 1):
        count = 2
    long_ = (lines + count - 1) // count
    if long_ * FC_ALIGN * P.layer[0].k > TRANSPOSED_MAX_INPUT_BYTES * padding_ratio(
        P, max(1, P.n_layers - 1)
    ):
        return 0
    return count


cdef bint is_shared_layout_faster(PlanS *P) noexcept nogil:
    """Return True if the transposed layout uses the shared layout: one panel of all rows, whose
    products are split over all threads.

    There are two cases. (1) The network is too wide for panels, and packing V does not pay, because
    few samples use it. Lanes hold samples, some lanes are empty, and W and V are read in place, by
    rows and by columns. Reading in place is slower than reading a packed copy if W exceeds the L3
    cache, so SHARED_UNCACHED_MAX_ROWS is smaller. (2) Two panels would be unequally filled, because
    the samples fill 3 or 5 cache lines, or 2 of which the second is partly empty. In float32 it is
    also used if W and V are so large that reading them for each panel is expensive.
    """
    cdef Py_ssize_t bytes_ = P.n * P.K.real_bytes, empty = round_up_to_cache_lines(P, P.N) - P.N
    cdef Py_ssize_t lines = round_up_to_cache_lines(P, P.N) * P.K.real_bytes // FC_ALIGN
    cdef Py_ssize_t work = 12 * P.N * P.n // jobs_per_layer_parallel_product(P)
    if forced_lines >= 0:
        return forced_lines > 0 and forced_shared
    if P.K.vector_bytes == P.K.real_bytes:
        return False
    if bytes_ <= TRANSPOSED_MAX_PARAM_BYTES:
        if empty > P.N:
            return False
        if (
            P.K.real_bytes == 4 and bytes_ > SHARED_F32_MIN_BYTES and work >= SHARED_F32_MIN_FLOPS
            and (lines <= SHARED_F32_MAX_LINES or lines % 2 and lines <= SHARED_F32_MAX_ODD_LINES)
        ):
            return True
        return (lines % 2 and lines <= 5 or lines == 2 and empty) and work >= SHARED_MIN_FLOPS
    if P.K.real_bytes == 4 and 2 * empty > P.N and bytes_ <= SHARED_F32_PACK_MAX_BYTES:
        return False
    return P.N <= (SHARED_MAX_ROWS if bytes_ <= L3_BYTES else SHARED_UNCACHED_MAX_ROWS)


cdef bint is_unpacked_layout_faster(PlanS *P) noexcept nogil:
    """Return True if W and V are read in place along their rows, because too few rows use them to
    repay packing.
    """
    if P.K.vector_bytes == P.K.real_bytes or has_batch_norm(P):
        return False
    if forced_unpacked_rows >= 0:
        return P.N <= forced_unpacked_rows
    return (
        P.N * P.K.real_bytes <= UNPACKED_MAX_COLUMN_BYTES
        and P.n * P.K.real_bytes > UNPACKED_MIN_BYTES
    )
