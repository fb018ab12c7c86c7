"""Threads, and Ctrl-C in the middle of a pass.

The main thread looks for signals now and then while a pass runs; what a handler raises ends the
pass.
"""
import os
import threading
from weakref import WeakSet

from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred


cdef extern from "Python.h" nogil:
    int run_handlers "PyErr_CheckSignals"() noexcept
    unsigned long PyThread_get_thread_ident()
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_INTR
    enum:
        NOWAIT_LOCK
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock)
    int PyThread_acquire_lock(PyThread_type_lock, int)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long us, int interrupted)
    void PyThread_release_lock(PyThread_type_lock)

cdef unsigned long main_thread
_locks = WeakSet()              # all that there are


def _know_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


def _after_fork_in_child():
    global main_thread
    main_thread = PyThread_get_thread_ident()
    for lock in list(_locks):
        lock.after_fork()


_know_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int look_for_signals() noexcept nogil:
    """Run Python's handlers of the signals that came in: not 0 where one raised. The exception
    waits in the thread.
    """
    with gil:
        return run_handlers()


cdef fc_watch watch() noexcept nogil:
    """Begin to look for signals, in the main thread; no other may run their handlers."""
    cdef fc_check check = NULL
    if PyThread_get_thread_ident() == main_thread:
        check = look_for_signals
    return fc_watch_begin(check)


cdef int unwatch(fc_watch before) except -1 nogil:
    """End it; raises what a handler raised."""
    if not fc_watch_end(before):
        return 0
    with gil:
        if PyErr_Occurred() == NULL:
            raise RuntimeError(
                "a signal handler forked in the middle of a pass, which its child has lost; "
                "wanted to run it again there"
            )
    return -1


# --- arithmetic: to nearest, nothing flushed to zero ----------------------------------------------


cdef class Arithmetic:
    """``with Arithmetic():`` this thread computes to nearest and keeps subnormal numbers, whatever
    it did before and does again after. With `threads`, it wakes no more than these where nobody
    says how many.
    """
    cdef fc_arithmetic before
    cdef int threads, wanted

    def __cinit__(self, threads=None):
        known = isinstance(threads, int) and threads > 0
        self.threads = min(threads, FC_MAX_THREADS) if known else 0

    def __enter__(self):
        self.before, self.wanted = fc_arithmetic_begin(), fc_threads_wanted()
        if self.threads and not 0 < self.wanted <= self.threads:
            fc_want_threads(self.threads)

    def __exit__(self, *error):
        fc_want_threads(self.wanted)
        fc_arithmetic_end(self.before)


# --- one caller at a time -------------------------------------------------------------------------


cdef class Lock:
    """What one thread holds at a time, and no thread twice: a handler of signals, or a finaliser,
    that asks in the middle of its own thread's turn would find things half made, or wait for ever.
    """
    cdef PyThread_type_lock free
    cdef object __weakref__
    cdef readonly bint lost     # in a child: its holder was another thread, which is no more
    cdef unsigned long holder

    def __cinit__(self):
        self.renew()
        _locks.add(self)

    def __dealloc__(self):
        if self.free != NULL:
            PyThread_free_lock(self.free)

    cdef int renew(self) except -1:
        self.free = PyThread_allocate_lock()
        if self.free == NULL:
            raise MemoryError("no memory for a lock")
        return 0

    cdef int take(self) except -1:
        if self.holder == PyThread_get_thread_ident():
            raise RuntimeError(
                "a signal handler or finaliser asked for what its own thread was in the middle of; "
                "wanted copy.copy() of the objective or operator there, or the question later"
            )
        if not PyThread_acquire_lock(self.free, NOWAIT_LOCK):
            self.wait()
        self.holder = PyThread_get_thread_ident()
        return 0

    @property
    def held(self):
        """Whether a thread holds it."""
        return self.holder != 0

    cdef int wait(self) except -1:
        """Until it is free; raises what a handler of signals raises."""
        cdef PyLockStatus got = PY_LOCK_INTR
        while got == PY_LOCK_INTR:
            with nogil:
                got = PyThread_acquire_lock_timed(self.free, -1, 1)
            if got == PY_LOCK_INTR:
                PyErr_CheckSignals()
        return 0

    cdef void give_back(self) noexcept:
        self.holder = 0
        PyThread_release_lock(self.free)

    def __enter__(self):
        self.take()

    def __exit__(self, *error):
        self.give_back()

    def after_fork(self):
        """In a child: what another thread held is free, and what that was making there is `lost`.
        The lock is asked: a thread that has only just been let in is not yet its holder.
        """
        self.lost = False
        if self.holder != PyThread_get_thread_ident():
            self.lost = not PyThread_acquire_lock(self.free, NOWAIT_LOCK)
            self.holder = 0
            self.renew()        # the old one may have a thread waiting that is no more


# --- how many -------------------------------------------------------------------------------------


MAX_THREADS = FC_MAX_THREADS


def default_threads():
    """FASTCURV_NUM_THREADS if set, else what affinity and cgroup limits allow; no more than the
    `Arithmetic` around asks for.
    """
    cdef int wanted = fc_threads_wanted()
    text = os.environ.get("FASTCURV_NUM_THREADS")
    if not text:
        number = fc_team_available()
        return min(number, wanted) if wanted else number
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"FASTCURV_NUM_THREADS is {text!r}; a positive whole number was wanted")
    return min(number, wanted or FC_MAX_THREADS)


def thread_workers():
    """Workers alive."""
    return fc_team_workers()


def set_thread_limit(int threads):
    """No product uses more threads than this from now on, in the whole process; 0: no limit."""
    fc_team_limit(threads)


def get_thread_limit():
    """The limit in force, 0: none."""
    return fc_team_get_limit()


# --- one thread or all ----------------------------------------------------------------------------
# What one thread has written another fetches line by line. Where caches are far apart, as on a
# machine whose processors move about, a short pass is over before that is done: with two threads it
# took 0.3 to 3.7 times as long as with one, from minute to minute. No sizes tell which, so a few
# passes of TURNS are timed either way. Bits do not depend on it.

cdef enum:
    TURNS = 256
    TRIED = 6                   # of each; the first ones find caches as others left them ...
    SETTLED = 3                 # ... and are not timed


cdef int threads_of_turn(const Trial *trial, int threads) noexcept nogil:
    """How many threads take the next pass, of so many; what it took."""
    cdef unsigned at = trial.turn % TURNS
    cdef bint every = at < TRIED if at < 2 * TRIED else trial.least[1] <= trial.least[0]
    return threads if every else 1


cdef void turn_took(Trial *trial, long long since) noexcept nogil:
    cdef unsigned at = trial.turn % TURNS
    cdef long long took = fc_now_ns() - since
    cdef long long *least = &trial.least[at < TRIED]
    if at < 2 * TRIED and at % TRIED >= SETTLED:
        least[0] = took if at % TRIED == SETTLED else min(least[0], took)
    trial.turn += 1


cdef long long now() noexcept nogil:
    return fc_now_ns()
