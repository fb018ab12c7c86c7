"""What the structure of a network decides about its Hessian before a single product is spent.

Every function reads a network objective: `ob.model` (`sizes`, `activation`, `bias`, `residual`,
`preactivations`), `ob.X`, `ob.y`, `ob.loss`, `ob.l2`, `ob.sample_weight`. Hidden layers count from
0.
"""

import numpy as np

from ..checks import as_rng, check_vector
from .activations import ACTIVATIONS, normalise
from .parameters import in_skip, l2_diagonal, layers_of, normalised, norms_of, skips

MAX_BYTES = 1 << 30  # that symmetry directions may take
_KINKED = ("relu", "leaky_relu", "elu")


def flat_directions(ob, theta):
    """Directions along which the loss is constant by symmetry: candidates for exact zero modes of
    the Hessian.

    Without `l2`: the common shift of a softmax (rows of the last layer, and its bias), constant or
    dependent inputs of a layer (identical hidden units among them), dead ReLU units, the scale of
    each ReLU unit against its outgoing weights, and all of ``W2 A^-1, A W1`` around a linear layer.
    With `l2 > 0` only the rotations around linear layers remain, and where l2 spares biases those
    of the others that move nothing else.

    With batch normalisation every b below a mean, weights along features whose combination is
    constant, and gamma and beta of ReLU and linear units against their outgoing weights; with `l2 >
    0` none. The size of W is not among them: the eps in the variance feels it.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)

    Returns
    -------
    ndarray, shape (n, s)
        `MemoryError` where that is more than 1 GB. Not orthogonal, not independent. A column that
        comes from moving along an orbit ``exp(s A) theta`` is ``t = A theta`` with ``||A|| <= 1``,
        and ``H t = -A'g``: it is a zero mode at critical points, and ``||H t|| <= ||g||`` anywhere.
        Directions of dependent hidden features are zero modes only where the gradient over the
        weights below them vanishes too, so a verdict counts no column without multiplying it by H.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel, ReferenceObjective
    >>> toy = ReferenceObjective(ReferenceModel([1, 1, 1], "identity", bias=False), [[1.0]], [1.0])
    >>> flat_directions(toy, [2.0, 0.5]).ravel()
    array([ 2. , -0.5])
    """
    theta = _theta(ob, theta)
    if ob.l2 > 0:
        columns = [] if normalised(ob.model) else [_linear_orbits(ob, theta, rotations=True)]
        if not getattr(ob, "l2_biases", True):
            columns.append(_free_of_l2(ob, theta))
    else:
        zs, below = _forward(ob, theta)
        columns = [_softmax_shift(ob), _dependent_inputs(ob, below), _dead_units(ob, zs)]
        columns += (
            [_norm_orbits(ob, theta)]
            if normalised(ob.model)
            else [_rescalings(ob, theta), _linear_orbits(ob, theta, rotations=False)]
        )
    columns = _within(MAX_BYTES, (t for kind in columns for t in kind if t.any()))
    return np.stack(columns, axis=1) if columns else np.zeros((theta.size, 0))


def _free_of_l2(ob, theta):
    """Symmetries that move no matrix W, where l2 is on these alone."""
    zs, _ = _forward(ob, theta)
    orbits = (
        _norm_orbits(ob, theta)
        if normalised(ob.model)
        else _linear_orbits(ob, theta, rotations=False)
    )
    borne = l2_diagonal(ob) > 0
    for kind in (_softmax_shift(ob), _dead_units(ob, zs), orbits):
        yield from (t for t in kind if not t[borne].any())


def _within(most, columns):
    """The columns as a list, or MemoryError where they take more than `most` bytes."""
    held, size = [], 0
    for t in columns:
        size += t.nbytes
        if size > most:
            raise MemoryError(
                f"the symmetry directions, dense, take more than {most / 1e9:.2g} GB; wanted a "
                "smaller network"
            )
        held.append(t)
    return held


def _theta(ob, theta):
    return check_vector(theta, ob.model.n_params, "theta", np.float64)


