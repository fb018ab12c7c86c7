"""The result of `spectral_density`: a quadrature for each probe, and quantities that are computed
from the quadratures without further products.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    check_array,
    check_choice,
    check_positive,
    check_positive_int,
    check_real_number,
    short_repr,
)
from ..common.errors import AttributeHints, type_phrase
from ..common.html import TextReprHtmlMixin
from ..common.protocols import Axis, Floats
from ..common.read_only import FrozenRecord
from ..common.runtime import load_module
from .results import Estimate, format_number, has_rounding_scatter, mean_and_stderr

# --------------------------------------------------------------------------------------------------
# From quadrature nodes to a density on a grid: a Gaussian on every node, on a linear or a
# logarithmic axis.


def check_grid_options(
    axis: str, width: float | None, grid: ArrayLike | None, n_grid: int, linear_below: float | None
) -> dict[str, Any]:
    """Return a dict of these options of `spectral_density`, the keyword arguments of
    `smooth_density`, after checking them. Raise ValueError or TypeError if an option is invalid.
    """
    check_choice(axis, get_args(Axis), "axis")
    if grid is not None:
        grid = check_array(grid, "grid", np.float64)
        if grid.ndim != 1 or len(grid) < 2:
            raise ValueError(f"grid must have shape (k,) with k >= 2, got {grid.shape}.")
        falls = np.flatnonzero(np.diff(grid) <= 0)
        if len(falls):
            i = falls[0]
            raise ValueError(f"grid must be increasing, got {grid[i + 1]:g} after {grid[i]:g}.")
    return {
        "axis": axis,
        "grid": grid,
        "n_grid": check_positive_int(n_grid, "n_grid", MAX_GRID_POINTS),
        "width": None if width is None else check_positive(width, "width"),
        "linear_below": None
        if linear_below is None
        else check_positive(linear_below, "linear_below"),
    }


# minimum width of a Gaussian, relative to the product of the number of grid points and the largest
# coordinate of a node, at which float64 resolves the grid
MIN_RELATIVE_WIDTH = float(np.finfo(np.float64).eps) / 4
# Nodes whose range, relative to the largest node, is at most this value count as one eigenvalue.
EQUAL_NODES_TOL = 1e-13
# minimum width of a Gaussian; the density of a narrower Gaussian could overflow float64
MIN_WIDTH = 1e-300
MAX_FLOAT, MIN_NORMAL = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
MAX_GRID_POINTS = 1 << 24  # maximum number of grid points, 128 MiB
# number of widths by which the default grid extends past the outermost nodes; 1e-9 of a Gaussian
# lies outside
GRID_MARGIN = 6.0


def eigenvalue_to_coordinate(lam: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Convert eigenvalues to the coordinate of the axis, in the shape of `lam`. On the linear axis
    this is the eigenvalue. On the log axis it is the signed number of decades of ``|lam|``, linear
    in lam below `linear_below`. A density is per unit of this coordinate.
    """
    lam = np.asarray(lam, dtype=float)
    if axis == "linear":
        return lam
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.arcsinh(lam / linear_below)
        far = np.sign(lam) * (np.log(np.abs(lam)) - np.log(linear_below / 2))
    return np.asarray(np.where(np.isfinite(near), near, far) / np.log(10))


