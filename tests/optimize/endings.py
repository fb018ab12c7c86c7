"""How runs end, are saved and taken up, and what is tried where curvature vanishes, as numbers:
`test_optimize_figures` holds them.

    python -m tests.agreement optimize.endings

writes them down anew, which is to be done where a run is meant to change.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.optimize

import fastcurv as fc
from fastcurv.optimize import finish, line_search
from fastcurv.optimize.finish import Finisher, polish
from fastcurv.optimize.line_search import line_minimum
from fastcurv.optimize.minimize import METHODS, STOCHASTIC
from fastcurv.testing import FunctionObjective, zoo

from ..agreement import lined, masked, rounded, served_by
from ..certify.figures import drawn
from .figures import SADDLE, said

# by name: values, gradients and Hessians of functions whose ends differ in kind
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


def function(name: str) -> tuple[FunctionObjective, np.ndarray]:
    value, gradient, hessian, start = FUNCTIONS[name]
    return FunctionObjective(2, value, gradient, hessian), np.array(start)


def clocks() -> dict[str, list[Any]]:
    """What an ending may still spend, by what steps took: no clock is asked but a fake one."""
    found: dict[str, list[Any]] = {}
    for products, gradients in ((0, 0), (100, 10), (3, 40)):
        for elapsed, limit in ((0.01, None), (50.0, None), (200.0, 210.0), (2.0, 2.5)):
            for n in (5, 2000, 9000):
                run = SimpleNamespace(
                    n_products=products, n_gradients=gradients, theta=np.zeros(n),
                    elapsed=lambda elapsed=elapsed: elapsed, max_time=limit,
                )  # fmt: skip
                end = Finisher(run, None, lambda start: (start, 0.0))
                end.spent = elapsed / 8
                below = end.dense_below()
                found[f"{products}, {gradients}, {elapsed}, {limit}, {n}"] = [
                    str(end.over()), end.training(), end.price(), end.left(1.0), end.left(30.0),
                    -1.0 if below is None else float(below),
                ]  # fmt: skip
    return found


def ways() -> dict[str, list[Any]]:
    """Runs to their ends, with verdicts, from where nothing tells the way and from elsewhere."""
    found: dict[str, list[Any]] = {}
    for name in FUNCTIONS:
        ob, start = function(name)
        for method in ("trust-region", "newton-cg"):
            for from_, where in (("start", start), ("zero", 0 * start)):
                run = fc.minimize(ob, where, method, max_iter=60, seed=0)
                found[f"{name}, {method}, {from_}"] = said(run)
        for words in ({"max_products": 9}, {"gradient_tol": 1e-3}, {"max_iter": 2}):
            found[f"{name}, {words}"] = said(fc.minimize(ob, start, seed=1, **words))
        find = fc.find_critical_point
        found[f"{name}, found"] = said(find(ob, start, method="gradient-norm", max_iter=40))
        found[f"{name}, by newton-mr"] = said(find(ob, start, method="newton-mr", max_iter=40))
    net = {"sizes": [3, 4, 1], "activation": "relu", "l2": 0.1}
    for name, words in (("relu", {}), ("leaky", {"activation": "leaky_relu", "l2": 1.0})):
        ob, theta, _ = drawn(**{**net, **words})
        for method in ("trust-region", "l-bfgs", "newton-cg"):
            for verdict in (True, False):
                run = fc.minimize(ob, theta, method, max_iter=80, seed=0, verdict=verdict)
                found[f"{name}, {method}, {verdict}"] = said(run)
    for i, case in enumerate(zoo()):
        if i < 8 or i in (9, 29, 41, 44):
            run = fc.minimize(case.objective, case.theta, max_iter=40, seed=0)
            found[f"{i} {case.name}"] = said(run)
            walk = fc.find_critical_point(
                case.objective, case.theta + 0.05, method="gradient-norm", max_iter=20
            )
            found[f"{i} {case.name}, found"] = said(walk)
    return found


def saved() -> dict[str, list[Any]]:
    """Runs that stop, are saved and go on, by every kind of generator; what SciPy calls."""
    found: dict[str, list[Any]] = {}
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-2)
    kinds = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run"
        for i, method in enumerate(METHODS):
            words: dict[str, Any] = {"verdict": False}
            if method in STOCHASTIC:
                words["batch_size"] = 7
            bits = getattr(np.random, kinds[i % 5])(3)
            fc.minimize(
                ob, theta, method, max_iter=3, checkpoint=file, checkpoint_every=2,
                seed=np.random.Generator(bits), **words,
            )  # fmt: skip
            on = fc.minimize(ob, None, method, max_iter=6, resume=file, **words)
            history = on.get("history", {})
            found[method] = [*said(on), *(float(len(x)) for x in dict(history).values())]
        rows = (ob.X[:6], ob.y[:6])
        part = fc.Objective(ob.model, *rows, ob.loss, l2=ob.l2)
        for what, words in {
            "patience": {"validation": part, "patience": 3, "max_iter": 30},
            "validation": {"validation": part, "max_iter": 9},
            "every": {"record_every": 3, "max_iter": 10},
        }.items():
            run = fc.minimize(ob, theta, "momentum", seed=1, verdict=False, **words)
            history = dict(run.get("history", {}))
            sums = [
                float(np.nansum(np.asarray(x, float)))
                for k, x in history.items()
                if k != "seconds" and k != "time"
            ]
            found[what] = [*said(run), *sums]
    calls: list[int] = []
    for method in (fc.scipy.newton_cg, fc.scipy.trust_region, fc.scipy.saddle_free_newton):
        for words in ({"tol": 1e-3}, {"options": {"maxiter": 7}}, {"args": (50.0,)}):
            run = scipy.optimize.minimize(
                bowl, [-1.2, 1.0], jac=bowl_der, hess=bowl_hess, method=method,
                callback=lambda x: calls.append(len(calls)), **words,
            )  # fmt: skip
            found[f"{method.__name__}, {words}"] = [*said(run), float(len(calls))]
    return found


def bowl(x: Any, steep: float = 100.0) -> float:
    return float((1 - x[0]) ** 2 + steep * (x[1] - x[0] ** 2) ** 2)


def bowl_der(x: Any, steep: float = 100.0) -> Any:
    off = x[1] - x[0] ** 2
    return np.array([-2 * (1 - x[0]) - 4 * steep * x[0] * off, 2 * steep * off])


def bowl_hess(x: Any, steep: float = 100.0) -> Any:
    first = 2 - 4 * steep * (x[1] - 3 * x[0] ** 2)
    return np.array([[first, -4 * steep * x[0]], [-4 * steep * x[0], 2 * steep]])


def kicks() -> dict[str, list[Any]]:
    """Tries along zeros of the Hessian, and rays that fall for ever."""
    found: dict[str, list[Any]] = {}
    for name in FUNCTIONS:
        ob, start = function(name)
        for from_, at in (("start", start), ("zero", 0 * start)):
            flat, spent = finish.flat_space(ob, at, 9)
            numbers = [float(flat.shape[1]), float(spent), float(np.abs(flat).sum())]
            numbers.append(float(finish.flat_space(ob, at, 2)[0].shape[1]))
            ways = list(finish.directions(ob, at, flat, np.random.default_rng(0)))
            numbers += [float(len(ways)), float(sum(way @ [1.0, 0.3] for way in ways))]
            f = ob.value(at)
            for v in np.eye(2):
                numbers.append(float(finish.falls_for_ever(ob, ob.value, at, f, v)))
                for barrier in (False, True):
                    lower = finish.lower_along(ob.value, at, f, v, barrier)
                    numbers += [0.0, 0.0] if lower is None else [float(lower[0] @ v), lower[1]]

            def walk(there: Any, ob: Any = ob) -> tuple[Any, float]:
                end = fc.minimize(ob, there, max_iter=3, verdict=False).x
                return end, ob.value(end)

            walked: list[float] = []

            def nowhere(there: Any, walked: Any = walked) -> tuple[Any, float]:
                walked.append(float(there @ [1.0, 0.3]))
                return there, np.inf

            finish.lower_point(
                ob, at, -9.0, flat, np.random.default_rng(0), value=ob.value, walk=nowhere,
                stop=lambda: False,
            )  # fmt: skip
            numbers += walked
            asked: list[int] = []
            for most in (3, 99):
                lower = finish.lower_point(
                    ob, at, f, flat, np.random.default_rng(0), value=ob.value, walk=walk,
                    stop=lambda most=most, asked=asked: asked.append(1) or len(asked) > most,
                )  # fmt: skip
                numbers += [0.0, 0.0] if lower is None else [float(lower[0].sum()), lower[1]]
            found[f"{name}, {from_}"] = ["", *numbers, float(len(asked))]
    return found


def last_steps() -> dict[str, list[Any]]:
    """Newton's last steps, and what says that there is nothing left to fall."""
    found: dict[str, list[Any]] = {}
    ob, theta, v = drawn(sizes=[3, 4, 2], l2=1e-1)
    best = fc.minimize(ob, theta, max_iter=200, seed=0, verdict=False).x
    for off in (1e-6, 1e-2, 1.0):
        at = best + off * v / np.linalg.norm(v)
        for below in (0, 99):
            end = polish(ob, at, below, lambda: False)
            numbers = [float(end.n_steps), float(end.n_products), float(end.n_gradients)]
            numbers += [float(end.theta @ np.cos(np.arange(len(at))))]
            found[f"polish, {off}, {below}"] = ["", *numbers]
    for name, net in {
        "mse": {"sizes": [3, 4, 2]}, "single": {"sizes": [3, 4, 2], "dtype": "float32"},
        "entropy": {"sizes": [3, 4, 2], "loss": "cross_entropy"},
        "l2": {"sizes": [3, 2], "l2": 0.1},
    }.items():  # fmt: skip
        ob, theta, _ = drawn(**net)
        for f0 in (1.0, 1e12):
            for f in (1e-30, 1e-20, 1e-11, 1e-3):
                g = ob.gradient(theta)
                run = SimpleNamespace(
                    ob=ob, f0=f0, f=f, gnorm=f * f0, max_time=None, elapsed=lambda: 1.0,
                    value_and_gradient=lambda at, g=g, f=f: (f, g), value=ob.value,
                )  # fmt: skip
                end = Finisher(run, None, lambda start: (start, 0.0))
                above = end._above_bound(theta, f)
                report: Any = SimpleNamespace(plateau=f < 1e-5, n_zero=0)
                numbers = [-1.0 if above is None else above, float(end._can_go_on(theta))]
                numbers += [float(end._flattens(theta, report)), float(end._at_infinity(theta))]
                found[f"end, {name}, {f0}, {f}"] = ["", *numbers]
    way = fc.escape(SADDLE, np.zeros(2), seed=2)
    found["escape"] = [masked(way.message)[0], float(way.fun), float(way.nfev)]
    return found


