"""Backward-error ratios of products, LAPACK's way: error over eps times units, on random
networks.
"""

import os

import numpy as np
import pytest

from fastcurv import _engine as engine

from .networks import KINKED, LENGTHS, LOSSES, SMOOTH, make
from .units import units

COUNT = int(os.environ.get("FASTCURV_EXAMPLES", "500"))


def draw_net(index):
    draw = np.random.default_rng([COUNT, index])
    sizes = draw.choice(LENGTHS, size=int(draw.integers(2, 5))).tolist()
    activation = (SMOOTH + KINKED)[index % 9]
    dtype = ("float64", "float32")[index // 9 % 2]
    if activation == "gelu":
        dtype = "float32"  # whose truth is taken in double: there is no erf of longer numbers
    l2 = float(draw.choice([0.0, 0.01]))
    residual = bool(draw.integers(2))
    N = int(draw.integers(1, 60))
    return make(index, sizes, N, activation, LOSSES[index % 3], dtype, residual, l2)


def exact(net):
    """``H v`` by the complex step of the gradient, exact to rounding; in long double but for
    gelu.
    """
    gelu = "gelu" in np.ravel(net.model.activation)
    kind, step = (np.complex128, 1e-30) if gelu else (np.clongdouble, np.longdouble(1e-100))
    long = net.theta.astype(kind) + kind(1j) * step * net.v.astype(kind)
    return net.reference().value_and_gradient(long)[1].imag / step


@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= 52, reason="long double is no longer than double"
)
def test_error_ratios():
    """Below thirty units for every network and every table of kernels; the worst is near what it
    was measured to be.
    """
    before, worst = engine.chosen_arch(), 0.0
    try:
        for index in range(COUNT):
            net = draw_net(index)
            truth = exact(net)
            unit = np.finfo(net.theta.dtype).eps * units(net.reference(), net.theta, net.v)
            for arch in engine.available_archs():
                engine.set_arch(arch)
                error = np.linalg.norm((net.objective().hessian(net.theta) @ net.v) - truth)
                ratio = float(error) / unit if unit else float(error)
                assert ratio <= 30, (index, arch, net.model, net.options, ratio)
                worst = max(worst, ratio)
    finally:
        engine.set_arch(before)
    assert worst > 0.01  # else the units measure nothing
