"""Verdicts with all that they say, at and near critical points of small nets and of functions:
`test_critical_figures` holds them.

    python -m tests.critical.figures > tests/critical/figures.json

writes them down anew, which is to be done where a verdict, a bound or a sentence is meant to
change, and looked at. What differs between the tables of kernels of this machine rests on what
rounding left, and is null there.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv import _engine
from fastcurv.critical.result import CriticalPoint
from fastcurv.testing import zoo

from ..agreement import agreed, masked, tables
from ..rounding.figures import drawn

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


def figures(name: str, table: str = "reference") -> dict[str, list[Any]]:
    """Of one net, by plain loops, which are the same on every machine."""
    before = _engine.set_arch(table)
    try:
        if name == "zoo":
            return {
                f"{i} {c.name}": said(fc.classify(c.objective, c.theta))
                for i, c in enumerate(zoo())
            }
        ob, theta, _ = drawn(**NETS[name])
        ob = ob.batch(slice(0, 3)) if name == "few rows" else ob
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = fc.minimize(ob, theta, max_iter=200, seed=0, verdict=False)
        found = at(ob, run.x)
        zero = at(ob, 0 * theta, {"there": 0.0})
        return found | {f"zero: {what}": x for what, x in zero.items()}
    finally:
        _engine.set_arch(before)


if __name__ == "__main__":
    held = {}
    for net in [*NETS, "zoo"]:
        ways = [figures(net, table) for table in tables()]
        held[net] = {what: agreed([way[what] for way in ways]) for what in ways[0]}
    json.dump(held, sys.stdout, indent=None, separators=(",", ":"))
    print()
