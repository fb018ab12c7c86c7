"""Map the evidence at a point to the verdict: from `Evidence` to `Decision`. Nothing is computed
here.

The first rule that applies gives the verdict. A point is `not_critical` if the loss is proved to
decrease for every step along a ray from this point, or if the point is not near a critical point;
in the second case it is `undecided` if it may be a minimum at active kinks. The next rules are the
proofs: interpolation, Kantorovich's theorem, a lower bound on the curvature, two directions of
opposite curvature. Then come the rules for kinks at theta, and last the rules for measurements,
whose verdicts state a risk or the missing hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto

import numpy as np

from .theorem import KantorovichOutcome

NAN = float("nan")
INF = float("inf")
UNTRIED_OUTCOME = KantorovichOutcome(False, INF, INF, INF, INF, INF, "untried")


class Reason(StrEnum):
    """The rule that gives a verdict. `fastcurv.common.sentences.REASONS` has the template of the
    sentences for each rule.
    """

    INFIMUM_AT_INFINITY = auto()
    GRADIENT_ABOVE_TOL = auto()
    ON_PLATEAU = auto()
    DISTANCE_UNKNOWN = auto()
    MAYBE_KINK_MINIMUM = auto()
    INTERPOLATION = auto()
    KANTOROVICH = auto()
    KANTOROVICH_SADDLE = auto()
    TWO_VECTOR_SADDLE = auto()
    CURVATURE_FLOOR = auto()
    ONE_SIDED_SADDLE = auto()
    ONE_SIDED_HESSIAN = auto()
    NO_ERROR_BOUND = auto()
    ZERO_HESSIAN = auto()
    ASYMMETRIC_PRODUCTS = auto()
    ZERO_EIGENVALUES = auto()
    UNSTABLE_SIGNS = auto()
    GRADIENT_NOT_REDUCED = auto()
    MEASURED_SIGNS = auto()
    MEASURED_SADDLE = auto()
    STABILITY_UNKNOWN = auto()
    CURVATURE_FLOOR_AT_THETA = auto()
    UNSTABLE_CURVATURE = auto()
    BELOW_PRODUCT_ERROR = auto()
    NO_ACCEPTED_RISK = auto()
    RISK_TOO_LARGE = auto()
    UNEXPLAINED_ZERO = auto()
    WITHIN_ACCEPTED_RISK = auto()
    KINK_MINIMUM = auto()  # the proof of `kink_minimum`, which follows an uncertified verdict


@dataclass(frozen=True)
class Nearness:
    """The outcome of the rule that tests whether theta is near a critical point, the numbers that
    the rule compares, and the size and direction of the gradient g relative to H.

    Attributes
    ----------
    near : bool
        True if theta is so near a critical point that the verdict refers to that critical point.
    decrement : float
        ``g'|H|^-1 g / 2``, the change of the loss predicted for Newton's step, minus the part that
        the rounding of g alone explains.
    threshold : float
        Largest decrement at which theta counts as near.
    gradient_norm : float
        ``||g||``.
    loss : float
        The loss f at theta, or NaN if it was not computed.
    gradient_tol : float
        Largest norm of a gradient in the direction of g at which theta counts as near. If the
        caller gave a tolerance, it is that tolerance, which then replaces the rule.
    strict : bool
        True if the decrement is also at most the threshold for float64, which is smaller than the
        threshold for an objective of lower precision. A certificate requires this.
    budget_exhausted : bool
        True if there were too few products to determine whether theta is near.
    flat_ratio, residual : float or None
        ``||Hg|| / (||H|| ||g||)``, and the fraction of g outside the range of H.
    step_too_long : bool
        True if the Newton step for g is too long for any local model of the loss to be valid.
    within_digits : bool
        True if Newton's step changes theta by at most 1e-10 of its length, measured by |H|. theta
        is then near if the theorem proves a critical point.
    """

    near: bool = True
    decrement: float = 0.0
    threshold: float = 0.0
    gradient_norm: float = 0.0
    gradient_tol: float = 0.0
    strict: bool = True
    budget_exhausted: bool = False
    flat_ratio: float | None = None
    residual: float | None = None
    step_too_long: bool = False
    within_digits: bool = False
    loss: float = NAN

    @property
    def is_plateau(self) -> bool:
        """True if theta is not near a critical point, at least 90% of the gradient lies outside the
        range of H, and H is flat along the gradient. H is flat if its curvature along g is small
        relative to ||H||, or so small that the Newton step is too long for a local model.
        """
        if self.near or self.budget_exhausted or self.residual is None:
            return False
        flat = self.flat_ratio is None or self.flat_ratio <= 0.25 or self.step_too_long
        return self.residual >= 0.9 and flat


@dataclass(frozen=True, eq=False)
class SpectrumEvidence:
    """The eigenvalues found at theta, and the signs of curvature that are known.

    Attributes
    ----------
    low, high : float
        The smallest and the largest computed eigenvalue.
    low_bounds, high_bounds : tuple of float
        Bounds ``(below, above)`` of an interval that contains an eigenvalue, for each end of the
        spectrum.
    n_positive, n_negative, n_zero : int or None
        Inertia: the numbers of positive and negative eigenvalues, and of those without a known
        sign. None if the inertia is not known, as for large n.
    n_symmetry : int or None
        Number of zero eigenvalues that proved symmetries explain, at most `n_zero`, or None if it
        is not known.
    n_negative_bounds : (int, int)
        Lower and upper bound on the number of negative eigenvalues.
    n_unstable_signs : int
        Number of eigenvalues whose sign is proved at theta but may change between theta and the
        critical point.
    negative, positive : bool
        True if curvature of that sign is proved at theta, along one vector.
    escape_direction, escape_curvature : ndarray, shape (n,), and float, or None
        Unit vector of negative curvature and its Rayleigh quotient, or None if no negative
        curvature is proved.
    is_zero : bool
        True if all products with H were 0.
    has_error_bound : bool
        True if a bound on the error of the eigenvalues is known.
    asymmetric : bool
        True if some eigenvalues count as zero only because the products were measured to be
        asymmetric.
    smallest_magnitude, smallest_magnitude_error : float
        The smallest ``|lambda|`` on the complement of the symmetry directions, and a bound on its
        error.
    balanced : bool
        True if `smallest_magnitude` is in balanced coordinates.
    curvature_floor : float
        Lower bound on all eigenvalues at theta.
    risk : float
        Probability that curvature of the other sign was missed if not all eigenvalues were
        computed.
    accepted_risk : float or None
        Largest risk that the caller accepts, or None if the caller accepts none.
    n_steps_needed : int
        Number of Lanczos steps that reduce the risk to `accepted_risk`, or to 0.01 if
        `accepted_risk` is None.
    has_unexplained_zero : bool
        True if not all eigenvalues were computed, an eigenvalue is 0 to rounding, and no known
        symmetry explains this eigenvalue.
    complement_ends : (float, float) or None
        The ends of the spectrum on the complement of the symmetry directions, if not all
        eigenvalues were computed.
    """

    low: float = NAN
    high: float = NAN
    low_bounds: tuple[float, float] = (NAN, NAN)
    high_bounds: tuple[float, float] = (NAN, NAN)
    n_positive: int | None = None
    n_negative: int | None = None
    n_zero: int | None = None
    n_symmetry: int | None = None
    n_negative_bounds: tuple[int, int] = (0, 0)
    n_unstable_signs: int = 0
    negative: bool = False
    positive: bool = False
    escape_direction: np.ndarray | None = None
    escape_curvature: float | None = None
    is_zero: bool = False
    has_error_bound: bool = True
    asymmetric: bool = False
    smallest_magnitude: float = 0.0
    smallest_magnitude_error: float = 0.0
    balanced: bool = False
    curvature_floor: float = -INF
    risk: float = 1.0
    accepted_risk: float | None = None
    n_steps_needed: int = 0
    has_unexplained_zero: bool = False
    complement_ends: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.n_unexplained_zeros < 0:
            raise ValueError(
                f"n_symmetry must be at most n_zero, got {self.n_symmetry} and {self.n_zero}."
            )

    @property
    def n_unexplained_zeros(self) -> int:
        """The number of zero eigenvalues that no proved symmetry explains, or 0 if the inertia is
        not known.
        """
        return 0 if self.n_zero is None else self.n_zero - (self.n_symmetry or 0)

    @property
    def has_inertia(self) -> bool:
        """True if the inertia is known because all eigenvalues were computed."""
        return self.n_positive is not None

    @property
    def kind(self) -> str:
        """The kind that the inertia determines: "saddle", "minimum", "maximum", or "degenerate" if
        no eigenvalue has a known sign or the inertia is not known.
        """
        if self.n_negative and self.n_positive:
            return "saddle"
        return "minimum" if self.n_positive else "maximum" if self.n_negative else "degenerate"


@dataclass(frozen=True)
class TwoSignProof:
    """The proof of a saddle by two fixed vectors. Along these vectors the curvatures have opposite
    signs within `radius` of theta, and the computed Newton step has length `distance`. Both lengths
    are measured in coordinates x with ``theta = c x``, where every entry of c is at least `unit`.
    """

    radius: float = 0.0
    distance: float = INF
    unit: float = 1.0

    @property
    def holds(self) -> bool:
        """True if the curvatures have opposite signs along the whole Newton step."""
        return self.radius > self.distance


@dataclass(frozen=True)
class CriticalPointProof:
    """The proof about the critical point near theta, and the measurements that are used if there is
    no proof.

    Attributes
    ----------
    theorem : KantorovichOutcome
        Kantorovich's theorem for the gradient, on the complement of the symmetry directions. If it
        holds, a critical point with the inertia found lies within its radius.
    interpolation : KantorovichOutcome
        Kantorovich's theorem for the residuals. If it holds, a point of loss 0 lies within its
        radius.
    n_residuals : int
        Number of residuals if `interpolation` holds.
    two_vectors : TwoSignProof
        The proof of a saddle by two fixed vectors.
    signs_stable : bool
        True if the signs of curvature were measured, or are proved, to be the same from theta to
        the critical point.
    gradient_decreases : bool
        True if Newton's step was measured, or is proved, to reduce the gradient.
    budget_exhausted : bool
        True if there were too few products for these measurements.
    """

    theorem: KantorovichOutcome = UNTRIED_OUTCOME
    interpolation: KantorovichOutcome = UNTRIED_OUTCOME
    n_residuals: int = 0
    two_vectors: TwoSignProof = TwoSignProof()
    signs_stable: bool = True
    gradient_decreases: bool = True
    budget_exhausted: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """All findings at a point, from which `decide` derives the verdict and its sentence.

    Attributes
    ----------
    nearness : Nearness
        The distance to a critical point.
    spectrum : SpectrumEvidence
        The eigenvalues and the known signs of curvature.
    proof : CriticalPointProof
        The proofs and measurements for the critical point. If `signs_stable` is False, the inertia
        either is not known or counts the eigenvalues of unstable sign as zeros, which no symmetry
        explains. So no verdict that rests on the inertia depends on an unstable sign.
    infimum_at_infinity : bool
        True if the loss is proved to decrease for every step along a ray from theta, to an infimum
        that is not attained.
    n_kinks : int
        Number of pre-activations that are at a kink within rounding.
    loss_decreases : bool
        True if kinks are active and the loss was measured to decrease. Near a critical point it is
        measured along `escape_direction` and the opposite direction, elsewhere along -g.
    error_bound_assumed : bool
        True if no bound on the rounding errors of products is known, so that the signs at theta
        depend on an assumption about these errors.
    n_products : int
        Number of products so far.
    """

    nearness: Nearness = field(default_factory=Nearness)
    spectrum: SpectrumEvidence = field(default_factory=SpectrumEvidence)
    proof: CriticalPointProof = field(default_factory=CriticalPointProof)
    infimum_at_infinity: bool = False
    n_kinks: int = 0
    loss_decreases: bool = False
    error_bound_assumed: bool = False
    n_products: int = 0

    def __post_init__(self) -> None:
        stable = self.proof.signs_stable or not self.spectrum.has_inertia
        if not (stable or self.spectrum.n_unexplained_zeros):
            raise ValueError(
                "eigenvalues of unstable sign must count as zeros in a known inertia, got "
                "signs_stable=False and no zero eigenvalue that is not explained by a symmetry."
            )


@dataclass(frozen=True)
class Decision:
    """The verdict and the rule that gives it.

    Attributes
    ----------
    kind : str
        The kind of the point, as in `CriticalPoint`.
    certified : bool
        True if the verdict is proved.
    rule : Reason
        The rule that gives the verdict.
    radius : float or None
        Radius of the ball around theta for which the verdict is proved, or None if it is not.
    failure_probability : float
        0 if certified, the risk if the verdict comes from random probes, NaN otherwise.
    """

    kind: str
    certified: bool
    rule: Reason
    radius: float | None = None
    failure_probability: float = NAN


def decide(evidence: Evidence) -> Decision:
    """Return the `Decision` of the first rule that applies to the evidence.

    Examples
    --------
    >>> theorem = KantorovichOutcome(True, 1e-9, 0.1, 1.0, 1e-9, 1.0)
    >>> decide(
    ...     Evidence(
    ...         spectrum=SpectrumEvidence(n_positive=2, n_negative=0, n_zero=0),
    ...         proof=CriticalPointProof(theorem),
    ...     )
    ... ).kind
    'minimum'
    """
    nearness = evidence.nearness
    spectrum = evidence.spectrum
    if evidence.infimum_at_infinity:
        return Decision("not_critical", False, Reason.INFIMUM_AT_INFINITY)
    if not nearness.near:
        if nearness.budget_exhausted:
            return Decision("undecided", False, Reason.DISTANCE_UNKNOWN)
        # Minima at active kinks are proved separately, in `kink_minimum`.
        if evidence.n_kinks and not evidence.loss_decreases:
            return Decision("undecided", False, Reason.MAYBE_KINK_MINIMUM)
        if nearness.is_plateau:
            return Decision("not_critical", False, Reason.ON_PLATEAU)
        return Decision("not_critical", False, Reason.GRADIENT_ABOVE_TOL)
    proved = _decide_by_proof(spectrum, evidence.proof) if nearness.strict else None
    if proved is not None:
        return proved
    # At a kink H describes the loss on one side only.
    if evidence.n_kinks:
        if spectrum.negative and spectrum.positive and evidence.loss_decreases:
            return Decision("saddle", False, Reason.ONE_SIDED_SADDLE)
        return Decision("undecided", False, Reason.ONE_SIDED_HESSIAN)
    if spectrum.has_inertia:
        return _decide_by_inertia(spectrum, evidence.proof)
    return _decide_by_estimates(spectrum, evidence.proof)


def _decide_by_proof(spectrum: SpectrumEvidence, proof: CriticalPointProof) -> Decision | None:
    """Return the certified `Decision`, or None if nothing is proved."""
    interpolation = proof.interpolation
    if interpolation.holds:
        return Decision("minimum", True, Reason.INTERPOLATION, interpolation.radius, 0.0)
    kind = spectrum.kind
    theorem = proof.theorem
    if theorem.holds and spectrum.has_inertia:
        if kind != "degenerate" and not spectrum.n_unexplained_zeros:
            rule = Reason.KANTOROVICH_SADDLE if kind == "saddle" else Reason.KANTOROVICH
            return Decision(kind, True, rule, theorem.radius, 0.0)
    elif theorem.holds and spectrum.curvature_floor > 0 and not spectrum.negative:
        return Decision("minimum", True, Reason.CURVATURE_FLOOR, theorem.radius, 0.0)
    pair = proof.two_vectors
    if spectrum.negative and spectrum.positive and pair.holds:
        return Decision("saddle", True, Reason.TWO_VECTOR_SADDLE, pair.radius * pair.unit, 0.0)
    return None


def _decide_by_inertia(spectrum: SpectrumEvidence, proof: CriticalPointProof) -> Decision:
    """Return the `Decision` from measurements if the inertia is known."""
    kind = spectrum.kind
    if not spectrum.has_error_bound:
        return Decision("undecided", False, Reason.NO_ERROR_BOUND)
    if spectrum.is_zero:
        return Decision("degenerate", False, Reason.ZERO_HESSIAN)
    if proof.budget_exhausted:
        return Decision("undecided", False, Reason.STABILITY_UNKNOWN)
    if kind == "saddle":
        return Decision("saddle", False, Reason.MEASURED_SADDLE)
    if spectrum.n_unexplained_zeros and spectrum.asymmetric:
        return Decision("undecided", False, Reason.ASYMMETRIC_PRODUCTS)
    if spectrum.n_unexplained_zeros or kind == "degenerate":
        rule = Reason.ZERO_EIGENVALUES if proof.signs_stable else Reason.UNSTABLE_SIGNS
        return Decision("degenerate", False, rule)
    if not proof.gradient_decreases:
        return Decision("undecided", False, Reason.GRADIENT_NOT_REDUCED)
    return Decision(kind, False, Reason.MEASURED_SIGNS)


def _decide_by_estimates(spectrum: SpectrumEvidence, proof: CriticalPointProof) -> Decision:
    """Return the `Decision` from measurements if the inertia is unknown."""
    if spectrum.is_zero:
        return Decision("degenerate", False, Reason.ZERO_HESSIAN)
    if spectrum.curvature_floor > 0:
        return Decision("undecided", False, Reason.CURVATURE_FLOOR_AT_THETA)
    if proof.budget_exhausted:
        return Decision("undecided", False, Reason.STABILITY_UNKNOWN)
    if not proof.signs_stable:
        return Decision("undecided", False, Reason.UNSTABLE_CURVATURE)
    if spectrum.negative and spectrum.positive:
        return Decision("saddle", False, Reason.MEASURED_SADDLE)
    if not (spectrum.negative or spectrum.positive):
        return Decision("undecided", False, Reason.BELOW_PRODUCT_ERROR)
    if not proof.gradient_decreases:
        return Decision("undecided", False, Reason.GRADIENT_NOT_REDUCED)
    if spectrum.accepted_risk is None:
        return Decision("undecided", False, Reason.NO_ACCEPTED_RISK)
    if not spectrum.risk <= spectrum.accepted_risk:  # also for a risk of NaN
        return Decision("undecided", False, Reason.RISK_TOO_LARGE)
    if spectrum.has_unexplained_zero:
        return Decision("degenerate", False, Reason.UNEXPLAINED_ZERO, None, spectrum.risk)
    likely = "minimum" if spectrum.positive else "maximum"
    return Decision(likely, False, Reason.WITHIN_ACCEPTED_RISK, None, spectrum.risk)
