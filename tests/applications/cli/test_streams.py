"""Results are saved and the exit status is correct, whatever happens to standard output and
standard error. Text from files of others is escaped.
"""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli import output, page
from fastcurv.applications.cli.fit_pictures import draw_dots
from fastcurv.applications.cli.output import CommandOutput
from fastcurv.applications.cli.parser import main
from fastcurv.applications.cli.predict import format_csv
from fastcurv.applications.cli.recipe import TrainingRecipe, load_run, save_run
from fastcurv.applications.cli.report import Report
from fastcurv.common.progress import show_bar

PROGRAM = f"{sys.executable} -m fastcurv"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
posix = pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
CONTROLS = "".join(map(chr, (*range(1, 32), *range(127, 160), 0x202E, 0x2066, 0x200F, 0xFEFF)))
HOSTILE = f"<!--<script></script><svg onload=x>]]>&amp;\x1b]0;owned\x07\x1b[2J{CONTROLS}\udcff"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the data d.npz and the training run run.npz."""
    folder = tmp_path_factory.mktemp("streams")
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    np.savez(folder / "d.npz", X=rng.standard_normal((40, 3)) + y[:, None], y=y)
    words = f"train {folder}/d.npz --hidden 2 --epochs 2 --l2 1e-2 --out {folder}/run.npz"
    assert main(words.split()) == 0
    return folder


def shell(command, **options):
    options = {"capture_output": True, "timeout": 1200, "executable": "/bin/bash"} | options
    return subprocess.run(command, shell=True, **options)


def train(folder, out):
    more = "--hidden 2 --epochs 2 --l2 1e-2"
    return f"{PROGRAM} train {folder}/d.npz {more} --out '{out}'"


@pytest.mark.by_day(share=1 / 6)
@posix
@pytest.mark.parametrize("json_", ["", "--json"])
@pytest.mark.parametrize(
    ("where", "status", "words"),
    [
        (">&-", 0, b""),
        (">&- 2>&-", 0, b""),
        pytest.param(">/dev/full", 3, b"No space left on device; saved ", marks=FULL),
        pytest.param(">/dev/full 2>/dev/full", 3, b"", marks=FULL),
        pytest.param("2>/dev/full", 0, b"", marks=FULL),
        ("| true", 0, b""),
    ],
)
def test_training_is_saved_if_standard_output_fails(where, status, words, json_, folder, tmp_path):
    out = tmp_path / "net.npz"
    ran = shell(f"set -o pipefail; {train(folder, out)} {json_} {where}")
    assert ran.returncode == status, ran.stderr
    assert load_run(out).theta.size and words in ran.stderr
    assert ran.stderr.count(b"\n") == bool(words)


@pytest.mark.by_day(share=1 / 3)
@posix
@FULL
@pytest.mark.parametrize("command", ["info", "--help", "classify {}/run.npz --require-certified"])
def test_status_is_3_if_output_cannot_be_written(command, folder):
    ran = shell(f"{PROGRAM} {command.format(folder)} >/dev/full")
    assert ran.returncode == 3 and ran.stderr.count(b"\n") == 1
    assert b"standard output could not be written: " in ran.stderr
    ran = shell(f"{PROGRAM} {command.format(folder)} >&-")
    assert ran.returncode in (0, 1) and ran.stderr == b""


@pytest.mark.by_day(share=1 / 3)
@posix
@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", "2>/dev/full"])
def test_status_is_2_for_invalid_arguments_if_standard_error_fails(where):
    if "full" in where and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for command in ("classify missing.npz", "train iris --epochs x"):
        ran = shell(f"{PROGRAM} {command} {where}")
        assert ran.returncode == 2 and ran.stdout == b"" and b"Traceback" not in ran.stderr
        assert ran.stderr.count(b"\n") == ("2>" not in where)


@pytest.mark.by_day(share=1 / 2)
@posix
@pytest.mark.parametrize("both", [False, True])
def test_a_closed_terminal_does_not_end_training(both, folder, tmp_path):
    """If the terminal is closed, so that writing to it fails with EIO, training continues, saves
    its run and exits with status 3.
    """
    pty = pytest.importorskip("pty")
    out = tmp_path / "net.npz"
    ours, theirs = pty.openpty()
    command = train(folder, out).split()
    command = [word.strip("'") for word in command]
    other = {} if both else {"stderr": subprocess.PIPE}
    with subprocess.Popen(
        command, stdout=theirs, **({"stderr": theirs} | other), start_new_session=True
    ) as ran:
        os.close(theirs)
        os.close(ours)
        _, said = ran.communicate(timeout=1200)
    assert ran.returncode == 3 and load_run(out).theta.size
    assert both or (b"Input/output error; saved " in said and said.count(b"\n") == 1)


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
        assert fc.minimize(ob, method="adam", max_iter=3, progress=True, seed=0).nit == 3
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
    ob = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse", l2=0.1)
    screen.truncate(0)
    fc.classify(ob, ob.model.init(seed=0))
    assert screen.getvalue() == ""


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


@pytest.mark.usefixtures("undrawn")
@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("name", ["té.npz", "\u6570.npz", "d\udcff.npz"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_characters_outside_the_output_encoding_are_escaped(
    name, encoding, folder, tmp_path, monkeypatch
):
    """Commands on files whose names the output's encoding cannot represent exit with status 0,
    print nothing to standard error, and save the names unchanged.
    """
    try:
        (tmp_path / name).write_bytes((folder / "d.npz").read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    run, report = tmp_path / ("r" + name), tmp_path / (name + ".html")
    small = ["--hidden", "2", "--epochs", "2"]
    for command in (
        ["train", tmp_path / name, *small, "--refine", "none", "--out", run],
        ["classify", run],
        ["report", run, "--probes", "1", "--steps", "3", "--out", report],
        ["classify", run, "--json"],
    ):
        with monkeypatch.context() as patch:
            streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            assert main(list(map(str, command))) == 0
        told, wrong = (stream.buffer.getvalue().decode(encoding) for stream in streams)
        assert told and not wrong
    assert json.loads(told)["data"] == Path(name).stem
    assert "<h2" in report.read_text("utf-8")


def test_commands_run_without_standard_streams(folder, tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            assert main(["classify", str(folder / "missing.npz")]) == 2
            status = main(["classify", str(folder / "run.npz")])
            with pytest.raises(SystemExit) as stop:
                main(["train", "iris", "--epochs", "x"])
        assert stop.value.code == 2 and status == (0 if stream is None else 3)


def test_status_is_3_with_results_printed_if_a_figure_cannot_be_saved(
    folder, tmp_path, monkeypatch, capsys
):
    """If the disk is full when a figure or a report is written, the numbers are printed as JSON
    with the error, and the status is 3.
    """
    pytest.importorskip("matplotlib")

    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "write_atomically", raise_disk_full)
    monkeypatch.setattr("fastcurv.applications.cli.report.write_atomically", raise_disk_full)
    short = ["--probes", "2", "--steps", "5", "--json"]
    spectrum = ["spectrum", str(folder / "run.npz"), "--figure", str(tmp_path / "p.png"), *short]
    for command in (spectrum, ["report", str(folder / "run.npz"), *short]):
        assert main(command) == 3
        said, wrong = capsys.readouterr()
        found = json.loads(said)
        assert "No space left" in found["error"] and wrong.count("\n") == 1
        assert found.get("eigenvalues") or found["kind"]


def test_figures_create_their_folder(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "new" / "p.svg"
    short = ["--probes", "2", "--steps", "5", "--figure", str(figure)]
    assert main(["spectrum", str(folder / "run.npz"), *short]) == 0
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize("error", [ConnectionError("gone"), MemoryError(), KeyboardInterrupt()])
def test_aborted_training_saves_the_best_point(error, folder, tmp_path, monkeypatch, capsys):
    """If a callback raises an error, memory is exhausted or Ctrl-C is pressed during training, the
    command saves the point of the lowest loss, with status 3 or 130.
    """
    real, seen = fc.minimize, []

    def abort(objective, theta, method, *, callback, **options):
        def watch(intermediate_result):
            callback(intermediate_result)
            seen.append((intermediate_result.fun, intermediate_result.x))
            if len(seen) == 5:
                raise error

        return real(objective, theta, method, callback=watch, **options)

    monkeypatch.setattr(fc, "minimize", abort)
    out = tmp_path / "net.npz"
    words = ["train", str(folder / "d.npz"), "--hidden", "2", "--epochs", "2", "--quiet"]
    if isinstance(error, KeyboardInterrupt):
        monkeypatch.setattr(
            "fastcurv.applications.cli.commands.format_point",
            lambda *_: "state" if len(seen) < 2 else (_ for _ in ()).throw(error),
        )
    status = main([*words, "--out", str(out)])
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 3)
    assert f"; saved {out}" in capsys.readouterr().err
    assert np.array_equal(load_run(out).theta, min(seen, key=lambda pair: pair[0])[1])


def test_ctrl_c_in_one_method_skips_the_next(folder, tmp_path, monkeypatch, capsys):
    """After Ctrl-C in the first method of a training, the second method is not run, and the command
    saves the final point of the first and exits with status 130.
    """
    real, begun, out = fc.minimize, [], tmp_path / "net.npz"

    def press_ctrl_c(objective, theta, method, *, callback, **options):
        def press(intermediate_result):
            callback(intermediate_result)
            raise KeyboardInterrupt

        begun.append(real(objective, theta, method, callback=press, **options))
        return begun[-1]

    monkeypatch.setattr(fc, "minimize", press_ctrl_c)
    words = ["train", str(folder / "d.npz"), "--hidden", "2", "--epochs", "9", "--quiet"]
    assert main([*words, "--out", str(out)]) == 130
    assert capsys.readouterr().err == f"fastcurv train: interrupted; saved {out}\n"
    assert len(begun) == 1 and begun[0].stopped == "interrupted"
    assert np.array_equal(load_run(out).theta, begun[0].x)


# --- text from files of others


def hostile_run(folder, path, **recipe):
    """Return the path of a saved run whose recipe and phases contain control characters and markup.
    `recipe` replaces fields of the recipe.
    """
    saved = load_run(folder / "run.npz")
    history = {name: np.arange(1.0, 4) for name in ("loss", "gradient_norm", "time")}
    told = replace(saved.recipe, digest="", **recipe)
    return save_run(path, told, told.build_model(saved.recipe.load_dataset()), saved.theta, history,
                    ((HOSTILE, 3),))  # fmt: skip


def assert_harmless(text):
    assert all(c == "\n" or c.isprintable() for c in text), repr(text)
    text.encode()


@pytest.mark.parametrize("kind", ["npz", "csv", "onnx", "nothing"])
def test_names_from_files_reach_the_terminal_escaped(kind, folder, tmp_path, capsys):
    """Control characters in the name of a run's data are escaped in messages, whether the data are
    an .npz file, missing or of another format.
    """
    place = tmp_path / f"{HOSTILE.replace('/', '')}.{kind}"
    if kind == "npz":
        place.write_bytes((folder / "d.npz").read_bytes())
    run = hostile_run(folder, tmp_path / "stranger.npz", data=str(place))
    for command in ("classify", "spectrum"):
        main([command, str(run)])
        said = "".join(capsys.readouterr())
        assert_harmless(said)
        assert "\\x1b]0;owned\\x07" in said and said.count("\n") < 60


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
    assert_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("what", ["arrays", "column", "cell", "recipe", "state", "argument"])
def test_all_text_from_a_file_is_escaped(what, folder, tmp_path, capsys):
    data, words = tmp_path / "d.npz", HOSTILE.encode("utf-8", "replace").decode()
    if what == "arrays":
        np.savez(data, **{words.replace("/", "").replace("\x00", ""): np.ones(3)})
    elif what in ("column", "cell"):
        data = tmp_path / "d.csv"
        row = '"' + words.replace("\r", "").replace("\n", "") + '"'
        head, cells = (row, "1") if what == "column" else ("a", row)
        data.write_text(f"{head},y\n{cells},2\n{cells},2\n")
    elif what == "recipe":
        np.savez(data, theta=np.ones(3), recipe=json.dumps({words: 1}))
    elif what == "state":
        from fastcurv.common.files import write_tensors

        data = tmp_path / "d.safetensors"
        write_tensors(data, {words: np.ones((2, 2)), words + "b": np.ones(2), "c": np.ones(1)})
    command = ["classify", str(data), "--data", str(folder / "d.npz")]
    if what in ("arrays", "column", "cell"):
        command = ["train", str(data), "--target", words] if what == "column" else command[:0]
        command = command or ["train", str(data)]
    if what == "argument":
        command = ["train", "iris", f"--{words}"]
    try:
        assert main(command) == 2
    except SystemExit as stop:
        assert stop.code == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert_harmless(said.err)


class PageReader(HTMLParser):
    """An HTML parser that collects the tags, the headings and the text of the scripts of a page."""

    def __init__(self):
        super().__init__()
        self.inside, self.headings, self.scripts, self.tags = "", [], [], []

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.inside == "h2":
            self.headings.append(data)
        if self.inside == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.inside = ""


HEADINGS = [
    "Verdict",
    "The end of training",
    "Training",
    "What would help",
    "Spectrum",
    "Landscape",
    "Layer by layer",
    "Cost",
]


def test_reports_are_valid_html_for_any_text_in_a_file(folder, tmp_path):
    data = tmp_path / f"{HOSTILE.replace('/', '')[:200]}.npz"
    data.write_bytes((folder / "d.npz").read_bytes())
    run = hostile_run(folder, tmp_path / "stranger.npz", data=str(data))
    target = tmp_path / "r.html"
    short = ["--probes", "1", "--steps", "3"]
    assert main(["report", str(run), "--out", str(target), *short]) == 0
    text = target.read_text("utf-8")
    assert_harmless(text)
    reader = PageReader()
    reader.feed(text)
    assert reader.headings == HEADINGS and reader.tags.count("svg") == 5
    assert len(reader.scripts) == 1


@pytest.mark.parametrize(
    "word", [*HOSTILE[:60].split(">"), "<!--<script>", "</script>", "]]>", "<"]
)
def test_text_cannot_leave_its_element_of_the_report(word):
    pytest.importorskip("matplotlib")
    picture = draw_dots(np.ones(1), np.ones(1), word, word, labels=[(0, word)])
    choice = {"rows": [0], "cells": {0: [word]}}
    text = (
        Report(word)
        .add_section(word)
        .add_figure(picture, word, dots=[(word, "")], choice=choice)
        .add_text(word)
        .add_section("End")
        .to_html()
    )
    reader = PageReader()
    reader.feed(text)
    assert reader.headings[1:] == ["End"] and len(reader.scripts) == 2
    assert json.loads(reader.scripts[0])["cells"]["0"] == [word]


# --- malformed runs


def odd_record(dice, n):
    """Return an array, valid or malformed, or None, to replace a record of n numbers."""
    good = np.linspace(1, 2, n)
    return [
        good, good, good, good, good, good, np.full(n, np.nan), np.full(n, np.inf), -good,
        np.zeros(0), np.ones((n, 2)), np.array(3.0), np.ones(n + 1), np.arange(n), good * 1j,
        np.array(["a"] * n), good.astype(np.float32), np.array([True] * n), None,
    ][dice.integers(19)]  # fmt: skip


PHASES = [
    "[]", "[]", '[["adam", 3]]', '[["adam", 1], ["newton", 2]]', '[["adam", -1], ["x", 4]]', "{}",
    '[["adam", 9]]', '[["adam", 1.5]]', '[["adam"]]', '["ab"]', '[["adam", true]]', "null", "3",
    '[[null, 3]]', '[["adam", "3"]]', '[["adam", 1e400]]', '[["adam", 0], ["b", 3]]',
    '{"adam": 3}', '[["adam", 99999999999999999999]]', '"adam"', "[[[], 3]]", "[", '[["a", NaN]]',
]  # fmt: skip


def test_malformed_histories_are_drawn_or_rejected(tmp_path):
    """Each of 40 runs with malformed or missing records and phases is rejected with a short error,
    or drawn, without a warning.
    """
    dice, path, drawn = np.random.default_rng(0), tmp_path / "run.npz", 0
    recipe = json.dumps({"data": "iris"})
    for _ in range(40):
        held = {"theta": np.ones(3), "recipe": recipe, "phases": PHASES[dice.integers(len(PHASES))]}
        names = ("loss", "gradient_norm", "time", "loss", "gradient_norm", "time", "colour")
        for name in names[: 6 + (dice.random() < 0.1)]:
            values = odd_record(dice, 3) if dice.random() < 0.2 else np.ones(3)
            if values is not None:
                held[f"history.{name}"] = values
        np.savez(path, **held)
        try:
            saved = load_run(path)
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 500
            continue
        about = Report("r")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            page._add_training(about, saved)
        assert len(about.sections[-1].pictures) in (0, 2)
        drawn += bool(about.sections[-1].pictures)
    assert 4 < drawn < 36


def test_runs_without_times_are_rejected(folder, tmp_path, capsys):
    saved = load_run(folder / "run.npz")
    history = {"loss": np.ones(3), "gradient_norm": np.ones(3)}
    model = saved.recipe.build_objective().model
    run = save_run(tmp_path / "run.npz", saved.recipe, model, saved.theta, history)
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr().err
    assert "the history must have loss, gradient_norm, time, got loss, gradient_norm." in said


def test_flipped_bits_of_a_run_are_detected(folder, tmp_path):
    model, theta = fc.MLP([2, 1, 2]), fc.MLP([2, 1, 2]).init(seed=0)
    path = save_run(tmp_path / "run.npz", TrainingRecipe("iris"), model, theta)
    content = path.read_bytes()
    for bit in [
        *range(0, 8 * len(content), 97),
        *range(8 * len(content) - 900, 8 * len(content), 7),
    ]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="run.npz"):
            load_run(path)
    path.write_bytes(content)
    assert np.array_equal(np.load(path)["theta"], theta)
    np.savez(path, **dict(np.load(path)))
    assert np.array_equal(load_run(path).theta, theta)
    other = save_run(tmp_path / "run.safetensors", TrainingRecipe("iris"), model, theta)
    content = other.read_bytes()
    for bit in range(0, 8 * len(content), 29):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        other.write_bytes(flipped)
        with pytest.raises(ValueError, match="run.safetensors"):
            load_run(other)


@posix
def test_run_names_of_maximum_length_are_accepted(folder, tmp_path):
    for name in ("x" * 251 + ".npz", "\u6570" * 81 + ".safetensors"):
        out = tmp_path / name
        words = ["train", str(folder / "d.npz"), "--hidden", "2", "--epochs", "1", "--refine"]
        assert main([*words, "none", "--out", str(out)]) == 0
        assert load_run(out).theta.size
    assert main([*words, "none", "--out", str(tmp_path / ("x" * 252 + ".npz"))]) == 2


def test_an_empty_dask_address_is_rejected(capsys):
    for words in ("", " "):
        with pytest.raises(SystemExit) as stop:
            main(["train", "iris", "--dask", words])
        assert stop.value.code == 2 and "the address of a scheduler" in capsys.readouterr().err


INTERRUPTED = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
"""
BY_SCRIPT = """
sys.argv = ["fastcurv", "train", "data.csv"]
from fastcurv_command import main
sys.exit(main())
"""


@posix
@pytest.mark.parametrize("module", ["numpy", "scipy.linalg", "fastcurv.applications.cli.commands"])
def test_ctrl_c_during_imports_prints_no_traceback(module):
    """If Ctrl-C is pressed while the command is imported, the process ends by SIGINT or with status
    130, and prints no traceback.
    """
    command = [sys.executable, "-c", INTERRUPTED.format(module) + BY_SCRIPT]
    paths = os.pathsep.join(filter(None, sys.path))
    run = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert run.returncode in (-signal.SIGINT, 130), run
    assert run.stdout == "" and run.stderr in ("", "fastcurv train: interrupted\n")
