"""L11. Skip connections and batch normalisation let gradients and training through deep networks.

Deep networks, plain, with `residual=True` and with `batch_norm=True`, at their start and after the
same training: the spectra side by side, the loss reached, and how far down along -g the quadratic
picture can be trusted: the share of the loss taken off where Taylor's polynomial begins to err by a
tenth of the change it foretells.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots

VARIANTS = {
    "plain": {},
    "skip connections": {"residual": True},
    "batch normalisation": {"batch_norm": True},
}


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 200, 1000, 1797))
    depth, width = pick(scale, 8, 20, 40), pick(scale, 12, 24, 32)
    probes, steps = pick(scale, (2, 30), (5, 60), (10, 90))
    figure = plots.new_figure((12.0, 4.2))
    axes = figure.subplots(1, 3)
    facts = {}
    for (name, options), color in zip(VARIANTS.items(), plots.CYCLE):
        model = fc.MLP([64] + [width] * depth + [10], activation="tanh", **options)
        ob = fc.Objective(model, X, y, loss="cross_entropy")
        start = model.init(seed=0)
        result = fc.minimize(
            ob, start, "sgd", max_iter=pick(scale, 10, 40, 100), batch_size=64, seed=0
        )
        for ax, theta in zip(axes, (start, result.x)):
            density = fc.spectral_density(ob.hessian(theta), n_probes=probes, n_steps=steps, seed=0)
            plots.density(density, ax, color=color)
        plots.curve(
            result.history["iteration"], result.history["loss"], axes[2], label=name, color=color
        )
        first = model.unflatten(ob.gradient(start))
        facts[name] = {
            "loss": float(result.fun),
            "first/last gradient": float(
                np.linalg.norm(first[0][0]) / np.linalg.norm(first[-2][0])
            ),
            "sharpness": float(
                fc.eigsh(ob.hessian(start), k=1, which="LA", tol=1e-3, seed=0).values[0]
            ),
            "trusted fall": trusted_fall(ob, start),
        }
    for ax, title in zip(
        axes, ("Spectrum at the start", "Spectrum after training", "The same training, by SGD")
    ):
        ax.set_title(title)
    axes[2].set_xlabel("epoch")
    axes[2].set_ylabel("training loss")
    words = "; ".join(
        f"{name}: gradient of the first layer {f['first/last gradient']:.2g} of the last's, "
        "largest eigenvalue "
        f"{f['sharpness']:.3g}, Taylor's polynomial good for a fall of {f['trusted fall']:.1%}, "
        f"loss after training {f['loss']:.3g}"
        for name, f in facts.items()
    )
    return Outcome(f"Through {depth} layers, {words}.", save(figure, __file__, out), facts)


def trusted_fall(ob, theta, share=0.1):
    """The loss taken off along -g, as a share of it, before Taylor's polynomial errs by `share` of
    the change it foretells.
    """
    quadratic, loss = ob.taylor(theta), ob.value(theta)
    direction = -ob.gradient(theta)
    direction /= np.linalg.norm(direction)
    fall = 0.0
    for t in np.geomspace(1e-4, 1e2, 121):
        foretold, found = quadratic(t * direction), ob.value(theta + t * direction)
        if abs(found - foretold) > share * abs(foretold - loss):
            break
        fall = max(fall, loss - found)
    return float(fall / loss)


if __name__ == "__main__":
    command_line(main)