def coordinate_to_eigenvalue(x: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Convert coordinates x of the axis to eigenvalues, in the shape of x. This is the inverse of
    `eigenvalue_to_coordinate`.
    """
    x = np.asarray(x, dtype=float)
    if axis == "linear":
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.sinh(x * np.log(10)) * linear_below
        far = np.sign(x) * np.exp(np.abs(x) * np.log(10) + np.log(linear_below / 2))
    return np.asarray(np.where(np.isfinite(near), near, far))


def smooth_density(
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
    """Compute a density with integral 1, as the mean over the probes, and its standard error.

    Parameters
    ----------
    nodes, weights : ndarray, shape (n_probes, q)
        The quadrature of each probe. Each row of weights sums to 1.
    axis, width, grid, n_grid, linear_below
        As in `spectral_density`.
    unsure : bool
        If True, the standard error is NaN (unknown) if there are few probes and all give equal
        results, so that `has_rounding_scatter` is True.

    Returns
    -------
    dict
        The fields "grid", "density", "stderr", "width", "axis" and "linear_below" of
        `SpectralDensity`.

    Raises
    ------
    ValueError
        If `width` is too small for the grid to resolve it.
    """
    used = nodes[weights > 0]
    largest = float(np.abs(used).max(initial=0.0))
    if linear_below is None:
        linear_below = max(1e-4 * largest, MIN_NORMAL) if largest else 1.0
    # Sums are computed in units of a power of two, in which no sum overflows or underflows.
    exponent = 0
    if axis == "linear" and largest:
        reach = 0.0 if grid is None else float(np.abs(grid).max())
        exponent = int(np.frexp(max(largest, width or 0.0, reach, MIN_WIDTH))[1])
    x = np.ldexp(eigenvalue_to_coordinate(nodes, axis, linear_below), -exponent)
    low, high = x[weights > 0].min(), x[weights > 0].max()
    size = max(abs(low), abs(high))
    finest = MIN_RELATIVE_WIDTH * n_grid * size
    narrowest = float(np.ldexp(MIN_WIDTH, -exponent))
    if width is None:
        width = max(_default_width(axis, size, high - low, finest), narrowest)
    else:
        least = max(narrowest, finest if grid is None else 0.0)
        if np.ldexp(width, -exponent) < least:
            raise ValueError(
                f"width must be at least {np.ldexp(least, exponent):.1g} for {n_grid} grid points "
                f"to resolve it at eigenvalues up to {largest:.3g}, got {width!r}."
            )
        width = float(np.ldexp(width, -exponent))
    if grid is None:
        n_grid = max(n_grid, min(1 << 16, int(2 * (high - low + 2 * GRID_MARGIN * width) / width)))
        at = np.linspace(low - GRID_MARGIN * width, high + GRID_MARGIN * width, n_grid)
        with np.errstate(over="ignore"):
            grid = coordinate_to_eigenvalue(np.ldexp(at, exponent), axis, linear_below)
        grid = np.clip(grid, -MAX_FLOAT, MAX_FLOAT)
    else:
        grid = np.asarray(grid, dtype=float)
        at = np.ldexp(eigenvalue_to_coordinate(grid, axis, linear_below), -exponent)
    per_probe = np.array([_gaussians(at, xi[w > 0], w[w > 0], width) for xi, w in zip(x, weights)])
    per_probe = np.ldexp(per_probe, -exponent)
    n_probes = len(per_probe)
    unit = float(per_probe.max(initial=0.0)) or 1.0
    stderr = np.full(len(at), np.nan)
    if n_probes > 1 and not (unsure and has_rounding_scatter(per_probe)):
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
    """Return the default width of the Gaussians: a hundredth of `spread`, the range of the nodes,
    or a twentieth of a decade on a log axis, but at least `finest`, the width that the grid
    resolves. If all nodes are equal on a linear axis, return a thousandth of `size`, the largest
    absolute coordinate of a node, or 1e-3 if `size` is 0.
    """
    width = 0.05 if axis == "log" else 0.01 * spread if spread > EQUAL_NODES_TOL * size else 0.0
    return float(max(width, finest) if width else 1e-3 * size or 1e-3)


def _gaussians(at: Floats, x: Floats, w: Floats, width: float) -> Floats:
    """Return the sum of Gaussians with weights w (q,), centres x (q,) and standard deviation
    `width`, at the points `at` (p,), with shape (p,).
    """
    total = np.zeros(len(at))
    # The exponent overflows far from the centre of a Gaussian, where exp gives 0.
    with np.errstate(over="ignore"):
        for xi, wi in zip(x, w):
            total += wi * np.exp(-0.5 * ((at - xi) / width) ** 2)
    total /= width * (2 * np.pi) ** 0.5
    return total


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity(FrozenRecord, TextReprHtmlMixin, AttributeHints, subject="density"):
    """Density of eigenvalues by stochastic Lanczos quadrature.

    Attributes
    ----------
    grid : ndarray, shape (p,)
        Eigenvalues at which the density is given.
    density, stderr : ndarray, shape (p,)
        Mean over the probes and its standard error, per unit of `coordinate`. The integral over
        `coordinate` is 1. The standard error is NaN for a single probe, or if there are fewer than
        12 probes and all give equal results.
    nodes, weights : ndarray, shape (n_probes, q)
        The quadrature of each probe. Each row of weights sums to 1. Rows of probes that ended early
        are padded with nodes of weight 0.
    n_products : int
        Number of products with the operator.
    n : int
        Number of rows of the operator.
    width : float
        Standard deviation of the Gaussian placed on each node, in units of `coordinate`.
    axis : str
        If ``"linear"``, the coordinate is the eigenvalue. If ``"log"``, it is ``asinh(lam /
        linear_below) / log(10)``, which counts decades of ``|lam|`` on either side of zero and is
        linear below `linear_below`.
    linear_below : float
        Magnitude of eigenvalues below which the log axis is linear.
    n_deflated : int
        Number of eigenvalues that enter the density exactly, as nodes of weight 1/n in all probes.
    resolution : float
        Bound on the rounding error of a node. Two eigenvalues within this distance, such as a node
        and the zeros that come from symmetries, cannot be distinguished.
    orthogonality_loss : float
        The largest ``|<q_i, q_j>|`` measured for two different Lanczos vectors. Spurious copies of
        eigenvalues (ghosts) can only appear if it is near 1.
    krylov_name : str or None
        The name of the `Krylov` run whose products were used.
    n_new_products : int or None
        Number of products that were computed for this result, or None if no `Krylov` run was used.
    space : str
        The space in which the density was computed, as in `Eigenpairs`.
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
    orthogonality_loss: float = 0.0
    krylov_name: str | None = None
    n_new_products: int | None = None
    space: str = "parameters"
    resolution: float = 0.0

    @property
    def n_probes(self) -> int:
        """The number of random probe vectors."""
        return len(self.nodes)

    @property
    def exact(self) -> bool:
        """True if all eigenvalues were computed, not estimated from random probes."""
        return 0 < self.n <= self.n_deflated

    @property
    def coordinate(self) -> np.ndarray:
        """The variable (p,) of the density at the grid points: the eigenvalue, or decades on a log
        axis. See `axis`.
        """
        return eigenvalue_to_coordinate(self.grid, self.axis, self.linear_below)

    def integral(self) -> float:
        """Return the integral of the density over `coordinate` by the trapezoidal rule."""
        return float(np.diff(self.coordinate) @ (self.density[1:] + self.density[:-1])) / 2

    def moment(self, power: int = 1) -> Estimate:
        """Estimate the mean of ``lam ** power`` over the spectrum, ``trace(H ** power) / n``.

        Parameters
        ----------
        power : int
            The power, at least 0. Up to twice the number of steps minus one, the quadrature adds no
            error to that of the probes.

        Returns
        -------
        Estimate
            The mean over the probes, with its standard error.

        Raises
        ------
        ValueError
            If `power` is not an integer >= 0, or the moment exceeds the range of float64.
        """
        if isinstance(power, bool) or not isinstance(power, numbers.Integral) or power < 0:
            raise ValueError(f"power must be an int >= 0, got {short_repr(power)}.")
        power = check_positive_int(power, "power", least=0)
        with np.errstate(over="ignore", invalid="ignore"):
            per_probe = (self.weights * self.nodes ** int(power)).sum(axis=1)
        if not np.isfinite(per_probe).all():
            raise ValueError(
                f"moment {power} must be within the range of float64, got an overflow. Scale the "
                "operator down, or use a smaller power."
            )
        return self._estimate_over_probes(per_probe, f"moment {power}", known=power == 0)

    def mass(self, low: float = -np.inf, high: float = 0.0) -> Estimate:
        """Estimate the fraction of eigenvalues in ``low < lam < high``.

        Parameters
        ----------
        low, high : float
            The ends of the interval, which may be infinite. By default the fraction of negative
            eigenvalues is estimated.

        Returns
        -------
        Estimate
            The fraction, with its standard error.

        Notes
        -----
        Nodes within `resolution` of an end count as equal to this end, so they are left out, and
        half of their weight is added to the standard error. Unless all eigenvalues are known, a
        node next to an end represents eigenvalues on both sides of the end. Half of the weight of
        the two nodes on either side of each end is therefore uncertain. This uncertainty is added
        to the standard error over the probes, which is NaN for a single probe. If there are only a
        few probes and all give equal results, they may have missed one eigenvalue of n, and the
        standard error is at least 1/n.
        """
        for name, end in (("low", low), ("high", high)):
            if not isinstance(end, numbers.Real) or np.isnan(check_real_number(end, name)):
                raise ValueError(
                    f"{name} must be a number, which may be infinite, got {short_repr(end)}."
                )
        low, high = float(low), float(high)
        per_probe, unsure = np.zeros(self.n_probes), np.zeros(self.n_probes)
        for i, (x, w) in enumerate(zip(self.nodes, self.weights)):
            per_probe[i] = w[(x > low + self.resolution) & (x < high - self.resolution)].sum()
            for end in (low, high):
                equal = np.abs(x - end) <= self.resolution
                unsure[i] += float(w[equal].sum())
                unsure[i] += 0.0 if self.exact else half_weight_around(x[~equal], w[~equal], end)
        estimate = self._estimate_over_probes(per_probe, "mass", known=True)
        one = 0.0 if self.exact or not has_rounding_scatter(per_probe) else 1 / max(1, self.n)
        stderr = np.hypot(estimate.stderr, max(unsure.mean() / 2, one))
        return replace(estimate, stderr=float(stderr))

    def wasserstein(self, other: Any) -> float:
        """Return the Wasserstein-1 distance to another density.

        Parameters
        ----------
        other : SpectralDensity or ndarray, shape (m,)
            The other density, or eigenvalues of equal weight.

        Returns
        -------
        float
            The area between the two cumulative distributions, in units of eigenvalues. It is
            computed from the quadratures, averaged over the probes, so grids and widths have no
            effect.

        Raises
        ------
        TypeError
            If `other` is an operator or another unsuitable object.

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
                "other must be a density, fc.spectral_density(H), or eigenvalues, got "
                f"{type_phrase(other)}."
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
        """Return the density from the same quadratures on another grid or axis, or with another
        width, without products.

        Parameters
        ----------
        axis : str, optional
            ``"linear"`` or ``"log"``. The default is the axis of this density.
        width : float, optional
            Standard deviation of the Gaussian on each node. This default and the next three are
            those of `fastcurv.spectral_density`; they are not taken from this density.
        grid : array_like, shape (k,), optional
            Eigenvalues at which the density is evaluated.
        n_grid : int
            Minimum number of points of the default grid.
        linear_below : float, optional
            Magnitude of eigenvalues below which the log axis is linear.

        Returns
        -------
        SpectralDensity
            A new density; this one is not changed.
        """
        smoothing = check_grid_options(
            self.axis if axis is None else axis, width, grid, n_grid, linear_below
        )
        return replace(
            self, **smooth_density(self.nodes, self.weights, **smoothing, unsure=not self.exact)
        )

    def merge(self, other: SpectralDensity) -> SpectralDensity:
        """Return the density from the probes of this density and of another density.

        Parameters
        ----------
        other : SpectralDensity
            A density of the same operator, from other probes.

        Returns
        -------
        SpectralDensity
            The density from all probes, with the axis and the width of this density, on a default
            grid.

        Raises
        ------
        ValueError
            If `other` is not a density of an operator with the same number of rows.
        """
        if not isinstance(other, SpectralDensity) or other.n != self.n:
            said = f"n = {other.n}" if isinstance(other, SpectralDensity) else type_phrase(other)
            raise ValueError(
                f"other must be a SpectralDensity of an operator with n = {self.n}, got {said}."
            )
        q = max(self.nodes.shape[1], other.nodes.shape[1])
        beside = [((0, 0), (0, q - d.nodes.shape[1])) for d in (self, other)]
        nodes = np.vstack([np.pad(d.nodes, b, "edge") for d, b in zip((self, other), beside)])
        weights = np.vstack([np.pad(d.weights, b) for d, b in zip((self, other), beside)])
        spread = smooth_density(
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
            orthogonality_loss=max(self.orthogonality_loss, other.orthogonality_loss),
            resolution=max(self.resolution, other.resolution),
            **spread,
        )

    def _estimate_over_probes(
        self, per_probe: np.ndarray, method: str, known: bool = False
    ) -> Estimate:
        """Return the `Estimate` of the mean of `per_probe`, one number for each probe. Its standard
        error is NaN if there are only a few probes and their numbers are equal up to rounding,
        unless the density is exact or `known` is True.
        """
        mean, stderr = mean_and_stderr(per_probe)
        if not (known or self.exact) and has_rounding_scatter(per_probe):
            stderr = float("nan")
        return Estimate(mean, stderr, self.n_products, method=method)

    def plot(self, ax: Any = None, *, band: float = 2.0, **line: Any) -> Any:
        """Plot the density by `fastcurv.SpectrumDisplay`, which can also plot eigenvalues. This
        method needs matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The Axes to draw in. If None, a new figure is created. It is a pyplot figure if the
            caller has imported pyplot, so that ``plt.show()`` displays it. Otherwise it has no
            window and works without a display and in threads.
        band : float
            Half-width of the band around the curve, in standard errors. If 0, no band is drawn.
        **line
            Further arguments of `SpectrumDisplay.plot`.

        Returns
        -------
        SpectrumDisplay
            The display, with the attributes ``ax_`` and ``figure_``. ``figure_.savefig(path)``
            writes the plot to a file.

        Raises
        ------
        TypeError
            If `ax` is not an Axes.
        """
        if ax is not None and not hasattr(ax, "plot"):
            raise TypeError(
                f"ax must be a matplotlib Axes, got {type_phrase(ax)}. Pass options by name, as in "
                "scale='log'."
            )
        return (
            load_module("applications.plots.spectrum")
            .SpectrumDisplay(self)
            .plot(ax, band=band, **line)
        )

    def __repr__(self) -> str:
        used = self.nodes[self.weights > 0]
        made = "all eigenvalues computed,"
        if not self.exact:
            made = f"{self.n_probes} probes, {self.nodes.shape[1]} nodes each"
        deflated = "" if self.exact else f"{self.n_deflated} deflated, "
        return (
            f"SpectralDensity: n = {self.n}, {made} on "
            f"[{format_number(used.min())}, {format_number(used.max())}], width "
            f"{format_number(self.width)} ({self.axis} axis), {deflated}{self.n_products} products"
        )


def half_weight_around(nodes: np.ndarray, weights: np.ndarray, end: float) -> float:
    """Return half the weight of the two nodes nearest to `end`, one on either side of `end`. This
    weight may represent eigenvalues on the other side. Return 0 if `end` is infinite or there are
    no nodes on one side.
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
