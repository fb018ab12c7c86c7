"""Which rows to measure next: a greedy choice by the Laplace posterior of a fit.

Let C C' be the posterior covariance of the parameters, C (n, rank), and let a target at x have the
information W(x), the second derivative of its negative log likelihood with respect to the outputs.
With ``G = W^(1/2) J(x) C``, a new row at x changes the covariance to ``C (I + G'G)^-1 C'``. The
mean variance of the outputs over the rows p of `at`, in the units ``B_p = U J(p) C``, is ``tr Q``
with ``Q = mean B_p' B_p``. So the row lowers it by

    tr [(I + G G')^-1 G Q G'],

which is ``mean cov(x, p)^2 / (var(x) + noise^2)`` for one output. After each choice, G of the other
candidates and Q are multiplied by the symmetric root ``I - g g' / (c + c^(1/2))``, ``c = 1 + g'g``,
of the downdate by each row g of G.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...common.checks import check_positive_int
from ...common.objectives import sample_weights
from ...common.protocols import Floats
from ...common.runtime import serial_blas_context, with_nearest_rounding
from ...network.objective import Objective
from ...spectrum.results import format_number
from .laplace import (
    LaplacePosterior,
    laplace_posterior,
    output_covariance_roots,
)
from .requirements import dense_rows

# ratio of the noise to the error of left-out rows above which the noise is the larger part of that
# error, so that the choice of new rows matters little
MAX_NOISE_RATIO = 0.7


@dataclass(frozen=True)
class NextRows:
    """The rows to measure next, as returned by `next_rows`.

    Attributes
    ----------
    indices : ndarray (k,) of int
        The chosen candidates, in the order of the choice.
    variance : ndarray (k + 1,)
        The mean predictive variance over the rows of `at`, before the first new row and after each.
        For squared errors it is a fraction of the variance of the known targets, summed over the
        outputs. For other losses it is weighted by the curvature of the loss, in nats.
    noise_ratio : float
        The standard deviation of the noise divided by the root mean square error of left-out rows.
        Above 0.7 the noise decides, and new rows of any kind help alike. NaN for other losses than
        ``mse``.
    """

    indices: Any
    variance: Floats
    noise_ratio: float

    @property
    def noise_dominates(self) -> bool:
        """True if the noise is so large that the choice of the new rows matters little."""
        return self.noise_ratio > MAX_NOISE_RATIO

    @property
    def sentence(self) -> str:
        """The expected gain, and whether the choice matters."""
        before, after = np.sqrt(self.variance[[0, -1]])
        count = len(self.indices)
        text = (
            f"{'The row is' if count == 1 else f'The {count} rows are'} expected to lower the "
            f"predictive standard deviation from {format_number(before)} to {format_number(after)}."
        )
        if self.noise_dominates:
            text += (
                f" The noise is {self.noise_ratio:.0%} of the error of left-out rows, so new rows "
                "of any kind help alike."
            )
        return text


def next_rows(ob: Objective, theta: Any, candidates: Any, k: int, *, at: Any = None) -> NextRows:
    """Choose the rows whose targets would lower the uncertainty of a fitted network most.

    Parameters
    ----------
    ob : Objective
        The objective, with the loss ``mse``, ``cross_entropy``, ``binary_cross_entropy`` or
        ``poisson``. Its l2 is a Gaussian prior, as in `laplace`.
    theta : array_like (n,)
        A minimum of the objective, or a point near a minimum.
    candidates : array_like (M, d_in)
        Rows that could be measured.
    k : int
        The number of rows to choose, at most M.
    at : array_like (P, d_in), optional
        Rows at which predictions are wanted. By default the candidates.

    Returns
    -------
    NextRows
        The attributes `indices` in order, `variance` before and after each row, `noise_ratio` and
        `noise_dominates`, and `sentence`.

    Raises
    ------
    ValueError
        If k exceeds the number of candidates, if the variance at a row overflows, or as for
        `laplace`.

    See Also
    --------
    laplace : The posterior on which the choice rests.

    Notes
    -----
    Each row is the one that lowers the mean variance over `at` most, given the rows before it
    (greedy V-optimal design of the linearised network). The cost is that of `laplace` and
    ``k M d_out rank^2`` flops; the memory is ``8 M d_out rank`` bytes. The choice relies on the
    network at theta: where the known rows do not determine its shape, the variance far from them is
    a guess, so choose a few rows, measure, refit and repeat.

    References
    ----------
    .. [1] D. J. C. MacKay, Information-based objective functions for active data selection, Neural
           Computation 4, 1992.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> ob = fc.Objective(fc.MLP([1, 1]), [[0.0], [1.0], [2.0]], [0.1, 0.9, 2.0], loss="mse")
    >>> theta = fc.minimize(ob, rng=0).x
    >>> candidates = np.linspace(0.0, 10.0, 11)[:, None]
    >>> fc.next_rows(ob, theta, candidates, 2).indices.tolist()
    [10, 9]
    """
    return next_rows_of_posterior(laplace_posterior(ob, theta), candidates, k, at)


@with_nearest_rounding
def next_rows_of_posterior(
    post: LaplacePosterior, candidates: Any, k: int, at: Any = None
) -> NextRows:
    """Return the `NextRows` for a posterior and the other arguments of `next_rows`."""
    ob = post.objective
    candidates = dense_rows(ob.model, candidates)
    k = check_positive_int(k, "k")
    if k > len(candidates):
        raise ValueError(
            f"k must be at most the number of candidates, {len(candidates)}, got {k}. Pass more "
            "candidates."
        )
    G = np.concatenate(list(post.information_roots(candidates)))
    with serial_blas_context(), np.errstate(over="ignore", invalid="ignore"):
        Q = _mean_square(post, candidates if at is None else dense_rows(ob.model, at))
        indices, variance = _choose_greedily(G, Q, k)
    if not np.isfinite(variance).all():
        raise ValueError(
            "candidates and at must hold rows at which the variance is finite, got an overflow. "
            "Leave out rows far from the known ones."
        )
    return NextRows(indices, variance, _noise_ratio(post))


def _mean_square(post: LaplacePosterior, X: Floats) -> Floats:
    """Return Q (rank, rank), whose trace is the mean variance of the outputs at the rows of X, in
    the units of `NextRows.variance`.
    """
    ob = post.objective
    if ob.loss == "mse":
        weight = sample_weights(ob)
        y = np.asarray(ob.y, float).reshape(ob.n_samples, -1)[weight > 0]
        weight = weight[weight > 0]
        mean = np.average(y, axis=0, weights=weight)
        spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        unit = np.where(np.ptp(y, axis=0) > 0, spread, 1.0)[:, None]
        parts = output_covariance_roots(ob.model, post.theta, post.covariance_root, X)
        roots = [root / unit for _, root in parts]
    else:
        roots = list(post.information_roots(X))
    B = np.concatenate(roots).reshape(-1, post.covariance_root.shape[1])
    return np.asarray(B.T @ B / len(X))


def _choose_greedily(G: Floats, Q: Floats, k: int) -> tuple[Any, Floats]:
    """Return the indices (k,) of the chosen candidates and the traces (k + 1,) of Q before and
    after each, for the information roots G (M, d_out, rank) of the candidates and Q (rank, rank).
    """
    identity = np.eye(G.shape[1])
    indices = np.zeros(k, int)
    variance = np.empty(k + 1)
    variance[0] = np.trace(Q)
    is_free = np.ones(len(G), bool)
    for step in range(k):
        transposed = G.transpose(0, 2, 1)
        falls = np.linalg.solve(identity + G @ transposed, (G @ Q) @ transposed)
        gains = np.where(is_free, np.trace(falls, axis1=1, axis2=2), -np.inf)
        best = int(gains.argmax())
        indices[step] = best
        is_free[best] = False
        for output in range(G.shape[1]):
            g = G[best, output].copy()
            c = 1 + g @ g
            beta = 1 / (c + math.sqrt(c))
            G = G - (G @ g)[..., None] * (beta * g)
            h = Q @ g
            Q = Q - beta * (np.outer(h, g) + np.outer(g, h)) + beta**2 * (g @ h) * np.outer(g, g)
        variance[step + 1] = np.trace(Q)
    return indices, variance


def _noise_ratio(post: LaplacePosterior) -> float:
    """Return the standard deviation of the noise divided by the root mean square error of the known
    rows, each left out, or NaN if the loss is not ``mse``. The error is ``(I - G G')^-1 r`` for the
    residuals r of a row.
    """
    ob = post.objective
    if ob.loss != "mse":
        return math.nan
    G = np.concatenate(list(post.information_roots(ob.X)))
    residuals = ob.outputs(post.theta)[0] - np.asarray(ob.y, float).reshape(ob.n_samples, -1)
    weight = sample_weights(ob)
    remainder = np.eye(G.shape[1]) - weight[:, None, None] * (G @ G.transpose(0, 2, 1))
    with np.errstate(all="ignore"):
        errors = (np.linalg.pinv(remainder) @ residuals[:, :, None])[:, :, 0]
        squares = np.average(errors**2, axis=0, weights=weight).mean()
        return float(post.noise_std or 0.0) / math.sqrt(squares)
