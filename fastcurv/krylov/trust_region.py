"""A Krylov space that grows one product at a time, and the subproblems of Newton-type steps in it.

Every Newton-type step of this library is a step ``s = Q y`` in the space spanned by the gradient g
and its products with H; the methods differ only in the small problem that determines y. Since the
basis is kept, a problem with another radius, damping or weight is solved again without any product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.linalg import svd
from ..common.protocols import Array, Floats
from ..common.vectors import norm
from .lanczos import Basis, bring_near_one, length, project, subtract
from .ritz import decompose

# --------------------------------------------------------------------------------------------------
# Subproblems of Newton-type steps, in the eigenvectors of a projected Hessian: trust regions, cubic
# regularisation, shifts and absolute values.
#
# Each takes the eigenvalues of T and the gradient in its eigenvectors, and returns y in that basis.

LONGEST = 1e150  # length of a step whose square does not overflow


def _secular(base: np.ndarray, linear: np.ndarray, mu: float, high: float, wanted: Any) -> float:
    """Return the root of ``1/||y(mu)|| - 1/wanted(mu)`` in (0, high], with y(mu) = -linear/(base +
    mu), base >= 0.

    The function increases with mu; Newton's iteration is safeguarded by a bracket.
    """
    low, shrink = 0.0, 0.5
    high = float(np.nextafter(high, np.inf))
    for _ in range(200):
        if not low < mu < high:  # a root may lie orders of magnitude below the bracket's end
            mu = float(np.sqrt(low) * np.sqrt(high)) if low > 0 else max(high * shrink, 5e-324)
            shrink = shrink**2 if low == 0 else shrink
        y = linear / (base + mu)
        size = length(y)
        target, slope = wanted(mu)
        if not (size > 0 and target > 0):  # one of them has underflowed
            low, high = (low, mu) if size <= target else (mu, high)
            continue
        gap = 1.0 / size - 1.0 / target
        if gap < 0:
            low = mu
        else:
            high = mu
        if abs(gap) * target <= 1e-14 or high - low <= 1e-15 * high:
            break
        u = y / size  # squares and cubes of lengths far from 1 may overflow or underflow
        rise = float(np.sum(u * u / (base + mu))) / size + slope / target / target
        mu -= gap / rise if rise > 0 else 0.0
    return mu


def _edge(values: np.ndarray, linear: np.ndarray) -> tuple[float, np.ndarray, float, Any]:
    """Return the least admissible multiplier, the eigenvalues shifted by it, the largest length of
    a step there, and that step.

    If g has a component along the lowest eigenvector the length is unbounded, and the step is None;
    if it has none (the hard case), the multiplier stays at this value for every longer step.
    """
    edge = max(0.0, -float(values[0]))
    base = values + edge
    if values[0] < 0:
        base[0] = 0.0
    bare = base <= 0.0
    if np.any(np.abs(linear[bare]) > 1e-30 * length(linear)):
        return edge, base, np.inf, None
    y = np.where(bare, 0.0, -linear / np.where(bare, 1.0, base))
    return edge, base, length(y), y


def _leg(hypotenuse: float, other: Any) -> float:
    """Return ``sqrt(hypotenuse^2 - other^2)`` without squares that overflow."""
    return float(np.sqrt(hypotenuse - other) * np.sqrt(hypotenuse + other))


def shifted(values: np.ndarray, linear: np.ndarray, shift: float) -> np.ndarray:
    """Return ``-(T + shift)^+ linear``, 0 in directions whose shifted curvature is within rounding
    of 0.
    """
    denominators = values + shift
    floor = len(values) * np.finfo(float).eps * np.max(np.abs(denominators), initial=0.0)
    safe = np.abs(denominators) > floor
    return np.where(safe, -linear / np.where(safe, denominators, 1.0), 0.0)


def damped_inverse(values: np.ndarray, damping: float, floor: float) -> np.ndarray:
    """Return ``values / (values^2 + damping^2)``, 0 for values of size `floor` and less."""
    sure = np.abs(values) > floor
    safe = np.where(sure, values, 1.0)
    # without squares, which may overflow or underflow
    return np.asarray(sure / (safe + damping * (damping / safe)))


def absolute(values: np.ndarray, linear: np.ndarray, damping: float) -> np.ndarray:
    """Return ``-(|T| + damping)^-1 linear``: step lengths as in Newton's method, but downhill along
    every eigenvector.
    """
    return shifted(np.abs(values), linear, damping)


def trust_region(values: np.ndarray, linear: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Minimise ``linear'y + y' diag(values) y / 2`` over ``||y|| <= radius``, the hard case
    included.

    Returns y and the multiplier lam >= 0: ``(values + lam) y = -linear`` with ``values + lam >=
    0``. In the hard case a multiple of the lowest eigenvector is added that reaches the boundary.
    """
    edge, base, longest, y = _edge(values, linear)
    if longest <= radius:
        if edge > 0:
            y[0] = _leg(radius, longest)
        return y, edge
    size = length(linear)
    high = size / radius if size < 1e300 * radius else np.inf
    if high == np.inf:  # so short that curvature does not matter
        return -linear * (radius / size), high
    mu = _secular(base, linear, 0.5 * high, high, lambda _: (radius, 0.0))
    return -linear / (base + mu), edge + mu


