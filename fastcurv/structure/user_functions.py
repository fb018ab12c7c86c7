"""User-defined losses and activations, and the checks of their functions.

`fastcurv.structure.given` describes how the library calls the functions. The checks evaluate a
function at a few rows or numbers. It must return arrays of the right shapes, depend on its
arguments alone, and return its true derivatives. Nothing is proved with a user-defined function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import check_positive, check_real_number, short_repr
from ..common.errors import type_phrase
from ..common.protocols import Array, Floats
from .given import (
    LossFunction,
    UserFunction,
    Values,
    pseudo_huber_loss,
    quantile_loss,
)

N_CHECK_ROWS = 16  # number of rows on which a new loss is checked
DIFFERENCE_STEP = 1e-5  # step of difference quotients, for arguments of magnitude about 1
# values of z at which a new activation is evaluated
CHECK_POINTS = np.linspace(-3, 3, 16)[:, None] + 0.0137


def check_user_function(function: Any, kind: str, returns: str, bounds: dict[str, Any]) -> str:
    """Return the name of a user-defined function. Raise TypeError if it cannot be called, or if
    `bounds`, the other arguments, are not empty. `kind` is "loss" or "activation", and `returns`
    the signature of the function, for the error messages.
    """
    if not callable(function):
        raise TypeError(f"function must be {returns}, got {type_phrase(function)}.")
    for name, value in bounds.items():
        raise TypeError(
            f"{name} must be left out, got {short_repr(value)}. Verdicts on objectives with a user-"
            f"defined {kind} are measured and need no bounds."
        )
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
    ValueError if the derivatives differ from difference quotients along v.
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
    return here


class Loss(LossFunction):
    """A user-defined loss, given as a function of outputs and targets.

    The objective is the mean of the losses of the samples, as for ``cross_entropy``. Values,
    gradients, products with the Hessian, spectra, `minimize` and verdicts need only the function.
    The GGN is defined where no second derivative is negative.

    Parameters
    ----------
    function : callable
        ``function(z, y)`` for float64 arrays, outputs z ``(N, d)`` and targets y ``(N, m)``. It
        returns ``(value, first, second)``: the loss of each sample ``(N,)``, its derivatives with
        respect to z ``(N, d)``, and its second derivatives. These have shape ``(N, d)`` if the loss
        is a sum of one term for each output. Otherwise they have shape ``(N, d, d)`` and are
        symmetric, for at most 64 outputs. The results must depend on the arguments only.
    lower_bound : float, optional
        A lower bound on the loss of a sample.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The first objective with this loss evaluates the function on at
        most 16 samples. ValueError is raised if the function returns other shapes, mixes samples,
        or returns derivatives that do not agree with difference quotients, or if `lower_bound` does
        not hold on these samples.

    See Also
    --------
    Objective : Takes a loss as ``loss=``.

    Notes
    -----
    Verdicts on an objective with a user-defined loss are measured, not proved. The function is
    called once for each theta and block of rows, by one thread.

    The built-in losses ``poisson``, ``gamma``, ``pseudo_huber``, ``log_cosh``, ``quantile`` and
    ``gaussian_nll`` are defined by NumPy functions too, with bounds from which verdicts are proved.
    `quantile` and `pseudo_huber` return these two losses with other parameters. Minima at active
    kinks of relu networks are not proved for any of these losses.

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
    >>> loss = fc.Loss(cauchy, lower_bound=0.0)
    >>> ob = fc.Objective(fc.MLP([2, 1]), X, y, loss=loss)
    >>> run = fc.minimize(ob, ob.model.init(rng=0))
    >>> run.x.round(2)
    array([ 1., -2.,  0.])
    """

    built_in = False

    def __init__(
        self,
        function: Callable[[Any, Any], Values],
        *,
        lower_bound: float | None = None,
        **bounds: Any,
    ) -> None:
        returns = "function(z, y) -> (value, first, second)"
        name = check_user_function(function, "loss", returns, bounds)
        wanted = "a finite number, or None if no lower bound is known"
        if lower_bound is not None:
            lower_bound = check_real_number(lower_bound, "lower_bound", wanted)
        if lower_bound is not None and not math.isfinite(lower_bound):
            raise ValueError(f"lower_bound must be {wanted}, got {lower_bound!r}.")
        super().__init__(name, function, lower_bound, per_target=0)

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
        """Raise ValueError if the function mixes rows, if its derivatives are wrong, or if
        `lower_bound` does not hold. The function is evaluated for at most `N_CHECK_ROWS` of the
        targets y and d standard normal outputs.
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

    built_in = True

    def __init__(self, name: str, *function: Any, **properties: Any) -> None:
        LossFunction.__init__(self, name, *function, **properties)

    def __reduce_ex__(self, protocol: Any) -> Any:
        head, _, numbers = self.name.removesuffix(")").partition("(")
        return getattr(Loss, head), tuple(float(number) for number in numbers.split(","))


