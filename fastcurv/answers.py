"""Errors that name the right thing where another library's name was given, from the table in
`foreign`.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

from .foreign import ARGUMENTS, ATTRIBUTES, CHOICES, DIFFER, DOORS, FUNCTIONS, FUNCTIONS_OF, LOADED
from .foreign import PHI as ELSEWHERE

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


def named_activation(x: Any) -> Any:
    """The name here of an activation of torch, JAX, Keras or NumPy, a function or a module of
    torch; `x` itself where it is none. A ValueError where it bears a name of ours and is another.

    Examples
    --------
    >>> import numpy as np
    >>> named_activation(np.tanh), named_activation("tanh"), named_activation(abs) is abs
    ('tanh', 'tanh', True)
    """
    kind = x if isinstance(x, type) else type(x)
    if kind.__module__.startswith("torch.nn.modules.") and kind.__name__ in ELSEWHERE["torch"]:
        ours, wanted = ELSEWHERE["torch"][kind.__name__]
        settings = {key: getattr(x, key, value) for key, value in wanted.items()}
        if settings != wanted and x is not kind:
            raise ValueError(f"activation is {x!r}, which has no counterpart here; wanted {wanted}")
        return ours
    name = str(getattr(x, "__name__", None))
    homes = [home for home in FUNCTIONS_OF if getattr(sys.modules.get(home), name, None) is x]
    if isinstance(x, str) or not homes:
        return x
    if (homes[0], name) in DIFFER:
        raise ValueError(
            f"activation is {homes[0]}.{name}, {DIFFER[homes[0], name]}; wanted {name!r}, which "
            "is another function"
        )
    ours = CHOICES["activation"].get(name, repr(name)).strip("'")
    return ours if ours in {phi for phi, _ in ELSEWHERE["torch"].values()} else x


def refuse_foreign(where: str, given: Iterable[str], called: str | None = None) -> None:
    """A TypeError that names the argument meant, for what other libraries call it.

    Parameters
    ----------
    where : str
        The function, of `ARGUMENTS` where these know other libraries' names for what it takes.
    given : iterable of str
        Names it was given and does not know.
    called : str, optional
        What the caller called, where that has another name.
    """
    names = ARGUMENTS.get(where, {})
    for name in given:
        if name in names:
            words = names[name]
            wanted = repr(words) if words.isidentifier() else words
            raise TypeError(f"{called or where} has no {name!r}; wanted {wanted}")


def refuse_unknown(
    where: str, given: Iterable[str], called: str | None = None, known: Iterable[str] = ()
) -> None:
    """`refuse_foreign`, and a TypeError for any other name, with the nearest of those `known`."""
    given, called, known = list(given), called or where, [name for name in known if name != "self"]
    refuse_foreign(where, given, called)
    for name in given:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
        raise TypeError(f"{called} has no argument {name!r}; {hint}")


def names_of(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function takes by name.

    Examples
    --------
    >>> names_of(lambda a, *, b=1, **more: None)
    ['a', 'b']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _taken(signature: inspect.Signature, args: Sequence[Any], method: bool) -> str:
    """What a function takes by place, in brackets, dots for what it takes by name alone; and how
    to come to the first of them, where what was given for it is another thing of ours.
    """
    parameters = list(signature.parameters.values())[method:]
    placed = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    taken = f"({', '.join(placed + ['...'] * (len(placed) < len(parameters)))})"
    if method and hasattr(args[0], "from_objective"):
        return f"{taken}, or {type(args[0]).__name__}.from_objective(ob, theta)"
    other = len(args) > method and home_of(args[method]) != KINDS.get(placed[0])
    return taken + door(args[method]) if other else taken


def own_names(where: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that arguments it does not know are answered with the right ones, of
    the table `where`, and by the name that was called; too many or too few with its signature.

    Examples
    --------
    >>> @own_names("eigsh")
    ... def eigsh(op, k=6): ...
    >>> eigsh(None, n_components=3)
    Traceback (most recent call last):
    TypeError: eigsh has no 'n_components'; wanted 'k'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known, signature = names_of(function), inspect.signature(function)
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        method = "." in function.__qualname__ and known[0] == "self"

        def called(args: Any) -> str:
            owner = type(args[0]).__name__ if method else ""
            name = function.__name__
            return owner if name == "__init__" else f"{owner}.{name}".lstrip(".")

        @wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            unknown = [name for name in options if name not in known]
            if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
                refuse_unknown(where, unknown, called(args), known)
            try:
                return function(*args, **options)
            except TypeError as error:
                try:
                    signature.bind(*args, **options)
                except TypeError:
                    said = str(error).replace(function.__qualname__, called(args))
                    wanted = called(args) + _taken(signature, args, method)
                    raise TypeError(f"{said}; wanted {wanted}") from None
                raise

        return checked

    return decorate


def no_attribute(subject: str, kind: str, name: str) -> NoReturn:
    """An AttributeError that names what is meant, where that is known."""
    known = FUNCTIONS if subject == "fastcurv" else ATTRIBUTES[subject]
    there = dir(sys.modules["fastcurv"]) if subject == "fastcurv" else ()
    near = difflib.get_close_matches(name, there, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    hint = f"; wanted {known[name]}" if name in known else hint
    raise AttributeError(f"{kind} has no attribute {name!r}{hint}")


IMPLICIT = {"__call__": "callable", "__getitem__": "subscriptable"}


def _refusal(verb: str, wanted: str) -> Callable[..., NoReturn]:
    """A method of Python's own that a class does not have."""

    def refuse(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__!r} object is not {verb}; wanted {wanted}")

    return refuse


