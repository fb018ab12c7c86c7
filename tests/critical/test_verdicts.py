"""Verdicts, inertia and evidence at points whose kind is known in advance."""

from itertools import combinations

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.critical.classify import classify
from fastcurv.testing import LinearAutoencoder, PrescribedSpectrum, QuadraticObjective, lecture_toy

from ..nets import no_point_nearby_is_lower
from ..zoo import axis_saddles, zoo

ZOO = zoo()
COUNTS = ("n_positive", "n_negative", "n_zero")


def check_report(case, report):
    assert report.kind == case.kind, report
    for count in COUNTS:
        wanted = getattr(case, count)
        assert wanted is None or getattr(report, count) == wanted, (count, report)
    if case.kind in ("minimum", "maximum", "saddle"):
        assert report.certified and report.failure_probability == 0
    if case.kind == "minimum":
        assert report.evidence.n_symmetry == report.n_zero and report.escape_direction is None


def test_points_of_known_kind_cover_every_kind():
    kinds = {case.kind for case in ZOO}
    assert kinds == {"minimum", "maximum", "saddle", "degenerate", "not_critical"}
    assert len(ZOO) > 40 and any(case.name.startswith("a unit split") for case in ZOO)


@pytest.mark.parametrize("case", ZOO, ids=lambda c: c.name)
def test_points_of_known_kind_get_their_verdict(case):
    ob = case.objective
    check_report(case, classify(ob, case.theta))
    assert case.value is None or abs(ob.value(case.theta) - case.value) <= 1e-13


@pytest.mark.parametrize("shape", [(4, 2), (5, 2), (6, 1)])
def test_every_critical_point_of_an_autoencoder_is_classified_right(shape):
    n, p = shape
    net = LinearAutoencoder(np.arange(n, 0, -1.0) ** 1.5, p, n_samples=n + 3, rng=n)
    ob = net.objective
    cases = net.cases(rng=7)
    assert len(cases) == sum(len(list(combinations(range(n), k))) for k in range(p + 1))
    for case in cases:
        report = classify(ob, case.theta)
        check_report(case, report)
        assert abs(ob.value(case.theta) - case.value) <= 1e-12 * ob.value(0 * case.theta)
        assert (report.kind == "minimum") == (
            case.name.endswith(f"I = {{{', '.join(map(str, range(1, p + 1)))}}}")
        )


def test_all_of_300_axis_saddles_are_found_and_their_escapes_descend():
    ratios = []
    for case in axis_saddles(300, rng=11):
        report = classify(case.objective, case.theta)
        check_report(case, report)
        ratios.append(abs(report.lambda_min / report.lambda_max))
        v = report.escape_direction
        assert abs(np.linalg.norm(v) - 1) <= 1e-12
        quotient = v @ (case.objective.hessian(case.theta) @ v)
        assert quotient < 0 and abs(quotient - report.escape_curvature) <= 1e-12 * abs(quotient)
        assert abs(quotient - report.lambda_min) <= 1e-9 * abs(report.lambda_min)
    assert min(ratios) < 1e-3 < max(ratios)


def test_the_saddle_of_the_lectures_toy_loss_is_certified():
    report = classify(lecture_toy(), np.zeros(2))
    assert abs(report.lambda_min + 2) <= 1e-12 and abs(report.lambda_max - 2) <= 1e-12
    assert np.abs(np.abs(report.escape_direction @ [1, 1]) / 2**0.5 - 1) <= 1e-12


@pytest.mark.parametrize(
    "values, kind, counts",
    [
        (np.r_[np.full(64, -1e-3), np.linspace(0.1, 1, 100)], "saddle", (100, 64, 0)),
        (np.r_[-1e-10, np.linspace(0.1, 1, 60)], "saddle", (60, 1, 0)),
        (np.r_[1e-10, np.linspace(0.1, 1, 60)], "minimum", (61, 0, 0)),
        (np.r_[-1e-6, 1.0, 1e6, np.ones(40)], "saddle", (42, 1, 0)),
        (np.ones(50), "minimum", (50, 0, 0)),
        (-np.ones(50), "maximum", (0, 50, 0)),
        (np.r_[np.zeros(30), 1.0], "degenerate", (1, 0, 30)),
        (np.zeros(20), "degenerate", (0, 0, 20)),
        (np.r_[-1.0, 0.0, 1.0], "saddle", (1, 1, 1)),
    ],
)
def test_matrices_of_prescribed_spectra_get_their_kind_and_counts(values, kind, counts):
    for seed in range(3):
        ob = QuadraticObjective(PrescribedSpectrum(values, rng=seed))
        report = classify(ob, np.zeros(values.size))
        assert report.kind == kind and tuple(getattr(report, c) for c in COUNTS) == counts
        for found, bounds, true in (
            (report.lambda_min, report.evidence.lambda_min_bounds, values.min()),
            (report.lambda_max, report.evidence.lambda_max_bounds, values.max()),
        ):
            assert bounds[0] <= true <= bounds[1] and bounds[0] <= found <= bounds[1]


