"""L6. The smallest network with a saddle has two weights, so its whole error surface can be drawn.

The network is `y = w1 w2 x` with `x = y = 1`, so `L = (1 - w1 w2)^2`. It has a saddle at the
origin, where `H = [[0, -2], [-2, 0]]` has the eigenvalues -2 and 2, and two valleys of minima,
`w1 w2 = 1`. The escape direction is (1, 1), and its opposite leads down as far.

Not shown: networks with more weights, whose surfaces differ from those over two weights, as the
pictures of wider networks show.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    model = fc.MLP([1, 1, 1], activation="identity", bias=False)
    ob = fc.Objective(model, np.ones((1, 1)), np.ones((1, 1)), loss="mse")
    origin = np.zeros(2)
    hessian = ob.hessian(origin).to_dense()
    saddle = fc.classify(ob, origin)
    way = fc.escape(ob, origin)
    valley = fc.classify(ob, np.array([0.5, 2.0]))

    ax = plots.surface(
        lambda w1, w2: np.log1p(ob.value(np.array([w1, w2]))),
        (-2.2, 2.2),
        (-2.2, 2.2),
        n=pick(scale, 41, 141, 301),
        xlabel="$w_1$",
        ylabel="$w_2$",
    )
    ax.figure.axes[-1].set_ylabel("log(1 + loss)")
    w = np.linspace(0.46, 2.2, 100)
    for sign in (1, -1):
        label = "valleys: $w_1 w_2 = 1$" if sign > 0 else None
        ax.plot(sign * w, sign / w, color=plots.SKY, lw=2, label=label)
    for end in (way.x, -way.x):
        ax.annotate("", end, origin, arrowprops={"arrowstyle": "->", "color": "white", "lw": 2})
    plots.mark(ax, 0, 0, saddle.kind, f"{saddle.kind}, loss 1, eigenvalues $-2$ and $2$")
    plots.mark(
        ax,
        *way.x,
        "not_critical",
        f"after one step of escape, loss below ${power_of_ten(way.fun)}$",
    )
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    ax.set_title("A saddle at 0 and two valleys: $L = (1 - w_1 w_2)^2$")
    eigenvalues = np.linalg.eigvalsh(hessian)
    direction = np.abs(saddle.escape_direction)
    return Outcome(
        f"H(0, 0) has eigenvalues {eigenvalues[0]:.12g} and {eigenvalues[1]:.12g}, so the origin "
        f"is a {saddle.kind}; "
        f"along ({direction[0]:.4f}, {direction[1]:.4f}) the loss falls from {ob.value(origin):g} "
        f"to {way.fun:.1e}, "
        f"and a point of the valley is a {valley.kind}, flat in {valley.n_zero} direction.",
        save(ax, __file__, out),
        {
            "hessian": hessian,
            "kind": saddle.kind,
            "certified": saddle.certified,
            "direction": direction,
            "before": ob.value(origin),
            "loss": way.fun,
            "valley": valley.kind,
            "valley_zero": valley.n_zero,
        },
    )


def power_of_ten(x):
    """Return the power of ten above ``x``, as mathematical text."""
    return f"10^{{{int(np.ceil(np.log10(x)))}}}"


if __name__ == "__main__":
    command_line(main)
