"""L13. The same network started anew finds another solution.

Two spirals, one small network, many seeds: decision regions side by side, each with its loss and
the verdict on where it stopped.
"""

import numpy as np
from common import Outcome, command_line, pick, save, two_spirals

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = two_spirals(200, noise=0.25, turns=0.7)
    model = fc.MLP([2, 5, 1], activation="tanh")
    ob = fc.Objective(model, X, y.astype(float), loss="binary_cross_entropy", l2=1e-4)
    rows, columns = pick(scale, (1, 4), (3, 6), (6, 10))
    figure = plots.new_figure((1.8 * columns, 2.0 * rows))
    axes = np.atleast_2d(figure.subplots(rows, columns))
    losses, kinds, predictions = [], [], []
    grid = np.random.default_rng(0).uniform(-2, 2, (2000, 2))
    for seed, ax in enumerate(axes.flat):
        theta = fc.minimize(ob, model.init(seed=seed), "adam", max_iter=300, learning_rate=3e-2).x
        theta = fc.minimize(ob, theta, "newton-cg", max_iter=300).x
        kinds.append(fc.classify(ob, theta).kind)
        losses.append(ob.value(theta))
        predictions.append(model.predict(theta, grid)[:, 0] > 0)
        plots.decision_regions(lambda P, theta=theta: model.predict(theta, P)[:, 0], X, y, ax)
        ax.set_title(f"{losses[-1]:.4f}  {kinds[-1]}", fontsize=7)
    apart = [np.mean(a != b) for i, a in enumerate(predictions) for b in predictions[:i]]
    distinct = len(np.unique(np.round(losses, 6)))
    return Outcome(
        f"{len(losses)} starts of one network ended at {distinct} different losses from "
        f"{min(losses):.4f} to "
        f"{max(losses):.4f} ({', '.join(f'{kinds.count(k)} {k}' for k in sorted(set(kinds)))}), "
        "and two of them disagree "
        f"on {100 * np.mean(apart):.1f}% of the plane on average.",
        save(figure, __file__, out),
        {"losses": losses, "kinds": kinds, "distinct": distinct, "apart": apart},
    )


if __name__ == "__main__":
    command_line(main)
