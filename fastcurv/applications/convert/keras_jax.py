"""Conversion of Keras and JAX networks, whose kernels are (in, out): from arrays, for which the
caller supplies order and activations, or from a Keras model, which contains both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...common.checks import as_numpy
from ...common.errors import one_line, type_phrase, warn_caller
from ...network.mlp import Model
from ...structure.tables import activations_in_library
from .sklearn import (
    LayerStack,
    check_activation,
    model_from_layers,
    raise_if_unsupported,
    unsupported_layer,
    warn_about_omitted_activation,
)

SUPPORTED_KERNELS_TEXT = "(in, out) matrices, each with a bias"
BIAS_NAME_PATTERN = re.compile(r"b(ias(es)?)?_?\d*")
OTHER_VECTOR_NAME_PATTERN = re.compile(
    r"(scale|gamma|gain|g|slope|alpha|mean|var|variance|count)_?\d*"
)
EMBEDDING_NAME_PATTERN = re.compile(r"embeddings?_?\d*")

MIN_KERAS_DEVIATION = 1e-7  # minimum standard deviation by which Normalization divides
KERAS_PACKAGES = ("keras", "tf_keras", "tensorflow")  # packages that define Keras classes
# layers that leave their input unchanged at prediction
IDENTITY_LAYERS = {
    *("InputLayer", "Flatten", "Identity", "Dropout", "AlphaDropout", "GaussianDropout"),
    *("GaussianNoise", "SpatialDropout1D", "ActivityRegularization"),
}
# layers that are folded into the linear maps
SCALING_LAYERS = {"BatchNormalization", "Normalization", "Rescaling"}
KERAS_ADVICE = (
    f"Dense layers, {', '.join(filter(str.islower, activations_in_library('keras')))}, LeakyReLU "
    f"with a slope of 0.01, {', '.join(sorted(SCALING_LAYERS))}, Flatten and Dropout, or "
    "get_weights() of such a model"
)


class PytreeLeaf(NamedTuple):
    """An array of a pytree.

    Attributes
    ----------
    name : str
        The path of the array from the root.
    home : str
        The path of the container that holds the array.
    key : str
        The key of the array in its container.
    array : ndarray
        The array itself.
    """

    name: str
    home: str
    key: str
    array: np.ndarray


def _read_kernels(leaves: Sequence[PytreeLeaf], activation: Any) -> Model:
    """Return the model and theta from arrays in order, each an (in, out) kernel or the bias of the
    kernel before. `activation` is that of the hidden layers. Raise ValueError for other arrays.
    """
    found: list[tuple[PytreeLeaf, Any]] = []
    for leaf in leaves:
        array = leaf.array
        key = leaf.key.lower()
        last, bias = found[-1] if found else (None, None)
        if array.ndim == 2 and not (
            BIAS_NAME_PATTERN.fullmatch(key) or EMBEDDING_NAME_PATTERN.fullmatch(key)
        ):
            found.append((leaf, None))
        elif (
            array.ndim == 1
            and last is not None
            and bias is None
            and last.home == leaf.home
            and not OTHER_VECTOR_NAME_PATTERN.fullmatch(key)
        ):
            found[-1] = last, array
        else:
            raise unsupported_layer(f"{leaf.name} of shape {array.shape}", SUPPORTED_KERNELS_TEXT)
    if not found:
        raise ValueError(f"weights must be {SUPPORTED_KERNELS_TEXT}, got an empty list.")
    layers = [(kernel.array.T, bias) for kernel, bias in found]
    return model_from_layers(layers, activation, [kernel.name for kernel, _ in found])


# --- Keras


def from_keras(weights: Any, activation: Any = None) -> Model:
    """Return the model and theta of a Keras ``Sequential`` of ``Dense`` layers.

    Parameters
    ----------
    weights : list of array_like, or a model
        The result of ``model.get_weights()``: kernels ``(in, out)``, each followed by its bias if
        there is one; kernels are transposed. Or the model itself, a stack of ``Dense``,
        ``Activation ReLU LeakyReLU ELU``, ``Flatten``, ``Dropout`` and noise layers.
        ``BatchNormalization``, as it predicts, ``Normalization`` and ``Rescaling`` are folded into
        the linear layers, with a warning, since the parameters then differ from the layers' own. A
        softmax or sigmoid at the end belongs to the loss and is left out, with a warning unless
        the model was compiled with a cross entropy of probabilities.
    activation : str or sequence of str, optional
        Activation of the hidden layers, by fastcurv's names. Default: that of the model. Required
        for a list of weights with hidden layers, because the list does not specify it.

    Returns
    -------
    model : MLP
        The network, in the dtype of the weights.
    theta : ndarray (n,)
        The parameters of the network.

    Raises
    ------
    ValueError
        If the arrays are not a sequence of kernels and biases, if a layer has no counterpart in
        `MLP`, if `activation` differs from that of the model, or if `activation` is required and
        missing.

    See Also
    --------
    from_torch, from_jax, from_sklearn, from_onnx : Conversion from other libraries.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> weights = [np.ones((3, 2)), np.zeros(2), np.ones((2, 1)), np.zeros(1)]
    >>> fc.from_keras(weights, activation="tanh")[0]
    MLP([3, 2, 1], activation='tanh', bias=True, residual=False, dtype='float64')
    """
    if hasattr(weights, "get_weights"):
        return _read_keras_model(weights, activation)
    if not isinstance(weights, (list, tuple)):
        named = isinstance(weights, (str, os.PathLike))
        wanted = " Use keras.saving.load_model(path) for a file." if named else ""
        raise TypeError(
            f"weights must be a model or the result of get_weights(), "
            f"got {type_phrase(weights)}.{wanted}"
        )
    leaves = [
        PytreeLeaf(f"weights[{i}]", "weights", "", as_numpy(w, f"weights[{i}]"))
        for i, w in enumerate(weights)
    ]
    return _read_kernels(leaves, activation)


def _read_keras_model(network: Any, activation: Any) -> Model:
    """Return the model and theta of the Keras model `network`, which is read layer by layer. Raise
    ValueError if `activation` is given and differs from that of the layers.
    """
    stack = LayerStack()
    seen = set()
    for layer in _flatten_layers(network):
        name = f"{type(layer).__name__} ({getattr(layer, 'name', 'layer')})"
        raise_if_unsupported(
            id(layer) in seen and layer.get_weights(), f"{name}, which is used twice,", KERAS_ADVICE
        )
        seen.add(id(layer))
        _read_keras_layer(stack, layer, name)
    model, theta = stack.build_model()
    check_activation(model, activation)
    if not _takes_probabilities(getattr(network, "loss", None)):
        warn_about_omitted_activation(stack)
    folded = sorted(SCALING_LAYERS.intersection(map(_keras_class_name, _flatten_layers(network))))
    if folded:
        warn_caller(
            f"{' and '.join(folded)} of the network {'are' if folded[1:] else 'is'} folded into "
            f"the linear layers: n is {theta.size}, and gradient, Hessian and sharpness are those "
            "of the folded parameters, not of the layers' own.",
            UserWarning,
        )
    return model, theta


def _takes_probabilities(loss: Any) -> bool:
    """Return True if a Keras loss is a cross entropy without ``from_logits=True``. Such a loss
    takes probabilities, so the softmax or sigmoid at the end of a network belongs to the loss.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    logits = getattr(loss, "_fn_kwargs", getattr(loss, "fn_kwargs", {})).get("from_logits", False)
    return name.lower().replace("_", "").endswith("crossentropy") and not logits


