"""The result of `spectral_density`: a quadrature for each probe, and quantities that are computed
from the quadratures without further products.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.checks import check_real_number, short_repr
from ..common.errors import type_phrase
from ..common.read_only import FrozenRecord
from .draw import (
    BAND_STANDARD_ERRORS,
    CURVE_COLOR,
    draw_density,
    new_pyplot_axes,
    sign_count_clause,
)
from .results import Estimate, format_number, has_rounding_scatter, mean_and_stderr
from .smoothing import eigenvalue_to_coordinate


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity(FrozenRecord):
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
        Magnitude of eigenvalues below which the log axis is linear, 1e-4 times the largest node.
    n_deflated : int
        Number of eigenvalues that enter the density exactly, as nodes of weight 1/n in all probes.
    resolution : float
        Bound on the rounding error of a node. Two eigenvalues within this distance, such as a node
        and the zeros that come from symmetries, cannot be distinguished.
    orthogonality_loss : float
        The largest ``|<q_i, q_j>|`` measured for two different Lanczos vectors. Spurious copies of
        eigenvalues (ghosts) can only appear if it is near 1.
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
        mean, spread = mean_and_stderr(per_probe)
        one = 0.0 if self.exact or not has_rounding_scatter(per_probe) else 1 / max(1, self.n)
        stderr = float(np.hypot(spread, max(unsure.mean() / 2, one)))
        return Estimate(mean, stderr, self.n_products, method="mass")

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
