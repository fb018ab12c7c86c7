"""How fast several methods came down, against iterations, products or seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..answers import own_names
from ..checks import check_choice
from .display import Display
from .fitted import last_step
from .style import legend_of_lines, legend_width, line_look, n_named

X_NAMES = {
    "iteration": "iterations",
    "time": "seconds",
    "products": "products with the Hessian",
}
Y_NAMES = {"loss": "loss", "gradient_norm": "norm of the gradient", "validation": "validation loss"}


class ConvergenceDisplay(Display):
    """Training curves side by side.

    Parameters
    ----------
    curves : dict of str to (x, y)
        A name and two arrays of equal length each.
    xlabel, ylabel : str
        Of the axes.
    ends : dict of str to str
        What kind of point each run ended at, said in the legend.

    Attributes
    ----------
    ax_, figure_
        After ``plot``.

    See Also
    --------
    minimize : whose ``history`` it draws.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> ob = fc.testing.lecture_toy()
    >>> run = fc.minimize(ob, np.array([0.1, 0.2]), "newton-cg", seed=0)
    >>> shown = fc.ConvergenceDisplay.from_results({"newton-cg": run}, x="iteration")
    >>> sorted(shown.curves)
    ['newton-cg']
    """

    def __init__(
        self,
        curves: Mapping[str, tuple[Any, Any]],
        *,
        xlabel: str = "iterations",
        ylabel: str = "loss",
        ends: Mapping[str, str] | None = None,
    ) -> None:
        self.curves = {
            name: (np.asarray(x, dtype=float), np.asarray(y, dtype=float))
            for name, (x, y) in curves.items()
        }
        for name, (x, y) in self.curves.items():
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(f"curve {name!r} has shapes {x.shape} and {y.shape}; wanted (k,)")
        self.xlabel, self.ylabel, self.ends = xlabel, ylabel, dict(ends or {})

    @classmethod
    def from_results(
        cls,
        results: Any,
        *,
        x: str = "time",
        y: str = "loss",
        above: float = 0.0,
        ax: Any = None,
        **look: Any,
    ) -> ConvergenceDisplay:
        """From what `fastcurv.minimize` returned, and draw it.

        Parameters
        ----------
        results : dict of str to OptimizeResult, or one OptimizeResult
            What `minimize` returned, by the names in the legend.
        x : {"time", "iteration", "products"}
        y : {"loss", "gradient_norm", "validation"}
        above : float
            Subtracted from y: the lowest loss known, say.
        ax : matplotlib Axes or None
            Where to draw; None: a new figure.
        **look
            Passed to ``plot``.

        Returns
        -------
        ConvergenceDisplay

        Examples
        --------
        >>> import fastcurv as fc
        >>> toy = fc.testing.lecture_toy()
        >>> runs = {m: fc.minimize(toy, [0.5, 0.4], m) for m in ("newton-cg", "trust-region")}
        >>> shown = fc.ConvergenceDisplay.from_results(runs, x="iteration")
        >>> shown.ax_.get_xlabel()
        'iterations'
        """
        for name, value, known in (("x", x, X_NAMES), ("y", y, Y_NAMES)):
            check_choice(value, known, name)
        if hasattr(results, "history"):
            results = {getattr(results, "method", None) or Y_NAMES[y]: results}
        curves = {
            name: (run.history[x], np.asarray(run.history[y]) - above)
            for name, run in results.items()
        }
        ends = {
            name: run.kind.replace("_", " ")
            for name, run in results.items()
            if isinstance(getattr(run, "kind", None), str)
        }
        label = Y_NAMES[y] + (f" above {above:.4g}" if above else "")
        return cls(curves, xlabel=X_NAMES[x], ylabel=label, ends=ends).plot(ax, **look)

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, name: str | None = None, **look: Any
    ) -> ConvergenceDisplay:
        """The loss curve of a fitted estimator, and the validation loss where it stopped early.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            This library's, fitted, or a pipeline that ends in one.
        ax : matplotlib Axes or None
            Where to draw; None: a new figure.
        name : str or None
            In the legend; None: the estimator's class and solver.
        **look
            Passed to ``plot``.

        Returns
        -------
        ConvergenceDisplay
        """
        estimator, _ = last_step(estimator)
        name = f"{type(estimator).__name__}, {estimator.solver}" if name is None else name
        found = {name: estimator.loss_curve_}
        if hasattr(estimator, "validation_loss_curve_"):
            found[f"{name}: validation"] = estimator.validation_loss_curve_
        kind = getattr(estimator.curvature_, "kind", None)
        ends = {} if kind is None else {name: kind.replace("_", " ")}
        curves = {label: (range(len(values)), values) for label, values in found.items()}
        return cls(curves, ends=ends).plot(ax, **look)

    @own_names("picture")
    def plot(self, ax: Any = None, *, log: bool = True) -> ConvergenceDisplay:
        """Draw it; after the seventh curve dashes tell them apart, and the legend is beside them.

        Parameters
        ----------
        ax : matplotlib Axes or None
            Where to draw; None: a new figure.
        log : bool
            Whether the vertical axis is logarithmic, where all values are positive.

        Returns
        -------
        ConvergenceDisplay
            Itself, with ``ax_`` and ``figure_``.
        """
        names = [
            f"{name} (ends: {self.ends[name]})" if name in self.ends else str(name)
            for name in self.curves
        ]
        own = ax is None
        ax = self._axes(ax, (6.4 + legend_width(names), 4.0))
        positive = True
        for number, (name, (x, y)) in enumerate(zip(names, self.curves.values()), n_named(ax)):
            look = line_look(number)
            ax.plot(x, y, lw=1.6, label=name, **look)
            if y.size:
                ax.plot(x[-1:], y[-1:], "o", ms=4, color=look["color"])
            positive &= bool((y[np.isfinite(y)] > 0).all())
        if log and positive:
            ax.set_yscale("log")
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        legend_of_lines(ax, room=own)
        return self
