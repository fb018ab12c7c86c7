"""What the proofs say in numbers, on nets of every kind: `test_figures` holds them.

    python -m tests.certify.figures > tests/certify/figures.json

writes them down anew, which is to be done where a bound is meant to change, and looked at.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.certify.batch_norm import NormRounding
from fastcurv.certify.columns import column_bounds, jacobian_bounds
from fastcurv.certify.dense_hessian import Layered, gram_enclosure
from fastcurv.certify.majorants import by_layers, by_units
from fastcurv.certify.passes import ErrorPass, passes_at

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
    "sigmoid, cross entropy, one hidden layer": {
        "sizes": [3, 4, 3], "activation": "sigmoid", "loss": "cross_entropy", "l2": 1e-2,
    },
    "leaky relu, one hidden layer": {"sizes": [3, 4, 2], "activation": "leaky_relu", "l2": 1e-2},
    "identity, one hidden layer, float32": {
        "sizes": [3, 4, 2], "activation": "identity", "loss": "binary_cross_entropy",
        "dtype": "float32",
    },
    "tanh and sigmoid, float32, four layers": {
        "sizes": [3, 4, 4, 4, 2], "activation": ["tanh", "sigmoid", "tanh"], "residual": True,
        "dtype": "float32", "l2": 1e-2,
    },
    "silu, batch norm, float32, weighted": {
        "sizes": [3, 4, 4, 2], "activation": "silu", "batch_norm": True, "dtype": "float32",
        "weighted": True, "l2": 1e-2,
    },
    "softplus, binary, skips": {
        "sizes": [3, 5, 5, 5, 1], "activation": "softplus", "loss": "binary_cross_entropy",
        "residual": True, "l2": 1e-3, "weighted": True,
    },
    "gelu and leaky relu, soft targets, skips": {
        "sizes": [4, 4, 4, 3], "activation": ["gelu", "leaky_relu"], "loss": "cross_entropy",
        "soft": True, "residual": True, "weighted": True, "l2": 1.0,
    },
    "sigmoid and relu, no biases, float32": {
        "sizes": [3, 4, 3, 2], "activation": ["sigmoid", "relu"], "bias": False,
        "dtype": "float32",
    },
    "elu, batch norm, binary, no l2": {
        "sizes": [3, 3, 1], "activation": "elu", "batch_norm": True,
        "loss": "binary_cross_entropy",
    },
    "relu and elu, batch norm": {
        "sizes": [3, 4, 4, 2], "activation": ["relu", "elu"], "batch_norm": True,
    },
}  # fmt: skip
# relu nets with some of their kinks active: the loss, copies of a unit, a unit that has collapsed
HELD: dict[str, dict[str, Any]] = {
    "relu, one output": {"sizes": [3, 4, 1], "activation": "relu", "l2": 1e-1},
    "leaky relu, binary": {
        "sizes": [3, 5, 2], "activation": "leaky_relu", "loss": "binary_cross_entropy", "l2": 2.0,
        "weighted": True, "copies": True, "collapsed": True,
    },
    "relu, cross entropy, two layers": {
        "sizes": [3, 5, 4, 3], "activation": "relu", "loss": "cross_entropy", "l2": 1.0,
        "copies": True, "collapsed": True,
    },
    "relu and leaky relu, no biases": {
        "sizes": [3, 5, 4, 1], "activation": ["relu", "leaky_relu"], "bias": False, "l2": 3.0,
        "collapsed": True,
    },
    "leaky relu, one output, a unit gone": {
        "sizes": [3, 4, 1], "activation": "leaky_relu", "l2": 1.0, "collapsed": True,
        "apart": True,
    },
    "relu, soft targets, a unit gone": {
        "sizes": [3, 4, 4, 3], "activation": "relu", "loss": "cross_entropy", "soft": True,
        "l2": 1.0, "collapsed": True, "apart": True,
    },
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
    return bounds(*drawn(**net), LAYOUT)


def bounds(ob: Any, theta: Any, v: Any, layout: dict[str, Any]) -> dict[str, float]:
    """What is proved at theta, where kernels cut their sums as the layout says."""
    plain = not ob.model.batch_norm
    R: Any = (ErrorPass if plain else NormRounding)(ob, theta, layout)
    found = {f"product, {kind}": R.product(v, kind) for kind in ("hessian", "ggn")}
    found["gradient"] = R.gradient()
    if not plain:
        found |= {f"columns, {kind}": R.columns(kind).sum() for kind in ("hessian", "ggn")}
        found |= {f"kinks, {reach}": ob.kinks(theta, reach) for reach in (0.0, 0.02, 0.1)}
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
    return found | of_matrices(ob, np.asarray(theta, dtype=float), units / 3)


def of_matrices(ob: Any, theta: Any, units: Any) -> dict[str, float]:
    """Of whole matrices, and what a floor under the curvature is made of."""
    passes, found = passes_at(ob, theta), {}
    for kind in ("hessian", "ggn"):
        known = Layered(ob, passes, kind)
        found[f"by layers, {kind}"] = known.bounds.sum()
        found[f"a column by layers, {kind}"] = known.bounds[len(theta) // 3]
        found[f"by layers in norm, {kind}"] = known.error()
        found[f"by layers in units, {kind}"] = known.error(units)
    for kind in ("ggn", "fisher"):
        found[f"outputs, {kind}"] = gram_enclosure(ob, theta, kind).bounds.sum()
    if len(ob.model.sizes) == 3:
        found["floor, units"] = by_units(passes)
    if len(ob.model.sizes) > 2:
        found["floor, layers"] = by_layers(passes)
    for reach in (0.0, 0.02, 0.1):
        found[f"kinks, {reach}"] = ob.kinks(theta, reach)
    return found


def fitted(ob: Any, f: Any) -> Any:
    """The same rows with targets that outputs f meet: no gradient hides what it is off by."""
    f = np.asarray(f, dtype=float)
    if ob.loss == "cross_entropy":
        f = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    elif ob.loss == "binary_cross_entropy":
        f = 1 / (1 + np.exp(-f))
    return fc.Objective(ob.model, ob.X, f, ob.loss, 0.0, ob.sample_weight)


def on_kinks(
    copies: bool = False, collapsed: bool = False, apart: bool = False, fit: bool = False,
    **net: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """A net on some kinks and a point in theta and slopes; apart: a unit that has collapsed is no
    copy.
    """
    ob, theta, _ = drawn(**net)
    layers, model = ob.model.unflatten(theta), ob.model
    gone = [np.zeros(width, bool) for width in model.sizes[1:-1]]
    (W, b), (V, _) = layers[:2]
    if copies:
        W[1], V[:, 1] = 0.5 * W[0], 0.5 * V[:, 0]
        b[1] = 0.5 * b[0]
    if collapsed:
        W[-1], V[:, -1], gone[0][-1] = 0, 0, True
        if b is not None:
            b[-1] = 0
    theta, leaks = model.flatten(layers), ob.leaks()
    gates = [
        np.where(z > 0, 1.0, leak) for z, leak in zip(model.preactivations(theta, ob.X), leaks)
    ]
    for l, gate in enumerate(gates):
        gate[:, gone[l]] = leaks[l]
        gate[np.arange(3) * (l + 2), 2] = np.nan
    parents = None if apart else ob.copies(theta, gates, gone)
    held = ob.held(gates, gone, parents)
    slopes = 0.3 + 0.4 * (np.arange(held.n_slopes) % 4) / 4
    point = np.concatenate([held.copies.merged(theta), slopes])
    if fit:
        held = fitted(ob, held.passes(point)[2][-1][held.rows.inverse]).held(gates, gone, parents)
    return held, point


def of_held(**net: Any) -> dict[str, float]:
    """Of a net on some kinks, in theta and slopes."""
    held, point = on_kinks(**net)
    slopes = point[len(point) - held.n_slopes :]
    found: dict[str, float] = {"copies": held.n_copies, "kinks": held.n_kinks}
    found["hessian"] = held.hessian_error(point)
    if np.finfo(np.longdouble).eps == 2.0**-63:
        found["gradient"] = held.precise_gradient(point)[1].sum()
    for name, here in (("ones", held), ("units", held.in_units(1 + np.arange(len(slopes)) / 3))):
        for radius in (0.0, 1e-3, 0.1):
            found[f"third, {radius}, {name}"] = here.third_bound(point, radius)
            margins = vars(here.margins(point, radius))
            found |= {f"{what}, {radius}, {name}": x for what, x in margins.items()}
    return found


if __name__ == "__main__":
    every = {name: figures(**net) for name, net in NETS.items()}
    every |= {name: of_held(**net) for name, net in HELD.items()}
    table = {
        name: {what: float(f"{x:.14g}") for what, x in net.items()} for name, net in every.items()
    }
    json.dump(table, sys.stdout, indent=1)
    print()
