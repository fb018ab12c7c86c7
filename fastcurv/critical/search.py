"""Lanczos runs in the service of a verdict: a budget, and the most telling vectors of either
sign.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import SelfAdjoint, as_rng, operator_dtype, times
from ..interrupts import late
from ..krylov.lanczos import Recurrence, combine
from ..krylov.ritz import decompose
from ..protocols import Floats
from ..spectrum.reduced import reduction
from ..vectors import safe_norm
from .evidence import ZERO, Products, independent
from .request import Request

# The Lanczos basis is kept whole, since a restart would void the bound on the risk; past this size
# it is not made.
MAX_BASIS_BYTES = 4 << 30
ASYMMETRY = 8.0  # what one look at random vectors may understate the norm of H - H' by


class Balanced(SelfAdjoint):
    """``D H D``."""

    def __init__(self, op: Any, d: Floats) -> None:
        super().__init__(operator_dtype(op), op.shape)
        self.op, self.d = op, d.astype(self.dtype)

    def _matvec(self, v: Floats) -> Floats:
        return np.asarray(self.d * times(self.op, self.d * v.reshape(-1)))


class End:
    """One end of the spectrum: a unit vector, its quotient, what that may be off by, and the
    residual.
    """

    def __init__(self, vector: Floats, quotient: float, error: float, residual: float) -> None:
        self.vector, self.quotient = vector, quotient
        self.error, self.residual = error, residual

    @property
    def enclosure(self) -> tuple[float, float]:
        """An eigenvalue lies between."""
        off = self.residual + self.error
        return self.quotient - off, self.quotient + off


class Search:
    """What is left of the budget, and the most telling vectors of either sign so far."""

    def __init__(self, ask: Request, H: Products) -> None:
        self.ask, self.H = ask, H
        self.rng = as_rng(ask.seed)
        # whose rounding is in the bases
        self.made_by = H if H.native is H.op else Products(H.native)
        self.candidates: list[tuple[float, Floats]] = []  # Rayleigh quotient, unit vector
        self.n_negative, self.n_positive = 0, 0
        self.seen: set[int] = set()  # signs of curvature that is more than counts as zero
        self.only: End | None = None  # the one quotient that a very small budget allows
        self.symmetry: Floats | None = None  # orthonormal columns of proved symmetries
        given = ask.krylov  # where random starts run: a smaller space, if that is worth while
        self.small: Any = reduction(H.native, None) if given is None else given.small

    def left(self, reserve: int = 9) -> float:
        """Products that may still be spent, some kept for the proofs at the end."""
        return max(0, self.H.left - reserve)

    @property
    def one_sided(self) -> bool:
        """Whether curvature of both signs has not been seen yet."""
        return len(self.seen) < 2

    def run(
        self,
        op: Any,
        start: Any,
        steps: float,
        *,
        d: Floats | None = None,
        stop: Callable[[Any], bool] = lambda run: False,
        against: Any = None,
    ) -> Any:
        """Lanczos from `start` (p, n), or a random vector for None, at most `steps` block steps;
        keeps its ends.
        """
        block = 1 if start is None else len(start)
        steps = int(min(steps, self.left() // block))
        n = op.shape[0]
        size = n * operator_dtype(op).itemsize
        rows = int(min(max(2, MAX_BASIS_BYTES // size - 1), (steps + 1) * block, n))
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
            and not (run.m and late())
        ):
            run.step()
            self.H.tell(block)
            if run.m % 20 == 0 and stop(run):
                break
        return self.take(run, d)

    def take(self, run: Any, d: Floats | None = None) -> Any:
        """Note what a finished run says."""
        run.reorthogonalise()
        if d is None:
            self.H.norm = self.made_by.norm = max(self.H.norm, run.scale)
        self.keep(run, d)
        return run

    def vectors(self, run: Any, S: Floats) -> Floats:
        """Rows ``(k, n)`` of parameter space for columns S in the basis of a run."""
        found = combine(run.rows[: run.m], S)
        return np.asarray(self.small.embed(found) if self._inside(run) else found)

    def _inside(self, run: Any) -> bool:
        """Whether a run is one of the smaller space."""
        return self.small is not None and run.op is self.small

    def shared(
        self,
        held: int,
        grow: Callable[[int], Any],
        steps: float,
        stop: Callable[[Any], bool] = lambda run: False,
    ) -> Any:
        """As `run`, by a run of the caller's `Krylov`: `held` products of it are there, ``grow(k)``
        takes it to k.
        """
        steps = int(min(max(steps, held), held + self.left()))
        if steps < 1:
            return None
        run = None
        try:
            while run is None or (run.p and run.m < steps and not late() and not stop(run)):
                before = 0 if run is None else run.m
                run = grow(held if run is None and held else min(before + 20, steps))
                self.H.tell(run.m - max(before, held))
        except MemoryError:  # the bound that the caller has set: on with what there is
            if run is None:
                return None
        self.H.shared += held
        return self.take(run)

    def from_random(self, steps: float, stop: Callable[[Any], bool]) -> Any:
        """The run that the risk rests on, off the symmetry directions; the caller's own where there
        is one.
        """
        given = self.ask.krylov
        if given is not None:
            return self.shared(given.steps_from(), lambda k: given.probe(0, k), steps, stop)
        Q, against = self.symmetry, None
        if Q is not None and Q.shape[1]:
            if self.small is not None:  # what of a zero mode lies inside is one
                Q = independent(self.small.project(np.ascontiguousarray(Q.T)).T.astype(float))
            against = np.ascontiguousarray(Q.T, self.H.native_dtype)
        op = self.H.native if self.small is None else self.small
        return self.run(op, None, steps, stop=stop, against=against)

    def from_gradient(self, g: Floats, steps: float, stop: Callable[[Any], bool]) -> Any:
        """The Krylov space of the gradient; the caller's own where there is one."""
        given = self.ask.krylov
        if given is not None:
            held = getattr(given.op, "gradient", None)
            g = np.array(g if held is None or np.shape(held) != g.shape else held, given.dtype)
            if g.any():
                start = g
                return self.shared(
                    given.steps_from(start), lambda k: given.start_from(start, k), steps, stop
                )
        unit = (g / safe_norm(g))[None].astype(self.H.native_dtype)
        return self.run(self.H.native, unit, steps, stop=stop)

    def keep(self, run: Any, d: Floats | None) -> None:
        """Remember the end vectors of a run, and what its Ritz values say of the inertia (Cauchy
        interlacing).
        """
        values, S = decompose(run)
        inner = combine(run.rows[: run.m], S[:, [0, -1]])
        ends = self.small.embed(inner) if self._inside(run) else inner
        for value, v in zip(values[[0, -1]], ends):
            if d is not None and value > 0:  # in other coordinates only the sign means something
                continue
            u = v.astype(float) if d is None else d * v
            self.offer(float(value) / float(u @ u), u)
        if d is None:
            inside = self._inside(run)
            bound = self.small.rounding_bound if inside else self.made_by.bound
            units = inner if inside else [u for _, u in self.candidates[-2:]]
            slack = max(bound(u) for u in units)  # of two vectors, taken for that of any
            error = safe_norm(run.err[: run.m]) + 2 * run.m**0.5 * slack
            error += self.H.asymmetry
            self.n_negative = max(self.n_negative, int((values < -error).sum()))
            self.n_positive = max(self.n_positive, int((values > error).sum()))
            strong = values[np.abs(values) > max(error, self.H.zero)]
            self.seen |= {int(sign) for sign in np.sign(strong)}

    def offer(self, quotient: float, v: Floats) -> None:
        """One more vector that may tell of an end of the spectrum."""
        self.candidates.append((quotient, v / np.linalg.norm(v)))

    def weigh(self, *vectors: Floats, which: int = 1) -> End:
        """The `End` of a unit vector; of several, of that with most curvature of the sign of
        `which`. One product each.
        """
        tried = [(*self.H.quotient(v), v) for v in vectors]
        quotient, Hv, v = max(tried, key=lambda found: which * found[0])
        residual = safe_norm(Hv - quotient * v)
        return End(v, quotient, self.H.quotient_error(v, Hv), residual)

    def prove(self, which: int) -> End:
        """`weigh` for the best candidate of one end."""
        if self.only is None and not self.candidates:
            self.first_look()  # symmetries fill the space: no run has begun
        if self.only is not None:
            return self.only
        Q = self.symmetry
        values = sorted(self.candidates, key=lambda c: which * c[0], reverse=True)
        if Q is not None and Q.shape[1]:
            values = [c for c in values if np.linalg.norm(Q.T @ c[1]) <= 0.9] or values
        chosen = values[:1] + [c for c in values[1:2] if which * c[0] > 0]
        return self.weigh(*(v for _, v in chosen), which=which)

    def of_all(self, low: End, high: End) -> tuple[End, End]:
        """The ends of the spectrum of H, of which `low` and `high` are those across the symmetries
        that were taken out: these have an eigenvalue next to 0.
        """
        Q = self.symmetry
        if Q is None or not Q.shape[1] or low.quotient <= 0 <= high.quotient:
            return low, high
        held = self.weigh(Q[:, 0] / np.linalg.norm(Q[:, 0]))
        return (
            held if held.quotient < low.quotient else low,
            held if held.quotient > high.quotient else high,
        )

    def of_symmetry(self, v: Floats) -> bool:
        """Whether a unit vector lies in the span of the symmetries that were taken out."""
        Q = self.symmetry
        return Q is not None and float(np.linalg.norm(v - Q @ (Q.T @ v))) <= 1e-4

    def loose(self, end: End) -> bool:
        """Whether an eigenvalue is shown to be zero to rounding, and not by a symmetry of the
        objective.
        """
        small = abs(end.quotient) + end.residual <= max(2 * end.error, self.H.zero)
        return small and not self.of_symmetry(end.vector)

    def first_look(self) -> None:
        """With a budget too small for more, or no direction left to search: one product with a
        random vector, and the norm it shows.
        """
        v = self.rng.standard_normal(self.H.n)
        end = self.weigh(v / np.linalg.norm(v))
        if self.left() < 2:
            self.only = end
        self.offer(0.0, v)

    def balance(self, probes: int = 3, rounds: int = 2) -> tuple[Floats, NDArray[np.bool_]]:
        """A diagonal d that balances the rows of ``d H d``, and which rows count.

        The mean square of ``H v`` over random signs v estimates the squared norm of every row. What
        the first products lack of symmetry is noted.
        """
        H, n, d = self.H, self.H.n, np.ones(self.H.n)
        unit = 1.0  # in which squares of products are numbers
        live = np.ones(n, dtype=bool)
        for step in range(rounds):
            V = self.rng.choice([-1.0, 1.0], size=(n, probes))
            Y = d[:, None] * H(d[:, None] * V)
            if step == 0:
                unit = float(np.abs(Y).max(initial=0.0)) or 1.0
                gap = float(np.abs(V.T @ Y - Y.T @ V).max())
                noise = float(np.sqrt(n)) * max(H.bound(v) for v in V.T)
                noise += 4 * n * np.finfo(float).eps * float(np.abs(Y).max(initial=0.0))
                H.asymmetry = ASYMMETRY * gap if gap > 2 * noise else 0.0
            rows = np.sqrt(((Y / unit) ** 2).mean(axis=1))
            live &= rows > 64 * H.eps * rows.max(initial=0.0) / n**0.5
            if not live.any():
                return np.ones(n), np.ones(n, bool)
            d[live] /= np.sqrt(rows[live])
            d[~live] = np.exp(np.log(d[live]).mean())
        return d, live


def both_signs(run: Any) -> bool:
    """Whether a run may stop: its lowest Ritz value is surely negative, by more than counts as
    zero, and known to a half, and positive ones exist.
    """
    values, S = decompose(run)
    residual = safe_norm(run.coupling() @ S[:, 0]) if run.p else 0.0
    error = max(10 * run.err[: run.m].max(), ZERO * run.scale)
    return bool(values[0] < -error and residual <= 0.5 * abs(values[0]) and values[-1] > error)
