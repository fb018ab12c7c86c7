"""`minimize`: any method, one loop, and a verdict on the final point."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy, deepcopy
from functools import partial
from typing import Any

import numpy as np

from ..common.checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    check_real_number,
    check_rng,
    check_theta,
    objective_dtype,
)
from ..common.errors import (
    OBJECTIVE_HINT,
    keyword_names,
    raise_if_unknown_argument,
    require_attrs,
    type_phrase,
)
from ..common.linalg import NotFiniteError
from ..common.outcome import outcome as as_result
from ..common.progress import show_bar
from ..common.protocols import (
    Solver,
    SupportsGradient,
)
from ..common.runtime import (
    Budget,
    forward_interrupts,
    with_nearest_rounding,
)
from ..common.vectors import default_n_threads
from ..network.engine_steps import engine_steps_of
from ..spectrum.tracker import Tracker
from .callbacks import Checkpoint, EarlyStopping
from .checkpoint import load_saved
from .finish import StationaryPointExaminer
from .first_order import SGD, Adam, Momentum, Nesterov, RMSProp
from .lbfgs import LBFGS
from .levenberg import LevenbergMarquardt
from .loop import MinimizeLoop
from .method import Method, check_not_negative, check_row_batch_size
from .newton import (
    CubicRegularization,
    DampedNewton,
    GaussNewton,
    Newton,
    NewtonCG,
    NewtonMR,
    SaddleFreeNewton,
    TrustRegion,
)
from .problem import Problem
from .run import MinimizeResult
from .units import find_target_units, minimize_in_target_units

# --------------------------------------------------------------------------------------------------
# Callbacks, in either of SciPy's forms.


def resolve_callbacks(
    given: object,
) -> tuple[EarlyStopping, Callable[[MinimizeResult], bool] | None]:
    """Return the `EarlyStopping` of the argument `callback` of `minimize`, by default one that
    never ends a run, and a function that calls all other callbacks with an intermediate result and
    returns True to stop. The function is None if there are none.
    """
    every = list(given) if isinstance(given, Sequence) else [] if given is None else [given]
    stops = [one for one in every if isinstance(one, EarlyStopping)]
    if len(stops) > 1:
        raise ValueError(
            f"callback must hold at most one EarlyStopping, got {len(stops)}. Stop by a function "
            "in place of the others."
        )
    calls = [_convert_callback(one) for one in every if not isinstance(one, EarlyStopping)]

    def call(result: MinimizeResult) -> bool:
        # All are called, also after one of them has returned True.
        return max([one(result) for one in calls])

    return stops[0] if stops else EarlyStopping(), call if calls else None


def _convert_callback(callback: object) -> Callable[[MinimizeResult], bool]:
    """Convert a callback in either of SciPy's forms, or a tracker, to a function of the
    intermediate result that returns True to stop. Raise TypeError if it is not callable.
    """
    if not callable(callback):
        raise TypeError(
            f"callback must be a function or a list of functions, got {type_phrase(callback)}."
        )
    if isinstance(callback, Tracker):

        def track(result: MinimizeResult) -> bool:
            # A diverged run is stopped by its own rule, not by this error.
            with suppress(NotFiniteError):
                callback(result.x)
            return False

        return track
    try:
        takes_result = "intermediate_result" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        takes_result = False
    # scipy.optimize.minimize wraps the user's callback in a function that already unpacks the
    # result.
    wrapped = hasattr(callback, "stop_iteration")

    def call(result: MinimizeResult) -> bool:
        try:
            if wrapped:
                return bool(callback(result))
            return bool(
                callback(intermediate_result=result) if takes_result else callback(result.x)
            )
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
    "cubic": CubicRegularization,
    "gauss-newton": GaussNewton,
    "levenberg-marquardt": LevenbergMarquardt,
    "l-bfgs": LBFGS,
}
METHOD_ALIASES = {"lbfgs": "l-bfgs", "lm": "levenberg-marquardt"}
LEVENBERG_MAX_PARAMS = 300  # maximum number of parameters for which "auto" uses Levenberg-Marquardt
# attributes of an objective that every method needs
REQUIRED_ATTRIBUTES = "n_params", "value", "gradient"
STOCHASTIC_METHODS = tuple(name for name, m in METHODS.items() if "batch_size" in m.option_names())


@with_nearest_rounding
def minimize(
    ob: SupportsGradient,
    theta0: Any = None,
    method: Solver = "auto",
    *,
    max_iter: int | None = None,
    max_time: float | None = None,
    max_products: int | None = None,
    gradient_tol: float | None = None,
    fun_target: float | None = None,
    n_init: int = 1,
    callback: Any = None,
    rng: Any = None,
    progress: bool | None = None,
    verdict: bool = True,
    checkpoint: Any = None,
    **options: Any,
) -> MinimizeResult:
    """Minimise an objective, and classify the point that was reached.

    Parameters
    ----------
    ob : objective
        An object with ``n_params``, ``value`` and ``gradient``. Second-order methods and verdicts
        need ``hessian``, mini-batches ``batch(rows)`` and ``n_samples``, Gauss-Newton ``ggn``.
    theta0 : ndarray, shape (n,), optional
        The start; not changed. By default ``ob.model.init(rng)``.
    method : str
        ``sgd``, ``momentum``, ``nesterov``, ``rmsprop``, ``adam``, ``l-bfgs``, ``trust-region``,
        ``newton-cg``, ``saddle-free-newton``, ``cubic``, ``gauss-newton``,
        ``levenberg-marquardt``, or one of ``newton``, ``damped-newton`` and ``newton-mr``, which
        may converge to saddles. ``auto``: ``levenberg-marquardt`` for a network of at most 300
        parameters with rows in memory, else ``trust-region``. It first scales the targets of
        an ``mse`` without l2 that are far from mean 0 and variance 1.
    max_iter : int, optional
        Limit on steps, or on epochs if `batch_size` is given: by default 100 epochs, 5000 steps of
        a second-order method, or 1000 of any other.
    max_time, max_products : float, int, optional
        Seconds (the checks at the end included) and Hessian products after which the run ends.
    gradient_tol : float, optional
        A gradient with at most this norm counts as zero. By default a run ends at 1e-6 (1e-3 in
        float32), and a second-order method continues until the verdict is a proof.
    fun_target : float, optional
        The run ends once the loss is at most this value, for any gradient.
    n_init : int
        Number of starts, `theta0` and random ones, which run in threads with the given limits. The
        run continues from the lowest point, or from the first that reached `fun_target`.
    callback : callable or list, optional
        Called after each iteration, in either form of SciPy: ``callback(intermediate_result)`` or
        ``callback(xk)``. Returning True or raising StopIteration ends the run. A list may also hold
        `fastcurv.optimize.EarlyStopping` and `fastcurv.spectrum.Tracker` objects.
    rng : None, int or Generator
        Seed of mini-batches, random probes and random starts.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.
    verdict : bool
        If False, `classify` is not called, and `success` is True only at `fun_target`.
    checkpoint : path or Checkpoint, optional
        File to which the run is saved, or a `fastcurv.optimize.Checkpoint`, which may also resume.
    **options
        Options of the method, which the documentation of each method lists.

    Returns
    -------
    MinimizeResult
        `x`, `fun`, `kind`, `report`, `success`, `stopped`, `message`, `history` and others.

    See Also
    --------
    find_critical_point : critical points of any kind.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> ob = fc.Objective(fc.MLP([1, 4, 1]), X, np.sin(3 * X), "mse", l2=1e-3)
    >>> run = fc.minimize(ob, rng=0)
    >>> run.success, run.kind, run.report.certified
    (True, 'minimum', True)
    """
    seed = check_rng(rng)
    stop, call = resolve_callbacks(callback)
    saved = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    chosen, maker = _resolve_method(ob, theta0, method, max_products, options)
    kind = objective_dtype(ob)
    losses = None
    pressed = None
    if check_positive_int(n_init, "n_init") > 1:
        single = {"checkpoint": checkpoint, "callback": call}
        seed = as_rng(seed)
        theta0, losses, max_time, pressed = _minimise_from_starts(
            ob, theta0, n_init, seed, single, max_time=max_time, progress=progress, method=method,
            max_iter=max_iter, max_products=max_products, gradient_tol=gradient_tol,
            fun_target=fun_target, callback=stop, **options,
        )  # fmt: skip
    run = None
    if saved.resume is not None:
        run = load_saved(saved.resume, chosen, options, ob.n_params)
        theta0 = run.theta
    elif theta0 is None:
        theta0 = _draw_start(ob, seed)
    theta = np.array(check_theta(ob, theta0, "theta0", kind))
    problem = Problem(
        ob, seed,
        sample=check_row_batch_size(ob, options.get("sample"), "sample"),
        max_time=_validate(max_time, "max_time", check_positive),
        max_products=_validate(max_products, "max_products"),
        fun_target=_validate(fun_target, "fun_target", _check_not_nan),
        pressed=pressed,  # Ctrl-C in the runs from several starts ends this run
    )  # fmt: skip
    usual = 100 if options.get("batch_size") is not None else 5000 if maker.curvature else 1000
    tol = _validate(gradient_tol, "gradient_tol", check_not_negative)
    solver = maker(**options)
    loop = MinimizeLoop(
        problem, theta, solver, chosen, gradient_tol=tol, callback=call, stop=stop,
        max_iter=_validate(max_iter, "max_iter") or usual, checkpoint=saved, options=options,
        examiner=StationaryPointExaminer(problem, solver, tol) if verdict else None,
    )  # fmt: skip
    plain = stop == EarlyStopping() and saved == Checkpoint()
    if method == "auto" and gradient_tol is None and plain and not options:
        _start_in_scaled_units(loop, seed, progress)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loop checks for NaN
        result = loop.run_to_end(run, progress)
    return result if losses is None else as_result(MinimizeResult, **result, starts=losses)


@with_nearest_rounding
def run_method(
    ob: Any, theta0: np.ndarray, method: str, *, rng: int, max_iter: int,
    callback: Callable[[MinimizeResult], bool], validation: Any = None, patience: int | None = None,
    max_time: float | None = None, progress: bool = False, **options: Any,
) -> MinimizeResult:  # fmt: skip
    """Run `minimize` for arguments that have been checked, without a verdict, until the gradient is
    0 or another limit is reached. A fit that makes several runs checks its arguments only once.
    """
    method = METHOD_ALIASES.get(method, method)
    loop = MinimizeLoop(
        Problem(ob, rng, max_time=max_time), np.array(theta0, ob.dtype),
        METHODS[method](**options), method, gradient_tol=0.0, callback=callback,
        max_iter=max_iter, stop=EarlyStopping(validation, patience),
    )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loop checks for NaN
        return loop.run_to_end(None, progress)


def _start_in_scaled_units(
    loop: MinimizeLoop, seed: int | np.random.Generator | None, progress: bool | None
) -> None:
    """If the targets are far from mean 0 and variance 1, let the loop begin at the end of a run for
    scaled targets.
    """
    problem = loop.problem
    units = find_target_units(problem.ob)
    if units is not None:
        name: Any = loop.name
        go: Any = partial(
            minimize, method=name, max_iter=loop.max_iter, max_time=problem.max_time,
            max_products=problem.max_products, fun_target=problem.fun_target / units.unit**2,
            rng=seed, progress=progress, verdict=False,
        )  # fmt: skip
        loop.continue_run(*minimize_in_target_units(units, loop.start, go, loop.callback))


def _draw_start(ob: Any, seed: int | np.random.Generator | None) -> Any:
    """Return the start (n,) that the objective's model draws, for a run without a given start."""
    if not hasattr(getattr(ob, "model", None), "init"):
        raise ValueError(
            "theta0 must be given if ob has no model that draws a start, got None. Pass a vector "
            "of shape (n_params,), or fastcurv.optimize.Checkpoint(resume=path)."
        )
    return ob.model.init(seed)


