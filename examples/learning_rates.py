"""L14. Stochastic gradient descent converges if the sum of its rates diverges and the sum of their
squares does not.

On a strictly convex problem (softmax regression with weight decay) the distance to the one minimum
is known. With a constant rate, SGD stops at a distance that its noise determines. With rates that
meet both conditions it continues. If the sum of the rates is finite, it may stop short. There are
five orders of the samples: lines are medians, and bands reach from the smallest to the largest
value. Every mark is the median of the epochs since the mark before, because single epochs vary.

Not shown: losses that are not convex, for which the two conditions guarantee less; and other first
rates, since all runs have the same.
"""

import numpy as np
from common import Outcome, command_line, constant_then_decay, digits, pick, save, select, table_of

import fastcurv as fc
from fastcurv import plots

# by name: the learning rate of update t = 1, 2, ..., and the exponent p in c / t^p, which it
# approaches
LEARNING_RATES = {
    "constant": (0.5, 0.0),
    "inverse time": (lambda t: 0.5 / (1 + 0.01 * t), 1.0),
    "power 0.6": (lambda t: 0.5 / t**0.6, 0.6),
    "constant, then 1/t": (constant_then_decay(0.5, 200), 1.0),
    "power 2": (lambda t: 0.5 / t**2, 2.0),
}


def experiment(scale):
    """Return the height of the loss above the minimum, by rate, order of the samples and epoch."""
    X, y = digits(pick(scale, 300, 1000, 1797), n_features=16)
    ob = fc.Objective(fc.MLP([16, 10]), X, y, loss="cross_entropy", l2=1e-2)
    start, epochs = np.zeros(ob.n_params), pick(scale, 60, 500, 5000)
    lowest = fc.minimize(ob, start, "newton-cg", max_iter=100).fun
    marks = np.unique(np.geomspace(1, epochs, 30).astype(int))
    rows = []
    for name, (rate, _) in LEARNING_RATES.items():
        for seed in range(5):
            options = {"learning_rate": rate, "batch_size": 8, "rng": seed, "verdict": False}
            run = fc.minimize(ob, start, "sgd", max_iter=epochs, **options)
            excess = np.maximum(np.array(run.history["loss"]) - lowest, 1e-16)
            for before, mark in zip([0, *marks], marks):
                gap = float(np.median(excess[before + 1 : mark + 1]))
                rows.append({"rate": name, "seed": seed, "epoch": int(mark), "excess": gap})
    return rows


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    ax = plots.new_axes()
    gaps, meets = {}, {}
    for color, (name, (_, exponent)) in zip(plots.CYCLE, LEARNING_RATES.items()):
        mine = select(table, rate=name)
        epochs = np.unique(mine["epoch"])
        excess = mine["excess"].reshape(-1, epochs.size)  # (seeds, marks)
        meets[name] = 0.5 < exponent <= 1.0
        gaps[name] = excess[:, -1]
        words = f"{name}: {'meets both' if meets[name] else 'violates one'}"
        ax.fill_between(
            epochs, excess.min(axis=0), excess.max(axis=0), color=color, alpha=0.25, lw=0
        )
        ax.plot(epochs, np.median(excess, axis=0), color=color, lw=1.5, label=words)
    ax.set(xscale="log", yscale="log", xlabel="epoch", ylabel="loss above the minimum")
    ax.set_title(
        "With rates that meet both conditions the loss keeps falling:\n"
        r"$\sum\alpha = \infty$ and $\sum\alpha^2 < \infty$"
    )
    ax.legend(frameon=False)
    good = ", ".join(f"{name} {format_range(gaps[name])}" for name in LEARNING_RATES if meets[name])
    return Outcome(
        f"After {epochs[-1]} epochs the loss lies above the minimum, in {gaps['constant'].size} "
        f"orders of the samples, by: {good}; the constant rate is left at "
        f"{format_range(gaps['constant'])}, and a rate of finite sum at "
        f"{format_range(gaps['power 2'])}.",
        save(ax, __file__, out),
        {"gaps": gaps, "meets": meets},
    )


def format_range(values):
    """Return the least and the largest of some numbers, in words."""
    return f"{values.min():.1e} to {values.max():.1e}"


if __name__ == "__main__":
    command_line(main)
