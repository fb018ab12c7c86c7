"""The way down from a saddle."""

from __future__ import annotations

import numpy as np
from scipy.optimize import OptimizeResult

from ..checks import as_rng, check_positive_int, check_symmetric_operator, check_theta, check_vector
from .line_search import first_length, line_minimum, rounding_of
from .negative_curvature import lowest_curvature, suspects


def escape(ob, theta, direction=None, *, max_products=300, seed=0):
    """Leave a saddle: follow negative curvature to the lowest point of the line, either way along
    it.

    Near a saddle the loss falls along an eigenvector of a negative eigenvalue lam, but 1/|lam| is
    the length of a Newton step, not of the best one [1]_: the step is found by a line search over
    both signs.

    Parameters
    ----------
    ob : objective
        Anything with ``n_params``, ``value(theta)`` and ``hessian(theta)``.
    theta : ndarray, shape (n,)
        Not changed.
    direction : ndarray, shape (n,), optional
        What to follow, of any length. None: the most negative Ritz vector of a Krylov space from
        random, gradient and ``ob.probes(theta)`` starts.
    max_products : int
        For the search of a direction.
    seed : None, int or Generator

    Returns
    -------
    OptimizeResult
        ``x`` and ``fun``, lower than at theta where `success`; else ``x`` is theta and `message`
        says why. ``direction`` (unit), ``step`` (signed length along it), ``curvature`` (v'Hv),
        ``nfev``, ``n_products``.

    References
    ----------
    .. [1] G. Alain, N. Le Roux, P.-A. Manzagol, Negative eigenvalues of the Hessian in deep neural networks, 2019.

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
    n = ob.n_params
    theta = check_theta(ob, theta, "theta", getattr(ob, "dtype", None))
    max_products = check_positive_int(max_products, "max_products")
    H = check_symmetric_operator(ob.hessian(theta), "ob.hessian(theta)")
    f0 = float(ob.value(theta))
    n_values, n_products = 1, 0

    def value(point):
        nonlocal n_values
        n_values += 1
        return float(ob.value(point))

    if direction is None:
        curvature, v, rounding, n_products = lowest_curvature(
            H, n, theta.dtype, as_rng(seed), suspects(ob, theta, H), max_products
        )
    else:
        v = check_vector(direction, n, "direction", theta.dtype)
        norm = float(np.linalg.norm(v))
        if norm == 0:
            raise ValueError("direction is zero; wanted a direction to follow")
        v = v / theta.dtype.type(norm)
        Hv = np.asarray(H @ v)
        curvature, n_products = float(v @ Hv), 1
        rounding = rounding_of(v, float(np.linalg.norm(Hv)))
    result = OptimizeResult(
        x=theta.copy(),
        fun=f0,
        success=False,
        step=0.0,
        direction=v,
        curvature=curvature,
        n_products=n_products,
    )
    if direction is None and not curvature < -rounding:
        result.message = (
            f"No negative curvature was found with {n_products} products: the lowest Rayleigh "
            f"quotient is {curvature:.3g}, "
            f"with rounding of the order of {rounding:.1g}."
        )
    else:
        t, f = line_minimum(value, theta, v, f0, first_length(theta))
        if f < f0:
            result.update(x=theta + theta.dtype.type(t) * v, fun=f, step=t, success=True)
            result.message = (
                f"The loss fell from {f0:.6g} to {f:.6g} over a step of length "
                f"{abs(t):.3g} along curvature {curvature:.3g}."
            )
        else:
            result.message = (
                "No lower value was found on the line, in either direction; the "
                f"curvature along it is {curvature:.3g}."
            )
    result.nfev = n_values
    return result
