"""The best step along an eigenvector is that of Newton where the curvature is positive, and several
times as long where it is negative; and the loss falls more along the negative ones.

At three moments of training, the loss is computed along the five lowest and the five highest
eigenvectors, in the direction in which it falls. Along the highest ones the parabola is right: the
lowest point is one Newton step away, and it is hardly lower. Along the lowest ones the ratio of
slope and curvature is several times too short, and the loss falls by far more.

Paper: G. Alain, N. Le Roux and P.-A. Manzagol, Negative Eigenvalues of the Hessian in Deep Neural
Networks, 2019.

Not shown: steps along several eigenvectors at once.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def reproduce(seed, n_steps):
    """Return, for ten eigenvectors, the eigenvalue, the length of Newton's step, that of the best
    step, and the decrease of the loss by the best step.
    """
    X, y = digits(200, n_features=8)
    ob = fc.Objective(fc.MLP([8, 12, 10], activation="tanh"), X, y)
    theta = ob.model.init(rng=seed)
    if n_steps:
        sgd = {"learning_rate": 0.5, "verdict": False}
        theta = fc.minimize(ob, theta, "sgd", max_iter=n_steps, **sgd).x
    g, rows = ob.gradient(theta), []
    pairs = fc.eigsh(ob.hessian(theta), 10, which="BE", rng=0)
    for value, v in zip(pairs.values, pairs.vectors.T):
        slope = abs(g @ v)
        newton = slope / abs(value)
        steps = np.concatenate([newton * np.linspace(0, 2, 81), np.geomspace(1e-3, 30, 91)])
        losses = [ob.value(theta - step * np.sign(g @ v) * v) for step in steps]
        best = np.argmin(losses)
        rows.append((value, newton, steps[best], losses[0] - losses[best]))
    return np.array(rows)


def main(scale="normal", out="pictures"):
    moments, seeds = (0, 20, 60), range(pick(scale, 1, 5, 20))
    rows = {m: np.concatenate([reproduce(seed, m) for seed in seeds]) for m in moments}
    every = np.concatenate(list(rows.values()))
    up, down = every[every[:, 0] > 0], every[every[:, 0] < 0]
    ratio = {"positive": up[:, 2] / up[:, 1], "negative": down[:, 2] / down[:, 1]}
    gain = {
        m: [np.median(own[own[:, 0] > 0, 3]), np.median(own[own[:, 0] < 0, 3])]
        for m, own in rows.items()
    }

    figure = plots.new_figure((7.6, 3.9))
    left, right = figure.subplots(1, 2)
    for name, own, color in (
        ("positive curvature", up, plots.GREEN),
        ("negative curvature", down, plots.RED),
    ):
        left.loglog(own[:, 1], own[:, 2], "o", color=color, mec="white", ms=6, label=name)
    span = np.array([every[:, 1].min(), every[:, 1].max()])
    left.plot(span, span, color="black", lw=1, label="equal")
    left.set_xlabel("Newton's step: slope over curvature")
    left.set_ylabel("best step")
    left.set_title("Where curvature is negative,\nthe best step is far longer")
    for own, color in ((up, plots.GREEN), (down, plots.RED)):
        right.semilogy(own[:, 0], np.maximum(own[:, 3], 1e-8), "o", color=color, mec="white", ms=6)
    right.axvline(0, color="black", lw=0.8)
    right.set_xlabel("eigenvalue")
    right.set_ylabel("decrease of the loss")
    right.set_title("And the loss falls\nfar more")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    return Outcome(
        f"Along {len(up)} eigenvectors of positive curvature the best step is "
        f"{np.quantile(ratio['positive'], 0.05):.2f} to {np.quantile(ratio['positive'], 0.95):.2f} "
        f"of Newton's (90% of them); along {len(down)} of negative curvature it is at least "
        f"{ratio['negative'].min():.0f} times as long, and {np.median(ratio['negative']):.0f} in "
        "the median. The median decrease of the loss is "
        + ", ".join(f"{b / a:.0f}" for a, b in gain.values())
        + f" times as large after {', '.join(map(str, moments))} steps of training.",
        save(figure, __file__, out),
        {"ratio": ratio, "gain": gain},
    )


if __name__ == "__main__":
    command_line(main)
