"""L14. Stochastic gradient descent converges if the sum of its rates diverges and the sum of
their squares does not.

On a strictly convex problem (softmax regression with weight decay) the distance to the one minimum
is known. Under a constant rate SGD stops at a distance that its noise decides; under a rate that
meets both conditions it goes on; where their sum is finite it may stop short.

Not shown: losses that are not convex, for which the two conditions promise less; and other seeds.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 300, 1000, 1797), n_features=16)
    ob = fc.Objective(fc.MLP([16, 10]), X, y, loss="cross_entropy", l2=1e-2)
    start = np.zeros(ob.n_params)
    lowest = fc.minimize(ob, start, "newton-cg", max_iter=100).fun
    epochs = pick(scale, 60, 500, 5000)
    rates = {
        "constant": fc.schedules.constant(0.5),
        "inverse time": fc.schedules.inverse_time(0.5, 0.01),
        "power 0.6": fc.schedules.power(0.5, 0.6),
        "constant, then 1/t": fc.schedules.constant_then_decay(0.5, 200),
        "power 2": fc.schedules.power(0.5, 2.0),
    }
    ax = plots.new_axes()
    gaps, meets = {}, {}
    for name, rate in rates.items():
        result = fc.minimize(
            ob, start, "sgd", max_iter=epochs, batch_size=8, learning_rate=rate, seed=0
        )
        excess = np.maximum(np.array(result.history["loss"]) - lowest, 1e-16)
        meets[name] = fc.schedules.robbins_monro(rate)
        gaps[name] = float(np.median(excess[-10:]))
        verdict = "meets both" if meets[name].satisfied else "does not"
        plots.curve(1 + np.arange(excess.size), excess, ax, label=f"{name}: {verdict}")
    ax.set_xscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss above the minimum")
    ax.set_title(
        "Rates that meet both conditions keep falling:\n"
        r"$\sum\alpha = \infty$ and $\sum\alpha^2 < \infty$"
    )
    good = {name: gap for name, gap in gaps.items() if meets[name].satisfied}
    words = ", ".join(f"{name} {gap:.1e}" for name, gap in good.items())
    return Outcome(
        f"After {epochs} epochs the loss lies above the minimum by: {words}; the constant rate is "
        "left at "
        f"{gaps['constant']:.1e}, and a rate of finite sum at {gaps['power 2']:.1e}.",
        save(ax, __file__, out),
        {"gaps": gaps, "meets": {name: m.satisfied for name, m in meets.items()}},
    )


if __name__ == "__main__":
    command_line(main)
