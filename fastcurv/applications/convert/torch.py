"""Conversion of models from PyTorch and to it."""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...common.errors import one_line, require_attrs, type_phrase, warn_caller
from ...common.optional import optional_import
from ...network.arguments import raise_if_user_activation
from ...network.mlp import MLP, Model
from .activations import ACTIVATIONS_IN_LIBRARY, TORCH_CLASSES
from .sklearn import (
    LayerStack,
    check_activation,
    model_from_layers,
    raise_if_unsupported,
    unsupported_layer,
    warn_about_omitted_activation,
)

# Key: a wrapper. Value: the attribute with the module that it wraps.
WRAPPER_ATTRIBUTES = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
TORCH_MODULE_PREFIXES = ("torch.nn.modules.", "torch.nn.parallel.", "torch._dynamo.")
# Key: a function of torch or method of a tensor. Value: the class of the corresponding module, and
# the arguments after x.
FUNCTION_MODULES = {
    "linear": ("Linear", ("weight", "bias")),
    "dropout": ("Dropout", ("p", "training")),
    "flatten": ("Flatten", ("start_dim", "end_dim")),
    "softmax": ("Softmax", ("dim",)),
    "log_softmax": ("LogSoftmax", ("dim",)),
    **dict.fromkeys(("add", "iadd"), ("add", ())),
}
# defaults of functions in `FUNCTION_MODULES` that differ from those of the corresponding modules
FUNCTION_DEFAULTS: dict[str, dict[str, Any]] = {
    "Dropout": {"p": 0.5, "training": True},
    "Flatten": {"start_dim": 0, "end_dim": -1},
    "Softmax": {"dim": None},
    "LogSoftmax": {"dim": None},
    "Linear": {"bias": None},
}
# Maximum relative difference of outputs in float64 that counts as equal. The limit is far above
# rounding errors and far below the difference between two functions.
SAME_OUTPUT_TOL = 1e-6
STATE_DICT_TEXT = "linear layers: a weight and its bias"
DROPOUT_MODULES = ("Dropout", "AlphaDropout", "Dropout1d")


def _parameter_array(tensor: Any) -> np.ndarray:
    """Return a parameter on any device as a NumPy array, half precision as float32. Raise
    ValueError for the device "meta", and for sparse, nested and quantised tensors.
    """
    if str(tensor.device) == "meta":
        raise ValueError(
            "the parameters of module must have values, got a tensor of shape "
            f"{tuple(tensor.shape)} on the device 'meta'. Use module.to_empty(device='cpu') and "
            "load its state dict."
        )
    is_dense = str(tensor.layout) == "torch.strided" and not tensor.is_nested
    if not is_dense or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise ValueError(
            f"the parameters of module must be dense tensors, got a {kind} one. Use "
            "tensor.to_dense() or tensor.dequantize()."
        )
    tensor = tensor.detach().cpu().resolve_conj()
    return np.asarray((tensor.float() if tensor.element_size() < 4 else tensor).numpy())


class ForwardStep(NamedTuple):
    """One step of a forward pass.

    Attributes
    ----------
    name : str
        The name of the step in messages.
    kind : str
        The name of a torch class, or of an operation such as "view", "fork" or "join".
    settings : object
        An object with the settings as attributes, such as a module, or the shape of a "view".
    """

    name: str
    kind: str
    settings: Any


def _flatten_module(module: Any, name: str) -> list[ForwardStep]:
    """Return the steps of a module in order. Nested containers, and wrappers that compile or
    parallelise a module, are resolved. Other modules with their own ``forward`` are traced.
    """
    kind = _torch_class_name(module)
    said = f"{name} ({type(module).__name__})"
    if any(base.__name__ == "ScriptModule" for base in type(module).__mro__):
        raise ValueError(
            f"{said} must be a module before torch.jit, got a compiled one. Pass the module that "
            "was compiled, or its state dict with activation=..."
        )
    _check_plain_forward(module, said, kind in WRAPPER_ATTRIBUTES)
    if kind in WRAPPER_ATTRIBUTES:
        return _flatten_module(getattr(module, WRAPPER_ATTRIBUTES[kind]), name)
    if kind == "Sequential":
        parts = module._modules.items()
        return [step for key, part in parts for step in _flatten_module(part, f"{name}[{key}]")]
    if not kind:
        return _trace_steps(module, name)
    return [ForwardStep(f"{name} ({kind})" if "." in kind else said, kind, module)]


