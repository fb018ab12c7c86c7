"""From quadrature nodes to a density on a grid: a Gaussian on every node, on a linear or a
logarithmic axis.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_array, check_choice, check_positive, check_positive_int
from ..protocols import Floats


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
    check_choice(axis, ("linear", "log"), "axis")
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
# the default grid goes this many widths past the outermost nodes: 1e-9 of a Gaussian lies beyond
REACH = 6.0


def to_coordinate(lam: ArrayLike, axis: str, linear_below: float) -> Floats:
    """Eigenvalues to the coordinate that a density is per unit of: decades of ``|lam|``, signed, on
    the log axis.
    """
    lam = np.asarray(lam, dtype=float)
    return lam if axis == "linear" else np.arcsinh(lam / linear_below) / np.log(10)


def from_coordinate(x: ArrayLike, axis: str, linear_below: float) -> Floats:
    """The inverse of `to_coordinate`."""
    x = np.asarray(x, dtype=float)
    return x if axis == "linear" else np.sinh(x * np.log(10)) * linear_below


def smear(
    nodes: Floats,
    weights: Floats,
    *,
    axis: str = "linear",
    width: float | None = None,
    grid: Floats | None = None,
    n_grid: int = 1024,
    linear_below: float | None = None,
) -> Smeared:
    """A density with integral 1 and its standard error over the probes.

    Parameters
    ----------
    nodes, weights : ndarray, shape (n_probes, q)
        Each row of weights sums to 1.
    axis, width, grid, n_grid, linear_below
        As in `spectral_density`.

    Returns
    -------
    dict
        ``grid, density, stderr, width, axis, linear_below``, the fields of `SpectralDensity` that
        they are.
    """
    used = nodes[weights > 0]
    if linear_below is None:
        linear_below = 1e-4 * float(np.abs(used).max(initial=0.0)) or 1.0
    x = to_coordinate(nodes, axis, linear_below)
    low, high = x[weights > 0].min(), x[weights > 0].max()
    size = max(abs(low), abs(high))
    finest = FINEST * n_grid * size
    if width is None:
        spread = high - low if high - low > ONE * size else 0.0
        width = 0.05 if axis == "log" else 0.01 * spread
        width = float(max(width, finest) if width else 1e-3 * size or 1e-3)
    elif grid is None and width < finest:
        raise ValueError(
            f"width is {width!r} and eigenvalues reach {size:.3g}; wanted at least {finest:.1g}, "
            f"which {n_grid} points of a grid resolve"
        )
    if grid is None:
        n_grid = max(n_grid, min(1 << 16, int(2 * (high - low + 2 * REACH * width) / width)))
        at = np.linspace(low - REACH * width, high + REACH * width, n_grid)
        grid = from_coordinate(at, axis, linear_below)
    else:
        grid = np.asarray(grid, dtype=float)
        at = to_coordinate(grid, axis, linear_below)
    per_probe = np.array([_gaussians(at, xi[w > 0], w[w > 0], width) for xi, w in zip(x, weights)])
    n_probes = len(per_probe)
    unit = float(per_probe.max(initial=0.0)) or 1.0
    stderr = (
        unit * ((per_probe / unit).std(axis=0, ddof=1) / n_probes**0.5)
        if n_probes > 1
        else np.full(len(at), np.nan)
    )
    return {
        "grid": grid,
        "density": per_probe.mean(axis=0),
        "stderr": stderr,
        "width": float(width),
        "axis": axis,
        "linear_below": float(linear_below),
    }


def _gaussians(at: Floats, x: Floats, w: Floats, width: float) -> Floats:
    """The sum of Gaussians of weights `w` at `x`, evaluated at `at`."""
    total = np.zeros(len(at))
    for xi, wi in zip(x, w):
        total += wi * np.exp(-0.5 * ((at - xi) / width) ** 2)
    total /= width * (2 * np.pi) ** 0.5
    return total
