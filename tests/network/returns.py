"""What every function of networks and of their bounds returns, for objectives of every form:
`test_network_figures` holds it.

    python -m tests.agreement network.returns

writes it down anew, which is to be done where one of them is meant to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

import fastcurv as fc

from ..agreement import lined, returned
from ..certify.figures import HELD, drawn, of_held
from ..certify.figures import figures as bounds
from . import spaces, states


def forms() -> None:
    """Operators, their parts and sums, in memory, in blocks and sparse."""
    ob, theta, v = drawn(**spaces.NETS["gelu, cross entropy"])
    spaces.forms(ob, theta, v)
    spaces.passes(ob, theta, v)


def smaller() -> None:
    """Of few rows."""
    for name in ("tanh, mse", "sigmoid, binary, float32", "one layer, soft targets"):
        ob, theta, _ = drawn(**spaces.NETS[name])
        spaces.spaces(ob, theta)


def parts() -> None:
    """Facts that are summed over parts of the rows."""
    for name in ("tanh, mse", "relu, soft targets"):
        ob, theta, v = drawn(**states.NETS[name])
        states.streamed(ob, theta, v)


def models() -> None:
    """First weights, predictions, views, and what is written in other words."""
    rows = np.round(np.sin(np.arange(24.0) ** 1.3), 3).reshape(6, 4)
    for words in ({}, {"bias": False}, {"batch_norm": True}, {"residual": True}):
        model = fc.MLP([4, 5, 5, 2], "silu", **words)
        theta = model.init(seed=4)
        model.predict(theta, rows)
        model.preactivations(theta, rows)
        model.flatten(model.unflatten(theta))
        X = rows if model.batch_norm else scipy.sparse.csr_array(rows)
        ob = fc.Objective(model, X, rows[:, :2], "mse", l2=0.1, n_threads=1)
        H = ob.astype("float32").hessian(theta)
        H.restrict(layers=[1]).to_dense(), H.shift(0.3).quadratic(theta), repr(H)


def proofs() -> None:
    """Bounds, on smooth nets and on kinks."""
    for net in (
        {"sizes": [3, 4, 3], "activation": "gelu", "loss": "cross_entropy", "weighted": True},
        {"sizes": [3, 4, 4, 1], "activation": "elu", "loss": "binary_cross_entropy", "l2": 0.1},
        {"sizes": [3, 4, 2], "batch_norm": True, "residual": True},
        {"sizes": [3, 4, 2], "activation": ["relu"], "dtype": "float32"},
    ):
        bounds(**net)
    for name in ("leaky relu, binary", "relu, cross entropy, two layers"):
        of_held(**HELD[name])


PARTS: dict[str, Callable[[], None]] = {
    "forms": forms, "smaller": smaller, "parts": parts, "models": models, "proofs": proofs,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    return returned(PARTS[name], "network", "certify", "structure")


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))
