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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.linalg import eigh
from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..structure.parameters import (
    divisor_of,
    has_kinks,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    merge_equal_rows,
    replace_zero_weight_rows,
)
from ..structure.tables import activation_spec, loss_spec, sigmoid_derivative
from .arithmetic import (
    EPS,
    MIN_NORMAL,
    NORM_ROUND_UP_FACTOR,
    SMALLEST_SUBNORMAL,
    norm,
    norm_bound_from_gram,
    row_norms,
    spectral_norm_bound,
    stack_spectral_norm_bounds,
)
from .passes import Passes, State, passes_at, round_to_model_dtype

CROSS_TERM_FACTOR = 2 / math.sqrt(3)  # 3 times the maximum of x^2 y for x^2 + y^2 = 1
WeightUnits = list[tuple[Floats, Any]]  # length units of the entries of W and b, layer by layer


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
    reaches, moves = [], []
    for l, W in enumerate(passes.W):
        raise_if_out_of_time()
        C = None if units is None else units[l][0]
        m = 1.0 if C is None else float(C.max())
        w, a = W.norm + rho * m, s.a[l]
        off = a.dx.nu + rho * A1
        if C is None:
            A0 = row_norms(np.abs(a.x)) + off
            v = np.hypot(A0, 1.0) if passes.ob.model.bias else A0
            most, row = v, rho
        else:
            assert units is not None
            row = rho * C.max(axis=1)
            v = np.sqrt(a.x**2 @ (C**2).T) + C.max(axis=1) * off
            v = v if units[l][1] is None else np.hypot(v, units[l][1])
            most = v.max(axis=1, keepdims=True)
        Z1, bent = np.hypot(_zero_safe_product(w, A1), most), _zero_safe_product(w, A2)
        Z2 = 0.5 * (bent + np.hypot(bent, 2 * _zero_safe_product(m, A1)))
        Z3 = _zero_safe_product(w, A3) + CROSS_TERM_FACTOR * _zero_safe_product(m, A2)
        if l == len(passes.W) - 1:
            continue
        Z1, Z2, Z3 = Z1 * NORM_ROUND_UP_FACTOR, Z2 * NORM_ROUND_UP_FACTOR, Z3 * NORM_ROUND_UP_FACTOR
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
        over: tuple[Any, ...] = (A1, A2, A3) if passes.skips[l] else (0.0, 0.0, 0.0)
        A1, A2, A3 = (NORM_ROUND_UP_FACTOR * b + a for b, a in zip(B, over))
    up = NORM_ROUND_UP_FACTOR
    return RowMajorants(Z1 * up, Z2 * up, Z3 * up, reaches, moves)


def _zero_safe_product(P: Any, Z: Floats) -> Floats:
    """Return ``P Z`` entry by entry, rounded up against underflow. An entry is 0 if one of its
    factors is 0, even if the other one is infinite.
    """
    return np.where((P == 0) | (Z == 0), 0.0, P * Z + MIN_NORMAL)


