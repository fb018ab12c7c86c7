"""The loss along lines and over planes through a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.checks import (
    as_rng,
    check_array,
    check_choice,
    check_positive,
    check_positive_int,
    check_rng,
    check_vector,
    short_repr,
)
from ...common.errors import OBJECTIVE_HINT, require_attrs
from ...common.optional import optional_import
from ...common.protocols import Array
from ...common.runtime import raise_if_interrupted
from ...network.objective import Objective
from ...spectrum.eigsh import eigsh
from .style import CYCLE, GREY, Display, n_labelled_lines, new_axes, set_log_axis

# --------------------------------------------------------------------------------------------------
# A loss over one plane of parameters.

# maximum sine of the angle between two directions that count as parallel
MAX_PARALLEL_SINE = 1e-8


def surface(
    function: Callable[[float, float], float],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    ax: Any = None,
    *,
    n: int = 81,
    levels: int = 24,
    log: bool = False,
    xlabel: str = "x",
    ylabel: str = "y",
) -> Any:
    """Draw the level lines of a function of two variables.

    Parameters
    ----------
    function : callable
        ``function(x, y) -> float``, called at each point of an n by n grid.
    xlim, ylim : (float, float)
        The ranges of x and y.
    ax : matplotlib Axes or None
        The Axes to draw in; None creates a new figure.
    n, levels : int
        Number of grid points along each axis, and number of levels.
    log : bool
        True to space the levels evenly in the logarithm of the function, which must be positive.
    xlabel, ylabel : str
        The labels of the axes.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax, figsize=(5.6, 4.6))
    x = np.linspace(xlim[0], xlim[1], n)
    y = np.linspace(ylim[0], ylim[1], n)
    z = np.array([[function(a, b) for a in x] for b in y], dtype=float)
    draw_level_lines(ax, x, y, z, levels=levels, log=log)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def draw_level_lines(ax: Any, x: Array, y: Array, z: Array, *, levels: int, log: bool) -> None:
    """Draw a loss z (rows of y, columns of x) as filled contours with lines between them and a
    colour bar. If `log`, draw the logarithm of z. `levels` is the number of levels. Places where z
    is not finite are left blank.
    """
    with optional_import("plots"):
        from matplotlib.ticker import MaxNLocator

    z = np.ma.masked_invalid(z)
    z = np.log10(np.maximum(z, z.max() * 1e-12)) if log else z
    filled = ax.contourf(x, y, z, levels=levels, cmap="cividis")
    ax.contour(x, y, z, levels=levels, colors="white", linewidths=0.3, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, ticks=MaxNLocator(8, steps=[1, 2, 5, 10]))
    bar.set_label(r"$\log_{10}$ of the loss" if log else "loss")
    # The axis shows the power of ten of very large and small numbers once, at its end. About five
    # ticks fit next to the colour bar.
    ax.ticklabel_format(style="sci", scilimits=(-2, 4))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def angle_sine(first: Array, second: Array) -> float:
    """Return the sine of the angle between two nonzero directions (n,). Directions with a sine of
    at most `MAX_PARALLEL_SINE` do not span a plane.
    """
    u, w = (v / np.abs(v).max() for v in (first, second))
    u = u / np.linalg.norm(u)
    w = w / np.linalg.norm(w)
    return float(np.linalg.norm(w - u * (u @ w)))


DIRECTION_NAMES = ("auto", "eigenvectors", "random", "gradient")
# maximum number of parameters at which "auto" computes eigenvectors, which takes seconds
EIGENVECTORS_MAX_N = 20_000
RANDOM_DIRECTION_NOTE = "random directions: a saddle often looks like a minimum"
# methods of the objective that each choice of directions requires
REQUIRED_METHODS = {"eigenvectors": ("hessian",), "gradient": ("gradient",)}


