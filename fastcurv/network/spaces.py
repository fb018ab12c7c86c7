"""Operators with the eigenvalues of a curvature in smaller spaces: the GGN and the Fisher as a Gram
matrix K with one row for each pair of a sample and an output, networks with redundant inputs, and
the choice between these and other spaces.

Both matrices are ``A A'`` plus l2, with A (n, q). With ``B = d2L/dz2`` of the last layer and any
factor S of B,

    GGN = J'BJ = (J'S)(J'S)',  B = S S',      Fisher = (1/N) sum g_n g_n',  g_n the n-th gradient

and the nonzero eigenvalues of ``A A'`` (n, n) are those of ``K = A'A`` (q, q). The columns of A
need not be formed: each column belongs to one row of X, and its part in a layer is ``d a'``, where
d (out,) is the result of the backward pass for a column of S. So with D (q, out) and a (N, in) of
each layer,

    K = sum over layers of  (a a' + 1) * (D D')           * elementwise

where the 1 is the contribution of b, and each row of a is repeated for the columns of its sample.
The cost is q/N backward passes and ``q^2 sum(out)`` flops, after which all eigenvalues can be
computed.

*Factors.* For mse and binary cross entropy B is diagonal. For cross entropy the block of a row is

    h (diag p - p p') = h diag(s) (I - s s') diag(s),   s the roots of p, ||s|| = 1

and the columns other than t of Householder's ``I - w w'/(1 + s_t)``, ``w = s + e_t``, are an
orthonormal basis of the orthogonal complement of s, so classes - 1 columns are enough:

    S_ij = s_i (i = j) - s_i^2 s_j / (1 + s_t)        S_tj = - s_t s_j         t the largest logit

and there is no cancellation: rows with nearly certain predictions keep their relative accuracy. The
Fisher needs one column per row, ``sqrt(N) delta``, so q = N.

*Vectors.* If ``K u = lam u``, the corresponding eigenvector in parameter space is ``A u /
sqrt(lam)``, which costs one backward pass. Errors of u are amplified: a residual r becomes at most
``r sqrt(||K|| / lam)``, and two such vectors are orthogonal to about ``eps ||K|| / sqrt(lam mu)``.
So residuals are scaled accordingly, together with the residual of all pairs that one product in
parameter space measures. If small eigenvalues are requested, the vectors are computed together and
orthogonalised, beginning with the largest eigenvalue.

*The complement* has dimension ``n - q``; on it the operator is l2 I.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .. import _engine
from ..common.checks import check_choice
from ..common.linalg import svd
from ..common.progress import cache_by_owner
from ..common.protocols import (
    SPACE_NAMES,
    Array,
    EnclosedMatrix,
    Floats,
    LiftedEigenpairs,
    library_class,
)
from ..common.runtime import load_certify, with_nearest_rounding
from ..common.vectors import safe_norm
from ..spectrum.forms import OperatorForm, smaller_form
from ..structure.parameters import replace_zero_weight_rows
from ..structure.tables import ACTIVATIONS, LOSSES
from .arguments import as_vector, check_dtype
from .gram import (
    BlockReflector,
    CoordinateOperator,
    OutputLossDerivatives,
    ReducedOperator,
    RowState,
    SampleSpaceOperator,
    product_flops,
)
from .mlp import MLP
from .operators import MIN_PRODUCT_SECONDS, SECONDS_PER_FLOP

MAX_GRAM_ROWS = 8192  # maximum number of rows of K, which takes 512 MiB in float64
D_ROWS_PER_PRODUCT = 512  # number of rows of D multiplied at a time
# Eigenvalues of K (q, q) count as 0 below ZERO_EIGENVALUE_EPS max(1, sqrt(q /
# ZERO_EIGENVALUE_MIN_ROWS)) eps ||K||. The keys of ZERO_EIGENVALUE_EPS are sizes of a number in
# bytes.
ZERO_EIGENVALUE_EPS = {4: 16.0, 8: 256.0}
ZERO_EIGENVALUE_MIN_ROWS = 16.0
# If the residual of a vector of K exceeds this fraction of its eigenvalue, the vector is a mixture
# of eigenvectors.
MAX_RELATIVE_RESIDUAL = 0.03
# If an eigenvalue is below this fraction of ||K||, the vectors are computed together and
# orthogonalised.
SMALL_EIGENVALUE_RATIO = 0.01
# constants of the cost model, in flops at the speed of the engine's matrix products
FLOPS_PER_ENTRY_READ = 30.0  # flops in the time that reading an entry of K from memory takes


def n_gram_rows(ob: Any, kind: str) -> int:
    """Return the number of rows q of K: N for the Fisher, otherwise N times the number of outputs,
    or N times that number minus one if the loss has a softmax.
    """
    d = ob.model.sizes[-1]
    return int(ob.n_samples * {"fisher": 1}.get(kind, d - (LOSSES[ob.loss].link == "softmax")))


def no_output_space_reason(H: Any) -> str:
    """Return the reason why the curvature H has no representation in output space, as a phrase, or
    "" if it has one.
    """
    ob, kind = H.objective, H.kind
    if kind == "hessian":
        return "a Hessian. Use 'samples', 'parameters' or a GGN"
    if ob.model.batch_norm:
        return "a model with batch normalisation, whose rows depend on each other. Use 'parameters'"
    if kind == "ggn" and ob.l2 and not ob.l2_biases:
        return "an l2 without biases. Use 'samples' or 'parameters'"
    given = LOSSES[ob.loss].given
    if kind == "ggn" and given is not None and given.coupled:
        return "a loss that couples outputs. Use 'samples' or 'parameters'"
    q, n = n_gram_rows(ob, kind), H.shape[0]
    if not q:
        return "cross entropy of one class, which has no curvature. Use 'parameters'"
    if q >= n:
        return f"{q} pairs of row and class, which must be fewer than n = {n}. Use 'parameters'"
    if q > MAX_GRAM_ROWS:
        return f"{q} pairs of row and class, which must be at most {MAX_GRAM_ROWS}. Use 'samples'"
    return ""


def gram_matrix_flops(model: Any, N: int, q: int) -> float:
    """Return the cost, in flops, of computing K (q, q) for N samples."""
    making = sum(q * (2.0 * m * k * (l > 0) + q * m) for l, (m, k) in enumerate(model.shapes))
    making += 2.0 * N * N * sum(k for _, k in model.shapes)
    return float(making)


def loss_curvature_factor(loss: OutputLossDerivatives, kind: str) -> Floats:
    """Return a factor S of the curvature of the loss in the outputs z, as an array ``(c, N,
    d_out)`` in float64, with c columns per sample. For each sample, ``S S' = d2L/dz2``, or ``S S' =
    N delta delta'`` with delta = dL/dz if `kind` is "fisher".
    """
    N, d = loss.delta.shape
    if kind == "fisher":
        return np.asarray(np.sqrt(float(N)) * loss.delta[None])
    if LOSSES[loss.loss].per_entry:
        roots = np.sqrt(np.broadcast_to(loss.h, (N, d)))
        return np.ascontiguousarray(np.eye(d)[:, None, :] * roots)
    at = np.arange(N)
    root_p = np.sqrt(loss.p)
    root_top = np.sqrt(loss.p_top)  # shape (N, 1)
    others = np.arange(d - 1) + (np.arange(d - 1) >= loss.top[:, None])  # shape (N, d - 1)
    factor = -(loss.p / (1 + root_top))[None] * root_p[at[:, None], others].T[:, :, None]
    for j in range(d - 1):
        factor[j, at, others[:, j]] += root_p[at, others[:, j]]
        factor[j, at, loss.top] = -(root_top[:, 0] * root_p[at, others[:, j]])
    return np.asarray(np.sqrt(loss.h) * factor)


class _GramCache:
    """The matrix K of a curvature, cached for the lifetime of the curvature."""

    def __init__(self, whole: Any) -> None:
        ob = whole.objective
        state = RowState(ob, whole.theta, whole._plan)
        S = loss_curvature_factor(state.loss, whole.kind)
        self.S = S.astype(whole.dtype)
        self.K = _sum_gram_matrix(ob, state, self.S)
        self.norm = safe_norm(self.K.astype(np.float64, copy=False))
        self.roots: dict[float, Any] = {}

    def solve(self, y: Floats, shift: float) -> Floats:
        """Return the solution x of ``(K + shift I) x = y``, or zeros if the shift is 0, because K
        is then 0. The last Cholesky factor is kept.
        """
        if not shift > 0:  # a shift of 0 means that K = 0
            return 0 * y
        roots = self.roots  # a local reference, since another thread may replace the attribute
        if shift not in roots:
            K = self.K.astype(np.float64)
            K[np.diag_indices(len(K))] += shift
            self.roots = roots = {shift: cho_factor(K, overwrite_a=True, check_finite=False)}
        return np.asarray(cho_solve(roots[shift], y, check_finite=False))


def _sum_gram_matrix(ob: Any, state: RowState, S: Array) -> Array:
    """Return the Gram matrix ``K = A'A`` (c N, c N) of a GGN or Fisher ``A A'`` without l2, summed
    over the layers. `state` is the forward state at theta, and S (c, N, d_out) is the factor of the
    loss curvature, with c columns per sample.
    """
    M = _engine.MatrixMultiplier(ob.dtype, ob.n_threads or _engine.default_n_threads())
    c, N, d = S.shape
    K = np.zeros((c, N, c, N), ob.dtype)
    D = np.asfortranarray(S.reshape(c * N, d))
    step, e = max(1, D_ROWS_PER_PRODUCT // N), None
    scratch = np.empty(c * N * min(step, c) * N, ob.dtype)
    for l in range(len(state.W) - 1, -1, -1):
        a = state.a[l]
        G = np.empty((N, N), ob.dtype)
        M(G, a, a.T)
        G += ob.model.bias
        for j in range(0, c, step):
            end = min(j + step, c)
            shape = c - j, N, end - j, N
            panel = scratch[: (c - j) * N * (end - j) * N].reshape(shape)
            M(panel.reshape((c - j) * N, -1), D[j * N :], D[j * N : end * N].T)
            panel *= G[None, :, None]
            K[j:, :, j:end] += panel
        if l:
            D, e = state.backpropagate(M, l, D, e)
    for j in range(0, c, step):
        end = min(j + step, c)
        K[j:end, :, end:] = K[end:, :, j:end].transpose(2, 3, 0, 1)
        own = K[j:end, :, j:end].reshape((end - j) * N, (end - j) * N)
        K[j:end, :, j:end] = (0.5 * (own + own.T)).reshape(end - j, N, end - j, N)
    return K.reshape(c * N, c * N)


_made_of = cache_by_owner(_GramCache)


@library_class
class OutputSpaceOperator(ReducedOperator):
    """A GGN or Fisher ``A A' + c I`` in the space of the outputs, as ``K + c I`` with the Gram
    matrix ``K = A'A`` (q, q), where c is `complement_eigenvalue`. The class is a `Reduction`:
    `embed` maps eigenvectors to those of the whole operator, but is not an isometry for other
    vectors.

    Created by ``G.reduced("outputs")``, and by `eigsh` and similar functions if it saves time. The
    eigenvalues are those of the whole operator except for `n_complement` copies of
    `complement_eigenvalue`.

    Attributes
    ----------
    whole : Curvature
        The operator in parameter space.
    n : int
        The number of rows of `whole`.
    complement_eigenvalue : float
        The eigenvalue of `whole` on the complement: l2, 0 for the Fisher. No eigenvalue of `whole`
        is smaller.
    n_complement : int
        The dimension of the complement, ``n - q``.
    space : str
        ``"outputs"``.
    n_products : int
        Number of products of this operator.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> model = fc.MLP([30, 25, 20, 3])
    >>> ob = fc.Objective(model, rng.standard_normal((4, 30)), rng.integers(3, size=4))
    >>> G = ob.ggn(model.init(seed=0))
    >>> R = G.reduced("outputs")
    >>> R.shape, R.n_complement
    ((8, 8), 1350)
    >>> bool(np.isclose(np.trace(R.matrix), np.trace(G.to_dense())))
    True
    """

    space = "outputs"
    lowest = True  # True because no eigenvalue is below `complement_eigenvalue`

    def __init__(self, whole: Any, dtype: Any = None) -> None:
        why = no_output_space_reason(whole)
        if why:
            raise ValueError(f"space must not be 'outputs' for {why}.")
        self.whole, self.n, self.n_products = whole, whole.shape[0], 0
        self._made = _made_of(whole)
        dtype = whole.dtype if dtype is None else dtype
        self._K = self._made.K.astype(dtype, copy=False)
        self._complement: list[Array] = []
        q = len(self._K)
        self.n_complement = self.n - q
        super().__init__(dtype, (q, q))

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputSpaceOperator, (self.whole, self.dtype), {"n_products": self.n_products}

    def astype(self, dtype: Any) -> Any:
        """Return the operator with the same K in another precision."""
        dtype = check_dtype(dtype)
        return self if dtype == self.dtype else OutputSpaceOperator(self.whole, dtype)

    # --- the matrix

    @property
    def matrix(self) -> Floats:
        """The matrix ``K + complement_eigenvalue I`` (q, q) in float64."""
        matrix = self._K.astype(np.float64)
        matrix[np.diag_indices(len(matrix))] += self.complement_eigenvalue
        return matrix

    @property
    def core_matrix(self) -> Floats:
        """The matrix K (q, q) in float64, without `complement_eigenvalue`, because adding a large
        number would round away the small eigenvalues of K.
        """
        return self._K.astype(np.float64)

    @property
    def norm(self) -> float:
        """The Frobenius norm of K."""
        return self._made.norm

    def matrix_with_bounds(self) -> EnclosedMatrix:
        """Return `matrix` with proved bounds on the errors of its columns, computed by separate
        float64 passes.
        """
        at = self.whole.objective, self.whole.theta, self.whole.kind
        found: EnclosedMatrix = load_certify("dense_hessian").enclosed_gram_matrix(*at)
        found.products[np.diag_indices(len(found.products))] += self.complement_eigenvalue
        # K may be much smaller than the number that is added, so the addition rounds.
        rounded = np.finfo(float).eps * np.abs(np.diagonal(found.products))
        return found._replace(bounds=found.bounds + rounded)

    @with_nearest_rounding
    def _multiply(self, x: Array, out: Array) -> None:
        out[...] = self._row_products(x[None, :])[0]

    @with_nearest_rounding
    def _matmat(self, V: Array) -> Array:
        found = self._row_products(np.ascontiguousarray(V.T, self.dtype))
        self.n_products += len(found)
        return np.asarray(found.T, self.dtype)

    def _row_products(self, X: Array) -> Array:
        return _engine.project_rows(self._K, X) + self.complement_eigenvalue * X.astype(np.float64)

    # --- eigenvectors, mapped between the two spaces

    def _multiply_factor(self, x: Array) -> Array:
        """Return ``A x`` (n,) for x (q,), by one backward pass."""
        S = self._made.S
        c, N, d = S.shape
        seeds = np.einsum("jni,jn->ni", S, x.reshape(c, N).astype(S.dtype, copy=False))
        out = np.empty(self.n, S.dtype)
        self.whole._plan.multiply_jacobian(np.ascontiguousarray(seeds).reshape(-1), out, True)
        return out

    def _multiply_factor_transposed(self, v: Array) -> Array:
        """Return ``A'v`` (q,) for v (n,), by one forward pass."""
        S = self._made.S
        c, N, d = S.shape
        outputs = np.empty(N * d, S.dtype)
        self.whole._plan.multiply_jacobian(as_vector(v, self.n, S.dtype), outputs)
        return np.asarray(np.einsum("jni,ni->jn", S, outputs.reshape(N, d)).reshape(-1))

    def _embed(self, x: Array, out: Array) -> None:
        """Write to `out` the unit eigenvector of the whole operator that belongs to the eigenvector
        x (q,) of K.
        """
        out[...] = _unit_vector(self._multiply_factor(x))

    def _project(self, v: Array, out: Array) -> None:
        """Write ``A'v`` to `out`, which is parallel to an eigenvector of K if v is an eigenvector
        of the whole operator.
        """
        out[...] = self._multiply_factor_transposed(v)

    def find_coordinates(self, V: Array, most: float) -> Array | None:
        """Return the eigenvectors of K for rows V that are eigenvectors of the whole operator, or
        None if one of them has an error of more than `most` or belongs to the eigenvalue of the
        complement.
        """
        found = []
        for v in V:
            v = _unit_vector(v)
            x = self._multiply_factor_transposed(v)
            size = float(np.linalg.norm(x))
            if (
                size**2 <= self._zero_threshold()
                or np.linalg.norm(self._multiply_factor(x) / size**2 - v) > most
            ):
                return None
            found.append(x / size)
        return np.array(found, self.dtype)

    def _zero_threshold(self) -> float:
        """Return the threshold up to which eigenvalues of K count as zero."""
        many, dtype = max(1.0, (self.shape[0] / ZERO_EIGENVALUE_MIN_ROWS) ** 0.5), self.whole.dtype
        return float(ZERO_EIGENVALUE_EPS[dtype.itemsize] * many * np.finfo(dtype).eps * self.norm)

    def lift_eigenpairs(self, X: Array, found: Any, rng: Any) -> LiftedEigenpairs:
        """Return the `LiftedEigenpairs` of the eigenpairs `found` of K, with vectors in the rows of
        X. The result has a mask of the pairs that are eigenpairs of the whole operator, and
        estimates of the residuals in parameter space, as in the module docstring.
        """
        if not len(X):
            return LiftedEigenpairs(
                np.zeros(0, bool), found.residuals, self._zero_threshold(), False
            )
        Y = _engine.project_rows(self._K, np.ascontiguousarray(X, self._K.dtype)).astype(float)
        lam = np.einsum("ki,ki->k", Y, X) / np.einsum("ki,ki->k", X, X, dtype=float)
        # The eigenvalues of K are compared here, since adding a large number would hide small ones.
        kept = lam > self._zero_threshold()
        residuals = np.linalg.norm(Y - lam[:, None] * X, axis=1)
        if not kept.any():
            return LiftedEigenpairs(kept, residuals, 2 * self._zero_threshold(), False)
        mixed = kept & (residuals > MAX_RELATIVE_RESIDUAL * lam)
        lam = np.where(kept, lam, self.norm)
        eps = float(np.finfo(self.whole.dtype).eps)
        # `found.scale` is an estimate of ||K|| that may be slightly too small.
        norm = min(self.norm, 1.1 * found.scale)
        together = bool(lam.min() < SMALL_EIGENVALUE_RATIO * norm)
        signs = rng.choice([-1.0, 1.0], size=len(X)) * kept / np.sqrt(norm)
        gap = self.whole.product(self._multiply_factor(signs @ X)).astype(np.float64)
        gap -= self._multiply_factor((signs * (lam + self.complement_eigenvalue)) @ X)
        # gap is the sum of the residuals with random signs, each divided by its amplification.
        seen = float(np.linalg.norm(gap))
        grown = (1 + together) * np.sqrt(norm / lam) * (residuals + 4 * eps * norm + seen)
        grown = np.where(mixed, self.norm, grown)  # ||K|| bounds the residual of any vector
        grown += np.abs(found.values - self.complement_eigenvalue - lam) + 16 * eps * abs(
            self.complement_eigenvalue
        )
        return LiftedEigenpairs(kept, grown, 2 * self._zero_threshold(), together)

    def complement_rows(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop - 1`` of a set of orthonormal vectors that the operator
        multiplies by `complement_eigenvalue`.
        """
        held, more = self._complement, stop - len(self._complement)
        if more > 0:
            nothing = self._zero_threshold()
            seeds = np.arange(len(held), stop)
            new = [_unit_vector(np.random.default_rng(i).standard_normal(self.n)) for i in seeds]
            new = self._complement_vectors(new, N_PROJECTIONS, nothing / 16)
            held += self._complement_vectors(new, N_EXTRA_PROJECTIONS, np.sqrt(nothing * self.norm))
        return np.array(self._complement[start:stop], self.whole.dtype)

    def _complement_vectors(self, new: list[Array], turns: int, shift: float) -> list[Array]:
        """Return the vectors `new` made orthogonal to the range of A, to the complement found so
        far and to each other, as unit vectors, by `turns` projections each. Each projection solves
        with ``K + shift``.
        """
        out: list[Array] = []
        for v in new:
            for _ in range(turns):
                before = self._multiply_factor_transposed(v).astype(np.float64)
                v = v - self._multiply_factor(self._made.solve(before, shift))
                for other in [*self._complement, *out]:
                    v -= (other @ v) * other
                v = _unit_vector(v)
            out.append(v)
        return out


# Number of projections onto the complement of the range of A. Each reduces the component along the
# smallest singular vector to 1/17.
N_PROJECTIONS = 8
# Number of additional projections with a larger shift, because the rounding errors of the first
# projections are large if K is nearly singular.
N_EXTRA_PROJECTIONS = 2


def _unit_vector(v: Array) -> Array:
    top = float(np.abs(v).max(initial=0.0))
    # Scaling by the largest entry keeps the squares in range.
    if not np.sqrt(np.finfo(v.dtype).tiny) * 1e6 < top < 1e15:
        v = v / v.dtype.type(top) if 0 < top < np.inf else v
    size = float(np.linalg.norm(v))
    return v / v.dtype.type(size) if size > 0 else v


# --------------------------------------------------------------------------------------------------
# The first layer rotated to the row space of X: the same operator, for a network with fewer inputs.
#
# The loss does not depend on the action of W1 on vectors orthogonal to all rows of X. There are
# such vectors if X has constant columns in addition to a bias, columns that are linear combinations
# of others, or more columns than rows. With A = X, or ``[X, 1]`` if b may be rotated together with
# W, and the Householder factorisation ``A = [L, 0] Q'``, the singular vectors Z of L (N, r),
# beginning with those of singular values above rounding, give
#
#     A Q1 Z = [F, s 1, 0]        F (N, r') features, s 1 a constant column: the bias, times s
#
# and the loss is that of a network with r' inputs on F, at ``theta' = (W1, b1) Q1 Z`` with the
# other layers unchanged. That map is an isometry, so the Hessian of the smaller network, with its
# first b scaled by s, is the original Hessian in orthonormal coordinates, and the engine multiplies
# by it as by any other.
#
# The omitted part of A has a norm below ``max(N, in) eps ||X||``, the size of rounding errors of X
# itself.
#
# *At a kink* rounding determines the slope. For example, a row of zeros with biases of 0 gives z =
# 0, but perhaps 1e-17 in other coordinates. Products therefore use the state of the original rows,
# and only the first layer's part of a vector is rotated, in three cases (`has_same_state`): if some
# z of relu, leaky_relu or elu is that small, if some z are so large that their rounding errors
# change the derivatives of the activation, and for the Fisher, which near an exact fit consists of
# squared rounding errors.

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
        self.joint, self.out, self.width = int(joint), out, A.shape[1]
        first = BlockReflector(A)
        left, sizes, Z = svd(first.L)
        eps = np.finfo(np.float64).eps
        rank = int((sizes > max(first.L.shape) * eps * sizes[0]).sum()) if len(sizes) else 0
        Z = Z[:rank]
        # The first row of Z is turned to lie along y, where ones = L Z' y.
        if joint:
            y = left[:, :rank].sum(axis=0) / sizes[:rank]
            Z = BlockReflector(y[None]).multiply_right(Z.T).T
        B = np.zeros((max(rank, 1), self.width))
        B[:rank, : first.r] = Z
        # The first columns of Q are the rows of this matrix, up to sign.
        self.Q = BlockReflector(first.multiply_right_transposed(B))
        kept = max(rank, self.joint + 1)
        # The column of Q that belongs to the bias comes last.
        self.columns = [*range(self.joint, kept), *range(self.joint)]
        turned = self.Q.multiply_right(A)[:, self.columns]
        inputs = kept - self.joint
        self.features, self.dropped = np.ascontiguousarray(turned[:, :inputs]), self.width - kept
        self.bias, self.s, self.off = slice(out * inputs, out * kept), 1.0, 0.0
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
    ob, m = whole.objective, whole.objective.model
    X, y = replace_zero_weight_rows(ob)
    turn = InputRotation(X, m.bias and (ob.l2_biases or not ob.l2), m.sizes[1])
    if not turn.off <= MAX_BIAS_ROTATION_ERROR:
        turn = InputRotation(X, False, m.sizes[1])
    sizes = turn.features.shape[1], *m.sizes[1:]
    small = MLP(sizes, m.activation, m.bias, m.residual, m.dtype, m.batch_norm)
    if small.skips != m.skips or (m.skips and m.skips[0]):
        return turn, "a net whose first layer has a skip, or would have one"
    features, l2 = turn.features.astype(m.dtype), 0.0 if turn.joint else ob.l2
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
    m, names = ob.model, ob.model.activation[: len(ob.model.shapes) - 1]
    rows = [ACTIVATIONS[name] for name in names]
    kinked = [row.kink > 0 for row in rows] + [False]
    bent = [row.bend > 0 or row.kink > 0 for row in rows] + [LOSSES[ob.loss].link != "identity"]
    layers, eps = m.unflatten(theta), float(np.finfo(m.dtype).eps)
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
class InputSpaceOperator(CoordinateOperator):
    """A `Curvature` with its first layer rotated to the row space of X: a `Reduction`.

    Created by ``H.reduced("inputs")``. Products are those of a network with fewer inputs.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.random.default_rng(0).standard_normal((50, 4))
    >>> X = np.hstack([X, X[:, :2], np.ones((50, 3))])  # 9 columns, 5 of them redundant
    >>> ob = fc.Objective(fc.MLP([9, 5, 1]), X, X[:, 0], loss="mse")
    >>> R = ob.hessian(ob.model.init(seed=0)).reduced("inputs")
    >>> R.shape, R.n_complement
    ((31, 31), 25)
    """

    space = "inputs"
    turn: InputRotation
    small: Any

    def __init__(self, whole: Any) -> None:
        why = no_input_space_reason(whole)
        if why:
            raise ValueError(f"space must not be 'inputs' for {why}. Use 'parameters'.")
        self.whole, self.n, self.n_products = whole, whole.shape[0], 0
        self.turn, self.small = _rotated_operator(whole)
        m = self.small.shape[0]
        self.n_complement = self.n - m
        super().__init__(whole.dtype, (m, m))

    @with_nearest_rounding
    def _multiply(self, x: Array, out: Array) -> None:
        s, wide = self.dtype.type(self.turn.s), x.copy()
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
    m, (out, k) = ob.model, ob.model.shapes[0]
    if m.n_params < ROTATION_MIN_PARAMS or (m.skips and m.skips[0]):
        return False
    still = ob.X[0] if m.bias else np.zeros_like(ob.X[0])
    varying = int(np.not_equal(ob.X, still).any(axis=0).sum())
    saved = out * (k - min(varying, len(ob.X)))
    return bool(saved >= ROTATION_MIN_FRACTION_SAVED * m.n_params)


# --------------------------------------------------------------------------------------------------
# The choice of the smaller operator for a curvature: in the space of the samples, of the outputs,
# of the inputs, or none.

SPACE_CONSTRUCTORS: dict[str, Callable[[Any], Any]] = {
    "samples": SampleSpaceOperator,
    "outputs": OutputSpaceOperator,
    "inputs": InputSpaceOperator,
    "parameters": lambda H: None,
}


def reduced_operator(H: Any, space: str | None) -> CoordinateOperator | OutputSpaceOperator | None:
    """Return the smaller operator for the curvature H in the given space, or by default in the
    fastest one, for `Curvature.reduced`. Return None if products with H itself are to be used.
    """
    ob = H.objective
    if ob._by_blocks:
        if space not in (None, "parameters"):
            raise ValueError(f"space must be 'parameters' for rows in shards, got {space!r}.")
        return None
    if space is not None:
        found: CoordinateOperator | OutputSpaceOperator | None = SPACE_CONSTRUCTORS[
            check_choice(space, SPACE_NAMES, "space")
        ](H)
        return found
    form = smaller_form(H, None)
    return None if form is None else form.make()


def candidate_operators(H: Any, products: float) -> list[OperatorForm]:
    """Return the smaller operators that may replace a curvature in a run of `products` products,
    for `Curvature.candidate_operators`.
    """
    ob, found = H.objective, []
    if ob._by_blocks or ob.why_unproved:
        return []  # the existing error bounds hold in parameter space only
    # In the space of inputs products take the same time, and vectors are shorter.
    if is_input_rotation_useful(ob):
        each = H.estimated_seconds[0]
        price = products * each
        found.append(OperatorForm("inputs", price, each, lambda: input_space_operator(H)))
    if ob.model.batch_norm:
        return found
    each = (
        MIN_PRODUCT_SECONDS
        + SECONDS_PER_FLOP * product_flops(ob.model.shapes, ob.n_samples, H.kind)[0]
    )
    found.append(OperatorForm("samples", products * each, each, lambda: SampleSpaceOperator(H)))
    if not no_output_space_reason(H):
        q = n_gram_rows(ob, H.kind)
        each = MIN_PRODUCT_SECONDS + SECONDS_PER_FLOP * FLOPS_PER_ENTRY_READ * q**2
        price = SECONDS_PER_FLOP * gram_matrix_flops(ob.model, ob.n_samples, q) + products * each
        found.append(OperatorForm("outputs", price, each, lambda: OutputSpaceOperator(H)))
    return found


def gram_operator(H: Any) -> OutputSpaceOperator | None:
    """Return the Gram matrix of the curvature H, for `Curvature.gram_operator`. Return None if
    rounding errors have no known bounds, for rows in blocks, and if `no_output_space_reason` gives
    a reason, such as a Hessian.
    """
    possible = not (H.objective.why_unproved or H.objective._by_blocks)
    return OutputSpaceOperator(H) if possible and not no_output_space_reason(H) else None
