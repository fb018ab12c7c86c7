"""User-defined losses and activations, and the checks of their functions.

`fastcurv.structure.given` describes how the library calls the functions. The checks evaluate a
function at a few rows or numbers. It must return arrays of the right shapes, depend on its
arguments alone, return its true derivatives, and satisfy the given bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import check_positive, check_real_number
from ..common.errors import type_phrase
from ..common.protocols import Floats
from .given import (
    CHECK_POINTS,
    EPS,
    LONG_DOUBLE_EPS,
    ActivationFunction,
    LossFunction,
    UserFunction,
    Values,
    pseudo_huber_loss,
    quantile_loss,
)

N_CHECK_ROWS = 16  # number of rows on which a new loss is checked
DIFFERENCE_STEP = 1e-5  # step of difference quotients, for arguments of magnitude about 1


def check_user_function(function: Any, returns: str, third_bound: Any, error_ulps: Any) -> str:
    """Return the name of a user-defined function. Raise TypeError or ValueError if an argument is
    invalid. `returns` is the signature of the function, for the error message.
    """
    if not callable(function):
        raise TypeError(f"function must be {returns}, got {type_phrase(function)}.")
    if third_bound is not None and not callable(third_bound):
        check_positive(third_bound, "third_bound", zero=True)
    if error_ulps is not None:
        check_positive(error_ulps, "error_ulps")
    return str(getattr(function, "__name__", type(function).__name__))


def check_rows_independent(
    own: UserFunction, found: Any, turned: Any, same: str, each: str
) -> None:
    """Raise ValueError if `turned`, the results for the same arguments in another order or shape,
    differ from `found`. The message says that the function must depend on each `each` alone, and
    describes the arguments by `same`.
    """
    for name, part, other in zip(own.parts, found, turned):
        if not np.allclose(part, other, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise ValueError(
                f"{own!r} must be a function of {each} alone, got a different {name} for the same "
                f"{same}."
            )


def check_derivatives(own: Any, z: Floats, v: Floats, *y: Floats) -> Any:
    """Return the results of the function `own` at z and, if it is a loss, at the targets y. Raise
    ValueError if the derivatives differ from difference quotients along v, or if the bounds on the
    third derivative or on the errors do not hold at these points.
    """
    here, above, below = (own(z + step * v, *y) for step in (0, DIFFERENCE_STEP, -DIFFERENCE_STEP))
    eps = max(float(np.finfo(part.dtype).eps) for part in here)
    for j in (1, 2):
        given = here[j] * (v[:, None] if here[j].ndim > z.ndim else v)
        sizes = np.abs(given)
        slope = (above[j - 1] - below[j - 1]) / (2 * DIFFERENCE_STEP)
        if given.ndim > slope.ndim:
            given = given.sum(axis=-1)
            sizes = sizes.sum(axis=-1)
        noise = 64 * eps / DIFFERENCE_STEP * (1 + np.abs(above[j - 1]) + np.abs(below[j - 1]))
        is_wrong = np.abs(slope - given) > 1e-3 * (np.abs(slope) + sizes) + noise + 1e-6
        # Fewer wrong difference quotients may be caused by kinks of the function.
        if 4 * is_wrong.sum() > is_wrong.size:
            where = "along a random direction" if y else f"at z = {z[is_wrong][0]:.4g}"
            raise ValueError(
                f"{own.parts[j]} of {own!r} must be the derivative of {own.parts[j - 1]}, "
                f"which is {slope[is_wrong][0]:.6g} by finite differences {where}, "
                f"got {given[is_wrong][0]:.6g}."
            )
    if own.third_bound is not None:
        move = np.abs(v) * DIFFERENCE_STEP
        change = above[2] - below[2]
        bound = own.third_derivative_bounds(z, *y, move)
        lengths = 2 * move
        if change.ndim == 3:
            change = np.where(np.isfinite(change), change, 0)
            change = np.linalg.norm(change, 2, (1, 2))
            lengths = np.linalg.norm(lengths, axis=1)
            bound = bound.max(axis=1)
        most = np.abs(here[2]).max(initial=0.0)
        if (np.abs(change) > 1.001 * bound * lengths + 1e-9 * (1 + most)).any():
            raise ValueError(
                f"third_bound of {own!r} must bound the third derivative, got a bound below the "
                "difference quotients of the second derivative. Use a larger bound, or "
                "third_bound=None."
            )
    if own.error_ulps is not None and LONG_DOUBLE_EPS < EPS:
        long = own(z.astype(np.longdouble), *y)
        known = own.error_bounds(z, *y, here, EPS) + own.error_bounds(z, *y, long, LONG_DOUBLE_EPS)
        for name, part, other in zip(own.parts, here, long):
            gap = np.abs(part - other)
            if gap.shape == known.shape and (gap > known).any():
                raise ValueError(
                    f"error_ulps of {own!r} must bound its rounding error, got {own.error_ulps:g} "
                    f"although {name!r} differs by {np.nanmax(gap):.2g} from its value in "
                    "numpy.longdouble. Use a larger number, or error_ulps=None."
                )
    return here


class Loss(LossFunction):
    """A user-defined loss, given as a function of outputs and targets.

    The objective is the mean of the losses of the samples, as for ``cross_entropy``. Values,
    gradients, products with the Hessian, spectra, `minimize` and verdicts need only the function;
    the other arguments are needed for proofs. The GGN is defined where no second derivative is
    negative.

    Parameters
    ----------
    function : callable
        ``function(z, y)`` for float64 arrays, outputs z ``(N, d)`` and targets y ``(N, m)``. It
        returns ``(value, first, second)``: the loss of each sample ``(N,)``, its derivatives with
        respect to z ``(N, d)``, and its second derivatives. These have shape ``(N, d)`` if the loss
        is a sum of one term for each output. Otherwise they have shape ``(N, d, d)`` and are
        symmetric, for at most 64 outputs. The results must depend on the arguments only.
    third_bound : float or callable, optional
        A bound on the norm of the third derivative of a sample's loss, a symmetric trilinear form
        of z. It is a number, or a function ``third_bound(z, y, move)`` that returns bounds of shape
        ``(N,)``, or ``(N, d)`` if the loss is a sum of one term for each output. They hold for all
        outputs that differ from z by at most `move`, of shape ``(N, 1)`` or ``(N, d)``.
    lower_bound : float, optional
        A lower bound on the loss of a sample.
    error_ulps : float, optional
        A bound on the rounding error of the function, for both float64 and `numpy.longdouble`
        arguments, which are taken as exact. Each number that the function returns has an error of
        at most ``error_ulps eps (1 + |z|) (1 + |y|)`` plus ``error_ulps eps`` times the magnitudes
        of the sample's value, first and second derivative, with eps that of the dtype of the
        arguments.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The first objective with this loss evaluates the function on at
        most 16 samples. ValueError is raised if the function returns other shapes, mixes samples,
        or returns derivatives that do not agree with difference quotients, or if a bound does not
        hold on these samples.

    See Also
    --------
    Objective : Takes a loss as ``loss=``.

    Notes
    -----
    A verdict is proved only if `third_bound` and `error_ulps` are known. Otherwise it is measured,
    and its reason states this. `third_bound`, `lower_bound` and `error_ulps` are verified only on
    the samples of the check. The function is called once for each theta and block of rows, by one
    thread. Where `numpy.longdouble` is longer than float64 (on x86, but not with MSVC), gradients
    for proofs are computed in `numpy.longdouble`, so the function must compute in the precision of
    its arguments. On other systems proofs use worst-case bounds for float64, and more verdicts are
    measured.

    The built-in losses ``poisson``, ``gamma``, ``pseudo_huber``, ``log_cosh``, ``quantile`` and
    ``gaussian_nll`` are defined in this way, with their bounds. `quantile` and `pseudo_huber`
    return these two losses with other parameters. Minima at active kinks of relu networks are not
    proved for any of these losses.

    Examples
    --------
    The Cauchy loss, ``log(1 + r^2 / 2)``, which is robust to outliers:

    >>> import numpy as np, fastcurv as fc
    >>> def cauchy(z, y):
    ...     r = z - y
    ...     w = 1 / (1 + r * r / 2)
    ...     return np.log1p(r * r / 2).sum(axis=1), r * w, (1 - r * r / 2) * w * w
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 2))
    >>> y = X @ [1.0, -2.0] + np.where(np.arange(50) == 7, 100.0, 0.0)
    >>> loss = fc.Loss(cauchy, third_bound=1.5, lower_bound=0.0, error_ulps=8)
    >>> ob = fc.Objective(fc.MLP([2, 1]), X, y, loss=loss)
    >>> run = fc.minimize(ob, ob.model.init(seed=0))
    >>> run.x.round(2)
    array([ 1., -2.,  0.])
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Values],
        *,
        third_bound: float | Callable[[Floats, Floats, Floats], Floats] | None = None,
        lower_bound: float | None = None,
        error_ulps: float | None = None,
    ) -> None:
        returns = "function(z, y) -> (value, first, second)"
        name = check_user_function(function, returns, third_bound, error_ulps)
        wanted = "a finite number, or None if no lower bound is known"
        if lower_bound is not None:
            lower_bound = check_real_number(lower_bound, "lower_bound", wanted)
        if lower_bound is not None and not math.isfinite(lower_bound):
            raise ValueError(f"lower_bound must be {wanted}, got {lower_bound!r}.")
        super().__init__(name, function, third_bound, error_ulps, lower_bound, per_target=0)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the function with its known properties."""
        return object.__reduce_ex__(self, protocol)

    @staticmethod
    def quantile(level: float = 0.5, width: float = 0.05) -> Loss:
        """Return the smoothed pinball loss, ``level r + width log(1 + exp(-r / width))`` with ``r =
        y - z``, whose mean is minimal at about the quantile of the given level.

        Parameters
        ----------
        level : float
            Fraction of the targets below the quantile, between 0 and 1.
        width : float
            Width of the smooth part, in units of y. The minimum is the quantile of y plus logistic
            noise of this scale, so use a width below a tenth of the standard deviation of y.

        Returns
        -------
        Loss
            The loss, to be passed to `Objective`.

        Raises
        ------
        TypeError, ValueError
            If `level` is not between 0 and 1, or `width` is not positive.

        Examples
        --------
        >>> import fastcurv as fc
        >>> fc.Loss.quantile(0.9)
        Loss.quantile(0.9, 0.05)
        """
        level = check_real_number(level, "level", "a number between 0 and 1")
        loss: Loss = quantile_loss(level, check_positive(width, "width"), BuiltInLoss)
        return loss

    @staticmethod
    def pseudo_huber(delta: float = 1.0) -> Loss:
        """Return the pseudo-Huber loss, ``delta^2 (sqrt(1 + (r / delta)^2) - 1)`` with the residual
        ``r = z - y``.

        Parameters
        ----------
        delta : float
            The loss is about ``r^2 / 2`` for residuals below this size, and about ``delta |r|`` for
            larger ones.

        Returns
        -------
        Loss
            The loss, to be passed to `Objective`.

        Examples
        --------
        >>> import fastcurv as fc
        >>> fc.Loss.pseudo_huber(0.5)
        Loss.pseudo_huber(0.5)
        """
        loss: Loss = pseudo_huber_loss(check_positive(delta, "delta"), BuiltInLoss)
        return loss

    def _check_on_sample(self, y: NDArray[Any], d: int) -> None:
        """Raise ValueError if the function mixes rows, if its derivatives are wrong, or if a bound
        does not hold. The function is evaluated for at most `N_CHECK_ROWS` of the targets y and d
        standard normal outputs.
        """
        y = y[np.linspace(0, len(y) - 1, min(len(y), N_CHECK_ROWS)).astype(int)].astype(float)
        z, v = np.random.default_rng(0).standard_normal((2, len(y), d))
        with np.errstate(all="ignore"):
            found = check_derivatives(self, z, v, y)
            turned = self(z[::-1].copy(), y[::-1].copy())
        back = [part[::-1] for part in turned]
        check_rows_independent(self, found, back, "rows in another order", "each row")
        if (
            self.lower_bound is not None
            and (found[0] + 1e-9 * (1 + np.abs(found[0])) < self.lower_bound).any()
        ):
            raise ValueError(
                f"{self!r} must return values >= lower_bound={self.lower_bound:g}, got "
                f"{found[0].min():.6g}."
            )


class BuiltInLoss(Loss):
    """A built-in loss with parameters, as `Loss.quantile` and `Loss.pseudo_huber` return it."""

    def __init__(self, name: str, *function: Any, **properties: Any) -> None:
        LossFunction.__init__(self, name, *function, **properties)

    def __reduce_ex__(self, protocol: Any) -> Any:
        head, _, numbers = self.name.removesuffix(")").partition("(")
        return getattr(Loss, head), tuple(float(number) for number in numbers.split(","))


class Activation(ActivationFunction):
    """A user-defined activation, given as a function of the pre-activations z of a layer.

    Values, gradients, products with the Hessian and the GGN, spectra, `minimize`, verdicts, batch
    normalisation and skip connections need only the function; the other arguments are needed for
    proofs.

    Parameters
    ----------
    function : callable
        ``function(z)`` for a float64 array z of some rows of a layer. It returns ``(phi, first,
        second)``: phi(z), phi'(z) and phi''(z), each in the shape of z. phi must be smooth, and
        each entry of a result must depend on the same entry of z only.
    first_bound, second_bound : float, optional
        Bounds on ``|phi'|`` and ``|phi''|`` for all z. If they are not given, proofs bound these
        derivatives near z from their values at z and `third_bound`, which is less sharp far from z.
    third_bound : float or callable, optional
        A bound on ``|phi'''|``. It is a number, or a function ``third_bound(z, move)`` that returns
        bounds in the shape of z. They hold for all numbers that differ from z by at most `move`, an
        array in the shape of z.
    error_ulps : float, optional
        A bound on the rounding error of the function, for both float64 and `numpy.longdouble`
        arguments, which are taken as exact. Each number that the function returns has an error of
        at most ``error_ulps eps (1 + |z|)`` plus ``error_ulps eps`` times the magnitudes of phi,
        phi' and phi'', with eps that of the dtype of the arguments.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The function is evaluated at 16 numbers between about -3 and 3.
        ValueError is raised if it returns other shapes or NaN, mixes the entries of z, or returns
        derivatives that do not agree with difference quotients, or if a bound does not hold at
        these numbers or at ten times these numbers.

    See Also
    --------
    MLP : Takes activations as ``activation=``, one for all layers or one for each layer.
    Loss : A user-defined loss.

    Notes
    -----
    A verdict is proved only if `third_bound` and `error_ulps` are known for every activation.
    Otherwise it is measured, and its reason states this. The bounds are verified only at the
    numbers of the check. Gradients for proofs are computed in `numpy.longdouble`, as for a `Loss`.

    The function is called by one thread, for each theta, with about 32 000 numbers at a time.
    A pickle stores the function by reference; `save` and `to_torch` raise ValueError for a model
    with a user-defined activation. `MLP.init` draws weights as for relu if phi' is above 1/2 at 30
    and within 1/10 of 0 at -30.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> def arctan(z):
    ...     w = 1 / (1 + z * z)
    ...     return np.arctan(z), w, -2 * z * w * w
    >>> bounds = {"first_bound": 1.0, "second_bound": 0.65, "third_bound": 2.0}
    >>> phi = fc.Activation(arctan, **bounds, error_ulps=8)
    >>> X = np.random.default_rng(0).standard_normal((50, 2))
    >>> ob = fc.Objective(fc.MLP([2, 3, 1], phi), X, X[:, 0] * X[:, 1], loss="mse", l2=0.01)
    >>> run = fc.minimize(ob, ob.model.init(seed=0), seed=0)
    >>> run.kind, run.report.certified
    ('minimum', True)
    """

    def __init__(
        self,
        function: Callable[[Any], Values],
        *,
        first_bound: float | None = None,
        second_bound: float | None = None,
        third_bound: float | Callable[[Floats, Floats], Floats] | None = None,
        error_ulps: float | None = None,
    ) -> None:
        returns = "function(z) -> (phi, first, second)"
        self.name = check_user_function(function, returns, third_bound, error_ulps)
        for name, bound in (("first_bound", first_bound), ("second_bound", second_bound)):
            if bound is not None:
                check_positive(bound, name, zero=True)
        self.function = function
        self.first_bound = first_bound
        self.second_bound = second_bound
        self.third_bound = third_bound
        self.error_ulps = error_ulps
        self._check_on_sample()

    def __reduce__(self) -> tuple[Any, ...]:
        """Create copies by the constructor, which checks the function. A pickle stores the function
        by its name, which may denote another function in another process.
        """
        bounds = {
            name: getattr(self, name)
            for name in ("first_bound", "second_bound", "third_bound", "error_ulps")
        }
        return partial(type(self), **bounds), (self.function,)

    def _check_on_sample(self) -> None:
        """Raise ValueError if the function returns NaN or infinity or mixes the entries of z at
        `CHECK_POINTS`, or if it has wrong derivatives or violates a bound at `CHECK_POINTS` or at
        ten times these points.
        """
        found = self(CHECK_POINTS)
        for name, part in zip(self.parts, found):
            bad = ~np.isfinite(part)
            if bad.any():
                raise ValueError(
                    f"{self!r} must return finite numbers for every z, got {name} = "
                    f"{part[bad][0]} at z = {CHECK_POINTS[bad][0]:.4g}."
                )
        turned = tuple(part.T for part in self(CHECK_POINTS.T))
        check_rows_independent(self, found, turned, "numbers in another shape", "each number of z")
        for z in (CHECK_POINTS, 10 * CHECK_POINTS):
            with np.errstate(all="ignore"):
                found = check_derivatives(self, z, np.ones_like(z))
            for name, part, bound in zip(
                self.parts[1:], found[1:], (self.first_bound, self.second_bound)
            ):
                if bound is not None and (np.abs(part) > bound * (1 + 1e-9)).any():
                    raise ValueError(
                        f"{name}_bound={bound:g} of {self!r} must bound |{name}|, got "
                        f"{np.nanmax(np.abs(part)):.6g}. Use a larger bound, or {name}_bound=None."
                    )
