"""The sentence of a verdict, made from its outcome and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..spectrum.results import number
from ..vectors import safe_norm
from .decide import Findings, Outcome
from .evidence import Evidence
from .knowledge import why_no_minimum
from .request import Request
from .result import noun
from .theorem import EPS

RISK = 0.01  # the failure probability that is suggested where none was asked
MISSING = {
    "": "no theorem was tried",
    "inverse": "an eigenvalue may be 0 within its error",
    "step": "the length of Newton's step is not known",
    "third": "no bound on the third derivative holds around theta",
    "h": "the bound on the third derivative is too large for Newton's step, h = {h} where the "
    "theorem needs less than 1/2",
    "orbit": "the orbits of the symmetries are too small to be told apart here",
}


def reason(
    ask: Request, found: Findings, outcome: Outcome, ev: Evidence, saturated: Any = None
) -> str:
    """One sentence."""
    words = {
        "infinity": _infinity,
        "far": _far,
        "plateau": _far,
        "interpolation": _interpolation,
        "theorem": _theorem,
        "two signs": _two_signs,
        "floor": _floor,
        "kinks": _kinks,
        "no bound": _no_bound,
        "asymmetric": _asymmetric,
        "flat": _flat,
        "zeros": _zeros,
        "not lasting": _not_lasting,
        "short": _short,
        "no rest": _no_rest,
        "measured": _measured,
        "loose": _loose,
        "risk": _risk,
        "no risk asked": _undecided,
        "risk too large": _undecided,
        "nothing": _undecided,
    }[outcome.because]
    text = words(ask, found, outcome, ev)
    if found.plateau and outcome.because in ("plateau", "infinity"):
        text += (
            "; a plateau, since H is flat along g and a share "
            f"{number(ev.residual or 0.0)} of g lies outside the range of H"
        )
    if found.plateau and saturated is not None:
        text += (
            f", with {100 * saturated['saturated']:.0f}% of the unit outputs saturated, "
            f"{saturated['dead_units']} of {saturated['n_units']} units dead on every sample and "
            f"{100 * saturated['certain']:.0f}% of the samples nearly certain"
        )
    return f"{text}{_outside(found, ev)}{_kinks_here(found)}."


def _outside(found: Findings, ev: Evidence) -> str:
    """How most eigenvalues are known at large n."""
    space = ev.reach
    if space is None or not found.dense or found.interpolates:
        return ""
    value = f"l2 = {number(space.rest)}" if space.rest else "0"
    return (
        f"; {space.n_rest} of the eigenvalues are {value}, along directions that no row reaches, "
        f"and the others those of a matrix of {space.m} dimensions"
    )


def _s(count: int) -> str:
    return "s" * (count != 1)


def _up_to(found: Findings) -> str:
    s = found.n_symmetry or 0
    return f" up to {s} symmetry direction{_s(s)}" if s else ""


def _near(ev: Evidence) -> str:
    near = ev.near
    if near.gradient_norm == 0:
        return "the gradient is exactly 0"
    return (
        f"||g|| = {number(near.gradient_norm)} is within its tolerance {number(near.gradient_tol)}"
    )


def _kinks_here(found: Findings) -> str:
    if not found.n_kinks:
        return ""
    k = found.n_kinks
    return (
        f"; {k} pre-activation{_s(k)} {'lies' if k == 1 else 'lie'} within rounding of a kink, "
        "where H is one-sided, so nothing is certified"
    )


def _place(ask: Request, radius: float) -> str:
    """Where the claim's critical point lies, in words."""
    length = safe_norm(ask.theta)
    if radius == 0:
        return "at theta exactly"
    if radius < 1e-100 * max(length, 1.0):
        return "at theta, nearer than any number here can tell"
    last = " (its last digits)" if radius <= EPS * length else ""
    return f"within {number(radius)} of theta{last}"