def _torch_class_name(module: Any) -> str:
    """Return the name of torch's class whose ``forward`` the module uses, or "" if the module
    defines its own ``forward``.
    """
    own: Any = type(module)
    for base in own.__mro__:
        if base.__module__.startswith(TORCH_MODULE_PREFIXES) and base.__name__ != "Module":
            same = own.forward is base.forward or base.__name__ in WRAPPER_ATTRIBUTES
            return str(base.__name__) if same else ""
    return f"{own.__module__}.{own.__name__}" if own.__module__.startswith("torch.") else ""


def _check_plain_forward(module: Any, said: str, wraps: bool) -> None:
    """Raise a ValueError if calling a module does more than the ``forward`` of its class. `said`
    describes the module in messages, and `wraps` is True for the classes in `WRAPPER_ATTRIBUTES`.
    """
    from torch.nn.modules import module as plain

    hooks = ("_forward_hooks", "_forward_pre_hooks")
    found = [h for h in hooks if getattr(module, h, None) or getattr(plain, "_global" + h, None)]
    if found:
        raise ValueError(
            f"{said} must have no forward hooks, which may change what it computes, got hooks in "
            f"{found[0]}. Remove each with handle.remove(), weight norms and pruning with the "
            "functions of torch.nn.utils, and call lazy modules once."
        )
    raise_if_unsupported(
        getattr(module, "parametrizations", None),
        f"{said}, whose weights are computed from other parameters,",
    )
    own: Any = type(module)
    calls = ("__call__", "_call_impl", "_wrapped_call_impl")
    raise_if_unsupported(
        not wraps
        and any(
            getattr(own, call, None) is not getattr(plain.Module, call, None) for call in calls
        ),
        f"{said}, a class with a __call__ of its own,",
    )
    raise_if_unsupported(
        not wraps and "forward" in vars(module), f"{said}, whose forward is the instance's own,"
    )


def _trace_steps(module: Any, name: str) -> list[ForwardStep]:
    """Return the steps of a user-defined ``forward``, from the graph that torch.fx records."""
    import torch
    import torch.fx

    said = f"{name} ({type(module).__name__})"
    instead = " If it is a stack of layers, use from_torch(module.state_dict(), activation=...)."
    tracer: Any = type("Tracer", (torch.fx.Tracer,), {"is_leaf_module": lambda *_: True})()
    signature = inspect.signature(type(module).forward).parameters.values()
    defaults = {p.name: p.default for p in signature if p.default is not p.empty}
    first = list(signature)[1].name if len(signature) > 1 else ""
    defaults.pop(first, None)
    try:
        graph = tracer.trace(module, concrete_args=defaults or None)
    except Exception as error:
        # `forward` was called with proxies of torch.fx and may raise any error.
        nodes = list(getattr(getattr(tracer, "graph", None), "nodes", ()))
        at = f" at {nodes[-1].name!r}" if nodes else ""
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{said} must have a forward without control flow on data, got one without a "
            f"graph{at} ({why}).{instead}"
        ) from None
    steps: list[ForwardStep] = []
    at = next(node for node in graph.nodes if node.op == "placeholder")
    saved: list[Any] = []
    while True:
        readers = list(at.users)
        sums = [node for node in readers if _called_function(node)[0] == "add"]
        if len(readers) == 2 and len(sums) == 1 and not saved:
            steps.append(ForwardStep(f"{name} ({sums[0].name})", "fork", None))
            saved = [at, sums[0]]
            readers.remove(sums[0])
        if len(readers) != 1:
            readers = [f"{node.name!r}" for node in readers]
            what = f"{name} ({at.name}), read by {', '.join(readers) or 'nothing'},"
            raise unsupported_layer(f"{what} in {type(module).__name__}")
        node = readers[0]
        if node.op == "output":
            raise_if_unsupported(
                node.args != (at,) or saved, f"{said}, which returns more than one tensor,"
            )
            return steps
        steps += _steps_of_node(module, node, at, saved, name)
        if saved and node is saved[1]:
            saved = []
        at = node


