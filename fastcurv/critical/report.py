"""The verdict on a critical point with its evidence, and the sentences that state the reason of the
verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import ceil, floor, log10
from string import Formatter
from typing import Any

import numpy as np

from ..common.errors import AttributeHints
from ..common.html import html_table
from ..common.objectives import PRODUCT_ERROR_EPS, call_certificate, why_unproved
from ..common.protocols import NOT_OFFERED_REASON
from ..common.read_only import FrozenRecord
from ..common.vectors import safe_norm
from ..spectrum.results import format_number, to_json_value
from .decide import KINK_ADVICE, Decision, Evidence, Reason
from .evidence import ClassifyOptions, third_bound, why_no_minimum
from .theorem import EPS


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


# Each pair holds the arguments of the calls that a sentence suggests, and the advice for a point
# that is not critical. There is a pair for verdicts on an objective, on a fitted estimator, and on
# the result of an optimiser run, for which a second equal run is no advice.
OBJECTIVE_ADVICE = "ob, theta", "Use fastcurv.minimize(ob, theta) to continue."
FIT_ADVICE = (
    "net.objective(X, y), net.theta_",
    "To continue, fit with a smaller tol or a larger max_iter.",
)
RUN_ADVICE = "ob, theta", "The message of the run says why it ended."


@dataclass(frozen=True, repr=False, eq=False)
class CriticalPoint(FrozenRecord, AttributeHints, subject="verdict"):
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
    reason : str
        A sentence that states what was proved, or what was measured and which hypothesis is
        missing.
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
    nearest_distance : float or None
        ``||nearest_point - theta||``.
    nearest_verdict : CriticalPoint or None
        The verdict at `nearest_point`.
    gradient_norm, gradient_tol : float
        ``||g||``, and the largest norm of a gradient in the direction of g at which theta counts as
        near a critical point. Above this norm, Newton's step would change the loss f by more than
        ``1e-8 (f - c)``, with c a lower bound on f, and by more than the rounding error of f. If
        the caller gave a tolerance, `gradient_tol` is that tolerance.
    gradient_flat_ratio : float or None
        ``||Hg|| / (||H|| ||g||)``, or None if g or H is 0.
    gradient_residual : float or None
        ``min over p of ||Hp + g|| / ||g||``, for p in the eigenspaces with curvature above
        `curvature_tol` times the largest (at large n in the Krylov space of g). The value is near 1
        if g lies outside the range of H. None if g is 0.
    plateau : bool
        True if theta is not near a critical point, the gradient g lies mostly outside the range of
        H, and H is flat along g.
    lambda_min, lambda_max : float
        The computed extreme eigenvalues of H. At large n these are Ritz values, which lie within
        the spectrum. Zero eigenvalues that symmetries explain are included.
    lambda_min_bounds, lambda_max_bounds : tuple of float
        Bounds ``(low, high)`` of an interval that contains an eigenvalue, from the residual and the
        rounding bound.
    n_positive, n_negative, n_zero : int or None
        Inertia. None if the inertia is not known, as in general at large n, or if there is no bound
        on the errors of the eigenvalues. `n_zero` counts eigenvalues within their error, those
        whose sign may change between theta and the critical point, and those that proved symmetries
        explain, which are 0 at that point. At a kink the inertia is that of the one-sided Hessian
        at theta.
    n_symmetry : int or None
        Number of zero eigenvalues that proved symmetries of the objective explain. None if
        symmetries were not searched for at large n, because they were not needed or too many.
    index, minimum_ratio : float or None
        ``n_negative / n`` and ``n_positive / n``.
    n_negative_bounds : tuple of int
        Bounds ``(low, high)`` on the number of negative eigenvalues, at the critical point if
        certified, and otherwise of H at theta.
    escape_direction : ndarray, shape (n,), or None
        Unit vector with the most negative curvature found, or None if no curvature is negative by
        more than the error of the products.
    escape_curvature : float or None
        The Rayleigh quotient of `escape_direction`.
    n_kinks : int
        Number of pre-activations at a kink within rounding, where the Hessian is one-sided.
    curvature_tol : float
        The option of `classify`. At large n, "no negative curvature" means none below
        ``-curvature_tol (lambda_max - lambda_min)``.
    method : str
        "dense" if the Hessian was decomposed as a matrix, "krylov" if only products were used.
    range_dim : int or None
        Dimension of the range of H, up to a multiple of the identity, if n is large and this
        dimension is small. Every eigenvalue is then known. None otherwise.
    complement_eigenvalue : float or None
        The eigenvalue, l2, on the complement of this range, which has ``n - range_dim`` dimensions.
    n_active_kinks : int or None
        Number of active kinks at a proved minimum of a piecewise smooth loss, or None for all other
        verdicts. The inertia is then None, because H is one-sided at kinks.
    n_params, n_products : int
        Number of parameters, and number of all products that the verdict uses.
    seed : object
        The seed that was passed to `classify`.
    wall_time : float
        Time of the call in seconds.
    krylov_name : str or None
        Name of the `Krylov` run whose products this verdict shares, or None.
    n_new_products : int or None
        Number of products that were computed for this verdict, or None if no `Krylov` run was used.
    """

    kind: str
    certified: bool
    failure_probability: float
    reason: str
    gradient_norm: float
    gradient_tol: float
    gradient_flat_ratio: float | None
    gradient_residual: float | None
    plateau: bool
    lambda_min: float
    lambda_max: float
    lambda_min_bounds: tuple[float, float]
    lambda_max_bounds: tuple[float, float]
    n_positive: int | None
    n_negative: int | None
    n_zero: int | None
    n_symmetry: int | None
    n_negative_bounds: tuple[int, int]
    escape_direction: np.ndarray | None
    escape_curvature: float | None
    n_kinks: int
    curvature_tol: float
    method: str
    n_params: int
    n_products: int
    seed: object
    wall_time: float
    krylov_name: str | None = None
    n_new_products: int | None = None
    radius: float | None = None
    kantorovich: float | None = None
    range_dim: int | None = None
    complement_eigenvalue: float | None = None
    n_active_kinks: int | None = None
    nearest_point: np.ndarray | None = None
    nearest_distance: float | None = None
    nearest_verdict: CriticalPoint | None = None
    _rule: Reason | None = field(default=None, compare=False)
    _advice: tuple[str, str] = field(default=OBJECTIVE_ADVICE, compare=False)

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
        """The verdict in at most 25 words: the kind, whether it is proved, and what to do next.
        `reason` gives the evidence.
        """
        if self.kind in ("minimum", "maximum"):
            return self._extremum_sentence()
        if self.kind == "saddle":
            return self._saddle_sentence()
        if self.kind == "degenerate":
            return self._degenerate_sentence()
        return (
            self._not_critical_sentence()
            if self.kind == "not_critical"
            else self._undecided_sentence()
        )

    def _extremum_sentence(self) -> str:
        minimum = self.kind == "minimum"
        sign, other = ("positive", "negative") if minimum else ("negative", "positive")
        leave = f"Use fastcurv.escape({self._advice[0]}) to leave it."
        if self.certified:
            where = f"lies {_format_radius(self.radius)}"
            along = "; moving along a symmetry leaves the loss unchanged" if self.n_symmetry else ""
            then = "Training has converged." if minimum else leave
            return f"Proved {self.kind}: a local {self.kind} {where}{along}. {then}"
        aside = ", except those of symmetries," if self.n_symmetry else ""
        if self._rule is Reason.WITHIN_ACCEPTED_RISK:
            where = ", apart from symmetries," if self.n_symmetry else " at theta"
            side = "below -" if minimum else "above "
            return (
                f"{self._with_certainty(self.kind.capitalize())}: no eigenvalue{where} lies {side}"
                f"{format_number(self.curvature_tol)} times (lambda_max - lambda_min); {other} "
                "ones nearer zero are possible."
            )
        then = "Training has probably converged." if minimum else leave
        kind = self.kind.capitalize()
        return (
            f"{kind}, not proved: every eigenvalue of the Hessian at theta{aside} is {sign}. {then}"
        )

    def _saddle_sentence(self) -> str:
        sure = "Proved saddle" if self.certified else self._with_certainty("Saddle")
        hessian = "the Hessian"
        if self._rule is Reason.ONE_SIDED_SADDLE:
            kinks = "a kink" if self.n_kinks == 1 else "kinks"
            hessian = f"at theta, which lies at {kinks}, the one-sided Hessian"
        return (
            f"{sure}: {hessian} has eigenvalues of both signs. "
            f"Use fastcurv.escape({self._advice[0]}) to leave it."
        )

    def _degenerate_sentence(self) -> str:
        unexplained = (self.n_zero or 0) - (self.n_symmetry or 0)
        count = "counts" if unexplained == 1 else "count"
        flat = f"{unexplained} eigenvalue{_plural(unexplained)} {count} as zero"
        if self.n_zero == self.n_params:
            flat = "every eigenvalue counts as zero"
        elif unexplained <= 0:
            flat = "some eigenvalues count as zero"
        known = "" if self.n_zero == self.n_params else " without a known symmetry"
        look = f" Use fastcurv.minimize({self._advice[0]}) to search for a lower point."
        then = "" if self._advice == RUN_ADVICE else look
        return f"Degenerate: {flat}{known}, so the kind is unknown.{then}"

    def _not_critical_sentence(self) -> str:
        if self._rule is Reason.INFIMUM_AT_INFINITY:
            # An estimator has no l2.
            advice = "" if self._advice == FIT_ADVICE else " Use l2 on all parameters."
            return (
                "Not critical: the loss is proved to decrease without end from here, towards an "
                f"infimum that no point attains.{advice}"
            )
        if self.gradient_norm <= self.gradient_tol:
            return "Not critical: the loss at theta is not finite."
        size = f"the gradient norm is {format_number(self.gradient_norm)}, above its tolerance"
        if self.gradient_tol > 0:
            times = format_number(self.gradient_norm / self.gradient_tol)
            size = f"the gradient norm is {times} times its tolerance"
        where = ", on a plateau" if self.plateau else ""
        return f"Not critical: {size}{where}. {self._advice[1]}"

    def _undecided_sentence(self) -> str:
        if self._rule is Reason.MAYBE_KINK_MINIMUM:
            return (
                "Undecided: the gradient is above its tolerance, but theta may be a minimum at "
                "kinks. See `reason`."
            )
        if self._rule is Reason.DISTANCE_UNKNOWN:
            return (
                "Undecided: max_time or max_products is too small to find the distance to a "
                "critical point. Increase the limit that `reason` names."
            )
        return (
            "Undecided: the gradient at theta is within its tolerance, but the evidence does not "
            "determine the kind of this point. See `reason`."
        )

    def summary(self) -> str:
        """Return the verdict and its evidence as a string of a few lines."""
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as plain numbers, strings, lists and None, which JSON can
        represent.

        Returns
        -------
        dict
            The public attributes by their names, and "index" and "minimum_ratio". Vectors are lists
            of ``n_params`` numbers, and `nearest_verdict` is a dict. Values that are not known or
            not finite are None. A `seed` that is a Generator becomes a string.

        Examples
        --------
        >>> import json, numpy as np, fastcurv as fc
        >>> point = fc.classify(fc.testing.lecture_toy(), np.zeros(2))
        >>> facts = json.loads(json.dumps(point.to_dict(), allow_nan=False))
        >>> facts["kind"], facts["n_negative"], len(facts["escape_direction"])
        ('saddle', 1, 2)
        """
        names = [known.name for known in fields(self) if not known.name.startswith("_")]
        return {
            name: to_json_value(getattr(self, name)) for name in [*names, "index", "minimum_ratio"]
        }

    def evidence(self) -> list[tuple[str, str]]:
        """Return the rows of the printed evidence as pairs of strings, ``[(name, value), ...]``."""
        held = f"{format_number(self.gradient_norm)}, tolerance {format_number(self.gradient_tol)}"
        if self.gradient_flat_ratio is not None:
            held += f"; ||Hg|| / (||H|| ||g||) = {format_number(self.gradient_flat_ratio)}"
        rows = [
            ("gradient", held),
            ("curvature", f"{self._format_end('min')}  to  {self._format_end('max')}"),
            ("inertia", self._format_inertia()),
        ]
        if self.range_dim is not None and self.complement_eigenvalue is not None:
            inside = f"eigenvalues computed in {self.range_dim} of {self.n_params} dimensions"
            others = f"all others are {format_number(self.complement_eigenvalue)}"
            rows.append(("subspace", f"{inside}; {others}"))
        if self.escape_direction is not None and self.escape_curvature is not None:
            bent = f"v'Hv = {format_number(self.escape_curvature)} along escape_direction"
            rows.append(("escape", bent))
        if self.radius is not None:
            h = "" if self.kantorovich is None else f", h = {format_number(self.kantorovich)}"
            where = f"within {format_number(self.radius)} of" if self.radius > 1e-100 else "at"
            where = f"{where} theta" if self.radius < np.inf else "at any point"
            # The proof of a saddle by two vectors does not prove that a critical point exists.
            absent = self.kind == "saddle" and self.kantorovich is None
            rows.append(("proof", f"{'no minimum or maximum ' * absent}{where}{h}"))
        if self.nearest_verdict is not None and self.nearest_distance is not None:
            where = f"at a distance of {format_number(self.nearest_distance)}"
            rows.append(
                ("nearest", f"{verdict_noun_phrase(self.nearest_verdict)} {where}, by Newton steps")
            )
        if self.n_kinks:
            units = f"{self.n_kinks} pre-activation{_plural(self.n_kinks)}"
            rows.append(("kinks", f"{units} within rounding of a kink"))
        spent = f"{self.n_products} Hessian-vector product{_plural(self.n_products)}"
        cost = f"{spent}, n = {self.n_params}, {self.wall_time:.2f} s, {self.method}"
        return [*rows, ("cost", cost)]

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
        return "\n".join(rows + [f"  {name:<11} {value}" for name, value in self.evidence()])

    def _repr_html_(self) -> str:
        title = self._with_certainty(self.kind.replace("_", " "), "not certified")
        return html_table(title, ["evidence", ""], self.evidence(), [self.sentence, self.reason])

    def _format_end(self, which: str) -> str:
        low, high = getattr(self, f"lambda_{which}_bounds")
        return (
            f"lambda_{which} = {format_number(getattr(self, f'lambda_{which}'))} +- "
            f"{0.5 * (high - low):.1e}"
        )

    def _format_inertia(self) -> str:
        if self.n_active_kinks is not None:
            return (
                "not defined on kinks, where H is one-sided; along the kinks all curvature is "
                "positive"
            )
        if self.n_negative is None:
            low, high = self.n_negative_bounds
            count = f"between {low} and {high}" if low < high else f"{low}"
            return f"{count} of {self.n_params} eigenvalues negative"
        explained = f" ({self.n_symmetry} by symmetry)" if self.n_symmetry else ""
        return (
            f"{self.n_positive} positive, {self.n_negative} negative, {self.n_zero} "
            f"zero{explained}; fraction positive {format_number(self.minimum_ratio or 0.0)}"
        )


# --------------------------------------------------------------------------------------------------
# The `reason` of a verdict: the sentence of its `Reason` with the placeholders filled in.

# failure probability that a reason suggests if the caller gave none
SUGGESTED_FAILURE_PROBABILITY = 0.01
SMALLER_ERRORS = "products with smaller errors, for example in float64"
MISSING_HYPOTHESES = {
    "": "no proof by the Newton-Kantorovich theorem was attempted",
    "untried": "curvature of both signs is not proved along the whole Newton step",
    "inverse": "the Newton-Kantorovich theorem needs a single error bound for all eigenvalues, and "
    "this coarser bound does not exclude an eigenvalue of 0",
    "step": "no bound on the length of the Newton step is known",
    "third": "no bound on the third derivative of the loss around theta is known",
    "h": "h = {h}, where the Newton-Kantorovich theorem needs h < 1/2. The number h is the "
    "product of bounds on the inverse Hessian, the Newton step and the third derivative",
    "orbit": "the symmetry directions are not proved to stay linearly independent near theta",
}
RESCALED_PARAMETERS = "parameters rescaled so that the rows of the Hessian are of similar size"
# start of a sentence on numbers in these units
RESCALED_LEAD = f"With the {RESCALED_PARAMETERS}, "


class ReasonFormatter(Formatter):
    """A formatter that fills the placeholders of a `Reason` for the verdict `outcome` on the
    evidence `found`. Floats are written with four digits.
    """

    def __init__(self, ask: ClassifyOptions, found: Evidence, outcome: Decision) -> None:
        self.ask, self.found, self.outcome = ask, found, outcome
        self.gradient, self.spectrum = found.gradient, found.spectrum
        self.certificate = found.certificate
        self.n, self.kind = ask.theta.size, outcome.kind.capitalize()
        self.eigenvalue_sign = "positive" if outcome.kind == "minimum" else "negative"
        assumed = found.error_bound_assumed and not outcome.certified
        self.proved_or_measured = "measured" if assumed else "proved"
        about = ". This assumes that products with H have errors of at most "
        self.assumption_sentence = f"{about}{PRODUCT_ERROR_EPS:g} eps ||H||" * assumed
        k, lie = found.n_kinks, "lies" if found.n_kinks == 1 else "lie"
        undecided = outcome.kind == "undecided"
        self.this_side = _this_side_of_kinks(k)
        self.kinks_sentence = (
            f"{k} pre-activation{_plural(k)} {lie} within rounding of a kink, such as that of relu "
            "at 0. There the Hessian H describes the loss on one side only, so "
            + ("no verdict can be proved" if undecided else "the verdict is not proved")
        )
        self.phrases = {
            **self._phrases_on_eigenvalues(),
            **self._phrases_on_zeros(),
            **self._phrases_on_estimates(),
        }

    def _phrases_on_eigenvalues(self) -> dict[str, Any]:
        """Return the phrases on the eigenvalues that no symmetry makes zero."""
        s, n = self.spectrum, self.spectrum.n_symmetry or 0
        m, n_positive = self.n - n, s.n_positive or 0
        every = {1: "the only eigenvalue", 2: "both eigenvalues"}.get(m, f"all {m} eigenvalues")
        is_or_are = "is" if m == 1 else "are"
        others = f"the other one {is_or_are}" if m == 1 else f"the other {m} are"
        aside, are = f"apart from {n} symmetry direction{_plural(n)}", "is" if n == 1 else "are"
        by_symmetry = f"{_count_eigenvalues(n)} of the Hessian {are} zero by symmetry"
        symmetry_zeros_and_others = (
            f"{by_symmetry} and {others}" if n else f"{every} of the Hessian {is_or_are}"
        )
        symmetry_zeros_clause = f", and {n} that {are} zero by symmetry" * (n > 0)
        signed = f"{aside}, {every} {is_or_are}" if n else f"{every} {is_or_are}"
        eigenvalues_subject = signed[0].upper() + signed[1:]  # at the start of a sentence
        except_symmetries = f", and {aside}," if n else ","
        complement_phrase = " outside these directions" * (n > 0)
        n_eigenvalues_phrase = "eigenvalue" if self.n == 1 else f"{self.n} eigenvalues"
        signs = f"{s.n_negative} negative and {n_positive} positive eigenvalue"
        signs_there = f"{signs}{_plural(n_positive)}"
        nonzero = f"{'nonzero ' * (n > 0)}eigenvalue"
        magnitude = f"the smallest magnitude of the {nonzero}s is"
        smallest_magnitude_subject = f"the magnitude of the {nonzero} is" if m == 1 else magnitude
        residuals = {1: "the only residual is", 2: "both residuals are"}
        residuals_subject = residuals.get(n_positive, f"all {n_positive} residuals are")
        at_theta, and_there, there = (
            (RESCALED_LEAD, f". {RESCALED_LEAD}", RESCALED_LEAD)
            if s.balanced
            else ("At theta, ", ", and ", "There ")
        )
        scaled = self.certificate.two_vectors.unit != 1
        radius_units = f". Both lengths are for {RESCALED_PARAMETERS}" * scaled
        return {
            "symmetry_zeros_and_others": symmetry_zeros_and_others,
            "symmetry_zeros_clause": symmetry_zeros_clause,
            "eigenvalues_subject": eigenvalues_subject,
            "except_symmetries": except_symmetries,
            "complement_phrase": complement_phrase,
            "n_eigenvalues_phrase": n_eigenvalues_phrase,
            "signs_there": signs_there,
            "smallest_magnitude_subject": smallest_magnitude_subject,
            "residuals_subject": residuals_subject,
            "at_theta": at_theta,
            "and_there": and_there,
            "there": there,
            "radius_units": radius_units,
        }

    def _phrases_on_zeros(self) -> dict[str, Any]:
        """Return the phrases on eigenvalues that count as zero, and on negative eigenvalues besides
        zeros.
        """
        s, n, zero = self.spectrum, self.spectrum.n_symmetry or 0, self.spectrum.n_zero or 0
        of_all = f"{zero} of {self.n} eigenvalues of the Hessian {'is' if zero == 1 else 'are'}"
        n_zeros_phrase = "the only eigenvalue of the Hessian is" if self.n == 1 else of_all
        these = "this eigenvalue" if zero == 1 else "these zeros"
        some = these if n == zero else f"{n} of {these}"
        symmetry_explanation = (
            f"Symmetry explains {some}" if n else f"No known symmetry explains {these}"
        )
        unstable, within = s.n_unstable_signs, zero - n - s.n_unstable_signs
        causes = [f"{n} by symmetry"] * (n > 0)
        if within > 0:
            causes.append(f"{within} within {'its' if within == 1 else 'their'} error")
        they = "it" if unstable == 1 else "they"
        between = f"because {they} may change sign between theta and the nearby critical point"
        causes.append(f"{unstable} {between}")
        only = zero == unstable
        counts = "counts" if zero == 1 else "count"
        zeros_and_causes = (
            f"{'the only eigenvalue' if self.n == 1 else f'{zero} of {self.n} eigenvalues'} of the "
            f"Hessian {counts} as zero"
            + (f", {between}" if only else f": {', '.join(causes[:-1])}, and {causes[-1]}")
            + f". {symmetry_explanation}" * (n == 0)
        )
        count = s.n_negative or 0
        few = f"{_count_eigenvalues(count)} {'is' if count == 1 else 'are'}"
        below = f". In addition, {few} {self.proved_or_measured} to be negative, so theta is no "
        no_minimum_sentence = f"{below}minimum" * (count > 0)
        return {
            "n_zeros_phrase": n_zeros_phrase,
            "symmetry_explanation": symmetry_explanation,
            "zeros_and_causes": zeros_and_causes,
            "no_minimum_sentence": no_minimum_sentence,
        }

    def _phrases_on_estimates(self) -> dict[str, Any]:
        """Return the phrases on Ritz values and on eigenvalues that these may have missed."""
        s, kind = self.spectrum, self.outcome.kind
        likely_maximum = s.negative and not s.positive and kind != "minimum"
        above = kind == "maximum" or likely_maximum
        same = "all these estimates have the same sign"
        same = "this estimate has a known sign" if s.low == s.high else same
        same = f"apart from those that count as zero, {same}" if s.low * s.high < 0 else same
        one_sign_clause = f"{same[0].upper()}{same[1:]}"
        risk = f"is at most {format_number(s.risk)}" if s.risk < 1 else "has no known bound below 1"
        return {
            "other_sign": "positive" if above else "negative",
            "other_sign_side": "above " if above else "below -",
            "ritz_ends": s.complement_ends or (s.low, s.high),
            "one_sign_clause": one_sign_clause,
            "missed_risk_phrase": risk,
        }

    def get_value(self, key: Any, args: Any, kwargs: Any) -> Any:
        """Return the value of the placeholder `key`."""
        return self.phrases[key] if key in self.phrases else getattr(self, key)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a value as a string. Floats have four significant digits if there is no
        `format_spec`.
        """
        plain = format_spec or not isinstance(value, float)
        return format(value, format_spec) if plain else format_number(value)

    @property
    def no_minimum_reason(self) -> str:
        """A clause with the reason why no theta attains the infimum of the loss."""
        return why_no_minimum(self.ask.ob, self.ask.theta)

    @property
    def signs_at_theta(self) -> str:
        """A clause that states the signs of curvature known at theta, or the curvature found if not
        all eigenvalues were computed.
        """
        s = self.spectrum
        if not s.has_inertia:
            return f"curvature from {format_number(s.low)} to {format_number(s.high)} was found"
        known = [(s.n_negative, "negative"), (s.n_positive, "positive")]
        (first, sign), *others = [pair for pair in known if pair[0]] or [(0, "nonzero")]
        are = "is" if first == 1 else "are"
        more = "".join(f" and {count} to be {other}" for count, other in others)
        subject = f"{first} of {self.n} eigenvalues" if self.n > 1 else "the only eigenvalue"
        return f"{subject} {are} {self.proved_or_measured} to be {sign}{more}"

    @property
    def both_signs(self) -> str:
        """A clause that states that curvature of both signs is known at theta."""
        both = f"curvature of both signs is {self.proved_or_measured}"
        return self.signs_at_theta if self.spectrum.has_inertia else both

    @property
    def range_subject(self) -> str:
        """The subject of a sentence that states the range of the eigenvalues or of their
        estimates.
        """
        exact = self.spectrum.has_inertia
        return "The eigenvalues" if exact else "The eigenvalue estimates (Ritz values)"

    @property
    def ritz_values_sentence(self) -> str:
        """A sentence that states the range of the Ritz values and the number of products."""
        s, count = self.spectrum, self.found.n_products
        products = f"found with {count} Hessian-vector product{_plural(count)}"
        if s.low == s.high:
            return f"The only eigenvalue estimate (Ritz value) {products} is {format_number(s.low)}"
        return self.format(
            f"The eigenvalue estimates (Ritz values) {products} range from {{spectrum.low}} to "
            "{spectrum.high}"
        )

    @property
    def stable_signs_sentence(self) -> str:
        """A sentence that states how the signs were checked between theta and the critical point,
        or "" if the gradient is 0, so that no step was tested.
        """
        if self.gradient.gradient_norm == 0:
            return ""
        return (
            ". The signs were checked numerically, but not proved, at several multiples of the "
            "Newton step"
        )

    @property
    def smaller_gradient_sentence(self) -> str:
        """A sentence that states that the Newton step reduced the gradient, or "" if it is 0."""
        moved = self.gradient.gradient_norm > 0
        return ". After this step the gradient was smaller, up to rounding" * moved

    @property
    def not_critical_reason(self) -> str:
        """A clause with the reason why theta is not critical."""
        near = self.gradient
        if near.gradient_norm <= near.gradient_tol:
            return "the loss at theta is not finite"
        text = self.format(
            "||g|| = {gradient.gradient_norm} is above its tolerance {gradient.gradient_tol}"
        )
        if self.ask.gradient_tol is not None or not near.decrement < np.inf:
            return text
        return text + self.format(
            ". The Newton step is predicted to change the loss by {gradient.decrement}, where at "
            "most {gradient.threshold} is allowed"
        )

    @property
    def plateau_sentence(self) -> str:
        """Sentences on the plateau at theta and, if known, on saturated units, or "" if there is
        no plateau.
        """
        if not self.gradient.is_plateau:
            return ""
        size = self.format("{gradient.residual}")
        part = "g" if size == "1" else f"a component of g of norm {size} ||g||"
        text = ". At theta the loss has a plateau: the curvature along the gradient g is small, and"
        text = f"{text} {part} lies outside the range of the Hessian H"
        state = call_certificate(self.ask.ob, "saturation", self.ask.theta)
        if state is None:
            return text
        certain, dead = f"{100 * state['certain']:.0f}%", state["dead_units"]
        return (
            f"{text}. {100 * state['saturated']:.0f}% of the unit outputs are saturated. {dead} of "
            f"{state['n_units']} units {'is' if dead == 1 else 'are'} dead, that is, saturated on "
            "every sample"
            + f". The network is nearly certain of the class of {certain} of the samples"
            * bool(state["certain"] > 0)
        )

    @property
    def stationary_clause(self) -> str:
        """A clause that states that the gradient is 0 or within its tolerance."""
        within = "||g|| = {gradient.gradient_norm} is within its tolerance {gradient.gradient_tol}"
        exact = self.gradient.gradient_norm == 0
        return "the gradient is exactly 0" if exact else self.format(within)

    @property
    def zero_loss_family_sentence(self) -> str:
        """A sentence that explains the zero eigenvalues at a point of loss 0, or "" if there are
        none.
        """
        zero = self.spectrum.n_zero
        these = "zero eigenvalue" if zero == 1 else f"{zero} zero eigenvalues"
        return f". Further points of loss 0 nearby explain the {these}" if zero else ""

    @property
    def critical_point_place(self) -> str:
        """A phrase for the place of the certified critical point relative to theta."""
        radius, length = self.outcome.radius or 0.0, safe_norm(self.ask.theta)
        if radius == 0:
            return "at theta exactly"
        if radius < 1e-100 * max(length, 1.0):
            return "at theta, at a distance far below rounding errors"
        last = ", less than the rounding error of theta" if radius <= EPS * length else ""
        return f"within {format_number(radius)} of theta{last}"

    @property
    def opposite_signs_region(self) -> str:
        """A phrase for the ball on which the curvatures along two vectors have opposite signs, and
        the conclusion from this.
        """
        pair = self.certificate.two_vectors
        if not pair.radius < np.inf:
            return "everywhere. Therefore no point is a minimum or a maximum"
        return self.format(
            "at every point within {certificate.two_vectors.radius} of theta. Therefore no minimum "
            "or maximum lies within this radius. The Newton step is shorter than this radius: its "
            "length is {certificate.two_vectors.distance}{radius_units}"
        )

    @property
    def known_signs_phrase(self) -> str:
        """Two sentences that state the signs and the range of the eigenvalues of the Hessian at
        theta, as far as they are known.
        """
        few, s = self.spectrum.n_negative_bounds[0], self.spectrum
        low, high = format_number(s.low), format_number(s.high)
        if s.has_inertia:
            return (
                f"At theta, at least {self.signs_at_theta}. The eigenvalues "
                f"range from {low} to {high}"
            )
        return (
            f"At theta, at least {_count_eigenvalues(few)} {'is' if few == 1 else 'are'} negative. "
            f"The estimates of the extreme eigenvalues (Ritz values) are {low}, along "
            f"escape_direction, and {high}"
        )

    @property
    def curvature_floor_origin(self) -> str:
        """A sentence that states how the lower bound on the curvature is proved."""
        l2, floor = float(np.min(getattr(self.ask.ob, "l2", 0.0))), self.spectrum.curvature_floor
        if not 0 < floor <= l2:
            return "The objective supplies this proved lower bound"
        size = format_number(l2)
        if floor == l2:
            return (
                f"This lower bound is l2 = {size}, since the other part of the Hessian has no "
                "negative eigenvalue"
            )
        return (
            f"This lower bound is l2, here {size}, minus a bound on the part of the Hessian that "
            "depends on the residuals"
        )

    @property
    def missing_hypothesis(self) -> str:
        """A phrase for the hypothesis of the theorem that does not hold or is not known."""
        unknown = why_unproved(self.ask.ob)
        if unknown and unknown != NOT_OFFERED_REASON:
            return unknown
        if not self.gradient.strict:
            return "the rounding of the loss in float32 leaves theta too far from a critical point"
        theorem = self.certificate.theorem
        known = theorem.third_bound < np.inf
        if not (known or third_bound(self.ask.ob, self.ask.theta, 0.0) < np.inf):
            return "no bound on the third derivative of the loss is available"
        missing = theorem.missing_hypothesis
        # The text for "untried" is that of a saddle from two vectors.
        if missing == "untried" and self.outcome.kind != "saddle":
            missing = "" if self.spectrum.curvature_floor > 0 else "inverse"
        return MISSING_HYPOTHESES[missing].format(h=format_number(theorem.h))

    @property
    def limit_name(self) -> str:
        """The name of the limit of the caller that ended the search, or "" without a limit."""
        most, seconds = self.ask.max_products, self.ask.max_time
        if seconds is not None and self.found.n_products < (most or np.inf):
            return "max_time"
        return "max_products" if most is not None else ""

    @property
    def limit_phrase(self) -> str:
        """The limit of the caller that ended the search, with its value."""
        seconds = f"max_time = {format_number(self.ask.max_time or 0.0)} s"
        late = self.limit_name == "max_time"
        return seconds if late else f"max_products = {self.ask.max_products}"

    @property
    def needed_for_risk(self) -> str:
        """A sentence that states what the failure probability of the caller needs."""
        needs = self.format(
            "failure_probability = {ask.failure_probability} needs {spectrum.n_steps_needed} "
            "Lanczos steps"
        )
        if self.limit_name:
            limit = f"Increase the limit {self.limit_phrase}"
            return f"{limit}: {needs}, at one Hessian-vector product each"
        memory = "more memory (max_bytes) or " * (self.ask.krylov is not None)
        return f"The option {needs} and {memory}{SMALLER_ERRORS}"

    @property
    def allowed_risk_sentence(self) -> str:
        """Sentences that state the failure probability which would allow a verdict from these
        products, or that more products are needed.
        """
        risk = self.spectrum.risk
        if risk < 1:
            risk = max(_round_up_to_two_digits(risk), SUGGESTED_FAILURE_PROBABILITY)
        if not risk < 1:
            if not self.limit_name:
                return f"A verdict with a stated error probability needs {SMALLER_ERRORS}"
            limit = f"The limit {self.limit_phrase} is too small even for a verdict with a stated"
            then = f"Increase this limit. If this does not help, use {SMALLER_ERRORS}"
            return f"{limit} error probability. {then}"
        return self.format(
            f"The option failure_probability={risk:.2g} would allow a verdict. This verdict would "
            "still not exclude eigenvalues of the other sign with magnitudes below "
            "{ask.curvature_tol} times (lambda_max - lambda_min)"
        )

    @property
    def complement_sentences(self) -> str:
        """Sentences that state that most eigenvalues are equal because the range of H has few
        dimensions, or "" if this is not so.
        """
        space = self.spectrum.range_space
        if space is None or not self.spectrum.has_inertia or self.certificate.interpolation.holds:
            return ""
        l2 = space.complement_eigenvalue
        value = f"l2 = {format_number(l2)}" if l2 else "0"
        return (
            f". Of the {self.n} eigenvalues, {space.n_complement} are {value}, along directions "
            "that change no output on any sample. The others are the eigenvalues of the Hessian "
            f"restricted to the orthogonal complement of these directions, of dimension {space.m}"
        )


