"""Symmetries of a network, and other properties of the Hessian that follow from the structure
without any product: directions that are orthogonal to all gradients, saturation, other theta with
the same function, and the groups that leave the loss unchanged (`proved_orbits`).

A function with the argument `ob` needs `ob.model` (`sizes`, `activation`, `bias`, `residual`,
`preactivations`), `ob.X`, `ob.y`, `ob.loss`, `ob.l2` and `ob.sample_weight`. Hidden layers are
counted from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

from ..common.checks import as_numpy, as_rng, check_positive, check_vector, short_repr
from ..common.errors import require_attrs
from ..common.protocols import Floats
from .parameters import (
    batch_norm_params,
    feeds_skip_connection,
    has_skip_connection,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    nonzero_weight_rows,
)
from .tables import activation_spec, loss_spec


def curvature_probes(
    ob: Any,
    theta: ArrayLike,
    *,
    max_columns: int | None = None,
    seed: int | np.random.Generator | None = 0,
) -> Floats:
    """Return start vectors for eigenvector searches, with components along negative curvature that
    is orthogonal to the Krylov space of the gradient.

    For two identical hidden units, one vector moves their incoming weights apart, and another one
    their outgoing weights. For a unit with zero weights in or out (or gamma 0), one vector changes
    only its incoming weights and another one only its outgoing weights; they span the block ``[[0,
    B], [B', 0]]`` of the Hessian. The directions are random, because a random direction has a
    component along every eigenvector of its subspace.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)
    max_columns : int, optional
        Maximum number of vectors. Default: 64, or fewer if 64 would take more than 512 MB.
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
    now, norms = layers_of(model, theta), batch_norm_params(model, theta)
    special = (
        (layer, units, incoming)
        for layer in range(len(model.activation))
        for units in _special_units(now, norms, layer)
        for incoming in (True, False)
    )
    rows, count = np.zeros((max_columns, theta.size)), 0  # unused pages of zeros take no memory
    for row, (layer, units, incoming) in zip(rows, special):
        _write_separating_vector(model, layer, units, incoming, rng, row)
        count += 1
    return np.asarray(rows[:count].T)


def _special_units(now: list[Any], norms: list[Any], layer: int) -> Iterator[tuple[Any, Any]]:
    """Yield ``(j, None)`` for each unit of a hidden layer whose weights on one side are 0, and
    ``(i, j)`` for each pair of identical units that are neighbours in sorted order.
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


def _write_separating_vector(
    model: Any,
    layer: int,
    pair: tuple[int, int | None],
    incoming: bool,
    rng: np.random.Generator,
    out: Floats,
) -> None:
    """Write to `out` (n,), which holds zeros, a random unit vector that changes the incoming or the
    outgoing weights of one unit, or of two units in opposite directions.
    """
    (W, b), (W_out, _) = layers_of(model, out)[layer : layer + 2]
    part: Floats = rng.standard_normal((W.shape[1] if incoming else W_out.shape[0],))
    shift = rng.standard_normal()
    scales = [x for x in batch_norm_params(model, out)[layer] or (b,) if x is not None] * incoming
    units = [(unit, sign) for unit, sign in zip(pair, (1.0, -1.0)) if unit is not None]
    size = math.sqrt(len(units) * (float(part @ part) + len(scales) * shift**2))
    for unit, sign in units:
        (W[unit] if incoming else W_out[:, unit])[...] = sign * part / size
        for x in scales:
            x[unit] = sign * shift / size


def saturation(ob: Any, theta: ArrayLike) -> dict[str, Any]:
    """Return the fractions of units whose outputs hardly depend on their input, and of samples with
    nearly certain predictions.

    Returns
    -------
    dict
        "layers" is a list with the fraction of (sample, unit) pairs of each hidden layer whose
        ``|phi'|`` is at most 1% of min(1, maximum of ``|phi'|``). "saturated" is this fraction over
        all hidden layers, "dead_units" the number of units whose pairs all count, and "n_units" the
        number of hidden units. "certain" is the fraction of samples (of outputs for binary cross
        entropy) with a probability within 1e-3 of 0 or 1, or 0.0 for losses of regression.

    Examples
    --------
    >>> from fastcurv.testing.reference import ReferenceModel, ReferenceObjective
    >>> ob = ReferenceObjective(ReferenceModel([1, 1, 1], bias=False), [[1.0], [-1.0]], [1.0, 0.0])
    >>> saturation(ob, [20.0, 1.0])["saturated"]
    1.0
    """
    return saturation_from_counts(ob.model, *saturation_counts(ob, theta))


def saturation_counts(
    ob: Any, theta: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.bool_], ...]]:
    """Return the counts from which `saturation` is computed, as a tuple of three.

    The first array holds the number of saturated (sample, unit) pairs of each hidden layer. The
    second holds the number of nearly certain samples (or outputs), of all samples (or outputs) and
    of rows. The masks, one for each hidden layer, mark units that are not saturated at some sample.
    The results of several blocks of rows can be added.
    """
    dtype, rows, hidden = ob.model.dtype, nonzero_weight_rows(ob), ob.model.sizes[1:-1]
    # Every row of this objective, such as a shard, has weight 0.
    if not len(rows):
        none = np.zeros(len(hidden), dtype=np.int64)
        return none, np.zeros(3, dtype=np.int64), tuple(np.zeros(m, dtype=bool) for m in hidden)
    found = ob.model.preactivations(
        check_vector(theta, ob.model.n_params, "theta", np.float64).astype(dtype),
        rows.astype(dtype),
    )
    zs = [np.asarray(z, dtype=float) for z in found]
    off = [
        np.abs(phi.slope(z)) <= 0.01 * min(phi.lipschitz, 1.0)
        for phi, z in zip((activation_spec(name) for name in ob.model.activation), zs)
    ]
    certain = loss_spec(ob.loss).certain(zs[-1])
    return (
        np.array([o.sum() for o in off], dtype=np.int64),
        np.array([certain.sum(), certain.size, len(certain)], dtype=np.int64),
        tuple(~o.all(axis=0) for o in off),
    )


def saturation_from_counts(
    model: Any,
    counts: NDArray[np.int64],
    certain: NDArray[np.int64],
    live: tuple[NDArray[np.bool_], ...],
) -> dict[str, Any]:
    """Return the dict of `saturation` from the summed results of `saturation_counts`."""
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
class ColumnRanges:
    """The smallest and largest entries of the columns of a matrix. The sum of two objects covers
    both matrices.
    """

    low: Floats
    high: Floats

    def __add__(self, other: ColumnRanges) -> ColumnRanges:
        return ColumnRanges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def ranges_at_theta(ob: Any, theta: ArrayLike) -> tuple[ColumnRanges, ColumnRanges]:
    """Return the `ColumnRanges` of the inputs and of the network outputs at theta, as a pair."""
    known = ob.statistics(theta) if ob.model.batch_norm else None
    outputs = np.asarray(ob.model.predict(theta, ob.X, known), dtype=float)
    return ColumnRanges(ob.X.min(axis=0), ob.X.max(axis=0)), ColumnRanges(
        outputs.min(axis=0), outputs.max(axis=0)
    )


# --------------------------------------------------------------------------------------------------
# Other parameter vectors of the same function: parameters are not identifiable from the outputs.
#
# Without l2 the loss has the same value at all of them. Permutations and sign flips are orthogonal,
# so they also keep l2 and the spectrum. Hidden layers are counted from 0.


def _check_hidden_layer(model: Any, theta: ArrayLike, layer: int) -> int:
    require_attrs(model, ("sizes", "activation", "n_params"), "model", "a fastcurv.MLP", theta)
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


def _copy_theta(model: Any, theta: ArrayLike) -> tuple[NDArray[Any], list[Any]]:
    theta = np.array(check_vector(theta, model.n_params, "theta", model.dtype), order="C")
    return theta, layers_of(model, theta)


def _check_ints(numbers: ArrayLike, name: str) -> NDArray[Any]:
    found = as_numpy(numbers, name)
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name} must hold ints, got dtype {found.dtype}.")
    if found.ndim > 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {found.shape}.")
    return found.astype(np.intp)


def permute_hidden(model: Any, theta: ArrayLike, layer: int, order: ArrayLike) -> NDArray[Any]:
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
    >>> from fastcurv.testing.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], bias=False)
    >>> permute_hidden(model, [1.0, 2.0, 3.0, 4.0], 0, [1, 0])
    array([2., 1., 4., 3.])
    """
    layer = _check_hidden_layer(model, theta, layer)
    order = _check_ints(order, "order")
    width = model.sizes[layer + 1]
    if order.shape != (width,) or sorted(order.tolist()) != list(range(width)):
        raise ValueError(f"order must be a permutation of 0 to {width - 1}, got {order.tolist()}.")
    theta, layers = _copy_theta(model, theta)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    for part in (W, b, *(batch_norm_params(model, theta)[layer] or ())):
        if part is not None:
            part[...] = part[order]
    W_out[...] = W_out[:, order]
    return theta


