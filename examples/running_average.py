"""L17. A running average of noisy gradients is close to the true gradient, once its bias is
corrected: the average that momentum and Adam keep.

The gradients are those of mini-batches of ten samples at one point of a network that reads digits,
and one component is drawn. The average m = 0.95 m + 0.05 g begins at zero, so it is too small at
first; divided by 1 - 0.95^t it is right from the first step.

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
    theta, rng = ob.model.init(seed=0), np.random.default_rng(0)
    full = ob.gradient(theta)
    largest, n_steps = int(np.argmax(np.abs(full))), 120
    seen, plain, corrected, average = [], [], [], 0.0
    for t in range(1, n_steps + 1):
        rows = rng.choice(len(y), 10, replace=False)
        g = ob.batch(rows).gradient(theta)[largest]
        average = DECAY * average + (1 - DECAY) * g
        seen.append(g)
        plain.append(average)
        corrected.append(average / (1 - DECAY**t))
    true = full[largest]
    seen, plain, corrected = (np.array(x) / true for x in (seen, plain, corrected))
    ax = plots.new_axes(figsize=(7.6, 4.2))
    steps = np.arange(1, n_steps + 1)
    ax.plot(steps, seen, "o", ms=3, color=plots.GREY, alpha=0.6, label="mini-batches")
    ax.plot(steps, plain, color=plots.RED, lw=2, label="running average")
    ax.plot(steps, corrected, color=plots.BLUE, lw=2, label="with its bias corrected")
    ax.axhline(1, color="black", ls="--", lw=1, label="all samples")
    ax.set(xlabel="mini-batch", ylabel="component of the gradient, over the true one")
    ax.set_title("An average is close to the gradient,\nonce its bias is corrected")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, fontsize=9)
    late = np.sqrt(np.mean((corrected[60:] - 1) ** 2)), np.sqrt(np.mean((seen - 1) ** 2))
    early = float(np.mean(plain[:10])), float(np.mean(corrected[:10]))
    return Outcome(
        f"The running average is off by {late[0]:.0%} of the gradient, a mini-batch by "
        f"{late[1]:.0%} (root mean squares). Over the first ten steps the average is "
        f"{early[0]:.2f} of the gradient, and {early[1]:.2f} with its bias corrected.",
        save(ax, __file__, out),
        {"late": late, "early": early},
    )


if __name__ == "__main__":
    command_line(main)