def _called_function(node: Any) -> tuple[str, tuple[str, ...]]:
    """Return the kind of step of a node that calls a function or a method, and the names of the
    arguments after the tensor. Return ("", ()) if the function is unknown.
    """
    import torch

    target = node.target
    name = target if node.op == "call_method" else getattr(target, "__name__", "")
    # In-place variants are allowed, since no other node reads their argument.
    plain = name.rstrip("_")
    homes = (torch, torch.nn.functional, operator)
    if node.op == "call_function" and not any(getattr(h, name, None) is target for h in homes):
        return "", ()
    if node.op not in ("call_function", "call_method"):
        return "", ()
    theirs = TORCH_CLASSES.get(plain, "")
    settings = ACTIVATIONS_IN_LIBRARY["torch"][theirs][1] if theirs else {}
    return FUNCTION_MODULES.get(plain) or (theirs, tuple(settings))


def _steps_of_node(
    module: Any, node: Any, at: Any, saved: list[Any], name: str
) -> list[ForwardStep]:
    """Return the steps that one node of a graph represents. `at` is the node before, and `saved`
    holds the node at which a skip connection starts and the node of its sum, or nothing.
    """
    where = "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in str(node.target).split("."))
    if node.op == "call_module" and node.args == (at,) and not node.kwargs:
        return _flatten_module(module.get_submodule(node.target), f"{name}{where}")
    said = f"{name} ({node.name})"
    kind, names = _called_function(node)
    rest = node.args[1:] if node.args and node.args[0] is at else None
    pair = len(node.args) == 2 and not node.kwargs
    if kind == "add" and saved and pair and {*map(id, node.args)} == {id(saved[0]), id(at)}:
        return [ForwardStep(said, "join", None)]
    if kind in ("", "add") or rest is None:
        called = getattr(node.target, "__name__", node.target)
        raise unsupported_layer(f"{said}, {node.op.replace('_', ' of a ')} {called},")
    words = {key: x for key, x in node.kwargs.items() if key not in ("inplace", "_stacklevel")}
    given = {**FUNCTION_DEFAULTS.get(kind, {}), **words, **dict(zip(names, rest))}
    has_unknown = given.pop("dtype", None) is not None or not set(given) <= set(names)
    # A further argument that is True or False selects the in-place variant.
    if has_unknown or not all(isinstance(x, bool) for x in rest[len(names) :]):
        raise unsupported_layer(f"{said} with unsupported arguments")
    if kind == "Linear":
        own = dict(module.named_parameters(remove_duplicate=False))
        given = {key: own.get(getattr(x, "target", None), x) for key, x in given.items()}
    raise_if_unsupported(
        any(hasattr(x, "op") for x in given.values()), f"{said} with a number that is computed"
    )
    return [ForwardStep(said, kind, SimpleNamespace(**given))]


def _check_equal_dtypes(module: Any, name: str, stack: LayerStack) -> None:
    """Raise a ValueError if a parameter of the module has another dtype than the parameters before,
    since torch cannot multiply tensors of different dtypes. Parameters in half precision are not
    checked.
    """
    for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
        if tensor is not None and tensor.element_size() >= 4:
            stack.given = tensor.dtype if stack.given is None else stack.given
            if tensor.dtype != stack.given:
                raise ValueError(
                    f"{name} must be of dtype {stack.given}, that of the layers before, "
                    f"got {tensor.dtype}. Use module.to(dtype)."
                )


def _check_no_shared_tensors(module: Any, name: str, seen: dict[int, tuple[str, Any]]) -> None:
    """Raise a ValueError if an earlier layer has the same weight or bias tensor. Add the tensors of
    the module to `seen`, which maps the id of a tensor to the pair (name of its layer, tensor).
    """
    for part, tensor in (("weight", module.weight), ("bias", module.bias)):
        if id(tensor) in seen:
            raise unsupported_layer(f"{name}, which shares the {part} of {seen[id(tensor)][0]},")
        if tensor is not None:
            seen[id(tensor)] = name, tensor


def _read_batch_norm(
    stack: LayerStack, module: Any, name: str, seen: dict[int, tuple[str, Any]]
) -> None:
    _check_equal_dtypes(module, name, stack)
    ones = np.ones(module.num_features, np.float32)
    gamma = ones if module.weight is None else _parameter_array(module.weight)
    beta = 0 * ones if module.bias is None else _parameter_array(module.bias)
    if module.training or module.running_mean is None:
        _check_no_shared_tensors(module, name, seen)
        stack.add_batch_norm(gamma, beta, module.eps, name)
    else:
        moments = _parameter_array(module.running_mean), _parameter_array(module.running_var)
        stack.add_frozen_batch_norm([gamma, beta, *moments], module.eps, name)


