"""Errors for names of other libraries suggest the name used here, in one sentence."""

import inspect
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastcurv as fc
from fastcurv.common import errors
from fastcurv.common.errors import SPECIAL_METHODS, normalise_name
from fastcurv.optimize.minimize import METHOD_ALIASES, METHODS, STOCHASTIC_METHODS
from fastcurv.spectrum.trace import trace
from fastcurv.structure.tables import LOSSES

from .. import nets
from ..public import public


@pytest.fixture(scope="module")
def here():
    """Return a namespace with an objective, its model, theta and Hessian under the names that the
    tested calls use.
    """
    p = nets.draw(0, [4, 5, 3], loss="cross_entropy", N=30)
    known = {"model": p.model, "theta": p.theta, "ob": p.ob, "H": p.ob.hessian(p.theta)}
    return SimpleNamespace(fc=fc, np=np, **known)


MISTAKES = [
    ("fc.minimize(ob, theta, 'Newton-CG')", "Use 'newton-cg'"),
    ("fc.minimize(ob, theta, 'SGD')", "Use 'sgd'"),
    ("fc.minimize(ob, theta, 'Adam')", "Use 'adam'"),
    ("fc.Objective(model, 0, 0, type('MSELoss', (), {})())", "got MSELoss. Use 'mse'"),
    ("fc.Objective(model, 0, 0, 'bce')", "got 'bce'. Use 'binary_cross_entropy'"),
    ("fc.diagonal(H, n_samples=3, n_probes=3)", "n_probes"),
    ("fc.MLP([4, 5, 3], activation='ReLU')", "Use 'relu'"),
    ("fc.MLP([4, 5, 3], activation='swish')", "Use 'silu'"),
    ("fc.Objective(model, 0, 0, 'CrossEntropyLoss')", "Use 'cross_entropy'"),
    (
        "fc.spectral_density(H, n_probes=2).plot('log')",
        "ax must be a matplotlib Axes, got a str",
    ),
    ("fc.from_keras('net.keras')", "weights must be .*got a str.*keras.saving.load_model"),
    ("fc.from_torch('net.pt')", "module must be .*got a str.*torch.load"),
    (
        "fc.Objective(model, np.ones((2, 4)), ['a', 'b'])",
        "y must hold .*got strings such as 'a'.*numpy.unique",
    ),
    ("fc.Objective(model, np.ones((2, 4)), np.array(['0', '1']))", "numpy.unique"),
    ("fc.eigsh(H, which='SM')", "Use 'SA', or fc.eigvalsh"),
    ("fc.eigsh(ob)", "op must be .*got an Objective.*op.hessian"),
    ("fc.spectral_density(H, k=3)", "Use 'n_steps'"),
    ("fc.newton_step(H, H.gradient, dampin=0.1)", "Did you mean 'damping'"),
    ("fc.escape(H, theta)", "must be the objective itself"),
    ("H.restrict(layers=[0]).todense()", "Use H.to_dense"),
    ("H.shift(0.1).eigvals()", "Use fc.eigvalsh"),
    ("ob.value(dict(a=1).keys())", "theta"),
    ("np.asarray(H)", r"is an operator, not an array. Use H.to_dense\(\)"),
    ("fc.Objective(model, H, 0)", "X must be an array.*got a Curvature, an operator"),
    ("fc.spectral_density(H, n_steps=3).wasserstein(H)", "must be a density, fc.spectral_dens"),
    ("fc.SpectrumDisplay.from_operator(H, colour='red')", "Did you mean 'color'"),
    ("fc.LandscapeDisplay.from_objective(ob, theta, xlim=1)", "from_objective has no .*'xlim'"),
    ("fc.SpectrumDisplay.from_objective(ob, theta, xlim=1)", "from_objective has no .*'xlim'"),
    ("fc.SpectrumDisplay.from_operator(H, n_step=1)", "from_op.* Did you mean 'n_steps'"),
    ("fc.ConvergenceDisplay.from_results(0, xlim=1)", "y.from_results has no argument 'xlim'"),
    ("fc.ConvergenceDisplay.from_estimator(0, xlim=1)", "y.from_estimator has no .*'xlim'"),
    ("fc.MinimumRatioDisplay.from_points([], xlim=1)", "y.from_points has no argument 'xlim'"),
    ("fc.LandscapeDisplay.from_estimator(0, 0, 0, xlim=1)", "y.from_estimator has no .*'xlim'"),
    ("fc.SpectrumDisplay.from_estimator(0, 0, 0, xlim=1)", "y.from_estimator has no .*'xlim'"),
    (
        "fc.ConvergenceDisplay({}).plot(xlim=1)",
        "ConvergenceDisplay.plot has no argument 'xlim'",
    ),
    ("fc.trace(H, maxiter=3)", "^trace has no argument 'maxiter'. Use 'n_probes'"),
    ("fc.diagonal(H, maxiter=3)", "^diagonal has no argument 'maxiter'. Use 'n_probes'"),
    ("fc.frobenius_norm(H, colour=3)", "^frobenius_norm has no argument 'colour'"),
    ("model.init(random_state=0)", "^MLP.init has no argument 'random_state'"),
    ("fc.Objective(model, [ob.X])", "all rows of X .N, d., got None.* a loader"),
    ("fc.Objective(model, ob.X, ob.X[:, 0])", "Use loss='mse'"),
    ("fc.SpectrumDisplay(H)", "SpectrumDisplay.from_operator takes the operator"),
    ("fc.classify(ob, fc.minimize(ob, theta, max_iter=1))", "real numbers, .*Use theta.x"),
    ("fc.MLPClasifier", "Did you mean 'MLPClassifier'"),
    (
        "fc.find_critical_point(ob, theta, seed=0)",
        "has no argument 'seed'. Its arguments are ob, theta0",
    ),
    (
        "fc.save('net.pt', model, theta)",
        "path must end in .safetensors, got .pt. Or use torch.save",
    ),
    (
        "fc.save('net.mat', model, theta)",
        "path must end in .safetensors, got .mat. Or use scipy.io",
    ),
    ("fc.save('net.RData', model, theta)", "path must end in .safetensors, got .rdata"),
    ("fc.save('net.json', model, theta)", "path must end in .safetensors, got .json"),
    ("fc.Objective(model, ob.X[0], ob.y)", r"got \(4,\). Use X\[None, :\] for one sample"),
    ("fc.Objective(model, ob.X.T, ob.y)", r"got \(4, 30\). Use X.T if samples are its columns"),
    (
        "model.predict(theta, np.ones((9, 2, 2)))",
        r"got \(9, 2, 2\). Use X.reshape\(len\(X\), -1",
    ),
    (
        "fc.Objective(fc.MLP([1, 2, 1]), ob.X[:, 0], ob.X, 'mse')",
        r"X must have shape \(N, 1\) with N >= 1, got \(30,\). Use X\[:, None\] for",
    ),
    ("model.to('cuda')", "has no attribute 'to': fastcurv runs on the CPU only"),
    ("ob.to('cuda')", "has no attribute 'to': fastcurv runs on the CPU only"),
    ("H.cuda()", "has no attribute 'cuda': fastcurv runs on the CPU only"),
    (
        "fc.MLP([4, 3], device='cuda')",
        "MLP has no argument 'device': fastcurv runs on the CPU only",
    ),
    (
        "fc.minimize(ob, theta, device='cuda')",
        "has no argument 'device': fastcurv runs on the CPU only",
    ),
    (
        "fc.minimize(ob, theta, bounds=[0])",
        "has no argument 'bounds': parameters are unconstrained",
    ),
    (
        "fc.minimize(ob, theta, beta1=0.8)",
        r"minimize\(method='auto'\) has no option 'beta1'. Use method='adam'",
    ),
    (
        "fc.minimize(ob, theta, learning_rate=0.1)",
        "option 'learning_rate'. Use method='sgd', or one of 'momentum', .*'adam'",
    ),
    ("fc.minimize(ob, theta, learning_rat=1)", "method='auto'.*Did you mean 'learning_rate'"),
    ("fc.minimize(ob, theta, 'newton', beta1=1)", "method='newton'.* Use method='adam'"),
    ("fc.minimize(ob, theta, goal=1e-3)", "Use 'fun_target'"),
    ("fc.minimize(ob, theta, max_fail=6)", "Use 'patience'"),
    ("fc.minimize(ob, theta, show=1)", "Use 'progress'"),
    ("fc.minimize(ob, theta, decay=1)", "Use l2 of the objective"),
    ("fc.minimize(ob, theta, 'trainlm')", "Use 'levenberg-marquardt'"),
    ("fc.minimize(ob, theta, 'trainbr')", "'levenberg-marquardt', with l2 in the objective"),
    ("fc.MLP([4, 3, 3], 'tansig')", "Use 'tanh'"),
    ("fc.MLP([4, 3, 3], 'logsig')", "Use 'sigmoid'"),
    ("fc.MLP([4, 3, 3], 'purelin')", "Use 'identity'"),
    ("fc.fitnet", r"Use fc.MLPRegressor\(\(10,\)\), or"),
    ("fc.nnet", "Use fc.MLPClassifier or fc.MLPRegressor"),
    ("fc.HessianLinearOperator", r"Use ob.hessian\(theta\)"),
    ("fc.KFACLinearOperator", r"Use ob.ggn\(theta\) .*which is exact"),
    ("fc.save(model, theta, 'net')", r"path must be .*got an MLP.*fc.save\(path, model, theta\)"),
    ("fc.load(model)", "path must be the name of a file.*got an MLP"),
    ("fc.minimize(ob, theta, checkpoint=3)", "checkpoint must be the name of a file.*got an int"),
    (
        "fc.classify(model, ob.X, ob.y)",
        r"Use classify\(ob, theta, ...\). Make ob = fc.Objective\(model, X, y\), theta = ",
    ),
    ("fc.classify(ob)", r"missing .*'theta'. Use classify\(ob, theta, ...\)\.$"),
    ("fc.classify(model, theta)", r"ob must be .*got an MLP.*ob = fc.Objective\(model, X, y\)"),
    (
        "fc.minimize(model, ob.X, ob.y)",
        r"ob must have .*got an MLP without value.*Make ob = fc.Objective\(model, X, y\)",
    ),
    ("fc.minimize(ob, theta, 'adam', 9)", r"Use minimize\(ob, theta0, method, ...\)\.$"),
    (
        "fc.find_critical_point(model, ob.X, ob.y)",
        r"ob must be .*got an MLP.*fc.Objective\(model, X, y\)",
    ),
    ("fc.sample_critical_points(model, ob.X, ob.y)", r"Make ob = fc.Objective\(model, X, y\)"),
    ("fc.escape(model, ob.X, ob.y)", r"ob must be .*got an MLP.*ob = fc.Objective\(model, X, y\)"),
    (
        "fc.eigsh(ob, theta, k=5)",
        r"Use eigsh\(op, k, which, ...\). .* ob.hessian\(theta\) its operator",
    ),
    ("fc.eigvalsh(ob, theta)", r"Use eigvalsh\(op, ...\). .* ob.hessian\(theta\) its operator"),
    ("fc.inertia(ob, theta)", r"Use inertia\(op, ...\). .* ob.hessian\(theta\) its operator"),
    ("fc.spectral_density(ob, theta)", r"op must be .*got an Objective.*op.hessian\(theta\)"),
    ("fc.trace(ob, theta)", r"op must be .*got an Objective.*op.hessian\(theta\)"),
    ("fc.trace(H, theta)", "n_probes must be an int.*got an ndarray"),
    ("fc.eigsh(model)", r"op must be .*got an MLP.*H = ob.hessian\(theta\)"),
    ("ob(theta)", r"'Objective' object is not callable. Use ob.value\(theta\)"),
    ("ob[3:9]", r"Use ob.batch\(rows\)"),
    ("model(ob.X)", r"Use model.predict\(theta, X\)"),
    ("model.predict(ob.X)", r"missing .*'X'. Use MLP.predict\(theta, X, statistics\)"),
    ("H[0, 0]", r"H @ e of a unit vector e, a column, or H.to_dense\(\)"),
    ("list(H)", r"H.to_dense\(\)"),
    ("fc.to_torch(model, ob.X)", r"theta must have shape \(43,\).*got \(30, 4\)"),
    (
        "fc.to_torch(ob, theta)",
        "must be a fastcurv.MLP, got an Objective.* ob.model is its network",
    ),
    (
        "ob.value([part for layer in model.unflatten(theta) for part in layer])",
        r"layers must have 2 entries, one \(W, b\) for each layer, got 4",
    ),
    ("fc.Objective(model, dict(a=1), ob.y)", "X must hold real numbers, got a dict"),
    ("fc.Objective(model, None, ob.y)", "X must hold real numbers, got a NoneType"),
    (
        "fc.classify(fc.MLPClassifier(), theta)",
        "ob must be .*got an MLPClassifier.*A fitted estimator has",
    ),
    ("fc.escape(ob, theta, fc.eigsh(H, 1))", r"one of its vectors: pairs.vectors\[:, i\]"),
    ("fc.classify(ob, theta)['kind']", "Use point.kind and others by name"),
    ("value, error = fc.trace(H, 3)", "Use t.estimate and t.stderr"),
    ("grid, _ = fc.spectral_density(H, 2)", "Use density.grid and density.density"),
    ("fc.LandscapeDisplay(ob, theta)", r"or LandscapeDisplay.from_objective\(ob, theta\)"),
    (
        "fc.MinimumRatioDisplay.from_points(5)",
        "a point must be .*sample_critical_points returns, got an int",
    ),
    (
        "fc.MinimumRatioDisplay.from_points([fc.classify(ob, theta)])",
        "a point must be .*sample_critical_points.*got a CriticalPoint without verdict, loss",
    ),
    ("ob.value((model, theta))", r"layers\[0\] must be a tuple.*got an MLP"),
]


