"""L1, L2, L5. Of 270 trainings of small networks from random weights 25 ended at a minimum and none
at a saddle: only with weight decay and all samples at each step did training get so far.

Networks with 52 to 194 parameters learn the wine data, digits and two spirals, each from five
starts, with and without weight decay. Nine trainings are compared: SGD and Adam with mini-batches
of 32 samples and a constant or a decaying learning rate (500 epochs); gradient descent, momentum
and Adam, at both rates, with all samples at each step (10 000 steps); and L-BFGS, until it stops by
itself. The axis is the decrease that Newton's step would still give at the end, as a share of the
loss there: about 1 for random weights, and at most 1e-8 at a critical point.

Half right: that training stops where the gradient vanishes, and that one must then ask whether this
is a minimum or a saddle. With mini-batches, at constant or decaying rates, Newton's step would
still gain more than 1% of the loss. With all samples and weight decay 25 of 75 trainings end at a
minimum, and the others approach one: the trust-region method, continued from the end, reaches a
minimum every time. These counts depend on the tolerance: 7 of the 75 would gain at most 1e-9 of the
loss, 26 at most 1e-8 (one of these is undecided) and 44 at most 1e-7. Without weight decay there is
nothing to end at, because the loss falls to 0 as the weights grow. At 129 of 135 ends Newton's step
would gain 0.4 to 1.5 of the loss, 0.55 in the median, where exp(-t) has 0.5, and only the loss
itself tells trained from random weights. The others are three ends of L-BFGS on the digits, which
gain less than 1e-5 at losses of 0.005 and 0.012, and three ends on the spirals, with 3 to 5.

Not shown: larger networks and data, and trainings that are continued for hours. From equal hidden
units, which gradient steps keep equal, training ends at a saddle: it did so in 8 of 8 tries.
"""

import numpy as np
from common import (
    Outcome,
    command_line,
    constant_then_decay,
    digits,
    pick,
    save,
    select,
    table_of,
    two_spirals,
)

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import

PENALTIES = (0.0, 1e-3)
EPOCHS = {"mini-batches": 500, "full batches": 10_000}
RANDOM = "random weights"


# by name: the method, what a step uses, and the options of the learning rate
TRAININGS = {
    "SGD": ("sgd", "mini-batches", {"learning_rate": 0.1}),
    "SGD, decaying": ("sgd", "mini-batches", {"learning_rate": constant_then_decay(0.1, 1000)}),
    "Adam": ("adam", "mini-batches", {"learning_rate": 3e-3}),
    "Adam, decaying": ("adam", "mini-batches", {"learning_rate": constant_then_decay(3e-3, 1000)}),
    "gradient descent": ("sgd", "full batches", {"learning_rate": 0.5}),
    "momentum": ("momentum", "full batches", {"learning_rate": 0.1}),
    "Adam, all samples": ("adam", "full batches", {"learning_rate": 0.01}),
    "Adam, all samples, decaying": (
        "adam",
        "full batches",
        {"learning_rate": constant_then_decay(0.01, 1000)},
    ),
    "L-BFGS": ("lbfgs", "full batches", {}),
}


def load_problems():
    """Return features, labels and layer sizes by name."""
    with optional_import("the data", "demo"):
        from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    return {
        "wine": ((X - X.mean(axis=0)) / X.std(axis=0), y, [13, 8, 3]),
        "digits": (*digits(400, n_features=12), [12, 8, 10]),
        "spirals": (*two_spirals(), [2, 10, 2]),
    }


def experiment(scale):
    """Train in every way from every start, and continue by the trust-region method from the end."""
    rows = []
    for name, (X, y, sizes) in load_problems().items():
        for l2 in PENALTIES:
            ob = fc.Objective(fc.MLP(sizes), X, y, loss="cross_entropy", l2=l2)
            for seed in range(pick(scale, 1, 5, 20)):
                start = ob.model.init(rng=seed)
                for training in (RANDOM, *TRAININGS):
                    shorter = pick(scale, 20, 1, 1)
                    theta = (
                        start if training == RANDOM else train(ob, start, training, seed, shorter)
                    )
                    setting = {"data": name, "l2": l2, "training": training, "seed": seed}
                    rows.append(setting | facts_at_end(ob, start, theta))
    return rows


def train(ob, start, training, seed, shorter=1):
    """Train and return the end. The number of epochs is divided by `shorter`."""
    method, batches, options = TRAININGS[training]
    if batches == "mini-batches":
        options = options | {"batch_size": 32}
    max_iter = EPOCHS[batches] // shorter
    return fc.minimize(ob, start, method, max_iter=max_iter, rng=seed, verdict=False, **options).x


def facts_at_end(ob, start, theta):
    """Return the verdict on the end of a training, what Newton's step would still gain there, and
    where descent by the trust-region method leads from there.
    """
    verdict = fc.classify(ob, theta)
    down = fc.minimize(ob, theta, "trust-region", max_iter=500, rng=0)
    return {
        "n": ob.n_params,
        "start_loss": float(ob.value(start)),
        "loss": float(ob.value(theta)),
        "gain": newton_gain(ob, theta),
        "kind": verdict.kind,
        "negative": fc.inertia(ob.hessian(theta)).n_negative,
        "down_kind": fc.classify(ob, down.x).kind,
        "down_stopped": down.stopped,
        "down_loss": float(down.fun),
        "distance": float(np.linalg.norm(down.x - theta) / np.linalg.norm(theta)),
    }