def _minimise_from_starts(
    ob: Any, theta0: Any, count: int, rng: np.random.Generator, single: dict[str, Any], *,
    max_time: float | None, progress: bool | None, fun_target: float | None, **given: Any,
) -> tuple[np.ndarray, np.ndarray, float | None, Callable[[], bool] | None]:  # fmt: skip
    """Minimise from `count` starts in parallel threads, without verdicts. The starts are `theta0`,
    if it is given, and random points. Stop at the first run, in the order of the starts, that
    reaches `fun_target`, when the time is used up, or after Ctrl-C. Raise ValueError if an argument
    in `single` is given.

    Return the lowest point, the losses reached, the remaining time, and None or, after Ctrl-C, a
    function that returns True.
    """
    for name in (name for name, value in single.items() if value is not None):
        raise ValueError(
            f"n_init must be 1 if {name} is given, since {name} follows one run, got {count}."
        )
    require_attrs(ob, ("model",), "ob", "an objective with a model, whose init draws starts")
    budget = Budget(seconds=max_time)
    over = threading.Event()
    pressed = None

    # Starts are drawn one at a time, so that memory and time do not grow with their number. They
    # are drawn from a copy of the generator, since the number of starts drawn before `fun_target`
    # is reached depends on the number of threads.
    seeds = deepcopy(rng)

    def run(i: int, seed: int) -> MinimizeResult | None:
        limit = budget.inner_max_time()
        if limit == 1e-3 and i:
            return None
        start = ob.model.init(seed) if i or theta0 is None else theta0
        # each run needs its own copy, since threads would block each other in a shared objective
        ob_copy = copy(ob)
        with forward_interrupts(over.is_set):
            return minimize(
                ob_copy, start, verdict=False, progress=False, rng=seed, max_time=limit,
                fun_target=fun_target, **given,
            )  # fmt: skip

    ended: list[MinimizeResult] = []
    threads = min(count, default_n_threads())
    pool = ThreadPoolExecutor(threads)
    waiting = deque(pool.submit(run, i, int(seeds.integers(2**32))) for i in range(threads))
    try:
        with show_bar(count, "starts", bool(progress)) as shown:
            for i in range(count):
                one = waiting[0].result()
                waiting.popleft()
                if one is None:
                    break
                ended.append(one)
                shown.update(1)
                if fun_target is not None and one.fun <= fun_target:
                    break
                if i + threads < count:
                    seed = int(seeds.integers(2**32))
                    waiting.append(pool.submit(run, i + threads, seed))
    except KeyboardInterrupt:
        over.set()
        pressed = over.is_set
        ended += [found for one in waiting if not one.cancel() and (found := one.result())]
        if not ended:
            raise
    finally:
        over.set()  # this ends the runs whose results are no longer needed
        pool.shutdown(wait=True, cancel_futures=True)
    lowest = min(ended, key=lambda one: one.fun)
    return lowest.x, np.array([one.fun for one in ended]), budget.inner_max_time(), pressed


