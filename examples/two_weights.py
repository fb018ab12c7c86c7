"""L1, L9. Over two weights of a network the loss often has several minima; but none of them is a
minimum of the network, whose loss falls further along the other weights.

The networks have ten tanh units and random weights, and their task is to classify two spirals. Two
of the weights are drawn, and the loss is computed over a plane of these two, with all others held.
Left: one such plane, and its minima. Right: the loss at every minimum of every plane, and where
descent in all weights leads from there.

Half right: that many optima in such plots are optima of the network. At each of them the gradient
over the other weights is not zero, and H has negative eigenvalues: it is neither a minimum nor a
critical point.

Not shown: trained networks, whose planes mostly show fewer minima, and planes in which a minimum
lies outside the range that is searched.
"""

import numpy as np
from common import Outcome, command_line, pick, save, two_spirals
from scipy.optimize import minimize

import fastcurv as fc
from fastcurv import plots

HALF_WIDTH = 20.0


def main(scale="normal", out="pictures"):
    X, y = two_spirals(200, turns=1.5, noise=0.05)
    model = fc.MLP([2, 10, 1], activation="tanh")
    ob = fc.Objective(model, X, y.astype(float), loss="binary_cross_entropy", l2=1e-4)
    planes = [Plane(ob, seed) for seed in range(pick(scale, 8, 40, 200))]
    n_grid = pick(scale, 31, 61, 81)
    found = [plane_minima(plane, n_grid) for plane in planes]
    counts = np.array([len(points) for points in found])
    points = [plane.at(w) for plane, own in zip(planes, found) for w in own]
    facts = {"counts": counts} | classify_points(ob, points)
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    most = int(np.argmax(counts))
    draw_plane(left, planes[most], found[most], n_grid)
    draw_descents(right, facts["before"], facts["after"])
    return Outcome(
        f"Of {counts.size} planes of two weights {np.sum(counts > 1)} have more than one minimum, "
        f"up to {counts.max()}. {np.sum(facts['kinds'] != 'not_critical')} of these {len(points)} "
        f"minima are critical points of the network, and H has {facts['negative'].min()} to "
        f"{facts['negative'].max()} negative eigenvalues there; descent in all weights lowers the "
        f"loss from {np.median(facts['before']):.2f} to "
        f"{np.median(facts['after']):.3f} in the median.",
        save(figure, __file__, out),
        facts,
    )


class Plane:
    """The loss as a function of two weights of a network, with all others fixed."""

    def __init__(self, ob, seed):
        rng = np.random.default_rng(seed)
        self.ob, self.theta = ob, 2 * ob.model.init(rng=seed)
        self.two = rng.choice(ob.n_params, 2, replace=False)

    def at(self, w):
        theta = self.theta.copy()
        theta[self.two] = w
        return theta

    def value(self, w):
        return self.ob.value(self.at(w))

    def gradient(self, w):
        return self.ob.gradient(self.at(w))[self.two]


def plane_minima(plane, n_grid):
    """Return the minima of a plane, found by descent in the plane from the lowest points of a
    grid.
    """
    t = np.linspace(-HALF_WIDTH, HALF_WIDTH, n_grid)
    losses = np.array([[plane.value((a, b)) for a in t] for b in t])
    windows = np.lib.stride_tricks.sliding_window_view(losses, (3, 3))
    rows, columns = np.nonzero(losses[1:-1, 1:-1] == windows.min(axis=(2, 3)))
    found = []
    for row, column in zip(rows + 1, columns + 1):
        w = minimize(plane.value, (t[column], t[row]), jac=plane.gradient, tol=1e-10).x
        inside = np.abs(w).max() < HALF_WIDTH
        if inside and all(np.linalg.norm(w - other) > 1e-2 for other in found):
            found.append(w)
    return found


def classify_points(ob, points):
    """Return the kinds and negative eigenvalues of points, and their losses before and after
    descent.
    """
    kinds, negative, before, after = [], [], [], []
    for theta in points:
        kinds.append(fc.classify(ob, theta).kind)
        negative.append(fc.inertia(ob.hessian(theta)).n_negative)
        before.append(ob.value(theta))
        after.append(fc.minimize(ob, theta, "l-bfgs", max_iter=1000, verdict=False).fun)
    return {
        "kinds": np.array(kinds),
        "negative": np.array(negative),
        "before": np.array(before),
        "after": np.array(after),
    }


def draw_plane(ax, plane, found, n_grid):
    """Draw the surface over the two weights, and its minima."""
    plots.surface(
        lambda a, b: plane.value((a, b)),
        (-HALF_WIDTH, HALF_WIDTH),
        (-HALF_WIDTH, HALF_WIDTH),
        ax,
        n=n_grid,
    )
    ax.figure.axes[-1].set_ylabel("loss")
    for w in found:
        ax.plot(*w, "o", color=plots.SKY, mec="white", ms=9, ls="none")
    ax.set(xlabel="one weight", ylabel="another weight")
    ax.set_title(f"Over two weights the loss\nhas {len(found)} minima")


def draw_descents(ax, before, after):
    """Draw the losses of the minima of the planes, and of the ends of descent from them."""
    spread = np.linspace(-0.15, 0.15, before.size)
    for place, losses, color in ((0, before, plots.SKY), (1, after, plots.GREEN)):
        ax.plot(place + spread, losses, "o", ms=5, alpha=0.7, mew=0, color=color)
    ax.set(xlim=(-0.4, 1.4), yscale="log", ylabel="loss")
    ax.set_xticks([0, 1], ["at the minima\nof the planes", "after descent\nin all weights"])
    ax.set_title("None is a minimum of the\nnetwork: the loss falls on")


if __name__ == "__main__":
    command_line(main)
