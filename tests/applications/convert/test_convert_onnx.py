"""Conversion of ONNX models that are written by torch and skl2onnx or built by hand."""

import itertools
import sys
import tracemalloc
import warnings
from importlib.util import find_spec

import numpy as np
import pytest

import fastcurv as fc

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(4)
X = RNG.standard_normal((9, 4))


def graph_of(nodes, arrays, shape, kind=TensorProto.FLOAT):
    """Return an ONNX model with the input x of a given shape and the output y. `nodes` are tuples
    (op, inputs, outputs, attributes), and `arrays` are the constants by name.
    """
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **a) for op, i, o, a in nodes],
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def model_of(nodes, arrays):
    return graph_of(nodes, arrays, [None, 4], TensorProto.DOUBLE)


W1, b1, W2, b2 = (RNG.standard_normal(s) for s in ((6, 4), 6, (6, 2), 2))
ARRAYS = {"W1": W1, "b1": b1, "W2": W2, "b2": b2, "rt2": np.sqrt(2.0), "one": 1.0, "half": 0.5}
ARRAYS["twenty"] = 20.0
FIRST = ("Gemm", ["x", "W1", "b1"], ["z"], {"transB": 1})
LAST = [("MatMul", ["a", "W2"], ["m"], {}), ("Add", ["b2", "m"], ["y"], {})]
HIDDEN = {
    "relu": [("Relu", ["z"], ["a"], {})],
    "leaky_relu": [("LeakyRelu", ["z"], ["a"], {})],
    "tanh": [("Identity", ["z"], ["i"], {}), ("Tanh", ["i"], ["a"], {})],
    "sigmoid": [("Sigmoid", ["z"], ["a"], {})],
    "elu": [("Elu", ["z"], ["a"], {})],
    "silu": [("Sigmoid", ["z"], ["s"], {}), ("Mul", ["z", "s"], ["a"], {})],
    "softplus": [
        ("Softplus", ["z"], ["s"], {}),
        ("Greater", ["z", "twenty"], ["g"], {}),
        ("Where", ["g", "z", "s"], ["a"], {}),
    ],
    "gelu": [
        ("Div", ["z", "rt2"], ["d"], {}),
        ("Erf", ["d"], ["e"], {}),
        ("Add", ["e", "one"], ["p"], {}),
        ("Mul", ["z", "p"], ["q"], {}),
        ("Mul", ["q", "half"], ["a"], {}),
    ],
    "gelu, half first": [
        ("Mul", ["half", "z"], ["h"], {}),
        ("Div", ["z", "rt2"], ["d"], {}),
        ("Erf", ["d"], ["e"], {}),
        ("Add", ["e", "one"], ["p"], {}),
        ("Mul", ["h", "p"], ["a"], {}),
    ],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_activations_of_onnx_are_read(name):
    proto = model_of([FIRST, *HIDDEN[name], *LAST], ARRAYS)
    model, theta = fc.from_onnx(proto)
    assert model.activation == (name.split(",")[0],) and model.sizes == (4, 6, 2)
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    # the evaluator's erf has float32 accuracy, as have attributes such as LeakyRelu's 0.01
    tol = 1e-6 if name.startswith(("gelu", "leaky")) else 1e-12
    assert np.allclose(model.predict(theta, X), theirs, rtol=tol, atol=tol)
    assert np.array_equal(fc.from_onnx(proto.SerializeToString())[1], theta)


@pytest.mark.parametrize("name", ["silu", "softplus", "gelu", "gelu, half first"])
def test_activations_whose_parts_have_other_uses_are_rejected(name):
    for _, _, (part,), _ in HIDDEN[name][:-1]:
        nodes = [FIRST, *HIDDEN[name], ("Mul", ["a", part], ["b"], {})]
        nodes += [("MatMul", ["b", "W2"], ["y"], {})]
        with pytest.raises(ValueError, match="a fork at 'z', read by|of two tensors"):
            fc.from_onnx(model_of(nodes, ARRAYS))


def test_arithmetic_around_layers_is_folded(tmp_path):
    arrays = {**ARRAYS, "s": RNG.uniform(0.5, 2, 4), "t": RNG.standard_normal(6)}
    nodes = [
        ("Sub", ["x", "s"], ["x1"], {}),
        ("Div", ["x1", "s"], ["x2"], {}),
        ("Transpose", ["W1"], ["K1"], {"perm": [1, 0]}),
        ("MatMul", ["x2", "K1"], ["z1"], {}),
        ("Mul", ["z1", "t"], ["z2"], {}),
        ("Tanh", ["z2"], ["a1"], {}),
        ("BatchNormalization", ["a1", "b1", "t", "t", "v"], ["a"], {"epsilon": 1e-3}),
        *LAST[:-1],
        ("Sub", ["b2", "m"], ["y"], {}),
    ]
    arrays["v"] = RNG.uniform(1, 2, 6)
    proto = model_of(nodes, arrays)
    onnx.save(proto, tmp_path / "net.onnx")
    model, theta = fc.from_onnx(tmp_path / "net.onnx")
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    assert np.allclose(model.predict(theta, X), theirs, rtol=1e-11, atol=1e-12)


SOFTPLUS = HIDDEN["softplus"]
# a softplus with threshold 1, where torch has 20
AT_1 = [SOFTPLUS[0], ("Greater", ["z", "one"], ["g"], {}), SOFTPLUS[2]]


TANH = ("Tanh", ["q"], ["a"], {})
ENDS = [("Tanh", ["z"], ["a"], {}), LAST[0], ("Add", ["b2", "m"], ["q"], {})]


COLUMN = {"column": b1[:, None], "yes": True, "fours": [-1, 4], "columns": [6, -1], **ARRAYS}
THEN = [TANH, *LAST]
# Nodes that compute what no `MLP` does, and a part of the error.
REJECTED = [
    ([("Conv", ["x", "W1"], ["y"], {})], r"Conv \(y\).*Gemm"),
    ([FIRST, ("Sin", ["z"], ["a"], {}), *LAST], "Sin"),
    ([FIRST, ("LeakyRelu", ["z"], ["a"], {"alpha": 0.3}), *LAST], "LeakyRelu.*alpha=0.3"),
    ([FIRST, ("Elu", ["z"], ["a"], {"alpha": 0.3}), *LAST], "Elu.*alpha=0.3"),
    ([FIRST, ("Add", ["z", "z"], ["y"], {})], "Add"),
    ([FIRST, ("Tanh", ["z"], ["t"], {}), ("Add", ["z", "t"], ["y"], {})], "fork at 'z'"),
    ([("MatMul", ["W1", "x"], ["y"], {})], "MatMul"),
    ([FIRST, ("Tanh", ["z"], ["y"], {})], "linear layer last"),
    ([FIRST, ("Softmax", ["z"], ["a"], {}), *LAST], "MatMul.*after"),
    ([("Gemm", ["x", "W1"], ["z"], {"transA": 1}), ("Tanh", ["z"], ["y"], {})], "Gemm"),
    ([("Div", ["one", "x"], ["y"], {})], "Div.*by a tensor"),
    ([FIRST, ("BatchNormalization", ["z", *4 * ["b1"]], ["y"], {"training_mode": 1})], "training"),
    ([FIRST, *AT_1, *LAST], "fork at 'z'"),
    ([("Identity", ["x"], ["x"], {})], "without a cycle"),
    ([("Constant", [], ["c"], {}), FIRST, ("Add", ["z", "c"], ["y"], {})], "Add"),
    ([FIRST, ("Cast", ["z"], ["q"], {"to": TensorProto.INT64}), *THEN], "Cast .q."),
    ([FIRST, ("Add", ["z", "column"], ["q"], {}), *THEN], "which differs between rows"),
    ([FIRST, ("Mul", ["z", "column"], ["q"], {}), *THEN], "which differs between rows"),
    ([("Gemm", ["x", "W1", "column"], ["q"], {"transB": 1}), *THEN], "differs between rows"),
    ([FIRST, ("Dropout", ["z", "half", "yes"], ["q"], {}), *THEN], "while training"),
    ([FIRST, *ENDS, ("Softmax", ["q"], ["y"], {"axis": 0})], "Softmax .y. along axis 0"),
    ([FIRST, *ENDS, ("LogSoftmax", ["q"], ["y"], {"axis": 0})], "along axis 0"),
    ([FIRST, *ENDS, ("Flatten", ["q"], ["y"], {"axis": 0})], "along axis 0"),
    ([FIRST, *ENDS, ("Reshape", ["q", "fours"], ["y"], {})], "Reshape"),
    ([FIRST, ("Reshape", ["z", "columns"], ["q"], {}), *THEN], "Reshape"),
    ([FIRST, ("Relu", ["z"], ["a"], {"domain": "own"}), *LAST], "of the domain 'own'"),
    ([FIRST, ("Div", ["rt2", "z"], ["d"], {}), *HIDDEN["gelu"][1:], *LAST], "fork at 'z'"),
    ([("Tanh", ["x"], ["y"], {}), ("Gemm", ["y", "W1", "b1"], ["z"], {"transB": 1})], "Tanh"),
]


@pytest.mark.parametrize("nodes, words", REJECTED)
def test_errors_name_nodes_that_no_model_computes(nodes, words):
    with pytest.raises(ValueError, match=words):
        fc.from_onnx(model_of(nodes, COLUMN))


def test_constants_casts_and_unused_nodes_are_read_right():
    """With a constant cast to integers, a Gemm without its third input and an unused node, the
    outputs agree with ONNX's own evaluator. An output that is not the last layer's and an old opset
    are rejected.
    """
    nodes = [
        ("Cast", ["W2"], ["Wi"], {"to": TensorProto.INT64}),
        ("Cast", ["Wi"], ["Wd"], {"to": TensorProto.DOUBLE}),
        ("Gemm", ["x", "W1", ""], ["z"], {"transB": 1}),
        ("Tanh", ["z"], ["a"], {}),
        ("MatMul", ["a", "Wd"], ["y"], {}),
        ("Relu", ["y"], ["dead"], {}),
    ]
    proto = model_of(nodes, {**ARRAYS, "W2": 3 * W2})
    model, theta = fc.from_onnx(proto)
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    assert np.allclose(model.predict(theta, X), theirs, rtol=1e-12, atol=1e-13)
    early = model_of([("Gemm", ["x", "W1"], ["z"], {"transB": 1})], ARRAYS)
    early.graph.output[0].name = "W1"
    with pytest.raises(ValueError, match="output of its last layer, got W1"):
        fc.from_onnx(early)
    early.opset_import[0].version = 6
    with pytest.raises(ValueError, match="of opset 7 or later, got 6"):
        fc.from_onnx(early)


def test_constant_nodes_and_scaled_gemm_are_read():
    """A model with Constant nodes that hold a tensor or a number, and a Gemm with a factor and
    without a bias, has the outputs of its formula in NumPy.
    """
    tensor = numpy_helper.from_array(b1, "c")
    nodes = [
        ("Constant", [], ["c"], {"value": tensor}),
        ("Constant", [], ["two"], {"value_float": 2.0}),
        ("Gemm", ["x", "W1"], ["m"], {"transB": 1, "alpha": 0.5}),
        ("Add", ["m", "c"], ["z"], {}),
        ("Tanh", ["z"], ["a"], {}),
        ("MatMul", ["a", "W2"], ["p"], {}),
        ("Mul", ["p", "two"], ["y"], {}),
    ]
    model, theta = fc.from_onnx(model_of(nodes, ARRAYS))
    X = np.random.default_rng(1).standard_normal((5, 4))
    assert np.allclose(
        model.predict(theta, X), 2 * np.tanh(0.5 * X @ W1.T + b1) @ W2, rtol=1e-12, atol=1e-13
    )


def test_files_that_are_not_onnx_models_are_rejected(tmp_path):
    (tmp_path / "none.onnx").write_bytes(b"\xff" * 50)
    for source in (b"\xff" * 50, tmp_path / "none.onnx", tmp_path / "missing.onnx", b""):
        with pytest.raises(ValueError):
            fc.from_onnx(source)
    with pytest.raises(TypeError, match="path, bytes"):
        fc.from_onnx(3)


def test_damaged_models_are_read_or_rejected():
    """Each of 600 models with randomly changed or removed bytes is converted, or rejected with
    ValueError in one short line.
    """
    import random

    dice, refused = random.Random(0), 0
    contents = [
        model_of([FIRST, *HIDDEN[name], *LAST], ARRAYS).SerializeToString() for name in HIDDEN
    ]
    for i in range(600):
        content = bytearray(contents[i % len(contents)])
        for _ in range(1 + dice.randrange(4)):
            at = dice.randrange(len(content))
            if dice.random() < 0.3:
                del content[at : at + dice.randrange(1, 9)]
            else:
                content[at] = dice.randrange(256)
        try:
            fc.from_onnx(bytes(content))
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            refused += 1
    assert refused > 100


def test_models_exported_by_torch_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    stack = [nn.Flatten(), nn.Linear(4, 5), nn.GELU(), nn.BatchNorm1d(5), nn.Linear(5, 6)]
    stack += [nn.SiLU(), nn.Dropout(), nn.Linear(6, 6), nn.LeakyReLU(), nn.Linear(6, 4), nn.ELU()]
    stack += [nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 3), nn.Softmax(-1)]
    module = nn.Sequential(*stack).eval()
    module[3].running_mean.uniform_()
    ours, theta = fc.from_torch(module)
    for dynamo in (False, True) if find_spec("onnxscript") else (False,):
        path = tmp_path / f"{dynamo}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.randn(3, 4),), str(path), dynamo=dynamo)
        model, same = fc.from_onnx(path)
        assert model == ours and model.dtype == np.float32
        assert np.allclose(same, theta, rtol=1e-6, atol=1e-7)  # the order of folding differs


