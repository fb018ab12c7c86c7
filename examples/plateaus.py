"""L2, L3, L17. Plateaus slow learning. With the best rate for each, momentum halves the loss near a
saddle sooner than SGD, which overshoots, and RMSProp and Adam sooner than momentum. L-BFGS needs no
learning rate.

There are two starts of networks that read digits. Near a saddle, weights are small, and the loss is
flat around the saddle where all weights are zero. Saturated tanh units have a tiny gradient on
every sample, and `classify` reports a plateau instead of convergence. Above: the loss from one
start near the saddle, each method at the next rate below its best; losses above 1.3 times the start
are cut off. Below: every method runs on all samples with every rate of one grid, from the same ten
starts, until the loss is halved.

Half right: that momentum gets past a plateau sooner. At the same rate it does, because its steps
are ten times as long, 1 / (1 - 0.9). SGD with ten times the rate is as fast, or faster for rates up
to 3. The advantage of momentum is that such steps stay stable. To lose the first twentieth of the
loss, SGD at its best rate takes 6 to 7 steps and momentum 9 to 10; then the loss of SGD rises to 8
to 25 times the start before it is halved, that of momentum to at most 1.2 times. By how much a
method is faster depends on the data: near the saddle momentum takes half as many gradients as SGD
here, on the wine and iris data eight or nine tenths. With saturated units the best rate of SGD is
the largest of the grid, 100, so that a larger one may be faster.

Not shown: mini-batches and their noise, momentum other than 0.9, how the methods continue after the
plateau, and rates at which one of the starts did not halve its loss within 3000 gradients.
"""

import numpy as np
from common import Outcome, command_line, digits, first_index, pick, save, select, table_of
from scipy.special import softmax

import fastcurv as fc
from fastcurv import plots

METHODS = ("sgd", "momentum", "rmsprop", "adam")
WITHOUT_RATE = ("l-bfgs", "trust-region")
RATES = 10.0 ** np.arange(-4, 2.1, 0.5)
STARTS = {
    "saddle": "Near a saddle: momentum is SGD\nat ten times the rate, kept stable",
    "saturated": "Units saturated: scaled gradients\nleave first, L-BFGS next",
}
MAX_GRADIENTS = 3000


def experiment(scale):
    """Return the gradients spent until the loss is halved, for each start, method and rate."""
    X, y = digits(1000, n_features=16)
    rates = pick(scale, RATES[2::2], RATES, RATES)
    rows = []
    for stand in STARTS:
        sizes = [16, 24, 24, 10] if stand == "saddle" else [16, 24, 10]
        ob = fc.Objective(fc.MLP(sizes), X, y, loss="cross_entropy")
        for seed in range(pick(scale, 1, 10, 40)):
            start = start_near_saddle(ob, seed) if stand == "saddle" else saturated_start(ob, seed)
            plateau = fc.classify(ob, start).evidence.plateau
            for method in METHODS:
                for rate in rates:
                    work = gradients_to_halve_loss(ob, start, method, learning_rate=rate)
                    rows.append(as_row(stand, seed, plateau, method, rate, work))
            for method in WITHOUT_RATE:
                rows.append(
                    as_row(
                        stand,
                        seed,
                        plateau,
                        method,
                        None,
                        gradients_to_halve_loss(ob, start, method),
                    )
                )
    return rows


def as_row(stand, seed, plateau, method, rate, work):
    return {
        "stand": stand,
        "seed": seed,
        "plateau": int(plateau),
        "method": method,
        "rate": np.nan if rate is None else rate,
        "work": work,
    }


