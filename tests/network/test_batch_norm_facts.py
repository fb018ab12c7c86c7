"""Batch normalisation: bounds on rounding, symmetries, dead units and verdicts."""

import numpy as np
import pytest

import fastcurv as fc

from ..nets import draw
from .product_cases import STEP, normed

# --- rounding, and what symmetry decides
# --------------------------------------------------------------------------------------


def exact(p, v=None):
    """The gradient, or the Hessian times v, by complex steps in long double."""
    theta = p.theta.astype(np.longdouble)
    if v is None:
        return p.ref.value_and_gradient(theta)[1]
    return p.ref.value_and_gradient(theta + 1j * STEP * v.astype(np.longdouble))[
        1
    ].imag / np.longdouble(STEP)


@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus", "relu"])
def test_rounding_bounds_hold_and_are_of_use(arch, dtype, activation):
    """Also for a theta that makes errors grow: large weights, tiny ones whose z hardly vary,
    features far from 0.
    """
    for i, (sizes, loss) in enumerate(
        (
            ([5, 9, 9, 3], "cross_entropy"),
            ([4, 17, 2], "mse"),
            ([3, 6, 6, 6, 6, 2], "binary_cross_entropy"),
        )
    ):
        p = normed(sizes, activation, loss, 30, residual=True, l2=0.01, dtype=dtype)
        for scale in (1.0, 30.0, 1e-3):
            p.theta = (p.model.init(seed=i) * scale).astype(dtype)
            H, v = p.ob.hessian(p.theta), p.V[:, 0]
            room = 1 + np.finfo(np.longdouble).eps / np.finfo(dtype).eps
            for computed, true, bound in (
                (H.gradient, exact(p), p.ob.rounding_bound(p.theta)),
                (H @ v, exact(p, v), H.rounding_bound(v)),
            ):
                error = float(np.linalg.norm((computed - true).astype(float)))
                size = float(np.linalg.norm(true.astype(float)))
                assert error <= bound * room + 1e-16 * size, (sizes, scale)
                if scale == 1.0 and dtype == "float32":
                    assert bound <= 3 * error + 1e-9 * size  # measured against a float64 pass
                elif scale == 1.0:
                    assert bound <= 1e-7 * size


def test_bounds_of_columns_cover_the_dense_matrix():
    p = normed([3, 5, 4, 2], "tanh", N=20, l2=0.1)
    H = p.ob.hessian(p.theta)
    bounds = H.column_bounds()
    for j, e in enumerate(np.eye(p.n)):
        assert np.linalg.norm((H @ e - exact(p, e)).astype(float)) <= bounds[j] <= 1e-9
        assert np.isclose(bounds[j], H.rounding_bound(e))
    block = H.restrict(layers=[1])
    assert np.array_equal(block.column_bounds(), bounds[block.indices])
    assert np.isinf(p.ob.jacobian(p.theta).row_bounds()).all()
    plain = draw(0, [3, 5, 4, 2], N=20)
    bounds = plain.ob.jacobian(plain.theta).row_bounds()
    assert (bounds > 0).all() and bounds.max() < 1e-12


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("bias", [True, False])
def test_flat_directions(activation, bias):
    """Each is a zero mode where the gradient vanishes, and ||Ht|| <= ||g|| elsewhere; the size of W
    is none of them.
    """
    p = normed([4, 3, 3, 2], activation, N=60, bias=bias)
    p.ob.X[:, 3] = 2.0  # constant: nothing that the mean lets through
    model = p.model
    T = p.ob.certificates.flat_directions(p.theta)
    H, g = p.ob.hessian(p.theta), p.ob.gradient(p.theta)
    # weights of the constant feature; every b; gamma and beta scaled; beta of a linear unit moved
    expected = (
        3 + 6 * bias + 6 * (activation != "tanh") + (3 + 3 * bias) * (activation == "identity")
    )
    assert np.linalg.matrix_rank(T) == T.shape[1] == expected
    assert np.all(np.linalg.norm(H @ T, axis=0) <= np.linalg.norm(g) * (1 + 1e-9))
    assert np.all(np.abs(g @ T) <= 1e-12 * np.linalg.norm(T, axis=0))
    exactly = np.linalg.norm(H @ T, axis=0) <= 1e-13
    assert exactly.sum() >= 3 + 6 * bias
    for t in T.T[exactly]:
        assert np.isclose(p.ob.value(p.theta + t), p.ob.value(p.theta), rtol=1e-13)
    W = np.zeros(p.n)
    W[:12] = p.theta[:12]
    assert np.linalg.norm(W - T @ np.linalg.lstsq(T, W, rcond=None)[0]) > 0.1
    regular = fc.Objective(model, p.ob.X, p.ob.y, loss="mse", l2=0.1)
    assert regular.certificates.flat_directions(p.theta).shape == (p.n, 0)


