"""L10. Initial weights that are too small make gradients vanish, and too large ones saturate or
explode: training works between.

Ten hidden layers, tanh with Xavier's initialisation and relu with He's, have all weights multiplied
by a factor from 1/8 to 8, with five starts each. Left, at the start: for tanh the share of units
within 1% of their limits; for relu the norm of the gradient over all weights, relative to that at
factor 1. Right: the loss after 20 epochs of SGD at the best of five rates, the same for all. A run
that diverged, or that ended above its start, counts with the loss of its start.

Half right: that a gradient that explodes makes the weights diverge. The gradient at the start grows
like the factor to the power of the depth, but whether a run diverges depends on the rate. For relu
with eight times He's scale the softmax is saturated too: the loss is in the millions and the
curvature is 0, as in the picture of gradients by depth.

Not shown: schemes that scale each layer by its own activations, and normalisation, which undoes the
factor (see the picture of skip connections).
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save, select, table_of

import fastcurv as fc
from fastcurv import plots

SCHEMES = {"tanh": "xavier", "relu": "he"}
FACTORS = 2.0 ** np.arange(-3, 4)
RATES = 10.0 ** np.arange(-3, 0.1, 0.75)


def experiment(scale):
    """Return saturation and gradient at the start, and the loss after training at each rate."""
    X, y = digits(500)
    rows = []
    for activation, scheme in SCHEMES.items():
        model = fc.MLP([64] + [24] * 10 + [10], activation=activation)
        ob = fc.Objective(model, X, y, loss="cross_entropy")
        for factor in pick(scale, FACTORS[::3], FACTORS, FACTORS):
            for seed in range(pick(scale, 1, 5, 20)):
                theta = factor * model.init(rng=seed, scheme=scheme)
                g = model.unflatten(ob.gradient(theta))
                hidden = [np.tanh(z) for z in model.preactivations(theta, X)[:-1]]
                start = {
                    "activation": activation,
                    "factor": factor,
                    "seed": seed,
                    "saturated": float(np.mean(np.abs(hidden) > 0.99)),
                    "gradient": float(np.sqrt(sum(np.sum(W**2) for W, _ in g))),
                    "start": float(ob.value(theta)),
                }
                for rate in pick(scale, RATES[2:4], RATES, RATES):
                    rows.append(start | {"rate": rate, "end": final_loss(ob, theta, rate)})
    return rows


def final_loss(ob, theta, rate):
    """Return the loss after 20 epochs, or that of the start if the run diverged or ended above
    it.
    """
    options = {"max_iter": 20, "batch_size": 50, "record_every": 20, "verdict": False}
    run = fc.minimize(ob, theta, "sgd", learning_rate=rate, rng=0, **options)
    return float(ob.value(run.x))


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 4.4))
    left, right = figure.subplots(1, 2)
    other = left.twinx()
    facts = {}
    for (activation, scheme), color in zip(SCHEMES.items(), (plots.BLUE, plots.RED)):
        mine = select(table, activation=activation)
        factors = np.unique(mine["factor"])
        rates = np.unique(mine["rate"])
        ends = np.array(
            [
                min((select(mine, factor=f, rate=r)["end"] for r in rates), key=np.median)
                for f in factors
            ]
        )
        first = select(mine, rate=rates[0])
        quantity = "saturated" if activation == "tanh" else "gradient"
        values = np.array([select(first, factor=f)[quantity] for f in factors])
        if quantity == "gradient":
            values /= np.median(values[np.argmin(abs(factors - 1))])
        ax = left if activation == "tanh" else other
        for panel, shown in ((ax, values), (right, ends)):
            panel.plot(factors, np.median(shown, axis=1), "o-", ms=4, color=color)
            panel.fill_between(
                factors, shown.min(axis=1), shown.max(axis=1), color=color, alpha=0.22, lw=0
            )
        facts[activation] = {
            "ends": dict(zip(factors.tolist(), ends)),
            quantity: dict(zip(factors.tolist(), values)),
        }
        right.plot([], [], color=color, label=f"{activation}, times {scheme.capitalize()}'s")
    left.set_ylabel("tanh: saturated units, share", color=plots.BLUE)
    other.set_ylabel("relu: gradient at the start", color=plots.RED)
    other.set_yscale("log")
    left.set_title("Too large: tanh saturates,\nrelu's gradient explodes")
    right.set(yscale="log", ylabel="loss after training, best rate")
    right.set_title("Training works near\nfactor 1")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks([1 / 8, 1 / 2, 1, 2, 8], labels=["1/8", "1/2", "1", "2", "8"])
        ax.set_xlabel("factor on all weights")
    words = "; ".join(
        f"{activation}: {', '.join(f'{np.median(v):.2g} at {k:g}' for k, v in f['ends'].items())}"
        for activation, f in facts.items()
    )
    return Outcome(
        f"Median loss after training at the best rate, by factor: {words}.",
        save(figure, __file__, out),
        facts,
    )


if __name__ == "__main__":
    command_line(main)