def test_errors_for_foreign_calls_suggest_the_right_name(here):
    for call, words in MISTAKES:
        with pytest.raises((TypeError, ValueError, AttributeError), match=words) as raised:
            exec(call, vars(here).copy())
        assert "\n" not in str(raised.value)


def callers(here):
    """Return a dict from each table of foreign arguments to a list of the functions that use it,
    with their required arguments bound.
    """
    H, at = here.H, (here.ob, here.theta)
    displays = [partial(fc.SpectrumDisplay.from_operator, H)]
    displays += [partial(fc.LandscapeDisplay.from_objective, *at)]
    return {
        "minimize": [partial(fc.minimize, *at)],
        "Objective": [
            partial(kind, here.model, 0, 0) for kind in (fc.Objective, fc.StreamedObjective)
        ],
        "MLP": [partial(fc.MLP, [4, 3])],
        "init": [here.model.init],
        "eigsh": [partial(fc.eigsh, H)],
        "spectral_density": [partial(fc.spectral_density, H)],
        "estimate": [partial(call, H) for call in (fc.trace, fc.diagonal, fc.frobenius_norm)],
        "classify": [partial(fc.classify, *at)],
        "find_critical_point": [partial(fc.find_critical_point, *at)],
        "diagnose": [partial(fc.diagnose, *at)],
        "check_gradient": [partial(fc.check_gradient, *at)],
        "escape": [partial(fc.escape, *at)],
        "newton_step": [partial(fc.newton_step, H, H.gradient)],
        "saddle_free_newton_step": [partial(fc.saddle_free_newton_step, H, H.gradient)],
        "picture": displays,
        "restrict": [H.restrict],
        "laplace": [partial(fc.laplace, *at)],
        "regularization_path": [partial(fc.regularization_path, here.ob, [0.1])],
        "estimator": [fc.MLPClassifier, fc.MLPRegressor],
    }


