"""L4. Near a point the loss is `L + g'd + d'Hd/2`, and the error falls as the cube of the distance.

The error is measured on a network that reads digits, at its start and after training, along random
directions and along the gradient. The slope of log error against log distance is 3 while the error
is above rounding. Without the quadratic term it is 2.

Not shown: steps so short that rounding is larger than the missing terms; and relu, with whose kinks
the error fell with the power 2.8.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

QUADRATIC = r"$\frac{1}{2}d^\top Hd$"


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 200, 1797, 1797))
    ob = fc.Objective(fc.MLP([64, 16, 10], activation="tanh"), X, y, loss="cross_entropy")
    start = ob.model.init(rng=0)
    trained = fc.minimize(
        ob, start, "adam", max_iter=pick(scale, 20, 200, 200), learning_rate=1e-2, rng=0
    ).x
    rng = np.random.default_rng(1)
    distances = np.logspace(-3.5, 0.5, 25)
    ax = plots.new_axes()
    slopes = {}
    for (name, theta), color in zip(
        {"start": start, "trained": trained}.items(), (plots.BLUE, plots.ORANGE)
    ):
        H = ob.hessian(theta)
        value, gradient = H.value, H.gradient
        directions = rng.standard_normal((pick(scale, 3, 10, 50), ob.n_params))
        directions[0] = gradient
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        second, first = np.empty((2, distances.size))
        for i, r in enumerate(distances):
            true = np.array([ob.value(theta + r * d) for d in directions])
            linear = value + r * (directions @ gradient)
            quadratic = linear + 0.5 * r**2 * H.quadratic_form(directions.T)
            second[i] = np.median(np.abs(true - quadratic))
            first[i] = np.median(np.abs(true - linear))
        usable = (second > 1e-12) & (distances < 0.1)
        slopes[name] = (
            slope(distances[usable], second[usable]),
            slope(distances[usable], first[usable]),
        )
        with_it, without_it = (rf"$\|d\|^{{{power:.2f}}}$" for power in slopes[name])
        plots.curve(
            distances, second, ax, label=f"{name}, with {QUADRATIC}: {with_it}", color=color
        )
        ax.plot(distances, first, color=color, ls="--", label=f"{name}, without: {without_it}")
    ax.set_xscale("log")
    ax.set_xlabel(r"distance $\|d\|$")
    ax.set_ylabel(f"error of $L + g^\\top d$, with {QUADRATIC} and without")
    ax.set_title("With the Hessian the error falls as the cube,\nwithout it as the square")
    ax.legend(frameon=False)
    with_hessian = [pair[0] for pair in slopes.values()]
    without = [pair[1] for pair in slopes.values()]
    return Outcome(
        f"The error of L + g'd + d'Hd/2 falls as ||d|| to the power {with_hessian[0]:.2f} at the "
        "start and "
        f"{with_hessian[1]:.2f} after training; without the Hessian to the power {without[0]:.2f} "
        f"and {without[1]:.2f}.",
        save(ax, __file__, out),
        {"with_hessian": with_hessian, "without": without},
    )


def slope(x, y):
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


if __name__ == "__main__":
    command_line(main)
