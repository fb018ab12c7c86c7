"""Networks that the tests of products share, drawn and asked."""

import numpy as np

from fastcurv import Objective

from ..nets import draw

NETS = {  # how the engine serves them is asserted in test_same_bits
    "tiny": {"sizes": [2, 5, 1], "activation": "gelu", "loss": "mse", "N": 9},
    "tall": {
        "sizes": [33, 31, 31, 7],
        "activation": ["tanh", "silu"],
        "loss": "cross_entropy",
        "N": 333,
        "residual": True,
    },
    "wide": {
        "sizes": [129, 130, 130, 257, 33],
        "activation": "softplus",
        "loss": "binary_cross_entropy",
        "N": 65,
        "residual": True,
    },
}


def objective(
    rng, sizes, N, activation="tanh", loss="mse", dtype="float64", copies=False, **options
):
    """(objective, theta), theta far from any start; with `copies` half of the rows are one."""
    X = rng.standard_normal((N, sizes[0])).astype(dtype)
    if copies:
        X[: N // 2] = X[0]
    net = draw(rng, sizes, activation, loss, dtype=dtype, X=X, **options)
    return net.ob, net.direction(rng) / 2


def everything(ob, theta, V):
    """Every public result, by name."""
    H, v = ob.hessian(theta), np.ascontiguousarray(V[:, 0])
    J = ob.jacobian(theta)
    value, gradient = ob.value_and_gradient(theta)
    Jv = J @ v
    return {
        "value": value,
        "gradient": gradient,
        "H @ v": H @ v,
        "H @ V": H @ V,
        "v'Hv": H.quadratic(v),
        "V'HV": H.quadratic(V),
        "G @ V": ob.ggn(theta) @ V,
        "F @ V": ob.empirical_fisher(theta) @ V,
        "J @ v": Jv,
        "J.T @ Jv": J.T @ Jv,
    }


def again(p, **options):
    """The same objective made anew, with other options."""
    ob = p.ob
    return Objective(ob.model, p.X, p.y, ob.loss, l2=ob.l2, sample_weight=p.weight, **options)
