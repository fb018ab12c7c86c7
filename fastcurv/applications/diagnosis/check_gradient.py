"""The comparison of gradients and Hessian products with finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...common.checks import as_rng, check_positive_int, check_theta, resolve_seed
from ...common.errors import OBJECTIVE_HINT, require_attrs
from ...common.objectives import (
    budgeted_hessian,
    cast_to_float64,
    checked_gradient,
    user_call_guard,
    value_at,
    value_rounding_error,
)
from ...common.protocols import Floats
from ...common.read_only import FrozenRecord
from ...common.runtime import with_nearest_rounding
from ...common.vectors import safe_norm

# steps that are tried, relative to max(1, ||theta||); the step with the smallest estimated error is
# used
DIFFERENCE_STEPS = 2.0 ** -np.arange(2.0, 31.0)
# factor by which the error of a difference quotient may exceed its estimate
QUOTIENT_ERROR_FACTOR = 32.0


@dataclass(frozen=True, repr=False)
class DerivativeCheck(FrozenRecord):
    """The result of `check_gradient`.

    Attributes
    ----------
    gradient_errors, hessian_errors : ndarray (k,)
        For each direction v, the relative differences between ``g'v`` and the difference quotient
        of values, and between ``Hv`` and the difference quotient of gradients. `hessian_errors` is
        empty if the objective has no Hessian.
    gradient_tols, hessian_tols : ndarray (k,)
        The relative errors that the difference quotients may have from truncation and rounding.
    """

    gradient_errors: Floats
    hessian_errors: Floats
    gradient_tols: Floats
    hessian_tols: Floats

    @property
    def gradient_agrees(self) -> bool:
        """True if no error in `gradient_errors` exceeds its tolerance."""
        return bool((self.gradient_errors <= self.gradient_tols).all())

    @property
    def hessian_agrees(self) -> bool:
        """True if no error in `hessian_errors` exceeds its tolerance."""
        return bool((self.hessian_errors <= self.hessian_tols).all())

    @property
    def sentence(self) -> str:
        """String that states whether the gradient and the Hessian agree with finite differences.
        For each of the two, the error that is largest relative to its tolerance is given.
        """
        errors = self.gradient_errors
        tols = self.gradient_tols
        parts = [_error_sentence("The gradient", "loss", errors, tols)]
        if len(self.hessian_errors):
            errors = self.hessian_errors
            tols = self.hessian_tols
            parts.append(_error_sentence("The Hessian", "gradient", errors, tols))
        # With a wrong gradient, this comparison does not test the Hessian.
        if self.gradient_agrees and not self.hessian_agrees:
            parts.append(
                "Correct the products of ob.hessian(theta), or the second derivative of a "
                "user-defined loss or activation."
            )
        elif not self.gradient_agrees:
            parts.append(
                "Correct ob.gradient(theta), or the derivative of a user-defined loss or "
                "activation."
            )
        return " ".join(parts)

    def summary(self) -> str:
        """Return `sentence`."""
        return self.sentence

    def __repr__(self) -> str:
        return f"DerivativeCheck: {self.sentence}"


def _error_sentence(what: str, of: str, errors: Floats, tols: Floats) -> str:
    """Return a sentence that states whether the derivative named `what` agrees with finite
    differences of the function named `of`. The sentence gives the entry of `errors` (k,) that is
    largest relative to its tolerance in `tols` (k,).
    """
    worst = int(np.argmax(np.where(tols > 0, errors / np.where(tols > 0, tols, 1.0), np.inf)))
    agrees = "agrees" if (errors <= tols).all() else "does not agree"
    return (
        f"{what} {agrees} with finite differences of the {of}. The relative error is "
        f"{errors[worst]:.2g}; the finite differences alone may cause errors up to "
        f"{tols[worst]:.2g}."
    )


@with_nearest_rounding
def check_gradient(
    ob: Any, theta: Any, *, n_directions: int = 8, seed: Any = 0, rng: Any = None
) -> DerivativeCheck:
    """Compare the gradient and the Hessian of an objective with finite differences.

    This is useful for a user-defined `Loss`, `Activation` or objective, because a wrong sign in one
    derivative makes training stop at points that are not critical.

    Parameters
    ----------
    ob : objective
        Any object with ``n_params``, ``value(theta)`` and ``gradient(theta)``. If the object has a
        method ``hessian(theta)``, the Hessian is checked too. A float32 `Objective` is checked in
        float64.
    theta : array_like (n,)
        The point; not changed. Errors are easiest to detect at a point where derivatives are large.
    n_directions : int
        Number of random directions.
    seed : None, int or Generator
        Seed of the directions.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Another name for `seed`, as in SciPy.

    Returns
    -------
    DerivativeCheck
        ``gradient_agrees``, ``hessian_agrees``, ``sentence``, and the errors along each direction.

    Raises
    ------
    TypeError
        If `ob` has no ``value`` or ``gradient``.
    ValueError
        If a value or a derivative near theta is not finite.

    See Also
    --------
    Loss, Activation : functions of your own.

    Notes
    -----
    Central differences ``(f(theta + h v) - f(theta - h v)) / 2h`` are computed for 29 steps h. The
    truncation error of each is estimated by comparison with the step 2h [1]_, and its rounding
    error from the size of the values. The step with the smallest sum of both errors is used. The
    error of its difference quotient exceeds 32 times this sum only where derivatives jump within
    the step, as at kinks. The check costs 58 values and, if there is a Hessian, 58 gradients for
    each direction.

    References
    ----------
    .. [1] J. Nocedal and S. Wright, Numerical Optimization, 2nd ed., 2006, section 8.1.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> class Bowl:
    ...     n_params = 2
    ...     def value(self, t): return t[0] ** 2 + np.cos(t[1])
    ...     def gradient(self, t): return np.array([2 * t[0], np.sin(t[1])])
    >>> fc.check_gradient(Bowl(), [1.0, 2.0]).gradient_agrees  # the sign of the sine is wrong
    False
    """
    require_attrs(ob, ("n_params", "value", "gradient"), "ob", OBJECTIVE_HINT, theta)
    theta = np.array(check_theta(ob, theta), float)
    ob = cast_to_float64(ob)
    rng = as_rng(resolve_seed(seed, rng, 0))
    n_directions = check_positive_int(n_directions, "n_directions")
    with np.errstate(all="ignore"), user_call_guard(ob, theta):
        g = checked_gradient(ob.gradient(theta), theta.size)
        H = budgeted_hessian(ob, theta) if hasattr(ob, "hessian") else None
        found: list[tuple[float, float]] = []
        curved: list[tuple[float, float]] = []
        for _ in range(n_directions):
            v = rng.standard_normal(theta.size)
            v /= np.linalg.norm(v)
            slope = np.array([g @ v])
            # error of the value from the rounding of theta + h v
            noise = float(np.linalg.norm(g * theta)) * np.finfo(float).eps
            found.append(
                _compare_derivative(lambda x: np.array([value_at(ob, x)]), theta, v, slope, noise)
            )
            if H is not None:
                Hv = H(v)  # this product also sets H.norm
                noise = H.norm * safe_norm(theta) * np.finfo(float).eps
                curved.append(
                    _compare_derivative(
                        lambda x: checked_gradient(ob.gradient(x), x.size), theta, v, Hv, noise
                    )
                )
    errors, tols = np.array(found).T
    hessian_errors, hessian_tols = np.array(curved).reshape(-1, 2).T
    return DerivativeCheck(errors, hessian_errors, tols, hessian_tols)


def _compare_derivative(
    function: Any, theta: Floats, v: Floats, derivative: Floats, noise: float
) -> tuple[float, float]:
    """Compare `derivative`, the derivative of `function` at theta along v, with central differences
    of `function`. Return two numbers: the norm of their difference, and the error that the
    difference quotient may have. Both are relative to the larger norm of the derivative and of the
    difference quotient.

    `noise` is the error of the function that results from the rounding of its argument.
    """
    steps = DIFFERENCE_STEPS * max(1.0, safe_norm(theta))
    differences = []
    rounding = []
    for h in steps:
        above = function(theta + h * v)
        below = function(theta - h * v)
        differences.append((above - below) / (2 * h))
        size = max(safe_norm(above), safe_norm(below))
        rounding.append((value_rounding_error(size, np.float64) + noise) / h)
    truncation = [safe_norm(b - a) for a, b in zip(differences, differences[1:])]
    total = np.add(truncation, rounding[1:])
    best = int(np.argmin(np.where(np.isfinite(total), total, np.inf)))
    if not np.isfinite(total[best]) or not np.isfinite(derivative).all():
        raise ValueError(
            "theta must be a point near which values and derivatives are finite, got infinity or "
            "NaN. Use a theta with smaller entries."
        )
    error = safe_norm(differences[best + 1] - derivative)
    scale = max(safe_norm(derivative), safe_norm(differences[best + 1])) or 1.0
    return error / scale, QUOTIENT_ERROR_FACTOR * float(total[best]) / scale
