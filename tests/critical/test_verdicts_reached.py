"""Verdicts at large n where the rows reach few dimensions: as certain as at small n."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.reached import Reached

SIZES, N = (24, 18, 16, 3), 3


def trained(rng, loss="mse", l2=1e-2, **options):
    model = fc.MLP(SIZES, "tanh")
    X = rng.standard_normal((N, SIZES[0]))
    y = rng.permutation(3) if loss == "cross_entropy" else rng.standard_normal((N, 3))
    ob = fc.Objective(model, X, y, loss, l2=l2, **options)
    theta = fc.minimize(ob, model.init(seed=0), "newton-cg", max_iter=400).x
    return ob, theta


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_minimum_is_certified_and_counted(loss, rng):
    ob, theta = trained(rng, loss)
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=500)
    assert ob.n_params > 500 and dense.kind == point.kind == "minimum"
    assert point.certified and point.failure_probability == 0
    assert point.n_positive == ob.n_params and point.n_negative_bounds == (0, 0)
    assert point.n_reached < 500 and point.rest == ob.l2
    lowest = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0]
    assert abs(point.lambda_min - lowest) < 1e-11
    assert f"{ob.n_params - point.n_reached} of the eigenvalues are l2 = 0.01" in point.reason
    assert "reached" in repr(point)
    again = fc.classify(ob.astype("float64"), theta, dense_below=100)  # too few: as before
    assert again.n_reached is None and again.n_positive is None


def saddle_at_zero(rng, l2):
    """A net of one hidden layer whose H at 0 is l2 but for the block [[0, B], [B', 0]]."""
    X, y = rng.standard_normal((2, 30)), rng.standard_normal((2, 1))
    y -= y.mean(axis=0)
    ob = fc.Objective(fc.MLP((30, 20, 1), "tanh"), X, y, "mse", l2=l2)
    B = np.linalg.norm(2 / 2 * (y.T @ X))
    return ob, B


def test_a_saddle_with_its_inertia(rng):
    """At 0 each of the 20 units has the eigenvalues l2 +- sigma, and the last bias 2 + l2."""
    ob, sigma = saddle_at_zero(rng, 0.1)
    assert sigma > 0.2
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    assert point.kind == "saddle" and point.certified
    assert (point.n_negative, point.n_zero) == (20, 0)
    assert point.n_positive == ob.n_params - 20
    assert abs(point.lambda_min - (0.1 - sigma)) < 1e-12


def test_zeros_are_at_least_what_no_row_reaches(rng):
    """Without l2 the rest is 0: no minimum is claimed, and the zeros are counted."""
    ob, sigma = saddle_at_zero(rng, 0.0)
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    assert point.kind == "saddle" and point.n_negative == 20
    assert point.n_zero >= ob.n_params - point.n_reached and point.rest == 0


@pytest.mark.parametrize("share", [1 + 1e-9, 1 - 1e-9, 1.0, 1 + 1e-14, 1 - 1e-14])
def test_never_wrong_where_an_eigenvalue_is_nearly_zero(share, rng):
    """l2 beside sigma: the weakest 20 eigenvalues are ``sigma (share - 1)``."""
    _, sigma = saddle_at_zero(np.random.default_rng(5), 0.0)
    ob, sigma = saddle_at_zero(np.random.default_rng(5), sigma * share)
    point = fc.classify(ob, np.zeros(ob.n_params), dense_below=200)
    if point.certified:
        assert abs(share - 1) > 1e-12
        assert point.kind == ("saddle" if share < 1 else "minimum")
    if point.n_negative is not None:
        assert point.n_negative == 0 if share >= 1 else point.n_negative in (0, 20)


def test_spared_biases_and_the_shift_of_logits(rng):
    """With l2 on the matrices alone the shift of all logits is a symmetry, in reach and proved."""
    ob, theta = trained(rng, "cross_entropy", 0.01, l2_biases=False)
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=500)
    assert point.certified and point.n_symmetry == 1
    assert (point.kind, point.certified) == (dense.kind, dense.certified)
    assert (point.n_positive, point.n_negative, point.n_zero, point.n_symmetry) == (
        dense.n_positive,
        dense.n_negative,
        dense.n_zero,
        dense.n_symmetry,
    )


def test_an_interpolating_net_is_a_global_minimum_at_large_n(rng):
    ob, theta = trained(rng, "mse", 0.0)
    point = fc.classify(ob, theta, dense_below=100)
    point = point if point.at_nearest is None else point.at_nearest
    assert point.kind == "minimum" and point.certified and "residuals are 0" in point.reason
    assert point.n_positive == 3 * N


def test_float32_is_proved_as_its_stored_numbers(rng):
    ob, theta = trained(rng)
    low = ob.astype("float32")
    point = fc.classify(low, theta.astype("float32"), dense_below=500)
    assert point.n_reached is not None or point.kind == "not_critical"


def test_budget_and_other_nets(rng):
    """Too small a budget, batch normalisation, and relu's kinks: the answers of before."""
    ob, theta = trained(rng)
    point = fc.classify(ob, theta, dense_below=500, max_products=200)
    assert point.n_reached is None and point.n_positive is None
    relu = fc.Objective(fc.MLP(SIZES, "relu"), ob.X, ob.y, "mse", l2=0.01)
    at = fc.classify(relu, np.zeros(relu.n_params), dense_below=500)
    assert not at.certified


def test_a_class_that_no_row_has_leaves_no_minimum(rng):
    """Its bias, spared by l2, runs off: curvature is positive, weak, and does not last."""
    ob, _ = trained(rng, "cross_entropy", 0.05, l2_biases=False)
    ob = fc.Objective(ob.model, ob.X, [0, 1, 1], l2=0.05, l2_biases=False)
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=400).x
    point = fc.classify(ob, theta, dense_below=500)
    assert point.kind != "minimum" and not point.certified


def test_signs_of_very_weak_curvature_are_no_verdict(rng):
    """Proved at theta, beyond what can be seen to last: nothing is said of the point."""
    X, y = rng.standard_normal((1, 13)), np.array([[1.0]])
    model = fc.MLP((13, 8, 1), "elu")
    ob = fc.Objective(model, X, y, "binary_cross_entropy", l2=0.1)
    theta = fc.minimize(ob, model.init(seed=0), "newton-cg", max_iter=60).x
    dense = fc.classify(ob, theta)
    point = fc.classify(ob, theta, dense_below=100)
    if not point.certified and dense.kind == "degenerate":
        assert point.kind in ("degenerate", "undecided", "not_critical")
    assert not (point.certified and not dense.certified and dense.kind == "degenerate")


class Plane:
    """A space that symmetries fill: two of three dimensions in reach, curvature 0.1 beside it."""

    n, m, n_rest, rest = 3, 2, 1, 0.1

    def embed(self, x):
        return np.append(x, 0.0)

    def outside(self, seed=0):
        return np.array([0.0, 0.0, 1.0])


def test_the_ends_of_a_space_that_symmetries_fill():
    """Nothing is left inside: the only curvature is the one outside."""
    none = np.zeros((2, 0))
    known = Reached(Plane(), np.zeros(0), none, 1e-12, np.eye(3)[:, :2])
    ((value, v),) = known.ends()
    assert value == 0.1 and v.tolist() == [0, 0, 1]
    assert known.weakest == 0.1 - 1e-12 and known.chosen(3)[1].shape == (3, 0)