def _rows(ob):
    """The rows that count, in float64: those of weight zero decide nothing, but for statistics."""
    X = np.asarray(ob.X, dtype=float)
    return (
        X
        if ob.sample_weight is None or normalised(ob.model)
        else X[np.asarray(ob.sample_weight) != 0]
    )


def _forward(ob, theta):
    """Pre-activations of every layer and inputs of every layer, float64."""
    model, X = ob.model, _rows(ob)
    zs = [
        np.asarray(z, dtype=float)
        for z in model.preactivations(theta.astype(model.dtype), X.astype(model.dtype))
    ]
    below = [X]
    for layer, name in enumerate(model.activation):
        below.append(ACTIVATIONS[name][0](zs[layer]) + (below[layer] if skips(model, layer) else 0))
    return zs, below


def _blank(model):
    """A zero direction with its views ``[(W, b), ...]``."""
    t = np.zeros(model.n_params)
    return t, layers_of(model, t)


def _softmax_shift(ob):
    """The same vector added to every row of the last layer, the same number to its bias."""
    if ob.loss != "cross_entropy":
        return
    for k in range(ob.model.sizes[-2] + int(ob.model.bias)):
        t, layers = _blank(ob.model)
        W, b = layers[-1]
        (W[:, k] if k < W.shape[1] else b)[...] = 1 / W.shape[0] ** 0.5
        yield t


def null_space(A, eps=np.finfo(float).eps):
    """Unit vectors c with ``A c = 0`` to rounding, as columns; columns of A are brought to one norm
    before ranking.
    """
    norms = np.linalg.norm(A, axis=0)
    norms = np.where(norms > 0, norms, 1.0)
    R = np.linalg.qr(A / norms, mode="r")
    _, s, Vt = np.linalg.svd(R, full_matrices=True)
    rank = int((s > 4 * max(A.shape) * eps * s.max(initial=0.0)).sum())
    null = Vt[rank:].T / norms[:, None]
    return null / np.linalg.norm(null, axis=0)


def _dependent_inputs(ob, below):
    """Weights moved along a linear dependency of the features they multiply: the outputs do not
    change.
    """
    model = ob.model
    for layer, a in enumerate(below):
        blind = normalised(model) and layer < len(
            model.activation
        )  # to what is the same for all rows
        features = np.hstack([a, np.ones((len(a), 1))]) if model.bias or blind else a
        for c in null_space(features, np.finfo(model.dtype).eps).T:
            for row in range(model.sizes[layer + 1]):
                t, layers = _blank(model)
                W, b = layers[layer]
                W[row] = c[: W.shape[1]]
                if model.bias and not blind:
                    b[row] = c[-1]
                yield t


def _dead_units(ob, zs):
    """Every parameter that touches a ReLU unit which is off for every sample."""
    model = ob.model
    for layer, name in enumerate(model.activation):
        if name != "relu":
            continue
        for j in np.flatnonzero((zs[layer] <= 0).all(axis=0)):
            for part in range(2 * normalised(model)):
                t, _ = _blank(model)
                norms_of(model, t)[layer][part][j] = 1
                yield t
            for k in range(model.sizes[layer] + int(model.bias)):
                t, layers = _blank(model)
                W, b = layers[layer]
                if k < W.shape[1]:
                    W[j, k] = 1
                else:
                    b[j] = 1
                yield t
            if not skips(model, layer):
                for k in range(model.sizes[layer + 2]):
                    t, layers = _blank(model)
                    layers[layer + 1][0][k, j] = 1
                    yield t


def _rescalings(ob, theta):
    """A ReLU unit's weights scaled up, its outgoing weights down."""
    model, now = ob.model, layers_of(ob.model, theta)
    for layer, name in enumerate(model.activation):
        if name not in ("relu", "leaky_relu") or in_skip(model, layer):
            continue
        for j in range(model.sizes[layer + 1]):
            yield _orbit(model, now, layer, j, j)


