"""L17. A running average of noisy gradients is close to the true gradient in its largest
components, once its bias is corrected; smaller components are noisier.

The gradients are those of mini-batches of ten samples at one point of a network that reads digits.
Two components are drawn, the largest and the median one; the errors are root mean squares over the
ten largest ones, and over ten in the middle. The average m = 0.95 m + 0.05 g, which
momentum and Adam keep, begins at zero, so it is too small at first; divided by 1 - 0.95^t it has no
bias from the first step. It averages over some 39 mini-batches, so its noise is a sixth of theirs.

Not shown: that theta moves meanwhile, so that old gradients are out of date.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

DECAY = 0.95


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 300, 1000, 1797), n_features=16)
    ob = fc.Objective(fc.MLP([16, 12, 10]), X, y, loss="cross_entropy")
    theta, rng = ob.model.init(rng=0), np.random.default_rng(0)
    full = ob.gradient(theta)
    n_steps = 120
    seen, plain, corrected, average = [], [], [], 0.0
    for t in range(1, n_steps + 1):
        rows = rng.choice(len(y), 10, replace=False)
        g = ob.batch(rows).gradient(theta)
        average = DECAY * average + (1 - DECAY) * g
        seen.append(g)
        plain.append(average)
        corrected.append(average / (1 - DECAY**t))
    # over the true gradient, (steps, components) each
    seen, plain, corrected = (np.array(x) / full for x in (seen, plain, corrected))
    order = np.argsort(np.abs(full))
    middle = order.size // 2
    components = {"largest": order[-10:], "median": order[middle - 5 : middle + 5]}
    figure = plots.new_figure((7.6, 4.2))
    panels = {"largest": order[-1], "median": order[middle]}
    for ax, (name, k) in zip(figure.subplots(1, 2, sharey=True), panels.items()):
        steps = np.arange(1, n_steps + 1)
        ax.plot(steps, seen[:, k], "o", ms=3, color=plots.GREY, alpha=0.6, label="mini-batches")
        ax.plot(steps, plain[:, k], color=plots.RED, lw=2, label="running average")
        ax.plot(steps, corrected[:, k], color=plots.BLUE, lw=2, label="with its bias corrected")
        ax.axhline(1, color="black", ls="--", lw=1, label="all samples")
        ax.set(xlabel="mini-batch", ylim=(-5, 7))
        ax.set_title(f"The {name} component")
    figure.axes[0].set_ylabel("component of the gradient,\nover the true one")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4, fontsize=9)

    def off(values):
        """Return the root mean square of the relative errors, by size of the components."""
        return {
            name: float(np.sqrt(np.mean((values[:, own] - 1) ** 2)))
            for name, own in components.items()
        }

    late, batches = off(corrected[60:]), off(seen)
    largest = components["largest"]
    early = float(np.mean(plain[:10, largest])), float(np.mean(corrected[:10, largest]))
    return Outcome(
        f"In the largest components the running average is off by {late['largest']:.0%} of the "
        f"gradient, a mini-batch by {batches['largest']:.0%} (root mean squares); in the median "
        f"ones by {late['median']:.0%} and {batches['median']:.0%}. Over the first ten steps "
        f"the average is {early[0]:.2f} of the largest components, and {early[1]:.2f} with its "
        "bias corrected.",
        save(figure, __file__, out),
        {"late": late, "batches": batches, "early": early},
    )


if __name__ == "__main__":
    command_line(main)
