"""Models from PyTorch, and back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..answers import need
from ..structure.parameters import layers_of, norms_of
from .convert import Model, Stack, foreign, stacked
from .mlp import MLP

# By name of torch's class: ours, and what its arguments must be for the two to be one function.
PHI: dict[str, tuple[str, dict[str, Any]]] = {
    "Identity": ("identity", {}),
    "ReLU": ("relu", {}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.01}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "Softplus": ("softplus", {"beta": 1.0, "threshold": 20.0}),
    "SiLU": ("silu", {}),
    "GELU": ("gelu", {"approximate": "none"}),
    "ELU": ("elu", {"alpha": 1.0}),
}
WRAPPED = {  # what holds a module and computes what it does: under which name
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
TORCHS_OWN = ("torch.nn.modules.", "torch.nn.parallel.", "torch._dynamo.")
PASSED = ("Flatten", "Dropout", "AlphaDropout", "Dropout1d")


def _numbers(tensor: Any) -> np.ndarray:
    """A parameter as an array, whatever device holds it."""
    if str(tensor.device) == "meta":
        raise ValueError(
            f"a parameter of shape {tuple(tensor.shape)} lies on meta, without numbers"
        )
    tensor = tensor.detach().cpu()
    return np.asarray((tensor.float() if tensor.element_size() < 4 else tensor).numpy())


def _flat(module: Any, name: str) -> list[tuple[str, Any]]:
    """The layers of nested Sequentials in order, named as in torch, out of what compiles or
    spreads them.
    """
    kind = _kind(module)
    if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
        raise ValueError(
            f"{name} ({kind}) has forward hooks, which may change what it computes; wanted it "
            "without them: hook.remove()"
        )
    if kind in WRAPPED:
        return _flat(getattr(module, WRAPPED[kind]), name)
    if kind == "Sequential":
        inner = [_flat(child, f"{name}[{key}]") for key, child in module._modules.items()]
        return [leaf for leaves in inner for leaf in leaves]
    return [(f"{name} ({kind})", module)]


def _kind(module: Any) -> str:
    """The name of torch's own class whose forward a module has; of another class its whole name."""
    own: Any = type(module)
    for base in own.__mro__:
        if base.__module__.startswith(TORCHS_OWN) and base.__name__ != "Module":
            as_there = own.forward is base.forward and "forward" not in vars(module)
            if as_there or base.__name__ in WRAPPED:
                return str(base.__name__)
            break
    named = (*PHI, *PASSED, "Linear", "BatchNorm1d", "Sequential", "Softmax", "LogSoftmax")
    return f"{own.__module__}.{own.__name__}" if own.__name__ in named else own.__name__


def _unshared(module: Any, name: str, seen: dict[int, str]) -> None:
    """A ValueError where a layer before this one has its weight or bias."""
    for part in ("weight", "bias"):
        tensor = getattr(module, part)
        if tensor is not None and seen.setdefault(id(tensor), name) != name:
            raise foreign(f"{name}, which shares the {part} of {seen[id(tensor)]},")


def _batch_norm(stack: Stack, module: Any, name: str, seen: dict[int, str]) -> None:
    affine, kept = module.weight is not None, module.running_mean is not None
    ones = np.ones(module.num_features, np.float32)
    gamma = _numbers(module.weight) if affine else ones
    beta = _numbers(module.bias) if affine else 0 * ones
    if module.training or not kept:
        _unshared(module, name, seen)
        stack.norm(gamma, beta, module.eps, name)
        return
    moments = _numbers(module.running_mean), _numbers(module.running_var)
    stack.frozen_norm([gamma, beta, *moments], module.eps, name)


