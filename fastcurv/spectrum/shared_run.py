"""Named Lanczos runs whose products are shared by eigenpairs, densities and verdicts of one
operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    as_rng,
    check_positive_int,
    check_rng,
    check_symmetric_operator,
    check_vector,
    operator_dtype,
    short_repr,
)
from ..common.progress import NO_PROGRESS, ProgressBar, show_bar
from ..common.protocols import Array, Axis, OperatorLike, Seed, Space, Which
from ..common.read_only import ReadOnlyMixin
from ..common.runtime import Lock
from ..krylov.lanczos import Recurrence, check_k_and_which, combine_basis_rows
from .density import assemble_density, complete_quadrature, extend_run, gauss_quadrature
from .density_curve import SpectralDensity
from .forms import choose_reduction
from .options import resolve_tol
from .reduced import complete_pairs
from .results import Eigenpairs
from .smoothing import check_grid_options

DEFAULT_MAX_KRYLOV_BYTES = 4 << 30  # default limit on the memory of the bases of a Krylov object


class LanczosRuns:
    """The state of a `Krylov` object, used by one thread at a time: its recurrences and their start
    vectors.

    Attributes
    ----------
    op, name, rng, n, dtype, reduction, max_bytes
        As in `Krylov`.
    """

    def __init__(self, op: Any, name: str, seed: Seed, max_bytes: int, space: Space | None) -> None:
        self.op = check_symmetric_operator(op)
        self.name = str(name)
        self.rng = as_rng(seed)
        self.n: int = self.op.shape[0]
        self.dtype = operator_dtype(self.op)
        self.reduction = choose_reduction(self.op, space)
        self.max_bytes = check_positive_int(max_bytes, "max_bytes")
        # pairs of a start vector, or None for a random start, and a recurrence
        self.by_start: list[tuple[Any, Recurrence]] = []

    @property
    def n_products(self) -> int:
        """The number of products computed so far by all recurrences."""
        return sum(run.n_products for _, run in self.by_start)

    @property
    def probes(self) -> list[Recurrence]:
        """The recurrences from random starts, in the order of their creation."""
        return [run for start, run in self.by_start if start is None]

    @property
    def multiplied_operator(self) -> Any:
        """The operator by which the recurrences from random starts multiply."""
        return self.op if self.reduction is None else self.reduction

    def reserve(self, op: Any, run: Recurrence | None, steps: int) -> None:
        """Reserve memory for `steps` products with `op` in the recurrence `run`, or only check the
        limit for a new recurrence if `run` is None. Raise MemoryError if all bases together would
        exceed `max_bytes`.
        """
        n = op.shape[0]
        steps = min(steps, n)
        if run is not None and run.capacity >= steps:
            return
        in_use = sum(one.rows.nbytes for _, one in self.by_start if one is not run)
        if in_use + (steps + 1) * n * self.dtype.itemsize > self.max_bytes:
            raise MemoryError(
                f"the runs must take at most max_bytes = {self.max_bytes / 1e9:.2g} GB, got a "
                f"basis of {steps} vectors of length {n} in addition to {in_use / 1e9:.2g} GB. Use "
                "fewer steps, or a larger max_bytes."
            )
        if run is not None:
            run.reserve(steps)

    def probe(self, i: int = 0, n_steps: int = 1, shown: ProgressBar = NO_PROGRESS) -> Recurrence:
        """Return the recurrence of random probe `i`, extended to at least `n_steps` products unless
        its Krylov space is exhausted. See `Krylov.probe`.
        """
        if not isinstance(i, (int, np.integer)) or i < 0:
            raise ValueError(f"i must be the index of a probe, an int >= 0, got {short_repr(i)}.")
        op = self.multiplied_operator
        while len(self.probes) <= i:
            self.reserve(op, None, n_steps)
            run = Recurrence(op, min(n_steps, op.shape[0]))
            run.insert_random(self.rng)
            self.by_start.append((None, run))
        self.extend_run(self.probes[i], n_steps, shown)
        return self.probes[i]

    def extend_run(self, run: Recurrence, n_steps: int, shown: ProgressBar = NO_PROGRESS) -> None:
        """Extend the recurrence `run` to at least `n_steps` products, unless its Krylov space is
        exhausted.
        """
        if run.p and run.m < n_steps:
            self.reserve(run.op, run, n_steps)
            extend_run(run, n_steps, shown)

    def n_steps_from(self, g: Any = None) -> int:
        """Return the number of products of the recurrence from the start vector g, or of the first
        recurrence from a random start if g is None. Return 0 if there is no such recurrence.
        """
        return next((run.m for start, run in self.by_start if np.array_equal(start, g)), 0)

    def extend_from(self, g: Array, n_steps: int) -> Recurrence:
        """Return the recurrence from the nonzero start vector g (n,), extended to at least
        `n_steps` products unless its Krylov space is exhausted. See `Krylov.extend_from`.
        """
        g = check_vector(g, self.n, "g")
        if not g.any():
            raise ValueError("g must have a nonzero entry, got a vector of zeros.")
        for start, run in self.by_start:  # noqa: B007  used where the loop is left
            if np.array_equal(start, g):
                break
        else:
            self.reserve(self.op, None, n_steps)
            run = Recurrence(self.op, min(n_steps, self.n))
            run.insert_block((g / np.abs(g).max()).astype(self.dtype)[None])
            self.by_start.append((g.copy(), run))
        self.extend_run(run, n_steps)
        return run


class Krylov(ReadOnlyMixin):
    """Lanczos runs on one operator whose products are shared by eigenpairs, densities and verdicts.

    The first run starts from a random direction that is uniform on the sphere. The bounds on the
    probability of missing an eigenvalue require this. They do not hold for vectors of random signs,
    because an eigenvector with few nonzero entries can be orthogonal to such a vector. Further runs
    start from random directions, if a density needs more probes, or from given vectors. Runs are
    never restarted, so each run can be extended. Each run keeps its basis, so the memory is one
    vector of length n for each product.

    Threads may share a `Krylov` object. Each call waits until calls in other threads have ended. A
    call from within a product of its own operator, or from a signal handler or finaliser that
    interrupts a call, raises `RuntimeError`.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator.
    name : str
        The name that results store in the attribute `krylov_name`. Results with the same name use
        the same products.
    rng : None, int or numpy.random.Generator
        Seed of the random choices. The same number gives bitwise identical results.
    max_bytes : int
        Maximum memory of all bases together. A method that would exceed it raises `MemoryError` and
        keeps all products computed so far.
    space : str, optional
        The space in which the random probes run, as in `eigsh`. By default a smaller space is used
        if a cost model predicts that it takes less time. Results are those of `op`.

    Attributes
    ----------
    reduction : Reduction or None
        The reduction on which the probes run, or None if they run on `op`.
    n_products : int
        Number of products computed so far by all runs.

    See Also
    --------
    eigsh, spectral_density : Functions that compute all products for one result.

    Examples
    --------
    >>> import numpy as np
    >>> run = Krylov(np.diag(np.arange(100.0)), "demo", rng=0)
    >>> low, high = run.eigsh(1, "SA"), run.eigsh(1, "LA")
    >>> run.extend_from(np.ones(100), 5).m, run.n_steps_from(np.ones(100)), run.probe(0).m > 5
    (5, 5, True)
    >>> high.n_products <= run.n_products and high.krylov_name
    'demo'
    """

    op: Any
    name: str
    rng: np.random.Generator
    n: int
    dtype: np.dtype[Any]
    reduction: Any
    max_bytes: int
    _read_only = frozenset(("op", "name", "rng", "n", "dtype", "reduction", "max_bytes"))

    def __init__(
        self,
        op: OperatorLike,
        name: str = "krylov",
        *,
        rng: Seed = 0,
        max_bytes: int = DEFAULT_MAX_KRYLOV_BYTES,
        space: Space | None = None,
    ) -> None:
        seed = check_rng(rng)
        self._runs = runs = LanczosRuns(op, name, seed, max_bytes, space)
        self._lock = Lock()
        self.op = runs.op
        self.name = runs.name
        self.n = runs.n
        self.dtype = runs.dtype
        self.rng = runs.rng
        self.reduction = runs.reduction
        self.max_bytes = runs.max_bytes

    def __repr__(self) -> str:
        steps = [run.m for run in self._runs.probes]
        return (
            f"Krylov({self.name!r}, n = {self.n}, probes of {steps} steps, {self.n_products} "
            "products)"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Krylov object cannot be copied or pickled, because it holds the bases of its runs. "
            "Save its results, or create another Krylov object for the operator."
        )

    @property
    def n_products(self) -> int:
        """The number of products computed so far by all runs."""
        return self._runs.n_products

    @contextmanager
    def locked(self) -> Iterator[LanczosRuns]:
        """Return a context manager in which only this thread uses the runs, while others wait.

        Yields
        ------
        Runs
            The recurrences and their start vectors.

        Raises
        ------
        RuntimeError
            If a function on the stack of this thread already uses the runs.

        Examples
        --------
        >>> import numpy as np
        >>> with Krylov(np.diag([1.0, 2.0, 5.0]), rng=0).locked() as runs:
        ...     runs.probe(0, 2).m
        2
        """
        # In a forked process, the runs may be incomplete because another thread was using them.
        if self._lock.lost:
            self._lock = Lock()
            self._runs.by_start = []
        try:
            self._lock.__enter__()
        except RuntimeError as error:
            raise RuntimeError(
                f"the Krylov run {self.name!r} must not be used from a product of its own "
                "operator, or from a signal handler or finaliser that interrupts a call of it. "
                "Use another Krylov object there, or call this one later."
            ) from error
        try:
            yield self._runs
        finally:
            self._lock.__exit__()

    def probe(self, i: int = 0, n_steps: int = 1, shown: ProgressBar = NO_PROGRESS) -> Recurrence:
        """Return the recurrence of a random probe, extended to at least `n_steps` products.

        Parameters
        ----------
        i : int
            Index of the probe, counted from 0. Missing probes are created.
        n_steps : int
            Minimum number of products. The recurrence has fewer if its Krylov space is exhausted.
        shown : ProgressBar
            Progress bar that is updated.

        Returns
        -------
        Recurrence
            The recurrence, in the coordinates of `reduction` unless `reduction` is None. If threads
            share this object, read the recurrence inside `locked`.

        Raises
        ------
        ValueError
            If i is not an int >= 0.
        MemoryError
            If all bases together would exceed `max_bytes`.
        """
        with self.locked() as runs:
            return runs.probe(i, n_steps, shown)

    def n_steps_from(self, g: Any = None) -> int:
        """Return the number of products of a run, or 0 if the run does not exist.

        Parameters
        ----------
        g : ndarray, shape (n,), optional
            The start vector of the run. If None, the first run from a random start is meant.

        Returns
        -------
        int
            The number of products.
        """
        with self.locked() as runs:
            return runs.n_steps_from(g)

    def extend(self, n_steps: int) -> Krylov:
        """Extend the first random probe.

        Parameters
        ----------
        n_steps : int
            Minimum number of products. The probe has fewer if its Krylov space is exhausted.

        Returns
        -------
        Krylov
            This object.

        Raises
        ------
        MemoryError
            If all bases together would exceed `max_bytes`.
        """
        self.probe(0, check_positive_int(n_steps, "n_steps"))
        return self

    def eigsh(
        self,
        k: int = 6,
        which: Which = "LM",
        *,
        tol: float | None = None,
        max_products: int | None = None,
        progress: bool | None = None,
    ) -> Eigenpairs:
        """Compute k extreme eigenpairs from the first random probe, which is extended until they
        have converged.

        Parameters
        ----------
        k, which, tol : int, str, float
            As in `fastcurv.eigsh`. Copies of multiple eigenvalues are not searched for, so the
            result contains one copy of each.
        max_products : int, optional
            Maximum number of new products. The default is n. The probe is also not extended if
            memory does not suffice.
        progress : bool, optional
            Whether to show a progress bar. By default it is shown on a terminal if the computation
            takes more than 2 s.

        Returns
        -------
        Eigenpairs
            The pairs, some of which may not have converged. `n_products` is the number of all
            products used for the pairs, and `n_new_products` the number of products made by this
            call.
        """
        wanted = check_k_and_which(k, which, self.n)
        tol = resolve_tol(tol, self.dtype)
        limit = self.n if max_products is None else check_positive_int(max_products, "max_products")
        with self.locked() as runs, show_bar(None, f"{self.name}: eigsh", progress) as shown:
            before = runs.n_products
            k = min(wanted, runs.multiplied_operator.shape[0])
            run = runs.probe(0, min(k, limit))
            limit += run.m - (runs.n_products - before)
            while True:
                theta, S, residuals, limits = run.ritz_pairs(k, which)
                target = max(tol * run.scale, 2 * run.noise)
                if run.m >= limit or not run.p or (len(theta) == k and (residuals <= target).all()):
                    break
                try:
                    runs.extend_run(run, min(limit, run.m + max(2, run.m // 10)), shown)
                except MemoryError:
                    break
            run.reorthogonalise()
            pairs = Eigenpairs(
                values=theta,
                vectors=combine_basis_rows(run.rows[: run.m], S).T,
                residuals=limits,
                tol=tol,
                converged=limits <= tol * run.scale,
                n_products=run.m,
                scale=run.scale,
                krylov_name=self.name,
                n_new_products=runs.n_products - before,
                asymmetry=run.asymmetry,
            )
        if self.reduction is None:
            return pairs
        full_pairs = complete_pairs(pairs, self.reduction, wanted, which, np.random.default_rng(0))
        return replace(
            full_pairs,
            n_products=pairs.n_products,
            krylov_name=pairs.krylov_name,
            n_new_products=pairs.n_new_products,
        )

    def spectral_density(
        self,
        n_probes: int = 1,
        n_steps: int | None = None,
        *,
        axis: Axis = "linear",
        width: float | None = None,
        grid: ArrayLike | None = None,
        n_grid: int = 1024,
        linear_below: float | None = None,
        progress: bool | None = None,
    ) -> SpectralDensity:
        """Estimate the density of the eigenvalues from the first random probes of this object.

        Parameters
        ----------
        n_probes : int
            Number of probes. Existing probes need only the products that they lack.
        n_steps : int, optional
            Minimum number of products of each probe. Longer probes are used in full. The default is
            the number of products of the first probe, but at least 80.
        axis : str
            ``"linear"`` or ``"log"``.
        width, grid, n_grid, linear_below : float, array_like, int, float
            As in `fastcurv.spectral_density`.
        progress : bool, optional
            Whether to show a progress bar, as in `eigsh`.

        Returns
        -------
        SpectralDensity
            The density. `n_new_products` is the number of products made by this call.
        """
        n_probes = check_positive_int(n_probes, "n_probes")
        n_steps = None if n_steps is None else check_positive_int(n_steps, "n_steps")
        smoothing = check_grid_options(axis, width, grid, n_grid, linear_below)
        with self.locked() as runs:
            n_steps = max(80, runs.n_steps_from()) if n_steps is None else n_steps
            before = runs.n_products
            with show_bar(n_probes * n_steps, f"{self.name}: density", progress) as shown:
                probes = [runs.probe(i, n_steps, shown) for i in range(n_probes)]
            return assemble_density(
                [complete_quadrature(gauss_quadrature(run), self.reduction) for run in probes],
                np.zeros(0),
                self.n,
                smoothing,
                self.reduction,
                self.dtype,
                n_products=sum(run.m for run in probes),
                orthogonality_loss=max(run.max_orthogonality_loss for run in probes),
                krylov_name=self.name,
                n_new_products=runs.n_products - before,
            )

    def extend_from(self, g: Array, n_steps: int) -> Recurrence:
        """Return the recurrence from a given start vector, extended to at least `n_steps` products.

        Parameters
        ----------
        g : ndarray, shape (n,)
            The nonzero start vector. The recurrence is created if it does not exist.
        n_steps : int
            Minimum number of products. The recurrence has fewer if its Krylov space is exhausted.

        Returns
        -------
        Recurrence
            The recurrence. If threads share this object, read the recurrence inside `locked`.

        Raises
        ------
        ValueError
            If g is zero.
        MemoryError
            If all bases together would exceed `max_bytes`.
        """
        with self.locked() as runs:
            return runs.extend_from(g, n_steps)