def reason_sentence(ask: ClassifyOptions, found: Evidence, outcome: Decision) -> str:
    """Return the sentences that state the reason of the verdict `outcome`."""
    # A proof that the loss decreases along a ray is valid at kinks too, and some rules have the
    # sentence on kinks in the middle.
    apart = outcome.rule is Reason.INFIMUM_AT_INFINITY or "{kinks_sentence}" in outcome.rule.value
    kinks = ". {kinks_sentence}" * (found.n_kinks > 0 and not apart and not outcome.certified)
    return ReasonFormatter(ask, found, outcome).format(
        f"{outcome.rule.value}{{complement_sentences}}{kinks}."
    )


def _plural(count: int) -> str:
    return "s" * (count != 1)


def _this_side_of_kinks(n_kinks: int) -> str:
    return f"this side of the kink{_plural(n_kinks)}"


def _count_eigenvalues(count: int) -> str:
    return f"{count} eigenvalue{_plural(count)}"


def _round_up_to_two_digits(x: float) -> float:
    """Return x rounded up to two significant digits."""
    unit = 10.0 ** (floor(log10(x)) - 1)
    return ceil(x / unit) * unit


def _format_radius(radius: float | None) -> str:
    """Return the phrase "within 1e-09 of theta" for a radius rounded up to a power of ten, or "at
    theta" if the radius is 0 or None.
    """
    return f"within 1e{ceil(log10(radius)):+03d} of theta" if radius else "at theta"


