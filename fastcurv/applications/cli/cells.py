"""The meaning of the cells of a column: numbers with their unit, dates, words, or nothing to use.

Nothing is guessed. A cell that can mean two things either raises ValueError, with the column, three
cells and the options that decide, or is read as the table in docs/report.md says, with a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.optional import optional_import
from .data import ColumnCoding

# cells without a value, in lower case
MISSING_CELLS = {"", "n/a", "n.a.", "n.a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "\\n", "?"}
# cells without a value in a column of numbers or dates
MISSING_NUMBER_CELLS = MISSING_CELLS | {
    "na", "none", "nil", "missing", "-", "--", "---", "\u2013", "\u2014", ".", "..", "...",
    "#value!", "#div/0!", "#ref!", "#num!", "#name?", "#null!", "nat",
}  # fmt: skip
# maximum fraction of words in a column of numbers or dates at which they count as mistakes
MAX_TYPO_FRACTION = 0.1
# maximum number of different words, such as "trace", among at least twice as many numbers, at which
# the numbers count as measured
MAX_CENSORED_WORDS = 5
# maximum number of words of a column, the most frequent ones, that become inputs
MAX_CATEGORIES = 30
MAX_DATE_FORMAT_CHARACTERS = 60  # maximum length of a format of dates
MAX_WORD_CHARACTERS = 1000  # maximum length of a word; longer cells are text
# range of the largest absolute value of a column in which variances of squared errors are finite
MIN_COLUMN_MAGNITUDE, MAX_COLUMN_MAGNITUDE = 1e-75, 1e75
MIN_EVIDENCE_CELLS = 5  # minimum number of cells whose marks may be doubtful
MIN_CODE_CELLS = 3  # minimum number of cells with a number that may mean a missing value
MAX_CODES = 5  # maximum number of such numbers at one end of a column
MIN_CODE_DISTANCE = 2  # minimum distance from all other numbers, in interquartile ranges


@dataclass(frozen=True)
class ReadingOptions:
    """The decisions of a user on what a table leaves open.

    ``sheet`` is the sheet of a workbook, ``header`` "yes" or "no" for names in the first line, and
    ``decimal`` "point" or "comma". ``words`` are columns of words, ``ignore`` columns to leave out,
    and ``keep`` columns to use although they look like identifiers or dates. ``na`` are cells
    without a value, and ``dates`` formats of dates as in ``datetime.strptime``.
    """

    sheet: str | None = None
    header: str | None = None
    decimal: str | None = None
    words: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    na: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choices = {"header": ("yes", "no"), "decimal": ("point", "comma")}
        for key, value in self.__dict__.items():
            if key in ("words", "ignore", "keep", "na", "dates"):
                object.__setattr__(self, key, tuple(value))
                correct = type(value) is not str and all(type(text) is str for text in value)
            else:
                correct = value is None or type(value) is str
                correct = correct and value in (None, *choices.get(key, (value,)))
            if not correct:
                wanted = " or ".join(choices.get(key, ("strings",)))
                raise ValueError(f"{key} must be {wanted}, got {one_line(repr(value))}.")
        for form in self.dates:
            moment = datetime(2001, 2, 3, 4, 5, 6)
            with suppress(ValueError, re.error):
                datetime.strptime(moment.strftime(form), form)
                if "%" in form and len(form) <= MAX_DATE_FORMAT_CHARACTERS:
                    continue
            raise ValueError(
                f"the form of dates must be one such as %d.%m.%Y, got {one_line(repr(form))}."
            )


NO_OPTIONS = ReadingOptions()


def import_pandas() -> Any:
    """Return the module pandas. Raise ImportError with what to install if it is missing."""
    with optional_import("tables", "report"):
        import pandas
    return pandas


@dataclass(eq=False)
class Column:
    """The cells of a column as text.

    Attributes
    ----------
    name : str
    codes : ndarray (N,)
        For each row, the position of its cell in `unique`.
    unique : list of str
        The different cells, without blanks around them, in the order of their first rows.
    source, lines, unit
        As in `tables.Sheet`.
    words : bool
        Whether the file says that the cells are words.
    """

    name: str
    codes: np.ndarray
    unique: list[str]
    source: str
    lines: np.ndarray
    unit: str = "line"
    words: bool = False

    def take(self, rows: Any, lines: np.ndarray) -> Column:
        """Return the column of some rows, whose numbers in the file are `lines`."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        return replace(
            self, codes=codes, unique=[self.unique[i] for i in used.tolist()], lines=lines
        )

    def counts(self) -> np.ndarray:
        """Return the number of rows of each cell in `unique`."""
        return np.asarray(np.bincount(self.codes, minlength=len(self.unique)))

    def texts(self) -> np.ndarray:
        """Return the cells of all rows (N,) as an array of objects."""
        return np.asarray(np.array(self.unique, dtype=object)[self.codes])

    def place(self, code: int | None = None) -> str:
        """Return the place of the first cell with a code, or of the column, for messages."""
        where = self.source
        if code is not None:
            where += f", {self.unit} {self.lines[int(np.argmax(self.codes == code))]}"
        return f"{where}, column {one_line(self.name)!r},"

    def error(self, wanted: str, codes: Sequence[int], cure: str) -> ValueError:
        """Return the error that the column must be `wanted`, with the first three of the cells that
        are not.
        """
        first = self.place(codes[0])
        others = [
            f"{one_line(self.unique[c], 40)!r} ({self.unit} "
            f"{self.lines[int(np.argmax(self.codes == c))]})"
            for c in codes[1:3]
        ]
        shown = ", ".join([repr(one_line(self.unique[codes[0]], 40)), *others])
        return ValueError(f"{first} must be {wanted}, got {shown}. {cure}")

    def options(self, *more: str) -> str:
        """Return the sentence with the options that decide on the column."""
        name = one_line(self.name)
        name = f'"{name}"' if " " in name else name
        listed = [f"--words {name}", f"--ignore {name}", *more]
        return f"Correct the cells, or use {', '.join(listed[:-1])} or {listed[-1]}."


