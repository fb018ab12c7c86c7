# One aligned block of memory, handed out in pieces.
cdef extern from * nogil:
    """
    #include <stdlib.h>
    #include <string.h>
    #ifdef _WIN32
    #include <malloc.h>
    static void *fc_block(size_t n) { return _aligned_malloc(n, 4096); }
    static void fc_block_free(void *p) { _aligned_free(p); }
    #else
    #include <sys/mman.h>
    /* Large blocks ask for huge pages: the products walk down columns, and every row of a wide matrix is a page of its own. */
    static void *fc_block(size_t n) {
        void *p = NULL;
        const size_t huge = (size_t)1 << 21;
        if (posix_memalign(&p, n >= huge ? huge : 4096, n ? n : 1)) return NULL;
    #ifdef MADV_HUGEPAGE
        if (n >= huge) madvise(p, n, MADV_HUGEPAGE);
    #endif
        return p;
    }
    static void fc_block_free(void *p) { free(p); }
    #endif
    """
    void *fc_block(size_t)
    void fc_block_free(void *)


cdef struct Arena:
    char *base                  # NULL while measuring
    size_t used
    bint overflow


cdef char *take(Arena *arena, size_t count, size_t size) noexcept nogil:
    """`count` things of `size` bytes, 64-byte aligned; an overflow of the count is remembered."""
    cdef size_t bytes_ = count * size
    if size and count > (<size_t>-1) // 2 // size:
        arena.overflow = True
        return NULL
    bytes_ = (bytes_ + FC_ALIGN - 1) // FC_ALIGN * FC_ALIGN
    if arena.used > (<size_t>-1) // 2 - bytes_:
        arena.overflow = True
        return NULL
    arena.used += bytes_
    return NULL if arena.base == NULL else arena.base + (arena.used - bytes_)


cdef Py_ssize_t padded(Py_ssize_t cols, int size) noexcept nogil:
    """Leading dimension of a padded matrix: whole 64-byte lines, and for long rows never a multiple of 512 bytes, since
    rows at such distances share a few sets of the caches."""
    cdef Py_ssize_t lines = (cols * size + FC_ALIGN - 1) // FC_ALIGN
    if lines >= 8:
        lines += (10 - lines % 8) % 8 if lines % 8 == 0 or lines % 8 == 1 else 0
    return lines * FC_ALIGN // size


# --- large memory, by the team: pages are first touched by whoever will use them, and Ctrl-C is heard ------------------------

cdef enum: TOUCH = 1 << 22      # bytes of a part


cdef struct Touch:
    char *base
    size_t size
    const fc_table *K           # a copy of X instead of zeros: rows of `cols` numbers at `source`
    Py_ssize_t rows, cols, rs, cs, ld, step
    char *source


cdef void touch_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    cdef Touch *t = <Touch *>context
    cdef Py_ssize_t first = part * t.step
    if t.K == NULL:
        memset(t.base + part * TOUCH, 0, min(<size_t>TOUCH, t.size - part * <size_t>TOUCH))
    else:
        t.K.copy(min(t.step, t.rows - first), t.cols, t.source + first * t.rs * t.K.real_bytes, t.rs, t.cs,
                 t.base + first * t.ld * t.K.real_bytes, t.ld)


cdef int touch(Touch *t, int threads, Py_ssize_t parts) except -1:
    """The parts, and freed again where a signal's handler raises."""
    cdef fc_watch before
    try:
        with nogil:
            before = watch()
            fc_team_run(threads, parts, touch_part, t)
            unwatch(before)
    except:
        fc_block_free(t.base)
        raise
    return 0


cdef char *zeroed(size_t size, int threads, what) except NULL:
    """A block of zeros; a MemoryError says what it was for."""
    cdef Touch t
    memset(&t, 0, sizeof(t))
    t.base, t.size = <char *>fc_block(size), size
    if t.base == NULL:
        raise MemoryError(what)
    touch(&t, threads, (size + TOUCH - 1) // TOUCH)
    return t.base