@pytest.mark.parametrize("where", errors.ARGUMENT_HINTS)
def test_every_foreign_argument_raises_with_a_suggestion(here, where):
    for call in callers(here)[where]:
        own = inspect.signature(call).parameters
        for name, words in errors.ARGUMENT_HINTS[where].items():
            if name not in own:
                with pytest.raises(TypeError) as raised:
                    call(**{name: 1})
                assert str(raised.value).endswith(
                    f" has no argument {name!r}{errors.advice_clause(words)}"
                )


def test_every_foreign_attribute_and_choice_raises_with_a_suggestion(here):
    fit = fc.MLPClassifier((2,), max_iter=2).fit([[0.0], [1.0]], [0, 1])
    line = fc.Objective(fc.MLP([2, 1]), np.eye(8, 2), np.arange(8.0), "mse", l2=0.1)
    things = {
        "operator": here.H, "objective": here.ob, "model": here.model, "look": fit.curvature_,
        "pairs": fc.eigsh(here.H, 1), "estimate": fc.trace(here.H, 3),
        "density": fc.spectral_density(here.H, 2, 5), "estimator": fc.MLPClassifier(),
        "verdict": fc.classify(here.ob, here.theta), "result": fc.escape(here.ob, here.theta),
        "run": fc.minimize(here.ob, here.theta, max_iter=1, verdict=False),
        "posterior": fc.laplace(line, np.zeros(3)),
        "left_out": fc.leave_one_out(line, fc.minimize(line, np.zeros(3), verdict=False).x),
        "path": fc.regularization_path(line, [0.1]),
    }  # fmt: skip
    tables = [(things[kind], names) for kind, names in errors.ATTRIBUTE_HINTS.items()]
    tables.append((fc, errors.FUNCTION_HINTS))
    for thing, names in tables:
        for name in names.keys() - SPECIAL_METHODS.keys():
            with pytest.raises(AttributeError) as raised:
                getattr(thing, name)
            assert str(raised.value).endswith(f"{name!r}{errors.advice_clause(names[name])}")
    for name, words in errors.CHOICE_ALIASES["method"].items():
        if name in METHOD_ALIASES:
            continue
        with pytest.raises(ValueError) as raised:
            fc.minimize(here.ob, here.theta, name)
        assert str(raised.value).startswith("method must be one of sgd, ")
        assert str(raised.value).endswith(f", got {name!r}. Use {words}.")