def third_bound(ob: Any, theta: ArrayLike, radius: float, units: ArrayLike | None = None) -> float:
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

    >>> from fastcurv.testing.reference import ReferenceModel, ReferenceObjective
    >>> toy = ReferenceObjective(ReferenceModel([1, 1, 1], "identity", bias=False), [[1.0]], [1.0])
    >>> 4 * 1.1 * 2**0.5 < third_bound(toy, [1.0, 1.0], 0.1) < 3 * 4 * 1.1 * 2**0.5
    True
    """
    at = round_to_model_dtype(ob, theta)
    if is_batch_normalised(ob.model) or not 0 <= radius < np.inf:
        return np.inf
    passes, total = passes_at(ob, at), 0.0
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
    found = total * NORM_ROUND_UP_FACTOR
    return float(found) if np.isfinite(found) and not passes.arithmetic.overflow else np.inf


def loss_derivative_bounds(passes: Passes, s: State, move: Floats) -> tuple[Floats, Floats, Floats]:
    """Return bounds (rows, 1) on the norms of the first three derivatives of each sample's term of
    the loss with respect to its outputs, if these differ by at most `move` (rows, 1) from the exact
    outputs at theta. Weight and divisor are included.
    """
    f, z, d = s.loss.f, s.z[-1], s.d[-1]
    link = loss_spec(passes.ob.loss).link
    if link == "identity":
        c2, c3 = 2 * f, 0 * f
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
class PreactivationSigns:
    """Proved signs of hidden pre-activations z on a ball, over the samples with nonzero weight.

    Attributes
    ----------
    kinks : int
        Number of pre-activations that may lie at a kink somewhere on the ball.
    off : list of ndarray (width,) of bool
        For each hidden layer, relu units whose z is negative for all samples.
    on_kinks : list of ndarray (width,) of bool
        For each hidden layer, units with a z that may lie at a kink.
    """

    kinks: int
    off: list[NDArray[np.bool_]]
    on_kinks: list[NDArray[np.bool_]]


# assumed error of a z that has no proved bound, in multiples of `preactivation_error_bounds`
ASSUMED_Z_ERROR_FACTOR = 64


def preactivation_signs(
    ob: Any, theta: ArrayLike, *radii: float, rounding: bool = False
) -> list[PreactivationSigns]:
    """Return a list of `PreactivationSigns`, one for each ball of the given radii around theta,
    from one pass through the network, which must not have batch normalisation.

    If `rounding` is True, a z also counts as at a kink if its distance to the kink may be below the
    bound of `preactivation_error_bounds`. A z that cannot change is not at a kink; an example is
    the z of a row of zeros in a first layer without bias.
    """
    if not has_kinks(ob.model):
        none = [np.zeros(m, dtype=bool) for m in ob.model.sizes[1:-1]]
        return [PreactivationSigns(0, none, none)] * len(radii)
    passes = passes_at(ob, round_to_model_dtype(ob, theta))
    widths = ob.model.sizes[1:-1]
    rows = [activation_spec(name) for name in passes.names]
    measured = rounding and any(row.given is not None and row.given.missing_bounds for row in rows)
    off = [[np.full(m, row.leak == 0.0) for m, row in zip(widths, rows)] for _ in radii]
    on_kinks = [[np.zeros(m, dtype=bool) for m in widths] for _ in radii]
    count = [0] * len(radii)
    with np.errstate(all="ignore"):
        for s in passes.iter_states():
            counts = ob.sample_weight is None or (ob.sample_weight[s.rows] != 0)[:, None]
            for i, radius in enumerate(radii):
                b = propagate_majorants(passes, s, radius)
                for l, row in enumerate(rows):
                    reach = b.reach[l] + (
                        preactivation_error_bounds(passes, s, l) if rounding else 0.0
                    )
                    # Above a layer whose user-defined activation has no error bounds, z has no
                    # proved bound.
                    if measured:
                        reach = np.where(
                            reach < np.inf,
                            reach,
                            ASSUMED_Z_ERROR_FACTOR * preactivation_error_bounds(passes, s, l),
                        )
                    # A z whose bound has overflowed to NaN counts as near a kink.
                    here = ~(np.abs(s.z[l].x) > reach)
                    near = here & (row.kink > 0) & b.moves[l] & counts
                    count[i] += int(near.sum())
                    on_kinks[i][l] |= near.any(axis=0)
                    off[i][l] &= ((s.z[l].x + b.reach[l] < 0) | np.logical_not(counts)).all(axis=0)
    return [PreactivationSigns(*known) for known in zip(count, off, on_kinks)]


def preactivation_error_bounds(passes: Passes, s: State, l: int) -> Floats:
    """Return bounds (rows, 1) on the rounding errors of the pre-activations z of layer l: eps times
    the largest entry of ``|a| |W|' + |b|`` in each row. In float32 the bound is larger by the
    number of roundings of the pass, because the engine's products use the signs of the rounded z.
    """
    dtype, W = passes.ob.model.dtype, passes.W[l]
    steps = 4 * (l + 1) * (W.abs.shape[1] + 2) if dtype == np.float32 else 1
    size = np.abs(s.a[l].x) @ W.abs.T + np.abs(passes.b[l])
    return np.asarray(steps * np.finfo(dtype).eps * size.max(axis=1, keepdims=True))


def kink_margin(ob: Any, theta: ArrayLike) -> float:
    """Return a radius around theta within which no pre-activation reaches a kink of relu,
    leaky_relu or elu. Return infinity if no kink is found at any distance, and 0 with batch
    normalisation or if a pre-activation may be at a kink at theta.

    The radius is at most 0.1% smaller than the largest that the majorants can prove. Cost: about 20
    calls of `propagate_majorants` for all rows.
    """
    theta = round_to_model_dtype(ob, theta)
    if not has_kinks(ob.model):
        return np.inf

    def count_met_kinks(radius: float) -> int:
        return preactivation_signs(ob, theta, radius)[0].kinks

    low, high = 1e-300, 1e300
    if is_batch_normalised(ob.model) or count_met_kinks(low):
        return 0.0
    if not count_met_kinks(high):
        return np.inf
    while high > 1.001 * low:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (low, middle) if count_met_kinks(middle) else (middle, high)
    return low


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


def residual_bounds(ob: Any, theta: ArrayLike, radius: float) -> ResidualBounds | None:
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
            b, gap = propagate_majorants(passes, s, radius), s.z[-1].x - passes.y[s.rows]
            here = slice(*np.searchsorted(rows, (s.rows.start, s.rows.start + len(gap))))
            at, root = rows[here] - s.rows.start, roots[here]
            off = s.z[-1].dx.nu + 1e-15 * row_norms(np.abs(gap))
            bend = math.hypot(bend, norm(_zero_safe_product(b.Z2[at], root)))
            error = math.hypot(error, norm(root * off[at]))
            residuals.append((root * gap[at]).ravel())
    known = np.isfinite(bend) and not passes.arithmetic.overflow and radius < np.inf
    return ResidualBounds(
        float(bend * NORM_ROUND_UP_FACTOR) if known else np.inf,
        rows,
        np.repeat(roots, ob.model.sizes[-1]),
        np.concatenate(residuals),
        float(error * NORM_ROUND_UP_FACTOR) if not passes.arithmetic.overflow else np.inf,
    )


# --------------------------------------------------------------------------------------------------
# A lower bound on the spectrum of a network's Hessian that needs no products.
#
# ``H = GGN + R + l2 I``. The losses here are convex in the outputs, so if no sample weight is
# negative the GGN is positive semidefinite, and only R can make an eigenvalue smaller than l2:
#
#     v'Rv = sum over l of 2 <delta_l, ra_(l-1) V_l'>  +  sum over l of <e_l phi''_l, rz_l * rz_l>
#
# Let ``x_l = ||[V_l vb_l]||_F``. The effect of ``[a_(k-1) 1] [V_k vb_k]'`` on ra at the input of a
# layer l > k is given, row by row, by matrices ``K = D_(l-1) W_(l-1) ... W_(k+1) D_k``, ``D =
# diag(phi')`` (``D W + I`` over a skip). Let c (rows,) bound their norms, and c_z those of
# ``diag(sqrt(max(0, -e_l phi''_l))) W_l K`` (without ``W_l K`` for k = l). Then, for any positive w
# (rows,), with spectral norms over all rows,
#
#     |<delta_l, ra_(l-1) V_l'>|       <=  sum over k of B_lk x_l x_k
#     B_lk = ||delta_l / w||  ||w c [a_(k-1) 1]||
#     <e_l phi''_l, rz_l * rz_l>       >=  -(sum over k of u_lk x_k)^2,  u_lk = ||c_z [a_(k-1) 1]||
#
# ``w^2 = ||delta_l|| / (c ||[a 1]||)``, row by row, makes B at most ``sum of ||delta_l|| c ||[a
# 1]||``: rows that are fitted exactly contribute nothing. It follows that
#
#     lambda_min  >=  l2 - lambda_max(S),     S_lk = S_kl = B_lk,  plus the sum over l of u_l u_l'
#
# with S nonnegative, a row for each layer. For adjacent layers K is diagonal, and B_lk is also the
# largest of the norms ``||C_j||``, j a unit between them and ``C_j = sum of delta_l phi'_j [a_(k-1)
# 1]'``: in this form the contributions of samples may cancel. With one hidden layer R decomposes
# into a block ``[[0, C_j], [C_j', M_j]]`` for each hidden unit, ``M_j = sum of e phi'' x x'``,
# whose least eigenvalue can be computed.
#
# Rounding: the state at theta comes from `fastcurv.certify.passes`, float64 passes with a bound on
# the error of every number, and each norm here is that of the numbers plus that of their errors.
#
# Limits. v = theta shows that R cannot be small compared with l2 where theta is critical because of
# l2: at a critical point of a network of L layers that is homogeneous (relu, no biases), ``theta'R
# theta = -(L - 1) l2 ||theta||^2``, so no bound without the GGN is positive there. The bound is
# positive where l2 exceeds the effect of the residuals: at theta near 0, and at fits for which the
# weight decay has not yet taken effect. The minimum is then often far away, so `classify` checks
# whether the curvature stays positive up to the minimum.

Reaches = dict[tuple[int, int], Floats]

# maximum number of inputs of a layer for which spectral instead of Frobenius norms are computed
MAX_SPECTRAL_WIDTH = 1024
MAX_UNIT_BLOCK_SIZE = 256  # maximum size of a hidden unit's block whose eigenvalues are computed
# maximum size of the stack of hidden units' blocks whose norms are bounded together
MAX_BLOCKS_BYTES = 1 << 25
# number of hidden units whose blocks' eigenvalues are computed wherever norms do not suffice
MAX_EIGENVALUE_UNITS = 64
# For further hidden units, eigenvalues are computed only if the bound from the norms of the block
# is more than this factor times the largest bound so far.
MIN_CANDIDATE_RATIO = 1.02


def curvature_floor(ob: Any, theta: ArrayLike) -> float:
    """Return a lower bound on the eigenvalues of the Hessian, or ``-inf`` if no bound is cheap to
    compute.

    The bound is l2 minus a bound on the negative part of the residual term; the comment above has
    the formulas. It holds for the exact Hessian at theta, rounded to the model's dtype.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)

    Returns
    -------
    float
        At most l2, or 0 if l2 leaves out biases. ``-inf`` with batch normalisation of hidden
        layers, negative sample weights, negative soft targets or a user-defined loss that is not
        known to be convex and nonnegative. Cost: about 10 gradients in NumPy and, for L layers, ``L
        (L - 1)`` Gram matrices of layer inputs. Small networks also need a matrix for each row and
        pair of hidden layers, and networks with one hidden layer a product ``(d_out, N) (N, d_in)``
        for each hidden unit.

    Examples
    --------
    Twice the residual lowers the bound by twice as much.

    >>> from fastcurv.testing.reference import ReferenceModel, ReferenceObjective
    >>> model = ReferenceModel([1, 1, 1, 1], "identity", bias=False)
    >>> for y in (1.0, 1.1, 1.2):
    ...     ob = ReferenceObjective(model, [[1.0]], [y], l2=1.0)
    ...     print(round(curvature_floor(ob, [1.0, 1.0, 1.0]), 6))
    1.0
    0.6
    0.2
    """
    model, theta = ob.model, round_to_model_dtype(ob, theta)
    weights, least = ob.sample_weight, float(np.min(l2_diagonal(ob)))
    given = loss_spec(ob.loss).given
    convex = given is None or given.convex
    if not convex or weights is not None and np.min(weights) < 0 or loss_lower_bound(ob) < 0:
        return -np.inf
    if len(model.sizes) == 2:
        return least
    if is_batch_normalised(model):
        return -np.inf
    with np.errstate(all="ignore"):
        passes = passes_at(ob, theta)
        taken = negative_curvature_bound_by_layers(passes)
        if len(model.sizes) == 3:
            taken = np.fmin(taken, negative_curvature_bound_by_units(passes))
        floor = least - taken
        return (
            float(np.nextafter(floor, -np.inf))
            if np.isfinite(floor) and not passes.arithmetic.overflow
            else -np.inf
        )


class SpectralNorm:
    """Accumulator of an upper bound on the spectral norm of a matrix. Blocks F (rows, m) of its
    rows are added with bounds `error` (rows, 1) on the norms of the rows' errors.
    """

    def __init__(self) -> None:
        self.gram, self.square, self.count = np.zeros((1, 1)), 0.0, 0

    def add_rows(self, F: Floats, error: Floats) -> None:
        F = row_norms(np.abs(F)) if F.shape[1] > MAX_SPECTRAL_WIDTH else F
        self.gram, self.count = self.gram + F.T @ F, self.count + len(F)
        self.square += float((error**2).sum())

    def norm_bound(self) -> float:
        return (
            norm_bound_from_gram(self.gram, self.count) + np.sqrt(self.square)
            if self.count
            else 0.0
        )


class UnitBlockNorm:
    """Accumulator of an upper bound on ``max_j ||C_j||``, with ``C_j = sum over samples of delta_l
    phi'_j [a 1]'`` for the units j of the layer below.
    """

    def __init__(self) -> None:
        self.C: Any = 0.0
        self.off: Any = 0.0
        self.count = 0

    def add_rows(self, s: State, l: int, F: Floats, error: Floats) -> None:
        d, bent = s.d[l].x, s.phi[l - 1].p
        p = np.ones_like(s.a[l].x) if bent is None else bent.x
        dp = np.zeros_like(p) if bent is None else bent.dx.E
        outer = (d.T[:, None] * p.T).reshape(-1, len(d)) @ F
        self.C, self.count = self.C + outer.reshape(d.shape[1], p.shape[1], -1), self.count + len(d)
        d, dd, f, slope = row_norms(np.abs(d)), s.d[l].dx.nu, row_norms(np.abs(F)), np.abs(p)
        rounding = 16 * (self.count + sum(self.C.shape)) * EPS * d * slope * f
        self.off = self.off + (
            rounding + dd * (slope + dp) * (f + error) + d * (dp * (f + error) + slope * error)
        ).sum(axis=0)

    def norm_bound(self) -> float:
        found = [spectral_norm_bound(self.C[:, j]) for j in range(self.C.shape[1])]
        return NORM_ROUND_UP_FACTOR * float(np.max(found + self.off + self.count * MIN_NORMAL))


def negative_curvature_bound_by_layers(passes: Passes) -> float:
    """Return an upper bound on the largest eigenvalue of -R, where R is the Hessian minus the GGN
    and l2: the largest eigenvalue of a matrix S (L, L) of bounds by pairs of the L layers. Return
    infinity if S is not finite.
    """
    L = len(passes.W)
    B = {(l, k): (SpectralNorm(), SpectralNorm()) for l in range(L) for k in range(l)}
    U = {(l, k): SpectralNorm() for l in range(L - 1) for k in range(l + 1)}
    C = {(l, l - 1): UnitBlockNorm() for l in range(1, L) if passes.by_units and L > 2}
    for s in passes.iter_states():
        c, c_z = layer_gains(passes, s)
        for l, k in C:
            C[l, k].add_rows(s, l, *_scaled_layer_inputs(passes, s, k, np.ones_like(c[l, k])))
        for (l, k), (D, A) in B.items():
            _add_layer_pair(D, A, passes, s, (l, k), c[l, k])
        for at in c_z:
            U[at].add_rows(*_scaled_layer_inputs(passes, s, at[1], c_z[at]))
    S = np.zeros((L, L))
    for (l, k), (D, A) in B.items():
        joint = C[l, k].norm_bound() if (l, k) in C else np.inf
        S[l, k] = S[k, l] = min(D.norm_bound() * A.norm_bound(), joint)
    for l in range(L - 1):
        u = np.array([U[l, k].norm_bound() if k <= l else 0.0 for k in range(L)])
        S += np.outer(u, u)
    return NORM_ROUND_UP_FACTOR * _largest_eigenvalue_bound(S) if np.isfinite(S).all() else np.inf


def layer_gains(passes: Passes, s: State) -> tuple[Reaches, Reaches]:
    """Return the dictionaries ``{(l, k): c}`` and ``{(l, k): c_z}`` of bounds (rows, 1) on norms.
    c bounds K, the derivative of the inputs of layer l by z of layer k. c_z bounds
    ``diag(sqrt(max(0, -e phi''))) W_l K`` with e = dL/da of layer l, without W_l K if k = l.

    Each bound is a product of norms or, if it is computed and smaller, the norm of the product K.
    The error of K is at most err, which grows from layer to layer by the factor ``(|phi'| + dphi')
    ||W|| [+ 1]``, plus ``dphi' ||W|| ||K||``.
    """
    c, c_z, hidden = {}, {}, range(len(passes.W) - 1)
    ones = np.ones((len(s.a[0].x), 1))
    p = [
        (
            ones if f.p is None else np.abs(f.p.x),
            0.0 * ones if f.p is None else f.p.dx.E.max(axis=1, keepdims=True),
        )
        for f in s.phi
    ]
    slope = [q.max(axis=1, keepdims=True) + dq for q, dq in p]
    down: list[Any] = [
        None if eq is None else np.sqrt(np.maximum(0, eq.dx.E - eq.x)) for eq in s.eq
    ]
    for k in hidden:
        raise_if_out_of_time()
        bent, K = s.phi[k].p, None
        diagonal = np.ones((1, len(passes.W[k].A))) if bent is None else bent.x
        reach, err = slope[k], p[k][1]
        if down[k] is not None:
            c_z[k, k] = down[k].max(axis=1, keepdims=True)
        for m in hidden[k + 1 :]:
            c[m, k], W = reach, passes.W[m].norm
            most = None if down[m] is None else down[m].max(axis=1, keepdims=True) * W
            if most is not None:
                c_z[m, k] = most * reach
            reach = (slope[m] * W + passes.skips[m]) * reach
            if passes.by_rows:
                A, below = passes.W[m].A, len(passes.W[k].A)
                size = slope[k] if K is None else stack_spectral_norm_bounds(K)
                WK = A * diagonal[:, None, :] if K is None else A @ K
                # The last term bounds the rounding error of W K.
                err = err + 4 * EPS * max(*A.shape, below) ** 2 * size
                if most is not None:
                    c_z[m, k] = np.minimum(
                        c_z[m, k], stack_spectral_norm_bounds(down[m][:, :, None] * WK) + most * err
                    )
                err = (slope[m] * W + passes.skips[m]) * err + p[m][1] * W * size
                bent = s.phi[m].p
                above = WK if bent is None else bent.x[:, :, None] * WK
                if passes.skips[m]:
                    above = above + (diagonal[:, :, None] * np.eye(below) if K is None else K)
                K = above
                reach = np.minimum(reach, stack_spectral_norm_bounds(K) + err)
        c[len(hidden), k] = reach
    return c, c_z


def _scaled_layer_inputs(passes: Passes, s: State, k: int, c: Floats) -> tuple[Floats, Floats]:
    """Return ``c [a 1]``, or ``c a`` without biases, and bounds (rows, 1) on the norms of the
    errors of its rows. a (rows, inputs) holds the inputs of layer k, and c (rows, 1) the factors.
    """
    a = c * s.a[k].x
    return (np.hstack([a, c]) if passes.ob.model.bias else a), c * s.a[k].dx.nu


def _add_layer_pair(
    D: SpectralNorm, A: SpectralNorm, passes: Passes, s: State, at: tuple[int, int], c: Floats
) -> None:
    """Add the rows of a state to D, the accumulator of ``delta_l / w``, and to A, that of ``w c [a
    1]``, with the best w for each row. The tuple `at` is (l, k). The comment above
    `MAX_SPECTRAL_WIDTH` has the formulas.
    """
    l, k = at
    d, dd = s.d[l].x, s.d[l].dx.nu
    F, error = _scaled_layer_inputs(passes, s, k, c)
    near, far = row_norms(np.abs(d)) + dd, row_norms(np.abs(F)) + error
    if near.any() and far.any():
        w = np.sqrt((near + 1e-30 * near.max()) / (far + 1e-30 * far.max()))
        D.add_rows(d / w, dd / w)
        A.add_rows(w * F, w * error)


def negative_curvature_bound_by_units(passes: Passes) -> float:
    """Return an upper bound on the largest eigenvalue of -R for one hidden layer, from the blocks
    of the hidden units. R is the Hessian minus the GGN and l2. Return infinity if a bound is not
    finite.
    """
    X = np.asarray(passes.X, dtype=float)
    X1 = np.hstack([X, np.ones((len(X), 1))]) if passes.ob.model.bias else X
    x = row_norms(np.abs(X1))
    slopes, bends, deltas = [], [], []
    of_C: Any = 0.0
    of_M: Any = 0.0
    for s in passes.iter_states():
        phi, here, d = s.phi[0], x[s.rows], row_norms(np.abs(s.d[1].x))
        p, dp = (np.ones_like(s.d[0].x), 0.0) if phi.p is None else (phi.p.x, phi.p.dx.E)
        eq, deq = (np.zeros_like(p), 0.0) if s.eq[0] is None else (s.eq[0].x, s.eq[0].dx.E)
        slopes.append(p)
        bends.append(eq)
        deltas.append(s.d[1].x)
        of_C = of_C + (here * (s.d[1].dx.nu * (np.abs(p) + dp) + d * dp)).sum(axis=0)
        of_M = of_M + np.broadcast_to(here**2 * deq, p.shape).sum(axis=0)
    slope, bend, delta = np.concatenate(slopes), np.concatenate(bends), np.concatenate(deltas)
    off = of_C + of_M
    at_most = _unit_block_bounds(delta, slope, bend, X1, x) + off
    if not np.isfinite(at_most).all():
        return np.inf
    found = -np.inf
    for tried, j in enumerate(np.argsort(-at_most)):
        if not at_most[j] > found * (MIN_CANDIDATE_RATIO if tried >= MAX_EIGENVALUE_UNITS else 1):
            found = max(found, float(at_most[j]))
            break
        raise_if_out_of_time()
        here = _unit_block_bound(delta, slope[:, j], bend[:, j], X1, x) + off[j]
        found = max(found, float(here if np.isfinite(here) else at_most[j]))
    return NORM_ROUND_UP_FACTOR * found


def _largest_eigenvalue_bound(S: Floats) -> float:
    """Return an upper bound on the largest eigenvalue of a symmetric matrix S."""
    values, _, errors = eigh(S)
    return float(values[-1] + errors[-1])


def _unit_block_bounds(delta: Floats, slope: Floats, bend: Floats, X1: Floats, x: Floats) -> Floats:
    """Return upper bounds (width,) on the largest eigenvalues of the blocks of all hidden units,
    ``(M + hypot(M, 2 C)) / 2``. The arguments are delta (N, d_out), phi' and e phi'' (N, width),
    the inputs X1 (N, inputs) with a 1 for the bias, and their norms x (N, 1).
    """
    (N, m), width = delta.shape, slope.shape[1]
    curved = x[:, 0] ** 2 @ np.maximum(-bend, 0.0)
    C, step = np.empty(width), max(1, MAX_BLOCKS_BYTES // (8 * m * max(N, X1.shape[1])))
    for first in range(0, width, step):
        raise_if_out_of_time()
        part = slice(first, first + step)
        outer = (slope[:, part].T[:, None] * delta.T).reshape(-1, N) @ X1
        C[part] = stack_spectral_norm_bounds(outer.reshape(-1, m, X1.shape[1]), 5)[:, 0]
    # The term in SMALLEST_SUBNORMAL bounds the effect of underflow in `outer`.
    norm = 0.5 * curved + np.hypot(0.5 * curved, C + SMALLEST_SUBNORMAL * m * x.sum())
    return np.asarray(_unit_block_error_bounds(delta, slope, bend, X1, x) + norm)


def _unit_block_error_bounds(
    delta: Floats, slope: Floats, bend: Floats, X1: Floats, x: Floats
) -> Any:
    """Return bounds on the rounding errors of the blocks of hidden units: (width,), or one number
    if `slope` and `bend` are vectors (N,). The arguments are those of `_unit_block_bounds`.
    """
    d, depth = row_norms(np.abs(delta))[:, 0], sum(X1.shape) + delta.shape[1]
    size = (d * x[:, 0]) @ np.abs(slope) + x[:, 0] ** 2 @ np.abs(bend)
    return 16 * depth * EPS * size + len(X1) * MIN_NORMAL


def _unit_block_bound(delta: Floats, slope: Floats, bend: Floats, X1: Floats, x: Floats) -> float:
    """Return an upper bound on the largest eigenvalue of ``-[[0, C], [C', M]]`` for one hidden unit
    with phi' `slope` (N,) and e phi'' `bend` (N,). The eigenvalues are computed if the block has at
    most `MAX_UNIT_BLOCK_SIZE` rows. Otherwise the bound follows from the norms of C and of the
    negative part of M.
    """
    C = delta.T @ (slope[:, None] * X1)
    m, k = C.shape
    slack = float(_unit_block_error_bounds(delta, slope, bend, X1, x))
    if not np.isfinite(slack):
        return np.inf
    if m + k <= MAX_UNIT_BLOCK_SIZE:
        block = np.block([[np.zeros((m, m)), C], [C.T, X1.T @ (bend[:, None] * X1)]])
        return slack + _largest_eigenvalue_bound(-block)
    most = float(np.maximum(-bend, 0) @ x[:, 0] ** 2)
    return slack + 0.5 * most + math.hypot(0.5 * most, spectral_norm_bound(C))


# --------------------------------------------------------------------------------------------------
# Lower bounds on the loss, and rays along which the loss decreases to an infimum that no theta
# attains.
#
# Let every row with nonzero weight be classified strictly, and let l2 not act on the last layer.
# Scaling that layer by ``1 + t`` scales all outputs, so cross entropy with hard labels decreases
# for every t > 0, to 0 as t goes to infinity. The gradient along the ray never vanishes, so no
# theta on the ray, including its start, is a critical point.
#
# If a class occurs in no row, or all rows have the same label at an output, and l2 does not act on
# the bias of this output, the derivative with respect to this bias has one sign for every theta.
# Then no point is critical.


def loss_lower_bound(ob: Any) -> float:
    """Return the lower bound 0 on the loss, or ``-inf`` with negative soft targets or with a
    user-defined loss that is not known to be nonnegative.
    """
    row = loss_spec(ob.loss)
    if row.given is not None:
        return 0.0 if row.given.lower_bound is not None and row.given.lower_bound >= 0 else -np.inf
    return -np.inf if row.link == "softmax" and np.min(replace_zero_weight_rows(ob)[1]) < 0 else 0.0


def ray_to_infimum(ob: Any, theta: ArrayLike) -> Floats | None:
    """Return a unit direction (n,) along which the loss is proved to decrease for every step
    length, or None. Its nonzero entries are biases of outputs whose labels all have the same
    effect, or it is the part of theta in the last layer.

    The proof for the last layer needs hard labels, no l2 on that layer, and logits that classify
    every row correctly by more than rounding. It is not available with batch normalisation.
    """
    at = round_to_model_dtype(ob, theta)
    if loss_spec(ob.loss).given is not None:
        return bias_direction(ob, *target_directions(ob))
    if loss_spec(ob.loss).attained or loss_lower_bound(ob) < 0:
        return None
    along, direction = bias_direction(ob, *target_directions(ob)), last_layer_direction(ob, at)
    # True if all sample weights are 0
    nothing = ob.sample_weight is not None and not np.any(ob.sample_weight)
    if along is not None or nothing or has_decay(ob, direction):
        return along
    return direction if is_every_row_proved_correct(ob, at) else None


def attains_lower_bound(ob: Any) -> bool:
    """Return True if the loss may equal its lower bound for some theta. A cross entropy always
    exceeds its lower bound, unless the loss is 0 everywhere.
    """
    row, weight = loss_spec(ob.loss), getattr(ob, "sample_weight", None)
    if row.attained or weight is not None and not np.any(weight):
        return True
    return bool(row.link == "softmax" and ob.model.sizes[-1] == 1)


def target_directions(ob: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks (d_out,) of outputs. For outputs in the first mask, an increase of the
    output lowers the loss of some row with positive weight; for those in the second mask, a
    decrease does.
    """
    m, y = ob.model.sizes[-1], np.asarray(ob.y)
    counts = np.ones(len(y), dtype=bool)
    if ob.sample_weight is not None:
        counts = np.asarray(ob.sample_weight) > 0
    return loss_spec(ob.loss).pulls(y[counts], m)


def bias_direction(ob: Any, up: NDArray[np.bool_], down: NDArray[np.bool_]) -> Floats | None:
    """Return the unit direction (n,) of the last-layer biases whose derivative has the same sign in
    all rows, or None if there are none or l2 acts on one of them. `up` and `down` are the masks of
    `target_directions`.
    """
    if loss_spec(ob.loss).link == "softmax" and len(up) == 1:
        return None
    direction = np.zeros(ob.model.n_params)
    b = layers_of(ob.model, direction)[-1][1]
    if b is None or not (up != down).any():
        return None
    b[...] = up.astype(float) - down
    return None if has_decay(ob, direction) else np.asarray(direction / np.linalg.norm(direction))


def unbounded_reason(ob: Any, direction: Floats) -> str:
    """Return the reason why the loss decreases along `ray_to_infimum`: a clause, then sentences."""
    W, b = layers_of(ob.model, direction)[-1]
    weight = getattr(ob, "sample_weight", None)
    sample = "sample" if weight is None or np.all(weight) else "sample of nonzero weight"
    if W.any():
        return (
            f"every {sample} is classified correctly. Without l2, larger weights in the last layer "
            "then lower the loss without end. With l2 on all parameters, the loss has a minimum"
        )
    if loss_spec(ob.loss).targets == "classes":
        outputs, these = np.flatnonzero(b < 0), ("bias of that class", "biases of these classes")
        one, several = f"no {sample} has class", f"{len(outputs)} classes have no {sample}, class"
    else:
        same = "target 0" if loss_spec(ob.loss).targets == "numbers" else "the same label"
        outputs, these = np.flatnonzero(b), ("bias of that output", "biases of these outputs")
        one = f"every {sample} has {same} at output"
        several = f"every {sample} has {same} at each of {len(outputs)} outputs, output"
    text = f"{several} {outputs[0]} among them" if len(outputs) > 1 else f"{one} {outputs[0]}"
    return (
        f"{text}. Without l2, moving the {these[len(outputs) > 1]} lowers the loss for all "
        "values of the other parameters, so no point is critical. With l2 on all parameters, the "
        "loss has a minimum"
    )


def last_layer_direction(ob: Any, at: Floats) -> Floats:
    """Return `at` (n,) with all entries before the last layer set to 0, scaled to length 1. Return
    NaN entries if the last layer is 0.
    """
    last = sum(part.size for part in layers_of(ob.model, at)[-1] if part is not None)
    direction = np.where(np.arange(len(at)) < len(at) - last, 0.0, at)
    with np.errstate(invalid="ignore"):
        # Scaling by the largest entry prevents overflow of the squares.
        direction = direction / np.abs(direction).max()
        return np.asarray(direction / np.linalg.norm(direction))


def has_decay(ob: Any, direction: Floats) -> bool:
    """Return True if l2 acts on a parameter whose component of `direction` (n,) is nonzero."""
    l2 = np.broadcast_to(l2_diagonal(ob), direction.shape)
    return bool((l2[direction != 0] != 0).any())


def is_every_row_proved_correct(ob: Any, at: Floats) -> bool:
    """Return True if each row with positive weight is proved to be classified correctly at theta,
    given as `at` (n,), in float64. Return False for mse and with batch normalisation.
    """
    row = loss_spec(ob.loss)
    if row.attained or is_batch_normalised(ob.model):
        return False
    passes = passes_at(ob, at)
    for s in passes.iter_states():
        counts = True if ob.sample_weight is None else ob.sample_weight[s.rows] > 0
        y, z, E = passes.y[s.rows], s.z[-1].x, s.z[-1].dx.E
        if not (row.right(y, z, E) | ~np.broadcast_to(counts, len(z))).all():
            return False
    return not passes.arithmetic.overflow
