"""The thread team, floating-point settings, locks, and handling of Ctrl-C during a pass.

While a pass runs, the main thread checks for pending signals at intervals. If a signal handler
raises an exception, the pass is cancelled and the exception is raised to the caller.
"""
import os
import threading

cimport cython
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
# Number of forks between the first process and this one. A lock with another number is replaced.
cdef unsigned long n_forks = 0


def _store_main_thread():
    """Store the identifier of the main thread."""
    global main_thread
    main_thread = threading.main_thread().ident


def _after_fork_in_child():
    """Make the forked child process's only thread its main thread, and count the fork."""
    global main_thread, n_forks
    main_thread = PyThread_get_thread_ident()
    n_forks += 1


_store_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int run_signal_handlers() noexcept nogil:
    """Run Python's handlers of pending signals. If a handler raises, return nonzero with its
    exception set in this thread.
    """
    with gil:
        return run_handlers()


cdef fc_watch begin_signal_watch() noexcept nogil:
    """Start checking for signals if this is the main thread, because Python runs signal handlers
    only in the main thread. Return the previous state of the checks, for `end_signal_watch`.
    """
    cdef fc_check check = NULL
    if PyThread_get_thread_ident() == main_thread:
        check = run_signal_handlers
    return fc_watch_begin(check)


cdef int end_signal_watch(fc_watch before) except -1 nogil:
    """Stop checking for signals and restore the state `before`. Raise the exception of a signal
    handler, if one raised.
    """
    if not fc_watch_end(before):
        return 0
    with gil:
        if PyErr_Occurred() == NULL:
            raise RuntimeError(
                "a signal handler forked during a computation, whose result the child process "
                "has lost. Run the computation again in the child."
            )
    return -1


# --- floating-point settings: round to nearest, keep subnormal numbers ----------------------------


cdef class FloatingPointMode:
    """Context manager that sets this thread to round to nearest and to keep subnormal numbers. On
    exit the thread's previous floating-point settings are restored. If `threads` is given, calls
    inside the context that do not specify a number of threads use at most that many.
    """
    cdef fc_arithmetic before
    cdef int threads, wanted

    def __cinit__(self, threads=None):
        known = isinstance(threads, int) and threads > 0
        self.threads = min(threads, FC_MAX_THREADS) if known else 0

    def __enter__(self):
        self.before, self.wanted = fc_arithmetic_begin(), fc_threads_wanted()
        if self.threads and not 0 < self.wanted <= self.threads:
            fc_set_threads_wanted(self.threads)
        return self

    def __exit__(self, *error):
        fc_set_threads_wanted(self.wanted)
        fc_arithmetic_end(self.before)


# --- mutual exclusion -----------------------------------------------------------------------------

cdef enum:
    POLL_MICROSECONDS = 100000  # maximum microseconds of a wait before pending signals are handled


