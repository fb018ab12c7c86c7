"""Predictions of a saved network for the samples of a file, in the units of its training data."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from dataclasses import replace
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home, raise_if_special_file
from ...network.mlp import MLP
from ...network.objective import Objective
from ...structure.tables import loss_spec
from ..uncertainty.laplace import laplace_posterior
from ..uncertainty.left_out import leave_one_out_of_fit, minimum_after_fit
from ..uncertainty.requirements import check_no_batch_norm
from .cells import ReadingOptions
from .data import DataCoding, is_table, read_features
from .encode import numeric_column_codings, read_scaled_inputs, scale_inputs
from .measure import conformal_width, spread_at
from .output import check_inputs_kept
from .recipe import SavedRun, load_run, reading_options

Columns = dict[str, np.ndarray]
N_DOMAIN_NOTES = 10  # maximum number of samples outside the domain with a note each


def prediction_columns(args: Namespace) -> tuple[Columns, tuple[str, ...]]:
    """Return the predictions, as columns by name with one entry per sample, and notes on missing
    values that were filled and on unknown words. For classification the predictions are labels.
    With ``--probabilities`` the probability of each class is added, and with ``--interval`` the
    bounds of jackknife+ intervals, and with ``--domain`` whether samples are extrapolations.

    Raises
    ------
    ValueError
        If the file holds no network, if the samples do not fit the network, or, for intervals, if
        the training data are not those that the file names.
    """
    path = expand_home(args.theta)
    raise_if_special_file(path)
    options = reading_options(args)
    saved = load_run(path)
    recipe, coding, model_of_file = saved.recipe, saved.coding, saved.model
    assert recipe is not None
    check_inputs_kept(args, recipe.data)
    if coding is None:
        raise ValueError(
            f"{path} does not hold the scaling of the training data. Train the network again."
        )
    model = model_of_file or recipe.build_network(coding.sizes[0], coding.sizes[-1])
    if saved.theta.size != model.n_params:
        raise ValueError(f"{path} must hold {model.n_params} parameters, got {saved.theta.size}.")
    X, notes = _network_inputs(args.samples, coding, recipe.target, model.sizes[0], options)
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = _network_outputs(model, saved.theta, _check_finite(X, args.samples), coding)
        _check_finite(outputs, args.samples)
        name = coding.target or "prediction"
        if coding.classes:
            if args.interval:
                raise ValueError(
                    f"--interval must be left out with {path}, which is for classification. Use "
                    "--probabilities."
                )
            found = _class_columns(name, outputs, coding, args.probabilities)
            return _with_domain(args, saved, coding, X, found, notes)
        if args.probabilities:
            raise ValueError(
                f"--probabilities must be left out with {path}, which is for regression. Use "
                "--interval."
            )
        found = _number_columns(name, outputs, loss_spec(recipe.loss).given, coding)
        for values in found.values():
            _check_finite(values, args.samples)
    if args.interval:
        predictions = next(iter(found.values()))
        found |= (bounds := _interval_bounds(args, saved, coding, name, X, predictions))
        if any(np.isinf(values).any() for values in bounds.values()):
            wide = f"Bounds that hold {args.interval:.6g} of new targets are infinite"
            notes += (f"{wide}, because the training table has too few rows for them.",)
    return _with_domain(args, saved, coding, X, found, notes)


def _with_domain(
    args: Namespace, saved: SavedRun, coding: DataCoding, X: Any, found: Columns, notes: Any
) -> tuple[Columns, tuple[str, ...]]:
    """Return columns and notes, with ``--domain`` also the column "inside", which is 0 for samples
    outside the domain of the fit, and a note on each of the first of them.
    """
    if not args.domain:
        return found, notes
    ob = _training_objective(args, saved, coding, "--domain")
    inside = laplace_posterior(ob, minimum_after_fit(ob, saved.theta)).in_domain(X)
    known = np.asarray(ob.X)
    outside = np.flatnonzero(~inside)
    names = [name for code in coding.codes for name in code.input_names] or [*coding.columns]
    names = names or [f"input {j}" for j in range(known.shape[1])]
    lowest, highest = known.min(axis=0), known.max(axis=0)
    beyond = (lowest > X) | (highest < X)
    for i in outside[:N_DOMAIN_NOTES].tolist():
        columns = ", ".join(name for name, is_beyond in zip(names, beyond[i]) if is_beyond)
        reason = (
            f"outside the range of the training data in {columns}"
            if columns
            else ("an unusual combination of values, each within its range")
        )
        notes += (f"Sample {i + 1} is an extrapolation: {reason}.",)
    if len(outside) > N_DOMAIN_NOTES:
        notes += (f"{len(outside) - N_DOMAIN_NOTES} more samples are extrapolations.",)
    return found | {"inside": inside.astype(int)}, notes


def _network_inputs(
    source: str, coding: DataCoding, target: str | None, width: int, options: ReadingOptions
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the inputs of the network (N, width) from a file or data set, and notes on its
    cells.
    """
    if is_table(source):
        names = coding.columns or tuple(map(str, range(width)))
        codes = coding.codes or numeric_column_codings(names)
        return read_scaled_inputs(source, replace(coding, codes=codes), target, options)
    if any(code.kind != "numbers" for code in coding.codes):
        raise ValueError(
            f"{source} must be a table with the columns of the training table, since "
            "some of them are not numbers or were left out."
        )
    return scale_inputs(read_features(source, width), coding), ()


