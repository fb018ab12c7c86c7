"""A lower bound on the spectrum of a network's Hessian that needs no products.

``H = GGN + R + l2 I``. The losses here are convex in the outputs, so if no sample weight is
negative the GGN is positive semidefinite, and only R can make an eigenvalue smaller than l2:

    v'Rv = sum over l of 2 <delta_l, ra_(l-1) V_l'>  +  sum over l of <e_l phi''_l, rz_l * rz_l>

Let ``x_l = ||[V_l vb_l]||_F``. The effect of ``[a_(k-1) 1] [V_k vb_k]'`` on ra at the input of a
layer l > k is given, row by row, by matrices ``K = D_(l-1) W_(l-1) ... W_(k+1) D_k``, ``D =
diag(phi')`` (``D W + I`` over a skip). Let c (rows,) bound their norms, and c_z those of
``diag(sqrt(max(0, -e_l phi''_l))) W_l K`` (without ``W_l K`` for k = l). Then, for any positive w
(rows,), with spectral norms over all rows,

    |<delta_l, ra_(l-1) V_l'>|       <=  sum over k of B_lk x_l x_k
    B_lk = ||delta_l / w||  ||w c [a_(k-1) 1]||
    <e_l phi''_l, rz_l * rz_l>       >=  -(sum over k of u_lk x_k)^2,  u_lk = ||c_z [a_(k-1) 1]||

``w^2 = ||delta_l|| / (c ||[a 1]||)``, row by row, makes B at most ``sum of ||delta_l|| c ||[a
1]||``: rows that are fitted exactly contribute nothing. It follows that

    lambda_min  >=  l2 - lambda_max(S),     S_lk = S_kl = B_lk,  plus the sum over l of u_l u_l'

with S nonnegative, a row for each layer. For adjacent layers K is diagonal, and B_lk is also the
largest of the norms ``||C_j||``, j a unit between them and ``C_j = sum of delta_l phi'_j [a_(k-1)
1]'``: in this form the contributions of samples may cancel. With one hidden layer R decomposes
into a block ``[[0, C_j], [C_j', M_j]]`` for each hidden unit, ``M_j = sum of e phi'' x x'``,
whose least eigenvalue is computed if the block is small.

Rounding: the state at theta comes from `fastcurv.certify.passes`, float64 passes with a bound on
the error of every number, and each norm here is that of the numbers plus that of their errors.

Limits. v = theta shows that R cannot be small compared with l2 where theta is critical because of
l2: at a critical point of a network of L layers that is homogeneous (relu, no biases), ``theta'R
theta = -(L - 1) l2 ||theta||^2``, so no bound without the GGN is positive there. The bound is
positive where l2 exceeds the effect of the residuals: at theta near 0, and at fits for which the
weight decay has not yet taken effect. The minimum is then often far away, so `classify` checks
whether the curvature stays positive up to the minimum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.linalg import eigh
from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..network.objective import Objective
from ..structure.parameters import is_batch_normalised, l2_diagonal
from ..structure.tables import loss_spec
from .arithmetic import (
    EPS,
    MIN_NORMAL,
    NORM_ROUND_UP_FACTOR,
    Enclosure,
    norm_bound_from_gram,
    row_norms,
    spectral_norm_bound,
)
from .loss_infimum import loss_lower_bound
from .passes import Passes, State, passes_at, round_to_model_dtype

Reaches = dict[tuple[int, int], Floats]

# maximum number of inputs of a layer for which spectral instead of Frobenius norms are computed
MAX_SPECTRAL_WIDTH = 1024
MAX_UNIT_BLOCK_SIZE = 128  # maximum size of a hidden unit's block whose eigenvalues are computed


def curvature_floor(ob: Objective, theta: ArrayLike) -> float:
    """Return a lower bound on the eigenvalues of the Hessian, or ``-inf`` if no bound is cheap to
    compute.

    The bound is l2 minus a bound on the negative part of the residual term; the module docstring
    has the formulas. It holds for the exact Hessian at theta, rounded to the model's dtype.

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
        (L - 1)`` Gram matrices of layer inputs. Small networks also need a product ``(outputs, N)
        (N, inputs)`` for each hidden unit, with the outputs of the layer above.

    Examples
    --------
    Twice the residual lowers the bound by twice as much.

    >>> import fastcurv as fc
    >>> model = fc.MLP([1, 1, 1, 1], "identity", bias=False)
    >>> for y in (1.0, 1.1, 1.2):
    ...     ob = fc.Objective(model, [[1.0]], [y], "mse", l2=1.0)
    ...     print(round(curvature_floor(ob, [1.0, 1.0, 1.0]), 6))
    1.0
    0.6
    0.2
    """
    theta = round_to_model_dtype(ob, theta)
    weights = ob.sample_weight
    least = float(np.min(l2_diagonal(ob)))
    if (
        not loss_spec(ob.loss).is_convex
        or weights is not None
        and np.min(weights) < 0
        or loss_lower_bound(ob) < 0
    ):
        return -np.inf
    if len(ob.model.sizes) == 2:
        return least
    if is_batch_normalised(ob.model):
        return -np.inf
    with np.errstate(all="ignore"):
        passes = passes_at(ob, theta)
        taken = negative_curvature_bound(passes)
        if len(ob.model.sizes) == 3:
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
        self.gram = np.zeros((1, 1))
        self.square = 0.0
        self.count = 0

    def add_rows(self, F: Floats, error: Floats) -> None:
        F = row_norms(np.abs(F)) if F.shape[1] > MAX_SPECTRAL_WIDTH else F
        self.gram = self.gram + F.T @ F
        self.count += len(F)
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
        self.C: Floats = np.zeros((1, 1, 1))
        self.off: Floats = np.zeros(1)
        self.count = 0

    def add_rows(self, s: State, l: int, F: Floats, error: Floats) -> None:
        d = s.d[l].x
        bent = s.phi[l - 1].p
        p = np.ones_like(s.a[l].x) if bent is None else bent.x
        dp = np.zeros_like(p) if bent is None else bent.dx.E
        outer = (d.T[:, None] * p.T).reshape(-1, len(d)) @ F
        self.C = self.C + outer.reshape(d.shape[1], p.shape[1], -1)
        self.count += len(d)
        d = row_norms(np.abs(d))
        dd = s.d[l].dx.nu
        f = row_norms(np.abs(F))
        slope = np.abs(p)
        rounding = 16 * (self.count + sum(self.C.shape)) * EPS * d * slope * f
        self.off = self.off + (
            rounding + dd * (slope + dp) * (f + error) + d * (dp * (f + error) + slope * error)
        ).sum(axis=0)

    def norm_bound(self) -> float:
        norms = [spectral_norm_bound(self.C[:, j]) for j in range(self.C.shape[1])]
        return NORM_ROUND_UP_FACTOR * float(np.max(norms + self.off + self.count * MIN_NORMAL))


def negative_curvature_bound(passes: Passes) -> float:
    """Return an upper bound on the largest eigenvalue of -R, where R is the Hessian minus the GGN
    and l2: the largest eigenvalue of a matrix S (L, L) of bounds by pairs of the L layers. Return
    infinity if S is not finite.
    """
    L = len(passes.W)
    B = {(l, k): (SpectralNorm(), SpectralNorm()) for l in range(L) for k in range(l)}
    U = {(l, k): SpectralNorm() for l in range(L - 1) for k in range(l + 1)}
    C = {(l, l - 1): UnitBlockNorm() for l in range(1, L) if passes.by_units}
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

    Each bound is a product of the norms of the layers between them.
    """
    c = {}
    c_z = {}
    hidden = range(len(passes.W) - 1)
    ones = np.ones((len(s.a[0].x), 1))
    slope = [
        ones if f.p is None else (np.abs(f.p.x) + f.p.dx.E).max(axis=1, keepdims=True)
        for f in s.phi
    ]
    down: list[Any] = [
        None if eq is None else np.sqrt(np.maximum(0, eq.dx.E - eq.x)).max(axis=1, keepdims=True)
        for eq in s.eq
    ]
    for k in hidden:
        raise_if_out_of_time()
        reach = slope[k]
        if down[k] is not None:
            c_z[k, k] = down[k]
        for m in hidden[k + 1 :]:
            c[m, k] = reach
            W = passes.W[m].norm
            if down[m] is not None:
                c_z[m, k] = down[m] * W * reach
            reach = (slope[m] * W + passes.skips[m]) * reach
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
    1]``, with the best w for each row. The tuple `at` is (l, k). The module
    docstring has the formulas.
    """
    l, k = at
    d = s.d[l].x
    dd = s.d[l].dx.nu
    F, error = _scaled_layer_inputs(passes, s, k, c)
    near = row_norms(np.abs(d)) + dd
    far = row_norms(np.abs(F)) + error
    if near.any() and far.any():
        w = np.sqrt((near + 1e-30 * near.max()) / (far + 1e-30 * far.max()))
        D.add_rows(d / w, dd / w)
        A.add_rows(w * F, w * error)


def negative_curvature_bound_by_units(passes: Passes) -> float:
    """Return the largest eigenvalue of -R for one hidden layer, up to rounding, from the blocks
    ``[[0, C_j], [C_j', M_j]]`` of its units, or infinity if they are too large. R is the Hessian
    minus the GGN and l2.
    """
    X = np.asarray(passes.X, dtype=float)
    X1 = np.hstack([X, np.ones((len(X), 1))]) if passes.ob.model.bias else X
    m = len(passes.W[1].A)
    if m + X1.shape[1] > MAX_UNIT_BLOCK_SIZE:
        return np.inf
    states = list(passes.iter_states())
    x = row_norms(np.abs(X1))
    delta = np.concatenate([s.d[1].x for s in states])
    d = row_norms(np.abs(delta))
    dd = np.concatenate([s.d[1].dx.nu for s in states])
    # phi', e phi'' and bounds on their errors, each (N, units)
    p, dp = _values_and_errors([s.phi[0].p for s in states], states, 1.0)
    q, dq = _values_and_errors([s.eq[0] for s in states], states, 0.0)
    unit = 16 * EPS * (sum(X1.shape) + m)
    p_error = dd * (np.abs(p) + dp) + d * (dp + unit * np.abs(p))
    off = (x * p_error + x**2 * (dq + unit * np.abs(q)) + MIN_NORMAL).sum(axis=0)
    bounds = []
    for j in range(p.shape[1]):
        raise_if_out_of_time()
        C = delta.T @ (p[:, j : j + 1] * X1)
        M = X1.T @ (q[:, j : j + 1] * X1)
        block = np.block([[np.zeros((m, m)), C], [C.T, M]])
        if not np.isfinite(block).all():
            return np.inf
        bounds.append(_largest_eigenvalue_bound(-block))
    return NORM_ROUND_UP_FACTOR * float(np.max(bounds + off))


def _values_and_errors(
    parts: list[Enclosure | None], states: list[State], default: float
) -> tuple[Floats, Floats]:
    """Return the numbers of `parts`, one for each state, and bounds on their errors, each (N,
    units). Numbers of a part None are equal to `default`.
    """
    zs = [s.z[0].x for s in states]
    values = [np.full(z.shape, default) if f is None else f.x for f, z in zip(parts, zs)]
    errors = [np.zeros(z.shape) if f is None else f.dx.E for f, z in zip(parts, zs)]
    return np.concatenate(values), np.concatenate(errors)


def _largest_eigenvalue_bound(S: Floats) -> float:
    """Return an upper bound on the largest eigenvalue of a symmetric matrix S."""
    values, _, errors = eigh(S)
    return float(values[-1] + errors[-1])
