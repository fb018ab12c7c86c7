"""The Lanczos recurrence, single vectors and blocks, with a basis kept orthonormal to rounding.

State: the basis ``Q``, rows ``0 .. m-1``, whose products have been made; the next block, rows ``m
.. m+p-1``, whose products have not; and ``T``, the operator in that basis. Then

    A Q' = Q' T + (next block)' B + F',        B = T[m:m+p, :m],        ||F_i|| <= err[i]

and everything else (Ritz values, residuals, restarts, quadratures) is algebra on T, B and err.

Orthogonality. A step of the single-vector recurrence subtracts only the neighbours; what it leaves
along the older vectors starts at rounding level and grows by a known factor at most per step (Simon
1984). Steps are gathered into batches for as long as that bound stays under `contamination`; then
the whole batch is orthogonalised against all older vectors in two sweeps. The neglected effect on T
is of second order, the square of what was found, and is added to err. Blocks are orthogonalised
fully, twice, at every step.
"""

import numpy as np

from ..checks import operator_dtype
from .basis import norm, orthogonalise, orthonormalise, project, rotate, subtract

LONGEST_BATCH = 8
BLOCK_BYTES = 64 << 20
# products and sweeps are taken to be wrong by this many eps ||A||, where nothing larger shows
ROUNDING = 4.0


