"""Bounds on rounding errors hold for every table of kernels and are not too large.

The oracle is `longdouble.Truth`, 2048 times more precise than float64 where long double is longer
than double.
"""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv._engine import testing_hooks as hooks
from fastcurv.certify import arithmetic, rounding_bound
from fastcurv.certify.bounds import assembled
from fastcurv.certify.passes import gradient_bound, product_bound

from ..nets import DTYPES
from .bound_cases import KINDS, ORACLE, problem
from .longdouble import LD, Truth, activation, size

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


def errors(ob, theta, v, kinds=tuple(KINDS)):
    """Return ``{name: (bound, error)}`` for the gradient and the products of `kinds` with v, where
    errors are measured against long double. In float32, the measured bound on the gradient is
    included.
    """
    truth, found = Truth(ob, theta), {}
    g = ob.gradient(theta)
    found["gradient"] = gradient_bound(ob, theta), size(g - truth.gradient)
    if ob.dtype == np.float32:
        found["gradient, measured"] = rounding_bound(ob, theta), size(g - truth.gradient)
    for kind in kinds:
        H = getattr(ob, KINDS[kind])(theta)
        error = size(H @ v - truth.product(v, kind))
        found[kind] = product_bound(ob, theta, v, kind), error
        found[kind + ", operator"] = rounding_bound(H, v), error
    return {what: (bound, float(error)) for what, (bound, error) in found.items()}


def check_bounds(ob, theta, v, **options):
    """Return the result of `errors` after checking that every bound holds. A factor allows for the
    rounding of the oracle, which matters where long double is no longer than double.
    """
    found = errors(ob, theta, v, **options)
    room = 1 + ORACLE / np.finfo(ob.dtype).eps
    for what, (bound, error) in found.items():
        assert error <= bound * room or bound == np.inf, (
            f"{what}: off by {error:.3g}, bound {bound:.3g}"
        )
    return found


# --- random nets


@pytest.mark.parametrize("depth", range(1, 9))
def test_bounds_hold_for_random_nets(dtype, depth, kernels):
    rng = np.random.default_rng([depth, dtype == "float32"])
    for case in range(6):
        kernels(str(rng.choice(engine.available_archs())))
        d = int(rng.integers(1, 13))
        hidden = rng.integers(1, 13, depth - 1).tolist() if case % 2 else [d] * (depth - 1)
        act = tuple(rng.choice(list(engine.ACTIVATIONS), depth - 1).tolist())
        loss = list(engine.LOSSES)[case % 3]
        ob, theta, v = problem(
            [d] + hidden + [int(rng.integers(1, 6))],
            act,
            loss,
            dtype,
            N=int(rng.choice([1, 5, 40])),
            seed=rng,
            weights=case > 3,
            soft=case > 2,
            l2=0.01 * (case % 2),
            bias=case != 1,
            residual=case % 2 == 0,
        )
        check_bounds(ob, (theta * rng.choice([0.3, 1, 3])).astype(dtype), v)


# --- adversarial cases


# sizes, number of samples, activation, and the entries of X that are not in the first sample
EQUAL_TERMS = {
    "many samples": ([2, 3, 2], 5000, "softplus", 0.1),
    "many inputs": ([700, 5, 2], 3, "softplus", 0.1),
    "two long products": ([700, 600, 2], 4, "softplus", 0.1),
    "layer by layer": ([300, 250, 2], 70, "relu", 0.1),
    "chunks": ([3, 4, 2], 4000, "relu", 0.3),
}


