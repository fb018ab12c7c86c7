"""If the hidden units of two networks for digits are matched by a permutation, the barrier between
them is a fraction of what it was, and the wider the networks, the smaller the fraction.

Two networks learn handwritten digits from different starts. Of the copies of the second that
compute the same function, by permuting hidden units and flipping their signs, the nearest to the
first is taken. The loss on the straight line then rises much less. A permutation drawn at random
does not lower the barrier.

Paper: R. Entezari et al., The Role of Permutation Invariance in Linear Mode Connectivity of Neural
Networks, ICLR 2022.

Not shown: a permutation found by the loss itself. The nearest copy is found by distance, and with
one hidden layer it is exact. Nor that the barrier itself falls with the width: with the diabetes
and the breast cancer data it rises, and the fraction falls. With 4 sigmoid units the nearest copy
raised the barrier of one of two pairs, and with random labels the share falls only from 4 and 16
units (0.7 each) to 64 (0.3).
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def reproduce(width, seed):
    """Return the loss on the straight line to a second network, to its nearest copy, and to a copy
    drawn at random.
    """
    X, y = digits(300, n_features=16)
    model = fc.MLP([16, width, 10], activation="tanh")
    ob, adam = fc.Objective(model, X, y), {"learning_rate": 1e-2, "verdict": False}
    starts = [model.init(rng=2 * seed), model.init(rng=2 * seed + 1)]
    a, b = (fc.minimize(ob, start, "adam", max_iter=300, **adam).x for start in starts)
    nearest = fc.structure.nearest_copy(model, a, b)
    order = np.random.default_rng(seed).permutation(width)
    drawn = fc.structure.permute_hidden(model, b, 0, order)
    copies = {"as trained": b, "matched": nearest, "at random": drawn}
    return {
        name: fc.LandscapeDisplay.slice(ob, a, to=copy, n_grid=25).losses
        for name, copy in copies.items()
    }


def main(scale="normal", out="pictures"):
    widths = pick(scale, (4, 16, 64), (4, 8, 16, 32, 64, 128), (4, 8, 16, 32, 64, 128, 256, 512))
    seeds = range(pick(scale, 2, 5, 20))
    lines = {width: [reproduce(width, seed) for seed in seeds] for width in widths}
    names = ("as trained", "at random", "matched")
    barriers = {
        name: {
            width: np.array([barrier_height(run[name]) for run in own])
            for width, own in lines.items()
        }
        for name in names
    }

    figure = plots.new_figure((7.6, 3.9))
    left, right = figure.subplots(1, 2)
    shown = widths[len(widths) // 2]
    looks = dict(zip(names, ((plots.ORANGE, "-"), (plots.GREY, "--"), (plots.BLUE, "-"))))
    t = np.linspace(0, 1, 25)
    for name, (color, dashes) in looks.items():
        left.plot(t, lines[shown][0][name], dashes, color=color, label=name)
        shares = {w: barriers[name][w] / barriers["as trained"][w] for w in widths}
        right.loglog(widths, [np.median(shares[w]) for w in widths], dashes, color=color)
        if name != "as trained":
            for width, own in shares.items():
                right.plot(np.full(own.size, width), own, ".", color=color, ms=5)
    left.set_xlabel("from one network (0) to the other (1)")
    left.set_ylabel("loss")
    left.set_title(f"{shown} units: matching them\nremoves most of the barrier")
    right.set_xticks(widths, [str(width) for width in widths])
    right.minorticks_off()
    right.set_xlabel("hidden units")
    right.set_ylabel("barrier, as trained = 1")
    right.set_title("The share of the barrier that\nremains falls with width")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    return Outcome(
        f"Over {len(seeds)} pairs of networks each, from {widths[0]} to {widths[-1]} units: the "
        f"median barrier falls from {np.median(barriers['as trained'][widths[0]]):.2f} to "
        f"{np.median(barriers['as trained'][widths[-1]]):.3f} as trained, and from "
        f"{np.median(barriers['matched'][widths[0]]):.2f} to "
        f"{np.median(barriers['matched'][widths[-1]]):.4f} once the units are matched: from "
        f"{np.median(shares[widths[0]]):.0%} to {np.median(shares[widths[-1]]):.1%} of what it "
        "was.",
        save(figure, __file__, out),
        {"barriers": barriers, "shares": shares},
    )


def barrier_height(losses):
    """Return the greatest height of the loss above the straight line between its ends."""
    return np.max(losses - np.linspace(losses[0], losses[-1], losses.size))


if __name__ == "__main__":
    command_line(main)