def _flatten_layers(network: Any) -> list[Any]:
    """Return the layers of the possibly nested model `network` in order. Raise ValueError if the
    layers of a functional model do not form a chain.
    """
    kind = _keras_class_name(network)
    if kind not in ("Sequential", "Functional", "Model"):
        return [network]
    inner = list(network.layers)
    if kind != "Sequential":
        try:
            ends = [network.inputs[0], *(layer.output for layer in inner)]
            takes = [layer.input for layer in inner]
            one = (
                len(network.inputs) == len(network.outputs) == 1 and network.outputs[0] is ends[-1]
            )
            chained = one and all(
                taken is given or _keras_class_name(layer) == "InputLayer"
                for layer, taken, given in zip(inner, takes, ends)
            )
        except (AttributeError, ValueError, IndexError):
            # A layer that is used twice has no single input.
            chained = False
        raise_if_unsupported(
            not chained, f"{kind}, whose layers do not form a chain,", KERAS_ADVICE
        )
    return [leaf for layer in inner for leaf in _flatten_layers(layer)]


def _keras_class_name(layer: Any) -> str:
    """Return the name of the class of `layer` if Keras defines it, or "" for other classes and for
    layers to which another ``call`` is assigned.
    """
    kind = type(layer)
    own = {"call", "__call__"} & vars(layer).keys()
    return kind.__name__ if kind.__module__.split(".")[0] in KERAS_PACKAGES and not own else ""


