"""Verdicts at large n and with samples that are repeated, absent or of weight 0."""

import numpy as np
import pytest

import fastcurv as fc

from .test_on_kinks import run_to_kinks

pytestmark = pytest.mark.by_day(share=1 / 3)

SIZES, N = (24, 18, 16, 3), 3


def trained(rng, loss="mse", l2=1e-2, **options):
    model = fc.MLP(SIZES, "tanh")
    X = rng.standard_normal((N, SIZES[0]))
    y = rng.permutation(3) if loss == "cross_entropy" else rng.standard_normal((N, 3))
    ob = fc.Objective(model, X, y, loss, l2=l2, **options)
    theta = fc.minimize(ob, model.init(rng=0), "newton-cg", max_iter=400).x
    return ob, theta


def test_an_interpolating_net_is_a_global_minimum_at_large_n(rng):
    ob, theta = trained(rng, "mse", 0.0)
    point = fc.classify(ob, theta, dense_below=100)
    point = point if point.nearest_verdict is None else point.nearest_verdict
    assert point.kind == "minimum" and point.certified and point.rule == "interpolation"
    assert point.n_positive == 3 * N


def test_absent_class_excludes_a_minimum(rng):
    """If a class has no samples and l2 does not apply to its bias, no minimum is reported, since
    the bias diverges.
    """
    ob, _ = trained(rng, "cross_entropy", 0.05, l2_biases=False)
    ob = fc.Objective(ob.model, ob.X, [0, 1, 1], l2=0.05, l2_biases=False)
    theta = fc.minimize(ob, ob.model.init(rng=0), "newton-cg", max_iter=400).x
    point = fc.classify(ob, theta, dense_below=500)
    assert point.kind != "minimum" and not point.certified


@pytest.fixture(scope="module")
def interpolating():
    """Return (model, X, y, theta): a model with 21 parameters, three samples with targets, and a
    theta at which the network fits them.
    """
    rng = np.random.default_rng(0)
    X, y, model = rng.standard_normal((3, 2)), rng.standard_normal(3), fc.MLP([2, 5, 1])
    theta = fc.minimize(fc.Objective(model, X, y, loss="mse"), model.init(rng=0), rng=0).x
    return model, X, y, theta


@pytest.mark.parametrize("options", [{}, {"dense_below": 1}])
@pytest.mark.parametrize(
    "rows, weight",
    [
        ([0, 1, 2], None),
        ([0, 1, 2, 3], [1.0, 1.0, 1.0, 0.0]),
        ([3, 0, 1, 2], [0.0, 2.0, 0.5, 1.0]),
        ([0, 1, 2] * 2, None),
        ([0, 1, 2, 2, 2, 3, 0], [1.0, 3.0, 0.1, 0.7, 2.0, 0.0, 0.0]),
        ([0, 1, 2] * 12, None),  # more residuals than parameters
    ],
)
def test_weightless_and_equal_samples_change_no_proof(rows, weight, options, interpolating):
    """A point of loss 0 is certified as a minimum, and `n_positive` is the number of distinct
    samples of positive weight, whatever samples are repeated or have weight 0.
    """
    model, X, y, theta = interpolating
    X, y = np.vstack([X, [1.0, 2.0]])[rows], np.append(y, 0.0)[rows]
    ob = fc.Objective(model, X, y, loss="mse", sample_weight=weight)
    for form in (ob, ob.batch(np.arange(len(rows)))):
        said = fc.classify(form, theta, **options)
        assert said.kind == "minimum" and said.certified and said.rule == "interpolation"
        assert said.radius < 1e-6
        assert (said.n_positive, said.n_negative, said.n_zero) == (3, 0, 18)


def test_equal_inputs_with_different_targets_prevent_loss_0(interpolating):
    model, X, y, theta = interpolating
    X, y = np.vstack([X, X[:1]]), np.append(y, y[0] + 1e-9)
    said = fc.classify(fc.Objective(model, X, y, loss="mse"), theta)
    assert said.rule != "interpolation"


@pytest.mark.parametrize("place", [0, 60])
def test_samples_of_weight_0_do_not_affect_a_proved_minimum_at_kinks(place):
    """A minimum at active kinks stays proved if a sample of weight 0 is added, even one at a kink
    of a unit.
    """
    ob, found = run_to_kinks(1)
    model = ob.model
    one = fc.classify(ob, found.x)
    assert one.certified and one.evidence.n_active_kinks
    (W, b), _ = model.unflatten(found.x)
    unit = int(np.argmax(np.linalg.norm(W, axis=1)))
    on_kink = -b[unit] * W[unit] / (W[unit] @ W[unit])
    X, y = np.insert(ob.X, place, on_kink, axis=0), np.insert(ob.y, place, 5.0)
    weight = np.insert(np.full(60, 61 / 60), place, 0.0)
    said = fc.classify(
        fc.Objective(model, X, y, loss="mse", l2=3e-3, sample_weight=weight), found.x
    )
    assert (
        said.kind == "minimum"
        and said.certified
        and said.evidence.n_active_kinks == one.evidence.n_active_kinks
    )
