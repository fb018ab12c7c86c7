"""What the algorithms return: frozen, with every number next to its error and its price."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit

from .smoothing import smear, to_coordinate


def widened(m):
    """What a standard error from m samples is multiplied by, for two of them to cover 95%:
    Student's t over the normal.
    """
    return float(stdtrit(m - 1, 0.975) / 1.959964) if m > 1 else float("nan")


def number(x):
    """Four significant digits, for a repr."""
    return f"{float(x):.4g}"


@dataclass(frozen=True, repr=False, eq=False)
class Eigenpairs:
    """Eigenpairs of a symmetric operator, ascending, each with the residual that bounds its error.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Float64, ascending.
    vectors : ndarray, shape (n, k)
        Orthonormal columns in the same order, in the operator's dtype.
    residuals : ndarray, shape (k,)
        ``||H u - lam u||`` or an upper bound of it: an eigenvalue lies within ``residuals[i]`` of
        ``values[i]``.
    converged : ndarray of bool, shape (k,)
        Whether ``residuals`` are within the tolerance: ``tol * scale``, or ``tol * |lam|`` where
        that was asked for.
    n_products : int
        Products with the operator that were spent, in any precision.
    scale : float
        The largest ``|lam|`` seen: what the tolerance is relative to.
    tol : float
        The tolerance asked for.
    n_low : int
        How many of the products were made in float32 by ``precision="mixed"``.
    probed : bool
        Whether a second random start looked for copies of multiple eigenvalues that one start
        cannot see, or no copy could have changed the values.
    interrupted : bool
        True where Ctrl-C ended the run early.
    shared : str or None
        The name of the `Krylov` run whose products these are, where they are not this result's own.
    n_new : int or None
        How many of them were made for this result; None: all.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    n_products: int
    scale: float = 0.0
    tol: float = 0.0
    n_low: int = 0
    probed: bool = False
    interrupted: bool = False
    shared: "str | None" = None
    n_new: "int | None" = None

    def __len__(self):
        return len(self.values)

    def __repr__(self):
        head = (
            f"Eigenpairs: {len(self)} of n = {self.vectors.shape[0]}, {int(self.converged.sum())} "
            "converged to "
            f"{number(self.tol)} * {number(self.scale)}, {self.n_products} products"
        )
        head += ", interrupted" if self.interrupted else ""
        rows = [
            f"  {v: .8g}  +- {r:.1e}{'' if c else '   not converged'}"
            for v, r, c in zip(self.values, self.residuals, self.converged)
        ]
        if len(rows) > 24:
            rows[12:-12] = [f"  ... {len(rows) - 24} more"]
        return "\n".join([head, *rows])


@dataclass(frozen=True, repr=False, eq=False)
class Estimate:
    """A random estimate with its standard error and its price.

    Attributes
    ----------
    estimate : float or ndarray
        Unbiased, unless the function that made it says otherwise.
    stderr : float or ndarray
        Standard error over the random samples, same shape; 0 where the number is exact.
    n_products : int
        Applications of the operator, products and quadratic forms alike.
    n_quadratic : int
        How many of these were quadratic forms, at about half the price of a product.
    method : str
        What made it.
    """

    estimate: "float | np.ndarray"
    stderr: "float | np.ndarray"
    n_products: int
    n_quadratic: int = 0
    method: str = ""

    def __float__(self):
        return float(self.estimate)

    def __repr__(self):
        if np.ndim(self.estimate) == 0:
            text = f"{float(self.estimate):.8g} +- {float(self.stderr):.2g}"
        else:
            text = (
                f"shape {np.shape(self.estimate)}, stderr {number(np.mean(self.stderr))} on average"
            )
        method = f", {self.method}" if self.method else ""
        return f"Estimate({text}, {self.n_products} products{method})"


