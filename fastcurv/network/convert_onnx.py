"""Models from ONNX: the chain from a graph's input to its output is followed node by node.

What torch and skl2onnx write is understood: Gemm, MatMul and Add, activations as one node or as the
few that stand for them, and what changes no number on the way.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..files import shown
from .convert import Model, Stack, foreign

SINGLE = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus"}
PASSED = ("Identity", "Squeeze")
FLOATS = (1, 10, 11, 16)  # ONNX's numbers for float32, float16, float64 and bfloat16
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
MICROSOFT = ("com.microsoft", "Gelu")  # the exact one
OLDEST = 7  # before it additions broadcast, and dropout and batch normalisation train, otherwise
AFTER = {
    *("ArgMax", "ArrayFeatureExtractor", "Binarizer", "Cast", "Concat", "Flatten", "Greater"),
    *("Identity", "Normalizer", "Reshape", "Sub", "Where", "ZipMap"),
}  # what turns probabilities into labels
WANTED = (
    "Gemm, MatMul and Add, Relu LeakyRelu Tanh Sigmoid Softplus Elu Gelu and SiLU, "
    "BatchNormalization, Scaler, Flatten, Identity and Cast"
)


class Graph:
    """A graph of ONNX: its constants by name, and who reads what."""

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper

        graph = proto.graph
        for known in proto.opset_import:
            if known.domain in DOMAINS[:2] and known.version < OLDEST:
                raise ValueError(
                    f"the model is of opset {known.version}; wanted {OLDEST} or later: "
                    "onnx.version_converter.convert_version"
                )
        for t in graph.initializer:
            if t.data_location == t.EXTERNAL or t.external_data:
                raise ValueError("the model keeps weights in a file of its own; wanted its path")
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes: list[Any] = []
        for node in graph.node:
            if node.domain not in DOMAINS and (node.domain, node.op_type) != MICROSOFT:
                raise foreign(f"{_name(node)} of the domain {shown(node.domain)!r}", WANTED)
            if node.op_type == "Constant":
                values = self.attributes(node)
                if len(values) == 1:
                    value = next(iter(values.values()))
                    held = numpy_helper.to_array(value) if hasattr(value, "dims") else value
                    self.constants[node.output[0]] = np.asarray(held)
                    continue
            if node.op_type in ("Identity", "Cast", "Transpose") and self._fold(node):
                continue
            self.nodes.append(node)
        inputs = [i for i in graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise ValueError(f"the graph has {len(inputs)} inputs; wanted one")
        self.input = inputs[0].name
        axes = inputs[0].type.tensor_type.shape.dim
        self.rows = axes[0].dim_value if axes else 0  # 0 where it is for any number of them
        self.outputs = {o.name for o in graph.output}

    def _fold(self, node: Any) -> bool:
        """A constant under another name, in another type, or transposed."""
        from onnx import helper

        value = self.constants.get(node.input[0])
        if value is None:
            return False
        if node.op_type == "Transpose":
            value = np.transpose(value, self.attributes(node).get("perm"))
        elif node.op_type == "Cast":
            value = value.astype(helper.tensor_dtype_to_np_dtype(self.attributes(node)["to"]))
        self.constants[node.output[0]] = value
        return True

    @staticmethod
    def attributes(node: Any) -> dict[str, Any]:
        """A node's attributes by name."""
        from onnx import helper

        return {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if name in node.input]

    def constant(self, node: Any) -> np.ndarray | None:
        """The one constant among a node's two inputs, or None."""
        held = [self.constants[x] for x in node.input if x in self.constants]
        return held[0] if len(held) == 1 and len(node.input) == 2 else None

    def scalar(self, node: Any) -> float:
        """Its value where it is one number; NaN where not."""
        value = self.constant(node)
        return float(value.reshape(())) if value is not None and value.size == 1 else math.nan


def _name(node: Any) -> str:
    return f"{shown(node.op_type)} ({shown(node.name or node.output[0])})"


def _one(readers: list[Any], kind: str) -> Any:
    """The reader of a kind where there is exactly one, else None."""
    found = [node for node in readers if node.op_type == kind]
    return found[0] if len(found) == 1 else None


