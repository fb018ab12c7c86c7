"""Networks with batch normalisation: products compared with complex steps and torch, symmetries,
chunks of samples, and bounds on rounding.
"""

import itertools

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound

from ..nets import ACTIVATIONS, KERNELS
from ..reference import ReferenceModel, ReferenceObjective
from .product_cases import (
    compare,
    draw_batch_norm,
    public_results,
    truth,
)

pytestmark = pytest.mark.by_day(one_of="dtype")

SLACK = {"float64": 2e-11, "float32": 1e-3}


def check(p, what=""):
    known = truth(p.ref, p.theta, p.V, p.u)
    compare(p, known, p.V, p.u, SLACK[p.model.dtype.name], what)


def test_products_are_exact_for_every_combination_of_options(arch, dtype):
    """Results agree with complex steps for all pairs of activation and loss, with biases, skip
    connections, weights and l2 in turn, and with widths around those of SIMD vectors and tiles.
    """
    widths, batches = itertools.cycle([1, 3, 8, 9, 17, 33]), itertools.cycle([5, 17, 64, 65, 130])
    for i, (activation, loss) in enumerate(itertools.product(ACTIVATIONS, KERNELS)):
        a, b, c = next(widths), next(widths), next(widths)
        sizes = [a, b, b, c] if i % 2 else [a, c, b, 3]
        how = {"bias": i % 3 != 0, "residual": i % 2 == 1, "weights": i % 4 == 0}
        how |= {"l2": 0.1 * (i % 5 < 2), "l2_biases": i % 5 == 0, "dtype": dtype}
        p = draw_batch_norm(sizes, activation, loss, next(batches), **how)
        check(p, (activation, loss, sizes))


def test_products_of_large_and_mixed_networks_are_exact(arch, dtype):
    how = {"residual": True, "l2": 1e-3, "dtype": dtype}
    names = ["tanh", "gelu", "relu"]
    check(draw_batch_norm([20, 65, 65, 40, 10], names, "cross_entropy", 300, **how))


def test_predict_uses_batch_or_given_statistics(dtype):
    """Without `statistics`, `predict` normalises by the mean and variance of the samples passed.
    With the statistics of the training samples, the prediction for a sample does not depend on the
    other samples.
    """
    p = draw_batch_norm([4, 9, 9, 3], "silu", N=50, residual=True, dtype=dtype)
    tight = 100 * np.finfo(dtype).eps
    known, X, theta = p.model.statistics(p.ob, p.theta), p.ob.X, p.theta.astype(np.float64)
    outputs = p.model.predict(p.theta, X)
    assert (
        np.abs(outputs - p.ref.model.predict(theta, p.ref.X)).max() <= tight * np.abs(outputs).max()
    )
    z = p.ref.X @ p.ref.model.unflatten(theta)[0][0].T + p.ref.model.unflatten(theta)[0][1]
    assert np.allclose(known[0][0], z.mean(axis=0), rtol=tight, atol=tight)
    assert np.allclose(known[0][1], z.var(axis=0), rtol=tight, atol=0)
    for rows in (slice(0, 1), slice(10, 17), slice(None)):
        assert (
            np.abs(p.model.predict(p.theta, X[rows], known) - outputs[rows]).max()
            <= tight * np.abs(outputs).max()
        )
    assert all(part.dtype == p.model.dtype for pair in known for part in pair)
    us = p.model.preactivations(p.theta, X)
    for u, true in zip(us, p.ref.model.preactivations(theta, p.ref.X)):
        assert np.abs(u - true).max() <= tight * np.abs(true).max()


def test_repr_and_sizes_of_a_model_with_batch_norm():
    model = fc.MLP([3, 5, 4, 2], "relu", bias=False, batch_norm=True)
    assert model.n_params == 15 + 10 + 20 + 8 + 8 and "batch_norm=True" in repr(model)
    assert model != fc.MLP([3, 5, 4, 2], "relu", bias=False) and model == fc.MLP(
        [3, 5, 4, 2], "relu", bias=False, batch_norm=True
    )
    theta = model.init(rng=0)
    layers = model.unflatten(theta)
    assert [len(layer) for layer in layers] == [4, 4, 2] and all(
        layer[1] is None for layer in layers
    )
    assert (
        (layers[0][2] == 1).all()
        and (layers[0][3] == 0).all()
        and np.shares_memory(layers[1][2], theta)
    )
    assert np.array_equal(model.flatten(layers), theta)
    assert np.array_equal(
        model.init(rng=0)[:15], fc.MLP([3, 5, 4, 2], "relu", bias=False).init(rng=0)[:15]
    )
    single = fc.MLP([3, 2], batch_norm=True)  # without a hidden layer nothing is normalised
    assert single.n_params == 8 and fc.MLP([3, 2]).n_params == 8