def flip_tanh(model: Any, theta: ArrayLike, layer: int, units: ArrayLike) -> NDArray[Any]:
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
    >>> from fastcurv.testing.reference import ReferenceModel
    >>> flip_tanh(ReferenceModel([1, 2, 1], bias=False), [1.0, 2.0, 3.0, 4.0], 0, [1])
    array([ 1., -2.,  3., -4.])
    """
    layer = _check_hidden_layer(model, theta, layer)
    if not activation_spec(model.activation[layer]).odd:
        raise ValueError(
            f"hidden layer {layer} must have an odd activation, tanh or identity, got "
            f"{model.activation[layer]}."
        )
    return _scale_units(model, theta, layer, units, -1.0, -1.0)


def rescale_relu(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float
) -> NDArray[Any]:
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
    >>> from fastcurv.testing.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], "relu", bias=False)
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
    return _scale_units(model, theta, layer, units, factor, factor)


def _scale_units(
    model: Any, theta: ArrayLike, layer: int, units: ArrayLike, factor: float, output: float
) -> NDArray[Any]:
    """Return theta with the weights into `units` multiplied by `factor`, and out of them divided by
    `output`.
    """
    width = model.sizes[layer + 1]
    units = np.unique(np.atleast_1d(_check_ints(units, "units")))
    if units.size and not (units[0] >= 0 and units[-1] < width):
        raise ValueError(f"units must be ints from 0 to {width - 1}, got {units.tolist()}.")
    theta, layers = _copy_theta(model, theta)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    # The output of a batch-normalised unit does not depend on the scale of its weights.
    for part in batch_norm_params(model, theta)[layer] or (W, b):
        if part is not None:
            part[units] *= factor
    W_out[:, units] /= output
    return theta


def nearest_copy(model: Any, theta: ArrayLike, other: ArrayLike) -> NDArray[Any]:
    """Return a copy of `other` near theta. A copy is obtained by permutations of hidden units and
    by sign flips. A flip changes the signs of the weights into and out of a unit whose activation
    is odd, or into a unit whose activation is even.

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
    >>> from fastcurv.testing.reference import ReferenceModel
    >>> model = ReferenceModel([1, 2, 1], bias=False)
    >>> nearest_copy(model, [1.0, 2.0, 3.0, 4.0], [-2.0, 1.0, -4.0, 3.1])
    array([1. , 2. , 3.1, 4. ])
    """
    from scipy.optimize import linear_sum_assignment  # this import is slow
    from scipy.spatial.distance import cdist

    require_attrs(model, ("n_params", "activation"), "model", "a fastcurv.MLP", theta)
    theta = check_vector(theta, model.n_params, "theta", np.float64)
    copy: NDArray[Any] = check_vector(other, model.n_params, "other", np.float64)
    for layer, name in enumerate(model.activation):
        if feeds_skip_connection(model, layer):
            continue
        odd, even = activation_spec(name).odd, activation_spec(name).even
        (turning, fixed), (others, others_fixed) = (
            _unit_signatures(model, t, layer, even) for t in (theta, copy)
        )
        apart = cdist(fixed, others_fixed, "sqeuclidean")
        straight = apart + cdist(turning, others, "sqeuclidean")
        turned = apart + cdist(turning, -others, "sqeuclidean") if odd or even else straight
        rows, order = linear_sum_assignment(np.minimum(straight, turned))
        copy = permute_hidden(model, copy, layer, order)
        flipped = np.flatnonzero((turned < straight)[rows, order])
        if flipped.size:
            copy = _scale_units(model, copy, layer, flipped, -1.0, 1.0 if even else -1.0)
    return copy


def _unit_signatures(
    model: Any, theta: NDArray[Any], layer: int, even: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two matrices with a row for each unit of a hidden layer: the numbers whose signs a
    flip changes, and those that a flip keeps. Weights into a layer that is matched later are
    represented by their sorted absolute values. A flip of a unit with an even activation keeps its
    outgoing weights.
    """
    (W, b), (W_out, _) = layers_of(model, theta)[layer : layer + 2]
    norm = batch_norm_params(model, theta)[layer]
    turning, fixed = ([W, b], []) if norm is None else (list(norm), [W])
    if layer == len(model.activation) - 1:
        (fixed if even else turning).append(W_out.T)
    else:
        fixed.append(np.sort(np.abs(W_out.T), axis=1))
    columns = [
        np.column_stack([part for part in parts if part is not None] or [np.zeros((len(W), 0))])
        for parts in (turning, fixed)
    ]
    return columns[0], columns[1]


