"""Regularisation paths, compared with fits from a random start."""

import json

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.uncertainty.path import (
    active_units,
    with_units_pruned,
    with_units_restarted,
    without_inactive_units,
)


def friedman(rng, N=200):
    X = rng.uniform(size=(N, 5))
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3]
    y += 5 * X[:, 4] + rng.standard_normal(N)
    return (X - 0.5) * 12**0.5, (y - y.mean()) / y.std()


def test_a_path_leaves_saddles_of_units_that_weight_decay_removed():
    """The point without active units, which ends the path at l2 = 2, is a saddle for smaller l2.
    Each point of the path has no negative curvature, and, on these rows, a loss at most 2% above
    that of a fit from a random start.
    """
    X, y = friedman(np.random.default_rng(1042742777))
    ob = fc.Objective(fc.MLP([5, 5, 1]), X, y, loss="mse", l2_biases=False)
    l2s = [2.0, 0.3, 0.03, 3e-3]
    path = fc.regularization_path(ob, l2s[::-1], rng=0)
    assert path.l2s.tolist() == l2s and len(path) == 4
    dead = fc.Objective(ob.model, X, y, "mse", 0.03, l2_biases=False)
    assert np.linalg.norm(dead.gradient(path.thetas[0])) <= 1e-4
    assert np.linalg.eigvalsh(dead.hessian(path.thetas[0]).to_dense())[0] < -0.1
    counts = path.active_units.sum(axis=1)
    assert counts[0] == 0 and counts[-1] == 5
    for i, l2 in enumerate(l2s):
        at, theta = path.at(i)
        assert at.l2 == l2 and at.value(theta) == path.values[i]
        assert np.linalg.eigvalsh(at.hessian(theta).to_dense())[0] >= -1e-6
        cold = fc.minimize(at, ob.model.init(rng=0), rng=0).fun
        assert path.values[i] <= 1.02 * cold
    assert path.kinds[-1] == "minimum"
    found = path.became_active
    assert found[0] == [] and sorted(sum(found, [])) == list(range(5))


