"""Where a fit by defaults begins and ends: rows that it does not see say how far to go.

A quarter of the rows is held out, and L-BFGS fits the others, its first steps under a firm penalty,
which keeps them from fitting single rows. The loss of the rows held out falls as long as the fit
learns what they share with the others. Past its lowest point the fit waits, since that loss can
rise for a while and fall again, unless the classes of all its rows are told: it learns no more from
them. Up to here float32 serves where a gradient takes long. Then all the rows are fitted, from the
lowest point on, to the loss that the others had there (Goodfellow, Bengio and Courville, Deep
Learning, 2016, algorithm 7.3).

Which rows are held out is decided by what stands in them and not by where they stand: a row that
is there twice, or has a weight of 2, is held out with its copies, in any order of the rows, and no
random number is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ..common.checks import is_sparse
from ..common.vectors import dot
from ..network.objective import Objective

ONE_IN = 4  # rows is held out
FEWEST = 10  # distinct rows held out, below which they say nothing
PATIENCE, GROWTH = 30, 2  # iterations past the lowest loss t, and their least multiple of t
FLAT = 1e-3  # of the loss held out: a smaller gain is none
SLACK = 0.05  # of the same: so far past the lowest cross entropy, classes are told apart better
LEARNT = 0.9  # of the loss of a constant prediction: above it a fit rests on a plateau
CERTAIN = 1e-2  # of the same: below it the classes of the rows that are fitted are told
UNSEEN = 0.1  # of the loss held out: a loss below it says nothing of that one any more
WEAK = 1e-2  # of the loss: a penalty below it does not hold a fit
WEAKER = 0.1  # of the firm penalty: one above it holds a fit to its end
FIRST = 15  # iterations with it
BLOCK = 1 << 20  # numbers whose bits are taken at a time


class HeldOut:
    """Watch the loss of rows held out, and keep the point to go on from.

    Parameters
    ----------
    fitted, held : Objective
        Of the rows that are fitted, and of the others, without a penalty.
    theta : ndarray (n,)
        The start.
    total : float
        The number of rows that are fitted, repeated ones counted: the sum of the weights.
    """

    theta: np.ndarray
    kept: int  # the iteration that theta is of
    count: int
    lowest: float
    mark: float  # the last loss that fell by more than `FLAT` of it
    improved: int  # the iteration that it is of
    certain: bool  # whether the rows that are fitted teach no more

    def __init__(self, fitted: Objective, held: Objective, theta: np.ndarray, total: float) -> None:
        self.fitted, self.held, self.total = fitted, held, total
        self.slack = FLAT if fitted.loss == "mse" else SLACK
        self.constant = constant_loss(fitted)
        self.told = 0.0 if fitted.loss == "mse" else CERTAIN * self.constant
        # with the targets times s the loss goes as s^2, and the squares of balanced weights as s
        firm = 300.0 * self.constant**0.5 if fitted.loss == "mse" else 3.0 * self.constant
        self.firm = firm / total
        self.restart(theta)

    @property
    def loose(self) -> bool:
        """Whether the objective's own penalty is far below a firm one."""
        return float(self.fitted.l2) < WEAKER * self.firm < np.inf

    def restart(self, theta: np.ndarray) -> None:
        """Begin at iteration 0."""
        self.theta, self.kept, self.count = theta, 0, 0
        self.lowest = self.mark = self.held.value(theta)
        self.improved, self.certain = 0, False

    def __call__(self, at: Any) -> bool:
        """Return whether the fit has come to its end; asked after every iteration."""
        self.count += 1
        loss = self.held.value(at.x)
        if loss < self.mark * (1 - FLAT):
            self.mark, self.improved = loss, self.count
        self.lowest = min(self.lowest, loss)
        if loss <= self.lowest * (1 + self.slack):
            self.theta, self.kept = at.x, self.count
        elif self.told and self.fitted.value(at.x) < min(self.told, UNSEEN * loss):
            self.certain = not self.bound
        wait = max(PATIENCE, GROWTH * self.improved)
        waited = self.count > FIRST and self.count - self.improved > wait
        return self.certain or (waited and not self.bound)

    @property
    def bound(self) -> bool:
        """Whether the penalty holds the fit, or it has not yet left a plateau."""
        ob, theta = self.fitted, self.theta
        value = ob.value(theta)
        squares = sum(dot(W.ravel(), W.ravel()) for W, _ in ob.model.unflatten(theta))
        plateau = value > LEARNT * self.constant
        return plateau or 0.5 * ob.l2 * squares > WEAK * max(value, self.told)


