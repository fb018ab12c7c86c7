"""The weight decay and the stopping point of a fit with default parameters, chosen on held-out
rows.

A quarter of the rows is held out. For each decay of `TRIAL_DECAYS` or, for classes and labels, of
`CLASS_TRIAL_DECAYS`, from large to small, L-BFGS fits the other rows from the same start, until the
held-out loss has not fallen for a while. No smaller decay is tried after one that raised the lowest
held-out loss by more than `MAX_HELD_OUT_LOSS_INCREASE`. This stage runs in float32 if a gradient is
expensive. Then all rows are fitted with the decay of the lowest held-out loss, from the point that
had this loss: down to the loss that the fitted rows had at that point (Goodfellow, Bengio and
Courville, Deep Learning, 2016, algorithm 7.3), or to a minimum if the held-out loss fell to the
end.

The rows to hold out are chosen by a hash of their numbers, not by their position: a repeated row,
or one of weight 2, is held out with its copies, in any order of the rows, and no random number is
drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ...common.checks import is_sparse
from ...common.vectors import dot
from ...network.objective import Objective
from ...structure.parameters import layers_of
from ...structure.tables import loss_spec
from ..diagnosis.facts import constant_loss

TRIAL_DECAYS = (10.0, 1.0, 0.1, 1e-2, 1e-4)  # values of alpha that are tried, in this order
# Those for classes and labels. With smaller ones, the few held-out rows often chose an early point
# of a fit whose probabilities were overconfident: on 12 data sets in 3 scalings, the log loss was
# 7% higher in the geometric mean, at an accuracy 0.2% lower. Losses with an exponential of the
# outputs have the same floor, since a weakly penalised output is extrapolated exponentially.
CLASS_TRIAL_DECAYS = (10.0, 3.0, 1.0, 0.3)
# value of alpha if no rows are held out, as in scikit-learn, but for exponentials of the outputs
DEFAULT_DECAY = 1e-4
# maximum relative increase of the lowest held-out loss; after a larger one no smaller alpha is
# tried
MAX_HELD_OUT_LOSS_INCREASE = 0.02
MAX_ITER_PER_ALPHA = 1000  # maximum number of iterations for each alpha
MIN_FINAL_STEPS = 25  # minimum of the iteration limit for the fit of all rows
# About one in HELD_OUT_STRIDE distinct rows is held out, chosen by a hash of the row.
HELD_OUT_STRIDE = 4
MIN_HELD_OUT_ROWS = 10  # minimum number of distinct rows to hold out
# The search stops max(MIN_PATIENCE, PATIENCE_RATIO * t) iterations after an improvement at
# iteration t. The loss of fewer than LONG_PATIENCE_MAX_ROWS often rises for longer before it falls.
MIN_PATIENCE = 15
PATIENCE_RATIO = 0.5
LONG_PATIENCE_MAX_ROWS = 100.0
MIN_LONG_PATIENCE = 50
# minimum relative decrease of the held-out loss that counts as an improvement
MIN_RELATIVE_GAIN = 1e-3
# A cross entropy within this fraction of the lowest one counts as equal, since the accuracy still
# improves past the minimum of the cross entropy.
CROSS_ENTROPY_SLACK = 0.05
# A fit whose loss is above this fraction of the loss of the best constant prediction is on a
# plateau.
HELD_OUT_PLATEAU_LOSS_RATIO = 0.9
# maximum number of entries of a block of rows that is hashed at a time
HASH_BLOCK_MAX_ENTRIES = 1 << 20


class HeldOutMonitor:
    """A callback that records the loss of held-out rows and stores the best point: the one with the
    lowest loss or, for classification, the last one whose loss is within `CROSS_ENTROPY_SLACK` of
    the lowest.

    Parameters
    ----------
    fitted, held : Objective
        The objectives of the fitted rows and of the held-out rows, the latter without a penalty.
    theta : ndarray (n,)
        The start.
    count : float
        The number of held-out rows, repeated rows and weights included.
    """

    theta: np.ndarray  # best theta so far, by the held-out loss
    kept: int  # iteration at which `theta` was reached

    def __init__(
        self, fitted: Objective, held: Objective, theta: np.ndarray, count: float = np.inf
    ) -> None:
        self.fitted = fitted
        self.held = held
        self.theta = theta
        self.kept = 0
        self.count = 0
        # `mark` is lowered only by improvements of at least `MIN_RELATIVE_GAIN`.
        self.lowest = self.mark = held.value(theta)
        self.improved = 0  # iteration at which `mark` was last lowered
        few = count < LONG_PATIENCE_MAX_ROWS
        self.min_patience = MIN_LONG_PATIENCE if few else MIN_PATIENCE
        numbers = loss_spec(fitted.loss).targets == "numbers"
        self.slack = 0.0 if numbers else CROSS_ENTROPY_SLACK
        constant = constant_loss(fitted)
        self.plateau = constant - (1 - HELD_OUT_PLATEAU_LOSS_RATIO) * abs(constant)

    def __call__(self, at: Any) -> bool:
        """Record the held-out loss at the iterate `at`, and return True if the fit should end. The
        fit should end if it is not on a plateau, and the number of iterations since the last
        improvement exceeds `min_patience` and `PATIENCE_RATIO` times the iteration of that
        improvement.
        """
        self.count += 1
        loss = self.held.value(at.x)
        if loss < self.mark - MIN_RELATIVE_GAIN * abs(self.mark):
            self.mark = loss
            self.improved = self.count
        self.lowest = min(self.lowest, loss)
        if loss <= self.lowest + self.slack * abs(self.lowest):
            self.theta = at.x
            self.kept = self.count
        patience = max(self.min_patience, PATIENCE_RATIO * self.improved)
        waited = self.count - self.improved > patience
        return waited and at.fun - weight_penalty(self.fitted, at.x) < self.plateau


def weight_penalty(ob: Objective, theta: np.ndarray) -> float:
    """Return ``l2/2 ||W||^2``, the penalty in the value at theta of an objective without decay of
    biases.
    """
    return (
        0.5 * float(ob.l2) * sum(dot(W.ravel(), W.ravel()) for W, _ in layers_of(ob.model, theta))
    )


class DecayChoice(NamedTuple):
    """A weight decay, the result of the fit with this decay, and the `HeldOutMonitor` of the
    fit.
    """

    alpha: float
    run: Any
    watch: HeldOutMonitor

    @property
    def is_overfitting(self) -> bool:
        """True if the fit continued past the point with the lowest held-out loss."""
        return self.watch.kept < self.watch.count

    @property
    def max_final_steps(self) -> int:
        """The maximum number of iterations of the final fit to all rows."""
        return max(MIN_FINAL_STEPS, 2 * self.watch.count)

    @property
    def objective_at_best(self) -> float:
        """The value of the objective of the fitted rows at the point with the lowest held-out
        loss.
        """
        return float(self.watch.fitted.value(self.watch.theta))


def has_exponential(loss: Any) -> bool:
    """Return True if a built-in loss takes exponentials of the outputs as means or variances."""
    given = loss_spec(loss).given
    return given is not None and (given.exponential or (given.per_target or 1) > 1)


def needs_decay_floor(loss: Any) -> bool:
    """Return True if no decay below those of `CLASS_TRIAL_DECAYS` is chosen for the loss: that of
    classes or labels, or one with an exponential of the outputs.
    """
    return loss_spec(loss).targets != "numbers" or has_exponential(loss)


def default_decay(loss: Any) -> float:
    """Return the value of alpha for a loss if no rows are held out."""
    return CLASS_TRIAL_DECAYS[-1] if has_exponential(loss) else DEFAULT_DECAY


def choose_decay(
    fitted: Callable[[float], Objective],
    held: Objective,
    theta: np.ndarray,
    minimise: Callable[[Objective, np.ndarray, HeldOutMonitor], Any],
    count: float = np.inf,
) -> DecayChoice:
    """Return the decay with the lowest held-out loss, or the one at which the search was
    interrupted by the user.

    Parameters
    ----------
    fitted : callable
        ``fitted(alpha)`` is the objective of the rows that are not held out.
    held : Objective
        The objective of the held-out rows, without a penalty.
    theta : ndarray (n,)
        The start of each fit.
    minimise : callable
        ``minimise(ob, theta, watch)``, which runs L-BFGS until `watch` returns True.
    count : float
        The number of held-out rows, repeated rows and weights included.
    """
    best = None
    for alpha in CLASS_TRIAL_DECAYS if needs_decay_floor(held.loss) else TRIAL_DECAYS:
        watch = HeldOutMonitor(fitted(alpha), held, theta, count)
        found = DecayChoice(alpha, minimise(watch.fitted, theta, watch), watch)
        if found.run.stopped == "interrupted":
            return found
        lowest = np.inf if best is None else best.watch.lowest
        if best is None or watch.lowest < lowest:
            best = found
        if (
            watch.lowest > lowest + MAX_HELD_OUT_LOSS_INCREASE * abs(lowest)
            or found.run.stopped == "max_time"
        ):
            break
    assert best is not None
    return best


def held_out_mask(X: Any) -> np.ndarray | None:
    """Return a mask of the rows to hold out, or None if too few of them are distinct.

    The bits of a row's numbers, each multiplied by an odd constant for its column, are summed
    modulo 2^64 and mixed, so that equal rows have equal hashes, whether dense or sparse.
    """
    bits = np.uint32 if X.dtype.itemsize == 4 else np.uint64
    odd = np.random.default_rng(0).integers(1 << 63, size=X.shape[1], dtype=np.uint64) * 2 + 1
    if is_sparse(X):
        numbers = (X.data + X.dtype.type(0)).view(bits).astype(np.uint64)
        sums = csr_array((numbers, X.indices, X.indptr), X.shape) @ odd
    else:
        step = max(1, HASH_BLOCK_MAX_ENTRIES // X.shape[1])
        blocks = (np.ascontiguousarray(X[i : i + step]) + 0 for i in range(0, len(X), step))
        sums = np.concatenate([b.view(bits).astype(np.uint64, copy=False) @ odd for b in blocks])
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # finaliser of MurmurHash3
        sums ^= sums >> np.uint64(33)
        sums *= np.uint64(factor)
    out = (sums >> np.uint64(33)) % np.uint64(HELD_OUT_STRIDE) == 0
    return out if len(np.unique(sums[out])) >= MIN_HELD_OUT_ROWS else None
