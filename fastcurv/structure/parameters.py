"""Layout of a flat theta: views of the weight matrices, biases and batch normalisation parameters
of each layer, skip connections, the l2 penalty, and the rows of an objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import row_block_slices
from ..common.protocols import Array
from .tables import activation_spec, batch_normalise, loss_spec


def is_batch_normalised(model: Any) -> bool:
    """Return True if the model has batch normalisation and at least one hidden layer."""
    return bool(getattr(model, "batch_norm", False)) and len(model.sizes) > 2


def has_kinks(model: Any) -> bool:
    """Return True if an activation of the network has a kink."""
    return any(activation_spec(name).kink for name in model.activation)


def layers_of(model: Any, theta: Array) -> list[tuple[Array, Any]]:
    """Return a list of pairs (W, b), one for each layer, as views of `theta` (n,), which may have
    any dtype, or of many vectors (..., n). W has shape (..., out, in). b has shape (..., out), or
    is None if the model has no biases.
    """
    return [(W, b) for W, b, _ in _split_parameters(model, theta)]


def batch_norm_params(model: Any, theta: Array) -> list[tuple[Array, Array] | None]:
    """Return a list with one entry for each layer: the pair (gamma, beta) of views of `theta`, each
    (..., out), or None if the layer has no batch normalisation.
    """
    return [norm for _, _, norm in _split_parameters(model, theta)]


def _split_parameters(
    model: Any, theta: Array
) -> Iterator[tuple[Array, Array | None, tuple[Array, Array] | None]]:
    at = 0
    normed = is_batch_normalised(model)
    for layer, (k, m) in enumerate(zip(model.sizes, model.sizes[1:])):
        W = theta[..., at : at + m * k].reshape(*theta.shape[:-1], m, k)
        at += m * k
        b = theta[..., at : at + m] if model.bias else None
        at += m * bool(model.bias)
        norm = None
        if normed and layer < len(model.sizes) - 2:
            norm = (theta[..., at : at + m], theta[..., at + m : at + 2 * m])
            at += 2 * m
        yield W, b, norm


def forward(
    layers: Iterable[Any], X: Array, activate: Callable[[int, Any, Any], Any]
) -> tuple[list[Any], list[Any]]:
    """Return two lists by layer: the inputs a ``(N, in)`` and the pre-activations z ``(N, out)``.
    z is ``a W' + b``, or ``gamma h + beta`` with h the normalised ``a W'``.

    Parameters
    ----------
    layers : iterable of (W, b) or (W, b, gamma, beta)
        The parameters of the layers. b is None if the network has no biases. Without batch
        normalisation all arrays may have leading axes, for many networks at once.
    X : ndarray or sparse array, shape (N, in)
        Input of the first layer.
    activate : callable
        ``activate(l, z, a)`` returns the output of hidden layer l with input a.
    """
    below: list[Any] = [X]
    zs: list[Any] = []
    for l, (W, b, *norm) in enumerate(layers):
        if l:
            below.append(activate(l - 1, zs[-1], below[-1]))
        z = below[-1] @ np.swapaxes(W, -1, -2)
        if norm:
            z = norm[0] * batch_normalise(z)[0] + norm[1]
        elif b is not None:
            z = z + b[..., None, :]
        zs.append(z)
    return below, zs


def has_skip_connection(model: Any, layer: int) -> bool:
    """Return True if `layer`, counted from 0, is a hidden layer that adds its input to its
    output.
    """
    return 0 <= layer < len(model.skips) and bool(model.skips[layer])


def residual_branch_scale(model: Any, layer: int) -> float:
    """Return the factor by which `MLP.init` scales the weights W of a layer.

    The factor is ``1/L``, with L the number of skip connections of the network, if the layer has a
    skip connection and an unbounded activation and the model has no batch normalisation. Otherwise
    it is 1.
    """
    if not has_skip_connection(model, layer) or model.batch_norm:
        return 1.0
    ends = activation_spec(model.activation[layer]).phi(np.array([[-30.0, 30.0]]))
    if not np.abs(ends).max() > 10:
        return 1.0
    return 1 / sum(has_skip_connection(model, l) for l in range(len(model.sizes) - 2))


def feeds_skip_connection(model: Any, layer: int) -> bool:
    """Return True if a skip connection starts or ends at the output of hidden layer `layer`, so
    that this output is added to the output of another layer.
    """
    return has_skip_connection(model, layer) or has_skip_connection(model, layer + 1)


def l2_diagonal(ob: Any) -> float | NDArray[np.float64]:
    """Return the term that l2 adds to the diagonal of an objective's Hessian: a number, or an array
    (n,) if l2 acts on the weight matrices W only.
    """
    l2 = float(ob.l2)
    if not l2 or getattr(ob, "l2_biases", True):
        return l2
    diagonal = np.zeros(ob.model.n_params)
    for W, _ in layers_of(ob.model, diagonal):
        W[...] = l2
    return diagonal


def divisor_of(ob: Any) -> float:
    """Return the divisor of the sum over rows in an objective. It is the attribute `divisor` if the
    objective is a part of another one, and otherwise the number of rows times the number of terms
    of a row.
    """
    # For a missing attribute, `getattr` would search for similar names.
    known = vars(ob).get("divisor")
    return ob.n_samples * n_terms_per_row(ob) if known is None else float(known)


def n_terms_per_row(ob: Any) -> float:
    """Return the number of terms of a row, by which its loss is divided: the number of targets of a
    row for losses that are means over targets, and 1 for cross entropy and user-defined losses.
    """
    return loss_spec(ob.loss).terms_of_row(ob.model.sizes[-1])


def nonzero_weight_rows(ob: Any) -> NDArray[np.float64]:
    """Return X in float64 without the rows of weight 0. With batch normalisation all rows are kept,
    because all rows enter the mean and variance.
    """
    X = np.asarray(ob.X, dtype=float)
    weight = ob.sample_weight
    return X if weight is None or is_batch_normalised(ob.model) else X[np.asarray(weight) != 0]


def replace_zero_weight_rows(ob: Any) -> tuple[Any, Any]:
    """Return X and y with each row of weight 0 replaced by the first row of nonzero weight. If all
    weights are 0, return zeros for X, and y unchanged.

    A row of weight 0 adds 0 to the loss and its derivatives. A pass that multiplies the values of
    the row by its weight would compute 0 times infinity if they overflow. With batch normalisation
    X is returned unchanged, because all rows enter the mean and variance.
    """
    weight = ob.sample_weight
    if weight is None or np.all(weight):
        return ob.X, ob.y
    idle = np.asarray(weight) == 0
    if idle.all():
        X = np.zeros_like(ob.X)
        y = ob.y
    else:
        rows = np.where(idle, np.argmin(idle), np.arange(len(idle)))
        X = ob.X[rows]
        y = ob.y[rows]
    return (ob.X if is_batch_normalised(ob.model) else X), y


def merge_equal_rows(ob: Any) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return ``(rows, weight)``: the index of the first row of each group of rows that are equal in
    X and y, and the sum of the absolute weights of the group. Groups whose weights are all 0 are
    left out.

    Equal rows are found by a hash of their bits. Two different rows with the same hash are both
    kept.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> X, y = np.array([[1.0], [2.0], [1.0], [3.0]]), np.array([[5.0], [5.0], [5.0], [7.0]])
    >>> merge_equal_rows(SimpleNamespace(X=X, y=y, sample_weight=np.array([1.0, 2.0, 0.5, 0.0])))
    (array([0, 1]), array([1.5, 2. ]))
    """
    X = ob.X
    N = len(ob.X)
    y = np.asarray(ob.y).reshape(N, -1)

    def numbers(rows: Any) -> NDArray[np.float64]:
        return np.hstack([np.asarray(part[rows], dtype=float) for part in (X, y)]) + 0.0

    odd = 2 * np.random.default_rng(0).integers(2**63, size=X.shape[1] + y.shape[1]) + 1
    key = np.concatenate(
        [
            (numbers(s).view(np.uint64) * odd.astype(np.uint64)).sum(axis=1)
            for s in row_block_slices(N, len(odd))
        ]
        or [np.zeros(0, np.uint64)]
    )
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    of = first[place.reshape(-1)]
    again = np.flatnonzero(of != np.arange(N))
    for s in row_block_slices(len(again), len(odd)):
        rows = again[s]
        differ = (numbers(rows) != numbers(of[rows])).any(axis=1)
        of[rows[differ]] = rows[differ]
    size = np.ones(N) if ob.sample_weight is None else np.abs(ob.sample_weight).astype(float)
    weight = np.asarray(np.bincount(of, size, N), dtype=float)
    positive = np.flatnonzero(weight)
    return positive, weight[positive]