def _gated(graph: Graph, at: str) -> tuple[str, Any] | None:
    """Activations that several nodes stand for: their name and the last node.

    SiLU is ``z sigmoid(z)``, a softplus with a threshold ``z > 20 ? z : softplus(z)``, GELU
    ``z (1 + erf(z / sqrt 2)) / 2``, the half on either factor.
    """
    readers = graph.readers(at)
    sigmoid, gate = _one(readers, "Sigmoid"), _one(readers, "Mul")
    two = sigmoid is not None and gate is not None and len(readers) == 2
    if two and set(gate.input) == {at, sigmoid.output[0]}:
        return "silu", gate
    soft, greater, where = (_one(readers, kind) for kind in ("Softplus", "Greater", "Where"))
    if soft is not None and greater is not None and where is not None and len(readers) == 3:
        same = list(where.input) == [greater.output[0], at, soft.output[0]]
        if same and greater.input[0] == at and graph.scalar(greater) == 20:
            return "softplus", where
    scaled = _one(readers, "Div")
    if (
        scaled is None
        or gate is None
        or scaled.input[0] != at
        or abs(graph.scalar(scaled) - math.sqrt(2)) > 1e-6
    ):
        return None
    erf = _one(graph.readers(scaled.output[0]), "Erf")
    plus = None if erf is None else _one(graph.readers(erf.output[0]), "Add")
    if plus is None or graph.scalar(plus) != 1 or len(readers) != 2:
        return None
    last = _one(graph.readers(gate.output[0]), "Mul")
    half_last = set(gate.input) == {at, plus.output[0]} and last and graph.scalar(last) == 0.5
    half_first = graph.scalar(gate) == 0.5 and last
    if half_first:
        half_first = set(last.input) == {gate.output[0], plus.output[0]}
    return ("gelu", last) if half_last or half_first else None


def _step(graph: Graph, stack: Stack, node: Any) -> None:
    """Read one node of the chain into the stack."""
    kind, attributes, name = node.op_type, graph.attributes(node), _name(node)
    held = [graph.constants.get(x) for x in node.input]
    if kind == "Gemm":
        _gemm(stack, node, held, attributes, name)
    elif kind == "MatMul":
        if len(held) != 2 or held[1] is None:
            raise foreign(f"{name} that is not rows times a constant", WANTED)
        stack.linear(held[1].T, None, name)
    elif kind in ("Add", "Sub", "Mul", "Div"):
        _arithmetic(stack, node, held, name)
    elif kind == "BatchNormalization":
        known = [x for x in held[1:5] if x is not None]
        if attributes.get("training_mode", 0) or len(known) < 4 or len(node.output) > 1:
            raise foreign(f"{name} while training", WANTED)
        stack.frozen_norm(known, attributes.get("epsilon", 1e-5), name)
    elif kind == "Scaler":
        offset, scale = (np.asarray(attributes[x], np.float64) for x in ("offset", "scale"))
        stack.affine(scale, -scale * offset, name, np.float32(0))
    elif kind == "LeakyRelu" and abs(attributes.get("alpha", 0.01) - 0.01) < 1e-8:
        stack.activation("leaky_relu", name)
    elif kind == "Elu" and attributes.get("alpha", 1.0) == 1:
        stack.activation("elu", name)
    elif kind == "Gelu" and attributes.get("approximate", b"none") == b"none":
        stack.activation("gelu", name)
    elif kind in SINGLE:
        stack.activation(SINGLE[kind], name)
    elif kind in ("Softmax", "LogSoftmax") and attributes.get("axis", -1) in (1, -1):
        stack.close(name)
    elif kind not in PASSED and not _passes(graph, stack, node, held):
        raise foreign(f"{name}{_why(node, attributes)}", WANTED)


def _gemm(stack: Stack, node: Any, held: list[Any], attributes: Any, name: str) -> None:
    """``alpha a W' + beta b``."""
    given = len(node.input) > 2 and node.input[2] != ""
    if held[1] is None or attributes.get("transA", 0) or (given and held[2] is None):
        raise foreign(f"{name} of two tensors", WANTED)
    W = held[1] if attributes.get("transB", 0) else held[1].T
    b = np.broadcast_to(_row(held[2], name), len(W)) if given else None
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    W = W if alpha == 1 else np.asarray(alpha, W.dtype) * W
    stack.linear(W, b if b is None or beta == 1 else np.asarray(beta, b.dtype) * b, name)


