"""The verdict on a critical point with its evidence, and the sentences that state its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from ..common.errors import Answering
from ..common.vectors import safe_norm
from ..spectrum.results import html_table, number
from .decide import Decision, Findings
from .evidence import ClassifyOptions, Evidence, why_no_minimum
from .theorem import EPS


def noun(point: CriticalPoint) -> str:
    """Return the verdict on `point` as a noun phrase, for use in a sentence."""
    if point.kind == "degenerate":
        return "a degenerate point"
    if point.kind == "undecided":
        return "a point that stays undecided"
    return f"a {'certified ' * point.certified}{point.kind.replace('_', ' ')}"


def _plain(x: Any) -> Any:
    """Convert `x` to what JSON can represent: arrays become lists, non-finite numbers None, and
    objects of other types strings.
    """
    if isinstance(x, CriticalPoint):
        return x.to_dict()
    if isinstance(x, (list, tuple)):
        return [_plain(part) for part in x]
    if isinstance(x, (np.ndarray, np.generic)):
        return _plain(x.tolist())
    if isinstance(x, float):
        return x if np.isfinite(x) else None
    return x if x is None or isinstance(x, (bool, int, str)) else str(x)


# how an estimator's objective is asked, and what goes on where it has stopped
OF_FIT = "net.objective(X, y), net.theta_", "fit with a smaller tol or a larger max_iter"


@dataclass(frozen=True, repr=False, eq=False)
class CriticalPoint(Answering, subject="verdict"):
    """The verdict on a point, with its evidence, as returned by `classify`.

    Attributes
    ----------
    kind : str
        ``minimum``, ``maximum``, ``saddle``, ``degenerate``, ``not_critical`` or ``undecided``.
    certified : bool
        Whether the verdict is proved by a theorem: a true critical point of this kind lies within
        `radius` of theta, with the inertia given here; or, for a saddle, no point within `radius`
        is a minimum or a maximum.
    failure_probability : float
        0 if certified; if the kind rests on random probes, the probability that these missed
        curvature of the other sign; NaN otherwise.
    reason : str
        One sentence: what was proved, or what was measured and which hypothesis is missing.
    radius : float or None
        Radius of the ball around theta that the certificate covers; None if not certified.
    kantorovich : float or None
        ``h = beta L eta`` of the theorem, which needs ``h < 1/2``; None if it was not tried, a
        bound is missing, or a saddle rests on two vectors.
    nearest : ndarray, shape (n,), or None
        The point that at most ten Newton steps lead to, for a `not_critical` theta from which they
        contract. For a theta near a critical point but too far from it for the theorem, only if the
        point they lead to is certified.
    distance : float or None
        ``||nearest - theta||``.
    at_nearest : CriticalPoint or None
        The verdict at `nearest`.
    gradient_norm, gradient_tol : float
        ``||g||``, and the norm at which a gradient of this direction would fail: where Newton's
        step would change the loss by more than 1e-8 of its height above its lower bound, and by
        more than rounding; or the tolerance given by the caller.
    gradient_flat_ratio : float or None
        ``||Hg|| / (||H|| ||g||)``; None if g or H is 0.
    gradient_residual : float or None
        ``min over p of ||Hp + g|| / ||g||``, p from the eigenspaces with curvature above
        `curvature_tol` times the largest (at large n from the Krylov space of g): near 1 if g lies
        outside the range of H. None if g is 0.
    plateau : bool
        Whether the gradient is finite, H flat along it, and g mostly outside the range of H.
    lambda_min, lambda_max : float
        The extreme eigenvalues of H, as found: at large n Ritz values, which lie within the
        spectrum. Zero eigenvalues that symmetries explain are included.
    lambda_min_bounds, lambda_max_bounds : tuple of float
        ``(low, high)`` with an eigenvalue between them, from the residual and the rounding bound.
    n_positive, n_negative, n_zero : int or None
        Inertia; None at large n, and if there is no bound on the error of the eigenvalues. Counted
        as zero are eigenvalues within the error, those whose sign does not last over the distance
        to the critical point, and those that proved symmetries explain, which are 0 there.
    n_symmetry : int or None
        Number of zero eigenvalues that proved symmetries of the objective explain; None if these
        were not looked for: at large n if there is no minimum to explain them for, or too many to
        be tried.
    index, minimum_ratio : float or None
        ``n_negative / n`` and ``n_positive / n``.
    n_negative_bounds : tuple of int
        ``(low, high)`` for the number of negative eigenvalues: of the critical point if certified,
        else of H at theta.
    escape_direction : ndarray, shape (n,), or None
        Unit vector of proved negative curvature, the most negative found.
    escape_curvature : float or None
        Its Rayleigh quotient.
    n_kinks : int
        Number of pre-activations within rounding of a kink, where the Hessian is one-sided.
    curvature_tol : float
        At large n: "no negative curvature" means none below
        ``-curvature_tol (lambda_max - lambda_min)``.
    method : str
        ``dense`` or ``krylov``.
    n_reached : int or None
        Number of dimensions that the rows reach, if n is large and these are few: every eigenvalue
        is then known, and the inertia holds.
    rest : float or None
        The eigenvalue in the other ``n - n_reached`` dimensions: l2.
    n_held : int or None
        Number of kinks that hold a minimum of a piecewise smooth loss, at which no one-sided
        gradient is 0; None elsewhere. The inertia is then None, since H is one-sided there.
    n_params, n_products : int
        `n_products` counts all products that the verdict rests on.
    seed : object
    wall_time : float
        Seconds.
    shared : str or None
        Name of the `Krylov` run whose products serve this verdict too.
    n_new : int or None
        Number of these products that were made for the verdict; None if it shares none.
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
    shared: str | None = None
    n_new: int | None = None
    radius: float | None = None
    kantorovich: float | None = None
    n_reached: int | None = None
    rest: float | None = None
    n_held: int | None = None
    nearest: np.ndarray | None = None
    distance: float | None = None
    at_nearest: CriticalPoint | None = None
    _advice: ClassVar[tuple[str, str]] = ("ob, theta", "fastcurv.minimize(ob, theta)")

    def _of_fit(self) -> CriticalPoint:
        """Return the same for who has an estimator, and neither `ob` nor `theta`."""
        there = None if self.at_nearest is None else self.at_nearest._of_fit()
        reason = self.reason.replace(self._advice[0], OF_FIT[0])
        point = replace(self, reason=reason, at_nearest=there)
        object.__setattr__(point, "_advice", OF_FIT)
        return point

    @property
    def index(self) -> float | None:
        """The fraction ``n_negative / n``, None where the inertia is not known."""
        return None if self.n_negative is None else self.n_negative / self.n_params

    @property
    def minimum_ratio(self) -> float | None:
        """The fraction ``n_positive / n``, None where the inertia is not known."""
        return None if self.n_positive is None else self.n_positive / self.n_params

    @property
    def sentence(self) -> str:
        """A statement of the verdict in at most 25 words for a first reader: the kind, how sure it
        is, and what to do next. `reason` gives the evidence.
        """
        asked, onward = self._advice
        sure = "proved" if self.certified else "measured, not proved"
        if 0 < self.failure_probability < 1:
            sure = f"wrong with probability at most {number(self.failure_probability)}"
        if self.kind == "saddle":
            way = f"fastcurv.escape({asked}) takes a way down"
            return f"A saddle, {sure}: the loss falls on some sides and rises on others; {way}."
        if self.kind in ("minimum", "maximum"):
            goes = "up" if self.kind == "minimum" else "down"
            but = ", but for directions in which nothing changes" if self.n_symmetry else ""
            end = "training is done here" if goes == "up" else "fastcurv.escape leaves it"
            return f"A {self.kind}, {sure}: every direction goes {goes}{but}; {end}."
        if self.kind == "degenerate":
            flat = "some directions" if not self.n_zero else f"{self.n_zero} directions"
            return (
                f"Degenerate: the curvature of {flat} is zero without a known reason, so it "
                f"decides nothing; fastcurv.minimize({asked}) tries them."
            )
        if self.kind == "not_critical":
            where = "On a plateau" if self.plateau else "Not at rest"
            times = self.gradient_norm / self.gradient_tol if self.gradient_tol else np.inf
            held = f"{number(times)} times its tolerance" if times > 1 else "not small enough here"
            return f"{where}: the gradient is {held}; {onward} goes on."
        if self.gradient_norm > self.gradient_tol:
            return (
                "Undecided: too little was tried to tell how far from rest this is; more time or "
                "products would."
            )
        return (
            "Undecided: at rest, and what was seen settles no kind; `reason` says what is missing "
            "and which call gets it."
        )

    def summary(self) -> str:
        """Return the verdict and its evidence as text of a few lines."""
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as plain numbers, strings, lists and None, which JSON can
        represent.

        Returns
        -------
        dict
            Every attribute by its name: vectors as lists of ``n_params`` numbers, `at_nearest` as a
            dict of its own, None for what is not known or not finite. A `seed` that is a Generator
            is given as a string.

        Examples
        --------
        >>> import json, numpy as np, fastcurv as fc
        >>> point = fc.classify(fc.testing.lecture_toy(), np.zeros(2))
        >>> facts = json.loads(json.dumps(point.to_dict(), allow_nan=False))
        >>> facts["kind"], facts["n_negative"], len(facts["escape_direction"])
        ('saddle', 1, 2)
        """
        names = [field.name for field in fields(self)] + ["index", "minimum_ratio"]
        return {name: _plain(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        how = "certified" if self.certified else "not certified"
        if self.failure_probability > 0:
            how = f"wrong with probability at most {number(self.failure_probability)}"
        rows = [
            f"CriticalPoint: {self.kind}, {how}",
            f"  {self.sentence}",
            f"  {self.reason}",
            f"  gradient    {number(self.gradient_norm)}, held against {number(self.gradient_tol)}"
            + (
                ""
                if self.gradient_flat_ratio is None
                else f"; ||Hg|| / (||H|| ||g||) = {number(self.gradient_flat_ratio)}"
            ),
            f"  curvature   {self._end('min')}  to  {self._end('max')}",
            f"  inertia     {self._inertia()}",
        ]
        if self.n_reached is not None and self.rest is not None:
            rows.append(
                f"  reached     {self.n_reached} of {self.n_params} dimensions; in the others "
                f"every eigenvalue is {number(self.rest)}"
            )
        if self.escape_direction is not None and self.escape_curvature is not None:
            rows.append(
                f"  escape      v'Hv = {number(self.escape_curvature)} along escape_direction"
            )
        if self.radius is not None:
            h = "" if self.kantorovich is None else f", h = {number(self.kantorovich)}"
            where = f"within {number(self.radius)} of" if self.radius > 1e-100 else "at"
            rows.append(f"  proof       {where} theta{h}")
        if self.at_nearest is not None and self.distance is not None:
            where = f"at a distance of {number(self.distance)}"
            rows.append(f"  nearest     {noun(self.at_nearest)} {where}, by Newton's steps")
        if self.n_kinks:
            rows.append(f"  kinks       {self.n_kinks} pre-activations within rounding of one")
        rows.append(
            f"  cost        {self.n_products} products of n = {self.n_params}, "
            f"{self.wall_time:.2f} s, {self.method}"
        )
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        title, _, reason, *rows = repr(self).splitlines()
        cells = [[row[2:14].strip(), row[14:]] for row in rows]
        return html_table(f"{title}. {self.sentence} {reason.strip()}", ["evidence", ""], cells)

    def _end(self, which: str) -> str:
        low, high = getattr(self, f"lambda_{which}_bounds")
        return (
            f"lambda_{which} = {number(getattr(self, f'lambda_{which}'))} +- "
            f"{0.5 * (high - low):.1e}"
        )

    def _inertia(self) -> str:
        if self.n_held is not None:
            return "none on kinks, where H is one-sided; along them every curvature is positive"
        if self.n_negative is None:
            low, high = self.n_negative_bounds
            return f"between {low} and {high} of {self.n_params} eigenvalues negative"
        explained = f" ({self.n_symmetry} by symmetry)" if self.n_symmetry else ""
        return (
            f"{self.n_positive} positive, {self.n_negative} negative, {self.n_zero} "
            f"zero{explained}; "
            f"minimum ratio {number(self.minimum_ratio or 0.0)}"
        )


# --------------------------------------------------------------------------------------------------
# The `reason` of a verdict: one function for each `Outcome.because` puts the findings into words.

RISK = 0.01  # the failure probability suggested to a caller who gave none
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
    ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence, saturated: Any = None
) -> str:
    """Return the reason of a verdict as one sentence; `saturated` holds statistics of saturated
    units, for a plateau.
    """
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
    """Return a clause that says how most eigenvalues are known at large n, "" where they are
    not.
    """
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


def _place(ask: ClassifyOptions, radius: float) -> str:
    """Return words for the location of the certified critical point."""
    length = safe_norm(ask.theta)
    if radius == 0:
        return "at theta exactly"
    if radius < 1e-100 * max(length, 1.0):
        return "at theta, nearer than any number here can tell"
    last = " (its last digits)" if radius <= EPS * length else ""
    return f"within {number(radius)} of theta{last}"


def _infinity(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return f"Not critical: the infimum is at infinity, since {why_no_minimum(ask.ob, ask.theta)}"


def _far(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _theorem(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _interpolation(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return (
        f"Minimum: a point where all {found.n_positive} residuals are 0 is proved to lie "
        f"{_place(ask, outcome.radius or 0.0)}, a global minimum of loss 0 (Kantorovich's "
        f"theorem for the residuals, h = {number(ev.zero.h)} < 1/2); the {found.n_zero} zero "
        "eigenvalues belong to the other points of loss 0 around it"
    )


def _two_signs(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _floor(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _kinks(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _flat(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return f"Degenerate: {_near(ev)}, and H is zero as far as it was looked at"


def _no_bound(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, but nothing bounds what the {ask.n} eigenvalues are off by, so "
        "none of their signs is known"
    )


def _asymmetric(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, but the products are not those of a symmetric matrix, and within "
        f"the error {number(ev.weakest_error)} that this shows, {found.n_zero} of {ask.n} "
        "eigenvalues have no known sign"
    )


def _zeros(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    text = (
        f"Degenerate: {_near(ev)}, and of {ask.n} eigenvalues {found.n_zero} are zero within the "
        f"error {number(ev.weakest_error)}, of which symmetry explains {found.n_symmetry or 0}"
    )
    return text + _one_sided(found)


def _not_lasting(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _short(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def cut_short(ask: ClassifyOptions, n_products: int, ended: bool) -> str:
    """Return a clause that says what `max_time` cut off, for the end of a sentence."""
    what = f"ended the search after {n_products} product{_s(n_products)}"
    what = what if ended else "left no time for all eigenvalues"
    return f"; max_time = {number(ask.max_time or 0.0)} s {what}"


def _seen(ask: ClassifyOptions, found: Findings, ev: Evidence) -> str:
    """Return a clause on the curvature found at theta."""
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


def _measured(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _no_rest(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return (
        f"Undecided: {_near(ev)}, and {_seen(ask, found, ev)}, but at the end of Newton's step "
        "the gradient was measured to be no smaller, so the critical point that theta stands for "
        "was not seen; reduce the gradient first"
    )


def _risk(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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


def _loose(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
    return (
        f"Degenerate: {_near(ev)}, an eigenvalue is zero within {number(ev.weakest_error)} and no "
        f"symmetry known here explains it; none lies below -{number(ask.curvature_tol)} of the "
        f"spectrum's width, but for a risk of {number(found.risk)}"
    )


def _undecided(ask: ClassifyOptions, found: Findings, outcome: Decision, ev: Evidence) -> str:
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
    """Return the clause appended to the reason if Newton's steps contract: how far and to what."""
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
    """Return the clause appended to a `not_critical` reason if Newton's steps do not contract:
    which functions to call instead.
    """
    if plateau:
        return "; Newton's steps lead nowhere from here" + OFF
    return "; Newton's steps do not contract from here" + CALLS


def without_calls(reason: str) -> str:
    """Return the reason as a clause without its advice on which function to call, for a caller that
    has just followed it.
    """
    return reason.rstrip(".").replace(CALLS, "").replace(OFF, "")
