"""Tables of users: what is read, noted and refused, and how columns become inputs."""

import gzip
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from fastcurv.applications.cli import tables  # noqa: E402
from fastcurv.applications.cli.coding import Coding, code_table, column_transformer  # noqa: E402
from fastcurv.applications.cli.tables import ReadingOptions, read_table  # noqa: E402

N = 24
rng = np.random.default_rng(0)
A, B = rng.normal(size=(2, N)).round(3)
Y = (A + B**2).round(3)


def lines(*columns, names="a,b,y", mark=",", end="\n"):
    """Return a table of N rows as text. Each column is a sequence of cells or a function of the row
    number.
    """
    cells = [[str(c(i)) for i in range(N)] if callable(c) else [*map(str, c)] for c in columns]
    return "".join(mark.join(row) + end for row in ([names.replace(",", mark)], *zip(*cells)))


PLAIN = lines(A, B, Y)


def rows_of(content, folder, options=None, target=None, name="t.csv", loss=None, groups=None):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = ReadingOptions(**(options or {}))
    return code_table(read_table(path, options, target), options, target, loss, groups)


# By kind: (text, options, inputs, part of a note) of tables that are read.
READ = {
    "commas": (PLAIN, {}, "a b", ""),
    "semicolons": (lines(A, B, Y, mark=";"), {"sep": ";"}, "a b", ""),
    "decimal commas": (
        lines(*([f"{v}".replace(".", ",") for v in x] for x in (A, B, Y)), mark=";"),
        {"sep": ";", "decimal": ","}, "a b", "",
    ),
    "Windows": (b"\xef\xbb\xbf" + lines(A, B, Y, end="\r\n").encode(), {}, "a b", ""),
    "blank lines": (PLAIN.replace("\n", "\n\n,,\n"), {}, "a b", ""),
    "no names": (PLAIN.partition("\n")[2], {"header": False}, "column 1|column 2", ""),
    "lines in cells": (
        lines(A, ['"u\n2, ""3"""', "v"] * (N // 2), B, Y, names="a,i,b,y"), {"words": ("i",)},
        'a|i=u\n2, "3"|i=v|b', "",
    ),
    "row names of R": (lines(range(1, N + 1), A, B, Y, names='"",a,b,y'), {}, "a b", "numbers or"),
    "identifiers": (lines(A, lambda i: i * 7 % N + 500, B, Y, names="a,userId,b,y"), {}, "a b",
                    "Column 'userId' was left out: it numbers or names the rows"),
    "kept": (lines(A, range(N), B, Y, names="a,i,b,y"), {"keep": ("i",)}, "a i b", ""),
    "names": (lines(A, lambda i: chr(97 + i), B, Y, names="a,i,b,y"), {}, "a b",
              "its words differ in more than half of the rows"),
    "one value": (lines(A, ["x"] * N, B, Y, names="a,i,b,y"), {}, "a b", "the same value"),
    "no targets": (PLAIN + "1,2,\n1,3,\n", {}, "a b", "2 rows without a target were ignored."),
    "empty cells": (lines(A, lambda i: "" if i % 3 else i, Y).replace(",,", ",9,", 9), {}, "a b",
                    "cells (29%) of column 'b' are empty and hold the median instead."),
    "a mark for empty": (PLAIN + "1,NA,3\n", {"na": ("NA",)}, "a b", "1 of 25 cells (4%)"),
    "empty words": (lines(lambda i: ("", "u", "v")[i % 3], B, Y), {}, "a=missing|a=u|a=v|b",
                    "8 of 24 cells (33%) of column 'a' are empty and are a word of their own."),
    "booleans": (lines(lambda i: i % 3 == 0, B, Y), {}, "a=False|a=True|b", ""),
    "ISO dates": (lines(lambda i: f"2024-01-{i + 1:02}", B, Y), {}, "a b",
                  "counted in days, from 2024-01-01 to 2024-01-24."),
    "offsets": (lines(lambda i: f"2024-01-{i + 1:02}T09:00+01:00", B, Y), {}, "a b", "to UTC."),
    "other dates": (lines(lambda i: f"{i + 1}/3/2024", B, Y),
                    {"dates": ("a",)}, "a b", "'1/3/2024' (line 2) was read as 2024-03-01."),
    "codes": (lines(lambda i: f"00{i % 2}", B, Y), {"words": ("a",)}, "a=000|a=001|b", ""),
    "composed": (lines(lambda i: ("Gen\u00e8ve", "Gene\u0300ve", "Bern")[i % 3], B, Y), {},
                 "a=Bern|a=Gen\u00e8ve|b", ""),
    "labels": (lines(A, B, lambda i: f"class_{i % 3}"), {}, "a b",
               "The words of column 'y', such as 'class_0', name classes."),
    "dummies": (lines(lambda i: i % 2, lambda i: i // 2 % 2, lambda i: i % 2 + i // 2 % 2), {},
                "a b", "The 3 different numbers of 'y' were taken for classes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_tables_that_are_read(kind, tmp_path):
    text, options, names, note = READ[kind]
    data = rows_of(text, tmp_path, options)
    assert data.coding.input_names == names.split("|" if "|" in names else " ")
    assert any(note in sentence for sentence in (*data.notes, ""))
    if names == "a b" and "dates" not in note and kind in ("commas", "semicolons", "Windows"):
        X = np.column_stack([A, B])
        assert np.allclose(data.X, (X - X.mean(axis=0)) / X.std(axis=0), rtol=1e-12, atol=1e-12)
        assert np.array_equal(data.y, Y) and data.table.places == [
            f"line {i + 2}" for i in range(N)
        ]


def column(form, every=1, usual="{}"):
    """Return a table whose column a has cells of this form in every `every`-th row."""
    cells = [(form if i % every == 0 else usual).format(f"{i + 11}.{i + 25}") for i in range(N)]
    return lines(cells, B, Y)


def with_sums(words):
    body = [f"k{'abc'[i % 3]},{i * 7 % 11 + 1},{i * i % 13 + 1}" for i in range(N)]
    sums = (
        f"{words},{sum(i * 7 % 11 + 1 for i in range(N))},{sum(i * i % 13 + 1 for i in range(N))}"
    )
    return "\n".join(["w,x,y", *body, sums]) + "\n"


# By kind: (text, part of the message, options if any) of tables that are refused.
REFUSED = {
    "empty": ("", "must hold a table, got an empty file."),
    "names only": ("a,y\n", "at least 10 rows with a target in column 'y', got 0."),
    "one column": ("a\n1\n", "line 1, must have at least two columns, got one."),
    "semicolons": (lines(A, B, Y, mark=";"), "got one. Use --sep ';'."),
    "short line": (PLAIN + "1,2\n", f"line {N + 2}, must have 3 cells, as the first line"),
    "long line": (PLAIN + "1,2,3,4\n", f"line {N + 2}, must have 3 cells"),
    "title": ("My plants\n\n" + PLAIN, "line 3, must have 1 cells"),
    "comment": ("# x, y\n" + PLAIN, "line 2, must have 2 cells"),
    "marks at ends": (PLAIN.replace("\n", ",\n"), "line 1, must have a name for each of 4 columns"),
    "no names": (PLAIN.partition("\n")[2], "Use --header no if it is a row"),
    "a name twice": (lines(A, B, Y, names="a,a,y"), "must have each name once, got 'a' twice."),
    "composed names": (lines(A, B, Y, names="\u00e9,e\u0301,y"), "must have each name once"),
    "names again": (PLAIN + PLAIN, f"line {N + 2}, must be a row, got the line of names again."),
    "NUL": (PLAIN + "1,2,\0\n", "must be text, got a NUL byte."),
    "open quote": (PLAIN + '"1,2,3\n', "must have its double quotes in pairs"),
    "quote in a cell": (PLAIN + '"5" x,1,2\n', "must have its double quotes in pairs"),
    "UTF-16": (PLAIN.encode("utf-16"), "must be text in UTF-8, got the byte 0xff. Convert it with"),
    "Windows-1252": (b"\xe9" + PLAIN.encode(), "must be text in UTF-8, got the byte 0xe9."),
    "typo": (PLAIN + "1,l.5,3\n", "column 'b', must have numbers or words in all cells, not both, "
             f"got 'l.5' (line {N + 2}). Correct the cells, or use --words \"b\", --ignore"),
    "typo in targets": (PLAIN + "1,2,2..3\n", "column 'y', must have numbers or words"),
    "NA": (PLAIN + "1,NA,3\n", '--na "NA"'),
    "infinite": (PLAIN + "inf,1,2\n", "must have numbers of at most 1e+75 in magnitude, got 'inf'"),
    "leading zeros": (lines(lambda i: f"0{i + 10}", B, Y), "without leading zeros, got '010' "
                      "(line 2), '011' (line 3), '012' (line 4). Use --words \"a\""),
    "long numbers": (lines(lambda i: 2**53 + 1 + i, B, Y), "numbers of at most 9.01e+15"),
    "thousands": (column('"{},000"'), "numbers alone, not numbers in another notation"),
    "Fortran": (column("{}D+02"), "(line 2), '12.26D+02' (line 3), '13.27D+02' (line 4)"),
    "minus at the end": (column("{}-"), "numbers alone"),
    "degrees": (column("47\u00b012'{}''"), "numbers alone"),
    "errors": (column("{} \u00b1 0.3"), "numbers alone"),
    "quarters": (lines(lambda i: f"20{i + 10}Q3", B, Y), "numbers alone"),
    "unit": (column("{} kg"), "numbers alone"),
    "unit in some cells": (column("{} kg", 4), "numbers or words in all cells, not both"),
    "limits of detection": (column("<{}", 4), "not both, got '<11.25' (line 2)"),
    "currency": (column("${}"), "numbers alone"),
    "percent": (column("{}%"), "numbers alone"),
    "parentheses": (column("({})"), "numbers alone"),
    "times": (lines(lambda i: f"{i}:{i + 10}", B, Y), "numbers alone"),
    "dates": (lines(lambda i: f"{i + 1}.3.2024", B, Y), '--dates "a"'),
    "days or months": (lines(lambda i: f"{i % 12 + 1}.3.2024", B, Y),
                       "dates that have one meaning, such as 2024-12-31, got '1.3.2024' (line 2)",
                       {"dates": ("a",)}),
    "some offsets": (lines(lambda i: f"2024-01-{i + 1:02}T00:00" + "Z" * (i % 2), B, Y),
                     "must have dates with an offset, or without"),
    "half empty": (lines(lambda i: "" if i % 3 else i, B, Y), "got empty cells in 67%. Use"),
    "dates as target": (lines(A, B, lambda i: f"2024-01-{i + 1:02}"), "got dates"),
    "prices as target": (lines(A, B, lambda i: f"EUR {i % 3}.5"), "numbers alone"),
    "names as target": (lines(A, B, lambda i: chr(97 + i)), "at most 12 classes in 24 rows"),
    "one target": (lines(A, B, ["1"] * N), "at least two different values, got 1."),
    "no inputs": (lines(lambda i: chr(97 + i), Y, names="a,y"), "a column to predict from"),
    "total": (with_sums("all"), f"no rows that are sums of other rows, got them in lines {N + 2}."),
    "total in one column": (
        "\n".join(["w,y", *(f"k,{i * i % 7}" for i in range(N)),
                   f"Sub-total,{sum(i * i % 7 for i in range(N))}"]), "no rows that are sums",
    ),
    "no such target": (PLAIN, "target must be a column of the table, got 'z'; its columns are a"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_tables_that_are_refused(kind, tmp_path):
    """The message is one line that names the column, or the line, and the options that decide."""
    text, words, *options = REFUSED[kind]
    with pytest.raises(ValueError) as error:
        rows_of(text, tmp_path, *options, target="z" if kind == "no such target" else None)
    message = str(error.value)
    assert words in message and message.isprintable() and message[-1] == "."


@pytest.mark.parametrize("name", ["t.dta", "t.ods", "t.feather", "t.sav", "t.json", "t.txt", "t"])
def test_other_formats_are_refused_with_the_line_that_converts_them(name, tmp_path):
    with pytest.raises(ValueError, match=r"Convert it with pandas\.read_(\w+)\(.*\)\.to_csv") as e:
        read_table(tmp_path / name, ReadingOptions())
    found = str(e.value).partition("pandas.")[2].partition("(")[0]
    assert callable(getattr(pd, found))


def frame_of_kinds():
    return pd.DataFrame(
        {
            "a": A,
            "code": pd.Categorical([f"k{i % 3}" for i in range(N)]),
            "when": pd.date_range("2024-01-31", periods=N, freq="36h"),
            "gap": [None if i % 5 == 0 else float(i * i) for i in range(N)],
            "ok": [bool(i % 3) for i in range(N)],
            "y": Y,
        }
    )


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.xlsx", "t.parquet"])
def test_all_formats_give_the_same_inputs(name, tmp_path):
    frame = frame_of_kinds()
    if name == "t.xlsx":
        pytest.importorskip("openpyxl")
        frame.to_excel(tmp_path / name, index=False)
    elif name == "t.parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if ".tsv" in name else ",")
    options = ReadingOptions(words=("code",))
    data = code_table(read_table(tmp_path / name, options), options, "y", None, None)
    kinds = [column.kind for column in data.coding.columns]
    assert kinds == ["numbers", "words", "dates", "numbers", "words"]
    assert np.array_equal(data.y, Y) and data.X.shape == (N, 8)
    assert data.X[:, 4] == pytest.approx((np.arange(N) - 11.5) / np.arange(N).std())
    assert data.table.places[0] == ("row 1" if name == "t.parquet" else "line 2")


def workbook(path, change):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["a", "b", "y"], *np.column_stack([A, B, Y]).tolist()]:
        book.active.append(row)
    change(book)
    book.save(path)


def add_totals(book):
    from openpyxl.worksheet.table import Table

    table = Table(displayName="t", ref=f"A1:C{N + 1}", totalsRowCount=1)
    book.active.add_table(table)


WORKBOOKS = {
    "merged": (lambda book: book.active.merge_cells("A3:A5"), "no merged cells, got A3:A5."),
    "totals": (add_totals, "no row of totals, got one in A1:C25."),
    "two sheets": (lambda book: book.create_sheet("b"), "one sheet, got Sheet, b. Choose one with"),
    "stray cell": (lambda book: book.active.cell(9, 7, "x"), "got none for column 4."),
    "text": (lambda book: book.active.cell(9, 1, "x"), "column 'a', must have cells of one type, "
             "got number, text, got 'x' (line 9)"),
    "names again": (lambda book: book.active.append(["a", "b", "y"]), f"line {N + 2}, must be a"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WORKBOOKS)
def test_workbooks_that_are_refused(kind, tmp_path):
    change, words = WORKBOOKS[kind]
    workbook(tmp_path / "t.xlsx", change)
    with pytest.raises(ValueError) as error:
        read_table(tmp_path / "t.xlsx", ReadingOptions())
    assert words in str(error.value)
    if kind == "two sheets":
        assert len(read_table(tmp_path / "t.xlsx", ReadingOptions(sheet="Sheet")).places) == N


def test_inputs_are_those_of_scikit_learns_column_transformer(tmp_path):
    """Inputs equal those of the transformer bit for bit. Words beyond the 30 most frequent have one
    input, and new words are noted.
    """
    n = 400
    dice = np.random.default_rng(1)
    letters = np.minimum(dice.geometric(0.06, n), 45).tolist()
    words = [chr(97 + k) * 2 if k < 26 else "z" * k for k in letters]
    frame = pd.DataFrame({"a": dice.normal(size=n), "w": words, "y": dice.normal(size=n)})
    frame.loc[::7, "a"] = np.nan
    frame.loc[::9, "w"] = None
    data = rows_of(frame.to_csv(index=False), tmp_path)
    transformer, matrix, numbers, words = column_transformer(data.table.columns)
    assert np.array_equal(transformer.fit_transform(matrix), data.X) and (numbers, words) == (
        [0],
        [1],
    )
    _, code = data.coding.columns
    assert len(code.words) == 30 and code.others and "" in code.words
    assert any("those beyond the 30 most frequent are one input" in note for note in data.notes)
    again = Coding.from_dict(json.loads(json.dumps(data.coding.to_dict())), data.X.shape[1])
    assert again == data.coding and np.array_equal(again.encode(data.table), data.X)
    (tmp_path / "new.csv").write_text("w,a\nnever,1\nbb,\n")
    new = read_table(tmp_path / "new.csv", again.reading_options({}), "y", strict=False)
    assert new.columns[1].name == "a" and np.isnan(again.encode(new)).sum() == 0
    number = data.coding.columns[0]
    assert again.encode(new)[0, -1] == 1.0
    assert again.encode(new)[1, 0] == (number.fill - number.mean) / number.scale
    first, second = again.notes(new)
    assert first == "1 empty cells of column 'a' were filled with its median."
    assert second == "Column 'w' has 1 words with one input, other words: never."
    (tmp_path / "new.csv").write_text("w,a\nbb,x\n")
    with pytest.raises(ValueError, match=r"line 2, column 'a', must have numbers, .* got 'x'"):
        again.notes(read_table(tmp_path / "new.csv", again.reading_options({}), strict=False))
    with pytest.raises(ValueError, match="must have the columns w of the training table, got a"):
        again.notes(replace(new, columns=new.columns[1:]))


# --- files made to hurt


def zipped(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def hostile_file(kind, k, folder):
    """Return the k-th file of a format that is damaged, or unpacks to gigabytes."""
    dice = np.random.default_rng(k)
    if kind in ("csv", "csv.gz"):
        wide = 20_000 + 5_000 * k
        text = [
            PLAIN * 3 + "\x00" * k,
            ",".join(f"c{i}" for i in range(wide)) + "\n" + ",".join("1" * wide) + "\n",
            ",".join("c" * wide) + "\n",
            '"' + "x" * 200_000 * (k + 1),
            "a,y\n" + "1," * (100_000 * k) + "\n",
            "a,y\n" + "".join(f"w{i},{i % 7}\n" for i in range(20_000)),
        ][k % 6].encode()
        if kind == "csv":
            damaged = bytearray(text)
            damaged[int(dice.integers(len(text)))] = int(dice.integers(256))
            return bytes(damaged)
        packed = gzip.compress((b"a,y\n" + b"1.5,2\n" * 40_000_000) if k == 0 else text, 1)
        return packed[: len(packed) - k % 3 * 5]
    if kind == "xlsx":
        workbook(folder / "seed.xlsx", lambda book: None)
        entries = {}
        with zipfile.ZipFile(folder / "seed.xlsx") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        sheet = entries["xl/worksheets/sheet1.xml"]
        rows = b"".join(b"<row>" + b"<c><v>1</v></c>" * 2000 + b"</row>" for _ in range(500 * k))
        entries["xl/worksheets/sheet1.xml"] = [
            sheet.replace(b'<row r="3"', b'<row r="%d"' % 10**15),
            sheet.replace(b"</sheetData>", rows + b"</sheetData>"),
            sheet.replace(b'r="A3"', b'r="XFD1048576"'),
            b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 10_000 + b'">]>' + sheet,
            sheet[: int(dice.integers(len(sheet)))],
        ][k % 5]
        return zipped(entries)
    pytest.importorskip("pyarrow")
    size = 3_000_000 * (k + 1)
    frame = pd.DataFrame({"a": ["x" * size] * 60 if k % 2 else np.zeros(size), "y": 1.0})
    frame.to_parquet(folder / "seed.parquet", compression="zstd")
    content = bytearray((folder / "seed.parquet").read_bytes())
    if k % 3 == 0:
        content[int(dice.integers(len(content)))] ^= 255
    return bytes(content)


MEASURE = """
import json, resource, sys
sys.path[:] = json.loads(sys.argv[1])
from fastcurv.applications.cli.tables import ReadingOptions, read_table
import numpy, pandas, pyarrow.parquet, openpyxl
def peak(who): return resource.getrusage(who).ru_maxrss << 10
before = peak(resource.RUSAGE_SELF)
try:
    read_table(sys.argv[2], ReadingOptions())
    said = "read"
except ValueError as error:
    said = str(error)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([said, before, peak(resource.RUSAGE_SELF), peak(resource.RUSAGE_CHILDREN),
                  used.ru_utime + used.ru_stime]))
"""


@pytest.mark.child
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory of Linux")
@pytest.mark.parametrize(
    "k", [0, 1, *(pytest.param(k, marks=pytest.mark.nightly) for k in range(2, 20))]
)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "xlsx", "parquet"])
def test_hostile_files_take_bounded_memory_and_time(kind, k, tmp_path):
    """Reading takes at most 512 MiB above the imports, in either process, and 10 s of processor
    time, and ends with the table or with one sentence.
    """
    path = tmp_path / f"t.{kind}"
    path.write_bytes(hostile_file(kind, k, tmp_path))
    command = [sys.executable, "-c", MEASURE, json.dumps(sys.path), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    said, before, own, child, seconds = json.loads(run.stdout)
    assert said.isprintable() and len(said) < 1200
    assert own - before <= tables.MEMORY_BYTES and child - before <= tables.MEMORY_BYTES
    assert seconds <= tables.CPU_SECONDS + 4  # with the imports


@pytest.mark.child
@pytest.mark.nightly
def test_large_honest_tables_are_read_with_the_option_of_the_refusal(tmp_path):
    X = np.random.default_rng(0).normal(size=(1_000_000, 20)).round(4)
    pd.DataFrame(X, columns=[f"c{i}" for i in range(20)]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="--limit 8"):
        read_table(tmp_path / "t.csv", ReadingOptions())
    table = read_table(tmp_path / "t.csv", ReadingOptions(limit=8))
    assert all(np.array_equal(c.values, x) for c, x in zip(table.columns, X.T))
    assert table.places[-1] == "line 1000001"


@pytest.mark.child
def test_a_reader_that_crashes_or_prints_gives_one_sentence(tmp_path, monkeypatch, capfd):
    (tmp_path / "t.csv").write_text(PLAIN)
    crash = "import os; print('\\x1b]0;owned\\x07'); os.abort()"
    monkeypatch.setattr(tables, "CHILD_CODE", crash)
    with pytest.raises(ValueError, match=r"t\.csv must be read within 536870912 bytes .*--limit 8"):
        read_table(tmp_path / "t.csv", ReadingOptions())
    assert capfd.readouterr() == ("", "")
    monkeypatch.undo()
    (tmp_path / "pandas.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)  # modules in the working folder are not imported
    assert len(read_table("t.csv", ReadingOptions()).places) == N


@pytest.mark.child
def test_old_versions_of_pyarrow_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    frame_of_kinds().to_parquet(tmp_path / "t.parquet")
    old = tables.CHILD_CODE.replace("from", "import pyarrow; pyarrow.__version__ = '13.0'; from", 1)
    monkeypatch.setattr(tables, "CHILD_CODE", old)
    with pytest.raises(ValueError, match=r"pyarrow must be at least 14\.0\.1, got 13\.0\."):
        read_table(Path(tmp_path / "t.parquet"), ReadingOptions())
