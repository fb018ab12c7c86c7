"""SGD, momentum, Nesterov, RMSProp and Adam: full-batch steps, or epochs of mini-batches.

With g the gradient of the batch and a = alpha_t the learning rate of update t = 1, 2, 3, ...:

    sgd         theta -= a g
    momentum    v = mu v + g                      theta -= a v
    nesterov    v = mu v + g                      theta -= a (g + mu v)
    rmsprop     s = rho s + (1 - rho) g^2         theta -= a g / (sqrt(s) + eps)
    adam        m = b1 m + (1 - b1) g             s = b2 s + (1 - b2) g^2
                theta -= a (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps)

v, m and s start at 0. The formulas are those of torch. Momentum with an exponential average, m =
mu m + (1 - mu) g and theta -= a m, equals momentum above with the learning rate a (1 - mu). If
`clip` is given, a gradient with a larger norm is scaled down to this norm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..common.checks import (
    all_finite,
    check_positive,
    check_positive_int,
    random_batches,
    short_repr,
)
from ..common.vectors import adam_step
from .method import (
    ONE_STEP,
    Limits,
    Method,
    State,
    StepRecord,
    array,
    check_not_negative,
    check_row_batch_size,
    option,
)
from .problem import Problem


def _check_clip(value: Any, name: str) -> float:
    """Return the maximum gradient norm `value`, a number > 0 or infinity."""
    if isinstance(value, float) and value == np.inf:
        return value
    return check_positive(value, name)


def _check_rate(value: Any, name: str) -> float | Callable[[int], float]:
    """Return the learning rate `value`, a number > 0 or a function."""
    return value if callable(value) else check_positive(value, name)


def _check_fraction(value: Any, name: str) -> float:
    """Return the option `name` as a float. Raise ValueError unless its `value` is >= 0 and < 1."""
    if not (isinstance(value, (int, float, np.floating)) and 0 <= value < 1):
        raise ValueError(f"{name} must be a number in [0, 1), got {short_repr(value)}.")
    return float(value)


Buffers = dict[str, np.ndarray]  # averages or sums of gradients (n,), by name


@dataclass(frozen=True)
class FirstOrderState(State):
    """The state of a first-order method.

    Attributes
    ----------
    t, epoch : int
        Number of updates, and of steps or epochs.
    last_rate : float
        Learning rate of the last update.
    velocity, average, squares : ndarray (n,) or None
        The sums and averages of gradients that the method has.
    """

    t: int = 0
    epoch: int = 0
    last_rate: float = 0.0
    velocity: np.ndarray | None = array()
    average: np.ndarray | None = array()
    squares: np.ndarray | None = array()


@dataclass(frozen=True)
class _FirstOrderMethod(Method):
    """Base class of first-order methods, with the loop over updates."""

    learning_rate: float | Callable[[int], float] | None = option(
        None, _check_rate, "a number, or a function of the number of the update, counted from 1; "
        "by default 0.1, or 1e-3 for rmsprop and adam"
    )  # fmt: skip
    batch_size: int | None = option(
        None, None, "rows of a mini-batch; an iteration is then an epoch"
    )
    clip: float | None = option(
        None, _check_clip, "largest gradient norm, to which longer gradients are scaled down"
    )
    record_every: int = option(
        1, check_positive_int, "epochs of mini-batches from one loss of all rows to the next"
    )
    grouped: ClassVar[bool] = False
    default_rate: ClassVar[float] = 0.1
    buffer_names: ClassVar[tuple[str, ...]] = ()

    def init(self, problem: Problem, theta: np.ndarray) -> FirstOrderState:
        check_row_batch_size(problem.ob, self.batch_size, "batch_size")
        buffers: Any = {name: np.zeros_like(theta) for name in self.buffer_names}
        return FirstOrderState(theta, *problem.evaluate(theta, None), **buffers)

    def step(self, problem: Problem, state: Any, limits: Limits = ONE_STEP) -> Any:
        size = self.batch_size
        if size is not None:
            size = check_row_batch_size(problem.ob, size, "batch_size")
        theta = state.theta.copy()
        buffers = {name: getattr(state, name).copy() for name in self.buffer_names}
        t, last_rate = state.t, state.last_rate
        f, g, gnorm = state.f, None, state.gnorm
        if size is None:
            t += 1
            last_rate = self._apply_update(theta, state.g, t, buffers)
        else:
            total = 0.0
            seen = 0
            for batch in _batches(problem, size):
                t += 1
                loss, slope = problem.value_and_gradient(theta, batch)
                last_rate = self._apply_update(theta, slope, t, buffers)
                rows = min(size, problem.ob.n_samples - seen)
                total += rows * loss
                seen += rows
                if problem.is_out_of_budget():
                    break
            f = total / seen  # mean of the losses, each at the theta at which its batch was used
        due = (state.epoch + 1) % self.record_every == 0
        if size is None or problem.cut or due or not all_finite(theta):
            f, g, gnorm = problem.evaluate(theta, None)
        steps = (StepRecord(f, gnorm, 0.0, problem.n_products),)
        kept = {"t": t, "epoch": state.epoch + 1, "last_rate": last_rate, **buffers}
        return state.replace(theta=theta, f=f, g=g, gnorm=gnorm, steps=steps, **kept)

    def _apply_update(self, theta: np.ndarray, g: np.ndarray, t: int, buffers: Buffers) -> float:
        """Change theta and the buffers in place by update number t with the gradient g, and return
        the learning rate.
        """
        if self.clip is not None:
            norm = float(np.linalg.norm(g))
            if norm > self.clip:
                g = g * g.dtype.type(self.clip / norm)
        rate = self.default_rate if self.learning_rate is None else self.learning_rate
        if callable(rate):
            rate = rate(t)
            is_number = isinstance(rate, (int, float, np.integer, np.floating))
            if not (is_number and 0 <= rate <= sys.float_info.max):
                raise ValueError(
                    f"the learning rate of update {t} must be a finite number >= 0, got "
                    f"{short_repr(rate)}."
                )
        self.update(theta, g, theta.dtype.type(float(rate)), t, buffers)
        return float(rate)

    def update(self, theta: np.ndarray, g: np.ndarray, rate: Any, t: int, buffers: Buffers) -> None:
        """Change theta and the buffers in place, for a gradient g (n,) and a learning rate."""
        raise NotImplementedError

    def settings(self, state: Any) -> dict[str, Any]:
        """Return the options. ``learning_rate`` is that of the last update."""
        return super().settings(state) | {"learning_rate": state.last_rate}


def _batches(problem: Problem, size: int) -> Iterator[Any]:
    """Yield the batches of an epoch, of `size` rows each, so that every row is used once, in a new
    random order. The last batch may be smaller, but is used with the full learning rate. The
    batches come from the objective's method `batches`, or consist of random rows if there is no
    such method.
    """
    ob = problem.ob
    if hasattr(ob, "batches"):
        yield from ob.batches(size, problem.rng)
        return
    for rows in random_batches(ob.n_samples, size, problem.rng):
        yield ob.batch(rows)


@dataclass(frozen=True)
class SGD(_FirstOrderMethod):
    """Stochastic gradient descent, ``theta -= a g``."""

    def update(self, theta: np.ndarray, g: np.ndarray, rate: Any, t: int, buffers: Buffers) -> None:
        theta -= rate * g


@dataclass(frozen=True)
class Momentum(_FirstOrderMethod):
    """Momentum, ``v = mu v + g; theta -= a v``."""

    momentum: float = option(0.9, _check_fraction, "factor of the last velocity")
    buffer_names: ClassVar[tuple[str, ...]] = ("velocity",)
    ahead: ClassVar[bool] = False  # True for Nesterov's form of the step, g + mu v

    def update(self, theta: np.ndarray, g: np.ndarray, rate: Any, t: int, buffers: Buffers) -> None:
        mu = g.dtype.type(self.momentum)
        velocity = buffers["velocity"]
        velocity *= mu
        velocity += g
        theta -= rate * (mu * velocity + g if self.ahead else velocity)


@dataclass(frozen=True)
class Nesterov(Momentum):
    """Nesterov's momentum, ``v = mu v + g; theta -= a (g + mu v)``."""

    ahead: ClassVar[bool] = True


