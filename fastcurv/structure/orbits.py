"""Symmetry groups of a network's loss that hold exactly for the stored numbers.

Each group consists of transformations of theta that leave the loss unchanged, for every theta or
on a ball. An `Orbit` holds the tangents at theta, bounds on their changes, and the finite
transformations, so that a test can follow the orbit. No group is found by a tolerance on a
computed matrix, because a null space up to rounding proves nothing.

- *shift*: cross entropy is invariant to the same vector added to every row of the last layer.
- *columns*: columns of X that are 0 or equal, or constant with a bias or batch normalisation.
- *scale*: relu and leaky_relu units scaled up, their outgoing weights scaled down.
- *linear*: ``A W1, W2 A^-1`` for invertible A around linear layers, and shifts of their biases.
- *bias below a mean*: the bias of a batch-normalised unit, which the batch mean removes.
- *off*: each parameter of a relu unit that is proved to be inactive for all rows on a ball.

Units that are joined by skips are transformed together or not at all. If l2 acts on a parameter,
only orthogonal transformations of it remain: rotations around linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

from ..common.protocols import Array, Floats, TwiceDifferentiable
from .parameters import (
    batch_norm_params,
    has_skip_connection,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    nonzero_weight_rows,
)
from .tables import activation_spec, loss_spec

MAX_TANGENTS_BYTES = 1 << 30  # maximum size of all tangents
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Orbit:
    """A proved symmetry group at theta.

    Attributes
    ----------
    name : str
        The kind of the group: one of the names in the module docstring.
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
    ob: TwiceDifferentiable,
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
    orbits = []
    size = 0
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
                orbits.append(orbit)
    return orbits


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
    dependencies: list[tuple[Floats, float]] = []
    first: dict[bytes, int] = {}
    for k, x in enumerate(X.T):
        c = np.zeros(X.shape[1])
        c[k] = 1.0
        if not x.any() or constant and (x == x[0]).all():
            dependencies.append((c, -float(x[0]) if len(x) else 0.0))
            continue
        key = (x + 0.0).tobytes()  # adding 0.0 turns -0 into 0
        if key in first:
            c[first[key]] = -1.0
            dependencies.append((c, 0.0))
        first.setdefault(key, k)
    return dependencies


def _column_orbits(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the orbit that translates the weights of the first layer along the linear dependencies
    of the columns of X.
    """
    model = ob.model
    W_free, b_free = _free_layers(model, free)[0]
    blind = is_batch_normalised(model)  # True if a constant added to all rows has no effect
    if not W_free:
        return
    dependencies = column_dependencies(nonzero_weight_rows(ob), blind or model.bias and b_free)
    at = np.arange(model.sizes[1])
    rows = _zero_tangents(theta, len(dependencies) * len(at))
    W, b = layers_of(model, rows)[0]
    for i, (c, c0) in enumerate(dependencies):
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
    model = ob.model
    columns = list[int]()
    at = np.arange(theta.size)
    layers = layers_of(model, at)
    norms = batch_norm_params(model, at)
    for layer, units in enumerate(off):
        into = [part for part in (*layers[layer], *(norms[layer] or ())) if part is not None]
        for j in np.flatnonzero(units):
            touched = [part[j] for part in into]
            if not has_skip_connection(model, layer):
                touched.append(layers[layer + 1][0][:, j])
            columns.extend(i for i in np.hstack(touched) if free[i])
    yield _parameter_orbit("off", theta, columns)


def residual_stream_runs(model: Any) -> list[range]:
    """Return the runs of hidden layers that share one residual stream: a layer, and the layers that
    add to its outputs by skip connections. A run whose first layer adds its input, X, is left out,
    because X cannot be transformed.
    """
    runs = []
    start = 0
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


def _transformed_parts(model: Any, theta: Array, run: range) -> list[tuple[list[Any], Any]]:
    """Return a pair for each layer of a run: a list of the parts of theta that transform by rows,
    and the W of the layer above, which transforms by columns.
    """
    layers = layers_of(model, theta)
    norms = batch_norm_params(model, theta)
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
    T = np.ascontiguousarray(rows[used].T)
    used_pairs = np.array(pairs, int).reshape(-1, 2)[used]

    def move(t: ArrayLike) -> Floats:
        M = np.zeros((width, width))
        M[used_pairs[:, 0], used_pairs[:, 1]] = np.asarray(t, dtype=float)
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
    A = expm(M)
    back = expm(-M)
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

    def moved(x: Array, by: Any, back: Any) -> Array:
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
