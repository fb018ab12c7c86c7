"""Tables of a user: from the text of a .csv or .tsv file to the columns that can be used, which
`encode` converts to inputs of a network.

The separator, the names and the kind of each column are guessed. All guesses are attributes of the
`Table`, and its `notes` state what was ignored. For a defect without a safe guess, a ValueError
names the line, the column and the cure.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home, raise_if_special_file
from .cells import (
    AMBIGUOUS_NUMBER_PATTERN,
    COMMA_GROUPED_PATTERN,
    DECIMAL_COMMA_PATTERN,
    DECIMAL_POINT_PATTERN,
    DURATION_FORMAT,
    MAX_TYPO_FRACTION,
    MISSING_CELLS,
    MISSING_NUMBER_CELLS,
    POINT_GROUPED_DECIMAL_COMMA_PATTERN,
    POINT_GROUPED_PATTERN,
    TIME_FORMATS,
    UNIT_CHARACTERS,
    Cells,
    detect_date_format,
    is_number,
    parse_date,
    parse_number,
    parse_numbers,
    parse_numbers_with_unit,
)
from .data import (
    INDEX_COLUMN_NAMES,
    MAX_UNPACKED_RATIO,
    ColumnCoding,
    is_header,
    max_unpacked_bytes,
    resolve_existing_path,
)

SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# number of lines, and of cells, from which the separator is detected
N_FIRST_LINES, N_FIRST_CELLS = 50, 2000
MIN_TABLE_ROWS = 10  # minimum number of rows; with fewer, scores of left-out rows are meaningless
# range of the largest absolute value of a column in which variances of squared errors are finite
MIN_COLUMN_MAGNITUDE, MAX_COLUMN_MAGNITUDE = 1e-75, 1e75
# maximum number of different words, such as <0.1, in the cells of a column of numbers
MAX_CENSORED_WORDS = 5
# minimum number of cells from which thousands separators and codes for missing values are inferred
MIN_EVIDENCE_CELLS = 5
# maximum number of words of a column, the most frequent ones, that become inputs
MAX_CATEGORIES = 30
# Whole numbers count as classes if there are at most `MAX_CLASSES` different ones with at least
# this mean number of rows.
MAX_CLASSES = 20
MIN_ROWS_PER_CLASS = 5
MAX_NAMED_COLUMNS = 5  # maximum number of columns named in a note
# maximum numbers of characters of a word that becomes an input, and of a class, whose copies fill
# an array with the width of the longest one
MAX_WORD_LENGTH, MAX_CLASS_LENGTH = 1000, 100
IDENTIFIER_NAME_PATTERN = re.compile(
    r"(^|[^a-z])(id|uuid|guid|index|idx|key|nr|no|number|rowid|rownames)$|[a-z](Id|ID)$"
)


# --------------------------------------------------------------------------------------------------
# From bytes to cells: encoding, separator, names, and lines of one length.


@dataclass(frozen=True)
class CellSheet:
    """The cells of a file: a list of strings for each row, with the line number of the row in the
    file.
    """

    path: Path
    names: tuple[str, ...]
    named: bool  # False if the file has no names, so that they are "column 0", ...
    rows: list[list[str]]
    lines: list[int]
    comma: bool  # True if numbers have decimal commas
    ambiguous: bool  # True if no number shows whether marks separate decimals or thousands
    notes: tuple[str, ...]  # notes on the encoding of the file, if it had to be guessed

    def cell_location(self, row: int, column: int) -> str:
        """Return the place of a cell in the file, as a string for messages."""
        return f"{self.path}, line {self.lines[row]}, column {one_line(self.names[column])!r},"


def read_sheet(path: str | Path, least: int = 2) -> CellSheet:
    """Read the cells of a .csv or .tsv file with commas, semicolons, tabs or bars as separators.

    Parameters
    ----------
    path : str or path
    least : int
        Minimum number of columns.

    Returns
    -------
    CellSheet

    Raises
    ------
    ValueError
        If the file cannot be read as a table. The message names the line and the cure.
    """
    path = resolve_existing_path(expand_home(path))
    text, notes = _read_text(path)
    marked = re.match(r"sep=([,;\t|])\r?\n", text)  # Excel may write this line first.
    text, first = (text[marked.end() :], 2) if marked else (text, 1)
    mark = marked[1] if marked else _detect_separator(text, path.name.lower().removesuffix(".gz"))
    rows, lines = _split_into_cells(path, text, mark, first)
    if not rows:
        raise ValueError(f"{path} must hold a table, got an empty file.")
    comma, ambiguous = _detect_decimal_mark(path, rows, mark)
    if len(rows) > 1 and len(rows[1]) == len(rows[0]) + 1 > 2 and _have_equal_types(rows[1:]):
        # `last` is True if all lines but the first end with a separator.
        last = all(not row[-1] for row in rows[1:])
        # R writes no name above a column of row names.
        rows[0] = [*rows[0], ""] if last else ["", *rows[0]]
    width = len(rows[0])
    if (
        len(rows) > MIN_TABLE_ROWS
        and len(rows[-1]) != width
        and _have_equal_types(rows[MIN_TABLE_ROWS // 2 :])
    ):
        raise ValueError(
            f"{path}, line {lines[0]}, must have a name for each of {len(rows[-1])} columns, got "
            f"{width}. Remove the lines above the names."
        )
    for row, line in zip(rows, lines):
        if len(row) != width:
            raise ValueError(
                f"{path}, line {line}, must have {width} columns, as the first line has, got "
                f"{len(row)}. Put cells that contain {SEPARATOR_NAMES.get(mark, mark)} in double "
                "quotes."
            )
    named = _has_header_row(rows[0], rows[1:], comma)
    header = rows.pop(0) if named else [""] * width
    lines = lines[named:]
    header[0] = header[0].removeprefix("#").strip()
    empty = [not name and all(not row[i] for row in rows) for i, name in enumerate(header)]
    kept = [i for i in range(width) if not empty[i]]
    blank = "Unnamed: {}" if named else "column {}"  # names in the form that pandas uses
    names = tuple(header[i] or blank.format(i) for i in kept)
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise ValueError(
            f"{path} must have a different name for each column, got {one_line(again[0])!r} "
            f"{names.count(again[0])} times. Rename or remove all but one of them."
        )
    if len(names) < least:
        raise ValueError(
            f"{path} must have at least two columns, separated by commas, semicolons or tabs, got "
            f"{len(names)}."
        )
    if any(empty):
        rows = [[row[i] for i in kept] for row in rows]
    return CellSheet(path, names, named, rows, lines, comma, ambiguous, notes)


def _detect_decimal_mark(path: Path, rows: Sequence[Cells], mark: str) -> tuple[bool, bool]:
    """Return two flags: True if numbers have decimal commas, and True if no number shows whether
    its mark separates decimals or thousands. `mark` is the separator of cells.

    In a file separated by commas, decimal commas are in quotes. A cell such as "0,5" or "1,25"
    indicates decimal commas, unless other numbers have points.
    """
    commas = [cell.strip(UNIT_CHARACTERS) for row in rows for cell in row if "," in cell]
    found = [cell for cell in commas if DECIMAL_COMMA_PATTERN.fullmatch(cell)]
    decimals = filter(DECIMAL_POINT_PATTERN.fullmatch, _cells_with_points(rows))
    if not found and next((c for c in decimals if not AMBIGUOUS_NUMBER_PATTERN.fullmatch(c)), None):
        return False, False
    numbers = (
        DECIMAL_COMMA_PATTERN,
        COMMA_GROUPED_PATTERN,
        DECIMAL_POINT_PATTERN,
        POINT_GROUPED_PATTERN,
        POINT_GROUPED_DECIMAL_COMMA_PATTERN,
    )
    marked = [
        cell
        for cell in (*commas, *_cells_with_points(rows))
        if any(form.fullmatch(cell) for form in numbers)
    ]
    ambiguous = bool(marked) and all(map(AMBIGUOUS_NUMBER_PATTERN.fullmatch, marked))
    if not found and any(map(POINT_GROUPED_PATTERN.fullmatch, marked)):
        return True, False
    if mark == "," and all(map(COMMA_GROUPED_PATTERN.fullmatch, found)):
        return False, ambiguous
    for cell in filter(DECIMAL_POINT_PATTERN.fullmatch, _cells_with_points(rows)):
        if not POINT_GROUPED_DECIMAL_COMMA_PATTERN.fullmatch(cell):
            raise ValueError(
                f"{path} must have one decimal mark in all numbers, got {one_line(found[0])!r} and "
                f"{one_line(cell)!r}. Replace the commas by points."
            )
    return bool(found), ambiguous


def _cells_with_points(rows: Sequence[Cells]) -> Iterator[str]:
    return (cell.strip(UNIT_CHARACTERS) for row in rows for cell in row if "." in cell)


# first bytes of files that are not text but are often named like tables
FOREIGN_FILE_SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or an archive. Save the table as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save the table as 'CSV UTF-8'",
    b"PAR1": "a Parquet file. Write it as CSV",
    b"%PDF": "a PDF file. Save the table as 'CSV UTF-8'",
}
GZIP_SIGNATURE = b"\x1f\x8b"  # first bytes of a file compressed by gzip
_CONTROL_PATTERN = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # control characters that no text has
_JSON_START_PATTERN = re.compile(r"\s*(\[\s*[\[{]|\{\s*\")")
_HTML_START_PATTERN = re.compile(r"\s*<(!doctype|\?xml|html)", re.IGNORECASE)


def _read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, without a byte-order mark, and a note on its encoding if that is
    neither UTF-8 nor UTF-16.
    """
    raise_if_special_file(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    if raw.startswith(GZIP_SIGNATURE):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
                raw = file.read(max_unpacked_bytes(path) + 1)
        except (OSError, EOFError, zlib.error):
            raise ValueError(
                f"{path} cannot be read, because its gzip data are damaged or truncated. Compress "
                "the table again."
            ) from None
        if len(raw) > max_unpacked_bytes(path):
            raise ValueError(
                f"{path} must hold a table of at most {MAX_UNPACKED_RATIO} times the size of the "
                "file. Unpack it first."
            )
    for start, what in FOREIGN_FILE_SIGNATURES.items():
        if raw.startswith(start):
            raise ValueError(f"{path} must hold a table as text, got {what}.")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        with suppress(UnicodeDecodeError):
            return raw.decode("utf-16"), ()
    notes: tuple[str, ...] = ()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text, notes = _decode_windows_text(path, raw, error.start)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}, line {line}, must be text, got a NUL byte. Save the table as 'CSV UTF-8'."
        )
    for pattern, what in (
        (_JSON_START_PATTERN, "JSON"),
        (_HTML_START_PATTERN, "a page in HTML or XML"),
    ):
        if pattern.match(text):
            raise ValueError(f"{path} must hold a table as text, got {what}. Write it as CSV.")
    return text, notes


