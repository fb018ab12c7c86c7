"""The Laplace approximation against BayesianRidge, quadrature, Markov chains and laplace-torch."""

import warnings

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit, logsumexp

import fastcurv as fc
from fastcurv.applications.uncertainty.laplace import _mean_sigmoid
from fastcurv.network.row_views import with_model

pytestmark = pytest.mark.filterwarnings("ignore:ob has .* rows for each parameter")


def newton(ob, theta):
    """Return theta after one Newton step, which is the minimum if the loss is quadratic."""
    return theta - np.linalg.solve(ob.hessian(theta).to_dense(), ob.gradient(theta))


def test_a_linear_network_matches_bayesian_ridge(rng):
    ridge = pytest.importorskip("sklearn.linear_model").BayesianRidge
    X = rng.standard_normal((60, 5))
    y = X @ [1.0, 0.0, -2.0, 0.3, 0.0] + 0.5 * rng.standard_normal(60)
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0)
    known = ridge(fit_intercept=False, tol=1e-14, max_iter=9999, compute_score=True, **flat)
    known.fit(X, y)
    l2, model = 1.0, fc.MLP([5, 1], bias=False)
    for _ in range(60):
        ob = fc.Objective(model, X, y, loss="mse", l2=l2)
        post = fc.laplace(ob, newton(ob, np.zeros(5)))
        before, l2 = l2, post.next_l2
        if abs(l2 - before) <= 1e-14 * l2:
            break
    assert abs(post.noise_std**-2 / known.alpha_ - 1) <= 1e-10
    assert abs(post.prior_precision / known.lambda_ - 1) <= 1e-10
    assert abs(post.log_evidence - known.scores_[-1]) <= 1e-10 * abs(post.log_evidence)
    X_new = 3 * rng.standard_normal((20, 5))
    mean, std = known.predict(X_new, return_std=True)
    assert np.abs(model.predict(post.theta, X_new)[:, 0] - mean).max() <= 1e-10
    assert np.abs(post.std(X_new, observations=True) / std - 1).max() <= 1e-10


def log_density(loss, z, y):
    """Return the log likelihood of outputs z of shape (..., N) for targets y of shape (N,), summed
    over samples, by SciPy's distributions.
    """
    return {
        "mse": lambda: stats.norm.logpdf(y, z, 0.7),
        "binary_cross_entropy": lambda: stats.bernoulli.logpmf(y, expit(z)),
        "poisson": lambda: stats.poisson.logpmf(y, np.exp(z)),
        "gamma": lambda: stats.expon.logpdf(y, scale=np.exp(z)),
    }[loss]().sum(axis=-1)


