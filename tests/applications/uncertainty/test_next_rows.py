"""Next rows, leverages and groups left out, compared with classical design and with refits."""

import numpy as np
import pytest

import fastcurv as fc


def linear_fit(rng, d_out=1, weight=None):
    """Return (objective, posterior, design matrix) of a linear network with a bias."""
    X = rng.standard_normal((30, 3))
    y = X @ rng.standard_normal((3, d_out)) + 0.3 * rng.standard_normal((30, d_out))
    ob = fc.Objective(fc.MLP([3, d_out]), X, y, loss="mse", sample_weight=weight)
    theta = fc.minimize(ob, rng=0).x
    return ob, fc.laplace(ob, theta), theta, np.c_[X, np.ones(30)]


def tanh_fit(rng, l2=0.05, N=60):
    X = rng.standard_normal((N, 2))
    y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(N)
    ob = fc.Objective(fc.MLP([2, 4, 1]), X, y, loss="mse", l2=l2)
    return ob, fc.minimize(ob, rng=0).x


def test_leverages_of_a_linear_network_equal_the_hat_matrix(rng):
    ob, post, _, A = linear_fit(rng)
    hat = np.diagonal(A @ np.linalg.pinv(A))
    assert np.abs(post.leverage(ob.X) - hat).max() <= 1e-10
    without = np.sort(hat / (1 - hat))
    assert abs(post.leverage_limit - without[29]) <= 1e-10 * without[29]
    assert post.in_domain(ob.X).all() and not post.in_domain([[30.0, 0.0, 0.0]]).any()


@pytest.mark.parametrize("d_out", [1, 2])
def test_choices_of_a_linear_network_equal_greedy_v_optimal_design(rng, d_out):
    ob, post, theta, A = linear_fit(rng, d_out)
    candidates, at = 3 * rng.standard_normal((25, 3)), rng.standard_normal((40, 3))
    rows = fc.next_rows(ob, theta, candidates, 4, at=at)
    C, P = (np.c_[X, np.ones(len(X))] for X in (candidates, at))

    def mean_variance(design):
        unit = post.noise_std**2 * np.sum(1 / ob.y.reshape(30, -1).var(axis=0))
        return unit * np.einsum("ij,jk,ik->i", P, np.linalg.inv(design.T @ design), P).mean()

    design, expected = A, [mean_variance(A)]
    for chosen in rows.indices:
        values = [mean_variance(np.r_[design, c[None]]) for c in C]
        assert chosen == np.argmin(values)
        design = np.r_[design, C[chosen][None]]
        expected.append(min(values))
    assert np.abs(rows.variance - expected).max() <= 1e-9 * expected[0]


def test_classes_are_chosen_by_the_curvature_of_the_cross_entropy(rng):
    X, y = rng.standard_normal((40, 2)), rng.integers(0, 3, 40)
    ob = fc.Objective(fc.MLP([2, 3]), X, y, loss="cross_entropy", l2=0.1)
    theta = fc.minimize(ob, rng=0).x
    candidates = rng.standard_normal((6, 2))
    rows = fc.next_rows(ob, theta, candidates, 2)

    def information(row):
        one = fc.Objective(ob.model, row[None], [0], loss="cross_entropy")
        return one.ggn(theta).to_dense()

    every = [information(row) for row in candidates]
    precision = 40 * ob.ggn(theta).to_dense()
    for step, chosen in enumerate(rows.indices):
        after = [np.mean([np.vdot(np.linalg.inv(precision + G), H) for H in every]) for G in every]
        after = [np.inf if i in rows.indices[:step] else value for i, value in enumerate(after)]
        assert chosen == np.argmin(after)
        assert abs(rows.variance[step + 1] - min(after)) <= 1e-8 * rows.variance[0]
        precision = precision + every[chosen]


def test_weights_count_rows_and_constant_targets_have_unit_scale(rng):
    """Rows of weight 0 and their targets do not matter, a weight of 2 counts a row twice, and the
    unit of a constant target is 1, although its computed deviation is not 0.
    """
    X = rng.standard_normal((30, 3))
    y = np.c_[
        X @ rng.standard_normal((3, 2)) + 0.3 * rng.standard_normal((30, 2)), np.full(30, 0.1)
    ]
    weight = np.arange(30) % 3
    y[weight == 0] += 100
    model = fc.MLP([3, 3])
    weighted = fc.Objective(model, X, y, "mse", sample_weight=weight)
    repeated = fc.Objective(model, X.repeat(weight, 0), y.repeat(weight, 0), "mse")
    theta = fc.minimize(repeated, rng=0).x
    candidates = 3 * rng.standard_normal((25, 3))
    one, other = (fc.next_rows(ob, theta, candidates, 4) for ob in (weighted, repeated))
    assert one.indices.tolist() == other.indices.tolist()
    assert np.abs(one.variance - other.variance).max() <= 1e-9 * other.variance[0] <= 1e-6


