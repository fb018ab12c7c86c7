"""The numbers a verdict rests on: products counted, rounding bounded, scales taken out."""

from __future__ import annotations

import numbers
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import (
    as_rng,
    check_positive,
    check_positive_int,
    check_symmetric_operator,
    check_theta,
    operator_dtype,
    times,
)
from ..common.errors import OBJECTIVE, need, typed
from ..common.linalg import PER_CUBE, svd
from ..common.progress import Bar
from ..common.protocols import (
    Array,
    Castable,
    Floats,
    Floored,
    Kinked,
    Orbits,
    OrbitsInUnits,
    Probed,
    ProvedReach,
    RunsAway,
    Saturating,
    SaysWhy,
    SumOfSquares,
    Symmetric,
    ThirdBound,
    ThirdBoundInUnits,
)
from ..common.runtime import late
from ..common.vectors import safe_norm
from ..spectrum.dense import PRODUCT_EPS, DenseMatrix, dense_matrix
from ..spectrum.shared_run import Krylov

# --------------------------------------------------------------------------------------------------
# What an objective proves about itself, with the honest answer for one that does not say.
#
# Infinity means "not known" wherever a bound is asked for, and so does NaN.


@dataclass(frozen=True, eq=False)
class Tangents:
    """Tangents ``(n, k)`` of the orbits of proved symmetry groups at theta: ``change`` bounds how
    fast they turn as theta moves, ``error`` what they are off by.
    """

    columns: np.ndarray
    change: float
    error: float


def as_stored(ob: Any, theta: np.ndarray) -> np.ndarray:
    """`theta`, float64, where an objective in float32 really is."""
    if getattr(ob, "dtype", None) == np.float32:
        return theta.astype(np.float32).astype(np.float64)
    return theta


def in_float64(ob: Any) -> Any:
    """The objective in float64, where it is in float32 and can be."""
    if getattr(ob, "dtype", None) == np.float32 and isinstance(ob, Castable):
        return ob.astype(np.float64)
    return ob


def third_bound(ob: Any, theta: np.ndarray, radius: float) -> float:
    """A Lipschitz constant of H on the ball; infinity where none is known."""
    if not isinstance(ob, ThirdBound):
        return np.inf
    L = float(ob.third_bound(theta, radius))
    return L if 0 <= L < np.inf else np.inf


def is_bounded(ob: Any, theta: np.ndarray, tried: Any) -> bool:
    """Whether the third derivative has a bound at theta; `tried`: a `Contraction` that may show
    it.
    """
    return tried is not None and tried.third < np.inf or third_bound(ob, theta, 0.0) < np.inf


def third_bound_in(ob: Any, theta: np.ndarray, radius: float, units: np.ndarray) -> float:
    """A Lipschitz constant of ``C H C`` by x where ``||x|| <= radius`` in ``theta + C x``."""
    if isinstance(ob, ThirdBoundInUnits):
        L = float(ob.third_bound_in(theta, radius, units))
        return L if 0 <= L < np.inf else np.inf
    top = float(units.max())
    return top**3 * third_bound(ob, theta, top * radius)


def tangents(ob: Any, theta: np.ndarray, radius: float = 0.0) -> Tangents:
    """Those of the symmetries that are proved on the ball."""
    n = theta.size
    if isinstance(ob, Orbits):
        held = ob.orbits(theta, radius)
        if not held:
            return Tangents(np.zeros((n, 0)), 0.0, 0.0)
        return Tangents(
            np.hstack([np.asarray(o.tangents, dtype=float) for o in held]),
            float(np.linalg.norm([o.change for o in held])),
            float(np.linalg.norm([o.error for o in held])),
        )
    if isinstance(ob, Symmetric):
        return Tangents(np.asarray(ob.flat_directions(theta), dtype=float), np.inf, np.inf)
    return Tangents(np.zeros((n, 0)), 0.0, 0.0)


