"""Leave-one-out predictions, minima without single samples, and prediction intervals."""

import json
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc
from fastcurv.structure.tables import LOSSES

from ... import nets


def fitted(seed, sizes=(3, 4, 1), loss="mse", N=40, l2=0.02, **more):
    """Return the objective of a small network and theta at a minimum of its loss."""
    net = nets.draw(seed, list(sizes), "tanh", loss, N=N, l2=l2, **more)
    run = fc.minimize(net.ob, net.theta, rng=0)
    assert run.kind == "minimum"
    return net.ob, run.x


def linear(rng, N=30, weight=None):
    """Return (objective, theta, A) for a linear network of 3 inputs, where theta is its weighted
    least-squares solution and A the design matrix.
    """
    X, y = rng.standard_normal((N, 3)), rng.standard_normal(N)
    A = np.column_stack([X, np.ones(N)])
    w = np.ones(N) if weight is None else weight
    theta = np.linalg.lstsq(A * np.sqrt(w)[:, None], y * np.sqrt(w), rcond=None)[0]
    return fc.Objective(fc.MLP([3, 1]), X, y, loss="mse", sample_weight=weight), theta, A


def continued_minimum(ob, theta, i, steps=20):
    """Return the point to which the minimum theta moves while the weight of sample i decreases to
    0, by Newton's method with dense matrices.
    """
    weight = np.ones(ob.n_samples) if ob.sample_weight is None else np.array(ob.sample_weight)
    first = weight[i]
    for t in np.linspace(0, 1, steps + 1)[1:]:
        weight[i] = (1 - t) * first
        part = ob.reweighted(weight)
        for _ in range(30):
            step = np.linalg.solve(part.hessian(theta).to_dense(), -part.gradient(theta))
            theta = theta + step
            if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(theta):
                break
    return theta


def test_leaving_a_sample_out_of_a_linear_network_is_exact(rng):
    for weight in (None, rng.uniform(0.5, 2, 30)):
        ob, theta, A = linear(rng, weight=weight)
        w = np.ones(30) if weight is None else weight
        for exact in (False, True):
            out = fc.leave_one_out(ob, theta, exact=exact)
            h = w * np.einsum("ij,ji->i", A, np.linalg.solve(A.T @ (w[:, None] * A), A.T))
            left = (A @ theta - ob.y[:, 0]) / (1 - h)
            assert np.abs(out.predictions[:, 0] - ob.y[:, 0] - left).max() <= 1e-12
            assert np.abs(out.hat_matrix_diag - h).max() <= 1e-12
            assert np.abs(out.losses - left**2).max() <= 1e-11
            assert out.n_approximate == 0 and (not exact or out.in_same_basin.all())
            X = rng.standard_normal((5, 3))
            for i in range(0, 30, 7):
                some = np.arange(30) != i
                root = np.sqrt(w[some])
                without = np.linalg.lstsq(A[some] * root[:, None], ob.y[some, 0] * root, rcond=None)
                moved = np.column_stack([X, np.ones(5)]) @ (without[0] - theta)
                assert np.abs(out.output_changes(X)[:, 0, i] - moved).max() <= 1e-12


def test_cooks_distances_match_least_squares(rng):
    ob, theta, A = linear(rng)
    out, residual = fc.leave_one_out(ob, theta), A @ theta - ob.y[:, 0]
    h, variance = out.hat_matrix_diag, residual @ residual / (30 - 4)
    wanted = residual**2 * h / (1 - h) ** 2 / (4 * variance)
    assert np.allclose(out.cooks_distance, wanted, rtol=1e-10, atol=0)


def test_exact_minima_are_continued_from_the_full_minimum():
    for loss, sizes in (("mse", (3, 4, 1)), ("cross_entropy", (3, 4, 3))):
        ob, theta = fitted(3, sizes, loss, N=60, weights=True, l2=0.2)
        out = fc.leave_one_out(ob, theta, exact=True)
        one = fc.leave_one_out(ob, theta)
        assert out.in_same_basin.mean() > 0.9
        for i in np.flatnonzero(out.in_same_basin)[::6]:
            end = continued_minimum(ob, theta, i)
            z = ob.model.predict(end, ob.X[i : i + 1])[0]
            assert np.abs(out.predictions[i] - z).max() <= 1e-9
            change = out.output_changes(ob.X[:3])[:, :, i]
            moved = ob.model.predict(end, ob.X[:3]) - ob.model.predict(theta, ob.X[:3])
            assert np.abs(change - moved).max() <= 1e-9
        z = ob.outputs(theta)[0]
        true, step = ((x.predictions - z)[out.in_same_basin].ravel() for x in (out, one))
        assert np.corrcoef(true, step)[0, 1] > 0.99 and 0.85 < np.polyfit(true, step, 1)[0] < 1.1


