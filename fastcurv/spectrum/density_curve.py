"""The result of `spectral_density`: a quadrature for each probe, and quantities that are computed
from the quadratures without further products.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..common.checks import (
    check_array,
    check_positive_int,
    check_real_number,
    short_repr,
)
from ..common.errors import type_phrase
from ..common.html import TextReprHtmlMixin
from ..common.read_only import FrozenRecord
from .draw import (
    BAND_STANDARD_ERRORS,
    CURVE_COLOR,
    draw_density,
    new_pyplot_axes,
    sign_count_clause,
)
from .results import Estimate, format_number, has_rounding_scatter, mean_and_stderr
from .smoothing import check_grid_options, eigenvalue_to_coordinate, smooth_density


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity(FrozenRecord, TextReprHtmlMixin):
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
        low = float(low)
        high = float(high)
        per_probe = np.zeros(self.n_probes)
        unsure = np.zeros(self.n_probes)
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
        >>> d = fc.spectral_density(np.diag([1.0, 2.0, 3.0]), n_probes=2, n_steps=3, rng=0)
        >>> moved = fc.spectral_density(np.diag([2.0, 3.0, 4.0]), n_probes=2, n_steps=3, rng=0)
        >>> round(d.wasserstein(moved), 6), d.wasserstein(d)
        (1.0, 0.0)
        """
        from scipy.stats import wasserstein_distance

        if isinstance(other, SpectralDensity):
            values = other.nodes.ravel()
            weights = other.weights.ravel()
        elif hasattr(other, "matvec"):
            raise TypeError(
                "other must be a density, fc.spectral_density(H), or eigenvalues, got "
                f"{type_phrase(other)}."
            )
        else:
            values = np.ravel(check_array(other, "other", np.float64))
            weights = None
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

    def plot(
        self,
        ax: Any = None,
        *,
        band: float = BAND_STANDARD_ERRORS,
        scale: str = "log",
        label: str | None = None,
        color: Any = CURVE_COLOR,
    ) -> Any:
        """Plot the density. `fastcurv.SpectrumDisplay` can also plot eigenvalues. This method needs
        matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The Axes to draw in. Empty axes get a title with the number of negative eigenvalues. If
            None, a new figure of pyplot is created, so that ``plt.show()`` displays it.
        band : float
            Half-width of the band around the curve, in standard errors. If 0, no band is drawn.
        scale : {"log", "linear"}
            Scale of the density's axis.
        label : str or None
            Label of the line in the legend.
        color : colour
            Colour of the density.

        Returns
        -------
        matplotlib.axes.Axes
            The Axes with the plot. ``ax.figure.savefig(path)`` writes the plot to a file.

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
        ax = new_pyplot_axes() if ax is None else ax
        is_empty = not (ax.lines or ax.get_title())
        draw_density(self, ax, band=band, scale=scale, label=label, color=color)
        if is_empty:
            ax.set_title(sign_count_clause(self))
        return ax

    def __repr__(self) -> str:
        used = self.nodes[self.weights > 0]
        probes = f"{self.n_probes} probes, {self.nodes.shape[1]} nodes each"
        origin = "all eigenvalues computed," if self.exact else probes
        deflated = "" if self.exact else f"{self.n_deflated} deflated, "
        return (
            f"SpectralDensity: n = {self.n}, {origin} on "
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
    below = used & (nodes < end)
    above = used & (nodes >= end)
    if not below.any() or not above.any():
        return 0.0
    left = np.flatnonzero(below)[np.argmax(nodes[below])]
    right = np.flatnonzero(above)[np.argmin(nodes[above])]
    return 0.5 * float(weights[left] + weights[right])