def test_invalid_batch_norm_arguments_are_rejected():
    model, plain = fc.MLP([3, 4, 2], batch_norm=True), fc.MLP([3, 4, 2])
    X = np.random.default_rng(0).standard_normal((6, 3))
    ob, theta = fc.Objective(model, X, X[:, :2], loss="mse"), model.init(rng=0)
    other, flat = fc.Objective(plain, X, X[:, :2], loss="mse"), plain.init(rng=0)
    layers, none = plain.unflatten(flat), np.zeros(4)
    short = [(np.zeros((4, 3)), none, np.zeros(3), none), (np.zeros((2, 4)), np.zeros(2))]
    for call, words in (
        (lambda: ob.empirical_fisher(theta), "depend on all rows"),
        (lambda: fc.MLP([3, 4, 2], batch_norm=1), "batch_norm must be .*got 1"),
        (lambda: plain.statistics(ob, flat), "must be an Objective of"),
        (lambda: plain.statistics(other, flat), "have batch normalisation for statistics"),
        (lambda: fc.MLP([3, 4, 2], bias=False).flatten(layers), "the model has no biases"),
        (lambda: plain.predict(flat, X, [(none, none + 1)]), "without batch normalisation"),
        (lambda: model.predict(theta, X, [(none[1:], none[1:] + 1)]), "for each hidden layer"),
        (lambda: model.predict(theta, X, [(none, none - 1)]), ">= 0, got -1"),
        (lambda: model.flatten(layers), r"must have 4 entries, \(W, b, gamma, beta\)"),
        (lambda: model.flatten(short), "gamma of layers"),
    ):
        with pytest.raises(TypeError if "got 1" in words else ValueError, match=words):
            call()


# --- chunks of rows, threads, batches, interrupts


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_chunked_batch_norm_equals_one_pass_within_the_memory_limit(arch, activation):
    """Results computed in chunks of samples, down to one sample each, equal those of a single pass
    to 1e-12. The state stays within the memory limit.
    """
    options = {"activation": activation, "loss": "cross_entropy", "N": 75}
    options |= {"residual": True, "weights": True, "l2": 0.01}
    whole = draw_batch_norm([5, 9, 9, 3], **options)
    wanted, seen = public_results(whole.ob, whole.theta, whole.V), set()
    least = smallest_memory(whole)
    for memory in (least, least + 20_000, least + 60_000):
        p = draw_batch_norm([5, 9, 9, 3], memory=memory, **options)
        H = p.ob.hessian(p.theta)
        assert H.nbytes <= memory
        seen.add(H.layout["chunk"])
        for name, got in public_results(p.ob, p.theta, p.V).items():
            assert np.linalg.norm(got - wanted[name]) <= 1e-12 * np.linalg.norm(wanted[name]), (
                name,
                H.layout,
            )
        block, v = H.restrict(layers=[1]), whole.V[:, 0][H.restrict(layers=[1]).indices]
        expected = whole.ob.hessian(whole.theta).restrict(layers=[1]) @ v
        assert np.linalg.norm(block @ v - expected) <= 1e-12 * np.linalg.norm(expected)
        for (mean, variance), (m, s) in zip(
            p.model.statistics(p.ob, p.theta), whole.model.statistics(whole.ob, whole.theta)
        ):
            assert np.allclose(mean, m, rtol=1e-13, atol=1e-14) and np.allclose(
                variance, s, rtol=1e-13, atol=0
            )
    assert 1 in seen and any(1 < chunk < 75 for chunk in seen)


def smallest_memory(p):
    """Return the smallest memory limit in bytes that the network of p accepts, parsed from the
    error for `memory=1`.
    """
    with pytest.raises(ValueError, match="memory must be at least") as error:
        draw_batch_norm(
            [5, 9, 9, 3], p.model.activation[0], p.ob.loss, 75, residual=True, memory=1
        ).ob.value(p.theta)
    return int(str(error.value).split("at least ")[1].split()[0])


