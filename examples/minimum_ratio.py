"""L8. The minimum ratio, positive eigenvalues over all, against the loss, over many trained
networks.

The lecture's picture: hundreds of networks trained until the gradient is gone, and even at the
lowest losses the ratio stays well below 1; a true minimum is not among them. Here each network
gives three counts, positive, negative and zero within the error bound, because a ratio below 1 may
mean saddles or merely flat directions. The networks are of every width, trained to rest, in the
parameters of the widest. The share of negative eigenvalues is set against the loss above the
lowest; random-matrix theory says its power is 3/2 (Pennington and Bahri 2017).
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from critical import from_narrower, kinds

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    features, width = pick(scale, (5, 4), (8, 8), (12, 12))
    X, y = digits(pick(scale, 100, 200, 500), n_features=features)

    def make(width):
        return fc.Objective(
            fc.MLP([features, width, 10], activation="tanh"), X, y, loss="cross_entropy", l2=1e-3
        )

    ob = make(width)
    found = from_narrower(make, width, pick(scale, 12, 208, 960))
    loss = np.array([point.loss for point in found])
    order = np.argsort(loss)
    counts = {
        name: np.array([getattr(point.verdict, f"n_{name}") for point in found])[order]
        for name in ("positive", "negative", "zero")
    }
    loss = loss[order]
    ratio = counts["positive"] / ob.n_params
    lowest = loss <= np.quantile(loss, 0.25)
    exponent, low, high = fit_exponent(loss, counts["negative"] / ob.n_params)

    share = counts["negative"] / ob.n_params
    figure = picture(loss, counts, ob.n_params, (exponent, low, high))
    return Outcome(
        f"Over {len(found)} trained networks ({kinds(found)}) the minimum ratio "
        f"runs from {ratio.min():.2f} to {ratio.max():.2f}, {ratio[lowest].mean():.2f} on average "
        "in the lowest quarter "
        f"of the losses, where {counts['zero'][lowest].mean() / ob.n_params:.2f} of the "
        "eigenvalues are zero within the "
        f"error and {share[lowest].mean():.2f} negative; the index grows as the excess loss to "
        "the power "
        f"{exponent:.2f} [{low:.2f}, {high:.2f}], where random matrices say 1.50.",
        save(figure, __file__, out),
        {
            "networks": len(found),
            "ratio": ratio,
            "sum": counts["positive"] + counts["negative"] + counts["zero"],
            "n": ob.n_params,
            "correlation": rank_correlation(loss, share),
            "lowest_kind": min(found, key=lambda point: point.loss).verdict.kind,
            "exponent": (exponent, low, high),
        },
    )


def picture(loss, counts, n, fitted):
    """Shares of the eigenvalues against the loss, and the index against the excess loss."""
    exponent, low, high = fitted
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    left.plot(
        loss,
        counts["positive"] / n,
        "o",
        ms=4,
        color=plots.BLUE,
        label="positive: minimum ratio",
    )
    left.plot(loss, counts["negative"] / n, "v", ms=4, color=plots.RED, label="negative")
    left.plot(
        loss,
        counts["zero"] / n,
        "s",
        ms=3,
        color=plots.GREY,
        label="zero within the error",
    )
    left.set_ylim(-0.02, 1.02)
    left.set_xlabel("training loss")
    left.set_ylabel("share of the eigenvalues")
    left.set_title(f"The higher the loss, the more\nways down ({len(loss)} nets)")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    excess = loss - loss.min()
    share = counts["negative"] / n
    some = (share > 0) & (excess > 0)
    right.loglog(excess[some], share[some], "v", ms=4, color=plots.RED)
    right.set_xlabel("training loss above the lowest")
    right.set_ylabel("share of negative eigenvalues")
    right.set_title(f"Exponent {exponent:.2f} [{low:.2f}, {high:.2f}];\nrandom matrices say 1.5")
    return figure


def fit_exponent(loss, share, n_resamples=400, seed=0):
    """``s`` in ``share = c (loss - l0)^s``, l0 the lowest loss, with a 95% bootstrap interval."""
    rng = np.random.default_rng(seed)
    excess = loss - loss.min()
    usable = (share > 0) & (excess > 1e-3 * np.ptp(loss))
    x, y = np.log(excess[usable]), np.log(share[usable])

    def fit(rows):
        return np.polyfit(x[rows], y[rows], 1)[0] if np.ptp(x[rows]) > 0 else np.nan

    everything = np.arange(x.size)
    resampled = [fit(rng.choice(everything, x.size)) for _ in range(n_resamples)]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(fit(everything)), float(low), float(high)


def rank_correlation(a, b):
    from scipy.stats import spearmanr

    return float(spearmanr(a, b)[0])


if __name__ == "__main__":
    command_line(main)
