"""The evidence behind a verdict: bounds on curvature, symmetry tangents and lower bounds that an
objective proves at theta, scalings that remove the units of the parameters, and the checked
arguments of `classify`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.linalg import SECONDS_PER_N_CUBED, svd
from ..common.objectives import (
    BudgetedOperator,
    call_certificate,
    certificate_method,
)
from ..common.protocols import Floats
from ..common.vectors import safe_norm
from .decide import CriticalPointProof, Nearness, SpectrumEvidence
from .theorem import KantorovichOutcome

# --------------------------------------------------------------------------------------------------
# Bounds that an objective proves at theta, in the form that verdicts need.


@dataclass(frozen=True, eq=False)
class OrbitTangents:
    """Tangents to the orbits of proved symmetry groups at theta, as the columns of an array (n, k).

    `change` bounds the change of the tangents per unit length of a step of theta, and `error`
    bounds the norm of their rounding error.
    """

    columns: np.ndarray
    change: float
    error: float


def third_bound(
    ob: Any, theta: np.ndarray, radius: float, units: np.ndarray | None = None
) -> float:
    """Return a Lipschitz constant of the Hessian H on the ball of `radius` around theta, or
    infinity if none is known. If `units` (n,) is given, return a Lipschitz constant of ``C H(theta
    + C x) C`` as a function of x on ``||x|| <= radius``, where ``C = diag(units)``.
    """
    if units is None:
        L = call_certificate(ob, "third_bound", theta, radius, default=np.inf)
    else:
        L = call_certificate(ob, "third_bound_in_units", theta, radius, units)
        if L is None:
            top = float(units.max())
            return top**3 * third_bound(ob, theta, top * radius)
    return float(L) if 0 <= float(L) < np.inf else np.inf


def symmetry_tangents(ob: Any, theta: np.ndarray, radius: float = 0.0) -> OrbitTangents:
    """Return the `OrbitTangents` of the symmetries that are proved to hold on the ball of `radius`
    around theta. If the objective has `flat_directions` but no `orbits`, `change` and `error` are
    infinite. If it has neither, there are no columns.
    """
    orbits = call_certificate(ob, "orbits", theta, radius)
    flat = call_certificate(ob, "flat_directions", theta) if orbits is None else None
    if flat is not None:
        return OrbitTangents(np.asarray(flat, dtype=float), np.inf, np.inf)
    columns = [np.asarray(o.tangents, dtype=float) for o in orbits or ()]
    return OrbitTangents(
        np.hstack([np.zeros((theta.size, 0)), *columns]),
        float(np.linalg.norm([o.change for o in orbits or ()])),
        float(np.linalg.norm([o.error for o in orbits or ()])),
    )


def has_symmetry_certificate(ob: Any) -> bool:
    """Return True if the objective has a certificate `orbits` or `flat_directions`."""
    return certificate_method(ob, "orbits", certificate_method(ob, "flat_directions")) is not None


def curvature_floor(ob: Any, theta: np.ndarray) -> float:
    """Return a lower bound on all eigenvalues of the Hessian at theta. Return -inf if l2 is 0 or no
    bound is known.
    """
    if not np.max(getattr(ob, "l2", 1)) > 0:
        return -np.inf
    floor = float(call_certificate(ob, "curvature_floor", theta, default=-np.inf))
    return floor if floor == floor and floor < np.inf else -np.inf


def why_no_minimum(ob: Any, theta: np.ndarray) -> str:
    """Return the reason why no theta attains the infimum of the loss, as a clause. It is the reason
    that the objective states, or a general one.
    """
    words: str = call_certificate(ob, "why_no_minimum", theta, default="")
    return words or "a direction is proved along which the loss decreases without end"


# A gradient counts as zero if its norm is at most this factor times the bound on its rounding
# error.
GRADIENT_ROUNDING_FACTOR = 10.0
# Error bounds below this value may come from underflow alone.
UNDERFLOW_TOL = 1e-280
# Scale factors are clipped to 2^+-MAX_SCALE_EXPONENT times their median.
MAX_SCALE_EXPONENT = 200
# At large n, curvature above -CURVATURE_TOL (lambda_max - lambda_min) counts as nonnegative. In the
# test for a plateau, directions with less curvature than this fraction of ||H|| are flat.
CURVATURE_TOL = 1e-4
# A point is taken as critical if ||g|| is at most this fraction of ||H|| ||theta||: about the third
# root of the unit roundoff.
RELATIVE_GRADIENT_TOL = 1e-5


@dataclass(frozen=True, eq=False)
class SpectrumEnd:
    """One end of the spectrum of H: a unit vector v (None if the sign of its curvature is unknown),
    its Rayleigh quotient, a bound on the error of the quotient, and the norm of the residual ``Hv -
    quotient v``.
    """

    vector: Any = None
    quotient: float = 0.0
    error: float = 0.0
    residual: float = np.inf

    @property
    def enclosure(self) -> tuple[float, float]:
        """The bounds ``(low, high)`` of an interval that contains an eigenvalue of H."""
        off = self.residual + self.error
        return self.quotient - off, self.quotient + off


def estimate_spectral_norm(A: Floats, steps: int = 12) -> float:
    """Return a lower estimate of ``||A||_2`` for a symmetric matrix A, by `steps` steps of power
    iteration from a fixed random start.
    """
    v: Floats = np.random.default_rng(0).standard_normal((A.shape[0],))
    norm = 0.0
    for _ in range(steps):
        size = safe_norm(v)
        if not 0 < size < np.inf:
            break
        v = A @ (v / size)
        norm = max(norm, safe_norm(v))
    return norm


def equilibration_factors(A: Floats, noise: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return d > 0 (n,) such that the largest magnitude in each row of ``d A d`` is near 1 (Ruiz
    2001), and a mask of the rows of A that were used.

    A row is used if an entry exceeds its `noise`, an array of bounds (n,) for rows or (n, n) for
    entries. All other rows carry no information about the scale of their parameter. Their d is the
    geometric mean of the d of the used rows.
    """
    size = np.abs(A)
    live = np.asarray((size > noise.reshape(len(A), -1)).any(axis=1))
    d = np.ones(len(A))
    if live.any():
        inner = size[np.ix_(live, live)] if not live.all() else size
        e = np.ones(len(inner))
        for _ in range(6):
            rows = (inner * e).max(axis=1) * e
            e /= np.sqrt(np.where(rows > 0, rows, 1.0))
        d[live] = e
        d[~live] = np.exp(np.log(e).mean())
    return d, live


