"""The search for negative curvature at a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.checks import operator_dtype
from ..common.protocols import Differentiable, Probed
from ..critical.evidence import as_gradient
from ..krylov.lanczos import as_product
from ..krylov.trust_region import KrylovSpace
from .line_search import rounding_of


def lowest_curvature(
    op: Any,
    rng: Any,
    starts: Any = (),
    *,
    max_products: int = 200,
    stop: Any = None,
    accuracy: float = 0.05,
) -> tuple[float, np.ndarray, float, int]:
    """The lowest Ritz pair from a random start and `starts`, stopped as soon as it is clearly
    negative.

    Parameters
    ----------
    starts : sequence of (n,) arrays
        Where negative curvature is suspected; random probes alone miss nothing with probability 1,
        these are quicker.
    max_products : int
        An end for surfaces without negative curvature.
    stop : callable, optional
        True ends the search: the budget of a run.
    accuracy : float
        The pair is taken once ``residual <= accuracy * |curvature|`` and the curvature is below its
        rounding bound.

    Returns
    -------
    curvature : float
        v'Hv.
    v : (n,) unit vector
    rounding : float
        Negative curvature is taken for real where ``v'Hv < -rounding``.
    n_products : int
    """
    n, dtype = op.shape[0], operator_dtype(op)
    limit = min(n, max_products)
    space = KrylovSpace(n, dtype, min(n, limit + 2 + len(starts)))
    random = rng.standard_normal(n).astype(dtype)
    kept = [np.asarray(v, dtype=dtype) for v in starts if np.any(v)]
    space.start(as_product(op), random, kept)
    look_at = 1 + len(kept)
    while True:
        space.extend()
        ending = space.exhausted or space.m >= limit or (stop is not None and stop())
        if space.m < look_at and not ending:
            continue
        look_at = space.m + 1 + space.m // 6
        curvature, residual, u = space.lowest()
        size = float(np.max(np.abs(space.ritz()[0])))
        if ending or (curvature < -1e-9 * size and residual <= accuracy * abs(curvature)):
            v = space.combine(u)
            v /= v.dtype.type(np.linalg.norm(v))
            rounding = rounding_of(v, size)
            if ending or curvature < -rounding:
                return curvature, v, rounding, space.m


def suspects(ob: Any, theta: np.ndarray, H: Any, g: Any = None) -> list[np.ndarray]:
    """Start vectors in which negative curvature may show early: the gradient, where it is known as
    `g` or from H at no price, and the objective's probes.
    """
    g = getattr(H, "gradient", None) if g is None else g
    if g is None and isinstance(ob, Differentiable):
        g = as_gradient(ob.gradient(theta), theta.size, None)
    starts = [] if g is None else [np.asarray(g)]
    if isinstance(ob, Probed):
        probes = np.asarray(ob.probes(theta))
        starts.extend(probes[:, j] for j in range(min(probes.shape[1], 4)))
    return starts
