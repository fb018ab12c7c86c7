"""Costs and stated errors of results for prescribed spectra and dense matrices, for the
golden file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.spectrum.draw import reflect_density_at_bounds

from ..golden import masked
from .spectra import SPECTRA, Prescribed

PAIRS: dict[str, dict[str, Any]] = {
    "largest": {"which": "LM"},
    "both ends": {"k": 5, "which": "BE"},
    "lowest, loose": {"which": "SA", "tol": 1e-3},
    "small basis": {"which": "LA", "max_basis": 14},
    "few products": {"which": "SA", "max_products": 25},
    "one start": {"which": "LA", "probe": False, "k": 3},
}
DENSITIES: dict[str, dict[str, Any]] = {
    "plain": {"n_probes": 3, "n_steps": 30},
    "logarithmic": {"n_probes": 2, "n_steps": 25, "axis": "log"},
    "narrow": {"n_probes": 2, "n_steps": 20, "width": 0.02, "n_grid": 64},
}
ESTIMATES = {
    "few": {"n_probes": 6, "method": "hutchinson"},
    "auto": {"n_probes": 30},
    "default": {},
}


def operator(name: str, dtype: str = "float64") -> Prescribed:
    return Prescribed(SPECTRA[name](np.random.default_rng(3)), rng=4, dtype=dtype)


def describe_pairs(name: str) -> dict[str, dict[str, Any]]:
    """Return ``{search: {quantity: number}}`` with products, scale, convergence and tolerance of
    searches for eigenpairs with various options.
    """
    found: dict[str, dict[str, Any]] = {}
    for what, words in PAIRS.items():
        pairs = fc.eigsh(operator(name), **{"k": 6, **words}, rng=5)
        found[what] = {
            "products": pairs.n_products, "scale": pairs.scale, "converged": pairs.converged.sum(),
            "probed": pairs.probed, "tol": pairs.tol,
            "missed_within": min(pairs.missed_within, 1e9),
        }  # fmt: skip
    return found


def describe_densities(name: str) -> dict[str, dict[str, Any]]:
    """Return ``{options: {quantity: number}}`` for densities, with the grid's ends and with heights
    and errors summed with the weights cos(0), cos(1), ...
    """
    found: dict[str, dict[str, Any]] = {}
    for what, words in DENSITIES.items():
        d = fc.spectral_density(operator(name), **words, rng=8)
        places = np.cos(np.arange(len(d.grid)))
        found[what] = {
            "products": d.n_products, "width": d.width, "from": d.grid[0], "to": d.grid[-1],
            "heights": d.density @ places, "top": d.density.max(),
            "errors": np.nan_to_num(d.stderr) @ places, "nodes": len(d.nodes),
            "deflated": d.n_deflated, "below": d.linear_below,
        }  # fmt: skip
    return found


def describe_estimates(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for what, words in ESTIMATES.items():
        for question in (fc.trace, fc.diagonal, fc.frobenius_norm):
            e = question(operator(name), **words, rng=9)
            places = np.cos(np.arange(np.size(e.estimate)))
            found[f"{what}, {question.__name__}"] = {
                "products": e.n_products, "value": np.atleast_1d(e.estimate) @ places,
                "error": np.atleast_1d(e.stderr) @ places, "squares": e.n_quadratic_forms,
            }  # fmt: skip
    return found


def text_and_numbers(found: Any) -> list[Any]:
    """Return a list with the text of a result, in which # replaces numbers, followed by these
    numbers and by attributes that the text omits.
    """
    text, numbers = masked(repr(found))
    names = "n_products probed scale tol missed_within error_bound"
    for name in names.split():
        value = getattr(found, name, None)
        numbers.append(-1.0 if value is None or not np.isfinite(value) else float(value))
    vectors = getattr(found, "vectors", None)
    if vectors is not None and vectors.size:
        G = vectors.T.astype(float) @ vectors
        numbers += [float(len(G)), float(np.abs(G - np.eye(len(G))).max() < 1e-3)]
    return [text, *numbers]


def describe_density(d: Any) -> list[Any]:
    """Return a list with the text of a density, followed by the numbers in the text, its integral,
    masses, and a weighted sum of its heights.
    """
    text, numbers = masked(repr(d))
    numbers += [d.n_products, d.integral(), d.width, d.grid[0], d.grid[-1], len(d.nodes)]
    for estimate in (d.mass(), d.mass(0.1), d.mass(-0.2, 0.3)):
        numbers += [float(estimate.estimate), float(np.nan_to_num(estimate.stderr))]
    numbers += [float(d.density @ np.cos(np.arange(len(d.density))))]
    part = reflect_density_at_bounds(d, low=0.0)
    return [text, *map(float, numbers), float(np.nansum(part.density)), float(part.grid[0])]


def matrix(name: str, n: int) -> Any:
    """Return the (n, n) matrix of the given name: "diagonal", "positive", "pairs" (of opposite
    eigenvalues) or "tiny". Any other name gives a matrix of cosines.
    """
    d = np.round(np.linspace(-1.0, 3.0, n), 3)
    if name == "diagonal":
        return np.diag(d)
    if name == "positive":
        return np.diag(d + 1.5)
    if name == "pairs":  # blocks with opposite eigenvalues
        A = np.zeros((n, n))
        at = np.arange(0, n - 1, 2)
        A[at, at + 1] = A[at + 1, at] = 1 + at / 8
        return A
    return 1e-200 * np.diag(d) if name == "tiny" else np.cos(np.add.outer(d, d) * 7)


def dense_matrices() -> dict[str, list[Any]]:
    """Return ``{name: text and numbers}`` for inertias of matrices and operators, and for
    eigenpairs of 60 rows.
    """
    found: dict[str, list[Any]] = {}
    for name in ("diagonal", "positive", "pairs", "tiny", "waves"):
        for n in (1, 2, 3, 40, 150):
            A = matrix(name, n)
            found[f"{name}, {n}, matrix"] = text_and_numbers(fc.inertia(A))
            products = LinearOperator(A.shape, A.__matmul__, dtype=np.float64)
            found[f"{name}, {n}, products"] = text_and_numbers(fc.inertia(products))
    for end in (30, 55):
        found[f"tables of {end}"] = text_and_numbers(
            fc.eigsh(np.diag(np.arange(60.0)), end, tol=0.1, rng=1)
        )
    return found


# spectra for which rounding changes no count
NAMES = ("uniform", "hessian", "tiny", "double", "two values")
SHARED: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "by whole matrices": dense_matrices,
}
SECTIONS = (*NAMES, *SHARED)


def golden(section: str) -> dict[str, Any]:
    if section in SHARED:
        return SHARED[section]()
    return describe_pairs(section) | describe_densities(section) | describe_estimates(section)
