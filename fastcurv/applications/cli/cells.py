"""Cells of a table as numbers with thousands marks, units and missing values, and as dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import numpy as np

from ...common.errors import one_line

Cells = Sequence[str]

# cells without a value, in lower case
MISSING_CELLS = {"", "na", "n/a", "n.a.", "n.a", "#n/a", "#na", "<na>", "nan", "null", "\\n", "?"}
# cells without a value in a column of numbers or dates
MISSING_NUMBER_CELLS = MISSING_CELLS | {
    "none", "nil", "missing", "unknown", "n.d.", "-", "--", "---", "\u2013", "\u2014", ".", "..",
    "...", "#value!", "#div/0!", "#ref!", "#num!",
}  # fmt: skip
# maximum fraction of words in a column of numbers or dates at which they count as mistakes
MAX_TYPO_FRACTION = 0.1

# percent signs, currency signs and spaces that may surround a number
UNIT_CHARACTERS = "%\u2030$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba \u00a0\u202f\u2009"
DECIMAL_COMMA_PATTERN = re.compile(r"[+-]?\d*,\d+%?")
DECIMAL_POINT_PATTERN = re.compile(r"[+-]?\d*\.\d+")
# a number with a decimal comma, whose thousands may be separated by points
POINT_GROUPED_DECIMAL_COMMA_PATTERN = re.compile(
    r"[+-]?([1-9]\d{0,2}(\.\d{3})+|\d*)(,\d*)?([eE][+-]?\d+)?"
)
COMMA_GROUPED_PATTERN = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
POINT_GROUPED_PATTERN = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3}){2,}")
# a number with one mark, which can separate thousands or decimals
AMBIGUOUS_NUMBER_PATTERN = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_THOUSANDS_SPACES = "[ \u00a0\u202f\u2009'\u2019]"  # characters between thousands
_SPACE_GROUPED_PATTERN = re.compile(rf"[+-]?\d{{1,3}}({_THOUSANDS_SPACES}\d{{3}})+(?!\d)")
_CURRENCY_CODES = (
    "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|TRY|USD|ZAR"
)
_NUMBER_THEN_UNIT_PATTERN = re.compile(
    r"(.*\d\.?)\s*((?:[^\W\d_]|\u00b0)[^\d]{0,11}[23\u00b2\u00b3]?)"
)
_UNIT_THEN_NUMBER_PATTERN = re.compile(rf"({_CURRENCY_CODES}|Rs\.?|R\$|kr\.?)\s*(.*\d.*)")


def parse_number(cell: str, comma: bool) -> float:
    """Return the number in a cell. If `comma` is True, the decimal mark is a comma and the
    thousands mark a point, otherwise the reverse. Raise ValueError if the cell holds no number.
    """
    text = cell.strip(UNIT_CHARACTERS).replace("\u2212", "-")
    # In accounts, brackets mark negative numbers.
    if text[:1] == "(" and text[-1:] == ")" and "-" not in text:
        text = "-" + text[1:-1].strip(UNIT_CHARACTERS)
    if _SPACE_GROUPED_PATTERN.match(text):
        text = re.sub(_THOUSANDS_SPACES, "", text)
    if comma and POINT_GROUPED_DECIMAL_COMMA_PATTERN.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif not comma and COMMA_GROUPED_PATTERN.fullmatch(text):
        text = text.replace(",", "")
    return float(text)


def is_number(cell: str, comma: bool) -> bool:
    """Return True if `parse_number` finds a number other than NaN in a cell."""
    with suppress(ValueError):
        return not np.isnan(parse_number(cell, comma))
    return False


def split_unit(cell: str, comma: bool) -> tuple[str, str]:
    """Return the number and the unit of a cell such as "12.5 kg" or "USD 12", both as strings.
    Return two empty strings for other cells. `comma` is that of `parse_number`.
    """
    before, behind = (
        _NUMBER_THEN_UNIT_PATTERN.fullmatch(cell),
        _UNIT_THEN_NUMBER_PATTERN.fullmatch(cell),
    )
    text, unit = (
        (behind[2], behind[1]) if behind else (before[1], before[2]) if before else ("", "")
    )
    return (text, unit) if is_number(text, comma) else ("", "")


def shared_unit(cells: Cells, comma: bool) -> str:
    """Return the unit that all numbers of a column have in common, or "" if there is none. `comma`
    is that of `parse_number`.
    """
    unit = ""
    for cell in cells:
        if cell.lower() not in MISSING_NUMBER_CELLS:
            own = split_unit(cell, comma)[1]
            if not own or own != (unit or own):
                return ""
            unit = own
    return unit


def parse_numbers(cells: Cells, comma: bool, unit: str = "") -> tuple[np.ndarray, list[int]]:
    """Return the numbers of a column, with NaN for missing values, and a list of the positions of
    cells that are not numbers. Cells may end or begin with the given unit. `comma` is that of
    `parse_number`.
    """
    if not comma and not unit:
        with suppress(ValueError):
            return np.array([float(cell) for cell in cells]), []
    values, bad = np.full(len(cells), np.nan), []
    for i, cell in enumerate(cells):
        if cell.lower() not in MISSING_NUMBER_CELLS:
            text, own = split_unit(cell, comma) if unit else ("", "")
            try:
                values[i] = parse_number(text if own and own == unit else cell, comma)
            except ValueError:
                bad.append(i)
    return values, bad


def parse_numbers_with_unit(cells: Cells, comma: bool) -> tuple[np.ndarray, list[int], str]:
    """Return the two results of `parse_numbers` for a column of numbers with a common unit, and
    this unit, or "" if the numbers have none. `comma` is that of `parse_number`.
    """
    values, bad = parse_numbers(cells, comma)
    unit = shared_unit(cells, comma) if bad else ""
    return (*parse_numbers(cells, comma, unit), unit) if unit else (values, bad, "")


ISO_FORMAT = "ISO"
_NUMERIC_DATE_FORMATS = (
    "%d.%m.%Y",
    "%d.%m.%y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
)
_MONTH_NAME_FORMATS = (
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%a, %d %b %Y"
)  # fmt: skip
TIME_FORMATS = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p")
DURATION_FORMAT = "hours:minutes"
DATE_FORMATS = (
    ISO_FORMAT,
    *(
        day + time
        for day in (*_NUMERIC_DATE_FORMATS, *_MONTH_NAME_FORMATS)
        for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
    ),
    "%Y-%m",
    "%b %Y",
    "%B %Y",
    *TIME_FORMATS,
    DURATION_FORMAT,
)
_CLOCK_PATTERN = re.compile(r"\d{1,2}:\d\d")
_DURATION_PATTERN = re.compile(r"(\d{1,6}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")


def parse_date(cell: str, form: str) -> datetime:
    """Return the date in a cell, converted to UTC if the cell names a time zone. The cell must have
    the form `form`, one of `DATE_FORMATS`, otherwise ValueError is raised. For a time of day or a
    duration, return a fixed day plus this time.
    """
    if form == DURATION_FORMAT:
        if (parts := _DURATION_PATTERN.fullmatch(cell)) is None:
            raise ValueError(f"cell must be a duration such as 26:30, got {cell!r}.")
        hours, minutes, seconds = (float(part or 0) for part in parts.groups())
        return datetime(1900, 1, 1) + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    # The score of a match, such as 3:2, is not a time of day.
    if form in TIME_FORMATS and not _CLOCK_PATTERN.match(cell):
        raise ValueError(f"cell must be a time of day such as 8:30, got {cell!r}.")
    found = datetime.fromisoformat(cell) if form == ISO_FORMAT else datetime.strptime(cell, form)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def detect_date_format(cells: Cells, where: Callable[[int], str]) -> str:
    """Return the form in `DATE_FORMATS` of the dates in a column, or "" if the column holds no
    dates or other words too. ``where(i)`` returns the place of cell i for messages.

    Raises
    ------
    ValueError
        If day and month cannot be distinguished, or a few cells are not dates.
    """
    present = [i for i, cell in enumerate(cells) if cell.lower() not in MISSING_NUMBER_CELLS]
    fits: list[tuple[int, str, list[int]]] = []
    for form in DATE_FORMATS:
        if any(is_date(cells[i], form) for i in present[:3]):
            bad = [i for i in present if not is_date(cells[i], form)]
            fits.append((len(bad), form, bad))
    if not fits:
        return ""
    n_bad, form, bad = min(fits, key=lambda fit: fit[0])
    if n_bad > MAX_TYPO_FRACTION * len(present):
        return ""
    if n_bad:
        raise ValueError(
            f"{where(bad[0])} must be a date, as most cells of the column are, got "
            f"{one_line(cells[bad[0]])!r}. Correct it, or leave the cell empty."
        )
    whole = [other for count, other, _ in fits if not count]
    if any({"%d", "%m"} <= {a[:2], b[:2]} and a != b for a in whole for b in whole):
        dates = ((i, parse_date(cells[i], form)) for i in present)
        some = next((i for i, found in dates if found.day != found.month), None)
        if some is not None:
            raise ValueError(
                f"{where(some)} must show which number is the month, got "
                f"{one_line(cells[some])!r}. Write dates as 2024-12-31."
            )
    return form


def is_date(cell: str, form: str) -> bool:
    """Return True if a cell holds a date of a form in `DATE_FORMATS`."""
    with suppress(ValueError, OverflowError):
        return bool(parse_date(cell, form))
    return False
