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
    plain_numbers(ax.yaxis)
    if scale == "log":
        bottom = ax.get_ylim()[0] if earlier else floor
        ax.set_ylim(min(floor, bottom), 3 * top)
    ax.set(
        xlabel="eigenvalue", ylabel="density" if density.axis == "linear" else "density per decade"
    )
    legend_above(ax, top)
    return ax


def legend_above(ax: Any, top: float) -> None:
    """A legend, and a logarithmic axis that reaches so far above ``top``, its highest line, that
    there is room for it.
    """
    names = ax.legend(frameon=False).get_texts()
    lines = 1.4 * sum(name.get_fontsize() for name in names) / 72  # inches
    share = (lines + 0.15) / (ax.get_window_extent().height / ax.figure.dpi)
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and share < 0.6 and top > low > 0:
        ax.set_ylim(top=max(high, low * (1.5 * top / low) ** (1 / (1 - share))))


def _decades(ax: Any, linear_below: float) -> None:
    """A logarithmic axis of eigenvalues, with numbers between powers of ten where it has few."""
    ax.set_xscale("symlog", linthresh=linear_below, subs=range(2, 10))
    plain_numbers(ax.xaxis)


def plain_numbers(*axes: Any) -> None:
    """Write the numbers of logarithmic axes as a person does.

    0.02, 5, 300 where the axis lies between 0.0001 and 100 000, elsewhere powers of ten; between
    these twice and five times them where it spans less than two, and all where it is shorter.

    Parameters
    ----------
    *axes : matplotlib Axis
        Of scale "log" or "symlog"; others, and those whose numbers were chosen, stay as they are.
    """
    for axis in axes:
        if axis.get_scale() in ("log", "symlog") and axis.isDefault_majfmt:
            axis.set_major_formatter(partial(_written, axis, "1"))
            axis.set_minor_formatter(partial(_written, axis, "23456789"))


def _written(axis: Any, shown: str, x: float, _: Any) -> str:
    """The number as `plain_numbers` has it; empty where its first digit is not shown."""
    low, high = sorted(map(abs, axis.get_view_interval()))
    if np.prod(axis.get_view_interval()) <= 0:
        low = axis.get_transform().linthresh
    span = np.log10(high / low) if high > low > 0 else np.inf
    if x == 0 or span == np.inf:
        return f"{x:g}"
    digits, power = f"{abs(x):.0e}".split("e")
    few = "1" if span > 2 else "125" if span > 0.5 else "123456789"
    if digits not in shown or digits not in few:
        return ""
    sign = "\N{MINUS SIGN}" if x < 0 else ""
    if low >= 1e-4 and high <= 1e5 or digits == "1" and power in ("+00", "+01"):
        return f"{sign}{abs(x):g}"
    return f"{sign}$" + (rf"{digits}\times" if digits != "1" else "") + f"10^{{{int(power)}}}$"


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
