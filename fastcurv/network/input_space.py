"""The first layer rotated to the row space of X: the same operator for a net with fewer inputs.

Nothing depends on what W1 does to vectors that no row of X has a part along: on constant columns
beside a bias, on columns that are sums of others, on all but N directions where N rows have more
columns. With A = X, or ``[X, 1]`` where b may be turned with W, and Householder's
``A = [L, 0] Q'``, the singular vectors Z of L (N, r), those of singular values above rounding
first, give

    A Q1 Z = [F, s 1, 0]        F (N, r') features, s 1 a constant column: the bias, times s

and the loss is that of a net of r' inputs on F, at ``theta' = (W1, b1) Q1 Z`` and the other layers
as they are. That map is an isometry, so the Hessian of that net, its first b scaled by s, is the
Hessian here in orthonormal coordinates, and the engine multiplies it as any other.

What is left out of A has a norm below ``max(N, in) eps ||X||``: rounding of X itself.

*At a kink* rounding decides on a slope: a row of zeros under biases of 0 gives z = 0, and in other
coordinates 1e-17. Where some z of relu, leaky_relu or elu is that small, where z are so large that
their rounding moves them along a curve, and for the Fisher, which near a fit is rounding squared,
products are made of the state of the rows as given, and only the first layer's part of a vector is
turned (`same_state`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._engine import activate
from ..certify.arithmetic import KINKED
from ..memo import kept_with
from ..protocols import Array
from ..runtime import to_nearest
from ..singular import svd
from .coordinates import InCoordinates
from .mlp import MLP
from .row_passes import RowState
from .sample_layers import Reflectors
from .sample_space import SampleSpace

SAVED = 0.3  # of the parameters, from which the rotation is made without being asked for ...
LEAST = 10_000  # ... where there are as many
AT_ZERO = 4.0  # eps times the sizes of its terms: a z up to this may have either sign
APART = 1e-8  # `Rotation.off` from which the bias is not turned with W
FAR = 1e3  # the size of a z's terms, from which its rounding is no longer that of a curve's
BLOCK = 4096  # rows whose z are looked at together


class Rotation:
    """Q and Z for the rows of X; `joint`: with a column of ones for the bias.

    Attributes
    ----------
    features : ndarray (N, r')
        At least one column, of zeros where X has no other.
    s : float
        What the bias is multiplied by.
    dropped : int
        Dimensions of a row of (W1, b1) that nothing depends on.
    off : float
        What a column is from the constant ``s 1`` by, over s: large beside columns of X that are.
    """

    def __init__(self, X: Array, joint: bool) -> None:
        A = X.astype(np.float64)
        A = np.hstack([A, np.ones((len(X), 1))]) if joint else A
        self.joint, self.width = joint, A.shape[1]
        self.Q = Reflectors(A)
        L, r = self.Q.L, self.Q.r
        left, sizes, right = svd(L)
        eps = np.finfo(np.float64).eps
        rank = int((sizes > max(L.shape) * eps * sizes[0]).sum()) if len(sizes) else 0
        Z, self.s = right[:rank].T, 1.0  # (r, rank)
        if joint:
            y = (left[:, :rank].sum(axis=0) / sizes[:rank])[:, None]  # ones = L Z y
            turned = Reflectors(y.T)  # its first column is y / ||y|| or minus that
            with np.errstate(all="ignore"):  # of a column of ones that is lost in rounding
                self.s = float(turned.L[0, 0] / np.vdot(y, y))
            Z = turned.right(Z)
            self.z0, Z = Z[:, :1], Z[:, 1:]
            with np.errstate(all="ignore"):
                self.off = float(np.abs(L @ self.z0 / self.s - 1).max())
        self.Z = Z if Z.shape[1] else np.zeros((r, 1))
        self.hollow = not Z.shape[1]  # the one feature stands for nothing
        self.features = np.ascontiguousarray(L @ self.Z)
        kept = np.hstack([Z, self.z0]) if joint else Z
        self.others = np.linalg.qr(kept, mode="complete")[0][:, kept.shape[1] :]
        self.dropped = self.width - kept.shape[1]

    def project(self, W: Array, b: Array | None) -> tuple[Array, Array | None]:
        """The parts of rows of (W, b) along the features, and along the constant column."""
        T = self.Q.right(np.hstack([W, b[:, None]]) if self.joint and b is not None else W)
        T = T[:, : self.Q.r]
        return T @ self.Z, (T @ self.z0)[:, 0] if self.joint else b

    def embed(self, W: Array, b: Array | None) -> tuple[Array, Array | None]:
        """The transpose of `project`."""
        T = np.zeros((len(W), self.width))
        T[:, : self.Q.r] = W @ self.Z.T
        if self.joint and b is not None:
            T[:, : self.Q.r] += b[:, None] * self.z0.T
        V = self.Q.right_transposed(T)
        return (V[:, :-1], V[:, -1]) if self.joint else (V, b)

    def outside(self, j: int) -> Array:
        """The j-th of `dropped` orthonormal rows (W, b) that nothing depends on."""
        e = np.zeros((1, self.width))
        inner = self.others.shape[1]
        if j < inner:
            e[0, : self.Q.r] = self.others[:, j]
        else:
            e[0, self.Q.r + j - inner] = 1
        return np.asarray(self.Q.right_transposed(e)[0])


@kept_with
def _made(whole: Any) -> tuple[Rotation, Any]:
    """The rotation, and the operator of the smaller net, or in words why there is none."""
    ob, m = whole.objective, whole.objective.model
    joint = m.bias and (ob.l2_biases or not ob.l2)
    turn = Rotation(ob.X, joint)
    if joint and not turn.off <= APART:
        turn, joint = Rotation(ob.X, False), False
    small = MLP(
        (turn.features.shape[1], *m.sizes[1:]),
        m.activation,
        m.bias,
        m.residual,
        m.dtype,
        m.batch_norm,
    )
    if small.skips != m.skips or (m.skips and m.skips[0]):
        return turn, "a net whose first layer has a skip, or would have one"
    if turn.hollow and small.n_params == m.sizes[1]:
        return turn, "rows of zeros and one layer without biases, whose products reach nothing"
    other = type(ob)(
        small,
        turn.features.astype(m.dtype),
        ob.y,
        ob.loss,
        0.0 if joint else ob.l2,
        ob.sample_weight,
        ob.n_threads,
        ob.memory,
        l2_biases=ob.l2_biases,
    )
    layers = m.unflatten(whole.theta)
    W, b = layers[0][:2]
    W, b = turn.project(W.astype(float), None if b is None else b.astype(float))
    b = turn.s * b if joint and b is not None else b
    theta = small.flatten([(W, b, *layers[0][2:]), *layers[1:]])
    make = {"hessian": "hessian", "ggn": "ggn", "fisher": "empirical_fisher"}[whole.kind]
    operator = getattr(other, make)(theta)
    if whole.kind != "fisher" and same_state(ob, whole.theta, other, theta):
        return turn, operator
    if m.batch_norm:  # which has no Fisher
        return turn, "a model with batch normalisation and a pre-activation on a kink"
    state = RowState(ob, whole.theta, whole._plan)
    state.a[0] = other.X
    return turn, SampleSpace(operator, [False] * len(m.shapes), state)


def same_state(ob: Any, theta: Array, other: Any, turned: Array) -> bool:
    """Whether rounding in another objective's coordinates leaves the state what it is: no z of a
    kinked unit is within rounding of 0 or on the other side of it, none of a curved one, or of a
    loss that is no square, so large that rounding moves it along the curve.
    """
    m, names = ob.model, (*ob.model.activation[: len(ob.model.shapes) - 1], ob.loss)
    layers, eps = m.unflatten(theta), float(np.finfo(m.dtype).eps)
    straight = set(names) <= {"identity", "mse"}
    step = len(ob.X) if m.batch_norm else BLOCK
    for start in range(0, 0 if straight else len(ob.X), step):
        below, F = ob.X[start : start + step], other.X[start : start + step]
        zs, others = m.preactivations(theta, below), other.model.preactivations(turned, F)
        for l, (name, z, z_turned) in enumerate(zip(names, zs, others)):
            if name in KINKED and ((z > 0) != (z_turned > 0)).any():
                return False
            W, b = layers[l][:2]
            sizes = np.abs(below) @ np.abs(W).T + (0 if b is None else np.abs(b))
            least = AT_ZERO * eps * sizes - np.abs(z) if name in KINKED else sizes - FAR
            if name not in ("identity", "mse") and not m.batch_norm and (least >= 0).any():
                return False
            if l < len(names) - 1:
                above = activate(name, z)
                below = above + below if m.skips[l] else above
    return True


class InputSpace(InCoordinates):
    """A `Curvature` with its first layer turned to the row space of X: a `Reduction`.

    Made by ``H.reduced("inputs")``. Products are those of a net with fewer inputs.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.random.default_rng(0).standard_normal((50, 4))
    >>> X = np.hstack([X, X[:, :2], np.ones((50, 3))])  # 9 columns, 5 of them for nothing
    >>> ob = fc.Objective(fc.MLP([9, 5, 1]), X, X[:, 0], loss="mse")
    >>> R = ob.hessian(ob.model.init(seed=0)).reduced("inputs")
    >>> R.shape, R.n_rest
    ((31, 31), 25)
    """

    space = "inputs"

    def __init__(self, whole: Any) -> None:
        why = refusal(whole)
        if why:
            raise ValueError(f"space is 'inputs' for {why}; wanted 'parameters'")
        self.whole, self.n, self.n_products = whole, whole.shape[0], 0
        self.turn, self.small = _made(whole)
        self.out, self.inputs = whole.objective.model.sizes[1], self.turn.features.shape[1]
        self.first = self.out * self.inputs  # numbers of W1; then those of b1 and all the rest
        self.hollow = self.first if self.turn.hollow else 0  # of them stand for nothing
        m = self.small.shape[0] - self.hollow
        self.n_rest = self.n - m
        super().__init__(whole.dtype, (m, m))

    def __reduce__(self) -> tuple[Any, ...]:
        return InputSpace, (self.whole,)

    @to_nearest
    def _multiply(self, x: Array, out: Array) -> None:
        wide = np.concatenate([np.zeros(self.hollow, self.dtype), x])
        bias = slice(self.first, self.first + self.out)
        s = self.dtype.type(self.turn.s)
        if self.turn.joint:
            wide[bias] *= s
        found = self.small.product(wide)
        if self.turn.joint:
            found[bias] *= s
            found[self.hollow :] += self.dtype.type(self.rest) * x
        out[...] = found[self.hollow :]

    def _embed(self, x: Array, out: Array) -> None:
        wide = np.concatenate([np.zeros(self.hollow, self.dtype), x])
        W = wide[: self.first].reshape(self.out, self.inputs).astype(float)
        bias = self.whole.objective.model.bias
        b = wide[self.first : self.first + self.out].astype(float) if bias else None
        k = self.whole.objective.model.sizes[0]
        V, vb = self.turn.embed(W, b)
        out[: self.out * k].reshape(self.out, k)[...] = V
        if vb is not None:
            out[self.out * k : self.out * (k + 1)] = vb
        end = self.out * bias
        out[self.out * k + end :] = wide[self.first + end :]

    def _project(self, v: Array, out: Array) -> None:
        k, bias = self.whole.objective.model.sizes[0], self.whole.objective.model.bias
        end = self.out * bias
        V = v[: self.out * k].reshape(self.out, k).astype(float)
        vb = v[self.out * k : self.out * k + end].astype(float) if bias else None
        W, b = self.turn.project(V, vb)
        parts = [W.ravel(), np.zeros(0) if b is None else b, v[self.out * k + end :]]
        out[...] = np.concatenate(parts)[self.hollow :]

    def outside(self, start: int, stop: int) -> Array:
        """Rows ``start .. stop - 1`` of an orthonormal basis ``(n_rest, n)`` of the complement."""
        out, k = np.zeros((stop - start, self.n), self.dtype), self.whole.objective.model.sizes[0]
        for row, j in zip(out, range(start, stop)):
            unit, which = divmod(j, self.turn.dropped)
            y = self.turn.outside(which)
            row[unit * k : (unit + 1) * k] = y[:k]
            if self.turn.joint:
                row[self.out * k + unit] = y[k]
        return out


def refusal(whole: Any) -> str:
    """Why there is no such form, or nothing."""
    operator = _made(whole)[1]
    return operator if isinstance(operator, str) else ""


def shrinks(ob: Any) -> bool:
    """Whether enough parameters fall away: by the number of rows, and of columns that vary."""
    m, (out, k) = ob.model, ob.model.shapes[0]
    if m.n_params < LEAST or (m.skips and m.skips[0]):
        return False
    still = ob.X[0] if m.bias else np.zeros_like(ob.X[0])
    varying = int(np.not_equal(ob.X, still).any(axis=0).sum())
    saved = out * (k - min(varying, len(ob.X)))
    return bool(saved >= SAVED * m.n_params)
