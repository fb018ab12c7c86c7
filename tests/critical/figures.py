"""Verdicts with all that they say, at and near critical points of small nets and of functions:
`test_critical_figures` holds them.

    python -m tests.agreement critical

writes them down anew, which is to be done where a verdict, a bound or a sentence is meant to
change, and looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.critical.report import CriticalPoint
from fastcurv.testing import QuadraticObjective, zoo

from ..agreement import by_every_table, lined, masked, served_by
from ..certify.figures import drawn

NETS: dict[str, dict[str, Any]] = {
    "tanh": {"sizes": [3, 4, 2], "l2": 1e-2},
    "cross entropy": {
        "sizes": [3, 4, 3], "activation": "gelu", "loss": "cross_entropy", "l2": 1e-2,
    },
    "relu": {"sizes": [3, 4, 1], "activation": "relu", "l2": 0.1},
    "binary, skips": {
        "sizes": [3, 3, 3, 1], "activation": "sigmoid", "loss": "binary_cross_entropy",
        "residual": True, "l2": 1e-3,
    },
    "single": {"sizes": [3, 3, 1], "dtype": "float32", "l2": 1e-1},
    "linear": {"sizes": [4, 2], "l2": 1e-3},
    "few rows": {"sizes": [4, 9, 1], "l2": 1e-2},
}  # fmt: skip
NAMES = (*NETS, "zoo", "hard")
OFF = {"there": 0.0, "beside": 1e-7, "near": 1e-4, "away": 3e-2}
WORDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "products": {"dense_below": 0},
    "few products": {"dense_below": 0, "max_products": 12},
    "reached": {"dense_below": 50},
    "loose": {"curvature_tol": 0.05, "gradient_tol": 1e-2},
    "strict": {"dense_below": 0, "curvature_tol": 1e-6, "failure_probability": 1e-6},
}


def said(point: CriticalPoint) -> list[Any]:
    """What is said, with # for numbers; then the numbers, and those that no line shows."""
    text = repr(point).replace(f" {point.wall_time:.2f} s,", "")
    text, numbers = masked(text)
    hidden = (point.failure_probability, point.gradient_flat_ratio, point.gradient_residual)
    hidden += (*point.lambda_min_bounds, *point.lambda_max_bounds, *point.n_negative_bounds)
    hidden += (point.plateau, point.curvature_tol, point.distance, point.rest, point.n_held)
    numbers += [-1.0 if x is None or not np.isfinite(x) else float(f"{x:.5g}") for x in hidden]
    return [text, *numbers]


def at(ob: Any, theta: Any, off: dict[str, float] = OFF) -> dict[str, list[Any]]:
    """At a point and beside it, asked in several ways."""
    v = np.cos(np.arange(len(theta)) ** 1.5)
    v /= np.linalg.norm(v)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for where, step in off.items():
            for how, words in WORDS.items():
                if how in ("loose", "strict") and where != "there":
                    continue
                if "dense_below" in words and (step > 0.01 or theta.dtype == "float32"):
                    continue
                there = (theta + step * v).astype(theta.dtype)
                found[f"{where}, {how}"] = said(fc.classify(ob, there, **words))
    return found


def hard() -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Points with eigenvalues known beforehand, at large n: (name, objective, theta, words)."""
    at = np.arange(1, 64).reshape(3, 21)
    rows = np.round(np.sin(at**1.3), 3)
    y = np.round(np.cos(at[:, :1] ** 1.7), 3)
    y[2] = -y[0] - y[1]  # the mean of the targets is 0: theta 0 is a critical point
    for l2 in (0.0, 0.1, 2.0):
        for activation in ("tanh", "relu"):
            ob = fc.Objective(fc.MLP((21, 12, 1), activation), rows, y, "mse", l2=l2)
            name = f"nothing, {activation}, l2 {l2}"
            yield name, ob, np.zeros(ob.n_params), {"dense_below": 200}
            yield f"{name}, by products", ob, np.zeros(ob.n_params), {"dense_below": 0}
    narrow = fc.Objective(fc.MLP((3, 2, 1), "tanh"), rows[:, :3], y, "mse", l2=0.02)
    wide = fc.Objective(fc.MLP((3, 6, 1), "tanh"), rows[:, :3], y, "mse", l2=0.02)
    best = fc.minimize(narrow, narrow.model.init(seed=1), seed=0, verdict=False).x
    (W, b), (V, c) = narrow.model.unflatten(best)
    theta = wide.model.flatten([(np.r_[W, 0 * W, 0 * W], np.r_[b, 0 * b, 0 * b]),
                                (np.c_[V, 0 * V, 0 * V], c)])  # fmt: skip
    for how, words in WORDS.items():
        yield f"units of zeros, {how}", wide, theta, words
    for low in (-1.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3):
        values = np.r_[low, np.linspace(0.1, 3, 30)]
        ob = QuadraticObjective(np.diag(values))
        for how in ("dense", "products", "strict"):
            yield f"weakest {low}, {how}", ob, np.zeros(31), WORDS[how]


def figures(name: str, table: str = "reference") -> dict[str, list[Any]]:
    """Of one net, by plain loops, which are the same on every machine."""
    with served_by(table):
        if name == "zoo":
            cases = [(f"{i} {c.name}", c.objective, c.theta, {}) for i, c in enumerate(zoo())]
            return {what: said(fc.classify(ob, at, **words)) for what, ob, at, words in cases}
        if name == "hard":
            return {what: said(fc.classify(ob, at, **words)) for what, ob, at, words in hard()}
        ob, theta, _ = drawn(**NETS[name])
        ob = ob.batch(slice(0, 3)) if name == "few rows" else ob
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = fc.minimize(ob, theta, max_iter=200, seed=0, verdict=False)
        found = at(ob, run.x)
        zero = at(ob, 0 * theta, {"there": 0.0})
        return found | {f"zero: {what}": x for what, x in zero.items()}


if __name__ == "__main__":
    print(lined(by_every_table(NAMES, figures, "critical")))
