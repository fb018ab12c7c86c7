"""L2, L3, L17. Plateaus slow learning, not poor minima; momentum, RMSProp and Adam get off them
sooner.

A network whose tanh units are saturated on every sample guesses class frequencies and hardly moves:
the gradient is tiny, though it is no critical point, and the curvature along it is nil. `classify`
says "plateau" instead of "converged". From there each method runs for the same wall time.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from scipy.special import softmax

import fastcurv as fc
from fastcurv import plots

METHODS = {
    "sgd": {"batch_size": 64},
    "momentum": {"batch_size": 64},
    "rmsprop": {"batch_size": 64},
    "adam": {"batch_size": 64},
    "newton-cg": {},
    "saddle-free-newton": {},
}


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 300, 1000, 1797))
    model = fc.MLP([64, pick(scale, 16, 24, 32), 10], activation="tanh")
    ob = fc.Objective(model, X, y, loss="cross_entropy")
    start = plateau(ob)
    verdict = fc.classify(ob, start)
    seconds = pick(scale, 1.5, 10.0, 60.0)
    runs = {
        name: fc.minimize(
            ob, start, name, max_iter=10**6, max_time=seconds, seed=0, verdict=False, **options
        )
        for name, options in METHODS.items()
    }

    ax = plots.new_axes()
    left = {}
    half = 0.5 * ob.value(start)
    for name, result in runs.items():
        times, losses = np.array(result.history["time"]), np.array(result.history["loss"])
        plots.curve(times, losses, ax, label=name)
        below = np.flatnonzero(losses < half)
        left[name] = float(times[below[0]]) if below.size else np.inf
    ax.set_xlabel("seconds")
    ax.set_ylabel("training loss")
    ax.set_title("Off a plateau, in equal time")
    words = ", ".join(
        f"{name} {t:.2f} s" if np.isfinite(t) else f"{name} never" for name, t in left.items()
    )
    return Outcome(
        "The start is "
        f"{verdict.kind.replace('_', ' ')}{', a plateau,' if verdict.plateau else ''} with a "
        f"gradient of {verdict.gradient_norm:.1e}; in {seconds:g} s of each, the loss was halved "
        f"after: {words}.",
        save(ax, __file__, out),
        {
            "kind": verdict.kind,
            "plateau": verdict.plateau,
            "left": left,
            "final": {name: result.fun for name, result in runs.items()},
            "seconds": seconds,
        },
    )


def plateau(ob, shift=8.0):
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
