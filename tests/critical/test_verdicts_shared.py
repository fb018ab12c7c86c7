"""Work that verdicts share: products with a Krylov run, symmetries at large n, and the state at
theta for matrix, bounds, kinks and symmetries.
"""

import contextlib
from collections import Counter

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import majorants, passes, precise
from fastcurv.critical.classify import classify

pytestmark = pytest.mark.by_day(share=1 / 3)


def soft_target_network(rng, n_units=8):
    """Return (objective, theta) at a minimum of a network's cross entropy, whose soft targets are
    the outputs at theta.
    """
    model = fc.MLP([10, n_units, 10], activation="tanh")
    X, theta = rng.standard_normal((300, 10)), 1.5 * model.init(rng=0)
    logits = model.predict(theta, X)
    y = np.exp(logits - logits.max(axis=1, keepdims=True))
    return fc.Objective(model, X, y / y.sum(axis=1, keepdims=True), loss="cross_entropy"), theta


def test_the_shift_of_logits_is_counted_and_deflated(rng):
    ob, theta = soft_target_network(rng)
    report = classify(ob, theta, dense_below=0, failure_probability=0.01)
    dense = classify(ob, theta)
    assert (
        dense.kind == report.kind == "minimum"
        and dense.evidence.n_symmetry == report.evidence.n_symmetry == 9
    )
    weakest = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[9]
    assert report._numbers["ritz_low"] == pytest.approx(weakest, rel=1e-3)
    for one in (dense, report):  # the least eigenvalue of H is a zero by symmetry
        low, high = one.evidence.lambda_min_bounds
        assert low <= 0 <= high and abs(one.lambda_min) <= 1e-12 * one.lambda_max
    assert 0 <= report.failure_probability <= 0.01


@pytest.mark.parametrize("dense_below", [0, 4096])
def test_progress_counts_every_product(dense_below, rng, monkeypatch):
    seen = []

    class Bar:
        def update(self, n=1):
            seen.append(n)

        def note(self, text):
            seen.append(0)

    monkeypatch.setattr(
        "fastcurv.critical.classify.show_bar",
        lambda total, what, shown, ahead: contextlib.nullcontext(Bar() if shown else None),
    )
    ob, theta = soft_target_network(rng)
    report = classify(ob, theta, dense_below=dense_below, failure_probability=0.01, progress=True)
    assert sum(seen) <= report.n_products <= sum(seen) + 20 and seen.count(0) >= 2


@pytest.fixture
def counted(monkeypatch):
    """Return a counter of the states, passes of the majorants, precise gradients, operators and
    values that are computed during the test.
    """
    counts = Counter()

    def count(owner, name):
        made = getattr(owner, name)

        def call(*args, **options):
            counts[owner.__name__.rpartition(".")[2], name] += 1
            return made(*args, **options)

        monkeypatch.setattr(owner, name, call)

    count(passes.State, "__init__")
    count(majorants, "propagate_majorants")
    count(precise.PrecisePasses, "__init__")
    for name in ("hessian", "value", "gradient"):
        count(fc.Objective, name)
    return counts


@pytest.mark.parametrize("sizes", [(4, 6, 3), (12, 20, 12, 3)])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_certified_verdict_computes_one_state(sizes, activation, counted, rng):
    X, y = rng.standard_normal((60, sizes[0])), rng.integers(3, size=60)
    ob = fc.Objective(fc.MLP(list(sizes), activation), X, y, "cross_entropy", l2=1e-2)
    theta = fc.minimize(ob, ob.model.init(rng=0), "newton-cg", max_iter=80).x
    again = fc.Objective(ob.model, X, y, "cross_entropy", l2=1e-2)
    counted.clear()
    said = fc.classify(again, theta)
    assert said.kind == "minimum" and said.certified
    assert counted == {
        ("State", "__init__"): 1,
        ("majorants", "propagate_majorants"): 1,
        ("PrecisePasses", "__init__"): 1,
        ("Objective", "hessian"): 1,
        # A larger network is first tested by products alone for being far from a critical point,
        # which computes one more value.
        ("Objective", "value"): 1 + (again.n_params > 256),
    }