def unseen(X: Any) -> np.ndarray | None:
    """Return a mask of the rows to hold out; None where too few are distinct.

    The bits of a row's numbers, each times an odd number of its column, are summed modulo 2^64 and
    mixed: equal rows are dealt alike, dense or sparse.
    """
    bits = np.uint32 if X.dtype.itemsize == 4 else np.uint64
    odd = np.random.default_rng(0).integers(1 << 63, size=X.shape[1], dtype=np.uint64) * 2 + 1
    if is_sparse(X):
        numbers = (X.data + X.dtype.type(0)).view(bits).astype(np.uint64)
        sums = csr_array((numbers, X.indices, X.indptr), X.shape) @ odd
    else:
        step = max(1, BLOCK // X.shape[1])
        blocks = (np.ascontiguousarray(X[i : i + step]) + 0 for i in range(0, len(X), step))
        sums = np.concatenate([b.view(bits).astype(np.uint64, copy=False) @ odd for b in blocks])
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # the last rounds of MurmurHash3
        sums ^= sums >> np.uint64(33)
        sums *= np.uint64(factor)
    out = (sums >> np.uint64(33)) % np.uint64(ONE_IN) == 0
    return out if len(np.unique(sums[out])) >= FEWEST else None


class Firm:
    """An objective under a firm penalty, by its own state."""

    def __init__(self, ob: Objective, l2: float) -> None:
        self.ob, self.n_params, self.dtype = ob, ob.n_params, ob.dtype
        self.loss_lower_bound, self.keeps_theta = 0.0, True
        self.added = np.zeros(ob.n_params, ob.dtype)
        for W, _ in ob.model.unflatten(self.added):
            W[...] = l2 - ob.l2

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Both at once."""
        value, gradient = self.ob.value_and_gradient(theta)
        pull = self.added * theta
        gradient += pull
        return value + 0.5 * dot(pull, theta), gradient

    def value(self, theta: np.ndarray) -> float:
        """The value alone."""
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """The gradient alone."""
        return self.value_and_gradient(theta)[1]


def firm_start(
    watch: HeldOut, steps: int, minimise: Callable[[Any, np.ndarray, int, Any], Any]
) -> list[Any]:
    """Return a first run under a firm penalty, with the losses that it has without; none where it
    leads back to a constant prediction.

    Parameters
    ----------
    watch : HeldOut
        Asked after every iteration.
    steps : int
        Iterations at most.
    minimise : callable
        ``minimise(ob, theta, steps, watch)``, a short run of an objective.
    """
    theta = watch.theta
    losses = [watch.fitted.value(theta)]

    def follow(at: Any) -> bool:
        losses.append(watch.fitted.value(at.x))
        return watch(at)

    run = minimise(Firm(watch.fitted, watch.firm), theta, steps, follow)
    run.history["loss"], run.fun = np.array(losses), losses[-1]
    if run.stopped == "interrupted" or run.fun < LEARNT * watch.constant:
        return [run]
    watch.restart(theta)
    return []


def constant_loss(ob: Objective) -> float:
    """Return the loss of the best prediction that is the same for all rows."""
    weight = np.ones(ob.n_samples) if ob.sample_weight is None else ob.sample_weight
    shares = weight.astype(float) / weight.sum(dtype=float)
    y = ob.y
    if ob.loss == "mse":
        y = y.reshape(len(y), -1).astype(float)
        return float((shares @ (y - shares @ y) ** 2).mean())
    if ob.loss == "cross_entropy":
        return float(_entropy(np.bincount(y, shares)).sum())
    q = shares @ y.reshape(len(y), -1).astype(float)
    return float((_entropy(q) + _entropy(1 - q)).mean())


def _entropy(q: np.ndarray) -> np.ndarray:
    return np.asarray(-q * np.log(np.maximum(q, np.finfo(float).tiny)))