def gradients_to_halve_loss(ob, start, method, **options):
    """Return the number of gradients until the loss is halved, where a product with the Hessian
    counts as two, or NaN past the limit.
    """
    run = fc.minimize(
        ob,
        start,
        method,
        max_iter=MAX_GRADIENTS,
        fun_target=ob.value(start) / 2,
        verdict=False,
        rng=0,
        **options,
    )
    if run.stopped != "target":
        return np.nan
    return run.nit if options else max(run.nfev, run.njev) + 2 * run.nhev


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    n_starts = len(np.unique(table["seed"]))
    figure = plots.new_figure((7.6, 7.0))
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    best = {}
    for ax, (stand, title) in zip(below.subplots(1, 2, sharey=True), STARTS.items()):
        mine = select(table, stand=stand)
        for method, color in zip(METHODS, plots.CYCLE):
            plot_method(ax, select(mine, method=method), method, color)
            best[stand, method] = fastest_rate(select(mine, method=method))
        for method, style in zip(WITHOUT_RATE, ("--", ":")):
            work = select(mine, method=method)["work"]
            best[stand, method] = (np.nan, work)
            ax.axhline(np.median(work), color="black", ls=style, lw=1.3, label=method)
        if best[stand, "sgd"][0] == RATES[-1]:
            words = "sgd: best\nrate not\nbracketed"
            ax.text(RATES[-1], 40, words, ha="right", va="top", fontsize=9, color=plots.CYCLE[0])
        ax.set(xscale="log", yscale="log", xlabel="learning rate", ylim=(1.5, MAX_GRADIENTS))
        ax.set_xlim(RATES[0] / 1.5, RATES[-1] * 1.5)
        ax.set_xticks([1e-4, 1e-2, 1, 100], labels=["0.0001", "0.01", "1", "100"])
        ax.set_title(title, fontsize=11)
    below.axes[0].set_ylabel("gradients until the loss is halved")
    X, y = digits(pick(scale, 300, 1000, 1000), n_features=16)
    ob = fc.Objective(fc.MLP([16, 24, 24, 10]), X, y, loss="cross_entropy")
    falls = plot_curves(above.subplots(), ob, {m: best["saddle", m][0] / 10**0.5 for m in METHODS})
    first = {m: first_losses(ob, m, best["saddle", m][0], n_starts) for m in ("sgd", "momentum")}
    (sgd_steps, sgd_rise), (momentum_steps, momentum_rise) = first.values()
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=6)
    medians = {key: float(np.median(work)) for key, (_, work) in best.items()}
    near, far = (
        ", ".join(f"{name} {medians[stand, name]:.0f}" for name in (*METHODS, *WITHOUT_RATE))
        for stand in STARTS
    )
    return Outcome(
        f"Gradients until the loss is halved, median of {n_starts} starts at each method's best "
        f"rate of one grid: near the saddle {near}; with saturated units {far}. "
        f"Near the saddle SGD loses a twentieth of the loss after {np.median(sgd_steps):.1f} and "
        f"momentum after {np.median(momentum_steps):.1f}; then their losses rise to up to "
        f"{sgd_rise.max():.0f} and {momentum_rise.max():.1f} times the start.",
        save(figure, __file__, out),
        {
            "work": {key: work for key, (_, work) in best.items()},
            "rate": {key: rate for key, (rate, _) in best.items()},
            "plateau": select(table, stand="saturated")["plateau"],
            "table": table,
            "falls": falls,
            "first": first,
        },
    )


def first_losses(ob, method, rate, n_starts):
    """Return, for each start near the saddle, the steps until a twentieth of the loss is lost, and
    the ratio of the highest loss before it is halved to the loss at the start.
    """
    steps, rises = [], []
    for seed in range(n_starts):
        options = {"max_iter": 80, "rng": 0, "verdict": False, "learning_rate": rate}
        run = fc.minimize(ob, start_near_saddle(ob, seed), method, **options)
        losses = np.array(run.history["loss"])
        steps.append(first_index(losses < 0.95 * losses[0]))
        rises.append(losses[: first_index(losses < losses[0] / 2)].max() / losses[0])
    return np.array(steps), np.array(rises)


def plot_curves(ax, ob, rates):
    """Draw the loss from one start near the saddle, and return the steps until each is halved."""
    start, falls = start_near_saddle(ob, 0), {}
    for color, (method, rate) in zip(plots.CYCLE, rates.items()):
        options = {"max_iter": 80, "rng": 0, "verdict": False, "learning_rate": rate}
        losses = np.array(fc.minimize(ob, start, method, **options).history["loss"])
        ax.plot(losses, color=color, lw=1.5, label=f"{method}, rate {rate:.2g}")
        falls[method] = first_index(losses < losses[0] / 2)
    ax.set(xlabel="gradients", ylabel="loss (cut off at the top)", ylim=(0, 1.3 * ob.value(start)))
    ax.set_title("Flat for a while, then a sudden drop: scaled gradients first", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    return falls


def plot_method(ax, table, method, color):
    """Draw the median over the starts against the rate, in a band from the least to the most."""
    rates = np.unique(table["rate"])
    work = np.array([np.sort(select(table, rate=rate)["work"]) for rate in rates])
    every = np.isfinite(work).all(axis=1)
    ax.plot(rates[every], np.median(work[every], axis=1), "o-", ms=3, color=color, label=method)
    ax.fill_between(rates[every], work[every, 0], work[every, -1], color=color, alpha=0.25, lw=0)


def fastest_rate(table):
    """Return the rate with the least median work, and the work of each start at this rate."""
    rates = np.unique(table["rate"])
    work = [np.nan_to_num(select(table, rate=rate)["work"], nan=np.inf) for rate in rates]
    place = int(np.argmin([np.median(w) for w in work]))
    return float(rates[place]), work[place]


def start_near_saddle(ob, seed, scale=0.05):
    """Return a start close to the saddle where every weight is zero."""
    return scale * ob.model.init(rng=seed)


def saturated_start(ob, seed, shift=8.0):
    """Return a start with every hidden unit saturated, and the last bias such that the mean output
    fits the class frequencies.
    """
    theta = ob.model.init(rng=seed)
    (_, hidden_bias), (W, bias) = ob.model.unflatten(theta)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], hidden_bias.size)
    hidden_bias[:] = shift * signs
    frequency = np.bincount(ob.y, minlength=bias.size) / len(ob.y)
    bias[:] = np.log(frequency) - W @ signs
    for _ in range(30):
        bias += np.log(frequency / softmax(ob.model.predict(theta, ob.X), axis=1).mean(axis=0))
    return theta


if __name__ == "__main__":
    command_line(main)
