"""The form of a method: it makes a first state at a point, and a new state from a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ..common.checks import check_positive, check_positive_int
from ..common.linalg import NotConvexError
from ..common.protocols import Array
from .problem import Problem, Values

# maximum number of steps in one call of a method, after which the loop checks for lack of progress
STEPS_PER_CALL = 10
PROGRESS_INTERVAL_SECONDS = 0.1  # time after which a call ends so that progress can be reported


class StepRecord(NamedTuple):
    """What the history of a run needs of one step of a call. `seconds` counts from the start of the
    call.
    """

    f: float
    gnorm: float
    seconds: float
    n_products: int


class Limits(NamedTuple):
    """Where a call of `Method.step` ends, and how its subproblems are solved.

    Attributes
    ----------
    max_steps : int
        A method may take fewer steps in one call, but no more.
    gnorm : float
        Gradient norm at which the call ends.
    accurate : bool
        True if subproblems are solved accurately, whatever the number of products.
    near_bound : bool
        True if the loss is near its lower bound and the tolerance is the default.
    """

    max_steps: int = 1
    gnorm: float = 0.0
    accurate: bool = False
    near_bound: bool = False


ONE_STEP = Limits()
S = TypeVar("S", bound="State")


@dataclass(frozen=True)
class State:
    """The state of a run of a method. Methods never change the arrays of a state.

    Attributes
    ----------
    theta, f, g, gnorm
        The point, the loss there, its gradient and the gradient's norm. After an epoch of
        mini-batches that is not recorded, f is the mean loss of the batches, and g is None.
    cause : str or None
        Key in ``CLAUSES["cause"]`` of the reason why no further step is possible, or
        ``interrupted``. None if further steps may be possible.
    steps : tuple of StepRecord
        The steps of the last call; empty if it found none.
    lowest : (ndarray (n,), float, float) or None
        The lowest point of these steps, with its loss and gradient norm, unless it is the last.
    """

    theta: np.ndarray
    f: float
    g: Any
    gnorm: float
    cause: str | None = None
    steps: tuple[StepRecord, ...] = ()
    lowest: tuple[np.ndarray, float, float] | None = None

    def replace(self: S, **changed: Any) -> S:
        """Return a copy with other values of the fields `changed`. `dataclasses.replace` takes as
        long as a step of Adam on a small network.
        """
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, **changed)
        return new

    def moved_to(self: S, theta: np.ndarray, values: Values, **changed: Any) -> S:
        """Return the state at another point, with the value, gradient and gradient norm there."""
        f, g, gnorm = values
        return self.replace(theta=theta, f=f, g=g, gnorm=gnorm, cause=None, **changed)


# fields of a state that a checkpoint does not store: those that every state has, which the run
# stores or computes again, and objects of the engine and workspaces, which a resumed run makes anew
UNSAVED = {"theta", "f", "g", "gnorm", "cause", "steps", "lowest"}
workspace = partial(field, default=None, repr=False, metadata={"unsaved": True})
# field of a state for an array, or None
array = partial(field, default=None, repr=False, metadata={"array": True})

check_not_negative = partial(check_positive, zero=True)


def check_row_batch_size(ob: Any, count: Any, name: str) -> int | None:
    """Return `count`, the number of rows to use at a time, or None if all rows are used. `name` is
    the name of the option. Raise ValueError if `count` is not None and the objective cannot be
    restricted to rows.
    """
    if count is None:
        return None
    count = check_positive_int(count, name)
    # A forwarded `batch` returns another loss.
    if not (hasattr(type(ob), "batch") and hasattr(ob, "n_samples")):
        raise ValueError(
            f"{name} must be None for an objective without batch(rows) and n_samples, got {count}."
        )
    return None if count >= ob.n_samples else count


def option(default: Any, check: Callable[[Any, str], Any] | None, doc: str) -> Any:
    """Return the dataclass field of an option, which `doc` describes in the API reference.
    ``check(value, name)`` returns the value to use, or raises an error. It is not called for the
    default.
    """
    return field(default=default, metadata={"check": check, "doc": doc})


@dataclass(frozen=True)
class Method:
    """Base class of minimisers. The fields of a method are its options.

    Examples
    --------
    A loop of one's own, which looks at the model before each of up to ten trust-region steps:

    >>> import numpy as np, fastcurv as fc
    >>> from fastcurv.optimize.newton import TrustRegion
    >>> from fastcurv.optimize.problem import Problem
    >>> problem, method = Problem(fc.testing.lecture_toy()), TrustRegion(radius=0.1)
    >>> state, radii = method.init(problem, np.array([0.3, -0.2])), []
    >>> while len(radii) < 10 and state.cause is None:
    ...     radii.append(state.radius)
    ...     state = method.step(problem, state)
    >>> state.f < 1e-12, max(radii) > radii[0], problem.n_gradients
    (True, True, 9)

    Class attributes
    ----------------
    curvature : str or None
        Name of the objective's method that returns the operator: ``hessian`` or ``ggn``.
    grouped : bool
        True if the method may take several steps in one call.
    adapts : bool
        True if a radius or damping is adapted, so that a restart may find a step if the method
        finds none.
    """

    curvature: ClassVar[str | None] = None
    grouped: ClassVar[bool] = True
    adapts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            check = entry.metadata["check"]
            if check is not None and value is not entry.default:
                object.__setattr__(self, entry.name, check(value, entry.name))

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(entry.name for entry in fields(cls))

    def settings(self, state: State) -> dict[str, Any]:
        """Return the options by name, for the history of a run that ended at `state`."""
        return {name: getattr(self, name) for name in self.option_names()}

    def leaves_saddles(self, problem: Problem) -> bool:
        """Return True if the run follows negative curvature and continues where the gradient
        vanishes.
        """
        return False

    def init(self, problem: Problem, theta: np.ndarray) -> State:
        """Return the first state, at theta."""
        return State(theta, *problem.evaluate(theta, self.curvature))

    def kind(self, state: State) -> str | None:
        """Return the kind of the operator at the next point."""
        return self.curvature

    def max_steps(self, problem: Problem, limits: Limits) -> int:
        """Return the maximum number of steps of the next call. Several steps are taken in one call
        if the engine evaluates the loss, because the checks between two calls take as long as a
        step of a small network.
        """
        return 1 if problem.points is None else min(limits.max_steps, STEPS_PER_CALL)

    def take_step(self, problem: Problem, state: State, limits: Limits) -> Array:
        """Take one step and return the new state. If no step is possible, or a budget ends first,
        return a state with the same theta, and with `cause` in the first case.
        """
        raise NotImplementedError

    def step(self, problem: Problem, state: Any, limits: Limits = ONE_STEP) -> Any:
        """Take a step, or several up to ``limits.max_steps``, and return the new state."""
        start_time = problem.elapsed()
        kind = self.kind(state)
        problem.bind(state.theta, kind)
        count = self.max_steps(problem, limits)
        steps: list[StepRecord] = []
        while True:
            before = state
            try:
                if steps and problem.is_out_of_budget():
                    break
                state = self.take_step(problem, before, limits)
            except NotConvexError:
                state = before.replace(cause="not_convex")
            except KeyboardInterrupt:
                if not steps:
                    raise
                state = before.replace(cause="interrupted")  # all steps so far are complete
            if state.theta is before.theta:
                break
            seconds = problem.elapsed() - start_time
            steps.append(StepRecord(state.f, state.gnorm, seconds, problem.n_products))
            if (
                len(steps) == count
                or problem.cut is not None
                or self.kind(state) != kind
                or state.f <= problem.fun_target
                or not limits.gnorm < state.gnorm < np.inf
                or seconds > PROGRESS_INTERVAL_SECONDS
            ):
                break
        return state.replace(steps=tuple(steps))
