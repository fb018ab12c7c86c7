"""Backward errors of products on random networks, as LAPACK's tests measure them: the error divided
by eps times a running error bound.
"""

import os

import numpy as np

from fastcurv import _engine as engine

from .. import nets
from ..certify.longdouble import Truth, in_long_double
from .networks import WIDTHS, make
from .units import units

COUNT = int(os.environ.get("FASTCURV_EXAMPLES", "250"))


def draw_net(index):
    rng = np.random.default_rng([COUNT, index])
    among = index
    how = []
    # consecutive indices give every combination of names
    for names in (nets.ACTIVATIONS, nets.LOSSES, nets.DTYPES):
        how.append(names[among % len(names)])
        among //= len(names)
    activation, loss, dtype = how
    return make(
        index,
        rng.choice(WIDTHS, size=int(rng.integers(2, 5))).tolist(),
        activation,
        loss,
        int(rng.integers(1, 60)),
        dtype=dtype,
        residual=bool(rng.integers(2)),
        l2=float(rng.choice([0.0, 0.01])),
    )


@in_long_double
def test_backward_errors_stay_below_thirty_units():
    """For every network and kernel table, the backward error of a Hessian product against long
    double is at most thirty rounding units. The largest error exceeds 0.01 units.
    """
    before, worst = engine.chosen_arch(), 0.0
    try:
        for index in range(COUNT):
            net = draw_net(index)
            truth = Truth(net.ob, net.theta).product(net.v)
            unit = np.finfo(net.theta.dtype).eps * units(net.reference(), net.theta, net.v)
            for arch in engine.available_archs():
                engine.set_arch(arch)
                error = np.linalg.norm((net.objective().hessian(net.theta) @ net.v) - truth)
                ratio = float(error) / unit if unit else float(error)
                assert ratio <= 30, (index, arch, net.model, net.options, ratio)
                worst = max(worst, ratio)
    finally:
        engine.set_arch(before)
    assert worst > 0.01  # otherwise the units would be far too large
