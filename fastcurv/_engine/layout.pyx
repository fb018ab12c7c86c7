"""The choice of chunks, panels and threads, and the layout of a plan's memory.

An arena whose base is NULL only measures: all pointers are NULL then.
"""
import numpy as np

from libc.stdint cimport int32_t
from libc.math cimport sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef enum:
    # panel-parallel: maximum number of partial sums, whatever the number of threads
    MAX_GROUPS = 16
    # groups used for at most MAX_GROUPS panels: each further one moves n numbers through the caches
    TARGET_GROUPS = 4
    # minimum rows of each of two panels: a panel's fixed cost equals that of ten rows
    MIN_PANEL_ROWS = 24
    PANEL_BYTES = 1 << 18       # bytes of the second-level cache that a panel's rows may fill
    # Prefetching pays if a panel's rows fill more than PREFETCH_MIN_BYTES; with 64-byte vectors,
    # and if the state of all rows exceeds PREFETCH_MIN_STATE_BYTES, from PREFETCH_MIN_BYTES_64 on.
    PREFETCH_MIN_BYTES = 7 << 19
    PREFETCH_MIN_BYTES_64 = 1 << 20
    PREFETCH_MIN_STATE_BYTES = 5 << 20
    # maximum rows of a panel if rows come in chunks, since scratch counts towards the memory limit
    MAX_CHUNK_PANEL_ROWS = 128
    # bytes of state of the rows for which a user-defined function is called at one time
    CALLBACK_STATE_BYTES = 1 << 21
    # flops that a core could do in the time that waking and joining one more thread takes
    WAKE_FLOPS = 75000
    MIN_MAX_THREADS = 8         # number of threads that is allowed whatever the work


cdef inline Py_ssize_t jobs_of(PlanS *P) noexcept nogil:
    """Return the number of jobs of the thread team in one product."""
    return 2 if P.panel and not P.shared else jobs_shared(P)