def test_searches_that_end_at_saddles_are_counted():
    """The masks of minima and basins, per group, are those of dense Hessians at the points reached
    and of the curvature on the line, and the summary counts points that are not minima.
    """
    net = nets.draw(2, [3, 4, 1], "tanh", N=24, l2=0.05)
    theta = fc.minimize(net.ob, net.theta, rng=0).x
    groups = np.arange(24) % 6
    out = fc.leave_one_out(net.ob, theta, groups=groups)
    for group in range(6):
        rows = groups == group
        part, end = net.ob.reweighted((~rows).astype(float)), out._thetas[np.argmax(rows)]
        least = np.linalg.eigvalsh(part.hessian(end).to_dense())[0]
        assert (out.at_minimum[rows] == (least > 0)).all()
        d = end - theta
        bent = [part.hessian(theta + t * d).quadratic_form(d) for t in np.linspace(0, 1, 65)]
        assert (out.in_same_basin[rows] == (least > 0 and min(bent) > 0)).all()
    lost = int((~out.at_minimum).sum())
    assert 0 < lost < 24 and f"reached for {lost} of 24 rows" in repr(out)


def test_one_step_predictions_take_a_newton_step_without_the_sample():
    for loss, sizes in (("mse", (3, 4, 2)), ("cross_entropy", (3, 3, 3))):
        ob, theta = fitted(9, sizes, loss, weights=True)
        out, (z, first, second) = fc.leave_one_out(ob, theta), ob.outputs(theta)
        N, d = z.shape
        J = ob.jacobian(theta).to_dense().reshape(N, d, -1)
        H = ob.hessian(theta).to_dense()
        sparse = fc.Objective(
            ob.model, scipy.sparse.csr_matrix(ob.X), ob.y, loss, ob.l2, ob.sample_weight
        )
        same = fc.leave_one_out(sparse, theta)
        assert np.abs(same.predictions - out.predictions).max() <= 1e-9
        for i in range(0, N, 9):
            S = second[i] if second.ndim == 3 else np.diag(second[i])
            step = np.linalg.solve(H - J[i].T @ S @ J[i] / N, J[i].T @ first[i] / N)
            moved = ob.model.predict(theta + step, ob.X[i : i + 1])[0]
            assert np.abs(out.predictions[i] - moved).max() <= 1e-9
            assert np.isclose(out.hat_matrix_diag[i], np.trace(
                S @ J[i] @ np.linalg.solve(H, J[i].T)) / N)  # fmt: skip


def test_samples_of_weight_zero_change_nothing_when_left_out(rng):
    weight = (np.arange(40) % 4 != 0).astype(float)
    net = nets.draw(2, [3, 3, 1], "tanh", N=40, l2=0.05)
    ob = net.objective(sample_weight=weight)
    theta = fc.minimize(ob, net.theta, rng=0).x
    for exact in (False, True):
        out = fc.leave_one_out(ob, theta, exact=exact)
        idle = weight == 0
        z = ob.outputs(theta)[0]
        assert np.abs(out.predictions - z)[idle].max() <= 1e-12
        assert not out.hat_matrix_diag[idle].any() and not out.cooks_distance[idle].any()


