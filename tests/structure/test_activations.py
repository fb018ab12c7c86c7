"""User-defined activations: products against long double and complex steps, and tanh by a function
against its kernels.
"""

import copy
import os
import pickle
import signal

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import Activation
from fastcurv.structure.tables import ACTIVATIONS, activation_spec

from .. import nets
from ..certify.longdouble import LD, Truth, in_long_double
from ..network.product_cases import assert_same_results
from ..plans import least_memory
from .test_losses import KINDS

pytestmark = pytest.mark.by_day(share=1 / 2)

TANH = nets.OWN["hyperbolic"]
SMALL = [*nets.OWN][:5]  # user-defined activations that do not grow faster than z


def drawn(rng, names, N=None, **options):
    """Return a random network of one to four hidden layers, of equal or different widths, with
    activations from `names` and N samples, by default 1 to 600.
    """
    hidden = [int(rng.integers(1, 40)) for _ in range(rng.integers(1, 5))]
    if rng.random() < 0.5:  # equal widths, so that skip connections are possible
        hidden = [hidden[0]] * len(hidden)
    sizes = [hidden[0] if rng.random() < 0.5 else 5, *hidden, int(rng.integers(1, 4))]
    phi = [nets.OWN.get(name, name) for name in rng.choice(names, len(hidden))]
    N = N or int(rng.choice([1, 3, 17, 40, 130, 600]))
    bias, residual = bool(rng.random() < 0.8), bool(rng.random() < 0.5)
    return nets.draw(rng, sizes, phi, "mse", N, bias=bias, residual=residual, **options)


def relative(a, b):
    return np.linalg.norm(np.asarray(a, LD) - b) / np.linalg.norm(b)


@in_long_double
@pytest.mark.parametrize("seed", range(60))
def test_products_agree_with_long_double(seed):
    """Gradients and products of networks that mix built-in and user-defined activations agree with
    long double to 1e-12.
    """
    rng = np.random.default_rng(seed)
    net = drawn(rng, [*SMALL, "square", "tanh", "gelu"], l2=0.01, weights=bool(seed % 2))
    truth, v = Truth(net.ob, net.theta), net.direction(rng)
    ob = net.objective(memory=2_000_000) if seed % 3 == 0 else net.ob
    H = ob.hessian(net.theta)
    assert relative(ob.gradient(net.theta), truth.gradient) <= 1e-12
    assert relative(H @ v, truth.product(v)) <= 1e-12


@pytest.mark.parametrize("batch_norm", [False, True])
def test_products_match_complex_steps(batch_norm, rng, dtype):
    """Values, gradients and Hessian products with user-defined activations match complex steps of
    the reference, with and without batch normalisation, for all samples at once and in chunks.
    """
    in_chunks = 0
    for _ in range(10):
        names = ["arctan", "wave", "bent", "square", "tanh"]
        net = drawn(rng, names, 300, batch_norm=batch_norm, l2=0.1, dtype=dtype)
        t, v = net.theta.astype(float), net.direction(rng)
        exact = net.ref.gradient(t), net.ref.hessian(t) @ v.astype(float)
        tolerance = 1e-12 if dtype == "float64" else 2e-4
        least = least_memory(lambda most, net=net: net.objective(memory=most).gradient(net.theta))
        few = net.objective(memory=least)
        for ob in (net.ob, few):
            found = ob.gradient(net.theta), ob.hessian(net.theta) @ v
            assert all(relative(a, b) <= tolerance for a, b in zip(found, exact, strict=True))
            assert ob.value(net.theta) == pytest.approx(net.ref.value(t), rel=tolerance)
        in_chunks += few._spare_or_new_plan().layout["chunk"] < 300
    assert in_chunks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_user_defined_tanh_equals_the_built_in_one(kind, batch_norm, rng):
    """All results for a user-defined tanh equal those of the built-in one up to rounding."""
    if batch_norm and kind in ("sparse", "blocks"):
        return
    X, y = rng.standard_normal((300, 6)), rng.standard_normal((300, 3))
    for phi in (TANH, [TANH, "tanh"], ["tanh", TANH]):
        theirs, ours = (
            fc.MLP([6, 6, 7, 3], which, batch_norm=batch_norm, residual=True)
            for which in ("tanh", phi)
        )
        theta, V = theirs.init(rng=1), rng.standard_normal((theirs.n_params, 2))
        assert np.array_equal(theta, ours.init(rng=1))
        one, two = (KINDS[kind](m, X, y, "mse", l2=0.01) for m in (theirs, ours))
        assert two.value(theta) == pytest.approx(one.value(theta), rel=1e-14)
        assert_same_results(two, one, theta, V, 1e-13)
        gap = ours.predict(theta, X) - theirs.predict(theta, X)
        assert np.abs(gap).max() <= 1e-13
        inner = [ob.model.preactivations(theta, X)[1] for ob in (one, two)]
        assert relative(*inner) <= 1e-13


