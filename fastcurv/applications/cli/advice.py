"""Advice in the shell: shell commands in place of calls of the library."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ...common.sentences import VERDICT_ADVICE, Audience
from ...critical.report import CriticalPoint, for_audience
from ..diagnosis.change import Change
from ..diagnosis.diagnose import Diagnosis
from .recipe import TrainingRecipe

# options of the shell whose names differ from those of the fields of a recipe
OPTION_NAMES = {"raw": "no-standardize"}
# advice on verdicts that suggests to continue training, for which there is a command
_CONTINUATIONS = {
    "escape": "Use `{again}` to leave it.",
    "continue": "Use `{again}` to continue.",
    "plateau": "Use `{again}` to continue.",
    "lower": "Use `{again}` to search for a lower point.",
    "kinks": "Use `{again}` to search for a minimum at kinks.",
}
_OPTION_ADVICE = {
    "max_time": "Increase --max-time.",
    "max_products": "Increase --max-products.",
    "risk": VERDICT_ADVICE["risk"].replace("failure_probability=", "--failure-probability "),
    "risk_steps": "A risk of at most {accepted_risk} needs {n_steps_needed} Lanczos steps, at one "
    "Hessian-vector product each: increase --max-products or --max-time.",
    "l2": "Train with a positive --l2.",
    **dict.fromkeys(("reduce", "check", "bounds"), ""),
}


@dataclass(frozen=True)
class ShellCommands:
    """Data from which the shell commands in advice are built: the `recipe` of a network's training,
    and the file `model` in which the network is stored.

    ``model`` is None if no file holds the network. Advice then does not suggest continuing the
    training. ``data`` is added to the commands for an imported network, whose file does
    not name its data.
    """

    recipe: TrainingRecipe
    model: str | None = None
    data: str | None = None

    def continuation_command(self, **options: Any) -> str:
        """Return the command that continues training from the stored network, or that trains again
        if no file holds the network. `options` are those of ``fastcurv train``.
        """
        if self.model is None:
            return self.retraining_command(**options)
        data = [] if self.data is None else [self.data]
        return _command_line("train", "--from", self.model, *data, *_training_options(options))

    def retraining_command(self, recipe: TrainingRecipe | None = None, **options: Any) -> str:
        """Return the command that trains by a recipe, by default that of the network, with further
        `options` of ``fastcurv train``.
        """
        recipe = recipe or self.recipe
        usual = TrainingRecipe(recipe.data)
        changed = {
            f.name: getattr(recipe, f.name)
            for f in fields(TrainingRecipe)
            if f.name not in ("data", "digest", "n_outputs", "reading")
            and getattr(recipe, f.name) != getattr(usual, f.name)
        }
        changed |= asdict(recipe.reading)
        return _command_line("train", recipe.data, *_training_options(changed | options))

    def translate_verdict(self, point: CriticalPoint) -> CriticalPoint:
        """Return the verdict with advice on commands in place of Python calls, without advice on
        training if no file holds the network.
        """
        again = self.continuation_command(epochs=0)
        continued = {
            key: "" if self.model is None else text.format(again=again)
            for key, text in _CONTINUATIONS.items()
        }
        return for_audience(point, Audience("", continued | _OPTION_ADVICE))

    def translate_diagnosis(self, found: Diagnosis) -> Diagnosis:
        """Return a diagnosis whose advice has commands in place of Python calls."""
        command = f"Continue with `{self.continuation_command(epochs=0)}`."
        return replace(
            found,
            causes=[replace(a, call=self.command_for_change(a.change)) for a in found.causes],
            verdict=self.translate_verdict(found.verdict),
            _continuation="" if self.model is None else command,
        )

    def command_for_change(self, change: Change) -> str:
        """Return the shell command that trains with a change, or the advice to join X and y again,
        which no command does.
        """
        if change.action == "join_rows":
            return "join X and y again, row by row"
        if change.action == "escape":
            return self.continuation_command(epochs=0)
        changes: dict[str, Any] = {
            "hidden": None if change.sizes is None else change.sizes[1:-1],
            "activation": change.activation,
            "residual": change.residual or None,
            # A loss that outliers do not dominate takes the place of clipped targets.
            "loss": "pseudo_huber" if change.targets == "clipped" else change.loss,
            "l2": change.l2,
            "raw": False if "standardized" in (change.inputs, change.targets) else None,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        # Without epochs, only the second method trains, which has no learning rate.
        options = change.run_options or {"epochs": 0}
        return self.retraining_command(replace(self.recipe, **changes), **options)


def _training_options(given: dict[str, Any]) -> list[str]:
    """Return options by name as arguments of ``fastcurv train``. Options that are None or False
    are left out.
    """
    words = []
    for name, value in given.items():
        if value is None or value is False or value == ():
            continue
        if isinstance(value, tuple) and name != "hidden":
            words += [f"--{name}={text}" for text in value]
            continue
        words.append("--" + OPTION_NAMES.get(name, name.replace("_", "-")))
        if name == "hidden":
            words.append(",".join(map(str, value)) or "none")
        elif value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return words


def _command_line(*words: str) -> str:
    return shlex.join(["fastcurv", *words])
