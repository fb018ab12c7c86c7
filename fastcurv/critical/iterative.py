"""The evidence of `classify` where n is too large for all eigenvalues: proofs one-sided, the other
side by risk.
"""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..checks import as_rng, operator_dtype
from ..krylov.basis import combine
from ..krylov.lanczos import Recurrence
from ..krylov.ritz import decompose
from ..spectrum.results import number
from .dense import PERSISTENCE, ZERO_MODE, annihilated, lasts_along
from .evidence import Products, hessian_products, independent, positive_there
from .risk import lanczos_risk, lanczos_steps
from .wording import FAR, gradient_words, is_plateau, kink_words, not_critical_sentence

# The Lanczos basis is kept whole, since a restart would void the bound on the risk; past this size
# it is not made.
MAX_BASIS_BYTES = 4 << 30
RISK = 0.01  # how hard negative curvature is looked for where no failure probability was asked
GRADIENT_STEPS = 40  # Krylov space of the gradient: its range, and Newton's step
BALANCED_STEPS = 128  # search in balanced coordinates, where parameters have very different scales
SHORT_STEPS = 64  # where only the ends of the spectrum are wanted
MAX_PROBES = 16
ZERO = 1e-10  # an eigenvalue this small beside the norm, residual included, is called zero
COUPLING = (
    0.01  # of curvature_tol ||H||: what H may do to a direction that is taken out as a symmetry
)
MAX_SYMMETRY = (
    1024  # symmetry directions, each a product, that are verified and taken out; more are not
)


class _Balanced(LinearOperator):
    """``D H D``."""

    def __init__(self, op, d):
        super().__init__(operator_dtype(op), op.shape)
        self.op, self.d = op, d.astype(self.dtype)

    def _matvec(self, v):
        return self.d * (self.op @ (self.d * v.reshape(-1)))

    def _adjoint(self):
        return self


