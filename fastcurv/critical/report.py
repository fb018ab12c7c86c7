"""The verdict on a critical point with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import ceil, inf, log10
from typing import Any

import numpy as np

from ..common.read_only import FrozenRecord
from ..common.sentences import (
    OBJECTIVE_AUDIENCE,
    REASON_ENDINGS,
    REASONS,
    STATEMENTS,
    VERDICT_ADVICE,
    Audience,
    render,
)
from ..spectrum.results import format_number, to_json_value
from .decide import Reason

# the advice on verdicts "undecided" by their rule, unless a limit of the caller ended the search
ADVICE_BY_REASON = {
    Reason.MAYBE_KINK_MINIMUM: "kinks",
    Reason.ONE_SIDED_HESSIAN: "kinks",
    Reason.NO_ERROR_BOUND: "bounds",
    Reason.ASYMMETRIC_PRODUCTS: "check",
    Reason.BELOW_PRODUCT_ERROR: "check",
    Reason.GRADIENT_NOT_REDUCED: "reduce",
    Reason.CURVATURE_FLOOR_AT_THETA: "reduce",
    Reason.UNSTABLE_CURVATURE: "reduce",
    Reason.RISK_TOO_LARGE: "risk_steps",
}


def place_of_radius(radius: float) -> str:
    """Return the phrase for the place of a certified critical point relative to theta, with the
    radius rounded up to a power of ten.
    """
    return f"within 1e{ceil(log10(radius)):+03d} of theta" if 0 < radius < inf else "at theta"


def verdict_noun_phrase(point: CriticalPoint) -> str:
    """Return the verdict on `point` as a noun phrase for use in a sentence, such as "a certified
    minimum".
    """
    of_kind = f"a {'certified ' * point.certified}{point.kind.replace('_', ' ')}"
    special = {
        "degenerate": "a degenerate point",
        "undecided": "a point of unknown kind",
    }
    return special.get(point.kind, of_kind)


@dataclass(frozen=True, eq=False)
class VerdictEvidence(FrozenRecord):
    """Numbers and conditions from which a `CriticalPoint` follows.

    Attributes
    ----------
    gradient_flat_ratio : float or None
        ``||Hg|| / (||H|| ||g||)``, or None if g or H is 0.
    gradient_residual : float or None
        ``min over p of ||Hp + g|| / ||g||``, for p in the eigenspaces with curvature above
        1e-4 times the largest (at large n in the Krylov space of g). The value is near 1
        if g lies outside the range of H. None if g is 0.
    plateau : bool
        True if theta is not near a critical point, the gradient g lies mostly outside the range of
        H, and H is flat along g.
    lambda_min_bounds, lambda_max_bounds : tuple of float
        Bounds ``(low, high)`` of an interval that contains an eigenvalue, from the residual and the
        rounding bound.
    n_symmetry : int or None
        Number of zero eigenvalues that proved symmetries of the objective explain. None if
        symmetries were not searched for at large n, because they were not needed or too many.
    n_negative_bounds : tuple of int
        Bounds ``(low, high)`` on the number of negative eigenvalues, at the critical point if
        certified, and otherwise of H at theta.
    gain_left : float
        The decrease of the loss f that Newton's step is predicted to give, ``g'|H|^-1 g / 2``, over
        ``|f|``. Infinity on a plateau and where negative curvature was found, because the loss may
        decrease by more. NaN if it was not computed, as for an objective without a value.
    n_kinks : int
        Number of pre-activations at a kink within rounding, where the Hessian is one-sided.
    n_active_kinks : int or None
        Number of active kinks at a proved minimum of a piecewise smooth loss, or None for all other
        verdicts. The inertia is then None, because H is one-sided at kinks.
    method : str
        "dense" if the Hessian was decomposed as a matrix, "krylov" if only products were used.
    nearest_distance : float or None
        ``||nearest_point - theta||``.
    newton_steps : str or None
        How Newton's steps from theta ended, if they were tried: "converged", "diverged", "plateau",
        "rounding" (they converged, but the gradient is still above its tolerance) or "limit".
    n_newton_steps : int or None
        Number of Newton's steps from theta to `nearest_point`.
    missing_hypothesis : str or None
        If the verdict was measured, the hypothesis that a proof lacks, as a key of the clauses
        "missing" in `fastcurv.common.sentences`. None if the verdict is proved or not measured.
    limit : str or None
        "max_time" or "max_products" if this limit of the caller ended the search for evidence that
        the verdict lacks, otherwise None.
    """

    gradient_flat_ratio: float | None
    gradient_residual: float | None
    plateau: bool
    lambda_min_bounds: tuple[float, float]
    lambda_max_bounds: tuple[float, float]
    n_symmetry: int | None
    n_negative_bounds: tuple[int, int]
    n_kinks: int
    method: str
    gain_left: float
    n_active_kinks: int | None = None
    nearest_distance: float | None = None
    newton_steps: str | None = None
    n_newton_steps: int | None = None
    missing_hypothesis: str | None = None
    limit: str | None = None


@dataclass(frozen=True, repr=False, eq=False)
class CriticalPoint(FrozenRecord):
    """The verdict on a point, with its evidence, as returned by `classify`.

    Attributes
    ----------
    kind : str
        "minimum", "maximum", "saddle", "degenerate", "not_critical" or "undecided".
    certified : bool
        True if the verdict is proved by a theorem: a critical point of this kind, with the inertia
        in the fields below, lies within `radius` of theta; or, for a saddle, no point within
        `radius` is a minimum or a maximum.
    failure_probability : float
        0 if certified. If the kind was determined from random probes, the probability that these
        missed curvature of the other sign. NaN otherwise.
    rule : Reason
        The rule that gives the kind, a member of `fastcurv.critical.decide.Reason`.
    reason : str
        Sentences that state what was proved, or what was measured and which hypothesis is missing.
    radius : float or None
        Radius of the ball around theta for which the verdict is proved, or None if not certified.
    kantorovich : float or None
        ``h = beta L eta`` of the theorem, which needs ``h < 1/2``. None if the theorem was not
        tried, a bound is missing, or a saddle is proved by two vectors.
    nearest_point : ndarray, shape (n,), or None
        If the kind is "not_critical", the point reached by at most ten Newton steps from theta, if
        these steps contract to a critical point. If theta is near a critical point, but too far
        from it for the theorem, the point reached if the verdict on that point is certified. None
        otherwise.
    nearest_verdict : CriticalPoint or None
        The verdict at `nearest_point`.
    gradient_norm, gradient_tol : float
        ``||g||``, and the largest norm of a gradient in the direction of g at which theta counts as
        near a critical point. Above this norm, Newton's step would change the loss f by more than
        ``1e-8 (f - c)``, with c a lower bound on f, and by more than the rounding error of f. If
        the caller gave a tolerance, `gradient_tol` is that tolerance.
    lambda_min, lambda_max : float
        The computed extreme eigenvalues of H. At large n these are Ritz values, which lie within
        the spectrum. Zero eigenvalues that symmetries explain are included.
    n_positive, n_negative, n_zero : int or None
        Inertia. None if the inertia is not known, as in general at large n, or if there is no bound
        on the errors of the eigenvalues. `n_zero` counts eigenvalues within their error, those
        whose sign may change between theta and the critical point, and those that proved symmetries
        explain, which are 0 at that point. At a kink the inertia is that of the one-sided Hessian
        at theta.
    index, minimum_ratio : float or None
        ``n_negative / n`` and ``n_positive / n``.
    escape_direction : ndarray, shape (n,), or None
        Unit vector with the most negative curvature found, or None if no curvature is negative by
        more than the error of the products.
    escape_curvature : float or None
        The Rayleigh quotient of `escape_direction`.
    evidence : VerdictEvidence
        Numbers and conditions from which the verdict follows.
    n_params, n_products : int
        Number of parameters, and number of all products that the verdict uses.
    wall_time : float
        Time of the call in seconds.
    """

    kind: str
    certified: bool
    failure_probability: float
    rule: Reason
    gradient_norm: float
    gradient_tol: float
    lambda_min: float
    lambda_max: float
    n_positive: int | None
    n_negative: int | None
    n_zero: int | None
    escape_direction: np.ndarray | None
    escape_curvature: float | None
    n_params: int
    n_products: int
    wall_time: float
    evidence: VerdictEvidence
    radius: float | None = None
    kantorovich: float | None = None
    nearest_point: np.ndarray | None = None
    nearest_verdict: CriticalPoint | None = None
    # numbers and clauses of the reason that are no attributes of their own
    _numbers: dict[str, Any] = field(default_factory=dict, compare=False)
    _clauses: dict[str, Any] = field(default_factory=dict, compare=False)
    _audience: Audience = field(default=OBJECTIVE_AUDIENCE, compare=False)

    @property
    def index(self) -> float | None:
        """The fraction ``n_negative / n``, or None if the inertia is unknown."""
        return None if self.n_negative is None else self.n_negative / self.n_params

    @property
    def minimum_ratio(self) -> float | None:
        """The fraction ``n_positive / n``, or None if the inertia is unknown."""
        return None if self.n_positive is None else self.n_positive / self.n_params

    @property
    def sentence(self) -> str:
        """The verdict in at most 30 words: the kind, whether it is proved, and what to do next.
        `reason` gives the evidence.
        """
        advice = self._advice_sentence
        statement = verdict_statement(self)
        return f"{statement} {advice}" if advice else statement

    @property
    def _n_unexplained(self) -> int:
        return (self.n_zero or 0) - (self.evidence.n_symmetry or 0)

    def _share_of_loss(self, name: str) -> str:
        """Return a change of the loss, by its name in `_numbers`, as a percentage of the loss, or
        as a number if there is no loss to compare it with.
        """
        change, loss = (self._numbers.get(key, np.nan) for key in (name, "loss"))
        share = change / abs(loss) if loss else np.nan
        if not share < inf:
            return format_number(change)
        return (
            f"{100 * share:.2g}%"
            if share < 1
            else f"more than its whole value, {format_number(loss)}"
        )

    @property
    def _statement_key(self) -> str:
        """The key of the sentence in `STATEMENTS`."""
        if self.rule is Reason.INTERPOLATION:
            return "zero_loss"
        if self.kind in ("minimum", "maximum"):
            at_risk = self.rule is Reason.WITHIN_ACCEPTED_RISK
            return "proved" if self.certified else "risk" if at_risk else "measured"
        if self.kind == "saddle":
            return "one_sided_saddle" if self.rule is Reason.ONE_SIDED_SADDLE else "saddle"
        if self.kind == "degenerate":
            if self.rule is Reason.ZERO_HESSIAN:
                return "zero_hessian"
            if self.n_zero is None:
                return "unexplained_zero"
            return "zeros" if self._n_unexplained > 0 else "symmetric_zeros"
        if self.kind == "not_critical":
            if self.rule is Reason.INFIMUM_AT_INFINITY:
                return "infinity"
            if self.gradient_norm <= self.gradient_tol:
                return "not_finite"
            if self.evidence.plateau:
                return "plateau"
            return "step" if self._clauses.get("newton_change") else "gradient"
        special = {Reason.MAYBE_KINK_MINIMUM: "kinks", Reason.DISTANCE_UNKNOWN: "distance"}
        return special.get(self.rule, "undecided")

    @property
    def _advice(self) -> str:
        """The name of the next step to take, a key of `VERDICT_ADVICE`, or ""."""
        if self.kind in ("saddle", "maximum"):
            return "escape"
        if self.kind == "degenerate":
            return "lower"
        if self.kind == "not_critical":
            if self.rule is Reason.INFIMUM_AT_INFINITY:
                return "l2"
            if self.gradient_norm <= self.gradient_tol:
                return ""
            return "plateau" if self.evidence.plateau else "continue"
        near = self.nearest_verdict
        if self.kind == "minimum" or near is not None and near.certified:
            return ""
        if self.evidence.limit is not None:
            return self.evidence.limit
        if self.rule is Reason.NO_ACCEPTED_RISK:
            return "risk" if "suggested_risk" in self._numbers else "precision"
        return ADVICE_BY_REASON.get(self.rule, "")

    @property
    def _advice_sentence(self) -> str:
        """The advice in words for the caller, or ""."""
        arguments, reworded = self._audience
        key = self._advice
        template = reworded.get(key, VERDICT_ADVICE.get(key, ""))
        return render(template, self._numbers | {"at": arguments})

    @property
    def reason(self) -> str:
        """Sentences that state what was proved, or what was measured and which hypothesis is
        missing.
        """
        at = self.nearest_verdict
        numbers = self._numbers | {
            "gradient_norm": float(self.gradient_norm),
            "gradient_tol": float(self.gradient_tol),
            "n_kinks": self.evidence.n_kinks,
            "n_newton_steps": self.evidence.n_newton_steps,
            "nearest": "" if at is None else verdict_noun_phrase(at),
            "nearest_distance": self.evidence.nearest_distance,
            "change": self._share_of_loss("decrement"),
            "allowed_change": self._share_of_loss("threshold"),
        }
        clauses = self._clauses | {
            "newton_steps": self.evidence.newton_steps,
            "missing": self.evidence.missing_hypothesis,
        }
        text = render(f"{REASONS[self.rule]}{REASON_ENDINGS}", numbers, clauses).lstrip()
        return text[0].upper() + text[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as plain numbers, strings, lists and None, which JSON can
        represent.

        Returns
        -------
        dict
            The public attributes by their names, and "advice", the name of the next step to take, a
            key of `fastcurv.common.sentences.VERDICT_ADVICE`, or "". Vectors are lists of
            ``n_params`` numbers, and `evidence` and `nearest_verdict` are dicts. Values that are
            not known or not finite are None.

        Examples
        --------
        >>> import json, numpy as np, fastcurv as fc
        >>> point = fc.classify(fc.testing.lecture_toy(), np.zeros(2))
        >>> facts = json.loads(json.dumps(point.to_dict(), allow_nan=False))
        >>> facts["kind"], facts["n_negative"], len(facts["escape_direction"])
        ('saddle', 1, 2)
        """
        names = [known.name for known in fields(self) if not known.name.startswith("_")]
        found = {name: getattr(self, name) for name in (*names, "reason", "index", "minimum_ratio")}
        return {name: to_json_value(x) for name, x in (found | {"advice": self._advice}).items()}

    def _with_certainty(self, what: str, unproved: str = "not proved") -> str:
        """Return `what` followed by its certainty: "certified", the error probability, or the words
        `unproved`.
        """
        if 0 < self.failure_probability < 1:
            return f"{what}, with an error probability of {format_number(self.failure_probability)}"
        return f"{what}, certified" if self.certified else f"{what}, {unproved}"

    def _title(self) -> str:
        return f"CriticalPoint: {self._with_certainty(self.kind, 'not certified')}"

    def __repr__(self) -> str:
        rows = [self._title(), f"  {self.sentence}", f"  {self.reason}"]
        return "\n".join(rows + [f"  {name:<11} {value}" for name, value in evidence_rows(self)])

    def _format_end(self, which: str) -> str:
        low, high = getattr(self.evidence, f"lambda_{which}_bounds")
        return (
            f"lambda_{which} = {format_number(getattr(self, f'lambda_{which}'))} +- "
            f"{0.5 * (high - low):.1e}"
        )

    def _format_inertia(self) -> str:
        if self.evidence.n_active_kinks is not None:
            return (
                "not defined on kinks, where H is one-sided; along the kinks all curvature is "
                "positive"
            )
        if self.n_negative is None:
            low, high = self.evidence.n_negative_bounds
            count = f"between {low} and {high}" if low < high else f"{low}"
            return f"{count} of {self.n_params} eigenvalues negative"
        explained = f" ({self.evidence.n_symmetry} by symmetry)" if self.evidence.n_symmetry else ""
        return (
            f"{self.n_positive} positive, {self.n_negative} negative, {self.n_zero} "
            f"zero{explained}; fraction positive {format_number(self.minimum_ratio or 0.0)}"
        )


