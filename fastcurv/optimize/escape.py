"""Escapes from saddles along negative curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..common.checks import (
    as_rng,
    check_positive_int,
    check_rng,
    check_theta,
    check_vector,
    operator_dtype,
)
from ..common.errors import OBJECTIVE_HINT, require_attrs
from ..common.objectives import (
    BudgetedOperator,
    certificate_start_vectors,
    checked_curvature,
    checked_gradient,
    user_call_guard,
    value_at,
    value_rounding_error,
)
from ..common.outcome import Result, outcome
from ..common.protocols import OperatorLike, SupportsHessian, TwiceDifferentiable
from ..common.runtime import with_nearest_rounding
from ..common.sentences import Note, render_notes
from ..common.vectors import norm
from ..krylov.lanczos import product_function
from ..krylov.trust_region import lowest_ritz_pair, new_krylov_space
from .line_search import curvature_rounding_error, initial_trial_length, line_minimum

# --------------------------------------------------------------------------------------------------
# The search for negative curvature at a point.


def lowest_curvature(
    op: OperatorLike,
    rng: np.random.Generator,
    starts: Sequence[np.ndarray] = (),
    *,
    max_products: int = 200,
    stop: Callable[[], bool] | None = None,
    accuracy: float = 0.05,
) -> tuple[float, np.ndarray, float, int]:
    """Search for negative curvature: compute the lowest Ritz pair of a Krylov space from a random
    vector and `starts`. Stop as soon as the Ritz value is clearly negative.

    Parameters
    ----------
    op : LinearOperator, shape (n, n)
        The Hessian.
    rng : Generator
        Generator of the random vector.
    starts : sequence of (n,) arrays
        Directions in which negative curvature is suspected. The random vector alone finds negative
        curvature with probability 1; these directions find it with fewer products.
    max_products : int
        Limit on Hessian products. If H has no negative curvature, the search ends only at this
        limit or once the Krylov space cannot grow.
    stop : callable, optional
        The search ends when ``stop()`` returns True, for example once the budget of a run is used
        up.
    accuracy : float
        The pair is accepted once ``residual <= accuracy * |curvature|`` and the curvature is below
        minus its rounding.

    Returns
    -------
    curvature : float
        The Rayleigh quotient v'Hv.
    v : (n,) unit vector
        The Ritz vector.
    rounding : float
        Curvature counts as negative if ``v'Hv < -rounding``.
    n_products : int
        Number of products used, which is the dimension of the Krylov space.
    """
    n = op.shape[0]
    dtype = operator_dtype(op)
    limit = min(n, max_products)
    space = new_krylov_space(n, dtype, min(n, limit + 2 + len(starts)))
    random = rng.standard_normal(n).astype(dtype)
    nonzero_starts = [np.asarray(v, dtype=dtype) for v in starts if np.any(v)]
    space.start(product_function(op), random, nonzero_starts)
    look_at = 1 + len(nonzero_starts)
    while True:
        space.extend()
        ending = space.exhausted or space.m >= limit or (stop is not None and stop())
        if space.m < look_at and not ending:
            continue
        look_at = space.m + 1 + space.m // 6
        curvature, residual, u = lowest_ritz_pair(space)
        if ending or (
            curvature < -1e-9 * space.max_abs_eigenvalue and residual <= accuracy * abs(curvature)
        ):
            v = space.combine(u)
            v /= v.dtype.type(np.linalg.norm(v))
            rounding = curvature_rounding_error(v, space.max_abs_eigenvalue)
            if ending or curvature < -rounding:
                return curvature, v, rounding, space.m


def curvature_start_vectors(ob: Any, theta: np.ndarray, H: Any, g: Any = None) -> list[np.ndarray]:
    """Return start vectors from which negative curvature is likely to be found early: the gradient
    and up to 4 of the objective's probe directions. If `g` is None, the gradient stored in H is
    used, or that of `ob`. If neither has one, only the probe directions are returned.
    """
    g = getattr(H, "gradient", None) if g is None else g
    if g is None and hasattr(ob, "gradient"):
        g = checked_gradient(ob.gradient(theta), theta.size, None)
    starts = [] if g is None else [np.asarray(g)]
    return [*starts, *certificate_start_vectors(ob, theta).T[:4]]


class EscapeResult(Result):
    """Result of `escape`.

    Attributes
    ----------
    step : float
        Signed length of the step along `direction`; 0 without success.
    direction : ndarray, shape (n,)
        Unit vector along which the loss was searched.
    curvature : float
        ``direction' H direction`` at theta, the point from which the search began.
    n_products : int
        Number of Hessian products.
    """

    step: float
    direction: np.ndarray
    curvature: float
    n_products: int


@with_nearest_rounding
def escape(
    ob: SupportsHessian,
    theta: Any,
    direction: Any = None,
    *,
    max_products: int = 300,
    rng: Any = 0,
) -> EscapeResult:
    """Leave a saddle: follow a direction of negative curvature to the lowest point found on the
    line, on either side.

    Near a saddle the loss decreases along an eigenvector of a negative eigenvalue lam, but
    ``1/|lam|``, the length of the Newton step, is not the best one [1]_. The step is therefore
    found by a line search over both signs.

    Parameters
    ----------
    ob : objective
        Anything with ``n_params``, ``value(theta)`` and ``hessian(theta)``.
    theta : ndarray, shape (n,)
        The point to leave; not changed.
    direction : ndarray, shape (n,), optional
        The direction to follow, of any length. By default the most negative Ritz vector of a Krylov
        space from random, gradient and ``ob.certificates.certificate_start_vectors(theta)`` starts.
    max_products : int
        Limit on Hessian products, one of which measures the curvature along the direction found.
    rng : None, int or Generator
        Seed of the random choices; the same int gives bit-identical results.

    Returns
    -------
    OptimizeResult
        If `success`, ``fun`` at ``x`` is lower than at theta by more than the rounding of the
        value, and the curvature along the line is proved negative by a product or, for a
        `direction` given by the caller, the value fell further than the slope alone explains.
        Otherwise ``x`` is theta and `message` gives the reason. ``direction`` is the unit vector
        v of the line, ``step`` the signed length along v, ``curvature`` is v'Hv, and ``nfev`` and
        ``n_products`` count values and Hessian products.

    See Also
    --------
    classify : finds directions to escape along.
    minimize : continues the descent from ``x``.

    References
    ----------
    .. [1] G. Alain, N. Le Roux, P.-A. Manzagol, Negative eigenvalues of the Hessian in deep neural
           networks, 2019.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> class Saddle:
    ...     n_params = 2
    ...     def value(self, t): return t[0] ** 2 - t[1] ** 2 + t[1] ** 4
    ...     def hessian(self, t): return np.diag([2.0, 12.0 * t[1] ** 2 - 2.0])
    >>> found = fc.escape(Saddle(), np.zeros(2))
    >>> found.success, round(float(found.fun), 3)
    (True, -0.25)
    """
    require_attrs(ob, ("n_params", "value", "hessian"), "ob", OBJECTIVE_HINT)
    theta = check_theta(ob, theta, "theta", getattr(ob, "dtype", None)).copy()
    max_products = check_positive_int(max_products, "max_products")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), user_call_guard(ob, theta):
        return _escape(ob, theta, direction, max_products, check_rng(rng))


def _escape(
    ob: Any,
    theta: np.ndarray,
    direction: Any,
    max_products: int,
    seed: int | np.random.Generator | None,
) -> EscapeResult:
    """Run `escape` with its arguments, of which `theta` and `max_products` have been checked."""
    H = BudgetedOperator(checked_curvature(ob.hessian(theta), theta.size))
    rng = as_rng(seed)
    f0 = value_at(ob, theta)
    way = direction
    size = 0.0
    rounding = 0.0
    if way is None and max_products == 1:
        way = next(iter(curvature_start_vectors(ob, theta, H.native)), rng.standard_normal(H.n))
    elif way is None:
        curvature, way, rounding, H.count = lowest_curvature(
            H.native,
            rng,
            curvature_start_vectors(ob, theta, H.native),
            max_products=max_products - 1,
        )
        size = rounding / curvature_rounding_error(way, 1.0)
    v = check_vector(way, H.n, "direction", theta.dtype if direction is None else np.float64)
    if not np.any(v):
        raise ValueError("direction must not be zero, got a vector of zeros.")
    v = (v / v.dtype.type(norm(v))).astype(theta.dtype)
    curvature, error, Hv = H.rayleigh_quotient_with_error(v)
    H.norm = max(H.norm, size, norm(Hv))
    negative = curvature < -max(error, rounding if rounding else H.product_error_bound(v))
    result: Any = outcome(
        EscapeResult,
        x=theta.copy(),
        fun=f0,
        success=False,
        step=0.0,
        direction=v,
        curvature=curvature,
        nfev=1,
    )
    if negative or direction is not None:
        _find_lowest_on_line(ob, theta, v, result, negative)
    else:
        numbers = {"n_products": H.count, "rounding": f"{max(rounding, error):.1g}"}
        _set_note(result, "no_negative_curvature", **numbers)
    result.n_products = H.count
    escaped: EscapeResult = result
    return escaped


def _find_lowest_on_line(
    ob: TwiceDifferentiable, theta: np.ndarray, v: np.ndarray, result: Any, negative: bool
) -> None:
    """Store in `result` the lowest point found on the line through theta along v. The loss at this
    point must be lower than at theta by more than rounding. Unless the curvature along v is proved
    `negative`, the loss must also be lower by more than the slope alone explains. If no such point
    is found, only the note is stored.
    """

    def value(point: np.ndarray) -> float:
        result.nfev += 1
        return value_at(ob, point)

    f0 = result.fun
    kind = theta.dtype.type
    t, f = line_minimum(value, theta, v, f0, initial_trial_length(theta))
    gain = f0 - f
    explained = 0.0
    if not negative and hasattr(ob, "gradient"):
        explained = abs(t * float(checked_gradient(ob.gradient(theta), theta.size) @ v))
    if gain > value_rounding_error(f0, theta.dtype) + explained:
        result.update(x=theta + kind(t) * v, fun=f, step=t, success=True)
        losses = {"loss": f"{f0:.9g}", "lowest": f"{f:.9g}"}
        _set_note(result, "escaped", length=abs(float(t)), **losses)
    elif gain > 0 and not negative:
        _set_note(result, "slope_only", gain=float(gain))
    else:
        _set_note(result, "no_lower_on_line")


def _set_note(result: Any, key: str, **numbers: Any) -> None:
    """Store the note of the given key and numbers, and its message, in `result`."""
    result.notes = (Note(key, {"curvature": float(result.curvature), **numbers}),)
    result.message = render_notes(result.notes)
