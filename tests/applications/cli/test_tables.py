"""Tables of users: what is read, left out and rejected, and how columns become inputs."""

import gzip
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fastcurv.applications.cli.cells import ReadingOptions
from fastcurv.applications.cli.data import DataCoding, is_table
from fastcurv.applications.cli.encode import (
    fit_coding,
    load_dataset,
    load_table_dataset,
    read_scaled_inputs,
    read_table,
    scale_inputs,
)
from fastcurv.applications.cli.tables import open_table

pd = pytest.importorskip("pandas")
N = 40
rng = np.random.default_rng(0)
A, B = rng.normal(size=N).round(3), rng.normal(size=N).round(3)
Y = (A + B**2).round(3)


def lines(*columns, names="a,b,y", mark=",", end="\n"):
    """Return a table of N rows as text, with `mark` between columns and `end` after lines. Each
    column is a sequence of cells or a function of the row number.
    """
    cells = [[c(i) for i in range(N)] if callable(c) else [*map(str, c)] for c in columns]
    return "".join(mark.join(row) + end for row in ([names.replace(",", mark)], *zip(*cells)))


@pytest.fixture
def read(tmp_path):
    def write(text, target=None, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, target, **options)

    return write


def notes_of(table):
    """Return the notes of a table without that on the column to predict."""
    return tuple(note for note in table.notes if not note.startswith("The column to predict"))


def inputs(table):
    X, coding = fit_coding(table)
    return scale_inputs(X, coding)


def commas(x):
    return [f"{v}".replace(".", ",") for v in x]


