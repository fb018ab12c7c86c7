"""Headings of the examples in the gallery, their statements, and controls.

The statements of a heading are evaluated from the numbers of the example, a dict that its `main`
returns. A control replaces some of these numbers by those of another experiment: another condition,
shuffled data, or no effect at all. Each statement must hold for the example and be false for one of
its controls. A control that takes more than a second is marked `slow` and runs nightly.
"""

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from scipy.stats import spearmanr

import fastcurv as fc


@dataclass(frozen=True)
class Heading:
    """The statements of an example's heading and their controls.

    The function `statements` maps the numbers of the example to ``{statement: whether it is
    true}``. The dict `controls` holds, by name, functions that map the numbers to those that
    replace some of them, so that some statements become false.
    """

    statements: Callable
    controls: dict


def heading(**controls):
    """Return a decorator that turns a function from the numbers of an example to its statements
    into a `Heading` with the given controls.
    """
    return lambda statements: Heading(statements, controls)


def slow(control):
    """Mark a control as slow, because it takes more than a second, and return it."""
    control.slow = True
    return control


def check_heading(heading, numbers, with_slow=False):
    """Check that each statement of a heading is true for the numbers of its example, and false for
    at least one control. Slow controls are skipped by default.
    """
    stated = heading.statements(numbers)
    assert all(stated.values()), [words for words, holds in stated.items() if not holds]
    refuted = set()
    for name, control in heading.controls.items():
        if getattr(control, "slow", False) and not with_slow:
            continue
        found = heading.statements(numbers | control(numbers))
        wrong = {words for words, holds in found.items() if not holds}
        assert wrong, f"all statements hold for the control {name!r}"
        refuted |= wrong
    assert set(stated) == refuted, f"no control refutes {set(stated) - refuted}"


def example(name):
    """Return the module of the named example, whose folder is on the import path."""
    return importlib.import_module(name)


def vary(name, library=(), scale="quick", **changes):
    """Return the numbers that an example computes after names of its module (`changes`) and of
    fastcurv (`library`) have been replaced. No picture is saved.
    """
    module = example(name)
    with ExitStack() as changed:
        changed.enter_context(patch.multiple(module, save=lambda *args: None, **changes))
        for public, other in dict(library).items():
            changed.enter_context(patch.object(fc, public, other))
        return module.main(scale, None).numbers


def exchange(values, one, other):
    """Return a copy of the dict `values` with the values of the keys `one` and `other`
    exchanged.
    """
    return values | {one: values[other], other: values[one]}


def exchange_labels(column, one, other):
    """Return a copy of an array of strings with the strings `one` and `other` exchanged."""
    return np.where(column == one, other, np.where(column == other, one, column))


def change(numbers, name, **changes):
    """Return a dict with the single key `name`, whose value is the dict ``numbers[name]`` with some
    of its entries replaced.
    """
    return {name: numbers[name] | changes}


def shuffled(values, seed=0):
    """Return a copy of an array with its rows in random order."""
    return np.random.default_rng(seed).permutation(values)


def rank_correlation(a, b):
    """Return Spearman's rank correlation of two arrays, or 0 if an array is constant."""
    return spearmanr(a, b)[0] if min(np.unique(a).size, np.unique(b).size) > 1 else 0.0
