"""Proved bounds as numbers, for networks of every kind, at kinks, and for numbers and logits at the
ends of the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.certify.bounds import assembled

from ..golden import drawn

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
# Relu networks with active kinks. `copies` makes a unit a copy of another, `collapsed` sets the
# weights of a unit to zero, and `apart` does not count a collapsed unit as a copy.
KINK_NETS: dict[str, dict[str, Any]] = {
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
ENDS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"sizes": [3, 4, 2], "l2": 1e-2},
    "gelu, cross entropy": {
        "sizes": [3, 4, 3], "activation": "gelu", "loss": "cross_entropy", "weighted": True,
    },
    "softplus, soft targets": {
        "sizes": [3, 4, 4, 3], "activation": ["softplus", "silu"], "loss": "cross_entropy",
        "soft": True,
    },
    "sigmoid, binary": {
        "sizes": [3, 4, 4, 1], "activation": ["sigmoid", "elu"], "loss": "binary_cross_entropy",
        "residual": True,
    },
    "relu, cross entropy, float32": {
        "sizes": [3, 4, 3], "activation": "relu", "loss": "cross_entropy", "dtype": "float32",
    },
    "tanh, batch norm": {"sizes": [3, 4, 2], "batch_norm": True, "loss": "cross_entropy"},
}  # fmt: skip
# Factors of the rows of X, of theta, and of targets for regression.
SCALES = {
    "nothing": (1.0, 0.0, 1.0),
    "least": (1e-158, 1e-158, 1e-300),
    "small": (1e-80, 1.0, 1e-90),
    "large": (1e60, 1.0, 1e50),
    "far": (1.0, 25.0, 1.0),
    "farther": (30.0, 30.0, 1e3),
}
SINGLE = {"least": (1e-22, 1e-20, 1.0), "small": (1e-15, 1.0, 1.0), "large": (1e12, 1.0, 1.0)}


def bounds(ob: Any, theta: Any, v: Any) -> dict[str, dict[str, Any]]:
    """Return all bounds proved at theta as ``{group: {name: number}}``, with the bound on the
    product with v.
    """
    found: dict[str, dict[str, Any]] = {}
    units = 1 + np.arange(len(v)) % 5
    for kind in ("hessian", "ggn", "empirical_fisher"):
        if kind == "empirical_fisher" and ob.model.batch_norm:
            continue
        H = getattr(ob, kind)(theta)
        made = assembled(H) if kind != "empirical_fisher" else None
        found[kind] = {"product": rounding_bound(H, v)}
        if made is not None:
            found[kind] |= {"in norm": made.error_bound()}
            found[kind] |= {"in units": made.error_bound(units / 3)}
    known = ob.certificates
    for radius in (0.0, 1e-3, 0.5):
        found[f"third, {radius}"] = {
            "ball": known.third_bound(theta, radius),
            "in units": known.third_bound_in_units(theta, radius, units / 3),
        }  # fmt: skip
    found["rounding"] = {
        "gradient": rounding_bound(ob, theta), "precise gradient": known.precise_gradient(theta)[1],
        "precise value": known.precise_value(theta)[1],
    }  # fmt: skip
    found["loss"] = {
        "floor": known.curvature_floor(theta), "lower": known.loss_lower_bound,
        "attained": known.attains_lower_bound,
    }  # fmt: skip
    found["kinks"] = {f"{reach}": known.kinks(theta, reach) for reach in (0.0, 0.02, 0.1)}
    here = known.residual_bounds(theta, 1e-2)
    if here is not None:
        found["residuals"] = {"lipschitz": here.lipschitz, "error": here.error}
    return found


# prefixes of results that need an 80-bit long double
UNAVAILABLE = () if np.finfo(np.longdouble).eps == 2.0**-63 else ("precise",)


def on_kinks(
    copies: bool = False, collapsed: bool = False, apart: bool = False, **net: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Return (objective, point): a network restricted to its active kinks as a smooth function, and
    the array of its parameters followed by slopes at which it is evaluated.

    The kinks are those of relu units that are copies of one another, collapsed to zero weights, or
    at zero for some samples. With `apart`, a collapsed unit is not counted as a copy.
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
    theta, rows = model.flatten(layers), ob.certificates.relu_rows()
    leaks = rows.leaks
    gates = [
        np.where(z > 0, 1.0, leak) for z, leak in zip(model.preactivations(theta, ob.X), leaks)
    ]
    for l, gate in enumerate(gates):
        gate[:, gone[l]] = leaks[l]
        gate[np.arange(3) * (l + 2), 2] = np.nan
    parents = None if apart else rows.find_unit_copies(theta, gates, gone)
    held = rows.smooth_piece_objective(gates, gone, parents)
    slopes = 0.3 + 0.4 * (np.arange(held.n_slopes) % 4) / 4
    point = np.concatenate([held.copies.merge_copies(theta), slopes])
    return held, point


def bounds_on_kinks(**net: Any) -> dict[str, dict[str, Any]]:
    """Return the bounds of the network of `on_kinks`, as functions of its parameters and slopes, as
    ``{group: {name: number}}``.
    """
    held, point = on_kinks(**net)
    slopes = point[len(point) - held.n_slopes :]
    found: dict[str, dict[str, Any]] = {
        "held": {
            "copies": held.n_copies, "kinks": held.n_kinks, "hessian": held.hessian_error(point)
        }
    }  # fmt: skip
    if not UNAVAILABLE:
        found["precise"] = {"gradient": held.precise_gradient(point)[1].sum()}
    for name, here in (
        ("ones", held),
        ("units", held.with_slope_units(1 + np.arange(len(slopes)) / 3)),
    ):
        for radius in (0.0, 1e-3, 0.1):
            third, margins = (
                here.third_bound(point, radius),
                vars(here.hypothesis_margins(point, radius)),
            )
            found[f"{name}, {radius}"] = {"third": third, **margins}
    return found


def rescaled(net: dict[str, Any], scale: str) -> tuple[Any, Any, Any]:
    """Return (objective, theta, v) of a network whose inputs, parameters and targets are multiplied
    by the factors that `SCALES` and `SINGLE` have for `scale`.
    """
    ob, theta, v = drawn(**net)
    rows, size, targets = (SINGLE if ob.dtype == np.float32 else {}).get(scale, SCALES[scale])
    y = ob.y * targets if ob.loss == "mse" else ob.y
    other = fc.Objective(ob.model, ob.X * rows, y, ob.loss, ob.l2, ob.sample_weight)
    return other, (size * theta).astype(theta.dtype), v


def flattened(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a dict of dicts as one dict with keys "outer, inner"."""
    return {f"{what}, {name}": x for what, part in found.items() for name, x in part.items()}


SECTIONS = (*NETS, *KINK_NETS, *(f"ends: {net}" for net in ENDS))


def golden(section: str) -> dict[str, Any]:
    if section in NETS:
        return bounds(*drawn(**NETS[section]))
    if section in KINK_NETS:
        return bounds_on_kinks(**KINK_NETS[section])
    net = ENDS[section.removeprefix("ends: ")]
    return {scale: flattened(bounds(*rescaled(net, scale))) for scale in SCALES}