def test_leave_one_out_rejects_points_that_are_not_minima():
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    ob, theta = fitted(1)
    relu = fc.Objective(fc.MLP([2, 3, 1], "relu"), np.eye(2), np.ones(2), loss="mse", l2=0.1)
    free = fc.Objective(
        fc.MLP([2, 2, 1], "identity"), np.eye(2), np.ones(2), "mse", 0.1, l2_biases=False
    )
    free_theta = np.zeros(9)
    huge, huge_theta = least_squares(np.eye(3, 2), np.array([1e200, 0.0, 1e200]))
    norm = fc.Objective(fc.MLP([2, 3, 1], batch_norm=True), np.eye(2), np.ones(2), loss="mse")
    stream = fc.StreamedObjective(ob.model, ob.X, ob.y, loss="mse")
    unseen = fc.Objective(fc.MLP([2, 3]), np.eye(2), [0, 1], l2=0.1, l2_biases=False)
    unseen_theta = fc.minimize(unseen, rng=0, verdict=False).x
    cases = [
        (unseen, unseen_theta, "got a loss without a minimum: no sample has class 2"),
        (toy, np.zeros(2), "got 1 of 2 eigenvalues that are not positive, the smallest -2"),
        (ob, theta + 0.01, "theta must be a minimum, got a gradient norm of"),
        (free, free_theta, "Use fastcurv.minimize to find one, with l2_biases=True if"),
        (huge, huge_theta, "ob must have a finite value at theta, got inf"),
        (relu, np.zeros(13), "theta must have no pre-activation at a kink, got"),
        (norm, norm.model.init(rng=0), "without batch normalisation"),
        (stream, theta, "must have its rows in memory"),
    ]
    for bad, at, message in cases:
        with pytest.raises(ValueError, match=message):
            fc.leave_one_out(bad, at)
    with pytest.raises(TypeError, match="ob must be a fastcurv.Objective"):
        fc.leave_one_out(fc.testing.QuadraticObjective(np.eye(2)), np.zeros(2))


def test_samples_required_for_a_minimum_are_reported(rng):
    """A warning names the samples without which no minimum exists, because a class or the only
    exception to a separating line would be missing. With a penalty on all parameters there is no
    warning.
    """
    X = rng.standard_normal((40, 2))
    y = (X[:, 0] > 0).astype(int)
    y[7] = 2
    x = np.array([*np.linspace(-2, -1, 10), *np.linspace(1, 2, 10)])[:, None]
    wrong = (x[:, 0] > 0) != (np.arange(20) == 3)
    counts = np.where(np.arange(40) == 5, 3.0, 0.0)
    free = {"l2": 0.1, "l2_biases": False}
    for ob, row in (
        (fc.Objective(fc.MLP([2, 2, 3]), X, y, **free), 7),
        (fc.Objective(fc.MLP([1, 1]), x, wrong.astype(float), "binary_cross_entropy"), 3),
        (fc.Objective(fc.MLP([2, 1]), X, counts, "poisson", **free), 5),
    ):
        theta = fc.minimize(ob, rng=0).x
        for exact in (False, True):
            with pytest.warns(UserWarning, match=f"no minimum without row {row}: ") as seen:
                out = fc.leave_one_out(ob, theta, exact=exact)
            assert seen[0].filename == __file__
            assert out.rows_without_minimum.tolist() == [row] and "no minimum" in repr(out)
            assert out.in_same_basin is None or not out.in_same_basin[row]
        part = ob.reweighted(np.arange(ob.n_samples) != row)
        assert part.certificates.why_no_minimum(theta)
        if ob.loss == "poisson":
            assert np.isinf(out.interval(X[:2], 0.99)).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = fc.Objective(ob.model, ob.X, ob.y, ob.loss, l2=0.1)
            out = fc.leave_one_out(kept, fc.minimize(kept, rng=0).x)
        assert not len(out.rows_without_minimum)


def test_minima_that_classify_does_not_confirm_come_with_a_warning(rng):
    """If two columns of X differ by 1e-7, `classify` does not confirm the minimum, because its
    least eigenvalue is 0 up to rounding, and `leave_one_out` issues a warning.
    """
    x = rng.standard_normal((30, 1))
    y = x[:, 0] + rng.standard_normal(30)
    for difference, warned in ((1e-7, True), (1e-2, False)):
        X = np.concatenate([x, x + difference * rng.standard_normal((30, 1))], axis=1)
        ob, theta = least_squares(X, y)
        assert (fc.classify(ob, theta).kind == "minimum") != warned
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            fc.leave_one_out(ob, theta)
        assert [w.filename for w in seen] == [__file__] * warned


