"""Verdicts with their evidence, at and near critical points of small networks and functions, from
products and from Cholesky factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

import fastcurv as fc
from fastcurv.certify.certificates import Certificates
from fastcurv.critical import dense
from fastcurv.critical.report import CriticalPoint, evidence_rows
from fastcurv.testing import QuadraticObjective

from ..golden import drawn, masked
from ..zoo import zoo

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
DISTANCES = {"there": 0.0, "beside": 1e-7, "near": 1e-4, "away": 3e-2}
OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {},
    "products": {"dense_below": 0},
    "few products": {"dense_below": 0, "max_products": 12},
    "reached": {"dense_below": 50},
    "loose": {"gradient_tol": 1e-2},
    "strict": {"dense_below": 0, "failure_probability": 1e-6},
}


def verdict_answer(point: CriticalPoint) -> list[Any]:
    """Return a list with the decisions of the verdict and the printed evidence, in which # replaces
    numbers, followed by these numbers and those of attributes that are not printed.
    """
    decisions = (point.kind, "certified" if point.certified else "not certified", point.rule.value)
    decisions += (
        point.evidence.limit,
        point.evidence.newton_steps,
        point.evidence.missing_hypothesis,
    )
    rows = [
        ", ".join(map(str, decisions)),
        *(f"{name} {value}" for name, value in evidence_rows(point)),
    ]
    text, numbers = masked("\n".join(rows).replace(f" {point.wall_time:.2f} s,", ""))
    hidden = (
        point.failure_probability,
        point.evidence.gradient_flat_ratio,
        point.evidence.gradient_residual,
    )
    hidden += (
        *point.evidence.lambda_min_bounds,
        *point.evidence.lambda_max_bounds,
        *point.evidence.n_negative_bounds,
    )
    hidden += (
        point.evidence.plateau,
        point.evidence.nearest_distance,
        point.evidence.n_active_kinks,
    )
    numbers += [-1.0 if x is None or not np.isfinite(x) else float(f"{x:.5g}") for x in hidden]
    return [text, *numbers]


def verdicts_near(ob: Any, theta: Any, off: dict[str, float] = DISTANCES) -> dict[str, list[Any]]:
    """Return ``{name: text and numbers}`` for verdicts at theta and at the distances `off` from
    theta, each with several options.
    """
    v = np.cos(np.arange(len(theta)) ** 1.5)
    v /= np.linalg.norm(v)
    found = {}
    for where, step in off.items():
        for how, words in OPTIONS.items():
            if how in ("loose", "strict") and where != "there":
                continue
            if "dense_below" in words and (step > 0.01 or theta.dtype == "float32"):
                continue
            there = (theta + step * v).astype(theta.dtype)
            found[f"{where}, {how}"] = verdict_answer(fc.classify(ob, there, **words))
    return found


def minimum(**net: Any) -> tuple[Any, Any]:
    ob, theta, _ = drawn(**net)
    return ob, fc.minimize(ob, theta, "trust-region", max_iter=200, rng=0, verdict=False).x


def points_at_large_n() -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Yield (name, objective, theta, options) for points with known eigenvalues, many of them
    classified from products as at large n.
    """
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
    best = fc.minimize(narrow, narrow.model.init(rng=1), "trust-region", rng=0, verdict=False).x
    (W, b), (V, c) = narrow.model.unflatten(best)
    theta = wide.model.flatten([(np.r_[W, 0 * W, 0 * W], np.r_[b, 0 * b, 0 * b]),
                                (np.c_[V, 0 * V, 0 * V], c)])  # fmt: skip
    for how, words in OPTIONS.items():
        yield f"units of zeros, {how}", wide, theta, words
    for low in (-1.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3):
        values = np.r_[low, np.linspace(0.1, 3, 30)]
        ob = QuadraticObjective(np.diag(values))
        for how in ("dense", "products", "strict"):
            yield f"weakest {low}, {how}", ob, np.zeros(31), OPTIONS[how]


def by_products() -> dict[str, list[Any]]:
    """Return ``{name: text and numbers}`` for verdicts from products, at a minimum, near it and at
    zero weights of networks, and near 0 for quadratic functions.
    """
    found: dict[str, list[Any]] = {}
    nets: dict[str, dict[str, Any]] = {
        "tanh": {"sizes": [3, 4, 2], "l2": 1e-2},
        "cross entropy": {"sizes": [5, 3, 3], "loss": "cross_entropy", "l2": 1e-2},
    }
    for name, net in nets.items():
        ob, best = minimum(**net)
        for where, theta in (("best", best), ("zero", 0 * best), ("off", best + 1e-5)):
            for words in ({"max_products": 40}, {"failure_probability": 0.1}):
                point = fc.classify(ob, theta, dense_below=0, **words)
                found[f"{name}, {where}, {words}"] = verdict_answer(point)
            few = ob.batch(slice(0, 2))
            found[f"{name}, {where}, two rows"] = verdict_answer(
                fc.classify(few, theta, dense_below=0)
            )
    for n, low in ((30, -1e-2), (60, 0.0), (60, 1e-3)):
        values = np.r_[low, np.linspace(0.1, 3, n - 2), 40.0]
        ob = QuadraticObjective(np.diag(values))
        for scale in (0.0, 1e-9, 1e-3):
            point = fc.classify(ob, np.full(n, scale), dense_below=0, failure_probability=1e-3)
            found[f"{n}, {low}, {scale}"] = verdict_answer(point)
    return found


def factors() -> dict[str, list[Any]]:
    """Return ``{name: text and numbers}`` for verdicts on minima that are proved by Cholesky
    factors, with the size limit lowered so that small networks use them.
    """
    found: dict[str, list[Any]] = {}
    with mock.patch.object(dense, "CHOLESKY_MIN_N", 2):
        for name, net in {
            "softplus": {"sizes": [3, 4, 1], "activation": "softplus", "l2": 1e-2},
            "ridge": {"sizes": [4, 2], "l2": 1e-3},
            "sigmoid": {
                "sizes": [3, 5, 2], "activation": "sigmoid", "loss": "binary_cross_entropy",
                "l2": 1e-1,
            },
        }.items():  # fmt: skip
            ob, best = minimum(**net)
            with mock.patch.object(Certificates, "orbits", lambda *a, **k: []):
                for off in (0.0, 1e-8, 1e-3, 0.3):
                    v = np.cos(np.arange(len(best)))
                    point = fc.classify(ob, best + off * v / np.linalg.norm(v))
                    found[f"{name}, {off}"] = verdict_answer(point)
    return found


SEARCHES: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "by products": by_products,
    "by factors": factors,
}
SECTIONS = (*NETS, "zoo", "hard", *SEARCHES)


def golden(section: str) -> dict[str, list[Any]]:
    if section in SEARCHES:
        return SEARCHES[section]()
    if section == "zoo":
        cases = [(f"{i} {c.name}", c.objective, c.theta) for i, c in enumerate(zoo())]
        return {what: verdict_answer(fc.classify(ob, theta)) for what, ob, theta in cases}
    if section == "hard":
        return {
            what: verdict_answer(fc.classify(ob, theta, **words))
            for what, ob, theta, words in points_at_large_n()
        }
    ob, theta, _ = drawn(**NETS[section])
    ob = ob.batch(slice(0, 3)) if section == "few rows" else ob
    run = fc.minimize(ob, theta, "trust-region", max_iter=200, rng=0, verdict=False)
    zero = verdicts_near(ob, 0 * theta, {"there": 0.0})
    return verdicts_near(ob, run.x) | {f"zero: {what}": x for what, x in zero.items()}
