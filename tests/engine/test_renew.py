"""A plan that is given other rows in place of its own is the plan of those rows."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine


def plan_of(model, X, y, w):
    labels = y if y.dtype == np.int32 else None
    rows = _engine.Rows(X, None if labels is not None else y, labels, w)
    return _engine.Plan(
        model.sizes, model.activation, model.skips, True, rows, "cross_entropy", 50.0, 0.0, 2
    )


def draw(rng, model, N, labels):
    X = rng.standard_normal((N, model.sizes[0]))
    y = rng.integers(3, size=N).astype(np.int32) if labels else rng.random((N, 3))
    return X, y, rng.random(N)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("sizes", [[3, 5, 3], [40, 90, 70, 3]])  # across, and wide
def test_other_rows_in_the_same_memory(rng, sizes, labels):
    model = fc.MLP(sizes)
    theta, v = model.init(seed=0), rng.standard_normal(model.n_params)
    first, second = (draw(rng, model, 50, labels) for _ in range(2))
    reused, fresh = plan_of(model, *first), plan_of(model, *second)
    out = np.empty((2, model.n_params))
    reused.bind(theta)
    reused.multiply(v, out[0])
    X, y, w = second
    strided = np.asfortranarray(X)
    for other in (X, strided):
        reused.renew(other, None if labels else y, y if labels else None, w)
        assert reused.theta is None
        for plan, to in zip((reused, fresh), out):
            plan.bind(theta)
            plan.multiply(v, to)
        assert np.array_equal(*out) and np.array_equal(reused.gradient, fresh.gradient)
        assert reused.value == fresh.value


def test_rows_of_another_shape_are_refused(rng):
    model = fc.MLP([3, 5, 3])
    X, y, w = draw(rng, model, 50, True)
    plan = plan_of(model, X, y, w)
    for bad in ((X[1:], None, y[1:], w[1:]), (X, None, y, None), (X, y, None, w)):
        with pytest.raises(ValueError, match="not of the shapes and kinds"):
            plan.renew(*bad)


def test_rows_that_were_not_all_copied_are_copied_again(python):
    """Ctrl-C amid the copy frees it; the next rows were read where it had been, at address 0."""
    python(
        """
import signal
import numpy as np
import fastcurv as fc
from fastcurv import _engine

def ended(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, ended)
model = fc.MLP([304, 64, 16])
theta = model.init(seed=0)
for N in (50_000, 100_000, 200_000, 400_000):  # until a copy takes longer than to hear of signals
    X, y = np.ones((304, N)).T, np.zeros((N, 16))
    rows = _engine.Rows(X, y, None, None)
    shape = model.sizes, model.activation, model.skips, True
    plan = _engine.Plan(*shape, rows, "mse", float(N), 0.0, 1)
    plan.bind(theta)
    value = plan.value
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    amid = True
    try:
        plan.renew(X, y, None, None)
        amid = False
        signal.pause()
    except KeyboardInterrupt:
        pass
    for _ in range(2):
        plan.renew(X, y, None, None)
        plan.bind(theta)
        assert plan.value == value
    if amid:
        break
"""
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [3, 40, 129])
def test_a_copy_shows_whether_rows_are_finite(rng, width, dtype):
    """By squares: what is not finite is always seen, and numbers whose squares overflow are not
    vouched for; nor is anything where no copy was made.
    """
    sizes = [width, 400 if width > 100 else 60, 400 if width > 100 else 50, 3]
    model = fc.MLP(sizes, dtype=dtype)
    N = 3000
    X, y, w = rng.standard_normal((N, width)), rng.integers(3, size=N), np.ones(N)
    X, y, w = X.astype(dtype), y.astype(np.int32), w.astype(dtype)
    plan = plan_of(model, X, y, w)
    plan.bind(model.init(seed=0))
    copied = plan.renew(X, None, y, w)
    for at in ((0, 0), (N // 2, width - 1), (N - 1, 1)):
        for bad in (np.nan, np.inf, -np.inf, 0.9 * np.finfo(dtype).max):
            other = X.copy()
            other[at] = bad
            summed = plan.layout["arch"] == "reference" and dtype == "float32"  # in double
            assert plan.renew(other, None, y, w) is bool(copied and summed and np.isfinite(bad))
            assert plan.renew(X, None, y, w) is copied
    assert copied or plan.layout["panel"]  # then X is read as it lies
