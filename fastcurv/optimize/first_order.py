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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.checks import (
    all_finite,
    check_positive,
    check_positive_int,
    random_batches,
    short_repr,
)
from ..common.vectors import adam_step
from .checkpoint import State
from .run import Method, check_not_negative, check_row_batch_size, option
from .schedules import as_schedule


def _check_clip(value: Any, name: str) -> float:
    """Return the maximum gradient norm `value`, a number > 0 or infinity."""
    if isinstance(value, float) and value == np.inf:
        return value
    return check_positive(value, name)


def _check_fraction(value: Any, name: str) -> float:
    """Return the option `name` as a float. Raise ValueError unless its `value` is >= 0 and < 1."""
    if not (isinstance(value, (int, float, np.floating)) and 0 <= value < 1):
        raise ValueError(f"{name} must be a number in [0, 1), got {short_repr(value)}.")
    return float(value)


class _FirstOrderMethod(Method):
    """Base class of first-order methods, with the loop over updates."""

    @dataclass(frozen=True)
    class Options(Method.Options):
        learning_rate: Any = option(None)
        schedule: Any = option("constant")
        batch_size: int | None = option(None)
        clip: float | None = option(None, _check_clip)
        record_every: int = option(1, check_positive_int)

    options: Options
    default_rate = 0.1
    # names of the arrays that are averages or sums of gradients
    buffer_names: tuple[str, ...] = ()

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        schedule = self.options.schedule
        rate = self.options.learning_rate
        rate = self.default_rate if rate is None else rate
        if callable(rate):
            if schedule != "constant":
                raise ValueError(
                    f"schedule must not be given if learning_rate is a function, got {schedule!r}."
                )
            self.rate = rate
        else:
            rate = check_positive(rate, "learning_rate")
            self.rate = as_schedule(schedule, rate)
        self.batch_size = check_row_batch_size(run.ob, self.options.batch_size, "batch_size")
        self.t = 0
        self.last_rate = 0.0
        self.scratch = np.zeros_like(run.theta)
        self.buffers = {name: np.zeros_like(run.theta) for name in self.buffer_names}

    def step(self) -> str | None:
        run = self.run
        if self.batch_size is None:
            self._apply_update(run.g)
        else:
            run.f = self._run_epoch(self.batch_size)
            run.stale = True
        is_recorded = (run.iteration + 1) % self.options.record_every == 0 or not all_finite(
            run.theta
        )
        if self.batch_size is None or run.cut or is_recorded:
            run.evaluate_at_theta()
        return None

    def _run_epoch(self, size: int) -> float:
        """Make one update for each batch of `size` rows, so that every row is used once, in a new
        random order. The last batch may be smaller, but is used with the full learning rate. Return
        the mean loss of the rows, each evaluated at the theta at which its batch was used.
        """
        run = self.run
        total = 0.0
        seen = 0
        n = self.run.ob.n_samples
        for batch in self._batches(size):
            f, g = run.value_and_gradient(run.theta, batch)
            self._apply_update(g)
            rows = min(size, n - seen)
            total += rows * f
            seen += rows
            if run.is_out_of_budget():
                break
        return total / seen

    def _batches(self, size: int) -> Iterator[Any]:
        """Yield the batches of an epoch, of `size` rows each. They come from the objective's method
        `batches`, or consist of random rows if there is no such method.
        """
        ob = self.run.ob
        rng = self.run.rng
        if hasattr(ob, "batches"):
            yield from ob.batches(size, rng)
            return
        for rows in random_batches(ob.n_samples, size, rng):
            yield ob.batch(rows)

    def _apply_update(self, g: np.ndarray) -> None:
        self.t += 1
        clip = self.options.clip
        if clip is not None:
            norm = float(np.linalg.norm(g))
            if norm > clip:
                g = g * g.dtype.type(clip / norm)
        self.last_rate = self.rate(self.t)
        is_number = isinstance(self.last_rate, (int, float, np.integer, np.floating))
        if not (is_number and 0 <= self.last_rate <= sys.float_info.max):
            raise ValueError(
                f"the learning rate of update {self.t} must be a finite number >= 0, got "
                f"{short_repr(self.last_rate)}."
            )
        self.last_rate = float(self.last_rate)
        self.update(g, self.run.theta.dtype.type(self.last_rate))

    def update(self, g: np.ndarray, rate: Any) -> None:
        """Change `run.theta` in place, for a gradient g (n,) and a learning rate."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the options. ``learning_rate`` is that of the last update, and ``schedule`` is
        "function" if it is a function.
        """
        schedule = self.options.schedule
        named = schedule if isinstance(schedule, str) else "function"
        return super().settings() | {"learning_rate": self.last_rate, "schedule": named}

    def state(self) -> State:
        return {name: buffer.copy() for name, buffer in self.buffers.items()}, {"t": self.t}

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        self.buffers = {name: arrays[name].copy() for name in self.buffers}
        self.t = facts["t"]

    def _descend(self, rate: Any, direction: np.ndarray) -> None:
        np.multiply(direction, rate, out=self.scratch)
        self.run.theta -= self.scratch


