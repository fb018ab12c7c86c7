"""Pictures of a spectrum: its density, its eigenvalues."""

import numpy as np

from .style import BLUE, GREY, RED, _with_legend, new_axes


def density(spectral_density, ax=None, *, label=None, color=BLUE, scale="log"):
    """The density of the eigenvalues, with its standard-error band.

    Parameters
    ----------
    spectral_density : SpectralDensity
        What `fastcurv.spectral_density` returned.
    ax : matplotlib Axes or None
    label : str or None
    color : colour
    scale : {"log", "linear"}
        Of the vertical axis. A Hessian's density spans many decades: its bulk lies at zero.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    grid, height = np.asarray(spectral_density.grid), np.asarray(spectral_density.density)
    top = max(
        [
            height.max(),
            *(np.max(line.get_ydata()) for line in ax.lines if np.size(line.get_ydata()) > 2),
        ]
    )
    floor = 1e-7 * top if scale == "log" else 0.0
    ax.plot(grid, np.maximum(height, floor), color=color, lw=1.6, label=label)
    stderr = getattr(spectral_density, "stderr", None)
    if stderr is not None and np.shape(stderr) == height.shape:
        low, high = np.maximum(height - stderr, floor), np.maximum(height + stderr, floor)
        ax.fill_between(grid, low, high, color=color, alpha=0.25, lw=0)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    if getattr(spectral_density, "axis", "linear") == "log":
        ax.set_xscale("symlog", linthresh=spectral_density.linear_below)
    ax.set_yscale(scale)
    if scale == "log":
        ax.set_ylim(floor, 3 * top)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("density" if ax.get_xscale() == "linear" else "density per decade")
    return _with_legend(ax, label)


def eigenvalues(values, residuals=None, ax=None, *, label=None):
    """Eigenvalues in order, negative and positive told apart by marker and colour.

    Parameters
    ----------
    values : (k,) array
    residuals : (k,) array or None
        Drawn as error bars: an eigenvalue lies within each.
    ax : matplotlib Axes or None
    label : str or None
        Put before "positive" and "negative" in the legend.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    values = np.asarray(values, dtype=float)
    order = np.argsort(values)
    errors = None if residuals is None else np.asarray(residuals, dtype=float)[order]
    values, rank = values[order], np.arange(1, values.size + 1)
    threshold = 1e-12 * max(np.abs(values).max(initial=0.0), np.finfo(float).tiny)
    for sign, marker, color, mask in (
        ("negative", "v", RED, values < 0),
        ("positive", "^", BLUE, values >= 0),
    ):
        if mask.any():
            bars = None if errors is None else errors[mask]
            name = sign if label is None else f"{label}, {sign}"
            ax.errorbar(
                rank[mask], values[mask], bars, fmt=marker, ms=5, color=color, lw=1, label=name
            )
    ax.axhline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yscale("symlog", linthresh=max(np.abs(values).max(initial=0.0) * 1e-4, threshold))
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue")
    ax.legend(frameon=False)
    return ax
