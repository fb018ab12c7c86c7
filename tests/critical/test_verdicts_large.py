"""Verdicts from products alone: proved saddles and curvature floors, minima at a stated risk, and
no false minimum.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.critical.classify import classify
from fastcurv.krylov.trust_region import lanczos_miss_probability, lanczos_steps
from fastcurv.testing import LinearAutoencoder, PrescribedSpectrum, QuadraticObjective

from ..zoo import axis_saddles, zoo

pytestmark = pytest.mark.by_day(share=1 / 3)


def bare_protocol(ob):
    """Return a stand-in with only the attributes that the minimal protocol of objectives
    requires.
    """
    names = ("n_params", "value", "gradient", "hessian")
    return SimpleNamespace(**{name: getattr(ob, name) for name in names})


def classify_spectrum(values, seed=0, mirrors=1, **options):
    n = len(values)
    return classify(
        QuadraticObjective(PrescribedSpectrum(values, mirrors, rng=seed)),
        np.zeros(n),
        rng=seed,
        dense_below=0,
        **options,
    )


def test_one_slightly_negative_eigenvalue_of_a_hundred_thousand_is_found():
    n = 100_000
    values = np.linspace(0, 1, n)
    values[0] = -1e-4
    H = PrescribedSpectrum(values, 1)
    report = classify(QuadraticObjective(H), np.zeros(n), failure_probability=0.01)
    assert report.kind == "saddle" and report.certified and report.evidence.method == "krylov"
    v = report.escape_direction
    assert v @ (H @ v) < 0 and abs(v @ H.eigenvector(0)) > 0.5
    assert report.evidence.n_negative_bounds[0] == 1 and report.n_negative is None
    assert report.minimum_ratio is None
    assert report.n_products <= lanczos_steps(n, 1e-4, 0.01) + 60


@pytest.mark.parametrize(
    "bulk",
    [
        lambda n: np.linspace(0, 1, n),
        lambda n: np.linspace(0, 1, n) ** 4,
        lambda n: np.logspace(-8, 0, n),
        lambda n: np.r_[np.zeros(n - 50), np.linspace(0.1, 1, 50)],
        lambda n: np.r_[np.full(n - 1, 0.01), 1.0],
    ],
    ids=["uniform", "near zero", "decades", "mostly zero", "one large"],
)
def test_no_false_minimum_for_any_bulk_of_the_spectrum(bulk):
    n = 1500
    for seed in range(3):
        values = np.r_[-1e-4, bulk(n - 1)]
        report = classify_spectrum(values, seed, failure_probability=0.01)
        assert report.kind == "saddle" and report.certified
        assert report.evidence.lambda_min_bounds[0] <= -1e-4 * (1 - 1e-9)


def test_stated_risk_equals_the_bound_of_the_theorem():
    assert lanczos_steps(100_000, 1e-4, 0.01) == 544
    for n, eps, risk in ((10_000, 1e-2, 0.05), (10**6, 1e-4, 1e-3)):
        k = lanczos_steps(n, eps, risk)
        assert lanczos_miss_probability(n, k, eps) <= risk < lanczos_miss_probability(n, k - 1, eps)


@pytest.mark.parametrize("risk", [None, 1e-3])
def test_points_of_known_kind_get_their_verdict_from_products(risk):
    """Verdicts from products agree with the known kinds. Without a failure probability, they may be
    undecided.
    """
    for case in zoo() + axis_saddles(30, rng=8):
        report = classify(
            bare_protocol(case.objective), case.theta, dense_below=0, failure_probability=risk
        )
        allowed = {case.kind, "undecided"} if risk is None else {case.kind}
        if case.kind == "minimum" and case.n_zero:
            allowed.add("degenerate")  # an objective without `orbits` explains no zero eigenvalues
        assert report.kind in allowed, (case.name, report)
        if case.kind == "saddle":
            low, high = report.evidence.n_negative_bounds
            assert 1 <= low <= (case.n_negative or low) and (case.n_negative or 0) <= high


def test_symmetries_explain_zeros_at_large_n():
    net = LinearAutoencoder([5.0, 4.0, 3.0, 2.0, 1.0], 2, rng=1)
    case = net.case((1, 2), rng=1)
    report = classify(net.objective, case.theta, dense_below=0, failure_probability=0.01)
    assert report.kind == "minimum" and report.evidence.n_symmetry == 4
    bare = classify(
        bare_protocol(net.objective), case.theta, dense_below=0, failure_probability=0.01
    )
    assert bare.kind == "degenerate" and bare.evidence.n_symmetry is None


def test_equal_units_do_not_hide_negative_curvature():
    """Negative curvature that is antisymmetric in two equal units is found, although the gradient
    and its Krylov space are symmetric in the two units.
    """
    case = next(case for case in zoo() if case.name.startswith("a unit split with shares 0.5"))
    ob, theta = case.objective, case.theta
    swap = np.array([2, 3, 0, 1, 5, 4])  # exchanges the two units
    assert np.array_equal(theta, theta[swap])
    H = ob.hessian(theta) @ np.eye(6)
    alike = np.linalg.qr((np.eye(6) + np.eye(6)[swap])[:, [0, 1, 4]])[0]
    assert np.linalg.norm(H @ alike - alike @ (alike.T @ H @ alike)) <= 1e-12
    assert np.linalg.eigvalsh(alike.T @ H @ alike)[0] > 1e-3
    report = classify(ob, theta, dense_below=0)
    v = report.escape_direction
    assert report.kind == "saddle" and np.linalg.norm(v + v[swap]) <= 1e-3


def test_networks_of_five_thousand_parameters_are_classified():
    """For five thousand parameters, a random start is not critical, and theta = 0 is a certified
    saddle whose least eigenvalue equals its closed form.
    """
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 400))
    model = fc.MLP([400, 12, 1], "tanh", bias=False)
    y = rng.standard_normal(30)
    ob = fc.Objective(model, X, y, "mse")
    assert ob.n_params == 4812
    start = classify(ob, model.init(rng=0))
    assert start.evidence.method == "krylov" and start.kind == "not_critical"
    origin = classify(ob, np.zeros(4812))  # H = [[0, B], [B', 0]], g = 0
    assert origin.kind == "saddle" and origin.certified
    B = X.T @ (2 * y / 30)
    assert abs(origin.lambda_min + np.linalg.norm(B)) <= 1e-6 * np.linalg.norm(B)


def test_scales_of_parameters_do_not_hide_a_saddle():
    """A negative eigenvalue is found along parameters whose curvature is ten orders of magnitude
    smaller than that of the others.
    """
    values = np.r_[-1.0, np.linspace(0.5, 1, 999)]
    D = np.r_[np.full(500, 1e-5), np.ones(500)]
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((500, 500)))[0]
    A = np.diag(values)
    A[:500, :500] = Q @ A[:500, :500] @ Q.T
    report = classify(
        QuadraticObjective(D[:, None] * A * D),
        np.zeros(1000),
        dense_below=0,
        failure_probability=0.01,
    )
    assert report.kind == "saddle" and abs(report.lambda_min + 1e-10) <= 0.5e-10


class ProductsWithBound(LinearOperator):
    """An operator with the products of H and their rounding bound, and with no other attributes of
    H.
    """

    def __init__(self, H):
        super().__init__(H.dtype, H.shape)
        self.whole = H

    def rounding_bound(self, v):
        return rounding_bound(self.whole, v)

    def _matvec(self, v):
        return self.whole @ v

    def _adjoint(self):
        return self


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_rounding_alone_never_proves_a_negative_eigenvalue(dtype, activation):
    """For the singular, positive semidefinite Gauss-Newton matrix of few samples, no negative
    eigenvalue is proved, although rounding makes computed eigenvalues negative.
    """
    negative = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = fc.MLP([6, 8, 7, 3], activation)
        ob = fc.Objective(
            model,
            10.0 ** rng.uniform(-2, 2) * rng.standard_normal((9, 6)),
            rng.integers(0, 3, 9),
            "cross_entropy",
        ).astype(dtype)
        G = ProductsWithBound(ob.ggn(rng.standard_normal(model.n_params).astype(dtype)))
        for dense_below in (0, 4096):
            how = {"dense_below": dense_below, "failure_probability": 0.01}
            report = classify(QuadraticObjective(G), np.zeros(model.n_params), **how)
            assert report.evidence.n_negative_bounds[0] == 0 and report.escape_direction is None, (
                report
            )
            assert report.kind == "degenerate"
        A = np.asarray(G @ np.eye(model.n_params, dtype=dtype), dtype=float)
        negative += np.linalg.eigvalsh(A + A.T)[0] < 0
    assert negative >= 2


def test_the_dense_matrix_is_used_near_a_critical_point():
    X, y = np.random.default_rng(0).standard_normal((60, 20)), np.arange(60) % 4
    ob = fc.Objective(fc.MLP([20, 30, 4]), X, y, l2=1e-2)
    at_rest = fc.minimize(ob, ob.model.init(rng=0), rng=0)
    assert at_rest.report.evidence.method == "dense" and at_rest.report.certified
    assert fc.classify(ob, at_rest.x * (1 + 1e-9)).evidence.method == "dense"
