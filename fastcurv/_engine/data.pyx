"""See data.pxd."""
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


cdef extern from "lift.h" nogil:
    int fc_lift(char *out, const char *const *at, size_t count, size_t run, int by_pipe,
                char *map, size_t size)
    int fc_read(int file, char *out, size_t bytes, long long at)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef enum:
    SPARES = 3                  # pieces of memory that are kept for a map, of at most ...
    SPARE_BYTES = 1 << 26
    PART = 1 << 17              # bytes of a part of the copy of X
    PAGES = 1 << 19             # bytes, from which memory is the system's
    LIFTED = 1 << 19            # bytes ...
    RUNS = 1 << 16              # ... and runs of them that are read from a map at a time,
    APART = 4                   # where these lie far apart
    PAGE = 4096                 # bytes of a run, from which the file is asked for it


# --- rows in mapped files -------------------------------------------------------------------------


cdef behind(x):
    """The memory map that an array lies in, the bytes that its file must have, and whether its
    pages may leave this process: not where what was written is nowhere else. None: it lies in none.
    """
    while isinstance(x, (np.ndarray, memoryview)):
        mapped = getattr(x, "_mmap", None)
        if mapped is not None:
            start = x.offset - x.offset % mmap.ALLOCATIONGRANULARITY
            return mapped, start + len(mapped), x.mode != "c"
        x = x.base if isinstance(x, np.ndarray) else x.obj
    mapped = isinstance(x, mmap.mmap) and not isinstance(x, Pages)
    return (x, len(x), False) if mapped else None


cdef object files = weakref.WeakKeyDictionary()   # by map: what `file_of` has found
cdef object spares = weakref.WeakKeyDictionary()  # by map: memory that its rows were copied to


cdef file_of(mapped):
    """The file of a shared map, opened again, and by how much a place in it differs from the
    address: to read it takes a tenth of the time of a copy by the system from the map, which faults
    and drops each page. None where the system does not tell, or another file has that name now.
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
                    # a pipe that has the name now would be waited for
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


class Pages(mmap.mmap):
    """Memory for rows that goes back to the system when they do: what the heap gets back, each
    thread's of its own, it may keep."""


