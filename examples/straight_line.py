"""On the straight line from the start of a training on digits to its end the loss only falls.

Networks with two hidden layers learn handwritten digits, and the loss is computed on the line from
the initial weights to the last ones. It falls all the way, for every activation (tanh, relu,
sigmoid), method (SGD, Adam) and seed tried, with batch normalisation too. This holds for a start
and its own end: between the ends of two trainings the loss rises.

Paper: I. Goodfellow, O. Vinyals and A. Saxe, Qualitatively Characterizing Neural Network
Optimization Problems, ICLR 2015.

Not shown: that training follows this line. It does not, as the lengths of the paths show. And rates
at which training nearly diverges: with relu and momentum 0.9 at a rate of 0.3 the loss rises on the
way by 0.01 to 0.05. Nor other data: on diabetes, with momentum, it rises by 8%.
"""

from itertools import product

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def reproduce(activation, method, batch_norm, seed):
    """Return losses on the line from start to end, and from the end to that of another start; and
    the length of the path of training, over that of its line.
    """
    X, y = digits(400)
    model = fc.MLP([64, 32, 32, 10], activation=activation, batch_norm=batch_norm)
    ob, rate = fc.Objective(model, X, y), {"sgd": 0.5, "adam": 1e-2}[method]
    starts, paths = [model.init(rng=seed), model.init(rng=1000 + seed)], []
    for start in starts:
        path = [start]
        fc.minimize(
            ob, start, method, max_iter=300, learning_rate=rate, verdict=False,
            callback=lambda xk, path=path: path.append(xk.copy()),
        )  # fmt: skip
        paths.append(path)
    ends = [path[-1] for path in paths]
    line = fc.LandscapeDisplay.slice(ob, starts[0], to=ends[0], n_grid=51).losses
    across = fc.LandscapeDisplay.slice(ob, ends[0], to=ends[1], n_grid=51).losses
    length = np.linalg.norm(np.diff(paths[0], axis=0), axis=1).sum()
    return line, across, length / np.linalg.norm(ends[0] - starts[0])


def main(scale="normal", out="pictures"):
    names = ("tanh", "relu", "sigmoid")
    kinds = list(product(names, ("sgd", "adam"), (False, True)))[:: pick(scale, 5, 1, 1)]
    seeds = range(pick(scale, 1, 3, 20))
    runs = [reproduce(*kind, seed) for kind in kinds for seed in seeds]
    lines, across, lengths = (np.array(part) for part in zip(*runs))
    rises = np.diff(lines, axis=1).max(axis=1) > 1e-9 * lines[:, 0]
    barriers = across.max(axis=1) / across[:, [0, -1]].max(axis=1)

    figure = plots.new_figure((7.6, 3.6))
    left, right = figure.subplots(1, 2)
    t = np.linspace(0, 1, lines.shape[1])
    for ax, losses in ((left, lines), (right, across)):
        for own, kind in zip(losses[:: len(seeds)], kinds):
            color = plots.CYCLE[names.index(kind[0])]
            ax.plot(t, own, color=color, lw=1.2)
        ax.set_ylim(0, max(3.0, 1.05 * across.max()))
        ax.set_ylabel("loss")
    for name, color in zip(names, plots.CYCLE):
        left.plot([], [], color=color, label=name)
    left.legend(frameon=False, loc="upper right")
    left.set_xlabel("from the start (0) to the end (1)")
    left.set_title("From a start to its own end\nthe loss only falls")
    right.set_xlabel("from one end (0) to another (1)")
    right.set_title("Between the ends of two\ntrainings it rises")
    return Outcome(
        f"On the line from start to end the loss falls all the way in {np.sum(~rises)} of "
        f"{len(runs)} trainings; the path that training takes is {lengths.min():.1f} to "
        f"{lengths.max():.1f} times as long. On the line between two ends the loss rises in "
        f"{np.sum(barriers > 1.1)} of {len(runs)} cases, to at least {barriers.min():.1f} times "
        "the higher end.",
        save(figure, __file__, out),
        {"rises": rises, "barriers": barriers, "lengths": lengths},
    )


if __name__ == "__main__":
    command_line(main)
