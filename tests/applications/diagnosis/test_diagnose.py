"""`diagnose` names the cause of runs with known defects, with numbers that match independent
computations.
"""

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv.applications.diagnosis.diagnose import CAUSES
from fastcurv.applications.diagnosis.facts import (
    constant_loss,
    finite_point,
    run_facts_from_history,
)


def wave(rng, sizes=(2, 12, 1), scale=1.0, dtype="float64", activation="tanh", **options):
    """Return an objective whose targets are sin(2 x) of the first feature x, with a little noise,
    and whose features are multiplied by `scale`.
    """
    X = rng.uniform(-1.7, 1.7, (120, sizes[0]))
    y = np.sin(2 * X[:, 0]) + 0.05 * rng.standard_normal(120)
    y = options.pop("y_scale", 1.0) * y
    model = fc.MLP(list(sizes), activation, dtype=dtype)
    return fc.Objective(model, X * scale, y, "mse", **options)


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def parameters(ob, factor=1.0, **changes):
    """Return `factor` times the start of the network, after ``changes[part](values)``, where the
    parts are ``weights`` and ``biases`` of the first layer and ``outgoing`` weights.
    """
    theta = factor * ob.model.init(rng=0)
    (W, b), (V, *_) = ob.model.unflatten(theta)[:2]
    for name, part in (("weights", W), ("biases", b), ("outgoing", V)):
        if name in changes:
            part[:] = changes[name](part)
    return theta


def saddle_of(ob):
    """Return a saddle of the objective."""
    searches = (fc.find_critical_point(ob, ob.model.init(rng=s), index=1) for s in range(30))
    return next(found.x for found in searches if found.success)


def broken(rng):
    """Yield (cause, ob, theta, history, number) of runs that are broken on purpose. `number` is the
    number in the sentence of the cause, or (lower, upper) bounds on it.
    """
    ob = wave(rng)
    start = parameters(ob)
    top = np.abs(np.linalg.eigvalsh(ob.hessian(start).to_dense())).max()
    column, every, targets, decayed = (
        wave(rng, **options)
        for options in ({"scale": [1, 500]}, {"scale": 100}, {"y_scale": 50.0}, {"l2": 10.0})
    )
    first, second = (rms(x) for x in column.X.T)
    yield "one feature on a different scale", column, start, None, second / first
    yield "inputs unscaled", every, start, None, rms(every.X)
    yield "targets unscaled", targets, start, None, rms(targets.y)
    yield "l2 too large", decayed, start, None, 10
    large = "learning rate too large"
    yield large, ob, np.full(ob.n_params, np.nan), None, 2 / top
    adam = {"loss": [1.0, 3.0, 2.0], "method": "adam", "learning_rate": 5.0}
    yield large, ob, start, adam, 5 / np.median([np.sqrt(2 / 14), np.sqrt(2 / 13)])
    rough = {"loss": [1.0, 3.0, 2.0, 4.0], "method": "sgd", "learning_rate": 100.0}
    yield large, ob, start, rough, 100 * top / 2
    deep = wave(rng, (2, *[8] * 14, 1), activation="sigmoid")
    at = deep.model.init(rng=0)
    layers = deep.model.unflatten(deep.gradient(at))
    ends = [rms(np.concatenate([part.ravel() for part in layers[i]])) for i in (-1, 0)]
    yield "vanishing gradient with depth", deep, at, None, ends[0] / ends[1]
    copied = parameters(ob, weights=lambda W: W[0], outgoing=lambda V: 0.3)
    yield "saddle or copied units", ob, copied, None, (90, 100)
    small = wave(rng, (2, 5, 1), l2=1e-2)
    at = saddle_of(small)
    lowest = np.linalg.eigvalsh(small.hessian(at).to_dense())[0]
    yield "saddle or copied units", small, at, None, lowest
    sizes = [rms(W) / np.sqrt(2 / sum(W.shape)) for W, _ in ob.model.unflatten(start)]
    usual = np.sqrt(np.prod(sizes))
    yield "initial weights too small", ob, 0.01 * start, None, 100 / usual
    yield "initial weights too large", ob, 20 * start, None, 20 * usual
    pressed, dead = (wave(rng, activation=phi) for phi in ("sigmoid", "relu"))
    yield "saturated units", pressed, parameters(pressed, biases=lambda b: 25.0), None, 100
    inactive = np.repeat([-50.0, 0.0], [9, 3])
    yield "dead relus", dead, parameters(dead, biases=lambda b: inactive), None, (75, 92)
    slow = {"loss": [1.0, 0.99], "method": "sgd", "learning_rate": 1e-6}
    yield "learning rate too small", ob, start, slow, 1e6 / top


@pytest.mark.parametrize("seed", range(3))
def test_the_first_cause_is_the_defect_and_its_number_is_right(seed):
    unseen = {cause.sentence for cause in CAUSES}
    for name, ob, theta, history, number in broken(np.random.default_rng(seed)):
        found = fc.diagnose(ob, theta, history)
        assert found.causes, (name, found)
        first = found.causes[0]
        low, high = number if isinstance(number, tuple) else (number, number)
        slack = 1e-6 * abs(low) if low == high else 0.0
        assert first.name == name, (first, name)
        assert low - slack <= first.value <= high + slack, (first, number)
        assert first.cure in found.sentence and "nan" not in repr(found) and not found.healthy
        json.dumps(found.to_dict(), allow_nan=False)
        facts = found.facts
        rows = (cause for cause in CAUSES if cause.name == name and cause.evidence(facts))
        unseen.discard(next(rows).sentence)
    assert not unseen