def column_of_cells(
    name: str, cells: Any, source: str, lines: Any, unit: str = "line", words: bool = False
) -> Column:
    """Return the column of the given cells (N,). For the other arguments see `Column`."""
    pd = import_pandas()
    codes, unique = pd.factorize(cells)
    stripped = [cell.strip() for cell in unique.tolist()]
    if stripped != unique.tolist():
        renumbered, unique = pd.factorize(np.array(stripped, dtype=object))
        codes = renumbered[codes]
    return Column(name, codes, unique.tolist(), source, lines, unit, words)


@dataclass
class Meaning:
    """What the cells of a column mean.

    ``values`` are the numbers or days of all rows, with NaN for missing values, if the column has
    them. ``reason`` says why the column is left out, and ``notes`` what a user should know.
    ``repetition`` is the note on identifiers with several rows each, or "".
    """

    coding: ColumnCoding
    values: np.ndarray | None = None
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    repetition: str = ""


# --------------------------------------------------------------------------------------------------
# Numbers.

_SPACES = "[ \u00a0\u202f\u2009'\u2019]"  # characters between thousands
_CURRENCIES = (
    r"(?:US|R|A|C|HK)?\$|[€£¥₹₽₩₺₪₫฿]|Rs\.?|kr\.?|Fr\.?|zł|Kč|AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|"
    "HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|TRY|USD|ZAR"
)
_SURE_UNIT_PATTERN = re.compile(rf"(?:{_CURRENCIES}|[%‰°])", re.IGNORECASE)
_MARKS = "[<>\u2264\u2265~\u2248\u00b1*\u2020\u2021=^]"  # marks at numbers that are no unit


def _number_pattern(point: str, comma: str) -> re.Pattern[str]:
    grouped = "|".join(
        rf"\d{{1,3}}(?:{mark}\d{{{size}}})*{mark}\d{{3}}"
        for mark, size in ((comma, 3), (comma, 2), (_SPACES, 3))
    )
    number = rf"(?:{grouped}|\d+|(?={point}\d))(?:{point}\d*)?(?:[eE][+-]?\d+(?![^\W\d_]))?"
    return re.compile(
        rf"(?P<sign>[+-]?)\s*(?P<prefix>(?:{_CURRENCIES}|{_MARKS}{{1,2}})?)\s*(?P<minus>-?)"
        rf"(?P<number>{number})\s*(?P<suffix>(?:[^\d\s.,;:/_+-][^\d]{{0,15}}[23²³]?|\+{{1,3}})?)"
    )


NUMBER_PATTERNS = {".": _number_pattern(r"\.", ","), ",": _number_pattern(",", r"\.")}
# the digits and marks of a cell that holds one number
_DIGITS_PATTERN = re.compile(
    rf"[^\d.,]*?((?:[\d.,]|(?<=\d){_SPACES}(?=\d{{3}}))*\d[\d.,]*)(?:[eE][+-]?\d+)?[^\d.,]*[23²³]?"
)
# a number with one mark, which can separate thousands or decimals
_DOUBTFUL_PATTERN = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
_LAKH_PATTERN = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?")
# numbers that show that the decimal mark is a point or a comma
_SURE_PATTERNS = {
    ".": re.compile(r"\d*\.\d*|\d{1,3}(?:,\d{3})+\.\d*|\d{1,3}(?:,\d{3}){2,}"),
    ",": re.compile(r"\d*,\d*|\d{1,3}(?:\.\d{3})+,\d*|\d{1,3}(?:\.\d{3}){2,}"),
}
N_MARKED_CELLS = 200  # number of cells of a column that show its decimal mark
PLAIN = ("", "")


