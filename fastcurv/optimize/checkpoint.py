"""Checkpoints of `minimize`: write them, and validate them on resume.

A checkpoint is accepted only if a run could have saved every value in it: its contents are compared
with what a fresh run would save, and no object is created from a name in the file other than the
bit generators in `GENERATOR_TYPES`.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from ..common.errors import one_line, warn_caller
from ..common.files import check_writable_path, read_tensors, write_tensors
from ..common.objectives import value_at
from ..common.vectors import norm

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
State = tuple[dict[str, np.ndarray], dict[str, Any]]  # (arrays, values that JSON can hold)
# exclusive upper bounds on integers in the state of a random generator, which NumPy does not check
STATE_VALUE_LIMITS = {"pos": 625, "buffer_pos": 5, "has_uint32": 2, "uinteger": 1 << 32}
CHECKPOINT_VERSION = 4  # version of the layout of a checkpoint
# maximum difference between a saved loss and the loss computed again on the same processor,
# relative to the loss and in units of roundoff
MAX_LOSS_DIFFERENCE_EPS = 64


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


def check_metadata(facts: Any, fresh: dict[str, Any], of: str) -> None:
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
    if given. `of` names in the message what the arrays belong to.
    """
    for name, array in arrays.items():
        wrong = array.dtype.kind != "f" if dtype is None else array.dtype != dtype
        if wrong or array.shape != (n,):
            kind = "float" if dtype is None else dtype
            raise invalid_checkpoint_error(
                f"the array {name[:40]!r} of {of} is not a {kind} vector of length {n}"
            )
        if not np.isfinite(array).all():
            raise invalid_checkpoint_error(f"the array {name[:40]!r} of {of} holds NaN or infinity")


def check_run(arrays: dict[str, np.ndarray], facts: Any, run: Any) -> None:
    """Raise ValueError if these arrays and facts cannot have been produced by `Run.state` and
    `Run.past_records` of a run for the same problem as `run`.
    """
    fresh = run.state()[1] | {"best_score": np.nan, "best_f": np.nan, "best_gnorm": np.nan}
    check_metadata(facts, fresh | {"f": None, "rng": dict}, "a run")
    if not 0 <= facts["elapsed"] < 1e15:
        raise invalid_checkpoint_error(
            f"the elapsed time of {facts['elapsed']:g} seconds is negative or too large"
        )
    points = {name: arrays[name] for name in arrays if name in ("theta", "best")}
    check_vectors(points, run.theta.size, "a run", run.theta.dtype)
    rows = arrays.get("rows")
    count = getattr(run.ob, "n_samples", 0)
    if rows is not None and (
        rows.ndim != 1
        or rows.dtype.kind not in "iu"
        or not 0 < rows.size <= count
        or rows.min() < 0
        or rows.max() >= count
    ):
        raise invalid_checkpoint_error(f"the rows are not indices of the {count} samples")
    watched = "history.validation" in arrays
    if watched != (run.validation is not None):
        raise ValueError(
            f"validation must {'' if watched else 'not '}be given, because the saved run was made "
            f"{'with' if watched else 'without'} it."
        )
    for key in run.record_names:
        values = arrays.get("history." + key)
        if values is None or values.shape != (facts["records"],) or values.dtype != np.float64:
            raise invalid_checkpoint_error(
                f"the history of {key} is not a float64 vector of length {facts['records']}"
            )
        if key in ("iteration", "products") and not (abs(values) < 1e15).all():
            raise invalid_checkpoint_error(f"the history of {key} holds counts of 1e15 or more")


def check_saved_losses(run: Any, facts: Any) -> None:
    """Raise ValueError if the loss at the restored theta of the run, or at the run's best theta,
    differs from the saved loss by more than rounding. `facts` holds the saved loss at theta.

    The loss at the best theta is evaluated once here, so that a result never holds a loss that was
    only read from a file.
    """
    if facts.get("f") is not None:
        _reconcile_loss(run, facts["f"], run.f)
    if run.best is None:
        return
    f = run.f
    g = run.g
    if run.stale or not np.array_equal(run.best, run.theta):
        f, g = run.value_and_gradient(run.best)
        # This gradient was counted before the run was saved, so it is not counted again.
        run.n_gradients -= 1
    run.best_f = _reconcile_loss(run, run.best_f, f)
    run.best_gnorm = norm(g)
    score = value_at(run.validation, run.best) if run.validation is not None else run.best_f
    run.best_score = _reconcile_loss(run, run.best_score, score)


def _reconcile_loss(run: Any, held: float, now: float) -> float:
    """Return the loss to use at a point for which the checkpoint holds the loss `held` and the
    objective now returns `now`. If the relative difference of the two is at most
    `MAX_LOSS_DIFFERENCE_EPS` times roundoff, as for two calls on one processor, return `held`. If
    the difference is at most the square root of roundoff, as between two processors, return `now`.
    Otherwise raise ValueError.
    """
    gap = abs(now - held)
    size = max(abs(now), abs(held))
    eps = np.finfo(run.theta.dtype).eps
    if held != now and not (np.isfinite(held) and gap <= eps**0.5 * size):
        raise ValueError(
            "ob must be the objective of the checkpoint, with the same data, network, loss and l2, "
            f"got a loss of {now:.6g} at the saved theta instead of {held:.6g}."
        )
    return held if held == now or gap <= MAX_LOSS_DIFFERENCE_EPS * eps * size else now