def _add_step_to_stack(
    stack: LayerStack, step: ForwardStep, seen: dict[int, tuple[str, Any]]
) -> None:
    """Add one step to the stack. `seen` is that of `_check_no_shared_tensors`."""
    name, kind, module = step
    if kind == "Linear":
        _check_equal_dtypes(module, name, stack)
        _check_no_shared_tensors(module, name, seen)
        bias = None if module.bias is None else _parameter_array(module.bias)
        stack.add_linear(_parameter_array(module.weight), bias, name)
    elif kind == "BatchNorm1d":
        _read_batch_norm(stack, module, name, seen)
    elif kind in ACTIVATIONS_IN_LIBRARY["torch"]:
        wanted = ACTIVATIONS_IN_LIBRARY["torch"][kind][1]
        stack.add_foreign_activation(
            "torch", kind, {key: getattr(module, key, wanted[key]) for key in wanted}, name
        )
    elif kind in ("Softmax", "LogSoftmax"):
        if module.dim not in (1, -1, None):
            raise ValueError(
                f"{name} must have dim=1 or -1, the axis of the classes, got "
                f"dim={module.dim}, which mixes rows."
            )
        stack.add_softmax(name, said=kind == "Softmax")
    elif kind in DROPOUT_MODULES:
        if module.training and module.p > 0:
            raise ValueError(
                f"{name} must be in evaluation mode, got training mode, in which it draws at "
                "random. Call module.eval() first, and use F.dropout(x, training=self.training)."
            )
    elif kind == "fork":
        stack.begin_skip(name)
    elif kind == "join":
        stack.end_skip(name)
    elif kind == "Flatten":
        ends = module.start_dim, module.end_dim
        raise_if_unsupported(
            ends not in ((1, -1), (1, 1), (-1, -1)),
            f"{name} with start_dim={ends[0]} and end_dim={ends[1]}, which joins rows,",
        )
    else:
        raise unsupported_layer(name)


def from_torch(module: Any, activation: Any = None) -> Model:
    """Return the model and theta of a torch module or of a state dict.

    Parameters
    ----------
    module : torch.nn.Module or a state dict
        A Sequential, nested or not, or a class with its own ``forward``, which is traced by
        ``torch.fx`` and may contain layers, functions (``F.relu``, ``x.tanh()``), and ``x + f(x)``
        around one hidden layer. Supported layers: ``Linear``, ``ReLU LeakyReLU Tanh Sigmoid
        Softplus SiLU GELU ELU Identity``, ``Flatten``, ``Dropout`` in eval mode, ``BatchNorm1d``,
        and at the end ``Softmax``, ``LogSoftmax`` or ``Sigmoid``, which belong to the loss and are
        left out. A warning is
        issued for ``Softmax`` and ``Sigmoid``, since torch's ``CrossEntropyLoss`` and
        ``BCEWithLogitsLoss`` would apply them a second time. ``LeakyReLU`` must have a slope of
        0.01, and ``GELU`` its exact form. Batch normalisation in eval mode is folded into the
        linear layers, with a warning, because the function stays the same, but the parameters and
        the Hessian with respect to them change. In training mode, batch normalisation after each
        hidden ``Linear`` gives a model with ``batch_norm=True``, in which all linear layers have
        biases and all normalisations have scales and shifts, with a warning if the module has none.
        A state dict must hold the weights and biases of linear layers in the order of the forward
        pass, or sorted by name if the names differ in a number only.
    activation : str or sequence of str, optional
        Activation of the hidden layers, by fastcurv's names. Required for a state dict with hidden
        layers, because a state dict does not contain activations. For a module, the default is the
        activation of the module, and a different one raises ValueError.

    Returns
    -------
    model : MLP
        The network, in the dtype of the parameters. Half precision is converted to float32.
    theta : ndarray (n,)
        The parameters, in the order of ``module.parameters()`` unless a warning was issued.

    Raises
    ------
    ValueError
        If a layer has no counterpart in `MLP`, shares a parameter with another, mixes rows, or has
        forward hooks. The message names the first such layer.
    TypeError
        If `module` is neither a module nor a state dict.

    See Also
    --------
    to_torch : Conversion to torch.
    from_sklearn, from_onnx : Conversion from other libraries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> weights = {"0.weight": [[1.0, 2.0]], "0.bias": [0.5]}
    >>> model, theta = fc.from_torch(weights, activation="tanh")
    >>> model.sizes, theta.tolist()
    ((2, 1), [1.0, 2.0, 0.5])
    """
    if isinstance(module, Mapping):
        return _model_from_state(module, activation)
    if not hasattr(module, "named_parameters"):
        named = isinstance(module, (str, os.PathLike))
        wanted = " Use torch.load(path) for a file." if named else ""
        raise TypeError(
            f"module must be a module or a state dict, got {type_phrase(module)}.{wanted}"
        )
    stack = LayerStack()
    seen: dict[int, tuple[str, Any]] = {}
    steps = _flatten_module(module, "module")
    for step in steps:
        _add_step_to_stack(stack, step, seen)
    model, theta = stack.build_model()
    check_activation(model, activation)
    warn_about_omitted_activation(stack)
    if any(not _torch_class_name(part) for part in module.modules()):
        _check_equal_outputs(module, model, theta)
    kinds = [step.kind for step in steps]
    folded = "batch normalisation in eval mode" * (kinds.count("BatchNorm1d") > len(stack.norms))
    _warn_if_theta_differs(module, folded, theta, [tensor for _, tensor in seen.values()])
    return model, theta


