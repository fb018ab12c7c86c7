"""Claims about probability, tested by frequencies over seeds. Each function returns the number of
runs in which its claim held, and the promised probability.
"""

from itertools import product

import numpy as np
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.critical.evidence import CURVATURE_TOL
from fastcurv.testing import PrescribedSpectrum, QuadraticObjective

N = 60
ESTIMATES = [fc.trace, fc.frobenius_norm, fc.diagonal]
SPECTRA = ["normal", "dominant", "two", "half", "copies", "powers", "one sign", "block"]


def spectrum(kind, draw):
    """Return N eigenvalues of the named kind, whose sum is dominated by a few, by many, or by as
    many as a sketch has vectors.
    """
    values = draw.standard_normal(N)
    if kind == "dominant":
        values[0] = 10.0 ** draw.uniform(1, 4)
    elif kind == "two":
        values[:2] = 100.0, -100.0
    elif kind == "half":
        values[: N // 2] *= 1e3
    elif kind == "copies":
        values[:10] = 50.0
    elif kind == "powers":
        values = 10.0 ** -np.linspace(0, draw.uniform(1, 8), N)
    elif kind == "one sign":
        values = np.abs(values) + 0.1
    elif kind == "block":
        values = np.r_[np.full(int(draw.integers(1, 20)), 30.0), values][:N]
    return values


def two_standard_errors(function, m, kind, runs):
    """Return the number of runs in which ``|estimate - truth| <= 2 stderr``, and the promised
    fraction, 0.95.
    """
    inside = 0
    for seed in range(runs):
        draw = np.random.default_rng([seed, m])
        op, truth, size = (few_couplings if kind in SPARSE else prescribed)(kind, draw, seed)
        found = function(op, m, method="hutchinson", rng=draw)
        value, stderr = np.atleast_1d(found.estimate)[0], np.atleast_1d(found.stderr)[0]
        inside += abs(value - truth[function]) <= 2 * stderr + 1e-10 * size
    return int(inside), 0.95


def prescribed(kind, draw, seed):
    """Return (operator, truth, norm): a matrix with the eigenvalues of `spectrum`, a dict with the
    exact result of each estimator, and the largest |eigenvalue|.
    """
    values = spectrum(kind, draw)
    op = PrescribedSpectrum(values, 3, rng=seed)
    truth = {
        fc.trace: values.sum(),
        fc.frobenius_norm: np.linalg.norm(values),
        fc.diagonal: (op @ np.eye(N)[0])[0],
    }
    return op, truth, np.abs(values).max()


SPARSE = ["pair", "pair and noise", "three pairs", "triangle", "blocks", "dominant and pair"]


def sparse(kind, draw):
    """Return a matrix of shape (N, N) with few nonzero off-diagonal entries, for which quadratic
    forms of random signs take few values.
    """
    A = np.zeros((N, N))
    pairs = {"three pairs": 3, "triangle": 0, "blocks": N // 2}.get(kind, 1)
    for i in range(pairs):
        A[2 * i, 2 * i + 1] = A[2 * i + 1, 2 * i] = 10.0 ** (-i if kind == "three pairs" else 0)
    if kind == "triangle":
        A[:3, :3] = 1 - np.eye(3)
    elif kind == "pair and noise":
        noise = 1e-3 * draw.standard_normal((N, N))
        A += noise + noise.T
    elif kind == "dominant and pair":
        Q = np.linalg.qr(draw.standard_normal((N - 2, 2)))[0]
        A[2:, 2:] = 10 * Q @ Q.T
    return A


def few_couplings(kind, draw, seed):
    """Return (operator, truth, size): a matrix of `sparse`, a dict with the exact result of each
    estimator, and the largest |entry|.
    """
    A = sparse(kind, draw)
    truth = {fc.trace: np.trace(A), fc.frobenius_norm: np.linalg.norm(A), fc.diagonal: A[0, 0]}
    return LinearOperator(A.shape, A.dot, matmat=A.dot), truth, np.abs(A).max()


def a_minimum_at_a_risk(n, risk, runs):
    """Return the number of runs in which no minimum is reported for a matrix of n rows whose least
    eigenvalue, isolated from the others, lies below minus the tolerance, and the promised fraction,
    1 - risk.
    """
    right, tol = 0, CURVATURE_TOL
    for seed in range(runs):
        draw = np.random.default_rng([seed, n])
        values = draw.uniform(0.0, 1.0, n) ** 2
        values[-1], values[0] = 1.0, -1.02 * tol / (1 - 1.02 * tol)
        ob = QuadraticObjective(PrescribedSpectrum(values, 3, rng=seed), np.zeros(n))
        said = fc.classify(
            ob,
            np.zeros(n),
            dense_below=0,
            failure_probability=risk,
            rng=draw,
        )
        right += said.kind != "minimum"
    return int(right), 1 - risk


def claims(samples=(6, 10, 30)):
    """Return the list of all claims as (name, (function, arguments)). The function takes the
    arguments and the number of runs, and returns the number of runs that satisfy the claim and the
    promised fraction.
    """
    found = []
    for function, m, kind in product(ESTIMATES, samples, SPECTRA + SPARSE):
        if m >= 12 or kind in SPECTRA:  # for `SPARSE`, no coverage is promised with fewer probes
            name = f"{function.__name__} {m} {kind}"
            found.append((name, (two_standard_errors, (function, m, kind))))
    for n, risk in product((100, 400), (0.02, 0.3)):
        found.append((f"minimum at {risk} of {n}", (a_minimum_at_a_risk, (n, risk))))
    return found