@dataclass(frozen=True, repr=False, eq=False)
class Inertia:
    """How many eigenvalues are positive, negative, and zero within `bound`.

    Unpacks into its three counts: ``n_positive, n_negative, n_zero = fc.inertia(H)``.

    Attributes
    ----------
    n_positive, n_negative : int
        Eigenvalues whose sign is proved: further from zero than their error.
    n_zero : int
        Those within their error of zero, whose sign is not known.
    bound : float
        No computed eigenvalue is further than this from its true value: the largest of `errors`.
    values : ndarray, shape (n,)
        The computed eigenvalues, ascending.
    n_products : int
    errors : ndarray, shape (n,)
        What each of them can be off by.
    """

    n_positive: int
    n_negative: int
    n_zero: int
    bound: float
    values: np.ndarray = field(default=None, compare=False)
    n_products: int = 0
    errors: np.ndarray = field(default=None, compare=False)

    def __iter__(self):
        return iter((self.n_positive, self.n_negative, self.n_zero))

    @property
    def index(self):
        """The number of negative eigenvalues over n."""
        return self.n_negative / max(1, sum(self))

    @property
    def minimum_ratio(self):
        """The number of positive eigenvalues over n."""
        return self.n_positive / max(1, sum(self))

    def __repr__(self):
        return (
            f"Inertia(n_positive={self.n_positive}, n_negative={self.n_negative}, "
            f"n_zero={self.n_zero}, "
            f"decided at {self.bound:.1e})"
        )


@dataclass(frozen=True, repr=False, eq=False)
class Extremes:
    """What an unrestarted Lanczos run from a random start knows of both ends of a spectrum.

    Attributes
    ----------
    lambda_min, lambda_max : float
        The outermost Ritz values: the true ends lie no further in, up to `error`.
    residual_min, residual_max : float
        An eigenvalue lies within this of each.
    lowest, highest : ndarray, shape (n,)
        Their unit vectors.
    n_negative, n_positive : int
        At least so many eigenvalues have that sign (Cauchy interlacing).
    error : float
        What rounding in vectors and algebra may have done to a Ritz value; the products' own comes
        on top.
    risk : float
        The probability, over the random start, that some eigenvalue lies below
        ``lambda_min - curvature_tol * (lambda_max - lambda_min)``; at most 1.648 sqrt(n)
        exp(-(2k-1) sqrt(tol)) after k products, and 0 for a Krylov space that filled the whole
        space.
    curvature_tol : float
    n_products, n_new, shared
        As in `Eigenpairs`.
    """

    lambda_min: float
    lambda_max: float
    residual_min: float
    residual_max: float
    lowest: np.ndarray
    highest: np.ndarray
    n_negative: int
    n_positive: int
    error: float
    risk: float
    curvature_tol: float
    n_products: int
    n_new: "int | None" = None
    shared: "str | None" = None

    def __repr__(self):
        return (
            f"Extremes: lambda_min {number(self.lambda_min)} +- {self.residual_min:.1e}, "
            "lambda_max "
            f"{number(self.lambda_max)} +- {self.residual_max:.1e}, at least {self.n_negative} "
            "negative and "
            f"{self.n_positive} positive, risk {self.risk:.2g} at {self.curvature_tol:g}, "
            f"{self.n_products} products"
        )


