"""The fields of a verdict from which `fastcurv.common.sentences` makes its reason: numbers,
clauses, the missing hypothesis of a proof, and the limit that ended the search.
"""

from __future__ import annotations

from math import ceil, floor, inf, log10
from typing import Any

import numpy as np

from ..common.objectives import PRODUCT_ERROR_EPS, call_certificate, why_unproved
from ..common.protocols import NOT_OFFERED_REASON
from ..common.sentences import REASONS
from ..common.vectors import safe_norm
from ..spectrum.results import format_number
from .decide import Decision, Evidence, Reason
from .evidence import ClassifyOptions, third_bound, why_no_minimum
from .report import place_of_radius
from .theorem import EPS

# smallest failure probability that advice suggests
SUGGESTED_FAILURE_PROBABILITY = 0.01
# rules that apply only because a limit of the caller was reached
LIMITED_RULES = (Reason.DISTANCE_UNKNOWN, Reason.STABILITY_UNKNOWN, Reason.RISK_TOO_LARGE)
MEASURED_RULES = (
    Reason.MEASURED_SIGNS,
    Reason.MEASURED_SADDLE,
    Reason.CURVATURE_FLOOR_AT_THETA,
)


def verdict_fields(ask: ClassifyOptions, found: Evidence, outcome: Decision) -> dict[str, Any]:
    """Return the fields of a `CriticalPoint` that its text uses besides the evidence: the limit of
    the caller, the missing hypothesis, and the numbers and clauses of the reason.
    """
    near = found.nearness
    s = found.spectrum
    proof = found.proof
    rule = outcome.rule
    theorem = proof.interpolation if rule is Reason.INTERPOLATION else proof.theorem
    n = ask.theta.size
    zero = s.n_zero or 0
    symmetric = s.n_symmetry or 0
    pair = proof.two_vectors
    above = outcome.kind == "maximum" or s.negative and not s.positive and outcome.kind != "minimum"
    measured = rule in MEASURED_RULES
    unproved = why_unproved(ask.ob) if measured else ""
    limit = _limit_name(ask, found)
    l2 = float(np.min(getattr(ask.ob, "l2", 0.0)))
    suggested_risk = (
        max(_round_up_to_two_digits(s.risk), SUGGESTED_FAILURE_PROBABILITY) if s.risk < 1 else 1.0
    )
    low, high = s.complement_ends or (s.low, s.high)
    inertia = f"{s.n_positive} positive, {s.n_negative} negative and {zero} zero eigenvalues"
    radius = outcome.radius or 0.0
    rounding = EPS * safe_norm(ask.theta)
    place = place_of_radius(radius)
    numbers = {
        "n": n,
        "loss": near.loss,
        "decrement": near.decrement,
        "threshold": near.threshold,
        "gradient_residual": near.residual,
        "place": place + " and within the rounding error of theta" * (0 < radius <= rounding),
        "h": theorem.h,
        "inertia": inertia + f" ({symmetric} by symmetry)" * (symmetric > 0),
        "signs": f"{s.n_positive} positive and {s.n_negative} negative eigenvalues, {n} in all"
        + f"; zero by symmetry: {symmetric}" * (symmetric > 0),
        "n_positive": s.n_positive,
        "n_negative": s.n_negative,
        "n_negative_low": s.n_negative_bounds[0],
        "n_zero": zero,
        "n_symmetry": symmetric,
        "n_unstable_signs": s.n_unstable_signs,
        "n_within_error": zero - symmetric - s.n_unstable_signs,
        "n_residuals": proof.n_residuals,
        "low": s.low,
        "high": s.high,
        "smallest_magnitude": s.smallest_magnitude,
        "smallest_magnitude_error": s.smallest_magnitude_error,
        "curvature_floor": s.curvature_floor,
        "l2": l2,
        "two_vector_radius": pair.radius,
        "newton_length": pair.distance,
        "assumed_eps": PRODUCT_ERROR_EPS,
        "risk": s.risk,
        "accepted_risk": s.accepted_risk,
        "n_steps_needed": s.n_steps_needed,
        "ritz_low": low,
        "ritz_high": high,
        "side": "above " if above else "below -",
        "other_sign": "positive" if above else "negative",
        "n_products": found.n_products,
        "limit": f"{format_number(ask.max_time or 0.0)} s"
        if limit == "max_time"
        else f"{ask.max_products} Hessian-vector products",
        "max_time": ask.max_time,
        "unproved_reason": unproved,
    }
    if rule is Reason.NO_ACCEPTED_RISK and suggested_risk < 1:
        numbers["suggested_risk"] = f"{suggested_risk:.2g}"
    if rule is Reason.INFIMUM_AT_INFINITY:
        numbers["no_minimum_reason"] = why_no_minimum(ask.ob, ask.theta)
    known_step = ask.gradient_tol is None and near.decrement < inf
    above_tol = near.gradient_norm > near.gradient_tol
    exact = near.gradient_norm == 0
    clauses = {
        "subject": "network" if hasattr(ask.ob, "model") else "function",
        "proved": not (found.error_bound_assumed and not outcome.certified),
        "stationary": exact,
        "above_tolerance": "above" if above_tol else "not_finite",
        "newton_change": above_tol and known_step,
        "of_residuals": rule is Reason.INTERPOLATION,
        "zero_loss_family": zero > 0,
        "units": bool(s.balanced),
        "two_vector_region": "everywhere"
        if not pair.radius < inf
        else "scaled"
        if pair.unit != 1
        else "ball",
        "two_vector_signs": "inertia" if s.has_inertia else "estimates",
        "curvature_floor": "supplied"
        if not 0 < s.curvature_floor <= l2
        else "l2"
        if s.curvature_floor == l2
        else "residuals",
        "kinks": True,
        "kinks_of_verdict": found.n_kinks > 0
        and not outcome.certified
        and rule is not Reason.INFIMUM_AT_INFINITY
        and "<kinks>" not in REASONS[rule],
        "signs": "inertia" if s.has_inertia else "estimates",
        "range": "inertia" if s.has_inertia else "estimates",
        "no_minimum": bool(s.n_negative),
        "assumed_error": found.error_bound_assumed and not outcome.certified,
        "stable_signs": not exact,
        "smaller_gradient": not exact,
        "except_symmetries": symmetric > 0,
        "outside_symmetries": symmetric > 0,
        "ritz_values": True,
        "one_sign": s.low * s.high < 0,
        "risk": "above" if s.risk < 1 else "unknown",
    }
    if near.is_plateau:
        clauses["plateau"] = "all"
        state = call_certificate(ask.ob, "saturation", ask.theta)
        if state is not None:
            clauses |= {"saturation": True, "certain": bool(state["certain"] > 0)}
            shares = {name: f"{100 * state[name]:.0f}%" for name in ("saturated", "certain")}
            numbers |= shares | {name: state[name] for name in ("n_units", "dead_units")}
    no_risk = rule is Reason.NO_ACCEPTED_RISK and not suggested_risk < 1
    return {
        "limit": limit if rule in LIMITED_RULES or no_risk else None,
        "missing_hypothesis": _missing_hypothesis(ask, found, outcome, unproved)
        if measured
        else None,
        "_numbers": numbers,
        "_clauses": clauses,
    }


