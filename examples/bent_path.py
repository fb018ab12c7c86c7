"""Two minima with a barrier on the straight line between them are joined by a path with one bend
along which the loss hardly rises.

Two trainings of a network with 16 hidden units, from different starts, learn handwritten digits.
Half-way between their ends the loss is that of a network that has learnt little. Then the middle
point of a quadratic Bezier curve between the ends is moved, so that the mean loss on the curve
falls: 200 steps of Adam. The plane through the three points shows one valley.

Half right: that from a minimum there is no way to go, as a lecture says. There is none down, but a
path of almost constant loss leads to another minimum.

Paper: T. Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, NeurIPS
2018.

Not shown: that there is only one valley. Other paths may be as low. Narrow networks have minima
that no path of this kind joins: with 4 units, or with random labels, the loss on the path is up to
2.6 times that of its ends.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

CURVE_TIMES = np.linspace(0, 1, 12)[1:-1]  # where the mean on the curve is taken


class Curve:
    """The mean loss on the quadratic Bezier curve from a to b, as a function of its middle
    point.
    """

    def __init__(self, ob, a, b):
        self.ob, self.a, self.b, self.n_params = ob, a, b, ob.n_params

    def at(self, c, t):
        return (1 - t) ** 2 * self.a + 2 * t * (1 - t) * c + t**2 * self.b

    def value(self, c):
        return np.mean([self.ob.value(self.at(c, t)) for t in CURVE_TIMES])

    def gradient(self, c):
        return np.mean(
            [2 * t * (1 - t) * self.ob.gradient(self.at(c, t)) for t in CURVE_TIMES], axis=0
        )


def reproduce(activation, seeds):
    """Return the objective, the ends of two trainings, and the middle point of the curve."""
    X, y = digits(300, n_features=16)
    ob = fc.Objective(fc.MLP([16, 16, 10], activation=activation), X, y)
    adam = {"method": "adam", "verdict": False}
    starts = [ob.model.init(rng=seed) for seed in seeds]
    a, b = (fc.minimize(ob, x, max_iter=300, learning_rate=1e-2, **adam).x for x in starts)
    curve = Curve(ob, a, b)
    c = fc.minimize(curve, (a + b) / 2, max_iter=200, learning_rate=2e-2, **adam).x
    return curve, c


def main(scale="normal", out="pictures"):
    n_pairs = pick(scale, 1, 5, 20)
    names = ("tanh", "relu")
    runs = [reproduce(name, (2 * k, 2 * k + 1)) for name in names for k in range(n_pairs)]
    t = np.linspace(0, 1, 61)
    straight = np.array([[on.ob.value(on.a + s * (on.b - on.a)) for s in t] for on, _ in runs])
    bent = np.array([[on.ob.value(on.at(c, s)) for s in t] for on, c in runs])

    figure = plots.new_figure((7.6, 3.8))
    left, right = figure.subplots(1, 2)
    left.semilogy(t, straight[0], color=plots.ORANGE, label="straight line")
    left.semilogy(t, bent[0], color=plots.BLUE, label="path with one bend")
    left.set_xlabel("from one minimum (0) to another (1)")
    left.set_ylabel("loss")
    left.set_title("On the bent path the loss\nstays at that of its ends")
    draw_plane(right, *runs[0], pick(scale, 21, 61, 121))
    right.set_title("The plane through the ends\nand the middle point")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2)
    ends = straight[:, [0, -1]].max(axis=1)
    return Outcome(
        f"Between {len(runs)} pairs of minima with losses of at most {ends.max():.4f}, the loss "
        f"rises to {straight.max(axis=1).min():.2f} and more on the straight line, and to at most "
        f"{bent.max():.4f} on a path with one bend. Of the first pair, these are "
        f"{straight[0].max():.3f} and {bent[0].max():.4f}, with ends of {straight[0, 0]:.4f} and "
        f"{straight[0, -1]:.4f}.",
        save(figure, __file__, out),
        {"ends": ends, "straight": straight.max(axis=1), "bent": bent.max(axis=1)},
    )


def draw_plane(ax, curve, c, n):
    """Draw the loss on the plane through the ends and the middle point, and both paths."""
    along, up = curve.b - curve.a, c - (curve.a + curve.b) / 2
    length = np.linalg.norm(along)
    along = along / length
    up = up - (up @ along) * along
    up = up / np.linalg.norm(up)
    rise = (c - curve.a) @ up
    x, z = np.linspace(-0.2 * length, 1.2 * length, n), np.linspace(-0.3 * rise, 1.1 * rise, n)
    losses = [[curve.ob.value(curve.a + s * along + r * up) for s in x] for r in z]
    levels = np.geomspace(np.min(losses), np.max(losses), 15)
    ax.contourf(x, z, losses, levels=levels, cmap="Greys", norm="log")
    bend = np.array([curve.at(c, s) for s in np.linspace(0, 1, 61)]) - curve.a
    ax.plot([0, length], [0, 0], color=plots.ORANGE, lw=2)
    ax.plot(bend @ along, bend @ up, color=plots.BLUE, lw=2)
    ax.plot([0, length], [0, 0], "o", color=plots.GREEN, mec="white", ms=9, ls="none")
    ax.set_xlabel("along the straight line")
    ax.set_ylabel("towards the bend")


if __name__ == "__main__":
    command_line(main)
