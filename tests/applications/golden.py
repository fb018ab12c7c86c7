"""Runs of the methods for SciPy, and samples of critical points, for the golden file."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize

import fastcurv as fc

from ..optimize.golden import describe_run, drawn

SECTIONS = ("samples", "scipy")


def golden(section: str) -> dict[str, Any]:
    """Return the results of a section by name."""
    return samples() if section == "samples" else runs_of_scipy()


def samples() -> dict[str, Any]:
    found = {}
    ob = drawn(sizes=[3, 4, 2], l2=1e-2)[0]
    for source in ("narrower", "walk", "descent"):
        sample = fc.sample_critical_points(ob, 2, sources=source, epochs=(5, 20), rng=3)
        kinds = ", ".join(f"{p.source} {p.verdict.kind}" for p in sample.points)
        found[f"sample, {source}"] = [kinds, *(float(p.loss) for p in sample.points)]
    return found


def runs_of_scipy() -> dict[str, Any]:
    found = {}
    calls: list[int] = []
    for method in (fc.scipy.newton_cg, fc.scipy.trust_region, fc.scipy.saddle_free_newton):
        for words in ({"tol": 1e-3}, {"options": {"maxiter": 7}}, {"args": (50.0,)}):
            run = scipy.optimize.minimize(
                bowl, [-1.2, 1.0], jac=bowl_der, hess=bowl_hess, method=method,
                callback=lambda x: calls.append(len(calls)), **words,
            )  # fmt: skip
            found[f"{method.__name__}, {words}"] = [*describe_run(run), float(len(calls))]
    return found


def bowl(x: Any, steep: float = 100.0) -> float:
    return float((1 - x[0]) ** 2 + steep * (x[1] - x[0] ** 2) ** 2)


def bowl_der(x: Any, steep: float = 100.0) -> Any:
    off = x[1] - x[0] ** 2
    return np.array([-2 * (1 - x[0]) - 4 * steep * x[0] * off, 2 * steep * off])


def bowl_hess(x: Any, steep: float = 100.0) -> Any:
    first = 2 - 4 * steep * (x[1] - 3 * x[0] ** 2)
    return np.array([[first, -4 * steep * x[0]], [-4 * steep * x[0], 2 * steep]])
