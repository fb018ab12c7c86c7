"""Plot of a spectral density: the curve, the band of standard errors and the limits of the axes."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.optional import optional_import
from ..common.protocols import Floats
from .smoothing import coordinate_to_eigenvalue, eigenvalue_to_coordinate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from .density_curve import SpectralDensity

CURVE_COLOR = "#0072B2"  # colour of a density's curve
BAND_STANDARD_ERRORS = 2.0  # half-width of the error band around a curve, in standard errors
# Logarithmic axes of matplotlib cannot show numbers below this value or above its inverse.
MIN_AXIS_VALUE = 1e-290


def new_pyplot_axes(figsize: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return Axes in a new figure of pyplot, which ``plt.show()`` and notebooks display. In a
    thread other than the main thread, where pyplot may not open windows, the figure is not managed
    by pyplot.
    """
    with optional_import("plots"):
        if threading.current_thread() is threading.main_thread():
            from matplotlib import pyplot

            return pyplot.figure(figsize=figsize, layout="constrained").add_subplot()
        from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained").add_subplot()


def draw_density(
    density: SpectralDensity,
    ax: Axes,
    *,
    band: float = BAND_STANDARD_ERRORS,
    label: str | None = None,
    scale: str = "log",
    **line: Any,
) -> Axes:
    """Draw a spectral density as a curve with a band of standard errors, and add a legend.

    Parameters
    ----------
    density : SpectralDensity
        The density to be drawn.
    ax : matplotlib.axes.Axes
        The Axes to which the curve is added.
    band : float
        Half-width of the band, in standard errors over the probes. If 0, no band is drawn.
    label : str or None
        Name of the curve in the legend. The default states "density" and the smoothing width.
    scale : {"log", "linear"}
        Scale of the vertical axis. On a linear axis the peak at zero hides most of the spectrum of
        a Hessian, because the density spans many decades.
    **line
        Passed to ``ax.plot``.

    Returns
    -------
    matplotlib.axes.Axes
        The given Axes. A logarithmic vertical axis begins at a tenth of the peak that one
        eigenvalue of n contributes. A horizontal axis in decades includes 0 only if the grid of the
        density does.
    """
    density = reflect_density_at_bounds(density, *eigenvalue_sign_bounds(density))
    grid = np.asarray(density.grid)
    height = np.asarray(density.density)
    earlier = [np.max(other.get_ydata()) for other in ax.lines if np.size(other.get_ydata()) > 2]
    top = max([float(height.max()), *earlier])
    width = max(float(density.width), np.finfo(float).tiny)
    floor = 0.1 / max(1, density.n) / width if scale == "log" else 0.0
    floor = min(floor, 1e-2 * top)
    # The label states the width, because smoothing moves some of the density past the outermost
    # eigenvalues.
    unit = " decades" if density.axis == "log" else ""
    smoothed = f"density (smoothed over {density.width:.2g}{unit})"
    line = {"lw": 1.6, "label": label or smoothed} | line
    scale = scale if top > 0 else "linear"
    # The scale is set before anything is drawn, so that margins are in decades.
    if density.axis == "log":
        if not (
            density.linear_below >= MIN_AXIS_VALUE and np.abs(grid).max() <= 1 / MIN_AXIS_VALUE
        ):
            raise ValueError(
                f"magnitudes on a logarithmic axis must lie between {MIN_AXIS_VALUE} and "
                f"{1 / MIN_AXIS_VALUE}, the limits of matplotlib, got "
                f"{density.linear_below:.1e} to {np.abs(grid).max():.1e}. Use axis='linear'."
            )
        ax.set_xscale("symlog", linthresh=density.linear_below, subs=range(2, 10))
        plain_numbers(ax.xaxis)
    color = ax.plot(grid, height, **line)[0].get_color()
    if (
        band
        and not density.exact
        and np.shape(density.stderr) == height.shape
        and np.isfinite(density.stderr).all()
    ):
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
    add_legend_with_headroom(ax, top)
    return ax


def add_legend_with_headroom(ax: Axes, top: float) -> None:
    """Add a legend to the Axes. Extend a logarithmic vertical axis above `top`, the highest value
    drawn, until there is space for the legend.
    """
    names = ax.legend(frameon=False).get_texts()
    # height of the legend's entries in inches
    lines = 1.4 * sum(name.get_fontsize() for name in names) / 72
    share = (lines + 0.15) / (ax.get_window_extent().height / ax.figure.dpi)
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and share < 0.6 and top > low > 0:
        ax.set_ylim(top=max(high, low * (1.5 * top / low) ** (1 / (1 - share))))


