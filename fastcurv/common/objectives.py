"""What any objective may be asked: its values, gradients and Hessian products, checked and counted,
and what it proves about itself, with a default that claims nothing.

An objective is any object with `n_params`, `value`, `gradient` and `hessian`; all else it may
offer, under the names that `fastcurv.common.protocols` lists. Wherever a bound is asked for,
infinity or NaN means "not known".
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

from .checks import check_symmetric_operator, operator_dtype, times
from .errors import typed
from .progress import Bar
from .protocols import Array, Certificate, Floats
from .runtime import Budget, resume_arithmetic
from .vectors import safe_norm

# Assumed error of a product of an operator that offers no bound of its own, in eps ||H|| ||v||.
PRODUCT_EPS = 64.0
# Curvature below this times the norm of H counts as zero unless its sign is proved to last.
ZERO_CURVATURE_RATIO = 1e-10
VALUE_EPS = 64.0  # f is assumed to be off by this many eps |f| ...
# bytes of theta that take less time to copy than to ask whether that is needed
SHORT_THETA_BYTES = 4096
LOSS_METHODS = "value", "gradient", "value_and_gradient", "hessian", "ggn"

# --------------------------------------------------------------------------------------------------
# What an objective proves about itself.


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
    sources = [source for name in LOSS_METHODS if (source := _source(ob, name)) is not None]
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
    own, replaced = getattr(source, "__dict__", ()), getattr(source, "replaced_functions", ())
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


def probes(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Return directions of curvature that the gradient cannot see, as columns ``(n, p)``."""
    found = proved(ob, "probes", theta)
    return np.zeros((theta.size, 0)) if found is None else np.asarray(found)


def lower_bound(ob: Any) -> float:
    """Return a lower bound on the value, -inf where none is known."""
    c = offered(ob, "loss_lower_bound", -np.inf)
    return float(c() if callable(c) else c)


# --------------------------------------------------------------------------------------------------
# Values, gradients and operators of an objective, checked.


def as_stored(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Return `theta`, in float64, rounded to the precision in which the objective stores it."""
    single = getattr(ob, "dtype", None) == np.float32
    return theta.astype(np.float32).astype(np.float64) if single else theta


def in_float64(ob: Any) -> Any:
    """Return the objective cast to float64 if it is in float32 and can be cast, else unchanged."""
    cast = getattr(ob, "dtype", None) == np.float32 and hasattr(ob, "astype") and is_plain(ob)
    return ob.astype(np.float64) if cast else ob


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
        trusted = theta.nbytes > SHORT_THETA_BYTES and offered(ob, "keeps_theta", False)
        self.before = None if trusted else theta.tobytes()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        resume_arithmetic()
        if self.before is None or not (error is None or isinstance(error, Exception)):
            return
        if self.theta.tobytes() != self.before:
            raise ValueError(
                "the objective must not write into the theta that is passed to it, got a changed "
                "theta. Work on a copy, theta.copy()."
            ) from error


def as_number(value: Any) -> float:
    """Return an objective's value, a number or an array of size 1, as a float."""
    resume_arithmetic()
    if isinstance(value, (float, int)):
        return float(value)
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise TypeError(
            f"the objective's value must be a number, got an array of shape {found.shape} and "
            f"dtype {found.dtype}."
        )
    return float(found.reshape(()))


def as_gradient(g: Any, n: int, dtype: Any = float, *, kept: bool = True) -> np.ndarray:
    """Return an objective's gradient, which may be a buffer of its own, as an array of shape (n,):
    a new one where it is `kept` while the objective is asked again.
    """
    resume_arithmetic()
    shape = np.shape(g)
    if shape != (n,) and not (n == 1 and np.size(g) == 1):
        raise ValueError(f"the objective's gradient must have shape ({n},), got {shape}.")
    own = np.array(g, dtype) if kept else np.require(g, dtype, ["C", "A", "E"])
    return own.reshape(n)


def as_curvature(H: Any, n: int, name: str = "hessian") -> Any:
    """Validate an objective's Hessian or GGN, an operator or matrix of shape ``(n, n)``, and return
    it.
    """
    resume_arithmetic()
    if not any(hasattr(H, part) for part in ("product", "matvec", "__matmul__")):
        raise TypeError(
            f"the objective's {name} must be a symmetric matrix, numpy.array(...), or "
            f"LinearOperator of shape ({n}, {n}), got {typed(H)}."
        )
    shape = getattr(H, "shape", (n, n))
    if tuple(shape) != (n, n):
        raise ValueError(f"the objective's {name} must have shape ({n}, {n}), got {tuple(shape)}.")
    return H


def value_at(ob: Any, theta: np.ndarray) -> float:
    """Return the objective's value at theta as a float."""
    with call_unmodified(ob, theta):
        return as_number(ob.value_and_gradient(theta)[0] if _only_at_once(ob) else ob.value(theta))


def value_rounding(f: float, dtype: Any) -> float:
    """Return the assumed rounding error of a value: a smaller decrease does not count as one."""
    return VALUE_EPS * float(np.finfo(dtype).eps) * abs(f)


# --------------------------------------------------------------------------------------------------
# Counted products with a Hessian.


class SpentError(Exception):
    """Raised when a measurement would need more products than the budget has left."""


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
        return max(ZERO_CURVATURE_RATIO, 100 * self.eps) * self.norm

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
