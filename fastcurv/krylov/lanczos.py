"""The Lanczos recurrence, single vectors and blocks, with a basis kept orthonormal to rounding.

State: the basis ``Q``, rows ``0 .. m-1``, whose products have been made; the next block, rows ``m
.. m+p-1``, whose products have not; and ``T``, the operator in that basis. Then

    A Q' = Q' T + (next block)' B + F',        B = T[m:m+p, :m],        ||F_i|| <= err[i]

and everything else (Ritz values, residuals, restarts, quadratures) is algebra on T, B and err.

Orthogonality. A step of the single-vector recurrence subtracts only the neighbours; what it leaves
along the older vectors starts at rounding level and grows from step to step in a way that T
foretells (Simon 1984). Steps are gathered into batches for as long as that estimate stays under
`contamination`; then the whole batch is orthogonalised against all older vectors in two sweeps. The
neglected effect on T is of second order, the square of what was found, and is added to err. Blocks
are orthogonalised fully, twice, at every step.
"""

import math

import numpy as np

from ..checks import times
from ..protocols import Array, Floats
from ..singular import svd
from ..vectors import norm
from .basis import column_lengths, length, orthogonalise, orthonormalise, project, rotate, subtract
from .state import ROUNDING, State

LONGEST_BATCH = 16
BLOCK_BYTES = 64 << 20
SMALL = 1e-2  # of the largest product
# products whose numbers lie within 2 to the power of +- this are worked on as they are: their
# squares, and those of what is n times as large, are in range
WINDOW = {"float64": 300, "float32": 30}
NOT_FINITE = (
    "the operator returned values that are not finite; wanted finite numbers for a finite vector"
)


