"""Messages of errors and warnings: the closest known name, conversions from other libraries, text
that is safe to print, and the line that a warning names.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

# Key: a top-level module of another library, or a class of this library. Value: how to convert or
# use the objects.
CONVERTERS = {
    "torch": "fc.from_torch(module) gives model and theta",
    "sklearn": "fc.from_sklearn(estimator) gives model and theta",
    "onnx": "fc.from_onnx(network) gives model and theta",
    "fastcurv.MLP": "Make ob = fc.Objective(model, X, y), theta = model.init() and H = "
    "ob.hessian(theta)",
    "fastcurv.Objective": "ob.model is its network, and ob.hessian(theta) its operator at theta",
    **dict.fromkeys(
        ("fastcurv.MLPClassifier", "fastcurv.MLPRegressor"),
        "A fitted estimator has model_, theta_ and objective(X, y)",
    ),
}
# maximum length of a name for which the closest known name is searched, which takes seconds for a
# million characters
MAX_COMPARED_CHARACTERS = 100


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the `known` names that is closest to `name`, or None if none is close or
    `name` has more than `MAX_COMPARED_CHARACTERS`.
    """
    if len(name) > MAX_COMPARED_CHARACTERS:
        return None
    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)


def raise_if_unknown_argument(called: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a TypeError for the arguments `given` of the function `called` that are not in `known`,
    if there are any. The message has the closest known name.
    """
    known = [name for name in known if name != "self"]
    for name in given:
        if name in known:
            continue
        near = closest_name(name, known)
        hint = f"Did you mean {near!r}?" if near else f"Its arguments are {', '.join(known)}."
        raise TypeError(f"{called} has no argument {one_line(name)!r}. {hint}")


def keyword_names(function: Callable[..., object]) -> list[str]:
    """Return the names of the arguments that can be passed to a function by keyword.

    Examples
    --------
    >>> keyword_names(lambda a, *, b=1, **more: None)
    ['a', 'b']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def type_phrase(x: object) -> str:
    """Return the name of the type of `x` with the article "a" or "an".

    Examples
    --------
    >>> type_phrase([]), type_phrase(1), type_phrase(type("MLP", (), {})())
    ('a list', 'an int', 'an MLP')
    """
    word = type(x).__name__
    spelled = word[:2].isupper() and word[0] in "FHLMNRSX" or word == "ndarray"
    return f"{'an' if spelled or word[0] in 'AEIOUaeiou' else 'a'} {word}"


def escape_unprintable(text: object) -> str:
    r"""Escape unprintable characters as ``\x1b``: terminal control sequences, bidirectional marks,
    and surrogates from file names that are not UTF-8.

    Examples
    --------
    >>> print(escape_unprintable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: object, most: int = 80) -> str:
    """Format text from a file for a message: on one line, printable, and truncated to `most`
    characters.
    """
    words = escape_unprintable(" ".join(str(text)[: 4 * most].split()))
    return words if len(words) <= most else f"{words[: most - 3]}..."


def conversion_hint(x: object) -> str:
    """Return a sentence, after a blank, that states how to convert x, an object of another library
    or another class of this one, or "" if none is known.
    """
    roots = ((kind, kind.__module__.split(".")[0]) for kind in type(x).__mro__)
    homes = (home for kind, root in roots for home in (f"{root}.{kind.__name__}", root))
    return next((f" {CONVERTERS[home]}." for home in homes if home in CONVERTERS), "")


OBJECTIVE_HINT = "an objective such as fastcurv.Objective"


def require_attrs(x: object, parts: Iterable[str], name: str, wanted: str) -> None:
    """Raise a TypeError if `x` lacks one of the attributes `parts`.

    Parameters
    ----------
    x : object
        The value of an argument.
    parts : iterable of str
        Attributes that `x` must have.
    name, wanted : str
        Name of the argument, and what it should be, for the message.

    Examples
    --------
    >>> require_attrs([1.0], ["value"], "ob", OBJECTIVE_HINT)
    Traceback (most recent call last):
    TypeError: ob must be an objective such as fastcurv.Objective, got a list without value.
    """
    parts = list(parts)
    missing = [part for part in parts if not hasattr(x, part)]
    if not missing:
        return
    if wanted == OBJECTIVE_HINT and hasattr(x, "matvec"):
        wanted = "the objective itself, which can be evaluated at any theta"
    raise TypeError(
        f"{name} must be {wanted}, got {type_phrase(x)} without {', '.join(missing)}."
        f"{conversion_hint(x)}"
    )


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warn, at the line of the first caller outside this package."""
    level = 2
    frame: Any = sys._getframe(1)
    inner = "fastcurv", "contextlib"  # `contextlib` calls the functions that it decorates
    while frame and str(frame.f_globals.get("__name__")).partition(".")[0] in inner:
        frame = frame.f_back
        level += 1
    warnings.warn(text, category, stacklevel=level)
