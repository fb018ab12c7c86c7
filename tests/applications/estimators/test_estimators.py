"""The estimators pass scikit-learn's checks, minimise scikit-learn's objective, and report the
curvature at the end of a fit.
"""

import pickle
import warnings

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.sentences import FIT_AUDIENCE
from fastcurv.optimize import problem

sklearn = pytest.importorskip("sklearn")
from sklearn import datasets  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score  # noqa: E402
from sklearn.neural_network import MLPClassifier as TheirClassifier  # noqa: E402
from sklearn.neural_network import MLPRegressor as TheirRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler, scale  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

BOTH = (fc.MLPClassifier, fc.MLPRegressor)


def checks():
    """Yield a pytest parameter (estimator, check) for each of scikit-learn's own checks of both
    estimators.
    """
    for kind in BOTH:
        seen = {}
        for estimator, check in estimator_checks_generator(kind()):
            name = check.func.__name__
            seen[name] = seen.get(name, 0) + 1
            # sparse arrays are checked by day
            marks = [pytest.mark.nightly] if name == "check_estimator_sparse_matrix" else []
            yield pytest.param(
                estimator, check, id=f"{kind.__name__}-{name}-{seen[name]}", marks=marks
            )


@pytest.mark.parametrize("estimator, check", list(checks()))
def test_estimators_pass_scikit_learns_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            check(estimator)
        except BaseException as error:
            if type(error).__name__ == "SkipTest":
                pytest.skip(str(error))
            raise


def wine(classes=3):
    X, y = datasets.load_wine(return_X_y=True)
    kept = y < classes
    return scale(X[kept]), y[kept]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_objective_equals_scikit_learns(classes):
    X, y = wine(classes)
    ours = fc.MLPClassifier((6, 4), "tanh", alpha=0.3, random_state=0).fit(X, y)
    theirs = TheirClassifier((6, 4), "tanh", alpha=0.3, solver="lbfgs", max_iter=1).fit(X, y)
    for mine, other in ((ours.coefs_, theirs.coefs_), (ours.intercepts_, theirs.intercepts_)):
        for a, b in zip(mine, other):
            assert a.shape == b.shape
            b[...] = a
    p = theirs.predict_proba(X)
    assert np.allclose(p, ours.predict_proba(X), rtol=1e-9, atol=1e-12)
    data = -np.log(p[np.arange(len(y)), y]).mean()
    penalty = 0.15 / len(y) * sum((W**2).sum() for W in ours.coefs_)
    assert ours.loss_ == pytest.approx(data + penalty, rel=1e-10)
    assert np.allclose(np.log(p), ours.predict_log_proba(X), rtol=1e-9, atol=1e-12)


def test_a_regression_minimises_its_stated_objective():
    X, y = datasets.load_diabetes(return_X_y=True)
    X = scale(X)
    ours = fc.MLPRegressor((8,), "tanh", alpha=10.0, random_state=0, max_iter=500).fit(X, y)
    f = ours.predict(X)
    layers = ours.model_.unflatten(ours.theta_)  # weights for targets of unit variance
    penalty = 5.0 / len(y) * sum((W**2).sum() for W, _ in layers)
    residuals = (f - y) / y.std()
    assert ours.loss_ == pytest.approx(0.5 * (residuals**2).mean() + penalty, rel=1e-10)
    assert ours.loss_ == pytest.approx(0.5 * ours.objective(X, y).value(ours.theta_), rel=1e-12)
    Y = np.stack([y, -y, 0 * y], axis=1)
    several = fc.MLPRegressor((8,), "tanh", alpha=1.0, random_state=0, max_iter=20)
    with pytest.warns(ConvergenceWarning, match="max_iter=20"):
        several.fit(X, Y)
    assert several.predict(X).shape == Y.shape and several.n_outputs_ == 3


