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
from typing import Any

import numpy as np

from ..common.checks import all_finite, check_positive, random_batches, short_repr
from ..common.runtime import wrap_user_callback
from ..common.vectors import adam_step
from .run import Method, check_row_batch_size
from .schedules import as_schedule

_COMMON_OPTIONS = {
    "learning_rate": None,
    "schedule": "constant",
    "delta": None,
    "hold": None,
    "batch_size": None,
    "clip": None,
    "record_every": 1,
}


class _FirstOrderMethod(Method):
    """Base class of first-order methods, with the loop over updates. A subclass defines ``update(g,
    rate)``, which changes `run.theta` in place, for a gradient g (n,) and a learning rate.
    """

    batch_size: int | None
    clip: Any

    default_rate = 0.1
    buffers: tuple[str, ...] = ()

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        rate = self.default_rate if self.learning_rate is None else self.learning_rate
        if callable(rate):
            if self.schedule != "constant":
                raise ValueError(
                    "schedule must not be given if learning_rate is a function, got "
                    f"{self.schedule!r}."
                )
            self.rate = wrap_user_callback(rate)
        else:
            rate = check_positive(rate, "learning_rate")
            self.rate = as_schedule(self.schedule, rate, self.delta, self.hold)
        if self.clip is not None and not (isinstance(self.clip, float) and self.clip == np.inf):
            self.clip = check_positive(self.clip, "clip")
        self.batch_size = check_row_batch_size(run.ob, self.batch_size, "batch_size")
        self.t = 0
        self.kept_arrays = self.buffers
        self.last_rate = 0.0
        self.scratch = np.zeros_like(run.theta)
        for name in self.buffers:
            setattr(self, name, np.zeros_like(run.theta))

    kept_facts = ("t",)

    def step(self) -> str | None:
        run = self.run
        if self.batch_size is None:
            self._apply_update(run.g)
        else:
            run.f = self._run_epoch(self.batch_size)
            run.stale = True
        asked = (run.iteration + 1) % self.record_every == 0 or not all_finite(run.theta)
        if self.batch_size is None or run.cut or asked:
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
        if self.clip is not None:
            norm = float(np.linalg.norm(g))
            if norm > self.clip:
                g = g * g.dtype.type(self.clip / norm)
        self.last_rate = self.rate(self.t)
        known = isinstance(self.last_rate, (int, float, np.integer, np.floating))
        if not (known and 0 <= self.last_rate <= sys.float_info.max):
            raise ValueError(
                f"the learning rate of update {self.t} must be a finite number >= 0, got "
                f"{short_repr(self.last_rate)}."
            )
        self.last_rate = float(self.last_rate)
        self.update(g, self.run.theta.dtype.type(self.last_rate))

    def settings(self) -> dict[str, Any]:
        """Return the current options. ``learning_rate`` is that of the last update, and a schedule
        that is a function is returned as "function".
        """
        named = self.schedule if isinstance(self.schedule, str) else "function"
        return super().settings() | {"learning_rate": self.last_rate, "schedule": named}

    def _descend(self, rate: Any, direction: np.ndarray) -> None:
        np.multiply(direction, rate, out=self.scratch)
        self.run.theta -= self.scratch


class SGD(_FirstOrderMethod):
    """Stochastic gradient descent, ``theta -= a g``."""

    defaults = _COMMON_OPTIONS

    def update(self, g: np.ndarray, rate: Any) -> None:
        self._descend(rate, g)


class Momentum(_FirstOrderMethod):
    """Momentum, ``v = mu v + g; theta -= a v``."""

    velocity: np.ndarray

    defaults = {**_COMMON_OPTIONS, "momentum": 0.9}
    buffers: tuple[str, ...] = ("velocity",)
    ahead = False  # True for Nesterov's form of the step, g + mu v

    def update(self, g: np.ndarray, rate: Any) -> None:
        mu = g.dtype.type(self.momentum)
        self.velocity *= mu
        self.velocity += g
        self._descend(rate, mu * self.velocity + g if self.ahead else self.velocity)


class Nesterov(Momentum):
    """Nesterov's momentum, ``v = mu v + g; theta -= a (g + mu v)``."""

    ahead = True


class RMSProp(_FirstOrderMethod):
    """RMSProp, ``s = rho s + (1 - rho) g^2; theta -= a g / (sqrt(s) + eps)``."""

    defaults = {**_COMMON_OPTIONS, "rho": 0.99, "eps": 1e-8}
    default_rate = 1e-3
    buffers: tuple[str, ...] = ("squares",)

    def update(self, g: np.ndarray, rate: Any) -> None:
        """Take an Adam step with beta1 = 0 and the learning rate `rate`. With beta1 = 0, the
        average of the gradients is the gradient g itself.
        """
        adam_step(self.run.theta, g, self.scratch, self.squares, 0, self.rho, 1, rate, self.eps)


class Adam(RMSProp):
    """Adam (Kingma and Ba 2015); see the formula in the module docstring."""

    defaults = {**_COMMON_OPTIONS, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    buffers = ("average", "squares")

    def update(self, g: np.ndarray, rate: Any) -> None:
        adam_step(
            self.run.theta, g, self.average, self.squares, self.beta1, self.beta2,
            1.0 / (1.0 - self.beta2**self.t), float(rate) / (1.0 - self.beta1**self.t), self.eps,
        )  # fmt: skip
