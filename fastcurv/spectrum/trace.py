"""Trace, diagonal and Frobenius norm of an operator from products with random vectors, with
standard errors.
"""

import numpy as np

from ..checks import (
    check_choice,
    check_positive_int,
    check_symmetric_operator,
    either_seed,
    old_name,
    operator_dtype,
    refuse_unknown,
)
from ..krylov.basis import combine, project, subtract
from ..krylov.lanczos import NOT_FINITE
from ..progress import bar
from .density import random_signs
from .results import Estimate, widened

FOREIGN = {"maxiter": "n_probes", "num_samples": "n_probes", "tol": "n_probes"}
BLOCK = 16
# leave-one-out estimates share all samples but one: their scatter shows this much too small an
# error
LEFT_OUT = 1.75
# how far Student's interval falls short for squares of Gaussians, what ``v'Hv`` is where one
# eigenvalue dominates: it must be ``1 + SKEWED / m`` times as wide, to be right 19 times in 20
SKEWED = 13.0


def trace(
    op,
    n_probes=None,
    method="auto",
    seed=None,
    *,
    rng=None,
    progress=False,
    n_samples=None,
    **foreign,
):
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
        ``"hutchinson"``: the mean of ``v'Hv`` over random signs v. ``"hutch++"``: exact on the
        range of ``n_probes / 3`` products, Hutchinson on the rest; far better where few
        eigenvalues dominate. ``"xtrace"``: the same idea with every sample in every role, best of
        all, at the cost of n_probes vectors in memory. ``"auto"``: Hutchinson where
        ``op.quadratic`` exists, else XTrace. From n samples on it is exact: n products.
    seed : None, int or numpy.random.Generator
    rng
        Another name of `seed`, as SciPy has it.
    progress : bool

    Returns
    -------
    Estimate
        ``estimate, stderr, n_products``. Two standard errors cover the truth 19 times in 20, from 6
        samples on: they are widened by Student's t where samples are few, where few samples carry
        the sum, and for leave-one-out estimates by their correlation and by what each leaves out.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

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
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples, foreign)
    check_choice(method, ("auto", "hutchinson", "hutch++", "xtrace"), "method")
    apply = _Counted(op)
    if m >= apply.n and method == "auto":
        return apply.estimate(apply.exact_diagonal().sum(), 0.0, "exact")
    if method == "auto":
        method = "hutchinson" if apply.has_quadratic or m < 8 else "xtrace"
    with bar(m, "trace", progress) as apply.shown:
        if method == "hutchinson":
            return apply.estimate(*apply.hutchinson(rng, m), method)
        if method == "hutch++":
            return _hutch_pp(apply, rng, m)
        return apply.estimate(*_Sketch(apply, rng, m).trace(), method)


def diagonal(
    op,
    n_probes=None,
    method="auto",
    seed=None,
    *,
    rng=None,
    progress=False,
    n_samples=None,
    **foreign,
):
    """The diagonal of a symmetric operator, estimated from `n_probes` products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
    n_probes : int
        Products; default 60. Its old name, n_samples, still works.
    method : str
        ``"hutchinson"``: the mean of ``v * Hv`` over random signs v. ``"xdiag"``: exact on the
        range of half of the products, leave-one-out on the rest. ``"auto"``: ``"xdiag"`` from 8
        samples on. From n samples on it is exact: n products.
    seed : None, int or numpy.random.Generator
    rng
        Another name of `seed`, as SciPy has it.
    progress : bool

    Returns
    -------
    Estimate
        ``estimate (n,), stderr (n,), n_products``; errors as for `trace`, entry by entry.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

    References
    ----------
    .. [1] E. Epperly, J. Tropp and R. Webber, XTrace, SIAM J. Matrix Anal. Appl. 45 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> diagonal(np.diag([1.0, 2.0, 3.0]), n_probes=3).estimate
    array([1., 2., 3.])
    """
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples, foreign)
    check_choice(method, ("auto", "hutchinson", "xdiag"), "method")
    apply = _Counted(op)
    if m >= apply.n and method == "auto":
        return apply.estimate(apply.exact_diagonal(), np.zeros(apply.n), "exact")
    if method == "auto":
        method = "xdiag" if m >= 8 else "hutchinson"
    with bar(m, "diagonal", progress) as apply.shown:
        if method == "xdiag":
            return apply.estimate(*_Sketch(apply, rng, m).diagonals(), method)
        total, squares = np.zeros(apply.n), np.zeros(apply.n)
        for V in apply.probes(rng, m):
            samples = V.astype(np.float64) * apply.products(V)
            total += samples.sum(axis=0)
            squares += (samples**2).sum(axis=0)
        return apply.estimate(*_from_sums(total, squares, m), method)