@pytest.mark.usefixtures("samples_as_rows")
@pytest.mark.parametrize("case", EQUAL_TERMS)
def test_bounds_hold_for_systematic_rounding(arch, dtype, case):
    """Rounding bounds hold if the numbers in a sum are equal, so every addition rounds in the same
    direction and errors do not average out: over samples in one panel, in chunks or layer by layer,
    over inputs, and over the two products ``ra W' + a V'``, ra the derivative of a along V.
    """
    sizes, N, act, entry = EQUAL_TERMS[case]
    X = np.full((N, sizes[0]), entry)
    X[0] = 1
    memory = 700_000 if case == "chunks" else None
    ob, theta, v = problem(sizes, act, "mse", dtype, X=X, memory=memory)
    layout = ob.hessian(theta).layout
    assert case != "chunks" or layout["chunk"] < N
    assert case != "layer by layer" or dtype != "float32" or layout["panel"] == 0
    theta, v = np.full_like(theta, 1 / sizes[0]), np.full_like(v, 1 / sizes[0])
    found = check_bounds(ob, theta, v, kinds=("hessian",))
    assert found["hessian"][1] > 0


@pytest.mark.parametrize("loss", engine.LOSSES)
@pytest.mark.parametrize("scale", [-30, -3, 3, 30])
def test_bounds_hold_at_huge_and_tiny_scales(dtype, loss, scale):
    """Rounding bounds hold at scales at which products underflow, and for saturated and unsaturated
    units.
    """
    scale = 10.0 ** (scale if dtype == "float64" else scale / 3)
    rng = np.random.default_rng(0)
    for act in ("tanh", "relu", "silu"):
        ob, theta, v = problem(
            [4, 6, 6, 3], act, loss, dtype, X=scale * rng.standard_normal((20, 4))
        )
        check_bounds(ob, theta, v)
        check_bounds(ob, theta, (v * scale).astype(dtype), kinds=("hessian",))


def test_bounds_hold_for_mixed_scales_of_inputs_and_units(dtype):
    """If the scales of hidden units span eight orders of magnitude, rounding bounds hold, and the
    bound on the gradient exceeds its error by at most a factor of 1e6.
    """
    ob, theta, v = problem([4, 8, 8, 3], "relu", "mse", dtype)
    plain = check_bounds(ob, theta, v, kinds=("hessian",))["gradient"]
    factors, layers = (
        10.0 ** np.linspace(-4, 4, 8),
        [(W.astype(float), b.astype(float)) for W, b in ob.model.unflatten(theta)],
    )
    (W1, b1), (W2, b2), (W3, b3) = layers
    other = ob.model.flatten([(factors[:, None] * W1, factors * b1), (W2 / factors, b2), (W3, b3)])
    bound, error = check_bounds(ob, other, v, kinds=("hessian",))["gradient"]
    assert bound <= 1e6 * error and plain[0] <= 1e4 * plain[1]


@pytest.mark.parametrize("margin", [3, 12, 40, 80])
def test_bounds_keep_relative_accuracy_for_nearly_certain_samples(dtype, margin):
    """If one logit exceeds the others by a large margin, rounding bounds hold. The bound on the
    gradient is at most 1e6 times the error and, for margins below 60, at most 1% of the gradient.
    """
    rng = np.random.default_rng(margin)
    for soft in (False, True):
        ob, theta, v = problem([5, 8, 4], "tanh", "cross_entropy", dtype)
        W, b = ob.model.unflatten(theta)[-1]
        ob.model.unflatten(theta)[-1][1][0] = margin
        y = np.zeros(len(ob.X), int)
        ob = fc.Objective(ob.model, ob.X, np.eye(4)[y] if soft else y)
        found = check_bounds(ob, theta, v)
        bound, error = found["gradient"]
        assert bound <= 1e6 * error + np.finfo(dtype).tiny * 1e6
        truth = Truth(ob, theta)
        if margin < 60:
            assert bound <= 1e-2 * float(size(truth.gradient))
    ob = fc.Objective(
        ob.model, ob.X, np.tile([1.0, 0, 0, 0], (len(ob.X), 1)), loss="binary_cross_entropy"
    )
    check_bounds(ob, theta, rng.standard_normal(ob.n_params).astype(dtype))


