"""The density of all eigenvalues from a few random probes: stochastic Lanczos quadrature."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import (
    as_rng,
    check_positive_int,
)
from ..common.linalg import eigvalsh
from ..common.progress import ProgressBar, show_bar
from ..common.protocols import (
    Array,
    Axis,
    Floats,
    OperatorLike,
    Seed,
)
from ..common.runtime import with_nearest_rounding
from ..krylov.lanczos import (
    Recurrence,
    aligned_rows,
    combine_basis_rows,
    memory_owner,
    orthonormalise,
)
from ..network.gram import gram_matrix
from .density_curve import SpectralDensity
from .forms import as_operand, matrix_of
from .smoothing import check_grid_options, smooth_density

DEFLATION_MAX_N = 100_000  # maximum number of rows for which outliers are deflated by default
# maximum number of rows of a Gram matrix of which all eigenvalues are computed
ALL_EIGENVALUES_MAX_N = 2048
PROGRESS_INTERVAL_SECONDS = 0.1  # time between two updates of the progress bar
# An outlier is deflated if its residual is at most this fraction of its distance from the bulk.
MAX_OUTLIER_RESIDUAL_RATIO = 0.05
# Error of a node, in eps times the largest node. If all n eigenvalues are computed, n is used
# instead where it is larger; see `eigvalsh`.
NODE_ERROR_EPS = 64


@with_nearest_rounding
def spectral_density(
    op: OperatorLike,
    n_probes: int = 10,
    n_steps: int = 80,
    *,
    rng: Seed = None,
    axis: Axis = "linear",
    width: float | None = None,
    grid: ArrayLike | None = None,
    n_grid: int = 1024,
    progress: bool | None = None,
) -> SpectralDensity:
    """Estimate the density of the eigenvalues of a symmetric operator, with a standard error.

    Each probe is a vector of random signs. `n_steps` Lanczos steps started from a probe give a
    Gauss quadrature, whose nodes and weights represent the spectrum weighted by the squared
    components of the probe. The mean over probes is an unbiased estimate of the average of any
    polynomial of degree less than ``2 n_steps`` over the eigenvalues. All eigenvalues are computed
    instead, with standard errors of 0 and ``n_deflated = n``, from the matrix of a small network or
    of at most 64 rows, and from the Gram matrix of a GGN or Fisher with fewer outputs of all
    samples than parameters, at most 2048 and ``n_probes * n_steps``.

    Up to n = 100 000, the outliers that the first probe found are deflated from the other probes.
    They then enter the density exactly, with weight 1/n each, and their part of the noise, which is
    most of the noise if a few eigenvalues dominate, is removed without further products. If the
    other probes find further copies of an outlier, which the first probe cannot find, the first
    probe is left out.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator.
    n_probes, n_steps : int
        Number of probes, and number of Lanczos steps from each probe. The cost is ``n_probes *
        n_steps`` products, or fewer if a Krylov space is exhausted, and memory for n_steps + 1
        vectors. These are kept orthogonal to within ``sqrt(eps)``, so that no spurious copies of
        eigenvalues (ghosts) appear.
    rng : None, int or numpy.random.Generator
        Seed of the random choices; the same number gives bitwise identical results.
    axis : str
        If ``"linear"``, the density is per unit of the eigenvalue. If ``"log"``, it is per decade
        of ``|lam|`` on either side of zero, on an axis that is linear below 1e-4 times the largest
        ``|node|``; see `SpectralDensity`.
    width : float, optional
        Standard deviation of the Gaussian on each node. On the linear axis it is in units of the
        eigenvalue, by default 1% of the range. On the log axis it is in decades, by default 0.05.
    grid : array_like, optional
        Eigenvalues at which the density is evaluated. By default the grid has `n_grid` points or
        more, such that it resolves the width, and extends 6 widths past the outermost nodes, so
        that the density integrates to 1.
    n_grid : int
        Minimum number of points of the default grid.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    SpectralDensity
        The density with its quadratures. From 12 probes on, the interval of two standard errors
        contains the true value in 95% of cases. If only a few coordinates are coupled, fewer probes
        can all give equal results. `stderr` is then NaN.

    See Also
    --------
    eigsh : a few eigenvalues, each with a bound.
    SpectrumDisplay : plots of a density.

    References
    ----------
    .. [1] L. Lin, Y. Saad and C. Yang, Approximating spectral densities of large matrices, SIAM
           Review 58 (2016).
    .. [2] G. Golub and G. Meurant, Matrices, Moments and Quadrature with Applications, Princeton,
           2010.

    Examples
    --------
    >>> import numpy as np
    >>> d = spectral_density(np.diag(np.linspace(-1, 1, 200)), n_probes=4, n_steps=20, rng=0)
    >>> abs(d.integral() - 1) < 1e-6
    True
    """
    operand = as_operand(op)
    op = operand.op
    n_probes = check_positive_int(n_probes, "n_probes")
    n_steps = check_positive_int(n_steps, "n_steps")
    smoothing = check_grid_options(axis, width, grid, n_grid)
    rng = as_rng(rng)
    n = operand.n
    m = n_probes * min(n_steps, n)
    gram = gram_matrix(op, min(m, ALL_EIGENVALUES_MAX_N))
    if gram is not None:
        values = gram.all_eigenvalues(eigvalsh(gram.K))
        return exact_density(values, 0, smoothing, operand.dtype)
    if n <= m and operand.is_matrix_faster(m):
        P, n_products = matrix_of(op)
        return exact_density(eigvalsh(P), n_products, smoothing, operand.dtype)
    quadratures = []
    orthogonality_loss = 0.0
    outliers = None
    n_products = 0
    with (
        show_bar(n_probes * n_steps, "spectral_density", progress) as shown,
        aligned_rows(memory_owner(op), (min(n_steps, n) + 1, n), operand.dtype) as rows,
    ):
        run = Recurrence(op, n_steps, rows=rows, semiorthogonal=True)
        for i in range(n_probes):
            run_probe(run, rng, n_steps, shown)
            quadrature = gauss_quadrature(run)
            orthogonality_loss = max(orthogonality_loss, run.max_orthogonality_loss)
            if i == 0 and n_probes > 1 and run.n <= DEFLATION_MAX_N:
                outliers, rest = find_outliers(run)
                if len(outliers.values):
                    n_products = run.n_products
                    quadrature = rest
                    run = Recurrence(
                        op, n_steps, against=outliers.rows, rows=rows, semiorthogonal=True
                    )
            quadratures.append(quadrature)
    n_products += run.n_products
    exact = np.zeros(0)
    if outliers is not None:
        exact = outliers.values
        if has_repeated_outliers(quadratures[1:], outliers, n):
            quadratures = quadratures[1:]
    facts = {"n_products": n_products, "orthogonality_loss": orthogonality_loss}
    return assemble_density(quadratures, exact, n, smoothing, run.dtype, **facts)


def exact_density(
    values: Floats, n_products: int, smoothing: dict[str, Any], dtype: np.dtype
) -> SpectralDensity:
    """Return the density of an operator from all of its eigenvalues, `values` (n,), for which
    `n_products` products were used. `smoothing` holds the arguments of `smooth_density`, and
    `dtype` is that of the operator.
    """
    n = len(values)
    one = Quadrature(values, np.full(n, 1 / n))
    counts = {"n_products": n_products, "n_deflated": n}
    return assemble_density([one, one], np.zeros(0), n, smoothing, dtype, **counts)


class Quadrature(NamedTuple):
    """Nodes (q,) and weights (q,) of a quadrature. The weights sum to 1."""

    nodes: Floats
    weights: Floats


class DeflatedPairs(NamedTuple):
    """Deflated eigenvalues (k,), their eigenvectors as orthonormal rows (k, n), and their residuals
    (k,).
    """

    values: Floats
    rows: Array
    residuals: Floats


def random_signs(rng: np.random.Generator, p: int, n: int, dtype: np.dtype) -> Array:
    """Return an array (p, n) of random signs, each 1 or -1."""
    return (2 * rng.integers(0, 2, size=(p, n), dtype=np.int8) - 1).astype(dtype)


def run_probe(run: Recurrence, rng: np.random.Generator, n_steps: int, shown: ProgressBar) -> None:
    """Discard the basis of `run`, and run n_steps Lanczos steps from a new vector of random signs.
    Each step updates the progress bar `shown`.
    """
    run.reset()
    while run.insert_block(random_signs(rng, 1, run.n, run.dtype)) == 0:
        pass
    extend_run(run, n_steps, shown)


def extend_run(run: Recurrence, n_steps: int, shown: ProgressBar) -> None:
    """Extend the basis of `run` to n_steps rows, or until the Krylov space is exhausted, and update
    the progress bar `shown`.
    """
    while run.p and run.m < min(n_steps, run.dimension):
        before = run.m
        run.extend(min(n_steps, run.dimension), PROGRESS_INTERVAL_SECONDS)
        shown.update(run.m - before)


def has_repeated_outliers(quadratures: list[Quadrature], outliers: DeflatedPairs, n: int) -> bool:
    """Return True if the nodes of `quadratures` near the value of one of the deflated `outliers`
    have a mean weight of more than a quarter of one eigenvalue, 1/n. The probes of the quadratures
    are orthogonal to the vectors of the outliers, so they have found further copies of that
    eigenvalue.

    The probe that found the vectors cannot find further copies, because its Krylov space contains
    one vector of each eigenspace. Its quadrature has too little weight at the outlier, so it is
    left out of the mean.
    """
    for value, residual in zip(outliers.values, outliers.residuals):
        near = 2 * residual + 1e-6 * abs(value)
        seen = [one.weights[np.abs(one.nodes - value) <= near].sum() for one in quadratures]
        if np.mean(seen) > 0.25 / n:
            return True
    return False


def gauss_quadrature(run: Recurrence) -> Quadrature:
    """Return the Gauss quadrature of a recurrence that started from one vector: the Ritz values,
    and the squared first components of the Ritz vectors as weights.
    """
    theta, first, _ = run.ritz_spectrum()
    weights = first**2
    return Quadrature(theta, weights / weights.sum())


def find_outliers(run: Recurrence) -> tuple[DeflatedPairs, Quadrature]:
    """Return the `DeflatedPairs` of the outliers of a finished probe, and the quadrature of the
    other nodes.

    Outliers are converged Ritz pairs whose ``|value|`` exceeds twice the weighted mean of all
    ``|values|``, so that the other nodes have more than half of the weight.
    """
    theta, first, residuals = run.ritz_spectrum()
    bulk = float(first**2 @ np.abs(theta))
    good = np.flatnonzero(
        (np.abs(theta) > 2 * bulk)
        & (residuals <= MAX_OUTLIER_RESIDUAL_RATIO * (np.abs(theta) - bulk))
    )
    good = good[np.argsort(-np.abs(theta[good]))][: run.dimension - 1]
    S = run.ritz_vectors(good).T
    run.reorthogonalise()
    rows = combine_basis_rows(run.rows[: run.m], S)
    orthonormalise(rows)
    nodes = np.delete(theta, good)
    weights = np.delete(first**2, good)
    return DeflatedPairs(theta[good], rows, residuals[good]), Quadrature(
        nodes, weights / weights.sum()
    )


def assemble_density(
    quadratures: list[Quadrature],
    exact: Floats,
    n: int,
    smoothing: dict[str, Any],
    dtype: np.dtype,
    **facts: Any,
) -> SpectralDensity:
    """Return a `SpectralDensity` from the quadratures of the probes for the full operator (n, n) of
    the given dtype, and the deflated eigenvalues `exact`. `smoothing` holds the arguments of
    `smooth_density`, and `facts` holds further attributes of the result.
    """
    q = max(len(one.nodes) for one in quadratures)
    nodes, weights = np.zeros((2, len(quadratures), q))
    for row, one in enumerate(quadratures):
        nodes[row, : len(one.nodes)] = one.nodes
        nodes[row, len(one.nodes) :] = one.nodes[-1]
        weights[row, : len(one.nodes)] = one.weights
    share = len(exact) / n
    nodes = np.hstack([nodes, np.tile(exact, (len(nodes), 1))])
    weights = np.hstack([weights * (1 - share), np.full((len(weights), len(exact)), 1 / n)])
    order = np.argsort(nodes, axis=1, kind="stable")
    nodes, weights = (np.take_along_axis(x, order, axis=1) for x in (nodes, weights))
    facts = {"n_deflated": len(exact)} | facts
    largest = float(np.abs(nodes[weights > 0]).max(initial=0.0))
    steps = n if facts["n_deflated"] >= n else NODE_ERROR_EPS
    facts["resolution"] = max(steps, NODE_ERROR_EPS) * float(np.finfo(dtype).eps) * largest
    spread = smooth_density(nodes, weights, **smoothing, unsure=facts["n_deflated"] < n)
    return SpectralDensity(nodes=nodes, weights=weights, n=n, **facts, **spread)
