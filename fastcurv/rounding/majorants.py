"""Scalar majorants: how fast the Hessian of a network can change on a ball around theta.

One number for each row, layer and order, by the chain rule. Over the ball of radius rho let ``A0 >=
||a||``, and let A1, A2, A3 bound the operator norms of the first three derivatives of a by theta
(the a below a layer, the same with Z for its z). With ``w = ||W||_2 + rho``, h a step in theta, x
the part of its length that lies below the layer and y the part in the layer's own (V, vb), ``x^2 +
y^2 <= 1``:

    z = a W' + b:   Dz[h]   = W Da[h] + V a + vb        <= w A1 x + v y,          v = sqrt(A0^2 + 1)
                    D2z[h]  = W D2a[h] + 2 V Da[h]      <= w A2 x^2 + 2 A1 x y
                    D3z[h]  = W D3a[h] + 3 V D2a[h]     <= w A3 x^3 + 3 A2 x^2 y
    a = phi(z):     A1 = P1 Z1,   A2 = P2 Z1^2 + P1 Z2,
                    A3 = P3 Z1^3 + 3 P2 Z1 Z2 + P1 Z3            [each + the input's, over a skip]
    loss:           L = sum over rows of |weight| (c3 Z1^3 + 3 c2 Z1 Z2 + c1 Z3) / divisor

so ``Z1 = hypot(w A1, v)``, ``Z2 = (w A2 + hypot(w A2, 2 A1)) / 2`` (the largest eigenvalue of the
form in x, y), ``Z3 = w A3 + 2/sqrt(3) A2`` (the largest ``x^2 y`` is ``2 / 3 sqrt(3)``). For
symmetric multilinear maps of a Hilbert space the values at ``[h, h, h]`` are the operator norm. P1,
P2, P3 bound the derivatives of phi over ``z +- (error of z + rho Z1)``, unit by unit (`envelopes`);
c1, c2, c3 those of a row's loss. All from float64 passes whose errors are bounded (`passes`), and
rounded outward. Weight decay adds nothing. Batch normalisation couples the rows, so nothing is
known there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..protocols import Floats
from ..structure.parameters import layers_of, normalised, rows_once
from .arithmetic import KINKED, bell, norm, norms
from .envelopes import crosses, envelopes
from .passes import GROWTH, TINY, Passes, checked_theta, passes_at
from .state import State

CROSS = 2 / math.sqrt(3)
Units = list[tuple[Floats, Any]]  # a unit for every number of W and b, layer by layer


@dataclass(frozen=True)
class RowBounds:
    """What one pass over some rows of a state yields on the ball.

    Attributes
    ----------
    Z1, Z2, Z3 : ndarray (rows, 1)
        Bounds on the first three derivatives of the outputs by theta.
    reach : list of ndarray (rows, width)
        By hidden layer: how far each z is from its computed value at most, anywhere on the ball.
    moves : list of ndarray (rows, width)
        By hidden layer: whether z can move at all.
    """

    Z1: Floats
    Z2: Floats
    Z3: Floats
    reach: list[Floats]
    moves: list[NDArray[np.bool_]]


def walk(passes: Passes, s: State, rho: float, units: Units | None = None) -> RowBounds:
    """The recursion at the head of this file for the rows of a state.

    With units C the steps are ``C h`` with ``|h| <= 1``: then ``|V| <= m = max C`` of the layer,
    and of ``V a + vb`` unit i sees ``v_i = sqrt(sum_j (C_ij a_j)^2 + c_i^2)`` at most.
    """
    A1 = A2 = A3 = np.zeros((len(s.a[0]), 1))
    reaches, moves = [], []
    for l, W in enumerate(passes.W):
        C = None if units is None else units[l][0]
        m = 1.0 if C is None else float(C.max())
        w, da = passes.W_norms[l] + rho * m, s.da[l]
        off = (0.0 if da is None else da.nu) + rho * A1
        if C is None:
            A0 = norms(np.abs(s.a[l])) + off
            v = np.hypot(A0, 1.0) if passes.ob.model.bias else A0
            most, row = v, rho
        else:
            assert units is not None
            row = rho * C.max(axis=1)
            v = np.sqrt(s.a[l] ** 2 @ (C**2).T) + C.max(axis=1) * off
            v = v if units[l][1] is None else np.hypot(v, units[l][1])
            most = v.max(axis=1, keepdims=True)
        Z1, bent = np.hypot(_product(w, A1), most), _product(w, A2)
        Z2 = 0.5 * (bent + np.hypot(bent, 2 * _product(m, A1)))
        Z3 = _product(w, A3) + CROSS * _product(m, A2)
        if l == len(passes.W) - 1:
            continue
        Z1, Z2, Z3 = Z1 * GROWTH, Z2 * GROWTH, Z3 * GROWTH
        each = np.hypot((W.rows + row) * A1, v) * GROWTH  # a unit feels its own row of W only
        reach = s.dz[l].E + rho * each
        reaches.append(reach)
        moves.append((each > 0) | (s.dz[l].E > 0))
        P1, P2, P3 = (
            np.where(each > 0, P, 0.0).max(axis=1, keepdims=True)
            for P in envelopes(passes.names[l], s.z[l], reach)
        )
        with np.errstate(invalid="ignore"):
            square = _product(Z1, Z1)
            B = (
                _product(P1, Z1),
                _product(P2, square) + _product(P1, Z2),
                _product(P3, _product(square, Z1))
                + 3 * _product(P2, _product(Z1, Z2))
                + _product(P1, Z3),
            )
        over: tuple[Any, ...] = (A1, A2, A3) if passes.skips[l] else (0.0, 0.0, 0.0)
        A1, A2, A3 = (GROWTH * b + a for b, a in zip(B, over))
    return RowBounds(Z1 * GROWTH, Z2 * GROWTH, Z3 * GROWTH, reaches, moves)


def _product(P: Any, Z: Floats) -> Floats:
    """P Z, 0 where one of them is, also beside infinity; never less for underflow."""
    return np.where((P == 0) | (Z == 0), 0.0, P * Z + TINY)


def weights_of(ob: Any, s: State) -> Floats:
    """|weight| of the rows of a state, (rows, 1)."""
    w = ob.sample_weight
    return np.ones((len(s.a[0]), 1)) if w is None else np.abs(w[s.rows].astype(float))[:, None]


def third_bound(ob: Any, theta: ArrayLike, radius: float, units: ArrayLike | None = None) -> float:
    """A Lipschitz constant of the Hessian on the ball of that radius around theta.

    ``||H(x) - H(y)||_2 <= L ||x - y||`` for all x, y in the ball, for the exact Hessian of the
    numbers as they stand: `fastcurv.rounding.majorants` has the formulas.

    Parameters
    ----------
    ob : Objective
    theta : array_like (n,)
    radius : float
    units : array_like (n,), optional
        Positive, of every parameter: the ball is ``theta + C x``, ``||x|| <= radius``, C =
        diag(units), and L the constant of ``C H C`` by x.

    Returns
    -------
    float
        Rounded outward; infinite with batch normalisation, and where a kink of relu, leaky_relu or
        elu may lie in the ball. Cost: forward and backward in NumPy with bounds on their errors,
        once for a theta, then O(N sum(widths)).

    Examples
    --------
    ``(w2 w1 - 1)^2`` bends at most so fast within 0.1 of (1, 1): its third derivatives are 4 w1 and
    4 w2.

    >>> from fastcurv.reference import ReferenceModel, ReferenceObjective
    >>> toy = ReferenceObjective(ReferenceModel([1, 1, 1], "identity", bias=False), [[1.0]], [1.0])
    >>> 4 * 1.1 * 2**0.5 < third_bound(toy, [1.0, 1.0], 0.1) < 3 * 4 * 1.1 * 2**0.5
    True
    """
    at = checked_theta(ob, theta)
    if normalised(ob.model) or not 0 <= radius < np.inf:
        return np.inf
    passes, total = passes_at(ob, at), 0.0
    parts = None if units is None else layers_of(ob.model, np.asarray(units, dtype=float))
    with np.errstate(all="ignore"):
        for s in passes.states():
            b = walk(passes, s, radius, parts)
            c1, c2, c3 = loss_bounds(passes, s, b.Z1 * radius)
            cube = _product(b.Z1, _product(b.Z1, b.Z1))
            here = _product(c3, cube) + 3 * _product(c2, _product(b.Z1, b.Z2))
            here += _product(c1, b.Z3)
            total += float(np.where(s.loss.f > 0, here, 0.0).sum())
    found = total * GROWTH
    return float(found) if np.isfinite(found) and not passes.overflow else np.inf


def loss_bounds(passes: Passes, s: State, move: Floats) -> tuple[Floats, Floats, Floats]:
    """Bounds (rows, 1) on the first three derivatives of each row's term of the loss by its
    outputs, weight and divisor included, while the outputs move by at most `move` from their exact
    values.
    """
    f, off = s.loss.f, s.dz[-1].nu + move
    if passes.ob.loss == "mse":
        c2, c3 = 2 * f, 0 * f
    elif passes.ob.loss == "binary_cross_entropy":  # |s''| <= s'
        near = np.maximum(np.abs(s.z[-1]) - s.dz[-1].E - move, 0.0)
        c2 = _product(f, bell(near).max(axis=1, keepdims=True) + TINY) * GROWTH
        c3 = np.minimum(c2, 0.09623 * f)
    else:
        # p (1 - p) changes by the factor exp(sqrt(2) ||dz||) at most, as the odds of a class do;
        # the variance of unit vectors' entries is below 1/2, their third moment below sqrt(2)
        # variances and below 0.2722
        T = np.abs(s.loss.h) * GROWTH + TINY
        spread = s.loss.bend * np.exp(np.minimum(math.sqrt(2) * off, 700.0)) * GROWTH
        c2 = _product(T, np.minimum(0.5, spread + 1e-300))
        c3 = np.minimum(0.2722 * T, math.sqrt(2) * c2)
    c1 = norms(np.abs(s.d[-1])) + s.dd[-1].nu + _product(c2, move)
    return c1 * GROWTH, c2, c3


@dataclass(frozen=True)
class Signs:
    """What is known of the signs of hidden z on a ball, over the rows that count.

    Attributes
    ----------
    kinks : int
        Pre-activations of kinked units that may lie at a kink somewhere on the ball.
    off : list of ndarray (width,) of bool
        By hidden layer: relu units whose z stays below 0 for all rows.
    on_kinks : list of ndarray (width,) of bool
        By hidden layer: units of which some z may lie at a kink.
    """

    kinks: int
    off: list[NDArray[np.bool_]]
    on_kinks: list[NDArray[np.bool_]]


def signs(ob: Any, theta: ArrayLike, *radii: float, rounding: bool = False) -> list[Signs]:
    """`Signs` on the balls of these radii around theta, by one push of theta through the network;
    not with batch normalisation. With `rounding` a z lies at a kink that is nearer than what a
    number of the size of those in its row and layer is rounded by.

    A z that cannot move, as that of a row of zeros in a first layer without bias, is at no kink.
    """
    if not any(name in KINKED for name in ob.model.activation):
        none = [np.zeros(m, dtype=bool) for m in ob.model.sizes[1:-1]]
        return [Signs(0, none, none)] * len(radii)
    passes = passes_at(ob, checked_theta(ob, theta))
    widths = ob.model.sizes[1:-1]
    off = [[np.full(m, name == "relu") for m, name in zip(widths, passes.names)] for _ in radii]
    on_kinks = [[np.zeros(m, dtype=bool) for m in widths] for _ in radii]
    count = [0] * len(radii)
    with np.errstate(all="ignore"):
        for s in passes.states():
            counts = weights_of(ob, s) != 0
            for i, radius in enumerate(radii):
                b = walk(passes, s, radius)
                for l, name in enumerate(passes.names):
                    reach = b.reach[l] + (rounded(passes, s, l) if rounding else 0.0)
                    near = crosses(name, s.z[l], reach) & b.moves[l] & counts
                    count[i] += int(near.sum())
                    on_kinks[i][l] |= near.any(axis=0)
                    off[i][l] &= ((s.z[l] + b.reach[l] < 0) | ~counts).all(axis=0)
    return [Signs(*known) for known in zip(count, off, on_kinks)]


def rounded(passes: Passes, s: State, l: int) -> Floats:
    """What the numbers that the z of a row and layer are made of are rounded by, (rows, 1); in
    float32, where the engine's products see the kinks that its own z have, all that this adds up
    to.
    """
    dtype, W = passes.ob.model.dtype, passes.W[l]
    steps = 4 * (l + 1) * (W.abs.shape[1] + 2) if dtype == np.float32 else 1
    size = np.abs(s.a[l]) @ W.abs.T + np.abs(passes.b[l])
    return np.asarray(steps * np.finfo(dtype).eps * size.max(axis=1, keepdims=True))


def kink_margin(ob: Any, theta: ArrayLike) -> float:
    """A radius around theta within which no kink of relu, leaky_relu or elu lies; infinite where
    there are none, 0 where one may lie at theta.

    At most a few percent below what the majorants can prove. Cost: some 30 walks over the rows.
    """
    theta = checked_theta(ob, theta)
    if not any(crosses(name, np.zeros(1), np.zeros(1))[0] for name in ob.model.activation):
        return np.inf

    def met(radius: float) -> int:
        return signs(ob, theta, radius)[0].kinks

    if normalised(ob.model) or met(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < 1e300 and not met(high):
        low, high = high, 16 * high
    if high >= 1e300:
        return np.inf
    while low == 0.0 and high > 1e-300:
        high /= 16
        low = high if not met(high) else 0.0
        high = 16 * high if low else high
    while high > 1.02 * low > 0:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if met(middle) else (middle, high)
    return low


@dataclass(frozen=True)
class ResidualBounds:
    """Mean squared error as ``f = ||R||^2``, ``R = sqrt(weight / divisor) (outputs - y)`` stacked
    over rows: those that count, and of rows that are equal in X and y one, with all their weight.

    Attributes
    ----------
    lipschitz : float
        Of the Jacobian of R by theta on the ball, in the spectral norm.
    rows : ndarray (m,) of int
        Which rows of X these are.
    scale : ndarray (m d_out,)
        ``sqrt(weight / divisor)``, by which rows of the outputs' Jacobian are multiplied, in the
        order of that of ``batch(rows)``; none is 0.
    residuals : ndarray (m d_out,)
        R at theta, in float64.
    error : float
        Bound on ``||residuals - R||_2``.
    """

    lipschitz: float
    rows: NDArray[np.intp]
    scale: Floats
    residuals: Floats
    error: float


def residual_bounds(ob: Any, theta: ArrayLike, radius: float) -> ResidualBounds | None:
    """What Kantorovich's theorem for ``R = 0`` needs; None unless the loss is mse with weights >=
    0.

    The Lipschitz constant is infinite with batch normalisation and where a kink may lie in the
    ball.
    """
    weight = ob.sample_weight
    if ob.loss != "mse" or weight is not None and np.min(weight) < 0 or normalised(ob.model):
        return None
    passes = passes_at(ob, checked_theta(ob, theta))
    rows, total = rows_once(ob)
    roots = np.sqrt(total / passes.ob.divisor)[:, None]  # any others serve: R = 0 is no other
    bend = error = 0.0
    residuals = [np.zeros(0)]
    with np.errstate(all="ignore"):
        for s in passes.states():
            b, gap = walk(passes, s, radius), s.z[-1] - passes.ob.y[s.rows]
            here = slice(*np.searchsorted(rows, (s.rows.start, s.rows.start + len(gap))))
            at, root = rows[here] - s.rows.start, roots[here]
            off = s.dz[-1].nu + 1e-15 * norms(np.abs(gap))
            bend = math.hypot(bend, norm(_product(b.Z2[at], root)))
            error = math.hypot(error, norm(root * off[at]))
            residuals.append((root * gap[at]).ravel())
    known = np.isfinite(bend) and not passes.overflow and radius < np.inf
    return ResidualBounds(
        float(bend * GROWTH) if known else np.inf,
        rows,
        np.repeat(roots, ob.model.sizes[-1]),
        np.concatenate(residuals),
        float(error * GROWTH) if not passes.overflow else np.inf,
    )
