"""All calls agree on minima at active kinks of relu networks with l2."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.nearness import has_descent_on_either_side

from ..nets import no_point_nearby_is_lower

pytestmark = pytest.mark.by_day(share=1 / 3)


def relu_net(seed, loss="mse", sizes=(2, 5, 1), activation="relu", l2=3e-3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, sizes[0]))
    target = np.sin(2 * X.sum(axis=1)) + 0.1 * rng.standard_normal(60)
    y = target if loss == "mse" else (target > 0).astype(int)
    return fc.Objective(fc.MLP(list(sizes), activation=activation), X, y, loss=loss, l2=l2)


def run_to_kinks(seed, **options):
    ob = relu_net(seed, **options)
    found = fc.minimize(ob, ob.model.init(rng=seed))
    return ob, found


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_classify_confirms_kink_minima_found_by_minimize(loss, activation):
    n_found = 0
    for seed in range(4):
        ob, found = run_to_kinks(seed, loss=loss, activation=activation)
        verdict = fc.classify(ob, found.x)
        assert verdict.certified == (found.success and found.kind == "minimum")
        if verdict.evidence.n_active_kinks is None:
            continue
        n_found += 1
        assert verdict.kind == "minimum" and 0 < verdict.radius < 1e-6
        assert verdict.n_negative is None and verdict.escape_direction is None
        assert verdict.rule == "kink_minimum"
        moved = found.x + 1e-4 * np.random.default_rng(seed).standard_normal(found.x.size)
        away = fc.classify(ob, moved)
        assert not away.certified and away.evidence.n_active_kinks is None
    assert n_found  # otherwise no minimum at kinks was tested


def test_the_loss_is_not_lower_around_a_kink_minimum():
    ob, found = run_to_kinks(1)
    assert fc.classify(ob, found.x).evidence.n_active_kinks
    assert no_point_nearby_is_lower(ob, found.x, np.random.default_rng(0))


def unproved_forms(ob):
    """Yield two copies of `ob`, one streamed in blocks and one in float32, for which minima at
    kinks cannot be proved.
    """
    loss, l2 = str(ob.loss), ob.l2
    model = fc.MLP(ob.model.sizes, ob.model.activation[0], dtype="float32")
    yield fc.StreamedObjective(ob.model, ob.X, ob.y, loss=loss, l2=l2, block_rows=25)
    yield fc.Objective(model, ob.X, ob.y, loss=loss, l2=l2)


def test_unproved_kink_minima_are_undecided():
    """Without a proof, a minimum at active kinks is undecided or degenerate, also if its one-sided
    gradient exceeds the tolerance.
    """
    n_found = 0
    for seed in range(6):
        ob, found = run_to_kinks(seed)
        if not fc.classify(ob, found.x).evidence.n_active_kinks:
            continue
        for other in unproved_forms(ob):
            verdict = fc.classify(other, found.x.astype(other.dtype))
            assert verdict.kind in ("undecided", "degenerate"), verdict
            n_found += verdict.gradient_norm > verdict.gradient_tol
            end = fc.minimize(other, found.x.astype(other.dtype))
            rounding = len(ob.X) * np.finfo(other.dtype).eps  # of a sum over the samples
            assert end.fun <= other.value(found.x.astype(other.dtype)) * (1 + rounding)
            assert end.kind != "not_critical" or other.dtype == np.float32, end.message
    assert n_found  # otherwise no gradient exceeded its tolerance


def test_a_sample_at_kinks_does_not_hide_that_a_point_is_not_critical():
    """A sample of zeros, which is at the kink of every unit whose bias is 0, does not prevent the
    verdict "not_critical".
    """
    ob = relu_net(0)
    X = ob.X.copy()
    X[0] = 0
    zero = fc.Objective(ob.model, X, ob.y, l2=3e-3)
    verdict = fc.classify(zero, ob.model.init(rng=1))  # where all biases are 0
    assert verdict.evidence.n_kinks and verdict.kind == "not_critical", verdict


def test_kink_point_that_is_not_a_minimum_is_not_certified():
    """If the first layer is scaled down, its pre-activations of 0 stay 0, but the point is no
    minimum and is not certified.
    """
    ob, found = run_to_kinks(1)
    theta = found.x.copy()
    (W, b), *_ = ob.model.unflatten(theta)
    first = W.size + b.size
    theta[:first] *= 0.5  # the first layer still has pre-activations of 0
    verdict = fc.classify(ob, theta)
    assert (
        verdict.evidence.n_kinks
        and not verdict.certified
        and verdict.evidence.n_active_kinks is None
    )


def test_kink_minima_are_not_certified_in_float32():
    ob, found = run_to_kinks(1)
    single = ob.astype("float32")
    assert not fc.classify(single, found.x.astype("float32")).certified


class Line:
    """An objective of one parameter whose loss is computed in float32."""

    dtype = np.float32

    def __init__(self, loss):
        self.loss = loss

    def value(self, theta):
        return float(np.float32(self.loss(np.float32(theta[0]))))


@pytest.mark.parametrize(
    "loss, falls",
    [
        (lambda t: 1 - abs(t), True),
        (lambda t: 1 + abs(t), False),
        (lambda t: 1 + 1e-3 * t, False),  # a decrease that the slope explains
        (lambda t: 1 - 1e-7 * np.sign(t), False),  # a change of the last digit of the loss
        (lambda t: 1 + abs(t) - 300 * t * t, False),  # a decrease beyond a barrier
    ],
)
def test_descent_across_a_kink_exceeds_slope_and_rounding(loss, falls):
    slope = np.array([1e-3])
    assert has_descent_on_either_side(Line(loss), np.zeros(1), np.ones(1), slope) == falls


def test_classify_proves_what_minimize_proved():
    """`classify` certifies the minima that `minimize` certified, for networks with collapsed units,
    and with a copied unit and no kink nearby.
    """
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((3, 3)), rng.standard_normal(3)
    ob = fc.Objective(fc.MLP([3, 3, 1], "leaky_relu"), X, 0.01 * y, loss="mse", l2=0.1)
    ends = [fc.minimize(ob, ob.model.init(rng=s), rng=0) for s in range(3)]
    X, y = np.array([[1.0, 0.5], [0.3, 1.0], [0.8, 0.9]]), np.array([0, 1, 1])
    other = fc.Objective(fc.MLP([2, 2, 2], "relu", bias=False), X, y, l2=2e-3)
    others = [fc.minimize(other, other.model.init(rng=s), rng=0) for s in range(12)]
    kinds = set()
    for f, runs in ((ob, ends), (other, others)):
        for run in runs:
            if run.success and run.report.certified:
                said = fc.classify(f, run.x)
                assert said.certified and said.kind == "minimum", said
                kinds |= {k for k in ("n_collapsed", "n_copies") if said._numbers.get(k)}
    assert kinds == {"n_collapsed", "n_copies"}
