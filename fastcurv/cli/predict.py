"""Predictions of a saved network for the samples of a file, in the units of its training data."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import shown
from ..common.files import refuse_device
from ..network.mlp import MLP
from ..structure.tables import LOSSES
from .data import Coding, read_features
from .models import is_model, read_model
from .recipe import load_run

Columns = dict[str, np.ndarray]


def predictions(args: Namespace) -> Columns:
    """Return columns by name, each with one entry per sample: predictions, or for classes the
    labels, and with ``--probabilities`` the probability of each.

    Raises
    ------
    ValueError
        If the file holds no network, or the samples do not fit it.
    """
    path = Path(args.theta).expanduser()
    refuse_device(path)
    if path.is_file() and is_model(path):
        model, theta = read_model(path, args.activation)
        if args.probabilities:
            raise ValueError(f"--probabilities needs classes, and {path} names none.")
        X = read_features(args.data, (), None, model.sizes[0])
        return _columns("output", _finite(model.predict(theta, X), args.data))
    if args.activation is not None:
        raise ValueError(f"--activation must be left out with {path}, which has its own.")
    saved = load_run(path)
    recipe, coding, model_of_file = saved.recipe, saved.coding, saved.model
    assert recipe is not None
    if coding is None:
        raise ValueError(f"{path} does not say how its data were scaled. Train the network again.")
    model = model_of_file or recipe.network(coding.sizes[0], coding.sizes[-1])
    if saved.theta.size != model.n_params:
        raise ValueError(f"{path} must hold {model.n_params} parameters, got {saved.theta.size}.")
    X = read_features(args.data, coding.columns, recipe.target, model.sizes[0])
    with np.errstate(over="ignore", invalid="ignore"):
        if coding.shift:
            X = (X - np.array(coding.shift)) / np.array(coding.scale)
        outputs = _outputs(model, saved.theta, _finite(X, args.data), coding)
        _finite(outputs, args.data)
        name = coding.target or "prediction"
        if coding.classes:
            return _of_classes(name, outputs, coding, args.probabilities)
        if args.probabilities:
            raise ValueError(f"--probabilities needs classes, and {path} predicts numbers.")
        return _of_numbers(name, outputs, LOSSES[recipe.loss].given, coding)


def _outputs(model: MLP, theta: np.ndarray, X: np.ndarray, coding: Coding) -> np.ndarray:
    known: Any = None
    if model.batch_norm:
        known = [
            tuple(np.asarray(part, model.dtype) for part in pair) for pair in coding.statistics
        ]
    return model.predict(theta, X, known).astype(np.float64)


def _of_classes(name: str, outputs: np.ndarray, coding: Coding, wanted: bool) -> Columns:
    if outputs.shape[1] == 1:  # of the second of two classes
        outputs = np.hstack([np.zeros_like(outputs), outputs])
    labels = np.array(coding.classes)
    found = {name: labels[outputs.argmax(axis=1)]}
    if wanted:
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        found |= {f"probability of {label}": p for label, p in zip(coding.classes, shares.T)}
    return found


def _of_numbers(name: str, outputs: np.ndarray, given: Any, coding: Coding) -> Columns:
    """Return predictions in the units of y; for ``gaussian_nll`` standard deviations too."""
    if given is not None and given.exponential:
        outputs = np.exp(outputs)
    parts = np.split(outputs, given.per_target or 1, axis=1) if given is not None else [outputs]
    shift = np.array(coding.y_shift or (0.0,))
    scale = np.array(coding.y_scale or (1.0,))
    found = _columns(name, parts[0] * scale + shift)
    if len(parts) > 1:
        found |= _columns(f"{name} standard deviation", np.exp(0.5 * parts[1]) * scale)
    return found


def _columns(name: str, values: np.ndarray) -> Columns:
    many = values.shape[1] > 1
    return {f"{name} {i}" if many else name: column for i, column in enumerate(values.T)}


def _finite(A: np.ndarray, source: Any) -> np.ndarray:
    if not np.isfinite(A).all():
        row = int(np.argwhere(~np.isfinite(A))[0, 0])
        raise ValueError(
            f"{shown(source, 200)}, sample {row + 1}, must lie where the network can be evaluated; "
            "its numbers are too large."
        )
    return A


def as_csv(columns: Columns) -> str:
    """Return columns as lines of comma-separated values under a line of names; numbers are written
    so that they can be read back exactly.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values())))
    return file.getvalue()