# nodes that join, cut, reorder or add rows of an (N, 2) array, with their attributes
ROW_CHANGES = [
    ("Reshape", ["to 1"], {}),
    ("Reshape", ["to row"], {}),
    ("Reshape", ["to all"], {}),
    ("Reshape", ["to 4"], {}),
    ("Reshape", ["to 3 axes"], {}),
    ("Flatten", [], {"axis": 0}),
    ("Flatten", [], {"axis": 2}),
    ("Squeeze", [], {}),
    ("Squeeze", ["0"], {}),
    ("Unsqueeze", ["1"], {}),
    ("Transpose", [], {}),
    ("Gather", ["order"], {"axis": 0}),
    ("Gather", ["order"], {"axis": 1}),
    ("Slice", ["0", "1"], {}),
    ("Expand", ["to 3 axes"], {}),
    ("Tile", ["twos"], {}),
    ("Concat", ["m"], {"axis": 0}),
    ("Max", ["flat zero"], {}),
    ("Max", ["tall zero"], {}),
    ("Mul", ["deep one"], {}),
    ("ReduceSum", [], {"keepdims": 1}),
    ("Shape", [], {}),
]


def test_nodes_that_change_rows_are_rejected():
    arrays = {"to 1": [-1, 1], "to row": [1, -1], "to all": [-1], "to 4": [-1, 4], "0": [0]}
    arrays |= {"to 3 axes": [-1, 2, 1], "1": [1], "order": [1, 0], "twos": [2, 1], **ARRAYS}
    arrays |= {"flat zero": np.zeros((1, 1, 1)), "tall zero": np.zeros((9, 1))}
    arrays |= {"deep one": np.ones((1, 1, 2)), "K": np.ones((2, 2)), "K1": np.ones((1, 2))}

    def graphs(op, more, attributes):
        first = [FIRST, *ENDS]  # q has two columns
        yield [*first, (op, ["q", *more], ["y"], attributes)]
        for end in ("Softmax", "Sigmoid"):
            after = (op, ["p", *["p" if x == "m" else x for x in more]], ["y"], attributes)
            yield [*first, (end, ["q"], ["p"], {}), after]
        for K in ("K", "K1"):
            last = ("Gemm", ["r", K, "b2"], ["y"], {})
            yield [*first, (op, ["q", *more], ["r"], attributes), last]

    for nodes in list(graphs("Identity", [], {}))[:-1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fc.from_onnx(model_of(nodes, arrays))
    for change in ROW_CHANGES:
        for nodes in graphs(*change):
            with pytest.raises(
                ValueError, match="Reshape|takes 1 numbers|no counterpart"
            ) as caught:
                fc.from_onnx(model_of(nodes, arrays))
            assert "\n" not in str(caught.value), (change, nodes)


@pytest.mark.parametrize(
    "nodes, fits",
    [
        ([("Clip", ["z", "zero"], ["a"], {})], True),
        ([("Clip", ["z", "zero", "much"], ["a"], {})], True),
        ([("Clip", ["z", "", "one"], ["a"], {})], False),
        ([("Clip", ["z", "zero", "one"], ["a"], {})], False),
        ([("Clip", ["z", "half"], ["a"], {})], False),
        ([("Clip", ["z"], ["a"], {})], False),
        ([("Identity", ["half"], ["h"], {}), ("Clip", ["z", "h"], ["a"], {})], False),
        ([("Max", ["z", "zero"], ["a"], {})], True),
        ([("Max", ["zeros", "z"], ["a"], {})], True),
        ([("Max", ["z", "half"], ["a"], {})], False),
        ([("Max", ["z", "zero", "half"], ["a"], {})], False),
        ([("Max", ["z"], ["a"], {})], False),
        ([("Min", ["z", "zero"], ["a"], {})], False),
        ([("Greater", ["z", "zero"], ["g"], {}), ("Where", ["g", "z", "zero"], ["a"], {})], True),
        ([("Less", ["z", "zero"], ["g"], {}), ("Where", ["g", "zero", "z"], ["a"], {})], True),
        ([("Greater", ["z", "zero"], ["g"], {}), ("Where", ["g", "zero", "z"], ["a"], {})], False),
    ],
)
def test_every_form_of_relu_is_recognised_in_onnx(nodes, fits):
    arrays = {**ARRAYS, "zero": 0.0, "zeros": np.zeros(6), "much": np.inf}
    proto = model_of([FIRST, *nodes, *LAST], arrays)
    if not fits:
        with pytest.raises(ValueError, match="has no counterpart in fastcurv"):
            fc.from_onnx(proto)
        return
    model, theta = fc.from_onnx(proto)
    assert model.activation == ("relu",)
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    assert np.allclose(model.predict(theta, X), theirs, rtol=1e-12, atol=1e-13)


def test_clip_of_old_opsets_is_read():
    for limits, fits in (({"min": 0.0}, True), ({"min": 0.0, "max": 6.0}, False), ({}, False)):
        proto = model_of([FIRST, ("Clip", ["z"], ["a"], limits), *LAST], ARRAYS)
        proto.opset_import[0].version = 9
        if fits:
            assert fc.from_onnx(proto)[0].activation == ("relu",)
            continue
        with pytest.raises(ValueError, match="Clip .a. at other bounds than 0"):
            fc.from_onnx(proto)


def test_omitted_softmax_warns_once_unless_labels_follow():
    for kind, warned in (("Softmax", 1), ("Sigmoid", 1), ("LogSoftmax", 0), ("Identity", 0)):
        nodes = [FIRST, *ENDS, (kind, ["q"], ["y"], {})]
        for labels in (False, True) if "Softmax" in kind else (False,):
            proto = model_of(nodes + [("ArgMax", ["y"], ["l"], {"axis": 1})] * labels, ARRAYS)
            if labels:
                kind_of_l = helper.make_tensor_value_info("l", TensorProto.INT64, None)
                proto.graph.output.append(kind_of_l)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                fc.from_onnx(proto)
            assert len(told) == (0 if labels else warned), (kind, labels)
            assert all(one.filename == __file__ for one in told)


def test_a_reshape_of_several_outputs_to_a_column_is_rejected_with_advice():
    """The Reshape to (-1, 1) with which skl2onnx ends every regressor is rejected if there are
    several outputs, and the error suggests `from_sklearn`.
    """
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPRegressor

    est = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.fit(X, X[:, :2])
    with pytest.raises(ValueError, match=r"Reshape .* of rows of 2 numbers .*from_sklearn"):
        fc.from_onnx(skl2onnx.to_onnx(est, X[:1].astype(np.float32)))


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_models_exported_by_skl2onnx_are_read(classes):
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = RNG.standard_normal((60, 4)).astype(np.float32)
    y = np.arange(60) % classes if classes else data[:, 0]
    kind = MLPClassifier if classes else MLPRegressor
    for activation in ("relu", "tanh", "logistic"):
        est = kind(hidden_layer_sizes=(5, 3), activation=activation, max_iter=5)
        pipe = make_pipeline(StandardScaler(), est)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe.fit(data, y)
        plain, theta = fc.from_sklearn(est)
        model, read = fc.from_onnx(skl2onnx.to_onnx(est, data[:1]))
        assert model.sizes == plain.sizes and model.activation == plain.activation
        assert np.allclose(read, theta, rtol=1e-6, atol=1e-7)
        model, read = fc.from_onnx(skl2onnx.to_onnx(pipe, data[:1]))
        expected = plain.predict(theta, pipe[0].transform(data))
        assert np.allclose(model.predict(read, data), expected, rtol=1e-3, atol=1e-4)


def test_a_reshape_to_the_models_fixed_number_of_rows_is_read():
    """A Reshape to (9, -1), as torch exports `x.view(9, -1)`, is converted if the input has nine
    rows, and rejected if the number of rows is not fixed.
    """
    nodes = [FIRST, ("Reshape", ["z", "nine"], ["q"], {}), TANH, *LAST]
    proto = model_of(nodes, {"nine": [9, -1], **ARRAYS})
    with pytest.raises(ValueError, match="Reshape"):
        fc.from_onnx(proto)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 9
    model, theta = fc.from_onnx(proto)
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    assert np.allclose(model.predict(theta, X), theirs, rtol=1e-12, atol=1e-13)


W = np.arange(8, dtype="f4").reshape(4, 2)
Y = ("MatMul", ["r", "W"], ["y"], {})


@pytest.mark.parametrize(
    "nodes, shape, words",
    [
        ([("Reshape", ["x", "to"], ["r"], {}), Y], [None, 8], "Reshape .r."),
        ([("Reshape", ["x", "to"], ["r"], {}), Y], ["N", None], "Reshape .r."),
        ([("Flatten", ["x"], ["r"], {"axis": -1}), Y], [None, 2, 4], "Flatten .r. along axis -1"),
        ([("Flatten", ["x"], ["r"], {"axis": 2}), Y], [None, 2, 4], "Flatten .r. along axis 2"),
        ([("MatMul", ["x", "W"], ["y"], {})], [None, 3, 4], "3 axes before any Flatten"),
        ([("MatMul", ["x", "W"], ["y"], {})], [4], r"must be rows, \(N, features\), got 1 axes"),
        (
            [("Add", ["x", "four"], ["r"], {}), Y],
            [None, 1],
            "must take 1 inputs, the features of the rows",
        ),
        (
            [("Identity", ["x"], ["r"], {}), Y, ("Identity", ["x"], ["y"], {})],
            [None, 4],
            "compute each value once",
        ),
        ([("Mul", ["x", "whole"], ["r"], {}), Y], [None, 4], "a constant of int64"),
        ([("Div", ["x", "zero"], ["r"], {}), Y], [None, 4], "Div .r. by 0"),
        ([("Add", ["x", "cube"], ["r"], {}), Y], [None, 4], "which differs between rows"),
    ],
)
def test_reshapes_that_join_or_cut_rows_are_rejected(nodes, shape, words):
    arrays = {"W": W, "to": [-1, 4], "four": np.ones(4, "f4"), "whole": np.arange(4)}
    arrays |= {"zero": np.float32(0), "cube": np.ones((1, 1, 4), "f4")}
    with pytest.raises(ValueError, match=words):
        fc.from_onnx(graph_of(nodes, arrays, shape))


def test_flattened_images_of_known_size_are_read():
    """Flatten or Reshape of images whose size is in the model is converted, also after a scaling
    and before a final single column, and the outputs agree with ONNX's own evaluator.
    """
    arrays = {"W": W, "to": [-1, 4], "w": W[:2, :1], "by": np.float32(255), "all": [-1]}
    arrays |= {"one": [1], "b": np.ones(1, "f4")}
    scaled = ("Div", ["x", "by"], ["s"], {})
    for flat in (("Reshape", ["s", "to"], ["r"], {}), ("Flatten", ["s"], ["r"], {})):
        last = [("Relu", ["y0"], ["h"], {}), ("Gemm", ["h", "w", "b"], ["c"], {})]
        for end in ("Reshape", "Squeeze"):
            nodes = [scaled, flat, ("MatMul", ["r", "W"], ["y0"], {}), *last]
            nodes += [(end, ["c", "all" if end == "Reshape" else "one"], ["y"], {})]
            proto = graph_of(nodes, arrays, [None, 2, 2])
            model, theta = fc.from_onnx(proto)
            theirs = ReferenceEvaluator(proto).run(None, {"x": X.reshape(9, 2, 2).astype("f4")})[0]
            assert np.allclose(model.predict(theta, X)[:, 0], theirs, rtol=1e-5, atol=1e-6)
            proto.graph.node.append(helper.make_node("Softmax", ["y"], ["p"]))
            proto.graph.output[0].name = "p"
            with pytest.raises(
                ValueError, match="Softmax .p. after .*, which leaves one number per row"
            ):
                fc.from_onnx(proto)


def test_residual_layers_are_read_only_around_every_hidden_layer():
    K = RNG.standard_normal((4, 4))
    skip = [("MatMul", ["x", "K"], ["z"], {}), ("Tanh", ["z"], ["t"], {})]
    skip += [("Add", ["x", "t"], ["h"], {})]
    again = [("MatMul", ["h", "K"], ["u"], {}), ("Tanh", ["u"], ["v"], {})]
    end = [("MatMul", ["k", "L"], ["y"], {})]
    arrays = {"K": K, "L": RNG.standard_normal((4, 2)), "n": np.ones(4)}
    both = [*skip, *again, ("Sum", ["v", "h"], ["k"], {}), *end]
    proto = model_of(both, arrays)
    model, theta = fc.from_onnx(proto)
    assert model == fc.MLP([4, 4, 4, 2], "tanh", bias=False, residual=True)
    theirs = ReferenceEvaluator(proto).run(None, {"x": X})[0]
    assert np.allclose(model.predict(theta, X), theirs, rtol=1e-12, atol=1e-13)
    for nodes, words in (
        ([*skip, *again, ("Identity", ["v"], ["k"], {}), *end], "a skip around some hidden layers"),
        ([*skip[:1], ("Add", ["x", "z"], ["h"], {}), ("Tanh", ["h"], ["k"], {}), *end], "Tanh"),
        ([*skip[:2], ("Mul", ["t", "n"], ["m"], {}), ("Add", ["x", "m"], ["k"], {}), *end], "Add"),
        ([("Tanh", ["x"], ["t"], {}), ("Add", ["x", "t"], ["k"], {}), *end], "after a fork at 'x'"),
    ):
        with pytest.raises(ValueError, match=words):
            fc.from_onnx(model_of(nodes, arrays))


@pytest.mark.parametrize("kind", ["Sub", "Normalizer", "Where", "ArgMax"])
def test_nodes_after_probabilities_are_rejected_unless_they_make_labels(kind):
    """Nodes that compute other functions of the probabilities, such as 1 - p or a division by the
    largest, are rejected with an error that names the node and the softmax.
    """
    last = {
        "Sub": ("Sub", ["one", "p"], ["y"], {}),
        "Normalizer": ("Normalizer", ["p"], ["y"], {"norm": "MAX", "domain": "ai.onnx.ml"}),
        "Where": ("Where", ["yes", "p", "one"], ["y"], {}),
        "ArgMax": ("ArgMax", ["p"], ["y"], {"axis": 0}),
    }[kind]
    nodes = [FIRST, ENDS[0], LAST[0], ("Softmax", ["m"], ["p"], {}), last]
    with pytest.raises(ValueError, match=f"{kind} .y. after Softmax .p."):
        fc.from_onnx(model_of(nodes, {**ARRAYS, "yes": [True]}))


def external(name="W"):
    tensor = numpy_helper.from_array(W, name)
    onnx.external_data_helper.set_external_data(tensor, "secret.bin", 0, W.nbytes)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    return tensor


def test_external_data_are_read_only_for_a_model_given_by_path(tmp_path, monkeypatch):
    """External data of an initializer, a Constant or a subgraph are rejected for a model passed as
    an object or as bytes. For a path, external data are read, but not from outside the model's
    folder.
    """
    (tmp_path / "secret.bin").write_bytes(W.tobytes())
    monkeypatch.chdir(tmp_path)
    plain = [("MatMul", ["x", "W"], ["y"], {})]
    first = graph_of(plain, {}, [None, 4])
    first.graph.initializer.append(external())
    second = graph_of([("Constant", [], ["W"], {"value": external()}), *plain], {}, [None, 4])
    third = graph_of(plain, {"W": W}, [None, 4])
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external("c"))], "inner", [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )  # fmt: skip
    third.graph.node.append(
        helper.make_node("If", ["x"], ["dead"], then_branch=inner, else_branch=inner)
    )
    for proto in (first, second, third):
        for source in (proto, proto.SerializeToString()):
            with pytest.raises(ValueError, match="must hold its weights, .*Use the path of"):
                fc.from_onnx(source)
    for proto in (first, second):
        (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
        assert np.array_equal(fc.from_onnx(tmp_path / "net.onnx")[1], W.T.ravel())
        where = proto.graph.node[0].attribute[0].t if proto is second else None
        where = where or proto.graph.initializer[0]
        where.external_data[0].value = "../secret.bin"
        (tmp_path / "within").mkdir(exist_ok=True)
        (tmp_path / "within" / "net.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(ValueError, match="cannot be read"):
            fc.from_onnx(tmp_path / "within" / "net.onnx")


def chain_of_nodes(op, n, **attributes):
    """Return an ONNX model of n nodes of the kind `op` in a chain from the input x, followed by a
    linear layer.
    """
    names = ["x", *(f"i{k}" for k in range(n))]
    nodes = [(op, [a], [b], attributes) for a, b in zip(names, names[1:])]
    return graph_of([*nodes, ("MatMul", [names[-1], "W"], ["y"], {})], {"W": W}, [None, 4])


def chain_of_casts(n):
    """Return an ONNX model with a chain of n casts of one number. Each cast is a factor of the
    input, the last cast first.
    """
    nodes = [("Cast", ["s" if k == 0 else f"c{k}"], [f"c{k + 1}"], {"to": 1}) for k in range(n)]
    at = "x"
    for k in range(n, 0, -1):
        nodes.append(("Mul", [at, f"c{k}"], [f"m{k}"], {}))
        at = f"m{k}"
    arrays = {"W": W, "s": np.float32(1)}
    return graph_of([*nodes, ("MatMul", [at, "W"], ["y"], {})], arrays, [None, 4])


def labels_after_softmax(n):
    """Return an ONNX model of a linear layer and a softmax, followed by a chain of n Identity
    nodes.
    """
    names = ["p", *(f"i{k}" for k in range(n - 1)), "y"]
    nodes = [("Identity", [a], [b], {}) for a, b in zip(names, names[1:])]
    first = [("MatMul", ["x", "W"], ["z"], {}), ("Softmax", ["z"], ["p"], {})]
    return graph_of([*first, *nodes], {"W": W}, [None, 4])


@pytest.mark.parametrize(
    "make", [lambda n: chain_of_nodes("Identity", n), chain_of_casts, labels_after_softmax]
)
def test_conversion_time_is_linear_in_the_number_of_nodes(make):
    """Converting or rejecting a model of 600 nodes takes less than three times as many function
    calls as one of 300 nodes.
    """

    def calls(content):
        counted = itertools.count()
        sys.setprofile(lambda *_: next(counted))
        try:
            fc.from_onnx(content)
        except ValueError as error:
            assert "max_params" in str(error)
        finally:
            sys.setprofile(None)
        return next(counted)

    few, many = (make(n).SerializeToString() for n in (300, 600))
    assert 3000 < calls(many) < 3 * calls(few)


def test_conversion_memory_is_proportional_to_the_file():
    """Models of 1 MiB whose nodes repeat one large array are converted or rejected with a peak
    memory of at most 64 times the file's size. `max_params` limits the number of parameters of the
    result.
    """
    K = np.ones((512, 512), "f4")
    casts = [("Cast", ["K" if k == 0 else f"c{k}"], [f"c{k + 1}"], {"to": 1}) for k in range(600)]
    unused = [*casts, ("MatMul", ["x", "K"], ["y"], {})]
    used = [*casts, ("MatMul", ["x", "c600"], ["y"], {})]
    names = ["x", *(f"m{k}" for k in range(99)), "y"]
    shared = [("MatMul", [a, "K"], [b], {}) for a, b in zip(names, names[1:])]
    each = [("Cast", ["K"], [f"c{k}"], {"to": 1}) for k in range(100)]
    each += [("MatMul", [a, f"c{k}"], [b], {}) for k, (a, b) in enumerate(zip(names, names[1:]))]
    scaled = [("MatMul", ["x", "K"], ["n0"], {})]
    scaled += [("Mul", [f"n{k}", "two"], [f"n{k + 1}"], {}) for k in range(5000)]
    scaled += [("Identity", ["n5000"], ["y"], {})]
    for nodes, refused in (
        (unused, ""),
        (used, "must not take far more memory"),
        (shared, "more parameters than the file has bytes"),
        (each, "more parameters than the file has bytes"),
        (scaled, "must not take far more memory"),
    ):
        content = graph_of(nodes, {"K": K, "two": np.float32(2)}, [None, 512]).SerializeToString()
        tracemalloc.start()
        try:
            fc.from_onnx(content)
            said = ""
        except ValueError as error:
            said = str(error)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 * len(content)
        assert refused in said and bool(refused) == bool(said), said
    few = graph_of(shared[:20] + [("Identity", ["m19"], ["y"], {})], {"K": K}, [None, 512])
    assert fc.from_onnx(few, max_params=20 * K.size)[0].n_params == 20 * K.size
    with pytest.raises(ValueError, match="max_params"):
        fc.from_onnx(few, max_params=20 * K.size - 1)