def orbit_spread(ob: Any, units: np.ndarray) -> float:
    """By what tangents may turn faster in these units."""
    if isinstance(ob, OrbitsInUnits):
        return float(ob.orbit_spread(units))
    return float(units.max() / units.min())


def offers_symmetries(ob: Any) -> bool:
    """Whether the objective says anything about its symmetries."""
    return isinstance(ob, (Orbits, Symmetric))


class left_alone:
    """ValueError where theta is changed within: by an objective that writes into what it is given,
    so that nothing it says is of the point that was meant. One that says it `keeps_theta` is not
    watched: two copies of a long theta take as long as its gradient over a few rows.
    """

    __slots__ = ("before", "theta")

    def __init__(self, ob: Any, theta: np.ndarray) -> None:
        self.theta = theta
        self.before = None if getattr(ob, "keeps_theta", False) else theta.tobytes()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.before is None or not (error is None or isinstance(error, Exception)):
            return
        if self.theta.tobytes() != self.before:
            raise ValueError(
                "the objective writes into the theta it is given; wanted one that works on a copy "
                "of it, theta.copy()"
            ) from error


def as_number(value: Any) -> float:
    """What an objective gives as its value, a number or an array of one, as a float."""
    if isinstance(value, (float, int)):
        return float(value)
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise TypeError(
            f"the objective's value is an array of shape {found.shape} and dtype {found.dtype}; "
            "wanted a number"
        )
    return float(found.reshape(()))


def as_gradient(g: Any, n: int, dtype: Any = float, *, kept: bool = True) -> np.ndarray:
    """What an objective gives as its gradient, which may be a buffer of its own, as a vector of n
    numbers: a new one where it is `kept` while the objective is asked again.
    """
    shape = np.shape(g)
    if shape != (n,) and not (n == 1 and np.size(g) == 1):
        raise ValueError(f"the objective's gradient has shape {shape}; wanted ({n},)")
    own = np.array(g, dtype) if kept else np.require(g, dtype, ["C", "A", "E"])
    return own.reshape(n)


def as_curvature(H: Any, n: int, name: str = "hessian") -> Any:
    """What an objective gives as its Hessian or GGN, an operator or matrix ``(n, n)``."""
    if not any(hasattr(H, part) for part in ("product", "matvec", "__matmul__")):
        raise TypeError(
            f"the objective's {name} is {typed(H)}; wanted a symmetric matrix, numpy.array(...), "
            f"or LinearOperator of shape ({n}, {n})"
        )
    shape = getattr(H, "shape", (n, n))
    if tuple(shape) != (n, n):
        raise ValueError(f"the objective's {name} has shape {tuple(shape)}; wanted ({n}, {n})")
    return H


def value_at(ob: Any, theta: np.ndarray) -> float:
    """The objective's value there."""
    with left_alone(ob, theta):
        return as_number(ob.value(theta))


def kinks(ob: Any, theta: np.ndarray) -> int:
    """Pre-activations within rounding of a kink."""
    return int(ob.kinks(theta)) if isinstance(ob, Kinked) else 0


def curvature_floor(ob: Any, theta: np.ndarray) -> float:
    """A number that no eigenvalue at theta is below, -inf where none is known."""
    if not isinstance(ob, Floored) or not np.max(getattr(ob, "l2", 1)) > 0:
        return -np.inf
    floor = float(ob.curvature_floor(theta))
    return floor if floor == floor and floor < np.inf else -np.inf


def runs_to_infinity(ob: Any, theta: np.ndarray) -> bool:
    """Whether the loss is proved to fall for ever from here, to an infimum that is not attained."""
    return isinstance(ob, RunsAway) and ob.ray_to_infimum(theta) is not None


def why_no_minimum(ob: Any, theta: np.ndarray) -> str:
    """Why, as part of a sentence."""
    words = ob.why_no_minimum(theta) if isinstance(ob, SaysWhy) else None
    return words or "a direction is proved in which the loss falls for ever"