def test_noise_that_decides_is_said(rng):
    """With many rows for a line, left-out errors are noise. With few rows for a curve they are
    not.
    """
    X = rng.uniform(-1, 1, (80, 1))
    line = fc.Objective(fc.MLP([1, 1]), X, X[:, 0] + 0.1 * rng.standard_normal(80), "mse")
    rows = fc.next_rows(line, fc.minimize(line, rng=0).x, X, 3)
    assert 0.9 < rows.noise_ratio < 1 and rows.noise_dominates
    x = np.linspace(-1, 1, 9)[:, None]
    curve = fc.Objective(fc.MLP([1, 4, 1]), x, np.sin(4 * x), "mse", l2=1e-5)
    rows = fc.next_rows(curve, fc.minimize(curve, rng=0).x, X, 3)
    assert rows.noise_ratio < 0.7 and not rows.noise_dominates


def test_bad_candidates_and_counts_raise(rng):
    ob, theta = tanh_fit(rng)
    with pytest.raises(ValueError, match="k must be at most the number of candidates, 2, got 3"):
        fc.next_rows(ob, theta, np.zeros((2, 2)), 3)
    line = fc.Objective(fc.MLP([2, 1]), ob.X, ob.y, "mse", l2=0.1)
    with pytest.raises(ValueError, match="candidates and at must hold rows at which the variance"):
        fc.next_rows(line, fc.minimize(line, rng=0).x, [[1e200, 0.0], [0.0, 1.0]], 1)
    gamma = fc.Objective(fc.MLP([2, 1]), np.eye(2), [1.0, 2.0], "gamma", l2=0.1)
    with pytest.raises(ValueError, match="loss must be one of mse"):
        fc.next_rows(gamma, fc.minimize(gamma, rng=0).x, np.zeros((2, 2)), 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_groups_left_out_equal_refits(rng, weighted):
    ob, theta = tanh_fit(rng)
    if weighted:
        ob = ob.reweighted(rng.uniform(0.5, 2, 60))
        theta = fc.minimize(ob, theta, rng=0).x
    groups = np.repeat(["a", "b", "c", "d"], 15)
    out = fc.leave_one_out(ob, theta, groups=groups)
    assert out.exact and out.in_same_basin.any()
    for name in "abcd":
        rows = groups == name
        weight = np.ones(60) if ob.sample_weight is None else np.array(ob.sample_weight)
        weight[rows] = 0
        without, x = ob.reweighted(weight), theta.copy()
        for fraction in np.linspace(0.1, 1, 10):  # the group's weight falls to 0 step by step
            part = np.where(rows, 1 - fraction, 1.0) * np.where(weight > 0, weight, 1.0)
            part[rows] = (1 - fraction) * (
                1 if ob.sample_weight is None else ob.sample_weight[rows]
            )
            at = ob.reweighted(part)
            for _ in range(20):
                x = x - np.linalg.solve(at.hessian(x).to_dense(), at.gradient(x))
        assert np.abs(out.predictions[rows] - ob.model.predict(x, ob.X[rows])).max() <= 1e-9
        assert np.linalg.norm(without.gradient(x)) <= 1e-12
    with pytest.raises(ValueError, match="exact must be True with groups"):
        fc.leave_one_out(ob, theta, groups=groups, exact=False)
    with pytest.raises(ValueError, match="groups must have one label for each of the 60 rows"):
        fc.leave_one_out(ob, theta, groups=groups[1:])


def test_groups_that_alone_determine_a_parameter_are_not_predicted(rng):
    X = rng.standard_normal((12, 3))
    X[:, 1] = 0
    X[:2, 1] = 1, 2
    y = rng.standard_normal(12)
    theta = np.linalg.lstsq(X, y, rcond=None)[0]
    groups = np.arange(12) // 2
    ob = fc.Objective(fc.MLP([3, 1], bias=False), X, y, loss="mse")
    out = fc.leave_one_out(ob, theta, groups=groups)
    assert np.isnan(out.predictions[:2]).all() and np.isfinite(out.predictions[2:]).all()
    errors = y[2:] - out.predictions[2:, 0]
    wanted = 1 - (errors**2).sum() / ((y[2:] - y[2:].mean()) ** 2).sum()
    assert abs(out.score - wanted) <= 1e-12
    classes = fc.Objective(fc.MLP([3, 3]), X, np.arange(12) % 3, l2=0.1, l2_biases=False)
    ends = fc.leave_one_out(classes, fc.minimize(classes, rng=0).x, groups=groups)
    assert np.isfinite(ends.predictions).all()
