"""Properties of the Hessian that follow from the structure of a network, without any product.

Every function reads a network objective: `ob.model` (`sizes`, `activation`, `bias`, `residual`,
`preactivations`), `ob.X`, `ob.y`, `ob.loss`, `ob.l2`, `ob.sample_weight`. Hidden layers count from
0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.checks import as_numpy, as_rng, check_positive, check_vector
from ..common.errors import accept_aliases, require
from ..common.protocols import Floats
from .parameters import in_skip, layers_of, norms_of, rows_that_count
from .tables import ACTIVATIONS, LOSSES


def probes(
    ob: Any,
    theta: ArrayLike,
    *,
    max_columns: int | None = None,
    seed: int | np.random.Generator | None = 0,
) -> Floats:
    """Return vectors that reach negative curvature which the gradient and its Krylov space cannot
    see.

    For two identical hidden units, one vector moves their incoming weights apart and one their
    outgoing weights. For a unit with zero weights in or out (or gamma 0), one vector changes its
    incoming weights alone and one its outgoing weights alone; between the two lies the block ``[[0,
    B], [B', 0]]`` of the Hessian. Each direction is random, since a random direction has a
    component along every eigenvector of the subspace it is drawn from.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)
    max_columns : int, optional
        Further units are left out. Default: 64, or fewer if those would take more than 512 MB.
    seed : None, int or numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, p)
        Unit columns, p <= max_columns.
    """
    theta, rng, model = (
        check_vector(theta, ob.model.n_params, "theta", np.float64),
        as_rng(seed),
        ob.model,
    )
    if max_columns is None:
        max_columns = min(64, max(4, (1 << 26) // theta.size))
    now, norms = layers_of(model, theta), norms_of(model, theta)
    special = (
        (layer, units, incoming)
        for layer in range(len(model.activation))
        for units in _special_units(now, norms, layer)
        for incoming in (True, False)
    )
    rows, count = np.zeros((max_columns, theta.size)), 0  # pages of zeros take no memory
    for row, (layer, units, incoming) in zip(rows, special):
        _apart(model, layer, units, incoming, rng, row)
        count += 1
    return np.asarray(rows[:count].T)


def _special_units(now: list[Any], norms: list[Any], layer: int) -> Iterator[tuple[Any, Any]]:
    """Yield ``(j, None)`` for units with zero weights on one side, and ``(i, j)`` for pairs of
    identical units that are neighbours in sorted order.
    """
    (W, b), (W_out, _) = now[layer], now[layer + 1]
    rows = np.hstack([W] + [part[:, None] for part in norms[layer] or [b] if part is not None])
    size = np.abs(rows).max(initial=0.0)
    near = 64 * np.finfo(float).eps * size
    zero = (np.abs(W) <= near).all(axis=1) | (np.abs(W_out) <= 0).all(axis=0)
    if norms[layer]:
        zero |= norms[layer][0] == 0
    for j in np.flatnonzero(zero):
        yield j, None
    order = np.lexsort(np.round(rows / (size or 1), 10).T)
    for i, j in zip(order, order[1:]):
        if np.abs(rows[i] - rows[j]).max() <= near:
            yield i, j


def _apart(
    model: Any,
    layer: int,
    pair: tuple[int, int | None],
    incoming: bool,
    rng: np.random.Generator,
    out: Floats,
) -> None:
    """Write a unit vector that moves a unit, or two apart, into `out` (n,), which is 0."""
    (W, b), (W_out, _) = layers_of(model, out)[layer : layer + 2]
    part: Floats = rng.standard_normal((W.shape[1] if incoming else W_out.shape[0],))
    shift = rng.standard_normal()
    scales = [x for x in norms_of(model, out)[layer] or (b,) if x is not None] * incoming
    units = [(unit, sign) for unit, sign in zip(pair, (1.0, -1.0)) if unit is not None]
    size = math.sqrt(len(units) * (float(part @ part) + len(scales) * shift**2))
    for unit, sign in units:
        (W[unit] if incoming else W_out[:, unit])[...] = sign * part / size
        for x in scales:
            x[unit] = sign * shift / size


def saturation(ob: Any, theta: ArrayLike) -> dict[str, Any]:
    """Return how much of the network hardly reacts to its input, and how many samples are nearly
    certain.

    Returns
    -------
    dict
        ``layers``: per hidden layer, the share of (sample, unit) pairs whose ``|phi'|`` is at most
        1% of its maximum; ``saturated``: that share over all hidden layers; ``dead_units``: how
        many units are so at every sample; ``n_units``; ``certain``: the share of samples (outputs,
        for binary cross entropy) with a probability within 1e-3 of 0 or 1, 0.0 for mse.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel, ReferenceObjective
    >>> ob = ReferenceObjective(ReferenceModel([1, 1, 1], bias=False), [[1.0], [-1.0]], [1.0, 0.0])
    >>> saturation(ob, [20.0, 1.0])["saturated"]
    1.0
    """
    return saturation_of(ob.model, *saturation_counts(ob, theta))


def saturation_counts(
    ob: Any, theta: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.bool_], ...]]:
    """Return the counts that `saturation` is computed from: by hidden layer the number of saturated
    (sample, unit) pairs; the number of samples (outputs) that are nearly certain, of how many, and
    the number of rows; by hidden layer a mask of the units that are not saturated at every sample.
    Sums of these are those of all rows.
    """
    dtype, rows, hidden = ob.model.dtype, rows_that_count(ob), ob.model.sizes[1:-1]
    if not len(rows):  # a shard whose rows all have weight 0
        none = np.zeros(len(hidden), dtype=np.int64)
        return none, np.zeros(3, dtype=np.int64), tuple(np.zeros(m, dtype=bool) for m in hidden)
    found = ob.model.preactivations(
        check_vector(theta, ob.model.n_params, "theta", np.float64).astype(dtype),
        rows.astype(dtype),
    )
    zs = [np.asarray(z, dtype=float) for z in found]
    off = [
        np.abs(phi.slope(z)) <= 0.01 * min(phi.lipschitz, 1.0)
        for phi, z in zip((ACTIVATIONS[name] for name in ob.model.activation), zs)
    ]
    certain = LOSSES[ob.loss].certain(zs[-1])
    return (
        np.array([o.sum() for o in off], dtype=np.int64),
        np.array([certain.sum(), certain.size, len(certain)], dtype=np.int64),
        tuple(~o.all(axis=0) for o in off),
    )


def saturation_of(
    model: Any,
    counts: NDArray[np.int64],
    certain: NDArray[np.int64],
    live: tuple[NDArray[np.bool_], ...],
) -> dict[str, Any]:
    """Return `saturation` from the results of `saturation_counts`, summed over any number of
    rows.
    """
    widths, rows = np.array(model.sizes[1:-1], dtype=np.int64), int(certain[2])
    pairs, rows = rows * int(widths.sum()), max(1, rows)
    return {
        "layers": [float(n / (rows * m)) for n, m in zip(counts, widths)],
        "saturated": float(counts.sum() / pairs) if pairs else 0.0,
        "dead_units": int(sum((~units).sum() for units in live)),
        "n_units": int(widths.sum()),
        "certain": float(certain[0] / max(1, certain[1])),
    }


@dataclass(frozen=True)
class Ranges:
    """The smallest and largest entry of each column of some rows; the sum of two covers the rows of
    both.
    """

    low: Floats
    high: Floats

    def __add__(self, other: Ranges) -> Ranges:
        return Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def ranges(ob: Any, theta: ArrayLike) -> tuple[Ranges, Ranges]:
    """Return the ranges of inputs and outputs at theta."""
    known = ob.statistics(theta) if ob.model.batch_norm else None
    outputs = np.asarray(ob.model.predict(theta, ob.X, known), dtype=float)
    return Ranges(ob.X.min(axis=0), ob.X.max(axis=0)), Ranges(
        outputs.min(axis=0), outputs.max(axis=0)
    )


# --------------------------------------------------------------------------------------------------
# Other thetas with the same function: parameters are not identifiable from what a network computes.
#
# The loss is the same at all of them; permutations and sign flips are orthogonal and keep the
# spectrum too. Hidden layers count from 0.


def _hidden(model: Any, theta: ArrayLike, layer: int) -> int:
    require(model, ("sizes", "activation", "n_params"), "model", "a fastcurv.MLP", theta)
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


@accept_aliases("permute_hidden")
def permute_hidden(model: Any, theta: ArrayLike, layer: int, order: ArrayLike) -> NDArray[Any]:
    """Return another theta with the same function: the units of hidden layer `layer` in the order
    `order`.

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