class Recurrence(State):
    """A Lanczos basis that grows by products and shrinks by restarts.

    Parameters
    ----------
    op : LinearOperator, shape (n, n)
        Real symmetric. ``op.product(v, out)`` is used where it exists.
    max_basis : int
        Rows kept at most; memory is ``(max_basis + 1) n`` numbers, and another p n for blocks of p.
    against : ndarray, shape (s, n), optional
        Orthonormal rows; the operator is then ``(I - P) A (I - P)``, P the projection on them.
    rows : ndarray, shape (at least max_basis + 1, n), optional
        Memory for the basis; `reserve` is then not for this run.
    contamination : float, optional
        How far orthogonality may be lost within a batch before it is restored; default
        ``sqrt(eps)``.
    """

    @property
    def full(self) -> bool:
        """Whether the next step has no room; the first block may fill the basis."""
        return (
            self.m > 0
            and self.capacity < self.dimension
            and self.m + 2 * self.p > self.capacity + 1
        )

    def step(self) -> None:
        """Multiply the next block: p products, after which the basis has p more rows and a new next
        block.
        """
        if self.p == 1:
            self._step_single()
        else:
            self._step_block()

    def apply(self, i: int, out: Array) -> None:
        """``out = A q_i / unit``, counted; what it has along `against` goes from out to leak."""
        v = self.rows[i]
        with self.around:
            self._product(v, out)
        self.n_products += 1
        self._bring_into_range(out)
        if len(self.against):
            along = self.unit * orthogonalise(self.against, out[None], passes=1)[0]
            self.leak[:, i] = along
            self.noise = max(self.noise, self.eps * length(along))  # of it, left in out

    def _bring_into_range(self, W: Array) -> None:
        """Divide products by the unit, which the first that is not zero decides."""
        if self.scale == 0:
            self._choose_unit(W)
        if self.exponent:
            W *= self.dtype.type(2.0**-self.exponent)

    def _choose_unit(self, W: Array) -> None:
        largest = float(np.abs(W).max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError(NOT_FINITE)
        window = WINDOW[self.dtype.name]
        exponent = int(np.frexp(largest)[1]) if largest else 0
        most = 4 * window - 2 if window < 100 else 1000  # 2^-exponent is a number, too
        self.exponent = 0 if abs(exponent) <= window else max(-most, min(exponent, most))

    def _apply_block(self, m: int, p: int) -> Array:
        """Products with rows ``m .. m+p-1``, together where that takes little memory."""
        W = np.empty((p, self.n), self.dtype)
        if W.nbytes > BLOCK_BYTES or len(self.against):
            units = []
            for i, w in enumerate(W):
                self.apply(m + i, w)
                units.append(self.exponent)
            for w, exponent in zip(W, units):
                if exponent != self.exponent:
                    w *= self.dtype.type(2.0 ** (exponent - self.exponent))
            return W
        V = self.rows[m : m + p].T
        with self.around:
            W[...] = times(self.op, V if hasattr(self.op, "product") else np.ascontiguousarray(V)).T
        self.n_products += p
        self._bring_into_range(W)
        return W

    def _step_single(self) -> None:
        j, low = self.m, self.reach
        w = self.rows[j + 1]
        self.apply(j, w)
        c, beta = self._take_out(j, low, w)
        if not math.isfinite(beta):  # too large for the unit, or not a number
            self.scale, scale = 0.0, self.scale
            self.exponent = 0
            try:
                self.apply(j, w)
            finally:
                self.scale = scale
            c, beta = self._take_out(j, low, w)
        local, size = self.rows[low : j + 1], length(c)
        if not math.isfinite(self.unit * (size + beta)):
            raise ValueError(NOT_FINITE)
        if beta <= 0.1 * size or len(local) > 2:
            again = project(local, w[None])[0]
            subtract(local, w[None], again[None])
            beta = norm(w)
            c[-1] += again[-1]
        gap = self._couple(low, j, self.unit * c[:-1])
        self.scale = max(self.scale, self.unit * math.hypot(size, beta))
        self.noise = max(self.noise, length(gap), ROUNDING * self.eps * self.scale)
        self.T[j, j] = self.unit * c[-1]
        self.err[j] = self.noise
        self._close_single(j, low, w, self.unit * beta)

    def _take_out(self, j: int, low: int, w: Array) -> tuple[Floats, float]:
        """Take the rows from `low` on out of `w`, and those that are locked; returns the
        coefficients and what is left, in units.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if low > 0 and self.locked:
                locked = orthogonalise(self.rows[: min(self.locked, low)], w[None], passes=1)[0]
                self.T[: len(locked), j] = self.T[j, : len(locked)] = self.unit * locked
            local = self.rows[low : j + 1]
            c = project(local, w[None])[0]
            return c, float(subtract(local, w[None], c[None])[0]) ** 0.5

    def _couple(self, low: int, j: int, c: Floats) -> Floats:
        """What the products say of the coupling of row j, less what T says: rounding, or a want of
        symmetry.
        """
        if low == 0 and self.locked:
            self.T[:j, j] = self.T[j, :j] = c
        return c - self.T[low:j, j]

    def _close_single(self, j: int, low: int, w: Array, beta: float) -> None:
        """Make `w` the next row, or end the recurrence where nothing but rounding is left of it."""
        if beta <= 30 * self.noise and self.clean:
            self.reorthogonalise(j + 1)
            orthogonalise(self.rows[: j + 1], w[None])
            beta = self.unit * norm(w)
        self.m, self.p, self.reach = j + 1, 0, j
        if beta <= 3 * self.noise or j + 1 >= self.dimension:
            self.err[j] += beta if j + 1 < self.dimension else 0.0
            self.clean = min(self.clean, self.m)
            self.reorthogonalise()
            return
        w /= self.dtype.type(beta / self.unit)
        if len(self.against) and beta <= SMALL * self.scale:  # what rounding left along them grew
            orthogonalise(self.against, w[None], passes=1)
        self.T[j, j + 1] = self.T[j + 1, j] = beta
        self.p = 1
        self._expect(j, low, beta)
        if self._lost > self.contamination or j + 2 - self.clean >= LONGEST_BATCH or j < 2:
            self.reorthogonalise()

    def _expect(self, j: int, low: int, beta: float) -> None:
        """Estimate the loss of orthogonality of row j+1, and restore it now if the next step could
        pass the limit.

        What rows j-1 and j have along those before them goes through the recurrence as the vectors
        do (Simon 1984), with what rounding adds at each step. It decides when to look, no more:
        what has been lost is then measured.
        """
        end = j + 1
        T = self.T[:end, :end]
        before, now = self._along or self._along_clean(j)
        back = T[j - 1, j] if j else 0.0
        spread = self.noise / (beta * end**0.5)
        ahead = np.zeros_like(now)
        following = ahead[:end]
        following[...] = (T @ now[:end] - T[j, j] * now[:end] - back * before[:end]) / beta
        following += np.copysign(spread, following)
        following[low:] = spread
        lost, most = length(following), (self.scale + abs(T[j, j])) / beta
        growth = min(lost / self._lost, most) if self._lost else most
        self._lost = np.inf if lost * growth > self.contamination else lost
        ahead[end] = 1.0
        self._along = now, ahead

    def _along_clean(self, j: int) -> tuple[Floats, Floats]:
        """What rows j-1 and j have along rows up to j where all are orthonormal to rounding; zeros
        for the rows to come.
        """
        before, now = np.zeros((2, len(self.T) + 1))
        before[: j + 1] = now[: j + 1] = self.eps / (j + 1) ** 0.5
        now[j] = before[j - 1] = 1.0
        return before, now

    def _step_block(self) -> None:
        m, p = self.m, self.p
        k = m + p
        W = self._apply_block(m, p)
        sizes = [self.unit * norm(w) for w in W]
        if not np.isfinite(sizes).all():
            raise ValueError(NOT_FINITE)
        self.scale = max(self.scale, *sizes)
        C = self.unit * orthogonalise(self.rows[:k], W)
        inner = C[:, m:]
        seen = [length(row) for row in (C[:, :m] - self.T[m:k, :m])[:, self.locked :]]
        seen += [length(row) for row in inner - inner.T]  # a want of symmetry, or rounding
        self.noise = max([self.noise, ROUNDING * self.eps * self.scale, *seen])
        self.T[m:k, m:k] = (inner + inner.T) / 2
        if self.locked:
            self.T[m:k, : self.locked] = C[:, : self.locked]
            self.T[: self.locked, m:k] = C[:, : self.locked].T
        floor = 3 * self.noise / self.unit
        B, dropped = orthonormalise(W, floor=floor, against=self.rows[:k])
        if len(self.against):
            orthogonalise(self.against, W[: len(B)], passes=1)
        self.err[m:k] = self.noise + self.unit * dropped
        r = min(len(B), self.dimension - k, self.capacity + 1 - k)
        B = self.unit * (self._most_of(B, W, r) if r < len(B) else B)
        self.rows[k : k + r] = W[:r]
        self.T[k : k + r, m:k] = B
        self.T[m:k, k : k + r] = B.T
        self.m, self.p, self.clean, self.reach = k, r, k + r, m
        self.tridiagonal = False
        self._forget_loss()

    def _most_of(self, B: Floats, W: Array, r: int) -> Floats:
        """Turn the block `W` so that its first r rows carry most of ``B' W``; the rest becomes part
        of err.
        """
        k = self.m + self.p
        U = svd(B)[0][:, :r]
        kept = U.T @ B
        lost = self.unit * column_lengths(B - U @ kept)
        rotate(W[: len(B)], U)
        self.err[self.m : k] += lost
        if self.capacity < self.dimension and lost.max(initial=0.0) > 10 * self.noise:
            self.locked = k
        return kept
