"""L2. A loss that is constant for long and then drops suddenly is no bug: a small perturbation of
theta ends the plateau, and a gradient check tells a bug from a plateau.

Left: gradient descent from the saddle where the outputs do not depend on the inputs. From the
saddle itself no step moves theta. After one perturbation of theta the loss drops, and the larger
the perturbation, the sooner. Right: the gradient on the plateau against central differences along a
random direction. The difference falls with the length of the step until rounding stops it. With a
bug, one layer's gradient 10% too large, it stays.

Half right: that noise pushes off a plateau. A perturbation of theta does. The noise of mini-batches
does not, from this saddle: with all weights at zero, the gradient of every mini-batch with respect
to the weights is exactly zero, so that its noise moves only the output biases (with sigmoid or
softplus units, which are not 0 at 0, it leads away). From a saddle of 300 samples with one negative
eigenvalue (-0.010) at which no weight is zero, found by a search, the noise leads away: 400 epochs
of batches of 15, at a rate that is 0.1 for the first half and then decays, end below the saddle for
each of three orders of the samples. As many steps with all samples stay at the saddle.

Not shown: how long the noise takes. It depends on the rate, the batches and the eigenvalue: from
the saddles of 100 and of 1000 samples, where the eigenvalue is -0.004 and -0.001, none of the three
runs ends below.
"""

import numpy as np
from common import Outcome, command_line, constant_then_decay, digits, first_index, pick, save

import fastcurv as fc
from fastcurv import plots

DISTANCES = (1e-2, 1e-4, 1e-8)
N_EPOCHS = 400
PATIENCE = 20  # steps over which the loss must fall by 1e-4 of itself, or training is stopped
N_ORDERS = 3  # orders of the samples in which mini-batches leave the other saddle


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 100, 300, 1000), n_features=8)
    ob = fc.Objective(fc.MLP([8, 10, 10]), X, y, loss="cross_entropy")
    saddle = np.zeros(ob.n_params)
    saddle[-10:] = np.log(np.bincount(y, minlength=10) / y.size)
    direction = np.random.default_rng(0).standard_normal(ob.n_params)
    direction /= np.linalg.norm(direction)
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    n_steps = pick(scale, 250, 400, 400)
    drops, stops, moved = {}, {}, []
    for size, color in zip(DISTANCES, plots.CYCLE):
        losses = descend(ob, saddle + size * direction, n_steps)
        left.plot(losses, color=color, lw=1.5, label=f"moved by $10^{{{np.log10(size):.0f}}}$")
        drops[size] = first_index(losses < 0.7 * losses[0])
        slow = losses[PATIENCE:] > 0.9999 * losses[:-PATIENCE]
        stops[size] = min(PATIENCE + first_index(slow), n_steps)
        left.plot(stops[size], losses[stops[size]], "s", color=color, ms=7)
        moved.append(losses)
    still = descend(ob, saddle, n_steps)
    batches = descend(ob, saddle, n_steps // 20, batch_size=max(1, len(y) // 20))
    left.plot(still, color="black", ls="--", lw=1.2, label="not moved")
    left.plot([], [], "s", color=plots.GREY, ms=7, label=f"a patience of {PATIENCE} steps")
    left.plot(
        20 * np.arange(batches.size),
        batches,
        color=plots.PURPLE,
        ls=":",
        lw=2.5,
        label="mini-batches",
    )
    left.set(xlabel="step", ylabel="loss", ylim=(0, 1.35 * still[0]))
    left.set_title("The smaller the perturbation,\nthe later the drop")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
    plateau = saddle + 1e-2 * direction
    errors = gradient_errors(ob, plateau)
    for name, color in (("right gradient", plots.GREEN), ("one layer 10% too large", plots.RED)):
        right.plot(*errors[name], "o-", ms=4, color=color, label=name)
    right.set(xscale="log", yscale="log", xlabel="step of the central difference")
    right.set_ylabel("relative difference")
    right.set_title("A gradient check tells a bug\nfrom a plateau")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)
    best = {name: float(error.min()) for name, (_, error) in errors.items()}
    verdict = fc.classify(ob, saddle)
    other_saddle = leave_another_saddle()
    ends = other_saddle["mini-batches"]
    return Outcome(
        f"From a {verdict.kind} the loss drops after {drops[DISTANCES[0]]}, "
        f"{drops[DISTANCES[1]]} and {drops[DISTANCES[2]]} steps if theta is moved by 1e-2, 1e-4 "
        f"and 1e-8; unmoved it changes by "
        f"{np.ptp(still):.0e} in {n_steps} steps. From a saddle of index 1 at a loss of "
        f"{other_saddle['saddle']:.4f}, {np.sum(ends < other_saddle['saddle'])} of {N_ORDERS} runs "
        f"of {N_EPOCHS} epochs with mini-batches end below, at "
        f"{ends.min():.4f} to {ends.max():.4f}; with all samples at "
        f"{other_saddle['all samples']:.4f}. "
        f"On the plateau central differences agree with "
        f"the gradient to {best['right gradient']:.0e}, and with a wrong one to "
        f"{best['one layer 10% too large']:.0e}.",
        save(figure, __file__, out),
        {
            "kind": verdict.kind,
            "drops": drops,
            "stops": {size: loss[stops[size]] / loss[0] for size, loss in zip(stops, moved)},
            "moved": moved[0],
            "still": still,
            "batches": batches,
            "check": best,
            "other_saddle": other_saddle,
        },
    )


