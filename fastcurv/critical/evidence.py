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
from ..common.protocols import Floats, Seed, TwiceDifferentiable
from ..common.vectors import safe_norm
from .decide import CriticalPointProof, Nearness, SpectrumEvidence
from .theorem import ComplementEigenpairs, KantorovichOutcome

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
    ob: TwiceDifferentiable, theta: np.ndarray, radius: float, units: np.ndarray | None = None
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


def symmetry_tangents(
    ob: TwiceDifferentiable, theta: np.ndarray, radius: float = 0.0
) -> OrbitTangents:
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


def has_symmetry_certificate(ob: TwiceDifferentiable) -> bool:
    """Return True if the objective has a certificate `orbits` or `flat_directions`."""
    return certificate_method(ob, "orbits", certificate_method(ob, "flat_directions")) is not None


def curvature_floor(ob: TwiceDifferentiable, theta: np.ndarray) -> float:
    """Return a lower bound on all eigenvalues of the Hessian at theta. Return -inf if l2 is 0 or no
    bound is known.
    """
    if not np.max(getattr(ob, "l2", 1)) > 0:
        return -np.inf
    floor = float(call_certificate(ob, "curvature_floor", theta, default=-np.inf))
    return floor if floor == floor and floor < np.inf else -np.inf


def why_no_minimum(ob: TwiceDifferentiable, theta: np.ndarray) -> str:
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


def balanced_units(A: Floats, noise: Floats, layers: NDArray[np.intp]) -> Floats:
    """Return balanced units d > 0 (n,) of the parameters, whose largest entry lies in [1, 2). If
    the parameters are rescaled by powers of two, the units change by these powers, so that ``d A
    d`` stays bitwise identical up to one common power of two.

    `noise` bounds the errors of A, with shape (n, n) for entries or (n, 1) for rows. The units
    balance the bounds on the entries or, if these are not known, the entries of A that exceed the
    bounds of their row and column.
    """
    size = noise
    if noise.shape[1] != len(A):
        size = np.where(np.abs(A) > np.maximum(noise, noise.T), np.abs(A), 0.0)
    # Entries that may come from underflow are left out. Because all entries grow with the scale of
    # the loss, the threshold is relative to the largest entry if that is above 1.
    counted = size > UNDERFLOW_TOL * max(1.0, float(size.max(initial=0.0)))
    # The first scaling, by powers of two, is exact, so the second one is the same bitwise in all
    # units that differ by powers of two.
    start = np.exp2(np.round(log2_balancing_factors(size, counted, layers)))
    size = start[:, None] * size * start
    size = np.ldexp(size, -int(np.frexp(size.max(initial=0.0, where=counted))[1]))
    d = start * np.exp2(log2_balancing_factors(size, counted, layers))
    d = np.ldexp(d, 1 - int(np.frexp(d.max())[1]))
    return d if np.isfinite(d[:, None] * A * d).all() else np.ones(len(A))


def log2_balancing_factors(
    size: Floats, counted: NDArray[np.bool_], layers: NDArray[np.intp]
) -> Floats:
    """Return log2 of the d (n,) that minimises the sum of squared logarithms of the entries of ``d
    size d`` (n, n) that are True in `counted` (Curtis and Reid 1972).

    The sum is a least-squares problem on the sparsity pattern, so a rescaling of the parameters
    changes only d. `layers` (n,) holds the layer index of each row. All layers have the same
    weight. If one layer has collapsed, d therefore lies half-way between the units of that layer
    and those of all others, however many parameters each layer has.
    """
    shares = 1.0 / np.bincount(layers)[layers]
    logs = np.log2(np.where(counted, size, 1.0))
    each = counted @ shares
    # A pattern without diagonal entries may be bipartite. Scaling one side up and the other down
    # then leaves the objective unchanged, and the small diagonal term makes the solution unique.
    M = counted * shares + np.diag(each + 1e-9 * (1e-9 + each))
    x = np.linalg.solve(M, -(logs @ shares))
    middle = np.median(x[each > 0]) if each.any() else 0.0
    x = np.where(each > 0, x, middle)
    return np.asarray(np.clip(x, middle - MAX_SCALE_EXPONENT, middle + MAX_SCALE_EXPONENT))


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
    cut: ComplementEigenpairs | None = None

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
    seed: Seed
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
