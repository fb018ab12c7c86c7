"""Random networks of other libraries are converted with the outputs of their source and, if theta
is in the order of the source's parameters, with its Hessian, or rejected with a short error.

Each generator draws a network, often with a feature that no `MLP` has, and returns a tuple
(convert, outputs, hessian, d). `convert()` returns (model, theta), `outputs(X)` evaluates the
source at samples X (N, d), and `hessian(X, v, end, Y)` returns its Hessian product, or `hessian` is
None. Tolerances are 1e-8 in float64 and 1e-3 in float32, and a wrong function differs by a
hundredth or more.
"""

import os
import warnings

import numpy as np
import pytest

import fastcurv as fc

from ...network.product_cases import double_backward

LONG = int(os.environ.get("FASTCURV_AUDIT", "20000"))  # networks of the nightly audit
SHARE = {"torch_stack": 0.35, "torch_class": 0.25, "onnx_graph": 0.4}
ENDS = {
    "plain": lambda f: f,
    "softmax": lambda f: (
        np.exp(f - f.max(1, keepdims=True))
        / np.exp(f - f.max(1, keepdims=True)).sum(1, keepdims=True)
    ),
    "log_softmax": lambda f: (
        f - f.max(1, keepdims=True) - np.log(np.exp(f - f.max(1, keepdims=True)).sum(1))[:, None]
    ),
    "sigmoid": lambda f: 1 / (1 + np.exp(-f)),
}


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


# --- torch


def unsupported_layer(rng, width, layers):
    """Return a random torch layer that no `MLP` has, or that differs from a supported layer only by
    a setting. `layers` are the previous ones, of which one may be reused.
    """
    nn = pytest.importorskip("torch").nn
    return pick(
        rng,
        lambda: nn.Flatten(int(rng.integers(-2, 3)), int(rng.integers(-2, 3))),
        lambda: nn.Unflatten(1, (1, width)),
        lambda: nn.Softmax(pick(rng, 0, 1, -1, -2)),
        lambda: nn.LeakyReLU(pick(rng, 0.2, 0.01)),
        lambda: nn.ELU(pick(rng, 0.5, 1.0)),
        lambda: nn.GELU(pick(rng, "tanh", "none")),
        lambda: nn.Softplus(pick(rng, 2.0, 1.0), pick(rng, 0.1, 20.0)),
        lambda: type("Plus", (nn.Linear,), {"__call__": lambda s, x: s.forward(x) + 1})(
            width, width
        ),
        lambda: type("Twice", (nn.Linear,), {"forward": lambda s, x: 2 * x})(width, width),
        lambda: type("Kept", (nn.Linear,), {})(width, width),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(width, width)),
        lambda: nn.Sequential(nn.Linear(width, width), nn.Tanh()),
        lambda: nn.Identity(),
        lambda: nn.BatchNorm1d(width, affine=bool(rng.integers(2))).eval(),
        lambda: nn.BatchNorm1d(width, eps=pick(rng, 1e-5, 1e-2)),
        lambda: layers[int(rng.integers(len(layers)))] if layers else nn.Identity(),
    )()


