"""L1. The more parameters, the more of the critical points that a search meets are saddles.

A student network learns what a teacher of ten units computes. Walks on the gradient's norm, which
saddles attract as minima do, start from networks trained for a while; what they reach is judged.
Points that are critical because nothing passes through the network are trivial: they are counted
apart and left out of the share. At every size the lowest point is a minimum.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots

SHOWN = ("minimum", "saddle", "degenerate", "undecided")


def main(scale="normal", out="pictures"):
    X = np.random.default_rng(0).standard_normal((200, 3))
    teacher = fc.MLP([3, 10, 2])
    y = teacher.predict(5 * teacher.init(seed=1), X)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    samples = {}
    for width in pick(scale, (1, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5, 6)):
        ob = fc.Objective(fc.MLP([3, width, 2]), X, y, loss="mse", l2=1e-4)
        samples[ob.n_params] = fc.sample_critical_points(
            ob,
            pick(scale, 10, 40, 400),
            sources="walk",
            epochs=(50, 2000),
            max_iter=200,
            seed=0,
        )

    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    bars(left, samples)
    shown = set()
    for place, sample in enumerate(samples.values()):
        for kind in SHOWN:
            losses = [point.loss for point in sample.nontrivial if point.kind == kind]
            marker, color = plots.MARKERS[kind]
            spread = place + 0.16 * (np.arange(len(losses)) % 5 - 2) / 2
            label = kind if losses and kind not in shown else None
            shown |= {kind} if losses else set()
            right.plot(spread, losses, marker, color=color, mec="white", ms=7, label=label)
    right.set_xticks(range(len(samples)), labels=samples)
    right.set_title("At every size the lowest\npoints are minima")
    right.set_xlabel("parameters $n$")
    right.set_ylabel("loss, trivial points left out")
    right.set_yscale("log")
    right.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], labels=["0.02", "0.05", "0.1", "0.2", "0.5"])
    right.minorticks_off()
    right.legend(frameon=False)
    shares = [share(sample) for sample in samples.values()]
    n = list(samples)
    trivial = sum(len(sample.trivial) for sample in samples.values())
    return Outcome(
        f"Of the critical points that pass something on, {shares[0]:.0%} are saddles at n = {n[0]} "
        f"and {shares[-1]:.0%} at n = {n[-1]}; {trivial} trivial points are counted apart.",
        save(figure, __file__, out),
        {
            "n": n,
            "shares": shares,
            "found": [len(sample.nontrivial) for sample in samples.values()],
            "trivial": trivial,
            "losses": [
                {kind: [p.loss for p in s.nontrivial if p.kind == kind] for kind in SHOWN}
                for s in samples.values()
            ],
        },
    )


def share(sample):
    """Saddles among the points that are not trivial."""
    return sample.counts().get("saddle", 0) / max(1, len(sample.nontrivial))


def bars(ax, samples):
    """For each n the kinds in percent of the points that are not trivial; the counts above."""
    below = np.zeros(len(samples))
    for kind in SHOWN:
        counts = np.array([sample.counts().get(kind, 0) for sample in samples.values()])
        heights = 100 * counts / [max(1, len(sample.nontrivial)) for sample in samples.values()]
        if counts.any():
            color = plots.MARKERS[kind][1]
            ax.bar(range(len(samples)), heights, bottom=below, color=color, label=kind, width=0.7)
        below += heights
    for place, sample in enumerate(samples.values()):
        words = f"{len(sample.nontrivial)} points,\n{len(sample.trivial)} trivial"
        ax.text(place, 102, words, ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(samples)), labels=samples)
    ax.set_ylim(0, 135)
    ax.set_yticks(range(0, 101, 25))
    ax.set_title("The share of saddles\ngrows with $n$")
    ax.set_xlabel("parameters $n$")
    ax.set_ylabel("% of the points\nthat are not trivial")
    ax.legend(frameon=False, ncols=3, loc="upper center")


if __name__ == "__main__":
    command_line(main)
