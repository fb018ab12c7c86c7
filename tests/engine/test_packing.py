"""Theta taken over, and matrices packed both ways: whatever is done with their rows, the numbers
are the same.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine

from ..plans import LAYOUTS, laid_out

# plain loops write nothing past caches
ARCHS = [name for name in engine.available_archs() if name != "reference"]
NETS = [  # sizes, rows, options of the model
    ((3, 5, 2), 4, {"bias": False}),
    ((40, 70, 33, 5), 50, {}),
    ((300, 130, 257, 3), 90, {}),
    ((4500, 35, 3), 10, {}),
    ((6, 20, 20, 4), 30, {"batch_norm": True}),
]


def plan_of(sizes, rows, dtype, n_threads=2, **options):
    """A plan, and a point."""
    model = fc.MLP(sizes, activation="tanh", dtype=dtype, **options)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, sizes[0])).astype(dtype)
    y = rng.standard_normal((rows, sizes[-1])).astype(dtype)
    ob = fc.Objective(model, X, y, loss="mse", n_threads=n_threads)
    return ob._new_plan(), model.init(seed=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", range(len(NETS)))
def test_theta_is_copied_on_the_way(arch, net, dtype, layout):
    """The same bits as bound where it lies, in every number of it; what is not finite is found
    wherever it stands, and leaves the plan nowhere.
    """
    sizes, rows, options = NETS[net]
    with laid_out(*LAYOUTS[layout]):
        plan, theta = plan_of(sizes, rows, dtype, **options)
        there, _ = plan_of(sizes, rows, dtype, **options)
    there.bind(theta)
    own = np.full_like(theta, 7)
    assert plan.take(theta, own)
    assert np.array_equal(own, theta) and plan.value == there.value
    assert np.array_equal(plan.gradient, there.gradient)
    rng = np.random.default_rng(2)
    for place in (0, len(theta) - 1, *rng.integers(len(theta), size=12)):
        odd = theta.copy()
        odd[place] = (np.nan, np.inf, -np.inf)[place % 3]
        assert not plan.take(odd, own) and plan.theta is None
    for foreign in (theta.tolist(), theta[::-1], theta[:-1], theta.astype("float16")):
        assert not plan.take(foreign, own) and plan.theta is None
    assert plan.take(theta, own) and np.array_equal(plan.gradient, there.gradient)


@pytest.mark.parametrize("arch", ARCHS, indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_past_the_caches(arch, dtype):
    """Matrices that no cache holds are written past all of them: the same as those read as they
    lie, for any number of threads.
    """
    sizes = (1025, 3100, 7) if dtype == "float32" else (700, 2300, 9)
    results = []
    for n_threads, layout in ((1, (0, 0)), (2, (0, 0)), (2, (0, 64))):
        with laid_out(*layout):
            plan, theta = plan_of(sizes, 20, dtype, n_threads)
        own, product = np.empty_like(theta), np.empty_like(theta)
        assert plan.take(theta, own) and np.array_equal(own, theta)
        plan.multiply(theta, product)
        results.append(np.concatenate([plan.gradient, product]))
    assert np.array_equal(results[0], results[1])
    gap = np.linalg.norm(results[1] - results[2])
    assert gap <= (1e-5 if dtype == "float32" else 1e-13) * np.linalg.norm(results[1])
    odd = theta.copy()
    odd[len(odd) // 2] = np.nan
    assert not plan.take(odd, own)
