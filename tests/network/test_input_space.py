"""The first layer turned to the row space of X, and sparse rows, against dense matrices."""

import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.gram import InCoordinates
from fastcurv.network.spaces import InputSpace, shrinks

from ..nets import CURVATURES
from .product_cases import EXACT, in_coordinates

pytestmark = pytest.mark.by_day(share=1 / 2)


def table(rng, N, kind):
    """Rows with columns that are constant, sums of others, zero, or none of these."""
    X = rng.standard_normal((N, 4))
    return {
        "constant": np.hstack([X, np.full((N, 2), 3.0)]),
        "dependent": np.hstack([X, X[:, :2] + 1.0, 2 * X[:, :1]]),
        "zero": np.zeros((N, 3)),
        "full": X,
    }[kind]


@pytest.mark.parametrize("data", ["constant", "dependent", "zero", "full"])
@pytest.mark.parametrize("kind", CURVATURES)
def test_is_the_same_operator_in_other_coordinates(data, kind, rng):
    """Coordinates and complement are an orthonormal basis in which it is R and l2."""
    for N in (1, 3, 30):
        for bias, l2_biases, norm in ((1, 1, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1), (0, 0, 1)):
            if norm and (kind == "empirical_fisher" or N == 1):
                continue
            X = table(rng, N, data)
            sizes = [X.shape[1], 4, 3]
            model = fc.MLP(sizes, bias=bool(bias), batch_norm=bool(norm))
            y = rng.integers(3, size=N)
            ob = fc.Objective(model, X, y, l2=0.1, l2_biases=bool(l2_biases))
            H = getattr(ob, kind)(rng.standard_normal(model.n_params))
            in_coordinates(H.reduced("inputs"), H)


def test_what_falls_away(rng):
    """As many coordinates as the rank of [X, 1], or of X where the biases are spared."""
    X, y = table(rng, 30, "dependent"), rng.integers(3, size=30)
    model = fc.MLP([7, 5, 3])
    theta = model.init(seed=0)
    joint = fc.Objective(model, X, y, l2=0.1).hessian(theta).reduced("inputs")
    spared = fc.Objective(model, X, y, l2=0.1, l2_biases=False).hessian(theta).reduced("inputs")
    assert joint.n_rest == 5 * 3  # X has rank 5, with the column of ones still 5 of 8
    assert spared.n_rest == 5 * 2


def test_eigenpairs_and_who_decides(rng):
    """Chosen where many columns are for nothing, and right; a skip is refused in a sentence."""
    X = np.hstack([rng.standard_normal((40, 6)), np.ones((40, 60))])
    ob = fc.Objective(fc.MLP([66, 8, 3]), X, rng.integers(3, size=40), l2=0.01)
    H = ob.hessian(ob.model.init(seed=0))
    pairs = fc.eigsh(H, 9, "BE", tol=1e-12, space="inputs", seed=0)
    assert pairs.space == "inputs" and pairs.converged.all()
    truth = fc.eigvalsh(H)
    assert np.abs(pairs.values - np.r_[truth[:4], truth[-5:]]).max() <= EXACT
    V = pairs.vectors
    assert (np.linalg.norm(H @ V - V * pairs.values, axis=0) <= pairs.residuals + 1e-14).all()
    assert np.abs(fc.eigvalsh(H, space="inputs") - truth).max() <= EXACT
    assert tuple(fc.inertia(H, space="inputs")) == tuple(fc.inertia(H))
    assert H.reduced() is None and not shrinks(ob)  # too small to be worth while
    large = fc.Objective(fc.MLP([306, 40, 3]), np.hstack([X] * 5)[:, :306], ob.y)
    assert shrinks(large) and large.hessian(large.model.init(seed=0)).reduced().space == "inputs"
    again = pickle.loads(pickle.dumps(InputSpace(H)))
    assert again.shape == InputSpace(H).shape
    skip = fc.Objective(fc.MLP([4, 4, 1], residual=True), X[:, :4], X[:, 0], "mse")
    assert skip.hessian(skip.model.init(seed=0)).reduced() is None
    with pytest.raises(ValueError, match="first layer has a skip"):
        skip.hessian(skip.model.init(seed=0)).reduced("inputs")


def test_float32(rng):
    X = table(rng, 30, "dependent").astype(np.float32)
    ob = fc.Objective(fc.MLP([7, 5, 3], dtype="float32"), X, rng.integers(3, size=30), l2=0.1)
    H = ob.hessian(ob.model.init(seed=0))
    R = H.reduced("inputs")
    x = rng.standard_normal(R.shape[0]).astype(np.float32)
    assert R.defect(x) <= 100 * np.finfo(np.float32).eps * np.linalg.norm(R @ x)


@pytest.mark.parametrize("space", ["samples", "inputs"])
def test_what_products_differ_by_is_part_of_the_residuals(space, rng, monkeypatch):
    """A pair found in a space stands in parameter space, where products are the operator's own."""
    X = rng.standard_normal((5, 40)) if space == "samples" else np.ones((90, 1)) * np.arange(6.0)
    model = fc.MLP([X.shape[1], 30, 30, 2])
    H = fc.Objective(model, X, rng.standard_normal((len(X), 2)), "mse").hessian(model.init(seed=0))
    plain = fc.eigsh(H, 2, space=space, seed=0)
    monkeypatch.setattr(InCoordinates, "defect", lambda self, x: 0.25)
    assert np.allclose(fc.eigsh(H, 2, space=space, seed=0).residuals, plain.residuals + 0.25)
    assert plain.residuals.max() < 1e-3


