"""Errors that name the right thing where another library's name was given, from the table in
`foreign`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

from .foreign import ARGUMENTS, ATTRIBUTES, CHOICES, DOORS, FUNCTIONS, LOADED

P = ParamSpec("P")
R = TypeVar("R")


def plain(name: str) -> str:
    """Without case, hyphens, underscores and blanks.

    Examples
    --------
    >>> plain("L-BFGS-B")
    'lbfgsb'
    """
    return name.lower().translate({ord(sign): None for sign in "-_ "})


def meant(x: Any, choices: Iterable[str], name: str) -> str | None:
    """What to write for `x`, another spelling or another library's name of a choice; None where
    there is no telling.

    Examples
    --------
    >>> meant("Newton-CG", ["newton-cg"], "method"), meant("L-BFGS-B", ["l-bfgs"], "method")
    ("'newton-cg'", "'l-bfgs'")
    """
    named = x if isinstance(x, str) else getattr(x, "__name__", type(x).__name__)
    spelled = {plain(choice): repr(choice) for choice in choices}
    return spelled.get(plain(named)) or CHOICES.get(name, {}).get(plain(named))


def refuse_foreign(where: str, given: Iterable[str]) -> None:
    """A TypeError that names the argument meant, for what other libraries call it.

    Parameters
    ----------
    where : str
        The function, of `ARGUMENTS`.
    given : iterable of str
        Names it was given and does not know.
    """
    names = ARGUMENTS[where]
    for name in given:
        if name in names:
            words = names[name]
            wanted = repr(words) if words.isidentifier() else words
            raise TypeError(f"{where} has no {name!r}; wanted {wanted}")


def refuse_unknown(where: str, given: Iterable[str]) -> None:
    """`refuse_foreign`, and a TypeError for any other name."""
    given = list(given)
    refuse_foreign(where, given)
    for name in given:
        raise TypeError(f"{where} has no argument {name!r}; wanted one that its docstring lists")


def own_names(where: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that arguments it does not know are answered with the right ones.

    Examples
    --------
    >>> @own_names("eigsh")
    ... def eigsh(op, k=6): ...
    >>> eigsh(None, n_components=3)
    Traceback (most recent call last):
    TypeError: eigsh has no 'n_components'; wanted 'k'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = list(inspect.signature(function).parameters)

        @wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            for name in options:
                if name not in known:
                    refuse_foreign(where, [name])
                    near = difflib.get_close_matches(name, known, 1)
                    hint = f"did you mean {near[0]!r}?" if near else "its docstring lists them"
                    raise TypeError(f"{where} has no argument {name!r}; {hint}")
            return function(*args, **options)

        return checked

    return decorate


def no_attribute(subject: str, kind: str, name: str) -> NoReturn:
    """An AttributeError that names what is meant, where that is known."""
    known = FUNCTIONS if subject == "fastcurv" else ATTRIBUTES[subject]
    hint = f"; wanted {known[name]}" if name in known else ""
    raise AttributeError(f"{kind} has no attribute {name!r}{hint}")


class Answering:
    """Attributes that a class does not have are answered with what is meant: ``subject`` names
    its part of `ATTRIBUTES`.
    """

    _subject: ClassVar[str]

    def __init_subclass__(cls, subject: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if subject is not None:
            cls._subject = subject

    if not TYPE_CHECKING:  # a checker knows the attributes there are

        def __getattr__(self, name: str) -> NoReturn:
            no_attribute(type(self)._subject, f"{type(self).__name__!r} object", name)


def typed(x: Any) -> str:
    """The type of `x` with its article.

    Examples
    --------
    >>> typed([]), typed(1)
    ('a list', 'an int')
    """
    word = type(x).__name__
    return f"{'an' if word[0] in 'AEIOUaeiou' else 'a'} {word}"


def door(x: Any) -> str:
    """How networks of the library that `x` comes from get in, as the end of a sentence; or ""."""
    words = DOORS.get(type(x).__module__.split(".")[0])
    return f": {words}" if words else ""


def parameters_of(x: Any, name: str) -> str | None:
    """The sentence for what other libraries keep parameters in; None where `x` is nothing such.

    Parameters
    ----------
    x : object
        Given for a vector.
    name : str
        What the caller calls it.
    """
    if type(x).__name__ in LOADED:
        return f"{name} is {typed(x)}; wanted {LOADED[type(x).__name__]}"
    parts = list(x.values()) if isinstance(x, dict) else x
    if inspect.isgenerator(x):
        what = "a generator"
        root = "torch"  # model.parameters()
    elif isinstance(parts, (list, tuple)) and parts:
        root = type(parts[0]).__module__.split(".")[0]
        what = f"{typed(x)} of tensors"
    elif hasattr(x, "shape"):  # one tensor: what is wrong with it is another matter
        return None
    else:
        root, what = type(x).__module__.split(".")[0], typed(x)
    if root not in DOORS:
        return None
    return f"{name} is {what}; wanted one flat vector: {DOORS[root]}"
