"""Where a fit ends that its penalty does not hold, and how it begins.

With p_n the share of row n, h_n its gradient and N the number of rows (the sum of their weights),
the mean gradient g of N rows drawn anew scatters about its expectation, parameter by parameter,
with variance s^2 / N,

    s^2 = sum_n p_n h_n^2 - g^2.

Where the mean of ``N g^2 / s^2`` over the parameters is below 1, as it is where the expected
gradient is zero, these rows no longer say which way to go, and what follows fits their noise
(Mahsereci, Balles, Lassner and Hennig, Early stopping without a validation set, 2017). Before that
a firm penalty keeps the first steps from fitting single rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import is_sparse
from ..network.objective import Objective
from ..network.row_passes import RowState

SIGNIFICANT = 1.0  # mean of N g^2 / s^2 that chance alone leaves
GAIN = 4.0  # nats for all rows: a regression whose steps gain more still finds structure
LEARNT = 0.9  # of the loss of a constant prediction: above it a fit rests on a plateau
WEAK = 1e-2  # of the loss: a penalty below it does not hold a fit
FIRM = 3.0  # alpha that a fit begins with, over the loss of a constant prediction
WEAKER = 0.1  # of the firm alpha: what is below it begins with the firm one
FIRST = 15  # iterations with it


class Scatter:
    """What the rows of an objective can tell apart from noise.

    Parameters
    ----------
    ob : Objective
    total : float
        The number of rows, repeated ones counted: the sum of the weights.
    scale : float
        Takes values of `ob` to those of ``loss_``.
    """

    def __init__(self, ob: Objective, total: float, scale: float) -> None:
        self.ob, self.total, self.scale = ob, total, scale
        weight = np.ones(ob.n_samples) if ob.sample_weight is None else ob.sample_weight
        self.shares = weight.astype(float) / weight.sum(dtype=float)
        self.constant = constant_loss(ob, self.shares)
        self.last, self.reached = np.inf, False

    def __call__(self, at: Any) -> bool:
        """Whether the fit has come to an end; asked after every iteration."""
        theta, value = at.x, float(at.fun)
        before, self.last = self.last, value
        if value > LEARNT * self.constant or penalty(self.ob, theta) > WEAK * value:
            return False
        if self.ob.loss == "mse":
            entries = self.total * self.ob.model.sizes[-1]
            if value <= 0 or 0.5 * entries * np.log(before / value) > GAIN:
                return False
        self.reached = self.signal(theta, at.jac) < SIGNIFICANT
        return self.reached

    def signal(self, theta: np.ndarray, g: np.ndarray) -> float:
        """Mean over the parameters of ``N g^2 / s^2``, those aside that no row moves.

        Costs about three gradients.
        """
        state = RowState(self.ob, theta)
        found, counted, at = 0.0, 0, 0
        for a, delta in zip(state.a, state.delta):  # h_n p_n = delta' a, row by row
            squares = np.asarray(delta.astype(float) ** 2 / self.shares[:, None])
            for second in (squares_with(squares, a), squares.sum(axis=0)):
                mine = g[at : at + second.size].astype(float).reshape(second.shape) ** 2
                at += second.size
                spread = second - mine
                moved = spread > 1e-12 * second
                found += float((mine[moved] / spread[moved]).sum())
                counted += int(moved.sum())
        return self.total * found / max(counted, 1)

    # --- the beginning

    def begin(self, theta: np.ndarray, alpha: float, minimise: Callable[..., Any]) -> list[Any]:
        """A first run under a firm penalty, with the losses that it has without; none where alpha
        is not far below that, or where the run leads back to a constant prediction.

        Parameters
        ----------
        theta : ndarray (n,)
        alpha : float
        minimise : callable
            ``minimise(ob, theta, watch)``, a short run of an objective.
        """
        ob, wanted = self.ob, FIRM * self.scale * self.constant
        if not alpha < WEAKER * wanted < np.inf:
            return []
        firm = Objective(
            ob.model,
            ob.X,
            ob.y,
            ob.loss,
            l2=wanted / (self.total * self.scale),
            sample_weight=ob.sample_weight,
            n_threads=ob.n_threads,
            memory=ob.memory,
            l2_biases=False,
        )
        added = [penalty(firm, theta) - penalty(ob, theta)]

        def watch(at: Any) -> bool:
            added.append(penalty(firm, at.x) - penalty(ob, at.x))
            return False

        run = minimise(firm, theta, watch)
        run.history["loss"] = np.asarray(run.history["loss"]) - added
        run.fun = float(run.fun) - added[-1]
        cut = run.stopped == "interrupted"
        return [run] if cut or run.fun < LEARNT * self.constant else []


def penalty(ob: Objective, theta: np.ndarray) -> float:
    """What l2 adds to the value."""
    return 0.5 * float(np.dot(ob.l2_diagonal * theta, theta))


def constant_loss(ob: Objective, shares: np.ndarray) -> float:
    """The loss of the best prediction that is the same for all rows."""
    y = ob.y
    if ob.loss == "mse":
        y = y.reshape(len(y), -1).astype(float)
        return float((shares @ (y - shares @ y) ** 2).mean())
    if ob.loss == "cross_entropy":
        return float(_entropy(np.bincount(y, shares)).sum())
    q = shares @ y.reshape(len(y), -1).astype(float)
    return float((_entropy(q) + _entropy(1 - q)).mean())


def squares_with(squares: np.ndarray, a: Any) -> np.ndarray:
    """``squares' a^2`` for a dense or sparse (N, k)."""
    product = (
        (a.multiply(a).T @ squares).T if is_sparse(a) else squares.T @ np.square(a, dtype=float)
    )
    return np.asarray(product)


def _entropy(q: np.ndarray) -> np.ndarray:
    return np.asarray(-q * np.log(np.maximum(q, np.finfo(float).tiny)))
