"""One table row defines a loss or activation for Python: rows under new names, with existing
kernels, are computed, proved and reported as the originals.
"""

import numpy as np
import pytest

from fastcurv.structure import tables

from .. import nets


def test_the_first_loss_for_targets_of_a_kind_suits_them():
    assert tables.DEFAULT_LOSS_BY_TARGETS == {
        "numbers": "mse",
        "classes": "cross_entropy",
        "labels": "binary_cross_entropy",
    }


def test_bounds_of_each_row_hold_for_its_formulas():
    """The bounds in each table row are at least the first and second derivatives of the row's
    formulas, for z from -30 to 30 except at kinks. Over intervals, the bounds are at least the
    derivatives and the difference quotients of the derivatives below.
    """
    z = np.linspace(-30, 30, 60_001) + 1e-4
    for name, row in tables.ACTIVATIONS.items():
        slope = np.asarray(row.slope(z), float)
        bend = row.slope(z + 1e-100j).imag / 1e-100
        assert np.abs(slope).max() <= row.lipschitz, name
        assert np.abs(bend).max() <= row.bend, name
        jump = float((row.slope(np.array([1e-12])) - row.slope(np.array([-1e-12])))[0])
        h = np.full_like(z, 1e-3)
        (_, *low), (_, *high) = (row.derivatives(x)[:3] for x in (z - h, z + h))
        first, *higher = row.envelope(z, h)
        p = row.derivatives(z)[1]
        assert (np.abs(1 if p is None else p) <= first).all(), name
        for below, above, bound in zip(low, high, higher):
            if below is not None:
                assert (np.abs(above - below) <= 2 * h * bound * (1 + 1e-9) + 1e-15).all(), name
        if row.leak is not None:
            assert jump == row.kink == 1 - row.leak, name
        if row.homogeneous:
            assert np.allclose(row.phi(3 * z), 3 * row.phi(z), rtol=1e-14), name
        if row.odd:
            assert np.array_equal(row.phi(-z), -row.phi(z)), name
        if row.of_a is not None:
            expected = (row.of_a - 2 * row.phi(z)) * slope
            assert np.allclose(bend, expected, atol=1e-12), name


@nets.every_loss
def test_loss_slopes_equal_complex_steps_of_loss_terms(loss, rng):
    """First derivatives of every loss with respect to each output equal complex steps of its terms
    up to rounding.
    """
    terms, f = tables.loss_spec(loss).terms, 3 * rng.standard_normal((7, 4))
    y = nets.targets(rng, loss, 7, 4, soft=True)
    slopes = terms(f, y)[1]
    for j in range(4):
        step = np.where(np.arange(4) == j, 1e-30j, 0)
        found = terms(f + step, y)[0].sum(axis=1).imag / 1e-30
        assert np.abs(found - slopes[:, j]).max() <= 1e-14 * (1 + np.abs(slopes).max())


def test_terms_of_losses_equal_known_logarithms():
    """At outputs for which the term of a loss is a known logarithm, the term equals that logarithm
    up to rounding.
    """
    f, y = np.log(np.array([[3.0, 1.0]])), np.array([[0.25, 0.75]])
    assert tables.LOSSES["mse"].terms(f, y)[0] == pytest.approx((f - y) ** 2, rel=1e-15)
    both = np.log([[4.0, 2.0]]) - y * f
    assert tables.LOSSES["binary_cross_entropy"].terms(f, y)[0] == pytest.approx(both, rel=1e-15)
    whole = y * (np.log(4) - f)
    assert tables.LOSSES["cross_entropy"].terms(f, y)[0] == pytest.approx(whole, rel=1e-15)
