"""Coordinates of a network's parameters in which its curvature is nearer to the identity.

The Gauss-Newton matrix of a layer's ``[W b]`` is the sum over rows of ``u u' (x) [a 1]'[a 1]``,
where u are the derivatives of the outputs with respect to the layer's z, times a root of the loss's
second derivative. This matrix is nearly a Kronecker product (Martens and Grosse, Optimizing neural
networks with Kronecker-factored approximate curvature, 2015), and the roots L and K of its factors
give coordinates X:

    G = sum of u u' = L L'      A = mean of [a 1]'[a 1] = K K'      [W b] = L^-T X K^-1

A fraction of the mean diagonal entry and the share of the weight decay are added to the diagonal of
each factor. For several outputs, u is a combination of the derivatives with random signs, since the
mean of ``u u'`` over the signs is the sum over the outputs. For a loss whose second derivative is
not known to be positive, u is the gradient of each row's loss with respect to z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.lapack import dtrtri

from .._engine import MatrixMultiplier, default_n_threads
from ..common.linalg import cholesky
from ..common.protocols import Array
from ..structure.tables import loss_spec
from .output_loss import loss_curvature_factor
from .row_passes import RowState

if TYPE_CHECKING:
    from ..network.objective import Objective


# fraction of a factor's mean diagonal entry that is added to its diagonal
DAMPING_FRACTION = 0.2
# A factor is replaced by its diagonal if it is larger than this, or than half the number of rows.
MAX_FACTOR_SIZE = 512
# number of rows from which factors are computed: at least MIN_FACTOR_ROWS, and ROWS_PER_UNIT for
# each unit of the widest layer whose factor is a full matrix
MIN_FACTOR_ROWS = 256
ROWS_PER_UNIT = 10
RANDOM_SIGNS_SEED = 5  # seed of the random signs


class KroneckerCoordinates:
    """Coordinates x (n,) of the parameters or of steps in the parameters, ``theta = P x``.

    P (n, n) is an invertible matrix that is not formed. It acts on each layer separately, ``[W b] =
    L^-T X K^-1``, where X is the layer's part of x, and L and K are roots of the Kronecker factors
    of the layer's Gauss-Newton matrix.

    Parameters
    ----------
    ob : Objective
        The objective, with rows in memory and without batch normalisation.
    """

    factors: list[tuple[Any, Any]]  # pairs ((L, L^-1), (K, K^-1)) for each layer
    scale: float  # scalar factor of P

    def __init__(self, ob: Objective) -> None:
        self.model = ob.model
        self.l2 = float(ob.l2)
        self.widest = min(MAX_FACTOR_SIZE, ob.n_samples // 2)
        near = [k for k in ob.model.sizes if k <= self.widest]
        count = max(MIN_FACTOR_ROWS, ROWS_PER_UNIT * max(near, default=0))
        self.ob = ob
        if count < ob.n_samples:
            self.ob = ob.batch(np.arange(count) * ob.n_samples // count)
        self.multiply = MatrixMultiplier(ob.dtype, ob.n_threads or default_n_threads())

    def fit(self, theta: Array) -> None:
        """Compute the matrix P of ``theta = P x`` from the Gauss-Newton matrix at theta (n,), with
        a scale of 1.
        """
        self.factors = []
        self.scale = 1.0
        state = RowState(self.ob, theta, self.ob.hessian(theta)._plan)
        roots = self._weight_roots()
        for l, u in enumerate(self._outputs_by_layer(state)):
            left = self._second_moment(u, None, False)
            right = self._second_moment(state.a[l], roots, self.model.bias) / len(u)
            means = [float(np.mean(x if x.ndim == 1 else x.diagonal())) for x in (left, right)]
            size = means[0] * means[1]
            share = DAMPING_FRACTION + (self.l2 / size) ** 0.5 if 0 < size < np.inf else 0.0
            sides = [
                self._second_moment_roots(x, share * mean) for x, mean in zip((left, right), means)
            ]
            self.factors.append((sides[0], sides[1]))

    def _outputs_by_layer(self, state: RowState) -> list[Array]:
        """Return a list by layer of arrays u (N, m), from the state at theta. A row of u is the
        derivative of a combination of the network's outputs with respect to the m outputs z of the
        layer. The combination is a root of the loss's second derivative, summed over its columns
        with random signs. For a user-defined loss that is not convex or is coupled, the derivative
        is that of the row's loss, up to a factor.
        """
        loss_function = loss_spec(state.loss.loss).given
        curved = loss_function is None or (loss_function.convex and not loss_function.coupled)
        roots = loss_curvature_factor(state.loss, "ggn" if curved else "fisher")
        signs = np.random.default_rng(RANDOM_SIGNS_SEED).choice([-1.0, 1.0], roots.shape[:2])
        u = np.asarray(np.einsum("ij,ijk->jk", signs, roots), state.dtype, order="F")
        by_layer = [u]
        e = None
        for l in range(len(state.W) - 1, 0, -1):
            u, e = state.backpropagate(self.multiply, l, u, e)
            by_layer.append(u)
        return by_layer[::-1]

    def limit_first_step(self, g: Array) -> None:
        """Scale the matrix P of ``theta = P x`` such that the norm of ``P P' g`` is the smaller of
        1 and the norm of the gradient g (n,) with respect to theta. The scale limits the first step
        of L-BFGS, for which no pairs exist.
        """
        steepest = float(np.linalg.norm(self.to_theta(self.to_gradient(g))))
        if 0 < steepest < np.inf:
            self.rescale((min(float(np.linalg.norm(g)), 1.0) / steepest) ** 0.5)

    def rescale(self, scale: float) -> None:
        """Multiply P, the matrix of ``theta = P x``, by the number `scale`."""
        self.scale *= scale
        for (root, inverse), _ in self.factors:
            root /= scale
            inverse *= scale

    def _weight_roots(self) -> Array | None:
        """Return the square roots (N, 1) of the sample weights divided by their mean, or None if
        the objective has no weights or all are 0.
        """
        weight = self.ob.sample_weight
        if weight is None or not weight.any():
            return None
        return np.asarray(np.sqrt(weight / weight.mean(dtype=float))[:, None], self.model.dtype)

    def _second_moment(self, a: Array, roots: Array | None, bias: bool) -> Array:
        """Return the second moment sum of w a'a over the rows of a (N, k) in float64. If k is above
        `widest`, return only its diagonal, as a vector. If `bias` is True, a 1 is appended to each
        row. `roots` (N, 1) are the square roots of the weights w, which have mean 1, or None for w
        = 1.
        """
        N, k = a.shape
        if roots is not None:
            a = np.where(roots == 0, 0, roots * a)
        if k > self.widest:
            squares = np.einsum("ij,ij->j", a, a, dtype=np.float64)
            return np.append(squares, float(N)) if bias else squares
        held = np.empty((k, k), a.dtype)
        self.multiply(held, a.T, a)
        moment = np.full((k + bias, k + bias), float(N))
        moment[:k, :k] = held
        if bias:
            moment[k, :k] = moment[:k, k] = (a if roots is None else roots * a).sum(axis=0)
        return moment

    def _second_moment_roots(self, moment: Array, added: float) -> tuple[Array, Array]:
        """Return a matrix F with ``F F'`` equal to a moment plus `added` times the identity, and
        the inverse of F. If `moment` is a vector, the diagonal of a diagonal moment, both results
        are vectors. If the factorisation fails, or if `added` is not positive and finite, both are
        vectors of ones.
        """
        root = None
        if moment.ndim == 1:
            root = np.sqrt(moment + added)
        elif 0 < added < np.inf:
            moment[np.diag_indices(len(moment))] += added
            root = cholesky(moment)
        if root is None or not 0 < added < np.inf:
            root = np.ones(len(moment))
        inverse = 1 / root if root.ndim == 1 else dtrtri(root, lower=1)[0]
        dtype = self.model.dtype
        return root.astype(dtype), inverse.astype(dtype)

    # --- maps between coordinates x and theta, of points and of gradients, for (n,) or (k, n)

    def to_theta(self, x: Array) -> Array:
        """Return ``P x``, the parameters, or a step in the parameters, for coordinates x. P is the
        matrix of ``theta = P x``.
        """
        return self._apply_roots(x, 1, False)

    def from_theta(self, d: Array) -> Array:
        """Return ``P^-1 d``, the step in the coordinates x for a step d in theta, where ``theta = P
        x``.
        """
        return self._apply_roots(d, 0, False)

    def to_gradient(self, g: Array) -> Array:
        """Return ``P' g``, the gradient with respect to the coordinates x of ``theta = P x``, for a
        gradient g with respect to theta.
        """
        return self._apply_roots(g, 1, True)

    def from_gradient(self, g: Array) -> Array:
        """Return ``P^-T g``, the gradient with respect to theta, for a gradient g with respect to
        the coordinates x of ``theta = P x``.
        """
        return self._apply_roots(g, 0, True)

    def _apply_roots(self, V: Array, which: int, gradient: bool) -> Array:
        """Return V with each layer's part of each row multiplied from both sides, by the roots of
        the factors if `which` is 0 and by the inverse roots if it is 1. If `gradient` is False, the
        factors are the transposed left root and the right root. If it is True, they are the left
        root and the transposed right root.
        """
        out = np.empty(V.shape, V.dtype)
        starts = self.model.starts
        p = V.size // V.shape[-1]
        for l, ((m, k), roots) in enumerate(zip(self.model.shapes, self.factors)):
            layer = slice(starts[l], starts[l + 1])
            n_inputs = k + self.model.bias
            n_weights = m * k
            left = roots[0][which]
            right = roots[1][which]
            V_layer = V[..., layer].reshape(p, -1)
            out_layer = out[..., layer].reshape(p, -1)
            M = np.empty((p, m, n_inputs), V.dtype)
            M[..., :k] = V_layer[:, :n_weights].reshape(p, m, k)
            M[..., k:] = V_layer[:, n_weights:].reshape(p, m, -1)
            M = self._multiply_by_root(M.reshape(p * m, n_inputs), right.T if gradient else right)
            M = M.reshape(p, m, n_inputs).transpose(1, 0, 2).reshape(m, p * n_inputs)
            M = self._multiply_by_root(M.T, left.T if gradient else left).T
            M = M.reshape(m, p, n_inputs).transpose(1, 0, 2)
            out_layer[:, :n_weights] = M[..., :k].reshape(p, n_weights)
            out_layer[:, n_weights:] = M[..., k:].reshape(p, -1)
            out[..., layer] = out_layer.reshape(out[..., layer].shape)
        return out

    def _multiply_by_root(self, M: Array, side: Array) -> Array:
        """Return ``M side``, where `side` is a matrix, or the diagonal of one as a vector."""
        if side.ndim == 1:
            return M * side
        out = np.empty(M.shape, M.dtype)
        self.multiply(out, M, side)
        return out
