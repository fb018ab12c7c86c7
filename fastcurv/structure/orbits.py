"""Symmetry groups of a network's loss that hold exactly for the stored numbers.

Each is a group of transformations of theta that leave the loss unchanged, for every theta or for
those in a ball. An `Orbit` holds its tangents at theta, how fast they change, and the finite
transformations, so that a test can follow the orbit. Nothing here is found by a tolerance on a
computed matrix: a null space up to rounding proves nothing.

- *shift*: cross entropy is invariant to the same vector added to every row of the last layer.
- *columns*: columns of X that are 0, equal, or, with a bias (or a batch mean that is subtracted),
  constant.
- *scale*: relu and leaky_relu units scaled up, their outgoing weights scaled down.
- *linear*: ``A W1, W2 A^-1`` for invertible A around layers without nonlinearity, and shifts of
  their biases.
- *bias below a mean*: the bias of a batch-normalised unit, which its mean removes.
- *off*: every parameter of a relu unit that is off for all rows, on the ball where that is proved.

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

from ..common.protocols import Floats
from .parameters import l2_diagonal, layers_of, normalised, norms_of, rows_that_count, skips
from .tables import ACTIVATIONS, LOSSES

MAX_BYTES = 1 << 30  # of all tangents
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Orbit:
    """A proved symmetry group at theta.

    Attributes
    ----------
    name : str
    tangents : ndarray (n, s)
        Columns ``d/dt_j`` of the orbit at theta; none is 0, but they may be linearly dependent.
    change : float
        A bound on ``||T(theta + h) - T(theta)||_2 / ||h||``, with T the tangents as a function of
        theta.
    error : float
        A bound on ``||tangents - T||_2``, from rounding.
    move : callable
        ``move(t)`` for t (s,): theta transformed by the group's element t, with the same loss.
    """

    name: str
    tangents: Floats
    change: float
    error: float
    move: Callable[[ArrayLike], Floats]

    def __len__(self) -> int:
        return int(self.tangents.shape[1])


def orbits(
    ob: Any,
    theta: Floats,
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> list[Orbit]:
    """Return every proved symmetry group at theta.

    Parameters
    ----------
    ob : Objective
    theta : ndarray (n,), float64
    off, on_kinks : sequence of ndarray (width,) of bool
        By hidden layer: relu units proved to be off for all rows, and units with a z that may be at
        a kink; see `fastcurv.certify.majorants.signs`.

    Returns
    -------
    list of Orbit
        Those with tangents that are not all 0. Raises `MemoryError` if they take more than 1 GB.
    """
    free = np.broadcast_to(l2_diagonal(ob), theta.shape) == 0
    held, size = [], 0
    # translations need parameters without l2
    groups = (_shift, _columns, _means, _off, _blocks) if free.any() else (_blocks,)
    for group in groups:
        for orbit in group(ob, theta, free, off, on_kinks):
            if len(orbit):
                size += len(orbit)
                _check_room(theta, size)
                held.append(orbit)
    return held


def _check_room(theta: Floats, count: int) -> None:
    """Raise MemoryError if so many tangents take too much memory."""
    if count * theta.nbytes > MAX_BYTES:
        raise MemoryError(
            f"the symmetry directions, dense, take more than {MAX_BYTES / 1e9:.2g} GB; wanted a "
            "smaller network"
        )


def _zeros(theta: Floats, count: int) -> Floats:
    """Return zeros for so many tangents, as rows."""
    _check_room(theta, count)
    return np.zeros((count, theta.size))


def _flat(name: str, theta: Floats, rows: Floats, error: float = 0.0) -> Orbit:
    """Return the orbit of the translations along fixed rows."""
    T = np.ascontiguousarray(rows.T)
    return Orbit(name, T, 0.0, error, lambda t: theta + T @ np.asarray(t, dtype=float))


def _units(name: str, theta: Floats, columns: Sequence[int]) -> Orbit:
    """Return the translations of some parameters, each alone."""
    rows = _zeros(theta, len(columns))
    rows[np.arange(len(columns)), columns] = 1.0
    return _flat(name, theta, rows)


def _free_layers(model: Any, free: NDArray[np.bool_]) -> list[tuple[bool, bool]]:
    """Return for each layer whether its W, and its b, are without l2."""
    return [(bool(W.all()), b is not None and bool(b.all())) for W, b in layers_of(model, free)]


def _shift(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the translations that add the same vector to every row of the last layer, or the same
    number to its bias.
    """
    if LOSSES[ob.loss].link != "softmax":
        return
    W_free, b_free = _free_layers(ob.model, free)[-1]
    at = np.arange(ob.model.sizes[-2] * W_free)
    rows = _zeros(theta, len(at) + b_free)
    W, b = layers_of(ob.model, rows)[-1]
    W[at, :, at] = 1 / W.shape[1] ** 0.5
    if b_free:
        b[-1] = 1 / W.shape[1] ** 0.5
    yield _flat("shift", theta, rows, EPS * len(rows) ** 0.5)


