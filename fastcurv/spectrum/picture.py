"""The one picture of a spectral density: what the line is, what the band is, where the axis
ends.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..protocols import Floats
from .smoothing import from_coordinate, to_coordinate

BAND = 2.0  # standard errors on either side
FINEST = 1e-290  # numbers below it, and above its inverse, no logarithmic axis shows


def new_axes(figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    """Return Axes in a figure of pyplot's where the caller has imported pyplot, so that
    ``plt.show()`` shows it, and elsewhere in one that belongs to no window.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        return pyplot.figure(figsize=figsize, layout="constrained").add_subplot()
    from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained").add_subplot()


def draw_density(
    density: Any,
    ax: Any,
    *,
    band: float = BAND,
    label: str | None = None,
    scale: str = "log",
    **line: Any,
) -> Any:
    """Draw a density, with a band of standard errors over the probes that the legend explains.

    Parameters
    ----------
    density : SpectralDensity
    ax : matplotlib.axes.Axes
    band : float
        Standard errors on either side of the line; 0: no band.
    label : str or None
        Name of the line in the legend; None: the density, and over what width it is smoothed.
    scale : {"log", "linear"}
        Of the vertical axis. A Hessian's density spans many decades: its bulk lies at zero.
    **line
        Passed to ``ax.plot``.

    Returns
    -------
    matplotlib.axes.Axes
        The logarithmic axis ends at a tenth of what one eigenvalue of n adds at its peak. One of
        decades reaches as far as the density does, and to 0 only where that does.
    """
    grid, height = np.asarray(density.grid), np.asarray(density.density)
    earlier = [np.max(other.get_ydata()) for other in ax.lines if np.size(other.get_ydata()) > 2]
    top = max([float(height.max()), *earlier])
    width = max(float(density.width), np.finfo(float).tiny)
    floor = 0.1 / max(1, density.n) / width if scale == "log" else 0.0
    floor = min(floor, 1e-2 * top)
    line = {"lw": 1.6, "label": label or smoothed(density)} | line
    scale = scale if top > 0 else "linear"
    if density.axis == "log":  # before anything is drawn: margins are then in decades
        if not (density.linear_below >= FINEST and np.abs(grid).max() <= 1 / FINEST):
            raise ValueError(
                f"the eigenvalues reach {np.abs(grid).max():.1e}, linear below "
                f"{density.linear_below:.1e}; wanted numbers between {FINEST} and {1 / FINEST}, "
                "which is as far as matplotlib's axes go, or axis='linear'"
            )
        _decades(ax, density.linear_below)
    color = ax.plot(grid, height, **line)[0].get_color()
    if band and np.shape(density.stderr) == height.shape and np.isfinite(density.stderr).all():
        low = np.maximum(height - band * density.stderr, floor)
        high = np.maximum(height + band * density.stderr, floor)
        name = f"$\\pm${band:g} standard errors of {density.n_probes} probes"
        named = any(patch.get_label() == name for patch in ax.collections)
        shown = None if named else name
        ax.fill_between(grid, low, high, color=color, alpha=0.25, lw=0, label=shown)
    if density.axis == "linear" or ax.dataLim.x0 <= 0 <= ax.dataLim.x1:
        ax.axvline(0, color="#6E6E6E", lw=0.8, ls=":")
    ax.set_yscale(scale)
    if scale == "log":
        bottom = ax.get_ylim()[0] if earlier else floor
        ax.set_ylim(min(floor, bottom), 3 * top)
    ax.set(
        xlabel="eigenvalue", ylabel="density" if density.axis == "linear" else "density per decade"
    )
    ax.legend(frameon=False)
    return ax


def _decades(ax: Any, linear_below: float) -> None:
    """A logarithmic axis of eigenvalues, with numbers between powers of ten where it has few."""
    ax.set_xscale("symlog", linthresh=linear_below, subs=range(2, 10))
    ax.xaxis.set_minor_formatter(partial(_between_powers, ax))


def _between_powers(ax: Any, x: float, _: Any) -> str:
    """Twice and five times a power of ten, where the axis spans less than two of them."""
    low, high = ax.get_xlim()
    first = f"{x:e}".lstrip("-")[0]
    few = low * high > 0 and max(low / high, high / low) < 100
    return f"{x:g}".replace("-", "\N{MINUS SIGN}") if few and first in "25" else ""


def smoothed(density: Any) -> str:
    """What the line is called: smoothing moves some of the density past the last eigenvalue, so it
    says how far.
    """
    unit = " decades" if density.axis == "log" else ""
    return f"density (smoothed over {density.width:.2g}{unit})"


def within(density: Any, low: float = -np.inf, high: float = np.inf) -> Any:
    """The density folded back at bounds that are proved: none of it lies beyond, none of it is
    lost.

    A Gaussian on a node next to the bound reaches over it, where no eigenvalue is; what lies
    beyond is reflected, so the integral stays what it was.

    Parameters
    ----------
    density : SpectralDensity
    low, high : float
        No eigenvalue lies outside.

    Returns
    -------
    SpectralDensity
    """
    ends = [float(to_coordinate(x, density.axis, density.linear_below)) for x in (low, high)]
    x = density.coordinate
    if not (x[0] < ends[0] or x[-1] > ends[1]):
        return density
    at = np.linspace(max(x[0], ends[0]), min(x[-1], ends[1]), len(x))

    def folded(height: Floats) -> Floats:
        total: Floats = np.interp(at, x, height)
        for end in ends:
            if np.isfinite(end):
                total = total + np.interp(2 * end - at, x, height, left=0.0, right=0.0)
        return total

    grid = from_coordinate(at, density.axis, density.linear_below)
    stderr = folded(density.stderr)
    return replace(density, grid=grid, density=folded(density.density), stderr=stderr)
