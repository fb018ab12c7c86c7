"""One `Krylov` run that is used from several threads, from its own product, from a signal handler
and after a fork gives right results or raises.
"""

import os

import pytest

RUN = """
import faulthandler, os, signal, sys, threading, time
import numpy as np
import fastcurv as fc
from scipy.sparse.linalg import LinearOperator

faulthandler.dump_traceback_later(1000, exit=True)
n, values = 400, np.r_[np.linspace(0, 1, 397), 3.0, 4.0, 5.0]
"""


def test_threads_that_share_a_run_get_right_values(python):
    """Several threads that extend one Krylov run, some to its full dimension, get correct
    eigenvalues.
    """
    python(
        RUN
        + """
sys.setswitchinterval(1e-5)
wrong = []

def ask(run, seed):
    rng = np.random.default_rng(seed)
    try:
        for what in rng.integers(4, size=12):
            if what == 0:
                pairs = run.eigsh(3, "LA", tol=1e-6)
                if not np.abs(pairs.values - values[-3:]).max() <= 1e-5:
                    wrong.append(pairs.values)
            elif what == 1:
                if not abs(run.spectral_density(2, int(rng.integers(5, 60))).integral() - 1) < 1e-6:
                    wrong.append("density")
            elif what == 2:
                g = rng.standard_normal(n)
                with run.locked() as runs:
                    one = runs.extend_from(g, int(rng.integers(2, 30)))
                    off = np.abs(one.rows[: one.m] @ one.rows[: one.m].T - np.eye(one.m)).max()
                if not off <= 1e-6:
                    wrong.append("basis")
            else:
                run.extend(int(rng.integers(1, 300)))
    except Exception as error:
        wrong.append(repr(error))

for repeat in range(3):
    run = fc.spectrum.Krylov(np.diag(values), seed=repeat)
    threads = [threading.Thread(target=ask, args=(run, i)) for i in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    made = run.n_products
    assert run.extend(1).n_products == made
assert not wrong, wrong[:3]
"""
    )


def test_a_run_used_from_its_own_product_or_a_handler_raises(python):
    python(
        RUN
        + """
said, kept = [], []

def again():
    for call in (lambda: run.eigsh(2, "LA"), lambda: run.extend(50), lambda: run.probe(0, 40),
                 lambda: run.spectral_density(1, 20), lambda: run.extend_from(np.ones(n), 9),
                 lambda: run.n_steps_from()):
        try:
            call()
        except RuntimeError as error:
            said.append(str(error))

def product(v):
    if len(kept) == 5:
        again()
    kept.append(v)
    return values * v.reshape(-1)

run = fc.spectrum.Krylov(LinearOperator((n, n), product, dtype=float), "mine", seed=0)
pairs = run.eigsh(3, "LA")
assert np.abs(pairs.values - values[-3:]).max() <= 1e-5
assert len(said) == 6 and len(set(said)) == 1
assert "'mine' must not be used from a product" in said[0]
# rows that an operator has kept stay its own where the run grows
lengths = [np.linalg.norm(v) for v in kept]
run.extend(350)
assert np.allclose(lengths, 1) and np.allclose([np.linalg.norm(v) for v in kept[:40]], 1)

said.clear()
handled = []

def handler(*_):
    again()
    handled.append(len(said))
    signal.setitimer(signal.ITIMER_REAL, 0.002)

run = fc.spectrum.Krylov(np.diag(values), "mine", seed=0)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002)
seed = 0
while len(said) < 12:
    with run.locked() as runs:
        runs.extend_from(np.random.default_rng(seed % 50).standard_normal(n), 40)
    seed += 1
    assert np.abs(run.eigsh(3, "LA").values - values[-3:]).max() <= 1e-5
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(said) == {said[0]} and "signal handler" in said[0]
"""
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_during_a_run_of_another_thread_restarts_the_run(python):
    python(
        RUN
        + """
amid = threading.Event()

def product(v):
    amid.set()
    time.sleep(0.002)
    return values * v.reshape(-1)

run = fc.spectrum.Krylov(LinearOperator((n, n), product, dtype=float), seed=0)
thread = threading.Thread(target=run.extend, args=(200,))
thread.start()
amid.wait()
pid = os.fork()
if not pid:
    signal.alarm(300)
    right = np.abs(run.eigsh(2, "LA").values - values[-2:]).max() <= 1e-5
    os._exit(0 if right else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
thread.join()
assert np.abs(run.eigsh(2, "LA").values - values[-2:]).max() <= 1e-5
"""
    )
