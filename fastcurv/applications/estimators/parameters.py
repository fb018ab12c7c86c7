"""The parameters of both estimators and their checks, which `fit` makes."""

from __future__ import annotations

import numbers
from functools import partial
from typing import Any

from ...common.checks import (
    check_bool,
    check_choice,
    check_positive,
    check_positive_int,
    is_iterable,
    short_repr,
)
from ...common.errors import type_phrase
from ...optimize.minimize import METHOD_ALIASES, METHODS
from ...structure.user_functions import Activation
from ..convert.activations import ACTIVATIONS_IN_LIBRARY

SOLVER_NAMES = ("auto", *METHOD_ALIASES, *METHODS)
SKLEARN_LOSSES = ("squared_error", "poisson")  # losses of scikit-learn's MLPRegressor
CHECK_NOT_NEGATIVE = partial(check_positive, zero=True)
# Key: a parameter. Value: its check, and the requirement if "auto" is also allowed, else None.
PARAMETER_CHECKS: dict[str, tuple[Any, str | None]] = {
    "alpha": (CHECK_NOT_NEGATIVE, "a number >= 0"),
    "max_iter": (check_positive_int, None),
    "tol": (CHECK_NOT_NEGATIVE, "a number >= 0"),
    "n_iter_no_change": (check_positive_int, ""),
    "batch_size": (check_positive_int, "an int >= 1"),
    "learning_rate_init": (check_positive, None),
    "max_time": (check_positive, None),
    "beta_1": (CHECK_NOT_NEGATIVE, None),
    "beta_2": (CHECK_NOT_NEGATIVE, None),
    "epsilon": (CHECK_NOT_NEGATIVE, None),
    "momentum": (CHECK_NOT_NEGATIVE, None),
}


def check_parameters(est: Any) -> None:
    """Raise ValueError or TypeError for the first invalid parameter."""
    check_choice(est.solver, SOLVER_NAMES, "solver")
    for name, (check, instead) in PARAMETER_CHECKS.items():
        given = getattr(est, name)
        words = ("auto", "evidence") if name == "alpha" else ("auto",)
        if instead and isinstance(given, str) and given not in words:
            named = ", ".join(map(repr, words))
            raise ValueError(f"{name} must be {named} or {instead}, got {short_repr(given)}.")
        if not (given is None and instead is None or isinstance(given, str) and instead):
            check(given, name)
    check_bool(est.verdict, "verdict")
    if est.early_stopping and check_positive(est.validation_fraction, "validation_fraction") >= 1:
        raise ValueError(
            f"validation_fraction must be a number between 0 and 1, got {est.validation_fraction}."
        )


def hidden_layers(sizes: Any, activation: Any) -> tuple[list[int], list[Any]]:
    """Return the widths of the hidden layers, and an activation of this library for each.

    Examples
    --------
    >>> hidden_layers((5, 3), "logistic")
    ([5, 3], ['sigmoid', 'sigmoid'])
    """
    if not isinstance(sizes, numbers.Integral) and (
        isinstance(sizes, str) or not is_iterable(sizes)
    ):
        cure = ""
        if isinstance(sizes, str) and sizes in SKLEARN_LOSSES:
            cure = f" It is the first argument. Use loss={sizes!r} for a loss."
        raise TypeError(
            f"hidden_layer_sizes must be an int >= 1 or several, got {short_repr(sizes)}.{cure}"
        )
    hidden: list[Any] = [sizes] if isinstance(sizes, numbers.Integral) else list(sizes)
    if not all(isinstance(width, numbers.Integral) and int(width) > 0 for width in hidden):
        raise ValueError(f"hidden_layer_sizes must be ints >= 1, got {short_repr(sizes)}.")
    alone = isinstance(activation, (str, Activation))
    if not alone and not is_iterable(activation):
        raise TypeError(
            "activation must be a name, an fc.Activation, or one for each layer, got "
            f"{type_phrase(activation)}."
        )
    names = [activation] * len(hidden) if alone else list(activation)
    theirs = ACTIVATIONS_IN_LIBRARY["sklearn"]
    return hidden, [
        theirs.get(name, (name,))[0] if isinstance(name, str) else name for name in names
    ]
