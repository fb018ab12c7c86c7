"""Conversion of weights and models of Keras and of pytrees of JAX."""

import warnings

import numpy as np
import pytest

import fastcurv as fc

RNG = np.random.default_rng(3)
X = RNG.standard_normal((17, 4))


def test_weights_of_keras_and_jax_give_equal_outputs():
    K1, b1, K2, b2 = (RNG.standard_normal(s) for s in ((4, 6), 6, (6, 2), 2))
    by_hand = np.tanh(X @ K1 + b1) @ K2 + b2
    flax = {
        "params": {"Dense_10": {"kernel": K2, "bias": b2}, "Dense_9": {"bias": b1, "kernel": K1}}
    }
    haiku = {"mlp/linear_0": {"w": K1, "b": b1}, "mlp/linear_1": {"b": b2, "w": K2}}
    for model, theta in (
        fc.from_keras([K1, b1, K2, b2], activation="tanh"),
        fc.from_jax(flax, "tanh"),
        fc.from_jax(haiku, "tanh"),
        fc.from_jax([(K1, b1), (K2, b2)], ["tanh"]),
        fc.from_jax([(K1, b1), (), (K2, b2)], "tanh"),
    ):
        assert model.sizes == (4, 6, 2)
        assert np.allclose(model.predict(theta, X), by_hand, rtol=1e-13, atol=1e-14)
    assert not fc.from_keras([K1, K2], "relu")[0].bias
    assert fc.from_keras([K1.astype("f4"), b1.astype("f4")])[0].dtype == np.float32
    for call, words in (
        (lambda: fc.from_keras([K1, b1, b1, b1]), r"weights\[2\]"),
        (lambda: fc.from_keras([K1.T, b1, K2.T, b2]), "bias"),
        (lambda: fc.from_keras([]), "each with a bias, got an empty list"),
        (lambda: fc.from_jax({"conv": np.zeros((2, 2, 2))}), "conv"),
        (lambda: fc.from_jax([(K1, b1), (K1, b1)]), "must take .*got 4"),
        (lambda: fc.from_keras([K1, b1, K2, b2], "swish"), "swish"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_jax_pytree_gives_equal_outputs_and_products():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    with jax.enable_x64() if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        params = [
            (jnp.asarray(RNG.standard_normal((k, m))), jnp.asarray(RNG.standard_normal(m)))
            for k, m in ((4, 6), (6, 2))
        ]
        y, x = jnp.asarray(RNG.standard_normal((17, 2))), jnp.asarray(X)

        def f(params):
            (K1, b1), (K2, b2) = params
            return ((jnp.tanh(x @ K1 + b1) @ K2 + b2 - y) ** 2).mean()

        tangent = jax.tree_util.tree_map(
            lambda a: jnp.asarray(RNG.standard_normal(a.shape)), params
        )
        theirs = jax.jvp(jax.grad(f), (params,), (tangent,))[1]
        model, theta = fc.from_jax(params, "tanh")
        v = fc.from_jax(tangent, "tanh")[1]
        H = fc.Objective(model, X, np.asarray(y), "mse").hessian(theta)
        assert np.linalg.norm(H @ v - fc.from_jax(theirs, "tanh")[1]) <= 4 * H.rounding_bound(v)


def dense(k, m, **more):
    return {"kernel": RNG.standard_normal((k, m)), "bias": RNG.standard_normal(m)} | more


def test_jax_layers_are_ordered_by_number_or_by_width():
    """Layers of a pytree whose names end in numbers are ordered by these numbers, and other layers
    by matching widths. An error is raised if neither determines an order.
    """
    named = {"output": dense(6, 2), "hidden": dense(4, 6)}
    mixed = {f"Dense_{i}": dense(*s) for i, s in enumerate([(4, 6), (6, 6), (6, 6)])}
    haiku = {"net/linear": dense(4, 4), "net/linear_1": dense(4, 4), "net/linear_2": dense(4, 4)}
    for params, first in ((named, "hidden"), (mixed | {"out": dense(6, 2)}, "Dense_0")):
        model, theta = fc.from_jax(params, "relu")
        assert np.array_equal(model.unflatten(theta)[0][0].T, params[first]["kernel"])
    model, theta = fc.from_jax(haiku, "relu")
    for (W, _), params in zip(model.unflatten(theta), haiku.values()):
        assert np.array_equal(W.T, params["kernel"])
    for unknown in (
        {"encoder": dense(4, 2), "decoder": dense(2, 4)},
        {"first": dense(4, 4), "second": dense(4, 4)},
        {"Dense_0": dense(4, 4), "out": dense(4, 4)},
        {"W_in": np.ones((3, 3)), "W_out": np.ones((3, 3))},
    ):
        with pytest.raises(ValueError, match="names that give the order of its layers"):
            fc.from_jax(unknown)
    with pytest.raises(ValueError, match="must take 2 inputs.*got 3"):
        fc.from_jax({"first": dense(4, 2), "second": dense(3, 2)})


@pytest.mark.parametrize(
    "params, words",
    [
        ({"Dense_0": {"kernel": np.ones((4, 2))}, "Norm_0": {"scale": np.ones(2)}}, "'scale'"),
        ({"kernel": np.ones((4, 2)), "scale": np.ones(2)}, "'scale'"),
        ({"kernel": np.ones((4, 4)), "bias": np.ones((1, 4))}, "'bias'"),
        ([(np.ones((3, 1)), np.ones((1, 1)))], "0..1. of shape .1, 1."),
        ({"Embed_0": {"embedding": np.ones((9, 4))}}, "'embedding'"),
        ([[np.ones((4, 2))], [np.ones(2)]], "1..0."),
    ],
)
def test_errors_name_jax_arrays_that_are_not_kernel_or_bias(params, words):
    with pytest.raises(ValueError, match=f"{words}.* has no counterpart"):
        fc.from_jax(params)


def test_weights_without_an_activation_are_rejected():
    """Weights of several layers are rejected without an activation, because a default would be a
    guess that changes the curvature. The weights of a single linear layer need no activation.
    """
    dense = {"Dense_0": {"kernel": K1, "bias": b1}, "Dense_1": {"kernel": K2, "bias": b2}}
    for call, given in ((fc.from_keras, [K1, b1, K2, b2]), (fc.from_jax, dense)):
        with pytest.raises(ValueError, match="activation must be .*got None.*one of .*relu.*tanh"):
            call(given)
        assert call(given, "relu")[0].activation == ("relu",)
    assert fc.from_jax(dense["Dense_0"])[0] == fc.from_keras([K1, b1])[0]


def fake_layer(kind, arrays=(), **settings):
    """Return an object of a class named `kind` with those attributes of a Keras layer that the
    converter uses: weights `arrays` and configuration `settings`.
    """
    body = {
        "__module__": "keras.src.layers",
        "name": "a",
        "get_weights": lambda self: list(arrays),
        "get_config": lambda self: settings,
    }
    return type(kind, (), body)()


def fake_sequential(*layers, kind="Sequential", module="keras.src"):
    weights = [a for one in layers for a in one.get_weights()]
    body = {"__module__": module, "layers": layers, "get_weights": lambda self: weights}
    return type(kind, (), body)()


K1, b1, K2, b2 = (RNG.standard_normal(s) for s in ((4, 6), 6, (6, 2), 2))
FIRST, LAST = fake_layer("Dense", [K1, b1], activation="tanh"), fake_layer("Dense", [K2, b2])


@pytest.mark.parametrize(
    "middle, phi",
    [
        ([], "tanh"),
        ([fake_layer("Activation", activation="swish")], "silu"),
        ([fake_layer("LeakyReLU", negative_slope=0.01)], "leaky_relu"),
        ([fake_layer("ReLU", max_value=None, negative_slope=0.0, threshold=0.0)], "relu"),
        ([fake_layer("ELU", alpha=1.0), fake_layer("Dropout"), fake_layer("Flatten")], "elu"),
        (
            [fake_layer("ELU", alpha=1.0), fake_layer("GaussianNoise"), fake_layer("Identity")],
            "elu",
        ),
    ],
)
def test_activations_of_a_keras_model_are_read(middle, phi):
    first = fake_layer("Dense", [K1, b1]) if middle else FIRST
    last = fake_layer("Dense", [K2, b2], activation="softmax")
    network = fake_sequential(fake_layer("InputLayer"), fake_sequential(first, *middle), last)
    network.loss = "categorical_crossentropy"
    model, theta = fc.from_keras(network)
    assert model == fc.MLP([4, 6, 2], phi)
    assert np.array_equal(theta, fc.from_keras([K1, b1, K2, b2], phi)[1])
    assert fc.from_keras(network, activation=phi)[0] == model
    with pytest.raises(ValueError, match="activation must be None or .*got 'softplus'"):
        fc.from_keras(network, activation="softplus")


def scaling_layer(kind, parts=None, **settings):
    """Return a fake Keras layer of the class `kind` that scales features, with the arrays of the
    dict `parts` as attributes and weights.
    """
    parts = parts or {}
    one = fake_layer(kind, list(parts.values()), **settings)
    vars(one).update(parts)
    return one


U6, U4 = RNG.uniform(0.5, 2, (4, 6)), RNG.uniform(0.5, 2, (3, 4))
PARTS = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), U6))


