"""Scalar majorants: bounds on how fast the Hessian of a network can change on a ball around theta.

Each bound is one number for a row, a layer and an order of derivative, computed by the chain
rule. Over the ball of radius rho let ``A0 >= ||a||``, and let A1, A2, A3 bound the operator norms
of the first three derivatives of a layer's input a with respect to theta, and Z1, Z2, Z3 those of
its pre-activations z. With ``w = ||W||_2 + rho``, h a step in theta, x the part of its length that
lies below the layer and y the part in the layer's own (V, vb), ``x^2 + y^2 <= 1``:

    z = a W' + b:   Dz[h]   = W Da[h] + V a + vb        <= w A1 x + v y,          v = sqrt(A0^2 + 1)
                    D2z[h]  = W D2a[h] + 2 V Da[h]      <= w A2 x^2 + 2 A1 x y
                    D3z[h]  = W D3a[h] + 3 V D2a[h]     <= w A3 x^3 + 3 A2 x^2 y
    a = phi(z):     A1 = P1 Z1,   A2 = P2 Z1^2 + P1 Z2,
                    A3 = P3 Z1^3 + 3 P2 Z1 Z2 + P1 Z3            [each + the input's, over a skip]
    loss:           L = sum over rows of |weight| (c3 Z1^3 + 3 c2 Z1 Z2 + c1 Z3) / divisor

so ``Z1 = hypot(w A1, v)``, ``Z2 = (w A2 + hypot(w A2, 2 A1)) / 2`` (the largest eigenvalue of the
form in x, y), ``Z3 = w A3 + 2/sqrt(3) A2`` (the largest ``x^2 y`` is ``2 / 3 sqrt(3)``). For
symmetric multilinear maps of a Hilbert space the values at ``[h, h, h]`` are the operator norm. P1,
P2, P3 bound the derivatives of phi over ``z +- (error of z + rho Z1)``, unit by unit (`envelope`);
c1, c2, c3 those of a row's loss. All are computed by float64 passes whose errors are bounded
(`passes`), and rounded outward. Weight decay adds nothing. Batch normalisation couples the rows, so
there is no bound for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..network.objective import Objective
from ..structure.parameters import divisor_of, is_batch_normalised, layers_of, merge_equal_rows
from ..structure.tables import activation_spec, loss_spec, sigmoid_derivative
from .arithmetic import MIN_NORMAL, NORM_ROUND_UP_FACTOR, norm, row_norms
from .passes import Passes, State, passes_at, round_to_model_dtype

CROSS_TERM_FACTOR = 2 / math.sqrt(3)  # 3 times the maximum of x^2 y for x^2 + y^2 = 1
WeightUnits = list[
    tuple[Floats, Floats | None]
]  # length units of the entries of W and b, layer by layer


@dataclass(frozen=True)
class RowMajorants:
    """Bounds that hold on a ball around theta, from one pass over the rows of a state.

    Attributes
    ----------
    Z1, Z2, Z3 : ndarray (rows, 1)
        Bounds on the first three derivatives of the outputs with respect to theta.
    reach : list of ndarray (rows, width)
        For each hidden layer, bounds on the distance of each z on the ball from the z computed at
        theta.
    moves : list of ndarray (rows, width)
        For each hidden layer, True where z can change on the ball.
    """

    Z1: Floats
    Z2: Floats
    Z3: Floats
    reach: list[Floats]
    moves: list[NDArray[np.bool_]]


def propagate_majorants(
    passes: Passes, s: State, rho: float, units: WeightUnits | None = None
) -> RowMajorants:
    """Return the `RowMajorants` on the ball of radius rho for the rows of a state, by the recursion
    of the module docstring.

    With units C the steps are ``C h`` with ``|h| <= 1``. Then ``|V| <= m = max C`` of the layer,
    and entry i of ``V a + vb`` is at most ``v_i = sqrt(sum_j (C_ij a_j)^2 + c_i^2)``.
    """
    A1 = A2 = A3 = np.zeros((len(s.a[0].x), 1))
    reaches = []
    moves = []
    for l, W in enumerate(passes.W):
        raise_if_out_of_time()
        C = None if units is None else units[l][0]
        m = 1.0 if C is None else float(C.max())
        w = W.norm + rho * m
        a = s.a[l]
        off = a.dx.nu + rho * A1
        if C is None:
            A0 = row_norms(np.abs(a.x)) + off
            v = np.hypot(A0, 1.0) if passes.ob.model.bias else A0
            most = v
            row = rho
        else:
            assert units is not None
            row = rho * C.max(axis=1)
            v = np.sqrt(a.x**2 @ (C**2).T) + C.max(axis=1) * off
            c = units[l][1]
            v = v if c is None else np.hypot(v, c)
            most = v.max(axis=1, keepdims=True)
        Z1 = np.hypot(_zero_safe_product(w, A1), most)
        bent = _zero_safe_product(w, A2)
        Z2 = 0.5 * (bent + np.hypot(bent, 2 * _zero_safe_product(m, A1)))
        Z3 = _zero_safe_product(w, A3) + CROSS_TERM_FACTOR * _zero_safe_product(m, A2)
        if l == len(passes.W) - 1:
            continue
        Z1 = Z1 * NORM_ROUND_UP_FACTOR
        Z2 = Z2 * NORM_ROUND_UP_FACTOR
        Z3 = Z3 * NORM_ROUND_UP_FACTOR
        # z of a unit depends on the unit's own row of W only.
        each = np.hypot((W.rows + row) * A1, v) * NORM_ROUND_UP_FACTOR
        reach = s.z[l].dx.E + rho * each
        reaches.append(reach)
        moves.append((each > 0) | (s.z[l].dx.E > 0))
        P1, P2, P3 = (
            np.where(each > 0, P, 0.0).max(axis=1, keepdims=True)
            for P in activation_spec(passes.names[l]).envelope(s.z[l].x, reach)
        )
        with np.errstate(invalid="ignore"):
            square = _zero_safe_product(Z1, Z1)
            B = (
                _zero_safe_product(P1, Z1),
                _zero_safe_product(P2, square) + _zero_safe_product(P1, Z2),
                _zero_safe_product(P3, _zero_safe_product(square, Z1))
                + 3 * _zero_safe_product(P2, _zero_safe_product(Z1, Z2))
                + _zero_safe_product(P1, Z3),
            )
        over = (A1, A2, A3) if passes.skips[l] else (0 * A1,) * 3
        A1, A2, A3 = (NORM_ROUND_UP_FACTOR * b + a for b, a in zip(B, over))
    up = NORM_ROUND_UP_FACTOR
    return RowMajorants(Z1 * up, Z2 * up, Z3 * up, reaches, moves)


def _zero_safe_product(P: float | Floats, Z: Floats) -> Floats:
    """Return ``P Z`` entry by entry, rounded up against underflow. An entry is 0 if one of its
    factors is 0, even if the other one is infinite.
    """
    return np.where((P == 0) | (Z == 0), 0.0, P * Z + MIN_NORMAL)


def third_bound(
    ob: Objective, theta: ArrayLike, radius: float, units: ArrayLike | None = None
) -> float:
    """Return a Lipschitz constant of the Hessian on the ball of radius `radius` around theta.

    The constant L satisfies ``||H(x) - H(y)||_2 <= L ||x - y||`` for all x and y in the ball, for
    the exact Hessian H at the stored numbers. The module docstring has the formulas.

    Parameters
    ----------
    ob : Objective
    theta : array_like (n,)
    radius : float
    units : array_like (n,), optional
        A positive unit for each parameter. With C = diag(units), the ball is ``theta + C x`` for
        ``||x|| <= radius``, and L is the constant of ``C H C`` as a function of x.

    Returns
    -------
    float
        L, rounded up. It is infinite with batch normalisation, or if a kink of relu, leaky_relu or
        elu may lie in the ball. Cost: a forward and a backward pass in NumPy with bounds on errors,
        once for each theta, then O(N sum(widths)).

    Examples
    --------
    A bound on the change of the Hessian of ``(w2 w1 - 1)^2`` within 0.1 of (1, 1): its third
    derivatives are 4 w1 and 4 w2.

    >>> import fastcurv as fc
    >>> toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], "mse")
    >>> 4 * 1.1 * 2**0.5 < third_bound(toy, [1.0, 1.0], 0.1) < 3 * 4 * 1.1 * 2**0.5
    True
    """
    at = round_to_model_dtype(ob, theta)
    if is_batch_normalised(ob.model) or not 0 <= radius < np.inf:
        return np.inf
    passes = passes_at(ob, at)
    total = 0.0
    parts = None if units is None else layers_of(ob.model, np.asarray(units, dtype=float))
    with np.errstate(all="ignore"):
        for s in passes.iter_states():
            b = propagate_majorants(passes, s, radius, parts)
            c1, c2, c3 = loss_derivative_bounds(passes, s, b.Z1 * radius)
            cube = _zero_safe_product(b.Z1, _zero_safe_product(b.Z1, b.Z1))
            here = _zero_safe_product(c3, cube) + 3 * _zero_safe_product(
                c2, _zero_safe_product(b.Z1, b.Z2)
            )
            here += _zero_safe_product(c1, b.Z3)
            total += float(np.where(s.loss.f > 0, here, 0.0).sum())
    bound = total * NORM_ROUND_UP_FACTOR
    return float(bound) if np.isfinite(bound) and not passes.arithmetic.overflow else np.inf


def loss_derivative_bounds(passes: Passes, s: State, move: Floats) -> tuple[Floats, Floats, Floats]:
    """Return bounds (rows, 1) on the norms of the first three derivatives of each sample's term of
    the loss with respect to its outputs, if these differ by at most `move` (rows, 1) from the exact
    outputs at theta. Weight and divisor are included.
    """
    f = s.loss.f
    z = s.z[-1]
    d = s.d[-1]
    link = loss_spec(passes.ob.loss).link
    if link == "identity":
        c2 = 2 * f
        c3 = 0 * f
    elif link == "given":
        c2, c3 = (x * NORM_ROUND_UP_FACTOR + MIN_NORMAL for x in s.loss.derivative_bounds(move))
    elif link == "sigmoid":  # |s''| <= s' for the sigmoid s
        near = np.maximum(np.abs(z.x) - z.dx.E - move, 0.0)
        c2 = (
            _zero_safe_product(f, sigmoid_derivative(near).max(axis=1, keepdims=True) + MIN_NORMAL)
            * NORM_ROUND_UP_FACTOR
        )
        c3 = np.minimum(c2, loss_spec(passes.ob.loss).bends[1] * f)
    else:
        # The odds of two classes, and so p (1 - p), change at most by the factor exp(sqrt(2)
        # ||dz||). Along unit vectors the variance is at most 1/2, and the third moment is below
        # both 0.2722 and sqrt(2) times the variance.
        T = np.abs(s.loss.h) * NORM_ROUND_UP_FACTOR + MIN_NORMAL
        spread = (
            s.loss.bend
            * np.exp(np.minimum(math.sqrt(2) * (z.dx.nu + move), 700.0))
            * NORM_ROUND_UP_FACTOR
        )
        c2 = _zero_safe_product(T, np.minimum(0.5, spread + 1e-300))
        c3 = np.minimum(0.2722 * T, math.sqrt(2) * c2)
    c1 = row_norms(np.abs(d.x)) + d.dx.nu + _zero_safe_product(c2, move)
    return c1 * NORM_ROUND_UP_FACTOR, c2, c3


@dataclass(frozen=True)
class ResidualBounds:
    """The mean squared error ``||R||^2`` at theta, with the vector ``R = sqrt(weight / divisor)
    (outputs - y)`` of all samples with nonzero weight. Samples with equal X and y are merged into
    one with the sum of their weights.

    Attributes
    ----------
    lipschitz : float
        Lipschitz constant of the Jacobian of R with respect to theta on the ball, in the spectral
        norm.
    rows : ndarray (m,) of int
        Indices in X of the first of the samples that are merged into one.
    scale : ndarray (m d_out,)
        ``sqrt(weight / divisor)``, the nonzero factors on the rows of the Jacobian of the outputs,
        in the order of the outputs of ``batch(rows)``.
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


