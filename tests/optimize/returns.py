"""What every function of a run returns on the way to its end, by method and in other ways:
`test_optimize_figures` holds it.

    python -m tests.agreement optimize.returns

writes it down anew, which is to be done where one of them is meant to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastcurv as fc

from ..agreement import lined, returned
from ..certify.figures import drawn
from .endings import FUNCTIONS, function
from .figures import RUNS, SADDLE

SHORT: dict[str, Any] = {"max_iter": 4, "verdict": False, "seed": 5}


def by_curvature() -> None:
    """A few steps of each method of second order."""
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-3)
    for name, words in RUNS.items():
        if "learning_rate" not in words and "batch_size" not in words:
            fc.minimize(ob, theta, name.split(",")[0], **{**SHORT, **words})
            fc.minimize(SADDLE, np.array([0.5, 1e-3]), **SHORT)


def by_gradients() -> None:
    """A few steps of each method of first order, on some rows and on all."""
    ob, theta, _ = drawn(sizes=[3, 5, 3], activation="relu", loss="cross_entropy")
    for name, words in RUNS.items():
        if "learning_rate" in words or "batch_size" in words or name == "rmsprop":
            fc.minimize(ob, theta, name.split(",")[0], **{**SHORT, **words})


def to_ends() -> None:
    """Minima, ramps, valleys and saddles, with all that is tried there."""
    ob, theta, _ = drawn(sizes=[3, 4, 1], activation="softplus", l2=1e-2)
    fc.minimize(ob, theta, seed=1)
    fc.minimize(ob, theta, "adam", max_iter=30, seed=1)
    for name in FUNCTIONS:
        fc.minimize(*function(name), seed=1, max_iter=60)


def on_kinks() -> None:
    """Where kinks of relu units hold a run."""
    ob, theta, _ = drawn(sizes=[3, 4, 1], activation="relu", l2=0.3)
    fc.minimize(ob, theta, max_iter=300, seed=0)


def samples() -> None:
    """Points of several kinds, and ways off a saddle."""
    ob, theta, _ = drawn(sizes=[3, 4, 2], l2=1e-2)
    fc.sample_critical_points(ob, 3, sources=("narrower", "walk"), epochs=(5, 8), seed=3)
    fc.escape(SADDLE, np.zeros(2), seed=2)
    fc.escape(ob, 0 * theta, seed=2)


PARTS: dict[str, Callable[[], None]] = {
    "by curvature": by_curvature, "by gradients": by_gradients, "to ends": to_ends,
    "on kinks": on_kinks, "samples": samples,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    return returned(PARTS[name], "optimize", "krylov")


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
