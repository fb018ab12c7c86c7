"""What a network predicts depends on its loss: quantiles, or a mean and its spread.

There is one network for each of three quantiles, and one for mean and standard deviation, on data
with skewed noise that grows. As many fresh samples lie below each curve as its loss intends.

Not shown: other seeds, data with several features, and few samples: fitted to 100, the lowest curve
has 16% of fresh samples below it.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots

LEVELS = (0.1, 0.5, 0.9)


def draw_samples(rng, N):
    x = rng.uniform(0, 3, N)
    return x[:, None], np.sin(2 * x) + (0.1 + 0.3 * x) * (rng.exponential(1.0, N) - 1)


def fitted(X, y, loss, outputs=1):
    ob = fc.Objective(fc.MLP([1, 12, outputs]), X - 1.5, y, loss=loss, l2=1e-4)
    run = fc.minimize(ob, ob.model.init(rng=1), max_iter=400, rng=0)
    return run, lambda rows: ob.model.predict(run.x, rows - 1.5)


def main(scale="normal", out="pictures"):
    rng = np.random.default_rng(0)
    X, y = draw_samples(rng, pick(scale, 1000, 4000, 20_000))
    fresh, truth = draw_samples(rng, 20_000)
    grid = np.linspace(0, 3, 300)[:, None]
    ax, shares, runs = plots.new_axes(), {}, []
    ax.plot(X[:500, 0], y[:500], ".", color=plots.GREY, ms=3)
    for level, colour in zip(LEVELS, (plots.BLUE, plots.RED, plots.BLUE)):
        run, predict = fitted(X, y, fc.Loss.quantile(level, width=0.02))
        shares[level] = float(np.mean(truth < predict(fresh)[:, 0]))
        ax.plot(grid, predict(grid), color=colour, label=f"{shares[level]:.1%} of fresh y below")
        runs.append(run)
    run, predict = fitted(X, y, "gaussian_nll", 2)
    mean, s = predict(grid).T
    for side in (-1, 1):
        label = "mean ± standard deviation" if side > 0 else None
        edge = mean + side * np.exp(s / 2)
        ax.plot(grid, edge, ls="--", lw=1, color="black", label=label)
    runs.append(run)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    ax.set_title("10%, 50% and 90% of $y$ lie below, each by its loss")
    ax.legend(frameon=False)
    proved = sum(run.report is not None and run.report.certified for run in runs)
    return Outcome(
        f"Of 20000 fresh samples {', '.join(f'{shares[k]:.1%}' for k in LEVELS)} lie below the "
        f"predicted quantiles of 10%, 50% and 90%; of the {len(runs)} fits {proved} ended at a "
        "proved minimum.",
        save(ax, __file__, out),
        {"shares": shares, "proved": proved},
    )


if __name__ == "__main__":
    command_line(main)
