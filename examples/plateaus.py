"""L2, L3, L17. Plateaus slow learning: near a saddle momentum, RMSProp and Adam leave sooner than
SGD; where units are saturated, only those that scale each gradient leave.

Two starts of networks that read digits. Left, small weights: the loss is flat near the saddle where
all weights are zero, plain SGD stays for a long while, momentum adds up the small gradients and
leaves sooner. Right, tanh units saturated on every sample: the gradient is tiny, `classify` says
"plateau" instead of "converged", and only RMSProp and Adam, which divide by the gradient's size,
get away.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from scipy.special import softmax

import fastcurv as fc
from fastcurv import plots

METHODS = ("sgd", "momentum", "nesterov", "rmsprop", "adam")


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 1000, 1000, 1797), n_features=16)
    epochs = pick(scale, 60, 80, 200)
    deep = fc.Objective(fc.MLP([16, 24, 24, 10]), X, y, loss="cross_entropy")
    shallow = fc.Objective(fc.MLP([16, 24, 10]), X, y, loss="cross_entropy")
    stands = {
        "Near a saddle: momentum\nleaves sooner than SGD": (deep, small(deep)),
        "Saturated units: only\nscaled gradients leave": (shallow, saturated(shallow)),
    }
    figure = plots.new_figure((7.6, 4.8))
    left = []
    for ax, (title, (ob, start)) in zip(figure.subplots(1, 2), stands.items()):
        options = {"batch_size": 64, "max_iter": epochs, "seed": 0, "verdict": False}
        runs = {name: fc.minimize(ob, start, name, **options) for name in METHODS}
        left.append({name: half_time(result) for name, result in runs.items()})
        for (name, result), color in zip(runs.items(), plots.CYCLE):
            at = left[-1][name]
            words = f"{name}: epoch {at}" if at is not None else f"{name}: never"
            ax.plot(result.history["loss"], label=words, color=color, lw=2 if at else 3)
        ax.axhline(runs["sgd"].history["loss"][0] / 2, color=plots.GREY, ls=":", lw=1)
        ax.set_title(title)
        ax.set_xlabel("epoch")
        ax.set_ylabel("training loss")
        ax.set_ylim(0, 2.6)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
        ax.legend(frameon=False, title="loss halved at", ncols=2, fontsize=9, **below)
    near, far = (
        ", ".join(f"{name} {'never' if at is None else at}" for name, at in times.items())
        for times in left
    )
    verdict = fc.classify(shallow, saturated(shallow))
    return Outcome(
        f"Near the saddle the loss was halved after epochs: {near}. With saturated units the start "
        f"is {verdict.kind.replace('_', ' ')}{', a plateau,' if verdict.plateau else ''} with a "
        f"gradient of {verdict.gradient_norm:.1e}, and the loss was halved after: {far}.",
        save(figure, __file__, out),
        {
            "kind": verdict.kind,
            "plateau": verdict.plateau,
            "small": left[0],
            "saturated": left[1],
        },
    )


def half_time(result):
    """The first epoch with half the first loss, or None."""
    losses = np.array(result.history["loss"])
    below = np.flatnonzero(losses < losses[0] / 2)
    return int(result.history["iteration"][below[0]]) if below.size else None


def small(ob, scale=0.05):
    """A start close to the saddle where every weight is zero."""
    return scale * ob.model.init(seed=0)


def saturated(ob, shift=8.0):
    """Every hidden unit far in its flat part, and the last bias such that the mean output fits the
    class frequencies.
    """
    theta = ob.model.init(seed=0)
    (_, hidden_bias), (W, bias) = ob.model.unflatten(theta)
    hidden_bias[:] = shift
    frequency = np.bincount(ob.y, minlength=bias.size) / len(ob.y)
    bias[:] = np.log(frequency) - W.sum(axis=1)
    for _ in range(30):
        bias += np.log(frequency / softmax(ob.model.predict(theta, ob.X), axis=1).mean(axis=0))
    return theta


if __name__ == "__main__":
    command_line(main)