def batch_norm(a, gamma=U6[0], beta=U6[1]):
    return gamma * (a - U6[2]) / np.sqrt(U6[3] + 1e-2) + beta


@pytest.mark.parametrize(
    "between, by_hand",
    [
        (scaling_layer("BatchNormalization", PARTS, axis=-1, epsilon=1e-2), batch_norm),
        (
            scaling_layer("BatchNormalization", {**PARTS, "gamma": None}, axis=1, epsilon=1e-2),
            lambda a: batch_norm(a, gamma=1.0),
        ),
        (
            scaling_layer("BatchNormalization", {**PARTS, "beta": None}, axis=[1], epsilon=1e-2),
            lambda a: batch_norm(a, beta=0.0),
        ),
        (
            scaling_layer("Normalization", {"mean": U6[:1], "variance": U6[1:2]}, axis=(-1,)),
            lambda a: (a - U6[0]) / np.sqrt(U6[1]),
        ),
        (
            scaling_layer("Normalization", {"mean": 2.0, "variance": 0.0}, axis=None, invert=True),
            lambda a: 2.0 + 1e-7 * a,
        ),
        (scaling_layer("Rescaling", scale=0.1, offset=3.0), lambda a: 0.1 * a + 3.0),
        (scaling_layer("Rescaling", scale=list(U6[0]), offset=0.0), lambda a: U6[0] * a),
    ],
)
def test_scalings_of_keras_are_folded_with_a_warning(between, by_hand):
    """Keras layers that scale features after an activation or a Dense layer are folded into the
    linear layers with a warning. The outputs equal those computed by NumPy.
    """
    for first, phi in ((FIRST, np.tanh), (fake_layer("Dense", [K1, b1]), lambda z: z)):
        with pytest.warns(UserWarning, match="folded into the linear layers: n is 44"):
            model, theta = fc.from_keras(fake_sequential(first, between, LAST))
        expected = by_hand(phi(X @ K1 + b1)) @ K2 + b2
        assert np.allclose(model.predict(theta, X), expected, rtol=1e-12, atol=1e-13)