def _training_objective(
    args: Namespace, saved: SavedRun, coding: DataCoding, option: str
) -> Objective:
    """Return the objective of the fit. The training data are read again, for `option`."""
    recipe = saved.recipe
    assert recipe is not None
    if args.data is not None:
        recipe = replace(recipe, data=args.data)
    path = expand_home(recipe.data)
    if is_table(path) and not path.exists():
        raise ValueError(f"{path} does not exist. Pass the training table with --data.")
    data = recipe.load_dataset(coding if coding.codes else None)
    if recipe.digest not in ("", data.digest):
        raise ValueError(
            f"{option} requires the data that {args.theta} was trained on, but {recipe.data} has "
            "changed since. Pass the data with --data, or train again."
        )
    ob = recipe.build_objective(data, None, saved.model)
    check_no_batch_norm(ob, option)
    return ob


def _interval_bounds(
    args: Namespace, saved: SavedRun, coding: DataCoding, name: str, X: Any, predictions: Any
) -> Columns:
    """Return the lower and upper bounds of intervals for the rows of X, as columns named after
    `name`. They are as wide as the errors of rows left out in the file, or else those of
    jackknife+.
    """
    if saved.errors is not None:
        errors, spread = saved.errors
        width = conformal_width(errors, args.interval) * spread_at(spread, predictions)
        return {f"{name} lower": predictions - width, f"{name} upper": predictions + width}
    ob = _training_objective(args, saved, coding, "--interval")
    low, high = leave_one_out_of_fit(ob, saved.theta).interval(X, args.interval)
    shift, scale = np.array(coding.y_shift or (0.0,)), np.array(coding.y_scale or (1.0,))
    lower = _named_columns(f"{name} lower", low * scale + shift)
    return lower | _named_columns(f"{name} upper", high * scale + shift)


def _network_outputs(
    model: MLP, theta: np.ndarray, X: np.ndarray, coding: DataCoding
) -> np.ndarray:
    known: Any = None
    if model.batch_norm:
        known = [
            tuple(np.asarray(part, model.dtype) for part in pair) for pair in coding.statistics
        ]
    return model.predict(theta, X, known).astype(np.float64)


def _class_columns(name: str, outputs: np.ndarray, coding: DataCoding, wanted: bool) -> Columns:
    # If there is a single output, it is the logit of the second of two classes.
    if outputs.shape[1] == 1:
        outputs = np.hstack([np.zeros_like(outputs), outputs])
    labels = np.array(coding.classes, dtype=object)  # str would take the longest label per row
    found = {name: labels[outputs.argmax(axis=1)]}
    if wanted:
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        found |= {f"probability of {label}": p for label, p in zip(coding.classes, shares.T)}
    return found


def _number_columns(name: str, outputs: np.ndarray, given: Any, coding: DataCoding) -> Columns:
    """Return predictions in the units of y, and for ``gaussian_nll`` also standard deviations, as
    columns by name. The columns are named after `name`. `given` is the attribute `given` of the
    loss in `LOSSES`, a `LossFunction` or None.
    """
    if given is not None and given.exponential:
        outputs = np.exp(outputs)
    parts = np.split(outputs, given.per_target or 1, axis=1) if given is not None else [outputs]
    shift = np.array(coding.y_shift or (0.0,))
    scale = np.array(coding.y_scale or (1.0,))
    found = _named_columns(name, parts[0] * scale + shift)
    if len(parts) > 1:
        found |= _named_columns(f"{name} standard deviation", np.exp(0.5 * parts[1]) * scale)
    return found


def _named_columns(name: str, values: np.ndarray) -> Columns:
    many = values.shape[1] > 1
    return {f"{name} {i}" if many else name: column for i, column in enumerate(values.T)}


def _check_finite(A: np.ndarray, source: Any) -> np.ndarray:
    if not np.isfinite(A).all():
        row = int(np.argwhere(~np.isfinite(A))[0, 0])
        raise ValueError(
            f"{one_line(source, 200)}, sample {row + 1}, must have features for which the "
            "prediction is finite, got an overflow. Check the units of the columns."
        )
    return A


def format_csv(columns: Columns) -> str:
    """Return columns as lines of comma-separated values under a line of names. Numbers are written
    such that they can be read back exactly.
    """
    rows = [list(columns), *zip(*(column.tolist() for column in columns.values()))]
    # Without quotes, a reader takes a carriage return within a word for the end of a line.
    breaks = any("\r" in str(cell) for row in rows for cell in row)
    file = io.StringIO()
    quoting: Any = csv.QUOTE_NONNUMERIC if breaks else csv.QUOTE_MINIMAL
    csv.writer(file, lineterminator="\n", quoting=quoting).writerows(rows)
    return file.getvalue()