PLATEAU_ADVICE = (
    '. Use fastcurv.minimize(ob, theta, method) with method "trust-region" or "l-bfgs", whose '
    "steps grow where the loss is flat"
)
FAR_ADVICE = (
    ". Use fastcurv.minimize(ob, theta) to descend, or fastcurv.find_critical_point(ob, theta) to "
    "find a critical point of any kind"
)


def reword_for_fit(point: CriticalPoint) -> CriticalPoint:
    """Return the verdict with its sentences reworded for an estimator, whose user has no variables
    `ob` and `theta`.
    """
    there = None if point.nearest_verdict is None else reword_for_fit(point.nearest_verdict)
    reason = point.reason.replace(point._advice[0], FIT_ADVICE[0])
    return replace(point, reason=reason, nearest_verdict=there, _advice=FIT_ADVICE)


def reword_for_run(point: CriticalPoint) -> CriticalPoint:
    """Return the verdict with its sentences reworded for the result of a run, without the advice to
    run again.
    """
    return replace(point, reason=f"{reason_without_calls(point.reason)}.", _advice=RUN_ADVICE)


def reason_without_calls(reason: str) -> str:
    """Return the reason without its last full stop and without its advice on functions to call, for
    a caller that has just called one of them.
    """
    reason = reason.rstrip(".")
    for advice in (FAR_ADVICE, PLATEAU_ADVICE, KINK_ADVICE):
        reason = reason.replace(advice, "")
    return reason
