"""Pieces of the verdict, each against a definition written another way."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical import dense, low_rank
from fastcurv.critical.evidence import hessian_products
from fastcurv.critical.theorem import _scaled_norm
from fastcurv.testing import FunctionObjective, QuadraticObjective


@pytest.mark.parametrize("c", [np.full(4, 0.5), np.array([1.0, 2.0, 0.1, 3.0])])
def test_the_norm_of_a_matrix_scaled_on_both_sides(c, rng):
    A = rng.standard_normal((4, 4))
    assert _scaled_norm(A, c) == pytest.approx(np.linalg.norm(c[:, None] * A * c), rel=1e-14)


def test_where_nothing_curves_all_of_the_gradient_lies_outside():
    """A plane: H is 0, so no part of g is in its range."""
    g = np.array([0.3, -0.4, 1.2])
    plane = FunctionObjective(3, lambda t: g @ t, lambda t: g, lambda t: np.zeros((3, 3)))
    for dense_below in (0, 10):
        point = fc.classify(plane, np.ones(3), dense_below=dense_below)
        assert point.kind == "not_critical" and not point.certified
        assert point.gradient_residual == 1.0 and point.gradient_norm == pytest.approx(1.3)


@pytest.mark.parametrize("low", [-1.0, -1e-3, 1e-3])
def test_ends_of_the_spectrum_are_enclosed(low):
    """By products alone: a Ritz value with its error on either side."""
    values = np.r_[low, np.linspace(0.1, 3, 60)]
    point = fc.classify(QuadraticObjective(np.diag(values)), np.zeros(61), dense_below=0)
    assert point.lambda_min_bounds[0] <= low <= point.lambda_min_bounds[1] + 1e-12
    assert point.lambda_max_bounds[0] - 1e-12 <= 3 <= point.lambda_max_bounds[1]
    assert point.lambda_max_bounds[0] <= point.lambda_max <= point.lambda_max_bounds[1]
    assert point.n_negative_bounds[0] == (1 if low < 0 else 0)


def test_a_notebook_shows_each_line_of_the_evidence_as_a_row():
    point = fc.classify(QuadraticObjective(np.diag([1.0, 2.0])), np.zeros(2))
    html = point._repr_html_()
    for name in ("gradient", "curvature", "inertia", "cost"):
        assert f">{name}<" in html
    assert "2 positive, 0 negative, 0 zero" in html and html.count("<tr") >= 5


def test_jacobians_are_asked_whether_residuals_vanish_as_long_as_they_are_small(monkeypatch):
    """By their entries, rows times parameters; with an l2, or more rows than parameters, never."""
    X, y = np.cos(np.arange(6.0)).reshape(3, 2), np.ones((3, 1))
    net = fc.MLP((2, 3, 1), "tanh")
    ob, theta = fc.Objective(net, X, y, "mse"), net.init(seed=0)
    ask, H = SimpleNamespace(ob=ob, theta=theta), hessian_products(ob, theta)
    for limit, asked in ((3 * theta.size, True), (3 * theta.size - 1, False), (3, False)):
        monkeypatch.setattr(low_rank, "LARGEST_JACOBIAN", limit)
        assert (low_rank.interpolation(ask, H) is not None) == asked
    monkeypatch.undo()
    decayed = SimpleNamespace(ob=fc.Objective(net, X, y, "mse", l2=1e-9), theta=theta)
    many = np.cos(np.arange(2.0 * theta.size + 2)).reshape(-1, 2)
    over = fc.Objective(net, many, np.ones((len(many), 1)), "mse")
    exact = fc.Objective(net, many[:-1], np.ones((len(many) - 1, 1)), "mse")
    assert low_rank.interpolation(decayed, H) is None
    assert low_rank.interpolation(SimpleNamespace(ob=over, theta=theta), H) is None
    assert low_rank.interpolation(SimpleNamespace(ob=exact, theta=theta), H) is not None


@pytest.mark.parametrize("error", [1e-9, 0.1, 0.7])
def test_ends_are_proved_less_the_error_of_the_matrix(error):
    """The quotient of the first and of the last vector, brought towards zero by what H may be off
    by; where that is more than the matrix shows, by a product.
    """
    values = np.array([-0.5, 0.3, 2.0])
    cut = SimpleNamespace(c=np.array([2.0, 1.0, 0.5]), vectors=np.eye(3), values=values)
    none = SimpleNamespace(c=np.ones(3), vectors=np.zeros((3, 0)), values=np.zeros(0), error=0.0)
    full = SimpleNamespace(A=np.diag(values), n=3, M=SimpleNamespace(error=lambda: error))
    H = SimpleNamespace(
        rayleigh=lambda v: (float(v @ (values * v)), 1e-3, v), affords=lambda k: True
    )
    low, high = dense._ends(H, full, SimpleNamespace(plain=none, best=cut), np.array([-1, 0, 1]))
    assert abs(low.vector) == pytest.approx([1, 0, 0]) and low.quotient == -0.5
    assert low.error == pytest.approx(error if error < 0.5 else 1e-3, rel=1e-9, abs=1e-14)
    assert high.quotient == 2.0 and high.error == pytest.approx(error, rel=1e-9, abs=1e-14)
