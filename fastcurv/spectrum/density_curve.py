"""The result of `spectral_density`: a quadrature per probe, and what follows from it without
further products.
"""

from __future__ import annotations

import numbers
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    check_array,
    check_choice,
    check_positive,
    check_positive_int,
    check_real,
    short,
)
from ..common.errors import Answering, typed
from ..common.html import InOneLine
from ..common.optional import optional
from ..common.protocols import Axis, Floats
from ..common.read_only import Record
from .results import Estimate, alike, mean_of, number

# --------------------------------------------------------------------------------------------------
# From quadrature nodes to a density on a grid: a Gaussian on every node, on a linear or a
# logarithmic axis.


def check_look(
    axis: str, width: float | None, grid: ArrayLike | None, n_grid: int, linear_below: float | None
) -> dict[str, Any]:
    """Check the keyword arguments of `smear` and return them."""
    check_choice(axis, get_args(Axis), "axis")
    if grid is not None:
        grid = check_array(grid, "grid", np.float64)
        if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all():
            raise ValueError(
                f"grid has shape {grid.shape}; wanted at least two eigenvalues in increasing order"
            )
    return {
        "axis": axis,
        "grid": grid,
        "n_grid": check_positive_int(n_grid, "n_grid", MAX_GRID),
        "width": None if width is None else check_positive(width, "width"),
        "linear_below": None
        if linear_below is None
        else check_positive(linear_below, "linear_below"),
    }


FINEST = float(np.finfo(np.float64).eps) / 4  # least width per grid point, over the largest node
ONE = 1e-13  # nodes this close, relative to the largest, are one eigenvalue
# the density of a narrower Gaussian would overflow float64, or nearly so
NARROWEST = 1e-300
HUGE, TINY = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
# the default grid extends this many widths past the outermost nodes: 1e-9 of a Gaussian lies beyond
MAX_GRID = 1 << 24  # points of a grid, 128 MiB
REACH = 6.0


