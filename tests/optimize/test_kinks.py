"""Minima at active kinks are found by `minimize` and proved, and proofs are checked against exact
arithmetic and the loss.

A kink is active if a relu's pre-activation z is exactly 0 for a sample. The *smooth piece* of the
loss replaces phi(z) at each active kink by s z, where the slope s is an additional variable. The
smooth piece is a smooth function of theta and of all slopes.
"""

from fractions import Fraction

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.kink_minimum import prove_kink_minimum
from fastcurv.optimize.kink_search import find_kink_minimum

from ..nets import no_point_nearby_is_lower

pytestmark = pytest.mark.by_day(share=1 / 3)

LOSSES = {"mse": 1, "binary_cross_entropy": 1, "cross_entropy": 3}


def relu_net(seed, sizes=(3, 5, 1), loss="mse", l2=3e-3, N=30, activation="relu", bias=True):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, sizes[0]))
    if loss == "mse":
        y = np.sin(2 * X[:, :1]) * np.ones((1, sizes[-1]))
    elif loss == "cross_entropy":
        y = rng.integers(0, sizes[-1], N)
    else:
        y = (X[:, 0] * X[:, 1] > 0).astype(float)
    model = fc.MLP(list(sizes), activation=activation, bias=bias)
    return fc.Objective(model, X, y, loss=loss, l2=l2)


def gates_at(ob, theta, active=0):
    """Return (gates, collapsed): for each hidden layer, phi' at theta of shape (N, units) and a
    mask of units that is all False. The `active` pre-activations closest to 0 in the first layer
    are NaN, which marks kinks.
    """
    zs = ob.model.preactivations(theta, ob.X)[:-1]
    leaks = ob.certificates.relu_rows().leaks
    gates = [np.where(z > 0, 1.0, leak) for z, leak in zip(zs, leaks)]
    for i in np.argsort(np.abs(zs[0]), axis=None)[:active]:
        gates[0].flat[i] = np.nan
    return gates, [np.zeros(z.shape[1], dtype=bool) for z in zs]


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_in_theta_and_slopes_match_differences(loss):
    """Gradient and Hessian of the smooth piece match central differences in theta and in the slopes
    at four kinks.
    """
    ob = relu_net(0, (3, 5, 4, LOSSES[loss]), loss)
    theta = ob.model.init(rng=1) + 0.1
    gates, collapsed = gates_at(ob, theta, active=4)
    phi = ob.certificates.relu_rows().smooth_piece_objective(gates, collapsed)
    point = np.concatenate([theta, [0.2, 0.4, 0.6, 0.8]])
    g, H, t = phi.gradient(point), phi.hessian(point), 1e-5
    for i in range(0, phi.n_params, 5):
        e = t * (np.arange(phi.n_params) == i)
        high, low = (phi.forward_backward(at)[0] for at in (point + e, point - e))
        slope = (high - low) / (2 * t)
        bend = (phi.gradient(point + e) - phi.gradient(point - e)) / (2 * t)
        assert abs(slope - g[i]) <= 1e-8 * (1 + np.linalg.norm(g))
        assert np.linalg.norm(bend - H[:, i]) <= 1e-7 * (1 + np.linalg.norm(H))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_with_smoothed_kinks_tends_to_the_loss(loss):
    """The loss with kinks smoothed over a width tends to the loss, with sample weights, and has the
    weight decay of the objective.
    """
    plain = relu_net(0, (3, 5, 4, LOSSES[loss]), loss, activation="leaky_relu")
    weight = np.random.default_rng(1).random(30)
    ob = fc.Objective(
        plain.model, plain.X, plain.y, loss=loss, l2=3e-3, sample_weight=weight, l2_biases=False
    )
    theta = ob.model.init(rng=1) + 0.1
    rows = ob.certificates.relu_rows()
    gaps = [rows.smooth_kinks(width).value(theta) - ob.value(theta) for width in (1e-3, 1e-6)]
    assert 0 < abs(gaps[0]) < 1e-3 and abs(gaps[1]) < 1e-6


