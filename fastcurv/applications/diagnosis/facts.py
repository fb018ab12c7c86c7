"""Measurements of a trained network and its run, from which `diagnose` derives causes.

Rows of weight 0 are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...common.checks import is_sparse
from ...common.errors import type_phrase
from ...common.objectives import sample_weights
from ...common.read_only import FrozenRecord
from ...critical.report import CriticalPoint
from ...structure.parameters import l2_diagonal, residual_branch_scale
from ...structure.saturation import saturation_counts
from ...structure.tables import MIN_NORMAL, activation_spec, loss_spec

MAX_SAMPLED_ROWS = 2048  # maximum number of rows whose activations are computed
# maximum difference of the weights of two units that count as copies, relative to the largest
# weight of the layer
EQUAL_UNITS_TOL = 1e-6
# maximum loss of a good fit, relative to that of the best constant outputs
GOOD_LOSS_RATIO = 0.2


@dataclass(frozen=True)
class LayerFacts:
    """Properties of one layer at theta.

    Attributes
    ----------
    gradient, curvature : float
        Root mean squares, over the layer's parameters, of the gradient and of the product of the
        Hessian with a random vector of signs.
    weights : float
        Root mean square of W, divided by its value in `MLP.init`.
    biases : float
        Root mean square of b. It is 0 for the output layer, as are the next three.
    saturated : float
        For a bounded activation, the fraction of the (row, unit) pairs whose ``|phi'|`` is at most
        1% of its maximum; 0 for others.
    dead : float
        For other activations, the fraction of the units whose ``|phi'|`` is at most 1% of its
        maximum on every row; 0 for bounded ones.
    copies : float
        Fraction of the units whose weights repeat those of another unit of the layer, or fraction
        of the units whose weights are all 0, whichever is larger.
    """

    gradient: float
    curvature: float
    weights: float
    biases: float = 0.0
    saturated: float = 0.0
    dead: float = 0.0
    copies: float = 0.0


@dataclass(frozen=True)
class RunFacts:
    """The known properties of the run that led to theta.

    Attributes
    ----------
    losses : ndarray
        Losses in the order of the records; may be empty.
    method : str or None
        Name of the method, None if unknown.
    rate : float or None
        The last learning rate, None if unknown.
    momentum : float
        The momentum.
    """

    losses: np.ndarray
    method: str | None
    rate: float | None
    momentum: float

    @property
    def has_adaptive_steps(self) -> bool:
        """True for Adam and RMSProp, whose steps move every weight by about the learning rate."""
        return self.method in ("adam", "rmsprop")

    @property
    def has_unstable_losses(self) -> bool:
        """True if there are at least three losses and one of them is not finite or above 1.1 times
        the first, or more than a fifth of them are higher than the loss before.
        """
        losses = self.losses
        if len(losses) < 3 or not np.isfinite(losses).all():
            return len(losses) >= 3
        rises = float(np.mean(np.diff(losses) > 1e-6 * np.abs(losses[:-1])))
        return bool(losses.max() > 1.1 * losses[0] or rises > 0.2)


@dataclass(frozen=True)
class Facts(FrozenRecord):
    """The measurements from which `diagnose` derives causes.

    Attributes
    ----------
    ob : Objective
        The objective.
    loss, constant_loss : float
        The loss at theta with weight decay, and the loss of the best constant outputs without it.
    decay_penalty, decay_imbalance : float
        ``l2 ||theta||^2``, and ``|g'theta|`` divided by this penalty. The second is 0 if the data
        term balances the decay along theta.
    scales : ndarray, shape (d,)
        Root mean squares of the columns of X that vary.
    offset : float
        Norm of the means of these columns, divided by the norm of their standard deviations.
    target_rms : float
        Root mean square of the targets of a regression, NaN for classes.
    layers : list of LayerFacts
        The layers, from the first to the output layer.
    steps : RunFacts
        The known properties of the run.
    verdict : CriticalPoint
        The verdict on theta.
    was_not_finite : bool
        True if theta or its loss was not finite; the facts are then those of
        ``ob.model.init(rng=0)``.
    """

    ob: Any
    loss: float
    constant_loss: float
    decay_penalty: float
    decay_imbalance: float
    scales: np.ndarray
    offset: float
    target_rms: float
    layers: list[LayerFacts]
    steps: RunFacts
    verdict: CriticalPoint
    was_not_finite: bool

    @property
    def is_good_fit(self) -> bool:
        """True if the loss without weight decay is at most `GOOD_LOSS_RATIO` times that of the best
        constant outputs, unless weight decay still shrinks large weights or theta is at a saddle.
        """
        idle = self.decay_penalty > 0.6 * self.constant_loss and self.decay_imbalance > 0.3
        low = self.data_loss <= GOOD_LOSS_RATIO * self.constant_loss
        return low and not idle and self.verdict.kind != "saddle"

    @property
    def data_loss(self) -> float:
        """The loss at theta without weight decay."""
        return self.loss - 0.5 * self.decay_penalty

    @property
    def hidden_layers(self) -> list[LayerFacts]:
        """The hidden layers."""
        return self.layers[:-1]

    @property
    def largest_curvature(self) -> float:
        """The largest absolute eigenvalue of the Hessian at theta, as given by the verdict."""
        return max(abs(self.verdict.lambda_max), abs(self.verdict.lambda_min), MIN_NORMAL)

    @property
    def max_stable_learning_rate(self) -> float:
        """The learning rate up to which gradient steps with the run's momentum are stable along the
        direction of the largest curvature.
        """
        return 2 * (1 + self.steps.momentum) / self.largest_curvature

    @cached_property
    def relative_weight_size(self) -> float:
        """The geometric mean over the layers of `LayerFacts.weights`."""
        return float(np.exp(np.mean([np.log(max(l.weights, MIN_NORMAL)) for l in self.layers])))

    @property
    def initial_weight_size(self) -> float:
        """The median over layers of the root mean square of W as drawn by `MLP.init`."""
        model = self.ob.model
        return float(np.median([initial_weight_rms(model, l) for l in range(len(self.layers))]))

    @property
    def relative_start_loss(self) -> float:
        """The first loss of the history, relative to that of the best constant outputs, or NaN
        without a history.
        """
        losses = self.steps.losses
        return float(losses[0] / max(self.constant_loss, MIN_NORMAL)) if len(losses) else math.nan


def initial_weight_rms(model: Any, layer: int) -> float:
    """Return the root mean square of a layer's W as drawn by `MLP.init`."""
    m, k = model.shapes[layer]
    like_relu = layer < len(model.activation) and activation_spec(model.activation[layer]).like_relu
    return math.sqrt(2 / k if like_relu else 2 / (k + m)) * residual_branch_scale(model, layer)


