"""What the proofs say in numbers, on nets of every kind: `test_figures` holds them.

    python -m tests.rounding.figures > tests/rounding/figures.json

writes them down anew, which is to be done where a bound is meant to change, and looked at.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.rounding.batch_norm import NormRounding
from fastcurv.rounding.columns import column_bounds
from fastcurv.rounding.jacobian import jacobian_bounds
from fastcurv.rounding.rowwise import Rounding

# plain loops with few rows at once: the same on every machine
LAYOUT = {"arch": "reference", "chunk": 16, "panel": 8, "groups": 2}
NETS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"l2": 1e-2},
    "gelu, cross entropy": {"activation": "gelu", "loss": "cross_entropy", "weighted": True},
    "sigmoid, binary": {"activation": "sigmoid", "loss": "binary_cross_entropy", "l2": 1e-1},
    "relu, mse": {"activation": "relu", "l2": 1e-2},
    "elu and softplus, float32": {"activation": ["elu", "softplus"], "dtype": "float32"},
    "silu, skips, no biases": {"activation": "silu", "residual": True, "bias": False},
    "leaky relu, soft targets": {
        "activation": "leaky_relu", "loss": "cross_entropy", "soft": True, "l2": 1e-3,
    },
    "identity, one layer": {"sizes": [4, 3], "l2": 1e-3},
    "tanh, batch norm": {"batch_norm": True},
    "tanh, batch norm, skips": {"batch_norm": True, "residual": True, "loss": "cross_entropy"},
}  # fmt: skip


def drawn(
    sizes: Any = (4, 5, 5, 3), activation: Any = "tanh", loss: str = "mse", l2: float = 0.0,
    weighted: bool = False, soft: bool = False, **model: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """An objective, theta and a vector: numbers that no generator of another version changes."""
    net = fc.MLP(list(sizes), activation if len(sizes) > 2 else [], **model)
    at = np.arange(1, 1 + 23 * (sizes[0] + sizes[-1])).reshape(23, -1)
    rows = np.round(2 * np.sin(1.7 * at + 0.1 * at**1.5), 3)
    X, y = rows[:, : sizes[0]], rows[:, sizes[0] :]
    if loss == "cross_entropy" and not soft:
        y = np.argmax(y, axis=1)
    elif loss != "mse":
        y = np.round(0.5 + 0.24 * y, 3)
        y = y / y.sum(axis=1, keepdims=True) if soft else y
    weight = np.round(0.1 + np.arange(23) / 23, 3) if weighted else None
    ob = fc.Objective(net, X, y, loss, l2=l2, sample_weight=weight)
    n = net.n_params
    theta = np.round(0.8 * np.sin(np.arange(1, n + 1) * 2.3), 3).astype(net.dtype)
    return ob, theta, np.round(np.cos(np.arange(n) * 1.1), 3).astype(net.dtype)


def figures(**net: Any) -> dict[str, float]:
    ob, theta, v = drawn(**net)
    plain = not ob.model.batch_norm
    R: Any = (Rounding if plain else NormRounding)(ob, theta, LAYOUT)
    found = {f"product, {kind}": R.product(v, kind) for kind in ("hessian", "ggn")}
    found["gradient"] = R.gradient()
    if not plain:
        found |= {f"columns, {kind}": R.columns(kind).sum() for kind in ("hessian", "ggn")}
        return found | {"third, 0.1": ob.third_bound(theta, 0.1)}
    found["product, fisher"] = R.product(v, "fisher")
    for kind in ("hessian", "ggn", "fisher"):
        columns = column_bounds(R, kind)
        found |= {f"columns, {kind}": columns.sum(), f"a column, {kind}": columns[len(v) // 3]}
    found["jacobian"] = jacobian_bounds(R).sum()
    units = 1 + np.arange(len(v)) % 5
    for radius in (0.0, 1e-3, 0.5):
        found[f"third, {radius}"] = ob.third_bound(theta, radius)
        found[f"third in units, {radius}"] = ob.third_bound_in(theta, radius, units / 3)
    found["floor"] = ob.curvature_floor(theta)
    found["margin"] = ob.kink_margin(theta)
    found["gradient, precise"] = ob.precise_gradient(theta)[1]
    found["value, precise"] = ob.precise_value(theta)[1]
    here = ob.residual_bounds(theta, 1e-2)
    if here is not None:
        found |= {"residuals, L": here.lipschitz, "residuals, error": here.error}
    return found


if __name__ == "__main__":
    table = {
        name: {what: float(f"{x:.6g}") for what, x in figures(**net).items()}
        for name, net in NETS.items()
    }
    json.dump(table, sys.stdout, indent=1)
    print()
