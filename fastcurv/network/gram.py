"""The Gram matrix of a GGN or Fisher: a matrix K with the same nonzero eigenvalues, and one row for
each pair of a sample and an output.

Both curvatures are ``A A'`` plus l2, with A (n, q). With ``B = d2L/dz2`` of the last layer and any
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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import _engine
from ..common.protocols import Array, Floats, OperatorLike
from ..structure.tables import loss_spec
from .operators import Curvature
from .output_loss import loss_curvature_factor
from .row_passes import RowState

if TYPE_CHECKING:
    from ..network.objective import Objective


MAX_GRAM_ROWS = 8192  # maximum number of rows of K, which takes 512 MiB in float64
# number of rows of D multiplied at a time; 512 and 1024 take up to 1.25 and 1.6 times the CPU at
# 200 to 750 rows of K
D_ROWS_PER_PRODUCT = 256


@dataclass(frozen=True, eq=False)
class GramMatrix:
    """The eigenvalues of a curvature ``A A' + c I`` (n, n) as those of ``K + c I`` and n - q copies
    of c.

    Attributes
    ----------
    K : ndarray, shape (q, q)
        ``A'A`` in float64, without c, because adding a large number would round away small
        eigenvalues.
    shift : float
        c: l2, or 0 for the Fisher.
    whole : Curvature
        The curvature.
    S : ndarray, shape (columns, N, d_out)
        The factor of the second derivatives of the loss.
    """

    K: Floats
    shift: float
    whole: Curvature
    S: Array

    @property
    def n_outside(self) -> int:
        """The number of eigenvalues of the curvature that K does not have, all equal to c."""
        return int(self.whole.shape[0] - len(self.K))

    def all_eigenvalues(self, values: Floats) -> Floats:
        """Return the n eigenvalues of the curvature, ascending, from those of K."""
        outside = np.full(self.n_outside, self.shift)
        return np.sort(np.append(values + self.shift, outside))

    def multiply_factor(self, X: Array) -> Array:
        """Return ``A x`` for the columns x of X (q, k), by a backward pass each, as columns (n,
        k).
        """
        c, N, _ = self.S.shape
        out = np.empty((X.shape[1], self.whole.shape[0]), self.S.dtype)
        for x, row in zip(X.T, out):
            seeds = np.einsum("jni,jn->ni", self.S, x.reshape(c, N).astype(self.S.dtype))
            self.whole._plan.multiply_jacobian(np.ascontiguousarray(seeds).reshape(-1), row, True)
        return out.T


def gram_matrix(H: OperatorLike, max_rows: int = MAX_GRAM_ROWS) -> GramMatrix | None:
    """Return the Gram matrix of a GGN or Fisher if it has at most `max_rows` rows, and fewer than
    the curvature has.

    Parameters
    ----------
    H : Curvature
        The curvature at one theta. The cost is q/N backward passes and ``q^2 sum(out)`` flops for
        the q rows of the Gram matrix.
    max_rows : int
        Maximum number of rows.

    Returns
    -------
    GramMatrix or None
        None also for an operator of another class, a Hessian, rows in blocks, batch normalisation,
        a loss that couples outputs, and an l2 that leaves out biases.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> model = fc.MLP([30, 25, 20, 3])
    >>> ob = fc.Objective(model, rng.standard_normal((4, 30)), rng.integers(3, size=4))
    >>> G = ob.ggn(model.init(rng=0))
    >>> gram = gram_matrix(G)
    >>> G.shape, gram.K.shape
    ((1358, 1358), (8, 8))
    >>> bool(np.isclose(np.trace(gram.K), np.trace(G.to_dense())))
    True
    """
    if type(H) is not Curvature or H.kind == "hessian":
        return None
    ob = H.objective
    loss = loss_spec(ob.loss)
    is_fisher = H.kind == "fisher"
    if ob._by_blocks or ob.model.batch_norm:
        return None
    if not is_fisher and ((ob.l2 and not ob.l2_biases) or (loss.given and loss.given.coupled)):
        return None
    columns = 1 if is_fisher else ob.model.sizes[-1] - (loss.link == "softmax")
    if not 0 < ob.n_samples * columns < min(H.shape[0], max_rows + 1):
        return None
    state = RowState(ob, H.theta, H._plan)
    S = loss_curvature_factor(state.loss, H.kind).astype(H.dtype)
    K = _sum_gram_matrix(ob, state, S).astype(np.float64)
    return GramMatrix(K, 0.0 if is_fisher else float(ob.l2), H, S)


def _sum_gram_matrix(ob: Objective, state: RowState, S: Array) -> Array:
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
