"""Data that a plan copies: theta, while its matrices are packed, and samples that replace those of
the plan.
"""

import itertools

import numpy as np
import pytest

from fastcurv import _engine

from .. import nets
from ..plans import LAYOUTS, laid_out
from ..programs import NET

pytestmark = pytest.mark.by_day(one_of="dtype")

NETS = [  # sizes, rows, options of the model
    ([3, 5, 2], 4, {"bias": False}),
    ([40, 70, 33, 5], 50, {}),
    ([300, 130, 257, 3], 90, {}),
    ([4500, 35, 3], 10, {}),
    ([6, 20, 20, 4], 30, {"batch_norm": True}),
]


def test_binding_with_a_copy_equals_binding_in_place(arch, dtype):
    """`bind_copy` is bitwise identical to binding in place. If theta has a non-finite number at any
    position or an unsuitable form, the method returns False and leaves the plan unbound.
    """
    for layout, net in itertools.product(LAYOUTS, range(len(NETS))):
        sizes, rows, options = NETS[net]
        with laid_out(*LAYOUTS[layout]):
            p = nets.draw(0, sizes, N=rows, dtype=dtype, n_threads=2, **options)
            theta, plan, there = p.theta, p.ob._new_plan(), p.ob._new_plan()
        there.bind(theta)
        own = np.full_like(theta, 7)
        assert plan.bind_copy(theta, own)
        assert np.array_equal(own, theta) and plan.value == there.value
        assert np.array_equal(plan.gradient, there.gradient)
        rng = np.random.default_rng(2)
        for place in (0, len(theta) - 1, *rng.integers(len(theta), size=12)):
            odd = theta.copy()
            odd[place] = (np.nan, np.inf, -np.inf)[place % 3]
            assert not plan.bind_copy(odd, own) and plan.theta is None
        for foreign in (theta.tolist(), theta[::-1], theta[:-1], theta.astype("float16")):
            assert not plan.bind_copy(foreign, own) and plan.theta is None
        assert plan.bind_copy(theta, own) and np.array_equal(plan.gradient, there.gradient)


# The plain loops have no stores that bypass the caches.
@pytest.mark.parametrize("arch", nets.kernel_tables(without="reference"), indirect=True)
def test_large_matrices_are_bound_right_for_any_number_of_threads(arch, dtype):
    """Matrices that exceed every cache, which `bind_copy` writes past the caches, give the results
    of matrices that are read in place, for any number of threads.
    """
    sizes = [1025, 3100, 7] if dtype == "float32" else [700, 2300, 9]
    results = []
    for n_threads, layout in ((1, (0, 0)), (2, (0, 0)), (2, (0, 64))):
        with laid_out(*layout):
            p = nets.draw(0, sizes, N=20, dtype=dtype, n_threads=n_threads)
            plan = p.ob._new_plan()
        own, product = np.empty_like(p.theta), np.empty_like(p.theta)
        assert plan.bind_copy(p.theta, own) and np.array_equal(own, p.theta)
        plan.multiply(p.theta, product)
        results.append(np.concatenate([plan.gradient, product]))
    assert np.array_equal(results[0], results[1])
    gap = np.linalg.norm(results[1] - results[2])
    assert gap <= (1e-5 if dtype == "float32" else 1e-13) * np.linalg.norm(results[1])
    odd = p.theta.copy()
    odd[len(odd) // 2] = np.nan
    assert not plan.bind_copy(odd, own)


# --- other rows


def rows_of(p):
    """Return (X, targets, labels, weights) of a cross-entropy network as `_engine.Rows` accepts
    them. Either targets or labels are None.
    """
    labels = p.y.astype(np.int32) if p.y.ndim == 1 else None
    return p.X, None if labels is not None else p.y, labels, p.weight


def plan_of(p):
    model, rows = p.model, _engine.Rows(*rows_of(p))
    return _engine.Plan(
        model.sizes, model.activation, model.skips, True, rows, "cross_entropy", 50.0, 0.0, 2
    )


def draw_network(rng, sizes, **options):
    return nets.draw(rng, sizes, loss="cross_entropy", weights=True, **{"N": 50, **options})


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("sizes", [[3, 5, 3], [40, 90, 70, 3]])  # transposed and layer-parallel
def test_plan_with_replaced_rows_equals_a_new_plan(rng, sizes, soft):
    """A plan with replaced samples gives the results of a plan created for those samples."""
    first, second = (draw_network(rng, sizes, soft=soft) for _ in range(2))
    theta, v = first.theta, first.direction(rng)
    reused, fresh, out = plan_of(first), plan_of(second), np.empty((2, first.n))
    reused.bind(theta)
    reused.multiply(v, out[0])
    X, *rest = rows_of(second)
    for other in (X, np.asfortranarray(X)):
        reused.replace_rows(other, *rest)
        assert reused.theta is None
        for plan, to in zip((reused, fresh), out):
            plan.bind(theta)
            plan.multiply(v, to)
        assert np.array_equal(*out) and np.array_equal(reused.gradient, fresh.gradient)
        assert reused.value == fresh.value


def test_replacing_rows_rejects_other_shapes(rng):
    p = draw_network(rng, [3, 5, 3])
    X, _, y, w = rows_of(p)
    for bad in ((X[1:], None, y[1:], w[1:]), (X, None, y, None), (X, y, None, w)):
        with pytest.raises(ValueError, match="must be .*, as in the rows that it replaces"):
            plan_of(p).replace_rows(*bad)


def test_interrupted_copy_is_repeated(python):
    """Ctrl-C during the copy of samples frees the copy, and the next samples are copied
    completely.
    """
    python(
        NET
        + """
def ended(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, ended)
model = fc.MLP([304, 64, 16])
theta = model.init(rng=0)
for N in (5_000, 20_000, 80_000, 320_000):  # until a copy takes longer than a signal's arrival
    X, y = np.ones((304, N)).T, np.zeros((N, 16))
    rows = engine.Rows(X, y, None, None)
    shape = model.sizes, model.activation, model.skips, True
    plan = engine.Plan(*shape, rows, "mse", float(N), 0.0, 1)
    plan.bind(theta)
    value = plan.value
    amid = True
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        plan.replace_rows(X, y, None, None)
        amid = False
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        pass
    for _ in range(2):
        plan.replace_rows(X, y, None, None)
        plan.bind(theta)
        assert plan.value == value
    if amid:
        break
"""
    )


@pytest.mark.parametrize("width", [3, 40, 129])
def test_copy_reports_whether_rows_are_finite(rng, width, dtype):
    """`replace_rows` returns True if it copied the samples and all their squares are finite. NaN
    and infinity are always found, and numbers whose squares overflow count as not finite unless
    squares are summed in double precision.
    """
    N, sizes = 3000, [width, 400 if width > 100 else 60, 400 if width > 100 else 50, 3]
    p = draw_network(rng, sizes, N=N, dtype=dtype)
    plan, (X, *rest) = plan_of(p), rows_of(p)
    plan.bind(p.theta)
    copied = plan.replace_rows(X, *rest)
    for at in ((0, 0), (N // 2, width - 1), (N - 1, 1)):
        for bad in (np.nan, np.inf, -np.inf, 0.9 * np.finfo(dtype).max):
            other = X.copy()
            other[at] = bad
            # the squares are summed in double
            summed = plan.layout["arch"] == "reference" and dtype == "float32"
            assert plan.replace_rows(other, *rest) is bool(copied and summed and np.isfinite(bad))
            assert plan.replace_rows(X, *rest) is copied
    assert copied or plan.layout["panel"]  # X is then read in place
