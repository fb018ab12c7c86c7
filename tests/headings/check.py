"""A heading: what an example in the gallery states, and controls.

The statements of a heading are evaluated from the numbers of the example. A control replaces some
of these numbers by those of another experiment: another condition, shuffled data, or no effect at
all. Each statement must hold for the example and be false for one of its controls. A control that
takes more than a second is marked `slow` and runs nightly.
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
    """The statements of an example's heading, as a function of the example's facts (its numbers)
    that returns whether each statement is true, and its controls, functions that return facts
    changed so that statements become false.
    """

    statements: Callable
    controls: dict


def heading(**controls):
    """Return a decorator that makes a function of an example's facts a `Heading` with these
    controls.
    """
    return lambda statements: Heading(statements, controls)


def slow(control):
    """Mark a control as slow, because it takes more than a second."""
    control.slow = True
    return control


def check_heading(heading, numbers, with_slow=False):
    """Check that each statement of a heading is true, and false for at least one control. Slow
    controls are skipped by default.
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
    """Return a module of the examples by name; their folder is on the import path."""
    return importlib.import_module(name)


def vary(name, library=(), scale="quick", **changes):
    """Return the facts of an example with names of its module, and of fastcurv (`library`),
    replaced. No picture is saved.
    """
    module = example(name)
    with ExitStack() as changed:
        changed.enter_context(patch.multiple(module, save=lambda *args: None, **changes))
        for public, other in dict(library).items():
            changed.enter_context(patch.object(fc, public, other))
        return module.main(scale, None).numbers


def exchange(values, one, other):
    """Return a copy of a dict with two values exchanged."""
    return values | {one: values[other], other: values[one]}


def exchange_labels(column, one, other):
    """Return a copy of an array of words with two of the words exchanged."""
    return np.where(column == one, other, np.where(column == other, one, column))


def change(numbers, name, **changes):
    """Return a copy of the facts in which some entries of one nested dict are changed."""
    return {name: numbers[name] | changes}


def shuffled(values, seed=0):
    """Return a copy of an array in random order."""
    return np.random.default_rng(seed).permutation(values)


def rank_correlation(a, b):
    """Return the rank correlation of two arrays, or 0 if an array is constant."""
    return spearmanr(a, b)[0] if min(np.unique(a).size, np.unique(b).size) > 1 else 0.0
