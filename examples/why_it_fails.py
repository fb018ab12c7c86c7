"""L2, L10. Measurements distinguish the causes of failed training: a gradient that vanishes with
depth, saturated or dead units, and weights, rates and inputs of a wrong size.

Six training runs of a network that reads digits are broken on purpose. `diagnose` names the cause
of each and says what helps. The picture compares the losses of the failed run with those of a run
that does what was said, each from its own start.

Not shown: other networks, data and seeds, and failures with two causes at once.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 200, 400, 1000), n_features=8)
    figure, named, falls = plots.new_figure((9.0, 5.4)), [], []
    runs = broken_trainings(X, y, pick(scale, 12, 14, 20))
    for ax, (cause, (ob, start, options)) in zip(
        figure.subplots(2, 3).flat, runs.items(), strict=True
    ):
        run = fc.minimize(ob, start, "sgd", max_iter=100, verdict=False, **options)
        found = fc.diagnose(ob, run.x, run.history)
        first = found.causes[0]
        helped = follow(first.cure, ob)
        named.append(first.name)
        falls.append(helped.fun / ob.value(run.x))
        losses = run.history["loss"]
        shown = np.where(losses < 1e3, losses, np.nan)
        ax.semilogy(1 + run.history["iteration"], shown, color=plots.RED, label="the failed run")
        advised, after = helped.history["iteration"], np.maximum(helped.history["loss"], 1e-5)
        ax.semilogy(1 + advised, after, color=plots.GREEN, label="after the advice")
        ax.set_xscale("log")
        right = first.name == cause
        words = f"Named correctly:\n{cause}" if right else f"{cause},\nnamed: {first.name}"
        ax.set_title(words, fontsize=10)
        ax.set_ylim(1e-5, 1e3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=2)
    figure.supxlabel("step, counted from 1")
    figure.supylabel("training loss")
    causes, falls = list(runs), np.array(falls)
    right = sum(name == cause for name, cause in zip(named, causes))
    return Outcome(
        f"Of six trainings broken on purpose the first advice names the cause of {right}, and "
        f"following it brings {np.sum(falls < 0.1)} to less than a tenth of the loss.",
        save(figure, __file__, out),
        {"causes": causes, "named": named, "falls": falls},
    )


def follow(cure, ob):
    """Train from a new start, with what a cure of `diagnose` says."""
    model, X = ob.model, ob.X
    if "columns of X" in cure:
        X = (X - X.mean(axis=0)) / (X.std(axis=0) + (X.std(axis=0) == 0))
    if "residual=True" in cure:
        model = fc.MLP(model.sizes, model.activation, residual=True)
    return fc.minimize(fc.Objective(model, X, ob.y, l2=ob.l2), rng=0)


def broken_trainings(X, y, depth):
    """Return by cause an objective, a start, and options of gradient descent."""

    def net(X, hidden=(12,), phi="tanh"):
        return fc.Objective(fc.MLP([X.shape[1], *hidden, 10], phi), X, y, l2=1e-6)

    far = X.copy()
    far[:, 1] *= 1000
    plain, one, deep = net(X), net(far), net(X, (10,) * depth, "sigmoid")
    saturated, dead = net(X, phi="sigmoid"), net(X, phi="relu")
    stands = {
        "learning rate too large": (plain, 1.0, 0.0, 1000.0),
        "initial weights too large": (plain, 20.0, 0.0, 0.1),
        "one feature on a different scale": (one, 1.0, 0.0, 0.1),
        "vanishing gradient with depth": (deep, 1.0, 0.0, 0.5),
        "saturated units": (saturated, 1.0, 15.0, 0.5),
        "dead relus": (dead, 1.0, -15.0, 0.5),
    }
    found = {}
    for cause, (ob, factor, shift, rate) in stands.items():
        theta = factor * ob.model.init(rng=0)
        for _, b in ob.model.unflatten(theta)[:-1]:
            b += shift
        found[cause] = ob, theta, {"learning_rate": rate}
    return found


if __name__ == "__main__":
    command_line(main)
