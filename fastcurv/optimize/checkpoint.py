"""Checkpoints of `minimize`: write them, and validate them on resume.

A checkpoint is the saved state of a run. What is read must have the names, types and shapes of what
a new run would save, and its loss must be that of the objective; no object is created from a name
in the file other than the bit generators in `GENERATOR_TYPES`. The numbers themselves are not
checked: resume only files that you have saved.
"""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import one_line, warn_caller
from ..common.files import read_tensors, write_tensors
from ..common.protocols import TwiceDifferentiable
from .callbacks import Checkpoint
from .method import UNSAVED, State

if TYPE_CHECKING:
    from .loop import MinimizeLoop

GENERATOR_TYPES = {
    kind.__name__: kind
    for kind in (
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.MT19937,
        np.random.Philox,
        np.random.SFC64,
    )
}
# exclusive upper bounds on integers in the state of a random generator, which NumPy does not check
STATE_VALUE_LIMITS = {"pos": 625, "buffer_pos": 5, "has_uint32": 2, "uinteger": 1 << 32}
CHECKPOINT_VERSION = 5  # version of the layout of a checkpoint
SAVE_INTERVAL_SECONDS = 30.0  # minimum time between two saves if no number of iterations is given


def invalid_checkpoint_error(what: str) -> ValueError:
    """Return the error for a checkpoint that no run can have saved. `what` states the defect."""
    return ValueError(
        f"the checkpoint to resume is damaged: {what}. Resume from an undamaged copy."
    )


def has_structure_of(x: Any, example: Any, most: int = 1 << 62, name: str = "") -> bool:
    """Return True if x has the structure of `example`. The structure is: a bool for a bool, a count
    for an int, a number for a float (NaN only if the example is NaN), a number or None for None,
    the same string for a string, a list of the same length for a list, a dict with the same keys
    for a dict, and an instance of the type if the example is a type.

    A count is an int >= 0 and below `most`. If `name`, the key of x in its dict, is a key of
    `STATE_VALUE_LIMITS`, the value of that key is the bound instead.
    """
    if isinstance(example, type):
        return isinstance(x, example)
    if isinstance(example, bool):
        return isinstance(x, bool)
    if isinstance(example, dict):
        same = isinstance(x, dict) and x.keys() == example.keys()
        return same and all(has_structure_of(x[key], example[key], most, key) for key in example)
    if isinstance(example, (list, tuple)):
        same = isinstance(x, (list, tuple)) and len(x) == len(example)
        return same and all(has_structure_of(v, e, most) for v, e in zip(x, example))
    if isinstance(example, str) or example is None and x is None:
        return bool(x == example)
    if type(x) is int:
        return 0 <= x < STATE_VALUE_LIMITS.get(name, most)
    return type(x) is float and not isinstance(example, int) and (x == x or example != example)


def generator_state_as_json(state: Any) -> Any:
    """Convert the state of a bit generator to values that JSON can represent."""
    return json.loads(json.dumps(state, default=lambda x: x.tolist()))


def restore_generator(saved: Any) -> np.random.Generator:
    """Restore a random generator from its `saved` state in a checkpoint. Raise ValueError unless
    its type is in `GENERATOR_TYPES` and every number of its state is in range.
    """
    name = saved.get("bit_generator") if isinstance(saved, dict) else None
    if not isinstance(name, str) or name not in GENERATOR_TYPES:
        raise invalid_checkpoint_error(f"{str(name)[:40]!r} is not a bit generator of NumPy")
    bit_generator = GENERATOR_TYPES[name]()
    valid = has_structure_of(saved, generator_state_as_json(bit_generator.state), 1 << 128)
    try:
        if valid:
            bit_generator.state = saved
    except (ValueError, OverflowError):
        valid = False
    if not valid:
        raise invalid_checkpoint_error(
            f"the saved state of the random generator is not valid for {name}"
        )
    return np.random.Generator(bit_generator)


def check_metadata(facts: object, fresh: dict[str, Any], of: str) -> None:
    """Raise ValueError unless `facts`, read from a checkpoint, have the names and the structure of
    `fresh`, the facts of a new run. `of` names in the message what the facts belong to.
    """
    if not isinstance(facts, dict) or set(facts) != set(fresh):
        raise invalid_checkpoint_error(f"the entries for {of} are missing or have unknown names")
    for name, example in fresh.items():
        if not has_structure_of(facts[name], example):
            raise invalid_checkpoint_error(
                f"the entry {name!r} of {of} has the invalid value {str(facts[name])[:40]!r}"
            )


def check_vectors(arrays: dict[str, np.ndarray], n: int, of: str, dtype: Any = None) -> None:
    """Raise ValueError unless all arrays are vectors of n finite floating-point numbers, of `dtype`
    if given, or matrices of such rows. `of` names in the message what the arrays belong to.
    """
    for name, array in arrays.items():
        wrong = array.dtype.kind != "f" if dtype is None else array.dtype != dtype
        if wrong or array.shape[-1:] != (n,) or array.ndim > 2:
            kind = "float" if dtype is None else dtype
            raise invalid_checkpoint_error(
                f"the array {name[:40]!r} of {of} is not a {kind} vector of length {n}"
            )
        if not np.isfinite(array).all():
            raise invalid_checkpoint_error(f"the array {name[:40]!r} of {of} holds NaN or infinity")


