"""A floor under the spectrum of a network's Hessian that takes no products.

``H = GGN + R + l2 I``. The losses here are convex in the outputs, so at weights that are not
negative the GGN is positive semidefinite and only the residual part R can pull an eigenvalue below
l2:

    v'Rv = sum over l of 2 <delta_l, ra_(l-1) V_l'>  +  sum over l of <e_l phi''_l, rz_l * rz_l>

With ``x_l = ||[V_l vb_l]||_F``: what ``[a_(k-1) 1] [V_k vb_k]'`` does to ra at the input of a layer
l > k, it does row by row through matrices ``K = D_(l-1) W_(l-1) ... W_(k+1) D_k``, ``D =
diag(phi')`` (``D W + I`` over a skip). Let c (rows,) bound their norms, c_z those of
``diag(sqrt(max(0, -e_l phi''_l))) W_l K`` (without ``W_l K`` for k = l). Then, for any positive w
(rows,), with spectral norms over all rows,

    |<delta_l, ra_(l-1) V_l'>|       <=  sum over k of B_lk x_l x_k
    B_lk = ||delta_l / w||  ||w c [a_(k-1) 1]||
    <e_l phi''_l, rz_l * rz_l>       >=  -(sum over k of u_lk x_k)^2,    u_lk = ||c_z [a_(k-1) 1]||

``w^2 = ||delta_l|| / (c ||[a 1]||)``, row by row, makes B at most ``sum of ||delta_l|| c ||[a
1]||``: rows that are fitted cost nothing. So

    lambda_min  >=  l2 - lambda_max(S),     S_lk = S_kl = B_lk,  plus the sum over l of u_l u_l'

with S nonnegative, a row for each layer. For neighbours K is diagonal, and B_lk is also the largest
of the norms ``||C_j||``, j a unit between them and ``C_j = sum of delta_l phi'_j [a_(k-1) 1]'``:
there samples may cancel. With one hidden layer R falls apart into a block ``[[0, C_j], [C_j',
M_j]]`` for each hidden unit, ``M_j = sum of e phi'' x x'``, and its least eigenvalue can be had.

Rounding: the state at theta comes from `fastcurv.rounding_state`, float64 passes with a bound on
the error of every number, and each norm here is that of the numbers plus that of their errors.

How far it reaches. v = theta shows that R cannot be small beside l2 wherever l2 is what holds
theta: at a critical point of a network of L layers that is homogeneous (relu, no biases), ``theta'R
theta = -(L - 1) l2 ||theta||^2``, so no bound without the GGN is positive there. The floor is where
l2 outweighs the residuals: at weights near 0, and in fits that l2 has yet to pull to their minimum,
often a long way off, which is why `classify` asks whether curvature lasts up to there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..eigensolver import eigh
from ..protocols import Floats
from ..structure.parameters import l2_diagonal, normalised
from .arithmetic import norms, stack_norms
from .passes import EPS, GROWTH, TINY, Passes, checked_theta, gram_norm, passes_at, spectral
from .state import State

Reaches = dict[tuple[int, int], Floats]


WIDE = 1024  # inputs of a layer past which Frobenius norms stand for spectral ones
BLOCK = 256  # largest block of a hidden unit whose eigenvalues are computed


def curvature_floor(ob: Any, theta: ArrayLike) -> float:
    """A number that no eigenvalue of the Hessian lies below, or ``-inf`` where none is known
    cheaply.

    l2, less what the residual part can take away: `fastcurv.floor` has the formulas. Proved for the
    exact Hessian at theta (in the model's dtype), rounding included.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)

    Returns
    -------
    float
        At most l2, 0 where l2 spares biases. ``-inf`` with batch normalisation, negative sample
        weights or negative soft targets. Cost: forward and backward with bounds on their errors
        (some 10 gradients' arithmetic, in NumPy), then, for L layers, ``L (L - 1)`` Gram matrices
        of layer inputs; in small networks a matrix for each row and pair of hidden layers too; with
        one hidden layer one more product ``(d_out, N) (N, d_in)`` for each hidden unit.

    Examples
    --------
    Twice as much residual takes away twice as much.

    >>> from fastcurv.reference import ReferenceModel, ReferenceObjective
    >>> model = ReferenceModel([1, 1, 1, 1], "identity", bias=False)
    >>> for y in (1.0, 1.1, 1.2):
    ...     ob = ReferenceObjective(model, [[1.0]], [y], l2=1.0)
    ...     print(round(curvature_floor(ob, [1.0, 1.0, 1.0]), 6))
    1.0
    0.6
    0.2
    """
    model, theta = ob.model, checked_theta(ob, theta)
    weights, least = ob.sample_weight, float(np.min(l2_diagonal(ob)))
    if (
        weights is not None
        and np.min(weights) < 0
        or ob.loss == "cross_entropy"
        and np.min(ob.y) < 0
    ):
        return -np.inf
    if len(model.sizes) == 2:
        return least
    if normalised(model):
        return -np.inf
    with np.errstate(all="ignore"):
        passes = passes_at(ob, theta)
        taken = by_layers(passes)
        if len(model.sizes) == 3:
            taken = np.fmin(taken, by_units(passes))
        floor = least - taken
        return (
            float(np.nextafter(floor, -np.inf))
            if np.isfinite(floor) and not passes.overflow
            else -np.inf
        )


class Rows:
    """An upper bound on the spectral norm of a matrix that comes some rows at a time, each with a
    bound on its error's norm.
    """

    def __init__(self) -> None:
        self.gram, self.square, self.count = np.zeros((1, 1)), 0.0, 0

    def add(self, F: Floats, error: Floats) -> None:
        F = norms(np.abs(F)) if F.shape[1] > WIDE else F
        self.gram, self.count = self.gram + F.T @ F, self.count + len(F)
        self.square += float((error**2).sum())

    def bound(self) -> float:
        return gram_norm(self.gram, self.count) + np.sqrt(self.square) if self.count else 0.0


class Units:
    """The largest of the norms of ``C_j = sum of delta_l phi'_j [a 1]'``, j the units of the layer
    below.
    """

    def __init__(self) -> None:
        self.C: Any = 0.0
        self.off: Any = 0.0
        self.count = 0

    def add(self, s: State, l: int, F: Floats, error: Floats) -> None:
        d, phi, p, dp = s.d[l], s.phi[l - 1], 1.0 + 0 * s.a[l], 0.0
        if phi.p is not None:
            p, dp = phi.p, phi.dp.E
        outer = (d.T[:, None] * p.T).reshape(-1, len(d)) @ F
        self.C, self.count = self.C + outer.reshape(d.shape[1], p.shape[1], -1), self.count + len(d)
        d, dd, f, slope = norms(np.abs(d)), s.dd[l].nu, norms(np.abs(F)), np.abs(p)
        rounding = 16 * (self.count + sum(self.C.shape)) * EPS * d * slope * f
        self.off = self.off + (
            rounding + dd * (slope + dp) * (f + error) + d * (dp * (f + error) + slope * error)
        ).sum(axis=0)

    def bound(self) -> float:
        found = [spectral(self.C[:, j]) for j in range(self.C.shape[1])]
        return GROWTH * float(np.max(found + self.off + self.count * TINY))


def by_layers(passes: Passes) -> float:
    """``lambda_max(S)``: at least the largest eigenvalue of -R."""
    L = len(passes.W)
    B = {(l, k): (Rows(), Rows()) for l in range(L) for k in range(l)}
    U = {(l, k): Rows() for l in range(L - 1) for k in range(l + 1)}
    C = {(l, l - 1): Units() for l in range(1, L) if passes.by_units and L > 2}
    for s in passes.states():
        c, c_z = reaches(passes, s)
        for l, k in C:
            C[l, k].add(s, l, *_inputs(passes, s, k, np.ones_like(c[l, k])))
        for (l, k), (D, A) in B.items():
            _add_pair(D, A, passes, s, (l, k), c[l, k])
        for at in c_z:
            U[at].add(*_inputs(passes, s, at[1], c_z[at]))
    S = np.zeros((L, L))
    for (l, k), (D, A) in B.items():
        S[l, k] = S[k, l] = min(D.bound() * A.bound(), C[l, k].bound() if (l, k) in C else np.inf)
    for l in range(L - 1):
        u = np.array([U[l, k].bound() if k <= l else 0.0 for k in range(L)])
        S += np.outer(u, u)
    return GROWTH * _largest(S) if np.isfinite(S).all() else np.inf


def reaches(passes: Passes, s: State) -> tuple[Reaches, Reaches]:
    """``{(l, k): c}`` and ``{(l, k): c_z}`` of the head of this file for the rows of a state, each
    (rows, 1).

    The smaller of the product of norms and the norm of the product, where that is made. The latter
    is of the computed K, off by at most err: from layer to layer ``(|phi'| + dphi') ||W|| [+ 1]``
    times as much, and ``dphi' ||W|| ||K||`` more.
    """
    c, c_z, hidden = {}, {}, range(len(passes.W) - 1)
    ones = np.ones((len(s.a[0]), 1))
    p = [
        (
            ones if f.p is None else np.abs(f.p),
            0.0 * ones if f.p is None else f.dp.E.max(axis=1, keepdims=True),
        )
        for f in s.phi
    ]
    slope = [q.max(axis=1, keepdims=True) + dq for q, dq in p]
    down: list[Any] = [
        None if eq is None else np.sqrt(np.maximum(0, deq.E - eq)) for eq, deq in zip(s.eq, s.deq)
    ]
    for k in hidden:
        reach, err, K = slope[k], p[k][1], _diagonal(passes, s, k) if passes.by_rows else None
        if down[k] is not None:
            c_z[k, k] = down[k].max(axis=1, keepdims=True)
        for m in hidden[k + 1 :]:
            c[m, k], W = reach, passes.W_norms[m]
            most = None if down[m] is None else down[m].max(axis=1, keepdims=True) * W
            if most is not None:
                c_z[m, k] = most * reach
            reach = (slope[m] * W + passes.skips[m]) * reach
            if K is not None:
                size, WK = stack_norms(K), passes.W[m].A @ K
                err = err + 4 * EPS * max(WK.shape[1:] + K.shape[1:]) ** 2 * size  # W K is rounded
                if most is not None:
                    c_z[m, k] = np.minimum(
                        c_z[m, k], stack_norms(down[m][:, :, None] * WK) + most * err
                    )
                err = (slope[m] * W + passes.skips[m]) * err + p[m][1] * W * size
                K = (WK if s.phi[m].p is None else s.phi[m].p[:, :, None] * WK) + (
                    K if passes.skips[m] else 0
                )
                reach = np.minimum(reach, stack_norms(K) + err)
        c[len(hidden), k] = reach
    return c, c_z


def _diagonal(passes: Passes, s: State, k: int) -> Floats:
    """``diag(phi')`` of layer k for each row."""
    m, p = len(passes.W[k].A), s.phi[k].p
    return (
        np.broadcast_to(np.eye(m), (len(s.a[0]), m, m)) if p is None else p[:, :, None] * np.eye(m)
    )


def _inputs(passes: Passes, s: State, k: int, c: Floats) -> tuple[Floats, Floats]:
    """``c [a 1]`` for the inputs of layer k, and bounds on its rows' errors."""
    error = 0.0 * c if s.da[k] is None else c * s.da[k].nu
    return (np.hstack([c * s.a[k], c]) if passes.ob.model.bias else c * s.a[k]), error


def _add_pair(D: Rows, A: Rows, passes: Passes, s: State, at: tuple[int, int], c: Floats) -> None:
    """These rows' parts of ``delta_l / w`` and ``w c [a 1]``, a row's w as good as can be."""
    l, k = at
    d, dd = s.d[l], s.dd[l].nu
    F, error = _inputs(passes, s, k, c)
    near, far = norms(np.abs(d)) + dd, norms(np.abs(F)) + error
    if near.any() and far.any():
        w = np.sqrt((near + 1e-30 * near.max()) / (far + 1e-30 * far.max()))
        D.add(d / w, dd / w)
        A.add(w * F, w * error)


def by_units(passes: Passes) -> float:
    """The same for one hidden layer, from the block of each hidden unit."""
    X = np.asarray(passes.ob.X, dtype=float)
    X1 = np.hstack([X, np.ones((len(X), 1))]) if passes.ob.model.bias else X
    x = norms(np.abs(X1))
    slopes, bends, deltas = [], [], []
    of_C: Any = 0.0
    of_M: Any = 0.0
    for s in passes.states():
        phi, here, d = s.phi[0], x[s.rows], norms(np.abs(s.d[1]))
        p, dp = (np.ones_like(s.d[0]), 0.0) if phi.p is None else (phi.p, phi.dp.E)
        eq, deq = (np.zeros_like(p), 0.0) if s.eq[0] is None else (s.eq[0], s.deq[0].E)
        slopes.append(p)
        bends.append(eq)
        deltas.append(s.d[1])
        of_C = of_C + (here * (s.dd[1].nu * (np.abs(p) + dp) + d * dp)).sum(axis=0)
        of_M = of_M + np.broadcast_to(here**2 * deq, p.shape).sum(axis=0)
    slope, bend, delta = np.concatenate(slopes), np.concatenate(bends), np.concatenate(deltas)
    taken = [_of_unit(delta, slope[:, j], bend[:, j], X1, x[:, 0]) for j in range(slope.shape[1])]
    return GROWTH * float(np.max(taken + of_C + of_M))


def _largest(S: Floats) -> float:
    """An upper bound on the largest eigenvalue of a symmetric matrix."""
    values, _, errors = eigh(S)
    return float(values[-1] + errors[-1])


def _of_unit(delta: Floats, slope: Floats, bend: Floats, X1: Floats, x: Floats) -> float:
    """At least the largest eigenvalue of ``-[[0, C], [C', M]]`` for one hidden unit: from M's
    negative part where the block is large.
    """
    C = delta.T @ (slope[:, None] * X1)
    m, k = C.shape
    size = norms(np.abs(delta))[:, 0] @ (np.abs(slope) * x) + np.abs(bend) @ x**2
    slack = 16 * (len(X1) + m + k) * EPS * size + len(X1) * TINY
    if not np.isfinite(slack):
        return np.inf
    if m + k <= BLOCK:
        block = np.block([[np.zeros((m, m)), C], [C.T, X1.T @ (bend[:, None] * X1)]])
        return float(slack + _largest(-block))
    most = np.maximum(-bend, 0) @ x**2
    return float(slack + 0.5 * most + np.hypot(0.5 * most, spectral(C)))
