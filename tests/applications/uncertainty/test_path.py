"""Inactive units of networks on a path of penalties are restarted, set to 0 and removed."""

import numpy as np

import fastcurv as fc
from fastcurv.applications.uncertainty.path import (
    active_units,
    with_units_pruned,
    with_units_restarted,
    without_inactive_units,
)


def test_a_network_without_biases_restarts_inactive_units(rng):
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    ob = fc.Objective(fc.MLP([3, 4, 1], "relu", bias=False), X, y, "mse")
    theta = ob.model.init(rng=0)
    theta[:3] = 0
    restarted = with_units_restarted(ob.model, theta, ob.model.init(rng=1))
    assert restarted[:3].all() and np.array_equal(restarted[3:12], theta[3:12])
    assert not with_units_pruned(ob, theta)[12]


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
