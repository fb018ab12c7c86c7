"""Copying of theta, and packing of W and V as right operands of a W' and of delta W.

Unpacked plans copy only the biases. In the transposed layout nothing is packed.

A W that exceeds the caches is read from memory only once: it is processed in blocks, each of which
is copied and packed both ways while it is in the L2 cache.
"""
from libc.string cimport memset


cdef enum:
    # Maximum size of a block of W, which is one part of the job: PACK_BLOCK_MAX_ROWS rows and
    # PACK_BLOCK_MAX_ROW_BYTES bytes.
    PACK_BLOCK_MAX_ROWS = 64
    PACK_BLOCK_MAX_ROW_BYTES = 1 << 17
    PACK_BLOCK_MAX_COLUMNS = PACK_BLOCK_MAX_ROW_BYTES // FC_ALIGN
    COPY_PART_ELEMENTS = 1 << 16  # elements of theta per part of a job that copies without packing
    # Maximum number of elements that one thread packs before a second thread would have woken.
    SERIAL_PACK_MAX_ELEMENTS = 30000


cdef struct Packing:
    PlanS *P
    char *source                # flat vector to pack
    char *copied                # the plan's own theta, into which `source` is copied, or NULL
    bint is_v                   # True: pack vector number `place` of a block into V; False: pack W
    Py_ssize_t place
    # True if the packed copies exceed the L3 cache, so stores bypass the caches
    bint bypass
    char not_finite[FC_MAX_THREADS]    # per thread: True if it copied an element that is not finite


cdef struct Block:              # block of W: rows [top, bottom), columns [left, right)
    Py_ssize_t top, bottom, left, right


