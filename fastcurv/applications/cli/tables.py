"""Tables of users, read by pandas in a child process whose memory and processor time are limited.

A column is numbers, dates or words. Cells that could be read in two ways are refused with their
lines and the options that decide. The child returns arrays and JSON, never a pickle, and what it
prints is discarded.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import closest_name, one_line
from ...common.files import expand_home, raise_if_special_file
from ...common.optional import optional_import

# maximum memory above that of the imports, and processor time, for a table with --limit 1
MEMORY_BYTES, CPU_SECONDS = 512 << 20, 10
MIN_TABLE_ROWS = 10  # minimum number of rows for a report
MAX_NUMBER = 1e75  # maximum magnitude of a number; its powers in a fit are finite
MAX_WHOLE_NUMBER = 2**53  # largest magnitude up to which float64 holds all whole numbers
N_SHOWN_CELLS = 3  # number of cells in a message
MIN_SUMMED_ROWS = 3  # minimum number of rows that a row of sums adds up
TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".xlsx", ".parquet")
# Key: the suffix of another format. Value: the function of pandas that reads it.
OTHER_READERS = {
    ".dta": "read_stata", ".feather": "read_feather", ".sav": "read_spss", ".ods": "read_excel",
    ".xls": "read_excel", ".xlsb": "read_excel", ".json": "read_json", ".sas7bdat": "read_sas",
    ".html": "read_html", ".orc": "read_orc", ".xml": "read_xml",
}  # fmt: skip
MIN_PYARROW = (14, 0, 1)  # earlier versions run code from files
ISO_PATTERN = (
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?"
    r"(?P<zone> ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?"
)
SUM_WORD_PATTERN = r"\W*(?:grand |sub[- ]?)?(?:total|sum|summe|gesamt|somme|suma|totale)s?\W*"
LABEL_PATTERN = r"[^\W\d_][\w-]*"  # a cell of the target that names a class, such as class_0
IDENTIFIER_PATTERN = r"(?:unnamed: 0|index|row[ _.]?names?|row|obs|case|no|nr|#|.*(?:id|no|nr)\.?)"
CHILD_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from fastcurv.applications.cli.tables import run_child; run_child(sys.argv[2])"
)


@dataclass(frozen=True)
class ReadingOptions:
    """The options of the shell on how a table is read. `limit` multiplies the limits of memory and
    time.
    """

    sheet: str | None = None
    sep: str | None = None
    decimal: str = "."
    header: bool = True
    na: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    limit: float = 1.0


@dataclass(frozen=True)
class Column:
    """A column of a table: `values` (N,) are numbers, days since 1970 for dates, or for words the
    places of the cells in `words`. An empty cell is NaN, or -1 for words.
    """

    name: str
    kind: str  # "numbers", "dates" or "words"
    values: np.ndarray
    words: tuple[str, ...] = ()

    @property
    def is_missing(self) -> np.ndarray:
        return np.asarray(self.values < 0 if self.kind == "words" else np.isnan(self.values))

    def cells(self) -> list[Any]:
        """Return the cells for a page: numbers, words or ISO dates."""
        if self.kind == "words":
            return [self.words[i] if i >= 0 else "" for i in self.values.tolist()]
        if self.kind == "dates":
            seconds = np.nan_to_num(self.values * 86400.0).astype("datetime64[s]")
            cells = [str(time).removesuffix("T00:00:00") for time in seconds]
            return [cell * (not empty) for cell, empty in zip(cells, self.is_missing)]
        return list(self.values.tolist())


@dataclass(frozen=True)
class Table:
    """A table: its columns, the place of each row, such as "line 9", and notes on how it was
    read.
    """

    name: str
    columns: list[Column]
    places: list[str]
    notes: tuple[str, ...] = ()

    def select(self, rows: Any) -> Table:
        """Return the table with some of the rows, given as a mask."""
        columns = [replace(c, values=c.values[rows]) for c in self.columns]
        places = [self.places[i] for i in np.flatnonzero(rows)]
        return replace(self, columns=columns, places=places)


def normalise(text: Any) -> str:
    """Return a cell or a name in composed letters, without spaces at its ends."""
    return unicodedata.normalize("NFC", str(text)).strip()


def table_suffix(path: Any) -> str:
    """Return the suffix of a table that can be read. Raise ValueError for any other, with the line
    of pandas that converts it.
    """
    name = str(path)
    found = next((s for s in TABLE_SUFFIXES if name.lower().endswith(s)), None)
    if found is None:
        suffix = Path(name).suffix.lower()
        reader = OTHER_READERS.get(suffix, "read_csv")
        line = f"pandas.{reader}({name!r}).to_csv('table.csv', index=False)"
        raise ValueError(
            f"table must be a file {', '.join(TABLE_SUFFIXES[:2])} (also .gz), .xlsx or .parquet, "
            f"got {one_line(name, 200)!r}. Convert it with {one_line(line, 300)}."
        )
    return found


def find_column(names: Sequence[str], column: str, option: str) -> int:
    """Return the place of a column, given by its name or by its number from 0."""
    wanted = normalise(column)
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    near = closest_name(wanted, names)
    hint = f" Did you mean {near!r}?" if near else ""
    raise ValueError(
        f"{option} must be a column of the table, got {one_line(wanted)!r}; its columns are "
        f"{one_line(', '.join(names), 300)}.{hint}"
    )


def read_table(
    path: Any, options: ReadingOptions, target: str | None = None, strict: bool = True
) -> Table:
    """Read a table in a child process.

    Parameters
    ----------
    path : str or path
        A file .csv, .tsv (also .gz), .xlsx or .parquet.
    options : ReadingOptions
    target : str, optional
        A column, by name or number from 0, in which most cells may be empty; by default the last.
    strict : bool
        False to accept columns named in the options that the table lacks, and columns without a
        single cell.

    Raises
    ------
    ValueError
        If the table has a defect, or if reading takes more memory or time than allowed.
    ImportError
        If pandas, or the package that reads the format, is not installed.
    """
    path = expand_home(path)
    suffix = table_suffix(path)
    raise_if_special_file(path)
    if not path.is_file():
        raise ValueError(f"{one_line(path, 300)} does not exist, or is no file.")
    task = {"path": str(path), "suffix": suffix, "target": target, "strict": strict}
    with tempfile.TemporaryDirectory(prefix="fastcurv-") as folder:
        place = Path(folder) / "task.json"
        place.write_text(json.dumps(task | {"options": asdict(options)}), "utf-8")
        start_child(place, 60 + 6 * CPU_SECONDS * options.limit)
        answer = place.with_name("facts.json")
        facts = json.loads(answer.read_text("utf-8")) if answer.exists() else {}
        if "missing" in facts:
            with optional_import("tables", "parquet" if suffix == ".parquet" else "report"):
                raise ModuleNotFoundError(name=facts["missing"])
        if "error" in facts:
            raise ValueError(facts["error"])
        if "columns" not in facts:
            raise ValueError(
                f"{one_line(path.name)} must be read within {MEMORY_BYTES * options.limit:.0f} "
                f"bytes of memory and {CPU_SECONDS * options.limit:.0f} s of processor time, but "
                "is larger or damaged. If you trust the file, raise both by "
                f"--limit {8 * options.limit:g}."
            )
        arrays = {
            key: np.load(place.with_name(f"{key}.npy"), allow_pickle=False)
            for key in ("numbers", "codes", "lines")
        }
    columns = [
        Column(name, kind, arrays["codes" if kind == "words" else "numbers"][i], tuple(words))
        for name, kind, i, words in facts["columns"]
    ]
    word = "row" if suffix == ".parquet" else "line"
    places = [f"{word} {line}" for line in arrays["lines"].tolist()]
    return Table(path.name, columns, places, tuple(facts["notes"]))


def start_child(place: Path, timeout: float) -> None:
    """Run a child process for a task, with the modules of this process, for at most `timeout`
    seconds.
    """
    known = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    known |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_THREAD_LIMIT"), "1")
    command = [sys.executable, "-I", "-c", CHILD_CODE, json.dumps(sys.path), str(place)]
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, env=os.environ | known, timeout=timeout, **streams)


# --------------------------------------------------------------------------------------------------
# The child process.


def run_child(place: str) -> None:
    """Read the table of a task and write arrays and facts next to the file of the task."""
    task = json.loads(Path(place).read_text("utf-8"))
    options = ReadingOptions(**task["options"])
    facts: dict[str, Any]
    try:
        import pandas  # noqa: F401

        if task["suffix"] == ".xlsx":
            import openpyxl  # noqa: F401
        if task["suffix"] == ".parquet":
            import pyarrow.parquet

            version = tuple(map(int, re.findall(r"\d+", pyarrow.__version__)[:3]))
            if version < MIN_PYARROW:
                raise ValueError(f"pyarrow must be at least 14.0.1, got {pyarrow.__version__}.")
        limit_process(int(MEMORY_BYTES * options.limit), math.ceil(CPU_SECONDS * options.limit))
        warnings.simplefilter("ignore")
        found = TableReader(Path(task["path"]), options, task["target"], task["strict"])
        facts, arrays = found.read(task["suffix"])
        for key, array in arrays.items():
            np.save(Path(place).with_name(f"{key}.npy"), array)
    except MemoryError:
        facts = {}
    except ModuleNotFoundError as error:
        facts = {"missing": error.name}
    except ValueError as error:
        # pandas reports exhausted memory as an error of the file
        exhausted = str(error).endswith("out of memory")
        facts = {} if exhausted else {"error": one_line(error, 1000)}
    except Exception as error:
        name, kind = one_line(Path(task["path"]).name), task["suffix"]
        reason = one_line(error, 300).rstrip(".") or type(error).__name__
        facts = {"error": f"{name} cannot be read as a {kind} file: {reason}."}
    part = Path(place).with_name("facts.part")
    part.write_text(json.dumps(facts), "utf-8")
    part.rename(part.with_name("facts.json"))


def limit_process(memory: int, seconds: int) -> None:
    """Limit the further memory and processor time of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    with suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    spent = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    limits = {resource.RLIMIT_CPU: spent + seconds, resource.RLIMIT_FSIZE: memory}
    if used:
        limits[resource.RLIMIT_AS] = used + memory
    for kind, value in limits.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


