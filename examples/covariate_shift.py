"""L11. Batch normalisation keeps the inputs of a layer centred and scaled while the layers before
it learn, by construction; but the network without it ends at a lower loss.

The same deep relu network is trained with and without `batch_norm=True`. After every epoch the
inputs of the fifth layer's units are computed for all samples. In the plain network their means
move and their spread grows sixfold. With batch normalisation both are constant, since the inputs
are shown after normalisation.

Half right: that internal covariate shift slows training. The plain network, whose inputs move, has
the lower loss after the same number of epochs.

Not shown: other activations, whose means may move less, and other learning rates.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

MOVES = {"plain": "move", "batch norm": "do not"}


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 300, 1000, 1797))
    epochs = pick(scale, 15, 25, 60)
    sizes = [64] + [24] * 6 + [10]
    figure = plots.new_figure((7.6, 3.8))
    facts = {}
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (name, normal) in zip(panels, {"plain": False, "batch norm": True}.items()):
        model = fc.MLP(sizes, activation="relu", batch_norm=normal)
        ob = fc.Objective(model, X, y, loss="cross_entropy")
        start, seen = model.init(seed=0), []

        def look(xk, ob=ob, seen=seen):
            z = preactivations(ob, xk)
            seen.append((z.mean(axis=0), z.std(axis=0)))

        look(start)
        options = {"max_iter": epochs - 1, "batch_size": 64, "seed": 0, "verdict": False}
        run = fc.minimize(ob, start, "sgd", callback=look, **options)
        mean, spread = np.moveaxis(seen, 1, 0)  # (epochs, units) each
        for unit, color in zip(range(3), plots.CYCLE):
            low, high = mean[:, unit] - spread[:, unit], mean[:, unit] + spread[:, unit]
            ax.fill_between(range(epochs), low, high, color=color, alpha=0.2, lw=0)
            ax.plot(mean[:, unit], color=color, lw=2, label=f"unit {unit + 1}")
        facts[name] = {
            "shift": float(np.mean(np.abs(mean[-1] - mean[0]))),
            "spread": (float(np.mean(spread[0])), float(np.mean(spread[-1]))),
            "loss": float(run.fun),
        }
        ax.set_title(f"{name}: inputs of layer 5\n{MOVES[name]}; final loss {run.fun:.4f}")
        ax.set_xlabel("epoch")
        ax.legend(frameon=False)
    panels[0].set_ylabel("mean and standard deviation over the samples")
    words = "; ".join(
        f"{name}: the means moved by {f['shift']:.2f}, the spread went from "
        f"{f['spread'][0]:.2f} to {f['spread'][1]:.2f}, and the loss ended at {f['loss']:.4f}"
        for name, f in facts.items()
    )
    return Outcome(f"Over {epochs} epochs, {words}.", save(figure, __file__, out), facts)


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