def test_bounds_hold_if_the_largest_logit_is_tied(dtype):
    """Rounding bounds hold if the logits of all classes are equal up to rounding, so that the
    largest computed logit may not be the largest exact one.
    """
    ob, theta, v = problem([5, 8, 3], "silu", "cross_entropy", dtype)
    W, b = ob.model.unflatten(theta)[-1]
    W[:], b[:] = W[0], b[0]
    b[1] *= 1 + 4 * np.finfo(dtype).eps
    check_bounds(ob, theta, v)


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "elu"])
def test_bounds_hold_at_a_kink_within_rounding(act):
    """Rounding bounds hold if the preactivation 0.1 + 0.2 - 0.3 has the wrong sign in float32, so
    that phi', or for elu phi'', is that of the other side of the kink.
    """
    X = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 4.0]])
    ob, theta, v = problem([3, 2, 1], act, "mse", "float32", X=X)
    theta = ob.model.flatten([([[1, 1, -1], [0.5, -1, 2]], [0, 0]), ([[1.0, -2.0]], [0.3])])
    for flip in (1, -1):
        moved = theta.copy()
        moved[2] = np.nextafter(theta[2], np.float32(flip * 10))
        for at in (theta, moved):
            check_bounds(ob, at, v)
    assert product_bound(ob, theta, v) > 1e-3


@pytest.mark.parametrize("loss", engine.LOSSES)
def test_bounds_hold_near_a_critical_point(dtype, loss):
    ob, theta, v = problem([3, 5, 2], "tanh", loss, "float64", l2=1e-3, seed=1)
    at = minimize(
        ob.value_and_gradient,
        theta,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 400},
    ).x
    assert np.linalg.norm(ob.gradient(at)) < 1e-6
    ob = ob.astype(dtype)
    found = check_bounds(ob, at.astype(dtype), v.astype(dtype))
    assert found["gradient"][0] < (1e-3 if dtype == "float32" else 1e-12)


def test_bounds_hold_for_directions_of_cancelling_products():
    """The rounding bound on H v holds and is small for a v that shifts all logits equally, for
    which all terms of H v cancel.
    """
    ob, theta, v = problem([4, 6, 3], "tanh", "cross_entropy")
    shift = np.zeros(ob.n_params)
    shift[-3:] = 1
    found = check_bounds(ob, theta, shift)
    assert found["hessian"][0] < 1e-13


# --- sizes of the bounds


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("act", engine.ACTIVATIONS)
@pytest.mark.parametrize("loss", engine.LOSSES)
def test_bounds_exceed_errors_by_limited_factors(act, loss):
    """Rounding bounds exceed errors by factors of at most 5000 for two layers and 500 000 for five,
    or twice that with the plain loops. Measured bounds in float32 exceed errors by at most 1%.
    """
    # sums of the plain loops have smaller errors
    plain = 2 if engine.chosen_arch() == "reference" else 1
    for sizes, ceiling in (([8, 16, 5], 5e3), ([8, 16, 16, 16, 16, 5], plain * 5e5)):
        for dtype in DTYPES:
            found = errors(*problem(sizes, act, loss, dtype, N=100), kinds=("hessian",))
            for what, (bound, error) in found.items():
                measured = dtype == "float32" and ("measured" in what or "operator" in what)
                assert bound <= (1.01 if measured else ceiling) * error, (what, bound / error)