def test_modules_parameters_and_optimisers_of_torch_raise_with_a_suggestion(here):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    for given in (net, net.parameters(), list(net.parameters()), net.state_dict()):
        with pytest.raises(TypeError, match="one flat vector, got .* fc.from_torch"):
            here.ob.value(given)
    with pytest.raises(TypeError, match="must be a fastcurv.MLP, got .* fc.from_torch"):
        fc.Objective(net, here.ob.X, here.ob.y)
    with pytest.raises(ValueError, match="method must be .*got SGD. Use 'sgd'"):
        fc.minimize(here.ob, here.theta, torch.optim.SGD)
    with pytest.raises(TypeError, match="without .*fc.from_torch"):
        fc.minimize(net, here.theta)


def test_torch_data_checkpoints_and_wrapped_modules_are_converted_or_raise(here):
    """torch's data loaders, bfloat16 tensors, checkpoints and modules without values raise errors
    with advice. Activation modules, wrapped modules and products of torch vectors work.
    """
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    rows = torch.utils.data.TensorDataset(torch.zeros(3, 4), torch.zeros(3))
    for given in (rows, torch.utils.data.DataLoader(rows)):
        with pytest.raises(TypeError, match="X must be arrays.* = .*dataset.tensors.*got a"):
            fc.Objective(here.model, given, here.ob.y)
    with pytest.raises(TypeError, match=r"bfloat16. Use X.float\(\)"):
        fc.Objective(here.model, torch.zeros(3, 4, dtype=torch.bfloat16), here.ob.y)
    with pytest.raises(ValueError, match="Pass its entry 'net'"):
        fc.from_torch({"net": net.state_dict(), "epoch": 3}, activation="tanh")
    for phi in (nn.Tanh(), nn.Tanh, torch.tanh):
        assert fc.from_torch(net.state_dict(), activation=phi)[0].activation == ("tanh",)
    normal = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"batch normalisation \(pass the module itself"):
        fc.from_torch(normal.state_dict(), activation="tanh")
    with pytest.raises(
        ValueError, match="parameters of module must have values, got .* device 'meta'"
    ):
        fc.from_torch(nn.Linear(4, 5, device="meta"))
    model, theta = fc.from_torch(net)
    averaged, _ = fc.from_torch(torch.optim.swa_utils.AveragedModel(net))
    assert averaged == model
    again, same = fc.from_torch(nn.DataParallel(net))
    assert again == model and np.array_equal(theta, same)
    v = torch.from_numpy(theta)
    H = fc.Objective(model, here.ob.X, here.ob.y).hessian(theta)
    assert torch.equal(v @ H, H @ v) and torch.equal(v[None] @ H, (H @ v)[None])
    assert np.array_equal(theta[None] @ H, (H @ theta)[None])