def _orbit(model, now, layer, i, j, rotation=False):
    """``A theta`` for A = E_ij on the outputs of a hidden layer (E_ij - E_ji for a rotation),
    undone in the next one.
    """
    t, layers = _blank(model)
    for p, q, sign in [(i, j, 1.0)] + [(j, i, -1.0)] * rotation:
        layers[layer][0][p] += sign * now[layer][0][q]
        if model.bias:
            layers[layer][1][p] += sign * now[layer][1][q]
        layers[layer + 1][0][:, q] -= sign * now[layer + 1][0][:, p]
    return t


def _norm_orbits(ob, theta):
    """Of normalised layers: every b; gamma and beta of a ReLU or linear unit scaled up, its
    outgoing weights down; beta of a linear unit moved, which the layer above takes back.
    """
    model, now, norms = ob.model, layers_of(ob.model, theta), norms_of(ob.model, theta)
    for layer, name in enumerate(model.activation):
        for j in range(model.sizes[layer + 1]):
            if model.bias:
                t, layers = _blank(model)
                layers[layer][1][j] = 1
                yield t
            if name not in ("relu", "leaky_relu", "identity") or in_skip(model, layer):
                continue
            t, layers = _blank(model)
            for part, value in zip(norms_of(model, t)[layer], norms[layer]):
                part[j] = value[j]
            layers[layer + 1][0][:, j] = -now[layer + 1][0][:, j]
            yield t
            above = norms[layer + 1] is not None
            if name == "identity" and (above or model.bias):
                t, layers = _blank(model)
                norms_of(model, t)[layer][1][j] = 1
                if not above:
                    layers[layer + 1][1][:] = -now[layer + 1][0][:, j]
                yield t


def _linear_orbits(ob, theta, rotations):
    """The general linear group around a hidden layer without nonlinearity; with `l2` only its
    rotations.
    """
    model, now = ob.model, layers_of(ob.model, theta)
    for layer, name in enumerate(model.activation):
        if name != "identity" or in_skip(model, layer):
            continue
        width = model.sizes[layer + 1]
        for i in range(width):
            for j in range(i if rotations else width):
                yield _orbit(model, now, layer, i, j, rotation=rotations)
            if model.bias and not rotations:
                t, layers = _blank(model)
                layers[layer][1][i] = 1
                layers[layer + 1][1][:] = -now[layer + 1][0][:, i]
                yield t


