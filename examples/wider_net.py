"""L9. A proved minimum of a network is a saddle of a wider network, if units are 0 at 0 and their
inputs correlate with the residuals by more than the weight decay.

A small tanh network is trained until it is stuck at a proved minimum. Then it gets one more hidden
unit with zero weights in and out, which does not change its function if the activation is 0 at 0.
The Hessian gains the block `[[l2, B], [B', l2]]`, where B is the mean over samples of the
derivative of the loss with respect to the output times the unit's inputs (1 for the bias) times the
slope of the activation at 0. Its eigenvalues are l2 and `l2 +- |B|`. If `|B|` exceeds l2, the
minimum has become a saddle, and its escape direction leads to a lower minimum. This is repeated.

Left: the losses of one of ten starts, with two spirals drawn again for each. Right: one unit is
added to two at minima for drawn activations and weight decays, and the lowest eigenvalue is
compared with `l2 - |B|`. Where `|B|` is smaller, the point stays a minimum.

Half right: that the wider network has a saddle there. With much weight decay it may be a minimum.
With sigmoid and softplus units, which are not 0 at 0, the gradient over the new outgoing weight
does not vanish, and the point is mostly not critical; descent goes on all the same. With relu units
the new unit lies on its kink, and no verdict is given.

Not shown: that an escape may gain little, because it leads to the next minimum only.
"""

import numpy as np
from common import Outcome, binomial_interval, command_line, pick, save, two_spirals

import fastcurv as fc
from fastcurv import plots

ZERO_AT_ZERO = {"tanh": 1.0, "gelu": 0.5, "silu": 0.5}  # with the slope at 0
OTHERS = ("sigmoid", "softplus", "relu")
SEED = 0  # of the activations, weight decays and samples that are drawn


def main(scale="normal", out="pictures"):
    n_samples, n_starts = pick(scale, 100, 200, 400), pick(scale, 5, 10, 20)
    widths = range(2, pick(scale, 4, 8, 12) + 1)
    data = [two_spirals(n_samples, turns=1.5, noise=0.05, seed=at) for at in range(n_starts)]
    runs = [train_and_widen(X, y, widths, seed=1 + at) for at, (X, y) in enumerate(data)]
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    draw_chain(left, runs[0][0])
    opened = {name: kinds_after_widening(name, data[: pick(scale, 3, 9, 20)]) for name in OTHERS}
    drawn = minima_with_one_unit_more(n_tries=pick(scale, 8, 24, 100))
    draw_condition(right, drawn)
    steps = [step for steps, _ in runs for step in steps]
    facts = {name: np.array([step[name] for step in steps]) for name in steps[0]}
    stuck = facts["stuck"] == "minimum"
    saddles = int(np.sum(facts["opened"][stuck] == "saddle"))
    low, high = binomial_interval(saddles, int(stuck.sum()))
    falls = 1 - facts["after"] / facts["before"]
    return Outcome(
        f"From {n_starts} starts {stuck.sum()} of {stuck.size} networks were stuck at a proved "
        f"minimum; with one zero unit more {saddles} of these were on a saddle (95% interval "
        f"{low:.0%} to {high:.0%}; lowest eigenvalue {facts['lowest'][stuck].max():.1g} at most), "
        f"and escaping it lowered the loss by {falls.min():.0%} to {falls.max():.0%}, "
        f"{np.median(falls):.0%} in the median. Of {drawn['kind'].size} drawn minima "
        f"{np.sum(drawn['kind'] == 'saddle')} became saddles, those with |B| above l2.",
        save(figure, __file__, out),
        facts | {"kinds": opened, "drawn": drawn},
    )


def kinds_after_widening(activation, data):
    """Return the kinds of the points that a zero unit makes of proved minima of two units."""
    kinds = []
    for seed, (X, y) in enumerate(data):
        ob = objective(X, y, 2, activation, l2=1e-3)
        theta = train_to_critical_point(ob, ob.model.init(rng=seed))
        if fc.classify(ob, theta).kind == "minimum":
            embedded = add_zero_unit(ob.model, theta)
            kinds.append(fc.classify(objective(X, y, 3, activation, l2=1e-3), embedded).kind)
    return kinds