def test_every_counted_sign_of_an_eigenvalue_is_right():
    """For eigenvalues near the rounding level, no more positive or negative eigenvalues are counted
    than exist. The others count as zeros.
    """
    rng = np.random.default_rng(0)
    undecided = 0
    for seed in range(40):
        values = rng.choice([-1.0, 1.0], 30) * 10.0 ** rng.uniform(-18, 0, 30)
        values[0] = 1.0
        report = classify(QuadraticObjective(PrescribedSpectrum(values, rng=seed)), np.zeros(30))
        assert report.n_positive <= (values > 0).sum() and report.n_negative <= (values < 0).sum()
        assert report.kind != "minimum"
        undecided += report.n_zero
    assert 0 < undecided < 40 * 15


def test_verdict_reports_a_plateau():
    flat = {case.name: case for case in ZOO if case.kind == "not_critical"}
    on, off = flat["dead ReLU units on a slope"], flat["dead ReLU units off their best bias"]
    report = classify(on.objective, on.theta)
    assert report.evidence.plateau and report.rule == "infimum_at_infinity"
    assert (report._numbers["dead_units"], report._numbers["n_units"]) == (3, 3)
    assert report.evidence.gradient_residual > 0.9
    report = classify(off.objective, off.theta)
    assert not report.evidence.plateau and report.evidence.gradient_residual < 1e-6


def test_saturated_networks_are_on_a_plateau():
    """Saturated tanh units with binary cross entropy are reported as a plateau, although the slope
    of the output bias is finite.
    """
    X = np.linspace(-1, 1, 9)[:, None]
    model = fc.MLP([1, 4, 1], "tanh")
    theta = model.flatten(
        [(np.full((4, 1), 1.0), np.full(4, 18.0)), (np.ones((1, 4)), np.array([25.0]))]
    )
    ob = fc.Objective(model, X, np.zeros(9), "binary_cross_entropy")
    report = classify(ob, theta)
    assert report.kind == "not_critical" and report.evidence.plateau
    assert report._numbers["saturated"] == "100%"


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("dense_below", [0, 4096])
def test_at_kinks_minima_are_proved_and_escapes_of_saddles_descend(dense_below):
    """For ReLU networks with weight decay near the origin, where each side of a kink has its own
    Hessian, minima are proved or not reported, and escapes from saddles lower the loss.
    """
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(20):
        X = rng.standard_normal((15, 2))
        y = rng.random(15)
        model = fc.MLP([2, 3, 1], "relu")
        theta = 1e-17 * rng.standard_normal(model.n_params)
        theta[-1] = y.mean() / (1 + rng.choice([0.05, 1.0]) / 2)
        ob = fc.Objective(model, X, y, "mse", l2=2 * (y.mean() / theta[-1] - 1))
        report = classify(ob, theta, dense_below=dense_below, failure_probability=0.01)
        assert report.evidence.n_kinks == 45 and report.gradient_norm <= report.gradient_tol
        assert report.certified == (report.kind == "minimum")
        if report.certified:
            assert report._numbers["n_collapsed"] == 3 and report.n_negative is None
            assert no_point_nearby_is_lower(ob, np.where(np.abs(theta) < 1e-10, 0.0, theta), rng)
            assert ob.l2 > 0.5
        if report.kind == "saddle":
            escaped = fc.escape(ob, theta, report.escape_direction)
            assert escaped.fun < ob.value(theta)
        kinds.append(report.kind)
    assert {"minimum", "saddle"} <= set(kinds) <= {"minimum", "saddle", "undecided"}


def test_the_gradient_is_compared_with_the_callers_tolerance():
    ob = QuadraticObjective(np.diag([1.0, 2.0]))
    assert classify(ob, [1.0, 0.0]).kind == "not_critical"
    loose = classify(ob, [1.0, 0.0], gradient_tol=2.0)
    assert loose.kind == "minimum" and loose.gradient_tol == 2.0
    assert classify(ob, [1e-9, 0.0], gradient_tol=0.0).kind == "not_critical"


def test_float32_models_are_judged_in_float64():
    net = LinearAutoencoder([5.0, 4.0, 3.0, 2.0, 1.0], 2, rng=1)
    ob = net.objective.astype("float32")
    for case in net.cases(rng=1):
        report = classify(ob, case.theta)
        assert report.kind == case.kind and report.n_negative == case.n_negative