# --- bounds


# --- verdicts and methods


def problem(phi, l2=0.05, loss="mse", **more):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 6)), rng.standard_normal((50, 2))
    return fc.Objective(fc.MLP([6, 4, 2], phi, **more), X, y, loss, l2=l2)


@pytest.mark.parametrize(
    "method",
    ["l-bfgs", "levenberg-marquardt", "trust-region", "gauss-newton", "newton-cg", "cubic", "adam"],
)
def test_methods_end_at_the_loss_reached_with_kernels(method, dtype):
    ends = []
    for phi in ("tanh", TANH):
        ob = problem(phi, dtype=dtype)
        how = {"batch_size": 25, "max_iter": 5} if method == "adam" else {"max_iter": 100}
        ends.append(fc.minimize(ob, ob.model.init(rng=0), method, rng=0, verdict=False, **how))
    assert ends[1].fun == pytest.approx(ends[0].fun, rel=1e-4 if dtype == "float32" else 1e-9)


# --- errors


def test_errors_in_an_activation_propagate_and_the_objective_stays_usable():
    calls = []

    def brittle(z):
        calls.append(z.shape)
        if np.abs(z).max() > 50:
            raise KeyError("too far")
        return nets.arctan(z)

    for layers in ([5, 4, 4, 1], [5, 200, 200, 1]):
        rng = np.random.default_rng(0)
        X, phi = rng.standard_normal((60, 5)), Activation(brittle)
        ob = fc.Objective(fc.MLP(layers, phi), X, X[:, 0], "mse", l2=0.1)
        theta = ob.model.init(rng=0)
        before, g = ob.value(theta), ob.gradient(theta)
        for _ in range(2):
            with pytest.raises(KeyError, match="too far"):
                ob.value(1000 * theta)
            with pytest.raises(KeyError, match="too far"):
                ob.hessian(1000 * theta)
        with pytest.raises(KeyError, match="too far"):
            fc.minimize(ob, 1000 * theta, "l-bfgs")
        calls.clear()
        assert ob.value(theta) == before and np.array_equal(ob.gradient(theta), g)
        H = ob.hessian(theta)
        for _ in range(5):
            H @ theta
        assert len(calls) == 2 and calls[0] == (60, layers[1])  # one call for each theta and layer