class Activation(UserFunction):
    """A user-defined activation, given as a function of the pre-activations z of a layer. It works
    in products, spectra, `minimize` and verdicts, with batch normalisation and skip connections.

    Parameters
    ----------
    function : callable
        ``function(z)`` for a float64 array z of some rows of a layer. It returns ``(phi, first,
        second)``: phi(z), phi'(z) and phi''(z), each in the shape of z. phi must be smooth, and
        each entry of a result must depend on the same entry of z only.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The function is evaluated at 16 numbers between about -3 and 3,
        and at ten times these numbers. ValueError is raised if it returns other shapes, NaN or
        infinity, mixes the entries of z, or returns derivatives that do not agree with difference
        quotients.

    See Also
    --------
    MLP : Takes activations as ``activation=``, one for all layers or one for each layer.
    Loss : A user-defined loss.

    Notes
    -----
    Verdicts on an objective with a user-defined activation are measured, not proved.

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
    >>> X = np.random.default_rng(0).standard_normal((50, 2))
    >>> model = fc.MLP([2, 3, 1], fc.Activation(arctan))
    >>> ob = fc.Objective(model, X, X[:, 0] * X[:, 1], loss="mse", l2=0.01)
    >>> run = fc.minimize(ob, ob.model.init(rng=0), rng=0)
    >>> run.kind, run.report.certified
    ('minimum', False)
    """

    parts = ("phi", "first", "second")

    def __init__(self, function: Callable[[Any], Values], **bounds: Any) -> None:
        returns = "function(z) -> (phi, first, second)"
        self.name = check_user_function(function, "activation", returns, bounds)
        self.function = function
        self._check_on_sample()

    def __reduce__(self) -> tuple[Any, ...]:
        """Create copies by the constructor, which checks the function. A pickle stores the function
        by its name, which may denote another function in another process.
        """
        return type(self), (self.function,)

    def __eq__(self, other: object) -> bool:
        """Return True for the same object, and for two activations of this very class with the same
        function. A subclass may compute something else.
        """
        return self is other or (
            type(self) is Activation is type(other) and (self.function is other.function)
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self, z: Array) -> Values:
        """Return phi, phi' and phi'' at z, in the precision and the shape of z. Raise ValueError if
        a result has another shape.
        """
        derivatives = self._call_function(z)
        for name, part in zip(self.parts, derivatives):
            self._check_shape(name, part, [z.shape], z)
        return derivatives

    def rounded(self, z: Array) -> Values:
        """Return phi, phi' and phi'' at z for the engine, as contiguous arrays in the dtype of z.
        They are computed in float64 and rounded once.
        """
        derivatives = self(z.astype(float, copy=False))
        with np.errstate(all="ignore"):
            a, p, q = (np.ascontiguousarray(part, z.dtype) for part in derivatives)
        return a, p, q

    @property
    def is_relu_like(self) -> bool:
        """True if phi' is above 1/2 at 30 and within 1/10 of 0 at -30, as for relu."""
        below, above = self(np.array([[-30.0, 30.0]]))[1][0]
        return bool(above > 0.5 and abs(below) < 0.1)

    def _check_on_sample(self) -> None:
        """Raise ValueError if the function returns NaN or infinity or mixes the entries of z at
        `CHECK_POINTS`, or if it has wrong derivatives at `CHECK_POINTS` or at ten times these
        points.
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
                check_derivatives(self, z, np.ones_like(z))
