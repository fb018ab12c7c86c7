"""Inputs that are not centred give a linear layer one large eigenvalue, which limits the learning
rate. With their mean subtracted, descent is many times faster.

The Hessian of a linear layer with squared error is proportional to the matrix of second moments of
its inputs, once for each output. Pixels are never negative, so the mean of the inputs is close to
an eigenvector whose eigenvalue is far above all others. A layer with biases computes the same
functions of centred inputs, without this eigenvalue. Descent at the rate 1/largest eigenvalue then
moves faster along all the others.

Paper: Y. LeCun, I. Kanter and S. Solla, Second Order Properties of Error Surfaces: Learning Time
and Generalization, NIPS 1991.

Not shown: hidden layers. The paper centres what these receive, too. How much is gained depends on
the data: descent with centred inputs is 3 times faster on iris and 8 times on wine, each column
divided by its maximum.
"""

import numpy as np
from common import Outcome, command_line, first_index, pick, save

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import


def reproduce(X, Y, n_steps):
    """Return the eigenvalues of the Hessian, those of the second moments of the inputs, and the
    losses of descent at the rate 1/largest eigenvalue, less the lowest loss.
    """
    ob = fc.Objective(fc.MLP([X.shape[1], Y.shape[1]]), X, Y, loss="mse")
    theta = np.zeros(ob.n_params)
    values = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
    inputs = np.column_stack([X, np.ones(len(X))])
    moments = np.linalg.eigvalsh(inputs.T @ inputs / len(X))
    weights = np.linalg.lstsq(inputs, Y)[0]
    lowest = np.mean((inputs @ weights - Y) ** 2)
    excess = []
    for _ in range(n_steps):
        excess.append(ob.value(theta) - lowest)
        theta = theta - ob.gradient(theta) / values[-1]
    return values, moments, np.array(excess)


def main(scale="normal", out="pictures"):
    n_steps = pick(scale, 300, 1000, 10_000)
    runs = {"as they are": [], "centred": []}
    for seed in range(pick(scale, 2, 5, 20)):
        X, y = pixels(400, seed)
        Y = np.eye(10)[y]
        runs["as they are"].append(reproduce(X, Y, n_steps))
        runs["centred"].append(reproduce(X - X.mean(axis=0), Y, n_steps))
    largest = {name: np.array([run[0][-1] for run in own]) for name, own in runs.items()}
    excess = {name: np.array([run[2] for run in own]) for name, own in runs.items()}
    raw, centred = excess.values()
    sooner = [first_index(good <= bad[-1]) for bad, good in zip(raw, centred)]
    gap = max(
        np.abs(values - np.repeat(0.2 * moments, 10)).max() / values[-1]
        for own in runs.values()
        for values, moments, _ in own
    )

    figure = plots.new_figure((7.6, 3.6))
    left, right = figure.subplots(1, 2)
    for name, color in zip(runs, (plots.ORANGE, plots.BLUE)):
        values, moments, losses = runs[name][0]
        shown = values[::-10][:30]
        rank = np.arange(1, shown.size + 1)
        left.semilogy(rank, shown, "o", color=color, ms=5, label=f"inputs {name}")
        left.semilogy(rank, 0.2 * moments[::-1][:30], color=color, lw=1)
        right.loglog(np.arange(1, n_steps + 1), losses, color=color, label=f"inputs {name}")
    left.set_xlabel("rank")
    left.set_ylabel("eigenvalue, once of ten")
    left.set_title("The mean of the inputs gives\none large eigenvalue")
    left.legend(frameon=False, loc="upper right")
    right.set_xlabel("step")
    right.set_ylabel("loss above the lowest")
    right.set_title("Without it, descent is\nmany times faster")
    right.legend(frameon=False, loc="lower left")
    return Outcome(
        f"The largest eigenvalue is {largest['as they are'].mean():.2f} for inputs as they are and "
        f"{largest['centred'].mean():.2f} for centred ones. What takes descent {n_steps} steps as "
        f"they are takes it {min(sooner)} to {max(sooner)} steps with centred ones. The "
        "eigenvalues of the Hessian are those of the second moments, times 2/10, to "
        f"{gap:.0e} of the largest.",
        save(figure, __file__, out),
        {"largest": largest, "sooner": np.array(sooner), "gap": gap, "n_steps": n_steps},
    )


def pixels(n_samples, seed):
    """Return digits with pixels from 0 to 1, not centred."""
    with optional_import("the data", "demo"):
        from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(X))[:n_samples]
    return X[rows] / 16, y[rows]


if __name__ == "__main__":
    command_line(main)
