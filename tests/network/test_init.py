"""Initial parameters of deep networks with skip connections."""

import numpy as np

import fastcurv as fc

from .. import nets


def test_gradient_steps_lower_the_initial_loss_of_deep_residual_networks(rng):
    """For unbounded activations and residual networks of depth 5, 10 and 20, the initial loss for
    targets of variance 1 is below ``10 depth^2``. Three gradient steps with rate 1e-5 lower the
    loss. Without the scaling of residual branches, 20 relu layers start at a loss of 1e8, which no
    rate from 1e-5 to 1 lowers.
    """
    X = rng.standard_normal((100, 6))
    y = np.sin(1.5 * X[:, 0]) + X[:, 1] * X[:, 2]
    y = (y - y.mean()) / y.std()
    for activation in (
        "relu",
        "leaky_relu",
        "gelu",
        "softplus",
        "elu",
        "identity",
        nets.OWN["wave"],
    ):
        for depth in (5, 10, 20):
            model = fc.MLP([6, *[16] * depth, 1], activation, residual=True)
            ob = fc.Objective(model, X, y, "mse")
            for seed in range(2):
                theta = model.init(rng=seed)
                run = fc.minimize(ob, theta, "sgd", learning_rate=1e-5, max_iter=3, verdict=False)
                assert run.fun < ob.value(theta) < 10 * depth**2, (activation, depth, seed)


def test_only_residual_branches_are_scaled_at_initialisation(rng):
    """For unbounded activations and three layers inside skip connections, the initial matrices of
    these layers are a third of those of the plain network. All others are bitwise equal, as with
    bounded activations or batch normalisation.
    """
    sizes = [4, 8, 8, 8, 3, 3, 2]
    for activation, scale in (("relu", 1 / 3), ("gelu", 1 / 3), ("tanh", 1), ("sigmoid", 1)):
        for norm in (False, True):
            plain, skip = (
                fc.MLP(sizes, activation, residual=residual, batch_norm=norm)
                for residual in (False, True)
            )
            assert sum(skip.skips) == 3
            for scheme in ("auto", "he", "lecun"):
                parts = zip(
                    plain.unflatten(plain.init(5, scheme)), skip.unflatten(skip.init(5, scheme))
                )
                for l, (one, other) in enumerate(parts):
                    factor = scale if skip.skips[l : l + 1] == (True,) and not norm else 1
                    if factor == 1:
                        assert np.array_equal(one[0], other[0])
                    assert np.allclose(factor * one[0], other[0], rtol=1e-15)
                    assert all(map(np.array_equal, one[1:], other[1:]))
