"""Dense symmetric eigenvalue problems by LAPACK, for any finite matrix of any scale, with proved
error bounds; and singular values.

LAPACK's fastest driver can fail on a finite matrix (MRRR's "Internal Error"), so the others are
tried in turn, on a matrix scaled to a largest entry near 1 by a power of two, which is exact.
Results are finite, or a `LinAlgError` is raised.

The errors of the eigenvalues are bounded from the results alone, for any driver. With the computed
V and L, let ``E = V'V - I`` and ``R = AV - VL``. Then ``V'AV = L + F`` with ``||F|| <= ||E L|| +
||V|| ||R||``. The eigenvalues of L are close to those of V'AV by Weyl's theorem. The eigenvalues of
V'AV are those of A up to factors within ``1 +- ||E||`` by Ostrowski's theorem:

    |lam_i - L_i| <= (||F|| + ||E|| |L_i|) / (1 - ||E||)

So the bound is small for small eigenvalues if ||F|| is small. If V has fewer columns than A, with
eigenvalues of one sign, V'AV proves that A has at least as many eigenvalues of that sign (Cauchy),
which `eigh_with_joint_signs` uses. E and R are computed in slices of the inner dimension. Their own
rounding errors, which are added, are therefore those of short sums (Higham 2002, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from .._engine import NOT_FINITE_MESSAGE, Tridiagonal
from .._engine import NotFiniteError as NotFiniteError
from .._engine import wanted_indices as wanted_indices
from .checks import row_block_slices
from .protocols import Array, Floats, Indices
from .runtime import SERIAL_BLAS_MAX_N, Given, Result, raise_if_out_of_time, serial_blas_context

LAPACK_DRIVERS = ("evd", "evr", "ev")
SMALLEST_SUBNORMAL = 5e-324  # smallest positive float64
UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2  # unit roundoff of float64, used in all proofs
# bound on the effect of underflow for a matrix whose largest entry is near 1
EIGENSYSTEM_UNDERFLOW_BOUND = 1e-290
# length of inner slices, and number of columns checked together
INNER_SLICE_LENGTH = 128
N_COLUMNS_PER_CHECK = 512
# maximum number of rows up to which a proof of each eigenvector costs no more than a joint proof
SEPARATE_PROOF_MAX_ROWS = 64
# minimum number of rows of a matrix whose eigensystem takes more than some milliseconds
LONG_EIGENSYSTEM_MIN_N = 400
# estimated seconds per n^3 for one and a half decompositions on one core
SECONDS_PER_N_CUBED = 3e-10
# A LAPACK driver whose proved error exceeds this fraction of ||A|| has failed.
MAX_RELATIVE_DRIVER_ERROR = 1e-6
# minimum distance between the shift in a proof of signs and the smallest |eigenvalue|, relative to
# the latter
MIN_SIGN_SHIFT_GAP_RATIO = 1e-3


def rounding_gamma(k: float, u: float = UNIT_ROUNDOFF) -> float:
    """Return ``k u / (1 - k u)``, a bound on the relative error of k roundings with unit roundoff
    u, or infinity if k u >= 1/2.
    """
    return k * u / (1 - k * u) if k * u < 0.5 else np.inf


def with_serial_blas(decompose: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function whose first argument is a matrix to use one BLAS thread for matrices of
    more than `SERIAL_BLAS_MAX_N` and fewer than `LONG_EIGENSYSTEM_MIN_N` rows, for which the
    function takes only milliseconds.
    """

    @wraps(decompose)
    def run(*args: Given.args, **named: Given.kwargs) -> Result:
        with serial_blas_context(SERIAL_BLAS_MAX_N < len(args[0]) < LONG_EIGENSYSTEM_MIN_N):  # type: ignore[arg-type]
            return decompose(*args, **named)

    return run


class Eigensystem(NamedTuple):
    """Ascending eigenvalues, orthonormal eigenvectors as columns, and an error bound for each
    value.
    """

    values: Floats  # shape (n,)
    vectors: Floats  # shape (n, n)
    # error bounds (n,): |values[i] - lam_i| <= errors[i] for the symmetrised A
    errors: Floats

    @property
    def error(self) -> float:
        """The largest of the bounds `errors`."""
        return float(self.errors.max(initial=0.0))