def for_audience(point: CriticalPoint, audience: Audience) -> CriticalPoint:
    """Return the verdict with its advice in the words for `audience`."""
    there = None if point.nearest_verdict is None else for_audience(point.nearest_verdict, audience)
    return replace(point, nearest_verdict=there, _audience=audience)


def verdict_statement(point: CriticalPoint) -> str:
    """Return the kind and whether it is proved, as a sentence without advice."""
    minimum = point.kind == "minimum"
    sign, other = ("positive", "negative") if minimum else ("negative", "positive")
    certainty = "risk" if 0 < point.failure_probability < 1 else "measured"
    certainty = "proved" if point.certified else certainty
    numbers = point._numbers | {
        "kind": point.kind,
        "Kind": point.kind.capitalize(),
        "place": place_of_radius(point.radius or 0.0),
        "sign": sign,
        "other_sign": other,
        "side": "below -" if minimum else "above ",
        "failure_probability": float(point.failure_probability),
        "gradient_norm": float(point.gradient_norm),
        "gradient_tol": float(point.gradient_tol),
        "n": point.n_params,
        "n_unexplained": point._n_unexplained,
        "change": point._share_of_loss("decrement"),
    }
    clauses = {
        "subject": point._clauses.get("subject", "function"),
        "along_symmetry": bool(point.evidence.n_symmetry),
        "except_symmetries": bool(point.evidence.n_symmetry),
        "certainty": certainty,
        "converged": certainty if minimum else None,
    }
    return render(STATEMENTS[point._statement_key], numbers, clauses)


