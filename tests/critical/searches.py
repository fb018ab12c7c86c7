"""Verdicts by runs of the caller's, in smaller spaces, by Cholesky factors, and the parts that they
are made of, as numbers: `test_critical_figures` holds them.

    python -m tests.agreement critical.searches

writes them down anew, which is to be done where a verdict, a cost or a bound is meant to change.
"""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import fastcurv as fc
from fastcurv.critical import dense, find
from fastcurv.critical.decide import INF, Findings, decide
from fastcurv.testing import QuadraticObjective, zoo

from ..agreement import lined, masked, rounded, served_by
from ..certify.figures import drawn
from .figures import said


def minimum(**net: Any) -> tuple[Any, Any]:
    ob, theta, _ = drawn(**net)
    return ob, fc.minimize(ob, theta, max_iter=200, seed=0, verdict=False).x


def krylov() -> dict[str, list[Any]]:
    """By a caller's run, in one precision and two, beside the point and on a saddle of zeros."""
    found: dict[str, list[Any]] = {}
    nets: dict[str, dict[str, Any]] = {
        "tanh": {"sizes": [3, 4, 2], "l2": 1e-2},
        "cross entropy": {"sizes": [5, 3, 3], "loss": "cross_entropy", "l2": 1e-2},
    }
    for name, net in nets.items():
        ob, best = minimum(**net)
        for where, theta in (("best", best), ("zero", 0 * best), ("off", best + 1e-5)):
            for steps in (3, 30):
                run = fc.spectrum.Krylov(ob.hessian(theta), "mine", seed=2).extend(steps)
                point = fc.classify(ob, theta, krylov=run)
                found[f"{name}, {where}, {steps} steps"] = [*said(point), float(run.n_products)]
            for words in (
                {"max_products": 40}, {"failure_probability": 0.1, "curvature_tol": 0.2},
            ):  # fmt: skip
                point = fc.classify(ob, theta, dense_below=0, **words)
                found[f"{name}, {where}, {words}"] = said(point)
            few = ob.batch(slice(0, 2))
            found[f"{name}, {where}, two rows"] = said(fc.classify(few, theta, dense_below=0))
    for n, low in ((30, -1e-2), (60, 0.0), (60, 1e-3)):
        values = np.r_[low, np.linspace(0.1, 3, n - 2), 40.0]
        ob = QuadraticObjective(np.diag(values))
        for scale in (0.0, 1e-9, 1e-3):
            point = fc.classify(ob, np.full(n, scale), dense_below=0, failure_probability=1e-3)
            found[f"{n}, {low}, {scale}"] = said(point)
    return found


def factors() -> dict[str, list[Any]]:
    """Minima proved by Cholesky factors, which small ones need not."""
    found: dict[str, list[Any]] = {}
    with mock.patch.object(dense, "FROM", 2):
        for name, net in {
            "softplus": {"sizes": [3, 4, 1], "activation": "softplus", "l2": 1e-2},
            "ridge": {"sizes": [4, 2], "l2": 1e-3},
            "sigmoid": {
                "sizes": [3, 5, 2], "activation": "sigmoid", "loss": "binary_cross_entropy",
                "l2": 1e-1,
            },
        }.items():  # fmt: skip
            ob, best = minimum(**net)
            with mock.patch.object(type(ob), "orbits", lambda *a, **k: []):
                for off in (0.0, 1e-8, 1e-3, 0.3):
                    v = np.cos(np.arange(len(best)))
                    point = fc.classify(ob, best + off * v / np.linalg.norm(v))
                    found[f"{name}, {off}"] = said(point)
        for low in (0.5, 1e-7, 1e-14, -1e-3):
            values = np.r_[low, np.linspace(1, 3, 20)]
            places = np.cos(np.arange(21) ** 1.5)
            Q = np.eye(21) - 2 * np.outer(places, places) / (places @ places)
            A = (Q * values) @ Q
            full = mock.Mock(A=(A + A.T) / 2, norm=3.0, n=21, M=mock.Mock(error=lambda: 1e-12))
            known = dense.definite(full)
            numbers = [] if known is None else [
                known.floor, known.weakest, float(np.abs(known.solve(np.ones(21))).sum())
            ]  # fmt: skip
            found[f"matrix, {low}"] = [str(known is None), *numbers]
    return found


def found_points() -> dict[str, list[Any]]:
    """Critical points that are looked for, by matrices and by Krylov spaces."""
    found: dict[str, list[Any]] = {}
    starts = [
        (f"{i} {c.name}", c.objective, c.theta + 0.03)
        for i, c in enumerate(zoo())
        if i in (1, 4, 8, 30)
    ]
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-2)
    starts += [("net", ob, theta), ("single", *drawn(sizes=[3, 3, 1], dtype="float32", l2=0.1)[:2])]
    for name, objective, start in starts:
        for method in ("newton-mr", "gradient-norm"):
            for below in (find.DENSE_BELOW, 0):
                with mock.patch.object(find, "DENSE_BELOW", below):
                    end = fc.find_critical_point(objective, start, method=method, max_iter=15)
                text, numbers = masked(end.message)
                numbers += [float(end.nit), float(end.nfev), float(end.get("n_products", -1))]
                numbers += [float(np.linalg.norm(end.jac)), float(end.fun), float(end.success)]
                found[f"{name}, {method}, {below}"] = [text, *numbers]
    return found


def decisions() -> dict[str, list[Any]]:
    """What `decide` makes of findings of every kind: a letter for each outcome."""
    draw, seen, lines = random.Random(3), {}, []
    kinds = {
        "bool": (True, False), "int": (0, 1, 2), "int | None": (0, 0, 1, 2),
        "float": (INF, 0.0, 1e-3, 0.5, 2.0, -INF), "float | None": (None, 0.5, 1e-3),
    }  # fmt: skip
    fields = {field.name: kinds[str(field.type)] for field in dataclasses.fields(Findings)}
    usual = dataclasses.asdict(Findings())
    for _ in range(4000):
        changed = draw.sample(list(fields), draw.randint(1, 9))
        facts = {**usual, **{name: draw.choice(fields[name]) for name in changed}}
        if draw.random() < 0.6:  # small enough that all signs are counted
            for name in ("n_positive", "n_negative", "n_zero", "n_symmetry"):
                facts[name] = facts[name] if facts[name] is not None else draw.choice((0, 1, 2))
        else:
            facts |= dict.fromkeys(("n_positive", "n_negative", "n_zero"))
        try:
            outcome = str(decide(Findings(**facts)))
        except TypeError:
            outcome = "no such findings"
        lines.append(chr(48 + seen.setdefault(outcome, len(seen))))
    told = {f"outcome {chr(48 + i)}": [masked(text)[0]] for text, i in seen.items()}
    return told | {f"from {i}": ["".join(lines[i : i + 100])] for i in range(0, 4000, 100)}


PARTS: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "decisions": decisions, "krylov": krylov, "factors": factors, "found": found_points,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PARTS[name]()
    return rounded(found, 6)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