class JointSigns(NamedTuple):
    """Eigenpairs whose signs are proved jointly.

    Consider the values of absolute value above ``beside + error``, with `beside` as passed to
    `eigh_with_joint_signs`, and let w be the smallest absolute value among them. If p of them are
    positive and q negative, then A has at least p eigenvalues >= ``w - error`` and at least q
    eigenvalues <= ``error - w``.
    """

    values: Floats  # shape (n,), ascending
    vectors: Floats  # shape (n, n)
    error: float
    # A has an eigenvalue within this distance of values[0], and one of values[-1].
    ends: float


@with_serial_blas
def eigh(A: Floats) -> Eigensystem:
    """Compute every eigenvalue and eigenvector of ``(A + A') / 2``, with a proved bound on each
    value.

    Parameters
    ----------
    A : ndarray, shape (n, n)
        Finite and real, of any scale; about ``13 n^3`` flops in float64, the proof included.

    Returns
    -------
    Eigensystem

    Raises
    ------
    ValueError
        If A is not square or not finite.
    numpy.linalg.LinAlgError
        If every driver failed, or an eigenvalue is beyond the range of float64.

    Examples
    --------
    >>> values, vectors, errors = eigh(np.array([[0.0, -2.0], [-2.0, 0.0]]))
    >>> values.round(12), bool((errors < 1e-13).all())
    (array([-2.,  2.]), True)
    """
    S, exponent = _scaled_symmetric_part(A)
    return _proved_eigensystem(
        S, exponent, _try_driver(partial(_call_lapack, S, LAPACK_DRIVERS[0]))
    )


@with_serial_blas
def eigh_with_joint_signs(A: Floats, beside: float) -> Eigensystem | JointSigns:
    """Compute all eigenpairs like `eigh`, but prove only the signs of the eigenvalues whose
    absolute values exceed `beside`, a bound on the error of A itself. The cost is a fraction of
    that of `eigh`. If the joint proof fails, return the `Eigensystem` of `eigh`.

    Take k as the number of positive eigenvalues (or of negative ones, if these are more), U as the
    eigenvectors of all others, and M as a diagonal matrix of at least their absolute values and the
    smallest absolute value of the k. ``B = A + 2 U M U'`` equals A on the complement of U. So a
    Cholesky factor of ``B - s I`` proves k eigenvalues of A above s, up to rounding
    (`cholesky_eigenvalue_floor`), and the pairs of the other sign are proved by their residuals.
    The proof takes ``n^3 / 3 + 3 n^2 (n - k)`` flops, and ``O(n (n - k))`` numbers of memory in
    addition to B.

    Examples
    --------
    >>> found = eigh_with_joint_signs(np.array([[0.0, -2.0], [-2.0, 0.0]]), 0.0)
    >>> found.values.round(12), found.error < 0.01
    (array([-2.,  2.]), True)
    """
    S, exponent = _scaled_symmetric_part(A)
    first = _try_driver(partial(_call_lapack, S, LAPACK_DRIVERS[0]))
    if first is not None and 0 <= beside < np.inf:
        values, V = (np.asarray(x, dtype=np.float64) for x in first)
        error = _joint_signs_error(S, values, V, float(np.ldexp(beside, -exponent)))
        if error < np.inf:
            near = max(_eigenvalue_error(S, values[i], V[:, i]) for i in (0, -1))
            off = _undo_bound_scaling(np.array([error, near]), exponent)
            return JointSigns(undo_scaling(values, exponent), V, float(off[0]), float(off[1]))
    return _proved_eigensystem(S, exponent, first)


def _proved_eigensystem(S: Floats, exponent: int, first: Any) -> Eigensystem:
    """Return the eigensystem of the first driver whose proved error is at most
    `MAX_RELATIVE_DRIVER_ERROR`, or that with the smallest error. S is the matrix scaled by
    ``2^-exponent``, and `first` the result of the first driver, or None if that failed.
    """
    best = None
    for driver in LAPACK_DRIVERS:
        eigensystem = (
            first if driver == LAPACK_DRIVERS[0] else _try_driver(partial(_call_lapack, S, driver))
        )
        if eigensystem is None:
            continue
        values, V = (np.asarray(x, dtype=np.float64) for x in eigensystem)
        bounds = _eigenpair_error_bounds(S, values, V)
        if best is None or bounds.max(initial=0.0) < best[2].max(initial=0.0):
            best = values, V, bounds
        if bounds.max(initial=0.0) <= MAX_RELATIVE_DRIVER_ERROR:
            break
    if best is None or not np.isfinite(best[2]).all():
        raise _not_converged_error(len(S))
    values, V, bounds = best
    return Eigensystem(undo_scaling(values, exponent), V, _undo_bound_scaling(bounds, exponent))


