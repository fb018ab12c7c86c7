"""Predictions of a saved network for the rows of a table, in the units of its training table."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from dataclasses import fields
from typing import Any

import numpy as np

from ...common.errors import one_line
from .coding import label
from .network import SavedNetwork, load_network
from .tables import ReadingOptions, Table, read_table

Columns = dict[str, np.ndarray]
N_DOMAIN_NOTES = 10  # maximum number of rows outside the domain with a note each


def given_options(args: Namespace) -> dict[str, Any]:
    """Return the `ReadingOptions` in the arguments of a command, without those that are not
    given.
    """
    given = {field.name: getattr(args, field.name, None) for field in fields(ReadingOptions)}
    found = {name: value for name, value in given.items() if value is not None}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def prediction_columns(args: Namespace) -> tuple[Columns, tuple[str, ...]]:
    """Return the predictions, as columns by name with one entry per row, and notes on empty cells
    and unknown words. For classification the predictions are labels. With ``--probabilities`` the
    probability of each class is added, with ``--interval`` the bounds of intervals, and with
    ``--domain`` whether rows are extrapolations.

    Raises
    ------
    ValueError
        If the file holds no network, or if the rows do not fit the network.
    """
    network = load_network(args.network)
    classes, name = network.classes, network.coding.target
    wrong = "interval" if classes else "probabilities"
    if getattr(args, wrong):
        kind = "classification" if classes else "regression"
        raise ValueError(f"--{wrong} must be left out with a network for {kind}.")
    if args.domain and args.data is None:
        raise ValueError("--data must name the training table for --domain.")
    table, X, notes = _read_rows(args.table, network, given_options(args))
    with np.errstate(over="ignore", invalid="ignore"):
        predictions = network.predictions(X)
    if not np.isfinite(predictions).all():
        row = int(np.argwhere(~np.isfinite(predictions))[0, 0])
        raise ValueError(
            f"{one_line(table.name)}, {table.places[row]}, must have values for which the "
            "prediction is finite, got an overflow. Check the units of the columns."
        )
    found: Columns = {name: predictions}
    if classes:
        found = {name: np.array(classes, dtype=object)[predictions.argmax(axis=1)]}
        if args.probabilities:
            found |= {f"probability of {c}": p for c, p in zip(classes, predictions.T)}
    elif args.interval:
        low, high = network.interval(predictions, args.interval)
        found |= {f"{name} lower": low, f"{name} upper": high}
        if np.isinf(low).any():
            notes.append(
                f"Bounds that hold {args.interval:.6g} of new targets are infinite, because the "
                "training table has too few rows for them."
            )
    if args.domain:
        inside, more = _domain(args, network, table, X)
        found["inside"] = inside.astype(int)
        notes += more
    return found, tuple(notes)


def _read_rows(
    path: str, network: SavedNetwork, given: dict[str, Any]
) -> tuple[Table, np.ndarray, list[str]]:
    """Return a table, the inputs of the network for its rows, and notes."""
    coding = network.coding
    options: ReadingOptions = coding.reading_options(given)
    table = read_table(path, options, coding.target, strict=False)
    if not table.places:
        raise ValueError(f"{one_line(table.name)} must have at least one row, got none.")
    notes = [*table.notes, *coding.notes(table)]
    return table, coding.encode(table), notes


def _domain(
    args: Namespace, network: SavedNetwork, table: Table, X: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return a mask of the rows inside the domain, and a note on each of the first ones outside."""
    given = {k: v for k, v in given_options(args).items() if k in ("limit", "sheet")}
    known, X_fit, _ = _read_rows(args.data, network, given)
    target = next((c for c in known.columns if c.name == network.coding.target), None)
    if target is None:
        raise ValueError(f"data must have the column {network.coding.target!r}, the target.")
    rows = ~target.is_missing
    cells = np.array(target.cells(), dtype=object)[rows]
    if network.classes:
        y = np.array([*map(label, cells)])
        if not np.isin(y, network.classes).all():
            raise ValueError("data must be the table that the network was fitted to, got others.")
    else:
        y = cells.astype(float)
    X_fit = X_fit[rows]
    inside = network.in_domain(X, X_fit, y)
    beyond = (X_fit.min(axis=0) > X) | (X_fit.max(axis=0) < X)
    names, notes = network.coding.input_names, []
    outside = np.flatnonzero(~inside)
    for i in outside[:N_DOMAIN_NOTES].tolist():
        columns = ", ".join(name for name, is_beyond in zip(names, beyond[i]) if is_beyond)
        reason = (
            f"outside the range of the training table in {one_line(columns, 200)}"
            if columns
            else "an unusual combination of values, each within its range"
        )
        place = table.places[i]
        notes.append(f"{place[0].upper()}{place[1:]} is an extrapolation: {reason}.")
    if len(outside) > N_DOMAIN_NOTES:
        notes.append(f"{len(outside) - N_DOMAIN_NOTES} more rows are extrapolations.")
    return inside, notes


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