class Answering:
    """Attributes that a class does not have are answered with what is meant: ``subject`` names
    its part of `ATTRIBUTES`. So are calls and indices, which Python looks up in the class.
    """

    _subject: ClassVar[str]

    def __init_subclass__(cls, subject: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if subject is not None:
            cls._subject = subject
            for name, verb in IMPLICIT.items():
                if name in ATTRIBUTES[subject]:
                    setattr(cls, name, _refusal(verb, ATTRIBUTES[subject][name]))

    if not TYPE_CHECKING:  # a checker knows the attributes there are

        def __getattr__(self, name: str) -> NoReturn:
            no_attribute(type(self)._subject, f"{type(self).__name__!r} object", name)


def typed(x: Any) -> str:
    """The type of `x` with its article.

    Examples
    --------
    >>> typed([]), typed(1), typed(type("MLP", (), {})())
    ('a list', 'an int', 'an MLP')
    """
    word = type(x).__name__
    spelled = word[:2].isupper() and word[0] in "FHLMNRSX" or word == "ndarray"
    return f"{'an' if spelled or word[0] in 'AEIOUaeiou' else 'a'} {word}"


def door(x: Any) -> str:
    """How networks of the library that `x` comes from get in, as the end of a sentence; or ""."""
    words = DOORS.get(home_of(x))
    return f": {words}" if words else ""


def home_of(x: Any) -> str:
    """The class or library of `DOORS` that the class of `x` or one of its bases is or belongs to;
    or "".
    """
    roots = ((kind, kind.__module__.split(".")[0]) for kind in type(x).__mro__)
    homes = (home for kind, root in roots for home in (f"{root}.{kind.__name__}", root))
    return next((home for home in homes if home in DOORS), "")


KINDS = {"model": "fastcurv.MLP", "ob": "fastcurv.Objective"}  # what arguments of a name are
OBJECTIVE = "an objective such as fastcurv.Objective"


def need(x: Any, parts: Iterable[str], name: str, wanted: str, after: Any = None) -> None:
    """A TypeError where `x` lacks something, which says so where it was swapped with what comes
    after it.

    Parameters
    ----------
    x : object
        Given for an argument.
    parts : iterable of str
        Attributes that it must have.
    name, wanted : str
        What the caller calls it, and what it should be.
    after : object
        Given for theta, which comes after it.

    Examples
    --------
    >>> need([1.0], ["value"], "ob", OBJECTIVE)
    Traceback (most recent call last):
    TypeError: ob is a list without value; wanted an objective such as fastcurv.Objective
    """
    parts = list(parts)
    missing = [part for part in parts if not hasattr(x, part)]
    if not missing:
        return
    refuse_swapped(x, parts, name, after)
    if wanted == OBJECTIVE and hasattr(x, "matvec"):
        wanted = "the objective itself, which is asked at any theta"
    raise TypeError(f"{name} is {typed(x)} without {', '.join(missing)}; wanted {wanted}{door(x)}")


def refuse_swapped(x: Any, parts: Iterable[str], name: str, after: Any) -> None:
    """A TypeError where what comes after `x` has all that it should have: see `need`."""
    if all(hasattr(after, part) for part in parts):
        raise TypeError(
            f"{name} is {typed(x)} and theta {typed(after)}; wanted them the other way round"
        )


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
        root, what = home_of(x), typed(x)
    if root not in DOORS:
        return None
    return f"{name} is {what}; wanted one flat vector: {DOORS[root]}"
