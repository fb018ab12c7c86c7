"""Colours, axes and legends shared by all plots, and the base class of the Displays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...common.checks import check_choice
from ...common.errors import keyword_names, raise_if_unknown_argument
from ...common.optional import optional_import
from ...common.read_only import ReadOnlyMixin
from ...spectrum.draw import new_pyplot_axes, plain_numbers

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
RED = "#D55E00"
YELLOW = "#F0E442"
GREY = "#6E6E6E"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = {
    "minimum": ("o", GREEN),
    "maximum": ("^", RED),
    "saddle": ("X", ORANGE),
    "degenerate": ("s", PURPLE),
    "not_critical": (".", GREY),
    "undecided": ("D", SKY),
}


def line_style(number: int) -> dict[str, str]:
    """Return the colour and dashes of the line with the given number, as keywords for ``plot``. The
    dashes change when the colours repeat.
    """
    dashes = LINE_STYLES[number // len(CYCLE) % len(LINE_STYLES)]
    return {"color": CYCLE[number % len(CYCLE)], "ls": dashes}


def set_log_axis(ax: Any, wanted: bool) -> None:
    """Make the vertical axis of `ax` logarithmic if `wanted` is True, with plain numbers as
    labels.
    """
    if wanted:
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)


def n_labelled_lines(ax: Any) -> int:
    """Return the number of lines on `ax` that have a label."""
    return sum(not line.get_label().startswith("_") for line in ax.lines)


def new_axes(ax: Any = None, *, figsize: tuple[float, float] = (6.4, 4.0), **subplot: Any) -> Any:
    """Return ``ax``, or if it is None the Axes of a new figure that belongs to no window.

    Parameters
    ----------
    ax : matplotlib Axes or None
        The Axes to return, if not None.
    figsize : (float, float)
        Size of a new figure in inches.
    **subplot
        Passed to ``Figure.add_subplot``.

    Returns
    -------
    matplotlib Axes
    """
    return new_figure(figsize).add_subplot(**subplot) if ax is None else ax


def new_figure(figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    """Return a new figure that is created without pyplot: it has no window and no global state, and
    can be used in threads and without a display.
    """
    with optional_import("plots"):
        from matplotlib.figure import Figure
    return Figure(figsize=figsize, layout="constrained")


def mark(ax: Any, x: float, y: float, kind: str, label: str | None = None) -> Any:
    """Draw a point at (x, y) with the marker and colour of the given kind of critical point. Return
    the Axes.
    """
    marker, color = MARKERS[check_choice(kind, MARKERS, "kind")]
    ax.plot([x], [y], marker, color=color, mec="white", ms=9, ls="none", label=label, zorder=5)
    return _add_legend(ax, label)


def _add_legend(ax: Any, label: str | None) -> Any:
    if label is not None:
        ax.legend(frameon=False)
    return ax


def curve(
    x: ArrayLike,
    y: ArrayLike,
    ax: Any = None,
    *,
    label: str | None = None,
    color: Any = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    log: bool = True,
) -> Any:
    """Plot ``y`` against ``x``. The vertical axis is logarithmic if all values of y are positive.

    Parameters
    ----------
    x, y : (k,) arrays
        The points of the curve.
    ax : matplotlib Axes or None
        The Axes to draw in; None creates a new figure.
    label, color, xlabel, ylabel : str or None
        The label of the curve in the legend, its colour, and the labels of the axes.
    log : bool
        True for a logarithmic vertical axis, if all values of y are positive.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    y = np.asarray(y, dtype=float)
    look = line_style(len(ax.lines)) if color is None else {"color": color}
    ax.plot(x, y, lw=1.6, label=label, **look)
    set_log_axis(ax, log and bool(np.all(y[np.isfinite(y)] > 0)))
    ax.set(xlabel=xlabel or ax.get_xlabel(), ylabel=ylabel or ax.get_ylabel())
    return _add_legend(ax, label)


# --------------------------------------------------------------------------------------------------
# The base class of all Displays: axes to draw on, and a PNG representation for notebooks.


class Display(ReadOnlyMixin):
    """A plot that stores its data and is drawn by ``plot``, like scikit-learn's Displays.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The Axes of the last plot; an array of Axes if there are several panels.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    """

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Any:
        raise NotImplementedError

    @classmethod
    def _check_plot_options(cls, look: dict[str, Any], maker: str) -> None:
        """Raise a TypeError for options in `look` that ``plot`` does not accept, before the
        constructor `maker`, which passes them on, computes anything.
        """
        known = {*keyword_names(getattr(cls, maker)), *keyword_names(cls.plot)} - {"self"}
        raise_if_unknown_argument(f"{cls.__name__}.{maker}", look, known)

    def _repr_png_(self) -> bytes | None:
        """Return the plot as a PNG image for a notebook. Return None if the figure was created by
        pyplot, because the notebook shows such figures at the end of the cell.
        """
        if not hasattr(self, "figure_"):
            self.plot(new_axes())
        if hasattr(self.figure_, "number"):  # pyplot numbers its figures
            return None
        file = io.BytesIO()
        self.figure_.savefig(file, format="png", dpi=110)
        return file.getvalue()

    def _create_axes(self, ax: Any, figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
        """Return ``ax``, or new Axes if it is None, and store them in ``ax_`` and ``figure_``."""
        ax = new_pyplot_axes(figsize) if ax is None else ax
        self.ax_ = ax
        self.figure_ = ax.figure
        return ax
