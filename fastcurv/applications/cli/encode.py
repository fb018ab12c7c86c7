"""Inputs and targets of a network from data sets and tables. The `DataCoding` of the columns of a
table is fitted by scikit-learn if needed, and applied by NumPy.

Columns of numbers are standardised. Words, dates and missing values are fitted by scikit-learn's
OneHotEncoder, SimpleImputer and StandardScaler, and kept as a `ColumnCoding` for each column, which
needs NumPy alone to encode new rows and is saved as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home
from ...common.optional import optional_import
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS, LOSSES, check_loss
from .cells import (
    DURATION_FORMAT,
    ISO_FORMAT,
    MISSING_NUMBER_CELLS,
    Cells,
    is_date,
    parse_date,
    parse_numbers,
)
from .data import (
    ColumnCoding,
    DataCoding,
    Dataset,
    allows_scaled_targets,
    check_finite_squares,
    column_means_and_scales,
    data_digest,
    encode_targets,
    is_table_name,
    load_npz,
    load_sklearn_dataset,
    resolve_existing_path,
)
from .tables import (
    MAX_NAMED_COLUMNS,
    CellSheet,
    Table,
    ambiguous_mark_notes,
    cell_locator,
    check_magnitudes,
    count_phrase,
    normalise_word,
    read_sheet,
    read_table,
    target_position,
)


def encode_rows(
    codes: Sequence[ColumnCoding], sheet: CellSheet, places: Sequence[int]
) -> tuple[np.ndarray, list[str]]:
    """Return the unscaled inputs ``(N, d)`` of the rows of a sheet, and notes on unknown words and
    on missing values that were filled.

    Parameters
    ----------
    codes : sequence of ColumnCoding
        The rules for the columns.
    sheet : CellSheet
        The rows.
    places : sequence of int
        The column of each code in the sheet; ignored for codes that are left out.
    """
    parts, notes = [], []
    for code, place in zip(codes, places):
        if code.kind == "left out":
            continue
        cells, name = [row[place] for row in sheet.rows], one_line(code.name)
        if code.kind == "words":
            number_of = {word: i for i, word in enumerate(code.categories)}
            words = np.array([number_of.get(normalise_word(cell), -1) for cell in cells])
            unknown = sorted({cell for cell, i in zip(cells, words) if i < 0})
            if unknown:
                notes.append(
                    f"Column {name!r} has words that the network does not know, all of whose "
                    f"inputs are 0: {one_line(', '.join(unknown))}."
                )
            parts.append((words[:, None] == np.arange(len(number_of))).astype(float))
            continue
        values = _column_values(code, cells, sheet.comma, cell_locator(sheet, place))
        gaps = np.isnan(values)
        if gaps.any():
            if math.isnan(code.fill):
                where = sheet.cell_location(int(np.argmax(gaps)), place)
                raise ValueError(f"{where} must be a number, got an empty cell.")
            filled = count_phrase(int(gaps.sum()), "missing value")
            notes.append(f"{filled} filled with the median of column {name!r}.")
        parts.append(np.where(gaps, code.fill, values)[:, None])
    return np.concatenate(parts, axis=1), notes


def _column_values(
    code: ColumnCoding, cells: Cells, comma: bool, where: Callable[[int], str]
) -> np.ndarray:
    """Return the numbers of a column, or for dates the days since ``code.first``, with NaN for
    missing values. ``where(i)`` returns the place of cell i for messages.
    """
    if code.kind == "numbers":
        values, bad = parse_numbers(cells, comma, code.form)
        if bad:
            what = f"a number in {one_line(code.form)}" if code.form else "a number"
            raise ValueError(
                f"{where(bad[0])} must be {what}, got {one_line(cells[bad[0]])!r}. Correct it, or "
                "leave the cell empty."
            )
        check_magnitudes(values, cells, where)
        return values
    days, first = np.full(len(cells), np.nan), datetime.fromisoformat(code.first)
    for i, cell in enumerate(cells):
        if cell.lower() not in MISSING_NUMBER_CELLS:
            if not is_date(cell, code.form):
                like = "a date like " + (
                    code.first if code.form == ISO_FORMAT else first.strftime(code.form)
                )
                if code.form == DURATION_FORMAT:
                    like = "a duration like 12:30"
                raise ValueError(
                    f"{where(i)} must be {like}, got {one_line(cell)!r}. Correct it, or "
                    "leave the cell empty."
                )
            days[i] = (parse_date(cell, code.form) - first) / timedelta(days=1)
    return days


def fit_coding(table: Table, fitted: Any = slice(None)) -> tuple[np.ndarray, DataCoding]:
    """Return the unscaled inputs ``(N, d)`` of a table, and the `DataCoding` that computes and
    scales inputs. Its medians, means and deviations are those of the rows `fitted`, by default all.

    Numbers without missing values need NumPy alone. All others are encoded by scikit-learn:
    `OneHotEncoder(handle_unknown="ignore")`, `SimpleImputer(strategy="median")` and
    `StandardScaler`. Inputs of words remain 0 and 1.

    Raises
    ------
    ImportError
        If scikit-learn is needed and not installed.
    """
    codes, places = list(table.codes), range(len(table.codes))
    if any(math.isnan(code.fill) for code in codes):
        # raise an error that names the cell, for words and missing values
        encode_rows(codes, table.sheet, places)
    harder = [
        code.name
        for code, gaps in zip(codes, table.gaps)
        if gaps or code.kind in ("words", "dates")
    ]
    if harder:
        purpose = f"columns with words, dates or missing values, such as {one_line(harder[0])!r},"
        with optional_import(purpose, "sklearn"):
            from sklearn.impute import SimpleImputer
            from sklearn.preprocessing import OneHotEncoder, StandardScaler
    for i, code in enumerate(codes):
        cells = [row[i] for row in table.sheet.rows]
        if code.kind == "words":
            made = OneHotEncoder(categories=[list(code.categories)], handle_unknown="ignore")
            made.fit(np.array([[normalise_word(cell)] for cell in cells], dtype=object))
            codes[i] = replace(code, categories=tuple(map(str, made.categories_[0])))
        elif code.kind != "left out":
            values = _column_values(code, cells, table.sheet.comma, cell_locator(table.sheet, i))[
                :, None
            ]
            some = values[fitted]
            values = values if np.isnan(some).all() else some
            if table.gaps[i]:
                fill = SimpleImputer(strategy="median").fit(values).statistics_[0]
            else:
                fill = np.median(values)
            codes[i] = replace(code, fill=float(fill))
    X, _ = encode_rows(codes, table.sheet, places)
    scaled = np.array([code.kind != "words" for code in codes for _ in code.input_names])
    shift, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    if scaled.any() and harder:
        made = StandardScaler().fit(X[fitted][:, scaled])
        shift[scaled], scale[scaled] = made.mean_, made.scale_
    elif scaled.any():
        shift, scale = column_means_and_scales(f"{table.sheet.path}: X", X[fitted])
    named = table.sheet.named
    coding = DataCoding(
        columns=table.sheet.names if named else (),
        target=table.target if named else "",
        shift=tuple(map(float, shift)),
        scale=tuple(map(float, scale)),
        codes=tuple(codes),
    )
    return X, coding


def scale_inputs(X: np.ndarray, coding: DataCoding) -> np.ndarray:
    """Return ``(X - shift) / scale`` with the shift and scale of a coding."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((X - np.array(coding.shift or 0.0)) / np.array(coding.scale or 1.0))