@pytest.mark.parametrize(
    "names", [("no", "yes"), (-7, 3), (True, False), ("a", "b", "c"), (1.0, 2.0, 9.0)]
)
def test_class_labels_of_any_type_are_accepted(names):
    X, y = wine(len(names))
    labels = np.array(names)[y]
    net = fc.MLPClassifier((4,), alpha=1.0, random_state=0).fit(X, labels)
    assert net.classes_.tolist() == sorted(names)
    assert net.predict(X).dtype == labels.dtype and net.score(X, labels) > 0.97


def test_multilabel_targets_are_fitted():
    X, y = wine()
    Y = np.stack([y == 0, y != 1, X[:, 0] > 0], axis=1).astype(int)
    net = fc.MLPClassifier((6,), alpha=0.1, random_state=0).fit(X, Y)
    assert net.score(X, Y) > 0.97 and net.predict_proba(X).shape == Y.shape
    p = net.predict_proba(X)
    assert np.abs(np.exp(net.predict_log_proba(X)) - p).max() <= 1e-6
    data = -(Y * np.log(p) + (1 - Y) * np.log1p(-p)).sum(axis=1).mean()
    penalty = 0.05 / len(y) * sum((W**2).sum() for W in net.coefs_)
    assert net.loss_ == pytest.approx(data + penalty, rel=1e-8)


SOLVERS = ["trust-region", "newton-cg", "gauss-newton", "cubic", "saddle-free-newton", "lbfgs"]


@pytest.mark.parametrize("solver", [*SOLVERS, "sgd", "momentum", "nesterov", "rmsprop", "adam"])
def test_every_solver_reaches_a_low_loss(solver):
    X, y = wine()
    options = {"max_iter": 60, "random_state": 0, "verdict": False, "alpha": 0.1}
    if solver in ("rmsprop", "adam"):
        options["learning_rate_init"] = 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net = fc.MLPClassifier((5,), "tanh", solver=solver, **options).fit(X, y)
        again = fc.MLPClassifier((5,), "tanh", solver=solver, **options).fit(X, y)
    assert np.array_equal(net.theta_, again.theta_), "the same seed, the same bits"
    assert net.curvature_ is None and net.score(X, y) > 0.9
    assert net.loss_curve_[0] > net.loss_ and 1 <= net.n_iter_ <= 60


@pytest.mark.parametrize(
    "verdict, kind", [(True, "minimum"), (np.True_, "minimum"), (np.False_, None)]
)
def test_curvature_of_a_fit_is_the_verdict_of_classify(verdict, kind):
    X, y = wine()
    net = fc.MLPClassifier((3,), "tanh", alpha=1.0, tol=1e-9, max_iter=2000, random_state=0)
    net.set_params(verdict=verdict).fit(X, y)
    assert getattr(net.curvature_, "kind", None) == kind
    ob = net.objective(X, y)
    assert ob.value(net.theta_) == net.loss_ and fc.classify(ob, net.theta_).kind == "minimum"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_advice_for_a_fit_uses_the_estimators_names():
    """The advice in a fit's `curvature_` uses the names `net`, `X` and `y` instead of `ob` and
    `theta`.
    """
    X, y = wine()
    net = fc.MLPClassifier((3,), "tanh", max_iter=3, random_state=0, verdict=True).fit(X, y)
    point = net.curvature_
    assert point.kind == "not_critical" and point._audience == FIT_AUDIENCE
    assert "ob, theta" not in repr(point)
    assert "ob, theta" in repr(fc.classify(net.objective(X, y), net.theta_))
    assert pickle.loads(pickle.dumps(point)).sentence == point.sentence


def test_a_fit_that_starts_at_a_saddle_leaves_it():
    """From zero weights, where the gradient is 0, the default solver finds negative curvature and
    reaches a low loss, whereas solver="lbfgs" stays at the saddle.
    """
    X, y = wine(2)
    net = fc.MLPClassifier((3,), "tanh", warm_start=True, alpha=1e-3, random_state=0).fit(X, y)
    start = 0 * net.theta_
    net.model_.unflatten(start)[-1][1][:] = np.log(y.mean() / (1 - y.mean()))
    net.theta_ = start
    net.fit(X, y)
    assert net.loss_ < 0.1 and net.n_iter_ > 1
    stays = fc.MLPClassifier((3,), "tanh", solver="lbfgs", warm_start=True, alpha=1e-3)
    stays.fit(X, y)
    stays.theta_ = start
    stays.fit(X, y)
    assert stays.loss_ > 0.6 and fc.classify(stays.objective(X, y), start).kind == "saddle"


