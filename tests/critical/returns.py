"""What every function of a verdict returns on the way to it, at points of several kinds:
`test_critical_figures` holds it.

    python -m tests.agreement critical.returns

writes it down anew, which is to be done where one of them is meant to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.testing import zoo

from ..agreement import lined, returned
from ..certify.figures import drawn
from .figures import NETS, hard
from .searches import minimum


def verdicts(name: str) -> None:
    """At a minimum, beside it, at zero; by matrices, by products, and by few."""
    ob, best = minimum(**NETS[name])
    v = np.cos(np.arange(len(best)) ** 1.5)
    for theta in (best, best + 1e-4 * v / np.linalg.norm(v), 0 * best):
        for words in ({}, {"dense_below": 0}, {"dense_below": 0, "max_products": 12}):
            fc.classify(ob, theta.astype(best.dtype), **words)


def known() -> None:
    """Where the eigenvalues are known beforehand, and along zeros."""
    for i, (_, ob, theta, words) in enumerate(hard()):
        if i % 3 == 0:
            fc.classify(ob, theta, **words)


def points() -> None:
    """Critical points that are looked for."""
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-2)
    for method in ("newton-mr", "gradient-norm"):
        fc.find_critical_point(ob, theta, method=method, max_iter=6)
    for i, case in enumerate(zoo()):
        if i % 4 == 0:
            fc.classify(case.objective, case.theta)
            fc.find_critical_point(case.objective, case.theta + 0.03, max_iter=5)


def kinks() -> None:
    """Minima on kinks of relu units."""
    for at in (0.5, 0.02):
        ob, theta, _ = drawn(sizes=[3, 4, 1], activation="relu", l2=at)
        fc.minimize(ob, theta, max_iter=300, seed=0)


PARTS: dict[str, Callable[[], None]] = {
    **{
        name: lambda name=name: verdicts(name)  # type: ignore[misc]
        for name in ("cross entropy", "relu", "single", "few rows")
    },
    "known": known, "points": points, "kinks": kinks,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    return returned(PARTS[name], "critical", "krylov", "structure")


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
