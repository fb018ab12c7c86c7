"""The process's one team of threads (src/team.h), and the watch for Ctrl-C (src/watch.h)."""


cdef extern from "team.h" nogil:
    ctypedef void (*fc_part)(void *, Py_ssize_t, int) noexcept
    enum:
        FC_MAX_THREADS
    # The parts 0 to `parts` by at most so many threads; whether the job is called off, asked inside
    # a part.
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
    ctypedef struct fc_arithmetic:      # see watch.h: one for workers and for whoever calls
        pass
    fc_arithmetic fc_arithmetic_begin()
    void fc_arithmetic_end(fc_arithmetic)
    int fc_arithmetic_is_fixed()
    int fc_threads_wanted()
    int fc_want_threads(int threads)
    int fc_watch_off()                  # whether the job is called off, asked outside of all parts
    int fc_watch_was_off()              # the same as is known, without a look
    long long fc_now_ns()


# Whether passes of one kind are done sooner by all threads or by one, as those before have shown.
cdef struct Trial:
    unsigned turn
    long long least[2]          # nanoseconds, with one thread and with all
