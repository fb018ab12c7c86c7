"""Measurements of a trained network and its run, made once for all causes that `diagnose` tests:
layers, steps, rows, and the fraction of the targets' variance that can be predicted from the rows.

This fraction is measured by the leave-one-out errors of kernel ridge regressions, which follow from
the inverse of one matrix, without a fit for each row (PRESS, Allen 1974).

Rows of weight 0 are ignored. Equal rows are merged to one row with the sum of their weights,
because otherwise a left-out row would be predicted from its copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...common.checks import check_positive_int, is_sparse
from ...common.errors import type_phrase
from ...common.linalg import NotFiniteError
from ...common.objectives import call_certificate, sample_weights
from ...common.read_only import FrozenRecord
from ...common.runtime import raise_if_interrupted
from ...critical.report import CriticalPoint
from ...optimize.minimize import minimize
from ...structure.parameters import l2_diagonal, merge_equal_rows, residual_branch_scale
from ...structure.saturation import saturation_counts
from ...structure.tables import MIN_NORMAL, activation_spec, loss_spec, one_hot

MAX_SAMPLED_ROWS = 2048  # maximum number of rows whose outputs and activations are computed
# maximum number of rows in kernel regressions, which need matrices of this size
MAX_KERNEL_REGRESSION_ROWS = 256
N_GRADIENT_BATCHES = 8  # number of parts into which the rows are divided to compare their gradients
# maximum difference of the weights of two units that count as copies, relative to the largest
# weight of the layer
EQUAL_UNITS_TOL = 1e-6


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
    off : float
        Fraction of the (row, unit) pairs whose ``|phi'|`` is at most 1% of its maximum. `off`,
        `dead`, `biases` and `copies` are 0 for the output layer.
    dead : float
        Fraction of the units whose ``|phi'|`` is at most 1% of its maximum on every row.
    biases : float
        Root mean square of b.
    copies : float
        Fraction of the units whose weights repeat those of another unit of the layer, or fraction
        of the units whose weights are all 0, whichever is larger.
    bounded : bool
        True if the activation is bounded, as a sigmoid is.
    """

    gradient: float
    curvature: float
    weights: float
    biases: float = 0.0
    off: float = 0.0
    dead: float = 0.0
    copies: float = 0.0
    bounded: bool = False