def leave_another_saddle(n_samples=300, n_batches=20):
    """Return the loss at a saddle of index 1, and those at the last points of SGD that begins
    there: with mini-batches for several orders of the samples, and with as many steps that use all
    samples.
    """
    X, y = digits(n_samples, n_features=8)
    ob = fc.Objective(fc.MLP([8, 4, 10]), X, y, loss="cross_entropy", l2=1e-3)
    trained = fc.minimize(ob, ob.model.init(rng=1), "adam", max_iter=60, rng=0, verdict=False).x
    saddle = fc.find_critical_point(ob, trained, index=1).x
    n_steps = N_EPOCHS * n_batches
    options = {"learning_rate": constant_then_decay(0.1, n_steps // 2)}
    batches = {"batch_size": len(y) // n_batches}
    ends = [
        descend(ob, saddle, N_EPOCHS, rng=seed, **options, **batches)[-1]
        for seed in range(N_ORDERS)
    ]
    return {
        "saddle": float(ob.value(saddle)),
        "mini-batches": np.array(ends),
        "all samples": float(descend(ob, saddle, n_steps, **options)[-1]),
    }


def descend(ob, theta, n_steps, **options):
    """Return the losses of gradient descent, which does not stop where the gradient is zero."""
    fixed = {"max_iter": n_steps, "gradient_tol": 0.0, "verdict": False}
    options = {"learning_rate": 1.0, "rng": 0} | options | fixed
    return np.array(fc.minimize(ob, theta, "sgd", **options).history["loss"])


def gradient_errors(ob, theta):
    """Return the relative differences of a right and a wrong gradient from central differences, by
    step.
    """
    v = np.random.default_rng(1).standard_normal(ob.n_params)
    right = ob.gradient(theta)
    wrong = right.copy()
    ob.model.unflatten(wrong)[-1][0][:] *= 1.1
    steps = 10.0 ** np.arange(-9, 1)
    slopes = np.array(
        [(ob.value(theta + h * v) - ob.value(theta - h * v)) / (2 * h) for h in steps]
    )
    found = {"right gradient": right, "one layer 10% too large": wrong}
    return {name: (steps, np.abs(slopes - g @ v) / abs(g @ v)) for name, g in found.items()}


if __name__ == "__main__":
    command_line(main)
