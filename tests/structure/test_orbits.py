"""The value and gradient of the loss along the orbit of every claimed symmetry follow from the
group action.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.structure.orbits import residual_stream_runs

from .. import nets

RNG = np.random.default_rng


def objective(sizes, activation, loss="mse", N=12, seed=0, **options):
    p = nets.draw(seed, sizes, activation, loss, N, **options)
    return p.ob, p.theta


def special_columns():
    X = RNG(5).standard_normal((12, 5))
    X[:, 1], X[:, 2], X[:, 4] = 0.0, -1.7, X[:, 3]
    return X


def inactive_unit():
    ob, theta = objective((4, 5, 3), "relu", N=60)
    W, b = ob.model.unflatten(theta)[0]
    b[2] = -40.0
    return ob, theta


CASES = {
    "shift": lambda: objective((4, 5, 3), "tanh", "cross_entropy"),
    "columns": lambda: objective((5, 4, 3), "tanh", X=special_columns()),
    "columns, no bias": lambda: objective((5, 4, 3), "tanh", X=special_columns(), bias=False),
    "columns, batch norm": lambda: objective(
        (5, 4, 3), "tanh", X=special_columns(), batch_norm=True
    ),
    "scale": lambda: objective((4, 5, 3, 2), "relu"),
    "scale, leaky": lambda: objective((4, 5, 3, 2), "leaky_relu", "binary_cross_entropy"),
    "scale, skips": lambda: objective((4, 3, 3, 3, 2), "relu", residual=True),
    "scale, batch norm": lambda: objective((4, 5, 3, 2), "relu", batch_norm=True),
    "linear": lambda: objective((4, 3, 5, 2), "identity"),
    "linear, skips": lambda: objective((4, 3, 3, 2), "identity", residual=True),
    "linear bias": lambda: objective((4, 3, 3, 2), "identity"),
    "linear bias, batch norm": lambda: objective((4, 3, 3, 2), "identity", batch_norm=True),
    "bias below a mean": lambda: objective((4, 3, 3, 2), "tanh", batch_norm=True),
    "rotation": lambda: objective((4, 3, 5, 2), "identity", l2=0.1),
    "rotation, skips": lambda: objective((4, 3, 3, 2), "identity", residual=True, l2=0.1),
    "off": inactive_unit,
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_constant_along_every_orbit(case):
    """A finite step along an orbit does not change the loss, and the gradient is orthogonal to the
    tangents at both ends. Tangents equal difference quotients and change no faster than the bound
    `change`.
    """
    ob, theta = CASES[case]()
    here = {orbit.name: orbit for orbit in ob.certificates.orbits(theta, 0.31)}
    assert case.split(",")[0] in here
    rng, scale = RNG(1), np.linalg.norm(ob.gradient(theta))
    for name, orbit in here.items():
        t = rng.standard_normal(len(orbit))
        there = orbit.move(0.3 * t / np.linalg.norm(t))
        assert np.linalg.norm(there - theta) > 1e-3
        assert abs(ob.value(there) - ob.value(theta)) <= 1e-13 * (1 + abs(ob.value(theta))), name
        for at in (theta, there):
            T = {o.name: o for o in ob.certificates.orbits(at)}[name].tangents
            g = ob.gradient(at)
            assert np.abs(g @ T).max() <= 1e-13 * (1 + scale) * np.linalg.norm(T), name
        assert orbit.move(0 * t) == pytest.approx(theta, abs=1e-15)
        quotient = (orbit.move(1e-6 * t) - orbit.move(-1e-6 * t)) / 2e-6
        assert np.linalg.norm(quotient - orbit.tangents @ t) <= 1e-8 * np.linalg.norm(t)
        h = rng.standard_normal(theta.size)
        moved = {o.name: o for o in ob.certificates.orbits(theta + 0.01 * h)}.get(name)
        if moved is not None and len(moved) == len(orbit):
            change = np.linalg.norm(moved.tangents - orbit.tangents, 2)
            assert change <= (orbit.change * (1 + 1e-9)) * 0.01 * np.linalg.norm(h) + 1e-14


def test_no_symmetry_is_claimed_for_kinks_l2_or_curved_activations():
    """No symmetry is claimed with an l2 penalty, at theta = 0 where all units are on kinks, for
    nearly constant columns of X, or for activations that are not piecewise linear. Rotations, which
    l2 preserves, are not tested here.
    """
    assert not CASES["scale"]()[0].certificates.orbits(np.zeros(CASES["scale"]()[0].n_params))
    for l2 in (1e-12, 1.0):
        for case in ("shift", "columns", "scale"):
            ob, theta = CASES[case]()
            other = fc.Objective(ob.model, ob.X, ob.y, loss=ob.loss, l2=l2)
            assert not other.certificates.orbits(theta)
    X = np.ones((20_000, 1)) + 3e-4 * RNG(0).standard_normal((20_000, 1))
    ob = fc.Objective(fc.MLP([1, 3, 1], dtype="float32"), X, X[:, 0], loss="mse")
    assert not ob.certificates.orbits(ob.model.init(rng=0))
    for name in {*nets.ACTIVATIONS} - {*nets.PIECEWISE_LINEAR}:
        ob, theta = objective((4, 5, 5, 2), name, residual=True)
        assert not ob.certificates.orbits(theta), name


def test_units_count_as_inactive_only_on_the_whole_ball():
    ob, theta = inactive_unit()
    names = [[o.name for o in ob.certificates.orbits(theta, radius)] for radius in (0.0, 1.0, 40.0)]
    assert "off" in names[0] and "off" in names[1] and "off" not in names[2]
    T = next(o for o in ob.certificates.orbits(theta) if o.name == "off").tangents
    assert T.shape[1] == 4 + 1 + 3


def test_layers_joined_by_skips_form_one_range():
    model = fc.MLP([3, 3, 3, 2, 2, 2, 1], activation="relu", residual=True)
    assert residual_stream_runs(model) == [range(2, 5)]
    assert residual_stream_runs(fc.MLP([3, 3, 2, 1])) == [range(0, 1), range(1, 2)]


def test_weights_of_inactive_units_without_biases_are_symmetry_directions():
    """In a network without biases, the incoming and outgoing weights of units that are inactive on
    all samples are exactly the symmetry directions.
    """
    X = np.abs(RNG(0).standard_normal((12, 3))) + 0.1
    ob, theta = objective([3, 4, 1], "relu", X=X, bias=False)
    (W, _), _ = ob.model.unflatten(theta)
    W[1], W[[0, 2, 3]] = -1.0, np.abs(W[[0, 2, 3]])  # W is a view into theta
    off = next(o for o in ob.certificates.orbits(theta) if o.name == "off")
    touched = np.zeros(theta.size)
    (V, _), (U, _) = ob.model.unflatten(touched)
    stays = (X @ W.T <= 0).all(axis=0)
    assert stays[1] and not stays[0]
    V[stays], U[:, stays] = 1.0, 1.0
    assert np.array_equal(np.flatnonzero(off.tangents.any(axis=1)), np.flatnonzero(touched))
    assert ob.value(off.move(0.1 * np.ones(len(off)))) == ob.value(theta)


def test_too_many_symmetry_directions_raise_memory_error(monkeypatch):
    ob, theta = objective([3, 4, 2], "relu")
    monkeypatch.setattr("fastcurv.structure.orbits.MAX_TANGENTS_BYTES", 100)
    with pytest.raises(MemoryError, match="1e-07 GB.*Use a smaller network"):
        ob.certificates.orbits(theta)
