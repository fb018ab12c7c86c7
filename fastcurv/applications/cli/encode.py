"""Inputs and targets of a network from data sets and tables, and of new rows from the record of how
the training table was read.

`read_table` determines the kind of each column and the target. `fit_coding` computes medians, means
and deviations, which are kept as a `ColumnCoding` for each column. These records are saved as JSON,
and `encode_rows` applies them to new rows by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS, check_loss, loss_spec
from .cells import (
    CLOCK_FORMAT,
    IDENTIFIER_REASON,
    ISO_FORMAT,
    NO_OPTIONS,
    PLAIN,
    Column,
    Meaning,
    ReadingOptions,
    check_magnitudes,
    date_days,
    decimal_mark,
    first_day,
    import_pandas,
    missing_numbers,
    parse_column,
    read_column,
    word_missing,
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
    is_table,
    load_npz,
    load_sklearn_dataset,
    resolve_existing_path,
)
from .tables import MAX_NAMED_COLUMNS, MIN_TABLE_ROWS, Sheet, open_table

# Whole numbers count as classes if there are at most `MAX_CLASSES` different ones with at least
# this mean number of rows.
MAX_CLASSES = 20
MIN_ROWS_PER_CLASS = 5
MAX_CLASS_CHARACTERS = 100  # maximum length of a class, since arrays have the width of the longest


@dataclass(frozen=True)
class Table:
    """A table of training data: all that a page on a fit needs to know of the file.

    The page uses `names`, `values` and `places` to show rows and where they are in the file,
    `target`, `y` and `classes` for the target, and `notes`. Entry i of all of them is row i of the
    inputs of the network. It needs no other module that reads tables.

    Attributes
    ----------
    sheet : Sheet
        The rows that have a target, without the column of the target.
    target : str
        Name of the column of the target.
    y : ndarray (N,)
        Numbers, or labels of classes.
    classes : bool
        Whether y holds labels.
    meanings : tuple of Meaning
        For each column of the sheet, its `ColumnCoding` and its numbers or days.
    mark : str
        The decimal mark, "." or ",".
    options : ReadingOptions
        The options with which the table was read.
    notes : tuple of str
        Sentences on the parts of the table that were ignored, and on assumptions about cells.
    """

    sheet: Sheet
    target: str
    y: np.ndarray
    classes: bool
    meanings: tuple[Meaning, ...]
    mark: str
    options: ReadingOptions
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns but the target."""
        return self.sheet.names

    @property
    def group_notes(self) -> list[str]:
        """The notes on columns that may name groups of dependent rows."""
        kept = (meaning for meaning in self.meanings if not meaning.reason)
        return [meaning.repetition for meaning in kept if meaning.repetition]

    @property
    def places(self) -> list[str]:
        """The place of each row in the file, such as "line 9"."""
        return [f"{self.sheet.unit} {line}" for line in self.sheet.lines.tolist()]

    @property
    def values(self) -> np.ndarray:
        """The cells (N, K) of all columns but the target: floats in columns of numbers, and strings
        in all others.
        """
        shown = np.empty((len(self.y), len(self.names)), dtype=object)
        for i, (column, meaning) in enumerate(zip(self.sheet.columns, self.meanings)):
            number = meaning.coding.kind == "numbers" and meaning.values is not None
            shown[:, i] = meaning.values if number else column.texts()
        return shown