@accept_aliases("flip_tanh")
def flip_tanh(model: Any, theta: ArrayLike, layer: int, units: ArrayLike) -> NDArray[Any]:
    """Return another theta with the same function: the signs of the incoming and outgoing weights
    of `units` flipped.

    Parameters
    ----------
    model : MLP
        The network.
    theta : array_like (n,)
        Its parameters.
    layer : int
        The number of a hidden layer, 0 the first.
    units : array_like of int
        The units whose signs are flipped.

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
    if not ACTIVATIONS[model.activation[layer]].odd:
        raise ValueError(
            f"hidden layer {layer} is {model.activation[layer]}; wanted an odd activation, tanh "
            "or identity"
        )
    return _scaled(model, theta, layer, units, -1.0)


@accept_aliases("rescale_relu")
def rescale_relu(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> NDArray[Any]:
    """Return another theta with the same function: incoming weights of `units` times `factor` > 0,
    outgoing ones divided by it.

    In a normalised layer gamma and beta are scaled instead of the incoming weights.

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
        A number above 0.

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
    if not ACTIVATIONS[model.activation[layer]].homogeneous:
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
    # the output of a normalised unit does not depend on the scale of its W
    for part in norms_of(model, theta)[layer] or (W, b):
        if part is not None:
            part[units] *= factor
    W_out[:, units] /= factor
    return theta


