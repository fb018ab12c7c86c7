# Ctrl-C in the middle of a pass: the main thread looks for signals now and then, and what a handler raises ends the pass.
cdef extern from "Python.h" nogil:
    int run_handlers "PyErr_CheckSignals"() noexcept
    unsigned long PyThread_get_thread_ident()

cdef unsigned long main_thread


def _know_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


def _is_main_thread_now():
    global main_thread
    main_thread = PyThread_get_thread_ident()


_know_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_main_thread_now)


cdef int look_for_signals() noexcept nogil:
    """Run Python's handlers of the signals that came in: not 0 where one raised. The exception waits in the thread."""
    with gil:
        return run_handlers()


cdef inline fc_watch watch() noexcept nogil:
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
            raise RuntimeError("a signal handler forked in the middle of a pass, which the child has lost; wanted to run it again there")
    return -1
