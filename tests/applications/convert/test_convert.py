"""Models converted from torch have the outputs and Hessian products of the module up to rounding,
and the error for an unsupported layer names that layer.
"""

import warnings

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound

from ...network.product_cases import double_backward

torch = pytest.importorskip("torch")
nn = torch.nn
RNG = np.random.default_rng(3)
X = RNG.standard_normal((17, 4))


def net(*layers, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(*layers).to(dtype).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5)
    return module


def logits(module, X, dtype=torch.float64):
    with torch.no_grad():
        return module(torch.tensor(X, dtype=dtype)).numpy()


def double_backward_product(module, X, y, v):
    """Return the vector H v, where H is the Hessian of the module's mean squared error with respect
    to its parameters, computed by double backward in torch.
    """
    loss = nn.MSELoss()(module(torch.tensor(X)), torch.tensor(y))
    return double_backward(loss, list(module.parameters()), v)[1]


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "elu": nn.ELU(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_from_torch_gives_equal_outputs_and_products(name):
    phi = ACTIVATIONS[name]
    module = net(
        nn.Flatten(), nn.Linear(4, 6), phi, nn.Dropout(), nn.Linear(6, 5), phi, nn.Linear(5, 2)
    )
    model, theta = fc.from_torch(module)
    assert model == fc.MLP([4, 6, 5, 2], name) and theta.dtype == np.float64
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    assert np.array_equal(theta, flat)
    assert np.allclose(model.predict(theta, X), logits(module, X), rtol=1e-13, atol=1e-14)
    y, v = RNG.standard_normal((17, 2)), RNG.standard_normal(model.n_params)
    H = fc.Objective(model, X, y, "mse").hessian(theta)
    theirs = double_backward_product(module, X, y, v)
    assert np.linalg.norm(H @ v - theirs) <= 4 * rounding_bound(H, v)


def test_from_torch_converts_float32_half_and_single_layers():
    for dtype, ours in ((torch.float32, "float32"), (torch.bfloat16, "float32")):
        module = net(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), dtype=dtype)
        model, theta = fc.from_torch(module)
        assert model.dtype == ours and theta.dtype == ours
        assert np.array_equal(
            model.unflatten(theta)[0][0], module[0].weight.detach().float().numpy()
        )
    model, theta = fc.from_torch(nn.Linear(4, 3, bias=False))
    assert model.sizes == (4, 3) and not model.bias
    nested = net(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU())), nn.Linear(3, 2))
    assert fc.from_torch(nested)[0] == fc.MLP([4, 3, 2], "relu")
    kept = type("Small", (nn.Sequential,), {})(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    assert fc.from_torch(kept)[0] == fc.MLP([4, 3, 2], "tanh", dtype="float32")
    straight, theta = fc.from_torch(net(nn.Linear(4, 3), nn.Identity(), nn.Linear(3, 2)))
    assert straight.activation == ("identity",)
    for last in (nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.Sigmoid()):
        module = net(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), last)
        model, theta = fc.from_torch(module)
        assert np.allclose(model.predict(theta, X), logits(module[:-1], X), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)),
        lambda: (nn.BatchNorm1d(4), nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 2)),
        lambda: (
            (nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(6), nn.ReLU())
            + (nn.Linear(6, 2), nn.BatchNorm1d(2))
        ),
    ],
)
def test_batch_norm_in_eval_mode_is_folded_into_its_layer(layers):
    module = net(*layers())
    with pytest.warns(UserWarning, match=r"folded.*n is \d+, and gradient, Hessian"):
        model, theta = fc.from_torch(module)
    assert not model.batch_norm and model.bias
    assert np.allclose(model.predict(theta, X), logits(module, X), rtol=1e-12, atol=1e-13)


def test_batch_norm_in_training_mode_is_kept():
    module = net(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).train()
    model, theta = fc.from_torch(module)
    assert model.batch_norm
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    assert np.array_equal(theta, flat)
    y, v = RNG.standard_normal((17, 2)), RNG.standard_normal(model.n_params)
    H, theirs = (
        fc.Objective(model, X, y, "mse").hessian(theta),
        double_backward_product(module, X, y, v),
    )
    assert np.linalg.norm(H @ v - theirs) <= 1e-12 * np.linalg.norm(theirs)
    back = fc.to_torch(model, theta)
    assert np.allclose(logits(back, X), logits(module, X), rtol=1e-13, atol=1e-14)


FIRST, LAST = nn.Linear(4, 4), nn.Linear(4, 2)


