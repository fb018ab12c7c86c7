"""Sections of the golden file of `tests/network`: block sizes of streams, and initial weights."""

from __future__ import annotations

import tempfile
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import fastcurv as fc

from ..golden import drawn, masked
from ..nets import Blocks


def two_sums(x: Any) -> list[float]:
    """Return two numbers to which every entry of the array x contributes: a sum weighted by
    cosines, and the sum of absolute values.
    """
    x = np.asarray(x, dtype=float).reshape(-1)
    return [float(x @ np.cos(np.arange(x.size))), float(np.abs(x).sum())]


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
            "blocks": Blocks((X[:900], y[:900]), (X[900:], y[900:])),
        }
        for name, rows in given.items():
            for memory in (40_000, 200_000, 1_000_000, 1 << 22):
                targets = None if name == "blocks" else y
                try:
                    form = fc.StreamedObjective(
                        ob.model, copy(rows), targets, "mse", n_threads=1, memory=memory
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
    for activation in ("tanh", "relu"):
        for words in ({}, {"bias": False}, {"batch_norm": True}, {"dtype": "float32"}):
            model = fc.MLP([5, 7, 7, 2], activation, **words)
            for scheme in ("auto", "he", "xavier", "lecun"):
                theta = model.init(rng=4, scheme=scheme)
                parts = [two_sums(part) for layer in model.unflatten(theta) for part in layer[:1]]
                numbers = [*two_sums(theta), *(x for part in parts for x in part)]
                at = f"{activation}, {words}, {scheme}"
                found[at] = [masked(repr(model))[0], *numbers, float(theta.size)]
    return found


SECTIONS = {"streams": streams, "starts": starts}


def golden(section: str) -> dict[str, Any]:
    return SECTIONS[section]()
