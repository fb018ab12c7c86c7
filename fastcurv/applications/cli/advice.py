"""Advice in the shell: sentences and calls of the library, which name Python functions, rewritten
with shell commands.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..diagnosis.diagnose import Diagnosis
from .recipe import TrainingRecipe

# arguments of functions that are also options of the commands
_OPTION_PATTERN = re.compile(r"\b(failure_probability|max_products|max_time) ?= ?")
# Key: a name of Python in a message. Value: the name that the commands use.
SHELL_TRANSLATIONS = {
    "`reason`": "the reason",
    "max_iter": "--max-steps",
    "gradient_tol = ": "the tolerance ",
    "max_time or max_products": "--max-time or --max-products",
}
# options of the shell whose names differ from those of the fields of a recipe
OPTION_NAMES = {"raw": "no-standardize"}
# a call of a library function with the objective as its argument, or without arguments
_CALL_PATTERN = re.compile(
    r"\b(?:fastcurv|fc)\.(?:escape|minimize|classify)(?:\((?:ob|objective)\b[^)]*\))?"
)
# a sentence that suggests a search for saddles, for which there is no command
_SADDLE_SEARCH_PATTERN = re.compile(
    r"(?:[.,]| or| and)* (?:[Uu]se )?(?:fastcurv|fc)\.find_critical_point\([^)]*\)[^,.;]*"
)


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

    def replace_calls(self, text: str) -> str:
        """Return the text with shell commands and options in place of Python calls and arguments.
        If no file holds the network, clauses that suggest a call are removed.
        """
        text = _SADDLE_SEARCH_PATTERN.sub("", text)
        if self.model is None:
            text = re.sub(rf"[;,.] *(?:[Uu]se )?{_CALL_PATTERN.pattern}[^;.]*", "", text)
        text = _CALL_PATTERN.sub(lambda _: f"`{self.continuation_command(epochs=0)}`", text)
        text = _OPTION_PATTERN.sub(lambda found: f"--{found[1].replace('_', '-')} ", text)
        for name, word in SHELL_TRANSLATIONS.items():
            text = text.replace(name, word)
        return text

    def translate_diagnosis(self, found: Diagnosis) -> Diagnosis:
        """Return a diagnosis whose advice has commands in place of Python calls."""
        return replace(
            found, causes=[replace(a, call=self.command_for_call(a.call)) for a in found.causes]
        )

    def command_for_call(self, call: str) -> str:
        """Return the shell command for `call`, the source of the Python call in an `Advice`, which
        uses the names fc, np, ob and theta. If the call makes no new objective and does not train,
        return the advice to join X and y again.
        """
        if "fc.escape(" in call:
            return self.continuation_command(epochs=0)
        tree = ast.parse(call, mode="eval").body
        made = next(
            (node.value for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)), None
        )
        # If the call makes no new objective, it continues with the same network, or it is advice on
        # the order of the rows.
        if not isinstance(made, ast.Call):
            again = "fc.minimize" in call
            return self.retraining_command(epochs=0) if again else "join X and y again, row by row"
        model, X, y, loss, l2 = map(ast.unparse, made.args[:5])
        changes: dict[str, Any] = {"l2": float(l2)}
        if loss.startswith("'"):
            changes["loss"] = ast.literal_eval(loss)
        # If the call clips the targets, the advice is a loss that outliers do not dominate.
        if "np.clip" in y:
            changes["loss"] = "pseudo_huber"
        if X != "ob.X" or ".mean(" in y:
            changes["raw"] = False
        network: Any = ast.parse(model, mode="eval").body
        if isinstance(network, ast.Call):
            sizes, activation = map(ast.literal_eval, network.args[:2])
            changes |= {"hidden": tuple(sizes[1:-1]), "activation": activation}
            changes |= {key.arg: ast.literal_eval(key.value) for key in network.keywords
                        if key.arg in ("residual", "batch_norm")}  # fmt: skip
        return self.retraining_command(replace(self.recipe, **changes), epochs=0)


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