def torch_stack(rng):
    """Return the audit's (convert, outputs, hessian, d) for a random Sequential of layers that are
    supported, nearly supported or modified after construction.
    """
    torch = pytest.importorskip("torch")
    nn = torch.nn
    width = d = int(rng.integers(1, 5))
    odd = rng.random() < 0.5
    layers = []

    if rng.random() < 0.3:
        layers.append(nn.Flatten())
    for _ in range(int(rng.integers(0, 4))):
        above = int(rng.integers(1, 5))
        layers.append(nn.Linear(width, above, bias=bool(odd and rng.random() < 0.9 or not odd)))
        width = above
        phi = pick(rng, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.GELU)
        phi = phi if rng.random() < 0.9 else nn.ELU
        if odd and rng.random() < 0.3:
            layers.append(unsupported_layer(rng, width, layers))
        layers.append(phi(True) if phi is nn.ReLU and rng.random() < 0.5 else phi())
        if odd and rng.random() < 0.3:
            layers.append(unsupported_layer(rng, width, layers))
    layers.append(nn.Linear(width, width))
    if rng.random() < 0.5:
        layers.append(pick(rng, nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid(), nn.Flatten(0)))
    if odd and rng.random() < 0.2:
        layers.append(unsupported_layer(rng, width, layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(*(x.double() if rng.random() < 0.98 else x for x in layers))
    linears = [m for m in module.modules() if type(m) is nn.Linear]
    change = rng.random() if odd else 1
    if change < 0.03:
        linears[-1].weight = linears[0].weight
    elif change < 0.06:
        linears[-1].register_forward_hook(lambda m, given, out: out + 1)
    elif change < 0.09:
        linears[-1].forward = lambda x: x
    elif change < 0.12:
        linears[0].bias = None
    return torch_calls(module, d, rng)


def forward_steps():
    """Return two lists of functions (module, x) -> x, of which random ones make up a forward
    method: activations, and operations that are mostly unsupported.
    """
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    phis = [
        lambda s, x: F.relu(x),
        lambda s, x: torch.relu(x),
        lambda s, x: x.relu(),
        lambda s, x: x.relu_(),
        lambda s, x: F.relu(x, inplace=True),
        lambda s, x: torch.tanh(x),
        lambda s, x: x.sigmoid(),
        lambda s, x: F.gelu(x),
        lambda s, x: F.silu(x),
        lambda s, x: F.softplus(x),
        lambda s, x: F.leaky_relu(x),
        lambda s, x: F.elu(x),
    ]
    odds = [
        lambda s, x: F.gelu(x, approximate="tanh"),
        lambda s, x: F.leaky_relu(x, 0.3),
        lambda s, x: F.elu(x, alpha=0.5),
        lambda s, x: F.softplus(x, 2.0),
        lambda s, x: F.dropout(x, 0.5, s.training),
        lambda s, x: F.dropout(x),
        lambda s, x: x + x,
        lambda s, x: 2 * x,
        lambda s, x: x + s.shift,
        lambda s, x: x * torch.sigmoid(x),
        lambda s, x: x.view(x.size(0), -1),
        lambda s, x: x.softmax(0),
        lambda s, x: x if x.sum() > 0 else -x,
        lambda s, x: -x if isinstance(x, torch.Tensor) else x,
        lambda s, x: x + torch.relu(x),
        lambda s, x: torch.relu_(x) + x,
        lambda s, x: (torch.relu_(x), x)[1],
        lambda s, x: x.squeeze(-1),
        lambda s, x: x.float().double(),
        lambda s, x: s.parts[0](x),
        lambda s, x: F.linear(x, s.parts[0].weight),
    ]
    return phis, odds


def module_of_steps():
    """Return a torch module whose forward method applies the functions in its list `plan`, which is
    empty at first.
    """
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.plan = nn.ModuleList(), []
            self.register_buffer("shift", torch.ones(()))

        def forward(self, x, scale=None, twice: bool = False):
            for step in self.plan:
                x = step(self, x)
            return x if scale is None and not twice else 2 * x

    return Net()


def torch_class(rng):
    """Return the audit's (convert, outputs, hessian, d) for a module whose forward method consists
    of random steps.
    """
    torch = pytest.importorskip("torch")
    nn, F = torch.nn, torch.nn.functional
    d = width = int(rng.integers(1, 5))
    odd = rng.random() < 0.5

    net = module_of_steps()

    def fc_(k, m, bias=True):
        part = nn.Linear(k, m, bias=bias)
        net.parts.append(part)
        at = len(net.parts) - 1
        return lambda s, x: s.parts[at](x)

    def block(k):
        part = nn.Sequential(nn.Linear(k, k), pick(rng, nn.ReLU, nn.Tanh, nn.GELU)())
        net.parts.append(part)
        at = len(net.parts) - 1
        return pick(
            rng,
            lambda s, x: x + s.parts[at](x),
            lambda s, x: torch.add(s.parts[at](x), x),
            lambda s, x: s.parts[at](x).add_(x),
        )

    phis, odds = forward_steps()
    plan = net.plan
    if rng.random() < 0.5:
        flat = lambda s, x: torch.flatten(x, 1), lambda s, x: x.flatten(start_dim=1)
        plan.append(pick(rng, *flat))
    residual = rng.random() < 0.3
    for _ in range(int(rng.integers(0, 4))):
        above = width if residual else int(rng.integers(1, 5))
        if residual and rng.random() < 0.9:
            plan.append(block(width))
        else:
            plan += [fc_(width, above), pick(rng, *phis)]
        width = above
        if odd and rng.random() < 0.3:
            plan.append(pick(rng, *odds))
    out = int(rng.integers(1, 4))
    plan.append(fc_(width, out))
    ends = [lambda s, x: F.log_softmax(x, dim=1), lambda s, x: torch.softmax(x, -1)]
    ends += [lambda s, x: torch.sigmoid(x), lambda s, x: x.squeeze(-1), lambda s, x: x.flatten()]
    if rng.random() < 0.5:
        plan.append(pick(rng, *ends))
    if odd and rng.random() < 0.2:
        plan.append(pick(rng, *odds))
    width = out
    module = net.double()
    module = module.eval() if rng.random() < 0.7 else module
    if rng.random() < 0.2:
        module = nn.Sequential(module, *([nn.Softmax(1)] if rng.random() < 0.3 else []))
    return torch_calls(module, d, rng)


def torch_calls(module, d, rng):
    import torch

    torch.manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p))
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm1d):
            m.running_mean.uniform_()
            m.running_var.uniform_(0.5, 1.5)

    def outputs(X):
        kept = [b.clone() for b in module.buffers()]
        dtypes = {p.dtype for p in module.parameters()}
        if dtypes == {torch.float32}:
            outputs.tolerance = 1e-3
            X = X.astype(np.float32)
        with torch.no_grad():
            found = module(torch.from_numpy(np.array(X))).numpy()
            for b, k in zip(module.buffers(), kept):
                b.copy_(k)
        return found

    def hessian(X, v, end, Y):
        """Return H v of the loss that belongs to the final activation `end` with targets Y, by
        double backward with respect to ``module.parameters()``.
        """
        f = module(torch.from_numpy(X)).reshape(Y.shape)
        y = torch.from_numpy(Y)
        loss = {
            "plain": lambda: ((f - y) ** 2).mean(),
            "softmax": lambda: -(y * f.log()).sum(1).mean(),
            "log_softmax": lambda: -(y * f).sum(1).mean(),
            "sigmoid": lambda: -(y * f.log() + (1 - y) * (1 - f).log()).mean(),
        }[end]()
        return double_backward(loss, list(module.parameters()), v)[1]

    return (lambda: fc.from_torch(module)), outputs, hessian, d


