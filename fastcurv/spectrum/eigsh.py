"""The extreme eigenpairs of a symmetric operator by restarted Lanczos, each with a bound on its
error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.checks import (
    as_rng,
    check_choice,
    check_positive_int,
    check_symmetric_operator,
    check_vectors,
    one_seed,
    operator_dtype,
)
from ..common.errors import accept_aliases
from ..common.linalg import eigh
from ..common.progress import Bar, bar
from ..common.protocols import Array, Floats, Operator, Seed, Space, Which
from ..common.runtime import Interrupted, deferred_interrupts, to_nearest
from ..common.vectors import Seeker, norm
from ..krylov.lanczos import (
    Recurrence,
    check_wanted,
    combine,
    decompose,
    held_rows,
    kept_at_restart,
    orthogonalise,
    orthonormal_rows,
    orthonormalise,
    project,
    rotate,
    wanted,
)
from ..krylov.solvers import minres
from ..krylov.trust_region import blind
from .dense import matrix_pairs, matrix_pays, matrix_replaces
from .reduced import EigshOptions, reduced_pairs, reduction, resolve_max_basis, resolve_tol
from .results import LEFT_OPEN, Eigenpairs

# --------------------------------------------------------------------------------------------------
# The search for extreme eigenpairs: thick-restart Lanczos, repeated from new random starts until no
# missed copy of a multiple eigenvalue is found.
#
# One start finds one vector of each eigenspace. Once the wanted pairs have converged, the basis is
# kept, the next block is set aside, and a random start in the complement of both generates a Krylov
# space of its own (a probe). It contains one more copy of each eigenvalue whose copies were missed,
# and nothing that the basis contains, so that its spectrum is narrow and outliers appear within few
# steps. If a copy appears, the search continues until the wanted pairs, copies among them, have
# converged, and then starts another probe. If none appears, the run itself tells when one would
# have appeared, see `growth` in `fastcurv.common.vectors`.

# a probe for missed copies continues until a copy of any wanted value would be missed with at most
# the probability SURE, or for the share PROBE_SHARE of the products made before it, LITTLE_SHARE
# where these are little work; once copies were found, for as many products as before it
SURE = 0.003
PROBE_SHARE, LITTLE_SHARE = 0.25, 0.5
WHOLE_SHARE = 0.25  # the matrix replaces a search once it costs this share of the products made
FIRST, EACH = 20, 4  # products that k pairs usually take: FIRST + EACH k
RISK = 0.05  # probability of error of `unseen`, if that share was too small
MOST_ASIDE = 8  # largest number of rows that are set aside
ROUNDED = -0.25  # residuals below eps ** ROUNDED times the noise count as rounding
NEARLY = 1e-3  # residual over the largest |lam| up to which pairs are kept beside a new start
STEEPEST = 2.5  # largest factor by which one step reduces residuals
QUICK = 1e-3  # seconds up to which Ctrl-C is left to whoever calls
SLICE = 0.1  # seconds of steps after which progress is shown


def extreme_pairs(
    op: Any, asked: EigshOptions, seed: Seed, v0: Any = None, against: Any = None
) -> Eigenpairs:
    """Run `eigsh` in the operator's own precision, with arguments that are checked."""
    n, dtype, k = op.shape[0], operator_dtype(op), asked.k
    deflated = orthonormal_rows(against, n, dtype)
    left = n if deflated is None else n - len(deflated)
    if k > left:
        raise ValueError(
            f"k is {k} and the complement of against has dimension {left}; wanted k no larger"
        )
    start = None if v0 is None else check_vectors(v0, n, "v0", dtype).T.copy()
    may_be_whole = asked.probe and asked.max_basis is None
    if may_be_whole and n <= asked.max_products and matrix_pays(op, FIRST + EACH * k):
        return matrix_pairs(op, asked, against=deflated)
    tol = resolve_tol(asked.tol, dtype)
    # its square, times the largest |lam|, becomes part of every residual
    loose = 0.1 if asked.relative == "scale" else 0.03
    most = min(resolve_max_basis(asked.max_basis, k, n, dtype), n)
    eps = float(np.finfo(dtype).eps)
    contamination = min(max(loose * tol**0.5, eps**0.5), 0.03 * loose)
    with bar(None, "eigsh", asked.progress) as shown, held_rows(op, (most + 1, n), dtype) as rows:
        run = Recurrence(op, most, against=deflated, contamination=contamination, rows=rows)
        search = ThickRestart(run, asked, tol, as_rng(seed), shown, may_be_whole)
        found = search.solve(start)
    if search.gives_way:
        return matrix_pairs(op, asked, against=deflated, spent=found.n_products)
    return found


