"""The GGN and the Fisher as the Gram matrix of what the outputs see: one number for each pair of
(row, class), whatever the number of parameters.

Both are ``A A'`` beside l2, A (n, q): with ``B = d2L/dz2`` of the last layer and any factor S,

    GGN = J'BJ = (J'S)(J'S)',  B = S S',      Fisher = (1/N) sum g_n g_n',  g_n the n-th gradient

and the nonzero eigenvalues of ``A A'`` (n, n) are those of ``K = A'A`` (q, q). A's columns are not
needed as such: a column comes from one row, and its part in a layer is ``d a'``, d (out,) what the
backward pass makes of a column of S. So with D (q, out) and a (N, in) of each layer,

    K = sum over layers of  (a a' + 1) * (D D')           * elementwise, a's rows as often as needed

the 1 for b. Cost: q/N backward passes and ``q^2 sum(out)`` flops, by which all eigenvalues are had.

*Factors.* For mse and binary cross entropy B is diagonal. For cross entropy a row's is

    h (diag p - p p') = h diag(s) (I - s s') diag(s),   s the roots of p, ||s|| = 1

and the columns other than t of Householder's ``I - w w'/(1 + s_t)``, ``w = s + e_t``, are an
orthonormal basis of what is orthogonal to s, so classes - 1 columns are enough:

    S_ij = s_i (i = j) - s_i^2 s_j / (1 + s_t)        S_tj = - s_t s_j         t the largest logit

and nothing cancels: nearly certain rows keep their relative accuracy. The Fisher takes a column a
row, ``sqrt(N) delta``: q = N.

*Vectors.* Where ``K u = lam u``, the eigenvector of the whole is ``A u / sqrt(lam)``, one backward
pass. What u is off by grows on the way: a residual r becomes at most ``r sqrt(||K|| / lam)``, two
such vectors are orthogonal to about ``eps ||K|| / sqrt(lam mu)``. So residuals are scaled by that,
with what one product of the whole shows of all of them together; and where small eigenvalues are
among the wanted ones the vectors are made together and orthogonalised, the largest first.

*What is left out* has ``n - q`` dimensions; there the operator is l2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .. import _engine
from ..certify.arithmetic import norm
from ..certify.dense_hessian import gram_enclosure
from ..memo import kept_with
from ..protocols import Array, Carried, Enclosed, Floats
from ..runtime import to_nearest
from .arguments import as_vector, check_dtype
from .coordinates import Reduced
from .row_passes import LossCurve, RowState

MOST = 8192  # rows of K: 512 MiB in float64
BLOCK = 512  # rows of D multiplied at a time
NOTHING = {4: 16.0, 8: 256.0}  # eigenvalues of K below so many eps ||K|| are zeros, by itemsize ...
MANY = 16.0  # ... times the root of q over this
MIXED = 0.03  # of an eigenvalue of K: a vector with a larger residual there is none of its own
APART = 0.01  # of ||K||: vectors of smaller eigenvalues are orthogonalised
# The cost model, in flops at the speed of the engine's matrix products:
ENTRY = 30.0  # a number of K read from memory


def n_outputs(ob: Any, kind: str) -> int:
    """Rows of K."""
    d = ob.model.sizes[-1]
    return int(ob.n_samples * {"fisher": 1}.get(kind, d - (ob.loss == "cross_entropy")))


def refusal(H: Any) -> str:
    """Why there is no such form, or nothing."""
    ob, kind = H.objective, H.kind
    if kind == "hessian":
        return "a Hessian; wanted 'samples' or 'parameters', or a GGN"
    if ob.model.batch_norm:
        return "a model with batch normalisation, which ties rows together; wanted 'parameters'"
    if kind == "ggn" and ob.l2 and not ob.l2_biases:
        return "an l2 that spares biases; wanted 'samples' or 'parameters'"
    q, n = n_outputs(ob, kind), H.shape[0]
    if q >= n:
        return f"{q} pairs of row and class and n = {n}; wanted fewer than n, or 'parameters'"
    if q > MOST:
        return f"{q} pairs of row and class; wanted at most {MOST}, or 'samples'"
    return ""


def cost(model: Any, N: int, q: int, products: float) -> float:
    """Of making K and multiplying it so often, in flops."""
    making = sum(q * (2.0 * m * k * (l > 0) + q * m) for l, (m, k) in enumerate(model.shapes))
    making += 2.0 * N * N * sum(k for _, k in model.shapes)
    return float(making + products * ENTRY * q * q)


def factor(loss: LossCurve, kind: str) -> Floats:
    """S as ``(columns of a row, N, d_out)``, in float64."""
    N, d = loss.delta.shape
    if kind == "fisher":
        return np.asarray(np.sqrt(float(N)) * loss.delta[None])
    if loss.loss != "cross_entropy":
        roots = np.sqrt(np.broadcast_to(loss.h, (N, d)))
        return np.ascontiguousarray(np.eye(d)[:, None, :] * roots)
    at = np.arange(N)
    s = np.sqrt(loss.p)
    s_top = np.sqrt(loss.p_top)  # (N, 1)
    others = np.arange(d - 1) + (np.arange(d - 1) >= loss.top[:, None])  # (N, d - 1)
    S = -(loss.p / (1 + s_top))[None] * s[at[:, None], others].T[:, :, None]
    for j in range(d - 1):
        S[j, at, others[:, j]] += s[at, others[:, j]]
        S[j, at, loss.top] = -(s_top[:, 0] * s[at, others[:, j]])
    return np.asarray(np.sqrt(loss.h) * S)


class _Made:
    """K of a curvature, kept as long as that lives."""

    def __init__(self, whole: Any) -> None:
        ob = whole.objective
        state = RowState(ob, whole.theta, whole._plan)
        S = factor(state.loss, whole.kind)
        self.S = S.astype(whole.dtype)
        self.K = _gram(ob, state, self.S)
        self.norm = norm(self.K.astype(np.float64, copy=False))
        self.roots: dict[float, Any] = {}

    def solve(self, y: Floats, shift: float) -> Floats:
        """``(K + shift) x = y``."""
        if not shift > 0:  # K is 0
            return 0 * y
        if shift not in self.roots:
            K = self.K.astype(np.float64)
            K[np.diag_indices(len(K))] += shift
            self.roots = {shift: cho_factor(K, overwrite_a=True, check_finite=False)}
        return np.asarray(cho_solve(self.roots[shift], y, check_finite=False))


def _gram(ob: Any, state: RowState, S: Array) -> Array:
    """K by layers, from the last to the first."""
    M = _engine.Multiplier(ob.dtype, ob.n_threads or _engine.default_threads())
    c, N, d = S.shape
    K = np.zeros((c, N, c, N), ob.dtype)
    D = np.asfortranarray(S.reshape(c * N, d))
    step, e = max(1, BLOCK // N), None
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
            below = np.empty((state.W[l].shape[1], len(D)), D.dtype).T
            M(below, D, state.W[l])
            if l < len(state.W) - 1 and state.skips[l]:
                below += e
            e, p = below, state.p[l - 1]
            D = e if p is None else np.asfortranarray(e * np.tile(p, (c, 1)))
    for j in range(0, c, step):
        end = min(j + step, c)
        K[j:end, :, end:] = K[end:, :, j:end].transpose(2, 3, 0, 1)
        own = K[j:end, :, j:end].reshape((end - j) * N, (end - j) * N)
        K[j:end, :, j:end] = (0.5 * (own + own.T)).reshape(end - j, N, end - j, N)
    return K.reshape(c * N, c * N)


_made = kept_with(_Made)


class OutputSpace(Reduced):
    """A GGN or Fisher as ``K + rest``, the Gram matrix of what the outputs see: a `Reduction` of
    another kind, whose eigenvectors are taken to those of the whole, and other vectors are not.

    Made by ``G.reduced("outputs")``; `eigsh` and its kin make it for themselves where it is worth
    while. Its eigenvalues are those of the whole but for `n_rest` copies of `rest`.

    Attributes
    ----------
    whole : Curvature
        The operator in parameter space.
    n : int
        Length of its vectors.
    rest : float
        Its eigenvalue on the complement: l2, 0 for the Fisher. No other is smaller.
    n_rest : int
        The complement's dimension, ``n - q``.
    space : str
        ``"outputs"``.
    n_products : int
        Of this operator.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> model = fc.MLP([30, 25, 20, 3])
    >>> ob = fc.Objective(model, rng.standard_normal((4, 30)), rng.integers(3, size=4))
    >>> G = ob.ggn(model.init(seed=0))
    >>> R = G.reduced("outputs")
    >>> R.shape, R.n_rest
    ((8, 8), 1350)
    >>> bool(np.isclose(np.trace(R.matrix), np.trace(G.to_dense())))
    True
    """

    space = "outputs"
    lowest = True  # no eigenvalue is below `rest`

    def __init__(self, whole: Any) -> None:
        why = refusal(whole)
        if why:
            raise ValueError(f"space is 'outputs' for {why}")
        self.whole, self.n, self.n_products = whole, whole.shape[0], 0
        self._made = _made(whole)
        self._K = self._made.K
        self._complement: list[Array] = []
        q = len(self._K)
        self.n_rest = self.n - q
        super().__init__(whole.dtype, (q, q))

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputSpace, (self.whole,)

    def astype(self, dtype: Any) -> Any:
        """The same matrix in another precision."""
        dtype = check_dtype(dtype)
        if dtype == self.dtype:
            return self
        other = object.__new__(OutputSpace)
        other.__dict__.update(self.__dict__)
        other._K, other.dtype, other.n_products = self._K.astype(dtype), dtype, 0
        return other

    # --- the matrix

    @property
    def matrix(self) -> Floats:
        """``K + rest`` in float64."""
        matrix = self._K.astype(np.float64)
        matrix[np.diag_indices(len(matrix))] += self.rest
        return matrix

    @property
    def bare(self) -> Floats:
        """K in float64: a large `rest` would swallow its small eigenvalues."""
        return self._K.astype(np.float64)

    @property
    def norm(self) -> float:
        """Of K, Frobenius's."""
        return self._made.norm

    def enclosed(self) -> Enclosed:
        """``K + rest`` by float64 passes of their own, with bounds on its columns, proved."""
        found = gram_enclosure(self.whole.objective, self.whole.theta, self.whole.kind)
        found.products[np.diag_indices(len(found.products))] += self.rest
        rounded = np.finfo(float).eps * np.abs(np.diagonal(found.products))  # K may be far below
        return found._replace(bounds=found.bounds + rounded)

    @to_nearest
    def _multiply(self, x: Array, out: Array) -> None:
        out[...] = self._rows(x[None, :])[0]

    @to_nearest
    def _matmat(self, V: Array) -> Array:
        found = self._rows(np.ascontiguousarray(V.T, self.dtype))
        self.n_products += len(found)
        return np.asarray(found.T, self.dtype)

    def _rows(self, X: Array) -> Array:
        return _engine.project_rows(self._K, X) + self.rest * X.astype(np.float64)

    # --- eigenvectors, there and back

    def _up(self, x: Array) -> Array:
        """``A x`` (n,)."""
        S = self._made.S
        c, N, d = S.shape
        seeds = np.einsum("jni,jn->ni", S, x.reshape(c, N).astype(S.dtype, copy=False))
        out = np.empty(self.n, S.dtype)
        self.whole._plan.jacobian(np.ascontiguousarray(seeds).reshape(-1), out, True)
        return out

    def _down(self, v: Array) -> Array:
        """``A'v`` (q,)."""
        S = self._made.S
        c, N, d = S.shape
        outputs = np.empty(N * d, S.dtype)
        self.whole._plan.jacobian(as_vector(v, self.n, S.dtype), outputs)
        return np.asarray(np.einsum("jni,ni->jn", S, outputs.reshape(N, d)).reshape(-1))

    def embed(self, x: Any) -> Array:
        """The whole's eigenvector ``(n,)`` of length 1 for one of K ``(q,)``; rows for rows."""
        x = np.asarray(x)
        found = np.array([_unit(self._up(row)) for row in x.reshape(-1, self.shape[0])])
        return found[0] if x.ndim == 1 else found

    def project(self, v: Any) -> Array:
        """``A'v``: along K's eigenvector for one of the whole; rows for rows."""
        v = np.asarray(v)
        found = np.array([self._down(row) for row in v.reshape(-1, self.n)], self.dtype)
        return found[0] if v.ndim == 1 else found

    def inside(self, V: Array, most: float) -> Array | None:
        """K's eigenvectors as rows for rows V that are the whole's; None where one of them is off
        by more than `most`, or has the eigenvalue `rest`.
        """
        found = []
        for v in V:
            v = _unit(v)
            x = self._down(v)
            size = float(np.linalg.norm(x))
            if size**2 <= self._nothing() or np.linalg.norm(self._up(x) / size**2 - v) > most:
                return None
            found.append(x / size)
        return np.array(found, self.dtype)

    def _nothing(self) -> float:
        """Eigenvalues of K up to this are zeros."""
        many, dtype = max(1.0, (self.shape[0] / MANY) ** 0.5), self.whole.dtype
        return float(NOTHING[dtype.itemsize] * many * np.finfo(dtype).eps * self.norm)

    def carried(self, X: Array, found: Any, rng: Any) -> Carried:
        """What K's pairs are worth as pairs of the whole; see the head of this module."""
        if not len(X):
            return Carried(np.zeros(0, bool), found.residuals, self._nothing(), False)
        Y = _engine.project_rows(self._K, np.ascontiguousarray(X, self._K.dtype)).astype(float)
        lam = np.einsum("ki,ki->k", Y, X) / np.einsum("ki,ki->k", X, X, dtype=float)
        kept = lam > self._nothing()  # K's own, which beside a large `rest` a search cannot see
        residuals = np.linalg.norm(Y - lam[:, None] * X, axis=1)
        if not kept.any():
            return Carried(kept, residuals, 2 * self._nothing(), False)
        mixed = kept & (residuals > MIXED * lam)
        lam = np.where(kept, lam, self.norm)
        eps = float(np.finfo(self.whole.dtype).eps)
        norm = min(self.norm, 1.1 * found.scale)  # >= ||K||, of which a search sees nearly all
        together = bool(lam.min() < APART * norm)
        signs = rng.choice([-1.0, 1.0], size=len(X)) * kept / np.sqrt(norm)
        gap = self.whole.product(self._up(signs @ X)).astype(np.float64)
        gap -= self._up((signs * (lam + self.rest)) @ X)
        seen = float(np.linalg.norm(gap))  # the residuals, each over what it may have grown by
        grown = (1 + together) * np.sqrt(norm / lam) * (residuals + 4 * eps * norm + seen)
        grown = np.where(mixed, self.norm, grown)  # as that of any vector in reach
        grown += np.abs(found.values - self.rest - lam) + 16 * eps * abs(self.rest)
        return Carried(kept, grown, 2 * self._nothing(), together)

    def outside(self, start: int, stop: int) -> Array:
        """Rows ``start .. stop - 1`` of orthonormal vectors that the operator takes to `rest` times
        themselves.
        """
        held, more = self._complement, stop - len(self._complement)
        if more > 0:
            nothing = self._nothing()
            seeds = np.arange(len(held), stop)
            new = [_unit(np.random.default_rng(i).standard_normal(self.n)) for i in seeds]
            new = self._turned(new, TURNS, nothing / 16)
            held += self._turned(new, LAST_TURNS, np.sqrt(nothing * self.norm))
        return np.array(self._complement[start:stop], self.whole.dtype)

    def _turned(self, new: list[Array], turns: int, shift: float) -> list[Array]:
        """Unit vectors out of the range of A: so often projected, and off those there were."""
        out: list[Array] = []
        for v in new:
            for _ in range(turns):
                before = self._down(v).astype(np.float64)
                v = v - self._up(self._made.solve(before, shift))
                for other in [*self._complement, *out]:
                    v -= (other @ v) * other
                v = _unit(v)
            out.append(v)
        return out


TURNS = 8  # projections out of A's range; each leaves 1/17 of what lies along the least kept vector
LAST_TURNS = 2  # with a larger shift: where K is nearly singular the others' rounding is large


def _unit(v: Array) -> Array:
    top = float(np.abs(v).max(initial=0.0))
    if not np.sqrt(np.finfo(v.dtype).tiny) * 1e6 < top < 1e15:  # squares would leave the range
        v = v / v.dtype.type(top) if 0 < top < np.inf else v
    size = float(np.linalg.norm(v))
    return v / v.dtype.type(size) if size > 0 else v
