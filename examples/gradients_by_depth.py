"""L10. Gradients vanish or explode with depth, unless the initialisation keeps their scale:
Xavier's does, and He's for relu.

For each activation and initialisation, from the first layer to the last, the picture shows two
quantities: the norm of the gradient over the layer's biases, which is what backpropagation brings
there, and the largest curvature in the layer's own block of the Hessian. For relu with twice He's
scale there is no curve of the curvature: the outputs are so large that every softmax is saturated,
and the curvature is 0 or below 1e-16.

Not shown: the curvature from more than one start (the gradients are means of five), trained
networks, and shallow ones: through three layers no gradient shrinks a hundredfold.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

HEADINGS = {
    "tanh": "tanh: constant with\nXavier's scale",
    "sigmoid": "sigmoid: vanishes\nwith every scale",
    "relu": "relu: constant with\nHe's scale",
}
INITS = ("xavier", "he", "lecun", "half of xavier", "twice he")


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 100, 500, 1797))
    depth, width = pick(scale, 8, 20, 30), pick(scale, 16, 32, 64)
    sizes = [64] + [width] * depth + [10]
    figure = plots.new_figure((7.6, 5.6))
    axes = figure.subplots(2, 3, sharex=True)
    spans = {}
    for column, activation in zip(axes.T, ("tanh", "sigmoid", "relu")):
        ob = fc.Objective(fc.MLP(sizes, activation=activation), X, y, loss="cross_entropy")
        for init, color in zip(INITS, plots.CYCLE):
            gradients, curvatures = profile(
                ob, init, pick(scale, 1, 5, 20), every=pick(scale, 4, 4, 2)
            )
            layers = np.arange(1, depth + 2)
            column[0].plot(layers, gradients, "o-", ms=3, color=color, label=init)
            column[1].plot(*np.transpose(curvatures), "o-", ms=3, color=color, label=init)
            if max(value for _, value in curvatures) < 1e-16:
                column[1].text(
                    0.97,
                    0.05,
                    f"{init}: 0, the\nsoftmax saturates",
                    fontsize=9,
                    color=color,
                    transform=column[1].transAxes,
                    ha="right",
                )
            spans[activation, init] = gradients[-2] / gradients[0]
        column[0].set_title(HEADINGS[activation])
        column[1].set_xlabel("layer")
        column[1].xaxis.get_major_locator().set_params(integer=True)
    for ax, label in zip(
        axes[:, 0], ("norm of the gradient\nover the biases", r"largest $|\lambda|$ of the block")
    ):
        ax.set_ylabel(label)
    for ax in axes.flat:
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-16))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=5)
    return Outcome(
        f"Through {depth} layers the gradient shrinks {spans['tanh', 'half of xavier']:.1e} times "
        "with half of Xavier "
        f"and {spans['tanh', 'xavier']:.2g} times with Xavier (tanh), "
        f"{spans['relu', 'xavier']:.1e} times with Xavier and "
        f"{spans['relu', 'he']:.2g} times with He (relu); with sigmoid it shrinks "
        f"{spans['sigmoid', 'xavier']:.1e} times "
        "even with Xavier.",
        save(figure, __file__, out),
        {"spans": spans, "depth": depth},
    )


def profile(ob, init, n_seeds, every):
    """Return the gradient norm of every layer's biases, and ``(layer, largest |eigenvalue|)`` of
    some blocks, as geometric means over the seeds.
    """
    scheme = init.split()[-1]
    factor = {"half": 0.5, "twice": 2.0}.get(init.split()[0], 1.0)
    gradients, blocks = [], list(range(0, len(ob.model.sizes) - 1, every))
    curvatures = []
    for seed in range(n_seeds):
        theta = factor * ob.model.init(rng=seed, scheme=scheme)
        gradients.append([np.linalg.norm(b) for _, b in ob.model.unflatten(ob.gradient(theta))])
    hessian = ob.hessian(theta)
    for layer in blocks:
        pairs = fc.eigsh(
            hessian.restrict(layers=[layer]), k=1, which="LM", tol=1e-2, rng=0, max_products=100
        )
        curvatures.append((layer + 1, max(abs(pairs.values[0]), 1e-300)))
    return np.exp(np.mean(np.log(np.maximum(gradients, 1e-300)), axis=0)), curvatures


if __name__ == "__main__":
    command_line(main)
