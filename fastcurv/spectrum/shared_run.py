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
    check_symmetric_operator,
    check_vector,
    operator_dtype,
    short_repr,
)
from ..common.errors import accept_aliases
from ..common.progress import NO_PROGRESS, ProgressBar, show_bar
from ..common.protocols import Array, Axis, OperatorLike, Seed, Space, Which
from ..common.read_only import ReadOnlyMixin
from ..common.runtime import Lock
from ..krylov.lanczos import Recurrence, check_wanted, combine
from .density import assemble_density, complete_quadrature, extend_run, gauss_quadrature
from .density_curve import SpectralDensity, check_grid_options
from .forms import reduced_operator_of
from .reduced import complete_pairs, resolve_tol
from .results import Eigenpairs

DEFAULT_MAX_BYTES = 4 << 30  # default limit on the memory of the bases of a Krylov object


class LanczosRuns:
    """The state of a `Krylov` run, used by one thread at a time: its recurrences by their start
    vectors.

    Attributes
    ----------
    op, name, rng, n, dtype, reduction, max_bytes
        As in `Krylov`.
    """

    def __init__(self, op: Any, name: str, seed: Seed, max_bytes: int, space: Space | None) -> None:
        self.op, self.name, self.rng = check_symmetric_operator(op), str(name), as_rng(seed)
        self.n: int = self.op.shape[0]
        self.dtype = operator_dtype(self.op)
        self.reduction = reduced_operator_of(self.op, space)
        self.max_bytes = check_positive_int(max_bytes, "max_bytes")
        # pairs (start vector, or None for a random start; recurrence)
        self.by_start: list[tuple[Any, Recurrence]] = []

    @property
    def n_products(self) -> int:
        """The number of products computed so far, by all runs."""
        return sum(run.n_products for _, run in self.by_start)

    @property
    def probes(self) -> list[Recurrence]:
        """The runs from random starts, in the order of their creation."""
        return [run for start, run in self.by_start if start is None]

    @property
    def reduced_operator(self) -> Any:
        """The operator that the runs from random starts multiply by."""
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
        held = sum(one.rows.nbytes for _, one in self.by_start if one is not run)
        if held + (steps + 1) * n * self.dtype.itemsize > self.max_bytes:
            raise MemoryError(
                f"the runs must take at most max_bytes = {self.max_bytes / 1e9:.2g} GB, got a "
                f"basis of {steps} vectors of length {n} in addition to {held / 1e9:.2g} GB. Use "
                "fewer steps, or more memory."
            )
        if run is not None:
            run.reserve(steps)

    def probe(self, i: int = 0, n_steps: int = 1, shown: ProgressBar = NO_PROGRESS) -> Recurrence:
        """Return the recurrence of random probe `i`, extended to at least `n_steps` products, for
        `Krylov.probe`.
        """
        if not isinstance(i, (int, np.integer)) or i < 0:
            raise ValueError(f"i must be the number of a probe, an int >= 0, got {short_repr(i)}.")
        while len(self.probes) <= i:
            self.reserve(self.reduced_operator, None, n_steps)
            run = Recurrence(self.reduced_operator, min(n_steps, self.reduced_operator.shape[0]))
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
        """Return the number of products of the run from the start vector g, or of the first run
        from a random start if g is None, or 0 if there is no such run.
        """
        return next((run.m for start, run in self.by_start if np.array_equal(start, g)), 0)

    def extend_from(self, g: Array, n_steps: int) -> Recurrence:
        """Return the run from the start vector g, extended to at least `n_steps` products, for
        `Krylov.extend_from`.
        """
        g = check_vector(g, self.n, "g")
        if not g.any():
            raise ValueError("g must not be zero, got a vector of zeros.")
        for start, run in self.by_start:  # noqa: B007  used where the loop is left
            if np.array_equal(start, g):
                break
        else:
            self.reserve(self.op, None, n_steps)
            run = Recurrence(self.op, min(n_steps, self.n))
            run.insert((g / np.abs(g).max()).astype(self.dtype)[None])
            self.by_start.append((g.copy(), run))
        self.extend_run(run, n_steps)
        return run


