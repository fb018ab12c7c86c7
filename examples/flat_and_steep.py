"""L18. Newton's step is as long as the distance to the minimum, whether the loss is flat or steep;
gradient descent takes short steps where it is flat and long ones where it is steep.

Linear regression with two inputs, one twenty times as large as the other. Left: the path of
gradient descent with the largest stable rate, which goes to and fro across the valley and creeps
along it, and Newton's step, which ends at the minimum. Right: the first step of each along both
eigenvectors of H, from the same distance.

Half right: that Newton's steps are longer where it is flat and shorter where it is steep. For the
same gradient they are, because the gradient is divided by the curvature. From the same distance
they are equally long.

Not shown: losses that are not quadratic, for which one step of Newton's method does not suffice. On
the plateaus of `plateaus`, whose curvature says little about the distance to a minimum, the
trust-region method, which is built on Newton's step, needs more gradients than Adam does at its
best rate.
"""

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots

SPREADS = (5.0, 0.25)  # standard deviations of the inputs
RATE = 1.9  # of gradient descent, times the largest eigenvalue; stable below 2


def main(scale="normal", out="pictures"):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((pick(scale, 50, 200, 2000), 2)) * SPREADS
    ob = fc.Objective(fc.MLP([2, 1], bias=False), X, X @ [[1.0], [1.0]], loss="mse")
    start, minimum = np.array([1.6, -2.0]), np.ones(2)
    values, vectors = np.linalg.eigh(ob.hessian(start).to_dense())
    start = minimum - 2.0 * vectors.sum(axis=1) * np.sign(vectors.sum())
    rate = RATE / values[-1]
    path = [start]
    for _ in range(30):
        path.append(path[-1] - rate * ob.gradient(path[-1]))
    path = np.array(path)
    newton = fc.newton_step(ob.hessian(start), ob.gradient(start))
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    plots.surface(
        lambda a, b: np.log1p(ob.value(np.array([a, b]))), (-2.5, 4.5), (-2.5, 4.5), left, n=61
    )
    figure.axes[-1].set_ylabel("log(1 + loss)")
    left.plot(*path.T, "o-", ms=3, lw=1, color=plots.RED, label="gradient descent, 30 steps")
    left.plot(*np.array([start, start + newton]).T, "o-", color=plots.SKY, lw=2.5, label="Newton")
    left.set(xlabel="$w_1$", ylabel="$w_2$")
    left.set_title("Newton's step goes\nto the minimum")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)
    steps = {"gradient descent": rate * ob.gradient(start), "Newton": newton}
    lengths = {name: np.abs(vectors.T @ step) for name, step in steps.items()}
    for shift, (name, color) in enumerate(zip(lengths, (plots.RED, plots.SKY))):
        right.bar(np.arange(2) + 0.4 * (shift - 0.5), lengths[name], 0.38, color=color, label=name)
    distance = np.abs(vectors.T @ (minimum - start))
    right.plot([-0.4, 1.4], [distance[0]] * 2, color="black", ls="--", label="to the minimum")
    right.set_xticks(
        [0, 1], [f"flat,\n$\\lambda$ = {values[0]:.2f}", f"steep,\n$\\lambda$ = {values[1]:.0f}"]
    )
    right.set(yscale="log", ylabel="length of the first step")
    right.set_title("Newton's step is equally long\nwhere flat and where steep")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)
    left_over = float(ob.value(path[-1]))
    return Outcome(
        f"Along the flat direction Newton's step is {lengths['Newton'][0]:.2g} long, that of the "
        f"gradient {lengths['gradient descent'][0]:.2g}; along the steep one "
        f"{lengths['Newton'][1]:.2g} and {lengths['gradient descent'][1]:.2g}. After one step of "
        f"Newton's method the loss is {ob.value(start + newton):.0e}, after 30 of gradient descent "
        f"{left_over:.2g}.",
        save(figure, __file__, out),
        {"lengths": lengths, "newton": float(ob.value(start + newton)), "descent": left_over},
    )


if __name__ == "__main__":
    command_line(main)
