"""L11. In networks of twenty layers, skip connections keep the gradient of the first layers from
vanishing, and training works over a wider range of learning rates; so does batch normalisation.

Deep networks, plain, with `residual=True` and with `batch_norm=True`, have five starts each for
every activation; the last layer is scaled so that all start at the same loss. Above left, sigmoid
units: the gradient over the weights of each layer. Above right: the share of the loss that a step
along -g removes before Taylor's second-order polynomial is wrong by a tenth of the change that it
predicts. Below: the training loss after 40 epochs of SGD with each rate of one grid.

Half right: that plain networks fail because the gradient vanishes. With sigmoid units it does, by
twelve orders of magnitude, and they learn nothing at any rate. With tanh and relu units, from
starts of the usual scale, the gradient of the first layer is nearly as large as that of the last;
yet the tanh networks learn in a narrow range of rates, and the relu networks hardly at all.

Half right: that batch normalisation makes the surface smooth. With tanh and relu units the
quadratic model holds less far with it than in the plain network; with skip connections it holds
farther. The advantage of batch normalisation is that larger rates work.

Not shown: convolutions, other depths, and batch normalisation by the statistics of mini-batches.
Here the statistics are those of all samples, differentiated exactly. With skip connections,
`MLP.init` makes the weights of skipped layers smaller the deeper the network is; with the scale of
a plain network, relu networks with skip connections diverge at every rate.
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
ACTIVATIONS = ("tanh", "sigmoid", "relu")
RATES = 10.0 ** np.arange(-2.5, 0.6, 0.5)
TITLES = {
    "tanh": "both learn\nat larger rates",
    "sigmoid": "plain\nlearns nothing",
    "relu": "plain\nhardly learns",
}
SIZES = [64] + [24] * 20 + [10]


def experiment(scale):
    """Return for each variant and start the gradient by layer, the trusted decrease, and the loss
    after training by rate.
    """
    X, y = digits(1000)
    rows = []

    def note(key, quantity, at, value):
        rows.append(key | {"quantity": quantity, "at": at, "value": float(value)})

    for activation in ACTIVATIONS:
        for name, options in VARIANTS.items():
            model = fc.MLP(SIZES, activation=activation, **options)
            ob = fc.Objective(model, X, y, loss="cross_entropy")
            for seed in range(pick(scale, 1, 5, 20)):
                key = {"activation": activation, "variant": name, "seed": seed}
                start = start_with_spread(ob, seed)
                for layer, (W, *_) in enumerate(model.unflatten(ob.gradient(start)), 1):
                    if activation == "sigmoid" or layer in (1, len(SIZES) - 1):
                        note(key, "gradient", layer, np.linalg.norm(W))
                note(key, "start", 0, ob.value(start))
                note(key, "trusted fall", 0, trusted_decrease(ob, start))
                for rate in pick(scale, RATES[3:4], RATES, RATES):
                    note(key, "loss", rate, final_loss(ob, start, rate))
    return rows


def start_with_spread(ob, seed, spread=0.1):
    """Return a start whose outputs, before softmax, have the standard deviation ``spread``."""
    theta = ob.model.init(rng=seed)
    W = ob.model.unflatten(theta)[-1][0]
    W *= spread / ob.model.predict(theta, ob.X).std()
    return theta


def final_loss(ob, start, rate):
    """Return the loss after 40 epochs of SGD."""
    run = fc.minimize(
        ob,
        start,
        "sgd",
        max_iter=40,
        batch_size=64,
        learning_rate=rate,
        rng=0,
        verdict=False,
        record_every=40,
    )
    return run.history["loss"][-1]


def trusted_decrease(ob, theta, share=0.1):
    """Return the decrease along -g, as a fraction of the loss, up to which Taylor's polynomial errs
    by at most `share` of the predicted change.
    """
    H, loss = ob.hessian(theta), ob.value(theta)
    direction = -ob.gradient(theta)
    direction /= np.linalg.norm(direction)
    fall = 0.0
    for t in np.geomspace(1e-4, 1e2, 121):
        d = t * direction
        predicted = loss + H.gradient @ d + 0.5 * H.quadratic_form(d)
        found = ob.value(theta + d)
        if abs(found - predicted) > share * abs(predicted - loss):
            break
        fall = max(fall, loss - found)
    return float(fall / loss)


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 6.6))
    above, below = figure.subfigures(2, 1)
    gradient, falls = above.subplots(1, 2)
    panels = dict(zip(ACTIVATIONS, below.subplots(1, 3, sharey=True)))
    facts = {}
    for place, activation in enumerate(ACTIVATIONS):
        for shift, (name, color) in enumerate(zip(VARIANTS, plots.CYCLE)):
            mine = select(table, activation=activation, variant=name)
            trusted = 100 * select(mine, quantity="trusted fall")["value"]
            layers, gradients = by_seed(mine, "gradient")
            rates, losses = by_seed(mine, "loss")
            if activation == "sigmoid":
                draw_band(gradient, layers, gradients, color, name)
            draw_band(panels[activation], rates, losses, color, name)
            at = place + 0.24 * (shift - 1) + 0.07 * np.linspace(-1, 1, trusted.size)
            falls.plot(at, trusted, "o", color=color, mec="white", ms=6)
            facts[activation, name] = {
                "start": select(mine, quantity="start")["value"],
                "ratio": gradients[0] / gradients[-1],
                "trusted": trusted / 100,
                "losses": dict(zip(rates.tolist(), losses)),
                "range": working_range(rates, losses),
            }
    label_axes(gradient, falls, panels)
    handles, labels = panels["tanh"].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    words = "; ".join(
        f"{activation} "
        + ", ".join(format_range(name, facts[activation, name]["range"]) for name in VARIANTS)
        for activation in ACTIVATIONS
    )
    vanished = np.median(facts["sigmoid", "plain"]["ratio"])
    return Outcome(
        f"Through {len(SIZES) - 2} plain layers of sigmoid units the gradient in the first layer "
        f"is {vanished:.1g} of that in the last. Rates at which most of "
        f"{len(np.unique(table['seed']))} starts come below a loss of 1: {words}.",
        save(figure, __file__, out),
        facts,
    )


def format_range(name, ends):
    """Return a range of rates in words, or that there is none."""
    return f"{name} none" if np.isnan(ends[0]) else f"{name} {ends[0]:.2g} to {ends[1]:.2g}"


def by_seed(table, quantity):
    """Return where a quantity was measured, and its values, (places, seeds)."""
    table = select(table, quantity=quantity)
    places = np.unique(table["at"])
    return places, np.array([select(table, at=at)["value"] for at in places])


def draw_band(ax, x, values, color, name):
    """Draw the median over the starts, in a band from the least to the most."""
    ax.plot(x, np.median(values, axis=1), "o-", ms=3, color=color, label=name)
    ax.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.22, lw=0)


def working_range(rates, losses):
    """Return the least and the largest rate at which most starts reach a loss below 1."""
    works = rates[np.median(losses, axis=1) < 1]
    return (float(works.min()), float(works.max())) if works.size else (np.nan, np.nan)


def label_axes(gradient, falls, panels):
    gradient.set(yscale="log", xlabel="layer", ylabel="gradient over the weights")
    gradient.set_title("Sigmoid: both keep the\ngradient of early layers")
    gradient.set_xticks([1, 5, 10, 15, 21])
    falls.set(yscale="log", xlim=(-0.5, 2.5), ylabel="% of the loss removed\nwhile it holds")
    falls.set_title("Tanh, relu: with skips the\nquadratic model holds farther")
    falls.set_xticks(range(3), labels=ACTIVATIONS)
    panels["tanh"].set_ylabel("loss after 40 epochs")
    for activation, ax in panels.items():
        ax.set(xscale="log", yscale="log", xlabel="learning rate", ylim=(1e-4, 20))
        ax.set_title(f"{activation}: {TITLES[activation]}")


if __name__ == "__main__":
    command_line(main)
