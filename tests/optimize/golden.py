"""Sections of the golden file of `tests/optimize`: the first steps of every method, whole runs, and
saved and resumed runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.optimize import Checkpoint, EarlyStopping
from fastcurv.optimize.minimize import METHODS, STOCHASTIC_METHODS
from fastcurv.testing import FunctionObjective

from ..golden import drawn
from ..zoo import zoo

NETS: dict[str, dict[str, Any]] = {
    "tanh": {"sizes": [3, 4, 2], "l2": 1e-3},
    "cross entropy": {"sizes": [3, 5, 3], "activation": "relu", "loss": "cross_entropy"},
    "softplus": {"sizes": [3, 4, 1], "activation": "softplus", "l2": 1e-2},
}
SECTIONS = (*NETS, "saddle", "parts", "runs to their ends", "runs saved")
RUNS: dict[str, dict[str, Any]] = {
    "trust-region": {}, "trust-region, short": {"radius": 0.05}, "newton-cg": {},
    "saddle-free-newton": {}, "cubic": {}, "gauss-newton": {}, "newton": {}, "newton-mr": {},
    "damped-newton": {}, "damped-newton, much": {"damping": 0.3},
    "trust-region, scaled": {"precondition": True, "warm_start": True},
    "saddle-free-newton, few products": {"max_products": 25},
    "gauss-newton, sampled": {"sample": 9, "rng": 3}, "l-bfgs": {}, "l-bfgs, short": {"memory": 2},
    "sgd": {"learning_rate": 0.1, "batch_size": 5, "rng": 2},
    "momentum": {"learning_rate": 0.05, "clip": 0.3}, "nesterov": {"learning_rate": 0.05},
    "rmsprop": {}, "adam": {"batch_size": 8, "rng": 1, "record_every": 2},
    "adam, slower": {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "learning_rate": 0.1},
}  # fmt: skip
SADDLE = FunctionObjective(
    2,
    lambda t: t[0] ** 2 - t[1] ** 2 + t[1] ** 4 / 4 + t[0] * t[1] ** 2 / 8,
    lambda t: [2 * t[0] + t[1] ** 2 / 8, -2 * t[1] + t[1] ** 3 + t[0] * t[1] / 4],
    lambda t: [[2.0, t[1] / 4], [t[1] / 4, -2 + 3 * t[1] ** 2 + t[0] / 4]],
)

# (value, gradient, Hessian, start) of functions, by name, on which runs end in different ways
FUNCTIONS: dict[str, tuple[Any, Any, Any, list[float]]] = {
    "valley": (
        lambda t: t[0] ** 4 + t[1] ** 2, lambda t: [4 * t[0] ** 3, 2 * t[1]],
        lambda t: [[12 * t[0] ** 2, 0], [0, 2]], [1.0, 1.0],
    ),
    "cube": (
        lambda t: t[0] ** 3 + t[1] ** 2, lambda t: [3 * t[0] ** 2, 2 * t[1]],
        lambda t: [[6 * t[0], 0], [0, 2]], [0.7, 0.3],
    ),
    "ramp": (
        lambda t: np.exp(-t[0]) + t[1] ** 2, lambda t: [-np.exp(-t[0]), 2 * t[1]],
        lambda t: [[np.exp(-t[0]), 0], [0, 2]], [0.0, 0.5],
    ),
    "monkey": (
        lambda t: t[0] ** 3 - 3 * t[0] * t[1] ** 2 + (t[0] ** 2 + t[1] ** 2) ** 2,
        lambda t: [
            3 * t[0] ** 2 - 3 * t[1] ** 2 + 4 * t[0] * (t[0] ** 2 + t[1] ** 2),
            -6 * t[0] * t[1] + 4 * t[1] * (t[0] ** 2 + t[1] ** 2),
        ],
        lambda t: [
            [6 * t[0] + 12 * t[0] ** 2 + 4 * t[1] ** 2, -6 * t[1] + 8 * t[0] * t[1]],
            [-6 * t[1] + 8 * t[0] * t[1], -6 * t[0] + 12 * t[1] ** 2 + 4 * t[0] ** 2],
        ],
        [0.0, 0.0],
    ),
    "flat": (
        lambda t: np.cos(t[0]), lambda t: [-np.sin(t[0]), 0.0],
        lambda t: [[-np.cos(t[0]), 0], [0, 0]], [0.1, 2.0],
    ),
}  # fmt: skip


def describe_run(run: Any) -> list[Any]:
    """Return a list that describes a run: the keys of its notes, counts, status and loss, and two
    sums over its final point and gradient.
    """
    text = " ".join(note.key for note in run.notes)
    counts = ("nit", "nfev", "njev", "nhev", "status", "fun")
    numbers = [float(run.get(name, -1)) for name in counts]
    places = np.cos(np.arange(run.x.size))
    numbers += [float(run.x @ places), float(np.linalg.norm(run.jac)), run.success]
    return [text, *(float(f"{x:.6g}") for x in numbers)]


def single_steps() -> dict[str, list[Any]]:
    """Return a dict that describes Newton steps for a matrix with eigenvalues of both signs,
    escapes from a saddle, and sampled critical points.
    """
    places = np.arange(1.0, 13.0)
    values = np.where(places % 3 == 0, -places, places) / 4
    mirror = np.cos(places) / np.linalg.norm(np.cos(places))
    Q = np.eye(12) - 2 * np.outer(mirror, mirror)
    H, g = Q * values @ Q, np.sin(places)
    found: dict[str, list[Any]] = {}
    for step in (fc.newton_step, fc.saddle_free_newton_step):
        for words in ({}, {"damping": 0.5}, {"k": 5}, {"k": 12, "damping": 0.1}):
            at = step(H, g, **words)
            named = f"{step.__name__}, {words}"
            found[named] = ["", float(np.cos(places**2) @ at), float(np.linalg.norm(at))]
    for start in (np.zeros(2), np.array([1e-3, 0.0])):
        for direction in (None, np.array([0.3, 1.0])):
            way = fc.escape(SADDLE, start, direction, rng=2)
            words_of = " ".join(note.key for note in way.notes)
            numbers = [
                way.get("n_products", -1),
                way.nfev,
                way.success,
                way.fun,
                float(np.abs(way.x).sum()),
            ]
            found[f"escape, {start}, {direction}"] = [words_of, *map(float, numbers)]
    return found


def function(name: str) -> tuple[FunctionObjective, np.ndarray]:
    value, gradient, hessian, start = FUNCTIONS[name]
    return FunctionObjective(2, value, gradient, hessian), np.array(start)


def whole_runs() -> dict[str, list[Any]]:
    """Return a dict that describes runs with their verdicts, of functions and networks, from zero
    and from other starts.
    """
    found: dict[str, list[Any]] = {}
    for name in FUNCTIONS:
        ob, start = function(name)
        for method in ("trust-region", "newton-cg"):
            for from_, where in (("start", start), ("zero", 0 * start)):
                run = fc.minimize(ob, where, method, max_iter=60, rng=0)
                found[f"{name}, {method}, {from_}"] = describe_run(run)
        for words in ({"max_products": 9}, {"gradient_tol": 1e-3}, {"max_iter": 2}):
            found[f"{name}, {words}"] = describe_run(fc.minimize(ob, start, rng=1, **words))
        find = fc.find_critical_point
        found[f"{name}, by newton-mr"] = describe_run(
            find(ob, start, method="newton-mr", max_iter=40)
        )
    net = {"sizes": [3, 4, 1], "activation": "relu", "l2": 0.1}
    for name, words in (("relu", {}), ("leaky", {"activation": "leaky_relu", "l2": 1.0})):
        ob, theta, _ = drawn(**{**net, **words})
        for method in ("trust-region", "l-bfgs", "newton-cg"):
            for verdict in (True, False):
                run = fc.minimize(ob, theta, method, max_iter=80, rng=0, verdict=verdict)
                found[f"{name}, {method}, {verdict}"] = describe_run(run)
    for i, case in enumerate(zoo()):
        if i < 8 or i in (9, 29, 41, 44):
            run = fc.minimize(case.objective, case.theta, max_iter=40, rng=0)
            found[f"{i} {case.name}"] = describe_run(run)
    return found


def saved() -> dict[str, list[Any]]:
    """Return a dict that describes runs that were saved and resumed, with every kind of random
    generator, runs with validation, and runs called through SciPy.
    """
    found: dict[str, list[Any]] = {}
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-2)
    kinds = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run"
        for i, method in enumerate(METHODS):
            words: dict[str, Any] = {"verdict": False}
            if method in STOCHASTIC_METHODS:
                words["batch_size"] = 7
            bits = getattr(np.random, kinds[i % 5])(3)
            fc.minimize(
                ob, theta, method, max_iter=3, checkpoint=Checkpoint(file, 2),
                rng=np.random.Generator(bits), **words,
            )  # fmt: skip
            on = fc.minimize(
                ob,
                None,
                method,
                max_iter=6,
                checkpoint=Checkpoint(resume=file),
                **words,
            )
            history = on.get("history", {})
            found[method] = [*describe_run(on), *(float(len(x)) for x in dict(history).values())]
        rows = (ob.X[:6], ob.y[:6])
        part = fc.Objective(ob.model, *rows, ob.loss, l2=ob.l2)
        for what, words in {
            "patience": {"callback": EarlyStopping(part, 3), "max_iter": 30},
            "validation": {"callback": EarlyStopping(part), "max_iter": 9},
            "every": {"record_every": 3, "max_iter": 10},
        }.items():
            run = fc.minimize(ob, theta, "momentum", rng=1, verdict=False, **words)
            history = dict(run.get("history", {}))
            sums = [
                float(np.nansum(np.asarray(x, float)))
                for k, x in history.items()
                if k != "seconds" and k != "time"
            ]
            found[what] = [*describe_run(run), *sums]
    return found


def golden(section: str) -> dict[str, list[Any]]:
    if section == "parts":
        return single_steps()
    if section.startswith("runs"):
        return whole_runs() if section == "runs to their ends" else saved()
    found: dict[str, list[Any]] = {}
    net = section in NETS
    ob, theta = drawn(**NETS[section])[:2] if net else (SADDLE, np.array([0.5, 1e-3]))
    for what, words in RUNS.items():
        if not net and ("batch_size" in words or "gauss" in what):
            continue
        words = {"max_iter": 6 if net else 12, "verdict": False} | words
        found[what] = describe_run(fc.minimize(ob, theta, what.split(",")[0], **words))
    for what in ("trust-region", "l-bfgs", "newton-mr"):
        found[f"{what}, to its end"] = describe_run(fc.minimize(ob, theta, what, rng=1))
    for k in (2, 5):
        found[f"critical, {k}"] = describe_run(
            fc.find_critical_point(ob, theta, "newton-mr", max_iter=k)
        )
    return found
