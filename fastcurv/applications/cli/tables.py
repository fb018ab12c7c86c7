"""Tables of a user, opened by pandas: from a file or a DataFrame to named columns of text.

Every cell is text here, also those of files that store numbers, and `cells` determines its meaning.
Lines of unequal length and a first line without a clear meaning raise ValueError, because pandas
would fill short lines and drop or shift columns without a message.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import closest_name, one_line
from ...common.files import expand_home, raise_if_special_file
from ...common.optional import optional_import
from .cells import (
    NO_OPTIONS,
    Column,
    ReadingOptions,
    column_of_cells,
    import_pandas,
    is_missing,
    is_plain_number,
)
from .data import (
    FRAME_ENGINES,
    WORKBOOK_ENGINES,
    FileError,
    max_unpacked_bytes,
    resolve_existing_path,
)

SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# number of lines, and of cells, from which the separator is detected
N_FIRST_LINES, N_FIRST_CELLS = 50, 2000
# maximum number of rows that are compared with the first line, and minimum number that show how far
# outside of their range its numbers are
MAX_HEADER_ROWS, MIN_HEADER_ROWS = 10_000, 5
MAX_COLUMNS = 100_000  # maximum number of columns of a table
MIN_SHEET_CELLS = 1 << 22  # number of cells up to which a sheet may have any form
MAX_SHEET_BYTES = 1 << 30  # maximum number of bytes that the packed contents of a file may take
MIN_TABLE_ROWS = 10  # minimum number of rows; with fewer, scores of left-out rows are meaningless
MAX_NAMED_COLUMNS = 5  # maximum number of columns named in a message


@dataclass(frozen=True)
class Sheet:
    """The columns of a table as text, with the place of each row for messages.

    Attributes
    ----------
    source : str
        The path of the file, or "the DataFrame".
    names : tuple of str
        A different name for each column.
    named : bool
        False if the table has no names, so that they are "column 0", "column 1", ...
    columns : tuple of Column
        The cells of each column. `Column.unique` holds the different cells without blanks around
        them, and "" for cells without a value.
    lines : ndarray (N,)
        For each row, the number of the line in the file where the row begins, or the label of the
        row in the DataFrame.
    unit : str
        The word before the number of a row, "line" or "row".
    separator : str
        The separator of cells in a text file, otherwise "".
    notes : tuple of str
        Sentences on the encoding and on the names.
    """

    source: str
    names: tuple[str, ...]
    named: bool
    columns: tuple[Column, ...]
    lines: np.ndarray
    unit: str = "line"
    separator: str = ""
    notes: tuple[str, ...] = ()

    def take(self, rows: Any) -> Sheet:
        """Return the sheet of some rows, given as an index or a mask."""
        lines = self.lines[rows]
        columns = tuple(column.take(rows, lines) for column in self.columns)
        return replace(self, columns=columns, lines=lines)

    def without(self, position: int) -> Sheet:
        """Return the sheet without the column at a position."""
        kept = [i for i in range(len(self.names)) if i != position]
        names = tuple(self.names[i] for i in kept)
        return replace(self, names=names, columns=tuple(self.columns[i] for i in kept))

    def find_column(self, name: str, argument: str) -> int:
        """Return the position of a column, given by its name or by its number counted from 0. Raise
        ValueError, which begins with the name of the argument, if there is no such column.
        """
        if name in self.names:
            return self.names.index(name)
        if name in map(str, range(len(self.names))):
            return int(name)
        alike = (other for other in self.names if other.lower() == name.lower())
        near = next(alike, None) or closest_name(name, self.names)
        listed = one_line(", ".join(self.names), 400)
        listed = listed if self.named else f"{len(self.names)} without names"
        raise ValueError(
            f"{argument} must be a column of {self.source}, got {one_line(name)!r}; its columns "
            f"are {listed}." + (f" Did you mean {one_line(near)!r}?" if near else "")
        )


def open_table(
    source: Any,
    options: ReadingOptions = NO_OPTIONS,
    *,
    least: int = 2,
    known_names: Collection[str] = (),
) -> Sheet:
    """Open a table.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
        A file whose name ends in one of `TABLE_SUFFIXES`, or the table itself.
    options : ReadingOptions
        The sheet of a workbook, and whether the first line has names.
    least : int
        Minimum number of columns.
    known_names : collection of str
        Names of columns of which the first line, if it has names, has all.

    Returns
    -------
    Sheet

    Raises
    ------
    ValueError
        If the source is no table, or its first line, its sheet, or the number of cells in a line is
        not clear. The message names the line and the cure.
    ImportError
        If pandas, or the package that reads the format, is not installed.
    """
    pd = import_pandas()
    if isinstance(source, pd.DataFrame):
        return _sheet_of_frame("the DataFrame", source, "row", np.asarray(source.index))
    path = resolve_existing_path(expand_home(source))
    raise_if_special_file(path)
    kind = path.suffix.lower()
    notes: tuple[str, ...] = ()
    separator = ""
    # The packages raise errors of their own for damaged files.
    errors = ValueError if kind not in (*FRAME_ENGINES, *WORKBOOK_ENGINES) else Exception
    try:
        if kind in FRAME_ENGINES:
            frame = _read_frame(path, kind)
            return _sheet_of_frame(str(path), frame, "row", np.arange(1, len(frame) + 1))
        if kind in WORKBOOK_ENGINES:
            columns = _read_workbook(path, kind, options.sheet)
            lines = np.arange(1, 1 + len(columns[0]) if columns else 1)
        else:
            columns, lines, separator, notes = _read_text_table(path)
    except (MemoryError, ImportError, FileError):
        raise
    except errors as error:
        words = (one_line(error, 200) or type(error).__name__).rstrip(".")
        raise ValueError(f"{path} cannot be read as a {kind} file: {words}.") from None
    filled = np.zeros(len(lines), bool)
    for cells in columns:
        filled |= cells != ""
    columns, lines = [cells[filled] for cells in columns], lines[filled]
    if not len(lines):
        raise ValueError(f"{path} must hold a table, got an empty file.")
    named = _has_names(path, columns, lines[0], options.header, known_names)
    header = [str(cells[0]) if named else "" for cells in columns]
    header[0] = header[0].removeprefix("#").strip() or header[0]
    titles = sum(map(bool, header))
    if named and titles == 1 and len(header) > 2:
        raise ValueError(
            f"{path}, line {lines[0]}, must have a name for each of {len(header)} columns, got "
            "1. Remove the lines above the names."
        )
    columns, lines = [cells[named:] for cells in columns], lines[named:]
    used = [i for i, cells in enumerate(columns) if header[i] or any(cells)]
    if len(used) < least:
        raise ValueError(
            f"{path} must have at least two columns, separated by commas, semicolons or tabs, got "
            f"{len(used)}."
        )
    blank = "Unnamed: {}" if named else "column {}"  # names in the form that pandas uses
    names, more = _distinct_names([header[i] or blank.format(i) for i in used])
    made = [column_of_cells(n, columns[i], str(path), lines) for n, i in zip(names, used)]
    return Sheet(str(path), names, named, tuple(made), lines, "line", separator, (*notes, *more))


def _sheet_of_frame(source: str, frame: Any, unit: str, lines: np.ndarray) -> Sheet:
    names, notes = _distinct_names([str(name).strip() for name in frame.columns])
    columns = []
    for i, name in enumerate(names):
        series = frame.iloc[:, i]
        words = str(series.dtype) == "category" and series.cat.categories.dtype.kind not in "iuf"
        cells = _text_cells(series.to_numpy(dtype=object))
        columns.append(column_of_cells(name, cells, source, lines, unit, words))
    return Sheet(source, names, True, tuple(columns), lines, unit, notes=notes)


def _distinct_names(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names with .1, .2, ... after second columns of one name, as pandas writes them,
    and a note on them.
    """
    counts, made = Counter[str](), list[str]()
    for name in names:
        new = name
        while new in made or (new != name and new in names):
            counts[name] += 1
            new = f"{name}.{counts[name]}"
        made.append(new)
    if not counts:
        return tuple(made), ()
    name = next(iter(counts))
    noted = f"Several columns are named {one_line(name)!r}. The second is {f'{name}.1'!r} here."
    return tuple(made), (noted,)


