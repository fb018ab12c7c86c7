"""The extreme eigenpairs of a symmetric operator by restarted Lanczos, each with a bound on its
error.
"""

import numpy as np

from ..checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    check_symmetric_operator,
    check_vectors,
    operator_dtype,
)
from ..krylov.basis import orthonormal_rows
from ..krylov.lanczos import Recurrence
from ..progress import bar
from .search import Search

MAX_BASIS_BYTES = 512 << 20
DEFAULT_TOL = {"float64": 1e-8, "float32": 2e-5}


def eigsh(
    op,
    k=6,
    which="LA",
    *,
    tol=None,
    relative="scale",
    max_products=None,
    max_basis=None,
    v0=None,
    against=None,
    precision=None,
    probe=None,
    seed=None,
    progress=False,
):
    """The k extreme eigenpairs of a symmetric operator, each with a bound on its error.

    Thick-restart Lanczos with full reorthogonalisation. One vector at a time; where a second random
    start shows that copies of a multiple eigenvalue were missed, blocks.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric. Costs products with it and nothing else; ``op.product(v, out)`` is used
        where it exists.
    k : int
        How many, 1 <= k <= n.
    which : str
        ``"LA"`` largest algebraic, ``"SA"`` smallest algebraic, ``"LM"`` largest magnitude,
        ``"BE"`` k//2 from the low end and the rest from the high end.
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
        what `max_basis` leaves beside k are used. A start from `v0` is trusted: `probe` is then off unless asked for.
    against : ndarray, shape (n, s), or Eigenpairs, optional
        The operator is restricted to the complement of these vectors; `residuals` are those of the
        operator itself.
    precision : str, optional
        ``"mixed"``: Krylov in float32 by ``op.astype("float32")``, then pairs confirmed and, where
        needed, refined by a few float64 products.
    probe : bool, optional
        Whether to look with a second random start for copies of multiple eigenvalues, which one
        start cannot see. It adds at most a twelfth to the products, or 4 of them, and so sees
        clusters and outliers, not every pair. Default: unless `v0` is given. Where the spectrum is
        known to be simple, ``probe=False`` saves that: from the same start the search then takes no
        more products than ARPACK's, which restarts in a smaller basis.
    seed : None, int or numpy.random.Generator
    progress : bool

    Returns
    -------
    Eigenpairs
        ``values (k,)`` ascending, ``vectors (n, k)``, ``residuals (k,)``, ``converged (k,)``,
        ``n_products``. Some eigenvalue lies within ``residuals[i]`` of ``values[i]``; multiplicity
        is looked for and not certified. Fewer than k where the budget or Ctrl-C ended the run
        before k products. Residuals are those of the products as computed: for an enclosure add the
        operator's own rounding bound.

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
        from .mixed_precision import eigsh_mixed

        return eigsh_mixed(
            op,
            k,
            which,
            tol=tol,
            relative=relative,
            max_products=max_products,
            max_basis=max_basis,
            v0=v0,
            against=against,
            probe=probe,
            seed=seed,
            progress=progress,
        )
    deflated = orthonormal_rows(against, n, dtype)
    if k > n - (0 if deflated is None else len(deflated)):
        raise ValueError(
            f"k is {k} and the complement of against has dimension {n - len(deflated)}; wanted k "
            "no larger"
        )
    max_products = (
        max(1000, 20 * n)
        if max_products is None
        else check_positive_int(max_products, "max_products")
    )
    tol = resolve_tol(tol, dtype)
    loose = (
        0.1 if relative == "scale" else 0.03
    )  # its square, times the largest |lam|, becomes part of every residual
    run = Recurrence(
        op,
        resolve_max_basis(max_basis, k, n, dtype),
        against=deflated,
        contamination=min(max(loose * tol**0.5, float(np.finfo(dtype).eps) ** 0.5), 0.03 * loose),
    )
    start = None if v0 is None else check_vectors(v0, n, "v0", dtype).T.copy()
    with bar(None, "eigsh", progress) as shown:
        probe = v0 is None if probe is None else bool(probe)
        search = Search(run, k, which, tol, relative, max_products, as_rng(seed), probe, shown)
        return search.solve(start)


def resolve_tol(tol, dtype):
    """The tolerance that is worked to: the default where None, never below 16 eps."""
    eps = float(np.finfo(dtype).eps)
    return max(
        DEFAULT_TOL[dtype.name] if tol is None else check_positive(tol, "tol", zero=True), 16 * eps
    )


def resolve_max_basis(max_basis, k, n, dtype):
    """How many vectors may be kept."""
    if max_basis is None:
        return min(n, max(2 * k + 20, min(300, MAX_BASIS_BYTES // (n * dtype.itemsize))))
    max_basis = check_positive_int(max_basis, "max_basis")
    if max_basis < min(n, k + 3):
        raise ValueError(
            f"max_basis is {max_basis} with k = {k}; wanted at least k + 3 = {k + 3}, or n where "
            "that is less"
        )
    return min(n, max_basis)
