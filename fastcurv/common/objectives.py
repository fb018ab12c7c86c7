"""Access to any objective: its values and gradients, checked, its Hessian products, checked and
counted, and its certificates, with a default if there are none.

An objective is any object with `n_params`, `value`, `gradient` and `hessian`;
`fastcurv.common.protocols` lists the optional attributes. A bound of infinity or NaN means "not
known".
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .checks import check_symmetric_operator, checked_product, objective_dtype, operator_dtype
from .errors import type_phrase
from .progress import ProgressBar
from .protocols import (
    NOT_OFFERED_REASON,
    Array,
    Certificate,
    Floats,
    SupportsDerivatives,
    capability,
    is_library_object,
    missing_bound_reason,
    missing_reason,
    states,
)
from .runtime import Budget
from .vectors import safe_norm

# error assumed for a product of an operator that offers no bound, in eps ||H|| ||v||
PRODUCT_ERROR_EPS = 64.0
# Curvature below this fraction of the norm of H counts as zero unless its sign is proved to be
# stable. The fraction is well above n eps, the rounding error of a computed eigenvalue.
ZERO_CURVATURE_RATIO = 1e-10
VALUE_ERROR_EPS = 64.0  # error assumed for f if no bound is given, in eps |f|

# --------------------------------------------------------------------------------------------------
# The certificates of an objective, which are proved statements about it.


def has_only_joint_evaluation(ob: object) -> bool:
    """Return True if the class of an object has `value_and_gradient` but neither `value` nor
    `gradient`.
    """
    kind = type(ob)
    return hasattr(kind, "value_and_gradient") and not (
        hasattr(kind, "value") or hasattr(kind, "gradient")
    )


def _find_certificate(ob: Any, name: str) -> tuple[Any, str]:
    """Return the certificate `name` of an objective and "", or None and the reason why there is
    none. A certificate is an attribute, most often a method.

    An attribute that the class of the objective states takes precedence over one of its
    `certificates`. An attribute that is None claims nothing.
    """
    if states(ob, name):
        certificate = getattr(ob, name)
        why = ""
    else:
        why = missing_reason(ob, "certificates")
        certificate = None if why else getattr(ob.certificates, name, None)
    if certificate is None:
        why = why or getattr(ob, "why_unproved", "") or NOT_OFFERED_REASON
    return certificate, why


def why_unproved(ob: object, name: str = "third_bound") -> str:
    """Return the reason why an objective has no certificate `name`, as a clause, or "" if it has
    one.
    """
    return _find_certificate(ob, name)[1]


def certificate_method(ob: object, name: Certificate, default: Any = None) -> Any:
    """Return the certificate `name` of an objective: its own attribute, otherwise that of its
    `certificates`, otherwise the default.
    """
    certificate, _ = _find_certificate(ob, name)
    return default if certificate is None else certificate


def call_certificate(ob: object, name: Certificate, *at: object, default: Any = None) -> Any:
    """Return the result of the `certificate_method` `name` for the arguments `at`, or the default
    if there is none.
    """
    method = certificate_method(ob, name)
    if method is None:
        return default
    return method(*at)


def has_consistent_hessian(ob: object) -> bool:
    """Return True if an objective states that its value, gradient and Hessian belong to one
    function: its exact class is one of this library's, or its class defines `certificates`. If
    True, values cached by its operators and copies in other precisions also belong to that
    function.
    """
    return is_library_object(ob) or not missing_reason(ob, "certificates")


def gradient_error_bound_at(ob: object, theta: np.ndarray) -> float | None:
    """Return a bound on the norm of the rounding error of the objective's gradient at theta, or
    None if the objective states no `rounding_bound`, or if that returns None.
    """
    known = None if missing_bound_reason(ob) else capability(ob, "rounding_bound")
    bound = None if known is None else known(theta)
    return None if bound is None else float(bound)


def certificate_start_vectors(ob: object, theta: np.ndarray) -> np.ndarray:
    """Return the start vectors (n, p), as columns, from the certificate `probes`, for curvature
    orthogonal to the gradient. Without this certificate p is 0.
    """
    probes = call_certificate(ob, "probes", theta)
    return np.zeros((theta.size, 0)) if probes is None else np.asarray(probes)


def value_lower_bound(ob: object) -> float:
    """Return a lower bound on the value, or -inf if none is known."""
    c = certificate_method(ob, "loss_lower_bound", -np.inf)
    return float(c() if callable(c) else c)


# --------------------------------------------------------------------------------------------------
# Values, gradients and operators of an objective, checked.


def round_to_dtype(ob: object, theta: np.ndarray) -> np.ndarray:
    """Return `theta` in float64, rounded to the precision in which the objective stores its
    parameters.
    """
    single = objective_dtype(ob) == np.float32
    return theta.astype(np.float32).astype(np.float64) if single else theta


def sample_weights(ob: Any) -> Floats:
    """Return a copy of the weights (N,) of the samples of an objective, or ones if it has none."""
    return np.ones(ob.n_samples) if ob.sample_weight is None else np.array(ob.sample_weight, float)


def cast_to_float64(ob: Any) -> Any:
    """Return the objective cast to float64 if it is in float32 and can be cast, otherwise
    unchanged.
    """
    cast = objective_dtype(ob) == np.float32 and has_consistent_hessian(ob)
    return ob.astype(np.float64) if cast and states(ob, "astype") else ob


class user_call_guard:
    """Context manager for calls of a user-defined objective, which raises ValueError on exit if
    theta was modified.

    An objective that writes into its argument theta returns values and derivatives for a different
    point. Objectives of the library's own classes do not, and are not checked.
    """

    __slots__ = ("before", "theta")

    def __init__(self, ob: object, theta: np.ndarray) -> None:
        self.theta = theta
        self.before = None if is_library_object(ob) else theta.tobytes()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.before is None or not (error is None or isinstance(error, Exception)):
            return
        if self.theta.tobytes() != self.before:
            raise ValueError(
                "the objective must not write into the theta that is passed to it, got a changed "
                "theta. Work on a copy, theta.copy()."
            ) from error


def value_as_float(value: object) -> float:
    """Return an objective's value, a number or an array of size 1, as a float."""
    if isinstance(value, (float, int)):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TypeError(
            f"the objective's value must be a number, got an array of shape {array.shape} and "
            f"dtype {array.dtype}."
        )
    return float(array.reshape(()))


