"""L7. At a saddle, a step along an eigenvector with a negative eigenvalue lowers the loss; but a
quadratic model does not tell how long it should be.

Left: from saddles of a network that reads digits, along negative eigenvectors and in both
directions, the distance of the exact minimum on the line. Where the model has no minimum, the best
step is not `1/|lambda|`, so a line search is needed. Right: from points reached during training,
the best step along eigenvectors v of both signs, against the step `|g'v| / |lambda|` of Newton's
method and of its variant with `|H|`. For positive eigenvalues it is right; for negative ones the
best step is longer, most of the time, and hardly depends on it, as Alain et al. (2019) observed.

Not shown: saddles other than those made from minima of narrower networks, whose added units bring
equal eigenvalues; steps along several eigenvectors at once; and other trainings than by Adam: after
300 steps of SGD at a rate of 0.5 the model's step is within 6% of the best one for 13 of 30
positive eigenvalues only (1.05 in the median).
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save
from critical import from_narrower
from scipy.optimize import minimize_scalar

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 100, 200, 500), n_features=8)
    width = pick(scale, 4, 8, 12)

    def make(width):
        return fc.Objective(
            fc.MLP([8, width, 10], activation="tanh"), X, y, loss="cross_entropy", l2=1e-3
        )

    ob = make(width)
    found = from_narrower(make, width, pick(scale, 8, 40, 240))
    saddles = [point for point in found if point.verdict.kind == "saddle"]
    curvature, best, fallen, escaped = [], [], [], []
    for point in saddles:
        values, vectors = np.linalg.eigh(ob.hessian(point.theta).to_dense())
        way = fc.escape(ob, point.theta)
        escaped.append((point.loss - way.fun) / point.loss)
        for lam, v in zip(values[:5], vectors[:, :5].T):
            if lam < -1e-5 * np.abs(values).max():
                t, loss = line_minimum(ob, point.theta, v)
                curvature.append(-lam)
                best.append(t)
                fallen.append((point.loss - loss) / point.loss)
    curvature, best, fallen = map(np.array, (curvature, best, fallen))
    ratio = best * curvature

    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    shade = left.scatter(curvature, best, c=100 * fallen, cmap="cividis", s=18)
    figure.colorbar(shade, ax=left, label="fall of the loss, %", location="bottom")
    ends = np.array([curvature.min(), curvature.max()])
    left.plot(ends, 1 / ends, color=plots.RED, ls="--", label=r"$1/|\lambda|$")
    left.set(xscale="log", yscale="log", xlabel=r"$|\lambda|$ of a negative eigenvalue")
    left.set_ylabel("best step")
    left.set_title("At saddles the best step\nis not $1/|\\lambda|$")
    left.legend(frameon=False)
    steps = steps_during_training(ob, pick(scale, 2, 6, 20))
    factors = draw_steps(right, steps)
    spread = np.quantile(ratio, [0.1, 0.5, 0.9])
    return Outcome(
        f"At {len(saddles)} saddles the loss fell along every one of {len(best)} negative "
        f"directions; the best step was {spread[1]:.2g} of 1/|lambda| in the median and between "
        f"{spread[0]:.2g} and {spread[2]:.2g} for four in five. During training it is "
        f"{np.median(factors['positive']):.2g} times Newton's step in the median along positive "
        f"eigenvectors, and {np.median(factors['negative']):.0f} times along negative ones.",
        save(figure, __file__, out),
        {
            "saddles": len(saddles),
            "fallen": fallen,
            "escaped": np.array(escaped),
            "ratio": ratio,
            "factors": factors,
        },
    )


def steps_during_training(ob, n_starts):
    """Return the sign of the eigenvalue, the model's step and the best step, along the five lowest
    and highest eigenvectors at points of trainings.
    """
    rows = []
    for seed in range(n_starts):
        options = {"max_iter": 300, "learning_rate": 1e-2, "verdict": False}
        theta = fc.minimize(ob, ob.model.init(rng=seed), "adam", **options).x
        g = ob.gradient(theta)
        values, vectors = np.linalg.eigh(ob.hessian(theta).to_dense())
        for at in (*range(5), *range(-5, 0)):
            step = abs(g @ vectors[:, at]) / abs(values[at])
            if step > 1e-6 and abs(values[at]) > 1e-5 * values[-1]:
                best, _ = line_minimum(ob, theta, vectors[:, at])
                rows.append((np.sign(values[at]), step, best))
    return np.array(rows)


def draw_steps(ax, steps):
    """Draw best steps against those of the model, and return their ratios by sign of the
    eigenvalue.
    """
    factors = {}
    for sign, name, color in ((1, "positive", plots.BLUE), (-1, "negative", plots.RED)):
        _, model, best = steps[steps[:, 0] == sign].T
        label = rf"$\lambda {'>' if sign > 0 else '<'} 0$"
        ax.plot(model, best, "o", ms=5, alpha=0.8, mew=0, color=color, label=label)
        factors[name] = best / model
    ends = np.array([steps[:, 1].min(), steps[:, 1].max()])
    ax.plot(ends, ends, color="black", lw=1, label="equal", zorder=0)
    ax.set(xscale="log", yscale="log", ylabel="best step")
    ax.set_xlabel(r"$|g^{\top} v| / |\lambda|$, the model's step")
    ax.set_title(
        "In training the model's step is right\n"
        "for $\\lambda > 0$, and says little for $\\lambda < 0$"
    )
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    return factors


def line_minimum(ob, theta, direction):
    """Return distance and loss of the lowest point found on a line. Both signs are tried over
    decades, then refined.
    """
    distances = np.concatenate([s * np.logspace(-5, 2, 57) for s in (1, -1)])
    losses = [ob.value(theta + t * direction) for t in distances]
    t = distances[int(np.argmin(losses))]
    bounds = sorted((0.7 * t, 1.4 * t))
    fine = minimize_scalar(
        lambda s: ob.value(theta + s * direction), bounds=bounds, method="bounded"
    )
    return abs(fine.x), min(fine.fun, min(losses))


if __name__ == "__main__":
    command_line(main)
