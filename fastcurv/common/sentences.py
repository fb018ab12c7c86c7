"""The sentences of verdicts and of runs: one template for each reason, ending and advice.

A verdict and the result of a run hold enums and numbers. The last step turns these into text, with
`render`, and no code reads the text again. In a template, ``{name}`` is a number or a word, and
``<name>`` is a clause of `CLAUSES`, which may be empty. Templates for verdicts come first, in the
order of `fastcurv.critical.decide.Reason`, then those for runs of `minimize` and for searches, then
advice. The causes of `diagnose` are in the table of fastcurv/applications/diagnosis/diagnose.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_CLAUSE_PATTERN = re.compile(r"<(\w+)>")

# --------------------------------------------------------------------------------------------------
# Verdicts: the sentence, which states the kind.

_OPEN_KIND = "Whether theta is an extremum or a saddle is unknown."
STATEMENTS = {
    "proved": "Proved {kind}: <subject> has a local {kind} {place}.<along_symmetry><converged>",
    "zero_loss": "Proved global minimum: <subject> reaches its minimum 0 {place}.<converged>",
    "measured": "{Kind}, not proved: every eigenvalue of the Hessian at theta is {sign}"
    "<except_symmetries>.<converged>",
    "risk": "{Kind}, with an error probability of {failure_probability}: no eigenvalue at theta "
    "lies {side}1e-4 times (lambda_max - lambda_min)<except_symmetries>; {other_sign} "
    "ones nearer zero are possible.",
    "saddle": "<certainty>: the Hessian has eigenvalues of both signs.",
    "one_sided_saddle": "<certainty>: theta lies at kinks, and the one-sided Hessian there has "
    "eigenvalues of both signs.",
    "zero_hessian": f"Degenerate: all computed products with the Hessian are zero. {_OPEN_KIND}",
    "symmetric_zeros": f"Degenerate: every eigenvalue is zero by symmetry. {_OPEN_KIND}",
    "zeros": "Degenerate: of {n} eigenvalues, {n_unexplained} may be zero without a known symmetry "
    f"that explains this. {_OPEN_KIND}",
    "unexplained_zero": "Degenerate: an eigenvalue may be zero without a known symmetry that "
    f"explains this. {_OPEN_KIND}",
    "infinity": "Not critical: the loss is proved to decrease without end from here, towards an "
    "infimum that no point attains.",
    "not_finite": "Not critical: the loss at theta is not finite.",
    "plateau": "Not critical: theta lies on a plateau, with a gradient norm of {gradient_norm}.",
    "step": "Not critical: a Newton step from theta is predicted to change the loss by {change}.",
    "gradient": "Not critical: the gradient norm is {gradient_norm}, above its tolerance "
    "{gradient_tol}.",
    "kinks": "Undecided: the gradient is above its tolerance, but theta may be a minimum at kinks.",
    "distance": "Undecided: the limit of {limit} is too small to find the distance to a critical "
    "point.",
    "undecided": "Undecided: the gradient at theta is within its tolerance, but the evidence does "
    "not determine the kind of this point.",
}

# --------------------------------------------------------------------------------------------------
# Verdicts: the evidence for each `Reason`.

_RANGE = "from {low} to {high}"
_WIDTH = "1e-4 times (lambda_max - lambda_min)"
_THEOREM = "The proof is by the Newton-Kantorovich theorem<of_residuals> with h = {h}, where h < "
_THEOREM += "1/2 is needed."
_SMALLEST = "the smallest magnitude of the nonzero eigenvalues is {smallest_magnitude}, with an "
_SMALLEST += "error below {smallest_magnitude_error}."
_FLOOR = "At theta, no eigenvalue of the Hessian lies below {curvature_floor}. <curvature_floor>"
_UNPROVED = "The verdict is not proved, since <missing>."
_ONE_SIGN = "<one_sign> have the same sign"

REASONS = {
    "infimum_at_infinity": "No point has the lowest loss, since {no_minimum_reason}.<plateau>",
    "gradient_above_tol": "<above_tolerance><newton_change>",
    "on_plateau": "<above_tolerance><newton_change><plateau>",
    "distance_unknown": "The gradient norm is {gradient_norm}. The limit of {limit} is too small "
    "to estimate the distance to a critical point.",
    "maybe_kink_minimum": "<above_tolerance><newton_change><kinks> The loss was not found to "
    "decrease along -g, where g is the gradient on this side of the kinks. So theta may be a "
    "minimum at kinks.",
    "interpolation": f"A global minimum of loss 0 is proved to lie {{place}}. There every residual "
    f"({{n_residuals}} in all) is 0. {_THEOREM}<zero_loss_family>",
    "kantorovich": "A critical point is proved to lie {place}. Its Hessian has {inertia}. <units>"
    f"{_SMALLEST} {_THEOREM}",
    "kantorovich_saddle": "A critical point is proved to lie {place}. Its Hessian has {inertia}. "
    f"At theta, the eigenvalues range {_RANGE}. <units>{_SMALLEST} {_THEOREM}",
    "two_vector_saddle": "<stationary>. Along two fixed vectors the curvature is proved to have "
    "opposite signs <two_vector_region> <two_vector_signs>",
    "curvature_floor": f"A critical point is proved to lie {{place}}. {_FLOOR} {_THEOREM}",
    "one_sided_saddle": "<stationary>.<kinks> On this side of the kinks, curvature of both signs, "
    f"{_RANGE}, is <proved>. The loss was found to decrease along escape_direction or its "
    "opposite. The saddle is not proved, since the curvature beyond the kinks is not known.",
    "one_sided_hessian": "<stationary>.<kinks> On this side of the kinks, <signs>. The curvature "
    "on the other side is not known.",
    "no_error_bound": "<stationary>. No bound on the errors of the eigenvalues is known, so their "
    "signs are not known either.",
    "zero_hessian": "<stationary>. All computed products with the Hessian H are zero.",
    "asymmetric_products": "<stationary>. The Hessian-vector products are not those of a symmetric "
    "matrix. So the eigenvalues may be wrong by {smallest_magnitude_error}, and the signs of "
    "{n_zero} of them ({n} in all) are unknown.",
    "zero_eigenvalues": "<stationary>. Of {n} eigenvalues of the Hessian, {n_zero} are zero within "
    "their error, {smallest_magnitude_error}. Known symmetries explain {n_symmetry} of these."
    "<no_minimum>",
    "unstable_signs": "<stationary>. Of {n} eigenvalues of the Hessian, {n_zero} may be zero: "
    "{n_symmetry} by symmetry, {n_within_error} within their error, and {n_unstable_signs} because "
    "their sign may change between theta and the nearby critical point.<no_minimum>",
    "gradient_not_reduced": "<stationary>. At theta, <signs>. A Newton step does not reduce the "
    "gradient enough to confirm a critical point nearby.",
    "measured_signs": "<stationary>. At theta, <signs>. <units>"
    f"{_SMALLEST}<assumed_error><stable_signs><smaller_gradient> {_UNPROVED}",
    "measured_saddle": f"<stationary>. At theta, <signs>. <range> {_RANGE}.<assumed_error>"
    f"<stable_signs> {_UNPROVED}",
    "stability_unknown": "<stationary>. At theta, <signs>. The limit of {limit} is too small to "
    "check that the signs stay the same up to the nearby critical point.",
    "curvature_floor_at_theta": f"<stationary>. {_FLOOR} The bound is not proved up to the nearby "
    "critical point, since <missing>.",
    "unstable_curvature": f"<stationary>. The curvature found at theta ranges {_RANGE}. Its signs "
    "were not found to stay the same up to the nearby critical point.",
    "below_product_error": "<stationary>. <ritz_values> Their magnitudes are smaller than the "
    "error of the products, so the signs of the eigenvalues are not known.",
    "no_accepted_risk": f"<stationary>. <ritz_values> {_ONE_SIGN}, but eigenvalues of the other "
    "sign may have been missed.",
    "risk_too_large": f"<stationary>. <ritz_values> {_ONE_SIGN}. The probability that an "
    f"eigenvalue {{side}}{_WIDTH} was missed <risk>.",
    "unexplained_zero": "<stationary>. An eigenvalue is zero within the error "
    "{smallest_magnitude_error}, and no known symmetry explains it. With probability at least "
    f"1 - {{risk}}, no eigenvalue lies {{side}}{_WIDTH}.",
    "within_accepted_risk": "<stationary>. With probability at least 1 - {risk}, no eigenvalue at "
    f"theta lies {{side}}{_WIDTH}<except_symmetries>. The estimates of the extreme eigenvalues "
    "(Ritz values)<outside_symmetries> are {ritz_low} and {ritz_high}.<stable_signs> Zero "
    "eigenvalues, and {other_sign} eigenvalues nearer zero than this bound, are not excluded.",
    "kink_minimum": "A <strict>local minimum is proved to lie {place}. Pre-activations exactly at "
    "a kink there: {n_active_kinks}; units with only zero weights: {n_collapsed}; copies of other "
    f"units: {{n_copies}}.<at_kinks><collapsed> {_THEOREM}",
}
# appended to the reason of any verdict that it applies to
REASON_ENDINGS = "<kinks_of_verdict><time_limit><newton_steps>"

CLAUSES: dict[str, dict[Any, str]] = {
    "subject": {
        "network": "the loss of this network on these samples",
        "function": "this function",
    },
    "along_symmetry": {True: " Symmetries leave the loss unchanged, so the point is not isolated."},
    "converged": {
        "proved": " Training has converged.",
        "measured": " Training has probably converged.",
    },
    "except_symmetries": {True: ", except those of symmetries"},
    "certainty": {
        "proved": "Proved saddle",
        "risk": "Saddle, with an error probability of {failure_probability}",
        "measured": "Saddle, not proved",
    },
    "proved": {True: "proved", False: "measured"},
    "stationary": {
        True: "The gradient is exactly 0",
        False: "The gradient norm, {gradient_norm}, is within its tolerance {gradient_tol}",
    },
    "above_tolerance": {
        "not_finite": "The loss at theta is not finite.",
        "above": "The gradient norm, {gradient_norm}, is above its tolerance {gradient_tol}.",
    },
    "newton_change": {
        True: " A Newton step is predicted to change the loss by {change}. At a point that counts "
        "as critical, this change is at most {allowed_change}.",
    },
    "plateau": {
        "all": " At theta the loss has a plateau: the curvature along the gradient g is small, and "
        "the part of g outside the range of the Hessian has the norm {gradient_residual} ||g||."
        "<saturation>",
    },
    "saturation": {
        True: " Over all hidden units and samples, {saturated} of the outputs are saturated. Of "
        "{n_units} units, {dead_units} are dead, that is, saturated on every sample.<certain>",
    },
    "certain": {
        True: " For {certain} of the samples, the network gives one class a probability near 1.",
    },
    "of_residuals": {True: " for the residuals"},
    "zero_loss_family": {
        True: " Further points of loss 0 nearby explain the zero eigenvalues ({n_zero}).",
    },
    "units": {
        True: "With the parameters rescaled so that the rows of the Hessian are of similar size, ",
        False: "At theta, ",
    },
    "two_vector_region": {
        "everywhere": "everywhere, so no point is a minimum or a maximum.",
        "ball": "at every point within {two_vector_radius} of theta, so no minimum or maximum lies "
        "within this radius. The Newton step, of length {newton_length}, ends within it.",
        "scaled": "at every point within {two_vector_radius} of theta, so no minimum or maximum "
        "lies within this radius. The Newton step, of length {newton_length}, ends within it. Both "
        "lengths are for parameters rescaled so that the rows of the Hessian are of "
        "similar size.",
    },
    "two_vector_signs": {
        "inertia": "At theta, the Hessian is proved to have at least {n_negative} negative and "
        f"{{n_positive}} positive eigenvalues. The eigenvalues range {_RANGE}.",
        "estimates": "At theta, the number of negative eigenvalues is at least {n_negative_low}. "
        "The estimates of the extreme eigenvalues (Ritz values) are {low}, along escape_direction, "
        "and {high}.",
    },
    "curvature_floor": {
        "supplied": "The objective supplies this proved lower bound.",
        "l2": "This lower bound is l2, since the other part of the Hessian has no negative "
        "eigenvalue.",
        "residuals": "This lower bound is l2, here {l2}, minus a bound on the part of the Hessian "
        "that depends on the residuals.",
    },
    "kinks": {
        True: " Up to rounding, inputs of activation functions (pre-activations) lie at a kink, "
        "such as that of relu at 0 ({n_kinks} in all). There the Hessian describes the loss on one "
        "side only.",
    },
    "signs": {
        "inertia": "the Hessian is <proved> to have {signs}",
        "estimates": f"curvature {_RANGE} was found",
    },
    "no_minimum": {
        True: " The Hessian is <proved> to have negative eigenvalues ({n_negative} in all), so "
        "theta is no minimum.",
    },
    "assumed_error": {
        True: " This assumes that products with the Hessian H have errors of at most {assumed_eps} "
        "||H|| times the machine epsilon.",
    },
    "stable_signs": {
        True: " The signs were checked numerically, but not proved, at several multiples of the "
        "Newton step.",
    },
    "smaller_gradient": {True: " After a Newton step the gradient was smaller, up to rounding."},
    "range": {
        "inertia": "The eigenvalues range",
        "estimates": "The eigenvalue estimates (Ritz values) range",
    },
    "ritz_values": {
        True: "The eigenvalue estimates (Ritz values) found with {n_products} Hessian-vector "
        f"products range {_RANGE}.",
    },
    "one_sign": {
        True: "Apart from those that count as zero, these estimates",
        False: "All these estimates",
    },
    "risk": {
        "above": "is at most {risk}, which is more than the accepted {accepted_risk}",
        "unknown": "has no known bound below 1",
    },
    "outside_symmetries": {True: " outside the symmetry directions"},
    "strict": {True: "strict ", False: ""},
    "at_kinks": {
        True: " The loss rises on both sides of each kink. In the directions that stay on all "
        "kinks, the curvature is positive.",
    },
    "collapsed": {True: " If the zero weights of a unit grow, the loss rises."},
    "kinks_of_verdict": {True: "<kinks>"},
    "time_limit": {
        "search": " The limit of {max_time} s ended the search for the extreme eigenvalues after "
        "{n_products} Hessian-vector products.",
        "matrix": " The limit of {max_time} s left no time to compute all eigenvalues.",
    },
    "newton_steps": {
        "converged": " Newton steps from theta ({n_newton_steps} in all) lead to {nearest} at a "
        "distance of {nearest_distance}: see nearest_point and nearest_verdict.",
        "diverged": " Newton steps from theta do not converge.",
        "plateau": " Newton steps from theta do not converge.",
        "rounding": " Newton steps from theta converge as far as rounding permits, but the "
        "gradient at their end is still above its tolerance.",
        "limit": " The limit on time or products was reached before Newton steps converged.",
    },
    # Why a verdict is not proved.
    "missing": {
        "objective": "{unproved_reason}",
        "": "no proof by the Newton-Kantorovich theorem was attempted",
        "float32": "the rounding of the loss in float32 leaves theta too far from a critical point",
        "no_third": "no bound on the third derivative of the loss is available",
        "untried": "curvature of both signs is not proved along the whole Newton step",
        "inverse": "the Newton-Kantorovich theorem needs a single error bound for all eigenvalues, "
        "and this coarser bound does not exclude an eigenvalue of 0",
        "step": "no bound on the length of the Newton step is known",
        "third": "no bound on the third derivative of the loss around theta is known",
        "h": "h = {h}, where the Newton-Kantorovich theorem needs h < 1/2. The number h is the "
        "product of bounds on the inverse Hessian, the Newton step and the third derivative",
        "orbit": "the symmetry directions are not proved to stay linearly independent near theta",
    },
    # Why a method of `minimize` can take no further step.
    "cause": {
        "no_reduction": "no step of finite length is predicted to lower the loss. The gradient may "
        "be 0 up to rounding errors",
        "tiny_steps": "steps so short that they change theta only by rounding errors do not lower "
        "the loss",
        "refused_steps": "a hundred trial steps in a row did not lower the loss enough",
        "no_lower_loss": "the line search found no lower loss along the negative gradient",
        "no_smaller_gradient": "the line search found no smaller gradient along the step",
        "orthogonal_gradient": "no step is predicted to lower the gradient norm, since the "
        "gradient is orthogonal to the range of the Hessian",
        "not_finite": "the loss is not finite after the Newton step",
        "overflow": "products with the curvature matrix overflow. Use a smaller theta0, or scale "
        "inputs and targets",
        "not_convex": "the Gauss-Newton matrix has negative curvature at the next point, since the "
        "loss is concave in the outputs of some samples",
    },
    "wanted": {
        "index": "a critical point of index {index} (the number of negative eigenvalues)",
        "any": "a critical point",
    },
    # Why a minimum at active kinks is not proved.
    "kink_missing": {
        "not_finite": "the curvature is not finite",
        "zero": "in a direction that stays on all kinks the curvature may be 0",
        "negative": "in a direction that stays on all kinks the curvature is not positive",
        "h": "h = {h}, where the Newton-Kantorovich theorem needs h < 1/2",
        "signs": "another pre-activation is not proved to keep its sign within {radius} of theta",
        "slopes": "the gradient is 0 only for a certain slope of the activation at a kink, and "
        "this slope is not proved to lie between the slopes on the two sides",
        "upward": "the loss is not proved to rise on both sides of each kink",
        "collapsed": "the loss may fall if the zero weights of a unit grow",
        "copies": "the loss may fall if a unit becomes different from its copy",
    },
}

# --------------------------------------------------------------------------------------------------
# Endings of runs of `minimize` and of searches, each with the numbers of a `Note`.

_CONTINUES = "fastcurv.minimize(ob, result.x)"
_NOT_FOUND = "<wanted> was found. The smallest gradient norm found is {gradient_norm}."
ENDINGS = {
    "max_iter": "The limit of iterations was reached.",
    "max_time": "The limit of time was reached.",
    "max_products": "The limit of Hessian-vector products was reached.",
    "callback": "Stopped by the callback.",
    "target": "The loss reached fun_target.",
    "diverged": "Diverged: in the last step the loss or its gradient was not finite.",
    "interrupted": "Interrupted from the keyboard.",
    "unbounded": "The loss appears to be unbounded below (not proved).",
    "stalled": "No further step is possible, because <cause>.",
    "rounded": "Rounding errors limit further progress: <cause>.",
    "patience": "The {watched} has not decreased in the last {n_records} records of the history "
    "(patience = {patience}).",
    "slow": "Slow progress: the loss decreased only from {before} to {after} in {n_iterations} "
    "iterations.",
    "no_decrease": "Slow progress: the loss did not decrease from {before} in {n_iterations} "
    "iterations.",
    "idle": "Slow progress: in {n_iterations} iterations the loss did not decrease by a fraction "
    "{fraction} of its value, and the gradient norm was not halved.",
    "jump": "Over a distance of {distance} the change of the gradient is {ratio} times as long as "
    "the gradient, as at a kink such as that of relu at 0. At a kink the Hessian describes the "
    "loss on one side only.",
    "verdict": "{statement} {reason}",
    "no_minimum": "No point has the lowest loss, since {no_minimum_reason}.",
    "no_time": "No time was left for a verdict.",
    "no_hessian": "No classification is possible, because the objective has no Hessian.",
    "kinks": "Pre-activations lie at kinks ({n_active_kinks} in all), but no minimum is proved "
    "there: <kink_missing>.",
    "above_lower_bound": "The loss is within {excess} of its lower bound {lower_bound}.",
    "at_lower_bound": "The loss equals its lower bound {lower_bound}.",
    "infinity": "The infimum appears to be at infinity (not proved): along a ray from the returned "
    "point, neither the loss nor the gradient norm increased in 40 doublings of the distance.",
    "growth": "The infimum appears to be at infinity (not proved): the largest magnitude of a "
    "parameter grew from {before} to {after}, and the run ended at no critical point.",
    "tolerance": "The gradient norm is within gradient_tol.",
    "no_lower_point": "No point of lower loss was found.",
    "no_lower_point_nearby": "No point of lower loss was found along null vectors of the Hessian "
    "or by minimizing from points nearby.",
    "moved_lower": "The run converged at a loss of {loss}. A search from there found the returned "
    "point, with a lower loss of {lowest}.",
    "small_gradient": "The gradient norm is {gradient_norm}.",
    "no_verdict_requested": "No verdict was requested.",
    "no_verdict_reached": "No verdict was reached.",
    "large_gradient": "At the returned point the gradient norm is {gradient_norm}, above the "
    "tolerance {gradient_tol}.",
    # searches for critical points
    "within_tolerance": "The gradient norm, {gradient_norm}, is within its tolerance "
    "{gradient_tol}.",
    "limit": "The limit {limit} was reached at a gradient norm of {gradient_norm}.",
    "limit_within_tolerance": "The limit {limit} was reached at a gradient norm of "
    "{gradient_norm}, within the tolerance {gradient_tol}, but the Newton step is predicted to "
    "lower the loss further.",
    "limit_above_tolerance": "The limit {limit} was reached at a gradient norm of {gradient_norm}, "
    "above the tolerance {gradient_tol}.",
    "limit_without_point": f"The limit {{limit}} was reached before {_NOT_FOUND}",
    "tries_without_point": f"All tries ended before {_NOT_FOUND}",
    "diverged_without_point": f"The search diverged before {_NOT_FOUND}",
    "other_index": "The search ended at a critical point of index {n_negative} instead of {index}. "
    "The index is the number of negative eigenvalues.",
    "trivial_point": "The search ended at a trivial critical point ({trivial}), at which the "
    "outputs do not depend on the inputs. Start from a trained point.",
    "hessian_not_finite": "The Hessian is not finite at this point. Use a start nearer to 0.",
    "no_critical_point": "The gradient norm is {gradient_norm}, but the loss has no minimum, since "
    "{no_minimum_reason}.",
    "plateau": "A plateau, not a critical point: the norm of the gradient g is {gradient_norm}, "
    "and the curvature along g is small, since ||Hg|| = {flat_ratio} ||H|| ||g|| for the Hessian "
    "H.",
    "no_smaller_gradient": "No step decreased the gradient norm, {gradient_norm}. The returned "
    "point is that before the last line search.",
    # escapes from saddles
    "no_negative_curvature": "No negative curvature was found with {n_products} Hessian-vector "
    "products: the lowest curvature found is {curvature}, with a rounding error of about "
    "{rounding}.",
    "escaped": "The loss fell from {loss} to {lowest} over a step of length {length} along a "
    "direction of curvature {curvature}.",
    "slope_only": "Along the direction the loss falls by {gain}, which the slope and rounding "
    "errors explain without negative curvature. The curvature along this line is {curvature}.",
    "no_lower_on_line": "No lower loss was found along the direction or its opposite. The "
    "curvature along this line is {curvature}.",
    # advice
    "increase_limit": "Increase this limit.",
    "float64": "For smaller rounding errors, continue in float64.",
    "newton_methods": 'Use the method "newton-cg" or "trust-region".',
    "l2": "To give the loss a minimum, use weight decay, l2 > 0, on all parameters.",
    "penalty": "To give the loss a minimum, add a penalty, such as l2, on all parameters.",
    "continue": f"To continue, call {_CONTINUES} with the same or another method.",
    "classify": "The returned point has no verdict yet; call fastcurv.classify(ob, result.x).",
}
# the notes that suggest a call of a function with the variables of the caller
CALL_NOTES = ("continue", "classify")

# --------------------------------------------------------------------------------------------------
# Advice on verdicts, for a caller with an objective, with a fitted estimator, or with the result of
# a run, for which a second equal run is no advice.

VERDICT_ADVICE = {
    "escape": "Use fastcurv.escape({at}) to leave it.",
    "continue": "Use fastcurv.minimize({at}) to continue.",
    "plateau": 'Use fastcurv.minimize({at}, method) with method "trust-region" or "l-bfgs", whose '
    "steps grow where the loss is flat.",
    "lower": "Use fastcurv.minimize({at}) to search for a lower point.",
    "kinks": "Use fastcurv.minimize({at}) to search for a minimum at kinks.",
    "reduce": "Use fastcurv.find_critical_point({at}) to reduce the gradient.",
    "check": "Compare the products with differences of gradients, as by "
    "scipy.optimize.approx_fprime.",
    "l2": "Use weight decay, l2 > 0, on all parameters.",
    "bounds": "For a verdict, ob.hessian(theta) must supply finite bounds on the errors of its "
    "products.",
    "max_time": "Increase max_time.",
    "max_products": "Increase max_products.",
    "risk": "The option failure_probability={suggested_risk} would allow a verdict, which would "
    "not exclude eigenvalues of the other sign nearer zero than 1e-4 times (lambda_max "
    "- lambda_min).",
    "precision": "A verdict with a stated error probability needs products with smaller errors, "
    "for example in float64.",
    "risk_steps": "A risk of at most {accepted_risk} needs {n_steps_needed} Lanczos steps, at one "
    "Hessian-vector product each: increase max_products, max_time or max_bytes.",
}


class Audience(NamedTuple):
    """The reader of advice: the `arguments` of the calls that it suggests, and advice in other
    words by its key in `VERDICT_ADVICE`, which is "" for advice that does not apply.
    """

    arguments: str
    reworded: Mapping[str, str] = {}


OBJECTIVE_AUDIENCE = Audience("ob, theta")
FIT_AUDIENCE = Audience(
    "net.objective(X, y), net.theta_",
    {"continue": "To continue, fit with a smaller tol or a larger max_iter.", "l2": ""},
)
_RERUNS = ("continue", "plateau", "lower", "kinks", "reduce")
RUN_AUDIENCE = Audience("ob, result.x", dict.fromkeys(_RERUNS, ""))


class Note(NamedTuple):
    """A fact about the end of a run, by its key in `ENDINGS`, with the numbers of its template."""

    key: str
    numbers: Mapping[str, object] = {}


def render(
    template: str, numbers: Mapping[str, object], choices: Mapping[str, object] | None = None
) -> str:
    """Return the text of a template. `choices` gives the key in `CLAUSES` of each clause ``<name>``
    that is not empty. Floats are written with four digits.

    Examples
    --------
    >>> render("<stationary>; n = {n}", {"gradient_norm": 0.0, "n": 2}, {"stationary": True})
    'The gradient is exactly 0; n = 2'
    """
    chosen = choices or {}
    while _CLAUSE_PATTERN.search(template):
        template = _CLAUSE_PATTERN.sub(
            lambda found: CLAUSES[found[1]].get(chosen.get(found[1]), ""), template
        )
    shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in numbers.items()}
    return template.format_map(shown)


def render_notes(notes: Iterable[Note], *, calls: bool = True) -> str:
    """Return the message of the `notes`. If `calls` is False, advice on functions to call is left
    out, for callers that have no variables `ob` and `result`.
    """
    return " ".join(
        render(ENDINGS[note.key], note.numbers, note.numbers)
        for note in notes
        if calls or note.key not in CALL_NOTES
    )