@with_serial_blas
def eigvalsh(A: Floats) -> Floats:
    """Compute every eigenvalue of ``(A + A') / 2``, ascending, at a third of the cost of `eigh`.

    The eigenvalues are not proved. They are accepted if their sum and sum of squares agree with the
    trace and the squared Frobenius norm of the matrix. LAPACK's drivers are then accurate to about
    ``n eps ||A||``. Arguments and errors are those of `eigh`.

    Examples
    --------
    >>> eigvalsh(np.diag([3e-300, -1e-300]))
    array([-1.e-300,  3.e-300])
    """
    S, exponent = _scaled_symmetric_part(A)
    trace = float(np.trace(S))
    squares = float(np.vdot(S, S))
    for driver in LAPACK_DRIVERS:
        values = _try_driver(partial(_call_lapack, S, driver, only=True))
        if values is not None and _matches_moments(values, trace, squares):
            return undo_scaling(np.asarray(values, dtype=np.float64), exponent)
    raise _not_converged_error(len(S))


def _matches_moments(values: Floats, trace: float, squares: float) -> bool:
    """Return True if the sum and the sum of squares of the eigenvalues agree with those of the
    matrix to `MAX_RELATIVE_DRIVER_ERROR`. `trace` is the sum of the matrix's eigenvalues and
    `squares` that of their squares.
    """
    off = abs(float(values.sum()) - trace) + abs(float(values @ values) - squares)
    return bool(off <= MAX_RELATIVE_DRIVER_ERROR * (squares + len(values) * squares**0.5))


@with_serial_blas
def eigh_selected(A: Floats, pick: Callable[[Floats], Indices]) -> tuple[Floats, Indices, Floats]:
    """Compute every eigenvalue of a symmetric matrix, and the eigenvectors of some, at less than
    half the cost of all. The result is not proved, but checked as in `eigvalsh` and by the
    residuals.

    Parameters
    ----------
    A : ndarray, shape (n, n)
        Finite, float64 and exactly symmetric, with a largest entry near 1.
    pick : callable
        Function that receives the eigenvalues, ascending, and returns the indices of the requested
        ones ``(k,)``, ascending.

    Returns
    -------
    values : ndarray, shape (n,)
    at : ndarray, shape (k,)
        The indices picked.
    vectors : ndarray, shape (n, k)
        Orthonormal to rounding.

    Examples
    --------
    >>> values, at, V = eigh_selected(np.diag([3.0, 1.0, 2.0]), lambda values: np.array([2]))
    >>> values, at, abs(V)
    (array([1., 2., 3.]), array([2]), array([[1.],
           [0.],
           [0.]]))
    """
    if len(A) >= LONG_EIGENSYSTEM_MIN_N:
        raise_if_out_of_time()
    selected = _eigh_selected(A, pick)
    if selected is None:
        whole = eigh(A)
        at = pick(whole.values)
        return whole.values, at, whole.vectors[:, at]
    return selected


def _eigh_selected(
    A: Floats, pick: Callable[[Floats], Indices]
) -> tuple[Floats, Indices, Floats] | None:
    """Return the result of `eigh_selected`, or None if LAPACK fails, or if more than half of the
    vectors of a matrix with more than `SEPARATE_PROOF_MAX_ROWS` rows are picked.
    """
    form = Tridiagonal(A.copy())
    values = form.eigenvalues()
    if values is None or not _matches_moments(values, form.trace, form.squares):
        return None
    at = pick(values)
    if 2 * len(at) > form.n > SEPARATE_PROOF_MAX_ROWS:
        return None
    rows = form.eigenvectors(at)
    max_residual = MAX_RELATIVE_DRIVER_ERROR * max(-values[0], values[-1])
    return (
        (values, at, rows.T)
        if (residual_norms(A, values[at], rows) <= max_residual).all()
        else None
    )