class Krylov(ReadOnlyMixin, made_by="fastcurv.spectrum.Krylov"):
    """Lanczos runs on one operator whose products are shared by eigenpairs, densities and verdicts.

    The first run starts from a direction that is uniform on the sphere, as the bounds on the
    probability of missing an eigenvalue require; these bounds do not hold for vectors of signs,
    since an eigenvector with few entries can be orthogonal to them. Further random runs are started
    when a density needs more probes, and others from given vectors. Runs are never restarted, so
    each can be extended, and each keeps its basis: memory is one vector of length n for every
    product.

    Threads may share a `Krylov` object: each call waits until the others have ended. A call from
    within a product of its own operator, or from a signal handler or finaliser that interrupts a
    call, raises `RuntimeError`.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric.
    name : str
        The name that results store in ``krylov_name``: results with the same name use the same
        products.
    seed : None, int or numpy.random.Generator
        Seed of the random choices; the same number gives bitwise identical results.
    max_bytes : int
        Limit on the memory of all bases together; a method that would exceed the limit raises
        `MemoryError` and leaves the runs unchanged.
    space : str, optional
        The space in which the random probes run, as in `eigsh`; by default a smaller one if it
        takes less time according to a cost model. Results are those of `op`.

    Attributes
    ----------
    reduction : Reduction or None
        The smaller operator on which the probes run.
    n_products : int
        Number of products computed so far, by all runs.

    See Also
    --------
    eigsh, spectral_density : the same results from products of their own.

    Examples
    --------
    >>> import numpy as np
    >>> run = Krylov(np.diag(np.arange(100.0)), "demo", seed=0)
    >>> low, high = run.eigsh(1, "SA"), run.eigsh(1, "LA")
    >>> high.n_products == run.n_products and high.krylov_name
    'demo'
    """

    op: Any
    name: str
    rng: np.random.Generator
    n: int
    dtype: np.dtype[Any]
    reduction: Any
    max_bytes: int

    @accept_aliases("Krylov")
    def __init__(
        self,
        op: OperatorLike,
        name: str = "krylov",
        *,
        seed: Seed = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        space: Space | None = None,
    ) -> None:
        self._runs = runs = LanczosRuns(op, name, seed, max_bytes, space)
        self._lock = Lock()
        self.op, self.name, self.n, self.dtype = runs.op, runs.name, runs.n, runs.dtype
        self.rng, self.reduction, self.max_bytes = runs.rng, runs.reduction, runs.max_bytes

    def __repr__(self) -> str:
        steps = [run.m for run in self._runs.probes]
        return (
            f"Krylov({self.name!r}, n = {self.n}, probes of {steps} steps, {self.n_products} "
            "products)"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Krylov keeps the bases of its runs and cannot be copied or saved. Copy its results, "
            "or make another Krylov of the operator."
        )

    @property
    def n_products(self) -> int:
        """The number of products computed so far, by all runs."""
        return self._runs.n_products

    @contextmanager
    def locked(self) -> Iterator[LanczosRuns]:
        """Return a context in which this thread alone uses the runs; other threads wait.

        Yields
        ------
        Runs
            The runs by their start vectors.

        Raises
        ------
        RuntimeError
            If this thread uses them already, further up its stack.

        Examples
        --------
        >>> import numpy as np
        >>> with Krylov(np.diag([1.0, 2.0, 5.0]), seed=0).locked() as runs:
        ...     runs.probe(0, 2).m
        2
        """
        # In a forked process, the runs may be incomplete because another thread was using them.
        if self._lock.lost:
            self._lock, self._runs.by_start = Lock(), []
        try:
            self._lock.__enter__()
        except RuntimeError as error:
            raise RuntimeError(
                f"the Krylov run {self.name!r} must not be used from a product of its own "
                "operator, or from a signal handler or finaliser that interrupts a call of it. "
                "Use another Krylov run there, or call it later."
            ) from error
        try:
            yield self._runs
        finally:
            self._lock.__exit__()

    def probe(self, i: int = 0, n_steps: int = 1, shown: ProgressBar = NO_PROGRESS) -> Recurrence:
        """Return the recurrence of random probe `i`, extended to at least `n_steps` products, in
        the coordinates of `reduction` if there is one. If threads share the run, read the
        recurrence inside `locked`.
        """
        with self.locked() as runs:
            return runs.probe(i, n_steps, shown)

    def n_steps_from(self, g: Any = None) -> int:
        """Return the number of products of the run from the start vector g, or of the first run
        from a random start if g is None, or 0 if there is no such run.
        """
        with self.locked() as runs:
            return runs.n_steps_from(g)

    def extend(self, n_steps: int) -> Krylov:
        """Extend the first probe to at least `n_steps` products and return self."""
        self.probe(0, check_positive_int(n_steps, "n_steps"))
        return self

    @accept_aliases("eigsh")
    def eigsh(
        self,
        k: int = 6,
        which: Which = "LM",
        *,
        tol: float | None = None,
        max_products: int | None = None,
        progress: bool | None = None,
    ) -> Eigenpairs:
        """Compute the k wanted eigenpairs from the first probe, which is extended until they have
        converged.

        Parameters
        ----------
        k, which, tol : int, str, float
            As in `fastcurv.eigsh`. Copies of multiple eigenvalues are not searched for: one start
            finds one copy of each.
        max_products : int, optional
            Maximum number of new products; by default as many as memory allows.
        progress : bool, optional
            Whether to show a progress bar; by default on a terminal, if the work takes more than 2
            s.

        Returns
        -------
        Eigenpairs
            ``n_products`` counts all products used for the pairs, ``n_new_products`` those made by
            this call.
        """
        wanted, tol = check_wanted(k, which, self.n), resolve_tol(tol, self.dtype)
        limit = self.n if max_products is None else check_positive_int(max_products, "max_products")
        with self.locked() as runs, show_bar(None, f"{self.name}: eigsh", progress) as shown:
            before, k = runs.n_products, min(wanted, runs.reduced_operator.shape[0])
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
            found = Eigenpairs(
                values=theta,
                vectors=combine(run.rows[: run.m], S).T,
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
            return found
        whole = complete_pairs(found, self.reduction, wanted, which, np.random.default_rng(0))
        return replace(
            whole,
            n_products=found.n_products,
            krylov_name=found.krylov_name,
            n_new_products=found.n_new_products,
        )

    @accept_aliases("spectral_density")
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
        """Estimate the density from the first random probes of this run.

        Parameters
        ----------
        n_probes : int
            Number of probes. Existing probes take no products.
        n_steps : int, optional
            Minimum number of products of each probe; longer probes are used in full. By default the
            length of the first probe, at least 80.
        axis : str
            ``"linear"`` or ``"log"``.
        width, grid, n_grid, linear_below : float, array_like, int, float
            As in `fastcurv.spectral_density`.
        progress : bool, optional
            Whether to show a progress bar.

        Returns
        -------
        SpectralDensity
            The density; ``n_new_products`` counts the products made by this call.
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
        """Return the run from the nonzero start vector g ``(n,)``, extended to at least n_steps.
        The run is created if it does not exist. If threads share the Krylov object, read the run
        inside `locked`.
        """
        with self.locked() as runs:
            return runs.extend_from(g, n_steps)
