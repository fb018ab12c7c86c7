"""A named run of Lanczos that serves many questions about one operator without making a product
twice.
"""

import numpy as np

from ..checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    check_symmetric_operator,
    check_vector,
    operator_dtype,
)
from ..krylov.basis import column_lengths, combine
from ..krylov.lanczos import Recurrence
from ..krylov.ritz import bounds, decompose, ritz_pairs
from ..progress import bar
from .density import assemble, extend, quadrature
from .eigsh import resolve_tol
from .results import Eigenpairs, Extremes
from .smoothing import check_look

MAX_BYTES = 4 << 30


class Krylov:
    """Lanczos runs on one operator, kept: eigenpairs, density, steps and bounds from the same
    products.

    The first run starts from a random direction, each as likely as any other: what bounds on the
    risk of missing an eigenvalue rest on, and what vectors of signs, which an eigenvector of few
    entries can escape, do not offer. Further random starts are made when a density asks for more
    probes, and others from the vectors that steps ask for. Runs are never restarted, so each can be
    extended, and each keeps its basis: memory is one vector of length n for every product.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric.
    name : str
        Results carry it in ``shared``: those with the same name rest on the same products.
    seed : None, int or numpy.random.Generator
    max_bytes : int
        What all bases together may take; past it a method raises `MemoryError` and leaves the runs
        as they are.

    Attributes
    ----------
    n_products : int
        Products made so far, by all runs.

    Examples
    --------
    >>> import numpy as np
    >>> run = Krylov(np.diag(np.arange(100.0)), "demo", seed=0)
    >>> low, high = run.eigsh(1, "SA"), run.eigsh(1, "LA")
    >>> high.n_products == run.n_products and high.shared
    'demo'
    """

    def __init__(self, op, name="krylov", *, seed=0, max_bytes=MAX_BYTES):
        self.op, self.name, self.rng = check_symmetric_operator(op), str(name), as_rng(seed)
        self.n, self.dtype = self.op.shape[0], operator_dtype(self.op)
        self.max_bytes = check_positive_int(max_bytes, "max_bytes")
        self._probes, self._others = [], []

    def __repr__(self):
        steps = [run.m for run in self._probes]
        return (
            f"Krylov({self.name!r}, n = {self.n}, probes of {steps} steps, {self.n_products} "
            "products)"
        )

    @property
    def n_products(self):
        return sum(run.n_products for run in self._runs())

    def _runs(self):
        return self._probes + [run for _, run in self._others]

    def _reserve(self, run, steps):
        """Room for `steps` products in a run, or MemoryError."""
        steps = min(steps, self.n)
        if run is not None and run.capacity >= steps:
            return
        held = sum(one.rows.nbytes for one in self._runs() if one is not run)
        if held + (steps + 1) * self.n * self.dtype.itemsize > self.max_bytes:
            raise MemoryError(
                f"a basis of {steps} vectors of length {self.n} next to the {held / 1e9:.2g} GB "
                "held takes "
                f"the runs past max_bytes = {self.max_bytes / 1e9:.2g} GB; wanted fewer steps, or "
                "more memory"
            )
        if run is not None:
            run.reserve(steps)

    def probe(self, i=0, n_steps=1, shown=None):
        """Random probe `i`, extended to at least `n_steps` products; returns its recurrence."""
        while len(self._probes) <= i:
            self._reserve(None, n_steps)
            run = Recurrence(self.op, min(n_steps, self.n))
            run.insert_random(self.rng)
            self._probes.append(run)
        self._grow(self._probes[i], n_steps, shown)
        return self._probes[i]

    def _grow(self, run, n_steps, shown=None):
        if run.p and run.m < n_steps:
            self._reserve(run, n_steps)
            with bar() as silent:
                extend(run, n_steps, shown or silent)

    def steps_from(self, g=None):
        """How many products there are from the first random start, or from `g`."""
        if g is None:
            return self._probes[0].m if self._probes else 0
        return next((run.m for start, run in self._others if np.array_equal(start, g)), 0)

    def extend(self, n_steps):
        """Take the first probe to at least `n_steps` products; returns self."""
        self.probe(0, check_positive_int(n_steps, "n_steps"))
        return self

    def eigsh(self, k=6, which="LA", *, tol=None, max_products=None, progress=False):
        """The k extreme eigenpairs from the first probe, which is extended until they are
        converged.

        Parameters
        ----------
        k, which, tol
            As in `fastcurv.eigsh`. Copies of multiple eigenvalues are not looked for: one start
            shows one of each.
        max_products : int, optional
            New products at most; default: as many as memory holds.
        progress : bool

        Returns
        -------
        Eigenpairs
            ``n_products`` are all that the pairs rest on, ``n_new`` those made by this call.
        """
        k = check_positive_int(k, "k")
        check_choice(which, ("LA", "SA", "LM", "BE"), "which")
        if k > self.n:
            raise ValueError(f"k is {k} and the operator has n = {self.n}; wanted k <= n")
        tol = resolve_tol(tol, self.dtype)
        before = self.n_products
        limit = self.n if max_products is None else check_positive_int(max_products, "max_products")
        run = self.probe(0, min(k, limit))
        limit += run.m - (self.n_products - before)
        with bar(None, f"{self.name}: eigsh", progress) as shown:
            while True:
                theta, S, residuals = ritz_pairs(run, k, which)
                limits = bounds(run, S, residuals)
                target = max(tol * run.scale, 2 * run.noise)
                if run.m >= limit or not run.p or (len(theta) == k and (residuals <= target).all()):
                    break
                try:
                    self._grow(run, min(limit, run.m + max(2, run.m // 10)), shown)
                except MemoryError:
                    break
        run.reorthogonalise()
        return Eigenpairs(
            values=theta,
            vectors=combine(run.rows[: run.m], S).T,
            residuals=limits,
            tol=tol,
            converged=limits <= tol * run.scale,
            n_products=run.m,
            scale=run.scale,
            shared=self.name,
            n_new=self.n_products - before,
        )

    def spectral_density(
        self,
        n_probes=1,
        n_steps=None,
        *,
        axis="linear",
        width=None,
        grid=None,
        n_grid=1024,
        linear_below=None,
        progress=False,
    ):
        """The density from the first `n_probes` random probes, each taken to at least `n_steps`
        products.

        Probes that are there already cost nothing, and those that went further are used in full.
        Default n_steps: what the first probe has, at least 80. The rest is as in
        `fastcurv.spectral_density`.
        """
        n_probes = check_positive_int(n_probes, "n_probes")
        if n_steps is None:
            n_steps = max(80, self._probes[0].m if self._probes else 0)
        n_steps = check_positive_int(n_steps, "n_steps")
        look = check_look(axis, width, grid, n_grid, linear_below)
        before = self.n_products
        with bar(n_probes * n_steps, f"{self.name}: density", progress) as shown:
            runs = [self.probe(i, n_steps, shown) for i in range(n_probes)]
        return assemble(
            [quadrature(run) for run in runs],
            None,
            self.n,
            sum(run.m for run in runs),
            max(run.ghosts for run in runs),
            look,
            shared=self.name,
            n_new=self.n_products - before,
        )

    def step(self, g=None, *, damping=1e-3, kind="saddle-free", n_steps=50):
        """A step to add to theta from the Krylov space of g, which is kept for other dampings and
        kinds.

        Parameters
        ----------
        g : ndarray, shape (n,), optional
            The gradient; default ``op.gradient``.
        damping : float
            Added to the Ritz values, or to their absolute values, in units of eigenvalues.
        kind : str
            ``"saddle-free"``: ``-(|H| + damping)^-1 g`` in the space. ``"newton"``: ``-(H +
            damping)^-1 g``.
        n_steps : int
            Products with this g, fewer where its Krylov space ends early.

        Returns
        -------
        ndarray, shape (n,)
        """
        check_choice(kind, ("saddle-free", "newton"), "kind")
        damping = check_positive(damping, "damping", zero=True)
        if g is None:
            g = getattr(self.op, "gradient", None)
            if g is None:
                raise ValueError(
                    "g is None and the operator has no gradient; wanted g of shape (n,)"
                )
        g = check_vector(g, self.n, "g")
        length = float(np.linalg.norm(g.astype(np.float64)))
        if length == 0:
            return np.zeros(self.n, self.dtype)
        run = self.start_from(g, check_positive_int(n_steps, "n_steps"))
        theta, S = decompose(run)
        curvature = (np.abs(theta) if kind == "saddle-free" else theta) + damping
        sure = np.abs(curvature) > run.m * run.noise
        y = S[:, sure] @ (S[0, sure] / curvature[sure])
        run.reorthogonalise()
        return combine(run.rows[: run.m], -length * y[:, None])[0]

    def start_from(self, g, n_steps):
        """The run that starts from g, made or found, with at least n_steps."""
        for start, run in self._others:
            if np.array_equal(start, g):
                break
        else:
            self._reserve(None, n_steps)
            run = Recurrence(self.op, min(n_steps, self.n))
            run.insert((g / np.abs(g).max()).astype(self.dtype)[None])
            self._others.append((g.copy(), run))
        self._grow(run, n_steps)
        return run

    def extremes(self, curvature_tol=1e-4, n_steps=None):
        """Both ends of the spectrum as far as the first probe has seen them, for a verdict.

        Parameters
        ----------
        curvature_tol : float
            The eps of the risk: see `Extremes`.
        n_steps : int, optional
            Take the first probe to at least this many products before.

        Returns
        -------
        Extremes

        References
        ----------
        .. [1] J. Kuczynski and H. Wozniakowski, Estimating the largest eigenvalue by the power and Lanczos algorithms
           with a random start, SIAM J. Matrix Anal. Appl. 13 (1992).
        """
        eps = check_positive(curvature_tol, "curvature_tol")
        before = self.n_products
        run = self.probe(0, 1 if n_steps is None else check_positive_int(n_steps, "n_steps"))
        theta, S = decompose(run)
        residuals = column_lengths(run.coupling() @ S) if run.p else np.zeros(len(theta))
        limits = bounds(run, S, residuals)
        run.reorthogonalise()
        low, high = combine(run.rows[: run.m], S[:, [0, -1]])
        error = float(np.linalg.norm(run.err[: run.m]))
        risk = (
            min(1.0, 1.648 * self.n**0.5 * float(np.exp(-(2 * run.m - 1) * eps**0.5)))
            if run.p
            else 0.0
        )
        return Extremes(
            lambda_min=float(theta[0]),
            lambda_max=float(theta[-1]),
            residual_min=float(limits[0]),
            residual_max=float(limits[-1]),
            lowest=low,
            highest=high,
            error=error,
            n_negative=int((theta < -error).sum()),
            n_positive=int((theta > error).sum()),
            risk=risk,
            curvature_tol=eps,
            n_products=run.m,
            n_new=self.n_products - before,
            shared=self.name,
        )
