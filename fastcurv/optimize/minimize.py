"""`minimize`: any method, one loop, and a verdict at the end instead of the word "converged"."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from ..common.checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    check_theta,
    old_name,
)
from ..common.errors import door, names_of, need, own_names, refuse_foreign, refuse_swapped, typed
from ..common.protocols import Batched, Descent, Smooth, Valued
from ..common.runtime import to_nearest
from .checkpoint import saved
from .first_order import SGD, Adam, Momentum, Nesterov, RMSProp
from .lbfgs import LBFGS
from .loop import Loop, Request
from .newton import (
    Cubic,
    DampedNewton,
    GaussNewton,
    Newton,
    NewtonCG,
    NewtonMR,
    SaddleFreeNewton,
    TrustRegion,
)
from .run import Method, Run

# --------------------------------------------------------------------------------------------------
# The callback of a run, in any of SciPy's forms.


def as_callback(callback: Any) -> Callable[[OptimizeResult], bool] | None:
    """A callback in SciPy's forms as a function of the intermediate result."""
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback is {typed(callback)}; wanted a function")
    try:
        whole = "intermediate_result" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        whole = False
    # wrapped by scipy.optimize.minimize, which unpacks the result itself
    wrapped = hasattr(callback, "stop_iteration")

    def call(result: OptimizeResult) -> bool:
        try:
            if wrapped:
                return bool(callback(result))
            return bool(callback(intermediate_result=result) if whole else callback(result.x))
        except StopIteration:
            return True

    return call


METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "rmsprop": RMSProp,
    "adam": Adam,
    "newton": Newton,
    "damped-newton": DampedNewton,
    "newton-mr": NewtonMR,
    "saddle-free-newton": SaddleFreeNewton,
    "newton-cg": NewtonCG,
    "trust-region": TrustRegion,
    "cubic": Cubic,
    "gauss-newton": GaussNewton,
    "l-bfgs": LBFGS,
}
ALIASES = {"lbfgs": "l-bfgs"}  # as scikit-learn has it
STOCHASTIC = tuple(name for name, m in METHODS.items() if "batch_size" in m.defaults)