def test_networks_convert_between_precisions(here):
    single = here.model.astype("float32")
    assert single.dtype == np.float32 and single.astype(np.float64) == here.model
    ob = fc.Objective(single, here.ob.X, here.ob.y)
    assert abs(ob.value(here.theta) - here.ob.value(here.theta)) < 1e-5
    normal = fc.MLP([2, 3, 3, 1], ["relu", "tanh"], False, True, "float64", True)
    again = normal.astype("float32").astype("float64")
    assert again == normal


def test_estimators_reject_unknown_arguments_with_a_suggestion():
    pytest.importorskip("sklearn")
    with pytest.raises(TypeError, match="Use 'hidden_layer_sizes'"):
        fc.MLPClassifier(hidden=(3,))
    with pytest.raises(ValueError, match="solver must be .*got 'L-BFGS-B'. Use 'l-bfgs'"):
        fc.MLPRegressor(solver="L-BFGS-B").fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(
        TypeError, match="MLPClassifier has no argument 'alphas'. Did you mean 'alpha'"
    ):
        fc.MLPClassifier(alphas=1)
    with pytest.raises(
        TypeError, match="^MLPRegressor has no argument 'class_weight'. Use sample_weight"
    ):
        fc.MLPRegressor(class_weight=1)
    for lacking in (fc.MLPClassifier(), fc.MLPRegressor(solver="l-bfgs")):
        assert not hasattr(lacking, "partial_fit")
        with pytest.raises(AttributeError, match="Use a mini-batch solver: ") as raised:
            lacking.partial_fit([[0.0]], [0])
        assert all(repr(name) in str(raised.value) for name in STOCHASTIC_METHODS)
    with pytest.raises(AttributeError, match=r"'coefs_'. Use fit\(X, y\) first"):
        print(fc.MLPClassifier().coefs_)


