"""Training curves of one or several methods against iterations, products or seconds, and critical
points by loss and fraction of positive eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from ...common.checks import check_choice, is_iterable
from ...common.errors import require_attrs, type_phrase
from .predictions import final_estimator_and_inputs
from .style import (
    BLUE,
    GREY,
    MARKERS,
    RED,
    Display,
    _add_legend,
    add_line_legend,
    legend_width,
    line_style,
    n_labelled_lines,
    new_axes,
    set_log_axis,
)

X_AXIS_LABELS = {
    "iteration": "iterations",
    "time": "seconds",
    "products": "products with the Hessian",
}
Y_AXIS_LABELS = {
    "loss": "loss",
    "gradient_norm": "norm of the gradient",
    "validation": "validation loss",
}


def _as_curve(name: str, curve: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve (x, y) as two float arrays of shape (k,). Raise an error that contains `name`
    if its shapes are different.
    """
    try:
        x, y = curve
    except (TypeError, ValueError):
        raise TypeError(
            f"curve {name!r} must be two arrays, x and y, got {type_phrase(curve)}. Use "
            "(range(len(losses)), losses) for losses alone."
        ) from None
    x = np.asarray(x, dtype=float)
    y = np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"curve {name!r} must have x and y of shape (k,), got {x.shape} and {y.shape}."
        )
    return x, y


def _check_runs(results: Any, x: str, y: str) -> None:
    """Raise TypeError or ValueError unless `results` is a dict of results of `fastcurv.minimize`
    whose histories have the quantities `x` and `y`.
    """
    if not isinstance(results, Mapping):
        raise TypeError(
            "results must be a result of fastcurv.minimize, or a dict of names to results, got "
            f"{type_phrase(results)}."
        )
    for name, run in results.items():
        history = getattr(run, "history", None)
        if not isinstance(history, Mapping):
            raise TypeError(
                f"result {name!r} must be a result of fastcurv.minimize, got {type_phrase(run)} "
                "without the history of a run."
            )
        for key in (x, y):
            if key not in history:
                why = " Use callback=EarlyStopping(ob)." if key == "validation" else ""
                raise ValueError(
                    f"result {name!r} must have {key!r} in its history, got "
                    f"{', '.join(map(str, history)) or 'an empty one'}.{why}"
                )


