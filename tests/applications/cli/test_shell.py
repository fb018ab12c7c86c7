"""The shell: arguments, exit statuses, output files, and streams that fail."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli import commands
from fastcurv.applications.cli.output import PAGE_SUFFIXES, CommandOutput, check_output_path
from fastcurv.applications.cli.parser import build_parser, main
from fastcurv.applications.cli.predict import format_csv
from fastcurv.common import files
from fastcurv.common.progress import show_bar
from fastcurv.spectrum.results import to_json_value

PROGRAM = f"{sys.executable} -m fastcurv"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
posix = pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
CONTROLS = "".join(map(chr, (*range(1, 32), *range(127, 160), 0x202E, 0x2066, 0x200F, 0xFEFF)))
HOSTILE = f"<!--<script></script><svg onload=x>]]>&amp;\x1b]0;owned\x07\x1b[2J{CONTROLS}\udcff"


def test_info_and_bench_report_machine_and_versions(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numpy"] == np.__version__
    assert main(["bench", "--sizes", "8,6,3", "--samples", "20", "--dtype", "float64"]) == 0
    assert re.search(r"float64 +[\d.e-]+ +[\d.e-]+ +[\d.]+ +\d+%", capsys.readouterr().out)
    assert fc.show_versions() is None
    printed = capsys.readouterr().out
    for name, value in fc.show_versions("dict").items():
        assert f"{name}: {value}" in printed
    with pytest.raises(ValueError, match="must be 'print' or 'dict'"):
        fc.show_versions("json")


@pytest.mark.parametrize(
    ("sizes", "flops"), [([3, 4, 2], 72), ([5, 2], 20), ([2, 3, 4, 2], 132), ([1, 7, 1], 56)]
)
def test_bench_counts_the_multiplications_of_a_product(sizes, flops, monkeypatch):
    """For each sample and weight, `bench` counts two multiplications in the first layer, for R z
    and the product. In other layers it counts six, because R z, R e and the product have two terms
    each.
    """
    monkeypatch.setattr(commands, "best_time", lambda call: 0.5)
    monkeypatch.setattr(fc._engine, "measure_fma_peak", lambda dtype, threads: 1e3)
    args = Namespace(sizes=sizes, samples=10, activation="tanh", threads=1)
    row = commands.bench_row(args, "float32")
    assert row["share_of_peak"] == pytest.approx(2 * 10 * flops / 0.5 / 1e3)
    assert row["product"] == row["gradient"] == 0.5 and row["dtype"] == "float32"


INVALID_ARGUMENTS = {
    "": "fastcurv: the following arguments are required: COMMAND. See fastcurv --help.",
    "train iris": "invalid choice: 'train' (choose from",
    "report t.csv --tarket y": "unrecognized arguments: --tarket y. See fastcurv --help.",
    "bench --threads 1025": "--threads: must be a whole number from 1 to 1024, got 1025.",
    "bench --threads a": "--threads: must be a whole number from 1 to 1024, got a.",
    "bench --samples -3": "--samples: must be a whole number of at least 1, got -3.",
    "bench --sizes 8": "sizes must have at least two widths, of the input and of the output, got",
    "bench --sizes 3,x": "--sizes: must be widths like 32,16, got '3,x'.",
    "bench --activation cosine --sizes 8,3": "activation must be one of",
    "report t.csv --hidden 0": "--hidden: must be widths",
    "report t.csv --loss hinge": "--loss: must be a valid loss",
    "report t.csv --loss quantile(2)": "level must be a number",
    "predict n x.csv --interval 0": "--interval: must be a number",
    "predict n x.csv --interval 90": "--interval: must be a number between 0 and 1, got 90.",
    "predict n x.csv --interval nan": "--interval: must be a number",
    f"report t.csv --{HOSTILE.replace(' ', '')}": "\\x1b]0;owned\\x07",
}


@pytest.mark.parametrize("arguments", INVALID_ARGUMENTS)
def test_invalid_arguments_print_one_line_and_exit_with_status_2(arguments, capsys):
    try:
        status = main(arguments.split(" ") if arguments else [])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert status == 2 and said.out == "" and said.err.count("\n") == 1
    assert INVALID_ARGUMENTS[arguments] in said.err
    assert said.err.rstrip("\n").isprintable()


def test_help_names_the_options_of_a_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: fastcurv report" in said and "--groups" in said
    assert build_parser().parse_args(["bench", "--threads", "1024"]).threads == 1024


# --- files that are written


@pytest.mark.parametrize("out", ["r.pdf", "r", "r.html.txt", ".html"])
@pytest.mark.parametrize("command", ["demo", "report t.csv"])
def test_pages_must_be_named_html(command, out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fc, "Objective", lambda *_, **__: pytest.fail("work was begun"))
    assert main([*command.split(), "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f": out must end in .html or .htm, got '{out}'.\n")
    assert not list(tmp_path.iterdir())
    for good in ("r.HTML", "a/r.htm"):
        check_output_path(tmp_path / good, kinds=PAGE_SUFFIXES)


@pytest.mark.parametrize("out", ["/proc/x.html", "{folder}", "{folder}/", "/dev/null/x.html"])
def test_unwritable_output_files_are_reported_before_any_work(out, tmp_path, capsys):
    place = out.format(folder=tmp_path / "a.html")
    (tmp_path / "a.html").mkdir()
    assert main(["report", str(tmp_path / "t.csv"), "--out", place]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("fastcurv report: out ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_checking_an_output_path_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "00" * n)
    mine = tmp_path / f".fastcurv-{'00' * 8}.part"
    mine.write_text("kept")
    with pytest.raises(ValueError, match="cannot be written to.*File exists"):
        check_output_path(tmp_path / "x.html", "out")
    assert mine.read_text() == "kept"
    monkeypatch.undo()
    check_output_path(tmp_path / "a" / "b" / "y.html", "out")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


# --- streams


def shell(command, **options):
    options = {"capture_output": True, "timeout": 1200, "executable": "/bin/bash"} | options
    return subprocess.run(command, shell=True, **options)


@pytest.mark.by_day(share=1 / 3)
@posix
@FULL
@pytest.mark.parametrize("command", ["info", "--help"])
def test_status_is_3_if_output_cannot_be_written(command):
    ran = shell(f"{PROGRAM} {command} >/dev/full")
    assert ran.returncode == 3 and ran.stderr.count(b"\n") == 1
    assert b"standard output could not be written: " in ran.stderr
    ran = shell(f"{PROGRAM} {command} >&-")
    assert ran.returncode == 0 and ran.stderr == b""


@pytest.mark.by_day(share=1 / 3)
@posix
@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", "2>/dev/full"])
def test_status_is_2_for_invalid_arguments_if_standard_error_fails(where):
    if "full" in where and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for command in ("report missing.csv", "bench --samples x"):
        ran = shell(f"{PROGRAM} {command} {where}")
        assert ran.returncode == 2 and ran.stdout == b"" and b"Traceback" not in ran.stderr
        assert ran.stderr.count(b"\n") == ("2>" not in where)


def test_commands_run_without_standard_streams(tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            assert main(["report", str(tmp_path / "missing.csv")]) == 2
            status = main(["info"])
            with pytest.raises(SystemExit) as stop:
                main(["bench", "--samples", "x"])
        assert stop.value.code == 2 and status == (0 if stream is None else 3)


def test_predictions_are_escaped_on_terminals_only(monkeypatch, capsys):
    columns = {"y": np.array(["a\x1b[2J", "b\rc"], object), "p": np.array([0.5, 1.0])}
    text = format_csv(columns)
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [
        ["a\x1b[2J", "0.5"],
        ["b\rc", "1.0"],
    ]
    CommandOutput().print_csv(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    CommandOutput().print_csv(text)
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_json_replaces_nan_and_infinity_by_null():
    odd = {"a": np.nan, "b": np.array([1.0, np.inf]), "c": (np.int64(3), None, True)}
    assert json.dumps(to_json_value(odd)) == '{"a": null, "b": [1.0, null], "c": [3, null, true]}'


INTERRUPTED = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ["fastcurv", "report", "data.csv"]
from fastcurv_command import main
sys.exit(main())
"""