def exact_gradient(ob, gates, theta, slopes):
    """Return the gradient of the smooth piece with respect to theta and then the slopes, as a list
    of Fractions, for mse and one hidden layer. `gates` is that of `gates_at`.
    """
    F, (d, m, _) = Fraction, ob.model.sizes
    X, y = np.asarray(ob.X), np.asarray(ob.y).reshape(-1)
    p = [F(float(x)) for x in theta]
    W = [[p[i * d + j] for j in range(d)] for i in range(m)]
    b, v, c = p[m * d : m * d + m], p[m * d + m : m * d + 2 * m], p[-1]
    G, s = [[None] * m for _ in X], iter([F(float(x)) for x in slopes])
    for n in range(len(X)):
        for i in range(m):
            G[n][i] = next(s) if np.isnan(gates[0][n, i]) else F(float(gates[0][n, i]))
    g, bent = [F(float(ob.l2)) * x for x in p], []
    for n, row in enumerate(X):
        x = [F(float(r)) for r in row]
        z = [sum(W[i][j] * x[j] for j in range(d)) + b[i] for i in range(m)]
        out = sum(v[i] * G[n][i] * z[i] for i in range(m)) + c
        delta = 2 * (out - F(float(y[n]))) / len(X)
        g[-1] += delta
        for i in range(m):
            g[m * d + m + i] += delta * G[n][i] * z[i]
            e = delta * v[i]
            g[m * d + i] += e * G[n][i]
            for j in range(d):
                g[i * d + j] += e * G[n][i] * x[j]
            if np.isnan(gates[0][n, i]):
                bent.append(e * z[i])
    return g + bent


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_the_gradient_is_within_its_bound(seed):
    """Each entry of the smooth piece's gradient differs from rational arithmetic by at most its
    bound, and the bounds are at most 1e-12 of the norm.
    """
    ob = relu_net(seed, (3, 4, 1), N=8)
    theta = ob.model.init(rng=seed) + 0.1
    gates, collapsed = gates_at(ob, theta, active=3)
    slopes = np.array([0.3, 0.5, 0.9])
    g, bounds = (
        ob.certificates.relu_rows()
        .smooth_piece_objective(gates, collapsed)
        .precise_gradient(np.concatenate([theta, slopes]))
    )
    exact = exact_gradient(ob, gates, theta, slopes)
    off = np.array([float(Fraction(float(a)) - b) for a, b in zip(g, exact)])
    assert (np.abs(off) <= bounds).all() and (bounds <= 1e-12 * np.linalg.norm(g)).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_the_error_of_the_hessian_is_within_its_bound(loss, size, rng):
    """The smooth piece's Hessian differs from complex steps in long double, which has 11 more bits,
    by at most its bound.
    """
    ob = relu_net(0, (3, 5, 4, LOSSES[loss]), loss, N=27)
    theta = size * ob.model.init(rng=1) + 0.1
    phi = ob.certificates.relu_rows().smooth_piece_objective(*gates_at(ob, theta, active=4))
    point = np.concatenate([theta, rng.uniform(0.1, 0.9, 4)])
    H, step = phi.hessian(point), np.longdouble(1e-150)
    exact = np.empty(H.shape, np.longdouble)
    for i, e in enumerate(np.eye(len(point))):
        there = point.astype(np.clongdouble) + 1j * step * e
        exact[:, i] = phi.forward_backward(there)[1].imag / step
    off = float(np.linalg.norm(H - 0.5 * (exact + exact.T)))
    bound = phi.hessian_error(point)
    assert 0 < off <= bound <= 1e-7 * np.linalg.norm(H)


