"""Tables of losses and activations, with one row for each that holds all its properties; batch
normalisation.

All code outside the kernels reads these rows. A new loss needs a row of `LOSSES` and a kernel in
``src/kernels/losses.inc``; a new activation needs a row of `ACTIVATIONS` and a kernel in
``activations.inc``. Both also need a number in an enum of ``kernels.h`` and a name for type
checkers, in `LossName` or `ActivationName`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, ndtr

from ..common.checks import check_choice
from ..common.protocols import Array, Floats
from .given import BUILT_IN_LOSSES, LossFunction
from .user_functions import Activation, BuiltInLoss, Loss

# names of the losses and activations below, for type checkers
LossName: TypeAlias = Literal[
    "mse", "cross_entropy", "binary_cross_entropy", "poisson", "gamma", "pseudo_huber", "log_cosh",
    "quantile", "gaussian_nll",
]  # fmt: skip
ActivationName: TypeAlias = Literal[
    "identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "silu", "gelu", "elu"
]
Layered: TypeAlias = (
    ActivationName | Callable[..., Any] | Sequence[ActivationName | Callable[..., Any]]
)

Mask = NDArray[np.bool_]
_SQRT2 = np.sqrt(2.0)
BATCH_NORM_EPS = 1e-5  # number added to the variance
MIN_NORMAL = float(np.finfo(float).tiny)


def batch_normalise(z: Array) -> tuple[Array, Array]:
    """Return ``h = (z - mean) s`` (N, units) and ``s = 1 / sqrt(variance + eps)`` (units,), with
    the mean and the biased variance over the rows of z and ``eps = BATCH_NORM_EPS``.
    """
    z = z - z.mean(axis=0)
    s = 1 / np.sqrt((z * z).mean(axis=0) + BATCH_NORM_EPS)
    return z * s, s


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.where(z.real >= 0, z, -z))
    return np.where(z.real >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(z: Array) -> Array:
    return np.where(z.real > 0, z, 0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


# --------------------------------------------------------------------------------------------------
# Losses of outputs f (rows, d_out) and targets y; integer classes (rows,) denote unit vectors.


@dataclass(frozen=True)
class LossSpec:
    """A loss in the table of losses.

    Attributes
    ----------
    link : {"identity", "sigmoid", "softmax", "given"}
        The function g in the derivative of the loss with respect to the outputs f. With T the sum
        of a row of y, the derivative is ``T g(f) - y`` for softmax, ``g(f) - y`` for sigmoid, and
        ``2 (f - y)`` for identity. The proofs of `fastcurv.certify` depend on the link. "given"
        means that the derivative is computed by the function `given`.
    terms : callable
        ``terms(f, y)`` returns the terms of the loss and their derivatives with respect to f
        ``(..., N, d_out)``, which may be real or complex, for y ``(N, d_out)``. They are neither
        weighted nor divided.
    per_entry : bool
        True if each entry of f has a term of its own, so that the second derivative with respect to
        f is diagonal. For a loss given by a function, the value is known after the first call of
        `given`.
    terms_of_row : callable
        Function of d_out that returns the number of terms of a row. The loss is the mean over all
        terms of all rows.
    targets : {"numbers", "labels", "classes"}
        The contents of y. "numbers" are real numbers (regression), "labels" are numbers from 0 to
        1, and "classes" are integer classes (rows,) or weights of classes (rows, d_out).
    attained : bool
        True if some f attains the infimum of every term.
    bends : (float, float)
        Bounds on the second and third derivatives of a row's term with respect to f. Unless
        `per_entry` is True, they are divided by the sum of |y| over the row.
    constant : callable
        ``constant(y, shares, d_out)`` returns the loss of the best constant outputs, for weights
        `shares` (rows,) with sum 1.
    score : (str, callable)
        The name of the score that is reported for a fit, and the function ``score(f, y)`` that
        returns this score.
    given : LossFunction or None
        The function that the engine calls if it has no kernel for the loss.
    certain, right, pulls : callable
        Functions that return masks for classification losses. ``certain(f)`` marks the rows, or
        for "sigmoid" the entries, with a probability within 1e-3 of 0 or 1. ``right(y, f, E)``
        marks the rows whose label is hard and predicted by f even if f has an error of at most E.
        ``pulls(y, d_out)`` returns two masks (d_out,), of the outputs whose increase lowers the
        loss of some row, and of the outputs whose decrease does.
    """

    link: Literal["identity", "sigmoid", "softmax", "given"]
    terms: Callable[[Array, Array], tuple[Array, Array]]
    separate: bool | None  # value of `per_entry` for a loss that has a kernel
    targets: Literal["numbers", "labels", "classes"]
    attained: bool
    bends: tuple[float, float]
    constant: Callable[[Array, Floats, int], float]
    score: tuple[str, Callable[[Array, Array], float]]
    terms_of_row: Callable[[int], float] = float
    given: LossFunction | None = None
    certain: Callable[[Floats], Mask] = lambda f: np.zeros(f.shape, dtype=bool)
    right: Callable[[Array, Floats, Floats], Mask] = lambda y, f, E: np.zeros(len(f), bool)
    pulls: Callable[[Array, int], tuple[Mask, Mask]] = lambda y, d_out: (
        np.zeros(d_out, dtype=bool),
        np.zeros(d_out, dtype=bool),
    )

    @property
    def per_entry(self) -> bool:
        return bool(self.separate) if self.given is None else not self.given.coupled

    @property
    def is_convex(self) -> bool:
        """True if the loss is convex in the outputs."""
        return self.given is None or self.given.convex


def one_hot(y: Array, d_out: int) -> Array:
    """Return targets as an array (rows, d_out). Integer classes (rows,) become unit vectors."""
    return np.eye(d_out)[y.astype(np.intp)] if y.ndim == 1 else y


def _cross_entropy_terms(f: Array, y: Array) -> tuple[Array, Array]:
    shifted = f - f.real.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)
    return y * (np.log(total) - shifted), y.sum(axis=-1, keepdims=True) * e / total - y


def _entropy_terms(q: Array) -> Array:
    return np.asarray(-q * np.log(np.maximum(q, MIN_NORMAL)))


def _binary_entropy(y: Array, shares: Floats, d_out: int) -> float:
    q = shares @ y
    return float((_entropy_terms(q) + _entropy_terms(1 - q)).mean())


def _r_squared(f: Array, y: Array) -> float:
    y = np.reshape(y, f.shape)
    spread = np.sum((y - y.mean(axis=0)) ** 2)
    return float(1 - np.sum((f - y) ** 2) / spread) if spread > 0 else float("nan")


def _accuracy(f: Array, y: Array) -> float:
    return float(np.mean(f.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))))


def _proved_correct_mask(y: Array, f: Floats, E: Floats) -> Mask:
    y = one_hot(y, f.shape[1])
    # With a single class the loss is 0 everywhere, so no row counts as classified.
    right = y > 0
    hard = ((y > 0).sum(axis=1) == 1) & (y.shape[1] > 1)
    low = np.where(right, f - E, -np.inf).max(axis=1)
    return np.asarray(hard & (low > np.where(right, -np.inf, f + E).max(axis=1)))


def _target_direction_masks(y: Array, d_out: int) -> tuple[Mask, Mask]:
    if y.ndim == 1:
        up = np.bincount(y.astype(np.intp), minlength=d_out) > 0
        return up, up.sum() > up
    wanted = y > 0
    return np.any(wanted, 0), np.any(wanted.sum(axis=1, keepdims=True) > wanted, 0)


def _user_loss_spec(loss: LossFunction) -> LossSpec:
    """Return the table row of a loss given by a function."""
    counts = loss.least is not None and loss.least[1]

    def terms_of_row(d_out: int) -> float:
        return d_out / loss.per_target if loss.per_target else 1.0

    def constant(y: Array, shares: Floats, d_out: int) -> float:
        return loss.best_constant(y, shares, d_out)[1] / terms_of_row(d_out)

    def explained(f: Array, y: Array) -> float:
        y = np.reshape(y, (len(f), -1)).astype(float)
        shares = np.full(len(f), 1 / len(f))
        least = loss.best_constant(y, shares, f.shape[1])[1]
        value = float(shares @ loss(f.astype(float), y)[0])
        if loss.lower_bound != 0:
            return least - value
        return 1 - value / least if least > 0 else float("nan")

    return LossSpec(
        "given",
        loss.terms,
        separate=None,
        terms_of_row=terms_of_row,
        targets="numbers",
        attained=True,  # whether the infimum is attained is not known; True claims nothing
        bends=(math.inf, math.inf),
        constant=constant,
        score=("D squared" if loss.lower_bound == 0 else "loss below a constant's by", explained),
        given=loss,
        # If all counts of an output are 0, its loss has no minimum: it decreases as the output goes
        # to -infinity.
        pulls=lambda y, d_out: (
            np.any(y > 0, 0) if counts else np.zeros(d_out, dtype=bool),
            np.full(d_out, counts and len(y) > 0),
        ),
    )


# constructor and number of parameters of built-in losses with parameters that a user may choose
PARAMETRIC_LOSSES: dict[str, tuple[Callable[..., LossFunction], int]] = {
    "quantile": (Loss.quantile, 2),
    "pseudo_huber": (Loss.pseudo_huber, 1),
}


def loss_by_name(name: str) -> LossFunction:
    """Return the built-in loss with the given name. "quantile" and "pseudo_huber" may have
    parameters in parentheses.

    Raises
    ------
    KeyError
        If there is no such loss.
    ValueError
        If a parameter is invalid.

    Examples
    --------
    >>> loss_by_name("quantile(0.9)"), loss_by_name("poisson")
    (Loss.quantile(0.9, 0.05), Loss.poisson)
    """
    head, bracket, rest = name.partition("(")
    if not bracket:
        return BUILT_IN_LOSSES[name]
    constructor, n_parameters = PARAMETRIC_LOSSES[head]
    parts = rest.removesuffix(")").split(",")
    if len(parts) > n_parameters:
        raise KeyError(name)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise KeyError(name) from None
    return constructor(*numbers)


def loss_spec(loss: Any) -> LossSpec:
    """Return the table row of a loss, given by its name or as a `LossFunction`. Raise KeyError or
    ValueError if `loss_by_name` does.
    """
    if isinstance(loss, LossFunction):
        return _user_loss_spec(loss)
    return LOSSES[loss] if loss in LOSSES else _user_loss_spec(loss_by_name(loss))


LOSSES: dict[str, LossSpec] = {
    "mse": LossSpec(
        "identity",
        lambda f, y: ((f - y) ** 2, 2 * (f - y)),
        separate=True,
        targets="numbers",
        attained=True,
        bends=(2.0, 0.0),
        constant=lambda y, shares, d_out: float((shares @ (y - shares @ y) ** 2).mean()),
        score=("R squared", _r_squared),
    ),
    "cross_entropy": LossSpec(
        "softmax",
        _cross_entropy_terms,
        separate=False,
        targets="classes",
        attained=False,
        bends=(0.5, 0.28),
        constant=lambda y, shares, d_out: float(_entropy_terms(np.bincount(y, shares)).sum()),
        score=("accuracy", _accuracy),
        terms_of_row=lambda d_out: 1.0,
        certain=lambda f: 0.999 * np.exp(f - f.max(axis=1, keepdims=True)).sum(axis=1) <= 1,
        right=_proved_correct_mask,
        pulls=_target_direction_masks,
    ),
    "binary_cross_entropy": LossSpec(
        "sigmoid",
        lambda f, y: (_softplus(f) - y * f, _sigmoid(f) - y),
        separate=True,
        targets="labels",
        attained=False,
        bends=(0.25, 0.09623),
        constant=_binary_entropy,
        score=("accuracy", lambda f, y: float(np.mean((f > 0) == (y.reshape(f.shape) > 0.5)))),
        certain=lambda f: np.abs(f) >= np.log(999),
        right=lambda y, f, E: np.all(
            ((y == 0) | (y == 1)) & np.where(y == 1, f > E, f < -E), axis=1
        ),
        pulls=lambda y, d_out: (np.any(y > 0, 0), np.any(y < 1, 0)),
    ),
    **{name: _user_loss_spec(loss) for name, loss in BUILT_IN_LOSSES.items()},
}
# Key: a kind of targets. Value: the name of the default loss for these targets.
DEFAULT_LOSS_BY_TARGETS: dict[str, Any] = {
    row.targets: name for name, row in reversed(LOSSES.items())
}
DEFAULT_LOSS: Literal["cross_entropy"] = "cross_entropy"


def check_loss(loss: Any) -> Any:
    """Return a loss in the form that objectives store: its name, or a `LossFunction`. Raise
    ValueError if the name is unknown.
    """
    if isinstance(loss, LossFunction):
        return loss
    if isinstance(loss, str) and "(" in loss:
        with suppress(KeyError):
            return loss_by_name(loss)
    return check_choice(loss, tuple(LOSSES), "loss")


# --------------------------------------------------------------------------------------------------
# Activations. A bound over an interval ``z +- t`` is the value of a function that decreases with
# ``|z|``, at the point of the interval nearest to 0. If a derivative first increases from 0, the
# bound is the value of the derivative at the point farthest from 0.

# factor by which bounds are enlarged to cover the few roundings in an envelope
ENVELOPE_ROUND_UP_FACTOR = 1 + 1e-12
Three = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class ActivationSpec:
    """An activation phi in the table of activations.

    Attributes
    ----------
    phi, slope : callable
        Functions that return phi and phi' at real or complex z. They are analytic between kinks; at
        a kink phi' is the left derivative.
    derivatives : callable
        ``derivatives(z)`` returns a tuple of four: phi, phi' and phi'' at real z, and the
        magnitudes of the terms of each of these before they cancel. phi' is None if it is 1
        everywhere. phi'' is None if it is 0 everywhere, and so are then the magnitudes.
    envelope : callable
        ``envelope(z, t)`` returns bounds on |phi'|, |phi''| and |phi'''| over z +- t, rounded up.
        If the interval contains a kink, the first bound covers both sides of the kink, and the
        other two are infinite.
    pairs : callable
        ``pairs(ops, z)`` returns phi and phi' at z, a `fastcurv.certify.precise.DoubleDouble`.
        `ops` is the module `fastcurv.certify.precise`, whose functions are used.
    lipschitz, bend : float
        Bounds on |phi'| and |phi''| except at kinks. For an activation with a kink, `bend` is also
        a bound on |phi'''|.
    leak : float or None
        The slope below 0 of a piecewise linear activation whose slope above 0 is 1, else None.
    kink : float
        The jump at 0 of phi', or of phi'' if phi' has none; 0 if there is no kink.
    of_a : float or None
        The constant c in ``phi'' = (c - 2 a) phi'`` if the engine computes phi' and phi'' from a,
        else None.
    gaussian : bool
        True if phi contains ``exp(-z^2 / 2)``, which the reference kernels compute with a relative
        error that grows with z^2.
    like_relu : bool
        True if weights are drawn as for relu.
    homogeneous : bool
        True if ``phi(c z) = c phi(z)`` for c > 0.
    odd : bool
        True if ``phi(-z) = -phi(z)``; False for a user-defined function.
    given : Activation or None
        The user-defined function that the engine calls; `pairs` is then None, and the bounds are
        infinite.
    """

    phi: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    derivatives: Callable[[Floats], tuple[Any, Any, Any, Any]]
    envelope: Callable[[Floats, Floats], Three]
    pairs: Callable[[Any, Any], tuple[Any, Any]] | None
    lipschitz: float = 1.0
    bend: float = 0.0
    leak: float | None = None
    kink: float = 0.0
    of_a: float | None = None
    gaussian: bool = False
    like_relu: bool = False
    homogeneous: bool = False
    odd: bool = False
    given: Activation | None = None


def _user_activation_spec(own: Activation) -> ActivationSpec:
    """Return the table row of a user-defined activation. No bounds are known."""

    def unbounded(z: Floats) -> Floats:
        return np.full(z.shape, np.inf)

    return ActivationSpec(
        lambda z: own(z)[0],
        lambda z: own(z)[1],
        lambda z: (*own(z), (unbounded(z),) * 3),
        lambda z, t: (unbounded(z),) * 3,
        None,
        lipschitz=math.inf,
        bend=math.inf,
        like_relu=own.is_relu_like,
        given=own,
    )


def activation_spec(activation: Any) -> ActivationSpec:
    """Return the table row of an activation, given by its name or as an `Activation`. Raise
    KeyError if there is no such activation.
    """
    if not isinstance(activation, Activation):
        return ACTIVATIONS[activation]
    # The row is kept by the activation itself, because another one may compare equal to it.
    known = activation.__dict__
    if "_spec" not in known:
        known["_spec"] = _user_activation_spec(activation)
    spec: ActivationSpec = known["_spec"]
    return spec


def _normal_cdf(z: Array) -> Array:
    """Return the distribution function of the standard normal distribution at z. For a complex step
    the imaginary part is computed from the derivative, because SciPy's complex erf loses very small
    imaginary parts.
    """
    value: Array = 0.5 * (1 + erf(z.real / _SQRT2))
    return np.asarray(value + 1j * z.imag * normal_density(z.real) if np.iscomplexobj(z) else value)


def normal_density(t: Array) -> Array:
    return np.asarray(np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi))


def sigmoid_derivative(t: Floats) -> Floats:
    """Return the derivative ``s (1 - s)`` of the logistic sigmoid s(t), for t >= 0."""
    e = np.exp(-t)
    return np.asarray(e / (1 + e) ** 2)


def _envelope_by_bounds(
    bounds: Callable[[Floats, Floats, Floats], Three],
) -> Callable[[Floats, Floats], Three]:
    """Return an envelope, a function of z and t, that calls `bounds` with the smallest |z|, the
    largest |z| and the largest z of each interval z +- t, and rounds the three bounds up.
    """

    def envelope(z: Floats, t: Floats) -> Three:
        found = bounds(np.maximum(np.abs(z) - t, 0.0), np.abs(z) + t, z + t)
        return (
            found[0] * ENVELOPE_ROUND_UP_FACTOR + MIN_NORMAL,
            found[1] * ENVELOPE_ROUND_UP_FACTOR + MIN_NORMAL,
            found[2] * ENVELOPE_ROUND_UP_FACTOR + MIN_NORMAL,
        )

    return envelope


def _leaky_relu_spec(leak: float, **more: Any) -> ActivationSpec:
    """Return the table row of the leaky relu, z for z > 0 and otherwise ``leak z``. `more` are
    further fields of the row.
    """

    def derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
        p = np.where(z > 0, 1.0, leak)
        return z * p, p, None, None

    def envelope(z: Floats, t: Floats) -> Three:
        bend = np.where(np.abs(z) <= t, np.inf, np.zeros_like(z))
        return np.where(z + t >= 0, 1.0, leak * ENVELOPE_ROUND_UP_FACTOR), bend, bend

    return ActivationSpec(
        lambda z: np.where(z.real > 0, z, leak * z if leak else 0),
        lambda z: np.where(z.real > 0, 1.0, leak),
        derivatives,
        envelope,
        lambda P, z: (
            P.select_pairs(z.hi > 0, z, P.multiply_pair_by_float(z, leak)),
            P.pair_from_float(np.where(z.hi > 0, 1.0, leak)),
        ),
        leak=leak,
        kink=1.0 - leak,
        like_relu=True,
        homogeneous=True,
        **more,
    )


# For a = tanh z, phi'' = -2 a (1 - a^2) has its largest size at a^2 = 1/3, and
# phi''' = (1 - a^2) (6 a^2 - 2) has a second maximum at a^2 = 2/3.
_TANH_SECOND_DERIVATIVE_MAX_Z = math.atanh(math.sqrt(1 / 3))
_TANH_MAX_SECOND_DERIVATIVE = 4 / (3 * math.sqrt(3))
_TANH_THIRD_DERIVATIVE_MAX_Z = math.atanh(math.sqrt(2 / 3))


