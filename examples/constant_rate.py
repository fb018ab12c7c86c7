"""L14. A constant learning rate does no harm if training stops early, where the noise is small:
with a small first rate or large batches its loss is the lowest for hundreds of epochs.

On the convex problem of `learning_rates`, softmax regression on digits, SGD begins with a rate of
0.05 and batches of 8 samples. With a constant rate it never converges, because a constant rate
violates the conditions of convergence. But for hundreds of epochs its loss lies below those of
rates that meet them: these become small long before the noise of the mini-batches limits the loss.
With a first rate of 0.5 there is more noise: the loss of the constant rate is the highest with
batches of 8 samples, and the lowest with batches of 128.

Not shown: losses that are not convex.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

PANELS = {  # by first rate and batch size
    (0.05, 8): "First rate 0.05,\nbatches of 8",
    (0.5, 8): "First rate 0.5,\nbatches of 8",
    (0.5, 128): "First rate 0.5,\nbatches of 128",
}


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 1000, 1000, 1797), n_features=16)
    ob = fc.Objective(fc.MLP([16, 10]), X, y, loss="cross_entropy", l2=1e-2)
    start, epochs = np.zeros(ob.n_params), pick(scale, 60, 200, 1000)
    lowest = fc.minimize(ob, start, "newton-cg", max_iter=100).fun
    figure = plots.new_figure((7.6, 4.0))
    gaps = {}
    for ax, ((first, batch_size), title) in zip(figure.subplots(1, 3, sharey=True), PANELS.items()):
        rates = {
            "constant": first,
            "1/t": lambda t, a=first: a / (1 + 0.01 * t),
            "power 0.6": lambda t, a=first: a / t**0.6,
        }
        for color, (name, rate) in zip(plots.CYCLE, rates.items()):
            options = {"learning_rate": rate, "batch_size": batch_size, "rng": 0, "verdict": False}
            run = fc.minimize(ob, start, "sgd", max_iter=epochs, **options)
            excess = np.array(run.history["loss"]) - lowest
            ax.plot(np.maximum(excess, 1e-9), color=color, lw=1.3, label=name)
            gaps[first, batch_size, name] = float(np.median(excess[-10:]))
        ax.set(yscale="log", xlabel="epoch")
        ax.set_title(title)
    figure.axes[0].set_ylabel("loss above the minimum")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    words = "; ".join(
        f"first rate {panel[0]}, batches of {panel[1]}: "
        + ", ".join(f"{name} {gap:.1e}" for (*at, name), gap in gaps.items() if at == [*panel])
        for panel in PANELS
    )
    return Outcome(
        f"Loss above the minimum after {epochs} epochs, median of the last ten, {words}.",
        save(figure, __file__, out),
        {"gaps": gaps},
    )


if __name__ == "__main__":
    command_line(main)