# --- ONNX


class RandomGraph:
    """A random ONNX graph under construction, whose nodes have random attributes, in a random opset
    from 7 on. `at` is the name of the current output and `width` its number of columns.
    """

    def __init__(self, rng):
        onnx = pytest.importorskip("onnx")
        from onnx import TensorProto, helper, numpy_helper

        self.TensorProto, self.helper, self.numpy_helper = TensorProto, helper, numpy_helper
        self.rng, self.opset = rng, int(rng.integers(7, onnx.defs.onnx_opset_version() + 1))
        self.d = self.width = int(rng.integers(1, 5))
        self.odd = rng.random() < 0.5
        self.kind = np.float64 if rng.random() < 0.7 else np.float32
        self.elem = TensorProto.DOUBLE if self.kind is np.float64 else TensorProto.FLOAT
        self.nodes, self.arrays, self.at = [], {}, "x"

    def pick(self, *choices):
        return pick(self.rng, *choices)

    def name(self, stem):
        return f"{stem}{len(self.nodes)}_{len(self.arrays)}"

    def constant(self, value, dtype=None):
        key, value = self.name("c"), np.asarray(value, dtype or self.kind)
        if self.rng.random() < 0.1:
            self.nodes.append(
                self.helper.make_node(
                    "Constant", [], [key], value=self.numpy_helper.from_array(value)
                )
            )
        else:
            self.arrays[key] = value
        if self.rng.random() < 0.05 and value.ndim:
            same = key + "i"
            self.nodes.append(self.helper.make_node("Identity", [key], [same]))
            return same
        return key

    def add(self, op, inputs, **attributes):
        self.at = self.name(op.lower())
        self.nodes.append(self.helper.make_node(op, inputs, [self.at], **attributes))
        return self.at

    def shape(self, *dims):
        return self.constant(dims, np.int64)

    def linear(self, above):
        W = self.rng.standard_normal((self.width, above))
        b = self.rng.standard_normal(
            self.pick((above,), (1, above), (), (1,)) if self.odd else (above,)
        )
        if self.rng.random() < 0.5:
            transB, at_, key = int(self.rng.integers(2)), self.at, None
            key = self.constant(W.T if transB else W)
            more = {"transB": transB} if transB or self.rng.random() < 0.5 else {}
            if self.odd:
                more["alpha"] = self.pick(1.0, 0.5, 2.0)
                more["beta"] = self.pick(1.0, 0.5, -1.0)
                if self.rng.random() < 0.05:
                    more["transA"] = 1
            rest = [self.constant(b)] if self.opset < 11 or self.rng.random() < 0.9 else []
            self.add("Gemm", [at_, key, *rest], **more)
        else:
            self.add("MatMul", [self.at, self.constant(W)])
            pair = [self.at, self.constant(b)]
            self.add("Add", pair if self.rng.random() < 0.5 else pair[::-1])
        self.width = above

    def phi(self):
        before = self.at
        which = self.rng.integers(9)
        if which == 0:
            s = self.add("Sigmoid", [before])
            self.add("Mul", [before, s] if self.rng.random() < 0.5 else [s, before])
        elif which == 1:
            root = self.pick(np.sqrt(2), np.sqrt(2), 1.0, 1.414) if self.odd else np.sqrt(2)
            e = (
                self.add("Erf", [self.add("Div", [before, self.constant(root)])])
                if self.opset >= 9
                else before
            )
            p = self.add("Add", [e, self.constant(1.0)])
            q = self.add("Mul", [before, p])
            self.add("Mul", [q, self.constant(0.5)])
        elif which == 2:
            self.add("LeakyRelu", [before], **({"alpha": self.pick(0.01, 0.2)} if self.odd else {}))
        elif which == 3:
            self.add("Elu", [before], **({"alpha": self.pick(1.0, 0.2)} if self.odd else {}))
        elif which == 4 and self.opset >= 20:
            self.add(
                "Gelu", [before], **({"approximate": self.pick("none", "tanh")} if self.odd else {})
            )
        else:
            self.add(self.pick("Relu", "Tanh", "Sigmoid", "Softplus"), [before])

    def add_unsupported(self):
        before, k = self.at, self.width
        vector = self.rng.uniform(0.5, 2, self.pick((k,), (1, k), (), (1, 1), (6, 1), (1, 1, k)))
        which = self.rng.integers(19)
        if which < 9:
            self.add_neutral_node(which)
        elif which == 9:
            pair = [before, self.constant(vector)]
            op = self.pick("Add", "Sub", "Mul", "Div")
            self.add(op, pair if self.rng.random() < 0.6 else pair[::-1])
        elif which == 10:
            self.add(self.pick("Add", "Mul"), [before, before])
        elif which == 11:
            self.add("Concat", [before, before], axis=self.pick(0, 1))
        elif which == 12:
            self.add("Sum", [before, self.constant(np.ones(k))])
        elif which == 13:
            axes = {"axes": [self.pick(0, 1)]} if self.opset < 13 else {}
            self.add(
                "Squeeze",
                [before, self.shape(self.pick(0, 1))] if self.opset >= 13 else [before],
                **axes,
            )
        elif which == 14:  # a skip connection
            self.linear(k)
            self.phi()
            self.add(
                self.pick("Add", "Sum"),
                [before, self.at] if self.rng.random() < 0.5 else [self.at, before],
            )
        elif which == 15:
            self.add("Add", [before, self.constant(self.rng.integers(-3, 3, k), np.int64)])
        elif which == 16:
            self.add("Neg", [before])
        elif which == 17:
            pair = [before, self.constant(self.pick(1, 0, 0, 0) * vector)]
            self.add("Max", pair if self.rng.random() < 0.6 else pair[::-1])
        else:
            self.add("Add", [before, self.add("Tanh", [before])])

    def add_neutral_node(self, which):
        """Append a node of the kind `which`, 0 to 8, that leaves its input unchanged for some
        values of its attributes. The attributes are random.
        """
        before, k = self.at, self.width
        if which == 0:
            self.add("Flatten", [before], **self.pick({}, {"axis": 0}, {"axis": 1}, {"axis": -1}))
        elif which == 1:
            to = self.pick((-1, k), (0, -1), (-1, 2 * k), (6, -1), (-1,), (1, -1), (k, -1), (0, k))
            to = (-1, 1) if self.rng.random() < 0.1 else to
            zero = {"allowzero": 1} if self.opset >= 14 and self.rng.random() < 0.1 else {}
            self.add("Reshape", [before, self.shape(*to)], **zero)
        elif which == 2:
            self.add("Identity", [before])
        elif which == 3:
            to = self.pick(self.elem, self.elem, self.TensorProto.FLOAT, self.TensorProto.INT32)
            self.add("Cast", [self.add("Cast", [before], to=to)], to=self.elem)
        elif which == 4:
            axis = self.pick({}, {"axis": 0}, {"axis": 1}, {"axis": -1})
            self.add(self.pick("Softmax", "LogSoftmax"), [before], **axis)
        elif which == 5:
            self.add("Transpose", [before], **self.pick({}, {"perm": [0, 1]}))
        elif which == 6:
            more = (
                [self.constant(0.5), self.constant(bool(self.rng.integers(2)), bool)]
                if self.opset >= 12
                else []
            )
            self.add("Dropout", [before, *more])
        elif which == 7:
            parts = [self.constant(self.rng.uniform(0.5, 2, k)) for _ in range(4)]
            self.add("BatchNormalization", [before, *parts], epsilon=self.pick(1e-5, 1e-2))
        elif which == 8:
            low = [self.constant(self.pick(0.0, 0.0, -0.5))] if self.opset >= 11 else []
            low += [self.constant(0.5)] if low and self.rng.random() < 0.2 else []
            self.add("Clip", [before, *low], **({} if low else {"min": self.pick(0.0, 0.0, 0.1)}))


