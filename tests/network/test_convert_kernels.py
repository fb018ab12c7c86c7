"""Weights of Keras and JAX: arrays in an order, models that say what they compute."""

import numpy as np
import pytest

import fastcurv as fc

RNG = np.random.default_rng(3)
X = RNG.standard_normal((17, 4))


def test_keras_and_jax():
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
        (lambda: fc.from_keras([]), "no weights"),
        (lambda: fc.from_jax({"conv": np.zeros((2, 2, 2))}), "conv"),
        (lambda: fc.from_jax([(K1, b1), (K1, b1)]), "takes 4"),
        (lambda: fc.from_keras([K1, b1, K2, b2], "swish"), "swish"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_jax_outputs_and_products():
    """A pytree of JAX's own, against JAX's own derivatives."""
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
