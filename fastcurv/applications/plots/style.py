"""Colours, axes and legends shared by all plots, and the base class of the Displays."""

from __future__ import annotations

import io
from typing import Any

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


def legend_width(names: list[str]) -> float:
    """Return the width in inches of a legend with the given names next to the axes. Return 0 if
    there are no more names than colours, because the legend then fits inside the axes.
    """
    if len(names) <= len(CYCLE):
        return 0.0
    return _n_legend_columns(names) * (0.7 + 0.08 * max(map(len, names)))


def add_line_legend(ax: Any, *, room: bool) -> None:
    """Add a legend to `ax`, next to the axes or inside them.

    The legend is next to the axes if there are more lines than colours and if there is space.
    `room` is True if the figure has this space. Otherwise there is space if a layout engine can
    shrink the axes to no less than half of their width.
    """
    names = ax.get_legend_handles_labels()[1]
    width = legend_width(names)
    if not room and ax.figure.get_layout_engine() is not None:
        room = ax.get_window_extent().width / ax.figure.dpi >= 2 * width
    if width and room:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.3}
        ax.legend(frameon=False, ncols=_n_legend_columns(names), **beside)
    else:
        ax.legend(frameon=False)


def _n_legend_columns(names: list[str]) -> int:
    """Return the number of columns of a legend next to the axes, with 16 names in each column."""
    return -(-len(names) // 16)


def _add_legend(ax: Any, label: str | None) -> Any:
    if label is not None:
        ax.legend(frameon=False)
    return ax


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
    def _check_plot_options(cls, look: dict[str, Any], *makers: str) -> None:
        """Raise a TypeError for options in `look` that neither ``plot`` nor any of the constructors
        named in `makers` accepts. The message names the first constructor, which was called.
        """
        takers = [getattr(cls, name) for name in (*makers, "plot")]
        known = {name for taker in takers for name in keyword_names(taker)} - {"self"}
        raise_if_unknown_argument(f"{cls.__name__}.{makers[0]}", look, known)

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
