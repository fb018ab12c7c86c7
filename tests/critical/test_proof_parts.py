"""Single parts of proofs, each against an independent definition: hypotheses at kinks that fail one
by one, two fixed vectors, orbits and slices.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify.kinks import HypothesisMargins
from fastcurv.common.objectives import budgeted_hessian
from fastcurv.critical import classify, dense
from fastcurv.critical.dense import _ComplementReflections
from fastcurv.critical.kink_minimum import prove_kink_minimum
from fastcurv.critical.theorem import (
    ComplementEigenpairs,
    newton_step_in_slice,
    radius_of_opposite_signs,
    spans_orbit,
)
from fastcurv.testing import QuadraticObjective

WIDE = dict.fromkeys(("signs", "slopes", "upward", "collapsed", "copies"), 1.0)


class Quadratic:
    """The function ``(theta_0^2 + 2 theta_1^2) / 2 + t (theta_0 - at)``, with one kink at theta_0 =
    at, where the slope t is added.
    """

    n_theta, n_slopes, n_params, n_kinks, n_collapsed, n_copies = 2, 1, 3, 1, 0, 0

    def __init__(self, curvature=(1.0, 2.0), coupling=1.0, third=0.0, off=0.0, margins=WIDE):
        self.curvature, self.coupling, self.third, self.off = curvature, coupling, third, off
        self.given, self.units = margins, np.ones(1)

    def with_slope_units(self, units):
        other = Quadratic(self.curvature, self.coupling, self.third, self.off, self.given)
        other.units = units
        return other

    def hessian(self, point):
        K = np.diag([*self.curvature, 0.0])
        K[0, 2] = K[2, 0] = self.coupling
        return K

    def precise_gradient(self, point):
        return self.hessian(point) @ (point - [0.0, 0.0, 0.5]), np.full(3, 1e-16)

    def hessian_error(self, point):
        return self.off

    def third_bound(self, point, radius):
        return self.third

    def hypothesis_margins(self, point, radius):
        return HypothesisMargins(**self.given)


AT = np.array([0.0, 0.0, 0.5])


def test_kink_minima_are_proved_within_newtons_step():
    for far in (0.0, 1e-12, 1e-6, 1e-3):
        found = prove_kink_minimum(Quadratic(), AT + far)
        assert found.certified and found.missing == ""
        assert far <= found.radius <= 6 * far + 1e-13, "it holds the point, in units of the slope"
        assert found.kantorovich == 0
        assert found.n_kinks == 1 and found.n_copies == found.n_collapsed == 0


@pytest.mark.parametrize("third, holds", [(1.0, True), (1e3, True), (1e7, False)])
def test_too_large_a_third_derivative_prevents_a_proof(third, holds):
    found = prove_kink_minimum(Quadratic(third=third), AT + 1e-6)
    assert found.certified == holds and (found.kantorovich < 0.5) == holds
    if not holds:
        assert found.missing == "h"


@pytest.mark.parametrize(
    "changed, missing",
    [
        ({"curvature": (1.0, -2.0)}, "negative"),
        ({"curvature": (1.0, 0.0)}, "zero"),
        ({"curvature": (1.0, 1e-9), "off": 1e-8}, "zero"),
        ({"coupling": 0.0}, "zero"),
        ({"curvature": (np.nan, 1.0)}, "not_finite"),
        ({"margins": WIDE | {"signs": 0.0}}, "signs"),
        ({"margins": WIDE | {"slopes": -1.0}}, "slopes"),
        ({"margins": WIDE | {"upward": np.nan}}, "upward"),
        ({"margins": WIDE | {"collapsed": 0.0}}, "collapsed"),
        ({"margins": WIDE | {"copies": 0.0}}, "copies"),
    ],
)
def test_every_failed_hypothesis_prevents_a_kink_proof(changed, missing):
    found = prove_kink_minimum(Quadratic(**changed), AT)
    assert not found.certified and found.missing == missing


def test_units_of_slopes_allow_a_proof_for_weak_coupling():
    """With a coupling of 1e-6 between slope and theta, the proof of a minimum at a kink fails in
    the units of theta, where ``1 / beta`` is tiny, and holds in units of the slope.
    """
    found = prove_kink_minimum(Quadratic((1.0, 2.0), 1e-6, third=1.0), AT + [1e-9, 1e-9, 0.0])
    assert found.certified and found.min_abs_eigenvalue_bound > 1e-3


@pytest.mark.parametrize("L", [1e-3, 1.0, 1e3])
def test_radius_for_two_signs_is_close_to_the_largest_valid_one(L):
    """For the bound ``L(r) = L (1 + r)`` on the third derivative, the largest valid radius solves
    ``L (1 + r) r = margin``. The returned radius is at most that one, and at least 30% of it.
    """
    radius = radius_of_opposite_signs(-0.5, 2.0, lambda r: L * (1 + r))
    sharp = (-1 + (1 + 2 / L) ** 0.5) / 2
    assert 0.3 * sharp <= radius <= sharp
    assert radius_of_opposite_signs(-2.0, 0.5, lambda r: L * (1 + r)) == radius, (
        "the smaller size counts"
    )
    assert radius_of_opposite_signs(-2.0, 1.0, lambda r: L) == pytest.approx(1 / L)


def test_two_signs_need_finite_curvatures_and_bounds():
    for pair in ((0, 1), (-1, 0), (1, 2), (1, 1), (np.nan, 1), (-1, np.nan), (-np.inf, np.inf)):
        assert radius_of_opposite_signs(*map(float, pair), lambda r: 1.0) == 0
    for L in (np.nan, np.inf, -1.0):
        assert radius_of_opposite_signs(-1.0, 1.0, lambda r, L=L: L) == 0
    assert radius_of_opposite_signs(-1.0, 1.0, lambda r: 0.0) == np.inf
    assert 0.05 < radius_of_opposite_signs(-1.0, 1.0, lambda r: 10 * r) < 0.3163, (
        "10 r r = 1, and none at theta"
    )
    assert radius_of_opposite_signs(-1.0, 1.0, lambda r: 1.0 if r == 0 else np.inf) == 0
    grows = radius_of_opposite_signs(-1.0, 1.0, lambda r: 0.0 if r <= 0.25 else np.inf)
    assert 0.1 <= grows <= 0.25, "no third derivative at theta, and none known beyond a quarter"


def test_an_orbit_keeps_its_dimension_while_its_tangents_stay_independent():
    span = np.eye(4)[:, :2]
    tangents = span @ np.diag([1.0, 0.5])
    assert spans_orbit(span, tangents, 1.0, 0.0, 0.49)
    assert not spans_orbit(span, tangents, 1.0, 0.0, 0.5)
    assert not spans_orbit(span, tangents, 0.0, 0.5, 0.0)
    assert spans_orbit(span, tangents, 0.0, 0.49, np.inf)
    assert not spans_orbit(span, tangents, np.inf, 0.0, 1e-9)
    more = np.c_[tangents, 0 * tangents[:, 0]]
    assert spans_orbit(span, more, 1.0, 0.0, 0.49), "one that is nothing takes none away"
    assert not spans_orbit(span, tangents[:, :1], 0.0, 0.0, 0.0), "fewer than the span"


def test_newton_in_an_empty_slice_takes_no_step():
    empty = ComplementEigenpairs(np.zeros(0), np.zeros((3, 0)), 0.0, np.ones(3), np.eye(3))
    beta, eta, x = newton_step_in_slice(np.zeros((3, 3)), 0.0, empty, np.ones(3), 0.0)
    assert (beta, eta) == (1.0, 0.0) and not x.any()


def test_newton_in_a_slice_bounds_its_step():
    """For A = diag(1, 4, 0) without its last direction, beta and the bound eta on Newton's step
    equal their formulas. They are infinite if an eigenvalue does not exceed its error.
    """
    A, g = np.diag([1.0, 4.0, 0.0]), np.array([0.5, 2.0, 0.0])
    cut = ComplementEigenpairs(
        np.array([1.0, 4.0]), np.eye(3)[:, :2], 0.25, np.ones(3), np.eye(3)[:, 2:]
    )
    beta, eta, x = newton_step_in_slice(A, 0.125, cut, g, 0.0625)
    assert np.allclose(x, [-0.5, -0.5, 0.0], rtol=1e-15)
    length = np.linalg.norm(x)
    assert beta == pytest.approx(1 / 0.75, rel=1e-12)
    assert eta == pytest.approx(length + (0.0625 + 0.125 * length) / 0.75, rel=1e-12)
    assert eta >= length + (0.0625 + 0.125 * length) / 0.75
    weak = ComplementEigenpairs(
        np.array([0.25, 4.0]), np.eye(3)[:, :2], 0.25, np.ones(3), np.eye(3)[:, 2:]
    )
    assert newton_step_in_slice(A, 0.0, weak, g, 0.0)[:2] == (np.inf, np.inf)


@pytest.mark.parametrize("n, s", [(6, 1), (40, 5), (60, 33), (150, 140)])
def test_errors_of_projections_are_within_their_bound(n, s):
    """Projections onto the complement of a span differ from the same reflections in long double by
    at most their rounding bound, at all scales.
    """
    rng = np.random.default_rng([n, s])
    span = np.linalg.qr(rng.standard_normal((n, s)))[0]
    off = _ComplementReflections(span)
    V = np.tril(off.raw, -1).astype(np.longdouble)
    V[np.diag_indices(s)] = 1
    for scale in (np.ones(n), 10.0 ** rng.uniform(-6, 0, n)):
        A = rng.standard_normal((n, n)) * scale
        A = A + A.T
        exact = A.astype(np.longdouble)
        for v, tau in zip(V.T, off.tau):
            v = v * np.sqrt(2 / (v @ v)) * (tau != 0)
            exact = exact - np.outer(v, v @ exact)
            exact = exact - np.outer(exact @ v, v)
        error = np.linalg.norm((exact[s:, s:] - off.project_matrix(A)).astype(float), 2)
        assert error <= off.rounding_bound() * np.linalg.norm(A)
        assert off.rounding_bound() < 1e-9 * s or s > 128


@pytest.mark.parametrize("low", [-1.0, -1e-3, 1e-3])
def test_ends_of_the_spectrum_are_enclosed(low):
    """Without a matrix, each end of the spectrum is reported as a Ritz value with error bounds."""
    values = np.r_[low, np.linspace(0.1, 3, 60)]
    point = fc.classify(QuadraticObjective(np.diag(values)), np.zeros(61), dense_below=0)
    assert point.evidence.lambda_min_bounds[0] <= low <= point.evidence.lambda_min_bounds[1] + 1e-12
    assert point.evidence.lambda_max_bounds[0] - 1e-12 <= 3 <= point.evidence.lambda_max_bounds[1]
    assert (
        point.evidence.lambda_max_bounds[0]
        <= point.lambda_max
        <= point.evidence.lambda_max_bounds[1]
    )
    assert point.evidence.n_negative_bounds[0] == (1 if low < 0 else 0)


def test_the_interpolation_theorem_is_tried_for_small_jacobians_only(monkeypatch):
    """The interpolation theorem is tried only if samples times parameters are at most the limit, l2
    is 0, and there are at most as many residuals as parameters.
    """
    X, y = np.cos(np.arange(6.0)).reshape(3, 2), np.ones((3, 1))
    net = fc.MLP((2, 3, 1), "tanh")
    ob, theta = fc.Objective(net, X, y, "mse"), net.init(rng=0)
    ask, H = SimpleNamespace(ob=ob, theta=theta), budgeted_hessian(ob, theta)
    for limit, asked in ((3 * theta.size, True), (3 * theta.size - 1, False), (3, False)):
        monkeypatch.setattr(classify, "MAX_JACOBIAN_ENTRIES", limit)
        assert (classify.check_interpolation(ask, H) is not None) == asked
    monkeypatch.undo()
    decayed = SimpleNamespace(ob=fc.Objective(net, X, y, "mse", l2=1e-9), theta=theta)
    many = np.cos(np.arange(2.0 * theta.size + 2)).reshape(-1, 2)
    over = fc.Objective(net, many, np.ones((len(many), 1)), "mse")
    exact = fc.Objective(net, many[:-1], np.ones((len(many) - 1, 1)), "mse")
    assert classify.check_interpolation(decayed, H) is None
    assert classify.check_interpolation(SimpleNamespace(ob=over, theta=theta), H) is None
    assert classify.check_interpolation(SimpleNamespace(ob=exact, theta=theta), H) is not None


@pytest.mark.parametrize("error", [1e-9, 0.1, 0.7])
def test_proved_ends_of_the_spectrum_include_the_error_of_the_matrix(error):
    """The proved ends of the spectrum are Rayleigh quotients with the error of the matrix. If that
    error exceeds the eigenvalue, a product gives the quotient and its error.
    """
    values = np.array([-0.5, 0.3, 2.0])
    cut = SimpleNamespace(c=np.array([2.0, 1.0, 0.5]), vectors=np.eye(3), values=values)
    none = SimpleNamespace(c=np.ones(3), vectors=np.zeros((3, 0)), values=np.zeros(0), error=0.0)
    full = SimpleNamespace(A=np.diag(values), n=3, error=error)
    H = SimpleNamespace(
        rayleigh_quotient_with_error=lambda v: (float(v @ (values * v)), 1e-3, v),
        allows=lambda k: True,
    )
    low, high = dense._extreme_vectors(
        H, full, SimpleNamespace(plain=none, best=cut), np.array([-1, 0, 1])
    )
    assert abs(low.vector) == pytest.approx([1, 0, 0]) and low.quotient == -0.5
    assert low.error == pytest.approx(error if error < 0.5 else 1e-3, rel=1e-9, abs=1e-14)
    assert high.quotient == 2.0 and high.error == pytest.approx(error, rel=1e-9, abs=1e-14)