# --------------------------------------------------------------------------------------------------
# Symmetry groups of a network's loss that hold exactly for the stored numbers.
#
# Each group consists of transformations of theta that leave the loss unchanged, for every theta or
# on a ball. An `Orbit` holds the tangents at theta, bounds on their changes, and the finite
# transformations, so that a test can follow the orbit. No group is found by a tolerance on a
# computed matrix, because a null space up to rounding proves nothing.
#
# - *shift*: cross entropy is invariant to the same vector added to every row of the last layer.
# - *columns*: columns of X that are 0 or equal, or constant with a bias or batch normalisation.
# - *scale*: relu and leaky_relu units scaled up, their outgoing weights scaled down.
# - *linear*: ``A W1, W2 A^-1`` for invertible A around linear layers, and shifts of their biases.
# - *bias below a mean*: the bias of a batch-normalised unit, which the batch mean removes.
# - *off*: each parameter of a relu unit that is proved to be inactive for all rows on a ball.
#
# Units that are joined by skips are transformed together or not at all. If l2 acts on a parameter,
# only orthogonal transformations of it remain: rotations around linear layers.

MAX_TANGENTS_BYTES = 1 << 30  # maximum size of all tangents
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Orbit:
    """A proved symmetry group at theta.

    Attributes
    ----------
    name : str
        The kind of the group: one of the names in the comment above `MAX_TANGENTS_BYTES`.
    tangents : ndarray (n, s)
        Nonzero columns ``d/dt_j`` of the orbit at theta, which may be linearly dependent.
    change : float
        A bound on ``||T(theta + h) - T(theta)||_2 / ||h||``, with T the tangents as a function of
        theta.
    error : float
        A bound on the rounding error of the tangents, ``||tangents - T||_2``.
    move : callable
        ``move(t)`` for t (s,) returns theta transformed by the element t of the group.
    """

    name: str
    tangents: Floats
    change: float
    error: float
    move: Callable[[ArrayLike], Floats]

    def __len__(self) -> int:
        return int(self.tangents.shape[1])