@posix
@pytest.mark.parametrize("module", ["numpy", "scipy.linalg", "fastcurv.applications.cli.commands"])
def test_ctrl_c_during_imports_prints_no_traceback(module):
    """If Ctrl-C is pressed while the command is imported, the process ends by SIGINT or with status
    130, and prints no traceback.
    """
    command = [sys.executable, "-c", INTERRUPTED.format(module)]
    paths = os.pathsep.join(filter(None, sys.path))
    run = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert run.returncode in (-signal.SIGINT, 130), run
    assert run.stdout == "" and run.stderr in ("", "fastcurv report: interrupted\n")


# --- progress bars


def test_progress_bars_on_a_broken_standard_error_are_harmless(monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto")
    from fastcurv.common.progress import _TqdmBar

    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

    ob = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse", l2=0.1)
    for stream in (Full(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert fc.minimize(ob, method="adam", max_iter=3, progress=True).nit == 3
    made = tqdm.tqdm(total=3, file=SimpleNamespace(write=lambda _: None, flush=lambda: None))
    made.fp = Full()
    for call in (lambda s: s.note("x"), lambda s: s.update(2), lambda s: s.close()):
        call(_TqdmBar(made))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_appear_on_terminals_for_long_calls(terminal, monkeypatch):
    """A progress bar appears on a terminal, at once if the call is expected to take seconds, and
    otherwise after some seconds. No bar appears in a pipe, in a nested call or with progress=False.
    """
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)

    def bar_text(enabled, ahead=0.0, passed=1.0):
        screen.seek(0)
        screen.truncate()
        now = time.monotonic()
        with show_bar(3, "steps", enabled, ahead) as told:
            monkeypatch.setattr(time, "monotonic", lambda: now + passed)
            monkeypatch.setattr(time, "time", lambda: now + passed)
            told.note("all eigenvalues")
        monkeypatch.undo()
        monkeypatch.setattr(sys, "stderr", screen)
        return "all eigenvalues" in screen.getvalue()

    assert bar_text(True) and not bar_text(False, 9.0)
    assert [bar_text(None), bar_text(None, 9.0), bar_text(None, 0.0, 9.0)] == [
        False,
        terminal,
        terminal,
    ]
    for outer in (None, False):
        with show_bar(3, "outer", outer):
            assert not bar_text(None, 9.0)
    assert bar_text(None, 9.0) == terminal


def test_progress_notes_are_drawn_at_most_ten_times_a_second(monkeypatch):
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    now = time.monotonic() + 1.0
    with show_bar(300, "steps", True) as told:
        for step in range(100):
            monkeypatch.setattr(time, "monotonic", partial(float, now + step / 100))
            told.note(f"note {step};")
    monkeypatch.undo()
    assert 9 <= len(set(re.findall("note [0-9]+;", screen.getvalue()))) <= 11
