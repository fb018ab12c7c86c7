"""Parameters of the two estimators, as `fit` checks them."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from ..common.checks import check_choice, check_positive, check_positive_int
from ..common.errors import typed
from ..convert.sklearn import SKLEARN
from ..optimize.minimize import METHODS

SOLVERS = ("auto", "lbfgs", *METHODS)
LOSSES = ("squared_error", "poisson")  # which scikit-learn's regressor takes first


def check_parameters(est: Any) -> None:
    """A ValueError or TypeError for the first that is none of those wanted."""
    check_choice(est.solver, SOLVERS, "solver")
    check_positive(est.alpha, "alpha", zero=True)
    check_positive_int(est.max_iter, "max_iter")
    if not isinstance(est.tol, str):
        check_positive(est.tol, "tol", zero=True)
    elif est.tol != "auto":
        raise ValueError(f"tol is {est.tol!r}; wanted 'auto' or a number >= 0")
    check_positive_int(est.n_iter_no_change, "n_iter_no_change")
    if est.verdict not in (True, False, "quick"):
        raise ValueError(f"verdict is {est.verdict!r}; wanted 'quick', True or False")
    if isinstance(est.batch_size, str) and est.batch_size != "auto":
        raise ValueError(f"batch_size is {est.batch_size!r}; wanted 'auto' or an int >= 1")
    if not isinstance(est.batch_size, str):
        check_positive_int(est.batch_size, "batch_size")
    for name in ("learning_rate_init", "max_time"):
        if getattr(est, name) is not None:
            check_positive(getattr(est, name), name)
    if est.early_stopping and check_positive(est.validation_fraction, "validation_fraction") >= 1:
        raise ValueError(
            f"validation_fraction is {est.validation_fraction}; wanted a number between 0 and 1"
        )


def layers_of(sizes: Any, activation: Any) -> tuple[list[int], list[Any]]:
    """The widths of the hidden layers, and an activation of this library for each.

    Examples
    --------
    >>> layers_of((5, 3), "logistic")
    ([5, 3], ['sigmoid', 'sigmoid'])
    """
    if not isinstance(sizes, numbers.Integral) and (
        isinstance(sizes, str) or not hasattr(sizes, "__iter__")
    ):
        cure = ", which comes first here; losses have no name" if sizes in LOSSES else ""
        raise TypeError(f"hidden_layer_sizes is {sizes!r}; wanted an int >= 1 or several{cure}")
    hidden: list[Any] = [sizes] if isinstance(sizes, numbers.Integral) else list(sizes)
    if not all(isinstance(width, numbers.Integral) and int(width) > 0 for width in hidden):
        raise ValueError(f"hidden_layer_sizes is {sizes!r}; wanted ints >= 1")
    if not hasattr(activation, "__iter__"):
        raise TypeError(f"activation is {typed(activation)}; wanted a name, or one for each layer")
    names = [activation] * len(hidden) if isinstance(activation, str) else list(activation)
    return hidden, [SKLEARN.get(name, name) if isinstance(name, str) else name for name in names]


def total_of(rows: int, weight: Any) -> float:
    """How many rows there are, repeated ones counted: the sum of the weights."""
    if weight is None:
        return float(rows)
    with np.errstate(over="ignore"):
        total = float(weight.sum(dtype=float))
    if not 1e-290 <= total <= 1e305:  # its quotients are full numbers too
        raise ValueError(f"sample_weight adds up to {total:.3g}; wanted a sum from 1e-290 to 1e305")
    return total