def eigh_tridiagonal(diagonal: Floats, off_diagonal: Floats) -> tuple[Floats, Floats]:
    """Compute the eigenvalues (n,), ascending, and the eigenvectors (n, n), as columns, of a
    symmetric tridiagonal matrix with diagonal `diagonal` (n,) and off-diagonal `off_diagonal`
    (n - 1,).

    Examples
    --------
    >>> eigh_tridiagonal(np.zeros(2), np.array([2.0]))[0].round(12)
    array([-2.,  2.])
    """
    d, e = (np.asarray(x, dtype=np.float64) for x in (diagonal, off_diagonal))
    size = max(float(np.abs(d).max(initial=0.0)), float(np.abs(e).max(initial=0.0)))
    _check_finite(size, "the tridiagonal matrix")
    exponent = int(np.frexp(size)[1])
    d = np.ldexp(d, -exponent)
    e = np.ldexp(e, -exponent)
    # stemr is the LAPACK driver with the smallest residuals.
    options = {"lapack_driver": "stemr", "check_finite": False}
    eigenpairs = _try_driver(partial(linalg.eigh_tridiagonal, d, e, **options))
    if eigenpairs is None or not _has_small_residuals(d, e, *eigenpairs):
        eigenpairs = eigh(np.diag(d) + np.diag(e, 1) + np.diag(e, -1))
    return undo_scaling(eigenpairs[0], exponent), eigenpairs[1]


def _call_lapack(S: Floats, driver: str, only: bool = False) -> Any:
    """Call one LAPACK driver for the eigensystem of S, or for its eigenvalues `only`. NumPy is
    used for long divide-and-conquer calls, because it releases the interpreter lock for other
    threads, and for 1 x 1 matrices, which SciPy 1.9 does not accept.
    """
    if len(S) >= LONG_EIGENSYSTEM_MIN_N:
        raise_if_out_of_time()
    if driver == "evd" and (len(S) >= LONG_EIGENSYSTEM_MIN_N or len(S) == 1):
        return np.linalg.eigvalsh(S) if only else tuple(np.linalg.eigh(S))
    options: dict[str, Any] = {"eigvals_only": only, "driver": driver}
    return linalg.eigh(S.copy().T, overwrite_a=True, check_finite=False, **options)


def _has_small_residuals(d: Floats, e: Floats, values: Floats, V: Floats) -> bool:
    """Return True if the residuals of the eigenpairs of a tridiagonal matrix, with diagonals d and
    e, are at most `MAX_RELATIVE_DRIVER_ERROR`, and the lengths of the vectors differ from 1 by at
    most as much. The cost per pair is linear in n.
    """
    R = d[:, None] * V - V * values
    R[:-1] += e[:, None] * V[1:]
    R[1:] += e[:, None] * V[:-1]
    lengths = np.linalg.norm(V, axis=0)
    return bool(
        np.linalg.norm(R, axis=0).max(initial=0.0) <= MAX_RELATIVE_DRIVER_ERROR
        and np.abs(lengths - 1).max(initial=0.0) <= MAX_RELATIVE_DRIVER_ERROR
    )


def _try_driver(solve: Callable[[], Any]) -> Any:
    """Return the result of the driver `solve`, or None if the driver fails or returns values that
    are not finite.
    """
    try:
        result = solve()
    except (np.linalg.LinAlgError, ValueError, FloatingPointError):
        return None
    parts = result if isinstance(result, tuple) else (result,)
    return result if all(np.isfinite(part).all() for part in parts) else None


def _not_converged_error(n: int) -> np.linalg.LinAlgError:
    return np.linalg.LinAlgError(
        f"LAPACK's eigensolvers {', '.join(LAPACK_DRIVERS)} all failed on a finite symmetric "
        f"matrix of n = {n}. Try another build of BLAS and LAPACK."
    )


class NotConvexError(ValueError):
    """Error for a loss with negative curvature in the outputs of some row, so that there is no
    GGN.
    """


def _check_finite(size: float, name: str) -> None:
    if not math.isfinite(size):
        raise NotFiniteError(f"{name} must hold finite numbers, got NaN or infinity.")


def _scaled(A: Array) -> tuple[Floats, int]:
    """Return ``2^-exponent A`` in a new array, with entries below 1 in absolute value, and the
    exponent. Raise ValueError if A is not square or not finite.
    """
    A = np.asarray(A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"the matrix must be square, got shape {A.shape}.")
    A = A.astype(np.float64, copy=False)
    size = max(
        float(np.maximum.reduce(A, axis=None, initial=0.0)),
        -float(np.minimum.reduce(A, axis=None, initial=0.0)),
    )
    _check_finite(size, "the matrix")
    exponent = math.frexp(size)[1]
    # the product is as exact as ldexp and takes a fifth of the time
    return (A * 2.0**-exponent if abs(exponent) < 1000 else np.ldexp(A, -exponent)), exponent