FUNCTIONS = {
    "minimize": fc.minimize,
    "Objective": fc.Objective.__init__,
    "MLP": fc.MLP.__init__,
    "init": fc.MLP.init,
    "eigsh": fc.eigsh,
    "spectral_density": fc.spectral_density,
    "estimate": trace,
    "classify": fc.classify,
    "find_critical_point": fc.find_critical_point,
    "escape": fc.escape,
    "newton_step": fc.newton_step,
    "saddle_free_newton_step": fc.saddle_free_newton_step,
}


@pytest.mark.parametrize(
    "call",
    [
        "fc.minimize(theta, ob)",
        "fc.classify(theta, ob)",
        "fc.escape(theta, ob)",
        "fc.find_critical_point(theta, ob)",
        "fc.LandscapeDisplay.from_objective(theta, ob)",
        "fc.SpectrumDisplay.from_objective(theta, ob)",
        "fc.save('net.safetensors', theta, model)",
        "fc.to_torch(theta, model)",
        "fc.structure.permute_hidden(theta, model, 0, [4, 3, 2, 1, 0])",
        "fc.structure.flip_tanh(theta, model, 0, [1])",
        "fc.structure.rescale_relu(theta, model, 0, [1], 2.0)",
    ],
)
def test_swapped_arguments_raise_with_advice_to_exchange_them(here, call):
    said = "and theta must be in this order, got an ndarray and an (Objective|MLP)"
    with pytest.raises(TypeError, match=f"^(ob|objective|model) {said}. Exchange"):
        eval(call, vars(here).copy())


@pytest.mark.parametrize(
    "call, words",
    [
        ("fc.escape(model, theta)", "ob must be an objective.*got an MLP without value, hessian"),
        (
            "fc.find_critical_point(model, theta)",
            "ob must be .*got an MLP without value, gradient, hess",
        ),
        (
            "fc.sample_critical_points(model)",
            "ob must be .*got an MLP without value, gradient, hess",
        ),
        (
            "fc.LandscapeDisplay.from_objective(model, theta)",
            "objective must be .*got an MLP without value",
        ),
        (
            "fc.SpectrumDisplay.from_objective(model, theta)",
            "objective must be .*got an MLP without hessian",
        ),
        ("fc.LandscapeDisplay.slice(only, theta, directions='gradient')", "without gradient"),
        ("fc.LandscapeDisplay.slice(only, theta, directions='eigenvectors')", "without hessian"),
        (
            "fc.structure.permute_hidden(ob, theta, 0, [0])",
            "model must be .*got an Objective without sizes",
        ),
        ("fc.to_torch(ob, theta)", "model must be a fastcurv.MLP, got an Objective without skips"),
        ("fc.minimize(ob, theta, validation=(X, X))", "must be an obj.*got a tuple without value"),
    ],
)
def test_errors_name_the_methods_that_an_objective_lacks(here, call, words):
    known = vars(here) | {"X": here.ob.X, "only": SimpleNamespace(value=np.sum)}
    with pytest.raises(TypeError, match=words):
        eval(call, known)


def test_dir_lists_the_subpackages_that_the_pages_use():
    """`dir(fastcurv)` lists all public names and subpackages, also those that are imported at their
    first use.
    """
    for name in ("schedules", "scipy", "spectrum", "structure", "testing", "plots", "distributed"):
        assert name in dir(fc)
    assert set(fc._SUBPACKAGES) <= set(dir(fc)) and set(fc.__all__) <= set(dir(fc))


def test_the_error_in_scipys_minimize_suggests_a_dense_matrix(here):
    from scipy.optimize import minimize

    ob, how = here.ob, {"method": "trust-exact", "options": {"maxiter": 2}}
    with pytest.raises(AttributeError, match="Use a dense matrix: hess=lambda t"):
        minimize(ob.value, here.theta, jac=ob.gradient, hess=ob.hessian, **how)
    dense = minimize(
        ob.value, here.theta, jac=ob.gradient, hess=lambda t: ob.hessian(t).to_dense(), **how
    )
    assert dense.fun < ob.value(here.theta)


@pytest.mark.parametrize("where", FUNCTIONS)
def test_foreign_arguments_are_mapped_to_existing_ones(where):
    """No existing argument is in the table of foreign arguments, and each suggestion that is a
    single name is an existing argument.
    """
    parameters = inspect.signature(FUNCTIONS[where]).parameters.values()
    own = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    options = set().union(*(maker.defaults for maker in METHODS.values()))
    wanted = {words for words in errors.ARGUMENT_HINTS[where].values() if words.isidentifier()}
    allowed = own | options if where == "minimize" else own
    assert wanted <= allowed, wanted - allowed
    assert not own & set(errors.ARGUMENT_HINTS[where])