class LandscapeDisplay(Display):
    """A slice of the loss along one direction through theta, or over the plane of two directions.

    Parameters
    ----------
    steps : (m,) array
        Multiples of each direction.
    losses : (m,) or (m, m) array
        ``losses[i, j]`` at ``theta + steps[j] * directions[0] + steps[i] * directions[1]``.
    directions : (1, n) or (2, n) array
        Directions as rows, of any length.
    names : tuple of str
        A name for each direction, for the axes.
    taylor : (m,) array or None
        The second-order Taylor polynomial on the same line.

    Attributes
    ----------
    ax_, figure_
        Set by ``plot``.

    See Also
    --------
    classify : Classify a critical point.

    Notes
    -----
    A slice shows few of many directions, and along random directions a saddle often looks like a
    minimum. A direction of escape from a saddle is the eigenvector of the lowest eigenvalue.

    References
    ----------
    .. [1] Li, Xu, Taylor, Studer and Goldstein, Visualizing the Loss Landscape of Neural Nets,
           NeurIPS 2018: directions scaled unit by unit.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> ob = fc.testing.lecture_toy()
    >>> shown = fc.LandscapeDisplay.from_objective(
    ...     ob, np.zeros(2), directions="eigenvectors", radius=1.0, n_grid=5
    ... )
    >>> shown.losses.round(4)
    array([0.25  , 0.7656, 1.    , 0.7656, 0.25  ])
    >>> X = np.linspace(-1.0, 1.0, 20)[:, None]
    >>> est = fc.MLPRegressor((3,), "tanh", random_state=0).fit(X, X[:, 0] ** 2)
    >>> ob = est.objective(X, X[:, 0] ** 2)
    >>> fc.LandscapeDisplay.from_objective(ob, est.theta_, n_grid=5).losses.shape
    (5,)
    """

    steps: Any
    losses: Any
    directions: Any
    names: Any
    taylor: Any
    _read_only = frozenset(("steps", "losses", "directions", "names", "taylor"))

    def __init__(
        self,
        steps: np.ndarray,
        losses: np.ndarray,
        directions: np.ndarray,
        names: tuple[str, ...],
        *,
        taylor: np.ndarray | None = None,
    ) -> None:
        self.steps = steps
        self.losses = losses
        self.directions = directions
        self.names = names
        self.taylor = taylor

    @classmethod
    def from_objective(
        cls,
        objective: Any,
        theta: Any,
        *,
        directions: Any = "auto",
        to: Any = None,
        n_dims: int = 1,
        radius: float = 1.0,
        n_grid: int = 41,
        rng: Any = 0,
        ax: Any = None,
        **look: Any,
    ) -> LandscapeDisplay:
        """Evaluate the loss on a slice and draw the slice; `slice` evaluates without drawing.

        Parameters
        ----------
        objective : has ``value(theta)``
            The objective; for "eigenvectors" also with ``hessian(theta)``. The slice costs
            ``n_grid ** n_dims`` values.
        theta : (n,) array
            The point.
        directions : {"auto", "eigenvectors", "random", "gradient"} or array (n,) or (2, n)
            "auto": eigenvectors if the objective has a Hessian and up to 20 000 parameters, else
            random ones, with a title that warns of their limits. "random": normal numbers, scaled
            unit by unit to the length of the unit's weights, zero for biases [1]_; a unit whose
            weights are zero is moved about as far as the other units of its layer, or by about 1 if
            the weights of all units are zero. "eigenvectors": those of the lowest eigenvalue and,
            for a plane, the highest, of unit length. "gradient": the negative gradient, of unit
            length, in one dimension only. Rows of an array must not be zero, and two must span a
            plane.
        to : (n,) array, optional
            Another point. The slice is then the line from theta, at 0, to this point, at 1, and
            `directions` and `radius` are not used. To bring the two points closer, first permute
            the units of one network with `fastcurv.structure.nearest_copy`.
        n_dims : {1, 2}
            Number of directions; ignored if an array of directions is given.
        radius : float
            The slice extends from ``-radius`` to ``radius`` times each direction.
        n_grid : int
            Number of points along each direction.
        rng : None, int or Generator
            Seed of the random choices; the same integer gives bitwise the same result. None gives
            different choices in each call.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        **look
            Passed to ``plot``.

        Returns
        -------
        LandscapeDisplay
        """
        cls._check_plot_options(look, "from_objective")
        seed = check_rng(rng)
        options = {"to": to, "n_dims": n_dims, "radius": radius, "n_grid": n_grid, "rng": seed}
        return cls.slice(objective, theta, directions=directions, **options).plot(ax, **look)

    @classmethod
    def slice(
        cls,
        objective: Any,
        theta: Any,
        *,
        directions: Any = "auto",
        to: Any = None,
        n_dims: int = 1,
        radius: float = 1.0,
        n_grid: int = 41,
        rng: Any = 0,
    ) -> LandscapeDisplay:
        """Evaluate the loss on the slice without drawing it. This does not need matplotlib.

        Parameters
        ----------
        objective : has ``value(theta)``
            As in `from_objective`.
        theta : (n,) array
            The point.
        directions : str or array (n,) or (2, n)
            As in `from_objective`.
        to : (n,) array, optional
            The end of a line from theta.
        n_dims, radius, n_grid : int, float, int
            The number of directions, the extent of the slice, and the number of points along each
            direction.
        rng : None, int or Generator
            Seed of the random directions.

        Returns
        -------
        LandscapeDisplay
            The slice; its method ``plot`` draws it.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> toy = fc.testing.lecture_toy()
        >>> way = fc.LandscapeDisplay.slice(toy, [0.0, 0.0], directions=[[1.0, 1.0]], n_grid=3)
        >>> np.round(way.losses, 2)
        array([0., 1., 0.])
        """
        seed = check_rng(rng)
        n_grid = check_positive_int(n_grid, "n_grid")
        n_dims = check_positive_int(n_dims, "n_dims", 2)
        radius = check_positive(radius, "radius", zero=True)
        if to is not None:
            if not isinstance(directions, str) or directions != "auto":
                raise ValueError(
                    f"directions must be 'auto' if to is given, got {short_repr(directions)}."
                )
            if n_dims != 1:
                raise ValueError(f"n_dims must be 1 if to is given, got {n_dims}.")
            end = check_vector(to, np.size(theta), "to", np.float64)
            directions = end - check_vector(theta, np.size(theta), "theta", np.float64)
            if not directions.any():
                raise ValueError(
                    "to must be a point that differs from theta, got theta itself. Use directions "
                    "for a line through theta."
                )
        if isinstance(directions, str) and directions == "auto":
            known = hasattr(objective, "hessian") and np.size(theta) <= EIGENVECTORS_MAX_N
            directions = "eigenvectors" if known and np.size(theta) >= n_dims else "random"
        more = REQUIRED_METHODS.get(directions, ()) if isinstance(directions, str) else ()
        require_attrs(objective, ("value", *more), "objective", OBJECTIVE_HINT)
        theta = check_vector(theta, np.size(theta), "theta", np.float64)
        along, names = _choose_directions(objective, theta, directions, n_dims, as_rng(seed))
        steps = np.linspace(-radius, radius, n_grid) if to is None else np.linspace(0, 1, n_grid)
        names = names if to is None else ("the line to the other point",)
        taylor = None
        if len(along) == 1:
            losses = np.array([objective.value(theta + t * along[0]) for t in steps])
            if isinstance(objective, Objective):
                slope, bend = objective.gradient(theta) @ along[0], objective.hessian(theta)
                taylor = objective.value(theta) + steps * slope
                taylor += 0.5 * steps**2 * bend.quadratic_form(along[0])
        else:
            losses = np.array(
                [
                    [objective.value(theta + s * along[0] + t * along[1]) for s in steps]
                    for t in steps
                ]
            )
        return cls(steps, losses, along, names, taylor=taylor)

    def plot(
        self, ax: Any = None, *, label: str = "loss", levels: int = 20, log: bool = False
    ) -> LandscapeDisplay:
        """Draw the slice.

        Parameters
        ----------
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        label : str
            Label of the line, in one dimension.
        levels : int
            Number of level lines, in two dimensions.
        log : bool
            True to draw the loss on a logarithmic scale; the losses must be positive.

        Returns
        -------
        LandscapeDisplay
            The display itself, with ``ax_`` and ``figure_`` set.
        """
        flat = self.losses.ndim == 1
        ax = self._create_axes(ax, (6.0, 4.0) if flat else (5.6, 4.6))
        if flat:
            self._plot_line(ax, label, log)
        else:
            draw_level_lines(ax, self.steps, self.steps, self.losses, levels=levels, log=log)
            ax.plot([0], [0], "o", color="white", mec="black", ms=6)
            ax.set(xlabel=f"steps along {self.names[0]}", ylabel=f"steps along {self.names[1]}")
        if any("random direction" in name for name in self.names) and not ax.get_title():
            ax.set_title(RANDOM_DIRECTION_NOTE, fontsize="medium")
        return self

    def _plot_line(self, ax: Any, label: str, log: bool) -> None:
        color = CYCLE[n_labelled_lines(ax) % len(CYCLE)]
        finite = self.losses[np.isfinite(self.losses)]
        low = finite.min(initial=np.inf)
        high = finite.max(initial=-np.inf)
        ax.plot(self.steps, self.losses, color=color, lw=1.6, label=label)
        if self.taylor is not None:
            room = 0.3 * (high - low)
            seen = (self.taylor >= low - room) & (self.taylor <= high + room)
            shown = np.where(seen, self.taylor, np.nan)
            ax.plot(self.steps, shown, "--", color=color, lw=1, label="second-order Taylor")
        ax.axvline(0, color=GREY, lw=0.8, ls=":", label="_theta")
        set_log_axis(ax, log and low > 0)
        ax.set(xlabel=f"steps along {self.names[0]}", ylabel="loss")
        ax.legend(frameon=False)


