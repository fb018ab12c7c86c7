"""What questions about known spectra cost, and what is said of their errors: `test_figures` holds
them.

    python -m tests.agreement spectrum

writes them down anew, which is to be done where a cost or a bound is meant to change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc

from ..agreement import lined, served_by
from .spectra import SPECTRA, Prescribed

NAMES = ("uniform", "hessian", "tiny", "double", "two values")  # where rounding decides no count
PAIRS: dict[str, dict[str, Any]] = {
    "largest": {"which": "LM"},
    "both ends": {"k": 5, "which": "BE"},
    "lowest, loose": {"which": "SA", "tol": 1e-3},
    "of their own size": {"which": "LA", "relative": "value", "k": 4},
    "small basis": {"which": "LA", "max_basis": 14},
    "few products": {"which": "SA", "max_products": 25},
    "one start": {"which": "LA", "probe": False, "k": 3},
}
DENSITIES: dict[str, dict[str, Any]] = {
    "plain": {"n_probes": 3, "n_steps": 30},
    "deflated": {"n_probes": 2, "n_steps": 40, "deflate": 5},
    "logarithmic": {"n_probes": 2, "n_steps": 25, "axis": "log"},
    "narrow": {"n_probes": 2, "n_steps": 20, "width": 0.02, "n_grid": 64},
}
ESTIMATES = {
    "few": {"n_probes": 6, "method": "hutchinson"},
    "sketch": {"n_probes": 24, "method": "hutch++"},
    "auto": {"n_probes": 30},
    "default": {},
}


def operator(name: str, dtype: str = "float64") -> Prescribed:
    return Prescribed(SPECTRA[name](np.random.default_rng(3)), seed=4, dtype=dtype)


def of_pairs(name: str) -> dict[str, float]:
    """Counts, and how tight the residuals are."""
    found: dict[str, float] = {}
    for what, words in PAIRS.items():
        pairs = fc.eigsh(operator(name), **{"k": 6, **words}, seed=5)
        found |= {f"{what}, products": pairs.n_products, f"{what}, scale": pairs.scale}
        found |= {f"{what}, converged": pairs.converged.sum(), f"{what}, low": pairs.n_low}
        found |= {f"{what}, probed": pairs.probed, f"{what}, tol": pairs.tol}
        found[f"{what}, unseen"] = min(pairs.unseen, 1e9)
    twice = fc.eigsh(operator(name), 3, "LA", seed=5)
    rest = fc.eigsh(operator(name), 3, "LA", against=twice, seed=7)
    return found | {"beside, products": rest.n_products, "beside, values": rest.values.sum()}


def of_densities(name: str) -> dict[str, float]:
    """Grids, heights and errors; a mean weighs each place of the grid differently."""
    found: dict[str, float] = {}
    for what, words in DENSITIES.items():
        d = fc.spectral_density(operator(name), **words, seed=8)
        places = np.cos(np.arange(len(d.grid)))
        found |= {f"{what}, products": d.n_products, f"{what}, width": d.width}
        found |= {f"{what}, from": d.grid[0], f"{what}, to": d.grid[-1]}
        found |= {f"{what}, heights": d.density @ places, f"{what}, top": d.density.max()}
        found |= {
            f"{what}, errors": np.nan_to_num(d.stderr) @ places,
            f"{what}, nodes": len(d.nodes),
        }
        found |= {f"{what}, deflated": d.n_deflated, f"{what}, below": d.linear_below}
    return found


def of_estimates(name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for what, words in ESTIMATES.items():
        for question in (fc.trace, fc.diagonal, fc.frobenius_norm):
            if words.get("method") == "hutch++" and question is not fc.trace:
                continue
            e = question(operator(name), **words, seed=9)
            at = f"{what}, {question.__name__}"
            places = np.cos(np.arange(np.size(e.estimate)))
            found |= {
                f"{at}, products": e.n_products,
                f"{at}, value": np.atleast_1d(e.estimate) @ places,
            }
            found |= {f"{at}, error": np.atleast_1d(e.stderr) @ places}
            found |= {f"{at}, squares": e.n_quadratic}
    return found


def figures(name: str) -> dict[str, float]:
    with served_by():
        found = of_pairs(name) | of_densities(name) | of_estimates(name)
    return {what: float(np.squeeze(x)) for what, x in found.items()}


if __name__ == "__main__":
    table = {
        name: {what: float(f"{x:.14g}") for what, x in figures(name).items()} for name in NAMES
    }
    print(lined(table))
