"""The search for extreme eigenpairs: thick-restarted block Lanczos with locking and a probe for
missed copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import check_vectors, operator_dtype
from ..interrupts import Interrupted, deferred_interrupts
from ..krylov.basis import combine, orthonormal_rows
from ..krylov.held import held_rows
from ..krylov.lanczos import Recurrence
from ..krylov.risk import lanczos_reach, lanczos_steps
from ..krylov.ritz import (
    bounds,
    decompose,
    gaps_outside,
    kept_at_restart,
    ritz_pairs,
    wanted,
)
from ..progress import Bar, bar
from ..protocols import Array, Floats
from .asked import Asked, resolve_max_basis, resolve_tol
from .results import Eigenpairs

# a probe for missed copies spends at most one product for so many spent before it
PROBE_SHARE = 12
PROBE_RISK = 0.05
LARGEST_BLOCK = 8
STEEPEST = 2.5  # what a step divides residuals by at the most
SMALL = 64  # dimensions up to which a probe may go to the end of the space


def extreme_pairs(
    op: Any, asked: Asked, rng: np.random.Generator, v0: Any = None, against: Any = None
) -> Eigenpairs:
    """`eigsh` in the operator's own precision, its arguments checked."""
    n, dtype, k = op.shape[0], operator_dtype(op), asked.k
    deflated = orthonormal_rows(against, n, dtype)
    left = n if deflated is None else n - len(deflated)
    if k > left:
        raise ValueError(
            f"k is {k} and the complement of against has dimension {left}; wanted k no larger"
        )
    tol = resolve_tol(asked.tol, dtype)
    # its square, times the largest |lam|, becomes part of every residual
    loose = 0.1 if asked.relative == "scale" else 0.03
    start = None if v0 is None else check_vectors(v0, n, "v0", dtype).T.copy()
    most = min(resolve_max_basis(asked.max_basis, k, n, dtype), n)
    eps = float(np.finfo(dtype).eps)
    contamination = min(max(loose * tol**0.5, eps**0.5), 0.03 * loose)
    with bar(None, "eigsh", asked.progress) as shown, held_rows(op, (most + 1, n), dtype) as rows:
        run = Recurrence(op, most, against=deflated, contamination=contamination, rows=rows)
        return Search(run, asked, tol, rng, shown).solve(start)


