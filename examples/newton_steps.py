"""L18. Newton's step needs a locally convex surface and a Hessian that may be too large to compute;
other methods need neither.

The network is a linear autoencoder, whose critical points and global minimum are known in closed
form. Left, the starts are 1e-4 away from critical points that are not minima: Newton's method, also
damped or as Newton-MR, ends on them. Right, the starts are random weights of the usual size: from
most of them the same three methods end at no critical point, often at a higher loss than at the
start. Methods that use the sign of the curvature, from products alone, reach the global minimum
from every start.

Half right: that Newton's method is attracted to saddles. It is from nearby; of 60 runs from random
weights one ended on a saddle, and most of the others at no critical point at all. With a smaller
autoencoder, 5-2-5, it reached the minimum from each of four random starts.

Not shown: the time of each step, and objectives outside this family.
"""

from itertools import combinations

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots

METHODS = (
    "newton",
    "damped-newton",
    "newton-mr",
    "saddle-free-newton",
    "newton-cg",
    "trust-region",
    "cubic",
)
SADDLE, MINIMUM, ELSEWHERE = "ends on a saddle", "global minimum", "no critical point"
MARKS = {
    SADDLE: ("X", plots.ORANGE),
    MINIMUM: ("o", plots.GREEN),
    ELSEWHERE: ("s", plots.GREY),
}


def main(scale="normal", out="pictures"):
    n, p = pick(scale, (5, 2), (10, 4), (10, 4))
    rng = np.random.default_rng(0)
    spectrum = np.linspace(3.0, 0.5, n)
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    X = np.sqrt(n) * (np.linalg.qr(rng.standard_normal((n, n)))[0] * np.sqrt(spectrum)) @ U.T
    ob = fc.Objective(fc.MLP([n, p, n], activation="identity", bias=False), X, X, loss="mse")
    best = np.sort(spectrum)[: n - p].sum() / n
    subsets = [kept for kept in combinations(range(n), p) if kept != tuple(range(p))]
    starts = [
        start_near_critical_point(U, subsets[i], rng)
        for i in rng.permutation(len(subsets))[: pick(scale, 4, 20, 100)]
    ]

    count = pick(scale, 4, 20, 100)
    usual = [ob.model.init(rng=seed) for seed in range(count)]
    figure = plots.new_figure((7.6, 4.8))
    panels = figure.subplots(1, 2, sharey=True)
    close, random = run_ends(ob, starts, best), run_ends(ob, usual, best)
    draw_losses(
        panels[0], close, f"{len(starts)} starts next to a saddle:\nNewton's method ends on it"
    )
    draw_losses(
        panels[1], random, f"{count} random starts: Newton mostly\nends at no critical point"
    )
    panels[0].set_ylabel("final loss above the global minimum, relative")
    first = np.median([ob.value(theta) for theta in usual]) / best - 1
    panels[1].axhline(first, color=plots.GREY, lw=0.8, ls="--")
    panels[1].text(6.4, 1.6 * first, "start", ha="right", fontsize=9)
    for name, (marker, color) in MARKS.items():
        panels[0].plot([], [], marker, color=color, label=name)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        frameon=False,
        loc="outside lower center",
        ncols=3,
    )
    reached, drawn, from_random = (
        count_by_method(close, MINIMUM),
        count_by_method(close, SADDLE),
        count_by_method(random, MINIMUM),
    )
    words, others, again = map(format_counts, (reached, drawn, from_random))
    return Outcome(
        f"From {len(starts)} starts 1e-4 away from a critical point that is no minimum, the "
        f"global loss was reached to 1e-8 by: {words}; at a proved saddle above it ended: "
        f"{others}. From {count} random starts the global loss was reached by: {again}.",
        save(figure, __file__, out),
        {
            "starts": len(starts),
            "reached": reached,
            "drawn": drawn,
            "usual": from_random,
            "usual drawn": count_by_method(random, SADDLE),
            "higher": {
                method: sum(gap > first for gap, _ in runs) for method, runs in random.items()
            },
        },
    )


def run_ends(ob, starts, best):
    """Return, for each method and start, the height above the global minimum and the kind of the
    end.
    """
    found = {}
    for method in METHODS:
        found[method] = []
        for theta in starts:
            run = fc.minimize(ob, theta, method, max_iter=200, rng=0)
            gap = (run.fun - best) / best
            saddle = run.kind == "saddle" and run.report.certified
            place = SADDLE if saddle else MINIMUM if gap <= 1e-8 else ELSEWHERE
            found[method].append((max(gap, 1e-16), place))
    return found


def count_by_method(found, wanted):
    """Return how many runs of each method ended at points of the wanted kind."""
    return {method: sum(place == wanted for _, place in runs) for method, runs in found.items()}


def format_counts(numbers):
    return ", ".join(f"{method} {count}" for method, count in numbers.items() if count)


def draw_losses(ax, found, title):
    """Draw final losses by method, with a mark for the kind of the end."""
    for place, runs in enumerate(found.values()):
        spread = place + np.linspace(-0.3, 0.3, len(runs))
        for at, (gap, what) in zip(spread, runs):
            marker, color = MARKS[what]
            ax.plot(at, gap, marker, color=color, ms=6, mew=0, alpha=0.7)
    ax.set(yscale="log", ylim=(1e-17, 1e8))
    ax.set_xticks(range(len(METHODS)), labels=METHODS, rotation=40, ha="right", fontsize=9)
    ax.set_title(title)


def start_near_critical_point(U, kept, rng):
    """Return a point at a distance of 1e-4 from the critical point that keeps the eigenvectors
    ``kept``.
    """
    W1 = U[:, kept].T
    theta = np.concatenate([W1.ravel(), W1.T.ravel()])
    step = rng.standard_normal(theta.size)
    return theta + 1e-4 * step / np.linalg.norm(step)


if __name__ == "__main__":
    command_line(main)
