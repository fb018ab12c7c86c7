"""Batch normalisation: chunks of rows, threads, batches, interrupts."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.reference import ReferenceModel, ReferenceObjective

from .product_cases import answers, normed


def test_threads_change_no_bit(arch, dtype):
    results = []
    for threads in (1, 2, 5):
        p = normed(
            [32, 48, 48, 10],
            "tanh",
            "cross_entropy",
            1000,
            residual=True,
            l2=1e-3,
            dtype=dtype,
            n_threads=threads,
        )
        assert p.ob.hessian(p.theta).layout["threads"] == threads
        results.append(answers(p))
    for other in results[1:]:
        for name, got in other.items():
            assert np.array_equal(got, results[0][name]), name


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_memory_makes_chunks_and_gathers_in_turns(arch, activation):
    """Down to one row at a time the results are those of the whole, and the state stays within its
    bound.
    """
    options = {
        "activation": activation,
        "loss": "cross_entropy",
        "N": 75,
        "residual": True,
        "weights": True,
        "l2": 0.01,
    }
    whole = normed([5, 9, 9, 3], **options)
    wanted, seen = answers(whole), set()
    least = smallest(whole)
    for memory in (least, least + 20_000, least + 60_000):
        p = normed([5, 9, 9, 3], memory=memory, **options)
        H = p.ob.hessian(p.theta)
        assert H.nbytes <= memory
        seen.add(H.layout["chunk"])
        for name, got in answers(p).items():
            assert np.linalg.norm(got - wanted[name]) <= 1e-12 * np.linalg.norm(wanted[name]), (
                name,
                H.layout,
            )
        block, v = H.restrict(layers=[1]), whole.V[:, 0][H.restrict(layers=[1]).indices]
        expected = whole.ob.hessian(whole.theta).restrict(layers=[1]) @ v
        assert np.linalg.norm(block @ v - expected) <= 1e-12 * np.linalg.norm(expected)
        for (mean, variance), (m, s) in zip(
            p.ob.statistics(p.theta), whole.ob.statistics(whole.theta)
        ):
            assert np.allclose(mean, m, rtol=1e-13, atol=1e-14) and np.allclose(
                variance, s, rtol=1e-13, atol=0
            )
    assert 1 in seen and any(1 < chunk < 75 for chunk in seen)


def smallest(p):
    """Bytes below which no state of one row fits, as the error names them."""
    with pytest.raises(ValueError, match="bytes is not enough") as error:
        normed(
            [5, 9, 9, 3], p.model.activation[0], p.ob.loss, 75, residual=True, memory=1
        ).ob.value(p.theta)
    return int(str(error.value).split(": ")[1].split()[0])


def test_value_and_gradient_in_any_order_under_memory():
    """Value first, gradient later, another theta between, a product at the end: the state is never
    mistaken.
    """
    p = normed([5, 9, 9, 3], "silu", N=75)
    small = normed([5, 9, 9, 3], "silu", N=75, memory=smallest(p) + 20_000)
    other = p.theta + 0.1
    assert 1 < small.ob.hessian(p.theta).layout["chunk"] < 75
    for theta in (p.theta, other, p.theta):
        assert np.isclose(small.ob.value(theta), p.ob.value(theta), rtol=1e-13)
        gradient = p.ob.gradient(theta)
        assert np.linalg.norm(small.ob.gradient(theta) - gradient) <= 1e-12 * np.linalg.norm(
            gradient
        )
        for v in p.V.T:
            product = p.ob.hessp(theta, v)
            assert np.linalg.norm(small.ob.hessp(theta, v) - product) <= 1e-12 * np.linalg.norm(
                product
            )


def test_constant_features_and_few_rows():
    """A unit with the same z for all rows has variance 0: h is 0 and s is at its largest.

    One row alone is such a case everywhere.
    """
    X = np.random.default_rng(0).standard_normal((20, 3))
    X[:, 1] = 2.0
    for rows in (20, 2, 1):
        model = fc.MLP([3, 4, 2], batch_norm=True)
        W = np.random.default_rng(1).standard_normal((4, 3))
        W[2] = [0.0, 1.5, 0.0]
        theta = model.flatten(
            [(W, np.ones(4), np.full(4, 1.2), np.full(4, 0.3)), (np.ones((2, 4)), np.zeros(2))]
        )
        ob = fc.Objective(model, X[:rows], X[:rows, :2], loss="mse")
        ref = ReferenceObjective(ReferenceModel([3, 4, 2], batch_norm=True), X[:rows], X[:rows, :2])
        v = np.random.default_rng(2).standard_normal(model.n_params)
        assert np.isclose(ob.value(theta), ref.value(theta), rtol=1e-12)
        H, true = ob.hessian(theta), ref.hessian(theta)
        scale = np.linalg.norm(true @ v)
        assert np.linalg.norm(H.gradient - true.gradient) <= 1e-9 * np.linalg.norm(true.gradient)
        assert np.linalg.norm(H @ v - true @ v) <= 1e-9 * scale
        assert abs(H.quadratic(v) - v @ (true @ v)) <= 1e-9 * scale * np.linalg.norm(v)


def test_sample_weight_does_not_enter_the_statistics():
    p = normed([4, 6, 2], weights=True)
    plain = p.objective(sample_weight=None)
    for (mean, variance), (m, s) in zip(p.ob.statistics(p.theta), plain.statistics(p.theta)):
        assert np.array_equal(mean, m) and np.array_equal(variance, s)


def test_batch_has_statistics_of_its_own():
    p = normed([4, 6, 2], N=40)
    part = p.ob.batch(slice(5, 25))
    alone = fc.Objective(p.model, p.ob.X[5:25], p.ob.y[5:25], loss="mse")
    assert part.value(p.theta) == alone.value(p.theta) != p.ob.value(p.theta)
    assert np.array_equal(part.gradient(p.theta), alone.gradient(p.theta))


def test_an_interrupt_between_chunks_leaves_nothing_half_gathered(python):
    """Alarms all over bind and product, where means are gathered: what is asked next is right to
    the last bit.
    """
    python("""
import signal
import numpy as np
import fastcurv as fc

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

rng = np.random.default_rng(0)
X = rng.standard_normal((3000, 20))
model = fc.MLP([20, 30, 30, 3], batch_norm=True)
make = lambda: fc.Objective(model, X, rng.integers(3, size=3000) * 0, n_threads=1, memory=1_500_000)
theta, v = model.init(seed=0), rng.standard_normal(model.n_params)
ob = make()
assert ob.hessian(theta).layout["chunk"] < 1000
value, gradient, product = ob.value(theta), ob.gradient(theta), ob.hessp(theta, v)
signal.signal(signal.SIGALRM, ring)
ob, seen = make(), 0
for i in range(40):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + 2e-4 * i)
        ob.gradient(theta + i * (i % 2))
        ob.hessp(theta, v)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        seen += 1
    if i % 3 == 0:
        assert np.array_equal(ob.hessp(theta, v), product)
    assert ob.value(theta) == value and np.array_equal(ob.gradient(theta), gradient)
assert seen > 5
assert np.array_equal(ob.hessp(theta, v), product)
""")