@own_names("minimize")
@to_nearest
def minimize(
    ob: Smooth,
    theta0: Any = None,
    method: Descent = "trust-region",
    *,
    max_iter: int | None = None,
    max_time: float | None = None,
    max_products: int | None = None,
    gradient_tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    seed: Any = None,
    progress: bool | None = None,
    validation: Valued | None = None,
    patience: int | None = None,
    checkpoint: Any = None,
    checkpoint_every: int | None = None,
    resume: Any = None,
    verdict: bool = True,
    **options: Any,
) -> OptimizeResult:
    """Minimise an objective, and say what kind of point was reached.

    Parameters
    ----------
    ob : objective
        Anything with ``n_params``, ``value``, ``gradient`` and, for second-order methods and
        verdicts, ``hessian``; ``value_and_gradient`` is used where present; mini-batches need
        ``batch(rows)`` and ``n_samples``, Gauss-Newton ``ggn``.
    theta0 : ndarray, shape (n,)
        The start; not changed. None where `resume` gives it.
    method : str
        First order: ``sgd momentum nesterov rmsprop adam``, in torch's forms.
        Second order: ``trust-region newton-cg saddle-free-newton cubic gauss-newton``, which leave
        saddles, and ``newton damped-newton newton-mr``, which are drawn to them. Between
        them: ``l-bfgs``.
    max_iter : int, optional
        Steps; epochs where `batch_size` is given. Default 5000 of a method by curvature, 1000 of
        others, or 100 epochs.
    max_time, max_products : float, int, optional
        Seconds and Hessian products after which the run ends, inside a step if need be; a first
        step takes two products at least. The checks at the end keep to `max_time` too; their
        products are extra, and none with ``verdict=False``. Without it tries and escapes
        take no longer than the steps did, or a second, and a proof by all eigenvalues (up to n =
        4096), or a search for the kinks of relu that hold a stalled run, no longer than that, or
        half a minute.
    gradient_tol : float, optional
        Where to stop: a gradient no longer than this counts as zero. By default at 1e-6 (1e-3 in
        float32), and on from there, by Newton steps with gradients in extended precision too,
        until theta is near a critical point in the scale-free sense of `classify`.
    callback : callable, optional
        ``callback(intermediate_result)`` gets an OptimizeResult after each iteration,
        ``callback(xk)`` under any other parameter name the point; True, or raising StopIteration,
        ends the run. After an epoch that `record_every` leaves out there is no ``jac``, and ``fun``
        is the mean loss of its batches, each as it came.
    seed : None, int or Generator
        Mini-batches and random probes.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s. A pipe
        or a log is told by True, or by a `callback` that prints.
    validation : objective, optional
        Its ``value`` is recorded with every iteration, and the point where it was lowest is
        returned.
    patience : int, optional
        End the run after so many records without a lower `validation` (without it: loss).
    checkpoint : path, optional
        Where the run is saved, at the end and on the way. A run outlives a disk that fills up: a
        `RuntimeWarning` says that the file is an older one.
    checkpoint_every : int, optional
        Iterations between saves; default: as many as make two a minute at most.
    resume : path, optional
        Continue a saved run of the same method, options, objective and validation, bit for bit as
        if it had not been stopped. Another loss at the theta that was saved is an error.
    verdict : bool
        False: no `classify` at the end, so `success` stays False.
    **options
        The method's own, by name. First order: ``learning_rate schedule delta hold batch_size clip
        record_every`` and ``momentum rho beta1 beta2 eps``. Every so many epochs of mini-batches,
        and at the end, the loss and gradient of all rows are recorded, and no tolerance is looked
        at before: by default after each, which takes half as long as the epoch. Second order:
        ``forcing thrift krylov_dim sample`` and ``radius damping weight max_cg``; for
        ``trust-region saddle-free-newton cubic gauss-newton`` also ``precondition warm_start``,
        both False: scaling by the norms of the Hessian's rows and the last step as a start, which
        large networks need. `sample` rows, drawn anew for each point, then stand for all in the
        curvature (never in value and gradient).

    Returns
    -------
    OptimizeResult
        ``x fun jac nit nfev njev nhev status success message`` as in SciPy, ``nhev`` in products,
        and

        * ``kind`` and ``report``: what `classify` says of x; where ||g|| is above `gradient_tol`
          ``not_critical``, and None for the report, which `classify` makes, as `message` says.
        * ``success``: True at a minimum, proved or, where nothing bounds the third derivative,
          measured, as `message` says; and at a point, degenerate or with a gradient that is all
          rounding, whose loss is its lower bound, such as an mse of 0, to rounding or to 1e-24 of
          that at the start. Nowhere else.
        * ``history``: dict of arrays ``iteration loss gradient_norm products time`` (and
          ``validation``).
        * ``stopped``: why the run ended, one of ``critical max_iter max_time max_products callback
          patience stalled diverged interrupted``; or ``degenerate`` (no descent found after tries
          along the zeros of the Hessian, or none but to x, from where the run did not go on),
          ``infinity`` (the infimum lies there), ``unbounded``, ``kinks`` (of relu units hold it,
          without a proof). `status` is its number in this order, 0 for ``critical``.

        Where kinks of relu units hold a run, theta moves to the point on them; the gradient of the
        loss is not small there, and `report` says how many kinks hold it and what is proved.

        x is the last point of a second-order method, the best recorded one of a first-order method,
        moved by the last Newton steps.

    See Also
    --------
    find_critical_point : critical points of any kind.
    classify : the verdict that ends a run.
    newton_cg, trust_region, saddle_free_newton : the same inside SciPy's minimize.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> class Valley:  # a saddle at 0, minima at (0, -1) and (0, 1)
    ...     n_params = 2
    ...     def value(self, t): return t[0] ** 2 + (t[1] ** 2 - 1) ** 2
    ...     def gradient(self, t): return np.array([2 * t[0], 4 * t[1] * (t[1] ** 2 - 1)])
    ...     def hessian(self, t): return np.diag([2.0, 12 * t[1] ** 2 - 4])
    >>> found = fc.minimize(Valley(), np.zeros(2), "newton-cg", seed=0)
    >>> found.success, found.kind, abs(found.x).round(6)
    (True, 'minimum', array([0., 1.]))
    """
    _check_protocol(ob, "minimize", (), theta0)
    chosen = ALIASES.get(method, method) if isinstance(method, str) else method
    maker = METHODS[check_choice(chosen, METHODS, "method")]
    gradient_tol = old_name("gtol", options.pop("gtol", None), "gradient_tol", gradient_tol)
    options = _checked_options(chosen, maker, options)
    _check_protocol(ob, chosen, (maker.curvature,) if maker.curvature else (), theta0)
    _check_validation(validation)
    kind = np.dtype(getattr(ob, "dtype", None) or np.float64)
    if theta0 is None and resume is None:
        raise ValueError(
            "theta0 is None and there is no checkpoint to resume; wanted a start, ob.model.init()"
        )
    arrays, facts = ({}, {}) if resume is None else saved(resume, chosen, options, ob.n_params)
    start = arrays.get("run.theta", theta0)
    theta = np.array(check_theta(ob, start, "theta0", kind))
    run = Run(
        ob,
        theta,
        as_rng(seed),
        curvature=maker.curvature,
        validation=validation,
        max_time=None if max_time is None else check_positive(max_time, "max_time"),
        max_products=_count(max_products, "max_products"),
        sample=_checked_sample(ob, options.get("sample")),
    )
    ask = Request(
        method=chosen,
        options=options,
        gradient_tol=None
        if gradient_tol is None
        else check_positive(gradient_tol, "gradient_tol", zero=True),
        max_iter=_count(max_iter, "max_iter") or _usual_iterations(maker, options),
        callback=as_callback(callback),
        patience=_count(patience, "patience"),
        checkpoint=checkpoint,
        checkpoint_every=_count(checkpoint_every, "checkpoint_every"),
        verdict=bool(verdict),
    )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is lost is seen
        return Loop(run, ask, maker).go(arrays, facts, progress)


