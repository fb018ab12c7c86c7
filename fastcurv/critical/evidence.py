"""The numbers a verdict rests on: products counted, rounding bounded, scales taken out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_symmetric_operator, operator_dtype, times
from ..interrupts import late
from ..progress import Bar
from ..protocols import Array, Floats, ProvedReach
from ..singular import svd
from ..spectrum.dense import PRODUCT_EPS, DenseMatrix, dense_matrix
from ..vectors import safe_norm
from .knowledge import as_curvature, as_gradient

# A gradient that lies within this many times its own rounding bound is zero as far as anyone can
# tell.
GRADIENT_ROUNDING = 10.0
# Curvature this small beside the norm of H, and not proved to last, counts as zero.
ZERO = 1e-10
# Bounds on errors below it may be those of underflow alone.
UNDERFLOWN = 1e-280
FARTHEST = 200  # units of 2 to that power beside others are not followed
# A gradient this small, relative to the norm of H and the size of theta, is called critical.
RELATIVE_GRADIENT = 1e-5


class SpentError(Exception):
    """What was to be measured would take more products than are left."""


class Products:
    """A symmetric operator whose products are counted, in float64 where it can be had, with a bound
    on their rounding.
    """

    def __init__(self, op: Any, dtype: Any = None) -> None:
        self.op = self.native = check_symmetric_operator(op, "H")
        self.native_dtype = operator_dtype(self.op)
        if dtype is not None and operator_dtype(self.op) != dtype and hasattr(self.op, "astype"):
            self.op = self.op.astype(dtype)
        self.n: int = self.op.shape[0]
        self.dtype = operator_dtype(self.op)
        self.eps = float(np.finfo(self.dtype).eps)
        self.count = 0
        self.most = np.inf  # products that may be made
        self.short = False  # whether `spend` was refused
        self.shared = 0  # products relied on that others had made
        self.norm = 0.0
        self.shown: Bar | None = None
        self.asymmetry = 0.0  # of the products, as seen: they are wrong by as much at least
        self._bounds: deque[tuple[Array, float]] = deque(maxlen=4)  # the last of `bound`

    def __call__(self, V: Array) -> Floats:
        """``H V`` for (n,) or (n, k), in float64."""
        V = np.asarray(V, dtype=self.dtype)
        self.tell(1 if V.ndim == 1 else V.shape[1])
        out = np.asarray(times(self.op, V), dtype=float)
        largest = float(np.abs(out).max(initial=0.0))
        if 0 < largest < np.inf:  # squares of what is very large or small leave the range
            sizes = np.linalg.norm(np.asarray(V, dtype=float), axis=0)
            lengths = np.linalg.norm(out / largest, axis=0)
            ratios = np.divide(lengths, sizes, out=np.zeros_like(lengths), where=sizes > 0)
            self.norm = max(self.norm, largest * float(ratios.max(initial=0.0)))
        return out

    @property
    def largest(self) -> float:
        """Return about ``||H||_F``, once the product of a random vector was asked for: the mean of
        ``n ||Hv||^2 / ||v||^2`` is its square, and ``||H||`` is no larger.
        """
        return self.n**0.5 * self.norm

    @property
    def zero(self) -> float:
        """Curvature no larger than this counts as zero where nothing proves that its sign lasts."""
        return max(ZERO, 100 * self.eps) * self.norm

    def taken(self) -> int:
        """The products made since this was asked last."""
        count, self.count = self.count, 0
        return count

    @property
    def left(self) -> float:
        """Products that may still be made: none where time has ended."""
        return 0 if late() else max(0, self.most - self.count)

    def affords(self, k: int) -> bool:
        """Whether k products more are within the budget."""
        return k <= self.left

    def spend(self, k: int) -> None:
        """Count k products before they are made; `SpentError` where the budget holds no more."""
        if not self.affords(k):
            self.short = True
            raise SpentError
        self.tell(k)

    def note(self, text: str) -> None:
        """Show what is being done."""
        if self.shown is not None:
            self.shown.note(text)

    def tell(self, k: int) -> None:
        """Count k products, and show them."""
        self.count += k
        if self.shown is not None:
            self.shown.update(k)

    def matrix(self) -> DenseMatrix:
        """The Hessian as a `DenseMatrix`; its products are counted."""
        M = dense_matrix(self.op)
        self.tell(M.n_products)
        return M

    def bound(self, v: Array) -> float:
        """A bound on ``||computed(H v) - H v||``: the operator's own, or `PRODUCT_EPS` eps times
        the norm seen so far.
        """
        if not hasattr(self.op, "rounding_bound"):
            return PRODUCT_EPS * self.eps * self.norm * safe_norm(v)
        v = np.ascontiguousarray(v, dtype=self.dtype)
        for known, found in self._bounds:  # as much work as some ten products
            if np.array_equal(known, v):
                return found
        found = float(self.op.rounding_bound(v))
        self._bounds.append((v.copy(), found))
        return found

    def rayleigh(self, v: Array) -> tuple[float, float, Floats]:
        """``v'Hv / v'v`` with a bound on its error, by one product."""
        quotient, Hv = self.quotient(v)
        return quotient, self.quotient_error(v, Hv), Hv

    def quotient(self, v: Array) -> tuple[float, Floats]:
        """``v'Hv / v'v`` and Hv, by one product."""
        v = np.asarray(v, dtype=self.dtype).astype(float)
        Hv = self(v)
        return float(v @ Hv) / float(v @ v), Hv

    def quotient_error(self, v: Array, Hv: Floats) -> float:
        """A bound on the error of that `quotient`. The dot product, in float64, is off by at most
        ``n eps ||v|| ||Hv||`` in any order of summation.
        """
        v = np.asarray(v, dtype=self.dtype).astype(float)
        size = float(v @ v)
        slack = 2 * self.n * np.finfo(float).eps * np.linalg.norm(v) * safe_norm(Hv)
        lost = self.n * float(np.finfo(float).smallest_subnormal)
        return float((self.bound(v) * size**0.5 + slack + lost) / size) + self.asymmetry


def hessian_products(ob: Any, theta: Array, best: bool = True) -> Products:
    """The Hessian at theta as `Products`; `best` asks for float64 where the operator offers
    `astype`.
    """
    H = as_curvature(ob.hessian(theta), theta.size)
    return Products(H, np.float64 if best else None)


def gradient_at(ob: Any, theta: Array, H: Products) -> Floats:
    """The gradient in float64 arithmetic where the operator holds it, else the objective's own."""
    held = getattr(H.op, "gradient", None)
    held = held() if callable(held) else held
    if held is None or np.shape(held) != (H.n,):
        held = ob.gradient(theta)
    return as_gradient(held, H.n)