def symmetrise(A: Array) -> None:
    """Replace A by ``(A + A') / 2``, by blocks of rows.

    Examples
    --------
    >>> A = np.array([[4.0, 2.0], [0.0, 0.0]])
    >>> symmetrise(A)
    >>> A
    array([[4., 1.],
           [1., 0.]])
    """
    for cut in row_block_slices(len(A), len(A)):
        right = slice(cut.start, None)
        mean = (A[cut, right] + A[right, cut].T) * A.dtype.type(0.5)
        A[cut, right] = mean
        A[right, cut] = mean.T


def _scaled_symmetric_part(A: Array) -> tuple[Floats, int]:
    """Return the matrix ``2^-exponent (A + A') / 2``, with entries below 1 in absolute value, and
    the exponent. Raise ValueError if A is not square or not finite.
    """
    S, exponent = _scaled(A)
    symmetrise(S)
    return S, exponent


def scaled_symmetric_part(P: Array) -> tuple[Floats, Floats, int, float]:
    """Return ``S = 2^-exponent P``, with entries below 1 in absolute value, its symmetric part, the
    exponent, and the Frobenius norm of ``S - S'``, for P (n, n). Raise ValueError if P is not
    square or not finite.

    Examples
    --------
    >>> scaled_symmetric_part(np.array([[4.0, 2.0], [0.0, 0.0]]))
    (array([[0.5 , 0.25],
           [0.  , 0.  ]]), array([[0.5  , 0.125],
           [0.125, 0.   ]]), 3, 0.3535533905932738)
    """
    try:
        S, exponent = _scaled(P)
    except NotFiniteError:
        raise NotFiniteError(NOT_FINITE_MESSAGE) from None
    gap = (S - S.T).ravel()
    if not gap.any():  # as for a matrix that the engine sums over rows
        return S, S, exponent, 0.0
    A = S.copy()
    symmetrise(A)
    return S, A, exponent, math.sqrt(gap @ gap)


def residual_norms(S: Floats, values: Floats, rows: Floats) -> Floats:
    """Return the norms ``||S v - value v||`` (k,) for the rows v of `rows` (k, n) and the
    corresponding `values` (k,), where the entries of S (n, n) are at most about 1.

    Examples
    --------
    >>> residual_norms(np.diag([1.0, 2.0]), np.array([1.5]), np.array([[0.0, 1.0]]))
    array([0.5])
    """
    residuals = rows @ S.T
    residuals -= values[:, None] * rows
    residuals *= residuals
    return np.asarray(np.sqrt(np.add.reduce(residuals, axis=1)))


def undo_scaling(x: Floats, exponent: int) -> Floats:
    """Return ``2^exponent x``. Raise LinAlgError if it overflows."""
    with np.errstate(over="ignore"):
        out = np.ldexp(x, exponent)
    if not np.isfinite(out).all():
        raise np.linalg.LinAlgError(
            "the largest eigenvalue must be within the range of float64, got about "
            f"{np.abs(x).max():.2g} * 2**{exponent}. Scale the matrix down."
        )
    return out


def _undo_bound_scaling(bounds: Floats, exponent: int) -> Floats:
    """Return ``2^exponent bounds`` for the errors of values that are scaled in the same way. The
    result is rounded up, since values and bounds are rounded in the subnormal range.
    """
    up: Floats = np.nextafter(undo_scaling(bounds, exponent), np.inf) + SMALLEST_SUBNORMAL
    return up


def matrix_midpoint(A: Floats, B: Floats) -> Floats:
    """Return ``(A + B) / 2`` without overflow. Where A and B are equal the result is A, since half
    of a subnormal number may be rounded.
    """
    return np.where(A == B, A, A / 2 + B / 2)


