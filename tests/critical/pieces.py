"""The theorems and thresholds that verdicts are made of, on grids of numbers:
`test_critical_figures` holds what they give.

    python -m tests.agreement critical.pieces

writes it down anew, which is to be done where a rule is meant to change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.common.linalg import eigh
from fastcurv.critical import evidence, low_rank, nearness, theorem
from fastcurv.critical.symmetry import DenseHessian
from fastcurv.spectrum.dense import symmetric_part
from fastcurv.testing import FunctionObjective

from ..agreement import lined, rounded, served_by
from ..certify.figures import drawn

SIZES = (0.0, 1e-300, 1e-12, 0.02, 0.3, 1.0, 1e9, np.inf)


def matrix(n: int, low: float) -> Any:
    """With known eigenvalues, in coordinates of its own."""
    values = np.r_[low, np.linspace(0.5, 4, n - 1)]
    places = np.cos(np.arange(n) ** 1.5 + 1)
    Q = np.eye(n) - 2 * np.outer(places, places) / (places @ places)
    A = (Q * values) @ Q
    return (A + A.T) / 2


def theorems() -> dict[str, list[Any]]:
    """Kantorovich's theorem and two signs, with third derivatives that are constant or grow."""
    found: dict[str, list[Any]] = {}
    thirds: dict[str, Callable[[float], float]] = {
        "none": lambda r: 0.0, "two": lambda r: 2.0, "growing": lambda r: 1 + r**2,
        "infinite": lambda r: np.inf, "later": lambda r: 0.0 if r < 1 else 3.0,
        "wall": lambda r: 1.0 if r < 0.2 else np.inf,
    }  # fmt: skip
    for name, third in thirds.items():
        for x, y in itertools.product(SIZES, SIZES):
            point = theorem.kantorovich(x, y, third)
            found[f"{name}, {x}, {y}"] = [
                point.missing, float(point.holds), point.radius, point.h, point.third,
                theorem.two_signs(-x, y, third),
            ]  # fmt: skip
    for n, rows in ((3, 2), (6, 6), (6, 7)):
        J = np.cos(np.add.outer(np.arange(rows) ** 1.3, np.arange(n) ** 1.7))
        for off, size in itertools.product((0.0, 1e-9, 0.5), (0.0, 1e-3, 1.0)):
            here = theorem.zero_of_residuals(J, off, size * np.ones(rows), off, thirds["two"])
            numbers = [here.radius, here.beta, here.eta, here.h]
            found[f"{rows} residuals of {n}, {off}, {size}"] = [here.missing, *numbers]
    return found


def slices() -> dict[str, list[Any]]:
    """Newton's step on matrices of all signs, scaled and with directions taken out."""
    found: dict[str, list[Any]] = {}
    for low, taken, uneven in itertools.product((-1.0, 1e-13, 0.2), (0, 1), (False, True)):
        A = matrix(7, low)
        full = DenseHessian(symmetric_part(A, np.full(7, 1e-12), 7))
        T = np.cos(np.arange(7.0))[:, None][:, :taken]
        c = 1 + np.arange(7) / 3 if uneven else None
        cut = full.cut(full.flat(T), c)
        numbers = [cut.error, cut.ends, cut.weakest, cut.norm, *map(float, cut.values)]
        for g_error in (0.0, 1e-6):
            g = np.sin(np.arange(7.0)) * 1e-3
            beta, eta, x = theorem.newton_in_slice(A, 1e-10, cut, g, g_error)
            numbers += [beta, eta, float(np.abs(x).sum())]
        for change, radius in ((0.0, 0.1), (1.0, 0.2), (1.0, 2.0)):
            whole = theorem.orbit_stays_whole(cut.span, T, change, 1e-3, radius)
            numbers.append(float(whole))
        found[f"{low}, {taken}, {uneven}"] = ["", *numbers]
    return found


def thresholds() -> dict[str, list[Any]]:
    """When a value or a gradient counts as nothing."""
    found: dict[str, list[Any]] = {}
    for f, c, reach in itertools.product((-1.0, 1e-9, 3.0, np.inf), (-np.inf, 0.0, 2.0), SIZES):
        numbers = [
            nearness.value_threshold(f, c, reach),
            nearness.value_threshold(f, c, reach, 1e-7),
        ]
        found[f"value, {f}, {c}, {reach}"] = ["", *numbers, nearness.value_rounding(f, "float32")]
    for norm, decrement, threshold in itertools.product((0.0, 1.0), SIZES, SIZES):
        for tol, whole in ((None, None), (None, 0.1), (0.5, None)):
            one = nearness.held(norm, decrement, threshold, tol, whole)
            found[f"held, {norm}, {decrement}, {threshold}, {tol}, {whole}"] = [
                "", float(one.near), one.gradient_tol, one.threshold,
            ]  # fmt: skip
    for low, off, error in itertools.product((-1.0, 1e-9, 0.3), (0.0, 1e-3, np.nan), (0.0, 1e-6)):
        values, vectors, _ = eigh(matrix(6, low))
        none = np.zeros((6, 0))
        eigen = theorem.Slice(values, vectors, error, 1 + np.arange(6) / 2, none)
        g, reach = np.cos(np.arange(6.0)) / 100, 1e11 * np.ones(6)
        numbers = [nearness.newton_decrement(g, off, reach, eigen), eigen.weakest]
        found[f"decrement, {low}, {off}, {error}"] = ["", *numbers, nearness.assumed_error(3.0, g)]
    for n, gone in ((5, 0), (8, 2)):
        A = matrix(n, -0.4) * np.outer(10.0 ** np.arange(n), 10.0 ** np.arange(n))
        A[:gone] = A[:, :gone] = 0
        for noise in (0.0, 1e-3, 1e3):
            numbers = [evidence.spectral_norm(A)]
            for maker in (evidence.equilibrate, evidence.balance):
                d, live = maker(A, noise * np.ones(n))
                numbers += [*map(float, d), float(live.sum())]
            found[f"balance, {n}, {noise}"] = ["", *numbers]
    T = np.c_[np.eye(5)[:, :2], np.eye(5)[:, :1] + 1e-9, np.zeros(5)]
    Q = evidence.independent(T)
    left = evidence.annihilated(matrix(5, 1e-9) @ np.eye(5), np.eye(5), 1e-6)
    found["independent"] = ["", float(Q.shape[1]), float(left.shape[1])]
    return found