def run_facts_from_history(history: Any) -> RunFacts:
    """Return the `RunFacts` of a history: a result of `minimize`, its history, a mapping of the
    same form, a list of losses, or None. Raise ValueError if a mapping holds no losses.
    """
    records = getattr(history, "history", history)
    if not isinstance(records, Mapping):
        records = {"loss": () if records is None else records}
    if "loss" not in records:
        raise ValueError(
            "history must hold losses, as a list or as 'loss' of a mapping, or be a result of "
            f"fastcurv.minimize, got {', '.join(map(str, records)) or 'nothing'}."
        )
    known = {**(getattr(records, "options", None) or {}), **records}
    method = getattr(records, "method", None) or known.get("method")
    default = {"momentum": 0.9, "nesterov": 0.9}.get(str(method), 0.0)
    rates = _record_as_floats(known.get("learning_rate", ()), "learning_rate")
    return RunFacts(
        _record_as_floats(records["loss"], "loss"),
        method if isinstance(method, str) else None,
        float(rates[-1]) if rates.size else None,
        float(_record_as_floats(known.get("momentum") or default, "momentum")[-1]),
    )


def _record_as_floats(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(() if values is None else values, dtype=float).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{name} of the history must hold numbers, got {type_phrase(values)}."
        ) from None


def nonzero_weight_rows(ob: Any) -> np.ndarray:
    """Return the indices of the rows whose weight is not 0, or of all rows if all weights are 0."""
    weight = ob.sample_weight
    if weight is None or not np.any(weight):
        return np.arange(ob.n_samples)
    return np.flatnonzero(weight)


def _layer_facts(
    ob: Any, theta: np.ndarray, g: np.ndarray, h: np.ndarray, X: np.ndarray
) -> list[LayerFacts]:
    """Return a `LayerFacts` for each layer of the network at theta. g is the gradient, and h is the
    product of the Hessian with a random vector of signs. X holds the rows on which activations are
    computed.
    """
    model = ob.model
    rows = SimpleNamespace(model=model, X=X, sample_weight=None, loss=ob.loss)
    pairs, _, masks = saturation_counts(rows, theta)
    own, slopes, turns = (model.unflatten(np.nan_to_num(v)) for v in (theta, g, h))
    layers = []
    for l, (W, b, *_) in enumerate(own):
        facts = {"gradient": _rms(slopes[l]), "curvature": _rms(turns[l])}
        facts["weights"] = _rms([W]) / initial_weight_rms(model, l)
        if l < len(masks):
            biases = np.zeros((len(W), 0)) if b is None else b[:, None]
            phi = activation_spec(model.activation[l])
            if phi.like_relu or phi.homogeneous:
                facts["dead"] = float((~masks[l]).mean())
            else:
                facts["saturated"] = float(pairs[l] / (len(X) * len(W)))
            facts["biases"] = 0.0 if b is None else _rms([b])
            units = np.hstack([W, biases, own[l + 1][0].T])
            facts["copies"] = _redundant_unit_fraction(units)
        layers.append(LayerFacts(**facts))
    return layers