def split_number(cell: str, mark: str) -> tuple[float, tuple[str, str]] | None:
    """Return the number in a cell, and the words before and after it, or None if the cell has no
    number. `mark` is the decimal mark, "." or ",". In parentheses a number is negative.
    """
    text = cell.replace("\u2212", "-")
    negative = text[:1] == "(" and text[-1:] == ")" and "-" not in text
    match = NUMBER_PATTERNS[mark].fullmatch(text[1:-1].strip() if negative else text)
    if match is None:
        return None
    sign, prefix, minus, digits, suffix = match.groups()
    digits = digits.replace("," if mark == "." else ".", "").replace(",", ".")
    if not digits.isascii() or " " in digits or "'" in digits:
        digits = re.sub(_SPACES, "", digits)
    number = -float(digits) if negative or "-" in sign + minus else float(digits)
    return number, (prefix, suffix.strip())


def is_missing(cell: str, numbers: bool = False) -> bool:
    """Return True if a cell has no value; with `numbers`, in a column of numbers."""
    return cell.lower() in (MISSING_NUMBER_CELLS if numbers else MISSING_CELLS)


def is_plain_number(cell: str, mark: str) -> bool:
    """Return True if a cell holds a number, with at most a currency or a percent sign."""
    found = split_number(cell, mark)
    return found is not None and _is_sure_unit(found[1])


def _is_sure_unit(affix: tuple[str, str]) -> bool:
    return all(not text or _SURE_UNIT_PATTERN.fullmatch(text) for text in affix)


@dataclass
class Numbers:
    """The numbers of a column: for each cell in `Column.unique` its value, NaN if it has none; True
    if it means a missing value; and its affix, None for words. `affixes` is empty if all cells
    are plain numbers or missing.
    """

    values: np.ndarray
    missing: np.ndarray
    affixes: list[tuple[str, str] | None]


def parse_column(column: Column, mark: str, missing: np.ndarray) -> Numbers:
    """Return the `Numbers` of a column. `mark` is the decimal mark, and `missing` the result of
    `missing_numbers`.
    """
    codes = np.flatnonzero(~missing).tolist()
    texts = [column.unique[i] for i in codes]
    values = np.full(len(missing), np.nan)
    if mark == "." and "_" not in "".join(texts):  # Python reads 1_000 as a number.
        with suppress(ValueError):
            values[codes] = np.array(texts, dtype=object).astype(float)
            return Numbers(values, np.isnan(values), [])
    affixes: list[tuple[str, str] | None] = [PLAIN] * len(missing)
    for i, text in zip(codes, texts):
        split = split_number(text, mark)
        if split is None and text.lower().lstrip("+-") in ("inf", "infinity"):
            split = float(text), PLAIN
        if split is None:
            affixes[i] = None
        else:
            values[i], affixes[i] = split
    return Numbers(values, missing, affixes)


def missing_numbers(column: Column, na: Sequence[str]) -> np.ndarray:
    """Return a mask of the cells in `Column.unique` that have no value in a column of numbers."""
    missing = np.array([cell.lower() in MISSING_NUMBER_CELLS for cell in column.unique], bool)
    return np.asarray(missing | is_given_missing(column, na))


def is_given_missing(column: Column, na: Sequence[str]) -> np.ndarray:
    """Return a mask of the cells in `Column.unique` that equal one of `na`, as text or number."""
    numbers = set()
    for text in na:
        with suppress(ValueError):
            numbers.add(float(text))
    mask = np.zeros(len(column.unique), bool)
    if not na:
        return mask
    for i, cell in enumerate(column.unique):
        mask[i] = cell in na
        if numbers and not mask[i] and cell[:1] in "+-.0123456789":
            with suppress(ValueError):
                mask[i] = float(cell) in numbers
    return mask