def minima_with_one_unit_more(n_tries):
    """Draw activations, weight decays and samples, train to a minimum of two units, and add one.
    Return a dict of arrays: the size of B over l2, the lowest eigenvalue over l2, and the kind.
    """
    rng, found = np.random.default_rng(SEED), {"size": [], "lowest": [], "kind": []}
    for _ in range(n_tries):
        activation, l2 = rng.choice([*ZERO_AT_ZERO]), 10 ** rng.uniform(-3, 0)
        seed = int(rng.integers(1 << 30))
        X, y = two_spirals(100, turns=1.5, noise=0.05, seed=seed)
        ob = objective(X, y, 2, activation, l2)
        theta = train_to_critical_point(ob, ob.model.init(rng=seed))
        if fc.classify(ob, theta).kind != "minimum":
            continue
        slopes = ob.outputs(theta)[1][:, 0] * ZERO_AT_ZERO[activation]
        B = np.append(slopes @ X, slopes.sum()) / len(X)
        widened = fc.classify(objective(X, y, 3, activation, l2), add_zero_unit(ob.model, theta))
        found["size"].append(np.linalg.norm(B) / l2)
        found["lowest"].append(widened.lambda_min / l2)
        found["kind"].append(widened.kind)
    return {name: np.array(values) for name, values in found.items()}


def draw_condition(ax, drawn):
    """Draw the lowest eigenvalue against the size of B, both over l2, with a mark by kind."""
    line = np.geomspace(0.7 * drawn["size"].min(), 1.4 * drawn["size"].max(), 100)
    ax.plot(line, 1 - line, color=plots.GREY, lw=1, label="1 - |B| / l2")
    for kind in np.unique(drawn["kind"]):
        for x, y in zip(*(drawn[name][drawn["kind"] == kind] for name in ("size", "lowest"))):
            shown = ax.get_legend_handles_labels()[1]
            plots.mark(ax, x, y, kind, None if kind in shown else kind)
    ax.axhline(0, color="black", lw=0.8)
    ax.axvline(1, color="black", lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1)
    ax.set(xlabel="|B| / l2, from the small network", ylabel="lowest eigenvalue / l2")
    ax.set_title("A saddle where |B| exceeds l2,\na minimum where it does not")
    ax.legend(frameon=False, loc="lower left")


def train_and_widen(X, y, widths, seed):
    """Train, add a zero unit, escape the saddle, and repeat. Return kinds and losses of each step,
    and the last point.
    """
    ob = objective(X, y, widths[0])
    theta = train_to_critical_point(ob, ob.model.init(rng=seed))
    steps = []
    for width in widths[1:]:
        stuck = fc.classify(ob, theta)
        wider = objective(X, y, width)
        embedded = add_zero_unit(ob.model, theta)
        opened = fc.classify(wider, embedded)
        escaped = fc.escape(wider, embedded)
        settled = train_to_critical_point(wider, escaped.x)
        step = {
            "width": width,
            "stuck": stuck.kind,
            "opened": opened.kind,
            "lowest": opened.lambda_min,
            "before": ob.value(theta),
            "escaped": escaped.fun,
            "after": wider.value(settled),
        }
        steps.append(step)
        ob, theta = wider, settled
    return steps, theta


def draw_chain(ax, steps):
    """Draw the losses of one start, with a mark for every verdict."""
    for step in steps:
        width, before = step["width"], step["before"]
        first = step is steps[0]
        added, opens = ("one zero unit added", "escape") if first else (None, None)
        ax.plot([width - 1, width], [before, before], color="black", lw=1.5, label=added)
        ax.plot([width, width], [before, step["after"]], color=plots.RED, lw=1.5, label=opens)
        for at, kind in ((width - 1, step["stuck"]), (width, step["opened"])):
            shown = ax.get_legend_handles_labels()[1]
            plots.mark(ax, at, before, kind, None if kind in shown else kind)
    ax.set(yscale="log", xlabel="hidden units", ylabel="loss")
    ax.set_xticks([steps[0]["width"] - 1, *(step["width"] for step in steps)])
    ax.set_title("With little weight decay a minimum\nis a saddle once a unit is added")


def objective(X, y, width, activation="tanh", l2=1e-5):
    model = fc.MLP([2, width, 1], activation=activation)
    return fc.Objective(model, X, y.astype(float), loss="binary_cross_entropy", l2=l2)


def train_to_critical_point(ob, theta):
    """Train to a critical point."""
    theta = fc.minimize(ob, theta, "adam", max_iter=200, learning_rate=3e-2).x
    return fc.minimize(ob, theta, "newton-cg", max_iter=500).x


def add_zero_unit(model, theta):
    """Return theta of the same function with one more hidden unit, whose weights in and out are
    zero.
    """
    (W1, b1), (W2, b2) = model.unflatten(theta)
    W1, b1 = np.vstack([W1, np.zeros((1, W1.shape[1]))]), np.append(b1, 0.0)
    W2 = np.hstack([W2, np.zeros((W2.shape[0], 1))])
    return np.concatenate([W1.ravel(), b1, W2.ravel(), b2])


if __name__ == "__main__":
    command_line(main)
