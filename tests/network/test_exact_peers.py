"""Products agree with JAX's jvp of grad and with torch's double backward, if these libraries are
installed.
"""

import zlib

import numpy as np
import pytest

from ..nets import KERNELS, draw, every_activation
from .product_cases import assert_agrees_with_torch, torch_net

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
