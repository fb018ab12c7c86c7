"""The collection of critical points, plateaus and near misses that `classify` is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import minimize

import fastcurv as fc
from fastcurv.testing import (
    Case,
    FunctionObjective,
    LinearAutoencoder,
    PrescribedSpectrum,
    QuadraticObjective,
    lecture_toy,
)

# Functions of two variables that are classified at the origin: name, kind, numbers of positive,
# negative and zero eigenvalues, and functions that return the value, the gradient, the Hessian and
# a Lipschitz constant of the Hessian.
TEST_FUNCTIONS: list[tuple[str, str, tuple[int, int, int], Any, Any, Any, Any]] = [
    (
        "x^2 - y^2",
        "saddle",
        (1, 1, 0),
        lambda t: t[0] ** 2 - t[1] ** 2,
        lambda t: [2 * t[0], -2 * t[1]],
        lambda t: np.diag([2.0, -2.0]),
        lambda t, r: 0.0,
    ),
    (
        "monkey saddle",
        "degenerate",
        (0, 0, 2),
        lambda t: t[0] ** 3 - 3 * t[0] * t[1] ** 2,
        lambda t: [3 * t[0] ** 2 - 3 * t[1] ** 2, -6 * t[0] * t[1]],
        lambda t: [[6 * t[0], -6 * t[1]], [-6 * t[1], -6 * t[0]]],
        lambda t, r: 6.0,
    ),
    (
        "x^2 - y^4",
        "degenerate",
        (1, 0, 1),
        lambda t: t[0] ** 2 - t[1] ** 4,
        lambda t: [2 * t[0], -4 * t[1] ** 3],
        lambda t: np.diag([2.0, -12 * t[1] ** 2]),
        lambda t, r: 24 * (abs(t[1]) + r),
    ),
    (
        "x^2 + y^3",
        "degenerate",
        (1, 0, 1),
        lambda t: t[0] ** 2 + t[1] ** 3,
        lambda t: [2 * t[0], 3 * t[1] ** 2],
        lambda t: np.diag([2.0, 6 * t[1]]),
        lambda t, r: 6.0,
    ),
    (
        "-x^2 - 3 y^2",
        "maximum",
        (0, 2, 0),
        lambda t: -(t[0] ** 2) - 3 * t[1] ** 2,
        lambda t: [-2 * t[0], -6 * t[1]],
        lambda t: np.diag([-2.0, -6.0]),
        lambda t, r: 0.0,
    ),
    (
        "zero",
        "degenerate",
        (0, 0, 2),
        lambda t: 0.0,
        lambda t: np.zeros(2),
        lambda t: np.zeros((2, 2)),
        lambda t, r: 0.0,
    ),
]


def axis_saddles(count: int, rng: Any = 0) -> list[Case]:
    """Return `count` quadratics with random curvatures along the axes, at least one of each sign,
    as a list of `Case`.

    A negative curvature may be as small as 1e-6 times the largest positive one in absolute value.
    """
    rng = np.random.default_rng(rng)
    cases = []
    for i in range(count):
        n = int(rng.integers(2, 31))
        n_negative = int(rng.integers(1, n))
        magnitudes = 10.0 ** rng.uniform(-6, 0, n)
        values = np.where(np.arange(n) < n_negative, -magnitudes, magnitudes)
        values[-1] = 1.0
        rng.shuffle(values)
        scale = 10.0 ** rng.uniform(-6, 6)
        center = rng.standard_normal(n)
        ob = QuadraticObjective(
            PrescribedSpectrum(scale * values, 0), center, offset=rng.standard_normal()
        )
        cases.append(Case(f"axis saddle {i}", ob, center, "saddle", n - n_negative, n_negative, 0))
    return cases


def zoo() -> list[Case]:
    """Return the critical points, plateaus and nearly critical points on which `classify` is
    tested, as a list of `Case`.

    This takes a second or two, since some of the points are computed to rounding by Newton's
    method.
    """
    cases = [
        Case(name, FunctionObjective(2, *functions), np.zeros(2), kind, *counts, 0.0)
        for name, kind, counts, *functions in TEST_FUNCTIONS
    ]
    toy = lecture_toy()
    cases.append(Case("toy at the origin", toy, np.zeros(2), "saddle", 1, 1, 0, 1.0))
    cases.append(Case("toy in the valley", toy, np.array([2.0, 0.5]), "minimum", 1, 0, 1, 0.0))
    cases += LinearAutoencoder([5.0, 4.0, 3.0, 2.0, 1.0], 2, rng=1).cases(rng=1)
    cases += LinearAutoencoder([4.0, 1.0, 0.3, 0.1], 1, n_samples=9, rng=2).cases()
    cases += LinearAutoencoder([8.0, 6.0, 5.0, 3.0, 2.0, 0.5], 3, rng=3).cases(rng=3, limit=8)
    cases += [*_convex_cases(), *_dead_relu_cases(), *_xor_cases(), *_embedded_unit_cases()]
    return cases


def polish(ob: Any, theta: np.ndarray, steps: int = 30) -> np.ndarray:
    """Return a critical point of a small objective refined to rounding, by at most `steps` Newton
    steps with a pseudo-inverse.
    """
    best = np.array(theta, dtype=float)
    g = ob.gradient(best)
    for _ in range(steps):
        H = np.asarray(ob.hessian(best) @ np.eye(best.size))
        new = best - np.linalg.lstsq(H, g, rcond=1e-10)[0]
        g_new = ob.gradient(new)
        if not np.linalg.norm(g_new) < np.linalg.norm(g):
            break
        best = new
        g = g_new
    return best


def _find_critical_point(ob: Any, theta0: Any) -> Any:
    """Return the critical point that BFGS from theta0 followed by Newton's method reaches."""
    near = minimize(
        ob.value_and_gradient,
        theta0,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    return polish(ob, near.x)


def _convex_cases() -> Iterator[Any]:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((30, 4))
    ridge = fc.Objective(fc.MLP([4, 1], ()), X, X @ rng.standard_normal(4) + 1, "mse", l2=0.1)
    yield Case("ridge", ridge, polish(ridge, np.zeros(5)), "minimum", 5, 0, 0)
    logistic = fc.Objective(
        fc.MLP([4, 1], ()),
        X,
        (X[:, 0] > 0).astype(float),
        "binary_cross_entropy",
        l2=0.01,
    )
    yield Case("regularised logistic", logistic, polish(logistic, np.zeros(5)), "minimum", 5, 0, 0)
    softmax = fc.Objective(fc.MLP([4, 3], ()), X, rng.integers(0, 3, 30), "cross_entropy")
    yield Case(
        "softmax regression",
        softmax,
        _find_critical_point(softmax, np.zeros(15)),
        "minimum",
        10,
        0,
        5,
    )


def _dead_relu_cases() -> Iterator[Any]:
    rng = np.random.default_rng(5)
    X = rng.random((12, 2))
    model = fc.MLP([2, 3, 1], "relu")
    y = rng.standard_normal(12)
    dead = model.flatten(
        [(-np.ones((3, 2)), -np.ones(3)), (rng.standard_normal((1, 3)), np.array([2.0]))]
    )
    yield Case(
        "dead ReLU units off their best bias",
        fc.Objective(model, X, y, "mse"),
        dead,
        "not_critical",
    )
    hinge = fc.Objective(model, X, np.zeros(12), "binary_cross_entropy")
    far = model.flatten([(-np.ones((3, 2)), -np.ones(3)), (np.ones((1, 3)), np.array([40.0]))])
    yield Case("dead ReLU units on a slope", hinge, far, "not_critical")
    best = dead.copy()
    best[-1] = y.mean()
    yield Case(
        "dead ReLU units at their best bias",
        fc.Objective(model, X, y, "mse"),
        best,
        "minimum",
        1,
        0,
        12,
    )


def _xor_cases() -> Iterator[Any]:
    X = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    y = np.array([0.0, 1, 1, 0])
    ob = fc.Objective(fc.MLP([2, 2, 1], "tanh"), X, y, "mse")
    origin = np.zeros(9)
    origin[-1] = 0.5
    yield Case("XOR at the origin", ob, origin, "degenerate", 1, 0, 8, 0.25)
    strong = fc.Objective(fc.MLP([2, 2, 1], "tanh"), X, y, "mse", l2=1e-3)
    theta = _find_critical_point(strong, np.array([1.0, 1, 1, 1, 1, -1, 1, -1, 0]))
    yield Case("XOR solved, with l2", strong, theta, "minimum", 9, 0, 0)


def _embedded_unit_cases() -> Iterator[Any]:
    """Yield cases in which a one-unit tanh network at a critical point is embedded in a network
    with two units, either by adding a unit of zeros or by splitting the unit (Fukumizu, Amari
    2000).
    """
    rng = np.random.default_rng(6)
    X = rng.standard_normal((20, 2))
    y = np.tanh(X @ [1.0, 0.5]) - 0.7 * np.tanh(X @ [-0.3, 2.0])
    small = fc.Objective(fc.MLP([2, 1, 1], "tanh", bias=False), X, y, "mse")
    w, v = np.split(_find_critical_point(small, np.array([0.5, 0.5, 1.0])), [2])
    wide = fc.Objective(fc.MLP([2, 2, 1], "tanh", bias=False), X, y, "mse")
    zero = np.concatenate([w, np.zeros(2), v, [0.0]])
    yield Case("a unit of zeros added", wide, zero, "saddle")
    for share in (-0.5, 0.5):
        split = np.concatenate([w, w, share * v, (1 - share) * v])
        eigenvalues = np.linalg.eigvalsh(wide.hessian(split) @ np.eye(6))
        if eigenvalues[0] < -1e-3 * eigenvalues[-1]:
            yield Case(f"a unit split with shares {share} and {1 - share}", wide, split, "saddle")
