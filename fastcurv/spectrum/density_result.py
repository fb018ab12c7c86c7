"""The result of `spectral_density`: a quadrature per probe, and what can be asked of it for no
product.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..answers import typed
from ..checks import check_array
from .results import Estimate, InOneLine, alike, mean_of, number
from .smoothing import check_look, smear, to_coordinate


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity(InOneLine):
    """Density of eigenvalues by stochastic Lanczos quadrature.

    Attributes
    ----------
    grid : ndarray, shape (p,)
        Eigenvalues at which the density is given.
    density, stderr : ndarray, shape (p,)
        Mean over the probes and its standard error; per unit of `coordinate`, with integral 1 over
        it. NaN where fewer than 12 probes are all alike: that shows nothing.
    nodes, weights : ndarray, shape (n_probes, q)
        The quadrature of each probe; each row of weights sums to 1. Rows that ended early are
        padded with weight 0.
    n_products : int
    n : int
        Size of the operator.
    width : float
        Standard deviation of the Gaussian put on each node, in units of `coordinate`.
    axis : str
        ``"linear"``: the coordinate is the eigenvalue. ``"log"``: it is ``asinh(lam / linear_below)
        / log(10)``, decades of ``|lam|`` on either side of zero, linear below `linear_below`.
    linear_below : float
    n_deflated : int
        Eigenvalues that are in the density exactly, as nodes of weight 1/n common to all probes.
    ghosts : float
        The largest ``|<q_i, q_j>|``, i != j, among Lanczos vectors measured: ghosts need this to be
        near 1.
    shared : str or None
        The name of the `Krylov` run whose products these are.
    n_new : int or None
        How many of them were made for this result; None: all.
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

    @property
    def n_probes(self) -> int:
        """How many random vectors it rests on."""
        return len(self.nodes)

    @property
    def _exact(self) -> bool:
        """Whether every eigenvalue is known."""
        return 0 < self.n <= self.n_deflated

    @property
    def coordinate(self) -> np.ndarray:
        """What the density is per unit of: the grid itself, or its decades; see `axis`."""
        return to_coordinate(self.grid, self.axis, self.linear_below)

    def integral(self) -> float:
        """The integral of the density over `coordinate` by the trapezoidal rule."""
        return float(np.diff(self.coordinate) @ (self.density[1:] + self.density[:-1])) / 2

    def moment(self, power: int = 1) -> Estimate:
        """Mean of ``lam ** power`` over the spectrum, ``trace(H ** power) / n``, as an
        `Estimate`; for whole powers from 0 to twice the number of steps less one, of which
        quadrature adds no error to that of the probes.
        """
        if isinstance(power, bool) or not isinstance(power, numbers.Integral) or power < 0:
            raise ValueError(f"power is {power!r}; wanted an int >= 0")
        with np.errstate(over="ignore", invalid="ignore"):
            per_probe = (self.weights * self.nodes ** int(power)).sum(axis=1)
        if not np.isfinite(per_probe).all():
            raise ValueError(
                f"moment {power} is beyond float64; wanted an operator scaled down, or less power"
            )
        return self._over_probes(per_probe, f"moment {power}", known=power == 0)

    def mass(self, low: float = -np.inf, high: float = 0.0) -> Estimate:
        """The fraction of eigenvalues in ``low < lam < high``, as an `Estimate`.

        A node next to an end stands for eigenvalues on both sides of it, so half of the weight of
        the two nodes astride each end is uncertain; that is added to the standard error over the
        probes, which one probe does not tell: NaN. Few probes that are all alike may miss one
        eigenvalue of n.
        """
        for name, end in (("low", low), ("high", high)):
            if not isinstance(end, numbers.Real) or np.isnan(end):
                raise ValueError(f"{name} is {end!r}; wanted a number, which may be infinite")
        per_probe, unsure = np.zeros(self.n_probes), np.zeros(self.n_probes)
        for i, (x, w) in enumerate(zip(self.nodes, self.weights)):
            per_probe[i] = w[(x > low) & (x < high)].sum()
            unsure[i] = sum(astride(x, w, end) for end in (low, high))
        estimate = self._over_probes(per_probe, "mass", known=True)
        one = 0.0 if self._exact or not alike(per_probe) else 1 / max(1, self.n)
        stderr = np.hypot(estimate.stderr, max(unsure.mean() / 2, one))
        return replace(estimate, stderr=float(stderr))

    def wasserstein(self, other: Any) -> float:
        """Wasserstein-1 distance to another density, or to eigenvalues ``(m,)`` of equal weight.

        The area between the two distributions of eigenvalues, in their unit; both are taken at
        their quadratures, the mean over the probes, so grids and widths do not matter.

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
        """The same quadrature on another grid, axis or width, for no product; arguments as in
        `spectral_density`.
        """
        look = check_look(self.axis if axis is None else axis, width, grid, n_grid, linear_below)
        return replace(self, **smear(self.nodes, self.weights, **look, unsure=not self._exact))

    def merge(self, other: SpectralDensity) -> SpectralDensity:
        """The density from the probes of both, which must be of one operator; on the grid of this
        one's making.
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
            unsure=not (self._exact and other._exact),
        )
        return replace(
            self,
            nodes=nodes,
            weights=weights,
            n_products=self.n_products + other.n_products,
            n_deflated=min(self.n_deflated, other.n_deflated),
            ghosts=max(self.ghosts, other.ghosts),
            **spread,
        )

    def _over_probes(self, per_probe: np.ndarray, method: str, known: bool = False) -> Estimate:
        mean, stderr = mean_of(per_probe)
        if not (known or self._exact) and alike(per_probe):
            stderr = float("nan")
        return Estimate(mean, stderr, self.n_products, method=method)

    def plot(self, ax: Any = None, *, band: float = 2.0, **line: Any) -> Any:
        """Draw the density with a band of `band` standard errors, named in its legend; needs
        matplotlib. `fastcurv.SpectrumDisplay` draws eigenvalues beside it.

        Where `ax` is None a new figure is made: one of pyplot's where the caller has imported
        pyplot, so that ``plt.show()`` shows it, and elsewhere one that belongs to no window, which
        works without a display and in threads; ``.figure.savefig(path)`` of the result writes it.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from .picture import draw_density, new_axes

        if ax is not None and not hasattr(ax, "plot"):
            raise TypeError(f"ax is {typed(ax)}; wanted Axes of matplotlib, or scale='log'")
        return draw_density(self, new_axes() if ax is None else ax, band=band, **line)

    def __repr__(self) -> str:
        used = self.nodes[self.weights > 0]
        return (
            f"SpectralDensity: n = {self.n}, {self.n_probes} probes, {self.nodes.shape[1]} nodes "
            "each on "
            f"[{number(used.min())}, {number(used.max())}], width {number(self.width)} "
            f"({self.axis} axis), "
            f"{self.n_deflated} deflated, {self.n_products} products"
        )


def astride(nodes: np.ndarray, weights: np.ndarray, end: float) -> float:
    """Weight of the nearest node on each side of `end`, which may belong to eigenvalues on the
    other side.
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