class ConvergenceDisplay(Display):
    """Training curves of several runs on one pair of axes.

    Parameters
    ----------
    curves : dict of str to (x, y)
        Two arrays of equal length for each name.
    xlabel, ylabel : str
        Labels of the axes.
    ends : dict of str to str
        The kind of point that each run ended at, shown in the legend.

    Attributes
    ----------
    ax_, figure_
        Set by ``plot``.

    See Also
    --------
    minimize : Returns the ``history`` that is drawn.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> ob = fc.testing.lecture_toy()
    >>> run = fc.minimize(ob, np.array([0.1, 0.2]), "newton-cg", rng=0)
    >>> shown = fc.ConvergenceDisplay.from_results({"newton-cg": run}, x="iteration")
    >>> sorted(shown.curves)
    ['newton-cg']
    >>> est = fc.MLPRegressor((3,), random_state=0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0])
    >>> len(fc.ConvergenceDisplay.from_estimator(est).curves)
    1
    """

    curves: Any
    xlabel: Any
    ylabel: Any
    ends: Any
    _read_only = frozenset(("curves", "xlabel", "ylabel", "ends"))

    def __init__(
        self,
        curves: Mapping[str, tuple[Any, Any]],
        *,
        xlabel: str = "iterations",
        ylabel: str = "loss",
        ends: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(curves, Mapping):
            raise TypeError(
                f"curves must be a dict of a name to (x, y) each, got {type_phrase(curves)}."
            )
        self.curves = {name: _as_curve(name, curve) for name, curve in curves.items()}
        self.xlabel = xlabel
        self.ylabel = ylabel
        self.ends = dict(ends or {})

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
        """Draw the training curves of results returned by `fastcurv.minimize`.

        Parameters
        ----------
        results : dict of str to OptimizeResult, or one OptimizeResult
            Results of `minimize`, by their names in the legend.
        x : {"time", "iteration", "products"}
            The quantity on the horizontal axis.
        y : {"loss", "gradient_norm", "validation"}
            The quantity on the vertical axis.
        above : float
            Number that is subtracted from y, for example the lowest known loss.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
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
        for name, value, known in (("x", x, X_AXIS_LABELS), ("y", y, Y_AXIS_LABELS)):
            check_choice(value, known, name)
        cls._check_plot_options(look, "from_results")
        if isinstance(results, OptimizeResult) or hasattr(results, "history"):
            results = {getattr(results, "method", None) or Y_AXIS_LABELS[y]: results}
        _check_runs(results, x, y)
        curves = {
            name: (run.history[x], np.asarray(run.history[y]) - above)
            for name, run in results.items()
        }
        ends = {
            name: run.kind.replace("_", " ")
            for name, run in results.items()
            if isinstance(getattr(run, "kind", None), str)
        }
        label = Y_AXIS_LABELS[y] + (f" above {above:.4g}" if above else "")
        return cls(curves, xlabel=X_AXIS_LABELS[x], ylabel=label, ends=ends).plot(ax, **look)

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, name: str | None = None, **look: Any
    ) -> ConvergenceDisplay:
        """Draw the loss curve of a fitted estimator, and the validation loss if it used early
        stopping.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            A fitted estimator of this library, or a pipeline that ends in one.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        name : str or None
            Name in the legend. If None, it consists of the estimator's class and solver.
        **look
            Passed to ``plot``.

        Returns
        -------
        ConvergenceDisplay
        """
        cls._check_plot_options(look, "from_estimator")
        estimator, _ = final_estimator_and_inputs(estimator)
        name = f"{type(estimator).__name__}, {estimator.solver}" if name is None else name
        found = {name: estimator.loss_curve_}
        if hasattr(estimator, "validation_loss_curve_"):
            found[f"{name}: validation"] = estimator.validation_loss_curve_
        kind = getattr(estimator.curvature_, "kind", None)
        ends = {} if kind is None else {name: kind.replace("_", " ")}
        curves = {label: (range(len(values)), values) for label, values in found.items()}
        return cls(curves, ends=ends).plot(ax, **look)

    def plot(self, ax: Any = None, *, log: bool = True) -> ConvergenceDisplay:
        """Draw the curves. From the eighth curve on, the dashes of the lines differ, and the legend
        is next to the axes if there is space.

        Parameters
        ----------
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        log : bool
            True for a logarithmic vertical axis, if all values are positive.

        Returns
        -------
        ConvergenceDisplay
            The display itself, with ``ax_`` and ``figure_`` set.
        """
        names = [
            f"{name} (ends: {self.ends[name]})" if name in self.ends else str(name)
            for name in self.curves
        ]
        own = ax is None
        ax = self._create_axes(ax, (6.4 + legend_width(names), 4.0))
        positive = True
        for number, (name, (x, y)) in enumerate(
            zip(names, self.curves.values()), n_labelled_lines(ax)
        ):
            look = line_style(number)
            ax.plot(x, y, lw=1.6, label=name, **look)
            if y.size:
                ax.plot(x[-1:], y[-1:], "o", ms=4, color=look["color"])
            positive &= bool((y[np.isfinite(y)] > 0).all())
        set_log_axis(ax, log and positive)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        add_line_legend(ax, room=own)
        return self


# --------------------------------------------------------------------------------------------------
# A single curve against steps, time or size.


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
# The fraction of positive eigenvalues against the loss, over many critical points.

QUANTITY_LABELS = {
    "minimum_ratio": "positive eigenvalues / all",
    "index": "negative eigenvalues / all",
    "inertia": "share of the eigenvalues",
}
SIGN_STYLES = {"positive": ("o", BLUE), "negative": ("v", RED), "zero": ("s", GREY)}


class MinimumRatioDisplay(Display):
    """A plot of critical points by loss and fraction of positive (or negative) eigenvalues, or by
    all three fractions: positive, negative, and zero within the error.

    A fraction of positive eigenvalues below 1 means that some eigenvalues are negative or zero. The
    three fractions distinguish these cases.

    Parameters
    ----------
    losses : (k,) array
        Loss of each point.
    ratios : (k,) array
        The fraction for each point; for "inertia" three fractions, shape (k, 3): positive, negative
        and zero.
    kinds : sequence of str
        The kind of each point, as returned by `fastcurv.classify`. The kind determines marker and
        colour, except for "inertia", for which the sign of the eigenvalues determines these.
    trivial : (k,) array of bool or None
        True for points that are critical only because of dead units or zero weights. They are
        drawn hollow.
    quantity : {"minimum_ratio", "index", "inertia"}
        The quantity that is drawn: the fraction of positive eigenvalues, of negative ones, or all
        three fractions.

    Attributes
    ----------
    ax_, figure_
        Set by ``plot``.

    See Also
    --------
    sample_critical_points : Find the points.

    Examples
    --------
    >>> import fastcurv as fc
    >>> shown = fc.MinimumRatioDisplay([0.1, 0.9], [1.0, 0.4], ["minimum", "saddle"])
    >>> shown.ratios
    array([1. , 0.4])
    """

    losses: Any
    ratios: Any
    kinds: Any
    trivial: Any
    quantity: Any
    _read_only = frozenset(("losses", "ratios", "kinds", "trivial", "quantity"))

    def __init__(
        self,
        losses: Any,
        ratios: Any,
        kinds: Any,
        *,
        trivial: Any = None,
        quantity: str = "minimum_ratio",
    ) -> None:
        check_choice(quantity, QUANTITY_LABELS, "quantity")
        self.losses = np.asarray(losses, dtype=float)
        self.ratios = np.asarray(ratios, dtype=float)
        self.kinds = np.asarray(kinds, dtype=str)
        self.trivial = np.zeros(self.losses.shape, bool) if trivial is None else np.asarray(trivial)
        self.quantity = quantity
        wanted = (*self.losses.shape, 3) if quantity == "inertia" else self.losses.shape
        if not (
            self.ratios.shape == wanted
            and self.losses.shape == self.kinds.shape == self.trivial.shape
        ):
            raise ValueError(
                f"losses, ratios and kinds must have shape (k,), got {self.losses.shape}, "
                f"{self.ratios.shape} and {self.kinds.shape}."
                + (
                    " The ratios of an inertia must have shape (k, 3)."
                    if quantity == "inertia"
                    else ""
                )
            )

    @classmethod
    def from_points(
        cls, points: Iterable[Any], *, quantity: str = "minimum_ratio", ax: Any = None, **look: Any
    ) -> MinimumRatioDisplay:
        """Draw critical points as returned by `fastcurv.sample_critical_points`.

        Parameters
        ----------
        points : iterable
            Objects with ``loss``, ``verdict`` (a `CriticalPoint`) and, if known, ``trivial``.
            Points whose inertia is not known are left out.
        quantity : {"minimum_ratio", "index", "inertia"}
            The quantity that is drawn, as in the class.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        **look
            Passed to ``plot``.

        Returns
        -------
        MinimumRatioDisplay
        """
        cls._check_plot_options(look, "from_points")
        points = list(points) if is_iterable(points) else [points]
        for p in points:
            require_attrs(
                p, ("verdict", "loss"), "a point", "those that sample_critical_points returns"
            )
        known = [p for p in points if p.verdict.n_positive is not None]
        check_choice(quantity, QUANTITY_LABELS, "quantity")
        display = cls(
            [p.loss for p in known],
            [_quantity_value(p.verdict, quantity) for p in known],
            [p.verdict.kind for p in known],
            trivial=[bool(getattr(p, "trivial", False)) for p in known],
            quantity=quantity,
        )
        return display.plot(ax, **look)

    def plot(self, ax: Any = None, *, label: str | None = None) -> MinimumRatioDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        label : str or None
            Text before each kind (for "inertia", each sign) in the legend.

        Returns
        -------
        MinimumRatioDisplay
            The display itself, with ``ax_`` and ``figure_`` set.
        """
        ax = self._create_axes(ax)
        if self.quantity == "inertia":
            series = [
                (sign, SIGN_STYLES[sign], np.ones(self.losses.shape, bool), shares)
                for sign, shares in zip(SIGN_STYLES, self.ratios.T)
            ]
        else:
            series = [(k, MARKERS[k], self.kinds == k, self.ratios) for k in MARKERS]
        for name, (marker, color), chosen, shares in series:
            for hollow in (False, True):
                mine = chosen & (self.trivial == hollow)
                if not mine.any():
                    continue
                words = f"{name.replace('_', ' ')}{', trivial' if hollow else ''}"
                words += "" if self.quantity == "inertia" else f" ({mine.sum()})"
                ax.plot(
                    shares[mine],
                    self.losses[mine],
                    marker,
                    ls="none",
                    ms=6,
                    color=color,
                    mfc="none" if hollow else color,
                    mec=color if hollow else "white",
                    label=words if label is None else f"{label}: {words}",
                    alpha=0.9,
                    # Zeros are drawn behind the markers of the other signs.
                    zorder=1.9 if name == "zero" else 2,
                )
        ax.set(xlabel=QUANTITY_LABELS[self.quantity], ylabel="loss")
        ax.legend(frameon=False)
        return self


def _quantity_value(verdict: Any, quantity: str) -> Any:
    if quantity != "inertia":
        return getattr(verdict, quantity)
    return np.array([verdict.n_positive, verdict.n_negative, verdict.n_zero]) / verdict.n_params
