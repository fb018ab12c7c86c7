"""Forks, spawned and served processes, and ends of the interpreter, many times over."""

import multiprocessing
import operator
import os

import numpy as np
import pytest

import fastcurv as fc

PROGRAM = """
import os, sys, threading, time
import numpy as np
import fastcurv as fc
rng = np.random.default_rng(0)
model = fc.MLP([33, 31, 17, 7], "tanh")
X, y = rng.standard_normal((700, 33)), rng.standard_normal((700, 7))
ob, theta = fc.Objective(model, X, y, "mse", n_threads=2), model.init(seed=0)
v = rng.standard_normal(model.n_params)
H = ob.hessian(theta)
product = H @ v
"""
FORKS = """
stop = threading.Event()
def busy():
    while not stop.is_set():
        H @ v
thread = threading.Thread(target=busy, daemon=True)
for i in range({times}):
    if i == {times} // 2:
        thread.start()                           # from now on the forks come during a product
    pid = os.fork()
    if not pid:
        try:
            right = np.array_equal(H @ v, product)
            right = right and np.array_equal(ob.hessian(theta) @ v, product)
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 600
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, f"child {{i}} hangs"
        time.sleep(0.001)
    assert done[1] == 0, (i, done)
    assert np.array_equal(H @ v, product)
stop.set()
thread.join()
"""

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@posix
def test_thirty_forks(python):
    """Half of them while another thread multiplies."""
    python(PROGRAM + FORKS.format(times=30))


@posix
@pytest.mark.nightly
def test_three_hundred_forks(python):
    python(PROGRAM + FORKS.format(times=300))


def ends(python, times):
    for i in range(times):
        awake = "threading.Thread(target=lambda: [H @ v for _ in range(99)], daemon=True).start()"
        done = python(PROGRAM + ("" if i % 2 else awake))
        assert done.stderr == "" and done.stdout == ""


EXITS = """
for i in range({times}):
    pid = os.fork()
    if not pid:
        H @ v
        if i % 2:
            threading.Thread(target=lambda: [H @ v for _ in range(99)], daemon=True).start()
        raise SystemExit(0)                      # in order: finalisers, modules torn down
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, i
"""


@posix
def test_thirty_exits_with_live_workers(python):
    """As children of one process that has imported everything: an exit of each is what counts."""
    python(PROGRAM + EXITS.format(times=30))


@posix
@pytest.mark.nightly
def test_a_thousand_exits(python):
    """And fifty of processes of their own."""
    python(PROGRAM + EXITS.format(times=1000), timeout=7200)
    ends(python, 50)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_operators_travel_to_new_processes(method, rng):
    """And give the same bits there."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    model = fc.MLP([5, 9, 3], "tanh")
    X, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    H = fc.Objective(model, X, y, "mse", l2=0.1).hessian(model.init(seed=0))
    v = rng.standard_normal(model.n_params)
    here = H @ v
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply_async(operator.matmul, (H, v)).get(60)
    assert np.array_equal(there, here)
