"""Workers that a job does not want leave those that it wants alone."""

import sys

import pytest

BUSY_AND_IDLE = """
import os, time
import numpy as np, fastcurv as fc

def switches():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as lines:
            found[task] = sum(int(x.split()[1]) for x in lines if "ctxt_switches" in x)
    return found

def operator(threads):
    model = fc.MLP([64, 128, 128, 10])
    X, y = np.ones((3000, 64)), np.arange(3000) % 10
    return fc.Objective(model, X, y, n_threads=threads).hessian(model.init(seed=0))

many, two = operator(64), operator(2)
v = np.ones(two.shape[0])
expected = two @ v
many @ v
assert fc._engine.thread_workers() > 6
time.sleep(0.3)
before = switches()
for _ in range(60):
    assert np.array_equal(two @ v, expected)
    time.sleep(0.002)
after = switches()
print(sum(after[task] - before[task] > 10 for task in before))
assert np.array_equal(many @ v, expected)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_who_is_not_wanted_sleeps_on(python):
    """Two threads of more than six are at work, while products come one by one; the others do not
    wake. Then all are at hand again.
    """
    assert int(python(BUSY_AND_IDLE).stdout) <= 2