def _joint_signs_error(A: Floats, values: Floats, V: Floats, beside: float) -> float:
    """Return the `error` of `JointSigns`, or infinity if nothing is proved or `eigh` might prove
    more. The arguments are the scaled matrix, its computed eigenpairs, and a bound `beside` on the
    error of the matrix.
    """
    n = len(A)
    sizes = np.abs(values)
    gamma = rounding_gamma(n + 2)  # rounding factor of every sum below, in any order of summation
    open_ = sizes <= 1.01 * beside + 16 * gamma * float(sizes.sum())
    if n < 2 or open_.all() or open_.any() and not (sizes <= beside).any():
        return np.inf
    weakest = float(sizes[~open_].min())
    largest_open = float(sizes[open_].max(initial=0.0))
    below = ~open_ & (values < 0)
    above = ~open_ & (values > 0)
    sign, few, many = (1, below, above) if above.sum() > below.sum() else (-1, above, below)
    floor = np.inf
    if few.any():
        floor = float((sizes[few] - _eigenpair_error_bounds(A, values[few], V[:, few])).min())
        if not floor > beside:
            return np.inf
    W = V[:, ~many] * np.sqrt(2 * np.maximum(sizes[~many], weakest))
    B = W @ W.T
    B += sign * A
    made = (
        gamma
        * (min(_spectral_norm_bound(W) ** 2, float(np.vdot(W, W))) + _spectral_norm_bound(A))
        * 1.01
    )
    off = gamma / (1 - gamma) * float(np.abs(np.diagonal(B)).sum()) * 1.01
    shift = weakest - max(MIN_SIGN_SHIFT_GAP_RATIO * weakest, 4 * (off + made))
    floor = min(floor, cholesky_eigenvalue_floor(B, shift) - made * 1.01)
    return max(weakest - floor, largest_open - beside) if floor > beside else np.inf


def cholesky(A: Floats) -> Floats | None:
    """Return the lower Cholesky factor of A, or None if the factorisation breaks down."""
    if len(A) >= LONG_EIGENSYSTEM_MIN_N:
        raise_if_out_of_time()
    try:
        factor: Any = np.linalg.cholesky(A)  # SciPy's would hold the interpreter lock
    except np.linalg.LinAlgError:
        return None
    return factor if np.isfinite(factor).all() else None


def multiply_by_lower_triangular(A: Floats, lower: Floats, transposed: bool = False) -> Floats:
    """Return ``A @ lower``, or ``A @ lower.T`` if `transposed`, for a lower triangular matrix, in
    half the flops of a product of full matrices. Both matrices are float64 and C-contiguous, and A
    is overwritten.
    """
    product = linalg.blas.dtrmm(1.0, lower.T, A.T, lower=0, trans_a=transposed, overwrite_b=1)
    return np.asarray(product.T)


def cholesky_eigenvalue_floor(A: Floats, shift: float) -> float:
    """Return a lower bound, near `shift`, on the eigenvalues of A, or 0 if the factorisation of ``A
    - shift I`` breaks down or `shift` is not positive. A is overwritten.

    With R the computed factor of ``B = A - shift I``, ``R'R = B + E`` and ``||E|| <= gamma / (1 -
    gamma) trace(B)`` in any order of summation (Rump, Verification of positive definiteness, BIT
    46, 2006).
    """
    # The largest diagonal entry bounds the rounding of the shift.
    n = len(A)
    largest = float(np.diagonal(A).max(initial=0.0))
    A[np.diag_indices(n)] -= shift
    diagonal = np.diagonal(A)
    if not shift > 0 or not (diagonal > 0).all() or cholesky(A) is None:
        return 0.0
    gamma = rounding_gamma(n + 1)
    off = gamma / (1 - gamma) * float(diagonal.sum()) + UNIT_ROUNDOFF * (largest + shift)
    return shift - (off + 4 * n * n * float(np.finfo(np.float64).tiny)) * (1 + 1e-6)


def _eigenvalue_error(A: Floats, value: float, v: Floats) -> float:
    """Return a bound on the distance of `value` to the nearest eigenvalue of A, the norm of ``A v -
    value v`` divided by that of v, including rounding errors.
    """
    n = len(A)
    length = float(np.linalg.norm(v))
    residual = float(np.linalg.norm(A @ v - value * v))
    gamma = rounding_gamma(n + 4)
    return (
        (
            residual
            + gamma * (_spectral_norm_bound(A) + abs(value)) * length
            + EIGENSYSTEM_UNDERFLOW_BOUND
        )
        / length
        * 1.01
    )


