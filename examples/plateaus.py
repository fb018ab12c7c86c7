"""L2, L3, L17. Plateaus slow learning, not poor minima; momentum, RMSProp and Adam get off them sooner.

A network of sigmoid units started with small weights sits on a plateau: the loss of guessing class frequencies, a
gradient near zero, curvature near zero. `classify` says so instead of "converged". From there each method runs for the
same wall time.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

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
    X, y = digits(pick(scale, 300, 1797, 1797))
    model = fc.MLP([64, 32, 16, 10], activation="sigmoid")
    ob = fc.Objective(model, X, y, loss="cross_entropy", l2=1e-5)
    start = plateau(ob)
    verdict = fc.classify(ob, start, gradient_tol=1e-8)
    seconds = pick(scale, 1.0, 15.0, 60.0)
    runs = {
        name: fc.minimize(ob, start, name, max_iter=10**6, max_time=seconds, seed=0, **options)
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
    words = ", ".join(f"{name} {t:.2f} s" if np.isfinite(t) else f"{name} never" for name, t in left.items())
    return Outcome(
        f"The start is {verdict.kind.replace('_', ' ')}{', a plateau,' if 'plateau' in verdict.reason else ''} with a "
        f"gradient of {verdict.gradient_norm:.1e}; in {seconds:g} s of each, the loss was halved after: {words}.",
        save(ax, __file__, out),
        {
            "kind": verdict.kind,
            "reason": verdict.reason,
            "left": left,
            "final": {name: result.fun for name, result in runs.items()},
            "seconds": seconds,
        },
    )


def plateau(ob):
    """Small weights, and the last bias at the log of the class frequencies."""
    theta = 0.1 * ob.model.init(seed=0, scheme="xavier")
    _, bias = ob.model.unflatten(theta)[-1]
    bias[:] = np.log(np.bincount(ob.y, minlength=bias.size) / len(ob.y))
    bias -= bias.mean()
    return theta


if __name__ == "__main__":
    command_line(main)
