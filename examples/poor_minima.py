"""L1. Poor local minima are real in small networks, and rarer at width 32.

Networks with one hidden layer of 2 to 32 units are trained until they converge, from 20 starts for
each width on each of five data sets. The dots are their losses, and the line the lowest of each
width, which falls with the width. Last panel: the share of starts within 10% of
the lowest loss found, for one, two and four hidden layers of six units.

Half right: "you are unlikely to get stuck in bad local optima so long as the network is reasonably
large". Width helps once there are far more parameters than a fit needs. With fewer it may do harm:
on four of the five data sets, the share of starts that end higher is largest at 4 or 8 units. Depth
at a fixed width follows no such rule.

Not shown: whether the lowest loss found is the lowest there is; fresh data, since all losses are
those of training; widths above 32; and which of the 900 end points are no proved minimum. There are
59 of these, most of them at width 32 and in four layers, where 500 steps of Newton's method did not
converge.
"""

import numpy as np
from common import (
    Outcome,
    command_line,
    pick,
    save,
    select,
    table_of,
    two_spirals,
)

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import

DATA_SETS = ("two spirals", "two moons", "waves", "diabetes", "random labels")
WIDTHS = (2, 3, 4, 6, 8, 16, 32)
DEPTHS = (1, 2, 4)
LEGEND = {"frameon": False, "loc": "outside lower center", "ncols": 6, "fontsize": 9}


def objective(name, sizes, l2=1e-4):
    """Return the objective of one of the data sets, with tanh units."""
    X, y, loss = load_data(name)
    outputs = {"softmax": 3}.get(loss, 1)
    kind = {"mse": "mse", "logistic": "binary_cross_entropy", "softmax": "cross_entropy"}[loss]
    return fc.Objective(fc.MLP([X.shape[1], *sizes, outputs]), X, y, loss=kind, l2=l2)


def load_data(name):
    """Return features, targets, and the loss that fits them."""
    with optional_import("the data", "demo"):
        from sklearn import datasets

    rng = np.random.default_rng(0)
    if name == "two spirals":
        X, y = two_spirals(100, noise=0.1, turns=1.5)
        return X, y.astype(float), "logistic"
    if name == "two moons":
        X, y = datasets.make_moons(100, noise=0.15, random_state=0)
        return (X - X.mean(axis=0)) / X.std(axis=0), y.astype(float), "logistic"
    if name == "waves":
        X = rng.uniform(-2, 2, (100, 2))
        return X, np.sin(3 * X[:, 0]) * np.cos(2 * X[:, 1]), "mse"
    rows = rng.permutation(150)[:100]
    if name == "random labels":
        X, y = datasets.load_iris(return_X_y=True)
        X, y = X[rows], rng.permutation(y[rows])
        return (X - X.mean(axis=0)) / X.std(axis=0), y, "softmax"
    X, y = datasets.load_diabetes(return_X_y=True)
    X, y = X[rows][:, [2, 3, 7, 8]], y[rows]
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std(), "mse"


def experiment(scale):
    """Return the loss at the end from each start, and whether a minimum is proved."""
    rows = []
    for name in pick(scale, DATA_SETS[:1], DATA_SETS, DATA_SETS):
        for width in pick(scale, (2, 16), WIDTHS, WIDTHS):
            rows += losses_of_starts(name, [width], scale)
        for depth in pick(scale, (), DEPTHS[1:], DEPTHS[1:]):
            rows += losses_of_starts(name, [6] * depth, scale)
    return rows


def losses_of_starts(name, sizes, scale):
    ob = objective(name, sizes)
    rows = []
    for seed in range(pick(scale, 20, 20, 60)):
        theta = ob.model.init(rng=seed)
        adam = {"max_iter": 300, "learning_rate": 3e-2, "verdict": False}
        theta = fc.minimize(ob, theta, "adam", **adam).x
        run = fc.minimize(ob, theta, "newton-cg", max_iter=500, rng=0)
        proved = run.kind == "minimum" and run.report.certified
        key = {"data": name, "width": sizes[0], "depth": len(sizes), "seed": seed}
        rows.append(key | {"loss": float(run.fun), "proved": int(proved)})
    return rows


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    names = list(dict.fromkeys(table["data"].tolist()))
    figure = plots.new_figure((7.6, 5.4))
    *panels, last = figure.subplots(2, 3).flat
    shares = {}
    for ax, name, color in zip(panels, names, plots.CYCLE):
        mine = select(table, data=name)
        by_width, by_depth = select(mine, depth=1), select(mine, width=6)
        shares[name] = {"width": good_shares(by_width, "width")}
        shares[name]["depth"] = good_shares(by_depth, "depth") if by_depth["loss"].size else {}
        draw_losses(ax, by_width)
        ax.set_title(name)
        draw_shares(last, shares[name]["depth"], color, name)
    last.set_xticks(DEPTHS)
    last.set(xlabel="hidden layers of 6", ylabel="share within 10%", ylim=(-0.03, 1.06))
    last.set_title("Depth: no such rule")
    figure.suptitle("The wider the network, the lower the losses of 20 starts")
    for ax in panels[::3]:
        ax.set_ylabel("training loss")
    lines = [ax.get_legend_handles_labels() for ax in (panels[0], last)]
    figure.legend(*(sum(parts, []) for parts in zip(*lines)), **LEGEND)
    of = int(np.unique(table["seed"]).size)
    widest = max(shares[names[0]]["width"])
    words = ", ".join(f"{name} {shares[name]['width'][widest][0]}" for name in names)
    least = min(min(k for k, _ in share["width"].values()) for share in shares.values())
    return Outcome(
        f"At width {widest} this many of {of} starts end within 10% of the best: {words}; at some "
        f"smaller width only {least}. {table['proved'].sum()} of {table['proved'].size} ends are "
        "proved minima.",
        save(figure, __file__, out),
        {"shares": shares, "table": table},
    )


def good_shares(table, at):
    """Return for each width or depth how many starts end within 10% of the lowest loss, and of how
    many.
    """
    losses = {int(place): select(table, **{at: place})["loss"] for place in np.unique(table[at])}
    return {place: (int(np.sum(x <= 1.1 * x.min())), x.size) for place, x in losses.items()}


def draw_losses(ax, table):
    """Draw the loss of every start by width, and the lowest of each width as a line."""
    widths = np.unique(table["width"])
    lowest = [table["loss"][table["width"] == width].min() for width in widths]
    ax.plot(widths, lowest, color=plots.GREEN, lw=1, label="lowest found")
    for width in widths:
        losses = select(table, width=width)["loss"]
        spread = 1 + 0.1 * np.linspace(-1, 1, losses.size)
        ax.plot(width * spread, losses, "o", ms=3, alpha=0.5, mew=0, color=plots.BLUE)
    ax.set(xscale="log", yscale="log", xlabel="hidden units")
    ax.set_xticks(WIDTHS, labels=[str(width) if width != 3 else "" for width in WIDTHS])
    ax.minorticks_off()


def draw_shares(ax, shares, color, name):
    """Draw the shares of good starts by depth."""
    values = [k / of for k, of in shares.values()]
    ax.plot(list(shares), values, "o-", ms=4, lw=1.3, color=color, label=name)


if __name__ == "__main__":
    command_line(main)
