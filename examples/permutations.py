"""L12. Permuting hidden units gives another theta with the same function: theta is not
identifiable.

In a trained network, hidden units are permuted and (for tanh) signs flipped. Loss, gradient norm
and every eigenvalue stay the same, while theta moves far away. On the straight line between the
copies the loss rises.

Not shown: paths between copies other than the straight line, some of which are level.
"""

from math import factorial

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 100, 400, 1797), n_features=16)
    width = pick(scale, 6, 12, 20)
    ob = fc.Objective(
        fc.MLP([16, width, 10], activation="tanh"), X, y, loss="cross_entropy", l2=1e-4
    )
    theta = fc.minimize(
        ob, ob.model.init(rng=0), "adam", max_iter=pick(scale, 100, 500, 1000), learning_rate=1e-2
    ).x
    theta = fc.minimize(ob, theta, "newton-cg", max_iter=200).x
    rng = np.random.default_rng(0)
    copies = [permuted_copy(ob.model, theta, rng) for _ in range(5)]
    spectrum = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
    largest = np.abs(spectrum).max()
    gaps = [
        np.abs(np.linalg.eigvalsh(ob.hessian(c).to_dense()) - spectrum).max() / largest
        for c in copies
    ]
    loss_gaps = [abs(ob.value(c) - ob.value(theta)) / ob.value(theta) for c in copies]
    distances = [np.linalg.norm(c - theta) / np.linalg.norm(theta) for c in copies]

    figure = plots.new_figure((7.6, 3.6))
    left, right = figure.subplots(1, 2)
    t = np.linspace(0, 1, 61)
    lines = [[ob.value(theta + s * (c - theta)) for s in t] for c in copies]
    for line, color in zip(lines, plots.CYCLE):
        left.plot(t, line, lw=1.4, color=color)
    left.set_yscale("log")
    left.set_xlabel(r"from $\theta$ (0) to its copy (1)")
    left.set_ylabel("loss")
    left.set_title("Between copies of one\nminimum the loss rises")
    rank = np.arange(1, spectrum.size + 1)
    right.semilogy(rank, np.abs(spectrum), color=plots.SKY, lw=6, label=r"$\theta$")
    other = np.abs(np.linalg.eigvalsh(ob.hessian(copies[0]).to_dense()))
    right.semilogy(rank, other, color="black", lw=1, label="a copy")
    right.set_xlabel("rank")
    right.set_ylabel(r"$|\lambda|$")
    right.set_title("The same spectrum\nat both")
    right.legend(frameon=False)
    barrier = min(max(line) for line in lines) / ob.value(theta)
    return Outcome(
        f"{2**width * factorial(width):.1e} copies of one network: in five of them the loss "
        "differs by at most "
        f"{max(loss_gaps):.0e} and the {ob.n_params} eigenvalues by at most {max(gaps):.0e} of "
        "the largest, at a distance "
        f"of at least {min(distances):.2f} ||theta||; between them the loss rises "
        f"{barrier:.1f}-fold or more.",
        save(figure, __file__, out),
        {"loss_gaps": loss_gaps, "gaps": gaps, "distances": distances, "barrier": barrier},
    )


def permuted_copy(model, theta, rng):
    """Return theta of the same function: hidden units in another order, some with their signs
    flipped on both sides (tanh is odd).
    """
    width = model.sizes[1]
    theta = fc.structure.permute_hidden(model, theta, 0, rng.permutation(width))
    return fc.structure.flip_tanh(model, theta, 0, np.flatnonzero(rng.random(width) < 0.5))


if __name__ == "__main__":
    command_line(main)
