"""L18. In one variable Newton's step goes to the vertex of a parabola, which lies below the point
where the function is convex, and above it where the function is concave.

One weight of a network is free, and L(w) is its loss. The parabola with the same value, slope and
curvature at a point has its vertex one Newton step away. Where the curve is concave, that vertex is
the top of the parabola. The saddle-free step, with |curvature| in place of the curvature, goes down
from both points.

Not shown: more than one weight, where a step may go down along some directions and up along others;
and points from which the loss at the end of the step is on the other side than the vertex: near the
inflection (w from 1.27 to 1.49) the step is so long that the loss rises, and with gelu and silu
units it falls from some concave points.
"""

import warnings

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    # y = tanh(w x) at one sample: flat, steep and flat again
    model = fc.MLP([1, 1, 1], bias=False)
    ob = fc.Objective(model, [[1.0]], [[0.8]], loss="mse")

    def restricted(w):
        return np.array([w, 1.0])

    figure = plots.new_figure((7.6, 4.2))
    w = np.linspace(-3.2, 3.2, pick(scale, 61, 241, 481))
    losses = [ob.value(restricted(x)) for x in w]
    facts = {}
    points = {"Convex: the vertex\nis below": 0.4, "Concave: the vertex\nis above": -1.1}
    for ax, (title, at) in zip(figure.subplots(1, 2, sharey=True), points.items()):
        theta = restricted(at)
        slope = ob.gradient(theta)[:1]
        H = ob.hessian(theta).restrict(indices=[0])
        value, curvature = ob.value(theta), float(H.to_dense()[0, 0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fc.IndefiniteHessianWarning)
            newton = at + float(fc.newton_step(H, slope)[0])
        free = at + float(fc.saddle_free_newton_step(H, slope, damping=0.0)[0])
        ax.plot(w, losses, color=plots.BLUE, lw=2.5, label="loss $L(w)$")
        parabola = value + slope[0] * (w - at) + 0.5 * curvature * (w - at) ** 2
        ax.plot(w, parabola, color=plots.ORANGE, ls="--", label="its parabola there")
        ax.plot(at, value, "o", color="black", ms=9, ls="none", label="here")
        vertex = value - 0.5 * slope[0] ** 2 / curvature
        ax.plot(newton, vertex, "X", color=plots.RED, ms=13, label="Newton's step: to the vertex")
        ax.plot(
            free, ob.value(restricted(free)), "v", color=plots.GREEN, ms=9, label="saddle-free step"
        )
        ax.set_title(title)
        ax.set_xlabel("$w$")
        ax.set_ylabel("loss")
        ax.set_ylim(-0.3, 5.4)
        facts[at] = {
            "curvature": curvature,
            "newton": float(ob.value(restricted(newton)) - value),
            "free": float(ob.value(restricted(free)) - value),
            "vertex": float(vertex - value),
        }
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    convex, concave = facts.values()
    return Outcome(
        f"Where the curvature is {convex['curvature']:.2f}, Newton's step changes the loss by "
        f"{convex['newton']:.3f}; where it is {concave['curvature']:.2f}, by "
        f"{concave['newton']:+.3f}: uphill. The saddle-free step there changes it by "
        f"{concave['free']:.3f}.",
        save(figure, __file__, out),
        {"convex": convex, "concave": concave},
    )


if __name__ == "__main__":
    command_line(main)
