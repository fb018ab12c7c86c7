"""L5. The eigenvalues of H tell what a critical point is: all positive, all negative, or both.

A linear autoencoder has one critical point for every set of eigenvectors that it may keep (Baldi
and Hornik 1989), with loss and number of negative eigenvalues known in closed form. Every one of
them is classified here. Only the one that keeps the leading eigenvectors is a minimum. The higher
the loss of a point, the more negative eigenvalues it has.

Not shown: a maximum. A loss with a convex last layer has none, because it never curves downward
along the weights of the last layer.
"""

from itertools import combinations

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    n, p = pick(scale, (4, 2), (6, 3), (10, 4))
    rng = np.random.default_rng(0)
    spectrum = np.geomspace(3.0, 0.5, n)
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    # X'X / n = U l U'
    X = np.sqrt(n) * (np.linalg.qr(rng.standard_normal((n, n)))[0] * np.sqrt(spectrum)) @ U.T
    ob = fc.Objective(fc.MLP([n, p, n], activation="identity", bias=False), X, X, loss="mse")
    rows = []
    for k in range(p + 1):
        for kept in combinations(range(n), k):
            rows.append(judge(ob, U, spectrum, kept, p))
    loss, negative, expected, kinds = map(np.array, zip(*rows))

    ax = plots.new_axes()
    for kind in np.unique(kinds):
        marker, color = plots.MARKERS[str(kind)]
        mine = kinds == kind
        ax.plot(
            negative[mine],
            loss[mine],
            marker,
            color=color,
            mec="white",
            ms=7,
            ls="none",
            label=str(kind),
        )
    ax.set_xlabel("negative eigenvalues")
    ax.set_ylabel("loss")
    right = int(np.sum(negative == expected))
    minima = int(np.sum(kinds == "minimum"))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_title(
        f"{minima} of {len(rows)} critical points is a minimum;\n"
        "higher ones mostly have more negative eigenvalues"
    )
    ax.legend(frameon=False, title=f"{n}-{p}-{n} linear autoencoder")
    return Outcome(
        f"Of the {len(rows)} critical points of a {n}-{p}-{n} linear autoencoder {minima} is a "
        "minimum and "
        f"{int(np.sum(kinds == 'saddle'))} are saddles; the number of negative eigenvalues agrees "
        f"with theory at {right}.",
        save(ax, __file__, out),
        {
            "points": len(rows),
            "minima": minima,
            "right": right,
            "saddles": int(np.sum(kinds == "saddle")),
        },
    )


def judge(ob, U, spectrum, kept, p):
    """Loss, negative eigenvalues, what theory says of them, and the kind, at the point that keeps
    ``kept``.
    """
    n, k = len(spectrum), len(kept)
    W1 = np.zeros((p, n))
    W1[:k] = U[:, kept].T
    theta = np.concatenate([W1.ravel(), W1.T.ravel()])
    point = fc.classify(ob, theta)
    worse = sum(spectrum[j] > spectrum[i] for i in kept for j in range(n) if j not in kept)
    return ob.value(theta), point.n_negative, worse + (p - k) * (n - k), point.kind


if __name__ == "__main__":
    command_line(main)