def residual_bounds(ob: Any, theta: np.ndarray, radius: float) -> Any:
    """What is known of the residuals of a sum of squares, or None."""
    return ob.residual_bounds(theta, radius) if isinstance(ob, SumOfSquares) else None


def probes(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Vectors that reach curvature which the gradient cannot see."""
    return np.asarray(ob.probes(theta)) if isinstance(ob, Probed) else np.zeros((theta.size, 0))


def saturation(ob: Any, theta: np.ndarray) -> Any:
    """How saturated the units are, or None."""
    return ob.saturation(theta) if isinstance(ob, Saturating) else None


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
        return float(self.n**0.5 * self.norm)

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


# --------------------------------------------------------------------------------------------------
# What was asked of `classify`, checked once and then fixed.


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `classify`; ``seek``: whether to walk to what lies near."""

    ob: Any
    theta: np.ndarray
    gradient_tol: float | None
    curvature_tol: float
    failure_probability: float | None
    max_products: int | None
    dense_below: float
    seed: Any
    krylov: Krylov | None
    max_time: float | None = None
    seek: bool = True

    @property
    def n(self) -> int:
        return self.theta.size

    @property
    def dense(self) -> bool:
        """Whether the whole spectrum is computed."""
        return self.dense_in_time and (self.max_time is None or self.seconds <= self.max_time)

    @property
    def dense_in_time(self) -> bool:
        """Whether it is where time lasts."""
        return self.n < self.dense_below and (
            self.max_products is None or self.max_products >= self.n
        )

    @property
    def seconds(self) -> float:
        """What all eigenvalues take, roughly."""
        return PER_CUBE * float(self.n) ** 3


def make_request(
    ob: Any,
    theta: Any,
    *,
    gradient_tol: float | None,
    curvature_tol: float,
    failure_probability: float | None,
    max_products: int | None,
    max_time: float | None,
    dense_below: float,
    seed: Any,
    krylov: Any,
) -> Request:
    """Check everything that can be checked before the first product."""
    real = isinstance(dense_below, numbers.Real) and not isinstance(dense_below, bool)
    if not real or np.isnan(dense_below):
        raise TypeError(f"dense_below is {dense_below!r}; wanted a number of parameters")
    theta = _point(ob, theta)
    as_rng(seed)  # is one, though few questions draw from it
    if gradient_tol is not None:
        gradient_tol = check_positive(gradient_tol, "gradient_tol", zero=True)
    if failure_probability is not None:
        failure_probability = check_positive(failure_probability, "failure_probability")
        if failure_probability >= 1:
            raise ValueError(
                f"failure_probability is {failure_probability}; wanted a number between 0 and 1"
            )
    return Request(
        ob,
        theta,
        gradient_tol,
        check_positive(curvature_tol, "curvature_tol"),
        failure_probability,
        None if max_products is None else check_positive_int(max_products, "max_products"),
        float(dense_below),
        seed,
        None if krylov is None else check_run(krylov, theta),
        None if max_time is None else check_positive(max_time, "max_time"),
    )


def _point(ob: Any, theta: Any) -> np.ndarray:
    need(ob, ("n_params", "gradient", "hessian"), "ob", OBJECTIVE, theta)
    point = check_theta(ob, theta, "theta", np.float64)
    return as_stored(ob, point).copy()


def check_run(run: Any, theta: np.ndarray) -> Krylov:
    """`run` as a `Krylov` on the Hessian at theta."""
    if not isinstance(run, Krylov):
        raise TypeError(
            f"krylov is a {type(run).__name__}; wanted a fastcurv.Krylov on the Hessian at theta"
        )
    if run.n != theta.size:
        raise ValueError(
            f"krylov runs on an operator with n = {run.n}; wanted the Hessian at theta, n = "
            f"{theta.size}"
        )
    there = getattr(run.op, "theta", None)
    if there is not None and not np.array_equal(np.asarray(there, dtype=float), theta):
        raise ValueError(
            "krylov runs on the Hessian at another theta; wanted one made from ob.hessian(theta)"
        )
    return run