def onnx_graph(rng):
    """Return the audit's (convert, outputs, None, d) for a random ONNX model of linear layers,
    activations and possibly unsupported nodes.
    """
    g = RandomGraph(rng)
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    d, odd, kind, elem = g.d, g.odd, g.kind, g.elem
    skips = rng.random() < 0.2
    if odd and rng.random() < 0.3:
        g.add_unsupported()
    for _ in range(int(rng.integers(0, 4))):
        before, k = g.at, g.width
        g.linear(g.width if skips else int(rng.integers(1, 5)))
        if odd and rng.random() < 0.3:
            g.add_unsupported()
        g.phi()
        if skips and g.width == k:
            g.add("Add", [before, g.at] if rng.random() < 0.5 else [g.at, before])
        if odd and rng.random() < 0.3:
            g.add_unsupported()
    g.linear(int(rng.integers(1, 4)))
    if rng.random() < 0.4:
        g.add(pick(rng, "Softmax", "LogSoftmax", "Sigmoid"), [g.at])
    if odd and rng.random() < 0.3:
        g.add_unsupported()
    dims = pick(rng, [None, d], [None, d], ["N", None], [6, d], [None, d, 1], [None, 1, d], [d])
    dims = dims if odd else [None, d]
    graph = helper.make_graph(
        g.nodes,
        "audit",
        [helper.make_tensor_value_info("x", elem, dims)],
        [helper.make_tensor_value_info(g.at, elem, None)],
        [numpy_helper.from_array(a, key) for key, a in g.arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)])

    def outputs(X):
        rows = X.astype(kind)
        if len(dims) == 3:
            rows = rows.reshape(len(X), *[1 if n == 1 else -1 for n in dims[1:]])
        rows = rows[0] if len(dims) == 1 else rows
        if g.opset < 14 and any(node.op_type == "BatchNormalization" for node in g.nodes):
            runtime = pytest.importorskip(
                "onnxruntime"
            )  # the reference evaluator always normalises by the batch's statistics
            proto.ir_version = min(proto.ir_version, 10)
            session = runtime.InferenceSession(proto.SerializeToString())
            return session.run(None, {"x": rows})[0]
        return np.asarray(ReferenceEvaluator(proto).run(None, {"x": rows})[0])

    outputs.tolerance = 2e-6 if kind is np.float64 else 1e-3  # erf and attributes have float32
    outputs.proto, outputs.kind = proto, kind
    return (lambda: fc.from_onnx(proto)), outputs, None, d