def _check_equal_outputs(module: Any, model: MLP, theta: np.ndarray) -> None:
    """Raise a ValueError if a user-defined ``forward`` and its traced graph give different results
    on random rows. A ``forward`` may branch on its argument, and the graph records only the branch
    taken for torch.fx's proxies.
    """
    import torch

    if any(
        "OptimizedModule" in _torch_class_name(m) or m._compiled_call_impl for m in module.modules()
    ):
        return  # a compiled module may take minutes for one call
    # rows of several sizes, because units may be 0 at all rows of one
    X = np.random.default_rng(0).standard_normal((200, model.sizes[0]))
    X *= 10.0 ** np.repeat(np.arange(-1, 3), 50)[:, None]
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    doubles = {
        name: (x.double() if x.is_floating_point() else x).detach().cpu().clone()
        for name, x in held.items()
    }
    ours = torch.from_numpy(model.astype("float64").predict(theta, X))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            theirs = torch.func.functional_call(module, doubles, torch.from_numpy(X))
        theirs = theirs.reshape(ours.shape).double()
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise ValueError(
            f"module ({type(module).__name__}) must accept rows of {X.shape[1]} features, got an "
            f"error for shape {X.shape} ({text})."
        ) from None
    ends = (ours, ours.softmax(-1), ours.log_softmax(-1), ours.sigmoid())
    far = [float((theirs - end).abs().max() / (1 + end.abs().max())) for end in ends]
    if not min(far) <= SAME_OUTPUT_TOL:
        raise ValueError(
            f"module ({type(module).__name__}) must have a forward whose control flow does not "
            f"depend on its input, got results that differ from its graph by {min(far):.1g}."
        )


def _warn_if_theta_differs(module: Any, folded: str, theta: np.ndarray, read: list[Any]) -> None:
    """Warn if theta differs from the module's own parameters, because the steps that `folded` names
    are part of linear layers, or because their number or order differs from that of the tensors
    `read`.
    """
    own = list(module.parameters())
    n = sum(p.numel() for p in own)
    frozen = [p for p in own if not p.requires_grad]
    if 0 < len(frozen) < len(own):
        warn_caller(
            f"{sum(p.numel() for p in frozen)} parameters of the module are frozen "
            "(requires_grad=False): gradient, Hessian and verdicts are those of all parameters, "
            "the frozen ones included.",
            UserWarning,
        )
    if folded:
        what = f"{folded} is folded into the linear layers"
        whose = "folded"
    elif n != theta.size:
        what = f"the module has {n} parameters, unlike the model"
        whose = "model's"
    elif len(own) != len(read) or any(p is not q for p, q in zip(own, read)):
        what = "the module lists its parameters in a different order"
        whose = "forward pass's"
    else:
        return
    warn_caller(
        f"{what}: n is {theta.size}, and gradient, Hessian and sharpness are those of the {whose} "
        "parameters, not of the module's own.",
        UserWarning,
    )


