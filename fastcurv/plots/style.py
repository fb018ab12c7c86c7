"""Colours, axes and legends that all pictures share."""

from __future__ import annotations

from typing import Any

from ..checks import check_choice

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


def new_axes(ax: Any = None, *, figsize: tuple[float, float] = (6.4, 4.0), **subplot: Any) -> Any:
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


def new_figure(figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    """A figure made without pyplot: nothing global, no window, safe in threads and without a
    display.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=figsize, layout="constrained")


def mark(ax: Any, x: float, y: float, kind: str, label: str | None = None) -> Any:
    """Put a critical point on a picture, with the marker and colour of its kind."""
    marker, color = MARKERS[check_choice(kind, MARKERS, "kind")]
    ax.plot([x], [y], marker, color=color, mec="white", ms=9, ls="none", label=label, zorder=5)
    return _with_legend(ax, label)


def _with_legend(ax: Any, label: str | None) -> Any:
    if label is not None:
        ax.legend(frameon=False)
    return ax