class Search:
    """From a start to k converged pairs: grow, look, restart, probe; stops at a budget or at
    Ctrl-C.
    """

    def __init__(
        self, run: Recurrence, asked: Asked, tol: float, rng: np.random.Generator, shown: Bar
    ) -> None:
        self.run, self.tol, self.rng, self.shown = run, tol, rng, shown
        self.k, self.which, self.relative = asked.k, asked.which, asked.relative
        self.max_products, self.probe = asked.max_products, asked.probe
        self.stop: Callable[[], bool] = lambda: False
        self.block, self.next_look = 1, 0
        self.last: tuple[int, float] | None = None
        # the pairs that a probe is testing, as (theta, bounds) of the first k rows
        self.settled: tuple[Floats, Floats] | None = None
        self.probe_until, self.probed, self.interrupted = 0, False, False
        self.width, self.unseen = 0.0, np.inf  # of the spectrum as seen; see `Eigenpairs`
        self.too_close = 0.0  # the largest gap between wanted values that a probe leaves aside
        # (theta, bounds) of the pairs, the next block, being measured again
        self.measured: tuple[Floats, Floats] | None = None

    def solve(self, start: Array | None = None) -> Eigenpairs:
        """Run to the end and return Eigenpairs."""
        with deferred_interrupts() as stop:
            self.stop = self.run.around = stop
            try:
                self._start(start)
                self._grow()
                for _ in range(3):
                    if not self._confirm():
                        break
                    self._grow()
            except Interrupted:  # from within a product: all that was there before it is as it was
                self.interrupted = True
            if self.run.m == 0 and self.measured is None:  # before the first product: nothing
                raise KeyboardInterrupt
            return self._result()

    # -- the loop
    # ----------------------------------------------------------------------------------------------

    def _start(self, start: Array | None) -> None:
        run = self.run
        if start is not None:
            if run.insert(start[: min(self._widest(), self.max_products)]) == 0:
                raise ValueError(
                    "v0 is zero, or lies in the span of against; wanted a start with a part "
                    "outside it"
                )
        else:
            run.insert_random(self.rng)

    def _spent(self) -> bool:
        return self.run.n_products + max(1, self.run.p) > self.max_products

    def _grow(self) -> None:
        """Until the wanted pairs are converged, the budget is spent or the space is exhausted."""
        run = self.run
        while True:
            if self.stop():
                self.interrupted = True
                return
            if run.p == 0 and run.m < run.dimension:
                if self._look():
                    return
                if run.p == 0:
                    self._make_room()
                if run.p == 0:
                    run.insert_random(self.rng, self.block)
            if run.m >= run.dimension or self._spent():
                if self.settled is not None:  # the last steps of a probe count, too
                    self._look()
                return
            if run.full and self.settled is not None and self._look():
                return
            if run.full:
                self._restart()
            before = run.n_products
            run.step()
            self.shown.update(run.n_products - before)
            if run.p and run.m >= self.next_look and self._look():
                return

    def _make_room(self) -> None:
        """Room for a fresh start next to the basis."""
        run = self.run
        if run.m + 2 * self.block > run.capacity + 1 and run.capacity < run.dimension:
            self._restart()

    def _widest(self) -> int:
        """The largest block that restarts can keep whole next to the k wanted vectors."""
        run = self.run
        if run.capacity >= run.dimension:
            return run.dimension
        return max(1, (run.capacity + 1 - self.k) // 3)

    def _restart(self) -> None:
        run = self.run
        widest = self._widest()
        if run.p > widest:
            theta, S, residuals = ritz_pairs(run, self.k, self.which)
            run.narrow_block(run.coupling() @ S, widest)
            self.block = min(self.block, widest)
        theta, S = decompose(run)
        room = run.capacity + 1 - 3 * max(run.p, self.block)
        keep = kept_at_restart(theta, self.k, self.which, max(room, 1))
        least = wanted(theta[keep], self.k, self.which)  # all that Ctrl-C waits for
        run.restart(theta[keep], S[:, keep], stop=self.stop, least=least)
        self.next_look, self.last = run.m + 1, None

    def _look(self) -> bool:
        """Compare the wanted Ritz pairs with the tolerance; True where all is done."""
        run = self.run
        if run.m < min(self.k, run.dimension):
            self.next_look = self.k
            return False
        theta, S, residuals = ritz_pairs(run, self.k, self.which)
        if self.settled is not None:
            return self._look_probe(theta, self.settled[0])
        excess = self._excess(theta, S, residuals)
        worst = float(excess.max())
        self.shown.note(f"{int((excess <= 1).sum())} of {self.k} converged")
        if not worst <= 1:
            self._schedule(worst)
            if run.m == self.k and run.p > 1:
                run.narrow_block(run.coupling() @ S[:, excess > 1])
            return False
        steps = self._probe_steps(theta)
        if not steps:
            return True
        self._begin_probe(theta, S, steps)
        return False

    def _limits(self, theta: Floats) -> Floats:
        """What each value may be off: its target, but no less than twice the rounding seen."""
        return np.maximum(self._targets(theta), 2 * self.run.noise)

    def _targets(self, theta: Floats) -> Floats:
        """What each residual may be."""
        run = self.run
        size = (
            run.scale
            if self.relative == "scale"
            else np.maximum(np.abs(theta), run.eps ** (2 / 3) * run.scale)
        )
        return np.asarray(self.tol * np.broadcast_to(size, theta.shape))

    def _excess(self, theta: Floats, S: Floats, residuals: Floats) -> Floats:
        """Residuals over what they may be; what more products cannot mend counts for at most half
        of that.
        """
        run = self.run
        targets = self._limits(theta)
        allowed = targets - np.minimum(bounds(run, S, residuals) - residuals, targets / 2)
        excess: Floats = np.where(residuals > 0, np.inf, 0.0)
        np.divide(residuals, allowed, out=excess, where=allowed > 0)
        return excess

    def _schedule(self, excess: float) -> None:
        """Look again when the residuals, falling as they did, are due; at most an eighth of the
        basis from now, near the end a 24th: what is spent past convergence is spent for nothing.
        Not before `STEEPEST` would bring them there: a look takes as long as a small product.
        """
        m = self.run.m
        ahead = max(2, m // (8 if excess > 30 else 24))
        if self.last is not None and excess < self.last[1]:
            rate = np.log(self.last[1] / excess) / (m - self.last[0])
            ahead = min(ahead, max(1, int(0.7 * np.log(excess) / rate)))
        ahead = max(ahead, int(min(m // 2, np.log(excess) / np.log(STEEPEST))))
        self.last = (m, excess)
        self.next_look = m + ahead

    # -- probes for missed copies
    # -------------------------------------------------------------------------------------

    def _probe_steps(self, theta: Floats) -> int:
        """How many steps from a random start would show a copy of a wanted value, were there one;
        0: no need.

        A copy matters where it would push out the innermost wanted value by more than that may be
        off. The number is that of Kuczynski and Wozniakowski's bound for a risk of `PROBE_RISK`,
        and at most a share of what was spent; none where that share could not show a copy of even
        the outermost value.
        """
        run = self.run
        if not self.probe or run.m >= run.dimension:
            return 0
        whole = run.dimension <= min(SMALL, run.capacity)
        rounding = np.full(len(theta), 2 * run.noise)
        limits = rounding if whole else self._limits(theta)
        gaps, self.too_close = gaps_outside(theta, self.k, self.which, limits, 4 * run.noise)
        self.probed = not len(gaps)
        if self.probed:
            self.unseen = self.too_close
            return 0
        if whole:
            return -(-(run.dimension - len(theta)) // self.block)
        spread = max(np.ptp(theta), np.abs(theta).max())
        least, steps = (
            lanczos_steps(run.n, gap / spread, PROBE_RISK) for gap in (gaps.max(), gaps.min())
        )
        cap = max(4, run.n_products // (PROBE_SHARE * self.block))
        if least > 2 * cap:
            return 0
        room = run.dimension
        if run.capacity < run.dimension:
            room = min(room, run.capacity + 1 - 2 * self.block)
        return max(0, min(steps, cap, room - len(theta)))

    def _begin_probe(self, theta: Floats, S: Floats, steps: int) -> None:
        """Set the converged pairs aside as the basis and start again in their complement."""
        run = self.run
        _, _, residuals = ritz_pairs(run, self.k, self.which)
        limits = bounds(run, S, residuals)
        self.width = float(np.ptp(decompose(run)[0]))
        run.restart(theta, S, keep_block=False)
        self.settled = (theta, limits)
        run.insert_random(self.rng, self.block)
        self.probe_until = run.m + steps * self.block
        self.next_look = run.m + max(2, steps // 3) * self.block

    def _look_probe(self, theta: Floats, before: Floats) -> bool:
        """True where the probe ended without a change; back to the search, in larger blocks, where
        it found one. A probe that is to reach the end of the space is not left before: the pairs
        are those of the whole space then.
        """
        run = self.run
        moved = np.abs(theta - before)
        still, whole = moved.max() <= 4 * run.noise, run.m >= run.dimension
        closed = run.p == 0 and still
        to_the_end = self.probe_until >= run.dimension and not self._spent()
        if to_the_end and not (whole or closed):
            self.next_look = run.dimension
            return False
        if whole:
            self.probed, self.unseen = True, 0.0
        if whole or (moved > self._limits(theta)).any():
            self.settled, self.last = None, None
            self.block = min(2 * self.block, LARGEST_BLOCK, max(1, (run.capacity - self.k) // 3))
            self.next_look = run.m + 2
            return False
        if run.p == 0 or run.m >= self.probe_until or run.full:
            steps = (run.m - self.k) // self.block
            reach = self.width * lanczos_reach(run.n, steps, PROBE_RISK) if run.p else 0.0
            self.probed = True
            self.unseen = max(reach, 0.0 if still else float(moved.max()), self.too_close)
            return True
        self.next_look = min(run.m + max(2, run.m // 8), self.probe_until)
        return False

    # -- the end
    # ----------------------------------------------------------------------------------------------

    def _known(self) -> tuple[Floats, Floats]:
        """Values and bounds of the residuals, from what is in the basis now."""
        known = self.settled or self.measured
        if known is not None:
            return known
        self.run.reorthogonalise()
        theta, S, residuals = ritz_pairs(self.run, self.k, self.which)
        return theta, bounds(self.run, S, residuals)

    def _vectors(self) -> Array:
        """The vectors of `_known`, as rows."""
        run = self.run
        if self.settled or self.measured:
            return run.rows[: self.k].copy()
        return combine(run.rows[: run.m], ritz_pairs(run, self.k, self.which)[1])

    def _confirm(self) -> bool:
        """Measure the residuals by products where their bounds are too coarse; True where the
        search must go on.
        """
        run = self.run
        if self.interrupted or run.n_products + self.k > self.max_products:
            return False
        theta, limits = self._known()
        if self.settled is None:
            values, S, known = ritz_pairs(run, self.k, self.which)
            if (self._excess(values, S, known) > 1).any():
                return False
        if (limits <= self._targets(theta)).all():
            return False
        rows, self.settled = self._vectors(), None
        run.reset()
        if run.insert(rows) == len(theta):
            self.measured = theta, limits + 8 * run.eps * run.scale  # insert rounds them once more
        run.step()
        self.measured = None
        self.shown.update(run.m)
        theta, S, residuals = ritz_pairs(run, self.k, self.which)
        if run.p == 0 or (bounds(run, S, residuals) <= self._targets(theta)).all():
            return False
        run.narrow_block(run.coupling() @ S)
        self.probe, self.next_look, self.last = False, run.m + 1, None
        return True

    def _result(self) -> Eigenpairs:
        run = self.run
        theta, limits = self._known()
        return Eigenpairs(
            values=theta,
            vectors=self._vectors().T,
            residuals=limits,
            converged=limits <= self._targets(theta),
            n_products=run.n_products,
            scale=run.scale,
            tol=self.tol,
            probed=self.probed or run.m >= run.dimension,
            unseen=0.0 if run.m >= run.dimension else self.unseen,
            interrupted=self.interrupted,
            asymmetry=run.asymmetry,
        )
