"""What kind of point theta is: a verdict that never says more than has been shown."""

import numbers
import time

import numpy as np

from ..checks import check_theta
from ..progress import bar
from ..spectrum.results import number
from .dense import DenseHessian, settle
from .evidence import Products, hessian_products, relative_gradient
from .request import _Question
from .result import CriticalPoint
from .wording import FAR, gradient_words, is_plateau, kink_words, not_critical_sentence


def classify(
    ob,
    theta,
    *,
    gradient_tol=None,
    curvature_tol=1e-4,
    failure_probability=None,
    max_products=None,
    dense_below=4096,
    krylov=None,
    seed=0,
    progress=False,
):
    """The kind of a point, with its evidence: minimum, maximum, saddle, degenerate, not_critical or
    undecided.

    Parameters
    ----------
    ob : object
        Anything with ``n_params``, ``gradient(theta)`` and ``hessian(theta)``. Used where offered:
        ``rounding_bound(theta)``, ``flat_directions(theta)``, ``probes(theta)``,
        ``saturation(theta)``, ``kinks(theta)``, ``curvature_floor(theta)``, and
        ``rounding_bound(v)``, ``astype(dtype)``, ``gradient`` of the operator.
    theta : array_like, shape (n,)
    gradient_tol : float, optional
        What ``||g||`` is held against. By default a point is called critical where g is within 10
        times its own rounding bound, or where ``||D g|| <= 1e-5 ||D H D|| ||theta / D||`` with D a
        diagonal that balances the rows of H: Newton's step in the stiffest direction would move
        theta by 1e-5 of its size. Neither the scale of the loss nor that of any input changes this.
        The field `gradient_tol` is then the norm at which this g would fail.
    curvature_tol : float
        At large n, curvature above ``-curvature_tol (lambda_max - lambda_min)`` counts as not
        negative. At small n it only tells what "flat" means where a plateau is named.
    failure_probability : float, optional
        The risk at which `minimum` or `maximum` may rest on random probes at large n; None: not at
        all.
    max_products : int, optional
        The most products to spend; by default what the question takes. Below n, a small problem is
        treated like a large one; above, the few that settle weak signs are not held back.
    dense_below : int
        Below this n the whole spectrum is computed: n products and ``O(n^3)`` work.
    krylov : Krylov, optional
        A run on the Hessian at theta, `fastcurv.Krylov`: its operator is used, at large n its
        products count as the verdict's own and new ones go into it, so that eigenpairs, density and
        steps get them for nothing. The result names it in `shared` and says in `n_new` what it did
        cost.
    seed : None, int or numpy.random.Generator
    progress : bool
        Show a bar of products, and what is being done.

    Returns
    -------
    CriticalPoint

    Notes
    -----
    Small n: the inertia off the verified symmetry directions, decided at a bound on the rounding of
    products and eigensolver; where zeros remain, again in balanced coordinates, which change no
    inertia (Sylvester) but sharpen the bound. Signs of weak eigenvalues must last to the critical
    point that theta stands for, else they count as zeros. ``minimum`` or ``maximum``: all
    eigenvalues but those explained by symmetry proved of one sign. ``degenerate``: zeros left that
    nothing explains.

    Large n: a Rayleigh quotient below minus its rounding bound proves a negative eigenvalue, one
    above a positive; both make a saddle. That there is none is proved only where the objective
    offers a floor under its curvature; with `failure_probability` it is given at that risk, by the
    bound of [1]_ for Lanczos from a random start.

    An operator without a rounding bound of its own is taken to be off by at most ``64 eps ||H||
    ||v||``.

    References
    ----------
    .. [1] J. Kuczynski and H. Wozniakowski, Estimating the largest eigenvalue by the power and Lanczos algorithms
       with a random start, SIAM J. Matrix Anal. Appl. 13, 1992.
    .. [2] C. G. Frye et al., Critical point-finding methods reveal gradient-flat regions of deep network losses,
       Neural Computation 33, 2021.

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
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if not isinstance(dense_below, numbers.Real) or np.isnan(dense_below):
            raise TypeError(f"dense_below is {dense_below!r}; wanted a number of parameters")
        ask = _Question(
            ob,
            _point(ob, theta),
            gradient_tol,
            curvature_tol,
            failure_probability,
            max_products,
            seed,
            krylov,
        )
        with bar(None, "classify", progress) as ask.shown:
            return _classify(ask, dense_below, started)


def _point(ob, theta):
    missing = [name for name in ("n_params", "gradient", "hessian") if not hasattr(ob, name)]
    if missing:
        raise TypeError(
            f"ob is a {type(ob).__name__} without {', '.join(missing)}; wanted an objective such "
            "as fastcurv.Objective"
        )
    theta = check_theta(ob, theta, "theta", np.float64)
    if getattr(ob, "dtype", None) == np.float32:
        theta = theta.astype(np.float32).astype(np.float64)  # where the objective really is
    return theta.copy()


def _classify(ask, dense_below, started):
    n, run = ask.theta.size, ask.krylov
    H = hessian_products(ask.ob, ask.theta) if run is None else Products(run.op, np.float64)
    H.shown = ask.shown
    small = n < dense_below and (ask.max_products is None or ask.max_products >= n)
    if small:
        facts = _dense(ask, H)
    else:
        from .iterative import krylov

        facts = krylov(ask, H)
    return CriticalPoint(
        **facts,
        curvature_tol=ask.curvature_tol,
        method="dense" if small else "krylov",
        n_params=n,
        n_products=H.count + H.shared,
        seed=ask.seed,
        wall_time=time.perf_counter() - started,
        shared=None if run is None else run.name,
        n_new=None if run is None else H.count,
    )


def _dense(ask, H):
    g = ask.gradient(H)
    ask.shown.note("all columns")
    full = DenseHessian(H)
    ask.shown.note("all eigenvalues")
    critical = ask.hold(full.d, full.live, full.balanced_norm)
    T = np.zeros((H.n, 0))
    if hasattr(ask.ob, "flat_directions"):
        T = np.asarray(ask.ob.flat_directions(ask.theta), dtype=float)
    Q = full.symmetries(T, ask.g_norm if critical else 0.0)
    plain = full.signs(Q, balanced=False)
    best = plain
    if plain.count(0):
        balanced = full.signs(Q, balanced=True)
        best = balanced if balanced.count(0) < plain.count(0) else plain
    ask.shown.note("do signs last?")
    best.prove(H)
    found = best.count(-1), best.count(1)
    if critical:
        relative = relative_gradient(g, ask.theta, best.c, full.live, best.norm)
        spent = [0]
        rounding, stiffness = ask.uncertainty(full.norm)
        settle(
            ask.ob,
            ask.theta,
            g,
            best,
            relative=relative,
            rounding=rounding,
            stiffness=stiffness,
            counter=spent,
        )
        H.count += spent[0]
    direction, curvature = _escape(H, plain, best)
    (low, low_bounds), (high, high_bounds) = full.extremes(plain, Q)
    n_symmetry, n_zero = Q.shape[1], best.count(0) + Q.shape[1]
    facts = {
        "gradient_norm": ask.g_norm,
        "gradient_tol": ask.tol,
        "gradient_flat_ratio": None,
        "gradient_residual": None,
        "lambda_min": low,
        "lambda_max": high,
        "lambda_min_bounds": low_bounds,
        "lambda_max_bounds": high_bounds,
        "n_positive": best.count(1),
        "n_negative": best.count(-1),
        "n_zero": n_zero,
        "n_symmetry": n_symmetry,
        "n_negative_bounds": (best.count(-1), best.count(-1) + best.count(0)),
        "escape_direction": direction,
        "escape_curvature": curvature,
        "n_kinks": ask.n_kinks,
    }
    if ask.g_norm > 0 and full.norm > 0:
        facts["gradient_flat_ratio"] = float(np.linalg.norm(full.A @ g) / (full.norm * ask.g_norm))
        far = full.norm * ask.relative / FAR
        facts["gradient_residual"] = full.outside_range(
            plain, g, max(ask.curvature_tol * full.norm, far)
        )
    elif ask.g_norm > 0:
        facts["gradient_residual"] = 1.0
    kind = _kind_of_inertia(critical, facts)
    facts["plateau"] = kind == "not_critical" and is_plateau(ask, facts)
    kind = ask.across_kinks(kind, direction)
    certified = kind in ("minimum", "maximum", "saddle") and not ask.n_kinks
    unsettled = sum(found) - best.count(-1) - best.count(1)
    reason = _dense_sentence(ask, kind, facts, best, unsettled)
    return dict(facts, kind=kind, certified=certified, failure_probability=0.0, reason=reason)


def _kind_of_inertia(critical, facts):
    if not critical:
        return "not_critical"
    if facts["n_negative"] and facts["n_positive"]:
        return "saddle"
    if facts["n_zero"] > facts["n_symmetry"] or not facts["n_negative"] + facts["n_positive"]:
        return "degenerate"
    return "minimum" if facts["n_positive"] else "maximum"


def _escape(H, plain, best):
    """The unit vector of most negative curvature, if a product proves it negative."""
    for signs in (plain, best):
        if signs.count(-1):
            i = int(np.flatnonzero(signs.signs == -1)[0])
            v = signs.c * signs.vectors[:, i]
            v /= np.linalg.norm(v)
            quotient, error, _ = H.rayleigh(v)
            if quotient < -error:
                return v, quotient
    return None, None


def _dense_sentence(ask, kind, facts, best, unsettled):
    n, n_symmetry = ask.theta.size, facts["n_symmetry"]
    unexplained = facts["n_zero"] - n_symmetry
    if kind == "not_critical":
        return not_critical_sentence(ask, facts)
    explained = (
        f" up to {n_symmetry} symmetry direction{'s' * (n_symmetry > 1)}" if n_symmetry else ""
    )
    if kind in ("minimum", "maximum"):
        sign = "positive" if kind == "minimum" else "negative"
        weakest = np.abs(best.values[best.signs != 0]).min()
        where = "" if (best.c == 1).all() else " in balanced coordinates"
        text = (
            f"{kind.capitalize()}{explained}: {gradient_words(ask)}, and all "
            f"{'other ' if n_symmetry else ''}{n - n_symmetry} "
            f"eigenvalues are proved {sign}, the weakest of size {number(weakest)} with an error "
            f"below {number(best.error)}{where}"
        )
    elif kind == "undecided":
        text = (
            f"Undecided: {gradient_words(ask)}, and {facts['n_negative']} negative and "
            f"{facts['n_positive']} positive "
            "eigenvalues are proved, but on this side of the kinks only"
        )
    elif kind == "saddle":
        text = (
            f"Saddle: {gradient_words(ask)}, and curvature of both signs is proved, with "
            f"{facts['n_negative']} "
            f"negative and {facts['n_positive']} positive of {n} eigenvalues from "
            f"{number(facts['lambda_min'])} to "
            f"{number(facts['lambda_max'])}"
        )
    else:
        text = (
            f"Degenerate: {gradient_words(ask)}, and of {n} eigenvalues {facts['n_zero']} are "
            "zero within the error "
            f"{number(best.error)}, of which symmetry explains {n_symmetry}"
        )
        if unexplained and unsettled:
            text += (
                f"; {unsettled} of them do not keep their sign up to the critical point that "
                "theta stands for"
            )
        if facts["n_negative"]:
            text += f"; {facts['n_negative']} are proved negative, so it is no minimum"
    return text + kink_words(ask) + "."