def residual_bounds(ob: Objective, theta: ArrayLike, radius: float) -> ResidualBounds | None:
    """Return the `ResidualBounds` at theta, which Kantorovich's theorem on ``R = 0`` needs. Return
    None unless the loss is mse with weights >= 0 and the network has no batch normalisation.

    The Lipschitz constant is infinite if a kink may lie in the ball of radius `radius`.
    """
    weight = ob.sample_weight
    proper = weight is None or np.min(weight) >= 0
    if loss_spec(ob.loss).link != "identity" or not proper or is_batch_normalised(ob.model):
        return None
    passes = passes_at(ob, round_to_model_dtype(ob, theta))
    rows, total = merge_equal_rows(ob)
    # Positive factors on the rows of R do not change whether R is 0.
    roots = np.sqrt(total / divisor_of(passes.ob))[:, None]
    bend = error = 0.0
    residuals = [np.zeros(0)]
    with np.errstate(all="ignore"):
        for s in passes.iter_states():
            b = propagate_majorants(passes, s, radius)
            gap = s.z[-1].x - passes.y[s.rows]
            here = slice(*np.searchsorted(rows, (s.rows.start, s.rows.start + len(gap))))
            at = rows[here] - s.rows.start
            root = roots[here]
            off = s.z[-1].dx.nu + 1e-15 * row_norms(np.abs(gap))
            bend = math.hypot(bend, norm(_zero_safe_product(b.Z2[at], root)))
            error = math.hypot(error, norm(root * off[at]))
            residuals.append((root * gap[at]).ravel())
    is_finite = np.isfinite(bend) and not passes.arithmetic.overflow and radius < np.inf
    return ResidualBounds(
        float(bend * NORM_ROUND_UP_FACTOR) if is_finite else np.inf,
        rows,
        np.repeat(roots, ob.model.sizes[-1]),
        np.concatenate(residuals),
        float(error * NORM_ROUND_UP_FACTOR) if not passes.arithmetic.overflow else np.inf,
    )