class SGD(_FirstOrderMethod):
    """Stochastic gradient descent, ``theta -= a g``."""

    def update(self, g: np.ndarray, rate: Any) -> None:
        self._descend(rate, g)


class Momentum(_FirstOrderMethod):
    """Momentum, ``v = mu v + g; theta -= a v``."""

    @dataclass(frozen=True)
    class Options(_FirstOrderMethod.Options):
        momentum: float = option(0.9, _check_fraction)

    options: Options
    buffer_names = ("velocity",)
    ahead = False  # True for Nesterov's form of the step, g + mu v

    def update(self, g: np.ndarray, rate: Any) -> None:
        mu = g.dtype.type(self.options.momentum)
        velocity = self.buffers["velocity"]
        velocity *= mu
        velocity += g
        self._descend(rate, mu * velocity + g if self.ahead else velocity)


class Nesterov(Momentum):
    """Nesterov's momentum, ``v = mu v + g; theta -= a (g + mu v)``."""

    ahead = True


class RMSProp(_FirstOrderMethod):
    """RMSProp, ``s = rho s + (1 - rho) g^2; theta -= a g / (sqrt(s) + eps)``."""

    @dataclass(frozen=True)
    class Options(_FirstOrderMethod.Options):
        rho: float = option(0.99, _check_fraction)
        eps: float = option(1e-8, check_not_negative)

    options: Options
    default_rate = 1e-3
    buffer_names = ("squares",)

    def update(self, g: np.ndarray, rate: Any) -> None:
        """Take an Adam step with beta1 = 0 and the learning rate `rate`. With beta1 = 0, the
        average of the gradients is the gradient g itself.
        """
        rho = self.options.rho
        eps = self.options.eps
        adam_step(self.run.theta, g, self.scratch, self.buffers["squares"], 0, rho, 1, rate, eps)


class Adam(_FirstOrderMethod):
    """Adam (Kingma and Ba 2015); see the formula in the module docstring."""

    @dataclass(frozen=True)
    class Options(_FirstOrderMethod.Options):
        beta1: float = option(0.9, _check_fraction)
        beta2: float = option(0.999, _check_fraction)
        eps: float = option(1e-8, check_not_negative)

    options: Options
    default_rate = 1e-3
    buffer_names = ("average", "squares")

    def update(self, g: np.ndarray, rate: Any) -> None:
        beta1 = self.options.beta1
        beta2 = self.options.beta2
        adam_step(
            self.run.theta, g, self.buffers["average"], self.buffers["squares"], beta1, beta2,
            1.0 / (1.0 - beta2**self.t), float(rate) / (1.0 - beta1**self.t), self.options.eps,
        )  # fmt: skip
