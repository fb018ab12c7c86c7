"""L15. Training that stops when the loss on held-out samples no longer falls gives the better
network.

There are few samples, some with wrong labels, and a wide network, so it can memorise them. The
training loss keeps falling, the validation loss turns, and stopping there gives the better network.
Left: one run. Right: ten runs, each with its own samples, wrong labels and start, tested on fresh
samples with right labels; stopping early is compared with training to the end.

Not shown: data without wrong labels, where the loss of held-out samples may never turn.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save, table_of

import fastcurv as fc
from fastcurv import plots
from fastcurv.optimize import EarlyStopping


def problem(scale, seed):
    """Return the objective of training with a fifth of the labels wrong, the held-out objective,
    and fresh samples, all of digits.
    """
    X, y = digits(seed=seed)
    rng = np.random.default_rng(seed)
    n = pick(scale, 150, 300, 600)
    train, validation, test = np.split(np.arange(len(X)), [n, n + 300])
    noisy = y.copy()
    wrong = rng.choice(train, n // 5, replace=False)
    noisy[wrong] = rng.integers(10, size=wrong.size)
    model = fc.MLP([64, pick(scale, 32, 64, 128), 10], activation="tanh")
    ob = fc.Objective(model, X[train], noisy[train], loss="cross_entropy")
    held_out = fc.Objective(model, X[validation], y[validation], loss="cross_entropy")
    return ob, held_out, (X[test], y[test])


def train(scale, seed, stop=None):
    """Return the result of Adam after all epochs, or earlier with an `EarlyStopping`."""
    ob, _, _ = problem(scale, seed)
    epochs = pick(scale, 100, 300, 1000)
    usual = {"batch_size": 32, "learning_rate": 3e-3, "rng": seed, "verdict": False}
    start = ob.model.init(rng=seed)
    return fc.minimize(ob, start, "adam", max_iter=epochs, callback=stop, **usual)


def experiment(scale):
    """Return losses of held-out samples and accuracies on fresh ones, with early stopping and at
    the end.
    """
    rows = []
    for seed in range(pick(scale, 5, 10, 10)):
        ob, held_out, (X, y) = problem(scale, seed)
        stopped = train(scale, seed, EarlyStopping(held_out, patience=15))
        to_the_end = train(scale, seed)
        row = {
            "seed": seed,
            "epochs": len(stopped.history["loss"]) - 1,
            "lowest_seen": float(np.min(stopped.history["validation"])),
        }
        for name, run in {"stopped": stopped, "end": to_the_end}.items():
            row[f"loss_{name}"] = float(held_out.value(run.x))
            row[f"right_{name}"] = float(np.mean(ob.model.predict(run.x, X).argmax(axis=1) == y))
        rows.append(row)
    return rows


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 3.8))
    left, right = figure.subplots(1, 2)
    watched = train(scale, 0, EarlyStopping(problem(scale, 0)[1]))
    draw_run(left, watched.history, table["epochs"][0])
    stopped, to_the_end = table["right_stopped"], table["right_end"]
    for color, label, values, place in (
        (plots.GREY, "to the end", to_the_end, 0),
        (plots.RED, "stopped", stopped, 1),
    ):
        right.plot(np.full(values.size, place), 100 * values, "o", color=color, label=label)
    right.plot([0, 1], 100 * np.stack([to_the_end, stopped]), color=plots.GREY, lw=0.8, zorder=0)
    right.set_xticks([0, 1], ["to the end", "stopped"])
    right.set(xlim=(-0.4, 1.4), ylabel="% of fresh samples right")
    better = np.sum(stopped > to_the_end)
    right.set_title(f"Stopping early is better\nin {better} of {stopped.size} draws")
    losses = table["loss_stopped"], table["loss_end"]
    gain = 100 * (stopped - to_the_end)
    return Outcome(
        f"Stopped after {table['epochs'].min()} to {table['epochs'].max()} epochs instead of "
        f"{pick(scale, 100, 300, 1000)}, {np.sum(losses[0] < losses[1])} of {gain.size} networks "
        f"have a lower validation loss (medians {np.median(losses[0]):.2f} and "
        f"{np.median(losses[1]):.2f}), and {np.sum(gain > 0)} have more of the fresh samples "
        f"right, by {gain.min():.1f} to {gain.max():.1f} points.",
        save(figure, __file__, out),
        {"table": table},
    )


def draw_run(ax, history, epochs):
    """Draw both losses of a run to the end, the epoch at which it would have stopped, and the point
    returned then.
    """
    epoch = np.asarray(history["iteration"])
    plots.curve(epoch, history["loss"], ax, label="training loss")
    plots.curve(epoch, history["validation"], ax, label="validation loss")
    validation = np.asarray(history["validation"])[: epochs + 1]
    best = int(np.argmin(validation))
    ax.axvline(epoch[epochs], color=plots.GREY, ls="--", label="stopped here")
    returned = r"the $\theta$ that is returned"
    ax.plot(epoch[best], validation[best], "o", color=plots.RED, ms=8, label=returned)
    ax.set(yscale="log", xlabel="epoch", ylabel="loss")
    ax.set_title("A fifth of the labels wrong:\nthe validation loss turns")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8)


if __name__ == "__main__":
    command_line(main)
