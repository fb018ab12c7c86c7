"""Work that verdicts share: products with a Krylov run, symmetries at large n, and the state at
theta for matrix, bounds, kinks and symmetries.
"""

import contextlib
import copy
from collections import Counter

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.certify import majorants, passes, precise
from fastcurv.critical.classify import classify
from fastcurv.testing import PrescribedSpectrum, QuadraticObjective, compiled
from fastcurv.testing.reference import ReferenceModel, ReferenceObjective

pytestmark = pytest.mark.by_day(share=1 / 3)


def soft_target_network(rng, n_units=8):
    """Return (objective, theta) at a minimum of a network's cross entropy, whose soft targets are
    the outputs at theta.
    """
    model = fc.MLP([10, n_units, 10], activation="tanh")
    X, theta = rng.standard_normal((300, 10)), 1.5 * model.init(seed=0)
    logits = model.predict(theta, X)
    y = np.exp(logits - logits.max(axis=1, keepdims=True))
    return fc.Objective(model, X, y / y.sum(axis=1, keepdims=True), loss="cross_entropy"), theta


def test_the_shift_of_logits_is_counted_and_deflated(rng):
    ob, theta = soft_target_network(rng)
    report = classify(ob, theta, dense_below=0, failure_probability=0.01)
    dense = classify(ob, theta)
    assert dense.kind == report.kind == "minimum" and dense.n_symmetry == report.n_symmetry == 9
    weakest = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[9]
    assert report._numbers["ritz_low"] == pytest.approx(weakest, rel=1e-3)
    for one in (dense, report):  # the least eigenvalue of H is a zero by symmetry
        low, high = one.lambda_min_bounds
        assert low <= 0 <= high and abs(one.lambda_min) <= 1e-12 * one.lambda_max
    assert 0 <= report.failure_probability <= 0.01


@pytest.mark.parametrize("known", [0, 30, 400])
def test_the_verdict_shares_the_products_of_a_krylov_run(known):
    """A verdict reuses the products of a Krylov run and adds its own products to the run, and the
    counts of both are exact.
    """
    values = np.linspace(0.01, 1, 2000)
    H = PrescribedSpectrum(values, seed=0)
    ob, run = QuadraticObjective(H), fc.spectrum.Krylov(H, "one run", seed=3)
    if known:
        run.extend(known)
    before = H.n_products
    report = classify(ob, np.zeros(2000), dense_below=0, failure_probability=0.01, krylov=run)
    assert before == known and report.kind == "minimum"
    gradient = 2  # products for the gradient and the value of this objective, which are not counted
    assert report.n_new_products == H.n_products - before - gradient
    assert report.n_products == known + report.n_new_products
    assert report.krylov_name == "one run"
    alone = classify(ob, np.zeros(2000), dense_below=0, failure_probability=0.01)
    check = int(known > 0)  # product that compares the run with the Hessian
    assert alone.n_products == report.n_products - check
    assert alone.n_new_products is None and alone.krylov_name is None
    spent = H.n_products
    assert (
        run.eigsh(2, "LA", tol=1e-4).n_new_products == 0
        and run.spectral_density(1).n_new_products == 0
    )
    assert H.n_products == spent
    again = classify(ob, np.zeros(2000), dense_below=0, failure_probability=0.01, krylov=run)
    assert again.kind == "minimum" and again.n_new_products <= 15
    assert again.n_products <= report.n_products + 15


def test_a_saddle_found_by_a_run_costs_few_products(rng):
    ob = compiled(
        ReferenceObjective(
            ReferenceModel([40, 12, 3], "tanh", bias=False),
            rng.standard_normal((30, 40)),
            rng.standard_normal((30, 3)),
        )
    )
    theta = np.zeros(ob.n_params)
    H = ob.hessian(theta)
    run = fc.spectrum.Krylov(H, seed=0)
    assert run.eigsh(6, "BE", tol=1e-6).converged.all()
    held = run.n_products
    report = classify(ob, theta, dense_below=0, krylov=run)
    assert report.kind == "saddle" and report.certified and report.krylov_name == "krylov"
    assert run.n_products == held == report.n_products - report.n_new_products
    assert 0 < H.n_products - held <= report.n_new_products, (
        "curvature at other points is counted in n_new_products as well"
    )


def test_a_run_and_the_verdict_share_the_space_of_the_gradient(rng):
    ob, theta = soft_target_network(rng)
    theta = theta + 0.1 * rng.standard_normal(theta.size)
    H = ob.hessian(theta)
    run = fc.spectrum.Krylov(H, seed=0)
    run.extend_from(H.gradient, 50)
    before = H.n_products
    report = classify(ob, theta, dense_below=0, krylov=run)
    alone = classify(ob, theta, dense_below=0)
    assert (
        report.kind == "not_critical" == alone.kind
        and report.n_products - report.n_new_products == 50
    )
    assert H.n_products - before <= report.n_new_products, "and curvature on Newton's way"
    assert report.n_new_products <= alone.n_products - 40


