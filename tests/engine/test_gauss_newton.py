"""The Gauss-Newton matrix and the Hessian of small networks against products of operators, which
tests/network/test_products.py compares with an oracle, and the engine's Levenberg-Marquardt steps
against a NumPy implementation.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.special

import fastcurv as fc
from fastcurv import _engine
from fastcurv.network.operators import summed_matrix

from ..nets import GIVEN, draw

KINDS = list(itertools.product(_engine.ACTIVATIONS, _engine.LOSSES))


def problem(rng, sizes, N, act, loss, dtype="float64", residual=False, weighted=False, **more):
    how = {"residual": residual, "weights": weighted, "soft": loss == "binary_cross_entropy"}
    net = draw(rng, sizes, act, loss, N, dtype=dtype, **how, **more)
    return net.ob, 2 * net.model.init(rng=int(rng.integers(1000)))


def matrix_of(ob, theta, hessian=False):
    plan = ob._new_plan()
    plan.bind(theta)
    A = np.full((ob.n_params, ob.n_params), np.nan)
    assert _engine.CurvatureMatrix(plan, hessian).write_matrix(A)
    return A


def assert_close(ob, theta):
    for hessian, operator in enumerate((ob.ggn, ob.hessian)):
        A, kind = matrix_of(ob, theta, hessian), theta.dtype
        wanted = operator(theta) @ np.eye(len(theta), dtype=kind) - ob.l2 * np.eye(len(theta))
        # The products round sums over samples and layers whose terms are no larger than the largest
        # entry.
        tolerance = 1e4 * np.finfo(kind).eps * np.abs(wanted).max()
        assert np.abs(A - wanted).max() <= tolerance
        assert np.array_equal(A, A.T)


@pytest.mark.parametrize("act, loss", KINDS)
def test_matrix_equals_products_with_unit_vectors(act, loss, rng):
    for i, (residual, N) in enumerate(itertools.product((False, True), (1, 7, 41, 300))):
        sizes = ([3, 4, 4, 2], [5, 3, 3, 3, 3], [1, 5, 2])[i % 3]
        dtype = ("float64", "float32")[i % 2]
        assert_close(*problem(rng, sizes, N, act, loss, dtype, residual, weighted=i % 2 == 0))


def test_curvature_matrix_is_right_for_user_defined_functions(rng):
    """Gauss-Newton matrices and Hessians equal operator products for user-defined activations and
    losses, for networks without biases and with skip connections.
    """
    act = fc.Activation(lambda z: (np.sin(z), np.cos(z), -np.sin(z)))
    for loss in (*GIVEN, "mse"):
        assert_close(*problem(rng, [3, 5, 4, 2], 60, act, loss))
    assert_close(*problem(rng, [3, 5, 4, 4, 2], 60, "tanh", "cross_entropy", bias=False))
    assert_close(*problem(rng, [4, 4, 4, 4, 4, 1], 30, "gelu", "mse", residual=True))


@pytest.mark.parametrize("loss", _engine.LOSSES)
def test_matrix_is_right_if_computed_in_several_blocks(loss, rng):
    assert_close(*problem(rng, [9, 11, 7, 3], 2000, "tanh", loss))
    assert_close(*problem(rng, [2, 40, 3], 1100, "softplus", loss))
    assert_close(*problem(rng, [60, 3, 2], 1030, "tanh", loss, "float32", weighted=True))
    assert_close(*problem(rng, [4, 7, 30], 50, "relu", loss))


@pytest.mark.parametrize("loss", _engine.LOSSES)
def test_curvature_matrix_is_right_for_few_rows_and_parameters(loss, rng):
    """Gauss-Newton matrices and Hessians for one output, or two classes, equal operator products
    for numbers of samples and parameters just below and above the sizes of blocks.
    """
    d = 1 + (loss == "cross_entropy")
    for i, N in enumerate((1, 8, 9, 41, 128, 136, 500)):
        dtype = ("float64", "float32")[i % 2]
        assert_close(*problem(rng, [1, 5, d], N, "tanh", loss, dtype, l2=0.1 * (i % 3)))
        assert_close(*problem(rng, [3, 3, 3, d], N, "leaky_relu", loss, dtype, residual=True))
        assert_close(*problem(rng, [2, 4, 3, d], N, "gelu", loss, dtype, bias=False))
        assert_close(*problem(rng, [61, d], N, "tanh", loss, dtype, weighted=True))
        assert_close(*problem(rng, [8, 6, d], N, "softplus", loss, dtype))
        assert_close(*problem(rng, [1, d], 4 * N, "tanh", loss, dtype))  # rows exceed one block


def test_curvature_matrix_is_right_in_reused_memory_with_nan(rng):
    ob, theta = problem(rng, [3, 5, 1], 30, "tanh", "mse")
    wanted = [matrix_of(ob, theta, hessian) for hessian in (False, True)]
    lost, far = problem(rng, [6, 9, 9, 1], 200, "identity", "mse")
    plan = lost._new_plan()
    plan.bind(np.full_like(far, np.nan))
    for hessian in (False, True):
        G = np.zeros((lost.n_params,) * 2)
        _engine.CurvatureMatrix(plan, hessian).write_matrix(G)
        assert np.isnan(G).any()
        assert np.array_equal(matrix_of(ob, theta, hessian), wanted[hessian])


@pytest.mark.parametrize("size, weight", [(-565, 300), (400, -700), (530, -980), (0, -900), (0, 0)])
@pytest.mark.parametrize("d", [1, 2])
def test_curvature_matrix_is_right_for_data_far_from_unit_scale(size, weight, d, rng):
    """Gauss-Newton matrices are correct if squares of inputs or of backpropagated numbers overflow
    or underflow but the matrix's entries do not.
    """
    X, y = rng.standard_normal((12, 3)), rng.standard_normal((12, d))
    model = fc.MLP([3, 4, d], "identity")
    theta, places = model.init(rng=0), np.arange(16 + 5 * d)
    theta[12:16] = 0.0  # so that all inputs of the second layer have one order of magnitude
    near = fc.Objective(model, X, y, "mse", sample_weight=np.ones(12))
    weights = np.full(12, 2.0**weight)
    far = fc.Objective(model, np.ldexp(X, size), y, "mse", sample_weight=weights)
    sizes = np.where((places < 12) | ((places >= 16) & (places < 16 + 4 * d)), size, 0)
    G, exact = matrix_of(far, theta), matrix_of(near, theta)
    wanted = np.ldexp(exact, weight + sizes[:, None] + sizes)
    assert np.isfinite(G).all() and np.abs(wanted).max() > 0
    assert np.allclose(G, wanted, rtol=1e-9, atol=1e-11 * np.abs(wanted).max())


def test_hessian_is_not_formed_for_data_far_from_unit_scale(rng):
    X, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    ob = fc.Objective(fc.MLP([3, 4, 1], "tanh"), np.ldexp(X, 400), y, "mse")
    theta = ob.model.init(rng=0)
    theta[:12] = np.ldexp(theta[:12], -400)
    plan = ob._new_plan()
    plan.bind(theta)
    assert not _engine.CurvatureMatrix(plan, True).write_matrix(np.empty((21, 21)))
    H = ob.hessian(theta)
    assert summed_matrix(H) is None
    values = fc.eigvalsh(H)
    assert np.abs(values - np.linalg.eigvalsh(H.to_dense())).max() <= 1e-12 * values[-1]
    # The squares of inputs underflow, and no bias adds a larger number to their sum.
    ob = fc.Objective(fc.MLP([3, 4, 1], "identity", bias=False), 1e-170 * X, y, "mse")
    theta = ob.model.init(rng=0)
    theta[-4:] *= 1e49
    assert summed_matrix(ob.hessian(theta)) is None


@pytest.mark.parametrize("classes", [1, 2, 6])
def test_curvature_matrix_is_right_for_any_number_of_classes(classes, rng):
    """Gauss-Newton matrices and Hessians for one, two and six classes equal operator products, also
    for probabilities near 1, and are 0 for a single class.
    """
    X, y = rng.standard_normal((30, 3)), rng.integers(classes, size=30)
    for scale in (1.0, 20.0):
        ob = fc.Objective(fc.MLP([3, 4, classes]), X, y, "cross_entropy", l2=0.01)
        theta = scale * ob.model.init(rng=0)
        assert_close(ob, theta)
        for hessian in (False, True):
            assert (not matrix_of(ob, theta, hessian).any()) == (classes == 1)


def test_matrix_is_right_with_every_kernel_table(arch, rng):
    assert_close(*problem(rng, [4, 9, 5, 3], 60, "tanh", "cross_entropy"))


def curvature_of_loss(ob, z):
    """Return the second derivatives of each sample's loss with respect to its outputs, without
    weights, in an array (N, d, d).
    """
    N, d = z.shape
    if ob.loss == "mse":
        return np.broadcast_to(2 * np.eye(d) / d, (N, d, d))
    if ob.loss == "binary_cross_entropy":
        p = scipy.special.expit(z)
        return (p * (1 - p))[..., None] * np.eye(d) / d
    p = scipy.special.softmax(z, axis=1)
    return p[..., None] * np.eye(d) - p[:, :, None] * p[:, None]


def numpy_steps(ob, theta, count):
    """Run `count` accepted steps of Levenberg-Marquardt by Nielsen's rule, with dense matrices from
    products. Geodesic corrections are tried for steps whose decrease is less than 3/4 of the
    predicted one. Return the last theta, and a list with "step", "correction" or, for a correction
    that does not lower the loss, "rejected" for each tried point.
    """
    eye, tried = np.eye(len(theta)), []
    weight = np.ones(len(ob.X)) if ob.sample_weight is None else ob.sample_weight

    def evaluate_at(theta):
        z, N = ob.model.predict(theta, ob.X), len(ob.X)
        B = np.einsum("n,nij->nij", weight / N, curvature_of_loss(ob, z))
        return ob.value(theta), ob.gradient(theta), ob.ggn(theta) @ eye, z, B

    f, g, G, z, B = evaluate_at(theta)
    mu, nu = G.diagonal().max(), 2.0
    for _ in range(count):
        J = ob.jacobian(theta).to_dense()
        l2 = G - J.T @ np.einsum("nij,njk->nik", B, J.reshape(*z.shape, -1)).reshape(J.shape)
        while True:
            s = np.linalg.solve(G + mu * eye, -g)
            promised, there = s @ (mu * s - g) / 2, ob.value(theta + s)
            tried.append("step")
            least = 0.1 if f - there >= 0.75 * promised else 1 / 3
            for _ in range(2):
                if f - there >= 0.75 * promised:
                    break
                moved = np.einsum("nij,nj->ni", B, ob.model.predict(theta + s, ob.X) - z)
                bend = -np.linalg.solve(G + mu * eye, g + l2 @ s + mu * s + J.T @ moved.ravel())
                bend *= min(1, 0.375 * np.linalg.norm(s) / np.linalg.norm(bend))
                before, bent = there, ob.value(theta + s + bend)
                tried.append("correction" if bent < before else "rejected")
                if bent >= before:
                    break
                s, there = s + bend, bent
                if before - there < 0.1 * promised:
                    break
            if f - there > 1e-4 * promised:
                break
            mu, nu = mu * nu, 2 * nu
        ratio = (f - there) / promised
        theta = theta + s
        f, g, G, z, B = evaluate_at(theta)
        mu, nu = mu * max(least, 1 - (2 * ratio - 1) ** 3), 2.0
    return theta, tried


def check_against_numpy(ob, theta, count, within, exact=None):
    """Return the engine's run of `count` steps from theta, its record and the points that
    `numpy_steps` tried, after checking that these include corrections and that the end differs from
    that of `numpy_steps` by less than `within`. The objective `exact` has equal data in float64.
    """
    wanted, tried = numpy_steps(exact or ob, theta.astype(float), count)
    run, record = _engine.LevenbergRun(ob._new_plan(), theta.copy()), np.zeros((count, 3))
    assert run.run(count, 0.0, -np.inf, np.inf, record) == (count, "")
    assert set(tried) > {"step"} and run.n_values == len(tried)
    assert np.abs(run.theta - wanted).max() < within
    return run, record, tried


@pytest.mark.parametrize("loss", _engine.LOSSES)
@pytest.mark.parametrize("l2_biases", [True, False])
def test_levenberg_steps_equal_numpy_implementation(loss, l2_biases, rng):
    ob, theta = problem(rng, [3, 5, 2], 30, "tanh", loss, l2=1e-2, l2_biases=l2_biases)
    run, record, _ = check_against_numpy(ob, theta, 6, 1e-7)
    assert record[-1, 0] == run.value == ob.value(run.theta)
    assert record[-1, 1] == pytest.approx(np.linalg.norm(ob.gradient(run.theta)), rel=1e-9)
    assert np.array_equal(run.gradient, ob.gradient(run.theta))
    assert np.all(np.diff(record[:, 0]) < 0)


@pytest.mark.parametrize("loss", _engine.LOSSES)
@pytest.mark.parametrize(
    "N, dtype, memory",
    [(1100, "float64", None), (5000, "float64", 400_000), (60, "float32", None)],
    ids=["more rows than a block", "than memory keeps", "single"],
)
def test_large_steps_have_geodesic_corrections(N, dtype, memory, loss, rng):
    net = draw(rng, [3, 5, 2], "tanh", loss, N, weights=True, dtype=dtype, memory=memory)
    y = net.y.astype(float) if net.y.dtype.kind == "f" else net.y
    same = replace(net, model=fc.MLP([3, 5, 2]), X=net.X.astype(float), y=y)
    within = 1e-7 if dtype == "float64" else 1e-3
    check_against_numpy(net.ob, 0.3 * net.model.init(rng=0), 6, within, same.ob)


def test_steps_are_corrected_for_data_far_from_unit_scale(rng):
    """Corrected steps equal those of NumPy for three linear layers with inputs and targets near
    2^200 and sample weights of 2^-390, whose powers of two do not cancel in the gradient.
    """
    model, weight = fc.MLP([3, 4, 4, 2], "identity", bias=False), np.full(12, 2.0**-390)
    for _ in range(5):
        X, y = (np.ldexp(rng.standard_normal((12, width)), 200) for width in (3, 2))
        ob = fc.Objective(model, X, y, "mse", sample_weight=weight)
        assert "correction" in check_against_numpy(ob, 0.2 * model.init(rng=0), 3, 1e-9)[2]


def test_geodesic_corrections_can_be_disabled(rng):
    ob, theta = problem(rng, [3, 5, 2], 30, "tanh", "mse")
    run = _engine.LevenbergRun(ob._new_plan(), theta.copy())
    run.corrects, record = False, np.zeros((1, 3))
    assert run.run(1, 0.0, -np.inf, np.inf, record) == (1, "") and run.n_values == 1
    G, g = matrix_of(ob, theta), ob.gradient(theta)
    s = np.linalg.solve(G + G.diagonal().max() * np.eye(len(g)), -g)
    assert np.abs(run.theta - theta - s).max() < 1e-9


def test_levenberg_runs_stop_at_each_given_condition(rng):
    ob, theta = problem(rng, [2, 4, 1], 25, "tanh", "mse", l2=1e-3)
    record = np.zeros((500, 3))
    start = _engine.LevenbergRun(ob._new_plan(), theta.copy())
    assert start.run(500, np.inf, -np.inf, np.inf, record) == (0, "critical")
    assert start.run(500, 0.0, np.inf, np.inf, record) == (0, "target")
    assert start.run(500, 0.0, -np.inf, -1.0, record) == (0, "max_time")
    ahead = _engine.LevenbergRun(ob._new_plan(), theta.copy())
    ahead.run(3, 0.0, -np.inf, np.inf, record)
    between = record[1:3, 0].mean()  # a value between those after the second and the third step
    assert start.run(500, 0.0, between, np.inf, record) == (3, "target")
    ending = start.run(500, 1e-6, -np.inf, np.inf, record)[1]
    assert ending == "critical" and np.linalg.norm(ob.gradient(start.theta)) <= 1e-6
    assert start.run(500, 0.0, -np.inf, np.inf, record)[1] == "stalled"
