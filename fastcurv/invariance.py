"""Other thetas with the same function: a network is not identifiable from what it computes.

The loss is the same at all of them; permutations and sign flips are orthogonal and keep the spectrum too. Hidden layers
count from 0.
"""

import numpy as np

from .checks import check_positive, check_vector

__all__ = ["permute_hidden", "flip_tanh", "rescale_relu"]


def normalised(model):
    """Whether hidden layers are batch-normalised."""
    return bool(getattr(model, "batch_norm", False)) and len(model.sizes) > 2


def layers_of(model, theta):
    """``[(W, b), ...]``, views of a flat vector of any dtype; b is None without biases."""
    return [(W, b) for W, b, _ in _parts_of(model, theta)]


def norms_of(model, theta):
    """``[(gamma, beta), ...]``, views likewise, None for layers that are not normalised."""
    return [norm for _, _, norm in _parts_of(model, theta)]


def _parts_of(model, theta):
    at = 0
    for layer, (k, m) in enumerate(zip(model.sizes, model.sizes[1:])):
        W = theta[at:at + m * k].reshape(m, k)
        at += m * k
        b = theta[at:at + m] if model.bias else None
        at += m * bool(model.bias)
        norm = None
        if normalised(model) and layer < len(model.sizes) - 2:
            norm = (theta[at:at + m], theta[at + m:at + 2 * m])
            at += 2 * m
        yield W, b, norm


def skips(model, layer):
    """Whether hidden layer `layer` adds its input to its output."""
    n_hidden = len(model.sizes) - 2
    return bool(model.residual) and 0 <= layer < n_hidden and model.sizes[layer] == model.sizes[layer + 1]


def in_skip(model, layer):
    """Whether the outputs of hidden layer `layer` are tied to others by a skip."""
    return skips(model, layer) or skips(model, layer + 1)


def _hidden(model, layer):
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
        raise TypeError(f"layer is {layer!r}; wanted the number of a hidden layer, an int")
    n_hidden = len(model.sizes) - 2
    if not 0 <= layer < n_hidden:
        raise ValueError(f"layer is {layer}; wanted a hidden layer, 0 to {n_hidden - 1}")
    if in_skip(model, layer):
        raise ValueError(f"hidden layer {layer} is tied to its neighbours by a skip connection; wanted one that is not")
    return int(layer)


def _copy(model, theta):
    theta = np.array(theta, dtype=model.dtype)
    check_vector(theta, model.n_params, "theta")
    return theta, layers_of(model, theta)


def permute_hidden(model, theta, layer, order):
    """Another theta with the same function: the units of hidden layer `layer` in the order `order`.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], bias=False)
    >>> permute_hidden(model, [1.0, 2.0, 3.0, 4.0], 0, [1, 0])
    array([2., 1., 4., 3.])
    """
    layer = _hidden(model, layer)
    order = np.asarray(order)
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


def flip_tanh(model, theta, layer, units):
    """Another theta with the same function: the signs of `units` turned, incoming and outgoing.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> flip_tanh(ReferenceModel([1, 2, 1], bias=False), [1.0, 2.0, 3.0, 4.0], 0, [1])
    array([ 1., -2.,  3., -4.])
    """
    layer = _hidden(model, layer)
    if model.activation[layer] not in ("tanh", "identity"):
        raise ValueError(f"hidden layer {layer} is {model.activation[layer]}; wanted an odd activation, tanh or identity")
    return _scaled(model, theta, layer, units, -1.0)


def rescale_relu(model, theta, layer, units, factor):
    """Another theta with the same function: incoming weights of `units` times `factor` > 0, outgoing ones divided by it.

    Of a normalised layer gamma and beta are scaled.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> rescale_relu(ReferenceModel([1, 2, 1], "relu", bias=False), [1.0, 2.0, 3.0, 4.0], 0, [0], 2.0)
    array([2. , 2. , 1.5, 4. ])
    """
    layer = _hidden(model, layer)
    if model.activation[layer] not in ("relu", "leaky_relu", "identity"):
        raise ValueError(f"hidden layer {layer} is {model.activation[layer]}; wanted relu, leaky_relu or identity")
    return _scaled(model, theta, layer, units, check_positive(factor, "factor"))


def _scaled(model, theta, layer, units, factor):
    width = model.sizes[layer + 1]
    units = np.unique(np.atleast_1d(np.asarray(units, dtype=int)))
    if units.size and not (0 <= units[0] and units[-1] < width):
        raise ValueError(f"units are {units.tolist()}; wanted numbers from 0 to {width - 1}")
    theta, layers = _copy(model, theta)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    for part in norms_of(model, theta)[layer] or (W, b):        # a normalised unit does not feel the size of its W
        if part is not None:
            part[units] *= factor
    W_out[:, units] /= factor
    return theta
