"""User-defined losses and activations, and built-in losses without kernels, in estimators,
diagnosis and converters.
"""

import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import Loss
from fastcurv.applications.estimators.regressor import MLPRegressor
from fastcurv.structure.tables import loss_spec

from ... import nets
from ...structure.test_functions import TANH, cauchy


def law(name, rng, N):
    X = rng.uniform(-1, 1, (N, 2))
    centre, spread = np.sin(3 * X[:, 0]), 0.3 + 0.3 * (1 + X[:, 1])
    noise = {
        "normal": rng.standard_normal(N),
        "skewed": rng.exponential(1.0, N) - 1,
        "heavy": rng.standard_t(3, N),
    }[name]
    return X, centre + spread * noise


@pytest.mark.parametrize("name", ["normal", "skewed", "heavy"])
def test_quantile_fit_covers_90_percent_of_targets(name):
    """For a fit of the 90% quantile, 88 to 92% of 20 000 new targets lie below their
    predictions.
    """
    rng = np.random.default_rng(1)
    X, y = law(name, rng, 4000)
    net = MLPRegressor((10,), "tanh", loss=Loss.quantile(0.9), alpha=1.0, random_state=0)
    net.fit(X, y)
    X, y = law(name, rng, 20_000)
    assert 0.88 <= np.mean(y <= net.predict(X)) <= 0.92


def test_gaussian_nll_predicts_mean_and_deviation(rng):
    X, y = law("normal", rng, 4000)
    net = MLPRegressor((10,), "tanh", loss="gaussian_nll", alpha=1.0, random_state=0).fit(X, y)
    X, y = law("normal", rng, 4000)
    mean, deviation = net.predict(X, return_std=True)
    assert mean.shape == deviation.shape == (4000,)
    assert np.abs(deviation - 0.3 - 0.3 * (1 + X[:, 1])).mean() < 0.06
    assert abs(np.mean(np.abs(y - mean) < deviation) - 0.6827) < 0.03
    with pytest.raises(ValueError, match="must be 'squared_error' or 'gaussian_nll'"):
        MLPRegressor((3,), loss="quantile").fit(X, y).predict(X, return_std=True)


@pytest.mark.parametrize("m", [1, 2])
def test_poisson_fits_agree_with_scikit_learn(m, rng):
    from sklearn.base import clone
    from sklearn.metrics import mean_poisson_deviance
    from sklearn.neural_network import MLPRegressor as Theirs

    X = rng.standard_normal((400, 3))
    y = rng.poisson(np.exp(0.5 * X[:, :m])).astype(float)
    y = y / y.mean(axis=0)  # with targets of mean 1, both libraries apply the same penalty
    y = y[:, 0] if m == 1 else y
    options = {"hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 1.0, "random_state": 0}
    theirs = Theirs("poisson", **options, solver="lbfgs", max_iter=2000).fit(X, y)
    ours = clone(MLPRegressor(loss="poisson", **options, max_iter=2000)).fit(X, y)
    assert ours.out_activation_ == theirs.out_activation_ == "exp"
    model, theta = fc.from_sklearn(theirs)
    ob = ours.objective(X, y)
    assert ours._scale * ob.value(theta) == pytest.approx(theirs.loss_, rel=1e-9)
    assert np.allclose(np.exp(model.predict(theta, X)).reshape(y.shape), theirs.predict(X))
    both = [mean_poisson_deviance(np.ravel(y), np.ravel(est.predict(X))) for est in (ours, theirs)]
    assert ours.loss_ <= theirs.loss_ + 1e-6 and both[0] <= both[1] + 0.01


@pytest.mark.parametrize("loss", [*nets.GIVEN, Loss(cauchy)])
def test_regressors_start_at_the_best_constant(loss, rng):
    y = rng.exponential(3.0, 200) + 0.1
    net = MLPRegressor((3,), loss=loss, alpha=1e9, max_iter=300).fit(rng.normal(size=(200, 2)), y)
    row = loss_spec(loss)
    rows = (y[:, None] - net.y_shift_) / net.y_scale_  # targets in the units of the fit
    constant = row.constant(rows, np.full(200, 1 / 200), 1)
    assert net.loss_ == pytest.approx(constant, rel=1e-4)
    if loss == "gamma":
        assert np.allclose(net.predict(rng.normal(size=(5, 2))), y.mean(), rtol=1e-3)


def test_a_loss_for_classes_raises(rng):
    with pytest.raises(ValueError, match="loss must be one for regression"):
        MLPRegressor(loss="cross_entropy").fit([[0.0], [1.0]], [0.0, 1.0])


def test_unsupported_uses_of_user_defined_activations_raise():
    for bad in (nets.arctan, 7):
        with pytest.raises(TypeError, match="must be a name, an fc.Activation"):
            MLPRegressor((3,), bad).fit([[0.0], [1.0]], [0.0, 1.0])
    model = fc.MLP([2, 3, 3, 1], ["tanh", TANH])
    with pytest.raises(ValueError, match="which has no torch module"):
        fc.to_torch(model, model.init(rng=0))


@pytest.mark.parametrize("layers", [(5,), (5, 4)])
def test_estimators_accept_user_defined_activations(layers, rng):
    from sklearn.base import clone

    X = rng.standard_normal((100, 3))
    y = np.sin(X[:, 0])
    mixed = TANH if len(layers) == 1 else [TANH, "tanh"]
    fits = [
        clone(MLPRegressor(layers, phi, alpha=1.0, random_state=0)).fit(X, y)
        for phi in ("tanh", mixed)
    ]
    assert fits[1].loss_ == pytest.approx(fits[0].loss_, rel=1e-6)
    again = pickle.loads(pickle.dumps(fits[1]))
    assert np.array_equal(again.predict(X), fits[1].predict(X))
