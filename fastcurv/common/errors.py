"""Messages of errors and warnings: suggestions for unknown names, conversions from other libraries,
text that is safe to print, and the line that a warning names.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

# --------------------------------------------------------------------------------------------------
# The most frequent names in other libraries and their counterparts here. `docs/coming-from.md` has
# more.

# Key: an unknown option of `minimize`. Value: the name here.
OPTION_ALIASES = {
    **dict.fromkeys(("maxiter", "epochs", "n_iter"), "max_iter"),
    **dict.fromkeys(("tol", "gtol"), "gradient_tol"),
    "lr": "learning_rate",
    "random_state": "rng",
    "seed": "rng",
    "verbose": "progress",
    "x0": "theta0",
    "weight_decay": "l2 of the objective",
}
# Key: an argument. Value: a table from names without capitals, hyphens, underscores and blanks to
# the choice here. `fastcurv.structure.tables` fills those of losses and activations.
CHOICE_ALIASES: dict[str, dict[str, str]] = {
    "method": {
        **dict.fromkeys(("lbfgsb", "bfgs"), "'l-bfgs'"),
        "cg": "'newton-cg'",
        "trustncg": "'trust-region'",
    },
    "activation": {
        **dict.fromkeys(("linear", "none"), "'identity'"),
        **dict.fromkeys(("logistic", "expit"), "'sigmoid'"),
        "lrelu": "'leaky_relu'",
        "swish": "'silu'",
    },
    "loss": {
        **dict.fromkeys(("mseloss", "squarederror", "l2", "meansquarederror"), "'mse'"),
        **dict.fromkeys(
            ("crossentropyloss", "logloss", "nll", "nllloss", "ce")
            + ("categoricalcrossentropy", "sparsecategoricalcrossentropy", "softmax"),
            "'cross_entropy'",
        ),
        **dict.fromkeys(
            ("bcewithlogitsloss", "bce", "bceloss", "binarycrossentropywithlogits", "logistic"),
            "'binary_cross_entropy'",
        ),
        **dict.fromkeys(("poissonnllloss", "poissonnll", "poissonloss"), "'poisson'"),
        **dict.fromkeys(("gammaloss", "gammadeviance"), "'gamma'"),
        **dict.fromkeys(("huber", "huberloss", "smoothl1loss"), "'pseudo_huber'"),
        "logcoshloss": "'log_cosh'",
        **dict.fromkeys(("pinball", "pinballloss", "quantileloss"), "'quantile'"),
        **dict.fromkeys(("gaussiannllloss", "gaussian"), "'gaussian_nll'"),
    },
}
CHOICE_ALIASES["solver"] = CHOICE_ALIASES["method"]
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
# Key: the name of a class that holds rows or vectors. Value: how to get arrays from it.
CONTAINER_HINTS = {
    "DataLoader": "arrays of all rows: X, y = loader.dataset.tensors of a TensorDataset",
    "TensorDataset": "arrays: X, y = dataset.tensors",
    "Eigenpairs": "one of its vectors: pairs.vectors[:, i]",
    "Subset": "arrays of all rows: X, y = dataset[:] of a subset of a TensorDataset",
}

# maximum length of a name for which the closest known name is searched, which takes seconds for a
# million characters
MAX_COMPARED_CHARACTERS = 100


def normalise_name(name: str) -> str:
    """Normalise a name: convert it to lower case, and remove hyphens, underscores and blanks.

    Examples
    --------
    >>> normalise_name("L-BFGS-B")
    'lbfgsb'
    """
    return name.lower().translate({ord(sign): None for sign in "-_ "})


def suggested_choice(x: Any, choices: Iterable[str], name: str) -> str | None:
    """Return the quoted name of fastcurv for the choice `x`, or advice, if `x` is another spelling
    of one of `choices` or another library's name for one. Otherwise return None. `name` is the
    argument, a key of `CHOICE_ALIASES`.

    Examples
    --------
    >>> suggested_choice("Newton-CG", ["newton-cg"], "method")
    "'newton-cg'"
    >>> suggested_choice("L-BFGS-B", ["l-bfgs"], "method")
    "'l-bfgs'"
    """
    named = x if isinstance(x, str) else getattr(x, "__name__", type(x).__name__)
    spelled = {normalise_name(choice): repr(choice) for choice in choices}
    return spelled.get(normalise_name(named)) or CHOICE_ALIASES.get(name, {}).get(
        normalise_name(named)
    )


def advice_clause(words: str | None) -> str:
    """Return the end of a message that suggests `words` in place of another library's name, or "."
    for None. A bare name is quoted, and words that begin with a colon are a reason.

    Examples
    --------
    >>> advice_clause("l2"), advice_clause("fc.trace(H)"), advice_clause(": it runs on the CPU")
    (". Use 'l2'.", '. Use fc.trace(H).', ': it runs on the CPU.')
    """
    if not words or words.startswith(":"):
        return f"{words or ''}."
    return f". Use {words!r}." if words.isidentifier() else f". Use {words}."


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


def keyword_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that can be passed to a function by keyword.

    Examples
    --------
    >>> keyword_names(lambda a, *, b=1, **more: None)
    ['a', 'b']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def type_phrase(x: Any) -> str:
    """Return the name of the type of `x` with the article "a" or "an".

    Examples
    --------
    >>> type_phrase([]), type_phrase(1), type_phrase(type("MLP", (), {})())
    ('a list', 'an int', 'an MLP')
    """
    word = type(x).__name__
    spelled = word[:2].isupper() and word[0] in "FHLMNRSX" or word == "ndarray"
    return f"{'an' if spelled or word[0] in 'AEIOUaeiou' else 'a'} {word}"


def escape_unprintable(text: Any) -> str:
    r"""Escape unprintable characters as ``\x1b``: terminal control sequences, bidirectional marks,
    and surrogates from file names that are not UTF-8.

    Examples
    --------
    >>> print(escape_unprintable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: Any, most: int = 80) -> str:
    """Format text from a file for a message: on one line, printable, and truncated to `most`
    characters.
    """
    words = escape_unprintable(" ".join(str(text)[: 4 * most].split()))
    return words if len(words) <= most else f"{words[: most - 3]}..."