class ThickRestart(Seeker):
    """The loop from a start vector to k converged pairs: extend, test, restart, probe. It stops at
    a budget of products or at Ctrl-C.
    """

    run: Recurrence
    next_look: int
    probe_from: int  # first row of the probe
    probe_until: int  # the row at which it ends at the latest

    def __init__(
        self,
        run: Recurrence,
        asked: EigshOptions,
        tol: float,
        rng: np.random.Generator,
        shown: Bar,
        may_give_way: bool = False,
    ) -> None:
        price = run.op._product_price() if hasattr(run.op, "_product_price") else np.inf
        super().__init__(run, asked.k, asked.which, tol, asked.relative == "value", price, STEEPEST)
        self.quick = price * (FIRST + EACH * asked.k) < QUICK
        self.rng, self.shown, self.sure = rng, shown, blind(run.n, SURE)
        self.max_products, self.probe = asked.max_products, asked.probe
        self.stop: Callable[[], bool] = lambda: False
        # (theta, bounds, coordinates) of the pairs for which a probe is running or has ended
        self.settled: tuple[Floats, Floats, Floats] | None = None
        self.probed, self.copies, self.interrupted = False, False, False
        self.unseen = np.inf  # see `Eigenpairs`
        # what the first start may have missed, see `hidden`; None if that is not known
        self.veiled: NDArray[np.bool_] | None = None
        # whether the matrix may be decomposed instead of a long search, and whether it will be
        self.may_give_way, self.gives_way = may_give_way, False
        # the result so far, while its residuals are measured again
        self.held: Eigenpairs | None = None

    def solve(self, start: Array | None = None) -> Eigenpairs:
        """Run the search to its end and return Eigenpairs."""
        with deferred_interrupts(not self.quick) as stop:
            self.stop = self.run.around = stop
            try:
                if start is None:
                    self.run.insert_random(self.rng)
                elif self.run.insert(start[: min(self._widest(), self.max_products)]) == 0:
                    raise ValueError(
                        "v0 is zero, or lies in the span of against; wanted a start with a part "
                        "outside it"
                    )
                self._grow()
                for _ in range(3):
                    if self.gives_way or not self._confirm():
                        break
                    self._grow()
            except Interrupted:  # raised within a product: the state before it is intact
                self.interrupted = True
            if self.run.m == 0:  # before the first product, of the search or of what is measured
                if self.held is None:
                    raise KeyboardInterrupt
                return replace(self.held, interrupted=True)
            return self._result()

    # -- the loop
    # ----------------------------------------------------------------------------------------------

    def _spent(self) -> bool:
        return self.run.n_products + max(1, self.run.p) > self.max_products

    def _share(self) -> float:
        """Return the share of the products made that the matrix may cost: all of them once copies
        were found, since each copy takes a run of its own.
        """
        return 1.0 if self.copies else WHOLE_SHARE

    def _is_long(self) -> bool:
        """Return whether the matrix costs no more than its share of the products made."""
        run = self.run
        return (
            self.may_give_way
            and run.n_products + run.n <= self.max_products
            and matrix_replaces(run.n, run.n_products * self._share())
        )

    def _grow(self) -> None:
        """Extend the basis until the wanted pairs have converged, the budget is spent or the space
        is exhausted.
        """
        run = self.run
        while True:
            if self.stop():
                self.interrupted = True
                return
            if run.p == 0 and run.m < run.dimension:
                if self._look():
                    return
                if run.p == 0 and run.m >= run.capacity - 1 and run.capacity < run.dimension:
                    self._restart()
                if run.p == 0:
                    run.insert_random(self.rng)
            if run.m >= run.dimension and run.aside and not self._spent():
                self._fetch_aside()
            if run.m >= run.dimension or self._spent():
                if run.m >= run.dimension:  # the basis spans the whole space
                    self.probed, self.unseen, self.settled = True, 0.0, None
                elif self.settled is not None:  # the last steps of a probe count as well
                    self._look()
                return
            if run.full and self.settled is not None and self._look():
                return
            if self._is_long():
                self.gives_way = True
                return
            if run.full:
                self._restart()
            before = run.n_products
            found = self._steps()
            self.shown.update(run.n_products - before)
            if found and self.settled is not None:
                if self._end_probe(found):
                    return
            elif found and run.p and self._look():
                return

    def _steps(self) -> int:
        """Make as many steps as can be made before anything is to be decided, or some 0.1 s of
        them. Return as `seek` does; after a block, 1 if a look is due.
        """
        run = self.run
        if run.p != 1:
            run.step()
            due = run.m >= self.next_look
            if not due or self.settled is None:
                return int(due)
            return self.look_at_probe(self.settled[0], self.sure)
        most = run.m + self.max_products - run.n_products
        if run.capacity < run.dimension:
            most = min(most, run.capacity)  # full there
        if self.may_give_way:  # it may be long then
            long = math.ceil(run.n / self._share()) - run.n_products
            most = min(most, run.m + max(long, 1))
        before = None if self.settled is None else self.settled[0]
        with run.around:
            return self.seek(most, SLICE, before, self.sure)

    def _widest(self) -> int:
        """Return the width of the largest block that restarts can keep whole next to the k wanted
        vectors.
        """
        run = self.run
        if run.capacity >= run.dimension:
            return run.dimension
        return max(1, (run.capacity + 1 - self.k) // 3)

    def _restart(self) -> None:
        run = self.run
        widest = self._widest()
        if run.p > widest:
            run.narrow_block(run.coupling() @ run.ritz(self.k, self.which)[1], widest)
        theta, S = decompose(run)
        room = run.capacity + 1 - 3 * max(run.p, 1) - run.aside
        keep = kept_at_restart(theta, self.k, self.which, max(room, 1))
        least = wanted(theta[keep], self.k, self.which)  # what is still computed after Ctrl-C
        run.restart(theta[keep], S[:, keep], stop=self.stop, least=least)
        self.forget_looks(run.m + 1)

    def _look(self) -> bool:
        """Compare the wanted Ritz pairs with the tolerance; return True once the search is done."""
        run = self.run
        if run.m < min(self.k, run.dimension):
            self.next_look = self.k
            return False
        if self.settled is not None:
            return self._end_probe(self.look_at_probe(self.settled[0], self.sure))
        theta, known, excess, apart = self.look()
        worst = max(excess.tolist())
        if not self.quick:
            self.shown.note(f"{int((excess <= 1).sum())} of {self.k} converged")
        if not worst <= 1:
            if apart:
                self._fetch_aside()
            self.schedule(worst)
            if run.m == self.k and run.p > 1:
                S = run.ritz(self.k, self.which)[1]
                run.narrow_block(run.coupling() @ S[:, excess > 1])
            return False
        return not self._begin_probe(theta, known)

    def _fetch_aside(self) -> None:
        """Continue with the rows set aside, in blocks."""
        run = self.run
        if run.capacity < run.dimension and run.m + 2 * (run.p + run.aside) > run.capacity:
            self._restart()
        run.fetch_aside()

    # -- probes for missed copies
    # -------------------------------------------------------------------------------------

    def _begin_probe(self, theta: Floats, known: Floats) -> bool:
        """Begin a probe for missed copies, if a copy of a wanted value can matter: if it would push
        out the innermost value by more than the allowed error of that. Return whether a probe was
        begun.

        A copy may lie partly in the last rows, so that neither they nor a start orthogonal to them
        show it: then these rows are dropped. This is done if the residual of a pair, one of
        `known`, has come down to rounding or would at the next step, whose row is one of them,
        since rounding then introduces a copy; and if rows were kept by a restart, since their own
        residuals separate the copies, so that one start finds several of them. The rounding of a
        restart is not counted against the pairs, just as the rounding in forming their vectors is
        not: a bound within the tolerance stays within it.
        """
        run = self.run
        if not self.probe or run.m >= run.dimension:
            return False
        far = self.outside(theta)[1]
        self.veiled = None
        if run.p and run.tridiagonal:
            self.veiled = self.hidden(theta, blind(run.n, RISK))[0]
        if not any(far):
            self._leave(theta)
            return False
        share = run.n_products
        if not self.copies:
            share = int((LITTLE_SHARE if self.quick else PROBE_SHARE) * share)
        steps = max(4, share)
        room = run.capacity - steps - 2 * run.p if run.capacity < run.dimension else run.m
        if (
            not run.tridiagonal
            or run.aside + run.p > MOST_ASIDE
            or self.begun(theta, known, far, run.eps**ROUNDED * run.noise)
        ):
            self._lock(max(room, self.k))
        else:
            if run.m > room:
                self._restart()
            run.set_aside()
        theta, S, _, limits = run.ritz(self.k, self.which)
        if not run.tridiagonal:
            limits -= run.eps * run.scale
        self.settled, self.probe_from = (theta, limits, S), run.m
        run.insert_random(self.rng)
        self.probe_until = run.m + steps
        self.next_look = run.m + 2
        return True

    def _lock(self, most: int) -> None:
        """Restart with at most `most` pairs that have nearly converged, and drop the rest of the
        basis.
        """
        run = self.run
        theta, S = run.nearly(self.k, self.which, NEARLY * run.scale)
        if len(theta) > most:
            keep = wanted(theta, most, self.which)
            theta, S = theta[keep], S[:, keep]
        run.lock(theta, S)

    def _end_probe(self, found: int) -> bool:
        """Return True if the probe ended without a change of the values; if it changed them, return
        to the search.
        """
        if found > 0 and self.settled is not None:
            self._leave(self.settled[0])
        elif found < 0:
            self.copies, self.settled = True, None
            self.forget_looks(self.run.m + 2)
        return found > 0

    def _leave(self, theta: Floats) -> None:
        """Set `unseen` as the search ends here: never less than what the residuals leave open,
        since an eigenvalue within that distance of the innermost may hide behind it.
        """
        run, risk = self.run, blind(self.run.n, RISK)
        resolved = self.tol * run.scale
        near = self.outside(theta)[2]
        least = 2 * resolved if run.p else 0.0
        if self.settled is not None and run.p:
            missed = self.missed(theta, risk)
            if missed > 2 * resolved:
                self.gives_way = self._is_long()
                near = max(missed, (LEFT_OPEN + 1) * resolved)  # shown in the repr
        if self.veiled is not None and run.p:
            least = max(least, self.hidden(theta, risk, self.veiled)[1])
        self.unseen, self.probed = max(near, least), True

    # -- the end
    # ----------------------------------------------------------------------------------------------

    def _known(self) -> tuple[Floats, Floats]:
        """Return the values and the bounds on their residuals, from the current basis."""
        if self.settled is not None:
            return self.settled[:2]
        self.run.reorthogonalise()
        theta, _, _, limits = self.run.ritz(self.k, self.which)
        return theta, limits

    def _vectors(self) -> Array:
        """Return the vectors of `_known`, as rows."""
        run = self.run
        if self.settled is not None:
            return combine(run.rows[: self.probe_from], self.settled[2])
        return combine(run.rows[: run.m], run.ritz(self.k, self.which)[1])

    def _confirm(self) -> bool:
        """Measure the residuals by products if their bounds are too coarse; return True if the
        search must continue.
        """
        run = self.run
        if self.interrupted or run.n_products + self.k > self.max_products:
            return False
        theta, limits = self._known()
        if self.settled is None and (self.look()[2] > 1).any():
            return False
        if all((limits <= self.targets(theta)).tolist()):
            return False
        self.held, self.settled = self._result(), None
        run.reset()
        run.insert(self.held.vectors.T.copy())
        run.step()
        self.held = None
        self.shown.update(run.m)
        theta, S, _, limits = run.ritz(self.k, self.which)
        if run.p == 0 or (limits <= self.targets(theta)).all():
            return False
        run.narrow_block(run.coupling() @ S)
        self.probe = False
        self.forget_looks(run.m + 1)
        return True

    def _result(self) -> Eigenpairs:
        run = self.run
        theta, limits = self._known()
        return Eigenpairs(
            values=theta,
            vectors=self._vectors().T,
            residuals=limits,
            converged=limits <= self.targets(theta),
            n_products=run.n_products,
            scale=run.scale,
            tol=self.tol,
            probed=self.probed,
            unseen=self.unseen,
            interrupted=self.interrupted,
            asymmetry=run.asymmetry,
        )


# --------------------------------------------------------------------------------------------------
# Eigenpairs from float32 products, refined by a few float64 products.
#
# The Krylov space is built in float32. Then, in float64, Rayleigh-Ritz is applied to the k vectors
# found; a pair whose residual is still too large gets the correction t of the Jacobi-Davidson
# equation,
#
#     (I - Y Y') (A - theta) (I - Y Y') t = -r,        r = A y - theta y,
#
# solved approximately by MINRES with float32 products, and one float64 product with t. Since t is
# only a correction, float32 errors are relative to r: every round gains the digits that MINRES
# gains. If that stalls, at values closer than float32 can separate, float64 Lanczos continues from
# the current pairs.

LOW_TOL = 2e-5
ROUNDS = 16
INNER_TOL = 1e-3
FIRST_STEPS, MOST_STEPS = 40, 160  # of MINRES: doubled after a round that gained less than a digit


def mixed_pairs(
    op: Any, asked: EigshOptions, seed: Seed, v0: Any = None, against: Any = None
) -> Eigenpairs:
    """Run `eigsh` with ``precision="mixed"``, with arguments that are checked."""
    rng = as_rng(seed)
    if not hasattr(op, "astype"):
        raise TypeError(
            f"op is a {type(op).__name__} without astype(dtype); wanted one for precision='mixed'"
        )
    high, low = op.astype("float64"), op.astype("float32")
    tol = resolve_tol(asked.tol, np.dtype(np.float64))
    found = extreme_pairs(low, replace(asked, tol=max(tol, LOW_TOL)), rng, v0, against)
    deflated = orthonormal_rows(against, high.shape[0], np.dtype(np.float64))
    refiner = _Refiner(high, low, asked.which, found.vectors.T.astype(np.float64), deflated)
    refiner.n_low = found.n_products
    values, rows, residuals, targets = refiner.run(tol, asked.relative, asked.max_products)
    spent = refiner.n_low + refiner.n_high
    pairs = replace(
        found,
        values=values,
        vectors=rows.T,
        residuals=residuals,
        converged=residuals <= targets,
        tol=tol,
        n_products=spent,
        n_low=refiner.n_low,
        scale=refiner.scale,
        unseen=max(found.unseen, found.tol * found.scale),  # the resolution of float32
    )
    left = asked.max_products - spent
    if pairs.converged.all() or 2 * asked.k > left or found.interrupted:
        return pairs
    further = replace(asked, tol=tol, max_products=left, probe=False)
    rest = extreme_pairs(high, further, rng, pairs.vectors, against)
    kept = {name: getattr(pairs, name) for name in ("n_low", "probed", "unseen")}
    return replace(rest, n_products=spent + rest.n_products, **kept)


class _Refiner:
    """Rayleigh-Ritz in float64 on rows Y with their products W, with corrections from float32."""

    def __init__(self, high: Any, low: Any, which: str, Y: Floats, against: Floats | None) -> None:
        self.high, self.low, self.which, self.k = high, low, which, len(Y)
        self.against = np.zeros((0, Y.shape[1])) if against is None else against
        self.n_low = self.n_high = 0
        self.scale = 0.0
        self.Y = self._clean(Y, Y[:0])
        self.W = self._products(self.Y)

    def _clean(self, V: Floats, Y: Floats) -> Floats:
        """Return orthonormal rows from V, orthogonal to Y and to the deflated vectors."""
        orthonormalise(V)
        for rows in (self.against, Y):
            orthogonalise(rows, V)
        B, _ = orthonormalise(V, floor=1e-10, against=Y)
        return V[: len(B)]

    def _products(self, V: Floats) -> Floats:
        self.n_high += len(V)
        W = np.array([np.asarray(self.high @ v, dtype=np.float64) for v in V]).reshape(V.shape)
        self.scale = max([self.scale, *(norm(w) for w in W)])
        return W

    def run(
        self, tol: float, relative: str, max_products: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Repeat corrections until all pairs are within the tolerance or a round gains nothing."""
        best, most = np.inf, FIRST_STEPS
        for _ in range(ROUNDS):
            theta, R, residuals = self._rayleigh_ritz()
            targets = tol * (np.full(self.k, self.scale) if relative == "scale" else np.abs(theta))
            poor = np.flatnonzero(residuals > targets)
            worst = float((residuals / np.maximum(targets, np.finfo(float).tiny)).max(initial=0.0))
            room = max_products - self.n_low - self.n_high
            if not len(poor) or room < 2 * len(poor) or (worst > 0.5 * best and most >= MOST_STEPS):
                break
            most = min(2 * most, MOST_STEPS) if worst > 0.1 * best else most
            best = worst
            steps = min(most, room // len(poor) - 1)
            V = self._clean(
                np.array([self._correction(theta[i], R[i], steps) for i in poor]), self.Y
            )
            self.Y, self.W = np.vstack([self.Y, V]), np.vstack([self.W, self._products(V)])
        return theta, self.Y[: self.k], residuals, targets

    def _rayleigh_ritz(self) -> tuple[Floats, Floats, Floats]:
        """Return the k wanted values in the span of Y, their residual vectors and norms.

        Y is replaced by Ritz vectors, the wanted ones first. Up to k + 8 of their neighbours are
        kept as well, since corrections may find a near neighbour of a wanted value, which must not
        be lost again.
        """
        T = project(self.Y, self.W)
        theta, S, _ = eigh(T)
        near = wanted(theta, 2 * self.k + 8, self.which)
        first = wanted(theta, self.k, self.which)
        order = np.concatenate([first, np.setdiff1d(near, first)])
        for rows in (self.Y, self.W):
            rotate(rows, S[:, order])
        self.Y, self.W = self.Y[: len(order)], self.W[: len(order)]
        theta = theta[first]
        R = self.W[: self.k] - theta[:, None] * self.Y[: self.k]
        rounding = 4 * np.finfo(float).eps * self.scale
        return theta, R, np.array([norm(r) for r in R]) + rounding

    def _correction(self, theta: float, r: Floats, steps: int) -> Floats:
        """Return an approximate Jacobi-Davidson correction from float32 products."""
        Y = np.vstack([self.Y, self.against]).astype(np.float32)
        length = norm(r)
        b = (r / -length).astype(np.float32)
        orthogonalise(Y, b[None])

        def multiply(v: Array) -> Array:
            self.n_low += 1
            v = v.reshape(-1).astype(np.float32)
            orthogonalise(Y, v[None], passes=1)
            out = np.array(self.low @ v, dtype=np.float32) - np.float32(theta) * v
            orthogonalise(Y, out[None], passes=1)
            return out

        return minres(multiply, b, steps, INNER_TOL).astype(np.float64)


@accept_aliases("eigsh")
@to_nearest
def eigsh(
    op: Operator,
    k: int = 6,
    which: Which = "LM",
    *,
    tol: float | None = None,
    relative: Literal["scale", "value"] = "scale",
    max_products: int | None = None,
    max_basis: int | None = None,
    v0: ArrayLike | None = None,
    against: ArrayLike | Eigenpairs | None = None,
    precision: Literal["mixed"] | None = None,
    probe: bool | None = None,
    space: Space | None = None,
    seed: Seed = None,
    rng: Seed = None,
    progress: bool | None = None,
) -> Eigenpairs:
    """Compute the k extreme eigenpairs of a symmetric operator, each with a bound on its error.

    Uses thick-restart Lanczos with full reorthogonalisation, repeated from new random starts
    orthogonal to the basis until no missed copy of a multiple eigenvalue is found. The whole matrix
    is used instead up to n = 64, and once a search has become so long that forming it costs no
    more; for the curvature of a network, whose price is known, wherever it costs less from the
    first.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric. Only products with it are needed; ``op.product(v, out)`` is used if it
        exists. If the whole matrix is formed, the vectors of a block are multiplied at once.
    k : int
        Number of eigenpairs, 1 <= k <= n.
    which : str
        ``"LM"`` largest magnitude, the default as in SciPy; ``"LA"`` largest algebraic, ``"SA"``
        smallest algebraic, ``"BE"`` k//2 from the low end and the rest from the high end.
    tol : float, optional
        Tolerance of the residual ``||H u - lam u||``, relative to the largest ``|lam|`` found.
        Default 1e-8 in float64 and 2e-5 in float32; values below ``16 eps`` are raised to that. The
        error of an eigenvalue is at most its residual, and usually of the order of its square.
    relative : str
        ``"scale"``: the tolerance is relative to the largest ``|lam|`` found. ``"value"``: to each
        ``|lam|`` itself, as in ARPACK, which is stricter for small eigenvalues next to a large one.
    max_products : int, optional
        Stop after this many products and return the current pairs, with `converged` set
        accordingly. Default ``20 n``, at least 1000.
    max_basis : int, optional
        Largest number of vectors of length n that are kept, at least ``k + 3`` if n allows. Memory
        is about ``(max_basis + k + 2) n`` numbers, and another ``8 n`` if blocks are needed.
        Default: 512 MB worth, at least ``2 k + 20``, at most 300 and n.
    v0 : ndarray, shape (n,) or (n, j), optional
        Start vectors. Columns that are eigenvectors already cost one product each; at most a third
        of the ``max_basis - k`` vectors left are used, the first ones. A start from `v0` is
        trusted: `probe` is then off by default.
    against : ndarray, shape (n, s), or Eigenpairs, optional
        The operator is restricted to the complement of these vectors; `residuals` are those of the
        operator itself.
    precision : str, optional
        ``"mixed"``: the Krylov space is built in float32 with ``op.astype("float32")``, then pairs
        are confirmed and, if needed, refined by a few float64 products. Which pairs are the extreme
        ones is decided in float32: values closer than its tolerance may be confused, which `unseen`
        accounts for.
    probe : bool, optional
        Whether to search with new random starts for copies of multiple eigenvalues, of which one
        start finds one each. Each start continues until it would have found a copy of any wanted
        value but the innermost, with a probability of error of 0.3%. If there are none, this
        usually adds a sixth to the products, and at most a quarter, or 4 products; if that is too
        few, `unseen` of the result, and its repr, tell what is left open. Default: True unless `v0`
        is given. If the spectrum is known to be simple, ``probe=False`` saves these products: from
        the same start the search then takes no more products than ARPACK's, which restarts in a
        smaller basis.
    space : str, optional
        The space of the search: ``"samples"``, ``"outputs"``, ``"inputs"`` or ``"parameters"``. A
        Hessian over fewer rows than it has units is exactly a smaller operator in the range of its
        products, see `fastcurv.network.gram`; a GGN or Fisher with fewer pairs of row and class
        than parameters has the eigenvalues of their Gram matrix, see `fastcurv.network.spaces`; a
        curvature whose X has constant or dependent columns, or more columns than rows, is that of a
        net with fewer inputs, see `fastcurv.network.spaces`. By default a smaller space is used if
        that is faster according to a cost model; `vectors` are then computed on first access.
    seed : None, int or numpy.random.Generator
        Seed of the random choices; the same number gives the same bits.
    rng : None, int or numpy.random.Generator
        Another name for `seed`, as in SciPy.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    Eigenpairs
        ``values (k,)`` ascending, ``vectors (n, k)``, ``residuals (k,)``, ``converged (k,)``,
        ``n_products``; unpacks as in SciPy, ``w, V = eigsh(H)``. Some eigenvalue lies within
        ``residuals[i]`` of ``values[i]``. That these are the k wanted ones, copies of multiple
        eigenvalues included, holds with high probability but is not certified: if a copy is
        missing, eigenvalues further in take its place, within `unseen` with a probability of error
        of 5%. There are fewer than k pairs if the budget or Ctrl-C ended the run before k products.
        Residuals are those of the products as computed: for an enclosure add the operator's own
        rounding bound. They include the asymmetry measured in the products, given in `asymmetry`;
        nothing more is implied for operators that are not symmetric.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above, or the operator returns NaN or infinity.

    See Also
    --------
    eigvalsh, inertia : all eigenvalues, for small n.
    spectral_density : the distribution of all eigenvalues, for large n.
    Krylov : eigenpairs that share products.

    References
    ----------
    .. [1] K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
           SIAM J. Matrix Anal. Appl. 22 (2000).
    .. [2] H. Simon, The Lanczos algorithm with partial reorthogonalization, Math. Comp. 42 (1984).
    .. [3] B. N. Parlett, The Symmetric Eigenvalue Problem, SIAM, 1998, ch. 13.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = eigsh(np.diag([-3.0, 0.0, 1.0, 5.0]), k=2, which="BE", seed=0)
    >>> np.allclose(pairs.values, [-3, 5]) and bool(pairs.converged.all())
    True
    """
    op = check_symmetric_operator(op)
    asked = EigshOptions(
        check_wanted(k, which, op.shape[0]),
        which,
        tol=tol,
        relative=check_choice(relative, ("scale", "value"), "relative"),
        max_products=max(1000, 20 * op.shape[0])
        if max_products is None
        else check_positive_int(max_products, "max_products"),
        max_basis=max_basis,
        probe=v0 is None if probe is None else bool(probe),
        progress=progress,
    )
    run = extreme_pairs
    if precision is not None:
        check_choice(precision, ("mixed",), "precision")
        run = mixed_pairs
    seed = one_seed(seed, rng)
    wide = op.astype("float64") if precision is not None and hasattr(op, "astype") else op
    small = reduction(wide, space)
    if small is not None:
        seed = as_rng(seed)
        pairs = reduced_pairs(run, small, asked, seed, v0, against)
        # a search among all parameters finds more only of small eigenvalues whose vectors come from
        # a Gram matrix and have not converged
        if pairs is not None and (
            space or not small.lowest or pairs.interrupted or pairs.converged.all()
        ):
            return pairs
    return run(op, asked, seed, v0, against)