cdef inline Py_ssize_t rows_per_block(PlanS *P, Layer *y) noexcept nogil:
    """Return the number of rows of a block, a multiple of the elements per cache line."""
    cdef Py_ssize_t line = elements_per_cache_line(P)
    cdef Py_ssize_t lines = min(PACK_BLOCK_MAX_ROWS // line, PACK_BLOCK_MAX_COLUMNS // y.k)
    return max(<Py_ssize_t>1, lines) * line


cdef inline Py_ssize_t count_column_blocks(Layer *y) noexcept nogil:
    """Return the number of blocks into which the columns of W are cut."""
    return (y.k + PACK_BLOCK_MAX_COLUMNS - 1) // PACK_BLOCK_MAX_COLUMNS


cdef inline Weights packed_destination(Packing *c, Layer *y) noexcept nogil:
    """Return the destination of the packed W or V of a layer."""
    return shifted_weights(y.V, c.place * c.P.v_step, c.source) if c.is_v else y.W


cdef inline Py_ssize_t count_blocks(Packing *c, Layer *y) noexcept nogil:
    """Return the number of blocks into which W of a layer is cut."""
    return (y.m + rows_per_block(c.P, y) - 1) // rows_per_block(c.P, y) * count_column_blocks(y)


cdef inline Block block_of_part(Packing *c, Layer *y, Py_ssize_t part) noexcept nogil:
    """Return block number `part` of W of a layer."""
    cdef Block b
    b.top = part // count_column_blocks(y) * rows_per_block(c.P, y)
    b.left = part % count_column_blocks(y) * PACK_BLOCK_MAX_COLUMNS
    b.bottom = min(y.m, b.top + rows_per_block(c.P, y))
    b.right = min(y.k, b.left + PACK_BLOCK_MAX_COLUMNS)
    return b


cdef void copy_elements(
    Packing *c, Py_ssize_t first, Py_ssize_t last, int member
) noexcept nogil:
    """Copy elements [first, last) of the source into theta, and set `not_finite` if one of them is
    NaN or infinite.
    """
    cdef Py_ssize_t size = c.P.K.real_bytes
    if c.copied != NULL and not c.P.K.copy_finite(
        last - first, c.source + first * size, c.bypass, c.copied + first * size
    ):
        c.not_finite[member] = True


cdef void copy_flat_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Copy one part of `source` into theta, as one part of a job of the thread team."""
    cdef Packing *c = <Packing *>context
    copy_elements(c, part * COPY_PART_ELEMENTS, min(c.P.n, (part + 1) * COPY_PART_ELEMENTS), member)


cdef void copy_block(Packing *c, Layer *y, Block b, int member) noexcept nogil:
    """Copy one block of W into the plan's theta, unless the job only packs."""
    cdef Py_ssize_t i
    if b.right - b.left == y.k:
        copy_elements(c, y.w + b.top * y.k, y.w + b.bottom * y.k, member)
        return
    for i in range(b.top, b.bottom):
        copy_elements(c, y.w + i * y.k + b.left, y.w + i * y.k + b.right, member)


cdef void pack_block(Packing *c, Py_ssize_t l, Block b) noexcept nogil:
    """Pack block b of layer l into both packed copies of W or V. The rows of the block are rows of
    one copy and columns of the other.
    """
    cdef PlanS *P = c.P
    cdef Layer *y = &P.layer[l]
    cdef Py_ssize_t size = P.K.real_bytes
    cdef char *w = c.source + y.w * size
    cdef Weights to = packed_destination(c, y)
    if l:
        P.K.pack(
            y.m, b.right - b.left, w + b.left * size, y.k, 1, b.top, b.bottom, c.bypass,
            to.packed_w + b.left * y.m * size
        )
    P.K.pack(
        y.k, b.bottom - b.top, w + b.top * y.k * size, 1, y.k, b.left, b.right, c.bypass,
        to.packed_transpose_w + b.top * y.k * size
    )


cdef void pack_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Copy and pack one block of W or V. The first block of a layer also copies the biases that
    follow W in theta. The number `part` counts the blocks of all layers in order.
    """
    cdef Packing *c = <Packing *>context
    cdef PlanS *P = c.P
    cdef Py_ssize_t l, end
    cdef Layer *y
    cdef Block b
    for l in range(P.n_layers):
        y = &P.layer[l]
        if c.is_v and not P.active[l]:
            continue
        if part >= count_blocks(c, y):
            part -= count_blocks(c, y)
            continue
        b = block_of_part(c, y, part)
        copy_block(c, y, b, member)
        pack_block(c, l, b)
        if part == 0:
            end = P.layer[l + 1].w if l + 1 < P.n_layers else P.n
            copy_elements(c, y.w + y.m * y.k, end, member)
        return


cdef void copy_biases(Packing *c) noexcept nogil:
    """Copy the biases of all layers into padded vectors."""
    cdef PlanS *P = c.P
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        if y.b >= 0:
            P.K.copy(1, y.m, c.source + y.b * size, y.m, 1, packed_destination(c, y).b, y.ldm)


cdef void pack_all_parts(Packing *c) noexcept nogil:
    """Copy and pack all blocks of all layers on the thread team."""
    cdef PlanS *P = c.P
    cdef Py_ssize_t l, parts = 0
    cdef int threads = P.threads if P.n > SERIAL_PACK_MAX_ELEMENTS else 1
    if not P.ld_transposed:
        copy_biases(c)
    if not (P.ld_transposed or P.unpacked):
        for l in range(P.n_layers):
            if P.active[l] or not c.is_v:
                parts += count_blocks(c, &P.layer[l])
        fc_team_run(threads, parts, pack_part, c)
    elif c.copied != NULL:
        fc_team_run(
            threads, (P.n + COPY_PART_ELEMENTS - 1) // COPY_PART_ELEMENTS, copy_flat_part, c
        )


cdef inline Packing new_packing(PlanS *P, char *source) noexcept nogil:
    """Return the description of a packing job for the flat vector `source`."""
    cdef Packing c
    memset(&c, 0, sizeof(c))
    c.P, c.source, c.bypass = P, source, 2 * P.n * P.K.real_bytes > L3_BYTES
    return c


cdef bint set_and_pack_theta(PlanS *P, char *theta, char *source) noexcept nogil:
    """Set the plan's theta and pack it. If `source` is not NULL, first copy `source` into theta,
    block by block. Return False if a copied element is not finite.
    """
    cdef Packing c = new_packing(P, theta if source == NULL else source)
    cdef Py_ssize_t l
    cdef int member
    P.theta, P.nan = theta, False
    for l in range(P.n_layers):
        P.layer[l].W.flat = theta
    c.copied = NULL if source == NULL else theta
    pack_all_parts(&c)
    for member in range(P.threads):
        if c.not_finite[member]:
            return False
    return True


cdef void pack_v(PlanS *P, char *v, Py_ssize_t place) noexcept nogil:
    """Pack the flat vector v as vector number `place` of the block of vectors."""
    cdef Packing c
    if P.ld_transposed:
        return
    c = new_packing(P, v)
    c.is_v, c.place = True, place
    pack_all_parts(&c)
