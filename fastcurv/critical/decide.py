"""Map what was found at a point to the verdict: `Findings` in, `Decision` out. Nothing is computed
here.

Rules apply in this order. A point from which the loss is proved to fall to infinity, or that is not
near a critical point, is `not_critical`. Next comes what is proved: interpolation, Kantorovich's
theorem, two directions of opposite curvature, a lower bound on the curvature. Then kinks at theta;
then what was measured, with its risk or with the hypothesis that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

NAN = float("nan")
INF = float("inf")


@dataclass(frozen=True)
class Findings:
    """The facts about a point from which `decide` derives its verdict.

    Attributes
    ----------
    near : bool
        theta is near enough to a critical point to be taken for it (`nearness`).
    strict : bool
        It is so by the rounding of float64, whatever the objective's own precision.
    to_infinity : bool
        The loss is proved to decrease for ever from here, to an infimum that is not attained.
    plateau : bool
        H is flat along g, and g lies mostly outside its range.
    flat : bool
        H was seen to be 0.
    bounded : bool
        A bound on the error of the eigenvalues is known.
    asymmetric : bool
        Some eigenvalues count as zero only because the products were seen to be asymmetric.
    n_positive, n_negative, n_zero, n_symmetry : int or None
        Inertia, and the number of zeros that proved symmetries explain; None at large n.
    negative, positive : bool
        Curvature of that sign is proved at theta, along one vector.
    lasting : bool
        Signs of curvature were measured, or are proved, to stay the same up to the critical point.
    short : bool
        There were too few products for that measurement, or to tell whether theta is near.
    arrives : bool
        Newton's step was measured, or is proved, to reduce the gradient.
    theorem : bool
        Kantorovich's hypothesis holds in the slice across the symmetries, so a critical point with
        this inertia lies within `radius`.
    radius : float
    interpolates : bool
        The theorem holds for the residuals: a point of loss 0 lies within `zero_radius`.
    zero_radius : float
    two_signs : float
        Radius within which two fixed vectors keep curvatures of opposite sign; 0 if not proved.
    distance : float
        Newton's distance to the critical point, as measured; infinity where it is not known.
    unit : float
        1, or the smallest scale factor where `two_signs` and `distance` are lengths in balanced
        coordinates: multiplied by it, `two_signs` is a radius that holds in theta's own.
    floor : float
        No eigenvalue at theta is below it.
    risk, risk_asked : float or None
        Probability of having missed curvature of the other sign at large n, and the risk allowed.
    loose : bool
        At large n: an eigenvalue is 0 to rounding, and no known symmetry explains it.
    n_kinks : int
        Number of pre-activations within rounding of a kink.
    falls : bool
        The loss was seen to decrease across the kinks.
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
        """True where the inertia is known."""
        return self.n_positive is not None

    @property
    def unexplained(self) -> int:
        """The number of zeros that no proved symmetry explains."""
        return (self.n_zero or 0) - (self.n_symmetry or 0)


@dataclass(frozen=True)
class Decision:
    """The verdict and the rule that it rests on.

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
        Radius of the certified ball around theta.
    failure_probability : float
        0 if certified, the risk if the verdict rests on random probes, NaN otherwise.
    """

    kind: str
    certified: bool
    because: str
    radius: float | None = None
    failure_probability: float = NAN


def decide(found: Findings) -> Decision:
    """Return the verdict on what was found.

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


def _elsewhere(f: Findings) -> Decision | None:
    if f.to_infinity:
        return Decision("not_critical", False, "infinity")
    if not f.near and f.short:
        return Decision("undecided", False, "short")
    if not f.near:
        return Decision("not_critical", False, "plateau" if f.plateau else "far")
    return None


def _proved(f: Findings) -> Decision | None:
    """Return the certified verdict, None if nothing is proved. Minima held by kinks are proved
    apart from this, in `kink_minimum`.
    """
    if not f.strict:
        return None
    if f.interpolates:
        return Decision("minimum", True, "interpolation", f.zero_radius, 0.0)
    if f.theorem and f.dense and f.unexplained == 0:
        kind = _one_kind(f)
        if kind is not None:
            return Decision(kind, True, "theorem", f.radius, 0.0)
    if f.theorem and not f.dense and f.floor > 0 and not f.negative:
        return Decision("minimum", True, "floor", f.radius, 0.0)
    if f.negative and f.positive and f.two_signs > f.distance:
        return Decision("saddle", True, "two signs", f.two_signs * f.unit, 0.0)
    return None


def _one_kind(f: Findings) -> str | None:
    if f.n_negative and f.n_positive:
        return "saddle"
    if f.n_positive:
        return "minimum"
    return "maximum" if f.n_negative else None


def _at_kinks(f: Findings) -> Decision | None:
    """Return the verdict at a kink, where H describes one side only: a saddle if the loss was seen
    to decrease across it, else undecided. None if there are no kinks.
    """
    if not f.n_kinks:
        return None
    if f.negative and f.positive and f.falls:
        return Decision("saddle", False, "kinks")
    return Decision("undecided", False, "kinks")


def _by_inertia(f: Findings) -> Decision:
    if not f.bounded:
        return Decision("undecided", False, "no bound")
    if f.flat:
        return Decision("degenerate", False, "flat")
    if f.short:
        return Decision("undecided", False, "short")
    if f.n_negative and f.n_positive:
        return Decision("saddle", False, "measured")
    if f.unexplained > 0 and f.asymmetric:
        return Decision("undecided", False, "asymmetric")
    if f.unexplained > 0 or not (f.n_negative or f.n_positive):
        return Decision("degenerate", False, "zeros" if f.lasting else "not lasting")
    if not f.arrives:
        return Decision("undecided", False, "no rest")
    return Decision(_one_kind(f) or "degenerate", False, "measured")


def _by_risk(f: Findings) -> Decision:
    if f.flat:
        return Decision("degenerate", False, "flat")
    if f.floor > 0:
        return Decision("undecided", False, "floor")
    if f.short:
        return Decision("undecided", False, "short")
    if not f.lasting:
        return Decision("undecided", False, "not lasting")
    if f.negative and f.positive:
        return Decision("saddle", False, "measured")
    if not (f.negative or f.positive):
        return Decision("undecided", False, "nothing")
    if not f.arrives:
        return Decision("undecided", False, "no rest")
    if f.risk_asked is None:
        return Decision("undecided", False, "no risk asked")
    if not f.risk <= f.risk_asked:
        return Decision("undecided", False, "risk too large")
    if f.loose:
        return Decision("degenerate", False, "loose", None, f.risk)
    return Decision("minimum" if f.positive else "maximum", False, "risk", None, f.risk)
