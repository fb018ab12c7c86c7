"""From quadrature nodes to a density on a grid: a Gaussian on every node, on a linear or a
logarithmic axis.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import check_array, check_choice, check_positive, check_positive_int
from ..common.protocols import Axis, Floats
from .results import has_rounding_scatter


def check_grid_options(
    axis: str, width: float | None, grid: ArrayLike | None, n_grid: int
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
    }


# minimum width of a Gaussian, relative to the product of the number of grid points and the largest
# coordinate of a node, at which float64 resolves the grid
MIN_RELATIVE_WIDTH = float(np.finfo(np.float64).eps) / 4
# Nodes whose range, relative to the largest node, is at most this value count as one eigenvalue.
EQUAL_NODES_TOL = 1e-13
# minimum width of a Gaussian; the density of a narrower Gaussian could overflow float64
MIN_WIDTH = 1e-300
MAX_FLOAT = float(np.finfo(np.float64).max)
MIN_NORMAL = float(np.finfo(np.float64).tiny)
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
    unsure: bool = True,
) -> dict[str, Any]:
    """Compute a density with integral 1, as the mean over the probes, and its standard error.

    Parameters
    ----------
    nodes, weights : ndarray, shape (n_probes, q)
        The quadrature of each probe. Each row of weights sums to 1.
    axis, width, grid, n_grid
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
    largest = float(np.abs(nodes[weights > 0]).max(initial=0.0))
    linear_below = max(1e-4 * largest, MIN_NORMAL) if largest else 1.0
    # Sums are computed in units of a power of two, in which no sum overflows or underflows.
    exponent = 0
    if axis == "linear" and largest:
        reach = 0.0 if grid is None else float(np.abs(grid).max())
        exponent = int(np.frexp(max(largest, width or 0.0, reach, MIN_WIDTH))[1])
    x = np.ldexp(eigenvalue_to_coordinate(nodes, axis, linear_below), -exponent)
    low = x[weights > 0].min()
    high = x[weights > 0].max()
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
