"""A loss over one plane of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_vector
from ..protocols import Array
from .style import new_axes

ALIKE = 1e-8  # the sine of an angle: no picture shows less, and rounding leaves it far below


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
    """Level lines of a function of two numbers.

    Parameters
    ----------
    function : callable
        ``function(x, y) -> float``, called at each point of an n by n grid.
    xlim, ylim : (float, float)
    ax : matplotlib Axes or None
    n, levels : int
        Grid points along each axis, and number of levels.
    log : bool
        Whether levels are spread evenly over the logarithm; for functions that stay positive.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax, figsize=(5.6, 4.6))
    x, y = np.linspace(xlim[0], xlim[1], n), np.linspace(ylim[0], ylim[1], n)
    z = np.array([[function(a, b) for a in x] for b in y], dtype=float)
    level_lines(ax, x, y, z, levels=levels, log=log)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def level_lines(ax: Any, x: Array, y: Array, z: Array, *, levels: int, log: bool) -> None:
    """A loss z ``(y, x)`` as colours with lines between them and a bar that says what they are."""
    from matplotlib.ticker import MaxNLocator

    z = np.log10(np.maximum(z, z.max() * 1e-12)) if log else z
    filled = ax.contourf(x, y, z, levels=levels, cmap="cividis")
    ax.contour(x, y, z, levels=levels, colors="white", linewidths=0.3, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, ticks=MaxNLocator(8, steps=[1, 2, 5, 10]))
    bar.set_label(r"$\log_{10}$ of the loss" if log else "loss")
    _few_ticks(ax)


def _few_ticks(ax: Any) -> None:
    """Numbers below a plane, beside whose bar there is little room, at some five places; small
    and large ones with their power of ten at the end of the axis.
    """
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    for axis in (ax.xaxis, ax.yaxis):
        numbers = ScalarFormatter()
        numbers.set_powerlimits((-2, 4))
        axis.set_major_formatter(numbers)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def plane(
    objective: Any,
    theta: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    radius: float | tuple[float, float] = 1.0,
    ax: Any = None,
    **options: Any,
) -> Any:
    """The loss on the plane through ``theta`` along two directions; costs one forward pass per grid
    point.

    Parameters
    ----------
    objective : has ``value(theta)``
    theta, first, second : (n,) arrays
        The second direction is made orthogonal to the first; both are scaled to unit length, and
        must span a plane.
    radius : float or (float, float)
        Half width of the picture along each direction.
    ax : matplotlib Axes or None
    **options
        As for `surface`.

    Returns
    -------
    matplotlib Axes
    """
    theta = np.asarray(theta, dtype=float)
    u, w = _orthonormal(
        check_vector(first, theta.size, "first", np.float64),
        check_vector(second, theta.size, "second", np.float64),
    )
    rx, ry = np.broadcast_to(radius, 2)
    looks: dict[str, Any] = {
        "n": 41,
        "xlabel": "along the first direction",
        "ylabel": "along the second direction",
    } | options
    return surface(
        lambda a, b: objective.value(theta + a * u + b * w), (-rx, rx), (-ry, ry), ax, **looks
    )


def _orthonormal(first: Array, second: Array) -> tuple[Array, Array]:
    """Two directions of length 1 at right angles, in the plane of those that are given."""
    for name, direction in (("first", first), ("second", second)):
        if not direction.any():
            raise ValueError(f"{name} is zero; wanted a direction that leads somewhere")
    if sine(first, second) <= ALIKE:
        raise ValueError("first and second lie along one line; wanted two that span a plane")
    u = first / np.linalg.norm(first)
    w = second - u * (u @ second)
    return u, w / np.linalg.norm(w)


def sine(first: Array, second: Array) -> float:
    """Of the angle between two directions that are not zero; none up to `ALIKE` spans a plane."""
    u, w = (v / np.abs(v).max() for v in (first, second))
    u, w = u / np.linalg.norm(u), w / np.linalg.norm(w)
    return float(np.linalg.norm(w - u * (u @ w)))