def test_bounds_on_columns_add_what_both_spaces_differ_by(problem, rng):
    """Together they are what the columns of parameter space are proved to, and eight times the
    difference that eight random vectors show.
    """
    p = problem(rng, (5, 6, 2), "tanh", "mse", 3, l2=0.1)
    K = p.ob.ggn(p.theta).reduced("inputs")
    bounds = InCoordinates.column_bounds(K)
    m, draw = K.shape[0], np.random.default_rng(0)
    seen = [K.defect(draw.standard_normal(m)) ** 2 for _ in range(8)]
    whole = np.linalg.norm(p.ob.ggn(p.theta).column_bounds())
    assert np.linalg.norm(bounds) == pytest.approx(8 * np.mean(seen) ** 0.5 + whole, rel=1e-6)


@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "elu"])
@pytest.mark.parametrize("kind", CURVATURES)
def test_a_kink_that_is_hit_is_hit_in_every_space(kind, phi, dtype, rng):
    """Rows of zeros and copies under biases of 0, and z that are 0 by what cancels exactly."""
    X = rng.integers(-2, 3, (9, 12)) / 2
    X[2], X[5], X[7] = 0, 0, X[3]
    for hidden, residual in (([4], False), ([4, 4, 4], True)):
        model = fc.MLP([12, *hidden, 2], phi, residual=residual, dtype=dtype)
        weight = rng.choice([1.0, 2.0], 9)
        weight[[2, 8]] = 0  # leaves rows of more directions than a layer has units
        ob = fc.Objective(model, X, rng.integers(2, size=9), l2=0.01, sample_weight=weight)
        start = model.init(seed=0)
        assert (model.preactivations(start, X)[0][[2, 5]] == 0).all()
        for theta in (start, rng.integers(-2, 3, len(start)) / 2):
            op = getattr(ob, kind)(theta)
            A = op.to_dense()
            room = (1e3 if dtype == "float64" else 1e2) * np.finfo(dtype).eps * np.linalg.norm(A)
            for space in ("inputs", "samples") if kind == "hessian" else ("inputs", "outputs"):
                gap = fc.eigvalsh(op, space=space) - np.linalg.eigvalsh(A.astype(float))
                assert np.abs(gap).max() <= room, space


def test_the_default_space_of_sparse_rows_at_a_start_converges(rng):
    """Rows of zeros, as of empty documents, under the biases that `init` makes."""
    X = rng.standard_normal((60, 2000)) * (rng.random((60, 2000)) < 0.05)
    X[[3, 7]] = 0
    model = fc.MLP([2000, 8, 2], "relu")
    H = fc.Objective(model, X, rng.integers(2, size=60)).hessian(model.init(seed=1))
    found = fc.eigsh(H, 2, "LA", seed=0)
    wanted = fc.eigsh(H, 2, "LA", seed=0, space="parameters")
    assert found.space == "inputs" and found.converged.all()
    assert np.abs(found.values - wanted.values).max() <= 1e-7


def test_a_fisher_near_a_fit_is_that_of_the_products_in_every_space(rng):
    """What is left of delta is rounding: all spaces square the same."""
    x, p = rng.standard_normal((1, 10)), np.array([[0.125, 0.1875, 0.1875, 0.5]])
    ob = fc.Objective(fc.MLP([10, 4]), x, p)
    F = ob.empirical_fisher(np.r_[1e-18 * rng.standard_normal(40), np.log(p[0] * 1.3)])
    wanted = np.trace(F.to_dense())
    assert wanted > 0
    for space in ("outputs", "samples", "inputs"):
        assert np.isclose(fc.trace(F, space=space).estimate, wanted, rtol=1e-10, atol=0), space


def test_a_column_of_ones_beside_large_columns_is_turned_by_itself(rng):
    """Beside columns of 1e71 it is lost in rounding; the bias then keeps its own numbers."""
    X = rng.standard_normal((30, 7)) * 1e71
    model = fc.MLP([7, 3, 2], "identity")
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(seed=0))
    A = G.to_dense()
    values = np.linalg.eigvalsh(A)
    assert np.abs(fc.eigvalsh(G, space="inputs") - values).max() <= 1e-12 * values[-1]
    X[:] = 1e71  # and where ones are orthogonal to what is kept
    X[::2] *= -1
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(seed=0))
    assert abs(fc.trace(G, space="inputs").estimate / np.trace(G.to_dense()) - 1) <= 1e-12


def test_no_smaller_operator_has_no_rows(rng):
    """Where products reach nothing the matrix is 0, and no default trips over a space."""
    ob = fc.Objective(fc.MLP([3, 2], bias=False), np.zeros((4, 3)), [0, 1, 1, 0])
    assert fc.trace(ob.hessian(np.zeros(6)), space="inputs").estimate == 0
    X = rng.standard_normal((40, 900)) * (np.arange(900) < 20)  # as many features as units
    wide = fc.Objective(fc.MLP([900, 20, 3], residual=True), X, rng.integers(3, size=40))
    H = wide.hessian(wide.model.init(seed=0))
    found = H.reduced()
    assert found is None or found.space != "inputs"
