"""Bounds on the rounding errors of gradients, products and matrices, and the proved statements of
an objective.

The functions are entered by the exact class of their argument, since a subclass may compute
something else. `rounding_bound` and the subpackages below look them up by
`fastcurv.common.protocols.capability`.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from ..common.protocols import (
    Array,
    Floats,
    capability,
    missing_bound_reason,
    register,
)
from ..common.runtime import with_nearest_rounding
from ..common.vectors import safe_norm
from ..network.arguments import as_vector
from ..network.linear_operator import OperatorSum
from ..network.objective import Objective
from ..network.operators import Curvature, CurvatureBlock, Jacobian
from .certificates import Certificates, ForwardCertificates
from .dense_hessian import EnclosedHessian, enclosed_hessian, enclosed_jacobian
from .passes import ErrorPass


def rounding_bound(x: object, v: ArrayLike) -> float | None:
    """Return a bound on the norm of the rounding error of an objective's gradient at v, or of the
    product of an operator with v.

    Parameters
    ----------
    x : Objective, Curvature, or an object with a method ``rounding_bound(v)``
        A block has the bounds of its operator, a sum those of its terms. The method must be defined
        in the body of the object's own class.
    v : array_like (n,)
        The point theta, or the vector that is multiplied.

    Returns
    -------
    float or None
        The bound; None if the loss, an activation or the class of the model is user-defined, if the
        rows are sparse or in blocks, or if x is of a class of the user's without the method. In
        float32 the result is compared with a float64 pass, so the bound is close to the actual
        error. In float64 the bound is a worst case. The cost is that of about 10 gradients in
        NumPy, and less for further products at the same theta.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from fastcurv.certify import rounding_bound
    >>> ob = fc.Objective(fc.MLP([2, 1]), [[1.0, 2.0]], [1.0], loss="mse")
    >>> H = ob.hessian(np.ones(3))
    >>> rounding_bound(ob, np.ones(3)) < 1e-13, rounding_bound(H, np.ones(3)) < 1e-13
    (True, True)
    """
    bound = capability(x, "rounding_bound")
    return None if bound is None else bound(v)


def assembled(op: Any) -> Any:
    """Return the matrix of an operator in float64 with bounds on its errors, or None if none is
    known: an `EnclosedHessian` for a Hessian or GGN, the pair of a matrix and of bounds on the
    norms of its rows for a Jacobian.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> ob = fc.Objective(fc.MLP([2, 1]), [[1.0, 2.0]], [1.0], loss="mse")
    >>> H = ob.hessian(np.ones(3))
    >>> matrix = assembled(H)
    >>> bool(np.allclose(matrix.A, H.to_dense())), bool(matrix.error_bound() < 1e-12)
    (True, True)
    """
    assemble = capability(op, "assembled")
    return None if assemble is None else assemble()


@register("certificates", Objective)
def certificates(ob: Objective, unproved: str) -> ForwardCertificates:
    """Return the proved statements about the loss of an objective near theta, those of forward
    passes alone if there is a reason `unproved`; see `Objective.certificates`.
    """
    return ForwardCertificates(ob) if unproved else Certificates(ob)


@register("rounding_bound", Objective)
@with_nearest_rounding
def gradient_rounding_bound(ob: Objective, theta: ArrayLike) -> float | None:
    """Return a bound on the norm of the error of ``ob.gradient(theta)``."""
    if ob.why_unproved:
        return None
    bounds = ErrorPass(ob, theta, None, ob.dtype == np.float32)
    return float(bounds.gradient_error_bound(ob.gradient(theta) if bounds.measured else None))


# the `ErrorPass` of each operator, as long as the operator lives
_ERRORS_OF_PRODUCTS: WeakKeyDictionary[Curvature, ErrorPass] = WeakKeyDictionary()


def _product_errors(H: Curvature) -> ErrorPass:
    errors = _ERRORS_OF_PRODUCTS.get(H)
    if errors is None:
        ob = H.objective
        errors = ErrorPass(ob, H.theta, H.layout, ob.dtype == np.float32)
        _ERRORS_OF_PRODUCTS[H] = errors
    return errors


def _uncounted_product(H: Curvature, v: Array) -> Array:
    """Return ``H v`` without counting the product, which belongs to a bound."""
    count = H.n_products
    product = H.product(v)
    H.n_products = count
    return product


@register("rounding_bound", Curvature)
@with_nearest_rounding
def product_rounding_bound(H: Curvature, v: ArrayLike) -> float | None:
    """Return a bound on the norm of the error of ``H @ v``."""
    if H.why_unproved:
        return None
    v = as_vector(v, H.shape[0], H.dtype)
    errors = _product_errors(H)
    computed = _uncounted_product(H, v) if errors.measured else None
    return float(errors.product_error_bound(v, H.kind, computed))


@register("rounding_bound", CurvatureBlock)
@with_nearest_rounding
def block_rounding_bound(B: CurvatureBlock, v: ArrayLike) -> float | None:
    """Return a bound on the norm of the error of ``B @ v``, for a principal block B."""
    if B.why_unproved:
        return None
    x = as_vector(v, B.shape[0], B.dtype)
    whole: Curvature = B.whole
    full = np.zeros(whole.shape[0], B.dtype)
    full[B.indices] = x
    if B.dtype != np.float32:
        return product_rounding_bound(whole, full)
    computed = _uncounted_product(whole, full)  # the block's own passes round differently
    count = B.n_products
    computed[B.indices] = B.product(x)
    B.n_products = count
    return float(_product_errors(whole).product_error_bound(full, B.kind, computed))


@register("rounding_bound", OperatorSum)
@with_nearest_rounding
def sum_rounding_bound(S: OperatorSum, v: ArrayLike) -> float | None:
    """Return a bound on the norm of the error of ``(c_1 H_1 + ... + mu I) @ v``: the bounds for the
    H_i times c_i, plus the roundings of the multiples and of their sum.
    """
    v = as_vector(v, S.shape[0], S.dtype)
    info = np.finfo(S.dtype)
    u = 0.5 * float(info.eps)
    length = safe_norm(v)
    count = len(S.terms) + 1
    mu = float(S.dtype.type(S.mu))
    moved = abs(S.mu) * length
    total, errors, cast = moved, 3 * u * moved, abs(S.mu - mu) * length
    products = int(mu != 0)
    for index, (c, H) in enumerate(S.terms):
        bound = None if missing_bound_reason(H) else rounding_bound(H, v)
        if bound is None:
            return None
        size = safe_norm(np.asarray(H.product(v)))
        scaled = c != 1
        products += scaled
        cast += abs(c - float(S.dtype.type(c))) * (size + bound)
        n_roundings = count - max(index, 1) + scaled
        total += abs(c) * (size + bound)
        errors += abs(c) * (bound + u * n_roundings * (size + bound))
    if not total + cast < info.max:
        return np.inf
    lost = 2 * len(v) * float(info.smallest_subnormal) * products * (length > 0)
    return float((1 + max(8, 4 * count) * u) * (errors + cast) + lost)


@register("assembled", Curvature)
@with_nearest_rounding
def enclosed_curvature(H: Curvature) -> EnclosedHessian | None:
    """Return the matrix of a Hessian or GGN in float64 with bounds on its errors, assembled layer
    by layer at a fraction of the cost of n products. Return None if rounding errors have no known
    bounds, and if `fastcurv.certify.dense_hessian` cannot assemble the matrix.
    """
    return None if H.why_unproved else enclosed_hessian(H.objective, H.theta, H.kind)


@register("assembled", Jacobian)
@with_nearest_rounding
def enclosed_jacobian_matrix(J: Jacobian) -> tuple[Floats, Floats]:
    """Return the matrix ``(N d_out, n)`` in float64, and bounds ``(N d_out,)`` on the norms of the
    errors of its rows. The bounds are infinite with batch normalisation, and if the rows X are not
    in memory. Cost: as much arithmetic as a few products for each output, in NumPy.
    """
    X = getattr(J.objective, "X", None)
    if J.objective.model.batch_norm or not isinstance(X, np.ndarray):
        return J.to_dense().astype(float), np.full(J.shape[0], np.inf)
    return enclosed_jacobian(J.objective, J.theta)
