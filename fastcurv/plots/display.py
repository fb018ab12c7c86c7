"""What all Displays share: axes to draw on, and a picture of themselves for notebooks."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np

from .style import new_figure


class Display:
    """A picture kept as its numbers, drawn by ``plot``, in scikit-learn's manner.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn last; with several panels an array of Axes.
    figure_ : matplotlib Figure
    """

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Any:
        raise NotImplementedError

    def _repr_png_(self) -> bytes:
        if not hasattr(self, "figure_"):
            self.plot()
        file = io.BytesIO()
        self.figure_.savefig(file, format="png", dpi=110)
        return file.getvalue()

    def _axes(self, ax: Any, figsize: tuple[float, float] = (6.4, 4.0), n: int = 1) -> Any:
        """``ax``, or ``n`` new Axes side by side; kept in ``ax_`` and ``figure_``.

        A new figure is one of pyplot's where the caller has imported pyplot, so that ``plt.show()``
        shows it, and belongs to no window elsewhere.
        """
        if ax is None:
            if "matplotlib.pyplot" in sys.modules:
                figure = sys.modules["matplotlib.pyplot"].figure(
                    figsize=figsize, layout="constrained"
                )
            else:
                figure = new_figure(figsize)
            ax = figure.subplots(1, n) if n > 1 else figure.add_subplot()
        elif n > 1 and np.size(ax) != n:
            raise ValueError(f"ax holds {np.size(ax)} axes; wanted {n}")
        self.ax_ = ax
        self.figure_ = np.ravel(ax)[0].figure if n > 1 else ax.figure
        return ax