def _read(stack: Stack, module: Any, name: str, seen: dict[int, str]) -> None:
    kind = _kind(module)
    parametrised = bool(getattr(module, "parametrizations", None))
    if kind == "Linear" and not parametrised:
        _unshared(module, name, seen)
        bias = None if module.bias is None else _numbers(module.bias)
        stack.linear(_numbers(module.weight), bias, name)
    elif kind == "BatchNorm1d":
        _batch_norm(stack, module, name, seen)
    elif kind in PHI:
        phi, wanted = PHI[kind]
        for argument, value in wanted.items():
            if getattr(module, argument) != value:
                raise ValueError(
                    f"{name} has {argument}={getattr(module, argument)!r}, which has no "
                    f"counterpart here; wanted {value!r}"
                )
        stack.activation(phi, name)
    elif kind in ("Softmax", "LogSoftmax"):
        if module.dim not in (1, -1, None):
            raise ValueError(
                f"{name} has dim={module.dim}, which mixes rows; wanted 1 or -1, the classes"
            )
        stack.close(name)
    elif kind in PASSED:
        if kind != "Flatten" and module.training and module.p > 0:
            raise ValueError(
                f"{name} is in training mode, where it draws at random; wanted module.eval() first"
            )
    else:
        raise foreign(f"{name}{_own(module)}")


def _own(module: Any) -> str:
    """A hint for a module with a forward of its own: what it computes cannot be read."""
    if type(module).__module__.startswith("torch.") or not hasattr(module, "state_dict"):
        return ""
    return (
        ", a class with a forward of its own (where that is a stack, give its state_dict() and its "
        "activation),"
    )


def from_torch(module: Any, activation: Any = None) -> Model:
    """Model and theta of a torch Sequential, or of a state dict.

    Parameters
    ----------
    module : torch.nn.Sequential, torch.nn.Linear or a state dict
        Sequentials may be nested. Layers: ``Linear``, ``ReLU LeakyReLU Tanh Sigmoid Softplus SiLU
        GELU ELU Identity``, ``Flatten``, ``Dropout`` in eval mode, ``BatchNorm1d``, and at the end
        ``Softmax``, ``LogSoftmax`` or ``Sigmoid``, which belong to the loss; ``LeakyReLU`` with its
        slope of 0.01 and the exact ``GELU`` alone. Batch normalisation in eval mode is folded into
        the linear layers, with a warning: the function is the same, but not the parameters, nor a
        Hessian with respect to them. While training, after each hidden ``Linear``, it makes a model
        with ``batch_norm=True``, all of whose linear layers have biases, and whose normalisations
        have scales and shifts, with a warning where the module has none. A state dict holds weights
        and biases of linear layers in the order of the forward pass.
    activation : str or sequence of str, optional
        For a state dict, which does not say: of the hidden layers.

    Returns
    -------
    model : MLP
        In the dtype of the parameters; half precision goes to float32.
    theta : ndarray (n,)
        In the order of ``module.parameters()``, where there was no warning.

    Raises
    ------
    ValueError
        For a layer that has no counterpart here, shares a parameter with another, mixes rows, or
        has forward hooks: the first one is named.
    TypeError
        For what is no module and no state dict.

    See Also
    --------
    to_torch : the way back.
    from_keras, from_jax, from_sklearn, from_onnx : from other libraries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> weights = {"0.weight": [[1.0, 2.0]], "0.bias": [0.5]}
    >>> model, theta = fc.from_torch(weights, activation="tanh")
    >>> model.sizes, theta.tolist()
    ((2, 1), [1.0, 2.0, 0.5])
    """
    if isinstance(module, Mapping):
        return _from_state(module, activation)
    if not hasattr(module, "named_parameters"):
        raise TypeError(
            f"module is a {type(module).__name__}; wanted a torch.nn.Sequential or a state dict"
        )
    if activation is not None:
        raise ValueError("activation was given with a module, which has its own; wanted None")
    stack: Stack = Stack()
    seen: dict[int, str] = {}
    for name, layer in _flat(module, "module"):
        _read(stack, layer, name, seen)
    model, theta = stack.finish()
    _say_whose(module, stack, theta)
    return model, theta


