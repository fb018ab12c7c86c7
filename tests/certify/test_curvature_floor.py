"""The curvature floor, a proved lower bound on the eigenvalues of the Hessian, never exceeds the
least eigenvalue of the dense Hessian, and certifies minima of close fits.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import curvature_floor as floor_module
from fastcurv.certify.arithmetic import (
    gram_eigenvalue_bound,
    norm_bound_from_gram,
    spectral_norm_bound,
)
from fastcurv.certify.curvature_floor import curvature_floor, layer_gains
from fastcurv.certify.passes import passes_at
from fastcurv.critical.classify import classify
from fastcurv.spectrum.dense import dense_matrix, matrix_error_bound
from fastcurv.structure.tables import ACTIVATIONS

from ..nets import LOSSES, draw

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)

DEPTHS = ((3, 5, 2), (3, 4, 5, 2), (3, 4, 4, 4, 3), (2, 5, 3, 3, 4, 2))


def objective(sizes, activation="tanh", loss="mse", seed=0, N=20, scale=0.8, noise=None, **options):
    """Return a random objective and theta, which is `scale` times normal numbers. With `noise` and
    the loss mse, the targets are the network's own outputs at theta plus normal noise of that
    standard deviation.
    """
    rng = np.random.default_rng(seed)
    net = draw(rng, sizes, activation, loss, N, soft=True, **options)
    theta = (scale * rng.standard_normal(net.n)).astype(net.theta.dtype)
    if noise is None or loss != "mse":
        return net.ob, theta
    y = net.model.predict(theta, net.X) + noise * rng.standard_normal(net.y.shape)
    return net.objective(y=y), theta


def lowest_eigenvalue(ob, theta, kind="hessian"):
    """Return the least eigenvalue in float64 of the matrix `kind`, by default the Hessian, and a
    bound on the error of that eigenvalue.
    """
    H = getattr(ob.astype("float64"), kind)(theta.astype(float))
    M = dense_matrix(H)
    A, bounds = M.A, M.bounds
    return np.linalg.eigvalsh(A)[0], matrix_error_bound(bounds, np.ones(len(A))) + 16 * len(
        A
    ) * np.finfo(float).eps * np.linalg.norm(A)


def dense_of(ob, theta):
    return ob.hessian(theta).to_dense()


def residual_part(ob, theta):
    """Return the Hessian minus the Gauss-Newton matrix at theta as a dense array."""
    return dense_of(ob, theta) - ob.ggn(theta).to_dense()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_no_eigenvalue_lies_below_the_floor(activation, dtype):
    ratios = []
    for i, (sizes, loss) in enumerate((sizes, loss) for sizes in DEPTHS for loss in LOSSES):
        for residual in ((i + (dtype == "float32")) % 2 == 1,):
            rng = np.random.default_rng(i)
            weight = None if i % 3 else rng.integers(0, 3, 20).astype(float)
            ob, theta = objective(
                sizes,
                activation,
                loss,
                i,
                dtype=dtype,
                bias=i % 2 == 0,
                residual=residual,
                l2=0.01,
                sample_weight=weight,
                noise=(None, 0.0, 1e-6)[i % 3] if loss == "mse" else None,
            )
            floor, (low, error) = curvature_floor(ob, theta), lowest_eigenvalue(ob, theta)
            assert -np.inf < floor <= min(low + error, 0.01), (sizes, loss, residual)
            R = np.linalg.eigvalsh(residual_part(ob.astype("float64"), theta.astype(float)))[0]
            if R < -1e-3:
                ratios.append((floor - 0.01) / R)
    assert min(ratios) >= 1 - 1e-6 and np.median(ratios) < 20


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["identity", "relu", "softplus"])
def test_the_floor_is_attained_by_networks_of_one_unit(activation, residual):
    """For networks of one unit a layer, one sample and positive weights, the curvature floor equals
    l2 plus the least eigenvalue of H - GGN up to a relative error of 1e-7.
    """
    for n_hidden in (1, 2, 3, 4):
        rng = np.random.default_rng(n_hidden)
        model = fc.MLP([1] * (n_hidden + 2), activation, bias=False, residual=residual)
        ob = fc.Objective(model, rng.random((1, 1)) + 1, [1e3], loss="mse", l2=2.0)
        theta = rng.random(model.n_params) + 0.5
        floor, least = curvature_floor(ob, theta), np.linalg.eigvalsh(residual_part(ob, theta))[0]
        assert least < -100 and abs(floor - 2 - least) <= 1e-7 * abs(least)


def test_the_floor_of_one_hidden_layer_is_exact():
    for activation in sorted(ACTIVATIONS):
        for loss in LOSSES:
            ob, theta = objective((3, 4, 2), activation, loss, N=40, l2=0.05)
            least = np.linalg.eigvalsh(residual_part(ob, theta))[0]
            assert abs(curvature_floor(ob, theta) - 0.05 - least) <= 1e-8 * abs(least)


def test_the_floor_includes_rounding():
    """If a float32 network is fitted to its own outputs, the curvature floor is below l2 by an
    allowance for the residuals that rounding leaves.
    """
    for seed in range(10):
        ob, theta = objective((4, 6, 6, 2), "gelu", seed=seed, noise=0.0, dtype="float32", l2=1e-3)
        f = ob.astype("float64").model.predict(theta.astype(float), ob.X.astype(float))
        assert 0 < np.abs(f - ob.y).max() < 1e-5
        floor, (low, error) = curvature_floor(ob, theta), lowest_eigenvalue(ob, theta)
        assert 1e-3 - 1e-5 < floor < 1e-3 and floor <= low + error
        exact = fc.Objective(ob.astype("float64").model, ob.X, f, loss="mse", l2=1e-3)
        assert 1e-3 - 1e-7 < curvature_floor(exact, theta.astype(float)) < 1e-3


def test_gains_include_residuals_that_round_to_zero(rng):
    """If the computed residuals are 0, the gain ``sqrt(max(0, -e phi''))`` of a hidden unit is not
    below that in long double, where residuals are not 0.
    """
    model, X, theta = fc.MLP([1, 1, 1], bias=False), rng.random((50, 1)), np.array([0.9, 1.3])
    passes = passes_at(fc.Objective(model, X, model.predict(theta, X), "mse"), theta)
    _, gains = layer_gains(passes, next(iter(passes.iter_states())))
    v, w = theta.astype(np.longdouble)
    a = np.tanh(v * X)
    e = 2 * (w * a - model.predict(theta, X)) * w / 50
    curvature = 2 * e * a * (1 - a**2)
    assert (curvature <= gains[0, 0] ** 2).all() and (curvature > 0).any()


def test_the_floor_holds_for_chunks_and_products_of_norms(monkeypatch):
    """The curvature floor is unchanged if samples are processed in chunks. It is lower but valid if
    the contributions of samples to the block of a unit cannot cancel, and lower still with
    Frobenius norms.
    """
    from fastcurv.certify import passes

    def floor_without_state(ob, theta):
        # the copy has no state from earlier passes
        return curvature_floor(ob.batch(slice(None)), theta)

    ob, theta = objective((5, 7, 7, 7, 3), "silu", N=57, residual=True, l2=0.1)
    whole = floor_without_state(ob, theta)
    monkeypatch.setattr(passes, "MIN_CHUNK_BYTES", 8 * 16 * 29 * 10)
    assert abs(floor_without_state(ob, theta) - whole) <= 1e-9 * abs(whole)
    monkeypatch.setattr(passes, "MAX_UNIT_BLOCK_FLOPS", 0)
    fewer = floor_without_state(ob, theta)
    monkeypatch.setattr(floor_module, "MAX_SPECTRAL_WIDTH", 0)
    assert (
        -np.inf < floor_without_state(ob, theta) < fewer < whole <= lowest_eigenvalue(ob, theta)[0]
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (30, 300), (400, 300), (700, 280)])
def test_spectral_norms_are_bounded_from_above(shape):
    rng = np.random.default_rng(0)
    rank_one = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    for A in (
        rng.standard_normal(shape),
        rank_one,
        rank_one + 1e-9 * rng.standard_normal(shape),
        1e-200 * rank_one,
        0 * rank_one,
    ):
        true = np.linalg.norm(A, 2)
        assert true <= spectral_norm_bound(A) <= 1.2 * true + 1e-140
        assert true <= norm_bound_from_gram(A.T @ A, len(A)) <= 1.2 * true + 1e-140
    for scale in (1e-200, 1e200):
        A = rng.standard_normal(shape)
        true = np.linalg.norm(A, 2)
        assert true * (1 - 1e-12) <= spectral_norm_bound(scale * A) / scale <= 1.25 * true
    assert spectral_norm_bound(0 * rank_one) == 0


def test_curvature_floor_is_minus_infinity_if_no_bound_is_known():
    for loss in LOSSES:
        ob, theta = objective((4, 3), "identity", loss, l2=0.3)
        assert curvature_floor(ob, theta) == 0.3
        turned, theta = objective((4, 3, 2), loss=loss, l2=0.3)
        turned._weight = np.r_[-1.0, np.ones(19)]  # a negative weight, which `Objective` rejects
        assert curvature_floor(turned, theta) == -np.inf
    model = fc.MLP([3, 4, 2], batch_norm=True)
    X = np.random.default_rng(0).standard_normal((9, 3))
    assert (
        curvature_floor(fc.Objective(model, X, np.arange(9) % 2, l2=1.0), model.init(rng=0))
        == -np.inf
    )
    deep, theta = objective((3, 4, 4, 2), "relu", l2=1.0)
    assert curvature_floor(deep, 1e160 * theta) == -np.inf  # the bound overflows


# --- verdicts


@pytest.mark.parametrize("sizes", DEPTHS)
@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_close_fits_are_strictly_convex_but_not_critical(activation, sizes):
    """If l2 is far above the residuals, the curvature floor is positive, although theta is not a
    critical point and the minimum lies far away.
    """
    for N in (12, 60):
        ob, theta = objective(
            sizes, activation, noise=3e-7, N=N, l2=1e-5, scale=0.5, bias=activation != "relu"
        )
        floor, (low, error) = curvature_floor(ob, theta), lowest_eigenvalue(ob, theta)
        assert 0 < floor <= low + error
        report = classify(ob, theta, dense_below=0, gradient_tol=1e-3)
        assert (
            report.evidence.n_negative_bounds == (0, 0)
            and floor <= report.evidence.lambda_min_bounds[0]
        )
        values, (left, right) = (
            np.linalg.eigvalsh(dense_of(ob, theta)),
            report.evidence.lambda_min_bounds,
        )
        assert ((left - error <= values) & (values <= right + error)).any()
        assert report.rule == "curvature_floor_at_theta"
        assert report._clauses["curvature_floor"] == "residuals"
    x = fc.minimize(ob, theta, method="newton", max_iter=40, verdict=False).x
    assert np.linalg.norm(x - theta) > 0.01 * np.linalg.norm(theta)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu"])
def test_the_floor_is_exact_at_zero_weights(activation, dtype):
    """If l2 is so large that only the last bias is nonzero at the minimum, the minimum is proved,
    and the curvature floor equals the least eigenvalue up to 1e-6.
    """
    X = np.random.default_rng(0).standard_normal((40, 6))
    y = np.tanh(X[:, :2]) + 0.5
    for hidden in ((12, 9), (6, 6, 6, 6), (80, 60)):
        ob = fc.Objective(
            fc.MLP((6, *hidden, 2), activation, dtype=dtype), X, y, loss="mse", l2=1.0
        )
        theta = np.zeros(ob.n_params)
        theta[-2:] = y.mean(axis=0) / 2  # minimises (b - y)^2 / 2 + b^2 / 2 for each output
        theta = theta.astype(dtype)
        report = classify(ob, theta, dense_below=0 if hidden != (80, 60) else 4096)
        assert report.evidence.method == "krylov"
        assert report.kind == "minimum" and report.certified and report.failure_probability == 0, (
            report
        )
        assert report._clauses["curvature_floor"] == "residuals"
        assert report.evidence.n_negative_bounds == (0, 0)
        if hidden == (80, 60):
            continue
        floor, (low, error) = curvature_floor(ob, theta), lowest_eigenvalue(ob, theta)
        assert (
            0 < low - 1e-6 < floor <= low + error and report.evidence.lambda_min_bounds[0] >= floor
        )
        assert classify(ob, theta).kind == "minimum"


def test_zero_weights_are_a_minimum_if_l2_exceeds_the_largest_singular_value():
    X = np.random.default_rng(0).standard_normal((40, 30))
    y = np.tanh(X[:, :2]) - np.tanh(X[:, :2]).mean(axis=0)
    size = np.linalg.norm(2 * y.T @ X / y.size, 2)
    for l2, kind in ((1.01 * size, "minimum"), (0.99 * size, "saddle")):
        ob = fc.Objective(fc.MLP([30, 60, 2], "tanh"), X, y, loss="mse", l2=l2)
        report = classify(ob, np.zeros(ob.n_params), dense_below=0)
        assert report.kind == kind and report.certified


@pytest.mark.parametrize(
    "sizes", [*DEPTHS[:2], *(pytest.param(s, marks=pytest.mark.nightly) for s in DEPTHS[2:])]
)
def test_the_floor_certifies_no_false_minimum(sizes):
    """A minimum is certified without the dense matrix only if the curvature floor is positive and
    the dense matrix certifies it, too. Cases are close fits and zero weights, with l2 near the
    value at which the least eigenvalue changes sign.
    """
    kinds = []
    for seed in (0, 2, 4, 10, 12, 14):
        activation = ("tanh", "softplus", "silu", "gelu")[seed // 2 % 4]
        plain, theta = objective(sizes, activation, seed=seed, noise=1e-5, N=10)
        if seed >= 8:
            plain, _ = objective(sizes, activation, seed=seed, N=10)
            theta = np.zeros(plain.n_params)
        lifted = fc.Objective(
            plain.model, plain.X, plain.y - plain.y.mean(axis=0) * (seed >= 8), loss="mse"
        )
        low = lowest_eigenvalue(lifted, theta)[0]
        # multiples of the l2 at which the least eigenvalue is 0
        for i, share in enumerate((0.3, 0.99, 1.01, 30.0)):
            tol = (None, 1e-2)[(i + seed // 2) % 2]
            ob = fc.Objective(
                lifted.model, lifted.X, lifted.y, loss="mse", l2=share * max(-low, 1e-3)
            )
            floor, least = curvature_floor(ob, theta), lowest_eigenvalue(ob, theta)
            assert floor <= sum(least)
            exact, report = (
                classify(ob, theta, gradient_tol=tol),
                classify(ob, theta, dense_below=0, gradient_tol=tol),
            )
            kinds.append((report.kind, exact.kind))
            assert (
                report.kind != "minimum"
                or report.certified
                and exact.kind == "minimum"
                and floor > 0
            )
    assert ("minimum", "minimum") in kinds and any("minimum" not in pair for pair in kinds)


@pytest.mark.parametrize("n", [1, 3, 256, 257, 300])
@pytest.mark.parametrize("size", [1.0, 1e-280, 1e280])
def test_the_largest_eigenvalue_of_a_gram_matrix_is_bounded(n, size, rng):
    """`gram_eigenvalue_bound` is at least the largest eigenvalue of an (n, n) Gram matrix. It is
    tight for n up to 256, and otherwise too large by at most the factor n^(1/32).
    """
    F = rng.standard_normal((n, n // 2 + 1))
    G = F @ F.T / n
    largest = np.linalg.eigvalsh(G)[-1]
    bound = gram_eigenvalue_bound(G * size) / size
    assert largest * (1 - 1e-13) <= bound
    assert bound <= largest * (1 + 1e-10 if n <= 256 else n ** (1 / 32))
    assert gram_eigenvalue_bound(np.zeros((n, n))) == 0
