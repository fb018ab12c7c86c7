"""The share of positive eigenvalues against the loss, over many critical points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..answers import own_names
from ..checks import check_choice
from .display import Display
from .style import MARKERS

QUANTITIES = {
    "minimum_ratio": "positive eigenvalues / all",
    "index": "negative eigenvalues / all",
}


class MinimumRatioDisplay(Display):
    """Critical points by their loss and their share of positive (or negative) eigenvalues.

    Parameters
    ----------
    losses, ratios : (k,) arrays
        Of the points, in one order.
    kinds : sequence of str
        A `fastcurv.classify` kind each; decides marker and colour.
    trivial : (k,) array of bool or None
        Points that owe their rest to dead units or zero weights; drawn hollow.
    quantity : {"minimum_ratio", "index"}

    Attributes
    ----------
    ax_, figure_
        After ``plot``.

    See Also
    --------
    sample_critical_points : finds the points.

    Examples
    --------
    >>> import fastcurv as fc
    >>> shown = fc.MinimumRatioDisplay([0.1, 0.9], [1.0, 0.4], ["minimum", "saddle"])
    >>> shown.ratios
    array([1. , 0.4])
    """

    @own_names("MinimumRatioDisplay")
    def __init__(
        self,
        losses: Any,
        ratios: Any,
        kinds: Any,
        *,
        trivial: Any = None,
        quantity: str = "minimum_ratio",
    ) -> None:
        check_choice(quantity, QUANTITIES, "quantity")
        self.losses = np.asarray(losses, dtype=float)
        self.ratios = np.asarray(ratios, dtype=float)
        self.kinds = np.asarray(kinds, dtype=str)
        self.trivial = np.zeros(self.losses.shape, bool) if trivial is None else np.asarray(trivial)
        self.quantity = quantity
        if not self.losses.shape == self.ratios.shape == self.kinds.shape == self.trivial.shape:
            raise ValueError(
                f"losses has shape {self.losses.shape}, ratios {self.ratios.shape}, kinds "
                f"{self.kinds.shape}; wanted (k,) each"
            )

    @classmethod
    def from_points(
        cls, points: Iterable[Any], *, quantity: str = "minimum_ratio", ax: Any = None, **look: Any
    ) -> MinimumRatioDisplay:
        """From critical points as `fastcurv.sample_critical_points` finds them, and draw them.

        Parameters
        ----------
        points : iterable
            Each has ``loss``, ``verdict`` (a `CriticalPoint`) and, where known, ``trivial``. Points
            whose inertia is not known are left out.
        quantity : {"minimum_ratio", "index"}
        ax : matplotlib Axes or None
            Where to draw; None: a new figure.
        **look
            Passed to ``plot``.

        Returns
        -------
        MinimumRatioDisplay
        """
        cls._check_look(look, "from_points")
        known = [p for p in points if p.verdict.n_positive is not None]
        display = cls(
            [p.loss for p in known],
            [getattr(p.verdict, quantity) for p in known],
            [p.verdict.kind for p in known],
            trivial=[bool(getattr(p, "trivial", False)) for p in known],
            quantity=quantity,
        )
        return display.plot(ax, **look)

    @own_names("picture")
    def plot(self, ax: Any = None, *, label: str | None = None) -> MinimumRatioDisplay:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib Axes or None
            Where to draw; None: a new figure.
        label : str or None
            Put before each kind in the legend.

        Returns
        -------
        MinimumRatioDisplay
            Itself, with ``ax_`` and ``figure_``.
        """
        ax = self._axes(ax)
        for kind, (marker, color) in MARKERS.items():
            for hollow in (False, True):
                mine = (self.kinds == kind) & (self.trivial == hollow)
                if not mine.any():
                    continue
                name = f"{kind.replace('_', ' ')}{', trivial' if hollow else ''} ({mine.sum()})"
                ax.plot(
                    self.ratios[mine],
                    self.losses[mine],
                    marker,
                    ls="none",
                    ms=6,
                    color=color,
                    mfc="none" if hollow else color,
                    mec=color if hollow else "white",
                    label=name if label is None else f"{label}: {name}",
                    alpha=0.9,
                )
        ax.set(xlabel=QUANTITIES[self.quantity], ylabel="loss")
        ax.legend(frameon=False)
        return self
