"""Flat directions, saturation and equivalent parameters that follow from the structure of a
network, compared with its loss and Hessian.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.critical.classify import classify
from fastcurv.critical.evidence import orthonormal_basis
from fastcurv.optimize.find import find_critical_point
from fastcurv.structure.curvature_probes import curvature_probes
from fastcurv.structure.parameters import nonzero_weight_rows
from fastcurv.structure.saturation import saturation
from fastcurv.structure.symmetry import flip_tanh, nearest_copy, permute_hidden, rescale_relu
from fastcurv.testing import LinearAutoencoder

from .. import nets
from ..zoo import zoo

pytestmark = pytest.mark.by_day(share=1 / 2)


def objective(sizes=(4, 5, 3), activation="tanh", loss="mse", N=25, **options):
    weight = options.pop("sample_weight", None)
    p = nets.draw(0, sizes, activation, loss, N, **options)
    return p.objective(sample_weight=weight), p.theta


def is_annihilated(ob, theta, T, slack=0.0):
    H = ob.hessian(theta)
    sizes = np.linalg.norm(T, axis=0)
    bounds = np.array([rounding_bound(H, np.ascontiguousarray(t)) for t in T.T])
    return np.linalg.norm(H @ T, axis=0) <= bounds + slack + 1e-12 * sizes


def dependent_columns():
    """Return X (20, 7) with columns that are constant, zero and equal, and one that depends on
    others only up to rounding.
    """
    X = np.random.default_rng(1).standard_normal((20, 7))
    X[:, 1] = 3.0
    X[:, 2] = 0.0
    X[:, 4] = 1e6 * X[:, 3] - 2 * X[:, 0]
    X[:, 6] = X[:, 0]
    return X


def zero_on_weighted_samples():
    X = np.random.default_rng(2).standard_normal((20, 4))
    X[:10, 3] = 0.0
    return X


def nearly_constant():
    X = np.random.default_rng(1).standard_normal((20, 2))
    X[:, 1] = 1 + 3e-4 * X[:, 1]
    return X


HALF = np.r_[np.ones(10), np.zeros(10)]
DIRECTIONS = {  # options of the network, number of directions, and norm of a generator
    "softmax": ({"loss": "cross_entropy"}, 6, 0),
    "softmax, no bias": ({"loss": "cross_entropy", "bias": False}, 5, 0),
    "softmax, l2": ({"loss": "cross_entropy", "l2": 1e-3}, 0, 0),
    "columns": ({"sizes": (7, 5, 3), "X": dependent_columns()}, 15, 0),
    "columns, no bias": ({"sizes": (7, 5, 3), "X": dependent_columns(), "bias": False}, 10, 0),
    "nearly constant": ({"sizes": (2, 5, 3), "X": nearly_constant()}, 0, 0),
    "weights": ({"X": zero_on_weighted_samples(), "sample_weight": HALF}, 5, 0),
    "relu": ({"sizes": (4, 3, 3, 2), "activation": "relu"}, 6, 1),
    "leaky relu": ({"sizes": (4, 3, 3, 2), "activation": "leaky_relu"}, 6, 1),
    "identity": ({"sizes": (4, 3, 3, 2), "activation": "identity"}, 24, 4),
    "relu, l2": ({"activation": "relu", "l2": 1e-6}, 0, 0),
    "tanh, l2": ({"l2": 1e-6}, 0, 0),
    "relu, skips": ({"sizes": (4, 4, 4, 2), "activation": "relu", "residual": True}, 0, 0),
    "biases without l2": (
        {"sizes": (3, 4, 2, 3), "activation": ["tanh", "identity"], "loss": "cross_entropy",
         "l2": 0.1, "l2_biases": False}, 1 + 1 + 2, 1,
    ),
}  # fmt: skip


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("case", DIRECTIONS)
def test_the_symmetry_directions_are_all_those_of_the_groups(case):
    """The Hessian maps the tangent ``A theta`` of an orbit with generator A to ``-A'g``, because
    the gradient g rotates with theta, and the loss has no slope along the tangent. Columns of X
    that depend on others only up to rounding give no symmetry.
    """
    options, count, norm = DIRECTIONS[case]
    ob, theta = objective(**options)
    T = ob.certificates.flat_directions(theta)
    g = ob.gradient(theta)
    assert T.shape[1] == count
    assert np.linalg.matrix_rank(T) == count or case == "identity"
    slack = norm * np.linalg.norm(g) * (1 + 1e-12)
    assert is_annihilated(ob, theta, T, slack=slack).all()
    assert np.abs(g @ T).max(initial=0) <= 1e-12 * np.linalg.norm(g) * np.linalg.norm(T)


def test_dead_units_are_counted_on_samples_of_positive_weight():
    """A unit that is active only on samples of weight 0 is counted as dead, whatever the weights of
    the other samples.
    """
    X = np.array([[1.0], [2.0], [3.0], [-1.0]])
    for weight in (1.0, 0.5, 3.0):
        for rest, dead in ((0.0, 1), (weight, 0)):
            ob, theta = objective(
                (1, 1, 2), "relu", X=X, sample_weight=np.r_[np.full(3, weight), rest]
            )
            W, b = ob.model.unflatten(theta)[0]
            W[...], b[...] = -1.0, 0.5  # active on the last sample only
            assert len(nonzero_weight_rows(ob)) == 4 - dead
            assert saturation(ob, theta)["dead_units"] == dead


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_linear_orbits_have_the_rank_of_the_closed_form(k):
    """At a critical point of a linear autoencoder with k of p units in use, the symmetry directions
    have rank k^2 + 2 k (p - k). Outgoing weights of zero units are not counted, since they are flat
    only at this theta.
    """
    p = 3
    net = LinearAutoencoder([6.0, 5.0, 4.0, 3.0, 2.0], p, rng=2)
    theta = net.critical_point(range(1, k + 1), rng=4)
    T = net.objective.certificates.flat_directions(theta)
    rank = k * k + 2 * k * (p - k)
    assert (
        classify(net.objective, theta).evidence.n_symmetry == rank == orthonormal_basis(T).shape[1]
    )


def test_only_rotations_remain_symmetries_with_l2():
    net = LinearAutoencoder([6.0, 5.0, 4.0, 3.0, 2.0], 3, rng=2)
    ob = fc.Objective(net.objective.model, net.X, net.X, "mse", l2=0.01)
    result = find_critical_point(ob, net.critical_point((1, 2, 3)))
    T = ob.certificates.flat_directions(result.x)
    assert result.success and T.shape[1] == 3
    report = classify(ob, result.x)
    assert report.kind == "minimum" and report.evidence.n_symmetry == 3 == report.n_zero


@pytest.mark.parametrize("name", ["a unit split", "a unit of zeros added"])
def test_directions_flat_at_one_theta_are_not_symmetries(name):
    """Directions along which the loss is constant only at this theta, such as outgoing weights of a
    zero unit or their division between two equal units, are not counted as symmetries.
    """
    case = next(case for case in zoo() if case.name.startswith(name))
    assert case.objective.certificates.flat_directions(case.theta).shape[1] == 0
    assert classify(case.objective, case.theta).evidence.n_symmetry == 0


def test_probes_find_negative_curvature_that_the_gradient_misses():
    for name in ("a unit of zeros added", "a unit split"):
        case = next(case for case in zoo() if case.name.startswith(name))
        P = curvature_probes(case.objective, case.theta)
        assert P.shape[1] > 0 and np.allclose(np.linalg.norm(P, axis=0), 1)
        H = case.objective.hessian(case.theta) @ np.eye(6)
        K = orthonormal_basis(np.hstack([P, H @ P, H @ H @ P]))
        assert np.linalg.eigvalsh(K.T @ H @ K)[0] <= 0.5 * np.linalg.eigvalsh(H)[0] < 0
    ob, theta = objective()
    assert curvature_probes(ob, theta).shape == (ob.n_params, 0)
    assert curvature_probes(ob, np.zeros(ob.n_params), max_columns=4).shape[1] == 4


BOTH_NORMALISATIONS = pytest.mark.parametrize("batch_norm", [False, True])


def spectrum(ob, theta):
    return np.linalg.eigvalsh(ob.hessian(theta).to_dense())


TRANSFORMATIONS = {  # activation, transformation, and its inverse
    "permutation": (
        "gelu",
        lambda model, theta: permute_hidden(model, theta, 0, [3, 4, 0, 1, 2]),
        lambda model, theta: permute_hidden(model, theta, 0, [2, 3, 4, 0, 1]),
    ),
    "flip": ("tanh", *2 * (lambda model, theta: flip_tanh(model, theta, 1, [0, 2]),)),
    "scale": (
        "leaky_relu",
        lambda model, theta: rescale_relu(model, theta, 0, range(5), 8.0),
        lambda model, theta: rescale_relu(model, theta, 0, range(5), 0.125),
    ),
}


@BOTH_NORMALISATIONS
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_change_neither_outputs_nor_the_spectrum(name, batch_norm):
    """Permutations and flips of units are orthogonal, so that they also keep the eigenvalues of the
    Hessian. Scaling keeps the outputs only.
    """
    activation, there, back = TRANSFORMATIONS[name]
    ob, theta = objective(
        (4, 5, 3, 2), activation, loss="binary_cross_entropy", batch_norm=batch_norm
    )
    other = there(ob.model, theta)
    assert not np.allclose(other, theta) and np.array_equal(back(ob.model, other), theta)
    predict = ob.model.predict
    assert np.allclose(predict(other, ob.X), predict(theta, ob.X), rtol=0, atol=1e-13)
    change = np.abs(spectrum(ob, other) - spectrum(ob, theta)).max()
    assert change > 1e-6 if name == "scale" else change <= 1e-13


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "call, error",
    [
        (lambda m, t: permute_hidden(m, t, 5, [0]), ValueError),
        (lambda m, t: permute_hidden(m, t, 0.0, [0]), TypeError),
        (lambda m, t: permute_hidden(m, t, 0, [0, 0, 1, 2, 3]), ValueError),
        (lambda m, t: permute_hidden(m, t[1:], 0, range(5)), ValueError),
        (lambda m, t: flip_tanh(m, t, 0, [7]), ValueError),
        (lambda m, t: flip_tanh(m, t * np.nan, 0, [0]), ValueError),
        (lambda m, t: rescale_relu(m, t, 0, [0], 2.0), ValueError),
        (lambda m, t: flip_tanh(fc.MLP([4, 5, 3], "relu"), t, 0, [0]), ValueError),
        (lambda m, t: rescale_relu(fc.MLP([4, 5, 3], "relu"), t, 0, [0], 0.0), ValueError),
        (lambda m, t: permute_hidden(fc.MLP([5, 5, 1], residual=True), t, 0, range(5)), ValueError),
    ],
)
def test_invalid_units_and_orders_raise(call, error):
    ob, theta = objective()
    with pytest.raises(error):
        call(ob.model, theta)


def test_zero_preactivations_are_counted_as_kinks():
    X = np.array([[1.0, 2.0], [2.0, -1.0], [0.0, 0.0]])
    for activation, expected in (("relu", 2), ("leaky_relu", 2), ("elu", 2), ("tanh", 0)):
        model = fc.MLP([2, 2, 1], activation, bias=False)
        ob = fc.Objective(model, X, np.zeros(3), "mse")
        theta = model.flatten(
            [(np.array([[2.0, -1.0], [1.0, 2.0]]), None), (np.ones((1, 2)), None)]
        )
        assert ob.certificates.kinks(theta) == expected == ob.certificates.kinks(theta)
        assert ob.certificates.kinks(theta + 1e-9 * np.arange(1, 7)) == 0
        assert ob.certificates.kinks(theta * (1 + 1e-16)) == expected
    biased = fc.MLP([2, 1, 1], "relu")
    at = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    assert fc.Objective(biased, X, np.zeros(3), "mse").certificates.kinks(at) == 1


def test_saturation_equals_the_fraction_of_saturated_outputs():
    X = np.linspace(-1, 1, 8)[:, None]
    model = fc.MLP([1, 2, 2], "tanh")
    theta = model.flatten(
        [
            (np.array([[0.1], [50.0]]), np.zeros(2)),
            (np.array([[0.0, 40.0], [0.0, 0.0]]), np.zeros(2)),
        ]
    )
    for ob in (fc.Objective(model, X, np.arange(8) % 2, "cross_entropy"),):
        for state in (saturation(ob, theta), saturation(ob, theta)):
            assert (
                state["layers"] == [0.5] and state["saturated"] == 0.5 and state["certain"] == 1.0
            )
            assert state["dead_units"] == 1 and state["n_units"] == 2
    free = saturation(*objective())
    assert free["certain"] == 0.0 and free["saturated"] < 0.1 and free["dead_units"] == 0


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("sizes", [[3, 5, 2], [3, 4, 6, 2]])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_nearest_copy_undoes_any_permutation_and_flip(activation, sizes, batch_norm):
    model = fc.MLP(sizes, activation, batch_norm=batch_norm)
    rng = np.random.default_rng(5)
    theta = rng.standard_normal(model.n_params)
    other = theta
    for layer, width in enumerate(sizes[1:-1]):
        other = permute_hidden(model, other, layer, rng.permutation(width))
        if activation == "tanh":
            other = flip_tanh(model, other, layer, np.flatnonzero(rng.integers(2, size=width)))
    assert not np.array_equal(other, theta)
    kept = other.copy()
    assert np.array_equal(nearest_copy(model, theta, other), theta)
    assert np.array_equal(other, kept)