# --------------------------------------------------------------------------------------------------
# Files with types.


def _text_cells(cells: np.ndarray) -> np.ndarray:
    """Return the cells of a column of Python objects as text, and "" for missing values."""
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [cell.strip() if type(cell) is str else _cell_text(cell) for cell in cells]
    return texts


def _cell_text(cell: Any) -> str:
    """Return the text of a cell such that `cells` reads the value that the file stores."""
    if cell is None or cell != cell or type(cell).__name__ in ("NaTType", "NAType"):
        return ""
    if isinstance(cell, (float, np.floating)):
        number = float(cell)
        if number.is_integer() and abs(number) < 1e15:
            return str(int(number))
        text = repr(number)
        # Four decimals show that the point is not one of thousands.
        return f"{text}0" if re.fullmatch(r"-?\d{1,3}\.\d{3}", text) else text
    if isinstance(cell, timedelta):
        seconds = cell.total_seconds()
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{seconds % 60:09.6f}"
    if isinstance(cell, (date, time)):
        return cell.isoformat().removesuffix("T00:00:00")
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    return str(cell).strip()


FRAME_READERS = {
    ".parquet": "read_parquet",
    ".feather": "read_feather",
    ".dta": "read_stata",
    ".sav": "read_spss",
}


def _check_unpacked_size(path: Path, n_bytes: int) -> None:
    limit = min(max_unpacked_bytes(path), MAX_SHEET_BYTES)
    if n_bytes > limit:
        raise FileError(
            f"{path} must unpack to at most {limit} bytes, as its size permits, got more. Write "
            "the table as a .csv file."
        )