@pytest.mark.parametrize(
    "bad, error, words",
    [
        ({"ob": 3}, TypeError, "without n_params"),
        ({"theta": [0.0]}, ValueError, "theta"),
        ({"theta": [np.nan, 0.0]}, ValueError, "theta"),
        ({"theta": ["a", "b"]}, TypeError, "theta"),
        ({"gradient_tol": -1.0}, ValueError, "gradient_tol"),
        ({"max_products": 0}, ValueError, "max_products"),
        ({"max_time": 0}, ValueError, "max_time must be a finite number > 0.*got 0.0"),
        ({"failure_probability": 1.5}, ValueError, "failure_probability"),
        ({"failure_probability": "x"}, TypeError, "failure_probability"),
        ({"rng": -1, "dense_below": 0}, ValueError, "rng"),
        ({"dense_below": np.nan}, TypeError, "must be a number of parameters"),
        ({"dense_below": True}, TypeError, "must be a number of parameters"),
        ({"dense_below": "all"}, TypeError, "dense_below.*must be a number of parameters"),
    ],
)
def test_invalid_arguments_of_classify_raise(bad, error, words):
    with pytest.raises(error, match=words):
        classify(**{"ob": lecture_toy(), "theta": [0.0, 0.0], **bad})
    assert classify(lecture_toy(), [0.0, 0.0], dense_below=np.inf).kind == "saddle"


def test_theta_and_gradient_are_not_modified():
    theta = np.zeros(2)
    theta.flags.writeable = False
    assert classify(lecture_toy(), theta).kind == "saddle"


class Counted:
    """An objective that counts the products of its operators."""

    def __init__(self, ob):
        self.ob, self.n_params, self.made = ob, ob.n_params, 0
        self.value, self.gradient = ob.value, ob.gradient

    def hessian(self, theta):
        H = self.ob.hessian(theta)

        def product(v):
            self.made += 1
            return H @ np.asarray(v).reshape(-1)

        return LinearOperator(H.shape, matvec=product, rmatvec=product, dtype=float)


@pytest.fixture(scope="module")
def small_net():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 2))
    ob = fc.Objective(fc.MLP([6, 9, 2], "tanh"), X, y, loss="mse", l2=1e-3)
    start = ob.model.init(rng=0)
    return ob, (fc.minimize(ob, start, rng=0).x, start, 0 * start)


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("most", [1, 2, 5, 12, 17, 30, 83, 90, 200])
def test_verdicts_spend_at_most_the_allowed_products(most, small_net):
    ob, points = small_net
    for theta in points:
        for options in ({}, {"failure_probability": 1e-3}, {"dense_below": 1}):
            counted = Counted(ob)
            said = fc.classify(counted, theta, max_products=most, **options)
            assert said.n_products == counted.made <= most
            said = fc.classify(ob, theta, max_products=most, **options)
            assert said.n_products <= most
        for method in ("follow", "newton-mr"):
            counted = Counted(ob)
            found = fc.find_critical_point(counted, theta, method, max_products=most)
            spent = found.n_products + (found.report.n_products if found.report else 0)
            assert spent == counted.made <= most
        counted = Counted(ob)
        found = fc.escape(counted, theta, max_products=most)
        assert found.n_products == counted.made <= most
        counted = Counted(ob)
        pairs = fc.eigsh(counted.hessian(theta), 2, max_products=most, rng=0)
        assert pairs.n_products == counted.made <= most


def test_without_products_to_check_stable_signs_a_point_is_undecided(small_net):
    """If the budget of products suffices for all columns of H but not for checking that signs are
    stable nearby, the point is undecided, and the reason names `max_products`.
    """
    ob, (rest, *_) = small_net
    said = fc.classify(Counted(ob), rest, max_products=ob.n_params)
    assert said.kind == "undecided" and not said.certified
    assert said.evidence.limit == said._advice == "max_products"
    assert fc.classify(Counted(ob), rest).kind == "minimum"


@pytest.mark.parametrize("seed", range(3))
def test_following_the_advice_on_a_plateau_lowers_the_loss(seed):
    """For saturated units and for confident wrong outputs, the reason names a method that leaves
    the plateau, and that method lowers the loss.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, 2))
    y = (X[:, :1] * X[:, 1:] > 0) * np.ones((1, 2))
    model = fc.MLP([2, 6, 2], "tanh")
    theta = model.init(rng=seed)
    (_, b), (_, c) = model.unflatten(theta)
    b[:] = 20 * np.sign(rng.standard_normal(6))
    c[:] = 60, -60
    ob = fc.Objective(model, X, y, loss="binary_cross_entropy")
    said = fc.classify(ob, theta)
    assert said.evidence.plateau and said._advice == "plateau"
    for options in ({}, {"method": "trust-region"}, {"method": "l-bfgs"}):
        found = fc.minimize(ob, theta, max_iter=300, rng=0, verdict=False, **options)
        assert found.fun < 0.5 * ob.value(theta)