def _read_keras_layer(stack: LayerStack, layer: Any, name: str) -> None:
    """Add one Keras layer to the stack. `name` describes the layer in messages. Raise ValueError if
    the layer is not supported.
    """
    kind = _keras_class_name(layer)
    known = activations_in_library("keras")
    settings = layer.get_config() if kind else {}
    phi = getattr(layer, "activation", None)
    raise_if_unsupported(
        callable(phi) and str(getattr(phi, "__module__", "")).split(".")[0] not in KERAS_PACKAGES,
        f"the activation {one_line(phi)} of {name}, a user-defined function,",
        KERAS_ADVICE,
    )
    raise_if_unsupported(
        kind in ("Dense", "Softmax") and _n_input_axes(layer) > 2,
        f"{name} of an input with {_n_input_axes(layer)} axes",
        KERAS_ADVICE,
    )
    if kind == "Dense":
        arrays = [as_numpy(w, f"a weight of {name}") for w in layer.get_weights()]
        if not arrays and not getattr(layer, "built", True):
            raise ValueError(
                f"{name} must have weights, got none. Call model.build((None, inputs)) first."
            )
        raise_if_unsupported(
            len(arrays) != 1 + bool(settings.get("use_bias", True)) or arrays[0].ndim != 2,
            f"{name} of {len(arrays)} arrays",
            KERAS_ADVICE,
        )
        stack.add_linear(arrays[0].T, arrays[1] if len(arrays) > 1 else None, name)
    if kind in ("Dense", "Activation"):
        phi = settings.get("activation", "linear")
        if phi in ("softmax", "log_softmax"):
            stack.add_softmax(f"the {phi} of {name}", said=phi == "softmax")
        elif isinstance(phi, str) and phi in known and phi.islower():
            stack.add_foreign_activation(
                "keras", phi, {}, f"the {phi} of {name}" if phi == "sigmoid" else name
            )
        else:
            said = phi if isinstance(phi, str) else type_phrase(phi)
            raise unsupported_layer(f"the activation {said!r} of {name}", KERAS_ADVICE)
    elif kind in known and not kind.islower():
        # The layer class is an activation.
        stack.add_foreign_activation("keras", kind, settings, name)
    elif kind == "Softmax" and settings.get("axis", -1) in (1, -1):
        stack.add_softmax(name)
    elif kind in SCALING_LAYERS:
        _read_scaling_layer(stack, kind, layer, settings, name)
    elif kind not in IDENTITY_LAYERS or settings.get("data_format") == "channels_first":
        raise unsupported_layer(name, KERAS_ADVICE)