def _missing_hypothesis(
    ask: ClassifyOptions, found: Evidence, outcome: Decision, unproved: str
) -> str:
    """Return the hypothesis of the theorem that does not hold or is not known, as a key of the
    clauses "missing". `unproved` is the reason of the objective, or "".
    """
    if unproved and unproved != NOT_OFFERED_REASON:
        return "objective"
    if not found.nearness.strict:
        return "float32"
    theorem = found.proof.theorem
    if not (theorem.third_bound < inf or third_bound(ask.ob, ask.theta, 0.0) < inf):
        return "no_third"
    missing = theorem.missing_hypothesis
    # "untried" names the proof of a saddle by two vectors.
    if missing == "untried" and outcome.kind != "saddle":
        missing = "" if found.spectrum.curvature_floor > 0 else "inverse"
    return missing


def _limit_name(ask: ClassifyOptions, found: Evidence) -> str | None:
    """Return the name of the limit of the caller that ended the search, or None without a limit."""
    if ask.max_time is not None and found.n_products < (ask.max_products or inf):
        return "max_time"
    return None if ask.max_products is None else "max_products"


def _round_up_to_two_digits(x: float) -> float:
    """Return x rounded up to two significant digits."""
    unit = 10.0 ** (floor(log10(x)) - 1)
    return ceil(x / unit) * unit
