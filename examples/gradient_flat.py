"""A search that minimises the norm of the gradient can end where the gradient is not zero but an
eigenvector of H with eigenvalue 0.

L-BFGS minimises half the squared norm of the gradient g, whose own gradient is Hg. In a linear
autoencoder nearly all searches end at critical points, where g is zero. In the network with tanh
and weight decay here they end where Hg is zero and g is not. The paper calls such a point
gradient-flat; Newton's method stops there too, because H is singular along g.

Paper: C. Frye et al., Critical Point-Finding Methods Reveal Gradient-Flat Regions of Deep Network
Losses, Neural Computation 2021.

Not shown: searches that follow eigenvectors to a given index; they end at critical points. Nor
other networks: with sigmoid units none of 10 searches ended at a gradient-flat point, with tanh on
the wine data 3, and with a weight decay of 1e-3 one.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


class GradientNorm:
    """Half the squared norm of an objective's gradient."""

    def __init__(self, ob):
        self.ob, self.n_params = ob, ob.n_params

    def value(self, theta):
        return self.ob.gradient(theta) @ self.ob.gradient(theta) / 2

    def gradient(self, theta):
        return self.ob.hessian(theta) @ self.ob.gradient(theta)


def reproduce(activation, seed):
    """Return the objective and the points of a search."""
    X, y = digits(100, n_features=4)
    if activation == "identity":
        ob = fc.Objective(fc.MLP([4, 2, 4], activation=activation), X, X, loss="mse")
    else:
        ob = fc.Objective(fc.MLP([4, 8, 10], activation=activation), X, y, l2=1e-2)
    points = [ob.model.init(rng=seed)]
    fc.minimize(
        GradientNorm(ob), points[0], "l-bfgs", max_iter=3000, gradient_tol=1e-13, verdict=False,
        callback=lambda xk: points.append(xk.copy()),
    )  # fmt: skip
    return ob, points


def measure(ob, points):
    """Return some steps of a search, the norms of g and Hg at these steps, the latter over the
    product of the norms of H and g, and the kind of the last point.
    """
    steps = np.unique(np.geomspace(1, len(points), 30).astype(int)) - 1
    sizes, ratios = [], []
    for step in steps:
        g, H = ob.gradient(points[step]), ob.hessian(points[step]).to_dense()
        sizes.append(np.linalg.norm(g))
        ratios.append(np.linalg.norm(H @ g) / (np.linalg.norm(H, 2) * sizes[-1]))
    return steps + 1, np.array(sizes), np.array(ratios), fc.classify(ob, points[-1]).kind


def main(scale="normal", out="pictures"):
    seeds = range(pick(scale, 2, 10, 50))
    names = {"identity": "linear autoencoder", "tanh": "network with tanh"}
    runs = {name: [measure(*reproduce(name, seed)) for seed in seeds] for name in names}
    ends = {
        name: (np.array([run[1][-1] for run in own]), np.array([run[2][-1] for run in own]))
        for name, own in runs.items()
    }

    figure = plots.new_figure((7.6, 3.9))
    left, right = figure.subplots(1, 2)
    for name, color in zip(names, (plots.GREEN, plots.RED)):
        for number, (steps, size, ratio, _) in enumerate(runs[name]):
            look = {"color": color, "lw": 1.2, "label": None if number else names[name]}
            left.loglog(steps, np.maximum(size, 1e-13), **look)
            right.loglog(steps, np.maximum(ratio, 1e-13), **look)
    for ax in (left, right):
        ax.set_xlabel("step of the search")
        ax.set_ylim(1e-13, 10)
    left.set_ylabel(r"$\|g\|$")
    right.set_ylabel(r"$\|Hg\| \,/\, \|H\| \|g\|$")
    left.set_title("In this network with tanh the\ngradient stays above zero")
    right.set_title("There, it is an eigenvector\nof eigenvalue 0")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2)
    kinds = {name: [run[3] for run in own] for name, own in runs.items()}
    flat = np.sum((ends["tanh"][0] > 1e-4) & (ends["tanh"][1] < 1e-5))
    return Outcome(
        f"{np.sum(ends['identity'][0] < 1e-8)} of {len(seeds)} searches in a linear autoencoder "
        f"end at critical points. Of {len(seeds)} in a network with tanh, {flat} end with a "
        f"gradient of {ends['tanh'][0].min():.4f} to {ends['tanh'][0].max():.4f} that H takes to "
        f"at most {ends['tanh'][1].max():.0e} of its norm times that of H.",
        save(figure, __file__, out),
        {"ends": ends, "flat": flat, "kinds": kinds},
    )


if __name__ == "__main__":
    command_line(main)