def lines() -> dict[str, list[Any]]:
    """Searches along a line, and the trials that they take."""
    found: dict[str, list[Any]] = {}
    trials = [
        line_search.Trial(t, f, slope, None)
        for t, f, slope in (
            (0.0, 1.0, -1.0), (0.3, 0.8, -0.2), (1.0, 0.9, 0.5), (2.0, 3.0, 4.0), (1.5, 0.2, -2.0),
            (4.0, np.inf, np.nan), (0.7, 0.8, 0.0),
        )
    ]  # fmt: skip
    for i, a in enumerate(trials):
        for j, b in enumerate(trials):
            if a.t != b.t:
                numbers = [line_search._cubic(a, b), line_search._between(a, b)]
                numbers += [line_search._further(a, b)] if a.t < b.t else []
                found[f"trials {i} and {j}"] = ["", *map(float, numbers)]
    falls = {
        "bowl": lambda t: (t - 1.3) ** 2, "drop": lambda t: -t / (1 + t**4),
        "wall": lambda t: -t if t < 2 else np.inf, "waves": lambda t: np.cos(3 * t) - t / 9,
        "up": lambda t: t, "for ever": lambda t: -t,
    }  # fmt: skip
    for name, f in falls.items():
        for start in (1e-3, 0.5, 40.0):
            for refinements in (0, 3, 12):
                asked: list[float] = []

                def value(theta: Any, f: Any = f, asked: Any = asked) -> float:
                    asked.append(float(theta[0]))
                    return float(f(theta[0]))

                t, lowest = line_minimum(value, np.zeros(1), np.ones(1), f(0.0), start, refinements)
                found[f"{name}, {start}, {refinements}"] = ["", float(t), lowest, float(len(asked))]
    return found


PARTS: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "clocks": clocks, "ways": ways, "saved": saved, "kicks": kicks, "last steps": last_steps,
    "lines": lines,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PARTS[name]()
    return rounded(found, 6)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
