"""L9. What looks like a minimum in few dimensions is a saddle in more.

A small network is trained until it is stuck: a proved minimum. Then it gets one more hidden unit,
with zero weights in and out, which changes nothing of its function. The Hessian gains the block
`[[0, B], [B', 0]]` (plus weight decay on its diagonal), and eigenvalues of both signs with it: the
minimum has become a saddle, and the way down it opened leads to a lower minimum. Again and again.

Not shown: other starts; the way down exists wherever the block B is not 0, which is proved, and how
far it leads is of this run.
"""

import numpy as np
from common import Outcome, command_line, pick, save, two_spirals

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = two_spirals(pick(scale, 100, 200, 400), turns=1.5, noise=0.05)
    widths = range(2, pick(scale, 4, 8, 12) + 1)
    ob = objective(X, y, widths[0])
    theta = settle(ob, ob.model.init(seed=1))
    steps = []
    for width in widths[1:]:
        stuck = fc.classify(ob, theta)
        wider = objective(X, y, width)
        embedded = add_zero_unit(ob.model, theta)
        opened = fc.classify(wider, embedded)
        escaped = fc.escape(wider, embedded)
        settled = settle(wider, escaped.x)
        steps.append((width, stuck, opened, ob.value(theta), escaped.fun, wider.value(settled)))
        ob, theta = wider, settled

    figure = plots.new_figure((7.6, 3.8))
    left, right = figure.subplots(1, 2)
    for width, stuck, opened, before, _, after in steps:
        first = width == widths[1]
        added, opens = ("one zero unit added", "the way down") if first else (None, None)
        left.plot([width - 1, width], [before, before], color=plots.GREY, lw=1.5, label=added)
        left.plot([width, width], [before, after], color=plots.RED, lw=1.5, label=opens)
        shown = left.get_legend_handles_labels()[1]
        plots.mark(left, width - 1, before, stuck.kind, None if stuck.kind in shown else stuck.kind)
        plots.mark(left, width, before, opened.kind, None if opened.kind in shown else opened.kind)
    plots.mark(left, widths[-1], steps[-1][5], fc.classify(ob, theta).kind, None)
    left.set_yscale("log")
    left.set_xlabel("hidden units")
    left.set_xticks(list(widths))
    left.set_ylabel("loss")
    left.set_title("A minimum is a saddle\nonce a unit is added")
    plots.decision_regions(
        lambda P: ob.model.predict(theta, P)[:, 0],
        X,
        y,
        right,
        title=f"What {widths[-1]} units\nhave learnt",
    )
    first = steps[0]
    stuck_kinds = [s[1].kind for s in steps]
    opened_kinds = [s[2].kind for s in steps]
    lowest = [s[2].lambda_min for s in steps]
    return Outcome(
        f"{stuck_kinds.count('minimum')} of {len(steps)} networks were stuck at a proved minimum; "
        "with one zero unit more "
        f"{opened_kinds.count('saddle')} of {len(steps)} were on a saddle (lowest eigenvalue "
        f"{max(lowest):.2g} at most), "
        f"and the loss went from {first[3]:.4f} to {steps[-1][5]:.4f} along the ways down that "
        "opened.",
        save(figure, __file__, out),
        {
            "stuck": stuck_kinds,
            "opened": opened_kinds,
            "lowest": lowest,
            "before": [s[3] for s in steps],
            "escaped": [s[4] for s in steps],
            "after": [s[5] for s in steps],
        },
    )


def objective(X, y, width):
    model = fc.MLP([2, width, 1], activation="tanh")
    return fc.Objective(model, X, y.astype(float), loss="binary_cross_entropy", l2=1e-5)


def settle(ob, theta):
    """Train to a critical point."""
    theta = fc.minimize(ob, theta, "adam", max_iter=200, learning_rate=3e-2).x
    return fc.minimize(ob, theta, "newton-cg", max_iter=500).x


def add_zero_unit(model, theta):
    """The same function with one more hidden unit, whose weights in and out are zero."""
    (W1, b1), (W2, b2) = model.unflatten(theta)
    W1, b1 = np.vstack([W1, np.zeros((1, W1.shape[1]))]), np.append(b1, 0.0)
    W2 = np.hstack([W2, np.zeros((W2.shape[0], 1))])
    return np.concatenate([W1.ravel(), b1, W2.ravel(), b2])


if __name__ == "__main__":
    command_line(main)