def probes(ob, theta, *, max_columns=None, seed=0):
    """Vectors that reach negative curvature which the gradient and its Krylov space cannot see.

    For two identical hidden units: their incoming weights pulled apart, and their outgoing ones.
    For a unit with zero weights in or out (or gamma 0): its incoming weights alone, and its
    outgoing ones alone; between the two lies the block ``[[0, B], [B', 0]]`` of the Hessian. Each
    in a random direction, since a random direction has a part along every eigenvector of the
    subspace it is drawn from.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)
    max_columns : int, optional
        Further units are left out. Default: 64, or fewer where that would take more than 512 MB.
    seed : None, int or numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, p)
        Unit columns, p <= max_columns.
    """
    theta, rng, model = _theta(ob, theta), as_rng(seed), ob.model
    if max_columns is None:
        max_columns = min(64, max(4, (1 << 26) // theta.size))
    now, norms, columns = layers_of(model, theta), norms_of(model, theta), []
    for layer in range(len(model.activation)):
        for plus, minus in _special_units(now, norms, layer):
            for incoming in (True, False):
                if len(columns) < max_columns:
                    columns.append(_apart(model, layer, plus, minus, incoming, rng))
    return np.stack(columns, axis=1) if columns else np.zeros((theta.size, 0))


def _special_units(now, norms, layer):
    """``(j, None)`` for units with zero weights on one side, ``(i, j)`` for neighbours among
    identical ones.
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


def _apart(model, layer, plus, minus, incoming, rng):
    t, layers = _blank(model)
    (W, b), (W_out, _) = layers[layer], layers[layer + 1]
    part = rng.standard_normal(W.shape[1] if incoming else W_out.shape[0])
    shift = rng.standard_normal()
    for unit, sign in ((plus, 1.0), (minus, -1.0)):
        if unit is not None and incoming:
            W[unit] = sign * part
            for more in norms_of(model, t)[layer] or (b,):
                if more is not None:
                    more[unit] = sign * shift
        elif unit is not None:
            W_out[:, unit] = sign * part
    return t / np.linalg.norm(t)


def saturation(ob, theta):
    """How much of the network hardly reacts, and how many samples are nearly certain.

    Returns
    -------
    dict
        ``layers``: per hidden layer, the share of (sample, unit) pairs whose ``|phi'|`` is at most
        1% of its maximum; ``saturated``: the same over all of them; ``dead_units``: units with that
        at every sample; ``n_units``; ``certain``: the share of samples (outputs, for binary cross
        entropy) with a probability within 1e-3 of 0 or 1, 0.0 for mse.

    Examples
    --------
    >>> from fastcurv.reference import ReferenceModel, ReferenceObjective
    >>> ob = ReferenceObjective(ReferenceModel([1, 1, 1], bias=False), [[1.0], [-1.0]], [1.0, 0.0])
    >>> saturation(ob, [20.0, 1.0])["saturated"]
    1.0
    """
    theta, model = _theta(ob, theta), ob.model
    zs, _ = _forward(ob, theta)
    off = [
        np.abs(ACTIVATIONS[name][1](z)) <= 0.01 * (0.25 if name == "sigmoid" else 1.0)
        for name, z in zip(model.activation, zs)
    ]
    count = sum(o.size for o in off)
    return {
        "layers": [float(o.mean()) for o in off],
        "saturated": float(sum(o.sum() for o in off) / count) if count else 0.0,
        "dead_units": int(sum(o.all(axis=0).sum() for o in off)),
        "n_units": int(sum(model.sizes[1:-1])),
        "certain": _certain(ob.loss, zs[-1]),
    }


def _certain(loss, f):
    if loss == "cross_entropy":
        p = np.exp(f - f.max(axis=1, keepdims=True))
        return float((p.max(axis=1) >= 0.999 * p.sum(axis=1)).mean())
    return float((np.abs(f) >= np.log(999)).mean()) if loss == "binary_cross_entropy" else 0.0


def kinks(ob, theta):
    """How many pre-activations of relu, leaky_relu and elu units lie within rounding of 0, where
    phi' or phi'' jumps.

    There the Hessian is one-sided and proves nothing about the other side. A row of zeros into a
    first layer without bias is left out: its z is 0 whatever theta is.

    Returns
    -------
    int
    """
    theta, model = _theta(ob, theta), ob.model
    zs, below = _forward(ob, theta)
    eps, count = np.finfo(model.dtype).eps, 0
    fixed = np.ones(
        len(below[0]), dtype=bool
    )  # rows whose input to this layer does not move with theta
    for layer, name in enumerate(model.activation):
        W, b = layers_of(model, theta)[layer]
        smallest = eps * max(
            eps, np.abs(theta).max(initial=0.0)
        )  # weights below this beside the rest are 0
        reach = np.abs(below[layer]) @ (np.abs(W) + smallest).T + (
            0 if b is None or normalised(model) else np.abs(b) + smallest
        )
        if normalised(model):
            reach = _norm_reach(below[layer] @ W.T, reach, *norms_of(model, theta)[layer])
        near = np.abs(zs[layer]) <= 4 * (layer + 1) * (W.shape[1] + 2) * eps * reach + smallest * (
            reach > 0
        )
        if b is None and not normalised(model):
            near &= ~(fixed & ~below[layer].any(axis=1))[:, None]
        if name in _KINKED:
            count += int(near.sum())
        fixed = (
            (zs[layer] < 0).all(axis=1) & ~near.any(axis=1)
            if name == "relu"
            else np.zeros_like(fixed)
        )
    return count


def _norm_reach(z, reach, gamma, beta):
    """Sizes of what ``gamma (z - mean) s + beta`` is made of, `reach` being those of z."""
    h, s = normalise(z)
    mean, square = reach.mean(axis=0), np.sqrt((reach**2).mean(axis=0))
    return np.abs(gamma) * s * (reach + mean + 2 * np.abs(h) * square) + np.abs(beta)
