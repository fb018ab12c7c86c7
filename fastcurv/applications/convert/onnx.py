"""Conversion of models from ONNX: the chain of nodes from a graph's input to its output is followed
node by node.

The exports of torch and skl2onnx are supported: Gemm, MatMul and Add, activations as one node or as
a group of nodes, and nodes that leave all values unchanged.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...common.checks import check_positive_int
from ...common.errors import one_line, type_phrase
from ...common.files import path_as_text
from ...common.optional import optional_import
from ...network.mlp import Model
from .activations import ACTIVATIONS_IN_LIBRARY
from .sklearn import (
    LayerStack,
    raise_if_unsupported,
    unsupported_layer,
    warn_about_omitted_activation,
)

FLOAT_TYPE_CODES = (1, 10, 11, 16)  # codes of float32, float16, float64 and bfloat16 in ONNX
# nodes of the domain ai.onnx.ml
ONNX_ML_NODES = ("Scaler", "Normalizer", "ZipMap", "ArrayFeatureExtractor", "Binarizer")
ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
MICROSOFT_GELU = ("com.microsoft", "Gelu")  # the exact GELU
# Older versions read files outside the folder of a model (CVE-2024-27318).
MIN_ONNX_VERSION = (1, 16)
MIN_OPSET = 7  # older opsets define broadcasting, dropout and batch normalisation differently
CONSTANT_FOLDING_NODES = ("Identity", "Cast", "Transpose")  # nodes that are evaluated on constants
# nodes that leave probabilities unchanged
PROBABILITY_PRESERVING_NODES = ("Identity", "Cast", "Reshape", "Flatten", "ZipMap", "Normalizer")
LABEL_NODES = ("ArgMax", "Binarizer", "Greater")  # nodes that turn probabilities into labels
SHAPE_NODES = ("Flatten", "Reshape", "Squeeze")
# nodes that may follow the probabilities
OUTPUT_NODES = {
    *PROBABILITY_PRESERVING_NODES,
    *LABEL_NODES,
    "ArrayFeatureExtractor",
    "Concat",
    "Sub",
    "Where",
}
# Key: an activation made of several nodes, with the inputs of sums and products sorted. Value: its
# name.
ACTIVATION_PATTERNS = {
    "Where(Greater(z, 0.0), z, 0.0)": "Relu",
    "Where(Less(z, 0.0), 0.0, z)": "Relu",
    "Mul(Sigmoid(z), z)": "Swish",
    "Where(Greater(z, 20.0), z, Softplus(z))": "Softplus",  # the threshold of torch
    "Mul(0.5, Mul(Add(1.0, Erf(Div(z, sqrt2))), z))": "Gelu",
    "Mul(Add(1.0, Erf(Div(z, sqrt2))), Mul(0.5, z))": "Gelu",
}
# maximum number of parameters of a file in addition to one for each of its bytes
MAX_EXTRA_PARAMS = 1 << 12
SUPPORTED_NODES = (
    "Gemm, MatMul and Add, Relu LeakyRelu Tanh Sigmoid Softplus Elu Gelu and SiLU, Clip and Max "
    "at 0, BatchNormalization, Scaler, Flatten, Identity and Cast"
)


class OnnxGraph:
    """An ONNX graph, with its constants by name, which are decoded on first use, and the nodes that
    read each tensor.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model with the graph.
    folder : str or None
        Folder in which external weight files may be; None if they are not allowed.
    stack : LayerStack
        The stack to which layers are added, and which counts the memory used for constants.
    """

    def __init__(self, proto: Any, folder: str | None, stack: LayerStack) -> None:
        graph = proto.graph
        for known in proto.opset_import:
            if known.domain in ONNX_DOMAINS[:2] and known.version < MIN_OPSET:
                raise ValueError(
                    f"the model must be of opset {MIN_OPSET} or later, got {known.version}. Use "
                    "onnx.version_converter.convert_version."
                )
        for own in proto.functions:
            raise_if_unsupported(
                own.domain in ONNX_DOMAINS,
                f"{one_line(own.name)}, a function of the model's own,",
                SUPPORTED_NODES,
            )
        if folder is None and any(map(_is_external, _all_tensors(graph))):
            raise ValueError(
                "the model must hold its weights, got a model that keeps them in another file. "
                "Use the path of the model file."
            )
        self.folder = folder
        self.stack = stack
        self.tensors: dict[str, Any] = {t.name: t for t in graph.initializer}
        self.folds: dict[str, Any] = {}  # nodes that compute constants from other constants
        self.held: dict[str, np.ndarray] = {}
        self.readers: dict[str, list[Any]] = defaultdict(list)  # nodes that read a tensor, in order
        self.nodes = list(graph.node)
        inputs = [i for i in graph.input if i.name not in self.tensors]
        made = {*self.tensors, *(i.name for i in inputs)}
        for node in self.nodes:
            if not _has_known_domain(node):
                raise unsupported_layer(
                    f"{_node_name(node)} of the domain {one_line(node.domain)!r}", SUPPORTED_NODES
                )
            for name in filter(None, node.output):
                if name in made:
                    raise ValueError(
                        f"the graph must compute each value once and without a cycle, got "
                        f"{one_line(name)!r} again at {_node_name(node)}."
                    )
                made.add(name)
            if node.op_type == "Constant" and len(node.attribute) == 1:
                self.tensors[node.output[0]] = node.attribute[0]
            elif node.op_type in CONSTANT_FOLDING_NODES and self.is_constant(node.input[0]):
                self.folds[node.output[0]] = node
            else:
                for name in dict.fromkeys(filter(None, node.input)):
                    self.readers[name].append(node)
        if len(inputs) != 1:
            raise ValueError(f"the graph must have one input, got {len(inputs)}.")
        self.input = inputs[0].name
        given = inputs[0].type.tensor_type
        dims = [d.dim_value for d in given.shape.dim] if given.HasField("shape") else [0, 0]
        if len(dims) < 2:
            raise ValueError(
                f"the graph's input must be rows, (N, features), got {len(dims)} axes."
            )
        # 0 if the number of rows is not fixed
        self.axes = len(dims)
        self.rows = dims[0]
        stack.takes = math.prod(dims[1:]) or None  # None if the number of inputs is unknown
        self.outputs = {o.name for o in graph.output}

    def is_constant(self, name: str) -> bool:
        """Return True if the tensor `name` is a constant or is computed from a constant."""
        return name in self.tensors or name in self.folds

    def constant_value(self, name: str) -> np.ndarray | None:
        """Return the constant `name` as an array, or None if the tensor is not constant. Nodes that
        compute the constant from another one are evaluated.
        """
        from onnx import helper

        if name in self.held or not self.is_constant(name):
            return self.held.get(name)
        nodes = []
        at = name
        while at not in self.tensors and at not in self.held:
            nodes.append(self.folds[at])
            at = self.folds[at].input[0]
        array = self.held[at] if at in self.held else self._tensor_values(self.tensors[at])
        for node in reversed(nodes):
            self.stack.reserve_memory(64 + array.nbytes)
            if node.op_type == "Transpose":
                array = np.transpose(array, self.node_attributes(node).get("perm"))
            elif node.op_type == "Cast":
                array = array.astype(
                    helper.tensor_dtype_to_np_dtype(self.node_attributes(node)["to"])
                )
        self.held[name] = array
        return array

    def _tensor_values(self, held: Any) -> np.ndarray:
        """Return the values of `held`, a tensor or the only attribute of a Constant node, as an
        array. Raise ValueError if they cannot be read.
        """
        from onnx import helper, numpy_helper
        from onnx.external_data_helper import load_external_data_for_tensor

        # The object is an attribute of a node.
        if hasattr(held, "type"):
            kind = held.type
            held = helper.get_attribute_value(held)
            if not hasattr(held, "dims"):
                # 1 and 6 are the codes of FLOAT and FLOATS.
                return np.asarray(held, np.float32 if kind in (1, 6) else None)
        size = math.prod(held.dims)
        if not 0 <= size < 2**48:
            raise ValueError(
                f"a tensor of the model must have fewer than 2**48 entries, got {size}."
            )
        self.stack.reserve_memory(64 + 8 * size)
        try:
            if _is_external(held):
                load_external_data_for_tensor(held, self.folder)
            return np.asarray(numpy_helper.to_array(held))
        except Exception as error:
            text = one_line(error, 160)
            name = one_line(getattr(held, "name", ""), 60)
            raise ValueError(f"tensor {name!r} of the model cannot be read: {text}.") from None

    @staticmethod
    def node_attributes(node: Any) -> dict[str, Any]:
        """Return a node's attributes by name."""
        from onnx import helper

        return {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def constant_text(self, name: str) -> str:
        """Return the constant `name` as a string if it is a single number ("sqrt2" for the square
        root of 2). Return "" for other tensors.
        """
        one = self.constant_value(name)
        if one is None or one.size != 1 or one.ndim > 2 or one.dtype.kind in "OSU":
            return ""  # a string, or a constant that adds axes to the result
        number = float(one.reshape(()))
        near = abs(number - math.sqrt(2)) <= 3e-8  # the nearest float32 differs by 2.4e-8
        return "sqrt2" if near else str(number)


def _all_tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph: initializers and attributes, including those of nested
    graphs.
    """
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for a in node.attribute:
            yield from (a.t, *a.tensors)
            sparse += (a.sparse_tensor, *a.sparse_tensors)
            for inner in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
                yield from _all_tensors(inner)
    for pair in sparse:
        yield from (pair.values, pair.indices)


def _is_external(tensor: Any) -> bool:
    """Return True if the values of a tensor are stored in another file."""
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _has_known_domain(node: Any) -> bool:
    """Return True if the domain of a node is the one in which its operator is supported: ai.onnx.ml
    for `ONNX_ML_NODES`, com.microsoft for `MICROSOFT_GELU`, and ai.onnx for all others.
    """
    if node.op_type in ONNX_ML_NODES:
        return node.domain in ONNX_DOMAINS[2:]
    return node.domain in ONNX_DOMAINS[:2] or (node.domain, node.op_type) == MICROSOFT_GELU


def _node_name(node: Any) -> str:
    return f"{one_line(node.op_type)} ({one_line(node.name or node.output[0])})"


def _match_gated_activation(graph: OnnxGraph, at: str) -> tuple[str, Any] | None:
    """Return the name and the last node of an activation in `ACTIVATION_PATTERNS`, which is
    exported as several nodes, that begins at the tensor `at`. Return None if no such activation
    begins at `at`.
    """
    words = {at: "z"}
    waiting = deque(graph.readers[at])
    inside: set[int] = set()
    while waiting and len(inside) < 6:
        node = waiting.popleft()
        given = [words.get(x) or graph.constant_text(x) for x in node.input[:4]]
        if id(node) in inside or not all(given) or len(given) == 4:
            continue  # the node is visited again when its other inputs are known
        inside.add(id(node))
        given = sorted(given) if node.op_type in ("Add", "Mul") else given
        said = f"{node.op_type}({', '.join(given)})"
        if said in ACTIVATION_PATTERNS:
            read = {id(reader) for name in words for reader in graph.readers[name]}
            return (ACTIVATION_PATTERNS[said], node) if read == inside else None
        words[node.output[0]] = said
        waiting += graph.readers[node.output[0]]
    return None


def _read_node(graph: OnnxGraph, node: Any) -> None:
    """Add one node of the chain to the stack of the graph. Raise ValueError if the node is not
    supported.
    """
    stack = graph.stack
    kind = node.op_type
    attributes = graph.node_attributes(node)
    name = _node_name(node)
    held: list[Any] = [graph.constant_value(x) for x in node.input]
    raise_if_unsupported(
        stack.column and kind not in ("Identity", "Cast", "Sigmoid"),
        f"{name} after {stack.column}, which leaves one number per row,",
        SUPPORTED_NODES,
    )
    arithmetic = kind in ("Add", "Sub", "Mul", "Div")
    # `alone` is True for arithmetic with one number, such as a division by 255.
    alone = arithmetic and all(x is None or x.size == 1 for x in held)
    raise_if_unsupported(
        graph.axes != 2 and not alone and kind not in (*SHAPE_NODES, "Identity", "Cast", "Dropout"),
        f"{name} of an input with {graph.axes} axes before any Flatten",
        SUPPORTED_NODES,
    )
    if kind == "Gemm":
        _add_gemm(stack, node, held, attributes, name)
    elif kind == "MatMul":
        raise_if_unsupported(
            len(held) != 2 or held[1] is None,
            f"{name} that is not rows times a constant",
            SUPPORTED_NODES,
        )
        stack.add_linear(_float_constant(held[1], name).T, None, name)
    elif arithmetic:
        _add_arithmetic(stack, node, held, name)
    elif kind == "BatchNormalization":
        known = [_float_constant(x, name) for x in held[1:5] if x is not None]
        raise_if_unsupported(
            attributes.get("training_mode", 0) or len(known) < 4 or len(node.output) > 1,
            f"{name} while training",
            SUPPORTED_NODES,
        )
        stack.add_frozen_batch_norm(known, attributes.get("epsilon", 1e-5), name)
    elif kind == "Scaler":
        offset, scale = (np.asarray(attributes[x], np.float64) for x in ("offset", "scale"))
        stack.add_affine(scale, -scale * offset, name, np.float32(0))
    elif kind in ACTIVATIONS_IN_LIBRARY["onnx"]:
        stack.add_foreign_activation("onnx", kind, attributes, name)
    elif kind in ("Clip", "Max") and _is_relu_node(stack, node, held, attributes):
        stack.add_activation("relu", name)
    elif kind in ("Softmax", "LogSoftmax") and attributes.get("axis", -1) in (1, -1):
        stack.add_softmax(name, said=kind == "Softmax")
    elif not _is_identity_node(graph, node, held, attributes):
        axis = f" along axis {attributes['axis']}" if "axis" in attributes else ""
        words = {"Cast": " to other than real numbers", "Dropout": " while training"}
        words |= {"Clip": " at other bounds than 0", "Max": " with other than 0"}
        raise unsupported_layer(f"{name}{words.get(kind, axis)}", SUPPORTED_NODES)


def _add_gemm(stack: LayerStack, node: Any, held: list[Any], attributes: Any, name: str) -> None:
    """Add the linear map ``alpha a W' + beta b`` of a Gemm node. `held` holds the constants among
    the inputs of the node, and None for the others.
    """
    given = len(node.input) > 2 and node.input[2] != ""
    raise_if_unsupported(
        held[1] is None or attributes.get("transA", 0) or (given and held[2] is None),
        f"{name} of two tensors",
        SUPPORTED_NODES,
    )
    W = (
        _float_constant(held[1], name)
        if attributes.get("transB", 0)
        else _float_constant(held[1], name).T
    )
    b = np.broadcast_to(_constant_row(held[2], name), len(W)) if given else None
    alpha = attributes.get("alpha", 1.0)
    beta = attributes.get("beta", 1.0)
    W = W if alpha == 1 else np.asarray(alpha, W.dtype) * W
    stack.add_linear(W, b if b is None or beta == 1 else np.asarray(beta, b.dtype) * b, name)


def _float_constant(c: np.ndarray, name: str) -> np.ndarray:
    """Return the constant c of the node `name`. Raise ValueError if c is empty or does not hold
    floating-point numbers, since integer arithmetic differs.
    """
    raise_if_unsupported(
        c.dtype.kind in "iubcOSU" or not c.size,
        f"{name} of a constant of {c.dtype} and shape {c.shape}",
        SUPPORTED_NODES,
    )
    return c


def _constant_row(c: np.ndarray, name: str) -> np.ndarray:
    """Return the constant c of the node `name` as a vector that is added to, or multiplies, every
    row. Raise ValueError if c differs between rows.
    """
    raise_if_unsupported(
        c.ndim > 2 or c.size != max(c.shape[-1:], default=1),
        f"{name} of a constant of shape {c.shape}, which differs between rows,",
        SUPPORTED_NODES,
    )
    return _float_constant(c, name).reshape(-1)


def _is_relu_node(
    stack: LayerStack, node: Any, held: list[Any], attributes: dict[str, Any]
) -> bool:
    """Return True if a Clip or Max node computes ``max(a, 0)`` and nothing else. `held` holds the
    constants among the inputs of the node, and None for the others.
    """
    if node.op_type == "Max":
        zeros = [x for x in held if x is not None]
        if len(held) != 2 or len(zeros) != 1 or zeros[0].dtype.kind not in "fiu":
            return False
        zero = _constant_row(zeros[0], _node_name(node))
        return zero.size in (1, stack.width) and not zero.any()
    if any(name and x is None for name, x in zip(node.input[1:], held[1:])):
        return False  # a computed bound is not supported
    # Before opset 11, the bounds are attributes.
    limits = [attributes.get("min"), attributes.get("max")]
    for i, bound in enumerate(held[1:3]):
        limits[i] = bound if bound is not None else limits[i]
    low, high = limits
    unbounded = high is None or np.all(np.asarray(high) >= np.finfo(np.float32).max)
    return bool(low is not None and np.size(low) == 1 and np.all(np.equal(low, 0)) and unbounded)


def _is_identity_node(
    graph: OnnxGraph,
    node: Any,
    held: list[Any],
    attributes: dict[str, Any],
    width: int | None = None,
) -> bool:
    """Return True if a node leaves all values and the division into rows unchanged. `held` holds
    the constants among the inputs of the node, and None for the other inputs. `width` is the length
    of a row if it is not that of the last layer.
    """
    kind = node.op_type
    stack = graph.stack
    if kind == "Cast":
        return bool(attributes.get("to") in FLOAT_TYPE_CODES)
    # The third input of Dropout is the training mode.
    if kind == "Dropout":
        return len(held) < 3 or not node.input[2] or (held[2] is not None and not held[2].any())
    if kind == "Flatten":
        axis = attributes.get("axis", 1)
        keeps = axis == 1 or (axis == -1 and graph.axes == 2)
        graph.axes = 2
        return keeps
    if kind == "Squeeze":
        axes = attributes.get("axes") if len(held) < 2 else held[1]
        said = [1] if axes is None and len(held) < 2 else np.ravel(np.asarray(axes)).tolist()
        return said in ([1], [-1]) and stack.is_identity_reshape([-1], _node_name(node), width)
    if kind == "Reshape" and held[1] is not None and not attributes.get("allowzero", 0):
        shape = [int(x) for x in held[1].reshape(-1)]
        raise_if_unsupported(
            shape == [-1, 1] and stack.layers and (width or stack.width or 1) > 1,
            f"{_node_name(node)} of rows of {width or stack.width} numbers to a column, which "
            "skl2onnx writes of a regressor with several outputs,",
            f"{SUPPORTED_NODES}; fastcurv.from_sklearn(estimator) reads that regressor",
        )
        if len(shape) == 2:
            graph.axes = 2
            shape[0] = 0 if 0 < shape[0] == graph.rows else shape[0]
        return stack.is_identity_reshape(shape, _node_name(node), width)
    return bool(kind == "Identity")


def _add_arithmetic(stack: LayerStack, node: Any, held: list[Any], name: str) -> None:
    """Add ``a + c``, ``a - c``, ``c - a``, ``a c`` or ``a / c`` for a constant c. `held` holds the
    constants among the inputs of the node, and None for the others.
    """
    constants = [x for x in held if x is not None]
    raise_if_unsupported(len(constants) != 1, f"{name} of two tensors", SUPPORTED_NODES)
    c = _constant_row(constants[0], name).astype(np.float64)
    kind = node.op_type
    one = np.ones_like(c)
    first = held[0] is not None
    raise_if_unsupported(
        kind == "Div" and (first or not c.all()),
        f"{name} by {'a tensor' if first else 0}",
        SUPPORTED_NODES,
    )
    if kind in ("Mul", "Div"):
        scale = c if kind == "Mul" else 1 / c
        shift = np.zeros_like(c)
    else:
        scale = -one if kind == "Sub" and first else one
        shift = c if kind == "Add" or first else -c
    stack.add_affine(scale, shift, name, constants[0])


def _load_model_proto(source: Any) -> tuple[Any, int, str | None]:
    """Return the ModelProto of a path, bytes or a ModelProto, its size in bytes, and the folder of
    the path. The folder is None unless `source` is a path.
    """
    with optional_import("ONNX models"):
        import onnx

    if tuple(map(int, onnx.__version__.split(".")[:2])) < MIN_ONNX_VERSION:
        raise ImportError(
            f"onnx must be at least 1.16, got {onnx.__version__}, which reads files outside the "
            'folder of a model. Run: pip install --upgrade "fastcurv[onnx]"'
        )
    if isinstance(source, onnx.ModelProto):
        return source, source.ByteSize(), None
    try:
        if isinstance(source, (bytes, bytearray)):
            return onnx.load_model_from_string(bytes(source)), len(source), None
        os.fspath(source)
    except TypeError:
        raise TypeError(
            f"source must be a path, bytes or an onnx.ModelProto, got {type_phrase(source)}."
        ) from None
    except Exception as error:
        text = one_line(error, 160)
        raise ValueError(f"the bytes in source cannot be read as an ONNX model: {text}.") from None
    path = Path(path_as_text(source, "source"))
    if not path.is_file():
        raise ValueError(
            f"source must be the name of a file, got {one_line(path)}, which "
            f"{'is not a regular file' if path.exists() else 'does not exist'}."
        )
    try:
        folder = path.resolve().parent
        size = path.stat().st_size
        proto = onnx.load(path, load_external_data=False)
        held = (pair for t in _all_tensors(proto.graph) for pair in t.external_data)
        beside = {folder / pair.value for pair in held if pair.key == "location"}
        size += sum(file.stat().st_size for file in beside if file.is_file())
        return proto, size, str(folder)
    except Exception as error:
        # protobuf raises errors of its own, and external files may be missing or elsewhere.
        text = one_line(error, 200)
        raise ValueError(f"{one_line(path)} cannot be read as an ONNX model: {text}.") from None


def from_onnx(source: Any, *, max_params: int | None = None) -> Model:
    """Return the model and theta of a multilayer perceptron in ONNX, as exported by torch and
    skl2onnx.

    Parameters
    ----------
    source : path-like, bytes or onnx.ModelProto
        The supported nodes are ``Gemm``, ``MatMul`` and ``Add``, ``Relu LeakyRelu Tanh Sigmoid
        Softplus Elu Gelu`` and SiLU, ``Clip`` and ``Max`` at 0, ``BatchNormalization`` and
        ``Scaler`` (folded), ``Flatten Reshape Identity Cast Dropout`` if rows stay as they are. A
        ``Softmax`` or ``Sigmoid`` at the end belongs to the loss and is left out, with a warning
        unless nodes follow that turn its probabilities into labels, which are ignored. An array
        that several nodes read, such as zeros that an exporter stores once, becomes separate
        parameters of each. Weights in separate files are read only if the model is given by its
        path.
    max_params : int, optional
        The maximum number of parameters of the model. Default: the number of bytes of the file plus
        a few thousand, so that the memory used for an untrusted file is of the order of the file's
        size.

    Returns
    -------
    model : MLP
        The network, in the dtype of the weights.
    theta : ndarray (n,)
        The parameters of the network.

    Raises
    ------
    ValueError
        If a node has no counterpart in `MLP` (the message names the first one), or if the source is
        not an ONNX model.
    ImportError
        If the onnx package is not installed.

    See Also
    --------
    from_torch, from_sklearn : Conversion from other libraries.

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
    proto, size, folder = _load_model_proto(source)
    room = (
        MAX_EXTRA_PARAMS + size
        if max_params is None
        else check_positive_int(max_params, "max_params")
    )
    try:
        stack = LayerStack(room)
        found = _read_nodes(OnnxGraph(proto, folder, stack))
    except ValueError:
        raise
    except Exception as error:
        # Nodes may lack inputs, and tensors may lack data.
        text = one_line(f"{type(error).__name__}: {error}", 160)
        raise ValueError(
            f"the nodes of the ONNX model cannot be read: {text}. Use a stack of {SUPPORTED_NODES}."
        ) from None
    warn_about_omitted_activation(stack)
    return found


def _read_nodes(graph: OnnxGraph) -> Model:
    """Read all nodes in order, starting at the input, and return the model and theta."""
    at = graph.input
    stack = graph.stack
    # [a tensor that two nodes read, the one of them that adds a later output to the tensor], or []
    saved: list[Any] = []
    while True:
        readers = [] if graph.outputs == {at} else graph.readers[at]
        gated = _match_gated_activation(graph, at) if len(readers) > 1 else None
        sums = [node for node in readers if node.op_type in ("Add", "Sum") and len(node.input) == 2]
        if gated is not None:
            kind, node = gated
            stack.add_activation(ACTIVATIONS_IN_LIBRARY["onnx"][kind][0], _node_name(node))
        elif (
            stack.closed
            # Nodes may follow that only turn a sigmoid into labels.
            or (
                len(readers) > 1
                and [stack.last, *stack.activations[-1:]] == ["activation", "sigmoid"]
                and {node.op_type for node in readers} <= OUTPUT_NODES
            )
        ):
            labelled = _is_label_output(graph, at)
            found = _build_model(graph, at)
            stack.left_out = "" if labelled else stack.left_out
            return found
        elif not readers:
            return _build_model(graph, at)
        elif len(readers) == 2 and len(sums) == 1 and not saved:
            stack.begin_skip(f"a fork at {one_line(at)!r}")
            node = next(node for node in readers if node is not sums[0])
            saved = [at, sums[0]]
            _read_node(graph, node)
        elif len(readers) > 1:
            raise unsupported_layer(
                f"a fork at {one_line(at)!r}, read by {len(readers)} nodes,",
                SUPPORTED_NODES,
            )
        elif saved and readers[0] is saved[1]:
            node = readers[0]
            raise_if_unsupported(
                {*node.input} != {at, saved[0]},
                f"{_node_name(node)} of {' and '.join(map(one_line, node.input))}",
                SUPPORTED_NODES,
            )
            stack.end_skip(_node_name(node))
            saved = []
        else:
            node = readers[0]
            _read_node(graph, node)
        at = node.output[0]


def _build_model(graph: OnnxGraph, at: str) -> Model:
    """Return the model and theta of the layers read so far. Raise ValueError unless an output of
    the graph is the tensor `at` or is computed from it.
    """
    found = graph.stack.build_model()
    given = {at}.union(*(node.output for node in _dependent_nodes(graph, at)))
    if not graph.outputs & given:
        names = ", ".join(one_line(name) for name in sorted(graph.outputs))
        raise ValueError(f"the graph must return the output of its last layer, got {names}.")
    return found


def _is_label_output(graph: OnnxGraph, at: str) -> bool:
    """Return True if nodes compute labels from the probabilities, the tensor `at`. Raise ValueError
    if a node that depends on `at` computes anything but labels or the same probabilities.
    """
    width = graph.stack.width
    end = graph.stack.closed or "the end"
    same: dict[str, int | None] = {at: width}  # width of the rows of each tensor of probabilities
    labels: set[str] = set()
    rest: set[str] = set()
    for node in _dependent_nodes(graph, at):
        kind = node.op_type
        attributes = graph.node_attributes(node)
        held: list[Any] = [graph.constant_value(x) for x in node.input]
        ours = [x for x in node.input if x in same or x in labels or x in rest]
        axis = attributes.get("axis", 0)
        # The node computes 1 - p of a sigmoid.
        if kind == "Sub" and not graph.stack.closed and width == 1:
            fits = graph.constant_text(node.input[0]) == "1.0" and node.input[1] in same
            rest.update(node.output)
        elif kind == "Concat":
            # The node joins 1 - p and p.
            fits = [x in rest for x in node.input] == [True, False] and node.input[1] in same
            fits = fits and axis in (1, -1)
            same.update(dict.fromkeys(node.output, 2))
        elif any(x in rest for x in ours) or kind not in OUTPUT_NODES:
            fits = False
        elif kind in LABEL_NODES or all(x in labels for x in ours):
            fits = kind != "ArgMax" or axis in (1, -1)
            labels.update(node.output)
        else:
            of = same.get(node.input[0])
            fits = kind in ("ZipMap", "Normalizer") or (
                kind in PROBABILITY_PRESERVING_NODES
                and _is_identity_node(graph, node, held, attributes, of)
            )
            fits = fits and attributes.get("norm", b"L1") == b"L1"
            same.update(dict.fromkeys(node.output, of))
        raise_if_unsupported(not fits, f"{_node_name(node)} after {end}", SUPPORTED_NODES)
    raise_if_unsupported(
        not graph.outputs & {*same, *labels},
        f"the output of the graph after {end}",
        SUPPORTED_NODES,
    )
    return bool(labels)


def _dependent_nodes(graph: OnnxGraph, at: str) -> list[Any]:
    """Return all nodes that depend on the tensor `at`, in topological order."""
    names = {at}
    found = []
    for node in graph.nodes:
        if not names.isdisjoint(node.input):
            found.append(node)
            names.update(node.output)
    return found
