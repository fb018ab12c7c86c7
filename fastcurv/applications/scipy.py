"""Second-order methods of `minimize` as custom methods of `scipy.optimize.minimize`:
``minimize(fun, x0, jac=True, hessp=..., method=fc.scipy.newton_cg)``.
"""

from __future__ import annotations

from functools import partial
from operator import matmul
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..common.checks import check_array, short_repr
from ..common.protocols import Descent
from ..common.runtime import raise_if_interrupted
from ..common.sentences import render_notes
from ..optimize.minimize import minimize
from ..optimize.run import MinimizeResult

__all__ = ["newton_cg", "saddle_free_newton", "trust_region"]


class _FunctionObjective:
    """Objective of functions that follow the conventions of ``scipy.optimize.minimize``:
    ``fun(x, *args)``, ``jac(x, *args)``, and ``hess(x, *args)`` or ``hessp(x, p, *args)``.
    """

    dtype = np.dtype(np.float64)

    def __init__(
        self, fun: Any, args: tuple[Any, ...], *, jac: Any, hess: Any, hessp: Any, n_params: int
    ) -> None:
        if not callable(jac):
            raise ValueError(
                "jac must be a function, or True if fun returns (value, gradient), got "
                f"{short_repr(jac)}."
            )
        if not (callable(hess) or callable(hessp)):
            raise ValueError(
                "hess(x) or hessp(x, p) must be a function, got "
                f"hess={short_repr(hess)} and hessp={short_repr(hessp)}."
            )
        self.n_params = n_params
        self.value = lambda theta: float(np.squeeze(fun(theta, *args)))
        self.gradient = lambda theta: np.asarray(jac(theta, *args), dtype=np.float64)

        def hessian(theta: np.ndarray) -> LinearOperator:
            theta = theta.copy()
            product: Any = lambda v: hessp(theta, v, *args)  # noqa: E731
            if not callable(hessp):
                product = partial(matmul, hess(theta, *args))

            def matvec(v: np.ndarray) -> np.ndarray:
                return np.asarray(product(np.ravel(v)), dtype=np.float64)

            return LinearOperator(
                (n_params, n_params), matvec=matvec, rmatvec=matvec, dtype=np.float64
            )

        self.hessian = hessian


def _minimize_for_scipy(
    method: Descent, fun: Any, x0: Any, given: dict[str, Any]
) -> MinimizeResult:
    """Run `minimize` with the given method from x0 on the function ``fun(x, *args)``. `given` holds
    the other arguments that ``scipy.optimize.minimize`` passes to a custom method: args, jac, hess,
    hessp, bounds, constraints, callback and the options. Raise KeyboardInterrupt after Ctrl-C.
    """
    problem = {name: given.pop(name, None) for name in ("args", "jac", "hess", "hessp")}
    bounds = given.pop("bounds", None)
    constraints = given.pop("constraints", None)
    if bounds is not None or (constraints is not None and len(constraints)):
        name, value = ("constraints", constraints) if bounds is None else ("bounds", bounds)
        raise ValueError(
            f"{name} must be None for method {method!r}, got {short_repr(value)}. Use a method "
            f"of SciPy that supports {name}, such as 'trust-constr'."
        )
    names = {"gtol": "gradient_tol", "tol": "gradient_tol", "maxiter": "max_iter"}
    for theirs, ours in names.items():
        if theirs in given:
            given.setdefault(ours, given.pop(theirs))
    given.pop("disp", None)
    x0 = np.atleast_1d(check_array(x0, "x0", np.float64)).ravel()
    args = problem.pop("args")
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    ob = _FunctionObjective(fun, args, n_params=len(x0), **problem)
    result = raise_if_interrupted(minimize(ob, x0, method, **given))
    # Callers of SciPy have no objective, which the calls in the message need.
    result["message"] = render_notes(result["notes"], calls=False)
    return result


def newton_cg(fun: Any, x0: Any, **given: Any) -> MinimizeResult:
    """Run ``newton-cg`` of `minimize` as a method of ``scipy.optimize.minimize(method=...)``.

    Parameters
    ----------
    fun, x0 : callable, array_like
        The function and the start, as SciPy passes them.
    **given
        SciPy's arguments ``args``, ``jac``, ``hess``, ``hessp`` and ``callback``. A gradient, and
        ``hess`` or ``hessp``, are required. ``tol`` or ``gtol`` is the gradient norm that counts as
        zero, and ``maxiter`` the maximum number of steps. All others are options of
        `fastcurv.minimize`.

    Returns
    -------
    OptimizeResult
        `success` is never True on a saddle or a maximum.

    See Also
    --------
    fastcurv.minimize : the same methods without SciPy, for objectives of networks.

    Examples
    --------
    >>> import numpy as np, scipy.optimize, fastcurv as fc
    >>> value = lambda x: x[0] ** 2 + (x[1] ** 2 - 1) ** 2
    >>> f = lambda x: (value(x), np.array([2 * x[0], 4 * x[1] * (x[1] ** 2 - 1)]))
    >>> hessp = lambda x, p: np.array([2 * p[0], (12 * x[1] ** 2 - 4) * p[1]])
    >>> found = scipy.optimize.minimize(f, [0.0, 0.0], jac=True, hessp=hessp,
    ...                                 method=fc.scipy.newton_cg)
    >>> found.kind, round(found.fun, 12)
    ('minimum', 0.0)
    """
    return _minimize_for_scipy("newton-cg", fun, x0, given)


def trust_region(fun: Any, x0: Any, **given: Any) -> MinimizeResult:
    """Run ``trust-region`` of `minimize` as a method of ``scipy.optimize.minimize(method=...)``;
    for the parameters see `newton_cg`.

    Parameters
    ----------
    fun, x0, **given : callable, array_like and keyword arguments
        As SciPy passes them; see `newton_cg`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        The result of `fastcurv.minimize`.

    See Also
    --------
    fastcurv.minimize : the same methods without SciPy, for objectives of networks.

    Examples
    --------
    >>> import scipy.optimize as so, fastcurv as fc
    >>> found = so.minimize(so.rosen, [-1.2, 1.0], jac=so.rosen_der, hess=so.rosen_hess,
    ...                     method=fc.scipy.trust_region)
    >>> found.kind, found.x.round(6)
    ('minimum', array([1., 1.]))
    """
    return _minimize_for_scipy("trust-region", fun, x0, given)


def saddle_free_newton(fun: Any, x0: Any, **given: Any) -> MinimizeResult:
    """Run ``saddle-free-newton`` of `minimize` as a method of
    ``scipy.optimize.minimize(method=...)``; for the parameters see `newton_cg`.

    Parameters
    ----------
    fun, x0, **given : callable, array_like and keyword arguments
        As SciPy passes them; see `newton_cg`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        The result of `fastcurv.minimize`.

    See Also
    --------
    fastcurv.minimize : the same methods without SciPy, for objectives of networks.

    Examples
    --------
    >>> import scipy.optimize as so, fastcurv as fc
    >>> found = so.minimize(so.rosen, [-1.2, 1.0], jac=so.rosen_der, hess=so.rosen_hess,
    ...                     method=fc.scipy.saddle_free_newton)
    >>> found.kind, found.x.round(6)
    ('minimum', array([1., 1.]))
    """
    return _minimize_for_scipy("saddle-free-newton", fun, x0, given)
