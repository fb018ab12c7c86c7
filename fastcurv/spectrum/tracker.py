"""The lowest and the highest eigenvalue of a Hessian along a training run, for a few products per
step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from ..common.checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    check_vector,
)
from ..common.errors import OBJECTIVE_HINT, require_attrs
from ..common.protocols import Array, OperatorLike, Seed, SupportsDerivatives, Which
from ..common.read_only import ReadOnlyMixin
from ..common.runtime import raise_if_interrupted
from ..krylov.lanczos import Recurrence, combine_basis_rows
from .eigsh import eigsh

MAX_PRODUCTS_PER_STEP = 5  # default maximum number of products in each step after the first
# number of products after which the eigenvectors of a new Lanczos run are tracked too
N_SEARCH_PRODUCTS = 10
MAX_FIRST_RECORD_PRODUCTS = 100  # maximum number of products for the first record
# estimate of the rounding error of a Rayleigh quotient, in eps times the largest |eigenvalue|
ROUNDING_EPS = 40


@dataclass(frozen=True)
class SpectrumRecord:
    """The ends of the spectrum of the Hessian at one point of a training run.

    Attributes
    ----------
    step : int
        The number of calls of the tracker before the call that made this record.
    values : ndarray, shape (1,) or (2,)
        Estimates of the lowest eigenvalue, the highest eigenvalue, or both in this order. They are
        Rayleigh quotients. The lowest eigenvalue of the Hessian is at most the first value, and the
        highest is at least the last, so a first value below ``-rounding`` shows negative curvature.
    residuals : ndarray, shape (1,) or (2,)
        ``||H u - lam u||`` for each value. Some eigenvalue lies within this distance of the value.
    n_products : int
        Number of products with the Hessian for this record.
    converged : bool
        True if all residuals are within the tolerance.
    rounding : float
        Estimate of the rounding errors of the values, 40 eps times the largest ``|lam|`` found in
        this and all earlier records.
    """

    step: int
    values: np.ndarray
    residuals: np.ndarray
    n_products: int
    converged: bool
    rounding: float = 0.0


class Tracker(ReadOnlyMixin):
    """Track the lowest and the highest eigenvalue of the Hessian along a training run.

    A tracker is called with theta once in each step, by `minimize` or in any other training loop.
    Each record starts from the eigenvectors of the previous record, which costs one product for
    each eigenvector if theta has changed little. The rest of five products per record extends a
    Lanczos run from a random start. After every ten products the eigenvectors of this run are
    tracked too. Without this run, an eigenvalue that becomes the lowest in another direction would
    not be found.

    Parameters
    ----------
    ob : objective
        An object with the method ``hessian(theta)``.
    which : {"BE", "SA", "LA"}
        The eigenvalues to track: both ends, the lowest or the highest.
    tol : float
        Tolerance of the residuals, relative to the largest ``|lam|`` found.
    max_products : int
        Maximum number of products for the eigenvalues of each record after the first, but at least
        one for each eigenvalue. Products beyond 5 are made only while a residual exceeds the
        tolerance.
    every : int
        Number of calls from one record to the next. All other calls return the last record without
        products.
    rng : None, int or numpy.random.Generator
        Seed of the random starts.

    Attributes
    ----------
    records : tuple of SpectrumRecord
        All m records so far.
    values, residuals : ndarray, shape (m, 1) or (m, 2)
        The values and residuals of all records.
    steps : ndarray, shape (m,)
        The steps of the records.
    signs : ndarray, shape (m,)
        The sign of the lowest eigenvalue in each record, or 0 if the residual is too large to
        determine the sign.
    sign_changes : ndarray
        The steps at which the lowest value changes its sign.
    n_products : int
        Number of products of all records.

    See Also
    --------
    fastcurv.eigsh : The same eigenvalues at one point, to any tolerance.
    fastcurv.minimize : Accepts a tracker as ``callback``.

    Notes
    -----
    The first record costs up to 100 products, and each later record at most 5, or `max_products`
    if that is larger. With 5 products the residuals often exceed the tolerance while theta moves
    fast: in training by mini-batches from random weights, ``record.converged`` was True in 1% of
    the records on a network with 1210 parameters, and in 99% with ``max_products=20``, which took 8
    products a record. The tracker needs memory for about 15 vectors of length n. The values are
    probably the ends of the spectrum, but this is not proved. `eigsh` and `classify` give more
    information about one point. Copies and pickles of a tracker begin a new Lanczos run. A tracker
    follows one run, and is used by one thread at a time.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> toy = fc.testing.lecture_toy()  # a saddle at 0, minima where w1 w2 = 1
    >>> tracker = fc.spectrum.Tracker(toy, rng=0)
    >>> for t in (0.0, 0.2, 0.4, 0.6, 0.8):
    ...     record = tracker([t, t])
    >>> tracker.values[:, 0].round(2)
    array([-2.  , -1.76, -1.04,  0.16,  0.72])
    >>> tracker.sign_changes.tolist()
    [3]
    """

    _read_only = frozenset(("records",))

    def __init__(
        self,
        ob: SupportsDerivatives,
        which: Which = "BE",
        *,
        tol: float = 1e-2,
        max_products: int = MAX_PRODUCTS_PER_STEP,
        every: int = 1,
        rng: Seed = 0,
    ) -> None:
        require_attrs(ob, ("hessian",), "ob", OBJECTIVE_HINT)
        check_choice(which, ("BE", "SA", "LA"), "which")
        self._ob = ob
        self._which = which
        self._tol = check_positive(tol, "tol")
        self._every = check_positive_int(every, "every")
        self._max_products = check_positive_int(max_products, "max_products")
        self._rng = as_rng(rng)
        self._vectors: Array | None = (
            None  # eigenvectors of the last record or of a finished search
        )
        self._search: Recurrence | None = None
        self._calls = 0
        self._in_call = False
        self._scale = 0.0  # largest |lam| found in all records
        self._records: list[SpectrumRecord] = []

    def __call__(self, theta: Array) -> SpectrumRecord:
        """Record the ends of the spectrum at theta, or return the last record if this call is
        skipped because of `every`.

        Parameters
        ----------
        theta : array_like, shape (n,)
            The current parameters.

        Returns
        -------
        SpectrumRecord
            The new record, or the last one.

        Raises
        ------
        ValueError, TypeError
            If theta is not a finite vector of the objective's length.
        NotFiniteError
            If the Hessian is not finite at theta.
        KeyboardInterrupt
            On Ctrl-C. No record is added.
        RuntimeError
            If another thread is in a call of this tracker.
        """
        if self._in_call:
            raise RuntimeError(
                "A tracker must be used by one thread at a time, got two calls at once. Use a "
                "tracker for each run."
            )
        self._in_call = True
        try:
            step = self._calls
            self._calls += 1
            if step % self._every and self._records:
                return self._records[-1]
            return self._record(step, theta)
        finally:
            self._in_call = False

    def _record(self, step: int, theta: Array) -> SpectrumRecord:
        """Add a record of the spectrum at theta and return it."""
        theta = np.asarray(theta)  # a tensor of PyTorch has a different `size`
        op = self._ob.hessian(check_vector(theta, theta.size, "theta", np.float64))
        k = min(1 + (self._which == "BE"), op.shape[0])
        first = self._vectors is None
        start = self._rng.standard_normal(op.shape[0]) if first else self._vectors
        pairs = raise_if_interrupted(eigsh(
            op, k, self._which, tol=self._tol / 10 if first else self._tol, v0=start, probe=False,
            max_products=MAX_FIRST_RECORD_PRODUCTS if first else max(k, self._max_products),
            rng=self._rng,
        ))  # fmt: skip
        self._vectors = pairs.vectors
        n_products = pairs.n_products
        if not first and n_products < MAX_PRODUCTS_PER_STEP:
            n_products += self._extend_search(op, MAX_PRODUCTS_PER_STEP - n_products, k)
        self._scale = max(self._scale, pairs.scale)
        record = SpectrumRecord(
            step,
            pairs.values,
            pairs.residuals,
            n_products,
            bool(pairs.converged.all()),
            ROUNDING_EPS * float(np.finfo(op.dtype).eps) * self._scale,
        )
        self._records.append(record)
        return record

    def _extend_search(self, op: OperatorLike, more: int, k: int) -> int:
        """Extend the Lanczos run from a random start by `more` products, and return the number of
        products made. If there is no run, start one with the Hessian `op`. Once the run has
        `N_SEARCH_PRODUCTS` products, its k wanted eigenvectors are tracked too, and the run ends.
        """
        run = self._search
        if run is None:
            run = self._search = Recurrence(op, N_SEARCH_PRODUCTS + MAX_PRODUCTS_PER_STEP)
            run.insert_random(self._rng)
        before = run.m
        run.extend(min(before + more, run.dimension))
        if run.m >= N_SEARCH_PRODUCTS or run.m < before + more:
            run.reorthogonalise()
            S = run.ritz_pairs(k, self._which)[1]
            vectors = combine_basis_rows(run.rows[: run.m], S).T
            self._vectors = np.concatenate([self._vectors, vectors], axis=1)
            self._search = None
        return run.m - before

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, object]:
        own = {"_records": list(self._records), "_rng": copy.deepcopy(self._rng)}
        return (
            vars(self) | own | {"_search": None, "_in_call": False}
        )  # a Lanczos run cannot be copied

    @property
    def records(self) -> tuple[SpectrumRecord, ...]:
        """All records so far, a tuple of `SpectrumRecord`, oldest first."""
        return tuple(self._records)

    @property
    def steps(self) -> np.ndarray:
        """The steps (m,) of the records."""
        return np.array([record.step for record in self.records], int)

    @property
    def values(self) -> np.ndarray:
        """The values of all records, with one row for each record."""
        return np.array([record.values for record in self.records])

    @property
    def residuals(self) -> np.ndarray:
        """The residuals of all records, with one row for each record."""
        return np.array([record.residuals for record in self.records])

    @property
    def n_products(self) -> int:
        """The number of products of all records."""
        return sum(record.n_products for record in self.records)

    @property
    def signs(self) -> np.ndarray:
        """The sign of the lowest eigenvalue in each record: -1, 1 or 0.

        -1 means that the value is below ``-rounding``, so the lowest eigenvalue is negative, since
        it is at most the exact value. 1 means that the value is larger than its residual and
        `rounding`, so the eigenvalue near the value is positive. A lower eigenvalue may not have
        been found yet. 0 means that the sign is not determined. Raise ValueError if `which` is
        "LA".
        """
        lowest, residuals, rounding = self._lowest_values("signs")
        positive = lowest > np.maximum(residuals, rounding)
        return np.where(lowest < -rounding, -1, np.where(positive, 1, 0))

    @property
    def sign_changes(self) -> np.ndarray:
        """The steps at which the lowest value falls below ``-rounding`` or ceases to be below.

        A change to negative is never reported too early. A change to positive may be reported while
        the lowest eigenvalue is still negative but smaller in magnitude than the residual. `signs`
        is 0 in such a record. Raise ValueError if `which` is "LA".
        """
        lowest, _, rounding = self._lowest_values("sign_changes")
        negative = lowest < -rounding
        changed: np.ndarray = self.steps[1:][negative[1:] != negative[:-1]]
        return changed

    def _lowest_values(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the lowest values (m,) of all records, their residuals (m,) and their rounding
        errors (m,). Raise ValueError if `which` is "LA"; `name` is the property named in the
        message.
        """
        if self._which == "LA":
            raise ValueError(
                f"which must be 'BE' or 'SA' for {name}, which needs the lowest eigenvalue, got "
                "'LA'."
            )
        lowest = [(r.values[0], r.residuals[0], r.rounding) for r in self.records]
        values, residuals, rounding = np.array(lowest, float).reshape(-1, 3).T
        return values, residuals, rounding

    def __repr__(self) -> str:
        if not self.records:
            return f"Tracker(which={self._which!r}, no records)"
        last = ", ".join(f"{value:.4g}" for value in self.records[-1].values)
        return (
            f"Tracker(which={self._which!r}, {len(self)} records, {self.n_products} products, "
            f"last: {last})"
        )
