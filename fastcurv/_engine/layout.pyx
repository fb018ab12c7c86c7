"""Choice of chunks, panels and threads, and the layout of a plan's memory.

A plan's arrays lie in one block of memory. Layout functions run twice: first with an arena whose
base is NULL, to compute the size of the block, in which case all pointers are NULL, and then to set
the pointers into the block.
"""
import numpy as np

from libc.stdint cimport int32_t
from libc.math cimport sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef enum:
    # Maximum number of groups of panels, and thus of partial sums, of a panel-parallel plan.
    MAX_GROUPS = 16
    # Number of groups if there are at most MAX_GROUPS panels. Each further group moves n elements
    # (one partial sum) through the caches.
    TARGET_GROUPS = 4
    # Minimum rows of each of two panels. A panel's fixed cost equals that of about ten rows.
    MIN_PANEL_ROWS = 24
    MAX_PANEL_BYTES = 1 << 18  # maximum bytes of the L2 cache that a panel's rows may occupy
    # Row-major layout: minimum bytes of state and scratch of a panel for which prefetching is
    # faster. PREFETCH_MIN_BYTES_AVX512 applies with 64-byte vectors if the state of all rows
    # exceeds PREFETCH_MIN_STATE_BYTES.
    PREFETCH_MIN_BYTES = 7 << 19
    PREFETCH_MIN_BYTES_AVX512 = 1 << 20
    PREFETCH_MIN_STATE_BYTES = 5 << 20
    # Maximum rows of a panel if rows come in chunks, because scratch counts towards the memory
    # limit.
    MAX_CHUNK_PANEL_ROWS = 128
    # Bytes of state of the rows that are passed to a user-defined function in one call.
    CALLBACK_STATE_BYTES = 1 << 21
    # Flops that a core can perform in the time that it takes to wake and join one more thread.
    THREAD_WAKE_FLOPS = 75000
    # number of threads that the cost model allows in any case; it limits only larger numbers
    MIN_ALLOWED_THREADS = 8


cdef inline Py_ssize_t jobs_per_product(PlanS *P) noexcept nogil:
    """Return the number of jobs that the thread team runs for one operator product."""
    return 2 if P.panel and not P.shared else jobs_per_layer_parallel_product(P)


