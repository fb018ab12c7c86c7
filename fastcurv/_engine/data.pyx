"""The data of an objective, and safe copies of rows that lie in memory-mapped files."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport isfinite
from libc.stdint cimport int32_t, intptr_t
from libc.string cimport memset

import io
import mmap
import os
import stat
import weakref

import numpy as np


cdef extern from "mapped_copy.h" nogil:
    int fc_copy_checked(char *out, const char *const *at, size_t count, size_t run, int by_pipe,
                char *map, size_t size)
    int fc_read(int file, char *out, size_t bytes, long long at)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef enum:
    # Maximum number and maximum size in bytes of the memory blocks kept for reuse per memory map.
    MAX_REUSED_BLOCKS = 3
    MAX_REUSED_BLOCK_BYTES = 1 << 26
    COPY_PART_BYTES = 1 << 17   # bytes per part of a job that copies X into its padded form
    # minimum bytes of memory that is mapped from the system, not taken from the heap
    MMAP_MIN_BYTES = 1 << 19
    # Maximum bytes, and maximum number of contiguous runs, that one call copies from a memory map.
    MAX_READ_BYTES = 1 << 19
    MAX_READ_RUNS = 1 << 16
    # Maximum number of contiguous runs copied by one call if the bytes from the first to the last
    # run exceed MAX_READ_BYTES.
    MAX_DISTANT_RUNS = 4
    # Minimum bytes of a contiguous run that is read from the file, not copied from the memory map.
    FILE_READ_MIN_BYTES = 4096


# --- rows in memory-mapped files ------------------------------------------------------------------


cdef find_memory_map(x):
    """Return (map, bytes, drop) for an array inside a memory map, or None if the array is in no
    memory map. `bytes` is the size that the file must have. `drop` is True if the map's pages may
    be dropped from this process, that is, if they cannot hold private changes.
    """
    while isinstance(x, (np.ndarray, memoryview)):
        mapped = getattr(x, "_mmap", None)
        if mapped is not None:
            start = x.offset - x.offset % mmap.ALLOCATIONGRANULARITY
            return mapped, start + len(mapped), x.mode != "c"
        x = x.base if isinstance(x, np.ndarray) else x.obj
    mapped = isinstance(x, mmap.mmap) and not isinstance(x, AnonymousMap)
    return (x, len(x), False) if mapped else None


# Key: a memory map. Value: the result of `reopen_mapped_file`.
cdef object files = weakref.WeakKeyDictionary()
# Key: a memory map. Value: a list of memory blocks for copies of its rows.
cdef object spares = weakref.WeakKeyDictionary()


cdef reopen_mapped_file(mapped):
    """Return (file, shift) for a shared memory map. `file` is the mapped file, opened again, and
    `shift` is the file position of a byte minus its address. Return None if the system does not
    report the file, or if the file's name now belongs to another file.

    Reading from the file takes a tenth of the time of copying from the map, which faults in and
    drops each page.
    """
    if mapped not in files:
        files[mapped] = None
        start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        try:
            with open("/proc/self/maps", errors="surrogateescape") as lines:
                for line in lines:
                    span, _, offset, device, inode, *name = line.rstrip("\n").split(maxsplit=5)
                    first, last = (int(end, 16) for end in span.split("-"))
                    if not (first <= start < last and name):
                        continue
                    # With O_NONBLOCK, opening does not block if the name now belongs to a pipe.
                    file = io.FileIO(os.open(name[0], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                    is_ = os.fstat(file.fileno())
                    major, minor = (int(part, 16) for part in device.split(":"))
                    same = (is_.st_ino, is_.st_dev) == (int(inode), os.makedev(major, minor))
                    if same and stat.S_ISREG(is_.st_mode):
                        files[mapped] = file, int(offset, 16) - first
                    break
        except OSError:
            pass
    return files[mapped]


class AnonymousMap(mmap.mmap):
    """Anonymous memory map that holds copies of rows. The memory is returned to the system when the
    map is freed, whereas the heap, which has one arena per thread, might keep it.
    """


cdef allocate_like(x, mapped):
    """Return an uninitialised array with the shape and strides of x, in memory of its own. The
    memory is a block that held earlier copies of rows of the same memory map, if no array uses that
    block any more, because faulting in new pages takes longer than filling them.
    """
    out = np.empty_like(x, subok=False)
    if out.nbytes < MMAP_MIN_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):
        return out
    kept = spares.setdefault(mapped, [])
    free = [kept.pop() for _ in range(len(kept))]
    pages = None
    while free:
        spare = free.pop()
        if Py_REFCNT(spare) > 1:
            kept.append(spare)
        elif pages is None and 0 <= len(spare) - out.nbytes <= out.nbytes // 4:
            pages = spare
    if pages is None:
        pages = AnonymousMap(-1, out.nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if out.nbytes <= MAX_REUSED_BLOCK_BYTES and len(kept) < MAX_REUSED_BLOCKS:
        kept.append(pages)
    return np.ndarray(out.shape, out.dtype, pages, 0, out.strides)


def copy_if_mapped(x, str name, rows=None, bint by_pipe=False):
    """Return a copy in memory of the array x, or of its rows with the indices `rows`, if x lies in
    a memory map. Otherwise return x itself, or x[rows]. Errors name the array `name`.

    Another process may truncate the mapped file. The copy is made by a system call, which then
    reports an error, whereas reading a page beyond the end of the file would kill the process.
    Pages that have been copied are dropped from this process.
    """
    held = find_memory_map(x)
    if held is None or x.dtype.hasobject:
        return x if rows is None else x[rows]
    if rows is None:
        out = allocate_like(x, held[0])
    else:
        rows = np.array(rows, np.intp)
        if rows.size and (rows.min() < 0 or rows.max() >= x.shape[0]):
            wrong = rows[(rows < 0) | (rows >= x.shape[0])][0]
            raise IndexError(
                f"rows must be indices of the {x.shape[0]} rows of {name}, got {wrong}."
            )
        out = np.empty((len(rows), *x.shape[1:]), x.dtype)
    mapped, size, drop = held
    file = reopen_mapped_file(mapped) if drop and not by_pipe else None
    error = copy_checked(x, rows, out, mapped if drop else None, by_pipe, file) if out.size else 0
    try:
        now = mapped.size()
    except (OSError, ValueError):  # the map has no file, or its file handle is closed
        now = size
    if now < size:
        raise ValueError(
            f"the file of {name} must keep its size while its rows are read, got {now} bytes "
            f"instead of {size}."
        )
    if error:
        raise OSError(error, f"the file of {name} cannot be read: {os.strerror(error)}")
    return out


cdef int copy_checked(x, rows, out, drop, bint by_pipe, file) except -1:
    """Copy x, or its rows with the indices `rows`, into `out`, whose memory is dense in the order
    of its axes. Return 0 or an errno.

    The copy is split in halves until a part has at most MAX_READ_BYTES bytes and MAX_READ_RUNS
    contiguous runs. Between parts, pending signals are handled and copied pages of the map `drop`
    are dropped, because the system may map megabytes for each element that is read.
    """
    cdef char *to = pointer(out)
    cdef const char *const *addresses
    cdef size_t run = out.itemsize, count
    cdef size_t size = 0
    cdef char *mapped = NULL
    cdef int error = 0, number
    cdef long long shift
    cdef size_t i
    order = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))
    outer = list(order)
    for axis in reversed(order):
        if (rows is not None and not axis) or (x.strides[axis] != run and out.shape[axis] != 1):
            break
        run *= out.shape[outer.pop()]
    count = out.nbytes // run
    if out.nbytes <= MAX_READ_BYTES and count <= MAX_READ_RUNS:
        at = np.array([x.__array_interface__["data"][0]], np.intp)
        for axis in outer:
            steps = np.arange(out.shape[axis]) if rows is None or axis else rows
            at = (at[:, None] + steps * x.strides[axis]).ravel()
        addresses = <const char *const *>pointer(at)
        if file is not None and run >= FILE_READ_MIN_BYTES:
            number, shift = file[0].fileno(), file[1]
            with nogil:
                for i in range(count):
                    error = fc_read(number, to + i * run, run, <intptr_t>addresses[i] + shift)
                    if error:
                        break
            return error
        first, last = int(at.min()), int(at.max()) + run
        if count <= MAX_DISTANT_RUNS or last - first <= MAX_READ_BYTES:
            # True if the runs are far apart, so that a page fault on one may map many unrelated
            # pages
            apart = last - first > MAX_READ_BYTES
            if drop is not None and apart:
                size = len(drop)
                mapped = pointer(np.frombuffer(drop, np.uint8))
            with nogil:
                error = fc_copy_checked(to, addresses, count, run, by_pipe, mapped, size)
            if drop is not None and not apart:
                release_pages(drop, first, last)
            return error
    axis = next(axis for axis in order if out.shape[axis] > 1)
    half, every = out.shape[axis] // 2, (slice(None),) * axis
    for part in (slice(None, half), slice(half, None)):
        picked = rows is not None and not axis
        error = copy_checked(
            x if picked else x[(*every, part)],
            rows[part] if picked else rows,
            out[(*every, part)],
            drop,
            by_pipe,
            file,
        )
        if error:
            return error
        PyErr_CheckSignals()
    return 0


cdef release_pages(mapped, first, last):
    """Drop the pages of a memory map between two addresses from this process. The last page is
    kept, because the next rows share it, and faulting it in again would map its neighbours too.
    """
    if hasattr(mapped, "madvise"):
        start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        first, last = ((at - start) // mmap.PAGESIZE * mmap.PAGESIZE for at in (first, last))
        if last > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


# --- rows of a plan -------------------------------------------------------------------------------


cdef class Rows:
    """The data of an objective, in the form that the passes use. X (N, d) may have any strides, and
    y (N, d_out) any distance between rows. Labels (N,) int32 and weight (N,) are contiguous. Only
    two arrays are copied: X, into its padded form on first use, and labels, because they are
    checked once and then used as indices.
    """
    cdef readonly object X, y, labels, weight
    cdef Data D
    cdef bint padded            # True if a plan uses the padded form of X
    cdef Rows owner             # Rows object whose padded form of X is shared, or None

    def __cinit__(self, X, y, labels, weight):
        self.set_arrays(X, y, labels, weight)

    cdef int set_arrays(self, X, y, labels, weight) except -1:
        """Set all arrays of the data, and the pointers to them."""
        cdef Data *D = &self.D
        # Views protect the shapes and strides from changes that the caller makes to its arrays.
        X, y, weight = (
            None if a is None else a.view() for a in (X, y, weight)
        )
        if labels is not None:
            labels = np.array(labels, np.int32)
            labels.flags.writeable = False
        self.X, self.y, self.labels, self.weight = X, y, labels, weight
        D.ldx = padded_ld(X.shape[1], X.itemsize)
        D.X, D.x_rs, D.x_cs = pointer(X), X.strides[0] // X.itemsize, X.strides[1] // X.itemsize
        if y is not None:
            D.y, D.ldy = pointer(y), y.strides[0] // y.itemsize
        if labels is not None:
            D.labels = <int32_t *>pointer(labels)
        if weight is not None:
            D.weight = pointer(weight)

    def with_weight(self, weight):
        """Return a Rows object with other weights (N,), or without weights if `weight` is None. The
        new object shares all other arrays and the padded form of X.
        """
        cdef Rows other = Rows(self.X, self.y, self.labels, weight)
        other.owner = self if self.owner is None else self.owner
        return other

    def __dealloc__(self):
        if self.owner is None:
            fc_block_free(self.D.x)

    cdef int ensure_padded_copy(self, const fc_table *K, int threads) except -1:
        """Copy X into its padded form, unless the copy exists."""
        cdef Data *D = &self.D
        cdef Fill t
        self.padded = True
        if D.x != NULL:
            return 0
        if self.owner is not None:
            self.owner.ensure_padded_copy(K, threads)
            D.x = self.owner.D.x
            return 0
        memset(&t, 0, sizeof(t))
        t.base = <char *>fc_block(self.X.shape[0] * D.ldx * K.real_bytes)
        if t.base == NULL:
            raise MemoryError(
                f"Not enough memory for a padded copy of X: {self.X.shape[0]} rows of "
                f"{D.ldx * K.real_bytes} bytes."
            )
        self.fill_padded_copy(&t, K, threads)
        with cython.critical_section(self):
            if D.x == NULL:
                D.x = t.base
                t.base = NULL
        fc_block_free(t.base)   # free the copy if another thread has stored one first
        return 0

    cdef int fill_padded_copy(self, Fill *t, const fc_table *K, int threads) except -1:
        """Copy X into its padded form at t.base, which is freed if a signal handler raises an
        exception.
        """
        cdef Data *D = &self.D
        t.K, t.rows, t.cols, t.ld, t.size = K, self.X.shape[0], self.X.shape[1], D.ldx, 0
        t.source, t.rs, t.cs = D.X, D.x_rs, D.x_cs
        t.step = max(1, COPY_PART_BYTES // (D.ldx * K.real_bytes))
        return fill_block(t, threads, (t.rows + t.step - 1) // t.step)

    cdef int replace_rows(self, X, y, labels, weight, const fc_table *K, int threads) except -1:
        """Replace the data by other data of equal kinds and shapes, and overwrite the padded form
        of X. Return True if X was copied and its sums of squares show that all elements are finite.
        """
        cdef Fill t
        cdef Py_ssize_t part
        for name, old, new in (
            ("X", self.X, X), ("y", self.y, y), ("labels", self.labels, labels),
            ("sample_weight", self.weight, weight),
        ):
            if (old is None) != (new is None) or old is not None and (
                old.shape != new.shape or old.dtype != new.dtype
            ):
                was, now = [
                    "None" if a is None else f"{a.dtype} of shape {a.shape}" for a in (old, new)
                ]
                raise ValueError(
                    f"{name} must be {was}, as in the rows that it replaces, got {now}."
                )
        self.set_arrays(X, y, labels, weight)
        if not self.padded:
            return 0
        if self.D.x == NULL:    # a signal handler cancelled the previous copy
            self.ensure_padded_copy(K, threads)
            return 0
        memset(&t, 0, sizeof(t))
        squares = np.zeros(X.shape[0] // max(1, COPY_PART_BYTES // (self.D.ldx * K.real_bytes)) + 1)
        t.base, t.squares = <char *>self.D.x, <double *>pointer(squares)
        self.D.x = NULL         # no valid copy until this one is complete
        self.fill_padded_copy(&t, K, threads)
        self.D.x = t.base
        for part in range((t.rows + t.step - 1) // t.step):
            if not isfinite(t.squares[part]):
                return 0
        return 1
