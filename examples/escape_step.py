"""L7. At a saddle, a step along an eigenvector with a negative eigenvalue lowers the loss: but how
long should it be?

From saddles of a network that reads digits, along negative eigenvectors and in both directions, the
exact minimum on the line is found and compared with `1/|lambda|`, the step of a second-order model
with `|H|`. Alain et al. (2019) made the same observation: the best step bears little relation to
`1/|lambda|`, so a line search is needed.

Not shown: positive eigenvalues, for which 1 / lambda is as inaccurate; and saddles other than those
made from minima of narrower networks, whose added units bring equal eigenvalues.
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

    figure = plots.new_figure((7.6, 3.6))
    left, right = figure.subplots(1, 2)
    shade = left.scatter(curvature, best, c=100 * fallen, cmap="cividis", s=18)
    figure.colorbar(shade, ax=left, label="fall of the loss, %")
    ends = np.array([curvature.min(), curvature.max()])
    left.plot(ends, 1 / ends, color=plots.RED, ls="--", label=r"$1/|\lambda|$")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel(r"$|\lambda|$ of a negative eigenvalue")
    left.set_ylabel("distance of the exact line minimum")
    left.set_title(r"The best step is not $1/|\lambda|$")
    left.legend(frameon=False)
    right.hist(np.log10(ratio), bins=30, color=plots.BLUE)
    right.axvline(0, color=plots.RED, ls="--", label=r"best step $= 1/|\lambda|$")
    right.legend(frameon=False)
    shorter = int(np.sum(ratio < 1))
    right.set_title(f"It is shorter along {shorter} of {len(best)}")
    right.set_xlabel(
        r"$\log_{10}$ of best step over $1/|\lambda|$" + f"\nat {len(saddles)} saddles"
    )
    right.set_ylabel("directions")
    spread = np.quantile(ratio, [0.1, 0.5, 0.9])
    return Outcome(
        f"At {len(saddles)} saddles the loss fell along every one of {len(best)} negative "
        "directions; the best step was "
        f"{spread[1]:.2g} of 1/|lambda| in the median and between {spread[0]:.2g} and "
        f"{spread[2]:.2g} for four in five; "
        f"escape took {100 * np.median(escaped):.1f}% off the loss in the median.",
        save(figure, __file__, out),
        {"saddles": len(saddles), "fallen": fallen, "escaped": np.array(escaped), "ratio": ratio},
    )


def line_minimum(ob, theta, direction):
    """Distance and loss of the lowest point found on a line, both signs tried over decades, then
    refined.
    """
    distances = np.concatenate([s * np.logspace(-3, 2, 41) for s in (1, -1)])
    losses = [ob.value(theta + t * direction) for t in distances]
    t = distances[int(np.argmin(losses))]
    bounds = sorted((0.7 * t, 1.4 * t))
    fine = minimize_scalar(
        lambda s: ob.value(theta + s * direction), bounds=bounds, method="bounded"
    )
    return abs(fine.x), min(fine.fun, min(losses))


if __name__ == "__main__":
    command_line(main)