def checked_gradient(
    g: ArrayLike, n: int, dtype: DTypeLike | None = float, *, kept: bool = True
) -> np.ndarray:
    """Return an objective's gradient g as an array of shape (n,). If `kept` is True, the array is a
    copy, because g may be a buffer that the next call of the objective overwrites.
    """
    shape = np.shape(g)
    if shape != (n,) and not (n == 1 and np.size(g) == 1):
        raise ValueError(f"the objective's gradient must have shape ({n},), got {shape}.")
    own = np.array(g, dtype) if kept else np.require(g, dtype, ["C", "A", "E"])
    return own.reshape(n)


def checked_curvature(H: Any, n: int, name: str = "hessian") -> Any:
    """Return an objective's Hessian or GGN, an operator or matrix of shape ``(n, n)``, after
    validating its type and shape. `name` is used in messages.
    """
    if not any(hasattr(H, part) for part in ("product", "matvec", "__matmul__")):
        raise TypeError(
            f"the objective's {name} must be a symmetric array or LinearOperator of shape "
            f"({n}, {n}), got {type_phrase(H)}."
        )
    shape = getattr(H, "shape", (n, n))
    if tuple(shape) != (n, n):
        raise ValueError(f"the objective's {name} must have shape ({n}, {n}), got {tuple(shape)}.")
    return H


def value_at(ob: Any, theta: np.ndarray) -> float:
    """Return the objective's value at theta as a float."""
    with user_call_guard(ob, theta):
        return value_as_float(
            ob.value_and_gradient(theta)[0] if has_only_joint_evaluation(ob) else ob.value(theta)
        )


