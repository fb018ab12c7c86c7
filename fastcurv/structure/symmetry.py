"""Other parameter vectors of the same function: parameters are not identifiable from the outputs.

Without l2 the loss has the same value at all of them. Permutations and sign flips are orthogonal,
so they also keep l2 and the spectrum. Hidden layers are counted from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.checks import as_numpy, check_positive, check_vector, short_repr
from ..common.errors import require_attrs
from ..common.protocols import Array
from .parameters import batch_norm_params, feeds_skip_connection, layers_of
from .tables import activation_spec


def _check_hidden_layer(model: Any, theta: ArrayLike, layer: int) -> int:
    require_attrs(model, ("sizes", "activation", "n_params"), "model", "a fastcurv.MLP")
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
        raise TypeError(
            f"layer must be an int, the index of a hidden layer, got {short_repr(layer)}."
        )
    n_hidden = len(model.sizes) - 2
    if not 0 <= layer < n_hidden:
        raise ValueError(
            f"layer must be the index of a hidden layer, 0 to {n_hidden - 1}, got {layer}."
        )
    if feeds_skip_connection(model, layer):
        raise ValueError(
            f"layer must be a hidden layer without a skip connection around it, got {layer}, whose "
            "units are tied to those of its neighbours."
        )
    return int(layer)


def _copy_theta(model: Any, theta: ArrayLike) -> tuple[Array, list[Any]]:
    theta = np.array(check_vector(theta, model.n_params, "theta", model.dtype), order="C")
    return theta, layers_of(model, theta)


def _check_ints(numbers: ArrayLike, name: str) -> NDArray[Any]:
    checked = as_numpy(numbers, name)
    if checked.dtype.kind not in "iu" and checked.size:
        raise TypeError(f"{name} must hold ints, got dtype {checked.dtype}.")
    if checked.ndim > 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {checked.shape}.")
    return checked.astype(np.intp)


def permute_hidden(model: Any, theta: ArrayLike, layer: int, order: ArrayLike) -> Array:
    """Return parameters of the same function, with the units of a hidden layer in another order.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        The parameters of the network.
    layer : int
        The index of a hidden layer, counted from 0.
    order : array_like of int
        A permutation of the layer's units: unit i of the result is unit ``order[i]`` of theta.

    Returns
    -------
    ndarray (n,)
        The new parameters, a new array.

    See Also
    --------
    flip_tanh, rescale_relu : Other symmetries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([1, 2, 1], bias=False)
    >>> permute_hidden(model, [1.0, 2.0, 3.0, 4.0], 0, [1, 0])
    array([2., 1., 4., 3.])
    """
    layer = _check_hidden_layer(model, theta, layer)
    order = _check_ints(order, "order")
    width = model.sizes[layer + 1]
    if order.shape != (width,) or sorted(order.tolist()) != list(range(width)):
        raise ValueError(f"order must be a permutation of 0 to {width - 1}, got {order.tolist()}.")
    theta, layers = _copy_theta(model, theta)
    W, b = layers[layer]
    W_out, _ = layers[layer + 1]
    for part in (W, b, *(batch_norm_params(model, theta)[layer] or ())):
        if part is not None:
            part[...] = part[order]
    W_out[...] = W_out[:, order]
    return theta


def flip_tanh(model: Any, theta: ArrayLike, layer: int, units: ArrayLike) -> Array:
    """Return parameters of the same function, with the opposite signs of the incoming and outgoing
    weights of some units of a hidden layer whose activation is odd.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        The parameters of the network.
    layer : int
        The index of a hidden layer, counted from 0.
    units : array_like of int
        The indices of the units whose signs are flipped.

    Returns
    -------
    ndarray (n,)
        The new parameters, a new array.

    See Also
    --------
    permute_hidden, rescale_relu : other symmetries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> flip_tanh(fc.MLP([1, 2, 1], bias=False), [1.0, 2.0, 3.0, 4.0], 0, [1])
    array([ 1., -2.,  3., -4.])
    """
    layer = _check_hidden_layer(model, theta, layer)
    if not activation_spec(model.activation[layer]).odd:
        raise ValueError(
            f"hidden layer {layer} must have an odd activation, tanh or identity, got "
            f"{model.activation[layer]}."
        )
    return _scale_units(model, theta, layer, units, -1.0)


def rescale_relu(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> Array:
    """Return parameters of the same function, with the incoming weights of some units multiplied by
    `factor`, and the outgoing weights divided by `factor`.

    In a layer with batch normalisation gamma and beta are scaled instead of the incoming weights.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        The parameters of the network.
    layer : int
        The index of a hidden layer with relu, leaky_relu or identity, counted from 0.
    units : array_like of int
        The indices of the units that are scaled.
    factor : float
        A number above 0.

    Returns
    -------
    ndarray (n,)
        The new parameters, a new array.

    See Also
    --------
    permute_hidden, flip_tanh : other symmetries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([1, 2, 1], "relu", bias=False)
    >>> rescale_relu(model, [1.0, 2.0, 3.0, 4.0], 0, [0], 2.0)
    array([2. , 2. , 1.5, 4. ])
    """
    layer = _check_hidden_layer(model, theta, layer)
    if not activation_spec(model.activation[layer]).homogeneous:
        raise ValueError(
            f"hidden layer {layer} must have relu, leaky_relu or identity, got "
            f"{model.activation[layer]}."
        )
    factor = check_positive(factor, "factor")
    return _scale_units(model, theta, layer, units, factor)


def _scale_units(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> Array:
    """Return theta with the weights into `units` multiplied by `factor`, and out of them divided by
    it.
    """
    width = model.sizes[layer + 1]
    units = np.unique(np.atleast_1d(_check_ints(units, "units")))
    if units.size and not (units[0] >= 0 and units[-1] < width):
        raise ValueError(f"units must be ints from 0 to {width - 1}, got {units.tolist()}.")
    theta, layers = _copy_theta(model, theta)
    W, b = layers[layer]
    W_out, _ = layers[layer + 1]
    # The output of a batch-normalised unit does not depend on the scale of its weights.
    for part in batch_norm_params(model, theta)[layer] or (W, b):
        if part is not None:
            part[units] *= factor
    W_out[:, units] /= factor
    return theta


def nearest_copy(model: Any, theta: ArrayLike, other: ArrayLike) -> Array:
    """Return a copy of `other` near theta. A copy is obtained by permutations of hidden units and
    by sign flips. A flip changes the signs of the weights into and out of a unit whose activation
    is odd: tanh or identity.

    With one hidden layer the result is the nearest copy, by optimal assignment. With several
    layers, the layers are matched in turn by their incoming weights and the magnitudes of their
    outgoing weights. If theta is then a copy of `other`, the result is theta, unless several units
    share all of these numbers. Layers in a skip connection are not changed.

    Parameters
    ----------
    model : MLP
        The network.
    theta, other : array_like (n,)
        The fixed parameters, and the parameters of which a copy is computed.

    Returns
    -------
    ndarray (n,)
        Parameters with the same function as `other`.

    See Also
    --------
    permute_hidden, flip_tanh : One such change.
    fastcurv.LandscapeDisplay.slice : The loss on the line between two networks.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([1, 2, 1], bias=False)
    >>> nearest_copy(model, [1.0, 2.0, 3.0, 4.0], [-2.0, 1.0, -4.0, 3.1])
    array([1. , 2. , 3.1, 4. ])
    """
    from scipy.optimize import linear_sum_assignment  # this import is slow
    from scipy.spatial.distance import cdist

    require_attrs(model, ("n_params", "activation"), "model", "a fastcurv.MLP")
    theta = check_vector(theta, model.n_params, "theta", np.float64)
    copy: Array = check_vector(other, model.n_params, "other", np.float64)
    for layer, name in enumerate(model.activation):
        if feeds_skip_connection(model, layer):
            continue
        (turning, fixed), (others, others_fixed) = (
            _unit_signatures(model, t, layer) for t in (theta, copy)
        )
        apart = cdist(fixed, others_fixed, "sqeuclidean")
        straight = apart + cdist(turning, others, "sqeuclidean")
        odd = activation_spec(name).odd
        turned = apart + cdist(turning, -others, "sqeuclidean") if odd else straight
        rows, order = linear_sum_assignment(np.minimum(straight, turned))
        copy = permute_hidden(model, copy, layer, order)
        flipped = np.flatnonzero((turned < straight)[rows, order])
        if flipped.size:
            copy = _scale_units(model, copy, layer, flipped, -1.0)
    return copy


def _unit_signatures(model: Any, theta: Array, layer: int) -> tuple[Array, Array]:
    """Return two matrices with a row for each unit of a hidden layer: the numbers whose signs a
    flip changes, and those that a flip keeps. Weights into a layer that is matched later are
    represented by their sorted absolute values.
    """
    (W, b), (W_out, _) = layers_of(model, theta)[layer : layer + 2]
    norm = batch_norm_params(model, theta)[layer]
    turning, fixed = ([W, b], []) if norm is None else (list(norm), [W])
    if layer == len(model.activation) - 1:
        turning.append(W_out.T)
    else:
        fixed.append(np.sort(np.abs(W_out.T), axis=1))
    columns = [
        np.column_stack([part for part in parts if part is not None] or [np.zeros((len(W), 0))])
        for parts in (turning, fixed)
    ]
    return columns[0], columns[1]
