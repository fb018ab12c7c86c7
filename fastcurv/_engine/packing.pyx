"""Theta taken over, and matrices packed both ways as products want them.

Where matrices are read as they lie, biases alone are copied; where samples lie
across, nothing is.

A large W comes from memory and goes there, so it is read once: block by block it is copied and
packed both ways while the second-level cache has the block.
"""
from libc.string cimport memset


cdef enum:
    ROWS = 64                   # of W, at most, for one part of the job, and bytes of them
    ROW_BYTES = 1 << 17
    COLUMNS = ROW_BYTES // FC_ALIGN
    FLAT = 1 << 16              # numbers of theta where nothing is packed
    ALONE = 30000               # up to which one thread is done before two have met


cdef struct Packing:
    PlanS *P
    char *source                # flat
    char *copied                # theta of the plan's own, or NULL
    bint is_v                   # into V, of the vector `place` of a block
    Py_ssize_t place
    bint far
    char odd[FC_MAX_THREADS]    # by member: it has copied numbers that are not finite


cdef struct Block:              # of W
    Py_ssize_t top, bottom, left, right


cdef inline Py_ssize_t rows_of_block(PlanS *P, Layer *y) noexcept nogil:
    """Of a block: whole lines of its transpose."""
    cdef Py_ssize_t line = line_of(P)
    return max(<Py_ssize_t>1, min(ROWS // line, COLUMNS // y.k)) * line


cdef inline Py_ssize_t columns_of(Layer *y) noexcept nogil:
    """How many blocks lie side by side."""
    return (y.k + COLUMNS - 1) // COLUMNS


cdef inline Weights packed_of(Packing *c, Layer *y) noexcept nogil:
    """Where W of a layer goes."""
    return moved(y.V, c.place * c.P.v_step, c.source) if c.is_v else y.W


cdef inline Py_ssize_t parts_of(Packing *c, Layer *y) noexcept nogil:
    return (y.m + rows_of_block(c.P, y) - 1) // rows_of_block(c.P, y) * columns_of(y)


cdef inline Block block_of(Packing *c, Layer *y, Py_ssize_t part) noexcept nogil:
    cdef Block b
    b.top, b.left = part // columns_of(y) * rows_of_block(c.P, y), part % columns_of(y) * COLUMNS
    b.bottom, b.right = min(y.m, b.top + rows_of_block(c.P, y)), min(y.k, b.left + COLUMNS)
    return b


cdef void copy_numbers(
    Packing *c, Py_ssize_t first, Py_ssize_t last, int member
) noexcept nogil:
    """Of the source, into theta."""
    cdef Py_ssize_t size = c.P.K.real_bytes
    if c.copied != NULL and not c.P.K.copy_finite(
        last - first, c.source + first * size, c.far, c.copied + first * size
    ):
        c.odd[member] = True


cdef void flat_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Packing *c = <Packing *>context
    copy_numbers(c, part * FLAT, min(c.P.n, (part + 1) * FLAT), member)


cdef void copy_block(Packing *c, Layer *y, Block b, int member) noexcept nogil:
    cdef Py_ssize_t i
    if b.right - b.left == y.k:
        copy_numbers(c, y.w + b.top * y.k, y.w + b.bottom * y.k, member)
        return
    for i in range(b.top, b.bottom):
        copy_numbers(c, y.w + i * y.k + b.left, y.w + i * y.k + b.right, member)


cdef void pack_block(Packing *c, Py_ssize_t l, Block b) noexcept nogil:
    """Its rows are rows of one packed matrix and columns of the other."""
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
    """A block of a W, and with its first one what follows W in theta; found by counting parts off
    layer by layer.
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
    """The biases, padded."""
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
    cdef int threads = P.threads if P.n > ALONE else 1
    if not P.across:
        copy_biases(c)
    if not (P.across or P.unpacked):
        for l in range(P.n_layers):
            if P.active[l] or not c.is_v:
                parts += parts_of(c, &P.layer[l])
        fc_team_run(threads, parts, pack_part, c)
    elif c.copied != NULL:
        fc_team_run(threads, (P.n + FLAT - 1) // FLAT, flat_part, c)


cdef inline Packing packing(PlanS *P, char *source) noexcept nogil:
    cdef Packing c
    memset(&c, 0, sizeof(c))
    c.P, c.source, c.far = P, source, 2 * P.n * P.K.real_bytes > FAR_BYTES
    return c


cdef bint take_theta(PlanS *P, char *theta, char *source) noexcept nogil:
    """Be at theta; with a source, whose numbers become theta's on the way. Whether those are
    finite.
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
    """A vector of a block, into its place."""
    cdef Packing c
    if P.across:
        return
    c = packing(P, v)
    c.is_v, c.place = True, place
    pack_parts(&c)