cdef int choose_chunks(PlanS *P, Py_ssize_t memory) except -1:
    """Choose the rows per chunk, the layout, the panels and the number of threads by a simple cost
    model.

    Panel-parallel plans keep each row on one thread; products of a wide network are large enough to
    be shared. A panel costs about as much as ten of its rows, because W and V are read once more
    and sums over rows are written and added. Panels are therefore long if rows can be read from the
    third-level cache as fast as they are processed.

    Below SERIAL_FLOPS one thread does everything. Above, T threads take a time of work / T + jobs
    wake T, which is least at T = sqrt(work / (jobs wake)); no more threads than that are used.
    """
    cdef Py_ssize_t l, row_bytes = 0, size = P.K.real_bytes, count, rows, transposed_bytes = 0
    cdef bint soon
    cdef int most
    P.packs_pairs = can_pack_phi(P)
    P.chunk, P.near, P.unpacked = P.N, state_is_near(P), is_unpacked(P)
    for l in range(P.n_layers):
        row_bytes += size * (P.layer[l].ldm * 6 + (P.layer[l].ldk if l == 0 else 0))
    if P.n * size <= PANEL_PARALLEL_MAX_BYTES and not (normalised(P) or P.unpacked):
        rows = max(16, min(256, PANEL_BYTES // row_bytes))
        count = panels_for(P, max(rows, PANEL_ROWS) if P.near else rows, P.N, False)
        if count < 2 and P.N >= 2 * MIN_PANEL_ROWS and 12 * P.N * P.n >= SERIAL_FLOPS:
            count = 2           # two threads share even few rows
        P.panel = (P.N + count - 1) // count
    if not (normalised(P) or P.unpacked):
        transposed_bytes = choose_transposed(P, memory)
    P.packs_pairs &= P.ld_transposed and not P.shared
    P.kept = P.N * state_bytes_per_sample(P)
    soon = P.K.vector_bytes == FC_ALIGN and P.kept > PREFETCH_MIN_STATE_BYTES
    P.far = P.panel * row_bytes > (PREFETCH_MIN_BYTES_64 if soon else PREFETCH_MIN_BYTES)
    P.looks_ahead = P.ld_transposed and P.kept > L3_SHARE_BYTES
    if 12 * P.N * P.n < (SERIAL_TRANSPOSED_FLOPS if P.ld_transposed else SERIAL_FLOPS):
        P.threads = 1
    most = <int>sqrt(12.0 * P.N * P.n / (WAKE_FLOPS * jobs_of(P)))
    P.threads = min(P.threads, max(<int>MIN_MAX_THREADS, most))
    if memory:
        fit_into(P, memory, transposed_bytes)
    return 0


cdef int fit_into(PlanS *P, Py_ssize_t memory, Py_ssize_t transposed_bytes) except -1:
    """Choose the largest chunk that fits `memory` bytes, by sizes and the bound alone, so that no
    result depends on the number of threads.

    Let B(c) be the bytes of a plan for one thread that keeps c rows at a time, and s those of one
    thread's scratch. All N rows are kept if B(N) fits; else the chunk is the largest c with ``B(c)
    <= memory - min(63 s, (memory - B(1)) / 4)``, which leaves room for further threads. The number
    of threads is then as large as fits. `transposed_bytes`: bytes of the plan in the transposed
    layout, or 0.
    """
    cdef int wanted = P.threads
    cdef Py_ssize_t low, high, middle, least, room, each
    P.threads = 2
    each = measure(P)
    P.threads = 1
    middle = measure(P)
    each -= middle
    if middle > memory:
        if not P.ld_transposed:
            P.panel = min(P.panel, <Py_ssize_t>MAX_CHUNK_PANEL_ROWS)
        P.chunk = 1
        least = measure(P)
        if least > memory:
            least = min(least, middle, transposed_bytes or least)
            raise ValueError(
                f"memory={memory} bytes is not enough: {least} are "
                "needed to keep the state of one row"
            )
        room = min((FC_MAX_THREADS - 1) * each, (memory - least) // 4)
        low, high = 1, P.N - 1  # the bytes of a plan grow with the rows of a chunk
        while low < high:
            middle = (low + high + 1) // 2
            P.chunk = middle
            if <Py_ssize_t>measure(P) <= memory - room:
                low = middle
            else:
                high = middle - 1
        P.chunk = low
    P.threads = wanted
    while P.threads > 1 and <Py_ssize_t>measure(P) > memory:
        P.threads -= 1
    return 0


cdef Py_ssize_t choose_transposed(PlanS *P, Py_ssize_t memory) except -1:
    """Choose the transposed layout and its panels where that is faster. If a plan in that layout
    exceeds `memory`, samples are rows, which can come in chunks. Return the bytes that the
    transposed layout would take, or 0 if they were not needed.
    """
    cdef Py_ssize_t l, line = line_of(P), lines
    P.shared = is_shared(P)
    P.panels = 1 if P.shared else panels_transposed(P)
    cdef Py_ssize_t panel = P.panel, ldx = P.ldx, most = 0
    cdef int threads = P.threads
    if P.panels:
        lines = (whole_lines(P, P.N) // line + P.panels - 1) // P.panels
        P.panel = lines * line
        # never a multiple of 512 bytes between units
        P.ld_transposed = P.panel + (line if lines % 8 == 0 else 0)
        P.ldx = P.layer[0].k
        for l in range(P.n_layers):
            P.layer[l].ldm, P.layer[l].ldk = P.layer[l].m, P.layer[l].k
        P.threads = 1
        most = measure(P) if memory and not is_forced() else 0
        P.threads = threads
        if most > memory:
            P.ld_transposed, P.panel, P.ldx, P.shared = 0, panel, ldx, False
            for l in range(P.n_layers):
                P.layer[l].ldm = padded(P.layer[l].m, P.K.real_bytes)
                P.layer[l].ldk = padded(P.layer[l].k, P.K.real_bytes)
    return most


cdef size_t measure(PlanS *P) except 0:
    """Return the bytes of the plan's block for the current chunk, with rows padded to whole panels.
    """
    cdef Arena arena
    arena.base, arena.used, arena.overflow = NULL, 0, False
    lay_out(P, &arena)
    lay_out_vectors(P, &arena, 1)
    if arena.overflow:
        raise MemoryError(
            f"a plan for {P.N} rows and {P.n} parameters is larger than memory can be"
        )
    return arena.used


cdef void lay_out(PlanS *P, Arena *A) noexcept nogil:
    """Set all pointers of the plan into its block.

    Sizes in numbers of the real type, with R rows in a chunk and D the sum of the padded widths: n
    + (n - first layer) for W both ways; R D each for a, for delta, and per layer for phi' and e
    phi'' unless they are constant or derived from a and delta; R D_L for the loss; scratch of r
    times (1 or 2 D by layer, plus 2 max D), where r is the rows of a chunk if layer-parallel, and
    of a panel for each thread if panel-parallel. Shared plans add R D for packed a, and N times the
    widest D in scratch. Unpacked plans have no W. Both of these have n numbers more, for a copy of
    a vector that its product overwrites.
    """
    cdef size_t size = P.K.real_bytes
    cdef size_t R = state_of(P, panels_of(P, P.chunk)) if P.ld_transposed else P.chunk
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
            y.W.onward = take(A, y.k * panels(P, y.m), size)
            y.W.back = take(A, y.m * panels(P, y.k), size) if l else NULL
        if not P.ld_transposed:
            y.W.b = take(A, y.ldm, size) if y.b >= 0 else NULL
        y.phi_pair = take(A, R * y.ldm, size) if packs else NULL
        y.a = take(A, R * y.ldm, size) if not packs else NULL
        if P.shared and l < P.n_layers - 1:
            y.packed_transpose = take(A, P.N * panels(P, y.m), size)
        y.p = take(A, R * y.ldm, size) if y.has_p and not packs and not (
            y.derived and fc_slope_from_a(y.phi)
        ) else NULL
        y.q = take(A, R * y.ldm, size) if y.curved and not y.derived else NULL
        y.delta = take(A, R * y.ldm, size)
        y.du = y.delta if y.norm == NULL else lay_out_norm(P, y, A)
    y = &P.layer[P.n_layers - 1]
    P.loss.delta, P.loss.ldd = y.delta, y.ldm
    P.loss.ldh = padded(y.m * y.m, P.K.real_bytes) if P.coupled else y.ldm
    P.loss.h = take(A, R * P.loss.ldh, size)
    P.loss.s = take(A, R, size)
    P.loss.top = <int32_t *>take(A, R, sizeof(int32_t))
    P.values = <double *>take(A, R // 8 + 2, sizeof(double))
    if P.chunk < P.N or P.ld_transposed:
        P.x = take(A, R * P.ldx, size)
    P.ones = take(A, P.ld_transposed, size)
    P.saved_v = take(A, P.n, size) if P.unpacked or P.shared else NULL
    P.members = <Scratch *>take(A, P.threads, sizeof(Scratch))
    for i in range(P.threads):
        lay_scratch(P, A, P.members + i if A.base != NULL else NULL, 0 if wide else rows, widest)
        if A.base != NULL:
            P.members[i].gemm = A.base + A.used
        take(A, P.K.scratch + (P.K.packed if packs_sums(P) else 0), 1)
    if wide:                    # products of the team run on the members' scratch
        lay_scratch(P, A, &P.wide if A.base != NULL else NULL, rows, widest)
    P.groups = P.shares = 0 if wide else min(<Py_ssize_t>MAX_GROUPS, panels_of(P, P.chunk))
    if (
        P.groups > TARGET_GROUPS and P.groups == panels_of(P, P.chunk) and at_once(P)
        and not P.callbacks
    ):
        P.groups = TARGET_GROUPS
        if TARGET_GROUPS % P.threads == 0:
            P.shares = TARGET_GROUPS
    P.groups_per_call = max(
        <Py_ssize_t>1, CALLBACK_STATE_BYTES * P.groups
        // max(<Py_ssize_t>1, P.chunk * state_bytes_per_sample(P))
    )
    P.ldg = (P.n * <Py_ssize_t>size + FC_ALIGN - 1) // FC_ALIGN * FC_ALIGN // <Py_ssize_t>size


# --- the pieces -----------------------------------------------------------------------------------


cdef void lay_scratch(
    PlanS *P, Arena *A, Scratch *scratch, Py_ssize_t rows, Py_ssize_t widest
) noexcept nogil:
    cdef size_t size = P.K.real_bytes
    cdef Py_ssize_t l
    cdef Scratch nowhere
    cdef char **ra = <char **>take(A, P.n_layers, sizeof(char *))
    cdef char **rz = <char **>take(A, P.n_layers, sizeof(char *))
    cdef char *one
    if scratch == NULL:
        scratch = &nowhere
    scratch.ra, scratch.rz = ra, rz
    # if phi'' is 0, rz is not needed once ra is computed, so both share one matrix
    for l in range(P.n_layers):
        one = take(A, rows * P.layer[l].ldm, size)
        if rz != NULL:
            rz[l] = ra[l] = one
        if P.layer[l].curved or P.layer[l].norm != NULL:
            one = take(A, rows * P.layer[l].ldm, size)
            if rz != NULL:
                ra[l] = one
    scratch.e[0] = take(A, rows * widest, size)
    scratch.e[1] = take(A, rows * widest, size)
    scratch.a = take(A, rows * P.layer[0].ldm, size) if P.packs_pairs else NULL
    scratch.p = take(A, rows * P.layer[0].ldm, size) if P.packs_pairs else NULL
    scratch.packed_transpose = take(A, rows * panels(P, widest), size) if P.shared else NULL
    scratch.ldsums = widest
    scratch.sums = NULL if P.ld_transposed else take(A, (rows // 16 + 2) * widest, size)
    scratch.totals = <double *>take(A, (rows // 16 + 2) * (widest // 16 + 2) + 64, sizeof(double))


cdef void lay_out_sides(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """Lay out one scratch per thread for the vectors that a panel takes side by side."""
    cdef Py_ssize_t l, widest = 0, i
    cdef size_t start
    P.side_step = 0
    if not P.panel or block == 1 or P.ld_transposed:
        return
    for l in range(P.n_layers):
        widest = max(widest, max(P.layer[l].ldm, P.layer[l].ldk if l else 0))
    P.sides = <Scratch *>take(A, P.threads, sizeof(Scratch))
    for i in range(P.threads):
        start = A.used
        lay_scratch(P, A, P.sides + i if A.base != NULL else NULL, min(P.panel, P.chunk), widest)
        P.side_step = A.used - start
        take(A, (min(block, <Py_ssize_t>FC_MAX_STACK) - 1) * P.side_step, 1)
        if A.base != NULL:
            P.sides[i].gemm = P.members[i].gemm


cdef void lay_out_vectors(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """Lay out the packed parts of `block` vectors side by side, and for panel-parallel plans the
    sums of each work unit for each of them.
    """
    cdef size_t size = P.K.real_bytes, start = A.used
    cdef Py_ssize_t l
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        if P.ld_transposed:     # nothing is packed
            continue
        if not P.unpacked:
            y.V.onward = take(A, y.k * panels(P, y.m), size)
            y.V.back = take(A, y.m * panels(P, y.k), size) if l else NULL
        y.V.b = take(A, y.ldm, size) if y.b >= 0 else NULL
    P.v_step = A.used - start
    take(A, (block - 1) * P.v_step, 1)
    lay_out_sides(P, A, block)
    P.panel_totals = <double *>take(
        A, block * (panels_of(P, P.chunk) if P.panel else 1), sizeof(double)
    )
    P.shares_out = take(A, P.shares * block * P.ldg, size)


cdef size_t bytes_of(PlanS *P, Py_ssize_t block) noexcept nogil:
    """Return the bytes for `block` vectors side by side; 0 if the size overflows."""
    cdef Arena arena
    arena.base, arena.used, arena.overflow = NULL, 0, False
    lay_out_vectors(P, &arena, block)
    return 0 if arena.overflow else arena.used


cdef int add_norm(PlanS *P, Layer *y) except -1:
    """Place gamma and beta after the layer's W and b in theta."""
    y.norm = <Norm *>calloc(1, sizeof(Norm))
    if y.norm == NULL:
        raise MemoryError("no memory for a plan")
    y.norm.gamma, y.norm.beta = P.n, P.n + y.m
    P.n += 2 * y.m
    return 0


cdef void free_norms(PlanS *P) noexcept nogil:
    cdef Py_ssize_t l
    if P.layer != NULL:
        for l in range(P.n_layers):
            free(P.layer[l].norm)


cdef object moments_of(Layer *y):
    """Return (mean, variance) of a normalised layer's z without b, as two arrays (m,)."""
    moments = np.empty((2, y.m))
    cdef double *to = <double *>pointer(moments)
    memcpy(to, y.norm.moments, y.m * sizeof(double))
    memcpy(to + y.m, y.norm.moments + y.ldm, y.m * sizeof(double))
    return moments[0], moments[1]


cdef char *lay_out_norm(PlanS *P, Layer *y, Arena *A) noexcept nogil:
    """Lay out h and du, (rows, m) each, the vectors of a normalised layer and its sums by blocks of
    rows. Return du.
    """
    cdef Norm *n = y.norm
    cdef size_t size = P.K.real_bytes
    n.h = take(A, P.chunk * y.ldm, size)
    n.mean, n.s, n.scale = take(A, y.ldm, size), take(A, y.ldm, size), take(A, y.ldm, size)
    n.du_mean, n.du_h, n.zeros = take(A, y.ldm, size), take(A, y.ldm, size), take(A, y.ldm, size)
    n.rz_mean, n.c, n.r_scale = take(A, y.ldm, size), take(A, y.ldm, size), take(A, y.ldm, size)
    n.rdu_mean, n.rdu_h = take(A, y.ldm, size), take(A, y.ldm, size)
    n.here = <double *>take(A, 2 * y.ldm, sizeof(double))
    n.sums = <double *>take(A, 2 * y.ldm, sizeof(double))
    n.moments = <double *>take(A, 2 * y.ldm, sizeof(double))
    n.parts = <double *>take(
        A, (P.chunk + BLOCK_ROWS - 1) // BLOCK_ROWS * 2 * y.ldm, sizeof(double)
    )
    return take(A, P.chunk * y.ldm, size)