@dataclass(frozen=True, repr=False, eq=False)
class SpectralDensity:
    """Density of eigenvalues by stochastic Lanczos quadrature.

    Attributes
    ----------
    grid : ndarray, shape (p,)
        Eigenvalues at which the density is given.
    density, stderr : ndarray, shape (p,)
        Mean over the probes and its standard error; per unit of `coordinate`, with integral 1 over
        it.
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
    shared: "str | None" = None
    n_new: "int | None" = None

    @property
    def n_probes(self):
        return self.nodes.shape[0]

    @property
    def coordinate(self):
        """What the density is per unit of: the grid itself, or its decades; see `axis`."""
        return to_coordinate(self.grid, self.axis, self.linear_below)

    def integral(self):
        """The integral of the density over `coordinate` by the trapezoidal rule."""
        return float(np.trapezoid(self.density, self.coordinate))

    def moment(self, power=1):
        """Mean of ``lam ** power`` over the spectrum, ``trace(H ** power) / n``, as an `Estimate`."""
        return self._over_probes((self.weights * self.nodes**power).sum(axis=1), f"moment {power}")

    def mass(self, low=-np.inf, high=0.0):
        """The fraction of eigenvalues in ``low < lam < high``, as an `Estimate`.

        A node next to an end stands for eigenvalues on both sides of it, so half of the weight of
        the two nodes astride each end is uncertain; that is added to the standard error over the
        probes.
        """
        per_probe, unsure = np.zeros(self.n_probes), np.zeros(self.n_probes)
        for i, (x, w) in enumerate(zip(self.nodes, self.weights)):
            per_probe[i] = w[(x > low) & (x < high)].sum()
            unsure[i] = sum(astride(x, w, end) for end in (low, high))
        estimate = self._over_probes(per_probe, "mass")
        stderr = np.hypot(np.nan_to_num(estimate.stderr), unsure.mean() / 2)
        return replace(estimate, stderr=float(stderr))

    def wasserstein(self, values):
        """Wasserstein-1 distance from the quadrature to the eigenvalues `values`, each of equal
        weight.
        """
        from scipy.stats import wasserstein_distance

        return float(wasserstein_distance(self.nodes.ravel(), values, self.weights.ravel()))

    def regrid(self, *, axis=None, width=None, grid=None, n_grid=1024, linear_below=None):
        """The same quadrature on another grid, axis or width, for no product; arguments as in
        `spectral_density`.
        """
        from .smoothing import check_look

        look = check_look(self.axis if axis is None else axis, width, grid, n_grid, linear_below)
        return replace(self, **smear(self.nodes, self.weights, **look))

    def merge(self, other):
        """The density from the probes of both, which must be of one operator; on the grid of this
        one's making.
        """
        if not isinstance(other, SpectralDensity) or other.n != self.n:
            raise ValueError(
                "other is not a SpectralDensity of an operator of the same size; wanted one to "
                "merge with"
            )
        q = max(self.nodes.shape[1], other.nodes.shape[1])
        nodes, weights = [
            np.vstack(
                [
                    np.pad(getattr(d, name), ((0, 0), (0, q - d.nodes.shape[1])), mode)
                    for d in (self, other)
                ]
            )
            for name, mode in (("nodes", "edge"), ("weights", "constant"))
        ]
        spread = smear(
            nodes, weights, axis=self.axis, width=self.width, linear_below=self.linear_below
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

    def _over_probes(self, per_probe, method):
        n = len(per_probe)
        unit = float(np.abs(per_probe).max(initial=0.0)) or 1.0
        scatter = unit * float((per_probe / unit).std(ddof=1)) if n > 1 else np.nan
        stderr = widened(n) * scatter / n**0.5
        return Estimate(float(per_probe.mean()), stderr, self.n_products, method=method)

    def plot(self, ax=None, *, band=2.0, **line):
        """Draw the density with a band of `band` standard errors, named in its legend; needs
        matplotlib. `fastcurv.SpectrumDisplay` draws eigenvalues beside it.

        Where `ax` is None a new figure is made that belongs to no window and no global state, so
        this works without a display and in threads; ``.figure.savefig(path)`` of the result writes
        it.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from .picture import draw_density

        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()
        return draw_density(self, ax, band=band, **line)

    def __repr__(self):
        used = self.nodes[self.weights > 0]
        return (
            f"SpectralDensity: n = {self.n}, {self.n_probes} probes, {self.nodes.shape[1]} nodes "
            "each on "
            f"[{number(used.min())}, {number(used.max())}], width {number(self.width)} "
            f"({self.axis} axis), "
            f"{self.n_deflated} deflated, {self.n_products} products"
        )


def astride(nodes, weights, end):
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
    return 0.5 * (weights[left] + weights[right])
