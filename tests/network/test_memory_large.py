"""Networks of millions of parameters stay within the memory limit that was set."""

import sys

import numpy as np
import pytest

import fastcurv as fc

resource = pytest.importorskip("resource")
N = 8_000_000
pytestmark = pytest.mark.large


def test_product_with_eight_million_parameters_stays_within_memory():
    """For eight million parameters, the plan stays within `memory`, and the process grows by at
    most `memory` and five vectors. The product agrees with that without a limit to 1e-4.
    """
    rng = np.random.default_rng(0)
    model = fc.MLP([2000, 2000, 1990, 10], activation="tanh", dtype=np.float32)
    n, memory = model.n_params, 120_000_000
    assert n > 0.99 * N
    X, y = rng.standard_normal((512, 2000)).astype(np.float32), rng.integers(10, size=512)
    theta, v, out = (
        model.init(rng=0),
        rng.standard_normal(n).astype(np.float32),
        np.empty(n, np.float32),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    H = fc.Objective(model, X, y, loss="cross_entropy", memory=memory).hessian(theta)
    H.product(v, out)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    assert H.nbytes <= memory and H.layout["chunk"] < 512, (H.nbytes, H.layout)
    assert after - before <= memory + 5 * n * 4, (after - before) / 1e6
    whole = fc.Objective(model, X, y, loss="cross_entropy").hessian(theta) @ v
    assert np.abs(out - whole).max() <= 1e-4 * np.abs(whole).max()


HUGE = """
import resource, sys
import numpy as np, fastcurv as fc
rng = np.random.default_rng(0)
model = fc.MLP([5000, 5000, 4990, 10], "tanh")
assert model.n_params > 49_900_000
ob = fc.Objective(model, rng.standard_normal((64, 5000)), rng.integers(10, size=64))
H = ob.hessian(model.init(rng=0))
pairs = fc.eigsh(H, 10, "BE", rng=0)
# the low end is so dense that copies may be lost there, and such a pair is not called converged
assert pairs.converged[6:].all()
assert (pairs.residuals <= pairs.tol * pairs.scale).all()
assert pairs.missed_within < 0.1 * pairs.scale
for i in (0, 9):
    v = pairs.vector(i)
    gap = H.product(v)
    v *= pairs.values[i]
    gap -= v
    assert np.linalg.norm(gap) <= pairs.residuals[i] + 1e-14 * pairs.scale
    del v, gap
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
"""


def test_ten_eigenpairs_of_fifty_million_parameters_fit_in_memory(python):
    """A new process finds ten eigenpairs of an operator with fifty million parameters in less than
    4 GiB, although a basis of 30 vectors alone would take 12 GiB.
    """
    peak = int(python(HUGE).stdout)
    assert peak < 4 << 30, peak / 2**30
