"""Rounding bounds at the ends of the floating-point range and at zeros, and parts of the proof at
kinks of deep networks.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import passes, rounding_bound
from fastcurv.certify.passes import product_bound
from fastcurv.critical.kink_minimum import initial_slopes

from ..golden import drawn
from .bound_cases import problem
from .golden import KINK_NETS, on_kinks

pytestmark = pytest.mark.by_day(share=1 / 3)

NETS = {"plain": {}, "batch norm": {"batch_norm": True}, "skips": {"residual": True}}
every_net = pytest.mark.parametrize("net", NETS)


@every_net
def test_vectors_that_are_not_finite_have_no_bound(net):
    ob, theta, v = problem([3, 4, 4, 2], **NETS[net])
    assert 0 < product_bound(ob, theta, v) < 1e-9
    for wrong in (np.nan, np.inf):
        v[2] = wrong
        assert product_bound(ob, theta, v) == np.inf
    assert product_bound(ob, theta, np.zeros_like(v)) <= 1e-30, "nothing moves"
    with pytest.raises(ValueError, match="v must have shape"):
        product_bound(ob, theta, v[:-1])
    with pytest.raises(ValueError):
        product_bound(ob, theta, v, kind="newton")


@every_net
def test_numbers_that_overflow_have_no_bound(net):
    ob, theta, v = problem([3, 4, 4, 2], "identity", loss="cross_entropy", **NETS[net])
    far = 1e200 * np.sign(theta)
    with np.errstate(all="ignore"):
        assert product_bound(ob, far, v) == np.inf


def test_error_bound_is_infinite_for_overflow_in_float32():
    ob, theta, v = problem([4, 6, 3], "tanh", "mse", "float32")
    assert product_bound(ob, theta, 0 * v) == 0 == rounding_bound(ob.hessian(theta), 0 * v)
    with np.errstate(over="ignore"):
        far = v * np.float32(1e38)
    assert product_bound(ob, theta, v) < np.inf == product_bound(ob, theta, far)


def test_recomputed_states_give_the_same_bounds(monkeypatch):
    """If samples are processed in chunks and the state is recomputed for each vector, rounding
    bounds equal those from stored states up to the order of sums.
    """
    ob, theta, v = problem([4, 6, 6, 3], "tanh", "mse", N=100)
    whole, layout = passes.ErrorPass(ob, theta), ob.hessian(theta).layout
    monkeypatch.setattr(passes, "MIN_CHUNK_BYTES", 16 * 8 * 19 * 7)
    kept = passes.ErrorPass(ob, theta, layout)
    first = kept.product_error_bound(v)
    monkeypatch.setattr(passes, "MAX_KEPT_STATE_BYTES", 0)
    fresh = passes.ErrorPass(ob, theta, layout)
    assert fresh.product_error_bound(v) == first == fresh.product_error_bound(v)
    assert fresh.step == 7 and len(kept.kept) == 15 and fresh.kept is None
    parts = passes.ErrorPass(ob, theta)
    for ask in (
        lambda known: known.gradient_error_bound(),
        lambda known: known.product_error_bound(v),
    ):
        assert np.allclose(ask(parts), ask(whole), rtol=1e-10)


# --- kinks


def relu_net(sizes, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, sizes[0]))
    y = rng.standard_normal((30, sizes[-1]))
    ob = fc.Objective(fc.MLP(sizes, "relu"), X, y, "mse", l2=1e-2)
    return ob, ob.model.init(rng=seed)


@pytest.mark.parametrize("sizes", [[2, 4, 3, 1], [2, 4, 3, 2], [3, 3, 4, 3, 2]])
def test_the_gain_of_activating_a_unit_is_bounded(sizes, rng):
    """The bound on the decrease from activating a collapsed unit is at least ``|sum over samples of
    d relu(u x)|`` for random unit vectors u, where d = dL/dz is computed by differences. It is at
    most four times the largest of these norms.
    """
    ob, theta = relu_net(sizes, 1)
    gates = initial_slopes(ob, theta)
    phi = ob.certificates.relu_rows().smooth_piece_objective(
        gates, [np.zeros(m, bool) for m in sizes[1:-1]]
    )
    assert phi.n_slopes == 0
    layers = ob.model.unflatten(theta)
    zs = ob.model.preactivations(theta, ob.X)
    below = [ob.X, *(np.maximum(z, 0) for z in zs[:-1])]
    for l in range(len(gates)):
        d = derivative(ob, layers, zs[l + 1], l + 1)
        x = np.column_stack([below[l], np.ones(len(ob.X))])
        u = rng.standard_normal((x.shape[1], 4000))
        gains = np.linalg.norm(d.T @ np.maximum(x @ (u / np.linalg.norm(u, axis=0)), 0), axis=0)
        most = 1e-2 - phi._collapsed_unit_margin(theta, l)
        assert gains.max() <= most <= 4 * gains.max(), "it holds, and is of use"


def derivative(ob, layers, z, l):
    """Return dL/dz for the preactivations z of layer l, an array of the shape of z, by central
    differences. They are exact because the loss is quadratic between kinks.
    """
    out, h = np.empty_like(z), 1e-6

    def value(z):
        for k in range(l + 1, len(layers)):
            W, b = layers[k]
            z = np.maximum(z, 0) @ W.T + b
        return float(((z - ob.y.reshape(z.shape)) ** 2).mean())

    for i in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[i] = h
        out[i] = (value(z + step) - value(z - step)) / (2 * h)
    return out


def test_l2_without_biases_prevents_copies_of_units():
    ob, theta = relu_net([2, 4, 1], 0)
    spared = fc.Objective(ob.model, ob.X, ob.y, "mse", l2=1e-2, l2_biases=False)
    for one, known in ((ob, True), (spared, False)):
        gates = initial_slopes(one, theta)
        phi = one.certificates.relu_rows().smooth_piece_objective(gates, [np.zeros(4, bool)])
        phi.copies = SimpleNamespace(copied_unit_mask=lambda l: np.zeros(4, bool))
        assert np.isfinite(phi._decay_margin(theta, 0)) == known


WITHOUT_CLASS_1 = np.where(np.arange(23) % 4 == 0, 0, 2)
CONSTANT_TARGETS = np.tile([1.0, 0.0, 1.0], (23, 1))
# by name: labels, loss, and whether samples of positive weight pull some output in one direction
# only (None: if weighted)
LABELS = {
    "all classes": (np.arange(23) % 3, "cross_entropy", False),
    "two classes": (WITHOUT_CLASS_1, "cross_entropy", True),
    "one class": (0 * WITHOUT_CLASS_1, "cross_entropy", True),
    "weighed one way": (np.where(np.arange(23) < 21, WITHOUT_CLASS_1, 1), "cross_entropy", None),
    "soft": (np.full((23, 3), [0.5, 0.5, 0.0]), "cross_entropy", True),
    "hard as soft": (np.eye(3)[WITHOUT_CLASS_1], "cross_entropy", True),
    "binary, one way": (CONSTANT_TARGETS, "binary_cross_entropy", True),
    "binary": (np.eye(3)[np.arange(23) % 3], "binary_cross_entropy", False),
    "mse": (CONSTANT_TARGETS, "mse", False),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l2, spared", [(0.0, False), (0.1, False), (0.1, True)])
@pytest.mark.parametrize("labels", LABELS)
def test_the_loss_decreases_along_a_ray_to_the_infimum(labels, l2, spared, weighted, rng):
    """`ray_to_infimum` returns a unit vector if all samples of positive weight pull some output in
    one direction and no l2 applies to its bias, and otherwise None. Along the vector, the loss
    decreases until rounding hides the decrease, and stays above its lower bound.
    """
    (y, loss, one_way), (base, theta, _) = LABELS[labels], drawn(sizes=[3, 4, 3])
    weight = np.where(np.arange(23) < 21, 1.0, 0.0) if weighted else None
    ob = fc.Objective(base.model, base.X, y, loss, l2, weight, l2_biases=not spared)
    ray = ob.certificates.ray_to_infimum(theta)
    one_way = weighted if one_way is None else one_way
    assert (ray is not None) == (one_way and (l2 == 0 or spared))
    if ray is not None:
        assert np.linalg.norm(ray) == pytest.approx(1, rel=1e-12)
        before = ob.value(theta)
        for t in (0.1, 1.0, 4.0, 16.0):
            assert ob.gradient(theta + t * ray) @ ray < 1e-12
            before, last = ob.value(theta + t * ray), before
            assert before < last or before <= last and t > 4
    points = [theta, *(10.0 ** rng.uniform(-1, 1, (50, 1)) * rng.standard_normal((50, theta.size)))]
    least = min(ob.value(at) for at in points)
    bound, attained = ob.certificates.loss_lower_bound, ob.certificates.attains_lower_bound
    assert least > bound or least == bound and attained
    assert attained == (loss == "mse")


@pytest.mark.parametrize("l2, spared", [(0.0, False), (0.1, False), (0.1, True)])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_larger_weights_lower_the_loss_of_separated_classes(loss, l2, spared):
    """If all samples are classified correctly and no l2 applies to the weights, a ray of larger
    weights is returned, along which the loss decreases. Otherwise no ray is returned.
    """
    base = drawn(sizes=[3, 4, 3])[0]
    layers = base.model.unflatten(base.model.init(rng=0))
    layers[1][0][...], layers[1][1][...] = 5 * np.eye(3, 4), 0.0
    sure = base.model.flatten(layers)
    outputs = base.model.predict(sure, base.X)
    y = np.argmax(outputs, axis=1) if loss == "cross_entropy" else (outputs > 0) * 1.0
    ob = fc.Objective(base.model, base.X, y, loss, l2, l2_biases=not spared)
    ray = ob.certificates.ray_to_infimum(sure)
    assert (ray is not None) == (l2 == 0)
    if ray is not None:
        values = [ob.value(sure + t * ray) for t in (0.0, 1.0, 10.0, 100.0)]
        assert all(now < before for before, now in zip(values, values[1:]))
    wrong = y.copy()
    wrong[0] = (y[0] + 1) % 3 if loss == "cross_entropy" else 1 - y[0]
    other = fc.Objective(base.model, base.X, wrong, loss, l2, l2_biases=not spared)
    assert other.certificates.ray_to_infimum(sure) is None


@pytest.mark.parametrize("net", KINK_NETS)
@pytest.mark.parametrize("radius", [1e-4, 1e-3])
def test_margins_on_kinks_hold_everywhere_on_the_ball(net, radius, rng):
    """The margins of `hypothesis_margins` are at most the smallest distances of signs, slopes and
    one-sided derivatives from their limits that occur at 200 random points at the distance
    `radius`.
    """
    held, point = on_kinks(**KINK_NETS[net])
    margins = held.hypothesis_margins(point, radius)
    least = {"signs": np.inf, "slopes": np.inf, "upward": np.inf}
    leaks = np.concatenate([np.full(a.sum(), x) for a, x in zip(held.active, held.rows.leaks)])
    for _ in range(200):
        step = rng.standard_normal(point.size)
        at = point + radius * step / np.linalg.norm(step)
        _, _, zs, es = held.forward_backward(at)
        slopes = at[held.n_theta :]
        least["slopes"] = min(least["slopes"], np.minimum(slopes - leaks, 1 - slopes).min())
        for l, (z, e) in enumerate(zip(zs, es)):
            if l < len(held.active):
                free = ~held.active[l] & ~held.collapsed[l] & held.effective[l]
                least["signs"] = min(least["signs"], np.abs(z[free]).min(initial=np.inf))
                least["upward"] = min(least["upward"], e[held.active[l]].min(initial=np.inf))
    for name, seen in least.items():
        assert getattr(margins, name) <= seen + 1e-12 and seen < np.inf, name