def _tanh_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    a = np.tanh(z)
    p = 4 * sigmoid_derivative(2 * np.abs(z))
    return a, p, -2 * a * p, (np.abs(a), p, 2 * np.abs(a) * p)


def _tanh_bounds(x: Floats, far: Floats, _: Floats) -> Three:
    p = 4 * sigmoid_derivative(2 * np.minimum(x, 1e3))
    a = np.tanh(x)
    top = np.tanh(np.minimum(far, _TANH_SECOND_DERIVATIVE_MAX_Z))
    second = np.where(
        x >= _TANH_SECOND_DERIVATIVE_MAX_Z,
        2 * a * p,
        np.minimum(2 * top * (1 - top * top), _TANH_MAX_SECOND_DERIVATIVE),
    )
    third = np.where(
        x >= _TANH_THIRD_DERIVATIVE_MAX_Z,
        p * (6 * a * a - 2),
        np.maximum(p * np.abs(2 - 6 * a * a), 2 / 3),
    )
    return p, second, third


def _tanh_in_double_double(P: Any, z: Array) -> tuple[Any, Any]:
    a = P.pair_tanh(z)
    return a, P.add_float_to_pair(-P.multiply_pairs(a, a), 1.0)


def _sigmoid_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    s = expit(z)
    d = sigmoid_derivative(np.abs(z))
    q = -d * np.tanh(z / 2)
    return s, d, q, (s, d, np.abs(q))


