"""Curves of something against steps, time or size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..spectrum.density_curve import plain_numbers
from .style import _with_legend, line_look, new_axes


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
    look = line_look(len(ax.lines)) if color is None else {"color": color}
    ax.plot(x, y, lw=1.6, label=label, **look)
    if log and np.all(y[np.isfinite(y)] > 0):
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
    ax.set(xlabel=xlabel or ax.get_xlabel(), ylabel=ylabel or ax.get_ylabel())
    return _with_legend(ax, label)