def test_points_within_rounding_of_a_minimum_are_accepted():
    """A theta of 1e-22, whose gradient is mere rounding error, is accepted as the minimum at 0. A
    theta of 1e-7 is rejected.
    """
    ob = fc.Objective(fc.MLP([2, 2, 2]), np.ones((1, 2)), np.ones((1, 2)), "poisson", l2=0.005)
    theta = np.full(ob.n_params, 1e-22)
    assert np.linalg.norm(ob.gradient(theta)) > 0
    assert np.abs(fc.leave_one_out(ob, theta).predictions).max() <= 1e-12
    with pytest.raises(ValueError, match="theta must be a minimum, got a gradient norm of"):
        fc.leave_one_out(ob, np.full(ob.n_params, 1e-7))


def jackknife_bounds(out, ob, X, level):
    """Return the lower and the upper jackknife+ bound for each row of X, two arrays computed from
    their definition.
    """
    n, alpha = ob.n_samples, 1 - level
    moved = ob.model.predict(out._at.theta, X)[:, 0, None] + out.output_changes(X)[:, 0]
    own = np.abs(ob.y[:, 0] - out.predictions[:, 0])
    k = int(np.ceil(level * (n + 1) - 1e-9))
    low, high = np.sort(moved - own, axis=1), np.sort(moved + own, axis=1)
    if k > n:
        return np.full(len(X), -np.inf), np.full(len(X), np.inf)
    return low[:, int(np.floor(alpha * (n + 1) + 1e-9)) - 1], high[:, k - 1]


def test_leave_one_out_for_classifiers_matches_logistic_regression(rng):
    """With biases free of l2, results for a softmax of two outputs, whose biases may be shifted
    together, equal those for two classes with a single logistic output and half the penalty.
    """
    X = rng.standard_normal((30, 2))
    y = (X[:, 0] + rng.standard_normal(30) > 0).astype(int)
    found = []
    for d, loss, l2 in ((2, "cross_entropy", 0.1), (1, "binary_cross_entropy", 0.05)):
        ob = fc.Objective(fc.MLP([2, d]), X, y, loss, l2=l2, l2_biases=False)
        theta = fc.minimize(ob, np.zeros(ob.n_params), verdict=False, gradient_tol=1e-12).x
        found.append(fc.leave_one_out(ob, theta))
    both, one = found
    assert np.allclose(np.diff(both.predictions), one.predictions, rtol=1e-8)
    for name in ("losses", "hat_matrix_diag", "cooks_distance"):
        assert np.allclose(getattr(both, name), getattr(one, name), rtol=1e-7)
    assert np.allclose(
        np.diff(both.output_changes(X), axis=1), one.output_changes(X), rtol=1e-6, atol=1e-9
    )


def test_intervals_are_jackknife_plus_quantiles(rng):
    ob, theta = fitted(4)
    out, X = fc.leave_one_out(ob, theta), rng.standard_normal((6, 3))
    for level in (0.5, 0.8, 0.9, 0.99):
        low, high = out.interval(X, level)
        below, above = jackknife_bounds(out, ob, X, level)
        assert np.allclose(low[:, 0], below, rtol=1e-12) and np.allclose(high[:, 0], above)
    for wrong in (0.0, 1.0, -1, np.nan, "0.9"):
        with pytest.raises((ValueError, TypeError), match="confidence_level"):
            out.interval(X, wrong)
    classes = fc.leave_one_out(*fitted(6, (3, 3, 3), "cross_entropy"))
    with pytest.raises(ValueError, match="regression loss whose outputs"):
        classes.interval(X)


def least_squares(X, y):
    """Return (objective, theta) for a linear network, where theta is its least-squares solution."""
    theta = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), y, rcond=None)[0]
    return fc.Objective(fc.MLP([X.shape[1], 1]), X, y, "mse"), theta


