"""Cells of a table as numbers, with marks, units and gaps as people write them, and as dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np

from ..common.errors import shown

Cells = Sequence[str]

MISSING = {"", "na", "n/a", "#n/a", "nan", "null", "?"}  # cells without a value, in lower case
# cells without a value in a column of numbers or dates
NUMBER_GAPS = MISSING | {"none", "-", "--", "."}
# fraction of the cells up to which words in a column of numbers count as mistakes
MAX_TYPO_SHARE = 0.1

UNITS = "%$\u20ac\u00a3 \u00a0"  # percent and currency signs around a number
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+%?")
DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+")
OF_COMMAS = re.compile(r"[+-]?([1-9]\d{0,2}(\.\d{3})+|\d*)(,\d*)?([eE][+-]?\d+)?")
_SPACES = "[ \u00a0\u202f']"  # characters between thousands
_SPACED = re.compile(rf"[+-]?\d{{1,3}}({_SPACES}\d{{3}})+(?!\d)")
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


def number(cell: str, comma: bool) -> float:
    """Return the number in a cell, with decimal and thousands marks as the file has them."""
    text = cell.strip(UNITS).replace("\u2212", "-")
    # Accountants write losses in brackets.
    if text[:1] == "(" and text[-1:] == ")" and "-" not in text:
        text = "-" + text[1:-1].strip(UNITS)
    if _SPACED.match(text):
        text = re.sub(_SPACES, "", text)
    if comma and OF_COMMAS.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif not comma and GROUPED.fullmatch(text):
        text = text.replace(",", "")
    return float(text)


def is_number(cell: str, comma: bool) -> bool:
    """Return True if a cell holds a number other than NaN."""
    with suppress(ValueError):
        return not np.isnan(number(cell, comma))
    return False


def as_numbers(cells: Cells, comma: bool) -> tuple[np.ndarray, list[int]]:
    """Return the numbers of a column, NaN for gaps, and the places of cells that hold none."""
    if not comma:
        with suppress(ValueError):
            return np.array([float(cell) for cell in cells]), []
    values, bad = np.full(len(cells), np.nan), []
    for i, cell in enumerate(cells):
        if cell.lower() not in NUMBER_GAPS:
            try:
                values[i] = number(cell, comma)
            except ValueError:
                bad.append(i)
    return values, bad


ISO = "ISO"
_DAYS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d")
_MONTHS = ("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%Y-%m")
TIMES_OF_DAY = ("%H:%M", "%H:%M:%S")
FORMS = (
    ISO,
    *(day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")),
    *_MONTHS,
    *TIMES_OF_DAY,
)


def date(cell: str, form: str) -> datetime:
    """Return the date in a cell of a form in `FORMS`, in UTC if it names its time zone; a time of
    day lies on one and the same day.
    """
    found = datetime.fromisoformat(cell) if form == ISO else datetime.strptime(cell, form)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def form_of_dates(cells: Cells, where: Callable[[int], str]) -> str:
    """Return the form of the dates in a column, and "" if it holds other words.

    Raises
    ------
    ValueError
        If day and month cannot be distinguished, or a few cells are no dates.
    """
    present = [i for i, cell in enumerate(cells) if cell.lower() not in NUMBER_GAPS]
    fits: list[tuple[int, str, list[int]]] = []
    for form in FORMS:
        if any(is_date(cells[i], form) for i in present[:3]):
            bad = [i for i in present if not is_date(cells[i], form)]
            fits.append((len(bad), form, bad))
    if not fits:
        return ""
    n_bad, form, bad = min(fits, key=lambda fit: fit[0])
    if n_bad > MAX_TYPO_SHARE * len(present):
        return ""
    if n_bad:
        raise ValueError(
            f"{where(bad[0])} must be a date, as most cells of the column are, got "
            f"{shown(cells[bad[0]])!r}. Correct it, or leave the cell empty."
        )
    whole = [other for count, other, _ in fits if not count]
    if any({"%d", "%m"} <= {a[:2], b[:2]} and a != b for a in whole for b in whole):
        some = next((i for i in present if date(cells[i], form).day != date(cells[i], form).month),
                    None)  # fmt: skip
        if some is not None:
            raise ValueError(
                f"{where(some)} must show which number is the month, got {shown(cells[some])!r}. "
                "Write dates as 2024-12-31."
            )
    return form


def is_date(cell: str, form: str) -> bool:
    """Return True if a cell holds a date of a form in `FORMS`."""
    with suppress(ValueError, OverflowError):
        return bool(date(cell, form))
    return False
