"""Objectives whose numbers end: what finders, Newton's walks and verdicts say then."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.nearest import Coordinates, walk
from fastcurv.critical.newton_mr import dense_steps, grow, krylov_steps
from fastcurv.krylov.space import KrylovSpace
from fastcurv.reference import ReferenceModel, ReferenceObjective
from fastcurv.testing import FunctionObjective, LinearAutoencoder, QuadraticObjective
from fastcurv.testing.zoo import polish

BOWL = QuadraticObjective(np.diag([1.0, 2.0]))


def test_steps_from_what_is_no_matrix_of_numbers():
    g = np.ones(3)
    assert dense_steps(np.full((3, 3), np.nan), g).vectors == []
    flat = dense_steps(np.zeros((3, 3)), g)
    assert flat.vectors == [] and flat.norm == 0
    steep = dense_steps(np.diag([1.0, 2.0, 3.0]), g)
    assert len(steep.vectors) > 0 and all(slope < 0 for slope in steep.slopes)


def test_a_krylov_space_of_nothing():
    space = KrylovSpace(3, np.dtype(float), 5)
    space.start(lambda v, out: out.fill(0), np.zeros(3))
    grow(space, 1e-3, 5, lambda: False)
    assert space.m == 0 and krylov_steps(space).norm == 0
    space.start(lambda v, out: out.fill(0), np.ones(3))
    grow(space, 1e-3, 5, lambda: False)
    assert krylov_steps(space).vectors == [] and krylov_steps(space).norm == 0


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_where_the_gradient_leaves_the_numbers(method):
    """The search stays where it is finite."""
    wall = FunctionObjective(
        2,
        lambda x: float(np.sum(np.sqrt(1 - x**2))),
        lambda x: -x / np.sqrt(1 - x**2),
        lambda x: np.diag(-((1 - x**2) ** -1.5)),
    )
    with np.errstate(all="ignore"):
        found = fc.find_critical_point(wall, np.array([0.9, -0.6]), method=method, max_iter=50)
    assert np.isfinite(found.x).all() and np.abs(found.x).max() < 1
    assert np.linalg.norm(found.x) <= 1e-3


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_a_start_that_is_critical_costs_next_to_nothing(method):
    ob = QuadraticObjective(np.diag([1.0, -2.0]))
    found = fc.find_critical_point(ob, np.zeros(2), method=method)
    assert found.success and np.array_equal(found.x, np.zeros(2)) and found.nit == 0


def test_newtons_walk_ends_where_it_cannot_go_on():
    bowl, at = QuadraticObjective(np.diag([1.0, 2.0])), np.array([1.0, 1.0])
    free = Coordinates()
    assert walk(bowl, at, np.zeros(2), free).theta is None, "no gradient, no step"
    none = walk(bowl, at, bowl.gradient(at), free, most_products=0)
    assert none.theta is None and none.n_products == 0
    there = walk(bowl, at, bowl.gradient(at), free)
    assert np.abs(there.theta).max() <= 1e-12 and there.n_products > 0
    root = FunctionObjective(
        1, lambda x: abs(x[0]) ** 1.5, lambda x: 1.5 * np.sign(x) * np.sqrt(abs(x)),
        lambda x: np.array([[0.75 / np.sqrt(abs(x[0]))]]),
    )  # fmt: skip
    away = walk(root, np.ones(1), np.full(1, 1.5), free)
    assert away.theta is None, "each step crosses to the other side and halves nothing"


def test_autoencoders_that_are_none():
    for spectrum in ([1.0, 1.0], [2.0, 0.0], [1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="distinct positive numbers, descending"):
            LinearAutoencoder(spectrum, 1)
    net = LinearAutoencoder([3.0, 2.0, 1.0], 2, seed=0)
    for wrong in ([1, 1], [1, 2, 3], [0], [4]):
        with pytest.raises(ValueError, match="at most 2 different numbers from 1 to 3"):
            net.critical_point(wrong)
    for indices in ([], [1], [3, 1]):
        theta = net.critical_point(indices, seed=1)
        assert np.abs(net.objective.gradient(theta)).max() <= 1e-12


def test_newtons_method_takes_no_more_steps_than_it_may():
    quartic = FunctionObjective(
        1, lambda x: x[0] ** 4, lambda x: 4 * x**3, lambda x: np.diag(12 * x**2)
    )
    assert polish(quartic, np.ones(1), steps=2) == pytest.approx(4 / 9, rel=1e-14)
    assert np.abs(polish(BOWL, np.ones(2))).max() <= 1e-15


def test_products_with_nothing():
    net = ReferenceObjective(ReferenceModel([2, 3, 1]), np.ones((4, 2)), np.zeros(4), "mse")
    H = net.hessian(np.linspace(-1, 1, net.n_params))
    assert not (H @ np.zeros(net.n_params)).any()
    assert np.isnan(H @ np.full(net.n_params, np.nan)).all()