COLOURS = ("red", "green, dark", 'said "blue"')
WORDS = [COLOURS[i % 3] for i in range(N)]
PLAIN = lines(A, B, Y)
# By name: (text, notes) of tables that give the columns A and B and the target Y.
EQUAL_TABLES = {
    "commas": (PLAIN, ()),
    "semicolons": (lines(A, B, Y, mark=";"), ()),
    "decimal commas": (lines(*map(commas, (A, B, Y)), mark=";"), ()),
    "decimal commas and thousands": (
        lines(
            [f"{v:,.3f}".translate(str.maketrans(",.", ".,")) for v in 1e4 * A],
            *map(commas, (B, Y)), mark=";",
        ),
        (),
    ),
    "thousands in quotes": (lines([f'"{v:,.3f}"' for v in 1e4 * A], B, Y), ()),
    "thousands apart": (
        lines([f"{v:,.3f}".replace(",", " ") for v in 1e4 * A], B, Y),
        (),
    ),
    "thousands apart and decimal commas": (
        lines(
            [f"{v:,.3f}".translate(str.maketrans(",.", "\u202f,")) for v in 1e4 * A],
            *map(commas, (B, Y)), mark=";",
        ),
        (),
    ),
    "thousands of Switzerland": (
        lines([f"{v:,.3f}".replace(",", "\u2019") for v in 1e4 * A], B, Y),
        (),
    ),
    "kilograms": (
        lines([f"{v} kg" for v in A], [f"USD {v}" for v in B], [f"{v}m2" for v in Y]),
        ("Cells of column 'y' were read as numbers in m2.",
         "Cells of column 'a' were read as numbers in kg.",
         "Cells of column 'b' were read as numbers in USD."),
    ),
    "comments": ("# made by x, on Monday\n" + PLAIN + "# end\n", ()),
    "percent": (
        lines([f"{v}%" for v in A], B, Y),
        ("Cells of column 'a' were read as numbers in %.",),
    ),
    "tabs": (lines(A, B, Y, mark="\t"), ()),
    "bars": (lines(A, B, Y, mark="|"), ()),
    "inches": (
        lines(A, ['5" of 6"'] * N, B, Y, names="a,i,b,y"),
        ("Column 'i' was ignored: the same value in all rows.",),
    ),
    "quotes after spaces": (lines(A, [f' "{v}"' for v in B], Y), ()),
    "lines in cells": (
        lines(A, ['"1\n2, ""3"""'] * N, B, Y, names="a,i,b,y"),
        ("Column 'i' was ignored: the same value in all rows.",),
    ),
    "sep": ("sep=;\n" + lines(A, B, Y, mark=";"), ()),
    "quotes": (lines([f'"{v}"' for v in A], B, Y, names='"a","b","y"'), ()),
    "Windows": (b"\xef\xbb\xbf" + lines(A, B, Y, end="\r\n").encode(), ()),
    "old Macintosh": (lines(A, B, Y, end="\r"), ()),
    "UTF-16": (PLAIN.encode("utf-16"), ()),
    "no names": (PLAIN.partition("\n")[2], ()),
    "numbers as names": (lines(A, B, Y, names="400,402.5,405"), ()),
    "falling numbers as names": (lines(A, B, Y, names="405,402.5,400"), ()),
    "a name like a gap": (lines(A, B, Y, names="NA,b,y"), ()),
    "minus signs": (PLAIN.replace("-", "\u2212"), ()),
    "numbers and a word": (lines(A, B, Y, names="400,402.5,y"), ()),
    "spaces": (PLAIN.replace(",", " , "), ()),
    "blank lines": (PLAIN.replace("\n", "\n\n,,\n"), ()),
    "marks at ends": (PLAIN.replace("\n", ",\n"), ()),
    "marks at ends of rows": ("a,b,y\n" + PLAIN.partition("\n")[2].replace("\n", ",\n"), ()),
    "row names of R": (
        lines([f'"{i + 1}"' for i in range(N)], A, B, Y, names='"a","b","y"'),
        ("Column 'Unnamed: 0' was ignored: the numbers of the rows or of what they describe.",),
    ),
    "index of pandas": (
        lines(range(N), A, B, Y, names=",a,b,y"),
        ("Column 'Unnamed: 0' was ignored: the numbers of the rows or of what they describe.",),
    ),
    "identifiers": (
        lines(lambda i: f"{i * 7 % N + 500}", A, lambda i: f"u{i}", B, Y, names="userId,a,u,b,y"),
        ("Column 'userId' was ignored: the numbers of the rows or of what they describe.",
         "Column 'u' was ignored: another value in nearly every row, as an identifier or a text "
         "has."),
    ),
    "constant and empty": (
        lines(["7"] * N, A, ["x"] * N, B, ["NA"] * N, Y, names="c,a,d,b,e,y"),
        ("Columns 'c', 'd' were ignored: the same value in all rows.",
         "Column 'e' was ignored: no values."),
    ),
    "missing targets": (
        PLAIN + "1,2,\n1,3,NA\n1,4,?\n1,5,-nan\n1,6,-\n",
        ("5 rows without a target were ignored.",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EQUAL_TABLES)
def test_tables_in_every_format_load_equal_numbers(kind, read):
    text, notes = EQUAL_TABLES[kind]
    table = read(text, name="t.tsv" if kind == "tabs" else "t.csv")
    X = inputs(table)
    wanted = np.column_stack([A, B])
    gap = np.abs(X - (wanted - wanted.mean(axis=0)) / wanted.std(axis=0)).max()
    assert X.shape == (N, 2) and gap <= 1e-12
    assert np.array_equal(table.y, Y) and not table.classes and notes_of(table) == notes


def test_tables_of_two_columns_have_one_input(read):
    assert inputs(read(lines(A, Y, names="a,y"))).shape == (N, 1)
    counted = read(lines(range(N), Y, names="t,y"))
    assert inputs(counted).shape == (N, 1) and notes_of(counted) == ()


def test_duplicated_rows_are_counted(read):
    body = PLAIN.partition("\n")[2]
    (note,) = notes_of(read(PLAIN + body))
    assert note.startswith(f"{N} rows are copies of earlier rows")


def test_fifty_thousand_rows_are_read_with_their_line_numbers(read):
    """A table of 50 000 rows is read exactly, with the kind of each column and the line number of
    the last row.
    """
    more = np.random.default_rng(1).normal(size=(50_000, 3)).round(4)
    words = np.array(["a", "b", "c"])[np.arange(50_000) % 3]
    text = "x,w,z,y\n" + "".join(
        f"{a},{w},{b},{c}\n" for w, (a, b, c) in zip(words.tolist(), more.tolist())
    )
    table = read(text)
    assert np.array_equal(table.y, more[:, 2]) and table.sheet.lines[-1] == 50_001
    assert [m.coding.kind for m in table.meanings] == ["numbers", "words", "numbers"]


DATES = {  # Key: the form of a date. Value: the option with which it is read.
    "2024-{m:02}-{d:02}": None,
    "2024-{m:02}-{d:02}T00:00:00+00:00": None,
    "2024-{m:02}-{d:02} 00:00 UTC": None,
    "{d:02}.{m:02}.2024": "%d.%m.%Y",
    "{d}/{m}/2024": "%d/%m/%Y",
    "{m}/{d}/24": "%m/%d/%y",
    "{d:02}/{m:02}/24 00:00": "%d/%m/%y %H:%M",
    "2024.{m}.{d}": "%Y.%m.%d",
    "{d}-{name}-2024": "%d-%b-%Y",
    "{name} {d}, 2024": "%b %d, %Y",
    "2024{m:02}{d:02}": "%Y%m%d",
    "{d:02}{m:02}24": "%d%m%y",
}


@pytest.mark.parametrize("cell", DATES)
def test_dates_are_days_since_the_first_date_if_their_form_is_sure_or_given(cell, read):
    days = [(i * 11) % 59 for i in range(N)]  # numbers of days in January and February

    def written(i):
        m, d = divmod(days[i], 31)
        return '"' + cell.format(m=m + 1, d=d + 1, name=("Jan", "Feb")[m]) + '"'

    text = lines(written, Y, names="when,y")
    if DATES[cell] is not None:
        with pytest.raises(ValueError, match="line 2, column 'when', .*line 4.* or --dates"):
            read(text)
    table = read(text, options=ReadingOptions(dates=(DATES[cell],) if DATES[cell] else ()))
    X, _ = fit_coding(table)
    assert np.array_equal(X[:, 0] - X[:, 0].min(), np.subtract(days, min(days)))
    assert notes_of(table)[0].startswith("Dates in column 'when' are counted in days from 2024-01-")


@pytest.mark.parametrize("half", [False, True])
def test_times_are_read_as_fractions_of_a_day(half, read):
    minutes = [(i * 617) % (1440 if half else 9000) for i in range(N)]

    def written(i):
        hour, minute = divmod(minutes[i], 60)
        if half:
            return f"{hour % 12 or 12}:{minute:02} {'ap'[hour // 12]}m"
        return f"{hour}:{minute:02}"

    table = read(lines(written, Y, names="when,y"))
    X, _ = fit_coding(table)
    assert np.allclose(X[:, 0], np.divide(minutes, 1440))
    assert notes_of(table) == (
        "Times in column 'when' are counted in days, read as hours and minutes.",
    )


def test_match_scores_are_read_as_words_not_times(read):
    table = read(lines(lambda i: f"{i % 4}:{i % 3}", Y, names="result,y"))
    assert table.meanings[0].coding.kind == "words"


@pytest.mark.parametrize(
    "gap", ["NA", "n.a.", "-", "None", "?", "...", "missing", "#DIV/0!", "\u2014"]
)
def test_every_spelling_of_a_missing_number_is_read(gap, read):
    cells = [gap if i % 7 == 3 else v for i, v in enumerate(A)]
    table = read(lines(cells, B, Y))
    assert [m.coding.kind for m in table.meanings] == ["numbers", "numbers"]
    assert np.isnan(table.meanings[0].values).sum() == 6


# By name: (function of the row number that gives column a, note on another meaning of a).
AMBIGUOUS_COLUMNS = {
    "gap": (lambda i: -999 if i % 9 == 4 else A[i], "Column 'a' has -999 in 4 rows, far from"),
    "two gaps": (
        lambda i: ("1e20", "-200")[i % 2] if i % 5 == 4 else A[i],
        "Column 'a' has -200 in 4 rows, 1e+20 in 4 rows, far from",
    ),
    "three gaps": (
        lambda i: (97, 98, 99)[i % 3] if i % 4 == 1 else i % 5,
        "Column 'a' has 97 in 3 rows, 98 in 4 rows, 99 in 3 rows, far from",
    ),
    "rare": (lambda i: -200 if i < 2 else A[i], ""),
    "no gap": (lambda i: -9 if i % 9 == 4 else i - 8, ""),
    "codes": (lambda i: f"{i * 977 % 4000:05}", "Column 'a' holds codes such as 00000, which"),
    "quoted": (
        lambda i: f'"{i + 10},{(i * 997) % 1000:03}"',
        "The mark in numbers such as 10,000 in column 'a' was read as one of thousands, which no",
    ),
    "decimals": (lambda i: f"{i + 10}.{(i * 997) % 1000:03}0", ""),
    "thousands": (lambda i: f'"{i + 10},{(i * 997) % 1000:03},000"', ""),
}


@pytest.mark.parametrize("kind", AMBIGUOUS_COLUMNS)
def test_ambiguous_numbers_are_reported_in_a_note(kind, read):
    made, note = AMBIGUOUS_COLUMNS[kind]
    table = read(lines(lambda i: str(made(i)), lambda i: str(i * i), names="a,y"))
    assert len(notes_of(table)) == bool(note) and "".join(notes_of(table)).startswith(note)


def test_columns_of_long_texts_are_ignored(read):
    table = read(lines(A, lambda i: "bc"[i % 2] * (1001 if i == 3 else 1), Y))
    assert table.meanings[1].coding.kind == "left out"
    assert "text of more than 1000" in notes_of(table)[0]


def test_repeated_points_are_read_as_thousands_separators(read):
    cells = [f"{i + 1}.250" if i % 2 else f"{i + 1}.000.500" for i in range(N)]
    table = read(lines(cells, lambda i: str(i * i), names="a,y", mark=";"))
    X, _ = fit_coding(table)
    assert X[:2, 0].tolist() == [1_000_500, 2250] and notes_of(table) == ()


CLASSES = {
    "words": (lambda i: "ab"[i % 2], None, True),
    "two numbers": (lambda i: f"{i % 2}.0", None, True),
    "whole numbers": (lambda i: f"{i % 3}", None, True),
    "many whole numbers": (lambda i: f"{i}", None, False),
    "whole numbers with points": (lambda i: f"{i % 3}.0", None, True),
    "as numbers": (lambda i: f"{i % 3}", False, False),
    "as classes": (lambda i: f"{i % 3}.0", True, True),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_target_type_is_detected_with_a_note_for_integers(kind, read):
    made, asked, wanted = CLASSES[kind]
    table = read(lines(A, made, names="a,y"), classes=asked)
    assert table.classes == wanted and table.y.dtype.kind in ("iU" if wanted else "f")
    assert bool(notes_of(table)) == kind.startswith("whole numbers")


def test_a_table_in_an_encoding_of_windows_is_read_with_a_note(read):
    text = lines(lambda i: ("wei\u00df", "\u20ac 5")[i % 2], Y, names="gr\u00f6\u00dfe,y")
    table, plain = read(text.encode("cp1252")), read(text)
    assert np.array_equal(table.values, plain.values) and table.names == plain.names
    assert notes_of(table) == (
        "The table is not in UTF-8 and was read as Windows-1252 (Latin-1), with '\u00f6' in line "
        "1. If that is wrong, save the table as 'CSV UTF-8'.",
        *notes_of(plain),
    )


def test_a_table_compressed_by_gzip_is_read(tmp_path):
    path = tmp_path / "t.TSV.gz"
    path.write_bytes(gzip.compress(b"a\ty,x\n1\t2\n1,5\t3\n"))
    assert is_table(path) and not is_table("net.gz")
    assert [list(r) for r in zip(*(c.texts() for c in open_table(path).columns))] == [
        ["1", "2"],
        ["1,5", "3"],
    ]


ROWS = "".join(f"{a},{y}\n" for a, y in zip(A[:20], Y[:20]))
MALFORMED_TABLES = {
    "empty": ("", None, "t.csv must hold a table, got an empty file."),
    "blank": (" \n\n", None, "t.csv must hold a table, got an empty file."),
    "names only": ("a,y\n", None, "at least 10 rows with a target in column 'y', got 0."),
    "one row": ("a,y\n1,2\n", None, "at least 10 rows with a target in column 'y', got 1."),
    "one column": ("a\n1\n2\n", None, "must have at least two columns, separated by commas"),
    "no targets": (lines(A, [""] * N, names="a,y"), "y", "with a target in column 'y', got 0."),
    "gzip": (gzip.compress(b"a,y\n1,2\n")[:-4], None, "cannot be read, because its gzip data "
             "are damaged or truncated. Compress the table again."),
    "compressed zeros": (gzip.compress(b"0" * (33 << 20)), None, "to at most 33554432 bytes"),
    "long class": (lines(A, ["b" * 101, "c"] * (N // 2), names="a,y"), None,
                   "column 'y', must hold classes of at most 100 characters"),
    "Excel": (b"PK\x03\x04", None, "as text, got an Excel workbook or an archive. If"),
    "JSON": ('[{"a": 1},\n', None, "must hold a table as text, got JSON. Write it as CSV."),
    "HTML": ("<!DOCTYPE html>\n", None, "got a page in HTML or XML. Write it as CSV."),
    "ragged": (f"a,y\n{ROWS}1,2,3\n", None, "line 22, must have 2 columns, as the first line has, "
               "got 3. Put cells that contain commas in double quotes."),
    "title": (f"My plants\n\na,y\n{ROWS}", None, "line 1, must have a name for each of 2 columns, "
              "got 1. Remove the lines above the names."),
    "short": (f"a,y\n{ROWS}1\n", None, "line 22, must have 2 columns, as the first line has, got"),
    "NUL": (f"a,y\n{ROWS}1,\0\n", None, "line 22, must be text, got a NUL byte."),
    "two encodings": (f"a,y\n{ROWS}\u00e9,1\n".encode("latin1") + "\u00fc,1".encode(), None,
                      "line 22, must be text in UTF-8, got the byte 0xe9. Save the table as "),
    "control characters": (f"a,y\n{ROWS}\u00e9\1,1\n".encode("latin1"), None,
                           "line 22, must be text in UTF-8"),
    "quote in a cell": (f'a,y\n{ROWS}"5" x,1\n', None, "line 22, must have its double quotes in"),
    "open quote": (f'a,y\n"{ROWS}', None, "line 2, must have its double quotes in pairs"),
    "huge": (f"a,y\n{ROWS}1e308,1\n", None, "line 22, column 'a', must be a number of at most "
             "1e+75 in magnitude, got '1e308'."),
    "tiny": (lines([f"{v}e-300" for v in A], Y, names="a,y"), None,
             "column 'a', must be a number of at least 1e-75 in magnitude, got '"),
    "infinite": (f"a,y\n{ROWS}1,inf\n", None, "line 22, column 'y', must be a number of at most"),
    "typo": (f"a,y\n{ROWS}l.5,1\n", None, "line 22, column 'a', must be a number, as most cells of "
             "the column are, got 'l.5'. Correct the cells, or use --words a, --ignore a or "
             '--na "l.5".'),
    "below what is measured": (lines(lambda i: f"{i}.5" if i % 4 else "<1", Y, names="a,y"), None,
                               "line 3, column 'a', must be numbers with the same unit"),
    "typo in targets": (f"a,y\n{ROWS}1,2..3\n", None, "line 22, column 'y', must be a number, as"),
    "no such target": (f"a,y\n{ROWS}", "z", "t.csv, got 'z'; its columns are a, y."),
    "target in capitals": (f"a,y\n{ROWS}", "Y", "Did you mean 'y'?"),
    "constant target": (lines(A, ["1"] * N, names="a,y"), None, "two different values to be the"),
    "only identifiers": (lines(lambda i: f"n{i}", Y, names="name,y"), None,
                         "must have a column to predict from, got only columns that are"),
    "dates as target": (lines(A, lambda i: f"2024-01-{i % 9 + 1:02}", names="a,y"), None,
                        "must hold numbers or classes to be the target, got dates"),
    "names as target": (lines(A, lambda i: f"n{i}", names="a,y"), None,
                        "must hold at most 20 classes in 40 rows, got 40"),
    "typo in dates": (lines(lambda i: f"2024-01-{i % 9 + 1:02}", Y, names="d,y")
                      + "2024-13-01,1\n", None, "line 42, column 'd', must be a date, as most"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED_TABLES)
def test_errors_for_malformed_tables_name_line_and_column(kind, read):
    text, target, words = MALFORMED_TABLES[kind]
    with pytest.raises(ValueError) as error:
        read(text, target)
    message = str(error.value)
    assert words in message and "\n" not in message and message[-1] in ".?'"


def test_encoded_inputs_equal_those_of_scikit_learns_column_transformer(read):
    compose = pytest.importorskip("sklearn.compose")
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    gappy = [("", "NA", "?", "nan")[i % 4] if i % 5 == 2 else str(B[i]) for i in range(N)]
    quoted = ['"' + word.replace('"', '""') + '"' for word in WORDS]
    shapes = ["round" if i % 4 else "" for i in range(N)]
    table = read(lines(A, quoted, gappy, shapes, range(N), Y, names="a,colour,b,shape,id,y"))
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    made = compose.ColumnTransformer(
        [("a", numbers, [0]), ("colour", words, [1]), ("b", numbers, [2]), ("shape", words, [3])]
    )
    b = [float(cell) if i % 5 != 2 else np.nan for i, cell in enumerate(gappy)]
    frame = np.array([*zip(A, WORDS, b, shapes)], dtype=object)
    wanted = made.fit_transform(frame).astype(float)
    X, coding = fit_coding(table)
    assert np.abs(scale_inputs(X, coding) - wanted).max() <= 1e-14
    names = [name for code in coding.codes for name in code.input_names]
    assert names[:4] == ["a", "colour=green, dark", "colour=red", 'colour=said "blue"']
    assert names[4:] == ["b", "shape=missing", "shape=round"]
    new = np.array([[0.5, "purple", np.nan, "round"], [1.5, "red", 2.0, ""]], dtype=object)
    path = Path(table.sheet.source).with_name("new.csv")
    path.write_text("shape,b,colour,a,y\nround,,purple,0.5,1\n,2,red,1.5,2\n")
    found, notes = read_scaled_inputs(path, coding, "y")
    assert np.abs(found - made.transform(new).astype(float)).max() <= 1e-14
    assert notes == (
        "Column 'colour' has words that the network does not know, all of whose inputs are 0: "
        "purple.",
        "1 missing value was filled with the median of column 'b'.",
    )


def test_rare_categories_get_no_input_column(read):
    pytest.importorskip("sklearn")
    many = 3 * N
    text = "w,y\n" + "".join(f"w{(i * i) % 89},{i}.5\n" for i in range(many))
    table = read(text)
    assert len(table.meanings[0].coding.categories) == 30
    assert table.notes[-1].endswith("different words; the 30 most frequent ones are inputs.")
    assert inputs(table).shape == (many, 30)


def test_a_table_of_numbers_is_scaled_as_train_scales_it(read):
    table = read(PLAIN)
    path = Path(table.sheet.source)
    mine, _ = load_table_dataset(path, None, None)
    other = load_dataset(path, test_fraction=0.0)
    assert np.abs(mine.X - other.X).max() <= 1e-14 and np.abs(mine.y - other.y).max() <= 1e-14
    back = mine.y[:, 0] * mine.coding.y_scale[0] + mine.coding.y_shift[0]
    assert np.abs(back - Y).max() <= 1e-14
    again, _ = load_table_dataset(path, None, None, mine.coding)
    assert np.array_equal(again.X, mine.X) and again.digest == mine.digest


def test_errors_for_new_rows_name_missing_columns(read):
    _, coding = fit_coding(read(lines(A, B, A + B, Y, names="a,b,c,y")))
    path = Path(read(PLAIN).sheet.source)
    path.write_text("a,y\n1,2\n")
    with pytest.raises(
        ValueError, match="must have the columns 'b', 'c' of the training table, got a, y."
    ):
        read_scaled_inputs(path, coding, None)
    path.write_text("a,b,c\n1,2,x\n")
    with pytest.raises(ValueError, match="line 2, column 'c', must be a number, got 'x'."):
        read_scaled_inputs(path, coding, None)
    path.write_text("a,b,c\n1,2,3 kg\n")
    with pytest.raises(ValueError, match="line 2, column 'c', must be a number, got '3 kg'."):
        read_scaled_inputs(path, coding, None)
    path.write_text("c,b,a\n")
    with pytest.raises(ValueError, match="at least one row below the column names, got 0."):
        read_scaled_inputs(path, coding, None)


def test_new_rows_are_scaled_by_the_units_of_the_training_table(read):
    _, coding = fit_coding(read(lines([f"{v} kg" for v in A], Y, names="a,y")))
    path = Path(read(PLAIN).sheet.source)
    path.write_text("a\n1.5 kg\n")
    with_unit, notes = read_scaled_inputs(path, coding, None)
    path.write_text("a\n1.5\n")
    without, more = read_scaled_inputs(path, coding, None)
    assert with_unit == without and notes == () and "have no unit and were read" in more[0]
    for text in ("1.5 kg\n1.5 lb", "1.5 kg\n1.5", "1.5 kg\n$1.5"):
        path.write_text(f"a\n{text}\n")
        with pytest.raises(ValueError, match="line 3, column 'a', must be a number in kg, got '"):
            read_scaled_inputs(path, coding, None)
    path.write_text("a,b\n1.5 kg,2\n")
    with pytest.raises(ValueError, match="only columns of the training table, got column 'b'. Use"):
        read_scaled_inputs(path, coding, None)
    options = ReadingOptions(ignore=("b",))
    assert read_scaled_inputs(path, coding, None, options)[0] == with_unit
    path.write_text("a\n1.200\n")
    assert read_scaled_inputs(path, coding, None)[1][0].startswith(
        "The mark in numbers such as 1.200 in"
    )


def test_new_rows_without_column_names_are_read_in_order(read):
    _, coding = fit_coding(read(PLAIN.partition("\n")[2], "0"))
    assert coding.columns == () and asdict(coding)["codes"][0]["name"] == "column 1"
    path = Path(read(PLAIN).sheet.source)
    path.write_text("0.5,1.5\n0.25,2\n")
    two, _ = read_scaled_inputs(path, coding, "0")
    path.write_text("9,0.5,1.5\n9,0.25,2\n")
    three, _ = read_scaled_inputs(path, coding, "0")
    assert np.array_equal(two, three) and isinstance(coding, DataCoding)
    _, named = fit_coding(read(PLAIN))
    path.write_text("0.5,1.5\n0.25,2\n")
    by_place, _ = read_scaled_inputs(path, named, None)
    path.write_text("b,a\n1.5,0.5\n2,0.25\n")
    by_name, _ = read_scaled_inputs(path, named, None)
    assert np.array_equal(by_place, by_name)


def test_new_rows_of_one_column_are_read(read):
    table = read(lines(A, Y, names="a,y"))
    X, coding = fit_coding(table)
    path = Path(table.sheet.source)
    path.write_text("a\n" + "\n".join(map(str, A)))
    found, _ = read_scaled_inputs(path, coding, "y")
    assert np.array_equal(found, scale_inputs(X, coding))


# Tables that can be read in two ways: (cells of column a, part of the error, options, cells that
# are read with the options).
def marked(form, every=4, usual="{}"):
    return lambda i: (form if i % every == 1 else usual).format(f"{i * 37 % 40 + 11}.{i + 25}")


DOUBTFUL_COLUMNS = {
    "unit in some cells": (marked("{} kg"), "numbers with the same unit"),
    "footnotes": (marked("{}*"), "numbers with the same unit"),
    "estimates": (marked("~{}"), "numbers with the same unit"),
    "limits of detection": (marked("< {}"), "numbers with the same unit"),
    "letters": (marked("{} b", 9), "numbers with the same unit"),
    "words around numbers": (marked("ca. {}"), "a number, as most cells"),
    "two currencies": (marked("\u20ac{}", 2, "${}"), "numbers with the same unit"),
    "two codes": (marked("EUR {}", 3, "GBP {}"), "numbers with the same unit"),
    "currency in some cells": (marked("${}", 2), "numbers with the same unit"),
    "percent and fractions": (lambda i: f"{i}.5%" if i % 2 else f"0.{i + 10}", "the same unit"),
    "two units": (marked("{} lb", 5, "{} kg"), "numbers with the same unit"),
    "lakh": (lambda i: f'"{i + 1},{i + 10},{i + 123}"', "a clear mark of thousands"),
    "decimals or thousands": (lambda i: f"{i + 10}.{(i * 997) % 1000:03}", "thousands or decimals"),
    "eight digits": (lambda i: f"{1950 + i}{i % 12 + 1:02}{i % 28 + 1:02}", "numbers or dates"),
    "day or month": (lambda i: f"{i % 9 + 1}/{i % 5 + 1}/2024", "dates such as"),
}


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("kind", DOUBTFUL_COLUMNS)
def test_cells_with_two_meanings_raise_with_the_options_that_decide(kind, target, read):
    cells, wanted = DOUBTFUL_COLUMNS[kind]
    text = lines(cells, [f"{i % 7}" for i in range(N)], names="a,y")
    with pytest.raises(ValueError) as error:
        read(text, "a" if target else "y")
    message = str(error.value)
    assert (
        wanted in message and "column 'a'" in message and "Use --" in message.replace("use", "Use")
    )
    assert message.count("(line ") == 1 or message.count("(line ") == 2
    if kind == "lakh":
        table = read(text, "a", options=ReadingOptions(decimal="point"))
        assert table.y[0] == 110123
    if "--ignore a" in message and not target:
        table = read(text + "", options=ReadingOptions(words=("a",)))
        assert table.meanings[0].coding.kind == "words"


IDENTIFIER_NAMES = (
    "ID", "Id", "Customer Id", "patientid", "Patient-ID", "ID_patient", "Sample No", "sampleNo",
    "Nr.", "S.No", "Lfd. Nr.", "#", "Unnamed: 0.1", "index", "Row_Number", "row", "obs", "Case",
)  # fmt: skip


@pytest.mark.parametrize("name", IDENTIFIER_NAMES)
def test_identifiers_are_ignored_in_any_order_unless_kept(name, read):
    numbers = [i * 7 % N + 3 for i in range(N)]
    text = lines(A, numbers, Y, names=f"a,{name},y")
    assert read(text, "y").meanings[1].coding.kind == "left out"
    kept = read(text, "y", options=ReadingOptions(keep=(name,)))
    assert kept.meanings[1].coding.kind == "numbers"
    assert read(text.replace(name, "height"), "y").meanings[1].coding.kind == "numbers"
    repeated = read(lines(A, [i // 4 for i in range(N)], Y, names=f"a,{name},y"), "y")
    assert repeated.meanings[1].coding.kind == "numbers"


def test_rows_of_one_person_and_sorted_dates_are_named(read):
    text = lines(
        lambda i: f"{i // 4}", lambda i: f"2024-01-{i // 2 + 1:02}", Y, names="patient,day,y"
    )
    notes = notes_of(read(text))
    assert notes[0].startswith("Column 'patient' has 10 different values in 40 rows. If each value")
    assert notes[2].startswith("The dates in column 'day' are sorted.")


@pytest.mark.parametrize(
    "form", ["{}_{}", "2024_0{}", "{}-{}", "{}/{}", "0x{}", "{}E{}x", "{}.{}.7"]
)
def test_words_that_look_like_numbers_stay_words(form, read):
    table = read(lines(lambda i: form.format(i % 4 + 1, i % 3), Y, names="a,y"))
    assert table.meanings[0].coding.kind == "words"


def test_missing_words_and_options_for_them(read):
    words = ("NA", "None", "x", "?")
    table = read(lines(lambda i: words[i % 4], lambda i: ("-1", "3.5", "NA", "7")[i % 4], Y))
    assert table.meanings[0].coding.categories == ("", "NA", "None", "x")
    assert np.isnan(table.meanings[1].values).sum() == N // 4
    table = read(
        lines(lambda i: words[i % 4], lambda i: ("-1.0", "3.5", "NA", "7")[i % 4], Y),
        options=ReadingOptions(na=("None", "-1")),
    )
    assert table.meanings[0].coding.categories == ("", "NA", "x")
    assert np.isnan(table.meanings[1].values).sum() == N // 2


# First lines: (text, True if they are names, or None if that is not clear).
SHARES = "".join(f"0.{i % 9},0.{i % 7},{i % 10 / 10},{'pq'[i % 2]}\n" for i in range(N))
FIRST_LINES = {
    "numbers far away and a word": ("9.5,3.1,0.5,class\n" + SHARES, True),
    "a sample": ("0.5,0.3,0.25,q\n" + SHARES, False),
    "numbers far away and a word of the column": ("9.5,3.1,0.5,p\n" + SHARES, None),
    "equal numbers": ("0.1,0.1,0.1,q\n" + SHARES, False),
    "numbers of columns": (
        "0,1,2,3,4\n" + "".join(f"{i % 7}.5,{i % 5},{i},{i % 3}.5,{i % 2}\n" for i in range(N)),
        True,
    ),
    "a count of other numbers": (
        "1,2,3,4,5\n" + "".join(f"{i % 7},{i % 5},{i},{i % 6},{i % 9}\n" for i in range(N)),
        None,
    ),
    "a new word": ("0.5,0.3,0.25,r\n" + SHARES, False),
    "two words": ("p,u\n" + "".join(f"{'pq'[i % 2]},{'vw'[i % 2]}\n" for i in range(N)), None),
    "years": (
        "country,2001,2002,2003\n"
        + "".join(f"{'ab'[i % 2]},{1990 + i},{1980 + i * 2},{2100 - i}\n" for i in range(N)),
        None,
    ),
}


@pytest.mark.parametrize("kind", FIRST_LINES)
def test_first_lines_are_names_or_data_or_raise(kind, read, tmp_path):
    text, named = FIRST_LINES[kind]
    path = tmp_path / "t.csv"
    path.write_text(text)
    if named is None:
        with pytest.raises(ValueError, match="line 1, must be names or data, .* --header no."):
            open_table(path)
    else:
        assert open_table(path).named == named
    for header in ("yes", "no"):
        sheet = open_table(path, ReadingOptions(header=header))
        assert sheet.named == (header == "yes") and len(sheet.lines) == N + (header == "no")


def test_second_columns_of_one_name_get_a_number(read):
    table = read(lines(A, B, Y, names="a,a,y"))
    assert table.names == ("a", "a.1") and "Several columns are named 'a'" in table.notes[0]


def frame_of_kinds():
    return pd.DataFrame(
        {
            "a": A,
            "code": pd.Categorical([f"{i % 3:03}" for i in range(N)]),
            "when": pd.date_range("2024-01-31", periods=N, freq="36h"),
            "gap": [None if i % 5 == 0 else int(i * i) for i in range(N)],
            "ok": [bool(i % 3) for i in range(N)],
            "y": np.round(Y, 3) + 49,
        }
    )


@pytest.mark.parametrize("kind", ["frame", ".parquet", ".feather", ".dta", ".xlsx"])
def test_tables_with_types_are_read_as_their_text(kind, tmp_path):
    """A DataFrame and files of typed cells have the values of the table as a text file. Numbers of
    three decimals raise no question, since their mark is known.
    """
    frame = frame_of_kinds()
    path = tmp_path / f"t{kind}"
    if kind == "frame":
        path = frame
    elif kind == ".dta":
        frame.assign(code=frame["code"].astype(str)).to_stata(path, write_index=False)
    else:
        pytest.importorskip("openpyxl" if kind == ".xlsx" else "pyarrow")
        writer = {".parquet": "to_parquet", ".feather": "to_feather", ".xlsx": "to_excel"}[kind]
        getattr(frame, writer)(path, **({"index": False} if kind == ".xlsx" else {}))
    table = read_table(path, "y", options=ReadingOptions(words=("code",)))
    kinds = [meaning.coding.kind for meaning in table.meanings]
    assert kinds[0] == kinds[3] == "numbers" and kinds[1] == "words" and kinds[2] == "dates"
    assert np.array_equal(table.y, frame["y"]) and np.array_equal(table.values[:, 0], A)
    assert np.array_equal(table.meanings[2].values, np.arange(N) * 1.5)
    assert np.isnan(table.meanings[3].values).sum() == N // 5
    assert table.sheet.lines[0] == {"frame": 0, ".xlsx": 2}.get(kind, 1)


def test_a_sheet_of_several_is_chosen_by_name_or_number(tmp_path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"a": A, "y": Y}).to_excel(book, sheet_name="first", index=False, startrow=2)
        pd.DataFrame({"b": B, "y": Y}).to_excel(book, sheet_name="second", index=False)
    with pytest.raises(ValueError, match="must have one sheet, got first, second. Choose one"):
        read_table(path)
    for sheet, names in (("first", ("a",)), ("second", ("b",)), ("1", ("b",))):
        table = read_table(path, options=ReadingOptions(sheet=sheet))
        assert table.names == names and np.array_equal(table.y, Y)
        assert table.sheet.lines[0] == (4 if sheet == "first" else 2)
    with pytest.raises(ValueError, match="must have the sheet 'third', got first, second."):
        read_table(path, options=ReadingOptions(sheet="third"))


@pytest.mark.parametrize("kind", [".xlsx", ".parquet", ".feather", ".dta"])
def test_damaged_files_raise_one_sentence(kind, tmp_path):
    for module in ("openpyxl", "pyarrow"):
        pytest.importorskip(module)
    path = tmp_path / f"t{kind}"
    path.write_bytes(b"PK\x03\x04" * 50)
    with pytest.raises(
        ValueError, match=f"t{kind} cannot be read as a {kind} file: .*[.]$"
    ) as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_files_that_unpack_to_much_more_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("pyarrow")
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "a", 1
    book.save(tmp_path / "far.xlsx")
    with pytest.raises(
        ValueError, match="must have its cells side by side, got a sheet of 1048576"
    ):
        read_table(tmp_path / "far.xlsx")
    pd.DataFrame({"a": np.zeros(200_000), "y": np.ones(200_000)}).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("fastcurv.applications.cli.tables.max_unpacked_bytes", lambda path: 100_000)
    with pytest.raises(ValueError, match="must unpack to at most 100000 bytes"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("comma", [False, True])
def test_ambiguous_thousands_or_decimal_separators_raise(comma, read):
    """If a column has values such as 850 and 1.200, where the point may separate thousands or
    decimals, ValueError is raised. If a value such as 1.5 shows that the point marks decimals, the
    column is read.
    """
    mark = "." if not comma else ","
    whole = [str(150 * (i + 1)) for i in range(N)]
    cells = [f"{value[:-3]}{mark}{value[-3:]}".strip(mark) for value in whole]
    pairs = [f"{i},5" if comma else f"{i % 7}" for i in range(N)]
    with pytest.raises(ValueError, match="column 'y', must be numbers whose mark sep"):
        read(lines(pairs, cells, names="a,y", mark=";"))
    for decimal, value in (("point", 1.2), ("comma", 1200)):
        table = read(
            lines(range(N), cells, names="a,y", mark=";"), options=ReadingOptions(decimal=decimal)
        )
        assert table.y[7] == (value if not comma else {1.2: 1200, 1200: 1.2}[value])
    cells[0] = f"1{mark}5"
    table = read(lines(pairs, cells, names="a,y", mark=";"))
    assert table.y[0] == 1.5 and table.y[7] == 1.2 and table.y[1] == 300


def test_quoted_decimal_commas_are_not_thousands_separators(read):
    quoted = [f'"{cell}"' for cell in commas(np.round(np.arange(N) / 7, 3))]
    table = read(lines(quoted, quoted[::-1], names="a,y"))
    assert np.array_equal(table.y, np.round(np.arange(N) / 7, 3)[::-1])
    thousands = [f'"{1000 + 1137 * i:,}"' for i in range(N)]
    assert np.array_equal(read(lines(A, thousands, names="a,y")).y, 1000.0 + 1137 * np.arange(N))


def test_numbers_in_parentheses_are_negative(read):
    table = read(
        lines(A, [f"(${i + 1}.50)" if i % 2 else f"${i}.25" for i in range(N)], names="a,y")
    )
    assert table.y[:4].tolist() == [0.25, -2.5, 2.25, -4.5]


def test_two_decimal_separators_in_one_table_raise(read):
    prices = [f"{i},{i:02} \u20ac" for i in range(N)]
    with pytest.raises(ValueError, match="must have the decimal mark of all numbers, got '"):
        read(lines(A, prices, names="a,y", mark=";"))
    whole = [str(i) for i in range(N)]
    assert read(lines(whole, prices, names="a,y", mark=";")).y[3] == 3.03
