"""Bounds on the rounding errors of gradients and curvature products of a network.

Every computed quantity is accompanied by a bound on its error, in the order of the passes: z, a,
phi', phi'' forward, delta and e phi'' backward; then for a vector v, rz and ra forward, rdelta
backward; then the sums over rows.

Model [1]_. One operation: ``fl(x op y) = (x op y)(1 + t) + h``, ``|t| <= u``, ``|h| <= eta`` (the
smallest subnormal number, in products only). A sum of products whose numbers pass through at most D
roundings each, in any order and with or without fused multiply-adds, is off by at most ``gamma(D)
|x|'|y| + D eta``, ``gamma(D) = D u / (1 - D u)``. `Arithmetic` gives D for the kernels: slices of
at most 256 (float32) or 128 numbers, then the slices, then panels, groups and chunks of rows. `Phi`
and `LossRows` hold the error bounds of phi, its derivatives and the loss rows.

Local errors, with the operands' own errors d: for ``z = a W' + b``

    |local| <= gamma ((|a| + |da|) |W|' + |b|)               entry by entry, one more matrix product

and likewise for ``rz = ra W' + a V' + vb``, ``e = delta W``, ``re = rdelta W + delta V``; for
elementwise steps u times the terms. D eta is added wherever two factors are not 0 (`linear`,
`Num`), however small their computed product is; otherwise 0 is exact, so that units that are off
stay off, and no kink is reported where z is 0 exactly.

Propagated errors. An error x (a row) is bounded in three ways at once, and after each step the
smallest bound is taken:

    |(x W')_j| <= min( (|x| |W|')_j, ||x|| ||w_j|| )                     entry by entry (`Err.E`)
    ||x W'||   <= ||W||_2 ||x||                                     by rows, one layer (`Err.nu`)
    ||dx_m||  <= sum over i <= m of ||A_m ... A_(i+1)||_2 ||fresh_i||  by rows, all layers (`Chain`)

The first does not depend on how units are scaled. The second does not grow with depth as ``|| |W|
||_2``, about ``sqrt(width) ||W||_2``, does. In the third, ``A_l = diag(phi'(z_l)) W_l [+ I]`` for
each row, fresh_i is the error that enters at layer i, and the same norms serve in the backward
pass, through the transposes: this keeps the bounds of deep nets useful, if the network is small
enough for one matrix per row (`JOINT_FLOPS`). Through ``a = phi(z)`` go ``|phi'| |dz| + S2 |dz|^2 /
2`` and so on: second order is bounded, not left out, with the largest phi'' and phi''' between z -
dz and z + dz; where that interval holds a kink, the jump of phi' is an error too. A product x * y
of two inexact matrices is off by ``|dx| (|y| + |dy|) + |x| |dy|``.

Sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``. The bound of each term x'y is
the smaller of

    || gamma |x|'|y| + |dx|'|y| + |x|'|dy| ||_F     entry by entry, one Frobenius norm for the layer
    gamma sum ||x_n|| ||y_n||  +  min( sum ||dx_n|| ||y_n||, ||dx||_F ||y||_2 )  +  the same with x
    and y exchanged

where n is a row and ``||y||_2`` the spectral norm over all rows, from a Gram matrix of the state at
theta. Layers are independent parts of the vector: their bounds are added as squares.

The passes here run in float64. Where the engine does too, their own rounding, and in any case
roundings of errors, change the bound by a relative ``O(L 64 u)``, for which room is left
(`ErrorPass.slack`). No product of sizes is rounded down where it underflows (`scaled`, `product`,
`norms`). Overflow anywhere, of the engine's numbers or of these, gives an infinite bound; so does
an environment that flushes subnormal numbers to 0 (`flushes`), in which eta does not bound the
underflow of a step.

Measured. For a float32 engine the float64 passes give the result itself, with a bound of the same
kind but u = 2^-53: then ``||computed - ours||`` plus that bound bounds the error of that one
result, hundreds to millions of times more sharply than any a priori bound.
`Objective.rounding_bound` and `Curvature.rounding_bound` do so; `gradient_bound` and
`product_bound` are a priori bounds on the error of any result.

References
----------
.. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM, 2002, ch. 2 and
       3 (eqs. 2.4, 2.8, 3.5, 3.13).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .columns import column_bounds
from .passes import ErrorPass


def dense_bounds(
    ob: Any, theta: ArrayLike, layout: Mapping[str, Any] | None = None, kind: str = "hessian"
) -> NDArray[np.float64]:
    """Return bounds ``(n,)`` on ``||computed(A e_j) - A e_j||`` for every unit vector."""
    return column_bounds(ErrorPass(ob, theta, layout), kind)


def product_bound(ob: Any, theta: ArrayLike, v: ArrayLike, kind: str = "hessian") -> float:
    """Return a bound on ``||computed(A v) - A v||_2`` for the engine's products, A the Hessian, the
    GGN or the empirical Fisher.

    Parameters
    ----------
    ob : Objective
    theta, v : array_like (n,)
    kind : {"hessian", "ggn", "fisher"}

    Returns
    -------
    float
        Infinite where overflow cannot be ruled out. Cost: the time of 50 to 300 of the engine's
        products, since it runs in NumPy; for several vectors at one theta, `ErrorPass` costs that
        of 15 to 50 products each.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> model = fc.MLP([4, 8, 3], dtype="float32")
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    >>> ob = fc.Objective(model, X, y)
    >>> theta, v = model.init(seed=0), rng.standard_normal(model.n_params).astype("float32")
    >>> error = np.linalg.norm(ob.hessian(theta) @ v - ob.astype("float64").hessian(theta) @ v)
    >>> bool(error < product_bound(ob, theta, v) < 1e4 * error)
    True
    """
    return ErrorPass(ob, theta).product(v, kind)


def gradient_bound(ob: Any, theta: ArrayLike) -> float:
    """Return a bound on ``||computed gradient - gradient||_2`` at theta.

    Cost: about 10 gradients' arithmetic, in NumPy.
    """
    return ErrorPass(ob, theta).gradient()