def cubic(values: np.ndarray, linear: np.ndarray, weight: float) -> tuple[np.ndarray, float]:
    """Minimise ``linear'y + y' diag(values) y / 2 + weight ||y||^3 / 3``.

    Returns y and the multiplier ``lam = weight ||y||``; the hard case is treated as in
    `trust_region`.
    """
    edge, base, longest, y = _edge(values, linear)
    if longest <= edge / weight:
        if edge > 0:
            y[0] = _leg(edge / weight, longest)
        return y, edge
    high = float(np.sqrt(weight * length(linear)))
    mu = _secular(base, linear, 0.5 * high, high, lambda mu: ((edge + mu) / weight, 1.0 / weight))
    return -linear / (base + mu), edge + mu


class KrylovSpace(Basis):
    """Orthonormal rows Q, with the exact projection ``T = Q H Q'`` of those that have been
    multiplied.

    Rows ``[0, m)`` have been multiplied by H; the ``p`` rows after them are pending: they span the
    parts of the products so far that lie outside the first m rows of Q, so

        H Q' y = Q[:m]' T y + Q[m:m+p]' (E y)         E = T[m:m+p, :m]

    and ``||E y||`` is the exact residual of any solution in the space. With one start vector this
    is Lanczos with full reorthogonalisation; with more, the space is expanded by the residual of
    the last solution.

    Parameters
    ----------
    n : int
        Length of the vectors.
    dtype : dtype
        The dtype of the basis; T is kept in float64.
    max_dim : int
        Largest number of rows, so memory is at most ``max_dim * n`` numbers; rows are allocated as
        they are needed and kept for the next `start`.
    """

    multiply: Any
    _n_starts: int
    _lacking: Any
    _follow: bool
    _ritz: tuple[np.ndarray, np.ndarray]

    def __init__(self, n: int, dtype: Any, max_dim: int) -> None:
        self.n, self.dtype = int(n), np.dtype(dtype)
        self.max_dim = int(min(max_dim, n))
        self.rows = np.empty((min(self.max_dim, 16), self.n), self.dtype)
        self.T = np.zeros((len(self.rows),) * 2)
        self.product = np.empty(self.n, self.dtype)
        self._scratch = np.empty(self.n, self.dtype)
        self.m = self.p = 0
        self.gamma = 0.0
        self._ritz_at = -1

    def start(self, multiply: Any, first: np.ndarray, others: Any = ()) -> None:
        """Empty the space and set its start vectors, `first` leading; vectors that depend linearly
        on the others are left out.

        `multiply(v, out)` writes H v; `gamma` becomes ``||first||``.
        """
        self.multiply = multiply
        self.m = self.p = 0
        self._ritz_at = -1
        self.gamma = norm(first)
        for vector in (first, *others):
            np.copyto(self.product, vector, casting="same_kind")
            bring_near_one(self.product[None])
            self._append(self.product, norm(self.product), np.zeros(self.p))
        self._n_starts, self.tridiagonal = self.p, self.p == 1
        self._lacking, self._follow = None, False

    @property
    def exhausted(self) -> bool:
        """True if no direction is left to multiply, or there is no room for the result of a
        product.
        """
        return self.p == 0 or self.m + self.p >= self.max_dim < self.n

    def _orthogonalise(self, w: np.ndarray, coefficients: np.ndarray) -> float:
        """Project `w` onto the complement of Q in place, at most three times, as long as a pass
        removes much of it; add what was removed to `coefficients`. Return the norm left.
        """
        held = self.m + self.p
        basis = self.rows[:held]
        before = norm(w)
        after = before
        for _ in range(3):
            taken = project(basis, w[None])
            square = subtract(basis, w[None], taken)
            coefficients[:held] += taken[0]
            after, before = float(np.sqrt(square[0])), after
            if after > 0.7 * before:
                break
        return after

    def _append(self, w: np.ndarray, reference: float, coefficients: np.ndarray) -> float:
        """Project `w` onto the complement of Q in place; if more is left than the rounding of
        `reference`, append it, normalised, as a pending row.

        Return the norm of what was left, 0.0 if that was rounding or there is no room.
        """
        held = self.m + self.p
        left = self._orthogonalise(w, coefficients)
        kind = np.finfo(self.dtype)
        rounding = max(10 * kind.eps * reference, kind.tiny / kind.eps)  # or underflow
        if held >= self.max_dim or not left > rounding:
            return 0.0
        if held == len(self.rows):
            self.widen(min(held, self.max_dim - held))
        np.multiply(w, self.dtype.type(1.0 / left), out=self.rows[held])
        self.T[held, :] = 0.0
        self.T[:, held] = 0.0
        self.p += 1
        return left

    def extend(self) -> None:
        """Multiply a pending row: first the start vectors, then the direction of the residual of
        the last solution.

        Costs one product.
        """
        m = self.m
        if m >= self._n_starts and self.p > 1:
            self._choose_next()
        w = self.product
        self.multiply(self.rows[m], w)
        exponent = bring_near_one(w[None])[0]
        coefficients = np.zeros(m + self.p)
        size = norm(w)
        if self.p == 1 and m:
            beta = np.ldexp(self.T[m, m - 1], -exponent)
            np.multiply(self.rows[m - 1], self.dtype.type(beta), out=self._scratch)
            w -= self._scratch
            coefficients[m - 1] = beta
        held = m + self.p
        left = np.ldexp(self._append(w, size, coefficients), exponent)
        coefficients = np.ldexp(coefficients, exponent)
        if self.tridiagonal:
            coefficients[: max(m - 1, 0)] = 0.0  # rounding: T is tridiagonal
        self.T[:held, m] = coefficients
        self.T[m, :held] = coefficients
        if left > 0:
            self.T[held, m] = self.T[m, held] = left
        self.m, self.p = m + 1, self.p - 1

    def _choose_next(self) -> None:
        """Move the next row to multiply to the front of the pending rows: the residual direction of
        the last solution; else the newest row of the chain that started there; else the row with
        the largest coupling.
        """
        m, pending = self.m, slice(self.m, self.m + self.p)
        if self._lacking is not None and np.any(self._lacking):
            self._reflect(self._lacking)
            self._follow = True
        elif self._follow:
            self._bring_forward(m + self.p - 1)
        else:
            self._bring_forward(m + int(np.argmax(np.linalg.norm(self.T[pending, :m], axis=1))))
        self._lacking = None

    def _reflect(self, lacking: np.ndarray) -> None:
        """Apply a Householder reflection to the pending rows that makes the first one a multiple of
        ``lacking' rows``.
        """
        m, pending = self.m, slice(self.m, self.m + self.p)
        u = lacking / np.linalg.norm(lacking)
        u[0] += np.copysign(1.0, u[0])
        u *= np.sqrt(2.0) / np.linalg.norm(u)
        rows = self.rows[pending]
        rows -= np.multiply.outer(u, u @ rows).astype(self.dtype, copy=False)
        block = self.T[pending, :m]
        block -= np.multiply.outer(u, u @ block)
        self.T[:m, pending] = block.T

    def _bring_forward(self, chosen: int) -> None:
        m = self.m
        if chosen == m:
            return
        self._scratch[:] = self.rows[m]
        self.rows[m] = self.rows[chosen]
        self.rows[chosen] = self._scratch
        for axis_view in (self.T, self.T.T):
            axis_view[[m, chosen]] = axis_view[[chosen, m]]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the eigenvalues (ascending) and eigenvectors of T, cached until the space
        grows.
        """
        if self._ritz_at != self.m:
            self._ritz, self._ritz_at = decompose(self), self.m
        return self._ritz

    def linear_term(self) -> np.ndarray:
        """Return ``U' Q g``: the gradient in the eigenvectors of T. g is gamma times the first
        row.
        """
        return np.asarray(self.gamma * self.ritz()[1][0])

    def residual(self, y: np.ndarray) -> float:
        """Return ``||E y||``, the norm of the part of ``H Q' y`` outside the space; `y` in the
        basis Q.

        Its direction is recorded for the next `extend`.
        """
        lacking = self.coupling() @ y
        if self.p > 1:
            self._lacking = lacking
        return length(lacking)

    def combine(self, y: np.ndarray, out: Array | None = None) -> np.ndarray:
        """Return ``Q' y``, a vector of length n."""
        out = np.empty(self.n, self.dtype) if out is None else out
        out[:] = 0.0
        subtract(self.rows[: self.m], out[None], -np.asarray(y, np.float64)[None])
        return out

    def lowest(self) -> tuple[float, float, np.ndarray]:
        """Return the lowest Ritz value, its residual and its coefficients."""
        values, vectors = self.ritz()
        u = vectors[:, 0]
        return float(values[0]), length(self.coupling() @ u), u


