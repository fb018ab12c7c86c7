"""Threads, and Ctrl-C in the middle of a pass.

The main thread looks for signals now and then while a pass runs; what a handler raises ends the
pass.
"""
import os
import sys
import threading
import time
from weakref import WeakSet

from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred


cdef extern from "Python.h" nogil:
    int run_handlers "PyErr_CheckSignals"() noexcept
    unsigned long PyThread_get_thread_ident()
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
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
    for table in (_regions, _callbacks, _waiting):
        for thread in [one for one in table if one != main_thread]:
            del table[thread]
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


cdef dict _regions = {}         # {thread: number of `Arithmetic` contexts that it is inside}


cdef class Arithmetic:
    """A context in which this thread rounds to nearest and keeps subnormal numbers. The thread's
    own settings are restored at the end, whatever has been set in between: `disturbed` is then True
    if these were not the settings of the context any more. With `threads`, no more than these are
    used where no number is given.
    """
    cdef fc_arithmetic before
    cdef int threads, wanted
    cdef readonly bint disturbed

    def __cinit__(self, threads=None):
        known = isinstance(threads, int) and threads > 0
        self.threads = min(threads, FC_MAX_THREADS) if known else 0

    def __enter__(self):
        me = PyThread_get_thread_ident()
        self.before, self.wanted = fc_arithmetic_begin(), fc_threads_wanted()
        if self.threads and not 0 < self.wanted <= self.threads:
            fc_want_threads(self.threads)
        _regions[me] = _regions.get(me, 0) + 1
        return self

    def __exit__(self, *error):
        me = PyThread_get_thread_ident()
        count = _regions.pop(me, 1) - 1
        if count:
            _regions[me] = count
        fc_want_threads(self.wanted)
        self.disturbed = not fc_arithmetic_is_fixed()
        fc_arithmetic_end(self.before)


def resume_arithmetic():
    """Load the settings of the `Arithmetic` context around this call again, if there is one, after
    user-defined code may have changed them.
    """
    if PyThread_get_thread_ident() in _regions:
        fc_arithmetic_begin()


# --- callbacks ------------------------------------------------------------------------------------

cdef dict _callbacks = {}       # {thread: (thread that waits for the callback, number of the call)}
cdef dict _waiting = {}         # {thread: Lock that it waits for}
cdef long long _calls = 0

# how long a callback may make no progress before another thread, which waits for what the caller of
# the callback holds, concludes that the callback waits for that thread
CALLBACK_WAIT_SECONDS = 10.0
cdef enum:
    POLL_MICROSECONDS = 100000  # between two looks at such a callback


cdef class Callback:
    """A context in which this thread runs user-defined code, for itself or for the thread `caller`,
    which waits for it. The code runs in the engine's arithmetic, and what it does to the thread's
    settings is undone.
    """
    cdef fc_arithmetic before
    cdef object caller, outer

    def __cinit__(self, caller=None):
        self.caller = caller

    def __enter__(self):
        global _calls
        me = PyThread_get_thread_ident()
        _calls += 1
        self.outer = _callbacks.get(me)
        if self.caller is None:
            self.caller = me if self.outer is None else self.outer[0]
        _callbacks[me] = self.caller, _calls
        self.before = fc_arithmetic_begin()

    def __exit__(self, *error):
        me = PyThread_get_thread_ident()
        fc_arithmetic_end(self.before)
        if self.outer is None:
            _callbacks.pop(me, None)
        else:
            _callbacks[me] = self.outer


cdef object progress_of(unsigned long holder):
    """Return a mark of how far the callbacks have come that run for the thread `holder`: it stays
    equal as long as they wait for other threads, or use no time of a processor. None if there are
    none, or if one is computing in a call of this library.
    """
    frames, marks = None, []
    for thread, (caller, call) in list(_callbacks.items()):
        if caller != holder:
            continue
        frames = sys._current_frames() if frames is None else frames
        frame = frames.get(thread)
        if frame is None:
            continue
        module = str(frame.f_globals.get("__name__", ""))
        if thread in _waiting or module == "threading":     # joins, events, futures, queues
            marks.append((thread, call, None))
        elif module.partition(".")[0] == "fastcurv" or not hasattr(time, "pthread_getcpuclockid"):
            return None
        else:
            clock = time.pthread_getcpuclockid(thread)
            marks.append((thread, call, time.clock_gettime_ns(clock)))
    return marks or None


# --- one caller at a time -------------------------------------------------------------------------


cdef class Lock:
    """A lock that one thread holds at a time, and no thread twice: a callback, a handler of signals
    or a finaliser that runs in the middle of its own thread's call would find things half made, or
    wait for ever.
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
            self.refuse_nested()
        if not PyThread_acquire_lock(self.free, NOWAIT_LOCK):
            self.wait()
        self.holder = PyThread_get_thread_ident()
        return 0

    cdef int refuse_nested(self) except -1:
        raise RuntimeError(
            "This objective or operator is in the middle of a call, and a callback (a loss, an "
            "activation, a source of rows), a signal handler or a finaliser that runs during that "
            "call has called it again. Use copy.copy() of it there, or make the call after the "
            "first one has returned."
        )

    @property
    def held(self):
        """Whether a thread holds it."""
        return self.holder != 0

    cdef int wait(self) except -1:
        """Wait until the lock is free; raises what a handler of signals raises, and a RuntimeError
        if the holder's callback waits for this thread.
        """
        cdef PyLockStatus got = PY_LOCK_INTR
        cdef long long since = 0
        me, stands = PyThread_get_thread_ident(), None
        if me in _callbacks and _callbacks[me][0] == self.holder:
            self.refuse_nested()
        _waiting[me] = self
        try:
            while got != PY_LOCK_ACQUIRED:
                with nogil:
                    got = PyThread_acquire_lock_timed(self.free, POLL_MICROSECONDS, 1)
                if got != PY_LOCK_ACQUIRED:
                    PyErr_CheckSignals()    # a signal may come between two waits as well
                if got != PY_LOCK_ACQUIRED and got != PY_LOCK_INTR:
                    here = progress_of(self.holder)
                    if here is None or here != stands:
                        stands, since = here, fc_now_ns()
                    elif fc_now_ns() - since > 1e9 * CALLBACK_WAIT_SECONDS:
                        raise RuntimeError(
                            "This thread waits for an objective or operator whose callback (a "
                            "loss, an activation, a source of rows) has not moved for "
                            f"{CALLBACK_WAIT_SECONDS:g} seconds in another thread, and may itself "
                            "wait for this thread. Use copy.copy() of the objective or operator in "
                            "each thread."
                        )
        finally:
            del _waiting[me]
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
