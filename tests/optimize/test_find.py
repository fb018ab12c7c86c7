"""`find_critical_point` reaches critical points of every kind up to the rounding of the gradient,
and reports failures.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.critical.classify import classify
from fastcurv.optimize import find
from fastcurv.optimize.find import find_critical_point
from fastcurv.testing import (
    FunctionObjective,
    LinearAutoencoder,
    PrescribedSpectrum,
    QuadraticObjective,
    lecture_toy,
)
from tests.nets import draw

pytestmark = pytest.mark.by_day(share=1 / 3)

METHODS = ("follow", "newton-mr")
# "follow" takes all its steps where it fails, for example towards degenerate points
FOLLOW_BY_NIGHT = (pytest.param("follow", marks=pytest.mark.nightly), *METHODS[1:])


def xor(width=3, l2=1e-3):
    X = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    return fc.Objective(fc.MLP([2, width, 1], "tanh"), X, np.array([0.0, 1, 1, 0]), "mse", l2=l2)


@pytest.mark.parametrize("method", FOLLOW_BY_NIGHT)
def test_critical_points_of_an_autoencoder_match_theory(method):
    """Every search succeeds at a critical point whose loss is one of the closed form and whose kind
    is a minimum exactly for the lowest loss.
    """
    net = LinearAutoencoder([5.0, 4.0, 3.0, 2.0, 1.0], 2, rng=1)
    ob = net.objective
    losses = np.array(sorted({case.value for case in net.cases()}))
    kinds = set()
    for seed in range(6):
        result = find_critical_point(ob, np.random.default_rng(seed).standard_normal(20), method)
        assert result.success and result.status == 0
        assert result.gradient_norm <= 10 * rounding_bound(ob, result.x)
        assert np.abs(losses - result.fun).min() <= 1e-10
        report = classify(ob, result.x)
        assert report.kind == ("minimum" if abs(result.fun - losses[0]) <= 1e-10 else "saddle")
        kinds.add(report.kind)
    assert "saddle" in kinds


def test_critical_points_at_large_n_are_found_by_products():
    values = np.r_[-np.linspace(0.1, 1, 300), np.linspace(0.2, 2, 500)]
    center = np.random.default_rng(0).standard_normal(800)
    ob = QuadraticObjective(PrescribedSpectrum(values), center)
    result = find_critical_point(ob, np.zeros(800))
    assert result.success and np.linalg.norm(result.x - center) <= 1e-9 * np.linalg.norm(center)
    assert classify(ob, result.x).kind == "saddle"


def test_a_plateau_is_reported_with_theta_unchanged():
    slope = FunctionObjective(2, lambda t: t[0], lambda t: [1.0, 0.0], lambda t: np.zeros((2, 2)))
    for method in METHODS:
        result = find_critical_point(slope, [0.3, 0.4], method)
        assert not result.success and result.status == 3 and result.notes[0].key == "plateau"
        assert np.array_equal(result.x, [0.3, 0.4]) and result.gradient_norm == 1.0


def test_searches_respect_budgets_and_record_a_history():
    ob = xor()
    theta = np.random.default_rng(1).standard_normal(13)
    seen = []
    short = find_critical_point(ob, theta, "newton-mr", max_iter=2, callback=seen.append)
    assert not short.success and short.status == 1 and short.nit == 2 == len(seen)
    assert short.notes[0].numbers["limit"] == "max_iter"
    assert short.history[0] == pytest.approx(np.linalg.norm(ob.gradient(theta)), rel=1e-15)
    assert short.history[-1] == short.gradient_norm
    assert (np.diff(short.history) < 0).all()
    loose = find_critical_point(ob, theta, "newton-mr", gradient_tol=0.05)
    assert loose.success and loose.gradient_tol == 0.05 and loose.gradient_norm > 1e-8


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({"method": "newton"}, ValueError, "method"),
        ({"method": 3}, TypeError, "method"),
        ({"theta0": [1.0]}, ValueError, "theta0"),
        ({"theta0": [np.inf, 0.0]}, ValueError, "theta0"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"max_time": -1.0}, ValueError, "max_time"),
        ({"callback": 5}, TypeError, "callback must be a function of theta.*got an int"),
        ({"gradient_tol": -1.0}, ValueError, "gradient_tol"),
        ({"index": -1}, ValueError, "index must be from 0 to 2, the number of parameters, got -1"),
        ({"index": 3}, ValueError, "index must be from 0 to 2, the number of parameters, got 3"),
        ({"index": 1.0}, TypeError, "index must be an int.*got 1.0"),
        ({"index": True}, TypeError, "index must be an int.*got True"),
        ({"index": 1, "method": "newton-mr"}, ValueError, "must be 'follow' if an index"),
        (
            {"index": 1, "ob": QuadraticObjective(np.eye(5000)), "theta0": np.ones(5000)},
            ValueError,
            "every step takes all eigenvectors",
        ),
    ],
)
def test_invalid_arguments_of_find_critical_point_raise(bad, error, words):
    with pytest.raises(error, match=words):
        find_critical_point(**{"ob": lecture_toy(), "theta0": [0.1, 0.2], **bad})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [*(size * np.array([1.0, 2.0, -3.0]) for size in (1e-300, 1e-170, 1.0, 1e160, 1e290)),
     [1.0, 1e-6, -1e-12]],
)  # fmt: skip
def test_a_quadratic_of_any_scale_has_its_critical_point_found(method, values):
    """The saddle of a quadratic with entries from 1e-300 to 1e290, whose squares overflow or
    underflow, or of condition 1e12, is found with success.
    """
    saddle = QuadraticObjective(np.diag(values))
    found = fc.find_critical_point(saddle, np.ones(3), method=method)
    assert found.success and found.status == 0 and np.abs(found.x).max() < 1e-12


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_searches_for_an_index_find_points_of_that_index(index, dtype):
    """Most searches for an index succeed. At each success, the Hessian of the NumPy reference has
    the requested number of negative eigenvalues.
    """
    net = draw(4, [4, 5, 3], "tanh", "cross_entropy", N=60, l2=1e-2)
    ob, ended = net.ob.astype(dtype), 0
    for seed in range(4):
        theta = 2 * net.model.init(rng=seed)
        result = find_critical_point(ob, theta, index=index, max_iter=200)
        least = np.linalg.norm(ob.gradient(theta.astype(dtype)))
        assert result.gradient_norm <= least * (1 + 1e-6)
        ended += result.success
        if result.success:
            H = net.ref.hessian(result.x) @ np.eye(net.n)
            assert np.sum(np.linalg.eigvalsh((H + H.T) / 2) < 0) == index
            if dtype == "float64":
                verdict = classify(ob, result.x)
                assert verdict.certified and verdict.n_negative == index
                assert verdict.kantorovich < 0.5
    assert ended >= 3


def test_symmetry_directions_are_not_followed_or_counted(rng):
    """For linear networks, whose Hessians have a zero eigenvalue for each symmetry direction, every
    success has a certified verdict of the requested index, and each index is found.
    """
    reached = dict.fromkeys(range(3), 0)
    for seed in range(4):
        X = rng.standard_normal((20, 3))
        Y = X @ rng.standard_normal((3, 3))
        ob = fc.Objective(fc.MLP([3, 2, 3], "identity", bias=False), X, Y, "mse")
        for index in reached:
            found = find_critical_point(ob, ob.model.init(rng=seed), index=index)
            if found.success:
                verdict = classify(ob, found.x)
                assert verdict.certified and verdict.n_negative == index
                assert verdict.evidence.n_symmetry == 4 or index == 2
                assert found.kind == found.report.kind == verdict.kind
                reached[index] += 1
            else:
                assert found.notes[0].numbers["index"] == index
    assert min(reached.values()) >= 1, reached


def deep(number, hidden=((6, 5), (5, 4, 4))):
    """Return (ob, theta, negative): a network with two or three hidden layers, a start, and its
    number of negative eigenvalues, from 2 to 10.
    """
    rng = np.random.default_rng([73, number])
    X = rng.standard_normal((60, 4))
    y = np.digitize(X[:, 0] * X[:, 1] + X[:, 2], [-0.5, 0.5])
    sizes = [4, *hidden[number % 2], 3]
    model = fc.MLP(sizes, ("tanh", "sigmoid", "softplus")[number // 2 % 3])
    ob = fc.Objective(model, X, y, "cross_entropy", l2=10 ** rng.uniform(-3, -2))
    while True:
        theta = rng.uniform(0.5, 3) * model.init(rng=rng)
        theta = fc.minimize(
            ob, theta, "adam", max_iter=300, learning_rate=1e-2, verdict=False, rng=0
        ).x
        negative = n_negative(ob, theta)
        if 2 <= negative <= 10:
            return ob, theta, negative


def n_negative(ob, theta):
    values = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
    return int(np.sum(values < -1e-10 * np.abs(values).max()))


def ends_near_its_index(number, *hidden):
    """Return True if the search from the start of `deep` ends at a certified critical point whose
    outputs vary between samples and whose index differs from the start's by at most 3.
    """
    ob, theta, negative = deep(number, *hidden)
    found = find_critical_point(ob, theta)
    outputs = ob.model.predict(found.x, ob.X)
    near = abs(n_negative(ob, found.x) - negative) <= 3
    varied = np.ptp(outputs, axis=0).max() > 1e-3
    return bool(found.success and near and varied and classify(ob, found.x).certified)


@pytest.mark.by_day(share=1)
def test_a_deep_network_has_a_critical_point_found_where_newton_mr_finds_none():
    assert ends_near_its_index(0)
    ob, theta, _ = deep(0)
    assert not find_critical_point(ob, theta, "newton-mr").success


@pytest.mark.nightly
@pytest.mark.parametrize("hidden", [((6, 5), (5, 4, 4)), ((8, 8), (7, 6, 6)), ((11, 9), (9, 8, 6))])
def test_nine_of_ten_deep_networks_have_a_critical_point_found(hidden):
    assert sum(ends_near_its_index(number, hidden) for number in range(20)) >= 18


def test_trivial_points_are_named_and_avoided():
    """The search from an untrained network ends at the constant network. With `avoid_trivial`, it
    ends at a point whose outputs depend on the inputs.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    ob = fc.Objective(fc.MLP([4, 2, 2]), X, y, loss="cross_entropy", l2=3e-3)
    start = ob.model.init(rng=0)
    found = find_critical_point(ob, start)
    outputs = ob.model.predict(found.x, X)
    assert found.success and found.trivial == "constant output"
    assert np.ptp(outputs, axis=0).max() <= 1e-5 * np.abs(outputs).max()
    other = find_critical_point(ob, start, avoid_trivial=True)
    assert other.success and other.trivial is None and other.report.certified
    assert np.ptp(ob.model.predict(other.x, X), axis=0).max() > 0.01
    failed = find_critical_point(ob, found.x, "newton-mr", avoid_trivial=True)
    assert failed.status == 2 and failed.trivial == "constant output"


@pytest.mark.parametrize("seed", range(4))
def test_searches_from_many_negative_eigenvalues_end_at_certified_points(seed):
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((150, 4)), rng.integers(3, size=150)
    ob = fc.Objective(fc.MLP([4, 6, 4, 3]), X, y, loss="cross_entropy", l2=1e-3)
    start = ob.model.init(rng=seed)
    assert fc.inertia(ob.hessian(start)).n_negative > find.MAX_NEARBY_INDEX
    found = find_critical_point(ob, start)
    assert found.success and found.report.certified