def least_residual(basis: Basis, gamma: float, damping: float = 0.0) -> tuple[Floats, Floats]:
    """Return the y of least norm that minimises ``||H Q' y + g||^2 + damping^2 ||y||^2``, with ``g
    = gamma Q[0]``, and the residual.

    The residual is given in the rows of the space, multiplied and pending. Costs one singular value
    decomposition of the projected matrix, and no product.
    """
    tall = basis.tall()
    W, s, Vt = svd(tall)
    y = -(Vt.T @ (gamma * W[0] * damped_inverse(s, damping, 1e-12 * s[0])))
    residual = tall @ y
    residual[0] += gamma
    return y, residual


# --------------------------------------------------------------------------------------------------
# The probability that Lanczos from a random start misses an extreme eigenvalue.


def lanczos_risk(n: int, k: int, eps: float) -> float:
    """Return an upper bound on the probability that k Lanczos steps from a random start miss an end
    of the spectrum by more than eps of its width.

    ``1.648 sqrt(n) exp(-(2k - 1) sqrt(eps))``, Kuczynski and Wozniakowski, SIAM J. Matrix Anal.
    Appl. 13, 1992.

    Examples
    --------
    >>> lanczos_risk(100_000, 544, 1e-4) <= 0.01
    True
    """
    return (
        min(1.0, float(1.648 * np.sqrt(n) * np.exp(-(2 * k - 1) * np.sqrt(eps)))) if k < n else 0.0
    )