@pytest.mark.parametrize("unit", [1.0, 300.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_third_bound_lies_above_third_differences(loss, unit):
    ob = relu_net(0, (3, 5, 4, LOSSES[loss]), loss)
    theta = ob.model.init(rng=1) + 0.1
    phi = ob.certificates.relu_rows().smooth_piece_objective(*gates_at(ob, theta, active=4))
    point, rng = np.concatenate([theta, [0.2, 0.4, 0.6, 0.8]]), np.random.default_rng(0)
    c = np.where(np.arange(phi.n_params) < phi.n_theta, 1.0, unit)
    phi = phi.with_slope_units(c[phi.n_theta :])
    for radius in (1e-5, 1e-3, 1e-1):
        L, H = phi.third_bound(point, radius), phi.hessian(point)
        for _ in range(10):
            d = rng.standard_normal(phi.n_params)
            d *= radius / np.linalg.norm(d)
            change = c[:, None] * (phi.hessian(point + c * d) - H) * c
            assert np.linalg.norm(change, 2) <= L * radius


@pytest.mark.parametrize(
    "sizes, loss, l2",
    [((3, 6, 1), "mse", 1e-3), ((3, 5, 3), "cross_entropy", 1e-2), ((3, 4, 4, 1), "mse", 1e-3)],
)
def test_most_relu_nets_end_at_proved_minima_on_kinks(sizes, loss, l2):
    """At least two of four runs of relu networks end at proved minima, and no tested point near a
    proved minimum has a lower loss. Other runs end at kinks, stalled or slow, without success.
    """
    certified = 0
    for seed in range(4):
        ob = relu_net(seed, sizes, loss, l2, N=40)
        found = fc.minimize(ob, ob.model.init(rng=seed), rng=0)
        assert found.success == bool(found.report is not None and found.report.certified)
        if not found.success:
            assert found.stopped in ("kinks", "stalled", "slow")
            continue
        certified += 1
        kinks = found.report.evidence.n_kinks
        assert kinks == 0 or found.report._numbers["n_active_kinks"] == kinks
        z = np.concatenate([z.ravel() for z in ob.model.preactivations(found.x, ob.X)[:-1]])
        assert (np.abs(z) < 1e-9).sum() >= kinks
        assert no_point_nearby_is_lower(ob, found.x, np.random.default_rng(seed), 1e-3)
    assert certified >= 2


def test_network_collapsed_by_weight_decay_is_proved_a_minimum():
    """For y = 0.01 x and l2 = 0.1, the point with all weights 0 is proved a minimum. For y = x,
    where a unit becomes active, no minimum is proved there.
    """
    X = np.linspace(-1, 1, 20)[:, None]
    ob = fc.Objective(fc.MLP([1, 3, 1], activation="relu"), X, 0.01 * X[:, 0], loss="mse", l2=0.1)
    theta = np.zeros(ob.n_params)
    gates = [np.zeros((20, 3))]
    phi = ob.certificates.relu_rows().smooth_piece_objective(gates, [np.ones(3, dtype=bool)])
    proof = prove_kink_minimum(phi, theta)
    assert proof.certified and proof.n_collapsed == 3
    weak = fc.Objective(ob.model, X, X[:, 0], loss="mse", l2=0.1)  # here units become active
    proof = prove_kink_minimum(
        weak.certificates.relu_rows().smooth_piece_objective(gates, [np.ones(3, dtype=bool)]), theta
    )
    assert not proof.certified and proof.missing == "collapsed"
    assert fc.minimize(weak, weak.model.init(rng=0), rng=0).fun < weak.value(theta)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("seed", [0, 1])
def test_duplicated_units_are_merged_to_prove_a_minimum_at_kinks(loss, seed):
    """If a unit of a proved minimum is split in two and a unit of zero weights is added, the loss
    stays equal. The minimum of the wider network is proved with the copies merged.
    """
    ob = relu_net(seed, (3, 3, 1), loss, l2=3e-3)
    small = fc.minimize(ob, ob.model.init(rng=seed), rng=0)
    assert small.report.certified
    (W, b), (V, c) = ob.model.unflatten(small.x.copy())
    i = int(np.argmax(np.linalg.norm(W, axis=1)))
    split = np.diag(np.where(np.arange(3) == i, 0.8, 1.0))
    split = np.vstack([split, 0.6 * (np.arange(3) == i), np.zeros(3)])
    model = fc.MLP([3, 5, 1], activation="relu")
    wide = fc.Objective(model, ob.X, ob.y, loss=loss, l2=3e-3)
    theta = model.flatten([(split @ W, split @ b), (V @ split.T, c)])
    assert wide.value(theta) == pytest.approx(small.fun, rel=1e-13)
    found = find_kink_minimum(wide, theta, lambda: False)
    assert found.certified and not found.is_smooth and found._proof.n_copies >= 2
    assert wide.value(found.theta) == pytest.approx(small.fun, rel=1e-12)
    assert no_point_nearby_is_lower(wide, found.theta, np.random.default_rng(0), 1e-4)


def test_a_duplicated_unit_at_a_saddle_is_not_proved():
    """At a saddle with two copies of a linear unit, for targets of rank two, no minimum is proved,
    and a lower loss is found nearby.
    """
    rng = np.random.default_rng(0)
    X = rng.random((30, 2))
    Y = X @ np.diag([3.0, 2.0])  # the best unit is active for all samples
    model = fc.MLP([2, 2, 2], activation="relu", bias=False)
    ob = fc.Objective(model, X, Y, loss="mse", l2=1e-3)
    one = fc.Objective(fc.MLP([2, 1, 2], activation="relu", bias=False), X, Y, loss="mse", l2=1e-3)
    least = fc.minimize(one, one.model.init(rng=1), rng=0)
    assert least.report.certified
    (w, _), (v, _) = one.model.unflatten(least.x)
    theta = model.flatten(
        [(np.vstack([0.6 * w, 0.8 * w]), None), (np.hstack([0.6 * v, 0.8 * v]), None)]
    )
    gates, collapsed = [np.ones((30, 2))], [np.zeros(2, dtype=bool)]
    parents = ob.certificates.relu_rows().find_unit_copies(theta, gates, collapsed)
    assert [list(p) for p in parents] == [[0, 0]] or [list(p) for p in parents] == [[1, 1]]
    phi = ob.certificates.relu_rows().smooth_piece_objective(gates, collapsed, parents)
    proof = prove_kink_minimum(phi, phi.copies.merge_copies(theta))
    lower = fc.minimize(ob, theta + 1e-3 * rng.standard_normal(8), rng=0).fun
    assert lower < 0.99 * least.fun
    assert not proof.certified and proof.missing == "copies"


def test_no_minimum_is_proved_at_kinks_where_the_gradient_is_not_zero():
    """At a point with kinks and a nonzero gradient, no minimum is proved, for slopes inside and
    outside their interval.
    """
    ob = relu_net(0, (3, 6, 1), l2=1e-3, N=40)
    theta = ob.model.init(rng=0)
    gates, collapsed = gates_at(ob, theta, active=3)
    for slopes in ([0.5, 0.5, 0.5], [2.0, 0.5, 0.5]):
        proof = prove_kink_minimum(
            ob.certificates.relu_rows().smooth_piece_objective(gates, collapsed),
            np.concatenate([theta, slopes]),
        )
        assert not proof.certified and proof.missing


def test_tanh_and_residual_networks_have_no_kink_proofs():
    for model in (fc.MLP([3, 4, 1]), fc.MLP([3, 3, 1], activation="relu", residual=True)):
        ob = fc.Objective(model, np.ones((2, 3)), np.ones(2), loss="mse")
        assert ob.certificates.relu_rows() is None