def decimal_mark(
    columns: Sequence[Column], options: ReadingOptions, usual: str = "", separator: str = ""
) -> tuple[str, list[str]]:
    """Return the decimal mark of a table, "." or ",", and notes.

    Parameters
    ----------
    columns : sequence of Column
    options : ReadingOptions
    usual : str
        The mark that is returned, with a note, if no number shows another one; by default numbers
        that can be read in two ways raise ValueError.
    separator : str
        The separator of cells. Between commas, "1,234" in quotes has a mark of thousands.

    Raises
    ------
    ValueError
        If the numbers show both marks, or marks that can separate thousands or decimals.
    """
    if options.decimal is not None:
        return "." if options.decimal == "point" else ",", []
    shown: dict[str, tuple[Column, int]] = {}
    doubtful: list[tuple[Column, list[int]]] = []
    for column in columns:
        if column.words or column.name in (*options.words, *options.ignore):
            continue
        marked = [i for i, cell in enumerate(column.unique) if "." in cell or "," in cell]
        sample = marked[:N_MARKED_CELLS]
        kinds = [_kind_of_mark(column.unique[i]) for i in sample]
        if not marked or 2 * kinds.count("") > len(kinds):
            continue
        if "lakh" in kinds:
            raise column.error(
                "numbers with a clear mark of thousands",
                [i for i, kind in zip(sample, kinds) if kind == "lakh"],
                "Remove the commas, or use --decimal point for groups as in 12,34,000.",
            )
        for mark in ".,":
            if mark in kinds:
                shown.setdefault(mark, (column, sample[kinds.index(mark)]))
        if "doubtful" in kinds and not {".", ","} & set(kinds):
            rest = [i for i in marked[N_MARKED_CELLS:] if _kind_of_mark(column.unique[i]) in ".,"]
            long = any(cell.isdecimal() and len(cell) > 3 for cell in column.unique)
            if not rest and not long:
                doubtful.append((column, marked))
            else:
                i = rest[0] if rest else marked[0]
                shown.setdefault("." if "." in column.unique[i] else ",", (column, i))
    if len(shown) == 2:
        (first, i), (second, j) = shown["."], shown[","]
        raise ValueError(
            f"{first.place(i)} must have the decimal mark of all numbers, got "
            f"{one_line(first.unique[i])!r}, but column {one_line(second.name)!r} has "
            f"{one_line(second.unique[j])!r}. Use --decimal point or --decimal comma."
        )
    mark = next(iter(shown), usual)
    cure = "Use --decimal point or --decimal comma."
    for column, codes in doubtful:
        cell = column.unique[codes[0]]
        grouped = separator == "," and "," in cell
        if not grouped and (not mark or _shows_thousands(column, codes, mark)):
            raise column.error(
                "numbers whose mark separates either thousands or decimals", codes, cure
            )
        if not shown:
            read = "decimals" if (mark or ".") in cell else "thousands"
            return mark or ".", [
                f"The mark in numbers such as {one_line(cell)} in column {one_line(column.name)!r} "
                f"was read as one of {read}, which no other number of the table shows. {cure}"
            ]
    return mark or ".", []


def _kind_of_mark(cell: str) -> str:
    """Return "." or "," if the number in a cell shows that this is the decimal mark, "doubtful" if
    its mark can separate thousands or decimals, "lakh" for groups of two digits, and "" otherwise.
    """
    match = _DIGITS_PATTERN.fullmatch(cell)
    if match is None:
        return ""
    digits = re.sub(_SPACES, "", match[1])
    if _DOUBTFUL_PATTERN.fullmatch(digits):
        return "doubtful"
    if _LAKH_PATTERN.fullmatch(digits):
        return "lakh"
    return next((mark for mark in ".," if _SURE_PATTERNS[mark].fullmatch(digits)), "")


def _shows_thousands(column: Column, codes: list[int], mark: str) -> bool:
    """Return True for a column such as 850, 1.200, 2.350 with a decimal point, whose marks may
    separate thousands, because numbers with three decimals hardly ever end in .000.
    """
    whole = [cell.lstrip("+-") for cell in column.unique if cell.lstrip("+-").isdecimal()]
    return (
        mark in column.unique[codes[0]]
        and int(column.counts()[codes].sum()) >= MIN_EVIDENCE_CELLS
        and any(len(cell) == 3 for cell in whole)
    )


# --------------------------------------------------------------------------------------------------
# Dates.