def test_evidence_of_two_parameters_matches_quadrature(rng):
    """The log evidence of two parameters equals the integral over both by quadrature, exactly for a
    Gaussian likelihood and otherwise to 1 / N. A weight of two equals a repeated sample.
    """
    N, l2 = 200, 0.02
    for loss in ("mse", "binary_cross_entropy", "poisson", "gamma"):
        x = rng.standard_normal(N)
        z = 0.8 * x - 0.2
        y = {
            "mse": z + 0.7 * rng.standard_normal(N),
            "binary_cross_entropy": (rng.random(N) < expit(z)).astype(float),
            "poisson": rng.poisson(np.exp(z)).astype(float),
            "gamma": rng.exponential(np.exp(z)),
        }[loss]
        weight = np.where(np.arange(N) < N // 2, 2.0, 1.0)
        twice = np.repeat(np.arange(N), weight.astype(int))
        c = len(twice)
        noise = 0.7 if loss == "mse" else None
        for l2_biases in (True, False):
            how = {"loss": loss, "l2": l2, "l2_biases": l2_biases}
            ob = fc.Objective(fc.MLP([1, 1]), x[twice, None], y[twice], **how)
            theta = newton(ob, newton(ob, fc.minimize(ob, np.zeros(2), verdict=False).x))
            post = fc.laplace(ob, theta, "ggn", noise)
            tau = post.prior_precision
            assert np.isclose(tau, c * l2 / (2 * 0.49 if noise else 1), rtol=1e-13)
            sd = np.sqrt(np.diagonal(post.covariance))
            t = np.linspace(-8, 8, 41)
            w, b = theta[0] + sd[0] * t[:, None], theta[1] + sd[1] * t[None, :]
            outputs = w[..., None] * x[twice] + b[..., None]
            log = log_density(loss, outputs, y[twice]) + stats.norm.logpdf(w, 0, tau**-0.5)
            log = log + (stats.norm.logpdf(b, 0, tau**-0.5) if l2_biases else 0.0)
            true = logsumexp(log) + np.log(sd[0] * sd[1] * (t[1] - t[0]) ** 2)
            gap = 1e-9 * abs(true) if loss == "mse" else 1 / N
            assert abs(post.log_evidence - true) <= gap, (loss, l2_biases)
            # The objective divides by N, the number of rows, so fewer rows need a larger l2.
            weighted = fc.Objective(
                fc.MLP([1, 1]), x[:, None], y, **{**how, "l2": l2 * c / N}, sample_weight=weight
            )
            other = fc.laplace(weighted, theta, "ggn", noise)
            for name in ("log_evidence", "prior_precision", "n_effective", "rows_per_parameter"):
                assert np.isclose(getattr(other, name), getattr(post, name), rtol=1e-11), name
            assert np.isclose(other.next_l2 * N, post.next_l2 * c, rtol=1e-9)


def fitted(rng, curvature="ggn", **how):
    x = np.linspace(-2, 2, 60)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.standard_normal(60)
    ob = fc.Objective(fc.MLP([1, 4, 1]), x, y, loss="mse", l2=1e-4, **how)
    theta = fc.minimize(ob, n_init=4, rng=0).x
    return ob, theta, fc.laplace(ob, theta, curvature)


def test_covariance_is_the_inverse_of_the_curvature(rng):
    for curvature in ("ggn", "hessian"):
        ob, theta, post = fitted(rng, curvature)
        T = 60 / (2 * post.noise_std**2)
        precision = T * getattr(ob, curvature)(theta).to_dense()
        Sigma = np.linalg.inv(precision)
        assert np.abs(post.covariance - Sigma).max() <= 1e-9 * np.abs(Sigma).max()
        J = ob.jacobian(theta).to_dense()
        assert np.allclose(post.std(ob.X), np.sqrt(np.einsum("ij,jk,ik->i", J, Sigma, J)), 1e-9)
        new = np.sqrt(post.std(ob.X) ** 2 + post.noise_std**2)
        assert np.allclose(post.std(ob.X, observations=True), new, 1e-12)
        gamma = np.trace(Sigma @ (T * ob.ggn(theta).to_dense() - T * ob.l2 * np.eye(13)))
        assert abs(post.n_effective - gamma) <= 1e-9 * gamma
        data = np.sum((ob.model.predict(theta, ob.X) - ob.y) ** 2)
        assert np.isclose(post.noise_std**2, data / (60 - gamma), rtol=1e-9)
        draws = (post.sample(4000, rng=1) - theta) @ np.linalg.cholesky(precision)
        assert np.abs(draws.T @ draws / 4000 - np.eye(13)).max() <= 6 / np.sqrt(4000)
        assert post.decrement <= 1e-6
    slope = ob.gradient(theta + 0.01)
    moved = fc.laplace(ob, theta + 0.01, noise_std=0.1)
    G = ob.ggn(theta + 0.01).to_dense()
    assert np.isclose(moved.decrement, 0.5 * 60 / 0.02 * slope @ np.linalg.solve(G, slope), 1e-6)
    assert "train on" in repr(moved)


def test_biases_of_saturated_units_are_fixed(rng):
    """The bias of a unit that is saturated on all samples is held fixed, because it has neither
    slope nor penalty and its standard deviation would be huge. The posterior equals that of the
    network without the unit, apart from the penalty of its weights.
    """
    X = rng.standard_normal((40, 2))
    y = np.sin(X[:, 0]) + 0.2 * rng.standard_normal(40)
    small = fc.Objective(fc.MLP([2, 3, 1]), X, y, "mse", 0.01, l2_biases=False)
    theta = fc.minimize(small, rng=0).x
    known = fc.laplace(small, theta)
    (W, b), (V, c) = small.model.unflatten(theta)
    for bias in (12.0, 120.0, 1e4):
        model = fc.MLP([2, 4, 1])
        ob = with_model(small, model)
        wide = [(np.r_[W, [[1e-3, 0.0]]], np.r_[b, bias]), (np.c_[V, 0.1], c - 0.1)]
        post = fc.laplace(ob, model.flatten(wide))
        assert post.n_undetermined == 1
        assert np.allclose(post.std(X), known.std(X), rtol=0.1)
        assert abs(post.log_evidence - known.log_evidence) < 5
    far = fc.MLP([2, 4, 1], "relu")  # biases of relu have the scale of the features
    ob = fc.Objective(far, 1e6 * X, y, "mse", 0.01, l2_biases=False)
    at = far.flatten([(np.r_[W, [[0.0, 0.0]]] / 1e6, np.ones(4)), (np.c_[V, 1e-6], c)])
    assert fc.laplace(ob, at).n_undetermined < 4


def test_rows_of_many_outputs_are_split_into_blocks(rng, monkeypatch):
    X, Y = rng.standard_normal((40, 3)), rng.standard_normal((40, 2))
    ob = fc.Objective(fc.MLP([3, 4, 2]), X, Y, loss="mse", l2=0.01)
    post = fc.laplace(ob, fc.minimize(ob, rng=0).x)
    whole = post.std(X)
    monkeypatch.setattr(
        "fastcurv.applications.uncertainty.laplace.PREDICTION_JACOBIAN_BLOCK_ENTRIES", 100
    )
    assert whole.shape == (40, 2) and np.allclose(post.std(X), whole, rtol=1e-12)
    assert post.std(X[:1]).shape == (1, 2)


def test_directions_without_effect_count_as_undetermined(rng):
    ob, theta, _ = fitted(rng, l2_biases=False)
    model = fc.MLP([1, 5, 1])
    layers = ob.model.unflatten(theta)
    W, b = np.r_[layers[0][0], [[0.0]]], np.r_[layers[0][1], 0.7]
    wider = model.flatten([(W, b), (np.c_[layers[1][0], 0.0], layers[1][1])])
    small, large = fc.laplace(ob, theta), fc.laplace(with_model(ob, model), wider)
    assert (small.n_undetermined, large.n_undetermined) == (0, 1)
    for name in ("log_evidence", "n_effective", "noise_std", "next_l2"):
        assert np.isclose(getattr(large, name), getattr(small, name), rtol=1e-7), name
    assert np.allclose(large.std(ob.X), small.std(ob.X), rtol=1e-6)
    assert "held" in repr(large) and "held" not in repr(small)
    X, y = rng.standard_normal((50, 2)), np.arange(50) % 3
    classes = fc.Objective(fc.MLP([2, 3]), X, y, l2=0.1, l2_biases=False)
    assert fc.laplace(classes, fc.minimize(classes, rng=0).x).n_undetermined == 1


def test_probabilities_are_means_over_the_posterior(rng):
    X, y = rng.standard_normal((30, 2)), np.arange(30) % 3
    for loss, d, labels in (
        ("cross_entropy", 3, y),
        ("binary_cross_entropy", 1, (y > 0).astype(float)),
        ("binary_cross_entropy", 2, np.c_[y > 0, y > 1].astype(float)),
    ):
        ob = fc.Objective(fc.MLP([2, d]), X, labels, loss, l2=0.05)
        post = fc.laplace(ob, fc.minimize(ob, rng=0).x)
        draws, far = post.sample(3000, rng=2), 3 * X[:5]
        z = np.stack([far @ W.T + b for t in draws for W, b in ob.model.unflatten(t)])
        p = np.exp(z - logsumexp(z, -1, keepdims=True)) if d == 3 else expit(z)
        found = post.predict_proba(far)
        assert found.shape == (5, 2 if d == 1 else d)
        wanted = np.concatenate([1 - p, p], -1) if d == 1 else p
        assert np.abs(found - wanted.mean(0)).max() <= 6 * 0.5 / np.sqrt(3000)
        if loss == "cross_entropy" or d == 1:
            assert np.abs(found.sum(1) - 1).max() <= 1e-12
    with pytest.raises(ValueError, match=r"loss must be 'cross_entropy' or .* got 'mse'"):
        fitted(rng)[2].predict_proba([[0.0]])


@pytest.mark.parametrize("std", [0.3, 1.5, 5.0, 57.0])
def test_the_mean_of_a_sigmoid_has_its_stated_error(std):
    for z in (-40.0, 0.3, 10.0):
        mean = lambda u: expit(u) * expit(-u) * stats.norm.cdf((z - u) / std)  # noqa: B023, E731
        wanted = integrate.quad(mean, -60, 60, points=(-5, 5, z), epsabs=1e-13, limit=500)[0]
        found = _mean_sigmoid(np.array([[z]]), np.array([[[std]]]))[0, 1]
        assert abs(found - wanted) <= 1e-11


def test_a_large_penalty_does_not_hide_the_residuals():
    """The noise is estimated where the penalty is 1e16 times the sum of squares."""
    X, y = np.ones((5, 1)), np.array([0.0, -2.3, 2.3, 0.5, 0.1])
    ob = fc.Objective(fc.MLP([1, 1]), X, y, "mse", l2=1e3)
    post = fc.laplace(ob, np.array([1e8, -1e8]))
    assert abs(post.noise_std - np.sqrt((y @ y) / 5)) <= 1e-2


def test_the_posterior_does_not_depend_on_dtype_threads_or_sparsity(rng):
    ob, theta, post = fitted(rng)
    from scipy.sparse import csr_matrix

    sparse = fc.Objective(ob.model, csr_matrix(ob.X), ob.y, "mse", ob.l2)
    same = fc.laplace(sparse, theta)
    assert np.isclose(same.log_evidence, post.log_evidence, rtol=1e-10)
    assert np.allclose(same.std(csr_matrix(ob.X)), post.std(ob.X), rtol=1e-9)
    single = fc.laplace(ob.astype(np.float32), theta.astype(np.float32))
    assert single.theta.dtype == float and abs(single.log_evidence - post.log_evidence) <= 1e-2
    for threads in (1, 3):
        same = fc.Objective(ob.model, ob.X, ob.y, "mse", ob.l2, n_threads=threads)
        found = fc.laplace(same, theta)
        assert found.log_evidence == post.log_evidence
        assert np.array_equal(found.std(ob.X), post.std(ob.X))


def test_objectives_without_a_posterior_are_rejected(rng):
    X, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    model = fc.MLP([2, 3, 1])
    theta = model.init(rng=0)

    def refused(message, ob, at=theta, *how, **more):
        with pytest.raises(ValueError, match=message):
            fc.laplace(ob, at, *how, **more)

    ob = fc.Objective(model, X, y, "mse", 1e-2)
    for loss in ("quantile", "pseudo_huber", "log_cosh", fc.Loss.quantile(0.9)):
        refused("loss must be a negative log likelihood, got", fc.Objective(model, X, y, loss))
    refused("curvature must be|curvature is", ob, theta, "kfac")
    refused("noise_std must be|noise is", ob, theta, noise_std=-1.0)
    counts = fc.Objective(model, X, np.abs(y), "poisson", 1e-2)
    refused("ob must have a finite value at theta", fc.Objective(model, X, 1e200 * y, "mse", 1e-2))
    for noise in (1e-200, 1e200):
        refused("noise_std must lie between 1e-140 and 1e.140, got", ob, theta, noise_std=noise)
    refused("noise_std must be None for loss='poisson', got 0.1. Only 'mse'", counts, noise_std=0.1)
    least = np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0]
    assert least < 0
    refused(
        f"positive definite Hessian, got a smallest eigenvalue of {least:.6g}", ob, theta, "hessian"
    )
    wide = fc.MLP([2, 30, 1])
    refused("Use an objective with l2 > 0", fc.Objective(wide, X, y, "mse"), wide.init(rng=0))
    relu = fc.MLP([2, 3, 1], activation="relu", bias=False)
    at_kink = np.zeros(relu.n_params)
    refused(
        "no pre-activation at a kink", fc.Objective(relu, X, y, "mse", 1e-2), at_kink, "hessian"
    )
    assert fc.laplace(fc.Objective(relu, X, y, "mse", 1e-2), at_kink).n_effective == 0
    normed = fc.MLP([2, 3, 1], batch_norm=True)
    refused("without batch norm", fc.Objective(normed, X, y, "mse"), normed.init(rng=0))
    streamed = fc.StreamedObjective(model, X, y, loss="mse")
    refused("ob must have its rows in memory", streamed)

    class Shifted(fc.Objective):
        def value(self, theta):
            return super().value(theta) + 1.0

    refused("ob must be an Objective itself", Shifted(model, X, y, "mse"))
    nothing = fc.Objective(model, X, y, "mse", sample_weight=np.zeros(20))
    refused("sample_weight must have a positive sum", nothing)
    with pytest.raises(TypeError, match="ob must be a fastcurv.Objective"):
        fc.laplace(model, theta)
    exact = fc.Objective(fc.MLP([1, 1]), [[0.0], [1.0]], [0.0, 1.0], "mse")
    refused("noise_std must be given if the rows determine as many", exact, np.array([1.0, 0.0]))


