"""L15. Stop when the loss on held-out samples no longer falls, and keep the best theta.

Few samples with some wrong labels and a wide network, so that it can learn them by heart: the
training loss falls on, the validation loss turns, and stopping there gives the better network.

Not shown: other seeds, and data without wrong labels, where the loss of held-out samples may never
turn.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits()
    rng = np.random.default_rng(0)
    n = pick(scale, 150, 300, 600)
    train, validation, test = np.split(np.arange(len(X)), [n, n + 300])
    noisy = y.copy()
    wrong = rng.choice(train, n // 5, replace=False)
    noisy[wrong] = rng.integers(10, size=wrong.size)
    model = fc.MLP([64, pick(scale, 32, 64, 128), 10], activation="tanh")
    ob = fc.Objective(model, X[train], noisy[train], loss="cross_entropy")
    held_out = fc.Objective(model, X[validation], y[validation], loss="cross_entropy")
    options = {
        "max_iter": pick(scale, 100, 300, 1000),
        "batch_size": 32,
        "learning_rate": 3e-3,
        "seed": 0,
    }
    start = model.init(seed=0)
    to_the_end = fc.minimize(ob, start, "adam", **options)
    stopped = fc.minimize(ob, start, "adam", validation=held_out, patience=15, **options)
    accuracy = {
        name: float(np.mean(model.predict(result.x, X[test]).argmax(axis=1) == y[test]))
        for name, result in {"stopped": stopped, "to the end": to_the_end}.items()
    }
    losses = {
        "stopped": held_out.value(stopped.x),
        "to the end": held_out.value(to_the_end.x),
    }
    epochs = len(stopped.history["loss"]) - 1

    watched = fc.minimize(ob, start, "adam", validation=held_out, **options)
    history = watched.history
    ax = plots.new_axes()
    plots.curve(history["iteration"], history["loss"], ax, label="training loss")
    plots.curve(history["iteration"], history["validation"], ax, label="validation loss")
    best = int(np.argmin(stopped.history["validation"]))
    at = stopped.history["iteration"][best], stopped.history["validation"][best]
    ax.axvline(stopped.history["iteration"][-1], color=plots.GREY, ls="--", label="stopped here")
    ax.plot(*at, "o", color=plots.RED, ms=8, label=r"the $\theta$ that is returned")
    ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.set_title(
        "A fifth of the labels wrong: the training loss\nfalls on, the validation loss turns"
    )
    ax.legend(frameon=False)
    return Outcome(
        f"Stopped after {epochs} of {options['max_iter']} epochs, the network has a validation "
        "loss of "
        f"{losses['stopped']:.3f} instead of {losses['to the end']:.3f} and "
        f"{accuracy['stopped']:.1%} instead of "
        f"{accuracy['to the end']:.1%} of fresh samples right.",
        save(ax, __file__, out),
        {
            "losses": losses,
            "accuracy": accuracy,
            "epochs": epochs,
            "best": min(stopped.history["validation"]),
        },
    )


if __name__ == "__main__":
    command_line(main)
