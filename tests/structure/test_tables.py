"""One table row defines a loss or activation for Python: rows under new names, with existing
kernels, are computed, proved and reported as the originals.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv.certify import loss_infimum, majorants
from fastcurv.certify.passes import gradient_bound, product_bound
from fastcurv.structure import tables

from .. import nets

NEW = "added by a test"


@pytest.fixture
def added(monkeypatch):
    """Return a function that enters the rows of an activation and a loss in the tables under the
    name `NEW`.
    """

    def enter(activation, loss):
        rows = ((tables.ACTIVATIONS, _engine.ACTIVATIONS), (tables.LOSSES, _engine.LOSSES))
        for name, tellers in zip((activation, loss), rows, strict=True):
            for teller in tellers:
                if name in teller:
                    monkeypatch.setitem(teller, NEW, teller[name])

    return enter


def problem(activation, loss, like, kind=None):
    """Return (objective, theta) for the named activation and loss and data that suit the loss
    `like`. The objective is the engine's if `kind` is None, and otherwise the NumPy reference.
    """
    rng = np.random.default_rng(3)
    y = nets.targets(rng, like, 9, 2)
    p = nets.draw(rng, [3, 4, 3, 2], activation, loss, y=y, X=rng.standard_normal((9, 3)), l2=0.02)
    return (p.ob if kind is None else p.reference()), p.theta


def computed_and_proved(ob, theta):
    """Return values, gradients, products and proved bounds of an objective at theta as a list of
    floats.
    """
    v = np.cos(np.arange(theta.size))
    proofs = ob.certificates
    g, error = proofs.precise_gradient(theta)
    H, G = ob.hessian(theta), ob.ggn(theta)
    numbers = [ob.value(theta), error, product_bound(ob, theta, v)]
    numbers += [
        proofs.curvature_floor(theta),
        loss_infimum.loss_lower_bound(ob),
        proofs.kink_margin(theta),
    ]
    numbers += [majorants.third_bound(ob, theta, 1e-3), loss_infimum.attains_lower_bound(ob)]
    arrays = [g, ob.gradient(theta), H @ v, G @ v, ob.model.init(rng=0)]
    return [*map(float, numbers), *np.concatenate(arrays).tolist()]


PAIRS = [(phi, list(tables.LOSSES)[i % 3]) for i, phi in enumerate(tables.ACTIVATIONS)]


@pytest.mark.parametrize("activation, loss", PAIRS)
def test_rows_under_new_names_give_identical_results(activation, loss, added):
    before = computed_and_proved(*problem(activation, loss, loss))
    added(activation, loss)
    assert computed_and_proved(*problem(NEW, NEW, loss)) == before


@nets.every_loss
def test_verdicts_and_scores_use_activation_table_rows(loss, added):
    added("tanh", loss)
    ob, theta = problem(NEW, NEW, loss)
    at = fc.minimize(ob, theta, rng=0, verdict=False).x
    found, known = (
        fc.classify(ob, at, rng=0),
        fc.classify(problem("tanh", loss, loss)[0], at, rng=0),
    )
    assert (found.kind, found.certified, found.index) == (known.kind, known.certified, known.index)
    assert np.isfinite(tables.loss_spec(NEW).score[1](ob.model.predict(at, ob.X), ob.y))


def test_the_first_loss_for_targets_of_a_kind_suits_them():
    assert tables.DEFAULT_LOSS_BY_TARGETS == {
        "numbers": "mse",
        "classes": "cross_entropy",
        "labels": "binary_cross_entropy",
    }


def test_bounds_of_each_row_hold_for_its_formulas():
    """The bounds in each table row are at least the first and second derivatives of the row's
    formulas, for z from -30 to 30 except at kinks.
    """
    z = np.linspace(-30, 30, 60_001) + 1e-4
    for name, row in tables.ACTIVATIONS.items():
        slope = np.asarray(row.slope(z), float)
        bend = row.slope(z + 1e-100j).imag / 1e-100
        assert np.abs(slope).max() <= row.lipschitz, name
        assert np.abs(bend).max() <= row.bend, name
        jump = float((row.slope(np.array([1e-12])) - row.slope(np.array([-1e-12])))[0])
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


@pytest.mark.parametrize("activation, loss", PAIRS)
def test_rows_under_new_names_are_exact(activation, loss, added):
    """If table rows are added under new names, the gradient and product of the engine agree with
    the reference within four times the proved bounds on rounding errors.
    """
    added(activation, loss)
    ob, theta = problem(NEW, NEW, loss)
    truth, _ = problem(NEW, NEW, loss, "reference")
    v = np.sin(np.arange(theta.size))
    bounds = [gradient_bound(ob, theta), product_bound(ob, theta, v)]
    gaps = [ob.gradient(theta) - truth.gradient(theta)]
    gaps += [ob.hessian(theta) @ v - truth.hessian(theta) @ v]
    assert all(
        np.linalg.norm(gap) <= 4 * bound < 1e-8 for gap, bound in zip(gaps, bounds, strict=True)
    )
    there, error = ob.certificates.precise_gradient(theta)
    assert np.linalg.norm(there - ob.gradient(theta)) <= bounds[0] + error < 1e-8