def check_method_state(arrays: dict[str, np.ndarray], facts: Any, method: Any, n: int) -> None:
    """Raise ValueError if the method's `state` cannot have produced these arrays and facts for n
    parameters.
    """
    expected, fresh = method.state()
    check_metadata(facts, fresh, "this method")
    for name, number in facts.items():
        if number is not None and number < 0:
            raise invalid_checkpoint_error(f"the entry {name!r} of this method is negative")
    for name in expected:
        if name not in arrays:
            raise invalid_checkpoint_error(f"the array {name!r} of this method is missing")
    check_vectors(arrays, n, "this method")


# --------------------------------------------------------------------------------------------------
# Saving a run and reading it again: a checkpoint is the exact state at the start of a step.

SAVE_INTERVAL_SECONDS = 30.0  # minimum time between two saves if no number of iterations is given


class CheckpointWriter:
    """Writer of the checkpoints of a loop to the file at `path`, every `every` iterations or at
    intervals of time. If `path` is None, all methods do nothing.
    """

    def __init__(self, path: Any, every: int | None) -> None:
        self.path = path
        self.every = every
        if path is not None:
            check_writable_path(path, "checkpoint")
        self.snapshot: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None
        self.saved_at = time.perf_counter()
        # True if the last write failed, so that the file does not hold the latest state
        self.old = False

    def take_snapshot(self, loop: Any) -> None:
        """Store the loop's state at the start of a step. This snapshot is saved if a budget or the
        user ends the run inside the step.
        """
        if self.path is None:
            return
        points, run_facts = loop.run.state()
        arrays, facts = loop.method.state()
        self.snapshot = (
            add_prefix("run.", points) | add_prefix("method.", arrays),
            {
                "what": "minimize",
                "version": CHECKPOINT_VERSION,
                "method": loop.name,
                "options": options_as_text(loop.options),
                "run": run_facts,
                "method_facts": facts,
            },
        )

    def save_if_due(self, loop: Any) -> None:
        """Save the loop's state after a step, if a save is due. A save is due after each `every`
        iterations or, if `every` is None, once `SAVE_INTERVAL_SECONDS` have passed since the last
        save. A step that a budget cut short, or whose loss is not finite, is not saved.
        """
        if self.path is None:
            return
        if self.every is not None:
            due = loop.run.iteration % self.every == 0
        else:
            due = time.perf_counter() - self.saved_at > SAVE_INTERVAL_SECONDS
        if due and not loop.run.cut and np.isfinite(loop.run.f):
            self.take_snapshot(loop)
            self.write_snapshot(loop)

    def save_final_state(self, loop: Any) -> None:
        """Save the final state of the loop. If the run ended inside a step, at values that are not
        finite, or by the checks at a critical point, save the last snapshot, taken before the step
        or the checks.
        """
        if self.path is None:
            return
        before = loop.run.cut or loop.why in ("interrupted", "critical", "diverged")
        if self.snapshot is None or not before:
            self.take_snapshot(loop)
        self.write_snapshot(loop)

    def write_snapshot(self, loop: Any) -> None:
        """Write the last snapshot to the file, if one was taken. If the file cannot be written,
        warn once and let the run of `loop` continue.
        """
        if self.snapshot is None:
            return
        arrays, facts = self.snapshot
        past = {
            "run.history." + name: values.astype(np.float64)
            for name, values in loop.run.past_records(facts["run"]["records"]).items()
        }
        try:
            write_tensors(self.path, arrays | past, facts)
        except OSError as error:
            # A write may fail, for example on a full disk. The run then continues without a new
            # checkpoint.
            if not self.old:
                text = f"since step {loop.run.iteration} {self.path} cannot be written: {error}"
                warn_caller(text, RuntimeWarning)
            self.old = True
        else:
            self.old = False
        self.saved_at = time.perf_counter()


def options_as_text(options: dict[str, Any]) -> dict[str, str]:
    """Return the options with each value converted to a string, so that an object of any type can
    be compared with one read from a file. A function is represented by its qualified name, and a
    NumPy scalar by the Python number.
    """
    return {name: _option_text(value) for name, value in sorted(options.items())}


def _option_text(value: Any) -> str:
    if isinstance(value, np.generic):
        return repr(value.item())
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if callable(value) and name else repr(value)


def add_prefix(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with a prefix before every name."""
    return {prefix + key: value for key, value in arrays.items()}


def arrays_with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with a prefix, with the prefix removed from the names."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def load_saved(
    path: Any, method: str, options: dict[str, Any], n_params: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and facts of the checkpoint at `path`. Raise ValueError unless it was saved
    by `minimize` with this method, these options and `n_params` parameters.
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
    return arrays, facts
