"""The inertia from the Hessian as a matrix, on the complement of proved symmetries, with proved
error bounds. It comes from Cholesky factors if these prove a minimum, and otherwise from all
eigenpairs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, qr
from scipy.linalg.lapack import dormqr
from scipy.sparse.linalg import LinearOperator

from ..common.checks import check_symmetric_operator
from ..common.linalg import (
    JointSigns,
    cholesky,
    cholesky_eigenvalue_floor,
    eigh,
    eigh_with_joint_signs,
    svdvals,
)
from ..common.objectives import (
    PRODUCT_ERROR_EPS,
    BudgetedOperator,
    BudgetSpentError,
    budgeted_hessian,
    call_certificate,
)
from ..common.protocols import Floats, TwiceDifferentiable
from ..common.runtime import raise_if_interrupted
from ..common.vectors import augmented_norm, safe_norm
from ..krylov.lanczos import Recurrence, ritz_decomposition
from ..spectrum.dense import DenseMatrix, counted_matrix
from ..spectrum.eigsh import eigsh
from .decide import (
    UNTRIED_OUTCOME,
    CriticalPointProof,
    Nearness,
    SpectrumEvidence,
    TwoSignProof,
)
from .evidence import (
    CURVATURE_TOL,
    MAX_RELATIVE_STEP,
    ClassifyOptions,
    InertiaStrategy,
    OrbitTangents,
    SpectrumEnd,
    balanced_units,
    estimate_spectral_norm,
    null_subspace_basis,
    orthonormal_basis,
    symmetry_tangents,
    third_bound,
)
from .nearness import (
    GRADIENT_ERROR_EPS,
    MAX_DECREMENT_RATIO_AFTER_STEP,
    assess_nearness,
    assess_nearness_by_decrement,
    finite_gradient_and_error,
    gradient_after_step,
    gradient_rounding_bounds,
    newton_decrement,
    zero_unproved_signs,
)
from .theorem import (
    EPS,
    SCALAR_ROUND_UP_FACTOR,
    ComplementEigenpairs,
    KantorovichOutcome,
    check_kantorovich,
    eta_bound,
    newton_step_in_slice,
    radius_of_opposite_signs,
    spans_orbit,
)

# --------------------------------------------------------------------------------------------------
# The Hessian as a matrix on the complement of proved symmetries: eigenpairs with bounds.

# maximum ratio of ||Hq|| to ||H|| at which a symmetry direction q is projected out
ZERO_CURVATURE_TOL = 1e-4
JOINT_SIGNS_MIN_N = 768  # minimum number of rows for a joint proof of the signs of all eigenvalues
# maximum number of reflections that are applied one by one, for which the error bound is sharper
MAX_SINGLE_REFLECTIONS = 128
REFLECTION_BLOCK_SIZE = 64  # maximum number of reflections in a block if they are applied in blocks
# maximum number of rows at which an indefinite H is also decomposed in balanced coordinates
BALANCED_MAX_N = 1500


class DenseHessian:
    """The Hessian as a matrix A (n, n), with error bounds, in the coordinates of theta and in
    balanced coordinates.
    """

    def __init__(self, M: DenseMatrix) -> None:
        self.M = M
        self.A = M.A
        self.n = len(M.A)
        # `error` is a bound in the 2-norm
        self.norm = estimate_spectral_norm(self.A)
        self.error = M.error_bound()

    @cached_property
    def units(self) -> Floats:
        """Balanced units (n,) of the parameters, from `balanced_units`."""
        return balanced_units(self.A, self.M.entry_error_bounds(), self.M.layer_indices())

    def flat_columns(self, T: Floats) -> Floats:
        """Return columns that span the part of span(T) that the Hessian maps almost to zero, for T
        (n, s). Return T if n exceeds `BALANCED_MAX_N`.

        The norm of the image is compared in balanced units, so that the result does not depend on
        the units of theta.
        """
        if not T.shape[1] or self.n > BALANCED_MAX_N:
            return T
        d = self.units
        span = orthonormal_basis(T / d[:, None])
        matrix = d[:, None] * self.A * d
        most = ZERO_CURVATURE_TOL * estimate_spectral_norm(matrix)
        return d[:, None] * null_subspace_basis(matrix @ span, span, most)

    def eigenpairs_on_complement(self, T: Floats, c: Floats | None = None) -> ComplementEigenpairs:
        """Return the eigenpairs of ``C A C`` as a `ComplementEigenpairs`, on the complement of the
        span of the columns of T (n, s), which are in the coordinates of theta. C is ``diag(c)``, or
        the identity if `c` is None.
        """
        scaled = c is not None
        c = np.ones(self.n) if c is None else c
        matrix = c[:, None] * self.A * c if scaled else self.A
        span = orthonormal_basis(T / c[:, None] if scaled else T)
        if span.shape[1] and self.n > BALANCED_MAX_N:
            # Near a point that the whole symmetry group leaves fixed, H may have curvature along
            # the orbits. Directions with such curvature are not projected out.
            span = null_subspace_basis(
                matrix @ span, span, ZERO_CURVATURE_TOL * estimate_spectral_norm(matrix)
            )
        off = _ComplementReflections(span) if span.shape[1] else None
        error = self.M.error_bound(c) if scaled else self.error
        if scaled:
            error += 2 * EPS * safe_norm(matrix)
        if off is not None:
            error += off.rounding_bound() * safe_norm(matrix)
        inner = matrix if off is None else off.project_matrix(matrix)
        found = (
            eigh_with_joint_signs(inner, error) if len(inner) >= JOINT_SIGNS_MIN_N else eigh(inner)
        )
        vectors = found.vectors if off is None else off.embed_vectors(found.vectors)
        ends = error + (found.ends if isinstance(found, JointSigns) else found.error)
        return ComplementEigenpairs(found.values, vectors, error + found.error, c, span, ends)


@dataclass(frozen=True, eq=False)
class DeflatedEigenpairs:
    """The eigenpairs of the Hessian on the complement of proved symmetries: `plain` in the
    coordinates of theta, and `best` in the coordinates in which the most signs are known. `held`
    are the `OrbitTangents` of the symmetries.
    """

    plain: ComplementEigenpairs
    best: ComplementEigenpairs
    held: OrbitTangents


def deflate_symmetries(full: DenseHessian, held: OrbitTangents) -> DeflatedEigenpairs:
    """Return the `DeflatedEigenpairs` of the Hessian on the complement of the symmetries `held`, in
    the coordinates of theta and, if that leaves unknown signs that balanced coordinates may
    determine, in balanced coordinates.

    Balanced coordinates are tried if H is not definite and n is at most `BALANCED_MAX_N`. For
    larger n they are tried if they might determine the signs of all remaining zeros. Balanced
    coordinates do not change the inertia (Sylvester), have a sharper error bound, and do not depend
    on the units of theta. If the errors are bounded for rows only and not for entries, the bound
    may be less sharp, and the coordinates with more known signs are used.
    """
    flat = full.flat_columns(held.columns)
    plain = full.eigenpairs_on_complement(flat)
    large = full.n > BALANCED_MAX_N
    settled = (plain.values > plain.error).all() or (plain.values < -plain.error).all()
    if (
        settled
        or large
        and (plain.min_abs_eigenvalue_bound > 0 or _has_undecided_eigenvalue(full, plain))
    ):
        return DeflatedEigenpairs(plain, plain, held)
    best = full.eigenpairs_on_complement(flat, full.units)
    counts = [int((eigenvalue_signs(cut) == 0).sum()) for cut in (plain, best)]
    if best.span.shape[1] != plain.span.shape[1] or counts[0] < counts[1]:
        best = plain
    return DeflatedEigenpairs(plain, best, held)


def _has_undecided_eigenvalue(full: DenseHessian, plain: ComplementEigenpairs) -> bool:
    """Return True if balanced coordinates cannot determine the signs of all eigenvalues that have
    no known sign in `plain`.

    The test uses the singular values of the scaled H on the span of the symmetries and of the
    eigenvectors without a known sign. If more of them are within the error than there are
    symmetries, an eigenvalue on the complement of the symmetries is within the error (Courant and
    Fischer; Cauchy interlacing).
    """
    flat = np.hstack([plain.span, plain.vectors[:, eigenvalue_signs(plain) == 0]])
    Q = qr(flat / full.units[:, None], mode="economic")[0]
    sizes = svdvals(full.units[:, None] * (full.A @ (full.units[:, None] * Q)))
    return int(np.count_nonzero(sizes <= full.M.error_bound(full.units))) > int(plain.span.shape[1])


def eigenvalue_signs(cut: ComplementEigenpairs) -> NDArray[np.int_]:
    """Return the signs (m,) of the eigenvalues in `cut`: -1, 1, or 0 if the magnitude is at most
    the error bound.
    """
    return np.where(np.abs(cut.values) > cut.error, np.sign(cut.values), 0).astype(int)


def check_orbit_independence(
    ob: TwiceDifferentiable, theta: Floats, cut: ComplementEigenpairs, found: KantorovichOutcome
) -> KantorovichOutcome:
    """Return `found`, the outcome of the theorem, if the tangents of the orbits are proved to be
    linearly independent on the whole ball of the theorem. Otherwise return an outcome that does not
    hold, with ``missing_hypothesis="orbit"``.
    """
    top = float(cut.c.max())
    bottom = float(cut.c.min())
    near = symmetry_tangents(ob, theta, top * 2 * found.eta)
    # upper bound on the factor by which the units cut.c increase `near.change`, the rate at which
    # tangents change
    spread = float(call_certificate(ob, "orbit_spread", cut.c, default=top / bottom))
    whole = spans_orbit(
        cut.span,
        near.columns / cut.c[:, None],
        near.change * spread * SCALAR_ROUND_UP_FACTOR,
        near.error / bottom,
        found.radius,
    )
    return (
        found if whole else replace(found, holds=False, radius=np.inf, missing_hypothesis="orbit")
    )


class _ComplementReflections:
    """The complement of the span of s orthonormal columns, represented by Householder reflections.
    Applying the reflections to a matrix costs ``O(n^2 s)`` instead of ``O(n^3)``.
    """

    def __init__(self, span: Floats) -> None:
        (raw, self.tau), _ = qr(span, mode="raw")
        self.raw = np.asfortranarray(raw)

    def _apply_reflections(
        self, side: str, trans: str, M: Floats, one_by_one: bool = False
    ) -> Floats:
        size = int(dormqr(side, trans, self.raw, self.tau, M, -1)[1][0])
        # A workspace that is too small for blocks makes LAPACK apply the reflections one by one.
        size = max(M.shape) if one_by_one else size
        out, _, info = dormqr(side, trans, self.raw, self.tau, M, size)
        if info:
            raise ArithmeticError(f"LAPACK's ormqr failed with info = {info}.")
        return np.asarray(out)

    def rounding_bound(self) -> float:
        """Return a bound on the rounding error of `project_matrix`, relative to ``||M||_F``.

        LAPACK applies k reflections as ``X - V (T (V' X))``, with k = 1 or up to
        `REFLECTION_BLOCK_SIZE`. These are sums of n, k and k products, in any order. The error,
        relative to ``||X||_F``, is therefore at most ``(n + 2 k + 8) u || |V| |T| |V'| ||`` with u
        = eps / 2. The deviation of ``I - V T V'`` from orthogonality has the same bound, because V
        and T are rounded too (Higham, Accuracy and Stability, 2002, 19.3 and 19.5). Both sides
        contribute. A single reflection has ``tau ||v||^2 = 2``; for larger blocks the norms are
        computed.
        """
        n, s = self.raw.shape
        if s <= MAX_SINGLE_REFLECTIONS:
            return float(2 * (n + 10) * EPS * 2 * s)
        V = np.tril(self.raw, -1)
        total = 0.0
        V[np.diag_indices(s)] = 1.0
        for start in range(0, s, REFLECTION_BLOCK_SIZE):
            part = V[:, start : start + REFLECTION_BLOCK_SIZE]
            tau = self.tau[start : start + REFLECTION_BLOCK_SIZE]
            some = tau != 0  # LAPACK stores tau = 0 if no reflection is needed
            part = part[:, some]
            T = np.linalg.inv(np.triu(part.T @ part, 1) + np.diag(1 / tau[some]))
            total += safe_norm(part) ** 2 * safe_norm(T)
        return float(2 * (n + 2 * REFLECTION_BLOCK_SIZE + 8) * EPS * total)

    def project_matrix(self, M: Floats) -> Floats:
        """Return ``Z' M Z`` (n - s, n - s) for a symmetric M (n, n) and an orthonormal basis Z of
        the complement.
        """
        s = len(self.tau)
        one_by_one = len(self.tau) <= MAX_SINGLE_REFLECTIONS
        turned = self._apply_reflections("L", "T", np.asfortranarray(M), one_by_one)
        turned = self._apply_reflections("R", "N", turned, one_by_one)[s:, s:]
        return np.asarray((turned + turned.T) / 2)

    def embed_vectors(self, V: Floats) -> Floats:
        """Return ``Z V`` (n, m) for coordinates V (n - s, m) in the basis Z of `project_matrix`."""
        return self._apply_reflections(
            "L", "N", np.asfortranarray(np.vstack([np.zeros((len(self.tau), V.shape[1])), V]))
        )


# --------------------------------------------------------------------------------------------------
# The strategy for n small enough for a matrix.


def inertia_by_matrix(ask: ClassifyOptions, H: BudgetedOperator) -> InertiaStrategy:
    """Return the inertia from the matrix of H. Cholesky factors are used if n is at least
    `CHOLESKY_MIN_N`, no symmetry is proved and the factors prove a minimum. Otherwise all
    eigenpairs are computed.
    """
    gradient = finite_gradient_and_error(ask.ob, ask.theta, H)
    H.show_note("all columns")
    M = counted_matrix(H)
    full = DenseHessian(M)
    H.asymmetry = safe_norm(M.asymmetry)
    H.norm = max(H.norm, 1.01 * full.norm)  # norm used for the error of a product
    tangents = symmetry_tangents(ask.ob, ask.theta)
    # With proved symmetries H is singular at a critical point and has no Cholesky factor.
    if full.n >= CHOLESKY_MIN_N and not tangents.columns.shape[1]:
        H.show_note("a Cholesky factor")
        factor = prove_definite(full)
        inertia = None if factor is None else InertiaByCholesky(ask, H, full, gradient, factor)
        if inertia is not None and inertia.proof.holds:
            return inertia
    H.show_note("all eigenvalues")
    return InertiaByEigenpairs(ask, H, full, deflate_symmetries(full, tangents), gradient)


def assess_nearness_at(
    ob: TwiceDifferentiable, theta: Floats, H: BudgetedOperator | None = None
) -> Nearness:
    """Return the `Nearness` at theta, computed in the way of `inertia_by_matrix`. The cost is n
    products and a decomposition.
    """
    with np.errstate(all="ignore"):
        H = budgeted_hessian(ob, theta) if H is None else H
        gradient = finite_gradient_and_error(ob, theta, H)
        full = DenseHessian(counted_matrix(H))
        best = deflate_symmetries(full, symmetry_tangents(ob, theta)).best
        return assess_nearness(ob, theta, np.abs(full.A) @ np.abs(theta), best, gradient)


# --------------------------------------------------------------------------------------------------
# Minima of many parameters proved by Cholesky factors, at a tenth of the cost of all eigenpairs.
#
# A Cholesky factorisation that does not fail proves that its matrix is positive definite up to a
# known shift (`linalg.cholesky_eigenvalue_floor`). Applied to ``A - s I``, with s a little below
# the smallest eigenvalue found by inverse iteration, it gives a bound on ``||A^-1||``. The factor
# of A gives Newton's step. The theorem needs only these two quantities. If a part of the proof
# fails, all eigenpairs are computed.

# minimum n at which Cholesky factors are tried; for smaller n all eigenpairs take a fraction of a
# second and give more information
CHOLESKY_MIN_N = 768
# fractions of the smallest Ritz value that are tried, one after the other, as lower bounds on all
# eigenvalues
LOWER_BOUND_FRACTIONS = (0.999, 0.9, 0.5)
# maximum dimension of the Krylov space from which the fraction of g in the range of H is computed
MAX_GRADIENT_KRYLOV_DIM = 60
MAX_LINEAR_SOLVES = 200  # maximum number of linear systems solved to find the smallest eigenvalue


@dataclass(frozen=True, eq=False)
class DefinitenessProof:
    """The proof that the exact Hessian is positive definite, from its computed matrix A.

    Attributes
    ----------
    solve : callable
        Function of b (n,) that returns ``A^-1 b`` by the Cholesky factor of A.
    floor : float
        Lower bound on all eigenvalues of the exact Hessian, from which A differs by its error.
    min_abs_eigenvalue_bound : float
        The smallest Ritz value, an upper bound on the smallest eigenvalue of A up to rounding.
    """

    solve: Callable[[Floats], Floats]
    floor: float
    min_abs_eigenvalue_bound: float


def prove_definite(full: DenseHessian) -> DefinitenessProof | None:
    """Return the proof that the Hessian is positive definite, by Cholesky factors of its computed
    matrix A. Return None if A is not positive definite by more than its error.
    """
    A = full.A
    if not 0 < full.norm < np.inf or not (np.diagonal(A) > 0).all():
        return None
    solve = cholesky_solver(A)
    if solve is None:
        return None
    op = LinearOperator(A.shape, solve, dtype=np.float64)
    found = raise_if_interrupted(
        eigsh(op, 1, "LA", tol=1e-4, max_products=MAX_LINEAR_SOLVES, rng=0)
    )
    v = found.vectors[:, 0]
    weakest = float(v @ (A @ v)) / float(v @ v)
    for share in LOWER_BOUND_FRACTIONS:
        floor = cholesky_eigenvalue_floor(A.copy(), share * weakest) - full.error
        if floor > 0:
            return DefinitenessProof(solve, floor, weakest)
    return None


def cholesky_solver(A: Floats) -> Callable[[Floats], Floats] | None:
    """Return a function of b (n,) that returns ``A^-1 b`` by a Cholesky factor, or None if the
    factorisation fails.
    """
    factor = cholesky(A)
    if factor is None:
        return None
    upper = factor.T  # Fortran order, which LAPACK uses without a copy
    return lambda b: np.asarray(cho_solve((upper, False), b, check_finite=False))


class InertiaByCholesky(InertiaStrategy):
    """The inertia of a Hessian that is proved positive definite, and `proof`, the outcome of
    Kantorovich's theorem for this Hessian.
    """

    def __init__(
        self,
        ask: ClassifyOptions,
        H: BudgetedOperator,
        full: DenseHessian,
        gradient: tuple[Floats, float],
        known: DefinitenessProof,
    ) -> None:
        self.ask = ask
        self.H = H
        self.gradient = gradient
        self.full = full
        self.known = known
        g, off = gradient
        theta = ask.theta
        size = np.abs(full.A)
        reach = size @ np.abs(theta)
        off = GRADIENT_ERROR_EPS * EPS * safe_norm(reach) if np.isnan(off) else off
        x = -known.solve(g)
        # fraction of ||g|| that rounding errors do not explain
        rest = max(0.0, 1 - off / safe_norm(g)) if g.any() else 0.0
        whole = 0.5 * max(0.0, -float(g @ x))
        most = float(np.abs(theta) @ reach)
        self.near = assess_nearness_by_decrement(
            ask.ob, theta, safe_norm(g), rest**2 * whole, most, ask.gradient_tol, whole=whole
        )
        self.proof = UNTRIED_OUTCOME
        self.length = np.inf
        if not (self.near.near and self.near.strict):
            return
        x -= known.solve(g + full.A @ x)
        self.length = safe_norm(x)
        # The infinity norm of |A| is an upper bound on its 2-norm.
        absolute = float(size.sum(axis=1).max())
        rounding = (full.n + 8) * EPS * (absolute * self.length + safe_norm(g))
        left = safe_norm(g + full.A @ x) + off + full.error * self.length + rounding
        beta = SCALAR_ROUND_UP_FACTOR / known.floor
        eta = eta_bound(self.length, beta, left) * SCALAR_ROUND_UP_FACTOR
        self.proof = check_kantorovich(beta, eta, partial(third_bound, ask.ob, theta))

    def check_kantorovich_theorem(self) -> tuple[KantorovichOutcome, float]:
        return self.proof, self.length

    @cached_property
    def largest_eigenvalue(self) -> tuple[float, float]:
        """A pair: the largest eigenvalue of H, and a bound on its error."""
        found = raise_if_interrupted(
            eigsh(check_symmetric_operator(self.full.A), 1, "LA", tol=1e-8, rng=0)
        )
        return float(found.values[0]), float(found.residuals[0]) + self.full.error

    def nearness_with_flat_ratio(self) -> Nearness:
        """Return the `Nearness` with ``||Hg|| / (||H|| ||g||)`` and the fraction of g outside the
        range of H added. The fraction is computed from the Krylov space of g.
        """
        g, _ = self.gradient
        n = self.full.n
        size = self.near.gradient_norm
        if not size > 0:
            return self.near
        run = Recurrence(check_symmetric_operator(self.full.A), MAX_GRADIENT_KRYLOV_DIM)
        run.insert_block(g[None] / size)
        while run.p and run.m < min(MAX_GRADIENT_KRYLOV_DIM, n):
            run.step()
        values, S = ritz_decomposition(run)
        reached = size / (MAX_RELATIVE_STEP * augmented_norm(self.ask.theta))
        cut = max(self.full.error, CURVATURE_TOL * self.largest_eigenvalue[0], reached)
        inside = float((S[0, np.abs(values) > cut] ** 2).sum())
        flat = min(1.0, safe_norm(self.full.A @ (g / size)) / self.largest_eigenvalue[0])
        return replace(self.near, flat_ratio=flat, residual=max(0.0, 1 - inside) ** 0.5)

    def spectrum_evidence(self, proof: CriticalPointProof) -> SpectrumEvidence:
        """Return the `SpectrumEvidence`, in which all eigenvalues are positive. The argument
        `proof` is not used.
        """
        known = self.known
        high, off = self.largest_eigenvalue
        return SpectrumEvidence(
            low=known.min_abs_eigenvalue_bound,
            low_bounds=(known.floor, known.min_abs_eigenvalue_bound + self.full.error),
            high=high,
            high_bounds=(high - off, high + off),
            n_positive=self.full.n,
            n_negative=0,
            n_zero=0,
            n_symmetry=0,
            positive=True,
            smallest_magnitude=known.min_abs_eigenvalue_bound,
            smallest_magnitude_error=known.min_abs_eigenvalue_bound - known.floor,
        )


# --------------------------------------------------------------------------------------------------
# All eigenpairs, on the complement of the symmetries.


class InertiaByEigenpairs(InertiaStrategy):
    """The inertia from all eigenpairs. `signs` holds the signs of the eigenvalues that are proved
    at theta; signs that may change between theta and the critical point are set to 0.
    """

    cut: ComplementEigenpairs

    def __init__(
        self,
        ask: ClassifyOptions,
        H: BudgetedOperator,
        full: DenseHessian,
        view: DeflatedEigenpairs,
        gradient: tuple[Floats, float],
    ) -> None:
        self.ask = ask
        self.H = H
        self.gradient = gradient
        H.norm = max(H.norm, float(np.abs(view.plain.values).max(initial=0.0)))
        self.full = full
        self.reach = np.abs(full.A) @ np.abs(ask.theta)
        self.near = assess_nearness(
            ask.ob, ask.theta, self.reach, view.best, gradient, ask.gradient_tol
        )
        self.view, self.cut, self.signs, self.n_found = self._prove_signs(view)
        self.low, self.high = _extreme_vectors(H, full, view, self.signs)

    def _prove_signs(
        self, view: DeflatedEigenpairs
    ) -> tuple[DeflatedEigenpairs, ComplementEigenpairs, NDArray[np.int_], int]:
        """Return a tuple: a `DeflatedEigenpairs`, its eigenpairs `best`, the signs (m,) of their
        eigenvalues, which are 0 if not proved, and the number of proved signs.

        If the error of the whole matrix leaves the sign of the smallest or the largest eigenvalue
        unknown, a product with its eigenvector may prove the sign.
        """
        cut = view.best
        signs = eigenvalue_signs(cut)
        for i, sign in ((0, -1), (-1, 1)):
            open_ = cut.values.size and signs[i] == 0 and sign * cut.values[i] > 0
            if open_ and self.H.allows(1):
                v = cut.c * cut.vectors[:, i]
                quotient, error, _ = self.H.rayleigh_quotient_with_error(v / np.linalg.norm(v))
                signs[i] = sign * (sign * quotient > error)
        return view, cut, signs, int((signs != 0).sum())

    def check_kantorovich_theorem(self) -> tuple[KantorovichOutcome, float]:
        """Check Kantorovich's theorem. If a hypothesis fails that may hold in balanced units, or
        without projecting out the orbits, check the theorem again in that way. Return the
        `KantorovichOutcome` and the length of Newton's step.
        """
        self.H.show_note("the theorem")
        full = self.full
        view = self.view
        found = self._check_kantorovich_on_complement()
        # If the theorem holds in the units of theta, the signs are taken from these units too.
        if found[0].holds and (self.signs == 0).any():
            own = DeflatedEigenpairs(view.plain, view.plain, view.held)
            self.view, self.cut, self.signs, self.n_found = self._prove_signs(own)
            return found
        # True if balanced coordinates were not tried
        untried = view.best is view.plain and full.n <= BALANCED_MAX_N
        if found[0].missing_hypothesis in ("h", "orbit") and untried:
            best = full.eigenpairs_on_complement(full.flat_columns(view.held.columns), full.units)
            same = best.span.shape[1] == view.plain.span.shape[1]
            if same and (eigenvalue_signs(best) != 0).all():
                other = DeflatedEigenpairs(view.plain, best, view.held)
                self.view, self.cut, self.signs, self.n_found = self._prove_signs(other)
                found = self._check_kantorovich_on_complement()
        if found[0].missing_hypothesis == "orbit":
            bare = deflate_symmetries(full, replace(view.held, columns=np.zeros((full.n, 0))))
            self.view, self.cut, self.signs, self.n_found = self._prove_signs(bare)
            found = self._check_kantorovich_on_complement()
        return found

    def _check_kantorovich_on_complement(self) -> tuple[KantorovichOutcome, float]:
        """Check Kantorovich's theorem on the complement of the symmetries, in the coordinates of
        theta and, if it fails, in the coordinates with the most known signs.

        Return the `KantorovichOutcome`, whose radius is in the coordinates of theta, and the length
        of Newton's step in these coordinates.
        """
        g, off = self.gradient
        ob = self.ask.ob
        theta = self.ask.theta
        full = self.full
        plain = self.view.plain
        best = self.view.best
        tried = []
        for cut in (plain,) if best is plain else (plain, best):
            if cut.span.shape[1] != best.span.shape[1]:
                continue
            top = float(cut.c.max())
            scaled = None if cut is plain else cut.c
            assumed = GRADIENT_ERROR_EPS * EPS * self.reach
            g_error = safe_norm(cut.c * assumed) if np.isnan(off) else off * top
            beta, eta, x = newton_step_in_slice(
                full.A, full.error if cut is plain else full.M.error_bound(cut.c), cut, g, g_error
            )
            found = check_kantorovich(beta, eta, partial(third_bound, ob, theta, units=scaled))
            if found.holds and cut.span.shape[1]:
                found = check_orbit_independence(ob, theta, cut, found)
            tried.append((replace(found, radius=found.radius * top), safe_norm(x)))
            if found.holds:
                break
        return tried[-1] if tried[-1][0].holds else tried[0]

    def _newton_step_length(self, cut: ComplementEigenpairs) -> float:
        """Return an upper bound on the length of Newton's step on the eigenvectors of known sign,
        in the coordinates of `cut`. The bound includes the rounding of g.

        The rounding matters near a minimum at which the gradient adds curvature along the orbits.
        Only slopes of about the size of the rounding distinguish such a minimum from a saddle.
        """
        g, off = self.gradient
        is_signed = eigenvalue_signs(cut) != 0
        A = self.full.A
        slack = gradient_rounding_bounds(len(g), off, self.reach, cut)[1]
        vectors = cut.vectors[:, is_signed]
        values = cut.values[is_signed]
        step = np.zeros(self.full.n)
        # Iterative refinement is needed because parts of opposite curvature may cancel.
        for _ in range(3):
            step -= vectors @ (vectors.T @ (cut.c * (g + A @ (cut.c * step))) / values)
        return safe_norm(step) + safe_norm(slack[is_signed] / values)

    def prove_two_signs(self, distance: float) -> TwoSignProof:
        """Return the `TwoSignProof`, the proof of a saddle by two fixed vectors, in the first
        coordinates in which it holds: those of theta, then balanced coordinates. If none holds,
        return the `TwoSignProof` in the coordinates of theta. The argument `distance` is not used.
        """
        full = self.full
        view = self.view
        third = partial(third_bound, self.ask.ob, self.ask.theta)
        bound = radius_of_opposite_signs(
            self.low.quotient + self.low.error, self.high.quotient - self.high.error, third
        )
        plain = TwoSignProof(bound, self._newton_step_length(view.plain))
        if plain.holds or view.best is view.plain:
            return plain
        cut = view.best
        known = eigenvalue_signs(cut)
        if not (known.size and known[0] < 0 < known[-1]):
            return plain
        c = cut.c
        A = full.A
        error = full.M.error_bound(c) + 6 * full.n * EPS * safe_norm(c[:, None] * A * c)
        low, high = (
            float(v @ (c * (A @ (c * v)))) / float(v @ v)
            for v in (cut.vectors[:, 0], cut.vectors[:, -1])
        )
        bound = radius_of_opposite_signs(low + error, high - error, partial(third, units=c))
        found = TwoSignProof(bound, self._newton_step_length(cut), float(c.min()))
        return found if found.holds else plain

    def can_residuals_vanish(self) -> bool:
        """Return True if all residuals may be 0 at a point near theta: H has zero eigenvalues and
        no eigenvalue that is proved negative.
        """
        zeros = (self.signs == 0).any() or self.view.best.span.shape[1] > 0
        return bool(zeros and not (self.signs == -1).any())

    def zero_unstable_signs(self, pair: TwoSignProof) -> tuple[bool, bool]:
        """Set the signs that are measured to be unstable to 0. Return two flags: True if all signs
        are stable, and True if Newton's step reduces the decrement. The argument `pair` is not
        used.
        """
        self.H.show_note("do signs last?")
        g, off = self.gradient
        cut = self.cut
        slack = gradient_rounding_bounds(len(g), off, self.reach, cut)[1]
        slack = slack + np.inf if off == np.inf else slack
        # If the budget of products is used up, `H.short` reports this.
        with suppress(BudgetSpentError):
            self.signs = zero_unproved_signs(
                self.ask.ob,
                self.ask.theta,
                self.signs,
                cut.values,
                cut.c[:, None] * cut.vectors,
                slopes=cut.vectors.T @ (cut.c * g),
                slack=slack,
                spend=self.H.reserve_products,
            )
        return int((self.signs != 0).sum()) == self.n_found, self._newton_step_converges()

    def _newton_step_converges(self) -> bool:
        """Return True if the decrement at the end of Newton's step is at most
        `MAX_DECREMENT_RATIO_AFTER_STEP` times that at theta, or 0 at theta, beyond rounding. Both
        are computed on the eigenvectors of known sign.
        """
        g, off = self.gradient
        is_signed = self.signs != 0
        cut = self.cut
        cut = replace(cut, values=cut.values[is_signed], vectors=cut.vectors[:, is_signed])
        step = -cut.c * (cut.vectors @ (cut.vectors.T @ (cut.c * g) / cut.values))
        before, _ = newton_decrement(g, off, self.reach, cut)
        if before == 0:
            return True
        there = gradient_after_step(self.ask.ob, self.ask.theta, step)
        max_decrement = MAX_DECREMENT_RATIO_AFTER_STEP * before
        return (
            there is not None
            and newton_decrement(there, np.nan, self.reach, cut)[0] <= max_decrement
        )

    @cached_property
    def extremes(
        self,
    ) -> tuple[tuple[float, tuple[float, float]], tuple[float, tuple[float, float]]]:
        """A pair for each end of the spectrum, ``(lambda, (low, high))``: the eigenvalue and an
        interval that contains an exact eigenvalue. The symmetry directions are included.
        """
        plain = self.view.plain
        A = self.full.A
        values = plain.values
        error = plain.ends
        if plain.span.shape[1]:
            product = A @ plain.span
            values = np.concatenate([values, np.linalg.eigvalsh(plain.span.T @ product)])
            error += safe_norm(product)
        low = float(values.min())
        high = float(values.max())
        return (low, (low - error, low + error)), (high, (high - error, high + error))

    def nearness_with_flat_ratio(self) -> Nearness:
        """Return the `Nearness` with ``||Hg|| / (||H|| ||g||)`` and the fraction of g outside the
        range of H added.
        """
        near = self.near
        full = self.full
        plain = self.view.plain
        # If the curvature is below `reached`, no local model of the loss is valid along the whole
        # Newton step.
        reached = near.gradient_norm / (MAX_RELATIVE_STEP * augmented_norm(self.ask.theta))
        flat_ratio = None
        residual = 1.0 if near.gradient_norm > 0 else None
        if near.gradient_norm > 0 and full.norm > 0:
            unit = self.gradient[0] / near.gradient_norm
            (low, _), (high, _) = self.extremes
            flat_ratio = min(1.0, safe_norm(full.A @ unit) / max(abs(low), abs(high)))
            cut = max(plain.error, CURVATURE_TOL * full.norm, reached)
            seen = plain.vectors[:, np.abs(plain.values) > cut]
            residual = max(0.0, 1 - float(np.linalg.norm(seen.T @ unit)) ** 2) ** 0.5
        beside = full.norm <= reached
        return replace(near, flat_ratio=flat_ratio, residual=residual, step_too_long=beside)

    def spectrum_evidence(self, proof: CriticalPointProof) -> SpectrumEvidence:
        """Return the `SpectrumEvidence`, with the inertia that the stable signs determine. If
        `proof` proves a point where all residuals vanish, the inertia is that of the minimum at
        this point.
        """
        best = self.view.best
        s = best.span.shape[1]
        n = self.full.n
        negative, positive = (
            end.vector is not None or proof.two_vectors.holds for end in (self.low, self.high)
        )
        counts = [int((self.signs == sign).sum()) for sign in (1, -1, 0)]
        # Away from a critical point the gradient may add curvature along the orbits of s
        # symmetries; by Cauchy interlacing this adds at most s negative eigenvalues.
        bounds = counts[1], counts[1] + counts[2] + s * (not proof.theorem.holds)
        counts[2] += s
        if proof.interpolation.holds:
            counts = [proof.n_residuals, 0, n - proof.n_residuals]
            bounds = (0, 0)
        bounded = bool(np.isfinite(best.error))
        # `hidden` is True if an eigenvalue counts as zero only because of the measured asymmetry of
        # the products.
        full = self.full
        asymmetry = full.M.asymmetry_error()
        # A matrix that is passed as exact has no rounding error, but rounding may have made it
        # asymmetric. The second term bounds this asymmetry.
        rounding = max(full.error - asymmetry, PRODUCT_ERROR_EPS * EPS * full.norm)
        zeros = np.abs(best.values[eigenvalue_signs(best) == 0])
        hidden = (
            asymmetry > 2 * rounding and (zeros > best.error - full.M.asymmetry_error(best.c)).any()
        )
        # Without an error bound, the sign of curvature may still be proved along one vector for
        # each sign.
        if not bounded:
            bounds = int(negative), n - int(positive)
        (low, low_bounds), (high, high_bounds) = self.extremes
        return SpectrumEvidence(
            low=low,
            low_bounds=low_bounds,
            high=high,
            high_bounds=high_bounds,
            n_positive=counts[0],
            n_negative=counts[1],
            n_zero=counts[2],
            n_symmetry=s,
            n_negative_bounds=bounds,
            n_unstable_signs=self.n_found - int((self.signs != 0).sum()),
            negative=negative,
            positive=positive,
            escape_direction=self.low.vector,
            escape_curvature=None if self.low.vector is None else self.low.quotient,
            is_zero=bool((best.values == 0).all()) and not s,
            has_error_bound=bounded,
            asymmetric=bool(hidden),
            smallest_magnitude=float(np.abs(best.values).min(initial=np.inf)),
            smallest_magnitude_error=best.error,
            balanced=best is not self.view.plain,
        )


def _extreme_vectors(
    H: BudgetedOperator, full: DenseHessian, view: DeflatedEigenpairs, signs: NDArray[np.int_]
) -> tuple[SpectrumEnd, SpectrumEnd]:
    """Return the eigenvectors of the smallest and of the largest eigenvalue, as two `SpectrumEnd`
    objects. The attribute `vector` is None if neither the matrix nor one product proves the sign of
    the curvature.
    """
    known_by = full.error + 4 * full.n * EPS * safe_norm(full.A)
    ends = {-1: SpectrumEnd(), 1: SpectrumEnd()}
    for cut, known in ((view.plain, eigenvalue_signs(view.plain)), (view.best, signs)):
        for sign, i in ((-1, 0), (1, -1)):
            if known.size and known[i] == sign and ends[sign].vector is None:
                v = cut.c * cut.vectors[:, i]
                v = v / np.linalg.norm(v)
                quotient = float(v @ (full.A @ v))
                error = known_by
                if not sign * quotient > error and H.allows(1):
                    quotient, error, _ = H.rayleigh_quotient_with_error(v)
                if sign * quotient > error:
                    ends[sign] = SpectrumEnd(v, quotient, error)
    return ends[-1], ends[1]