@pytest.mark.filterwarnings("ignore:The fit has .* effective parameters")
def test_intervals_are_infinite_where_networks_without_a_sample_are_not_determined(rng):
    """If the network without a sample is not determined, so that the leverage of the sample is 1,
    the residual of the sample counts as infinite. Intervals of high levels are then infinite.
    """
    y = rng.standard_normal(12)
    own = np.column_stack([rng.standard_normal(12), np.arange(12) == 0])
    for X, alone in ((rng.standard_normal((4, 3)), 4), (own, 1)):
        ob, theta = least_squares(X, y[: len(X)])
        for exact in (False, True):
            out = fc.leave_one_out(ob, theta, exact=exact)
            assert out.n_approximate == alone == np.isnan(out.predictions).sum()
            assert np.isnan(out.losses).sum() == np.isnan(out.cooks_distance).sum() == alone
            if alone == 1:
                z = out.predictions[1:]
                assert out.score == LOSSES["mse"].score[1](z, ob.y[1:])
            assert "which alone determine a parameter" in repr(out)
            assert np.isfinite(out.interval(X, 0.75)).all() == (alone == 1)
            assert np.isinf(out.interval(X, 0.9)).all()


def test_exact_refits_of_sparse_samples_equal_those_of_dense_samples():
    ob, theta = fitted(4)
    sparse = fc.Objective(ob.model, scipy.sparse.csr_matrix(ob.X), ob.y, ob.loss, l2=ob.l2)
    found, wanted = (fc.leave_one_out(one, theta, exact=True) for one in (sparse, ob))
    assert np.array_equal(found.in_same_basin, wanted.in_same_basin)
    assert np.allclose(found.predictions, wanted.predictions, rtol=1e-9)


def test_an_exact_fit_has_no_cooks_distances(rng):
    X = rng.standard_normal((10, 2))
    out = fc.leave_one_out(*least_squares(X, np.zeros(10)))
    assert np.isnan(out.cooks_distance).all() and not out.predictions.any()
    assert np.isfinite(out.interval(X)).all() and "nan" in repr(out)


def test_intervals_from_few_samples_per_effective_parameter_warn(rng):
    X = rng.standard_normal((30, 3))
    y = X[:, 0] + 0.1 * rng.standard_normal(30)
    net = fc.MLPRegressor((30,), "tanh", alpha=1e-3, random_state=0).fit(X, y)
    with pytest.warns(UserWarning, match="effective parameters for 30 targets"):
        net.predict_interval(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fc.MLPRegressor((30,), "tanh", alpha=10.0, random_state=0).fit(X, y).predict_interval(X)


def test_a_sample_of_weight_two_counts_twice_in_an_interval(rng):
    ob, theta = fitted(4)
    out, X = fc.leave_one_out(ob, theta), rng.standard_normal((3, 3))
    from fastcurv.applications.uncertainty.left_out import _upper_quantile

    x, weight = rng.standard_normal((3, 25)), rng.integers(0, 4, 25)
    repeated = np.repeat(x, weight, axis=1)
    for level in (0.3, 0.9):
        wanted = _upper_quantile(repeated, np.ones(weight.sum()), level)
        assert np.array_equal(_upper_quantile(x, weight, level), wanted)
    assert np.isfinite(out.interval(X)).all()


def mean_coverage(make, splits, n_train, alpha=3.0):
    """Return the mean coverage of 90% intervals over random splits of the data ``make(seed)``, with
    `n_train` samples in each fit.
    """
    found = []
    for seed in range(splits):
        X, y = make(seed)
        order = np.random.default_rng(seed).permutation(len(y))
        fit, new = order[:n_train], order[n_train:]
        net = fc.MLPRegressor((5,), "tanh", alpha=alpha, random_state=0).fit(X[fit], y[fit])
        low, high = net.predict_interval(X[new])
        found.append(np.mean((y[new] >= low) & (y[new] <= high)))
    return float(np.mean(found))


def sine(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (300, 2))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] + 0.3 * rng.standard_normal(300)


def test_intervals_have_the_requested_coverage():
    """The mean coverage of 90% intervals on new samples is between 0.85 and 0.95."""
    assert 0.85 <= mean_coverage(sine, 4, 75) <= 0.95


