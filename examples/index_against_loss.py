"""The higher the loss of a critical point, the more negative eigenvalues it has.

Critical points of small networks are searched for at several indices, the numbers of their negative
eigenvalues. In each network the order of the losses is nearly that of the indices: minima lie at
the bottom, and points with many directions of descent lie high.

Paper: Y. Dauphin et al., Identifying and Attacking the Saddle Point Problem in High-Dimensional
Non-Convex Optimization, NeurIPS 2014.

Not shown: an unbiased sample. Each search has an index as its aim, and is repeated if it ends at
another.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from scipy.stats import spearmanr

import fastcurv as fc
from fastcurv import plots

N_SHOWN = 12  # eigenvalues of a point in the picture


def reproduce(activation, n_classes, n_tries, seed):
    """Return losses, shares of negative eigenvalues, and the eigenvalues of critical points."""
    X, y = digits(1000, n_features=4)
    X, y = X[y < n_classes][:60], y[y < n_classes][:60]
    model = fc.MLP([4, 5, n_classes], activation=activation)
    ob = fc.Objective(model, X, y, l2=1e-3)
    sample = fc.sample_critical_points(ob, n_tries, rng=seed, index=range(9))
    points = [point for point in sample if not point.trivial]
    spectra = [np.linalg.eigvalsh(ob.hessian(point.theta).to_dense()) for point in points]
    index = [point.verdict.n_negative / ob.n_params for point in points]
    return np.array([ob.value(point.theta) for point in points]), np.array(index), spectra


def main(scale="normal", out="pictures"):
    kinds = pick(
        scale,
        [("sigmoid", 3)],
        [("tanh", 3), ("sigmoid", 3), ("tanh", 10), ("sigmoid", 10)],
        [(name, c) for name in ("tanh", "sigmoid", "softplus") for c in (3, 6, 10)],
    )
    n_tries = pick(scale, 9, 13, 45)
    runs = {kind: reproduce(*kind, n_tries, seed=0) for kind in kinds}
    ranks = {kind: spearmanr(losses, index)[0] for kind, (losses, index, _) in runs.items()}

    figure = plots.new_figure((7.6, 4.4))
    left, right = figure.subplots(1, 2)
    for (kind, (losses, index, _)), color in zip(runs.items(), plots.CYCLE):
        name = f"{kind[0]}, {kind[1]} classes"
        left.plot(losses, 100 * index, "o", color=color, mec="white", ms=6, label=name)
    left.set_xlabel("loss of a critical point")
    left.set_ylabel("negative eigenvalues (%)")
    left.set_title("Higher points have more\nnegative eigenvalues")
    losses, index, spectra = runs[kinds[-1]]
    order = np.argsort(losses)
    middle = order[np.argmin(abs(losses[order] - (losses.min() + losses.max()) / 2))]
    for at, color in zip((order[0], middle, order[-1]), (plots.GREEN, plots.GREY, plots.RED)):
        shown = spectra[at][:N_SHOWN]
        name = f"loss {losses[at]:.2f}"
        right.plot(range(1, N_SHOWN + 1), shown, "o-", ms=4, color=color, label=name)
    right.axhline(0, color="black", lw=0.8)
    right.set_xlabel("rank, from the lowest")
    right.set_ylabel("eigenvalue")
    right.set_title("Their lowest eigenvalues lie\nlower, too: three points")
    for ax in (left, right):
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    found = sum(losses.size for losses, _, _ in runs.values())
    return Outcome(
        f"{found} critical points of {len(kinds)} networks: the rank correlation of the loss with "
        f"the number of negative eigenvalues is {min(ranks.values()):.2f} to "
        f"{max(ranks.values()):.2f}, each network by itself.",
        save(figure, __file__, out),
        {"ranks": ranks, "runs": runs},
    )


if __name__ == "__main__":
    command_line(main)