def nearest_copy(model: Any, theta: ArrayLike, other: ArrayLike) -> NDArray[Any]:
    """Return the copy of `other` nearest to theta, among those that permutations of hidden units
    and flips of odd ones make of it.

    With one hidden layer it is the nearest, by optimal assignment. With several, layers are matched
    in turn by their incoming weights and the sizes of their outgoing ones: if theta itself is such
    a copy it is found, unless units share all of these, and any other result is a copy all the
    same. Layers that a skip connection ties to their neighbours stay as they are.

    Parameters
    ----------
    model : MLP
    theta, other : array_like (n,)

    Returns
    -------
    ndarray (n,)

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], bias=False)
    >>> nearest_copy(model, [1.0, 2.0, 3.0, 4.0], [-2.0, 1.0, -4.0, 3.1])
    array([1. , 2. , 3.1, 4. ])
    """
    from scipy.optimize import linear_sum_assignment  # slow to import
    from scipy.spatial.distance import cdist

    theta = check_vector(theta, model.n_params, "theta", np.float64)
    copy: NDArray[Any] = check_vector(other, model.n_params, "other", np.float64)
    for layer, name in enumerate(model.activation):
        if in_skip(model, layer):
            continue
        (turning, fixed), (others, others_fixed) = (_units(model, t, layer) for t in (theta, copy))
        apart = cdist(fixed, others_fixed, "sqeuclidean")
        straight = apart + cdist(turning, others, "sqeuclidean")
        odd = ACTIVATIONS[name].odd
        turned = apart + cdist(turning, -others, "sqeuclidean") if odd else straight
        rows, order = linear_sum_assignment(np.minimum(straight, turned))
        copy = permute_hidden(model, copy, layer, order)
        flipped = np.flatnonzero((turned < straight)[rows, order])
        if flipped.size:
            copy = flip_tanh(model, copy, layer, flipped)
    return copy


def _units(model: Any, theta: NDArray[Any], layer: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return, by unit of a hidden layer, the numbers that a flip turns, and those that stay: of
    weights into a layer that is matched later these are the sizes alone, in order.
    """
    (W, b), (W_out, _) = layers_of(model, theta)[layer : layer + 2]
    norm = norms_of(model, theta)[layer]
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