# --- the audit

MAKERS = {f.__name__: f for f in (torch_stack, torch_class, onnx_graph)}


def audit_one(maker, seed):
    """Convert one random network, and return "read" if the conversion is correct, "refused" if the
    network was rejected, or "none" if the network could not be evaluated. Raise AssertionError if
    the conversion is wrong.
    """
    rng = np.random.default_rng([seed, *map(ord, maker)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert, outputs, hessian, d = MAKERS[maker](rng)
    X = rng.standard_normal((6, d))
    told = []
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model, theta = convert()
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 700, str(error)
        return "refused"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = outputs(X)
        except Exception as error:
            if "NOT_IMPLEMENTED" in str(error):  # a kernel that onnxruntime lacks
                return "none"
            raise AssertionError(f"read, and the source fails: {error}") from None
        ours = model.predict(theta, X.astype(model.dtype))
        shapes = [ours.shape, ours.shape[:1]] if ours.shape[1] == 1 else [ours.shape]
        assert theirs.shape in shapes, f"{ours.shape} for {theirs.shape}"
        theirs = theirs.reshape(ours.shape).astype(np.float64)
        gaps = {}
        for end, turned in ENDS.items():
            f = turned(ours.astype(np.float64))
            with np.errstate(all="ignore"):
                gaps[end] = np.abs(f - theirs).max() / (1 + np.abs(f).max())
        end = min(gaps, key=gaps.get)
        assert gaps[end] <= getattr(outputs, "tolerance", 1e-8), (gaps, model)
        if (
            hessian is None
            or model.dtype == np.float32
            or any("n is" in str(w.message) for w in told)
            or seed % 4
        ):
            return "read"
        Y = rng.random(ours.shape)
        Y /= Y.sum(1, keepdims=True)
        loss = {"plain": "mse", "sigmoid": "binary_cross_entropy"}.get(end, "cross_entropy")
        y = Y if loss != "binary_cross_entropy" else np.round(Y)
        H, v = fc.Objective(model, X, y, loss).hessian(theta), rng.standard_normal(model.n_params)
        try:
            products = hessian(X, v, end, y)
        except RuntimeError as error:  # torch cannot differentiate some in-place operations
            assert "inplace" in str(error)
            return "read"
        gap = np.linalg.norm(H @ v - products)
        assert gap <= 1e-6 * (1 + np.linalg.norm(H @ v)), f"Hessian off by {gap:.1g}, {model}"
    return "read"


@pytest.mark.parametrize("maker", MAKERS)
def test_random_foreign_networks_are_read_right_or_rejected(maker):
    found = [audit_one(maker, seed) for seed in range(150 if maker == "onnx_graph" else 60)]
    assert "read" in found


@pytest.mark.nightly
@pytest.mark.parametrize("maker", MAKERS)
def test_many_random_foreign_networks_are_read_right_or_rejected(maker):
    """Each random network of other libraries is converted with correct outputs and Hessian products
    or rejected with a short error, and both occur. `FASTCURV_AUDIT` is the total number of
    networks.
    """
    wrong, counts = [], {"read": 0, "refused": 0, "none": 0}
    for seed in range(1000, 1000 + int(SHARE[maker] * LONG)):
        try:
            counts[audit_one(maker, seed)] += 1
        except Exception as error:
            wrong.append((seed, f"{type(error).__name__}: {error}"))
    assert not wrong and min(counts["read"], counts["refused"]) > 0, (counts, wrong[:20])
