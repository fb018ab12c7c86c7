"""Sections of the golden file of `tests/network`: products and bounds of curvature
operators, block sizes of streams, and initial weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import fastcurv as fc
from fastcurv.certify import rounding_bound

from ..golden import drawn, masked

NETS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"sizes": [6, 9, 9, 2], "l2": 1e-2, "residual": True},
    "gelu, cross entropy": {
        "sizes": [7, 5, 4, 3], "activation": "gelu", "loss": "cross_entropy", "weighted": True,
    },
    "sigmoid, binary, float32": {
        "sizes": [9, 8, 1], "activation": "sigmoid", "loss": "binary_cross_entropy",
        "dtype": "float32", "l2": 0.1,
    },
    "relu, no biases": {"sizes": [6, 9, 3], "activation": "relu", "bias": False, "l2": 1e-3},
    "one layer, soft targets": {"sizes": [8, 3], "loss": "cross_entropy", "soft": True},
}  # fmt: skip

BOUNDED: dict[str, dict[str, Any]] = {
    "tanh, mse": {"l2": 1e-2},
    "gelu, cross entropy": {
        "activation": "gelu", "loss": "cross_entropy", "weighted": True, "l2": 1e-2,
    },
    "sigmoid, binary, skips": {
        "activation": "sigmoid", "loss": "binary_cross_entropy", "residual": True,
    },
    "relu, no biases": {"activation": "relu", "bias": False, "l2": 1e-3},
    "softplus, one hidden layer": {"sizes": [3, 9, 2], "activation": "softplus", "l2": 1e-3},
}  # fmt: skip


def two_sums(x: Any) -> list[float]:
    """Return two numbers to which every entry of the array x contributes: a sum weighted by
    cosines, and the sum of absolute values.
    """
    x = np.asarray(x, dtype=float).reshape(-1)
    return [float(x @ np.cos(np.arange(x.size))), float(np.abs(x).sum())]


def describe_operator(H: Any, v: Any, blocks: bool) -> list[Any]:
    """Return a list that describes the operator H: its repr without numbers, those numbers, and
    sums over products of H and of its shift by 0.7. With `blocks`, two principal blocks are
    and the bound of a product are
    included.
    """
    text, numbers = masked(repr(H))
    V = np.sin(np.outer(np.arange(1, len(v) + 1), [1.0, 2.3])).astype(H.dtype)
    numbers += [
        *two_sums(H @ v),
        *two_sums(H @ V),
        *two_sums(H.quadratic_form(V)),
        *two_sums(H.to_dense()),
    ]
    moved = H.shift(0.7)
    numbers += [
        *two_sums(moved @ V),
        *two_sums(moved.quadratic_form(v)),
        *two_sums(moved.to_dense()),
    ]
    numbers += [
        *two_sums(moved @ v),
        *([rounding_bound(moved, v)] if blocks else []),
        float(moved.mu),
    ]
    numbers += [float((H - scipy.sparse.identity(len(v))).mu), float(H.n_products)]
    if blocks:
        for part in (H.restrict(layers=[0]), H.restrict(indices=np.arange(1, len(v), 3))):
            w = np.cos(np.arange(part.shape[0])).astype(H.dtype)
            numbers += [*two_sums(part @ w), part.quadratic_form(w), rounding_bound(part, w)]
            numbers += [*two_sums(part.to_dense())]
            numbers += [*two_sums(part @ np.c_[w, 2 * w]), float(part.n_products)]
    return [text, *numbers]


def forms(ob: Any, theta: Any, v: Any) -> dict[str, list[Any]]:
    """Return a dict that describes the objective and its curvature operators for samples in memory,
    streamed and sparse. `v` (n,) is the vector that is multiplied.
    """
    found: dict[str, list[Any]] = {}
    weight = ob.sample_weight
    options = {"l2": ob.l2, "sample_weight": weight, "n_threads": 1}
    rows = np.where(np.abs(ob.X) > 1, ob.X, 0)
    stored = fc.Objective(ob.model, rows, ob.y, ob.loss, **options)
    sparse = scipy.sparse.csr_array(rows)
    every = {"whole": ob, "stored": stored}
    every["streamed"] = fc.StreamedObjective(ob.model, ob.X, ob.y, ob.loss, block_rows=7, **options)
    every["sparse"] = fc.Objective(ob.model, sparse, ob.y, ob.loss, **options)
    parts = [(sparse[i : i + 9], ob.y[i : i + 9]) for i in range(0, 23, 9)]
    if weight is None:
        every["sparse blocks"] = fc.StreamedObjective(
            ob.model, parts, loss=ob.loss, l2=ob.l2, n_threads=1, block_rows=8
        )
    for name, form in every.items():
        text, numbers = masked(repr(form))
        numbers += [form.value(theta), *two_sums(form.gradient(theta)), float(form.n_samples)]
        numbers += [*two_sums(form.batch(np.arange(0, 23, 5)).gradient(theta))]
        numbers += [*two_sums(form.astype("float32").gradient(theta.astype("float32")))]
        known = form.certificates
        numbers += [float(known.kinks(theta))]
        if name in ("whole", "stored"):
            groups = known.orbits(theta)
            numbers += [known.kink_margin(theta), float(len(groups))]
            numbers += [float(group.change) for group in groups]
        J = form.jacobian(theta)
        u = np.cos(np.arange(J.shape[0])).astype(J.dtype)
        numbers += [
            *two_sums(J @ v),
            *two_sums(J.T @ u),
            *two_sums(J.to_dense()),
            *two_sums(J.rmatvec(u)),
        ]
        if name not in ("whole", "stored"):
            batches = list(form.batches(5, np.random.default_rng(1)))
            numbers += [float(b.n_samples) for b in batches]
            numbers += [b.value(theta) for b in batches]
        if name in ("streamed", "sparse blocks"):
            numbers += [float(form.n_passes), float(form.n_rows_read), float(form.block_rows)]
        found[f"{name}, itself"] = [text, *numbers]
        for kind in ("hessian", "ggn", "empirical_fisher"):
            H = getattr(form, kind)(theta)
            found[f"{name}, {kind}"] = describe_operator(H, v, name in ("whole", "stored"))
    return found


def bounds(ob: Any, theta: Any, v: Any) -> dict[str, dict[str, Any]]:
    """Return a dict of error bounds and other bounds at theta, of products with v (n,)."""
    found: dict[str, dict[str, Any]] = {}
    for kind in ("hessian", "ggn", "empirical_fisher"):
        H = getattr(ob, kind)(theta)
        found[f"whole, {kind}"] = {"product": rounding_bound(H, v)}
    known = ob.certificates
    found["whole"] = {
        "gradient": rounding_bound(ob, theta), "third": known.third_bound(theta, 0.1),
        "floor": known.curvature_floor(theta), "margin": known.kink_margin(theta),
        "kinks": known.kinks(theta, 0.02), "lower": known.loss_lower_bound,
        "precise gradient": known.precise_gradient(theta)[1],
        "precise value": known.precise_value(theta)[1],
    }  # fmt: skip
    return found


def streams() -> dict[str, list[Any]]:
    """Return a dict for each kind of storage and four memory limits. The values list the rows in a
    block, the numbers of shards and of rows read, and values of the loss, or the error's message.
    """
    found: dict[str, list[Any]] = {}
    ob, theta, _ = drawn(sizes=[5, 4, 2])
    X, y = np.tile(ob.X, (200, 1)), np.tile(ob.y, (200, 1))
    wide = scipy.sparse.csr_array(np.where(np.abs(X) > 1.5, X, 0))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "X.npy"
        np.save(file, X)
        given = {
            "array": X,
            "file": file,
            "sparse": wide,
            "blocks": [(X[:900], y[:900]), (X[900:], y[900:])],
        }
        for name, rows in given.items():
            for memory in (40_000, 200_000, 1_000_000, 1 << 22):
                targets = None if name == "blocks" else y
                try:
                    form = fc.StreamedObjective(
                        ob.model, rows, targets, "mse", n_threads=1, memory=memory
                    )
                except ValueError as error:
                    found[f"{name}, {memory}"] = [masked(str(error))[0]]
                    continue
                numbers = [form.block_rows, form.n_shards, form.value(theta), form.n_rows_read]
                some = form.batch(np.arange(0, 4000, 37))
                numbers += [some.value(theta), form.n_rows_read, form.n_passes]
                found[f"{name}, {memory}"] = [type(some).__name__, *map(float, numbers)]
    return found


def starts() -> dict[str, list[Any]]:
    """Return a dict that describes initial parameters for each activation, four options of the
    model and each scheme, by the model's repr and sums over the parameters.
    """
    found: dict[str, list[Any]] = {}
    for activation in ("tanh", "relu", "leaky_relu", "gelu", "elu", "silu", "sigmoid"):
        for words in ({}, {"bias": False}, {"batch_norm": True}, {"dtype": "float32"}):
            model = fc.MLP([5, 7, 7, 2], activation, **words)
            for scheme in ("auto", "he", "xavier", "lecun"):
                theta = model.init(rng=4, scheme=scheme)
                parts = [two_sums(part) for layer in model.unflatten(theta) for part in layer[:1]]
                numbers = [*two_sums(theta), *(x for part in parts for x in part)]
                at = f"{activation}, {words}, {scheme}"
                found[at] = [masked(repr(model))[0], *numbers, float(theta.size)]
    return found


OTHERS = {"streams": streams, "starts": starts}
SECTIONS = (*NETS, *(f"bounds, {net}" for net in BOUNDED), *OTHERS)


def golden(section: str) -> dict[str, Any]:
    if section in OTHERS:
        return OTHERS[section]()
    if section in NETS:
        ob, theta, v = drawn(**NETS[section])
        return forms(ob, theta, v)
    return bounds(*drawn(**BOUNDED[section.removeprefix("bounds, ")]))
