"""Early stopping of a fit with default parameters, by rows held out.

A quarter of the rows is held out, and L-BFGS fits the others, at first with a strong penalty, which
keeps it from fitting single rows. The held-out loss falls as long as the fit learns what those rows
share with the others. Past its lowest point the fit goes on for a while, since that loss can rise
and fall again, unless all fitted rows are already classified with near certainty, so that they
teach nothing more. This stage runs in float32 if a gradient is expensive. Then all rows are fitted,
from the best point, down to the loss that the fitted rows had there (Goodfellow, Bengio and
Courville, Deep Learning, 2016, algorithm 7.3).

The rows to hold out are chosen by a hash of their numbers, not by their position: a repeated row,
or one of weight 2, is held out with its copies, in any order of the rows, and no random number is
drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ..common.checks import is_sparse
from ..common.vectors import dot
from ..network.objective import Objective
from ..optimize.facts import constant_loss
from ..structure.tables import LOSSES

HELD_OUT_STRIDE = 4  # one row in so many is held out
MIN_HELD_OUT_ROWS = 10  # distinct rows to hold out at least
PATIENCE, GROWTH = 30, 2  # wait max(PATIENCE, GROWTH * t) iterations past an improvement at t
MIN_RELATIVE_GAIN = 1e-3  # a relative gain of the held-out loss below this does not count
# a cross entropy within this of the lowest still counts: accuracy improves past it
CROSS_ENTROPY_SLACK = 0.05
# above this share of the loss of a constant prediction, a fit is on a plateau
PLATEAU_LOSS_RATIO = 0.9
# below this share of the same, the fitted rows are classified with near certainty
CERTAIN_LOSS_RATIO = 1e-2
# a fitted loss below this share of the held-out loss tells nothing about it
OVERFIT_LOSS_RATIO = 0.1
WEAK_PENALTY_RATIO = 1e-2  # a penalty below this share of the loss does not limit a fit
# a penalty above this share of the firm one limits a fit: no rows are held out
LIMITING_PENALTY_RATIO = 0.1
N_FIRST_ITERATIONS = 15  # iterations with the firm penalty
HASH_BLOCK_ENTRIES = 1 << 20  # size of a block of rows to hash, in numbers


class HeldOut:
    """A callback that watches the loss of held-out rows, and keeps the best point.

    Parameters
    ----------
    fitted, held : Objective
        The objectives of the fitted rows and of the held-out rows, the latter without a penalty.
    theta : ndarray (n,)
        The start.
    total : float
        The sum of the weights of the rows to be fitted.
    """

    theta: np.ndarray
    kept: int  # iteration of theta
    count: int
    lowest: float
    mark: float  # loss at the last improvement by more than `MIN_RELATIVE_GAIN`
    improved: int  # iteration of that improvement
    certain: bool  # the fitted rows teach nothing more

    def __init__(self, fitted: Objective, held: Objective, theta: np.ndarray, total: float) -> None:
        self.fitted, self.held, self.total = fitted, held, total
        row = LOSSES[fitted.loss]
        numbers = row.targets == "numbers"
        self.slack = MIN_RELATIVE_GAIN if numbers else CROSS_ENTROPY_SLACK
        self.constant = constant_loss(fitted)
        self.told = 0.0 if numbers else CERTAIN_LOSS_RATIO * self.constant
        # if targets scale by s, the loss scales by s^2, and squared weights (balanced layers) by s
        scales = numbers and not (row.given and row.given.logarithmic)
        firm = 300.0 * abs(self.constant) ** 0.5 if scales else 3.0 * abs(self.constant)
        self.firm = firm / total
        self.restart(theta)

    @property
    def loose(self) -> bool:
        """True if the objective's own penalty is far below the firm one."""
        return float(self.fitted.l2) < LIMITING_PENALTY_RATIO * self.firm < np.inf

    def restart(self, theta: np.ndarray) -> None:
        """Reset to iteration 0."""
        self.theta, self.kept, self.count = theta, 0, 0
        self.lowest = self.mark = self.held.value(theta)
        self.improved, self.certain = 0, False

    def __call__(self, at: Any) -> bool:
        """Return whether the fit should end; called after every iteration."""
        self.count += 1
        loss = self.held.value(at.x)
        if loss < self.mark - MIN_RELATIVE_GAIN * abs(self.mark):
            self.mark, self.improved = loss, self.count
        self.lowest = min(self.lowest, loss)
        if loss <= self.lowest + self.slack * abs(self.lowest):
            self.theta, self.kept = at.x, self.count
        elif self.told and self.fitted.value(at.x) < min(self.told, OVERFIT_LOSS_RATIO * loss):
            self.certain = not self.bound
        wait = max(PATIENCE, GROWTH * self.improved)
        waited = self.count > N_FIRST_ITERATIONS and self.count - self.improved > wait
        return self.certain or (waited and not self.bound)

    @property
    def improves(self) -> bool:
        """True if too few steps have passed since the last improvement to say that the held-out
        loss falls no further.
        """
        return self.count - self.improved < max(PATIENCE, self.improved / 2)

    @property
    def bound(self) -> bool:
        """True if the penalty limits the fit, or it has not yet left a plateau."""
        ob, theta = self.fitted, self.theta
        value = ob.value(theta)
        squares = sum(dot(W.ravel(), W.ravel()) for W, _ in ob.model.unflatten(theta))
        plateau = value > below(self.constant, PLATEAU_LOSS_RATIO)
        return plateau or 0.5 * ob.l2 * squares > WEAK_PENALTY_RATIO * max(abs(value), self.told)