def plain_numbers(*axes: Axis) -> None:
    """Format the tick labels of logarithmic axes as plain numbers.

    Labels are plain numbers such as 0.02, 5 or 300 if the axis lies between 1e-4 and 1e5, and
    powers of ten otherwise, except 1 and 10. If the axis spans more than two decades, only powers
    of ten are labelled. If it spans more than half a decade, 2 and 5 times each power of ten are
    labelled too. On shorter axes, all multiples of each power of ten by 1 to 9 are labelled.

    Parameters
    ----------
    *axes : matplotlib Axis
        The axes to be formatted. An axis is not changed if its scale is not "log" or "symlog", or
        if it does not have the default formatter.
    """
    for axis in axes:
        if axis.get_scale() in ("log", "symlog") and axis.isDefault_majfmt:
            axis.set_major_formatter(partial(_format_tick, axis, "1"))
            axis.set_minor_formatter(partial(_format_tick, axis, "23456789"))


def _format_tick(axis: Axis, shown: str, x: float, _: object) -> str:
    """Return the label of a tick at x in the format of `plain_numbers`. Return "" if the first
    digit of x is not in `shown`, the digits for which this formatter is used, or is not labelled on
    an axis of this span.
    """
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


def eigenvalue_sign_bounds(density: SpectralDensity) -> tuple[float, float]:
    """Return a pair of bounds (low, high) on the eigenvalues of a density. If all eigenvalues are
    known and none lies on one side of 0, up to rounding, the bound on that side is 0. All other
    bounds are infinite.
    """
    if not density.exact:
        return -np.inf, np.inf
    used = density.nodes[density.weights > 0]
    low = float(used.min())
    high = float(used.max())
    if max(-low, high) <= density.resolution:
        return -np.inf, np.inf
    return (
        0.0 if low >= -density.resolution else -np.inf,
        0.0 if high <= density.resolution else np.inf,
    )


def sign_count_clause(density: SpectralDensity) -> str:
    """Return a clause with the numbers of negative, positive and zero eigenvalues, within rounding.
    If not all eigenvalues are known, the clause states the estimated fraction of negative
    eigenvalues.
    """
    n = density.n
    negative = density.mass(high=0.0)
    if not density.exact:
        error = f" +- {negative.stderr:.1%}" if np.isfinite(negative.stderr) else ""
        return f"{negative.estimate:.1%}{error} of {n} eigenvalues negative"
    below, above = (round(n * float(density.mass(*ends))) for ends in ((-np.inf, 0), (0, np.inf)))
    zero = f", {n - below - above} zero within rounding" if below + above < n else ""
    return f"{below} of {n} eigenvalues negative, {above} positive{zero}"


def reflect_density_at_bounds(
    density: SpectralDensity, low: float = -np.inf, high: float = np.inf
) -> SpectralDensity:
    """Return the density reflected at bounds on the eigenvalues, such that its curve is 0 outside
    the bounds and has the same integral.

    A Gaussian on a node next to a bound extends beyond the bound, where no eigenvalue lies. The
    part beyond the bound is reflected, which keeps the integral.

    Parameters
    ----------
    density : SpectralDensity
        The density to be reflected.
    low, high : float
        Bounds outside which no eigenvalue lies.

    Returns
    -------
    SpectralDensity
        A density with another grid, or `density` itself if its grid lies within the bounds.
    """
    ends = [
        float(eigenvalue_to_coordinate(x, density.axis, density.linear_below)) for x in (low, high)
    ]
    x = density.coordinate
    if not (x[0] < ends[0] or x[-1] > ends[1]):
        return density
    at = np.linspace(max(x[0], ends[0]), min(x[-1], ends[1]), len(x))

    def reflect_height(height: Floats) -> Floats:
        total: Floats = np.interp(at, x, height)
        for end in ends:
            if np.isfinite(end):
                total = total + np.interp(2 * end - at, x, height, left=0.0, right=0.0)
        return total

    grid = coordinate_to_eigenvalue(at, density.axis, density.linear_below)
    stderr = reflect_height(density.stderr)
    return replace(density, grid=grid, density=reflect_height(density.density), stderr=stderr)