def _rms(parts: Any) -> float:
    values = np.concatenate([np.ravel(part) for part in parts if part is not None])
    return float(np.sqrt(np.mean(np.square(values, dtype=float))))


def _redundant_unit_fraction(units: np.ndarray) -> float:
    """Return the fraction of the units that repeat another unit, or the fraction of the units whose
    weights are all 0, whichever is larger. Each row of `units` holds all incoming and outgoing
    weights of a unit.
    """
    size = float(np.abs(units).max())
    if size == 0:
        return 1.0
    different = len(np.unique(np.round(units / (EQUAL_UNITS_TOL * size)), axis=0))
    zero = float(np.mean(np.abs(units).max(axis=1) <= EQUAL_UNITS_TOL * size))
    return max(1 - different / len(units), zero) if len(units) > 1 else zero


def constant_loss(ob: Any) -> float:
    """Return the loss of the best constant outputs, for weights of mean 1, without weight decay."""
    rows = nonzero_weight_rows(ob)
    weight = ob.sample_weight
    y = np.asarray(ob.y)[rows]
    shares = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=float)[rows]
    shares = shares if shares.any() else np.ones(len(y))
    if loss_spec(ob.loss).targets != "classes":
        y = y.reshape(len(y), -1).astype(float)
    elif y.ndim == 2:
        y, shares = np.tile(np.arange(y.shape[1]), len(y)), (y * shares[:, None]).ravel()
    return float(loss_spec(ob.loss).constant(y, shares / shares.sum(), ob.model.sizes[-1]))


def finite_point(ob: Any, theta: np.ndarray) -> np.ndarray:
    """Return theta if the point, its loss and its gradient are finite. Otherwise return the start
    drawn by `MLP.init`, scaled by powers of 0.1 or to 0 until they are finite. Raise ValueError if
    they never are.
    """
    start = ob.model.init(rng=0)
    for at in (theta, *(start * start.dtype.type(10.0**-k) for k in range(6)), 0 * start):
        if np.isfinite(at).all():
            value, g = ob.value_and_gradient(at)
            if np.isfinite(value) and np.isfinite(g).all():
                return np.asarray(at)
    raise ValueError(
        "ob must have a finite loss at theta or at theta = 0, got NaN or infinity at both."
    )


def measure_facts(
    ob: Any, theta: np.ndarray, steps: RunFacts, verdict: CriticalPoint, lost: bool
) -> Facts:
    """Compute all facts at theta, for the known steps and verdict, from a gradient, a Hessian
    product and a forward pass. `lost` is True if theta replaces a point that is not finite.
    """
    H = ob.hessian(theta)
    g = np.asarray(H.gradient, float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], theta.size).astype(ob.dtype)
    at = theta.astype(float)
    decay = float(np.sum(l2_diagonal(ob) * at * at))
    rows = nonzero_weight_rows(ob)
    rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:MAX_SAMPLED_ROWS])]
    X = np.asarray(ob.X[rows].toarray() if is_sparse(ob.X) else ob.X[rows], dtype=float)
    weight = sample_weights(ob)[rows]
    weight = weight if weight.any() else np.ones(len(X))
    mean = np.average(X, axis=0, weights=weight)
    variance = np.average(np.square(X - mean), axis=0, weights=weight)
    varies = np.sqrt(variance) > 1e-12 * (np.abs(mean) + np.sqrt(variance))
    scales = np.sqrt(np.average(np.square(X[:, varies]), axis=0, weights=weight))
    target_rms = math.nan
    if loss_spec(ob.loss).link == "identity":
        squares = np.square(np.asarray(ob.y, float)[rows].reshape(len(rows), -1)).mean(axis=1)
        target_rms = math.sqrt(np.average(squares, weights=weight))
    mean_weight = 1.0 if ob.sample_weight is None else float(np.mean(ob.sample_weight, dtype=float))
    return Facts(
        ob=ob,
        loss=float(H.value),
        constant_loss=mean_weight * constant_loss(ob),
        decay_penalty=decay,
        decay_imbalance=abs(float(g @ at)) / max(decay, MIN_NORMAL),
        scales=scales,
        offset=math.sqrt(np.square(mean[varies]).sum() / max(float(variance.sum()), MIN_NORMAL)),
        target_rms=target_rms,
        layers=_layer_facts(ob, theta, g, np.asarray(H @ signs), X),
        steps=steps,
        verdict=verdict,
        was_not_finite=lost,
    )