def _sigmoid_bounds(x: Floats, far: Floats, _: Floats) -> Three:
    p, q, r = _tanh_bounds(0.5 * x, 0.5 * far, _)
    return 0.25 * p, 0.125 * q, 0.0625 * r


def _sigmoid_in_double_double(P: Any, z: Array) -> tuple[Any, Any]:
    s = P.pair_sigmoid(z)
    return s, P.multiply_pairs(s, P.pair_sigmoid(-z))


def _softplus_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    s = expit(z)
    d = sigmoid_derivative(np.abs(z))
    a = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    return a, s, d, (a, s, d)


def _softplus_bounds(x: Floats, far: Floats, high: Floats) -> Three:
    p, q, _ = _sigmoid_bounds(x, far, high)
    return expit(high), p, q


def _silu_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    # the limit avoids infinity times 0
    t = np.minimum(np.abs(z), 1e3)
    both = np.clip(z, -1e3, 1e3)
    s = expit(z)
    d = sigmoid_derivative(np.abs(z))
    sizes = np.abs(z) * s, s + t * d, d * (2 + t)
    return z * s, s + both * d, d * (2 - t * np.tanh(t / 2)), sizes


def _silu_bounds(x: Floats, far: Floats, high: Floats) -> Three:
    t = np.minimum(x, 1e3)
    d = sigmoid_derivative(t)
    # For z > 0, phi' is below 1.1. For z < 0, |phi'| <= s + |z| d, which decreases with |z|.
    first = np.where(high >= 0, 1.0999, np.minimum(0.5, expit(high) + (1 + t) * d))
    return (
        first,
        np.where(x < 0.86, 0.5, np.minimum(0.5, d * (2 + t))),
        np.where(x < 0.86, 0.45, d * (3 + 1.5 * t)),
    )