def _say_whose(module: Any, stack: Stack, theta: np.ndarray) -> None:
    """A warning where theta is not what the module calls its parameters."""
    own = sum(p.numel() for p in module.parameters())
    if stack.folded:
        what, whose = "batch normalisation in eval mode is folded into the linear layers", "folded"
    elif own != theta.size:
        what, whose = (
            f"the module has {own} parameters, and the model others",
            "model's",
        )
    else:
        return
    warnings.warn(
        f"{what}: n is {theta.size}, and gradient, Hessian and sharpness are those of the {whose} "
        "parameters, not of the module's own",
        UserWarning,
        stacklevel=3,
    )


def _from_state(state: Mapping[str, Any], activation: Any) -> Model:
    """From weights and biases by name."""
    if activation is None:
        raise ValueError(
            "activation is None; wanted that of the hidden layers, which a state dict does not say"
        )
    found: dict[str, list[Any]] = {}
    for key, tensor in state.items():
        layer, _, part = str(key).rpartition(".")
        if isinstance(tensor, Mapping):
            raise ValueError(f"{key!r} holds a dictionary; wanted the state dict: given[{key!r}]")
        if part not in ("weight", "bias") or (part == "bias" and layer not in found):
            raise foreign(f"{key!r} in the state dict", "linear layers: a weight, then its bias")
        value = _numbers(tensor) if hasattr(tensor, "detach") else np.asarray(tensor)
        if value.ndim != (2 if part == "weight" else 1):
            normal = f"{layer}.running_var" in state
            what = f"{key!r} of shape {value.shape}"
            what += ", batch normalisation (which the module itself, in eval(), brings)" * normal
            raise foreign(what, "linear layers: a weight, then its bias")
        found.setdefault(layer, []).append(value)
    layers = [(parts[0], parts[1] if len(parts) > 1 else None) for parts in found.values()]
    if not layers:
        raise ValueError("the state dict is empty; wanted the weights of linear layers")
    return stacked(layers, activation, [repr(name) for name in found])


def to_torch(model: MLP, theta: Any) -> Any:
    """A torch Sequential that computes what the model does at theta.

    Parameters
    ----------
    model : MLP
        Without skips.
    theta : array_like (n,)
        The parameters.

    Returns
    -------
    torch.nn.Sequential
        In the model's dtype, with its own copy of theta; its ``parameters()`` lie as theta does.
        With batch normalisation it is in training mode.

    See Also
    --------
    from_torch : the way back.
    save : to a file.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([2, 3, 1])
    >>> net = fc.to_torch(model, model.init(seed=0))
    >>> [type(layer).__name__ for layer in net]
    ['Linear', 'Tanh', 'Linear']
    """
    need(model, ("skips", "activation"), "model", "a fastcurv.MLP", theta)
    import torch

    if any(model.skips):
        raise ValueError("the model has skips, and a Sequential has none; wanted residual=False")
    classes = {phi: name for name, (phi, _) in PHI.items()}
    theta = model.check_theta(theta)
    dtype = torch.float64 if model.dtype == np.float64 else torch.float32

    def tensor(a: np.ndarray) -> Any:
        return torch.nn.Parameter(torch.from_numpy(np.array(a)))

    stack: list[Any] = []
    for l, ((W, b), norm) in enumerate(zip(layers_of(model, theta), norms_of(model, theta))):
        linear = torch.nn.Linear(W.shape[1], W.shape[0], bias=b is not None, dtype=dtype)
        linear.weight = tensor(W)
        if b is not None:
            linear.bias = tensor(b)
        stack.append(linear)
        if norm is not None:
            stack.append(torch.nn.BatchNorm1d(len(W), dtype=dtype))
            stack[-1].weight, stack[-1].bias = tensor(norm[0]), tensor(norm[1])
        if l < len(model.activation):
            stack.append(getattr(torch.nn, classes[model.activation[l]])())
    return torch.nn.Sequential(*stack)