def lasts() -> dict[str, list[Any]]:
    """Curvatures that change their sign some way off."""
    found: dict[str, list[Any]] = {}
    bent = FunctionObjective(
        2,
        lambda t: t[0] ** 2 / 2 - t[0] ** 4 / 12 - t[1] ** 2 / 2 + t[1] ** 3 / 6,
        lambda t: [t[0] - t[0] ** 3 / 3, -t[1] + t[1] ** 2 / 2],
        lambda t: [[1 - t[0] ** 2, 0.0], [0.0, -1 + t[1]]],
    )
    spent: list[int] = []

    def total() -> float:
        return float(sum(spent.pop() for _ in range(len(spent))))

    for reach in (0.0, 1e-3, 0.1, 0.4, 0.8, 1.5, np.nan):
        for i, curvature in enumerate((1.0, -1.0)):
            lasts = nearness.lasts_along(
                bent, np.zeros(2), np.eye(2)[i], curvature, reach, spent.append
            )
            first, step = total(), np.array([reach, reach / 2])
            keep = nearness.lasting_along_step(
                bent, np.zeros(2), step, np.eye(2), np.array([1.0, -1.0]), spent.append
            )
            found[f"{reach}, {i}"] = ["", float(lasts), first, *map(float, keep), total()]
        for slack in (0.0, 0.3):
            signs = nearness.certify_signs(
                bent, np.zeros(2), np.array([1, -1]), values=np.array([1.0, -1.0]),
                vectors=np.eye(2), slopes=np.array([reach, 0.1]), slack=lambda u, x=slack: x,
                spend=spent.append,
            )  # fmt: skip
            found[f"settle, {reach}, {slack}"] = ["", *map(float, signs), total()]
    return found


def rows() -> dict[str, list[Any]]:
    """What few rows reach, residuals that vanish, and products with what they show."""
    found: dict[str, list[Any]] = {}
    ob, theta, v = drawn(sizes=[6, 5, 2])
    decayed = drawn(sizes=[6, 5, 2], l2=0.2)[0]
    for name, net, count in (("none", ob, 2), ("none", ob, 4), ("l2", decayed, 3)):
        few = net.batch(slice(0, count))
        H = evidence.hessian_products(few, theta)
        ask: Any = SimpleNamespace(ob=few, theta=theta, dense_below=99, n=theta.size)
        near = low_rank.interpolation(ask, H)
        numbers = [] if near is None else [near.beta, near.eta, near.third]
        space = low_rank.reached(ask, H, 500.0, None)
        if space is not None:
            numbers += [space.error, space.smallest, space.weakest, float(space.signs.sum())]
            numbers += [*map(float, space.counts.values()), float(space.credible(H.norm))]
            numbers += [float(value) for value, _ in space.ends()]
            numbers += [*map(float, space.chosen(3)[0])]
            if name == "l2":
                numbers.append(float(np.abs(space.solve(v)).sum()))
                numbers.append(float(np.abs(space.step(H, v)).sum()))
        numbers += [float(H(v) @ v), H.norm, H.zero, float(H.taken()), H.bound(v)]
        quotient, error, _ = H.rayleigh(v / np.linalg.norm(v))
        found[f"{name}, {count} rows"] = ["", *numbers, quotient, error]
    small = fc.Objective(ob.model, ob.X[:2] * 1e-11, ob.y[:2] * 1e-11, "mse")
    bare = ob.model.flatten([(W, 0 * b) for W, b in ob.model.unflatten(theta)])
    near = low_rank.interpolation(
        SimpleNamespace(ob=small, theta=bare), evidence.hessian_products(small, bare)
    )
    found["small rows"] = ["", *([] if near is None else [near.beta, near.eta, near.third])]
    single = decayed.astype("float32").hessian(theta.astype("float32"))
    H = evidence.Products(single)
    found["products, single"] = ["", float(H(v)[0]), H.norm, H.zero]
    for form in (fc.Objective.hessian, fc.Objective.ggn):
        H = evidence.Products(form(decayed, theta))
        found[f"products, {form.__name__}"] = ["", float(H(np.c_[v, 2 * v])[0, 1]), H.norm, H.zero]
    return found


PARTS: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "theorems": theorems, "slices": slices, "thresholds": thresholds, "lasts": lasts, "rows": rows,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), np.errstate(all="ignore"):
        found = PARTS[name]()
    return rounded(found, 9, -7.0)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
