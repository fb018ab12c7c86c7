"""Critical points of a small network at many losses: what several examples look at."""

from dataclasses import dataclass

import numpy as np

import fastcurv as fc


@dataclass(frozen=True)
class Found:
    """A critical point, its loss, the verdict on it."""

    theta: np.ndarray
    loss: float
    verdict: object

    @property
    def index(self):
        """Negative eigenvalues over all."""
        return self.verdict.n_negative / self.theta.size


def critical_points(ob, n_starts, *, seed=0, max_epochs=300, gradient_tol=1e-6):
    """Find critical points from many starts and classify each; those that were not reached are left out.

    A start is a random network of random scale, trained by Adam for a random number of full-batch steps (none to
    ``max_epochs``), so that the points found cover the range of losses. From there the gradient's norm is brought
    down, not the loss, so saddles attract as minima do.

    Parameters
    ----------
    ob : Objective
    n_starts : int
    seed : int
    max_epochs : int
    gradient_tol : float
        A point counts as critical where its gradient norm is below this.

    Returns
    -------
    list of Found
    """
    found = []
    for number in range(n_starts):
        rng = np.random.default_rng([seed, number])
        theta = ob.model.init(seed=rng) * rng.uniform(0.3, 1.5)
        epochs = int(max_epochs ** rng.uniform()) if rng.uniform() > 0.2 else 0
        if epochs:
            theta = fc.minimize(ob, theta, "adam", max_iter=epochs, learning_rate=1e-2).x
        theta = fc.find_critical_point(ob, theta).x
        verdict = fc.classify(ob, theta, gradient_tol=gradient_tol)
        if verdict.kind != "not_critical":
            found.append(Found(theta, float(ob.value(theta)), verdict))
    return found


def kinds(found):
    """How many points there are of each kind."""
    names = [point.verdict.kind for point in found]
    return {name: names.count(name) for name in sorted(set(names))}