def _silu_in_double_double(P: Any, z: Array) -> tuple[Any, Any]:
    s, d = _sigmoid_in_double_double(P, z)
    return P.multiply_pairs(z, s), P.add_pairs(s, P.multiply_pairs(z, d))


def _gelu_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    # the limit avoids infinity times 0
    t = np.minimum(np.abs(z), 1e3)
    both = np.clip(z, -1e3, 1e3)
    cdf = ndtr(z)
    n = normal_density(t)
    sizes = np.abs(z) * cdf, cdf + t * n, n * (2 + t * t)
    return z * cdf, cdf + both * n, n * (2 - t * t), sizes


def _gelu_bounds(x: Floats, far: Floats, high: Floats) -> Three:
    t = np.minimum(x, 40.0)
    n = normal_density(t)
    first = np.where(high >= 0, 1.13, np.minimum(0.5, ndtr(high) + (1 + t) * n))
    return (
        first,
        np.minimum(0.798, n * (2 + t * t)),
        np.where(x < 1.25, 1.28, n * t * (t * t + 4)),
    )


def _gelu_in_double_double(P: Any, z: Array) -> tuple[Any, Any]:
    n, cdf = P.pair_normal_density_and_cdf(z)
    return P.multiply_pairs(z, cdf), P.add_pairs(cdf, P.multiply_pairs(z, n))