def _row(c: np.ndarray, name: str) -> np.ndarray:
    """A constant that is the same for every row, as a vector."""
    if c.size != max(c.shape[-1:], default=1):
        raise foreign(f"{name} of a constant of shape {c.shape}, other for every row,", WANTED)
    return c.reshape(-1)


def _passes(graph: Graph, stack: Stack, node: Any, held: list[Any]) -> bool:
    """Whether a node changes no number, and leaves rows rows."""
    attributes = graph.attributes(node)
    if node.op_type == "Cast":
        return attributes.get("to") in FLOATS
    if node.op_type == "Flatten":
        return attributes.get("axis", 1) in (1, -1)
    if node.op_type == "Dropout":  # its third input says whether it draws
        return len(held) < 3 or not node.input[2] or (held[2] is not None and not held[2].any())
    if node.op_type == "Reshape":
        last = not graph.readers(node.output[0])  # skl2onnx ends with (-1, 1), whatever the width
        width = len(stack.layers[-1][0]) if stack.layers else None
        return _flattens(held, graph.rows, (width, 1) if last else (width,))
    return False


def _why(node: Any, attributes: dict[str, Any]) -> str:
    """What is foreign in a node of a kind that is known."""
    if node.op_type in ("Softmax", "LogSoftmax", "Flatten"):
        return f" along axis {attributes['axis']}"
    if node.op_type in ("LeakyRelu", "Elu", "Gelu"):
        return " with " + ", ".join(f"{key}={shown(x)}" for key, x in attributes.items())
    words = {"Cast": " to other than real numbers", "Dropout": " while training"}
    return words.get(node.op_type, "")


def _flattens(held: list[Any], rows: int, widths: tuple[int | None, ...]) -> bool:
    """Whether a Reshape leaves rows as they are: to (-1, k), (0, -1), (N, -1) or (-1,), k one of
    the `widths` where a layer stands before it, and N the number of rows that the graph is for.
    """
    shape = None if held[1] is None else [int(x) for x in held[1].reshape(-1)]
    if shape is None or len(shape) != 2:
        return shape == [-1]
    return shape[0] in (0, rows) if shape[1] == -1 else {None, shape[1]} & {*widths} != set()


def _arithmetic(stack: Stack, node: Any, held: list[Any], name: str) -> None:
    """``a + c``, ``a - c``, ``c - a``, ``a c`` and ``a / c`` for a constant c."""
    constants = [x for x in held if x is not None]
    if len(constants) != 1:
        raise foreign(f"{name} of two tensors", WANTED)
    c, kind = _row(constants[0], name).astype(np.float64), node.op_type
    one, first = np.ones_like(c), held[0] is not None
    if kind == "Div" and first:
        raise foreign(f"{name} by a tensor", WANTED)
    scale = {"Add": one, "Sub": -one if first else one, "Mul": c, "Div": 1 / c}[kind]
    shift = {"Add": c, "Sub": c if first else -c, "Mul": 0 * c, "Div": 0 * c}[kind]
    stack.affine(scale, shift, name, constants[0])


def _load(source: Any) -> Any:
    """A ModelProto from a path, bytes or itself."""
    try:
        import onnx
    except ImportError:
        raise ImportError("from_onnx needs the onnx package: pip install onnx") from None
    if isinstance(source, onnx.ModelProto):
        return source
    try:
        if isinstance(source, (bytes, bytearray)):
            return onnx.load_model_from_string(bytes(source))
        path = os.fspath(source)
    except TypeError:
        raise TypeError(
            f"source is a {type(source).__name__}; wanted a path, bytes or an onnx.ModelProto"
        ) from None
    except Exception:
        raise ValueError("source holds bytes that are no ONNX model") from None
    if not os.path.isfile(path):  # noqa: PTH113  a name may be bytes
        raise ValueError(f"{path} is not a file; wanted an ONNX model")
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's own, an external file that is missing or outside
        text = shown(error, 200)
        raise ValueError(f"{path} cannot be read as an ONNX model: {text}") from None


