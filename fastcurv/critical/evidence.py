"""The evidence behind a verdict: counted Hessian products with bounds on their rounding, what an
objective proves about itself, scalings that remove the units of the parameters, and the checked
arguments of `classify`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import (
    MatrixOperator,
    check_symmetric_operator,
    operator_dtype,
    times,
)
from ..common.errors import typed
from ..common.linalg import PER_CUBE, svd
from ..common.progress import Bar
from ..common.protocols import Array, Certificate, Floats
from ..common.runtime import Budget, resume_arithmetic
from ..common.vectors import safe_norm
from ..spectrum.dense import PRODUCT_EPS, DenseMatrix, dense_matrix
from ..spectrum.shared_run import Krylov, Runs
from .decide import Nearness, Proof, Spectrum
from .theorem import Contraction

# --------------------------------------------------------------------------------------------------
# Access to what an objective proves, with a default that claims nothing. Wherever a bound is asked
# for, infinity or NaN means "not known".


LOSS = "value", "gradient", "value_and_gradient", "hessian", "ggn"


def _is_own(ob: Any, name: str) -> bool:
    """Return whether an attribute is of the object or its class, not handed on from another."""
    if hasattr(type(ob), name):
        return True
    try:
        return name in object.__getattribute__(ob, "__dict__")
    except AttributeError:  # with slots alone
        return False


def _source(ob: Any, name: str) -> Any:
    """Return the object whose method answers by that name: the objective itself, but where it hands
    on another's; None where there is none.
    """
    method = getattr(ob, name, None)
    return None if method is None else getattr(method, "__self__", ob)


def _has_own_loss(ob: Any) -> bool:
    """Return whether proofs that an objective hands on, as by ``__getattr__``, are of another loss,
    for all that is known: some functions of the loss are not those of the object within.
    """
    if _is_own(ob, "certificates"):
        return False
    sources = [source for name in LOSS if (source := _source(ob, name)) is not None]
    if not sources or any(source is ob or source is not sources[0] for source in sources):
        return True
    return _has_own_loss(sources[0])


def _only_at_once(ob: Any) -> bool:
    """Return whether an object has a `value_and_gradient` and hands on another's for each."""
    own = [_is_own(ob, name) for name in ("value_and_gradient", "value", "gradient")]
    return own == [True, False, False]


def is_of_its_loss(ob: Any, name: str) -> bool:
    """Return whether an objective has a method by that name that belongs to its value and
    gradient.
    """
    source = _source(ob, name)
    if name == "value_and_gradient" and _only_at_once(ob):
        return True
    if source is None or any(_source(ob, one) is not source for one in ("value", "gradient")):
        return False
    own, replaced = getattr(source, "__dict__", ()), getattr(source, "_replaced", ())
    if name in own or name in replaced:
        return True
    return not any(one in own or one in replaced for one in ("value", "gradient"))


def offered(ob: Any, name: Certificate, default: Any = None) -> Any:
    """Return what an objective proves by that name: its own attribute, else that of its
    `certificates`, else the default.

    Its own comes first, so that a subclass or a wrapper can replace what no longer holds; None
    claims nothing. A wrapper that replaces a function of the loss hands on no proof.
    """
    if not _is_own(ob, name):
        if _has_own_loss(ob):
            return default
        ob = getattr(ob, "certificates", ob)
    found = getattr(ob, name, None)
    return default if found is None else found


def proved(ob: Any, name: Certificate, *at: Any, default: Any = None) -> Any:
    """Return the result of the method `offered` by that name, or the default without one."""
    method = offered(ob, name)
    if method is None:
        return default
    found = method(*at)
    resume_arithmetic()
    return found


@dataclass(frozen=True, eq=False)
class Tangents:
    """Tangents to the orbits of proved symmetry groups at theta, the columns of an ``(n, k)``
    array.

    ``change`` bounds how fast the tangents turn as theta moves, per unit length; ``error`` bounds
    the norm of their error.
    """

    columns: np.ndarray
    change: float
    error: float


