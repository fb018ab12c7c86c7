"""The band of a fitted network widens where there are no data.

A small network is fitted to a noisy sine without data in the middle. The posterior of its
parameters is approximated by a Gaussian around the minimum (Laplace), and the standard deviation of
the output follows to first order. The dark band is two standard deviations of the function, the
light one two of new observations. The penalty is the one with the largest evidence on a path from
large to small ones; no row was held out.

Not shown: other minima, since the band belongs to one of them; and relu units, with which the band
in the gap was 1.8 times as wide as over the data.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots

GAP = 0.8  # half of the width of the gap, at 0.7
NOISE = 0.1  # standard deviation of the outputs


def main(scale="normal", out="pictures"):
    rng = np.random.default_rng(1)
    x = rng.uniform(-3.0, 3.0, pick(scale, 80, 160, 640))
    X = x[np.abs(x - 0.7) > GAP][:, None]
    y = np.sin(2 * X[:, 0]) + NOISE * rng.standard_normal(len(X))
    ob = fc.Objective(fc.MLP([1, 6, 1]), X, y, loss="mse", l2_biases=False)
    theta, posteriors = ob.model.init(rng=0), []
    for l2 in np.logspace(-1, -5, 9):
        theta = fc.minimize(ob.with_l2(l2), theta, rng=0).x
        posteriors.append(fc.laplace(ob.with_l2(l2), theta))
    post = max(posteriors, key=lambda post: post.log_evidence)
    inside, gap = float(post.std(X).mean()), float(post.std([[0.7]])[0])
    ax = post.plot(plots.new_axes())
    ax.axvspan(0.7 - GAP, 0.7 + GAP, color="0.92", zorder=0)
    ax.set_ylim(-2.5, 2.5)
    ax.set_title("The band is wide where there are no data")
    ax.legend(frameon=False, loc="lower left", ncols=2)
    covered = np.mean(np.abs(ob.model.predict(post.theta, X)[:, 0] - y) < 2 * post.noise_std)
    return Outcome(
        f"In the middle of the gap the standard deviation of the function is {gap / inside:.0f} "
        "times its mean over the data; the noise is estimated as "
        f"{post.noise_std:.2f}, and {NOISE:.2f} is true.",
        save(ax, __file__, out),
        {"ratio": gap / inside, "noise": post.noise_std, "covered": float(covered)},
    )


if __name__ == "__main__":
    command_line(main)