def _read_scaling_layer(
    stack: LayerStack, kind: str, layer: Any, settings: Mapping[str, Any], name: str
) -> None:
    """Add a layer that scales and shifts features at prediction to the stack. `kind` is one of
    `SCALING_LAYERS`, and `settings` the result of the layer's ``get_config()``.
    """
    parts: list[Any]
    like: Any
    if kind == "Rescaling":
        scale, shift = (np.asarray(settings[key], np.float64) for key in ("scale", "offset"))
        parts = [scale, shift]
        like = np.float32(0)
    else:
        keys = ["gamma", "beta", "moving_mean", "moving_variance"]
        keys = keys if kind == "BatchNormalization" else ["mean", "variance"]
        held = [getattr(layer, key, None) for key in keys]
        if held[-1] is None or held[-2] is None:
            cure = "model.build((None, inputs))" if keys[2:] else "layer.adapt(X)"
            raise ValueError(
                f"{name} must have a mean and a variance, got none. Call {cure} first."
            )
        parts = [None if x is None else as_numpy(x, f"a weight of {name}") for x in held]
        like = parts[-1]
    axis = settings.get("axis", -1)
    axis = list(axis) if isinstance(axis, (list, tuple)) else [] if axis is None else [axis]
    last = axis in ([], [-1], [_n_input_axes(layer) - 1])
    raise_if_unsupported(
        _n_input_axes(layer) > 2 and any(np.size(x) > 1 for x in parts if x is not None),
        f"{name} of an input with {_n_input_axes(layer)} axes before any Flatten",
        KERAS_ADVICE,
    )
    raise_if_unsupported(
        not last, f"{name} along axis {axis[0] if len(axis) == 1 else axis}", KERAS_ADVICE
    )
    if kind == "BatchNormalization":
        ones = np.ones_like(like)
        gamma, beta = (d if x is None else x for x, d in zip(parts, (ones, 0 * ones)))
        stack.add_frozen_batch_norm([gamma, beta, *parts[2:]], settings["epsilon"], name)
        return
    if kind == "Normalization":
        mean, variance = (np.asarray(x, np.float64).reshape(-1) for x in parts)
        scale = np.maximum(np.sqrt(variance), MIN_KERAS_DEVIATION)
        scale, shift = (scale, mean) if settings.get("invert") else (1 / scale, -mean / scale)
    stack.add_affine(scale, shift, name, like)


def _n_input_axes(layer: Any) -> int:
    """Return the number of axes of a layer's input, or 2 if this number is unknown."""
    try:
        return len(layer.input.shape)
    except (AttributeError, ValueError, TypeError):
        # A layer that was never called, or is used twice, has no single input.
        return 2


# --- JAX


def _strip_numbers(name: str) -> str:
    """Return a name without a number at its end, and with all other numbers replaced by #. Names
    for which the results are equal are ordered by their numbers.
    """
    return re.sub(r"\d+", "#", re.sub(r"_?\d+$", "", name))


def _tree_leaves(tree: Any, name: str, home: str, key: str) -> list[PytreeLeaf]:
    """Return the arrays of a pytree: layers in order, each kernel before its bias. `name` is the
    path of `tree` from the root, and `home` and `key` are those of a `PytreeLeaf`.
    """
    if isinstance(tree, Mapping):
        parts = {k: _tree_leaves(tree[k], f"{name}[{k!r}]", name, str(k)) for k in tree}
        return [leaf for part in _order_pytree_layers(parts, name) for leaf in part]
    if isinstance(tree, (list, tuple)):
        inner = [_tree_leaves(x, f"{name}[{i}]", name, "") for i, x in enumerate(tree)]
        # The two parts are a kernel and its bias.
        if home and [*map(len, inner)] == [1, 1]:
            kernel, bias = (part[0].array.shape for part in inner)
            raise_if_unsupported(
                len(kernel) == 2 and bias == (1, kernel[1]),
                f"{inner[1][0].name} of shape {bias}",
                SUPPORTED_KERNELS_TEXT,
            )
        return [leaf for part in inner for leaf in part]
    if tree is None:
        return []
    array = as_numpy(tree, name)
    if array.dtype == object:
        raise TypeError(
            f"{name} must be arrays in dictionaries or lists, got {type_phrase(tree)}. Use "
            "nnx.state(module) of Flax, or [(l.weight.T, l.bias) for l in net.layers] of Equinox."
        )
    return [PytreeLeaf(name, home, key, array)]


