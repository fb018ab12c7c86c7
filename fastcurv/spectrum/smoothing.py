"""From quadrature nodes to a density on a grid: a Gaussian on every node, on a linear or a
logarithmic axis.
"""

from __future__ import annotations

from typing import TypedDict, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_array, check_choice, check_positive, check_positive_int
from ..protocols import Axis, Floats
from .results import alike


class Look(TypedDict):
    """How a density is to be drawn: the keyword arguments of `smear`, checked."""

    axis: str
    grid: Floats | None
    n_grid: int
    width: float | None
    linear_below: float | None


class Smeared(TypedDict):
    """What `smear` makes: the fields of `SpectralDensity` that say how it is drawn."""

    grid: Floats
    density: Floats
    stderr: Floats
    width: float
    axis: str
    linear_below: float


def check_look(
    axis: str, width: float | None, grid: ArrayLike | None, n_grid: int, linear_below: float | None
) -> Look:
    """The keyword arguments of `smear`, checked."""
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
        "n_grid": check_positive_int(n_grid, "n_grid"),
        "width": None if width is None else check_positive(width, "width"),
        "linear_below": None
        if linear_below is None
        else check_positive(linear_below, "linear_below"),
    }


FINEST = float(np.finfo(np.float64).eps) / 4  # of the largest node: what a width is for each point
ONE = 1e-13  # nodes this close, as a share of the largest, are one eigenvalue
# a Gaussian narrower than that has densities beyond float64, or nearly so
NARROWEST = 1e-300
HUGE, TINY = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
# the default grid goes this many widths past the outermost nodes: 1e-9 of a Gaussian lies beyond
REACH = 6.0


def to_coordinate(lam: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Eigenvalues to the coordinate that a density is per unit of: decades of ``|lam|``, signed, on
    the log axis.
    """
    lam = np.asarray(lam, dtype=float)
    if axis == "linear":
        return lam
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.arcsinh(lam / linear_below)
        far = np.sign(lam) * (np.log(np.abs(lam)) - np.log(linear_below / 2))
    return np.asarray(np.where(np.isfinite(near), near, far) / np.log(10))


def from_coordinate(x: ArrayLike, axis: str, linear_below: float) -> Floats:
    """The inverse of `to_coordinate`."""
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
) -> Smeared:
    """A density with integral 1 and its standard error over the probes.

    Parameters
    ----------
    nodes, weights : ndarray, shape (n_probes, q)
        Each row of weights sums to 1.
    axis, width, grid, n_grid, linear_below
        As in `spectral_density`.
    unsure : bool
        Whether few probes that are all `alike` leave the standard error unknown: NaN.

    Returns
    -------
    dict
        ``grid, density, stderr, width, axis, linear_below``, the fields of `SpectralDensity` that
        they are.
    """
    used = nodes[weights > 0]
    largest = float(np.abs(used).max(initial=0.0))
    if linear_below is None:
        linear_below = max(1e-4 * largest, TINY) if largest else 1.0
    # worked on in units of a power of two, in which no sum leaves the range
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
    """A hundredth of the nodes' spread, or a twentieth of a decade; at least what shows."""
    width = 0.05 if axis == "log" else 0.01 * spread if spread > ONE * size else 0.0
    return float(max(width, finest) if width else 1e-3 * size or 1e-3)


def _gaussians(at: Floats, x: Floats, w: Floats, width: float) -> Floats:
    """The sum of Gaussians of weights `w` at `x`, evaluated at `at`."""
    total = np.zeros(len(at))
    with np.errstate(over="ignore"):  # far beyond the Gaussian
        for xi, wi in zip(x, w):
            total += wi * np.exp(-0.5 * ((at - xi) / width) ** 2)
    total /= width * (2 * np.pi) ** 0.5
    return total
