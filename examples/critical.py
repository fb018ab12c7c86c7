"""Critical points of small networks at many losses: what several examples look at.

Two sources. `from_walks` brings the gradient's norm down from partly trained networks, so saddles
attract as minima do; many such walks end where the norm itself is stationary, on no critical point,
and are left out. `from_narrower` trains narrower networks until they rest, and adds the missing
hidden units with all weights zero: exact critical points of the wider network, from the highest
losses to the lowest.
"""

from dataclasses import dataclass

import numpy as np

import fastcurv as fc


@dataclass(frozen=True)
class Found:
    """A critical point, its loss, the verdict on it."""

    theta: np.ndarray
    loss: float
    verdict: object


def from_walks(ob, n_starts, *, seed=0, epochs=(30, 3000), max_iter=100):
    """Critical points that `find_critical_point` reached from networks trained for a while.

    Parameters
    ----------
    ob : Objective
    n_starts, seed : int
    epochs : (int, int)
        Full-batch steps of Adam before the walk, drawn evenly on a logarithmic scale.
    max_iter : int
        Steps of the walk.

    Returns
    -------
    list of Found
    """
    found = []
    for number in range(n_starts):
        rng = np.random.default_rng([seed, number])
        steps = int(np.exp(rng.uniform(*np.log(epochs))))
        theta = fc.minimize(
            ob, ob.model.init(seed=rng), "adam", max_iter=steps, learning_rate=1e-2, verdict=False
        ).x
        found += judge(ob, fc.find_critical_point(ob, theta, max_iter=max_iter).x)
    return found


def from_narrower(make, width, n_starts, *, seed=0):
    """Critical points of ``make(width)``: networks of 1 to ``width`` units trained to rest, zero
    units added.

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
        theta = narrow.model.init(seed=np.random.default_rng([seed, number]))
        theta = fc.minimize(
            narrow, theta, "newton-cg", max_iter=300, gradient_tol=1e-9, verdict=False
        ).x
        found += judge(ob, add_zero_units(narrow.model, theta, ob.model))
    return found


def judge(ob, theta):
    """``[Found]``, or nothing where ``theta`` is not critical."""
    verdict = fc.classify(ob, theta)
    return [] if verdict.kind == "not_critical" else [Found(theta, float(ob.value(theta)), verdict)]


def add_zero_units(narrow, theta, wide):
    """``theta`` of a network with one hidden layer in a wider one that computes the same."""
    (W1, b1), (W2, b2) = narrow.unflatten(theta)
    missing = wide.sizes[1] - narrow.sizes[1]
    W1, b1 = np.pad(W1, ((0, missing), (0, 0))), np.pad(b1, (0, missing))
    return wide.flatten([(W1, b1), (np.pad(W2, ((0, 0), (0, missing))), b2)])


def kinds(found):
    """How many points there are of each kind, in words."""
    names = [point.verdict.kind for point in found]
    return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))
