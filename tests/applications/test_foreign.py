"""Errors for names of other libraries suggest the name used here, in one sentence."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastcurv as fc
from fastcurv.optimize.minimize import METHODS

from .. import nets


@pytest.fixture(scope="module")
def here():
    """Return a namespace with an objective, its model, theta and Hessian under the names that the
    tested calls use.
    """
    p = nets.draw(0, [4, 5, 3], loss="cross_entropy", N=30)
    only = SimpleNamespace(value=np.sum)
    known = {
        "only": only,
        "model": p.model,
        "theta": p.theta,
        "ob": p.ob,
        "H": p.ob.hessian(p.theta),
    }
    return SimpleNamespace(fc=fc, np=np, **known)


MISTAKES = [
    ("fc.minimize(ob, theta, maxiter=3)", "has no argument 'maxiter'. Did you mean 'max_iter'"),
    ("fc.minimize(ob, theta, lr=3)", "has no argument 'lr'. Its arguments are .*, gradient_tol"),
    ("fc.minimize(ob, theta, 'BFGS')", "must be one of .*l-bfgs.*got 'BFGS'"),
    ("fc.Objective(model, 0, 0, type('MSELoss', (), {})())", "must be one of .*mse.*MSELoss"),
    ("fc.MLP([4, 5, 3], activation='ReLU')", "must be one of .*relu.*got 'ReLU'"),
    (
        "fc.spectral_density(H, n_probes=2).plot('log')",
        "ax must be a matplotlib Axes, got a str",
    ),
    ("fc.from_torch('net.pt')", "module must be .*got a str.*torch.load"),
    (
        "fc.Objective(model, np.ones((2, 4)), ['a', 'b'])",
        "y must hold .*got strings such as 'a'.*numpy.unique",
    ),
    ("fc.eigsh(ob)", "op must be .*got an Objective.*op.hessian"),
    ("fc.escape(H, theta)", "must be the objective itself"),
    ("ob.value(dict(a=1).keys())", "theta"),
    ("np.asarray(H)", r"is an operator, not an array. Use H.to_dense\(\)"),
    ("fc.Objective(model, H, 0)", "X must hold real numbers, got a Curvature.*is an operator"),
    ("fc.SpectrumDisplay.from_operator(H, colour='red')", "Did you mean 'color'"),
    ("fc.Objective(model, [ob.X])", "all rows of X .N, d., got None.* a loader"),
    ("fc.Objective(model, ob.X, ob.X[:, 0])", "Use loss='mse'"),
    ("fc.SpectrumDisplay(H)", "SpectrumDisplay.from_operator takes the operator"),
    ("fc.classify(ob, fc.minimize(ob, theta, max_iter=1))", "real numbers, .*Use theta.x"),
    (
        "fc.save('net.pt', model, theta)",
        "path must end in .safetensors, got .pt.$",
    ),
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
    ("fc.save(model, theta, 'net')", r"path must be .*got an MLP.*fc.save\(path, model, theta\)"),
    ("fc.minimize(ob, theta, checkpoint=3)", "checkpoint must be the name of a file.*got an int"),
    ("fc.classify(model, theta)", r"ob must be .*got an MLP.*ob = fc.Objective\(model, X, y\)"),
    (
        "fc.to_torch(ob, theta)",
        "must be a fastcurv.MLP, got an Objective.* ob.model is its network",
    ),
    (
        "ob.value([part for layer in model.unflatten(theta) for part in layer])",
        r"layers must have 2 entries, one \(W, b\) for each layer, got 4",
    ),
    (
        "fc.classify(fc.MLPClassifier(), theta)",
        "ob must be .*got an MLPClassifier.*A fitted estimator has",
    ),
    ("ob.value((model, theta))", r"layers\[0\] must be a tuple.*got an MLP"),
    ("fc.escape(model, theta)", "ob must be an objective.*got an MLP without value, hessian"),
    ("fc.find_critical_point(model, theta)", "ob must be .*got an MLP without value, gradient, h"),
    ("fc.sample_critical_points(model)", "ob must be .*got an MLP without value, gradient, hess"),
    ("fc.LandscapeDisplay.from_objective(model, theta)", "objective must be .*MLP without value"),
    ("fc.LandscapeDisplay.slice(only, theta, directions='gradient')", "without gradient"),
    ("fc.LandscapeDisplay.slice(only, theta, directions='eigenvectors')", "without hessian"),
    ("fc.structure.permute_hidden(ob, theta, 0, [0])", "must be .*an Objective without sizes"),
    ("fc.optimize.EarlyStopping((ob.X, ob.X))", "must be an obj.*a tuple without value"),
]


def test_errors_for_foreign_calls_suggest_the_right_name(here):
    for call, words in MISTAKES:
        with pytest.raises((TypeError, ValueError, AttributeError), match=words) as raised:
            exec(call, vars(here).copy())
        assert "\n" not in str(raised.value)


def test_modules_parameters_and_optimisers_of_torch_raise_with_a_suggestion(here):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    for given in (net, net.parameters(), net.state_dict()):
        with pytest.raises(TypeError, match="theta must hold real numbers, got "):
            here.ob.value(given)
    with pytest.raises(TypeError, match="must be a fastcurv.MLP, got .* fc.from_torch"):
        fc.Objective(net, here.ob.X, here.ob.y)
    with pytest.raises(TypeError, match="method must be one of sgd, .*got a type"):
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
        with pytest.raises(TypeError, match="X must hold real numbers, got a.*fc.from_torch"):
            fc.Objective(here.model, given, here.ob.y)
    with pytest.raises(TypeError, match="X must hold real numbers.*BFloat16"):
        fc.Objective(here.model, torch.zeros(3, 4, dtype=torch.bfloat16), here.ob.y)
    with pytest.raises(ValueError, match="Pass its entry 'net'"):
        fc.from_torch({"net": net.state_dict(), "epoch": 3}, activation="tanh")
    for phi in (nn.Tanh(), nn.Tanh, torch.tanh):
        with pytest.raises(TypeError, match="activation must be a name"):
            fc.from_torch(net.state_dict(), activation=phi)
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


def test_conversions_aliases_and_listed_names(here):
    normal = fc.MLP([2, 3, 3, 1], ["relu", "tanh"], False, True, "float64", True)
    single = normal.astype("float32")
    assert single.dtype == np.float32 and single.astype("float64") == normal
    few = fc.trace(here.H, 12, rng=0)
    assert few.value == few.estimate
    assert {*fc._SUBPACKAGES, *fc.__all__} <= set(dir(fc))


@pytest.mark.parametrize("name", sorted(set(METHODS) | {"lbfgs"}))
def test_methods_and_solvers_accept_the_same_names(name, here):
    ran = fc.minimize(here.ob, here.theta, name, max_iter=1, verdict=False)
    assert ran.nit == 1 and ran.method != "lbfgs"
    X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fc.MLPClassifier((2,), solver=name, max_iter=1, verdict=False).fit(X, y)


def test_subclasses_of_other_libraries_classes_suggest_their_converter(here):
    theirs = type("Module", (), {"__module__": "torch.nn.modules.module"})
    own = type("Net", (theirs,), {"__module__": "__main__"})()
    with pytest.raises(TypeError, match="model must be a fastcurv.MLP, got a Net. fc.from_torch"):
        fc.Objective(own, np.ones((2, 4)), [0, 1])
    with pytest.raises(TypeError, match="theta must hold real numbers, got a Net. fc"):
        here.ob.hessian(own)
