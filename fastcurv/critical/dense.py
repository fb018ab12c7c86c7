"""The evidence of `classify` where every eigenvalue can be had: signs with an error bound, symmetry
taken out.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dormqr

from ..eigensolver import eigh
from .evidence import (
    PRODUCT_EPS,
    dense,
    equilibrate,
    hessian_products,
    independent,
    matrix_error,
    spectral_norm,
)

# From theta to where the gradient says the critical point is, curvature must keep this share of its
# size.
PERSISTENCE = 2 / 3
# A direction of symmetry has at most this share of the norm of H for its curvature, before the
# gradient is quite 0.
ZERO_MODE = 1e-4


@dataclass
class Signs:
    """Eigenpairs of ``c A c`` off the symmetry directions, and which of their signs are known."""

    values: np.ndarray  # (n - s,), ascending
    vectors: np.ndarray  # (n, n - s), in scaled coordinates: the direction in theta is c * u
    error: float  # no computed eigenvalue is further from its true one
    c: np.ndarray  # (n,)
    signs: np.ndarray = field(init=False)  # (n - s,) of -1, 0, 1

    def __post_init__(self):
        self.signs = np.where(np.abs(self.values) > self.error, np.sign(self.values), 0).astype(int)

    @property
    def norm(self):
        return float(np.abs(self.values).max(initial=0.0))

    def prove(self, H):
        """Where the error of the whole matrix leaves an end of the spectrum open, try its own
        vector by a product.
        """
        for i, sign in ((0, -1), (-1, 1)):
            if self.values.size and self.signs[i] == 0 and sign * self.values[i] > 0:
                v = self.c * self.vectors[:, i]
                quotient, error, _ = H.rayleigh(v / np.linalg.norm(v))
                if sign * quotient > error:
                    self.signs[i] = sign

    def count(self, sign):
        return int((self.signs == sign).sum())


class DenseHessian:
    """The Hessian as a matrix, in theta's own coordinates and in balanced ones."""

    def __init__(self, H):
        self.H = H
        self.A, self.bounds = dense(H)
        self.n = H.n
        self.ones = np.ones(self.n)
        self.norm = spectral_norm(self.A)
        self.d, self.live = equilibrate(self.A, self.bounds)
        self.balanced = self.d[:, None] * self.A * self.d
        self.balanced_norm = spectral_norm(self.balanced)

    def error(self, c, norm):
        """A bound on what the rounding of products and of the eigensolver does to an eigenvalue of
        ``c A c``.

        LAPACK's symmetric eigensolvers are backward stable with a small multiple of ``n eps
        ||A||``, in practice far below ``n eps ||A||`` itself; as much again is allowed for the
        projection off the symmetry directions.
        """
        return matrix_error(self.bounds, c) + 2 * max(self.n, 8) * np.finfo(float).eps * norm

    def symmetries(self, T, slack):
        """Orthonormal basis, in balanced coordinates, of the span of those directions that H is
        seen to annihilate.

        A column passes with ``||A t|| <= slack + error ||t||``. Those that fail are tried together:
        what of their span H annihilates to rounding is kept. At last, whatever of the whole span H
        does not map to a small share of its norm is dropped: near a point that all of a symmetry
        leaves fixed, slack alone would let anything pass.
        """
        sizes = np.linalg.norm(T, axis=0)
        T, sizes = T[:, sizes > 0], sizes[sizes > 0]
        if not T.shape[1]:
            return np.zeros((self.n, 0))
        error = self.error(self.ones, self.norm)
        passed = np.linalg.norm(self.A @ T, axis=0) <= slack + error * sizes
        rest = independent(T[:, ~passed])
        rest = annihilated(self.A @ rest, rest, error)
        Q = independent(np.hstack([T[:, passed] / sizes[passed], rest]) / self.d[:, None])
        return annihilated(self.balanced @ Q, Q, ZERO_MODE * self.balanced_norm)

    def signs(self, Q, balanced):
        """`Signs` off the span of Q (balanced coordinates)."""
        c = self.d if balanced else self.ones
        M = self.balanced if balanced else self.A
        if not Q.shape[1]:
            values, vectors, _ = eigh(M)
        else:
            off = _Off(Q if balanced else Q * self.d[:, None])
            values, vectors, _ = eigh(off.block(M))
            vectors = off.back(vectors)
        norm = np.abs(values).max(initial=0.0)
        return Signs(
            values,
            vectors,
            self.error(c, max(norm, self.balanced_norm if balanced else self.norm)),
            c,
        )

    def extremes(self, plain, Q):
        """``(lambda, (low, high))`` of both ends of A's spectrum, and the error bound, symmetry
        directions included.
        """
        values, error = plain.values, plain.error
        if Q.shape[1]:
            span = qr(Q * self.d[:, None], mode="economic")[0]
            product = self.A @ span
            values = np.concatenate([values, eigh(span.T @ product).values])
            error += np.linalg.norm(product)
        low, high = float(values.min()), float(values.max())
        return (low, (low - error, low + error)), (high, (high - error, high + error))

    def outside_range(self, plain, g, cut):
        """``min over p of ||A p + g|| / ||g||``, p from the eigenspaces with curvature above `cut`."""
        seen = plain.vectors[:, np.abs(plain.values) > max(plain.error, cut)]
        inside = np.linalg.norm(seen.T @ g) / np.linalg.norm(g)
        return float(np.sqrt(max(0.0, 1.0 - inside**2)))


