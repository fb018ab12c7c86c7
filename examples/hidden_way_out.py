"""L9. A slice along random directions hides the escape direction of a saddle.

A network that reads digits is at a saddle with few negative eigenvalues. Along random directions
the loss rises on both sides, as it would at a minimum. Along the eigenvector of the lowest
eigenvalue it falls. The share of random directions that show this is counted. Below are two planes
through the same saddle. A plane of random directions shows one basin; a plane that contains the
escape direction shows the descent, which is shaded.

The loss rises along random directions because their curvature is on average the mean of the
eigenvalues, 0.285, which a few large ones set: 31 of the 86 are below 0.01 in size, 8 are negative,
and the largest is 2.56.

Not shown: other saddles. This is the one with the fewest negative eigenvalues of those found; with
more of them, the loss falls along more random directions.
"""

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 150, 400, 1000), n_features=8)
    ob, theta = saddle(X, y, pick(scale, 3, 4, 6))
    verdict = fc.classify(ob, theta)
    hessian = ob.hessian(theta)
    rng = np.random.default_rng(0)
    V = rng.standard_normal((ob.n_params, pick(scale, 1000, 10000, 100000)))
    curvatures = hessian.quadratic_form(V) / np.sum(V * V, axis=0)
    falling = float(np.mean(curvatures < 0))

    reach = 1.5
    steps = np.linspace(-reach, reach, pick(scale, 21, 61, 121))
    figure = plots.new_figure((7.6, 7.4))
    (slices, counts), planes = figure.subplots(2, 2)
    draw_slices(slices, ob, theta, V[:, :12], steps)
    way = verdict.escape_direction
    down = [ob.value(theta + t * way) for t in steps]
    slices.plot(steps, down, color=plots.RED, lw=2.5, label="the lowest eigenvector")
    loss = ob.value(theta)
    plots.mark(slices, 0.0, loss, verdict.kind, "saddle")
    slices.set_title("Random slices look like\na minimum")
    slices.set_xlabel("distance from the saddle")
    slices.set_ylabel("loss")
    slices.legend(frameon=False)
    counts.hist(curvatures, bins=60, color=plots.GREY)
    counts.margins(y=0.2)
    counts.axvline(0, color="black", lw=1, ls=":")
    counts.axvline(verdict.lambda_min, color=plots.RED, lw=2.5, label="the lowest eigenvector")
    counts.legend(frameon=False, loc="upper right")
    counts.set_title(f"{np.sum(curvatures < 0)} of {V.shape[1]} random\ndirections lead down")
    counts.set_xlabel(r"curvature along the direction, $v^\top Hv$")
    counts.set_ylabel("directions")
    eigenvalues, vectors = np.linalg.eigh(hessian.to_dense())
    way_up = vectors[:, -1]
    for ax, directions, title in (
        (
            planes[0],
            V[:, :2].T / np.linalg.norm(V[:, :2], axis=0)[:, None],
            "A plane of two\nrandom directions",
        ),
        (planes[1], np.array([way, way_up]), "A plane of the lowest and\nhighest eigenvectors"),
    ):
        draw_plane(ax, ob, theta, directions, pick(scale, 21, 41, 81))
        ax.set_title(title)
    return Outcome(
        f"At a saddle with {verdict.n_negative} negative of {ob.n_params} eigenvalues, "
        f"{np.sum(curvatures < 0)} of {V.shape[1]} random directions have negative "
        f"curvature; {np.sum(abs(eigenvalues) < 0.01)} eigenvalues are below 0.01 in size, the "
        f"mean of all is {eigenvalues.mean():.3f}, and the largest {eigenvalues[-1]:.2f}. Along "
        f"the lowest eigenvector the loss falls from {loss:.4f} to {min(down):.4f}.",
        save(figure, __file__, out),
        {
            "kind": verdict.kind,
            "negative": verdict.n_negative,
            "falling": falling,
            "loss": loss,
            "lowest": min(down),
            "eigenvalues": eigenvalues,
        },
    )


def draw_slices(ax, ob, theta, directions, steps):
    """Draw the loss along each column of `directions`."""
    for k, v in enumerate(directions.T):
        losses = [ob.value(theta + t * v / np.linalg.norm(v)) for t in steps]
        ax.plot(steps, losses, color=plots.GREY, lw=1, label=None if k else "12 random directions")


def draw_plane(ax, ob, theta, directions, n_grid, reach=1.5):
    """Draw contours of the loss around theta in a plane; points lower than theta are shaded."""
    t = np.linspace(-reach, reach, n_grid)
    u, v = directions
    losses = np.array([[ob.value(theta + x * u + y * v) for x in t] for y in t])
    loss = ob.value(theta)
    ax.contour(t, t, losses, levels=np.linspace(losses.min(), losses.max(), 24), linewidths=0.8)
    ax.contourf(t, t, losses, levels=[losses.min() - 1, loss], colors=[plots.RED], alpha=0.3)
    plots.mark(ax, 0, 0, "saddle", None)
    ax.set_aspect("equal")
    ax.set_xlabel("distance from the saddle")
    ax.set_ylabel("distance")


def saddle(X, y, width):
    """Return the saddle with the fewest negative eigenvalues of those from converged narrower
    networks.
    """
    model = fc.MLP([X.shape[1], width, 10])
    ob = fc.Objective(model, X, y, loss="cross_entropy", l2=1e-3)
    sample = fc.sample_critical_points(ob, 8, sources="narrower", rng=0)
    saddles = [point for point in sample.nontrivial if point.kind == "saddle"]
    return ob, min(saddles, key=lambda point: point.verdict.n_negative).theta


if __name__ == "__main__":
    command_line(main)