@dataclass(frozen=True)
class RunFacts:
    """The known properties of the run that led to theta.

    Attributes
    ----------
    losses, norms : ndarray
        Losses and gradient norms in the order of the records; may be empty.
    method : str or None
        Name of the method, None if unknown.
    rate, momentum : float or None
        The last learning rate, None if unknown, and the momentum.
    batch : int or None
        Number of rows in a mini-batch; None for all rows.
    records : ndarray
        Number of the iteration, or of the epoch, of each record.
    """

    losses: np.ndarray
    norms: np.ndarray
    records: np.ndarray
    method: str | None = None
    rate: float | None = None
    momentum: float = 0.0
    batch: int | None = None

    @property
    def has_adaptive_steps(self) -> bool:
        """True for Adam and RMSProp, whose steps move every weight by about the learning rate."""
        return self.method in ("adam", "rmsprop")

    @property
    def has_unstable_losses(self) -> bool:
        """True if there are at least three losses and one of them is not finite or above 1.1 times
        the first, or more than a fifth of them are higher than the loss before.
        """
        known = self.losses
        if len(known) < 3:
            return False
        if not np.isfinite(known).all():
            return True
        rises = float(np.mean(np.diff(known) > 1e-6 * np.abs(known[:-1])))
        return bool(known.max() > 1.1 * known[0] or rises > 0.2)

    @property
    def has_levelled_losses(self) -> bool:
        """True if there are at least four losses, all finite, and the second half of the records
        contributes at most 2% of the total decrease.
        """
        known = self.losses
        if len(known) < 4 or not np.isfinite(known).all():
            return False
        gain = known[0] - known[-1]
        return bool(known[len(known) // 2] - known[-1] <= 0.02 * gain)


@dataclass(frozen=True)
class Facts(FrozenRecord):
    """The measurements from which `diagnose` tests all causes.

    Attributes
    ----------
    ob : Objective
        The objective.
    loss, constant_loss : float
        The loss at theta with weight decay, and the loss of the best constant outputs without it.
    y, weight : ndarray
        Targets (rows, k) of the rows that are examined, and their weights, of mean 1; if `robust`,
        rows whose targets are beyond Tukey's outer fences are left out.
    robust : bool
        True if the loss grows in proportion to the residual, not to its square, so that squared
        errors of outliers do not measure the fit.
    decay_penalty, decay_imbalance : float
        ``l2 ||theta||^2``, and ``|g'theta|`` divided by this penalty. The second is 0 if the data
        term balances the decay along theta.
    explained_variance, attainable_variance : float
        Fraction of the variance of the targets (or class indicators) that the network explains, and
        the fraction that kernel regressions of the targets, or of the network's residuals, explain
        on left-out rows.
    correlation_zscore : float
        Largest correlation of the targets with predictions of kernel regressions on left-out rows,
        in standard errors.
    held_out_r2, class_number_r2 : float
        Fractions of the variance that kernel regressions explain on left-out rows: of the targets,
        and of the class indices, taken as quantities (NaN for regression).
    layers : list of LayerFacts
        The layers, from the first to the output layer.
    scales : ndarray, shape (d,)
        Root mean squares of the columns of X that vary.
    offset : float
        Norm of the means of the columns of X that vary, divided by the norm of their standard
        deviations.
    values : ndarray
        The distinct targets in ascending order if there is one output, else empty.
    noise : float
        Number of rows of a mini-batch whose gradient noise is as large as the gradient, or NaN.
    steps : RunFacts
        The known properties of the run.
    verdict : CriticalPoint
        The verdict on theta.
    has_no_minimum : bool
        True if the loss is proved to decrease without end along a ray.
    was_not_finite : bool
        True if theta or its loss was not finite; the facts are then those of
        ``ob.model.init(rng=0)``.
    network_losses : dict
        The loss of other networks, by name, if these were requested.
    """

    ob: Any
    loss: float
    constant_loss: float
    y: np.ndarray
    weight: np.ndarray
    robust: bool
    decay_penalty: float
    decay_imbalance: float
    explained_variance: float
    attainable_variance: float
    correlation_zscore: float
    held_out_r2: float
    class_number_r2: float
    layers: list[LayerFacts]
    scales: np.ndarray
    offset: float
    values: np.ndarray
    noise: float
    steps: RunFacts
    verdict: CriticalPoint
    has_no_minimum: bool
    was_not_finite: bool = False
    network_losses: dict[str, float] | None = None

    def is_fit_close(self, share: float) -> bool:
        """Return True if the fit is as good as that of kernel regressions, in three respects. The
        fraction of the variance that the network leaves unexplained is at most `share` times the
        fraction that the regressions leave on left-out rows, plus 3%. The loss is at most that of
        the best constant outputs. Weight decay is small or nearly in balance with the data.
        """
        idle = self.decay_penalty > 0.6 * self.constant_loss and self.decay_imbalance > 0.3
        close = 1 - self.explained_variance <= share * (1 - self.attainable_variance) + 0.03
        return close and not idle and self.loss <= self.constant_loss

    @cached_property
    def is_good_fit(self) -> bool:
        """True if the network leaves at most 1.3 times as much variance unexplained as kernel
        regressions leave on left-out rows; see `is_fit_close`.
        """
        return self.is_fit_close(1.3)

    @property
    def hidden_layers(self) -> list[LayerFacts]:
        """The hidden layers."""
        return self.layers[:-1]

    @property
    def smallest_column_rms(self) -> float:
        """The smallest root mean square of those columns of X that vary."""
        return float(self.scales.min(initial=math.inf))

    @property
    def largest_column_rms(self) -> float:
        """The largest root mean square of those columns of X that vary."""
        return float(self.scales.max(initial=0.0))

    @property
    def link(self) -> str:
        """The function that maps outputs to predictions: ``identity`` for regression, ``sigmoid``
        or ``softmax`` for classification.
        """
        return loss_spec(self.ob.loss).link

    @property
    def dead_fraction(self) -> float:
        """The fraction of units that are inactive on every row, in the hidden layer in which it is
        largest. Layers with bounded activations are left out; 0 if no layer remains.
        """
        return max((layer.dead for layer in self.hidden_layers if not layer.bounded), default=0.0)

    @property
    def saturated_fraction(self) -> float:
        """The fraction of (row, unit) pairs that are saturated, in the hidden layer with a bounded
        activation in which it is largest; 0 if there is no such layer.
        """
        return max((layer.off for layer in self.hidden_layers if layer.bounded), default=0.0)

    @property
    def is_stationary(self) -> bool:
        """True if the verdict is not ``not_critical``, or if the recorded losses have levelled out
        (`RunFacts.has_levelled_losses`).
        """
        return self.verdict.kind != "not_critical" or self.steps.has_levelled_losses

    @property
    def largest_curvature(self) -> float:
        """The largest absolute eigenvalue of the Hessian at theta, as given by the verdict."""
        return max(abs(self.verdict.lambda_max), abs(self.verdict.lambda_min))

    @property
    def max_stable_learning_rate(self) -> float:
        """The learning rate up to which gradient steps with the run's momentum are stable along the
        direction of the largest curvature.
        """
        return 2 * (1 + self.steps.momentum) / max(self.largest_curvature, MIN_NORMAL)

    @cached_property
    def relative_weight_size(self) -> float:
        """The geometric mean over the layers of `LayerFacts.weights`."""
        return float(np.exp(np.mean([np.log(max(l.weights, MIN_NORMAL)) for l in self.layers])))

    @property
    def initial_weight_size(self) -> float:
        """The median over layers of the root mean square of W as drawn by `MLP.init`."""
        return float(
            np.median([initial_weight_rms(self.ob.model, l) for l in range(len(self.layers))])
        )

    @property
    def initial_norm(self) -> float:
        """The norm of the vector of all weights, as drawn by `MLP.init`."""
        sizes = (m * k for m, k in self.ob.model.shapes)
        rms = (initial_weight_rms(self.ob.model, l) for l in range(len(self.layers)))
        return math.sqrt(sum(n * x * x for n, x in zip(sizes, rms, strict=True)))

    @property
    def relative_start_loss(self) -> float:
        """The first loss of the history, relative to that of the best constant outputs, or NaN
        without a history.
        """
        known = self.steps.losses
        return float(known[0] / max(self.constant_loss, MIN_NORMAL)) if len(known) else math.nan

    @property
    def n_updates(self) -> float:
        """The number of updates: iterations, or epochs times batches per epoch; at least 1."""
        count = self.steps.records[-1] if len(self.steps.records) else 0.0
        batches = 1 if self.steps.batch is None else -(-self.ob.n_samples // self.steps.batch)
        return max(1.0, float(count) * batches)


def initial_weight_rms(model: Any, layer: int) -> float:
    """Return the root mean square of a layer's W as drawn by `MLP.init`."""
    m, k = model.shapes[layer]
    like_relu = layer < len(model.activation) and activation_spec(model.activation[layer]).like_relu
    return math.sqrt(2 / k if like_relu else 2 / (k + m)) * residual_branch_scale(model, layer)


def run_facts_from_history(history: Any) -> RunFacts:
    """Return the `RunFacts` of a history: a result of `minimize`, its history, a mapping of the
    same form, a list of losses, or None. Raise ValueError if a mapping holds no losses.
    """
    # `history` may be a result of `minimize`, whose attribute `history` holds the records.
    records = getattr(history, "history", history)
    records = (
        records if isinstance(records, Mapping) else {"loss": [] if records is None else records}
    )
    method = getattr(records, "method", None) or getattr(history, "method", None)
    if "loss" not in records:
        raise ValueError(
            "history must hold losses, as a list or as 'loss' of a mapping, or be a result of "
            f"fastcurv.minimize, got {', '.join(map(str, records)) or 'nothing'}."
        )
    if not isinstance(method, str):
        method = records.get("method")
    options: dict[str, Any] = dict(getattr(records, "options", None) or {})
    options |= {name: records[name] for name in records if name in ("momentum", "batch_size")}
    rate = records.get("learning_rate", options.get("learning_rate"))
    losses = _record_as_floats(records["loss"], "loss")
    norms = _record_as_floats(records.get("gradient_norm", ()), "gradient_norm")
    rates = _record_as_floats(() if rate is None else rate, "learning_rate")
    size = options.get("batch_size")
    default = {"momentum": 0.9, "nesterov": 0.9}.get(str(method), 0.0)
    return RunFacts(
        losses,
        norms,
        _record_as_floats(records.get("iteration", np.arange(len(losses))), "iteration"),
        method,
        float(rates[-1]) if rates.size else None,
        float(_record_as_floats(options.get("momentum") or default, "momentum")[-1]),
        None if size is None else check_positive_int(size, "batch_size of the history"),
    )


def _record_as_floats(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float).reshape(-1)
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


def _sample_rows(ob: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return at most `MAX_SAMPLED_ROWS` different rows of X as a dense matrix, their targets (rows,
    outputs), and their weights, scaled to mean 1.
    """
    rows = nonzero_weight_rows(ob)
    rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:MAX_SAMPLED_ROWS])]
    X = ob.X[rows]
    y = np.asarray(ob.y)[rows]
    X = np.asarray(X.toarray() if is_sparse(X) else X, dtype=float)
    weight = sample_weights(ob)[rows]
    weight = weight if weight.any() else np.ones(len(X))
    first, weight = merge_equal_rows(SimpleNamespace(X=X, y=y, sample_weight=weight))
    y = one_hot(y[first], ob.model.sizes[-1]).astype(float).reshape(len(first), -1)
    return X[first], y, weight / weight.mean()


def _weighted_mean(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the means of the columns of x (rows, k), weighted by `weight` (rows,), which has mean
    1.
    """
    return np.asarray((weight[:, None] * x).mean(axis=0))


def _weighted_sum_of_squares(x: np.ndarray, weight: np.ndarray) -> float:
    """Return the sum of the squares of x (rows, k), weighted by `weight` (rows,)."""
    return float((weight[:, None] * np.square(x)).sum())


def _has_linear_growth(ob: Any, y: np.ndarray) -> bool:
    """Return True if the loss grows in proportion to the residual, as pseudo_huber, log_cosh and
    quantile do.

    The test compares absolute slopes. Those at outputs of plus and minus 1000 (std(y) + 1) must be
    less than 10 times those at 10 (std(y) + 1). For squared errors they are 100 times larger. The
    first row of y is the target, since a user-defined loss may reject other values.
    """
    given = loss_spec(ob.loss).given
    if given is None or given.coupled:
        return False
    far = float(y.std()) + 1.0
    z = np.multiply.outer(
        [10 * far, -10 * far, 1000 * far, -1000 * far], np.ones(ob.model.sizes[-1])
    )
    slopes = np.abs(given(z, np.repeat(y[:1], 4, axis=0))[1]).sum(axis=1)
    near = slopes[:2].sum()
    away = slopes[2:].sum()
    return bool(0 < away < 10 * near)


def _outlier_free_mask(y: np.ndarray) -> np.ndarray:
    """Return a mask (rows,) of the rows whose targets y (rows, k) are all within Tukey's outer
    fences, at three interquartile ranges from the quartiles. A column whose quartiles are equal
    excludes no row.
    """
    low, high = np.quantile(y, [0.25, 0.75], axis=0)
    reach = np.where(high > low, 3 * (high - low), np.inf)
    return np.asarray(((low - reach <= y) & (y <= high + reach)).all(axis=1))


def _network_residuals(ob: Any, f: np.ndarray, y: np.ndarray, share: float) -> np.ndarray:
    """Return the residuals (rows, k): the targets y minus the means that the network predicts. The
    means are computed from the outputs f of the network.

    For a user-defined loss, outputs count as predictions if the slope of the loss vanishes where
    the outputs equal the targets. Otherwise the meaning of the outputs is unknown. Then the targets
    minus their mean are returned, scaled such that the fraction `share` of their variance remains.
    """
    row = loss_spec(ob.loss)
    if row.given is not None and not row.given.per_target and y.shape == f.shape:
        there, off = (np.abs(row.given(y + move, y)[1]).max() for move in (0.0, y.std() + 1.0))
        if there <= 1e-9 * off < math.inf:
            return np.asarray(y - f)
    if row.given is not None and not row.given.per_target:
        return np.asarray((y - y.mean(axis=0)) * math.sqrt(share if 0 <= share < math.inf else 1.0))
    if row.given is not None:
        f = f[:, : y.shape[1]]
        return np.asarray(y - (np.exp(f) if row.given.exponential else f))
    if row.link == "softmax":
        e = np.exp(f - f.max(axis=1, keepdims=True))
        return np.asarray(y - e / e.sum(axis=1, keepdims=True))
    return np.asarray(y - f if row.link == "identity" else -row.terms(f, y)[1])


def _kernel_regression_scores(
    X: np.ndarray, targets: list[np.ndarray], weight: np.ndarray | None = None
) -> list[tuple[float, float]]:
    """Compare kernel ridge regressions on left-out rows of X with the mean, for each matrix of
    targets (rows, k).

    For each matrix, return two numbers: the smallest squared error of the regressions, relative to
    that of the mean, and the largest correlation of their predictions with the targets, in standard
    errors. Squares are weighted by `weight` (rows,), but the regressions are not.
    """
    w = np.ones(len(X)) if weight is None else weight
    sd = X.std(axis=0)
    Z = (X[:, sd > 0] - X[:, sd > 0].mean(axis=0)) / sd[sd > 0]
    inner = Z @ Z.T / max(Z.shape[1], 1)
    square = np.diag(inner)
    apart = np.maximum(square[:, None] + square - 2 * inner, 0)
    usual = float(np.median(apart)) or 1.0
    kernels = [inner, np.exp(-apart / usual), np.exp(-apart / (0.1 * usual))]
    spread = [_weighted_sum_of_squares(y - _weighted_mean(y, w), w) for y in targets]
    joined = np.hstack(targets)
    ends = np.cumsum([0, *(y.shape[1] for y in targets)])
    found = [(1.0, 0.0) for _ in targets]
    for kernel in kernels:
        values, V = np.linalg.eigh(kernel + 1.0)
        coordinates = V.T @ joined
        for ridge in (1e-3, 1e-1, 3.0):
            inverse = 1 / (np.maximum(values, 0) + ridge)
            errors = (V * inverse) @ coordinates / ((V * V) @ inverse)[:, None]
            for i, y in enumerate(targets):
                if spread[i] <= 0:
                    continue
                error = errors[:, ends[i] : ends[i + 1]]
                guess = y - error
                wanted = y - _weighted_mean(y, w)
                guess = guess - _weighted_mean(guess, w)
                size = math.sqrt(_weighted_sum_of_squares(guess, w) * spread[i])
                seen = float((w[:, None] * guess * wanted).sum()) / size if size > 0 else 0.0
                share = _weighted_sum_of_squares(error, w) / spread[i]
                found[i] = min(found[i][0], share), max(found[i][1], seen * math.sqrt(len(y)))
    return found


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
    parts = [model.unflatten(np.nan_to_num(v)) for v in (theta, g, h)]
    layers = []
    for l, (own, slope, turn) in enumerate(zip(*parts, strict=True)):
        W, b, *_ = own
        layer = LayerFacts(
            _rms_of_parts(slope),
            _rms_of_parts(turn),
            _rms_of_parts([W]) / initial_weight_rms(model, l),
        )
        if l < len(masks):
            biases = np.zeros((len(W), 0)) if b is None else b[:, None]
            phi = activation_spec(model.activation[l])
            layer = replace(
                layer,
                biases=0.0 if b is None else _rms_of_parts([b]),
                off=float(pairs[l] / (len(X) * len(W))),
                dead=float((~masks[l]).mean()),
                copies=_redundant_unit_fraction(np.hstack([W, biases, parts[0][l + 1][0].T])),
                bounded=not phi.like_relu and not phi.homogeneous,
            )
        layers.append(layer)
    return layers


def _rms_of_parts(parts: Any) -> float:
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


def _gradient_noise_scale(ob: Any, theta: np.ndarray, g: np.ndarray) -> float:
    """Return the number of rows of a mini-batch whose gradient noise is as large as the gradient g.

    Return NaN if g is 0, if fewer than ``2 * N_GRADIENT_BATCHES`` rows have a weight, or if batches
    are not supported. Rows of weight 0 are left out. Since the loss is divided by the number of all
    rows, g is rescaled.
    """
    rows = nonzero_weight_rows(ob)
    N = len(rows)
    size = float(np.square(g, dtype=float).sum()) * (ob.n_samples / N) ** 2
    if N < 2 * N_GRADIENT_BATCHES or not hasattr(ob, "batch") or size == 0 or ob.model.batch_norm:
        return math.nan
    order = rows[np.random.default_rng(0).permutation(N)]
    parts = [
        ob.batch(np.sort(order[i::N_GRADIENT_BATCHES])).gradient(theta)
        for i in range(N_GRADIENT_BATCHES)
    ]
    between = float(np.var(np.array(parts, dtype=float), axis=0, ddof=1).sum())
    return float(between * (N / N_GRADIENT_BATCHES) / size)


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
    found = loss_spec(ob.loss).constant(y, shares / shares.sum(), ob.model.sizes[-1])
    return float(found)


def _may_have_infimum_at_infinity(ob: Any, y: np.ndarray, guess: np.ndarray) -> bool:
    """Return True if the infimum of the loss may lie at infinity. This is so if the minimum of the
    loss over the outputs is not attained, no weight decay prevents it, and the predictions `guess`
    classify all sampled rows correctly or a class is missing.
    """
    if loss_spec(ob.loss).attained or (np.max(ob.l2) > 0 and ob.l2_biases):
        return False
    if loss_spec(ob.loss).link == "softmax":
        right = np.all(y.argmax(axis=1) == guess.argmax(axis=1))
        return bool(right or np.any(y.sum(axis=0) == 0))
    return bool(np.all((y > 0.5) == (guess > 0.5)) or np.any(np.ptp(y, axis=0) == 0))


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
    )  # fmt: skip


def measure_facts(
    ob: Any, theta: np.ndarray, steps: RunFacts, verdict: CriticalPoint, lost: bool
) -> Facts:
    """Compute all facts at theta, for the known steps and verdict, from a gradient, a Hessian
    product, gradients of parts of the rows, kernel regressions and two forward passes. `lost` is
    True if theta replaces a point that is not finite.
    """
    H = ob.hessian(theta)
    g = np.asarray(H.gradient, dtype=float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], theta.size).astype(ob.dtype)
    at = theta.astype(float)
    decay = float(np.sum(l2_diagonal(ob) * at * at))
    X, y, w = _sample_rows(ob)
    robust = _has_linear_growth(ob, y)
    if robust and (near := _outlier_free_mask(y)).any():
        X = X[near]
        y = y[near]
        w = w[near] / w[near].mean()
    mean_weight = 1.0 if ob.sample_weight is None else float(np.mean(ob.sample_weight, dtype=float))
    constant = mean_weight * constant_loss(ob)
    known = ob.statistics(theta) if ob.model.batch_norm else None
    outputs = ob.model.predict(theta, X, known).astype(float)
    left = _network_residuals(ob, outputs, y, (float(H.value) - 0.5 * decay) / (constant or 1.0))
    spread = _weighted_sum_of_squares(y - _weighted_mean(y, w), w)
    few = np.sort(np.random.default_rng(0).permutation(len(y))[:MAX_KERNEL_REGRESSION_ROWS])
    wf = w[few]
    targets = [y[few], left[few]]
    if loss_spec(ob.loss).targets == "classes":
        targets.append(y[few] @ np.arange(y.shape[1])[:, None])
    (error, relation), (further, _), *ordered = _kernel_regression_scores(X[few], targets, wf)
    here = max(_weighted_sum_of_squares(y[few] - _weighted_mean(y[few], wf), wf), MIN_NORMAL)
    beside = (
        further * _weighted_sum_of_squares(left[few] - _weighted_mean(left[few], wf), wf) / here
    )
    mean = _weighted_mean(X, w)
    variance = _weighted_mean(np.square(X - mean), w)
    sd = np.sqrt(variance)
    varies = sd > 1e-12 * (np.abs(mean) + sd)
    return Facts(
        ob=ob,
        loss=float(H.value),
        constant_loss=constant,
        y=y,
        weight=w,
        robust=robust,
        decay_penalty=decay,
        decay_imbalance=abs(float(g @ at)) / max(decay, MIN_NORMAL),
        explained_variance=1 - _weighted_sum_of_squares(left, w) / spread if spread > 0 else 0.0,
        attainable_variance=1 - min(error, beside),
        correlation_zscore=max([relation, *(z for _, z in ordered)]),
        held_out_r2=1 - error,
        class_number_r2=1 - ordered[0][0] if ordered else math.nan,
        layers=_layer_facts(ob, theta, g, np.asarray(H @ signs), X),
        scales=np.sqrt(_weighted_mean(np.square(X[:, varies]), w)),
        offset=math.sqrt(np.square(mean[varies]).sum() / max(float(variance.sum()), MIN_NORMAL)),
        values=np.unique(y) if y.shape[1] == 1 else np.zeros(0),
        noise=_gradient_noise_scale(ob, theta, g),
        steps=steps,
        verdict=verdict,
        has_no_minimum=_may_have_infimum_at_infinity(ob, y, y - left)
        and call_certificate(ob, "ray_to_infimum", theta) is not None,
        was_not_finite=lost,
    )


def compare_networks(f: Facts, seconds: float | None) -> dict[str, float]:
    """Return the losses of a linear, a shallower and a wider network on the same rows, as a dict by
    name. The networks share `seconds` equally, or get at most 5 seconds each if `seconds` is None.
    A network whose loss is not finite at the start is left out.
    """
    first, *hidden, last = f.ob.model.sizes
    phi = f.ob.model.activation[0] if hidden else "tanh"
    others: dict[str, tuple[list[int], tuple[str, ...]]] = {"linear": ([first, last], ())}
    if len(hidden) > 1:
        others["shallower"] = ([first, max(hidden), last], (phi,))
    others["wider"] = ([first, *(4 * m for m in hidden or [4]), last], (phi,) * max(1, len(hidden)))
    share = 5.0 if seconds is None else max(seconds, 1e-2) / len(others)
    losses = {}
    for name, (sizes, activation) in others.items():
        model = type(f.ob.model)(sizes, activation, dtype=f.ob.dtype)
        ob = f.ob.with_model(model)
        options: dict[str, Any] = {"max_time": share, "max_iter": 2000, "verdict": False}
        # The loss of another network may not be finite at the start; this network is left out.
        with suppress(NotFiniteError):
            run = raise_if_interrupted(minimize(ob, model.init(rng=0), "l-bfgs", **options))
            losses[name] = float(run.fun)
    return losses
