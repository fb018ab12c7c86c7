"""L11. Batch normalisation keeps the inputs of a layer centred and scaled while the layers before
it learn, by construction; whether the loss ends lower depends on the network and the rate.

Left: the same deep relu network is trained with and without `batch_norm=True`. After every epoch
the inputs of the fifth layer's units are computed for all samples. In the plain network their means
move and their spread grows. With batch normalisation both are constant, since the inputs are shown
after normalisation. Right: the loss at the end against the learning rate.

At test time a sample is predicted alone: with the means and variances of the training samples its
outputs are those that it has among them.

Half right: that internal covariate shift slows training. The plain network, whose inputs move, ends
lower at some rates, with relu and with tanh, and the normalised one at others. Which rates these
are depends on the network: with eight layers of 16 units the order at a given rate is often the
opposite of that with six layers of 24, which are drawn.

Not shown: longer training, and rates that decay.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

NETWORKS = {"plain": False, "batch norm": True}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
SIZES = [64, *[24] * 6, 10], [64, *[16] * 8, 10]  # the networks that are compared


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 300, 1000, 1797))
    epochs = pick(scale, 15, 25, 60)
    sizes = SIZES[0]
    figure = plots.new_figure((8.4, 4.0))
    facts = {}
    *panels, right = figure.subplots(1, 3)
    panels[1].sharey(panels[0])
    for ax, (name, normal) in zip(panels, NETWORKS.items()):
        model = fc.MLP(sizes, activation="relu", batch_norm=normal)
        ob = fc.Objective(model, X, y, loss="cross_entropy")
        start, seen = model.init(rng=0), []

        def look(xk, ob=ob, seen=seen):
            z = preactivations(ob, xk)
            seen.append((z.mean(axis=0), z.std(axis=0)))

        look(start)
        options = {"max_iter": epochs - 1, "batch_size": 64, "rng": 0, "verdict": False}
        run = fc.minimize(ob, start, "sgd", callback=look, **options)
        mean, spread = np.moveaxis(seen, 1, 0)  # (epochs, units) each
        for unit, color in zip(range(3), plots.CYCLE):
            low, high = mean[:, unit] - spread[:, unit], mean[:, unit] + spread[:, unit]
            ax.fill_between(range(epochs), low, high, color=color, alpha=0.2, lw=0)
            ax.plot(mean[:, unit], color=color, lw=2, label=f"unit {unit + 1}")
        if normal:
            known = model.statistics(ob, run.x)
            alone = [model.predict(run.x, row[None], known)[0] for row in X[:20]]
            gap = float(np.abs(alone - ob.outputs(run.x)[0][:20]).max())
        facts[name] = {
            "shift": float(np.mean(np.abs(mean[-1] - mean[0]))),
            "spread": (float(np.mean(spread[0])), float(np.mean(spread[-1]))),
            "loss": float(run.fun),
        }
        ax.set_title(f"{name}:\ninputs of layer 5")
        ax.set_xlabel("epoch")
        ax.legend(frameon=False)
    panels[0].set_ylabel("mean and standard deviation")
    rates = pick(scale, RATES[::2], RATES, RATES)
    n_seeds = pick(scale, 1, 2, 5)
    ends, others = (losses_by_rate(X, y, own, epochs, rates, n_seeds) for own in SIZES)
    draw_losses(right, ends, rates)
    words = "; ".join(
        f"{name}: the means moved by {f['shift']:.2f}, the spread went from "
        f"{f['spread'][0]:.2f} to {f['spread'][1]:.2f}, and the loss ended at {f['loss']:.4f}"
        for name, f in facts.items()
    )
    lower = {
        activation: [
            f"{rate:g}" for rate in rates if ends[activation, rate][0] < ends[activation, rate][1]
        ]
        for activation in ("relu", "tanh")
    }
    return Outcome(
        f"Over {epochs} epochs, {words}. The plain network ends lower at the rates "
        f"{', '.join(lower['relu'])} with relu, and at {', '.join(lower['tanh'])} with tanh.",
        save(figure, __file__, out),
        facts | {"ends": ends, "others": others, "alone": gap},
    )


def losses_by_rate(X, y, sizes, epochs, rates, n_seeds):
    """Return the median losses at the end, without and with batch normalisation, by activation and
    learning rate.
    """
    ends = {}
    for activation in ("relu", "tanh"):
        for rate in rates:
            losses = np.zeros((len(NETWORKS), n_seeds))
            for row, normal in enumerate(NETWORKS.values()):
                model = fc.MLP(sizes, activation=activation, batch_norm=normal)
                ob = fc.Objective(model, X, y, loss="cross_entropy")
                for seed in range(n_seeds):
                    options = {"batch_size": 64, "rng": seed, "learning_rate": rate}
                    run = fc.minimize(
                        ob, model.init(rng=seed), "sgd", max_iter=epochs, verdict=False, **options
                    )
                    losses[row, seed] = run.fun
            ends[activation, rate] = np.median(losses, axis=1).tolist()
    return ends


def draw_losses(ax, ends, rates):
    """Draw the loss at the end against the learning rate, by activation and network."""
    for activation, color in (("relu", plots.BLUE), ("tanh", plots.RED)):
        losses = np.array([ends[activation, rate] for rate in rates])
        for k, (name, style) in enumerate(zip(NETWORKS, ("-", "--"))):
            ax.plot(rates, losses[:, k], style, color=color, marker="o", ms=4)
            ax.plot([], [], style, color=color, label=f"{activation}, {name}")
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="final loss")
    ax.set_title("Which loss is lower\ndepends on the rate")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9, ncols=2)


def preactivations(ob, theta, layer=4):
    """Return the inputs of the units of a hidden layer, before their relu: (N, width)."""
    model, a = ob.model, ob.X
    for l, parts in enumerate(model.unflatten(theta)):
        z = a @ parts[0].T + parts[1]
        if len(parts) > 2:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) * parts[2] + parts[3]
        if l == layer:
            return z
        a = np.maximum(z, 0.0)
    raise ValueError(f"the network has no hidden layer {layer}")


if __name__ == "__main__":
    command_line(main)
