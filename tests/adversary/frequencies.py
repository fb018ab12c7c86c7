"""Claims about chance, by frequency over seeds: each gives how often it held of how many runs, and
the chance that was promised.
"""

from itertools import product

import numpy as np

import fastcurv as fc
from fastcurv.testing import PrescribedSpectrum, QuadraticObjective

N = 60
ESTIMATES = [
    (fc.trace, "hutchinson"),
    (fc.trace, "hutch++"),
    (fc.trace, "xtrace"),
    (fc.frobenius_norm, "hutchinson"),
    (fc.frobenius_norm, "hutch++"),
    (fc.diagonal, "hutchinson"),
    (fc.diagonal, "xdiag"),
]
SPECTRA = ["normal", "dominant", "two", "half", "copies", "powers", "one sign", "block"]


def spectrum(kind, draw):
    """Eigenvalues of which few carry the sum, or many, or as many as a sketch has vectors."""
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


def two_standard_errors(function, method, m, kind, runs):
    """``|estimate - truth| <= 2 stderr`` in 19 of 20 runs."""
    inside = 0
    for seed in range(runs):
        draw = np.random.default_rng([seed, m])
        values = spectrum(kind, draw)
        op = PrescribedSpectrum(values, 3, seed=seed)
        found = function(op, m, method=method, seed=draw)
        value, stderr = np.atleast_1d(found.estimate)[0], np.atleast_1d(found.stderr)[0]
        truth = {
            fc.trace: values.sum(),
            fc.frobenius_norm: np.linalg.norm(values),
            fc.diagonal: (op @ np.eye(N)[0])[0],
        }[function]
        inside += abs(value - truth) <= 2 * stderr + 1e-10 * np.abs(values).max()
    return int(inside), 0.95


def moments_of_a_density(power, kind, probes, runs):
    """A moment of the density lies within 2 stderr of that of the spectrum in 19 of 20 runs."""
    inside = 0
    for seed in range(runs):
        draw = np.random.default_rng([seed, probes])
        values = spectrum(kind, draw)
        d = fc.spectral_density(PrescribedSpectrum(values, 3, seed=seed), probes, N, seed=draw)
        found, truth = d.moment(power), float((values**power).mean())
        size = float((np.abs(values) ** power).max())
        inside += abs(found.estimate - truth) <= 2 * found.stderr + 1e-9 * size
    return int(inside), 0.95


def a_minimum_at_a_risk(n, risk, runs):
    """Where the least eigenvalue lies beyond the tolerance, `minimum` is said no more often than
    the risk that was asked for; the rest of the spectrum hides it as well as it can.
    """
    right, tol = 0, 1e-2
    for seed in range(runs):
        draw = np.random.default_rng([seed, n])
        values = draw.uniform(0.0, 1.0, n) ** 2
        values[-1], values[0] = 1.0, -1.02 * tol / (1 - 1.02 * tol)
        ob = QuadraticObjective(PrescribedSpectrum(values, 3, seed=seed), np.zeros(n))
        said = fc.classify(
            ob,
            np.zeros(n),
            dense_below=0,
            failure_probability=risk,
            curvature_tol=tol,
            seed=draw,
        )
        right += said.kind != "minimum"
    return int(right), 1 - risk


def claims(samples=(6, 10, 30), probes=(6, 12)):
    """Every claim as ``(name, runs -> (held, promised))``."""
    found = []
    for (function, method), m, kind in product(ESTIMATES, samples, SPECTRA):
        name = f"{function.__name__} {method} {m} {kind}"
        found.append((name, (two_standard_errors, (function, method, m, kind))))
    for power, kind, p in product((1, 2), SPECTRA, probes):
        found.append((f"moment {power} {kind} {p}", (moments_of_a_density, (power, kind, p))))
    for n, risk in product((100, 400), (0.02, 0.3)):
        found.append((f"minimum at {risk} of {n}", (a_minimum_at_a_risk, (n, risk))))
    return found
