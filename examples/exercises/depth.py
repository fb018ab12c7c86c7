"""Exercises on depth."""

# %% [markdown]
# **Exercise 1.** A layer computes $z = W a$ where $a = \max(z, s z)$ comes from the previous layer:
# leaky relu with a slope $s$ below zero. The weights are independent, with mean 0 and a standard
# deviation that you choose. If the $z$ of the previous layer are symmetric about 0, which standard
# deviation keeps the mean of $z^2$ the same from layer to layer? Define `weight_std(fan_in,
# slope)`.

# %% answer
# The mean of z^2 is fan_in std^2 times that of a^2. Half of the z are negative, so the mean of a^2
# is (1 + slope^2) / 2 times that of z^2. With slope 0 this is the initialisation of He et al.
import numpy as np


def weight_std(fan_in, slope):
    return np.sqrt(2 / (fan_in * (1 + slope**2)))


# %% check
rng = np.random.default_rng(0)
for slope in (0.0, 0.2, 0.5, 1.0):
    z = rng.standard_normal((20, 400))
    before = np.mean(z**2)
    for _ in range(15):
        a = np.where(z > 0, z, slope * z)
        z = a @ rng.standard_normal((400, 400)).T * weight_std(400, slope)
    assert abs(np.log(np.mean(z**2) / before)) < 1.5, slope

# %% wrong


def weight_std(fan_in, slope):
    return np.sqrt(1 / fan_in)


# %% [markdown]
# **Exercise 2.** A layer with weights $W$ is followed by batch normalisation, which divides out
# their scale: $cW$ gives the same outputs. How does the gradient with respect to $W$ change if $W$
# is multiplied by $c$? A step of gradient descent from $cW$ should lead to a network with the same
# outputs as the step from $W$ with rate $\eta$. By which factor must the rate be multiplied? Define
# `gradient_factor(c)` and `rate_factor(c)`. (Weight decay makes $W$ shrink: what is its effect on
# the rate for the function?)

# %% answer
# L(cW) = L(W), so the derivative by the weights is divided by c. The step must be c times as long
# as that from W, from a gradient 1/c as long: the rate is multiplied by c^2. Weight decay, which
# divides W by c, therefore acts like a rate that is c^2 times as large.


def gradient_factor(c):
    return 1 / c


def rate_factor(c):
    return c**2


# %% check
import fastcurv as fc

X = rng.standard_normal((40, 3))
model = fc.MLP([3, 6, 2], activation="tanh", batch_norm=True)
ob = fc.Objective(model, X, rng.standard_normal((40, 2)), loss="mse")
W = slice(0, 18)  # the weights of the first layer
theta = model.init(rng=0)
theta[W] *= 30  # so large that the small number in the denominator does not matter
for c in (0.5, 2.0, 10.0):
    scaled = theta.copy()
    scaled[W] *= c
    g, g_scaled = ob.gradient(theta)[W], ob.gradient(scaled)[W]
    assert np.allclose(g_scaled, gradient_factor(c) * g, rtol=1e-3, atol=1e-9)
    after, after_scaled = theta.copy(), scaled.copy()
    after[W] -= 300 * g
    after_scaled[W] -= 300 * rate_factor(c) * g_scaled
    assert abs(ob.value(after) - ob.value(theta)) > 1e-3
    assert np.isclose(ob.value(after), ob.value(after_scaled), rtol=1e-4)

# %% wrong


def rate_factor(c):
    return c
