"""Products agree with JAX's jvp of grad and with torch's double backward, if these libraries are
installed.
"""

import zlib

import numpy as np
import pytest

from ..nets import ACTIVATIONS, KERNELS, draw, every_activation
from .product_cases import assert_agrees_with_torch, assert_engine_agrees, torch_net

SIZES = [7, 9, 9, 8, 5]


def drawn(activation, loss, soft=False):
    """Return (ob, theta, v): an objective with l2, its parameters and a random vector, drawn with a
    seed that depends on activation and loss.
    """
    rng = np.random.default_rng(zlib.crc32(f"{activation} {loss}".encode()))
    net = draw(rng, SIZES, activation, loss, l2=0.05, soft=soft)
    return net.ob, net.theta, net.direction(rng)


@every_activation
def test_products_agree_with_torch_double_backward(activation):
    torch = pytest.importorskip("torch")
    for loss in KERNELS:
        for soft in (False, True) if loss != "mse" else (False,):
            ob, theta, v = drawn(activation, loss, soft)
            assert_agrees_with_torch(torch, torch_net(torch, ob.model, theta), ob, theta, v)


def test_products_agree_with_jax_jvp_of_grad():
    """Value, gradient and product agree with forward-over-reverse differentiation in JAX, for each
    loss and with each activation in one of the layers.
    """
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    wide = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    functions = {
        "identity": lambda z: z,
        "relu": jax.nn.relu,
        "leaky_relu": jax.nn.leaky_relu,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "silu": jax.nn.silu,
        "gelu": lambda z: jax.nn.gelu(z, approximate=False),
        "elu": jax.nn.elu,
    }
    try:
        for i, loss in enumerate(KERNELS):
            names = tuple(ACTIVATIONS[i::3])
            ob, theta, v = drawn(names, loss)

            def mean_loss(t, ob=ob, names=names):
                a, start = jnp.asarray(ob.X), 0
                for l, (k, m) in enumerate(zip(SIZES, SIZES[1:])):
                    W, b = (
                        t[start : start + m * k].reshape(m, k),
                        t[start + m * k : start + m * k + m],
                    )
                    start += m * k + m
                    z = a @ W.T + b
                    a = functions[names[l]](z) if l < len(names) else z
                if ob.loss == "mse":
                    terms = (z - ob.y) ** 2
                elif ob.loss == "binary_cross_entropy":
                    terms = jnp.logaddexp(0, z) - ob.y * z
                else:
                    terms = jax.scipy.special.logsumexp(z, axis=1) - z[jnp.arange(len(z)), ob.y]
                return terms.mean() + 0.5 * ob.l2 * (t @ t)

            both = jax.jit(lambda t, d: jax.jvp(jax.value_and_grad(mean_loss), (t,), (d,)))
            (value, gradient), (_, product) = both(theta, v)
            assert_engine_agrees(
                ob, theta, v, float(value), np.asarray(gradient), np.asarray(product)
            )
    finally:
        jax.config.update("jax_enable_x64", wide)
