"""The wider the network, the less the loss at the end of training depends on the start.

A network with one hidden layer is trained from twenty starts for each width, with weight decay, and
its loss is computed on samples kept aside. From 4 units to 64 the standard deviation of that loss
falls at every doubling, with tanh and with relu.

Paper: A. Choromanska et al., The Loss Surfaces of Multilayer Networks, AISTATS 2015.

Not shown: the paper's model, in which critical points are those of a spin glass; and networks
without weight decay, whose losses on samples kept aside differ at every width.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def reproduce(activation, width, n_starts):
    """Return the held-out losses, one for each start."""
    X, y = digits(1000, n_features=8)
    model = fc.MLP([8, width, 10], activation=activation)
    ob = fc.Objective(model, X[:200], y[:200], l2=1e-2)
    aside = fc.Objective(model, X[200:], y[200:])
    ends = [
        fc.minimize(ob, model.init(rng=seed), "l-bfgs", max_iter=500, verdict=False)
        for seed in range(n_starts)
    ]
    return np.array([aside.value(end.x) for end in ends])


def main(scale="normal", out="pictures"):
    widths = pick(scale, (4, 16, 64), (4, 8, 16, 32, 64), (4, 8, 16, 32, 64, 128))
    n_starts = pick(scale, 8, 20, 100)
    losses = {
        name: {width: reproduce(name, width, n_starts) for width in widths}
        for name in ("tanh", "relu")
    }
    spread = {name: {w: x.std(ddof=1) for w, x in own.items()} for name, own in losses.items()}

    figure = plots.new_figure((7.6, 3.6))
    left, right = figure.subplots(1, 2)
    for number, found in enumerate(losses["tanh"].values()):
        jitter = np.linspace(-0.25, 0.25, found.size)
        left.plot(number + jitter, found, ".", color=plots.BLUE, ms=7)
    left.set_xticks(range(len(widths)), [str(width) for width in widths])
    left.set_ylim(0)
    left.set_ylabel("loss on samples kept aside")
    left.set_title(f"tanh, {n_starts} starts each: the\nwider, the closer")
    for (name, own), color in zip(spread.items(), (plots.BLUE, plots.ORANGE)):
        right.loglog(widths, list(own.values()), "o-", color=color, label=name)
    right.set_xticks(widths, [str(width) for width in widths])
    right.minorticks_off()
    right.set_ylabel("standard deviation of that loss")
    right.set_title("The losses of wide networks\nlie close together")
    right.legend(frameon=False, loc="upper right")
    for ax in (left, right):
        ax.set_xlabel("units")
    words = ", ".join(
        f"from {own[widths[0]]:.3f} to {own[widths[-1]]:.4f} with {name}"
        for name, own in spread.items()
    )
    return Outcome(
        f"Of {n_starts} starts each, the standard deviation of the loss on samples kept aside "
        f"falls between {widths[0]} and {widths[-1]} units {words}.",
        save(figure, __file__, out),
        {"losses": losses, "spread": spread},
    )


if __name__ == "__main__":
    command_line(main)