@dataclass(frozen=True)
class RMSProp(_FirstOrderMethod):
    """RMSProp, ``s = rho s + (1 - rho) g^2; theta -= a g / (sqrt(s) + eps)``."""

    rho: float = option(0.99, _check_fraction, "factor of the last mean square")
    eps: float = option(1e-8, check_not_negative, "added to the root mean square")
    default_rate: ClassVar[float] = 1e-3
    buffer_names: ClassVar[tuple[str, ...]] = ("squares",)

    def update(self, theta: np.ndarray, g: np.ndarray, rate: Any, t: int, buffers: Buffers) -> None:
        # With beta1 = 0, the average of the gradients of an Adam step is the gradient itself.
        average = np.zeros_like(theta)
        adam_step(theta, g, average, buffers["squares"], 0, self.rho, 1, rate, self.eps)


@dataclass(frozen=True)
class Adam(_FirstOrderMethod):
    """Adam (Kingma and Ba 2015): steps along the mean gradient over its root mean square."""

    beta1: float = option(0.9, _check_fraction, "factor of the last mean")
    beta2: float = option(0.999, _check_fraction, "factor of the last mean square")
    eps: float = option(1e-8, check_not_negative, "added to the root mean square")
    default_rate: ClassVar[float] = 1e-3
    buffer_names: ClassVar[tuple[str, ...]] = ("average", "squares")

    def update(self, theta: np.ndarray, g: np.ndarray, rate: Any, t: int, buffers: Buffers) -> None:
        adam_step(
            theta, g, buffers["average"], buffers["squares"], self.beta1, self.beta2,
            1.0 / (1.0 - self.beta2**t), float(rate) / (1.0 - self.beta1**t), self.eps,
        )  # fmt: skip