def evidence_rows(point: CriticalPoint) -> list[tuple[str, str]]:
    """Return the rows of the printed evidence as pairs of strings, ``[(name, value), ...]``."""
    gradient_text = (
        f"{format_number(point.gradient_norm)}, tolerance {format_number(point.gradient_tol)}"
    )
    if point.evidence.gradient_flat_ratio is not None:
        gradient_text += (
            f"; ||Hg|| / (||H|| ||g||) = {format_number(point.evidence.gradient_flat_ratio)}"
        )
    rows = [
        ("gradient", gradient_text),
        ("curvature", f"{point._format_end('min')}  to  {point._format_end('max')}"),
        ("inertia", point._format_inertia()),
    ]
    if point.escape_direction is not None and point.escape_curvature is not None:
        bent = f"v'Hv = {format_number(point.escape_curvature)} along escape_direction"
        rows.append(("escape", bent))
    if point.radius is not None:
        h = "" if point.kantorovich is None else f", h = {format_number(point.kantorovich)}"
        where = f"within {format_number(point.radius)} of theta" if point.radius else "at theta"
        where = where if point.radius < np.inf else "at any point"
        # The proof of a saddle by two vectors does not prove that a critical point exists.
        absent = point.kind == "saddle" and point.kantorovich is None
        rows.append(("proof", f"{'no minimum or maximum ' * absent}{where}{h}"))
    if point.nearest_verdict is not None and point.evidence.nearest_distance is not None:
        where = f"at a distance of {format_number(point.evidence.nearest_distance)}"
        rows.append(
            ("nearest", f"{verdict_noun_phrase(point.nearest_verdict)} {where}, by Newton steps")
        )
    if point.evidence.n_kinks:
        rows.append(
            ("kinks", f"pre-activations within rounding of a kink: {point.evidence.n_kinks}")
        )
    spent = f"{point.n_products} Hessian-vector products"
    cost = f"{spent}, n = {point.n_params}, {point.wall_time:.2f} s, {point.evidence.method}"
    return [*rows, ("cost", cost)]