ISO_FORMAT, CLOCK_FORMAT = "ISO", "hours:minutes"
_ISO_PATTERN = re.compile(
    r"(\d{4}-\d\d)(-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?\s?(?:Z|UTC|GMT|[+-]\d\d:?\d\d)?)?)?"
)
_LOCAL_ISO_PATTERN = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?")
MICROSECONDS_PER_DAY = 86_400_000_000
_CLOCK_PATTERN = re.compile(
    r"(\d{1,6}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?(?:\s*([ap])\.?m\.?)?", re.IGNORECASE
)
_SEPARATED = r"\d{4}([./_ -])\d{1,2}\1\d{1,2}|\d{1,2}([./_ -])\d{1,2}\2(?:\d{4}|\d\d)"
_NAMED = r"[^\W\d_]{3,10}\.?"  # the name of a month in any language
_MONTH_NAME = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE_LOOK_PATTERN = re.compile(
    rf"(?:\w{{2,10}},? )?(?:{_SEPARATED}|(?:0?[1-9]|1[0-2])[./]\d{{4}}|"
    rf"\d{{1,2}}\.?[ /-]?{_NAMED},?[ /-]?(?:\d{{4}}|\d\d)|{_NAMED} \d{{1,2}}\w{{0,2}},? \d{{4}}|"
    rf"{_MONTH_NAME}[ /-]?(?:\d{{4}}|\d\d)|\d{{4}}[ /-]?{_MONTH_NAME}(?:[ /-]?\d\d?)?)"
    r"(?:[T ,]+\d{1,2}[:h].*| \w{3,4})?",
    re.IGNORECASE,
)
_DAY, _MONTH, _YEAR = "(?:0[1-9]|[12]\\d|3[01])", "(?:0[1-9]|1[0-2])", "(?:19|20)\\d\\d"
_DATE_DIGITS_PATTERNS = [
    re.compile(pattern)
    for year in (_YEAR, r"\d\d")
    for pattern in (year + _MONTH + _DAY, _DAY + _MONTH + year, _MONTH + _DAY + year)
]
MIN_DATE_CELLS = 10  # minimum number of different numbers that may be dates


def parse_date(cell: str, form: str) -> datetime:
    """Return the date in a cell, in UTC if the cell names a time zone, or for `CLOCK_FORMAT`, a
    time of day or a duration, the first day of 1900 plus this time. `form` is `ISO_FORMAT`,
    `CLOCK_FORMAT` or a format of ``datetime.strptime``. Raise ValueError for other cells.
    """
    if form == CLOCK_FORMAT:
        match = _CLOCK_PATTERN.fullmatch(cell)
        if match is None or (match[4] and not 1 <= int(match[1]) <= 12):
            raise ValueError(f"cell must be a time such as 8:30, got {cell!r}.")
        hours, seconds = int(match[1]), float(match[3] or 0)
        if match[4]:
            hours = hours % 12 + 12 * (match[4].lower() == "p")
        return datetime(1900, 1, 1) + timedelta(hours=hours, minutes=int(match[2]), seconds=seconds)
    if form == ISO_FORMAT:
        match = _ISO_PATTERN.fullmatch(cell)
        if match is None:
            raise ValueError(f"cell must be a date such as 2024-12-31, got {cell!r}.")
        text = cell.replace("UTC", "Z").replace("GMT", "Z").replace(" Z", "Z")
        moment = datetime.fromisoformat(text if match[2] else f"{text}-01")
    else:
        moment = datetime.strptime(cell, form)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def date_days(cells: Sequence[str], form: str) -> np.ndarray:
    """Return the days from the first of 1970 to the dates in some cells, with NaN for other
    cells.
    """
    if form == ISO_FORMAT and all(map(_LOCAL_ISO_PATTERN.fullmatch, cells)):
        with suppress(ValueError):
            moments = np.array(cells, dtype="datetime64[us]").astype(np.int64)
            return np.asarray(moments / MICROSECONDS_PER_DAY)
    days = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        with suppress(ValueError, OverflowError):
            days[i] = (parse_date(cell, form) - datetime(1970, 1, 1)) / timedelta(days=1)
    return days


def _read_dates(column: Column, missing: np.ndarray, options: ReadingOptions) -> Meaning | None:
    """Return the meaning of a column of dates, as days from the first, or None for other columns.
    Raise ValueError if a few cells are no dates.
    """
    codes = np.flatnonzero(~missing)
    cells = [column.unique[code] for code in codes.tolist()]
    n_rows = column.counts()
    for form in (*options.dates, ISO_FORMAT, CLOCK_FORMAT):
        if np.isnan(date_days(cells[:MIN_EVIDENCE_CELLS], form)).all():
            continue
        days = np.full(len(column.unique), np.nan)
        days[codes] = date_days(cells, form)
        bad = codes[np.isnan(days[codes])]
        if n_rows[bad].sum() > MAX_TYPO_FRACTION * n_rows[codes].sum():
            continue
        if bad.size:
            wanted = "a date, as most cells of the column are"
            raise column.error(wanted, bad.tolist(), column.options())
        return _days_meaning(column, form, days[column.codes])
    return None


def _days_meaning(column: Column, form: str, days: np.ndarray) -> Meaning:
    first, last = float(np.nanmin(days)), float(np.nanmax(days))
    if first == last:
        return Meaning(ColumnCoding(column.name), reason=CONSTANT_REASON)
    name, text = one_line(column.name), ""
    notes = [f"Times in column {name!r} are counted in days, read as hours and minutes."]
    if form != CLOCK_FORMAT:
        text, end = (
            (datetime(1970, 1, 1) + timedelta(days=day)).isoformat().removesuffix("T00:00:00")
            for day in (first, last)
        )
        notes = [f"Dates in column {name!r} are counted in days from {text}; the last is {end}."]
        steps = np.diff(days[~np.isnan(days)])
        if (steps >= 0).all() or (steps <= 0).all():
            notes.append(
                f"The dates in column {name!r} are sorted. If rows depend on rows near in time, "
                "scores of rows left out are too high for later dates."
            )
    coding = ColumnCoding(column.name, "dates", form=form, first=text)
    return Meaning(coding, days - first_day(coding), notes=notes)