def load_table_dataset(
    path: str | Path, target: str | None, loss: str | None, coding: DataCoding | None = None
) -> tuple[Dataset, Table]:
    """Read a table. Return its rows as a `Dataset`, from which an objective is built, and the
    `Table` as it was read.

    Parameters
    ----------
    path : str or path
    target : str, optional
        As in `read_table`.
    loss : str, optional
        By default mse for regression, binary cross entropy for two classes, and cross entropy for
        more classes.
    coding : DataCoding, optional
        The coding of a network that was trained before; by default it is fitted to the table.
    """
    classes = None if loss is None else LOSSES[loss].targets != "numbers"
    table = read_table(path, target, classes)
    if coding is None:
        X, coding = fit_coding(table)
    else:
        X, _ = encode_rows(coding.codes, table.sheet, range(len(coding.codes)))
    if loss is None:
        kind = "numbers" if not table.classes else "classes"
        loss = DEFAULT_LOSS_BY_TARGETS[
            "labels" if table.classes and len(np.unique(table.y)) == 2 else kind
        ]
    digest = data_digest(X, table.y)
    loss, y, width, labels = encode_targets(path, table.y, loss, None)
    if LOSSES[loss].targets == "numbers":
        shift, scale = coding.y_shift, coding.y_scale
        if not shift and allows_scaled_targets(loss):
            shift, scale = (tuple(map(float, a)) for a in column_means_and_scales(f"{path}: y", y))
        y = (y - np.array(shift or (0.0,))) / np.array(scale or (1.0,))
        coding = replace(coding, y_shift=shift, y_scale=scale)
    coding = replace(coding, classes=labels)
    X = scale_inputs(X, coding)
    parts = X, y, X[:0], y[:0]
    return Dataset(Path(path).stem, *parts, loss, width, digest, coding), table