class _Off:
    """The complement of the span of some columns, by their Householder reflections: ``O(n^2 s)``,
    not ``O(n^3)``.
    """

    def __init__(self, span):
        (self.raw, self.tau), _ = qr(span, mode="raw")
        self.raw = np.asfortranarray(self.raw)

    def _apply(self, side, trans, M):
        size = int(dormqr(side, trans, self.raw, self.tau, M, -1)[1][0])
        out, _, info = dormqr(side, trans, self.raw, self.tau, M, size)
        if info:
            raise ArithmeticError(f"LAPACK's ormqr returned {info}; wanted 0")
        return out

    def block(self, M):
        """``Z' M Z`` for an orthonormal basis Z of the complement."""
        s = len(self.tau)
        turned = self._apply("R", "N", self._apply("L", "T", np.asfortranarray(M)))[s:, s:]
        return (turned + turned.T) / 2

    def back(self, V):
        """``Z V``."""
        return self._apply(
            "L", "N", np.asfortranarray(np.vstack([np.zeros((len(self.tau), V.shape[1])), V]))
        )


def annihilated(AQ, Q, tol):
    """Orthonormal basis of the part of the span of Q, orthonormal, that A maps to at most `tol` of
    its length.
    """
    if not Q.shape[1]:
        return Q
    _, s, Vt = np.linalg.svd(AQ, full_matrices=False)
    return Q @ Vt[s <= tol].T


def settle(ob, theta, g, signs, *, relative, rounding, stiffness, counter):
    """Set the signs to 0 that do not last from theta to the critical point that it stands for.

    g is small, not zero, and known up to `rounding` only, so the critical point is a step away: the
    Newton step p in the directions of sure curvature, and ``-(g'u +- rounding) / lambda`` along an
    eigenvector u of weak curvature. Curvature along u is computed again there. At a nondegenerate
    critical point it hardly changes. Beside a degenerate one (a cubic, a quartic, the tail of an
    exponential, the floor of a valley) it falls to a half of what it was, or to nothing. Weak is a
    curvature that such a step could change by 1%.

    Parameters
    ----------
    ob : object
    theta, g : ndarray, shape (n,)
    signs : Signs
        Changed in place.
    relative : float
        ``||g|| / (||H|| ||theta||)`` in the coordinates of `signs`: how far off the critical point
        may be.
    rounding : float
        Bound on ``||computed g - g||``.
    stiffness : float
        ``||H|| / ||theta||``, what a third derivative is taken to be like.
    counter : list of int
        Products spent are added to its first entry.
    """
    c, norm = signs.c, signs.norm
    eps = PRODUCT_EPS * np.finfo(float).eps
    coefficients = signs.vectors.T @ (c * g)
    reach = max(relative, eps)
    sure = np.abs(signs.values) > max(signs.error, reach**0.5 * norm)
    p = -c * (signs.vectors[:, sure] @ (coefficients[sure] / signs.values[sure]))
    for sign in (1, -1):
        order = np.flatnonzero(signs.signs == sign)
        order = order[np.argsort(np.abs(signs.values[order]))]
        if relative > 10 * eps:
            weak = order[:128]
            now = _curvatures(ob, theta + p, c[:, None] * signs.vectors[:, weak], counter)
            signs.signs[weak[~(now * sign >= PERSISTENCE * np.abs(signs.values[weak]))]] = 0
        lasting = 0
        for i in order:
            u = c * signs.vectors[:, i]
            size = np.linalg.norm(u)
            slack = rounding * size
            step = (abs(coefficients[i]) + slack) / abs(signs.values[i])
            if lasting == 8 or step * size**3 * stiffness <= 0.01 * abs(signs.values[i]):
                break
            if lasts_along(ob, theta, u, signs.values[i], coefficients[i], slack, counter):
                lasting += 1
            else:
                signs.signs[i], lasting = 0, 0


def lasts_along(ob, theta, u, curvature, slope, slack, counter):
    """Whether curvature along u lasts to where the slope along it vanishes, and over the
    uncertainty of that place.
    """
    centre, width = -slope / curvature, slack / abs(curvature)
    here = _curvatures(ob, theta + centre * u, u[:, None], counter)[0]
    if not here / curvature >= PERSISTENCE:
        return False
    if width <= 0.01 * abs(centre):
        return True
    around = [
        _curvatures(ob, theta + (centre + way) * u, u[:, None], counter)[0]
        for way in (-width, width)
    ]
    return all(PERSISTENCE <= there / here <= 1 / PERSISTENCE for there in around)


def _curvatures(ob, theta, U, counter):
    """``u'Hu`` at another theta for the columns of U; NaN where theta is not finite."""
    if not U.shape[1] or not np.isfinite(theta).all():
        return np.full(U.shape[1], np.nan)
    H = hessian_products(ob, theta)
    counter[0] += U.shape[1]
    return (U * H(U)).sum(axis=0)
