"""L13. The same network, trained on two spirals from new starts, classifies every training sample
correctly each time, and some new samples differently.

Two spirals of 40 samples are learnt by one network of eight units from eight seeds. The decision
regions are shown from the lowest loss to the highest, and each is a proved minimum. Two starts with
the same loss have ended at copies of one solution, with hidden units permuted and signs flipped.
Without hidden units the loss is convex, and all starts end at its one optimum.

Not shown: data that not every start fits, such as a checkerboard of 60 samples; and data or
penalties that bring the solutions together. With 60 samples and ten units, eight
starts also fit, and differ on 2% of the plane; on two moons of 40 samples, on at most 1%. With a
weight decay of 1e-2 on the spirals, all eight end at one solution, which has a quarter of the
samples wrong.
"""

import numpy as np
from common import Outcome, command_line, pick, save, two_spirals

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = two_spirals(40, noise=0.1, turns=1.5)
    model = fc.MLP([2, 8, 1], activation="tanh")
    ob = fc.Objective(model, X, y.astype(float), loss="binary_cross_entropy", l2=1e-4)
    runs = [solve(ob, seed) for seed in range(pick(scale, 4, 8, 24))]
    runs.sort(key=lambda run: run.fun)

    line = np.linspace(-2.3, 2.3, 121)
    grid = np.stack([g.ravel() for g in np.meshgrid(line, line)], axis=1)
    outputs = [model.predict(run.x, grid)[:, 0] for run in runs]
    right = [np.mean((model.predict(run.x, X)[:, 0] > 0) == y) for run in runs]
    columns = min(4, len(runs))
    figure = plots.new_figure((1.9 * columns, 2.4 * (len(runs) // columns)))
    distinct = len(np.unique(np.round([run.fun for run in runs], 6)))
    figure.suptitle(
        f"Two spirals: {len(runs)} starts of one network fit every sample, {distinct} solutions"
    )
    panels = np.ravel(figure.subplots(len(runs) // columns, columns))
    for run, z, ax in zip(runs, outputs, panels):
        decided = (z > 0).reshape(len(line), len(line))
        ax.contourf(line, line, decided, [-0.5, 0.5, 1.5], colors=plots.CYCLE[:2], alpha=0.3)
        for c, color, marker in zip((0, 1), plots.CYCLE, "os"):
            ax.plot(*X[y == c].T, marker, ms=3, color=color, mec="white", mew=0.3)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"loss {run.fun:.4f},\n{run.kind}", fontsize=10)
    losses = [run.fun for run in runs]
    convex = fc.Objective(
        fc.MLP([2, 1], activation="tanh"), X, y.astype(float), "binary_cross_entropy", l2=1e-4
    )
    optima = np.array([solve(convex, seed).x for seed in range(len(runs))])
    kinds = [run.kind for run in runs]
    apart = [np.mean((a > 0) != (b > 0)) for i, a in enumerate(outputs) for b in outputs[:i]]
    return Outcome(
        f"{len(losses)} starts of one network have at least {min(right):.0%} of the training "
        f"samples right, and ended at {distinct} different losses from "
        f"{min(losses):.4f} to {max(losses):.4f}, {kinds.count('minimum')} at proved minima; two "
        f"of them disagree on {100 * np.mean(apart):.1f}% of the plane on average. Without hidden "
        f"units, where the loss is convex, all end at the same optimum, to "
        f"{max(np.ptp(optima, axis=0).max(), 1e-16):.0e}.",
        save(figure, __file__, out),
        {"losses": losses, "kinds": kinds, "distinct": distinct, "apart": apart, "right": right}
        | {"optima": optima},
    )


def solve(ob, seed):
    """Return the result of training from one start until it converges."""
    start = ob.model.init(rng=seed)
    adam = {"max_iter": 300, "learning_rate": 3e-2, "verdict": False}
    theta = fc.minimize(ob, start, "adam", **adam).x
    return fc.minimize(ob, theta, "newton-cg", max_iter=300)


if __name__ == "__main__":
    command_line(main)
