"""The terms of every loss, by which the reference and long double passes go."""

import numpy as np
import pytest

from fastcurv.structure.tables import LOSSES


def targets(loss, rng):
    if loss == "cross_entropy":
        y = rng.random((7, 4))
        return y / y.sum(axis=1, keepdims=True)
    return rng.random((7, 4))


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "cross_entropy"])
def test_derivatives_are_those_of_the_terms(loss, rng):
    """By complex steps, which are exact to rounding, along every output."""
    f, y = 3 * rng.standard_normal((7, 4)), targets(loss, rng)
    slopes = LOSSES[loss].terms(f, y)[1]
    for j in range(4):
        step = np.where(np.arange(4) == j, 1e-30j, 0)
        found = LOSSES[loss].terms(f + step, y)[0].sum(axis=1).imag / 1e-30
        assert np.abs(found - slopes[:, j]).max() <= 1e-14 * (1 + np.abs(slopes).max())


def test_values_in_closed_form():
    """Of outputs for which each is a logarithm that is known."""
    f, y = np.log(np.array([[3.0, 1.0]])), np.array([[0.25, 0.75]])
    assert LOSSES["mse"].terms(f, y)[0] == pytest.approx((f - y) ** 2, rel=1e-15)
    both = np.log([[4.0, 2.0]]) - y * f
    assert LOSSES["binary_cross_entropy"].terms(f, y)[0] == pytest.approx(both, rel=1e-15)
    whole = y * (np.log(4) - f)
    assert LOSSES["cross_entropy"].terms(f, y)[0] == pytest.approx(whole, rel=1e-15)