def is_plain(ob: Any) -> bool:
    """Return whether an objective has the loss of the class that makes its operators: what these
    hold at theta, and other precisions of the objective, are of that loss.
    """
    proofs = getattr(ob, "certificates", ob)
    return proofs is ob or not (proofs is None or _has_own_loss(ob))


def rounding_bound_of(ob: Any) -> Any:
    """Return an objective's `rounding_bound`, a function of theta, or None."""
    lost = _has_own_loss(ob) and not _is_own(ob, "rounding_bound")
    return None if lost or not is_plain(ob) else getattr(ob, "rounding_bound", None)


def as_stored(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Return `theta`, in float64, rounded to the precision in which the objective stores it."""
    single = getattr(ob, "dtype", None) == np.float32
    return theta.astype(np.float32).astype(np.float64) if single else theta


def in_float64(ob: Any) -> Any:
    """Return the objective cast to float64 if it is in float32 and can be cast, else unchanged."""
    cast = getattr(ob, "dtype", None) == np.float32 and hasattr(ob, "astype") and is_plain(ob)
    return ob.astype(np.float64) if cast else ob


def third_bound(
    ob: Any, theta: np.ndarray, radius: float, units: np.ndarray | None = None
) -> float:
    """Return a Lipschitz constant of H on the ball of `radius` around theta, infinity where none is
    known. With `units` it is that of ``C H(theta + C x) C`` with respect to x on
    ``||x|| <= radius``, where ``C = diag(units)``.
    """
    if units is None:
        L = proved(ob, "third_bound", theta, radius, default=np.inf)
    else:
        L = proved(ob, "third_bound_in", theta, radius, units)
        if L is None:
            top = float(units.max())
            return top**3 * third_bound(ob, theta, top * radius)
    return float(L) if 0 <= float(L) < np.inf else np.inf


def tangents(ob: Any, theta: np.ndarray, radius: float = 0.0) -> Tangents:
    """Return the tangents of the symmetries that are proved to hold on the ball of `radius` around
    theta.
    """
    held = proved(ob, "orbits", theta, radius)
    flat = proved(ob, "flat_directions", theta) if held is None else None
    if flat is not None:
        return Tangents(np.asarray(flat, dtype=float), np.inf, np.inf)
    columns = [np.asarray(o.tangents, dtype=float) for o in held or ()]
    return Tangents(
        np.hstack([np.zeros((theta.size, 0)), *columns]),
        float(np.linalg.norm([o.change for o in held or ()])),
        float(np.linalg.norm([o.error for o in held or ()])),
    )


def offers_symmetries(ob: Any) -> bool:
    """Return whether the objective reports symmetries at all."""
    return offered(ob, "orbits", offered(ob, "flat_directions")) is not None


SHORT = 4096  # bytes of theta that take less time to copy than to ask whether that is needed


class call_unmodified:
    """Context manager for calls of a user-defined objective: the floating-point settings are loaded
    again at its end, and ValueError is raised if theta was modified within.

    An objective that writes into the theta it is given reports values and derivatives of a point
    other than the one asked for. Objectives with a true `keeps_theta` attribute are not checked
    where theta is long: copying it twice takes as long as its gradient over a few rows.
    """

    __slots__ = ("before", "theta")

    def __init__(self, ob: Any, theta: np.ndarray) -> None:
        self.theta = theta
        trusted = theta.nbytes > SHORT and offered(ob, "keeps_theta", False)
        self.before = None if trusted else theta.tobytes()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        resume_arithmetic()
        if self.before is None or not (error is None or isinstance(error, Exception)):
            return
        if self.theta.tobytes() != self.before:
            raise ValueError(
                "the objective writes into the theta it is given; wanted one that works on a copy "
                "of it, theta.copy()"
            ) from error


def as_number(value: Any) -> float:
    """Return an objective's value, a number or an array of size 1, as a float."""
    resume_arithmetic()
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
    """Return an objective's gradient, which may be a buffer of its own, as an array of shape (n,):
    a new one where it is `kept` while the objective is asked again.
    """
    resume_arithmetic()
    shape = np.shape(g)
    if shape != (n,) and not (n == 1 and np.size(g) == 1):
        raise ValueError(f"the objective's gradient has shape {shape}; wanted ({n},)")
    own = np.array(g, dtype) if kept else np.require(g, dtype, ["C", "A", "E"])
    return own.reshape(n)


def as_curvature(H: Any, n: int, name: str = "hessian") -> Any:
    """Validate an objective's Hessian or GGN, an operator or matrix of shape ``(n, n)``, and return
    it.
    """
    resume_arithmetic()
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
    """Return the objective's value at theta as a float."""
    with call_unmodified(ob, theta):
        return as_number(ob.value_and_gradient(theta)[0] if _only_at_once(ob) else ob.value(theta))


def curvature_floor(ob: Any, theta: np.ndarray) -> float:
    """Return a lower bound on all eigenvalues of H at theta, -inf where none is known."""
    if not np.max(getattr(ob, "l2", 1)) > 0:
        return -np.inf
    floor = float(proved(ob, "curvature_floor", theta, default=-np.inf))
    return floor if floor == floor and floor < np.inf else -np.inf


def why_no_minimum(ob: Any, theta: np.ndarray) -> str:
    """Return the reason why the infimum is not attained, as a clause for a sentence."""
    words: str = proved(ob, "why_no_minimum", theta, default="")
    return words or "a direction is proved in which the loss falls for ever"


def probes(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Return directions of curvature that the gradient cannot see, as columns ``(n, p)``."""
    found = proved(ob, "probes", theta)
    return np.zeros((theta.size, 0)) if found is None else np.asarray(found)


# A gradient within this many times its own rounding bound cannot be told from zero.
GRADIENT_ROUNDING = 10.0
# Curvature below this times the norm of H counts as zero unless its sign is proved to last.
ZERO = 1e-10
# Bounds on errors below this may come from underflow alone.
UNDERFLOWN = 1e-280
FARTHEST = 200  # scale factors are clipped to within 2^+-FARTHEST of their median
# A gradient is called critical below this times the norm of H times the size of theta.
RELATIVE_GRADIENT = 1e-5


class SpentError(Exception):
    """Raised when a measurement would need more products than the budget has left."""


@dataclass(frozen=True, eq=False)
class End:
    """One end of the spectrum: a unit vector, None where the sign of curvature there is not known,
    its Rayleigh quotient, a bound on the error of that, and the norm of the residual.
    """

    vector: Any = None
    quotient: float = 0.0
    error: float = 0.0
    residual: float = np.inf

    @property
    def enclosure(self) -> tuple[float, float]:
        """Bounds between which an eigenvalue lies."""
        off = self.residual + self.error
        return self.quotient - off, self.quotient + off


class Products(Budget):
    """A symmetric operator that counts its products, within a budget, and bounds their rounding,
    cast to float64 where the operator allows it.
    """

    def __init__(self, op: Any, dtype: Any = None) -> None:
        super().__init__()
        self.op = self.native = check_symmetric_operator(op, "H")
        self.native_dtype = operator_dtype(self.op)
        if dtype is not None and self.native_dtype != dtype and hasattr(self.op, "astype"):
            self.op = self.op.astype(dtype)
        self.n: int = self.op.shape[0]
        self.dtype = operator_dtype(self.op)
        self.eps = float(np.finfo(self.dtype).eps)
        self.short = False  # whether `spend` was refused
        self.shared = 0  # products of a shared Krylov run that were reused
        self.norm = 0.0
        self.pace = 0.0  # seconds that a product took
        self.shown: Bar | None = None
        self.asymmetry = 0.0  # as observed: products are wrong by at least this much
        self._bounds: deque[tuple[Array, float]] = deque(maxlen=4)  # recent results of `bound`

    def __call__(self, V: Array) -> Floats:
        """Return ``H V`` in float64 for V of shape (n,) or (n, k)."""
        V = np.asarray(V, dtype=self.dtype)
        self.tell(1 if V.ndim == 1 else V.shape[1])
        began = time.perf_counter()
        out = np.asarray(times(self.op, V), dtype=float)
        self.pace = (time.perf_counter() - began) * V.shape[0] / max(1, V.size)
        largest = float(np.abs(out).max(initial=0.0))
        if 0 < largest < np.inf:  # scaled, so that squares do not overflow or underflow
            sizes = np.linalg.norm(np.asarray(V, dtype=float), axis=0)
            lengths = np.linalg.norm(out / largest, axis=0)
            ratios = np.divide(lengths, sizes, out=np.zeros_like(lengths), where=sizes > 0)
            self.norm = max(self.norm, largest * float(ratios.max(initial=0.0)))
        return out

    @property
    def largest(self) -> float:
        """An estimate of ``||H||_F``, valid once the product of a random vector was computed.

        The mean of ``n ||Hv||^2 / ||v||^2`` over random v is ``||H||_F^2``, and ``||H||_2`` is no
        larger than ``||H||_F``.
        """
        return float(self.n**0.5 * self.norm)

    @property
    def zero(self) -> float:
        """The threshold below which curvature counts as zero unless its sign is proved to last."""
        return max(ZERO, 100 * self.eps) * self.norm

    def spend(self, k: int) -> None:
        """Count k products before they are made; raise `SpentError` if the budget does not allow
        them.
        """
        if not self.affords(k):
            self.short = True
            raise SpentError
        self.tell(k)

    def note(self, text: str) -> None:
        """Show `text` on the progress bar, if there is one, as the current activity."""
        if self.shown is not None:
            self.shown.note(text)

    def tell(self, k: int) -> None:
        """Count k products and advance the progress bar."""
        self.count += k
        if self.shown is not None:
            self.shown.update(k)

    def matrix(self) -> DenseMatrix:
        """Return the Hessian as a `DenseMatrix` and count the products this took."""
        M = dense_matrix(self.op)
        self.tell(M.n_products)
        return M

    def bound(self, v: Array) -> float:
        """Return a bound on ``||computed(H v) - H v||``: the operator's own where it offers one,
        else `PRODUCT_EPS` eps times the largest norm seen so far times ``||v||``.
        """
        if not hasattr(self.op, "rounding_bound"):
            return PRODUCT_EPS * self.eps * self.norm * safe_norm(v)
        v = np.ascontiguousarray(v, dtype=self.dtype)
        for known, found in self._bounds:  # cached: a bound costs about ten products
            if np.array_equal(known, v):
                return found
        found = float(self.op.rounding_bound(v))
        self._bounds.append((v.copy(), found))
        return found

    def rayleigh(self, v: Array) -> tuple[float, float, Floats]:
        """Return ``v'Hv / v'v``, a bound on its error, and ``Hv``, using one product."""
        quotient, Hv = self.quotient(v)
        return quotient, self.quotient_error(v, Hv), Hv

    def quotient(self, v: Array) -> tuple[float, Floats]:
        """Return ``v'Hv / v'v`` and ``Hv``, using one product."""
        v = np.asarray(v, dtype=self.dtype).astype(float)
        Hv = self(v)
        return float(v @ Hv) / float(v @ v), Hv

    def quotient_error(self, v: Array, Hv: Floats) -> float:
        """Return a bound on the error of the Rayleigh quotient that `quotient` returned with `Hv`.

        The dot product, in float64, is off by at most ``n eps ||v|| ||Hv||`` in any order of
        summation; the bound takes twice that. The observed asymmetry of the products is added.
        """
        v = np.asarray(v, dtype=self.dtype).astype(float)
        size = float(v @ v)
        slack = 2 * self.n * np.finfo(float).eps * np.linalg.norm(v) * safe_norm(Hv)
        lost = self.n * float(np.finfo(float).smallest_subnormal)
        return float((self.bound(v) * size**0.5 + slack + lost) / size) + self.asymmetry


def hessian_products(ob: Any, theta: Array, best: bool = True) -> Products:
    """Return the Hessian at theta as `Products`; `best` asks for float64 where the operator offers
    `astype`.
    """
    H = as_curvature(ob.hessian(theta), theta.size)
    return Products(H, np.float64 if best else None)


def gradient_at(ob: Any, theta: Array, H: Products) -> Floats:
    """Return the gradient at theta: the one held by the operator, in its precision (float64 where
    it was cast), else the objective's own, as where the operator is of another objective.
    """
    own = is_plain(ob) and getattr(H.native, "objective", ob) is ob
    held = getattr(H.op, "gradient", None) if own else None
    held = held() if callable(held) else held
    if held is None or np.shape(held) != (H.n,):
        held = ob.value_and_gradient(theta)[1] if _only_at_once(ob) else ob.gradient(theta)
    return as_gradient(held, H.n)


def gradient_bound(ob: Any, theta: Array, H: Products) -> float | None:
    """Return a bound on the rounding error of the gradient that `gradient_at` returns, or None
    where the objective offers none.
    """
    bound = rounding_bound_of(getattr(H.op, "objective", ob) if is_plain(ob) else ob)
    return None if bound is None else float(bound(theta))


def spectral_norm(A: Floats, steps: int = 12) -> float:
    """Return a lower estimate of ``||A||_2`` for a symmetric matrix, by power iteration from a
    fixed random start.
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
    """Return d > 0 such that the largest entry of each row of ``d A d`` is near 1 in size (Ruiz
    2001), and a mask of the rows that were used.

    Rows without an entry above `noise`, given by rows (n,) or by entries (n, n), carry no
    information about the scale of their parameter. They are left out and get the geometric mean of
    the other d.
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
    """Refine `d` until all rows of ``d A d`` have the same 2-norm, and return the result.

    That scaling is unique, so the units in which the parameters are given do not change ``d A d``.
    """
    squares, f = (d[:, None] * A * d) ** 2, np.ones(len(d))
    for _ in range(30):
        rows = (squares @ f) * f
        f /= np.sqrt(np.where(rows > 0, rows, 1.0))
        if np.abs(rows[rows > 0] - 1).max(initial=0.0) < 1e-2:
            break
    return d * np.sqrt(f)


def balance(A: Floats, noise: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return d > 0 such that the rows of ``d A d`` have equal 2-norms, and a mask of the rows that
    were used; the scale of the others is chosen by `_as_loud`.

    Rows without an entry above their `noise`, given by rows (n,) or by entries (n, n), are not
    used, nor are rows whose scaled noise would reach the size of the other rows.
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
        across = d if noise.shape[1] > 1 else d[:, None]  # noise by rows: d_i stands for all
        loud = live & (np.linalg.norm(d[:, None] * noise * across, axis=1) > np.median(rows))
        if not loud.any():
            break
        live &= ~loud
    return d, live


def _as_loud(noise: Floats, d: Floats, live: NDArray[np.bool_]) -> Any:
    """Return d for the rows that are not used: where the noise is known by entries, the d for which
    their scaled noise equals the median of the rows in use, else the geometric mean of the d in
    use.
    """
    mean = np.exp(np.log(d[live]).mean())
    if noise.shape[1] == 1:
        return mean
    sizes = np.linalg.norm(noise[:, live] * (d[live] / mean), axis=1)
    level = float(np.median(sizes[live] * d[live]))
    found = level / np.maximum(sizes[~live], 1e-300)
    # rows without any noise would get a d without any sense
    return np.where((found > mean * 1e-60) & (found < mean * 1e60), found, mean)


def balances(A: Floats, noise: Floats, layers: NDArray[np.intp]) -> list[Floats]:
    """Return candidate units d > 0 whose largest entry lies in [1, 2), which follow any rescaling
    of the parameters.

    The first makes the rows of ``d A d`` equally long. Where the `noise` is known by entries,
    (n, n), a second does so for the rows of the noise.

    Both start from a scaling that evens out the noise, and this start does not depend on the units
    of the parameters. If those are powers of two, ``d A d`` is the same bits in all of them, up to
    one common power of two.
    """
    if noise.shape[1] == 1:
        return [_largest_one(balance(A, noise)[0])]
    start = even_entries(noise, layers)
    noise = start[:, None] * noise * start
    faint = np.full((len(A), 1), 1e-15 * np.median(noise))
    rows = balance(start[:, None] * A * start, noise)[0], balance(noise, faint)[0]
    return [_largest_one(start * d) for d in rows]


def even_entries(noise: Floats, layers: NDArray[np.intp]) -> Floats:
    """Return powers of two d that minimize the sum of squared logarithms of the entries of
    ``d noise d`` (Curtis and Reid 1972).

    Entries that are 0, or small enough to stem from underflow, are left out; a large unit of the
    loss multiplies these too, so the limit grows with the largest entry. This is a least-squares
    problem on the sparsity pattern, so a change of the units of rows changes nothing but d. All
    `layers`, given as the layer number of each row, have the same weight: if one has collapsed, d
    lies half-way between its units and those of the others, however many parameters each has.
    """
    shares = 1.0 / np.bincount(layers)[layers]
    counted = noise > UNDERFLOWN * max(1.0, float(noise.max(initial=0.0)))
    logs = np.log2(np.where(counted, noise, 1.0))
    each = counted @ shares
    # a pattern without diagonal entries may be bipartite: the units of one side are then free
    # against the other, and the small diagonal term fixes them
    M = counted * shares + np.diag(each + 1e-9 * (1e-9 + each))
    x = np.linalg.solve(M, -(logs @ shares))
    middle = np.median(x[each > 0]) if each.any() else 0.0
    x = np.where(each > 0, x, middle)
    return np.asarray(np.exp2(np.round(np.clip(x, middle - FARTHEST, middle + FARTHEST))))


def _largest_one(d: Floats) -> Floats:
    return np.asarray(np.ldexp(d, 1 - int(np.frexp(d.max())[1])))


def independent(T: Floats, rtol: float = 1e-7) -> Floats:
    """Return an orthonormal basis of the span of T's columns.

    Columns are normalized first, and singular directions below `rtol` of the largest are dropped,
    so the dimension is never overestimated.
    """
    sizes = np.linalg.norm(T, axis=0)
    T = T[:, sizes > 0] / sizes[sizes > 0]
    if not T.shape[1]:
        return T
    U, s, _ = svd(T)
    return U[:, s > rtol * s[0]]


def annihilated(AQ: Floats, Q: Floats, tol: float) -> Floats:
    """Return an orthonormal basis of the part of span(Q), Q orthonormal, on which the singular
    values of `AQ` = A Q are at most `tol`.
    """
    if not Q.shape[1]:
        return Q
    _, s, Vt = svd(AQ)
    return np.asarray(Q @ Vt[s <= tol].T)


# A Newton step longer than this many times theta leaves the region where any local model of the
# loss holds: H counts as flat along the gradient.
FAR = 1e6


class Inertia(ABC):
    """A strategy for the inertia of H at theta, and the questions that `classify` asks of each, in
    this order; what a theorem that fails leaves open is asked of `ByEigenpairs` and `ByProducts`.

    Attributes
    ----------
    ask : ClassifyOptions
    H : Products
    gradient : (ndarray, float)
        g, and a bound on the norm of its error.
    near : Nearness
        Known from the beginning; the rest is asked only where theta is near.
    cut : Slice or None
        All eigenpairs, where they are known.
    """

    ask: ClassifyOptions
    H: Products
    gradient: tuple[Floats, float]
    near: Nearness
    cut: Any = None

    @abstractmethod
    def theorem(self) -> tuple[Contraction, float]:
        """Return Kantorovich's theorem as far as it can be tried, and the length of Newton's
        step.
        """

    @abstractmethod
    def slope(self) -> Nearness:
        """Return the nearness with what H does to the gradient."""

    @abstractmethod
    def spectrum(self, proof: Proof) -> Spectrum:
        """Return the curvature with its signs, as far as they last."""


# --------------------------------------------------------------------------------------------------
# The arguments of `classify`, validated once and then immutable.


@dataclass(frozen=True, eq=False)
class ClassifyOptions:
    """The validated arguments of `classify`; ``seek`` is False where no Newton walk to a nearby
    critical point is wanted.
    """

    ob: Any
    theta: np.ndarray
    gradient_tol: float | None
    curvature_tol: float
    failure_probability: float | None
    max_products: int | None
    dense_below: float
    seed: Any
    krylov: Any  # None, a `Krylov` run, or its `Runs` once this thread holds them
    max_time: float | None = None
    seek: bool = True

    @property
    def dense(self) -> bool:
        """True where the whole spectrum is computed, if that surely fits into the time."""
        n = self.theta.size
        return (
            n < self.dense_below
            and (self.max_products is None or self.max_products >= n)
            and (self.max_time is None or PER_CUBE * float(n) ** 3 <= self.max_time)
        )


def check_run(run: Any, theta: np.ndarray) -> Krylov:
    """Check that `run` is a `Krylov` run on an operator that may be the Hessian at theta, and
    return it; `check_operator` compares the operators.
    """
    if not isinstance(run, Krylov):
        raise TypeError(
            f"krylov is a {type(run).__name__}; wanted a fastcurv.spectrum.Krylov on the Hessian "
            "at theta"
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


STALE = 100.0  # sqrt(eps) that a Lanczos relation may be off by; semi-orthogonality loses a few


def check_operator(run: Runs, H: Products) -> int:
    """Check that `run` was made on the operator of H, the Hessian at theta, and return the number
    of products that this took.

    An operator of a network is known by its objective and its kind. Any other operator must have
    the same product with a random vector, and the products that the run holds must be those of H:
    a random combination of the basis shows this in one product.
    """
    op, native, rng = run.op, H.native, np.random.default_rng(0)
    if _is_same_curvature(op, native):
        return 0
    spent, same = 0, True
    if op is not native:
        v, other = rng.standard_normal(H.n), Products(op, np.float64)
        mine, its = H(v), other(v)
        rounding = PRODUCT_EPS * max(H.eps, other.eps)
        off = H.bound(v) + other.bound(v) + rounding * (safe_norm(mine) + safe_norm(its))
        same, spent = bool(safe_norm(mine - its) <= off), 1
    x, expected, size = _held_products(run, rng)
    if same and size > 0:
        found = H(x)
        most = STALE * float(np.finfo(run.dtype).eps) ** 0.5 * max(size, safe_norm(found))
        same, spent = bool(safe_norm(found - expected) <= most), spent + 1
    if not same:
        raise ValueError(
            f"krylov must be a run on ob.hessian(theta), got one on {_described(op)}, whose "
            "products differ. Make one by fastcurv.spectrum.Krylov(ob.hessian(theta))."
        )
    return spent


def _described(op: Any) -> str:
    return f"a matrix of shape {op.shape}" if isinstance(op, MatrixOperator) else repr(op)


def _is_same_curvature(op: Any, native: Any) -> bool:
    """Return whether both are operators of fastcurv at one theta, of one kind and of the very same
    objective.
    """
    ours = type(op) is type(native) and type(op).__module__.startswith("fastcurv.network.")
    if not (ours and all(hasattr(op, name) for name in ("objective", "kind", "theta"))):
        return False
    same = op.objective is native.objective and op.kind == native.kind
    return bool(same and op.dtype == native.dtype and np.array_equal(op.theta, native.theta))


def _held_products(run: Runs, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Return a random combination x of the bases of a run, the product with it that the run holds,
    and the largest that the norm of this product may be; zeros for a run without products.
    """
    x, product, size = np.zeros(run.n), np.zeros(run.n), 0.0
    for start, one in run.by_start:
        y = rng.standard_normal(one.m)
        small = run.small if start is None else None
        for T, total in ((np.eye(one.m), x), (one.T[: one.m + one.p, : one.m], product)):
            part = (T @ y) @ one.rows[: len(T)].astype(float)
            total += part if small is None else small.embed(part).astype(float)
        size += one.scale * safe_norm(y)
    return x, product, size