def frobenius_norm(
    op,
    n_probes=None,
    method="auto",
    seed=None,
    *,
    rng=None,
    progress=False,
    n_samples=None,
    **foreign,
):
    """The Frobenius norm of a symmetric operator, the root of the sum of its squared eigenvalues.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
    n_probes : int
        Products; default 60. Its old name, n_samples, still works.
    method : str
        ``"hutchinson"``: from the mean of ``||Hv||^2`` over random signs v. ``"hutch++"``: exact on
        the range of a third of the products. ``"auto"``: ``"hutch++"`` from 8 samples on. From n
        samples on it is exact: n products.
    seed : None, int or numpy.random.Generator
    rng
        Another name of `seed`, as SciPy has it.
    progress : bool

    Returns
    -------
    Estimate
        The square is unbiased, the root is biased by about ``-stderr**2 / (2 estimate)``; errors as
        for `trace`.

    Raises
    ------
    ValueError
        Where the operator returns NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> float(frobenius_norm(np.diag([3.0, 4.0]), n_probes=2))
    5.0
    """
    op, m, rng = _asked(op, n_probes, seed, rng, n_samples, foreign)
    check_choice(method, ("auto", "hutchinson", "hutch++"), "method")
    apply = _Counted(op)
    with bar(m, "frobenius_norm", progress) as apply.shown:
        if m >= apply.n and method == "auto":
            square, error, method = (
                sum(_squares(apply.products(E)).sum() for E in apply.unit_rows()),
                0.0,
                "exact",
            )
        elif method == "hutch++" or (method == "auto" and m >= 8):
            method = "hutch++"
            Q = apply.range(rng, m // 3)
            known = _squares(apply.products(Q)).sum()
            rest, error = _mean(
                np.concatenate(
                    [
                        _squares(apply.products(_outside(Q, V)))
                        for V in apply.probes(rng, m - 2 * (m // 3))
                    ]
                )
            )
            square = known + rest
        else:
            method = "hutchinson"
            square, error = _mean(
                np.concatenate([_squares(apply.products(V)) for V in apply.probes(rng, m)])
            )
    norm = max(float(square), 0.0) ** 0.5
    # the root of what lies 2 errors below is further from the norm than the slope there says
    least = max(norm**2 - 2 * error, 0.0) ** 0.5
    return apply.estimate(norm, error / (norm + least) if error > 0 else 0.0, method)


def _asked(op, n_probes, seed, rng, n_samples, foreign):
    """The operator, the number of probes and the generator, checked; old and foreign names told."""
    refuse_unknown("the estimate", foreign, FOREIGN)
    n_probes = old_name("n_samples", n_samples, "n_probes", n_probes, depth=4)
    m = check_positive_int(60 if n_probes is None else n_probes, "n_probes")
    return check_symmetric_operator(op), m, either_seed(seed, rng)


class _Counted:
    """The operator on rows of vectors, with its applications counted."""

    def __init__(self, op):
        self.op, self.n, self.dtype = op, op.shape[0], operator_dtype(op)
        self.has_quadratic = hasattr(op, "quadratic")
        self.n_products = self.n_quadratic = 0
        self.shown = self.exponent = None

    def estimate(self, value, stderr, method):
        unit = 2.0 ** (self.exponent or 0)
        value, stderr = unit * value, unit * stderr
        if not np.isfinite(value).all():
            raise ValueError(
                f"the estimate by method={method!r} is beyond float64; wanted an operator scaled "
                "down"
            )
        if np.ndim(value) == 0:
            value, stderr = float(value), float(stderr)
        return Estimate(value, stderr, self.n_products, self.n_quadratic, method)

    def _told(self, k):
        self.n_products += k
        if self.shown is not None:
            self.shown.update(k)

    def products(self, V):
        """Rows ``H v`` for rows v."""
        if not len(V):
            return np.zeros((0, self.n), self.dtype)
        self._told(len(V))
        Y = (
            self.op @ np.ascontiguousarray(V.T)
            if len(V) > 1
            else np.reshape(self.op @ V[0], (-1, 1))
        )
        return self._in_range(np.ascontiguousarray(np.asarray(Y).T))

    def forms(self, V):
        """``v'Hv`` for rows v, in float64."""
        if not self.has_quadratic:
            return _dots(V, self.products(V))
        self._told(len(V))
        self.n_quadratic += len(V)
        return self._in_range(
            np.atleast_1d(
                np.asarray(self.op.quadratic(np.ascontiguousarray(V.T)), dtype=np.float64)
            )
        )

    def _in_range(self, Y):
        """Finite numbers of the operator over the unit, a power of two that the first of them that
        are not zero decide; so that squares and sums stay in range.
        """
        if self.exponent is None:
            largest = float(np.abs(Y).max(initial=0.0))
            if np.isfinite(largest) and largest > 0:
                exponent = int(np.frexp(largest)[1])
                small, large = (30, 120) if Y.dtype == np.float32 else (300, 1000)
                self.exponent = (
                    0 if abs(exponent) <= small else int(np.clip(exponent, -large, large))
                )
        if self.exponent:
            Y = Y * Y.dtype.type(2.0**-self.exponent)
        if not np.isfinite(Y).all():
            raise ValueError(NOT_FINITE)
        return Y

    def probes(self, rng, m):
        """M rows of random signs, a block at a time."""
        for start in range(0, m, BLOCK):
            yield random_signs(rng, min(BLOCK, m - start), self.n, self.dtype)

    def hutchinson(self, rng, m):
        """The mean of ``v'Hv`` and its standard error.

        Its variance is twice the sum of those of the entries ``v_i (Hv)_i``. Where products are
        made, that shows scatter that few samples of the sum can miss.
        """
        if self.has_quadratic or m < 2:
            return _mean(np.concatenate([self.forms(V) for V in self.probes(rng, m)]))
        samples, total, squares = [], np.zeros(self.n), np.zeros(self.n)
        for V in self.probes(rng, m):
            entries = V.astype(np.float64) * self.products(V)
            samples.append(entries.sum(axis=1))
            if not len(samples) > 1:
                first = entries[0]
            total += (entries - first).sum(axis=0)
            squares += ((entries - first) ** 2).sum(axis=0)
        mean, stderr = _mean(np.concatenate(samples))
        variance = max(2 * float((squares - total**2 / m).sum()) / (m - 1), 0.0)
        return mean, max(stderr, widened(m) * (variance / m) ** 0.5)

    def unit_rows(self):
        for start in range(0, self.n, BLOCK):
            E = np.zeros((min(BLOCK, self.n - start), self.n), self.dtype)
            E[np.arange(len(E)), start + np.arange(len(E))] = 1
            yield E

    def exact_diagonal(self):
        return np.concatenate(
            [
                [y[start + i] for i, y in enumerate(self.products(E))]
                for start, E in zip(range(0, self.n, BLOCK), self.unit_rows())
            ]
        ).astype(np.float64)

    def range(self, rng, m):
        """Orthonormal rows that span the products with m random vectors."""
        from ..krylov.basis import orthonormalise

        Q = np.concatenate([self.products(V) for V in self.probes(rng, m)])
        B, _ = orthonormalise(Q)
        return Q[: len(B)]


class _Sketch:
    """Products with random signs, the range they span, and products with that: what XTrace and
    XDiag are made of.

    With ``Y = H O``, ``Y = Q R`` and ``s_i`` the unit vector along column i of ``R^-T``, the range
    without column i is ``Q (I - s_i s_i')``: every sample can be the test vector of the range of
    all the others.
    """

    def __init__(self, apply, rng, m):
        half = m // 2
        if half < 2:
            raise ValueError(
                f"n_probes is {m}; wanted at least 4 for a leave-one-out method, or "
                "method='hutchinson'"
            )
        self.n, half = apply.n, min(half, apply.n)
        self.O = np.concatenate(list(apply.probes(rng, half)))
        self.Y = np.concatenate(
            [apply.products(self.O[i : i + BLOCK]) for i in range(0, half, BLOCK)]
        )
        Q, R = np.linalg.qr(self.Y.T.astype(np.float64))
        self.Q, self.R = np.ascontiguousarray(Q.T), R
        self.Z = np.concatenate(
            [
                apply.products(self.Q[i : i + BLOCK].astype(apply.dtype))
                for i in range(0, half, BLOCK)
            ]
        )
        self.S = _leave_one_out(R)

    def traces(self):
        """One estimate of the trace for each sample left out."""
        m, S, R = len(self.O), self.S, self.R
        H = project(self.Q, self.Z.astype(np.float64))
        H = (H + H.T) / 2
        W = project(self.Q, self.O.astype(np.float64)).T
        left_out = np.einsum("ij,ij->j", S, H @ S)
        inside = np.trace(H) - left_out
        P = W - S * np.einsum("ij,ij->j", S, W)
        forms = (
            _dots(self.O, self.Y)
            - 2 * np.einsum("ij,ij->j", P, R)
            + np.einsum("ij,ij->j", P, H @ P)
        )
        lengths = self.n - (P**2).sum(axis=0)
        rank = min(m, self.n) - 1
        small = lengths <= 1e-12 * self.n
        rest = np.where(small, 0.0, forms * (self.n - rank) / np.where(small, 1.0, lengths))
        return inside + rest, left_out

    def trace(self):
        """The mean over the samples left out, and its standard error.

        Where the sketch has as many vectors as there are large eigenvalues, all samples can be
        wrong together: each leaves out a direction s_i that no other vector has, and its test vector
        can have next to nothing along it. What lies along s_i is known, so that is added.
        """
        samples, left_out = self.traces()
        mean, scatter = float(samples.mean()), float(samples.std(ddof=1)) / len(samples) ** 0.5
        return mean, float(
            np.hypot(LEFT_OUT * widened(len(samples)) * scatter, np.abs(left_out).mean())
        )

    def diagonals(self):
        """The mean and standard error of the diagonals, one for each sample left out."""
        m, S = len(self.O), self.S
        whole = (self.Q * self.Z).sum(axis=0)
        total, squares, left_out = np.zeros((3, self.n))
        along = np.einsum("ij,ij->j", S, self.R)
        for start in range(0, m, BLOCK):
            cut = slice(start, start + BLOCK)
            QS, ZS = combine(self.Q, S[:, cut]), combine(self.Z.astype(np.float64), S[:, cut])
            samples = whole - QS * ZS + self.O[cut] * QS * along[cut, None]
            left_out += np.abs(QS * ZS).sum(axis=0)
            total += samples.sum(axis=0)
            squares += ((samples - whole) ** 2).sum(axis=0)
        mean = total / m
        variance = np.maximum(squares / m - (mean - whole) ** 2, 0) * m / max(1, m - 1)
        return mean, np.hypot(LEFT_OUT * widened(m) * np.sqrt(variance / m), left_out / m)


def _leave_one_out(R):
    """Unit columns ``s_i`` along ``R^-T e_i``; a singular R is shifted by its rounding."""
    m, scale = len(R), np.abs(np.diag(R)).max(initial=0.0)
    floor = np.finfo(float).eps * m * scale
    safe = R + np.diag(np.where(np.abs(np.diag(R)) <= floor, floor or 1.0, 0.0))
    S = np.linalg.solve(safe.T, np.eye(m))
    return S / np.linalg.norm(S, axis=0)


def _hutch_pp(apply, rng, m):
    """Exact on the range of m/3 products, Hutchinson outside it."""
    third = m // 3
    if third < 1 or m - 2 * third < 2:
        raise ValueError(
            f"n_probes is {m}; wanted at least 4 for method='hutch++', or method='hutchinson'"
        )
    Q = apply.range(rng, third)
    known = float(sum(apply.forms(Q[i : i + BLOCK]).sum() for i in range(0, len(Q), BLOCK)))
    rest = np.concatenate(
        [apply.forms(_outside(Q, V)) for V in apply.probes(rng, m - third - len(Q))]
    )
    mean, error = _mean(rest)
    return apply.estimate(known + mean, error, "hutch++")


def _outside(Q, V):
    """Rows of `V` less their part in the row space of `Q`, in place."""
    if len(Q):
        subtract(Q, V, project(Q, V))
    return V


def _dots(A, B):
    return np.array(
        [
            float(np.dot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))
            for a, b in zip(A, B)
        ]
    )


def _squares(Y):
    return _dots(Y, Y)


def _mean(samples):
    """The mean of independent samples ``v'Hv`` and its widened standard error; NaN from one sample.

    Student's interval, wider where few samples carry the sum: their skewness says so, as far as it
    can be seen, since a few samples look harmless just where they missed the large ones.
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
    stderr = largest * (variance / (m - 1)) ** 0.5 * widened(m) * (1 + SKEWED / m * share)
    return float(samples.mean()), stderr


def _from_sums(total, squares, m):
    mean = total / m
    if m == 1:
        return mean, np.full_like(mean, np.nan)
    variance = np.maximum(squares / m - mean**2, 0) * m / (m - 1)
    return mean, widened(m) * np.sqrt(variance / m)