def first_day(coding: ColumnCoding) -> float:
    """Return the day from which the dates of a column are counted, in days from the first of 1970,
    or for times of day the day of `parse_date`.
    """
    first = datetime.fromisoformat(coding.first) if coding.first else datetime(1900, 1, 1)
    return (first - datetime(1970, 1, 1)) / timedelta(days=1)


# --------------------------------------------------------------------------------------------------
# The meaning of a column.

CONSTANT_REASON = "the same value in all rows"
EMPTY_REASON = "no values"
TEXT_REASON = "another value in nearly every row, as an identifier or a text has"
LONG_TEXT_REASON = f"text of more than {MAX_WORD_CHARACTERS} characters"
IDENTIFIER_REASON = "the numbers of the rows or of what they describe"
OPTION_REASON = "the option --ignore or --groups"
# words of names of identifiers; those of the second kind also name quantities
_IDENTIFIER_WORDS = {
    "id",
    "ids",
    "uuid",
    "guid",
    "uid",
    "rowid",
    "rownames",
    "identifier",
    "unnamed",
}
_COUNTER_WORDS = {
    "no", "nr", "num", "number", "index", "idx", "key", "row", "rownum", "rownumber", "obs",
    "observation", "case", "record", "sample", "serial", "seq", "sn", "sno", "code", "ref", "line",
    "subject", "patient", "participant", "person", "nummer", "numero", "lfd",
}  # fmt: skip
_PERSON_WORDS = {"subject", "patient", "participant", "person", "individual", "student"}


