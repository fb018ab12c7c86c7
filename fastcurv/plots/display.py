"""What all Displays share: axes to draw on, and a picture of themselves for notebooks."""

from __future__ import annotations

import io
from typing import Any

from ..answers import names_of, refuse_unknown
from ..spectrum.density_curve import shown_axes


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

    @classmethod
    def _check_look(cls, look: dict[str, Any], *makers: str) -> None:
        """A TypeError for what neither ``plot`` nor any of the makers takes, in the name of the
        first of them, which was called.
        """
        takers = [getattr(cls, name) for name in (*makers, "plot")]
        known = {name for taker in takers for name in names_of(taker)} - {"self"}
        unknown = [name for name in look if name not in known]
        refuse_unknown("picture", unknown, f"{cls.__name__}.{makers[0]}", known)

    def _repr_png_(self) -> bytes:
        if not hasattr(self, "figure_"):
            self.plot()
        file = io.BytesIO()
        self.figure_.savefig(file, format="png", dpi=110)
        return file.getvalue()

    def _axes(self, ax: Any, figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
        """Return ``ax``, or new Axes; kept in ``ax_`` and ``figure_``."""
        ax = shown_axes(figsize) if ax is None else ax
        self.ax_, self.figure_ = ax, ax.figure
        return ax