def test_user_defined_losses_count_as_negative_log_likelihoods(rng):
    X, y = rng.standard_normal((40, 2)), rng.poisson(1.0, 40).astype(float)

    def counts(z, y):
        e = np.exp(z)
        return (e - y * z).sum(1), e - y, e

    model, theta = fc.MLP([2, 1]), np.array([0.1, -0.1, 0.2])
    own = fc.laplace(fc.Objective(model, X, y, fc.Loss(counts), 0.1), theta)
    known = fc.laplace(fc.Objective(model, X, y, "poisson", 0.1), theta)
    from scipy.special import gammaln

    assert np.isclose(own.log_evidence - gammaln(y + 1).sum(), known.log_evidence, rtol=1e-12)
    assert np.allclose(own.std(X), known.std(X), rtol=1e-12)


def test_few_rows_or_many_effective_parameters_warn(rng):
    small = fc.Objective(fc.MLP([2, 3, 1]), np.eye(20, 2), np.ones(20), "mse", 0.1)
    with pytest.warns(UserWarning, match="1.538 rows for each parameter, 20 for 13") as seen:
        post = fc.laplace(small, small.model.init(rng=0), noise_std=1.0)
    assert seen[0].filename == __file__ and "caution" in repr(post)
    X = rng.standard_normal((60, 2))
    y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(60)
    model, line = fc.MLP([2, 5, 1]), fc.MLP([2, 1])
    loose, strict = (fc.Objective(model, X, y, "mse", l2) for l2 in (1e-5, 0.3))
    theta = fc.minimize(loose, model.init(rng=0), rng=0, verdict=False).x
    with pytest.warns(UserWarning, match="effective parameters for 60 targets. With more") as seen:
        fc.laplace(loose, theta)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fc.laplace(loose, theta, noise_std=0.3)
        assert fc.laplace(strict, theta).n_effective < 0.2 * 60
        few = fc.Objective(line, X[:10], y[:10], "mse")
        assert fc.laplace(few, np.zeros(3)).n_effective > 0.2 * 10


