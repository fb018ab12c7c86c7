"""Every row of the table of losses: products, certificates, verdicts and files."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound

from .. import nets
from ..certify.longdouble import Truth, size

every_loss = pytest.mark.parametrize("loss", nets.LOSSES)


@every_loss
def test_gradients_and_products_match_long_double_within_their_bounds(loss, rng):
    net = nets.draw(rng, [3, 4, 3], "tanh", loss, N=19, l2=0.1)
    ob, theta = net.ob, net.theta
    truth, H = Truth(ob, theta), ob.hessian(theta)
    v = rng.standard_normal(net.n)
    assert size(ob.gradient(theta) - truth.gradient) <= rounding_bound(ob, theta)
    assert size(H @ v - truth.product(v)) <= rounding_bound(H, v)
    gradient, error = ob.certificates.precise_gradient(theta)
    assert size(gradient - truth.gradient) <= error + 1e-15


@every_loss
def test_the_third_bound_exceeds_differences_of_products(loss, rng):
    net = nets.draw(rng, [3, 4, 3], "tanh", loss, N=19, l2=0.1)
    ob, theta = net.ob, net.theta
    bound = ob.certificates.third_bound(theta, 0.1)
    for _ in range(5):
        v, d = (x / np.linalg.norm(x) for x in rng.standard_normal((2, net.n)))
        change = ob.hessian(theta + 0.1 * d) @ v - ob.hessian(theta - 0.1 * d) @ v
        assert np.linalg.norm(change) <= 0.2 * bound * (1 + 1e-9)


@every_loss
def test_a_network_of_one_layer_has_a_proved_minimum(loss, rng):
    net = nets.draw(rng, [3, 3], (), loss, N=19, l2=0.1)
    run = fc.minimize(net.ob, net.theta, rng=0)
    assert run.kind == "minimum" and run.report.certified