def test_a_keras_normalization_without_moments_is_rejected():
    for kind, cure in (("Normalization", "layer.adapt"), ("BatchNormalization", "model.build")):
        with pytest.raises(ValueError, match=f"{kind} .a. must have a mean .*Call {cure}"):
            fc.from_keras(fake_sequential(scaling_layer(kind, axis=-1, epsilon=1e-3), FIRST, LAST))
    with pytest.raises(ValueError, match="BatchNormalization .a. along axis 0"):
        fc.from_keras(
            fake_sequential(FIRST, scaling_layer("BatchNormalization", PARTS, axis=0), LAST)
        )


@pytest.mark.parametrize(
    "loss, warned",
    [
        ("categorical_crossentropy", False),
        ("sparse_categorical_crossentropy", False),
        (type("BinaryCrossentropy", (), {"_fn_kwargs": {"from_logits": False}})(), False),
        (type("BinaryCrossentropy", (), {"_fn_kwargs": {"from_logits": True}})(), True),
        ("mse", True),
        (None, True),
    ],
)
def test_an_omitted_keras_softmax_warns_unless_the_loss_includes_it(loss, warned):
    for phi in ("softmax", "sigmoid"):
        network = fake_sequential(FIRST, fake_layer("Dense", [K2, b2], activation=phi))
        network.loss = loss
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fc.from_keras(network)
        assert len(told) == warned