def value_rounding_error(f: float, dtype: np.dtype | type[float]) -> float:
    """Return the assumed rounding error of a value f computed in `dtype`. A smaller decrease of the
    value does not count as a decrease.
    """
    return VALUE_ERROR_EPS * float(np.finfo(dtype).eps) * abs(f)


# --------------------------------------------------------------------------------------------------
# Counted products with a Hessian.


class BudgetSpentError(Exception):
    """An error raised if a measurement would need more products than the remaining budget."""


class BudgetedOperator(Budget):
    """The products with a symmetric operator, counted within a budget, with bounds on their
    rounding errors. If `dtype` is given and the operator has a method `astype`, the operator is
    cast.
    """

    def __init__(self, op: object, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.op = self.native = check_symmetric_operator(op, "H")
        self.native_dtype = operator_dtype(self.op)
        if dtype is not None and self.native_dtype != dtype and hasattr(self.op, "astype"):
            self.op = self.op.astype(dtype)
        self.n: int = self.op.shape[0]
        self.dtype = operator_dtype(self.op)
        self.eps = float(np.finfo(self.dtype).eps)
        self.short = False  # True if `reserve_products` raised SpentError
        self.norm = 0.0
        self.pace = 0.0  # seconds that one product takes
        self.shown: ProgressBar | None = None
        # norm of the measured asymmetry of H, a lower bound on the error of products
        self.asymmetry = 0.0
        # recent results of `product_error_bound`
        self._bounds: deque[tuple[Array, float]] = deque(maxlen=4)

    def __call__(self, V: Array) -> Floats:
        """Return ``H V`` in float64 for V of shape (n,) or (n, k)."""
        V = np.asarray(V, dtype=self.dtype)
        self.record_products(1 if V.ndim == 1 else V.shape[1])
        began = time.perf_counter()
        out = np.asarray(checked_product(self.op, V), dtype=float)
        self.pace = (time.perf_counter() - began) * V.shape[0] / max(1, V.size)
        largest = float(np.abs(out).max(initial=0.0))
        if 0 < largest < np.inf:  # scaled so that squares neither overflow nor underflow
            sizes = np.linalg.norm(np.asarray(V, dtype=float), axis=0)
            lengths = np.linalg.norm(out / largest, axis=0)
            ratios = np.divide(lengths, sizes, out=np.zeros_like(lengths), where=sizes > 0)
            self.norm = max(self.norm, largest * float(ratios.max(initial=0.0)))
        return out

    @property
    def norm_estimate(self) -> float:
        """An estimate of ``||H||_F``, valid after a product with a random vector.

        The mean of ``n ||Hv||^2 / ||v||^2`` over random v is ``||H||_F^2``, and ``||H||_2`` is at
        most ``||H||_F``.
        """
        return float(self.n**0.5 * self.norm)

    @property
    def zero_threshold(self) -> float:
        """The threshold below which curvature counts as zero unless its sign is proved to be
        stable.
        """
        return max(ZERO_CURVATURE_RATIO, 100 * self.eps) * self.norm

    def reserve_products(self, k: int) -> None:
        """Count k products before they are computed. Raise `BudgetSpentError` if the budget does
        not allow them.
        """
        if not self.allows(k):
            self.short = True
            raise BudgetSpentError
        self.record_products(k)

    def show_note(self, text: str) -> None:
        """Show `text` as the current activity next to the progress bar, if there is one."""
        if self.shown is not None:
            self.shown.note(text)

    def record_products(self, k: int) -> None:
        """Count k computed products and advance the progress bar."""
        self.count += k
        if self.shown is not None:
            self.shown.update(k)

    def product_error_bound(self, v: Array) -> float:
        """Return a bound on ``||computed(H v) - H v||``. If the operator has no `rounding_bound` of
        its own, return the estimate `PRODUCT_ERROR_EPS` eps ``||H|| ||v||``, with the largest ratio
        of ``||H x||`` to ``||x||`` so far for ``||H||``.
        """
        v = np.ascontiguousarray(v, dtype=self.dtype)
        # Results are cached because a bound costs about ten products.
        for vector, bound in self._bounds:
            if np.array_equal(vector, v):
                return bound
        known = None if missing_bound_reason(self.op) else capability(self.op, "rounding_bound")
        stated = None if known is None else known(v)
        if stated is None:
            return PRODUCT_ERROR_EPS * self.eps * self.norm * safe_norm(v)
        self._bounds.append((v.copy(), float(stated)))
        return float(stated)

    def rayleigh_quotient_with_error(self, v: Array) -> tuple[float, float, Floats]:
        """Return ``v'Hv / v'v``, a bound on its error, and ``Hv``, using one product."""
        quotient, Hv = self.rayleigh_quotient(v)
        return quotient, self.rayleigh_quotient_error(v, Hv), Hv

    def rayleigh_quotient(self, v: Array) -> tuple[float, Floats]:
        """Return ``v'Hv / v'v`` and ``Hv``, using one product."""
        v = np.asarray(v, dtype=self.dtype).astype(float)
        Hv = self(v)
        return float(v @ Hv) / float(v @ v), Hv

    def rayleigh_quotient_error(self, v: Array, Hv: Floats) -> float:
        """Return a bound on the error of the Rayleigh quotient that `rayleigh_quotient` returned
        with `Hv`.

        The error of the float64 dot product is at most ``n eps ||v|| ||Hv||`` in any order of
        summation, and the bound uses twice this value. The measured asymmetry of the products is
        added.
        """
        v = np.asarray(v, dtype=self.dtype).astype(float)
        size = float(v @ v)
        slack = 2 * self.n * np.finfo(float).eps * np.linalg.norm(v) * safe_norm(Hv)
        lost = self.n * float(np.finfo(float).smallest_subnormal)
        return (
            float((self.product_error_bound(v) * size**0.5 + slack + lost) / size) + self.asymmetry
        )


def budgeted_hessian(ob: SupportsDerivatives, theta: Array, best: bool = True) -> BudgetedOperator:
    """Return `BudgetedOperator` with the Hessian at theta, in float64 if `best` is True and the
    operator has a method `astype`.
    """
    H = checked_curvature(ob.hessian(theta), theta.size)
    return BudgetedOperator(H, np.float64 if best else None)


def _has_gradient_of(ob: object, H: BudgetedOperator) -> bool:
    """Return True if the operator of H states a `gradient` of length n and belongs to the objective
    `ob`, so that this gradient is that of `ob`.
    """
    if not (has_consistent_hessian(ob) and getattr(H.native, "objective", ob) is ob):
        return False
    gradient: Any = getattr(H.op, "gradient", None) if states(H.native, "gradient") else None
    gradient = gradient() if callable(gradient) else gradient
    return bool(np.shape(gradient) == (H.n,))


def gradient_at(ob: Any, theta: Array, H: BudgetedOperator) -> Floats:
    """Return the gradient (n,) at theta in float64, as stored in the operator of H. If the operator
    stores none or belongs to another objective, compute the gradient of the objective.
    """
    if _has_gradient_of(ob, H):
        stored = H.op.gradient
        return checked_gradient(stored() if callable(stored) else stored, H.n)
    gradient = (
        ob.value_and_gradient(theta)[1] if has_only_joint_evaluation(ob) else ob.gradient(theta)
    )
    return checked_gradient(gradient, H.n)


def gradient_error_bound(ob: object, theta: Array, H: BudgetedOperator) -> float | None:
    """Return a bound on the norm of the rounding error of the gradient from `gradient_at`, or None
    if the objective has no `rounding_bound` of its own.
    """
    return gradient_error_bound_at(
        getattr(H.op, "objective", ob) if _has_gradient_of(ob, H) else ob, theta
    )