def _import_package(name: str, kind: str) -> Any:
    with optional_import(f"{kind} files"):
        return import_module(name)


def _read_frame(path: Path, kind: str) -> Any:
    """Return the DataFrame in a file that stores the types of its columns."""
    _import_package(FRAME_ENGINES[kind], kind)
    read = getattr(import_pandas(), FRAME_READERS[kind])
    if kind == ".parquet":
        facts = import_module("pyarrow.parquet").read_metadata(path)
        stored = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        _check_unpacked_size(path, max(stored, facts.num_rows * facts.num_columns))
    elif kind == ".feather":
        feather, n_bytes = import_module("pyarrow.feather"), 0
        for name in feather.read_table(path, columns=[]).schema.names:
            n_bytes += feather.read_table(path, columns=[name]).nbytes
            _check_unpacked_size(path, n_bytes)
    try:
        return read(path)
    except ValueError:
        if kind not in (".dta", ".sav"):
            raise
        # Labels that occur twice cannot become categories.
        return read(path, convert_categoricals=False)


def _read_workbook(path: Path, kind: str, sheet: str | None) -> list[np.ndarray]:
    """Return the columns of a sheet of a workbook as text, with the first line."""
    pd = import_pandas()
    _import_package(WORKBOOK_ENGINES[kind], kind)
    with zipfile.ZipFile(path) as archive:
        _check_unpacked_size(path, sum(entry.file_size for entry in archive.infolist()))
        for entry in archive.infolist():
            if entry.filename.startswith("xl/worksheets/") or entry.filename == "content.xml":
                _check_sheet_area(path, archive.read(entry))
    with pd.ExcelFile(path, engine=WORKBOOK_ENGINES[kind]) as book:
        names = list(map(str, book.sheet_names))
        listed = one_line(", ".join(names), 400)
        if sheet is None and len(names) > 1:
            raise FileError(f"{path} must have one sheet, got {listed}. Choose one with --sheet.")
        chosen = names[0] if sheet is None else sheet
        if chosen not in names and chosen in map(str, range(len(names))):
            chosen = names[int(chosen)]
        if chosen not in names:
            raise FileError(f"{path} must have the sheet {one_line(chosen)!r}, got {listed}.")
        frame = pd.read_excel(book, chosen, header=None, dtype=object, na_filter=False)
    return [_text_cells(frame[i].to_numpy(dtype=object)) for i in frame.columns]


_CELL_PLACE_PATTERN = re.compile(rb"\br=[\"']([A-Z]{1,3})(\d{1,7})[\"']")
# rows and cells with a value that an OpenDocument sheet repeats
_REPEATED_PATTERN = re.compile(
    rb'<table:table-row\b[^>]*rows-repeated="(\d+)"[^>]*>(?:(?!</table:table-row).)*office:value|'
    rb'<table:table-cell\b(?=[^>]*office:value)[^>]*columns-repeated="(\d+)"',
    re.DOTALL,
)


def _check_sheet_area(path: Path, xml: bytes) -> None:
    """Raise ValueError if the smallest rectangle with all cells of a sheet has more cells than the
    text can hold, since pandas would fill it.
    """
    height = width = 0
    for match in _CELL_PLACE_PATTERN.finditer(xml):
        column = 0
        for letter in match[1]:
            column = 26 * column + letter - 64
        width, height = max(width, column), max(height, int(match[2]))
    n_repeated = sum(
        int(match[1] or match[2]) * match[0].count(b"<table:table-cell")
        for match in _REPEATED_PATTERN.finditer(xml)
    )
    if max(width * height, n_repeated) > max(len(xml), MIN_SHEET_CELLS):
        raise FileError(
            f"{path} must have its cells side by side, got a sheet of {height} rows and {width} "
            f"columns and {n_repeated} repeated cells. Delete what only looks empty."
        )


