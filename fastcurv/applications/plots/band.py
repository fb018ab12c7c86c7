"""An output of a network with a band of two standard deviations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLUE, GREY, new_axes

N_CURVE_POINTS = 200  # number of points at which a curve over one input is drawn
# fraction of the range of the input by which the plot extends beyond the data on either side
MARGIN_FRACTION = 0.25


def plot_posterior_band(post: Any, ax: Any = None, output: int = 0) -> Any:
    """Draw an output of a `LaplacePosterior` with a band of two standard deviations of the function
    and, for ``mse``, a lighter band for new observations.

    Parameters
    ----------
    post : LaplacePosterior
        The posterior of a network.
    ax : matplotlib Axes, optional
        The Axes to draw in; None creates a new figure.
    output : int
        The index of the output.

    Returns
    -------
    matplotlib Axes
        The Axes with the band. Over several inputs, the horizontal axis shows the rows in the
        order of the output.
    """
    ob = post.objective
    ax = new_axes(ax)
    d_in = ob.model.sizes[0]
    d_out = ob.model.sizes[-1]
    if not 0 <= output < d_out:
        raise ValueError(f"output must be an int from 0 to {d_out - 1}, got {output}.")
    X = ob.X.toarray() if hasattr(ob.X, "toarray") else np.asarray(ob.X)
    shown = X
    if d_in == 1:
        more = MARGIN_FRACTION * np.ptp(X)
        shown = np.linspace(X.min() - more, X.max() + more, N_CURVE_POINTS)[:, None]
    z = ob.model.predict(post.theta, shown)[:, output]
    order = np.argsort(z, kind="stable") if d_in > 1 else np.arange(len(z))
    at = np.arange(len(z)) if d_in > 1 else shown[:, 0]
    for new in (True, False) if post.noise_std is not None else (False,):
        half = 2 * post.std(shown, observations=new).reshape(len(z), -1)[order, output]
        name = "new observations" if new else "function"
        look = {"color": BLUE, "alpha": 0.15 if new else 0.35, "lw": 0}
        ax.fill_between(at, z[order] - half, z[order] + half, label=f"{name}, 2 sd", **look)
    ax.plot(at, z[order], color=BLUE, lw=1.6, label="network")
    if ob.loss == "mse":
        y = np.asarray(ob.y).reshape(len(X), -1)[:, output]
        points = (at, y[order]) if d_in > 1 else (X[:, 0], y)
        ax.plot(*points, ".", color=GREY, ms=4, label="targets", zorder=1)
    ax.set_xlabel("input" if d_in == 1 else "rows in the order of the output")
    ax.set_ylabel("output" if d_out == 1 else f"output {output}")
    ax.legend(frameon=False)
    return ax
