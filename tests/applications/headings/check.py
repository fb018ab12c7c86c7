"""Headings of the examples in the gallery, their statements, and controls.

The statements of a heading are evaluated from the numbers of the example, a dict that its `main`
returns. A control is a changed experiment: it maps these numbers to others that replace some of
them, so that a statement becomes false. Members are other networks of the class that a heading
names, drawn from the lists in `examples/story.py`. The headings of stored tables need no control,
because a nightly test shuffles their measurements. A control that takes more than a second is
marked `slow` and runs nightly.
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
    """The function `statements` maps the numbers of an example to ``{statement: whether it is
    true}``, and the dict `controls` holds the controls by name. The statements named in `here` are
    about the network of the example alone, not about its class.
    """

    statements: Callable
    controls: dict
    here: tuple = ()

    def holds_for(self, member):
        """Return whether all statements about the class are true for the numbers of a member."""
        stated = self.statements(member)
        return all(true for words, true in stated.items() if words not in self.here)


def heading(here=(), **controls):
    """Return a decorator that makes a `Heading` of its statements."""
    return lambda statements: Heading(statements, controls, here)


def slow(control):
    """Mark a control as slow, because it takes more than a second, and return it."""
    control.slow = True
    return control


def check_heading(heading, numbers, with_slow=False):
    """Check that each statement of a heading is true for the numbers of its example, and one false
    for each control. Slow controls are skipped by default.
    """
    stated = heading.statements(numbers)
    assert all(stated.values()), [words for words, holds in stated.items() if not holds]
    for name, control in heading.controls.items():
        if with_slow or not getattr(control, "slow", False):
            controlled = heading.statements(numbers | control(numbers))
            assert not all(controlled.values()), f"all statements hold for the control {name!r}"


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


# examples whose members are tried at the quick size, because they take minutes at the normal one
QUICK = (
    "batch_size",
    "covariate_shift",
    "escape_step",
    "escape_times",
    "hessian_cost",
    "newton_steps",
    "straight_line",
)


def member(name, seed):
    """Return the numbers of an example for a member of its class: with another activation in place
    of tanh, other widths, and other random numbers for samples and starts.
    """
    activations, factors, _ = example("story").MEMBERS[name]
    draw = np.random.default_rng([seed, 99])
    in_place_of_tanh = activations[draw.integers(len(activations))]
    factor = factors[draw.integers(len(factors))]
    default_rng, build = np.random.default_rng, fc.MLP

    def other_rng(rng=None):
        return default_rng([rng, seed] if isinstance(rng, (int, np.integer)) else rng)

    def other_network(sizes, activation="tanh", **options):
        hidden = (max(1, round(factor * width)) for width in sizes[1:-1])
        activation = in_place_of_tanh if activation == "tanh" else activation
        return build([sizes[0], *hidden, sizes[-1]], activation=activation, **options)

    with patch.object(np.random, "default_rng", other_rng):
        return vary(name, {"MLP": other_network}, "quick" if name in QUICK else "normal")


def reverse(values):
    """Return a dict with the values of a dict in reverse order."""
    return dict(zip(values, [*values.values()][::-1]))


def shuffled(values, seed=0):
    """Return a copy of an array with its rows in random order."""
    return np.random.default_rng(seed).permutation(values)


def rank_correlation(a, b):
    """Return Spearman's rank correlation of two arrays, or 0 if an array is constant."""
    return spearmanr(a, b)[0] if min(np.unique(a).size, np.unique(b).size) > 1 else 0.0
