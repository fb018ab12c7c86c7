"""The verdict on a critical point, with its evidence."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from ..answers import Answering
from ..spectrum.results import html_table, number


def noun(point: "CriticalPoint") -> str:
    """A verdict as part of a sentence."""
    if point.kind == "degenerate":
        return "a degenerate point"
    if point.kind == "undecided":
        return "a point that stays undecided"
    return f"a {'certified ' * point.certified}{point.kind.replace('_', ' ')}"


def _plain(x: Any) -> Any:
    """`x` as what JSON can hold: arrays as lists, None for what is not finite."""
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
    """A verdict on a point, with its evidence; what `classify` returns.

    Attributes
    ----------
    kind : str
        ``minimum``, ``maximum``, ``saddle``, ``degenerate``, ``not_critical`` or ``undecided``.
    certified : bool
        Whether it is a theorem: a true critical point of this kind lies within `radius` of theta,
        with the inertia given here; or, for a saddle, no point within `radius` is a minimum or a
        maximum.
    failure_probability : float
        0 where certified; where the kind rests on random probes the probability that these missed
        curvature of the other sign; NaN otherwise.
    reason : str
        One sentence: what was proved, or what was measured and which hypothesis is missing.
    radius : float or None
        Of the claim; None where nothing is certified.
    kantorovich : float or None
        ``h = beta L eta`` of the theorem, which needs ``h < 1/2``; None where it was not tried, a
        bound is missing, or a saddle rests on two vectors.
    nearest : ndarray, shape (n,), or None
        Where at most ten Newton steps from a `not_critical` theta lead, if they contract; from a
        theta near a critical point that is too far from it for the theorem, if they lead to a
        certified one.
    distance : float or None
        ``||nearest - theta||``.
    at_nearest : CriticalPoint or None
        The verdict there.
    gradient_norm, gradient_tol : float
        ``||g||``, and the norm at which this g would fail: where Newton's step would change the
        loss by more than 1e-8 of what it has above its bound, and by more than rounding; or what
        the caller said.
    gradient_flat_ratio : float or None
        ``||Hg|| / (||H|| ||g||)``; None where g or H is 0.
    gradient_residual : float or None
        ``min over p of ||Hp + g|| / ||g||``, p from the eigenspaces with curvature above
        `curvature_tol` of the largest (at large n from the Krylov space of g): near 1 where g lies
        outside the range of H. None where g is 0.
    plateau : bool
        Whether the gradient is finite, H flat along it, and g mostly outside the range of H.
    lambda_min, lambda_max : float
        The extreme eigenvalues of H, as found: at large n Ritz values, which lie within. Zeros that
        symmetries explain are eigenvalues too.
    lambda_min_bounds, lambda_max_bounds : tuple of float
        ``(low, high)`` with an eigenvalue between them, from the residual and the rounding bound.
    n_positive, n_negative, n_zero : int or None
        Inertia; None at large n, and where nothing bounds what eigenvalues are off by. Zeros are
        those within the error, those whose sign does not last over the distance to the critical
        point, and those that proved symmetries explain, which are 0 there.
    n_symmetry : int or None
        Zero modes that proved symmetries of the objective explain; None where they were not looked
        for: at large n where there is no minimum to explain them for, or too many to be tried.
    index, minimum_ratio : float or None
        ``n_negative / n`` and ``n_positive / n``.
    n_negative_bounds : tuple of int
        ``(low, high)`` for the number of negative eigenvalues: of the critical point where
        certified, else of H at theta.
    escape_direction : ndarray, shape (n,), or None
        Unit vector of proved negative curvature, the most negative found.
    escape_curvature : float or None
        Its Rayleigh quotient.
    n_kinks : int
        Pre-activations within rounding of a kink, where the Hessian is one-sided.
    curvature_tol : float
        At large n: "no negative curvature" means none below ``-curvature_tol (lambda_max -
        lambda_min)``.
    method : str
        ``dense`` or ``krylov``.
    n_reached : int or None
        Where n is large and the rows reach few dimensions, how many: every eigenvalue is then
        known, and the inertia holds.
    rest : float or None
        The eigenvalue in the other ``n - n_reached`` dimensions: l2.
    n_held : int or None
        Kinks that hold a minimum of a piecewise smooth loss, in which no gradient is 0; None
        elsewhere. The inertia is then None, since H is one-sided there.
    n_params, n_products : int
        `n_products` are all that the verdict rests on.
    seed : object
    wall_time : float
        Seconds.
    shared : str or None
        Name of the `Krylov` run whose products serve this verdict too.
    n_new : int or None
        Of these products those made for the verdict; None where it shares none.
    """

    kind: str
    certified: bool
    failure_probability: float
    reason: str
    gradient_norm: float
    gradient_tol: float
    gradient_flat_ratio: "float | None"
    gradient_residual: "float | None"
    plateau: bool
    lambda_min: float
    lambda_max: float
    lambda_min_bounds: "tuple[float, float]"
    lambda_max_bounds: "tuple[float, float]"
    n_positive: "int | None"
    n_negative: "int | None"
    n_zero: "int | None"
    n_symmetry: "int | None"
    n_negative_bounds: "tuple[int, int]"
    escape_direction: "np.ndarray | None"
    escape_curvature: "float | None"
    n_kinks: int
    curvature_tol: float
    method: str
    n_params: int
    n_products: int
    seed: object
    wall_time: float
    shared: "str | None" = None
    n_new: "int | None" = None
    radius: "float | None" = None
    kantorovich: "float | None" = None
    n_reached: "int | None" = None
    rest: "float | None" = None
    n_held: "int | None" = None
    nearest: "np.ndarray | None" = None
    distance: "float | None" = None
    at_nearest: "CriticalPoint | None" = None
    _advice: ClassVar[tuple[str, str]] = ("ob, theta", "fastcurv.minimize(ob, theta)")

    def _of_fit(self) -> "CriticalPoint":
        """The same for who has an estimator, and neither `ob` nor `theta`."""
        there = None if self.at_nearest is None else self.at_nearest._of_fit()
        reason = self.reason.replace(self._advice[0], OF_FIT[0])
        point = replace(self, reason=reason, at_nearest=there)
        object.__setattr__(point, "_advice", OF_FIT)
        return point

    @property
    def index(self) -> "float | None":
        """``n_negative / n``, None where the inertia is not known."""
        return None if self.n_negative is None else self.n_negative / self.n_params

    @property
    def minimum_ratio(self) -> "float | None":
        """``n_positive / n``, None where the inertia is not known."""
        return None if self.n_positive is None else self.n_positive / self.n_params

    @property
    def sentence(self) -> str:
        """The verdict for a first reader, in at most 25 words: the kind, how sure it is, and what
        to do next. `reason` says what it rests on.
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
        """The verdict and its evidence in a few lines."""
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers, strings, lists and None, which JSON can hold.

        Returns
        -------
        dict
            Every attribute by its name: vectors as lists, `at_nearest` as a dict of its own, None
            where something is not known or not finite, and a `seed` that is a Generator as its
            name. Of ``n_params`` numbers for each vector.

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