def read_table(
    source: Any,
    target: str | None = None,
    classes: bool | None = None,
    options: ReadingOptions = NO_OPTIONS,
    groups: str | None = None,
    *,
    all_numbers: bool = False,
) -> Table:
    """Read a table of training data, and determine the kind of each column.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
        A file or table, see `tables.open_table`.
    target : str, optional
        The column of y, by name or by number from 0; by default the last.
    classes : bool, optional
        Whether y holds classes. By default, y holds classes if its cells are words, if there are
        two different values, or if they are whole numbers with at most `MAX_CLASSES` different
        values and a mean of at least `MIN_ROWS_PER_CLASS` rows for each value.
    options : ReadingOptions
        Decisions on what the table leaves open.
    groups : str, optional
        The column that names the group of each row. It becomes the last of ``options.ignore``.
    all_numbers : bool
        True if all other columns are inputs of an existing network. A word or a missing value in
        these columns is then an error, and two rows are enough.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If the table has a defect, or cells that can mean two things.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "plants.csv"
    >>> rows = [f"{i};{'clay' if i % 3 else 'sand'};{i % 4},5" for i in range(12)]
    >>> _ = path.write_text(chr(10).join(["id;soil;height", *rows]))
    >>> table = read_table(path, "height")
    >>> [meaning.coding.kind for meaning in table.meanings], table.y[:3]
    (['left out', 'words'], array([0.5, 1.5, 2.5]))
    >>> print(*table.notes)
    Column 'id' was ignored: the numbers of the rows or of what they describe.
    """
    sheet = open_table(source, options)
    position = len(sheet.names) - 1 if target is None else sheet.find_column(target, "target")
    columns: dict[str, Any] = {
        key: tuple(sheet.names[sheet.find_column(name, key)] for name in getattr(options, key))
        for key in ("words", "ignore", "keep")
    }
    if groups is not None:
        columns["ignore"] += (sheet.names[sheet.find_column(groups, "groups")],)
    options = replace(options, **columns)
    name, notes = sheet.names[position], [*sheet.notes]
    if target is None:
        notes.append(f"The column to predict is the last, {one_line(name)!r}.")
    mark, more = decimal_mark(sheet.columns, options, separator=sheet.separator)
    notes += more
    meaning = read_column(sheet.columns[position], mark, replace(options, ignore=()), target=True)
    kept = _has_target(sheet.columns[position], meaning, options)
    min_rows = 2 if all_numbers else MIN_TABLE_ROWS
    if kept.sum() < min_rows:
        raise ValueError(
            f"{sheet.source} must have at least {min_rows} rows with a target in column "
            f"{one_line(name)!r}, got {kept.sum()}."
        )
    if not kept.all():
        lost = int((~kept).sum())
        rows, was = ("row", "was") if lost == 1 else ("rows", "were")
        notes.append(f"{lost} {rows} without a target {was} ignored.")
        sheet = sheet.take(kept)
        meaning.values = None if meaning.values is None else meaning.values[kept]
    y, labels, more = _read_targets(sheet.columns[position], meaning, classes)
    notes += more
    n_copies = _count_copies(sheet)
    if n_copies:
        notes.append(
            f"{count_phrase(n_copies, 'row', 'is a copy', 'are copies')} of earlier rows, so that "
            "scores of left-out rows are too high: their copies were fitted."
        )
    sheet = sheet.without(position)
    if all_numbers:
        meanings = tuple(_read_plain_numbers(column, mark) for column in sheet.columns)
    else:
        meanings = _read_columns(sheet, mark, options, notes)
    return Table(sheet, name, y, labels, meanings, mark, options, tuple(notes))


def _read_plain_numbers(column: Column, mark: str) -> Meaning:
    """Return the meaning of a column that must hold a number in every row."""
    (coding,) = numeric_column_codings([column.name])
    X, _ = encode_rows([coding], [column], mark)
    return Meaning(replace(coding, fill=0.0), X[:, 0])


def numeric_column_codings(names: Sequence[str]) -> tuple[ColumnCoding, ...]:
    """Return a `ColumnCoding` for columns of numbers without missing values, one for each name."""
    return tuple(ColumnCoding(name, "numbers", math.nan) for name in names)


def _has_target(column: Column, meaning: Meaning, options: ReadingOptions) -> np.ndarray:
    """Return a mask of the rows whose target is not missing."""
    if meaning.values is not None:
        return np.asarray(~np.isnan(meaning.values))
    missing = word_missing if meaning.coding.kind == "words" else missing_numbers
    return np.asarray(~missing(column, options.na)[column.codes])


def _count_copies(sheet: Sheet) -> int:
    pd = import_pandas()
    codes = pd.DataFrame({i: column.codes for i, column in enumerate(sheet.columns)})
    return int(codes.duplicated().sum())


def count_phrase(count: int, noun: str, one: str = "was", more: str = "were") -> str:
    """Return a string such as "1 row was" or "3 rows were"."""
    return f"{count} {noun} {one}" if count == 1 else f"{count} {noun}s {more}"