cdef new_like(x, mapped):
    """An array as x lies, in memory of its own: what rows of this map were copied to before, where
    nobody has that any more. To fault new pages in takes longer than to fill them.
    """
    out = np.empty_like(x, subok=False)
    if out.nbytes < PAGES or not hasattr(mmap, "MAP_ANONYMOUS"):
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
        pages = Pages(-1, out.nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if out.nbytes <= SPARE_BYTES and len(kept) < SPARES:
        kept.append(pages)
    return np.ndarray(out.shape, out.dtype, pages, 0, out.strides)


def in_memory(x, str name, rows=None, bint by_pipe=False):
    """The numbers of an array, or of those of its rows that have these numbers, where no other
    process can take them away: the array itself, unless it lies in a memory map. Then they are
    copied by the system, for which a file that was cut short is an error; to touch such a page here
    would end the process. Pages that were read leave this process.
    """
    held = behind(x)
    if held is None or x.dtype.hasobject:
        return x if rows is None else x[rows]
    if rows is None:
        out = new_like(x, held[0])
    else:
        rows = np.array(rows, np.intp)
        if rows.size and (rows.min() < 0 or rows.max() >= x.shape[0]):
            raise IndexError(f"{name} has {x.shape[0]} rows; wanted numbers of those")
        out = np.empty((len(rows), *x.shape[1:]), x.dtype)
    mapped, size, drop = held
    file = file_of(mapped) if drop and not by_pipe else None
    error = lift(x, rows, out, mapped if drop else None, by_pipe, file) if out.size else 0
    try:
        now = mapped.size()
    except (OSError, ValueError):  # of no file, or of one that the map keeps no handle of
        now = size
    if now < size:
        raise ValueError(
            f"the file of {name} has {now} bytes now and had {size}; wanted all of them as long as "
            "its rows are read"
        )
    if error:
        raise OSError(error, f"the file of {name} cannot be read: {os.strerror(error)}")
    return out


cdef int lift(x, rows, out, drop, bint by_pipe, file) except -1:
    """x, or these rows of it, into `out`, dense in the order of x or of rows: 0 or an errno. In
    halves, until one is small and lies together: between them Ctrl-C is heard, and pages of the map
    `drop` go. A system may map megabytes for each number that is read.
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
    if out.nbytes <= LIFTED and count <= RUNS:
        at = np.array([x.__array_interface__["data"][0]], np.intp)
        for axis in outer:
            steps = np.arange(out.shape[axis]) if rows is None or axis else rows
            at = (at[:, None] + steps * x.strides[axis]).ravel()
        addresses = <const char *const *>pointer(at)
        if file is not None and run >= PAGE:
            number, shift = file[0].fileno(), file[1]
            with nogil:
                for i in range(count):
                    error = fc_read(number, to + i * run, run, <intptr_t>addresses[i] + shift)
                    if error:
                        break
            return error
        first, last = int(at.min()), int(at.max()) + run
        if count <= APART or last - first <= LIFTED:
            apart = last - first > LIFTED    # a fault on one of them brings many a page
            if drop is not None and apart:
                size = len(drop)
                mapped = pointer(np.frombuffer(drop, np.uint8))
            with nogil:
                error = fc_lift(to, addresses, count, run, by_pipe, mapped, size)
            if drop is not None and not apart:
                let_go(drop, first, last)
            return error
    axis = next(axis for axis in order if out.shape[axis] > 1)
    half, every = out.shape[axis] // 2, (slice(None),) * axis
    for part in (slice(None, half), slice(half, None)):
        picked = rows is not None and not axis
        error = lift(
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


cdef let_go(mapped, first, last):
    """The pages of a map between two addresses leave this process. The last one stays: the next
    rows share it, and to fault on it would bring its neighbours back.
    """
    if hasattr(mapped, "madvise"):
        start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        first, last = ((at - start) // mmap.PAGESIZE * mmap.PAGESIZE for at in (first, last))
        if last > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


# --- rows of a plan -------------------------------------------------------------------------------


cdef class Rows:
    """The data of an objective as the passes want it. X (N, d) may have any strides, y (N, d_out)
    rows of any distance, labels (N,) int32 and weight (N,) are contiguous. None is copied, but for
    one padded copy of X made on first use, and labels: they are indices, and were checked."""
    cdef readonly object X, y, labels, weight
    cdef Data D
    cdef bint padded                     # X is wanted in its padded form

    def __cinit__(self, X, y, labels, weight):
        self.point_at(X, y, labels, weight)

    cdef int point_at(self, X, y, labels, weight) except -1:
        cdef Data *D = &self.D
        X, y, weight = (                 # whose shapes nobody else sets
            None if a is None else a.view() for a in (X, y, weight)
        )
        if labels is not None:
            labels = np.array(labels, np.int32)
            labels.flags.writeable = False
        self.X, self.y, self.labels, self.weight = X, y, labels, weight
        D.ldx = padded(X.shape[1], X.itemsize)
        D.X, D.x_rs, D.x_cs = pointer(X), X.strides[0] // X.itemsize, X.strides[1] // X.itemsize
        if y is not None:
            D.y, D.ldy = pointer(y), y.strides[0] // y.itemsize
        if labels is not None:
            D.labels = <int32_t *>pointer(labels)
        if weight is not None:
            D.weight = pointer(weight)

    def __dealloc__(self):
        fc_block_free(self.D.x)

    cdef int pad(self, const fc_table *K, int threads) except -1:
        """Copy X into its padded form, unless that is done."""
        cdef Data *D = &self.D
        cdef Touch t
        self.padded = True
        if D.x != NULL:
            return 0
        memset(&t, 0, sizeof(t))
        t.base = <char *>fc_block(self.X.shape[0] * D.ldx * K.real_bytes)
        if t.base == NULL:
            raise MemoryError(
                f"no memory for a padded copy of X ({self.X.shape[0]} rows of "
                f"{D.ldx * K.real_bytes} bytes)"
            )
        self.fill(&t, K, threads)
        with cython.critical_section(self):
            if D.x == NULL:
                D.x = t.base
                t.base = NULL
        fc_block_free(t.base)            # another thread was first
        return 0

    cdef int fill(self, Touch *t, const fc_table *K, int threads) except -1:
        """Copy X into its padded form at t.base, which is freed where a signal ends that."""
        cdef Data *D = &self.D
        t.K, t.rows, t.cols, t.ld, t.size = K, self.X.shape[0], self.X.shape[1], D.ldx, 0
        t.source, t.rs, t.cs = D.X, D.x_rs, D.x_cs
        t.step = max(1, PART // (D.ldx * K.real_bytes))
        return touch(t, threads, (t.rows + t.step - 1) // t.step)

    cdef int renew(self, X, y, labels, weight, const fc_table *K, int threads) except -1:
        """Other data of the same kinds and shapes; a padded copy is filled anew where it stands.
        Whether X was copied and is seen to be finite, by its squares.
        """
        cdef Touch t
        cdef Py_ssize_t part
        for old, new in ((self.X, X), (self.y, y), (self.labels, labels), (self.weight, weight)):
            if (old is None) != (new is None) or old is not None and (
                old.shape != new.shape or old.dtype != new.dtype
            ):
                raise ValueError("other rows are not of the shapes and kinds of those at hand")
        self.point_at(X, y, labels, weight)
        if not self.padded:
            return 0
        if self.D.x == NULL:             # a signal's handler ended the last time
            self.pad(K, threads)
            return 0
        memset(&t, 0, sizeof(t))
        squares = np.zeros(X.shape[0] // max(1, PART // (self.D.ldx * K.real_bytes)) + 1)
        t.base, t.squares = <char *>self.D.x, <double *>pointer(squares)
        self.D.x = NULL                  # until it is whole again
        self.fill(&t, K, threads)
        self.D.x = t.base
        for part in range((t.rows + t.step - 1) // t.step):
            if not isfinite(t.squares[part]):
                return 0
        return 1
