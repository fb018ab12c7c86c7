"""Forked, spawned and multiprocessing children, and exits of the interpreter."""

import multiprocessing
import operator
import os

import numpy as np
import pytest

from .. import nets
from ..programs import NET

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
FORK = (
    NET
    + """
cases = []
for shape in (TALL, WIDE):
    ob, theta, v = drawn(*shape)
    H = ob.hessian(theta)
    cases.append((ob, theta, H, v, H @ v))
assert engine.count_worker_threads() >= 1

def child():
    for ob, theta, H, v, product in cases:
        assert np.array_equal(H @ v, product)
        assert np.array_equal(ob.hessian(theta) @ v, product)
    assert engine.count_worker_threads() >= 1
"""
)


@posix
@pytest.mark.parametrize("times", [8, pytest.param(300, marks=pytest.mark.nightly)])
def test_forked_children_and_their_parent_get_bitwise_identical_results(times, python):
    """Forked children of a process with workers create their own workers, and children and parent
    get bitwise identical results. `test_handlers` forks during calls of another thread.
    """
    python(
        FORK
        + f"""
for _ in range({times}):
    for ob, theta, H, v, product in cases:
        H @ v
    pid = os.fork()
    if pid == 0:
        signal.alarm(600)                        # a child that hangs
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


@posix
def test_operators_reach_a_forked_pool(python):
    """Processes of a forked pool can use operators that they inherit or receive as pickles."""
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


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pickled_operators_are_bitwise_identical_in_new_processes(method, rng):
    """Operators that are pickled to a new process give products bitwise identical to those of this
    process.
    """
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    p = nets.draw(rng, [5, 9, 3], N=40, l2=0.1)
    H, v = p.ob.hessian(p.theta), p.direction(rng)
    here = H @ v
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply_async(operator.matmul, (H, v)).get(600)
    assert np.array_equal(there, here)


AT_WORK = "threading.Thread(target=lambda: [H @ v for _ in range(200)], daemon=True).start()\n"


@pytest.mark.by_day(share=1 / 4)
@pytest.mark.parametrize(
    "end", ["pass", "sys.exit(0)", AT_WORK + "time.sleep(0.05)", AT_WORK], ids=range(4)
)
def test_the_interpreter_exits_in_order_with_live_workers(end, python):
    """The interpreter exits promptly with status 0, whether its workers are awake or asleep, during
    products or not.
    """
    begin = "ob, theta, v = drawn(*WIDE)\nH = ob.hessian(theta)\nH @ v\n"
    done = python(NET + begin + "assert engine.count_worker_threads() == 1\n" + end)
    assert done.stderr == "" and done.stdout == ""


@posix
@pytest.mark.parametrize("times", [5, pytest.param(1000, marks=pytest.mark.nightly)])
def test_many_children_exit_with_live_workers(times, python):
    """Many children, forked from a process that has imported everything, exit while their workers
    are alive.
    """
    python(
        NET
        + f"""
ob, theta, v = drawn(*TALL)
H = ob.hessian(theta)
H @ v
for i in range({times}):
    pid = os.fork()
    if not pid:
        H @ v
        if i % 2:
            {AT_WORK.strip()}
        raise SystemExit(0)                      # in order: finalisers, modules torn down
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, i
""",
        timeout=1200 if times < 1000 else 7200,
    )