def _decode_windows_text(path: Path, raw: bytes, place: int) -> tuple[str, tuple[str, ...]]:
    """Decode a file that is not UTF-8 from byte `place` on as Windows-1252, which has the letters
    of Latin-1. Return the text, and a note on the first character that is not UTF-8.

    Raises
    ------
    ValueError
        If the bytes have no meaning in that encoding, or other characters are in UTF-8.
    """
    line = raw.count(b"\n", 0, place) + 1
    if raw.decode("utf-8", "ignore").isascii() and not _CONTROL_PATTERN.search(raw):
        with suppress(UnicodeDecodeError):
            text = raw.decode("cp1252")
            return text, (
                f"The table is not in UTF-8 and was read as Windows-1252 (Latin-1), with "
                f"{text[place]!r} in line {line}. If that is wrong, save the table as 'CSV UTF-8'.",
            )
    raise ValueError(
        f"{path}, line {line}, must be text in UTF-8, got the byte 0x{raw[place]:02x}. "
        "Save the table as 'CSV UTF-8'."
    )


def _split_into_cells(
    path: Path, text: str, mark: str, first: int
) -> tuple[list[list[str]], list[int]]:
    """Return the cells of all lines that are not blank, and the numbers of these lines. Lines that
    begin with # and have another number of cells than most lines are left out. `mark` is the
    separator, and `first` the number of the first line.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=True
    )
    rows, lines, begin = [], [], first
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(begin)
            begin = first + reader.line_num
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(
                f"{path}, line {begin}, must have cells of at most {csv.field_size_limit()} "
                "characters, got a longer one. Shorten the text, or close its double quotes."
            ) from None
        raise ValueError(
            f"{path}, line {begin}, must have its double quotes in pairs around whole cells, got "
            f"{one_line(error)}."
        ) from None
    if any(row[0][:1] == "#" for row in rows):
        width = Counter(map(len, rows)).most_common(1)[0][0]
        kept = [i for i, row in enumerate(rows) if row[0][:1] != "#" or len(row) == width]
        rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
    return rows, lines


def _detect_separator(text: str, name: str) -> str:
    """Return the separator that splits the first lines into equal numbers of columns, at least two.
    Of several such separators, return the one whose cells are most often numbers or contain no
    other separator. `name` is the name of the file, whose suffix decides between equal separators.
    """
    sample = list(_first_lines(text))
    own = "\t" if name.endswith(".tsv") else ","
    best, highest = own, -1.0
    for mark in sorted(SEPARATOR_NAMES, key=lambda mark: mark != own):
        try:
            rows = [row for row in csv.reader(sample, delimiter=mark, skipinitialspace=True) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        cells = [cell for row in rows[: max(3, N_FIRST_CELLS // len(rows[0]))] for cell in row]
        others = [other for other in SEPARATOR_NAMES if other != mark]
        good = sum(
            1.0
            if cell.lower() in MISSING_CELLS or is_number(cell, mark != ",")
            else 0.9 * (not any(other in cell for other in others))
            for cell in map(str.strip, cells)
        )
        alike = len({len(row) for row in rows}) == 1
        if (score := good / len(cells) + alike) > highest + 1e-9:
            best, highest = mark, score
    return best


def _first_lines(text: str) -> Iterator[str]:
    """Yield the first lines of a text that are not blank, including their line ends."""
    found = 0
    for line in io.StringIO(text, newline=None):
        if line.strip():
            yield line
            found += 1
        if found == N_FIRST_LINES:
            return


def _have_equal_types(rows: Sequence[Cells]) -> bool:
    return len({len(row) for row in rows}) == 1


def _has_header_row(first: Cells, below: Sequence[Cells], comma: bool) -> bool:
    """Return True if the first line names the columns; `below` holds the other lines.

    A word above a column of numbers is a name. Otherwise words that occur again in their columns
    are cells. A first line of numbers holds names if it counts the columns, or if the numbers are
    in order and none lies within its column's range, like wavelengths above a spectrum.
    """
    if not below:
        return not any(is_number(cell, comma) for cell in first)
    numbers, words_recur, outside, in_columns = [], True, True, list(zip(*below))
    if not first[0] and list(in_columns[0]) == [str(i) for i in range(len(below))]:
        return True  # pandas writes an empty name above an index
    for name, column in zip(first, in_columns):
        values, bad = parse_numbers(column, comma)
        present = values[np.isfinite(values)]
        if is_number(name, comma):
            value = parse_number(name, comma)
            numbers.append(value)
            inside = present.size and present.min() <= value <= present.max()
            outside = outside and not inside
        elif name.lower() not in MISSING_CELLS:
            if present.size > len(bad):
                return True
            words_recur = words_recur and name in column
    if not numbers:
        return not words_recur
    in_order = len(numbers) > 2 and len(set(np.sign(np.diff(numbers)).tolist())) == 1
    if len(numbers) == len(first):
        return (in_order and outside) or is_header(list(first), [list(row) for row in below])
    return not words_recur and in_order and outside


# --------------------------------------------------------------------------------------------------
# The kind of each column, and the target.

COLUMN_KINDS = ("numbers", "dates", "words", "left out")  # kinds of a column


@dataclass(frozen=True)
class Table:
    """A table of training data, as read by `read_table`.

    Attributes
    ----------
    sheet : CellSheet
        The rows that have a target, without the column of the target.
    target : str
        Name of the column of the target.
    y : ndarray (N,)
        Numbers, or labels of classes.
    classes : bool
        Whether y holds labels.
    codes : tuple of ColumnCoding
        A `ColumnCoding` for each column of the sheet.
    gaps : tuple of bool
        For each column of the sheet, whether numbers or dates are missing.
    notes : tuple of str
        Sentences on the parts of the file that were ignored, and on assumptions about cells.
    """

    sheet: CellSheet
    target: str
    y: np.ndarray
    classes: bool
    codes: tuple[ColumnCoding, ...]
    gaps: tuple[bool, ...]
    notes: tuple[str, ...]


def read_table(
    path: str | Path,
    target: str | None = None,
    classes: bool | None = None,
    *,
    all_numbers: bool = False,
) -> Table:
    """Read a table of training data, and determine the kind of each column.

    Parameters
    ----------
    path : str or path
        A .csv or .tsv file, see `read_sheet`.
    target : str, optional
        The column of y, by name or by number from 0; by default the last.
    classes : bool, optional
        Whether y holds classes. By default, y holds classes if its cells are words, if there are
        two different values, or if they are whole numbers with at most `MAX_CLASSES` different
        values and a mean of at least `MIN_ROWS_PER_CLASS` rows for each value.
    all_numbers : bool
        True if all other columns are inputs of an existing network. A word or a missing value in
        these columns is then an error, and two rows are enough.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If the table has a defect without a safe guess.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "plants.csv"
    >>> rows = [f"{i};{'clay' if i % 3 else 'sand'};{i % 4},5" for i in range(12)]
    >>> _ = path.write_text(chr(10).join(["id;soil;height", *rows]))
    >>> table = read_table(path, "height")
    >>> [code.kind for code in table.codes], table.y[:3]
    (['left out', 'words'], array([0.5, 1.5, 2.5]))
    >>> print(*table.notes)
    Column 'id' was ignored, because it only numbers the rows.
    """
    sheet = read_sheet(path)
    at = target_position(sheet, target)
    name, notes = sheet.names[at], [*sheet.notes]
    cells = [row[at] for row in sheet.rows]
    kept = _rows_with_target(cells, sheet.comma)
    if len(kept) < (min_rows := 2 if all_numbers else MIN_TABLE_ROWS):
        raise ValueError(
            f"{sheet.path} must have at least {min_rows} rows with a target in column "
            f"{one_line(name)!r}, got {len(kept)}."
        )
    if len(kept) < len(cells):
        gone = len(cells) - len(kept)
        notes.append(
            f"{gone} row{'s' * (gone > 1)} without a target {_was_or_were_clause(gone)} ignored."
        )
    copies = len(kept) - len({tuple(sheet.rows[i]) for i in kept})
    whole = replace(sheet, rows=[sheet.rows[i] for i in kept], lines=[sheet.lines[i] for i in kept])
    y, labels, found = _read_targets(whole, at, classes)
    notes += found
    if copies:
        notes.append(
            f"{count_phrase(copies, 'row', 'is a copy', 'are copies')} of earlier rows, so that "
            "scores of left-out rows are too high: their copies were fitted."
        )
    rest = [i for i in range(len(sheet.names)) if i != at]
    sheet = replace(
        whole,
        names=tuple(sheet.names[i] for i in rest),
        rows=[[row[i] for i in rest] for row in whole.rows],
    )
    if all_numbers:
        codes, gaps = numeric_column_codings(sheet.names), (False,) * len(rest)
    else:
        codes, gaps = _infer_column_codings(sheet, notes)
    notes += ambiguous_mark_notes(whole)
    return Table(sheet, name, y, labels, codes, gaps, tuple(notes))


def numeric_column_codings(names: Iterable[str]) -> tuple[ColumnCoding, ...]:
    """Return a `ColumnCoding` for columns of numbers without missing values, one for each name."""
    return tuple(ColumnCoding(name, "numbers", math.nan) for name in names)


def _rows_with_target(cells: Cells, comma: bool) -> list[int]:
    """Return the indices of the rows whose target `cells` are not missing. In a column of numbers,
    targets that are NaN in any spelling count as missing.
    """
    kept = [i for i, cell in enumerate(cells) if cell.lower() not in MISSING_CELLS]
    values, bad, _ = parse_numbers_with_unit([cells[i] for i in kept], comma)
    return kept if bad else [i for i, value in zip(kept, values) if not np.isnan(value)]


def _was_or_were_clause(count: int) -> str:
    return "was" if count == 1 else "were"


def count_phrase(count: int, noun: str, one: str = "was", more: str = "were") -> str:
    """Return a string such as "1 row was" or "3 rows were"."""
    return f"{count} {noun} {one}" if count == 1 else f"{count} {noun}s {more}"


def target_position(sheet: CellSheet, target: str | None) -> int:
    """Return the position of the column `target`, given by its name or by its number counted from
    0. If `target` is None, return the last position. Raise ValueError if there is no such column.
    """
    if target is None:
        return len(sheet.names) - 1
    if target in sheet.names:
        return sheet.names.index(target)
    if target.isdecimal() and int(target) < len(sheet.names):
        return int(target)
    alike = [name for name in sheet.names if name.lower() == target.lower()]
    close = [*alike, *get_close_matches(target, sheet.names, 1)]
    has = (
        one_line(", ".join(sheet.names), 400)
        if sheet.named
        else f"{len(sheet.names)} without names"
    )
    raise ValueError(
        f"target must be a column of {sheet.path}, got {one_line(target)!r}; its columns are {has}."
        + (f" Did you mean {one_line(close[0])!r}?" if close else "")
    )


def _read_targets(
    sheet: CellSheet, at: int, classes: bool | None
) -> tuple[np.ndarray, bool, list[str]]:
    """Return the targets (N,) in column `at` of the sheet, True if they are labels of classes, and
    a list of notes. If `classes` is None, the kind of the targets is determined from the cells.
    """
    cells = [row[at] for row in sheet.rows]
    named, where = f"{sheet.path}, column {one_line(sheet.names[at])!r},", cell_locator(sheet, at)
    values, bad, unit = parse_numbers_with_unit(cells, sheet.comma)
    _check_no_words_among_numbers(cells, bad, where)
    if bad and detect_date_format(cells, where):
        raise ValueError(
            f"{named} must hold numbers or classes to be the target, got dates. Write them as "
            "numbers, for example of days since the first date."
        )
    different = sorted(set(cells))
    if bad and classes is False:
        raise ValueError(f"{where(bad[0])} must be a number, got {one_line(cells[bad[0]])!r}.")
    if not bad:
        check_magnitudes(values, cells, where)
        _check_thousands_separators(cells, sheet.comma, where)
        different = np.unique(values).tolist()
    if len(different) < 2:
        raise ValueError(
            f"{named} must hold at least two different values to be the target, got "
            f"{one_line(different[0])!r} alone."
        )
    written_whole = all(cell.lstrip("+-").isdecimal() for cell in cells)
    few = len(different) <= min(MAX_CLASSES, len(cells) // MIN_ROWS_PER_CLASS)
    labels = bool(bad) or len(different) == 2 or (written_whole and few)
    labels = labels if classes is None else classes
    if not labels:
        return values, False, _ambiguous_number_notes(sheet.names[at], cells, values, unit)
    if len(different) > (most := max(2, len(cells) // 2)):
        raise ValueError(
            f"{named} must hold at most {most} classes in {len(cells)} rows, got "
            f"{len(different)}. Choose another column with --target."
        )
    longest = max(cells, key=len)
    if len(longest) > MAX_CLASS_LENGTH:
        raise ValueError(
            f"{named} must hold classes of at most {MAX_CLASS_LENGTH} characters, got "
            f"{one_line(longest)!r}. Shorten them."
        )
    whole = not bad and bool((values == np.round(values)).all()) and np.abs(values).max() < 2**53
    y = values.astype(np.int64) if whole else np.array(cells)
    if bad or classes is not None or len(different) == 2:
        return y, True, []
    note = (
        f"The {len(different)} whole numbers in column {one_line(sheet.names[at])!r} are classes; "
        "--loss mse predicts numbers."
    )
    return y, True, [note]


def cell_locator(sheet: CellSheet, column: int) -> Callable[[int], str]:
    return lambda row: sheet.cell_location(row, column)


def _check_no_words_among_numbers(
    cells: Cells, bad: list[int], where: Callable[[int], str]
) -> None:
    """Raise ValueError for a column of numbers in which a few cells hold words. `bad` holds the
    positions of the cells that are not numbers, and ``where(i)`` returns the place of cell i for
    messages.
    """
    if not bad:
        return
    present = sum(cell.lower() not in MISSING_NUMBER_CELLS for cell in cells)
    numbers = len(bad) <= MAX_TYPO_FRACTION * present
    if len(bad) <= present / 2 and len(set(cells)) > MAX_CATEGORIES:
        # Words such as <0.1 mean a value below the limit of detection.
        numbers |= len({cells[i] for i in bad}) <= MAX_CENSORED_WORDS
    if numbers:
        raise ValueError(
            f"{where(bad[0])} must be a number, as most cells of the column are, got "
            f"{one_line(cells[bad[0]])!r}. Correct it, or leave the cell empty."
        )


def check_magnitudes(values: np.ndarray, cells: Cells, where: Callable[[int], str]) -> None:
    """Raise ValueError if the largest magnitude in a column is above `MAX_COLUMN_MAGNITUDE`, or if
    it is not 0 and below `MIN_COLUMN_MAGNITUDE`, because fourth powers would overflow or underflow.
    ``where(i)`` returns the place of cell i for messages.
    """
    size = np.abs(values)
    if (size > MAX_COLUMN_MAGNITUDE).any() or 0 < np.nanmax(
        size, initial=0.0
    ) < MIN_COLUMN_MAGNITUDE:
        row = int(np.nanargmax(size))
        wanted = (
            f"at most {MAX_COLUMN_MAGNITUDE:g} in magnitude"
            if size[row] > 1
            else f"at least {MIN_COLUMN_MAGNITUDE:g} in magnitude"
        )
        raise ValueError(
            f"{where(row)} must be a number of {wanted}, got {one_line(cells[row])!r}. Correct "
            "it, or choose another unit for the column."
        )


def _check_thousands_separators(cells: Cells, comma: bool, where: Callable[[int], str]) -> None:
    """Raise ValueError for a column such as 850, 1.200, 2.350, whose marks can separate thousands
    or decimals. If the numbers had been rounded to three decimals, some of them would most likely
    show fewer decimals.
    """
    mark = "," if comma else "."
    marked = [i for i, cell in enumerate(cells) if mark in cell]
    whole = [cell for cell in cells if cell.lstrip("+-").isdecimal()]
    grouped = re.compile(rf"[+-]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+")
    if len(marked) < MIN_EVIDENCE_CELLS or not any(len(cell.lstrip("+-")) == 3 for cell in whole):
        return
    small = all(len(cell.lstrip("+-")) <= 3 for cell in whole)
    if small and all(grouped.fullmatch(cells[i]) for i in marked):
        cell = cells[marked[0]]
        raise ValueError(
            f"{where(marked[0])} must show whether {mark!r} marks thousands, as {whole[0]} in the "
            f"same column suggests, got {one_line(cell)!r}. Write {cell.replace(mark, '')}, or "
            f"{cell}0 for decimals."
        )


def _infer_column_codings(
    sheet: CellSheet, notes: list[str]
) -> tuple[tuple[ColumnCoding, ...], tuple[bool, ...]]:
    """Return the `ColumnCoding` of each column, and for each column True if it has missing values
    to fill. Add notes on ambiguous numbers, and on columns that are ignored, to `notes`.
    """
    codes, gaps, why = [], [], dict[str, list[str]]()
    columns = list(zip(*sheet.rows))
    for i, (name, cells) in enumerate(zip(sheet.names, columns)):
        code, reason, has_gaps = _infer_column_coding(
            name, cells, sheet.comma, cell_locator(sheet, i), notes
        )
        codes.append(code)
        gaps.append(has_gaps)
        if reason:
            why.setdefault(reason, []).append(name)
        if code.kind == "dates":
            what, first = "Dates", code.first
            if code.form in TIME_FORMATS:
                what, first = "Times", first.partition("T")[2] or "00:00:00"
            elif code.form == DURATION_FORMAT:
                what, first = "Durations", "the shortest, read as hours and minutes"
            notes.append(f"{what} in column {one_line(name)!r} are counted in days from {first}.")
    only = [i for i, name in enumerate(sheet.names) if name in why.get(ROW_NUMBERS_REASON, [])]
    if all(code.kind == "left out" for code in codes) and len(only) == 1:
        # A single remaining column may be the time of a time series, so it is kept.
        codes[only[0]] = ColumnCoding(sheet.names[only[0]], "numbers")
        del why[ROW_NUMBERS_REASON]
    for reason, names in why.items():
        begin = columns_phrase(names).replace("column", "Column", 1)
        begin += " were" if len(names) > 1 else " was"
        many = (" it only numbers ", " it has "), (" they only number ", " they have ")
        words = reason
        if len(names) > 1:
            for one, several in zip(*many):
                words = words.replace(one, several)
        notes.append(f"{begin} ignored, {words}.")
    if all(code.kind == "left out" for code in codes):
        raise ValueError(
            f"{sheet.path} must have a column to predict from, got only columns that are constant, "
            f"identifiers or free text: {one_line(', '.join(sheet.names), 200)}."
        )
    for code, cells in zip(codes, columns):
        count = len(set(map(normalise_word, cells))) if code.kind == "words" else 0
        if count > MAX_CATEGORIES:
            notes.append(
                f"Column {one_line(code.name)!r} has {count} different words; the {MAX_CATEGORIES} "
                "most frequent ones are inputs."
            )
    return tuple(codes), tuple(gaps)


ROW_NUMBERS_REASON = "because it only numbers the rows"
# reasons why a column is ignored
CONSTANT_COLUMN_REASON, EMPTY_COLUMN_REASON = (
    "because it has the same value in all rows",
    "because it has no values",
)
LONG_TEXT_REASON = f"because it has text of more than {MAX_WORD_LENGTH} characters"
IDENTIFIER_COLUMN_REASON = (
    "because it has another value in nearly every row, as an identifier or a text has"
)


def _infer_column_coding(
    name: str, cells: Cells, comma: bool, where: Callable[[int], str], notes: list[str]
) -> tuple[ColumnCoding, str, bool]:
    """Return the `ColumnCoding` of a column, the reason why the column is ignored or "", and True
    if it has missing values. Add notes on ambiguous numbers to `notes`.
    """
    values, bad, unit = parse_numbers_with_unit(cells, comma)
    _check_no_words_among_numbers(cells, bad, where)
    left_out = ColumnCoding(name)
    if not bad:
        check_magnitudes(values, cells, where)
        _check_thousands_separators(cells, comma, where)
        present = values[~np.isnan(values)]
        different = np.unique(present)
        if different.size < 2:
            return left_out, CONSTANT_COLUMN_REASON if present.size else EMPTY_COLUMN_REASON, False
        if different.size == len(cells) and bool((different == np.round(different)).all()):
            counts = bool((np.diff(values) == 1).all()) and values[0] in (0, 1)
            if counts or name in INDEX_COLUMN_NAMES or IDENTIFIER_NAME_PATTERN.search(name):
                return left_out, ROW_NUMBERS_REASON if counts else IDENTIFIER_COLUMN_REASON, False
        notes += _ambiguous_number_notes(name, cells, values, unit)
        return ColumnCoding(name, "numbers", form=unit), "", present.size < len(cells)
    form = detect_date_format(cells, where)
    if form:
        days = [
            parse_date(cell, form) for cell in cells if cell.lower() not in MISSING_NUMBER_CELLS
        ]
        first = min(days).isoformat().removesuffix("T00:00:00")
        code = ColumnCoding(name, "dates", form=form, first=first)
        if len(set(days)) < 2:
            return left_out, CONSTANT_COLUMN_REASON, False
        return code, "", len(days) < len(cells)
    counts_of = Counter(map(normalise_word, cells))
    if len(counts_of) < 2:
        return left_out, CONSTANT_COLUMN_REASON, False
    if max(map(len, counts_of)) > MAX_WORD_LENGTH:
        return left_out, LONG_TEXT_REASON, False
    if len(counts_of) > max(MIN_TABLE_ROWS // 2, len(cells) // 2):
        return left_out, IDENTIFIER_COLUMN_REASON, False
    frequent = sorted(counts_of, key=lambda word: (-counts_of[word], word))[:MAX_CATEGORIES]
    return ColumnCoding(name, "words", categories=tuple(sorted(frequent))), "", False


# numbers that often mean a missing value
MISSING_VALUE_CODES = {-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, 99.0, 999.0, 9999.0, 99999.0}


def _ambiguous_number_notes(name: str, cells: Cells, values: np.ndarray, unit: str) -> list[str]:
    """Return notes on the meaning that was assumed for ambiguous numbers."""
    name, notes = repr(one_line(name)), []
    if unit:
        notes.append(f"Cells of column {name} were read as numbers in {one_line(unit)}.")
    ends = {float(np.fmin.reduce(values)), float(np.fmax.reduce(values))}
    present = values[~np.isnan(values)] if ends & MISSING_VALUE_CODES else values[:0]
    different, counts = np.unique(present, return_counts=True)
    for gap, count, others in (
        (different[:1], counts[:1], different[1:]),
        (different[-1:], counts[-1:], different[:-1]),
    ):
        if others.size < MIN_EVIDENCE_CELLS or gap[0] not in MISSING_VALUE_CODES or count[0] < 2:
            continue
        if np.abs(others - gap[0]).min() > others[-1] - others[0]:
            notes.append(
                f"{count[0]} cells of column {name} are {gap[0]:g}, far from all others. If "
                f"{gap[0]:g} means that a value is missing, leave these cells empty."
            )
    if any(cell[:1] == "0" for cell in cells) and all(map(str.isdecimal, cells)):
        padded = next((cell for cell in cells if len(cell) > 2 and cell[0] == "0"), None)
        if padded and len(set(map(len, cells))) == 1:
            notes.append(
                f"Column {name} holds codes such as {one_line(padded)}, which were read as "
                "numbers. Write a letter before each to use them as words."
            )
    return notes


def ambiguous_mark_notes(sheet: CellSheet, least: int = MIN_EVIDENCE_CELLS) -> list[str]:
    """Return a note on the columns with at least `least` numbers whose mark can separate thousands
    or decimals, if no number of the table shows which.
    """
    names, cell = [], ""
    for name, cells in zip(sheet.names, zip(*sheet.rows)) if sheet.ambiguous else ():
        marked = [c for c in cells if AMBIGUOUS_NUMBER_PATTERN.fullmatch(c.strip(UNIT_CHARACTERS))]
        if len(marked) >= least:
            names.append(name)
            cell = cell or marked[0]
    if not names:
        return []
    decimal = sheet.comma == ("," in cell)
    read, cure = "of decimals", "If it is of thousands, leave it out"
    if not decimal:
        read, cure = "of thousands", "If it is of decimals, write a point"
    return [
        f"The mark in numbers such as {one_line(cell)} in {columns_phrase(names)} was read as one "
        f"{read}, which no other number of the table shows. {cure}."
    ]


def columns_phrase(names: Sequence[str]) -> str:
    """Return a string such as "column 'a'" or "columns 'a', 'b' and 7 more"."""
    some = ", ".join(repr(one_line(name)) for name in names[:MAX_NAMED_COLUMNS])
    more = f" and {len(names) - MAX_NAMED_COLUMNS} more" if len(names) > MAX_NAMED_COLUMNS else ""
    return f"column{'s' * (len(names) > 1)} {some}{more}"


def normalise_word(cell: str) -> str:
    """Return the word in a cell, or "" for every word that means a missing value."""
    return "" if cell.lower() in MISSING_CELLS else cell