def _choose_directions(
    objective: Any, theta: np.ndarray, wanted: Any, n_dims: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the directions as rows (1 or 2, n), and a name for each. `wanted` is the option
    `directions`, and `n_dims` the number of directions unless `wanted` is an array.
    """
    if not isinstance(wanted, str):
        rows = _check_directions(wanted, theta.size)
        two = "the first direction", "the second direction"
        return rows, ("the direction",) if len(rows) == 1 else two
    check_choice(wanted, DIRECTION_NAMES, "directions")
    if wanted == "gradient":
        if n_dims != 1:
            raise ValueError("n_dims must be 1 for directions='gradient', got 2.")
        gradient = objective.gradient(theta)
        length = np.linalg.norm(gradient)
        if not length > 0:
            raise ValueError(
                "directions must not be 'gradient' at a theta whose gradient is 0. Use 'random' or "
                "'eigenvectors'."
            )
        return -gradient[None] / length, ("the negative gradient",)
    if wanted == "random":
        rows = np.array([filter_normalised_direction(objective, theta, rng) for _ in range(n_dims)])
        if n_dims == 2 and angle_sine(*rows) <= MAX_PARALLEL_SINE:
            raise ValueError(
                "n_dims must be 1 where the two random directions are parallel, as happens for "
                "units of a single weight, got 2. Alternatively, pass two directions."
            )
        return rows, ("a random direction", "another random direction")[:n_dims]
    H = objective.hessian(theta)
    pairs = raise_if_interrupted(eigsh(H, k=n_dims, which=("SA", "BE")[n_dims - 1], rng=rng))
    values = [f"{value:.3g}" for value in pairs.values]
    rows = pairs.vectors.T.astype(np.float64)
    rows = rows * np.where(rows.sum(axis=1) < 0, -1.0, 1.0)[:, None]
    return rows, tuple(f"the eigenvector of {value}" for value in values)


def _check_directions(wanted: Any, n: int) -> np.ndarray:
    """Return the directions `wanted` of the caller as rows. Raise ValueError unless they are one
    nonzero direction, or two that span a plane.
    """
    rows = np.atleast_2d(check_array(wanted, "directions", np.float64))
    if rows.ndim != 2 or len(rows) not in (1, 2) or rows.shape[1] != n:
        raise ValueError(
            f"directions must have shape ({n},) or (2, {n}), or be one of "
            f"{', '.join(DIRECTION_NAMES)}, got shape {np.shape(wanted)}."
        )
    if not rows.any(axis=1).all():
        raise ValueError("directions must not be zero, got a row of zeros.")
    if len(rows) == 2 and angle_sine(*rows) <= MAX_PARALLEL_SINE:
        raise ValueError("directions must span a plane, got two on one line.")
    return rows


def filter_normalised_direction(
    objective: Any, theta: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return a random direction whose part for each unit has the norm of the unit's weights, with
    zeros for biases.

    If the weights of a unit are zero, its part consists of normal numbers whose mean squared length
    is that of the weights of the layer's other units, or 1 if all of them are zero.

    Parameters
    ----------
    objective : object
        If it has a ``model`` with ``unflatten`` and ``flatten``, its layers define the units;
        otherwise the whole direction is scaled to the length of theta.
    theta : (n,) array
    rng : Generator

    Returns
    -------
    (n,) array
    """
    direction = rng.standard_normal(theta.size)
    model = getattr(objective, "model", None)
    if model is None:
        length = float(np.linalg.norm(theta)) or 1.0
        return direction * (length / float(np.linalg.norm(direction)))
    found = np.zeros(theta.size)
    parts = zip(*map(model.unflatten, (theta, direction, found)))
    for W, D, out in ([layer[0] for layer in layers] for layers in parts):
        lengths = np.linalg.norm(W, axis=1, keepdims=True)
        alive = lengths > 0
        usual = np.sqrt(np.mean(lengths[alive] ** 2)) if alive.any() else 1.0
        scaled = D * (lengths / np.linalg.norm(D, axis=1, keepdims=True))
        out[:] = np.where(alive, scaled, D * (usual / W.shape[1] ** 0.5))
    return found
