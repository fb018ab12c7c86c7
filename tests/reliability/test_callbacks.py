"""Callbacks that call the objective or operator that is calling them, from their own thread or
through another object.
"""

PROGRAM = """
import copy, threading, time
import numpy as np
import fastcurv as fc
from fastcurv._engine import core
from fastcurv.network.rows import RowSource

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((40, 2)), rng.standard_normal((40, 1))
inside = lambda: None  # what callbacks do

def square(z, y):
    inside()
    r = z - y
    return (r * r).sum(axis=1), 2 * r, np.full_like(r, 2.0)

def parabola(z):
    inside()
    return z * z, 2 * z, np.full_like(z, 2.0)

class Rows(RowSource):
    n_rows = 40
    def blocks(self, size):
        inside()
        for start in range(0, 40, size):
            yield X[start:start + size], Y[start:start + size], None

def objectives():
    for phi in ("tanh", fc.Activation(parabola)):
        model = fc.MLP([2, 3, 1], phi)
        for loss in ("mse", fc.Loss(square)):
            yield fc.Objective(model, X, Y, loss)
            yield fc.Objective(model, X, Y, loss, memory=10**6)
            if loss == "mse":
                yield fc.StreamedObjective(model, Rows(), loss=loss, block_rows=16)

def calls(ob, theta):
    H = ob.hessian(theta)
    return [
        lambda x: ob.value(x), lambda x: ob.gradient(x), lambda x: ob.hessp(x, x),
        lambda x: ob.hessian(x).value, lambda x: H @ x,
    ]
"""


def test_callbacks_that_call_their_own_objective_raise(python):
    """A callback that calls its own objective raises an error that mentions callbacks, also in the
    thread that reads blocks, and the objective stays usable.
    """
    python(
        PROGRAM
        + """
refused = 0
for ob in objectives():
    theta = ob.model.init(rng=0)
    for call in calls(ob, theta):
        asked = []
        def inside():
            if not asked:
                asked.append(1)
                call(theta)
        try:
            call(theta + 0.1)
        except (RuntimeError, ValueError) as error:
            assert "a callback (a loss, an activation, a source of rows)" in str(error), error
            assert "copy.copy()" in str(error)
            refused += 1
        inside = lambda: None
        assert np.isfinite(call(theta + 0.1)).all()
assert refused >= 15, refused
""",
    )


def test_a_deadlock_through_a_callback_raises_instead(python):
    """If a callback waits for a thread that calls the callback's objective, that thread raises an
    error instead of waiting without end.
    """
    python(
        PROGRAM
        + """
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
core.CALLBACK_WAIT_SECONDS = 0.3

def by_join(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
def by_short_joins(call):
    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
def by_future(call):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()
def by_queue(call):
    queue = SimpleQueue()
    threading.Thread(target=lambda: queue.put(call())).start()
    queue.get()

ways = [by_join, by_short_joins, by_future, by_queue]
ways = ways if hasattr(time, "pthread_getcpuclockid") else ways[:3]
refused = []
for i, ob in enumerate(objectives()):
    inside = lambda: None
    theta, asked, before = ob.model.init(rng=0), [], len(refused)
    expected = [ob.value(theta + 0.1 * j) for j in range(3)]
    def attempt():
        try:
            ob.value(theta)
        except RuntimeError as error:
            refused.append(str(error))
    def inside():
        if not asked:
            asked.append(1)
            ways[i % len(ways)](attempt)
    found = [ob.value(theta + 0.1 * j) for j in (2, 1, 0)]
    assert found == expected[::-1] and len(refused) - before == len(asked)
assert len(refused) == 8, refused
assert all("may itself wait for this thread. Use copy.copy()" in text for text in refused)
""",
    )


def test_threads_wait_for_a_slow_callback_of_another_thread(python):
    """Other threads wait for a slow callback as long as it uses processor time from time to
    time.
    """
    python(
        PROGRAM
        + """
core.CALLBACK_WAIT_SECONDS = 0.5
ob = fc.Objective(fc.MLP([2, 3, 1]), X, Y, fc.Loss(square))
theta = ob.model.init(rng=0)
expected, begun = [ob.value(theta + i) for i in range(3)], threading.Event()
def inside():
    if not begun.is_set():
        begun.set()
        for _ in range(40):
            time.sleep(0.05)
found = [None] * 3
def ask(i):
    found[i] = ob.value(theta + i)
threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
threads[0].start()
begun.wait()
for thread in threads[1:]:
    thread.start()
for thread in threads:
    thread.join()
assert found == expected, (found, expected)
""",
    )
