"""Immutable result classes, in which every number comes with its error and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..common.protocols import Array, Floats
from ..common.read_only import FrozenRecord

# If one eigenvalue dominates, ``v'Hv`` is distributed like the square of a Gaussian, for which
# Student's interval from m samples is too narrow. It covers the true value in 95% of cases if it is
# ``1 + SKEW_WIDENING_FACTOR / m`` times as wide.
SKEW_WIDENING_FACTOR = 13.0
# If m samples take two values with probability 1/2 each, Student's interval must be ``1 +
# TWO_VALUED_WIDENING_FACTOR / m`` times as wide.
TWO_VALUED_WIDENING_FACTOR = 3.0

# If few coordinates are coupled, a quadratic form of random signs takes few values. A nonconstant
# polynomial of degree 2 takes each value with probability at most 3/4, so MIN_SPREAD_ESTIMATES
# samples are all equal, and show no scatter, with probability at most 1/20. With fewer samples,
# probes are uniform on a sphere.
MIN_SPREAD_ESTIMATES = 11
# Results mention `missed_within` only if it exceeds this multiple of the tolerance.
MIN_MISSED_WITHIN_TOLS = 64


def has_rounding_scatter(samples: np.ndarray) -> bool:
    """Return True if there are at most `MIN_SPREAD_ESTIMATES` samples (m, ...) and they differ by
    at most 1e-12 of the largest sample, which is attributed to rounding. So few equal samples do
    not prove that the quantity is constant.
    """
    spread = float(np.ptp(samples, axis=0).max(initial=0.0))
    return len(samples) <= MIN_SPREAD_ESTIMATES and spread <= 1e-12 * float(
        np.abs(samples).max(initial=0.0)
    )


def stderr_widening_factor(m: int) -> float:
    """Return the factor by which a standard error from m samples is widened so that two standard
    errors cover 95%. It is the quantile of Student's t over that of the normal distribution, or NaN
    for one sample.
    """
    return float(stdtrit(m - 1, 0.975) / 1.959964) if m > 1 else float("nan")


def mean_and_stderr(samples: np.ndarray) -> tuple[float, float]:
    """Return the mean of independent samples ``v'Hv`` (m,) and its widened standard error, which is
    NaN for one sample.

    The interval is Student's, widened if a few samples dominate the sum, which their skewness
    shows. At least 0.3 of this widening always applies, because a few samples have little scatter
    exactly if they have missed the large values.
    """
    samples = np.asarray(samples, dtype=np.float64)
    m = len(samples)
    if m < 2:
        return float(samples.mean()), np.nan
    largest = float(np.abs(samples).max()) or 1.0
    apart = samples / largest - float((samples / largest).mean())
    variance = float((apart**2).mean())
    skewness = abs(float((apart**3).mean())) / variance**1.5 if variance > 0 else 0.0
    share = min(0.3 + 0.7 * skewness / min(1.2, m**0.5 / 2), 1.25)
    stderr = (
        largest
        * (variance / (m - 1)) ** 0.5
        * stderr_widening_factor(m)
        * (1 + SKEW_WIDENING_FACTOR / m * share)
    )
    return float(samples.mean()), stderr


def format_number(x: float) -> str:
    """Return x as a string with four significant digits, for a repr."""
    return f"{float(x):.4g}"


def to_json_value(x: Any) -> Any:
    """Convert `x` to a value that JSON can represent. Arrays and tuples become lists, non-finite
    floats None, results and dataclasses dicts, and objects of other types strings.
    """
    if hasattr(x, "to_dict"):
        x = x.to_dict()
    elif is_dataclass(x) and not isinstance(x, type):
        x = vars(x)
    if isinstance(x, dict):
        return {str(key): to_json_value(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [to_json_value(part) for part in x]
    if isinstance(x, (np.ndarray, np.generic)):
        return to_json_value(x.tolist())
    if isinstance(x, float):
        return x if np.isfinite(x) else None
    return x if x is None or isinstance(x, (bool, int, str)) else str(x)


@dataclass(frozen=True, repr=False, eq=False)
class Eigenpairs(FrozenRecord):
    """Eigenpairs of a symmetric operator H, ascending, each with a residual that bounds its error.

    An object unpacks like SciPy's result: ``w, V = fc.eigsh(H)``.

    Attributes
    ----------
    values : ndarray, shape (k,)
        The eigenvalues in float64, ascending.
    vectors : ndarray, shape (n, k)
        The eigenvectors as orthonormal columns in the same order, in the operator's dtype.
    residuals : ndarray, shape (k,)
        ``||H u - lam u||`` for the computed products, or an upper bound on this norm. Up to the
        rounding of the products, an eigenvalue of H lies within ``residuals[i]`` of ``values[i]``.
        If the product is computed again, the residual may be larger by about 40 eps ``scale``;
        `fastcurv.certify.rounding_bound` is a worst-case bound on the rounding of a product.
    converged : ndarray of bool, shape (k,)
        True if the residual is within the tolerance, which is ``tol * scale``, or ``tol * |lam|``
        for ``relative="value"``, and no copy may have been missed. If `missed_within` exceeds 64
        tolerances, pairs within `missed_within` of the innermost value are not converged. For a
        single pair, and if no search for copies was requested, only residuals count.
    n_products : int
        Number of products with the operator, or 0 if the eigenvalues come from a matrix that was
        computed without products.
    scale : float
        The largest ``|lam|`` found, to which the tolerance is relative.
    tol : float
        The requested tolerance.
    probed : bool
        True if a random start searched for copies of multiple eigenvalues that the first start
        cannot find, or if no copy could have changed the values. `missed_within` states how far
        this search is incomplete.
    missed_within : float
        Every missed eigenvalue, or copy of an eigenvalue, lies within this distance of the
        innermost of the values, or farther inside, with a probability of error of 5%. The distance
        is 0 if the whole matrix or the whole space was used, a few tolerances after a search that
        ended earlier, and infinity without a search. The repr mentions `missed_within` if it
        exceeds 64 tolerances. If copies were missed, other true eigenvalues take their place.
    interrupted : bool
        True if Ctrl-C ended the run early.
    asymmetry : float
        Measured asymmetry of the products, ``|<u, Hv> - <Hu, v>|`` for unit vectors u and v of the
        basis, or 0 if the asymmetry is within rounding. It is included in `residuals`.
    """

    values: Array
    vectors: Array
    residuals: Array
    converged: Array
    n_products: int
    scale: float = 0.0
    tol: float = 0.0
    probed: bool = False
    interrupted: bool = False
    asymmetry: float = 0.0
    missed_within: float = float("inf")

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Array]:
        return iter((self.values, self.vectors))

    def __getitem__(self, at: int) -> Array:
        """Return the values for index 0 and the vectors for index 1, as in SciPy's result."""
        return (self.values, self.vectors)[at]

    @property
    def n(self) -> int:
        """The length of an eigenvector."""
        return int(self.vectors.shape[0])

    def vector(self, i: int) -> np.ndarray:
        """Return the i-th eigenvector (n,)."""
        return self.vectors[:, i]

    def _title(self) -> str:
        open_still = missed_clause(self)
        good = int(self.converged.sum())
        by_residuals = self._is_converged_by_residuals_only
        head = (
            f"Eigenpairs: {len(self)} of n = {self.n}, {good} "
            f"{'with residuals within' if by_residuals else 'converged to'} "
            f"{format_number(self.tol)} * {format_number(self.scale)}, {self.n_products} products"
        )
        if self.asymmetry:
            head += f", asymmetry {self.asymmetry:.1e} seen"
        head += f", {open_still}" if open_still else ""
        return head + (", interrupted" if self.interrupted else "")

    @property
    def _is_converged_by_residuals_only(self) -> bool:
        """True if some pairs converged, and the search for missed copies was left out or does not
        apply because there is a single pair, so that `converged` refers to residuals alone.
        """
        some = bool(self.converged.any()) and bool(missed_clause(self))
        return some and (not self.probed or len(self) == 1)

    def __repr__(self) -> str:
        head = self._title()
        rows = [
            f"  {v: .8g}  +- {r:.1e}{'' if c else '   not converged'}"
            for v, r, c in zip(self.values, self.residuals, self.converged)
        ]
        if len(rows) > 24:
            rows[12:-12] = [f"  ... {len(rows) - 24} more"]
        return "\n".join([head, *rows])


