"""Bounds on the errors of the rows of the Jacobian of a network's outputs."""

from __future__ import annotations

import numpy as np

from ..protocols import Floats
from .arithmetic import ETA, flushes
from .columns import Columns, Sized
from .rowwise import Rounding


def jacobian_bounds(R: Rounding) -> Floats:
    """Bounds ``(N d_out,)`` on the norms of the errors of the Jacobian's rows, by products with its
    transpose: ``J' u`` for the unit vector of one sample's output.

    Such a product is a backward pass of one row from delta = e_j; all other rows hold zeros, which
    round nothing.

    Parameters
    ----------
    R : Rounding
        At theta, without batch normalisation.
    """
    u, d_out, found = R.arithmetic.u, R.ob.model.sizes[-1], []
    sums = R.arithmetic.gamma(max(R.arithmetic.over_rows(1), R.arithmetic.over_columns()))
    with np.errstate(all="ignore"):
        known = Columns(R, "jacobian", gather=False)
        for s in R.states():
            sizes = known.sizes(s)
            zero = np.zeros((len(s.a[0]), 1))
            d, skip, known.peak = Sized(zero + 1.0, zero), None, zero + 1.0
            size = sum(known.lost(s, sizes, forward=False)) + ETA
            for l in range(len(R.W) - 1, -1, -1):
                size = np.hypot(size, known.rounded(d.times(*sizes["a"][l]), sums).error)
                size = np.hypot(size, known.rounded(d, sums).error)
                if l == 0:
                    continue
                e, _ = known.through(d, l, None)
                if R.skips[l] and skip is not None:
                    e = known.rounded(e + skip, u)
                skip, d = e, known.rounded(e.times(*sizes["p"][l - 1]), u)
            size = np.where(known.peak < R.arithmetic.max, size, np.inf)
            found.append(np.repeat(size[:, 0], d_out))
        tiny = R.arithmetic.tiny / R.arithmetic.u
        bounds = R.slack * np.concatenate(found) + tiny
    return np.where(np.isfinite(bounds) & (not R.overflow) & (not flushes()), bounds, np.inf)