def _usual_iterations(maker: type[Method], options: dict[str, Any]) -> int:
    if options.get("batch_size") is not None:
        return 100
    return 5000 if maker.curvature else 1000


def _count(value: int | None, name: str) -> int | None:
    return None if value is None else check_positive_int(value, name)


def _checked_options(method: str, maker: type[Method], options: dict[str, Any]) -> dict[str, Any]:
    refuse_foreign("minimize", (name for name in options if name not in maker.defaults))
    for name in options:
        if name not in maker.defaults:
            near = difflib.get_close_matches(name, (*maker.defaults, *names_of(minimize)), 1)
            hint = (
                f"; did you mean {near[0]!r}?"
                if near
                else f"; it takes {', '.join(maker.defaults)}."
            )
            raise TypeError(f"minimize(method={method!r}) has no option {name!r}{hint}")
    return options


def _check_protocol(ob: Any, method: str, more: tuple[str, ...], theta0: Any) -> None:
    needed = ["n_params", "value", "gradient", *more]
    missing = [name for name in needed if not hasattr(ob, name)]
    if missing:
        refuse_swapped(ob, needed, "ob", theta0)
        raise TypeError(
            f"{method} needs an objective with {', '.join(needed)}; {type(ob).__name__} lacks "
            f"{', '.join(missing)}{door(ob)}"
        )


def _check_validation(ob: Any) -> None:
    if ob is not None:
        wanted = "an objective, fastcurv.Objective(model, X, y) of rows held out"
        need(ob, ("value",), "validation", wanted)


def _checked_sample(ob: Any, sample: Any) -> int | None:
    """The number of rows that curvature is taken from; None for all."""
    if sample is None:
        return None
    sample = check_positive_int(sample, "sample")
    if not isinstance(ob, Batched):
        raise ValueError(
            "sample needs an objective with batch(rows) and n_samples; this one has no rows"
        )
    return None if sample >= ob.n_samples else sample