@pytest.mark.parametrize("kind", BOTH)
def test_early_stopping_ends_at_the_best_validation_score(kind):
    X, y = datasets.load_diabetes(return_X_y=True)
    X, y = scale(X), y if kind is fc.MLPRegressor else (y > 150)
    net = kind((30,), early_stopping=True, n_iter_no_change=5, random_state=0, max_iter=400)
    net.fit(X, y)
    curve = net.validation_loss_curve_
    assert len(curve) < 400 and net.stopped_ == "patience"
    assert np.argmin(curve) >= len(curve) - 7
    free = kind((30,), random_state=0, max_iter=400, verdict=False, alpha=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert free.fit(X, y).loss_ < net.loss_, "held out rows end a run before it fits noise"


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "adam"])
@pytest.mark.parametrize("at", [2, 4, 9, 13])
def test_ctrl_c_during_a_fit_raises_and_keeps_the_weights_reached(solver, at, monkeypatch):
    X, y = wine()
    asked, ask = [], fc.Objective.value_and_gradient

    def interrupted(ob, theta):
        asked.append(theta)
        if len(asked) == at:
            raise KeyboardInterrupt
        return ask(ob, theta)

    monkeypatch.setattr(fc.Objective, "value_and_gradient", interrupted)
    monkeypatch.setattr(
        problem, "engine_steps_of", lambda ob: None
    )  # value_and_gradient is then called
    net = fc.MLPClassifier((5,), solver=solver, random_state=0, max_iter=60)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y)
    assert len(asked) <= at + 2 and net.stopped_ == "interrupted" and net.curvature_ is None
    assert net.predict(X).shape == y.shape and np.isfinite(net.loss_)


def test_unfinished_fits_warn_and_stalled_ones_do_not():
    """A fit that stalls, because weight decay keeps relu units at kinks, gives no warning. A fit
    that reaches max_iter warns and suggests a larger limit.
    """
    X, y = wine()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        long = fc.MLPClassifier((10,), alpha=0.1, max_iter=100_000, random_state=0).fit(X, y)
    assert long.stopped_ in ("stalled", "slow") and long.n_iter_ < long.max_iter
    with pytest.warns(ConvergenceWarning, match="max_iter=100 .* To converge, increase max_iter"):
        fc.MLPClassifier((10,), alpha=0.1, max_iter=100, random_state=0).fit(X, y)


