"""Columns of a table as inputs of a network: scikit-learn fits the coding, which JSON stores."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.optional import optional_import
from ...common.protocols import Floats
from .tables import (
    IDENTIFIER_PATTERN,
    MEMORY_BYTES,
    MIN_TABLE_ROWS,
    Column,
    ReadingOptions,
    Table,
    find_column,
    normalise,
)

KINDS = ("numbers", "dates", "words")
MAX_WORDS = 30  # number of words of a column that have an input each
MAX_CLASSES = 20  # maximum number of different whole numbers that are taken for classes
MAX_NAMED_WORDS = 5  # maximum number of unknown words in a note
N_COPIES = 5  # copies of the inputs that a fit holds in memory
CLASS_LOSSES = ("cross_entropy", "binary_cross_entropy")


@dataclass(frozen=True)
class ColumnCoding:
    """The inputs of a column. Numbers and dates are ``(x - mean) / scale``, and `fill` where the
    cell is empty. Each of `words`, of which "" stands for an empty cell, has an input that is 0 or
    1; if `others`, all other words have one more.
    """

    name: str
    kind: str
    fill: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    words: tuple[str, ...] = ()
    others: bool = False

    @property
    def input_names(self) -> list[str]:
        if self.kind != "words":
            return [self.name]
        names = [f"{self.name}={word or 'missing'}" for word in self.words]
        return [*names, f"{self.name}=other words"] if self.others else names

    def encode(self, column: Column) -> Floats:
        """Return the inputs (N, k) of the cells."""
        if self.kind != "words":
            values = np.where(column.is_missing, self.fill, column.values)
            return ((values - self.mean) / self.scale)[:, None]
        places = {word: i for i, word in enumerate(self.words)}
        rest = len(self.words)
        of_word = np.array([places.get(w, rest) for w in (*column.words, "")])  # -1 is ""
        width = rest + self.others
        return np.asarray(of_word[column.values][:, None] == np.arange(width), float)


@dataclass(frozen=True)
class Coding:
    """The coding of a table: the columns that are inputs, the target, and options of reading."""

    columns: tuple[ColumnCoding, ...]
    target: str
    decimal: str = "."
    sep: str | None = None
    header: bool = True
    na: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    @property
    def input_names(self) -> list[str]:
        return [name for column in self.columns for name in column.input_names]

    def encode(self, table: Table) -> Floats:
        """Return the inputs (N, k) of the rows of a table."""
        known = {column.name: column for column in table.columns}
        return np.hstack([column.encode(known[column.name]) for column in self.columns])

    def reading_options(self, given: dict[str, Any]) -> ReadingOptions:
        """Return the options that read new rows as the known ones, unless `given` replaces them."""
        words = tuple(column.name for column in self.columns if column.kind == "words")
        usual = {name: getattr(self, name) for name in ("decimal", "sep", "header", "na", "dates")}
        return ReadingOptions(**(usual | {"words": words} | given))

    def notes(self, table: Table) -> list[str]:
        """Return sentences on empty cells of new rows and on words that the network does not know.
        Raise ValueError if the table lacks a column or has another kind of cells.
        """
        known = {column.name: column for column in table.columns}
        absent = [column.name for column in self.columns if column.name not in known]
        if absent:
            raise ValueError(
                f"{one_line(table.name)} must have the columns {one_line(', '.join(absent), 300)} "
                f"of the training table, got {one_line(', '.join(known), 300)}."
            )
        notes = []
        for code in self.columns:
            column = known[code.name]
            missing = int(column.is_missing.sum())
            if column.kind != code.kind and missing < len(column.values):
                row = int(np.argmin(column.is_missing))
                cell = one_line(column.cells()[row], 40)
                raise ValueError(
                    f"{one_line(table.name)}, {table.places[row]}, column {code.name!r}, must have "
                    f"{code.kind}, as the training table has, got {cell!r}."
                )
            if missing and code.kind != "words":
                notes.append(
                    f"{missing} empty cells of column {code.name!r} were filled with its median."
                )
            if code.kind == "words":
                used = np.unique(column.values[column.values >= 0]).tolist()
                new = [w for w in (column.words[i] for i in used) if w not in code.words]
                new += ["(empty)"] * (missing > 0 and "" not in code.words)
                if new:
                    shown = one_line(", ".join(new[:MAX_NAMED_WORDS]), 200)
                    taken = "one input, other words" if code.others else "inputs that are all 0"
                    notes.append(
                        f"Column {code.name!r} has {len(new)} words with {taken}: {shown}."
                    )
        return notes

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Any, n_inputs: int) -> Coding:
        """Return the coding that JSON of a stranger describes, after checking each entry."""
        columns = []
        for one in facts["columns"]:
            code = ColumnCoding(**(one | {"words": tuple(one["words"])}))
            numbers = code.fill, code.mean, code.scale
            if (
                code.kind not in KINDS
                or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers)
                or not code.scale > 0
                or not all(type(x) is str for x in (code.name, *code.words))
                or type(code.others) is not bool
                or len(set(code.words)) < len(code.words)
                or len(code.words) > MAX_WORDS + 1
            ):
                raise ValueError(f"a column must have a valid coding, got {one_line(repr(one))}")
            columns.append(code)
        given = {name: facts[name] for name in ("target", "decimal", "sep", "header")}
        lists: dict[str, Any] = {name: tuple(facts[name]) for name in ("na", "dates")}
        text = given["target"], given["decimal"], given["sep"] or "", *lists["na"], *lists["dates"]
        if not all(type(x) is str for x in text) or type(given["header"]) is not bool:
            raise ValueError(f"options of reading must be strings, got {one_line(repr(given))}")
        found = cls(tuple(columns), **given, **lists)
        names = [column.name for column in columns]
        if len(found.input_names) != n_inputs or len(set(names)) < len(names):
            raise ValueError(f"the columns must give {n_inputs} inputs, each with its own name")
        return found


@dataclass(frozen=True)
class TableData:
    """A table as the rows of a fit: inputs X (N, k), targets y (N,), numbers or labels, and the
    number of the group of each row, or None.
    """

    table: Table
    X: Floats
    y: np.ndarray
    coding: Coding
    notes: list[str]
    groups: Any = None


def code_table(
    table: Table, options: ReadingOptions, target: str | None, loss: str | None, groups: str | None
) -> TableData:
    """Choose the target and the inputs of a table, and fit their coding.

    Parameters
    ----------
    table : Table
    options : ReadingOptions
        The names in `keep` are columns that are used though they number the rows.
    target : str, optional
        The column to predict, by name or number from 0; by default the last.
    loss : str, optional
        A loss of classes, or one of numbers; by default words, two values, and up to `MAX_CLASSES`
        whole numbers are classes.
    groups : str, optional
        The column that names the group of each row, which is no input.

    Raises
    ------
    ValueError
        If there are fewer than `MIN_TABLE_ROWS` rows with a target, if the target has one value,
        too many classes or dates, or if no column is left.
    """
    names = [column.name for column in table.columns]
    at = len(names) - 1 if target is None else find_column(names, target, "target")
    notes = list(table.notes)
    if target is None:
        notes.append(f"The column to predict is the last one, {names[at]!r} (--target).")
    known = ~table.columns[at].is_missing
    if not known.all():
        notes.append(f"{int((~known).sum())} rows without a target were ignored.")
        table = table.select(known)
    if known.sum() < MIN_TABLE_ROWS:
        raise ValueError(
            f"{one_line(table.name)} must have at least {MIN_TABLE_ROWS} rows with a target in "
            f"column {names[at]!r}, got {int(known.sum())}."
        )
    y = _targets(table, table.columns[at], loss, notes)
    codes = None
    left = [column for j, column in enumerate(table.columns) if j != at]
    if groups is not None:
        column = table.columns[find_column(names, groups, "groups")]
        used, codes = np.unique(column.values, return_inverse=True)
        if len(used) < 2 or column.name == names[at]:
            raise ValueError(
                f"groups must be a column other than the target, with at least two values, got "
                f"{column.name!r}."
            )
        left = [other for other in left if other is not column]
    kept = {normalise(name) for name in options.keep}
    columns = []
    for column in left:
        why = _reason_left_out(column, column.name in kept)
        if why:
            notes.append(f"Column {column.name!r} was left out: {why}.")
        else:
            columns.append(column)
    if not columns:
        raise ValueError(f"{one_line(table.name)} must have a column to predict from, got none.")
    table = Table(table.name, columns, table.places)
    coding = fit_coding(table, names[at], options, notes)
    size = 8 * N_COPIES * len(table.places) * len(coding.input_names)
    if size > 4 * MEMORY_BYTES * options.limit:
        raise ValueError(
            f"{one_line(table.name)} must have inputs that a fit holds in "
            f"{4 * MEMORY_BYTES * options.limit:.0f} bytes, got {size}. Leave out columns, or use "
            f"--limit {8 * options.limit:g}."
        )
    return TableData(table, coding.encode(table), y, coding, notes, codes)


def _targets(table: Table, column: Column, loss: str | None, notes: list[str]) -> np.ndarray:
    """Return the targets: numbers, or labels of classes."""
    name = f"{one_line(table.name)}, column {column.name!r}, the target,"
    values = column.values
    found = np.unique(values)
    if column.kind == "dates":
        raise ValueError(f"{name} must have numbers or classes, got dates. Use --words.")
    if len(found) < 2:
        raise ValueError(f"{name} must have at least two different values, got {len(found)}.")
    whole = column.kind == "numbers" and bool((found == np.round(found)).all())
    few = len(found) == 2 or (whole and len(found) <= min(MAX_CLASSES, len(values) // 2))
    classes = column.kind == "words" or (few if loss is None else loss in CLASS_LOSSES)
    if not classes:
        return values
    if column.kind == "numbers" and loss is None and len(found) > 2:
        notes.append(
            f"The {len(found)} different numbers of {column.name!r} were taken for classes "
            "(--loss mse for numbers)."
        )
    if len(found) > len(values) / 2:
        raise ValueError(
            f"{name} must have at most {len(values) // 2} classes in {len(values)} rows, got "
            f"{len(found)}."
        )
    return np.array([*map(label, column.cells())])


def label(cell: Any) -> str:
    """Return the label of the class that a cell of the target names."""
    return str(int(cell)) if isinstance(cell, float) and cell == int(cell) else str(cell)


def _reason_left_out(column: Column, kept: bool) -> str:
    """Return why a column is no input, or "": it has one value, or it numbers or names the rows."""
    values = column.values[~column.is_missing]
    n_different = len(np.unique(values))
    if n_different < 2 and not (column.is_missing.any() and column.kind == "words"):
        return "the same value in all rows"
    if kept or column.kind == "dates":
        return ""
    every = n_different == len(column.values)
    named = re.fullmatch(IDENTIFIER_PATTERN, column.name, re.IGNORECASE)
    steps = column.kind == "numbers" and every and bool((np.diff(values) == 1).all())
    if (every and named) or (steps and values[0] in (0, 1)):
        return "it numbers or names the rows (--keep)"
    if column.kind == "words" and 2 * n_different > len(column.values):
        return "its words differ in more than half of the rows (--keep)"
    return ""


def fit_coding(table: Table, target: str, options: ReadingOptions, notes: list[str]) -> Coding:
    """Fit scikit-learn's coding of the columns, and append notes on empty cells and rare words."""
    transformer, matrix, numbers, words = column_transformer(table.columns)
    transformer.fit(matrix)
    found: dict[int, ColumnCoding] = {}
    if numbers:
        imputer, scaler = transformer.named_transformers_["numbers"]
        for i, j in enumerate(numbers):
            column = table.columns[j]
            facts = imputer.statistics_[i], scaler.mean_[i], scaler.scale_[i]
            fill, mean, scale = map(float, facts)
            found[j] = ColumnCoding(column.name, column.kind, fill, mean, scale)
    if words:
        encoder = transformer.named_transformers_["words"]
        rare = encoder.infrequent_categories_
        for j, every, others in zip(words, encoder.categories_, rare):
            column, some = table.columns[j], others is not None
            codes = every[~np.isin(every, others)] if some else every
            kept = tuple(column.words[int(i)] if i >= 0 else "" for i in codes)
            found[j] = ColumnCoding(column.name, "words", words=kept, others=some)
            if some:
                notes.append(
                    f"Column {column.name!r} has {len(every)} different words; those beyond the "
                    f"{len(kept)} most frequent are one input."
                )
    for column in table.columns:
        missing = int(column.is_missing.sum())
        if missing:
            how = "are a word of their own" if column.kind == "words" else "hold the median instead"
            notes.append(
                f"{missing} of {len(column.values)} cells ({missing / len(column.values):.0%}) of "
                f"column {column.name!r} are empty and {how}."
            )
        if column.kind == "dates":
            known = [cell for cell in column.cells() if cell]
            notes.append(
                f"Dates in column {column.name!r} are counted in days, from {min(known)} to "
                f"{max(known)}."
            )
    columns = tuple(found[j] for j in range(len(table.columns)))
    usual = {name: getattr(options, name) for name in ("decimal", "sep", "header", "na", "dates")}
    return Coding(columns, target, **usual)


def column_transformer(columns: list[Column]) -> tuple[Any, Floats, list[int], list[int]]:
    """Return scikit-learn's transformer of some columns, the matrix (N, K) of their values, and the
    places of the columns of numbers and dates, and of words.
    """
    with optional_import("reports", "report"):
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = [j for j, column in enumerate(columns) if column.kind == "words"]
    numbers = [j for j in range(len(columns)) if j not in set(words)]
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    coded = OneHotEncoder(
        max_categories=MAX_WORDS + 1, sparse_output=False, handle_unknown="ignore"
    )
    parts = [("numbers", scaled, numbers), ("words", coded, words)]
    matrix = np.column_stack([column.values for column in columns]).astype(float)
    return ColumnTransformer([part for part in parts if part[2]]), matrix, numbers, words