def split_state(state: State) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return copies of the arrays of a method's state, and the values that JSON can represent, by
    name.
    """
    saved = [x for x in fields(state) if not (x.name in UNSAVED or "unsaved" in x.metadata)]
    arrays = {x.name: getattr(state, x.name) for x in saved if "array" in x.metadata}
    facts = {x.name: getattr(state, x.name) for x in saved if "array" not in x.metadata}
    return {name: np.array(x) for name, x in arrays.items() if x is not None}, facts


class SavedRun:
    """The contents of a checkpoint: the saved values of the run by name, its arrays, and those of
    the state of its method.
    """

    def __init__(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        self.arrays = {name: np.array(array) for name, array in arrays.items()}
        self.method_facts: Any = facts.get("method_facts")
        self.facts: Any = facts.get("run")
        if not isinstance(self.facts, dict):
            raise invalid_checkpoint_error("the entries for a run are missing")
        self.rng = restore_generator(self.facts.get("rng"))
        self.theta = self.arrays["run.theta"]
        self.rows = self.arrays.get("run.rows")

    def check(self, fresh: dict[str, Any], ob: TwiceDifferentiable, names: tuple[str, ...]) -> None:
        """Raise ValueError unless the values have the structure of `fresh`, those of a new run, the
        points and rows are those of `ob`, and there is a history of the quantities `names`.
        """
        check_metadata(self.facts, fresh | {"f": None, "rng": dict}, "a run")
        points = {
            x: self.arrays["run." + x] for x in ("theta", "best") if "run." + x in self.arrays
        }
        check_vectors(points, self.theta.size, "a run", getattr(ob, "dtype", None))
        rows = self.rows
        count = getattr(ob, "n_samples", 0)
        if rows is not None and (
            rows.ndim != 1
            or rows.dtype.kind not in "iu"
            or not 0 < rows.size <= count
            or rows.min() < 0
            or rows.max() >= count
        ):
            raise invalid_checkpoint_error(f"the rows are not indices of the {count} samples")
        watched = "run.history.validation" in self.arrays
        if watched != ("validation" in names):
            raise ValueError(
                f"an EarlyStopping with a validation objective must {'' if watched else 'not '}be "
                f"given, because the saved run was made {'with' if watched else 'without'} it."
            )
        for key in names:
            values = self.arrays.get("run.history." + key)
            shape = (self.facts["records"],)
            if values is None or values.shape != shape or values.dtype != np.float64:
                raise invalid_checkpoint_error(
                    f"the history of {key} is not a float64 vector of length {shape[0]}"
                )
            if key in ("iteration", "products") and not (abs(values) < 1e15).all():
                raise invalid_checkpoint_error(f"the history of {key} holds counts of 1e15 or more")

    def records(self, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """Return the records of the history."""
        columns = (self.arrays["run.history." + name].tolist() for name in names)
        return [(int(i), f, norm, int(spent), *rest) for i, f, norm, spent, *rest in zip(*columns)]

    def restore_state(self, fresh: Any) -> Any:
        """Return the saved state of the method. `fresh` is the first state of a new run at the
        same point.
        """
        expected, facts = split_state(fresh)
        check_metadata(self.method_facts, facts, "this method")
        for name, number in self.method_facts.items():
            if number is not None and number < 0:
                raise invalid_checkpoint_error(f"the entry {name!r} of this method is negative")
        known = {x.name for x in fields(fresh) if "array" in x.metadata}
        prefix = "method."
        arrays = {k.removeprefix(prefix): x for k, x in self.arrays.items() if prefix in k}
        for name in expected:
            if name not in arrays:
                raise invalid_checkpoint_error(f"the array {name!r} of this method is missing")
        arrays = {name: x for name, x in arrays.items() if name in known}
        check_vectors(arrays, fresh.theta.size, "this method")
        return replace(fresh, **arrays, **self.method_facts)


def check_saved_loss(held: float | None, now: float, dtype: Any) -> None:
    """Raise ValueError if the loss `now` at the restored theta differs from the saved one by more
    than the rounding on two processors.
    """
    if held is None or held == now or not np.isfinite(held) and not np.isfinite(now):
        return
    size = max(abs(now), abs(held))
    if not abs(now - held) <= float(np.finfo(dtype).eps) ** 0.5 * size < np.inf:
        raise ValueError(
            "ob must be the objective of the checkpoint, with the same data, network, loss and l2, "
            f"got a loss of {now:.6g} at the saved theta instead of {held:.6g}."
        )


class CheckpointWriter:
    """Writer of the checkpoints of a loop. Without a path, all methods do nothing. `method` and
    `options` are those of the run.
    """

    def __init__(self, to: Checkpoint, method: str, options: dict[str, object]) -> None:
        self.path = to.path
        self.every = to.every
        self.constant = {
            "what": "minimize",
            "version": CHECKPOINT_VERSION,
            "method": method,
            "options": options_as_text(options),
        }
        self.snapshot: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None
        self.saved_at = time.perf_counter()
        # True if the last write failed, so that the file does not hold the latest state
        self.old = False

    def take_snapshot(self, loop: MinimizeLoop) -> None:
        """Store the loop's state at the start of a step. This snapshot is saved if a budget or the
        user ends the run inside the step.
        """
        if self.path is None:
            return
        arrays, facts = split_state(loop.state)
        points = loop.arrays() | {"method." + name: x for name, x in arrays.items()}
        self.snapshot = points, {**self.constant, "run": loop.facts(), "method_facts": facts}

    def save_if_due(self, loop: MinimizeLoop) -> None:
        """Save the loop's state after a step, if a save is due. A save is due after each `every`
        iterations or, if `every` is None, once `SAVE_INTERVAL_SECONDS` have passed since the last
        save. A step that a budget cut short, or whose loss is not finite, is not saved.
        """
        if self.path is None:
            return
        if self.every is not None:
            due = loop.trace.iteration % self.every == 0
        else:
            due = time.perf_counter() - self.saved_at > SAVE_INTERVAL_SECONDS
        if due and not loop.problem.cut and np.isfinite(loop.state.f):
            self.take_snapshot(loop)
            self.write_snapshot(loop)

    def save_final_state(self, loop: MinimizeLoop) -> None:
        """Save the final state of the loop. If the run ended inside a step, at values that are not
        finite, or by the checks at a critical point, save the last snapshot, taken before the step
        or the checks.
        """
        if self.path is None:
            return
        before = loop.problem.cut or loop.why in ("interrupted", "critical", "diverged")
        if self.snapshot is None or not before:
            self.take_snapshot(loop)
        self.write_snapshot(loop)

    def write_snapshot(self, loop: MinimizeLoop) -> None:
        """Write the last snapshot to the file, if one was taken. If the file cannot be written,
        warn once and let the run of `loop` continue.
        """
        if self.snapshot is None:
            return
        arrays, facts = self.snapshot
        columns = zip(*loop.records[: facts["run"]["records"]])
        past = {
            f"run.history.{name}": np.array(x, float) for name, x in zip(loop.record_names, columns)
        }
        try:
            write_tensors(self.path, arrays | past, facts)
        except OSError as error:
            # A write may fail, for example on a full disk. The run then continues without a new
            # checkpoint.
            if not self.old:
                text = f"since step {loop.trace.iteration} {self.path} cannot be written: {error}"
                warn_caller(text, RuntimeWarning)
            self.old = True
        else:
            self.old = False
        self.saved_at = time.perf_counter()


def options_as_text(options: dict[str, object]) -> dict[str, str]:
    """Return the options with each value converted to a string, so that an object of any type can
    be compared with one read from a file. A function is represented by its qualified name, and a
    NumPy scalar by the Python number.
    """
    return {name: _option_text(value) for name, value in sorted(options.items())}


def _option_text(value: object) -> str:
    if isinstance(value, np.generic):
        return repr(value.item())
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if callable(value) and name else repr(value)


def load_saved(
    path: str | Path, method: str, options: dict[str, object], n_params: int
) -> SavedRun:
    """Read the checkpoint at `path`. Raise ValueError unless it was saved by `minimize` with this
    method, these options and `n_params` parameters.
    """
    arrays, facts = read_tensors(path)
    theta = arrays.get("run.theta", np.empty(0))
    asked = options_as_text(options)
    version, by = (one_line(repr(facts.get(name))) for name in ("version", "method"))
    name = one_line(path, 300)
    saved = facts.get("options")
    saved = saved if isinstance(saved, dict) else {}
    differing = ", ".join(key for key in sorted(asked | saved) if asked.get(key) != saved.get(key))
    checks = (
        (
            facts.get("what") == "minimize",
            f"{name} must be a checkpoint of minimize, got another file.",
        ),
        (
            facts.get("version") == CHECKPOINT_VERSION,
            f"{name} must be a checkpoint of version {CHECKPOINT_VERSION}, got version {version}.",
        ),
        (
            facts.get("method") == method,
            f"method must be {by} to resume {name}, got {method!r}.",
        ),
        (
            facts.get("options") == asked,
            f"options must be those of the run saved in {name}, got other values of "
            f"{one_line(differing, 300)}. Use the same options, or start a new run.",
        ),
        (
            theta.shape == (n_params,),
            f"{name} must hold the {n_params} parameters of the objective, got {theta.size}.",
        ),
    )
    for right, message in checks:
        if not right:
            raise ValueError(message)
    return SavedRun(arrays, facts)