cdef class Lock:
    """Mutual exclusion lock, not reentrant. A second acquisition by the holder raises RuntimeError,
    because a callback, signal handler or finaliser that runs during the holder's call would find
    inconsistent state, or wait for a lock that is never released.
    """
    cdef PyThread_type_lock free
    cdef bint is_lost
    cdef unsigned long holder, n_forks

    def __cinit__(self):
        self.replace_lock()
        self.n_forks = n_forks

    def __dealloc__(self):
        if self.free != NULL:
            PyThread_free_lock(self.free)

    cdef int replace_lock(self) except -1:
        """Allocate a new lock that is not held."""
        self.free = PyThread_allocate_lock()
        if self.free == NULL:
            raise MemoryError("Not enough memory for a lock.")
        return 0

    cdef int acquire(self) except -1:
        """Acquire the lock. Raise RuntimeError if this thread already holds it."""
        if self.n_forks != n_forks:
            self.renew()
        if self.holder == PyThread_get_thread_ident():
            raise RuntimeError(
                "This objective or operator is in the middle of a call, during which a callback (a "
                "loss, an activation, a source of rows), a signal handler or a finaliser has "
                "called it again. Use copy.copy() of it there, or call it later."
            )
        if not PyThread_acquire_lock(self.free, NOWAIT_LOCK):
            self.wait()
        self.holder = PyThread_get_thread_ident()
        return 0

    @property
    def is_held(self):
        """True if a thread holds the lock."""
        self.renew()
        return self.holder != 0

    @property
    def lost(self):
        """True in a forked child process if a thread of the parent process held the lock."""
        self.renew()
        return self.is_lost

    cdef int wait(self) except -1:
        """Wait until the lock is acquired. Raise the exception of a signal handler."""
        cdef PyLockStatus got = PY_LOCK_INTR
        while got != PY_LOCK_ACQUIRED:
            with nogil:
                got = PyThread_acquire_lock_timed(self.free, POLL_MICROSECONDS, 1)
            if got != PY_LOCK_ACQUIRED:
                PyErr_CheckSignals()    # a signal may arrive between two timed waits
        return 0

    cdef void release(self) noexcept:
        """Release the lock."""
        self.holder = 0
        PyThread_release_lock(self.free)

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()

    cdef int renew(self) except -1:
        """Replace the lock if the process has been forked since. If another thread held the
        lock, set `is_lost`, because the data that the thread was modifying are incomplete. Test the
        lock itself rather than `holder`, which a thread sets only after it has acquired the lock.
        """
        with cython.critical_section(self):
            if self.n_forks == n_forks:
                return 0
            self.n_forks, self.is_lost = n_forks, False
            if self.holder != main_thread:  # the only thread of the child when it began
                self.is_lost = not PyThread_acquire_lock(self.free, NOWAIT_LOCK)
                self.holder = 0
                # Replace the lock, because the parent's lock may count a waiting thread that does
                # not exist in the child process.
                self.replace_lock()
        return 0


# --- number of threads ----------------------------------------------------------------------------


MAX_THREADS = FC_MAX_THREADS


def default_n_threads():
    """Return FASTCURV_NUM_THREADS if it is set, else the number of CPUs that the affinity mask and
    cgroup limits allow. The result is at most the `threads` of the enclosing
    `FloatingPointMode` context.
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


def count_worker_threads():
    """Return the number of live worker threads of the process."""
    return fc_team_workers()


def set_thread_limit(int threads):
    """Limit every later job of the process to `threads` threads. 0 removes the limit."""
    fc_team_limit(threads)


def get_thread_limit():
    """Return the thread limit of the process, or 0 if there is none."""
    return fc_team_get_limit()


# --- choice between one thread and all threads, by timing -----------------------------------------
# State that one thread has written moves to another thread's cache one cache line at a time. If the
# two caches are far apart, as on a virtual machine whose CPUs migrate, a short pass ends before the
# transfer does: in measurements two threads took 0.3 to 3.7 times as long as one, changing from
# minute to minute. The problem's sizes therefore do not predict the faster choice, so a few of
# every TIMING_PERIOD_PASSES passes are timed with one thread and with all threads. Results do not
# depend on the choice.

cdef enum:
    TIMING_PERIOD_PASSES = 256          # passes between two rounds of timing
    # Passes per choice in a round of timing. The first N_UNTIMED_PASSES of them run with cold
    # caches and are not recorded.
    N_TIMING_PASSES = 6
    N_UNTIMED_PASSES = 3


cdef int choose_timed_threads(const Trial *trial, int threads) noexcept nogil:
    """Return the number of threads for the next pass, 1 or `threads`, from the recorded timings."""
    cdef unsigned at = trial.turn % TIMING_PERIOD_PASSES
    cdef bint every = trial.least[1] <= trial.least[0]
    if at < 2 * N_TIMING_PASSES:
        every = at < N_TIMING_PASSES
    return threads if every else 1


cdef void record_timing(Trial *trial, long long since) noexcept nogil:
    """Record the time of a pass that began at `since`, a time of `now_ns`."""
    cdef unsigned at = trial.turn % TIMING_PERIOD_PASSES
    cdef long long took = fc_now_ns() - since
    cdef long long *least = &trial.least[at < N_TIMING_PASSES]
    if at < 2 * N_TIMING_PASSES and at % N_TIMING_PASSES >= N_UNTIMED_PASSES:
        least[0] = took if at % N_TIMING_PASSES == N_UNTIMED_PASSES else min(least[0], took)
    trial.turn += 1


cdef long long now_ns() noexcept nogil:
    """Return the time of a monotonic clock in nanoseconds."""
    return fc_now_ns()