@pytest.mark.parametrize(
    "layers, words",
    [
        ([fake_layer("Dense", [K1, b1], activation="leaky_relu"), LAST], "activation 'leaky_relu'"),
        ([fake_layer("Dense", [K1, b1], activation={"own": 1}), LAST], "activation 'a dict'"),
        (
            [fake_layer("Dense", [K1, b1]), fake_layer("LeakyReLU", negative_slope=0.3), LAST],
            "=0.3",
        ),
        ([fake_layer("Dense", [K1, b1]), fake_layer("ReLU", max_value=6.0), LAST], "max_value=6.0"),
        ([fake_layer("Dense", [K1, b1, b1]), LAST], "of 3 arrays"),
        ([fake_layer("LayerNormalization", [b1])], "LayerNormalization .a."),
        ([fake_layer("Softmax", axis=0)], "Softmax .a."),
    ],
)
def test_errors_name_unsupported_keras_layers(layers, words):
    with pytest.raises(ValueError, match=words):
        fc.from_keras(fake_sequential(*layers))


def test_an_unbuilt_keras_model_is_rejected():
    unbuilt = fake_layer("Dense", activation="tanh")
    type(unbuilt).built = False
    with pytest.raises(
        ValueError, match=r"Dense \(a\) must have weights, got none. Call model.build"
    ):
        fc.from_keras(fake_sequential(unbuilt, LAST))


def test_keras_models_that_are_not_a_chain_are_rejected():
    own = fake_sequential(FIRST, LAST, kind="Own", module="mine")
    with pytest.raises(ValueError, match="Own .layer. has no counterpart"):
        fc.from_keras(own)
    fork = fake_sequential(FIRST, LAST, kind="Functional")
    with pytest.raises(ValueError, match="Functional, whose layers do not form a chain"):
        fc.from_keras(fork)
    x, z, y = object(), object(), object()
    fork.inputs, fork.outputs = [x], [y]
    for one, (given, made) in zip(fork.layers, ((x, z), (z, y))):
        one.input, one.output = given, made
    assert fc.from_keras(fork)[0] == fc.MLP([4, 6, 2], "tanh")
    fork.layers[1].input = x
    with pytest.raises(ValueError, match="not form a chain"):
        fc.from_keras(fork)


def test_errors_for_modules_in_a_pytree_name_their_arrays():
    """For objects such as the modules of Equinox and Flax NNX, `from_jax` raises TypeError and
    states that parameters must be arrays.
    """

    class MLP:
        pass

    for params in (MLP(), [MLP()], {"params": MLP()}):
        with pytest.raises(TypeError, match=r"must be arrays .*got an MLP.* of Equinox"):
            fc.from_jax(params)
