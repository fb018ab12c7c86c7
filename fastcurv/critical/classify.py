"""What kind of point theta is: a verdict that never says more than has been shown."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from ..common.errors import own_names
from ..common.progress import bar
from ..common.protocols import Differentiable
from ..common.runtime import OutOfTime, late, one_blas_thread, time_limit, to_nearest
from ..common.vectors import safe_norm
from ..spectrum.shared_run import Krylov
from . import dense, iterative
from .decide import Findings, Outcome, decide
from .evidence import (
    Evidence,
    Products,
    Request,
    as_stored,
    hessian_products,
    left_alone,
    make_request,
    saturation,
)
from .kink_minimum import HeldMinimum, held_at
from .nearness import Coordinates, walk
from .report import CriticalPoint, cut_short, reason, where_newton_leads, which_call_gets_there

FEW = 256  # parameters, up to which all eigenvalues are known at any point
LARGEST_ALONE = 4096  # rows of a matrix up to which threads of BLAS cost more than they save
IN_FULL = 0.8  # of the time there is, for all eigenvalues; the rest for products alone


@own_names("classify")
@to_nearest
def classify(
    ob: Differentiable,
    theta: Any,
    *,
    gradient_tol: float | None = None,
    curvature_tol: float = 1e-4,
    failure_probability: float | None = None,
    max_products: int | None = None,
    max_time: float | None = None,
    dense_below: float = 4096,
    krylov: Krylov | None = None,
    seed: Any = 0,
    progress: bool | None = None,
) -> CriticalPoint:
    """The kind of a point, with its evidence: minimum, maximum, saddle, degenerate, not_critical or
    undecided.

    Parameters
    ----------
    ob : object
        Anything with ``n_params``, ``gradient(theta)`` and ``hessian(theta)``. Used where offered:
        ``value(theta)``, ``third_bound(theta, radius)``, ``precise_gradient(theta)``,
        ``rounding_bound(theta)``, ``loss_lower_bound``, ``orbits(theta, radius)``,
        ``kinks(theta)``, ``ray_to_infimum(theta)``, ``residual_bounds(theta, radius)``,
        ``curvature_floor(theta)``, ``probes(theta)``, ``saturation(theta)``, and
        ``rounding_bound(v)``, ``column_bounds()``, ``astype(dtype)``, ``gradient`` of the operator;
        see `fastcurv.common.protocols`.
    theta : array_like, shape (n,)
        The point.
    gradient_tol : float, optional
        What ``||g||`` is held against. By default theta is near a critical point where Newton's
        step promises to change the loss by no more than 1e-8 of what it has above its bound, or
        than its rounding: ``g'|H|^-1 g / 2 <= max(1e-8 (f - c), rounding of f)``. The field
        `gradient_tol` is then the norm at which this g would fail.
    curvature_tol : float
        At large n, curvature above ``-curvature_tol (lambda_max - lambda_min)`` counts as not
        negative. At small n it only tells what "flat" means where a plateau is named.
    failure_probability : float, optional
        The risk at which `minimum` or `maximum` may rest on random probes at large n; None: not at
        all.
    max_products : int, optional
        The most products to spend, those that a `krylov` run holds already not counted; by default
        what the question takes. Below n, a small problem is treated like a large one. Where too few
        are left to measure whether signs last, the verdict is `undecided`.
    max_time : float, optional
        Seconds after which the verdict is given on what has been found until then, to about a few
        products; its reason says so. All eigenvalues are not begun where they would surely take
        longer, and where they do, the last fifth of the time is left to products alone.
    dense_below : int
        Below this n the whole spectrum is computed: the matrix, which a network makes layer by
        layer and n products make of anything else, and ``O(n^3)`` work; and above where products
        reach fewer dimensions than that.
        Where the gradient is far above its tolerance, and n above 256, products alone say so.
    krylov : Krylov, optional
        A run on the Hessian at theta, `fastcurv.Krylov`: its operator is used, at large n its
        products count as the verdict's own and new ones go into it, so that eigenpairs, density and
        steps get them for nothing. The result names it in `shared` and says in `n_new` what it did
        cost.
    seed : None, int or numpy.random.Generator
        Of the random choices; the same number, the same bits.
    progress : bool, optional
        Show a bar of products, and what is being done; by default on a terminal, where that takes
        more than 2 s.

    Returns
    -------
    CriticalPoint
        The kind, the sentence that says why, and every number it rests on.

    Raises
    ------
    ValueError
        Where theta, the gradient or a product is not finite, or an option makes no sense.
    TypeError
        Where `ob` or an option is of the wrong kind.

    See Also
    --------
    minimize, find_critical_point, escape, inertia

    Notes
    -----
    *Certified* is a theorem, Newton and Kantorovich's [1]_: with ``||H^-1|| <= beta``,
    ``||H^-1 g|| <= eta`` and a Lipschitz constant L of H on the ball of radius ``2 eta``,
    ``h = beta L eta < 1/2`` proves that exactly one critical point lies within ``radius`` of theta,
    in the slice across proved symmetries, and that every eigenvalue keeps its sign on the way. All
    three numbers are bounds: eigenvalues with the error of products and eigensolver, g in more than
    float64 where the objective offers it, L by majorants. Other proofs: of the residuals of an mse
    net that they vanish nearby, a global minimum; of a saddle, two fixed vectors whose curvatures
    keep opposite signs on a ball larger than Newton's step; at large n, a floor under the
    curvature. Where a bound is missing nothing is certified: signs of curvature are then measured
    again at several lengths of Newton's step, both ways, and those that do not last count as
    zeros. An operator or gradient without a bound of its own is taken to be off by at most
    ``64 eps ||H|| ||v||`` or ``64 eps |H| |theta|``.

    *Invariance*. Kind, `certified` and inertia do not change where the loss is multiplied by a
    number, inputs or targets are and the first or last layer undone, or a layer of relu or linear
    units is and the next undone, for networks in float64 up to n = 1500: errors of H are bounded by
    entries, and eigenvalues, the theorem and two fixed vectors are tried in balanced units too,
    which follow any others, those of collapsed units as well. They may change where something is
    hardly so: a slope, or an end of the spectrum that one product proves, within a rounding that is
    bounded by one norm in theta's own units; h near 1/2; a ball hardly larger than Newton's step,
    or larger in theta's own units alone; a sign that was measured, not proved, to last; whether the
    loss falls across a kink; and where numbers come to 1e-300. An eigenvalue within its error
    counts as zero, and that of an operator without bounds by entries is one in theta's own units:
    there, in float32, and above n = 1500 where H is not definite or has zeros that no units can
    settle, these may decide about the weakest.

    Small n: one eigendecomposition across the symmetries, and another in balanced coordinates
    where (up to n = 1500) H is not definite or zeros remain, above that where these might all be
    settled; from n = 768 on a minimum without symmetries is proved by two Cholesky factors
    instead, a tenth of the price.

    Large n: where rows are fewer than units, and reach fewer than `dense_below` dimensions, every
    eigenvalue is known all the same, l2 on what they do not reach; that is proved, and the theorem
    holds as at small n. An mse net that interpolates is tried up to 2^26 numbers in its Jacobian.
    Else a Rayleigh quotient below minus its rounding bound proves a negative eigenvalue, one
    above a positive. That there is none is proved only where the objective offers a floor under its
    curvature; with `failure_probability` it is given at that risk, by the bound of [2]_ for Lanczos
    from a random start, which speaks of H at theta alone. The page "how to read a verdict" has each
    claim.

    References
    ----------
    .. [1] J. M. Ortega and W. C. Rheinboldt, Iterative Solution of Nonlinear Equations in Several
           Variables, 1970, 12.6.
    .. [2] J. Kuczynski and H. Wozniakowski, Estimating the largest eigenvalue by the power and
           Lanczos algorithms with a random start, SIAM J. Matrix Anal. Appl. 13, 1992.
    .. [3] C. G. Frye et al., Critical point-finding methods reveal gradient-flat regions of deep
           network losses, Neural Computation 33, 2021.

    Examples
    --------
    >>> from fastcurv.testing import lecture_toy
    >>> report = classify(lecture_toy(), [0.0, 0.0])
    >>> report.kind, report.certified, report.n_negative
    ('saddle', True, 1)
    >>> np.abs(report.escape_direction).round(3)
    array([0.707, 0.707])
    """
    started = time.perf_counter()
    ask = make_request(
        ob,
        theta,
        gradient_tol=gradient_tol,
        curvature_tol=curvature_tol,
        failure_probability=failure_probability,
        max_products=max_products,
        max_time=max_time,
        dense_below=dense_below,
        seed=seed,
        krylov=krylov,
    )
    with (
        np.errstate(all="ignore"),
        bar(None, "classify", progress, ask.seconds if ask.dense else 0.0) as shown,
        left_alone(ask.ob, ask.theta),
        time_limit(ask.max_time),
        one_blas_thread(ask.n > FEW and min(ask.n, ask.dense_below) <= LARGEST_ALONE),
    ):
        return _judge(ask, shown, started)


def _judge(ask: Request, shown: Any, started: float) -> CriticalPoint:
    run = ask.krylov
    H = hessian_products(ask.ob, ask.theta) if run is None else Products(run.op, np.float64)
    H.shown = shown
    H.most = np.inf if ask.max_products is None else ask.max_products
    found, evidence, coordinates, asked = _examined(ask, H)
    outcome = decide(found)
    point = _result(asked, found, outcome, evidence)
    settled = point.certified or point.kind == "not_critical" or asked.dense
    if ask.max_time is not None and not settled and (late() or ask.dense_in_time):
        point = replace(point, reason=f"{point.reason[:-1]}{cut_short(ask, H.count, late())}.")
    extra: dict[str, Any] = {}
    held = held_at(ask.ob, ask.theta) if _may_be_held(ask, found, outcome) else None
    if held is not None:
        extra = _held(held)
    elif ask.seek and outcome.because in ("far", "plateau"):
        led = _nearest(ask, H, evidence, coordinates, shown)
        words = which_call_gets_there(evidence.on_plateau) if led is None else led.pop("words")
        extra = {"reason": f"{point.reason[:-1]}{words}.", **(led or {})}
    elif ask.seek and not outcome.certified and _too_long(evidence):
        led = _nearest(ask, H, evidence, coordinates, shown)
        if led is not None and led["at_nearest"].certified:
            extra = {"reason": f"{point.reason[:-1]}{led.pop('words')}.", **led}
    return replace(
        point,
        n_products=H.count + H.shared,
        wall_time=time.perf_counter() - started,
        shared=None if run is None else run.name,
        n_new=None if run is None else H.count,
        **extra,
    )


def _examined(ask: Request, H: Products) -> tuple[Findings, Evidence, Coordinates, Request]:
    """The evidence, and what was asked for it: far from rest products alone tell, at a hundredth
    of the price of all eigenvalues.
    """
    cheap = replace(ask, dense_below=0.0)
    if ask.dense and ask.n > FEW and ask.krylov is None and iterative.is_clearly_far(ask, H):
        found, evidence, coordinates = iterative.examine(cheap, H)
        if decide(found).because in ("far", "plateau"):
            return found, evidence, coordinates, cheap
    asked = ask
    for share in (IN_FULL, 1.0) if ask.dense else (1.0,):
        try:
            with time_limit(None if ask.max_time is None else share * ask.max_time):
                return *(dense if asked.dense else iterative).examine(asked, H), asked
        except OutOfTime:
            asked = cheap
    H.most = H.count
    with time_limit(np.inf):  # a few products see what there is to say
        return *iterative.examine(cheap, H), cheap


def _may_be_held(ask: Request, found: Findings, outcome: Outcome) -> bool:
    """Whether a proof on kinks is worth a try: theta lies on some, or its zeros may be those of
    units that are copies of others.
    """
    if outcome.certified:
        return False
    zeros = outcome.because in ("zeros", "not lasting") and not found.n_negative
    return found.n_kinks > 0 or zeros and bool(np.max(getattr(ask.ob, "l2", 0.0)) > 0)


def _held(proof: HeldMinimum) -> dict[str, Any]:
    """What the proof of a minimum on kinks changes in a verdict: of one-sided curvature nothing is
    claimed.
    """
    return {
        "kind": "minimum",
        "certified": True,
        "failure_probability": 0.0,
        "reason": f"{proof.reason}.",
        "plateau": False,
        "radius": proof.radius,
        "kantorovich": proof.kantorovich,
        "n_held": proof.n_kinks,
        "escape_direction": None,
        "escape_curvature": None,
    } | dict.fromkeys(("n_positive", "n_negative", "n_zero", "n_symmetry"))


def _too_long(evidence: Evidence) -> bool:
    """Whether the theorem lacks nothing but a shorter Newton step."""
    return evidence.theorem is not None and evidence.theorem.missing == "h"


def _nearest(
    ask: Request, H: Products, evidence: Evidence, coordinates: Coordinates, shown: Any
) -> dict[str, Any] | None:
    """Where Newton's steps lead, the verdict there and words for it; None where they lead to no
    critical point.
    """
    H.note("where does Newton's step lead?")
    went = walk(ask.ob, ask.theta, evidence.gradient, coordinates, H.left)
    H.tell(went.n_products)
    left = H.left
    if went.theta is None or left < 20:
        return None
    end = as_stored(ask.ob, went.theta)
    distance = safe_norm(end - ask.theta)
    there = replace(
        ask,
        theta=end,
        gradient_tol=None,
        krylov=None,
        seek=False,
        max_products=None if ask.max_products is None else int(left),
    )
    try:
        at = _judge(there, shown, time.perf_counter())
    except (ValueError, ArithmeticError):  # the objective has no derivatives there
        return None
    H.count += at.n_products
    if at.kind == "not_critical":
        return None
    words = where_newton_leads(distance, went.n_steps, at)
    return {"words": words, "nearest": end, "distance": distance, "at_nearest": at}


def _result(ask: Request, found: Findings, outcome: Outcome, evidence: Evidence) -> CriticalPoint:
    if not found.bounded:  # one vector of either sign may still be proved
        signs = int(found.negative), ask.n - int(found.positive)
        evidence = replace(evidence, n_negative_bounds=signs)
        found = replace(found, n_positive=None, n_negative=None, n_zero=None)
    state = saturation(ask.ob, ask.theta) if found.plateau else None
    theorem = evidence.zero if outcome.because == "interpolation" else evidence.theorem
    inside = evidence.reach if found.dense else None
    known = theorem is not None and theorem.h < np.inf and outcome.because != "two signs"
    return CriticalPoint(
        kind=outcome.kind,
        certified=outcome.certified,
        failure_probability=outcome.failure_probability,
        reason=reason(ask, found, outcome, evidence, state),
        gradient_norm=evidence.near.gradient_norm,
        gradient_tol=evidence.near.gradient_tol,
        gradient_flat_ratio=evidence.flat_ratio,
        gradient_residual=evidence.residual,
        plateau=found.plateau,
        lambda_min=evidence.low,
        lambda_max=evidence.high,
        lambda_min_bounds=evidence.low_bounds,
        lambda_max_bounds=evidence.high_bounds,
        n_positive=found.n_positive,
        n_negative=found.n_negative,
        n_zero=found.n_zero,
        n_symmetry=found.n_symmetry,
        n_negative_bounds=evidence.n_negative_bounds,
        escape_direction=evidence.escape_direction,
        escape_curvature=evidence.escape_curvature,
        n_kinks=found.n_kinks,
        curvature_tol=ask.curvature_tol,
        method="dense" if ask.dense else "krylov",
        n_params=ask.n,
        n_products=0,
        seed=ask.seed,
        wall_time=0.0,
        radius=outcome.radius if outcome.certified else None,
        kantorovich=theorem.h if known else None,
        n_reached=None if inside is None else inside.m,
        rest=None if inside is None else inside.rest,
    )
