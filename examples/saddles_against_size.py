"""L1. In high dimension a point of zero gradient is almost surely a saddle, hardly ever a poor
minimum.

Networks from a handful of parameters to dozens, trained for a while from many starts; from there
walks on the gradient's norm, which saddles attract as minima do. Each critical point they reach is
classified: the share of saddles grows with n, and what minima there are lie at low loss.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from critical import from_walks

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 60, 150, 400), n_features=4)
    y = (y % 2).astype(float)
    rows = []
    for width in pick(scale, (1, 4), (1, 2, 3, 5, 8, 12), (1, 2, 3, 5, 8, 12, 20, 30)):
        model = fc.MLP([4, width, 1], activation="tanh")
        ob = fc.Objective(model, X, y, loss="binary_cross_entropy", l2=1e-4)
        found = from_walks(ob, pick(scale, 8, 40, 200))
        rows.append((model.n_params, found))

    figure = plots.new_figure((10.0, 3.8))
    left, right = figure.subplots(1, 2)
    n = [n for n, _ in rows]
    shares = [np.mean([p.verdict.kind == "saddle" for p in found]) for _, found in rows]
    errors = [np.sqrt(s * (1 - s) / len(found)) for s, (_, found) in zip(shares, rows)]
    left.errorbar(n, shares, errors, fmt="o-", color=plots.ORANGE)
    left.set_title("The share of saddles grows with n")
    left.set_ylim(-0.03, 1.03)
    left.set_xlabel("number of parameters n")
    left.set_ylabel("saddles among the critical points")
    draw_losses(rows, right)
    right.set_title("Minima lie low")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xticks(n, labels=n)
        ax.minorticks_off()
    right.set_xlabel("number of parameters n")
    right.set_ylabel("loss")
    right.legend(frameon=False)
    everything = [point for _, found in rows for point in found]
    saddle_loss = np.mean([p.loss for p in everything if p.verdict.kind == "saddle"])
    minima = [p.loss for p in everything if p.verdict.kind == "minimum"]
    words = f"{np.mean(minima):.3f} at the {len(minima)} minima" if minima else "no minimum was met"
    return Outcome(
        f"Of the critical points found, {shares[0]:.0%} are saddles at n = {n[0]} and "
        f"{shares[-1]:.0%} at n = {n[-1]}; "
        f"the mean loss is {saddle_loss:.3f} at the saddles and {words}.",
        save(figure, __file__, out),
        {
            "n": n,
            "shares": shares,
            "found": [len(found) for _, found in rows],
            "saddle_loss": saddle_loss,
            "minimum_loss": float(np.mean(minima)) if minima else None,
        },
    )


def draw_losses(rows, ax):
    """Every critical point at its loss, by kind."""
    seen = set()
    for size, found in rows:
        for point in found:
            marker, color = plots.MARKERS[point.verdict.kind]
            label = None if point.verdict.kind in seen else point.verdict.kind
            seen.add(point.verdict.kind)
            ax.plot(
                size,
                point.loss,
                marker,
                color=color,
                ms=6,
                alpha=0.6,
                mec="white",
                ls="none",
                label=label,
            )


if __name__ == "__main__":
    command_line(main)
