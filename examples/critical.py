"""Critical points of small networks at many losses: what several examples look at.

`from_narrower` trains narrower networks until they rest, and adds the missing hidden units with all
weights zero: exact critical points of the wider network, from the highest losses to the lowest.
"""

from dataclasses import dataclass

import numpy as np

import fastcurv as fc


@dataclass(frozen=True)
class Found:
    """A critical point, its loss, and its verdict."""

    theta: np.ndarray
    loss: float
    verdict: object


def from_narrower(make, width, n_starts, *, seed=0):
    """Return critical points of ``make(width)``: converged networks of 1 to ``width`` units with
    zero units added.

    Parameters
    ----------
    make : callable
        ``make(k)`` is the objective of a network with one hidden layer of k units.
    width, n_starts, seed : int

    Returns
    -------
    list of Found
    """
    ob, found = make(width), []
    for number in range(n_starts):
        narrow = make(1 + number % width)
        theta = narrow.model.init(rng=np.random.default_rng([seed, number]))
        theta = fc.minimize(
            narrow, theta, "newton-cg", max_iter=300, gradient_tol=1e-9, verdict=False
        ).x
        found += judge(ob, add_zero_units(narrow.model, theta, ob.model))
    return found


def judge(ob, theta):
    """Return ``[Found]``, or an empty list if ``theta`` is not critical."""
    verdict = fc.classify(ob, theta)
    return [] if verdict.kind == "not_critical" else [Found(theta, float(ob.value(theta)), verdict)]


def add_zero_units(narrow, theta, wide):
    """Return ``theta`` of a network with one hidden layer in a wider network with the same
    outputs.
    """
    (W1, b1), (W2, b2) = narrow.unflatten(theta)
    missing = wide.sizes[1] - narrow.sizes[1]
    W1, b1 = np.pad(W1, ((0, missing), (0, 0))), np.pad(b1, (0, missing))
    return wide.flatten([(W1, b1), (np.pad(W2, ((0, 0), (0, missing))), b2)])
