"""The trace, diagonal and Frobenius norm of an operator: exact ones of the curvature of a network,
and stochastic estimates with standard errors, from products with random vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Literal, get_args

import numpy as np

from ..common.checks import (
    as_rng,
    check_choice,
    check_positive_int,
    check_rng,
    checked_product,
)
from ..common.linalg import NotFiniteError
from ..common.progress import NO_PROGRESS, ProgressBar, show_bar
from ..common.protocols import (
    Array,
    Floats,
    OperatorLike,
    Seed,
    Tracing,
)
from ..common.runtime import with_nearest_rounding
from ..common.vectors import NOT_FINITE_MESSAGE, safe_norm
from ..network.gram import gram_matrix
from .density import random_signs
from .forms import ALWAYS_DENSE_MAX_N, QUICK_DENSE_MAX_N, Operand, as_operand
from .results import (
    MIN_SPREAD_ESTIMATES,
    TWO_VALUED_WIDENING_FACTOR,
    Estimate,
    mean_and_stderr,
    stderr_widening_factor,
)

# --------------------------------------------------------------------------------------------------
# Products and quadratic forms with random signs, counted and scaled to avoid overflow, and the
# standard errors of their means.

N_BLOCK_VECTORS = 16  # number of vectors multiplied at a time
# If a product overflows, it is repeated for the vectors divided by 2 to this power.
OVERFLOW_SCALING_EXPONENT = 20
# minimum error of an estimated sum, in eps times the largest norm of a product
MIN_SUM_ERROR_EPS = 4


class CountedOperator:
    """An operator that is applied to rows of vectors, with counters of its products and quadratic
    forms.
    """

    def __init__(self, operand: Operand) -> None:
        self.operand = operand
        self.dtype = operand.dtype
        self.n = operand.n
        self.n_products = self.n_quadratic_forms = 0
        self.shown: ProgressBar = NO_PROGRESS
        self.exponent: int | None = None
        self.largest = 0.0  # largest norm of a product, or largest quadratic form

    def estimate(self, value: float | Array, stderr: float | Array, method: str) -> Estimate:
        """Return the `Estimate` of `value` and `stderr`, multiplied by the unit 2^`exponent`, with
        the counters. The standard error of a number that is not exact includes the rounding errors
        of the products. Raise ValueError if the value or the standard error overflows.
        """
        unit = 2.0 ** (self.exponent or 0)
        if np.ndim(value) == 0 and method != "exact":
            stderr = np.hypot(stderr, MIN_SUM_ERROR_EPS * np.finfo(self.dtype).eps * self.largest)
        with np.errstate(over="ignore"):
            value = unit * value
            stderr = unit * stderr
        if not np.isfinite(value).all():
            raise ValueError(
                f"the estimate by method={method!r} must be within the range of float64, got an "
                "overflow. Scale the operator down."
            )
        if np.ndim(value) == 0:
            value = float(value)
            stderr = float(stderr)
        return Estimate(value, stderr, self.n_products, self.n_quadratic_forms, method)

    def can_be_exact(self, m: int, method: str) -> bool:
        """Return True if m products suffice to multiply all n unit vectors and the result is to be
        exact: if m >= n, and `method` is "auto" or n is 1.
        """
        return m >= self.n and (method == "auto" or self.n == 1)

    def _report_progress(self, k: int) -> None:
        self.n_products += k
        self.shown.update(k)

    def products(self, V: Array) -> Array:
        """Return the products ``H v`` (k, n) with the rows v of V (k, n), divided by the unit
        2^`exponent`.
        """
        self._report_progress(len(V))
        columns = np.ascontiguousarray(V.T) if len(V) > 1 else V[0].copy()
        short = 0
        with np.errstate(over="ignore", invalid="ignore"):
            Y = checked_product(self.operand.op, columns)
            # The product with a shorter vector may be finite.
            if not np.isfinite(Y).all():
                short = OVERFLOW_SCALING_EXPONENT
                Y = checked_product(self.operand.op, columns * self.dtype.type(2.0**-short))
        Y = self._check_finite_results(np.ascontiguousarray(np.reshape(Y, (-1, len(V))).T), short)
        self.largest = max(self.largest, float(np.einsum("ij,ij->i", Y, Y).max()) ** 0.5)
        return Y

    def quadratic_forms(self, V: Array) -> Floats:
        """Return ``v'Hv`` (k,) for the rows v of V (k, n) in float64, divided by the unit
        2^`exponent`.
        """
        form = self.operand.quadratic_form
        if form is None:
            return row_dots(V, self.products(V))
        self._report_progress(len(V))
        self.n_quadratic_forms += len(V)
        forms = np.asarray(form(np.ascontiguousarray(V.T)), dtype=np.float64)
        forms = self._check_finite_results(np.atleast_1d(forms))
        self.largest = max(self.largest, float(np.abs(forms).max()))
        return forms

    def squared_norms(self, V: Array) -> Floats:
        """Return ``||Hv||^2`` (k,) for the rows v of V (k, n) in float64, for H divided by the unit
        2^`exponent`.
        """
        Y = self.products(V)
        return row_dots(Y, Y)

    def _check_finite_results(self, Y: Array, short: int = 0) -> Array:
        """Return the results Y of the operator divided by the unit 2^`exponent`. Raise
        NotFiniteError if they are not finite.

        The unit is chosen from the first results that are not all zero, such that squares and sums
        do not overflow. If `short` is not 0, Y holds the results for vectors that were divided by
        2^short.
        """
        if self.exponent is None:
            largest = float(np.abs(Y).max(initial=0.0))
            if np.isfinite(largest) and largest > 0:
                exponent = int(np.frexp(largest)[1]) + short
                small, large = (30, 120) if Y.dtype == np.float32 else (300, 1000)
                self.exponent = (
                    0 if abs(exponent) <= small else int(np.clip(exponent, -large, large))
                )
        if self.exponent or short:
            with np.errstate(over="ignore"):
                Y = Y * Y.dtype.type(2.0 ** (short - (self.exponent or 0)))
        if not np.isfinite(Y).all():
            raise NotFiniteError(NOT_FINITE_MESSAGE)
        return Y

    def probes(self, rng: np.random.Generator, m: int, signs: bool = False) -> Iterator[Array]:
        """Yield m rows of random signs, as blocks of at most `N_BLOCK_VECTORS` rows. If m is below
        `MIN_SPREAD_ESTIMATES` and `signs` is False, the rows are random directions of the same
        length, sqrt(n), instead.
        """
        for start in range(0, m, N_BLOCK_VECTORS):
            shape = min(N_BLOCK_VECTORS, m - start), self.n
            if m < MIN_SPREAD_ESTIMATES and not signs:
                V = rng.standard_normal(shape)
                # The loop avoids broadcasting, because NumPy aborts the process if it cannot
                # allocate a buffer for it.
                for row, norm in zip(V, np.linalg.norm(V, axis=1)):
                    row *= self.n**0.5 / norm
                yield V.astype(self.dtype)
            else:
                yield random_signs(rng, *shape, self.dtype)

    def hutchinson(self, rng: np.random.Generator, m: int) -> tuple[float, float]:
        """Return the mean of ``v'Hv`` over m random vectors v, and its standard error.

        For random signs the variance of ``v'Hv`` is twice the sum of the variances of the entries
        ``v_i (Hv)_i``. If products are computed, the standard error is at least the one from this
        sum, because a few samples of ``v'Hv`` can be nearly equal by chance.
        """
        if self.operand.quadratic_form or m < MIN_SPREAD_ESTIMATES:
            return mean_and_stderr(
                np.concatenate([self.quadratic_forms(V) for V in self.probes(rng, m)])
            )
        samples = []
        total = np.zeros(self.n)
        squares = np.zeros(self.n)
        for V in self.probes(rng, m):
            entries = V.astype(np.float64) * self.products(V)
            samples.append(entries.sum(axis=1))
            if not len(samples) > 1:
                first = entries[0]
            total += (entries - first).sum(axis=0)
            squares += ((entries - first) ** 2).sum(axis=0)
        mean, stderr = mean_and_stderr(np.concatenate(samples))
        variance = max(2 * float((squares - total**2 / m).sum()) / (m - 1), 0.0)
        return mean, max(stderr, stderr_widening_factor(m) * (variance / m) ** 0.5)

    def iter_unit_rows(self) -> Iterator[Array]:
        """Yield all unit vectors e_j as rows, in blocks of at most `N_BLOCK_VECTORS` rows."""
        for start in range(0, self.n, N_BLOCK_VECTORS):
            yield np.eye(min(N_BLOCK_VECTORS, self.n - start), self.n, start, self.dtype)

    def exact_diagonal(self, m: int, method: str) -> Floats | None:
        """Return the diagonal (n,) of the operator in float64, divided by the unit 2^`exponent`, or
        None if the result is not to be exact. It is exact if `method` is "exact", or if it is
        "auto" and the operator's own diagonal, or n products, cost at most m products. Raise
        ValueError if `method` is "exact" and the operator has no diagonal of its own.
        """
        if self.operand.diagonal is not None and has_exact_diagonal(self.operand, m, method):
            diagonal = self.operand.diagonal()
            self._report_progress(ceil(self.operand.diagonal_cost))
            if method == "exact" or np.isfinite(diagonal).all():
                return diagonal
        if method == "exact":
            raise ValueError(
                "method must be 'auto' or the name of an estimator for an operator that has no "
                "exact diagonal, got 'exact'. Use method='auto', which is exact for n_probes=n."
            )
        if not self.can_be_exact(m, method):
            return None
        blocks = [
            np.diagonal(self.products(E), i * N_BLOCK_VECTORS)
            for i, E in enumerate(self.iter_unit_rows())
        ]
        return np.concatenate(blocks).astype(np.float64)


def has_exact_diagonal(operand: Operand, m: int, method: str) -> bool:
    """Return True if the operator's own diagonal is to be used: always if `method` is "exact",
    and at a cost of at most m products if `method` is "auto".
    """
    cost = operand.diagonal_cost
    return bool(cost < np.inf and (method == "exact" or (method == "auto" and cost <= m)))


def row_dots(A: Array, B: Array) -> Floats:
    """Return the dot products (k,), in float64, of corresponding rows of A and B (k, n)."""
    return np.array(
        [
            float(np.dot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))
            for a, b in zip(A, B)
        ]
    )


N_DEFAULT_PRODUCTS = 60  # default number of products


@with_nearest_rounding
def trace(
    op: OperatorLike,
    n_probes: int | None = None,
    method: Tracing = "auto",
    rng: Seed = None,
    *,
    progress: bool | None = None,
) -> Estimate:
    """Return the trace of a symmetric operator H, exactly for the curvature of a network, otherwise
    estimated from `n_probes` products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator H. ``op.quadratic_form(V)`` is used for ``v'Hv`` if it exists,
        at half the cost of a product.
    n_probes : int
        Number of products and quadratic forms together. The default is 60, or n for at most 64
        rows.
    method : str
        ``"exact"`` is the sum of the exact `diagonal`. ``"hutchinson"`` is the mean of ``v'Hv``
        over random signs v or, for fewer than 11 samples, over random directions of length
        ``sqrt(n)``. ``"auto"`` is exact if the exact diagonal costs at most n_probes products or
        n_probes is at least n, which takes n products. Otherwise it is Hutchinson's method.
    rng : None, int or numpy.random.Generator
        Seed of the random choices. The same number gives bitwise identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    Estimate
        The fields are `estimate` (float), `stderr` (float) and `n_products` (int), as for
        `diagonal`. The interval of two standard errors contains the true value in 95% of cases.
        Standard errors are widened by Student's t if samples are few or a few samples dominate the
        sum. If only a few coordinates are coupled, a few vectors of signs could all give the same
        value. Fewer than 11 samples are therefore random directions, with standard errors widened
        according to their number.

    Raises
    ------
    ValueError
        If the operator returns NaN or infinity, and for ``"exact"`` as for `diagonal`.

    See Also
    --------
    diagonal, frobenius_norm : estimated in the same way.
    spectral_density : more of the spectrum from as many products.

    References
    ----------
    .. [1] M. Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian
           smoothing splines, Communications in Statistics - Simulation and Computation 19 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> t = trace(np.diag(np.arange(50.0)), n_probes=50)
    >>> float(t), t.stderr, t.n_products
    (1225.0, 0.0, 50)
    """
    operand, m, rng = _prepare_estimate(op, n_probes, rng, method, get_args(Tracing))
    apply = CountedOperator(operand)
    entries = apply.exact_diagonal(m, method)
    if entries is not None:
        return apply.estimate(entries.sum(), 0.0, "exact")
    with show_bar(m, "trace", progress) as apply.shown:
        return apply.estimate(*apply.hutchinson(rng, m), "hutchinson")


@with_nearest_rounding
def diagonal(
    op: OperatorLike,
    n_probes: int | None = None,
    method: Tracing = "auto",
    rng: Seed = None,
    *,
    progress: bool | None = None,
) -> Estimate:
    """Return the diagonal of a symmetric operator H, exactly for the curvature of a network,
    otherwise estimated from `n_probes` products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator H.
    n_probes : int
        Number of products. The default is 60, or n for at most 64 rows.
    method : str
        ``"exact"`` computes the diagonal of the Hessian, GGN or empirical Fisher matrix of an
        `Objective`, or of a block of one, up to rounding. The cost is one backward pass for each
        output, and for the Hessian one for each unit of the third and each higher hidden layer
        whose activation is not piecewise linear: often that of one or two products. Sparse rows
        become dense blocks. ``"hutchinson"`` is the mean of ``v * Hv`` over random signs v.
        ``"auto"`` is exact if that costs at most n_probes products or n_probes is at least n, which
        takes n products. Otherwise it is ``"hutchinson"``.
    rng : None, int or numpy.random.Generator
        Seed of the random choices. The same number gives bitwise identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    Estimate
        The fields are `estimate` (n,), `stderr` (n,) and `n_products` (int). For an exact result
        `stderr` is 0, and `n_products` is its cost in products, rounded up. For at least 18
        samples, standard errors have the meaning that they have for `trace`, for each entry. With
        fewer samples they are meaningless for an entry whose samples are all equal.

    Raises
    ------
    ValueError
        If the operator returns NaN or infinity; for ``"exact"`` if the model has batch
        normalisation or the operator is not a curvature of an `Objective`.

    See Also
    --------
    trace, frobenius_norm : estimated in the same way.
    spectral_density : more of the spectrum from as many products.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> diagonal(np.diag([1.0, 2.0, 3.0]), n_probes=3).estimate
    array([1., 2., 3.])
    >>> ob = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    >>> found = diagonal(ob.hessian(np.array([3.0, 2.0])))
    >>> found.estimate, found.method, found.n_products
    (array([ 8., 18.]), 'exact', 1)
    """
    operand, m, rng = _prepare_estimate(op, n_probes, rng, method, get_args(Tracing))
    apply = CountedOperator(operand)
    entries = apply.exact_diagonal(m, method)
    if entries is not None:
        return apply.estimate(entries, np.zeros(apply.n), "exact")
    with show_bar(m, "diagonal", progress) as apply.shown:
        total = np.zeros(apply.n)
        squares = np.zeros(apply.n)
        for V in apply.probes(rng, m, signs=True):
            samples = V.astype(np.float64) * apply.products(V)
            total += samples.sum(axis=0)
            squares += (samples**2).sum(axis=0)
        # For a single sample the widening factor is NaN, since the error is unknown.
        mean = total / m
        scatter = np.sqrt(np.maximum(squares / m - mean**2, 0) / max(1, m - 1))
        rounding = MIN_SUM_ERROR_EPS * np.finfo(apply.dtype).eps * np.sqrt(squares / m)
        error = stderr_widening_factor(m) * (1 + TWO_VALUED_WIDENING_FACTOR / m) * scatter
        return apply.estimate(mean, np.hypot(error, rounding), "hutchinson")


@with_nearest_rounding
def frobenius_norm(
    op: OperatorLike,
    n_probes: int | None = None,
    method: Literal["auto", "hutchinson"] = "auto",
    rng: Seed = None,
    *,
    progress: bool | None = None,
) -> Estimate:
    """Estimate the Frobenius norm of a symmetric operator H, the square root of the sum of its
    squared eigenvalues.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator H.
    n_probes : int
        Number of products. The default is 60, or n for at most 64 rows.
    method : str
        The method for the trace of H^2. ``"hutchinson"`` is the mean of ``||Hv||^2`` over the
        vectors v described in `trace`. ``"auto"`` is the same, but exact if n_probes is at least
        n, which takes n products. If n_probes is None it is also exact, without products, for a
        network of at most 1000 parameters whose matrix the engine sums over rows, and for a GGN
        or Fisher with fewer outputs of all samples, at most 1000, than parameters.
    rng : None, int or numpy.random.Generator
        Seed of the random choices. The same number gives bitwise identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.

    Returns
    -------
    Estimate
        The fields are `estimate` (float), `stderr` (float) and `n_products` (int). Standard errors
        have the meaning that they have for `trace`. The square of the estimate is unbiased; the
        estimate itself has a bias of about ``-stderr**2 / (2 estimate)``.

    Raises
    ------
    ValueError
        If the operator returns NaN or infinity.

    See Also
    --------
    trace, diagonal : estimated in the same way.
    spectral_density : more of the spectrum from as many products.

    Examples
    --------
    >>> import numpy as np
    >>> float(frobenius_norm(np.diag([3.0, 4.0]), n_probes=2))
    5.0
    """
    operand, m, rng = _prepare_estimate(op, n_probes, rng, method, ("auto", "hutchinson"))
    apply = CountedOperator(operand)
    if method == "auto" and (n_probes is None or m >= apply.n):
        if apply.n <= QUICK_DENSE_MAX_N:
            summed = operand.summed_matrix()
            if summed is not None:
                return Estimate(safe_norm(summed), 0.0, 0, method="exact")
        gram = gram_matrix(operand.op, QUICK_DENSE_MAX_N)
        if gram is not None:
            np.fill_diagonal(gram.K, gram.K.diagonal() + gram.shift)
            norm = float(np.hypot(safe_norm(gram.K), gram.n_outside**0.5 * gram.shift))
            return Estimate(norm, 0.0, 0, method="exact")
    with show_bar(m, "frobenius_norm", progress) as apply.shown:
        if apply.can_be_exact(m, method):
            square = float(sum(apply.squared_norms(E).sum() for E in apply.iter_unit_rows()))
            error = 0.0
            used = "exact"
        else:
            used = "hutchinson"
            samples = [apply.squared_norms(V) for V in apply.probes(rng, m)]
            square, error = mean_and_stderr(np.concatenate(samples))
    norm = max(square, 0.0) ** 0.5
    # The square root is concave, so its slope at the estimate underestimates the error. The error
    # of the norm is computed from the smallest square within two standard errors instead.
    least = max(norm**2 - 2 * error, 0.0) ** 0.5
    return apply.estimate(norm, error / (norm + least) if error > 0 else 0.0, used)


def _prepare_estimate(
    op: OperatorLike,
    n_probes: int | None,
    rng: Seed,
    method: str,
    methods: tuple[str, ...],
) -> tuple[Operand, int, np.random.Generator]:
    """Return the `Operand`, the number of probes and the random generator. Raise ValueError
    if `method` is not one of `methods`.

    If `n_probes` is None, the number of probes is `N_DEFAULT_PRODUCTS`, or n up to
    `ALWAYS_DENSE_MAX_N`.
    """
    operand = as_operand(op)
    seed = check_rng(rng)
    check_choice(method, methods, "method")
    m = N_DEFAULT_PRODUCTS if n_probes is None else check_positive_int(n_probes, "n_probes")
    exact = "exact" in methods and has_exact_diagonal(operand, m, method)
    generator = as_rng(0 if exact and seed is None else seed)  # entropy of the system takes time
    if n_probes is None and operand.n <= ALWAYS_DENSE_MAX_N:
        m = max(m, operand.n)
    return operand, m, generator
