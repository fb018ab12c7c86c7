"""Where a run is saved, and how it is read again: bit for bit the state at the start of a step."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from ..common.checks import caller_depth
from ..common.files import check_place, read_tensors, shown, write_tensors

OFTEN = 30.0  # seconds between two savings, where nothing else is asked


class Saver:
    """Snapshots of a loop, and the file they go to; without a path nothing is done."""

    def __init__(self, path: Any, every: int | None) -> None:
        self.path, self.every = path, every
        if path is not None:
            check_place(path, "checkpoint")
        self.snapshot: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None
        self.saved_at = time.perf_counter()
        self.old = False  # whether the file is: the last time it could not be written

    def take(self, loop: Any) -> None:
        """The state at the start of a step: what is saved where the budget or the keyboard ends
        inside it.
        """
        if self.path is None:
            return
        run_arrays, run_facts = loop.run.state()
        arrays, facts = loop.method.state()
        named = {"run." + key: value for key, value in run_arrays.items()}
        named.update({"method." + key: value for key, value in arrays.items()})
        self.snapshot = (
            named,
            {
                "what": "minimize",
                "method": loop.ask.method,
                "options": named_options(loop.ask.options),
                "run": run_facts,
                "method_facts": facts,
                "loop": loop.facts(),
            },
        )

    def now_and_then(self, loop: Any) -> None:
        """After a step: save where it is time."""
        if self.path is None:
            return
        if self.every is not None:
            due = loop.run.iteration % self.every == 0
        else:
            due = time.perf_counter() - self.saved_at > OFTEN
        if due and not loop.run.cut and np.isfinite(loop.run.f):
            self.take(loop)
            self._write(loop)

    def at_the_end(self, loop: Any) -> None:
        """Save the end, or the start of the step that was cut, or led out of the numbers."""
        if self.path is None:
            return
        before = loop.run.cut or loop.why in ("interrupted", "critical", "diverged")
        if self.snapshot is None or not before:
            self.take(loop)
        self._write(loop)

    def rescue(self, loop: Any) -> None:
        """Save the start of the step in which the objective failed."""
        if self.snapshot is not None:
            self._write(loop)

    def _write(self, loop: Any) -> None:
        assert self.snapshot is not None
        arrays, facts = self.snapshot
        records = loop.run.past(facts["run"]["records"])
        past = {"run." + key: values for key, values in records.items()}
        try:
            write_tensors(self.path, {**arrays, **past}, facts)
        except OSError as error:  # a full disk: what was found is worth more than its copy
            if not self.old:
                text = f"since step {loop.run.iteration} {self.path} cannot be written: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=caller_depth())
            self.old = True
        else:
            self.old = False
        self.saved_at = time.perf_counter()


def named_options(options: dict[str, Any]) -> dict[str, str]:
    """Options as text, so that any object can be compared after a trip through a file: a function
    by its name, a number of NumPy's as Python's.
    """
    return {name: _text(value) for name, value in sorted(options.items())}


def _text(value: Any) -> str:
    if isinstance(value, np.generic):
        return repr(value.item())
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if callable(value) and name else repr(value)


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def saved(
    path: Any, method: str, options: dict[str, Any], n_params: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a checkpoint, which must be of this method, these options and this
    size.
    """
    arrays, facts = read_tensors(path)
    if facts.get("what") != "minimize":
        raise ValueError(f"{path} is not a checkpoint of minimize")
    if facts.get("method") != method:
        raise ValueError(
            f"{path} was saved by method={shown(repr(facts.get('method')))}, not {method!r}"
        )
    if facts.get("options") != named_options(options):
        raise ValueError(
            f"{path} was saved with options {shown(repr(facts.get('options')))}, not "
            f"{named_options(options)}"
        )
    theta = arrays.get("run.theta")
    if theta is None or theta.shape != (n_params,):
        held = 0 if theta is None else theta.size
        raise ValueError(f"{path} holds {held} parameters; the objective has {n_params}")
    return arrays, facts
