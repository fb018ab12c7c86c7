"""Other thetas with the same function: a network is not identifiable from what it computes.

The loss is the same at all of them; permutations and sign flips are orthogonal and keep the
spectrum too. Hidden layers count from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..answers import need, own_names
from ..checks import as_numpy, check_positive, check_vector
from .parameters import in_skip, layers_of, norms_of


def _hidden(model: Any, theta: ArrayLike, layer: int) -> int:
    need(model, ("sizes", "activation", "n_params"), "model", "a fastcurv.MLP", theta)
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
        raise TypeError(f"layer is {layer!r}; wanted the number of a hidden layer, an int")
    n_hidden = len(model.sizes) - 2
    if not 0 <= layer < n_hidden:
        raise ValueError(f"layer is {layer}; wanted a hidden layer, 0 to {n_hidden - 1}")
    if in_skip(model, layer):
        raise ValueError(
            f"hidden layer {layer} is tied to its neighbours by a skip connection; wanted one "
            "that is not"
        )
    return int(layer)


def _copy(model: Any, theta: ArrayLike) -> tuple[NDArray[Any], list[Any]]:
    theta = np.array(check_vector(theta, model.n_params, "theta", model.dtype), order="C")
    return theta, layers_of(model, theta)


def _ints(numbers: ArrayLike, name: str) -> NDArray[Any]:
    found = as_numpy(numbers, name)
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name} has dtype {found.dtype}; wanted ints")
    if found.ndim > 1:
        raise ValueError(f"{name} has shape {found.shape}; wanted a list of ints")
    return found.astype(np.intp)


@own_names("permute_hidden")
def permute_hidden(model: Any, theta: ArrayLike, layer: int, order: ArrayLike) -> NDArray[Any]:
    """Another theta with the same function: the units of hidden layer `layer` in the order `order`.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        Its parameters.
    layer : int
        The number of a hidden layer, 0 the first.
    order : array_like of int
        A permutation of the layer's units.

    Returns
    -------
    ndarray (n,)
        Another theta; the one given stays.

    See Also
    --------
    flip_tanh, rescale_relu : other symmetries.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], bias=False)
    >>> permute_hidden(model, [1.0, 2.0, 3.0, 4.0], 0, [1, 0])
    array([2., 1., 4., 3.])
    """
    layer = _hidden(model, theta, layer)
    order = _ints(order, "order")
    width = model.sizes[layer + 1]
    if order.shape != (width,) or sorted(order.tolist()) != list(range(width)):
        raise ValueError(f"order is {order.tolist()}; wanted a permutation of 0 to {width - 1}")
    theta, layers = _copy(model, theta)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    for part in (W, b, *(norms_of(model, theta)[layer] or ())):
        if part is not None:
            part[...] = part[order]
    W_out[...] = W_out[:, order]
    return theta


@own_names("flip_tanh")
def flip_tanh(model: Any, theta: ArrayLike, layer: int, units: ArrayLike) -> NDArray[Any]:
    """Another theta with the same function: the signs of `units` turned, incoming and outgoing.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        Its parameters.
    layer : int
        The number of a hidden layer, 0 the first.
    units : array_like of int
        The units whose sign is turned.

    Returns
    -------
    ndarray (n,)
        Another theta; the one given stays.

    See Also
    --------
    permute_hidden, rescale_relu : other symmetries.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> flip_tanh(ReferenceModel([1, 2, 1], bias=False), [1.0, 2.0, 3.0, 4.0], 0, [1])
    array([ 1., -2.,  3., -4.])
    """
    layer = _hidden(model, theta, layer)
    if model.activation[layer] not in ("tanh", "identity"):
        raise ValueError(
            f"hidden layer {layer} is {model.activation[layer]}; wanted an odd activation, tanh "
            "or identity"
        )
    return _scaled(model, theta, layer, units, -1.0)


@own_names("rescale_relu")
def rescale_relu(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> NDArray[Any]:
    """Another theta with the same function: incoming weights of `units` times `factor` > 0,
    outgoing ones divided by it.

    Of a normalised layer gamma and beta are scaled.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        Its parameters.
    layer : int
        The number of a hidden layer, 0 the first.
    units : array_like of int
        The units that are scaled.
    factor : float
        Above 0.

    Returns
    -------
    ndarray (n,)
        Another theta; the one given stays.

    See Also
    --------
    permute_hidden, flip_tanh : other symmetries.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], "relu", bias=False)
    >>> rescale_relu(model, [1.0, 2.0, 3.0, 4.0], 0, [0], 2.0)
    array([2. , 2. , 1.5, 4. ])
    """
    layer = _hidden(model, theta, layer)
    if model.activation[layer] not in ("relu", "leaky_relu", "identity"):
        raise ValueError(
            f"hidden layer {layer} is {model.activation[layer]}; wanted relu, leaky_relu or "
            "identity"
        )
    return _scaled(model, theta, layer, units, check_positive(factor, "factor"))


def _scaled(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> NDArray[Any]:
    width = model.sizes[layer + 1]
    units = np.unique(np.atleast_1d(_ints(units, "units")))
    if units.size and not (units[0] >= 0 and units[-1] < width):
        raise ValueError(f"units are {units.tolist()}; wanted numbers from 0 to {width - 1}")
    theta, layers = _copy(model, theta)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    # a normalised unit does not feel the size of its W
    for part in norms_of(model, theta)[layer] or (W, b):
        if part is not None:
            part[units] *= factor
    W_out[:, units] /= factor
    return theta