class TableReader:
    """The reader of a table, in the child process.

    Attributes
    ----------
    names : list of str
        The names of the columns.
    lines : ndarray (N,) of int
        The line of the file in which each row begins.
    zeros : dict of int to list of (int, str)
        Cells with leading zeros, with their lines, by the place of the column.
    targets : set of int
        The place of the target, or none if the table has no target.
    """

    def __init__(
        self, path: Path, options: ReadingOptions, target: str | None, strict: bool
    ) -> None:
        self.path, self.options, self.target, self.strict = path, options, target, strict
        self.names: list[str] = []
        self.lines: Any = []
        self.zeros: dict[int, list[tuple[int, str]]] = {}
        self.targets: set[int] = set()
        self.notes: list[str] = []

    def error(self, words: str, line: int | None = None) -> ValueError:
        at = one_line(self.path.name) + ("" if line is None else f", line {line},")
        return ValueError(f"{at} {words}")

    def read(self, suffix: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return facts and arrays of the table."""
        reader = {".xlsx": self.read_workbook, ".parquet": self.read_parquet}.get(suffix)
        frame = self.read_text(suffix) if reader is None else reader()
        self.lines = np.asarray(self.lines, np.int64)
        if len(frame) != len(self.lines) or frame.shape[1] != len(self.names):
            raise self.error("must have lines that can be read in one way. Save it again as CSV.")
        filled = frame.notna().any(axis=1).to_numpy()
        frame, self.lines = frame[filled].reset_index(drop=True), self.lines[filled]
        asked = (
            ("dates", self.options.dates), ("words", self.options.words),
            ("ignore", self.options.ignore), ("keep", self.options.keep),
        )  # fmt: skip
        places = {option: self.find_columns(option, given) for option, given in asked}
        if self.target is not None:
            self.targets = self.find_columns("target", (self.target,))
        elif self.strict:
            self.targets = {len(self.names) - 1}
        columns: list[Any] = []
        numbers: list[Any] = []
        codes: list[Any] = []
        for j, name in enumerate(self.names):
            if j in places["ignore"] - self.targets:
                continue
            kind, values, words = self.read_column(
                frame[j], j, j in places["words"], j in places["dates"]
            )
            empty = float(np.mean(values < 0 if kind == "words" else np.isnan(values)))
            if self.strict and empty > 0.5 and j not in self.targets | places["keep"]:
                raise self.error(
                    f"column {name!r}, must have values in at least half of the rows, got empty "
                    f"cells in {empty:.0%}. Use --ignore {name} to leave it out, or --keep {name}."
                )
            stored = codes if kind == "words" else numbers
            columns.append((name, kind, len(stored), words))
            stored.append(values)
        self.raise_if_sums(columns, numbers, codes)
        n_rows = len(self.lines)
        arrays = {
            "numbers": np.array(numbers, float).reshape(len(numbers), n_rows),
            "codes": np.array(codes, np.int32).reshape(len(codes), n_rows),
            "lines": self.lines,
        }
        return {"columns": columns, "notes": self.notes}, arrays

    def find_columns(self, option: str, given: Iterable[str]) -> set[int]:
        found = set()
        for column in given:
            if self.strict or normalise(column) in self.names:
                found.add(find_column(self.names, column, option))
        return found

    def set_names(self, names: Sequence[Any], line: int) -> None:
        """Set the names of the columns from the cells of a line."""
        if not self.options.header:
            self.names = [f"column {j + 1}" for j in range(len(names))]
            return
        self.names = ["" if name is None else normalise(name) for name in names]
        if self.names and not self.names[0] and len(names) > 1:
            self.names[0] = "Unnamed: 0"  # the row names of R and pandas
        numbers = [name for name in self.names if re.fullmatch(r"[-+]?[\d.,]+(?:[eE]\d+)?", name)]
        if "" in self.names:
            j = self.names.index("")
            raise self.error(
                f"must have a name for each of {len(names)} columns, got none for column {j + 1}. "
                "Remove what is above or next to the table.",
                line,
            )
        if numbers:
            raise self.error(
                f"must have the names of the columns, got {numbers[0]!r}. Use --header no if it is "
                "a row, or write names.",
                line,
            )
        known = set()
        for name in self.names:
            if name in known:
                raise self.error(f"must have each name once, got {name!r} twice.", line)
            known.add(name)

    # --- formats

    def read_text(self, suffix: str) -> Any:
        """Return the cells of a file of text as a data frame. The module csv checks its lines, and
        pandas reads the cells.
        """
        import pandas as pd

        options = self.options
        sep = options.sep or ("\t" if suffix.startswith(".tsv") else ",")
        sep = {"tab": "\t", "\\t": "\t"}.get(sep, sep)
        open_file: Callable[..., Any] = gzip.open if suffix.endswith(".gz") else open
        try:
            with open_file(self.path, "rt", encoding="utf-8-sig", newline="") as file:
                self.check_lines(csv.reader(self.without_nul(file), delimiter=sep, strict=True))
        except UnicodeDecodeError as error:
            name = one_line(self.path.name)
            raise self.error(
                f"must be text in UTF-8, got the byte 0x{error.object[error.start]:02x}. Convert "
                f"it with pandas.read_csv({name!r}, encoding='cp1252').to_csv('table.csv', "
                "index=False)."
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise self.error(f"must be a whole file of gzip, got: {error}.") from None
        as_text = {
            j: str
            for option in (options.words, options.dates)
            for j in self.find_columns("words", option)
        }
        if options.header is False:
            lines_above: int | None = None
        else:
            lines_above = 0
        return pd.read_csv(
            self.path, sep=sep, header=lines_above, names=list(range(len(self.names))),
            index_col=False, dtype=as_text, keep_default_na=False, na_values=["", *options.na],
            decimal=options.decimal, encoding="utf-8-sig", low_memory=False,
        )  # fmt: skip

    def without_nul(self, file: Iterable[str]) -> Iterator[str]:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise self.error("must be text, got a NUL byte.", number)
            yield line

    def check_lines(self, reader: Any) -> None:
        """Set names, lines and cells with leading zeros. Raise ValueError for a line with another
        number of cells than the first, and for a repeated line of names.
        """
        first: list[str] | None = None
        line = 1
        try:
            for row in reader:
                begins, line = line, reader.line_num + 1
                if not row or row == [" " * len(row[0])] or (len(row) == 1 and not row[0].strip()):
                    continue
                if first is None:
                    first = row
                    self.set_names(row, begins)
                    if self.options.header:
                        continue
                elif row == first and self.options.header:
                    raise self.error("must be a row, got the line of names again.", begins)
                if len(row) != len(first):
                    raise self.error(
                        f"must have {len(first)} cells, as the first line has, got {len(row)}. Put "
                        "cells that contain the separator in double quotes, or use --sep.",
                        begins,
                    )
                self.lines.append(begins)
                for j, cell in enumerate(row):
                    if cell[:1] == "0" and cell[1:2].isdigit() and cell.isdigit():
                        self.zeros.setdefault(j, [])
                        if len(self.zeros[j]) < N_SHOWN_CELLS:
                            self.zeros[j].append((begins, cell))
        except csv.Error as error:
            words = "must have its double quotes in pairs, and cells of at most 131072 letters"
            raise self.error(f"{words}: {error}.", line) from None
        if first is None:
            raise self.error("must hold a table, got an empty file.")
        if len(first) == 1 and self.strict:
            found = next((sep for sep in ";\t|," if sep in first[0]), None)
            hint = f" Use --sep {'tab' if found == chr(9) else repr(found)}." if found else ""
            raise self.error(f"must have at least two columns, got one.{hint}", 1)

    def read_workbook(self) -> Any:
        import openpyxl
        import pandas as pd

        book = openpyxl.load_workbook(self.path, data_only=True)
        sheets = {normalise(sheet.title): sheet for sheet in book.worksheets}
        wanted = self.options.sheet
        if wanted is None and len(sheets) != 1:
            names = one_line(", ".join(sheets), 300)
            raise self.error(f"must have one sheet, got {names}. Choose one with --sheet.")
        if wanted is not None and normalise(wanted) not in sheets:
            names = one_line(", ".join(sheets), 300)
            raise self.error(f"must have the sheet {wanted!r}, got {names}.")
        sheet = next(iter(sheets.values())) if wanted is None else sheets[normalise(wanted)]
        merged = sorted(map(str, sheet.merged_cells.ranges))
        if merged:
            shown = ", ".join(merged[:N_SHOWN_CELLS])
            raise self.error(f"must have no merged cells, got {shown}. Unmerge and fill them.")
        totals = [table.ref for table in sheet.tables.values() if table.totalsRowCount]
        if totals:
            raise self.error(f"must have no row of totals, got one in {totals[0]}. Remove it.")
        rows: list[tuple[Any, ...]] = []
        for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
            if all(cell is None for cell in row):
                continue
            if rows and row == rows[0] and self.options.header:
                raise self.error("must be a row, got the line of names again.", line)
            rows.append(row)
            self.lines.append(line)
        if not rows:
            raise self.error("must hold a table, got an empty sheet.")
        used = [j for j in range(len(rows[0])) if any(row[j] is not None for row in rows)]
        self.set_names([rows[0][j] for j in used], self.lines[0])
        if self.options.header:
            rows, self.lines = rows[1:], self.lines[1:]
        columns = {k: pd.Series([r[j] for r in rows], dtype=object) for k, j in enumerate(used)}
        return self.with_missing(pd.DataFrame(columns).infer_objects())

    def read_parquet(self) -> Any:
        import pandas as pd

        frame = pd.read_parquet(self.path, engine="pyarrow", use_threads=False)
        if frame.index.name is not None:
            frame = frame.reset_index()
        header, line = replace(self.options, header=True), 1
        self.options = header
        self.set_names(list(frame.columns), line)
        frame.columns = range(frame.shape[1])
        self.lines = np.arange(1, len(frame) + 1)
        return self.with_missing(frame)

    def with_missing(self, frame: Any) -> Any:
        """Return a frame of typed cells in which those of --na are missing."""
        numbers = []
        for cell in self.options.na:
            with suppress(ValueError):
                numbers.append(float(cell))
        found = frame.isin([*self.options.na, "", *numbers]) if len(frame) else frame.isna()
        return frame.mask(found) if found.to_numpy().any() else frame

    # --- columns

    def read_column(
        self, cells: Any, j: int, words: bool, dates: bool
    ) -> tuple[str, np.ndarray, list[str]]:
        """Return kind, values and words of a column."""
        import pandas as pd

        if cells.dtype == "category":
            cells = cells.astype(object)
        types = pd.api.types
        if words or types.is_bool_dtype(cells):
            return self.code_words(cells)
        if types.is_datetime64_any_dtype(cells):
            return self.code_dates(cells, j)
        if types.is_numeric_dtype(cells) and not dates:
            return self.check_numbers(cells, j)
        given = cells.dropna()
        kinds = {self.kind_of(cell) for cell in given} if cells.dtype == object else {"text"}
        if given.empty:
            return "numbers", np.full(len(cells), np.nan), []
        if kinds == {"date"}:
            return self.code_dates(pd.to_datetime(cells), j)
        if kinds == {"bool"}:
            return self.code_words(cells)
        if kinds == {"number"}:
            return self.check_numbers(pd.to_numeric(cells), j)
        if kinds != {"text"}:
            rare = min(kinds, key=lambda kind: sum(self.kind_of(cell) == kind for cell in given))
            some = given[[self.kind_of(cell) == rare for cell in given]]
            raise self.column_error(j, f"cells of one type, got {', '.join(sorted(kinds))}", some)
        if dates or given.str.fullmatch(ISO_PATTERN).all():
            return self.parse_dates(cells, given, j, dates)
        digits = given.str.contains(r"\d")
        labels = j in self.targets and given.str.fullmatch(LABEL_PATTERN).all()
        if labels and digits.any():
            shown = one_line(given.iloc[0], 40)
            self.notes.append(
                f"The words of column {self.names[j]!r}, such as {shown!r}, name classes."
            )
        decimal = self.options.decimal
        plain = given.str.replace(decimal, ".", regex=False) if decimal != "." else given
        numbers = pd.to_numeric(plain, errors="coerce").notna()
        if numbers.any():
            some = given[~numbers] if numbers.mean() >= 0.5 else given[numbers]
            raise self.column_error(j, "numbers or words in all cells, not both", some)
        if digits.mean() > 0.5 and not labels and not self.is_identifier(j, given):
            wanted = "numbers alone, not numbers in another notation or within words"
            raise self.column_error(j, wanted, given[digits])
        return self.code_words(cells)

    def is_identifier(self, j: int, given: Any) -> bool:
        """Return True for words that the name of the column says are names of the rows."""
        named = re.fullmatch(IDENTIFIER_PATTERN, self.names[j], re.IGNORECASE)
        return bool(named and given.is_unique)

    @staticmethod
    def kind_of(cell: Any) -> str:
        """Return the kind of a cell of a typed format."""
        if isinstance(cell, str):
            return "text"
        if isinstance(cell, (bool, np.bool_)):
            return "bool"
        if isinstance(cell, (int, float, np.number)) or type(cell).__name__ == "Decimal":
            return "number"
        return "date" if type(cell).__name__ in ("date", "datetime", "Timestamp") else "other"

    def column_error(self, j: int, wanted: str, some: Any) -> ValueError:
        """Return the error for a column with some cells, by their rows, and the options."""
        name, first = self.names[j], one_line(some.iloc[0], 40)
        cells = ", ".join(
            f"{one_line(cell, 40)!r} (line {self.lines[row]})"
            for row, cell in some.iloc[:N_SHOWN_CELLS].items()
        )
        return self.error(
            f"column {name!r}, must have {wanted}, got {cells}. Correct the cells, or use "
            f'--words "{name}", --ignore "{name}", --na "{first}" or --dates "{name}".'
        )

    def check_numbers(self, cells: Any, j: int) -> tuple[str, np.ndarray, list[str]]:
        if zeros := self.zeros.get(j):
            shown = ", ".join(f"{cell!r} (line {line})" for line, cell in zeros)
            name = self.names[j]
            raise self.error(
                f"column {name!r}, must have numbers without leading zeros, got {shown}. Use "
                f'--words "{name}" if they are codes, or --ignore "{name}".'
            )
        values = cells.to_numpy(float, na_value=np.nan)
        whole = cells.dtype.kind in "iu"
        most = MAX_WHOLE_NUMBER if whole else MAX_NUMBER
        bad = np.flatnonzero(np.abs(values) > most)
        if len(bad):
            wanted = f"numbers of at most {most:.3g} in magnitude"
            raise self.column_error(j, wanted, cells.iloc[bad])
        return "numbers", values, []

    def code_words(self, cells: Any) -> tuple[str, np.ndarray, list[str]]:
        """Return the cells as words in sorted order."""
        import pandas as pd

        codes, found = pd.factorize(cells)
        text = [str(int(x)) if isinstance(x, float) and x == int(x) else str(x) for x in found]
        names, places = np.unique(np.array([normalise(x) for x in text] or [""], object),
                                  return_inverse=True)  # fmt: skip
        return "words", np.where(codes >= 0, places[codes], -1), [*map(str, names)]

    def parse_dates(
        self, cells: Any, given: Any, j: int, asked: bool
    ) -> tuple[str, np.ndarray, list[str]]:
        """Return dates of text: ISO dates, or of one form that pandas finds if --dates names the
        column. Refuse dates that are others with the day before the month.
        """
        import pandas as pd

        iso = given.str.extract(f"^(?:{ISO_PATTERN})$")["zone"]
        zones = iso.notna()
        if zones.any() and not zones.all():
            raise self.column_error(j, "dates with an offset, or without", given[~zones])
        form: Any = {"format": "ISO8601"} if given.str.fullmatch(ISO_PATTERN).all() else {}
        readings = []
        for days_first in (False, True):
            with suppress(ValueError, TypeError, OverflowError):
                readings.append(
                    pd.to_datetime(cells, utc=bool(zones.any()), dayfirst=days_first, **form)
                )
        if not readings:
            bad = given[pd.to_datetime(given, errors="coerce").isna()]
            shown = given if bad.empty else bad
            raise self.column_error(j, "dates of one form", shown)
        parsed = readings[0]
        if not parsed.equals(readings[-1]):
            some = given[(parsed != readings[-1])[given.index]]
            raise self.column_error(j, "dates that have one meaning, such as 2024-12-31", some)
        if zones.any():
            self.notes.append(f"Dates in column {self.names[j]!r} were converted to UTC.")
        if asked and not form:
            row = given.index[0]
            self.notes.append(
                f"Dates in column {self.names[j]!r}: {given.iloc[0]!r} (line {self.lines[row]}) "
                f"was read as {parsed[row]:%Y-%m-%d}."
            )
        return self.code_dates(parsed, j)

    def code_dates(self, cells: Any, j: int) -> tuple[str, np.ndarray, list[str]]:
        """Return dates as days since 1970."""
        if getattr(cells.dt, "tz", None) is not None:
            cells = cells.dt.tz_convert("UTC").dt.tz_localize(None)
        seconds = cells.to_numpy("datetime64[us]")
        days = np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64) / 86400e6)
        return "dates", days, []

    def raise_if_sums(self, columns: list[Any], numbers: list[Any], codes: list[Any]) -> None:
        """Raise ValueError if a row is the sum of the rows above: its numbers are, in at least two
        columns in which no single row has as much, or in one if a word says so.
        """
        n_rows = len(self.lines)
        kept = [numbers[i] for _, kind, i, _ in columns if kind == "numbers"]
        if n_rows <= MIN_SUMMED_ROWS or not kept:
            return
        said = np.zeros(n_rows, bool)
        for _, kind, i, words in columns:
            if kind == "words":
                sums = [bool(re.fullmatch(SUM_WORD_PATTERN, w, re.IGNORECASE)) for w in words]
                said |= np.array([*sums, False])[codes[i]]
        found: list[int] = []
        start = 0
        while len(found) < N_SHOWN_CELLS and n_rows - start > MIN_SUMMED_ROWS:
            equal, other = np.zeros(n_rows - start, int), np.zeros(n_rows - start, bool)
            for x in kept:
                part = np.nan_to_num(x[start:])
                before = np.concatenate([[0.0], np.cumsum(part)[:-1]])
                most = np.concatenate([[np.inf], np.maximum.accumulate(np.abs(part))[:-1]])
                same = np.abs(part - before) <= 1e-9 * np.concatenate(
                    [[0.0], np.cumsum(np.abs(part))[:-1]]
                )
                equal += same & (np.abs(part) > most)
                other |= ~same & ~np.isnan(x[start:])
            enough = np.arange(n_rows - start) >= MIN_SUMMED_ROWS
            is_sum = enough & ((~other & (equal >= 2)) | (said[start:] & (equal >= 1)))
            if not is_sum.any():
                break
            found.append(start + int(np.argmax(is_sum)))
            start = found[-1] + 1
        rows = found or np.flatnonzero(said)[:N_SHOWN_CELLS].tolist() * bool(said[-1])
        if rows and (found or said.sum() <= N_SHOWN_CELLS):
            shown = ", ".join(str(self.lines[row]) for row in rows)
            raise self.error(
                f"must have no rows that are sums of other rows, got them in lines {shown}. Remove "
                "these rows."
            )
