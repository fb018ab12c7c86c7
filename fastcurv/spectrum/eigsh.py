"""The extreme eigenpairs of a symmetric operator by restarted Lanczos, each with a bound on its
error.
"""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from ..answers import own_names
from ..checks import check_choice, check_positive_int, check_symmetric_operator, either_seed
from ..krylov.ritz import check_wanted
from ..protocols import Castable, Operator, Seed, Space, Which
from ..runtime import to_nearest
from .asked import Asked
from .mixed_precision import mixed_pairs
from .reduced import reduced_pairs, reduction, settled
from .results import Eigenpairs
from .search import extreme_pairs


@own_names("eigsh")
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
    """The k extreme eigenpairs of a symmetric operator, each with a bound on its error.

    Thick-restart Lanczos with full reorthogonalisation, and again from a new random start, beside
    all that is known, until no copy of a multiple eigenvalue is left. Up to n = 64, and where a
    search would cost more than that, from the whole matrix.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric. Costs products with it and nothing else; ``op.product(v, out)`` is used
        where it exists. From the whole matrix the vectors of a block are multiplied at once.
    k : int
        How many, 1 <= k <= n.
    which : str
        ``"LM"`` largest magnitude, the default as in SciPy; ``"LA"`` largest algebraic, ``"SA"``
        smallest algebraic, ``"BE"`` k//2 from the low end and the rest from the high end.
    tol : float, optional
        Wanted residual ``||H u - lam u||``, relative to the largest ``|lam|`` seen. Default 1e-8 in
        float64 and 2e-5 in float32; not taken below ``16 eps``. The error of an eigenvalue is at
        most its residual, and usually of the order of its square.
    relative : str
        ``"scale"``: the tolerance is relative to the largest ``|lam|`` seen. ``"value"``: to each
        ``|lam|`` of its own, as in ARPACK, which asks more of small eigenvalues under a large one.
    max_products : int, optional
        Stop after this many products and return what is known, with honest flags. Default ``20 n``,
        at least 1000.
    max_basis : int, optional
        Vectors of length n kept at most, at least ``k + 3`` where n allows. Memory is about
        ``(max_basis + k + 2) n`` numbers, and another ``8 n`` where blocks are needed. Default: 512
        MB worth, at least ``2 k + 20``, at most 300 and n.
    v0 : ndarray, shape (n,) or (n, j), optional
        Where to start. Columns that are right already cost one product each; the first third of
        what `max_basis` leaves beside k are used. A start from `v0` is trusted: `probe` is then off
        unless asked for.
    against : ndarray, shape (n, s), or Eigenpairs, optional
        The operator is restricted to the complement of these vectors; `residuals` are those of the
        operator itself.
    precision : str, optional
        ``"mixed"``: Krylov in float32 by ``op.astype("float32")``, then pairs confirmed and, where
        needed, refined by a few float64 products. Which pairs are the extreme ones is seen in
        float32: values closer than its tolerance may stand for one another, as `unseen` says.
    probe : bool, optional
        Whether to look with new random starts for copies of multiple eigenvalues, of which one
        start sees one each. Each goes on until it would have shown a copy of any wanted value but
        the innermost, at a risk of 0.3%. Where there is none it adds a sixth to the products, as a
        rule, and at most a quarter, or 4 of them: where that is too little `unseen` of the result,
        and its repr, say what is left open. Default: unless `v0` is given. Where the spectrum is
        known to be simple, ``probe=False`` saves that: from the same start the search then takes no
        more products than ARPACK's, which restarts in a smaller basis.
    space : str, optional
        ``"samples"``, ``"outputs"``, ``"inputs"`` or ``"parameters"``: where the vectors lie. A
        Hessian over fewer rows than it has units is a smaller operator in the space of what its
        products can reach, exactly, see `fastcurv.network.sample_space`; a GGN or Fisher with fewer
        pairs of row and class than parameters has the eigenvalues of their Gram matrix, see
        `fastcurv.network.output_space`; a curvature whose X has constant or dependent columns, or
        more columns than rows, is that of a net with fewer inputs, see
        `fastcurv.network.input_space`. By default they are used where that is faster by a model of
        the cost; `vectors` are then made when they are first asked for.
    seed : None, int or numpy.random.Generator
        Of the random choices; the same number, the same bits.
    rng : None, int or numpy.random.Generator
        Another name of `seed`, as SciPy has it.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s.

    Returns
    -------
    Eigenpairs
        ``values (k,)`` ascending, ``vectors (n, k)``, ``residuals (k,)``, ``converged (k,)``,
        ``n_products``; unpacks as in SciPy, ``w, V = eigsh(H)``. Some eigenvalue lies within
        ``residuals[i]`` of ``values[i]``; that these are the k wanted, copies of multiple
        eigenvalues among them, is seen at a risk and not certified: where a copy is missing, others
        further in stand in its place, within `unseen` at a risk of 5%. Fewer than k where the
        budget or Ctrl-C ended the run before k products. Residuals are those of the products as
        computed: for an enclosure add the operator's own rounding bound. Asymmetry that the
        products show is in them, and named in `asymmetry`: the operator must be symmetric for more
        than that to be said.

    Raises
    ------
    ValueError, TypeError
        Where an argument is not as above, or the operator returns NaN or infinity.

    See Also
    --------
    eigvalsh, inertia : all of them, for small n.
    spectral_density : how all of them are spread, for large n.
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
    asked = Asked(
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
    generator = either_seed(seed, rng)
    wide = op.astype("float64") if precision is not None and isinstance(op, Castable) else op
    small = reduction(wide, space)
    if small is not None:
        pairs = reduced_pairs(run, small, asked, generator, v0, against)
        if pairs is not None and (space or settled(pairs)):
            return pairs
    return run(op, asked, generator, v0, against)
