"""Signal handlers that call the object their thread is using, and forks during calls of other
threads: results are right or an error is raised, and nothing hangs.
"""

import os

import pytest

from ..programs import NET

PROGRAM = (
    NET
    + """
import copy, faulthandler, itertools
from scipy.sparse import csr_matrix

faulthandler.dump_traceback_later(1000, exit=True)
rng = np.random.default_rng(0)
ob, theta, v = drawn([120, 90, 5], 900, l2=1e-3)
there, u = theta + 1e-3, rng.standard_normal(900 * 5)
how = {"l2": 1e-3, "n_threads": 2}
streamed = fc.StreamedObjective(ob.model, ob.X, ob.y, "mse", block_rows=200, **how)
sparse = fc.Objective(ob.model, csr_matrix(ob.X), ob.y, "mse", **how)
H, J, S, P = ob.hessian(theta), ob.jacobian(theta), streamed.hessian(theta), sparse.hessian(theta)
calls = {
    "value": lambda: ob.value(theta),
    "value elsewhere": lambda: ob.value(there),
    "gradient": lambda: ob.value_and_gradient(theta)[1],
    "gradient elsewhere": lambda: ob.value_and_gradient(there)[1],
    "hessp": lambda: ob.hessp(theta, v),
    "product": lambda: H @ v,
    "form": lambda: H.quadratic_form(v),
    "outputs along v": lambda: J @ v,
    "back": lambda: J.T @ u,
    "streamed": lambda: streamed.value_and_gradient(theta)[1],
    "streamed elsewhere": lambda: streamed.value(there),
    "product of a stream": lambda: S @ v,
    "sparse": lambda: sparse.value_and_gradient(theta)[1],
    "sparse elsewhere": lambda: sparse.value(there),
    "product of sparse rows": lambda: P @ v,
}
expected = {name: call() for name, call in calls.items()}

def right(name):
    return np.array_equal(calls[name](), expected[name])
"""
)


def test_signal_handlers_that_call_a_busy_object_raise(python):
    """A signal handler that calls a busy object at random moments gets a correct result or a
    RuntimeError, the interrupted call is correct, and copies of the object can be used. Streams,
    which read ahead in a thread, are left out: a handler may then wait for the call it interrupts.
    """
    python(
        PROGRAM
        + """
calls = {name: call for name, call in calls.items() if "stream" not in name}
names, refused, wrong, asked = itertools.cycle(calls), set(), [], 0

def handler(*_):
    global asked
    name = outer if asked % 2 else next(names)
    asked += 1
    try:
        if not right(name):
            wrong.append((outer, name))
    except RuntimeError as error:
        assert "copy.copy()" in str(error)
        refused.add(outer)
    if going:                                    # however long that took, what waits goes on first
        signal.setitimer(signal.ITIMER_REAL, 0.003)

signal.signal(signal.SIGALRM, handler)
for outer in calls:
    going = True
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    most = asked + 12                            # handlers, however long they take to come
    while asked < most:
        if not right(outer):
            wrong.append((outer, "outer"))
    going = False
    signal.setitimer(signal.ITIMER_REAL, 0)
assert not wrong, set(wrong)
assert len(refused) >= 9 and asked > 100, (refused, asked)
copies = copy.copy(ob), copy.copy(H)

def served(*_):
    seen.append(np.array_equal(copies[0].value_and_gradient(there)[1], expected[
        "gradient elsewhere"]) and np.array_equal(copies[1] @ v, expected["product"]))
    signal.setitimer(signal.ITIMER_REAL, 0.003)

seen = []
signal.signal(signal.SIGALRM, served)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(seen) < 5:
    assert right("gradient") and right("gradient elsewhere") and right("product")
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(seen)
""",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forks_during_calls_of_another_thread_leave_objects_usable(python):
    """In a child forked during a call of another thread, every object is unlocked and gives correct
    results.
    """
    python(
        PROGRAM
        + """
for name in calls:
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            calls[name]()
    thread = threading.Thread(target=busy)
    thread.start()
    for i in range(2):
        time.sleep(0.003)
        pid = os.fork()
        if not pid:
            signal.alarm(300)
            anew = np.array_equal(ob.hessian(theta) @ v, expected["product"])
            os._exit(0 if right(name) and right("gradient") and anew else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, name
    stop.set()
    thread.join()
    assert right(name)
""",
    )
