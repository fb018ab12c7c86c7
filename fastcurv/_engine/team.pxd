"""Cython declarations of the process's thread team (src/team.h) and of the polling for signals
during a pass (src/watch.h).
"""


cdef extern from "team.h" nogil:
    ctypedef void (*fc_part)(void *, Py_ssize_t, int) noexcept
    enum:
        FC_MAX_THREADS
    # fc_team_run calls part(context, i, member) for i = 0, ..., parts - 1 on at most `threads`
    # threads. Within a part, fc_team_cancelled(member) returns nonzero after a cancellation.
    void fc_team_run(int threads, Py_ssize_t parts, fc_part part, void *context)
    int fc_team_cancelled(int member)
    int fc_team_available()
    int fc_team_workers()
    void fc_team_limit(int)
    int fc_team_get_limit()

cdef extern from "watch.h" nogil:
    ctypedef struct fc_watch:
        pass
    ctypedef int (*fc_check)() noexcept
    fc_watch fc_watch_begin(fc_check)
    int fc_watch_end(fc_watch)
    # Floating-point control settings (rounding mode, subnormals) of a thread; see watch.h.
    ctypedef struct fc_arithmetic:
        pass
    fc_arithmetic fc_arithmetic_begin()
    void fc_arithmetic_end(fc_arithmetic)
    int fc_threads_wanted()
    int fc_set_threads_wanted(int threads)
    # fc_watch_poll checks for signals and returns nonzero if the job has been cancelled. It may be
    # called only outside of parts.
    int fc_watch_poll()
    # fc_watch_cancelled returns the last result of fc_watch_poll without checking for signals.
    int fc_watch_cancelled()
    long long fc_now_ns()


# Timings from which choose_timed_threads decides whether passes of one kind run faster on one
# thread or on all.
cdef struct Trial:
    unsigned turn               # number of passes recorded
    # Shortest time in nanoseconds: [0] with one thread, [1] with all threads.
    long long least[2]
