"""Classification of points by `classify`, with verdicts that claim no more than the evidence proves
or measures.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    MatrixOperator,
    check_positive,
    check_positive_int,
    check_real_number,
    check_rng,
    check_theta,
)
from ..common.errors import OBJECTIVE_HINT, require_attrs
from ..common.linalg import SECONDS_PER_N_CUBED, NotFiniteError
from ..common.objectives import (
    BudgetedOperator,
    budgeted_hessian,
    call_certificate,
    cast_to_float64,
    round_to_dtype,
    user_call_guard,
)
from ..common.progress import show_bar
from ..common.protocols import Seed, SupportsDerivatives, capability, missing_bound_reason
from ..common.runtime import (
    RESERVED_TIME_FRACTION,
    SERIAL_BLAS_MAX_N,
    OutOfTime,
    is_time_up,
    serial_blas_context,
    time_limit,
    with_nearest_rounding,
)
from ..common.vectors import safe_norm
from .decide import (
    UNTRIED_OUTCOME,
    CriticalPointProof,
    Decision,
    Evidence,
    Nearness,
    Reason,
    SpectrumEvidence,
    TwoSignProof,
    decide,
)
from .dense import InertiaByEigenpairs, inertia_by_matrix
from .evidence import ClassifyOptions, InertiaStrategy
from .iterative import InertiaByProducts, TimedOutInertia, is_far_from_critical_point
from .kink_minimum import certify_kink_minimum
from .nearness import (
    CurvatureCoordinates,
    follow_newton_steps,
    has_descent_along_gradient,
    has_descent_on_either_side,
)
from .report import CriticalPoint, VerdictEvidence
from .theorem import EPS, KantorovichOutcome, certify_residual_zero
from .verdict_fields import verdict_fields

# maximum number of parameters at which all eigenvalues are computed even if the gradient is large
CLASSIFY_ALWAYS_DENSE_MAX_N = 256
# maximum number of rows of a matrix whose eigenvalues are computed by one BLAS thread, because
# further threads would not save time
SERIAL_EIGENSYSTEM_MAX_N = 4096
# fraction of the time limit for computing all eigenvalues; the rest is reserved for a verdict from
# Hessian-vector products
DENSE_TIME_FRACTION = 0.8
MIN_VERDICT_PRODUCTS = 4  # minimum number of products that a verdict takes
# minimum number of products that must be left to classify the point reached by Newton steps
MIN_NEAREST_PRODUCTS = 20
# minimum time allowed for a verdict from a few products, even if the time limit has passed
MIN_VERDICT_SECONDS = 0.05
MAX_JACOBIAN_ENTRIES = 1 << 26  # maximum number of entries of a Jacobian that is formed


@with_nearest_rounding
def classify(
    ob: SupportsDerivatives,
    theta: ArrayLike,
    *,
    gradient_tol: float | None = None,
    failure_probability: float | None = None,
    max_products: int | None = None,
    max_time: float | None = None,
    dense_below: float = 4096,
    rng: Seed = 0,
    progress: bool | None = None,
) -> CriticalPoint:
    """Classify a point as a minimum, maximum, saddle, degenerate, not_critical or undecided, and
    return the verdict with its evidence.

    Parameters
    ----------
    ob : object
        Any object with ``n_params``, ``gradient(theta)`` and ``hessian(theta)``. The methods
        ``value(theta)`` and ``rounding_bound(theta)`` are used if they exist. Proved bounds are
        optional attributes of the object or of its ``certificates``: ``third_bound(theta,
        radius)``, ``precise_gradient(theta)``, ``loss_lower_bound``, ``orbits(theta, radius)``,
        ``kinks(theta)``, ``ray_to_infimum(theta)``, ``residual_bounds(theta, radius)``,
        ``curvature_floor(theta)``, ``probes(theta)`` and ``saturation(theta)``. Optional attributes
        of the operator that ``hessian(theta)`` returns are ``rounding_bound(v)``,
        ``astype(dtype)`` and ``gradient``. `fastcurv.common.protocols`
        describes all of these.
    theta : array_like, shape (n,)
        The point.
    gradient_tol : float, optional
        Tolerance on ``||g||`` for the gradient g. By default theta is near a critical point if
        Newton's step is predicted to change the loss f by at most ``1e-8 (f - c)``, where c is a
        lower bound on f, or by at most the rounding error of f: ``g'|H|^-1 g / 2 <= max(1e-8 (f -
        c), rounding of f)``. The field `gradient_tol` of the result is then the largest norm of a
        gradient in the direction of g that passes this test.
    failure_probability : float, optional
        Largest accepted probability that a verdict `minimum` or `maximum` from random probes, at
        large n, is wrong. Curvature above ``-1e-4 (lambda_max - lambda_min)`` then counts as
        nonnegative. By default no such verdict is given.
    max_products : int, optional
        Maximum number of Hessian-vector products. By default a verdict uses as many products as it
        needs. If the maximum is below n, the method for large n is used. If too few products are
        left to measure whether signs are stable, the verdict is `undecided`.
    max_time : float, optional
        Time limit in seconds, which may be exceeded by the time of a few products. The verdict then
        uses the evidence found so far, and its reason names the limit. The computation of all
        eigenvalues is not started if its estimated time exceeds the limit. It is stopped after four
        fifths of the time, so that the last fifth is left for products.
    dense_below : int
        If n is below this number, the whole spectrum is computed from the matrix, in ``O(n^3)``
        operations. A network assembles the matrix layer by layer, any other objective by n
        products. If n is above 256 and the gradient is far above its
        tolerance, a few products are used instead.
    rng : None, int or numpy.random.Generator
        Seed of the random choices. The same integer gives bitwise identical results.
    progress : bool, optional
        Whether to show a progress bar of products and the current activity. By default it is shown
        on a terminal if the call takes more than 2 s.

    Returns
    -------
    CriticalPoint
        The kind, a sentence that gives the reason, and all numbers from which the kind follows.

    Raises
    ------
    ValueError
        If theta, the gradient or a product is not finite, or an option has an invalid value.
    TypeError
        If `ob` or an option has the wrong type.

    See Also
    --------
    minimize, find_critical_point, escape, inertia

    Notes
    -----
    *Certified* means proved by the theorem of Newton and Kantorovich [1]_. Let ``||H^-1|| <=
    beta``, ``||H^-1 g|| <= eta``, and let L be a Lipschitz constant of H on the ball of radius ``2
    eta``. If ``h = beta L eta < 1/2``, exactly one critical point lies in that ball, in the slice
    orthogonal to proved symmetries, and every eigenvalue has the same sign at theta and at this
    point. If the theorem does not hold in the units of theta, units that balance the parameters are
    tried. In the units of theta the ball is then an ellipsoid around theta, and ``radius`` is its
    longest semi-axis, within which other critical points may lie. beta, eta and L are bounds:
    eigenvalues include the errors of the products and the eigensolver, g is computed in extended
    precision if the objective supports this, and L comes from majorants.

    Three other proofs are used. The residuals of an mse network are proved to vanish at a global
    minimum near theta. For a saddle, two fixed vectors are proved to have curvatures of opposite
    signs on a ball larger than Newton's step. At large n, a lower bound on the curvature is proved.
    If a bound is missing, nothing is certified. Signs of curvature are then measured again at
    several multiples of Newton's step, in both directions, and unstable signs count as zeros. If an
    operator or a gradient has no bound on its error, an error of at most ``64 eps ||H|| ||v||`` or
    ``64 eps |H| |theta|`` is assumed.

    *Invariance*. Kind, `certified` and inertia do not change if the loss is multiplied by a number,
    if inputs or targets are scaled and the first or last layer compensates for this, or if a layer
    of relu or linear units is scaled and the next layer compensates. This holds for networks in
    float64 up to n = 1500. There the errors of all entries of H are bounded, and eigenvalues, the
    theorem and two fixed vectors are also tried in balanced units, which follow any rescaling, even
    of collapsed units.

    Verdicts may change under rescaling in borderline cases: if a slope, or an end of the spectrum
    proved by one product, is near a rounding error that is bounded by one norm in the units of
    theta; if h is near 1/2; if the ball is hardly larger than Newton's step, or larger only in the
    units of theta; if the stability of a sign, or a decrease across a kink, was measured and not
    proved; and if numbers are near 1e-300. An eigenvalue within its error counts as zero. Without
    bounds for all entries, that error is one number in the units of theta. The verdict on the
    eigenvalues of smallest magnitude may then depend on these units. The same is possible in
    float32, and above n = 1500 if H is not definite or has zeros in all units.

    *Small n*. One eigendecomposition is computed on the complement of the symmetries. Another one
    in balanced coordinates is computed if H is not definite (up to n = 1500), or if it might
    determine the signs of all remaining zeros (above n = 1500). For n >= 768 a minimum without
    symmetries is proved by two Cholesky factors instead, at a tenth of the cost.

    *Large n*. The proof that the residuals of an mse network vanish is tried if its Jacobian has at
    most 2^26 entries. Otherwise a Rayleigh quotient
    below minus its rounding bound proves a negative eigenvalue, and a quotient above its rounding
    bound proves a positive eigenvalue. The absence of negative eigenvalues is proved only if the
    objective has a lower bound on its curvature. With `failure_probability` it is reported at that
    risk, by the bound of [2]_ for Lanczos from a random start, which holds for H at theta only. The
    page "how to read a verdict" explains each claim.

    References
    ----------
    .. [1] J. M. Ortega and W. C. Rheinboldt, Iterative Solution of Nonlinear Equations in Several
           Variables, 1970, 12.6.
    .. [2] J. Kuczynski and H. Wozniakowski, Estimating the largest eigenvalue by the power and
           Lanczos algorithms with a random start, SIAM J. Matrix Anal. Appl. 13, 1992.
    .. [3] C. G. Frye et al., Critical point-finding methods reveal gradient-flat regions of deep
           network losses, Neural Computation 33, 2021.

    Examples
    --------
    >>> from fastcurv.testing import lecture_toy
    >>> report = classify(lecture_toy(), [0.0, 0.0])
    >>> report.kind, report.certified, report.n_negative
    ('saddle', True, 1)
    >>> np.abs(report.escape_direction).round(3)
    array([0.707, 0.707])
    """
    started = time.perf_counter()
    dense_below = check_real_number(dense_below, "dense_below", "a number of parameters")
    if dense_below != dense_below:
        raise TypeError(f"dense_below must be a number of parameters, got {dense_below}.")
    require_attrs(ob, ("n_params", "gradient", "hessian"), "ob", OBJECTIVE_HINT)
    theta = round_to_dtype(ob, check_theta(ob, theta, "theta", np.float64)).copy()
    # Most code paths draw no random numbers, so an invalid `rng` is rejected at the start.
    seed = check_rng(rng)
    if gradient_tol is not None:
        gradient_tol = check_positive(gradient_tol, "gradient_tol", zero=True)
    if failure_probability is not None:
        failure_probability = check_positive(failure_probability, "failure_probability")
        if failure_probability >= 1:
            raise ValueError(
                f"failure_probability must be a number between 0 and 1, got {failure_probability}."
            )
    ask = ClassifyOptions(
        ob,
        theta,
        gradient_tol,
        failure_probability,
        None if max_products is None else check_positive_int(max_products, "max_products"),
        float(dense_below),
        seed,
        None if max_time is None else check_positive(max_time, "max_time"),
    )
    n = theta.size
    seconds = SECONDS_PER_N_CUBED * float(n) ** 3
    with (
        np.errstate(all="ignore"),
        show_bar(None, "classify", progress, seconds if ask.dense else 0.0) as shown,
        user_call_guard(ask.ob, ask.theta),
        time_limit(ask.max_time),
        serial_blas_context(
            n > SERIAL_BLAS_MAX_N and min(n, ask.dense_below) <= SERIAL_EIGENSYSTEM_MAX_N
        ),
    ):
        return _classify_point(ask, shown, started)


def _classify_point(ask: ClassifyOptions, shown: Any, started: float) -> CriticalPoint:
    """Return the verdict of `classify` on theta. `shown` is the progress display, and `started` is
    the time at which the call of `classify` began.
    """
    H = budgeted_hessian(ask.ob, ask.theta)
    H.shown = shown
    H.most = np.inf if ask.max_products is None else ask.max_products
    inertia, evidence = _examine_spectrum(ask, H)
    outcome = decide(evidence)
    # The time limit applies to the computation, not to the construction of the reason.
    with time_limit(np.inf):
        point = _make_verdict(inertia.ask, evidence, outcome)
    settled = point.certified or point.kind == "not_critical" or inertia.ask.dense
    if (
        ask.max_time is not None
        and not settled
        and point.evidence.limit != "max_time"
        and (is_time_up() or replace(ask, max_time=None).dense)
    ):
        clauses = point._clauses | {"time_limit": "search" if is_time_up() else "matrix"}
        evidence_at_limit = replace(point.evidence, limit="max_time")
        point = replace(point, evidence=evidence_at_limit, _clauses=clauses)
    with suppress(OutOfTime):
        point = (
            point
            if point.certified
            else _refine_verdict(ask, evidence, outcome, point, inertia, shown)
        )
    return replace(point, n_products=H.count, wall_time=time.perf_counter() - started)


def _refine_verdict(
    ask: ClassifyOptions,
    found: Evidence,
    outcome: Decision,
    point: CriticalPoint,
    inertia: InertiaStrategy,
    shown: Any,
) -> CriticalPoint:
    """Return the uncertified verdict `point` replaced by the proof of a minimum at active kinks, or
    extended by the critical point that Newton's steps reach. If neither is found, return `point`,
    which then states how these steps ended if theta is not critical.
    """
    # theta may be a minimum at active kinks, or zero eigenvalues may come from duplicated units.
    zeros = outcome.rule in (
        Reason.ZERO_EIGENVALUES,
        Reason.UNSTABLE_SIGNS,
        Reason.UNSTABLE_CURVATURE,
    )
    copies = zeros and not found.spectrum.n_negative and np.max(getattr(ask.ob, "l2", 0.0)) > 0
    if found.n_kinks > 0 or copies:
        kink_minimum = certify_kink_minimum(ask.ob, ask.theta)
        if kink_minimum is not None:
            return replace(
                point,
                kind="minimum",
                certified=True,
                failure_probability=0.0,
                rule=Reason.KINK_MINIMUM,
                evidence=replace(
                    point.evidence,
                    missing_hypothesis=None,
                    limit=None,
                    plateau=False,
                    gain_left=np.nan,
                    n_symmetry=None,
                    n_active_kinks=kink_minimum.n_kinks,
                ),
                radius=kink_minimum.radius,
                kantorovich=kink_minimum.kantorovich,
                escape_direction=None,
                escape_curvature=None,
                # At kinks H describes the loss on one side only, so the inertia is unknown.
                n_positive=None,
                n_negative=None,
                n_zero=None,
                _numbers=point._numbers | kink_minimum.numbers,
                _clauses={"subject": point._clauses["subject"]} | kink_minimum.clauses,
            )
    if ask.seek and outcome.rule in (Reason.GRADIENT_ABOVE_TOL, Reason.ON_PLATEAU):
        led, contracts = _classify_nearest_point(ask, point, inertia, shown)
        if led is not None:
            return led
        spent = inertia.H.products_left < MIN_NEAREST_PRODUCTS or is_time_up()
        missed = "rounding" if contracts else "plateau" if point.evidence.plateau else "diverged"
        ended = replace(point.evidence, newton_steps="limit" if spent else missed)
        return replace(point, evidence=ended)
    if ask.seek and found.proof.theorem.missing_hypothesis == "h":
        # The theorem fails only because h >= 1/2, and Newton's steps to the critical point reduce
        # h.
        led, _ = _classify_nearest_point(ask, point, inertia, shown)
        if led is not None and led.nearest_verdict is not None and led.nearest_verdict.certified:
            return led
    return point


def _examine_spectrum(
    ask: ClassifyOptions, H: BudgetedOperator
) -> tuple[InertiaStrategy, Evidence]:
    """Return the inertia, computed by a strategy that fits the options and the remaining time, and
    the `Evidence`.

    If theta is clearly far from a critical point, a few products show this at 1% of the cost of all
    eigenvalues. A few products are also used if the time limit for all eigenvalues is reached.
    """
    cheap = replace(ask, dense_below=0.0)
    with suppress(OutOfTime):
        if ask.dense and H.n > CLASSIFY_ALWAYS_DENSE_MAX_N and is_far_from_critical_point(ask, H):
            inertia, evidence = _select_inertia_strategy(cheap, H)
            if decide(evidence).rule in (
                Reason.GRADIENT_ABOVE_TOL,
                Reason.ON_PLATEAU,
                Reason.MAYBE_KINK_MINIMUM,
            ):
                return inertia, evidence
        if not ask.dense:
            return _select_inertia_strategy(ask, H)
        with suppress(OutOfTime), time_limit(ask.max_time and DENSE_TIME_FRACTION * ask.max_time):
            return _select_inertia_strategy(ask, H)
        return _select_inertia_strategy(cheap, H)
    H.most = H.count
    grace = max(MIN_VERDICT_SECONDS, RESERVED_TIME_FRACTION * (ask.max_time or np.inf))
    # The time limit has passed, but a few products still give a verdict.
    with time_limit(np.inf):
        with suppress(OutOfTime), time_limit(grace):
            if MIN_VERDICT_PRODUCTS * H.pace < grace:
                return _select_inertia_strategy(cheap, H)
        inertia = TimedOutInertia(cheap, H)
        unknown = SpectrumEvidence(n_negative_bounds=(0, H.n))
        return inertia, Evidence(nearness=inertia.near, spectrum=unknown, n_products=H.count)


def _select_inertia_strategy(
    ask: ClassifyOptions, H: BudgetedOperator
) -> tuple[InertiaStrategy, Evidence]:
    """Examine theta by the strategy that `ask` selects. Return the inertia and the `Evidence`:
    gradient, spectrum, kinks and, near a critical point, the proofs. If there is no proof, the
    evidence states whether the signs of curvature were measured to be stable.
    """
    ob = ask.ob
    theta = ask.theta
    proof = CriticalPointProof()
    inertia = inertia_by_matrix(ask, H) if ask.dense else InertiaByProducts(ask, H)
    n_kinks = int(call_certificate(ob, "kinks", theta, default=0))
    close = inertia.near.within_digits and ask.dense and ask.gradient_tol is None
    theorem, distance = (
        inertia.check_kantorovich_theorem()
        if inertia.near.near or close
        else (UNTRIED_OUTCOME, np.inf)
    )
    if theorem.holds:
        tol = max(inertia.near.gradient_tol, inertia.near.gradient_norm)
        inertia.near = replace(inertia.near, near=True, gradient_tol=tol)
        proof = CriticalPointProof(
            theorem, two_vectors=TwoSignProof(distance=distance), budget_exhausted=H.short
        )
    elif inertia.near.near:
        # `InertiaByCholesky` is returned only if its theorem holds.
        assert isinstance(inertia, InertiaByEigenpairs | InertiaByProducts)
        two_vectors = inertia.prove_two_signs(distance)
        signs_stable = gradient_decreases = True
        vanish = check_interpolation(ask, H) if inertia.can_residuals_vanish() else None
        interpolation, n_residuals = vanish or (UNTRIED_OUTCOME, 0)
        # At a kink no verdict uses the stability of signs, and the inertia of the one-sided Hessian
        # at theta is reported.
        one_sided = n_kinks > 0 and isinstance(inertia, InertiaByEigenpairs)
        proved = interpolation.holds or two_vectors.holds and inertia.near.strict
        if not (proved or one_sided):
            signs_stable, gradient_decreases = inertia.zero_unstable_signs(two_vectors)
        proof = CriticalPointProof(
            theorem,
            interpolation,
            n_residuals,
            two_vectors,
            signs_stable,
            gradient_decreases,
            H.short,
        )
    seen = inertia.spectrum_evidence(proof)
    g = inertia.gradient[0]
    return inertia, Evidence(
        nearness=inertia.nearness_with_flat_ratio(),
        spectrum=seen,
        proof=proof,
        infimum_at_infinity=call_certificate(ob, "ray_to_infimum", theta) is not None,
        n_kinks=n_kinks,
        loss_decreases=n_kinks > 0
        and (
            has_descent_on_either_side(ob, theta, seen.escape_direction, g)
            if inertia.near.near
            else has_descent_along_gradient(ob, theta, g)
        ),
        error_bound_assumed=bool(missing_bound_reason(H.op))
        and not isinstance(H.op, MatrixOperator),
        n_products=H.count,
    )


def check_interpolation(
    ask: ClassifyOptions, H: BudgetedOperator
) -> tuple[KantorovichOutcome, int] | None:
    """Check Kantorovich's theorem for the residuals of a sum of squares without l2, with at most as
    many residuals as parameters. Return the outcome and the number of residuals, or None if the
    theorem does not apply or the budget is too small.

    Samples of weight 0 are left out, and equal samples count once.
    """
    ob = ask.ob
    theta = ask.theta
    if np.max(getattr(ob, "l2", 0.0)) > 0:
        return None
    here = call_certificate(ob, "residual_bounds", theta, 0.0) if hasattr(ob, "jacobian") else None
    if here is None or not 0 < len(here.residuals) <= theta.size or (here.scale == 0).any():
        return None
    m = len(here.residuals)
    if m * theta.size > MAX_JACOBIAN_ENTRIES or not H.allows(m):
        return None
    H.show_note("do the residuals vanish?")
    rows = getattr(here, "rows", None)
    op = cast_to_float64(ob if rows is None else ob.batch(rows)).jacobian(theta)
    H.record_products(op.shape[0])
    assemble = capability(op, "assembled")
    if assemble is None:
        return None
    J, errors = assemble()
    J = J * here.scale[:, None]
    off = safe_norm(errors * here.scale) + 4 * EPS * safe_norm(J)

    def lipschitz(radius: float) -> float:
        return float(call_certificate(ob, "residual_bounds", theta, radius).lipschitz)

    return certify_residual_zero(J, off, here.residuals, here.error, lipschitz), m


def _classify_nearest_point(
    ask: ClassifyOptions, point: CriticalPoint, inertia: InertiaStrategy, shown: Any
) -> tuple[CriticalPoint | None, bool]:
    """Follow Newton's steps from theta and classify the point that they reach. `shown` is passed to
    `_classify_point`.

    Return a verdict and a flag. The verdict is `point`, the verdict on theta, with the point
    reached, its distance and its verdict added. It is None if the steps reach no critical point
    within the budget. The flag is True if the steps contract.
    """
    H = inertia.H
    H.show_note("where does Newton's step lead?")
    end, n_steps, spent = follow_newton_steps(
        ask.ob, ask.theta, inertia.gradient[0], CurvatureCoordinates(inertia.cut), H.products_left
    )
    H.record_products(spent)
    products_left = H.products_left
    if end is None or products_left < MIN_NEAREST_PRODUCTS:
        return None, end is not None
    end = round_to_dtype(ask.ob, end)
    there = replace(
        ask,
        theta=end,
        gradient_tol=None,
        seek=False,
        max_products=None if ask.max_products is None else int(products_left),
    )
    try:
        at = _classify_point(there, shown, time.perf_counter())
    except (NotFiniteError, np.linalg.LinAlgError, ArithmeticError):
        # The derivatives do not exist at the point reached.
        return None, True
    H.count += at.n_products
    if at.kind == "not_critical":
        return None, True
    reached = replace(
        point,
        nearest_point=end,
        nearest_verdict=at,
        evidence=replace(
            point.evidence,
            nearest_distance=safe_norm(end - ask.theta),
            newton_steps="converged",
            n_newton_steps=n_steps,
        ),
    )
    return reached, True


def _gain_left(near: Nearness, seen: SpectrumEvidence) -> float:
    """Return `VerdictEvidence.gain_left`."""
    if near.is_plateau or seen.escape_curvature is not None:
        return np.inf
    if near.loss == 0:
        return 0.0 if near.decrement == 0 else np.nan
    return near.decrement / abs(near.loss)


def _make_verdict(ask: ClassifyOptions, found: Evidence, outcome: Decision) -> CriticalPoint:
    """Return the `CriticalPoint` of the verdict `outcome` on the evidence `found`, with 0 for the
    number of products and the time.
    """
    near = found.nearness
    seen = found.spectrum
    proved = found.proof
    theorem = proved.interpolation if outcome.rule is Reason.INTERPOLATION else proved.theorem
    has_kantorovich = theorem.h < np.inf and outcome.rule is not Reason.TWO_VECTOR_SADDLE
    texts = verdict_fields(ask, found, outcome)
    return CriticalPoint(
        kind=outcome.kind,
        certified=outcome.certified,
        failure_probability=outcome.failure_probability,
        rule=outcome.rule,
        gradient_norm=near.gradient_norm,
        gradient_tol=near.gradient_tol,
        lambda_min=seen.low,
        lambda_max=seen.high,
        n_positive=seen.n_positive if seen.has_error_bound else None,
        n_negative=seen.n_negative if seen.has_error_bound else None,
        n_zero=seen.n_zero if seen.has_error_bound else None,
        escape_direction=seen.escape_direction,
        escape_curvature=seen.escape_curvature,
        n_params=ask.theta.size,
        n_products=0,
        wall_time=0.0,
        radius=outcome.radius if outcome.certified else None,
        kantorovich=theorem.h if has_kantorovich else None,
        evidence=VerdictEvidence(
            gradient_flat_ratio=near.flat_ratio,
            gradient_residual=near.residual,
            plateau=near.is_plateau,
            lambda_min_bounds=seen.low_bounds,
            lambda_max_bounds=seen.high_bounds,
            n_symmetry=seen.n_symmetry,
            n_negative_bounds=seen.n_negative_bounds,
            n_kinks=found.n_kinks,
            method="dense" if ask.dense else "krylov",
            gain_left=_gain_left(near, seen),
            missing_hypothesis=texts.pop("missing_hypothesis"),
            limit=texts.pop("limit"),
        ),
        **texts,
    )