def to_coordinate(lam: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Convert eigenvalues to the coordinate of the axis: on the log axis signed decades of
    ``|lam|``. A density is per unit of this coordinate.
    """
    lam = np.asarray(lam, dtype=float)
    if axis == "linear":
        return lam
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.arcsinh(lam / linear_below)
        far = np.sign(lam) * (np.log(np.abs(lam)) - np.log(linear_below / 2))
    return np.asarray(np.where(np.isfinite(near), near, far) / np.log(10))


def from_coordinate(x: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Convert coordinates of the axis to eigenvalues, the inverse of `to_coordinate`."""
    x = np.asarray(x, dtype=float)
    if axis == "linear":
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.sinh(x * np.log(10)) * linear_below
        far = np.sign(x) * np.exp(np.abs(x) * np.log(10) + np.log(linear_below / 2))
    return np.asarray(np.where(np.isfinite(near), near, far))


def smear(
    nodes: Floats,
    weights: Floats,
    *,
    axis: str = "linear",
    width: float | None = None,
    grid: Floats | None = None,
    n_grid: int = 1024,
    linear_below: float | None = None,
    unsure: bool = True,
) -> dict[str, Any]:
    """Compute a density with integral 1, and its standard error over the probes.

    Parameters
    ----------
    nodes, weights : ndarray, shape (n_probes, q)
        Each row of weights sums to 1.
    axis, width, grid, n_grid, linear_below
        As in `spectral_density`.
    unsure : bool
        Whether the standard error is unknown, NaN, if a few probes are all `alike`.

    Returns
    -------
    dict
        ``grid, density, stderr, width, axis, linear_below``, fields of `SpectralDensity`.
    """
    used = nodes[weights > 0]
    largest = float(np.abs(used).max(initial=0.0))
    if linear_below is None:
        linear_below = max(1e-4 * largest, TINY) if largest else 1.0
    # computed in units of a power of two in which no sum overflows or underflows
    exponent = 0
    if axis == "linear" and largest:
        reach = 0.0 if grid is None else float(np.abs(grid).max())
        exponent = int(np.frexp(max(largest, width or 0.0, reach, NARROWEST))[1])
    x = np.ldexp(to_coordinate(nodes, axis, linear_below), -exponent)
    low, high = x[weights > 0].min(), x[weights > 0].max()
    size = max(abs(low), abs(high))
    finest = FINEST * n_grid * size
    narrowest = float(np.ldexp(NARROWEST, -exponent))
    if width is None:
        width = max(_default_width(axis, size, high - low, finest), narrowest)
    else:
        least = max(narrowest, finest if grid is None else 0.0)
        if np.ldexp(width, -exponent) < least:
            raise ValueError(
                f"width is {width!r} and eigenvalues reach {largest:.3g}; wanted at least "
                f"{np.ldexp(least, exponent):.1g}, which {n_grid} points of a grid resolve"
            )
        width = float(np.ldexp(width, -exponent))
    if grid is None:
        n_grid = max(n_grid, min(1 << 16, int(2 * (high - low + 2 * REACH * width) / width)))
        at = np.linspace(low - REACH * width, high + REACH * width, n_grid)
        with np.errstate(over="ignore"):
            grid = from_coordinate(np.ldexp(at, exponent), axis, linear_below)
        grid = np.clip(grid, -HUGE, HUGE)
    else:
        grid = np.asarray(grid, dtype=float)
        at = np.ldexp(to_coordinate(grid, axis, linear_below), -exponent)
    per_probe = np.array([_gaussians(at, xi[w > 0], w[w > 0], width) for xi, w in zip(x, weights)])
    per_probe = np.ldexp(per_probe, -exponent)
    n_probes = len(per_probe)
    unit = float(per_probe.max(initial=0.0)) or 1.0
    stderr = np.full(len(at), np.nan)
    if n_probes > 1 and not (unsure and alike(per_probe)):
        stderr = unit * ((per_probe / unit).std(axis=0, ddof=1) / n_probes**0.5)
    return {
        "grid": grid,
        "density": per_probe.mean(axis=0),
        "stderr": stderr,
        "width": float(np.ldexp(width, exponent)),
        "axis": axis,
        "linear_below": float(linear_below),
    }


def _default_width(axis: str, size: float, spread: float, finest: float) -> float:
    """Return a hundredth of the spread of the nodes, or a twentieth of a decade; at least the width
    that the grid resolves.
    """
    width = 0.05 if axis == "log" else 0.01 * spread if spread > ONE * size else 0.0
    return float(max(width, finest) if width else 1e-3 * size or 1e-3)


def _gaussians(at: Floats, x: Floats, w: Floats, width: float) -> Floats:
    """Return the sum of Gaussians of weights `w` at `x`, evaluated at `at`."""
    total = np.zeros(len(at))
    with np.errstate(over="ignore"):  # far from the Gaussian
        for xi, wi in zip(x, w):
            total += wi * np.exp(-0.5 * ((at - xi) / width) ** 2)
    total /= width * (2 * np.pi) ** 0.5
    return total


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity(Record, InOneLine, Answering, subject="density"):
    """Density of eigenvalues by stochastic Lanczos quadrature.

    Attributes
    ----------
    grid : ndarray, shape (p,)
        Eigenvalues at which the density is given.
    density, stderr : ndarray, shape (p,)
        Mean over the probes and its standard error, per unit of `coordinate`; the integral over it
        is 1. The standard error is NaN if fewer than 12 probes are all alike, since these show no
        scatter.
    nodes, weights : ndarray, shape (n_probes, q)
        The quadrature of each probe; each row of weights sums to 1. Rows that ended early are
        padded with weight 0.
    n_products : int
    n : int
        Size of the operator.
    width : float
        Standard deviation of the Gaussian placed on each node, in units of `coordinate`.
    axis : str
        ``"linear"``: the coordinate is the eigenvalue. ``"log"``: it is ``asinh(lam / linear_below)
        / log(10)``, decades of ``|lam|`` on either side of zero, linear below `linear_below`.
    linear_below : float
    n_deflated : int
        Number of eigenvalues that enter the density exactly, as nodes of weight 1/n common to all
        probes.
    rounding : float
        Eigenvalues and nodes this close to a number, zeros of symmetries for example, cannot be
        told from it.
    ghosts : float
        The largest ``|<q_i, q_j>|``, i != j, measured among Lanczos vectors; spurious copies of
        eigenvalues (ghosts) can only appear if it is near 1.
    shared : str or None
        The name of the `Krylov` run whose products were used.
    n_new : int or None
        How many products were made for this result; None: all.
    space : str
        As in `Eigenpairs`.
    """

    grid: np.ndarray
    density: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    stderr: np.ndarray
    n_products: int
    n: int = 0
    width: float = 0.0
    axis: str = "linear"
    linear_below: float = 0.0
    n_deflated: int = 0
    ghosts: float = 0.0
    shared: str | None = None
    n_new: int | None = None
    space: str = "parameters"
    rounding: float = 0.0

    @property
    def n_probes(self) -> int:
        """The number of random vectors used."""
        return len(self.nodes)

    @property
    def exact(self) -> bool:
        """True if all eigenvalues were computed, in place of an estimate from random probes."""
        return 0 < self.n <= self.n_deflated

    @property
    def coordinate(self) -> np.ndarray:
        """The variable of the density: the grid itself, or its decades; see `axis`."""
        return to_coordinate(self.grid, self.axis, self.linear_below)

    def integral(self) -> float:
        """Return the integral of the density over `coordinate` by the trapezoidal rule."""
        return float(np.diff(self.coordinate) @ (self.density[1:] + self.density[:-1])) / 2

    def moment(self, power: int = 1) -> Estimate:
        """Estimate the mean of ``lam ** power`` over the spectrum, ``trace(H ** power) / n``, as an
        `Estimate`.

        The power is an integer from 0 to twice the number of steps less one, for which the
        quadrature adds no error to that of the probes.
        """
        if isinstance(power, bool) or not isinstance(power, numbers.Integral) or power < 0:
            raise ValueError(f"power is {short(power)}; wanted an int >= 0")
        power = check_positive_int(power, "power", least=0)
        with np.errstate(over="ignore", invalid="ignore"):
            per_probe = (self.weights * self.nodes ** int(power)).sum(axis=1)
        if not np.isfinite(per_probe).all():
            raise ValueError(
                f"moment {power} is beyond float64; wanted an operator scaled down, or less power"
            )
        return self._over_probes(per_probe, f"moment {power}", known=power == 0)

    def mass(self, low: float = -np.inf, high: float = 0.0) -> Estimate:
        """Estimate the fraction of eigenvalues in ``low < lam < high``, as an `Estimate`.

        Nodes within `rounding` of an end count as equal to it, so they are left out, and half of
        their weight is added to the standard error. A node next to an end represents eigenvalues
        on both sides of it, unless all eigenvalues are known, so half of the weight of the two
        nodes on either side of each end is uncertain; that is added to the standard error over the
        probes, which is NaN for a single probe. If a few probes are all alike they may miss one
        eigenvalue of n, and the standard error is at least 1/n.
        """
        for name, end in (("low", low), ("high", high)):
            if not isinstance(end, numbers.Real) or np.isnan(check_real(end, name)):
                raise ValueError(f"{name} is {short(end)}; wanted a number, which may be infinite")
        low, high = float(low), float(high)
        per_probe, unsure = np.zeros(self.n_probes), np.zeros(self.n_probes)
        for i, (x, w) in enumerate(zip(self.nodes, self.weights)):
            per_probe[i] = w[(x > low + self.rounding) & (x < high - self.rounding)].sum()
            for end in (low, high):
                equal = np.abs(x - end) <= self.rounding
                unsure[i] += float(w[equal].sum())
                unsure[i] += 0.0 if self.exact else astride(x[~equal], w[~equal], end)
        estimate = self._over_probes(per_probe, "mass", known=True)
        one = 0.0 if self.exact or not alike(per_probe) else 1 / max(1, self.n)
        stderr = np.hypot(estimate.stderr, max(unsure.mean() / 2, one))
        return replace(estimate, stderr=float(stderr))

    def wasserstein(self, other: Any) -> float:
        """Return the Wasserstein-1 distance to another density, or to eigenvalues ``(m,)`` of equal
        weight.

        It is the area between the two cumulative distributions of eigenvalues, in units of
        eigenvalues. Both are represented by their quadratures, averaged over the probes, so grids
        and widths do not matter.

        Examples
        --------
        >>> import fastcurv as fc
        >>> d = fc.spectral_density(np.diag([1.0, 2.0, 3.0]), n_probes=2, n_steps=3, seed=0)
        >>> moved = fc.spectral_density(np.diag([2.0, 3.0, 4.0]), n_probes=2, n_steps=3, seed=0)
        >>> round(d.wasserstein(moved), 6), d.wasserstein(d)
        (1.0, 0.0)
        """
        from scipy.stats import wasserstein_distance

        if isinstance(other, SpectralDensity):
            values, weights = other.nodes.ravel(), other.weights.ravel()
        elif hasattr(other, "matvec"):
            raise TypeError(
                f"other is {typed(other)}; wanted a density, fc.spectral_density(H), or eigenvalues"
            )
        else:
            values, weights = np.ravel(check_array(other, "other", np.float64)), None
        return float(
            wasserstein_distance(self.nodes.ravel(), values, self.weights.ravel(), weights)
        )

    def regrid(
        self,
        *,
        axis: str | None = None,
        width: float | None = None,
        grid: Any = None,
        n_grid: int = 1024,
        linear_below: float | None = None,
    ) -> SpectralDensity:
        """Return the density of the same quadrature on another grid, axis or width, at no product;
        arguments as in `spectral_density`.
        """
        look = check_look(self.axis if axis is None else axis, width, grid, n_grid, linear_below)
        return replace(self, **smear(self.nodes, self.weights, **look, unsure=not self.exact))

    def merge(self, other: SpectralDensity) -> SpectralDensity:
        """Return the density from the probes of both, which must be of the same operator, with the
        axis and width of this one.
        """
        if not isinstance(other, SpectralDensity) or other.n != self.n:
            raise ValueError(
                "other is not a SpectralDensity of an operator of the same size; wanted one to "
                "merge with"
            )
        q = max(self.nodes.shape[1], other.nodes.shape[1])
        beside = [((0, 0), (0, q - d.nodes.shape[1])) for d in (self, other)]
        nodes = np.vstack([np.pad(d.nodes, b, "edge") for d, b in zip((self, other), beside)])
        weights = np.vstack([np.pad(d.weights, b) for d, b in zip((self, other), beside)])
        spread = smear(
            nodes,
            weights,
            axis=self.axis,
            width=self.width,
            linear_below=self.linear_below,
            unsure=not (self.exact and other.exact),
        )
        return replace(
            self,
            nodes=nodes,
            weights=weights,
            n_products=self.n_products + other.n_products,
            n_deflated=min(self.n_deflated, other.n_deflated),
            ghosts=max(self.ghosts, other.ghosts),
            rounding=max(self.rounding, other.rounding),
            **spread,
        )

    def _over_probes(self, per_probe: np.ndarray, method: str, known: bool = False) -> Estimate:
        mean, stderr = mean_of(per_probe)
        if not (known or self.exact) and alike(per_probe):
            stderr = float("nan")
        return Estimate(mean, stderr, self.n_products, method=method)

    def plot(self, ax: Any = None, *, band: float = 2.0, **line: Any) -> Any:
        """Draw the density with a band of `band` standard errors, named in its legend; needs
        matplotlib. `fastcurv.SpectrumDisplay` draws eigenvalues beside it.

        If `ax` is None a new figure is made: a pyplot figure if the caller has imported pyplot, so
        that ``plt.show()`` shows it, otherwise one without a window, which works without a display
        and in threads; ``.figure.savefig(path)`` of the result writes it.

        Returns
        -------
        matplotlib.axes.Axes
            The axes it was drawn in.
        """
        if ax is not None and not hasattr(ax, "plot"):
            raise TypeError(f"ax is {typed(ax)}; wanted Axes of matplotlib, or scale='log'")
        return draw_density(self, shown_axes() if ax is None else ax, band=band, **line)

    def __repr__(self) -> str:
        used = self.nodes[self.weights > 0]
        made = "all eigenvalues computed,"
        if not self.exact:
            made = f"{self.n_probes} probes, {self.nodes.shape[1]} nodes each"
        deflated = "" if self.exact else f"{self.n_deflated} deflated, "
        return (
            f"SpectralDensity: n = {self.n}, {made} on "
            f"[{number(used.min())}, {number(used.max())}], width {number(self.width)} "
            f"({self.axis} axis), {deflated}{self.n_products} products"
        )


def astride(nodes: np.ndarray, weights: np.ndarray, end: float) -> float:
    """Return half the weight of the nearest nodes on either side of `end`, which may represent
    eigenvalues on the other side.
    """
    if not np.isfinite(end):
        return 0.0
    used = weights > 0
    below, above = used & (nodes < end), used & (nodes >= end)
    if not below.any() or not above.any():
        return 0.0
    left = np.flatnonzero(below)[np.argmax(nodes[below])]
    right = np.flatnonzero(above)[np.argmin(nodes[above])]
    return 0.5 * float(weights[left] + weights[right])


# --------------------------------------------------------------------------------------------------
# The plot of a spectral density: the line, the band of standard errors, and the limits of the axes.

BAND = 2.0  # standard errors on either side
SHOWN = 1e-290  # matplotlib's logarithmic axes show no numbers below it or above its inverse


def shown_axes(figsize: tuple[float, float] = (6.4, 4.0)) -> Any:
    """Return Axes in a new figure of pyplot, which ``plt.show()`` and notebooks show; outside the
    main thread, where pyplot may not open windows, in a figure without one.
    """
    with optional("plots"):
        if threading.current_thread() is threading.main_thread():
            from matplotlib import pyplot

            return pyplot.figure(figsize=figsize, layout="constrained").add_subplot()
        from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained").add_subplot()


def draw_density(
    density: Any,
    ax: Any,
    *,
    band: float = BAND,
    label: str | None = None,
    scale: str = "log",
    **line: Any,
) -> Any:
    """Draw a density, with a band of standard errors over the probes that is named in the legend.

    Parameters
    ----------
    density : SpectralDensity
    ax : matplotlib.axes.Axes
    band : float
        Standard errors on either side of the line; 0: no band.
    label : str or None
        Name of the line in the legend; by default "density" with the width it is smoothed over.
    scale : {"log", "linear"}
        Scale of the vertical axis. A Hessian's density spans many decades: its bulk lies at zero.
    **line
        Passed to ``ax.plot``.

    Returns
    -------
    matplotlib.axes.Axes
        A logarithmic vertical axis ends at a tenth of the peak that one eigenvalue of n
        contributes. A horizontal axis in decades covers the range of the density, and includes 0
        only if that does.
    """
    density = within(density, *definite(density))
    grid, height = np.asarray(density.grid), np.asarray(density.density)
    earlier = [np.max(other.get_ydata()) for other in ax.lines if np.size(other.get_ydata()) > 2]
    top = max([float(height.max()), *earlier])
    width = max(float(density.width), np.finfo(float).tiny)
    floor = 0.1 / max(1, density.n) / width if scale == "log" else 0.0
    floor = min(floor, 1e-2 * top)
    # the smoothing moves some of the density past the last eigenvalue
    unit = " decades" if density.axis == "log" else ""
    smoothed = f"density (smoothed over {density.width:.2g}{unit})"
    line = {"lw": 1.6, "label": label or smoothed} | line
    scale = scale if top > 0 else "linear"
    if density.axis == "log":  # before anything is drawn, so that margins are in decades
        if not (density.linear_below >= SHOWN and np.abs(grid).max() <= 1 / SHOWN):
            raise ValueError(
                f"the eigenvalues reach {np.abs(grid).max():.1e}, linear below "
                f"{density.linear_below:.1e}; wanted numbers between {SHOWN} and {1 / SHOWN}, "
                "which is as far as matplotlib's axes go, or axis='linear'"
            )
        ax.set_xscale("symlog", linthresh=density.linear_below, subs=range(2, 10))
        plain_numbers(ax.xaxis)
    color = ax.plot(grid, height, **line)[0].get_color()
    if (
        band
        and not density.exact
        and np.shape(density.stderr) == height.shape
        and np.isfinite(density.stderr).all()
    ):
        low = np.maximum(height - band * density.stderr, floor)
        high = np.maximum(height + band * density.stderr, floor)
        name = f"$\\pm${band:g} standard errors of {density.n_probes} probes"
        named = any(patch.get_label() == name for patch in ax.collections)
        shown = None if named else name
        ax.fill_between(grid, low, high, color=color, alpha=0.25, lw=0, label=shown)
    if density.axis == "linear" or ax.dataLim.x0 <= 0 <= ax.dataLim.x1:
        ax.axvline(0, color="#6E6E6E", lw=0.8, ls=":")
    ax.set_yscale(scale)
    plain_numbers(ax.yaxis)
    if scale == "log":
        bottom = ax.get_ylim()[0] if earlier else floor
        ax.set_ylim(min(floor, bottom), 3 * top)
    ax.set(
        xlabel="eigenvalue", ylabel="density" if density.axis == "linear" else "density per decade"
    )
    legend_above(ax, top)
    return ax


def legend_above(ax: Any, top: float) -> None:
    """Add a legend, and extend a logarithmic axis far enough above ``top``, its highest line, that
    there is room for it.
    """
    names = ax.legend(frameon=False).get_texts()
    lines = 1.4 * sum(name.get_fontsize() for name in names) / 72  # inches
    share = (lines + 0.15) / (ax.get_window_extent().height / ax.figure.dpi)
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and share < 0.6 and top > low > 0:
        ax.set_ylim(top=max(high, low * (1.5 * top / low) ** (1 / (1 - share))))


def plain_numbers(*axes: Any) -> None:
    """Format the tick labels of logarithmic axes as plain numbers.

    Labels are like 0.02, 5, 300 if the axis lies between 0.0001 and 100 000, else powers of ten.
    Between powers of ten, twice and five times these are labelled if the axis spans less than two
    decades, and all multiples if it spans less than half a decade.

    Parameters
    ----------
    *axes : matplotlib Axis
        Axes of scale "log" or "symlog"; others, and those with a formatter of their own, are not
        changed.
    """
    for axis in axes:
        if axis.get_scale() in ("log", "symlog") and axis.isDefault_majfmt:
            axis.set_major_formatter(partial(_written, axis, "1"))
            axis.set_minor_formatter(partial(_written, axis, "23456789"))


def _written(axis: Any, shown: str, x: float, _: Any) -> str:
    """Return a tick label in the format of `plain_numbers`; empty if its first digit is not
    shown.
    """
    low, high = sorted(map(abs, axis.get_view_interval()))
    if np.prod(axis.get_view_interval()) <= 0:
        low = axis.get_transform().linthresh
    span = np.log10(high / low) if high > low > 0 else np.inf
    if x == 0 or span == np.inf:
        return f"{x:g}"
    digits, power = f"{abs(x):.0e}".split("e")
    few = "1" if span > 2 else "125" if span > 0.5 else "123456789"
    if digits not in shown or digits not in few:
        return ""
    sign = "\N{MINUS SIGN}" if x < 0 else ""
    if low >= 1e-4 and high <= 1e5 or digits == "1" and power in ("+00", "+01"):
        return f"{sign}{abs(x):g}"
    return f"{sign}$" + (rf"{digits}\times" if digits != "1" else "") + f"10^{{{int(power)}}}$"


def definite(density: Any) -> tuple[float, float]:
    """Return bounds on the eigenvalues: 0 on a side of it where all of them are known and none
    lies, up to rounding; else infinite ones.
    """
    if not density.exact:
        return -np.inf, np.inf
    used = density.nodes[density.weights > 0]
    low, high = float(used.min()), float(used.max())
    if max(-low, high) <= density.rounding:
        return -np.inf, np.inf
    return (
        0.0 if low >= -density.rounding else -np.inf,
        0.0 if high <= density.rounding else np.inf,
    )


def counted(density: Any) -> str:
    """Return how many of all eigenvalues are negative, positive and zero within rounding, or the
    estimated fraction of negative ones.
    """
    n, negative = density.n, density.mass(high=0.0)
    if not density.exact:
        error = f" +- {negative.stderr:.1%}" if np.isfinite(negative.stderr) else ""
        return f"{negative.estimate:.1%}{error} of {n} eigenvalues negative"
    below, above = (round(n * density.mass(*ends).estimate) for ends in ((-np.inf, 0), (0, np.inf)))
    zero = f", {n - below - above} zero within rounding" if below + above < n else ""
    return f"{below} of {n} eigenvalues negative, {above} positive{zero}"


def within(density: Any, low: float = -np.inf, high: float = np.inf) -> Any:
    """Return the density folded back at proved bounds on the eigenvalues, so that none of it lies
    beyond and its integral is kept.

    A Gaussian on a node next to a bound extends beyond it, where no eigenvalue lies; the part
    beyond is reflected at the bound, which keeps the integral.

    Parameters
    ----------
    density : SpectralDensity
    low, high : float
        Proved bounds: no eigenvalue lies outside.

    Returns
    -------
    SpectralDensity
    """
    ends = [float(to_coordinate(x, density.axis, density.linear_below)) for x in (low, high)]
    x = density.coordinate
    if not (x[0] < ends[0] or x[-1] > ends[1]):
        return density
    at = np.linspace(max(x[0], ends[0]), min(x[-1], ends[1]), len(x))

    def folded(height: Floats) -> Floats:
        total: Floats = np.interp(at, x, height)
        for end in ends:
            if np.isfinite(end):
                total = total + np.interp(2 * end - at, x, height, left=0.0, right=0.0)
        return total

    grid = from_coordinate(at, density.axis, density.linear_below)
    stderr = folded(density.stderr)
    return replace(density, grid=grid, density=folded(density.density), stderr=stderr)