def _eigenpair_error_bounds(A: Floats, values: Floats, V: Floats) -> Floats:
    """Return the bounds (k,) of the module docstring on the errors of the eigenvalues `values` (k,)
    of A, with vectors V (n, k). A must have entries below 1. The bounds are infinite if V is far
    from orthogonal.
    """
    n, count = V.shape
    if count == 0:
        return np.zeros(0)
    depth = min(INNER_SLICE_LENGTH, n) + -(-n // INNER_SLICE_LENGTH) + 4
    gamma = rounding_gamma(depth)
    E = 0.0
    EL = 0.0
    R = 0.0
    V = np.ascontiguousarray(V)
    squares = values**2
    for start in range(0, count, N_COLUMNS_PER_CHECK):
        cut = slice(start, min(start + N_COLUMNS_PER_CHECK, count))
        width = cut.stop - start
        part = _matmul_sliced(
            V[:, start:].T, V[:, cut]
        )  # E is symmetric, so only blocks from the diagonal down are computed
        part[np.arange(width), np.arange(width)] -= 1
        part *= part
        below = part[width:]
        E += float(part.sum() + below.sum())
        EL += float((part @ squares[cut]).sum() + squares[cut.stop :] @ below.sum(axis=1))
        part = _matmul_sliced(A, V[:, cut]) - V[:, cut] * values[cut]
        R += float(np.vdot(part, part))
    absolute = _spectral_norm_bound(V)
    length = float(np.linalg.norm(V))
    spread = float(np.linalg.norm(values)) * 1.01
    E = (E**0.5 + gamma * absolute**2) * 1.01 + EIGENSYSTEM_UNDERFLOW_BOUND
    if not E < 0.5:
        return np.full(count, np.inf)
    EL = EL**0.5 + gamma * absolute * spread
    size = min(_spectral_norm_bound(A) * length, float(np.linalg.norm(A)) * absolute)
    R = R**0.5 + gamma * (size + spread)
    F = (EL + (1 + E) ** 0.5 * R) * 1.01 + EIGENSYSTEM_UNDERFLOW_BOUND
    return np.asarray((F + E * np.abs(values)) / (1 - E) * 1.01)


def _matmul_sliced(A: Floats, B: Floats) -> Floats:
    """Return ``A @ B``, computed by slices of the inner dimension, so that each entry takes at most
    ``INNER_SLICE_LENGTH + n / INNER_SLICE_LENGTH`` additions in a row.
    """
    total = A[:, :INNER_SLICE_LENGTH] @ B[:INNER_SLICE_LENGTH]
    for start in range(INNER_SLICE_LENGTH, len(B), INNER_SLICE_LENGTH):
        total += A[:, start : start + INNER_SLICE_LENGTH] @ B[start : start + INNER_SLICE_LENGTH]
    return total


def _spectral_norm_bound(A: Floats) -> float:
    """Return an upper bound on the 2-norm of ``|A|``, and so of A."""
    rows = 0.0
    columns = np.zeros(A.shape[1])
    for cut in row_block_slices(*A.shape):
        size = np.abs(A[cut])
        rows = max(rows, float(size.sum(axis=1).max(initial=0.0)))
        columns += size.sum(axis=0)
    return 1.01 * min(float(np.linalg.norm(A)), math.sqrt(rows * float(columns.max(initial=0.0))))


# --------------------------------------------------------------------------------------------------
# Singular value decompositions by LAPACK: divide and conquer, or QR if that fails on a finite
# matrix.

# minimum number of entries of a matrix whose decomposition takes milliseconds
LONG_DECOMPOSITION_MIN_ENTRIES = 1 << 17


def svd(A: Array, full_matrices: bool = False, **more: Any) -> tuple[Array, Array, Array]:
    """Compute U, the descending singular values and V' with ``A = U diag(sizes) V'``, for A ``(m,
    n)``. Further arguments are those of `numpy.linalg.svd`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If A is not finite or both drivers fail.

    Examples
    --------
    >>> svd(np.array([[0.0, -2.0], [1.0, 0.0]]))[1]
    array([2., 1.])
    """
    if A.size >= LONG_DECOMPOSITION_MIN_ENTRIES:
        raise_if_out_of_time()
    try:
        factors: Any = np.linalg.svd(A, full_matrices, **more)
    except np.linalg.LinAlgError:
        if not np.isfinite(A).all():
            raise
        factors = linalg.svd(A, full_matrices, lapack_driver="gesvd", check_finite=False, **more)
    return factors  # type: ignore[no-any-return]


def svdvals(A: Array) -> Array:
    """Compute the singular values of A ``(m, n)``, in descending order. The errors raised are those
    of `svd`.

    Examples
    --------
    >>> svdvals(np.array([[3.0], [4.0]]))
    array([5.])
    """
    sizes: Any = svd(A, compute_uv=False)
    return np.asarray(sizes)