def _elu_derivatives(z: Floats) -> tuple[Any, Any, Any, Any]:
    low = np.minimum(z, 0)
    e = np.exp(low)
    q = np.where(z > 0, 0.0, e)
    return np.where(z > 0, z, np.expm1(low)), e, q, (-np.expm1(low), e, q)


def _elu_envelope(z: Floats, t: Floats) -> Three:
    cross = np.abs(z) <= t
    e = np.where(
        z - t <= 0, np.exp(np.minimum(z + t, 0.0)) * ENVELOPE_ROUND_UP_FACTOR + MIN_NORMAL, 0.0
    )
    return np.where(z + t > 0, 1.0, e), np.where(cross, np.inf, e), np.where(cross, np.inf, e)


def _elu_in_double_double(P: Any, z: Any) -> tuple[Any, Any]:
    one = P.pair_from_float(np.ones_like(z.hi))
    e = P.pair_expm1(P.select_pairs(z.hi > 0, P.pair_from_float(np.zeros_like(z.hi)), z))
    return P.select_pairs(z.hi > 0, z, e), P.select_pairs(
        z.hi > 0, one, P.add_float_to_pair(e, 1.0)
    )


ACTIVATIONS: dict[str, ActivationSpec] = {
    "identity": ActivationSpec(
        lambda z: z,
        lambda z: np.ones_like(z),
        lambda z: (z, None, None, None),
        lambda z, t: (np.ones_like(z), np.zeros_like(z), np.zeros_like(z)),
        lambda P, z: (z, P.pair_from_float(np.ones_like(z.hi))),
        homogeneous=True,
        odd=True,
    ),
    "relu": _leaky_relu_spec(
        0.0,
    ),
    "leaky_relu": _leaky_relu_spec(
        0.01,
    ),
    "tanh": ActivationSpec(
        np.tanh,
        lambda z: 1 - np.tanh(z) ** 2,
        _tanh_derivatives,
        _envelope_by_bounds(_tanh_bounds),
        _tanh_in_double_double,
        bend=0.77,
        of_a=0.0,
        odd=True,
    ),
    "sigmoid": ActivationSpec(
        _sigmoid,
        lambda z: _sigmoid(z) * _sigmoid(-z),
        _sigmoid_derivatives,
        _envelope_by_bounds(_sigmoid_bounds),
        _sigmoid_in_double_double,
        lipschitz=0.25,
        bend=0.0963,
        of_a=1.0,
    ),
    "softplus": ActivationSpec(
        _softplus,
        _sigmoid,
        _softplus_derivatives,
        _envelope_by_bounds(_softplus_bounds),
        lambda P, z: (P.pair_softplus(z), P.pair_sigmoid(z)),
        bend=0.25,
        like_relu=True,
    ),
    "silu": ActivationSpec(
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z)),
        _silu_derivatives,
        _envelope_by_bounds(_silu_bounds),
        _silu_in_double_double,
        lipschitz=1.1,
        bend=0.5,
        like_relu=True,
    ),
    "gelu": ActivationSpec(
        lambda z: z * _normal_cdf(z),
        lambda z: _normal_cdf(z) + z * normal_density(z),
        _gelu_derivatives,
        _envelope_by_bounds(_gelu_bounds),
        _gelu_in_double_double,
        lipschitz=1.13,
        bend=0.8,
        gaussian=True,
        like_relu=True,
    ),
    "elu": ActivationSpec(
        lambda z: np.where(z.real > 0, z, np.exp(np.where(z.real > 0, 0, z)) - 1),
        lambda z: np.where(z.real > 0, 1.0, np.exp(np.where(z.real > 0, 0, z))),
        _elu_derivatives,
        _elu_envelope,
        _elu_in_double_double,
        bend=1.0,
        kink=1.0,
        like_relu=True,
    ),
}


def unproved_part(model: Any, loss: str) -> str:
    """Return the reason, as a clause, why nothing is proved about this loss of a network, or "".
    Proofs know only the library's own losses and activations: an object of any other class may
    compute something else.
    """
    for part in (loss, *model.activation):
        if type(part) not in (str, LossFunction, BuiltInLoss):
            return f"{part!r} is user-defined"
    return ""