class _Search:
    """What is left of the budget, and the most telling vectors of either sign so far."""

    def __init__(self, ask, H):
        self.ask, self.H = ask, H
        self.rng = as_rng(ask.seed)
        self.made_by = (
            H if H.native is H.op else Products(H.native)
        )  # whose rounding is in the bases
        self.budget = np.inf if ask.max_products is None else ask.max_products
        self.candidates = []  # (Ritz value over the norm of the operator it came from, vector)
        self.n_negative, self.n_positive = 0, 0
        self.only = None  # the one quotient that a very small budget allows
        # orthonormal columns that H was seen to annihilate, by a symmetry of the objective
        self.symmetry = None

    def left(self, reserve=9):
        return max(0, self.budget - self.H.count - reserve)

    def run(self, op, start, steps, d=None, stop=lambda run: False, against=None):
        """Lanczos from `start` (p, n), or a random vector for None, at most `steps` block steps;
        keeps its ends.
        """
        steps = int(min(steps, self.left() // (1 if start is None else len(start))))
        size = self.H.n * operator_dtype(op).itemsize
        block = 1 if start is None else len(start)
        rows = int(min(max(2, MAX_BASIS_BYTES // size - 1), (steps + 1) * block, self.H.n))
        run = Recurrence(op, rows, against=against)
        if steps < 1 or not (
            run.insert_random(self.rng) if start is None else run.insert(start.copy())
        ):
            return None
        while (
            run.p
            and run.m < run.dimension
            and run.m + run.p <= rows
            and run.n_products < steps * block
        ):
            run.step()
            self.H.tell(block)
            if run.m % 20 == 0 and stop(run):
                break
        return self.take(run, d)

    def take(self, run, d=None):
        """Note what a finished run says."""
        run.reorthogonalise()
        if d is None:
            self.H.norm = self.made_by.norm = max(self.H.norm, run.scale)
        self.keep(run, d)
        return run

    def shared(self, held, grow, steps, stop=lambda run: False):
        """As `run`, by a run of the caller's `Krylov`: `held` products of it are there, ``grow(k)``
        takes it to k.
        """
        steps = int(min(max(steps, held), held + self.left()))
        if steps < 1:
            return None
        run = None
        try:
            while run is None or (run.p and run.m < steps and not stop(run)):
                before = 0 if run is None else run.m
                run = grow(max(held, min(before + 20, steps)))
                self.H.tell(run.m - max(before, held))
        except MemoryError:  # the bound that the caller has set: on with what there is
            if run is None:
                return None
        self.H.shared += held
        return self.take(run)

    def from_random(self, steps, stop):
        """The run that the risk rests on, off the symmetry directions; the caller's own where there
        is one.
        """
        given = self.ask.krylov
        if given is not None:
            return self.shared(given.steps_from(), lambda k: given.probe(0, k), steps, stop)
        Q = self.symmetry
        against = (
            np.ascontiguousarray(Q.T, self.H.native_dtype) if Q is not None and Q.shape[1] else None
        )
        return self.run(self.H.native, None, steps, stop=stop, against=against)

    def from_gradient(self, g, steps):
        """The Krylov space of the gradient; the caller's own where there is one."""
        given = self.ask.krylov
        if given is not None:
            held = getattr(given.op, "gradient", None)
            g = np.array(g if held is None or np.shape(held) != g.shape else held, given.dtype)
            if g.any():
                return self.shared(given.steps_from(g), lambda k: given.start_from(g, k), steps)
        return self.run(
            self.H.native, (g / np.linalg.norm(g))[None].astype(self.H.native_dtype), steps
        )

    def keep(self, run, d):
        """Remember the end vectors of a run, and what its Ritz values say of the inertia (Cauchy
        interlacing).
        """
        values, S = decompose(run)
        ends = combine(run.rows[: run.m], S[:, [0, -1]])
        for value, v in zip(values[[0, -1]], ends):
            if d is not None and value > 0:  # in other coordinates only the sign means something
                continue
            v = v.astype(float)
            self.candidates.append(
                (value / max(run.scale, np.finfo(float).tiny), v if d is None else d * v)
            )
        if d is None:
            slack = max(
                self.made_by.bound(u) for u in ends
            )  # of two vectors, taken for that of any
            error = float(np.linalg.norm(run.err[: run.m])) + 2 * run.m**0.5 * slack
            self.n_negative = max(self.n_negative, int((values < -error).sum()))
            self.n_positive = max(self.n_positive, int((values > error).sum()))

    def weigh(self, v):
        """Quotient of a unit vector, its error, the residual, the vector: one product."""
        quotient, error, Hv = self.H.rayleigh(v)
        return quotient, error, float(np.linalg.norm(Hv - quotient * v)), v

    def prove(self, which):
        """`weigh` for the best candidate of one end."""
        if self.only is not None:
            return self.only
        best, Q = None, self.symmetry
        values = sorted(self.candidates, key=lambda c: which * c[0], reverse=True)
        if Q is not None and Q.shape[1]:
            values = [
                c for c in values if np.linalg.norm(Q.T @ c[1]) <= 0.9 * np.linalg.norm(c[1])
            ] or values
        for _, v in values[:1] + [c for c in values[1:2] if which * c[0] > 0]:
            end = self.weigh(v / np.linalg.norm(v))
            if best is None or which * end[0] > which * best[0]:
                best = end
        return best


def balance(H, rng, probes=3, rounds=2):
    """A diagonal d that balances the rows of ``d H d``, which rows count, and a norm of it from
    below.

    The mean square of ``H v`` over random signs v estimates the squared norm of every row; then a
    few power steps.
    """
    n, d = H.n, np.ones(H.n)
    live = np.ones(n, dtype=bool)
    for _ in range(rounds):
        V = rng.choice([-1.0, 1.0], size=(n, probes))
        Y = d[:, None] * H(d[:, None] * V)
        rows = np.sqrt((Y**2).mean(axis=1))
        live &= rows > 64 * H.eps * rows.max(initial=0.0) / n**0.5
        if not live.any():
            return np.ones(n), np.ones(n, bool), 0.0
        d[live] /= np.sqrt(rows[live])
        d[~live] = np.exp(np.log(d[live]).mean())
    v, norm = Y[:, 0], 0.0
    for _ in range(4):
        v = v / np.linalg.norm(v)
        v = d * H(d * v)
        norm = max(norm, float(np.linalg.norm(v)))
        if norm == 0:
            break
    return d, live, norm


def krylov(ask, H):
    """The fields of `CriticalPoint` for large n."""
    g = ask.gradient(H)
    search = _Search(ask, H)
    if search.left() >= 40:
        d, live, norm = balance(H, search.rng)
    else:
        d, live, norm = np.ones(H.n), np.ones(H.n, bool), _first_look(search)
    critical = ask.hold(d, live, norm)
    slope = _along_gradient(ask, search, g)
    floor = -np.inf
    if critical and hasattr(ask.ob, "curvature_floor") and getattr(ask.ob, "l2", 1) > 0:
        floor = float(ask.ob.curvature_floor(ask.theta))
    if critical:
        _probe(ask, search)
        if not floor > 0:
            search.symmetry = _symmetries(ask, search)
    deflated = ask.krylov is None and search.symmetry is not None and search.symmetry.shape[1] > 0
    eps = ask.curvature_tol * (1 - 2 * COUPLING * deflated)
    goal = lanczos_steps(H.n, eps, ask.failure_probability or RISK)
    steps = goal if critical and not floor > 0 else min(goal, SHORT_STEPS)
    ask.shown.note(f"{steps} Lanczos steps")
    main = search.from_random(steps, lambda run: _both_signs(run, search))
    risk = 1.0 if main is None else lanczos_risk(H.n, main.m, eps) if main.p else 0.0
    if critical and not floor > 0:
        _search_further(search, main, goal, d, live)
    return _conclude(ask, search, slope, critical, floor, risk, goal)


def _first_look(search):
    """With a budget too small for more: one product with a random vector, and the norm it shows."""
    v = search.rng.standard_normal(search.H.n)
    end = search.weigh(v / np.linalg.norm(v))
    if search.left() < 2:
        search.only = end
    search.candidates.append((0.0, v))
    return search.H.norm


def _along_gradient(ask, search, g):
    """From the Krylov space of g: ``||Hg||/||g||``, the share of g outside H's range, Newton's step
    where curvature is sure, and (None if some is negative) Newton's step in all of it.
    """
    if ask.g_norm == 0:
        return {"flat": None, "residual": None, "step": None, "newton": None}
    run = search.from_gradient(g, min(GRADIENT_STEPS, search.left() // 4))
    if run is None or run.scale == 0:
        return {
            "flat": None,
            "residual": 1.0 if run is not None else None,
            "step": None,
            "newton": None,
        }
    values, S = decompose(run)
    norm = run.scale
    cut = norm * max(ask.curvature_tol, ask.relative / FAR)
    sure = np.abs(values) > max(cut, ask.relative**0.5 * norm)
    step = (
        combine(run.rows[: run.m], (S[:, sure] @ (S[0, sure] / values[sure]))[:, None])[0]
        * -ask.g_norm
    )
    newton = (
        None
        if values[0] <= 0
        else combine(run.rows[: run.m], (S @ (S[0] / values))[:, None])[0] * -ask.g_norm
    )
    column = run.T[: run.m + run.p, 0]
    inside = float((S[0, np.abs(values) > cut] ** 2).sum())
    return {
        "flat": float(np.linalg.norm(column)),
        "residual": float(np.sqrt(max(0.0, 1 - inside))),
        "step": step,
        "newton": newton,
    }


def _probe(ask, search):
    """Block Krylov spaces of the objective's own probes: three block steps see what couples to
    them.
    """
    if not hasattr(ask.ob, "probes"):
        return
    P = np.asarray(ask.ob.probes(ask.theta))
    P = P[:, np.linspace(0, P.shape[1] - 1, min(MAX_PROBES, P.shape[1])).astype(int)]
    for start in range(0, P.shape[1], 8):
        search.run(search.H.native, P[:, start : start + 8].T.astype(search.H.native_dtype), 3)


def _both_signs(run, search):
    """Whether a run may stop: its lowest Ritz value is surely negative and known to a half, and
    positive ones exist.
    """
    values, S = decompose(run)
    residual = float(np.linalg.norm(run.coupling() @ S[:, 0])) if run.p else 0.0
    error = 10 * run.err[: run.m].max()
    return values[0] < -error and residual <= 0.5 * abs(values[0]) and values[-1] > error


def _search_further(search, main, goal, d, live):
    """Where no negative curvature showed: on by restarts if the basis was too large to keep, then
    balanced.
    """
    H = search.H
    if search.n_negative and search.n_positive:
        return
    if main is not None and main.p and main.m < goal and search.left() > 20:
        from ..spectrum.eigsh import eigsh

        lowest = min(search.candidates, key=lambda c: c[0])[1].astype(H.native_dtype)
        room = int(min(search.left(), goal - main.m))
        pairs = eigsh(
            H.native, 1, "SA", tol=1e-6, max_products=max(2, room), v0=lowest, seed=search.rng
        )
        H.tell(pairs.n_products)
        search.candidates.append(
            (pairs.values[0] / max(H.norm, np.finfo(float).tiny), pairs.vectors[:, 0].astype(float))
        )
    if d[live].max() > 32 * d[live].min():
        search.run(
            _Balanced(H.native, d),
            None,
            min(goal, BALANCED_STEPS),
            d=d,
            stop=lambda run: _both_signs(run, search),
        )


def _conclude(ask, search, slope, critical, floor, risk, goal):
    H, n = search.H, search.H.n
    low, high = search.prove(-1), search.prove(1)
    negative, positive = low[0] < -low[1], high[0] > high[1]
    lasting = not negative or _lasts(ask, H, low, slope["step"])
    if critical and floor > 0 and not negative:
        lasting = positive_there(ask, H, low[0], slope["newton"], PERSISTENCE, search.left())
    loose = critical and not negative and not floor > 0 and _unexplained_zero(search, low)
    n_symmetry = None if search.symmetry is None else search.symmetry.shape[1]
    facts = {
        "gradient_norm": ask.g_norm,
        "gradient_tol": ask.tol,
        "gradient_flat_ratio": None
        if slope["flat"] is None or H.norm == 0
        else slope["flat"] / H.norm,
        "gradient_residual": slope["residual"],
        "lambda_min": low[0],
        "lambda_max": high[0],
        "lambda_min_bounds": _enclose(low),
        "lambda_max_bounds": _enclose(high),
        "n_positive": None,
        "n_negative": None,
        "n_zero": None,
        "n_symmetry": n_symmetry,
        "n_negative_bounds": (
            max(search.n_negative, int(negative)),
            n - max(search.n_positive, int(positive)),
        ),
        "escape_direction": low[3] if negative else None,
        "escape_curvature": low[0] if negative else None,
        "n_kinks": ask.n_kinks,
    }
    if floor > 0:
        facts["n_negative_bounds"] = (0, 0)
        facts["lambda_min_bounds"] = (
            max(floor, facts["lambda_min_bounds"][0]),
            facts["lambda_min_bounds"][1],
        )
    facts["plateau"] = not critical and is_plateau(ask, facts)
    kind, certified, wrong = _kind(
        ask, H, critical, negative, positive, lasting, floor, risk, loose
    )
    if ask.across_kinks(kind, facts["escape_direction"]) != kind:
        kind, wrong = "undecided", 0.0
    reason = _sentence(ask, kind, facts, floor, risk, goal, lasting, H)
    return dict(
        facts,
        kind=kind,
        certified=certified and not ask.n_kinks,
        failure_probability=wrong,
        reason=reason,
    )


def _enclose(end):
    quotient, error, residual, _ = end
    return quotient - residual - error, quotient + residual + error


def _lasts(ask, H, low, step):
    """Whether negative curvature is still there where Newton's step leads, and where the slope
    along it vanishes.
    """
    if step is not None and step.any():
        there = hessian_products(ask.ob, ask.theta + step)
        quotient, error, _ = there.rayleigh(low[3])
        H.count += 1
        if not quotient <= PERSISTENCE * low[0] + error:
            return False
    slope = float(ask.g @ low[3])
    rounding, stiffness = ask.uncertainty(H.norm)
    if (abs(slope) + rounding) * stiffness <= 0.01 * low[0] ** 2:
        return True
    spent = [0]
    lasts = lasts_along(ask.ob, ask.theta, low[3], low[0], slope, rounding, spent)
    H.count += spent[0]
    return lasts


def _zero(H):
    """Below this an eigenvalue is called zero."""
    return max(ZERO, 100 * H.eps) * H.norm


def _symmetries(ask, search):
    """Orthonormal columns of symmetry directions that H is seen to annihilate; None where there are
    too many to try.

    A direction t passes with ``||H t|| <= ||g|| + zero ||t||``, as those of symmetries do; of the
    span of all that pass the part is kept that H maps to no more than `COUPLING` of what counts as
    negative curvature: taking it out then changes no eigenvalue by more than twice that, which the
    risk is told of.
    """
    H = search.H
    if not hasattr(ask.ob, "flat_directions") or search.n_negative and search.n_positive:
        return None
    try:
        T = np.asarray(ask.ob.flat_directions(ask.theta), dtype=float)
    except MemoryError:
        return None
    sizes = np.linalg.norm(T, axis=0)
    T, sizes = T[:, sizes > 0], sizes[sizes > 0]
    if T.shape[1] > min(MAX_SYMMETRY, search.left() // 4):
        return None
    if not T.shape[1]:
        return T
    ask.shown.note(f"{T.shape[1]} symmetry directions")
    passed = np.linalg.norm(H(T / sizes), axis=0) <= ask.g_norm / sizes + _zero(H)
    Q = independent(T[:, passed] / sizes[passed])
    return (
        annihilated(H(Q), Q, min(ZERO_MODE, COUPLING * ask.curvature_tol) * H.norm)
        if Q.shape[1]
        else Q
    )


def _unexplained_zero(search, low):
    """Whether the lowest Ritz pair shows an eigenvalue that is zero to rounding, and not by a
    symmetry of the objective.
    """
    H, Q = search.H, search.symmetry
    quotient, error, residual, v = low
    if abs(quotient) + residual > max(2 * error, _zero(H)):
        return False
    return Q is None or float(np.linalg.norm(v - Q @ (Q.T @ v))) > 1e-4


def _kind(ask, H, critical, negative, positive, lasting, floor, risk, loose):
    """``kind, certified, failure_probability``."""
    if not critical:
        return "not_critical", False, 0.0
    if H.norm == 0:
        return "degenerate", False, 0.0
    if negative and positive:
        return ("saddle", True, 0.0) if lasting else ("undecided", False, 0.0)
    if floor > 0:
        return ("minimum", True, 0.0) if lasting else ("undecided", False, 0.0)
    if ask.failure_probability is None or risk > ask.failure_probability or not negative + positive:
        return "undecided", False, 0.0
    if loose:
        return "degenerate", False, risk
    return ("minimum" if positive else "maximum"), False, risk


def _sentence(ask, kind, facts, floor, risk, goal, lasting, H):
    low, high = number(facts["lambda_min"]), number(facts["lambda_max"])
    eps, words = number(ask.curvature_tol), gradient_words(ask)
    if kind == "not_critical":
        return not_critical_sentence(ask, facts)
    if kind == "degenerate" and H.norm > 0:
        text = (
            f"Degenerate: {words}, an eigenvalue lies within "
            f"{number(abs(facts['lambda_min']) + _zero(H))} of "
            f"zero and no symmetry known here explains it; none lies below -{eps} of the "
            "spectrum's width, but for a "
            f"risk of {number(risk)}"
        )
    elif kind == "degenerate":
        text = f"Degenerate: {words}, and H maps random vectors to exactly 0, so it is zero"
    elif kind == "saddle":
        text = (
            f"Saddle: {words}, and curvature of both signs is proved, {low} along "
            f"escape_direction and {high}, with "
            f"at least {facts['n_negative_bounds'][0]} negative eigenvalues"
        )
    elif kind != "undecided" and not floor > 0:
        side, sign = ("below", "-") if kind == "minimum" else ("above", "")
        s = facts["n_symmetry"] or 0
        explained = f" up to {s} symmetry direction{'s' * (s > 1)}" if s else ""
        text = (
            f"{kind.capitalize()}{explained}, at a risk of {number(risk)}: {words}, and but for "
            f"that risk no {'other ' if s else ''}eigenvalue lies {side} "
            f"{sign}{eps} of the spectrum's width, the extreme Ritz values being {low} and "
            f"{high}; smaller curvature "
            "of the other sign, and zeros, are not excluded"
        )
    elif kind == "minimum":
        text = (
            f"Minimum: {words}, and no eigenvalue lies below {number(floor)}, a floor that the "
            "objective proves"
            + (
                f": l2 = {number(ask.ob.l2)} less what the residuals can take away"
                if getattr(ask.ob, "l2", 0) > 0
                else ""
            )
        )
    else:
        text = _undecided(ask, words, low, high, eps, floor, risk, goal, lasting, H)
    return text + kink_words(ask) + "."


def _undecided(ask, words, low, high, eps, floor, risk, goal, lasting, H):
    if floor > 0 and not ask.n_kinks:
        return (
            f"Undecided: {words}, and at theta no eigenvalue lies below {number(floor)}, a floor "
            "that the objective proves, "
            "but curvature changes by more than that on the way to the critical point that theta "
            "stands for; reduce the gradient first"
        )
    if not lasting:
        return (
            f"Undecided: {words}, but the negative curvature {low} at theta does not last to the "
            "critical point "
            "that theta stands for; reduce the gradient first"
        )
    if ask.n_kinks and float(low) < 0 < float(high):
        return (
            f"Undecided: {words}, and curvature from {low} to {high} is seen, but on this side "
            "of the kinks only"
        )
    text = (
        f"Undecided: {words}, and {H.count} products found Ritz values from {low} to {high} "
        "only, of one sign"
    )
    if ask.n_kinks and (ask.failure_probability or 0) >= risk:
        return (
            text
            + f", and but for a risk of {number(risk)} none of the other, but on this side of the "
            "kinks only"
        )
    if ask.failure_probability is None:
        return text + (
            ", which proves nothing about the rest; with "
            f"failure_probability={max(risk, RISK):.2g} this would "
            f"be an answer down to {eps} of the spectrum's width"
        )
    return text + (
        f", at a risk of {number(risk)} of having missed curvature beyond {eps} of the spectrum's "
        "width, where "
        f"{number(ask.failure_probability)} was wanted: that takes {goal} Lanczos steps"
    )