def below(loss: float, share: float) -> float:
    """Return that share of a loss; of a negative one, as far below it."""
    return loss * share if loss >= 0 else loss * (2 - share)


def unseen(X: Any) -> np.ndarray | None:
    """Return a mask of the rows to hold out; None if too few of them are distinct.

    The bits of a row's numbers, each multiplied by an odd constant for its column, are summed
    modulo 2^64 and mixed: equal rows get equal hashes, dense or sparse.
    """
    bits = np.uint32 if X.dtype.itemsize == 4 else np.uint64
    odd = np.random.default_rng(0).integers(1 << 63, size=X.shape[1], dtype=np.uint64) * 2 + 1
    if is_sparse(X):
        numbers = (X.data + X.dtype.type(0)).view(bits).astype(np.uint64)
        sums = csr_array((numbers, X.indices, X.indptr), X.shape) @ odd
    else:
        step = max(1, HASH_BLOCK_ENTRIES // X.shape[1])
        blocks = (np.ascontiguousarray(X[i : i + step]) + 0 for i in range(0, len(X), step))
        sums = np.concatenate([b.view(bits).astype(np.uint64, copy=False) @ odd for b in blocks])
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # finaliser of MurmurHash3
        sums ^= sums >> np.uint64(33)
        sums *= np.uint64(factor)
    out = (sums >> np.uint64(33)) % np.uint64(HELD_OUT_STRIDE) == 0
    return out if len(np.unique(sums[out])) >= MIN_HELD_OUT_ROWS else None


class StronglyPenalised:
    """An objective with a strong penalty on the weights, for the first iterations."""

    def __init__(self, ob: Objective, l2: float) -> None:
        self.ob, self.n_params, self.dtype = ob, ob.n_params, ob.dtype
        known = ob.certificates  # None where nothing is proved
        self.loss_lower_bound = -np.inf if known is None else known.loss_lower_bound
        self.added = np.zeros(ob.n_params, ob.dtype)
        for W, _ in ob.model.unflatten(self.added):
            W[...] = l2 - ob.l2

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return value and gradient."""
        value, gradient = self.ob.value_and_gradient(theta)
        pull = self.added * theta
        gradient += pull
        return value + 0.5 * dot(pull, theta), gradient

    def value(self, theta: np.ndarray) -> float:
        """Return the value."""
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient."""
        return self.value_and_gradient(theta)[1]


def firm_start(
    watch: HeldOut, steps: int, minimise: Callable[[Any, np.ndarray, int, Any], Any]
) -> list[Any]:
    """Run the first iterations with the firm penalty, and record the losses without it. Returns a
    list with the run, or an empty one if it ended near a constant prediction.

    Parameters
    ----------
    watch : HeldOut
        Called after every iteration; restarted if the run is discarded.
    steps : int
        Limit on iterations.
    minimise : callable
        ``minimise(ob, theta, steps, watch)``, which runs a solver on an objective.
    """
    theta = watch.theta
    losses = [watch.fitted.value(theta)]

    def follow(at: Any) -> bool:
        losses.append(watch.fitted.value(at.x))
        return watch(at)

    run = minimise(StronglyPenalised(watch.fitted, watch.firm), theta, steps, follow)
    run.history["loss"], run.fun = np.array(losses), losses[-1]
    if run.stopped == "interrupted" or run.fun < below(watch.constant, PLATEAU_LOSS_RATIO):
        return [run]
    watch.restart(theta)
    return []