def _read_targets(
    column: Column, meaning: Meaning, classes: bool | None
) -> tuple[np.ndarray, bool, list[str]]:
    """Return the targets (N,) in a column, True if they are labels of classes, and notes. If
    `classes` is None, the kind of the targets is determined from the meaning of the column.
    """
    kind, where = meaning.coding.kind, column.place()
    if kind == "left out":
        raise ValueError(
            f"{where} must hold at least two different values to be the target, got "
            f"{meaning.reason}."
        )
    if kind == "dates":
        raise ValueError(
            f"{where} must hold numbers or classes to be the target, got dates. Write them as "
            "numbers, for example of days since the first date."
        )
    y: np.ndarray = column.texts()
    whole = few = False
    if kind == "numbers":
        y = np.asarray(meaning.values)
        whole = bool((y == np.round(y)).all()) and np.abs(y).max() < 2**53
        few = len(np.unique(y)) <= min(MAX_CLASSES, len(y) // MIN_ROWS_PER_CLASS)
    elif classes is False:
        raise ValueError(f"{column.place(0)} must be a number, got {one_line(column.unique[0])!r}.")
    n_different = len(np.unique(y))
    labels = kind == "words" or n_different == 2 or (whole and few)
    labels = labels if classes is None else classes
    if not labels:
        return y, False, meaning.notes
    most = max(2, len(y) // 2)
    if n_different > most:
        raise ValueError(
            f"{where} must hold at most {most} classes in {len(y)} rows, got {n_different}. Choose "
            "another column with --target."
        )
    longest = max(column.unique, key=len)
    if len(longest) > MAX_CLASS_CHARACTERS:
        raise ValueError(
            f"{where} must hold classes of at most {MAX_CLASS_CHARACTERS} characters, got "
            f"{one_line(longest)!r}. Shorten them."
        )
    notes = [] if kind == "numbers" else meaning.notes
    if whole and classes is None and n_different > 2:
        notes = [
            f"The {n_different} whole numbers in column {one_line(column.name)!r} are classes; "
            "--loss mse predicts numbers."
        ]
    if whole:
        return y.astype(np.int64), True, notes
    return np.array(column.unique)[column.codes], True, notes


def _read_columns(
    sheet: Sheet, mark: str, options: ReadingOptions, notes: list[str]
) -> tuple[Meaning, ...]:
    """Return the `Meaning` of each column. Add notes on columns that are ignored to `notes`."""
    meanings = [read_column(column, mark, options) for column in sheet.columns]
    numbering = [i for i, meaning in enumerate(meanings) if meaning.reason == IDENTIFIER_REASON]
    if len(numbering) == 1 and all(meaning.reason for meaning in meanings):
        # A single remaining column may be the time of a time series, so it is kept.
        meanings[numbering[0]].reason = ""
    reasons = dict[str, list[str]]()
    for meaning in meanings:
        if meaning.reason:
            reasons.setdefault(meaning.reason, []).append(meaning.coding.name)
            meaning.coding = ColumnCoding(meaning.coding.name)
        else:
            notes += meaning.notes
    for reason, names in reasons.items():
        verb = "were" if len(names) > 1 else "was"
        begin = columns_phrase(names).replace("column", "Column", 1)
        notes.append(f"{begin} {verb} ignored: {reason}.")
    if len(sheet.names) == sum(map(len, reasons.values())):
        raise ValueError(
            f"{sheet.source} must have a column to predict from, got only columns that are "
            f"constant, identifiers or free text: {one_line(', '.join(sheet.names), 200)}."
        )
    return tuple(meanings)


def columns_phrase(names: Sequence[str]) -> str:
    """Return a string such as "column 'a'" or "columns 'a', 'b' and 7 more"."""
    some = ", ".join(repr(one_line(name)) for name in names[:MAX_NAMED_COLUMNS])
    more = f" and {len(names) - MAX_NAMED_COLUMNS} more" if len(names) > MAX_NAMED_COLUMNS else ""
    return f"column{'s' * (len(names) > 1)} {some}{more}"


# --------------------------------------------------------------------------------------------------
# The inputs of a network.


def fit_coding(table: Table, fitted: Any = slice(None)) -> tuple[np.ndarray, DataCoding]:
    """Return the unscaled inputs ``(N, d)`` of a table, and the `DataCoding` that computes and
    scales inputs. Its medians, means and deviations are those of the rows `fitted`, by default all.

    Missing numbers and dates are filled with the median. Inputs of words remain 0 and 1.
    """
    codings = []
    for meaning in table.meanings:
        coding = meaning.coding
        if meaning.values is not None and coding.kind != "left out":
            values = meaning.values[fitted]
            values = meaning.values if np.isnan(values).all() else values
            coding = replace(coding, fill=float(np.nanmedian(values)))
        codings.append(coding)
    X, _ = encode_rows(codings, table.sheet.columns, table.mark, table.options.na, table.meanings)
    scaled = np.array([coding.kind != "words" for coding in codings for _ in coding.input_names])
    shift, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    what = f"{table.sheet.source}: X"
    fitted_inputs = X[fitted] if scaled.all() else X[fitted][:, scaled]
    shift[scaled], scale[scaled] = column_means_and_scales(what, fitted_inputs)
    named = table.sheet.named
    return X, DataCoding(
        columns=table.sheet.names if named else (),
        target=table.target if named else "",
        shift=tuple(map(float, shift)),
        scale=tuple(map(float, scale)),
        codes=tuple(codings),
        decimal=table.mark,
        na=table.options.na,
    )


def scale_inputs(X: np.ndarray, coding: DataCoding) -> np.ndarray:
    """Return ``(X - shift) / scale`` with the shift and scale of a coding."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((X - np.array(coding.shift or 0.0)) / np.array(coding.scale or 1.0))


def encode_rows(
    codings: Sequence[ColumnCoding],
    columns: Sequence[Column | None],
    mark: str,
    na: tuple[str, ...] = (),
    meanings: Sequence[Meaning] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Return the unscaled inputs ``(N, d)`` of the rows of a table, and notes on unknown words and
    on missing values that were filled.

    Parameters
    ----------
    codings : sequence of ColumnCoding
        The rules for the columns.
    columns : sequence of Column or None
        The column for each rule; ignored for rules that leave a column out.
    mark : str
        The decimal mark.
    na : tuple of str
        Cells without a value.
    meanings : sequence of Meaning, optional
        The meanings of the columns, if they were determined before.
    """
    width = sum(len(coding.input_names) for coding in codings)
    n_rows = next((len(column.codes) for column in columns if column is not None), 0)
    X = np.empty((n_rows, width))
    notes, first = list[str](), 0
    for i, (coding, column) in enumerate(zip(codings, columns)):
        if coding.kind == "left out" or column is None:
            continue
        name = one_line(coding.name)
        if coding.kind == "words":
            position = {word: k for k, word in enumerate(coding.categories)}
            lost = word_missing(column, na)
            words = ["" if gone else cell for cell, gone in zip(column.unique, lost.tolist())]
            indices = np.array([position.get(word, -1) for word in words], int)
            unknown = sorted({word for word, k in zip(words, indices) if k < 0})
            if unknown and meanings is None:
                notes.append(
                    f"Column {name!r} has words that the network does not know, all of whose "
                    f"inputs are 0: {one_line(', '.join(unknown))}."
                )
            for k in range(len(position)):
                X[:, first + k] = (indices == k)[column.codes]
            first += len(position)
            continue
        values = None if meanings is None else meanings[i].values
        if values is None:
            values = _coded_values(coding, column, mark, na, notes)[column.codes]
        gaps = np.isnan(values)
        if gaps.any():
            if math.isnan(coding.fill):
                where = column.place(int(column.codes[np.argmax(gaps)]))
                raise ValueError(f"{where} must be a number, got an empty cell.")
            if meanings is None:
                filled = count_phrase(int(gaps.sum()), "missing value")
                notes.append(f"{filled} filled with the median of column {name!r}.")
            values = np.where(gaps, coding.fill, values)
        X[:, first] = values
        first += 1
    return X, notes


def _coded_values(
    coding: ColumnCoding, column: Column, mark: str, na: tuple[str, ...], notes: list[str]
) -> np.ndarray:
    """Return the number of each cell in `Column.unique`, or for dates the days since
    ``coding.first``, with NaN for missing values. Add a note on a missing unit to `notes`.
    """
    numbers = parse_column(column, mark, missing_numbers(column, na))
    present = np.flatnonzero(~numbers.missing).tolist()
    if coding.kind == "dates":
        days = np.full(len(column.unique), np.nan)
        days[present] = date_days([column.unique[i] for i in present], coding.form)
        like = {ISO_FORMAT: f"a date like {coding.first}", CLOCK_FORMAT: "a time like 12:30"}
        bad = [i for i in present if np.isnan(days[i])]
        wanted = like.get(coding.form, f"a date of the form {one_line(coding.form)}")
        if not bad:
            return days - first_day(coding)
    elif coding.kind == "numbers":
        affixes = numbers.affixes or [PLAIN] * len(column.unique)
        units = [" ".join(affixes[i] or ("", "?")).strip() for i in present]
        plain = bool(coding.form) and bool(units) and not any(units)
        bad = [i for i, unit in zip(present, units) if unit != coding.form and not plain]
        wanted = f"a number in {one_line(coding.form)}" if coding.form else "a number"
        if not bad:
            check_magnitudes(column, numbers.values)
            if plain:
                notes.append(
                    f"Cells of column {one_line(coding.name)!r} have no unit and were read as "
                    f"numbers in {one_line(coding.form)}."
                )
            return numbers.values
    else:
        raise AssertionError(f"no numbers are defined for columns of kind {coding.kind!r}")
    raise column.error(wanted, bad, "Correct it, or leave the cell empty.")


def load_table_dataset(
    source: Any,
    target: str | None,
    loss: str | None,
    coding: DataCoding | None = None,
    options: ReadingOptions = NO_OPTIONS,
    groups: str | None = None,
) -> tuple[Dataset, Table]:
    """Read a table. Return its rows as a `Dataset`, from which an objective is built, and the
    `Table` as it was read.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
    target : str, optional
        As in `read_table`.
    loss : str, optional
        By default mse for regression, binary cross entropy for two classes, and cross entropy for
        more classes.
    coding : DataCoding, optional
        The coding of a network that was trained before; by default it is fitted to the table.
    options : ReadingOptions
    groups : str, optional
        As in `read_table`.
    """
    classes = None if loss is None else loss_spec(loss).targets != "numbers"
    table = read_table(source, target, classes, options, groups)
    if coding is None:
        X, coding = fit_coding(table)
    else:
        X, _ = encode_rows(coding.codes, table.sheet.columns, table.mark, coding.na)
    if loss is None:
        kind = "numbers" if not table.classes else "classes"
        two = table.classes and len(np.unique(table.y)) == 2
        loss = DEFAULT_LOSS_BY_TARGETS["labels" if two else kind]
    digest = data_digest(X, table.y)
    name = table.sheet.source
    loss, y, width, labels = encode_targets(name, table.y, loss, None)
    if loss_spec(loss).targets == "numbers":
        shift, scale = coding.y_shift, coding.y_scale
        if not shift and allows_scaled_targets(loss):
            shift, scale = (tuple(map(float, a)) for a in column_means_and_scales(f"{name}: y", y))
        y = (y - np.array(shift or (0.0,))) / np.array(scale or (1.0,))
        coding = replace(coding, y_shift=shift, y_scale=scale)
    coding = replace(coding, classes=labels)
    X = scale_inputs(X, coding)
    parts = X, y, X[:0], y[:0]
    return Dataset(Path(name).stem, *parts, loss, width, digest, coding, table.notes), table


def read_scaled_inputs(
    source: Any,
    coding: DataCoding,
    target: str | None,
    options: ReadingOptions = NO_OPTIONS,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the standardised inputs ``(N, d)`` of new rows, and notes on unknown words and missing
    values.

    If the source and the training table have column names, columns are found by name. Otherwise the
    columns must be in the order of the training table.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
    coding : DataCoding
        The coding by which the inputs of the fit were computed.
    target : str or None
        The column of y in the fit. If a table without names has this column, it is left out.
    options : ReadingOptions
        As in `read_table`; columns in ``ignore`` may be unknown to the training table.

    Raises
    ------
    ValueError
        If a column is missing or unknown, or a cell cannot be converted.
    """
    codings = coding.codes
    used = [code.name for code in codings if code.kind != "left out"]
    named_before = used if coding.columns else ()
    sheet = open_table(source, options, least=1, known_names=named_before)
    if coding.columns and sheet.named:
        missing = [name for name in used if name not in sheet.names]
        if missing:
            raise ValueError(
                f"{sheet.source} must have the {columns_phrase(missing)} of the training table, "
                f"got {one_line(', '.join(sheet.names), 400)}."
            )
        known = {*coding.columns, coding.target, *options.ignore}
        unknown = [name for name in sheet.names if name not in known]
        if unknown:
            raise ValueError(
                f"{sheet.source} must have only columns of the training table, got "
                f"{columns_phrase(unknown)}. Use --ignore {one_line(unknown[0])} to leave it out."
            )
        columns: list[Column | None] = [
            sheet.columns[sheet.names.index(code.name)] if code.name in used else None
            for code in codings
        ]
    else:
        columns = [*sheet.columns]
        if len(columns) == len(codings) + 1:
            last = len(columns) - 1
            columns.pop(last if target is None else sheet.find_column(target, "target"))
        if len(columns) != len(codings):
            raise ValueError(
                f"{sheet.source} must have the {len(codings)} columns of the training table, got "
                f"{len(columns)}."
            )
    if not len(sheet.lines):
        raise ValueError(
            f"{sheet.source} must have at least one row below the column names, got 0."
        )
    numbers = [c for c, code in zip(columns, codings) if c is not None and code.kind == "numbers"]
    mark, more = decimal_mark(numbers, options, coding.decimal, sheet.separator)
    X, notes = encode_rows(codings, columns, mark, (*coding.na, *options.na))
    return scale_inputs(X, coding), (*sheet.notes, *more, *notes)


def load_dataset(
    source: Any,
    *,
    loss: str | None = None,
    target: str | None = None,
    test_fraction: float = 0.2,
    raw: bool = False,
    seed: int = 0,
    n_outputs: int | None = None,
    options: ReadingOptions = NO_OPTIONS,
) -> Dataset:
    """Load one of `SKLEARN_DATASETS` or a file, standardise the features, and hold out samples.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
        A name; a ``.npz`` file with arrays ``X (N, d)`` and ``y``; or a table, see `read_table`.
    loss : str or None
        The name of a loss, with parameters as in ``quantile(0.9)``. By default cross entropy if y
        holds classes, and mse otherwise. Strings and integers are classes; in a table, integers are
        classes only if there are few different ones.
    target : str or None
        The column of a table with y, by name or by number from 0; by default the last.
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
    options : ReadingOptions
        Decisions on what a table leaves open.

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
    table, X, given = _read_features_and_targets(source, target, loss, n_outputs, options)
    name = source if table is None else table.sheet.source
    loss, y, n_outputs, classes = encode_targets(name, given, loss, n_outputs)
    rng = np.random.default_rng(seed)
    numbers = loss_spec(loss).targets == "numbers"
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
            if name == "digits"
            else column_means_and_scales(f"{name}: X", X[rows])
        )
        X -= shift
        X /= scale
        shifts = {"shift": np.broadcast_to(shift, X.shape[1:])}
        shifts["scale"] = np.broadcast_to(scale, X.shape[1:])
        if numbers and allows_scaled_targets(loss):
            shift, scale = column_means_and_scales(f"{name}: y", y[rows])
            y = (y - shift) / scale
            shifts |= {"y_shift": shift, "y_scale": scale}
    else:
        check_finite_squares(f"{name}: X", X)
        check_finite_squares(f"{name}: y", y)
    parts = (X[rows], y[rows], X[held_out], y[held_out])
    plain: dict[str, Any] = {key: tuple(map(float, a)) for key, a in shifts.items()}
    coding = replace(coding, classes=classes, **plain)
    return Dataset(
        Path(str(name)).stem,
        *parts,
        loss,
        n_outputs,
        digest,
        coding,
        table.notes if table else (),
    )


def _read_features_and_targets(
    source: Any,
    target: str | None,
    loss: str | None,
    n_outputs: int | None,
    options: ReadingOptions,
) -> tuple[Table | None, Any, np.ndarray]:
    """Return the table, the features X and the targets y of a source. The table is None unless the
    source is a table, and X is None if there is one.
    """
    if is_table(source):
        classes = None if n_outputs in (None, 1) else True
        if loss is not None:
            check_loss(loss)
            classes = loss_spec(loss).targets != "numbers"
        table = read_table(source, target, classes, options, all_numbers=n_outputs is not None)
        return table, None, table.y
    path = expand_home(source)
    if target is not None:
        raise ValueError(f"target must be None for {source}, which is not a table, got {target!r}.")
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
