"""Read the reference networks: `names()` lists them and `load(name)` returns one of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FOLDER = Path(__file__).resolve().parent


def names():
    """Return the names of all networks, in alphabetical order."""
    return sorted(path.stem for path in (FOLDER / "networks").glob("*.json"))


def load(name):
    """Return a network with its values, as arrays of float64.

    Attributes of the network: sizes, activations, skips, bias, loss, l2, l2_biases, X (N, d_in), y
    (N, d_out) or classes (N,), sample_weight (N,) or None, theta (n,) and `claim`, the claim of the
    certificate. Attributes with certified values: level, value, gradient (n,), vectors (n, 3),
    products (n, 3), eigenvalues (n,), trace and, or else None, log_evidence, standard_deviations
    (3, d_out) and leave_one_out (N,).
    """
    network, values = (
        json.loads((FOLDER / folder / f"{name}.json").read_text())
        for folder in ("networks", "values")
    )
    data, loss, y = network["data"], network["loss"], network["data"]["y"]

    def numbers(key):
        return np.array(values[key], dtype=float) if key in values else None

    deviations = numbers("standard_deviations")
    weight = data["sample_weight"]
    return SimpleNamespace(
        name=name,
        **network["network"],
        loss=loss["name"],
        l2=float.fromhex(loss["l2"]),
        l2_biases=loss["l2_biases"],
        X=from_hex(data["X"]),
        y=np.array(y) if isinstance(y[0], int) else from_hex(y),
        sample_weight=None if weight is None else from_hex(weight),
        theta=from_hex(network["theta"]),
        claim=network["claim"],
        level=values["level"],
        value=float(values["loss"]),
        gradient=numbers("gradient"),
        vectors=from_hex(values["vectors"]).T,
        products=numbers("products").T,
        eigenvalues=numbers("eigenvalues"),
        trace=float(values["trace"]),
        log_evidence=float(values["log_evidence"]) if "log_evidence" in values else None,
        standard_deviations=None if deviations is None else deviations.reshape(3, -1),
        leave_one_out=numbers("leave_one_out"),
    )


def from_hex(text):
    """Return nested lists of hexadecimal numbers as an array."""
    return np.vectorize(float.fromhex, otypes=[float])(text)
