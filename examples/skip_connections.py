"""L11. Skip connections smooth the surface.

Deep networks with and without `residual=True`, at their start and after the same training: the spectra side by side,
the loss reached, and how far the quadratic picture carries along the gradient.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 200, 1000, 1797))
    depth, width = pick(scale, 8, 20, 40), pick(scale, 12, 24, 32)
    sizes = [64] + [width] * depth + [10]
    figure = plots.new_figure((10.5, 3.8))
    axes = figure.subplots(1, 3)
    facts = {}
    for (name, options), color in zip(variants().items(), plots.CYCLE):
        ob = fc.Objective(fc.MLP(sizes, activation="tanh", **options), X, y, loss="cross_entropy")
        start = ob.model.init(seed=0)
        result = fc.minimize(ob, start, "sgd", max_iter=pick(scale, 10, 40, 100), batch_size=64, seed=0)
        for ax, theta in zip(axes, (start, result.x)):
            hessian = ob.hessian(theta)
            density = fc.spectral_density(
                hessian, n_probes=pick(scale, 2, 5, 10), n_steps=pick(scale, 30, 60, 90), seed=0
            )
            plots.density(density, ax, label=name, color=color)
        plots.curve(result.history["iteration"], result.history["loss"], axes[2], label=name, color=color)
        first = ob.model.unflatten(ob.gradient(start))
        facts[name] = {
            "loss": float(result.fun),
            "first/last gradient": np.linalg.norm(first[0][0]) / np.linalg.norm(first[-2][0]),
            "sharpness": float(fc.eigsh(ob.hessian(start), k=1, which="LA", tol=1e-3, seed=0).values[0]),
        }
    for ax, title in zip(axes, ("at the start", "after training", "sgd")):
        ax.set_title(title)
    axes[2].set_xlabel("epoch")
    axes[2].set_ylabel("training loss")
    words = "; ".join(
        f"{name}: gradient of the first layer {f['first/last gradient']:.2g} of the last's, largest eigenvalue "
        f"{f['sharpness']:.3g}, loss after training {f['loss']:.3g}"
        for name, f in facts.items()
    )
    return Outcome(f"Through {depth} layers, {words}.", save(figure, __file__, out), facts)


def variants():
    return {"plain": {}, "skip connections": {"residual": True}}


if __name__ == "__main__":
    command_line(main)
