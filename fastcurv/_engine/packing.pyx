"""Copying of theta, and packing of matrices for products from both sides.

Unpacked plans copy only biases; in the transposed layout nothing is packed.

A large W is read from memory and its copies are written there, so W is read once: block by block it
is copied and packed both ways while the block is in the second-level cache.
"""
from libc.string cimport memset


cdef enum:
    # Blocks of W, one per part of the job: at most MAX_BLOCK_ROWS rows and BLOCK_ROW_BYTES bytes.
    MAX_BLOCK_ROWS = 64
    BLOCK_ROW_BYTES = 1 << 17
    BLOCK_COLUMNS = BLOCK_ROW_BYTES // FC_ALIGN
    COPY_PART_NUMBERS = 1 << 16  # numbers of theta per part of a job that only copies
    # numbers up to which one thread finishes before a second one has woken
    SERIAL_MAX_NUMBERS = 30000


cdef struct Packing:
    PlanS *P
    char *source                # the flat vector to pack
    char *copied                # the plan's own theta, to which `source` is copied, or NULL
    bint is_v                   # pack into V of vector `place` of a block, not into W
    Py_ssize_t place
    bint far                    # the packed copies exceed the cache: write past it
    char odd[FC_MAX_THREADS]    # per thread: it has copied numbers that are not finite


cdef struct Block:              # rows top to bottom and columns left to right of a W
    Py_ssize_t top, bottom, left, right


cdef inline Py_ssize_t rows_of_block(PlanS *P, Layer *y) noexcept nogil:
    """Return the rows of a block: a multiple of the numbers per cache line."""
    cdef Py_ssize_t line = line_of(P)
    return max(<Py_ssize_t>1, min(MAX_BLOCK_ROWS // line, BLOCK_COLUMNS // y.k)) * line


cdef inline Py_ssize_t columns_of(Layer *y) noexcept nogil:
    """Return the number of blocks in a row of blocks."""
    return (y.k + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS


cdef inline Weights packed_of(Packing *c, Layer *y) noexcept nogil:
    """Return the destination of a layer's packed W or V."""
    return moved(y.V, c.place * c.P.v_step, c.source) if c.is_v else y.W


cdef inline Py_ssize_t parts_of(Packing *c, Layer *y) noexcept nogil:
    return (y.m + rows_of_block(c.P, y) - 1) // rows_of_block(c.P, y) * columns_of(y)


cdef inline Block block_of(Packing *c, Layer *y, Py_ssize_t part) noexcept nogil:
    cdef Block b
    b.top = part // columns_of(y) * rows_of_block(c.P, y)
    b.left = part % columns_of(y) * BLOCK_COLUMNS
    b.bottom, b.right = min(y.m, b.top + rows_of_block(c.P, y)), min(y.k, b.left + BLOCK_COLUMNS)
    return b


cdef void copy_numbers(
    Packing *c, Py_ssize_t first, Py_ssize_t last, int member
) noexcept nogil:
    """Copy numbers `first` to `last` of the source into theta, and note if one is not finite."""
    cdef Py_ssize_t size = c.P.K.real_bytes
    if c.copied != NULL and not c.P.K.copy_finite(
        last - first, c.source + first * size, c.far, c.copied + first * size
    ):
        c.odd[member] = True


cdef void flat_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Packing *c = <Packing *>context
    copy_numbers(c, part * COPY_PART_NUMBERS, min(c.P.n, (part + 1) * COPY_PART_NUMBERS), member)


cdef void copy_block(Packing *c, Layer *y, Block b, int member) noexcept nogil:
    cdef Py_ssize_t i
    if b.right - b.left == y.k:
        copy_numbers(c, y.w + b.top * y.k, y.w + b.bottom * y.k, member)
        return
    for i in range(b.top, b.bottom):
        copy_numbers(c, y.w + i * y.k + b.left, y.w + i * y.k + b.right, member)


cdef void pack_block(Packing *c, Py_ssize_t l, Block b) noexcept nogil:
    """Pack block b of layer l into both packed copies: its rows are rows of one and columns of the
    other.
    """
    cdef PlanS *P = c.P
    cdef Layer *y = &P.layer[l]
    cdef Py_ssize_t size = P.K.real_bytes
    cdef char *w = c.source + y.w * size
    cdef Weights to = packed_of(c, y)
    if l:
        P.K.pack(
            y.m, b.right - b.left, w + b.left * size, y.k, 1, b.top, b.bottom, c.far,
            to.back + b.left * y.m * size
        )
    P.K.pack(
        y.k, b.bottom - b.top, w + b.top * y.k * size, 1, y.k, b.left, b.right, c.far,
        to.onward + b.top * y.k * size
    )


cdef void pack_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Copy and pack one block of a W. The first block of a layer also copies the biases that follow
    W in theta. The block is found by subtracting the parts of each layer in turn.
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
        if part >= parts_of(c, y):
            part -= parts_of(c, y)
            continue
        b = block_of(c, y, part)
        copy_block(c, y, b, member)
        pack_block(c, l, b)
        if part == 0:
            end = P.layer[l + 1].w if l + 1 < P.n_layers else P.n
            copy_numbers(c, y.w + y.m * y.k, end, member)
        return


cdef void copy_biases(Packing *c) noexcept nogil:
    """Copy the biases into padded vectors."""
    cdef PlanS *P = c.P
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        if y.b >= 0:
            P.K.copy(1, y.m, c.source + y.b * size, y.m, 1, packed_of(c, y).b, y.ldm)


cdef void pack_parts(Packing *c) noexcept nogil:
    cdef PlanS *P = c.P
    cdef Py_ssize_t l, parts = 0
    cdef int threads = P.threads if P.n > SERIAL_MAX_NUMBERS else 1
    if not P.ld_transposed:
        copy_biases(c)
    if not (P.ld_transposed or P.unpacked):
        for l in range(P.n_layers):
            if P.active[l] or not c.is_v:
                parts += parts_of(c, &P.layer[l])
        fc_team_run(threads, parts, pack_part, c)
    elif c.copied != NULL:
        fc_team_run(threads, (P.n + COPY_PART_NUMBERS - 1) // COPY_PART_NUMBERS, flat_part, c)


cdef inline Packing packing(PlanS *P, char *source) noexcept nogil:
    cdef Packing c
    memset(&c, 0, sizeof(c))
    c.P, c.source, c.far = P, source, 2 * P.n * P.K.real_bytes > L3_BYTES
    return c


cdef bint take_theta(PlanS *P, char *theta, char *source) noexcept nogil:
    """Set the plan's theta and pack it. If `source` is not NULL, copy theta from `source` on the
    way. Return False if a number copied is not finite.
    """
    cdef Packing c = packing(P, theta if source == NULL else source)
    cdef Py_ssize_t l
    cdef int member
    P.theta, P.nan = theta, False
    for l in range(P.n_layers):
        P.layer[l].W.flat = theta
    c.copied = NULL if source == NULL else theta
    pack_parts(&c)
    for member in range(P.threads):
        if c.odd[member]:
            return False
    return True


cdef void pack_v(PlanS *P, char *v, Py_ssize_t place) noexcept nogil:
    """Pack vector v of a block into its place."""
    cdef Packing c
    if P.ld_transposed:
        return
    c = packing(P, v)
    c.is_v, c.place = True, place
    pack_parts(&c)
