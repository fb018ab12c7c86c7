"""The space of the inputs: the first layer rotated to the row space of X, which gives the same
operator for a network with fewer inputs.

The loss does not depend on the action of W1 on vectors orthogonal to all rows of X. There are
such vectors if X has constant columns in addition to a bias, columns that are linear combinations
of others, or more columns than rows. With A = X, or ``[X, 1]`` if b may be rotated together with
W, and the Householder factorisation ``A = [L, 0] Q'``, the singular vectors Z of L (N, r),
beginning with those of singular values above rounding, give

    A Q1 Z = [F, s 1, 0]        F (N, r') features, s 1 a constant column: the bias, times s

and the loss is that of a network with r' inputs on F, at ``theta' = (W1, b1) Q1 Z`` with the
other layers unchanged. That map is an isometry, so the Hessian of the smaller network, with its
first b scaled by s, is the original Hessian in orthonormal coordinates, and the engine multiplies
by it as by any other.

The omitted part of A has a norm below ``max(N, in) eps ||X||``, the size of rounding errors of X
itself.

*At a kink* rounding determines the slope. For example, a row of zeros with biases of 0 gives z =
0, but perhaps 1e-17 in other coordinates. Products therefore use the state of the original rows,
and only the first layer's part of a vector is rotated, in three cases (`has_same_state`): if some
z of relu, leaky_relu or elu is that small, if some z are so large that their rounding errors
change the derivatives of the activation, and for the Fisher, which near an exact fit consists of
squared rounding errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.caches import cache_by_owner
from ..common.linalg import svd
from ..common.protocols import Array, library_class
from ..common.runtime import with_nearest_rounding
from ..structure.parameters import replace_zero_weight_rows
from ..structure.tables import activation_spec, loss_spec
from .mlp import MLP
from .reductions import CoordinateReduction
from .row_passes import RowState
from .sample_space import BlockReflector, SampleSpaceOperator

# minimum fraction of the parameters saved for the rotation to be used by default
ROTATION_MIN_FRACTION_SAVED = 0.3
ROTATION_MIN_PARAMS = 10_000  # minimum number of parameters for the rotation to be used by default
# The sign of a pre-activation z is uncertain if |z| is at most this times eps times the sum of the
# absolute values of the terms of z.
Z_SIGN_TOL_EPS = 4.0
# maximum `InputRotation.off` for which the bias is rotated together with W
MAX_BIAS_ROTATION_ERROR = 1e-8
# If the absolute values of the terms of a pre-activation z sum to less than this, the rounding of z
# does not affect a smooth activation.
MAX_Z_TERMS_SUM = 1e3
Z_ROWS_PER_CHECK = 4096  # number of rows whose z are checked at a time


class InputRotation:
    """Coordinates of parameters in which the loss depends on few inputs: an isometry from the
    parameters of a smaller network that rotates (W1, b1), or W1 alone, and leaves the other
    parameters unchanged.

    Parameters
    ----------
    X : ndarray (N, in)
        The rows of the objective.
    joint : bool
        If True, b1 is rotated together with W1, by a column of ones that is appended to X.
    out : int
        The number of units of the first layer.

    Attributes
    ----------
    features : ndarray (N, r')
        The rotated rows; at least one column, of zeros if X has no other.
    s : float
        The factor that the bias is multiplied by.
    bias : slice
        The coordinates of the rotated bias; empty unless `joint`.
    dropped : int
        The number of dimensions of a row of (W1, b1) that the loss does not depend on.
    off : float
        The relative error of the constant column ``s 1``; it is large if columns of X are large.
    """

    def __init__(self, X: Array, joint: bool, out: int) -> None:
        A = np.hstack([X.astype(np.float64), np.ones((len(X), int(joint)))])
        self.joint = int(joint)
        self.out = out
        self.width = A.shape[1]
        first = BlockReflector(A)
        left_vectors, sizes, Z = svd(first.L)
        eps = np.finfo(np.float64).eps
        rank = int((sizes > max(first.L.shape) * eps * sizes[0]).sum()) if len(sizes) else 0
        Z = Z[:rank]
        # The first row of Z is turned to lie along y, where ones = L Z' y.
        if joint:
            y = left_vectors[:, :rank].sum(axis=0) / sizes[:rank]
            Z = BlockReflector(y[None]).multiply_right(Z.T).T
        B = np.zeros((max(rank, 1), self.width))
        B[:rank, : first.r] = Z
        # The first columns of Q are the rows of this matrix, up to sign.
        self.Q = BlockReflector(first.multiply_right_transposed(B))
        n_features = max(rank, self.joint + 1)
        # The column of Q that belongs to the bias comes last.
        self.columns = [*range(self.joint, n_features), *range(self.joint)]
        turned = self.Q.multiply_right(A)[:, self.columns]
        inputs = n_features - self.joint
        self.features = np.ascontiguousarray(turned[:, :inputs])
        self.dropped = self.width - n_features
        self.bias = slice(out * inputs, out * n_features)
        self.s = 1.0
        self.off = 0.0
        if joint:
            # If rounding removes the column of ones, s is 0 and the quotient is NaN or infinite.
            with np.errstate(all="ignore"):
                self.s = float(turned[:, -1].mean())
                self.off = float(np.abs(turned[:, -1] / self.s - 1).max())

    def _split_first_layer(self, x: Array, k: int) -> tuple[Array, Array]:
        """Split parameters x of a network with k inputs. Return the rows (W1, b1) of the first
        layer, in float64, and the other parameters.
        """
        W, b, others = np.split(x, [self.out * k, self.out * (k + self.joint)])
        first = [W.reshape(self.out, k), b.reshape(self.out, self.joint)]
        return np.hstack(first).astype(np.float64), others

    def _join_first_layer(self, rows: Array, *others: Array) -> Array:
        k = rows.shape[1] - self.joint
        return np.concatenate([rows[:, :k].ravel(), rows[:, k:].ravel(), *others])

    def project(self, v: Array) -> Array:
        """Return the coordinates of the parameters v, those of the smaller network."""
        rows, others = self._split_first_layer(v, self.width - self.joint)
        return self._join_first_layer(self.Q.multiply_right(rows)[:, self.columns], others)

    def embed(self, x: Array) -> Array:
        """Return the parameters with coordinates x, by the transpose of `project`."""
        rows, others = self._split_first_layer(x, self.features.shape[1])
        wide = np.zeros((self.out, self.width))
        wide[:, self.columns] = rows
        return self._join_first_layer(self.Q.multiply_right_transposed(wide), others)

    def complement_vector(self, j: int) -> Array:
        """Return the first layer's part of the j-th of a set of orthonormal vectors of parameters
        on which the loss does not depend. The other parts are 0.
        """
        unit, which = divmod(j, self.dropped)
        wide = np.zeros((self.out, self.width))
        wide[unit, len(self.columns) + which] = 1
        return self._join_first_layer(self.Q.multiply_right_transposed(wide))


@cache_by_owner
def _rotated_operator(whole: Any) -> tuple[InputRotation, Any]:
    """Return the rotation of the inputs of the curvature `whole` to the row space of X, and the
    operator of the network with these fewer inputs. If no such operator exists, return a phrase
    with the reason in its place.
    """
    ob = whole.objective
    m = ob.model
    X, y = replace_zero_weight_rows(ob)
    turn = InputRotation(X, m.bias and (ob.l2_biases or not ob.l2), m.sizes[1])
    if not turn.off <= MAX_BIAS_ROTATION_ERROR:
        turn = InputRotation(X, False, m.sizes[1])
    sizes = turn.features.shape[1], *m.sizes[1:]
    small = MLP(sizes, m.activation, m.bias, m.residual, m.dtype, m.batch_norm)
    if small.skips != m.skips or (m.skips and m.skips[0]):
        return turn, "a net whose first layer has a skip, or would have one"
    features = turn.features.astype(m.dtype)
    l2 = 0.0 if turn.joint else ob.l2
    how = ob.sample_weight, ob.n_threads, ob.memory
    other = type(ob)(small, features, y, ob.loss, l2, *how, l2_biases=ob.l2_biases)
    theta = turn.project(whole.theta)
    theta[turn.bias] *= turn.s
    operator = other._make_operator(theta, whole.kind)
    if whole.kind != "fisher" and has_same_state(ob, whole.theta, other, theta):
        return turn, operator
    # With batch normalisation there is no Fisher, so a pre-activation on a kink is the only reason.
    if m.batch_norm:
        return turn, "a model with batch normalisation and a pre-activation on a kink"
    state = RowState(ob, whole.theta, whole._plan)
    state.a[0] = other.X
    return turn, SampleSpaceOperator(operator, [False] * len(m.shapes), state)


def has_same_state(ob: Any, theta: Array, other: Any, turned: Array) -> bool:
    """Return True if the state of the objective `other` at `turned`, the rotated theta, equals that
    of `ob` at theta in spite of rounding. No pre-activation z of a unit with a kink may be within
    rounding of 0 or have another sign. No z of a smooth activation, or of a loss other than mse,
    may be so large that its rounding error changes the derivatives.
    """
    m = ob.model
    names = m.activation[: len(m.shapes) - 1]
    rows = [activation_spec(name) for name in names]
    kinked = [row.kink > 0 for row in rows] + [False]
    bent = [row.bend > 0 or row.kink > 0 for row in rows] + [loss_spec(ob.loss).link != "identity"]
    layers = m.unflatten(theta)
    eps = float(np.finfo(m.dtype).eps)
    X, _ = replace_zero_weight_rows(ob)
    step = len(X) if m.batch_norm else Z_ROWS_PER_CHECK
    for start in range(0, len(X) if any(bent) else 0, step):
        cut = slice(start, start + step)
        others = other.model.preactivations(turned, other.X[cut])
        for l, (below, z, z_turned) in enumerate(zip(*m._forward(theta, X[cut]), others)):
            if kinked[l] and ((z > 0) != (z_turned > 0)).any():
                return False
            W, b = layers[l][:2]
            sizes = np.abs(below) @ np.abs(W).T + (0 if b is None else np.abs(b))
            least = (
                Z_SIGN_TOL_EPS * eps * sizes - np.abs(z) if kinked[l] else sizes - MAX_Z_TERMS_SUM
            )
            if bent[l] and not m.batch_norm and (least >= 0).any():
                return False
    return True


@library_class
class InputSpaceOperator(CoordinateReduction):
    """A `Curvature` with its first layer rotated to the row space of X: a `Reduction`.

    Created by ``H.reduced("inputs")``. Products are those of a network with fewer inputs.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.random.default_rng(0).standard_normal((50, 4))
    >>> X = np.hstack([X, X[:, :2], np.ones((50, 3))])  # 9 columns, 5 of them redundant
    >>> ob = fc.Objective(fc.MLP([9, 5, 1]), X, X[:, 0], loss="mse")
    >>> R = ob.hessian(ob.model.init(rng=0)).reduced("inputs")
    >>> R.shape, R.n_complement
    ((31, 31), 25)
    """

    space = "inputs"
    turn: InputRotation
    small: Any

    _read_only = CoordinateReduction._read_only | {"turn", "small"}

    def __init__(self, whole: Any) -> None:
        why = no_input_space_reason(whole)
        if why:
            raise ValueError(f"space must not be 'inputs' for {why}. Use 'parameters'.")
        self.whole = whole
        self.n = whole.shape[0]
        self.n_products = 0
        self.turn, self.small = _rotated_operator(whole)
        m = self.small.shape[0]
        self.n_complement = self.n - m
        super().__init__(whole.dtype, (m, m))

    @with_nearest_rounding
    def _multiply(self, x: Array, out: Array) -> None:
        s = self.dtype.type(self.turn.s)
        wide = x.copy()
        wide[self.turn.bias] *= s
        out[...] = self.small.product(wide)
        out[self.turn.bias] *= s
        if self.turn.joint:
            out += self.dtype.type(self.complement_eigenvalue) * x

    def _embed(self, x: Array, out: Array) -> None:
        out[...] = self.turn.embed(x)

    def _project(self, v: Array, out: Array) -> None:
        out[...] = self.turn.project(v)

    def complement_rows(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop - 1`` of an orthonormal basis ``(n_complement, n)`` of the
        complement.
        """
        out = np.zeros((stop - start, self.n), self.dtype)
        for row, j in zip(out, range(start, stop)):
            first = self.turn.complement_vector(j)
            row[: len(first)] = first
        return out


def input_space_operator(whole: Any) -> InputSpaceOperator | None:
    """Return the curvature `whole` as an operator with the inputs rotated to the row space of X, or
    None if `no_input_space_reason` gives a reason why this is not possible.
    """
    return None if no_input_space_reason(whole) else InputSpaceOperator(whole)


def no_input_space_reason(whole: Any) -> str:
    """Return "" if `InputSpaceOperator` supports the curvature `whole`, which is then that of a
    network whose inputs are rotated to the row space of X. Otherwise return a phrase that names the
    obstacle, such as "a net whose first layer has a skip, or would have one".
    """
    operator = _rotated_operator(whole)[1]
    return operator if isinstance(operator, str) else ""


def is_input_rotation_useful(ob: Any) -> bool:
    """Return True if three conditions hold: a rotation of the inputs to the row space of X saves at
    least `ROTATION_MIN_FRACTION_SAVED` of the parameters, the network has at least
    `ROTATION_MIN_PARAMS` parameters, and its first layer has no skip connection. The number of
    parameters saved is estimated from the number of rows and the number of columns of X that vary.
    """
    m = ob.model
    out, k = ob.model.shapes[0]
    if m.n_params < ROTATION_MIN_PARAMS or (m.skips and m.skips[0]):
        return False
    still = ob.X[0] if m.bias else np.zeros_like(ob.X[0])
    varying = int(np.not_equal(ob.X, still).any(axis=0).sum())
    saved = out * (k - min(varying, len(ob.X)))
    return bool(saved >= ROTATION_MIN_FRACTION_SAVED * m.n_params)