def proved_orbits(
    ob: Any,
    theta: Floats,
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> list[Orbit]:
    """Return all symmetry groups that are proved at theta.

    Parameters
    ----------
    ob : Objective
    theta : ndarray (n,), float64
    off, on_kinks : sequence of ndarray (width,) of bool
        For each hidden layer, masks of relu units proved to be inactive for all rows, and of units
        with a z that may be at a kink. See `fastcurv.certify.preactivations.preactivation_signs`.

    Returns
    -------
    list of Orbit
        The groups whose tangents are not all 0. Raises `MemoryError` if they take more than 1 GB.
    """
    free = np.broadcast_to(l2_diagonal(ob), theta.shape) == 0
    held, size = [], 0
    # Translations leave the loss unchanged only if l2 does not act on the parameters.
    groups = (
        (
            _softmax_shift_orbits,
            _column_orbits,
            _batch_mean_orbits,
            _inactive_unit_orbits,
            _residual_stream_orbits,
        )
        if free.any()
        else (_residual_stream_orbits,)
    )
    for group in groups:
        for orbit in group(ob, theta, free, off, on_kinks):
            if len(orbit):
                size += len(orbit)
                _check_tangents_memory(theta, size)
                held.append(orbit)
    return held


def _check_tangents_memory(theta: Floats, count: int) -> None:
    """Raise MemoryError if `count` tangents take more than `MAX_TANGENTS_BYTES`."""
    if count * theta.nbytes > MAX_TANGENTS_BYTES:
        raise MemoryError(
            f"the symmetry directions must take at most {MAX_TANGENTS_BYTES / 1e9:.2g} GB as a "
            f"dense array, got {count * theta.nbytes / 1e9:.2g} GB. Use a smaller network."
        )


def _zero_tangents(theta: Floats, count: int) -> Floats:
    """Return zeros (count, n) for tangents as rows. Raise MemoryError if they take too much
    memory.
    """
    _check_tangents_memory(theta, count)
    return np.zeros((count, theta.size))


def _translation_orbit(name: str, theta: Floats, rows: Floats, error: float = 0.0) -> Orbit:
    """Return the `Orbit` of the translations of theta along the given rows (s, n)."""
    T = np.ascontiguousarray(rows.T)
    return Orbit(name, T, 0.0, error, lambda t: theta + T @ np.asarray(t, dtype=float))


def _parameter_orbit(name: str, theta: Floats, columns: Sequence[int]) -> Orbit:
    """Return the `Orbit` of the translations of single parameters, at the indices `columns`."""
    rows = _zero_tangents(theta, len(columns))
    rows[np.arange(len(columns)), columns] = 1.0
    return _translation_orbit(name, theta, rows)


def _free_layers(model: Any, free: NDArray[np.bool_]) -> list[tuple[bool, bool]]:
    """Return a pair for each layer: True if W has no l2, and True if b exists and has no l2. `free`
    (n,) is True for parameters without l2.
    """
    return [(bool(W.all()), b is not None and bool(b.all())) for W, b in layers_of(model, free)]


def _softmax_shift_orbits(
    ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any
) -> Iterator[Orbit]:
    """Yield the orbit that adds the same vector to every row of W of the last layer, or the same
    number to all entries of its bias, if the loss is cross entropy.
    """
    if loss_spec(ob.loss).link != "softmax":
        return
    W_free, b_free = _free_layers(ob.model, free)[-1]
    at = np.arange(ob.model.sizes[-2] * W_free)
    rows = _zero_tangents(theta, len(at) + b_free)
    W, b = layers_of(ob.model, rows)[-1]
    W[at, :, at] = 1 / W.shape[1] ** 0.5
    if b_free:
        b[-1] = 1 / W.shape[1] ** 0.5
    yield _translation_orbit("shift", theta, rows, EPS * len(rows) ** 0.5)


def column_dependencies(X: Floats, constant: bool) -> list[tuple[Floats, float]]:
    """Return a list of linearly independent pairs ``(c, c0)`` with ``X c + c0 = 0``. c0 is 0 unless
    `constant` is True.

    They come from columns that are 0, from equal columns, and if `constant` is True from columns
    with equal entries. The sums are 0 without rounding errors.

    Examples
    --------
    >>> for c, c0 in column_dependencies(np.array([[1.0, 2.0, 1.0], [3.0, 2.0, 3.0]]), True):
    ...     print(c, c0)
    [0. 1. 0.] -2.0
    [-1.  0.  1.] 0.0
    """
    found: list[tuple[Floats, float]] = []
    first: dict[bytes, int] = {}
    for k, x in enumerate(X.T):
        c = np.zeros(X.shape[1])
        c[k] = 1.0
        if not x.any() or constant and (x == x[0]).all():
            found.append((c, -float(x[0]) if len(x) else 0.0))
            continue
        key = (x + 0.0).tobytes()  # adding 0.0 turns -0 into 0
        if key in first:
            c[first[key]] = -1.0
            found.append((c, 0.0))
        first.setdefault(key, k)
    return found


def _column_orbits(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the orbit that translates the weights of the first layer along the linear dependencies
    of the columns of X.
    """
    model = ob.model
    W_free, b_free = _free_layers(model, free)[0]
    blind = is_batch_normalised(model)  # True if a constant added to all rows has no effect
    if not W_free:
        return
    found = column_dependencies(nonzero_weight_rows(ob), blind or model.bias and b_free)
    at = np.arange(model.sizes[1])
    rows = _zero_tangents(theta, len(found) * len(at))
    W, b = layers_of(model, rows)[0]
    for i, (c, c0) in enumerate(found):
        size = math.hypot(float(np.linalg.norm(c)), 0.0 if blind else c0)
        W[i * len(at) + at, at] = c / size
        if c0 and not blind:
            b[i * len(at) + at, at] = c0 / size
    yield _translation_orbit("columns", theta, rows, 2 * EPS * len(rows) ** 0.5)


def _batch_mean_orbits(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the orbit of the translations of the biases that the batch mean removes."""
    model = ob.model
    if not (is_batch_normalised(model) and model.bias):
        return
    held = layers_of(model, np.arange(theta.size))[:-1]
    below = [b for (_, b), alone in zip(held, _free_layers(model, free)) if alone[1]]
    yield _parameter_orbit("bias below a mean", theta, [int(i) for b in below for i in b])


def _inactive_unit_orbits(
    ob: Any,
    theta: Floats,
    free: NDArray[np.bool_],
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> Iterator[Orbit]:
    """Yield the orbit of the translations of all parameters without l2 of relu units that are off
    for all rows.
    """
    model, columns, at = ob.model, list[int](), np.arange(theta.size)
    layers, norms = layers_of(model, at), batch_norm_params(model, at)
    for layer, units in enumerate(off):
        into = [part for part in (*layers[layer], *(norms[layer] or ())) if part is not None]
        for j in np.flatnonzero(units):
            touched = [part[j] for part in into]
            if not has_skip_connection(model, layer):
                touched.append(layers[layer + 1][0][:, j])
            columns.extend(i for i in np.hstack(touched) if free[i])
    yield _parameter_orbit("off", theta, columns)


# --- groups that act by matrices on the outputs of hidden layers
# --------------------------------------------------------------------------------------------------


def residual_stream_runs(model: Any) -> list[range]:
    """Return the runs of hidden layers that share one residual stream: a layer, and the layers that
    add to its outputs by skip connections. A run whose first layer adds its input, X, is left out,
    because X cannot be transformed.
    """
    runs, start = [], 0
    n_hidden = len(model.activation)
    while start < n_hidden:
        stop = start + 1
        while stop < n_hidden and has_skip_connection(model, stop):
            stop += 1
        if not has_skip_connection(model, start):
            runs.append(range(start, stop))
        start = stop
    return runs


def _residual_stream_orbits(
    ob: Any,
    theta: Floats,
    free: NDArray[np.bool_],
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> Iterator[Orbit]:
    """Yield the orbits of theta under changes of hidden layers that later layers compensate. The
    outputs of homogeneous units, such as relu, are scaled. Outputs of layers with the activation
    "identity" are multiplied by an invertible matrix or, under l2, by a rotation, and biases of
    these layers are shifted. `free` (n,) masks the parameters without l2, and `on_kinks` holds, for
    each hidden layer, a mask of the units whose pre-activation may lie at a kink.
    """
    model = ob.model
    for run in residual_stream_runs(model):
        names = {model.activation[l] for l in run}
        if not all(activation_spec(name).homogeneous for name in names):
            continue
        touched = _affected_parameters(model, run)
        width = model.sizes[run[0] + 1]
        linear = names == {"identity"} and not is_batch_normalised(model)
        if free[touched].all():
            kinks = np.logical_or.reduce([on_kinks[l] for l in run])
            units = [i for i in range(width) if not kinks[i]]
            pairs = [(i, j) for i in units for j in (range(width) if linear else (i,))]
            yield _linear_group_orbit(ob, theta, run, pairs, 0, "linear" if linear else "scale")
        elif linear and _has_uniform_decay(ob, run):
            pairs = [(i, j) for i in range(width) for j in range(i)]
            yield _linear_group_orbit(ob, theta, run, pairs, -1, "rotation")
        if names == {"identity"} and len(run) == 1:
            yield from _bias_shift_orbits(ob, theta, free, run[0])


def _affected_parameters(model: Any, run: range) -> NDArray[np.bool_]:
    """Return a mask (n,) of the parameters that a linear map on the outputs of a run changes."""
    touched = np.zeros(model.n_params, dtype=bool)
    for rows, columns in _transformed_parts(model, touched, run):
        for part in (*rows, columns):
            part[...] = True
    return touched


def _transformed_parts(model: Any, theta: NDArray[Any], run: range) -> list[tuple[list[Any], Any]]:
    """Return a pair for each layer of a run: a list of the parts of theta that transform by rows,
    and the W of the layer above, which transforms by columns.
    """
    layers, norms = layers_of(model, theta), batch_norm_params(model, theta)
    return [
        ([part for part in norms[l] or layers[l] if part is not None], layers[l + 1][0])
        for l in run
    ]


def _has_uniform_decay(ob: Any, run: range) -> bool:
    """Return True if l2 is constant on each W and each b whose entries a rotation mixes."""
    l2 = np.broadcast_to(l2_diagonal(ob), (ob.model.n_params,))
    return all(
        part.size == 0 or (part == part.flat[0]).all()
        for rows, columns in _transformed_parts(ob.model, l2, run)
        for part in (*rows, columns)
    )


def _linear_group_orbit(
    ob: Any, theta: Floats, run: range, pairs: Sequence[tuple[int, int]], mirror: int, name: str
) -> Orbit:
    """Return the `Orbit` of ``exp(M)`` on the outputs of a run of layers, with M in the span of
    ``E_ij + mirror E_ji`` for (i, j) in `pairs`.
    """
    # The generator changes rows and columns by at most ||t|| times their norm. These are disjoint
    # parts of theta, except for a W within the run, which transforms on both sides.
    model = ob.model
    width = model.sizes[run[0] + 1]
    rows = _zero_tangents(theta, len(pairs))
    for t, (i, j) in zip(rows, pairs):
        t += _action_tangent(model, theta, run, i, j)
        if mirror:
            t += mirror * _action_tangent(model, theta, run, j, i)
    used = rows.any(axis=1)
    T, kept = np.ascontiguousarray(rows[used].T), np.array(pairs, int).reshape(-1, 2)[used]

    def move(t: ArrayLike) -> Floats:
        M = np.zeros((width, width))
        M[kept[:, 0], kept[:, 1]] = np.asarray(t, dtype=float)
        return _apply_action(model, theta, run, M + mirror * M.T)

    error = 2 * EPS * float(np.linalg.norm(T)) if mirror or len(run) > 1 else 0.0
    return Orbit(name, T, 1.0 if len(run) == 1 else 2.0, error, move)


def _action_tangent(model: Any, theta: Floats, run: range, i: int, j: int) -> Floats:
    """Return the derivative (n,) of the action of ``exp(t E_ij)``: row j is added to row i, and
    column i is subtracted from column j.
    """
    t = np.zeros_like(theta)
    for (rows, columns), (now, above) in zip(
        _transformed_parts(model, t, run), _transformed_parts(model, theta, run)
    ):
        for part, value in zip(rows, now):
            part[i] += value[j]
        columns[:, j] -= above[:, i]
    return t


def _apply_action(model: Any, theta: Floats, run: range, M: Floats) -> Floats:
    """Return a copy of theta in which the outputs of the layers `run` are multiplied by ``exp(M)``,
    and the weights that multiply these outputs by ``exp(-M)``, so that the network stays the same.
    """
    there = theta.copy()
    A, back = expm(M), expm(-M)
    for rows, columns in _transformed_parts(model, there, run):
        for part in rows:
            part[...] = A @ part
        columns[...] = columns @ back
    return there


def _bias_shift_orbits(
    ob: Any, theta: Floats, free: NDArray[np.bool_], layer: int
) -> Iterator[Orbit]:
    """Yield the orbit that shifts the biases of a linear layer (beta, with batch normalisation), if
    the bias or the batch mean of the layer above compensates the shift.
    """
    model = ob.model
    norms = batch_norm_params(model, theta)
    above = norms[layer + 1] is not None
    b = (norms[layer] or layers_of(model, theta)[layer])[1]
    if b is None or not (above or model.bias):
        return

    def moved(x: NDArray[Any], by: Any, back: Any) -> NDArray[Any]:
        (batch_norm_params(model, x)[layer] or layers_of(model, x)[layer])[1][...] = by
        if not above:
            layers_of(model, x)[layer + 1][1][...] = back
        return x

    if not free[moved(np.zeros(theta.size, dtype=bool), True, True)].all():
        return

    def direction(t: Floats) -> Floats:
        return moved(np.zeros_like(theta), t, -(layers_of(model, theta)[layer + 1][0] @ t))

    _check_tangents_memory(theta, len(b))
    T = np.stack([direction(e) for e in np.eye(len(b))], axis=1)
    yield Orbit(
        "linear bias",
        T,
        0.0 if above else 1.0,
        0.0,
        lambda t: theta + direction(np.asarray(t, dtype=float)),
    )
