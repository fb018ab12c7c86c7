"""Threads, and Ctrl-C in the middle of a pass.

The main thread looks for signals now and then while a pass runs; what a handler raises ends the
pass.
"""
import os
import threading
from weakref import WeakSet

from cpython.exc cimport PyErr_Occurred


cdef extern from "Python.h" nogil:
    int run_handlers "PyErr_CheckSignals"() noexcept
    unsigned long PyThread_get_thread_ident()

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
    cdef object free, __weakref__
    cdef readonly bint lost     # in a child: its holder was another thread, which is no more
    cdef unsigned long holder

    def __cinit__(self):
        self.free = threading.Lock()
        _locks.add(self)

    cdef int take(self) except -1:
        if self.holder == PyThread_get_thread_ident():
            raise RuntimeError(
                "a signal handler or finaliser asked for what its own thread was in the middle of; "
                "wanted copy.copy() of the objective or operator there, or the question later"
            )
        self.free.acquire()
        self.holder = PyThread_get_thread_ident()
        return 0

    cdef int give_back(self) except -1:
        self.holder = 0
        self.free.release()
        return 0

    def __enter__(self):
        self.take()

    def __exit__(self, *error):
        self.give_back()

    def after_fork(self):
        """In a child: what another thread held is free, and what that was making there is `lost`.
        `locked()` would miss a holder that has only just been let in.
        """
        self.lost = False
        if self.holder != PyThread_get_thread_ident():
            self.lost = not self.free.acquire(blocking=False)
            self.holder, self.free = 0, threading.Lock()


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