def test_state_dicts_are_read_in_layer_order():
    module = net(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    model, theta = fc.from_torch(module.state_dict(), activation="tanh")
    assert model == fc.MLP([4, 6, 2], "tanh")
    assert np.allclose(model.predict(theta, X), logits(module, X), rtol=1e-13, atol=1e-14)
    assert fc.from_torch(nn.ModuleDict({"a": nn.Linear(4, 2)}).state_dict())[0].sizes == (4, 2)
    bad = net(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).state_dict()
    for call, words in (
        (lambda: fc.from_torch(module.state_dict()), "activation must be .*got None"),
        (lambda: fc.from_torch(bad, "tanh"), "1.weight"),
        (
            lambda: fc.from_torch({}, "tanh"),
            "must hold weights of linear layers, got a state dict without any",
        ),
        (lambda: fc.from_torch(module, "relu"), "activation must be None or .'tanh'"),
        (
            lambda: fc.from_torch(module.state_dict(), ["tanh", "relu"]),
            "must be one name, .* got 2",
        ),
        (lambda: fc.from_torch(module.state_dict(), "tan"), "'tan'"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="list"):
        fc.from_torch([1, 2])


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"dtype": "float32"}, {"batch_norm": True}]
)
def test_converted_weights_can_be_written_back_to_their_torch_module(options):
    model = fc.MLP([4, 5, 5, 2], ["gelu", "elu"], **options)
    theta = model.init(rng=1)
    module = fc.to_torch(model, theta)
    again, same = fc.from_torch(module)
    assert again == model and np.array_equal(theta, same)
    theirs = logits(module, X, torch.float32 if model.dtype == "float32" else torch.float64)
    rtol = 1e-5 if model.dtype == "float32" else 1e-12
    assert np.allclose(model.predict(theta, X), theirs, rtol=rtol, atol=rtol)
    named = model.named_parts(theta)
    assert list(named) == [name for name, _ in module.named_parameters()]
    assert all(
        np.array_equal(named[name], part.detach()) for name, part in module.named_parameters()
    )
    module[0].weight.data.zero_()
    assert np.array_equal(theta, same), "the module has its own copy"
    with pytest.raises(ValueError, match="residual=False"):
        fc.to_torch(fc.MLP([4, 5, 5, 2], residual=True), theta)


