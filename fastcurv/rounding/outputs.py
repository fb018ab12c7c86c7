"""The Gram matrix of what the outputs see, by float64 passes of its own, and a bound on its error.

``K = A'A`` as at the head of `fastcurv.network.output_space`: the sum over layers of ``(a a' + 1) *
(D D')``. a and D come with bounds on the norms of the errors of their rows, `Err`, by the same
steps as the gradient's delta. A column's part in a layer has length ``x = sqrt(||a||^2 + 1) ||d||``
and is off by ``e = sqrt(..) ||dd|| + ||da|| (||d|| + ||dd||)``, so that entry by entry

    |dK_ij| <= sum over layers of  x_i e_j + e_i x_j + e_i e_j + gamma x_i x_j
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocols import Enclosed, Floats
from .arithmetic import ETA, Chain, Err, flushes, norm, norms, scaled
from .losses import LossRows
from .rowwise import Rounding
from .state import State


def gram_enclosure(ob: Any, theta: Any, kind: str) -> Enclosed:
    """K ``(q, q)`` of the GGN or Fisher at theta, exactly symmetric, and for each column a bound on
    the norm of its error; infinite where overflow cannot be ruled out.

    Cost: a few times q/N backward passes' arithmetic in NumPy.
    """
    R = Rounding(ob, theta, measured=True)
    with np.errstate(all="ignore"):
        states = list(R.states())
        parts = [_columns(R, s, kind) for s in states]
        q = sum(len(part[-1][0]) * len(s.d[-1]) for part, s in zip(parts, states))
        K, bounds = np.zeros((q, q)), np.zeros(q)
        for l in range(len(R.W)):
            a = np.concatenate([s.a[l] for s in states])
            da = np.concatenate([_input_error(s, l) for s in states])
            D = np.concatenate([part[l][0] for part in parts], axis=1)
            dd = np.concatenate([part[l][1] for part in parts], axis=1)
            K += _layer(a, D.reshape(q, D.shape[2]), ob.model.bias)
            bounds += _bounds(R, a, da, D, dd) + R.arithmetic.u * norms(np.abs(K))[:, 0]
        bounds = R.slack * bounds + R.arithmetic.tiny * q
        R.overflow |= flushes()
    finite = np.isfinite(bounds).all() and np.isfinite(K).all() and not R.overflow
    return Enclosed(K, bounds if finite else np.full(len(K), np.inf), 0.0)


def _input_error(s: State, l: int) -> Floats:
    """Bounds on the norms of the errors of the rows of a, (rows, 1)."""
    return np.zeros((len(s.a[l]), 1)) if s.da[l] is None else np.asarray(s.da[l].nu)


def _layer(a: Floats, D: Floats, bias: bool) -> Floats:
    N, q = len(a), len(D)
    G = a @ a.T + bias
    K = D @ D.T
    K4 = K.reshape(q // N, N, q // N, N)
    K4 *= ((G + G.T) / 2)[None, :, None]
    return np.asarray((K + K.T) / 2)


def _bounds(R: Rounding, a: Floats, da: Floats, D: Floats, dd: Floats) -> Floats:
    """Of the columns of a layer's part of K."""
    bias = float(R.ob.model.bias)
    A = np.sqrt(norms(np.abs(a)) ** 2 + bias)[:, 0]
    d = norms(np.abs(D).reshape(-1, D.shape[2])).reshape(D.shape[:2])
    dd = dd[:, :, 0]
    x = scaled(A, d).ravel()
    e = (scaled(A + da[:, 0], dd) + scaled(da[:, 0], d)).ravel()
    gamma = R.arithmetic.gamma(a.shape[1] + D.shape[2] + 6)
    nx, ne = norm(x), norm(e)
    lost = D.shape[2] * ETA * norm(A) * np.sqrt(len(D)) * np.tile(A, len(D))  # in D D', then A A'
    return np.asarray((nx + ne) * e + ne * x + gamma * (nx + ne) * (x + e) + lost)


def _columns(R: Rounding, s: State, kind: str) -> list[Any]:
    """For each layer D ``(columns, rows, out)`` and the norms of the errors ``(columns, rows,
    1)``.
    """
    found: list[Any] = [[] for _ in R.W]
    for d, dd in factor_rows(s.loss, kind):
        chain, came = Chain(s.kappa), None
        for l in range(len(R.W) - 1, -1, -1):
            found[l].append((d, dd.nu))
            if l:
                d, dd, came = s.step_back(l, chain, d, dd, came)
    return [tuple(np.array(x) for x in zip(*layer)) for layer in found]


def factor_rows(loss: LossRows, kind: str) -> Any:
    """The columns of S and their errors one by one, (rows, d_out) and `Err`; ``S S' = d2L/dz2``."""
    r, (N, d) = loss.arithmetic, loss.d.shape
    if kind == "fisher":
        root = np.sqrt(float(r.N))
        yield root * loss.d, Err((loss.dd.E * root + 3 * r.u * np.abs(loss.d) * root) * (1 + r.u))
        return
    if loss.loss != "cross_entropy":
        h = np.broadcast_to(loss.h, (N, d))
        roots = np.sqrt(h)
        off = _root_error(h, np.broadcast_to(loss.dh.E, (N, d)), r.u)
        for j in range(d):
            unit = np.arange(d) == j
            yield roots * unit, Err(off * unit)
        return
    yield from _entropy_rows(loss)


def _root_error(x: Floats, dx: Floats, u: float) -> Floats:
    """Of sqrt(x), x off by dx: ``|sqrt x - sqrt y| <= min(dx / sqrt x, sqrt dx)``."""
    root = np.sqrt(x)
    carried = np.minimum(dx / np.where(root > 0, root, 1.0), np.sqrt(dx))
    return np.asarray(np.where(root > 0, carried, np.sqrt(dx)) + u * root)


def _entropy_rows(loss: LossRows) -> Any:
    """``S_ij = s_i (i = j) - s_i^2 s_j / (1 + s_t)``, ``S_tj = - s_t s_j``, any t being right."""
    u, d, at = loss.arithmetic.u, loss.d.shape[1], np.arange(len(loss.d))
    s, ds = np.sqrt(loss.p), _root_error(loss.p, loss.dp, loss.arithmetic.u)
    top, S = loss.p.argmax(axis=1), s + ds
    h, dh = np.sqrt(loss.h), _root_error(loss.h, loss.dh, u)
    t, dt, T = (x[at, top][:, None] for x in (s, ds, S))
    for k in range(d - 1):
        j = k + (k >= top)  # (rows,)
        sj, dj, Sj = (x[at, j][:, None] for x in (s, ds, S))
        unit = np.arange(d) == j[:, None]
        column = unit * s - s * s * sj / (1 + t)
        error = unit * ds + (2 * S * ds * Sj + S * S * dj + S * S * Sj * dt)
        error += 8 * u * (unit * S + S * S * Sj)
        first = np.arange(d) == top[:, None]
        column = np.where(first, -t * sj, column)
        error = np.where(first, dt * Sj + T * dj + 4 * u * T * Sj, error)
        error = error * (h + dh) + np.abs(column) * dh + 2 * u * np.abs(column) * (h + dh)
        yield h * column, Err(error)
