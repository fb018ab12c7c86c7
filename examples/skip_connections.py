"""L11. Through many layers training goes further with skip connections or batch normalisation; the
surface comes closer to its quadratic picture with skip connections alone.

Deep networks, plain, with `residual=True` and with `batch_norm=True`. Smooth does not mean flat:
the largest eigenvalue at the start is larger with either. What skip connections change is how far
down along -g the quadratic picture can be trusted: the share of the loss taken off where Taylor's
polynomial begins to err by a tenth of the change it foretells. Batch normalisation leaves that
about as it was, here below and there above the plain network's.
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
    epochs = pick(scale, 10, 40, 100)
    probes, steps = pick(scale, (2, 30), (4, 60), (10, 90))
    figure = plots.new_figure((7.6, 6.4))
    panels = figure.subplot_mosaic([["spectra", "bars"], ["training", "training"]])
    spectra, bars, training = panels.values()
    facts = {}
    for place, ((name, options), color) in enumerate(zip(VARIANTS.items(), plots.CYCLE)):
        model = fc.MLP([64] + [width] * depth + [10], activation="tanh", **options)
        ob = fc.Objective(model, X, y, loss="cross_entropy")
        start = model.init(seed=0)
        steps_of_sgd = {"max_iter": epochs, "batch_size": 64, "seed": 0, "verdict": False}
        result = fc.minimize(ob, start, "sgd", **steps_of_sgd)
        density = fc.spectral_density(ob.hessian(start), n_probes=probes, n_steps=steps, seed=0)
        shown = density.density > 1e-6
        spectra.semilogy(density.grid[shown], density.density[shown], color=color, lw=1.3)
        trusted = trusted_fall(ob, start)
        bars.bar(place, 100 * trusted, color=color, width=0.65)
        bars.text(place, 100 * trusted + 1, f"{trusted:.0%}", ha="center", fontsize=11)
        loss = np.array(result.history["loss"])
        training.semilogy(np.minimum.accumulate(loss), color=color, label=name, lw=2)
        facts[name] = {
            "loss": float(loss.min()),
            "sharpness": float(density.nodes.max()),
            "trusted fall": trusted,
        }
    spectra.set_xscale("symlog", linthresh=1.0)
    spectra.set_title("At the start: more curved\nthan plain")
    spectra.set_xlabel("eigenvalue")
    spectra.set_ylabel("density")
    bars.set_title("Skip: nearer to its\nquadratic picture")
    bars.set_ylabel("% of the loss taken off\nbefore it errs")
    bars.set_xticks(range(3), labels=["plain", "skip", "batch norm"])
    bars.set_ylim(0, 1.2 * 100 * max(f["trusted fall"] for f in facts.values()))
    training.set_title("The same SGD gets further with either")
    training.set_xlabel("epoch")
    training.set_ylabel("lowest training loss so far")
    training.legend(frameon=False)
    words = "; ".join(
        f"{name}: largest eigenvalue {f['sharpness']:.3g}, Taylor's polynomial good for a fall of "
        f"{f['trusted fall']:.1%}, loss after training {f['loss']:.3g}"
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