def missed_clause(pairs: Eigenpairs) -> str:
    """Return a clause that states which eigenvalues the search for these pairs may have missed, or
    "" if `missed_within` is at most `MIN_MISSED_WITHIN_TOLS` tolerances.
    """
    alone = len(pairs) < 2
    width = float(np.ptp(pairs.values / 2)) if len(pairs) else 0.0
    if pairs.missed_within <= MIN_MISSED_WITHIN_TOLS * pairs.tol * pairs.scale or (
        alone and np.isinf(pairs.missed_within)
    ):
        return ""
    if not alone and pairs.missed_within / 2 > width:
        return "missed copies of multiple eigenvalues not excluded"
    others = "others" if alone else "copies"
    beyond = format_number(pairs.missed_within)
    return f"{others} excluded beyond {beyond}, with an error probability of 5%"


@dataclass(frozen=True, repr=False, eq=False)
class Estimate(FrozenRecord):
    """A random estimate with its standard error and its cost.

    Attributes
    ----------
    estimate : float or ndarray
        The estimate, which is unbiased unless the documentation of its function states otherwise.
    stderr : float or ndarray
        Standard error over the random samples, in the shape of `estimate`. For a scalar it is at
        least the rounding error of the operator's products, or 0 if the scalar is exact up to
        rounding.
    n_products : int
        Number of products and quadratic forms together.
    n_quadratic_forms : int
        Number of quadratic forms, each at about half the cost of a product.
    method : str
        The method that was used.
    """

    estimate: float | Array
    stderr: float | Array
    n_products: int
    n_quadratic_forms: int = 0
    method: str = ""

    @property
    def value(self) -> float | Array:
        """Another name for the attribute `estimate`."""
        return self.estimate

    def __float__(self) -> float:
        return float(self.estimate)

    def __repr__(self) -> str:
        if np.ndim(self.estimate) == 0:
            text = f"{float(self.estimate):.8g} +- {float(self.stderr):.2g}"
        else:
            stderr = format_number(float(np.sum(np.asarray(self.stderr) / np.size(self.stderr))))
            text = f"shape {np.shape(self.estimate)}, stderr {stderr} on average"
        method = f", {self.method}" if self.method else ""
        return f"Estimate({text}, {self.n_products} products{method})"


