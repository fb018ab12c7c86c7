"""L2, L10. The training loss of a deep network, compared with that of shallower ones, shows whether
training failed.

This is the lecture's own test. A deep network can compute everything that a shallow one can. If its
loss on the training samples is higher, the optimiser failed, and overfitting is not the reason.
There are five starts of each network, trained by plain SGD at the best of the same seven rates: a
linear network, one hidden layer, twenty layers of tanh, twenty of sigmoid. The last one stays where
the output is the frequency of the classes, at a loss of ln 10.

Half right: that the deep network is then at a point of small gradient. Its gradient over the first
layers is nearly zero (1e-13 of that over the last), but the norm of the whole gradient is not, and
`classify` calls the point not critical.

Not shown: which network classifies new samples best, and other optimisers.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save, select, table_of

import fastcurv as fc
from fastcurv import plots

NETWORKS = {
    "linear": ([64, 10], "tanh"),
    "1 hidden layer": ([64, 24, 10], "tanh"),
    "20 layers, tanh": ([64] + [24] * 20 + [10], "tanh"),
    "20 layers, sigmoid": ([64] + [24] * 20 + [10], "sigmoid"),
}
RATES = 10.0 ** np.arange(-2, 1.1, 0.5)
EPOCHS = 30


def experiment(scale):
    """Return the loss after each epoch, for each network, start and rate."""
    X, y = digits(1000)
    rows = []
    for name, (sizes, activation) in NETWORKS.items():
        ob = fc.Objective(fc.MLP(sizes, activation=activation), X, y, loss="cross_entropy")
        for seed in range(pick(scale, 1, 5, 20)):
            start = ob.model.init(rng=seed)
            for rate in pick(scale, RATES[2:3], RATES, RATES):
                options = {"max_iter": EPOCHS, "batch_size": 64, "record_every": 5}
                run = fc.minimize(
                    ob, start, "sgd", learning_rate=rate, rng=seed, verdict=False, **options
                )
                kind = fc.classify(ob, run.x, max_products=50).kind
                for epoch, loss in zip(run.history["iteration"], run.history["loss"]):
                    row = {"network": name, "seed": seed, "rate": rate, "epoch": int(epoch)}
                    rows.append(row | {"loss": float(loss), "kind": kind})
    return rows


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    ax = plots.new_axes()
    ends, rates, kinds = {}, {}, {}
    for (name, color), style in zip(zip(NETWORKS, plots.CYCLE), ("-", "--", "-.", ":")):
        mine = select(table, network=name)
        rates[name] = best_rate(mine)
        mine = select(mine, rate=rates[name])
        epochs = np.unique(mine["epoch"])
        losses = np.array([select(mine, epoch=epoch)["loss"] for epoch in epochs])
        label = f"{name} (rate {rates[name]:.2g})"
        ax.plot(epochs, np.median(losses, axis=1), style, lw=2, color=color, label=label)
        ax.fill_between(
            epochs, losses.min(axis=1), losses.max(axis=1), color=color, alpha=0.2, lw=0
        )
        ends[name], kinds[name] = losses[-1], sorted(set(mine["kind"].tolist()))
    ax.set(yscale="log", xlabel="epoch", ylabel="training loss")
    ax.set_title("Deeper, and yet a higher training loss:\nthe training failed")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    words = ", ".join(f"{name} {np.median(losses):.2g}" for name, losses in ends.items())
    stuck = kinds["20 layers, sigmoid"][0].replace("_", " ")
    return Outcome(
        f"Training loss after {EPOCHS} epochs at each network's best rate, median of "
        f"{len(next(iter(ends.values())))} starts: {words}; the last, near ln 10 = 2.30, is "
        f"{stuck}.",
        save(ax, __file__, out),
        {"ends": ends, "rates": rates, "kinds": kinds},
    )


def best_rate(table):
    """Return the rate with the least median loss at the end."""
    last = select(table, epoch=table["epoch"].max())
    rates = np.unique(last["rate"])
    losses = [np.median(select(last, rate=rate)["loss"]) for rate in rates]
    return float(rates[int(np.nanargmin(losses))])


if __name__ == "__main__":
    command_line(main)