@pytest.mark.parametrize(
    "solver, name, value",
    [("adam", "beta_1", 0.5), ("adam", "beta_2", 0.9), ("adam", "epsilon", 1e-2),
     ("momentum", "momentum", 0.5), ("nesterov", "momentum", 0.5)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_options_of_mini_batch_solvers_reach_the_method(solver, name, value):
    """The fit with an option of the estimator is that of `minimize` with the same option, whose
    defaults are those of the estimator.
    """
    X, y = wine()
    words = {"solver": solver, "max_iter": 3, "random_state": 0, "batch_size": len(y)}
    options = {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps"}
    start = fc.MLPClassifier((4,), **words, learning_rate_init=1e-300).fit(X, y)
    for given in ({}, {name: value}):
        net = fc.MLPClassifier((4,), alpha=0.1, learning_rate_init=0.1, **words, **given).fit(X, y)
        passed = {options.get(key, key): x for key, x in given.items()}
        run = fc.minimize(
            net.objective(X, y), start.theta_, solver, learning_rate=0.1, max_iter=3,
            batch_size=len(y), verdict=False, **passed,
        )  # fmt: skip
        assert np.allclose(net.theta_, run.x, rtol=1e-9)


def test_partial_fit_and_warm_start_continue_a_fit():
    X, y = wine()
    names = np.array(["a", "b", "c"])[y]
    net = fc.MLPClassifier((5,), "tanh", solver="sgd", random_state=0, batch_size=20)
    for epoch in range(30):
        half = np.arange(epoch % 2, len(y), 2)
        net.partial_fit(X[half], names[half], classes=["a", "b", "c"])
    assert net.n_iter_ == 30
    assert net.score(X, names) > 0.95
    with pytest.raises(ValueError, match="first call"):
        net.partial_fit(X, names, classes=["a", "b"])
    with pytest.raises(ValueError, match="must hold labels of classes_"):
        net.partial_fit(X, np.where(names == "a", "d", names))
    assert not hasattr(fc.MLPClassifier(), "partial_fit")
    reg = fc.MLPRegressor((5,), "tanh", solver="sgd", learning_rate_init=0.01, random_state=0)
    first = reg.partial_fit(X, X[:, 0]).loss_
    assert reg.predict(X).shape == (len(X),)  # without a previous fit
    assert fc.MLPRegressor(solver="sgd").partial_fit(X, X).predict(X).shape == X.shape
    for _ in range(30):
        reg.partial_fit(X, X[:, 0])
    assert reg.loss_ < first and reg.n_iter_ == 31
    some = fc.MLPClassifier((5,), solver="adam", max_iter=3, random_state=0)
    some.partial_fit(X[:, :2], y).fit(X, y).partial_fit(X, y)  # Adam's moments start again
    some.set_params(solver="sgd").partial_fit(X, y)  # a new solver has no moments
    weighted = fc.MLPClassifier((5,), solver="adam", class_weight={0: 1, 1: 100, 2: 1}).partial_fit(
        X, y
    )
    assert weighted.loss_ == pytest.approx(weighted.objective(X, y).value(weighted.theta_))
    for more in ({"early_stopping": True}, {"class_weight": "balanced"}):
        with pytest.raises(ValueError, match="partial_fit does not support"):
            fc.MLPClassifier((5,), solver="adam", **more).partial_fit(X, y)
    for weight in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="class_weight must (be|hold)"):
            fc.MLPClassifier((5,), class_weight={0: weight, 1: 1, 2: 1}).fit(X, y)
    warm = fc.MLPClassifier((5,), "tanh", warm_start=True, alpha=1.0, random_state=0).fit(X, y)
    n = warm.n_iter_
    assert warm.fit(X, y).n_iter_ < n


def test_a_failed_fit_leaves_the_fitted_attributes_unchanged():
    X, y = wine()
    net = fc.MLPClassifier((3,), "tanh", random_state=0, max_iter=5, tol=1e-2).fit(X, y)
    told, held = net.predict(X), vars(net).copy()
    other = np.array(["a", "b"])[y % 2]
    for bad in (
        lambda: net.fit(X[:, :4], other, sample_weight=np.zeros(len(y))),
        lambda: net.fit(X[:, :4], np.where(y > 0, np.nan, 1.0)),
    ):
        with pytest.raises(ValueError):
            bad()
        assert vars(net).keys() == held.keys()
        assert all(vars(net)[name] is x for name, x in held.items())
        assert np.array_equal(net.predict(X), told)
    for new in (fc.MLPClassifier(solver="sgd"), fc.MLPRegressor(solver="sgd")):
        before = vars(new).copy()
        with pytest.raises(ValueError):
            new.partial_fit(X, y[:-1])
        with pytest.raises(ValueError):
            new.fit(X, y[:-1])
        assert vars(new) == before


def test_a_fit_without_held_out_samples_has_no_validation_curve():
    X, y = wine()
    net = fc.MLPClassifier((3,), "tanh", early_stopping=True, random_state=0, max_iter=9).fit(X, y)
    assert net.validation_loss_curve_
    net.set_params(early_stopping=False, tol=1e-2, max_iter=500).fit(X, y)
    assert not hasattr(net, "validation_loss_curve_")


INVALID_VALUES = [
    ({"solver": "newtons"}, "solver must be one of auto.*got 'newtons'"),
    ({"activation": "tan"}, "'tan'"),
    ({"alpha": -1}, "alpha must be .*got -1"),
    ({"max_iter": 0}, "max_iter must be .*got 0"),
    ({"max_time": -1}, "max_time must be a finite number > 0.*got -1.0"),
    ({"tol": "tight"}, "tol must be 'auto' or a number.*got 'tight'"),
    ({"beta_1": -0.5}, "beta_1 must be .*got -0.5"),
    ({"beta_1": 1.0, "solver": "adam"}, "beta1 must be .*got 1.0"),
    ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be ints.*got \\(0,\\)"),
    ({"batch_size": 0, "solver": "adam"}, "batch_size must be .*got 0"),
    ({"batch_size": "all"}, "batch_size must be 'auto' or an int >= 1.*got 'all'"),
    (
        {"early_stopping": True, "validation_fraction": 1.5},
        "validation_fraction must be a number between 0 and 1, got 1.5",
    ),
]
INVALID_TYPES = [
    ({"hidden_layer_sizes": None}, "hidden_layer_sizes must be an int >= 1 or several.*got None"),
    ({"hidden_layer_sizes": 5.0}, "hidden_layer_sizes must be an int >= 1 or several.*got 5.0"),
    ({"activation": None}, "activation must be a name, an fc.Activation, or one.*got a NoneType"),
    ({"verdict": "quick"}, "verdict must be True or False, got 'quick'"),
    ({"max_time": "a"}, "max_time must be a finite number > 0.*got 'a'"),
    ({"learning_rate_init": "a"}, "learning_rate_init must be .*got 'a'"),
    ({"early_stopping": True, "validation_fraction": "a"}, "validation_fraction must be .*got 'a'"),
]


@pytest.mark.parametrize("error, table", [(ValueError, INVALID_VALUES), (TypeError, INVALID_TYPES)])
@pytest.mark.parametrize("kind", BOTH)
def test_fit_rejects_invalid_parameters(kind, error, table):
    for parameters, words in table:
        with pytest.raises(error, match=words):
            kind(**parameters).fit(*wine())


@pytest.mark.parametrize("kind", BOTH)
def test_fit_rejects_invalid_weights_and_objective_an_unfitted_estimator(kind):
    X, y = wine()
    for weight, words in ((0 * y, "zero"), (y - 1.0, "[Nn]egative")):
        with pytest.raises(ValueError, match=words):
            kind().fit(X, y, sample_weight=weight)
    with pytest.raises(NotFittedError):
        kind().objective(X, y)


def compare(ours, theirs, X, y, folds):
    """Return [ours, theirs]: the scores of two estimators on standardised features over the same
    folds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return [
            cross_val_score(make_pipeline(StandardScaler(), net), X, y, cv=folds)
            for net in (ours, theirs)
        ]


ADAM = pytest.mark.nightly  # scikit-learn's default solver takes half a minute


@pytest.mark.by_day(share=1 / 4)
@pytest.mark.parametrize("solver", ["lbfgs", pytest.param("adam", marks=ADAM)])
@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "diabetes"])
def test_default_estimators_are_as_accurate_as_scikit_learns(name, solver, alpha):
    """Over five folds of standardised features, with the default alpha and for classifiers also
    with alpha=1, mean scores are at most two standard errors below scikit-learn's.
    """
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "diabetes":
        folds, kinds = KFold(5, shuffle=True, random_state=0), (fc.MLPRegressor, TheirRegressor)
        options = {}
    else:
        options = {} if alpha is None else {"alpha": alpha}
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        kinds = (fc.MLPClassifier, TheirClassifier)
    ours, theirs = compare(
        kinds[0](random_state=0, **options),
        kinds[1](random_state=0, solver=solver, **options),
        X,
        y,
        folds,
    )
    error = theirs.std() / 5**0.5 if name == "diabetes" else (0.02 / len(y)) ** 0.5
    assert ours.mean() >= theirs.mean() - 2 * error