def row_norm_scale_factors(A: Floats, d: Floats) -> Floats:
    """Return d (n,), refined until all rows of ``d A d`` have 2-norm 1 to within about 1%.

    The exact scaling is unique, so ``d A d`` does not depend on the units of the parameters.
    """
    squares = (d[:, None] * A * d) ** 2
    f = np.ones(len(d))
    for _ in range(30):
        rows = (squares @ f) * f
        f /= np.sqrt(np.where(rows > 0, rows, 1.0))
        if np.abs(rows[rows > 0] - 1).max(initial=0.0) < 1e-2:
            break
    return d * np.sqrt(f)


def row_balancing_factors(A: Floats, noise: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return d > 0 (n,) such that the used rows of ``d A d`` have equal 2-norms, and a mask of the
    used rows. The scale of all other rows is chosen by `_units_of_unused_rows`.

    A row is not used if no entry exceeds its `noise`, an array of bounds (n,) for rows or (n, n)
    for entries, or if its scaled noise would exceed the median norm of the used rows.
    """
    d, live = equilibration_factors(A, noise)
    noise = noise.reshape(len(A), -1)
    for _ in range(4):
        if not live.any():
            return np.ones(len(A)), live
        inner = A[np.ix_(live, live)] if not live.all() else A
        d[live] = row_norm_scale_factors(inner, d[live])
        d[~live] = _units_of_unused_rows(noise, d, live)
        rows = np.linalg.norm(d[live][:, None] * inner * d[live], axis=1)
        # `across` scales the columns of a noise matrix. Noise given as one column is scaled as if
        # every column had the scale of its row.
        across = d if noise.shape[1] > 1 else d[:, None]
        loud = live & (np.linalg.norm(d[:, None] * noise * across, axis=1) > np.median(rows))
        if not loud.any():
            break
        live &= ~loud
    return d, live


def _units_of_unused_rows(noise: Floats, d: Floats, live: NDArray[np.bool_]) -> Any:
    """Return scale factors for the rows outside the mask `live`. If `noise` is (n, n), choose the
    factors such that the norm of the scaled noise of each row equals the median over the live rows.
    If `noise` is (n, 1), return the geometric mean of the factors of the live rows.
    """
    mean = np.exp(np.log(d[live]).mean())
    if noise.shape[1] == 1:
        return mean
    sizes = np.linalg.norm(noise[:, live] * (d[live] / mean), axis=1)
    found = float(np.median(sizes[live] * d[live])) / np.maximum(sizes[~live], 1e-300)
    # The mean replaces the meaningless factor of a row that has no noise.
    return np.where((found > mean * 1e-60) & (found < mean * 1e60), found, mean)


def candidate_units(A: Floats, noise: Floats, layers: NDArray[np.intp]) -> list[Floats]:
    """Return a list of candidates for balanced units d > 0 (n,) of the parameters, whose largest
    entry lies in [1, 2). If the parameters are rescaled, the units change in the same way.

    The first candidate makes the rows of ``d A d`` equal in 2-norm. `noise` bounds the errors of A,
    with shape (n, 1) for rows or (n, n) for entries. If it has shape (n, n), a second candidate
    makes the rows of ``d noise d`` equal in 2-norm. Both candidates then start from the scaling of
    `noise_balancing_factors`, so that ``d A d`` stays bitwise identical, up to one common power of
    two, if the parameters are rescaled by powers of two.
    """
    if noise.shape[1] == 1:
        return [_scale_largest_to_one(row_balancing_factors(A, noise)[0])]
    start = noise_balancing_factors(noise, layers)
    noise = start[:, None] * noise * start
    faint = np.full((len(A), 1), 1e-15 * np.median(noise))
    rows = (
        row_balancing_factors(start[:, None] * A * start, noise)[0],
        row_balancing_factors(noise, faint)[0],
    )
    # If the noise of a row is near the smallest numbers, its unit may overflow.
    units = [_scale_largest_to_one(start * d) for d in rows if np.isfinite(d).all()]
    finite = [d for d in units if np.isfinite(d[:, None] * A * d).all()]
    return finite or [np.ones(len(A))]


def noise_balancing_factors(noise: Floats, layers: NDArray[np.intp]) -> Floats:
    """Return powers of two d (n,) that minimise the sum of squared logarithms of the entries of ``d
    noise d`` (Curtis and Reid 1972).

    Entries that are 0, or so small that they may come from underflow, are left out. Because all
    entries grow with the scale of the loss, the threshold is relative to the largest entry if that
    is above 1. The sum is a least-squares problem on the sparsity pattern, so a rescaling of the
    parameters changes only d.

    `layers` (n,) holds the layer index of each row. All layers have the same weight. If one layer
    has collapsed, d therefore lies half-way between the units of that layer and those of all
    others, however many parameters each layer has.
    """
    shares = 1.0 / np.bincount(layers)[layers]
    counted = noise > UNDERFLOW_TOL * max(1.0, float(noise.max(initial=0.0)))
    logs = np.log2(np.where(counted, noise, 1.0))
    each = counted @ shares
    # A pattern without diagonal entries may be bipartite. Scaling one side up and the other down
    # then leaves the objective unchanged, and the small diagonal term makes the solution unique.
    M = counted * shares + np.diag(each + 1e-9 * (1e-9 + each))
    x = np.linalg.solve(M, -(logs @ shares))
    middle = np.median(x[each > 0]) if each.any() else 0.0
    x = np.where(each > 0, x, middle)
    return np.asarray(
        np.exp2(np.round(np.clip(x, middle - MAX_SCALE_EXPONENT, middle + MAX_SCALE_EXPONENT)))
    )


def _scale_largest_to_one(d: Floats) -> Floats:
    """Return d times a power of 2 such that the largest entry is at least 1 and below 2."""
    return np.asarray(np.ldexp(d, 1 - int(np.frexp(d.max())[1])))


def orthonormal_basis(T: Floats, rtol: float = 1e-7) -> Floats:
    """Return an orthonormal basis (n, r) of the span of the columns of T (n, k).

    Columns are normalised first, and singular directions up to `rtol` times the largest singular
    value are dropped, so that the dimension is not overestimated because of rounding.
    """
    sizes = np.linalg.norm(T, axis=0)
    T = T[:, sizes > 0] / sizes[sizes > 0]
    if not T.shape[1]:
        return T
    U, s, _ = svd(T)
    return U[:, s > rtol * s[0]]


def null_subspace_basis(AQ: Floats, Q: Floats, tol: float) -> Floats:
    """Return an orthonormal basis of the part of span(Q) on which the singular values of `AQ`, the
    product A Q, are at most `tol`. Q (n, k) has orthonormal columns.
    """
    if not Q.shape[1]:
        return Q
    _, s, Vt = svd(AQ)
    return np.asarray(Q @ Vt[s <= tol].T)


# If a Newton step is longer than this factor times the norm of theta, no local model of the loss is
# valid along the step, so H counts as flat along the gradient.
MAX_RELATIVE_STEP = 1e6


class InertiaStrategy(ABC):
    """Strategy for the inertia of the Hessian H at theta, with the methods that `classify` calls.
    If theta is near a critical point but the theorem does not hold, `classify` also calls
    `prove_two_signs`, `can_residuals_vanish` and `zero_unstable_signs`, which the subclasses for
    this case define.

    Attributes
    ----------
    ask : ClassifyOptions
    H : BudgetedOperator
    gradient : (ndarray, float)
        g, and a bound on the norm of its error.
    near : Nearness
        Known after construction; the methods that prove or measure signs are called only if theta
        is near.
    cut : ComplementEigenpairs or None
        All eigenpairs, or None if they are not known.
    """

    ask: ClassifyOptions
    H: BudgetedOperator
    gradient: tuple[Floats, float]
    near: Nearness
    cut: Any = None

    @abstractmethod
    def check_kantorovich_theorem(self) -> tuple[KantorovichOutcome, float]:
        """Return the `KantorovichOutcome` of Kantorovich's theorem, with the outcome "untried" if a
        bound is missing, and the length of Newton's step.
        """

    @abstractmethod
    def nearness_with_flat_ratio(self) -> Nearness:
        """Return the `Nearness` with ``||Hg|| / (||H|| ||g||)`` and the fraction of g outside the
        range of H added.
        """

    @abstractmethod
    def spectrum_evidence(self, proof: CriticalPointProof) -> SpectrumEvidence:
        """Return the `SpectrumEvidence` with the signs that are stable up to the critical point or
        that `proof` establishes.
        """


# --------------------------------------------------------------------------------------------------
# The arguments of `classify`, validated once and then immutable.


@dataclass(frozen=True, eq=False)
class ClassifyOptions:
    """The validated arguments of `classify`. If `seek` is False, no Newton steps to a nearby
    critical point are tried.
    """

    ob: Any
    theta: np.ndarray
    gradient_tol: float | None
    failure_probability: float | None
    max_products: int | None
    dense_below: float
    seed: Any
    max_time: float | None = None
    seek: bool = True

    @property
    def dense(self) -> bool:
        """True if the whole spectrum is computed: n is below `dense_below`, `max_products` allows n
        products, and `max_time` allows an eigendecomposition.
        """
        n = self.theta.size
        return (
            n < self.dense_below
            and (self.max_products is None or self.max_products >= n)
            and (self.max_time is None or SECONDS_PER_N_CUBED * float(n) ** 3 <= self.max_time)
        )