@pytest.mark.parametrize("method", ["l-bfgs", "trust-region", "adam"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_no_cause_is_named_for_runs_that_fit(method, activation, rng):
    rate = {"learning_rate": 0.03} if method == "adam" else {}
    ob = wave(rng, activation=activation, l2=1e-5)
    run = fc.minimize(ob, method=method, max_iter=1000, verdict=False, rng=0, **rate)
    assert ob.value(run.x) < 0.2 * constant_loss(ob)
    found = fc.diagnose(ob, run.x, run)
    assert found.healthy and "No cause of failure was found" in repr(found)
    noisy = fc.Objective(ob.model, ob.X, ob.y + rng.standard_normal((120, 1)), "mse", l2=1e-2)
    run = fc.minimize(noisy, rng=0)
    assert run.fun > 0.2 * constant_loss(noisy)
    assert fc.diagnose(noisy, run.x, run).healthy


@pytest.mark.by_day(one_of="dtype")
def test_diagnose_supports_both_precisions_sparse_rows_and_batch_normalisation(rng, dtype):
    far = wave(rng, scale=[1, 1000], dtype=dtype)
    sparse = fc.Objective(far.model, csr_matrix(far.X), far.y, "mse")
    weighted = far.reweighted(np.arange(120.0) % 2)
    normed = fc.Objective(fc.MLP([2, 6, 6, 1], batch_norm=True, dtype=dtype), far.X, far.y, "mse")
    for one in (far, sparse, weighted, normed):
        first = fc.diagnose(one, one.model.init(rng=0)).causes[0]
        assert first.name == "one feature on a different scale" and 500 < first.value < 2000


def test_facts_of_layers_equal_their_definitions(rng):
    ob = wave(rng, l2=1e-2)
    theta = ob.model.init(rng=0)
    (W, b), (u, _) = ob.model.unflatten(theta)
    W[5], b[5], u[:, 5] = W[2], b[2], u[:, 2]
    b[7] = 40.0
    facts = fc.diagnose(ob, theta).facts
    assert abs(facts.constant_loss - ob.y.var()) <= 1e-12
    assert abs(facts.decay_penalty - 1e-2 * theta @ theta) <= 1e-12 * facts.decay_penalty
    assert abs(facts.data_loss - ob.with_l2(0.0).value(theta)) <= 1e-12
    hidden, out = facts.layers
    slopes = 1 - np.tanh(ob.X @ W.T + b) ** 2
    assert hidden.saturated == np.mean(slopes <= 0.01) and hidden.dead == out.saturated == 0
    assert abs(hidden.copies - 1 / 12) <= 1e-15 and abs(hidden.biases - rms(b)) <= 1e-12
    parts = ob.model.unflatten(ob.gradient(theta))
    wanted = [rms(np.concatenate([p.ravel() for p in layer])) for layer in parts]
    assert np.allclose([hidden.gradient, out.gradient], wanted, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_the_best_constant_is_the_entropy_of_the_mean_class(weighted, rng):
    N, m = 60, 3
    weight = rng.uniform(0, 2, N) * (rng.uniform(size=N) > 0.2) if weighted else None
    labels, X = rng.integers(m, size=N), rng.standard_normal((N, 2))
    for y in (labels, rng.dirichlet(np.ones(m), N)):
        ob = fc.Objective(fc.MLP([2, 3, m]), X, y, "cross_entropy", l2=0.1, sample_weight=weight)
        p = np.average(np.eye(m)[y] if y.ndim == 1 else y, axis=0, weights=weight)
        assert constant_loss(ob) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)


def test_histories_of_runs_mappings_and_lists_are_read_alike(rng):
    ob = wave(rng)
    options = {"learning_rate": 0.02, "momentum": 0.8, "batch_size": 32, "max_iter": 3}
    run = fc.minimize(ob, method="nesterov", **options, verdict=False, rng=0)
    for history in (run, run.history):
        steps = run_facts_from_history(history)
        assert (steps.method, steps.rate, steps.momentum) == ("nesterov", 0.02, 0.8)
        assert np.array_equal(steps.losses, run.history["loss"])
    losses = run.history["loss"]
    for history in ({"loss": losses}, list(losses)):
        assert np.array_equal(run_facts_from_history(history).losses, losses)


def test_invalid_arguments_raise(rng):
    ob = wave(rng)
    theta = ob.model.init(rng=0)
    stream = fc.StreamedObjective(ob.model, ob.X, ob.y, loss="mse")
    far = fc.Objective(ob.model, ob.X, np.full(120, 1e300), "mse")
    for given, error, words in (
        ((fc.testing.QuadraticObjective(np.eye(2)), np.zeros(2)), TypeError, "fastcurv.Objective"),
        ((stream, theta), TypeError, "rows in memory"),
        ((ob, np.zeros(3)), ValueError, "theta must have"),
        ((ob, theta, {"time": [1.0]}), ValueError, "history must hold losses"),
        ((ob, theta, {"loss": ["no"]}), TypeError, "loss of the history must hold numbers"),
        ((ob, theta, "no"), TypeError, "loss of the history must hold numbers"),
        ((far, theta), ValueError, "ob must have a finite loss at theta or at theta = 0"),
    ):
        with np.errstate(all="ignore"), pytest.raises(error, match=words):
            fc.diagnose(*given)
    assert np.array_equal(finite_point(ob, np.full_like(theta, np.nan)), theta)


def test_diagnose_modifies_nothing_and_is_repeatable(rng):
    ob = wave(rng)
    theta = ob.model.init(rng=0)
    before, X = theta.copy(), ob.X.copy()
    first, again = (fc.diagnose(ob, theta, [1.0, 0.9, 0.8]).to_dict() for _ in range(2))
    assert np.array_equal(theta, before) and np.array_equal(X, ob.X)
    for found in (first, again):
        del found["verdict"]["wall_time"]
    assert first == again