def dependencies(X: Floats, constant: bool) -> list[tuple[Floats, float]]:
    """Return ``(c, c0)`` with ``X c + c0 = 0`` exactly, linearly independent of one another; c0 is
    0 unless `constant`.

    Found are columns that are 0, equal columns, and with `constant` columns that hold one number.
    In float64 each sum is 0 without rounding.

    Examples
    --------
    >>> for c, c0 in dependencies(np.array([[1.0, 2.0, 1.0], [3.0, 2.0, 3.0]]), True):
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
        key = (x + 0.0).tobytes()  # -0 is 0
        if key in first:
            c[first[key]] = -1.0
            found.append((c, 0.0))
        first.setdefault(key, k)
    return found


def _columns(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the translations of the first layer's weights along a linear dependency of the columns
    of X.
    """
    model = ob.model
    W_free, b_free = _free_layers(model, free)[0]
    blind = normalised(model)  # invariant to what is added to all rows
    if not W_free:
        return
    found = dependencies(rows_that_count(ob), blind or model.bias and b_free)
    at = np.arange(model.sizes[1])
    rows = _zeros(theta, len(found) * len(at))
    W, b = layers_of(model, rows)[0]
    for i, (c, c0) in enumerate(found):
        size = math.hypot(float(np.linalg.norm(c)), 0.0 if blind else c0)
        W[i * len(at) + at, at] = c / size
        if c0 and not blind:
            b[i * len(at) + at, at] = c0 / size
    yield _flat("columns", theta, rows, 2 * EPS * len(rows) ** 0.5)


def _means(ob: Any, theta: Floats, free: NDArray[np.bool_], *_: Any) -> Iterator[Orbit]:
    """Yield the translations of the biases whose effect the batch mean removes."""
    model = ob.model
    if not (normalised(model) and model.bias):
        return
    held = layers_of(model, np.arange(theta.size))[:-1]
    below = [b for (_, b), alone in zip(held, _free_layers(model, free)) if alone[1]]
    yield _units("bias below a mean", theta, [int(i) for b in below for i in b])


