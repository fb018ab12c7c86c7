"""Samples and targets from ``.csv`` files: one sentence for whatever is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..files import refuse_device, shown

MARKS = {";": "semicolons", "\t": "tabs"}
NO_NAMES = (
    "",
    "Unnamed: 0",
)  # of an index as pandas writes it, and as it reads and writes it again


def read_csv(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(N, d)`` and targets ``(N,)`` of a file of numbers.

    Parameters
    ----------
    path : path
        Separated by commas, one sample a line, with or without a line of names.
    target : str or None
        The column of y, by name or number from 0; None: the last. It may hold words.

    Raises
    ------
    ValueError
        Where the file cannot be read, is separated otherwise, has lines of different lengths, an
        index among its columns, or cells that are no finite numbers.
    """
    lines = _lines(path)
    _refuse_separator(path, lines)
    first, names = [row[0].strip() for row in lines], None
    if not any(_is_number(cell) for cell in lines[0]):
        names, lines = [cell.strip() for cell in lines[0]], lines[1:]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(
            f"{path} holds too little; wanted two lines and two columns, separated by commas, at "
            "least"
        )
    _refuse_index(path, first, names is not None)
    width = len(lines[0])
    for number, row in enumerate(lines, 1 + (names is not None)):
        if len(row) != width:
            raise ValueError(f"{path}, sample line {number} has {len(row)} columns; wanted {width}")
    column = _column(path, target, names, width)
    y = [row.pop(column).strip() for row in lines]
    X = np.array([[_number(cell) for cell in row] for row in lines])
    if not np.isfinite(X).all():
        row, at = np.argwhere(~np.isfinite(X))[0]
        where = _called(int(at + (at >= column)), names)
        raise ValueError(
            f"{path}, sample {row + 1}, {where}: {shown(lines[row][at])!r} is not a finite number"
        )
    return X, _targets(f"{path}, {_called(column, names)}", y)


def _lines(path: Path) -> list[list[str]]:
    """All lines that are not empty, of which there is one at least."""
    refuse_device(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a .csv file that can be read: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty; wanted numbers separated by commas, one sample a line")
    return lines


def _refuse_separator(path: Path, lines: list[list[str]]) -> None:
    """Refuse what is not separated by commas. Decimal commas are no separators: a number then
    stands in one cell with another separator, line for line.
    """
    top = [[cell.strip() for cell in row] for row in lines[:20]]
    for mark, name in MARKS.items():
        everywhere = all(any(mark in cell for cell in row) for row in top)
        beside = any(
            mark in cell and any(map(_is_number, cell.split(mark))) for row in top for cell in row
        )
        if (len(top[0]) == 1 and mark in top[0][0]) or (everywhere and beside):
            raise ValueError(
                f"{path} is separated by {name}; wanted commas between columns and points in "
                "numbers"
            )


def _refuse_index(path: Path, first: list[str], named: bool) -> None:
    """Refuse a column that numbers the rows: sorted rows would give their classes away."""
    name, *rest = first
    counts = rest == [str(i) for i in range(len(rest))]
    apart = all(cell.isdecimal() for cell in rest) and len(set(rest)) == len(rest)
    if name in NO_NAMES and (counts or (named and apart)):
        raise ValueError(
            f"{path}: the first column has no name and numbers the rows, as an index of pandas "
            "does; wanted data alone, as df.to_csv(path, index=False) writes them"
        )


def _column(path: Path, target: str | None, names: list[str] | None, width: int) -> int:
    if target is None:
        return width - 1
    if names is not None and target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < width:
        return int(target)
    has = (
        f"the columns {shown(', '.join(names), 400)}" if names else f"{width} columns without names"
    )
    raise ValueError(f"target is {target!r}; {path} has {has}")


def _called(column: int, names: list[str] | None) -> str:
    """A column by its name, or else by its number."""
    if names is not None and names[column]:
        return f"column {shown(names[column])!r}"
    return f"column {column} (counted from 0)"


def _targets(where: str, y: list[str]) -> np.ndarray:
    """Words and whole numbers stay what they are; anything with a point becomes a float."""
    try:
        whole = np.array([int(cell) for cell in y])
    except (ValueError, OverflowError):
        whole = None
    if whole is not None and whole.dtype != object:  # which it is beyond 64 bits
        return whole
    numbers = np.array([_number(cell) for cell in y])
    if np.isfinite(numbers).all():
        return numbers
    if any(_is_number(cell) or not cell for cell in y):
        raise ValueError(f"{where}: the targets mix words, numbers and gaps; wanted one of a kind")
    return np.array(y)


def _is_number(cell: str) -> bool:
    return not np.isnan(_number(cell)) or cell.strip().lower() == "nan"


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
