"""Losses and activations given by a function of NumPy arrays: the interface of these functions for
the library, and the built-in losses that are defined in this way.
`fastcurv.structure.user_functions` has the classes for user-defined functions.

The engine computes the argument (the outputs, or z of a layer) and calls the function once for each
theta and block of rows. The function returns values and first and second derivatives, which the
engine stores, so a product costs the same as with any other loss or activation. Proofs need a bound
on the third derivative, a bound on the error of the function, and a lower bound. The library states
them for its own losses; nothing is proved with a user-defined function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..common.errors import type_phrase
from ..common.protocols import Array, Floats
from ..common.read_only import ReadOnlyMixin

Values = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
Made = TypeVar("Made", bound="LossFunction")
EPS = float(np.finfo(float).eps)
LONG_DOUBLE_EPS = float(np.finfo(np.longdouble).eps)
# factor by which bounds are enlarged to cover the rounding of the few operations that compute them
USER_BOUND_ROUND_UP_FACTOR = 1 + 1e-12
MAX_COUPLED_OUTPUTS = 64  # maximum number of outputs of a loss with a full second derivative
MIN_NORMAL = float(np.finfo(float).tiny)
# bound on the errors of built-in losses; its unit is defined in `LossFunction.error_bounds`
LOSS_ERROR_ULPS = 16


class UserFunction(ReadOnlyMixin):
    """Base class of losses and activations given by a NumPy function that returns a value and two
    derivatives. It holds the function and its known properties.
    """

    function: Callable[..., Values]
    name: str
    parts: tuple[str, str, str]
    _read_only = frozenset(["function", "name", "parts"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def __str__(self) -> str:
        return self.name

    def _call_function(self, *at: NDArray[Any]) -> Values:
        """Return the three results of the function as arrays. The arguments `at` are passed as
        read-only views. Raise TypeError if the function does not return a tuple of three.
        """
        at = tuple(part.view() for part in at)
        for part in at:
            part.flags.writeable = False
        with np.errstate(all="ignore"):
            derivatives = self.function(*at)
        if not isinstance(derivatives, tuple) or len(derivatives) != 3:
            raise TypeError(
                f"{self!r} must return ({', '.join(self.parts)}), got {type_phrase(derivatives)}."
            )
        first, second, third = map(np.asarray, derivatives)
        return first, second, third

    def _check_shape(
        self, name: str, part: NDArray[Any], shapes: list[tuple[int, ...]], *at: NDArray[Any]
    ) -> None:
        """Raise ValueError if the result `part`, called `name` in the message, does not have one of
        the shapes or does not hold floats. `at` are the arguments of the call.
        """
        if part.shape not in shapes or part.dtype.kind not in (
            "fc" if at[0].dtype.kind == "c" else "f"
        ):
            which = " or ".join(map(str, shapes))
            of = " and ".join(f"{a} of shape {x.shape}" for a, x in zip("zy", at))
            raise ValueError(
                f"{self!r} must return {name} as floats of shape {which}, got shape {part.shape} "
                f"and dtype {part.dtype} for {of}."
            )


class LossFunction(UserFunction):
    """A loss given by a function of outputs and targets, with its known properties. It is a
    built-in loss or a user-defined `fastcurv.Loss`.
    """

    parts = ("value", "first", "second")
    built_in = True
    _read_only = UserFunction._read_only | frozenset(
        ["third_bound", "built_in", "convex", "exponential", "per_target", "least"]
        + ["lower_bound"]
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Values],
        lower_bound: float | None,
        *,
        third_bound: float | Callable[..., Floats] = np.inf,
        convex: bool = False,
        exponential: bool = False,
        per_target: int = 1,
        least: tuple[float, bool] | None = None,
        coupled: bool | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self.lower_bound = lower_bound
        self.third_bound = third_bound  # bound on the third derivative; infinite if it is unknown
        self.convex = convex  # True if the loss is convex in the outputs
        self.exponential = exponential  # True if the mean is exp(z)
        # number of outputs for each target, or 0 if targets may have any width
        self.per_target = per_target
        # infimum of the valid targets, and True if a target may equal it; None if all are valid
        self.least = least
        self._coupled = coupled  # value of the property `coupled`; None before the first call

    def __repr__(self) -> str:
        return f"Loss.{self.name}" if self.built_in else super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a built-in loss by its name, without parameters."""
        return built_in_loss, (self.name.partition("(")[0],)

    @property
    def coupled(self) -> bool:
        """True if the second derivative of the loss of a row is a full matrix (d, d), and False if
        it is diagonal. The layout of the engine's state depends on this property, so RuntimeError
        is raised if it is not known.
        """
        if self._coupled is None:
            raise RuntimeError(
                f"{self!r} must be called before the shape of its second derivative is known. "
                "Create an Objective with this loss first."
            )
        return self._coupled

    @property
    def is_known(self) -> bool:
        """True if the function is built in or has been called, so that `coupled` can be read."""
        return self._coupled is not None

    def determine_properties(self, y: Array, d: int, weight: Array | None) -> None:
        """Call the function with d outputs and some of the targets y, so that `coupled` becomes
        known. Do nothing if `is_known` is True. Rows whose `weight` is 0 are not used, unless all
        weights are 0.
        """
        if not self.is_known:
            counts = slice(None) if weight is None or not np.any(weight) else weight != 0
            self._check_on_sample(y[counts], d)

    def _check_on_sample(self, y: NDArray[Any], d: int) -> None:
        """Raise ValueError if the function is not a valid loss for targets y and d outputs.
        Built-in losses are valid, so this method does nothing; `fastcurv.Loss` overrides it.
        """

    # --- the function

    def __call__(self, z: Array, y: Array) -> Values:
        """Return the loss of each row (N,), and its first derivatives (N, d) and second
        derivatives, (N, d) or (N, d, d), with respect to the outputs z (N, d), for targets y, in
        the precision of z. Raise ValueError if a result has another shape.
        """
        y = np.asarray(y, z.real.dtype)
        value, first, second = self._call_function(z, y)
        N, d = z.shape
        self._check_shape("value", value, [(N,)], z, y)
        self._check_shape("first", first, [(N, d)], z, y)
        self._check_shape("second", second, [(N, d), (N, d, d)], z, y)
        coupled = second.ndim == 3
        if self._coupled is None:
            self._coupled = coupled
        if self._coupled != coupled:
            raise ValueError(
                f"{self!r} must return second with the same number of axes in every call, got "
                f"{second.ndim} after {2 + bool(self._coupled)}."
            )
        if coupled and d > MAX_COUPLED_OUTPUTS:
            raise ValueError(
                f"{self!r} must couple at most {MAX_COUPLED_OUTPUTS} outputs by its second "
                f"derivative, got {d}."
            )
        return value, first, second

    def terms(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss of each row (N, 1), and its first derivatives (N, d) with respect to the
        outputs z (N, d).
        """
        value, first, _ = self(z, y)
        return value[:, None], first

    def weighted_derivatives(
        self, divisor: float, dtype: DTypeLike, z: Array, y: Array, weight: Array
    ) -> tuple[float, Array, Array]:
        """Return the weighted sum of the losses of the rows divided by `divisor`, and its first and
        second derivatives with respect to the outputs in the given dtype. They are computed in
        float64 and rounded once. Rows of weight 0 add exactly 0, even if the function overflows for
        them.
        """
        value, first, second = self(z.astype(float, copy=False), y)
        with np.errstate(all="ignore"):
            f: Any = 1 / divisor
            if weight is not None:
                f = weight.astype(float) / divisor
                # With weight 0, a loss of infinity would give NaN.
                if not weight.all():
                    idle = weight == 0
                    value, first, second = (
                        np.where(idle.reshape(-1, *[1] * (part.ndim - 1)), 0, part)
                        for part in (value, first, second)
                    )
            by_rows = f if weight is None else f.reshape(-1, *[1] * (second.ndim - 1))
            return (
                float((f * value).sum()),
                np.ascontiguousarray((f if weight is None else f[:, None]) * first, dtype),
                np.ascontiguousarray(by_rows * second, dtype),
            )

    def target_width(self, d_out: int) -> int | None:
        """Return the number of columns of the targets for `d_out` outputs, or None if any number is
        allowed. Raise ValueError if `d_out` is not a multiple of the number of outputs for each
        target.
        """
        if not self.per_target:
            return None
        if d_out % self.per_target:
            raise ValueError(
                f"the model must have an even number of outputs for loss={self.name!r}, got "
                f"{d_out}. The outputs are all means, followed by all logarithms of variances."
            )
        return d_out // self.per_target

    # --- known properties

    def third_derivative_bounds(self, z: Floats, y: Floats, move: Floats) -> Floats:
        """Return upper bounds (N, d) or (N, 1) on the absolute value of the third derivative, for
        all outputs that differ from z (N, d) by at most `move`.
        """
        if not callable(self.third_bound):
            return np.full((len(z), 1), self.third_bound)
        with np.errstate(all="ignore"):
            bounds = np.asarray(self.third_bound(z, y, move), float)
            # A NaN is replaced by infinity.
            bounds = np.where(bounds >= 0, bounds * USER_BOUND_ROUND_UP_FACTOR, np.inf)
        return bounds[:, None] if bounds.ndim < z.ndim else bounds

    def error_bounds(self, z: Array, y: Array, found: Values, eps: float) -> Floats:
        """Return bounds (N, d) on the errors of the entries of the first and second derivatives in
        the results `found` of a built-in loss at z and y. The sum of the bounds of a row bounds the
        error of its value. eps is the roundoff of the arguments.
        """
        value, first, second = (np.abs(x) for x in found)
        if y.shape != z.shape:
            y = np.abs(y).max(axis=1, keepdims=True)
        most = second.max(axis=2) if second.ndim == 3 else second
        size = (1 + np.abs(z)) * (1 + np.abs(y)) + value[:, None] + first + most
        eps = max(eps, *(float(np.finfo(part.dtype).eps) for part in found))
        return np.asarray(LOSS_ERROR_ULPS * eps * USER_BOUND_ROUND_UP_FACTOR * size, float)

    def best_constant(self, y: Floats, shares: Floats, d: int) -> tuple[Floats, float]:
        """Return the constant outputs (d,) with the lowest mean loss on the targets y, and this
        mean loss. `shares` (N,) are the weights of the rows, with sum 1.
        """
        from scipy.optimize import minimize  # this import is slow

        def at(z: Floats) -> Any:
            value, first, second = self(np.tile(z, (len(y), 1)), y)
            H = np.tensordot(shares, second, 1)
            now = float(shares @ value)
            return now if now == now else np.inf, shares @ first, H if H.ndim == 2 else np.diag(H)

        solve: Any = minimize
        with np.errstate(all="ignore"):
            minimiser = solve(
                lambda z: at(z)[:2],
                np.zeros(d),
                jac=True,
                hess=lambda z: at(z)[2],
                method="trust-exact",
                options={"gtol": 1e-10, "maxiter": 200},
            )
        return minimiser.x, float(minimiser.fun)


# --------------------------------------------------------------------------------------------------
# Built-in losses. The formulas also hold for complex z, whose real part selects the branch.


def _analytic_abs(r: Array) -> Array:
    """Return |r|. For complex r, return r or -r such that the real part is not negative, which is
    the analytic continuation of |r| from the positive and from the negative real axis.
    """
    return np.where(r.real < 0, -r, r)


def _poisson_loss(z: Array, y: Array) -> Values:
    mean = np.exp(z)
    least = y * np.log(np.maximum(y, MIN_NORMAL)) - y  # this is 0 for a count of 0
    return (mean - y * z + least).sum(axis=1), mean - y, mean


def _gamma_loss(z: Array, y: Array) -> Values:
    ratio = y * np.exp(-z)
    return (ratio + z - np.log(y) - 1).sum(axis=1), 1 - ratio, ratio


def _log_cosh_loss(z: Array, y: Array) -> Values:
    r = z - y
    size = _analytic_abs(r)
    e = np.exp(-2 * size)
    bent = 4 * e / (1 + e) ** 2
    value = size + np.log1p(e) - np.log(np.asarray(2, z.real.dtype))
    return value.sum(axis=1), np.tanh(r), bent


def _pseudo_huber_loss(z: Array, y: Array, delta: float) -> Values:
    r = z - y
    u = r / delta
    root = np.sqrt(1 + u * u)
    return (r * (r / (1 + root))).sum(axis=1), r / root, 1 / (root * root * root)


def _quantile_loss(z: Array, y: Array, level: float, width: float) -> Values:
    r = z - y
    e = np.exp(-_analytic_abs(r / width))
    below = r.real < 0
    small = e / (1 + e)
    value = width * np.log1p(e) + np.where(below, -level * r, (1 - level) * r)
    first = np.where(below, small - level, (1 - level) - small)
    return value.sum(axis=1), first, small / (1 + e) / width


def _gaussian_nll_loss(z: Array, y: Array) -> Values:
    m = y.shape[1]
    r = z[:, :m] - y
    s = z[:, m:]
    e = np.exp(-s)
    cross = -r * e
    bent = 0.5 * r * r * e
    at = np.arange(m)
    second = np.zeros((len(z), 2 * m, 2 * m), e.dtype)
    second[:, at, at] = e
    second[:, at + m, at + m] = bent
    second[:, at, at + m] = second[:, at + m, at] = cross
    value = (0.5 * s + bent).sum(axis=1)
    return value, np.concatenate([r * e, 0.5 - bent], axis=1), second


def _gaussian_nll_third_bound(z: Floats, y: Floats, move: Floats) -> Floats:
    """Return an upper bound (N,) on the third derivative of a row's loss, for all outputs that
    differ from z (N, 2 m) by at most `move`. It bounds the maximum of ``3 e^-s a^2 b + 3 |r| e^-s a
    b^2 + r^2 e^-s b^3 / 2`` over ``a^2 + b^2 = 1``, with r the residual and s the logarithm of the
    variance.
    """
    m = y.shape[1]
    move = np.broadcast_to(move, z.shape)
    r = np.abs(z[:, :m] - y) + move[:, :m]
    e = np.exp(move[:, m:] - z[:, m:])
    return np.asarray((e * (1.1548 * (1 + r) + 0.5 * r * r)).max(axis=1))


def _built_in_loss(
    kind: Callable[..., Made], name: str, function: Any, third: Any, **properties: Any
) -> Made:
    """Return a built-in loss of class `kind` with the given name, function and bound `third`.
    `properties` are further arguments of `LossFunction`.
    """
    usual = {"lower_bound": 0.0, "convex": True, "coupled": False}
    return kind(name, function, third_bound=third, **usual | properties)


@cache
def quantile_loss(level: float, width: float, kind: Callable[..., Made]) -> Made:
    """Return the loss of `fastcurv.Loss.quantile` as an object of class `kind`. Raise ValueError if
    `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be a number between 0 and 1, got {level}.")
    name = f"quantile({level!r}, {width!r})"
    third = 0.0962251 / width / width
    return _built_in_loss(kind, name, partial(_quantile_loss, level=level, width=width), third)


@cache
def pseudo_huber_loss(delta: float, kind: Callable[..., Made]) -> Made:
    """Return the loss of `fastcurv.Loss.pseudo_huber` as an object of class `kind`."""
    name = f"pseudo_huber({delta!r})"
    return _built_in_loss(kind, name, partial(_pseudo_huber_loss, delta=delta), 0.858651 / delta)


BUILT_IN_LOSSES: dict[str, LossFunction] = {
    "poisson": _built_in_loss(
        LossFunction,
        "poisson",
        _poisson_loss,
        lambda z, y, move: np.exp(z + move),
        exponential=True,
        least=(0.0, True),
    ),
    "gamma": _built_in_loss(
        LossFunction,
        "gamma",
        _gamma_loss,
        lambda z, y, move: np.asarray(y * np.exp(move - z)),
        exponential=True,
        least=(0.0, False),
    ),
    "pseudo_huber": pseudo_huber_loss(1.0, LossFunction),
    "log_cosh": _built_in_loss(LossFunction, "log_cosh", _log_cosh_loss, 0.769801),
    "quantile": quantile_loss(0.5, 0.05, LossFunction),
    "gaussian_nll": _built_in_loss(
        LossFunction,
        "gaussian_nll",
        _gaussian_nll_loss,
        _gaussian_nll_third_bound,
        coupled=True,
        per_target=2,
        convex=False,
        lower_bound=None,
    ),
}


def built_in_loss(name: str) -> LossFunction:
    """Return the built-in loss with the given name, without parameters in parentheses."""
    return BUILT_IN_LOSSES[name]