def read_scaled_inputs(
    path: str | Path, coding: DataCoding, target: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the standardised inputs ``(N, d)`` of new rows, and notes on unknown words and missing
    values.

    If the file and the training table have column names, columns are found by name, and further
    columns are ignored. Otherwise the columns must be in the order of the training table.

    Parameters
    ----------
    path : str or path
        A .csv or .tsv file.
    coding : DataCoding
        The coding by which the inputs of the fit were computed.
    target : str or None
        The column of y in the fit. If a table without names has this column, it is left out.

    Raises
    ------
    ValueError
        If a column is missing or a cell cannot be converted.
    """
    sheet, codes = read_sheet(path, 1), coding.codes
    used = [code.name for code in codes if code.kind != "left out"]
    if coding.columns and sheet.named:
        missing = [name for name in used if name not in sheet.names]
        if missing:
            listed = ", ".join(repr(one_line(name)) for name in missing[:MAX_NAMED_COLUMNS])
            more = (
                f" and {len(missing) - MAX_NAMED_COLUMNS} more"
                if len(missing) > MAX_NAMED_COLUMNS
                else ""
            )
            noun = "columns" if len(missing) > 1 else "column"
            raise ValueError(
                f"{sheet.path} must have the {noun} {listed}{more} of the training table, got "
                f"{one_line(', '.join(sheet.names), 400)}."
            )
        places = [sheet.names.index(c.name) if c.name in used else -1 for c in codes]
    else:
        places = [*range(len(sheet.names))]
        if len(places) == len(codes) + 1:
            places.pop(target_position(sheet, target))
        if len(places) != len(codes):
            raise ValueError(
                f"{sheet.path} must have the {len(codes)} columns of the training table, got "
                f"{len(places)}."
            )
    if not sheet.rows:
        raise ValueError(f"{sheet.path} must have at least one row below the column names, got 0.")
    X, notes = encode_rows(codes, sheet, places)
    return scale_inputs(X, coding), (*sheet.notes, *notes, *ambiguous_mark_notes(sheet, 1))


def load_dataset(
    source: str | Path,
    *,
    loss: str | None = None,
    target: str | None = None,
    test_fraction: float = 0.2,
    raw: bool = False,
    seed: int = 0,
    n_outputs: int | None = None,
) -> Dataset:
    """Load one of `SKLEARN_DATASETS` or a file, standardise the features, and hold out samples.

    Parameters
    ----------
    source : str or path
        A name; a ``.npz`` file with arrays ``X (N, d)`` and ``y``; or a ``.csv`` or ``.tsv`` file,
        see `tables.read_table`.
    loss : str or None
        The name of a loss, with parameters as in ``quantile(0.9)``. By default cross entropy if y
        holds classes, and mse otherwise. Strings and integers are classes; in a table, integers are
        classes only if there are few different ones.
    target : str or None
        The column of a ``.csv`` or ``.tsv`` file with y, by name or by number from 0; by default
        the last.
    test_fraction : float in [0, 1)
        Share of the samples held out, the same for every class.
    raw : bool
        Whether to leave features and targets unscaled.
    seed : int
        Seed for the choice of held-out samples.
    n_outputs : int or None
        Width of the last layer of an existing model. If given, targets are the indices of the
        model's classes, and all other columns of a table are its inputs. By default the width
        follows from the targets.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown, the file is missing, or the arrays do not fit together.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "points.npz")
    >>> np.savez(path, X=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    >>> data = load_dataset(path)
    >>> data.X.shape, data.X_test.shape, data.loss, data.n_outputs
    ((16, 2), (4, 2), 'cross_entropy', 2)
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(
            f"test_fraction must be at least 0 and less than 1, got {test_fraction!r}."
        )
    table, X, given = _read_features_and_targets(source, target, loss, n_outputs)
    loss, y, n_outputs, classes = encode_targets(source, given, loss, n_outputs)
    rng = np.random.default_rng(seed)
    numbers = LOSSES[loss].targets == "numbers"
    rows, held_out = _split_rows(None if numbers else y.reshape(-1), len(y), test_fraction, rng)
    coding = DataCoding()
    if table is not None:
        X, coding = fit_coding(table, rows)
    digest = data_digest(X, given)
    shifts: dict[str, Any] = dict.fromkeys(("shift", "scale"), ())
    if not raw:
        # All pixels of the data set "digits" have the same shift and scale.
        shift, scale = (
            (np.array(coding.shift), np.array(coding.scale))
            if table is not None
            else (4.88, 6.02)
            if source == "digits"
            else column_means_and_scales(f"{source}: X", X[rows])
        )
        X -= shift
        X /= scale
        shifts = {"shift": np.broadcast_to(shift, X.shape[1:])}
        shifts["scale"] = np.broadcast_to(scale, X.shape[1:])
        if numbers and allows_scaled_targets(loss):
            shift, scale = column_means_and_scales(f"{source}: y", y[rows])
            y = (y - shift) / scale
            shifts |= {"y_shift": shift, "y_scale": scale}
    else:
        check_finite_squares(f"{source}: X", X)
        check_finite_squares(f"{source}: y", y)
    parts = (X[rows], y[rows], X[held_out], y[held_out])
    plain: dict[str, Any] = {key: tuple(map(float, a)) for key, a in shifts.items()}
    coding = replace(coding, classes=classes, **plain)
    return Dataset(
        Path(str(source)).stem,
        *parts,
        loss,
        n_outputs,
        digest,
        coding,
        table.notes if table else (),
    )


def _read_features_and_targets(
    source: str | Path, target: str | None, loss: str | None, n_outputs: int | None
) -> tuple[Table | None, Any, np.ndarray]:
    """Return the table, the features X and the targets y of a source. The table is None unless the
    source is a .csv or .tsv file, and X is None if there is a table.
    """
    path = expand_home(str(source))
    if is_table_name(path):
        classes = None if n_outputs in (None, 1) else True
        if loss is not None:
            check_loss(loss)
            classes = LOSSES[loss].targets != "numbers"
        table = read_table(path, target, classes, all_numbers=n_outputs is not None)
        return table, None, table.y
    if target is not None:
        raise ValueError(
            f"target must be None for {source}, which is not a .csv or .tsv file, got {target!r}."
        )
    if path.suffix.lower() == ".npz":
        return None, *load_npz(resolve_existing_path(path))
    return None, *load_sklearn_dataset(str(source))


def _split_rows(
    classes: np.ndarray | None, n: int, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training rows and of the held-out rows, which are a `fraction` of
    the n rows. If the classes (n,) of the rows are given, the fraction is the same in every class,
    but every class keeps a training row.
    """
    groups = (
        [np.arange(n)]
        if classes is None
        else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    )
    held_out = np.zeros(n, dtype=bool)
    if fraction:
        for rows in groups:
            count = min(max(1, round(fraction * rows.size)), rows.size - 1)
            held_out[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
