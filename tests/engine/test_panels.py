"""Panels of samples: their number and lengths, and gradients that are computed in the memory of the
stored state.
"""

import numpy as np
import pytest

import fastcurv as fc

from .. import nets

pytestmark = pytest.mark.by_day(one_of="dtype")

NETS = {  # transposed and row layouts, with and without chunks
    "across": {"sizes": [13, 30, 1]},
    "rows": {"sizes": [16, 32, 32, 16], "activation": "gelu", "loss": "cross_entropy",
             "weights": True},
    "skips": {"sizes": [5, 20, 20, 3], "activation": "softplus", "loss": "cross_entropy",
              "residual": True},
}  # fmt: skip


def problem(name, dtype, N=3001, **more):
    p = nets.draw(0, **NETS[name], N=N, l2=1e-3, dtype=dtype, **more)
    return p.ob, p.model


@pytest.mark.parametrize("memory", [None, 2_500_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", NETS)
def test_overwritten_state_changes_no_gradient(name, threads, memory, dtype):
    """Gradients whose computation overwrites the stored state are bitwise equal to those of an
    operator, also after `value` and after products at the previous point.
    """
    ob, model = problem(name, dtype, n_threads=threads, memory=memory)
    at, there = model.init(rng=0), model.init(rng=1)
    want = {0: ob.hessian(at), 1: ob.hessian(there)}
    fresh = ob.value_and_gradient(at)
    panels = ob._plan.layout["chunk"] / ob._plan.layout["panel"]
    assert panels > (1 if memory else 3)
    assert fresh[0] == want[0].value and np.array_equal(fresh[1], want[0].gradient)
    assert np.array_equal(ob.gradient(at), fresh[1]) and ob.value(at) == fresh[0]
    ob.value(there)  # a forward pass whose state is kept
    assert np.array_equal(ob.gradient(there), want[1].gradient)
    v = model.init(rng=2)
    for _ in range(2):  # first with newly allocated state, then with state that products have kept
        ob.gradient(at)
        assert np.array_equal(ob.hessp(at, v), want[0] @ v)
        assert np.array_equal(ob.hessp(at, v), want[0] @ v)
        assert np.array_equal(ob.gradient(there), want[1].gradient)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("N", [49, 255, 515])
def test_results_are_right_whichever_thread_runs_a_short_last_panel(N, name, threads):
    """If the last panel is shorter than the others, gradients are bitwise those of an operator,
    whichever thread runs that panel.
    """
    ob, model = problem(name, "float64", N, n_threads=threads)
    at = [model.init(rng=seed) for seed in range(2)]
    want = [ob.hessian(theta).gradient for theta in at]
    for turn in range(20):
        assert np.array_equal(ob.gradient(at[turn % 2]), want[turn % 2])


def test_large_gradient_is_not_kept():
    """A large gradient computed twice at one theta, and then by an operator, is bitwise identical,
    although neither it nor its state is kept.
    """
    p = nets.draw(0, [700, 200, 4], loss="cross_entropy", N=2000)
    first = p.ob.gradient(p.theta)
    assert np.array_equal(p.ob.gradient(p.theta), first)
    assert np.array_equal(p.ob.hessian(p.theta).gradient, first)


@pytest.mark.parametrize("N", [48, 100, 200, 255])
def test_few_rows_are_shared_by_two_threads(N, dtype):
    """For two threads, 48 to 255 samples are split into two panels of equal length, except with the
    plain loops.
    """
    model = fc.MLP([32, 64, 64, 16], dtype=dtype)
    ob = fc.Objective(model, np.ones((N, 32)), np.zeros(N, int), n_threads=2)
    ob.value(model.init(rng=0))
    layout = ob._plan.layout
    if layout["arch"] != "reference":
        assert layout["threads"] == 2 and layout["panel"] == (N + 1) // 2


@pytest.mark.parametrize("sizes", [(5, 4, 2), (150, 300, 300, 10), (300, 400, 400, 10)])
def test_returned_gradients_stay_valid(sizes):
    """Gradients returned earlier do not change in later calls, and overwriting one changes neither
    later results nor those of operators.
    """
    p = nets.draw(0, sizes, loss="cross_entropy", N=60)
    model, ob = p.model, p.ob
    at = [model.init(rng=seed) for seed in range(3)]
    operators = [ob.hessian(theta) for theta in at]
    want = [H.gradient.copy() for H in operators]
    found = [ob.gradient(at[turn % 3]) for turn in range(6)]
    for turn, g in enumerate(found):
        assert np.array_equal(g, want[turn % 3])
        g[:] = np.nan
        assert np.array_equal(ob.gradient(at[2]), want[2])
    piece = ob.gradient(at[0])[-9:]  # a view, which has the only reference to the whole array
    assert np.array_equal(ob.gradient(at[1]), want[1]) and np.array_equal(piece, want[0][-9:])
    assert all(np.array_equal(H.gradient, g) for H, g in zip(operators, want))
    del operators  # returns their plan to the pool
    kept, H = ob.hessian(at[0]).gradient, ob.hessian(at[1])
    assert np.array_equal(kept, want[0]) and np.array_equal(H.gradient, want[1])