def _resolve_method(
    ob: Any, theta0: Any, name: Any, products: Any, options: dict[str, Any]
) -> tuple[str, type[Method]]:
    """Return the name and the class of the method, after checking that the objective has the
    attributes that the method needs and that the method has the options.
    """
    require_attrs(ob, REQUIRED_ATTRIBUTES, "ob", OBJECTIVE_HINT)
    chosen = METHOD_ALIASES.get(name, name) if isinstance(name, str) else name
    automatic = isinstance(name, str) and name == "auto"
    if automatic:
        # A dense matrix is fastest for few parameters. Any options given belong to the trust-region
        # method.
        fits = not options and products is None and ob.n_params <= LEVENBERG_MAX_PARAMS
        engine = engine_steps_of(ob) if fits else None
        matrix = engine is not None and engine.uses_matrix
        chosen = "levenberg-marquardt" if matrix else "trust-region"
    maker = METHODS[check_choice(chosen, METHODS, "method")]
    if options:
        known = (*maker.option_names(), *keyword_names(minimize))
        raise_if_unknown_argument(f"minimize(method={name!r})", options, known)
    if maker.curvature is not None:
        require_attrs(ob, (maker.curvature,), f"ob for {chosen}", OBJECTIVE_HINT)
    return chosen, maker


def _check_not_nan(value: object, name: str) -> float:
    number = check_real_number(value, name)
    if number != number:
        raise ValueError(f"{name} must be a number, got {number}.")
    return number


def _validate(value: Any, name: str, check: Callable[..., Any] = check_positive_int) -> Any:
    return None if value is None else check(value, name)