# --------------------------------------------------------------------------------------------------
# Text: encoding, separator, and lines of one length.

# first bytes of files that are not text but are often named like tables
FOREIGN_FILE_SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or an archive. If it is a workbook, name it .xlsx",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save it as .xlsx",
    b"PAR1": "a Parquet file. Name it .parquet",
    b"%PDF": "a PDF file. Save the table as 'CSV UTF-8'",
}
GZIP_SIGNATURE = b"\x1f\x8b"  # first bytes of a file compressed by gzip
_CONTROL_PATTERN = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # control characters that no text has
_JSON_START_PATTERN = re.compile(r"\s*(\[\s*[\[{]|\{\s*\")")
_HTML_START_PATTERN = re.compile(r"\s*<(!doctype|\?xml|html)", re.IGNORECASE)


def _read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file with line ends as one character, without a byte-order mark, and a
    note on its encoding if that is neither UTF-8 nor UTF-16.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from None
    if raw.startswith(GZIP_SIGNATURE):
        limit = min(max_unpacked_bytes(path), MAX_SHEET_BYTES)
        try:
            with gzip.open(io.BytesIO(raw)) as file:
                raw = file.read(limit + 1)
        except (OSError, EOFError, zlib.error):
            raise FileError(
                f"{path} cannot be read, because its gzip data are damaged or truncated. Compress "
                "the table again."
            ) from None
        _check_unpacked_size(path, len(raw))
    for start, what in FOREIGN_FILE_SIGNATURES.items():
        if raw.startswith(start):
            raise FileError(f"{path} must hold a table as text, got {what}.")
    notes: tuple[str, ...] = ()
    text = ""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        with suppress(UnicodeDecodeError):
            text = raw.decode("utf-16")
    if not text:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            text, notes = _decode_windows_text(path, raw, error.start)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FileError(
            f"{path}, line {line}, must be text, got a NUL byte. Save the table as 'CSV UTF-8'."
        )
    for pattern, what in (
        (_JSON_START_PATTERN, "JSON"),
        (_HTML_START_PATTERN, "a page in HTML or XML"),
    ):
        if pattern.match(text):
            raise FileError(f"{path} must hold a table as text, got {what}. Write it as CSV.")
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
    raise FileError(
        f"{path}, line {line}, must be text in UTF-8, got the byte 0x{raw[place]:02x}. "
        "Save the table as 'CSV UTF-8'."
    )


def _read_text_table(path: Path) -> tuple[list[np.ndarray], np.ndarray, str, tuple[str, ...]]:
    """Return the columns of a text file, with the cells of the first line, the number of the line
    where each row begins, the separator, and notes on the encoding.
    """
    pd = import_pandas()
    text, notes = _read_text(path)
    marked = re.match(r"sep=([,;\t|])\n", text)  # Excel may write this line first.
    first = 2 if marked else 1
    text = text[marked.end() :] if marked else text
    mark = marked[1] if marked else _detect_separator(text, path.name.lower().removesuffix(".gz"))
    lengths, lines, blank, comments, quoting = _measure_lines(path, text, mark, first)
    if blank.all():
        raise FileError(f"{path} must hold a table, got an empty file.")
    usual = Counter(lengths[~blank].tolist()).most_common(1)[0][0]
    gone = comments & (lengths != usual)
    if gone.any():
        physical = text.split("\n")
        ends = np.append(lines[1:], first + len(physical))
        for begin, end in zip(lines[gone], ends[gone]):
            physical[begin - first : end - first] = [""] * (end - begin)
        text = "\n".join(physical)
        lengths, lines, blank, _, quoting = _measure_lines(path, text, mark, first)
    kept = ~blank
    shift = _check_line_lengths(path, lengths[kept], lines[kept], mark)
    width = int(lengths[kept].max())
    if width > MAX_COLUMNS:
        raise FileError(f"{path} must have at most {MAX_COLUMNS} columns, got {width}.")
    frame = pd.read_csv(
        io.BytesIO(text.encode("utf-8", "surrogatepass")),
        sep=mark,
        header=None,
        names=range(width),
        dtype=object,
        index_col=False,
        keep_default_na=False,
        na_filter=False,
        skip_blank_lines=False,
        skipinitialspace=True,
        quoting=quoting,
        skiprows=np.flatnonzero(blank),
    )
    if frame.shape != (kept.sum(), width):
        raise FileError(
            f"{path} must have {kept.sum()} rows of {width} cells, got {frame.shape}. Write the "
            "table again as 'CSV UTF-8'."
        )
    columns = [frame[i].to_numpy(dtype=object) for i in range(width)]
    if shift:
        names = [*(cells[0] for cells in columns[:-1]), ""]
        if any(columns[-1][1:]):  # R writes no name above a column of row names.
            names = ["", *names[:-1]]
        columns = [np.append([name], cells[1:]) for name, cells in zip(names, columns)]
    return columns, lines[kept], mark, notes


