"""L18. Newton's step needs a locally convex surface and a Hessian that may be too large to compute;
other methods need neither.

The starts are next to critical points of a linear autoencoder that are not minima. Newton's method,
also damped or as Newton-MR, is attracted to them. Methods that use the sign of the curvature, from
products alone, reach the global minimum, which is known in closed form.

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
        near(U, subsets[i], rng) for i in rng.permutation(len(subsets))[: pick(scale, 4, 20, 100)]
    ]

    ax = plots.new_axes(figsize=(7.2, 4.6))
    ends, drawn, elsewhere = {}, {}, 0
    spread = np.linspace(-0.3, 0.3, len(starts))
    for place, method in enumerate(METHODS):
        runs = [fc.minimize(ob, theta, method, max_iter=200, seed=0) for theta in starts]
        ends[method] = [(run.fun - best) / best for run in runs]
        gaps = np.maximum(ends[method], 1e-16)
        on_saddle = np.array([run.kind == "saddle" and run.report.certified for run in runs])
        there = gaps <= 1e-8
        drawn[method] = int(np.sum(on_saddle))
        elsewhere += int(np.sum(~there & ~on_saddle))
        for mine, color, marker in (
            (on_saddle, plots.RED, "X"),
            (there & ~on_saddle, plots.GREEN, "o"),
            (~there & ~on_saddle, plots.GREY, "s"),
        ):
            ax.semilogy(
                place + spread[mine], gaps[mine], marker, color=color, ms=6, mew=0, alpha=0.7
            )
    ax.axhline(1e-8, color=plots.GREY, lw=0.8, ls=":")
    ax.plot([], [], "X", color=plots.RED, label="ends on a saddle")
    ax.plot([], [], "o", color=plots.GREEN, label="reaches the global minimum")
    if elsewhere:
        ax.plot([], [], "s", color=plots.GREY, label="ends elsewhere")
    ax.set_xticks(range(len(METHODS)), labels=METHODS, rotation=25, ha="right")
    ax.set_ylabel(f"final loss above the global minimum ({len(starts)} starts)")
    ax.set_title("Newton's step is drawn to saddles;\nthe methods on the right leave them")
    ax.legend(frameon=False, loc="lower left")
    reached = {method: int(np.sum(np.abs(gaps) <= 1e-8)) for method, gaps in ends.items()}
    words = ", ".join(f"{method} {count}" for method, count in reached.items() if count)
    others = ", ".join(f"{method} {count}" for method, count in drawn.items() if count)
    return Outcome(
        f"From {len(starts)} starts 1e-4 away from a critical point that is no minimum, the "
        "global loss was reached to "
        f"1e-8 by: {words}; drawn to a proved saddle above it: {others}.",
        save(ax, __file__, out),
        {"starts": len(starts), "reached": reached, "drawn": drawn},
    )


def near(U, kept, rng):
    """1e-4 from the critical point that keeps the eigenvectors ``kept``."""
    W1 = U[:, kept].T
    theta = np.concatenate([W1.ravel(), W1.T.ravel()])
    step = rng.standard_normal(theta.size)
    return theta + 1e-4 * step / np.linalg.norm(step)


if __name__ == "__main__":
    command_line(main)
