"""Pictures of spectra, training runs and loss surfaces.

Matplotlib is imported only when a picture is asked for. Every function draws on ``ax`` (a new one where None),
labels its axes and returns the Axes, so pictures can be combined. Colours are Okabe and Ito's, which
colour-blind readers tell apart; signs are told by position or marker too, never by colour alone.
"""

import numpy as np

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#6E6E6E",
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
MARKERS = {
    "minimum": ("o", GREEN),
    "maximum": ("^", RED),
    "saddle": ("X", ORANGE),
    "degenerate": ("s", PURPLE),
    "not_critical": (".", GREY),
    "undecided": ("D", SKY),
}


def new_axes(ax=None, *, figsize=(6.4, 4.0), **subplot):
    """``ax`` itself, or the only Axes of a new figure that belongs to no window.

    Parameters
    ----------
    ax : matplotlib Axes or None
    figsize : (float, float)
        Inches, for a new figure.
    **subplot
        Passed to ``Figure.add_subplot``.

    Returns
    -------
    matplotlib Axes
    """
    if ax is not None:
        return ax
    return new_figure(figsize).add_subplot(**subplot)


def new_figure(figsize=(6.4, 4.0)):
    """A figure made without pyplot: nothing global, no window, safe in threads and without a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=figsize, layout="constrained")


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
    top = max([height.max(), *(np.max(line.get_ydata()) for line in ax.lines if np.size(line.get_ydata()) > 2)])
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
            ax.errorbar(rank[mask], values[mask], bars, fmt=marker, ms=5, color=color, lw=1, label=name)
    ax.axhline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yscale("symlog", linthresh=max(np.abs(values).max(initial=0.0) * 1e-4, threshold))
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue")
    ax.legend(frameon=False)
    return ax


def curve(x, y, ax=None, *, label=None, color=None, xlabel=None, ylabel=None, log=True):
    """A training curve: ``y`` against ``x``, on a logarithmic axis where ``y`` is positive.

    Parameters
    ----------
    x, y : (k,) arrays
    ax : matplotlib Axes or None
    label, color, xlabel, ylabel : str or None
    log : bool
        Whether a logarithmic vertical axis is wanted.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    y = np.asarray(y, dtype=float)
    color = CYCLE[len(ax.lines) % len(CYCLE)] if color is None else color
    ax.plot(x, y, lw=1.6, label=label, color=color)
    if log and np.all(y[np.isfinite(y)] > 0):
        ax.set_yscale("log")
    ax.set_xlabel(xlabel or ax.get_xlabel())
    ax.set_ylabel(ylabel or ax.get_ylabel())
    return _with_legend(ax, label)


def surface(function, xlim, ylim, ax=None, *, n=81, levels=24, log=False, xlabel="x", ylabel="y"):
    """Level lines of a function of two numbers.

    Parameters
    ----------
    function : callable
        ``function(x, y) -> float``, called at each point of an n by n grid.
    xlim, ylim : (float, float)
    ax : matplotlib Axes or None
    n, levels : int
        Grid points along each axis, and number of levels.
    log : bool
        Whether levels are spread evenly over the logarithm; for functions that stay positive.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax, figsize=(5.6, 4.6))
    x, y = np.linspace(*xlim, n), np.linspace(*ylim, n)
    z = np.array([[function(a, b) for a in x] for b in y], dtype=float)
    if log:
        z = np.log10(np.maximum(z, z.max() * 1e-12))
    filled = ax.contourf(x, y, z, levels=levels, cmap="cividis")
    ax.contour(x, y, z, levels=levels, colors="white", linewidths=0.3, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax)
    bar.set_label("log10 of the loss" if log else "loss")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax


def plane(objective, theta, first, second, radius=1.0, ax=None, **options):
    """The loss on the plane through ``theta`` along two directions; costs one forward pass per grid point.

    Parameters
    ----------
    objective : has ``value(theta)``
    theta, first, second : (n,) arrays
        The second direction is made orthogonal to the first; both are scaled to unit length.
    radius : float or (float, float)
        Half width of the picture along each direction.
    ax : matplotlib Axes or None
    **options
        As for `surface`.

    Returns
    -------
    matplotlib Axes
    """
    theta = np.asarray(theta, dtype=float)
    u = np.asarray(first, dtype=float) / np.linalg.norm(first)
    w = np.asarray(second, dtype=float)
    w = w - u * (u @ w)
    w = w / np.linalg.norm(w)
    rx, ry = np.broadcast_to(radius, 2)
    options = {"n": 41, "xlabel": "along the first direction", "ylabel": "along the second"} | options
    return surface(
        lambda a, b: objective.value(theta + a * u + b * w), (-rx, rx), (-ry, ry), ax, **options
    )


def mark(ax, x, y, kind, label=None):
    """Put a critical point on a picture, with the marker and colour of its kind."""
    marker, color = MARKERS[kind]
    ax.plot([x], [y], marker, color=color, mec="white", ms=9, ls="none", label=label, zorder=5)
    return _with_legend(ax, label)


def decision_regions(predict, X, y, ax=None, *, n=121, title=None):
    """The regions a classifier of two features decides for, and the samples on them.

    Parameters
    ----------
    predict : callable
        ``predict(X)`` with X (m, 2) gives m integer classes, or m numbers whose sign decides.
    X : (N, 2) array
    y : (N,) array of integer classes
    ax : matplotlib Axes or None
    n : int
        Grid points along each axis.
    title : str or None

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax, figsize=(4.0, 4.0))
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.08 * (high - low)
    x0, x1 = (np.linspace(low[i] - margin[i], high[i] + margin[i], n) for i in (0, 1))
    grid = np.stack(np.meshgrid(x0, x1), axis=-1).reshape(-1, 2)
    decided = np.asarray(predict(grid))
    if decided.dtype.kind == "f":
        decided = (decided.ravel() > 0).astype(int)
    classes = np.unique(y)
    edges = np.concatenate([classes - 0.5, [classes[-1] + 0.5]])
    ax.contourf(x0, x1, decided.reshape(n, n), levels=edges, colors=CYCLE[: classes.size], alpha=0.3)
    for c, color, marker in zip(classes, CYCLE, "os^vDXP"):
        ax.plot(*X[y == c].T, marker, ms=3, color=color, mec="white", mew=0.3)
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=9)
    return ax


def _with_legend(ax, label):
    if label is not None:
        ax.legend(frameon=False)
    return ax