def _order_pytree_layers(parts: dict[Any, list[PytreeLeaf]], name: str) -> list[list[PytreeLeaf]]:
    """Return the values of the mapping `parts` in order. Values with matrices, the layers, come
    first, in the only order that is consistent with the numbers in their names and with their
    widths. Raise ValueError, with `name` for the mapping, if there are several such orders.
    """
    # Numbers in names are compared as integers, so Dense_2 precedes Dense_10.
    numbered = {k: re.split(r"(\d+)", str(k)) for k in parts if parts[k]}
    keys = sorted(numbered, key=lambda k: [int(p) if p.isdigit() else p for p in numbered[k]])
    layers = [k for k in keys if any(leaf.array.ndim == 2 for leaf in parts[k])]
    rest = [parts[k] for k in keys if k not in layers]
    if len({_strip_numbers(str(k)) for k in layers}) > 1:
        shapes = {k: [a.shape for _, _, _, a in parts[k] if a.ndim == 2] for k in layers}
        orders = _find_two_orders(layers, lambda a, b: shapes[a][-1][1] == shapes[b][0][0], [])
        if len(orders) > 1:
            said = ", ".join(repr(k) for k in layers)
            raise ValueError(
                f"{name} must have names that give the order of its layers, got {said}. Put "
                "numbers in the names, or use a list of layers in order."
            )
        layers = orders[0] if orders else layers
    return [parts[k] for k in layers] + rest


def _find_two_orders(
    left: list[Any], fits: Callable[[Any, Any], bool], done: list[Any]
) -> list[list[Any]]:
    """Return at most two orders of `left`, after the elements `done`, in which ``fits(previous,
    next)`` is True for all neighbours. `left` is sorted, and elements whose names differ only in
    numbers keep their order.
    """
    if not left:
        return [done]
    found: list[list[Any]] = []
    stems: set[str] = set()
    for k in left:
        stem = _strip_numbers(str(k))
        if stem not in stems and (not done or fits(done[-1], k)) and len(found) < 2:
            found += _find_two_orders([other for other in left if other is not k], fits, [*done, k])
        stems.add(stem)
    return found[:2]


def from_jax(params: Any, activation: Any = None) -> Model:
    """Return the model and theta from the parameters of a JAX network: a pytree of kernels and
    biases.

    Parameters
    ----------
    params : pytree
        Nested dictionaries of Flax or Haiku, or lists of ``(kernel, bias)``. Kernels are ``(in,
        out)``, used as ``x @ kernel + bias``. Layers are ordered by the numbers in their names or,
        if there are none, by the only order that is consistent with their widths. For Flax NNX pass
        ``nnx.state(module)``; for Equinox, whose weights are ``(out, in)``, ``[(l.weight.T, l.bias)
        for l in net.layers]``.
    activation : str or sequence of str, optional
        Activation of the hidden layers, by fastcurv's names. Required for a network with
        hidden layers, because the parameters do not specify it.

    Returns
    -------
    model : MLP
        The network, in the dtype of the weights.
    theta : ndarray (n,)
        The parameters of the network.

    Raises
    ------
    ValueError
        If an array is neither a kernel nor its bias, if the order of the layers is ambiguous, or if
        the activation is missing.
    TypeError
        For leaves that are not arrays, such as modules.

    See Also
    --------
    from_torch, from_keras, from_sklearn, from_onnx : Conversion from other libraries.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> dense = lambda k, m: {"kernel": np.ones((k, m)), "bias": np.zeros(m)}
    >>> params = {"params": {"Dense_0": dense(3, 2), "Dense_1": dense(2, 1)}}
    >>> model, theta = fc.from_jax(params, activation="relu")
    >>> model.sizes
    (3, 2, 1)
    """
    return _read_kernels(_tree_leaves(params, "params", "", ""), activation)