def gradient_bound(ob: Any, theta: Array, H: Products) -> float | None:
    """A bound on the rounding of the gradient of `gradient_at`, or None where the objective offers
    none.
    """
    owner = getattr(H.op, "objective", ob)
    return float(owner.rounding_bound(theta)) if hasattr(owner, "rounding_bound") else None


def spectral_norm(A: Floats, steps: int = 12) -> float:
    """An estimate of ``||A||_2`` of a symmetric matrix from below, by power steps on a fixed
    start.
    """
    v: Floats = np.random.default_rng(0).standard_normal((A.shape[0],))
    norm = 0.0
    for _ in range(steps):
        size = safe_norm(v)
        if not 0 < size < np.inf:
            break
        v = A @ (v / size)
        norm = max(norm, safe_norm(v))
    return norm


def equilibrate(A: Floats, noise: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Positive d such that the rows of ``d A d`` have a largest entry near 1 (Ruiz 2001), and which
    rows count.

    Rows that hold nothing above `noise`, (n,) or by entries (n, n), say nothing about the scale of
    their parameter and get the geometric mean of the others.
    """
    size = np.abs(A)
    live = np.asarray((size > noise.reshape(len(A), -1)).any(axis=1))
    d = np.ones(len(A))
    if live.any():
        inner = size[np.ix_(live, live)] if not live.all() else size
        e = np.ones(len(inner))
        for _ in range(6):
            rows = (inner * e).max(axis=1) * e
            e /= np.sqrt(np.where(rows > 0, rows, 1.0))
        d[live] = e
        d[~live] = np.exp(np.log(e).mean())
    return d, live


def even_rows(A: Floats, d: Floats) -> Floats:
    """From `d` on to the one scaling for which all rows of ``d A d`` have the same norm: the units
    of parameters change nothing.
    """
    squares, f = (d[:, None] * A * d) ** 2, np.ones(len(d))
    for _ in range(30):
        rows = (squares @ f) * f
        f /= np.sqrt(np.where(rows > 0, rows, 1.0))
        if np.abs(rows[rows > 0] - 1).max(initial=0.0) < 1e-2:
            break
    return d * np.sqrt(f)


def balance(A: Floats, noise: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Positive d for which the rows of ``d A d`` have the same norm, of those rows that count, and
    which do; the others get the geometric mean.

    Rows that hold nothing above their `noise`, (n,) or by entries (n, n), do not count, nor those
    that would be blown up until it is as large as the rest.
    """
    d, live = equilibrate(A, noise)
    noise = noise.reshape(len(A), -1)
    for _ in range(4):
        if not live.any():
            return np.ones(len(A)), live
        inner = A[np.ix_(live, live)] if not live.all() else A
        d[live] = even_rows(inner, d[live])
        d[~live] = _as_loud(noise, d, live)
        rows = np.linalg.norm(d[live][:, None] * inner * d[live], axis=1)
        across = d if noise.shape[1] > 1 else d[:, None]  # of a column's norm no more is known
        loud = live & (np.linalg.norm(d[:, None] * noise * across, axis=1) > np.median(rows))
        if not loud.any():
            break
        live &= ~loud
    return d, live


def _as_loud(noise: Floats, d: Floats, live: NDArray[np.bool_]) -> Any:
    """For rows that do not count the d for which their noise is that of the others, where it is
    known by entries, else the geometric mean of those that count.
    """
    mean = np.exp(np.log(d[live]).mean())
    if noise.shape[1] == 1:
        return mean
    sizes = np.linalg.norm(noise[:, live] * (d[live] / mean), axis=1)
    level = float(np.median(sizes[live] * d[live]))
    return _not_absurd(level / np.maximum(sizes[~live], 1e-300), mean)


def _not_absurd(d: Floats, mean: float) -> Floats:
    """`mean` for what is as far from it as for rows without any noise, all zero."""
    return np.where((d > mean * 1e-60) & (d < mean * 1e60), d, mean)


def balances(A: Floats, noise: Floats, layers: NDArray[np.intp]) -> list[Floats]:
    """Positive units d, of largest 1 to 2, that follow all others that parameters may have: for
    which the rows of ``d A d`` are equally long, and, where the `noise` of entries is known,
    (n, n), for which those of its own are.

    Both begin where the noise is even, which is so in all units; where these are powers of two,
    ``d A d`` is the same bits in all of them, but for one power of two.
    """
    if noise.shape[1] == 1:
        return [_largest_one(balance(A, noise)[0])]
    start = even_entries(noise, layers)
    noise = start[:, None] * noise * start
    faint = np.full((len(A), 1), 1e-15 * np.median(noise))
    rows = balance(start[:, None] * A * start, noise)[0], balance(noise, faint)[0]
    return [_largest_one(start * d) for d in rows]


def even_entries(noise: Floats, layers: NDArray[np.intp]) -> Floats:
    """Powers of two d for which the logarithms of the entries of ``d noise d`` that are not 0, nor
    what underflow may leave of them, are smallest (Curtis and Reid 1972): a problem of least
    squares on their pattern, so that units of the rows change nothing but d. All of `layers`, the
    number of its own for each row, have the same weight: where one has collapsed, d lies half-way
    between its units and those of the others, however many parameters each has.
    """
    shares = 1.0 / np.bincount(layers)[layers]
    counted = noise > UNDERFLOWN
    logs = np.log2(np.where(counted, noise, 1.0))
    each = counted @ shares
    # of a pattern without diagonals one side may have any units, against the other
    M = counted * shares + np.diag(each + 1e-9 * (1e-9 + each))
    x = np.linalg.solve(M, -(logs @ shares))
    middle = np.median(x[each > 0]) if each.any() else 0.0
    x = np.where(each > 0, x, middle)
    return np.asarray(np.exp2(np.round(np.clip(x, middle - FARTHEST, middle + FARTHEST))))


def _largest_one(d: Floats) -> Floats:
    return np.asarray(np.ldexp(d, 1 - int(np.frexp(d.max())[1])))


def independent(T: Floats, rtol: float = 1e-7) -> Floats:
    """Orthonormal columns that span T's; directions that hardly stand out are left out, so the
    count is never too high.
    """
    sizes = np.linalg.norm(T, axis=0)
    T = T[:, sizes > 0] / sizes[sizes > 0]
    if not T.shape[1]:
        return T
    U, s, _ = svd(T)
    return U[:, s > rtol * s[0]]


def annihilated(AQ: Floats, Q: Floats, tol: float) -> Floats:
    """Orthonormal basis of the part of the span of Q, orthonormal, that A maps to at most `tol` of
    its length.
    """
    if not Q.shape[1]:
        return Q
    _, s, Vt = svd(AQ)
    return np.asarray(Q @ Vt[s <= tol].T)


# A Newton step of more than this many lengths of theta leads out of every model of the loss: H is
# flat there.
FAR = 1e6


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured and proved at a point, beside what decides: for the words and the result.

    Attributes
    ----------
    near : Nearness
    gradient : ndarray, shape (n,)
    flat_ratio, residual : float or None
        ``||Hg|| / (||H|| ||g||)``, and the share of g outside the range of H.
    low, high : float
        The ends of the spectrum, each with ``(below, above)``.
    across : (float, float) or None
        At large n: its ends across the symmetries that were taken out.
    escape_direction, escape_curvature
    weakest, weakest_error : float
        The smallest ``|lambda|`` across the symmetries, and what it may be off by.
    balanced : bool
        Whether that is in balanced coordinates.
    bounded : bool
        Whether the third derivative has a bound at theta at all.
    theorem, zero : Contraction or None
        Kantorovich's theorem for the gradient, and for the residuals.
    distance : float
        The length of Newton's step, infinity where it is not known.
    n_negative_bounds : (int, int)
    n_unsettled : int
        Signs that are proved at theta and do not last.
    flat_beside_step : bool
        Whether the step that g asks for leads out of every model of the loss.
    goal : int
        Lanczos steps that the risk asked for would take.
    n_products : int
        Spent so far.
    weak : (quotients, vectors) or None
        At large n: the directions whose curvature must last.
    reach : ProvedReach or None
        At large n: what the rows reach, where every eigenvalue is known by it.
    """

    near: Any
    gradient: np.ndarray
    flat_ratio: float | None
    residual: float | None
    low: float
    low_bounds: tuple[float, float]
    high: float
    high_bounds: tuple[float, float]
    escape_direction: np.ndarray | None = None
    escape_curvature: float | None = None
    weakest: float = 0.0
    weakest_error: float = 0.0
    balanced: bool = False
    bounded: bool = False
    theorem: Any = None
    zero: Any = None
    distance: float = np.inf
    n_negative_bounds: tuple[int, int] = (0, 0)
    n_unsettled: int = 0
    flat_beside_step: bool = False
    goal: int = 0
    n_products: int = 0
    weak: Any = None
    reach: ProvedReach | None = None
    across: tuple[float, float] | None = None

    @property
    def on_plateau(self) -> bool:
        """Gradient mostly outside the range of H, and H flat along it: beside its norm, or beside
        any step within reach.
        """
        return (
            self.residual is not None
            and self.residual >= 0.9
            and (self.flat_ratio is None or self.flat_ratio <= 0.25 or self.flat_beside_step)
        )
