"""The function `diagnose`: why training fails, and which call helps.

Each cause is an entry of `CAUSES`: its evidence in the facts, a sentence with a number, and the
call that corrects it. They are in causal order: data, loss, weight decay, rate, start, size. The
first cause that applies is named first, since inputs of a wrong scale saturate units and make any
learning rate too large, whereas a learning rate does not change the inputs.

Causes of a poor fit are tested only if the fit is poor, that is, if the network explains less of
the targets than kernel regressions explain for rows that they were not fitted to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...common.checks import as_numpy, check_positive, is_sparse
from ...common.errors import require_attrs, type_phrase
from ...common.html import html_table
from ...common.runtime import serial_blas_context, with_nearest_rounding
from ...critical.classify import classify
from ...critical.report import CriticalPoint
from ...spectrum.draw import new_pyplot_axes, plain_numbers
from ...spectrum.results import format_number
from ...structure.tables import MIN_NORMAL
from .change import Change
from .facts import (
    Facts,
    compare_networks,
    finite_point,
    measure_facts,
    nonzero_weight_rows,
    run_facts_from_history,
)

# --------------------------------------------------------------------------------------------------
# Causes: the evidence for each in the facts, and the call that corrects it.

# advised learning rate of Adam, which is about the change of each weight in a step, relative to the
# typical size of an initial weight
ADAM_STEP_RATIO = 0.05
# correlation in standard errors above which X and y are related: the largest of nine regressions
# exceeds it for 1 to 4% of shuffled targets
MIN_RELATED_ZSCORE = 3.0
PROVED = "proved"
MEASURED = "measured"
SUSPECTED = "suspected"
Found = tuple[float, str] | None  # (number for the sentence, how the cause was established)


def _finding_or_none(holds: Any, value: float, confidence: str = MEASURED) -> Found:
    return (float(value), confidence) if holds else None


def _find_shuffled_rows(f: Facts) -> Found:
    # A network with this number of parameters explains up to the fraction `by_chance` of the
    # variance of targets that are pure noise.
    N = len(nonzero_weight_rows(f.ob))
    by_chance = 1.5 * f.ob.n_params / (N * f.ob.model.sizes[-1]) + 0.1
    related = f.correlation_zscore > MIN_RELATED_ZSCORE or by_chance < min(f.explained_variance, 1)
    # The cause is only suspected: regressions also fail for targets that vary quickly.
    return _finding_or_none(not related and len(f.y) >= 30, f.correlation_zscore, SUSPECTED)


def _find_classes_as_numbers(f: Facts) -> Found:
    count = len(f.values)
    gaps = np.diff(f.values)
    few = 3 <= count <= 20 and 5 * count <= len(f.y)
    even = few and np.ptp(gaps) <= 1e-6 * gaps.max()
    return _finding_or_none(f.link == "identity" and even, count, SUSPECTED)


def _find_numbers_as_labels(f: Facts) -> Found:
    count = len(f.values)
    inside = float(np.mean((f.values > 0) & (f.values < 1))) if count else 0.0
    many = count > max(20, 0.25 * len(f.y))
    return _finding_or_none(f.link == "sigmoid" and inside > 0.5 and many, count, SUSPECTED)


def _find_outliers(f: Facts) -> Found:
    if f.link != "identity" or len(f.y) < 100:
        return None
    parts = f.weight * np.square(f.y - np.median(f.y, axis=0)).sum(axis=1)
    order = np.argsort(-parts / f.weight, kind="stable")
    # Select the rows with the largest deviations that together have at most 2% of the weight.
    most = np.cumsum(f.weight[order]) <= len(f.y) / 50
    share = parts[order][most].sum() / max(parts.sum(), MIN_NORMAL)
    return _finding_or_none(share > 0.5, 100 * share)


def _find_column_scale(f: Facts, alone: bool) -> Found:
    """Return evidence for a wrong scale of columns of X, a pair (number, `MEASURED`), or None.
    Return None also if no column varies or the network already fits well.

    A column is too large if its root mean square is above 8 or above 8 times the median. If no
    column is too large, those below 1/30 of the median are too small. If exactly one of several
    columns is too large or small, the number is its root mean square over the median of the others
    if `alone` is True, and the result is None if not. Otherwise `alone` must be False, and there is
    evidence if a column is too large, if the root mean square of all columns, the number, is not
    between 1/8 and 8, or if the norm of the means exceeds 8 times that of the standard deviations.
    """
    scales = f.scales
    if not len(scales) or f.is_fit_close(0.5):
        return None
    usual = np.median(scales)
    large = (scales > 8 * usual) | (scales > 8)
    small = scales < usual / 30
    odd = large if large.any() else small
    if len(scales) > 1 and odd.sum() == 1:
        return _finding_or_none(alone, scales[odd][0] / np.median(scales[~odd]))
    total = np.sqrt(np.mean(scales**2))
    far = large.any() or not 1 / 8 < total < 8 or f.offset > 8
    return _finding_or_none(far and not alone, total)


def _find_large_l2(f: Facts) -> Found:
    # A fit needs about four paths through the network, each with weights of norm 1 in every layer.
    # `needed` is the decay of these weights, relative to the loss of the best constant.
    l2 = float(np.max(f.ob.l2))
    rest = max(f.loss - 0.5 * f.decay_penalty, MIN_NORMAL)
    needed = 0.5 * l2 * 4 * len(f.layers) / max(f.constant_loss, MIN_NORMAL)
    held = f.relative_weight_size < 0.2 and needed > 0.15
    falling = needed > 0.5 and 0.3 < f.decay_imbalance < 1.5
    settled = f.loss <= 1.01 * f.constant_loss and f.decay_imbalance < 0.3
    heavy = settled and needed > 0.02 and f.decay_penalty > 0.25 * rest
    poor = not f.is_good_fit and (held or falling or heavy)
    lost = f.attainable_variance - f.explained_variance
    balanced = f.decay_penalty > 0.25 * f.constant_loss and f.decay_imbalance < 0.3
    shrunk = balanced and lost > 0.1
    return _finding_or_none(poor or shrunk, l2)


def _find_large_learning_rate(f: Facts) -> Found:
    s = f.steps
    if s.rate is None or s.has_adaptive_steps or not f.relative_start_loss < 10:
        return None
    overshoot = s.rate / f.max_stable_learning_rate
    return _finding_or_none(
        s.has_unstable_losses and (overshoot > 2 or _has_jumped(f) and overshoot > 0.5), overshoot
    )


def _find_long_first_step(f: Facts) -> Found:
    s = f.steps
    if s.rate is None or s.has_adaptive_steps or not f.relative_start_loss < 10 or not len(s.norms):
        return None
    ratio = s.rate * s.norms[0] / max(f.initial_norm, MIN_NORMAL)
    return _finding_or_none(ratio > 1, ratio)


def _has_jumped(f: Facts) -> bool:
    """Return True if a loss exceeded 1.3 times the larger of two losses, the first one and that of
    the best constant outputs, and the last loss is not below 0.9 times the smaller of the two.
    Return False for fewer than two losses.
    """
    known = f.steps.losses
    if len(known) < 2:
        return False
    high = not known.max() <= 1.3 * max(known[0], f.constant_loss)
    return high and not known[-1] < 0.9 * min(known[0], f.constant_loss)


def _find_rising_loss(f: Facts) -> Found:
    s = f.steps
    rose = s.rate is None and f.relative_start_loss < 10 and s.has_unstable_losses
    return _finding_or_none(rose, s.losses[-1] / s.losses[0] if rose else 0.0, SUSPECTED)


def _find_vanishing_gradient(f: Facts) -> Found:
    other = _find_copied_units(f) or _find_saturation(f) or f.dead_fraction >= 0.5
    if len(f.hidden_layers) < 5 or not 0.2 < f.relative_weight_size < 5 or other:
        return None
    # If the gradient of the last layer is nearly 0 too, as after its biases have been fitted, only
    # the ratio of the curvatures is small.
    first = f.layers[0]
    last = f.layers[-1]
    least = min(first.gradient / last.gradient, first.curvature / last.curvature)
    return _finding_or_none(least < 1e-3, 1 / max(least, MIN_NORMAL))


def _find_copied_units(f: Facts) -> Found:
    # If a unit is inactive because of its bias, weight decay shrinks its weights to 0. Such units
    # are equal although the start was not symmetric.
    alive = (layer for layer in f.hidden_layers if not (layer.dead >= 0.5 and layer.biases > 0.5))
    share = max((layer.copies for layer in alive), default=0.0)
    return _finding_or_none(share >= 0.5, 100 * share)


def _find_saturation(f: Facts) -> Found:
    return _finding_or_none(
        f.saturated_fraction > 0.6 and f.verdict.kind != "minimum", 100 * f.saturated_fraction
    )


def _find_large_weights(f: Facts) -> Found:
    # Weights may also grow large in training. Large initial weights are recognised by a first loss
    # far above that of the best constant.
    sizes = [layer.weights for layer in f.layers]
    alike = min(sizes) > 0.2 * max(sizes) or _find_saturation(f) is None
    early = f.verdict.kind != "minimum" and not f.relative_start_loss < 2.5
    return _finding_or_none(f.relative_weight_size > 4 and alike and early, f.relative_weight_size)


def _find_small_start_weights(f: Facts) -> Found:
    # Small initial weights are close to the saddle at theta = 0, and the gradient norm grows while
    # a run escapes from this saddle.
    known = f.steps.losses / max(f.constant_loss, MIN_NORMAL)
    norms = f.steps.norms
    if len(known) < 5 or not known[-1] < 0.9 or not f.hidden_layers:
        return None
    off = abs(f.relative_start_loss - 1)
    grown = len(norms) > 0 and bool(norms.max() > 5 * norms[0])
    stuck = float(np.mean(np.abs(known - 1) < 0.02)) > 0.25
    return _finding_or_none(off < 2e-3 and grown or off < 0.02 and stuck, off, SUSPECTED)


def _find_small_learning_rate(f: Facts) -> Found:
    s = f.steps
    if s.rate is None or not s.rate > 0:
        return None
    # Adam and RMSProp move each weight by about the rate, so `way` estimates the distance.
    if s.has_adaptive_steps:
        way = s.rate * f.n_updates / f.initial_weight_size
        return _finding_or_none(way < 0.5, 1 / way)
    speed = s.rate * f.largest_curvature / (1 - s.momentum)
    return _finding_or_none(speed < 0.1, 1 / speed)


def _find_unscaled_targets(f: Facts) -> Found:
    size = np.sqrt(np.mean(f.weight[:, None] * np.square(f.y)))
    looked_for = f.link == "identity" and not f.is_stationary
    return _finding_or_none(looked_for and not 1 / 8 < size < 8, size, SUSPECTED)


def _find_wider_network(f: Facts) -> Found:
    loss = (f.network_losses or {}).get("wider", math.inf)
    return _finding_or_none(f.is_stationary and loss < 0.5 * f.loss, f.loss / max(loss, MIN_NORMAL))


def _find_too_few_units(f: Facts) -> Found:
    if "wider" in (f.network_losses or {}):
        return None
    left = (1 - f.explained_variance) / max(1 - f.attainable_variance, 1e-3)
    return _finding_or_none(
        f.is_stationary, left, MEASURED if f.verdict.kind == "minimum" else SUSPECTED
    )


def _find_simpler_network(f: Facts) -> Found:
    known = {name: loss for name, loss in (f.network_losses or {}).items() if name != "wider"}
    least = min(known.values(), default=math.inf)
    return _finding_or_none(len(f.hidden_layers) > 0 and least <= f.loss, least)


def _learning_rate_change(f: Facts) -> Change:
    """Return the change to Adam with a learning rate in proportion to the initial weights if the
    run used mini-batches, and otherwise to the default method, which has no learning rate.
    """
    if f.steps.batch is None:
        return Change()
    rate = float(f"{ADAM_STEP_RATIO * f.initial_weight_size:.2g}")
    return Change(method="adam", learning_rate=rate, batch_size=f.steps.batch)


def _numeric_loss_change(f: Facts) -> Change:
    return Change((*f.ob.model.sizes[:-1], 1), targets="standardized", loss="mse")


def _class_loss_change(f: Facts) -> Change:
    sizes = (*f.ob.model.sizes[:-1], len(f.values))
    return Change(sizes, targets="classes", loss="cross_entropy")


def _depth_change(f: Facts) -> Change:
    # Skip connections are possible only around layers of equal widths.
    equal_widths = len(set(f.ob.model.sizes[1:-1])) == 1
    return Change(residual=True) if equal_widths else Change(activation="tanh")


def _wider_network_change(f: Facts) -> Change:
    first, *hidden, last = f.ob.model.sizes
    sizes = (first, *(max(4 * m, 16) for m in hidden or [4]), last)
    return Change(sizes) if hidden else Change(sizes, activation="tanh")


@dataclass(frozen=True)
class Cause:
    """A possible cause of failing training, with its test and its advice.

    Attributes
    ----------
    name : str
        The name of the cause. Entries with the same name are different evidence for one cause.
    evidence : callable
        ``evidence(facts)``: the number for the sentence and how the cause was established, or None.
    sentence : str
        The sentence, with the placeholders ``{number}`` and, for the facts, ``{f}``.
    change : callable
        ``change(facts)``: the `Change` that corrects the cause. By default the same network is
        trained again from a new start.
    poor : bool
        True if the cause is tested only if the fit is poor.
    """

    name: str
    evidence: Callable[[Facts], Found]
    sentence: str
    change: Callable[[Facts], Change] = lambda f: Change()
    poor: bool = True


LOSS_UNFIT_CAUSE = "loss does not match the targets"
RATE_LARGE_CAUSE = "learning rate too large"
WEIGHTS_SMALL_CAUSE = "initial weights too small"
SADDLE_CAUSE = "saddle or copied units"
CAUSES: tuple[Cause, ...] = (
    Cause(
        LOSS_UNFIT_CAUSE,
        _find_classes_as_numbers,
        "the targets take {number} evenly spaced values, as class indices do, but the loss "
        "{f.ob.loss} is for regression",
        _class_loss_change,
        poor=False,
    ),
    Cause(
        LOSS_UNFIT_CAUSE,
        _find_numbers_as_labels,
        "the targets take {number} different values, most of them between 0 and 1, but the loss "
        "{f.ob.loss} is for the labels 0 and 1",
        _numeric_loss_change,
        poor=False,
    ),
    Cause(
        LOSS_UNFIT_CAUSE,
        # If class labels are rounded quantities, rows that are close in X have labels that are
        # close, but not equal.
        lambda f: _finding_or_none(
            f.link == "softmax"
            and f.ob.model.sizes[-1] >= 5
            and f.class_number_r2 - f.held_out_r2 > 0.2,
            100 * f.class_number_r2,
            SUSPECTED,
        ),
        "kernel regressions predict {number}% of the variance of the class indices, taken as "
        "numbers, on held-out rows. Of the classes themselves they predict much less. The targets "
        "may therefore be numbers, but the loss {f.ob.loss} is for classes",
        _numeric_loss_change,
        poor=False,
    ),
    Cause(
        LOSS_UNFIT_CAUSE,
        _find_outliers,
        "at most 2% of the rows have {number}% of the squared deviations of the targets from their "
        "median, so the loss {f.ob.loss} is mostly that of these rows",
        lambda f: Change(targets="clipped"),
        poor=False,
    ),
    Cause(
        "labels shuffled",
        _find_shuffled_rows,
        "kernel regressions predict little or nothing of held-out targets. The correlation of "
        "predictions and targets is {number} standard errors above 0, as it may be by chance. X "
        "and y may be in different orders, y may be mostly noise, or there may be too few rows",
        lambda f: Change(action="join_rows"),
        poor=False,
    ),
    Cause(
        "no minimum without l2",
        lambda f: _finding_or_none(f.has_no_minimum, f.loss, PROVED),
        "the loss has no minimum. From {number} at theta, it decreases without end along a ray",
        lambda f: Change(l2=1e-4, l2_biases=True),
        poor=False,
    ),
    Cause(
        "one feature on a different scale",
        partial(_find_column_scale, alone=True),
        "the root mean square of one column of X is {number} times the median root mean square of "
        "the other columns",
        lambda f: Change(inputs="standardized"),
        poor=False,
    ),
    Cause(
        "inputs unscaled",
        partial(_find_column_scale, alone=False),
        "the columns of X have root mean squares from {f.smallest_column_rms:.3g} to "
        "{f.largest_column_rms:.3g}; that of all their entries together is {number}. The norm of "
        "the column means is {f.offset:.2g} times that of the column standard deviations. The "
        "weights that `MLP.init` draws are for columns of mean 0 and variance 1",
        lambda f: Change(inputs="standardized"),
        poor=False,
    ),
    Cause(
        "l2 too large",
        _find_large_l2,
        "l2 = {number} is so large that weight decay determines the weights more than the data do",
        lambda f: Change(l2=1e-4),
        poor=False,
    ),
    Cause(
        RATE_LARGE_CAUSE,
        lambda f: _finding_or_none(
            f.was_not_finite
            or not np.isfinite(f.steps.losses).all()
            and f.relative_start_loss < 10,
            f.max_stable_learning_rate,
        ),
        "the run diverged. Learning rates below {number} are stable in the direction of the "
        "largest curvature measured",
        _learning_rate_change,
    ),
    Cause(
        RATE_LARGE_CAUSE,
        lambda f: _finding_or_none(
            f.steps.has_adaptive_steps and (f.steps.rate or 0.0) > f.initial_weight_size,
            (f.steps.rate or 0.0) / f.initial_weight_size,
        ),
        "each step moves every weight by about the learning rate, which is {number} times the "
        "typical size of an initial weight",
        _learning_rate_change,
    ),
    Cause(
        RATE_LARGE_CAUSE,
        _find_large_learning_rate,
        "losses of the history rise or are not finite. The learning rate is {number} times "
        "{f.max_stable_learning_rate:.3g}, the largest rate that is stable in the direction of the "
        "largest curvature",
        _learning_rate_change,
    ),
    Cause(
        RATE_LARGE_CAUSE,
        _find_long_first_step,
        "the first step, the learning rate times the gradient, is {number} times as long as the "
        "vector of initial weights",
        _learning_rate_change,
    ),
    Cause(
        RATE_LARGE_CAUSE,
        _find_rising_loss,
        "the loss rose during the run, and the last loss is {number} times the first. Rates below "
        "{f.max_stable_learning_rate:.3g} are stable in the direction of the largest curvature",
    ),
    Cause(
        "vanishing gradient with depth",
        _find_vanishing_gradient,
        "the gradient or the curvature of the first layer is {number} times smaller than that of "
        "the last layer",
        _depth_change,
    ),
    Cause(
        SADDLE_CAUSE,
        _find_copied_units,
        "{number}% of the units of a layer are copies of other units or have only zero weights. "
        "Gradient steps do not break this symmetry",
    ),
    Cause(
        SADDLE_CAUSE,
        lambda f: _finding_or_none(
            f.verdict.kind == "saddle" and f.relative_weight_size > 0.1,
            f.verdict.lambda_min,
            PROVED if f.verdict.certified else MEASURED,
        ),
        "theta is at a saddle, where the smallest eigenvalue of the Hessian is {number}",
        lambda f: Change(action="escape"),
    ),
    Cause(
        WEIGHTS_SMALL_CAUSE,
        lambda f: _finding_or_none(
            1e-200 < f.relative_weight_size < 0.3
            and bool(f.hidden_layers)  # without them there is no saddle at zero weights
            and f.verdict.kind != "minimum"
            and all(layer.biases < 0.5 for layer in f.hidden_layers),
            1 / max(f.relative_weight_size, MIN_NORMAL),
        ),
        "the weights are {number} times smaller than those that `MLP.init` draws, so theta is near "
        "the saddle at zero weights",
    ),
    Cause(
        WEIGHTS_SMALL_CAUSE,
        _find_small_start_weights,
        "the first loss equals that of the best constant outputs up to a fraction of {number}. "
        "This indicates a start near the saddle at zero weights, which training leaves slowly",
    ),
    Cause(
        "initial weights too large",
        _find_large_weights,
        "the weights are {number} times as large as those that `MLP.init` draws",
    ),
    Cause(
        "saturated units",
        _find_saturation,
        "{number}% of the outputs of a layer are saturated, so they hardly depend on its inputs",
    ),
    Cause(
        "dead relus",
        lambda f: _finding_or_none(f.dead_fraction >= 0.5, 100 * f.dead_fraction),
        "{number}% of the units of a layer are inactive on every row of X, so the data contribute "
        "no gradient to their weights",
    ),
    Cause(
        "learning rate too small",
        _find_small_learning_rate,
        "the loss would still decrease with a learning rate about {number} times as large",
    ),
    Cause(
        "targets unscaled",
        _find_unscaled_targets,
        "the targets have a root mean square of {number}, but the weights that `MLP.init` draws "
        "are for targets with a root mean square near 1",
        lambda f: Change(targets="standardized"),
    ),
    Cause(
        "batch too small",
        lambda f: _finding_or_none(
            f.steps.has_levelled_losses and f.noise > 4 * (f.steps.batch or np.inf),
            min(f.noise, f.ob.n_samples),
            SUSPECTED,
        ),
        "the noise in the gradient of a mini-batch of {f.steps.batch} rows exceeds the gradient of "
        "all rows. With {number} rows, the noise would be no larger than the gradient",
    ),
    Cause(
        "too few units",
        _find_wider_network,
        "training has stopped at a loss that is {number} times that of a wider network",
        _wider_network_change,
    ),
    Cause(
        "too few units",
        _find_too_few_units,
        "training has stopped. The network leaves {number} times as much of the variance of the "
        "targets unexplained as kernel regressions do on held-out rows",
        _wider_network_change,
    ),
    Cause(
        "a simpler network does as well",
        _find_simpler_network,
        "a linear or a shallower network reaches a loss of {number}, no higher than that at theta",
        lambda f: Change((f.ob.model.sizes[0], f.ob.model.sizes[-1]), activation="identity"),
    ),
)


# --------------------------------------------------------------------------------------------------
# The result.


@dataclass(frozen=True)
class Advice:
    """A cause of failure that applies, with advice.

    Attributes
    ----------
    name : str
        The name of the cause, as in the table of docs/diagnose.md.
    value : float
        The number in the sentence.
    confidence : str
        How the cause was established: ``proved``, ``measured`` or ``suspected``.
    sentence : str
        The evidence in words.
    change : Change
        The change that corrects the cause. ``change.apply(ob, theta)`` trains with this change.
    call : str
        The change as a call: an expression in fc, np, ob and theta, whose value is a result of
        `minimize`; for shuffled labels, an objective on rows X and y whose order is known.
    """

    name: str
    value: float
    confidence: str
    sentence: str
    change: Change
    call: str


@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis:
    """The causes of failing training and the advice for each, as returned by `diagnose`.

    Attributes
    ----------
    causes : list of Advice
        The causes that apply, in the order in which to correct them; empty if none was found.
    healthy : bool
        True if no cause was found.
    sentence : str
        The diagnosis in one sentence.
    verdict : CriticalPoint
        The verdict on theta, by `classify`.
    facts : Facts
        The measurements that the causes were tested with.
    wall_time : float
        Duration of the call in seconds.
    """

    causes: list[Advice]
    verdict: CriticalPoint
    facts: Facts
    wall_time: float
    _continuation: str = "Continue with fastcurv.minimize(ob, theta)."

    @property
    def healthy(self) -> bool:
        return not self.causes

    @property
    def sentence(self) -> str:
        if self.causes:
            first = self.causes[0]
            return f"{first.name.capitalize()} ({first.confidence}): {first.sentence}."
        if self.facts.is_good_fit:
            fits = (
                "the network fits the targets about as well as kernel regressions predict the "
                "targets of held-out rows, or better"
            )
            if self.verdict.kind == "not_critical":
                return f"No cause of failure was found: {fits}. Training has not converged."
            return f"Healthy: {fits}."
        return (
            "No cause of failure was found, but kernel regressions predict held-out rows better "
            f"than the network fits its training rows. {self._continuation}"
        )

    def __repr__(self) -> str:
        return "\n".join(
            [f"Diagnosis: {self.sentence}"]
            + [
                line
                for i, a in enumerate(self.causes, 1)
                for line in (f"  {i}. {a.name} ({a.confidence}): {a.sentence}.", f"     {a.call}")
            ]
            + [f"  {name:<11} {value}" for name, value in self.evidence()]
        )

    def _repr_html_(self) -> str:
        return html_table(
            self.sentence,
            ["cause", "how sure", "evidence", "what helps"],
            [[a.name, a.confidence, a.sentence, a.call] for a in self.causes],
        )

    def evidence(self) -> list[tuple[str, str]]:
        """Return the main measurements as a list of pairs of strings (name, measurement)."""
        f = self.facts
        at = self.verdict
        constant = format_number(f.constant_loss)
        explained = f"{f.explained_variance:.0%} of the targets' variance; kernel regressions "
        explained += f"predict {f.attainable_variance:.0%} of it on held-out rows"
        rows = [
            ("verdict", at.sentence),
            ("loss", f"{format_number(f.loss)}; with the best constant outputs {constant}"),
            ("explained", explained),
        ]
        if f.steps.rate:
            known = not f.steps.has_adaptive_steps and math.isfinite(f.max_stable_learning_rate)
            stable = f"; rates up to {format_number(f.max_stable_learning_rate)} are stable in the "
            stable += "direction of the largest curvature"
            named = f"{f.steps.method} with " if f.steps.method else ""
            rows.append(("rate", f"{named}{format_number(f.steps.rate)}{stable * known}"))
        # At a critical point the gradient consists of rounding errors.
        if np.isfinite(f.noise) and at.kind == "not_critical":
            some = f"equals the gradient at a mini-batch size of about {math.ceil(f.noise)}"
            every = "exceeds the gradient in mini-batches of any size"
            rows.append(("noise", some if f.noise <= f.ob.n_samples else every))
        ends = f.layers[0], f.layers[-1]
        first, last = (f"{layer.gradient:.1e}" for layer in ends)
        rows.append(
            ("gradient", f"root mean square {first} in the first layer, {last} in the last")
        )
        others = f.network_losses or {}
        return rows + [(n, f"loss {format_number(x)} of a {n} network") for n, x in others.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the causes, the verdict and the main measurements as a dict of values that JSON
        can represent.
        """
        f = self.facts
        names = (
            "constant_loss decay_penalty decay_imbalance explained_variance attainable_variance "
            "correlation_zscore class_number_r2 noise has_no_minimum was_not_finite"
        )
        numbers = {name: getattr(f, name) for name in names.split()}
        numbers |= {"stable": f.max_stable_learning_rate, "weights": f.relative_weight_size}
        plain = {k: v if v == v and abs(v) != math.inf else None for k, v in numbers.items()}
        return {
            "healthy": self.healthy,
            "sentence": self.sentence,
            "causes": [vars(a) | {"change": a.change.to_dict()} for a in self.causes],
            "value": f.loss,
            **plain,
            "layers": [vars(layer) for layer in f.layers],
            "network_losses": f.network_losses or {},
            "verdict": self.verdict.to_dict(),
            "wall_time": self.wall_time,
        }

    def plot(self, ax: Any = None) -> Any:
        """Plot the gradient and the curvature of each layer, and label each layer with its fraction
        of saturated or inactive units.

        If the verdict is not ``not_critical``, the weights relative to those of `MLP.init` are
        plotted instead of the gradient. This method needs matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that hold the curves.
        """
        ax = new_pyplot_axes() if ax is None else ax
        layers = self.facts.layers
        at = np.arange(1, len(layers) + 1)
        moving = self.verdict.kind == "not_critical"
        drawn = (
            {"gradient": "gradient"} if moving else {"weights": "weights over those of MLP.init"}
        )
        drawn["curvature"] = "curvature"
        for (name, label), colour in zip(drawn.items(), ("#0072B2", "#E69F00"), strict=True):
            sizes = np.array([getattr(layer, name) for layer in layers])
            ax.plot(at, np.where(sizes > 0, sizes, np.nan), "o-", color=colour, label=label)
        ax.set_yscale("log")
        names = [
            f"{i}" + (f"\n{max(layer.off * layer.bounded, layer.dead):.0%} off" if i < len(at) else
                      "\noutput") for i, layer in zip(at, layers)
        ]  # fmt: skip
        shown = slice(None, None, -(-len(at) // 8))
        ax.set_xticks(at[shown], names[shown])
        plain_numbers(ax.yaxis)
        ax.set(xlabel="layer", ylabel="root mean square by parameter")
        ax.set_title(self.causes[0].name if self.causes else "healthy")
        ax.legend(frameon=False)
        return ax


# --------------------------------------------------------------------------------------------------
# The function.


@with_nearest_rounding
def diagnose(
    ob: Any,
    theta: Any,
    history: Any = None,
    *,
    compare: bool = False,
    max_time: float | None = None,
) -> Diagnosis:
    """Diagnose why training failed or stalled, and return calls that help.

    Parameters
    ----------
    ob : Objective
        The objective, with its rows in memory, dense or sparse.
    theta : array_like, shape (n,)
        The point where training ended. If theta or its loss is not finite,
        ``ob.model.init(rng=0)`` is examined instead, and the learning rate is reported as a cause,
        listed after causes found in the data.
    history : optional
        A result of `minimize` or its ``history``, which include the method and the learning rate.
        Also a mapping with the key ``"loss"`` and optionally ``"gradient_norm"``, ``"iteration"``,
        ``"method"``, ``"learning_rate"``, ``"momentum"`` and ``"batch_size"``, or a list of losses.
        Without a history, learning rates are not examined.
    compare : bool
        Also train a linear, a shallower and a wider network, and report whether one fits as well.
    max_time : float, optional
        Seconds for the verdict and the networks of `compare`, which get 5 s each by default.

    Returns
    -------
    Diagnosis
        The causes that were found, in the order in which to correct them: each with its number,
        how it was established, and the call that corrects it.

    Raises
    ------
    TypeError, ValueError
        If `ob` has no model and rows, theta has another length, or `history` holds no losses.

    See Also
    --------
    classify : the verdict alone.
    minimize : The function that most of the returned calls use.

    Notes
    -----
    Cost: a verdict by `classify`, a gradient, a product with the Hessian, a gradient in parts and
    three forward passes, fewer than 10 gradients in all; and kernel regressions on at most 256
    rows. At most 2048 rows are examined one by one.

    Most causes are tested only if the fit is poor, that is, if the network leaves more of the
    targets' variance unexplained than a kernel ridge regression does on rows left out [1]_. Rows of
    weight 0 are ignored, and equal rows count once, with the sum of their weights. If the loss
    grows linearly, rows with outlying targets are left out of sums of squares. Causes are in causal
    order: data, loss, decay, rate, start, size. A learning rate is too large if it exceeds
    2 (1 + momentum), divided by the largest curvature [2]_.

    References
    ----------
    .. [1] D. M. Allen, The relationship between variable selection and data augmentation and a
           method for prediction, Technometrics 16, 1974.
    .. [2] B. T. Polyak, Some methods of speeding up the convergence of iteration methods, USSR
           Comput. Math. Math. Phys. 4, 1964.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.random.default_rng(0).uniform(-1, 1, (200, 2)) * [1, 1000]
    >>> ob = fc.Objective(fc.MLP([2, 16, 1]), X, np.sin(3 * X[:, 0]), loss="mse")
    >>> run = fc.minimize(ob, ob.model.init(rng=0), "sgd", learning_rate=1e-2, max_iter=100)
    >>> found = fc.diagnose(ob, run.x, run.history)
    >>> found.causes[0].name, found.causes[0].confidence
    ('one feature on a different scale', 'measured')
    """
    started = time.perf_counter()
    wanted = "a fastcurv.Objective with its rows in memory"
    require_attrs(ob, ("model", "hessian", "n_samples"), "ob", wanted, theta)
    require_attrs(ob.model, ("shapes", "check_theta", "init"), "ob.model", "a fastcurv.MLP")
    X = getattr(ob, "X", None)
    if not (isinstance(X, np.ndarray) or is_sparse(X)):
        raise TypeError(f"ob must be {wanted}, got {type_phrase(ob)} without rows in memory.")
    if max_time is not None:
        max_time = check_positive(max_time, "max_time")
    flat = theta if isinstance(theta, (list, tuple)) else as_numpy(theta, "theta")
    gone = isinstance(flat, np.ndarray) and flat.dtype.kind == "f" and not np.isfinite(flat).all()
    theta = flat if gone else ob.model.check_theta(theta)
    run_facts_from_history(history)  # an invalid history is rejected before any computation
    with np.errstate(all="ignore"):
        at = finite_point(ob, theta)
    lost = at is not theta
    verdict = classify(ob, at, max_time=max_time, progress=False)
    left = None if max_time is None else max_time - (time.perf_counter() - started)
    found = diagnose_with_verdict(
        ob, at, history, verdict, lost=lost, compare=compare, seconds=left
    )
    return replace(found, wall_time=time.perf_counter() - started)


def diagnose_with_verdict(
    ob: Any,
    theta: Any,
    history: Any,
    verdict: CriticalPoint,
    *,
    lost: bool = False,
    compare: bool = False,
    seconds: float | None = None,
) -> Diagnosis:
    """Return the diagnosis for a history and a known verdict on theta. `lost` is True if theta
    replaces a point that is not finite. If `compare` is True, other networks are trained too, for
    at most `seconds` seconds in total.
    """
    started = time.perf_counter()
    with np.errstate(all="ignore"), serial_blas_context(True):
        facts = measure_facts(ob, theta, run_facts_from_history(history), verdict, lost)
        if compare:
            facts = replace(facts, network_losses=compare_networks(facts, seconds))
        causes: dict[str, Advice] = {}
        for row in CAUSES:
            found = None if row.poor and facts.is_good_fit else row.evidence(facts)
            if found is not None and row.name not in causes:
                sentence = row.sentence.format(number=format_number(found[0]), f=facts)
                change = row.change(facts)
                call = change.python_call(facts.ob)
                causes[row.name] = Advice(row.name, *found, sentence, change, call)
    return Diagnosis(list(causes.values()), verdict, facts, time.perf_counter() - started)
