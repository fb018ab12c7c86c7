"""Threads, and handling of Ctrl-C during a pass.

While a pass runs, the main thread looks for signals from time to time. If a signal handler raises,
the pass ends with that exception.
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
_locks = WeakSet()              # every live Lock, for _after_fork_in_child


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
    """Run Python's handlers of pending signals. Return nonzero if one raised; its exception is then
    set in this thread.
    """
    with gil:
        return run_handlers()


cdef fc_watch watch() noexcept nogil:
    """Start looking for signals if this is the main thread; no other thread may run signal
    handlers.
    """
    cdef fc_check check = NULL
    if PyThread_get_thread_ident() == main_thread:
        check = look_for_signals
    return fc_watch_begin(check)


cdef int unwatch(fc_watch before) except -1 nogil:
    """Stop looking for signals; raise what a handler raised."""
    if not fc_watch_end(before):
        return 0
    with gil:
        if PyErr_Occurred() == NULL:
            raise RuntimeError(
                "a signal handler forked during a computation, whose result the child process "
                "has lost. Run the computation again in the child."
            )
    return -1


# --- arithmetic: to nearest, nothing flushed to zero ----------------------------------------------


cdef dict _regions = {}         # {thread: number of `Arithmetic` contexts that it is inside}


cdef class Arithmetic:
    """A context in which this thread rounds to nearest and keeps subnormal numbers. On exit the
    thread's own settings are restored; `disturbed` is True if the settings of the context had been
    changed in between. If `threads` is given, calls without a number of threads use at most this
    many.
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

# Seconds without progress after which a thread that waits for a lock concludes that the holder's
# callback waits for that very thread.
CALLBACK_WAIT_SECONDS = 10.0
cdef enum:
    POLL_MICROSECONDS = 100000  # microseconds between two checks of such a callback


cdef class Callback:
    """A context in which this thread runs user-defined code, for itself or for the thread `caller`,
    which waits for the result. The code runs with the engine's floating-point settings; changes
    that it makes to the thread's settings are undone.
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
    """Return a mark of the progress of the callbacks that run for the thread `holder`. The mark
    stays equal while they wait for other threads or use no CPU time. Return None if there are no
    callbacks, or if one is computing inside this library.
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
    """A lock that one thread holds at a time, and no thread twice: a callback, a signal handler or
    a finaliser that runs during its own thread's call would find inconsistent state, or wait for a
    lock that is never released.
    """
    cdef PyThread_type_lock free
    cdef object __weakref__
    # in a forked child: the lock was held by a thread that does not exist in the child
    cdef readonly bint lost
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
        """Return True if a thread holds the lock."""
        return self.holder != 0

    cdef int wait(self) except -1:
        """Wait until the lock is free. Raise what a signal handler raises, and RuntimeError if the
        holder's callback waits for this thread.
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
                    PyErr_CheckSignals()  # a signal may arrive between two waits, too
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

    cdef void release(self) noexcept:
        self.holder = 0
        PyThread_release_lock(self.free)

    def __enter__(self):
        self.take()

    def __exit__(self, *error):
        self.release()

    def after_fork(self):
        """Reset the lock in a forked child. `lost` is set if another thread held the lock: the data
        that it was changing are then incomplete. The lock itself is tried, because a thread that
        has just acquired it may not have set `holder` yet.
        """
        self.lost = False
        if self.holder != PyThread_get_thread_ident():
            self.lost = not PyThread_acquire_lock(self.free, NOWAIT_LOCK)
            self.holder = 0
            # the old lock may count a waiting thread that does not exist in the child
            self.renew()


# --- how many -------------------------------------------------------------------------------------


MAX_THREADS = FC_MAX_THREADS


def default_threads():
    """Return FASTCURV_NUM_THREADS if set, else the number of CPUs that affinity and cgroup limits
    allow, in either case at most the `threads` of the surrounding `Arithmetic` context.
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
        raise ValueError(f"FASTCURV_NUM_THREADS must be a positive whole number, got {text!r}.")
    return min(number, wanted or FC_MAX_THREADS)


def thread_workers():
    """Return the number of worker threads alive."""
    return fc_team_workers()


def set_thread_limit(int threads):
    """Limit the threads of every later job in the process to `threads`; 0: no limit."""
    fc_team_limit(threads)


def get_thread_limit():
    """Return the thread limit of the process, or 0 if there is none."""
    return fc_team_get_limit()


# --- one thread or all ----------------------------------------------------------------------------
# The state written by one thread is fetched by another line by line. Where caches are far apart, as
# on a virtual machine whose CPUs migrate, a short pass ends before that is done: two threads took
# 0.3 to 3.7 times as long as one, varying from minute to minute. Sizes do not determine which is
# faster, so a few passes of every TRIAL_PERIOD are timed with all threads and with one. Results do
# not depend on the choice.

cdef enum:
    TRIAL_PERIOD = 256          # passes per period, at whose start both choices are timed again
    # passes timed per choice and period; the first ones run with cold caches ...
    N_TRIALS = 6
    N_UNTIMED = 3               # ... so this many are not timed


cdef int trial_threads(const Trial *trial, int threads) noexcept nogil:
    """Return the number of threads for the next pass: 1 or `threads`, by the timings so far."""
    cdef unsigned at = trial.turn % TRIAL_PERIOD
    cdef bint every = at < N_TRIALS if at < 2 * N_TRIALS else trial.least[1] <= trial.least[0]
    return threads if every else 1


cdef void record_trial(Trial *trial, long long since) noexcept nogil:
    """Record the time of the pass that began at `since` (in nanoseconds)."""
    cdef unsigned at = trial.turn % TRIAL_PERIOD
    cdef long long took = fc_now_ns() - since
    cdef long long *least = &trial.least[at < N_TRIALS]
    if at < 2 * N_TRIALS and at % N_TRIALS >= N_UNTIMED:
        least[0] = took if at % N_TRIALS == N_UNTIMED else min(least[0], took)
    trial.turn += 1


cdef long long now() noexcept nogil:
    return fc_now_ns()
