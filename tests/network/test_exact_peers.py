"""The same numbers as JAX jvp(grad) and torch double backward, where they are installed."""

import zlib

import numpy as np
import pytest

from fastcurv import MLP, Objective

ACTIVATIONS = [
    "identity",
    "relu",
    "leaky_relu",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "elu",
]
LOSSES = ["mse", "cross_entropy", "binary_cross_entropy"]
SIZES = [7, 9, 9, 8, 5]


def drawn(activation, loss, soft=False):
    """A small net with data, weights and l2: (ob, theta, v)."""
    rng = np.random.default_rng(zlib.crc32(f"{activation} {loss}".encode()))
    N = 17
    X = rng.standard_normal((N, SIZES[0]))
    y = {
        "mse": rng.standard_normal((N, 5)),
        "binary_cross_entropy": rng.random((N, 5)),
        "cross_entropy": rng.dirichlet(np.ones(5), N) if soft else rng.integers(5, size=N),
    }[loss]
    model = MLP(SIZES, activation)
    return (
        Objective(model, X, y, loss, l2=0.05),
        model.init(seed=1) + 0.1,
        rng.standard_normal(model.n_params),
    )


def agree(ob, theta, v, value, gradient, product):
    H = ob.hessian(theta)
    assert abs(H.value - value) <= 1e-12 * abs(value)
    assert np.linalg.norm(H.gradient - gradient) <= 1e-11 * np.linalg.norm(gradient)
    assert np.linalg.norm(H @ v - product) <= 1e-11 * np.linalg.norm(product)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_double_backward(activation):
    """A stack of torch's own modules, its parameters() filled from theta in order."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    modules = {
        "identity": nn.Identity,
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "softplus": nn.Softplus,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "elu": nn.ELU,
    }
    criteria = {
        "mse": nn.MSELoss,
        "cross_entropy": nn.CrossEntropyLoss,
        "binary_cross_entropy": nn.BCEWithLogitsLoss,
    }
    for loss in LOSSES:
        for soft in (False, True) if loss == "cross_entropy" else (False,):
            ob, theta, v = drawn(activation, loss, soft)
            stack = [
                part
                for k, m in zip(SIZES, SIZES[1:])
                for part in (nn.Linear(k, m, dtype=torch.float64), modules[activation]())
            ]
            net = nn.Sequential(*stack[:-1])
            params = list(net.parameters())
            torch.nn.utils.vector_to_parameters(torch.tensor(theta), params)
            y = torch.tensor(ob.y.astype(np.int64) if ob.y.ndim == 1 else ob.y)
            value = criteria[loss]()(net(torch.tensor(ob.X)), y) + 0.5 * ob.l2 * sum(
                (p * p).sum() for p in params
            )
            flat = torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(value, params, create_graph=True)]
            )
            # none of the parameters is without effect on the gradient's graph: l2 keeps each in it
            product = torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(flat @ torch.tensor(v), params)]
            )
            agree(ob, theta, v, value.item(), flat.detach().numpy(), product.numpy())


def test_jax_jvp_of_grad():
    """Forward over reverse, each activation in one layer of a net with one of the losses."""
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
        for i, loss in enumerate(LOSSES):
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
            agree(ob, theta, v, float(value), np.asarray(gradient), np.asarray(product))
    finally:
        jax.config.update("jax_enable_x64", wide)