def lanczos_steps(n: int, eps: float, risk: float) -> int:
    """Return the fewest steps for which `lanczos_risk` is at most `risk`.

    Examples
    --------
    >>> lanczos_steps(100_000, 1e-4, 0.01)
    544
    """
    k = 0.5 * (1 + np.log(1.648 * np.sqrt(n) / risk) / np.sqrt(eps))
    return int(min(n, max(1, np.ceil(k))))


def growth(diagonal: Floats, beside: Floats, at: Floats) -> Floats:
    """Return the logarithm of ``sum_j p_j(mu)^2`` for each mu in `at`, with p_j the orthonormal
    polynomials of the Lanczos run whose tridiagonal matrix has this diagonal and off-diagonal
    (`beside`).

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w the component of the unit
    start vector along z. Then the j-th Lanczos vector has the component ``p_j(mu) w`` along z, and
    the squares of these sum to 1 at most: ``w^2 <= exp(-growth)``. So if a run has missed z, its
    start was almost orthogonal to z, see `blind`.

    Examples
    --------
    >>> growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    unit = max(float(np.abs(x).max(initial=0.0)) for x in (diagonal, beside, at)) or 1.0
    diagonal, beside, at = diagonal / unit, beside / unit, at / unit
    before, now, total = np.zeros(len(at)), np.ones(len(at)), np.ones(len(at))
    taken, back = np.zeros(len(at)), 0.0
    for a, b in zip(diagonal[:-1], beside):
        before, now, back = now, ((at - a) * now - back * before) / b, b
        total += now**2
        large = total > 1e100
        if large.any():
            shrink = np.where(large, 1e-50, 1.0)
            before, now, total = before * shrink, now * shrink, total * shrink**2
            taken += large * np.log(1e100)
    return np.asarray(np.log(total) + taken)


def blind(n: int, risk: float) -> float:
    """Return the value of `growth` from which on a run with a random start misses an existing
    eigenvector with probability at most `risk`.

    The component of a random unit vector along a given one is ``x`` or less with probability at
    most ``x sqrt(2 n / pi)``.

    Examples
    --------
    >>> round(blind(1000, 0.05), 2)
    12.45
    """
    return float(np.log(2 * n / np.pi) - 2 * np.log(risk))