@pytest.mark.parametrize("kind", ["operator", "objective", "model"])
def test_no_existing_attribute_is_listed_as_foreign(here, kind):
    thing = {"operator": here.H, "objective": here.ob, "model": here.model}[kind]
    names = set(errors.ATTRIBUTE_HINTS[kind]) - set(SPECIAL_METHODS)
    assert not names & {name for cls in type(thing).__mro__ for name in vars(cls)}
    assert not names & set(vars(thing))
    assert not set(errors.FUNCTION_HINTS) & {*fc.__all__, *fc._SUBPACKAGES}


def test_foreign_choices_are_mapped_to_existing_ones(here):
    """No existing choice is in the table of foreign choices, and each quoted suggestion is a choice
    that the function accepts.
    """
    known = {
        "method": set(METHODS),
        "loss": set(LOSSES),
        "activation": set(nets.ACTIVATIONS),
        "scheme": {"auto", "he", "xavier", "lecun"},
        "which": {"LA", "SA", "LM", "BE"},
    }
    for kind, names in known.items():
        for spelled, answer in errors.CHOICE_ALIASES[kind].items():
            assert spelled == normalise_name(spelled) and spelled not in names
            if answer.startswith("'"):
                assert answer.split("'")[1] in names, answer


def test_scikit_learns_aliases_give_the_same_results(here):
    found = fc.minimize(here.ob, here.theta, "lbfgs", max_iter=2, verdict=False)
    same = fc.minimize(here.ob, here.theta, "l-bfgs", max_iter=2, verdict=False)
    assert found.method == "l-bfgs" and np.array_equal(found.x, same.x)
    few = fc.trace(here.H, 12, seed=0)
    assert few.value == few.estimate


def test_plots_of_densities_are_registered_with_pyplot(here):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.close("all")
    fc.spectral_density(here.H, 2, 5, seed=0).plot()
    assert len(plt.get_fignums()) == 1
    plt.close("all")


def _by_name(found):
    """Return a list of the parameters of a function or class that have a default."""
    parameters = inspect.signature(found).parameters.values()
    return [p for p in parameters if p.default is not p.empty and p.kind is not p.VAR_POSITIONAL]


def _callables():
    """Yield the names of public functions and classes, and of some methods, that have parameters
    with defaults.
    """
    for name, found in public().items():
        if not name.startswith("show_") and not name.endswith("Warning") and _by_name(found):
            yield name
    yield from ("spectrum.Krylov.eigsh", "spectrum.Krylov.spectral_density")
    yield from ("MLP.init", "LandscapeDisplay.slice")
    yield from (f"{c}.fit" for c in ("MLPClassifier", "MLPRegressor"))


def test_errors_for_unknown_arguments_list_the_existing_ones():
    """An unknown argument raises TypeError that lists the existing ones, before other arguments are
    checked. For a misspelt one, the closest name is suggested.
    """
    for name in _callables():
        found = fc
        for part in name.split("."):
            found = getattr(found, part)
        parameters = inspect.signature(found).parameters.values()
        needed = [None for p in parameters if p.default is p.empty and p.kind in (0, 1)]
        if any(p.kind is p.VAR_KEYWORD for p in parameters) and name == "minimize":
            needed = [SimpleNamespace(n_params=1, value=abs, gradient=abs, hessian=abs), [0.0]]
        with pytest.raises(
            TypeError, match=r"has no (argument|option) 'zzzqx'\. Its (arguments|options) are \w+"
        ):
            found(*needed, zzzqx=1)
        *_, last = (
            (p.name for p in _by_name(found) if len(p.name) > 4) if _by_name(found) else ("",)
        )
        if last and name != "sample_critical_points":
            with pytest.raises(TypeError, match=f"Did you mean '{last}'|Use '?{last}"):
                found(*needed, **{f"{last[:-1]}qq": 1})


def test_verbose_and_progress_suggest_each_other(here):
    for call in (fc.classify, fc.find_critical_point, fc.minimize):
        with pytest.raises(TypeError, match="Use 'progress'"):
            call(here.ob, here.theta, verbose=True)
    for call in (fc.eigsh, fc.trace, fc.diagonal, fc.frobenius_norm, fc.spectral_density):
        with pytest.raises(TypeError, match="Use 'progress'"):
            call(here.H, verbose=True)
    with pytest.raises(TypeError, match="Use 'verbose'"):
        fc.MLPClassifier(progress=True)


@pytest.mark.parametrize("name", sorted(set(METHODS) | {"lbfgs"}))
def test_methods_and_solvers_accept_the_same_names(name, here):
    ran = fc.minimize(here.ob, here.theta, name, max_iter=1, verdict=False)
    assert ran.nit == 1
    X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fc.MLPClassifier((2,), solver=name, max_iter=1, verdict=False).fit(X, y)


