"""The function `diagnose`: why training fails, and what helps.

Each cause is an entry of `CAUSES`: its evidence in the facts, a sentence with a number, and what
helps. They are in causal order: data, weight decay, rate, start, size. The first cause that applies
is named first, since inputs of a wrong scale saturate units and make any learning rate too large,
whereas a learning rate does not change the inputs. Causes are tested only if the fit is poor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...common.checks import as_numpy, check_positive, is_sparse
from ...common.errors import require_attrs, type_phrase
from ...common.runtime import serial_blas_context, with_nearest_rounding
from ...critical.classify import classify
from ...critical.report import CriticalPoint
from ...spectrum.results import format_number
from ...structure.tables import MIN_NORMAL
from .facts import Facts, finite_point, measure_facts, run_facts_from_history

RESTART = "Train from a new start, ob.model.init()."
SLOWER = "Use a lower rate, or fastcurv.minimize(ob), whose default method has no learning rate."


def _find_column_scale(f: Facts, alone: bool) -> float | None:
    """Return evidence for a wrong scale of columns of X, or None.

    A column is too large if its root mean square is above 8 or above 8 times the median. If no
    column is too large, those below 1/30 of the median are too small. If exactly one of several
    columns is too large or small, the number is its root mean square over the median of the others
    if `alone` is True, and the result is None if not. Otherwise `alone` must be False, and there is
    evidence if a column is too large, if the root mean square of all columns, the number, is not
    between 1/8 and 8, or if the norm of the means exceeds 8 times that of the standard deviations.
    """
    scales = f.scales
    if not len(scales):
        return None
    usual = np.median(scales)
    large = (scales > 8 * usual) | (scales > 8)
    odd = large if large.any() else scales < usual / 30
    if len(scales) > 1 and odd.sum() == 1:
        return float(scales[odd][0] / np.median(scales[~odd])) if alone else None
    total = float(np.sqrt(np.mean(scales**2)))
    far = large.any() or not 1 / 8 < total < 8 or f.offset > 8
    return total if far and not alone else None


def _find_target_scale(f: Facts) -> float | None:
    far = f.target_rms > 8 or f.target_rms < 1 / 8
    return f.target_rms if far and f.verdict.kind == "not_critical" else None


def _find_large_l2(f: Facts) -> float | None:
    # A fit needs about four paths through the network, each with weights of norm 1 in every layer.
    # `needed` is the decay of these weights, relative to the loss of the best constant.
    l2 = float(np.max(f.ob.l2))
    needed = 0.5 * l2 * 4 * len(f.layers) / max(f.constant_loss, MIN_NORMAL)
    held = f.relative_weight_size < 0.2 and needed > 0.15
    falling = needed > 0.5 and 0.3 < f.decay_imbalance < 1.5
    heavy = f.decay_penalty > 0.25 * max(f.data_loss, MIN_NORMAL) and f.decay_imbalance < 0.3
    settled = needed > 0.02 and heavy and f.loss > 0.95 * f.constant_loss
    return l2 if held or falling or settled else None


def _find_divergence(f: Facts) -> float | None:
    lost = not np.isfinite(f.steps.losses).all() and f.relative_start_loss < 10
    return f.max_stable_learning_rate if f.was_not_finite or lost else None


def _find_large_adaptive_rate(f: Facts) -> float | None:
    ratio = (f.steps.rate or 0.0) / f.initial_weight_size
    return ratio if f.steps.has_adaptive_steps and ratio > 1 else None


def _find_large_rate(f: Facts) -> float | None:
    s = f.steps
    if not f.relative_start_loss < 10 or s.has_adaptive_steps or not s.has_unstable_losses:
        return None
    overshoot = math.inf if s.rate is None else s.rate / f.max_stable_learning_rate
    jumped = s.losses.max() > 1.3 * max(s.losses[0], f.constant_loss)
    return overshoot if overshoot > (0.5 if jumped else 2) else None


def _find_vanishing_gradient(f: Facts) -> float | None:
    # If the gradient of the last layer is nearly 0 too, as after its biases have been fitted, only
    # the ratio of the curvatures is large.
    first, last = f.layers[0], f.layers[-1]
    ratio = max(
        last.gradient / max(first.gradient, MIN_NORMAL),
        last.curvature / max(first.curvature, MIN_NORMAL),
    )
    usual = len(f.hidden_layers) >= 5 and 0.2 < f.relative_weight_size < 5
    return ratio if usual and ratio > 1000 and not _find_copied_units(f) else None


def _find_copied_units(f: Facts) -> float | None:
    # If a unit is inactive because of its bias, weight decay shrinks its weights to 0. Such units
    # are equal although the start was not symmetric.
    alive = (layer for layer in f.hidden_layers if not (layer.dead >= 0.5 and layer.biases > 0.5))
    share = max((layer.copies for layer in alive), default=0.0)
    return 100 * share if share >= 0.5 and f.verdict.kind != "minimum" else None


def _find_saddle(f: Facts) -> float | None:
    return float(f.verdict.lambda_min) if f.verdict.kind == "saddle" else None


def _find_small_weights(f: Facts) -> float | None:
    # At a minimum and without hidden layers there is no saddle at zero weights.
    near = f.hidden_layers and all(layer.biases < 0.5 for layer in f.hidden_layers)
    small = 1e-200 < f.relative_weight_size < 0.3 and f.verdict.kind != "minimum"
    return 1 / f.relative_weight_size if near and small else None


def _find_large_weights(f: Facts) -> float | None:
    # Large initial weights are recognised by a first loss far above that of the best constant,
    # since weights may also grow large in training.
    early = f.verdict.kind != "minimum" and not f.relative_start_loss < 2.5
    sizes = [layer.weights for layer in f.layers]
    alike = min(sizes) > 0.2 * max(sizes) or _find_saturation(f) is None
    return f.relative_weight_size if f.relative_weight_size > 4 and early and alike else None


def _find_saturation(f: Facts) -> float | None:
    share = max((layer.saturated for layer in f.hidden_layers), default=0.0)
    return 100 * share if share > 0.6 and f.verdict.kind != "minimum" else None


def _find_dead_units(f: Facts) -> float | None:
    share = max((layer.dead for layer in f.hidden_layers), default=0.0)
    return 100 * share if share >= 0.5 else None


def _find_small_rate(f: Facts) -> float | None:
    s = f.steps
    if s.rate is None or not s.rate > 0 or s.has_adaptive_steps:
        return None
    speed = s.rate * f.largest_curvature / (1 - s.momentum)
    return 1 / speed if speed < 0.1 else None


class Cause(NamedTuple):
    """A possible cause of failing training.

    Attributes
    ----------
    name : str
        The name of the cause. Entries with the same name are different evidence for one cause.
    evidence : callable
        ``evidence(facts)``: the number for the sentence, or None if the cause does not apply.
    sentence : str
        The sentence, with the placeholders ``{number}`` and, for the facts, ``{f}``.
    cure : str
        What helps, in a sentence.
    """

    name: str
    evidence: Callable[[Facts], float | None]
    sentence: str
    cure: str


CAUSES = (
    Cause(
        "one feature on a different scale",
        lambda f: _find_column_scale(f, True),
        "the root mean square of one column of X is {number} times the median root mean square of "
        "the other columns",
        "Give the columns of X mean 0 and variance 1.",
    ),
    Cause(
        "inputs unscaled",
        lambda f: _find_column_scale(f, False),
        "the root mean square of all entries of X is {number}, and the norm of the column means is "
        "{f.offset:.2g} times that of the column standard deviations. The weights that `MLP.init` "
        "draws are for columns of mean 0 and variance 1",
        "Give the columns of X mean 0 and variance 1.",
    ),
    Cause(
        "targets unscaled",
        _find_target_scale,
        "the targets have a root mean square of {number}, but the weights that `MLP.init` draws "
        "are for targets with a root mean square near 1",
        "Give the targets mean 0 and variance 1.",
    ),
    Cause(
        "l2 too large",
        _find_large_l2,
        "l2 = {number} is so large that weight decay determines the weights more than the data do",
        "Use a smaller l2, such as 1e-4.",
    ),
    Cause(
        "learning rate too large",
        _find_divergence,
        "the run diverged. Learning rates below {number} are stable in the direction of the "
        "largest curvature measured",
        SLOWER,
    ),
    Cause(
        "learning rate too large",
        _find_large_adaptive_rate,
        "each step moves every weight by about the learning rate, which is {number} times the "
        "typical size of an initial weight",
        SLOWER,
    ),
    Cause(
        "learning rate too large",
        _find_large_rate,
        "losses of the history rise. The learning rate is {number} times "
        "{f.max_stable_learning_rate:.3g}, the largest rate that is stable in the direction of the "
        "largest curvature",
        SLOWER,
    ),
    Cause(
        "vanishing gradient with depth",
        _find_vanishing_gradient,
        "the gradient or the curvature of the first layer is {number} times smaller than that of "
        "the last layer",
        "Use MLP(..., residual=True), fewer layers, or tanh in place of sigmoid.",
    ),
    Cause(
        "saddle or copied units",
        _find_copied_units,
        "{number}% of the units of a layer are copies of other units or have only zero weights. "
        "Gradient steps do not break this symmetry",
        RESTART,
    ),
    Cause(
        "saddle or copied units",
        _find_saddle,
        "theta is at a saddle, where the smallest eigenvalue of the Hessian is {number}",
        "Use fastcurv.escape(ob, theta) to leave it, and train on.",
    ),
    Cause(
        "initial weights too small",
        _find_small_weights,
        "the weights are {number} times smaller than those that `MLP.init` draws, so theta is near "
        "the saddle at zero weights",
        RESTART,
    ),
    Cause(
        "initial weights too large",
        _find_large_weights,
        "the weights are {number} times as large as those that `MLP.init` draws",
        RESTART,
    ),
    Cause(
        "saturated units",
        _find_saturation,
        "{number}% of the outputs of a layer are saturated, so they hardly depend on its inputs",
        RESTART,
    ),
    Cause(
        "dead relus",
        _find_dead_units,
        "{number}% of the units of a layer are inactive on every row of X, so the data contribute "
        "no gradient to their weights",
        RESTART,
    ),
    Cause(
        "learning rate too small",
        _find_small_rate,
        "the loss would still decrease with a learning rate about {number} times as large",
        "Use a higher rate, or fastcurv.minimize(ob), whose default method has no learning rate.",
    ),
)


@dataclass(frozen=True)
class FoundCause:
    """A cause of failure that applies.

    Attributes
    ----------
    name : str
        The name of the cause, as in the table of docs/diagnose.md.
    value : float
        The number in the sentence.
    sentence : str
        The evidence in words.
    cure : str
        What helps, in a sentence.
    """

    name: str
    value: float
    sentence: str
    cure: str


@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis:
    """The causes of failing training and what helps, as returned by `diagnose`.

    Attributes
    ----------
    causes : list of FoundCause
        The causes that apply, in the order in which to correct them; empty if none was found.
    healthy : bool
        True if no cause was found.
    sentence : str
        The diagnosis in one sentence.
    verdict : CriticalPoint
        The verdict on theta, by `classify`.
    facts : Facts
        The measurements from which the causes follow.
    """

    causes: list[FoundCause]
    verdict: CriticalPoint
    facts: Facts

    @property
    def healthy(self) -> bool:
        return not self.causes

    @property
    def sentence(self) -> str:
        if self.causes:
            first = self.causes[0]
            return f"{first.name.capitalize()}: {first.sentence}. {first.cure}"
        share = f"{self.facts.data_loss / max(self.facts.constant_loss, MIN_NORMAL):.2g}"
        return f"No cause of failure was found. The loss is {share} times that of constant outputs."

    def evidence(self) -> list[tuple[str, str]]:
        """Return the main measurements as a list of pairs of strings (name, measurement)."""
        f = self.facts
        constant = format_number(f.constant_loss)
        rows = [
            ("verdict", self.verdict.sentence),
            ("loss", f"{format_number(f.loss)}; with the best constant outputs {constant}"),
        ]
        if f.steps.rate and not f.steps.has_adaptive_steps:
            stable = format_number(f.max_stable_learning_rate)
            rows.append(("rate", f"{format_number(f.steps.rate)}; rates up to {stable} are stable"))
        first, last = (f"{f.layers[i].gradient:.1e}" for i in (0, -1))
        rows.append(
            ("gradient", f"root mean square {first} in the first layer, {last} in the last")
        )
        return rows

    def __repr__(self) -> str:
        lines = [f"Diagnosis: {self.sentence}"]
        lines += [f"  {c.name}: {c.sentence}. {c.cure}" for c in self.causes[1:]]
        return "\n".join(lines + [f"  {name:<8} {value}" for name, value in self.evidence()])

    def to_dict(self) -> dict[str, Any]:
        """Return the causes, the verdict and the main measurements as a dict of values that JSON
        can represent.
        """
        f = self.facts
        names = (
            "loss constant_loss decay_penalty decay_imbalance offset target_rms "
            "max_stable_learning_rate relative_weight_size"
        )
        numbers = {name: float(getattr(f, name)) for name in names.split()}
        return {
            "healthy": self.healthy,
            "sentence": self.sentence,
            "causes": [vars(cause) for cause in self.causes],
            **{name: x if math.isfinite(x) else None for name, x in numbers.items()},
            "layers": [vars(layer) for layer in f.layers],
            "verdict": self.verdict.to_dict(),
        }


@with_nearest_rounding
def diagnose(
    ob: Any, theta: Any, history: Any = None, *, max_time: float | None = None
) -> Diagnosis:
    """Diagnose why training failed or stalled, and say what helps.

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
        Also a mapping with the key ``"loss"`` and optionally ``"method"``, ``"learning_rate"`` and
        ``"momentum"``, or a list of losses. Without a history, learning rates are not examined.
    max_time : float, optional
        Seconds for the verdict.

    Returns
    -------
    Diagnosis
        The causes that were found, in the order in which to correct them: each with its number, a
        sentence, and what helps.

    Raises
    ------
    TypeError, ValueError
        If `ob` has no model and rows, theta has another length, or `history` holds no losses.

    See Also
    --------
    classify : the verdict alone.
    minimize : Train, without a learning rate by default.

    Notes
    -----
    Cost: a verdict by `classify`, two gradients, a Hessian product and a forward pass of at
    most 2048 rows.

    Causes are tested only if the loss without weight decay is above a fifth of that of the best
    constant outputs, if weight decay still shrinks large weights, or at a saddle. They are in
    causal order: data, decay, rate, start, size. A learning rate is too large if it exceeds
    2 (1 + momentum), divided by the largest curvature [1]_.

    References
    ----------
    .. [1] B. T. Polyak, Some methods of speeding up the convergence of iteration methods, USSR
           Comput. Math. Math. Phys. 4, 1964.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.random.default_rng(0).uniform(-1, 1, (200, 2)) * [1, 1000]
    >>> ob = fc.Objective(fc.MLP([2, 16, 1]), X, np.sin(3 * X[:, 0]), loss="mse")
    >>> run = fc.minimize(ob, ob.model.init(rng=0), "sgd", learning_rate=1e-2, max_iter=100)
    >>> found = fc.diagnose(ob, run.x, run.history)
    >>> found.causes[0].name, found.causes[0].cure
    ('one feature on a different scale', 'Give the columns of X mean 0 and variance 1.')
    """
    wanted = "a fastcurv.Objective with its rows in memory"
    require_attrs(ob, ("model", "hessian", "n_samples"), "ob", wanted)
    require_attrs(ob.model, ("shapes", "check_theta", "init"), "ob.model", "a fastcurv.MLP")
    X = getattr(ob, "X", None)
    if not (isinstance(X, np.ndarray) or is_sparse(X)):
        raise TypeError(f"ob must be {wanted}, got {type_phrase(ob)} without rows in memory.")
    if max_time is not None:
        max_time = check_positive(max_time, "max_time")
    flat = theta if isinstance(theta, (list, tuple)) else as_numpy(theta, "theta")
    gone = isinstance(flat, np.ndarray) and flat.dtype.kind == "f" and not np.isfinite(flat).all()
    theta = flat if gone else ob.model.check_theta(theta)
    steps = run_facts_from_history(history)
    with np.errstate(all="ignore"):
        at = finite_point(ob, theta)
    verdict = classify(ob, at, max_time=max_time, progress=False)
    found: dict[str, FoundCause] = {}
    with np.errstate(all="ignore"), serial_blas_context(True):
        facts = measure_facts(ob, at, steps, verdict, at is not theta)
        for cause in () if facts.is_good_fit else CAUSES:
            number = cause.evidence(facts)
            if number is not None and cause.name not in found:
                sentence = cause.sentence.format(number=format_number(number), f=facts)
                found[cause.name] = FoundCause(cause.name, number, sentence, cause.cure)
    return Diagnosis(list(found.values()), verdict, facts)