class Recurrence:
    """A Lanczos basis that grows by products and shrinks by restarts.

    Parameters
    ----------
    op : LinearOperator, shape (n, n)
        Real symmetric. ``op.product(v, out)`` is used where it exists.
    max_basis : int
        Rows kept at most; memory is ``(max_basis + 1) n`` numbers, and another p n for blocks of p.
    against : ndarray, shape (s, n), optional
        Orthonormal rows; the operator is then ``(I - P) A (I - P)``, P the projection on them.
    contamination : float, optional
        How far orthogonality may be lost within a batch before it is restored; default
        ``sqrt(eps)``.
    """

    def __init__(self, op, max_basis, *, against=None, contamination=None):
        self.op, self.n, self.dtype = op, op.shape[0], operator_dtype(op)
        self.eps = float(np.finfo(self.dtype).eps)
        self.against = np.zeros((0, self.n), self.dtype) if against is None else against
        self.dimension = self.n - len(self.against)
        self.capacity = min(max_basis, self.dimension)
        self.rows = np.empty((self.capacity + 1, self.n), self.dtype)
        self.T = np.zeros((self.capacity + 1, self.capacity + 1))
        self.err = np.zeros(self.capacity + 1)
        self.contamination = self.eps**0.5 if contamination is None else contamination
        self.reset()
        self.n_products = 0
        self.leak = np.zeros((len(self.against), self.capacity + 1))
        self.scale = self.noise = self.ghosts = 0.0
        self._lost = [0.0, 0.0]
        self._product = getattr(op, "product", None)

    def reserve(self, max_basis):
        """Room for up to `max_basis` rows; what is there stays."""
        capacity = min(max_basis, self.dimension)
        more = capacity - self.capacity
        if more > 0:
            self.rows.resize((capacity + 1, self.n), refcheck=False)
            self.T = np.pad(self.T, ((0, more), (0, more)))
            self.err = np.pad(self.err, (0, more))
            self.leak = np.pad(self.leak, ((0, 0), (0, more)))
            self.capacity = capacity

    # -- starting
    # ---------------------------------------------------------------------------------------------------

    def reset(self):
        """Forget the basis; keep the count, the scale and the noise."""
        self.m = self.p = self.clean = self.reach = self.locked = 0
        self.tridiagonal = True
        self.T[...] = 0
        self.err[...] = 0

    def insert(self, W):
        """Make the rows `W (p, n)`, overwritten, the next block; returns how many independent ones
        there were.

        What coupled the basis to the block that was next is dropped, and goes into err.
        """
        self.drop_block()
        orthonormalise(W)
        Q = self.rows[: self.m]
        for taken in (self.against, Q):
            orthogonalise(taken, W)
        B, _ = orthonormalise(W, floor=100 * self.eps, against=Q)
        if len(self.against):
            orthogonalise(self.against, W[: len(B)], passes=1)
        p = min(len(B), self.capacity + 1 - self.m, self.dimension - self.m)
        self.rows[self.m : self.m + p] = W[:p]
        self.p, self.clean, self.reach = p, self.m + p, self.m
        self.tridiagonal = self.tridiagonal and p <= 1
        self._lost = [self.eps, self.eps]
        return p

    def insert_random(self, rng, p=1):
        """Make p random vectors the next block."""
        p = max(1, min(p, self.dimension - self.m, self.capacity + 1 - self.m))
        for _ in range(5):
            if self.insert(rng.standard_normal((p, self.n), dtype=self.dtype)):
                return self.p
        return 0

    def drop_block(self):
        """Forget the next block; its coupling to the basis becomes part of err."""
        self.reorthogonalise()
        m, p = self.m, self.p
        if p:
            lost = np.linalg.norm(self.coupling(), axis=0)
            self.err[:m] += lost
            self._lock(lost)
            self.T[m:, :] = 0
            self.T[:, m:] = 0
        self.p = 0

    def _lock(self, lost):
        """Where more than rounding was dropped, later vectors still couple to the basis so far:
        keep measuring it.
        """
        if lost.max(initial=0.0) > 10 * self.noise:
            self.locked = self.m

    # -- growing
    # ----------------------------------------------------------------------------------------------------

    @property
    def full(self):
        """Whether the next step has no room."""
        return self.capacity < self.dimension and self.m + 2 * self.p > self.capacity + 1

    def step(self):
        """Multiply the next block: p products, after which the basis has p more rows and a new next
        block.
        """
        if self.p == 1:
            self._step_single()
        else:
            self._step_block()

    def apply(self, i, out):
        """``out = A q_i``, counted; what it has along `against` goes from out to leak."""
        v = self.rows[i]
        if self._product is not None:
            self._product(v, out)
        else:
            out[...] = self.op.matvec(v) if hasattr(self.op, "matvec") else self.op @ v
        self.n_products += 1
        if len(self.against):
            self.leak[:, i] = orthogonalise(self.against, out[None], passes=1)[0]

    def _apply_block(self, m, p):
        """Products with rows ``m .. m+p-1``, together where that takes little memory."""
        W = np.empty((p, self.n), self.dtype)
        if W.nbytes > BLOCK_BYTES or len(self.against):
            for i, w in enumerate(W):
                self.apply(m + i, w)
            return W
        V = self.rows[m : m + p].T
        W[...] = np.asarray(
            self.op @ (V if self._product is not None else np.ascontiguousarray(V))
        ).T
        self.n_products += p
        return W

    def _step_single(self):
        j, low = self.m, self.reach
        w = self.rows[j + 1]
        self.apply(j, w)
        if low > 0 and self.locked:
            locked = orthogonalise(self.rows[: min(self.locked, low)], w[None], passes=1)[0]
            self.T[: len(locked), j] = self.T[j, : len(locked)] = locked
        local = self.rows[low : j + 1]
        c = project(local, w[None])[0]
        beta = float(subtract(local, w[None], c[None])[0]) ** 0.5
        size = float(np.linalg.norm(c))
        if not np.isfinite(size + beta):
            raise ValueError(
                "the operator returned values that are not finite; wanted finite numbers for a "
                "finite vector"
            )
        gap = self._couple(low, j, c[:-1])
        if beta <= 0.1 * size or len(local) > 2:
            again = project(local, w[None])[0]
            subtract(local, w[None], again[None])
            beta = norm(w)
            c[-1] += again[-1]
        self.scale = max(self.scale, float(np.hypot(size, beta)))
        self.noise = max(self.noise, float(np.linalg.norm(gap)), ROUNDING * self.eps * self.scale)
        self.T[j, j] = c[-1]
        self.err[j] = self.noise
        self._close_single(j, w, beta)

    def _couple(self, low, j, c):
        """What the products say of the coupling of row j, less what T says: rounding, or a want of
        symmetry.
        """
        if low == 0 and self.locked:
            self.T[:j, j] = self.T[j, :j] = c
        return c - self.T[low:j, j]

    def _close_single(self, j, w, beta):
        """Make `w` the next row, or end the recurrence where nothing but rounding is left of it."""
        if beta <= 30 * self.noise and self.clean:
            self.reorthogonalise()
            orthogonalise(self.rows[: j + 1], w[None])
            beta = norm(w)
        self.m, self.p, self.reach = j + 1, 0, j
        if beta <= 3 * self.noise or j + 1 >= self.dimension:
            self.err[j] += beta if j + 1 < self.dimension else 0.0
            self.clean = min(self.clean, self.m)
            self.reorthogonalise()
            return
        w /= self.dtype.type(beta)
        self.T[j, j + 1] = self.T[j + 1, j] = beta
        self.p = 1
        self._expect(j, beta)
        if self._lost[1] > self.contamination or j + 2 - self.clean >= LONGEST_BATCH or j < 2:
            self.reorthogonalise()

    def _expect(self, j, beta):
        """Bound the loss of orthogonality of row j+1, and restore it now if the next step could
        pass the limit.
        """
        before, now = self._lost
        reach = self.scale + abs(self.T[j, j])
        back = self.T[j - 1, j] if j else 0.0
        following = (reach * now + back * before + self.noise) / beta
        self._lost = [now, following]
        if following * reach / beta > self.contamination:
            self._lost[1] = np.inf

    def reorthogonalise(self):
        """Restore the orthogonality of the rows after `clean`, the next block included."""
        end = self.m + self.p
        if self.clean < end:
            Q, P = self.rows[: self.clean], self.rows[self.clean : end]
            for _ in range(3):
                # what the three-term recurrence leaves along deflated vectors grows from step to
                # step as any other loss
                orthogonalise(self.against, P, passes=1)
                C = project(Q, P)
                subtract(Q, P, C)
                found = self._orthonormalise_batch(P, C)
                if found <= 0.05:
                    break
            self.clean = end
        self._lost = [self.eps, self.eps]

    def _orthonormalise_batch(self, P, C):
        """Triangular correction within a batch; returns the largest impurity that was found."""
        gram = project(P, P)
        gram = (gram + gram.T) / 2
        L = np.linalg.cholesky(gram + 0.0)
        rotate_rows = np.linalg.inv(L)
        if np.abs(rotate_rows - np.eye(len(L))).max() > 8 * self.eps:
            rotate(P, rotate_rows.T)
        inside = np.abs(gram - np.diag(np.diag(gram))).max()
        lost = np.hypot(np.linalg.norm(C, axis=1), inside)
        self.ghosts = max(self.ghosts, float(np.abs(C).max(initial=0.0)), float(inside))
        first = self.clean
        if first and self.T[first, first - 1] and len(lost):
            # the first row came from clean ones: what it has along them the products put there,
            # against symmetry
            wrong = float(np.linalg.norm(C[0])) * abs(self.T[first, first - 1])
            self.noise = max(self.noise, wrong)
            self.err[first - 1 : first + len(P)] = np.maximum(
                self.err[first - 1 : first + len(P)], wrong
            )
        if self.p:
            end = self.m
            self.T[end, :end] *= L[-1, -1]
            self.T[:end, end] *= L[-1, -1]
        self.err[first : first + len(P)] += lost**2 * self.scale
        self.err[max(first - 1, 0) : first - 1 + len(P)] += (
            lost**2 * self.scale if first else lost[1:] ** 2 * self.scale
        )
        return float(lost.max(initial=0.0))

    def _step_block(self):
        m, p = self.m, self.p
        k = m + p
        W = self._apply_block(m, p)
        sizes = [norm(w) for w in W]
        if not np.isfinite(sizes).all():
            raise ValueError(
                "the operator returned values that are not finite; wanted finite numbers for a "
                "finite vector"
            )
        self.scale = max(self.scale, *sizes)
        C = orthogonalise(self.rows[:k], W)
        gap = np.linalg.norm((C[:, :m] - self.T[m:k, :m])[:, self.locked :], axis=1).max(
            initial=0.0
        )
        self.noise = max(self.noise, float(gap), ROUNDING * self.eps * self.scale)
        self.T[m:k, m:k] = (C[:, m:] + C[:, m:].T) / 2
        if self.locked:
            self.T[m:k, : self.locked] = C[:, : self.locked]
            self.T[: self.locked, m:k] = C[:, : self.locked].T
        B, dropped = orthonormalise(W, floor=3 * self.noise, against=self.rows[:k])
        r = min(len(B), self.dimension - k)
        self.err[m:k] = self.noise + dropped
        self.rows[k : k + r] = W[:r]
        self.T[k : k + r, m:k] = B[:r]
        self.T[m:k, k : k + r] = B[:r].T
        self.m, self.p, self.clean, self.reach = k, r, k + r, m
        self.tridiagonal = False
        self._lost = [self.eps, self.eps]

    # -- shrinking
    # --------------------------------------------------------------------------------------------------

    def coupling(self):
        """``B (p, m)``, what the products of the basis have along the next block."""
        return self.T[self.m : self.m + self.p, : self.m]

    def restart(self, theta, S, *, keep_block=True):
        """Replace the basis by the Ritz vectors ``S (m, l)`` with values `theta`, and keep the next
        block.
        """
        if not keep_block:
            self.drop_block()
        self.reorthogonalise()
        m, p, l = self.m, self.p, S.shape[1]
        B = self.coupling() @ S
        rotate(self.rows[:m], S)
        self.rows[l : l + p] = self.rows[m : m + p]
        self.err[:l] = np.abs(S).T @ self.err[:m] + self.eps * self.scale
        self.leak[:, :l] = self.leak[:, :m] @ S
        self.T[...] = 0
        self.T[range(l), range(l)] = theta
        self.T[l : l + p, :l] = B
        self.T[:l, l : l + p] = B.T
        self.m, self.clean, self.reach, self.tridiagonal = l, l + p, 0, False
        self.locked = l if self.locked else 0
        self._lost = [self.eps, self.eps]

    def narrow_block(self, M):
        """Keep of the next block only the directions that the columns of ``M (p, u)`` span, at most
        u of them.
        """
        m, p = self.m, self.p
        U, size, _ = np.linalg.svd(M, full_matrices=False)
        U = U[:, size > 1e-3 * size[0]] if size[0] > 0 else U[:, :0]
        if U.shape[1] >= p:
            return
        B = self.coupling().copy()
        kept = U.T @ B
        lost = np.linalg.norm(B - U @ kept, axis=0)
        self.err[:m] += lost
        self._lock(lost)
        rotate(self.rows[m : m + p], U)
        self.T[m:, :] = 0
        self.T[:, m:] = 0
        self.p = r = U.shape[1]
        self.T[m : m + r, :m] = kept
        self.T[:m, m : m + r] = kept.T
        self.clean = m + r