@pytest.mark.parametrize(
    "name, door",
    [("net.onnx", "fc.from_onnx"), ("net.h5", "fc.from_keras"), ("net.keras", "fc.from_keras")],
)
def test_files_of_other_libraries_suggest_their_converter(tmp_path, name, door):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(ValueError, match=f"must be a .safetensors file.*Use {door}"):
        fc.load(tmp_path / name)


def test_subclasses_of_other_libraries_classes_suggest_their_converter(here):
    theirs = type("Module", (), {"__module__": "torch.nn.modules.module"})
    own = type("Net", (theirs,), {"__module__": "__main__"})()
    with pytest.raises(TypeError, match="model must be a fastcurv.MLP, got a Net. fc.from_torch"):
        fc.Objective(own, np.ones((2, 4)), [0, 1])
    with pytest.raises(TypeError, match="theta must be one flat vector, got a Net. fc.from_torch"):
        here.ob.hessian(own)


def test_errors_for_class_weight_list_the_allowed_values(here):
    net = fc.MLPClassifier(class_weight="balance")
    with pytest.raises(ValueError, match="must be 'balanced', or weights by class, got 'balance'"):
        net.fit(here.ob.X, np.arange(30) % 3)


def test_unknown_attributes_of_curvature_suggest_a_verdict(here):
    net = fc.MLPClassifier((3,), max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(here.ob.X, np.arange(30) % 3)
    with pytest.raises(AttributeError, match="Use look.reason, .*verdict=True"):
        _ = net.curvature_.sentence


def test_arrays_instead_of_shards_raise():
    """Separate arrays of samples and targets, which would be taken for the shards and the loss of a
    distributed objective, raise TypeError with the right call.
    """
    with pytest.raises(TypeError, match=r"Use Objective\(model, shards, loss, l2, \.\.\.\)\.$"):
        fc.distributed.Objective(fc.MLP([1, 1]), [[1.0]], [1.0], loss="mse")
    with pytest.raises(TypeError, match="Objective has no argument 'weight_decay'. Use 'l2'"):
        fc.distributed.Objective(fc.MLP([1, 1]), [], weight_decay=0.1)


class ArrayContainer:
    """An object that contains an array and supports `__array__`, as a data frame does."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array


def lookups_of_foreign_names(call):
    """Return the names of the functions of `errors` that read tables of foreign names during
    `call()`.
    """
    readers = (
        "converter_key conversion_hint container_error_message suggested_choice advice_clause "
        "raise_if_foreign_argument raise_if_unknown_argument raise_attribute_error"
    )
    codes = {getattr(errors, name).__code__: name for name in readers.split()}
    found = []

    def watch(frame, event, argument):
        if event == "call" and frame.f_code in codes:
            found.append(codes[frame.f_code])

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def test_valid_arrays_cause_no_lookup_of_foreign_names():
    X = np.random.default_rng(0).standard_normal((20, 2))
    model = fc.MLP([2, 3, 1])
    ob, theta = fc.Objective(model, X, X[:, :1], "mse", l2=0.1), model.init(seed=0)
    H = ob.hessian(theta)
    A, n = H.to_dense(), ob.n_params
    forms = [theta, theta.tolist(), tuple(theta), theta.astype("float32"), theta.astype(">f8")]
    forms += [np.ma.array(theta), ArrayContainer(theta), np.ones(n, int), np.ones(2 * n)[::2]]
    for form in (*forms, model.unflatten(theta)):
        calls = [fc.classify, partial(fc.minimize, max_iter=5, verdict=False)]
        for call in calls + [fc.escape, fc.diagnose] * (form is theta):
            call(ob, form)  # imports and caches of the first call do not count
            assert lookups_of_foreign_names(partial(call, ob, form)) == [], (call, type(form))
    for op in (H, A, A.astype("float32"), ArrayContainer(A)):
        for call in (fc.eigsh, fc.eigvalsh, fc.inertia, fc.spectral_density):
            call(op)
            assert lookups_of_foreign_names(partial(call, op)) == [], call
    for form in forms:
        assert lookups_of_foreign_names(lambda form=form: H @ form) == [], type(form)
        assert lookups_of_foreign_names(partial(fc.eigsh, A, 2, v0=form)) == []
        made = partial(fc.Objective, model, ArrayContainer(X), X[:, :1].tolist(), "mse")
        assert lookups_of_foreign_names(made) == []
    with pytest.raises(TypeError, match="theta must be one flat vector"):
        fc.classify(ob, type("Module", (), {"__module__": "torch.nn.modules.module"})())