def conversion_hint(x: Any) -> str:
    """Return a sentence, after a blank, that states how to convert networks of the library of `x`,
    or "" if the library is unknown.
    """
    words = CONVERTERS.get(converter_key(x))
    return f" {words}." if words else ""


def converter_key(x: Any) -> str:
    """Return the key of `CONVERTERS` for the class or library of `x` or one of its base classes, or
    "".
    """
    roots = ((kind, kind.__module__.split(".")[0]) for kind in type(x).__mro__)
    homes = (home for kind, root in roots for home in (f"{root}.{kind.__name__}", root))
    return next((home for home in homes if home in CONVERTERS), "")


OBJECTIVE_HINT = "an objective such as fastcurv.Objective"


def require_attrs(x: Any, parts: Iterable[str], name: str, wanted: str, after: Any = None) -> None:
    """Raise a TypeError if `x` lacks one of the attributes `parts`. If `x` and the next argument
    were exchanged, the message says so.

    Parameters
    ----------
    x : object
        The value of an argument.
    parts : iterable of str
        Attributes that `x` must have.
    name, wanted : str
        Name of the argument, and what it should be, for the message.
    after : object
        The value of the next argument, theta.

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
    raise_if_arguments_swapped(x, parts, name, after)
    if wanted == OBJECTIVE_HINT and hasattr(x, "matvec"):
        wanted = "the objective itself, which can be evaluated at any theta"
    raise TypeError(
        f"{name} must be {wanted}, got {type_phrase(x)} without {', '.join(missing)}."
        f"{conversion_hint(x)}"
    )


def raise_if_arguments_swapped(x: Any, parts: Iterable[str], name: str, after: Any) -> None:
    """Raise a TypeError if the next argument, `after`, has all the attributes `parts` that `x`
    should have, as described in `require_attrs`.
    """
    if all(hasattr(after, part) for part in parts):
        raise TypeError(
            f"{name} and theta must be in this order, got {type_phrase(x)} and "
            f"{type_phrase(after)}. Exchange them."
        )


def container_error_message(x: Any, name: str) -> str | None:
    """Return the error message for a container in which another library keeps parameters or data.
    Return None if `x` is not such a container.

    Parameters
    ----------
    x : object
        The value of an argument that should be an array.
    name : str
        Name of the argument, for the message.
    """
    if type(x).__name__ in CONTAINER_HINTS:
        return f"{name} must be {CONTAINER_HINTS[type(x).__name__]}, got {type_phrase(x)}."
    parts = list(x.values()) if isinstance(x, dict) else x
    if inspect.isgenerator(x):
        what = "a generator"
        root = "torch"  # a generator is usually model.parameters()
    elif isinstance(parts, (list, tuple)) and parts:
        root = type(parts[0]).__module__.split(".")[0]
        what = f"{type_phrase(x)} of tensors"
    elif hasattr(x, "shape"):  # a single tensor gets another message
        return None
    else:
        root = converter_key(x)
        what = type_phrase(x)
    if root not in CONVERTERS:
        return None
    return f"{name} must be one flat vector, got {what}. {CONVERTERS[root]}."


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warn, at the line of the first caller outside this package."""
    level = 2
    frame: Any = sys._getframe(1)
    inner = "fastcurv", "contextlib"  # `contextlib` calls the functions that it decorates
    while frame and str(frame.f_globals.get("__name__")).partition(".")[0] in inner:
        frame = frame.f_back
        level += 1
    warnings.warn(text, category, stacklevel=level)
