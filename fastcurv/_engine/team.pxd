"""The process's one team of threads (src/team.h), and the watch for Ctrl-C (src/watch.h)."""


cdef extern from "team.h" nogil:
    ctypedef void (*fc_part)(void *, Py_ssize_t, int) noexcept
    enum:
        FC_MAX_THREADS

cdef extern from "watch.h" nogil:
    ctypedef struct fc_watch:
        pass

# The parts 0 to `parts` by at most so many threads; whether the job is called off, asked inside a
# part, and outside of all.
cdef void fc_team_run(int threads, Py_ssize_t parts, fc_part part, void *context) noexcept nogil
cdef int fc_team_off(int member) noexcept nogil
cdef int fc_watch_off() noexcept nogil

# Begin to look for signals, in the main thread; end it, and raise what a handler raised.
cdef fc_watch watch() noexcept nogil
cdef int unwatch(fc_watch before) except -1 nogil

# What one thread holds at a time; who holds it and asks again is refused.
cdef class Lock:
    cdef object free, __weakref__
    cdef readonly bint lost     # in a child: its holder was another thread, which is no more
    cdef unsigned long holder
    cdef int take(self) except -1
    cdef int give_back(self) except -1

# Whether passes of one kind are done sooner by all threads or by one, as those before have shown.
cdef struct Trial:
    unsigned turn
    long long least[2]          # nanoseconds, with one thread and with all

# How many threads take the next pass, of so many; what it took.
cdef int threads_of_turn(const Trial *trial, int threads) noexcept nogil
cdef void turn_took(Trial *trial, long long since) noexcept nogil
cdef long long now() noexcept nogil
