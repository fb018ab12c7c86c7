"""Figures of the HTML report on a fit (`fastcurv.report`), drawn from arrays by matplotlib.

Colours are those for which `report` has variables in light and dark. Text is small and figures are
narrow, so that they can be read on a screen of 390 pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...common.errors import escape_unprintable
from ...common.optional import optional_import
from ...common.protocols import Floats
from ...spectrum.draw import plain_numbers
from .report import DOTS

INK, SOFT, RULE = "#000000", "#5c6470", "#dcdfe4"
BLUE, RED = "#0072b2", "#d55e00"
WIDTH_INCHES = 5.2
MAX_LABEL_CHARACTERS = 22  # maximum number of characters of a name in a figure
_STYLE = {
    "text.parse_math": False,  # names of columns may contain dollars
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def new_chart(height: float = 3.4, left: float = 0.13, n_columns: int = 1, **axes: Any) -> Any:
    """Return the Axes of a new figure, or an array of `n_columns` Axes with one vertical axis."""
    with optional_import("reports", "report"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height))
        edges = {"left": left, "right": 0.97, "bottom": 0.5 / height, "top": 1 - 0.3 / height}
        grid = figure.add_gridspec(1, n_columns, wspace=0.12, **edges)
        return grid.subplots(sharey=True, **axes)


def short_name(name: str) -> str:
    """Return a name of at most `MAX_LABEL_CHARACTERS` characters."""
    name = escape_unprintable(name)
    return (
        textwrap.shorten(name, MAX_LABEL_CHARACTERS, placeholder="\u2026")
        if (len(name) > MAX_LABEL_CHARACTERS and " " in name)
        else name[:MAX_LABEL_CHARACTERS]
    )


def _set_names(ax: Any, xlabel: str, ylabel: str) -> None:
    """Name the axes. The name of the vertical axis lies above it, where it needs no rotation."""
    ax.set_xlabel(escape_unprintable(xlabel)[:70], color=INK)
    ax.set_title(escape_unprintable(ylabel)[:60], color=SOFT, loc="left", x=0.0)


def draw_dots(
    x: Any,
    y: Any,
    xlabel: str,
    ylabel: str,
    *,
    low: Any = None,
    high: Any = None,
    labels: Sequence[tuple[int, str]] = (),
    diagonal: bool = True,
    limit: float | None = None,
    height: float = 4.3,
) -> Any:
    """Draw dots, each with an interval from `low` to `high` if these are not None, and labels next
    to some of the dots. If `limit` is given, the horizontal axis is logarithmic and has a line at
    this value. Return the Axes.
    """
    ax = new_chart(height)
    bars = [y] if low is None else [y, low, high]
    ends = np.concatenate(bars)
    bottom, top = _padded(ends[np.isfinite(ends)])
    ax.set_ylim(bottom, top)
    if limit is None:
        ax.set_xlim(*_padded(x))
    else:
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
        ax.axvline(limit, color=RED, lw=1)
    if diagonal:
        ax.axline((0, 0), slope=1, color=SOFT, lw=0.9, ls=(0, (5, 4)), zorder=1)
    if low is not None:
        gaps = np.full(len(x), np.nan)
        spans = np.stack([np.clip(low, bottom, top), np.clip(high, bottom, top), gaps], axis=1)
        alpha = 0.14 if len(x) > 40 else 0.7
        ax.plot(np.stack([x, x, gaps], axis=1).ravel(), spans.ravel(), "-", color=SOFT, lw=1,
                alpha=alpha, zorder=1)  # fmt: skip
    ax.plot(x, y, "o", color=BLUE, ms=4, gid=DOTS, clip_on=False, zorder=2)
    _place_labels(ax, x, y, labels)
    _set_names(ax, xlabel, ylabel)
    return ax


def _padded(values: Any) -> tuple[float, float]:
    """Return the ends of an axis that shows all values."""
    low, high = float(np.min(values)), float(np.max(values))
    room = 0.04 * ((high - low) or abs(low) or 1.0)
    return low - room, high + room


def _place_labels(ax: Any, x: Any, y: Any, labels: Sequence[tuple[int, str]]) -> None:
    """Write labels next to dots, to the left above the diagonal and to the right below it, moved up
    or down until none covers another, with a line to each dot.
    """
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    line, gap = (high - low) / 22, 0.04 * (right - left)
    for above in (True, False):
        some = [(i, text) for i, text in labels if (y[i] > x[i]) == above]
        some.sort(key=lambda label: y[label[0]], reverse=not above)
        last = -np.inf if above else np.inf
        for i, text in some:
            at = max(y[i], last + line) if above else min(y[i], last - line)
            last = at
            to = x[i] - gap if above else x[i] + gap
            ax.plot([x[i], to], [y[i], at], "-", color=SOFT, lw=0.5, clip_on=False)
            ax.text(
                to, at, short_name(text),
                color=INK, fontsize=8, ha="right" if above else "left", va="center",
                parse_math=False,
            )  # fmt: skip


def draw_confusion(table: Any, classes: Sequence[str]) -> Any:
    """Draw the number of rows of each class (down) predicted as each class (across)."""
    with optional_import("reports", "report"):
        from matplotlib.patches import Rectangle

    n = len(classes)
    ax = new_chart(max(2.2, min(4.2, 0.9 + 0.36 * n)), left=0.24)
    ax.grid(False)
    names = [short_name(str(name))[:12] for name in classes]
    for i, row in enumerate(np.asarray(table)):
        for j, count in enumerate(row.tolist()):
            share = count / max(1, row.sum())
            color = BLUE if i == j else RED
            ax.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=color,
                                   alpha=0.06 + 0.5 * share, lw=0))  # fmt: skip
            if count:
                ax.text(j, i, str(count), ha="center", va="center", color=INK,
                        fontsize=9.5 if n < 8 else 7)  # fmt: skip
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    rotate = {"rotation": 35, "ha": "right"} if n > 4 else {}
    ax.set_xticks(range(n), names, parse_math=False, **rotate)
    ax.set_yticks(range(n), names, parse_math=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if n > 4:
        ax.figure.subplots_adjust(bottom=0.9 / ax.figure.get_figheight())
    else:
        ax.set_xlabel("predicted", color=INK)
    ax.set_title("class", color=SOFT, loc="left", x=-0.25)
    return ax


def draw_ranges(names: Sequence[str], ranges: dict[str, Floats], xlabel: str) -> Any:
    """Draw a range with a dot in the middle for each name, side by side for each entry of `ranges`,
    whose values hold three columns: low, middle and high.
    """
    n = len(names)
    chart = new_chart(0.9 + 0.27 * n, left=0.3, n_columns=len(ranges), sharex=True)
    for ax, (title, (low, middle, high)) in zip(np.atleast_1d(chart), ranges.items()):
        rows = np.arange(n)
        ax.axvline(0, color=SOFT, lw=0.9)
        ax.hlines(rows, low, high, color=BLUE, lw=5, alpha=0.35)
        ax.plot(middle, rows, "o", color=BLUE, ms=5)
        ax.set_title(short_name(title)[:20], color=INK, loc="left")
        ax.set_ylim(n - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=5 if len(ranges) == 1 else 3)
        ax.spines["left"].set_visible(False)
    first = np.atleast_1d(chart)[0]
    first.set_yticks(range(n), [short_name(name) for name in names], color=INK, parse_math=False)
    first.figure.supxlabel(escape_unprintable(xlabel)[:75], fontsize=9.5, parse_math=False, y=0.01)
    return first