def _off(
    ob: Any,
    theta: Floats,
    free: NDArray[np.bool_],
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> Iterator[Orbit]:
    """Yield the translations of every parameter without l2 of the relu units that stay off for all
    rows.
    """
    model, columns, at = ob.model, list[int](), np.arange(theta.size)
    layers, norms = layers_of(model, at), norms_of(model, at)
    for layer, units in enumerate(off):
        into = [part for part in (*layers[layer], *(norms[layer] or ())) if part is not None]
        for j in np.flatnonzero(units):
            touched = [part[j] for part in into]
            if not skips(model, layer):
                touched.append(layers[layer + 1][0][:, j])
            columns.extend(i for i in np.hstack(touched) if free[i])
    yield _units("off", theta, columns)


# --- groups that act by matrices on the outputs of hidden layers
# --------------------------------------------------------------------------------------------------


def joined_layers(model: Any) -> list[range]:
    """Return the runs of hidden layers whose outputs are one residual stream: a layer and those
    that add to it over skips.

    A run that starts with a skip is joined to X, which cannot be transformed, and is left out.
    """
    runs, start = [], 0
    n_hidden = len(model.activation)
    while start < n_hidden:
        stop = start + 1
        while stop < n_hidden and skips(model, stop):
            stop += 1
        if not skips(model, start):
            runs.append(range(start, stop))
        start = stop
    return runs


def _blocks(
    ob: Any,
    theta: Floats,
    free: NDArray[np.bool_],
    off: Sequence[NDArray[np.bool_]],
    on_kinks: Sequence[NDArray[np.bool_]],
) -> Iterator[Orbit]:
    """Yield the scalings of relu units, the general linear group (or the rotations) of linear ones,
    and the shifts of linear biases.
    """
    model = ob.model
    for run in joined_layers(model):
        names = {model.activation[l] for l in run}
        if not all(ACTIVATIONS[name].homogeneous for name in names):
            continue
        touched = _touched(model, run)
        width = model.sizes[run[0] + 1]
        linear = names == {"identity"} and not normalised(model)
        if free[touched].all():
            kinks = np.logical_or.reduce([on_kinks[l] for l in run])
            units = [i for i in range(width) if not kinks[i]]
            pairs = [(i, j) for i in units for j in (range(width) if linear else (i,))]
            yield _action(ob, theta, run, pairs, 0, "linear" if linear else "scale")
        elif linear and _even(ob, run):
            pairs = [(i, j) for i in range(width) for j in range(i)]
            yield _action(ob, theta, run, pairs, -1, "rotation")
        if names == {"identity"} and len(run) == 1:
            yield from _moved_biases(ob, theta, free, run[0])


def _touched(model: Any, run: range) -> NDArray[np.bool_]:
    """Return a mask of the parameters that an action on the outputs of a run of layers changes."""
    touched = np.zeros(model.n_params, dtype=bool)
    for rows, columns in _sides(model, touched, run):
        for part in (*rows, columns):
            part[...] = True
    return touched


def _sides(model: Any, theta: NDArray[Any], run: range) -> list[tuple[list[Any], Any]]:
    """Return, for each layer of a run, the parts that transform by rows, and the W of the layer
    above, which transforms by columns.
    """
    layers, norms = layers_of(model, theta), norms_of(model, theta)
    return [
        ([part for part in norms[l] or layers[l] if part is not None], layers[l + 1][0])
        for l in run
    ]


def _even(ob: Any, run: range) -> bool:
    """Return whether l2 is one number within each W and each b that a rotation mixes."""
    l2 = np.broadcast_to(l2_diagonal(ob), (ob.model.n_params,))
    return all(
        part.size == 0 or (part == part.flat[0]).all()
        for rows, columns in _sides(ob.model, l2, run)
        for part in (*rows, columns)
    )


def _action(
    ob: Any, theta: Floats, run: range, pairs: Sequence[tuple[int, int]], mirror: int, name: str
) -> Orbit:
    """Return the group of ``exp(M)`` on the outputs of a run, M spanned by ``E_ij + mirror E_ji``.

    The generator changes h by at most ``||t|| ||h||`` on the side of the rows and on that of the
    columns. These are disjoint parts of theta, except for a W within the run, which transforms on
    both sides: hence `change` 1 for a single layer and 2 for a longer run.
    """
    model = ob.model
    width = model.sizes[run[0] + 1]
    rows = _zeros(theta, len(pairs))
    for t, (i, j) in zip(rows, pairs):
        t += _tangent(model, theta, run, i, j)
        if mirror:
            t += mirror * _tangent(model, theta, run, j, i)
    some = rows.any(axis=1)
    T, kept = np.ascontiguousarray(rows[some].T), np.array(pairs, int).reshape(-1, 2)[some]

    def move(t: ArrayLike) -> Floats:
        M = np.zeros((width, width))
        M[kept[:, 0], kept[:, 1]] = np.asarray(t, dtype=float)
        return _moved(model, theta, run, M + mirror * M.T)

    error = 2 * EPS * float(np.linalg.norm(T)) if mirror or len(run) > 1 else 0.0
    return Orbit(name, T, 1.0 if len(run) == 1 else 2.0, error, move)


def _tangent(model: Any, theta: Floats, run: range, i: int, j: int) -> Floats:
    """Return the derivative of the action of ``exp(t E_ij)``: row j is added to row i, column i is
    subtracted from column j.
    """
    t = np.zeros_like(theta)
    for (rows, columns), (now, above) in zip(_sides(model, t, run), _sides(model, theta, run)):
        for part, value in zip(rows, now):
            part[i] += value[j]
        columns[:, j] -= above[:, i]
    return t


def _moved(model: Any, theta: Floats, run: range, M: Floats) -> Floats:
    """Return theta after ``exp(M)`` on the outputs of the run, with the inverse applied to the
    weights that read them.
    """
    there = theta.copy()
    A, back = expm(M), expm(-M)
    for rows, columns in _sides(model, there, run):
        for part in rows:
            part[...] = A @ part
        columns[...] = columns @ back
    return there


def _moved_biases(ob: Any, theta: Floats, free: NDArray[np.bool_], layer: int) -> Iterator[Orbit]:
    """Yield the shifts of the bias of a linear unit (of beta, if it is normalised), compensated by
    the bias of the layer above or by the batch mean there.
    """
    model = ob.model
    norms = norms_of(model, theta)
    above = norms[layer + 1] is not None
    b = (norms[layer] or layers_of(model, theta)[layer])[1]
    if b is None or not (above or model.bias):
        return

    def moved(x: NDArray[Any], by: Any, back: Any) -> NDArray[Any]:
        (norms_of(model, x)[layer] or layers_of(model, x)[layer])[1][...] = by
        if not above:
            layers_of(model, x)[layer + 1][1][...] = back
        return x

    if not free[moved(np.zeros(theta.size, dtype=bool), True, True)].all():
        return

    def direction(t: Floats) -> Floats:
        return moved(np.zeros_like(theta), t, -(layers_of(model, theta)[layer + 1][0] @ t))

    _check_room(theta, len(b))
    T = np.stack([direction(e) for e in np.eye(len(b))], axis=1)
    yield Orbit(
        "linear bias",
        T,
        0.0 if above else 1.0,
        0.0,
        lambda t: theta + direction(np.asarray(t, dtype=float)),
    )
