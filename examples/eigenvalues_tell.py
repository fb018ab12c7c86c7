"""L5. The eigenvalues of H tell what a critical point is: all positive, all negative, or both.

Above: `v'Hv` for unit vectors v, as v makes one turn in the plane of the eigenvectors with the
lowest and the highest eigenvalue. At a minimum it is positive, at a saddle it has both signs, and
at a maximum it is negative. The first two are points of a linear autoencoder, without the
directions that its symmetries make flat; the maximum is one of cos x + cos(y) / 2.

Below: a linear autoencoder has one critical point for every set of eigenvectors that it may keep
(Baldi and Hornik 1989), with loss and number of negative eigenvalues known in closed form. Every
one of them is classified here. Only the one that keeps the leading eigenvectors is a minimum.
Higher ones mostly have more negative eigenvalues.

Not shown: a maximum of a network. A loss with a convex last layer has none, because it never curves
downward along the weights of the last layer.
"""

from itertools import combinations

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


class Waves:
    """The function cos x + cos(y) / 2, which has minima, saddles and maxima."""

    n_params = 2

    def value(self, theta):
        return float(np.cos(theta) @ (1, 0.5))

    def gradient(self, theta):
        return -np.sin(theta) * (1, 0.5)

    def hessian(self, theta):
        return np.diag(-np.cos(theta) * (1, 0.5))


def main(scale="normal", out="pictures"):
    n, p = pick(scale, (4, 2), (6, 3), (10, 4))
    rng = np.random.default_rng(0)
    spectrum = np.geomspace(3.0, 0.5, n)
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    # X'X / n = U l U'
    X = np.sqrt(n) * (np.linalg.qr(rng.standard_normal((n, n)))[0] * np.sqrt(spectrum)) @ U.T
    ob = fc.Objective(fc.MLP([n, p, n], activation="identity", bias=False), X, X, loss="mse")
    sets = [kept for k in range(p + 1) for kept in combinations(range(n), k)]
    rows = [facts_at(ob, U, spectrum, kept, p) for kept in sets]
    loss, negative, expected, kinds = map(np.array, zip(*rows))

    figure = plots.new_figure((7.6, 6.2))
    above, below = figure.subfigures(2, 1)
    points = {
        "minimum": (ob, critical_point_keeping(U, tuple(range(p)), p)),
        "saddle": (ob, critical_point_keeping(U, tuple(range(n - p, n)), p)),
        "maximum": (Waves(), np.zeros(2)),
    }
    signs = {}
    for ax, (kind, (objective, theta)) in zip(above.subplots(1, 3), points.items()):
        verdict = fc.classify(objective, theta)
        signs[kind] = verdict.kind, plot_rotating_direction(ax, dense_hessian(objective, theta))
        ax.set_title(f"{kind[0].upper()}{kind[1:]}: {KIND_TITLES[kind]}")
    above.axes[0].set_ylabel(r"$v^{\top} H v$")
    ax = below.subplots()
    for kind in np.unique(kinds):
        marker, color = plots.MARKERS[str(kind)]
        mine = kinds == kind
        look = {"color": color, "mec": "white", "ms": 8, "ls": "none"}
        ax.plot(negative[mine], loss[mine], marker, label=str(kind), **look)
    ax.set(xlabel="negative eigenvalues", ylabel="loss")
    right, minima = int(np.sum(negative == expected)), int(np.sum(kinds == "minimum"))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_title(f"{minima} of {len(rows)} critical points of an autoencoder is a minimum")
    ax.legend(frameon=False, loc="lower right", title=f"{n}-{p}-{n} linear autoencoder")
    saddles = int(np.sum(kinds == "saddle"))
    return Outcome(
        f"Of the {len(rows)} critical points of a {n}-{p}-{n} linear autoencoder {minima} is a "
        f"minimum and {saddles} are saddles; the number of negative eigenvalues agrees with theory "
        f"at {right}.",
        save(figure, __file__, out),
        {
            "negative": negative,
            "expected": expected,
            "kinds": kinds,
            "signs": signs,
        },
    )


KIND_TITLES = {
    "minimum": "up\nin every direction",
    "saddle": "up in some\ndirections, down in others",
    "maximum": "down\nin every direction",
}


def dense_hessian(objective, theta):
    """Return the Hessian as an array."""
    H = objective.hessian(theta)
    return H if isinstance(H, np.ndarray) else H.to_dense()


def plot_rotating_direction(ax, H):
    """Draw v'Hv as v rotates in the plane of the lowest and the highest eigenvector. Return its
    least and largest value over all eigenvectors that are not of a symmetry.
    """
    values, vectors = np.linalg.eigh(H)
    kept = np.abs(values) > 1e-10 * np.abs(values).max()
    values, vectors = values[kept], vectors[:, kept]
    angle = np.linspace(0, 2 * np.pi, 181)
    v = np.outer(np.cos(angle), vectors[:, 0]) + np.outer(np.sin(angle), vectors[:, -1])
    height = np.einsum("ij,jk,ik->i", v, H, v) / np.abs(values).max()
    ax.axhline(0, color="black", lw=0.8)
    ax.plot(np.degrees(angle), height, color=plots.BLUE, lw=1.5)
    for sign, color in ((1, plots.GREEN), (-1, plots.RED)):
        ax.fill_between(
            np.degrees(angle), 0, height, where=sign * height > 0, color=color, alpha=0.4, lw=0
        )
    ax.set(xticks=[0, 180, 360], ylim=(-1.15, 1.15), yticks=[0], xlabel="angle of $v$, degrees")
    return float(values[0]), float(values[-1])


def critical_point_keeping(U, kept, p):
    """Return the critical point that keeps the eigenvectors ``kept``."""
    n, k = len(U), len(kept)
    W1 = np.zeros((p, n))
    W1[:k] = U[:, kept].T
    return np.concatenate([W1.ravel(), W1.T.ravel()])


def facts_at(ob, U, spectrum, kept, p):
    """Return the loss, the negative eigenvalues with those predicted by theory, and the kind, at
    the point that keeps ``kept``.
    """
    n, k = len(spectrum), len(kept)
    theta = critical_point_keeping(U, kept, p)
    point = fc.classify(ob, theta)
    worse = sum(spectrum[j] > spectrum[i] for i in kept for j in range(n) if j not in kept)
    return ob.value(theta), point.n_negative, worse + (p - k) * (n - k), point.kind


if __name__ == "__main__":
    command_line(main)
