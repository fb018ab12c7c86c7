"""L11. Through twenty layers, skip connections and batch normalisation keep the gradient alive, and
training works over a wider range of rates.

Deep networks, plain, with `residual=True` and with `batch_norm=True`, have ten starts each; the
last layer is scaled so that all start at the same loss. Left, sigmoid units: the gradient over the
weights of each layer. Middle, tanh units: the share of the loss that a step along -g removes before
Taylor's second-order polynomial is wrong by a tenth of the change that it predicts. Right, tanh
units: the training loss after 40 epochs of SGD with each rate of one grid.

Half right: that batch normalisation makes the surface smooth and training faster. Skip connections
do: the quadratic model holds farther, and the loss is lower at every rate up to 0.3. With batch
normalisation the quadratic model holds less far than in the plain network, and at the plain
network's best rate the loss is no lower. Its advantage is a rate three times as large, at which the
plain network fails.

Not shown: convolutions, other depths, and batch normalisation by the statistics of mini-batches.
Here the statistics are those of all samples, differentiated exactly.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save, select, table_of

import fastcurv as fc
from fastcurv import plots

VARIANTS = {
    "plain": {},
    "skip connections": {"residual": True},
    "batch normalisation": {"batch_norm": True},
}
RATES = 10.0 ** np.arange(-3, 1.1, 0.5)
SIZES = [64] + [24] * 20 + [10]


def experiment(scale):
    """For each variant and start: gradient by layer, trusted fall, loss after training by rate."""
    X, y = digits(1000)
    rows = []

    def note(name, seed, quantity, at, value):
        key = {"variant": name, "seed": seed, "quantity": quantity}
        rows.append(key | {"at": at, "value": float(value)})

    for name, options in VARIANTS.items():
        obs = {
            activation: fc.Objective(
                fc.MLP(SIZES, activation=activation, **options), X, y, loss="cross_entropy"
            )
            for activation in ("sigmoid", "tanh")
        }
        for seed in range(pick(scale, 1, 10, 40)):
            ob = obs["sigmoid"]
            gradient = ob.gradient(level_start(ob, seed))
            for layer, (W, *_) in enumerate(ob.model.unflatten(gradient), 1):
                note(name, seed, "gradient", layer, np.linalg.norm(W))
            ob = obs["tanh"]
            start = level_start(ob, seed)
            note(name, seed, "start", 0, ob.value(start))
            note(name, seed, "trusted fall", 0, trusted_fall(ob, start))
            for rate in pick(scale, RATES[2::4], RATES, RATES):
                note(name, seed, "loss", rate, trained(ob, start, rate))
    return rows


def level_start(ob, seed, spread=0.1):
    """A start whose outputs, before softmax, have this standard deviation."""
    theta = ob.model.init(seed=seed)
    W = ob.model.unflatten(theta)[-1][0]
    W *= spread / ob.model.predict(theta, ob.X).std()
    return theta


def trained(ob, start, rate):
    """The loss after 40 epochs of SGD."""
    run = fc.minimize(
        ob,
        start,
        "sgd",
        max_iter=40,
        batch_size=64,
        learning_rate=rate,
        seed=0,
        verdict=False,
        record_every=40,
    )
    return run.history["loss"][-1]


def trusted_fall(ob, theta, share=0.1):
    """The loss taken off along -g, as a share of it, before Taylor's polynomial errs by `share` of
    the predicted change.
    """
    quadratic, loss = ob.taylor(theta), ob.value(theta)
    direction = -ob.gradient(theta)
    direction /= np.linalg.norm(direction)
    fall = 0.0
    for t in np.geomspace(1e-4, 1e2, 121):
        predicted, found = quadratic(t * direction), ob.value(theta + t * direction)
        if abs(found - predicted) > share * abs(predicted - loss):
            break
        fall = max(fall, loss - found)
    return float(fall / loss)


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 6.6))
    panels = figure.subplot_mosaic([["gradient", "falls"], ["training", "training"]])
    facts = {}
    for place, (name, color) in enumerate(zip(VARIANTS, plots.CYCLE)):
        mine = select(table, variant=name)
        falls = 100 * select(mine, quantity="trusted fall")["value"]
        layers, gradients = by_seed(mine, "gradient")
        rates, losses = by_seed(mine, "loss")
        band(panels["gradient"], layers, gradients, color, name)
        band(panels["training"], rates, losses, color, name)
        spread = 0.25 * np.linspace(-1, 1, falls.size)
        panels["falls"].plot(place + spread, falls, "o", color=color, mec="white", ms=7)
        facts[name] = {
            "start": select(mine, quantity="start")["value"],
            "ratio": gradients[0] / gradients[-1],
            "trusted": falls / 100,
            "losses": dict(zip(rates.tolist(), losses)),
            "range": working_range(rates, losses),
        }
    decorate(panels)
    handles, labels = panels["training"].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    words = "; ".join(
        f"{name}: gradient in the first layer {np.median(f['ratio']):.1g} of that in the last, "
        f"Taylor's polynomial good for a fall of {np.median(f['trusted']):.1%}, loss below 1 at "
        f"rates of {f['range'][0]:.2g} to {f['range'][1]:.2g}"
        for name, f in facts.items()
    )
    n_starts = len(np.unique(table["seed"]))
    return Outcome(
        f"Through {len(SIZES) - 2} layers, medians of {n_starts} starts: {words}.",
        save(figure, __file__, out),
        facts,
    )


def by_seed(table, quantity):
    """Where a quantity was measured, and its values there, (places, seeds)."""
    table = select(table, quantity=quantity)
    places = np.unique(table["at"])
    return places, np.array([select(table, at=at)["value"] for at in places])


def band(ax, x, values, color, name):
    """The median over the starts, in a band from the least to the most."""
    ax.plot(x, np.median(values, axis=1), "o-", ms=3, color=color, label=name)
    ax.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.22, lw=0)


def working_range(rates, losses):
    """The least and the largest rate at which most starts come below a loss of 1."""
    works = rates[np.median(losses, axis=1) < 1]
    return (float(works.min()), float(works.max())) if works.size else (np.nan, np.nan)


def decorate(panels):
    gradient, falls, training = panels["gradient"], panels["falls"], panels["training"]
    gradient.set(yscale="log", xlabel="layer", ylabel="gradient over the weights")
    gradient.set_title("Sigmoid: either keeps the\ngradient of early layers")
    gradient.set_xticks([1, 5, 10, 15, 21])
    falls.set_title("Skip alone: nearer to its\nquadratic picture")
    falls.set(ylabel="% of the loss taken off\nbefore it errs", xlim=(-0.5, 2.5))
    falls.set_ylim(bottom=0)
    falls.set_xticks(range(3), labels=["plain", "skip", "batch norm"])
    training.set(xscale="log", yscale="log", xlabel="learning rate")
    training.set_ylabel("loss after 40 epochs")
    training.set_title("Either learns at larger rates than the plain network")


if __name__ == "__main__":
    command_line(main)
