"""Forks and processes: a child multiplies, whatever its parent's threads were doing."""

from .programs import NET

# --- fork
# --------------------------------------------------------------------------------------------------


FORK = (
    NET
    + """
cases = []
for shape in (TALL, WIDE):
    ob, theta, v = drawn(*shape)
    H = ob.hessian(theta)
    cases.append((ob, theta, H, v, H @ v))
assert engine.thread_workers() >= 1

def child():
    for ob, theta, H, v, product in cases:
        assert np.array_equal(H @ v, product)
        assert np.array_equal(ob.hessian(theta) @ v, product)
    assert engine.thread_workers() >= 1
"""
)


def test_fork(python):
    """Children of a process with workers make their own, and get the same bits; so does the parent
    afterwards.
    """
    python(
        FORK
        + """
for _ in range(20):
    for ob, theta, H, v, product in cases:
        H @ v
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            grandchild = os.fork()
            if grandchild == 0:
                child()
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    child()
""",
    )


def test_multiprocessing(python):
    """A pool by fork, whose operators come by memory and by pickle."""
    python(
        FORK
        + """
import multiprocessing
def work(i):
    child()
    ob, theta, H, v, product = cases[i % 2]
    return H, v, H @ v
with multiprocessing.get_context("fork").Pool(2) as pool:
    for i, (H, v, product) in enumerate(pool.map(work, range(4))):
        assert np.array_equal(product, cases[i % 2][4]) and np.array_equal(H @ v, product)
""",
    )


def test_fork_while_another_thread_multiplies(python):
    """The fork waits for the product at hand; the child finds threads and operators that nobody
    holds.
    """
    python(
        FORK
        + """
stop = threading.Event()
def busy(case):
    ob, theta, H, v, product = case
    while not stop.is_set():
        H @ v
threads = [threading.Thread(target=busy, args=(case,)) for case in cases]
for thread in threads:
    thread.start()
for _ in range(20):
    time.sleep(0.005)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            for ob, theta, H, v, product in cases:
                assert np.array_equal(ob.hessian(theta) @ v, product)
                assert np.array_equal(H @ v, product)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        stop.set()
    assert status == 0, f"child: {status}"
stop.set()
for thread in threads:
    thread.join()
""",
    )