def _model_from_state(state: Mapping[str, Any], activation: Any) -> Model:
    """Return the model and theta from a state dict, which holds the weights and biases of linear
    layers by name.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, tensor in state.items():
        layer, _, part = str(key).rpartition(".")
        said = repr(one_line(key))
        if isinstance(tensor, Mapping):
            raise ValueError(
                f"module must be a state dict, got a dictionary with one in {said}. Pass its "
                f"entry {said}."
            )
        raise_if_unsupported(
            part not in ("weight", "bias"), f"{said} in the state dict", STATE_DICT_TEXT
        )
        value = _parameter_array(tensor) if hasattr(tensor, "detach") else np.asarray(tensor)
        raise_if_unsupported(
            any(
                np.may_share_memory(value, before)
                for parts in found.values()
                for before in parts.values()
            ),
            f"{said} in the state dict, which shares memory with another entry,",
        )
        if value.ndim != (2 if part == "weight" else 1):
            normal = f"{layer}.running_var" in state
            what = f"{said} of shape {value.shape}"
            what += ", batch normalisation (pass the module itself in eval mode)," * normal
            raise unsupported_layer(what, STATE_DICT_TEXT)
        found.setdefault(layer, {})[part] = value
    if not found:
        raise ValueError("module must hold weights of linear layers, got a state dict without any.")
    names = _layers_in_order(list(map(str, state)), list(found))
    for name in names:
        raise_if_unsupported(
            "weight" not in found[name], f"{one_line(name)!r} in the state dict", STATE_DICT_TEXT
        )
    layers = [(found[name]["weight"], found[name].get("bias")) for name in names]
    return model_from_layers(layers, activation, [repr(one_line(name)) for name in names])


def _layers_in_order(keys: list[str], names: list[str]) -> list[str]:
    """Return the names of the layers in the order of the forward pass: that of the state dict or,
    if its keys are sorted as text, as by safetensors, that of the numbers in the names. Raise
    ValueError for sorted names that differ in more than a number.
    """
    if keys != sorted(keys) or len(names) == 1:
        return names
    if len({re.sub("[0-9]+", "0", name) for name in names}) == 1:
        return sorted(names, key=lambda name: [int(x) for x in re.findall("[0-9]+", name)])
    if any(key.endswith(".bias") for key in keys):
        said = one_line(", ".join(names))
        raise ValueError(
            f"module must list its layers in the order of the forward pass, got {said} "
            "sorted by name. Pass a dict in that order, or load it into the module first."
        )
    return names


def to_torch(model: MLP, theta: Any) -> Any:
    """Return a torch Sequential that computes the model's function at theta.

    Parameters
    ----------
    model : MLP
        A network without skips.
    theta : array_like (n,)
        The parameters.

    Returns
    -------
    torch.nn.Sequential
        The network in the model's dtype, with its own copy of theta. ``parameters()`` are in the
        order of theta. A network with batch normalisation is in training mode.

    See Also
    --------
    from_torch : Conversion from torch.
    save : Write to a file.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([2, 3, 1])
    >>> net = fc.to_torch(model, model.init(rng=0))
    >>> [type(layer).__name__ for layer in net]
    ['Linear', 'Tanh', 'Linear']
    """
    require_attrs(model, ("skips", "activation"), "model", "a fastcurv.MLP")
    if any(model.skips):
        raise ValueError("the model must have residual=False for a Sequential, got residual=True.")
    raise_if_user_activation(model, "which has no torch module", "activations given by name")
    theta = model.check_theta(theta)
    with optional_import("networks of torch"):
        import torch

    dtype = torch.float64 if model.dtype == np.float64 else torch.float32
    net = torch.nn.Sequential()
    layers = model.unflatten(theta)
    for l, (W, b, *norm) in enumerate(layers):
        net.append(torch.nn.Linear(W.shape[1], len(W), bias=b is not None, dtype=dtype))
        if norm:
            net.append(torch.nn.BatchNorm1d(len(W), dtype=dtype))
        if l < len(model.activation):
            net.append(getattr(torch.nn, TORCH_CLASSES[model.activation[l]])())
    parts = [np.array(part) for layer in layers for part in layer if part is not None]
    with torch.no_grad():
        for parameter, part in zip(net.parameters(), parts, strict=True):
            parameter.copy_(torch.from_numpy(part))
    return net
