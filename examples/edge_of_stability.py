"""Under gradient descent at a constant rate, the largest eigenvalue of the Hessian rises to 2/rate
and stays there. The loss still falls, though not in every step.

A network of 100 tanh units learns the Chebyshev polynomial of degree 4 from all its samples. On a
parabola, descent diverges if the curvature exceeds 2/rate. Here no step raises the loss until the
largest eigenvalue is that high. From then on the mean of that eigenvalue is 2/rate to a few per
cent, many steps raise the loss, and it still falls over time. The larger the rate, the smaller the
eigenvalue.

Paper: J. Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of
Stability, ICLR 2021.

Not shown: cross-entropy, where the largest eigenvalue falls again late in training, and
mini-batches, with which it stays below 2/rate. Nor does it reach 2/rate if training needs less
curvature: at a rate of 0.1 with 10 units or for the target sin 3x it stays at half of that in the
mean, as it does in one or two of fifteen trainings from other starts at a rate of 0.05, and with a
weight decay of 1e-2 it falls. With relu it is above 2/rate at the start.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


def reproduce(rate, seed, time=800):
    """Return losses of all steps, the steps of the records, and the largest eigenvalue at each."""
    x = np.linspace(-1, 1, 20)[:, None]
    model = fc.MLP([1, 100, 1], activation="tanh")
    ob = fc.Objective(model, x, 8 * x**4 - 8 * x**2 + 1, loss="mse")
    theta, losses, steps, sharpness = model.init(rng=seed), [], [], []
    for step in range(round(time / rate)):
        if step % round(1 / rate) == 0:
            pair = fc.eigsh(ob.hessian(theta), 1, which="LA", rng=0)
            steps.append(step)
            sharpness.append(pair.values[0])
        losses.append(ob.value(theta))
        theta = theta - rate * ob.gradient(theta)
    return np.array(losses), np.array(steps), np.array(sharpness)


def main(scale="normal", out="pictures"):
    rates = pick(scale, (0.2, 0.1), (0.2, 0.1, 0.05), (0.2, 0.1, 0.05))
    seeds = range(1, pick(scale, 2, 6, 11))
    time = pick(scale, 500, 1000, 1200)
    runs = {rate: [reproduce(rate, seed, time) for seed in seeds] for rate in rates}
    facts = {rate: [measure(rate, *run) for run in own] for rate, own in runs.items()}

    figure = plots.new_figure((7.6, 3.8))
    left, right = figure.subplots(1, 2)
    for rate, color in zip(rates, plots.CYCLE):
        losses, steps, sharpness = runs[rate][0]
        left.plot(rate * steps, sharpness, color=color, lw=1.4)
        left.axhline(2 / rate, color=color, ls="--", lw=1)
        left.annotate(f"2/{rate:g}", (0, 2 / rate), (3, 3), textcoords="offset points", color=color)
        right.semilogy(rate * np.arange(losses.size), losses, color=color, lw=1)
        right.plot([], [], color=color, lw=2, label=f"rate {rate:g}")
    left.set_xlabel("rate times steps")
    left.set_ylabel("largest eigenvalue")
    left.set_title("The largest eigenvalue rises\nto 2/rate, and stays there")
    right.set_xlabel("rate times steps")
    right.set_ylabel("loss")
    right.set_title("The loss falls on,\nwith rises in between")
    right.legend(frameon=False, loc="lower left")
    first = np.concatenate([[run[2][0] for run in own] for own in runs.values()])
    every = [fact for own in facts.values() for fact in own]
    n_reached = sum(fact["reached"] for fact in every)
    return Outcome(
        f"In {n_reached} of {len(every)} trainings at {len(rates)} rates the largest eigenvalue "
        f"rises to 2/rate, from {first.min():.1f} to {first.max():.1f} at the start. "
        "From then on its mean is "
        f"{min(f['mean'] for f in every):.2f} to {max(f['mean'] for f in every):.2f} of that. "
        f"Before, {sum(f['rises_before'] for f in every)} steps raise the loss, after "
        f"{min(f['rises_after'] for f in every):.0%} to {max(f['rises_after'] for f in every):.0%} "
        f"of them, and the loss ends at {min(f['fall'] for f in every):.0%} to "
        f"{max(f['fall'] for f in every):.0%} of what it was there.",
        save(figure, __file__, out),
        {"facts": facts, "first": first},
    )


def measure(rate, losses, steps, sharpness):
    """Return what happens before and after the largest eigenvalue reaches 2/rate."""
    reached = int(np.argmax(rate * sharpness > 2))
    before, after = losses[: steps[reached] + 1], losses[steps[reached] :]
    return {
        "reached": bool(reached),
        "mean": float(rate * sharpness[reached:].mean() / 2),
        "rises_before": int(np.sum(np.diff(before) > 0)),
        "rises_after": float(np.mean(np.diff(after) > 0)),
        "fall": float(np.median(after[-after.size // 10 :]) / after[0]),
    }


if __name__ == "__main__":
    command_line(main)
