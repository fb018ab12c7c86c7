"""The space of the outputs: the GGN and the Fisher as a Gram matrix K with one row for each pair of
a sample and an output.

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

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .. import _engine
from ..common.caches import cache_by_owner
from ..common.protocols import Array, EnclosedMatrix, Floats, LiftedEigenpairs, library_class
from ..common.runtime import with_nearest_rounding
from ..common.vectors import safe_norm
from ..structure.tables import loss_spec
from .arguments import as_vector, check_dtype
from .output_loss import loss_curvature_factor
from .reductions import CurvatureReduction
from .row_passes import RowState

MAX_GRAM_ROWS = 8192  # maximum number of rows of K, which takes 512 MiB in float64
# number of rows of D multiplied at a time; 512 and 1024 take up to 1.25 and 1.6 times the CPU at
# 200 to 750 rows of K
D_ROWS_PER_PRODUCT = 256
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


def n_gram_rows(ob: Any, kind: str) -> int:
    """Return the number of rows q of K: N for the Fisher, otherwise N times the number of outputs,
    or N times that number minus one if the loss has a softmax.
    """
    d = ob.model.sizes[-1]
    return int(ob.n_samples * {"fisher": 1}.get(kind, d - (loss_spec(ob.loss).link == "softmax")))


def no_output_space_reason(H: Any) -> str:
    """Return the reason why the curvature H has no representation in output space, as a phrase, or
    "" if it has one.
    """
    ob = H.objective
    kind = H.kind
    if kind == "hessian":
        return "a Hessian. Use 'samples', 'parameters' or a GGN"
    if ob.model.batch_norm:
        return "a model with batch normalisation, whose rows depend on each other. Use 'parameters'"
    if kind == "ggn" and ob.l2 and not ob.l2_biases:
        return "an l2 without biases. Use 'samples' or 'parameters'"
    loss_function = loss_spec(ob.loss).given
    if kind == "ggn" and loss_function is not None and loss_function.coupled:
        return "a loss that couples outputs. Use 'samples' or 'parameters'"
    q = n_gram_rows(ob, kind)
    n = H.shape[0]
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


class _GramCache:
    """The matrix K of a curvature, cached for the lifetime of the curvature."""

    def __init__(self, whole: Any) -> None:
        ob = whole.objective
        state = RowState(ob, whole.theta, whole._plan)
        self.S = loss_curvature_factor(state.loss, whole.kind).astype(whole.dtype)
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
    step = max(1, D_ROWS_PER_PRODUCT // N)
    e = None
    scratch = np.empty(c * N * min(step, c) * N, ob.dtype)
    for l in range(len(state.W) - 1, -1, -1):
        a = state.a[l]
        G = np.empty((N, N), ob.dtype)
        M(G, a, a.T)
        G += ob.model.bias
        for j in range(0, c, step):
            end = min(j + step, c)
            panel = scratch[: (c - j) * N * (end - j) * N].reshape((c - j, N, end - j, N))
            M(panel.reshape((c - j) * N, -1), D[j * N :], D[j * N : end * N].T)
            panel *= G[None, :, None]
            K[j:, :, j:end] += panel
        if l:
            D, e = state.backpropagate(M, l, D, e)
    for j in range(0, c, step):
        end = min(j + step, c)
        K[j:end, :, end:] = K[end:, :, j:end].transpose(2, 3, 0, 1)
        diagonal_block = K[j:end, :, j:end].reshape((end - j) * N, (end - j) * N)
        K[j:end, :, j:end] = (0.5 * (diagonal_block + diagonal_block.T)).reshape(
            end - j, N, end - j, N
        )
    return K.reshape(c * N, c * N)


_made_of = cache_by_owner(_GramCache)


@library_class
class OutputSpaceOperator(CurvatureReduction):
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
    >>> G = ob.ggn(model.init(rng=0))
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
        self.whole = whole
        self.n = whole.shape[0]
        self.n_products = 0
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
        # Proofs are built on operators, and operators of any origin have this method.
        from ..certify.dense_hessian import enclosed_gram_matrix

        enclosed: EnclosedMatrix = enclosed_gram_matrix(
            self.whole.objective, self.whole.theta, self.whole.kind
        )
        enclosed.products[np.diag_indices(len(enclosed.products))] += self.complement_eigenvalue
        # K may be much smaller than the number that is added, so the addition rounds.
        rounded = np.finfo(float).eps * np.abs(np.diagonal(enclosed.products))
        return enclosed._replace(bounds=enclosed.bounds + rounded)

    @with_nearest_rounding
    def _multiply(self, x: Array, out: Array) -> None:
        out[...] = self._row_products(x[None, :])[0]

    @with_nearest_rounding
    def _matmat(self, V: Array) -> Array:
        products = self._row_products(np.ascontiguousarray(V.T, self.dtype))
        self.n_products += len(products)
        return np.asarray(products.T, self.dtype)

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
        coordinates = []
        for v in V:
            v = _unit_vector(v)
            x = self._multiply_factor_transposed(v)
            size = float(np.linalg.norm(x))
            if (
                size**2 <= self._zero_threshold()
                or np.linalg.norm(self._multiply_factor(x) / size**2 - v) > most
            ):
                return None
            coordinates.append(x / size)
        return np.array(coordinates, self.dtype)

    def _zero_threshold(self) -> float:
        """Return the threshold up to which eigenvalues of K count as zero."""
        many = max(1.0, (self.shape[0] / ZERO_EIGENVALUE_MIN_ROWS) ** 0.5)
        dtype = self.whole.dtype
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
        is_nonzero = lam > self._zero_threshold()
        residuals = np.linalg.norm(Y - lam[:, None] * X, axis=1)
        if not is_nonzero.any():
            return LiftedEigenpairs(is_nonzero, residuals, 2 * self._zero_threshold(), False)
        mixed = is_nonzero & (residuals > MAX_RELATIVE_RESIDUAL * lam)
        lam = np.where(is_nonzero, lam, self.norm)
        eps = float(np.finfo(self.whole.dtype).eps)
        # `found.scale` is an estimate of ||K|| that may be slightly too small.
        norm = min(self.norm, 1.1 * found.scale)
        together = bool(lam.min() < SMALL_EIGENVALUE_RATIO * norm)
        signs = rng.choice([-1.0, 1.0], size=len(X)) * is_nonzero / np.sqrt(norm)
        gap = self.whole.product(self._multiply_factor(signs @ X)).astype(np.float64)
        gap -= self._multiply_factor((signs * (lam + self.complement_eigenvalue)) @ X)
        # gap is the sum of the residuals with random signs, each divided by its amplification.
        seen = float(np.linalg.norm(gap))
        grown = (1 + together) * np.sqrt(norm / lam) * (residuals + 4 * eps * norm + seen)
        grown = np.where(mixed, self.norm, grown)  # ||K|| bounds the residual of any vector
        grown += np.abs(found.values - self.complement_eigenvalue - lam) + 16 * eps * abs(
            self.complement_eigenvalue
        )
        return LiftedEigenpairs(is_nonzero, grown, 2 * self._zero_threshold(), together)

    def complement_rows(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop - 1`` of a set of orthonormal vectors that the operator
        multiplies by `complement_eigenvalue`.
        """
        complement = self._complement
        if stop > len(complement):
            nothing = self._zero_threshold()
            seeds = np.arange(len(complement), stop)
            new = [_unit_vector(np.random.default_rng(i).standard_normal(self.n)) for i in seeds]
            new = self._complement_vectors(new, N_PROJECTIONS, nothing / 16)
            complement += self._complement_vectors(
                new, N_EXTRA_PROJECTIONS, np.sqrt(nothing * self.norm)
            )
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