def _infinity(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return f"Not critical: the infimum is at infinity, since {why_no_minimum(ask.ob, ask.theta)}"


def _far(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    near = ev.near
    norm, tol = number(near.gradient_norm), number(near.gradient_tol)
    if near.gradient_norm <= near.gradient_tol:
        return "Not critical: the value at theta is not finite"
    text = f"Not critical: ||g|| = {norm} is above its tolerance {tol}"
    if ask.gradient_tol is None and near.decrement < float("inf"):
        text += (
            f", since Newton's step promises to change the loss by {number(near.decrement)}, where "
            f"{number(near.threshold)} would count as nothing"
        )
    return text


def _theorem(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    n, s = ask.n, found.n_symmetry or 0
    where = " in balanced coordinates" if ev.balanced else ""
    text = f"{outcome.kind.capitalize()}{_up_to(found)}: a critical point is proved to lie "
    text += f"{_place(ask, outcome.radius or 0.0)}, "
    if outcome.kind == "saddle":
        text += (
            f"with {found.n_negative} negative and {found.n_positive} positive eigenvalues, "
            f"from {number(ev.low)} to {number(ev.high)}"
        )
    else:
        sign = "positive" if outcome.kind == "minimum" else "negative"
        text += f"with all {'other ' if s else ''}{n - s} eigenvalues {sign}"
    return text + (
        f", the weakest of size {number(ev.weakest)} with an error below "
        f"{number(ev.weakest_error)}{where} (Newton and Kantorovich's theorem, h = "
        f"{number(ev.theorem.h)} < 1/2)"
    )


def _interpolation(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return (
        f"Minimum: a point where all {found.n_positive} residuals are 0 is proved to lie "
        f"{_place(ask, outcome.radius or 0.0)}, a global minimum of loss 0 (Kantorovich's "
        f"theorem for the residuals, h = {number(ev.zero.h)} < 1/2); the {found.n_zero} zero "
        "eigenvalues belong to the other points of loss 0 around it"
    )


def _two_signs(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    count = (
        f"; at theta at least {found.n_negative} negative and {found.n_positive} positive of "
        f"{ask.n} eigenvalues are proved, from {number(ev.low)} to {number(ev.high)}"
        if found.dense
        else f"; at least {ev.n_negative_bounds[0]} eigenvalue{_s(ev.n_negative_bounds[0])} at "
        f"theta {'is' if ev.n_negative_bounds[0] == 1 else 'are'} negative, and the extreme Ritz "
        f"values are {number(ev.low)} along escape_direction and {number(ev.high)}"
    )
    there = " in balanced coordinates" * (found.unit != 1)
    return (
        f"Saddle: {_near(ev)}, and curvature of both signs is proved along two fixed vectors at "
        f"every point within {number(found.two_signs)} of theta{there}, more than the "
        f"{number(found.distance)} of Newton's step, so no minimum or maximum lies there{count}"
    )


def _floor(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    l2 = np.max(getattr(ask.ob, "l2", 0.0))
    floor = f"{number(found.floor)}, a floor that the objective proves"
    if l2 > 0:
        floor += f": l2 = {number(float(l2))} less what the residuals can take away"
    if outcome.certified:
        return (
            f"Minimum: a critical point is proved to lie {_place(ask, outcome.radius or 0.0)} "
            f"(Newton and Kantorovich's theorem, h = {number(ev.theorem.h)} < 1/2), and no "
            f"eigenvalue at theta lies below {floor}"
        )
    return (
        f"Undecided: {_near(ev)}, and no eigenvalue at theta lies below {floor}; but that this "
        "lasts on the way "
        f"to the critical point that theta stands for is not proved, since {_hypothesis(ev)}; "
        "reduce the gradient first"
    )


def _hypothesis(ev: Evidence) -> str:
    if not ev.near.strict:
        return "in float32 theta comes no nearer to a critical point than the rounding of the loss"
    if not ev.bounded:
        return "no bound on the third derivative is offered, or holds here"
    if ev.theorem is None:
        return "two fixed vectors keep both signs only on a ball smaller than Newton's step"
    return MISSING[ev.theorem.missing].format(h=number(ev.theorem.h))


def _kinks(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    if outcome.kind == "saddle":
        return (
            f"Saddle: {_near(ev)}, curvature from {number(ev.low)} to {number(ev.high)} is proved "
            "on this side of the kinks, and the loss was seen to fall along escape_direction"
        )
    counts = (
        f"{found.n_negative} negative and {found.n_positive} positive eigenvalues are proved"
        if found.dense
        else f"curvature from {number(ev.low)} to {number(ev.high)} is seen"
    )
    return f"Undecided: {_near(ev)}, and {counts}, but on this side of the kinks only"


def _flat(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return f"Degenerate: {_near(ev)}, and H is zero as far as it was looked at"


def _no_bound(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, but nothing bounds what the {ask.n} eigenvalues are off by, so "
        "none of their signs is known"
    )


def _asymmetric(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, but the products are not those of a symmetric matrix, and within "
        f"the error {number(ev.weakest_error)} that this shows, {found.n_zero} of {ask.n} "
        "eigenvalues have no known sign"
    )


def _zeros(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    text = (
        f"Degenerate: {_near(ev)}, and of {ask.n} eigenvalues {found.n_zero} are zero within the "
        f"error {number(ev.weakest_error)}, of which symmetry explains {found.n_symmetry or 0}"
    )
    return text + _one_sided(found)


def _not_lasting(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    if not found.dense:
        return (
            f"Undecided: {_near(ev)}, but curvature seen at theta, from {number(ev.low)} to "
            f"{number(ev.high)}, does not keep its sign and size up to the critical point that "
            "theta stands for; reduce the gradient first"
        )
    text = (
        f"Degenerate: {_near(ev)}, and of {ask.n} eigenvalues {found.n_zero} count as zero, of "
        f"which symmetry explains {found.n_symmetry or 0}; {ev.n_unsettled} of them do not keep "
        "their sign up to the critical point that theta stands for"
    )
    return text + _one_sided(found)


def _short(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    few = f"max_products = {ask.max_products} are too few"
    if ask.max_products is None:
        few = f"max_time = {number(ask.max_time or 0.0)} s is too short"
    if not found.near:
        return (
            f"Undecided: ||g|| = {number(ev.near.gradient_norm)}, and {few} to tell how far from a "
            "critical point that is"
        )
    return (
        f"Undecided: {_near(ev)}, and {_seen(ask, found, ev)}, but {few} to measure whether that "
        "lasts up to the critical point that theta stands for"
    )


def cut_short(ask: Request, n_products: int, ended: bool) -> str:
    """What `max_time` has cut off, as the end of a sentence."""
    what = f"ended the search after {n_products} product{_s(n_products)}"
    what = what if ended else "left no time for all eigenvalues"
    return f"; max_time = {number(ask.max_time or 0.0)} s {what}"


def _seen(ask: Request, found: Findings, ev: Evidence) -> str:
    """The curvature at theta."""
    if not found.dense:
        return f"curvature from {number(ev.low)} to {number(ev.high)} was found"
    return (
        f"{found.n_negative} negative and {found.n_positive} positive of {ask.n} eigenvalues are "
        "proved at theta"
    )


def _one_sided(found: Findings) -> str:
    if found.n_negative:
        return f"; {found.n_negative} are proved negative, so theta is no minimum"
    return ""


def _measured(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    text = f"{outcome.kind.capitalize()}{_up_to(found)}: {_near(ev)}, and "
    if outcome.kind == "saddle":
        counts = (
            f"{found.n_negative} negative and {found.n_positive} positive of {ask.n} eigenvalues"
            if found.dense
            else "curvature of both signs"
        )
        text += f"{counts} from {number(ev.low)} to {number(ev.high)} are proved at theta"
    else:
        sign = "positive" if outcome.kind == "minimum" else "negative"
        s = found.n_symmetry or 0
        text += (
            f"all {'other ' if s else ''}{ask.n - s} eigenvalues at theta are proved {sign}, the "
            f"weakest of size {number(ev.weakest)} with an error below {number(ev.weakest_error)}"
        )
    smaller = ", and the gradient to be smaller at its end" * (outcome.kind != "saddle")
    return text + (
        f"; signs were measured to last over several lengths of Newton's step{smaller}; not "
        "certified, since "
        f"{_hypothesis(ev)}"
    )


def _no_rest(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, and {_seen(ask, found, ev)}, but at the end of Newton's step "
        "the gradient was measured to be no smaller, so the critical point that theta stands for "
        "was not seen; reduce the gradient first"
    )


def _risk(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    side, sign = ("below", "-") if outcome.kind == "minimum" else ("above", "")
    s = found.n_symmetry or 0
    low, high = ev.across or (ev.low, ev.high)
    return (
        f"{outcome.kind.capitalize()}{_up_to(found)}, at a risk of {number(found.risk)}: "
        f"{_near(ev)}, and but for that risk no {'other ' if s else ''}eigenvalue at theta lies "
        f"{side} {sign}{number(ask.curvature_tol)} of the spectrum's width, the extreme Ritz "
        f"values {'of these ' if s else ''}being {number(low)} and {number(high)}, which were "
        "measured to last over several lengths of Newton's step; smaller curvature of the other "
        "sign, and zeros, are not excluded"
    )


def _loose(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    return (
        f"Degenerate: {_near(ev)}, an eigenvalue is zero within {number(ev.weakest_error)} and no "
        f"symmetry known here explains it; none lies below -{number(ask.curvature_tol)} of the "
        f"spectrum's width, but for a risk of {number(found.risk)}"
    )


def _undecided(ask: Request, found: Findings, outcome: Outcome, ev: Evidence) -> str:
    eps = number(ask.curvature_tol)
    text = (
        f"Undecided: {_near(ev)}, and {ev.n_products} products found Ritz values from "
        f"{number(ev.low)} to {number(ev.high)} only, "
    )
    if outcome.because == "nothing":
        return text + "whose signs are within what the products may be off by"
    text += "of one sign" + ", what counts as zero aside" * (ev.low * ev.high < 0)
    if ask.failure_probability is None:
        return text + (
            ", which proves nothing about the rest; with "
            f"failure_probability={max(found.risk, RISK):.2g} this would be an answer down to "
            f"{eps} of the spectrum's width"
        )
    return text + (
        f", at a risk of {number(found.risk)} of having missed curvature beyond {eps} of the "
        f"spectrum's width, where {number(ask.failure_probability)} was wanted: that takes "
        f"{ev.goal} Lanczos steps"
    )


def where_newton_leads(distance: float, steps: int, at: Any) -> str:
    """What is added to `not_critical` where Newton's steps contract."""
    verb = "contracts" if steps == 1 else "contract"
    return (
        f"; {steps} Newton step{_s(steps)} {verb} and lead{'s' * (steps == 1)} over a distance of "
        f"{number(distance)} to {noun(at)}: nearest, at_nearest"
    )


OFF = (
    ": fastcurv.minimize(ob, theta) goes down from a plateau, by methods whose steps grow where it "
    'is flat, "trust-region" or "l-bfgs"'
)
CALLS = (
    ": fastcurv.minimize(ob, theta) goes down, fastcurv.find_critical_point(ob, theta) looks for a "
    "critical point of any kind"
)


def which_call_gets_there(plateau: bool) -> str:
    """What is added to `not_critical` where they do not."""
    if plateau:
        return "; Newton's steps lead nowhere from here" + OFF
    return "; Newton's steps do not contract from here" + CALLS


def without_calls(reason: str) -> str:
    """A reason as a clause, without what it says to call: the caller has just done that."""
    return reason.rstrip(".").replace(CALLS, "").replace(OFF, "")
