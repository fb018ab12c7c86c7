"""Conversion of scikit-learn pipelines, whose scalers are folded into the first layer."""

import warnings

import numpy as np
import pytest

import fastcurv as fc

neural = pytest.importorskip("sklearn.neural_network")
from sklearn import compose, decomposition, preprocessing  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

X = np.random.default_rng(7).standard_normal((17, 4))
SCALERS = [
    ("StandardScaler", {}),
    ("StandardScaler", {"with_mean": False}),
    ("StandardScaler", {"with_std": False}),
    ("MinMaxScaler", {"feature_range": (-2, 3)}),
    ("MaxAbsScaler", {}),
    ("RobustScaler", {}),
    ("RobustScaler", {"with_centering": False, "with_scaling": False}),
    ("PCA", {"n_components": 3}),
    ("PCA", {"n_components": 2, "whiten": True}),
]


FAR = 5 + 10.0 ** np.arange(X.shape[1]) * X


def pipeline_of(*before, rows=FAR):
    """Return (pipeline, rows): the steps `before` and an MLPRegressor, fitted to `rows`. By
    default, the rows are far from 0 and their features have different scales.
    """
    est = neural.MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(*before, est).fit(rows, X[:, 0]), rows


def check_folded_scaler(pipe, rows):
    """Assert that the network converted from `pipe`, applied to unscaled rows, has the predictions
    of the pipeline.
    """
    model, theta = fc.from_sklearn(pipe)
    assert model.sizes[0] == rows.shape[1]
    assert np.allclose(model.predict(theta, rows)[:, 0], pipe.predict(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "options"), SCALERS)
def test_a_scaler_is_folded_into_the_first_layer(name, options):
    make = getattr(preprocessing, name, None) or getattr(decomposition, name)
    check_folded_scaler(*pipeline_of(make(**options)))


def test_several_scalers_are_folded_into_the_first_layer():
    first, last = preprocessing.MinMaxScaler(), preprocessing.StandardScaler()
    same = preprocessing.FunctionTransformer()
    check_folded_scaler(*pipeline_of(first, "passthrough", same, decomposition.PCA(3), last))


def test_errors_for_pipelines_name_the_unsupported_step():
    pipe, _ = pipeline_of(preprocessing.PolynomialFeatures(2))
    with pytest.raises(ValueError, match=r"'polynomialfeatures'.*transform\(X\)"):
        fc.from_sklearn(pipe)
    pipe, _ = pipeline_of(preprocessing.FunctionTransformer(np.cbrt))
    with pytest.raises(ValueError, match="'functiontransformer'"):
        fc.from_sklearn(pipe)
    pipe, _ = pipeline_of(preprocessing.MinMaxScaler(clip=True))
    with pytest.raises(ValueError, match="clip=True"):
        fc.from_sklearn(pipe)
    pipe.steps[0] = ("scaler", preprocessing.MinMaxScaler())
    with pytest.raises(ValueError, match="'scaler' of the pipeline must be fitted"):
        fc.from_sklearn(pipe)


@pytest.mark.parametrize("fitted", [True, False])
def test_errors_for_searches_suggest_their_best_estimator(fitted):
    from sklearn.model_selection import GridSearchCV

    one = neural.MLPRegressor(hidden_layer_sizes=(2,), max_iter=5, random_state=0)
    search = GridSearchCV(one, {"alpha": [1e-3]}, cv=2)
    if fitted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.fit(X, X[:, 0])
    with pytest.raises(
        TypeError,
        match="est must be an MLP .*got a GridSearchCV, a parameter search. Fit it and pass",
    ):
        fc.from_sklearn(search)


def test_whitening_of_components_without_variance_matches_scikit_learn():
    rows = np.hstack([X[:, :3], np.zeros((len(X), 1))])
    check_folded_scaler(*pipeline_of(decomposition.PCA(whiten=True), rows=rows))


def test_scalers_with_an_overridden_transform_are_rejected():
    scaler = preprocessing.StandardScaler
    check_folded_scaler(*pipeline_of(type("StandardScaler", (scaler,), {})()))
    own = type("StandardScaler", (scaler,), {"transform": lambda self, X: 3 * X})
    with pytest.raises(ValueError, match="StandardScaler with a transform of its own"):
        fc.from_sklearn(pipeline_of(own())[0])


def target_regressor(transformer, net=None, targets=1):
    """Return a TransformedTargetRegressor, fitted to positive targets."""
    net = net or neural.MLPRegressor(
        hidden_layer_sizes=(3,), solver="lbfgs", max_iter=5, random_state=0
    )
    y = 1 + X[:, :targets] ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est = compose.TransformedTargetRegressor(net, transformer=transformer, check_inverse=False)
        return est.fit(X, y if targets > 1 else y[:, 0])


def test_target_transforms_that_no_last_layer_can_undo_are_rejected():
    whole = target_regressor(decomposition.PCA(), targets=2)
    model, theta = fc.from_sklearn(whole)
    assert np.allclose(model.predict(theta, X), whole.predict(X), rtol=1e-9)
    own = {"inverse_transform": lambda self, X: 3 * X}
    scaler = type("StandardScaler", (preprocessing.StandardScaler,), own)
    exponential = fc.MLPRegressor((3,), "tanh", loss="poisson", max_iter=3, verdict=False)
    spread = fc.MLPRegressor((3,), "tanh", loss="gaussian_nll", max_iter=3, verdict=False)
    for est, words in (
        (target_regressor(scaler()), "StandardScaler with an inverse_transform of its own"),
        (
            target_regressor(decomposition.PCA(1), targets=2),
            "transformer_ of est must be invertible, got a map from 2 targets to 1",
        ),
        (
            target_regressor(preprocessing.StandardScaler(with_mean=False), exponential),
            "must have out_activation_='identity' if its targets are transformed, got 'exp'",
        ),
        (
            target_regressor(decomposition.PCA(), spread, targets=2),
            "each target scaled by itself, got 4 outputs for 2 targets",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            fc.from_sklearn(est)


@pytest.mark.parametrize("activation", ["tanh", ["tanh"], ("tanh", "relu")])
def test_converted_activation_is_that_at_the_time_of_fit(activation):
    """An estimator is converted with the activations of its layers at the time of the fit, even if
    its parameter `activation` was changed afterwards.
    """
    widths = (3,) if isinstance(activation, str) else (3,) * len(activation)
    est = fc.MLPRegressor(widths, activation, max_iter=3, random_state=0, verdict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.fit(X, X[:, 0])
    est.set_params(activation="logistic")
    model, theta = fc.from_sklearn(est)
    assert model == est.model_
    assert np.allclose(model.predict(theta, X)[:, 0], est.predict(X), rtol=1e-12)
