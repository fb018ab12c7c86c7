"""The verdict as a function of what was found: findings in, outcome out, nothing computed here.

The order: what runs off to infinity or is not near a critical point is `not_critical`; what is
proved comes next (interpolation, the theorem, two signs, a floor under the curvature); kinks at
theta; then what was measured, with its risk or with the hypothesis that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

NAN = float("nan")
INF = float("inf")


@dataclass(frozen=True)
class Findings:
    """What `classify` knows of a point when it decides.

    Attributes
    ----------
    near : bool
        theta stands for a critical point (`nearness`).
    strict : bool
        And stands for it in float64, whatever the objective's own precision.
    to_infinity : bool
        The loss is proved to fall for ever from here to an infimum that is not attained.
    plateau : bool
        H is flat along g, and g lies mostly outside its range.
    flat : bool
        H was seen to be 0.
    bounded : bool
        What the eigenvalues are off by is bounded.
    asymmetric : bool
        Eigenvalues count as zero only since the products were seen not to be a symmetric matrix's.
    n_positive, n_negative, n_zero, n_symmetry : int or None
        Inertia with the zeros that proved symmetries explain; None at large n.
    negative, positive : bool
        Curvature of that sign is proved at theta, along one vector.
    lasting : bool
        Signs were measured, or are proved, to last to the critical point that theta stands for.
    short : bool
        There were not products enough for that, or to tell whether theta is near.
    arrives : bool
        Newton's step was measured, or is proved, to lead nearer to rest.
    theorem : bool
        Kantorovich's hypothesis holds in the slice across the symmetries, so a critical point with
        this inertia lies within `radius`.
    radius : float
    interpolates : bool
        The theorem holds for the residuals: a point of loss 0 lies within `zero_radius`.
    zero_radius : float
    two_signs : float
        Radius within which two fixed vectors keep curvature of both signs; 0: not proved.
    distance : float
        Newton's distance to the critical point, as measured; infinity where it is not known.
    unit : float
        1, or where `two_signs` and `distance` are lengths in balanced coordinates, the least of
        their units: a length in theta's own within which they surely hold is that times as long.
    floor : float
        No eigenvalue at theta is below it.
    risk, risk_asked : float or None
        Of having missed curvature of the other sign at large n, and what was allowed.
    loose : bool
        At large n: an eigenvalue is 0 to rounding, and nothing explains it.
    n_kinks : int
        Pre-activations within rounding of a kink.
    falls : bool
        Across the kinks the loss was seen to fall.
    """

    near: bool = True
    strict: bool = True
    to_infinity: bool = False
    plateau: bool = False
    flat: bool = False
    bounded: bool = True
    asymmetric: bool = False
    n_positive: int | None = None
    n_negative: int | None = None
    n_zero: int | None = None
    n_symmetry: int | None = None
    negative: bool = False
    positive: bool = False
    lasting: bool = True
    short: bool = False
    arrives: bool = True
    theorem: bool = False
    radius: float = INF
    interpolates: bool = False
    zero_radius: float = INF
    two_signs: float = 0.0
    distance: float = INF
    unit: float = 1.0
    floor: float = -INF
    risk: float = 1.0
    risk_asked: float | None = None
    loose: bool = False
    n_kinks: int = 0
    falls: bool = False

    @property
    def dense(self) -> bool:
        """Whether the inertia is known."""
        return self.n_positive is not None

    @property
    def unexplained(self) -> int:
        """Zeros that no proved symmetry explains."""
        return (self.n_zero or 0) - (self.n_symmetry or 0)


@dataclass(frozen=True)
class Outcome:
    """The verdict, and the ground that it stands on.

    Attributes
    ----------
    kind : str
    certified : bool
    because : str
        ``infinity``, ``far``, ``plateau``, ``interpolation``, ``theorem``, ``two signs``,
        ``floor``, ``kinks``, ``no bound``, ``flat``, ``asymmetric``, ``zeros``, ``measured``,
        ``not lasting``, ``short``, ``no rest``, ``loose``, ``risk``, ``no risk asked``,
        ``risk too large`` or ``nothing``.
    radius : float or None
        Of the claim.
    failure_probability : float
        0 where certified, a risk where there is one, NaN otherwise.
    """

    kind: str
    certified: bool
    because: str
    radius: float | None = None
    failure_probability: float = NAN


def decide(found: Findings) -> Outcome:
    """The verdict on what was found.

    Examples
    --------
    >>> decide(Findings(n_positive=2, n_negative=0, n_zero=0, theorem=True, radius=1e-9)).kind
    'minimum'
    """
    for rule in (_elsewhere, _proved, _at_kinks):
        outcome = rule(found)
        if outcome is not None:
            return outcome
    return _by_inertia(found) if found.dense else _by_risk(found)


def _elsewhere(f: Findings) -> Outcome | None:
    if f.to_infinity:
        return Outcome("not_critical", False, "infinity")
    if not f.near and f.short:
        return Outcome("undecided", False, "short")
    if not f.near:
        return Outcome("not_critical", False, "plateau" if f.plateau else "far")
    return None


def _proved(f: Findings) -> Outcome | None:
    """What is certified. A proof of minima that lie on kinks belongs here, with findings of its
    own.
    """
    if not f.strict:
        return None
    if f.interpolates:
        return Outcome("minimum", True, "interpolation", f.zero_radius, 0.0)
    if f.theorem and f.dense and f.unexplained == 0:
        kind = _one_kind(f)
        if kind is not None:
            return Outcome(kind, True, "theorem", f.radius, 0.0)
    if f.theorem and not f.dense and f.floor > 0 and not f.negative:
        return Outcome("minimum", True, "floor", f.radius, 0.0)
    if f.negative and f.positive and f.two_signs > f.distance:
        return Outcome("saddle", True, "two signs", f.two_signs * f.unit, 0.0)
    return None


def _one_kind(f: Findings) -> str | None:
    if f.n_negative and f.n_positive:
        return "saddle"
    if f.n_positive:
        return "minimum"
    return "maximum" if f.n_negative else None


def _at_kinks(f: Findings) -> Outcome | None:
    """At a kink H tells of one side only: a saddle where the loss does fall, else nothing."""
    if not f.n_kinks:
        return None
    if f.negative and f.positive and f.falls:
        return Outcome("saddle", False, "kinks")
    return Outcome("undecided", False, "kinks")


def _by_inertia(f: Findings) -> Outcome:
    if not f.bounded:
        return Outcome("undecided", False, "no bound")
    if f.flat:
        return Outcome("degenerate", False, "flat")
    if f.short:
        return Outcome("undecided", False, "short")
    if f.n_negative and f.n_positive:
        return Outcome("saddle", False, "measured")
    if f.unexplained > 0 and f.asymmetric:
        return Outcome("undecided", False, "asymmetric")
    if f.unexplained > 0 or not (f.n_negative or f.n_positive):
        return Outcome("degenerate", False, "zeros" if f.lasting else "not lasting")
    if not f.arrives:
        return Outcome("undecided", False, "no rest")
    return Outcome(_one_kind(f) or "degenerate", False, "measured")


def _by_risk(f: Findings) -> Outcome:
    if f.flat:
        return Outcome("degenerate", False, "flat")
    if f.floor > 0:
        return Outcome("undecided", False, "floor")
    if f.short:
        return Outcome("undecided", False, "short")
    if not f.lasting:
        return Outcome("undecided", False, "not lasting")
    if f.negative and f.positive:
        return Outcome("saddle", False, "measured")
    if not (f.negative or f.positive):
        return Outcome("undecided", False, "nothing")
    if not f.arrives:
        return Outcome("undecided", False, "no rest")
    if f.risk_asked is None:
        return Outcome("undecided", False, "no risk asked")
    if not f.risk <= f.risk_asked:
        return Outcome("undecided", False, "risk too large")
    if f.loose:
        return Outcome("degenerate", False, "loose", None, f.risk)
    return Outcome("minimum" if f.positive else "maximum", False, "risk", None, f.risk)