def _measure_lines(
    path: Path, text: str, mark: str, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return four arrays with an entry for each row: the number of its cells, the line where it
    begins, True if all cells are blank, and True if the first cell begins with #; and the quoting
    for the csv module. `first` is the number of the first line.
    """
    raw = np.frombuffer(f"{text}\n".encode("utf-8", "surrogatepass"), np.uint8)
    newlines, marks = np.flatnonzero(raw == ord("\n")), np.flatnonzero(raw == ord(mark))
    quotes = np.flatnonzero(raw == ord('"'))
    ends, quoting = newlines, csv.QUOTE_MINIMAL
    before, begins = raw[quotes - 1], [ord(mark), ord("\n")]
    opens = (quotes == 0) | np.isin(before, begins)
    opens |= (before == ord(" ")) & ((quotes == 1) | np.isin(raw[quotes - 2], begins))
    if quotes.size and not opens.any():
        quoting = csv.QUOTE_NONE  # Quotes within cells, such as 5", are characters.
    elif quotes.size:
        opening, closing = quotes[::2], quotes[1::2]
        odd = [*opening[~(opens | (before == ord('"')))[::2]], *opening[closing.size :]]
        odd += [*closing[~np.isin(raw[closing + 1], [*begins, ord('"')])]]
        if odd:
            raise FileError(
                f"{path}, line {first + np.searchsorted(newlines, min(odd))}, must have its double "
                "quotes in pairs around whole cells. Write two within a cell."
            )
        ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
    starts = np.append(0, ends[:-1] + 1)
    if starts[-1] == ends[-1]:  # the text ends with a new line
        starts, ends = starts[:-1], ends[:-1]
    lengths = np.searchsorted(marks, ends) - np.searchsorted(marks, starts) + 1
    blank = np.isin(raw[starts], [ord(c) for c in f'{mark} \t\n"'])
    for i in np.flatnonzero(blank).tolist():
        blank[i] = not raw[starts[i] : ends[i]].tobytes().strip(f'{mark} \t"'.encode())
    lines = first + np.searchsorted(newlines, starts)
    return lengths, lines, blank, raw[starts] == ord("#"), quoting


def _check_line_lengths(path: Path, lengths: np.ndarray, lines: np.ndarray, mark: str) -> bool:
    """Raise ValueError if lines have different numbers of cells. Return True if only the first line
    is shorter, by one cell, and the other lines do not end with a separator.
    """
    width, others = int(lengths[0]), lengths[1:]
    if (others == width).all():
        return False
    if others.size and (others == width + 1).all() and width > 1:
        return True
    alike = len(lengths) > MIN_TABLE_ROWS and (lengths[MIN_TABLE_ROWS // 2 :] == lengths[-1]).all()
    if alike and lengths[-1] != width:
        raise FileError(
            f"{path}, line {lines[0]}, must have a name for each of {lengths[-1]} columns, got "
            f"{width}. Remove the lines above the names."
        )
    i = int(np.argmax(lengths != width))
    raise FileError(
        f"{path}, line {lines[i]}, must have {width} columns, as the first line has, got "
        f"{lengths[i]}. Put cells that contain {SEPARATOR_NAMES.get(mark, mark)} in double quotes."
    )


def _detect_separator(text: str, name: str) -> str:
    """Return the separator that splits the first lines into equal numbers of columns, at least two.
    Of several such separators, return the one whose cells are most often numbers or contain no
    other separator. `name` is the name of the file, whose suffix decides between equal separators.
    """
    sample = list(_first_lines(text))
    usual = "\t" if name.endswith(".tsv") else ","
    best, highest = usual, -1.0
    for mark in sorted(SEPARATOR_NAMES, key=lambda mark: mark != usual):
        try:
            rows = [row for row in csv.reader(sample, delimiter=mark, skipinitialspace=True) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        n_rows = max(3, N_FIRST_CELLS // len(rows[0]))
        cells = [cell for row in rows[:n_rows] for cell in row[:N_FIRST_CELLS]]
        others = [other for other in SEPARATOR_NAMES if other != mark]
        good = sum(
            1.0
            if is_missing(cell) or is_plain_number(cell, "." if mark == "," else ",")
            else 0.9 * (not any(other in cell for other in others))
            for cell in map(str.strip, cells)
        )
        alike = len({len(row) for row in rows}) == 1
        if (score := good / len(cells) + alike) > highest + 1e-9:
            best, highest = mark, score
    return best


def _first_lines(text: str) -> Iterator[str]:
    """Yield the first lines of a text that are not blank, including their line ends."""
    count = start = 0
    while count < N_FIRST_LINES and start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        if text[start:end].strip():
            yield text[start:end]
            count += 1
        start = end


# --------------------------------------------------------------------------------------------------
# Names.


def _has_names(
    path: Path,
    columns: Sequence[np.ndarray],
    line: int,
    header: str | None,
    known_names: Collection[str],
) -> bool:
    """Return True if the first cells of the columns are names, as `header` ("yes" or "no") says or
    as the cells below show. Raise ValueError if neither is clear.

    Names are a word above numbers, words that do not occur again above words that do, and numbers
    far outside the range of the numbers below, like wavelengths above a spectrum.
    """
    if header is not None:
        return header == "yes"
    first = [str(cells[0]).strip() for cells in columns]
    bodies = [cells[1 : MAX_HEADER_ROWS + 1] for cells in columns]
    if known_names and set(known_names) <= {first[0].removeprefix("#").strip(), *first}:
        return True
    if not bodies[0].size:
        return not any(is_plain_number(cell, ".") for cell in first)
    if not first[0] and list(bodies[0]) == [str(i) for i in range(len(bodies[0]))]:
        return True  # pandas writes an empty name above an index
    numbers, n_far, n_inside, n_new, n_repeated = [], 0, 0, 0, 0
    for name, body in zip(first, bodies):
        values = _plain_numbers(body)
        number = _plain_numbers(np.array([name], dtype=object))
        if number is not None and not np.isnan(number[0]):
            numbers.append(float(number[0]))
            if values is None or np.isnan(values).all():
                continue
            low, high = np.nanmin(values), np.nanmax(values)
            distance = max(low - numbers[-1], numbers[-1] - high)
            n_inside += distance <= 0
            n_far += distance > high - low > 0 and values.size >= MIN_HEADER_ROWS
        elif not is_missing(name):
            if values is not None:
                if re.match(r"\W*\d", name) is None and not np.isnan(values).all():
                    return True
            elif name in body:
                n_repeated += 1
            else:
                n_new += len(set(body)) <= max(1, len(body) // 2)
    steps = np.diff(numbers)
    if numbers:
        in_order = len(numbers) > 2 and ((steps > 0).all() or (steps < 0).all())
        evenly = in_order and np.allclose(steps, steps[0])
        counted = numbers == list(range(len(first))) and len(first) > 4  # as pandas names columns
        if not n_repeated and n_far == len(numbers) and (len(numbers) > 2 or n_new):
            return True
        if not n_repeated and (counted or (evenly and not n_inside)):
            return True
        if not n_repeated and n_new and 2 * n_far > len(numbers):
            return True
        like_names = n_new > 0 and (evenly or (in_order and not n_inside))
        doubtful = like_names or (evenly and len(numbers) > 3) or 2 * n_far > len(numbers)
        if not doubtful or (n_repeated and not n_far):
            return False
    elif not (n_new and n_repeated):
        return not n_repeated
    raise ValueError(
        f"{path}, line {line}, must be names or data, got cells that can be either: "
        f"{one_line(', '.join(first[:MAX_NAMED_COLUMNS]), 200)}. Use --header yes or --header no."
    )


def _plain_numbers(cells: np.ndarray) -> np.ndarray | None:
    """Return the numbers of some cells, with NaN for missing values, or None if there are words."""
    texts = [cell.strip("%$\u20ac\u00a3 ").replace(",", ".") for cell in cells.tolist()]
    with suppress(ValueError):
        return np.array([math.nan if is_missing(t, numbers=True) else float(t) for t in texts])
    return None