def test_dead_units_kinks_and_probes():
    model = fc.MLP([3, 4, 2], "relu", batch_norm=True)
    X = np.random.default_rng(0).standard_normal((30, 3))
    W, W2 = (
        np.random.default_rng(1).standard_normal((4, 3)),
        np.random.default_rng(2).standard_normal((2, 4)),
    )
    ob = fc.Objective(model, X, X[:, :2], loss="mse")
    gamma, beta = np.array([1.0, 0.5, 1.0, 0.0]), np.array([0.1, -50.0, 0.2, 0.0])
    theta = model.flatten([(W, np.zeros(4), gamma, beta), (W2, np.zeros(2))])
    H, T = ob.hessian(theta), ob.certificates.flat_directions(theta)
    assert (
        ob.certificates.saturation(theta)["dead_units"] == 2 and ob.certificates.kinks(theta) == 30
    )  # gamma = beta = 0: u is 0 for every row
    dead = np.zeros((model.n_params, 3 + 1 + 2 + 2), bool)
    for column, j in enumerate((3, 4, 5, 13, 17, 21)):  # W, b, gamma, beta of unit 1
        dead[j, column] = True
    dead[25, 6] = dead[29, 7] = True  # and its outgoing weights
    for e in dead.T.astype(float):
        assert (
            not (H @ e).any()
            and np.linalg.norm(e - T @ np.linalg.lstsq(T, e, rcond=None)[0]) <= 1e-12
        )
    gamma[3], beta[3] = 0.0, 0.5
    theta = model.flatten([(W, np.zeros(4), gamma, beta), (W2, np.zeros(2))])
    assert ob.certificates.kinks(theta) == 0
    probes = ob.certificates.probes(theta)
    dense = ob.hessian(theta).to_dense()
    assert probes.shape[1] >= 2 and np.allclose(np.linalg.norm(probes, axis=0), 1)
    assert any(
        np.abs(t[[9, 10, 11]]).min() > 0 for t in probes.T
    )  # W of the unit that gamma = 0 hides
    assert dense[9:12, 19].any() and not dense[9:12, 9:12].any()
    assert ob.certificates.curvature_floor(theta) == -np.inf


def test_symmetries_of_the_function():
    from fastcurv.structure.symmetry import flip_tanh, permute_hidden, rescale_relu

    p = normed([4, 6, 5, 2], ["tanh", "relu"], N=30)
    value = p.ob.value(p.theta)
    spectrum = np.linalg.eigvalsh(p.ob.hessian(p.theta).to_dense())
    for other, keeps in (
        (permute_hidden(p.model, p.theta, 0, [3, 1, 0, 2, 5, 4]), True),
        (flip_tanh(p.model, p.theta, 0, [1, 4]), True),
        (rescale_relu(p.model, p.theta, 1, [0, 2], 3.0), False),
    ):
        assert not np.array_equal(other, p.theta) and np.isclose(
            p.ob.value(other), value, rtol=1e-13
        )
        if keeps:
            assert np.allclose(
                np.linalg.eigvalsh(p.ob.hessian(other).to_dense()),
                spectrum,
                atol=1e-12 * np.abs(spectrum).max(),
            )


def test_a_minimum_is_named_and_not_certified():
    """Rows are coupled, so no bound on the third derivative is known: the kind is measured."""
    X = np.random.default_rng(3).standard_normal((40, 2))
    model = fc.MLP([2, 2, 1], "tanh", batch_norm=True)
    ob = fc.Objective(model, X, np.sin(X[:, 0]) + 0.3 * X[:, 1], loss="mse", l2=1e-2)
    found = fc.find_critical_point(
        ob, fc.minimize(ob, model.init(seed=1), "newton-cg", max_iter=200).x
    )
    verdict = fc.classify(ob, found.x)
    values = np.linalg.eigvalsh(ob.hessian(found.x).to_dense())
    assert verdict.kind == ("minimum" if values[0] > 0 else "saddle") and not verdict.certified
