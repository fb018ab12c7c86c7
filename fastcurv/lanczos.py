"""The extreme eigenpairs of a symmetric operator by restarted Lanczos, each with a bound on its error."""

import numpy as np

from .basis import combine
from .checks import (as_rng, check_choice, check_positive, check_positive_int, check_symmetric_operator, check_vectors,
                     operator_dtype)
from .interrupts import deferred_interrupts
from .progress import bar
from .recurrence import Recurrence
from .results import Eigenpairs
from .ritz import bounds, decompose, kept_at_restart, ritz_pairs, sides, wanted

MAX_BASIS_BYTES = 512 << 20
LARGEST_BLOCK = 8
DEFAULT_TOL = {"float64": 1e-8, "float32": 2e-5}
PROBE_SHARE = 12  # a probe for missed copies spends at most one product for this many spent before it


def eigsh(op, k=6, which="LA", *, tol=None, relative="scale", max_products=None, max_basis=None, v0=None,
          against=None, precision=None, probe=None, seed=None, progress=False):
    """The k extreme eigenpairs of a symmetric operator, each with a bound on its error.

    Thick-restart Lanczos with full reorthogonalisation. One vector at a time; where a second random start shows that
    copies of a multiple eigenvalue were missed, blocks.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric. Costs products with it and nothing else; ``op.product(v, out)`` is used where it exists.
    k : int
        How many, 1 <= k <= n.
    which : str
        ``"LA"`` largest algebraic, ``"SA"`` smallest algebraic, ``"LM"`` largest magnitude, ``"BE"`` k//2 from the
        low end and the rest from the high end.
    tol : float, optional
        Wanted residual ``||H u - lam u||``, relative to the largest ``|lam|`` seen. Default 1e-8 in float64 and 2e-5
        in float32; not taken below ``16 eps``. The error of an eigenvalue is at most its residual, and usually of
        the order of its square.
    relative : str
        ``"scale"``: the tolerance is relative to the largest ``|lam|`` seen. ``"value"``: to each ``|lam|`` of its
        own, as in ARPACK, which asks more of small eigenvalues under a large one.
    max_products : int, optional
        Stop after this many products and return what is known, with honest flags. Default ``20 n``, at least 1000.
    max_basis : int, optional
        Vectors of length n kept at most, at least ``k + 3`` where n allows. Memory is about
        ``(max_basis + k + 2) n`` numbers, and another ``8 n`` where blocks are needed. Default: 512 MB worth,
        at least ``2 k + 20``, at most 300 and n.
    v0 : ndarray, shape (n,) or (n, j), optional
        Where to start. Columns that are right already cost one product each. A start from `v0` is trusted:
        `probe` is then off unless asked for.
    against : ndarray, shape (n, s), or Eigenpairs, optional
        The operator is restricted to the complement of these vectors; `residuals` are those of the operator itself.
    precision : str, optional
        ``"mixed"``: Krylov in float32 by ``op.astype("float32")``, then pairs confirmed and, where needed, refined by
        a few float64 products.
    probe : bool, optional
        Whether to look with a second random start for copies of multiple eigenvalues, which one start cannot see. It
        adds at most a twelfth to the products, or 4 of them, and so sees clusters and outliers, not every pair.
        Default: unless `v0` is given. Where the spectrum is known to be simple, ``probe=False`` saves that: from the
        same start the search then takes no more products than ARPACK's, which restarts in a smaller basis.
    seed : None, int or numpy.random.Generator
    progress : bool

    Returns
    -------
    Eigenpairs
        ``values (k,)`` ascending, ``vectors (n, k)``, ``residuals (k,)``, ``converged (k,)``, ``n_products``. Some
        eigenvalue lies within ``residuals[i]`` of ``values[i]``; multiplicity is looked for and not certified.
        Fewer than k where the budget or Ctrl-C ended the run before k products. Residuals are those of the products
        as computed: for an enclosure add the operator's own rounding bound.

    Raises
    ------
    ValueError, TypeError
        Where an argument is not as above, or the operator returns NaN or infinity.

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
    n, dtype = op.shape[0], operator_dtype(op)
    check_choice(which, ("LA", "SA", "LM", "BE"), "which")
    check_choice(relative, ("scale", "value"), "relative")
    k = check_positive_int(k, "k")
    if k > n:
        raise ValueError(f"k is {k} and the operator has n = {n}; wanted k <= n")
    if precision is not None:
        check_choice(precision, ("mixed",), "precision")
        from .refine import eigsh_mixed

        return eigsh_mixed(op, k, which, tol=tol, relative=relative, max_products=max_products, max_basis=max_basis, v0=v0,
                           against=against, probe=probe, seed=seed, progress=progress)
    deflated = orthonormal_rows(against, n, dtype)
    if k > n - (0 if deflated is None else len(deflated)):
        raise ValueError(f"k is {k} and the complement of against has dimension {n - len(deflated)}; wanted k no larger")
    max_products = max(1000, 20 * n) if max_products is None else check_positive_int(max_products, "max_products")
    tol = resolve_tol(tol, dtype)
    loose = 0.1 if relative == "scale" else 0.03    # its square, times the largest |lam|, becomes part of every residual
    run = Recurrence(op, resolve_max_basis(max_basis, k, n, dtype), against=deflated,
                     contamination=min(max(loose * tol**0.5, float(np.finfo(dtype).eps)**0.5), 0.03 * loose))
    start = None if v0 is None else check_vectors(v0, n, "v0", dtype).T.copy()
    with bar(max_products, "eigsh", progress) as shown:
        probe = v0 is None if probe is None else bool(probe)
        search = Search(run, k, which, tol, relative, max_products, as_rng(seed), probe, shown)
        return search.solve(start)


def resolve_tol(tol, dtype):
    """The tolerance that is worked to: the default where None, never below 16 eps."""
    eps = float(np.finfo(dtype).eps)
    return max(DEFAULT_TOL[dtype.name] if tol is None else check_positive(tol, "tol", zero=True), 16 * eps)


def resolve_max_basis(max_basis, k, n, dtype):
    """How many vectors may be kept."""
    if max_basis is None:
        return min(n, max(2 * k + 20, min(300, MAX_BASIS_BYTES // (n * dtype.itemsize))))
    max_basis = check_positive_int(max_basis, "max_basis")
    if max_basis < min(n, k + 3):
        raise ValueError(f"max_basis is {max_basis} with k = {k}; wanted at least k + 3 = {k + 3}, or n where that is less")
    return min(n, max_basis)


def orthonormal_rows(against, n, dtype):
    """`against` as orthonormal rows, dependent ones dropped; None where there is nothing."""
    if against is None:
        return None
    from .basis import orthonormalise

    V = against.vectors if isinstance(against, Eigenpairs) else against
    if np.ndim(V) == 2 and np.shape(V)[1] == 0:
        return None
    rows = check_vectors(V, n, "against", dtype).T.copy()
    B, _ = orthonormalise(rows)
    return rows[:len(B)]


class Search:
    """From a start to k converged pairs: grow, look, restart, probe; stops at a budget or at Ctrl-C."""

    def __init__(self, run, k, which, tol, relative, max_products, rng, probe, shown):
        self.run, self.k, self.which, self.tol, self.relative = run, k, which, tol, relative
        self.max_products, self.rng, self.probe, self.shown = max_products, rng, probe, shown
        self.block, self.next_look, self.last = 1, 0, None
        self.settled = None  # the pairs that a probe is testing, as (theta, bounds) of the first k rows
        self.probe_until, self.probed, self.interrupted = 0, False, False

    def solve(self, start=None):
        """Run to the end and return Eigenpairs."""
        with deferred_interrupts() as stop:
            self.stop = stop
            try:
                self._start(start)
                self._grow()
                for _ in range(3):
                    if not self._confirm():
                        break
                    self._grow()
            except KeyboardInterrupt:
                self.interrupted = True
            if self.run.m == 0:
                raise KeyboardInterrupt
            return self._result()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _start(self, start):
        run = self.run
        if start is not None:
            if run.insert(start[:run.capacity]) == 0:
                raise ValueError("v0 is zero, or lies in the span of against; wanted a start with a part outside it")
        else:
            run.insert_random(self.rng)

    def _spent(self):
        return self.run.n_products + max(1, self.run.p) > self.max_products

    def _grow(self):
        """Until the wanted pairs are converged, the budget is spent or the space is exhausted."""
        run = self.run
        while True:
            if self.stop():
                self.interrupted = True
                return
            if run.p == 0 and run.m < run.dimension:
                if self._look():
                    return
                if run.p == 0 and not self._make_room():
                    self.probed = self.settled is not None
                    return
                if run.p == 0:
                    run.insert_random(self.rng, self.block)
            if run.m >= run.dimension or self._spent():
                return
            if run.full and self.settled is not None:
                self.probed = True
                return
            if run.full:
                self._restart()
            before = run.n_products
            run.step()
            self.shown.update(run.n_products - before)
            if run.p and run.m >= self.next_look and self._look():
                return

    def _make_room(self):
        """Room for a fresh start next to the basis; False where even a restart gives none."""
        run = self.run
        if run.m + 2 * self.block > run.capacity + 1 and run.capacity < run.dimension:
            if self.settled is not None:
                return False
            self._restart()
        return run.m < run.dimension

    def _restart(self):
        run = self.run
        theta, S = decompose(run)
        room = run.capacity + 1 - 3 * max(run.p, self.block)
        keep = kept_at_restart(theta, self.k, self.which, max(room, 1))
        run.restart(theta[keep], S[:, keep])
        self.next_look, self.last = run.m + 1, None

    def _look(self):
        """Compare the wanted Ritz pairs with the tolerance; True where all is done."""
        run = self.run
        if run.m < min(self.k, run.dimension):
            self.next_look = self.k
            return False
        theta, S, residuals = ritz_pairs(run, self.k, self.which)
        target = max(self.tol * run.scale, 2 * run.noise)
        if self.settled is not None:
            return self._look_probe(theta, target)
        excess = self._excess(theta, S, residuals)
        worst = float(excess.max())
        self.shown.note(f"{int((excess <= 1).sum())} of {self.k} converged")
        if not worst <= 1:
            self._schedule(worst)
            if run.m == self.k and run.p > 1:
                run.narrow_block(run.coupling() @ S[:, excess > 1])
            return False
        steps = self._probe_steps(theta, target)
        if not steps:
            return True
        self._begin_probe(theta, S, steps)
        return False

    def _targets(self, theta):
        """What each residual may be: the tolerance, but no less than twice the rounding seen."""
        run = self.run
        size = run.scale if self.relative == "scale" else np.maximum(np.abs(theta), run.eps**(2 / 3) * run.scale)
        return self.tol * np.broadcast_to(size, theta.shape)

    def _excess(self, theta, S, residuals):
        """Residuals over what they may be; what more products cannot mend counts for at most half of that."""
        run = self.run
        targets = np.maximum(self._targets(theta), 2 * run.noise)
        allowed = targets - np.minimum(bounds(run, S, residuals) - residuals, targets / 2)
        return np.divide(residuals, allowed, out=np.where(residuals > 0, np.inf, 0.0), where=allowed > 0)

    def _schedule(self, excess):
        """Look again when the residuals, falling as they did, are due; at most an eighth of the basis from now, near the
        end a 24th: what is spent past convergence is spent for nothing."""
        m = self.run.m
        ahead = max(2, m // (8 if excess > 30 else 24))
        if self.last is not None and excess < self.last[1]:
            rate = np.log(self.last[1] / excess) / (m - self.last[0])
            ahead = min(ahead, max(1, int(0.7 * np.log(excess) / rate)))
        self.last = (m, excess)
        self.next_look = m + ahead

    # -- probes for missed copies -------------------------------------------------------------------------------------

    def _probe_steps(self, theta, target):
        """How many steps from a random start would show a copy of a wanted value, were there one; 0: no need.

        A copy matters where it would push out the innermost wanted value. The number is that of Kuczynski and
        Wozniakowski's bound for a risk of 5%, and at most a share of what was spent; none where that share could not
        show a copy of even the outermost value.
        """
        run = self.run
        if not self.probe or run.m >= run.dimension:
            return 0
        gaps = np.concatenate(sides(theta, self.k, self.which))
        gaps = gaps[gaps > 2 * target]
        self.probed = not len(gaps)
        if self.probed:
            return 0
        spread = max(np.ptp(theta), np.abs(theta).max())
        least, steps = (0.5 * (1 + np.log(33 * run.n**0.5) / (gap / spread)**0.5) for gap in (gaps.max(), gaps.min()))
        cap = max(4, run.n_products // (PROBE_SHARE * self.block))
        if least > 2 * cap:
            return 0
        room = min(run.capacity + 1 - 2 * self.block, run.dimension) - len(theta)
        return max(0, int(min(np.ceil(steps), cap, room)))

    def _begin_probe(self, theta, S, steps):
        """Set the converged pairs aside as the basis and start again in their complement."""
        run = self.run
        _, _, residuals = ritz_pairs(run, self.k, self.which)
        limits = bounds(run, S, residuals)
        run.restart(theta, S, keep_block=False)
        self.settled = (theta, limits)
        run.insert_random(self.rng, self.block)
        self.probe_until = run.m + steps * self.block
        self.next_look = run.m + max(2, steps // 3) * self.block

    def _look_probe(self, theta, target):
        """True where the probe ended without a change; back to the search, in larger blocks, where it found one."""
        run = self.run
        if np.abs(theta - self.settled[0]).max() > target:
            self.settled, self.last = None, None
            self.block = min(2 * self.block, LARGEST_BLOCK, max(1, (run.capacity - self.k) // 3))
            self.next_look = run.m + 2
            return False
        if run.p == 0 or run.m >= self.probe_until:
            self.probed = True
            return True
        self.next_look = min(run.m + max(2, run.m // 8), self.probe_until)
        return False

    # -- the end ------------------------------------------------------------------------------------------------------

    def _final(self):
        """Values, vectors as rows, and bounds of the residuals, from what is in the basis now."""
        run = self.run
        if self.settled is not None:
            theta, limits = self.settled
            return theta, run.rows[:len(theta)].copy(), limits
        run.reorthogonalise()
        theta, S, residuals = ritz_pairs(run, self.k, self.which)
        return theta, combine(run.rows[:run.m], S), bounds(run, S, residuals)

    def _confirm(self):
        """Measure the residuals by products where their bounds are too coarse; True where the search must go on."""
        run = self.run
        if self.interrupted or run.n_products + self.k > self.max_products:
            return False
        theta, rows, limits = self._final()
        if self.settled is None:
            values, S, known = ritz_pairs(run, self.k, self.which)
            if (self._excess(values, S, known) > 1).any():
                return False
        if (limits <= self._targets(theta)).all():
            return False
        self.settled = None
        run.reset()
        run.insert(rows)
        run.step()
        self.shown.update(run.m)
        theta, S, residuals = ritz_pairs(run, self.k, self.which)
        if run.p == 0 or (bounds(run, S, residuals) <= self._targets(theta)).all():
            return False
        run.narrow_block(run.coupling() @ S)
        self.probe, self.next_look, self.last = False, run.m + 1, None
        return True

    def _result(self):
        run = self.run
        theta, rows, limits = self._final()
        return Eigenpairs(values=theta, vectors=rows.T, residuals=limits, converged=limits <= self._targets(theta),
                          n_products=run.n_products, scale=run.scale, tol=self.tol,
                          probed=self.probed or run.m >= run.dimension,
                          interrupted=self.interrupted)
