"""Networks of relu and leaky_relu units at kinks, as smooth functions with slopes in place of
phi'(0).

At a minimum some pre-activations z may lie at 0; these form the active set. With the signs of all
other z fixed, and ``a = s z`` with a slope s in place of phi' on the active set, the loss is a
smooth function Phi(theta, s), that of a polynomial network, and

    dPhi/dtheta = the gradient with these slopes,     dPhi/ds = e z,     e = dL/da,

If no e is 0, the critical points of Phi are therefore the points with z = 0 on the active set at
which some slopes make the gradient vanish: the KKT points. There the Hessian of Phi is ``[[H,
J'E], [EJ, 0]]``, where the rows of J are the gradients of the active z and E is the diagonal matrix
of their e. It has as many negative eigenvalues as there are slopes if and only if J has full rank
and H is positive definite on the null space of J. If also the slopes lie strictly inside
``(phi'(0-), phi'(0+))`` and e > 0, the point is a strict local minimum of the loss: the loss
increases to first order in every direction that moves an active z away from 0, and to second order,
by H, in the null space of J.

Rows with equal inputs have equal z and are merged into one row, because only the sum of the terms
of these rows has to increase at a kink. Units that are copies of others are merged into one unit
(`ReluData.find_unit_copies`), and theta then holds the parameters of the network without copies.
The sign of a z does not matter in a row in which all units of a layer above are off, because this z
has no effect on the output. Slopes are measured in units, ``s = unit t``, because a proof in terms
of t is sharper and proves the same statement.

`third_bound` is the recursion of `fastcurv.certify.majorants` with slopes as parameters:

    a = s z:    A1 = s Z1 + |z| u     A2 = s Z2 + 2 u Z1     A3 = s Z3 + 3 u Z2     u the unit of s
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ..common.linalg import svd, svdvals
from ..common.protocols import Floats
from ..network.mlp import MLP
from ..network.objective import Objective
from ..structure.parameters import (
    divisor_of,
    forward,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    nonzero_weight_rows,
)
from ..structure.tables import activation_spec, loss_spec, one_hot
from ..structure.user_functions import Activation
from .precise import PreciseEnclosure, PrecisePasses, PreciseSlopes, add_l2, pair_from_float

# --------------------------------------------------------------------------------------------------
# Networks of relu and leaky_relu units in plain NumPy: passes for complex theta and for many thetas
# at once. The code is meant for small networks.

Arrays = list[Floats]
Layers = list[tuple[Floats, Floats | None]]  # W and b by layer; complex in complex steps
# length of a complex step, chosen so that its square is far below the rounding error
JACOBIAN_COMPLEX_STEP = 1e-150


class ReluData:
    """The data, shapes and loss of a network objective in NumPy, without the rows of weight 0.

    Parameters
    ----------
    ob : Objective
        An objective for which `is_relu_stack` is True.
    """

    skips = ()

    def __init__(self, ob: Objective) -> None:
        model = ob.model
        self.objective = ob
        self.sizes = tuple(model.sizes)
        self.bias = bool(model.bias)
        self.leaks = [float(activation_spec(name).leak or 0.0) for name in model.activation]
        weight = ob.sample_weight
        weight = np.ones(len(ob.X)) if weight is None else np.array(weight, float)
        counts = weight != 0
        self.loss = ob.loss
        self.X = nonzero_weight_rows(ob)
        y = np.asarray(ob.y)[counts]
        d = self.sizes[-1]
        if loss_spec(ob.loss).targets == "classes":
            y = one_hot(y, d)
        self.y = y.reshape(len(self.X), d).astype(float)
        self.weight = weight[counts]
        self.first = self.inverse = np.arange(len(self.X))
        self.divisor = divisor_of(ob)
        self.l2 = np.broadcast_to(np.asarray(l2_diagonal(ob), dtype=float), (model.n_params,))

    def smooth_kinks(self, width: float) -> Objective:
        """Return the objective with every kink smoothed over the given width w in z: each
        activation is replaced by ``leak z + (1 - leak) w softplus(z / w)``, where `leak` is the
        slope below 0.
        """
        ob = self.objective
        model = MLP(self.sizes, [_smoothed_kink(k, width) for k in self.leaks], bias=self.bias)
        options = {"sample_weight": ob.sample_weight, "l2_biases": ob.l2_biases, "n_threads": 1}
        return Objective(model, np.asarray(ob.X, float), ob.y, ob.loss, ob.l2, **options)

    def smooth_piece_objective(
        self, gates: Arrays, collapsed: Arrays, parents: Units | None = None
    ) -> SmoothPieceObjective:
        """Return the loss as a `SmoothPieceObjective`, a smooth function of theta and of the slopes
        at active kinks, where `gates` is NaN. The arguments are those of `SmoothPieceObjective`.
        """
        return SmoothPieceObjective(self, gates, collapsed, parents)

    def find_unit_copies(self, theta: Floats, gates: Arrays, collapsed: Arrays) -> Units:
        """Return, for each hidden layer, an array (width,) with the index of the unit of which each
        unit is a copy, or its own index.

        Copies are units with the same gates, whose weights in and out are positive multiples of
        each other. If a unit is True in `collapsed`, it counts as a copy of the unit with the
        largest weights in its layer.
        """
        layers = layers_of(self, theta)
        parents = []
        for l, (gate, collapsed_units) in enumerate(zip(gates, collapsed)):
            into, out = weights_of_units(layers, l)
            size = np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=1)
            parent = np.arange(len(size))
            candidates = [i for i in np.argsort(-size, kind="stable") if not collapsed_units[i]]
            pattern = np.nan_to_num(gate, nan=-1.0)
            for k, i in enumerate(candidates):
                for j in candidates[:k]:
                    same = parent[j] == j and np.array_equal(pattern[:, i], pattern[:, j])
                    if same and _is_multiple(into[i], into[j]) and _is_multiple(out[i], out[j]):
                        parent[i] = j
                        break
            if candidates:
                parent[collapsed_units] = candidates[0]
            parents.append(parent)
        return parents

    @staticmethod
    def effective_unit_masks(gates: Arrays) -> list[NDArray[np.bool_]]:
        """Return, for each hidden layer, a mask (N, width) of the units that can affect the output
        of their row. These are the units of rows with at least one active unit in every layer
        above. `gates` is a list by hidden layer of phi' (N, width); NaN, the gate at an active
        kink, counts as active.
        """
        masks: list[NDArray[np.bool_]] = []
        here = np.ones(len(gates[0]), dtype=bool)
        for gate in reversed(gates):
            masks.append(np.repeat(here[:, None], gate.shape[1], axis=1))
            here = here & (gate != 0).any(axis=1)
        return masks[::-1]

    def merge_equal_rows(self) -> ReluData:
        """Return these rows with all rows of equal inputs merged into one row, with the sum of
        their weights and the weighted mean of their targets. The merge changes the loss by a
        constant.

        In the result, `first` holds the indices of the rows that are kept, and `inverse` holds for
        each original row the index of the merged row.
        """
        _, first, inverse = np.unique(self.X, axis=0, return_index=True, return_inverse=True)
        if len(first) == len(self.X):
            return self
        merged = copy.copy(self)
        merged.first = first
        merged.inverse = np.asarray(inverse).reshape(-1)
        weight = np.zeros(len(first), np.longdouble)
        y = np.zeros((len(first), self.y.shape[1]))
        np.add.at(weight, merged.inverse, self.weight.astype(np.longdouble))
        y = y.astype(np.longdouble)
        np.add.at(y, merged.inverse, self.weight[:, None] * self.y.astype(np.longdouble))
        merged.X = self.X[first]
        merged.weight = weight.astype(float)
        merged.y = (y / np.where(weight > 0, weight, 1)[:, None]).astype(float)
        return merged

    def remove_units(self, units: list[NDArray[np.bool_]]) -> ReluData:
        """Return these rows for the network without the hidden units that are True in the masks
        `units`, one mask (width,) for each hidden layer.
        """
        ends = [np.zeros(n, dtype=bool) for n in (self.sizes[0], self.sizes[-1])]
        removed = [ends[0], *units, ends[1]]
        remaining = np.ones(len(self.l2), dtype=bool)
        for (W, b), below, above in zip(layers_of(self, remaining), removed, removed[1:]):
            W &= ~(above[:, None] | below)
            if b is not None:
                b &= ~above
        reduced = copy.copy(self)
        reduced.sizes = tuple(int((~g).sum()) for g in removed)
        reduced.l2 = self.l2[remaining]
        return reduced

    def forward(
        self, layers: Layers, activate: Callable[[int, Floats], Floats]
    ) -> tuple[Arrays, Arrays]:
        """Return two lists by layer: the inputs (N, k) and the pre-activations ``z = a W' + b``.
        ``activate(l, z)`` returns the output of hidden layer l.
        """
        X = self.X.astype(layers[0][0].dtype, copy=False)
        return forward(layers, X, lambda l, z, _: activate(l, z))

    def loss_terms(self, f: Floats) -> tuple[Floats, Floats]:
        """Return two arrays (N, d): the terms of the loss at the outputs f (N, d), and their
        derivatives with respect to f. Both are multiplied by the sample weights and divided by the
        divisor of the loss.
        """
        scale = (self.weight / self.divisor)[:, None]
        terms, d = loss_spec(self.loss).terms(f, self.y)
        return scale * terms, scale * d

    def backward(
        self, layers: Layers, below: Arrays, slopes: Arrays, d: Floats
    ) -> tuple[Floats, Arrays]:
        """Return the gradient (n,) of the data term with respect to theta, and a list of ``e =
        dL/da`` (N, width) for each hidden layer.

        `below` holds the inputs of the layers, `slopes` holds phi' of the hidden layers, and d (N,
        d_out) is the derivative of the loss with respect to the outputs.
        """
        grads: Arrays = []
        es: Arrays = []
        for l in reversed(range(len(layers))):
            if self.bias:
                grads.append(d.sum(axis=-2))
            dW = np.swapaxes(d, -1, -2) @ below[l]
            grads.append(dW.reshape(*dW.shape[:-2], -1))
            if l:
                es.append(d @ layers[l][0])
                d = es[-1] * slopes[l - 1]
        return np.concatenate(grads[::-1], axis=-1), es[::-1]


def is_relu_stack(ob: Objective) -> bool:
    """Return True if the network of an objective has hidden layers, all of relu or leaky_relu
    units, and no skip connections or batch normalisation, and if the loss is ``mse``,
    ``cross_entropy`` or ``binary_cross_entropy``.
    """
    model = ob.model
    plain = not is_batch_normalised(model) and not any(model.skips)
    plain &= loss_spec(ob.loss).given is None
    return (
        plain
        and len(model.activation) > 0
        and all(activation_spec(name).leak is not None for name in model.activation)
    )


def _smoothed_kink(leak: float, width: float) -> Activation:
    """Return the activation of `ReluData.smooth_kinks`."""

    def evaluate(z: Floats) -> tuple[Floats, Floats, Floats]:
        slope = expit(z / width)
        soft = width * np.logaddexp(0.0, z / width)
        return (
            leak * z + (1 - leak) * soft,
            leak + (1 - leak) * slope,
            (1 - leak) / width * slope * expit(-z / width),
        )

    return Activation(evaluate)


def jacobian_by_complex_steps(gradient: Callable[..., Floats], point: Floats, size: int) -> Floats:
    """Return the Jacobian (n, n), exact to rounding, of an analytic function `gradient` at a real
    point (n,). `size` is the number of array entries that one evaluation needs; it limits the
    number of points that are evaluated in one call.
    """
    n = point.size
    J = np.empty((n, n))
    many = max(1, 2**19 // size)
    for first in range(0, n, many):
        some = np.arange(first, min(n, first + many))
        moved = np.tile(point.astype(complex), (len(some), 1))
        moved[np.arange(len(some)), some] += 1j * JACOBIAN_COMPLEX_STEP
        J[:, some] = gradient(moved).imag.T / JACOBIAN_COMPLEX_STEP
    return J


# --------------------------------------------------------------------------------------------------
# Units that are copies of others: a smaller network whose minima are minima of the full network.
#
# With weight decay a unit (w, b, v) of relu or leaky_relu may be split into units: ``c_i (w, b,
# v)`` with ``c_i > 0`` and ``sum c_i^2 = 1`` give the same outputs at the same decay. So minima
# with copies, and minima with a collapsed unit (all weights 0) in a layer with other units, are
# never strict, because they belong to families of equal loss. A strict minimum is proved for the
# network in which each family is one unit. The proof carries over to the full network as follows.
#
# Let units i of a family share gates, and slopes s where their kinks are active. As ``relu(z) >= s
# z`` on both sides, and e > 0 there, the loss is at least that with slopes s, which depends on the
# family only through ``sum v_i w_i'`` and the decay: it does not change when the family is
# transformed by an orthogonal matrix. Choose this matrix so that all units but the first are
# orthogonal to the orbit of (w, b, v). To second order, the others contribute
#
#     l2 (|w|^2 + |b|^2 + |v|^2) / 2 + v' Q (w, b),     Q = sum over rows of delta gate (x, 1)',
#
# where delta is that of the layer above. The unit (w, b, v) satisfies ``l2 (w, b) = -Q'v`` and ``l2
# v = -Q (w, b)``, so l2 is a singular value of Q. If the second singular value is smaller, the sum
# is positive across the orbit, the loss of the transformed family is at least that of the split
# unit, and the point is a minimum, one of its family.

# minimum norm of a copy's weights in `UnitCopyMap.split_copies`, relative to the unit that it
# copies
MIN_COPY_NORM_RATIO = 0.2
# maximum sine of the angle between the weights of two units that count as copies
MAX_COPY_SINE = 1e-6

Units = list[NDArray[np.intp]]


def weights_of_units(layers: Layers, l: int) -> tuple[Floats, Floats]:
    """Return two matrices with a row for each unit of hidden layer l: the weights into the unit,
    with the bias as last column, (width, k), and the weights out of the unit, (width, m).
    """
    W, b = layers[l]
    into = W if b is None else np.column_stack([W, b])
    return np.asarray(into, dtype=float), np.asarray(layers[l + 1][0].T, dtype=float)


def _is_multiple(u: Floats, v: Floats) -> bool:
    """Return True if the vectors u and v are nonzero and u is a positive multiple of v up to an
    angle whose sine is at most `MAX_COPY_SINE`.
    """
    if not np.linalg.norm(u) * np.linalg.norm(v) > 0:
        return False
    rest = u - v * (float(u @ v) / float(v @ v))
    return bool(u @ v > 0 and np.linalg.norm(rest) <= MAX_COPY_SINE * np.linalg.norm(u))


class UnitCopyMap:
    """The map from a network to the network without copies of units, and its inverse.

    Parameters
    ----------
    rows : ReluData
        Data and shapes of the full network.
    parents : list of ndarray (width,) of int
        From `ReluData.find_unit_copies`.
    """

    def __init__(self, rows: ReluData, parents: Units) -> None:
        self.whole = rows
        self.parents = parents
        self.keep = [p == np.arange(len(p)) for p in parents]
        self.rows = rows.remove_units([~k for k in self.keep])
        self.n_copies = int(sum((~k).sum() for k in self.keep))

    def copied_unit_mask(self, l: int) -> NDArray[np.bool_]:
        """Return a mask of the kept units of hidden layer l that represent more than one unit."""
        count = np.bincount(self.parents[l], minlength=len(self.parents[l]))
        return np.asarray(count[self.keep[l]] > 1)

    def _orthonormal_unit_rows(self, theta: Floats, least: float) -> list[Floats]:
        """Return, for each hidden layer, a matrix (kept units, width) with orthonormal rows. Row i
        holds the norms of the weights of the units in family i, divided by a common factor. The
        norm of a copy counts as at least `least` times that of the unit that it copies.
        """
        layers = layers_of(self.whole, theta)
        turns = []
        for l, (parent, keep) in enumerate(zip(self.parents, self.keep)):
            into, out = weights_of_units(layers, l)
            size = np.hypot(np.linalg.norm(into, axis=1), np.linalg.norm(out, axis=1))
            size = np.maximum(size, least * size[parent])
            size[keep & (size == 0)] = 1.0
            turn = np.where(np.flatnonzero(keep)[:, None] == parent, size, 0.0)
            turns.append(turn / np.linalg.norm(turn, axis=1, keepdims=True))
        return turns

    def _rotate_units(self, layers: Layers, turns: list[Floats], back: bool) -> Floats:
        """Return theta (n,) with the units of every hidden layer multiplied by the matrices
        `turns`, or by the transposes of these matrices if `back` is True.
        """
        parts: list[Floats] = []
        for l, (W, b) in enumerate(layers):
            last = l == len(turns)
            above = np.eye(len(W)) if last else turns[l].T if back else turns[l]
            below = np.eye(W.shape[1]) if l == 0 else turns[l - 1] if back else turns[l - 1].T
            parts.append((above @ W @ below).ravel())
            if b is not None:
                parts.append(above @ b)
        return np.concatenate(parts)

    def merge_copies(self, theta: Floats) -> Floats:
        """Return theta of the network without copies, from theta (n,) of the full network."""
        return self._rotate_units(
            layers_of(self.whole, theta), self._orthonormal_unit_rows(theta, 0.0), False
        )

    def split_copies(self, merged: Floats, shares_of: Floats) -> Floats:
        """Return theta of the full network from `merged`, theta of the network without copies. The
        weights of a family are divided among its units in proportion to the norms of the units'
        weights in the full theta `shares_of`. The norm of a copy counts as at least
        `MIN_COPY_NORM_RATIO` times that of the unit that it copies.
        """
        turns = self._orthonormal_unit_rows(shares_of, MIN_COPY_NORM_RATIO)
        return self._rotate_units(layers_of(self.rows, merged), turns, True)

    def expand_columns(self, of_kept: Arrays) -> Arrays:
        """Return, for each hidden layer, an array with a column for every unit of the full network,
        from the array in `of_kept` with a column for every kept unit. Two-dimensional arrays are
        also expanded from the merged rows to all rows.
        """
        columns_by_layer = []
        for column, parent, keep in zip(of_kept, self.parents, self.keep):
            place = np.cumsum(keep) - 1
            whole = column[..., place[parent]]
            columns_by_layer.append(whole[self.rows.inverse] if column.ndim == 2 else whole)
        return columns_by_layer


EPS = float(np.finfo(np.float64).eps)
# factor by which the scalar recursions below are enlarged to cover their own rounding errors
RECURSION_ROUND_UP_FACTOR = 1 + 1e-9
CROSS_TERM_FACTOR = 2 / 3**0.5  # 3 times the maximum of x^2 y for x^2 + y^2 = 1


@dataclass(frozen=True)
class HypothesisMargins:
    """Margins by which the hypotheses of the proof of a minimum at active kinks hold on a ball. The
    hypotheses hold if all margins are above 0.

    Attributes
    ----------
    signs : float
        Smallest ``|z| - reach`` over the z that are not active and can affect the output, where
        reach bounds the change of z on the ball.
    slopes : float
        Smallest distance of a slope from the slopes on the two sides of its kink, minus the change
        of the slope on the ball.
    upward : float
        Smallest difference between e and the bound on the change of e on the ball, over the active
        set.
    collapsed : float
        Margin by which l2 exceeds the gain of a collapsed unit whose weights become nonzero.
        Infinite if no unit is collapsed.
    copies : float
        Margin by which l2 exceeds the gain of a copy that leaves its family. Infinite if there are
        no copies.
    """

    signs: float
    slopes: float
    upward: float
    collapsed: float
    copies: float


class KinkPasses(PrecisePasses):
    """Passes in extended precision of all rows, `whole`, through the network `net` without copies,
    with the slopes `gates` (N, width) in place of phi'.
    """

    def __init__(self, whole: ReluData, net: ReluData, theta: Floats, gates: Arrays) -> None:
        weight = whole.weight
        ob = SimpleNamespace(model=net, X=whole.X, y=whole.y, loss=whole.loss, sample_weight=weight)
        super().__init__(ob, theta)
        self.gates = gates

    def activate(self, l: int, z: PreciseEnclosure) -> tuple[PreciseEnclosure, PreciseSlopes]:
        """Return the pair of the output of hidden layer l, z times the slopes, and the slopes as a
        `PreciseSlopes`.
        """
        gate = self.gates[l]
        slopes = PreciseSlopes(
            pair_from_float(gate), np.zeros_like(gate), float(np.abs(gate).max(initial=0.0))
        )
        return z * slopes, slopes


class SmoothPieceObjective:
    """The smooth function Phi(theta, slopes): the loss with a slope in place of phi' at each active
    kink and with phi' fixed elsewhere. Phi describes the loss while the signs of z elsewhere hold.

    Parameters
    ----------
    rows : ReluData
        Data and shapes of the full network.
    gates : list of ndarray (N, width)
        phi' of every hidden unit and row, NaN where a kink is active.
    collapsed : list of ndarray (width,) of bool
        Hidden units whose weights, in and out, are 0 at the point. The gates of these units must be
        the slope below 0.
    parents : list of ndarray (width,) of int, optional
        From `ReluData.find_unit_copies`. If given, theta holds the parameters of the network
        without copies.
    """

    def __init__(
        self, rows: ReluData, gates: Arrays, collapsed: Arrays, parents: Units | None = None
    ) -> None:
        self.whole = rows
        rows = rows.merge_equal_rows()
        self.copies = UnitCopyMap(rows, parents or [np.arange(n) for n in rows.sizes[1:-1]])
        keep = self.copies.keep
        self.rows = self.copies.rows
        self.collapsed = [c[k] for c, k in zip(collapsed, keep)]
        self.n_collapsed = int(sum(c.sum() for c in self.collapsed))
        self.n_copies = self.copies.n_copies
        self.gates = [np.array(g[rows.first][:, k], dtype=float) for g, k in zip(gates, keep)]
        self.active = [np.isnan(g) for g in self.gates]
        self.effective = rows.effective_unit_masks(self.gates)
        self.n_theta = len(self.rows.l2)
        self.n_slopes = int(sum(a.sum() for a in self.active))
        self.n_params = self.n_theta + self.n_slopes
        self.n_kinks = int(sum(a.sum() for a in self.copies.expand_columns(self.active)))
        self.units = np.ones(self.n_slopes)

    def with_slope_units(self, units: Floats) -> SmoothPieceObjective:
        """Return a copy of this objective with units (n_slopes,) for the slopes. Points hold
        slopes, but bounds are then on balls of (theta, t), where ``slopes = units t``.
        """
        scaled = copy.copy(self)
        scaled.units = units
        return scaled

    def split_by_layer(self, of_slopes: Floats, gates: Arrays | None = None) -> Arrays:
        """Return `of_slopes` (..., n_slopes), values at the active kinks, as a list by hidden layer
        of arrays (..., N, width). All entries without an active kink are taken from `gates`, or are
        NaN if `gates` is None.
        """
        by_layer = []
        at = 0
        for l, active in enumerate(self.active):
            gate = np.full(active.shape, np.nan) if gates is None else gates[l]
            gate = np.broadcast_to(gate, (*of_slopes.shape[:-1], *active.shape))
            by_layer.append(gate.astype(of_slopes.dtype))
            count = int(active.sum())
            by_layer[l][..., active] = of_slopes[..., at : at + count]
            at += count
        return by_layer

    def forward(self, point: Floats) -> tuple[Layers, Arrays, Arrays, Arrays]:
        """Return four lists at a point (theta, slopes): the weights and biases of the layers, the
        gates of the hidden layers, the inputs of every layer, and z of every layer.
        """
        layers = layers_of(self.rows, point[..., : self.n_theta])
        gates = self.split_by_layer(point[..., self.n_theta :], self.gates)
        return layers, gates, *self.rows.forward(layers, lambda l, z: gates[l] * z)

    def forward_backward(self, point: Floats) -> tuple[Floats, Floats, Arrays, Arrays]:
        """Return the value, the gradient with respect to (theta, slopes), a list of z of every
        layer, and a list of e = dL/da of every hidden layer.
        """
        layers, gates, below, zs = self.forward(point)
        terms, d = self.rows.loss_terms(zs[-1])
        g, es = self.rows.backward(layers, below, gates, d)
        theta = point[..., : self.n_theta]
        l2 = self.rows.l2
        bent = [(e * z)[..., active] for e, z, active in zip(es, zs, self.active)]
        value = terms.sum(axis=(-1, -2)) + 0.5 * (l2 * theta**2).sum(axis=-1)
        return value, np.concatenate([g + l2 * theta, *bent], axis=-1), zs, es

    def gradient(self, point: Floats) -> Floats:
        return self.forward_backward(np.asarray(point, dtype=float))[1]

    def hessian(self, point: Floats) -> Floats:
        """Return the Hessian (n, n) at `point` (n,), computed by complex steps and symmetrised."""
        size = len(self.rows.X) * max(self.rows.sizes)
        H = jacobian_by_complex_steps(
            lambda p: self.forward_backward(p)[1], np.asarray(point, dtype=float), size
        )
        return 0.5 * (H + H.T)

    def precise_gradient(self, point: Floats) -> tuple[Floats, Floats]:
        """Return the gradient with respect to (theta, slopes) at `point` (n_params,), computed with
        a precision of about 100 bits (see `fastcurv.certify.precise`) and rounded to float64.
        Return also bounds (n_params,) on the errors of its entries.
        """
        theta = point[: self.n_theta]
        at = self.rows.inverse
        gates = [gate[at] for gate in self.split_by_layer(point[self.n_theta :], self.gates)]
        with np.errstate(all="ignore"):
            part, zs, es = KinkPasses(self.whole, self.rows, theta, gates).row_contribution(
                slice(None)
            )
            part = add_l2(self.rows.l2, theta, part.divide(self.whole.divisor))
        bent: Arrays = []
        off: Arrays = []
        for z, e, active in zip(zs, es, self.active):
            each = e.value.hi * z.value.hi
            each_off = (np.abs(e.value.hi) + e.error) * z.error + np.abs(z.value.hi) * e.error
            for numbers, found in (
                (each, bent),
                (each_off + (np.bincount(at).max() + 8) * EPS * np.abs(each), off),
            ):
                total = np.zeros(active.shape)
                np.add.at(total, at, numbers)
                found.append(total[active] / self.whole.divisor)
        errors = np.concatenate([part.g_error + np.abs(part.g.lo), *off])
        return np.concatenate([part.g.hi, *bent]), RECURSION_ROUND_UP_FACTOR * errors

    def propagate_bounds(self, point: Floats, radius: float) -> dict[str, Floats]:
        """Return a dictionary of bounds on the ball of the given radius around `point`, (theta,
        slopes). The ball and all derivatives are those of (theta, t), with ``slopes = units t``.

        Arrays (N,) by row: "Z1", "Z2" and "Z3" bound the first three derivatives of the outputs,
        and "c1", "c2" and "c3" those of the row's loss with respect to its outputs. Lists with an
        entry for each layer: "weights" bounds the norm of W, "A0" (N,) the norm of the input, with
        a 1 appended if there are biases, and "A1" (N,) the first derivative of the input. Lists
        with an entry for each hidden layer: "reach" (N,) bounds the first derivative of z, "gates"
        (N,) the slopes, and "units" (N,) holds the largest unit of a slope in the row.
        """
        layers, gates, below, zs = self.forward(np.asarray(point, dtype=float))
        N = len(self.rows.X)
        A1 = np.zeros(N)
        A2 = np.zeros(N)
        A3 = np.zeros(N)
        reach = []
        sizes = []
        weights = []
        inputs = []
        moves = []
        units = [np.nan_to_num(u).max(axis=1) for u in self.split_by_layer(self.units)]
        for l, (W, _) in enumerate(layers):
            w = float(np.linalg.norm(W)) * RECURSION_ROUND_UP_FACTOR + radius
            A0 = np.linalg.norm(below[l], axis=1) * RECURSION_ROUND_UP_FACTOR + radius * A1
            v = np.sqrt(A0**2 + (1.0 if self.rows.bias else 0.0))
            Z1 = np.hypot(w * A1, v) * RECURSION_ROUND_UP_FACTOR
            Z2 = 0.5 * (w * A2 + np.hypot(w * A2, 2 * A1)) * RECURSION_ROUND_UP_FACTOR
            Z3 = (w * A3 + CROSS_TERM_FACTOR * A2) * RECURSION_ROUND_UP_FACTOR
            weights.append(w)
            inputs.append(v)
            moves.append(A1)
            if l == len(gates):
                continue
            layer_units = units[l]
            gate = (
                np.where(self.effective[l], np.abs(gates[l]), 1.0).max(axis=1)
                + radius * layer_units
            )
            bent = np.where(self.active[l], np.abs(zs[l]), 0.0).max(axis=1) + radius * Z1
            reach.append(Z1)
            sizes.append(gate)
            A1 = (gate * Z1 + layer_units * bent) * RECURSION_ROUND_UP_FACTOR
            A2 = (gate * Z2 + 2 * layer_units * Z1) * RECURSION_ROUND_UP_FACTOR
            A3 = (gate * Z3 + 3 * layer_units * Z2) * RECURSION_ROUND_UP_FACTOR
        return {
            **{"Z1": Z1, "Z2": Z2, "Z3": Z3, "reach": reach, "gates": sizes, "weights": weights},
            **{"A0": inputs, "A1": moves, "units": units},
            **self._loss_derivative_bounds(zs[-1], Z1 * radius),
        }

    def _loss_derivative_bounds(self, f: Floats, move: Floats) -> dict[str, Floats]:
        """Return a dictionary of bounds "c1", "c2" and "c3" (N,) on the first three derivatives of
        each row's loss with respect to its outputs. They hold for outputs that differ from f (N, d)
        by at most `move` (N,).
        """
        scale = np.abs(self.rows.weight) / self.rows.divisor
        mass = np.abs(self.rows.y).sum(axis=1)
        _, d = self.rows.loss_terms(f)
        row = loss_spec(self.rows.loss)
        c2, c3 = (bend * (1.0 if row.per_entry else mass) * scale for bend in row.bends)
        c1 = (
            np.linalg.norm(d, axis=1) * RECURSION_ROUND_UP_FACTOR
            + c2 * move
            + 64 * EPS * scale * (1 + mass)
        )
        return {"c1": c1, "c2": c2, "c3": c3}

    def third_bound(self, point: Floats, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian of Phi in (theta, t), ``slopes = units t``, on
        the ball of the given radius around `point`, (theta, slopes). Phi describes the loss if the
        signs of z do not change on the ball, which `hypothesis_margins` checks.
        """
        b = self.propagate_bounds(point, radius)
        rows = b["c3"] * b["Z1"] ** 3 + 3 * b["c2"] * b["Z1"] * b["Z2"] + b["c1"] * b["Z3"]
        return float(rows.sum()) * RECURSION_ROUND_UP_FACTOR

    def hessian_error(self, point: Floats) -> float:
        """Return a bound on the norm of the rounding error of `hessian` at `point`: eps times the
        number of roundings of a term, times the norm of all terms in absolute values, which the
        scalar recursions bound.
        """
        b = self.propagate_bounds(point, 0.0)
        size = float((b["c2"] * b["Z1"] ** 2 + b["c1"] * b["Z2"]).sum()) + float(self.rows.l2.max())
        depth = 8 * (sum(self.rows.sizes) + len(self.rows.X) + 32 * len(self.rows.sizes))
        return float(depth * EPS * size * RECURSION_ROUND_UP_FACTOR * math.sqrt(self.n_params))

    def hypothesis_margins(self, point: Floats, radius: float) -> HypothesisMargins:
        """Return the `HypothesisMargins` by which the conditions on signs, slopes, e > 0, collapsed
        units and copies hold on a ball around `point`, (theta, slopes). The ball has the given
        radius in (theta, t), with ``slopes = units t``.
        """
        b = self.propagate_bounds(point, radius)
        signs = slopes = upward = opening = leaving = np.inf
        d0 = b["c1"]
        d1 = b["c2"] * b["Z1"]
        _, _, zs, es = self.forward_backward(np.asarray(point, dtype=float))
        at = np.asarray(point[self.n_theta :], dtype=float)
        for l in reversed(range(len(self.gates))):
            active = self.active[l]
            z = np.abs(zs[l])
            layer_units = b["units"][l]
            change = d1 * b["A0"][l] + d0 * b["A1"][l]
            if self.collapsed[l].any():
                opening = min(
                    opening, self._collapsed_unit_margin(point, l) - radius * float(change.sum())
                )
            if self.n_copies and self.copies.copied_unit_mask(l).any():
                turned = (1 + b["gates"][l]) * change + layer_units * d0 * b["A0"][l]
                leaving = min(leaving, self._decay_margin(point, l) - radius * float(turned.sum()))
            w = b["weights"][l + 1]
            e0 = w * d0
            e1 = (w * d1 + d0) * RECURSION_ROUND_UP_FACTOR
            rounding = 1e4 * EPS * (1 + e0)
            off = radius * b["reach"][l] + 1e4 * EPS * b["reach"][l] * b["weights"][l]
            free = ~active & ~self.collapsed[l] & self.effective[l]
            signs = min(signs, float(np.where(free, z - off[:, None], np.inf).min()))
            e = np.where(active, es[l] - (radius * e1 + rounding)[:, None], np.inf)
            upward = min(upward, float(e.min()))
            d0 = b["gates"][l] * e0
            d1 = (b["gates"][l] * e1 + layer_units * e0) * RECURSION_ROUND_UP_FACTOR
        if at.size:
            low = np.concatenate(
                [np.full(int(a.sum()), leak) for a, leak in zip(self.active, self.rows.leaks)]
            )
            slopes = float((np.minimum(at - low, 1 - at) - radius * self.units).min())
        return HypothesisMargins(signs, slopes, upward, opening, leaving)

    def _unit_gain_factors(self, point: Floats, l: int) -> tuple[Floats, Floats, Floats]:
        """Return three arrays with a row for each sample: dL/dz of the layer above hidden layer l,
        the slopes of layer l, and the inputs of layer l with a 1 for the bias.
        """
        layers, gates, below, zs = self.forward(np.asarray(point, dtype=float))
        d = self.rows.loss_terms(zs[-1])[1]
        for k in reversed(range(l + 1, len(gates))):
            d = (d @ layers[k + 1][0]) * gates[k]
        x = below[l]
        if self.rows.bias:
            x = np.column_stack([x, np.ones(len(x))])
        return d, gates[l], x

    def _decay_margin(self, point: Floats, l: int) -> float:
        """Return l2 minus the largest gain of a copy that leaves its family in hidden layer l. The
        gain is the second singular value of ``Q = sum over rows of d gate x'``, with d = dL/dz of
        the layer above, the slope `gate` of the unit, and the layer's inputs x with a 1 for the
        bias. Return -infinity if l2 is not equal for all parameters.
        """
        d, gates, x = self._unit_gain_factors(point, l)
        least = float(self.rows.l2.min())
        if float(self.rows.l2.max()) != least:
            # The proof for copies needs equal weight decay on the biases and the weights.
            return -np.inf
        rounding = 1e-13 * float(np.linalg.norm(d) * np.linalg.norm(x) + 1)
        gains = [
            float(svdvals((d * gates[:, i : i + 1]).T @ x)[1])
            for i in np.flatnonzero(self.copies.copied_unit_mask(l))
            if min(d.shape[1], x.shape[1]) > 1
        ]
        return least - max(gains, default=0.0) * (1 + 1e-9) - rounding

    def _collapsed_unit_margin(self, point: Floats, l: int) -> float:
        """Return the difference between l2 and the gain, to second order, of a collapsed unit of
        hidden layer l whose weights become nonzero.

        A unit with small weights u in (a bias included) and v out adds ``v'sum d relu(u x)`` to the
        loss, with d = dL/dz of the layer above. The magnitude of this term is at most ``|u| |v|
        M``, where M is the largest norm of the sum over vectors u of length 1. Since ``relu(t) = (t
        + |t|) / 2``, and by the Cauchy-Schwarz inequality, ``M <= |sum d x'| / 2 + sqrt(sum |d|
        lambda_max(sum |d| x x')) / 2``. If the x are nearly multiples of one vector, as above a
        layer that has collapsed, only the two signs of u x matter.
        """
        d, _, x = self._unit_gain_factors(point, l)
        size = np.linalg.norm(d, axis=1)
        linear = float(np.linalg.norm(d.T @ x, 2))
        leak = self.rows.leaks[l]
        spread = float(np.linalg.norm(x * np.sqrt(size)[:, None], 2))
        gain = 0.5 * (linear + math.sqrt(size.sum()) * spread)
        M = min(leak * linear + (1 - leak) * gain, _collinear_gain_bound(d, x, leak))
        rounding = 1e-13 * float(np.linalg.norm(d) * np.linalg.norm(x) + 1)
        return float(self.rows.l2.min()) - M * (1 + 1e-9) - rounding


def _collinear_gain_bound(d: Floats, x: Floats, leak: float) -> float:
    """Return a bound on ``|sum d relu(u x)|`` over vectors u of length 1, for d (N, m) and x (N,
    k). The bound is sharp if the rows of x are multiples of one vector. `leak` is the slope below
    0.
    """
    e = svd(x)[2][0]
    t = x @ e
    sides = [np.where(way > 0, way, leak * way) @ d for way in (t, -t)]
    rest = np.linalg.norm(x - np.outer(t, e), axis=1)
    off = float(np.linalg.norm(d, axis=1) @ rest) * (1 + 1e-12)
    return max(float(np.linalg.norm(side)) for side in sides) + off