@pytest.mark.parametrize("power", [-850, -500, 60, 500])
def test_bounds_grow_at_least_in_proportion_to_the_loss(power):
    """If sample weights are multiplied by a power of two, rounding bounds grow at least in
    proportion to the loss, and remain finite unless squares overflow.
    """
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    model = fc.MLP([3, 4, 2])
    theta, v = model.init(rng=0), rng.standard_normal(model.n_params)
    found = []
    for p in (0, power):
        weight = np.full(9, np.ldexp(1.0, p))
        ob = fc.Objective(model, X, y, loss="mse", sample_weight=weight)
        H, known = ob.hessian(theta), ob.certificates
        r = known.residual_bounds(theta, 1e-3)
        numbers = [
            rounding_bound(ob, theta), known.precise_gradient(theta)[1],
            known.precise_value(theta)[1], known.third_bound(theta, 1e-3), rounding_bound(H, v),
            assembled(H).error_bound(), assembled(ob.ggn(theta)).error_bound(),
            rounding_bound(ob.empirical_fisher(theta), v),
        ]  # fmt: skip
        powers = np.full(len(numbers), p)
        powers[-1] = 2 * p
        roots = np.ldexp([r.lipschitz, r.error], -p // 2)
        found.append(np.concatenate([np.ldexp(numbers, -powers), roots]))
    assert np.isfinite(found[1]).all() or power > 400
    assert np.all(found[1] >= 0.999 * found[0])


@pytest.mark.parametrize("k", [300, 784, 2000])
def test_bounds_hold_for_long_sums(arch, dtype, k):
    """Rounding bounds on gradient and product hold for a sum of 1 and many terms below eps, each of
    which is rounded in the same direction.
    """
    eps = float(np.finfo(dtype).eps)
    X = np.full((3, k), 0.4 * eps)
    X[:, 0] = 1
    ob = fc.Objective(fc.MLP([k, 1], bias=False, dtype=dtype), X, [0.9, 0.9, 0.9], loss="mse")
    ones = np.ones(k, dtype)
    lost = abs(float(ob.model.predict(ones, X)[0, 0] - (1 + 0.4 * eps * (k - 1)))) / eps
    assert lost > 20 or arch == "blas"  # the error to be bounded is not negligible
    check_bounds(ob, ones, ones, kinds=("hessian",))


def test_the_bound_of_a_block_holds_for_its_products():
    for dtype in DTYPES:
        ob, theta, v = problem([4, 6, 3], "gelu", "mse", dtype)
        block = ob.hessian(theta).restrict(layers=[1])
        full = np.zeros_like(v)
        full[block.indices] = v[block.indices]
        error = size((block @ v[block.indices]) - Truth(ob, theta).product(full)[block.indices])
        assert error <= rounding_bound(block, v[block.indices]) * (1 + ORACLE / np.finfo(dtype).eps)


def test_activations_are_as_accurate_as_bounds_assume():
    rng = np.random.default_rng(0)
    far = np.concatenate([rng.uniform(-b, b, 500) for b in (0.01, 1, 6, 30, 80)])
    far = np.append(far, 10.0 ** rng.uniform(-30, 1, 500))
    for dtype, name, arch in product(DTYPES, engine.ACTIVATIONS, engine.available_archs()):
        z, layout = far.astype(dtype)[None], {"arch": arch, "chunk": 1, "panel": 0, "groups": 0}
        with np.errstate(under="ignore"):
            truth = activation(name, z.astype(LD))
        r = arithmetic.RoundingModel(np.dtype(dtype), layout, 1)
        phi = arithmetic.ActivationDerivatives(name, arithmetic.exact_enclosure(z, r), skip=True)
        bounds = [np.zeros(z.shape) if x is None else x.dx.E for x in (phi.a, phi.p, phi.q)]
        for got, true, bound in zip(hooks.activate(arch, name, z), truth, bounds):
            assert np.all(np.abs(got - true) <= bound * (1 + ORACLE / np.finfo(dtype).eps)), name


def test_norms_are_safe_from_underflow_and_overflow():
    E = np.array([[3e-200, 4e-200], [3e200, 4e200], [3.0, 4.0], [0.0, 0.0], [np.inf, 1.0]])
    np.testing.assert_allclose(arithmetic.row_norms(E)[:, 0], [5e-200, 5e200, 5, 0, np.inf])


def test_constants_of_proofs_equal_those_of_kernels():
    """The epsilon of batch normalisation and the slope of leaky_relu have the same values in proofs
    and in kernels.
    """
    from fastcurv.structure import tables

    assert engine.BATCH_NORM_EPS == tables.BATCH_NORM_EPS
    a, slope, _ = hooks.activate(None, "leaky_relu", np.array([[-1.0, 1.0]]))
    assert slope[0, 0] == tables.ACTIVATIONS["leaky_relu"].leak == -a[0, 0]
