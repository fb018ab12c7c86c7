"""The thread team of the process (src/team.h), and the watch for signals (src/watch.h)."""


cdef extern from "team.h" nogil:
    ctypedef void (*fc_part)(void *, Py_ssize_t, int) noexcept
    enum:
        FC_MAX_THREADS
    # Run parts 0 to `parts` on at most `threads` threads. fc_team_off, called inside a part, is
    # nonzero if the job has been cancelled.
    void fc_team_run(int threads, Py_ssize_t parts, fc_part part, void *context)
    int fc_team_off(int member)
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
    # floating-point settings, shared by workers and the calling thread; see watch.h
    ctypedef struct fc_arithmetic:
        pass
    fc_arithmetic fc_arithmetic_begin()
    void fc_arithmetic_end(fc_arithmetic)
    int fc_arithmetic_is_fixed()
    int fc_threads_wanted()
    int fc_want_threads(int threads)
    # nonzero if the job has been cancelled; called outside of parts, looks for signals first
    int fc_watch_off()
    # the last known value of fc_watch_off, without looking for signals
    int fc_watch_was_off()
    long long fc_now_ns()


# Timings that decide whether passes of one kind run faster on all threads or on one.
cdef struct Trial:
    unsigned turn               # number of passes so far
    long long least[2]          # shortest time in nanoseconds, with one thread and with all