def test_a_posterior_has_a_summary_and_a_plot(rng):
    import json
    import pickle

    ob, theta, post = fitted(rng)
    assert (
        json.loads(json.dumps(post.to_dict(), allow_nan=False))["log_evidence"] == post.log_evidence
    )
    with pytest.raises(ValueError, match="read-only"):
        post.theta[0] = 0
    again = pickle.loads(pickle.dumps(post))
    assert np.array_equal(again.std(ob.X), post.std(ob.X))


def test_dispersion_and_errors_of_gamma_are_those_of_statsmodels(rng):
    sm = pytest.importorskip("statsmodels.api")
    X = rng.uniform(-1, 1, (200, 2))
    mean = np.exp(0.5 + X @ [1.0, -0.5])
    y = rng.gamma(4.0, mean / 4)
    weight = rng.integers(0, 3, 200).astype(float)
    ob = fc.Objective(fc.MLP([2, 1]), X, y[:, None], "gamma", sample_weight=weight)
    post = fc.laplace(ob, fc.minimize(ob, gradient_tol=1e-12, rng=0).x)
    link = sm.families.links.Log()
    model = sm.GLM(y, sm.add_constant(X), sm.families.Gamma(link), freq_weights=weight)
    assert np.isclose(post.dispersion, model.fit().scale, rtol=1e-8)
    errors = np.sqrt(np.diag(post.covariance))
    assert np.allclose(post.standard_errors, errors, rtol=1e-12)
    assert fc.laplace(fc.Objective(fc.MLP([2, 1]), X, y, "mse"), post.theta).dispersion == 1.0
