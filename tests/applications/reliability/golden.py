"""The defaults of all public functions, classes and methods, and of the shell's commands, for the
golden file.
"""

from __future__ import annotations

import inspect
from typing import Any

from fastcurv.applications.cli.parser import build_parser

from ...public import public


def defaults_of(call: Any) -> dict[str, str]:
    """Return the default arguments of a function as ``{name: text}``, or an empty dict if the
    function has no signature.
    """
    try:
        words = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {
        w.name: w.default if isinstance(w.default, str) else repr(w.default)
        for w in words
        if w.default is not w.empty and " at 0x" not in repr(w.default)
    }


def public_defaults() -> dict[str, dict[str, str]]:
    """Return ``{dotted name: {argument: default}}`` for all public functions, classes and methods
    with default arguments.
    """
    found = {}
    for name, one in sorted(public().items()):
        if not callable(one) or not getattr(one, "__module__", "").startswith("fastcurv"):
            continue
        found[name] = defaults_of(one)
        for inner in sorted(vars(one) if inspect.isclass(one) else ()):
            if not inner.startswith("_") and callable(getattr(one, inner, None)):
                found[f"{name}.{inner}"] = defaults_of(getattr(one, inner))
    return {name: words for name, words in found.items() if words}


def command_defaults() -> dict[str, dict[str, str]]:
    """Return ``{command: {option: default}}`` for every command of the command line."""
    parser = build_parser()
    commands = next(a for a in parser._actions if hasattr(a, "choices") and a.choices)
    return {
        f"fastcurv {name}": {
            a.dest: repr(a.default)
            for a in command._actions
            if a.option_strings and a.dest != "help"
        }
        for name, command in sorted(commands.choices.items())
    }


SECTIONS = ("defaults",)


def golden(section: str) -> dict[str, dict[str, str]]:
    return public_defaults() | command_defaults()