def newton_gain(ob, theta):
    """Return the decrease of the loss that a Newton step predicts, g'|H|^-1 g / 2: with |H|, the
    step descends along negative curvature, too.
    """
    eigenvalues, vectors = np.linalg.eigh(ob.hessian(theta).to_dense())
    slopes = vectors.T @ ob.gradient(theta)
    sizes = np.abs(eigenvalues)
    rounding = sizes.size * np.finfo(float).eps * sizes.max()
    return float(np.sum(slopes**2 / np.maximum(sizes, rounding)) / 2)


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 4.6))
    left, right = figure.subplots(1, 2)
    draw_trainings(left, table)
    draw_losses(right, table)
    facts = count_facts(table)
    return Outcome(
        f"Of {facts['trainings']} trainings {facts['minima']} ended at a minimum and "
        f"{facts['saddles']} at a saddle; all of these had weight decay and used all samples at "
        f"each step ({facts['minima in full batches']} of {facts['full batches']}). With "
        f"mini-batches and weight decay Newton's step would still gain "
        f"{facts['mini share'][0]:.1%} of the loss or more; without weight decay it gains "
        f"{facts['plain share']:.0%} of the loss in the median, however low the loss.",
        save(figure, __file__, out),
        facts | {"table": table},
    )


def count_facts(table):
    """Return the numbers of the heading."""
    trained = table["training"] != RANDOM
    decay = table["l2"] > 0
    share, loss = table["gain"] / table["loss"], table["loss"] / table["start_loss"]
    mini = np.array([batches_of(name) == "mini-batches" for name in table["training"]])
    ended = trained & (table["kind"] == "minimum")
    full = trained & decay & ~mini

    def ends(of):
        return float(of.min()), float(np.median(of)), float(of.max())

    return {
        "trainings": int(trained.sum()),
        "minima": int(ended.sum()),
        "saddles": int(np.sum(trained & (table["kind"] == "saddle"))),
        "full batches": int(full.sum()),
        "minima in full batches": int(np.sum(ended & full)),
        "random share": ends(share[~trained]),
        "mini share": ends(share[trained & decay & mini]),
        "full share": ends(share[full]),
        "plain share": float(np.median(share[trained & ~decay])),
        "losses": ends(loss[trained]),
        "penalised": int(np.sum(trained & decay)),
        "minima below": int(np.sum((trained & decay) & (table["down_kind"] == "minimum"))),
        "minima below without": int(np.sum((trained & ~decay) & (table["down_kind"] == "minimum"))),
    }


def batches_of(training):
    """Return what a step of a training uses, or the name for random weights."""
    return RANDOM if training == RANDOM else TRAININGS[training][1]


COLORS = {RANDOM: plots.GREY, "mini-batches": plots.RED, "full batches": plots.BLUE}


def draw_trainings(ax, table):
    """Draw what Newton's step would gain with weight decay, by training."""
    mark_critical(ax.axvspan)
    names = [RANDOM, *TRAININGS]
    for row, training in enumerate(names):
        mine = select(select(table, training=training), l2=PENALTIES[1])
        share = np.clip(mine["gain"] / mine["loss"], *LIMITS)
        heights = row + np.linspace(-0.25, 0.25, share.size)
        ended = mine["kind"] == "minimum"
        color = COLORS[batches_of(training)]
        ax.plot(share[~ended], heights[~ended], "o", ms=4.5, mew=0, alpha=0.6, color=color)
        ax.plot(share[ended], heights[ended], "o", ms=5, color=plots.GREEN)
    ax.text(3e-10, 0.1, "minima", color=plots.GREEN, ha="center")
    ax.set(xscale="log", xlim=LIMITS, ylim=(len(names) - 0.5, -0.5))
    ax.set_xlabel("Newton's step would still gain\n(share of the loss)")
    ax.set_xticks([1e-9, 1e-6, 1e-3, 1])
    ax.minorticks_off()
    ax.text(1e-6, 2.5, "mini-batches", color=plots.RED, ha="center", va="center")
    ax.text(1e-1, 7.5, "all samples", color=plots.BLUE, ha="center", va="center")
    ax.set_yticks(range(len(names)), [name.replace(", all samples", "") for name in names])
    for label, training in zip(ax.get_yticklabels(), names):
        label.set_color(COLORS[batches_of(training)])
    ax.set_title("With weight decay and all samples,\nsome end at minima")


def draw_losses(ax, table):
    """Draw what Newton's step would gain against the loss, with and without weight decay."""
    mark_critical(ax.axhspan)
    share = np.clip(table["gain"] / table["loss"], *LIMITS)
    loss = table["loss"] / table["start_loss"]
    trained, decay = table["training"] != RANDOM, table["l2"] > 0
    for chosen, color, words in (
        (~trained, plots.GREY, RANDOM),
        (trained & ~decay, plots.ORANGE, "no weight decay"),
        (trained & decay, plots.PURPLE, "weight decay $10^{-3}$"),
    ):
        ax.plot(loss[chosen], share[chosen], "o", ms=4.5, mew=0, alpha=0.5, color=color)
        ax.plot([], [], "o", ms=5, color=color, label=words)
    ax.set(xscale="log", yscale="log", ylim=LIMITS, xlabel="loss, over the loss at the start")
    ax.set_xticks([1e-8, 1e-6, 1e-4, 1e-2, 1])
    ax.set_yticks([1e-9, 1e-6, 1e-3, 1])
    ax.minorticks_off()
    ax.set_ylabel("Newton's step would still gain")
    ax.set_title("Without it the loss falls towards 0,\nand no end is critical")
    ax.legend(frameon=False, loc="center left", fontsize=9)


LIMITS = (1e-11, 100.0)  # of the axes of shares: at the normal size, all points lie within them


def mark_critical(span):
    """Shade the shares at which a point counts as critical."""
    span(LIMITS[0], 1e-8, color=plots.GREEN, alpha=0.12, lw=0)


if __name__ == "__main__":
    command_line(main)