@dataclass(frozen=True, repr=False, eq=False)
class Inertia(FrozenRecord):
    """The numbers of eigenvalues that are positive, negative, and zero within their error bounds.

    An object unpacks into its three counts: ``n_positive, n_negative, n_zero = fc.inertia(H)``.

    Attributes
    ----------
    n_positive, n_negative : int
        Number of eigenvalues whose sign is proved, because their magnitude exceeds their error
        bound.
    n_zero : int
        Number of eigenvalues whose magnitude is at most their error bound, so that their sign is
        not known.
    error_bound : float
        The largest of `errors`, which bounds the error of each computed eigenvalue.
    values : ndarray, shape (n,)
        The computed eigenvalues, ascending.
    n_products : int
        Number of products with the operator.
    errors : ndarray, shape (n,)
        Bounds on the errors of `values`.
    """

    n_positive: int
    n_negative: int
    n_zero: int
    error_bound: float
    values: Floats = field(default_factory=lambda: np.zeros(0), compare=False)
    n_products: int = 0
    errors: Floats = field(default_factory=lambda: np.zeros(0), compare=False)

    def __iter__(self) -> Iterator[int]:
        return iter((self.n_positive, self.n_negative, self.n_zero))

    @property
    def index(self) -> float:
        """The number of negative eigenvalues divided by n."""
        return self.n_negative / max(1, sum(self))

    @property
    def minimum_ratio(self) -> float:
        """The number of positive eigenvalues divided by n."""
        return self.n_positive / max(1, sum(self))

    def __repr__(self) -> str:
        return (
            f"Inertia(n_positive={self.n_positive}, n_negative={self.n_negative}, "
            f"n_zero={self.n_zero}, "
            f"decided at {self.error_bound:.1e})"
        )
