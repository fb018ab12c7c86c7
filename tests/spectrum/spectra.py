"""Operators with prescribed spectra and adjustable precision, for the tests of Krylov methods."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from fastcurv.spectrum.density import exact_density
from fastcurv.spectrum.smoothing import check_grid_options
from fastcurv.testing import PrescribedSpectrum


class Prescribed(PrescribedSpectrum):
    """A `PrescribedSpectrum` whose `astype` keeps the reflections, so that the matrix has equal
    entries in the other precision up to rounding.
    """

    def astype(self, dtype):
        other = Prescribed(self.values, 0, dtype=dtype)
        vars(other)["reflection_vectors"] = self.reflection_vectors.astype(dtype)
        return other


def symmetric(rng, values):
    """Return a symmetric matrix with the given eigenvalues in a random basis."""
    Q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    A = (Q * values) @ Q.T
    return (A + A.T) / 2


def diagonal(d):
    """Return an operator that defines nothing but products with a diagonal matrix."""
    d = np.asarray(d, float)
    return LinearOperator((len(d), len(d)), matvec=lambda v: d * np.ravel(v), dtype=float)


def hessian_like(rng, n=1200):
    """Return n eigenvalues with ten outliers, a few negative eigenvalues, and a bulk of both signs
    over many orders of magnitude.
    """
    m = n - 13
    return np.r_[
        np.linspace(1, 10, 10),
        np.exp(rng.uniform(-12, -1, m // 2)),
        -np.exp(rng.uniform(-12, -2.5, m - m // 2)),
        -0.5,
        -0.4,
        -0.3,
    ]


SPECTRA = {
    "uniform": lambda rng: np.linspace(-1, 1, 300),
    "normal": lambda rng: rng.standard_normal(300),
    "geometric": lambda rng: 0.9 ** np.arange(300),
    "hessian": hessian_like,
    "cluster": lambda rng: np.r_[np.ones(64), np.linspace(0, 0.9, 300)],
    "tight cluster": lambda rng: np.r_[1 + 1e-10 * np.arange(64), np.linspace(0, 0.9, 300)],
    "tiny": lambda rng: np.r_[1.0, 1e-10 * np.arange(1, 100)],
    "under": lambda rng: np.r_[1e4, np.linspace(0, 1, 300), -1.0],
    "double": lambda rng: np.r_[2, 2, np.linspace(0, 1, 300)],
    "identity": lambda rng: np.ones(100),
    "rank one": lambda rng: np.r_[3, np.zeros(99)],
    "zero": lambda rng: np.zeros(100),
    "two values": lambda rng: np.repeat([-1.0, 1.0], 60),
}


def density_of_matrix_eigenvalues(values):
    """Return the density of a matrix from all of its eigenvalues."""
    options = check_grid_options("linear", None, None, 1024)
    return exact_density(values, 0, options, np.dtype(float))


def picked(values, k, which):
    """Return the k entries of `values` that `which` selects according to its definition, in
    ascending order.
    """
    values = np.sort(values)
    n = len(values)
    return {
        "LA": values[n - k :],
        "SA": values[:k],
        "BE": np.r_[values[: k // 2], values[n - (k - k // 2) :]],
        "LM": np.sort(values[np.argsort(-np.abs(values), kind="stable")[:k]]),
    }[which]


def true_residuals(op, pairs):
    """Return the norms ``||A u - lam u||`` of all pairs, computed in float64, where A is the
    operator rounded to its dtype.
    """
    exact = op.astype("float64")
    return np.array(
        [
            np.linalg.norm(exact @ v - lam * v)
            for lam, v in zip(pairs.values, pairs.vectors.T.astype(np.float64))
        ]
    )