def test_ctrl_c_inside_an_activation_raises_keyboard_interrupt():
    ring = [0]

    def slow(z):
        ring[0] -= 1
        if ring[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return nets.arctan(z)

    ob = problem(Activation(slow))
    theta = ob.model.init(rng=0)
    before = ob.value(theta)
    for call in (ob.value, ob.gradient, lambda t: fc.minimize(ob, t, "l-bfgs")):
        ring[0] = 1
        with pytest.raises(KeyboardInterrupt):
            call(theta + 1e-3)
    assert ob.value(theta) == before


def test_an_activation_cannot_modify_its_argument():
    def rude(z):
        z += 1
        return nets.arctan(z)

    with pytest.raises(ValueError, match="read-only"):
        Activation(rude)


def test_nan_of_an_activation_gives_a_nan_loss_that_no_step_accepts():
    """If an activation returns NaN, the loss is NaN, and no step to that point is accepted."""

    def edge(z):
        a, p, q = nets.arctan(z)
        return np.where(np.abs(z) > 40, np.nan, a), p, q

    ob = problem(Activation(edge))
    theta = ob.model.init(rng=0)
    assert np.isnan(ob.value(1000 * theta))
    assert np.isfinite(fc.minimize(ob, theta, rng=0).fun)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "function, words",
    [
        (lambda z: (z, z), "must return .*got a tuple"),
        (lambda z: z, r"must return \(phi, first, second\)"),
        (lambda z: (z, np.ones(3), z), r"return first as .*, got shape \(3,\)"),
        (lambda z: (z, 1, 0), r"return first as .*, got shape \(\)"),
        (lambda z: (z, z.astype(int), z), "dtype int64"),
        (lambda z: (np.sqrt(z), 0.5 / np.sqrt(z), z), "phi = nan at z = -2.986"),
        (lambda z: (z, np.ones_like(z), np.inf * z), "second = -inf at z"),
        (
            lambda z: (z * z, 2 * z, 3 + 0 * z),
            "derivative of first, which is 2 by .* at z = .*, got 3",
        ),
        (lambda z: (z * z, z, 1 + 0 * z), "derivative of phi, which is -5.9.* by .*, got -2.986"),
        (lambda z: (z / (9 + z[0]), z, z), "for the same numbers in another shape"),
    ],
)
def test_activations_are_checked_when_they_are_defined(function, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Activation(function)


def test_activations_with_kinks_are_accepted():
    """A user-defined relu gives the products of the built-in one, on one side of its kinks."""
    relu = Activation(lambda z: (np.maximum(z, 0), (z > 0) * 1.0, 0 * z))
    one, two = problem("relu"), problem(relu)
    theta = one.model.init(rng=0)
    v = np.cos(theta)
    assert np.array_equal(theta, two.model.init(rng=0)) and activation_spec(relu).like_relu
    assert relative(two.hessian(theta) @ v, one.hessian(theta) @ v) < 1e-13


def test_unsupported_uses_of_user_defined_activations_raise(tmp_path):
    for bad in (5, None, "tanh"):
        with pytest.raises(TypeError, match=r"must be function\(z\)"):
            Activation(bad)
    for bad in (nets.arctan, 7):
        with pytest.raises(TypeError, match="must be a name, an fc.Activation"):
            fc.MLP([2, 3, 1], bad)
    model = fc.MLP([2, 3, 3, 1], ["tanh", TANH])
    with pytest.raises(ValueError, match="a function that a file cannot hold"):
        fc.save(tmp_path / "net.safetensors", model, model.init(rng=0))
    assert not list(tmp_path.iterdir())


# --- copies, names, estimators


def test_activations_have_names_equality_and_copies():
    again = pickle.loads(pickle.dumps(nets.OWN["arctan"]))
    assert again == nets.OWN["arctan"] == copy.deepcopy(again) and hash(again) == hash(again)
    assert again.function is nets.arctan and again == Activation(nets.arctan)
    assert again != TANH and again != "arctan"
    assert repr(TANH) == "Activation(hyperbolic)"
    model = fc.MLP([2, 3, 1], TANH)
    assert "Activation(hyperbolic)" in repr(model) and model == pickle.loads(pickle.dumps(model))
    assert model == fc.MLP([2, 3, 1], Activation(nets.hyperbolic)) and model.astype("float32")
    ob = problem(TANH)
    theta = ob.model.init(rng=0)
    for same in (pickle.loads(pickle.dumps(ob)), copy.deepcopy(ob), ob.batch(slice(None))):
        assert same.value(theta) == ob.value(theta)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(Activation(lambda z: nets.arctan(z)))
    assert np.array_equal(activation_spec(TANH).phi(np.ones(3)), np.tanh(np.ones(3)))
    assert 7 not in ACTIVATIONS and TANH not in ACTIVATIONS
    with pytest.raises(KeyError):
        activation_spec("hyperbolic")