def test_units_of_constant_input_are_right():
    """Value, gradient and products agree with complex steps if a unit's pre-activation is equal for
    all samples, so that its variance is 0. For a single sample, this holds for all units.
    """
    X = np.random.default_rng(0).standard_normal((20, 3))
    X[:, 1] = 2.0
    for rows in (20, 2, 1):
        model = fc.MLP([3, 4, 2], batch_norm=True)
        W = np.random.default_rng(1).standard_normal((4, 3))
        W[2] = [0.0, 1.5, 0.0]
        theta = model.flatten(
            [(W, np.ones(4), np.full(4, 1.2), np.full(4, 0.3)), (np.ones((2, 4)), np.zeros(2))]
        )
        ob = fc.Objective(model, X[:rows], X[:rows, :2], loss="mse")
        ref = ReferenceObjective(ReferenceModel([3, 4, 2], batch_norm=True), X[:rows], X[:rows, :2])
        v = np.random.default_rng(2).standard_normal(model.n_params)
        assert np.isclose(ob.value(theta), ref.value(theta), rtol=1e-12)
        H, true = ob.hessian(theta), ref.hessian(theta)
        scale = np.linalg.norm(true @ v)
        g = ref.gradient(theta)
        assert np.linalg.norm(H.gradient - g) <= 1e-9 * np.linalg.norm(g)
        assert np.linalg.norm(H @ v - true @ v) <= 1e-9 * scale
        assert abs(H.quadratic_form(v) - v @ (true @ v)) <= 1e-9 * scale * np.linalg.norm(v)


def test_batches_have_their_own_statistics():
    p = draw_batch_norm([4, 6, 2], N=40)
    part = p.ob.batch(slice(5, 25))
    alone = fc.Objective(p.model, p.ob.X[5:25], p.ob.y[5:25], loss="mse")
    assert part.value(p.theta) == alone.value(p.theta) != p.ob.value(p.theta)
    assert np.array_equal(part.gradient(p.theta), alone.gradient(p.theta))


# --- bounds on rounding, symmetries, dead units and verdicts


@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus", "relu"])
def test_rounding_bounds_hold_and_are_not_too_large(arch, dtype, activation):
    """The errors of gradient and product, measured against long double, are within their bounds for
    usual, large and tiny weights. For usual weights, the bounds are at most three times the error
    in float32 and 1e-7 of the result in float64.
    """
    for i, (sizes, loss) in enumerate(
        (
            ([5, 9, 9, 3], "cross_entropy"),
            ([4, 17, 2], "mse"),
            ([3, 6, 6, 6, 6, 2], "binary_cross_entropy"),
        )
    ):
        p = draw_batch_norm(sizes, activation, loss, 30, residual=True, l2=0.01, dtype=dtype)
        for scale in (1.0, 30.0, 1e-3):
            p.theta = (p.model.init(rng=i) * scale).astype(dtype)
            H, v = p.ob.hessian(p.theta), p.V[:, 0]
            room = 1 + np.finfo(np.longdouble).eps / np.finfo(dtype).eps
            for computed, true, bound in (
                (H.gradient, p.exact(), rounding_bound(p.ob, p.theta)),
                (H @ v, p.exact(v), rounding_bound(H, v)),
            ):
                error = float(np.linalg.norm((computed - true).astype(float)))
                size = float(np.linalg.norm(true.astype(float)))
                assert error <= bound * room + 1e-16 * size, (sizes, scale)
                if scale == 1.0 and dtype == "float32":
                    # In float32 the bound measures the error by a pass in float64.
                    assert bound <= 3 * error + 1e-9 * size
                elif scale == 1.0:
                    assert bound <= 1e-7 * size


def test_dead_units_and_kinks_are_counted_with_batch_norm():
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
    )  # gamma = beta = 0: u is 0 for every sample
    dead = np.zeros((model.n_params, 3 + 1 + 2 + 2), bool)
    for column, j in enumerate((3, 4, 5, 13, 17, 21)):  # W, b, gamma, beta of unit 1
        dead[j, column] = True
    dead[25, 6] = dead[29, 7] = True  # outgoing weights of unit 1
    for e in dead.T.astype(float):
        assert (
            not (H @ e).any()
            and np.linalg.norm(e - T @ np.linalg.lstsq(T, e, rcond=None)[0]) <= 1e-12
        )


def test_a_batch_norm_minimum_is_classified_but_not_certified():
    """At a critical point with batch normalisation, the verdict has the kind of the dense Hessian's
    eigenvalues and is not certified, because no bound on the third derivative is known.
    """
    X = np.random.default_rng(3).standard_normal((40, 2))
    model = fc.MLP([2, 2, 1], "tanh", batch_norm=True)
    ob = fc.Objective(model, X, np.sin(X[:, 0]) + 0.3 * X[:, 1], loss="mse", l2=1e-2)
    found = fc.find_critical_point(
        ob, fc.minimize(ob, model.init(rng=1), "newton-cg", max_iter=200).x
    )
    verdict = fc.classify(ob, found.x)
    values = np.linalg.eigvalsh(ob.hessian(found.x).to_dense())
    assert verdict.kind == ("minimum" if values[0] > 0 else "saddle") and not verdict.certified
