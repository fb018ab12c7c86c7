"""The linear autoencoder, all of whose critical points are known in closed form, and the toy
objective ``(1 - w2 w1)^2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..common.checks import as_rng, check_array, check_positive_int, check_rng
from ..common.read_only import FrozenRecord, ReadOnlyMixin
from ..network.mlp import MLP
from ..network.objective import Objective


@dataclass(frozen=True)
class Case(FrozenRecord):
    """A point with the verdict that `classify` must return for it. The verdict consists of the
    `kind` and the numbers of positive, negative and zero eigenvalues. A number, or the loss
    `value`, is None if it is not known in closed form.
    """

    name: str
    objective: object
    theta: np.ndarray
    kind: str
    n_positive: int | None = None
    n_negative: int | None = None
    n_zero: int | None = None
    value: float | None = None


class LinearAutoencoder(ReadOnlyMixin):
    """The linear autoencoder n-p-n on data with covariance eigenvalues `spectrum`, all of whose
    critical points are known in closed form.

    For every index set I with ``|I| = k <= p`` there is a critical point ``W2 W1 = U_I U_I'``,
    where the columns of U_I are the eigenvectors of the indices in I; only ``I = {1..p}`` gives a
    minimum [1]_.

    Parameters
    ----------
    spectrum : array_like, shape (n,)
        Distinct positive eigenvalues in descending order.
    p : int
        The width of the hidden layer.
    n_samples : int, optional
        At least n; the data are constructed so that their covariance is exact up to rounding.
    rng : None, int or numpy.random.Generator
        Seed or generator for the eigenvectors and the data.

    Attributes
    ----------
    objective : Objective
        The objective on `X` with targets `X`, mse, no bias.
    X : ndarray, shape (n_samples, n)
        The data.

    References
    ----------
    .. [1] P. Baldi and K. Hornik, Neural networks and principal component analysis, Neural Networks
           2, 1989.

    Examples
    --------
    >>> net = LinearAutoencoder([3.0, 2.0, 1.0], 1, rng=0)
    >>> [(case.name, case.kind, case.n_negative) for case in net.cases()][:2]
    [('3-1-3 autoencoder, I = {}', 'saddle', 3), ('3-1-3 autoencoder, I = {1}', 'minimum', 0)]
    """

    spectrum: np.ndarray
    p: int
    U: np.ndarray
    X: np.ndarray
    objective: Objective
    _read_only = frozenset(("spectrum", "p", "U", "X", "objective"))

    def __init__(
        self,
        spectrum: Any,
        p: int,
        *,
        n_samples: Any = None,
        rng: Any = 0,
    ) -> None:
        self.spectrum = np.atleast_1d(check_array(spectrum, "spectrum", np.float64))
        n = self.spectrum.size
        if self.spectrum.ndim != 1 or not n:
            raise ValueError(
                f"spectrum must have shape (n,) with n >= 1, got {self.spectrum.shape}."
            )
        if not (np.diff(self.spectrum) < 0).all() or not self.spectrum[-1] > 0:
            raise ValueError(
                f"spectrum must hold distinct positive numbers, descending, got {self.spectrum}."
            )
        self.p = check_positive_int(p, "p")
        N = n if n_samples is None else check_positive_int(n_samples, "n_samples")
        rng = as_rng(rng)
        self.U = np.linalg.qr(rng.standard_normal((n, n)))[0]
        Q = np.linalg.qr(rng.standard_normal((N, n)))[0]
        self.X = (Q * np.sqrt(N * self.spectrum)) @ self.U.T
        self.objective = Objective(MLP([n, p, n], "identity", bias=False), self.X, self.X, "mse")

    def critical_point(self, indices: Any, rng: Any = None) -> np.ndarray:
        """Return theta (2 n p,) of a critical point with ``W2 W1 = U_I U_I'``. `indices` are the
        indices I, counted from 1. With `rng`, W1 and W2 are replaced by ``A W1`` and ``W2 A^-1``
        with a random matrix A, which does not change the loss.
        """
        indices = sorted(int(i) - 1 for i in indices)
        k = len(indices)
        n = self.spectrum.size
        if (
            len(set(indices)) != k
            or k > self.p
            or indices
            and not (indices[0] >= 0 and indices[-1] < n)
        ):
            raise ValueError(
                f"indices must be at most {self.p} different ints from 1 to {n}, got "
                f"{[i + 1 for i in indices]}."
            )
        W1 = np.zeros((self.p, n))
        W1[:k] = self.U[:, indices].T
        W2 = W1.T.copy()
        if rng is not None:
            rng = as_rng(rng)
            A = np.eye(self.p) + 0.3 * rng.standard_normal((self.p, self.p))
            W1 = A @ W1
            W2 = W2 @ np.linalg.inv(A)
        return np.concatenate([W1.ravel(), W2.ravel()])

    def case(self, indices: Any, rng: Any = None, objective: Any = None) -> Case:
        """Return the `Case` of an index set, with verdict, loss and inertia in closed form. `rng`
        is that of `critical_point`, and `objective` replaces the objective of the case.
        """
        n = self.spectrum.size
        p = self.p
        inside = set(indices)
        k = len(inside)
        outside = [j for j in range(1, n + 1) if j not in inside]
        n_negative = sum(j < i for i in inside for j in outside) + (p - k) * (n - k)
        n_zero = k * k + 2 * k * (p - k)
        name = f"{n}-{p}-{n} autoencoder, I = {{{', '.join(map(str, sorted(inside)))}}}"
        return Case(
            name,
            self.objective if objective is None else objective,
            self.critical_point(indices, check_rng(rng)),
            "saddle" if n_negative else "minimum",
            2 * n * p - n_negative - n_zero,
            n_negative,
            n_zero,
            float(self.spectrum[[j - 1 for j in outside]].sum() / n),
        )

    def cases(self, rng: Any = None, limit: int | None = None) -> list[Case]:
        """Return the cases of all index sets, as a list. With `limit`, return those of `limit`
        random sets, the empty set and the set of the minimum. `rng` is also that of
        `critical_point`.
        """
        n = self.spectrum.size
        rng = check_rng(rng)
        sets = [s for k in range(min(self.p, n) + 1) for s in combinations(range(1, n + 1), k)]
        if limit is not None and limit < len(sets):
            best = tuple(range(1, self.p + 1))
            drawn = as_rng(rng).permutation(len(sets))[:limit]
            sets = [(), best] + [sets[i] for i in sorted(drawn) if sets[i] not in ((), best)]
        return [self.case(s, rng) for s in sets]


def lecture_toy() -> Objective:
    """Return the objective ``(1 - w2 w1)^2``: a 1-1-1 linear network without bias on x = 1, y = 1,
    with H(0) = [[0, -2], [-2, 0]].
    """
    return Objective(MLP([1, 1, 1], "identity", bias=False), [[1.0]], [[1.0]], "mse")
