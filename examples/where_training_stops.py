"""L1, L2, L5. HEADING.

Networks with 52 to 194 parameters learn the wine data, digits and two spirals, each from five
starts, with and without weight decay. Nine trainings are compared: SGD and Adam with mini-batches
of 32 samples and a constant or a decaying learning rate (500 epochs); gradient descent, momentum
and Adam with all samples at each step (10 000 steps); and L-BFGS, until it stops by itself. The
vertical axis is the decrease that Newton's step would still give at the end, as a share of the
loss there: about 1 for random weights, and at most 1e-8 at a critical point.

BODY

Not shown: larger networks and data, and trainings that are continued for hours.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save, select, table_of, two_spirals

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import

PENALTIES = (0.0, 1e-3)
EPOCHS = {"mini-batches": 500, "full batches": 10_000}
RANDOM = "random weights"
hold_then_decay = fc.schedules.constant_then_decay


# by name: the method, what a step uses, and the options of the learning rate
TRAININGS = {
    "SGD": ("sgd", "mini-batches", {"learning_rate": 0.1}),
    "SGD, decaying": ("sgd", "mini-batches", {"learning_rate": hold_then_decay(0.1, 1000)}),
    "Adam": ("adam", "mini-batches", {"learning_rate": 3e-3}),
    "Adam, decaying": ("adam", "mini-batches", {"learning_rate": hold_then_decay(3e-3, 1000)}),
    "gradient descent": ("sgd", "full batches", {"learning_rate": 0.5}),
    "momentum": ("momentum", "full batches", {"learning_rate": 0.1}),
    "Adam, all samples": ("adam", "full batches", {"learning_rate": 0.01}),
    "Adam, all samples, decaying": ("adam", "full batches", {"learning_rate": hold_then_decay(0.01, 1000)}),
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
                start = ob.model.init(seed=seed)
                for training in (RANDOM, *TRAININGS):
                    shorter = pick(scale, 20, 1, 1)
                    theta = start if training == RANDOM else train(ob, start, training, seed, shorter)
                    setting = {"data": name, "l2": l2, "training": training, "seed": seed}
                    rows.append(setting | facts_at_end(ob, start, theta))
    return rows


def train(ob, start, training, seed, shorter=1):
    """Train and return the end. The number of epochs is divided by `shorter`."""
    method, batches, options = TRAININGS[training]
    if batches == "mini-batches":
        options = options | {"batch_size": 32}
    max_iter = EPOCHS[batches] // shorter
    return fc.minimize(
        ob, start, method, max_iter=max_iter, seed=seed, verdict=False, **options
    ).x


def facts_at_end(ob, start, theta):
    """Return the verdict on the end of a training, what Newton's step would still gain there, and
    where descent by the trust-region method leads from there.
    """
    verdict = fc.classify(ob, theta)
    down = fc.minimize(ob, theta, "trust-region", max_iter=500, seed=0)
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
    nearest = nearest_points(table)
    figure = plots.new_figure((7.6, 4.6))
    left, right = figure.subplots(1, 2)
    draw_ends(left, table)
    draw_nearest(right, table, nearest)
    facts = count_facts(table, nearest)
    return Outcome(
        f"Of {facts['trainings']} trainings {facts['critical']} ended at a critical point. "
        f"{facts['with negative']} had negative eigenvalues left, up to {facts['most']}. With "
        f"weight decay, descent went on from {facts['minima']} of {facts['penalised']} to a proved "
        f"minimum, {facts['apart'][0]:.0%} to {facts['apart'][1]:.0%} of the length of theta away; "
        f"a saddle was nearer in {facts['saddles nearer']}. Without weight decay there was none in "
        f"{facts['infinity']} of {facts['plain']}: the loss goes on falling to 0.",
        save(figure, __file__, out),
        facts | {"table": table},
    )


def nearest_points(table):
    """Return the kind of the nearest critical point of the searches, and its distance over the
    length of theta.
    """
    distances = np.stack([table[f"{search}_distance"] for search in SEARCHES])
    kinds = np.stack([table[f"{search}_kind"] for search in SEARCHES])
    distances = np.where(np.isnan(distances), np.inf, distances) / table["size"]
    which = np.argmin(distances, axis=0)[None]
    kind = np.take_along_axis(kinds, which, axis=0)[0]
    return kind, np.take_along_axis(distances, which, axis=0)[0]


def count_facts(table, nearest):
    """Return the numbers of the heading."""
    kind, distance = nearest
    ratio = table["gradient"] / table["tolerance"]
    decay = table["l2"] > 0
    ended = table["descent_kind"][decay] == "minimum"
    apart = (table["descent_distance"] / table["size"])[decay][ended]
    return {
        "trainings": ratio.size,
        "critical": int(np.sum(ratio <= 1)),
        "least": float(ratio.min()),
        "with negative": int(np.sum(table["negative"] > 0)),
        "most": int(table["negative"].max()),
        "penalised": int(decay.sum()),
        "minima": int(ended.sum()),
        "apart": (float(apart.min()), float(apart.max())),
        "saddles nearer": int(np.sum(kind[decay] == "saddle")),
        "plain": int(np.sum(~decay)),
        "infinity": int(np.sum(table["stopped"][~decay] == "infinity")),
        "none found": int(np.sum(~np.isfinite(distance[~decay]))),
        "newton": {k: int(np.sum(table["newton_kind"] == k)) for k in ("minimum", "saddle")},
    }


def draw_ends(ax, table):
    """Draw the share of negative eigenvalues against gradient over tolerance, of trainings and of
    descents.
    """
    decay = table["l2"] > 0
    done = decay & (table["descent_kind"] == "minimum")
    ratio = table["gradient"] / table["tolerance"]
    ax.axvspan(1e-9, 1, color=plots.GREEN, alpha=0.12, lw=0)
    for chosen, color, words in (
        (decay, plots.BLUE, "ends, weight decay $10^{-3}$"),
        (~decay, plots.RED, "ends, no weight decay"),
    ):
        ax.plot(ratio[chosen], table["negative"][chosen], "o", ms=5, alpha=0.5, mew=0, color=color)
        ax.plot([], [], "o", ms=5, color=color, label=words)
    reached = np.maximum((table["end_gradient"] / table["end_tolerance"])[done], 1e-8)
    ax.plot(reached, 0 * reached, "o", ms=6, color=plots.GREEN, alpha=0.5, mew=0)
    ax.plot([], [], "o", ms=6, color=plots.GREEN, label="minima that descent reaches")
    ax.text(3e-5, 0.93 * table["negative"].max(), "critical", color=plots.GREEN, ha="center")
    ax.text(1e-7, 0, f"{done.sum()} minima", color=plots.GREEN, va="center", fontsize=9)
    ax.set(xscale="log", xlim=(1e-9, 1e6), xlabel="norm of the gradient over its tolerance")
    ax.set_xticks([1e-8, 1e-4, 1, 1e4], labels=["$10^{-8}$", "$10^{-4}$", "1", "$10^4$"])
    ax.minorticks_off()
    ax.set_ylabel("negative eigenvalues of H")
    critical = int(np.sum(ratio <= 1))
    number = "None" if not critical else str(critical)
    ax.set_title(f"{number} of {ratio.size} trainings\nended at a critical point")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)


def draw_nearest(ax, table, nearest):
    """Draw the distance of the nearest critical point by weight decay and epochs."""
    kinds, distances = nearest
    columns = [(l2, epochs) for l2 in PENALTIES for epochs in np.unique(table["epochs"])]
    none = 20.0  # where a training without any critical point is drawn
    for place, (l2, epochs) in enumerate(columns):
        mine = np.flatnonzero((table["l2"] == l2) & (table["epochs"] == epochs))
        spread = place + np.linspace(-0.3, 0.3, mine.size)
        for at, row in zip(spread, mine):
            marker, color = plots.MARKERS.get(str(kinds[row]), ("_", plots.GREY))
            height = min(distances[row], none)
            found = np.isfinite(distances[row])
            look = {"ms": 5, "mew": 0, "alpha": 0.7} if found else {"ms": 4, "alpha": 0.7}
            ax.plot(at, height, marker if found else "|", color=color, **look)
    for kind in ("minimum", "saddle", "degenerate"):
        marker, color = plots.MARKERS[kind]
        ax.plot([], [], marker, color=color, ls="none", label=kind)
    ax.plot([], [], "|", color=plots.GREY, label="none reached")
    ax.set(yscale="log", ylim=(0.05, 40), ylabel=r"distance over $\|\theta\|$")
    words = {0.0: "no decay", PENALTIES[1]: "decay"}
    ax.set_xticks(range(len(columns)), [f"{epochs}\n{words[l2]}" for l2, epochs in columns])
    ax.set_xlabel("epochs, and weight decay")
    ax.set_title("The nearest one is far,\nor there is none")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.24), fontsize=9, ncols=2)


if __name__ == "__main__":
    command_line(main)