def sine(seed, size):
    """Return (X, y): 3 to 39 samples of a noisy sine of the first feature, whose mean absolute
    target is between 0.2 `size` and `size`.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((int(rng.integers(3, 40)), 3))
    y = 10.0 ** rng.integers(-3, 4) * (np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(len(X)))
    assert 0.2 * size < np.abs(y).mean() < size
    return X, y


def test_a_path_restarts_units_whose_free_bias_hides_a_saddle():
    """A path restarts softplus units whose zero weights and unpenalised biases hide a saddle. The
    path ends with several active units and a lower loss than one active unit has, 5.07e-5.
    """
    X, y = sine(20, 0.01)
    ob = fc.Objective(fc.MLP([3, 4, 1], "softplus"), X, y, "mse", l2_biases=False)
    path = fc.regularization_path(ob, [1e-3, 1e-5], rng=2)
    first, last = path.active_units.sum(axis=1)
    assert first == 1 < last and path.values[-1] <= 5e-5


def test_a_path_of_a_network_without_biases_restarts_inactive_units(rng):
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    ob = fc.Objective(fc.MLP([3, 4, 1], "relu", bias=False), X, y, "mse")
    theta = ob.model.init(rng=0)
    theta[:3] = 0
    restarted = with_units_restarted(ob.model, theta, ob.model.init(rng=1))
    assert restarted[:3].all() and np.array_equal(restarted[3:12], theta[3:12])
    assert not with_units_pruned(ob, theta)[12]


def test_a_path_in_float32_is_followed_in_float64():
    """For a float32 network, whose path would end at a saddle because of rounding, every point is a
    minimum in float64.
    """
    X, y = sine(4, 1000.0)
    ob = fc.Objective(fc.MLP([3, 4, 1], "sigmoid", dtype="f4"), X, y, "mse", l2_biases=False)
    path = fc.regularization_path(ob, [10.0, 1.0, 0.1], rng=4)
    assert path.kinds == ("minimum",) * 3 and path.thetas.dtype == np.float64
    last, theta = path.at(2)
    assert last.value(theta) == path.values[2]
    assert np.linalg.eigvalsh(last.hessian(theta).to_dense())[0] > 0


def test_a_path_has_a_table_and_a_plot(rng):
    """A regularisation path has an HTML table, a JSON form and a plot. Invalid l2s, objectives and
    names raise errors that state what is accepted.
    """
    X, y = friedman(rng, 60)
    ob = fc.Objective(fc.MLP([5, 3, 1]), X, y, loss="mse")
    path = fc.regularization_path(ob, np.array([0.1, 1.0]), ob.model.init(rng=1))
    assert "<table>" in path._repr_html_() and path.summary() == repr(path)
    facts = json.loads(json.dumps(path.to_dict(), allow_nan=False))
    assert facts["l2s"] == [1.0, 0.1] and len(facts["thetas"]) == 2
    pytest.importorskip("matplotlib")
    ax = path.plot()
    assert ax.get_xscale() == "log" and ax.lines[0].get_ydata().tolist() == path.values.tolist()
    for bad in ([], [-1.0], 1.0, [[1.0]]):
        with pytest.raises(ValueError, match="l2s must be a list of at least one number >= 0"):
            fc.regularization_path(ob, bad)
    with pytest.raises(TypeError, match="ob must be a fastcurv.Objective"):
        fc.regularization_path(ob.model, [1.0])
    streamed = fc.StreamedObjective(ob.model, lambda: iter([(X, y)]), loss="mse")
    with pytest.raises(ValueError, match="ob must have its rows in memory"):
        fc.regularization_path(streamed, [1.0])
    sub = type("Sub", (fc.Objective,), {})(ob.model, ob.X, ob.y, loss="mse")
    with pytest.raises(ValueError, match="ob must be an Objective itself"):
        fc.regularization_path(sub, [1.0])


def test_inactive_units_are_set_to_zero_and_restarted(rng):
    """Inactive units are set to zero and restarted without a change of other units. A unit whose
    constant output is needed is not set to zero.
    """
    model = fc.MLP([3, 4, 3, 2])
    X, Y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    ob, theta = fc.Objective(model, X, Y, loss="mse", l2=0.1), model.init(rng=0)
    layers = model.unflatten(theta)
    layers[0][0][1] *= 1e-6
    layers[1][0][:, 1] *= 1e-6
    assert [on.tolist() for on in active_units(model, theta)] == [[1, 0, 1, 1], [1, 1, 1]]
    less = with_units_pruned(ob, theta)
    W, b, V = model.unflatten(less)[0][0], model.unflatten(less)[0][1], model.unflatten(less)[1][0]
    assert not W[1].any() and b[1] == 0 and not V[:, 1].any()
    assert np.count_nonzero(less != theta) <= 3 + 1 + 3
    again = with_units_restarted(model, less, model.init(rng=1))
    assert all(on.all() for on in active_units(model, again))
    others = np.ones(len(theta))
    parts = model.unflatten(others)
    parts[0][0][1], parts[0][1][1], parts[1][0][:, 1] = 0, 0, 0
    assert np.array_equal(again * others, less * others)
    layers[0][1][1] = 3.0  # the unit's constant output affects the outputs
    layers[1][0][:, 1] = 0.1
    needed = fc.Objective(model, X, model.predict(theta, X), loss="mse", l2=1e-6)
    assert np.array_equal(with_units_pruned(needed, theta), theta)


def test_a_network_without_its_inactive_units_computes_the_same(rng):
    model = fc.MLP([2, 4, 3, 2], ["tanh", "softplus"])
    X, y = rng.standard_normal((20, 2)), rng.standard_normal((20, 2))
    ob = fc.Objective(model, X, y, "mse", l2=1e-2, l2_biases=False)
    theta = model.init(rng=0)
    assert without_inactive_units(ob, theta)[0] is ob
    layers = model.unflatten(theta)
    for l, unit in ((0, 1), (0, 3), (1, 0)):
        layers[l][0][unit], layers[l + 1][0][:, unit] = 0, 0
    small, less = without_inactive_units(ob, theta)
    assert small.model.sizes == (2, 2, 2, 2) and len(less) == small.n_params
    outputs = small.model.predict(less, X)
    assert np.allclose(outputs, model.predict(theta, X), rtol=1e-12)
    assert np.isclose(small.value(less), ob.value(theta), rtol=1e-12)
    layers[1][0][1:], layers[2][0][:, 1:] = 0, 0
    assert without_inactive_units(ob, theta)[0] is ob


def test_ctrl_c_in_an_inner_run_ends_the_path(monkeypatch, rng):
    def pressed(*given, **options):
        return fc.minimize(*given, **options, callback=press)

    def press(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastcurv.applications.uncertainty.path.minimize", pressed)
    X = rng.standard_normal((20, 2))
    ob = fc.Objective(fc.MLP([2, 3, 1]), X, X[:, :1] ** 2, "mse", l2=1e-3)
    with pytest.raises(KeyboardInterrupt):
        fc.regularization_path(ob, [1e-1, 1e-2], rng=0)