def test_unflatten_splits_eigenvectors_like_parameters():
    model = fc.MLP([4, 5, 2])
    theta = model.init(rng=0)
    ob = fc.Objective(model, X, RNG.integers(2, size=17))
    vectors = fc.eigsh(ob.hessian(theta), 3).vectors
    layers = model.unflatten(vectors)
    assert [(W.shape, b.shape) for W, b in layers] == [((3, 5, 4), (3, 5)), ((3, 2, 5), (3, 2))]
    for j in range(3):
        assert np.array_equal(model.flatten([(W[j], b[j]) for W, b in layers]), vectors[:, j])
    assert all(np.shares_memory(part, vectors) for layer in layers for part in layer)
    tensors = model.unflatten(torch.from_numpy(vectors.copy()))
    assert tensors[0][0].shape == (3, 5, 4) and isinstance(tensors[0][0], torch.Tensor)
    assert isinstance(model.unflatten(torch.from_numpy(theta))[1][1], torch.Tensor)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_from_sklearn_gives_equal_outputs(activation, classes):
    neural = pytest.importorskip("sklearn.neural_network")
    kind = neural.MLPClassifier if classes else neural.MLPRegressor
    y = np.arange(17) % classes if classes else X[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est = kind(
            hidden_layer_sizes=(5, 3), activation=activation, alpha=0.1, max_iter=20, solver="lbfgs"
        ).fit(X, y)
    model, theta = fc.from_sklearn(est)
    out = model.predict(theta, X)
    if classes == 3:
        e = np.exp(out - out.max(axis=1, keepdims=True))
        assert np.allclose(e / e.sum(axis=1, keepdims=True), est.predict_proba(X), rtol=1e-12)
    elif classes == 2:
        assert np.allclose(1 / (1 + np.exp(-out[:, 0])), est.predict_proba(X)[:, 1], rtol=1e-12)
    else:
        assert np.allclose(out[:, 0], est.predict(X), rtol=1e-12)
    loss = {0: "mse", 2: "binary_cross_entropy", 3: "cross_entropy"}[classes]
    l2 = 0.1 / 17 * (1 if classes else 2)
    ob = fc.Objective(model, X, y, loss, l2=l2, l2_biases=False)
    assert ob.value(theta) / (1 if classes else 2) == pytest.approx(est.loss_, rel=1e-10)


def test_from_sklearn_rejects_unfitted_and_unsupported_estimators():
    neural = pytest.importorskip("sklearn.neural_network")
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import make_pipeline

    net = neural.MLPRegressor()
    with pytest.raises(ValueError, match="fitted"):
        fc.from_sklearn(net)
    for est, words in (
        (LinearRegression(), "got a LinearRegression.$"),
        ("est", "got a str.$"),
        (make_pipeline(net), r"got a Pipeline. Use from_sklearn\(pipe\[-1\]\) with X = pipe"),
        (TransformedTargetRegressor(net), r"Use from_sklearn\(est.regressor_\)"),
        (GridSearchCV(net, {"alpha": [1]}), r"GridSearchCV. Use from_sklearn\(search.best_est"),
        (RandomizedSearchCV(net, {"alpha": [1]}), r"Use from_sklearn\(search.best_estimator_\)"),
    ):
        with pytest.raises(TypeError, match="must be an MLPClassifier or .*" + words):
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


TENSORS = {
    "sparse": torch.eye(3).to_sparse(),
    "sparse ": torch.eye(3).to_sparse_csr(),
    "nested": torch.nested.nested_tensor([torch.ones(3), torch.ones(3)]),
    "quantised": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_not_dense_are_rejected_with_a_cure(kind):
    state = {"0.weight": TENSORS[kind], "0.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=f"dense tensors, got a {kind.strip()} one. Use tensor"):
        fc.from_torch(state)


@pytest.mark.parametrize("n_frozen", [0, 1, 4])
def test_frozen_parameters_are_reported_unless_all_are(n_frozen):
    module = net(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    for parameter in [*module.parameters()][:n_frozen]:
        parameter.requires_grad_(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fc.from_torch(module)
    said = [str(one.message)[:58] for one in caught]
    assert said == ["12 parameters of the module are frozen (requires_grad=False)"[:58]] * (
        n_frozen == 1
    )


def test_differences_between_parameters_of_module_and_model_are_reported():
    norm = nn.BatchNorm1d(4)
    twice = nn.Sequential(nn.Linear(4, 4), norm, nn.ReLU(), nn.Linear(4, 4), norm, nn.ReLU())
    with pytest.raises(ValueError, match="shares the weight of module.1. .BatchNorm1d"):
        fc.from_torch(twice.append(nn.Linear(4, 2)))
    for linear, norm in (
        (nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5)),
        (nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False)),
    ):
        module = nn.Sequential(linear, norm, nn.Tanh(), nn.Linear(5, 2))
        with pytest.warns(UserWarning, match=r"the module has \d+ parameters.*n is 47.*model's"):
            fc.from_torch(module)


class TypicalNet(nn.Module):
    """A module with a typical user-written forward method: functional activations, skip
    connections, dropout and a final log-softmax.
    """

    def __init__(self, residual=True, d=4):
        super().__init__()
        self.out = nn.Linear(5, 2)
        self.fc1, self.fc2 = nn.Linear(d, 5), nn.Linear(5, 5)
        self.body = nn.Sequential(nn.Linear(5, 5), nn.GELU())
        self.residual = residual

    def forward(self, x, scale=None):
        x = x.flatten(1)
        x = nn.functional.relu(self.fc1(x))
        if self.residual:
            x = x + self.body(x)
            x = torch.tanh(self.fc2(x)) + x
        x = nn.functional.dropout(x, 0.2, self.training)
        return nn.functional.log_softmax(self.out(x), dim=1)


def test_a_user_written_forward_is_read_from_its_graph():
    """A residual network with its own forward method is converted from its graph, with the module's
    outputs and Hessian products. In training mode, the module is rejected because of its dropout.
    """
    module = TypicalNet().double().eval()
    with pytest.warns(UserWarning, match="lists its parameters in a different order"):
        model, theta = fc.from_torch(module)
    assert model == fc.MLP([4, 5, 5, 5, 2], ["relu", "gelu", "tanh"], residual=True)
    with torch.no_grad():
        theirs = module(torch.tensor(X))
    ours = torch.tensor(model.predict(theta, X)).log_softmax(1)
    assert float((ours - theirs).abs().max()) <= 1e-13
    parts = {
        "body": ["0.weight", "0.bias"],
        "fc2": ["weight", "bias"],
        "fc1": ["weight", "bias"],
        "out": ["weight", "bias"],
    }
    order = [f"{p}.{q}" for p in ("fc1", "body", "fc2", "out") for q in parts[p]]
    own = dict(module.named_parameters())
    y, v = RNG.integers(2, size=17), RNG.standard_normal(model.n_params)
    loss = nn.functional.nll_loss(module(torch.tensor(X)), torch.tensor(y))
    _, theirs = double_backward(loss, [own[name] for name in order], v)
    H = fc.Objective(model, X, y).hessian(theta)
    assert np.linalg.norm(H @ v - theirs) <= 4 * rounding_bound(H, v)
    plain = TypicalNet(residual=False).double().eval()
    with pytest.warns(UserWarning, match="has 97 parameters, unlike the model: n is 37"):
        assert fc.from_torch(nn.Sequential(plain))[0] == fc.MLP([4, 5, 2], "relu")
    with pytest.raises(ValueError, match="dropout.*training mode"):
        fc.from_torch(plain.train())


def wired(forward, n_outputs=2):
    """Return a module with the layers of `TypicalNet` and another forward method."""
    module = type("Own", (TypicalNet,), {"forward": forward})(False)
    module.out = nn.Linear(5, n_outputs)
    return module.double().eval()


def changed(change, *layers):
    """Return a Sequential after the call ``change(module)``."""
    module = net(*layers or (nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    change(module)
    return module


def tie(part):
    return lambda module: setattr(module[2], part, getattr(module[0], part))


F, OUT = nn.functional, (4, 2)
Linear, Sequential = nn.Linear, nn.Sequential
Plus = type("Plus", (Linear,), {"__call__": lambda s, x: Linear.__call__(s, x) + 1})
Two = type("Linear", (Linear,), {"forward": lambda s, x: 2 / x})
# Modules that no `MLP` equals, and what the error names.
REJECTED = [
    (lambda: Sequential(FIRST, nn.Conv1d(1, 1, 1)), r"module\[1\] \(Conv1d\)"),
    (lambda: Sequential(FIRST, nn.LeakyReLU(0.2), LAST), "negative_slope=0.2"),
    (lambda: Sequential(FIRST, nn.GELU("tanh"), LAST), "approximate='tanh'"),
    (lambda: Sequential(FIRST, nn.Dropout(0.5), LAST), r"Dropout.*training mode.*eval\(\)"),
    (lambda: Sequential(nn.ReLU(), FIRST), "ReLU.*follow a linear"),
    (lambda: Sequential(FIRST, nn.ReLU(), nn.Tanh(), LAST), "Tanh"),
    (lambda: Sequential(FIRST, nn.ReLU()), "ReLU.*last|last.*ReLU"),
    (lambda: Sequential(FIRST, nn.Softmax(1), LAST), "after.*Softmax"),
    (lambda: Sequential(FIRST, nn.Softmax(0)), "dim=0, which mixes rows"),
    (lambda: Sequential(FIRST, nn.LogSoftmax(0)), "dim=0, which mixes rows"),
    (lambda: Sequential(FIRST, nn.Tanh(), FIRST), r"shares the weight of module\[0\]"),
    (lambda: Sequential(FIRST, nn.Tanh(), Linear(*OUT, bias=False)), "must have a bias, or none"),
    (lambda: Sequential(FIRST, Linear(3, 2)), r"module\[1\].*must take 4.*got 3"),
    (lambda: Sequential(), "must have at least one linear layer, got 0"),
    (lambda: Sequential(FIRST, nn.BatchNorm1d(4)), "batch normalisation"),
    (lambda: type("Own", (nn.Module,), {})(), "Own.*must have a forward.*state_dict"),
    (lambda: changed(tie("bias")), "shares the bias of"),
    (lambda: changed(lambda m: m[0].register_forward_hook(print)), r"module\[0\].*forward hooks"),
    (
        lambda: changed(lambda m: m.register_forward_pre_hook(print)),
        "Sequential. must have no forw",
    ),
    (lambda: changed(lambda m: setattr(m[0], "forward", abs)), "forward is the instance's own"),
    (lambda: net(Two(4, 4)), "call of a function truediv, has no"),
    (lambda: Sequential(Linear(3, 2), nn.Flatten(0), nn.Softmax(-1)), "start_dim=0 and end_dim"),
    (lambda: Sequential(nn.Flatten(1, 2), Linear(3, 2)), "start_dim=1 and end_dim=2"),
    (lambda: Sequential(Plus(3, 2)), r"module\[0\] \(Plus\), a class with a __call__ of its own"),
    (lambda: nn.utils.parametrizations.weight_norm(Linear(3, 2)), "computed from other parameters"),
    (lambda: Sequential(Linear(3, 2), Linear(2, 1).double()), "float32, .* got torch.float64"),
    (lambda: Sequential(Linear(3, 1), nn.Hardtanh(0, 6)), "Hardtanh"),
    (lambda: Sequential(Linear(3, 2), nn.Unflatten(1, (2, 1))), "Unflatten"),
    (lambda: torch.ao.nn.quantized.Linear(3, 2), "quantized"),
    (lambda: Sequential(Linear(3, 2), Linear(2, 1)).to(torch.complex64), "complex"),
    (lambda: wired(lambda s, x: s.out(x) if x.sum() > 0 else x), "without a graph.*state_dict"),
    (lambda: wired(lambda s, x: 2 / s.fc1(x)), "call of a function truediv"),
    (lambda: wired(lambda s, x: s.fc1(x)[:, 0]), "call of a function getitem"),
    (lambda: wired(lambda s, x: s.fc1(x / 2)), "call of a function truediv"),
    (lambda: wired(lambda s, x: s.out(s.fc1(x).clamp(min=0))), "call of a method clamp"),
    (lambda: wired(lambda s, x: s.fc1(x) + torch.relu(s.fc1(x))), "read by 'fc1', 'fc1_1', in Own"),
    (lambda: wired(lambda s, x: s.fc2(s.fc2(s.fc1(x)))), "module.fc2.*which shares the weight"),
    (lambda: wired(lambda s, x: (s.fc1(x), x)[:1]), "returns more than one tensor"),
    (lambda: wired(lambda s, x: s.out(F.leaky_relu(s.fc1(x), 0.2))), "negative_slope=0.2"),
    (lambda: wired(lambda s, x: s.out(F.gelu(s.fc1(x), approximate="tanh"))), "approximate='tanh'"),
    (lambda: wired(lambda s, x: s.out(F.dropout(s.fc1(x)))), "training=self.training"),
    (lambda: wired(lambda s, x: s.fc1(x).softmax(0)), "dim=0, which mixes rows"),
    (lambda: wired(lambda s, x: s.fc1(x).view(-1)), "call of a method view"),
    (lambda: wired(lambda s, x: torch.flatten(s.fc1(x))), "end_dim=-1, which joins rows"),
    (lambda: wired(lambda s, x: s.out(s.fc1(x)).squeeze(0), 1), "call of a method squeeze"),
    (lambda: wired(lambda s, x: s.fc2(x + s.fc1(x))), "module .add. of 4 numbers to 5"),
    (lambda: wired(lambda s, x: s.out(s.fc1(x) + torch.relu(s.fc2(s.fc1(x))))), "'fc1', 'fc1_1'"),
    (lambda: wired(lambda s, x: s.fc1(-x if type(x) is torch.Tensor else x)), "differ from its"),
    (lambda: wired(lambda s, x: F.linear(s.fc1(x), s.out.weight.t())), "that is computed"),
    (lambda: wired(lambda s, x: s.fc1(x, x)), "call of a module fc1"),
]


@pytest.mark.parametrize("module, words", REJECTED)
@pytest.mark.filterwarnings("ignore:the module has")
def test_errors_name_what_no_model_computes(module, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        fc.from_torch(module())
    assert "\n" not in str(caught.value)


def test_global_hooks_and_tied_state_dicts_are_rejected():
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, out: 2 * out)
    with pytest.raises(ValueError, match="forward hooks"):
        fc.from_torch(Linear(3, 2))
    hook.remove()
    with pytest.raises(ValueError, match="'2.weight' in the state dict, which shares"):
        fc.from_torch(changed(tie("weight")).state_dict(), "relu")
    hooked = net(Linear(4, 5), nn.Tanh(), Linear(5, 2))
    hooked[0].register_forward_hook(print).remove()
    fc.from_torch(hooked)


def test_compiled_scripts_are_rejected_and_averages_are_read():
    module = net(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripts = torch.jit.script(module), torch.jit.trace(module, torch.from_numpy(X))
    for script in scripts:
        with pytest.raises(ValueError, match="must be a module before torch.jit"):
            fc.from_torch(script)
    average = torch.optim.swa_utils.AveragedModel(module)
    assert np.array_equal(fc.from_torch(average)[1], fc.from_torch(module)[1])


def test_a_softmax_before_cross_entropy_warns():
    for end, told in ((nn.Softmax(1), 1), (nn.Sigmoid(), 1), (nn.LogSoftmax(1), 0)):
        net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), end)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            model, theta = fc.from_torch(net)
        words = f"module[3] ({type(end).__name__}) at the end is left out"
        assert [str(one.message)[: len(words)] for one in found] == [words] * told
        rows, y = torch.randn(9, 4), torch.arange(9) % 3
        theirs = float(nn.CrossEntropyLoss()(net(rows), y))
        ours = fc.Objective(model, rows.numpy(), y.numpy(), "cross_entropy").value(theta)
        assert (abs(ours - theirs) > 1e-3) == bool(told)
