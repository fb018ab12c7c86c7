"""What the first steps of every method cost and reach, and how runs end: `test_optimize_figures`
holds them.

    python -m tests.agreement optimize

writes them down anew, which is to be done where a method is meant to change.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.testing import FunctionObjective

from ..agreement import by_every_table, lined, masked, served_by
from ..certify.figures import drawn

NETS: dict[str, dict[str, Any]] = {
    "tanh": {"sizes": [3, 4, 2], "l2": 1e-3},
    "cross entropy": {"sizes": [3, 5, 3], "activation": "relu", "loss": "cross_entropy"},
    "softplus": {"sizes": [3, 4, 1], "activation": "softplus", "l2": 1e-2},
}
NAMES = (*NETS, "saddle", "parts")
RUNS: dict[str, dict[str, Any]] = {
    "trust-region": {}, "trust-region, short": {"radius": 0.05}, "newton-cg": {},
    "newton-cg, few": {"max_cg": 3}, "saddle-free-newton": {}, "cubic": {},
    "cubic, light": {"weight": 1e-3, "thrift": 0.0}, "gauss-newton": {},
    "gauss-newton, damped": {"damping": 1.0, "krylov_dim": 4}, "newton": {}, "newton-mr": {},
    "damped-newton": {}, "damped-newton, much": {"damping": 0.3},
    "trust-region, scaled": {"precondition": True, "warm_start": True},
    "saddle-free-newton, few products": {"max_products": 25},
    "gauss-newton, sampled": {"sample": 9, "seed": 3}, "l-bfgs": {}, "l-bfgs, short": {"memory": 2},
    "sgd": {"learning_rate": 0.1, "batch_size": 5, "seed": 2},
    "momentum": {"learning_rate": 0.05, "clip": 0.3}, "nesterov": {"learning_rate": 0.05},
    "rmsprop": {}, "adam": {"batch_size": 8, "seed": 1, "record_every": 2},
    "adam, slower": {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "learning_rate": 0.1},
    "sgd, constant then decay": {"schedule": "constant_then_decay", "learning_rate": 0.2},
}  # fmt: skip
SADDLE = FunctionObjective(
    2,
    lambda t: t[0] ** 2 - t[1] ** 2 + t[1] ** 4 / 4 + t[0] * t[1] ** 2 / 8,
    lambda t: [
        2 * t[0] + t[1] ** 2 / 8,
        -2 * t[1] + t[1] ** 3 + t[0] * t[1] / 4,
    ],
    lambda t: [[2.0, t[1] / 4], [t[1] / 4, -2 + 3 * t[1] ** 2 + t[0] / 4]],
)


def said(run: Any) -> list[Any]:
    """How a run ended, with # for numbers; the numbers; counts and where it came to."""
    text, numbers = masked(run.message)
    counts = ("nit", "nfev", "njev", "nhev", "status", "fun")
    numbers += [float(run.get(name, -1)) for name in counts]
    places = np.cos(np.arange(run.x.size))
    numbers += [float(run.x @ places), float(np.linalg.norm(run.jac)), run.success]
    return [text, *(float(f"{x:.6g}") for x in numbers)]


def schedules() -> dict[str, list[Any]]:
    """Rates by step, and what Robbins and Monro's conditions say of them."""
    found: dict[str, list[Any]] = {}
    for delta in (0.3, 0.5, 0.75, 1.0, 2.0):
        made = {
            "power": fc.schedules.power(0.4, delta),
            "inverse": fc.schedules.inverse_time(0.4, delta),
        }
        made["hold"] = fc.schedules.constant_then_decay(0.4, 3, max(delta, 0.1))
        made["constant"] = fc.schedules.constant(delta + 0.1)
        for name, rate in made.items():
            test = fc.schedules.robbins_monro(rate)
            text, numbers = masked(f"{test.satisfied} {test.reason}")
            rates = [float(rate(t)) for t in (1, 2, 3, 4, 7, 50, 1000)]
            found[f"{name}, {delta}"] = [text, *numbers, *rates]
    return found


def single_steps() -> dict[str, list[Any]]:
    """Newton's steps on matrices of both signs, and ways out of a saddle."""
    places = np.arange(1.0, 13.0)
    values = np.where(places % 3 == 0, -places, places) / 4
    mirror = np.cos(places) / np.linalg.norm(np.cos(places))
    Q = np.eye(12) - 2 * np.outer(mirror, mirror)
    H, g = Q * values @ Q, np.sin(places)
    found: dict[str, list[Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in (fc.newton_step, fc.saddle_free_newton_step):
            for words in ({}, {"damping": 0.5}, {"k": 5}, {"k": 12, "damping": 0.1}):
                at = step(H, g, **words)
                named = f"{step.__name__}, {words}"
                found[named] = ["", float(np.cos(places**2) @ at), float(np.linalg.norm(at))]
        for start in (np.zeros(2), np.array([1e-3, 0.0])):
            for direction in (None, np.array([0.3, 1.0])):
                way = fc.escape(SADDLE, start, direction, seed=2)
                words_of, numbers = masked(way.message)
                numbers += [
                    way.get("n_products", -1),
                    way.nfev,
                    way.success,
                    way.fun,
                    float(np.abs(way.x).sum()),
                ]
                found[f"escape, {start}, {direction}"] = [words_of, *map(float, numbers)]
        ob = drawn(sizes=[3, 4, 2], l2=1e-2)[0]
        for source in ("narrower", "walk", "descent"):
            sample = fc.sample_critical_points(ob, 2, sources=source, epochs=(5, 20), seed=3)
            kinds = ", ".join(f"{p.source} {p.verdict.kind}" for p in sample.points)
            found[f"sample, {source}"] = [kinds, *(float(p.loss) for p in sample.points)]
    return found


def figures(name: str, table: str = "reference") -> dict[str, list[Any]]:
    """Of one objective, by plain loops, which are the same on every machine."""
    found: dict[str, list[Any]] = {}
    with served_by(table):
        if name == "parts":
            return schedules() | single_steps()
        ob, theta = drawn(**NETS[name])[:2] if name in NETS else (SADDLE, np.array([0.5, 1e-3]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for what, words in RUNS.items():
                if name not in NETS and ("batch_size" in words or "gauss" in what):
                    continue
                method, few = what.split(",")[0], 6 if name in NETS else 12
                run = fc.minimize(ob, theta, method, **{"max_iter": few, "verdict": False} | words)
                found[what] = said(run)
            for what in ("trust-region", "l-bfgs", "newton-mr"):
                found[f"{what}, to its end"] = said(fc.minimize(ob, theta, what, seed=1))
            for k in (2, 5):
                walk = fc.find_critical_point(ob, theta, max_iter=k)
                found[f"critical, {k}"] = said(walk)
    return found


if __name__ == "__main__":
    print(lined(by_every_table(NAMES, figures, "optimize")))