def test_little_memory_increases_the_risk_of_a_missed_eigenvalue():
    H = PrescribedSpectrum(np.linspace(0.01, 1, 2000), seed=0)
    run = fc.spectrum.Krylov(H, seed=0, max_bytes=100 * 2000 * 8)
    report = classify(
        QuadraticObjective(H), np.zeros(2000), dense_below=0, failure_probability=0.01, krylov=run
    )
    assert report.kind == "undecided" and report._numbers["risk"] >= 1
    assert report._numbers["n_steps_needed"] == 446 and report.advice == "risk_steps"


def test_a_run_at_another_theta_raises(rng):
    ob, theta = soft_target_network(rng)
    with pytest.raises(ValueError, match="a different theta"):
        classify(ob, theta, krylov=fc.spectrum.Krylov(ob.hessian(0.5 * theta)))


def saddle_of_two_units(rng, **given):
    """Return (objective, theta) for a small network with l2 and theta = 0, where it has a
    saddle.
    """
    X, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    ob = fc.Objective(fc.MLP([3, 2, 1], "tanh", bias=False), X, y, "mse", **given)
    return ob, np.zeros(ob.n_params)


def test_classify_rejects_a_krylov_run_on_another_operator(rng):
    """Krylov runs on operators other than the Hessian at theta are rejected, also if such an
    operator is positive definite where the Hessian is not.
    """
    ob, theta = saddle_of_two_units(rng, l2=1e-3)
    X, y, n = ob.X, ob.y, ob.n_params
    H, ones = ob.hessian(theta), np.ones(len(X))
    A = H.to_dense()

    def other(rows=slice(None), weight=None, loss="mse", **given):
        made = fc.Objective(ob.model, X[rows], y[rows], loss, sample_weight=weight, **given)
        return made.hessian(theta)

    class Own(LinearOperator):
        def __init__(self):
            super().__init__(float, (n, n))

        def _matvec(self, v):
            return v

    operators = {
        "the GGN": ob.ggn(theta),
        "the Fisher": ob.empirical_fisher(theta),
        "a shifted Hessian": H.shift(5.0),
        "one shifted by little": H.shift(1e-9),
        "one restricted to all parameters in another order": H.restrict(indices=np.arange(n)[::-1]),
        "other l2": other(l2=5.0),
        "hardly other l2": other(l2=1e-3 * (1 + 1e-6)),
        "no l2": other(),
        "other weights": other(weight=1 + 1e-6 * ones, l2=1e-3),
        "fewer rows": other(slice(1, None), l2=1e-3),
        "rows in another precision": other(l2=1e-3).astype(np.float32),
        "another loss": other(loss="pseudo_huber", l2=1e-3),
        "a user's operator": Own(),
        "a matrix": A + 5 * np.eye(n),
        "a matrix that differs in one entry": A + np.diag(1e-8 * (np.arange(n) == 2)),
    }
    for name, op in operators.items():
        for steps in (0, 3):
            run = fc.spectrum.Krylov(op, seed=0)
            run = run.extend(steps) if steps else run
            for dense_below in (0, 4096):
                with pytest.raises(ValueError, match=r"must belong to ob.hessian\(theta\)"):
                    point = classify(ob, theta, dense_below=dense_below, krylov=run)
                    pytest.fail(f"{name}: {point.kind}")
    mine = {"itself": H, "a second": ob.hessian(theta), "a matrix": A, "a copy": copy.deepcopy(H)}
    for name, op in mine.items():
        point = classify(ob, theta, krylov=fc.spectrum.Krylov(op, seed=0).extend(3))
        assert point.kind == "saddle" and point.certified, name


def test_a_run_made_before_its_operator_changed_raises(rng):
    A = np.diag(np.linspace(-1, 1, 40))
    ob = QuadraticObjective(A)
    run = fc.spectrum.Krylov(ob.hessian(np.zeros(40)), seed=0).extend(6)
    assert classify(ob, np.zeros(40), krylov=run).kind == "saddle"
    run._runs.by_start[0][1].T[2, 2] += 0.1  # as if the operator had been another one
    with pytest.raises(ValueError, match=r"must belong to ob.hessian\(theta\)"):
        classify(ob, np.zeros(40), krylov=run)


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
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=80).x
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


def test_a_run_starts_from_a_given_direction():
    run = fc.spectrum.Krylov(np.diag(np.arange(1.0, 8.0)), seed=0)
    for g in (np.ones(3), np.zeros(7), np.full(7, np.nan)):
        with pytest.raises(ValueError, match="^g "):
            run.extend_from(g, 3)
    for g in (None, "a", 1j * np.ones(7)):
        with pytest.raises(TypeError, match="^g "):
            run.extend_from(g, 3)
    for i in (-1, np.inf):
        with pytest.raises(ValueError, match="^i must be"):
            run.probe(i)
