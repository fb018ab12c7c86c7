"""Symmetries and saturation of networks of every kind, for the golden file."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc

from ..golden import drawn

NETS: dict[str, dict[str, Any]] = {
    "tanh": {"sizes": [3, 4, 2]},
    "tanh, l2": {"sizes": [3, 4, 2], "l2": 0.1},
    "relu, two layers": {"sizes": [3, 5, 4, 3], "activation": "relu", "loss": "cross_entropy"},
    "relu, no biases": {"sizes": [3, 4, 3], "activation": "relu", "bias": False},
    "leaky relu, skips": {"sizes": [4, 4, 4, 2], "activation": "leaky_relu", "residual": True},
    "sigmoid, binary": {
        "sizes": [3, 4, 4, 1], "activation": ["sigmoid", "tanh"], "loss": "binary_cross_entropy",
    },
    "identity, three layers": {"sizes": [3, 4, 3, 2], "activation": "identity"},
    "identity, then relu": {"sizes": [3, 4, 3, 3, 2], "activation": ["identity", "relu", "gelu"]},
    "batch norm": {"sizes": [3, 4, 2], "activation": "relu", "batch_norm": True},
    "batch norm, skips, l2": {
        "sizes": [3, 4, 4, 2], "activation": "tanh", "batch_norm": True, "residual": True,
        "l2": 0.1,
    },
    "one layer": {"sizes": [4, 3], "loss": "cross_entropy"},
}  # fmt: skip


def points(ob: Any, theta: Any) -> dict[str, Any]:
    """Return a dict of points by name: theta, 9 theta, which saturates units, 0 theta, and three
    copies of theta. In the copies a unit has zero input weights, a unit has zero output weights, or
    two units have equal input weights. A network without hidden layer has no copies.
    """
    found = {"plain": theta, "large": 9 * theta, "zero": 0 * theta}
    if len(ob.model.shapes) < 2:
        return found
    for what in ("reads nothing", "says nothing", "the same"):
        moved = theta.copy()
        (W, b, *_), (V, *_) = ob.model.unflatten(moved)[:2]
        if what == "reads nothing":
            W[1] = 0
        elif what == "says nothing":
            V[:, 2] = 0
        else:
            W[3] = W[0]
            if b is not None:
                b[3] = b[0]
        found[what] = moved
    return found


def numbers(x: Any) -> list[float]:
    """Return the numbers in nested lists and dicts as a flat list of floats, with each array
    replaced by its sum. Strings and None are left out.
    """
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, (list, tuple)):
        return [y for part in x for y in numbers(part)]
    return [] if x is None or isinstance(x, str) else [float(np.sum(x))]


SECTIONS = tuple(NETS)


def golden(section: str) -> dict[str, list[Any]]:
    ob, theta, _ = drawn(**NETS[section])
    X = np.c_[ob.X[:, :-1], ob.X[:, 0] / 2]  # the last column is half of the first one
    twin = fc.Objective(ob.model, X, ob.y, ob.loss, l2=ob.l2)
    found: dict[str, list[Any]] = {}
    for what, at in points(ob, theta).items():
        for form, one in (("", ob), (", a column explained", twin)):
            known = one.certificates
            groups, flat = known.orbits(at), known.flat_directions(at)
            found[f"{what}{form}"] = [
                ", ".join(group.name for group in groups),
                *(float(len(group)) for group in groups),
                *numbers(known.saturation(at)),
                float(flat.shape[1]),
                float(np.abs(flat).sum()),
                *map(float, np.sum(known.probes(at) != 0, axis=0)),
            ]
    return found