def name_words(name: str) -> list[str]:
    """Return the words of a column's name in lower case: those of "patientID" or "Patient-ID" are
    "patient" and "id".
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+|#", spaced)]


def identifier_kind(name: str) -> str:
    """Return "id" for names of identifiers, "counter" for names that may be one, and ""."""
    words = name_words(name)
    ends = {*words[:1], *words[-1:]}
    if not words or ends & (_IDENTIFIER_WORDS | {"#"}) or re.search(r"(?<!\s)id$", name.lower()):
        return "id"
    return "counter" if ends & _COUNTER_WORDS or "".join(words) in _COUNTER_WORDS else ""


def read_column(
    column: Column, mark: str, options: ReadingOptions, target: bool = False
) -> Meaning:
    """Return the `Meaning` of a column, or of the column to predict if `target` is True.

    Parameters
    ----------
    column : Column
    mark : str
        The decimal mark of the table.
    options : ReadingOptions

    Raises
    ------
    ValueError
        If the cells can mean two things. The message has three of them and the options that decide.
    """
    left_out = ColumnCoding(column.name)
    if column.name in options.ignore:
        return Meaning(left_out, reason=OPTION_REASON)
    if max(map(len, column.unique), default=0) > MAX_WORD_CHARACTERS:
        return Meaning(left_out, reason=LONG_TEXT_REASON)
    n_rows = column.counts()
    if column.words or column.name in options.words:
        return _read_words(column, n_rows, options, target)
    missing = missing_numbers(column, options.na)
    dates = _read_dates(column, missing, options)
    if dates is not None:
        return dates
    numbers = parse_column(column, mark, missing)
    codes = np.flatnonzero(~numbers.missing).tolist()
    if not codes:
        return Meaning(left_out, reason=EMPTY_REASON)
    words = [i for i in codes if numbers.affixes and numbers.affixes[i] is None]
    alike = [i for i in codes if numbers.affixes and _DATE_LOOK_PATTERN.fullmatch(column.unique[i])]
    if n_rows[alike].sum() > (1 - MAX_TYPO_FRACTION) * n_rows[codes].sum():
        more = "--dates FORMAT, for example --dates %d.%m.%Y"
        raise column.error("dates such as 2024-12-31", alike, column.options(more))
    affix = _common_affix(column, numbers, codes, words, n_rows)
    if affix is None:
        return _read_words(column, n_rows, options, target)
    return _read_numbers(column, numbers, affix, options)


def _common_affix(
    column: Column, numbers: Numbers, codes: list[int], words: list[int], n_rows: np.ndarray
) -> tuple[str, str] | None:
    """Return the affix of all numbers of a column, or None for a column of words. `codes` are those
    of the cells with a value, and `words` those among them without a number. Raise ValueError if
    numbers have several affixes, or if there are words among them.
    """
    if not numbers.affixes:
        return PLAIN
    n_present, n_words = int(n_rows[codes].sum()), int(n_rows[words].sum())
    if 2 * n_words > n_present:
        return None
    groups = Counter[tuple[str, str]]()
    for i in codes:
        affix = numbers.affixes[i]
        if affix is not None:
            groups[affix] += int(n_rows[i])
    usual, n_usual = groups.most_common(1)[0]
    n_cells = len(codes)
    value = f'"{one_line(column.unique[words[0]], 40)}"' if words else "VALUE"
    cure = column.options(f"--na {value}")
    if words:
        measured = n_cells > MAX_CATEGORIES and n_usual >= n_present / 2
        sure = measured or (_is_sure_unit(usual) and n_words <= MAX_TYPO_FRACTION * n_present)
        values = numbers.values[~np.isnan(numbers.values)]
        few = len(words) <= MAX_CENSORED_WORDS or bool((values != np.round(values)).any())
        if sure and (n_words <= MAX_TYPO_FRACTION * n_present or few):
            raise column.error("a number, as most cells of the column are", words, cure)
        return None
    if len(groups) == 1 and all(
        not text or _SURE_UNIT_PATTERN.fullmatch(text) or text[0].isalpha() for text in usual
    ):
        return usual
    if n_cells <= MAX_CATEGORIES and not any(map(_is_sure_unit, groups)):
        return None
    shown = [
        next(i for i in codes if numbers.affixes[i] == affix) for affix, _ in groups.most_common(3)
    ]
    raise column.error("numbers with the same unit, or without one, in all cells", shown, cure)


def _read_numbers(
    column: Column,
    numbers: Numbers,
    affix: tuple[str, str],
    options: ReadingOptions,
) -> Meaning:
    """Return the meaning of a column of numbers with one affix."""
    name = column.name
    check_magnitudes(column, numbers.values)
    rows = numbers.values[column.codes]
    present = rows[~np.isnan(rows)]
    different, counts = np.unique(present, return_counts=True)
    if different.size < 2:
        return Meaning(ColumnCoding(name), reason=CONSTANT_REASON)
    unit = " ".join(affix).strip()
    meaning = Meaning(ColumnCoding(name, "numbers", form=unit), rows)
    if unit:
        meaning.notes.append(
            f"Cells of column {one_line(name)!r} were read as numbers in {one_line(unit)}."
        )
    if bool((different == np.round(different)).all()):
        codes = np.flatnonzero(~numbers.missing).tolist()
        texts = [column.unique[i] for i in codes]
        if name not in options.keep:
            meaning.reason = _numbering_reason(name, present, different)
            dates = any(all(map(form.fullmatch, texts)) for form in _DATE_DIGITS_PATTERNS)
            if dates and different.size >= MIN_DATE_CELLS and not meaning.reason:
                more = f"--keep {one_line(name)} for numbers", "--dates %Y%m%d for dates"
                raise column.error("either numbers or dates", codes, column.options(*more))
        padded = [text for text in texts if len(text) > 1 and text[0] == "0"]
        if padded and all(map(str.isdecimal, texts)) and len(set(map(len, texts))) == 1:
            meaning.notes.append(
                f"Column {one_line(name)!r} holds codes such as {one_line(padded[0])}, which were "
                f"read as numbers. Use --words {one_line(name)} to read them as words."
            )
    _note_repetition(meaning, different.size, present.size)
    meaning.notes += missing_code_notes(name, different, counts)
    return meaning


def _numbering_reason(name: str, present: np.ndarray, different: np.ndarray) -> str:
    """Return the reason to leave out a column of whole numbers that identify the rows, or "".
    `different` holds the sorted distinct numbers of `present`.
    """
    if present[0] in (0, 1) and bool((np.diff(present) == 1).all()):
        return IDENTIFIER_REASON
    kind = identifier_kind(name)
    if not kind or different.size <= (1 - MAX_TYPO_FRACTION) * present.size:
        return ""
    dense = different[-1] - different[0] < 2 * present.size
    return IDENTIFIER_REASON if kind == "id" or dense else ""


def _note_repetition(meaning: Meaning, n_different: int, n_present: int) -> None:
    """Add a note if the column identifies persons or things with several rows each."""
    name = meaning.coding.name
    person = bool(_PERSON_WORDS & set(name_words(name)))
    if 2 * n_different > n_present or not (person or {"id", "ids"} & set(name_words(name))):
        return
    meaning.repetition = (
        f"Column {one_line(name)!r} has {n_different} different values in {n_present} rows. If "
        "each value is one person or thing, its rows are not independent, and scores of rows left "
        f"out are too high for new ones. `--groups {one_line(name)}` leaves them out together."
    )
    meaning.notes.append(meaning.repetition)


def missing_code_notes(name: str, different: np.ndarray, counts: np.ndarray) -> list[str]:
    """Return a note on numbers that may mean a missing value: at most `MAX_CODES` at an end, each
    in at least `MIN_CODE_CELLS` rows, outside all others by `MIN_CODE_DISTANCE` times their
    interquartile range. `different` holds the sorted numbers, and `counts` their rows.
    """
    codes = list[int]()
    low, high = 0, different.size
    for _ in range(2):  # Codes at one end hide those at the other in small columns.
        for at_end in (False, True):
            for k in range(1, min(MAX_CODES, high - low - 2) + 1):
                inner = slice(low, high - k) if at_end else slice(low + k, high)
                outer = slice(high - k, high) if at_end else slice(low, low + k)
                if (counts[outer] < MIN_CODE_CELLS).any():
                    break
                if counts[outer].sum() > counts[inner].sum():
                    break
                others, weights = different[inner], counts[inner]
                places = np.cumsum(weights) / weights.sum()
                first, last = others[np.searchsorted(places, [0.25, 0.75])]
                spread = last - first or others[-1] - others[0]
                gap = (
                    different[high - k] - others[-1]
                    if at_end
                    else others[0] - different[low + k - 1]
                )
                if gap > MIN_CODE_DISTANCE * spread:
                    codes += range(*outer.indices(different.size))
                    low, high = inner.start, inner.stop
                    break
    if not codes:
        return []
    listed = ", ".join(f"{different[i]:.10g} in {counts[i]} rows" for i in codes)
    value = f"{different[codes[0]]:.10g}"
    return [
        f"Column {one_line(name)!r} has {listed}, far from all other numbers. If such a number "
        f"means that a value is missing, use --na={value}."
    ]


def check_magnitudes(column: Column, values: np.ndarray) -> None:
    """Raise ValueError if the largest magnitude in a column is above `MAX_COLUMN_MAGNITUDE`, or if
    it is not 0 and below `MIN_COLUMN_MAGNITUDE`, because fourth powers would overflow or underflow.
    `values` holds the number of each cell in `Column.unique`, or NaN.
    """
    size = np.abs(values)
    largest = np.fmax.reduce(size, initial=0.0)
    if largest > MAX_COLUMN_MAGNITUDE or 0 < largest < MIN_COLUMN_MAGNITUDE:
        code = int(np.nanargmax(size))
        wanted = (
            f"at most {MAX_COLUMN_MAGNITUDE:g} in magnitude"
            if largest > 1
            else f"at least {MIN_COLUMN_MAGNITUDE:g} in magnitude"
        )
        raise column.error(
            f"a number of {wanted}", [code], "Correct it, or choose another unit for the column."
        )


def word_missing(column: Column, na: Sequence[str]) -> np.ndarray:
    """Return a mask of the cells in `Column.unique` that have no value in a column of words."""
    missing = np.array([is_missing(cell) for cell in column.unique], bool)
    return np.asarray(missing | is_given_missing(column, na))


def _read_words(
    column: Column, n_rows: np.ndarray, options: ReadingOptions, target: bool
) -> Meaning:
    """Return the meaning of a column of words. Missing values are the word ""."""
    missing = word_missing(column, options.na)
    counts = Counter[str]()
    for word, lost, count in zip(column.unique, missing.tolist(), n_rows.tolist()):
        counts["" if lost else word] += count
    name, n_present = column.name, len(column.codes) - counts[""]
    n_different = len(+counts) - (counts[""] > 0)
    left_out = ColumnCoding(name)
    if n_different == 0:
        return Meaning(left_out, reason=EMPTY_REASON)
    if len(+counts) < 2:
        return Meaning(left_out, reason=CONSTANT_REASON)
    chosen = target or name in (*options.words, *options.keep)
    if n_different > max(MIN_EVIDENCE_CELLS, len(column.codes) // 2) and not chosen:
        return Meaning(left_out, reason=TEXT_REASON)
    frequent = sorted(+counts, key=lambda word: (-counts[word], word))[:MAX_CATEGORIES]
    meaning = Meaning(ColumnCoding(name, "words", categories=tuple(sorted(frequent))))
    if len(+counts) > MAX_CATEGORIES and not target:
        meaning.notes.append(
            f"Column {one_line(name)!r} has {n_different} different words; the {MAX_CATEGORIES} "
            "most frequent ones are inputs."
        )
    if target and "NA" in counts:
        meaning.notes.append(
            f"NA in {counts['NA']} rows of column {one_line(name)!r} is a class. If it means that "
            "a value is missing, use --na NA."
        )
    _note_repetition(meaning, n_different, n_present)
    return meaning
