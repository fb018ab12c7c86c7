"""L14. A constant learning rate does no harm if training stops early: with a small first rate its
loss is the lowest for hundreds of epochs.

On the convex problem of `learning_rates`, softmax regression on digits, SGD begins with a rate of
0.05. With a constant rate it never converges, because a constant rate violates the conditions of
convergence. But for hundreds of epochs its loss lies below those of rates that meet them: these
become small long before the noise of the mini-batches limits the loss. Where the first rate is
large, 0.5, the order is the other way round.

Not shown: other batch sizes, and losses that are not convex.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

BATCH_SIZE = 8
RATE_TITLES = {
    0.05: "First rate 0.05: the\nconstant rate is lowest",
    0.5: "First rate 0.5: it is\nthe highest",
}


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 1000, 1000, 1797), n_features=16)
    ob = fc.Objective(fc.MLP([16, 10]), X, y, loss="cross_entropy", l2=1e-2)
    start, epochs = np.zeros(ob.n_params), pick(scale, 60, 200, 1000)
    lowest = fc.minimize(ob, start, "newton-cg", max_iter=100).fun
    figure = plots.new_figure((7.6, 4.0))
    gaps = {}
    for ax, (first, title) in zip(figure.subplots(1, 2, sharey=True), RATE_TITLES.items()):
        rates = {
            "constant": fc.schedules.constant(first),
            "1/t": fc.schedules.inverse_time(first, 0.01),
            "power 0.6": fc.schedules.power(first, 0.6),
        }
        for color, (name, rate) in zip(plots.CYCLE, rates.items()):
            options = {"learning_rate": rate, "batch_size": BATCH_SIZE, "seed": 0, "verdict": False}
            run = fc.minimize(ob, start, "sgd", max_iter=epochs, **options)
            excess = np.array(run.history["loss"]) - lowest
            ax.plot(np.maximum(excess, 1e-9), color=color, lw=1.3, label=name)
            gaps[first, name] = float(np.median(excess[-10:]))
        ax.set(yscale="log", xlabel="epoch")
        ax.set_title(title)
    figure.axes[0].set_ylabel("loss above the minimum")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    words = "; ".join(
        f"first rate {first}: "
        + ", ".join(f"{name} {gap:.1e}" for (at, name), gap in gaps.items() if at == first)
        for first in RATE_TITLES
    )
    return Outcome(
        f"Loss above the minimum after {epochs} epochs, median of the last ten, {words}.",
        save(figure, __file__, out),
        {"gaps": gaps},
    )


if __name__ == "__main__":
    command_line(main)