def from_onnx(source: Any) -> Model:
    """Model and theta of a multilayer perceptron in ONNX, as torch and skl2onnx write them.

    Parameters
    ----------
    source : path-like, bytes or onnx.ModelProto
        Nodes: ``Gemm``, ``MatMul`` and ``Add``, ``Relu LeakyRelu Tanh Sigmoid Softplus Elu Gelu``
        and SiLU, ``BatchNormalization`` and ``Scaler`` (folded), ``Flatten Reshape Identity Cast
        Dropout``. A ``Softmax`` or ``Sigmoid`` at the end belongs to the loss, and what makes
        labels of its probabilities is left out. An array that several nodes read, such as zeros
        that an exporter keeps once, becomes parameters of each.

    Returns
    -------
    model : MLP
        In the dtype of the weights.
    theta : ndarray (n,)
        Its parameters.

    Raises
    ------
    ValueError
        For a node that has no counterpart here, the first of them named, and for files that are no
        ONNX model.
    ImportError
        Without the onnx package.

    See Also
    --------
    from_torch, from_keras, from_jax, from_sklearn : from other libraries.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc, onnx
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> arrays = {"W": np.ones((1, 2)), "b": np.zeros(1)}
    >>> graph = helper.make_graph(
    ...     [helper.make_node("Gemm", ["x", "W", "b"], ["y"], transB=1)], "linear",
    ...     [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 2])],
    ...     [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1])],
    ...     [numpy_helper.from_array(a, name) for name, a in arrays.items()])
    >>> model, theta = fc.from_onnx(helper.make_model(graph))
    >>> theta.tolist()
    [1.0, 1.0, 0.0]
    """
    proto = _load(source)
    try:
        return _follow(Graph(proto), Stack())
    except ValueError:
        raise
    except Exception as error:  # of a graph whose nodes lack inputs, or tensors their data
        text = shown(f"{type(error).__name__}: {error}", 160)
        raise ValueError(
            f"the ONNX model is damaged ({text}); wanted a stack of {WANTED}"
        ) from None


def _follow(graph: Graph, stack: Stack) -> Model:
    """Every node from the input on, in order."""
    at, done = graph.input, 0
    while True:
        readers = [] if graph.outputs == {at} else graph.readers(at)
        gated = _gated(graph, at) if len(readers) > 1 else None
        if gated is not None:
            phi, node = gated
            stack.activation(phi, _name(node))
        elif stack.closed or _ends(graph, readers, stack):
            kinds = {node.op_type for node in _below(graph, at)}
            if kinds - AFTER:
                raise foreign(
                    f"{shown(sorted(kinds - AFTER)[0])} after {stack.closed or 'the end'}", WANTED
                )
            return _finish(graph, stack, at)
        elif not readers:
            return _finish(graph, stack, at)
        elif len(readers) > 1:
            raise foreign(f"a fork at {shown(at)!r}, read by {len(readers)} nodes,", WANTED)
        else:
            node = readers[0]
            _step(graph, stack, node)
        at, done = node.output[0], done + 1
        if done > len(graph.nodes):
            raise ValueError("the graph runs in a circle; wanted a stack")


def _finish(graph: Graph, stack: Stack, at: str) -> Model:
    """The model, where the graph gives what stands at the end, or what that leads to."""
    found = stack.finish()
    given = {at}.union(*(node.output for node in _below(graph, at)))
    if not graph.outputs & given:
        names = ", ".join(shown(name) for name in sorted(graph.outputs))
        raise ValueError(f"the graph gives {names}, not its last layer; wanted what that gives")
    return found


def _ends(graph: Graph, readers: list[Any], stack: Stack) -> bool:
    """Whether a sigmoid of one unit stands last: what follows makes labels of it."""
    return (
        bool(readers)
        and stack.last == "activation"
        and stack.activations[-1] == "sigmoid"
        and {node.op_type for node in readers} <= AFTER
        and len(readers) > 1
    )


def _below(graph: Graph, at: str) -> list[Any]:
    """Every node that a tensor leads to."""
    found: list[Any] = []
    names = {at}
    for node in graph.nodes:
        if names & set(node.input):
            found.append(node)
            names |= set(node.output)
    return found
