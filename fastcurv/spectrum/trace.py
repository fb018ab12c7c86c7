"""Trace, diagonal and Frobenius norm of an operator from products with random vectors, with
standard errors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np

from ..answers import own_names
from ..checks import (
    check_choice,
    check_positive_int,
    check_symmetric_operator,
    either_seed,
    old_name,
)
from ..progress import bar
from ..protocols import Diagonals, Norming, Operator, Seed, Space, Tracing, Written
from ..runtime import to_nearest
from ..vectors import safe_norm
from .probing import BLOCK, Counted, from_sums, outside, sketched, squares_of
from .reduced import reduction
from .results import Estimate, mean_of
from .sketch import Sketch

LEAST = 12  # applications from which on a sketch, of half of them, tells its own error


@own_names("estimate")
@to_nearest
def trace(
    op: Operator,
    n_probes: int | None = None,
    method: Tracing = "auto",
    seed: Seed = None,
    *,
    rng: Seed = None,
    progress: bool | None = None,
    n_samples: int | None = None,
    space: Space | None = None,
) -> Estimate:
    """The trace of a symmetric operator, estimated from `n_probes` products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric. ``op.quadratic(V)`` is used for ``v'Hv`` where it exists, at half the price
        of a product.
    n_probes : int
        Applications of the operator, products and quadratic forms alike; default 60. Its old name,
        n_samples, still works.
    method : str
        ``"hutchinson"``: the mean of ``v'Hv`` over random signs v, or, from fewer than 11 samples,
        over random directions of length ``sqrt(n)``. ``"hutch++"``: exact on the range of
        ``n_probes / 3`` products, fewer below 31, Hutchinson on the rest; far better where few
        eigenvalues dominate. ``"xtrace"``: the same idea with every sample in every role, best of
        all, at the cost of n_probes vectors in memory. ``"auto"``: Hutchinson where
        ``op.quadratic`` exists and below 12 samples, else XTrace. From n samples on it is exact: n
        products.
    seed : None, int or numpy.random.Generator
        Of the random choices; the same number, the same bits.
    rng : None, int or numpy.random.Generator
        Another name of `seed`, as SciPy has it.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s.
    space : str, optional
        ``"samples"``, ``"outputs"``, ``"inputs"`` or ``"parameters"``, as in `eigsh`. From the
        Gram matrix of the outputs it is exact, by ``"auto"``, at no product.

    Returns
    -------
    Estimate
        ``estimate, stderr, n_products``. Two standard errors cover the truth 19 times in 20: they
        are widened by Student's t where samples are few, where few samples carry the sum, and for
        leave-one-out estimates by their correlation and by what each leaves out. Fewer than 11
        signs could all be alike, and show no scatter, where few coordinates couple: so few samples
        are of any direction, and their errors are as large as what they show is little.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

    See Also
    --------
    diagonal, frobenius_norm : likewise.
    spectral_density : more of the spectrum from as many products.

    References
    ----------
    .. [1] R. Meyer, C. Musco, C. Musco and D. Woodruff, Hutch++, SOSA 2021.
    .. [2] E. Epperly, J. Tropp and R. Webber, XTrace, SIAM J. Matrix Anal. Appl. 45 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> t = trace(np.diag(np.arange(50.0)), n_probes=50)
    >>> float(t), t.stderr, t.n_products
    (1225.0, 0.0, 50)
    """
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples)
    check_choice(method, get_args(Tracing), "method")
    small = reduction(op, space)
    if small is None:
        return _trace(op, m, method, rng, progress)
    if method == "auto" and isinstance(small, Written):
        known = float(np.trace(small.matrix)) + small.rest * small.n_rest
        return Estimate(known, 0.0, 0, method="exact", space=small.space)
    found = _trace(small, m, method, rng, progress)
    total = found.estimate + small.rest * small.n_rest
    return replace(found, estimate=total, space=small.space)


def _trace(
    op: Any, m: int, method: str, rng: np.random.Generator, progress: bool | None
) -> Estimate:
    """`trace`, its arguments checked."""
    apply = Counted(op)
    if apply.exactly(m, method):
        return apply.estimate(apply.exact_diagonal().sum(), 0.0, "exact")
    if method == "auto":
        method = "hutchinson" if apply.has_quadratic or m < LEAST else "xtrace"
    with bar(m, "trace", progress) as apply.shown:
        if method == "hutchinson":
            return apply.estimate(*apply.hutchinson(rng, m), method)
        if method == "hutch++":
            return _hutch_pp(apply, rng, m)
        return apply.estimate(*Sketch(apply, rng, m).trace(), method)


@own_names("estimate")
@to_nearest
def diagonal(
    op: Operator,
    n_probes: int | None = None,
    method: Diagonals = "auto",
    seed: Seed = None,
    *,
    rng: Seed = None,
    progress: bool | None = None,
    n_samples: int | None = None,
) -> Estimate:
    """The diagonal of a symmetric operator, estimated from `n_probes` products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric.
    n_probes : int
        Products; default 60. Its old name, n_samples, still works.
    method : str
        ``"hutchinson"``: the mean of ``v * Hv`` over random signs v. ``"xdiag"``: exact on the
        range of half of the products, leave-one-out on the rest. ``"auto"``: ``"xdiag"`` from
        12 samples on. From n samples on it is exact: n products.
    seed : None, int or numpy.random.Generator
        Of the random choices; the same number, the same bits.
    rng : None, int or numpy.random.Generator
        Another name of `seed`, as SciPy has it.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s.

    Returns
    -------
    Estimate
        ``estimate (n,), stderr (n,), n_products``; errors as for `trace`, entry by entry, from 18
        samples on. With fewer, two standard errors of ``"xdiag"`` cover 9 times in 10 where n is
        hardly more and the operator all but diagonal, and those of ``"hutchinson"`` show nothing in
        an entry whose few signs are all alike.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

    See Also
    --------
    trace, frobenius_norm : likewise.
    spectral_density : more of the spectrum from as many products.

    References
    ----------
    .. [1] E. Epperly, J. Tropp and R. Webber, XTrace, SIAM J. Matrix Anal. Appl. 45 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> diagonal(np.diag([1.0, 2.0, 3.0]), n_probes=3).estimate
    array([1., 2., 3.])
    """
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples)
    check_choice(method, get_args(Diagonals), "method")
    apply = Counted(op)
    if apply.exactly(m, method):
        return apply.estimate(apply.exact_diagonal(), np.zeros(apply.n), "exact")
    if method == "auto":
        method = "xdiag" if m >= LEAST else "hutchinson"
    with bar(m, "diagonal", progress) as apply.shown:
        if method == "xdiag":
            return apply.estimate(*Sketch(apply, rng, m).diagonals(), method)
        total, squares = np.zeros(apply.n), np.zeros(apply.n)
        for V in apply.probes(rng, m, signs=True):
            samples = V.astype(np.float64) * apply.products(V)
            total += samples.sum(axis=0)
            squares += (samples**2).sum(axis=0)
        return apply.estimate(*from_sums(total, squares, m), method)


@own_names("estimate")
@to_nearest
def frobenius_norm(
    op: Operator,
    n_probes: int | None = None,
    method: Norming = "auto",
    seed: Seed = None,
    *,
    rng: Seed = None,
    progress: bool | None = None,
    n_samples: int | None = None,
    space: Space | None = None,
) -> Estimate:
    """The Frobenius norm of a symmetric operator, the root of the sum of its squared eigenvalues.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric.
    n_probes : int
        Products; default 60. Its old name, n_samples, still works.
    method : str
        ``"hutchinson"``: from the mean of ``||Hv||^2`` over v as in `trace`. ``"hutch++"``: exact
        on the range of a third of the products. ``"auto"``: ``"hutch++"`` from 12 samples on.
        From n samples on it is exact: n products.
    seed : None, int or numpy.random.Generator
        Of the random choices; the same number, the same bits.
    rng : None, int or numpy.random.Generator
        Another name of `seed`, as SciPy has it.
    progress : bool, optional
        Whether to show a bar; by default on a terminal, where the work takes more than 2 s.
    space : str, optional
        ``"samples"``, ``"outputs"``, ``"inputs"`` or ``"parameters"``, as in `eigsh`. From the
        Gram matrix of the outputs it is exact, by ``"auto"``, at no product.

    Returns
    -------
    Estimate
        The square is unbiased, the root is biased by about ``-stderr**2 / (2 estimate)``; errors as
        for `trace`.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

    See Also
    --------
    trace, diagonal : likewise.
    spectral_density : more of the spectrum from as many products.

    Examples
    --------
    >>> import numpy as np
    >>> float(frobenius_norm(np.diag([3.0, 4.0]), n_probes=2))
    5.0
    """
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples)
    check_choice(method, get_args(Norming), "method")
    small = reduction(op, space)
    if small is None:
        return _frobenius_norm(op, m, method, rng, progress)
    if method == "auto" and isinstance(small, Written):
        known = float(np.hypot(safe_norm(small.matrix), small.n_rest**0.5 * small.rest))
        return Estimate(known, 0.0, 0, method="exact", space=small.space)
    found = _frobenius_norm(small, m, method, rng, progress)
    inner = float(found.estimate)
    norm = float(np.hypot(inner, small.n_rest**0.5 * small.rest))
    share = inner / norm if norm else 1.0
    return replace(found, estimate=norm, stderr=share * found.stderr, space=small.space)


def _frobenius_norm(
    op: Any, m: int, method: str, rng: np.random.Generator, progress: bool | None
) -> Estimate:
    """`frobenius_norm`, its arguments checked."""
    apply = Counted(op)
    with bar(m, "frobenius_norm", progress) as apply.shown:
        if apply.exactly(m, method):
            square, error, method = (
                sum(squares_of(apply.products(E)).sum() for E in apply.unit_rows()),
                0.0,
                "exact",
            )
        elif method == "hutch++" or (method == "auto" and m >= LEAST):
            method = "hutch++"
            Q = apply.range(rng, sketched(m))
            known = squares_of(apply.products(Q)).sum()
            rest, error = mean_of(
                np.concatenate(
                    [
                        squares_of(apply.products(outside(Q, V)))
                        for V in apply.probes(rng, m - 2 * sketched(m))
                    ]
                )
            )
            square = known + rest
        else:
            method = "hutchinson"
            square, error = mean_of(
                np.concatenate([squares_of(apply.products(V)) for V in apply.probes(rng, m)])
            )
    norm = max(float(square), 0.0) ** 0.5
    # the root of what lies 2 errors below is further from the norm than the slope there says
    least = max(norm**2 - 2 * error, 0.0) ** 0.5
    return apply.estimate(norm, error / (norm + least) if error > 0 else 0.0, method)


def _asked(
    op: Operator,
    n_probes: int | None,
    seed: Seed,
    rng: Seed,
    n_samples: int | None,
) -> tuple[Any, int, np.random.Generator]:
    """The operator, the number of probes and the generator, checked; old names told."""
    op = check_symmetric_operator(op)
    n_probes = old_name("n_samples", n_samples, "n_probes", n_probes)
    m = check_positive_int(60 if n_probes is None else n_probes, "n_probes")
    return op, m, either_seed(seed, rng)


def _hutch_pp(apply: Counted, rng: np.random.Generator, m: int) -> Estimate:
    """Exact on the range of a third of the products, Hutchinson outside it."""
    if m < 4:
        raise ValueError(
            f"n_probes is {m}; wanted at least 4 for method='hutch++', or method='hutchinson'"
        )
    Q = apply.range(rng, sketched(m))
    known = float(sum(apply.forms(Q[i : i + BLOCK]).sum() for i in range(0, len(Q), BLOCK)))
    rest = np.concatenate(
        [apply.forms(outside(Q, V)) for V in apply.probes(rng, m - sketched(m) - len(Q))]
    )
    mean, error = mean_of(rest)
    return apply.estimate(known + mean, error, "hutch++")