def test_estimators_predict_intervals_in_units_of_y(rng):
    X, y = sine(0)
    net = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0).fit(X, y)
    theta = net.theta_.copy()
    low, high = net.predict_interval(X[:9])
    assert low.shape == high.shape == (9,) and (low < high).all()
    assert np.array_equal(net.theta_, theta)
    moved = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0).fit(X, 100 * y + 7)
    assert np.allclose(moved.predict_interval(X[:9])[0], 100 * low + 7, rtol=1e-3)
    two = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0)
    two = two.fit(X, np.column_stack([y, -y]), sample_weight=rng.uniform(1, 2, 300))
    assert two.predict_interval(X[:9]).low.shape == (9, 2)
    kinks = fc.MLPRegressor((8,), "relu", alpha=1.0, random_state=0).fit(X, y)
    low, high = kinks.predict_interval(scipy.sparse.csr_matrix(X))
    assert 0.8 < np.mean((y >= low) & (y <= high)) <= 1
    counts = fc.MLPRegressor((3,), "tanh", loss="poisson", alpha=1.0, random_state=0)
    counts = counts.fit(X, np.exp(0.3 * y).round())
    assert (counts.predict_interval(X[:9]).high > 0).all()


def test_units_removed_by_weight_decay_do_not_change_intervals():
    """If weight decay has removed units, whose biases change no output and have neither penalty nor
    curvature, intervals cover 85 to 98% of the training targets.
    """
    X, y = sine(3)
    net = fc.MLPRegressor((6,), "tanh", alpha=30.0, random_state=0).fit(X, y)
    ob = net.objective(X, y)
    theta = fc.minimize(ob, net.theta_, verdict=False).x
    assert np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0] < 1e-9
    low, high = net.predict_interval(X)
    assert 0.85 < np.mean((low <= y) & (y <= high)) < 0.98


def test_errors_explain_why_an_estimator_has_no_intervals():
    X, y = sine(1)
    net = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0).fit(X, y)
    steps = fc.MLPRegressor((4,), "tanh", solver="adam").partial_fit(X, y)
    with pytest.raises(ValueError, match="Call fit first"):
        steps.predict_interval(X)
    loose = fc.MLPRegressor((30,), "tanh", alpha=0.0, max_iter=20, random_state=0)
    loose.fit(X[:50], y[:50])
    with pytest.raises(ValueError, match="a larger alpha"):
        loose.predict_interval(X)
    with pytest.raises(ValueError, match="confidence_level"):
        net.predict_interval(X, 90)
    with pytest.raises(AttributeError):
        fc.MLPClassifier().predict_interval  # noqa: B018


def test_intervals_are_rejected_if_data_or_alpha_changed_since_the_fit():
    """Intervals raise an error if X, the sample weights or alpha have changed since the fit. A
    change of y has no effect, because the fit keeps scaled targets of its own.
    """
    X, y = sine(1)
    for change in ("X", "y", "weight", "alpha"):
        given, targets, weight = X.copy(), y.copy(), np.ones(len(y))
        net = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0)
        net.fit(given, targets, sample_weight=weight)
        before = net.predict_interval(X[:3])
        if change == "alpha":
            net.set_params(alpha=2.0)
        else:
            {"X": given, "y": targets, "weight": weight}[change][:5] = 0.25
        try:
            after = net.predict_interval(X[:3])
        except ValueError as error:
            assert change != "y" and "they have changed since. Call fit again" in str(error)
        else:  # the fit has scaled targets of its own
            assert change == "y" and np.array_equal(before, after)
        assert np.isfinite(net.fit(X, y).predict_interval(X[:3])).all()


def test_a_result_has_text_and_survives_pickle():
    out = fc.leave_one_out(*fitted(4, N=12, l2=0.1), exact=True)
    text = repr(out)
    assert "left out" in text and "same basin" in text and f"{out.score:.4g}" in text
    copy = pickle.loads(pickle.dumps(out))
    assert (
        json.loads(json.dumps(out.to_dict(), allow_nan=False))["in_same_basin"]
        == out.in_same_basin.tolist()
    )
    assert repr(copy) == text and np.array_equal(
        copy.output_changes(np.eye(3)), out.output_changes(np.eye(3))
    )
    with pytest.raises(ValueError, match="read-only"):
        out.predictions[0] = 0


def test_float32_networks_are_refitted_in_float64():
    net = nets.draw(4, [3, 4, 1], "tanh", N=40, l2=0.05, dtype="float32")
    theta = fc.minimize(net.ob, net.theta, rng=0).x
    out = fc.leave_one_out(net.ob, theta)
    wide = net.ob.astype("float64")
    better = fc.minimize(wide, theta.astype(float), rng=0).x
    assert out.predictions.dtype == np.float64
    assert np.abs(out.predictions - fc.leave_one_out(wide, better).predictions).max() <= 1e-8