cdef int choose_layout(PlanS *P, Py_ssize_t memory) except -1:
    """Choose the number of rows per chunk, the layout, the panels and the number of threads from a
    cost model.

    In panel-parallel plans each row stays on one thread. In layer-parallel plans, for wide
    networks, each matrix product is split over the threads. A panel costs about as much as ten of
    its rows, because W and V are read again and sums over rows are written and added. Panels are
    therefore long if rows can be read from the L3 cache as fast as they are processed.

    Below SERIAL_MAX_FLOPS flops one thread is used. Above, T threads take the time work / T + jobs
    * wake * T, where `jobs` is jobs_per_product(P) and `wake` is THREAD_WAKE_FLOPS. The time is
      least for
    T = sqrt(work / (jobs * wake)), which is the upper limit on the number of threads.
    """
    cdef Py_ssize_t l, row_bytes = 0, size = P.K.real_bytes, count, rows, transposed_bytes = 0
    cdef bint prefetches_early
    cdef int most
    P.packs_pairs = can_pack_phi(P)
    P.chunk, P.state_fits_l3, P.unpacked = P.N, state_fits_in_l3(P), is_unpacked_layout_faster(P)
    for l in range(P.n_layers):
        row_bytes += size * (P.layer[l].ldm * 6 + (P.layer[l].ldk if l == 0 else 0))
    if P.n * size <= PANEL_PARALLEL_MAX_BYTES and not (has_batch_norm(P) or P.unpacked):
        rows = max(16, min(256, MAX_PANEL_BYTES // row_bytes))
        count = count_even_panels(
            P, max(rows, DEFAULT_PANEL_ROWS) if P.state_fits_l3 else rows, P.N, False
        )
        if count < 2 and P.N >= 2 * MIN_PANEL_ROWS and 12 * P.N * P.n >= SERIAL_MAX_FLOPS:
            count = 2           # two threads share even few rows
        P.panel = (P.N + count - 1) // count
    if not (has_batch_norm(P) or P.unpacked):
        transposed_bytes = choose_transposed_layout(P, memory)
    P.packs_pairs &= P.ld_transposed and not P.shared
    P.state_bytes = P.N * state_bytes_per_sample(P)
    prefetches_early = P.K.vector_bytes == FC_ALIGN and P.state_bytes > PREFETCH_MIN_STATE_BYTES
    P.panel_exceeds_l2 = P.panel * row_bytes > (
        PREFETCH_MIN_BYTES_AVX512 if prefetches_early else PREFETCH_MIN_BYTES
    )
    P.prefetches_next = P.ld_transposed and P.state_bytes > L3_SHARE_BYTES
    if 12 * P.N * P.n < (SERIAL_TRANSPOSED_MAX_FLOPS if P.ld_transposed else SERIAL_MAX_FLOPS):
        P.threads = 1
    most = <int>sqrt(12.0 * P.N * P.n / (THREAD_WAKE_FLOPS * jobs_per_product(P)))
    P.threads = min(P.threads, max(<int>MIN_ALLOWED_THREADS, most))
    if memory:
        fit_chunk_into_memory(P, memory, transposed_bytes)
    return 0


cdef int fit_chunk_into_memory(PlanS *P, Py_ssize_t memory, Py_ssize_t transposed_bytes) except -1:
    """Choose the largest chunk of rows whose plan fits in `memory` bytes. The choice depends only
    on sizes and on `memory`, so that no result depends on the number of threads.

    Let B(c) be the bytes of a plan for one thread with a chunk of c rows, and s the bytes of one
    thread's scratch. If B(N) fits, the chunk is all N rows. Otherwise the chunk is the largest c
    with ``B(c) <= memory - min(63 s, (memory - B(1)) / 4)``, which leaves memory for the scratch of
    further threads. Then the number of threads is reduced until the plan fits. Argument
    `transposed_bytes` is the size of the plan in the transposed layout, or 0.
    """
    cdef int wanted = P.threads
    cdef Py_ssize_t low, high, middle, least, room, each
    P.threads = 2
    each = plan_bytes(P)
    P.threads = 1
    middle = plan_bytes(P)
    each -= middle
    if middle > memory:
        if not P.ld_transposed:
            P.panel = min(P.panel, <Py_ssize_t>MAX_CHUNK_PANEL_ROWS)
        P.chunk = 1
        least = plan_bytes(P)
        if least > memory:
            least = min(least, middle, transposed_bytes or least)
            raise ValueError(
                f"memory must be at least {least} bytes, which hold the state of one row, got "
                f"{memory}."
            )
        room = min((FC_MAX_THREADS - 1) * each, (memory - least) // 4)
        low, high = 1, P.N - 1  # the bytes of a plan increase with the rows of a chunk
        while low < high:
            middle = (low + high + 1) // 2
            P.chunk = middle
            if <Py_ssize_t>plan_bytes(P) <= memory - room:
                low = middle
            else:
                high = middle - 1
        P.chunk = low
    P.threads = wanted
    while P.threads > 1 and <Py_ssize_t>plan_bytes(P) > memory:
        P.threads -= 1
    return 0


cdef Py_ssize_t choose_transposed_layout(PlanS *P, Py_ssize_t memory) except -1:
    """Choose the transposed layout and its panels if it is faster. If a plan in that layout exceeds
    `memory`, choose the row-major layout, in which rows can come in chunks. Return the bytes of the
    plan in the transposed layout, or 0 if the size was not computed.
    """
    cdef Py_ssize_t l, line = elements_per_cache_line(P), lines
    P.shared = is_shared_layout_faster(P)
    P.panels = 1 if P.shared else choose_transposed_panels(P)
    cdef Py_ssize_t panel = P.panel, ldx = P.ldx, most = 0
    cdef int threads = P.threads
    if P.panels:
        lines = (round_up_to_cache_lines(P, P.N) // line + P.panels - 1) // P.panels
        P.panel = lines * line
        # The rows of a matrix are never a multiple of 512 bytes apart, because such rows would
        # compete for few cache sets.
        P.ld_transposed = P.panel + (line if lines % 8 == 0 else 0)
        P.ldx = P.layer[0].k
        for l in range(P.n_layers):
            P.layer[l].ldm, P.layer[l].ldk = P.layer[l].m, P.layer[l].k
        P.threads = 1
        most = plan_bytes(P) if memory and not is_layout_forced() else 0
        P.threads = threads
        if most > memory:
            P.ld_transposed, P.panel, P.ldx, P.shared = 0, panel, ldx, False
            for l in range(P.n_layers):
                P.layer[l].ldm = padded_ld(P.layer[l].m, P.K.real_bytes)
                P.layer[l].ldk = padded_ld(P.layer[l].k, P.K.real_bytes)
    return most


cdef size_t plan_bytes(PlanS *P) except 0:
    """Return the bytes of the plan's block for the current chunk, with rows padded to whole panels.
    Raise MemoryError if the size overflows.
    """
    cdef Arena arena
    arena.base, arena.used, arena.overflow = NULL, 0, False
    lay_out_plan(P, &arena)
    lay_out_vectors(P, &arena, 1)
    if arena.overflow:
        raise MemoryError(
            f"The state for {P.N} rows and {P.n} parameters exceeds the address space. "
            "Use fewer rows."
        )
    return arena.used


cdef void lay_out_plan(PlanS *P, Arena *A) noexcept nogil:
    """Set all pointers of the plan into its block of memory.

    The sizes in elements are as follows, with R the rows of a chunk, D the sum of the padded layer
    widths, and D_L the padded width of the output layer. Both packed copies of W: n + (n - size of
    the first layer). State: R D each for a and delta, and for phi' and e phi'' in the layers in
    which they are neither constant nor recomputed. Loss: R D_L. Scratch: r times (1 or 2 elements
    per unit, plus twice the widest layer), where r is the rows of a chunk if the plan is
    layer-parallel, and of a panel for each thread if it is panel-parallel. Shared plans add R D for
    packed a, and N times the widest layer to scratch. Unpacked plans have no packed W. Shared and
    unpacked plans have n further elements for a copy of a vector whose product overwrites it.
    """
    cdef size_t size = P.K.real_bytes
    cdef size_t R = state_row_of_panel(P, count_panels(P, P.chunk)) if P.ld_transposed else P.chunk
    cdef bint wide = P.panel == 0 or P.shared
    cdef Py_ssize_t l, widest = 0, i
    cdef Py_ssize_t rows = min(P.panel, P.chunk) if P.panel else P.chunk
    cdef Layer *y
    cdef bint packs
    if P.ld_transposed:
        rows = P.ld_transposed
    for l in range(P.n_layers):
        y = &P.layer[l]
        packs = P.packs_pairs and l == 0
        widest = max(widest, max(y.ldm, y.ldk if l else 0))
        if not (P.ld_transposed or P.unpacked):
            y.W.packed_transpose_w = arena_alloc(A, y.k * packed_columns(P, y.m), size)
            y.W.packed_w = arena_alloc(A, y.m * packed_columns(P, y.k), size) if l else NULL
        if not P.ld_transposed:
            y.W.b = arena_alloc(A, y.ldm, size) if y.b >= 0 else NULL
        y.phi_pair = arena_alloc(A, R * y.ldm, size) if packs else NULL
        y.a = arena_alloc(A, R * y.ldm, size) if not packs else NULL
        if P.shared and l < P.n_layers - 1:
            y.packed_transpose = arena_alloc(A, P.N * packed_columns(P, y.m), size)
        y.p = arena_alloc(A, R * y.ldm, size) if y.has_p and not packs and not (
            y.derived and fc_slope_from_a(y.phi)
        ) else NULL
        y.q = arena_alloc(A, R * y.ldm, size) if y.curved and not y.derived else NULL
        y.delta = arena_alloc(A, R * y.ldm, size)
        y.du = y.delta if y.norm == NULL else lay_out_batch_norm(P, y, A)
    y = &P.layer[P.n_layers - 1]
    P.loss.delta, P.loss.ldd = y.delta, y.ldm
    P.loss.ldh = padded_ld(y.m * y.m, P.K.real_bytes) if P.coupled else y.ldm
    P.loss.h = arena_alloc(A, R * P.loss.ldh, size)
    P.loss.s = arena_alloc(A, R, size)
    P.loss.top = <int32_t *>arena_alloc(A, R, sizeof(int32_t))
    P.block_losses = <double *>arena_alloc(A, R // 8 + 2, sizeof(double))
    if P.chunk < P.N or P.ld_transposed:
        P.x = arena_alloc(A, R * P.ldx, size)
    P.ones = arena_alloc(A, P.ld_transposed, size)
    P.saved_v = arena_alloc(A, P.n, size) if P.unpacked or P.shared else NULL
    P.thread_scratch = <Scratch *>arena_alloc(A, P.threads, sizeof(Scratch))
    for i in range(P.threads):
        lay_out_scratch(
            P, A, P.thread_scratch + i if A.base != NULL else NULL, 0 if wide else rows, widest
        )
        if A.base != NULL:
            P.thread_scratch[i].gemm = A.base + A.used
        arena_alloc(A, P.K.scratch + (P.K.packed if packs_sum_operands(P) else 0), 1)
    if wide:                    # products on the thread team use `thread_scratch`
        lay_out_scratch(P, A, &P.team_scratch if A.base != NULL else NULL, rows, widest)
    P.groups = P.work_units = 0 if wide else min(<Py_ssize_t>MAX_GROUPS, count_panels(P, P.chunk))
    if (
        P.groups > TARGET_GROUPS and P.groups == count_panels(P, P.chunk)
        and completes_panel_sums(P) and not P.callbacks
    ):
        P.groups = TARGET_GROUPS
        if TARGET_GROUPS % P.threads == 0:
            P.work_units = TARGET_GROUPS
    P.groups_per_call = max(
        <Py_ssize_t>1, CALLBACK_STATE_BYTES * P.groups
        // max(<Py_ssize_t>1, P.chunk * state_bytes_per_sample(P))
    )
    P.ldg = (P.n * <Py_ssize_t>size + FC_ALIGN - 1) // FC_ALIGN * FC_ALIGN // <Py_ssize_t>size


# --- arrays of the block --------------------------------------------------------------------------


cdef void lay_out_scratch(
    PlanS *P, Arena *A, Scratch *scratch, Py_ssize_t rows, Py_ssize_t widest
) noexcept nogil:
    """Lay out the scratch buffers of a pass of `rows` rows. With `scratch` NULL, only compute their
    size.
    """
    cdef size_t size = P.K.real_bytes
    cdef Py_ssize_t l
    cdef Scratch nowhere
    cdef char **ra = <char **>arena_alloc(A, P.n_layers, sizeof(char *))
    cdef char **rz = <char **>arena_alloc(A, P.n_layers, sizeof(char *))
    cdef char *one
    if scratch == NULL:
        scratch = &nowhere
    scratch.ra, scratch.rz = ra, rz
    # If phi'' is 0 everywhere, rz is not read after ra has been computed, so both use one matrix.
    for l in range(P.n_layers):
        one = arena_alloc(A, rows * P.layer[l].ldm, size)
        if rz != NULL:
            rz[l] = ra[l] = one
        if P.layer[l].curved or P.layer[l].norm != NULL:
            one = arena_alloc(A, rows * P.layer[l].ldm, size)
            if rz != NULL:
                ra[l] = one
    scratch.e[0] = arena_alloc(A, rows * widest, size)
    scratch.e[1] = arena_alloc(A, rows * widest, size)
    scratch.a = arena_alloc(A, rows * P.layer[0].ldm, size) if P.packs_pairs else NULL
    scratch.p = arena_alloc(A, rows * P.layer[0].ldm, size) if P.packs_pairs else NULL
    scratch.packed_transpose = (
        arena_alloc(A, rows * packed_columns(P, widest), size) if P.shared else NULL
    )
    scratch.ldsums = widest
    scratch.sums = NULL if P.ld_transposed else arena_alloc(A, (rows // 16 + 2) * widest, size)
    scratch.totals = <double *>arena_alloc(
        A, (rows // 16 + 2) * (widest // 16 + 2) + 64, sizeof(double)
    )


cdef void lay_out_stack_scratch(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """Lay out, for each thread, the scratch buffers of the vectors that a panel processes together.
    """
    cdef Py_ssize_t l, widest = 0, i
    cdef size_t start
    P.stack_step = 0
    if not P.panel or block == 1 or P.ld_transposed:
        return
    for l in range(P.n_layers):
        widest = max(widest, max(P.layer[l].ldm, P.layer[l].ldk if l else 0))
    P.stack_scratch = <Scratch *>arena_alloc(A, P.threads, sizeof(Scratch))
    for i in range(P.threads):
        start = A.used
        lay_out_scratch(
            P, A, P.stack_scratch + i if A.base != NULL else NULL, min(P.panel, P.chunk), widest
        )
        P.stack_step = A.used - start
        arena_alloc(A, (min(block, <Py_ssize_t>FC_MAX_STACK) - 1) * P.stack_step, 1)
        if A.base != NULL:
            P.stack_scratch[i].gemm = P.thread_scratch[i].gemm


cdef void lay_out_vectors(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """Lay out the packed parts of `block` vectors and, for panel-parallel plans, the sums of each
    work unit for each vector.
    """
    cdef size_t size = P.K.real_bytes, start = A.used
    cdef Py_ssize_t l
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        if P.ld_transposed:     # the transposed layout packs nothing
            continue
        if not P.unpacked:
            y.V.packed_transpose_w = arena_alloc(A, y.k * packed_columns(P, y.m), size)
            y.V.packed_w = arena_alloc(A, y.m * packed_columns(P, y.k), size) if l else NULL
        y.V.b = arena_alloc(A, y.ldm, size) if y.b >= 0 else NULL
    P.v_step = A.used - start
    arena_alloc(A, (block - 1) * P.v_step, 1)
    lay_out_stack_scratch(P, A, block)
    P.panel_totals = <double *>arena_alloc(
        A, block * (count_panels(P, P.chunk) if P.panel else 1), sizeof(double)
    )
    P.unit_sums = arena_alloc(A, P.work_units * block * P.ldg, size)


cdef size_t bytes_for_vectors(PlanS *P, Py_ssize_t block) noexcept nogil:
    """Return the bytes of the arrays that `lay_out_vectors` lays out, or 0 if the size overflows.
    """
    cdef Arena arena
    arena.base, arena.used, arena.overflow = NULL, 0, False
    lay_out_vectors(P, &arena, block)
    return 0 if arena.overflow else arena.used


cdef int add_batch_norm_parameters(PlanS *P, Layer *y) except -1:
    """Append gamma and beta of a batch-normalised layer to theta, after the layer's W and b."""
    y.norm = <Norm *>calloc(1, sizeof(Norm))
    if y.norm == NULL:
        raise MemoryError("Not enough memory for a plan.")
    y.norm.gamma, y.norm.beta = P.n, P.n + y.m
    P.n += 2 * y.m
    return 0


cdef void free_batch_norm_states(PlanS *P) noexcept nogil:
    """Free the states of batch-normalised layers."""
    cdef Py_ssize_t l
    if P.layer != NULL:
        for l in range(P.n_layers):
            free(P.layer[l].norm)


cdef object batch_norm_moments(Layer *y):
    """Return the mean and the variance of z - b of a batch-normalised layer, as two arrays (m,)."""
    moments = np.empty((2, y.m))
    cdef double *to = <double *>pointer(moments)
    memcpy(to, y.norm.moments, y.m * sizeof(double))
    memcpy(to + y.m, y.norm.moments + y.ldm, y.m * sizeof(double))
    return moments[0], moments[1]


cdef char *lay_out_batch_norm(PlanS *P, Layer *y, Arena *A) noexcept nogil:
    """Lay out the matrices h and du, (rows, m) each, the vectors and the sums of a batch-normalised
    layer. Return the address of du.
    """
    cdef Norm *n = y.norm
    cdef size_t size = P.K.real_bytes
    n.h = arena_alloc(A, P.chunk * y.ldm, size)
    n.mean, n.s = arena_alloc(A, y.ldm, size), arena_alloc(A, y.ldm, size)
    n.scale, n.du_mean = arena_alloc(A, y.ldm, size), arena_alloc(A, y.ldm, size)
    n.du_h, n.zeros = arena_alloc(A, y.ldm, size), arena_alloc(A, y.ldm, size)
    n.rz_mean, n.c = arena_alloc(A, y.ldm, size), arena_alloc(A, y.ldm, size)
    n.r_scale, n.rdu_mean = arena_alloc(A, y.ldm, size), arena_alloc(A, y.ldm, size)
    n.rdu_h = arena_alloc(A, y.ldm, size)
    n.here = <double *>arena_alloc(A, 2 * y.ldm, sizeof(double))
    n.sums = <double *>arena_alloc(A, 2 * y.ldm, sizeof(double))
    n.moments = <double *>arena_alloc(A, 2 * y.ldm, sizeof(double))
    n.parts = <double *>arena_alloc(
        A, (P.chunk + SWEEP_BLOCK_ROWS - 1) // SWEEP_BLOCK_ROWS * 2 * y.ldm, sizeof(double)
    )
    return arena_alloc(A, P.chunk * y.ldm, size)
